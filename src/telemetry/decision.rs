//! Why did it go there? What was known of each target when a request was decided, and what came of those that were asked.
//!
//! Noted only where somebody wants to know: for an explanation, a request that asks for it, the log of decisions. No word
//! of a prompt or an answer is in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{End, Record};
use crate::usage::{KINDS, Money};

/// What is noted of one request.
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

/// How the targets of one model were chosen from.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The model's label.
    pub model: Arc<str>,
    /// In which order its targets are asked.
    pub strategy: &'static str,
    /// Chance: with the same number the same is decided.
    pub seed: u64,
    /// By what the request belongs together with others: numbers that stand for texts.
    pub marks: Vec<(String, u64)>,
    /// What it asks for, in tokens.
    pub demand: Value,
    /// Each choice, in order.
    pub picks: Vec<Pick>,
    /// Whom it went to, or was kept from, in order.
    pub steps: Vec<Step>,
}

/// One choice.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Who was chosen. None: nobody was left.
    pub target: Option<Arc<str>>,
    /// What the targets were like, first tier first.
    pub candidates: Vec<Candidate>,
}

/// One target, as it was.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// `provider/model`.
    pub target: Arc<str>,
    /// Whom it stands behind.
    pub tier: u32,
    /// Its share.
    pub weight: u32,
    /// For how long it is not asked, and why.
    pub rests: Option<(Duration, &'static str)>,
    /// The mean time to its first content, if anybody has seen one of late.
    pub latency: Option<Duration>,
    /// Requests under way.
    pub busy: u32,
    /// What part of its share it gets, in thousandths: whoever has rested begins with a tenth.
    pub warmth: u32,
    /// The most that the request may cost there. None: nobody knows.
    pub bound: Option<Money>,
}

/// What became of a request at one target.
#[derive(Clone, Debug)]
pub struct Step {
    /// `provider/model`.
    pub target: Arc<str>,
    /// It went there, or would have, and was not passed over.
    pub is_asked: bool,
    /// What came of it, as a label.
    pub outcome: &'static str,
    /// The same, in words. Empty: it answered.
    pub why: String,
    /// Since the request came.
    pub after: Duration,
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

    /// As it is told and logged, once the request is over.
    pub(super) fn json(&self, record: &Record, end: End, now: Instant) -> Value {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let usage = record.usage.map(|usage| {
            let counts = KINDS.into_iter().zip(usage.counts());
            let some = counts.filter(|(_, count)| *count > 0);
            some.map(|(kind, count)| (kind.to_owned(), count.into()))
                .collect::<Map<String, Value>>()
        });
        json!({
            "id": record.id.as_str(),
            "at_ms": millis(at),
            "api": record.api,
            "key": record.key.as_deref(),
            "asked": record.asked.as_deref(),
            "status": record.status,
            "code": record.code,
            "end": end.name(),
            "ms": millis(now - record.began),
            "bytes_in": record.bytes_in,
            "target": record.target.as_deref(),
            "tries": record.tries,
            "usage": usage,
            "billed_usd": record.usage.and_then(|usage| usage.cost).map(|it| it.to_string()),
            "paid_usd": self.paid.map(|it| it.to_string()),
            "cost_usd": record.cost.map(|it| it.to_string()),
            "decisions": self.all.iter().map(Decision::json).collect::<Vec<_>>(),
        })
    }
}

impl Decision {
    /// What the targets were like at first.
    pub fn candidates(&self) -> &[Candidate] {
        self.picks.first().map_or(&[], |pick| &pick.candidates)
    }

    fn json(&self) -> Value {
        let marks = self.marks.iter();
        let marks = marks.map(|(name, mark)| (name.clone(), format!("{mark:016x}").into()));
        json!({
            "model": &*self.model,
            "strategy": self.strategy,
            "seed": format!("{:016x}", self.seed),
            "marks": marks.collect::<Map<String, Value>>(),
            "demand": self.demand,
            "picks": self.picks.iter().map(Pick::json).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(Step::json).collect::<Vec<_>>(),
        })
    }
}

impl Pick {
    fn json(&self) -> Value {
        json!({
            "target": self.target.as_deref(),
            "candidates": self.candidates.iter().map(Candidate::json).collect::<Vec<_>>(),
        })
    }
}

impl Candidate {
    /// As it is told and logged.
    pub fn json(&self) -> Value {
        json!({
            "target": &*self.target,
            "tier": self.tier,
            "weight": self.weight,
            "rests_ms": self.rests.map(|(rest, _)| millis(rest)),
            "rests_because": self.rests.map(|(_, why)| why),
            "latency_us": self.latency.map(micros),
            "busy": self.busy,
            "warmth": self.warmth,
            "bound_usd": self.bound.map(|it| it.to_string()),
        })
    }
}

impl Step {
    fn json(&self) -> Value {
        json!({
            "target": &*self.target,
            "asked": self.is_asked,
            "outcome": self.outcome,
            "why": self.why,
            "after_ms": millis(self.after),
        })
    }
}

/// In whole milliseconds, rounded up.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// In whole microseconds.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
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
    pub(super) fn keep(&self, id: &str, decision: &Value, now: Instant) {
        let text: Arc<str> = decision.to_string().into();
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
            kept.keep(&n.to_string(), &json!(n), now);
        }
        assert_eq!(kept.get("4", now), None);
        assert_eq!(kept.get("5", now).as_deref(), Some("5"));
        now += KEPT;
        assert_eq!(kept.get("900", now), None);
        let long = json!("x".repeat(BYTES / 4));
        (0..9).for_each(|n| kept.keep(&n.to_string(), &long, now));
        assert_eq!(kept.0.lock().unwrap().all.len(), 3);
        assert!(kept.get("8", now).is_some() && kept.get("5", now).is_none());
    }
}
