//! Where does what a client is sent come from? From memory, a provider, a record, or an answer that is still to come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::SizeHint;
use tokio::time::Instant;

use super::{Body, Broken, Follow, Lead, Relay, Whole};
use crate::telemetry::End;

/// What a client is sent.
pub(super) enum Source {
    /// In one piece.
    Whole(Box<Whole>),
    /// Nothing yet.
    Early(Early),
    /// As it comes from a provider.
    Relay(Relay),
    /// The same, and others read it as well.
    Lead(Lead),
    /// As it comes to somebody else.
    Follow(Box<Follow>),
}

/// An answer whose status went out before it came. Dropped, nobody waits for it any more.
pub(super) struct Early {
    coming: Pin<Box<dyn Future<Output = Body> + Send>>,
    /// Since when its client has left it, and it goes on all the same.
    left: Option<Instant>,
}

impl Early {
    pub(super) fn new(coming: impl Future<Output = Body> + Send + 'static) -> Self {
        Self {
            coming: Box::pin(coming),
            left: None,
        }
    }
}

impl Source {
    /// The next piece for the client.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Self::Early(early) = self {
            let body = ready!(early.coming.as_mut().poll(cx));
            let left = early.left;
            *self = body.source;
            if let Some(since) = left {
                self.is_left(since);
            }
        }
        match self {
            Self::Whole(whole) => {
                whole.record.end.get_or_insert(End::Complete);
                let bytes = whole.bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(Ok))
            }
            // What comes has come: it is no answer that is still to come.
            Self::Early(_) => Poll::Ready(None),
            Self::Relay(relay) => relay.poll_piece(cx),
            Self::Lead(lead) => lead.poll_piece(cx),
            Self::Follow(follow) => follow.poll_piece(cx),
        }
    }

    /// Whether it is a stream.
    pub(super) fn is_stream(&self) -> bool {
        match self {
            Self::Early(_) => true,
            Self::Relay(relay) => relay.is_stream(),
            Self::Whole(_) | Self::Lead(_) | Self::Follow(_) => false,
        }
    }

    /// Whether the answer may still go on, so that whoever hears nothing of it waits for it.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Whole(_) => false,
            Self::Early(_) => true,
            Self::Relay(relay) => relay.is_open(),
            Self::Lead(lead) => lead.is_open(),
            Self::Follow(follow) => !follow.is_over(),
        }
    }

    /// How the answer ended, once it did and all of it has gone out; and whether nothing follows any more.
    pub(super) fn ended(&self) -> Option<(End, bool)> {
        match self {
            Self::Whole(whole) if whole.bytes.is_none() => Some((whole.record.end?, true)),
            Self::Relay(relay) => relay.ended(),
            Self::Whole(_) | Self::Early(_) | Self::Lead(_) | Self::Follow(_) => None,
        }
    }

    /// Its client has left, and it goes on all the same.
    pub(super) fn is_left(&mut self, since: Instant) {
        match self {
            Self::Whole(whole) => {
                // What it would have heard is not how it ended.
                whole.record.end.take_if(|_| whole.bytes.is_some());
                whole.record.ends_early(Some((End::ClientGone, since)));
            }
            Self::Early(early) => early.left = Some(since),
            Self::Relay(relay) => relay.is_left(since),
            Self::Lead(_) | Self::Follow(_) => {}
        }
    }

    /// Whether the client has all of it.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Early(_) | Self::Relay(_) | Self::Lead(_) => false,
            Self::Follow(follow) => follow.is_over(),
        }
    }

    /// How much is left, if that is known.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => {
                SizeHint::with_exact(whole.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Early(_) | Self::Relay(_) | Self::Lead(_) => SizeHint::default(),
            Self::Follow(follow) => follow.size_hint(),
        }
    }
}
