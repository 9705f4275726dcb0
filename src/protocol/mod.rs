//! How is it said on the wire? What a client called, how a provider is spoken to, and how its answer is read.
//!
//! Also the writer of every error body, so that a client hears errors in its own format, from us as from a provider.
//! Knows `envelope` and `usage`.

pub mod demand;
mod endpoint;
mod error;
pub mod least;
pub mod openai;
mod opening;
mod ordinary;
mod parts;
mod skim;
mod sse;
mod stored;
mod stream;
mod tokens;
mod typed;
mod units;
mod voices;

use bytes::Bytes;
use http::StatusCode;
use smallvec::SmallVec;

use crate::envelope::Edits;
use crate::usage::Usage;
pub use demand::Demand;
pub use endpoint::{ASKING, Endpoint, Form, Gives, Kind, NoEndpoint, Whole};
pub use error::ErrorBody;
pub use opening::opening;
pub use stored::Stored;
pub use units::Own;

/// Every wire format there is. A battery of tests runs over all of them.
pub const ALL: &[&dyn Protocol] = &[&openai::OpenAi];

/// The most an event of a stream may hold, in bytes: images and audio come in pieces of several MiB.
pub const MAX_EVENT: usize = 16 << 20;

/// More models than any provider has; what it lists beyond is left out.
pub const MOST_MODELS: usize = 10_000;

/// What an error says, before it is written in a client's format.
#[derive(Clone, Debug)]
pub struct Complaint<'a> {
    /// The status it goes with.
    pub status: StatusCode,
    /// The contract's code for it.
    pub code: &'static str,
    /// One sentence for a person.
    pub message: &'a str,
    /// The member of the request it is about.
    pub param: Option<&'a str>,
}

/// OpenAI's `type` of an error, by status.
fn kind(status: StatusCode, code: &str) -> &'static str {
    match status.as_u16() {
        // Also in a stream, whose status was another.
        _ if code == "budget_exceeded" => "insufficient_quota",
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// OpenAI's envelope.
fn envelope(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    let error = serde_json::json!({ "error": {
        "message": message,
        "type": kind,
        "param": param,
        "code": code,
    }});
    Bytes::from(error.to_string())
}

impl Complaint<'_> {
    /// As a body.
    pub fn body(&self) -> Bytes {
        let kind = kind(self.status, self.code);
        envelope(self.message, kind, self.param, Some(self.code))
    }

    /// As the last event of a stream.
    pub fn event(&self) -> Bytes {
        last_event(&self.body())
    }
}

/// An error's body, as the last event of a stream: on one line, which changes nothing of what JSON says.
pub fn last_event(body: &[u8]) -> Bytes {
    let is_end = |byte: u8| matches!(byte, b'\n' | b'\r');
    let line = body
        .iter()
        .map(|byte| if is_end(*byte) { b' ' } else { *byte });
    let mut event = b"data: ".to_vec();
    event.extend(line);
    event.extend_from_slice(b"\n\n");
    Bytes::from(event)
}

/// A wire format that providers speak.
pub trait Protocol: Send + Sync {
    /// Where an endpoint lies below a provider's base URL.
    fn path(&self, endpoint: Endpoint) -> &'static str;

    /// Changes a body so that a streamed answer will tell its usage. True if it would not have done so by itself:
    /// then the event that tells it is not for the client.
    fn ask_for_usage(&self, edits: &mut Edits<'_>) -> bool;

    /// Changes a body so that no choice may have more output than so many tokens, whatever it says by now.
    fn limit_output(&self, endpoint: Endpoint, edits: &mut Edits<'_>, most: u64);

    /// A reader for one streamed answer.
    fn decoder(&self, endpoint: Endpoint, ends: Ending) -> Box<dyn Decoder>;

    /// Reads a whole answer. None if it is none.
    fn read(&self, endpoint: Endpoint, body: &[u8]) -> Option<Reading>;

    /// Reads a list of models: their names, at most [`MOST_MODELS`]. None if it is none.
    fn models(&self, body: &[u8]) -> Option<Vec<Box<str>>>;

    /// Reads a list of voices, at most [`MOST_MODELS`]. None if it is none.
    fn voices(&self, body: &[u8]) -> Option<Vec<Voice>>;

    /// Reads an error, in any shape that providers have for one. None if there is nothing in it to be read.
    fn error(&self, body: &[u8]) -> Option<ErrorBody>;

    /// A reader for the usage of an answer too long to be held.
    fn skimmer(&self, endpoint: Endpoint) -> Box<dyn Skimmer>;
}

/// A voice that a provider speaks with.
#[derive(Clone, Debug, PartialEq)]
pub struct Voice {
    /// As the provider calls it where it is to speak.
    pub id: Box<str>,
    /// What the provider says of it: all members of it that are short.
    pub about: serde_json::Map<String, serde_json::Value>,
}

/// How a stream of this provider and this request ends.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// With the format's own marker; without it the stream was cut.
    pub marker: bool,
    /// The event that tells the usage was not asked for by the client and is taken out.
    pub hide_usage: bool,
}

/// What a whole answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The usage, if it tells.
    pub usage: Option<Usage>,
    /// The id by which a response can be gone on from.
    pub response_id: Option<Box<str>>,
    /// It is an error in the clothes of an answer.
    pub is_error: bool,
}

