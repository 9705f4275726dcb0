//! From a file, the presets and the environment to a [`Config`], with every flaw at once.
//!
//! Preset under file under environment. Figment reads what that comes to: it stops at the first flaw and knows no lines, so
//! reading goes on without whatever was flawed until nothing is, and lines are looked up in the spanned text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use toml_edit::{ImDocument, Item};

use super::diagnostic::on_one_line;
use super::secret::Environment;
use super::tree::{self, lay, lookup, put};
use super::{Config, Diagnostic};

/// A file with more flaws than this is not a configuration; the rest is left out.
const MOST_FLAWS: usize = 100;

/// What is promised and not built: refused by name. `*` stands for any one name.
const NOT_YET: &[&str] = &["models.*.rules_for"];

/// The built-in providers, read as an operator's are.
#[expect(
    clippy::result_large_err,
    reason = "figment's own error, once at the start"
)]
pub fn presets<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, figment::Error> {
    Figment::from(Toml::string(text)).extract()
}

/// The sections whose scalars the environment may override.
const OVERRIDABLE: &[&str] = &["server", "admin", "ledger", "defaults"];

/// A configuration's text, and where in it each value stands.
#[derive(Debug)]
pub struct Source {
    name: String,
    file: Option<PathBuf>,
    folder: PathBuf,
    document: ImDocument<String>,
    /// Which variable gave the value at a path.
    overrides: BTreeMap<Vec<String>, String>,
}

/// Every flaw of a configuration, one line each, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaws(pub Vec<String>);

impl fmt::Display for Flaws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Flaws {}

