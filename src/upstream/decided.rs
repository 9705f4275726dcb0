//! Why did it go there? What is noted of each target for whoever wants to know; nobody else pays for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Call, Cause, Failure, Tab};
use crate::route::{Bounds, Route, Target};
use crate::telemetry::decision::{Candidate, Decision, Step};
use crate::telemetry::{Outcome, Record};

/// What was known of each target.
#[cold]
pub(super) fn of(route: &Route, call: &Call<'_>, tab: &Tab, now: Instant) -> Decision {
    let own = || Bounds::new(route, call.endpoint, call.envelope, call.output_cap).ok();
    let bounds = tab.bounds().cloned().or_else(own);
    let candidate = |target: &Arc<Target>| {
        let pace = target.health.pace();
        Candidate {
            target: Arc::clone(&target.name),
            tier: target.tier,
            weight: target.weight,
            rests: target
                .health
                .look(now)
                .err()
                .map(|it| (it.wait, it.why.name())),
            latency: pace.latency(now),
            busy: pace.busy(),
            warmth: pace.warmth(now),
            bound: bounds.as_ref().and_then(|bounds| bounds.at(&target.terms)),
        }
    };
    Decision {
        model: Arc::clone(&route.meters.name),
        strategy: route.strategy.name(),
        seed: call.id.seed(),
        candidates: route.targets.iter().map(candidate).collect(),
        steps: Vec::new(),
    }
}

/// What a try came to, or why there was none.
#[cold]
pub(super) fn step(failure: &Failure, is_asked: bool, after: Duration) -> Step {
    Step {
        target: Arc::clone(&failure.target),
        // What its rules refuse is not sent.
        is_asked: is_asked && !matches!(failure.cause, Cause::Refused(_)),
        outcome: failure.outcome().name(),
        why: failure.cause.to_string(),
        after,
    }
}

#[cold]
pub(super) fn answered(target: &Target, after: Duration) -> Step {
    Step {
        target: Arc::clone(&target.name),
        is_asked: true,
        outcome: Outcome::Answered.name(),
        why: String::new(),
        after,
    }
}

/// What a try beside this one came to, if there was one.
#[cold]
pub(super) fn beside(record: &mut Record, aside: &Record, outcome: Outcome) {
    if let Some(target) = &aside.target {
        hedged(record, target, outcome);
    }
}

/// A try came to nothing, for one beside it was faster.
#[cold]
pub(super) fn outrun(record: &mut Record, target: &Target) {
    hedged(record, &target.name, Outcome::Cancelled);
}

fn hedged(record: &mut Record, target: &Arc<str>, outcome: Outcome) {
    let why = match outcome {
        Outcome::Answered => "",
        _ => "another was faster",
    };
    record.steps(|began| Step {
        target: Arc::clone(target),
        is_asked: true,
        outcome: outcome.name(),
        why: why.into(),
        after: Instant::now() - began,
    });
}
