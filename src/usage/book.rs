//! What does a provider's model cost, as far as anybody says? A list that is built in, and one that was imported over it.
//!
//! A model is found by its exact name or not at all: a dated name may cost another price than the name without the date.
//! What is not on the list has no price; it is not free.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{KINDS, Kinds, Look, Pictures, Price, Rate, Rates, Stated, Tier, Unit};

/// What is known of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What its tokens cost.
    pub price: Price,
    /// How many tokens of input it takes at most.
    pub context: Option<u64>,
    /// How many tokens of output it gives at most.
    pub max_output: Option<u64>,
    /// It may think before it answers.
    pub reasoning: bool,
}

/// Why a text is no list of prices: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}{}{what}", if at.is_empty() { "" } else { ": " })]
pub struct NoList {
    at: String,
    what: String,
}

impl NoList {
    pub(super) fn new(at: impl Into<String>, what: impl fmt::Display) -> Self {
        Self {
            at: at.into(),
            what: what.to_string(),
        }
    }
}

/// A list of prices: by section, which is a provider, then by the name the provider has for the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    version: Arc<str>,
    sections: BTreeMap<String, BTreeMap<String, Entry>>,
}

/// The prices in force.
#[derive(Clone, Debug, Default)]
pub struct Book {
    imported: List,
}

/// The classes of tokens that a section's models are billed apart for: at other rates than their relatives'.
#[derive(Clone, Debug, Default)]
pub struct Apart<'b> {
    /// By model.
    pub by_model: BTreeMap<&'b str, Kinds>,
    /// At any of them.
    pub any: Kinds,
    /// At every one of them.
    pub every: Kinds,
}

/// Read once, when it is first asked.
static BUILT_IN: LazyLock<List> = LazyLock::new(|| List::parse(SNAPSHOT).unwrap_or_default());

/// Made by `prices/generate.py`.
const SNAPSHOT: &str = include_str!("prices.json");

/// The form of the file that this version reads and writes.
const SCHEMA: u64 = 1;

impl Book {
    /// The built-in list, under an imported one if there is one.
    pub fn load(imported: Option<&str>) -> Result<Self, NoList> {
        let imported = imported.map(List::parse).transpose()?;
        Ok(Self::over(imported.unwrap_or_default()))
    }

    /// The built-in list under another, whose prices go before. What that other does not say of a model's limits stays:
    /// a list that knows prices only takes nothing away.
    pub fn over(mut imported: List) -> Self {
        for (section, models) in &mut imported.sections {
            for (model, entry) in models {
                if let Some(known) = BUILT_IN.find(section, model) {
                    entry.context = entry.context.or(known.context);
                    entry.max_output = entry.max_output.or(known.max_output);
                    entry.reasoning |= known.reasoning;
                }
            }
        }
        Self { imported }
    }

    /// What is known of a model, by its section and the name that its provider has for it.
    pub fn find(&self, section: &str, model: &str) -> Option<&Entry> {
        let imported = self.imported.find(section, model);
        imported.or_else(|| BUILT_IN.find(section, model))
    }

    /// What a section's models are billed apart for. Both lists are asked: one that knows less takes nothing away.
    pub fn apart(&self, section: &str) -> Apart<'_> {
        let lists = [&self.imported, &*BUILT_IN].into_iter();
        let models = lists
            .filter_map(|list| list.sections.get(section))
            .flatten();
        let (mut apart, mut every) = (Apart::default(), Kinds::ALL);
        for (model, entry) in models {
            let kinds = entry.price.base.apart();
            let known = apart.by_model.entry(model.as_str()).or_default();
            *known = known.and(kinds);
        }
        for kinds in apart.by_model.values() {
            apart.any = apart.any.and(*kinds);
            every = every.among(*kinds);
        }
        if !apart.by_model.is_empty() {
            apart.every = every;
        }
        apart
    }

    /// Every section, in order.
    pub fn sections(&self) -> BTreeSet<&str> {
        let all = self
            .imported
            .sections
            .keys()
            .chain(BUILT_IN.sections.keys());
        all.map(String::as_str).collect()
    }

    /// Every model with its section, in order.
    pub fn entries(&self) -> BTreeMap<(&str, &str), &Entry> {
        BUILT_IN.entries().chain(self.imported.entries()).collect()
    }

    /// The lists it is made of, the first one last asked.
    pub fn versions(&self) -> Vec<&str> {
        let all = [&*BUILT_IN.version, &*self.imported.version];
        all.into_iter()
            .filter(|version| !version.is_empty())
            .collect()
    }
}

