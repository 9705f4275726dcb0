//! `/admin/explain`: what would become of a request, and why? Nothing is sent, and nothing is counted.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{Answer, Ask};
use crate::protocol::Endpoint;
use crate::proxy::explain::{self, Question};

/// How long a question may be, in bytes.
pub const LONGEST: usize = 4 << 20;

/// What is called where nothing is said.
const USUAL: &str = "/v1/chat/completions";

/// What an operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    key: Option<String>,
    endpoint: Option<String>,
    model: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// Tells what would become of a request.
pub(super) async fn answer(ask: &Ask, body: Bytes) -> Answer {
    match question(&body) {
        Ok(question) => {
            let told = explain::explain(&ask.gateway, &question).await;
            Answer::json(StatusCode::OK, &told)
        }
        Err(wrong) => Answer::refusal(StatusCode::BAD_REQUEST, "invalid_request", &wrong),
    }
}

/// Reads it, or says what is wrong with it.
pub fn question(text: &[u8]) -> Result<Question, String> {
    let written: Written<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let path = written.endpoint.as_deref().unwrap_or(USUAL);
    let endpoint = Endpoint::of(&Method::POST, path).ok();
    let endpoint = endpoint.filter(|endpoint| endpoint.number().is_some());
    let endpoint = endpoint.ok_or_else(|| format!("`endpoint`: no model is asked at `{path}`"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &written.headers {
        let wrong = |what| format!("`headers`: `{name}` is no {what} of a header");
        let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong("name"))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|_| wrong("value"))?;
        headers.append(name, value);
    }
    // It goes without saying, for the body is part of what is JSON.
    let json = HeaderValue::from_static("application/json");
    headers.entry(header::CONTENT_TYPE).or_insert(json);
    Ok(Question {
        key: written.key,
        endpoint,
        headers,
        body: explain::body(written.model.as_deref(), written.body.map(RawValue::get))?,
    })
}
