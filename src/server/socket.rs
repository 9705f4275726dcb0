//! A client's socket, and what can be told from its reads and writes.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::listen::Stream;
use super::pulse::Pulse;
use crate::pieces::joined;

/// Reads and writes, noted in a [`Pulse`].
pub(super) struct Socket {
    /// What was read before it was known what is spoken.
    ahead: Bytes,
    read: Reading,
    write: Arc<Writing>,
    pulse: Arc<Pulse>,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

enum Reading {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

enum Writing {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

/// Knows when the client has closed its side, whether anybody reads or not.
pub(super) struct Watch(Arc<Writing>);

/// How every connection of HTTP/2 begins (RFC 9113, 3.4). In HTTP/1.1 it would be a request that nobody sends.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read to tell one from the other, in bytes: most requests come whole with it.
const FIRST_READ: usize = 8 << 10;

impl Socket {
    pub(super) fn new(stream: Stream, pulse: Arc<Pulse>) -> io::Result<(Self, Watch)> {
        let (read, write) = match stream {
            Stream::Tcp(stream) => {
                // Without it the second of two small writes waits for an acknowledgement; a stream is small writes.
                stream.set_nodelay(true)?;
                let (read, write) = TcpStream::from_std(stream)?.into_split();
                (Reading::Tcp(read), Writing::Tcp(write))
            }
            Stream::Unix(stream) => {
                let (read, write) = UnixStream::from_std(stream)?.into_split();
                (Reading::Unix(read), Writing::Unix(write))
            }
        };
        let write = Arc::new(write);
        let watch = Watch(Arc::clone(&write));
        let socket = Self {
            ahead: Bytes::new(),
            read,
            write,
            pulse,
        };
        Ok((socket, watch))
    }

    /// Whether this is the first byte that the client sends. It is read again by whoever understands it.
    pub(super) async fn begins_with(&mut self, byte: u8) -> io::Result<bool> {
        let mut first = BytesMut::with_capacity(FIRST_READ);
        if self.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.ahead = first.freeze();
        Ok(self.ahead.first() == Some(&byte))
    }

    /// Nothing that came so far was a request.
    pub(super) fn rests(&self) {
        self.pulse.rests();
    }

    /// Reads until it is clear what is spoken. What was read is read again by whoever understands it.
    pub(super) async fn opening(&mut self) -> io::Result<Spoken> {
        let mut first = BytesMut::with_capacity(FIRST_READ);
        let spoken = loop {
            if self.read_buf(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let length = first.len().min(PREFACE.len());
            if first.get(..length) != PREFACE.get(..length) {
                break Spoken::Http1;
            }
            if length == PREFACE.len() {
                break Spoken::Http2;
            }
        };
        self.ahead = first.freeze();
        Ok(spoken)
    }
}

impl Writing {
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(half) => half.ready(interest).await,
            Self::Unix(half) => half.ready(interest).await,
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => AsRef::<TcpStream>::as_ref(half).poll_write_ready(cx),
            Self::Unix(half) => AsRef::<UnixStream>::as_ref(half).poll_write_ready(cx),
        }
    }

    fn try_write(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        joined(slices, |all| match (self, all) {
            (Self::Tcp(half), Some(all)) => half.try_write(all),
            (Self::Unix(half), Some(all)) => half.try_write(all),
            (Self::Tcp(half), None) => half.try_write_vectored(slices),
            (Self::Unix(half), None) => half.try_write_vectored(slices),
        })
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => SockRef::from(AsRef::<TcpStream>::as_ref(half)),
            Self::Unix(half) => SockRef::from(AsRef::<UnixStream>::as_ref(half)),
        }
        .shutdown(Shutdown::Write)
    }
}

impl Watch {
    /// Ends when the client has closed its side.
    ///
    /// While hyper waits for an answer it notices that by itself only if the request was read to its end and nothing
    /// follows it: a stray CR LF, or a request sent ahead, hides the close. The system tells it apart from data
    /// (EPOLLRDHUP); tokio hands that on as part of the readiness called "priority", which no data of HTTP ever sets.
    pub(super) async fn closed(&self) {
        loop {
            match self.0.ready(Interest::PRIORITY).await {
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
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(self.ahead.get(..length).unwrap_or_default());
            self.ahead.advance(length);
            if self.ahead.is_empty() {
                // What is left of it would keep the whole block for as long as the connection lives.
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = match &mut self.read {
            Reading::Tcp(half) => Pin::new(half).poll_read(cx, buffer),
            Reading::Unix(half) => Pin::new(half).poll_read(cx, buffer),
        };
        let read = ready!(read);
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
            if let Poll::Ready(ready) = self.write.poll_ready(cx) {
                ready?;
                match self.write.try_write(slices) {
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
        Poll::Ready(self.write.shutdown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn the_first_block_is_read_again_and_given_back() {
        let (mut client, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\n").unwrap();
        let pulse = Pulse::new(Instant::now());
        let (mut socket, _watch) = Socket::new(Stream::Unix(ours), pulse).unwrap();
        assert_eq!(socket.opening().await.unwrap(), Spoken::Http1);
        let block = socket.ahead.clone();
        assert!(!block.is_unique(), "held by the socket as well");
        let mut first = [0; 6];
        socket.read_exact(&mut first).await.unwrap();
        assert!(!block.is_unique(), "not all of it was read");
        let mut rest = [0; 10];
        socket.read_exact(&mut rest).await.unwrap();
        assert_eq!([&first[..], &rest[..]].concat(), block);
        assert!(block.is_unique(), "given back");
    }
}
