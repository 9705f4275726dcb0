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
use super::{
    Decoder, Ended, Ending, Endpoint, Pieces, Progress, Protocol, Reading, Skimmer, TooLong,
};
use crate::envelope::Edits;
use crate::usage::Usage;

/// The format itself.
#[derive(Debug)]
pub struct OpenAi;

impl Protocol for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

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
            // What is no object is the provider's to refuse.
            Some(Err(_)) => false,
            Some(Ok(_)) => edits.set_within("stream_options", "include_usage", b"true"),
            None => {
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
        let whole: Whole<'_> = serde_json::from_slice(body).ok()?;
        Some(Reading {
            usage: whole.usage.and_then(Tokens::usage),
            is_error: says_error(whole.error),
        })
    }

    fn skimmer(&self) -> Box<dyn Skimmer> {
        Box::<Skim>::default()
    }
}

/// What matters of a whole answer.
#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(default, deserialize_with = "lenient")]
    usage: Option<Tokens>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A `usage` that is none is no reason to throw an answer away.
fn lenient<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Tokens>, D::Error> {
    let raw = <&RawValue>::deserialize(d)?;
    Ok(serde_json::from_str(raw.get()).ok())
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
}

impl Chunk<'_> {
    fn usage(&self) -> Option<Usage> {
        let tokens: Tokens = serde_json::from_str(self.usage?.get()).ok()?;
        tokens.usage()
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
    finish_reason: Option<IgnoredAny>,
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

/// `usage`, as OpenAI and those who follow it write it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    prompt_tokens: Option<serde_json::Number>,
    completion_tokens: Option<serde_json::Number>,
    total_tokens: Option<serde_json::Number>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<serde_json::Number>,
    cache_write_tokens: Option<serde_json::Number>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Option<serde_json::Number>,
}

/// A count is a whole number below any plausible bound; anything else is unknown.
fn count(number: Option<serde_json::Number>) -> Option<u64> {
    let number = number?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "only whole numbers that fit are cast"
    )]
    let whole = |f: f64| (f.fract() == 0.0 && (0.0..1e12).contains(&f)).then_some(f as u64);
    let count = number.as_u64().or_else(|| whole(number.as_f64()?))?;
    (count < 1 << 40).then_some(count)
}

