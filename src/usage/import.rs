//! How do other people's lists of prices read in tollgate's words?
//!
//! What a list does not say, or says in a way that is not understood, is left out: it has no price then, and is not free.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::book::{Entry, List, Members, NoList, members};
use super::{Decimal, KINDS, Most, Price, Rate, Rates, Stated, TOKENS, Tier, Unit};

/// Whose list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `LiteLLM`'s `model_prices_and_context_window.json`: dollars per token.
    Litellm,
    /// genai-prices' `prices/data.json` or `data_slim.json`: dollars per million tokens.
    Genai,
}

impl Format {
    /// The name that an operator writes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Litellm => "litellm",
            Self::Genai => "genai",
        }
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "litellm" => Ok(Self::Litellm),
            "genai" => Ok(Self::Genai),
            _ => Err("the formats are `litellm` and `genai`"),
        }
    }
}

/// A list that was read.
#[derive(Debug)]
pub struct Imported {
    /// It, in tollgate's words.
    pub list: List,
    /// How many models were left out, as they have no price by the token.
    pub left_out: usize,
}

impl Imported {
    /// Reads a list. `version` is what its prices are called in the ledger; `day` (`2026-11-20`) says which prices are in
    /// force, where they change by date.
    pub fn read(format: Format, text: &str, version: &str, day: &str) -> Result<Self, NoList> {
        let mut imported = Self {
            list: List::new(version),
            left_out: 0,
        };
        match format {
            Format::Litellm => imported.litellm(text)?,
            Format::Genai => imported.genai(text, day)?,
        }
        if imported.list.entries().next().is_none() {
            return Err(NoList::new("", "no model in it has a price by the token"));
        }
        Ok(imported)
    }

    fn litellm(&mut self, text: &str) -> Result<(), NoList> {
        let all: Members<'_> = serde_json::from_str(text).map_err(|e| NoList::new("", e))?;
        for (key, raw) in &all {
            // It tells what each field means.
            if key == "sample_spec" {
                continue;
            }
            let members = members(raw).unwrap_or_default();
            let (section, model, is_prefixed) = litellm_name(key, &members);
            // A model may be there with its provider's name before it and without; with it is the newer way.
            if !is_prefixed && self.list.has(section, model) {
                continue;
            }
            match litellm_entry(section, model, &members, &self.list) {
                Some(entry) => self.list.insert(section, model, entry),
                None => self.left_out += 1,
            }
        }
        Ok(())
    }

    fn genai(&mut self, text: &str, day: &str) -> Result<(), NoList> {
        let providers: Vec<Provider<'_>> =
            serde_json::from_str(text).map_err(|e| NoList::new("", e))?;
        for provider in &providers {
            let section = renamed(&provider.id);
            for model in &provider.models {
                let Some(entry) = genai_entry(model, day, &self.list) else {
                    self.left_out += 1;
                    continue;
                };
                let names = model.r#match.map(|raw| equals(raw.get()));
                for name in names.unwrap_or_default().iter().chain([&model.id]) {
                    // Fireworks calls them by their whole path.
                    let is_short = section == "fireworks" && !name.contains('/');
                    let path = if is_short {
                        "accounts/fireworks/models/"
                    } else {
                        ""
                    };
                    let name = format!("{path}{name}");
                    self.list.insert(section, &name, entry.clone());
                }
            }
        }
        Ok(())
    }
}

/// What the lists call a provider, and what its section is called here.
fn renamed(provider: &str) -> &str {
    match provider {
        "cohere_chat" => "cohere",
        "fireworks_ai" => "fireworks",
        "google" => "gemini",
        "together_ai" => "together",
        "x-ai" => "xai",
        other => other,
    }
}

/// More than this for a token is a mistake of the list: a thousand dollars for a million.
const MOST: Rate = Rate(1_000_000_000);

/// More than this for one second, picture or search is a mistake, too: ten dollars.
const MOST_FOR_ONE: Rate = Rate(10_000_000_000_000);

