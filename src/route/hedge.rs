//! When is a second target asked, because the first takes so long? And how often at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Target;

/// A whole, in the parts that shares are counted in.
const WHOLE: u64 = 1_000_000;
/// So many hedges can be made at once, after a time in which none was needed.
const MOST: u64 = 10 * WHOLE;

/// A second request, where the first content of the first comes late.
#[derive(Clone, Debug)]
pub struct Hedge {
    /// When that is late.
    pub after: After,
    /// So many of its model's requests may have one, in millionths.
    pub at_most: u32,
    /// What is left of that.
    pub share: Arc<Share>,
}

/// How late is late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    /// So long after it was asked.
    Fixed(Duration),
    /// Later than this part of the target's own answers of late. While there were few of them: never.
    Percentile(f64),
}

/// How many hedges there may still be. Outlives plans.
#[derive(Debug, Default)]
pub struct Share(AtomicU64);

impl Hedge {
    /// The same as [`Self::late`], for one more request, which counts.
    pub fn after(&self, target: &Target) -> Option<Duration> {
        self.share.earns(self.at_most);
        self.late(target)
    }

    /// How long a target may take before another is asked beside it. None: as long as it likes.
    pub fn late(&self, target: &Target) -> Option<Duration> {
        match self.after {
            After::Fixed(after) => Some(after),
            After::Percentile(part) => target.health.pace().percentile(part),
        }
    }
}

impl Share {
    fn earns(&self, part: u32) {
        let more = |left: u64| (left < MOST).then(|| (left + u64::from(part)).min(MOST));
        // An error says that it is full already.
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    }

    /// Takes a hedge. False if there is none.
    pub fn take(&self) -> bool {
        let less = |left: u64| left.checked_sub(WHOLE);
        let taken = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        taken.is_ok()
    }

    /// Gives one back that was not made.
    pub fn give_back(&self) {
        self.earns(u32::try_from(WHOLE).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_made_than_their_share() {
        let share = Share::default();
        assert!(!share.take(), "not before anything was asked");
        let mut made = 0;
        for _ in 0..10_000 {
            share.earns(20_000);
            made += u32::from(share.take());
        }
        assert_eq!(made, 200, "two in a hundred");
        (0..100_000).for_each(|_| share.earns(20_000));
        let at_once = (0..100).filter(|_| share.take()).count();
        assert_eq!(at_once, 10, "what was not needed is not kept for ever");
        share.give_back();
        assert!(share.take());
    }
}
