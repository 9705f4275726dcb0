//! Why did it go there? What is noted of each target for whoever wants to know; nobody else pays for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Call, Cause, Failure, Tab, turn};
use crate::protocol::Demand;
use crate::route::{Bounds, Route, Seen, StickyBy, Strategy, Target, Walk};
use crate::telemetry::decision::{Candidate, Decision, Number, Pick, Step, millis, usd};
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
    let marks = own.iter().chain(&usual);
    let marks = marks.filter_map(|by| Some((by.name(), Number(by.mark(&asks)?))));
    let bounds = route.bounds(&asks);
    Decision {
        model: (*route.meters.name).into(),
        strategy: route.strategy.name().into(),
        keeper: route.keeper.as_deref().map(Into::into),
        seed: Number(asks.seed),
        marks: marks.collect(),
        demand: bounds.map_or(Value::Null, |bounds| bounds.json()),
        picks: Vec::new(),
        steps: Vec::new(),
    }
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
    let bounds = route.bounds(&call.asks(bounds));
    // Where something else than tokens is billed, a bound of those is none, unless the operator says what is billed.
    let is_all = Demand::of(call.endpoint, call.envelope).is_ok();
    let seen: Vec<Seen> = route.targets.iter().map(|it| Seen::of(it, now)).collect();
    let candidate = |(target, seen): (&Arc<Target>, &Seen)| {
        let resting = target.health.look(now).err();
        let (bounds, terms) = (bounds.as_ref(), &target.terms);
        let bound = bounds.and_then(|bounds| bounds.at(terms));
        Candidate {
            target: (*target.name).into(),
            tier: target.tier,
            weight: target.weight,
            rests_ms: resting.map(|it| millis(it.wait)),
            rests_because: resting.map(|it| it.why.name().into()),
            latency_us: seen.latency_us,
            busy: seen.busy,
            warmth: seen.warmth,
            most: bounds.and_then(|bounds| bounds.most(terms)),
            bound_usd: bound.filter(|_| is_all || terms.own_price).map(usd),
        }
    };
    let candidates = route.targets.iter().zip(&seen).map(candidate).collect();
    let target = walk.next_of(&seen[..]);
    let pick = Pick {
        target: target.map(|target| (*target.name).into()),
        candidates,
    };
    (target, pick)
}

/// What a try came to that was no answer.
#[cold]
pub(super) fn failed(failure: &Failure, after: Duration) -> Step {
    Step {
        target: (*failure.target).into(),
        // What its rules refuse is not sent.
        asked: !matches!(failure.cause, Cause::Refused(_)),
        awaited: false,
        outrun: false,
        outcome: failure.outcome().name().into(),
        why: failure.cause.to_string().into(),
        after_ms: millis(after),
    }
}

/// Why there was no try.
#[cold]
pub(super) fn passed_over(
    target: &Target,
    call: &Call<'_>,
    failure: &Failure,
    after: Duration,
) -> Step {
    Step {
        asked: false,
        awaited: turn::would_wait(target, call, &failure.cause),
        ..failed(failure, after)
    }
}

/// A try was an answer.
#[cold]
pub(super) fn answered(target: &str, after: Duration) -> Step {
    Step {
        target: target.into(),
        asked: true,
        awaited: false,
        outrun: false,
        outcome: Outcome::Answered.name().into(),
        why: "".into(),
        after_ms: millis(after),
    }
}

/// A try came to nothing, for one beside it was faster.
#[cold]
pub(super) fn outrun(target: &str, after: Duration) -> Step {
    Step {
        outcome: Outcome::Cancelled.name().into(),
        outrun: true,
        why: "another was faster".into(),
        ..answered(target, after)
    }
}
