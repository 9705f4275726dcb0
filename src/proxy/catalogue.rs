//! What can be asked for: the lists of models, and whether we are well.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::admission::Caller;
use crate::plan::{Plan, State};
use crate::rejection::Rejection;

/// `GET /v1/models`: the configured names this caller may use, the targets the file names and the models that providers
/// told us of, as far as its patterns match; never a pattern, and nothing that nobody here can serve.
pub(super) fn models(plan: &Plan, state: &State, caller: &Caller) -> Response<Bytes> {
    let lists = state.discovered.load();
    let told = lists.iter().flat_map(|(provider, models)| {
        models
            .iter()
            .map(move |model| Cow::from(format!("{provider}/{model}")))
    });
    let names = served(plan).map(Cow::Borrowed).chain(told);
    let mut names: Vec<Cow<'_, str>> = names.filter(|name| caller.may_use(name)).collect();
    names.sort_unstable();
    names.dedup();
    let data: Vec<Value> = names.iter().map(|name| entry(plan, name)).collect();
    answer(StatusCode::OK, &json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`; the id may have slashes, escaped or not.
pub(super) fn model(
    plan: &Plan,
    state: &State,
    caller: &Caller,
    path: &str,
) -> Result<Response<Bytes>, Rejection> {
    let escaped = path.split_once("/models/").map_or("", |(_, id)| id);
    let id = unescape(escaped);
    let is_told = || {
        let (provider, model) = id.split_once('/')?;
        let models = state.discovered.load();
        Some(models.get(provider)?.iter().any(|told| **told == *model))
    };
    if !served(plan).any(|name| name == id) && is_told() != Some(true) {
        return Err(Rejection::ModelNotFound(super::shortened(&id)));
    }
    if !caller.may_use(&id) {
        return Err(Rejection::ModelNotAllowed(super::shortened(&id)));
    }
    Ok(answer(StatusCode::OK, &entry(plan, &id)))
}

/// `GET /health…`
pub(super) fn health(status: StatusCode) -> Response<Bytes> {
    let says = if status.is_success() {
        "ok"
    } else {
        "draining"
    };
    answer(status, &json!({ "status": says }))
}

/// What a browser asks before it lets a page's request go (the Fetch standard's "preflight"). None if this is no such
/// question. Whether the page may call at all was asked before.
pub(super) fn permission(method: &Method, headers: &HeaderMap) -> Option<Response<Bytes>> {
    let wants = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if *method != Method::OPTIONS || !wants {
        return None;
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let given = response.headers_mut();
    given.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST"),
    );
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        given.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    // A page of the public web that asks for a private address: browsers that know the difference ask for this, too.
    if headers.contains_key("access-control-request-private-network") {
        let yes = HeaderValue::from_static("true");
        given.insert("access-control-allow-private-network", yes);
    }
    let two_hours = HeaderValue::from_static("7200");
    given.insert(header::ACCESS_CONTROL_MAX_AGE, two_hours);
    Some(response)
}

/// The configured names, then the targets by their own.
fn served(plan: &Plan) -> impl Iterator<Item = &str> {
    let routes = plan
        .models
        .iter()
        .filter(|(_, route)| !route.targets.is_empty());
    let names = routes.clone().map(|(name, _)| &**name);
    let targets = routes
        .flat_map(|(_, route)| &route.targets)
        .map(|target| &*target.name);
    names.chain(targets)
}

/// A model as `OpenAI` lists one, and what it is for, where that is configured.
fn entry(plan: &Plan, name: &str) -> Value {
    let route = plan.models.get(name).or_else(|| plan.targets.get(name));
    let kind = route.and_then(|route| route.kind);
    let mut entry = json!({ "id": name, "object": "model", "created": 0, "owned_by": "tollgate" });
    if let (Some(kind), Some(members)) = (kind, entry.as_object_mut()) {
        members.insert("kind".into(), kind.name().into());
    }
    entry
}

pub(super) fn answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Undoes percent-encoding (RFC 3986, 2.1). What is no escape stays as it is.
pub fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let escaped = pair
            .filter(|_| byte == b'%')
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("groq%2Fllama/x%3afree"), "groq/llama/x:free");
        assert_eq!(unescape("100%"), "100%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
        assert_eq!(unescape("%ff"), "\u{fffd}");
    }
}
