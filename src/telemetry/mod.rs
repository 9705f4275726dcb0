//! What happened? One [`Record`] for each request, filled along the way and told once, when it ends.
//!
//! Metrics and the access line come from the record and from nowhere else. Whatever ends a request ends its record:
//! it travels in the answer's body and is told by `Drop`. Nobody decides by it. Knows `usage`.

pub mod access;
pub mod decision;
mod meters;
pub mod metrics;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::usage::{Money, Usage};
use access::{Line, Lines};
use decision::{Decision, Step};
use metrics::{Metrics, RouteMeters, TargetMeters};

/// Where records go when they end.
pub struct Telemetry {
    /// Every metric.
    pub metrics: Metrics,
    lines: Option<Arc<Lines>>,
    ids: Ids,
}

impl Telemetry {
    /// With access lines going to `lines`, if anywhere.
    pub fn new(metrics: Metrics, lines: Option<Arc<Lines>>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            lines,
            ids: Ids::default(),
        })
    }

    /// Opens a record. `api` is the endpoint's name, or what stands for one.
    pub fn begin(self: &Arc<Self>, now: Instant, api: &'static str) -> Box<Record> {
        // In a box from the start: it is long, and moves from hand to hand.
        Box::new(Record {
            telemetry: Arc::clone(self),
            id: self.ids.next(),
            api,
            began: now,
            client_id: None,
            page: None,
            key: None,
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
            usage: None,
            cost: None,
            end: None,
            left: None,
            decisions: None,
            is_rehearsed: false,
            beside: None,
            is_aside: false,
        })
    }

    /// A record of what would happen, of which nothing is told.
    pub fn rehearse(self: &Arc<Self>, now: Instant, api: &'static str) -> Box<Record> {
        let mut record = self.begin(now, api);
        record.is_rehearsed = true;
        record.decisions = Some(Box::default());
        record
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It would have cost more than was held for it.
    BudgetCut,
    /// The client went before the end.
    ClientGone,
    /// As the provider ends one.
    Complete,
    /// With an error in a stream: the provider's, or ours where the stream had begun before there was an answer.
    Error,
    /// We had to stop.
    Shutdown,
    /// The provider fell silent for too long.
    Stalled,
    /// The provider broke off.
    Truncated,
}

impl End {
    /// All of them; a label's values are these.
    pub const ALL: [Self; 7] = [
        Self::BudgetCut,
        Self::ClientGone,
        Self::Complete,
        Self::Error,
        Self::Shutdown,
        Self::Stalled,
        Self::Truncated,
    ];

    /// Its name in labels and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::BudgetCut => "budget_cut",
            Self::ClientGone => "client_gone",
            Self::Complete => "complete",
            Self::Error => "error",
            Self::Shutdown => "shutdown",
            Self::Stalled => "stalled",
            Self::Truncated => "truncated",
        }
    }
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Answered,
    /// The client went, or time was up for all tries.
    Cancelled,
    /// The request was wrong, says the provider.
    ClientFault,
    /// No connection.
    Connect,
    /// Our credentials were refused.
    Credentials,
    /// An answer that is none.
    Nonsense,
    /// The provider had a fault.
    ProviderFault,
    /// Too much at once.
    RateLimited,
    /// The connection broke.
    Reset,
    /// A clock ran out.
    Timeout,
}

impl Outcome {
    /// All of them; a label's values are these.
    pub const ALL: [Self; 10] = [
        Self::Answered,
        Self::Cancelled,
        Self::ClientFault,
        Self::Connect,
        Self::Credentials,
        Self::Nonsense,
        Self::ProviderFault,
        Self::RateLimited,
        Self::Reset,
        Self::Timeout,
    ];

    /// Its name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::ClientFault => "client_fault",
            Self::Connect => "connect",
            Self::Credentials => "credentials",
            Self::Nonsense => "nonsense",
            Self::ProviderFault => "provider_fault",
            Self::RateLimited => "rate_limited",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }
}

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
    telemetry: Arc<Telemetry>,
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
    pub key: Option<Arc<str>>,
    /// The model as it was asked for, shortened.
    pub asked: Option<Box<str>>,
    route: Option<Arc<RouteMeters>>,
    /// `provider/model`, as asked last.
    pub target: Option<Arc<str>>,
    meters: Option<Arc<TargetMeters>>,
    /// The target of a try that has not come to anything yet.
    trying: Option<Arc<TargetMeters>>,
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
    /// The tokens of the try that was entered last.
    pub usage: Option<Usage>,
    /// What all of its tries cost, as far as they have a price.
    pub cost: Option<Money>,
    /// How the answer ended; a record without it belongs to a client that left.
    pub end: Option<End>,
    /// Since when nobody waited for it any more, if that was before its end.
    pub left: Option<Instant>,
    /// Why it went where it went, model by model. None: nobody wants to know.
    pub decisions: Option<Box<Vec<Decision>>>,
    /// It is about nothing that has happened.
    is_rehearsed: bool,
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
}

