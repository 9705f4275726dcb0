//! Why did it go there? What is noted of each target for whoever wants to know; nobody else pays for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Call, Cause, Failure, Tab};
use crate::route::{Bounds, Route, Seen, StickyBy, Strategy, Target, Walk};
use crate::telemetry::decision::{Candidate, Decision, Pick, Step};
use crate::telemetry::{Outcome, Record};

/// What a request is decided by.
#[cold]
pub(super) fn of(route: &Route, call: &Call<'_>, tab: &Tab) -> Decision {
    let asks = call.asks(tab.bounds());
    let usual = [
        StickyBy::Member("prompt_cache_key"),
        StickyBy::Member("user"),
        StickyBy::Messages,
    ];
    let own = match &route.strategy {
        Strategy::Sticky(by) => &by[..],
        _ => &[],
    };
    let mut marks = Vec::new();
    for by in own.iter().chain(&usual) {
        let name = by.name();
        if let Some(mark) = by
            .mark(&asks)
            .filter(|_| !marks.iter().any(|(it, _)| *it == name))
        {
            marks.push((name, mark));
        }
    }
    let bounds = bounds(route, call, tab.bounds());
    Decision {
        model: Arc::clone(&route.meters.name),
        strategy: route.strategy.name(),
        seed: asks.seed,
        marks,
        demand: bounds.map_or(Value::Null, |bounds| bounds.json()),
        picks: Vec::new(),
        steps: Vec::new(),
    }
}

/// The most that it may cost, also where nobody needed to know.
fn bounds(route: &Route, call: &Call<'_>, known: Option<&Bounds>) -> Option<Bounds> {
    let own = || Bounds::new(route, call.endpoint, call.envelope, call.output_cap).ok();
    known.cloned().or_else(own)
}

/// The next target; and it is noted by what it was chosen, if somebody wants to know.
pub(super) fn chosen<'r>(
    walk: &mut Walk<'r>,
    (route, call, bounds): (&'r Route, &Call<'_>, Option<&Bounds>),
    record: &mut Record,
    now: Instant,
) -> Option<&'r Arc<Target>> {
    let Some(decision) = record.decision() else {
        return walk.next(now);
    };
    let (next, pick) = next(walk, route, (call, bounds), now);
    decision.picks.push(pick);
    next
}

/// The next target, by what is then known of each, and what that was: so that it can be chosen again.
#[cold]
pub(super) fn next<'r>(
    walk: &mut Walk<'r>,
    route: &'r Route,
    (call, bounds): (&Call<'_>, Option<&Bounds>),
    now: Instant,
) -> (Option<&'r Arc<Target>>, Pick) {
    let bounds = self::bounds(route, call, bounds);
    let seen: Vec<Seen> = route.targets.iter().map(|it| Seen::of(it, now)).collect();
    let candidate = |(target, seen): (&Arc<Target>, &Seen)| {
        let resting = target.health.look(now).err();
        Candidate {
            target: Arc::clone(&target.name),
            tier: target.tier,
            weight: target.weight,
            rests: resting.map(|it| (it.wait, it.why.name())),
            latency: seen.latency,
            busy: seen.busy,
            warmth: seen.warmth,
            bound: bounds.as_ref().and_then(|bounds| bounds.at(&target.terms)),
        }
    };
    let candidates = route.targets.iter().zip(&seen).map(candidate).collect();
    let target = walk.next_of(&seen[..]);
    let pick = Pick {
        target: target.map(|target| Arc::clone(&target.name)),
        candidates,
    };
    (target, pick)
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
