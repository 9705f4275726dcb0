//! The clocks of one try. Whichever runs out first names itself.

use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::provider::Timeouts;

/// A clock of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// To a connection.
    Connect,
    /// Over all tries, to the first content.
    Deadline,
    /// To the first content.
    FirstContent,
    /// To the head of the answer.
    FirstByte,
    /// Between two pieces.
    Idle,
    /// For the whole try.
    Total,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Deadline => "deadline",
            Self::FirstContent => "first content",
            Self::FirstByte => "first byte",
            Self::Idle => "idle",
            Self::Total => "total",
        })
    }
}

/// How far a try has come; each phase has its clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Waiting,
    Answering,
    Flowing,
    /// The answer is complete; what the provider still says is not waited for.
    Lingering,
}

/// How long a provider that has ended its answer may take to end its body, so that the connection can be kept.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// All clocks of one try, on one timer.
pub(super) struct Clocks {
    timeouts: Timeouts,
    began: Instant,
    /// When the last piece came; before the first, when the phase began.
    touched: Instant,
    deadline: Instant,
    phase: Phase,
    timer: Timer,
}

/// What fires when a clock has run out.
pub(super) type Timer = Pin<Box<Sleep>>;

impl Clocks {
    /// Starts the clocks of a try that waits for a connection, or has one in its hand. A timer that was used before is
    /// cheaper than a new one: to set it later is one atomic, to make it anew takes the runtime's lock.
    pub(super) fn start(
        timeouts: Timeouts,
        deadline: Instant,
        phase: Phase,
        timer: Option<Timer>,
        now: Instant,
    ) -> Self {
        let mut clocks = Self {
            timeouts,
            began: now,
            touched: now,
            deadline,
            phase,
            timer: timer.unwrap_or_else(|| Box::pin(sleep_until(now))),
        };
        let (next, _) = clocks.next();
        clocks.timer.as_mut().reset(next);
        clocks
    }

    /// The timer, for another try.
    pub(super) fn into_timer(self) -> Timer {
        self.timer
    }

    /// The try has come further. Clocks only ever end later by this, so the timer may stay as it is: it looks again
    /// when it fires. All but three: the idle clock starts with the answer, the linger clock with its end,
    /// and the connect clock with each connection, of which a request that is sent again needs another.
    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        let idled = matches!(self.phase, Phase::Connecting | Phase::Waiting);
        self.phase = phase;
        self.touched = now;
        if idled || phase == Phase::Lingering {
            let (next, _) = self.next();
            if next < self.timer.deadline() {
                self.timer.as_mut().reset(next);
            }
        }
    }

    /// A piece has come. Some clocks run on while pieces come.
    pub(super) fn touch(&mut self, now: Instant) -> Option<Clock> {
        if self.phase != Phase::Lingering {
            self.touched = now;
        }
        if now < self.timer.deadline() {
            return None;
        }
        let (next, clock) = self.next();
        self.timer.as_mut().reset(next);
        (next <= now).then_some(clock)
    }

    /// Ready when a clock has run out.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Clock> {
        loop {
            // Whoever keeps us busy with other words must not keep us from looking at the clock: a task that has used
            // up its share of reads is told that its timer is not ready, whatever the time.
            ready!(pin!(unconstrained(self.timer.as_mut())).poll(cx));
            let (next, clock) = self.next();
            if next <= Instant::now() {
                return Poll::Ready(clock);
            }
            self.timer.as_mut().reset(next);
        }
    }

    /// The clock that runs out next, if nothing more happens.
    fn next(&self) -> (Instant, Clock) {
        let t = &self.timeouts;
        let idle = (self.touched + t.idle, Clock::Idle);
        let content = (self.began + t.first_content, Clock::FirstContent);
        let total = (self.began + t.total, Clock::Total);
        let deadline = (self.deadline, Clock::Deadline);
        let head = (self.began + t.first_byte, Clock::FirstByte);
        let first = |clocks: &[(Instant, Clock)]| {
            clocks
                .iter()
                .copied()
                .min_by_key(|(at, _)| *at)
                .unwrap_or(total)
        };
        match self.phase {
            Phase::Connecting => {
                first(&[(self.touched + t.connect, Clock::Connect), total, deadline])
            }
            Phase::Waiting => first(&[head, content, total, deadline]),
            Phase::Answering => first(&[idle, content, total, deadline]),
            Phase::Flowing => first(&[idle, total]),
            Phase::Lingering => first(&[(self.touched + LINGER, Clock::Idle), total]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    async fn expires(t: [u64; 5], deadline: u64, phases: &[(u64, Phase)]) -> (u64, Clock) {
        let [connect, first_byte, first_content, idle, total] = t.map(secs);
        let timeouts = Timeouts {
            connect,
            first_byte,
            first_content,
            idle,
            total,
        };
        let start = Instant::now();
        let mut clocks = Clocks::start(
            timeouts,
            start + secs(deadline),
            Phase::Connecting,
            None,
            start,
        );
        for (at, phase) in phases {
            sleep_until(start + secs(*at)).await;
            clocks.enter(*phase, Instant::now());
        }
        let clock = poll_fn(|cx| clocks.poll_expired(cx)).await;
        (start.elapsed().as_secs(), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn each_clock_names_itself() {
        use Phase::{Answering, Connecting, Flowing, Lingering, Waiting};
        let t = [1, 10, 20, 5, 60];
        assert_eq!(
            expires(t, 100, &[(0, Connecting)]).await,
            (1, Clock::Connect)
        );
        assert_eq!(
            expires(t, 100, &[(0, Waiting)]).await,
            (10, Clock::FirstByte)
        );
        assert_eq!(
            expires(t, 100, &[(0, Waiting), (2, Answering)]).await,
            (7, Clock::Idle)
        );
        assert_eq!(
            expires([1, 10, 4, 5, 60], 100, &[(0, Waiting), (2, Answering)]).await,
            (4, Clock::FirstContent)
        );
        assert_eq!(
            expires(t, 100, &[(0, Waiting), (2, Answering), (3, Flowing)]).await,
            (8, Clock::Idle)
        );
        assert_eq!(
            expires([1, 10, 20, 90, 60], 100, &[(0, Waiting), (2, Flowing)]).await,
            (60, Clock::Total)
        );
        assert_eq!(expires(t, 3, &[(0, Waiting)]).await, (3, Clock::Deadline));
        assert_eq!(
            expires(t, 3, &[(0, Waiting), (2, Flowing)]).await,
            (7, Clock::Idle),
            "no deadline once it flows"
        );
        assert_eq!(
            expires(t, 100, &[(0, Waiting), (2, Flowing), (3, Lingering)]).await,
            (4, Clock::Idle)
        );
        let again = [(0, Waiting), (4, Connecting)];
        assert_eq!(
            expires(t, 100, &again).await,
            (5, Clock::Connect),
            "a connection of its own"
        );
        assert_eq!(
            expires([1, 10, 20, 5, 8], 100, &[again[0], again[1], (4, Waiting)]).await,
            (8, Clock::Total),
            "the same try"
        );
    }
}
