//! May there be one more try? Retries are for failures that are few: when many requests fail, to ask for each of them again
//! makes it worse for everybody.
//!
//! Each answer earns a part of a retry, and each retry (here or at another target) takes a whole one; so of many requests
//! at most every sixth try is one. A little comes with time, so that where little is asked for, retries go on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// In thousandths of a retry, as all that follows: what an answer earns.
const EARNED: u64 = 150;
/// Time that brings one, so that a second brings a retry.
const A_THOUSANDTH: Duration = Duration::from_millis(1);
/// The most that is kept: so many retries can be made at once.
const MOST: u64 = 100_000;
/// What a retry takes.
const RETRY: u64 = 1_000;

/// What the requests for one model may still be retried.
#[derive(Debug)]
pub struct Allowance {
    left: AtomicU64,
    /// Up to when it has what time brings. None: it is full.
    since: Mutex<Option<Instant>>,
}

impl Default for Allowance {
    fn default() -> Self {
        let (left, since) = (MOST.into(), Mutex::default());
        Self { left, since }
    }
}

impl Allowance {
    /// A request was answered. While nothing is retried this is one look.
    pub fn earn(&self) {
        self.add(EARNED);
    }

    /// Takes a retry. False if there is none.
    pub fn take(&self, now: Instant) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let brought = u64::try_from(idle.as_millis())
            .unwrap_or(u64::MAX)
            .min(MOST);
        // What is less than a thousandth is brought next time.
        let rest = idle.saturating_sub(Duration::from_millis(brought));
        *since = Some(now.checked_sub(rest.min(A_THOUSANDTH)).unwrap_or(now));
        self.add(brought);
        let taken = |left: u64| left.checked_sub(RETRY);
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        self.left.fetch_update(set, fetch, taken).is_ok()
    }

    fn add(&self, more: u64) {
        let added = |left: u64| (left < MOST).then(|| (left + more).min(MOST));
        // An error says that it is full already.
        let _ = self
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_everything_fails_tries_are_soon_as_many_as_requests() {
        let (allowance, now) = (Allowance::default(), Instant::now());
        let retries = (0..10_000).filter(|_| allowance.take(now)).count();
        assert_eq!(retries, 100);
    }

    #[test]
    fn of_many_answers_some_are_retries() {
        let (allowance, now) = (Allowance::default(), Instant::now());
        let mut retries = 0;
        for _ in 0..10_000 {
            retries += u32::from(allowance.take(now));
            allowance.earn();
        }
        assert!((1_500..1_700).contains(&retries), "{retries}");
    }

    #[test]
    fn where_little_is_asked_for_time_brings_enough() {
        let (allowance, mut now) = (Allowance::default(), Instant::now());
        for _ in 0..1_000 {
            assert!(allowance.take(now));
            now += Duration::from_secs(1);
        }
        while allowance.take(now) {}
        assert!(allowance.take(now + Duration::from_secs(1)));
        assert!(!allowance.take(now + Duration::from_secs(1)));
    }

    #[test]
    fn time_brings_as_much_however_often_it_is_asked_for() {
        let (allowance, mut now) = (Allowance::default(), Instant::now());
        while allowance.take(now) {}
        let mut retries = 0;
        for _ in 0..20_000 {
            now += Duration::from_micros(500);
            retries += u32::from(allowance.take(now));
        }
        assert_eq!(retries, 10, "ten seconds");
    }
}