/// A list as it is written; what only tells a reader where it is from is not looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    schema: u64,
    version: String,
    #[serde(default, rename = "sources")]
    _sources: IgnoredAny,
    #[serde(default, rename = "licence")]
    _licence: IgnoredAny,
    #[serde(default, rename = "unit")]
    _unit: IgnoredAny,
    #[serde(borrow)]
    providers: BTreeMap<String, BTreeMap<String, &'a RawValue>>,
}

/// An object of any members.
pub(super) type Members<'a> = BTreeMap<String, &'a RawValue>;

impl List {
    pub(super) fn new(version: &str) -> Self {
        Self {
            version: version.into(),
            sections: BTreeMap::new(),
        }
    }

    /// Reads a list in tollgate's own form.
    pub fn parse(text: &str) -> Result<Self, NoList> {
        let file: File<'_> = serde_json::from_str(text).map_err(|e| NoList::new("", e))?;
        if file.schema != SCHEMA {
            let what = format!(
                "`schema` is {}, and this version reads {SCHEMA}",
                file.schema
            );
            return Err(NoList::new("", what));
        }
        let mut list = Self::new(&file.version);
        for (section, models) in file.providers {
            for (model, raw) in models {
                let at = format!("{section}/{model}");
                let entry = entry(raw, &list.version).map_err(|what| NoList::new(at, what))?;
                list.insert(&section, &model, entry);
            }
        }
        Ok(list)
    }

    pub(super) fn insert(&mut self, section: &str, model: &str, entry: Entry) {
        let models = self.sections.entry(section.to_owned()).or_default();
        models.insert(model.to_owned(), entry);
    }

    pub(super) fn find(&self, section: &str, model: &str) -> Option<&Entry> {
        self.sections.get(section)?.get(model)
    }

    pub(super) fn has(&self, section: &str, model: &str) -> bool {
        self.find(section, model).is_some()
    }

    /// What its prices are called.
    pub(super) fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// Every model with its section, in order.
    pub fn entries(&self) -> impl Iterator<Item = ((&str, &str), &Entry)> {
        self.sections.iter().flat_map(|(section, models)| {
            let model = move |(model, entry)| ((section.as_str(), String::as_str(model)), entry);
            models.iter().map(model)
        })
    }

    /// The list in tollgate's own form, one model a line.
    pub fn write(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut out = format!(
            "{{\n  \"schema\": {SCHEMA},\n  \"version\": {},\n  \"unit\": \"US dollars per million tokens\",\n  \"providers\": {{",
            quoted(&self.version)
        );
        let mut before = "";
        for (section, models) in &self.sections {
            let _ = write!(out, "{before}\n    {}: {{", quoted(section));
            let mut before_model = "";
            for (model, entry) in models {
                let _ = write!(
                    out,
                    "{before_model}\n      {}: {{{}}}",
                    quoted(model),
                    written(entry)
                );
                before_model = ",";
            }
            out.push_str("\n    }");
            before = ",";
        }
        out.push_str("\n  }\n}\n");
        out
    }
}

/// What a price must have.
const NO_RATES: &str =
    "`input` and `output` must both be given, or a unit that is no token; `\"0\"` is free";

