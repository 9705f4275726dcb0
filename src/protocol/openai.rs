//! OpenAI's own format: chat completions, completions, embeddings.
//!
//! <https://platform.openai.com/docs/api-reference>. Usage is told in `usage`: in a stream only on request
//! (`stream_options.include_usage`), in one more event with empty `choices`, before `[DONE]`.

use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use super::demand::limits;
use super::skim::Skim;
use super::stream::{Eye, Stream};
use super::tokens;
use super::typed;
use super::voices;
use super::{
    Decoder, Ended, Ending, Endpoint, ErrorBody, MOST_MODELS, Progress, Protocol, Reading, Skimmer,
    Voice, error,
};
use crate::envelope::Edits;
use crate::usage::{Decimal, Usage};

/// The format itself.
#[derive(Debug)]
pub struct OpenAi;

impl Protocol for OpenAi {
    fn path(&self, endpoint: Endpoint) -> &'static str {
        endpoint.path()
    }

    fn ask_for_usage(&self, edits: &mut Edits<'_>) -> bool {
        #[derive(Deserialize)]
        struct Options {
            include_usage: Option<bool>,
        }
        let given = match edits.get("stream_options") {
            None | Some(b"null") => None,
            Some(options) => Some(serde_json::from_slice::<Options>(options)),
        };
        match given {
            Some(Ok(Options {
                include_usage: Some(true),
            })) => false,
            // What is no object is the provider's to refuse; an object with a member twice may be read in two ways.
            Some(Err(_))
                if !edits
                    .get("stream_options")
                    .is_some_and(|o| o.starts_with(b"{")) =>
            {
                false
            }
            Some(Ok(_)) => edits.set_within("stream_options", "include_usage", b"true"),
            None | Some(Err(_)) => {
                let options = Bytes::from_static(br#"{"include_usage":true}"#);
                edits.set("stream_options", options);
                true
            }
        }
    }

    fn limit_output(&self, endpoint: Endpoint, edits: &mut Edits<'_>, most: u64) {
        let is_within = |value: &[u8]| {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let limit = Decimal::parse(text, 0).ok().and_then(Decimal::exact);
            limit.is_some_and(|limit| (1..=most).contains(&limit))
        };
        let limit = || Bytes::from(most.to_string());
        let mut is_limited = false;
        let names = limits(endpoint);
        for &name in names {
            let given = edits.get(name).map(is_within);
            is_limited |= given.is_some();
            if given == Some(false) {
                edits.set(name, limit());
            }
        }
        if !is_limited && let Some(name) = names.first() {
            edits.set(name, limit());
        }
    }

    fn decoder(&self, endpoint: Endpoint, ends: Ending) -> Box<dyn Decoder> {
        match endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => {
                Box::new(Stream::new(Chat::new(ends)))
            }
            _ => typed::decoder(),
        }
    }

    fn read(&self, endpoint: Endpoint, body: &[u8]) -> Option<Reading> {
        let mut skim = Skim::of(endpoint);
        skim.feed(body);
        // The word first: in a text its quotes would be escaped.
        let says = |word: &Finder<'_>| word.find(body).is_some();
        // Nobody but a response has a status that says so.
        let is_error = (says(&WORDS.error)
            || (endpoint == Endpoint::Responses && says(&WORDS.failed)))
            && match serde_json::from_slice::<Chunk<'_>>(body) {
                Ok(chunk) => chunk.is_error(),
                // What speaks of an error and cannot be read in one way, for a member twice, is no answer.
                Err(_) => skim.is_complete() || is_error_list(body),
            };
        // What pictures would have been like says of no error that it took something.
        let has_taken = |usage: &Usage| {
            *usage
                != Usage {
                    look: usage.look,
                    ..Usage::default()
                }
        };
        (is_error || skim.is_complete()).then(|| Reading {
            usage: skim.usage().filter(|usage| !is_error || has_taken(usage)),
            response_id: skim.response_id().map(Box::from),
            is_error,
        })
    }

    /// `{"data": [{"id": …}]}`; Together leaves the object out.
    fn models(&self, body: &[u8]) -> Option<Vec<Box<str>>> {
        #[derive(Deserialize)]
        struct Entry {
            id: Box<str>,
        }
        #[derive(Deserialize)]
        struct List {
            data: Vec<Entry>,
        }
        let entries: Vec<Entry> = match body.trim_ascii_start().first()? {
            b'[' => serde_json::from_slice(body).ok()?,
            _ => serde_json::from_slice::<List>(body).ok()?.data,
        };
        let names = entries.into_iter().map(|entry| entry.id);
        Some(names.take(MOST_MODELS).collect())
    }

    fn voices(&self, body: &[u8]) -> Option<Vec<Voice>> {
        voices::read(body)
    }

    fn error(&self, body: &[u8]) -> Option<ErrorBody> {
        error::read(body)
    }

    fn skimmer(&self, endpoint: Endpoint) -> Box<dyn Skimmer> {
        Box::new(Skim::of(endpoint))
    }
}

