//! What has been used of limits? Read back when a gateway starts, and told to those who only look.

use std::sync::Arc;
use std::time::SystemTime;

use smol_str::SmolStr;
use tokio::time::Instant;

use super::{Plan, State};
use crate::admission::limits::{MINUTE, What, Whose};
use crate::ledger::{self, Place, Scope};
use crate::telemetry::metrics::SeenTarget;

impl State {
    /// Counts what was asked in the minute before this gateway began, so that a restart refills no limit.
    pub fn recall(&self, now: Instant, wall: SystemTime) {
        let Place::File(path) = self.ledger.place() else {
            return;
        };
        if self.gates.is_empty() {
            return;
        }
        let all = match ledger::recent(path, MINUTE, wall) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(%error, "what was asked in the last minute is not known: limits of a minute begin anew");
                return;
            }
        };
        for it in &all {
            let at = now.checked_sub(it.age).unwrap_or(now);
            let requests = u64::from(it.is_first);
            let team = it.team.as_deref().map(|team| (Whose::Team, team));
            for owner in [(Whose::Key, &*it.key)].into_iter().chain(team) {
                self.gates.remember(owner, requests, &it.usage, at);
            }
            let target = (Whose::Target, &*it.target);
            self.gates.remember(target, 1, &it.usage, at);
        }
    }
}

impl Plan {
    /// What there is to be seen of the targets of models now.
    pub fn targets_seen(&self, now: Instant) -> Vec<SeenTarget> {
        let targets = self.targets.values().flat_map(|route| &route.targets);
        let seen = targets.map(|it| {
            let crowd = it.gate.as_ref().map(|gate| gate.crowd());
            SeenTarget {
                name: Arc::clone(&it.name),
                is_up: it.health.look(now).is_ok(),
                slots: crowd.and_then(|crowd| Some((crowd.limit?, crowd.waiting))),
            }
        });
        seen.collect()
    }

    /// What is left now of keys' own limits, of keys that have a label: key, limit, number.
    pub fn limits_left(
        &self,
        state: &State,
        now: Instant,
        wall: SystemTime,
    ) -> Vec<(SmolStr, &'static str, u64)> {
        let made = state.made.load();
        let callers = self.keyring.limited().chain(made.limited());
        let metrics = &state.telemetry.metrics;
        let mut left = Vec::new();
        for caller in callers.filter(|caller| metrics.is_labelled(&caller.name)) {
            let mut tell = |what: What, n| left.push((caller.name.clone(), what.name(), n));
            let mut gates = caller.gates.iter();
            if let Some(own) = gates.find(|gate| gate.whose() == Whose::Key) {
                own.left(now).iter().for_each(|it| tell(it.what, it.left));
            }
            let mut accounts = caller.accounts.iter();
            let own = accounts.find(|account| account.scope() == Scope::KeyRequests);
            if let Some(balance) = own.and_then(|own| state.ledger.balance(own, wall)) {
                tell(What::Rpd, balance.left.0);
            }
        }
        left
    }
}
