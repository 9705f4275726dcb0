//! Where may it go? The route of the model that it asks for, or why it may not be asked for that.

use std::sync::Arc;

use super::shortened;
use crate::admission::Caller;
use crate::envelope::Envelope;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::protocol::Endpoint;
use crate::rejection::Rejection;
use crate::route::Route;

/// Where a request for a model goes, if its caller may ask for that, and it may be asked there.
pub(super) fn destination(
    plan: &Plan,
    caller: &Caller,
    model: &str,
    endpoint: Endpoint,
) -> Result<Arc<Route>, Rejection> {
    let route = plan.route(model);
    let route = route.ok_or_else(|| Rejection::ModelNotFound(shortened(model)))?;
    if !caller.may_use(model) {
        return Err(Rejection::ModelNotAllowed(shortened(model)));
    }
    if let Some(kind) = route.is_for_other(endpoint) {
        let model = shortened(model);
        return Err(Rejection::WrongKind { model, kind });
    }
    Ok(route)
}

/// The same route, but for those who do not keep what a request goes on from. What is not known of a response, or is said in
/// some other way, is for the provider to judge.
pub(super) fn onward(
    ledger: &Ledger,
    caller: &Caller,
    (endpoint, envelope): (Endpoint, &Envelope),
    route: Arc<Route>,
) -> Result<Arc<Route>, Rejection> {
    if endpoint != Endpoint::Responses {
        return Ok(route);
    }
    let Some(id) = envelope.string("previous_response_id") else {
        return Ok(route);
    };
    let Some(maker) = ledger.maker(&id) else {
        return Ok(route);
    };
    if !caller.owns(&maker.key, maker.team.as_ref()) {
        return Err(Rejection::NoPrevious(shortened(&id)));
    }
    route.at(&maker.provider).ok_or(Rejection::KeptElsewhere {
        model: route.meters.name.as_ref().into(),
        maker: maker.model.as_ref().into(),
    })
}

/// Why a model without targets has none.
pub(super) fn nobody(route: &Route, model: &str) -> Rejection {
    let skipped = route.skipped.iter();
    let why = skipped.fold(String::new(), |why, next| why + "; " + next);
    let model = shortened(model);
    Rejection::NoTarget { model, why }
}
