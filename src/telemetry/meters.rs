//! What is counted about one model, and about one target of it? Looked up once for a plan, and kept with what they measure.

use std::sync::Arc;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{End, Outcome};
use crate::usage::{KINDS, Usage};

/// The children of one model.
#[derive(Debug)]
pub struct RouteMeters {
    /// Its label.
    pub name: Arc<str>,
    pub(super) in_flight: IntGauge,
    pub(super) duration: [Histogram; 3],
}

/// The children of one target of one model.
#[derive(Debug)]
pub struct TargetMeters {
    /// Its label.
    pub(super) name: Arc<str>,
    pub(super) first_content: Histogram,
    pub(super) tries: [IntCounter; Outcome::ALL.len()],
    pub(super) ends: [IntCounter; End::ALL.len()],
    pub(super) tokens: [IntCounter; KINDS.len()],
}

impl TargetMeters {
    pub(super) fn count(&self, usage: Usage) {
        for (counter, count) in self.tokens.iter().zip(usage.counts()) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    pub(super) fn tries(&self, outcome: Outcome) -> &IntCounter {
        let [
            answered,
            cancelled,
            client,
            connect,
            credentials,
            nonsense,
            provider,
            limited,
            reset,
            timeout,
        ] = &self.tries;
        match outcome {
            Outcome::Answered => answered,
            Outcome::Cancelled => cancelled,
            Outcome::ClientFault => client,
            Outcome::Connect => connect,
            Outcome::Credentials => credentials,
            Outcome::Nonsense => nonsense,
            Outcome::ProviderFault => provider,
            Outcome::RateLimited => limited,
            Outcome::Reset => reset,
            Outcome::Timeout => timeout,
        }
    }

    pub(super) fn ends(&self, end: End) -> &IntCounter {
        let [cut, gone, complete, error, shutdown, stalled, truncated] = &self.ends;
        match end {
            End::BudgetCut => cut,
            End::ClientGone => gone,
            End::Complete => complete,
            End::Error => error,
            End::Shutdown => shutdown,
            End::Stalled => stalled,
            End::Truncated => truncated,
        }
    }
}
