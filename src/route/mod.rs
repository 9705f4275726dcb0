//! Where may it go? A model's targets, and the order in which they are asked.
//!
//! Knows `provider` and, for the meters that are looked up once per plan and kept with what they measure, `telemetry`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::provider::{Provider, Rules};
use crate::telemetry::metrics::{RouteMeters, TargetMeters};

/// A name that clients use, and who may serve it.
pub struct Route {
    /// Who may serve it, as written.
    pub targets: Vec<Arc<Target>>,
    /// From a request's arrival to the first content, over all tries and pauses.
    pub deadline: Duration,
    /// What is changed for every target, before its provider's own rules.
    pub rules: Rules,
    /// Targets that cannot be asked, and why: for the message when nobody is left.
    pub skipped: Vec<String>,
    /// What is counted about it.
    pub meters: Arc<RouteMeters>,
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
    /// What is counted about it.
    pub meters: Arc<TargetMeters>,
}

impl Route {
    /// The targets worth asking, best first.
    pub fn order(&self) -> &[Arc<Target>] {
        &self.targets
    }
}
