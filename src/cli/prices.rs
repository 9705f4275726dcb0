//! `tollgate prices`: what is known of prices, and how to know better.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use sha2::{Digest as _, Sha256};

use super::Failed;
use crate::config::Provider;
use crate::config::load::{Source, presets};
use crate::config::secret::Environment;
use crate::plan::money::{IMPORTED, book, is_free};
use crate::provider;
use crate::usage::book::{Book, Entry};
use crate::usage::import::{Format, Imported};
use crate::usage::{KINDS, Kinds, Pictures, Rates, Unit};

/// A longer list, in bytes, is none: the longest there is has 3 MiB.
const LONGEST: u64 = 64 << 20;

/// The prices in force for a configuration.
fn in_force(configuration: &Path) -> Result<Book, Failed> {
    book(folder(configuration)).map_err(|wrong| Failed::User(anyhow::Error::msg(wrong)))
}

/// Prints the prices in force: of all, of one provider, or of one model.
pub fn show(configuration: &Path, what: Option<&str>) -> Result<(), Failed> {
    let book = in_force(configuration)?;
    let mut lines = Vec::new();
    let (provider, model) = match what.map(|what| what.split_once('/').unwrap_or((what, ""))) {
        None => (None, ""),
        Some((provider, model)) => (Some(provider), model),
    };
    let section = match provider {
        None => None,
        Some(provider) => match section(configuration, &book, provider)? {
            None => {
                super::print(&[format!("{provider}: its answers cost nothing")]);
                return Ok(());
            }
            some => some,
        },
    };
    if let (Some(section), false) = (&section, model.is_empty()) {
        let entry = book.find(section, model).ok_or_else(|| {
            let list = format!("`tollgate prices show {section}` lists those that are known");
            Failed::User(anyhow!(
                "no price is known for `{section}/{model}`: names must be the same to the letter; {list}"
            ))
        })?;
        lines.extend(whole(section, model, entry));
    } else {
        lines.push(format!("prices: {}", book.versions().join(", under ")));
        let head = ["INPUT", "CACHED", "OUTPUT", "CONTEXT"];
        lines.push(row(
            head.map(str::to_owned),
            "SECTION/MODEL (US dollars per million tokens)",
        ));
        for ((of, model), entry) in book.entries() {
            if section.as_deref().is_none_or(|section| section == of) {
                lines.push(short(&format!("{of}/{model}"), entry));
            }
        }
    }
    super::print(&lines);
    Ok(())
}

/// Reads somebody's list and keeps it beside the configuration, in the place of what was imported before.
pub fn import(configuration: &Path, format: Format, file: &Path) -> Result<(), Failed> {
    let imported = foreign(format, file)?;
    let kept = folder(configuration).join(IMPORTED);
    // Whole or not at all: a gateway may start meanwhile.
    let beside = kept.with_extension(format!("{}.new", std::process::id()));
    let written = std::fs::write(&beside, imported.list.write());
    let written = written.and_then(|()| std::fs::rename(&beside, &kept));
    if let Err(e) = written {
        let _ = std::fs::remove_file(&beside);
        let message = format!(
            "{}: {e}; the list is kept beside the configuration",
            kept.display()
        );
        return Err(Failed::User(anyhow::Error::msg(message)));
    }
    super::print(&[format!(
        "{}: {} models; {} were left out, as they have no price by the token. It is read at start.",
        kept.display(),
        imported.list.entries().count(),
        imported.left_out,
    )]);
    Ok(())
}

/// Prints what importing a list would change.
pub fn diff(configuration: &Path, format: Format, file: &Path) -> Result<(), Failed> {
    let imported = foreign(format, file)?;
    let before = in_force(configuration)?;
    let after = Book::over(imported.list);
    let (before, after) = (before.entries(), after.entries());
    let mut lines = Vec::new();
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for name @ (section, model) in names {
        let name_text = format!("{section}/{model}");
        match (before.get(name), after.get(name)) {
            (Some(_), None) => lines.push(format!("- {name_text}")),
            (None, Some(entry)) => {
                let [input, _, output] = ends(&entry.price.base);
                lines.push(format!("+ {name_text}: input {input}, output {output}"));
            }
            (Some(old), Some(new)) => {
                let changes = changes(old, new);
                if !changes.is_empty() {
                    lines.push(format!("~ {name_text}: {}", changes.join(", ")));
                }
            }
            (None, None) => {}
        }
    }
    if lines.is_empty() {
        lines.push("nothing would change".to_owned());
    }
    super::print(&lines);
    Ok(())
}

fn folder(configuration: &Path) -> &Path {
    configuration.parent().unwrap_or(Path::new(""))
}

