//! How long has a client heard nothing? So long that it, or somebody in between, might take the answer for lost: then it
//! gets a comment, which is no event, and says nothing.
//!
//! Comments go between pieces, and the pieces of a stream end where its events do. They are never recorded: whoever reads
//! the same answer gets its own.

use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::upstream::Presence;

/// What is said to a client that there is nothing to say to.
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// A stream may begin with this, and with nothing before it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A client, and how long it has heard nothing.
pub struct Alive {
    /// Knows how long that may be.
    presence: Presence,
    /// When it last heard something; before that, when it had said all, for until then it waits for nothing.
    heard: Instant,
    /// It has heard something since; when, nobody has looked yet.
    is_fresh: bool,
    first: Option<First>,
    /// None until it has waited once.
    timer: Option<Timer>,
}

/// Fires at the end of a silence or before it, and then looks again: what goes out does not set it anew.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes, since it was set last.
    waker: Option<Waker>,
    /// Where it is left.
    home: Option<Arc<Timers>>,
}

impl Timer {
    /// Whether it needs no look: it is still to fire, not after `due`, and wakes whoever asks.
    fn is_set(&self, due: Instant, asking: &Waker) -> bool {
        let wakes = |waker: &Waker| waker.will_wake(asking);
        let is_known = self.waker.as_ref().is_some_and(wakes);
        is_known && !self.sleep.is_elapsed() && self.sleep.deadline() <= due
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(Timer { sleep, home, .. }) = self.timer.take()
            && let Some(home) = home
        {
            home.leave(sleep);
        }
    }
}

/// Timers that clients have left, for the next ones: nearly all of them hear something long before one fires, so it is made
/// and set once for many.
#[derive(Default)]
pub struct Timers(Mutex<Vec<Pin<Box<Sleep>>>>);

/// The most that are kept.
const KEPT: usize = 128;

impl Timers {
    fn kept(&self) -> MutexGuard<'_, Vec<Pin<Box<Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, mut sleep: Pin<Box<Sleep>>) {
        // A timer can be asked only while its runtime is there.
        if Handle::try_current().is_err() {
            return;
        }
        // Whoever had it is not to be woken by it, nor held on to.
        let _ = poll_timer(&mut sleep, &mut Context::from_waker(Waker::noop()));
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push(sleep);
        }
    }
}

/// A task that has used up its share of work is told that its timer is not ready, and is not noted for it either.
fn poll_timer(sleep: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(sleep.as_mut())).poll(cx)
}

/// What went out first.
#[derive(Clone, Copy)]
enum First {
    Comment,
    Answer,
}

impl Alive {
    /// A client that has heard nothing since it has said all; `presence` knows for how long it may.
    pub fn of(presence: &Presence) -> Self {
        Self {
            heard: presence.listens_since().unwrap_or_else(Instant::now),
            presence: presence.clone(),
            is_fresh: false,
            first: None,
            timer: None,
        }
    }

    /// A client that may hear nothing for so long. None: for ever.
    pub(super) fn every(every: Option<Duration>, now: Instant) -> Self {
        let presence = Presence::default();
        presence.listens(now);
        presence.keeps_alive(every);
        Self::of(&presence)
    }

    /// How long the client may hear nothing. None: for ever.
    pub(super) fn keepalive(&self) -> Option<Duration> {
        self.presence.keepalive()
    }

    /// The status goes out, before there is an answer.
    pub(super) fn begins(&self) {
        self.presence.begins();
    }

    /// So much of the answer goes out. Gives it as it is to be sent: a byte order mark is one at the very start only.
    pub(super) fn passes(&mut self, mut piece: Bytes) -> Bytes {
        self.is_fresh = true;
        if let Some(First::Comment) = self.first.replace(First::Answer)
            && piece.starts_with(BYTE_ORDER_MARK)
        {
            piece.advance(BYTE_ORDER_MARK.len());
        }
        piece
    }