/// An entry of what a list states; none if that is no price, or nothing for nothing, as lists write what they do not know.
fn entry(stated: &Stated, tiers: &BTreeMap<u64, Stated>, list: &List) -> Option<Entry> {
    let base = Rates::of(stated)?;
    if base.all() == Rates::default().all() {
        return None;
    }
    let tiers = tiers.iter().map(|(above, tier)| {
        let rates = Rates::over(stated, tier)?;
        let above = *above;
        Some(Tier { above, rates })
    });
    let tiers: Vec<Tier> = tiers.collect::<Option<_>>()?;
    let every = tiers.iter().map(|tier| &tier.rates).chain([&base]);
    let tokens = every.flat_map(|rates| rates.all().into_iter().take(TOKENS));
    let [.., characters, seconds, images, searches] = base.all();
    let is_plausible = tokens.chain([characters]).all(|rate| rate < MOST)
        && [seconds, images, searches]
            .iter()
            .all(|rate| *rate < MOST_FOR_ONE);
    let price = Price {
        base,
        tiers,
        version: list.version(),
    };
    is_plausible.then_some(Entry {
        price,
        context: None,
        max_output: None,
        reasoning: false,
    })
}

// ---- LiteLLM

/// Its fields, in the order of [`KINDS`].
const FIELDS: [&str; TOKENS] = [
    "input_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
    "cache_creation_input_token_cost_above_1hr",
    "input_cost_per_audio_token",
    "input_cost_per_image_token",
    "output_cost_per_token",
    "output_cost_per_reasoning_token",
    "output_cost_per_audio_token",
    "output_cost_per_image_token",
];

/// What is answered by text, or by numbers.
const MODES: [&str; 5] = ["chat", "completion", "embedding", "moderation", "responses"];

/// What is billed by a unit of its own, and by which fields; of two that say the same the first.
const BY_UNIT: [(&str, Unit, &[&str]); 4] = [
    (
        "audio_speech",
        Unit::Characters,
        &["input_cost_per_character"],
    ),
    (
        "audio_transcription",
        Unit::Seconds,
        &["input_cost_per_second", "output_cost_per_second"],
    ),
    (
        "image_generation",
        Unit::Images,
        &["output_cost_per_image", "input_cost_per_image"],
    ),
    ("rerank", Unit::Searches, &["input_cost_per_query"]),
];

/// What is billed by the search as well, and does not say so in its answers: tokens alone would be a wrong price.
const BILLED_BESIDE: [&str; 4] = ["search-preview", "search-api", "deep-research", "-online"];

/// The section, the model as its provider calls it, and whether the provider's name was before it.
fn litellm_name<'k>(key: &'k str, members: &Members<'k>) -> (&'k str, &'k str, bool) {
    let provider = string(members, "litellm_provider").unwrap_or_default();
    let section = renamed(provider);
    let prefixes = [provider, section].into_iter();
    let mut bare = prefixes.filter_map(|prefix| key.strip_prefix(prefix)?.strip_prefix('/'));
    bare.next()
        .map_or((section, key, false), |model| (section, model, true))
}

/// A member that is a string without escapes.
fn string<'r>(members: &Members<'r>, name: &str) -> Option<&'r str> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

fn litellm_entry(section: &str, model: &str, members: &Members<'_>, list: &List) -> Option<Entry> {
    let mode = string(members, "mode")?;
    let is_beside = BILLED_BESIDE.iter().any(|part| model.contains(part));
    let by_unit = BY_UNIT.into_iter().find(|(name, ..)| *name == mode);
    if section.is_empty() || !(MODES.contains(&mode) || by_unit.is_some()) || is_beside {
        return None;
    }
    let mut stated = Stated::default();
    if let Some((_, unit, fields)) = by_unit {
        let is_told = |raw: &&RawValue| !matches!(raw.get(), "null" | "0" | "0.0");
        let mut told = fields
            .iter()
            .filter_map(|field| members.get(*field).filter(|raw| is_told(raw)));
        let rate = told.next().map(|raw| Rate::per_one(raw.get()));
        // A rate that is none makes the whole of it unknown.
        if let Some(rate) = rate {
            let place = KINDS.iter().position(|kind| *kind == unit.name())?;
            stated.get_mut(place)?.replace(rate.ok()?);
        }
    }
    let mut tiers = BTreeMap::<u64, Stated>::new();
    for (name, raw) in members {
        if raw.get() == "null" {
            continue;
        }
        for (kind, field) in FIELDS.into_iter().enumerate() {
            let Some(rest) = name.strip_prefix(field) else {
                continue;
            };
            let stated = match threshold(rest) {
                _ if rest.is_empty() => &mut stated,
                // xAI's begin at the threshold, all others' behind it.
                Some(above) => {
                    let above = above - u64::from(section == "xai");
                    tiers.entry(above).or_default()
                }
                // A service tier's, or another unit's.
                None => continue,
            };
            // A rate that is none makes the whole of it unknown.
            let rate = Rate::per_one(raw.get()).ok()?;
            stated.get_mut(kind)?.replace(rate);
        }
    }
    let limit = |name: &str| -> Option<u64> {
        let limit = serde_json::from_str(members.get(name)?.get()).ok()?;
        (limit > 0).then_some(limit)
    };
    let reasoning = members.get("supports_reasoning");
    Some(Entry {
        context: limit("max_input_tokens"),
        max_output: limit("max_output_tokens"),
        reasoning: reasoning.is_some_and(|raw| raw.get() == "true"),
        ..entry(&stated, &tiers, list)?
    })
}