impl Source {
    /// Reads a file as far as its syntax goes.
    pub fn open(path: &Path) -> Result<Self, Flaws> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            Flaws(vec![format!(
                "{name}: {e}; name a configuration with --config FILE or TOLLGATE_CONFIG"
            )])
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self {
            file: Some(path.to_owned()),
            ..Self::parse(name, folder, &text)?
        })
    }

    /// Reads a text as far as its syntax goes. `name` opens every line about it.
    pub fn parse(name: String, folder: PathBuf, text: &str) -> Result<Self, Flaws> {
        let document = ImDocument::parse(text.to_owned()).map_err(|e| {
            let line = e.span().map_or(1, |span| line_of(text, span.start));
            let message = e.message().replace('\n', "; ");
            Flaws(vec![on_one_line(&format!("{name}:{line}: {message}"))])
        })?;
        Ok(Self {
            name,
            file: None,
            folder,
            document,
            overrides: BTreeMap::new(),
        })
    }

    /// The folder that relative paths start from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that it was read from, if it was.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What was read.
    pub fn text(&self) -> &str {
        self.document.raw()
    }

    /// What stands there, value by value.
    pub(super) fn tree(&self) -> Dict {
        tree::of(&self.document)
    }

    /// The configuration, without what was flawed, and the flaws.
    pub fn read(&mut self, presets: &str, environment: &Environment) -> (Config, Vec<Diagnostic>) {
        let mut flaws = Vec::new();
        let mut merged = match self.merge(presets, &mut flaws) {
            Ok(merged) => merged,
            Err(e) => {
                flaws.push(Diagnostic::new::<String>([], e.to_string()));
                return (Config::default(), flaws);
            }
        };
        self.overlay(&mut merged, environment, &mut flaws);
        let mut reader = Reader {
            tree: Value::from(merged),
            flaws,
            removed: BTreeMap::new(),
            retyped: Vec::new(),
        };
        let config = reader.read(&self.overrides);
        (config, reader.flaws)
    }

    /// Each provider over its preset.
    #[expect(
        clippy::result_large_err,
        reason = "figment's own error, once at the start"
    )]
    fn merge(&self, presets: &str, flaws: &mut Vec<Diagnostic>) -> Result<Dict, figment::Error> {
        let presets: Dict = self::presets(presets)?;
        let mut file = self.tree();
        let Some(Value::Dict(_, providers)) = file.get_mut("providers") else {
            return Ok(file);
        };
        for (name, entry) in providers {
            let valid = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
            if name.is_empty() || !name.chars().all(valid) {
                let message = "a provider's name is made of a-z, 0-9, `_` and `-`";
                flaws.push(Diagnostic::new(["providers", name], message));
                continue;
            }
            let written = entry.as_dict();
            let wanted = written.and_then(|e| e.get("preset")?.as_str());
            match (presets.get(wanted.unwrap_or(name)), wanted) {
                (Some(preset), _) => lay(entry, preset),
                (None, Some(wanted)) => flaws.push(Diagnostic::new(
                    ["providers", name, "preset"],
                    format!(
                        "no preset is called `{wanted}`{}; `tollgate providers` lists them",
                        suggest(wanted, presets.keys().map(String::as_str))
                    ),
                )),
                (None, None) if !written.is_some_and(|e| e.contains_key("base_url")) => {
                    flaws.push(Diagnostic::new(
                        ["providers", name],
                        format!(
                            "no preset is called `{name}`{}; add preset = \"openai-compatible\" and base_url = \"…\"",
                            suggest(name, presets.keys().map(String::as_str))
                        ),
                    ));
                }
                (None, None) => {}
            }
        }
        Ok(file)
    }

    /// Lays the environment's values over the file's. They are text here; [`Reader`] reads them as the field's type.
    fn overlay(
        &mut self,
        merged: &mut Dict,
        environment: &Environment,
        flaws: &mut Vec<Diagnostic>,
    ) {
        for (name, value) in environment.starting("TOLLGATE_") {
            let Some((section, field)) = name.split_once("__") else {
                continue;
            };
            let (section, field) = (section.to_lowercase(), field.to_lowercase());
            let variable = format!("TOLLGATE_{name}");
            if !OVERRIDABLE.contains(&section.as_str()) {
                flaws.push(Diagnostic::new::<String>(
                    [],
                    format!("{variable}: only scalars of [server], [admin], [ledger] and [defaults] can be overridden"),
                ));
                continue;
            }
            let empty = || Value::from(Dict::new());
            if let Value::Dict(_, fields) = merged.entry(section.clone()).or_insert_with(empty) {
                fields.insert(field.clone(), Value::from(value));
                self.overrides.insert(vec![section, field], variable);
            }
        }
    }

    /// The flaws as lines, in the order of the file, with what follows from another left out.
    pub fn report(&self, flaws: &[Diagnostic]) -> Flaws {
        let mut lines: Vec<(usize, String)> = Vec::new();
        for (n, flaw) in flaws.iter().enumerate() {
            let follows = |first: &Diagnostic| {
                !first.at.is_empty()
                    && flaw.at.len() > first.at.len()
                    && flaw.at.starts_with(&first.at)
            };
            if flaws
                .iter()
                .take(n)
                .any(|first| first == flaw || follows(first))
            {
                continue;
            }
            let line = self.line(&flaw.at);
            let place = match (self.overrides.get(&flaw.at), line) {
                (Some(variable), _) => variable.clone(),
                (None, Some(line)) => format!("{}:{line}", self.name),
                (None, None) => self.name.clone(),
            };
            lines.push((line.unwrap_or(0), on_one_line(&format!("{place}: {flaw}"))));
        }
        lines.sort_by_key(|(line, _)| *line);
        Flaws(lines.into_iter().map(|(_, text)| text).collect())
    }

    /// The line of a path, or of as much of it as the file has.
    fn line(&self, at: &[String]) -> Option<usize> {
        let mut item = self.document.as_item();
        let mut span = None;
        for part in at {
            let next: Option<(Option<std::ops::Range<usize>>, &Item)> =
                if let Some(table) = item.as_table_like() {
                    table
                        .get_key_value(part)
                        .map(|(key, item)| (key.span().or_else(|| item.span()), item))
                } else if let (Some(list), Ok(n)) = (item.as_array(), part.parse::<usize>()) {
                    span = list.get(n).and_then(toml_edit::Value::span).or(span);
                    // Below an element of a list there are no further `Item`s to walk; its own line is close enough.
                    break;
                } else {
                    None
                };
            let Some((found, below)) = next else { break };
            span = found.or(span);
            item = below;
        }
        span.map(|span| line_of(self.document.raw(), span.start))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

/// Reads a tree, again and again, each time without the flaw that was found.
struct Reader {
    tree: Value,
    flaws: Vec<Diagnostic>,
    /// For each list, the original places of the elements taken out of it.
    removed: BTreeMap<Vec<String>, Vec<usize>>,
    /// The environment's values that were read a second time, as something else than text.
    retyped: Vec<Vec<String>>,
}

impl Reader {
    fn read(&mut self, overrides: &BTreeMap<Vec<String>, String>) -> Config {
        while self.flaws.len() < MOST_FLAWS {
            let error = match self.tree.deserialize::<Config>() {
                Ok(config) => return config,
                Err(error) => error,
            };
            let path = error.path.clone();
            let text = lookup(&self.tree, &path)
                .and_then(Value::as_str)
                .map(str::to_owned);
            if let (true, false, Some(text)) = (
                overrides.contains_key(&path),
                self.retyped.contains(&path),
                text,
            ) {
                let number = text.parse::<u64>().ok().map(Value::from);
                let value = number.or_else(|| text.parse::<bool>().ok().map(Value::from));
                put(
                    &mut self.tree,
                    &path,
                    Some(value.unwrap_or_else(|| Value::from(text))),
                );
                self.retyped.push(path);
                continue;
            }
            self.note(&error.kind, path);
        }
        Config::default()
    }

    /// Writes a flaw down and takes it out of the tree.
    fn note(&mut self, kind: &Kind, mut path: Vec<String>) {
        let mut at = self.original(&path);
        let message = match kind {
            Kind::UnknownField(name, expected) => {
                let is_table = lookup(&self.tree, &path).is_some_and(|v| v.as_dict().is_some());
                if let (Some("models"), true, 3) =
                    (path.first().map(String::as_str), is_table, path.len())
                    && not_yet(&path).is_none()
                {
                    path.pop();
                    format!(
                        "a table within a model; a name with a dot must be quoted: [models.\"{}.{name}\"]",
                        path.last().map_or("", String::as_str)
                    )
                } else {
                    let known = not_yet(&path).or_else(|| elsewhere(name));
                    known
                        .unwrap_or_else(|| format!("`{name}` is unknown{}", advice(name, expected)))
                }
            }
            Kind::MissingField(name) => {
                at.push(name.to_string());
                format!("`{name}` is missing")
            }
            // What stands there may be a secret in the wrong place.
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)
                if matches!(
                    at.first().map(String::as_str),
                    Some("keys" | "providers" | "traces")
                ) || at == ["admin", "token"] =>
            {
                format!("expected {expected}")
            }
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                format!("expected {expected}, found {found}")
            }
            Kind::UnknownVariant(found, expected) => {
                format!("`{found}` is not one of {}", expected.join(", "))
            }
            Kind::InvalidLength(found, expected) => {
                format!("has {found} elements, expected {expected}")
            }
            Kind::Message(message) => message.clone(),
            other => other.to_string(),
        };
        // What is missing since we took it out is no flaw of its own.
        if !self.flaws.iter().any(|flaw| flaw.at == at) {
            self.flaws.push(Diagnostic { at, message });
        }
        self.remove(&path);
    }

    /// A path in the tree as it is now, as a path in the file.
    fn original(&self, path: &[String]) -> Vec<String> {
        let mut original: Vec<String> = Vec::with_capacity(path.len());
        for part in path {
            let place = self.removed.get(&original).and_then(|gone| {
                let now: usize = part.parse().ok()?;
                Some(
                    gone.iter()
                        .fold(now, |at, gone| if *gone <= at { at + 1 } else { at }),
                )
            });
            original.push(place.map_or_else(|| part.clone(), |n| n.to_string()));
        }
        original
    }

    fn remove(&mut self, path: &[String]) {
        if let Some((last, parent)) = self.original(path).split_last()
            && lookup(&self.tree, path.get(..path.len() - 1).unwrap_or_default())
                .is_some_and(|v| v.as_array().is_some())
            && let Ok(n) = last.parse()
        {
            let gone = self.removed.entry(parent.to_vec()).or_default();
            gone.push(n);
            gone.sort_unstable();
        }
        if path.is_empty() || !put(&mut self.tree, path, None) {
            // Nothing to take out: give up rather than turn in circles.
            self.tree = Value::from(Dict::new());
        }
    }
}

