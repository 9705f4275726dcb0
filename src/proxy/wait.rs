//! What becomes of a request while its client waits for the answer, and when it leaves meanwhile?
//!
//! A client that has heard nothing for too long gets the status, and what it waits for moves into the body, as it is.
//! To leave is to drop what waits. If its provider is to be read on, the request then goes on with the finisher, as it
//! is: the same future, and nothing of it is done twice.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::{Answered, Worker};
use crate::rejection::Rejection;
use crate::response::{self, Alive, Finisher, Opening};
use crate::telemetry::Record;
use crate::upstream::Presence;

/// What a request comes to.
pub(super) type Outcome = (Result<Answered, Rejection>, Box<Record>);

/// Where a request's future lies, so that it can be handed on as it is. The outer box is the one that is kept.
type Place<F> = Box<Pin<Box<Option<F>>>>;

/// Places that requests have left, for the next ones: a place is some kilobytes, and to get so much from the allocator and
/// to give it back for each request costs more than all else that is done to wait.
#[derive(Default)]
pub(super) struct Places(Mutex<Vec<Box<dyn Any + Send>>>);

/// The most that are kept.
const KEPT: usize = 128;

impl Places {
    fn kept(&self) -> MutexGuard<'_, Vec<Box<dyn Any + Send>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::unnecessary_box_returns,
        reason = "it is the one that was kept"
    )]
    fn take<F: Send + 'static>(&self) -> Place<F> {
        let kept = self.kept().pop();
        let kept = kept.and_then(|kept| kept.downcast().ok());
        kept.unwrap_or_else(|| Box::new(Box::pin(None)))
    }

    fn leave<F: Send + 'static>(&self, place: Place<F>) {
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push(place);
        }
    }
}

/// What is written down of a request whose status may go out before its answer: dropped in its middle, too.
pub(super) struct Noted<'n> {
    pub(super) record: &'n mut Record,
    pub(super) presence: &'n Presence,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if self.presence.is_begun() {
            self.record.begins_early();
        }
    }
}

/// A client that waits, and has heard nothing yet.
pub(super) struct Wait<F: Future<Output = Outcome> + Send + 'static> {
    pub(super) asking: Asking<F>,
    pub(super) opening: Opening,
    /// None before whoever is asked says how long it may hear nothing.
    pub(super) alive: Option<Box<Alive>>,
}

impl<F: Future<Output = Outcome> + Send + 'static> Wait<F> {
    /// What it waits for; or, should it have heard nothing for too long before that, what knows so.
    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outcome, Box<Alive>>> {
        if let Poll::Ready(outcome) = self.asking.poll_outcome(cx) {
            return Poll::Ready(Ok(outcome));
        }
        let (presence, worker) = (&self.asking.presence, &self.asking.worker);
        if presence.keepalive().is_none() {
            return Poll::Pending;
        }
        let alive = self.alive.take();
        let mut alive = alive.unwrap_or_else(|| Box::new(Alive::of(presence)));
        if alive.poll_silence(Some(&worker.timers), cx).is_ready() {
            return Poll::Ready(Err(alive));
        }
        self.alive = Some(alive);
        Poll::Pending
    }
}

/// What a request comes to, for as long as somebody waits for it.
pub(super) struct Asking<F: Future<Output = Outcome> + Send + 'static> {
    /// None once it is known.
    place: Option<Place<F>>,
    presence: Presence,
    worker: Arc<Worker>,
}

impl<F: Future<Output = Outcome> + Send + 'static> Asking<F> {
    pub(super) fn new(ask: impl FnOnce() -> F, presence: Presence, worker: Arc<Worker>) -> Self {
        let mut place = worker.places.take();
        place.set(Some(ask()));
        Self {
            place: Some(place),
            presence,
            worker,
        }
    }

    /// Who reads on what clients leave.
    pub(super) fn finisher(&self) -> &Arc<Finisher> {
        &self.worker.finisher
    }

    /// The same, for somebody else to wait for.
    pub(super) fn hand_over(&mut self) -> Self {
        Self {
            place: self.place.take(),
            presence: self.presence.clone(),
            worker: Arc::clone(&self.worker),
        }
    }

    /// What it comes to.
    #[inline]
    pub(super) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(asking) = self
            .place
            .as_deref_mut()
            .and_then(|it| it.as_mut().as_pin_mut())
        else {
            return Poll::Pending;
        };
        let outcome = ready!(asking.poll(cx));
        if let Some(mut place) = self.place.take() {
            place.set(None);
            self.worker.places.leave(place);
        }
        Poll::Ready(outcome)
    }
}

impl<F: Future<Output = Outcome> + Send + 'static> Drop for Asking<F> {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else {
            return;
        };
        let finisher = self.finisher();
        let closing = finisher.closing().clone();
        if closing.is_closed() {
            self.presence.stops(Instant::now());
        } else if let Some(most) = self.presence.leaves(Instant::now()) {
            let presence = self.presence.clone();
            finisher.take(most, async move {
                let Some(asking) = (*place).as_mut().as_pin_mut() else {
                    return;
                };
                let (answered, mut record) = asking.await;
                record.ends_early(presence.absence());
                if let Ok(Answered::Relayed(answer, _, tab)) = answered {
                    response::read_on(answer, tab, record, &closing).await;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_by_its_own_kind_only() {
        let places = Places::default();
        let place = places.take::<[u64; 64]>();
        let address = std::ptr::from_ref(&**place);
        places.leave(place);
        let again = places.take::<[u64; 64]>();
        assert_eq!((std::ptr::from_ref(&**again), **again), (address, None));
        places.leave(again);
        assert_eq!(**places.take::<[u8; 3]>(), None);
        for _ in 0..=KEPT {
            places.leave(Box::new(Box::pin(None::<u8>)));
        }
        assert_eq!(places.kept().len(), KEPT);
    }
}
