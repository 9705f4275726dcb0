//! The body of an answer on its way out: passes pieces, counts, knows its end, holds the guards.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::time::Instant;

use super::{Closing, Finisher};
use crate::admission::Permit;
use crate::ledger::Settling;
use crate::protocol::{Complaint, Decoder, Ended, Pieces, Skimmer};
use crate::telemetry::{End, Record};
use crate::upstream::{Answer, AnswerBody, Begun, Broken as Cause, Clock, Inflow, Tab};
use crate::usage::Usage;

/// An answer that did not come to its end, and that there is no way left to say so but to break the connection.
#[derive(Debug, thiserror::Error)]
#[error("the provider's answer broke off")]
pub struct Broken;

/// What has come is gathered up to here, in bytes, before it goes out: a burst of events is then one write.
const GATHERED: usize = 16 << 10;

/// What a stream ends with when time is up.
pub(super) const SHUTTING_DOWN: Complaint<'static> = Complaint {
    status: StatusCode::BAD_GATEWAY,
    code: "shutting_down",
    message: "the gateway is shutting down",
    param: None,
};

/// An answer on its way to a client. Dropped before its end, it is read on if that is what is wanted; else it gives
/// everything back and stops the provider.
pub struct Relay {
    /// None only while it is dropped.
    flow: Option<Box<Flow>>,
    finisher: Arc<Finisher>,
}

impl Relay {
    /// With what the request holds.
    pub(super) fn new(
        mut flow: Box<Flow>,
        permit: Option<Permit>,
        finisher: &Arc<Finisher>,
    ) -> Self {
        flow.permit = permit;
        Self {
            flow: Some(flow),
            finisher: Arc::clone(finisher),
        }
    }

    /// The next piece for the client.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        match &mut self.flow {
            Some(flow) => flow.poll_piece(cx),
            None => Poll::Ready(None),
        }
    }

    /// Whether the answer is a stream.
    pub(super) fn is_stream(&self) -> bool {
        let flow = self.flow.as_ref();
        flow.is_some_and(|flow| matches!(flow.reader, Reader::Stream(..)))
    }

    /// Whether the answer has not come to its end yet.
    pub(super) fn is_open(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.end.is_none())
    }

    /// How the answer ended, once it did and all of it has gone out; and whether nothing follows any more.
    pub(super) fn ended(&self) -> Option<(End, bool)> {
        let flow = self.flow.as_ref()?;
        let is_out = flow.ready.is_empty() && flow.settling.is_none() && flow.broken.is_none();
        let end = flow.end.filter(|_| is_out)?;
        Some((end, flow.inflow.is_none()))
    }

    /// Its client has left, and it goes on all the same.
    pub(super) fn is_left(&mut self, since: Instant) {
        if let Some(flow) = &mut self.flow {
            flow.record.ends_early(Some((End::ClientGone, since)));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(mut flow) = self.flow.take().filter(|flow| !flow.is_over) else {
            return;
        };
        // Given back once the finisher has it.
        let _permit = flow.permit.take();
        let (presence, now) = (flow.tab.presence(), Instant::now());
        if self.finisher.closing().is_closed() {
            presence.stops(now);
        } else if let Some(most) = presence.leaves(now) {
            flow.leave();
            let rest = async move { poll_fn(|cx| flow.poll_rest(cx)).await };
            self.finisher.take(most, rest);
        }
    }
}

/// Reads an answer on that nobody waits for.
pub async fn read_on(answer: Box<Answer>, tab: Box<Tab>, record: Box<Record>, closing: &Closing) {
    let (begun, reader) = match answer.body {
        // It has come, and been entered.
        AnswerBody::Whole(..) => return,
        AnswerBody::Long(begun, skimmer) => (begun, Reader::Long(skimmer)),
        AnswerBody::Stream(begun, decoder) => (begun, Reader::Stream(decoder, closing.clone())),
    };
    let mut flow = Flow::new(*begun, reader, tab, record);
    flow.leave();
    poll_fn(|cx| flow.poll_rest(cx)).await;
}

/// Passes an answer on. Dropped before its end it stops the provider, and enters what is known.
pub(super) struct Flow {
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
    /// It came to its end, whatever that was, and was entered.
    is_over: bool,
    /// Whatever that was, also where nobody waits for it.
    end: Option<End>,
    /// None where nobody waits for it.
    permit: Option<Permit>,
}