/// The word that every error has somewhere: as a name, or as what an object or a finish reason is.
const ERROR: &str = "\"error\"";

/// What the status of a response is that has failed.
const FAILED: &str = "\"failed\"";

/// The words that are looked for before anything is read: to make one ready takes as long as to look through a KiB.
pub(super) static WORDS: LazyLock<Words> = LazyLock::new(|| Words {
    usage: Finder::new("\"usage\""),
    error: Finder::new(ERROR),
    failed: Finder::new(FAILED),
    finish: Finder::new("\"finish_reason\""),
    texts: ["content\":\"", "text\":\"", "arguments\":\""].map(Finder::new),
});

pub(super) struct Words {
    usage: Finder<'static>,
    pub(super) error: Finder<'static>,
    failed: Finder<'static>,
    finish: Finder<'static>,
    texts: [Finder<'static>; 3],
}

/// Whether an event has a text that is not empty, in what models say: then it is a token at least. Quotes within a text
/// are escaped, so none can look like this; a provider that puts a space after its colons is not seen, which is only ever
/// too few.
fn says_something(data: &[u8]) -> bool {
    WORDS.texts.iter().any(|start| {
        let text = start.find(data).map(|at| at + start.needle().len());
        text.is_some_and(|at| data.get(at) != Some(&b'"'))
    })
}

/// Whether an `error` says that there is one.
pub(super) fn says_error(error: Option<&RawValue>) -> bool {
    error.is_some_and(|error| !matches!(error.get(), "null" | "false" | "\"\"" | "{}"))
}

/// What matters of one event of an answer.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// Older vLLM and Mistral: `"error"`.
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    /// A whole response's: it may have failed after its success was said. One that is incomplete is an answer.
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    /// Groq's own, which may hold usage and errors too.
    #[serde(borrow)]
    x_groq: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Groq<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// What tells that a choice has failed: OpenRouter puts an error here, and others no more than a finish reason.
#[derive(Deserialize)]
struct Failed<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

/// Whether it is a list that begins with an error: Gemini's OpenAI interface puts its errors in one.
fn is_error_list(data: &[u8]) -> bool {
    data.trim_ascii_start().starts_with(b"[")
        && serde_json::from_slice::<Vec<Chunk<'_>>>(data)
            .is_ok_and(|list| list.first().is_some_and(Chunk::is_error))
}

impl Chunk<'_> {
    fn groq(&self) -> Option<Groq<'_>> {
        serde_json::from_str(self.x_groq?.get()).ok()
    }

    fn usage(&self) -> Option<Usage> {
        let told = self.usage.and_then(tokens::usage);
        told.or_else(|| tokens::usage(self.groq()?.usage?))
    }

    /// Whether it has a usage, whatever that says.
    fn tells_usage(&self) -> bool {
        self.usage.is_some() || self.groq().is_some_and(|groq| groq.usage.is_some())
    }

    fn is_error(&self) -> bool {
        self.is_heard()
            || self.object.is_some_and(|object| object.get() == ERROR)
            || self.status.is_some_and(|status| status.get() == FAILED)
            || self.groq().is_some_and(|groq| says_error(groq.error))
            || self.has_failed_choice()
    }

    fn has_failed_choice(&self) -> bool {
        let choices = self
            .choices
            .and_then(|raw| serde_json::from_str::<Vec<Failed<'_>>>(raw.get()).ok());
        choices.unwrap_or_default().iter().any(|choice| {
            says_error(choice.error)
                || choice
                    .finish_reason
                    .is_some_and(|reason| reason.get() == ERROR)
        })
    }

    /// Whether a client will know it for an error: it looks at `error` and at nothing else.
    fn is_heard(&self) -> bool {
        says_error(self.error)
    }

    /// Whether it says nothing of any choice, as the event that was asked for to tell the usage does.
    fn is_bare(&self) -> bool {
        self.choices.is_none_or(|choices| {
            choices
                .get()
                .bytes()
                .filter(|b| !b.is_ascii_whitespace())
                .eq(*b"[]")
        })
    }

    fn choices(&self) -> Vec<Choice> {
        let choices = self
            .choices
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        choices.unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    text: Delta,
    /// An empty one is none: some servers write it on every event.
    #[serde(default)]
    finish_reason: Delta,
}

/// Whether a choice's `delta` (or `text`) says anything: a role alone does not, reasoning and tool calls do.
#[derive(Default)]
struct Delta(bool);

impl<'de> Deserialize<'de> for Delta {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Says;
        impl<'de> Visitor<'de> for Says {
            type Value = Delta;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta")
            }
            fn visit_unit<E>(self) -> Result<Delta, E> {
                Ok(Delta(false))
            }
            fn visit_str<E>(self, text: &str) -> Result<Delta, E> {
                Ok(Delta(!text.is_empty()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Delta, A::Error> {
                let mut says = false;
                while let Some((name, value)) = map.next_entry::<Cow<'_, str>, &RawValue>()? {
                    let empty = matches!(value.get(), "null" | "\"\"" | "[]" | "{}");
                    says |= name != "role" && !empty;
                }
                Ok(Delta(says))
            }
        }
        d.deserialize_any(Says)
    }
}

/// Looks at the events of chats and completions, as little as possible: the word it looks for first, the whole event only
/// if the word is there.
pub(super) struct Chat {
    ends: Ending,
    pub(super) progress: Progress,
    finish_reason: bool,
    /// What an error said that came before any content. It is rare, and need have no room in every stream.
    said: Option<Box<ErrorBody>>,
}

impl Eye for Chat {
    fn look(&mut self, data: &[u8], is_error: bool) -> bool {
        if data.starts_with(b"[DONE]") {
            self.progress.end.get_or_insert(Ended::Complete);
            return false;
        }
        if is_error {
            let chunk = serde_json::from_slice::<Chunk<'_>>(data);
            self.fail(data, chunk.is_ok_and(|chunk| chunk.is_heard()));
            return false;
        }
        self.progress.said += u64::from(says_something(data));
        let usage = WORDS.usage.find(data).is_some();
        let error = WORDS.error.find(data).is_some();
        let finish = !self.ends.marker && WORDS.finish.find(data).is_some();
        if self.progress.content && !usage && !error && !finish {
            return false;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            if error && is_error_list(data) {
                self.fail(data, false);
            }
            return false;
        };
        let told = if usage { chunk.usage() } else { None };
        self.progress.usage = told.or(self.progress.usage);
        if error && chunk.is_error() {
            self.fail(data, chunk.is_heard());
            return false;
        }
        self.progress.begun = true;
        let choices = match self.progress.content && !finish && !usage {
            true => Vec::new(),
            false => chunk.choices(),
        };
        if told.is_some() {
            let has_finish = choices.iter().any(|choice| choice.finish_reason.0);
            self.progress.told_all = has_finish || chunk.is_bare();
        }
        for choice in &choices {
            self.finish_reason |= choice.finish_reason.0;
            self.progress.content |= choice.delta.0 || choice.text.0 || choice.finish_reason.0;
        }
        // Also one that tells nothing, as a server that does not count writes it: it is there because we asked.
        usage && self.ends.hide_usage && chunk.tells_usage() && chunk.is_bare()
    }

    fn close(&mut self, _: bool) {
        if !self.ends.marker && self.finish_reason {
            self.progress.end.get_or_insert(Ended::Complete);
        }
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn error(&mut self) -> Option<ErrorBody> {
        self.said.take().map(|said| *said)
    }
}

impl Chat {
    pub(super) fn new(ends: Ending) -> Self {
        Self {
            ends,
            progress: Progress::default(),
            finish_reason: false,
            said: None,
        }
    }

    /// The stream ends with an error, which clients hear or do not.
    pub(super) fn fail(&mut self, data: &[u8], heard: bool) {
        if self.progress.end.is_none() && !self.progress.content {
            self.said = error::read(data).map(Box::new);
        }
        self.progress.end.get_or_insert(Ended::Error { heard });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tests::{COUNTED, USAGE};
    use super::super::{MAX_EVENT, Pieces, TooLong};
    use super::*;

    const CHAT: Endpoint = Endpoint::ChatCompletions;
    use crate::envelope::Envelope;
    use proptest::prelude::*;

    fn stream(newline: &str) -> String {
        [
            r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
            r": ping",
            r#"data: {"choices":[{"index":0,"delta":{"content":"Hé \"usage\":{\"prompt_tokens\":999}"},"finish_reason":null}],"usage":null}"#,
            r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
            &format!(r#"data: {{"choices":[],"usage":{USAGE}}}"#),
            "data: [DONE]",
        ]
        .map(|line| format!("{line}{newline}{newline}"))
        .concat()
    }

    fn decode(pieces: &[&[u8]], ends: Ending) -> (Vec<u8>, Progress) {
        let mut decoder = OpenAi.decoder(CHAT, ends);
        let mut out = Pieces::new();
        for piece in pieces {
            decoder
                .feed(Bytes::copy_from_slice(piece), &mut out)
                .unwrap();
        }
        decoder.finish(&mut out);
        (out.concat(), *decoder.progress())
    }

    const SHOWN: Ending = Ending {
        marker: true,
        hide_usage: false,
    };
    const HIDDEN: Ending = Ending {
        marker: true,
        hide_usage: true,
    };

    #[test]
    fn bytes_pass_and_usage_is_read_however_they_are_cut() {
        for newline in ["\n", "\r\n", "\r"] {
            let text = stream(newline);
            let bytes = text.as_bytes();
            let without: String = text
                .split_inclusive(&format!("{newline}{newline}"))
                .filter(|event| !event.contains("\"choices\":[]"))
                .collect();
            for (ends, want) in [(SHOWN, text.as_str()), (HIDDEN, without.as_str())] {
                for i in 0..=bytes.len() {
                    let (out, progress) = decode(&[&bytes[..i], &bytes[i..]], ends);
                    assert_eq!(String::from_utf8(out).unwrap(), want, "cut at {i}");
                    assert_eq!(progress.usage, Some(COUNTED), "cut at {i}");
                    assert_eq!(progress.end, Some(Ended::Complete), "cut at {i}");
                    assert!(progress.content);
                }
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                assert_eq!(decode(&single, ends).0, want.as_bytes());
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_not_complete_and_ends_between_events() {
        let text = stream("\n");
        let bytes = text.as_bytes();
        let done = text.find("data: [DONE]").unwrap() + "data: [DONE]".len();
        for i in 0..done {
            let (out, progress) = decode(&[&bytes[..i]], SHOWN);
            assert_eq!(progress.end, None, "cut at {i}");
            let between = out.is_empty() || out.ends_with(b"\n\n") || out.ends_with(b": ping\n");
            assert!(between, "cut at {i}");
            assert!(bytes.starts_with(&out));
        }
        let (out, progress) = decode(&[&bytes[..done]], SHOWN);
        assert_eq!(
            (out, progress.end),
            (bytes[..done].to_vec(), Some(Ended::Complete))
        );
    }

    #[test]
    fn a_stream_without_a_marker_ends_with_its_finish_reason() {
        let ends = Ending {
            marker: false,
            hide_usage: false,
        };
        let text = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\n";
        assert_eq!(
            decode(&[text.as_bytes()], ends).1.end,
            Some(Ended::Complete)
        );
        assert_eq!(decode(&[text.as_bytes()], SHOWN).1.end, None);
        assert_eq!(decode(&[&text.as_bytes()[..60]], ends).1.end, None);
    }

    #[test]
    fn errors_end_a_stream() {
        let heard = [
            "data: {\"error\":{\"message\":\"x\"}}\n\n",
            "data: {\"id\":1,\"choices\":[],\"error\":\"x\"}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}],\"error\":{\"code\":502}}\n\n",
            "event: error\ndata: {\"error\":\"x\"}\n\n",
        ];
        let unheard = [
            "error: {\"code\":500}\n\n",
            "event: error\ndata: {}\n\n",
            "data: {\"object\":\"error\",\"message\":\"x\"}\n\n",
            "data: {\"choices\":[],\"x_groq\":{\"error\":\"x\"}}\n\n",
            "data: {\"choices\":[{\"index\":0,\"error\":{\"code\":502}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
            "data: [{\"error\":{\"code\":429}}]\n\n",
        ];
        let all = heard.map(|error| (error, true)).into_iter();
        for (error, heard) in all.chain(unheard.map(|error| (error, false))) {
            let text = format!("{error}data: [DONE]\n\n");
            let end = Some(Ended::Error { heard });
            assert_eq!(decode(&[text.as_bytes()], SHOWN).1.end, end, "{error}");
        }
        let fine = "data: {\"choices\":[],\"error\":null}\n\ndata: [DONE]\n\n";
        assert_eq!(
            decode(&[fine.as_bytes()], SHOWN).1.end,
            Some(Ended::Complete)
        );
    }

    #[test]
    fn what_an_error_says_is_kept_if_it_comes_before_any_content() {
        let said = |text: &str| {
            let mut decoder = OpenAi.decoder(CHAT, SHOWN);
            let mut out = Pieces::new();
            let text = Bytes::copy_from_slice(text.as_bytes());
            decoder.feed(text, &mut out).unwrap();
            decoder.finish(&mut out);
            decoder.error().and_then(|error| error.message)
        };
        for event in [
            "data: {\"error\":{\"message\":\"m\"}}\n\n",
            "event: error\ndata: {\"message\":\"m\"}\n\n",
            "error: {\"code\":500,\"message\":\"m\"}\n\n",
            "data: {\"object\":\"error\",\"message\":\"m\"}\n\n",
            "data: {\"choices\":[],\"x_groq\":{\"error\":\"m\"}}\n\n",
            "data: {\"choices\":[{\"error\":{\"message\":\"m\"}}]}\n\n",
            "data: [{\"error\":{\"message\":\"m\"}}]\n\n",
            "data: {\"error\":\"m\"}",
        ] {
            assert_eq!(said(event).as_deref(), Some("m"), "{event}");
            let after = format!("data: {{\"choices\":[{{\"text\":\"a\"}}]}}\n\n{event}");
            assert_eq!(said(&after), None, "{after}");
        }
    }

    #[test]
    fn usage_is_read_wherever_a_stream_has_it_and_the_last_one_counts() {
        let content = |more: &str| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]{more}}}\n\n")
        };
        let bare = |more: &str| format!("data: {{\"choices\":[]{more}}}\n\n");
        let usage = format!(",\"usage\":{USAGE}");
        let groq = format!(",\"x_groq\":{{\"id\":\"r\",\"usage\":{USAGE}}}");
        let early = ",\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":1}";
        let zeros = ",\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}";
        let done = "data: [DONE]\n\n".to_owned();
        for (events, hidden) in [
            // OpenAI and most others: in an event of its own.
            (vec![content(""), bare(&usage), done.clone()], Some(1)),
            // vLLM's continuous usage, and xAI: on every event; the last one counts.
            (vec![content(early), content(&usage), done.clone()], None),
            (
                vec![content(early), content(early), bare(&usage), done.clone()],
                Some(2),
            ),
            // Fireworks, Mistral, OpenRouter's older form: with the finish reason.
            (
                vec![
                    content(",\"usage\":null"),
                    format!("data: {{\"choices\":[{{\"finish_reason\":\"stop\"}}]{usage}}}\n\n"),
                    done.clone(),
                ],
                None,
            ),
            // Groq: in its own member, and beside it.
            (vec![content(""), content(&groq), done.clone()], None),
            (vec![content(""), bare(&groq), done.clone()], Some(1)),
            (vec![content(&groq), bare(&usage), done.clone()], Some(1)),
            // Who tells it and then writes zeros or nothing has told it.
            (vec![content(&usage), bare(zeros), done.clone()], Some(1)),
            (
                vec![content(&usage), bare(",\"usage\":{}"), done.clone()],
                Some(1),
            ),
            (
                vec![content(&usage), bare(",\"usage\":null"), done.clone()],
                None,
            ),
            // With an error.
            (
                vec![
                    content(""),
                    bare(&format!("{usage},\"error\":{{\"message\":\"x\"}}")),
                ],
                None,
            ),
        ] {
            let mut shown = events.clone();
            if let Some(n) = hidden {
                shown.remove(n);
            }
            let pieces: Vec<&[u8]> = events.iter().map(String::as_bytes).collect();
            let (out, progress) = decode(&pieces, HIDDEN);
            assert_eq!(String::from_utf8(out).unwrap(), shown.concat());
            assert_eq!(progress.usage, Some(COUNTED), "{events:?}");
            assert_eq!(decode(&pieces, SHOWN).0, events.concat().as_bytes());
        }
    }

    #[test]
    fn an_error_in_the_clothes_of_an_answer_is_seen() {
        let is_error = |body: &str| {
            let endpoint = match body.contains(r#""object":"response""#) {
                true => Endpoint::Responses,
                false => CHAT,
            };
            let reading = OpenAi.read(endpoint, body.as_bytes());
            reading.map(|reading| reading.is_error)
        };
        for error in [
            r#"{"error":{"message":"x"}}"#,
            r#"{"a":1,"error" : "x"}"#,
            r#"{"object":"error","message":"x"}"#,
            r#"[{"error":{"code":400}}]"#,
            r#"{"id":"resp_1","object":"response","status":"failed","error":{"code":"server_error","message":"m"},"output":[]}"#,
            r#"{"id":"resp_1","object":"response","status":"failed","output":[],"usage":null}"#,
            r#"{"id":"resp_1","object":"response","status" : "failed","error":null,"output":[]}"#,
            r#"{"choices":[{"index":0,"message":{"content":""},"finish_reason":"error","error":{"code":502}}]}"#,
        ] {
            assert_eq!(is_error(error), Some(true), "{error}");
        }
        for fine in [
            r#"{"error":null}"#,
            r#"{"error": false }"#,
            r#"{"x":{"error":1}}"#,
            r#"{"object":"response","status":"completed","error":null,"output":[{"type":"mcp_call","status":"failed","error":"x"}]}"#,
            r#"{"object":"response","status":"incomplete","error":null,"incomplete_details":{"reason":"max_output_tokens"},"output":[]}"#,
            r#"{"object":"response","status":"completed","error":null,"metadata":{"status":"failed"},"output":[{"content":[{"text":"\"status\":\"failed\""}]}]}"#,
            r#"{"choices":[{"message":{"content":"\"error\""},"finish_reason":"stop","error":null}]}"#,
        ] {
            assert_eq!(is_error(fine), Some(false), "{fine}");
        }
        for none in ["[]", r#"["error"]"#, r#"{"error":{"#, r#""error""#, "error"] {
            assert_eq!(is_error(none), None, "{none}");
        }
    }

    #[test]
    fn a_whole_answers_usage_is_read_at_its_top() {
        let counted = r#"{"input_tokens":12,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":17}"#;
        for body in [
            format!(
                r#"{{"id":"resp_1","object":"response","status":"completed","error":null,"output":[{{"usage":{{"input_tokens":999}}}}],"usage":{counted},"metadata":{{"usage":"x"}}}}"#
            ),
            format!(r#"{{"created":1,"data":[{{"b64_json":"AAAA"}}],"usage":{counted}}}"#),
            format!(r#"{{"text":"\"usage\":{{}}","usage":{counted}}}"#),
            // It cost something all the same.
            format!(
                r#"{{"object":"response","status":"failed","error":{{"code":"x"}},"usage":{counted}}}"#
            ),
        ] {
            let reading = OpenAi.read(CHAT, body.as_bytes()).unwrap();
            assert_eq!(reading.usage, Some(COUNTED), "{body}");
        }
    }

    #[test]
    fn content_is_what_says_something() {
        let content = |delta: &str| {
            let text = format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
            decode(&[text.as_bytes()], SHOWN).1.content
        };
        for nothing in [
            r#"{"role":"assistant","content":""}"#,
            "{}",
            "null",
            r#"{"content":null,"tool_calls":[]}"#,
        ] {
            assert!(!content(nothing), "{nothing}");
        }
        for something in [
            r#"{"content":"a"}"#,
            r#"{"reasoning":"a"}"#,
            r#"{"tool_calls":[{"index":0}]}"#,
        ] {
            assert!(content(something), "{something}");
        }
    }

    #[test]
    fn usage_is_asked_for_where_the_client_did_not() {
        for (body, hidden, want) in [
            (
                r#"{"stream":true}"#,
                true,
                r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":null}"#,
                true,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{"x":1}}"#,
                true,
                r#"{"stream_options":{"x":1,"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":false}}"#,
                true,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":true}}"#,
                false,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (r#"{"stream_options":7}"#, false, r#"{"stream_options":7}"#),
        ] {
            let envelope = Envelope::scan(Bytes::from(body), |_| false).unwrap();
            let mut edits = envelope.edit();
            assert_eq!(OpenAi.ask_for_usage(&mut edits), hidden, "{body}");
            assert_eq!(edits.into_rope().to_vec(), want.as_bytes());
        }
    }

    /// As many lie in memory as there are streams.
    #[test]
    fn a_streams_reader_is_small() {
        let beside = size_of::<Stream<Chat>>() - size_of::<Progress>();
        assert!(beside <= 168, "{beside}");
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut decoder = OpenAi.decoder(CHAT, SHOWN);
        let piece = Bytes::from(vec![b'x'; MAX_EVENT / 2 + 1]);
        let start = Bytes::from_static(b"data: ");
        let mut out = Pieces::new();
        assert_eq!(decoder.feed(start, &mut out), Ok(()));
        assert_eq!(decoder.feed(piece.clone(), &mut out), Ok(()));
        assert_eq!(decoder.feed(piece, &mut out), Err(TooLong));
        assert!(out.is_empty());
    }

    proptest! {
        /// Whatever passes, the bytes that come out are a prefix of those that went in, and all of them if it completed.
        #[test]
        fn nothing_is_made_up(pieces in prop::collection::vec("[a:\\r\\ndt \\[\\]\"{}]{0,12}", 0..12)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            let (out, _) = decode(&pieces, SHOWN);
            prop_assert!(pieces.concat().starts_with(&out));
        }
    }
}
