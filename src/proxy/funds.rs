//! May it pass, and may it be paid? What it may use is taken of its limits, and money is set aside for the most that it may cost, or
//! it is not sent.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::asked::Manner;
use crate::admission::limits::{Charge, Limited};
use crate::admission::{Caller, Permit, note};
use crate::gateway::Gateway;
use crate::ledger::{Account, Hold, Refused};
use crate::plan::Plan;
use crate::protocol::least;
use crate::rejection::Rejection;
use crate::route::{Bounds, Owns, Route, Terms};
use crate::telemetry::Record;
use crate::upstream::{Asked, Call, Tab};
use crate::usage::Money;

/// Who asks for what, and where it may go.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'r> {
    pub(super) caller: &'r Caller,
    /// How it is asked.
    pub(super) manner: &'r Manner<'r>,
    pub(super) call: &'r Call<'r>,
    /// The label of the model that was asked for: the one that its entries have.
    pub(super) model: &'r Arc<str>,
    /// The route of that model, or of one that is asked instead.
    pub(super) route: &'r Route,
}

/// What a request has taken of its caller's limits, and goes on with from one model to the next.
pub(super) struct Taken {
    pub(super) charge: Charge,
    /// None: its client has left.
    pub(super) permit: Option<Permit>,
}

/// Opens the tab of a request.
pub(super) async fn open(
    gateway: &Gateway,
    plan: &Plan,
    wanted: Wanted<'_>,
    taken: &mut Taken,
    record: &Record,
) -> Result<Box<Tab>, Rejection> {
    let Wanted {
        caller,
        manner,
        call,
        model,
        route,
    } = wanted;
    let (endpoint, envelope) = (call.endpoint, call.envelope);
    let least = least(call, route)?;
    let cap = plan.spending.output_cap;
    let all = route.targets.terms();
    let mut bounds = match caller.has_budget || route.targets.is_metered {
        true => Some(Bounds::new(route, endpoint, envelope, cap)?),
        false => None,
    };
    let (mut probable, owns) = (0, Owns::of(route, endpoint, envelope));
    if !caller.gates.is_empty() || route.targets.is_limited {
        probable = match &bounds {
            Some(bounds) => bounds.probable(envelope),
            None => Bounds::guess(endpoint, envelope, cap),
        };
        // Its body may have taken its time.
        let own = owns.as_ref().map(|owns| owns.counted());
        let left = taken.charge.take(probable, own, Instant::now())?;
        if let Some(permit) = &mut taken.permit {
            permit.left = left;
        }
    }
    let now = (gateway.wall)();
    let rest = rest(caller, record);
    let accounts = rest.as_deref().unwrap_or(&caller.accounts);
    let hold = match &mut bounds {
        Some(asked) => hold(gateway, plan, (caller, accounts), (asked, all), now).await,
        None => {
            let nothing = Money::ZERO;
            let hold = gateway.state.ledger.hold(accounts, nothing, now);
            hold.await.map_err(|refused| because(refused, now))
        }
    };
    let asked = Asked {
        request: record.id.as_str().into(),
        endpoint,
        key: caller.name.clone(),
        team: caller.team.clone(),
        model: Arc::clone(model),
        tries: record.tries,
        length: envelope.length(),
        owns,
        probable,
        least,
        at: now,
        user: envelope.string("user").and_then(|user| note::kept(&user)),
        tag: manner.tag().or_else(|| caller.tag.clone()),
    };
    let free = plan.spending.unpriced;
    // In a box from the start: it is long, and moves from hand to hand.
    let (hold, charge) = (hold?, taken.charge.hand_over());
    Ok(Box::new(Tab::new(hold, charge, asked, bounds, free)))
}

/// The tokens that a request has at the least, if that is more than some target has room for. None has: nobody is asked, and
/// nothing is set aside.
fn least(call: &Call<'_>, route: &Route) -> Result<u64, Rejection> {
    let contexts = || route.targets.terms().map(|terms| terms.context);
    let most = call.envelope.length() / least::BYTES;
    if !contexts().any(|context| context.is_some_and(|context| context < most)) {
        return Ok(0);
    }
    let least = least::tokens(call.endpoint, call.envelope);
    // Who says nothing of its context may have any.
    let longest = contexts().map(|context| context.unwrap_or(u64::MAX)).max();
    match longest {
        Some(context) if context < least => Err(Rejection::TooLong { context, least }),
        _ => Ok(least),
    }
}

/// Its caller's accounts but those of requests, where it has been counted by these already: with its first try, at another
/// model's target. None: it has not.
fn rest(caller: &Caller, record: &Record) -> Option<Vec<Account>> {
    let is_of_money = |account: &&Account| !account.scope().is_of_requests();
    let rest = || {
        caller
            .accounts
            .iter()
            .filter(is_of_money)
            .cloned()
            .collect()
    };
    (record.tries > 0).then(rest)
}

/// Why nothing was held.
fn because(refused: Refused, now: SystemTime) -> Rejection {
    match Limited::of_day(&refused, now) {
        Some(limited) => limited.into(),
        None => refused.into(),
    }
}

/// Holds the most that a request may cost, or as much of it as the caller lets be enough: it then asks for less.
async fn hold<'t>(
    gateway: &Gateway,
    plan: &Plan,
    (caller, accounts): (&Caller, &[Account]),
    (asked, all): (&mut Bounds, impl Iterator<Item = &'t Terms> + Clone),
    now: SystemTime,
) -> Result<Box<Hold>, Rejection> {
    let ledger = &gateway.state.ledger;
    let most = all.clone().filter_map(|terms| asked.at(terms)).max();
    let most = match most {
        Some(most) => most,
        None if plan.spending.unpriced => Money::ZERO,
        None => return Err(Rejection::Unpriced),
    };
    let short = match ledger.hold(accounts, most, now).await {
        Ok(hold) => return Ok(hold),
        Err(refused) => refused,
    };
    let most = match &short {
        Refused::Short { left, .. } if caller.clamps => {
            let less = asked.within(all, *left);
            less.map(|(less, most)| {
                *asked = less;
                most
            })
        }
        Refused::Short { left, .. } => asked.fitting(all, *left),
        _ => None,
    };
    let Some(most) = most else {
        return Err(because(short, now));
    };
    let hold = ledger.hold(accounts, most, now).await;
    hold.map_err(|refused| because(refused, now))
}
