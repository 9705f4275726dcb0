//! What is looked at only when the metrics are read.

use std::sync::Arc;

use smol_str::SmolStr;

use crate::usage::Money;

/// What the ledger looks like, for gauges.
#[derive(Debug)]
pub struct Observed {
    /// What waits to be written.
    pub queue: usize,
    /// Ends of answers that waited no longer, since the start.
    pub late: u64,
    /// Whether it can write.
    pub up: bool,
    /// What is left of some budgets: scope, name, amount. There is no `other` among them: a sum of what is left says
    /// nothing about anybody.
    pub budgets: Vec<(&'static str, SmolStr, Money)>,
    /// What there is to be seen of targets.
    pub targets: Vec<SeenTarget>,
    /// What is left of keys' limits: key, limit, number.
    pub limits: Vec<(SmolStr, &'static str, u64)>,
}

/// What there is to be seen of a target.
#[derive(Debug)]
pub struct SeenTarget {
    /// `provider/model`.
    pub name: Arc<str>,
    /// It is asked.
    pub is_up: bool,
    /// How many requests may be under way, if that is limited, and how many wait for that.
    pub slots: Option<(u64, usize)>,
}
