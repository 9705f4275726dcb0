//! Who is to be told that an entry is written? Those who wait, with as few calls from thread to thread as can be.
//!
//! To wake a task of another thread costs a system call. So of all who wait on one thread the writer wakes one, and that
//! one wakes the others, which is cheap among neighbours.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, ThreadId};

/// Where someone waits for one request's entries.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Wait>);

#[derive(Debug, Default)]
struct Wait {
    done: bool,
    waker: Option<(ThreadId, Waker)>,
    has_left: bool,
    /// Neighbours to wake.
    others: Vec<Waker>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Wait> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is written; if not, this task will be woken. Neighbours are woken on the way.
    pub(super) fn poll(&self, waker: &Waker) -> bool {
        let mut wait = self.lock();
        if !wait.done {
            let here = thread::current().id();
            let is_same = wait
                .waker
                .as_ref()
                .is_some_and(|(at, old)| *at == here && old.will_wake(waker));
            if !is_same {
                wait.waker = Some((here, waker.clone()));
            }
            return false;
        }
        drop(wait);
        self.pass_on();
        true
    }

    /// Nobody waits here any longer.
    pub(super) fn leave(&self) {
        self.lock().has_left = true;
        self.pass_on();
    }

    fn pass_on(&self) {
        let others = std::mem::take(&mut self.lock().others);
        for waker in others {
            waker.wake();
        }
    }

    /// It is written: for all of these.
    pub(super) fn ring(slots: &[&Self]) {
        let mut bands: Vec<(ThreadId, &Self, Waker, Vec<Waker>)> = Vec::new();
        for slot in slots {
            let mut wait = slot.lock();
            let Some((at, waker)) = wait.waker.take() else {
                wait.done = true;
                continue;
            };
            match bands.iter_mut().find(|(there, ..)| *there == at) {
                Some((.., others)) => {
                    wait.done = true;
                    others.push(waker);
                }
                // Told last, together with whom it has to wake: it could be gone by then.
                None => bands.push((at, slot, waker, Vec::new())),
            }
        }
        for (_, first, waker, others) in bands {
            let mut wait = first.lock();
            wait.done = true;
            wait.others = others;
            let waker = wait.waker.take().map_or(waker, |(_, newer)| newer);
            let has_left = wait.has_left;
            drop(wait);
            waker.wake();
            if has_left {
                first.pass_on();
            }
        }
    }
}
