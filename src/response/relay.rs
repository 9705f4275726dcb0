//! The body of an answer on its way out: passes pieces, counts, knows its end, holds the guards.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::time::Instant;

use super::Closing;
use crate::admission::Slot;
use crate::ledger::Settling;
use crate::protocol::{Complaint, Decoder, Ended, Pieces, Skimmer};
use crate::telemetry::{End, Record};
use crate::upstream::{Begun, Broken as Cause, Inflow, Tab};

/// An answer that did not come to its end, and that there is no way left to say so but to break the connection.
#[derive(Debug, thiserror::Error)]
#[error("the provider's answer broke off")]
pub struct Broken;

/// What has come is gathered up to here, in bytes, before it goes out: a burst of events is then one write.
const GATHERED: usize = 16 << 10;

/// Passes an answer on. Dropped before its end it gives everything back and stops the provider.
pub struct Relay {
    /// Pieces that may go out.
    ready: VecDeque<Bytes>,
    reader: Reader,
    /// None once the provider has nothing more to say that anybody hears.
    inflow: Option<Inflow>,
    /// What is left to say once all that came has gone out.
    broken: Option<Broken>,
    /// The last look found something.
    in_burst: bool,
    tab: Box<Tab>,
    /// What the answer cost is being written down; its last bytes wait for that.
    settling: Option<Settling>,
    record: Box<Record>,
    _slot: Slot,
}

/// Looks at an answer while it passes.
pub(super) enum Reader {
    /// At one too long to be held.
    Long(Box<dyn Skimmer>),
    /// At a stream, which ends with an error of ours when time is up.
    Stream(Box<dyn Decoder>, Closing),
}

impl Relay {
    /// With the pieces that have come already, after the first content.
    pub(super) fn new(
        begun: Begun,
        reader: Reader,
        slot: Slot,
        mut tab: Box<Tab>,
        mut record: Box<Record>,
    ) -> Self {
        record.streamed = matches!(reader, Reader::Stream(..));
        if !record.streamed {
            tab.pass(begun.pieces.iter().map(Bytes::len).sum());
        }
        let mut relay = Self {
            ready: begun.pieces.into_iter().collect(),
            reader,
            inflow: Some(begun.inflow),
            broken: None,
            in_burst: false,
            tab,
            settling: None,
            record,
            _slot: slot,
        };
        relay.look();
        relay
    }