fn not_yet(path: &[String]) -> Option<String> {
    let matches = |pattern: &&&str| {
        let parts: Vec<&str> = pattern.split('.').collect();
        parts.len() == path.len()
            && parts
                .iter()
                .zip(path)
                .all(|(p, name)| *p == "*" || p == name)
    };
    let pattern = NOT_YET.iter().find(matches)?;
    let name = pattern.rsplit('.').next().unwrap_or(pattern);
    Some(format!(
        "`{name}` is not yet built; this version cannot honour it, so it is refused"
    ))
}

/// What there is in another place only, and is looked for where it would go too far.
fn elsewhere(name: &str) -> Option<String> {
    let message =
        "`log_bodies` is for one key by its name, under [keys.NAME]: nobody else's text is logged";
    (name == "log_bodies").then(|| message.to_owned())
}

/// So many names are told where somebody has written none of them.
const FEW: usize = 5;

/// `; did you mean …?`, if one of the names is close enough.
pub fn suggest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(wrong.len()) / 4)
        .min()
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// The same; and where none is close, all of them, if they are few.
fn advice(wrong: &str, names: &[&str]) -> String {
    let near = suggest(wrong, names.iter().copied());
    match names.split_last() {
        Some((last, others)) if near.is_empty() && (1..FEW).contains(&others.len()) => {
            format!("; there are {} and {last}", others.join(", "))
        }
        _ => near,
    }
}

