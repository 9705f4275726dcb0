//! What becomes of an answer that others read as well, and of a client that leaves it? It is recorded while it passes, and
//! read on to its end: whoever left comes back for it, or one of the others has it already.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::time::Instant;

use super::replay::Head;
use super::source::Source;
use super::twins::Keeper;
use super::{Body, Broken, Finisher};
use crate::telemetry::End;

/// An answer is read on for its twins for no longer than this; the clocks of its provider mostly end it before.
pub const LONGEST: Duration = Duration::from_secs(600);

/// The body of an answer that others read as well. Dropped before its end, it is read on.
pub struct Lead {
    /// None only while it is dropped.
    recorded: Option<Box<Recorded>>,
    finisher: Arc<Finisher>,
}

/// An answer, and where it is recorded.
struct Recorded {
    source: Source,
    keeper: Keeper,
}

/// An answer on its way to whoever asked first, recorded by `keeper`.
pub fn lead(
    response: Response<Body>,
    mut keeper: Keeper,
    finisher: &Arc<Finisher>,
) -> Response<Body> {
    keeper.begins(Head::of(&response));
    response.map(|Body { source, alive }| Body {
        source: match source {
            source @ (Source::Relay(_) | Source::Early(_)) => Source::Lead(Lead {
                recorded: Some(Box::new(Recorded { source, keeper })),
                finisher: Arc::clone(finisher),
            }),
            Source::Whole(whole) => {
                if let Some(bytes) = &whole.bytes {
                    keeper.keeps(bytes);
                }
                keeper.ends(End::Complete, Instant::now());
                Source::Whole(whole)
            }
            other => other,
        },
        alive,
    })
}

/// Reads an answer to its end whose client has left, for its twins.
pub async fn read_out(response: Response<Body>, since: Instant) {
    match response.into_body().source {
        Source::Lead(mut lead) => {
            if let Some(mut recorded) = lead.recorded.take() {
                recorded.read_on(since).await;
            }
        }
        Source::Whole(mut whole) => whole.record.ends_early(Some((End::ClientGone, since))),
        Source::Early(_) | Source::Relay(_) | Source::Follow(_) => {}
    }
}

impl Lead {
    /// The next piece for the client.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        match &mut self.recorded {
            Some(recorded) => recorded.poll_piece(cx),
            None => Poll::Ready(None),
        }
    }

    /// Whether the answer has not come to its end yet.
    pub(super) fn is_open(&self) -> bool {
        let recorded = self.recorded.as_ref();
        recorded.is_some_and(|recorded| recorded.source.is_open())
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(mut recorded) = self.recorded.take()
            && !recorded.keeper.is_over()
        {
            let since = Instant::now();
            let rest = async move { recorded.read_on(since).await };
            self.finisher.take(LONGEST, rest);
        }
    }
}

impl Recorded {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let piece = ready!(self.source.poll_piece(cx));
        match &piece {
            Some(Ok(piece)) => {
                self.keeper.keeps(piece);
                // A client that knows the length may not ask for what comes after the last piece.
                if let Some((end, true)) = self.source.ended() {
                    self.keeper.ends(end, Instant::now());
                }
            }
            Some(Err(Broken)) => self.keeper.breaks(),
            None => self.look(),
        }
        Poll::Ready(piece)
    }

    /// Reads what is left, for as long as anybody could still read it.
    async fn read_on(&mut self, since: Instant) {
        self.source.is_left(since);
        poll_fn(|cx| {
            while !self.keeper.is_over() {
                if !matches!(ready!(self.poll_piece(cx)), Some(Ok(_))) {
                    break;
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// What has gone out may have been all of it.
    fn look(&mut self) {
        if let Some((end, _)) = self.source.ended() {
            self.keeper.ends(end, Instant::now());
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.look();
    }
}
