//! A client's socket, and what can be told from its reads and writes.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::Times;

/// Reads and writes, noted in a [`Pulse`].
pub(super) struct Socket {
    read: OwnedReadHalf,
    write: Arc<OwnedWriteHalf>,
    pulse: Arc<Pulse>,
}

/// Knows when the client has closed its side, whether anybody reads or not.
pub(super) struct Watch(Arc<OwnedWriteHalf>);

impl Socket {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>) -> (Self, Watch) {
        let (read, write) = stream.into_split();
        let write = Arc::new(write);
        let watch = Watch(Arc::clone(&write));
        (Self { read, write, pulse }, watch)
    }

    fn stream(&self) -> &TcpStream {
        (*self.write).as_ref()
    }
}

impl Watch {
    /// Ends when the client has closed its side.
    ///
    /// While hyper waits for an answer it notices that by itself only if the request was read to its end and nothing
    /// follows it: a stray CR LF, or a request sent ahead, hides the close. The system tells it apart from data
    /// (EPOLLRDHUP); tokio hands that on as part of the readiness called "priority", which no data of HTTP ever sets.
    pub(super) async fn closed(&self) {
        let stream: &TcpStream = (*self.0).as_ref();
        loop {
            match stream.ready(Interest::PRIORITY).await {
                Ok(ready) if !ready.is_read_closed() => tokio::task::yield_now().await,
                Ok(_) | Err(_) => return,
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.read).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.pulse.speaks();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let stream = self.stream();
            if let Poll::Ready(ready) = stream.poll_write_ready(cx) {
                ready?;
                match stream.try_write_vectored(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => {
                        self.pulse.reads();
                        return Poll::Ready(written);
                    }
                }
            } else {
                self.pulse.stalls();
                return Poll::Pending;
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.stream()).shutdown(Shutdown::Write))
    }
}

/// What a connection has been doing since when: in milliseconds since it was made, so that each fits an atomic.
pub(super) struct Pulse {
    born: Instant,
    /// Since when nothing was under way; [`NEVER`] while something is.
    idle: AtomicU64,
    /// Since when a request's head has been coming; `NEVER` while none is.
    head: AtomicU64,
    /// Since when the client has not read; `NEVER` while it does.
    stalled: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Pulse {
    pub(super) fn new(born: Instant) -> Arc<Self> {
        Arc::new(Self {
            born,
            idle: AtomicU64::new(0),
            head: AtomicU64::new(NEVER),
            stalled: AtomicU64::new(NEVER),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn speaks(&self) {
        if self.idle.load(Ordering::Relaxed) != NEVER {
            self.idle.store(NEVER, Ordering::Relaxed);
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    fn stalls(&self) {
        if self.stalled.load(Ordering::Relaxed) == NEVER {
            self.stalled.store(self.now(), Ordering::Relaxed);
        }
    }

    fn reads(&self) {
        if self.stalled.load(Ordering::Relaxed) != NEVER {
            self.stalled.store(NEVER, Ordering::Relaxed);
        }
    }

    /// A head was read: a request is under way until what this gives is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.idle.store(NEVER, Ordering::Relaxed);
        self.head.store(NEVER, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// When to look again; or nothing, if the connection has done nothing for too long.
    pub(super) fn check(&self, times: Times, now: Instant) -> Option<Instant> {
        let ends = |since: &AtomicU64, most: Duration| match since.load(Ordering::Relaxed) {
            NEVER => None,
            since => Some(self.born + Duration::from_millis(since) + most),
        };
        let ends = [
            ends(&self.idle, times.idle),
            ends(&self.head, times.header),
            ends(&self.stalled, times.write),
        ];
        let next = ends.into_iter().flatten().min();
        if next.is_some_and(|next| next <= now) {
            return None;
        }
        // What begins after this look is seen before its own time is up: each begins to count only once seen to begin.
        let soonest = now + times.header.min(times.idle).min(times.write);
        Some(next.map_or(soonest, |next| next.min(soonest)))
    }
}

/// A request under way.
pub(super) struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle.store(self.0.now(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pulse_knows_what_takes_too_long() {
        let secs = Duration::from_secs;
        let times = Times {
            header: secs(10),
            idle: secs(120),
            write: secs(60),
        };
        let start = Instant::now();
        let pulse = Pulse::new(start);
        assert_eq!(pulse.check(times, start), Some(start + secs(10)));
        assert_eq!(
            pulse.check(times, start + secs(120)),
            None,
            "it never spoke"
        );
        tokio::time::advance(secs(5)).await;
        pulse.speaks();
        assert_eq!(pulse.check(times, start + secs(10)), Some(start + secs(15)));
        assert_eq!(
            pulse.check(times, start + secs(15)),
            None,
            "its head takes too long"
        );
        let busy = pulse.busy();
        assert!(
            pulse.check(times, start + secs(10_000)).is_some(),
            "an answer may take its time"
        );
        pulse.stalls();
        assert_eq!(
            pulse.check(times, start + secs(65)),
            None,
            "it does not read"
        );
        pulse.reads();
        drop(busy);
        assert!(pulse.check(times, start + secs(124)).is_some());
        assert_eq!(
            pulse.check(times, start + secs(125)),
            None,
            "it had its time"
        );
    }
}
