//! Streams whose events say what they are: responses, speech, transcripts and images.
//!
//! <https://platform.openai.com/docs/api-reference/responses-streaming>, and beside it those of audio and images. Each event
//! has a `type`, and no two interfaces have one in common, so that one reader knows them all. Usage is told unasked, by the
//! event that ends the stream; a marker is not needed. An event without a `type` is read as one of a chat: errors are told
//! so, and vLLM writes transcripts so.

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::LazyLock;

use super::openai::{Chat, WORDS, says_error};
use super::skim;
use super::stream::{Eye, Stream};
use super::tokens::{self, object};
use super::units::look;
use super::{Decoder, Ended, Ending, ErrorBody, Progress};
use crate::usage::{Look, Usage};

/// A reader for one such stream. How it ends is the same with every provider, and there is nothing to be hidden.
pub(super) fn decoder() -> Box<dyn Decoder> {
    Box::new(Stream::new(Typed::new()))
}

/// What an event means, by its type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Means {
    /// A piece of what a model writes: a token of output at the least.
    Text,
    /// A piece of something else: sound, or the summary of a thought, whose tokens are not those that are billed.
    Piece,
    /// Something whole, while others may follow.
    Part,
    /// An image that is not finished.
    Sketch,
    /// A finished image. It does not say whether it is the last.
    Image,
    /// The end of an answer.
    End,
    /// The end of what is no answer.
    Failure,
    /// Something that nobody would call content.
    Nothing,
}

impl Means {
    fn of(name: &[u8]) -> Self {
        match name {
            b"response.output_text.delta"
            | b"response.refusal.delta"
            | b"response.reasoning_text.delta"
            | b"response.function_call_arguments.delta"
            | b"response.custom_tool_call_input.delta"
            | b"response.mcp_call_arguments.delta"
            | b"response.code_interpreter_call_code.delta"
            | b"transcript.text.delta" => Self::Text,
            b"response.output_item.done"
            | b"response.image_generation_call.partial_image"
            | b"transcript.text.segment"
            | b"transcription.segment" => Self::Part,
            b"image_generation.partial_image" | b"image_edit.partial_image" => Self::Sketch,
            b"image_generation.completed" | b"image_edit.completed" => Self::Image,
            b"response.completed"
            | b"response.incomplete"
            | b"speech.audio.done"
            | b"transcript.text.done" => Self::End,
            // Mistral.
            b"transcription.done" => Self::End,
            // In no document of OpenAI's, but some who write responses have it in place of the three that are.
            b"response.done" => Self::End,
            b"error" | b"response.failed" => Self::Failure,
            // OpenAI has it as a status and for webhooks, not in a stream. Where somebody writes it nothing follows, and no
            // client takes it for an answer.
            b"response.cancelled" | b"response.canceled" => Self::Failure,
            _ if name.ends_with(b".delta") => Self::Piece,
            _ => Self::Nothing,
        }
    }

    /// Whether its event has more to tell than that it was there.
    fn tells(self) -> bool {
        matches!(self, Self::Image | Self::End | Self::Failure)
    }
}

/// What matters of an event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    /// Speech.
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
    /// Mistral's speech.
    #[serde(borrow)]
    audio_data: Option<&'a RawValue>,
    /// Mistral's transcripts.
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    /// Images, as are their qualities.
    #[serde(borrow)]
    size: Option<&'a RawValue>,
    #[serde(borrow)]
    quality: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// What matters of a response, as it is at its beginning and at its end.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Event<'_> {
    /// What it means. None: it has no type.
    fn means(&self) -> Option<Means> {
        let name = self.kind?.get().strip_prefix('"')?.strip_suffix('"')?;
        Some(Means::of(name.as_bytes()))
    }

    /// Whether it has a piece of something in it.
    fn says(&self) -> bool {
        let pieces = [self.delta, self.audio, self.audio_data, self.text];
        let mut pieces = pieces.into_iter().flatten();
        pieces.any(|piece| !matches!(piece.get(), "\"\"" | "[]" | "{}"))
    }
}

impl Event<'_> {
    /// What a picture took, with what it is like. None: it tells neither.
    fn drawn(&self, told: Option<Usage>) -> Option<Usage> {
        let [size, quality] = [self.size, self.quality].map(|raw| Some(raw?.get().as_bytes()));
        match look(size, quality) {
            Look::ANY => told,
            look => Some(Usage {
                look,
                ..told.unwrap_or_default()
            }),
        }
    }
}

impl Response<'_> {
    /// Whether it is no answer, whatever the event is called that has it.
    fn has_failed(&self) -> bool {
        let status = self.status.map_or("", RawValue::get);
        matches!(status, "\"failed\"" | "\"cancelled\"")
    }
}

/// Looks at such events, as little as possible: at most of them only as far as their type.
struct Typed {
    /// For events without a type; it also keeps what is known.
    chat: Chat,
    /// The content came in events without a type.
    is_chat: bool,
    /// An image is finished, and none has been begun since.
    is_painted: bool,
    response_id: Option<Box<str>>,
}