/// One model, or what is wrong with it.
fn entry(raw: &RawValue, version: &Arc<str>) -> Result<Entry, String> {
    let members = members(raw)?;
    let mut tiers = Vec::new();
    let (mut context, mut max_output, mut reasoning) = (None, None, false);
    for (name, value) in &members {
        let wrong = |e: serde_json::Error| format!("`{name}`: {e}");
        match name.as_str() {
            "tiers" => {
                tiers = serde_json::from_str::<Vec<&RawValue>>(value.get()).map_err(wrong)?;
            }
            "context" => context = Some(serde_json::from_str(value.get()).map_err(wrong)?),
            "max_output" => max_output = Some(serde_json::from_str(value.get()).map_err(wrong)?),
            "thinks" => reasoning = serde_json::from_str(value.get()).map_err(wrong)?,
            kind if KINDS.contains(&kind) => {}
            _ => return Err(unknown(name)),
        }
    }
    let (mut stated, mut pictures) = (stated(&members)?, None);
    if let Some(raw) = members.get(IMAGES).filter(|raw| is_table(raw)) {
        pictures = drawn(raw)?.state(&mut stated);
    }
    let base = Rates::of(&stated).ok_or(NO_RATES)?;
    let tiers = tiers
        .into_iter()
        .map(|raw| tier(raw, &stated, pictures.as_ref()));
    Ok(Entry {
        price: Price {
            base,
            tiers: tiers.collect::<Result<_, _>>()?,
            pictures,
            version: Arc::clone(version),
        },
        context,
        max_output,
        reasoning,
    })
}

fn tier(raw: &RawValue, base: &Stated, pictures: Option<&Pictures>) -> Result<Tier, String> {
    let members = members(raw)?;
    let known = |name: &&String| *name != "above" && !KINDS.contains(&name.as_str());
    if let Some(name) = members.keys().find(known) {
        return Err(unknown(name));
    }
    if members.contains_key(IMAGES) && pictures.is_some() {
        return Err(format!(
            "a tier has no `{IMAGES}` where those are priced by what they are like"
        ));
    }
    let above = members
        .get("above")
        .ok_or("a tier needs `above`, a number of tokens")?;
    let above = serde_json::from_str(above.get()).map_err(|e| format!("`above`: {e}"))?;
    let rates = Rates::over(base, &stated(&members)?);
    let rates = rates.ok_or(NO_RATES)?;
    Ok(Tier { above, rates })
}

fn unknown(name: &str) -> String {
    format!(
        "`{name}` is not known; there are {}, tiers, context, max_output, thinks",
        KINDS.join(", ")
    )
}

pub(super) fn members(raw: &RawValue) -> Result<Members<'_>, String> {
    serde_json::from_str(raw.get()).map_err(|e| e.to_string())
}

/// The class whose price may depend on what is made.
const IMAGES: &str = "images";

