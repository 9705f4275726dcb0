//! Why did it go there? What was known of each target when a request was decided, and what came of those that were asked.
//!
//! Noted only where somebody wants to know: for an explanation, a request that asks for it, the log of decisions. No word
//! of a prompt or an answer is in it.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tokio::time::Instant;

use super::{End, Outcome, Record};
use crate::usage::{KINDS, Look, Money, Most};

/// What is noted of one request while it is answered.
#[derive(Clone, Debug)]
pub struct Decided {
    /// When it came.
    pub at: SystemTime,
    /// It is kept, for whoever asks by its id.
    pub is_kept: bool,
    /// What the try cost that was entered last.
    pub paid: Option<Money>,
    /// Model by model: where one could not take it, another was asked.
    pub all: Vec<Decision>,
}

/// What is told and logged of one request, once it is over. Amounts are decimal text, in US dollars. Whoever decides it again
/// can do without what may be missing.
#[derive(Debug, Deserialize, Serialize)]
pub struct Logged {
    /// Our id of it.
    pub id: Box<str>,
    /// When it came, in milliseconds since 1970.
    #[serde(default)]
    at_ms: u64,
    /// What was called.
    #[serde(default)]
    pub api: Cow<'static, str>,
    /// The caller's name.
    pub key: Option<Box<str>>,
    /// The model as it was asked for, shortened.
    pub asked: Option<Box<str>>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    code: Option<Cow<'static, str>>,
    #[serde(default)]
    end: Cow<'static, str>,
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    bytes_in: u64,
    /// Who was asked last.
    #[serde(default)]
    target: Option<Box<str>>,
    #[serde(default)]
    tries: u32,
    /// The tokens of the try that was entered last, by their kinds.
    pub usage: Option<BTreeMap<Box<str>, u64>>,
    /// What the pictures of that try are like, as far as anybody says.
    #[serde(default, skip_serializing_if = "Look::is_any")]
    pub look: Look,
    /// What the provider itself said that it costs.
    pub billed_usd: Option<Box<str>>,
    /// What that try cost.
    pub paid_usd: Option<Box<str>>,
    /// What all of its tries cost.
    #[serde(default)]
    cost_usd: Option<Box<str>>,
    /// Model by model.
    pub decisions: Vec<Decision>,
}

/// How the targets of one model were chosen from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Decision {
    /// The model's label.
    pub model: Box<str>,
    /// In which order its targets are asked.
    #[serde(default)]
    pub strategy: Cow<'static, str>,
    /// The one provider that could be asked, for it keeps what the request went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Box<str>>,
    /// Chance: with the same number the same is decided.
    pub seed: Number,
    /// By what the request belongs together with others: numbers that stand for texts.
    pub marks: BTreeMap<Box<str>, Number>,
    /// What it asks for, in tokens.
    pub demand: Value,
    /// Each choice, in order.
    pub picks: Vec<Pick>,
    /// Whom it went to, or was kept from, in order.
    pub steps: Vec<Step>,
}

/// One choice.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pick {
    /// Who was chosen. None: nobody was left.
    pub target: Option<Box<str>>,
    /// What the targets were like, first tier first.
    pub candidates: Vec<Candidate>,
}

/// One target, as it was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Candidate {
    /// `provider/model`.
    pub target: Box<str>,
    /// Whom it stands behind.
    #[serde(default)]
    pub tier: u32,
    /// Its share.
    #[serde(default)]
    pub weight: u32,
    /// For how long it is not asked. None: it is.
    pub rests_ms: Option<u64>,
    /// And why.
    pub rests_because: Option<Cow<'static, str>>,
    /// The mean time to its first content, in microseconds, if anybody has seen one of late.
    pub latency_us: Option<u64>,
    /// Requests under way.
    pub busy: u32,
    /// What part of its share it gets, in thousandths: whoever has rested begins with a tenth.
    pub warmth: u32,
    /// The most that it may use there. None: nobody knows.
    #[serde(default)]
    pub most: Option<Most>,
    /// The most that the request may cost there. None: nobody knows.
    pub bound_usd: Option<Box<str>>,
}

/// What became of a request at one target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Step {
    /// `provider/model`.
    pub target: Box<str>,
    /// It went there, or would have, and was not passed over.
    #[serde(default)]
    pub asked: bool,
    /// It was passed over for what ends by itself: it may be waited for.
    #[serde(default)]
    pub awaited: bool,
    /// It was given up, for one beside it was faster.
    #[serde(default)]
    pub outrun: bool,
    /// What came of it, as a label.
    pub outcome: Cow<'static, str>,
    /// The same, in words. Empty: it answered.
    #[serde(default)]
    pub why: Box<str>,
    /// Since the request came.
    #[serde(default)]
    pub after_ms: u64,
}

