//! Who is waited for, where nobody can be asked at once? Those that rest and will not for long; else one that has too much to
//! do, in the line before it; or one that loads its model.

use std::sync::Arc;

use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Call, Cause, Failure, Tab};
use crate::admission::limits::{Gate, Slots, What};
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

/// Targets that were passed over for what ends by itself.
#[derive(Default)]
pub(super) struct Passed<'r>(SmallVec<[&'r Arc<Target>; 2]>);

impl<'r> Passed<'r> {
    /// A target was passed over.
    pub(super) fn notes(&mut self, target: &'r Arc<Target>, cause: &Cause) {
        if is_awaited(target, cause) {
            self.0.push(target);
        }
    }

    /// The one that may be asked soonest, which then is among them no more.
    fn soonest(&mut self, (caller, weight): (&SmolStr, u32)) -> Option<&'r Arc<Target>> {
        let wait = |target: &Target| {
            let gate = target.gate.as_ref();
            gate.and_then(|gate| gate.expected(caller, weight))
        };
        let all = self.0.iter().enumerate();
        let soonest = all.min_by_key(|(_, target)| wait(target).unwrap_or_default());
        soonest.map(|(n, _)| n).map(|n| self.0.swap_remove(n))
    }
}

/// Whether what a target was passed over for ends by itself, and may be waited for.
pub(super) fn is_awaited(target: &Target, cause: &Cause) -> bool {
    let has_line = || target.gate.as_ref().is_some_and(|gate| gate.has_line());
    match cause {
        Cause::Limited(limited) => limited.what == What::Concurrency && has_line(),
        Cause::Loading => true,
        _ => false,
    }
}

/// Whether a request that was passed on for this would be let wait for it.
pub(super) fn would_wait(target: &Target, call: &Call<'_>, cause: &Cause) -> bool {
    let ((caller, weight), now) = (call.caller, Instant::now());
    let may = |gate: &Arc<Gate>| gate.would_queue(caller, weight, now, call.deadline);
    is_awaited(target, cause) && target.gate.as_ref().is_none_or(may)
}

/// Who may be asked after a wait. None: nobody, or that would be too late.
pub(super) async fn awaited<'r>(
    (route, call): (&'r Route, &Call<'_>),
    (walk, passed): (&mut Walk<'r>, &mut Passed<'r>),
    tab: &Tab,
    failures: &mut Vec<Failure>,
    latest: Instant,
) -> Option<Chosen<'r>> {
    // Nobody waits for what is not sent.
    let is_sent = !tab.is_rehearsed();
    if walk.is_fresh() {
        return rested(route, walk, is_sent.then_some(latest)).await;
    }
    while let Some(target) = passed.soonest(call.caller).filter(|_| is_sent) {
        if call.stream {
            tab.presence().keeps_alive(target.provider.keepalive);
        }
        match served(target, call).await {
            Ok(slots) => {
                return Some(Chosen {
                    slots,
                    ..Chosen::of(target)
                });
            }
            Err(cause) => {
                // What it was passed over for before is no news any more.
                let is_old = |it: &Failure| {
                    Arc::ptr_eq(&it.target, &target.name) && is_awaited(target, &it.cause)
                };
                failures.retain(|it| !is_old(it));
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

/// Waits for a target: for the end of its loading, and for a slot.
async fn served(target: &Target, call: &Call<'_>) -> Result<Option<Slots>, Cause> {
    if target.load.is_some() && target.health.pace().is_cold(Instant::now()) {
        let loaded = timeout_at(call.deadline, target.health.loaded()).await;
        loaded.map_err(|_| Cause::Loading)?;
    }
    match target.gate.as_ref().filter(|gate| gate.has_line()) {
        None => Ok(None),
        Some(gate) => {
            let (caller, weight) = call.caller;
            let waiting = gate.queue(caller, weight, Instant::now(), call.deadline);
            let slots = waiting.map_err(Cause::Limited)?.await;
            slots.map(Some).map_err(Cause::Limited)
        }
    }
}