/// The tokens of `_above_200k_tokens`.
fn threshold(rest: &str) -> Option<u64> {
    let thousands = rest.strip_prefix("_above_")?.strip_suffix("k_tokens")?;
    let tokens = thousands.parse::<u64>().ok()?.checked_mul(1000)?;
    (tokens > 0).then_some(tokens)
}

// ---- genai-prices

#[derive(Deserialize)]
struct Provider<'a> {
    id: String,
    #[serde(borrow)]
    models: Vec<Model<'a>>,
}

#[derive(Deserialize)]
struct Model<'a> {
    id: String,
    #[serde(borrow, default)]
    r#match: Option<&'a RawValue>,
    #[serde(default)]
    context_window: Option<u64>,
    #[serde(borrow)]
    prices: &'a RawValue,
}

/// A price at certain times.
#[derive(Deserialize)]
struct Conditional<'a> {
    #[serde(default)]
    constraint: Option<Constraint>,
    #[serde(borrow)]
    prices: Members<'a>,
}

#[derive(Default, Deserialize)]
struct Constraint {
    start_date: Option<String>,
    start_time: Option<IgnoredAny>,
}

/// A rate that changes with the length of the prompt.
#[derive(Deserialize)]
struct Tiered<'a> {
    #[serde(borrow)]
    base: &'a RawValue,
    #[serde(borrow)]
    tiers: Vec<Step<'a>>,
}

#[derive(Deserialize)]
struct Step<'a> {
    start: u64,
    #[serde(borrow)]
    price: &'a RawValue,
}

/// Its fields, in the order of [`KINDS`].
const MTOK: [&str; TOKENS] = [
    "input_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "cache_write_1h_mtok",
    "input_audio_mtok",
    "input_image_mtok",
    "output_mtok",
    "output_reasoning_mtok",
    "output_audio_mtok",
    "output_image_mtok",
];

fn genai_entry(model: &Model<'_>, day: &str, list: &List) -> Option<Entry> {
    let text = model.prices.get();
    let entry = if text.starts_with('[') {
        let all: Vec<Conditional<'_>> = serde_json::from_str(text).ok()?;
        in_force(&all, day, list)?
    } else {
        priced(&members(model.prices).ok()?, list)?
    };
    Some(Entry {
        context: model.context_window,
        ..entry
    })
}

/// Of prices that change by date that of the day; of those that change by the hour the dearest.
fn in_force(all: &[Conditional<'_>], day: &str, list: &List) -> Option<Entry> {
    let date = |one: &Conditional<'_>| one.constraint.as_ref()?.start_date.clone();
    let by_hour = |one: &&Conditional<'_>| {
        let constraint = one.constraint.as_ref();
        constraint.is_some_and(|constraint| constraint.start_time.is_some())
    };
    let begun = |one: &&Conditional<'_>| date(one).is_none_or(|date| date.as_str() <= day);
    let by_date = all.iter().filter(|one| !by_hour(one) && begun(one));
    // The last of those that begin together.
    let dated = by_date.max_by_key(|one| date(one));
    let candidates = dated.into_iter().chain(all.iter().filter(by_hour));
    let entries = candidates.map(|one| priced(&one.prices, list));
    // One that is not understood might be the dearest.
    let entries: Vec<Entry> = entries.collect::<Option<_>>()?;
    let weight = |entry: &Entry| entry.price.bound(&Most::tokens(1_000_000, 1_000_000));
    entries.into_iter().max_by_key(weight)
}