#[cfg(test)]
mod tests {
    use super::super::money::Store;
    use super::super::{Listen, OnDisconnect};
    use super::*;
    use std::time::Duration;

    const PRESETS: &str = "[groq]\nbase_url = \"https://g/v1\"\nrules = { drop = [\"logprobs\"], rename = { a = \"b\" } }\nrules_for.\"o1.*\" = { drop = [\"x\"], refuse = [\"y\"] }\n";

    fn read(text: &str, variables: &[(&str, &str)]) -> (Config, Vec<String>) {
        let environment = variables
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect();
        let mut source = match Source::parse("t.toml".into(), PathBuf::new(), text) {
            Ok(source) => source,
            Err(flaws) => return (Config::default(), flaws.0),
        };
        let (config, flaws) = source.read(PRESETS, &environment);
        (config, source.report(&flaws).0)
    }

    #[test]
    fn ten_flaws_are_ten_lines_in_order() {
        let text = r#"
[server]
lisen = "127.0.0.1:1"
idle_timeout = "soon"
max_body = 5
tls = "x"
[providers.grok]
[providers.groq]
tries = 99
[models.gpt-4.1]
targets = []
[models.fast]
targets = [
  7,
  "groq/a",
  { to = "groq/b", weight = -2 },
  false,
]
[models.slow]
[keys.ann]
limits = { rpm = 0, rps = 1 }
"#;
        let (config, lines) = read(text, &[]);
        let want = [
            "t.toml:3: server.lisen: `lisen` is unknown; did you mean `listen`?",
            "t.toml:4: server.idle_timeout: `soon` is not a duration; write \"250ms\", \"5s\", \"10m\", \"2h\" or \"30d\"",
            "t.toml:5: server.max_body: expected a string, found signed int `5`",
            "t.toml:6: server.tls: expected a table such as { cert = \"tls.crt\", key = \"tls.key\" }, found string \"x\"",
            "t.toml:7: providers.grok: no preset is called `grok`; did you mean `groq`?; add preset = \"openai-compatible\" and base_url = \"…\"",
            "t.toml:9: providers.groq.tries: 99 is not between 1 and 10",
            "t.toml:10: models.gpt-4.1: a table within a model; a name with a dot must be quoted: [models.\"gpt-4.1\"]",
            "t.toml:14: models.fast.targets[0]: expected \"provider/model\" or { to = \"provider/model\" }, found signed int `7`",
            "t.toml:16: models.fast.targets[2].weight: expected u32, found signed int `-2`",
            "t.toml:17: models.fast.targets[3]: expected \"provider/model\" or { to = \"provider/model\" }, found bool false",
            "t.toml:19: models.slow.targets: `targets` is missing",
            "t.toml:21: keys.ann.limits.rpm: 0 is no limit; write a number from 1 to 1000000000000, and shut a key out with `tollgate keys revoke`",
            "t.toml:21: keys.ann.limits.rps: `rps` is unknown; did you mean `rpd`?",
        ];
        assert_eq!(lines, want);
        assert_eq!(config.models["fast"].targets.len(), 2);
    }

    #[test]
    fn every_way_to_write_a_table_or_a_date_is_read() {
        let inline = "[models.fast]\ntargets = [{ to = \"groq/a\", price = { input = 0.1, output = 3 } }]\n\
                      [keys]\nann = { key = \"k\", expires = \"2027-01-01\" }\n";
        let spread = "[[models.fast.targets]]\nto = \"groq/a\"\n[models.fast.targets.price]\ninput = 0.1\noutput = 3\n\
                      [keys]\nann.key = \"k\"\nann.expires = 2027-01-01\n";
        let (one, none) = read(inline, &[]);
        let (other, nothing) = read(spread, &[]);
        assert_eq!((none, nothing), (Vec::new(), Vec::new()));
        assert_eq!(format!("{:?}", one.models), format!("{:?}", other.models));
        assert_eq!(one.keys["ann"].expires, other.keys["ann"].expires);
        assert!(one.keys["ann"].expires.is_some());
    }

