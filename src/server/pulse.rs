//! How long a connection has been doing nothing, or next to nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Times;

/// What a connection has been doing since when: in milliseconds since it was made, so that each fits an atomic.
pub(super) struct Pulse {
    born: Instant,
    /// Since when nothing was under way; [`NEVER`] while something is.
    idle: AtomicU64,
    /// Since when a request's head has been coming; `NEVER` while none is.
    head: AtomicU64,
    /// Since when the client has not read; `NEVER` while it does.
    stalled: AtomicU64,
    /// How many requests are under way.
    busy: AtomicUsize,
    /// Many requests share the connection, as in HTTP/2.
    shared: AtomicBool,
    /// For each request of a shared connection, since when a piece of its answer has been waiting: there a client can
    /// read one answer and leave another.
    waiting: Mutex<Vec<Arc<AtomicU64>>>,
}

const NEVER: u64 = u64::MAX;

impl Pulse {
    pub(super) fn new(born: Instant) -> Arc<Self> {
        Arc::new(Self {
            born,
            idle: AtomicU64::new(0),
            head: AtomicU64::new(NEVER),
            stalled: AtomicU64::new(NEVER),
            busy: AtomicUsize::new(0),
            shared: AtomicBool::new(false),
            waiting: Mutex::default(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// From here on many requests share the connection: their heads come in frames, and so do words that belong to
    /// none of them. A head that never ends is an idle connection.
    pub(super) fn share(&self) {
        self.shared.store(true, Ordering::Relaxed);
        self.head.store(NEVER, Ordering::Relaxed);
        self.idle.store(self.now(), Ordering::Relaxed);
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was read.
    pub(super) fn speaks(&self) {
        if self.shared.load(Ordering::Relaxed) {
            return;
        }
        if self.idle.load(Ordering::Relaxed) != NEVER {
            self.idle.store(NEVER, Ordering::Relaxed);
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    /// There is something to write, and the client does not take it.
    pub(super) fn stalls(&self) {
        if self.stalled.load(Ordering::Relaxed) == NEVER {
            self.stalled.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Something was written.
    pub(super) fn reads(&self) {
        if self.stalled.load(Ordering::Relaxed) != NEVER {
            self.stalled.store(NEVER, Ordering::Relaxed);
        }
    }

    /// A head was read: a request is under way until what this gives is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.idle.store(NEVER, Ordering::Relaxed);
        self.head.store(NEVER, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        let waits = self.shared.load(Ordering::Relaxed).then(|| {
            let waits = Arc::new(AtomicU64::new(NEVER));
            self.waiting().push(Arc::clone(&waits));
            waits
        });
        Busy {
            pulse: Arc::clone(self),
            waits,
        }
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// When to look again; or what has gone on for too long.
    pub(super) fn check(&self, times: Times, now: Instant) -> Result<Instant, Overdue> {
        let ends = |since: &AtomicU64, most: Duration| match since.load(Ordering::Relaxed) {
            NEVER => None,
            since => Some(self.born + Duration::from_millis(since) + most),
        };
        let waiting = self.waiting();
        let waiting = waiting.iter().filter_map(|since| ends(since, times.write));
        let own = [
            ends(&self.head, times.header),
            ends(&self.stalled, times.write),
        ];
        let stuck = own.into_iter().flatten().chain(waiting).min();
        let idle = ends(&self.idle, times.idle);
        let is_over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if is_over(stuck) {
            return Err(Overdue::Stuck);
        }
        if is_over(idle) {
            return Err(Overdue::Idle);
        }
        // What begins after this look is seen before its own time is up: each begins to count only once seen to begin.
        let soonest = now + times.header.min(times.idle).min(times.write);
        let ends = stuck.into_iter().chain(idle);
        Ok(ends.fold(soonest, Instant::min))
    }
}

/// What has gone on for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Nothing was asked.
    Idle,
    /// A head did not come, or an answer was not taken.
    Stuck,
}

/// A request under way.
pub(super) struct Busy {
    pulse: Arc<Pulse>,
    /// Since when a piece of its answer has been waiting, on a shared connection.
    waits: Option<Arc<AtomicU64>>,
}

impl Busy {
    /// A piece of the answer was handed over, and waits for the client to make room.
    pub(super) fn hands_over(&self) {
        if let Some(waits) = &self.waits {
            waits.store(self.pulse.now(), Ordering::Relaxed);
        }
    }

    /// There is room for the next.
    pub(super) fn goes_on(&self) {
        if let Some(waits) = &self.waits {
            waits.store(NEVER, Ordering::Relaxed);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(waits) = &self.waits {
            self.pulse
                .waiting()
                .retain(|other| !Arc::ptr_eq(other, waits));
        }
        if self.pulse.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.pulse.idle.store(self.pulse.now(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(120),
        write: Duration::from_secs(60),
    };

    #[tokio::test(start_paused = true)]
    async fn a_pulse_knows_what_takes_too_long() {
        let (secs, times) = (Duration::from_secs, TIMES);
        let start = Instant::now();
        let pulse = Pulse::new(start);
        assert_eq!(pulse.check(times, start), Ok(start + secs(10)));
        assert_eq!(
            pulse.check(times, start + secs(120)),
            Err(Overdue::Idle),
            "it never spoke"
        );
        tokio::time::advance(secs(5)).await;
        pulse.speaks();
        assert_eq!(pulse.check(times, start + secs(10)), Ok(start + secs(15)));
        assert_eq!(
            pulse.check(times, start + secs(15)),
            Err(Overdue::Stuck),
            "its head takes too long"
        );
        let busy = pulse.busy();
        assert!(
            pulse.check(times, start + secs(10_000)).is_ok(),
            "an answer may take its time"
        );
        pulse.stalls();
        assert_eq!(
            pulse.check(times, start + secs(65)),
            Err(Overdue::Stuck),
            "it does not read"
        );
        pulse.reads();
        drop(busy);
        assert!(pulse.check(times, start + secs(124)).is_ok());
        assert_eq!(
            pulse.check(times, start + secs(125)),
            Err(Overdue::Idle),
            "it had its time"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_shared_connection_each_answer_is_watched() {
        let (secs, times) = (Duration::from_secs, TIMES);
        let start = Instant::now();
        let pulse = Pulse::new(start);
        pulse.speaks();
        pulse.share();
        pulse.speaks();
        assert!(
            pulse.check(times, start + secs(119)).is_ok(),
            "a word is no head that has begun"
        );
        assert_eq!(pulse.check(times, start + secs(120)), Err(Overdue::Idle));
        let (one, other) = (pulse.busy(), pulse.busy());
        drop(one);
        assert!(
            pulse.check(times, start + secs(10_000)).is_ok(),
            "one is still under way"
        );
        other.hands_over();
        assert_eq!(
            pulse.check(times, start + secs(60)),
            Err(Overdue::Stuck),
            "the client leaves it"
        );
        other.goes_on();
        assert!(pulse.check(times, start + secs(60)).is_ok());
        tokio::time::advance(secs(5)).await;
        drop(other);
        assert_eq!(pulse.check(times, start + secs(125)), Err(Overdue::Idle));
        assert!(pulse.waiting().is_empty());
    }
}
