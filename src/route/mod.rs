//! Where may it go? A model's targets, and the order in which they are asked.
//!
//! Knows `admission`, `envelope`, `ledger`, `protocol`, `provider`, `usage` and, for the meters that are looked up once per
//! plan and kept with what they measure, `telemetry`.

mod allowance;
mod bounds;
mod breaker;
pub mod health;
mod hedge;
mod owns;
mod pace;
mod strategy;
mod targets;
mod walk;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::admission::limits::Gate;
use crate::ledger::Account;
use crate::protocol::{Endpoint, Kind};
use crate::provider::{OnDisconnect, Provider, Rules, Timeouts};
use crate::telemetry::metrics::{RouteMeters, TargetMeters};
use crate::usage::Price;
pub use allowance::Allowance;
pub use bounds::{BYTES_PER_TOKEN, Bounds};
pub use breaker::{Resort, Resting, Why, chance};
use health::Health;
pub use hedge::{After, Hedge, Share};
pub use owns::Owns;
pub use pace::Pace;
pub use strategy::{Asks, StickyBy, Strategy};
pub use targets::Targets;
pub use walk::{Seen, View, Walk};

/// A name that clients use, and who may serve it.
pub struct Route {
    /// What it may be asked for. None: for whatever its targets can do.
    pub kind: Option<Kind>,
    /// Who may serve it.
    pub targets: Targets,
    /// In which order those of a tier are asked.
    pub strategy: Strategy,
    /// From a request's arrival to the first content, over all tries and pauses.
    pub deadline: Duration,
    /// What is changed for every target, before its provider's own rules.
    pub rules: Arc<Rules>,
    /// Which models are asked instead, where its targets cannot take a request.
    pub instead: Instead,
    /// Targets that cannot be asked, and why: for the message when nobody is left.
    pub skipped: Vec<String>,
    /// The one provider whose targets may be asked: it keeps what a request goes on from. None: all may.
    pub keeper: Option<Arc<str>>,
    /// A second target is asked where the first takes too long. In a box: few models have that.
    pub hedge: Option<Box<Hedge>>,
    /// What may be retried of its requests.
    pub allowance: Arc<Allowance>,
    /// What is counted about it.
    pub meters: Arc<RouteMeters>,
}

/// The names of models that are asked instead of another, by what keeps its targets from taking a request.
#[derive(Clone, Debug, Default)]
pub struct Instead {
    /// The request is too long for them.
    pub too_long: Option<Box<str>>,
    /// Their providers do not answer such a thing.
    pub flagged: Option<Box<str>>,
    /// What is left to spend does not suffice.
    pub short: Option<Box<str>>,
}

/// One model of one provider.
pub struct Target {
    /// `provider/model`.
    pub name: Arc<str>,
    /// Who serves it.
    pub provider: Arc<Provider>,
    /// Its name as the provider calls it, as JSON.
    pub model: Bytes,
    /// What its provider wants different for this model.
    pub rules: Arc<Rules>,
    /// What it costs, and how much it takes.
    pub terms: Terms,
    /// What its provider lets be done at once and in a minute, over all routes.
    pub gate: Option<Arc<Gate>>,
    /// How many requests it takes in a day, over all routes.
    pub requests: Option<Account>,
    /// What is known of it, over all routes.
    pub health: Arc<Health>,
    /// What is counted about it.
    pub meters: Arc<TargetMeters>,
    /// Its share of what its tier is asked, where that goes by weight. Zero: it is asked where nobody else can be.
    pub weight: u32,
    /// Whom it stands behind: all of a lower number, which are asked before it.
    pub tier: u32,
    /// How long it may take to answer while it loads its model. None: it has none to load.
    pub load: Option<Duration>,
}

/// What a target costs, and how much it takes.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// None: nobody knows.
    pub price: Option<Arc<Price>>,
    /// The price was written for this target, and so for whatever its rules add to a request.
    pub own_price: bool,
    /// Its rules may change what a request asks for: its number among the route's targets.
    pub rewrites: Option<usize>,
    /// The longest prompt and output together, in tokens.
    pub context: Option<u64>,
    /// The longest output, in tokens.
    pub max_output: Option<u64>,
    /// It thinks before it answers, at a cost that shows only at the end.
    pub reasoning: bool,
    /// What may be spent with its provider.
    pub account: Option<Account>,
}

/// So long a target is read on that thinks before it answers, if nothing else is written: it may have thought for much
/// more than was to be seen, and only its usage tells.
const FINISH_OF_REASONING: Duration = Duration::from_secs(60);

impl Target {
    /// The clocks of one try, which may have it load its model.
    pub fn timeouts(&self, is_loading: bool) -> Timeouts {
        let times = self.provider.timeouts;
        match self.load.filter(|_| is_loading) {
            None => times,
            Some(load) => Timeouts {
                first_byte: times.first_byte.max(load),
                first_content: times.first_content.max(load),
                idle: times.idle.max(load),
                total: times.total.saturating_add(load),
                ..times
            },
        }
    }

    /// How long its answer is read on for the usage at its end, once the client has left. None: not at all.
    pub fn finish(&self) -> Option<Duration> {
        match self.provider.on_disconnect {
            Some(OnDisconnect::Abort) => None,
            Some(OnDisconnect::Finish(most)) => Some(most),
            None => self.terms.reasoning.then_some(FINISH_OF_REASONING),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.meters.name)
            .finish_non_exhaustive()
    }
}

impl Route {
    /// What it is for, if that is something else than what is asked of it.
    pub fn is_for_other(&self, endpoint: Endpoint) -> Option<Kind> {
        self.kind.filter(|kind| endpoint.kind() != Some(*kind))
    }

    /// The same, but for the targets of other providers than the one that keeps what a request goes on from. None: it has none.
    pub fn at(&self, keeper: &Arc<str>) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            kind: self.kind,
            targets: self.targets.at(keeper)?,
            strategy: self.strategy.clone(),
            deadline: self.deadline,
            rules: Arc::clone(&self.rules),
            instead: self.instead.clone(),
            skipped: self.skipped.clone(),
            keeper: Some(Arc::clone(keeper)),
            hedge: self.hedge.clone(),
            allowance: Arc::clone(&self.allowance),
            meters: Arc::clone(&self.meters),
        }))
    }

    /// The target that is asked when all rest: of those that fail the one whose rest is over first. It may be tried before
    /// that, one request at a time, rather than that nobody is answered.
    pub fn last_resort(&self, now: Instant) -> Option<&Arc<Target>> {
        let failing = self.targets.iter().filter_map(|target| {
            let resting = target.health.look(now).err()?;
            (resting.why == Why::Failing).then_some((resting.wait, target))
        });
        let first = failing.min_by_key(|(wait, _)| *wait);
        first.map(|(_, target)| target)
    }
}
