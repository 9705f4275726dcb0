//! Whose turn is it? The slots of a gate and the line in front of them, together.
//!
//! One thing holds after every step: while somebody waits, no slot is free. So whoever comes need not look at the line to
//! see that nobody is passed by, and a slot that is given back goes from hand to hand.

use std::task::Waker;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::capacity::{Capacity, Concurrency, Mean};
use super::line::Queue;

/// Those who wait for slots, and what says how many there are. Outlives plans.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What the latest plan says that was made, which may never come into force.
    pub(super) wanted: Option<Concurrency>,
    /// None: no plan that asks for it has come into force yet.
    pub(super) capacity: Option<Capacity>,
    pub(super) queue: Queue,
    /// Whose turn it is who does not know yet, by their tickets, and since when. Their slots are taken.
    handed: SmallVec<[(u64, Instant); 2]>,
    /// How long slots are held.
    pub(super) held: Mean,
}

/// Those who are to be woken, once no lock is held: they may run at once.
#[derive(Debug, Default)]
#[must_use = "whoever is not woken waits until its time is up"]
pub(super) struct Wake(SmallVec<[Waker; 2]>);

impl Wake {
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    pub(super) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl Turns {
    /// Hands free slots to whoever is next. To be called whenever one may have become free.
    pub(super) fn serve(&mut self, slots: &mut u64, now: Instant) -> Wake {
        let limit = self.capacity.as_ref().and_then(Capacity::limit);
        let mut wake = Wake::default();
        while limit.is_none_or(|limit| *slots < limit) {
            let Some((ticket, waiter)) = self.queue.next(now) else {
                self.queue.forget();
                break;
            };
            if now < waiter.until {
                *slots += 1;
                self.handed.push((ticket, now));
            }
            wake.add(waiter.waker);
        }
        wake
    }

    /// Puts what the latest plan says in force.
    pub(super) fn enforce(&mut self, slots: &mut u64, now: Instant) -> Wake {
        let wanted = self.wanted;
        match &mut self.capacity {
            Some(capacity) => capacity.rule(wanted),
            None => self.capacity = Some(Capacity::new(wanted)),
        }
        self.serve(slots, now)
    }

    /// Takes what was handed to a ticket. Gives since when it is held.
    pub(super) fn claim(&mut self, ticket: u64) -> Option<Instant> {
        let place = self.handed.iter().position(|(whose, _)| *whose == ticket)?;
        let (_, since) = self.handed.swap_remove(place);
        Some(since)
    }

    /// How long one more request of a caller would wait, if all that are under way take as long as others did and end
    /// evenly. None: nobody knows.
    pub(super) fn expected(
        &self,
        (slots, limit): (u64, u64),
        caller: &str,
        weight: u32,
    ) -> Option<Duration> {
        let Some(over) = slots.checked_sub(limit) else {
            return Some(Duration::ZERO);
        };
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let ahead = u64::try_from(self.queue.ahead(caller, weight)).unwrap_or(u64::MAX);
        let ends = number(over.saturating_add(ahead).saturating_add(1));
        let held = self.held.get()?;
        Some(held.saturating_mul(ends) / number(slots.max(1)))
    }
    /// Whether anybody is called or waits.
    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        !self.handed.is_empty() || self.queue.len() > 0
    }
}