/// Pieces on their way to the client.
pub type Pieces = SmallVec<[Bytes; 4]>;

/// Reads one streamed answer while its bytes pass by.
///
/// What it gives out is what came in, cut so that each piece ends where an event ends: a stream that breaks off never
/// leaves half an event with the client, and what is said after it is heard.
pub trait Decoder: Send {
    /// Takes the next piece and gives out what may go to the client by now.
    fn feed(&mut self, piece: Bytes, out: &mut Pieces) -> Result<(), TooLong>;

    /// The provider has ended its body: gives out what is left of a complete stream.
    fn finish(&mut self, out: &mut Pieces);

    /// What is known so far.
    fn progress(&self) -> &Progress;

    /// What the error said that ended the stream before its first content.
    fn error(&mut self) -> Option<ErrorBody>;

    /// The id by which a response can be gone on from, if it has passed.
    fn response_id(&self) -> Option<&str>;
}

/// What a [`Decoder`] has seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Something that a person or a program would call an answer has passed.
    pub content: bool,
    /// An event has passed that is none of an error, also one that says nothing.
    pub begun: bool,
    /// How many events have said something: there are as many tokens of output, or more.
    pub said: u64,
    /// The last usage told.
    pub usage: Option<Usage>,
    /// Whether it is that of the whole answer: it came with the finish, or after it.
    pub told_all: bool,
    /// How the stream ended, once it has.
    pub end: Option<Ended>,
}

/// How a provider ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As the format ends one.
    Complete,
    /// With an event that is an error.
    Error {
        /// In the form that clients look for.
        heard: bool,
    },
}

/// An event is longer than [`MAX_EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {} MiB", MAX_EVENT >> 20)]
pub struct TooLong;

/// Reads the usage of a long answer while its bytes pass by.
pub trait Skimmer: Send {
    /// Takes the next piece.
    fn feed(&mut self, piece: &[u8]);

    /// The usage, if it has passed.
    fn usage(&self) -> Option<Usage>;

    /// The id by which a response can be gone on from, if it has passed.
    fn response_id(&self) -> Option<&str>;

    /// Whether what has passed is a whole answer.
    fn is_complete(&self) -> bool;
}

/// An answer that tells nothing while it passes: sound, or plain text. How it is sent tells where it ends.
#[derive(Debug)]
pub struct Opaque;

impl Skimmer for Opaque {
    fn feed(&mut self, _: &[u8]) {}

    fn usage(&self) -> Option<Usage> {
        None
    }

    fn response_id(&self) -> Option<&str> {
        None
    }

    fn is_complete(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_the_same_face() {
        for protocol in ALL {
            for endpoint in Endpoint::asking() {
                assert!(protocol.path(endpoint).starts_with('/'));
            }
            assert_eq!(protocol.read(Endpoint::ChatCompletions, b"<html>"), None);
        }
    }

    #[test]
    fn an_error_is_the_same_as_body_and_as_event() {
        let complaint = Complaint {
            status: StatusCode::NOT_FOUND,
            code: "model_not_found",
            message: "no \"x\"\nhere",
            param: Some("model"),
        };
        let body: serde_json::Value = serde_json::from_slice(&complaint.body()).unwrap();
        assert_eq!(body["error"]["code"], "model_not_found");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["param"], "model");
        let event = complaint.event();
        assert!(event.starts_with(b"data: {") && event.ends_with(b"}\n\n"));
        assert_eq!(memchr::memchr_iter(b'\n', &event).count(), 2);
        let spread = last_event(b"{\r\n  \"error\": {}\n}");
        assert_eq!(spread, "data: {    \"error\": {} }\n\n");
    }

    #[test]
    fn a_budget_has_a_type_of_its_own_whatever_the_status() {
        for (status, code, want) in [
            (
                StatusCode::TOO_MANY_REQUESTS,
                "budget_exceeded",
                "insufficient_quota",
            ),
            (
                StatusCode::BAD_GATEWAY,
                "budget_exceeded",
                "insufficient_quota",
            ),
            (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "rate_limit_error",
            ),
            (StatusCode::BAD_GATEWAY, "upstream_error", "server_error"),
        ] {
            assert_eq!(kind(status, code), want, "{status} {code}");
        }
    }
}
