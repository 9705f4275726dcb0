//! The body of an answer: its request is under way until the client has it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::pulse::{Busy, Flow};

/// A body, and the knowledge that a request is under way until it ends.
///
/// HTTP/1.1 asks for the next piece when there is room for it. HTTP/2 takes a piece whole and sends it bit by bit, as
/// the client makes room. So there a piece is given out once the one before was sent, and the body ends after its last
/// one was: what a request holds is held for as long as anything of its answer is.
pub(super) struct Tracked<B> {
    body: B,
    busy: Busy,
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, busy }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tracked<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        if !self.busy.is_taken() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| Piece {
                bytes,
                flow: self.busy.hands_over(),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.busy.is_taken()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer, which knows how much of it the client has taken.
pub(super) struct Piece {
    bytes: Bytes,
    flow: Option<Arc<Flow>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        // The last part is told by the drop.
        if let Some(flow) = &self.flow
            && self.bytes.has_remaining()
        {
            flow.moves();
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(flow) = &self.flow {
            flow.ends();
        }
    }
}