fn read(file: &Path) -> Result<String, Failed> {
    let of = |e: std::io::Error| Failed::User(anyhow!("{}: {e}", file.display()));
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(of)?;
    open.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(of)?;
    if text.len() as u64 > LONGEST {
        let message = format!(
            "{}: longer than 64 MiB; that is no list of prices",
            file.display()
        );
        return Err(Failed::User(anyhow::Error::msg(message)));
    }
    Ok(text)
}

/// Somebody's list. The same file gives the same version on one day.
fn foreign(format: Format, file: &Path) -> Result<Imported, Failed> {
    let text = read(file)?;
    let digest = Sha256::digest(text.as_bytes());
    let digest: String = digest.iter().take(4).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let day = day(SystemTime::now());
    let version = format!("{} {digest} {day}", format.name());
    Imported::read(format, &text, &version, &day).map_err(|e| {
        let (file, format) = (file.display(), format.name());
        Failed::User(anyhow!(
            "{file}: {e}; is it a list in the form of {format}?"
        ))
    })
}

/// The day in UTC, as `2026-11-20`.
fn day(now: SystemTime) -> String {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut day = seconds / 86_400;
    let mut year = 1970;
    let divides = |by: u64, year: u64| year.is_multiple_of(by);
    let is_leap = |year| divides(4, year) && (!divides(100, year) || divides(400, year));
    while let Some(rest) = day.checked_sub(365 + u64::from(is_leap(year))) {
        (day, year) = (rest, year + 1);
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        let Some(rest) = day.checked_sub(length) else {
            break;
        };
        (day, month) = (rest, month + 1);
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

/// The section that a name means: a section's own, a configured provider's, a preset's. None if what it answers is free.
fn section(configuration: &Path, book: &Book, name: &str) -> Result<Option<String>, Failed> {
    if book.sections().contains(name) {
        return Ok(Some(name.to_owned()));
    }
    // Whatever else is wrong with the configuration is not what was asked.
    let source = Source::open(configuration).ok();
    let read = |mut source: Source| source.read(provider::PRESETS, &Environment::default());
    let configured = source.map(read).map(|(config, _)| config.providers);
    let presets = presets(provider::PRESETS).context("the presets are flawed")?;
    let found = configured.and_then(|mut all| all.remove(name));
    let found: Option<Provider> = found.or_else(|| {
        let mut all: BTreeMap<String, Provider> = presets;
        all.remove(name)
    });
    match found {
        Some(provider) if is_free(&provider, folder(configuration)) => Ok(None),
        Some(Provider {
            prices: Some(section),
            ..
        }) => Ok(Some(section)),
        Some(_) => Err(Failed::User(anyhow!(
            "what `{name}` costs is not known; `prices` in [providers.{name}] names the section its models are in, and `free` says that it is nothing"
        ))),
        None => {
            let all: Vec<&str> = book.sections().into_iter().collect();
            let message = format!(
                "no provider is called `{name}`; there are prices of {}",
                all.join(", ")
            );
            Err(Failed::User(anyhow::Error::msg(message)))
        }
    }
}

/// Input, cached, output.
fn ends(rates: &Rates) -> [String; 3] {
    let [input, cached, _, _, _, _, output, ..] = rates.all();
    [input, cached, output].map(|rate| rate.written("input"))
}

fn row([input, cached, output, context]: [String; 4], name: &str) -> String {
    format!("{input:>10} {cached:>10} {output:>10} {context:>9}  {name}")
}

fn short(name: &str, entry: &Entry) -> String {
    let [input, cached, output] = ends(&entry.price.base);
    let context = entry
        .context
        .map_or_else(String::new, |context| context.to_string());
    let tiers = entry.price.tiers.iter().map(|tier| {
        let [input, _, output] = ends(&tier.rates);
        format!(" (above {} tokens: {input} {output})", tier.above)
    });
    let tiers: Vec<String> = tiers.collect();
    let name = format!("{name}{}", tiers.concat());
    row([input, cached, output, context], &name)
}

/// Everything that is known of one model.
fn whole(section: &str, model: &str, entry: &Entry) -> Vec<String> {
    let units = entry.price.base.stated().without(Kinds::tokens());
    let what = match units.is_empty() {
        true => "per million tokens",
        false => "per million tokens or characters, or for one of another unit",
    };
    let mut lines = vec![format!(
        "{section}/{model}, US dollars {what}, by `{}`",
        entry.price.version
    )];
    let tiers = entry.price.tiers.iter();
    let tiers = tiers.map(|tier| (format!("above {} tokens", tier.above), tier.rates));
    for (name, rates) in std::iter::once(("price".to_owned(), entry.price.base)).chain(tiers) {
        // What depends on what pictures are like is told beside.
        let drawn = entry.price.pictures.as_ref();
        let but = drawn.map_or_else(Kinds::default, |_| Kinds::unit(Unit::Images));
        let stated = rates.stated().without(but);
        // What costs nothing that is no token is not billed at all, unless it is stated.
        let is_told = |kind: &str| {
            let kind = Kinds::named(kind);
            !kind.among(Kinds::tokens().and(stated)).is_empty()
        };
        let each = KINDS.into_iter().zip(rates.all());
        let each = each.filter(|(kind, _)| is_told(kind));
        let each = each.map(|(kind, rate)| format!("{kind} {}", rate.written(kind)));
        let each: Vec<String> = each.collect();
        lines.push(format!("{name}: {}", each.join(", ")));
    }
    let pictures = entry.price.pictures.as_ref();
    lines.extend(pictures.map(|pictures| format!("images: {}", drawn(pictures))));
    for (name, limit) in [("context", entry.context), ("max_output", entry.max_output)] {
        let limit = limit.map_or_else(|| "not known".to_owned(), |limit| limit.to_string());
        lines.push(format!("{name}: {limit}"));
    }
    if entry.reasoning {
        lines.push("may think before it answers".to_owned());
    }
    lines
}

/// What pictures cost by what they are like.
fn drawn(pictures: &Pictures) -> String {
    let each = pictures.all().iter();
    let each = each.map(|(of, rate)| format!("{of} {}", rate.written("images")));
    each.collect::<Vec<_>>().join(", ")
}

/// What is different, each as `input 2.50 → 3.00`.
fn changes(old: &Entry, new: &Entry) -> Vec<String> {
    let mut changes = Vec::new();
    let mut all = |prefix: &str, old: &Rates, new: &Rates| {
        for ((kind, old), new) in KINDS.into_iter().zip(old.all()).zip(new.all()) {
            if old != new {
                let [old, new] = [old, new].map(|rate| rate.written(kind));
                changes.push(format!("{prefix}{kind} {old} → {new}"));
            }
        }
    };
    all("", &old.price.base, &new.price.base);
    let thresholds =
        |entry: &Entry| -> Vec<u64> { entry.price.tiers.iter().map(|tier| tier.above).collect() };
    if thresholds(old) == thresholds(new) {
        for (old, new) in old.price.tiers.iter().zip(&new.price.tiers) {
            all(&format!("above {} ", old.above), &old.rates, &new.rates);
        }
    } else {
        changes.push(format!(
            "tiers above {:?} → {:?}",
            thresholds(old),
            thresholds(new)
        ));
    }
    let images = |entry: &Entry| match &entry.price.pictures {
        Some(pictures) => drawn(pictures),
        None => "not by size and quality".to_owned(),
    };
    if old.price.pictures != new.price.pictures {
        changes.push(format!("images [{}] → [{}]", images(old), images(new)));
    }
    let text = |limit: Option<u64>| {
        limit.map_or_else(|| "not known".to_owned(), |limit| limit.to_string())
    };
    for (name, old, new) in [
        ("context", old.context, new.context),
        ("max_output", old.max_output, new.max_output),
    ] {
        if old != new {
            changes.push(format!("{name} {} → {}", text(old), text(new)));
        }
    }
    if old.reasoning != new.reasoning {
        changes.push(format!("thinks {} → {}", old.reasoning, new.reasoning));
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (86_400, "1970-01-02"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_767_225_599, "2025-12-31"),
            (1_767_225_600, "2026-01-01"),
            (1_795_132_800, "2026-11-20"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn every_preset_has_a_section_that_there_is_or_is_free_or_neither() {
        let presets: BTreeMap<String, Provider> = presets(provider::PRESETS).unwrap();
        let book = Book::default();
        let mut named = BTreeSet::new();
        for (name, preset) in &presets {
            assert!(!(preset.local && preset.prices.is_some()), "{name}");
            assert_eq!(preset.free, None, "{name}: that is an operator's word");
            if let Some(section) = &preset.prices {
                assert!(book.sections().contains(&**section), "{name}: {section}");
                named.insert(&**section);
            }
            let is_local = preset.base_url.as_deref().is_some_and(|url| {
                url.contains("localhost") || url.contains("127.0.0.1") || url == "echo:"
            });
            assert!(
                !is_local || preset.local,
                "{name} is local and not called so"
            );
        }
        // Whose names are an owner's choice is named by that owner.
        named.insert("azure");
        assert_eq!(named, book.sections());
    }
}
