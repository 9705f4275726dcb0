//! What a provider's error says: read in any of the shapes that providers have for one, written in the client's.
//!
//! An error is short and rare, so it is read whole; what is kept of it is bounded.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{envelope, kind};

/// An error longer than this is not read, in bytes.
const LONGEST: usize = 128 << 10;
/// What is kept of a message, in bytes.
const MESSAGE: usize = 4 << 10;
/// What is kept of a word for programs, in bytes.
const WORD: usize = 200;
/// The longest plain text that is taken for a message, in bytes.
const PLAIN: usize = 1 << 10;
/// Of a list, no more is read than this.
const LIST: usize = 8;

/// What an error says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// For a person. At most 4 KiB.
    pub message: Option<String>,
    /// Its `type`, or what stands for one.
    pub kind: Option<String>,
    /// The member of the request it is about.
    pub param: Option<String>,
    /// Its `code`; a number is written out.
    pub code: Option<String>,
    /// Further words for programs: reasons, and the names of quotas.
    pub marks: Vec<String>,
    /// The status it names: 400 to 599.
    pub status: Option<StatusCode>,
    /// How long to wait, as it is written: `34s`, or a number of seconds.
    pub wait: Option<String>,
    /// It says why the request itself was flagged.
    pub is_moderated: bool,
    /// It already is in OpenAI's envelope: an object with an object `error` that has a `message`.
    pub in_envelope: bool,
}

impl ErrorBody {
    /// Its words for programs, the most telling first.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let own = self.code.iter().chain(&self.kind);
        own.chain(&self.marks).map(String::as_str)
    }

    /// In OpenAI's envelope. None if it has nothing to say to a person.
    pub fn body(&self, status: StatusCode) -> Option<Bytes> {
        let message = self.message.as_deref()?;
        let kind = self.kind.as_deref().unwrap_or(kind(status, ""));
        let (param, code) = (self.param.as_deref(), self.code.as_deref());
        Some(envelope(message, kind, param, code))
    }
}

/// Reads an error. None if there is nothing in it to be read.
pub(super) fn read(body: &[u8]) -> Option<ErrorBody> {
    let body = body.trim_ascii();
    if body.is_empty() || body.len() > LONGEST {
        return None;
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::String(text)) => said(&text),
        // Gemini's OpenAI interface: a list of one.
        Ok(Value::Array(list)) => wrapped(list.first()?),
        Ok(value) => object(&value),
        Err(_) => plain(body),
    }
}

/// Short text that is no markup: a proxy's page helps nobody, and half an object is none. The one event of a stream that
/// never was one is read by its data.
fn plain(body: &[u8]) -> Option<ErrorBody> {
    let text = std::str::from_utf8(body).ok()?;
    let mut lines = text.lines();
    // Only where it begins so: further in it may be a prompt that is said back.
    let fields = ["data:", "event:", "error:", ":"];
    if fields.iter().any(|field| text.starts_with(field)) {
        let data = lines.find_map(|line| line.strip_prefix("data:"))?;
        return wrapped(&serde_json::from_str(data).ok()?);
    }
    if text.len() > PLAIN {
        return None;
    }
    let is_text = !text.starts_with(['{', '[', '"', '<'])
        && !text.contains("</")
        && !text.chars().any(|c| c.is_control() && !c.is_whitespace());
    is_text.then(|| said(text)).flatten()
}

/// An object with something around it: even if it is an envelope, the body is none.
fn wrapped(object: &Value) -> Option<ErrorBody> {
    self::object(object).map(|error| ErrorBody {
        in_envelope: false,
        ..error
    })
}

fn said(text: &str) -> Option<ErrorBody> {
    let message = Some(shortened(text, MESSAGE)).filter(|text| !text.is_empty());
    message.is_some().then(|| ErrorBody {
        message,
        ..ErrorBody::default()
    })
}

