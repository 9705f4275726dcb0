//! The usage of an answer, as OpenAI and those who follow it write it: read from its own value, or skimmed from an
//! answer too long to be held.

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

/// Finds `usage` at the top level of an object of any length, with bounded memory.
#[derive(Debug, Default)]
pub(super) struct Skim {
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

    const USAGE: &str = r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#;
    const COUNTED: Usage = Usage {
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
