//! The usage of an answer, as OpenAI and those who follow it write it: read from its own value, or skimmed from an
//! answer too long to be held.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::Skimmer;
use crate::usage::Usage;

/// `usage`, as OpenAI and those who follow it write it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Count,
}

/// A whole number below any plausible bound; anything else is unknown.
#[derive(Clone, Copy, Debug, Default)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Count, E> {
                Ok(Count((n < 1 << 40).then_some(n)))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Count, E> {
                Ok(Count(None))
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "only whole numbers that fit are cast"
            )]
            fn visit_f64<E>(self, n: f64) -> Result<Count, E> {
                let is_whole = n.fract() == 0.0 && (0.0..1e12).contains(&n);
                Ok(Count(is_whole.then_some(n as u64)))
            }
        }
        d.deserialize_any(Number)
    }
}

impl Tokens {
    /// Cached input is part of the prompt; reasoning is part of the completion, except where a total says otherwise
    /// (xAI leaves it out of `completion_tokens`, Gemini's shim too; both count it in `total_tokens`).
    pub(super) fn usage(self) -> Option<Usage> {
        let prompt = self.prompt_tokens.0;
        let completion = self.completion_tokens.0;
        if prompt.is_none() && completion.is_none() {
            return None;
        }
        let prompt = prompt.unwrap_or(0);
        // Zeros all over are what servers that do not count write.
        if prompt == 0 && completion.unwrap_or(0) == 0 {
            return None;
        }
        let total = self.total_tokens.0.unwrap_or(0);
        let completion = completion.unwrap_or(0).max(total.saturating_sub(prompt));
        let details = self.prompt_tokens_details.unwrap_or_default();
        let cached = details.cached_tokens.0.unwrap_or(0).min(prompt);
        let cache_write = details
            .cache_write_tokens
            .0
            .unwrap_or(0)
            .min(prompt - cached);
        let reasoning = self
            .completion_tokens_details
            .unwrap_or_default()
            .reasoning_tokens;
        let reasoning = reasoning.0.unwrap_or(0).min(completion);
        Some(Usage {
            input: prompt - cached - cache_write,
            cached,
            cache_write,
            output: completion - reasoning,
            reasoning,
        })
    }
}

/// Finds `usage` and `error` at the top level of an object of any length, with bounded memory, and whether the object
/// was complete. It checks as little as that takes: an answer is the provider's to write, and the client's to read.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what a byte means depends on each of them"
)]
pub(super) struct Skim {
    /// The object has begun.
    started: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// At the top level, a name comes next.
    wants_name: bool,
    name: Name,
    /// What came in earlier pieces of the value of a member that matters.
    value: Option<Vec<u8>>,
    broken: bool,
    usage: Option<Usage>,
    is_error: bool,
}

/// The longest value that is read, in bytes.
const LONGEST_VALUE: usize = 16 << 10;

/// The start of a member's name: enough to know those that matter from all others.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    bytes: [u8; 6],
    length: usize,
}

impl Name {
    fn push(&mut self, text: &[u8]) {
        let free = self.bytes.iter_mut().skip(self.length);
        free.zip(text).for_each(|(slot, byte)| *slot = *byte);
        self.length = self.length.saturating_add(text.len());
    }

    fn is(&self, name: &[u8]) -> bool {
        self.bytes.get(..self.length) == Some(name)
    }
}

impl Skim {
    /// Whether the object says that it is an error.
    pub(super) fn is_error(&self) -> bool {
        self.is_error
    }

    /// Reads on within a string: to its end, to an escape, or to the end of the text. How many bytes that were.
    fn string(&mut self, text: &[u8]) -> usize {
        let is_name = self.depth == 1 && self.wants_name;
        if self.escaped {
            self.escaped = false;
            return 1;
        }
        // Inside a string only its end matters.
        let run = memchr::memchr2(b'"', b'\\', text).unwrap_or(text.len());
        if is_name {
            // With the backslash of an escape: a name that has one is none of those that matter.
            let shown = run + usize::from(text.get(run) == Some(&b'\\'));
            self.name.push(text.get(..shown).unwrap_or_default());
        }
        match text.get(run) {
            Some(b'"') => {
                self.in_string = false;
                self.wants_name &= !is_name;
            }
            Some(_) => self.escaped = true,
            None => {}
        }
        run + 1
    }

