//! The usage of an answer, as OpenAI and those who follow it write it: read from its own value, or skimmed from an
//! answer too long to be held.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Skimmer;
use crate::usage::Usage;

/// `usage`, as OpenAI and those who follow it write it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens<'a> {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    #[serde(borrow)]
    prompt_tokens_details: Option<&'a RawValue>,
    /// Mistral's spelling varies.
    #[serde(borrow)]
    prompt_token_details: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens_details: Option<&'a RawValue>,
    /// Together.
    cached_tokens: Count,
    /// Mistral.
    num_cached_tokens: Count,
    /// DeepSeek.
    prompt_cache_hit_tokens: Count,
}

/// What is told of a prompt or of a completion beside its length.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
    reasoning_tokens: Count,
}

impl Details {
    /// What is no object tells nothing, and does no harm to the rest.
    fn read(raw: Option<&RawValue>) -> Self {
        let object = raw.filter(|raw| raw.get().starts_with('{'));
        object
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    }
}

/// A whole number below any plausible bound; anything else is unknown.
#[derive(Clone, Copy, Debug, Default)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Number;
        impl<'de> Visitor<'de> for Number {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<Count, E> {
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
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Count(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Count(None))
            }
        }
        d.deserialize_any(Number)
    }
}

impl Tokens<'_> {
    /// Cached input is part of the prompt, except where there is more of it than of the prompt: then it came on top
    /// (xAI). Reasoning is part of the completion, except where a total or the count itself says otherwise: xAI leaves
    /// it out of `completion_tokens`, Gemini's OpenAI interface too, and both count it in `total_tokens`.
    pub(super) fn usage(self) -> Option<Usage> {
        let prompt = self.prompt_tokens.0.unwrap_or(0);
        let completion = self.completion_tokens.0.unwrap_or(0);
        // Zeros all over are what servers that do not count write.
        if prompt == 0 && completion == 0 {
            return None;
        }
        let of_prompt = [self.prompt_tokens_details, self.prompt_token_details].map(Details::read);
        let [first, second] = of_prompt;
        // Each names them its own way, and who names them twice means the same ones.
        let cached = [
            first.cached_tokens,
            second.cached_tokens,
            self.num_cached_tokens,
            self.prompt_cache_hit_tokens,
            self.cached_tokens,
        ];
        let cached = cached.into_iter().filter_map(|count| count.0).max();
        let cached = cached.unwrap_or(0);
        let whole_prompt = if cached > prompt {
            prompt + cached
        } else {
            prompt
        };
        let fresh = whole_prompt - cached;
        let written = of_prompt.iter().filter_map(|of| of.cache_write_tokens.0);
        let cache_write = written.max().unwrap_or(0).min(fresh);
        let details = Details::read(self.completion_tokens_details);
        let reasoning = details.reasoning_tokens.0.unwrap_or(0);
        let total = self.total_tokens.0.unwrap_or(0);
        let is_beside = reasoning > completion || total == prompt + completion + reasoning;
        let output = if is_beside {
            completion + reasoning
        } else {
            completion.max(total.saturating_sub(whole_prompt))
        };
        let reasoning = reasoning.min(output);
        Some(Usage {
            input: fresh - cache_write,
            cached,
            cache_write,
            output: output - reasoning,
            reasoning,
            ..Usage::default()
        })
    }
}

/// Finds `usage` at the top level of an object of any length, with bounded memory, and whether the object was complete. It checks as little as that takes: an answer is the provider's to write, and the client's to read.
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
    /// What came in earlier pieces of the value of `usage`.
    value: Option<Vec<u8>>,
    broken: bool,
    usage: Option<Usage>,
}

/// The longest value that is read, in bytes.
const LONGEST_VALUE: usize = 16 << 10;