fn priced(members: &Members<'_>, list: &List) -> Option<Entry> {
    let million = |raw: &RawValue| Decimal::parse(raw.get(), 6).ok()?.nearest().ok().map(Rate);
    let mut stated = Stated::default();
    let mut tiers = BTreeMap::<u64, Stated>::new();
    for (kind, (slot, field)) in stated.iter_mut().zip(MTOK).enumerate() {
        let Some(raw) = members.get(field).filter(|raw| raw.get() != "null") else {
            continue;
        };
        if !raw.get().starts_with('{') {
            *slot = Some(million(raw)?);
            continue;
        }
        let tiered: Tiered<'_> = serde_json::from_str(raw.get()).ok()?;
        *slot = Some(million(tiered.base)?);
        for step in tiered.tiers {
            let stated = tiers.entry(step.start).or_default();
            stated.get_mut(kind)?.replace(million(step.price)?);
        }
    }
    entry(&stated, &tiers, list)
}

/// The names that a match clause asks for as a whole.
fn equals(clause: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Clause<'a> {
        equals: Option<String>,
        #[serde(borrow, default)]
        or: Vec<&'a RawValue>,
    }
    let Ok(clause) = serde_json::from_str::<Clause<'_>>(clause) else {
        return Vec::new();
    };
    // Clauses stand in one list at most two deep: deeper ones are not looked for.
    let within = clause.or.iter().filter_map(|raw| {
        let clause: Clause<'_> = serde_json::from_str(raw.get()).ok()?;
        clause.equals
    });
    clause.equals.into_iter().chain(within).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: &str = "2026-11-20";

    fn read(format: Format, text: &str) -> Imported {
        Imported::read(format, text, "test", DAY).unwrap()
    }

    /// Each model with what one million tokens of input and of output cost, and its tiers.
    fn shown(imported: &Imported) -> Vec<String> {
        let one = |((section, model), entry): ((&str, &str), &Entry)| {
            let rates = |rates: &Rates| {
                rates.all()[..TOKENS]
                    .iter()
                    .map(|rate| rate.written("input"))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let mut line = format!("{section}/{model}: {}", rates(&entry.price.base));
            for tier in &entry.price.tiers {
                line += &format!(" | {}: {}", tier.above, rates(&tier.rates));
            }
            line
        };
        imported.list.entries().map(one).collect()
    }

    #[test]
    fn what_is_no_token_has_its_own_price_in_litellms_list() {
        let text = r#"{
            "speak":{"litellm_provider":"acme","mode":"audio_speech","input_cost_per_character":1.5e-05},
            "speak-by-token":{"litellm_provider":"acme","mode":"audio_speech","input_cost_per_token":6e-07,"output_cost_per_token":1.2e-05},
            "hear":{"litellm_provider":"acme","mode":"audio_transcription","input_cost_per_second":0.0001,"output_cost_per_second":0.0001},
            "hear-free-in":{"litellm_provider":"acme","mode":"audio_transcription","input_cost_per_second":0.0,"output_cost_per_second":0.0002},
            "draw":{"litellm_provider":"acme","mode":"image_generation","output_cost_per_image":0.04},
            "rank":{"litellm_provider":"acme","mode":"rerank","input_cost_per_query":0.002,"input_cost_per_token":0.0,"output_cost_per_token":0.0},
            "absurd":{"litellm_provider":"acme","mode":"rerank","input_cost_per_query":20.0},
            "words":{"litellm_provider":"acme","mode":"rerank","input_cost_per_query":"much"},
            "chat":{"litellm_provider":"acme","mode":"chat","input_cost_per_query":0.002}
        }"#;
        let imported = read(Format::Litellm, text);
        let rate = |model: &str| {
            let price = &imported
                .list
                .entries()
                .find(|(name, _)| name.1 == model)?
                .1
                .price;
            let rates = KINDS.into_iter().zip(price.base.all());
            let some = rates.filter(|(_, rate)| *rate > Rate::default());
            Some(
                some.map(|(kind, rate)| format!("{kind} {}", rate.written(kind)))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(rate("speak").unwrap(), ["characters 15.00"]);
        assert_eq!(rate("speak-by-token").unwrap()[0], "input 0.60");
        assert_eq!(rate("hear").unwrap(), ["seconds 0.0001"], "once");
        assert_eq!(rate("hear-free-in").unwrap(), ["seconds 0.0002"]);
        assert_eq!(rate("draw").unwrap(), ["images 0.04"]);
        assert_eq!(rate("rank").unwrap(), ["searches 0.002"]);
        for none in ["absurd", "words", "chat"] {
            assert_eq!(rate(none), None, "{none}");
        }
        assert_eq!(List::parse(&imported.list.write()).unwrap(), imported.list);
    }

    #[test]
    fn litellms_words_are_understood() {
        let text = r#"{
            "sample_spec":{"litellm_provider":"one of ...","mode":"chat","input_cost_per_token":0.1,"output_cost_per_token":0.1},
            "anvil":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":2.5e-06,"output_cost_per_token":1.5e-05,"cache_read_input_token_cost":2.5e-07,
                "cache_creation_input_token_cost":3e-06,"cache_creation_input_token_cost_above_1hr":5e-06,"input_cost_per_token_above_272k_tokens":5e-06,"output_cost_per_token_above_272k_tokens":2e-05,
                "input_cost_per_token_flex":1e-06,"input_cost_per_token_above_272k_tokens_batches":1e-06,"cache_creation_input_token_cost_above_1hr_above_272k_tokens":7e-06,
                "input_cost_per_audio_token":4e-05,"output_cost_per_reasoning_token":null,"max_input_tokens":1050000,"max_output_tokens":128000,"supports_reasoning":true},
            "xai/grok":{"litellm_provider":"xai","mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":2e-06,"input_cost_per_token_above_200k_tokens":2e-06},
            "together_ai/a/b":{"litellm_provider":"together_ai","mode":"completion","input_cost_per_token":0.0000000299999000000000002,"output_cost_per_token":1e-06},
            "cohere/embed":{"litellm_provider":"cohere","mode":"embedding","input_cost_per_token":1e-07,"output_cost_per_token":0.0},
            "command":{"litellm_provider":"cohere_chat","mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":1e-06},
            "deepseek-x":{"litellm_provider":"deepseek","mode":"chat","input_cost_per_token":9e-06,"output_cost_per_token":9e-06},
            "deepseek/deepseek-x":{"litellm_provider":"deepseek","mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":1e-06},
            "acme/anvil":{"litellm_provider":"other","mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":1e-06},
            "unknown":{"litellm_provider":"acme","mode":"chat"},
            "half":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":1e-06},
            "nothing":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":0,"output_cost_per_token":0.0},
            "negative":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":-1e-06,"output_cost_per_token":1e-06},
            "words":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":"1e-06","output_cost_per_token":1e-06},
            "absurd":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":0.001,"output_cost_per_token":1e-06},
            "searches-search-preview":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":1e-06},
            "films":{"litellm_provider":"acme","mode":"video_generation","input_cost_per_token":1e-06,"output_cost_per_token":1e-06},
            "nobody":{"mode":"chat","input_cost_per_token":1e-06,"output_cost_per_token":1e-06},
            "number":7
        }"#;
        let imported = read(Format::Litellm, text);
        assert_eq!(
            shown(&imported),
            [
                "acme/anvil: 2.50 0.25 3.00 5.00 40.00 2.50 15.00 15.00 15.00 15.00 | 272000: 5.00 0.25 3.00 7.00 40.00 5.00 20.00 20.00 20.00 20.00",
                "cohere/command: 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00",
                "cohere/embed: 0.10 0.10 0.10 0.10 0.10 0.10 0.00 0.00 0.00 0.00",
                "deepseek/deepseek-x: 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00",
                "other/acme/anvil: 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00",
                "together/a/b: 0.03 0.03 0.03 0.03 0.03 0.03 1.00 1.00 1.00 1.00",
                "xai/grok: 1.00 1.00 1.00 1.00 1.00 1.00 2.00 2.00 2.00 2.00 | 199999: 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00",
            ]
        );
        assert_eq!(imported.left_out, 10);
        let (_, anvil) = imported.list.entries().next().unwrap();
        assert_eq!(
            (anvil.context, anvil.max_output, anvil.reasoning),
            (Some(1_050_000), Some(128_000), true)
        );
    }

    #[test]
    fn genai_prices_words_are_understood() {
        let text = r#"[
            {"id":"google","name":"x","models":[{"id":"gem","match":{"or":[{"equals":"gem-1"},{"starts_with":"gem-2"}]},"context_window":1000,
                "prices":{"input_mtok":{"base":1.25,"tiers":[{"start":200000,"price":2.5}]},"output_mtok":10,"cache_read_mtok":0.125,"requests_kcount":35}}]},
            {"id":"fireworks","models":[{"id":"short","match":{"equals":"a/b"},"prices":{"input_mtok":1,"output_mtok":1}}]},
            {"id":"acme","models":[
                {"id":"dated","prices":[{"prices":{"input_mtok":9,"output_mtok":9}},{"constraint":{"start_date":"2026-11-20"},"prices":{"input_mtok":5,"output_mtok":5}},
                    {"constraint":{"start_date":"2026-11-21"},"prices":{"input_mtok":1,"output_mtok":1}},{"constraint":{"start_date":"2026-03-01"},"prices":{"input_mtok":7,"output_mtok":7}}]},
                {"id":"hourly","prices":[{"prices":{"input_mtok":0.135,"output_mtok":0.55}},{"constraint":{"start_time":"00:30:00Z","end_time":"16:30:00Z"},"prices":{"input_mtok":0.27,"output_mtok":1.1}}]},
                {"id":"later","prices":[{"constraint":{"start_date":"2027-01-01"},"prices":{"input_mtok":1,"output_mtok":1}}]},
                {"id":"empty","prices":{}},
                {"id":"half","prices":{"input_mtok":1}},
                {"id":"words","prices":{"input_mtok":"1","output_mtok":1}},
                {"id":"absurd","prices":{"input_mtok":1000,"output_mtok":1}},
                {"id":"list","prices":[7]}
            ]}
        ]"#;
        let imported = read(Format::Genai, text);
        assert_eq!(
            shown(&imported),
            [
                "acme/dated: 5.00 5.00 5.00 5.00 5.00 5.00 5.00 5.00 5.00 5.00",
                "acme/hourly: 0.27 0.27 0.27 0.27 0.27 0.27 1.10 1.10 1.10 1.10",
                "fireworks/a/b: 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00",
                "fireworks/accounts/fireworks/models/short: 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00",
                "gemini/gem: 1.25 0.125 1.25 1.25 1.25 1.25 10.00 10.00 10.00 10.00 | 200000: 2.50 0.125 2.50 2.50 2.50 2.50 10.00 10.00 10.00 10.00",
                "gemini/gem-1: 1.25 0.125 1.25 1.25 1.25 1.25 10.00 10.00 10.00 10.00 | 200000: 2.50 0.125 2.50 2.50 2.50 2.50 10.00 10.00 10.00 10.00",
            ]
        );
        assert_eq!(imported.left_out, 6);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for format in [Format::Litellm, Format::Genai] {
            for text in ["", "7", "{}", "[]", "[[]]", "{\"a\":{}}", "[{\"id\":1}]"] {
                assert!(
                    Imported::read(format, text, "test", DAY).is_err(),
                    "{format:?} {text}"
                );
            }
        }
        assert!("csv".parse::<Format>().is_err());
    }

    proptest! {
        #[test]
        fn no_field_and_no_value_makes_it_panic(name in ".{0,9}", rest in "(_above_[0-9]{0,22}k_tokens)?", value in "-?[0-9]{0,30}(e-?[0-9]{1,3})?|null|\\{\\}") {
            for field in FIELDS {
                let text = format!(r#"{{"m":{{"litellm_provider":"xai","mode":"chat","{field}{rest}":{value},"output_cost_per_token":1}}}}"#);
                let _ = Imported::read(Format::Litellm, &text, &name, DAY);
                let text = format!(r#"[{{"id":"x","models":[{{"id":"m","prices":{{"input_mtok":{value},"output_mtok":{{"base":{value},"tiers":[]}}}}}}]}}]"#);
                let _ = Imported::read(Format::Genai, &text, &name, DAY);
            }
        }
    }
}
