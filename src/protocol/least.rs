//! How many tokens does a prompt have at the least? A lower bound, never a guess: whoever has less room cannot take it.
//!
//! Almost all vocabularies cut a text at its blanks, so that each word is a token or more; the few that have tokens of
//! several words save about a third. So half the words are safe. Length alone says next to nothing: a token may stand for a
//! hundred blanks, and a picture of a megabyte for a hundred tokens. What is not text counts as nothing.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Endpoint;
use crate::envelope::Members;

/// No request has more tokens at the least than one in so many bytes: a word has a letter and a blank, and two are a token.
pub const BYTES: u64 = 4;

/// By these a client lets its prompt be shortened: `OpenRouter`'s.
const SHORTENING: [&str; 2] = ["plugins", "transforms"];

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// The tokens of input that a request has at the least.
pub fn tokens(endpoint: Endpoint, body: &impl Members) -> u64 {
    if SHORTENING.iter().any(|name| body.value(name).is_some()) {
        return 0;
    }
    let words = match endpoint {
        // What cannot be read in one way may be short.
        Endpoint::ChatCompletions => body.value("messages").and_then(messages),
        // Of a list each is a prompt of its own.
        Endpoint::Completions => body.value("prompt").and_then(text),
        Endpoint::Embeddings => body.value("input").and_then(text),
        _ => None,
    };
    words.unwrap_or(0) / 2
}

fn messages(list: &[u8]) -> Option<u64> {
    let list: Vec<Message<'_>> = serde_json::from_slice(list).ok()?;
    let contents = list.iter().filter_map(|message| message.content);
    contents.map(content).sum()
}

fn content(value: &RawValue) -> Option<u64> {
    let value = value.get();
    if !value.starts_with('[') {
        return Some(text(value.as_bytes()).unwrap_or(0));
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(value).ok()?;
    let texts = parts.iter().filter_map(|part| part.text);
    Some(texts.filter_map(|it| text(it.get().as_bytes())).sum())
}

/// The words of a string, as JSON has it.
fn text(string: &[u8]) -> Option<u64> {
    let inner = string.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let (mut words, mut is_within) = (0, false);
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        let is_blank = match byte {
            b' ' => true,
            b'\\' => matches!(bytes.next(), Some(b'n' | b'r' | b't')),
            _ => false,
        };
        words += u64::from(!is_blank && !is_within);
        is_within = !is_blank;
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use bytes::Bytes;

    fn of(endpoint: Endpoint, body: &str) -> u64 {
        let envelope = Envelope::scan(Bytes::copy_from_slice(body.as_bytes()), |_| false).unwrap();
        let least = tokens(endpoint, &envelope);
        assert!(least <= envelope.length() / BYTES, "{body}");
        least
    }

    fn chat(messages: &str) -> u64 {
        of(
            Endpoint::ChatCompletions,
            &format!(r#"{{"messages":{messages}}}"#),
        )
    }

    #[test]
    fn half_the_words_are_tokens_and_nothing_else_is() {
        assert_eq!(
            chat(r#"[{"role":"user","content":"a b  c\nd\te\r\nf "}]"#),
            3
        );
        assert_eq!(
            chat(r#"[{"content":"one two"},{"content":"three four"}]"#),
            2
        );
        assert_eq!(chat(r#"[{"content":"\"a\" \\ \u0020x"}]"#), 1);
        let parts = r#"[{"content":[{"type":"text","text":"a b c d"},{"type":"image_url","image_url":{"url":"data:a b c d e f"}}]}]"#;
        assert_eq!(chat(parts), 2);
        for none in [
            r#"[{"role":"user","content":"        "}]"#,
            r#"[{"role":"user","content":null}]"#,
            r#"[{"role":"user","content":{"a b c d":"e f g h"}}]"#,
            r#"[{"role":"user","content":"a b c d","content":""}]"#,
            r#""a b c d""#,
            "[]",
        ] {
            assert_eq!(chat(none), 0, "{none}");
        }
    }

    #[test]
    fn a_list_of_prompts_is_as_short_as_the_shortest() {
        assert_eq!(of(Endpoint::Completions, r#"{"prompt":"a b c d"}"#), 2);
        assert_eq!(of(Endpoint::Embeddings, r#"{"input":"a b c d"}"#), 2);
        assert_eq!(of(Endpoint::Embeddings, r#"{"input":["a b c d"]}"#), 0);
    }

    #[test]
    fn who_lets_it_be_shortened_has_no_least() {
        let body = r#"{"messages":[{"content":"a b c d e f"}],"transforms":["middle-out"]}"#;
        assert_eq!(of(Endpoint::ChatCompletions, body), 0);
    }
}
