//! How often was something wrong shown? Whoever shows it again and again is told to wait, and the log is told once a minute.
//!
//! What is right passes however much was wrong before: nobody can lock others out. So this slows nobody who guesses; what
//! opens must be too long to be guessed.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Counts what was wrong.
#[derive(Debug)]
pub struct Guesses {
    guesses: DefaultDirectRateLimiter,
    /// A line of the log a minute.
    lines: DefaultDirectRateLimiter,
    /// What no line has told of yet.
    untold: AtomicU64,
}

/// Too much was wrong of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// When the next one is answered as it is.
    pub again: Duration,
}

impl Guesses {
    /// So many a minute are told that they are wrong, further ones that they are too many.
    pub fn of(per_minute: NonZeroU32) -> Self {
        Self {
            guesses: RateLimiter::direct(Quota::per_minute(per_minute)),
            lines: RateLimiter::direct(Quota::per_minute(NonZeroU32::MIN)),
            untold: AtomicU64::new(0),
        }
    }

    /// One more was wrong. `tell` is given how many were, if it is time for a line of the log.
    pub fn wrong(&self, tell: impl FnOnce(u64)) -> Result<(), TooMany> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        if self.lines.check().is_ok() {
            tell(self.untold.swap(0, Ordering::Relaxed));
        }
        self.guesses.check().map_err(|later| TooMany {
            again: later.wait_time_from(self.guesses.clock().now()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_told_and_the_log_hears_once() {
        let guesses = Guesses::of(NonZeroU32::new(3).unwrap());
        let mut told = Vec::new();
        for _ in 0..3 {
            assert_eq!(guesses.wrong(|count| told.push(count)), Ok(()));
        }
        let Err(TooMany { again }) = guesses.wrong(|count| told.push(count)) else {
            panic!("one too many")
        };
        assert!(again <= Duration::from_secs(20), "{again:?}");
        assert_eq!(told, [1]);
        assert_eq!(guesses.untold.load(Ordering::Relaxed), 3);
    }
}