    #[test]
    fn amounts_are_read_from_the_files_text() {
        let text = r#"
[total]
budget = { usd = 0.1234567890123456789, per = "month", warn = 0.8 }
[keys.ann]
key = "k"
budget = { usd = "25.000000001", per = "day" }
[models.fast]
targets = ["groq/a", { to = "groq/b", context = 8192, price = { input = 1_0.05, output = 3, tiers = [{ above = 200000, input = 1e-3 }] } }]
[ledger]
store = "memory:"
keep = "1000d"
[providers.groq]
budget = { usd = 7, per = "week" }
"#;
        let (config, lines) = read(text, &[("TOLLGATE_LEDGER__SETTLE_WAIT", "2s")]);
        assert_eq!(lines, [""; 0]);
        let total = config.total.budget.unwrap();
        assert_eq!(total.usd.0, "0.1234567890123456789");
        assert_eq!(total.warn.unwrap().0, "0.8");
        assert_eq!(
            config.keys["ann"].budget.as_ref().unwrap().usd.0,
            "25.000000001"
        );
        let price = config.models["fast"].targets[1].price.as_ref().unwrap();
        assert_eq!(price.rates["input"].0, "10.05");
        assert_eq!(price.rates["output"].0, "3");
        assert_eq!(price.tiers[0].rates["input"].0, "1e-3");
        assert_eq!(config.ledger.store, Store::Memory);
        assert_eq!(config.ledger.settle_wait.as_secs(), 2);
        assert_eq!(config.ledger.keep.as_secs(), 86_400_000);
        let groq = &config.providers["groq"];
        assert_eq!(groq.budget.as_ref().unwrap().usd.0, "7");
    }