/// The start of a member's name: enough to know the one that matters from all others.
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
            // With the backslash of an escape: a name that has one is not the one that matters.
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
            let tokens = serde_json::from_slice::<Tokens<'_>>(&whole).ok();
            self.usage = tokens.and_then(Tokens::usage).or(self.usage);
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
                b'"' => {
                    self.broken |= self.depth == 0;
                    self.in_string = true;
                }
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
                b':' if self.depth == 1 && self.name.is(b"usage") => {
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
        cache_write_1h: 0,
        audio_input: 0,
        image_input: 0,
        output: 3,
        reasoning: 2,
        audio_output: 0,
        image_output: 0,
        cost: None,
    };

    /// Each provider's own way, and what it means: input, cached, `cache_write`, output, reasoning.
    const PROVIDERS: &[(&str, [u64; 5])] = &[
        // OpenAI and Azure (platform.openai.com/docs/api-reference/chat/object): what is predicted and rejected is output.
        (
            r#"{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":6,"cache_write_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":3,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":1}}"#,
            [10, 6, 4, 6, 3],
        ),
        // OpenAI's embeddings: no completion.
        (r#"{"prompt_tokens":3,"total_tokens":3}"#, [3, 0, 0, 0, 0]),
        // Groq (console.groq.com/docs/api-reference): seconds among the counts.
        (
            r#"{"queue_time":0.1,"prompt_tokens":12,"prompt_time":0.01,"completion_tokens":5,"completion_time":0.2,"total_tokens":17,"total_time":0.21,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#,
            [8, 4, 0, 3, 2],
        ),
        // OpenRouter (openrouter.ai/docs, "usage accounting"): with the cost.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"cost":0.00014,"is_byok":false,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2,"audio_tokens":0,"video_tokens":0},"cost_details":{"upstream_inference_cost":null},"completion_tokens_details":{"reasoning_tokens":2,"image_tokens":0}}"#,
            [6, 4, 2, 3, 2],
        ),
        // Ollama's own source: three counts. An older one leaves out the prompt where all of it was cached.
        (
            r#"{"prompt_tokens":26,"completion_tokens":298,"total_tokens":324}"#,
            [26, 0, 0, 298, 0],
        ),
        (
            r#"{"prompt_tokens":0,"completion_tokens":298,"total_tokens":298}"#,
            [0, 0, 0, 298, 0],
        ),
        // llama.cpp's own source.
        (
            r#"{"completion_tokens":5,"prompt_tokens":12,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":11}}"#,
            [1, 11, 0, 5, 0],
        ),
        // vLLM's own source: details are null unless they are switched on, and the completion at first.
        (
            r#"{"prompt_tokens":12,"total_tokens":12,"completion_tokens":0,"prompt_tokens_details":null}"#,
            [12, 0, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"total_tokens":12,"completion_tokens":null}"#,
            [12, 0, 0, 0, 0],
        ),
        // Anthropic's OpenAI interface (docs.anthropic.com): details empty.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{},"completion_tokens_details":{}}"#,
            [12, 0, 0, 5, 0],
        ),
        // Gemini's OpenAI interface (ai.google.dev): thoughts only in the total; no completion where all was thought.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":57}"#,
            [12, 0, 0, 45, 0],
        ),
        (
            r#"{"prompt_tokens":12,"total_tokens":57}"#,
            [12, 0, 0, 45, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":57,"completion_tokens_details":{"reasoning_tokens":40}}"#,
            [12, 0, 0, 5, 40],
        ),
        // Mistral (docs.mistral.ai): three places for what was cached.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"num_cached_tokens":4}"#,
            [8, 4, 0, 5, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_audio_seconds":{},"prompt_token_details":{"cached_tokens":4}}"#,
            [8, 4, 0, 5, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"num_cached_tokens":4,"prompt_token_details":{"cached_tokens":4},"prompt_tokens_details":{"cached_tokens":4}}"#,
            [8, 4, 0, 5, 0],
        ),
        // DeepSeek (api-docs.deepseek.com): hit and miss make up the prompt.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":8}"#,
            [8, 4, 0, 5, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2},"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":8}"#,
            [8, 4, 0, 3, 2],
        ),
        // xAI (docs.x.ai): reasoning beside the completion; cached input may come on top of the prompt.
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":10,"completion_tokens_details":{"reasoning_tokens":5},"cost_in_usd_ticks":1}"#,
            [3, 0, 0, 2, 5],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":9,"total_tokens":17,"completion_tokens_details":{"reasoning_tokens":5}}"#,
            [3, 0, 0, 9, 5],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":5}}"#,
            [3, 0, 0, 2, 5],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":100},"completion_tokens_details":{"reasoning_tokens":5}}"#,
            [3, 100, 0, 2, 5],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":105,"prompt_tokens_details":{"cached_tokens":100}}"#,
            [3, 100, 0, 2, 0],
        ),
        // Together (docs.together.ai): at the top.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"cached_tokens":4}"#,
            [8, 4, 0, 5, 0],
        ),
        // Fireworks (docs.fireworks.ai).
        (
            r#"{"prompt_tokens":12,"total_tokens":17,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}"#,
            [12, 0, 0, 5, 0],
        ),
        // Where numbers are floats: those that are whole are counts.
        (
            r#"{"prompt_tokens":3.0,"completion_tokens":null}"#,
            [3, 0, 0, 0, 0],
        ),
        // A total that is less than its parts is wrong, and the parts are kept.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":1}"#,
            [12, 0, 0, 5, 0],
        ),
        // What cannot be read does no harm to what can.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":{},"cached_tokens":[1],"num_cached_tokens":true,"prompt_tokens_details":"x","completion_tokens_details":[7]}"#,
            [12, 0, 0, 5, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":-4},"completion_tokens_details":{"reasoning_tokens":"2"}}"#,
            [12, 0, 0, 5, 0],
        ),
    ];

    fn read(text: &str) -> Option<Usage> {
        let tokens = serde_json::from_str::<Tokens<'_>>(text).ok();
        tokens.and_then(Tokens::usage)
    }

    #[test]
    fn every_providers_usage_is_read_where_it_puts_it() {
        assert_eq!(read(USAGE), Some(COUNTED));
        for (text, want) in PROVIDERS {
            assert_eq!(
                read(text).map(|u| [u.input, u.cached, u.cache_write, u.output, u.reasoning]),
                Some(*want),
                "{text}"
            );
        }
    }

    #[test]
    fn what_counts_nothing_is_unknown() {
        for nothing in [
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
            r#"{"prompt_tokens":0,"prompt_tokens_details":{"cached_tokens":0}}"#,
            r#"{"total_tokens":7}"#,
            "{}",
            "[]",
            "7",
            "null",
            r#"{"prompt_tokens":-1}"#,
            r#"{"prompt_tokens":"3"}"#,
            r#"{"prompt_tokens":2.5}"#,
            r#"{"prompt_tokens":1e300}"#,
            r#"{"prompt_tokens":1099511627776}"#,
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_whole_answer_is_one_object_and_nothing_else() {
        let is_whole = |text: &str| {
            let mut skim = Skim::default();
            skim.feed(text.as_bytes());
            skim.is_complete()
        };
        for text in ["{}", " {\"a\":[{}],\"b\":\"}\\\"\"} \n", "{\"usage\":null}"] {
            assert!(is_whole(text), "{text}");
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
            assert!(!is_whole(text), "{text}");
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
