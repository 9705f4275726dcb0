//! Lines that are written by a thread of their own: the path leaves one and goes on.
//!
//! The list is bounded, and the writer empties it twenty times a second. To wake it for each line would cost the path a
//! system call.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines that wait, at most, where nothing else is said; further ones are lost and counted.
const MOST_WAITING: usize = 65_536;
const PAUSE: Duration = Duration::from_millis(50);

/// Lines that wait to be written.
#[derive(Debug)]
pub struct Lines<T> {
    waiting: Mutex<Vec<T>>,
    most: usize,
    stop: AtomicBool,
}

/// The thread that writes them; dropping it writes what is left.
#[derive(Debug)]
pub struct Writer<T> {
    lines: Arc<Lines<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Lines<T> {
    /// Leaves a line to be written. False if there are too many already.
    pub(super) fn push(&self, line: T) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.most {
            return false;
        }
        waiting.push(line);
        true
    }

    fn take(&self) -> Vec<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting)
    }
}

impl<T: Send + 'static> Writer<T> {
    /// Starts a thread of this name, which writes what has come together.
    pub fn start(
        name: &str,
        write: impl FnMut(Vec<T>) + Send + 'static,
    ) -> io::Result<(Arc<Lines<T>>, Self)> {
        Self::holding(MOST_WAITING, name, write)
    }

    /// The same, where only so many may wait.
    pub fn holding(
        most: usize,
        name: &str,
        mut write: impl FnMut(Vec<T>) + Send + 'static,
    ) -> io::Result<(Arc<Lines<T>>, Self)> {
        let lines = Arc::new(Lines {
            waiting: Mutex::default(),
            most,
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&lines);
        let run = move || {
            while !theirs.stop.load(Ordering::Acquire) {
                std::thread::park_timeout(PAUSE);
                write(theirs.take());
            }
            write(theirs.take());
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        let writer = Self {
            lines: Arc::clone(&lines),
            thread: Some(thread),
        };
        Ok((lines, writer))
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        self.lines.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A writer that panicked has nothing more to write.
            let _ = thread.join();
        }
    }
}
