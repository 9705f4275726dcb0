//! How is it asked? What a request says of itself, beside what its model is to read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::shortened;
use crate::admission::note;
use crate::config;
use crate::envelope::{self, Envelope, Malformed};
use crate::protocol::{Endpoint, Form};
use crate::rejection::Rejection;

/// How a body is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Writing<'h> {
    /// As a JSON object.
    Json,
    /// As form data with this boundary.
    Form(&'h [u8]),
}

impl Writing<'_> {
    /// What a body is that is written so, if it is no text.
    pub(super) fn no_text(self) -> Option<&'static str> {
        match self {
            Self::Json => None,
            Self::Form(_) => Some("multipart/form-data"),
        }
    }

    /// Reads a body that is written so.
    pub(super) fn read(
        self,
        body: Bytes,
        acted_on: impl Fn(&str) -> bool,
    ) -> Result<Envelope, Malformed> {
        match self {
            Self::Json => Envelope::scan(body, acted_on),
            Self::Form(boundary) => Envelope::form(body, boundary, acted_on),
        }
    }
}

/// What a body is that is no form.
const JSON: &[u8] = b"application/json";

/// What the head of a request says of its body, and of how it is to be carried out. Most say hardly anything, and names
/// that are not the standard's are dear to look for one by one: each is looked at once. Of what is said twice, the first
/// counts.
#[derive(Default)]
pub(super) struct Manner<'h> {
    tag: Option<&'h HeaderValue>,
    timeout: Option<&'h HeaderValue>,
    kind: Option<&'h HeaderValue>,
    /// There is another kind.
    is_ambiguous: bool,
    encoding: Option<&'h HeaderValue>,
    explain: Option<&'h HeaderValue>,
}

impl<'h> Manner<'h> {
    pub(super) fn of(headers: &'h HeaderMap) -> Self {
        let mut manner = Self::default();
        for (name, value) in headers {
            let said = match name.as_str() {
                "content-encoding" => &mut manner.encoding,
                "content-type" => &mut manner.kind,
                "x-tollgate-explain" => &mut manner.explain,
                "x-tollgate-tag" => &mut manner.tag,
                "x-tollgate-timeout" => &mut manner.timeout,
                _ => continue,
            };
            if let (Some(first), "content-type") = (&*said, name.as_str()) {
                manner.is_ambiguous |= *first != value;
                continue;
            }
            said.get_or_insert(value);
        }
        manner
    }

    /// How the body is written that is sent to an endpoint, as it is: as JSON, or as form data. It must say so. A web page can
    /// send forms anywhere without a browser asking first; that it comes from a page, the door has seen.
    pub(super) fn writing(&self, endpoint: Endpoint) -> Result<Writing<'h>, Rejection> {
        if let Some(encoding) = self.encoding
            && encoding != "identity"
        {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            return Err(Rejection::Encoded(shortened(&encoding)));
        }
        if self.is_ambiguous {
            return Err(Rejection::BadHeader("content-type", "must be given once"));
        }
        let stated = self
            .kind
            .map_or(&b"nothing"[..], |stated| stated.as_bytes());
        let kind = || stated.split(|byte| *byte == b';').next();
        let is_json = |kind: &[u8]| kind.trim_ascii().eq_ignore_ascii_case(JSON);
        let takes = endpoint.form();
        if takes != Form::Data && (stated == JSON || kind().is_some_and(is_json)) {
            return Ok(Writing::Json);
        }
        if matches!(takes, Form::Data | Form::Both)
            && let Some(boundary) = envelope::boundary(stated)?
        {
            return Ok(Writing::Form(boundary));
        }
        let must = match takes {
            Form::Json | Form::Nothing => "JSON and say so, with `content-type: application/json`",
            Form::Data => {
                "form data and say so, with `content-type: multipart/form-data` and its boundary"
            }
            Form::Both => {
                "JSON or form data and say so, with `content-type: application/json` or `multipart/form-data`"
            }
        };
        let stated = String::from_utf8_lossy(stated);
        Err(Rejection::WrongType(must, shortened(&stated)))
    }

    /// It is to be kept why it goes where it goes.
    pub(super) fn explains(&self) -> bool {
        self.explain.is_some_and(|value| value == "1")
    }

    /// To what it is charged.
    pub(super) fn tag(&self) -> Option<Arc<str>> {
        note::kept(&String::from_utf8_lossy(self.tag?.as_bytes()))
    }

    /// How long the client waits for the beginning of an answer, if it says so: a time as it is configured, or a number of
    /// seconds.
    pub(super) fn patience(&self) -> Result<Option<Duration>, Rejection> {
        let Some(value) = self.timeout else {
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
}

/// Whether the client wants a stream of events. What is no boolean would be read one way here and another there.
pub(super) fn wants_stream(endpoint: Endpoint, envelope: &Envelope) -> Result<bool, Rejection> {
    if !endpoint.streams() {
        return Ok(false);
    }
    if endpoint == Endpoint::Speech {
        // Its sound streams in any case.
        let format = envelope.string("stream_format");
        return Ok(format.is_some_and(|format| format == "sse"));
    }
    match envelope.value("stream") {
        None | Some(b"false" | b"null") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(Rejection::BadMember("stream", "must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_any_text() {
        let tag = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-tollgate-tag", HeaderValue::from_bytes(bytes).unwrap());
            Manner::of(&headers).tag().map(|tag| tag.to_string())
        };
        assert_eq!(tag("Büro 7".as_bytes()).as_deref(), Some("Büro 7"));
        assert_eq!(tag(b"a\xffb").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(tag(b""), None);
        assert!(Manner::of(&HeaderMap::new()).tag().is_none());
    }

    #[test]
    fn the_first_of_several_counts() {
        let mut headers = HeaderMap::new();
        for time in ["1s", "2s"] {
            headers.append("x-tollgate-timeout", HeaderValue::from_static(time));
        }
        let patience = Manner::of(&headers).patience().unwrap();
        assert_eq!(patience, Some(Duration::from_secs(1)));
    }
}