    /// Ready when the client has heard nothing for too long.
    ///
    /// Its timer is one of those at home, if it has none yet.
    pub fn poll_silence(&mut self, home: Option<&Arc<Timers>>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(every) = self.presence.keepalive() else {
            return Poll::Pending;
        };
        if mem::take(&mut self.is_fresh) {
            self.heard = Instant::now();
        }
        let due = self.heard + every;
        let timer = self.timer.get_or_insert_with(|| {
            let kept = home.and_then(|home| home.kept().pop());
            Timer {
                sleep: kept.unwrap_or_else(|| Box::pin(sleep_until(due))),
                waker: None,
                home: home.cloned(),
            }
        });
        if timer.is_set(due, cx.waker()) {
            return Poll::Pending;
        }
        // Whoever is asked now may allow less silence than whoever was asked before.
        if due < timer.sleep.deadline() {
            timer.sleep.as_mut().reset(due);
        }
        while poll_timer(&mut timer.sleep, cx).is_ready() {
            if due <= Instant::now() {
                timer.waker = None;
                return Poll::Ready(());
            }
            timer.sleep.as_mut().reset(due);
        }
        if !timer
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            timer.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A comment, when it is time for one.
    pub(super) fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        ready!(self.poll_silence(None, cx));
        self.first.get_or_insert(First::Comment);
        self.is_fresh = true;
        Poll::Ready(COMMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const SECOND: Duration = Duration::from_secs(1);

    async fn silence(alive: &mut Alive) -> Duration {
        let began = Instant::now();
        let comment = poll_fn(|cx| alive.poll_comment(cx)).await;
        assert_eq!(comment, COMMENT);
        began.elapsed()
    }

    fn is_pending(alive: &mut Alive) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        alive.poll_comment(&mut cx).is_pending()
    }

    #[tokio::test(start_paused = true)]
    async fn a_comment_comes_after_each_silence_and_not_before() {
        let mut alive = Alive::every(Some(15 * SECOND), Instant::now());
        assert_eq!(silence(&mut alive).await, 15 * SECOND);
        assert_eq!(silence(&mut alive).await, 15 * SECOND);
        assert!(is_pending(&mut alive));
        tokio::time::sleep(10 * SECOND).await;
        alive.passes(Bytes::from_static(b"data: 1\n\n"));
        assert_eq!(silence(&mut alive).await, 15 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_as_long_as_whoever_is_asked_now_says() {
        let presence = Presence::default();
        presence.listens(Instant::now());
        let mut alive = Alive::of(&presence);
        tokio::time::sleep(100 * SECOND).await;
        assert!(is_pending(&mut alive), "nobody is asked");
        presence.keeps_alive(Some(120 * SECOND));
        assert!(is_pending(&mut alive));
        presence.keeps_alive(Some(105 * SECOND));
        assert_eq!(silence(&mut alive).await, 5 * SECOND);
        presence.keeps_alive(None);
        tokio::time::sleep(1_000 * SECOND).await;
        assert!(is_pending(&mut alive), "never");
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_since_it_has_said_all() {
        let presence = Presence::default();
        presence.listens(Instant::now());
        presence.keeps_alive(Some(15 * SECOND));
        tokio::time::sleep(5 * SECOND).await;
        let mut alive = Alive::of(&presence);
        assert_eq!(silence(&mut alive).await, 10 * SECOND);
        assert_eq!(silence(&mut alive).await, 15 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_serves_many_clients_and_wakes_none_that_has_left() {
        let home = Arc::new(Timers::default());
        let asking = || {
            let presence = Presence::default();
            presence.listens(Instant::now());
            presence.keeps_alive(Some(15 * SECOND));
            Alive::of(&presence)
        };
        let began = Instant::now();
        for n in 0..100 {
            let mut alive = asking();
            let held = Arc::new(Flag);
            let waker = Waker::from(Arc::clone(&held));
            let mut cx = Context::from_waker(&waker);
            assert!(alive.poll_silence(Some(&home), &mut cx).is_pending());
            alive.passes(COMMENT);
            assert!(alive.poll_silence(Some(&home), &mut cx).is_pending());
            assert_eq!(home.kept().len(), 0);
            drop((alive, waker));
            assert_eq!(home.kept().len(), 1, "{n}");
            assert_eq!(Arc::strong_count(&held), 1, "nobody is held on to");
            tokio::time::sleep(SECOND).await;
        }
        // One that was left is as good as a new one.
        let mut alive = asking();
        let silent = poll_fn(|cx| alive.poll_silence(Some(&home), cx));
        silent.await;
        assert_eq!(began.elapsed(), 115 * SECOND);
    }

    struct Flag;

    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_order_mark_is_none_after_a_comment() {
        let marked = Bytes::from_static(b"\xef\xbb\xbfdata: 1\n\n");
        let mut alive = Alive::every(Some(SECOND), Instant::now());
        assert_eq!(alive.passes(marked.clone()), marked);
        silence(&mut alive).await;
        assert_eq!(alive.passes(marked.clone()), marked, "it is no mark here");
        let mut alive = Alive::every(Some(SECOND), Instant::now());
        silence(&mut alive).await;
        assert_eq!(alive.passes(marked.clone()), "data: 1\n\n");
        assert_eq!(alive.passes(marked.clone()), marked);
    }
}
