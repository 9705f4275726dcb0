//! `LiteLLM`'s list of prices (github.com/BerriAI/litellm, `model_prices_and_context_window.json`).
//!
//! What a picture costs by its size and quality has entries of its own there, whose names begin with both
//! (`hd/1024-x-1792/dall-e-3`). They are joined to one price of their model.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::super::book::{Entry, List, Members, NoList, members};
use super::super::{KINDS, Look, Pictures, Quality, Rate, Size, Stated, TOKENS, Unit};
use super::{Imported, entry, renamed};

/// Prices of pictures by their look, by section and model.
type Drawn<'t> = BTreeMap<(&'t str, &'t str), BTreeMap<Look, Rate>>;

/// Reads all of it.
pub(super) fn read(imported: &mut Imported, text: &str) -> Result<(), NoList> {
    let all: Members<'_> = serde_json::from_str(text).map_err(|e| NoList::new("", e))?;
    let all = all.iter().filter(|(key, _)| *key != "sample_spec");
    let all: Vec<_> = all
        .map(|(key, raw)| (key, members(raw).unwrap_or_default()))
        .collect();
    let mut drawn = Drawn::new();
    for (key, members) in &all {
        let (section, model, is_prefixed) = name_of(key, members);
        // A model may be there with its provider's name before it and without; with it is the newer way.
        if !is_prefixed && imported.list.has(section, model) {
            continue;
        }
        match (
            entry_of(section, model, members, &imported.list),
            look_of(model),
        ) {
            (Some(entry), Some((look, model))) if is_by_picture(&entry) => {
                let [.., images, _] = entry.price.base.all();
                let each = drawn.entry((section, model)).or_default();
                match is_prefixed {
                    true => _ = each.insert(look, images),
                    false => _ = each.entry(look).or_insert(images),
                }
            }
            (Some(entry), _) => imported.list.insert(section, model, entry),
            (None, _) => imported.left_out += 1,
        }
    }
    for ((section, model), each) in drawn {
        join(imported, section, model, each);
    }
    Ok(())
}

/// Joins prices by look to one of their model. What that costs by the token it costs whatever is made.
fn join(imported: &mut Imported, section: &str, model: &str, mut each: BTreeMap<Look, Rate>) {
    let known = imported.list.find(section, model);
    if known.is_some_and(|known| !is_by_picture(known)) {
        imported.left_out += each.len();
        return;
    }
    if let Some([.., images, _]) = known.map(|known| known.price.base.all()) {
        // Of whatever has no price of its own.
        each.entry(Look::ANY).or_insert(images);
    }
    let mut stated = Stated::default();
    let pictures = Pictures::of(each).and_then(|all| all.state(&mut stated));
    let joined = entry(&stated, &BTreeMap::new(), pictures, &imported.list);
    match joined {
        Some(entry) => imported.list.insert(section, model, entry),
        None => imported.left_out += 1,
    }
}

/// Whether it says what a picture costs, and nothing else.
fn is_by_picture(entry: &Entry) -> bool {
    entry.price.states(Unit::Images) && !entry.price.is_of_tokens()
}

/// Its fields, in the order of [`KINDS`].
pub(super) const FIELDS: [&str; TOKENS] = [
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

/// What is answered by pictures.
const DRAWS: &str = "image_generation";

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
        DRAWS,
        Unit::Images,
        &["output_cost_per_image", "input_cost_per_image"],
    ),
    ("rerank", Unit::Searches, &["input_cost_per_query"]),
];

/// What is billed by the search as well, and does not say so in its answers: tokens alone would be a wrong price.
const BILLED_BESIDE: [&str; 4] = ["search-preview", "search-api", "deep-research", "-online"];

/// The section, the model as its provider calls it, and whether the provider's name was before it.
fn name_of<'k>(key: &'k str, members: &Members<'k>) -> (&'k str, &'k str, bool) {
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

fn entry_of(section: &str, model: &str, members: &Members<'_>, list: &List) -> Option<Entry> {
    let mode = string(members, "mode")?;
    let is_beside = BILLED_BESIDE.iter().any(|part| model.contains(part));
    let by_unit = BY_UNIT.into_iter().find(|(name, ..)| *name == mode);
    if section.is_empty() || !(MODES.contains(&mode) || by_unit.is_some()) || is_beside {
        return None;
    }
    let mut stated = Stated::default();
    if let Some((_, unit, fields)) = by_unit {
        state_unit(&mut stated, unit, fields, members)?;
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
    if mode == DRAWS {
        by_token_alone(&mut stated);
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
        ..entry(&stated, &tiers, None, list)?
    })
}

/// What one of a unit costs. None: what is told is no rate, which makes the whole of it unknown.
fn state_unit(
    stated: &mut Stated,
    unit: Unit,
    fields: &[&str],
    members: &Members<'_>,
) -> Option<()> {
    let is_told = |raw: &&RawValue| !matches!(raw.get(), "null" | "0" | "0.0");
    let mut told = fields
        .iter()
        .filter_map(|field| members.get(*field).filter(|raw| is_told(raw)));
    if let Some(raw) = told.next() {
        let place = KINDS.iter().position(|kind| *kind == unit.name())?;
        let rate = Rate::per_one(raw.get()).ok()?;
        stated.get_mut(place)?.replace(rate);
    }
    Some(())
}

/// Where pictures have a price by the token, what one costs is the same said another way; and all output is pictures, where
/// the list says what those cost and nothing of other output.
fn by_token_alone(stated: &mut Stated) {
    let [input, .., output, _, _, image_output, _, _, images, _] = stated;
    if input.is_some() && (output.is_some() || image_output.is_some()) {
        *output = output.or(*image_output);
        *images = None;
    }
}

/// What a price is of, and the model, out of names like `hd/1024-x-1792/dall-e-3`. None: it is of whatever is made.
fn look_of(name: &str) -> Option<(Look, &str)> {
    let quality = name.split_once('/').and_then(|(part, rest)| {
        let quality = Quality::read(part);
        let is_known = !matches!(quality, Quality::Any | Quality::Unknown);
        is_known.then_some((quality, rest))
    });
    let (quality, rest) = quality.unwrap_or((Quality::Any, name));
    let size = rest.split_once('/').and_then(|(part, rest)| {
        let size = Size::read(&part.replacen("-x-", "x", 1));
        matches!(size, Size::Of { .. }).then_some((size, rest))
    });
    let (size, model) = size.unwrap_or((Size::Any, rest));
    let look = Look { size, quality };
    // How many steps are taken is no matter of size or quality.
    let is_of_steps = model
        .split_once('/')
        .is_some_and(|(part, _)| part.ends_with("-steps"));
    (!look.is_any() && !is_of_steps).then_some((look, model))
}

/// The tokens of `_above_200k_tokens`.
fn threshold(rest: &str) -> Option<u64> {
    let thousands = rest.strip_prefix("_above_")?.strip_suffix("k_tokens")?;
    let tokens = thousands.parse::<u64>().ok()?.checked_mul(1000)?;
    (tokens > 0).then_some(tokens)
}
