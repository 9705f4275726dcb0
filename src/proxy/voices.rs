//! With which voices can be spoken? Those that the configuration names and those that providers told us of, of all providers
//! that a caller may ask.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::catalogue::{answer, unescape};
use super::destination::{destination, nobody};
use super::shortened;
use crate::admission::Caller;
use crate::plan::{Plan, State};
use crate::protocol::Endpoint;
use crate::provider::Voices;
use crate::rejection::Rejection;

/// `GET /v1/audio/voices`: those of all providers that this caller may ask, or of one model's with `?model=`.
pub(super) fn all(
    plan: &Plan,
    state: &State,
    caller: &Caller,
    uri: &Uri,
) -> Result<Response<Bytes>, Rejection> {
    let voices = voices(plan, state, caller, uri)?;
    Ok(answer(
        StatusCode::OK,
        &json!({ "object": "list", "voices": voices }),
    ))
}

/// `GET /v1/audio/voices/{id}`; the id may have slashes, escaped or not. Where several providers have it, the first in the
/// order of their names.
pub(super) fn one(
    plan: &Plan,
    state: &State,
    caller: &Caller,
    uri: &Uri,
) -> Result<Response<Bytes>, Rejection> {
    let escaped = uri.path().split_once("/voices/").map_or("", |(_, id)| id);
    let id = unescape(escaped);
    let mut voices = voices(plan, state, caller, uri)?.into_iter();
    let found = voices.find(|voice| voice.get("id").is_some_and(|own| *own == *id));
    let found = found.ok_or_else(|| Rejection::VoiceNotFound(shortened(&id)))?;
    Ok(answer(StatusCode::OK, &found))
}

fn voices(plan: &Plan, state: &State, caller: &Caller, uri: &Uri) -> Result<Vec<Value>, Rejection> {
    let providers = match model(uri) {
        Some(model) => {
            let route = destination(plan, caller, &model, Endpoint::Speech)?;
            if route.targets.is_empty() {
                return Err(nobody(&route, &model));
            }
            let names = route.targets.iter().map(|target| &target.provider.name);
            names.map(|name| Box::from(&**name)).collect()
        }
        None => asked(plan, caller),
    };
    let told = state.voices.load();
    let mut all = Vec::new();
    for name in &providers {
        let Some(passage) = plan.providers.get(name) else {
            continue;
        };
        match &passage.provider.voices {
            Voices::Listed(ids) => {
                let named = |id: &str| json!({ "id": id, "name": id, "owned_by": name });
                all.extend(ids.iter().map(|id| named(id)));
            }
            Voices::Asked(_) => {
                let told = told.get(name).into_iter().flatten();
                all.extend(told.map(|voice| {
                    let mut about = voice.about.clone();
                    about.insert("id".into(), (*voice.id).into());
                    about.entry("name").or_insert_with(|| (*voice.id).into());
                    about.insert("owned_by".into(), (**name).into());
                    Value::Object(about)
                }));
            }
        }
    }
    Ok(all)
}

/// The model that is asked about, if it is one.
fn model(uri: &Uri) -> Option<String> {
    let mut parts = uri.query()?.split('&');
    let model = parts.find_map(|part| part.strip_prefix("model="))?;
    Some(unescape(&model.replace('+', " ")))
}

/// The providers that a caller may ask, for one model at least.
fn asked(plan: &Plan, caller: &Caller) -> BTreeSet<Box<str>> {
    let routes = plan.models.iter().chain(&plan.targets);
    let usable = routes.filter(|(name, _)| caller.may_use(name));
    let targets = usable.flat_map(|(_, route)| route.targets.iter());
    let named = targets.map(|target| Box::from(&*target.provider.name));
    // Whoever may ask for any of a provider's models, or for all there are.
    let any = plan
        .providers
        .keys()
        .filter(|name| caller.may_use(&format!("{name}/*")));
    named.chain(any.cloned()).collect()
}
