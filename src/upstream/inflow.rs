//! The body of an answer, on its way in: pieces as they come, under the clocks of its try.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::clock::{Clock, Clocks, Phase};
use super::link::Link;
use super::pool::Shelf;

/// Pieces of an answer. Dropping it before its end closes the connection, or resets its stream where others share the
/// connection: that is how providers are told to stop.
pub struct Inflow {
    source: Source,
    /// None once the answer has been read to its end.
    clocks: Option<Clocks>,
}

enum Source {
    Memory(VecDeque<Bytes>),
    Link {
        body: Incoming,
        link: Option<Link>,
        shelf: Arc<Shelf>,
    },
}

/// Why an answer did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A clock ran out.
    #[error("the {0} clock ran out")]
    Clock(Clock),
    /// The connection broke, or what came over it was no HTTP.
    #[error("the connection broke off")]
    Cut(#[source] hyper::Error),
}

impl Inflow {
    pub(super) fn memory(pieces: Vec<Bytes>) -> Self {
        Self {
            source: Source::Memory(pieces.into()),
            clocks: None,
        }
    }

    pub(super) fn link(body: Incoming, link: Link, shelf: Arc<Shelf>, clocks: Clocks) -> Self {
        let source = Source::Link {
            body,
            link: Some(link),
            shelf,
        };
        Self {
            source,
            clocks: Some(clocks),
        }
    }

    /// The first content is here: from now on only silence and the total count.
    pub fn flows(&mut self, now: Instant) {
        if let Some(clocks) = &mut self.clocks {
            clocks.enter(Phase::Flowing, now);
        }
    }

    /// The answer is complete: the end of the body is waited for a moment only.
    pub fn lingers(&mut self, now: Instant) {
        if let Some(clocks) = &mut self.clocks {
            clocks.enter(Phase::Lingering, now);
        }
    }

    /// Nothing more will come: what was given out last was the last.
    pub fn is_over(&self) -> bool {
        match &self.source {
            Source::Memory(pieces) => pieces.is_empty(),
            Source::Link { body, .. } => body.is_end_stream(),
        }
    }

    /// All that comes, up to so many bytes. None: it is longer.
    pub(super) async fn whole(mut self, most: u64) -> Result<Option<Bytes>, Broken> {
        let mut whole = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| self.poll_piece(cx)).await {
            whole.extend_from_slice(&piece?);
            if whole.len() as u64 > most {
                return Ok(None);
            }
        }
        Ok(Some(whole.freeze()))
    }

    /// The next piece; none after the last.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let piece = match &mut self.source {
            Source::Memory(pieces) => return Poll::Ready(pieces.pop_front().map(Ok)),
            Source::Link { body, link, .. } => poll_link(body, link.as_mut(), cx),
        };
        match piece {
            Poll::Ready(Some(Ok(piece))) => {
                if self.is_over() {
                    self.keep();
                } else if let Some(clocks) = &mut self.clocks
                    && let Some(clock) = clocks.touch(Instant::now())
                {
                    return Poll::Ready(Some(Err(Broken::Clock(clock))));
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Broken::Cut(error)))),
            Poll::Ready(None) => {
                self.keep();
                Poll::Ready(None)
            }
            Poll::Pending => match self.clocks.as_mut().map(|clocks| clocks.poll_expired(cx)) {
                Some(Poll::Ready(clock)) => Poll::Ready(Some(Err(Broken::Clock(clock)))),
                Some(Poll::Pending) | None => Poll::Pending,
            },
        }
    }

    /// The answer has been read to its end: the connection is good for another.
    fn keep(&mut self) {
        if let Source::Link { link, shelf, .. } = &mut self.source
            && let Some(link) = link.take()
        {
            let clocks = self.clocks.take();
            // A share makes room by being dropped.
            if let Link::Own(mut own) = link {
                // It has yet to learn that the body was taken; and whoever had it last is not to be woken for what happens to
                // it from here on.
                own.drive(&mut Context::from_waker(Waker::noop()));
                own.timer = clocks.map(Clocks::into_timer);
                shelf.put(own, Instant::now());
            }
        }
    }
}

/// Asks the body first: what one read brought in is taken piece by piece without another. Then lets the connection
/// read, and asks again.
fn poll_link(
    body: &mut Incoming,
    link: Option<&mut Link>,
    cx: &mut Context<'_>,
) -> Poll<Option<hyper::Result<Bytes>>> {
    let mut link = link;
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(data))),
                // Trailers: nothing of theirs goes on.
                Err(_) => {}
            },
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => match link.take() {
                Some(Link::Own(own)) => own.drive(cx),
                // A shared connection drives itself.
                Some(Link::Share(_)) | None => return Poll::Pending,
            },
        }
    }
}
