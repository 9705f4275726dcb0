//! What happened to one request: written along the way, and told once, when it ends.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};
use smol_str::SmolStr;
use tokio::time::Instant;

use super::access::Line;
use super::decision::{Decided, Decision, Step};
use super::labels::KeyLabel;
use super::metrics::{RouteMeters, TargetMeters};
use super::said::Said;
use super::trace::{Trace, Tried};
use super::{End, Outcome, RequestId, Telemetry};
use crate::usage::{Money, Usage};

/// What one try was entered with.
#[derive(Clone, Copy, Debug)]
pub struct Entered {
    /// Its tokens: told, or else estimated.
    pub usage: Usage,
    /// What they cost. None: there is no price.
    pub cost: Option<Money>,
}

/// What happened to one request. Written by all, read by none until its end.
pub struct Record {
    pub(super) telemetry: Arc<Telemetry>,
    /// Ours, and unique.
    pub id: RequestId,
    /// What was called.
    pub api: &'static str,
    /// When the request's head had been read.
    pub began: Instant,
    /// The client's own `x-request-id`.
    pub client_id: Option<HeaderValue>,
    /// The origin of the web page that asks, if one does and may.
    pub page: Option<HeaderValue>,
    /// The caller's name.
    pub(super) key: Option<SmolStr>,
    /// What stands for it in metrics.
    pub(super) label: KeyLabel,
    /// The model as it was asked for, shortened.
    pub asked: Option<Box<str>>,
    pub(super) route: Option<Arc<RouteMeters>>,
    /// `provider/model`, as asked last.
    pub target: Option<Arc<str>>,
    pub(super) meters: Option<Arc<TargetMeters>>,
    /// The target of a try that has not come to anything yet.
    pub(super) trying: Option<Arc<TargetMeters>>,
    /// How many requests went to providers.
    pub tries: u32,
    /// What the last of them was sent without, as a header tells it.
    pub dropped: Option<HeaderValue>,
    /// When the first of them went.
    pub sent: Option<Instant>,
    /// When the first content came.
    pub content: Option<Instant>,
    /// The status the client got.
    pub status: u16,
    /// The code of our own rejection.
    pub code: Option<&'static str>,
    /// The answer was a stream.
    pub streamed: bool,
    /// Length of the request's body.
    pub bytes_in: u64,
    /// Length of the answer's body so far.
    pub bytes_out: u64,
    /// What is said, of a key of which that is logged.
    pub(super) said: Option<Box<Said>>,
    /// The tokens of the try that was entered last.
    pub usage: Option<Usage>,
    /// What all of its tries cost, as far as they have a price.
    pub cost: Option<Money>,
    /// How the answer ended; a record without it belongs to a client that left.
    pub end: Option<End>,
    /// Since when nobody waited for it any more, if that was before its end.
    pub left: Option<Instant>,
    /// Why it went where it went. None: nobody wants to know.
    pub decided: Option<Box<Decided>>,
    /// Where it stands in a trace. None: nobody collects any.
    pub(super) trace: Option<Trace>,
    /// It is about nothing that has happened.
    pub(super) is_rehearsed: bool,
    /// What a try beside another came to.
    beside: Option<Arc<Mutex<Beside>>>,
    /// It is about such a try.
    is_aside: bool,
}

/// What a try beside another adds to its request.
#[derive(Debug, Default)]
struct Beside {
    cost: Option<Money>,
    tries: u32,
    tried: Vec<Tried>,
}

impl Record {
    /// Of a request that is about to be answered.
    pub(super) fn of(
        telemetry: &Arc<Telemetry>,
        id: RequestId,
        now: Instant,
        api: &'static str,
    ) -> Box<Self> {
        // In a box from the start: it is long, and moves from hand to hand.
        Box::new(Self {
            telemetry: Arc::clone(telemetry),
            id,
            api,
            began: now,
            client_id: None,
            page: None,
            key: None,
            label: KeyLabel::NOBODY,
            asked: None,
            route: None,
            target: None,
            meters: None,
            trying: None,
            tries: 0,
            dropped: None,
            sent: None,
            content: None,
            status: 0,
            code: None,
            streamed: false,
            bytes_in: 0,
            bytes_out: 0,
            said: None,
            usage: None,
            cost: None,
            end: None,
            left: None,
            decided: None,
            trace: None,
            is_rehearsed: false,
            beside: None,
            is_aside: false,
        })
    }