/// The error may be the object itself (Mistral, Cohere, `FastAPI`), or stand somewhere within.
fn object(outer: &Value) -> Option<ErrorBody> {
    outer.as_object()?;
    let inner = within(outer).unwrap_or(outer);
    // xAI has its code beside the error, which is a text.
    let of = |name: &str| {
        inner
            .get(name)
            .or_else(|| outer.get(name))
            .filter(|v| says(v))
    };
    let told = |name: &str| of(name).and_then(word);
    let message = inner
        .as_str()
        .map(|text| shortened(text, MESSAGE))
        .or_else(|| sentence(inner.get("message")?, 0))
        .or_else(|| sentence(of("message").or_else(|| of("detail"))?, 0))
        .filter(|text| !text.is_empty());
    // Of a response it says no more than that there is an error.
    let state = || told("status").filter(|state| !is_number(state) && state != "failed");
    let numbers = ["code", "status", "statusCode"].map(of);
    let error = ErrorBody {
        message,
        kind: told("type").filter(|kind| !is_event(kind)).or_else(state),
        param: told("param").or_else(|| place(outer)),
        code: told("code"),
        marks: marks(inner),
        status: numbers.into_iter().flatten().find_map(status),
        wait: wait(inner),
        is_moderated: ["/metadata/reasons", "/metadata/flagged_input"]
            .iter()
            .any(|path| inner.pointer(path).is_some_and(says)),
        in_envelope: outer
            .pointer("/error/message")
            .is_some_and(Value::is_string),
    };
    let is_silent = error.message.is_none() && error.words().next().is_none();
    (!is_silent).then_some(error)
}

/// Whether a type is no more than the name of an event: Anthropic's envelope and OpenAI's have it so.
fn is_event(kind: &str) -> bool {
    kind == "error" || kind.starts_with("response.")
}

/// Where the error stands in an object: in `error`, and in an event of a stream also in a response, in Groq's own member or
/// in a choice.
fn within(outer: &Value) -> Option<&Value> {
    let of_choice = || {
        let choices = outer.get("choices")?.as_array()?;
        let mut errors = choices.iter().filter_map(|choice| choice.get("error"));
        errors.find(|error| says(error))
    };
    let places = [
        outer.get("error"),
        outer.pointer("/response/error"),
        outer.pointer("/x_groq/error"),
        of_choice(),
    ];
    let mut places = places.into_iter().flatten();
    places.find(|error| says(error) && !error.is_boolean())
}

fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_so) => *is_so,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Number(_) => true,
    }
}

/// A word for programs: what is longer or has parts is none.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(shortened(text, WORD)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

fn status(value: &Value) -> Option<StatusCode> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let number = number.and_then(|number| u16::try_from(number).ok())?;
    let status = StatusCode::from_u16(number).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

/// One sentence: of a text, of each of a list, of an object by its message and its place (`FastAPI`, Mistral).
fn sentence(value: &Value, depth: usize) -> Option<String> {
    if depth > 3 {
        return None;
    }
    let whole = match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let each = list
                .iter()
                .take(LIST)
                .filter_map(|v| sentence(v, depth + 1));
            each.collect::<Vec<_>>().join("; ")
        }
        Value::Object(_) => {
            let names = ["msg", "message", "detail"];
            let said = names.iter().find_map(|name| value.get(name))?;
            let said = sentence(said, depth + 1)?;
            match value.get("loc").and_then(Value::as_array) {
                Some(loc) => {
                    let at = loc.iter().take(LIST).filter_map(word);
                    format!("{said} ({})", at.collect::<Vec<_>>().join("."))
                }
                None => said,
            }
        }
        _ => return None,
    };
    Some(shortened(&whole, MESSAGE)).filter(|text| !text.is_empty())
}

/// The member that the first of a list of details is about: the last step of its `loc`.
fn place(outer: &Value) -> Option<String> {
    let details = ["/detail/0/loc", "/message/detail/0/loc", "/message/0/loc"];
    let loc = details.iter().find_map(|path| outer.pointer(path))?;
    loc.as_array()?.last().and_then(word)
}

