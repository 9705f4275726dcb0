//! May it be paid? Money is set aside for the most that a request may cost, or it is not sent.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use crate::admission::{Caller, note};
use crate::envelope::Envelope;
use crate::gateway::Gateway;
use crate::ledger::{Hold, Refused};
use crate::plan::Plan;
use crate::protocol::Endpoint;
use crate::rejection::Rejection;
use crate::route::{Bounds, Route, Terms};
use crate::telemetry::Record;
use crate::upstream::{Asked, Tab};
use crate::usage::Money;

/// Opens the tab of a request.
pub(super) async fn open(
    gateway: &Gateway,
    plan: &Plan,
    caller: &Caller,
    (endpoint, headers, envelope): (Endpoint, &HeaderMap, &Envelope),
    route: &Route,
    record: &Record,
) -> Result<Box<Tab>, Rejection> {
    let now = (gateway.wall)();
    let all = route.order().iter().map(|target| &target.terms);
    let mut bounds = None;
    let hold = if is_metered(caller, all.clone()) {
        let asked = Bounds::new(route, endpoint, envelope, plan.spending.output_cap)?;
        let (covered, hold) = hold(gateway, plan, caller, asked, all, now).await?;
        bounds = Some(covered);
        hold
    } else {
        gateway.state.ledger.hold(&[], Money::ZERO, now).await?
    };
    let asked = Asked {
        request: record.id.as_str().into(),
        api: record.api,
        key: Arc::clone(&caller.name),
        team: caller.team.clone(),
        model: Arc::clone(&route.meters.name),
        length: envelope.length(),
        most: if endpoint.has_output() { u64::MAX } else { 0 },
        at: now,
        user: envelope.string("user").and_then(|user| note::kept(&user)),
        tag: note::tag(headers).or_else(|| caller.tag.clone()),
    };
    // In a box from the start: it is long, and moves from hand to hand.
    Ok(Box::new(Tab::new(
        hold,
        asked,
        bounds,
        plan.spending.unpriced,
    )))
}

/// Whether anybody who is asked has a budget.
fn is_metered<'t>(caller: &Caller, mut all: impl Iterator<Item = &'t Terms>) -> bool {
    !caller.accounts.is_empty() || all.any(|terms| terms.account.is_some())
}

/// Holds the most that a request may cost, or as much of it as the caller lets be enough.
async fn hold<'t>(
    gateway: &Gateway,
    plan: &Plan,
    caller: &Caller,
    asked: Bounds,
    all: impl Iterator<Item = &'t Terms> + Clone,
    now: SystemTime,
) -> Result<(Bounds, Box<Hold>), Rejection> {
    let ledger = &gateway.state.ledger;
    let most = all.clone().filter_map(|terms| asked.at(terms)).max();
    let most = match most {
        Some(most) => most,
        None if plan.spending.unpriced => Money::ZERO,
        None => return Err(Rejection::Unpriced),
    };
    let short = match ledger.hold(&caller.accounts, most, now).await {
        Ok(hold) => return Ok((asked, hold)),
        Err(refused) => refused,
    };
    let less = match &short {
        Refused::Short { left, .. } if caller.clamps => asked.within(all, *left),
        Refused::Short { left, .. } => asked.fitting(all, *left).map(|most| (asked, most)),
        _ => None,
    };
    let Some((less, most)) = less else {
        return Err(short.into());
    };
    let hold = ledger.hold(&caller.accounts, most, now).await?;
    Ok((less, hold))
}
