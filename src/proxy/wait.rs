//! What becomes of a request whose client leaves while it waits for the answer?
//!
//! To leave is to drop what waits. If its provider is to be read on, the request then goes on with the finisher, as it
//! is: the same future, and nothing of it is done twice.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::Answered;
use crate::rejection::Rejection;
use crate::response::{self, Finisher};
use crate::telemetry::Record;
use crate::upstream::Presence;

/// What a request comes to.
pub(super) type Outcome = (Result<Answered, Rejection>, Box<Record>);

/// Waits for what a request comes to, for as long as the client does.
pub(super) struct Wait<'w, F: Future<Output = Outcome> + Send + 'static> {
    /// None once it is known.
    asking: Option<Pin<Box<F>>>,
    presence: Presence,
    finisher: &'w Finisher,
}

impl<'w, F: Future<Output = Outcome> + Send + 'static> Wait<'w, F> {
    pub(super) fn new(asking: F, presence: Presence, finisher: &'w Finisher) -> Self {
        Self {
            asking: Some(Box::pin(asking)),
            presence,
            finisher,
        }
    }
}

impl<F: Future<Output = Outcome> + Send + 'static> Future for Wait<'_, F> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(asking) = &mut self.asking else {
            return Poll::Pending;
        };
        let outcome = ready!(asking.as_mut().poll(cx));
        self.asking = None;
        Poll::Ready(outcome)
    }
}

impl<F: Future<Output = Outcome> + Send + 'static> Drop for Wait<'_, F> {
    fn drop(&mut self) {
        let Some(asking) = self.asking.take() else {
            return;
        };
        let closing = self.finisher.closing().clone();
        if closing.is_closed() {
            self.presence.stops(Instant::now());
        } else if let Some(most) = self.presence.leaves(Instant::now()) {
            let presence = self.presence.clone();
            self.finisher.take(most, async move {
                let (answered, mut record) = asking.await;
                record.ends_early(presence.absence());
                if let Ok(Answered::Relayed(answer, _, tab)) = answered {
                    response::read_on(answer, tab, record, &closing).await;
                }
            });
        }
    }
}
