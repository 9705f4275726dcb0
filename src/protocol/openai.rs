//! OpenAI's own format: chat completions, completions, embeddings.
//!
//! <https://platform.openai.com/docs/api-reference>. Usage is told in `usage`: in a stream only on request
//! (`stream_options.include_usage`), in one more event with empty `choices`, before `[DONE]`.

use bytes::Bytes;
use http::HeaderValue;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

use super::sse::{Found, Scanner};
use super::tokens::{Skim, Tokens};
use super::{
    Decoder, Ended, Ending, Endpoint, MAX_EVENT, MOST_MODELS, Pieces, Progress, Protocol, Reading,
    Skimmer, TooLong,
};
use crate::envelope::Edits;
use crate::usage::Usage;

/// The format itself.
#[derive(Debug)]
pub struct OpenAi;

impl Protocol for OpenAi {
    fn path(&self, endpoint: Endpoint) -> &'static str {
        match endpoint {
            Endpoint::ChatCompletions => "/chat/completions",
            Endpoint::Completions => "/completions",
            Endpoint::Embeddings => "/embeddings",
            _ => "/models",
        }
    }

    fn credential(&self, secret: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {secret}")).ok()?;
        value.set_sensitive(true);
        Some(value)
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

    fn decoder(&self, ends: Ending) -> Box<dyn Decoder> {
        Box::new(Stream {
            ends,
            scanner: Scanner::default(),
            held: SmallVec::new(),
            hidden: false,
            eye: Eye {
                ends,
                progress: Progress::default(),
                finish_reason: false,
                usage: Finder::new("\"usage\""),
                error: Finder::new("\"error\""),
                finish: Finder::new("\"finish_reason\""),
            },
        })
    }

    fn read(&self, body: &[u8]) -> Option<Reading> {
        let mut skim = Skim::default();
        skim.feed(body);
        skim.is_complete().then(|| Reading {
            usage: skim.usage(),
            is_error: skim.is_error(),
        })
    }

    /// `{"data": [{"id": …}]}`; Together leaves the object out.
    fn models(&self, body: &[u8]) -> Option<Vec<Box<str>>> {
        #[derive(Deserialize)]
        struct Entry {
            id: Box<str>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum List {
            Bare(Vec<Entry>),
            Data { data: Vec<Entry> },
        }
        let (List::Bare(entries) | List::Data { data: entries }) =
            serde_json::from_slice(body).ok()?;
        let names = entries.into_iter().map(|entry| entry.id);
        Some(names.take(MOST_MODELS).collect())
    }

    fn skimmer(&self) -> Box<dyn Skimmer> {
        Box::<Skim>::default()
    }
}

/// Whether an `error` says that there is one.
fn says_error(error: Option<&RawValue>) -> bool {
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

impl Chunk<'_> {
    fn groq(&self) -> Option<Groq<'_>> {
        serde_json::from_str(self.x_groq?.get()).ok()
    }

    fn usage(&self) -> Option<Usage> {
        let read = |raw: &RawValue| serde_json::from_str(raw.get()).ok().and_then(Tokens::usage);
        self.usage
            .and_then(read)
            .or_else(|| self.groq()?.usage.and_then(read))
    }

    fn is_error(&self) -> bool {
        self.is_heard()
            || self
                .object
                .is_some_and(|object| object.get() == "\"error\"")
            || self.groq().is_some_and(|groq| says_error(groq.error))
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

/// Reads a stream.
struct Stream {
    ends: Ending,
    scanner: Scanner,
    /// The pieces of an event that is not complete.
    held: SmallVec<[Bytes; 2]>,
    /// What was found last is not for the client.
    hidden: bool,
    eye: Eye,
}

/// Looks at events, as little as possible: the word it looks for first, the whole event only if the word is there.
struct Eye {
    ends: Ending,
    progress: Progress,
    finish_reason: bool,
    usage: Finder<'static>,
    error: Finder<'static>,
    finish: Finder<'static>,
}

impl Eye {
    /// True if the event is not for the client.
    fn look(&mut self, data: &[u8], is_error: bool) -> bool {
        if data.starts_with(b"[DONE]") {
            self.progress.end.get_or_insert(Ended::Complete);
            return false;
        }
        if is_error {
            let chunk = serde_json::from_slice::<Chunk<'_>>(data);
            let heard = chunk.is_ok_and(|chunk| chunk.is_heard());
            self.progress.end.get_or_insert(Ended::Error { heard });
            return false;
        }
        let usage = self.usage.find(data).is_some();
        let error = self.error.find(data).is_some();
        let finish = !self.ends.marker && self.finish.find(data).is_some();
        if self.progress.content && !usage && !error && !finish {
            return false;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            return false;
        };
        if error && chunk.is_error() {
            let heard = chunk.is_heard();
            self.progress.end.get_or_insert(Ended::Error { heard });
            return false;
        }
        let choices = match self.progress.content && !finish && !usage {
            true => Vec::new(),
            false => chunk.choices(),
        };
        for choice in &choices {
            self.finish_reason |= choice.finish_reason.0;
            self.progress.content |= choice.delta.0 || choice.text.0 || choice.finish_reason.0;
        }
        let told = if usage { chunk.usage() } else { None };
        self.progress.usage = told.or(self.progress.usage);
        told.is_some() && chunk.is_bare() && self.ends.hide_usage
    }
}

impl Decoder for Stream {
    fn feed(&mut self, piece: Bytes, out: &mut Pieces) -> Result<(), TooLong> {
        // Everything before `from` is dealt with; the last place between events is at `gap`.
        let (mut from, mut gap) = (0, None);
        let Self {
            scanner,
            held,
            hidden,
            eye,
            ..
        } = self;
        scanner.feed(&piece, |found, at| {
            // After the last word nothing passes but what is left of its line end.
            let ended = eye.progress.end.is_some();
            *hidden = match found {
                Found::Rest => *hidden,
                _ if ended => true,
                Found::Event { data, is_error } => eye.look(data, is_error),
                Found::Gap => false,
            };
            if *hidden {
                match gap {
                    Some(gap) => give(held, &piece, from..gap, out),
                    None => held.clear(),
                }
                from = at;
            }
            gap = Some(at);
        })?;
        let rest = match gap {
            Some(gap) => {
                give(held, &piece, from..gap, out);
                gap
            }
            None => 0,
        };
        if rest < piece.len() {
            held.push(piece.slice(rest..));
        }
        // Fields that are no data are not the scanner's to keep, but they are held here.
        let length: usize = held.iter().map(Bytes::len).sum();
        if length > MAX_EVENT {
            Err(TooLong)
        } else {
            Ok(())
        }
    }

    fn finish(&mut self, out: &mut Pieces) {
        let Self {
            scanner, held, eye, ..
        } = self;
        let mut hide = eye.progress.end.is_some();
        scanner.finish(|found| {
            if let Found::Event { data, is_error } = found {
                let whole = data.starts_with(b"[DONE]")
                    || serde_json::from_slice::<IgnoredAny>(data).is_ok();
                hide |= eye.look(data, is_error) || !whole;
            }
        });
        if !self.ends.marker && eye.finish_reason {
            eye.progress.end.get_or_insert(Ended::Complete);
        }
        if eye.progress.end.is_some() && !hide {
            out.extend(held.drain(..));
        }
        held.clear();
    }

    fn progress(&self) -> &Progress {
        &self.eye.progress
    }
}

/// Gives out what was held and a part of the piece.
fn give(
    held: &mut SmallVec<[Bytes; 2]>,
    piece: &Bytes,
    range: std::ops::Range<usize>,
    out: &mut Pieces,
) {
    if range.is_empty() {
        return;
    }
    out.extend(held.drain(..));
    out.push(if range.len() == piece.len() {
        piece.clone()
    } else {
        piece.slice(range)
    });
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tests::{COUNTED, USAGE};
    use super::*;
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
        let mut decoder = OpenAi.decoder(ends);
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
        for error in [
            "data: {\"error\":{\"message\":\"x\"}}\n\n",
            "data: {\"id\":1,\"choices\":[],\"error\":\"x\"}\n\n",
            "error: {\"code\":500}\n\n",
            "event: error\ndata: {}\n\n",
        ] {
            let text = format!("{error}data: [DONE]\n\n");
            let heard = error.contains("\"error\"");
            assert_eq!(
                decode(&[text.as_bytes()], SHOWN).1.end,
                Some(Ended::Error { heard }),
                "{error}"
            );
        }
        let fine = "data: {\"choices\":[],\"error\":null}\n\ndata: [DONE]\n\n";
        assert_eq!(
            decode(&[fine.as_bytes()], SHOWN).1.end,
            Some(Ended::Complete)
        );
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