/// Looks at an answer while it passes.
pub(super) enum Reader {
    /// At one too long to be held.
    Long(Box<dyn Skimmer>),
    /// At a stream, which ends with an error of ours when time is up.
    Stream(Box<dyn Decoder>, Closing),
}

impl Reader {
    /// The usage that was told so far.
    fn usage(&self) -> Option<Usage> {
        match self {
            Self::Long(skimmer) => skimmer.usage(),
            Self::Stream(decoder, _) => decoder.progress().usage,
        }
    }

    /// The id of a response, if it was told.
    fn response_id(&self) -> Option<&str> {
        match self {
            Self::Long(skimmer) => skimmer.response_id(),
            Self::Stream(decoder, _) => decoder.response_id(),
        }
    }
}

impl Flow {
    /// With the pieces that have come already, after the first content.
    pub(super) fn new(
        begun: Begun,
        reader: Reader,
        mut tab: Box<Tab>,
        mut record: Box<Record>,
    ) -> Box<Self> {
        record.streamed = matches!(reader, Reader::Stream(..));
        if !record.streamed {
            tab.pass(begun.pieces.iter().map(Bytes::len).sum());
        }
        let mut flow = Box::new(Self {
            ready: begun.pieces.into_iter().collect(),
            reader,
            inflow: Some(begun.inflow),
            broken: None,
            in_burst: false,
            tab,
            settling: None,
            record,
            is_over: false,
            end: None,
            permit: None,
        });
        flow.look();
        flow
    }

    /// Its client has left: what is read from here on is for nobody.
    fn leave(&mut self) {
        self.record.ends_early(self.tab.presence().absence());
    }

    /// Reads what is left, for nobody. Ready at the end, whatever that is.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Beyond the answer's own end, too: the connection is good for another then.
        while self.inflow.is_some() {
            self.ready.clear();
            if !matches!(ready!(self.poll_step(cx)), Ok(true)) {
                break;
            }
        }
        Poll::Ready(())
    }

    /// The next piece for the client, without waiting for more. What comes alone goes alone, at the cost of one look;
    /// what comes right after another is gathered with all that is here by now.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
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
                self.record.passes(&piece);
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
            && !self.is_over
        {
            let Complaint { code, message, .. } = SHUTTING_DOWN;
            self.complain(End::Shutdown, code, message);
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
        if self.is_over {
            // The answer was complete before. The rest only frees the connection; how it ends is no news.
            match piece {
                Some(Ok(piece)) => self.feed(piece),
                Some(Err(_)) | None => self.inflow = None,
            }
            return Poll::Ready(Ok(true));
        }
        if let Some(Err(Cause::Clock(Clock::Total))) = &piece {
            // A client that reads slowly uses its time up as well.
            self.tab.excuses();
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
        self.ends(end);
        self.inflow = None;
    }

    /// The answer is over, and what it cost is known.
    fn ends(&mut self, end: End) {
        self.is_over = true;
        self.end = Some(end);
        self.record.end.get_or_insert(end);
        self.tab.is_kept_as(self.reader.response_id());
        let (entered, settling) = self.tab.ends(end, self.reader.usage());
        self.record.enters(entered);
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
            Err(_) if self.is_over => self.inflow = None,
            Err(too_long) => self.complain(End::Truncated, "upstream_error", &too_long.to_string()),
        }
    }

    /// Whether the provider has said its last word.
    fn look(&mut self) {
        let Reader::Stream(decoder, _) = &self.reader else {
            return;
        };
        let progress = decoder.progress();
        // A stream is passed on without content, too, once that has been waited for long enough.
        if progress.content && self.record.content.is_none() {
            self.record.content = Some(Instant::now());
        }
        let is_beyond = self.tab.passes(progress);
        match progress.end {
            _ if self.is_over => {}
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
        if !self.is_over {
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
        if self.record.left.is_none() {
            self.record.code = Some(code);
        }
        self.ends(end);
        self.inflow = None;
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if !self.is_over {
            self.tab.is_kept_as(self.reader.response_id());
            let entered = self.tab.abandon(self.reader.usage());
            self.record.enters(entered);
            self.record.ends_early(self.tab.presence().absence());
        }
    }
}

fn end_of(cause: &Cause) -> End {
    match cause {
        Cause::Clock(_) => End::Stalled,
        Cause::Cut(_) => End::Truncated,
    }
}
