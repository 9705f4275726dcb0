//! Does a thread go on, or is it stuck? Whoever watches over the process wants to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A thread that has done nothing of what it does every few seconds for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// When a thread last went on.
#[derive(Debug)]
pub struct Beat {
    made: Instant,
    /// Milliseconds after that.
    last: AtomicU64,
}

/// Those of several threads.
#[derive(Clone, Debug)]
pub struct Beats(pub Vec<Arc<Beat>>);

impl Default for Beat {
    fn default() -> Self {
        Self {
            made: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Beat {
    /// The thread goes on.
    pub fn beats(&self) {
        let after = u64::try_from(self.made.elapsed().as_millis());
        self.last
            .store(after.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.made.elapsed() < last + STUCK
    }
}

impl Beats {
    /// Whether all of them do. A worker that has ended with its last connection does no longer.
    pub fn go_on(&self) -> bool {
        self.0.iter().all(|beat| beat.goes_on())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_is_stuck_is_noticed() {
        let (one, other) = (Arc::new(Beat::default()), Arc::new(Beat::default()));
        let beats = Beats(vec![Arc::clone(&one), Arc::clone(&other)]);
        for _ in 0..10 {
            tokio::time::advance(STUCK / 2).await;
            one.beats();
            other.beats();
            assert!(beats.go_on());
        }
        tokio::time::advance(STUCK / 2).await;
        one.beats();
        assert!(beats.go_on());
        tokio::time::advance(STUCK / 2).await;
        assert!(!beats.go_on(), "the other is stuck");
        other.beats();
        assert!(beats.go_on(), "it went on");
    }
}