impl Tokens {
    /// Cached input is part of the prompt; reasoning is part of the completion, except where a total says otherwise
    /// (xAI leaves it out of `completion_tokens`, Gemini's shim too; both count it in `total_tokens`).
    fn usage(self) -> Option<Usage> {
        let prompt = count(self.prompt_tokens);
        let completion = count(self.completion_tokens);
        if prompt.is_none() && completion.is_none() {
            return None;
        }
        let prompt = prompt.unwrap_or(0);
        let total = count(self.total_tokens).unwrap_or(0);
        let completion = completion.unwrap_or(0).max(total.saturating_sub(prompt));
        let details = self.prompt_tokens_details.unwrap_or_default();
        let cached = count(details.cached_tokens).unwrap_or(0).min(prompt);
        let cache_write = count(details.cache_write_tokens)
            .unwrap_or(0)
            .min(prompt - cached);
        let reasoning = self
            .completion_tokens_details
            .unwrap_or_default()
            .reasoning_tokens;
        let reasoning = count(reasoning).unwrap_or(0).min(completion);
        Some(Usage {
            input: prompt - cached - cache_write,
            cached,
            cache_write,
            output: completion - reasoning,
            reasoning,
        })
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
            self.progress.end.get_or_insert(Ended::Error);
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
        if error && says_error(chunk.error) {
            self.progress.end.get_or_insert(Ended::Error);
            return false;
        }
        let choices = match self.progress.content && !finish && !usage {
            true => Vec::new(),
            false => chunk.choices(),
        };
        for choice in &choices {
            self.finish_reason |= choice.finish_reason.is_some();
            self.progress.content |=
                choice.delta.0 || choice.text.0 || choice.finish_reason.is_some();
        }
        let told = if usage { chunk.usage() } else { None };
        self.progress.usage = told.or(self.progress.usage);
        told.is_some() && choices.is_empty() && self.ends.hide_usage
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
            *hidden = match found {
                Found::Event { data, is_error } => eye.look(data, is_error),
                Found::Gap => false,
                Found::Rest => *hidden,
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
        Ok(())
    }

    fn finish(&mut self, out: &mut Pieces) {
        let Self {
            scanner, held, eye, ..
        } = self;
        let mut hide = false;
        scanner.finish(|found| {
            if let Found::Event { data, is_error } = found {
                hide |= eye.look(data, is_error);
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

/// Finds `usage` at the top level of an object of any length, with bounded memory.
#[derive(Debug, Default)]
struct Skim {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// At the top level, a name comes next.
    wants_name: bool,
    name: Vec<u8>,
    /// The value of `usage`, while it passes.
    value: Option<Vec<u8>>,
    usage: Option<Usage>,
}

/// The longest `usage` that is read, in bytes.
const MAX_USAGE: usize = 16 << 10;

impl Skim {
    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    if self.depth == 1 {
                        self.wants_name = false;
                    }
                    return;
                }
                _ => {}
            }
            if self.depth == 1 && self.wants_name && self.name.len() < 8 {
                self.name.push(byte);
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == 1 && self.wants_name {
                    self.name.clear();
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.wants_name = self.depth == 1 && byte == b'{';
            }
            b':' if self.depth == 1 && self.name == b"usage" => self.value = Some(Vec::new()),
            b',' if self.depth == 1 => {
                self.close();
                self.wants_name = true;
            }
            b'}' | b']' => {
                if self.depth == 1 {
                    self.close();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        self.name.clear();
        if let Some(value) = self.value.take() {
            let value = value.strip_prefix(b":").unwrap_or(&value);
            let tokens = serde_json::from_slice::<Tokens>(value).ok();
            self.usage = tokens.and_then(Tokens::usage).or(self.usage);
        }
    }
}

impl Skimmer for Skim {
    fn feed(&mut self, mut piece: &[u8]) {
        while let Some((&byte, rest)) = piece.split_first() {
            piece = rest;
            self.step(byte);
            match &mut self.value {
                Some(value) if value.len() < MAX_USAGE => value.push(byte),
                Some(_) => self.value = None,
                None if self.in_string && !self.wants_name => {
                    // Inside a string only its end matters.
                    let skip = memchr::memchr2(b'"', b'\\', piece).unwrap_or(piece.len());
                    if !self.escaped {
                        piece = piece.get(skip..).unwrap_or_default();
                    }
                }
                None => {}
            }
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use proptest::prelude::*;

    const USAGE: &str = r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#;
    const COUNTED: Usage = Usage {
        input: 8,
        cached: 4,
        cache_write: 0,
        output: 3,
        reasoning: 2,
    };

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
        assert_eq!(decode(&[text[..60].as_bytes()], ends).1.end, None);
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
            assert_eq!(
                decode(&[text.as_bytes()], SHOWN).1.end,
                Some(Ended::Error),
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
    fn usage_is_read_in_the_forms_it_comes_in() {
        let read = |text: &str| {
            serde_json::from_str::<Tokens>(text)
                .ok()
                .and_then(Tokens::usage)
        };
        assert_eq!(read(USAGE), Some(COUNTED));
        let plain = |input, output, reasoning| {
            Some(Usage {
                input,
                output,
                reasoning,
                ..Usage::default()
            })
        };
        assert_eq!(
            read(r#"{"prompt_tokens":3,"total_tokens":3}"#),
            plain(3, 0, 0)
        );
        assert_eq!(
            read(r#"{"prompt_tokens":3.0,"completion_tokens":null}"#),
            plain(3, 0, 0)
        );
        // Reasoning beside the completion: the total says so.
        assert_eq!(
            read(
                r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":10,"completion_tokens_details":{"reasoning_tokens":5}}"#
            ),
            plain(3, 2, 5)
        );
        for nothing in [
            "{}",
            "[]",
            "7",
            r#"{"prompt_tokens":-1}"#,
            r#"{"prompt_tokens":"3"}"#,
            r#"{"prompt_tokens":1e300}"#,
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
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

    #[test]
    fn a_long_answers_usage_counts_only_at_its_own_path() {
        let text = format!(
            r#" {{"usage\u0020x":1,"data":[{{"usage":{{"prompt_tokens":1}},"s":"\"usage\":{{\\"}}],"s":"usage","usage" : {USAGE} , "z":"\\"}}"#
        );
        let mut whole = Skim::default();
        whole.feed(text.as_bytes());
        assert_eq!(whole.usage(), Some(COUNTED));
        for i in 0..text.len() {
            let mut cut = Skim::default();
            cut.feed(&text.as_bytes()[..i]);
            cut.feed(&text.as_bytes()[i..]);
            assert_eq!(cut.usage(), Some(COUNTED), "cut at {i}");
        }
        let mut last = Skim::default();
        last.feed(format!(r#"{{"a":[1,2],"usage":{USAGE}}}"#).as_bytes());
        assert_eq!(last.usage(), Some(COUNTED));
        let mut nested = Skim::default();
        nested.feed(format!(r#"{{"a":{{"usage":{USAGE}}},"b":"usage"}}"#).as_bytes());
        assert_eq!(nested.usage(), None);
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
