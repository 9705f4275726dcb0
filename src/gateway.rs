//! The running whole: the plan in force, and what it holds on to.
//!
//! Seen by `proxy`, `admin` and `cli` only, and without behaviour of its own beyond putting plans in force.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::admission::guesses::Guesses;
use crate::admission::limits::Gates;
use crate::admission::{InFlight, MadeKeys, Memory, Register};
use crate::config::{Config, Diagnostic};
use crate::ledger::{KeyError, Ledger};
use crate::plan::{Plan, State, Surroundings};
use crate::provider::site::Servers;
use crate::response::Closing;
use crate::response::twins::Twins;
use crate::route::health::Healths;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Observed;

/// Says what time it is by the calendar. Windows of budgets, the ends of keys and dates that a provider states go by it, and
/// nothing else does.
pub type Wall = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// So many wrong keys a minute are told that they are wrong.
const GUESSES: NonZeroU32 = match NonZeroU32::new(60) {
    Some(guesses) => guesses,
    None => NonZeroU32::MIN,
};

/// Everything that runs.
pub struct Gateway {
    plan: ArcSwap<Plan>,
    made: Mutex<Made>,
    /// What time it is.
    pub wall: Wall,
    /// What outlives plans.
    pub state: State,
    /// Says that time is up for answers under way.
    pub closing: Closing,
    /// How many requests are read on whose clients have left.
    pub finishing: InFlight,
    /// No new work is welcome: readiness is down.
    pub draining: AtomicBool,
}

/// The keys that were made and are let in.
#[derive(Default)]
struct Made {
    /// Of the ledger, as of which they are.
    version: i64,
    register: Register,
    /// Those before the last change, which a request may just be looking at: many are not for its thread to take apart.
    before: Option<Arc<MadeKeys>>,
}

impl Gateway {
    /// With a first plan, and the clock that it goes by.
    pub fn new(
        config: &Config,
        telemetry: Arc<Telemetry>,
        ledger: Ledger,
        surroundings: Surroundings<'_>,
        wall: Wall,
    ) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let state = State {
            in_flight: InFlight::default(),
            memory: Memory::default(),
            gates: Gates::default(),
            healths: Healths::new(Instant::now()),
            servers: Servers::default(),
            made: ArcSwap::default(),
            guesses: Guesses::of(GUESSES),
            twins: Twins::default(),
            discovered: ArcSwap::default(),
            voices: ArcSwap::default(),
            ledger,
            telemetry,
        };
        let plan = Plan::compile(config, &state, surroundings)?;
        let gateway = Self {
            plan: ArcSwap::from_pointee(plan),
            made: Mutex::default(),
            wall,
            state,
            closing: Closing::default(),
            finishing: InFlight::default(),
            draining: AtomicBool::new(false),
        };
        match gateway.admit_made() {
            Ok(()) => {
                gateway.state.recall(Instant::now(), (gateway.wall)());
                Ok(Arc::new(gateway))
            }
            // Whoever only asks what a configuration means has none.
            Err(KeyError::Nowhere) => Ok(Arc::new(gateway)),
            // Nobody may be let in who was revoked.
            Err(why) => Err(vec![Diagnostic::new(["ledger"], why.to_string())]),
        }
    }

    /// The plan in force. A request takes it once.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Every metric, as Prometheus reads it. Takes milliseconds: never on a thread that serves clients.
    pub fn metrics(&self) -> String {
        let (plan, now) = (self.plan(), Instant::now());
        let seen = self.state.ledger.observe();
        let balances = seen.accounts.iter();
        let metrics = &self.state.telemetry.metrics;
        metrics.read(&Observed {
            queue: seen.queue,
            late: seen.late,
            up: !seen.unavailable,
            budgets: balances
                .map(|it| {
                    (
                        it.account.scope().name(),
                        it.account.name().clone(),
                        it.left,
                    )
                })
                .collect(),
            targets: plan.targets_seen(now),
            limits: plan.limits_left(&self.state, now, (self.wall)()),
        })
    }

    /// Lets in whoever was made since this was asked last, and no longer whoever was revoked. Reads the ledger: never on a
    /// thread that serves clients.
    pub fn admit_made(&self) -> Result<(), KeyError> {
        let mut made = self.made();
        made.before = None;
        self.admit_after(made.version, &mut made)
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was made after a version; what was before stays as it is, unless that is nothing.
    fn admit_after(&self, version: i64, made: &mut Made) -> Result<(), KeyError> {
        let (latest, changed) = self.state.ledger.keys().since(version)?;
        if changed.is_empty() {
            return Ok(());
        }
        if version == 0 {
            made.register = Register::default();
        }
        self.plan().admit(&self.state, &changed, &mut made.register);
        made.before = Some(self.state.made.swap(Arc::new(made.register.keys())));
        if made.version != latest {
            made.version = latest;
            tracing::info!(
                keys = changed.len(),
                "keys were made, given anew or revoked"
            );
        }
        Ok(())
    }

    /// Puts another configuration in force, and gives the plan that was in force before: requests may hold on to it, and to
    /// take a large one apart is not for the thread of whichever ends last. With a flaw in it, nothing changes. Listeners
    /// stay as they are.
    pub fn apply(
        &self,
        config: &Config,
        surroundings: Surroundings<'_>,
    ) -> Result<Arc<Plan>, Vec<Diagnostic>> {
        let compiled = Plan::compile(config, &self.state, surroundings);
        let outcome = if compiled.is_ok() {
            "applied"
        } else {
            "refused"
        };
        self.state.telemetry.metrics.reloaded(outcome);
        let mut made = self.made();
        let before = self.plan.swap(Arc::new(compiled?));
        // By what the new plan says of teams and defaults.
        if let Err(error) = self.admit_after(0, &mut made) {
            tracing::error!(%error, "keys that were made go on as before");
        }
        drop(made);
        let now = Instant::now();
        self.state.gates.enforce(now);
        self.state.gates.prune(now);
        self.state.healths.reloaded(now);
        Ok(before)
    }
}