/// A number that stands for something: 16 hexadecimal digits, for there are readers of JSON that round it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let digits = Cow::<'de, str>::deserialize(d)?;
        let number = u64::from_str_radix(&digits, 16);
        number.map(Self).map_err(D::Error::custom)
    }
}

/// An amount as it is told.
pub fn usd(amount: Money) -> Box<str> {
    amount.to_string().into()
}

impl Decided {
    /// Of a request that came then.
    pub fn at(at: SystemTime) -> Self {
        Self {
            at,
            is_kept: false,
            paid: None,
            all: Vec::new(),
        }
    }

    /// As it is told and logged.
    pub(super) fn logged(self, record: &Record, end: End, now: Instant) -> Logged {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let usage = record.usage.map(|usage| {
            let counts = KINDS.into_iter().zip(usage.counts());
            let some = counts.filter(|(_, count)| *count > 0);
            some.map(|(kind, count)| (kind.into(), count)).collect()
        });
        Logged {
            id: record.id.as_str().into(),
            at_ms: millis(at),
            api: record.api.into(),
            key: record.key.as_deref().map(Into::into),
            asked: record.asked.clone(),
            status: record.status,
            code: record.code.map(Into::into),
            end: end.name().into(),
            ms: millis(now - record.began),
            bytes_in: record.bytes_in,
            target: record.target.as_deref().map(Into::into),
            tries: record.tries,
            usage,
            look: record.usage.map_or(Look::ANY, |usage| usage.look),
            billed_usd: record.usage.and_then(|usage| usage.cost).map(usd),
            paid_usd: self.paid.map(usd),
            cost_usd: record.cost.map(usd),
            decisions: self.all,
        }
    }
}

impl Decision {
    /// What the targets were like at first.
    pub fn candidates(&self) -> &[Candidate] {
        self.picks.first().map_or(&[], |pick| &pick.candidates)
    }

    /// Who answered.
    pub fn answered(&self) -> Option<&str> {
        let mut answers = self.steps.iter().filter(|step| step.is_answer());
        answers.next_back().map(|step| &*step.target)
    }
}

impl Step {
    /// Whether it answered.
    pub fn is_answer(&self) -> bool {
        self.outcome == Outcome::Answered.name()
    }
}

/// In whole milliseconds, rounded up.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// So many decisions are kept at most, for so long, and so many bytes of them together.
const MOST: usize = 1_000;
const KEPT: Duration = Duration::from_secs(600);
const BYTES: usize = 16 << 20;

/// Decisions that are kept for whoever asks by the id of the request.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    all: VecDeque<(Instant, String, Arc<str>)>,
    bytes: usize,
}

impl Kept {
    pub(super) fn keep(&self, id: &str, decision: &str, now: Instant) {
        let text: Arc<str> = decision.into();
        let shelf = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.bytes += text.len();
        shelf.all.push_back((now, id.to_owned(), text));
        let is_over = |shelf: &Shelf| {
            let is_old = |(at, ..): &(Instant, _, _)| now.saturating_duration_since(*at) >= KEPT;
            shelf.all.len() > MOST || shelf.bytes > BYTES || shelf.all.front().is_some_and(is_old)
        };
        while is_over(shelf) {
            let Some((.., text)) = shelf.all.pop_front() else {
                return;
            };
            shelf.bytes -= text.len();
        }
    }

    /// The decision of a request, as JSON.
    pub fn get(&self, id: &str, now: Instant) -> Option<Arc<str>> {
        let shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = shelf.all.iter().rev();
        let (at, _, text) = all.find(|(_, known, _)| known == id)?;
        (now.saturating_duration_since(*at) < KEPT).then(|| Arc::clone(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_in_number_time_and_bytes() {
        let (kept, mut now) = (Kept::default(), Instant::now());
        for n in 0..MOST + 5 {
            kept.keep(&n.to_string(), &n.to_string(), now);
        }
        assert_eq!(kept.get("4", now), None);
        assert_eq!(kept.get("5", now).as_deref(), Some("5"));
        now += KEPT;
        assert_eq!(kept.get("900", now), None);
        let long = "x".repeat(BYTES / 4 + 1);
        (0..9).for_each(|n| kept.keep(&n.to_string(), &long, now));
        assert_eq!(kept.0.lock().unwrap().all.len(), 3);
        assert!(kept.get("8", now).is_some() && kept.get("5", now).is_none());
    }
}
