//! What does the configuration mean? Immutable tables, compiled once and swapped whole.
//!
//! A [`Plan`] is what was written; a [`State`] is what has happened, kept by name while plans come and go. Knows
//! `config` and every room: the only place where configuration becomes running things.

mod compile;
mod coverage;
mod doors;
mod egress;
mod instead;
mod keys;
pub mod made;
pub mod money;
mod providers;
mod room;
mod rules;
mod strategy;
mod traces;
mod used;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::admission::door::Door;
use crate::admission::guesses::Guesses;
use crate::admission::limits::Gates;
use crate::admission::{Digest, InFlight, Keyring, MadeKeys, Memory};
use crate::config;
use crate::ledger::Ledger;
use crate::protocol::Voice;
use crate::provider::site::Servers;
use crate::provider::{Provider, Rules};
use crate::response::twins::{self, Twins};
use crate::route::health::{Health, Healths};
use crate::route::{Allowance, Route, Terms};
use crate::telemetry::Telemetry;
use crate::usage::book::Book;
pub use keys::Common;
pub use traces::Traces;

/// What the configuration means.
pub struct Plan {
    /// By which names and from which web pages clients may call.
    pub door: Door,
    /// The same for operators.
    pub admin_door: Door,
    /// What opens the operators' further paths. None: nothing does.
    pub admin_token: Option<Digest>,
    /// Whether only this machine can connect, to any listener of operators.
    pub admin_is_private: bool,
    /// How a gateway ends that is told to.
    pub ending: Ending,
    /// Who may call.
    pub keyring: Keyring,
    /// What callers have in common.
    pub common: Common,
    /// The names clients use.
    pub models: BTreeMap<Box<str>, Arc<Route>>,
    /// The targets of those models, by their own names.
    pub targets: BTreeMap<Box<str>, Arc<Route>>,
    /// Who serves models, by name, with the rest of a name that no model has: `provider/model`.
    pub providers: HashMap<Box<str>, Passage>,
    /// Those that cannot be asked: a route without targets that says why.
    pub unavailable: HashMap<Box<str>, Arc<Route>>,
    /// What one request may cost us.
    pub limits: Limits,
    /// What holds of money, whoever spends it.
    pub spending: Spending,
    /// Where spans of requests go; as of the start. None: nowhere.
    pub traces: Option<Arc<Traces>>,
    /// What models cost that the configuration has no price for.
    pub book: Book,
    /// Members that a rule or tollgate itself acts on.
    pub acted_on: HashSet<Box<str>>,
    /// What an operator should know, though it is no flaw.
    pub warnings: Vec<String>,
    /// What is not known of prices that a budget needs, the worst first.
    pub gaps: Vec<String>,
}

/// A provider that can be asked for any of its models, and what is counted about that.
pub struct Passage {
    /// The provider.
    pub provider: Arc<Provider>,
    /// What it wants different for models that no pattern matches.
    pub rules: Arc<Rules>,
    /// What it wants different for models that match a pattern; the longest pattern stands first.
    pub rules_for: Vec<(Box<str>, Arc<Rules>)>,
    /// Where its models stand in the list of prices.
    pub section: Option<Box<str>>,
    /// What all of its models have in common.
    pub terms: Terms,
    /// What is known of its endpoint and its key.
    pub health: Arc<Health>,
    /// What may be retried of requests for its models by names that the configuration does not have.
    pub allowance: Arc<Allowance>,
    /// A route without targets: its meters, deadline and rules are every such request's.
    pub meters: Arc<crate::telemetry::metrics::RouteMeters>,
    /// The meters of all its models that no model names.
    pub target_meters: Arc<crate::telemetry::metrics::TargetMeters>,
}

/// How a gateway ends that is told to.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// How long its listeners stay open once it says that it is not ready.
    pub delay: Duration,
    /// How long answers under way may take after that.
    pub drain: Duration,
}

impl Ending {
    /// As it is written.
    fn of(server: &config::Server) -> Self {
        Self {
            delay: server.drain_delay,
            drain: server.drain,
        }
    }
}

/// What holds of money, whoever spends it.
#[derive(Clone, Copy, Debug)]
pub struct Spending {
    /// The output, in tokens, of a caller with a budget that gives no limit.
    pub output_cap: u64,
    /// What has no price costs nothing, instead of not being asked for.
    pub unpriced: bool,
}

/// What one request may cost us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Length of a body, in bytes.
    pub body: u64,
    /// Length of all bodies together, in bytes.
    pub body_memory: u64,
    /// Time for a body to arrive.
    pub body_timeout: Duration,
    /// Requests under way.
    pub in_flight: usize,
    /// What is kept of answers for requests that have an `Idempotency-Key`.
    pub twins: twins::Terms,
}

impl Limits {
    /// As it is written.
    fn of(server: &config::Server) -> Self {
        Self {
            body: server.max_body,
            body_memory: server.max_body_memory,
            body_timeout: server.body_timeout,
            in_flight: server.max_in_flight,
            twins: twins::Terms {
                replay: server.replay,
                memory: server.replay_memory,
            },
        }
    }
}

/// What has happened, and outlives every plan.
pub struct State {
    /// How many requests are under way.
    pub in_flight: InFlight,
    /// What their bodies take.
    pub memory: Memory,
    /// What was taken of limits.
    pub gates: Gates,
    /// What is known of targets.
    pub healths: Healths,
    /// What is known of how servers close.
    pub servers: Servers,
    /// Who has a key that was made.
    pub made: ArcSwap<MadeKeys>,
    /// How often a wrong key was shown.
    pub guesses: Guesses,
    /// Those of them that have a key, and the answers that are kept for it.
    pub twins: Twins,
    /// What providers that are asked for their models answered last, by provider.
    pub discovered: ArcSwap<BTreeMap<Box<str>, Vec<Box<str>>>>,
    /// The voices that providers told us of, by the providers' names.
    pub voices: ArcSwap<BTreeMap<Box<str>, Vec<Voice>>>,
    /// What was spent, and what may be.
    pub ledger: Ledger,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
}

/// What compiling needs besides the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'s> {
    /// Where relative paths start.
    pub folder: &'s std::path::Path,
    /// Where secrets may stand.
    pub environment: &'s config::secret::Environment,
}

impl Plan {
    /// The route to a model: a configured name first, else `provider/model`.
    pub fn route(&self, model: &str) -> Option<Arc<Route>> {
        if let Some(route) = self.models.get(model).or_else(|| self.targets.get(model)) {
            return Some(Arc::clone(route));
        }
        let (provider, rest) = model.split_once('/')?;
        if rest.is_empty() {
            return None;
        }
        match self.providers.get(provider) {
            Some(passage) => Some(Arc::new(passage.route(model, rest, &self.book))),
            None => self.unavailable.get(provider).cloned(),
        }
    }
}
