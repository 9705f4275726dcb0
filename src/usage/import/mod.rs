//! How do other people's lists of prices read in tollgate's words?
//!
//! What a list does not say, or says in a way that is not understood, is left out: it has no price then, and is not free.

mod genai;
mod litellm;

use std::collections::BTreeMap;
use std::str::FromStr;

use super::book::{Entry, List, NoList};
use super::{Pictures, Price, Rate, Rates, Stated, TOKENS, Tier};

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
            Format::Litellm => litellm::read(&mut imported, text)?,
            Format::Genai => genai::read(&mut imported, text, day)?,
        }
        if imported.list.entries().next().is_none() {
            return Err(NoList::new("", "no model in it has a price by the token"));
        }
        Ok(imported)
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
fn entry(
    stated: &Stated,
    tiers: &BTreeMap<u64, Stated>,
    pictures: Option<Pictures>,
    list: &List,
) -> Option<Entry> {
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
        pictures,
        version: list.version(),
    };
    is_plausible.then_some(Entry {
        price,
        context: None,
        max_output: None,
        reasoning: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{KINDS, Look, Most, Unit};
    use super::litellm::FIELDS;
    use super::*;
    use crate::usage::Money;

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
    fn what_a_picture_costs_by_its_look_is_joined_to_one_price_in_litellms_list() {
        let image = |rest: &str| {
            format!(r#"{{"litellm_provider":"acme","mode":"image_generation",{rest}}}"#)
        };
        let flat = |rate: &str| image(&format!(r#""input_cost_per_image":{rate}"#));
        let text = [
            ("hd/1024-x-1792/draw", flat("0.12")),
            ("standard/1024-x-1024/draw", flat("0.04")),
            ("acme/1024-x-1024/draw", flat("0.09")),
            // The price of the model itself is of whatever has none of its own.
            ("acme/low/1024-x-1024/a/b", flat("0.004")),
            ("a/b", flat("0.06")),
            // By the token it costs that whatever is made, and all output of what draws is pictures.
            ("low/1024-x-1024/token", flat("0.011")),
            ("token", image(r#""input_cost_per_token":5e-06,"output_cost_per_image_token":4e-05"#)),
            ("both", image(r#""input_cost_per_token":5e-06,"output_cost_per_token":1e-05,"output_cost_per_image":0.04"#)),
            ("half", image(r#""output_cost_per_image_token":4e-05,"output_cost_per_image":0.04"#)),
            // How it is made otherwise is not known.
            ("1024-x-1024/50-steps/bed/rock", flat("0.01")),
            ("low/1024-x-1024/pixels", image(r#""input_cost_per_pixel":1e-08,"output_cost_per_token":0.0"#)),
        ]
        .map(|(name, entry)| format!("{name:?}:{entry}"));
        let imported = read(Format::Litellm, &format!("{{{}}}", text.join(",")));
        let priced = |entry: &Entry| match &entry.price.pictures {
            None => entry.price.base.all().map(|rate| rate.0).to_vec(),
            Some(pictures) => pictures.all().iter().map(|(_, rate)| rate.0).collect(),
        };
        let all: Vec<_> = imported
            .list
            .entries()
            .map(|((_, model), _)| model)
            .collect();
        assert_eq!(
            all,
            [
                "1024-x-1024/50-steps/bed/rock",
                "a/b",
                "both",
                "draw",
                "token"
            ]
        );
        assert_eq!(
            imported.left_out, 3,
            "of the token's the look, half, pixels"
        );
        let entry = |model| imported.list.find("acme", model).unwrap();
        let looks = |model| {
            let pictures = entry(model).price.pictures.as_ref();
            let each = pictures
                .unwrap()
                .all()
                .iter()
                .map(|(of, rate)| format!("{of} {}", rate.written("images")));
            each.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(
            looks("draw"),
            "1024x1024 0.09, 1024x1024/standard 0.04, 1024x1792/hd 0.12"
        );
        assert_eq!(looks("a/b"), "any 0.06, 1024x1024/low 0.004");
        assert_eq!(priced(entry("both"))[12], 0, "once");
        assert_eq!(priced(entry("token"))[9..], [40_000_000, 0, 0, 0, 0]);
        assert_eq!(priced(entry("token"))[6], 40_000_000);
        let most = |look| Most {
            unit: Some((Unit::Images, Some(2))),
            look: Look::key(look).unwrap(),
            ..Most::tokens(0, 0)
        };
        let bound = |model, look| entry(model).price.bound(&most(look));
        assert_eq!(bound("draw", "1024x1792"), Some(Money(240_000_000)));
        assert_eq!(bound("draw", "512x512"), None);
        assert_eq!(bound("a/b", "512x512"), Some(Money(120_000_000)));
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