fn is_table(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// A rate: a number, or a string of one.
fn rate(kind: &str, value: &RawValue) -> Result<Rate, String> {
    let rate = Rate::parse(kind, value.get().trim_matches('"'));
    rate.map_err(|e| format!("`{kind}` {e}"))
}

/// The rates among an object's members. What is no one rate is read elsewhere.
fn stated(members: &Members<'_>) -> Result<Stated, String> {
    let mut stated = Stated::default();
    for (slot, kind) in stated.iter_mut().zip(KINDS) {
        let value = members.get(kind);
        if let Some(value) = value.filter(|value| kind != IMAGES || !is_table(value)) {
            *slot = Some(rate(kind, value)?);
        }
    }
    Ok(stated)
}

/// What pictures cost by what they are like.
fn drawn(raw: &RawValue) -> Result<Pictures, String> {
    let each = members(raw)?;
    let each = each.iter().map(|(of, value)| {
        let of = Look::key(of).map_err(|e| format!("`{IMAGES}`: {e}"))?;
        Ok((of, rate(IMAGES, value)?))
    });
    let each = each.collect::<Result<_, String>>()?;
    Pictures::of(each).ok_or_else(|| format!("`{IMAGES}` names no price"))
}

/// The members of an entry: what was stated, so that all of it is read again as it is.
fn written(entry: &Entry) -> String {
    let pictures = entry.price.pictures.as_ref();
    // What depends on what pictures are like is written once, and as that.
    let but = pictures.map_or_else(Kinds::default, |_| Kinds::unit(Unit::Images));
    let mut parts = rates(&entry.price.base, but);
    parts.extend(pictures.map(|pictures| {
        let each = pictures.all().iter();
        let each = each.map(|(of, rate)| format!("\"{of}\":\"{}\"", rate.written(IMAGES)));
        format!("\"{IMAGES}\":{{{}}}", each.collect::<Vec<_>>().join(","))
    }));
    if !entry.price.tiers.is_empty() {
        let tiers = entry.price.tiers.iter().map(|tier| {
            let mut parts = vec![format!("\"above\":{}", tier.above)];
            parts.extend(rates(&tier.rates, but));
            format!("{{{}}}", parts.join(","))
        });
        parts.push(format!(
            "\"tiers\":[{}]",
            tiers.collect::<Vec<_>>().join(",")
        ));
    }
    for (name, limit) in [("context", entry.context), ("max_output", entry.max_output)] {
        parts.extend(limit.map(|limit| format!("\"{name}\":{limit}")));
    }
    if entry.reasoning {
        parts.push("\"thinks\":true".to_owned());
    }
    parts.join(",")
}

/// The rates that are stated, but for some.
fn rates(all: &Rates, but: Kinds) -> Vec<String> {
    let each = KINDS.into_iter().zip(all.all());
    let told = all.stated().without(but);
    let stated = each.filter(|(kind, _)| !told.among(Kinds::named(kind)).is_empty());
    stated
        .map(|(kind, rate)| format!("\"{kind}\":\"{}\"", rate.written(kind)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pictures::tests::some_pictures;
    use super::*;
    use crate::usage::{Money, Usage};

    /// Invented models and round numbers, so that nothing here depends on what anybody bills.
    const MADE_UP: &str = r#"{"schema":1,"version":"made up","providers":{
        "acme":{
            "anvil":{"input":"1","output":2,"cached":"0","cache_write":1.25,"tiers":[{"above":1000,"input":"2","output":"4"}],"context":5000,"max_output":100,"thinks":true},
            "feather":{"input":0,"output":0}
        },
        "groq":{"openai/gpt-oss-120b":{"input":"7","output":"7"}}
    }}"#;

    #[test]
    fn a_model_is_found_by_its_name_or_not_at_all() {
        let book = Book::load(Some(MADE_UP)).unwrap();
        let anvil = book.find("acme", "anvil").unwrap();
        assert_eq!(
            (anvil.context, anvil.max_output, anvil.reasoning),
            (Some(5000), Some(100), true)
        );
        assert_eq!(&*anvil.price.version, "made up");
        let usage = |input| Usage {
            input,
            cache_write_1h: 4,
            output: 1,
            ..Usage::default()
        };
        assert_eq!(anvil.price.cost(&usage(2)), Money(2_000 + 5_000 + 2_000));
        assert_eq!(
            anvil.price.cost(&usage(997)),
            Money(2_000 * 997 + 5_000 + 4_000)
        );
        assert!(book.find("acme", "feather").unwrap().price.is_free());
        for (section, model) in [
            ("acme", "anvil-2026-01-01"),
            ("acme", "Anvil"),
            ("acme", ""),
            ("other", "anvil"),
            ("openai", "anvil"),
        ] {
            assert_eq!(book.find(section, model), None, "{section}/{model}");
        }
    }

    #[test]
    fn what_was_imported_goes_before_what_is_built_in() {
        let (plain, book) = (Book::default(), Book::load(Some(MADE_UP)).unwrap());
        let input = |book: &Book, model| book.find("groq", model).map(|e| e.price.base.all()[0]);
        assert_eq!(input(&book, "openai/gpt-oss-120b"), Some(Rate(7_000_000)));
        assert_ne!(input(&plain, "openai/gpt-oss-120b"), Some(Rate(7_000_000)));
        assert!(input(&plain, "openai/gpt-oss-20b").is_some());
        assert_eq!(
            input(&book, "openai/gpt-oss-20b"),
            input(&plain, "openai/gpt-oss-20b"),
            "the rest of the section stays"
        );
        assert!(book.sections().contains("acme") && !plain.sections().contains("acme"));
        assert_eq!(book.entries().len(), plain.entries().len() + 2);
        assert_eq!(book.versions()[1], "made up");
        let limits = |book: &Book| {
            let entry = book.find("groq", "openai/gpt-oss-120b").unwrap();
            (entry.context, entry.max_output, entry.reasoning)
        };
        assert_eq!(limits(&book), limits(&plain), "what it does not say stays");
        assert!(limits(&book).0.is_some() && limits(&book).2);
    }

    #[test]
    fn what_is_built_in_can_be_true() {
        let list = List::parse(SNAPSHOT).unwrap();
        assert!(list.version.starts_with("built-in 20"));
        let (mut count, mut cheaper, mut dearer) = (0, 0, 0);
        for ((section, model), entry) in list.entries() {
            count += 1;
            let most = Rate::parse("input", "1000").unwrap();
            let tiers = entry.price.tiers.iter().map(|tier| tier.rates);
            for rates in tiers.chain([entry.price.base]) {
                let all = rates.all();
                assert!(all.iter().all(|rate| *rate < most), "{section}/{model}");
                cheaper += usize::from(all[1] <= all[0]);
                dearer += usize::from(all[1] > all[0]);
            }
            let is_free = section == "openrouter" && model.ends_with(":free");
            assert_eq!(entry.price.is_free(), is_free, "{section}/{model}");
            assert!(entry.context != Some(0) && entry.max_output != Some(0));
            let mut above: Vec<u64> = entry.price.tiers.iter().map(|tier| tier.above).collect();
            above.dedup();
            assert!(above.len() == entry.price.tiers.len() && above.is_sorted());
        }
        assert!((200..1000).contains(&count), "{count}");
        assert!(cheaper > 50 * dearer, "what is cached is seldom dearer");
        for section in [
            "anthropic",
            "gemini",
            "groq",
            "mistral",
            "openai",
            "openrouter",
            "xai",
        ] {
            assert!(list.sections.contains_key(section), "{section}");
        }
        assert_eq!(List::parse(&list.write()), Ok(list));
    }

    #[test]
    fn what_is_billed_apart_is_known_by_model_and_by_section() {
        let none = Kinds::default();
        let (cached, write) = (Kinds::named("cached"), Kinds::named("cache_write"));
        let book = Book::load(Some(
            r#"{"schema":1,"version":"made up","providers":{
            "acme":{"a":{"input":1,"cached":0,"cache_write":2,"output":2,"reasoning":2},"b":{"input":1,"cached":0,"output":2}},
            "groq":{"openai/gpt-oss-120b":{"input":7,"output":7}}}}"#,
        ))
        .unwrap();
        let acme = book.apart("acme");
        assert_eq!((acme.any, acme.every), (cached.and(write), cached));
        assert_eq!(acme.by_model.get("a"), Some(&cached.and(write)));
        assert_eq!(acme.by_model.get("c"), None);
        let groq = book.apart("groq");
        let known = groq.by_model.get("openai/gpt-oss-120b");
        assert_eq!(known, Some(&cached), "an import takes nothing away");
        let unknown = book.apart("other");
        assert_eq!((unknown.any, unknown.every), (none, none));
    }

    #[test]
    fn a_list_that_is_none_says_where() {
        let list = |entry: &str| {
            let text = format!(
                r#"{{"schema":1,"version":"x","providers":{{"acme":{{"anvil":{entry}}}}}}}"#
            );
            List::parse(&text).unwrap_err().to_string()
        };
        for (entry, want) in [
            (
                r#"{"input":"1"}"#,
                "acme/anvil: `input` and `output` must both be given",
            ),
            (
                r#"{"input":"1","output":"-2"}"#,
                "acme/anvil: `output` is not a number",
            ),
            (
                r#"{"input":"1","output":null}"#,
                "acme/anvil: `output` is not a number",
            ),
            (
                r#"{"input":"0.0000001","output":"2"}"#,
                "acme/anvil: `input` has more than 6 digits",
            ),
            (
                r#"{"input":"1","output":"2","inptu":"1"}"#,
                "acme/anvil: `inptu` is not known",
            ),
            (
                r#"{"input":"1","output":"2","context":"x"}"#,
                "acme/anvil: `context`: invalid type",
            ),
            (
                r#"{"input":"1","output":"2","tiers":[{"input":"1"}]}"#,
                "acme/anvil: a tier needs `above`",
            ),
            (
                r#"{"input":"1","output":"2","tiers":[{"above":-1}]}"#,
                "acme/anvil: `above`: invalid value",
            ),
            (
                r#"{"input":"1","output":"2","tiers":[{"above":1,"context":1}]}"#,
                "acme/anvil: `context` is not known",
            ),
            (
                r#"{"input":"1","output":"2","tiers":[7]}"#,
                "acme/anvil: invalid type",
            ),
            ("7", "acme/anvil: invalid type"),
        ] {
            assert!(list(entry).starts_with(want), "{entry}: {}", list(entry));
        }
        for (text, want) in [
            ("", "EOF"),
            ("[]", "invalid"),
            (
                r#"{"schema":2,"version":"x","providers":{}}"#,
                "`schema` is 2",
            ),
            (
                r#"{"schema":1,"version":"x","providers":{},"more":1}"#,
                "unknown field `more`",
            ),
        ] {
            let told = Book::load(Some(text)).unwrap_err().to_string();
            assert!(told.contains(want), "{text}: {told}");
        }
    }

    fn some_stated() -> impl Strategy<Value = Stated> {
        // Few values, so that rates are often those that would be taken for granted.
        let rate = prop_oneof![0..3_u64, any::<u64>()].prop_map(Rate);
        proptest::array::uniform14(proptest::option::of(rate))
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_is_written(
            (mut stated, ends) in (some_stated(), any::<(u64, u64)>()),
            tiers in proptest::collection::vec((any::<u64>(), some_stated()), 0..3),
            pictures in proptest::option::of(some_pictures()),
            (context, max_output, reasoning, name) in (any::<Option<u64>>(), any::<Option<u64>>(), any::<bool>(), ".{0,8}"),
        ) {
            let mut list = List::new("made up");
            (stated[0], stated[6]) = (Some(Rate(ends.0)), Some(Rate(ends.1)));
            let pictures: Option<Pictures> = pictures.and_then(|it| it.state(&mut stated));
            let base = Rates::of(&stated).unwrap();
            let but_pictures = |tier: Stated| match pictures {
                Some(_) => { let mut tier = tier; tier[12] = None; tier }
                None => tier,
            };
            let tier = |(above, tier)| (above, but_pictures(tier));
            let tiers = tiers.into_iter().map(tier);
            let tier = |(above, tier)| Tier { above, rates: Rates::over(&stated, &tier).unwrap() };
            let tiers = tiers.map(tier).collect();
            let price = Price { base, tiers, pictures: pictures.clone(), version: Arc::clone(&list.version) };
            let entry = Entry { price, context, max_output, reasoning };
            list.insert("acme", &name, entry.clone());
            list.insert(&name, "anvil", entry);
            prop_assert_eq!(List::parse(&list.write()), Ok(list));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = Book::load(Some(&text));
        }
    }
}