    /// Who asks is known, by this name; and how many bytes of each body are logged, if any are.
    pub fn is_called_by(&mut self, key: &SmolStr, logged: Option<NonZeroUsize>) {
        self.label = self.telemetry.metrics.label_of(key);
        self.key = Some(key.clone());
        if let Some(most) = logged
            && self.telemetry.lines.is_some()
        {
            self.said = Some(Said::of(most.get(), &self.telemetry.room));
        }
    }

    /// The request's body is here; `other` says what it is, if it is no text.
    pub fn asks(&mut self, body: &[u8], other: Option<&str>) {
        self.bytes_in = body.len() as u64;
        let Some(said) = &mut self.said else {
            return;
        };
        if let Some(kind) = other {
            said.request.is(kind);
        }
        if !said.asks(body) {
            self.telemetry.metrics.texts_lost.inc();
        }
    }

    /// The answer begins with these headers.
    pub fn answers(&mut self, headers: &HeaderMap) {
        if let Some(said) = &mut self.said {
            said.answer.begins(headers);
        }
    }

    /// So much more of the answer goes to the client.
    pub fn passes(&mut self, piece: &[u8]) {
        self.bytes_out += piece.len() as u64;
        if let Some(said) = &mut self.said
            // Who has left hears no more of it, whoever else reads on.
            && self.left.is_none()
            && !said.answers(piece)
        {
            self.telemetry.metrics.texts_lost.inc();
        }
    }

    /// The route was found: from here on the request counts as under way.
    pub fn routed(&mut self, meters: &Arc<RouteMeters>) {
        meters.in_flight.add(1);
        self.route = Some(Arc::clone(meters));
    }

    /// The status has gone out as that of a stream, before there was an answer.
    pub fn begins_early(&mut self) {
        self.status = 200;
        self.streamed = true;
    }

    /// A request goes to a target.
    pub fn try_begins(&mut self, target: &Arc<str>, meters: &Arc<TargetMeters>, now: Instant) {
        self.tries += 1;
        self.dropped = None;
        self.sent.get_or_insert(now);
        self.target = Some(Arc::clone(target));
        self.meters = Some(Arc::clone(meters));
        self.trying = Some(Arc::clone(meters));
    }

    /// One more try was entered, unless nothing was.
    pub fn enters(&mut self, entered: Option<Entered>) {
        let Some(Entered { usage, cost }) = entered else {
            return;
        };
        if let Some(target) = &self.meters {
            target.count(usage);
            let cost = cost.unwrap_or_default();
            match &self.route {
                Some(route) if !target.is_of(route) => {
                    let board = &self.telemetry.metrics.board;
                    board.pays_instead(route, target, cost, self.label);
                }
                _ => target.spend.pays(cost, self.label),
            }
        }
        self.usage = Some(usage);
        if let Some(trace) = &mut self.trace {
            trace.enters(Entered { usage, cost });
        }
        if let Some(decided) = &mut self.decided {
            decided.paid = cost;
        }
        if let Some(cost) = cost {
            self.cost = Some(self.cost.unwrap_or_default().plus(cost));
        }
    }

    /// For a try beside the one under way: what it costs is this request's, too, whatever becomes of it.
    #[must_use]
    pub fn aside(&mut self) -> Box<Self> {
        let mut aside = self.telemetry.begin(self.began, self.api);
        aside.id = self.id;
        aside.label = self.label;
        aside.route.clone_from(&self.route);
        aside.trace = self.trace.as_ref().map(Trace::aside);
        aside.is_aside = true;
        aside.beside = Some(Arc::clone(self.beside.get_or_insert_default()));
        aside
    }

    /// The try beside this one is over.
    pub fn collects(&mut self, aside: Box<Self>) {
        drop(aside);
        self.collect();
    }

