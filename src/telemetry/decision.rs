//! Why did it go there? What was known of each target when a request was decided, and what came of those that were asked.
//!
//! Kept only where somebody wants to know: an explanation, a request that asks for it, the log of decisions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::usage::Money;

/// How the targets of one model were chosen from, for one request.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The model's label.
    pub model: Arc<str>,
    /// In which order its targets are asked.
    pub strategy: &'static str,
    /// Chance: with the same number the same is decided.
    pub seed: u64,
    /// What its targets were like, first tier first.
    pub candidates: Vec<Candidate>,
    /// Whom it went to, or was kept from, in order.
    pub steps: Vec<Step>,
}

/// One target, as it was when the request was decided.
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
    /// What part of its share it gets: whoever has rested begins with a tenth.
    pub warmth: f64,
    /// The most that the request may cost there. None: nobody asked, or nobody knows.
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

impl Decision {
    /// As it is told and logged.
    pub fn json(&self) -> Value {
        json!({
            "model": &*self.model,
            "strategy": self.strategy,
            "seed": format!("{:016x}", self.seed),
            "candidates": self.candidates.iter().map(Candidate::json).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(Step::json).collect::<Vec<_>>(),
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
            "latency_ms": self.latency.map(|it| it.as_secs_f64() * 1e3),
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
