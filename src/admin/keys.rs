//! `/admin/keys`: keys are listed, made, given anew and revoked, and at work when the answer comes.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use httpdate::fmt_http_date;
use serde_json::{Map, Value, json};

use super::api::{Answer, Ask};
use crate::config::duration;
use crate::gateway::Gateway;
use crate::ledger::KeyError;
use crate::plan::made::{self, NoKey};

/// Every key there is.
pub(super) async fn list(ask: Ask) -> Answer {
    let listed = on_ledger(&ask.gateway, |gateway| {
        let now = (gateway.wall)();
        made::list(&gateway.plan(), gateway.state.ledger.keys(), now)
    });
    match listed.await {
        Ok(all) => Answer::json(StatusCode::OK, &json!(all)),
        Err(refused) => refused,
    }
}

/// Makes one: `{"name": …}`, and what it may do in the words of gateway.toml.
pub(super) async fn make(ask: Ask, body: Bytes) -> Answer {
    let (name, terms) = match named(&body) {
        Ok(named) => named,
        Err(wrong) => return flawed(&wrong),
    };
    let called = name.clone();
    let key = on_ledger(&ask.gateway, move |gateway| {
        let now = (gateway.wall)();
        let keys = gateway.state.ledger.keys();
        let key = made::make(&gateway.plan(), keys, &called, &terms, now)?;
        gateway.admit_made()?;
        Ok(key)
    });
    match key.await {
        Ok(key) => Answer::json(StatusCode::CREATED, &json!({ "name": name, "key": key })),
        Err(refused) => refused,
    }
}

/// Gives one anew: `{"grace": "1h"}`, or nothing.
pub(super) async fn rotate(ask: &Ask, name: String, body: Bytes) -> Answer {
    let grace = match grace(&body) {
        Ok(grace) => grace,
        Err(wrong) => return flawed(&wrong),
    };
    let called = name.clone();
    let rotated = on_ledger(&ask.gateway, move |gateway| {
        let now = (gateway.wall)();
        let keys = gateway.state.ledger.keys();
        let rotated = made::rotate(&gateway.plan(), keys, &called, grace, now)?;
        gateway.admit_made()?;
        Ok(rotated)
    });
    match rotated.await {
        Ok((key, until)) => {
            let until = fmt_http_date(until);
            let told = json!({ "name": name, "key": key, "older_until": until });
            Answer::json(StatusCode::OK, &told)
        }
        Err(refused) => refused,
    }
}

/// Revokes one, for good.
pub(super) async fn revoke(ask: &Ask, name: String) -> Answer {
    let called = name.clone();
    let revoked = on_ledger(&ask.gateway, move |gateway| {
        let now = (gateway.wall)();
        let keys = gateway.state.ledger.keys();
        made::revoke(&gateway.plan(), keys, &called, now)?;
        gateway.admit_made()?;
        Ok(())
    });
    match revoked.await {
        Ok(()) => Answer::json(StatusCode::OK, &json!({ "name": name, "state": "revoked" })),
        Err(refused) => refused,
    }
}

/// Does what the disk may take its time for.
async fn on_ledger<T: Send + 'static>(
    gateway: &Arc<Gateway>,
    work: impl FnOnce(&Gateway) -> Result<T, NoKey> + Send + 'static,
) -> Result<T, Answer> {
    let gateway = Arc::clone(gateway);
    let done = tokio::task::spawn_blocking(move || work(&gateway)).await;
    match done {
        Ok(done) => done.map_err(|refused| refusal(&refused)),
        Err(_) => {
            let message = "it was not done to its end; look at the list of keys";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Answer::refusal(status, "internal_error", message))
        }
    }
}

fn refusal(refused: &NoKey) -> Answer {
    let (status, code) = match refused {
        NoKey::Name | NoKey::Flawed(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        NoKey::Written(_) => (StatusCode::CONFLICT, "key_in_configuration"),
        NoKey::Unknown(_) | NoKey::Ledger(KeyError::Missing(_)) => {
            (StatusCode::NOT_FOUND, "key_not_found")
        }
        NoKey::Ledger(KeyError::Taken(_)) => (StatusCode::CONFLICT, "key_exists"),
        NoKey::Ledger(KeyError::Revoked(_)) => (StatusCode::CONFLICT, "key_revoked"),
        NoKey::Ledger(KeyError::Nowhere | KeyError::Store(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable")
        }
        NoKey::Random(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
    };
    Answer::refusal(status, code, &refused.to_string())
}

fn flawed(wrong: &str) -> Answer {
    Answer::refusal(StatusCode::BAD_REQUEST, "invalid_request", wrong)
}

/// The name, and the rest.
fn named(body: &[u8]) -> Result<(String, String), String> {
    let mut object = object(body)?;
    match object.remove("name") {
        Some(Value::String(name)) => Ok((name, Value::Object(object).to_string())),
        _ => Err("`name` must be given, as a string".into()),
    }
}

fn grace(body: &[u8]) -> Result<std::time::Duration, String> {
    const DEFAULT: &str = "1h";
    if body.is_empty() {
        return duration(DEFAULT);
    }
    let object = object(body)?;
    if let Some(other) = object.keys().find(|name| *name != "grace") {
        return Err(format!("`{other}` is unknown; there is grace"));
    }
    match object.get("grace") {
        None => duration(DEFAULT),
        Some(Value::String(text)) => duration(text),
        Some(_) => Err("`grace` is a duration in quotes, such as \"1h\"".into()),
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the body must be a JSON object".into()),
        Err(wrong) => Err(format!("the body is not JSON: {wrong}")),
    }
}
