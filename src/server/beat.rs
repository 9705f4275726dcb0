//! Does a thread go on, or is it stuck? Whoever watches over the process wants to know.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A thread that has done nothing of what it does every few seconds for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// When a thread last went on.
#[derive(Debug)]
pub struct Beat(Mutex<Instant>);

/// Those of several threads.
#[derive(Clone, Debug)]
pub struct Beats(pub Vec<Arc<Beat>>);

impl Beat {
    /// Of a thread that begins now.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(now))
    }

    /// The thread goes on.
    pub fn beats(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn goes_on(&self, now: Instant) -> bool {
        now < *self.0.lock().unwrap_or_else(PoisonError::into_inner) + STUCK
    }
}

impl Beats {
    /// Whether all of them do.
    pub fn go_on(&self, now: Instant) -> bool {
        self.0.iter().all(|beat| beat.goes_on(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_stuck_is_noticed() {
        let mut now = Instant::now();
        let (one, other) = (Arc::new(Beat::new(now)), Arc::new(Beat::new(now)));
        let beats = Beats(vec![Arc::clone(&one), Arc::clone(&other)]);
        for _ in 0..10 {
            now += STUCK / 2;
            one.beats(now);
            other.beats(now);
            assert!(beats.go_on(now));
        }
        now += STUCK / 2;
        one.beats(now);
        assert!(beats.go_on(now));
        now += STUCK / 2;
        assert!(!beats.go_on(now), "the other is stuck");
        other.beats(now);
        assert!(beats.go_on(now), "it went on");
    }
}