    #[test]
    fn flawed_amounts_have_their_lines() {
        let text = r#"
[total]
budget = { usd = true, per = "month" }
[defaults]
output_cap = 0
budget = { usd = 1, per = "year" }
[ledger]
store = "postgres:x"
keep = "1h"
[keys.ann]
key = "k"
budget = { usd = 1 }
[models.fast]
targets = [{ to = "groq/b", context = -1 }]
"#;
        let (_, lines) = read(text, &[]);
        let want = [
            "t.toml:3: total.budget.usd: expected a number such as 25 or 0.15, found bool true",
            "t.toml:5: defaults.output_cap: 0 is no number of tokens; write one from 1 to 1000000000",
            "t.toml:6: defaults.budget.per: `year` is not one of hour, day, week, month, total",
            "t.toml:8: ledger.store: `postgres:x` is no store; write \"sqlite:tollgate.db\" or \"memory:\"",
            "t.toml:9: ledger.keep: `1h` is not between a day and a hundred years",
            "t.toml:12: keys.ann.budget.per: `per` is missing",
            "t.toml:14: models.fast.targets[0].context: expected u64, found signed int `-1`",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn a_silence_is_never_too_long_or_of_a_sensible_length() {
        let read = |lines: &str| {
            let (config, flaws) = read(&format!("[providers.groq]\n{lines}"), &[]);
            let groq = &config.providers["groq"];
            (groq.keepalive, groq.prelude, flaws.concat())
        };
        let secs = Duration::from_secs;
        assert_eq!(read(""), (secs(15), None, String::new()));
        let both = "keepalive = \"0s\"\nprelude = \"2s\"";
        assert_eq!(read(both), (secs(0), Some(secs(2)), String::new()));
        for (line, why) in [
            (
                "keepalive = \"99ms\"",
                "keepalive: must be from 100ms to 1h, or \"0s\" for never",
            ),
            (
                "keepalive = \"61m\"",
                "keepalive: must be from 100ms to 1h, or \"0s\" for never",
            ),
            ("prelude = \"0s\"", "prelude: must be longer than nothing"),
        ] {
            let (_, _, flaw) = read(line);
            assert_eq!(flaw, format!("t.toml:2: providers.groq.{why}"));
        }
    }

    #[test]
    fn what_becomes_of_an_answer_whose_client_left_is_one_of_two_things() {
        let read = |value: &str| {
            let (config, lines) = read(&format!("[providers.groq]\non_disconnect = {value}"), &[]);
            let flaw = |line: &str| line.replace("t.toml:2: providers.groq.on_disconnect: ", "");
            let lines: Vec<String> = lines.iter().map(|line| flaw(line)).collect();
            (config.providers["groq"].on_disconnect, lines.concat())
        };
        let finish = |secs| Some(OnDisconnect::Finish(Duration::from_secs(secs)));
        for (written, want) in [
            (r#""abort""#, Some(OnDisconnect::Abort)),
            (r#""finish:10s""#, finish(10)),
            (r#""finish:10m""#, finish(600)),
        ] {
            assert_eq!(read(written), (want, String::new()), "{written}");
        }
        for (written, why) in [
            (
                r#""stop""#,
                "`stop` is neither \"abort\" nor \"finish:10s\"",
            ),
            (
                r#""finish""#,
                "`finish` is neither \"abort\" nor \"finish:10s\"",
            ),
            (
                r#""finish:""#,
                "`` is not a duration; write \"250ms\", \"5s\", \"10m\", \"2h\" or \"30d\"",
            ),
            (
                r#""finish:soon""#,
                "`soon` is not a duration; write \"250ms\", \"5s\", \"10m\", \"2h\" or \"30d\"",
            ),
            (
                r#""finish:0s""#,
                "`finish:0s` finishes nothing; write \"abort\", or a time longer than nothing",
            ),
            (
                r#""finish:601s""#,
                "`finish:601s` is longer than ten minutes",
            ),
            ("true", "expected a string"),
        ] {
            assert_eq!(read(written), (None, why.to_owned()), "{written}");
        }
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let (_, lines) = read("[server]\nlisten = \n", &[]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("t.toml:2: "), "{lines:?}");
    }

    #[test]
    fn a_provider_is_merged_over_its_preset() {
        let (config, lines) = read(
            "[providers.groq]\nrules = { rename = { c = \"d\" } }\nrules_for = { \"o1.*\" = { drop = [] }, \"o1.5*\" = {} }\n[providers.other]\npreset = \"groq\"\nbase_url = \"http://o\"",
            &[],
        );
        assert_eq!(lines, [""; 0]);
        let groq = &config.providers["groq"];
        assert_eq!(groq.base_url.as_deref(), Some("https://g/v1"));
        assert_eq!(groq.rules.drop, ["logprobs"]);
        assert_eq!(groq.rules.rename.len(), 2);
        assert_eq!(groq.rules_for.len(), 2);
        assert_eq!(groq.rules_for["o1.*"].drop, [""; 0]);
        assert_eq!(groq.rules_for["o1.*"].refuse, ["y"]);
        assert_eq!(
            config.providers["other"].base_url.as_deref(),
            Some("http://o")
        );
    }

    #[test]
    fn the_environment_overrides_scalars_read_as_the_fields_type() {
        let (config, lines) = read(
            "[server]\nmax_in_flight = 5\n",
            &[
                ("TOLLGATE_SERVER__LISTEN", "0.0.0.0:80"),
                ("TOLLGATE_SERVER__MAX_IN_FLIGHT", "7"),
                ("TOLLGATE_SERVER__OPEN", "false"),
                ("TOLLGATE_PORT", "tcp://ignored"),
            ],
        );
        assert_eq!(lines, [""; 0]);
        let everywhere = Listen::Tcp("0.0.0.0:80".parse().unwrap());
        assert_eq!(config.server.listen, [everywhere]);
        assert_eq!(config.server.max_in_flight, 7);
        assert_eq!(config.server.open, super::super::Open::No);
        let (_, lines) = read(
            "",
            &[
                ("TOLLGATE_SERVER__DRAIN", "long"),
                ("TOLLGATE_KEYS__A", "x"),
            ],
        );
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("TOLLGATE_KEYS__A"), "{lines:?}");
        assert!(
            lines[1].starts_with("TOLLGATE_SERVER__DRAIN: server.drain: `long` is not"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_shown() {
        let text = "[keys]\nbob = \"sk-hidden\"\n[providers]\ngroq = \"sk-hidden\"\n[providers.x]\nbase_url = \"http://x\"\napi_key = [\"sk-hidden\"]\n[admin]\ntoken = [\"sk-hidden\"]\n";
        let (_, lines) = read(text, &[]);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(!lines.concat().contains("sk-hidden"), "{lines:?}");
    }

    #[test]
    fn a_file_of_nothing_but_flaws_ends() {
        let lines: Vec<String> = (0..500).map(|n| format!("x{n} = 1\n")).collect();
        let text = lines.concat();
        let (_, lines) = read(&text, &[]);
        assert_eq!(lines.len(), MOST_FLAWS);
    }
}
