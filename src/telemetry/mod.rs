//! What happened? One [`Record`] for each request, filled along the way and told once, when it ends.
//!
//! Metrics, the access line and spans come from the record and from nowhere else. Whatever ends a request ends its record:
//! it travels in the answer's body and is told by `Drop`. Nobody decides by it. Of what was said it has a word only where
//! the operator wants that of a key (`said`). Knows `usage`.

pub mod access;
mod board;
pub mod context;
mod counts;
pub mod decision;
pub mod journal;
mod labels;
pub mod lines;
mod meters;
pub mod metrics;
mod observed;
#[cfg(feature = "otlp")]
pub mod otlp;
mod record;
mod said;
#[cfg_attr(
    not(feature = "otlp"),
    expect(dead_code, reason = "what is noted is read where it is told")
)]
pub mod trace;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use access::Line;
use decision::{Decided, Kept};
use lines::Lines;
pub use meters::APIS;
use metrics::Metrics;
pub use record::{Entered, Record};
use said::Room;
use trace::Tracer;

/// Where records go when they end.
pub struct Telemetry {
    /// Every metric.
    pub metrics: Metrics,
    lines: Option<Arc<Lines<Line>>>,
    /// Decisions that may be asked for.
    pub kept: Kept,
    decisions: Option<Arc<Lines<String>>>,
    /// What the texts that are logged take.
    room: Room,
    tracer: Option<Tracer>,
    ids: Ids,
}

impl Telemetry {
    /// With access lines going to `lines`, if anywhere.
    pub fn new(metrics: Metrics, lines: Option<Arc<Lines<Line>>>) -> Arc<Self> {
        Self::logging(metrics, lines, None, None)
    }

    /// The same, with a line for each decision going to `decisions`, and spans by way of `tracer`, if anywhere.
    pub fn logging(
        metrics: Metrics,
        lines: Option<Arc<Lines<Line>>>,
        decisions: Option<Arc<Lines<String>>>,
        tracer: Option<Tracer>,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            lines,
            kept: Kept::default(),
            decisions,
            room: Room::default(),
            tracer,
            ids: Ids::default(),
        })
    }

    /// Whether each decision is logged.
    pub fn logs_decisions(&self) -> bool {
        self.decisions.is_some()
    }

    /// Opens a record. `api` is the endpoint's name, or what stands for one.
    pub fn begin(self: &Arc<Self>, now: Instant, api: &'static str) -> Box<Record> {
        Record::of(self, self.ids.next(), now, api)
    }

    #[cold]
    pub(super) fn decided(&self, decided: Decided, record: &Record, end: End, now: Instant) {
        let is_kept = decided.is_kept;
        // It is made of names and numbers: there is nothing that JSON could not say.
        let told = serde_json::to_string(&decided.logged(record, end, now)).unwrap_or_default();
        if is_kept {
            self.kept.keep(record.id.as_str(), &told, now);
        }
        if let Some(log) = &self.decisions
            && !log.push(told)
        {
            self.metrics.lines_lost.inc();
        }
    }

    /// A record of what would happen, of which nothing is told.
    pub fn rehearse(self: &Arc<Self>, now: Instant, api: &'static str) -> Box<Record> {
        let mut record = self.begin(now, api);
        record.is_rehearsed = true;
        record.decided = Some(Box::new(Decided::at(SystemTime::UNIX_EPOCH)));
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
        record.is_called_by(&"ann".into(), None);
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
