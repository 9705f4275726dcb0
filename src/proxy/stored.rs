//! Responses that providers keep: shown, forgotten and stopped where they are kept, for those they were made for. Nothing of
//! it is billed.

use http::Uri;
use http::request::Parts;
use tokio::time::Instant;

use super::{Answered, Worker, admit, identify, shortened};
use crate::plan::Plan;
use crate::protocol::{NoEndpoint, Stored};
use crate::rejection::Rejection;
use crate::telemetry::Record;
use crate::upstream::StoredCall;

/// Asks whoever keeps a response.
pub(super) async fn ask(
    Worker {
        gateway, client, ..
    }: &Worker,
    plan: &Plan,
    head: &Parts,
    record: &mut Record,
) -> Result<Answered, Rejection> {
    let caller = &*identify(gateway, plan, &head.headers, record)?;
    let mut taken = admit(gateway, plan, caller, record)?;
    let stored = Stored::at(head.uri.path()).ok_or(NoEndpoint::Path)?;
    if wants_stream(&head.uri) {
        return Err(Rejection::BadMember(
            "stream",
            "is not there for a response that is stored: ask for it whole",
        ));
    }
    let maker = gateway.state.ledger.maker(stored.id);
    let maker = maker.filter(|maker| caller.owns(&maker.key, maker.team.as_ref()));
    let maker = maker.ok_or_else(|| Rejection::ResponseNotFound(shortened(stored.id)))?;
    let Some(passage) = plan.providers.get(&*maker.provider) else {
        return Err(Rejection::NoTarget {
            model: shortened(&maker.model),
            why: format!(
                "; the provider `{}`, which keeps the response, cannot be asked",
                maker.provider
            ),
        });
    };
    if let Some(route) = plan.models.get(&*maker.model) {
        record.routed(&route.meters);
    }
    let left = taken.charge.take(0, None, Instant::now())?;
    taken.charge.spend();
    let query = head.uri.query();
    let call = StoredCall {
        provider: &passage.provider,
        method: head.method.clone(),
        below: stored.below() + &query.map_or_else(String::new, |query| format!("?{query}")),
        headers: &head.headers,
        onward: record.onward(),
        id: record
            .client_id
            .clone()
            .unwrap_or_else(|| record.id.header()),
        began: record.began,
        wall: &*gateway.wall,
    };
    let coming = client.stored(call).await?;
    let mut share = gateway.state.memory.share();
    share.grow(coming.most(), plan.limits.body_memory)?;
    let told = coming.whole().await?;
    if let Some(permit) = &mut taken.permit {
        permit.left = left;
        permit.share = Some(share);
    }
    Ok(Answered::PassedOn(Box::new(told), taken.permit))
}

/// Whether the events of a response are asked for, once more.
fn wants_stream(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair == "stream=true")
}