impl Typed {
    fn new() -> Self {
        let ends = Ending {
            marker: true,
            hide_usage: false,
        };
        Self {
            chat: Chat::new(ends),
            is_chat: false,
            is_painted: false,
            response_id: None,
        }
    }

    /// An event of this meaning passes, whatever else it tells.
    fn pass(&mut self, means: Means, data: &[u8]) {
        self.chat.progress.said += u64::from(means == Means::Text && has_delta(data));
        self.is_painted &= means != Means::Sketch;
    }

    /// The event tells a usage, or none: what the whole answer took.
    fn tell(&mut self, usage: Option<Usage>) {
        let progress = &mut self.chat.progress;
        progress.told_all |= usage.is_some();
        progress.usage = usage.or(progress.usage);
    }

    /// Reads an event.
    fn read(&mut self, event: &Event<'_>, means: Means, data: &[u8], is_error: bool) {
        let response: Response<'_> = object(event.response);
        self.response_id = response.id.and_then(skim::id).or(self.response_id.take());
        let has_failed = means == Means::Failure || (means == Means::End && response.has_failed());
        let heard = has_failed || says_error(event.error);
        let told = || response.usage.or(event.usage).and_then(tokens::usage);
        if heard || is_error {
            self.tell(told());
            // All that was asked is in a response, too: what it says of its error is enough.
            let error = response.error.filter(|error| says_error(Some(error)));
            let error = error.map_or(data, |error| error.get().as_bytes());
            return self.chat.fail(error, heard);
        }
        let progress = &mut self.chat.progress;
        progress.begun = true;
        progress.content |= match means {
            Means::Text | Means::Piece => event.says(),
            Means::Nothing | Means::Failure => false,
            Means::Part | Means::Sketch | Means::Image | Means::End => true,
        };
        if means == Means::Image {
            // Each tells what it took. Another may be yet to come, so that this is not all.
            progress.usage = match (progress.usage, event.drawn(told())) {
                (Some(all), Some(this)) => Some(sum(all, this)),
                (all, this) => all.or(this),
            };
            self.is_painted = true;
        }
        if means == Means::End {
            progress.end.get_or_insert(Ended::Complete);
            self.tell(told());
        }
    }

    /// Reads an event that has no type, or cannot be read at all.
    fn read_untyped(&mut self, data: &[u8], is_error: bool) {
        let had_content = self.chat.progress.content;
        self.chat.look(data, is_error);
        self.is_chat |= self.chat.progress.content && !had_content;
    }

    /// No image will follow.
    fn end_images(&mut self) {
        if self.chat.progress.end.is_none() {
            self.chat.progress.end = Some(Ended::Complete);
            self.tell(self.chat.progress.usage);
        }
    }
}

impl Eye for Typed {
    fn look(&mut self, data: &[u8], is_error: bool) -> bool {
        if self.is_chat {
            return self.chat.look(data, is_error);
        }
        if data.starts_with(b"[DONE]") {
            if self.is_painted {
                self.end_images();
            }
            // Clients read no further than this, and would not hear that there was no end.
            return self.chat.progress.end.is_none();
        }
        if self.chat.progress.content
            && !is_error
            && let Some(means) = own_type(data).map(Means::of)
            && !means.tells()
            && WORDS.error.find(data).is_none()
        {
            self.pass(means, data);
            return false;
        }
        let event = serde_json::from_slice::<Event<'_>>(data).ok();
        match event
            .as_ref()
            .and_then(|event| Some((event, event.means()?)))
        {
            Some((event, means)) => {
                self.pass(means, data);
                self.read(event, means, data, is_error);
            }
            None => self.read_untyped(data, is_error),
        }
        false
    }

    fn close(&mut self, is_between: bool) {
        // In the middle of an event there is another image that was on its way.
        if self.is_painted && is_between {
            self.end_images();
        }
    }

    fn progress(&self) -> &Progress {
        self.chat.progress()
    }

    fn response_id(&self) -> Option<&str> {
        self.response_id.as_deref()
    }

    fn error(&mut self) -> Option<ErrorBody> {
        self.chat.error()
    }
}

/// What two images took together. One bill of two is not the cost.
fn sum(one: Usage, other: Usage) -> Usage {
    let mut counts = one.counts();
    for (count, more) in counts.iter_mut().zip(other.counts()) {
        *count = count.saturating_add(more);
    }
    let costs = one.cost.zip(other.cost);
    Usage {
        look: one.look.common(other.look),
        ..Usage::of(counts, costs.map(|(one, other)| one.plus(other)))
    }
}

/// An event's type, if it is its first member or its last, as nearly everybody has it. No text and nothing within the event
/// can look like either: before the first there is only the brace that opens the event, after the last only the one that
/// closes it, and between them a quote that is not escaped ends a text or begins one.
fn own_type(data: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"\"type\"";
    let first = || {
        let inner = data.trim_ascii_start().strip_prefix(b"{")?;
        let text = text(inner.trim_ascii_start().strip_prefix(NAME)?)?;
        text.get(..memchr::memchr(b'"', text)?)
    };
    let last = || {
        let inner = data.trim_ascii_end().strip_suffix(b"}")?;
        let rest = inner.trim_ascii_end().strip_suffix(b"\"")?;
        let (before, name) = rest.split_at(memchr::memrchr(b'"', rest)?);
        let before = before.trim_ascii_end().strip_suffix(b":")?;
        let before = before.trim_ascii_end().strip_suffix(NAME)?;
        let is_name = before.trim_ascii_end().ends_with(b",");
        is_name.then(|| name.get(1..))?
    };
    first().or_else(last)
}

