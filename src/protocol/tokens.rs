//! The usage of an answer, as OpenAI and those who follow it write it, read from its own value.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::usage::{Decimal, Money, Unit, Usage};

/// `usage`, as OpenAI and those who follow it write it: chats in its older names, and responses, sound and images in its
/// newer ones. Who writes both means the same tokens, and the larger count is the one that is filled in.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens<'a> {
    #[serde(borrow)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    output_tokens: Option<&'a RawValue>,
    total_tokens: Count,
    /// Transcripts that are billed by their length.
    #[serde(borrow)]
    seconds: Option<&'a RawValue>,
    /// Mistral, beside tokens.
    #[serde(borrow)]
    prompt_audio_seconds: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_tokens_details: Option<&'a RawValue>,
    /// Mistral's spelling varies.
    #[serde(borrow)]
    prompt_token_details: Option<&'a RawValue>,
    #[serde(borrow)]
    input_tokens_details: Option<&'a RawValue>,
    /// Transcripts.
    #[serde(borrow)]
    input_token_details: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens_details: Option<&'a RawValue>,
    #[serde(borrow)]
    output_tokens_details: Option<&'a RawValue>,
    /// Together.
    cached_tokens: Count,
    /// Mistral.
    num_cached_tokens: Count,
    /// DeepSeek.
    prompt_cache_hit_tokens: Count,
    /// OpenRouter: dollars. Perplexity: an object that has them, with what its searches cost.
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    /// OpenRouter: the cost is only its own fee, and the provider sends a bill of its own.
    #[serde(borrow)]
    is_byok: Option<&'a RawValue>,
    /// OpenRouter: what the provider bills.
    #[serde(borrow)]
    cost_details: Option<&'a RawValue>,
    /// xAI: a dollar has 10^10 of them.
    #[serde(borrow)]
    cost_in_usd_ticks: Option<&'a RawValue>,
}

/// What is told of a prompt or of a completion beside its length.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Details<'a> {
    cached_tokens: Count,
    cache_write_tokens: Count,
    /// `LiteLLM`, by Anthropic's name; as many as of `cache_write_tokens`.
    cache_creation_tokens: Count,
    /// `LiteLLM`: how long what was written is kept.
    #[serde(borrow)]
    cache_creation_token_details: Option<&'a RawValue>,
    reasoning_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
}

/// How long what was written to a cache is kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

/// What is told of a cost beside the amount, or in its place.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CostDetails<'a> {
    #[serde(borrow)]
    upstream_inference_cost: Option<&'a RawValue>,
    #[serde(borrow)]
    total_cost: Option<&'a RawValue>,
}

/// What is no object tells nothing, and does no harm to the rest.
pub(super) fn object<'a, T: Default + Deserialize<'a>>(raw: Option<&'a RawValue>) -> T {
    let object = raw.filter(|raw| raw.get().starts_with('{'));
    object
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default()
}

/// An answer that costs more than ten thousand dollars is a mistake of who says so.
const MOST_COST: Money = Money(10_000 * 1_000_000_000);
/// xAI's ticks in a billionth of a dollar.
const TICKS_PER_NANO: u64 = 10;

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

/// A length in seconds, each begun one whole. None: it is none, or as nonsensical as more tokens than any answer has.
pub(super) fn seconds(raw: &RawValue) -> Option<u64> {
    let seconds = Decimal::parse(raw.get(), 0).ok()?.up().ok()?;
    (seconds < 1 << 32).then_some(seconds)
}

/// The searches that `meta` tells of documents that were ranked, as Cohere writes it (docs.cohere.com, "Rerank API").
pub(super) fn searches(raw: &RawValue) -> Option<u64> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Meta<'a> {
        #[serde(borrow)]
        billed_units: Option<&'a RawValue>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Billed {
        search_units: Count,
    }
    let meta: Meta<'_> = object(Some(raw));
    let billed: Billed = object(meta.billed_units);
    billed.search_units.0
}

/// The usage that a value tells.
pub(super) fn usage(raw: &RawValue) -> Option<Usage> {
    object::<Tokens<'_>>(Some(raw)).usage()
}

/// A count without which there is no usage, by either of its names: 0 where it is not told, none where what is told is no
/// count.
fn told(names: [Option<&RawValue>; 2]) -> Option<u64> {
    let given = names.into_iter().flatten();
    let counts = given.map(|raw| serde_json::from_str::<Count>(raw.get()).ok()?.0);
    counts.reduce(Option::max).unwrap_or(Some(0))
}