    /// The next piece for the client, without waiting for more. What comes alone goes alone, at the cost of one look;
    /// what comes right after another is gathered with all that is here by now.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        let most = if self.in_burst { GATHERED } else { 1 };
        let step = loop {
            if let Some(settling) = &mut self.settling {
                ready!(Pin::new(settling).poll(cx));
                self.settling = None;
            }
            if self.ready.iter().map(Bytes::len).sum::<usize>() >= most {
                break Poll::Ready(Ok(()));
            }
            match self.poll_step(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => break Poll::Ready(Ok(())),
                Poll::Ready(Err(broken)) => break Poll::Ready(Err(broken)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.in_burst = step.is_ready();
        match (self.gathered(), step) {
            (Some(piece), _) => {
                self.record.bytes_out += piece.len() as u64;
                Poll::Ready(Some(Ok(piece)))
            }
            (None, Poll::Ready(Ok(()))) => Poll::Ready(None),
            (None, Poll::Ready(Err(broken))) => Poll::Ready(Some(Err(broken))),
            (None, Poll::Pending) => Poll::Pending,
        }
    }

    /// All pieces that may go out, as one: a short copy is cheaper than a chunk of its own for each.
    fn gathered(&mut self) -> Option<Bytes> {
        let first = self.ready.pop_front()?;
        if self.ready.is_empty() || first.len() >= GATHERED {
            return Some(first);
        }
        let length = first.len() + self.ready.iter().map(Bytes::len).sum::<usize>();
        let mut whole = BytesMut::with_capacity(length);
        whole.extend_from_slice(&first);
        self.ready
            .drain(..)
            .for_each(|piece| whole.extend_from_slice(&piece));
        Some(whole.freeze())
    }

    /// Takes one more piece from the provider, or its end, or its failure. False once there is nothing more to come.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        if let Reader::Stream(_, closing) = &self.reader
            && closing.is_closed()
            && self.record.end.is_none()
        {
            self.complain(
                End::Shutdown,
                "shutting_down",
                "the gateway is shutting down",
            );
        }
        if self.ready.is_empty()
            && let Some(broken) = self.broken.take()
        {
            return Poll::Ready(Err(broken));
        }
        let Some(inflow) = &mut self.inflow else {
            return Poll::Ready(Ok(false));
        };
        let piece = ready!(inflow.poll_piece(cx));
        if self.record.end.is_some() {
            // The answer was complete before. The rest only frees the connection; how it ends is no news.
            match piece {
                Some(Ok(piece)) => self.feed(piece),
                Some(Err(_)) | None => self.inflow = None,
            }
            return Poll::Ready(Ok(true));
        }
        match (piece, &mut self.reader) {
            (Some(Ok(piece)), Reader::Long(skimmer)) => {
                skimmer.feed(&piece);
                self.tab.pass(piece.len());
                self.ready.push_back(piece);
                // A body of known length is not asked for more than that.
                if inflow.is_over() {
                    self.end_whole();
                }
            }
            (Some(Ok(piece)), Reader::Stream(..)) => self.feed(piece),
            (None, Reader::Long(_)) => self.end_whole(),
            (None, Reader::Stream(..)) => self.finish(),
            (Some(Err(cause)), Reader::Long(_)) => {
                self.end_long(end_of(&cause));
                self.broken = Some(Broken);
            }
            (Some(Err(cause)), Reader::Stream(..)) => self.break_off(&cause),
        }
        Poll::Ready(Ok(true))
    }

    /// The body of a long answer is over; whether the answer is, its own text must say.
    fn end_whole(&mut self) {
        if matches!(&self.reader, Reader::Long(skimmer) if skimmer.is_complete()) {
            self.end_long(End::Complete);
        } else {
            self.end_long(End::Truncated);
            self.broken = Some(Broken);
        }
    }

    fn end_long(&mut self, end: End) {
        if let Reader::Long(skimmer) = &self.reader {
            self.record.usage = skimmer.usage();
        }
        self.ends(end);
        self.inflow = None;
    }

    /// The answer is over, and what it cost is known.
    fn ends(&mut self, end: End) {
        self.record.end = Some(end);
        let (cost, settling) = self.tab.ends(end.name(), self.record.usage);
        self.record.paid(cost);
        self.settling = Some(settling);
    }

    fn feed(&mut self, piece: Bytes) {
        let Reader::Stream(decoder, _) = &mut self.reader else {
            return;
        };
        let mut out = Pieces::new();
        let fed = decoder.feed(piece, &mut out);
        self.ready.extend(out);
        match fed {
            Ok(()) => self.look(),
            Err(_) if self.record.end.is_some() => self.inflow = None,
            Err(too_long) => self.complain(End::Truncated, "upstream_error", &too_long.to_string()),
        }
    }

    /// Whether the provider has said its last word.
    fn look(&mut self) {
        let Reader::Stream(decoder, _) = &self.reader else {
            return;
        };
        let progress = decoder.progress();
        self.record.usage = progress.usage;
        let is_beyond = self.tab.passes(progress);
        match progress.end {
            _ if self.record.end.is_some() => {}
            None if is_beyond => {
                let message = "the answer is longer than the budget pays for";
                self.complain(End::BudgetCut, "budget_exceeded", message);
            }
            None => {}
            Some(Ended::Complete) => {
                self.ends(End::Complete);
                if let Some(inflow) = &mut self.inflow {
                    inflow.lingers(Instant::now());
                }
            }
            // What follows an error is not an answer's end, whatever it says.
            Some(Ended::Error { heard: true }) => {
                self.ends(End::Error);
                self.inflow = None;
            }
            Some(Ended::Error { heard: false }) => {
                let message = "the provider ended its stream with an error";
                self.complain(End::Error, "upstream_error", message);
            }
        }
    }

    fn finish(&mut self) {
        let Reader::Stream(decoder, _) = &mut self.reader else {
            return;
        };
        let mut out = Pieces::new();
        decoder.finish(&mut out);
        self.ready.extend(out);
        self.look();
        self.inflow = None;
        if self.record.end.is_none() {
            let message = "the provider ended its stream in the middle of the answer";
            self.complain(End::Truncated, "upstream_error", message);
        }
    }

    fn break_off(&mut self, cause: &Cause) {
        let (code, message) = match cause {
            Cause::Clock(clock) => (
                "upstream_timeout",
                format!("the {clock} clock ran out in the middle of the answer"),
            ),
            Cause::Cut(_) => (
                "upstream_error",
                "the provider broke off in the middle of the answer".into(),
            ),
        };
        self.complain(end_of(cause), code, &message);
    }

    /// Ends the stream with an error of ours. What was held of an incomplete event is left out: the error is heard.
    fn complain(&mut self, end: End, code: &'static str, message: &str) {
        let complaint = Complaint {
            status: StatusCode::BAD_GATEWAY,
            code,
            message,
            param: None,
        };
        self.ready.push_back(complaint.event());
        self.ends(end);
        self.record.code = Some(code);
        self.inflow = None;
    }
}

fn end_of(cause: &Cause) -> End {
    match cause {
        Cause::Clock(_) => End::Stalled,
        Cause::Cut(_) => End::Truncated,
    }
}