/// Whether an event has a `delta` that is a text and not empty.
fn has_delta(data: &[u8]) -> bool {
    static DELTA: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("\"delta\""));
    let after = DELTA.find(data).map(|at| at + DELTA.needle().len());
    let delta = after.and_then(|at| text(data.get(at..)?));
    delta.is_some_and(|delta| delta.first() != Some(&b'"'))
}

/// The text that is a member's value, and what follows it, of what follows the member's name.
fn text(after: &[u8]) -> Option<&[u8]> {
    let value = after.trim_ascii_start().strip_prefix(b":")?;
    value.trim_ascii_start().strip_prefix(b"\"")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::tokens::tests::COUNTED;
    use super::super::{MAX_EVENT, Pieces, TooLong};
    use super::*;
    use crate::usage::Money;

    /// A usage as the newer interfaces write it, and what [`COUNTED`] is.
    const USAGE: &str = r#"{"input_tokens":12,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":17}"#;

    /// Events, each with its name beside it as OpenAI writes them.
    fn named(events: &[&str]) -> String {
        let event = |data: &&str| {
            let value: serde_json::Value = serde_json::from_str(data).unwrap();
            format!(
                "event: {}\ndata: {data}\n\n",
                value["type"].as_str().unwrap()
            )
        };
        events.iter().map(event).collect()
    }

    /// Events without a name.
    fn bare(events: &[&str]) -> String {
        let event = |data: &&str| format!("data: {data}\n\n");
        events.iter().map(event).collect()
    }

    /// A response, from its beginning; what a client made a model say, or said of itself, would end it if it could.
    fn response() -> String {
        let mut stream = named(&[
            r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","error":null,"metadata":{"type":"response.completed"},"tools":[{"type":"function","parameters":{"type":"response.failed"}}],"usage":null}}"#,
            r#"{"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1","status":"in_progress","error":null,"usage":null}}"#,
            r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"msg_1","type":"message","status":"in_progress","content":[]}}"#,
            r#"{"type":"response.content_part.added","sequence_number":3,"item_id":"msg_1","part":{"type":"output_text","text":""}}"#,
        ]);
        stream += ": ping\n\n";
        stream += &named(&[
            r#"{"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1","delta":"Hé","obfuscation":"x"}"#,
            r#"{"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_1","delta":"\",\"type\":\"response.completed\",\"usage\":{\"input_tokens\":999}}"}"#,
            r#"{"type":"response.output_text.done","sequence_number":6,"item_id":"msg_1","text":"Hé…"}"#,
            r#"{"type":"response.output_item.done","sequence_number":7,"output_index":0,"item":{"id":"msg_1","type":"message","status":"completed"}}"#,
            &format!(
                r#"{{"type":"response.completed","sequence_number":8,"response":{{"id":"resp_1","status":"completed","error":null,"output":[{{"type":"message"}}],"usage":{USAGE},"metadata":{{"type":"error"}}}}}}"#
            ),
        ]);
        stream
    }

    fn speech() -> String {
        bare(&[
            r#"{"type":"speech.audio.delta","audio":"AAAA"}"#,
            &format!(r#"{{"type":"speech.audio.done","usage":{USAGE}}}"#),
        ])
    }

    fn transcript() -> String {
        named(&[
            r#"{"type":"transcript.text.delta","delta":"a"}"#,
            &format!(r#"{{"type":"transcript.text.done","text":"a","usage":{USAGE}}}"#),
        ])
    }

    fn vllm_transcript() -> String {
        let chunk = |more: &str| {
            format!(r#"{{"id":"t","object":"transcription.chunk","choices":[{more}}}"#)
        };
        let usage = format!(r#"],"usage":{}"#, tokens::tests::USAGE);
        bare(&[
            &chunk(r#"{"delta":{"content":"a"}}]"#),
            &chunk(r#"{"delta":{"content":""},"finish_reason":"stop"}]"#),
            &chunk(&usage),
        ]) + "data: [DONE]\n\n"
    }

    /// Out of what events said, with the known at the end.
    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Progress) {
        let mut decoder = decoder();
        let mut out = Pieces::new();
        for piece in pieces {
            let given = out.len();
            decoder
                .feed(Bytes::copy_from_slice(piece), &mut out)
                .unwrap();
            let last = out[given..].last().and_then(|piece| piece.last());
            assert!(last.is_none_or(|last| matches!(last, b'\n' | b'\r')));
        }
        decoder.finish(&mut out);
        (out.concat(), *decoder.progress())
    }

    fn of(text: &str) -> Progress {
        decode(&[text.as_bytes()]).1
    }

    /// What an error says, and in what way the stream ended.
    fn failed(text: &str) -> (Option<Ended>, Option<ErrorBody>) {
        let mut decoder = decoder();
        let mut out = Pieces::new();
        let text = Bytes::copy_from_slice(text.as_bytes());
        decoder.feed(text, &mut out).unwrap();
        decoder.finish(&mut out);
        (decoder.progress().end, decoder.error())
    }

    /// Everything that is known, to compare it.
    fn all(progress: &Progress) -> String {
        format!("{progress:?}")
    }

    #[test]
    fn bytes_pass_and_usage_is_read_however_they_are_cut() {
        for text in [response(), speech(), transcript(), vllm_transcript()] {
            for newline in ["\n", "\r\n", "\r"] {
                let text = text.replace('\n', newline);
                let bytes = text.as_bytes();
                let whole = of(&text);
                assert_eq!(whole.end, Some(Ended::Complete), "{text}");
                assert_eq!(whole.usage, Some(COUNTED), "{text}");
                assert!(whole.content && whole.begun && whole.told_all);
                // Twice, where that does not take all day: a CR LF can be cut, too.
                let is_short = bytes.len() < 300 && newline == "\r\n";
                for i in 0..=bytes.len() {
                    let last = if is_short { bytes.len() } else { i };
                    for j in i..=last {
                        let (out, cut) = decode(&[&bytes[..i], &bytes[i..j], &bytes[j..]]);
                        assert_eq!(out, bytes, "cut at {i} and {j}");
                        assert_eq!(all(&cut), all(&whole), "cut at {i} and {j}");
                    }
                }
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                let (out, cut) = decode(&single);
                assert_eq!((&*out, all(&cut)), (bytes, all(&whole)));
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_not_complete_and_ends_between_events() {
        for text in [response(), speech(), transcript(), vllm_transcript()] {
            let bytes = text.as_bytes();
            // An event whose blank line alone is missing is whole.
            let done = bytes.len() - 2;
            for i in 0..done {
                let (out, progress) = decode(&[&bytes[..i]]);
                assert_eq!(progress.end, None, "cut at {i}");
                let between = out.is_empty() || out.ends_with(b"\n\n") || out.ends_with(b"ping\n");
                assert!(between && bytes.starts_with(&out), "cut at {i}");
            }
            let (out, progress) = decode(&[&bytes[..done]]);
            assert_eq!(
                (&*out, progress.end),
                (&bytes[..done], Some(Ended::Complete))
            );
        }
    }

    #[test]
    fn several_images_are_one_answer_and_their_usages_add_up() {
        let image = |kind: &str| {
            format!(r#"{{"type":"{kind}.completed","b64_json":"BBBB","usage":{USAGE}}}"#)
        };
        for kind in ["image_generation", "image_edit"] {
            let sketch = format!(
                r#"{{"type":"{kind}.partial_image","b64_json":"AAAA","partial_image_index":0}}"#
            );
            let image = image(kind);
            let first = named(&[&sketch, &image]);
            let text = first.clone() + &named(&[&sketch, &image]);
            let twice = sum(COUNTED, COUNTED);
            assert_eq!((twice.input, twice.output, twice.reasoning), (16, 6, 4));
            for i in 0..=text.len() {
                let (out, progress) = decode(&[&text.as_bytes()[..i]]);
                // After one image there may be another; in the middle of its events there certainly is.
                let is_end = (first.len() - 2..=first.len()).contains(&i) || i >= text.len() - 2;
                let end = is_end.then_some(Ended::Complete);
                assert_eq!(progress.end, end, "cut at {i}");
                assert_eq!(progress.told_all, is_end, "cut at {i}");
                assert!(!is_end || out.len() == i, "cut at {i}");
            }
            let whole = of(&text);
            assert_eq!((whole.usage, whole.said), (Some(twice), 0));
            let bytes = text.as_bytes();
            for i in 0..=bytes.len() {
                let (out, cut) = decode(&[&bytes[..i], &bytes[i..]]);
                assert_eq!((&*out, all(&cut)), (bytes, all(&whole)), "cut at {i}");
            }
            // As some end all of their streams.
            let (out, marked) = decode(&[bytes, b"data: [DONE]\n\n"]);
            assert_eq!(out, [bytes, b"data: [DONE]\n\n"].concat());
            assert_eq!(all(&marked), all(&whole));
        }
        let costs = |one, other| {
            let of = |cost: Option<u64>| Usage {
                cost: cost.map(Money),
                ..COUNTED
            };
            sum(of(one), of(other)).cost.map(|cost| cost.0)
        };
        assert_eq!(costs(Some(1), Some(2)), Some(3));
        assert_eq!(costs(Some(1), None), None);
        let most = Usage {
            input: u64::MAX,
            ..COUNTED
        };
        assert_eq!(sum(most, COUNTED).input, u64::MAX);
    }

    const COMPLETE: Option<Ended> = Some(Ended::Complete);
    const HEARD: Option<Ended> = Some(Ended::Error { heard: true });
    const UNHEARD: Option<Ended> = Some(Ended::Error { heard: false });

    /// The last words of a stream, and how it ended.
    const ENDS: &[(&str, Option<Ended>)] = &[
        (
            r#"data: {"type":"response.completed","response":{"status":"completed","error":null}}"#,
            COMPLETE,
        ),
        (
            r#"data: {"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}}"#,
            COMPLETE,
        ),
        (
            r#"data: {"type":"response.done","response":{"status":"completed"}}"#,
            COMPLETE,
        ),
        (
            r#"data: {"type":"transcription.done","text":"a","usage":{}}"#,
            COMPLETE,
        ),
        // Wherever its type stands, and with whatever between.
        (
            r#"data: {"response":{"type":"x"},"type":"response.completed"}"#,
            COMPLETE,
        ),
        (
            r#"data: {"sequence_number":9, "type" : "response.completed", "response" : {}}"#,
            COMPLETE,
        ),
        (
            "data: { \"response\":null\ndata: , \"type\"\ndata: :\"response.completed\" } ",
            COMPLETE,
        ),
        (r#"data: {"type":"response.completed"}"#, COMPLETE),
        // Failures, and events that are errors.
        (
            r#"data: {"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}"#,
            HEARD,
        ),
        (
            r#"data: {"response":{"error":null},"type":"response.failed"}"#,
            HEARD,
        ),
        (
            r#"data: {"type":"response.completed","response":{"status":"failed"}}"#,
            HEARD,
        ),
        (
            r#"data: {"type":"response.done","response":{"status":"cancelled"}}"#,
            HEARD,
        ),
        (
            r#"data: {"type":"response.cancelled","response":{}}"#,
            HEARD,
        ),
        (
            r#"data: {"type":"error","code":"x","message":"m","param":null}"#,
            HEARD,
        ),
        (r#"data: {"code":"x","message":"m","type":"error"}"#, HEARD),
        (r#"data: {"type":"error","error":{"message":"m"}}"#, HEARD),
        (
            "event: error\ndata: {\"type\":\"error\",\"message\":\"m\"}",
            HEARD,
        ),
        (r#"data: {"error":{"message":"m"}}"#, HEARD),
        (
            r#"data: {"type":"response.output_text.delta","delta":"a","error":{"message":"m"}}"#,
            HEARD,
        ),
        // Errors in a form that no client looks for.
        ("event: error\ndata: {\"message\":\"m\"}", UNHEARD),
        (
            "event: error\ndata: {\"type\":\"server_error\",\"message\":\"m\"}",
            UNHEARD,
        ),
        ("error: {\"message\":\"m\"}", UNHEARD),
        (r#"data: {"object":"error","message":"m"}"#, UNHEARD),
        (r#"data: [{"error":{"message":"m"}}]"#, UNHEARD),
        // What is no end.
        (
            r#"data: {"type":"response.output_item.done","item":{"type":"error","error":{"message":"m"}}}"#,
            None,
        ),
        (
            r#"data: {"type":"response.web_search_call.completed"}"#,
            None,
        ),
        (
            r#"data: {"type":"response.mcp_call.failed","item":{"error":"x"}}"#,
            None,
        ),
        (
            r#"data: {"type":"response.output_text.done","text":"a","error":null}"#,
            None,
        ),
        (
            r#"data: {"type":"response.queued","response":{"status":"failed","error":{"code":"x"}}}"#,
            None,
        ),
        (
            r#"data: {"x":{"type":"response.completed"},"y":"response.completed"}"#,
            None,
        ),
        (r#"data: {"x":"type","response.completed":1}"#, None),
        (r#"data: {"type":"response.completed""#, None),
        (r#"data: {"type":"response.completed","type":"x"}"#, None),
        (r#"data: {"type":7}"#, None),
        (r#"data: "response.completed""#, None),
        ("data: [DONE]", None),
        ("data: Hello", None),
    ];

    #[test]
    fn a_stream_ends_as_its_last_event_says() {
        for &(event, end) in ENDS {
            // Before any content and after it, where less is read.
            let before = r#"data: {"type":"response.output_text.delta","delta":"a"}"#;
            for text in [
                format!("{event}\n\n"),
                format!("{before}\n\n{event}\n\n"),
                event.into(),
            ] {
                assert_eq!(of(&text).end, end, "{text}");
                assert_eq!(
                    of(&(text.clone() + "\n\ndata: [DONE]\n\n")).end,
                    end,
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_marker_ends_only_what_has_an_end() {
        let delta = bare(&[r#"{"type":"response.output_text.delta","delta":"a"}"#]);
        let marker = "data: [DONE]\n\n";
        // The client would hear nothing of what is said after it.
        let (out, progress) = decode(&[delta.as_bytes(), marker.as_bytes()]);
        assert_eq!((&*out, progress.end), (delta.as_bytes(), None));
        let (out, progress) = decode(&[delta.as_bytes(), b"data: [DONE]"]);
        assert_eq!((&*out, progress.end), (delta.as_bytes(), None));
        // Beyond the end nothing passes, whatever it is.
        let whole = response();
        let (out, progress) = decode(&[whole.as_bytes(), marker.as_bytes(), whole.as_bytes()]);
        assert_eq!((&*out, progress.usage), (whole.as_bytes(), Some(COUNTED)));
        // A chat's chunk after other content makes no chat of it.
        let chunk = bare(&[r#"{"choices":[{"delta":{"content":"a"}}]}"#]);
        assert_eq!(of(&(delta + &chunk + marker)).end, None);
        assert_eq!(of(&(chunk + marker)).end, Some(Ended::Complete));
        // As does none that says nothing.
        let empty = bare(&[r#"{"choices":[]}"#]);
        assert_eq!(of(&(empty + marker)).end, None);
        // Nothing was said, and that is all.
        let silent = bare(&[r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#]);
        assert_eq!(of(&(silent + marker)).end, Some(Ended::Complete));
    }

    #[test]
    fn what_an_error_says_is_kept_if_it_comes_before_any_content() {
        let long = "x".repeat(200 << 10);
        for (event, code) in [
            (
                r#"{"type":"error","code":"c","message":"m","param":"p"}"#.to_owned(),
                Some("c"),
            ),
            (
                r#"{"type":"error","error":{"type":"t","code":"c","message":"m"}}"#.to_owned(),
                Some("c"),
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"c","message":"m"}}}"#
                    .to_owned(),
                Some("c"),
            ),
            // With all that was asked in it.
            (
                format!(
                    r#"{{"type":"response.failed","response":{{"instructions":"{long}","error":{{"code":"c","message":"m"}}}}}}"#
                ),
                Some("c"),
            ),
            (
                r#"{"error":{"message":"m","code":"c"}}"#.to_owned(),
                Some("c"),
            ),
            (r#"{"error":"m"}"#.to_owned(), None),
        ] {
            let (end, error) = failed(&bare(&[&event]));
            let error = error.unwrap();
            assert_eq!(end, Some(Ended::Error { heard: true }));
            assert_eq!(
                (error.message.as_deref(), error.code.as_deref()),
                (Some("m"), code)
            );
            let begun = r#"{"type":"response.created","response":{"error":null}}"#;
            assert!(failed(&bare(&[begun, &event])).1.is_some());
            let content = r#"{"type":"response.output_text.delta","delta":"a"}"#;
            let (end, error) = failed(&bare(&[content, &event]));
            assert_eq!((end, error), (Some(Ended::Error { heard: true }), None));
        }
        let silent = r#"{"type":"response.failed","response":{"error":null}}"#;
        assert_eq!(failed(&bare(&[silent])).1, None);
    }

    #[test]
    fn what_a_failure_cost_is_told() {
        let text = format!(
            r#"{{"type":"response.failed","response":{{"error":{{"code":"x"}},"usage":{USAGE}}}}}"#
        );
        let progress = of(&bare(&[&text]));
        assert_eq!((progress.usage, progress.told_all), (Some(COUNTED), true));
        let early = format!(
            r#"{{"type":"response.in_progress","response":{{"usage":{USAGE}}},"usage":{USAGE}}}"#
        );
        assert_eq!(of(&bare(&[&early])).usage, None);
        let silent = of(&bare(&[r#"{"type":"speech.audio.done"}"#]));
        assert_eq!((silent.usage, silent.told_all), (None, false));
        let heard = of(&bare(&[
            r#"{"type":"transcript.text.done","text":"a","usage":{"type":"duration","seconds":2.1}}"#,
        ]));
        let usage = heard.usage.unwrap();
        assert_eq!((usage.seconds, usage.tokens()), (3, 0));
        // Speaches counts nothing.
        for end in [
            r#"{"type":"speech.audio.done","token_usage":{"input_tokens":0,"output_tokens":0,"total_tokens":0}}"#,
            r#"{"type":"speech.audio.done","usage":{"input_tokens":0,"output_tokens":0,"total_tokens":0}}"#,
            r#"{"text":"a","type":"transcript.text.done","logprobs":null,"usage":null}"#,
            r#"{"type":"response.completed","response":[]}"#,
            r#"{"type":"response.completed","response":{"usage":[1]}}"#,
        ] {
            let progress = of(&bare(&[end]));
            assert_eq!(progress.end, Some(Ended::Complete), "{end}");
            assert_eq!((progress.usage, progress.told_all), (None, false), "{end}");
            assert!(progress.content);
        }
    }

    /// Events, whether they are content, and how many tokens they are at the least.
    const CONTENT: &[(&str, bool, u64)] = &[
        (
            r#"{"type":"response.created","response":{"output":[]}}"#,
            false,
            0,
        ),
        (r#"{"type":"response.queued","response":{}}"#, false, 0),
        (r#"{"type":"response.in_progress","response":{}}"#, false, 0),
        (
            r#"{"type":"response.output_item.added","item":{"content":[]}}"#,
            false,
            0,
        ),
        (
            r#"{"type":"response.content_part.added","part":{"text":""}}"#,
            false,
            0,
        ),
        (
            r#"{"type":"response.reasoning_summary_part.added","part":{}}"#,
            false,
            0,
        ),
        (r#"{"type":"response.web_search_call.searching"}"#, false, 0),
        (
            r#"{"type":"transcription.language","audio_language":"en"}"#,
            false,
            0,
        ),
        (r#"{"type":"keepalive"}"#, false, 0),
        (r#"{"type":"x.delta"}"#, false, 0),
        ("{}", false, 0),
        (
            r#"{"type":"response.output_text.delta","delta":""}"#,
            false,
            0,
        ),
        (
            r#"{"type":"response.output_text.delta","delta":null}"#,
            false,
            0,
        ),
        (r#"{"type":"response.output_text.delta"}"#, false, 0),
        (
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            true,
            1,
        ),
        (
            r#"{"type":"response.output_text.delta", "delta" : "a"}"#,
            true,
            1,
        ),
        (
            r#"{"delta":"a","type":"response.output_text.delta"}"#,
            true,
            1,
        ),
        (
            r#"{"delta":"a","type":"response.output_text.delta","x":[{"type":"y"}]}"#,
            true,
            1,
        ),
        (r#"{"type":"response.refusal.delta","delta":"a"}"#, true, 1),
        (
            r#"{"type":"response.reasoning_text.delta","delta":"a"}"#,
            true,
            1,
        ),
        (
            r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
            true,
            1,
        ),
        (
            r#"{"type":"response.custom_tool_call_input.delta","delta":"a"}"#,
            true,
            1,
        ),
        (
            r#"{"type":"response.mcp_call_arguments.delta","delta":"a"}"#,
            true,
            1,
        ),
        (
            r#"{"type":"response.code_interpreter_call_code.delta","delta":"a"}"#,
            true,
            1,
        ),
        (r#"{"type":"transcript.text.delta","delta":"a"}"#, true, 1),
        // Speaches.
        (
            r#"{"delta":"a","type":"transcript.text.delta","logprobs":null}"#,
            true,
            1,
        ),
        // A summary is not what was thought.
        (
            r#"{"type":"response.reasoning_summary_text.delta","delta":"a"}"#,
            true,
            0,
        ),
        // Sound has fewer tokens than pieces, perhaps.
        (r#"{"type":"speech.audio.delta","audio":"AAAA"}"#, true, 0),
        (r#"{"type":"speech.audio.delta","audio":""}"#, false, 0),
        (
            r#"{"type":"speech.audio.delta","audio_data":"AAAA"}"#,
            true,
            0,
        ),
        (r#"{"type":"response.audio.delta","delta":"AAAA"}"#, true, 0),
        (r#"{"type":"response.x.delta","delta":{"a":1}}"#, true, 0),
        (r#"{"type":"transcription.text.delta","text":"a"}"#, true, 0),
        (
            r#"{"type":"transcription.segment","text":"a","start":0}"#,
            true,
            0,
        ),
        (
            r#"{"type":"transcript.text.segment","text":"a","speaker":"A"}"#,
            true,
            0,
        ),
        (
            r#"{"type":"response.output_item.done","item":{"type":"function_call"}}"#,
            true,
            0,
        ),
        (
            r#"{"type":"response.image_generation_call.partial_image","partial_image_b64":"AAAA"}"#,
            true,
            0,
        ),
        (
            r#"{"type":"image_generation.partial_image","b64_json":"AAAA"}"#,
            true,
            0,
        ),
        (
            r#"{"type":"image_edit.partial_image","b64_json":"AAAA"}"#,
            true,
            0,
        ),
        (r#"{"choices":[{"delta":{"content":"a"}}]}"#, true, 1),
        (r#"{"choices":[{"delta":{"content":""}}]}"#, false, 0),
    ];

    #[test]
    fn content_is_what_says_something_and_a_token_is_what_a_model_wrote() {
        for &(event, content, said) in CONTENT {
            let progress = of(&bare(&[event]));
            assert_eq!(
                (progress.content, progress.said),
                (content, said),
                "{event}"
            );
            assert!(progress.begun && progress.end.is_none(), "{event}");
            if event.contains("\"type\"") {
                // After content, where less is read of it.
                let before = r#"{"type":"transcript.text.segment","text":"a"}"#;
                assert_eq!(of(&bare(&[before, event, event])).said, 2 * said, "{event}");
            }
        }
        for nothing in [
            "data: Hello\n\n",
            "data: [1]\n\n",
            ": ping\n\n",
            "data: {\n\n",
        ] {
            let progress = of(nothing);
            assert!(!progress.begun && !progress.content, "{nothing}");
        }
    }

    #[test]
    fn after_the_first_content_no_more_is_read_of_an_event_than_its_type() {
        let half = r#"data: {"type":"response.output_text.delta","delta":"a"]"#;
        assert_eq!(of(&format!("{half}\n\n")).said, 0);
        let begun = bare(&[r#"{"type":"transcript.text.segment","text":"a"}"#]);
        assert_eq!(of(&format!("{begun}{half}\n\n")).said, 1);
    }

    #[test]
    fn an_events_own_type_is_known_by_where_it_stands() {
        let own = |data: &str| {
            own_type(data.as_bytes()).map(|name| String::from_utf8(name.to_vec()).unwrap())
        };
        for (data, want) in [
            (r#"{"type":"a"}"#, Some("a")),
            (r#" { "type" : "a" , "x":{"type":"b"}}"#, Some("a")),
            (r#"{"x":1,"type":"a"}"#, Some("a")),
            (r#"{"x":{"type":"b"} , "type" : "a" } "#, Some("a")),
            (r#"{"x":"y,","type":"a"}"#, Some("a")),
            (r#"{"x":1,"type":"a","y":2}"#, None),
            (r#"{"x":{"y":1,"type":"a"}}"#, None),
            (r#"{"x":"y\",\"type\":\"a"}"#, None),
            (r#"{"x":"\"type\":\"a\""}"#, None),
            (r#"{"x":1,"y\"type":"a"}"#, None),
            (r#"{"x":1,"type":7}"#, None),
            (r#"{"x":"type"}"#, None),
            (r#"{"type":7}"#, None),
            (r#"{"type"}"#, None),
            (r#"{"type":"a"#, None),
            (r#"[{"x":1,"type":"a"}]"#, None),
            ("{}", None),
            ("\"}", None),
            ("", None),
        ] {
            assert_eq!(own(data).as_deref(), want, "{data}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut decoder = decoder();
        let mut out = Pieces::new();
        let start =
            Bytes::from_static(b"data: {\"type\":\"image_edit.partial_image\",\"b64_json\":\"");
        assert_eq!(decoder.feed(start, &mut out), Ok(()));
        let piece = Bytes::from(vec![b'A'; MAX_EVENT / 2]);
        assert_eq!(decoder.feed(piece.clone(), &mut out), Ok(()));
        assert_eq!(decoder.feed(piece, &mut out), Err(TooLong));
        assert!(out.is_empty());
    }

    #[test]
    fn a_streams_reader_is_small() {
        let beside = size_of::<Stream<Typed>>() - size_of::<Progress>();
        assert!(beside <= 176, "{beside}");
    }

    /// What streams are made of, and what is almost that.
    const PARTS: [&str; 22] = [
        "data: ",
        "data:",
        "event: error\n",
        ": ping\n",
        "\n",
        "\r\n",
        "\r",
        "{",
        "}",
        "[DONE]",
        r#"{"type":"response.created"}"#,
        r#"{"type":"response.output_text.delta","delta":"a"}"#,
        r#"{"delta":"","type":"speech.audio.delta","audio":"A"}"#,
        r#"{"type":"image_edit.partial_image"}"#,
        r#"{"type":"image_edit.completed","usage":{"input_tokens":1}}"#,
        r#"{"x":1,"type":"response.completed","response":{"usage":{"output_tokens":1}}}"#,
        r#"{"type":"response.failed"}"#,
        r#"{"type":"error","message":"m"}"#,
        r#"{"error":"m"}"#,
        r#"{"choices":[{"delta":{"content":"a"}}]}"#,
        "\"type\":\"response.completed\"",
        "\n\ndata: ",
    ];

    proptest! {
        /// Whatever passes, the bytes that come out are a prefix of those that went in but for a marker that ends nothing,
        /// and all is the same however they are cut.
        #[test]
        fn nothing_is_made_up(
            parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..24),
            most in 1_usize..40,
        ) {
            let text = parts.concat();
            let (out, whole) = decode(&[text.as_bytes()]);
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(most).collect();
            let (cut_out, cut) = decode(&pieces);
            prop_assert_eq!(&out, &cut_out);
            prop_assert_eq!(all(&whole), all(&cut));
            if !text.contains("[DONE]") {
                prop_assert!(text.as_bytes().starts_with(&out));
            }
        }

        /// Whatever a model writes, and whatever a client says that comes back within an event: it ends no stream.
        #[test]
        fn no_text_ends_a_stream(
            text in "([\"\\\\{}:,\n]|type|response.completed|error|\\PC){0,40}",
            order in 0_usize..3,
            is_begun in any::<bool>(),
        ) {
            let within = serde_json::json!({"type": "response.completed", "error": text, (&*text): {"type": "error"}});
            let kind = r#""type":"response.output_text.delta""#.to_owned();
            let delta = format!(r#""delta":{}"#, serde_json::Value::from(&*text));
            let mut members = vec![delta, format!(r#""metadata":{within}"#)];
            members.insert(order, kind);
            let event = format!("{{{}}}", members.join(","));
            let begun = if is_begun { vec![r#"{"type":"transcript.text.segment"}"#] } else { vec![] };
            let stream = bare(&[&begun[..], &[&event]].concat());
            let (out, progress) = decode(&[stream.as_bytes()]);
            prop_assert_eq!(progress.end, None);
            prop_assert_eq!(progress.said, u64::from(!text.is_empty()));
            prop_assert_eq!(progress.content, is_begun || !text.is_empty());
            prop_assert_eq!(&*out, stream.as_bytes());
        }
    }
}