    /// The try beside this one is the one that answers.
    pub fn takes_over(&mut self, mut aside: Box<Self>) {
        self.target = aside.target.take();
        self.meters = aside.meters.take();
        self.dropped = aside.dropped.take();
        self.content = aside.content;
        if let (Some(trace), Some(other)) = (&mut self.trace, &mut aside.trace) {
            trace.takes_over(other);
        }
        self.collects(aside);
    }

    fn collect(&mut self) {
        let Some(beside) = &self.beside else {
            return;
        };
        let beside = beside.lock().map(|mut it| std::mem::take(&mut *it));
        let Beside { cost, tries, tried } = beside.unwrap_or_default();
        self.tries += tries;
        if let Some(trace) = &mut self.trace {
            trace.collects(tried);
        }
        if let Some(cost) = cost {
            self.cost = Some(self.cost.unwrap_or_default().plus(cost));
        }
    }

    /// Nobody waits for the answer any more, for this reason and since then: for the client that was its end.
    pub fn ends_early(&mut self, absence: Option<(End, Instant)>) {
        if let Some((why, since)) = absence {
            self.end.get_or_insert(why);
            self.left.get_or_insert(since);
        }
    }

    /// Somebody wants to know why it goes where it goes: whoever reads the log, and whoever asks for what is kept.
    #[cold]
    pub fn is_decided(&mut self, at: SystemTime, is_kept: bool) {
        self.decided = Some(Box::new(Decided {
            is_kept,
            ..Decided::at(at)
        }));
    }

    /// Whether it is kept why it went where it went.
    pub fn is_kept(&self) -> bool {
        self.decided.as_ref().is_some_and(|it| it.is_kept)
    }

    /// Another model's targets are chosen from, if somebody wants to know.
    pub fn decides(&mut self, decision: impl FnOnce() -> Decision) {
        if let Some(decided) = &mut self.decided {
            decided.all.push(decision());
        }
    }

    /// The decision under way, if somebody wants to know.
    pub fn decision(&mut self) -> Option<&mut Decision> {
        self.decided.as_mut().and_then(|it| it.all.last_mut())
    }

    /// It went to a target, or was kept from it, if somebody wants to know.
    pub fn steps(&mut self, step: impl FnOnce(Instant) -> Step) {
        let began = self.began;
        if let Some(decision) = self.decision() {
            decision.steps.push(step(began));
        }
    }

    /// It came to something.
    pub fn try_ends(&mut self, outcome: Outcome) {
        let trying = self.trying.take().filter(|_| !self.is_rehearsed);
        if let Some(target) = trying {
            target.try_ends(outcome);
            if let Some(trace) = &mut self.trace {
                trace.ends(outcome);
            }
        }
    }
}

impl Record {
    /// Leaves to its request what a try beside another came to.
    #[cold]
    fn leaves(&mut self) {
        self.try_ends(Outcome::Cancelled);
        if let Some(Ok(mut beside)) = self.beside.as_ref().map(|beside| beside.lock()) {
            beside.tries += self.tries;
            beside
                .tried
                .extend(self.trace.iter_mut().flat_map(Trace::leaves));
            let both = [beside.cost, self.cost];
            beside.cost = both.into_iter().flatten().reduce(Money::plus);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.is_rehearsed {
            return;
        }
        if self.is_aside {
            return self.leaves();
        }
        self.collect();
        let now = self.left.unwrap_or_else(Instant::now);
        self.try_ends(Outcome::Cancelled);
        let end = *self.end.get_or_insert(End::ClientGone);
        if self.status == 0 {
            // nginx' number for a client that left before it got anything.
            self.status = 499;
        }
        self.telemetry.metrics.tell(self, end, now);
        if let Some(route) = &self.route {
            route.in_flight.take_back();
        }
        let telemetry = Arc::clone(&self.telemetry);
        if let Some(decided) = self.decided.take() {
            telemetry.decided(*decided, self, end, now);
        }
        self.is_told(end, now);
        if let Some(lines) = &telemetry.lines
            && !lines.push(Line::of(self, end, now))
        {
            telemetry.metrics.lines_lost.inc();
        }
    }
}
