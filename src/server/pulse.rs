//! How long a connection has been doing nothing, or next to nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
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
    flows: Mutex<Flows>,
}

/// The answers of a shared connection.
#[derive(Default)]
struct Flows {
    all: Vec<Arc<Flow>>,
    /// The one that was begun last, until its task asks for it.
    newest: Option<Arc<Flow>>,
}

const NEVER: u64 = u64::MAX;

/// Milliseconds since then.
fn since(born: Instant) -> u64 {
    u64::try_from(born.elapsed().as_millis()).unwrap_or(NEVER - 1)
}

impl Pulse {
    pub(super) fn new(born: Instant) -> Arc<Self> {
        Arc::new(Self {
            born,
            idle: AtomicU64::new(0),
            head: AtomicU64::new(NEVER),
            stalled: AtomicU64::new(NEVER),
            busy: AtomicUsize::new(0),
            shared: AtomicBool::new(false),
            flows: Mutex::default(),
        })
    }

    fn now(&self) -> u64 {
        since(self.born)
    }

    /// From here on many requests share the connection: their heads come in frames, and so do words that belong to
    /// none of them. A head that never ends is an idle connection.
    pub(super) fn share(&self) {
        self.shared.store(true, Ordering::Relaxed);
        self.rests();
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that was begun last, on a shared connection, to whoever asks first.
    pub(super) fn newest(&self) -> Option<Arc<Flow>> {
        self.flows().newest.take()
    }

    /// Has every answer of a shared connection polled.
    pub(super) fn wake(&self) {
        self.flows().all.iter().for_each(|flow| flow.wake());
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

    /// What was read asked for nothing.
    pub(super) fn rests(&self) {
        self.head.store(NEVER, Ordering::Relaxed);
        self.idle.store(self.now(), Ordering::Relaxed);
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
        let flow = self.shared.load(Ordering::Relaxed).then(|| {
            let flow = Arc::new(Flow::new(self.born));
            let mut flows = self.flows();
            flows.all.push(Arc::clone(&flow));
            flows.newest = Some(Arc::clone(&flow));
            flow
        });
        Busy {
            pulse: Arc::clone(self),
            flow,
        }
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// When to look again; or what has gone on for too long. An answer that its client leaves, on a shared connection,
    /// is told so, and the others go on.
    pub(super) fn check(&self, times: Times, now: Instant) -> Result<Instant, Overdue> {
        let ends = |since: &AtomicU64, most: Duration| match since.load(Ordering::Relaxed) {
            NEVER => None,
            since => Some(self.born + Duration::from_millis(since) + most),
        };
        let is_over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        let mut left = None;
        for flow in &self.flows().all {
            let end = ends(&flow.waits, times.write);
            if is_over(end) {
                flow.leave();
            } else {
                left = left.into_iter().chain(end).min();
            }
        }
        let own = [
            ends(&self.head, times.header),
            ends(&self.stalled, times.write),
        ];
        let stuck = own.into_iter().flatten().min();
        let idle = ends(&self.idle, times.idle);
        if is_over(stuck) {
            return Err(Overdue::Stuck);
        }
        if is_over(idle) {
            return Err(Overdue::Idle);
        }
        // What begins after this look is seen before its own time is up: each begins to count only once seen to begin.
        let soonest = now + times.header.min(times.idle).min(times.write);
        let ends = stuck.into_iter().chain(idle).chain(left);
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
    /// On a shared connection.
    flow: Option<Arc<Flow>>,
}

impl Busy {
    /// Whether the client has taken the piece before. Whoever answers is woken once it has.
    pub(super) fn is_taken(&self) -> bool {
        self.flow
            .as_ref()
            .is_none_or(|flow| flow.waits.load(Ordering::Relaxed) == NEVER)
    }

    /// Begins a piece of the answer. None if nobody need know when it is taken.
    pub(super) fn hands_over(&self) -> Option<Arc<Flow>> {
        self.flow.as_ref().inspect(|flow| flow.moves()).cloned()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(flow) = &self.flow {
            let mut flows = self.pulse.flows();
            flows.all.retain(|other| !Arc::ptr_eq(other, flow));
        }
        if self.pulse.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.pulse.idle.store(self.pulse.now(), Ordering::Relaxed);
        }
    }
}

/// One answer of a shared connection, where a client can read one and leave another.
pub(super) struct Flow {
    born: Instant,
    /// Since when nothing was taken of the piece that was handed over; [`NEVER`] while there is none.
    waits: AtomicU64,
    /// The client has left it for too long.
    is_left: AtomicBool,
    /// Who answers.
    task: Mutex<Option<Waker>>,
}

impl Flow {
    fn new(born: Instant) -> Self {
        Self {
            born,
            waits: AtomicU64::new(NEVER),
            is_left: AtomicBool::new(false),
            task: Mutex::default(),
        }
    }

    /// A piece was handed over, or a part of it taken.
    pub(super) fn moves(&self) {
        self.waits.store(since(self.born), Ordering::Relaxed);
    }

    /// The whole piece was taken, or never will be.
    pub(super) fn ends(&self) {
        self.waits.store(NEVER, Ordering::Relaxed);
        self.wake();
    }

    fn leave(&self) {
        if !self.is_left.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Whether the client has left it for too long.
    pub(super) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }

    /// Says who is to be woken.
    pub(super) fn answered_by(&self, task: &Waker) {
        let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_mut() {
            Some(known) => known.clone_from(task),
            None => *known = Some(task.clone()),
        }
    }

    fn wake(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.as_ref() {
            task.wake_by_ref();
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
        let third = pulse.busy();
        let newest = pulse.newest().unwrap();
        assert!(pulse.newest().is_none(), "it was asked for");
        let flow = other.hands_over().unwrap();
        assert!(!other.is_taken() && third.is_taken());
        assert_eq!(
            pulse.check(times, start + secs(59)),
            Ok(start + secs(60)),
            "the client may have left it by then"
        );
        tokio::time::advance(secs(5)).await;
        flow.moves();
        assert!(pulse.check(times, start + secs(64)).is_ok());
        assert!(!flow.is_left(), "a part was taken");
        let after = start + secs(65);
        assert!(
            pulse.check(times, after).is_ok_and(|next| next > after),
            "the connection goes on"
        );
        assert!(flow.is_left() && !newest.is_left());
        flow.ends();
        assert!(other.is_taken());
        drop((other, third));
        assert_eq!(pulse.check(times, start + secs(125)), Err(Overdue::Idle));
        assert!(pulse.flows().all.is_empty());
    }
}