/// What else it says to programs: Google's `details`, Anthropic's, OpenRouter's `metadata`, Azure's `innererror`.
fn marks(inner: &Value) -> Vec<String> {
    let single = [
        "/error_code",
        "/details/error_code",
        "/metadata/error_type",
        "/innererror/code",
    ];
    let single = single.iter().filter_map(|path| inner.pointer(path));
    let details = list(inner.get("details"));
    let reasons = details.iter().filter_map(|detail| detail.get("reason"));
    let broken = details
        .iter()
        .flat_map(|detail| list(detail.get("violations")));
    let quotas = broken.filter_map(|violation| violation.get("quotaId"));
    single
        .chain(reasons)
        .chain(quotas)
        .filter_map(word)
        .take(2 * LIST)
        .collect()
}

/// How long to wait: Google's `RetryInfo`, OpenRouter's `availability`.
fn wait(inner: &Value) -> Option<String> {
    let delays = list(inner.get("details")).iter();
    let mut delays = delays.filter_map(|detail| detail.get("retryDelay"));
    let paths = [
        "/metadata/availability/retry_after",
        "/availability/retry_after",
    ];
    let told = || paths.iter().find_map(|path| inner.pointer(path));
    delays.next().or_else(told).and_then(word)
}

fn list(value: Option<&Value>) -> &[Value] {
    let list = value.and_then(Value::as_array).map(Vec::as_slice);
    list.map_or(&[], |list| list.get(..LIST).unwrap_or(list))
}

