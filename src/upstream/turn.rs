//! Who is waited for, where nobody can be asked at once? Those that rest and will not for long; else one that has too much to
//! do, in the line before it; or one that loads its model.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Call, Cause, Failure, Tab};
use crate::admission::limits::{Slots, What};
use crate::route::{Resort, Route, Target, Walk};

/// Who is asked.
pub(super) struct Chosen<'r> {
    pub(super) target: &'r Arc<Target>,
    pub(super) resort: Resort,
    /// What it was waited for.
    pub(super) slots: Option<Slots>,
}

impl<'r> Chosen<'r> {
    /// Without a wait.
    pub(super) fn of(target: &'r Arc<Target>) -> Self {
        Self {
            target,
            resort: Resort::Other,
            slots: None,
        }
    }
}

/// Who may be asked after a wait. None: nobody, or that would be too late.
pub(super) async fn awaited<'r>(
    (route, call): (&'r Route, &Call<'_>),
    walk: &mut Walk<'r>,
    tab: &Tab,
    failures: &mut Vec<Failure>,
    latest: Instant,
) -> Option<Chosen<'r>> {
    // Nobody waits for what is not sent.
    let is_sent = !tab.is_rehearsed();
    if walk.is_fresh() {
        return rested(route, walk, is_sent.then_some(latest)).await;
    }
    if !is_sent {
        return None;
    }
    let mut refused: SmallVec<[Arc<str>; 2]> = SmallVec::new();
    while let Some(target) = soonest(route, call, failures, &refused) {
        if call.stream {
            tab.presence().keeps_alive(target.provider.keepalive);
        }
        match served(target, call, failures).await {
            Ok(slots) => {
                return Some(Chosen {
                    slots,
                    ..Chosen::of(target)
                });
            }
            Err(cause) => {
                let name = &target.name;
                refused.push(Arc::clone(name));
                // What it said before is no news any more.
                failures.retain(|it| !(Arc::ptr_eq(&it.target, name) && is_waited_for(it)));
                failures.push(Failure::unasked(target, cause));
            }
        }
    }
    None
}

/// Who may be asked where all rest, and nobody was asked yet. If every target says itself that it has no time, and one will
/// have some soon, that is waited for.
async fn rested<'r>(
    route: &'r Route,
    walk: &mut Walk<'r>,
    latest: Option<Instant>,
) -> Option<Chosen<'r>> {
    loop {
        let now = Instant::now();
        walk.begins_anew();
        if let Some(target) = walk.next(now) {
            return Some(Chosen::of(target));
        }
        if let Some(target) = route.last_resort(now) {
            walk.ends();
            return Some(Chosen {
                resort: Resort::Last,
                ..Chosen::of(target)
            });
        }
        let looks = route.targets.iter().map(|target| target.health.look(now));
        let waits = looks.filter_map(Result::err).map(|it| now + it.wait);
        match waits.min() {
            Some(then) if latest.is_some_and(|latest| then < latest) => sleep_until(then).await,
            _ => return None,
        }
    }
}

/// Whether a target was passed over for what ends by itself.
fn is_waited_for(failure: &Failure) -> bool {
    match &failure.cause {
        Cause::Limited(limited) => limited.what == What::Concurrency,
        Cause::Loading => true,
        _ => false,
    }
}

/// Of those that were passed over for what ends by itself the one where that is soonest, but for those that refused already.
fn soonest<'r>(
    route: &'r Route,
    call: &Call<'_>,
    failures: &[Failure],
    refused: &[Arc<str>],
) -> Option<&'r Arc<Target>> {
    let targets = route.targets.iter();
    let waited_for = targets.filter(|target| {
        let mut told = failures.iter().rev();
        let last = told.find(|it| Arc::ptr_eq(&it.target, &target.name));
        let has_line =
            target.load.is_some() || target.gate.as_ref().is_some_and(|it| it.has_line());
        has_line && last.is_some_and(is_waited_for) && !refused.contains(&target.name)
    });
    waited_for.min_by_key(|target| {
        let gate = target.gate.as_ref();
        let wait = gate.and_then(|gate| gate.expected(call.caller.0, call.caller.1));
        wait.unwrap_or_default()
    })
}

/// Waits for a target: for the end of its loading, or for a slot.
async fn served(
    target: &Arc<Target>,
    call: &Call<'_>,
    failures: &[Failure],
) -> Result<Option<Slots>, Cause> {
    let mut told = failures.iter().rev();
    let last = told.find(|it| Arc::ptr_eq(&it.target, &target.name));
    let is_loading = last.is_some_and(|it| matches!(it.cause, Cause::Loading));
    match &target.gate {
        _ if is_loading => {
            let loaded = timeout_at(call.deadline, target.health.loaded()).await;
            loaded.map(|()| None).map_err(|_| Cause::Loading)
        }
        Some(gate) => {
            let now = Instant::now();
            let waiting = gate.queue(call.caller.0, call.caller.1, now, call.deadline);
            let slots = waiting.map_err(Cause::Limited)?.await;
            slots.map(Some).map_err(Cause::Limited)
        }
        None => Ok(None),
    }
}
