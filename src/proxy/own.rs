//! `GET /v1/usage`: what has a caller spent, what is left, and of which limits? Its own and its team's; what others have is
//! not for it to know. To ask costs nothing and counts nowhere.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::catalogue;
use crate::admission::Caller;
use crate::admission::limits::{What, Whose};
use crate::gateway::Gateway;
use crate::ledger::{Account, Balance, Scope};
use crate::telemetry::Record;
use crate::telemetry::decision::millis;
use crate::usage::Money;

pub(super) async fn usage(gateway: &Gateway, caller: &Caller, record: &Record) -> Response<Bytes> {
    let mut told = standing(gateway, caller, record.began).await;
    told.insert("object".into(), "usage".into());
    told.insert("key".into(), (*caller.name).into());
    told.insert("team".into(), caller.team.as_deref().into());
    catalogue::answer(StatusCode::OK, &Value::Object(told))
}

/// What a caller has left: `budgets` and `limits`.
pub(super) async fn standing(
    gateway: &Gateway,
    caller: &Caller,
    at: Instant,
) -> Map<String, Value> {
    let (ledger, now) = (&gateway.state.ledger, (gateway.wall)());
    let mine = |account: &&Account| !matches!(account.scope(), Scope::Total | Scope::Provider);
    let balances = || -> Vec<Option<Balance>> {
        let mine = caller.accounts.iter().filter(mine);
        mine.map(|account| ledger.balance(account, now)).collect()
    };
    let mut all = balances();
    if all.iter().any(Option::is_none) {
        // To hold nothing has it read what was spent. If it cannot be read, that is not told.
        drop(ledger.hold(&caller.accounts, Money::ZERO, now).await);
        all = balances();
    }
    let (mut budgets, mut limits) = (Vec::new(), Vec::new());
    for balance in all.iter().flatten() {
        match balance.account.scope().is_of_requests() {
            true => limits.push(requests(balance, now)),
            false => budgets.push(budget(balance)),
        }
    }
    for gate in &caller.gates {
        let scope = match gate.whose() {
            Whose::Key => "key",
            Whose::Team => "team",
            Whose::Target => continue,
        };
        limits.extend(gate.left(at).iter().map(|left| {
            json!({
                "scope": scope,
                "name": &**gate.name(),
                "limit": left.what.name(),
                "most": left.limit,
                "left": left.left,
                "resets_in_ms": millis(left.reset),
            })
        }));
    }
    Map::from_iter([
        ("budgets".into(), budgets.into()),
        ("limits".into(), limits.into()),
    ])
}

/// Amounts are decimal text, so that no reader makes floats of them.
fn budget(balance: &Balance) -> Value {
    json!({
        "scope": balance.account.scope().name(),
        "name": &**balance.account.name(),
        "usd": balance.budget.limit.to_string(),
        "spent_usd": balance.spent.to_string(),
        "held_usd": balance.held.to_string(),
        "left_usd": balance.left.to_string(),
        "per": balance.budget.per.name(),
        "resets_at": balance.resets.map(seconds),
    })
}

fn requests(balance: &Balance, now: SystemTime) -> Value {
    let scope = match balance.account.scope() {
        Scope::TeamRequests => "team",
        _ => "key",
    };
    let resets = balance.resets.and_then(|at| at.duration_since(now).ok());
    json!({
        "scope": scope,
        "name": &**balance.account.name(),
        "limit": What::Rpd.name(),
        "most": balance.budget.limit.0,
        "left": balance.left.0,
        "resets_in_ms": resets.map(millis),
    })
}

/// Seconds since 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
