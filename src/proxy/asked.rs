//! How is it asked? What a request says of itself, beside what its model is to read.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::shortened;
use crate::config;
use crate::envelope::Envelope;
use crate::rejection::Rejection;

/// Whether the body is what we read: JSON, as it is. It must say so: a web page can send the types of forms anywhere
/// without a browser asking first, but not this one.
pub(super) fn readable(headers: &HeaderMap) -> Result<(), Rejection> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let encoding = String::from_utf8_lossy(encoding.as_bytes());
        return Err(Rejection::Encoded(shortened(&encoding)));
    }
    let stated = headers.get(header::CONTENT_TYPE);
    let stated = stated.map_or(&b"nothing"[..], |stated| stated.as_bytes());
    let kind = stated.split(|byte| *byte == b';').next();
    if kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json")) {
        Ok(())
    } else {
        let stated = String::from_utf8_lossy(stated);
        Err(Rejection::NotJson(shortened(&stated)))
    }
}

/// Whether the client wants a stream. What is no boolean would be read one way here and another there.
pub(super) fn wants_stream(envelope: &Envelope) -> Result<bool, Rejection> {
    match envelope.value("stream") {
        None | Some(b"false" | b"null") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(Rejection::BadMember("stream", "must be true or false")),
    }
}

/// How long the client waits for the beginning of an answer, if it says so: a time as it is configured, or a number of
/// seconds.
pub(super) fn patience(headers: &HeaderMap) -> Result<Option<Duration>, Rejection> {
    const TIMEOUT: HeaderName = HeaderName::from_static("x-tollgate-timeout");
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let patience = match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => config::duration(text).ok(),
    };
    let patience = patience.filter(|patience| !patience.is_zero());
    let must = "must be a time such as `30s`, `250ms` or `2m`";
    let wrong = || Rejection::BadHeader("x-tollgate-timeout", must);
    patience.ok_or_else(wrong).map(Some)
}
