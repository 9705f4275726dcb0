//! genai-prices' lists (github.com/pydantic/genai-prices, `prices/data.json`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::book::{Entry, List, Members, NoList, members};
use super::super::{Decimal, Most, Rate, Stated, TOKENS};
use super::{Imported, entry, renamed};

/// Reads all of it; `day` says which prices are in force, where they change by date.
pub(super) fn read(imported: &mut Imported, text: &str, day: &str) -> Result<(), NoList> {
    let providers: Vec<Provider<'_>> =
        serde_json::from_str(text).map_err(|e| NoList::new("", e))?;
    for provider in &providers {
        let section = renamed(&provider.id);
        for model in &provider.models {
            let Some(entry) = entry_of(model, day, &imported.list) else {
                imported.left_out += 1;
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
                imported.list.insert(section, &name, entry.clone());
            }
        }
    }
    Ok(())
}

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

/// Its fields, in the order of [`KINDS`](crate::usage::KINDS).
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

fn entry_of(model: &Model<'_>, day: &str, list: &List) -> Option<Entry> {
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
    entry(&stated, &tiers, None, list)
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