impl Record {
    /// The route was found: from here on the request counts as under way.
    pub fn routed(&mut self, meters: &Arc<RouteMeters>) {
        meters.in_flight.inc();
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
        }
        self.usage = Some(usage);
        if let Some(cost) = cost {
            self.cost = Some(self.cost.unwrap_or_default().plus(cost));
        }
    }

    /// For a try beside the one under way: what it costs is this request's, too, whatever becomes of it.
    #[must_use]
    pub fn aside(&mut self) -> Box<Self> {
        let mut aside = self.telemetry.begin(self.began, self.api);
        aside.id = self.id;
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
        self.collects(aside);
    }

    fn collect(&mut self) {
        let Some(beside) = &self.beside else {
            return;
        };
        let beside = beside.lock().map(|mut it| std::mem::take(&mut *it));
        let Beside { cost, tries } = beside.unwrap_or_default();
        self.tries += tries;
        if let Some(cost) = cost {
            self.cost = Some(self.cost.unwrap_or_default().plus(cost));
        }
    }

    /// The label of the target that was asked last.
    fn target_label(&self) -> &str {
        self.meters.as_ref().map_or("", |target| &target.name)
    }

    /// Nobody waits for the answer any more, for this reason and since then: for the client that was its end.
    pub fn ends_early(&mut self, absence: Option<(End, Instant)>) {
        if let Some((why, since)) = absence {
            self.end.get_or_insert(why);
            self.left.get_or_insert(since);
        }
    }

    /// Another model's targets are chosen from, if somebody wants to know.
    pub fn decides(&mut self, decision: impl FnOnce() -> Decision) {
        if let Some(decisions) = &mut self.decisions {
            decisions.push(decision());
        }
    }

    /// It went to a target, or was kept from it, if somebody wants to know.
    pub fn steps(&mut self, step: impl FnOnce(Instant) -> Step) {
        let began = self.began;
        if let Some(decision) = self.decisions.as_mut().and_then(|all| all.last_mut()) {
            decision.steps.push(step(began));
        }
    }

    /// It came to something.
    pub fn try_ends(&mut self, outcome: Outcome) {
        let trying = self.trying.take().filter(|_| !self.is_rehearsed);
        if let Some(target) = trying {
            target.tries(outcome).inc();
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
            route.in_flight.dec();
        }
        let telemetry = Arc::clone(&self.telemetry);
        if let Some(lines) = &telemetry.lines
            && !lines.push(Line::of(self, end, now))
        {
            telemetry.metrics.lines_lost.inc();
        }
    }
}

/// A request's name: `req_` and 24 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 28]);

impl RequestId {
    /// The header that has it in an answer, and the client's own in a request.
    pub const NAME: HeaderName = HeaderName::from_static("x-request-id");

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A number of its own, as good as random.
    pub fn seed(&self) -> u64 {
        let digits = self
            .0
            .iter()
            .skip(4)
            .map(|digit| u64::from(digit & 15) + 9 * u64::from(digit >> 6));
        digits.fold(0, |number, digit| number.rotate_left(4) ^ digit)
    }

    /// As a header's value.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static("req_"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes request ids: a counter scattered by a keyed hash, and a salt of this process.
struct Ids {
    keyed: RandomState,
    salt: u32,
    next: AtomicU64,
}

impl Default for Ids {
    fn default() -> Self {
        let keyed = RandomState::new();
        #[expect(clippy::cast_possible_truncation, reason = "32 of 64 random bits")]
        let salt = keyed.hash_one("salt") as u32;
        Self {
            keyed,
            salt,
            next: AtomicU64::new(0),
        }
    }
}

impl Ids {
    fn next(&self) -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let number = u128::from(self.keyed.hash_one(n)) << 32 | u128::from(self.salt);
        let mut text = *b"req_000000000000000000000000";
        for (place, byte) in text.iter_mut().skip(4).enumerate() {
            let digit = number >> (4 * place) & 15;
            *byte = usize::try_from(digit)
                .ok()
                .and_then(|d| DIGITS.get(d))
                .copied()
                .unwrap_or(b'0');
        }
        RequestId(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_fit_a_header() {
        let ids = Ids::default();
        let many: HashSet<String> = (0..10_000)
            .map(|_| ids.next().as_str().to_owned())
            .collect();
        assert_eq!(many.len(), 10_000);
        assert_eq!(ids.next().header().len(), 28);
    }

    #[test]
    fn a_record_is_told_once_however_it_ends() {
        let telemetry = Telemetry::new(Metrics::new(), None);
        let route = telemetry.metrics.route("fast");
        let target = telemetry.metrics.target("fast", "groq/x");
        telemetry.metrics.label_keys(["ann".into()].into_iter());
        let now = Instant::now();
        let mut record = telemetry.begin(now, "chat_completions");
        record.routed(&route);
        record.key = Some("ann".into());
        record.try_begins(&"groq/x".into(), &target, now);
        assert!(
            telemetry
                .metrics
                .text()
                .contains("tollgate_in_flight{model=\"fast\"} 1")
        );
        drop(record);
        let text = telemetry.metrics.text();
        for line in [
            "tollgate_in_flight{model=\"fast\"} 0",
            "tollgate_tries_total{outcome=\"cancelled\",target=\"groq/x\"} 1",
            "tollgate_requests_total{api=\"chat_completions\",key=\"ann\",model=\"fast\",status=\"499\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