/// Takes up to so many out of those that are left: the classes stay disjoint, whatever a provider says of them.
fn take(left: &mut u64, count: Option<u64>) -> u64 {
    let taken = count.unwrap_or(0).min(*left);
    *left -= taken;
    taken
}

/// What is told in some of these places: of most answers in none, or in one.
fn given<const N: usize>(places: [Option<&RawValue>; N]) -> SmallVec<[Details<'_>; 1]> {
    let given = places.into_iter().flatten();
    given.map(|raw| object(Some(raw))).collect()
}

/// The largest of the counts that mean the same tokens.
fn largest(counts: impl IntoIterator<Item = Count>) -> Option<u64> {
    counts.into_iter().filter_map(|count| count.0).max()
}

impl Tokens<'_> {
    /// Cached input is part of the prompt, except where there is more of it than of the prompt: then it came on top
    /// (xAI). Reasoning is part of the completion, except where a total or the count itself says otherwise: xAI leaves
    /// it out of `completion_tokens`, Gemini's OpenAI interface too, and both count it in `total_tokens`.
    pub(super) fn usage(self) -> Option<Usage> {
        // Where one of the two is nonsense, the other is not all that was used.
        let prompt = told([self.prompt_tokens, self.input_tokens]);
        let completion = told([self.completion_tokens, self.output_tokens]);
        let (prompt, completion) = prompt.zip(completion).unwrap_or_default();
        let cost = self.cost();
        let heard = self
            .seconds
            .and_then(seconds)
            .max(self.prompt_audio_seconds.and_then(seconds));
        let heard = Usage::default().with(Unit::Seconds, heard.unwrap_or(0));
        // Zeros all over are what servers that do not count write.
        if prompt == 0 && completion == 0 {
            let cost = cost.filter(|cost| *cost > Money::ZERO);
            let is_told = cost.is_some() || heard.seconds > 0;
            return is_told.then_some(Usage { cost, ..heard });
        }
        // Each names them its own way, and who names them twice means the same ones.
        let details = self.input_details();
        let cached = [
            self.num_cached_tokens,
            self.prompt_cache_hit_tokens,
            self.cached_tokens,
        ];
        let all = |of: fn(&Details<'_>) -> Count| details.iter().map(of);
        let cached = largest(all(|it| it.cached_tokens).chain(cached)).unwrap_or(0);
        let whole_prompt = if cached > prompt {
            prompt + cached
        } else {
            prompt
        };
        let mut input = whole_prompt - cached;
        let written = details.iter().map(Details::written).max();
        let (written, written_1h) = written.unwrap_or_default();
        let cache_write_1h = take(&mut input, Some(written_1h));
        let cache_write = take(&mut input, Some(written.saturating_sub(written_1h)));
        let audio_input = take(&mut input, largest(all(|it| it.audio_tokens)));
        let image_input = take(&mut input, largest(all(|it| it.image_tokens)));

        let details = self.output_details();
        let all = |of: fn(&Details<'_>) -> Count| details.iter().map(of);
        let reasoning = largest(all(|it| it.reasoning_tokens)).unwrap_or(0);
        let total = self.total_tokens.0.unwrap_or(0);
        let is_beside = reasoning > completion || total == prompt + completion + reasoning;
        let mut output = if is_beside {
            completion + reasoning
        } else {
            completion.max(total.saturating_sub(whole_prompt))
        };
        Some(Usage {
            cached,
            cache_write,
            cache_write_1h,
            audio_input,
            image_input,
            input,
            reasoning: take(&mut output, Some(reasoning)),
            audio_output: take(&mut output, largest(all(|it| it.audio_tokens))),
            image_output: take(&mut output, largest(all(|it| it.image_tokens))),
            output,
            cost,
            ..heard
        })
    }

    /// All tokens together, where no count says of which kind they are.
    pub(super) fn only_total(&self) -> Option<u64> {
        let counts = [
            self.prompt_tokens,
            self.completion_tokens,
            self.input_tokens,
            self.output_tokens,
        ];
        let total = self.total_tokens.0.filter(|total| *total > 0)?;
        counts.iter().all(Option::is_none).then_some(total)
    }

    /// What is told of the input, in any of the places there are for it.
    fn input_details(&self) -> SmallVec<[Details<'_>; 1]> {
        given([
            self.prompt_tokens_details,
            self.prompt_token_details,
            self.input_tokens_details,
            self.input_token_details,
        ])
    }

    /// What is told of the output, likewise.
    fn output_details(&self) -> SmallVec<[Details<'_>; 1]> {
        given([self.completion_tokens_details, self.output_tokens_details])
    }

    /// What the answer costs, if its provider says so, rounded up. Who pays the provider with a key of their own gets
    /// two bills: then one of them alone is not the cost.
    fn cost(&self) -> Option<Money> {
        let billed = |raw: Option<&RawValue>| Money::billed(raw?.get()).ok();
        let parts = || object::<CostDetails<'_>>(self.cost).total_cost;
        let mut cost = billed(self.cost).or_else(|| billed(parts()));
        if self.is_byok.is_some_and(|raw| raw.get() == "true") {
            let details: CostDetails<'_> = object(self.cost_details);
            let upstream = billed(details.upstream_inference_cost);
            cost = cost.zip(upstream).map(|(fee, upstream)| fee.plus(upstream));
        }
        let told = cost.or_else(|| {
            let ticks = Decimal::parse(self.cost_in_usd_ticks?.get(), 0);
            let ticks = ticks.ok()?.up().ok()?;
            Some(Money(ticks.div_ceil(TICKS_PER_NANO)))
        });
        told.filter(|cost| *cost <= MOST_COST)
    }
}

impl Details<'_> {
    /// How much was written to a cache, and how much of that for an hour.
    fn written(&self) -> (u64, u64) {
        let by_time: Written = object(self.cache_creation_token_details);
        let minutes = by_time.ephemeral_5m_input_tokens.0.unwrap_or(0);
        let hour = by_time.ephemeral_1h_input_tokens.0.unwrap_or(0);
        let all = largest([self.cache_write_tokens, self.cache_creation_tokens]);
        (all.unwrap_or(0).max(minutes + hour), hour)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::Skimmer as _;
    use super::super::skim::Skim;
    use super::*;
    use crate::usage::book::Book;
    use crate::usage::{INPUTS, KINDS, Most, TOKENS};

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
        characters: 0,
        seconds: 0,
        images: 0,
        searches: 0,
        look: crate::usage::Look::ANY,
        cost: None,
    };

    /// Each provider's own way, and what it means, in the order of `KINDS`: first what is input, then what is output.
    const PROVIDERS: &[(&str, [u64; TOKENS])] = &[
        // OpenAI and Azure (platform.openai.com/docs/api-reference/chat/object): what is predicted and rejected is output.
        (
            r#"{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":6,"cache_write_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":3,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":1}}"#,
            [10, 6, 4, 0, 0, 0, 6, 3, 0, 0],
        ),
        // OpenAI's embeddings: no completion.
        (
            r#"{"prompt_tokens":3,"total_tokens":3}"#,
            [3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        // Groq (console.groq.com/docs/api-reference): seconds among the counts.
        (
            r#"{"queue_time":0.1,"prompt_tokens":12,"prompt_time":0.01,"completion_tokens":5,"completion_time":0.2,"total_tokens":17,"total_time":0.21,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#,
            [8, 4, 0, 0, 0, 0, 3, 2, 0, 0],
        ),
        // OpenRouter (openrouter.ai/docs, "usage accounting"): with the cost.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"cost":0.00014,"is_byok":false,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2,"audio_tokens":0,"video_tokens":0},"cost_details":{"upstream_inference_cost":null},"completion_tokens_details":{"reasoning_tokens":2,"image_tokens":0}}"#,
            [6, 4, 2, 0, 0, 0, 3, 2, 0, 0],
        ),
        // Ollama's own source: three counts. An older one leaves out the prompt where all of it was cached.
        (
            r#"{"prompt_tokens":26,"completion_tokens":298,"total_tokens":324}"#,
            [26, 0, 0, 0, 0, 0, 298, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":0,"completion_tokens":298,"total_tokens":298}"#,
            [0, 0, 0, 0, 0, 0, 298, 0, 0, 0],
        ),
        // llama.cpp's own source.
        (
            r#"{"completion_tokens":5,"prompt_tokens":12,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":11}}"#,
            [1, 11, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // vLLM's own source: details are null unless they are switched on, and the completion at first.
        (
            r#"{"prompt_tokens":12,"total_tokens":12,"completion_tokens":0,"prompt_tokens_details":null}"#,
            [12, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"total_tokens":12,"completion_tokens":null}"#,
            [12, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        // Anthropic's OpenAI interface (docs.anthropic.com): details empty.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{},"completion_tokens_details":{}}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // Gemini's OpenAI interface (ai.google.dev): thoughts only in the total; no completion where all was thought.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":57}"#,
            [12, 0, 0, 0, 0, 0, 45, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"total_tokens":57}"#,
            [12, 0, 0, 0, 0, 0, 45, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":57,"completion_tokens_details":{"reasoning_tokens":40}}"#,
            [12, 0, 0, 0, 0, 0, 5, 40, 0, 0],
        ),
        // Mistral (docs.mistral.ai): three places for what was cached.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"num_cached_tokens":4}"#,
            [8, 4, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_audio_seconds":{},"prompt_token_details":{"cached_tokens":4}}"#,
            [8, 4, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"num_cached_tokens":4,"prompt_token_details":{"cached_tokens":4},"prompt_tokens_details":{"cached_tokens":4}}"#,
            [8, 4, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // DeepSeek (api-docs.deepseek.com): hit and miss make up the prompt.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":8}"#,
            [8, 4, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2},"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":8}"#,
            [8, 4, 0, 0, 0, 0, 3, 2, 0, 0],
        ),
        // xAI (docs.x.ai): reasoning beside the completion; cached input may come on top of the prompt.
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":10,"completion_tokens_details":{"reasoning_tokens":5},"cost_in_usd_ticks":1}"#,
            [3, 0, 0, 0, 0, 0, 2, 5, 0, 0],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":9,"total_tokens":17,"completion_tokens_details":{"reasoning_tokens":5}}"#,
            [3, 0, 0, 0, 0, 0, 9, 5, 0, 0],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":5}}"#,
            [3, 0, 0, 0, 0, 0, 2, 5, 0, 0],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":100},"completion_tokens_details":{"reasoning_tokens":5}}"#,
            [3, 100, 0, 0, 0, 0, 2, 5, 0, 0],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":105,"prompt_tokens_details":{"cached_tokens":100}}"#,
            [3, 100, 0, 0, 0, 0, 2, 0, 0, 0],
        ),
        // Together (docs.together.ai): at the top.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"cached_tokens":4}"#,
            [8, 4, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // Fireworks (docs.fireworks.ai).
        (
            r#"{"prompt_tokens":12,"total_tokens":17,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // Where numbers are floats: those that are whole are counts.
        (
            r#"{"prompt_tokens":3.0,"completion_tokens":null}"#,
            [3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        // A total that is less than its parts is wrong, and the parts are kept.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":1}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // What cannot be read does no harm to what can.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":{},"cached_tokens":[1],"num_cached_tokens":true,"prompt_tokens_details":"x","completion_tokens_details":[7]}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":-4},"completion_tokens_details":{"reasoning_tokens":"2"}}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // OpenAI, sound in and out (platform.openai.com/docs/guides/audio); pictures and text have their counts, too.
        (
            r#"{"prompt_tokens":120,"completion_tokens":90,"total_tokens":210,"prompt_tokens_details":{"cached_tokens":10,"text_tokens":50,"audio_tokens":40,"image_tokens":30},"completion_tokens_details":{"reasoning_tokens":0,"text_tokens":20,"audio_tokens":70}}"#,
            [40, 10, 0, 0, 40, 30, 20, 0, 70, 0],
        ),
        // OpenRouter with a model that paints (openrouter.ai/docs, "image generation").
        (
            r#"{"prompt_tokens":12,"completion_tokens":1300,"total_tokens":1312,"cost":0.0389,"is_byok":false,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":3,"video_tokens":2},"completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":0,"image_tokens":1290}}"#,
            [9, 0, 0, 0, 3, 0, 6, 4, 0, 1290],
        ),
        // xAI (docs.x.ai): text, sound and pictures side by side with what was cached of them.
        (
            r#"{"prompt_tokens":199,"completion_tokens":1,"total_tokens":200,"prompt_tokens_details":{"text_tokens":179,"audio_tokens":0,"image_tokens":20,"cached_tokens":163},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0},"num_sources_used":0}"#,
            [16, 163, 0, 0, 0, 20, 1, 0, 0, 0],
        ),
        // LiteLLM before Anthropic (its own source, `PromptTokensDetailsWrapper`): both writes are in the first count.
        (
            r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"prompt_tokens_details":{"cached_tokens":20,"cache_write_tokens":50,"cache_creation_tokens":50,"cache_creation_token_details":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":20}}}"#,
            [30, 20, 30, 20, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cache_creation_tokens":50}}"#,
            [50, 0, 50, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cache_creation_token_details":{"ephemeral_1h_input_tokens":20}}}"#,
            [80, 0, 0, 20, 0, 0, 5, 0, 0, 0],
        ),
        // Perplexity (docs.perplexity.ai/api-reference): words of its own beside the counts.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"search_context_size":"low","cost":{"input_tokens_cost":0.0,"output_tokens_cost":0.0,"request_cost":0.005,"total_cost":0.005}}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // Cohere's OpenAI interface (docs.cohere.com/docs/compatibility-api) and Cerebras (inference-docs.cerebras.ai).
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // OpenAI's responses (platform.openai.com/docs/api-reference/responses/object), and Azure's.
        (
            r#"{"input_tokens":20,"input_tokens_details":{"cached_tokens":6,"cache_write_tokens":4},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":29}"#,
            [10, 6, 4, 0, 0, 0, 6, 3, 0, 0],
        ),
        // OpenRouter's responses (openrouter.ai/docs, "responses"): with the cost.
        (
            r#"{"input_tokens":12,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":17,"cost":0.0012,"is_byok":false,"cost_details":{"upstream_inference_cost":null,"upstream_inference_input_cost":0.0008,"upstream_inference_output_cost":0.0004}}"#,
            [8, 4, 0, 0, 0, 0, 3, 2, 0, 0],
        ),
        // llama.cpp's responses (its own source): no details. vLLM's (its own source): some of its own among them.
        (
            r#"{"input_tokens":12,"output_tokens":5,"total_tokens":17}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"input_tokens":12,"input_tokens_details":{"cached_tokens":0,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]},"total_tokens":17}"#,
            [12, 0, 0, 0, 0, 0, 3, 2, 0, 0],
        ),
        // xAI's responses (docs.x.ai): reasoning within the output, or beside it as in a chat.
        (
            r#"{"input_tokens":32,"input_tokens_details":{"cached_tokens":6},"output_tokens":110,"output_tokens_details":{"reasoning_tokens":101},"total_tokens":142,"num_sources_used":0}"#,
            [26, 6, 0, 0, 0, 0, 9, 101, 0, 0],
        ),
        (
            r#"{"input_tokens":32,"output_tokens":9,"output_tokens_details":{"reasoning_tokens":101},"total_tokens":142}"#,
            [32, 0, 0, 0, 0, 0, 9, 101, 0, 0],
        ),
        // OpenAI's transcripts (platform.openai.com/docs/api-reference/audio): sound in, and its own name for that.
        (
            r#"{"type":"tokens","input_tokens":114,"input_token_details":{"text_tokens":14,"audio_tokens":100},"output_tokens":45,"total_tokens":159}"#,
            [14, 0, 0, 0, 100, 0, 45, 0, 0, 0],
        ),
        // OpenAI's speech (same page): text in, sound out, and nothing says so.
        (
            r#"{"input_tokens":14,"output_tokens":101,"total_tokens":115}"#,
            [14, 0, 0, 0, 0, 0, 101, 0, 0, 0],
        ),
        // OpenAI's images (platform.openai.com/docs/api-reference/images): older models do not say what came out.
        (
            r#"{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}"#,
            [10, 0, 0, 0, 0, 40, 50, 0, 0, 0],
        ),
        (
            r#"{"total_tokens":1310,"input_tokens":50,"output_tokens":1260,"input_tokens_details":{"text_tokens":10,"image_tokens":40,"cached_tokens":0},"output_tokens_details":{"image_tokens":1200,"text_tokens":60}}"#,
            [10, 0, 0, 0, 0, 40, 60, 0, 0, 1200],
        ),
        // new-api (its own source, `dto.Usage`) writes both names, and zeros under those that it does not mean.
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"input_tokens":0,"output_tokens":0,"input_tokens_details":null}"#,
            [8, 4, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"input_tokens":12,"output_tokens":5,"input_tokens_details":{"cached_tokens":4}}"#,
            [8, 4, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"input_tokens":12,"output_tokens":5,"input_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2},"output_tokens_details":{"reasoning_tokens":2}}"#,
            [8, 4, 0, 0, 0, 0, 3, 2, 0, 0],
        ),
        // Mistral's transcripts and speech (its own client's source): its older names there, too.
        (
            r#"{"prompt_audio_seconds":60,"prompt_tokens":381,"completion_tokens":1,"total_tokens":382,"prompt_tokens_details":{"audio_tokens":375}}"#,
            [6, 0, 0, 0, 375, 0, 1, 0, 0, 0],
        ),
        // Of two names one may be nonsense.
        (
            r#"{"prompt_tokens":-1,"input_tokens":12,"completion_tokens":5,"output_tokens":"x"}"#,
            [12, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        // Classes that overlap, or that are more than there is, take no token twice.
        (
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":4,"audio_tokens":40,"image_tokens":50},"completion_tokens_details":{"reasoning_tokens":3,"audio_tokens":9,"image_tokens":9}}"#,
            [0, 4, 4, 0, 2, 0, 0, 3, 2, 0],
        ),
    ];

    /// What the answer itself says that it costs, in billionths of a dollar.
    const COSTS: &[(&str, Option<u64>)] = &[
        // OpenRouter (openrouter.ai/docs, "usage accounting"). What is finer than a billionth is rounded up.
        (r#""cost":0.00014,"is_byok":false"#, Some(140_000)),
        (r#""cost":1.4e-4"#, Some(140_000)),
        (r#""cost":0.0000000011"#, Some(2)),
        (
            r#""cost":0,"is_byok":false,"cost_details":{"upstream_inference_cost":null}"#,
            Some(0),
        ),
        // With a key of one's own there: its fee, and the provider's bill.
        (
            r#""cost":0.05,"is_byok":true,"cost_details":{"upstream_inference_cost":1.25}"#,
            Some(1_300_000_000),
        ),
        (
            r#""cost":0,"is_byok":true,"cost_details":{"upstream_inference_cost":0.001}"#,
            Some(1_000_000),
        ),
        (
            r#""cost":0.05,"is_byok":false,"cost_details":{"upstream_inference_cost":1.25}"#,
            Some(50_000_000),
        ),
        // One bill of two is not the cost.
        (
            r#""cost":0.05,"is_byok":true,"cost_details":{"upstream_inference_cost":null}"#,
            None,
        ),
        (r#""cost":0.05,"is_byok":true,"cost_details":null"#, None),
        (r#""cost":0.05,"is_byok":true"#, None),
        // Perplexity.
        (
            r#""cost":{"request_cost":0.005,"total_cost":0.0062}"#,
            Some(6_200_000),
        ),
        (r#""cost":{"request_cost":0.005}"#, None),
        // xAI (docs.x.ai): ten ticks are a billionth.
        (r#""cost_in_usd_ticks":37756000"#, Some(3_775_600)),
        (r#""cost_in_usd_ticks":1"#, Some(1)),
        (r#""cost_in_usd_ticks":10"#, Some(1)),
        (r#""cost_in_usd_ticks":11"#, Some(2)),
        (r#""cost_in_usd_ticks":0"#, Some(0)),
        // What is no amount, or none that an answer may cost, is not told.
        (r#""cost":-0.1"#, None),
        (r#""cost":null"#, None),
        (r#""cost":"0.1""#, None),
        (r#""cost":"NaN""#, None),
        (r#""cost":true"#, None),
        (r#""cost":[0.1]"#, None),
        (r#""cost":{}"#, None),
        (r#""cost":{"total_cost":"1"}"#, None),
        (r#""cost":1e300"#, None),
        (r#""cost":10000.000000001"#, None),
        (r#""cost":10000"#, Some(10_000_000_000_000)),
        (r#""cost_in_usd_ticks":-1"#, None),
        (r#""cost_in_usd_ticks":"1""#, None),
        (r#""cost_in_usd_ticks":{}"#, None),
        (r#""cost_in_usd_ticks":18446744073709551615"#, None),
        (r#""cost_in_usd_ticks":18446744073709551616"#, None),
    ];

    fn read(text: &str) -> Option<Usage> {
        let tokens = serde_json::from_str::<Tokens<'_>>(text).ok();
        tokens.and_then(Tokens::usage)
    }

    #[test]
    fn every_providers_usage_is_read_where_it_puts_it() {
        assert_eq!(read(USAGE), Some(COUNTED));
        for (text, want) in PROVIDERS {
            let counts = read(text).unwrap().counts();
            assert_eq!(counts[..TOKENS], *want, "{text}");
        }
        for n in 0..TOKENS {
            let told = PROVIDERS.iter().any(|(_, want)| want[n] > 0);
            assert!(told, "no provider tells {}", KINDS[n]);
        }
        assert!(PROVIDERS.len() >= 20);
    }

    #[test]
    fn what_an_answer_says_that_it_costs_is_believed_if_it_can_be_true() {
        for (text, want) in COSTS {
            let text = format!(r#"{{"prompt_tokens":3,"completion_tokens":2,{text}}}"#);
            let usage = read(&text).unwrap();
            assert_eq!(usage.cost.map(|cost| cost.0), *want, "{text}");
            assert_eq!((usage.input, usage.output), (3, 2), "{text}");
        }
        let only = read(r#"{"prompt_tokens":0,"completion_tokens":0,"cost":0.04}"#).unwrap();
        assert_eq!((only.cost, only.input), (Some(Money(40_000_000)), 0));
        assert_eq!(
            read(r#"{"prompt_tokens":0,"completion_tokens":0,"cost":0}"#),
            None
        );
    }

    /// From a provider's words to what they cost, as somebody worked it out by hand: `tests/fixtures/usage`.
    #[test]
    fn what_an_answer_costs_is_what_was_worked_out_by_hand() {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Case<'a> {
            provider: String,
            #[serde(borrow)]
            usage: &'a RawValue,
            #[serde(borrow)]
            price: &'a RawValue,
            cost: String,
            why: String,
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/usage");
        let mut providers = std::collections::BTreeSet::new();
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let at = path.display();
            let text = std::fs::read_to_string(&path).unwrap();
            let case: Case<'_> = serde_json::from_str(&text).expect(&text);
            let list = format!(
                r#"{{"schema":1,"version":"","providers":{{"x":{{"y":{}}}}}}}"#,
                case.price
            );
            let book = Book::load(Some(&list)).unwrap();
            let price = &book.find("x", "y").unwrap().price;
            let usage = read(case.usage.get()).unwrap();
            let cost = price.cost(&usage);
            assert_eq!(Ok(cost), Money::parse(&case.cost), "{at}: {}", case.why);
            if usage.cost.is_none() {
                let counts = usage.counts();
                let (input, output) = counts.split_at(INPUTS);
                let most = Most::tokens(input.iter().sum(), output.iter().sum());
                assert!(cost <= price.bound(&most).unwrap(), "{at}");
            }
            providers.insert(case.provider);
            count += 1;
        }
        assert!(
            count >= 20 && providers.len() >= 15,
            "{count} {providers:?}"
        );
    }

    proptest! {
        /// Whatever a provider says of the classes, together they are what it says of the whole.
        #[test]
        fn no_token_is_in_two_classes(n in proptest::array::uniform12(0..60_u64)) {
            let text = format!(
                r#"{{"prompt_tokens":{},"completion_tokens":{},"prompt_tokens_details":{{"cached_tokens":{},"cache_write_tokens":{},"audio_tokens":{},"image_tokens":{},"cache_creation_token_details":{{"ephemeral_5m_input_tokens":{},"ephemeral_1h_input_tokens":{}}}}},"completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":{},"image_tokens":{}}},"cost":{}}}"#,
                n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11]
            );
            let newer = text.replace("prompt_tokens", "input_tokens").replace("completion_tokens", "output_tokens");
            prop_assert_eq!(read(&newer), read(&text));
            if let Some(usage) = read(&text).filter(|_| n[0] + n[1] > 0) {
                let counts = usage.counts();
                let beside = if n[2] > n[0] { n[2] } else { 0 };
                prop_assert_eq!(counts[..6].iter().sum::<u64>(), n[0] + beside);
                // What was thought may come on top.
                let (output, whole) = (counts[6..].iter().sum::<u64>(), n[1]);
                prop_assert!(output == whole || output == whole + n[8], "{} of {}", output, whole);
            }
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
            r#"{"input_tokens":12,"output_tokens":-1}"#,
            r#"{"prompt_tokens":"x","input_tokens":-1,"output_tokens":5}"#,
            // Speaches, at the end of a stream of sound.
            r#"{"input_tokens":0,"output_tokens":0,"total_tokens":0}"#,
            // What is billed by its length is no count of tokens.
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
