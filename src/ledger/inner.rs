//! What do the ledger, its holds and its threads share? The state under its lock, and how they wake each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Settings;
use super::makers::Makers;
use super::state::{State, Stop};
use super::tail::Safe;

/// What the ledger, its holds and the thread that writes share.
#[derive(Debug)]
pub(super) struct Inner {
    state: Mutex<State>,
    pub(super) safe: Safe,
    /// Wakes the thread that writes.
    pub(super) work: Condvar,
    /// Rings when that thread has ended.
    ended: Condvar,
    late: AtomicU64,
    /// How many pages were written, as far as one can tell.
    pub(super) pages: AtomicU64,
    /// Whether the log on disk has grown long.
    pub(super) log_is_long: AtomicBool,
    pub(super) settle_wait: Duration,
    /// Under a lock of its own: few ask for it.
    makers: Mutex<Makers>,
}

impl Inner {
    pub(super) fn new(settings: &Settings, state: State, safe: Safe, makers: Makers) -> Self {
        Self {
            state: Mutex::new(state),
            makers: Mutex::new(makers),
            safe,
            work: Condvar::new(),
            ended: Condvar::new(),
            late: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            log_is_long: AtomicBool::new(false),
            settle_wait: settings.settle_wait,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics; and if it did, books that are a step behind are better than none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who made which response.
    pub(super) fn makers(&self) -> MutexGuard<'_, Makers> {
        self.makers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A few steps under the lock. If they leave work, the thread that writes is woken.
    pub(super) fn with<R>(&self, steps: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let done = steps(&mut state);
        let wake = state.is_to_wake();
        if wake {
            state.wakes_at = None;
        }
        drop(state);
        if wake {
            self.work.notify_one();
        }
        done
    }

    pub(super) fn stop(&self, how: Stop) {
        self.with(|state| {
            if how == Stop::Clean && state.stop < how {
                state.give_all_back();
            }
            state.stop = state.stop.max(how);
        });
        // Also out of its rest after a failure.
        self.work.notify_all();
    }

    pub(super) fn has_stopped(&self) {
        let mut state = self.lock();
        state.stop = Stop::Done;
        // Whoever waits for the store waits in vain.
        state
            .books
            .iter()
            .for_each(|book| book.seldom.bell.notify_waiters());
        drop(state);
        self.ended.notify_all();
    }

    pub(super) fn wait_until_stopped(&self, most: Duration) -> bool {
        let waited = self
            .ended
            .wait_timeout_while(self.lock(), most, |state| state.stop != Stop::Done);
        waited.map_or_else(
            |poisoned| poisoned.into_inner().0.stop == Stop::Done,
            |(state, _)| state.stop == Stop::Done,
        )
    }

    pub(super) fn is_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}