/// The start of a text, cut between two characters.
fn shortened(text: &str, most: usize) -> String {
    let text = text.trim();
    let end = text.floor_char_boundary(most);
    text.get(..end).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `message | type | param | code | status`, with `-` for what is not there.
    fn told(body: &str) -> String {
        let Some(error) = read(body.as_bytes()) else {
            return "nothing".to_owned();
        };
        let status = error.status.map(|status| status.as_str().to_owned());
        let parts = [error.message, error.kind, error.param, error.code, status];
        parts.map(|part| part.unwrap_or("-".into())).join(" | ")
    }

    /// Each shape of an error there is, and what it says.
    const SHAPES: &[(&str, &str)] = &[
        // OpenAI, Azure, Groq, DeepSeek, Fireworks.
        (
            r#"{"error":{"message":"m","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#,
            "m | invalid_request_error | max_tokens | unsupported_parameter | -",
        ),
        // OpenRouter, llama.cpp, vLLM: the code is a number.
        (
            r#"{"error":{"code":429,"message":"m","metadata":{"raw":"r"}}}"#,
            "m | - | - | 429 | 429",
        ),
        (
            r#"{"error":{"code":"429","message":"m"}}"#,
            "m | - | - | 429 | 429",
        ),
        (
            r#"{"error":{"code":200,"message":"m"}}"#,
            "m | - | - | 200 | -",
        ),
        (
            r#"{"error":{"code":null,"type":null,"message":"m","param":[]}}"#,
            "m | - | - | - | -",
        ),
        (
            r#"{"error":{"code":{"a":1},"type":["x"],"message":"m"}}"#,
            "m | - | - | - | -",
        ),
        // Anthropic.
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#,
            "Overloaded | overloaded_error | - | - | -",
        ),
        // Gemini's OpenAI interface, and Gemini.
        (
            r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#,
            "m | INVALID_ARGUMENT | - | 400 | 400",
        ),
        (
            r#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#,
            "m | UNAVAILABLE | - | 503 | 503",
        ),
        // Ollama, LM Studio, Language Pipes; xAI.
        (
            r#"{"error":"no pipe available"}"#,
            "no pipe available | - | - | - | -",
        ),
        (
            r#"{"code":"Client specified an invalid argument","error":"m"}"#,
            "m | - | - | Client specified an invalid argument | -",
        ),
        (r#"{"error":true,"message":"m"}"#, "m | - | - | - | -"),
        // Mistral and older vLLM; then newer Mistral, whose message may be anything.
        (
            r#"{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}"#,
            "m | BadRequestError | - | 400 | 400",
        ),
        (
            r#"{"object":"error","message":{"detail":[{"loc":["body","messages",0,"role"],"msg":"Field required","type":"missing"}]},"type":"invalid_request_error","code":3051}"#,
            "Field required (body.messages.0.role) | invalid_request_error | role | 3051 | -",
        ),
        (
            r#"{"object":"Error","message":["a","b"],"detail":[],"type":"t","code":3001}"#,
            "a; b | t | - | 3001 | -",
        ),
        // FastAPI: Speaches, text-generation-webui.
        (r#"{"detail":"Not Found"}"#, "Not Found | - | - | - | -"),
        (
            r#"{"detail":[{"loc":["body","n"],"msg":"too large","type":"t"},{"loc":["body","stop"],"msg":"no list","type":"t"}]}"#,
            "too large (body.n); no list (body.stop) | - | n | - | -",
        ),
        // Cohere, Mistral's 401, a gateway of Azure's.
        (
            r#"{"message":"invalid api token"}"#,
            "invalid api token | - | - | - | -",
        ),
        (r#"{"statusCode":401,"message":"m"}"#, "m | - | - | - | 401"),
        // Within a stream.
        (
            r#"{"id":"c","choices":[],"x_groq":{"id":"r","error":"m"}}"#,
            "m | - | - | - | -",
        ),
        (
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error","error":{"code":502,"message":"m"}}]}"#,
            "m | - | - | 502 | 502",
        ),
        // OpenAI's responses: an event of its own, a response that has failed, and as others put it.
        (
            r#"{"type":"error","code":"rate_limit_exceeded","message":"m","param":null,"sequence_number":3}"#,
            "m | - | - | rate_limit_exceeded | -",
        ),
        (
            r#"{"type":"error","code":null,"message":"m","param":"input","sequence_number":3}"#,
            "m | - | input | - | -",
        ),
        (
            r#"{"type":"error","sequence_number":3,"error":{"type":"invalid_request_error","code":"context_length_exceeded","message":"m","param":"input"}}"#,
            "m | invalid_request_error | input | context_length_exceeded | -",
        ),
        (
            r#"{"type":"response.failed","sequence_number":3,"response":{"id":"resp_1","status":"failed","error":{"code":"server_error","message":"m"}}}"#,
            "m | - | - | server_error | -",
        ),
        (
            r#"{"id":"resp_1","object":"response","status":"failed","error":{"code":"rate_limit_exceeded","message":"m"},"output":[]}"#,
            "m | - | - | rate_limit_exceeded | -",
        ),
        (
            r#"{"code":500,"message":"m","type":"server_error"}"#,
            "m | server_error | - | 500 | 500",
        ),
        // Text.
        (r#""m""#, "m | - | - | - | -"),
        ("Model not found\n", "Model not found | - | - | - | -"),
        (
            "event: error\ndata: {\"error\":{\"message\":\"m\",\"code\":400}}\n\n",
            "m | - | - | 400 | 400",
        ),
        ("data: x", "nothing"),
        // Nothing that helps anybody.
        ("<html><h1>404</h1></html>", "nothing"),
        ("Oops <b>bad</b>", "nothing"),
        ("", "nothing"),
        ("{", "nothing"),
        ("{}", "nothing"),
        ("[]", "nothing"),
        ("[1]", "nothing"),
        ("null", "nothing"),
        ("7", "nothing"),
        (r#"{"error":null}"#, "nothing"),
        (r#"{"error":{}}"#, "nothing"),
        (r#"{"error":{"message":"\ud800"}}"#, "nothing"),
        ("a\u{1}b", "nothing"),
    ];

    #[test]
    fn every_shape_of_an_error_is_read() {
        for (body, want) in SHAPES {
            assert_eq!(told(body), *want, "{body}");
        }
        assert_eq!(read(b"\xff\xfe"), None);
        assert_eq!(read(&[b'x'; PLAIN + 1]), None);
    }

    #[test]
    fn what_is_in_the_envelope_already_is_known() {
        let is_in = |body: &str| read(body.as_bytes()).is_some_and(|error| error.in_envelope);
        assert!(is_in(r#"{"error":{"message":"m"}}"#));
        assert!(is_in(
            r#"{"user_id":"u","error":{"code":404,"message":"m"}}"#
        ));
        for other in [
            r#"[{"error":{"message":"m"}}]"#,
            "data: {\"error\":{\"message\":\"m\"}}\n\n",
            r#"{"error":"m"}"#,
            r#"{"error":{"message":["m"]}}"#,
            r#"{"message":"m"}"#,
            r#"{"choices":[{"error":{"message":"m"}}]}"#,
        ] {
            assert!(!is_in(other), "{other}");
        }
    }

    #[test]
    fn what_is_meant_for_programs_is_found() {
        let error = read(
            br#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[
                {"violations":[{"quotaId":"GenerateRequestsPerDayPerProject"}]},{"reason":"R"},{"retryDelay":"34s"}]}}]"#,
        )
        .unwrap();
        let words: Vec<&str> = error.words().collect();
        let quota = "GenerateRequestsPerDayPerProject";
        assert_eq!(words, ["429", "RESOURCE_EXHAUSTED", "R", quota]);
        assert_eq!(error.wait.as_deref(), Some("34s"));
        let waits = br#"{"error":{"message":"m","metadata":{"availability":{"retry_after":7.5}}}}"#;
        assert_eq!(read(waits).unwrap().wait.as_deref(), Some("7.5"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "\u{e9}".repeat(30_000);
        let body = format!(r#"{{"error":{{"message":"{long}","code":"{long}","type":"{long}"}}}}"#);
        let error = read(body.as_bytes()).unwrap_or_default();
        // The whole is longer than is read at all.
        assert_eq!(error, ErrorBody::default());
        let long = "\u{e9}".repeat(10_000);
        let list = format!(r#"{{"loc":["{long}"],"msg":"{long}"}},"#).repeat(2);
        let body = format!(r#"{{"detail":[{list}1],"code":"{long}"}}"#);
        let error = read(body.as_bytes()).unwrap();
        assert!(error.message.unwrap().len() <= MESSAGE && error.code.unwrap().len() <= WORD);
        let deep = format!(r#"{{"message":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
        assert_eq!(read(deep.as_bytes()), None);
    }

    proptest! {
        /// Whatever a provider says, what is kept of it has a bound, and is JSON when it is written.
        #[test]
        fn nothing_is_kept_without_bound(body in "[\\[\\]{}\":,a-c0-9 \\\\]{0,40}|\\PC{0,2000}", times in 1_usize..50) {
            let body = format!(r#"{{"error":{{"message":[{}],"code":"x"}}}}"#, vec![body.as_str(); times].join(","));
            for text in [body.as_str(), &body[9..body.len() - 1]] {
                let Some(error) = read(text.as_bytes()) else { continue };
                let length: usize = error.words().map(str::len).sum();
                prop_assert!(error.message.as_ref().is_none_or(|text| text.len() <= MESSAGE));
                prop_assert!(length <= (2 + 2 * LIST) * WORD);
                if let Some(body) = error.body(StatusCode::BAD_REQUEST) {
                    prop_assert!(serde_json::from_slice::<Value>(&body).is_ok());
                }
            }
        }
    }

    #[test]
    fn an_error_is_written_in_the_clients_envelope() {
        let written = |body: &str| {
            let error = read(body.as_bytes()).unwrap();
            let body = error.body(StatusCode::UNPROCESSABLE_ENTITY).unwrap();
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        let want = serde_json::json!({"error":{"message":"m (body.n)","type":"invalid_request_error","param":"n","code":null}});
        assert_eq!(
            written(r#"{"detail":[{"loc":["body","n"],"msg":"m"}]}"#),
            want
        );
        let want =
            serde_json::json!({"error":{"message":"m","type":"t","param":null,"code":"3051"}});
        assert_eq!(
            written(r#"{"object":"error","message":"m","type":"t","code":3051}"#),
            want
        );
        assert_eq!(
            read(br#"{"error":{"code":500}}"#)
                .unwrap()
                .body(StatusCode::BAD_GATEWAY),
            None
        );
    }
}