    /// A member of the top level is over; `last` is what this piece has of its value, if the value matters.
    fn close(&mut self, last: Option<&[u8]>) {
        let earlier = self.value.take();
        if let Some(last) = last {
            let whole = match earlier {
                Some(mut earlier) if !earlier.is_empty() => {
                    earlier.extend_from_slice(last);
                    Cow::Owned(earlier)
                }
                _ => Cow::Borrowed(last),
            };
            if self.name.is(b"usage") {
                let tokens = serde_json::from_slice::<Tokens>(&whole).ok();
                self.usage = tokens.and_then(Tokens::usage).or(self.usage);
            } else {
                let nothing = matches!(whole.trim_ascii(), b"null" | b"false" | b"\"\"" | b"{}");
                self.is_error = !nothing;
            }
        }
        self.name = Name::default();
    }
}

impl Skimmer for Skim {
    fn feed(&mut self, piece: &[u8]) {
        let mut at = 0;
        // Where the value that matters starts in this piece.
        let mut from = self.value.is_some().then_some(0);
        while let Some(&byte) = piece.get(at) {
            if self.in_string {
                at += self.string(piece.get(at..).unwrap_or_default());
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.broken |= self.depth == 0 && (self.started || byte == b'[');
                    self.started = true;
                    self.depth += 1;
                    self.wants_name = self.depth == 1;
                }
                b',' | b'}' | b']' if self.depth == 1 => {
                    self.close(from.take().and_then(|from| piece.get(from..at)));
                    self.wants_name = true;
                    self.depth -= usize::from(byte != b',');
                }
                b'}' | b']' => {
                    self.broken |= self.depth == 0;
                    self.depth = self.depth.saturating_sub(1);
                }
                b':' if self.depth == 1 && (self.name.is(b"usage") || self.name.is(b"error")) => {
                    from = from.or(Some(at + 1));
                }
                // Outside of everything there is nothing but white space.
                _ => self.broken |= self.depth == 0 && !byte.is_ascii_whitespace(),
            }
            at += 1;
        }
        if let Some(rest) = from.and_then(|from| piece.get(from..)) {
            let value = self.value.get_or_insert_default();
            if value.len() + rest.len() > LONGEST_VALUE {
                // Forget it, and its name, so that what is left of it is not taken for the whole.
                self.value = None;
                self.name = Name::default();
            } else {
                value.extend_from_slice(rest);
            }
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn is_complete(&self) -> bool {
        self.started && self.depth == 0 && !self.broken
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A usage with something in every class but one.
    pub(in crate::protocol) const USAGE: &str = r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#;
    /// What [`USAGE`] says.
    pub(in crate::protocol) const COUNTED: Usage = Usage {
        input: 8,
        cached: 4,
        cache_write: 0,
        output: 3,
        reasoning: 2,
    };

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
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
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
    fn a_whole_answer_is_one_object_and_nothing_else() {
        let whole = |text: &str| {
            let mut skim = Skim::default();
            skim.feed(text.as_bytes());
            (skim.is_complete(), skim.is_error())
        };
        for text in [
            "{}",
            " {\"a\":[{}],\"b\":\"}\\\"\"} \n",
            "{\"error\":null}",
            "{\"error\": false }",
            "{\"x\":{\"error\":1}}",
        ] {
            assert_eq!(whole(text), (true, false), "{text}");
        }
        for text in [
            "{\"error\":{\"message\":\"x\"}}",
            "{\"a\":1,\"error\" : \"x\"}",
        ] {
            assert_eq!(whole(text), (true, true), "{text}");
        }
        for text in [
            "",
            " ",
            "[]",
            "[{}]",
            "{",
            "{\"a\":\"}",
            "{}{}",
            "{} x",
            "}",
            "<html>",
            "null",
            "{\"a\":[}",
        ] {
            assert!(!whole(text).0, "{text}");
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
}
