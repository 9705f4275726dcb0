//! What is counted about one model, and about one target of it? Looked up once for a plan, and kept with what they measure.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::counts::{Count, Row, Times};
use super::labels::KeyLabel;
use super::{End, Outcome};
use crate::usage::{Money, TOKENS, UNITS, Usage};

/// The bounds of what takes as long as a model does.
pub(super) const BOUNDS: [Duration; 14] = [
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];

/// The endpoints that are timed each on its own, by their names. What most are asked is the first.
pub const APIS: [&str; 11] = [
    "chat_completions",
    "completions",
    "embeddings",
    "responses",
    "audio_speech",
    "audio_transcriptions",
    "audio_translations",
    "images_generations",
    "images_edits",
    "moderations",
    "rerank",
];

/// What is counted about one model.
#[derive(Debug)]
pub struct RouteMeters {
    /// Its label.
    pub name: Arc<str>,
    pub(super) in_flight: Count,
    /// Of the first of [`APIS`].
    first: Times<{ BOUNDS.len() }>,
    /// Of the others, once one of them was asked: few models are asked at many.
    others: [OnceLock<Box<Times<{ BOUNDS.len() }>>>; APIS.len() - 1],
}

impl RouteMeters {
    pub(super) fn of(name: Arc<str>) -> Self {
        Self {
            name,
            in_flight: Count::default(),
            first: Times::default(),
            others: Default::default(),
        }
    }

    /// An answer of an endpoint took that long.
    pub(super) fn took(&self, api: &str, time: Duration) {
        let times = match APIS.iter().position(|name| *name == api) {
            Some(0) => Some(&self.first),
            Some(n) => self
                .others
                .get(n - 1)
                .map(|it| &**it.get_or_init(Box::default)),
            None => None,
        };
        if let Some(times) = times {
            times.observe(time, &BOUNDS);
        }
    }

    /// How long answers took, by endpoint, of those that were asked.
    pub(super) fn times(&self) -> impl Iterator<Item = (&'static str, &Times<{ BOUNDS.len() }>)> {
        let others = self.others.iter().map(|it| it.get().map(|times| &**times));
        let all = std::iter::once(Some(&self.first)).chain(others);
        let named = APIS.into_iter().zip(all);
        named.filter_map(|(api, times)| Some((api, times?)))
    }
}

/// What is counted about one target of one model. What most requests add to lies together, in the order of memory.
#[derive(Debug)]
#[repr(C)]
pub struct TargetMeters {
    /// In the order of [`KINDS`](crate::usage::KINDS), as far as it has tokens.
    pub(super) tokens: [Count; TOKENS],
    /// In the order of [`Outcome::ALL`].
    pub(super) tries: [Count; Outcome::ALL.len()],
    pub(super) first_content: Times<{ BOUNDS.len() }>,
    /// In the order of [`End::ALL`].
    pub(super) ends: [Count; End::ALL.len()],
    /// Its label.
    pub(super) name: Arc<str>,
    /// Its model's: the same in memory as in that model's own.
    pub(super) model: Arc<str>,
    pub(super) spend: Spend,
    /// What is no token, in the order of [`KINDS`](crate::usage::KINDS).
    pub(super) units: [Count; UNITS],
}

/// What was spent, in billionths of a dollar, by the number of who pays.
#[derive(Debug, Default)]
pub(super) struct Spend(Row);

impl Spend {
    /// A try was entered at that cost, for somebody to pay.
    pub(super) fn pays(&self, cost: Money, key: KeyLabel) {
        // Where nothing is ever paid, nothing is kept of who pays.
        if cost > Money::ZERO
            && let Some(sum) = self.0.of(key.number())
        {
            sum.add(cost.0);
        }
    }

    /// By the numbers of those who paid.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, Money)> {
        let counted = self.0.counted();
        counted.map(|(key, nanos)| (key, Money(nanos)))
    }
}

impl TargetMeters {
    pub(super) fn of(model: Arc<str>, name: Arc<str>) -> Self {
        Self {
            tokens: Default::default(),
            tries: Default::default(),
            first_content: Times::default(),
            ends: Default::default(),
            name,
            model,
            spend: Spend::default(),
            units: Default::default(),
        }
    }

    /// Whether it is about a target of that model.
    pub(super) fn is_of(&self, route: &RouteMeters) -> bool {
        Arc::ptr_eq(&self.model, &route.name)
    }

    /// A try was entered with so much.
    pub(super) fn count(&self, usage: Usage) {
        let all = self.tokens.iter().chain(&self.units);
        for (counter, count) in all.zip(usage.counts()) {
            if count > 0 {
                counter.add(count);
            }
        }
    }

    /// A try came to something.
    pub(super) fn try_ends(&self, outcome: Outcome) {
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
        let count = match outcome {
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
        };
        count.add(1);
    }

    /// A stream ended.
    pub(super) fn stream_ends(&self, end: End) {
        let [cut, gone, complete, error, shutdown, stalled, truncated] = &self.ends;
        let count = match end {
            End::BudgetCut => cut,
            End::ClientGone => gone,
            End::Complete => complete,
            End::Error => error,
            End::Shutdown => shutdown,
            End::Stalled => stalled,
            End::Truncated => truncated,
        };
        count.add(1);
    }
}
