//! Is whoever asked still there, and has it heard anything? And how long is an answer read on that nobody waits for?
//!
//! Shared by a request, which knows how far it has come, and by whoever drops it, who knows why. Whatever ends a request
//! first is what its entries say: a client that left before we stopped has left.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::End;

/// Whether whoever asked is still there.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How long the try under way is read on once nobody waits for it, in milliseconds. 0: not at all.
    finish: AtomicU32,
    /// How long whoever asked may hear nothing, in milliseconds. 0: for ever.
    keepalive: AtomicU32,
    /// Since when whoever asked has nothing left to say, and listens.
    listens: OnceLock<Instant>,
    /// The status has gone out, before there was an answer.
    is_begun: AtomicBool,
    /// Why nobody waits any more, and since when.
    absence: OnceLock<(End, Instant)>,
}

impl Presence {
    /// From here on it is read on for so long, should the client leave.
    pub(super) fn finishes(&self, most: Option<Duration>) {
        self.0.finish.store(millis(most), Ordering::Release);
    }

    /// From here on whoever asked may hear nothing for so long. None: for ever.
    pub fn keeps_alive(&self, every: Option<Duration>) {
        self.0.keepalive.store(millis(every), Ordering::Release);
    }

    /// How long whoever asked may hear nothing before it is told that there is more to come. None: for ever.
    pub fn keepalive(&self) -> Option<Duration> {
        let millis = self.0.keepalive.load(Ordering::Acquire);
        (millis > 0).then(|| Duration::from_millis(millis.into()))
    }

    /// Whoever asked has said all: from here on it waits.
    pub fn listens(&self, now: Instant) {
        let _ = self.0.listens.set(now);
    }

    /// Since when whoever asked only waits.
    pub fn listens_since(&self) -> Option<Instant> {
        self.0.listens.get().copied()
    }

    /// The status goes out, though there is no answer yet.
    pub fn begins(&self) {
        self.0.is_begun.store(true, Ordering::Release);
    }

    /// Whether the status went out before there was an answer.
    pub fn is_begun(&self) -> bool {
        self.0.is_begun.load(Ordering::Acquire)
    }

    /// The client leaves. Gives how long its answer is to be read on, if it is.
    pub fn leaves(&self, now: Instant) -> Option<Duration> {
        let is_first = self.0.absence.set((End::ClientGone, now)).is_ok();
        let millis = self.0.finish.load(Ordering::Acquire);
        (is_first && millis > 0).then(|| Duration::from_millis(millis.into()))
    }

    /// We stop: nobody will be answered.
    pub fn stops(&self, now: Instant) {
        // Who left before has left.
        let _ = self.0.absence.set((End::Shutdown, now));
    }

    /// Why nobody waits any more, and since when. None: somebody does.
    pub fn absence(&self) -> Option<(End, Instant)> {
        self.0.absence.get().copied()
    }

    /// Waits for a future, and gives back what is held for it as soon as nobody else waits for it.
    ///
    /// The future is long, and is not moved for this.
    pub async fn holding<T, F: Future>(
        &self,
        held: &mut Option<T>,
        mut future: Pin<&mut F>,
    ) -> F::Output {
        std::future::poll_fn(|cx| {
            if self.absence().is_some() {
                *held = None;
            }
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// A length of time as it is kept here.
fn millis(length: Option<Duration>) -> u32 {
    length.map_or(0, |length| {
        u32::try_from(length.as_millis()).unwrap_or(u32::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_read_on_once_and_only_while_one_is_due() {
        let (presence, now) = (Presence::default(), Instant::now());
        assert_eq!(presence.leaves(now), None, "nothing was sent");
        let presence = Presence::default();
        presence.finishes(Some(Duration::from_secs(10)));
        presence.finishes(None);
        assert_eq!(presence.leaves(now), None, "it has come already");
        let presence = Presence::default();
        presence.finishes(Some(Duration::from_secs(10)));
        assert_eq!(presence.leaves(now), Some(Duration::from_secs(10)));
        assert_eq!(
            presence.leaves(now),
            None,
            "whoever reads on is not read on for"
        );
    }

    #[tokio::test]
    async fn whatever_ends_it_first_is_why() {
        let (presence, now) = (Presence::default(), Instant::now());
        assert_eq!(presence.absence(), None);
        presence.leaves(now);
        presence.stops(now);
        assert_eq!(presence.absence(), Some((End::ClientGone, now)));
        let presence = Presence::default();
        presence.stops(now);
        presence.leaves(now);
        assert_eq!(presence.absence(), Some((End::Shutdown, now)));
    }

    #[tokio::test]
    async fn what_is_held_is_given_back_when_nobody_waits() {
        let presence = Presence::default();
        let mut held = Some(());
        presence.holding(&mut held, pin!(async {})).await;
        assert_eq!(held, Some(()));
        presence.leaves(Instant::now());
        presence.holding(&mut held, pin!(async {})).await;
        assert_eq!(held, None);
    }
}
