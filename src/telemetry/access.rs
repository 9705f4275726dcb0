//! The access log: one structured line for each request, written by a thread of its own.
//!
//! The path pushes a line into a bounded list and goes on; the writer empties it twenty times a second. To wake it for
//! each line would cost the path a system call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::{End, Record, RequestId};
use crate::usage::Usage;

/// Lines that wait, at most; further ones are lost and counted.
const MOST_WAITING: usize = 65_536;
const PAUSE: Duration = Duration::from_millis(50);

/// What is told about one request.
pub struct Line {
    id: RequestId,
    client_id: Option<HeaderValue>,
    api: &'static str,
    key: Option<Arc<str>>,
    model: Option<Box<str>>,
    target: Option<Arc<str>>,
    tries: u32,
    status: u16,
    code: Option<&'static str>,
    end: End,
    took: Duration,
    first_content: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    usage: Option<Usage>,
}

impl Line {
    pub(super) fn of(record: &mut Record, end: End, now: Instant) -> Self {
        Self {
            id: record.id,
            client_id: record.client_id.take(),
            api: record.api,
            key: record.key.take(),
            model: record.asked.take(),
            target: record.target.take(),
            tries: record.tries,
            status: record.status,
            code: record.code,
            end,
            took: now - record.began,
            first_content: record.content.map(|content| content - record.began),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            usage: record.usage,
        }
    }

    fn write(&self) {
        let usage = self.usage.unwrap_or_default();
        tracing::info!(
            target: "access",
            id = self.id.as_str(),
            client_id = self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            api = self.api,
            key = self.key.as_deref(),
            model = self.model.as_deref(),
            to = self.target.as_deref(),
            tries = self.tries,
            status = self.status,
            code = self.code,
            end = self.end.name(),
            ms = millis(self.took),
            first_content_ms = self.first_content.map(millis),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            input = self.usage.map(|_| usage.input),
            cached = self.usage.map(|_| usage.cached),
            output = self.usage.map(|_| usage.output + usage.reasoning),
        );
    }
}

/// Milliseconds to three places: what is finer is noise.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Lines that wait to be written.
#[derive(Default)]
pub struct Lines {
    waiting: Mutex<Vec<Line>>,
    stop: AtomicBool,
}

/// The thread that writes them; dropping it writes what is left.
pub struct Writer {
    lines: Arc<Lines>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Leaves a line to be written. False if there are too many already.
    pub(super) fn push(&self, line: Line) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST_WAITING {
            return false;
        }
        waiting.push(line);
        true
    }

    fn write_all(&self) {
        let lines =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        lines.iter().for_each(Line::write);
    }
}

impl Writer {
    /// Starts the thread.
    pub fn start() -> std::io::Result<(Arc<Lines>, Self)> {
        let lines = Arc::new(Lines::default());
        let theirs = Arc::clone(&lines);
        let run = move || {
            while !theirs.stop.load(Ordering::Acquire) {
                std::thread::park_timeout(PAUSE);
                theirs.write_all();
            }
            theirs.write_all();
        };
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(run)?;
        let writer = Self {
            lines: Arc::clone(&lines),
            thread: Some(thread),
        };
        Ok((lines, writer))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A writer that panicked has nothing more to write.
            let _ = thread.join();
        }
    }
}
