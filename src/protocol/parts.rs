//! What is asked about? Texts, whose length bounds their tokens; pictures, which take more than their bytes; and what a body
//! only points at.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Endpoint;
use crate::envelope::Members;

/// What is asked about.
pub(super) struct Parts {
    /// Something that is not in the body.
    pub(super) unseen: bool,
    pub(super) pictures: u64,
    /// Prompts that each get their own answers.
    pub(super) prompts: u64,
}

impl Parts {
    const TEXT: Self = Self {
        unseen: false,
        pictures: 0,
        prompts: 1,
    };
    const UNSEEN: Self = Self {
        unseen: true,
        ..Self::TEXT
    };

    pub(super) fn of(endpoint: Endpoint, body: &impl Members) -> Self {
        let read = match endpoint {
            Endpoint::ChatCompletions => body.value("messages").map(messages),
            Endpoint::Completions => body.value("prompt").map(prompts),
            Endpoint::Embeddings => body.value("input").map(prompts),
            Endpoint::Moderations => body.value("input").map(judged),
            // A prompt that its provider keeps.
            Endpoint::Responses if body.value("prompt").is_some_and(|it| it != b"null") => {
                return Self::UNSEEN;
            }
            Endpoint::Responses => body.value("input").map(items),
            // Sound is in tokens what a provider makes of it, and so are pictures that are changed.
            Endpoint::Transcriptions | Endpoint::Translations | Endpoint::ImageEdits => {
                return Self::UNSEEN;
            }
            // Nothing but texts, or what is sent as such.
            _ => None,
        };
        // What cannot be read in one way may be anything.
        read.map_or(Self::TEXT, |parts| parts.unwrap_or(Self::UNSEEN))
    }

    fn and(self, other: &Self) -> Self {
        Self {
            unseen: self.unseen || other.unseen,
            pictures: self.pictures.saturating_add(other.pictures),
            ..self
        }
    }
}

/// A text, a list of texts, the tokens of one, or a list of such.
fn prompts(value: &[u8]) -> Option<Parts> {
    if value.starts_with(b"\"") || value == b"null" {
        return Some(Parts::TEXT);
    }
    // An object in it may be a picture.
    if memchr(b'{', value).is_some() && !only_texts(value) {
        return None;
    }
    let list: Vec<&RawValue> = serde_json::from_slice(value).ok()?;
    let is_tokens = list
        .first()
        .is_some_and(|first| first.get().starts_with(|c: char| c.is_ascii_digit()));
    Some(Parts {
        prompts: if is_tokens {
            1
        } else {
            (list.len() as u64).max(1)
        },
        ..Parts::TEXT
    })
}

fn only_texts(value: &[u8]) -> bool {
    serde_json::from_slice::<Vec<Cow<'_, str>>>(value).is_ok()
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    /// An earlier answer's sound, by its name.
    audio: Option<IgnoredAny>,
}

fn messages(value: &[u8]) -> Option<Parts> {
    // Every content is a text, and that is most requests.
    if is_flat(value.strip_prefix(b"[")?) {
        return Some(Parts::TEXT);
    }
    let messages: Vec<Message<'_>> = serde_json::from_slice(value).ok()?;
    messages.iter().try_fold(Parts::TEXT, |sum, message| {
        let content = message.content.map_or("null", RawValue::get);
        let parts = match content.as_bytes().first() {
            _ if message.audio.is_some() => Parts::UNSEEN,
            Some(b'"' | b'n') => Parts::TEXT,
            Some(b'[') => content_parts(content)?,
            _ => Parts::UNSEEN,
        };
        Some(sum.and(&parts))
    })
}

/// Whether there is neither a list nor an object in what is listed.
fn is_flat(list: &[u8]) -> bool {
    memchr(b'[', list).is_none() && !has_inner_object(list)
}

/// Whether an object may be the value of a member: a brace after a colon, though it may be within a text.
fn has_inner_object(text: &[u8]) -> bool {
    memchr_iter(b'{', text).any(|at| {
        let before = text.get(..at).unwrap_or_default().trim_ascii_end();
        before.ends_with(b":")
    })
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
}

