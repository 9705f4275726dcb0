//! Writes streams one event at a time, each at its own moment.
//!
//! A thread of its own: the runtime's timers go off once a millisecond, all
//! streams at the same instant, and events of a real provider do not.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::oneshot;

/// Hands streams to the thread that paces them.
#[derive(Clone)]
pub(crate) struct Pacer {
    jobs: Sender<Job>,
}

/// One stream under way.
struct Job {
    due: Instant,
    socket: OwnedWriteHalf,
    pieces: Arc<[Bytes]>,
    /// The piece to write next, and how much of it is written.
    next: usize,
    sent: usize,
    done: oneshot::Sender<io::Result<OwnedWriteHalf>>,
}

impl Pacer {
    /// Starts the thread; gaps between two events of a stream are `low` to `high` microseconds.
    pub(crate) fn start(low: u64, high: u64) -> Result<Self> {
        let (jobs, waiting) = mpsc::channel();
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || {
                let mut gaps = Gaps {
                    low,
                    span: high.saturating_sub(low) + 1,
                    state: 0x9e37_79b9_7f4a_7c15,
                };
                work(&waiting, &mut gaps);
            })?;
        Ok(Self { jobs })
    }

    /// Sends `pieces`, the first at once, and gives the socket back after the last.
    pub(crate) async fn send(
        &self,
        socket: OwnedWriteHalf,
        pieces: Arc<[Bytes]>,
    ) -> Result<OwnedWriteHalf> {
        let (done, finished) = oneshot::channel();
        let job = Job {
            due: Instant::now(),
            socket,
            pieces,
            next: 0,
            sent: 0,
            done,
        };
        self.jobs.send(job).ok().context("the pacer has ended")?;
        let socket = finished.await.context("the pacer has ended")?;
        Ok(socket?)
    }
}

/// Gaps between events, spread evenly between the shortest and the longest.
struct Gaps {
    low: u64,
    span: u64,
    state: u64,
}

impl Gaps {
    fn next(&mut self) -> Duration {
        // xorshift64: any spread will do.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        Duration::from_micros(self.low + self.state % self.span)
    }
}

fn work(waiting: &Receiver<Job>, gaps: &mut Gaps) {
    let mut jobs: BinaryHeap<Reverse<Job>> = BinaryHeap::new();
    loop {
        let first = match jobs.peek() {
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(Reverse(job)) => {
                waiting.recv_timeout(job.due.saturating_duration_since(Instant::now()))
            }
        };
        match first {
            Ok(job) => jobs.push(Reverse(job)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while jobs.peek().is_some_and(|Reverse(job)| job.due <= now) {
            let Some(Reverse(mut job)) = jobs.pop() else {
                break;
            };
            match job.step() {
                Ok(true) => {
                    // The receiver is gone only if its connection is.
                    let _ = job.done.send(Ok(job.socket));
                }
                Ok(false) => {
                    // From now, not from when it was due: a late stream does
                    // not catch up in a burst.
                    job.due = Instant::now() + gaps.next();
                    jobs.push(Reverse(job));
                }
                Err(error) => {
                    let _ = job.done.send(Err(error));
                }
            }
        }
    }
}

impl Job {
    /// Writes the next piece, or what the socket takes of it; true after the last.
    fn step(&mut self) -> io::Result<bool> {
        let piece = self.pieces.get(self.next).map(AsRef::as_ref);
        let rest = piece.and_then(|p: &[u8]| p.get(self.sent..));
        let rest = rest.unwrap_or_default();
        match self.socket.try_write(rest) {
            Ok(written) if written == rest.len() => {
                self.next += 1;
                self.sent = 0;
            }
            Ok(written) => self.sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(self.next >= self.pieces.len())
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        self.due.cmp(&other.due)
    }
}
