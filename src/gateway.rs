//! The running whole: the plan in force, and what it holds on to.
//!
//! Seen by `proxy`, `admin` and `cli` only, and without behaviour of its own beyond putting plans in force.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::admission::{InFlight, Memory};
use crate::config::{Config, Diagnostic};
use crate::ledger::Ledger;
use crate::plan::{Plan, State, Surroundings};
use crate::response::Closing;
use crate::response::twins::Twins;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Observed;

/// Says what time it is by the calendar. Windows of budgets, the ends of keys and dates that a provider states go by it, and
/// nothing else does.
pub type Wall = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// Everything that runs.
pub struct Gateway {
    plan: ArcSwap<Plan>,
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
            twins: Twins::default(),
            discovered: ArcSwap::default(),
            ledger,
            telemetry,
        };
        let plan = Plan::compile(config, &state, surroundings)?;
        Ok(Arc::new(Self {
            plan: ArcSwap::from_pointee(plan),
            wall,
            state,
            closing: Closing::default(),
            finishing: InFlight::default(),
            draining: AtomicBool::new(false),
        }))
    }

    /// The plan in force. A request takes it once.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Every metric, as Prometheus reads it. Takes milliseconds: never on a thread that serves clients.
    pub fn metrics(&self) -> String {
        let seen = self.state.ledger.observe();
        let balances = seen.accounts.iter();
        let metrics = &self.state.telemetry.metrics;
        metrics.observe(&Observed {
            queue: seen.queue,
            late: seen.late,
            up: !seen.unavailable,
            budgets: balances
                .map(|it| {
                    (
                        it.account.scope().name(),
                        Arc::clone(it.account.name()),
                        it.left,
                    )
                })
                .collect(),
        });
        metrics.text()
    }

    /// Puts another configuration in force. With a flaw in it, nothing changes. Listeners and their own limits stay as
    /// they were started.
    pub fn apply(
        &self,
        config: &Config,
        surroundings: Surroundings<'_>,
    ) -> Result<(), Vec<Diagnostic>> {
        let compiled = Plan::compile(config, &self.state, surroundings);
        let outcome = if compiled.is_ok() {
            "applied"
        } else {
            "refused"
        };
        self.state.telemetry.metrics.reloaded(outcome);
        self.plan.store(Arc::new(compiled?));
        Ok(())
    }
}