fn content_parts(list: &str) -> Option<Parts> {
    let parts: Vec<Part<'_>> = serde_json::from_str(list).ok()?;
    let one = |part: &Part<'_>| match &*part.kind {
        "text" | "input_text" | "output_text" | "refusal" | "input_audio" | "thinking" => {
            Parts::TEXT
        }
        "image_url" | "input_image" if part.image_url.is_some_and(is_inline) => Parts {
            pictures: 1,
            ..Parts::TEXT
        },
        // An address, a file by its name, a document whose text is compressed: its length tells nothing.
        _ => Parts::UNSEEN,
    };
    Some(
        parts
            .iter()
            .map(one)
            .fold(Parts::TEXT, |sum, part| sum.and(&part)),
    )
}

/// Whether a picture is in the body: `data:…`, alone or as `{"url": …}`.
fn is_inline(value: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Address<'a> {
        #[serde(borrow)]
        url: Cow<'a, str>,
    }
    let text = value.get();
    let url = if text.starts_with('"') {
        serde_json::from_str::<Cow<'_, str>>(text).ok()
    } else {
        serde_json::from_str::<Address<'_>>(text)
            .ok()
            .map(|address| address.url)
    };
    url.is_some_and(|url| {
        url.get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case("data:"))
    })
}

/// A text, a list of texts, or a list of texts and pictures.
fn judged(value: &[u8]) -> Option<Parts> {
    match memchr(b'{', value) {
        Some(_) if value.starts_with(b"[") => content_parts(std::str::from_utf8(value).ok()?),
        _ => prompts(value),
    }
}

/// One of what a response is asked about: a message, a call of a function, what came of one, what was thought.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

/// What an item has that is more than a message: what else it is, or which one that its provider keeps; and what may be
/// either, written in another way.
static MORE: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["\"type\"", "\"id\"", "\\u"].map(Finder::new));

/// A text, or a list of items.
fn items(value: &[u8]) -> Option<Parts> {
    if value.starts_with(b"\"") || value == b"null" {
        return Some(Parts::TEXT);
    }
    // Messages, of which every content is a text: that is most requests.
    let is_plain = |list| is_flat(list) && MORE.iter().all(|word| word.find(list).is_none());
    if value.strip_prefix(b"[").is_some_and(is_plain) {
        return Some(Parts::TEXT);
    }
    let items: Vec<Item<'_>> = serde_json::from_slice(value).ok()?;
    items.iter().try_fold(Parts::TEXT, |sum, item| {
        let written = match item.kind.as_deref() {
            None | Some("message") => item.content,
            Some("function_call_output" | "custom_tool_call_output") => item.output,
            Some("function_call" | "custom_tool_call") => return Some(sum),
            // What was thought is encrypted, or lies with the provider, and so does all else.
            _ => return Some(Parts::UNSEEN),
        };
        // What has none names one that its provider keeps.
        let Some(written) = written.map(RawValue::get) else {
            return Some(Parts::UNSEEN);
        };
        let parts = match written.as_bytes().first() {
            Some(b'"') => Parts::TEXT,
            Some(b'[') => content_parts(written)?,
            _ => Parts::UNSEEN,
        };
        Some(sum.and(&parts))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_without_content_is_one_that_its_provider_keeps() {
        let is_seen = |list: &str| items(list.as_bytes()).is_some_and(|parts| !parts.unseen);
        for seen in [
            r#""hello""#,
            r#"[{"role":"user","content":"an \"id\" of a { kind"}]"#,
            r#"[{"role":"user","content":"\u00e9"},{"type":"message","role":"user","content":"b"}]"#,
            r#"[{"role":"user","content":[{"type":"input_text","text":"a"}]}]"#,
            r#"[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"7"}]"#,
            r#"[{"type":"message","id":"msg_1","role":"assistant","content":"a"}]"#,
        ] {
            assert!(is_seen(seen), "{seen}");
        }
        for unseen in [
            r#"[{"id":"msg_1"}]"#,
            r#"[{"\u0069d":"msg_1"}]"#,
            r#"[{"role":"user","content":"a"},{"id":"msg_1","type":null}]"#,
            r#"[{"type":"item_reference","id":"msg_1"}]"#,
            r#"[{"t\u0079pe":"item_reference"}]"#,
            r#"[{"type":"message","id":"msg_1"}]"#,
            r#"[{"type":"function_call_output","call_id":"c","output":null}]"#,
            r#"[{"type":"reasoning","id":"rs_1"}]"#,
            r#"{"role":"user"}"#,
        ] {
            assert!(!is_seen(unseen), "{unseen}");
        }
    }
}
