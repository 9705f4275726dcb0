//! What is different in another configuration, and what of that a running gateway cannot take over?
//!
//! Two files are compared as trees, so that comments, order and spelling of values do not count. The presets and the
//! environment stay what they are while a process runs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use figment::value::{Dict, Value};

use super::diagnostic::{Place, on_one_line};
use super::load::Source;
use super::secret::Environment;

/// How much of a value is shown, in characters.
const SHOWN: usize = 120;

/// What is looked at only when a gateway starts. `*` stands for any one name.
const AT_START: &[&str] = &[
    "server.access_log",
    "server.access_log_size",
    "server.decision_log",
    "server.decision_log_size",
    "server.log",
    "server.max_connections",
    "ledger.durability",
    "ledger.keep",
    "ledger.settle_wait",
    "ledger.store",
    "traces",
];

/// Where secrets stand: only the places that they are read from are shown.
const SECRETS: &[&str] = &[
    "admin.token",
    "keys.*.key",
    "providers.*.api_key",
    "providers.*.headers.*",
    "providers.*.proxy",
    "traces.headers.*",
];

/// One thing that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    at: Vec<String>,
    what: String,
}

impl Change {
    /// Whether a gateway takes it over only when it starts.
    pub fn is_for_the_start(&self) -> bool {
        AT_START.iter().any(|pattern| is_at(pattern, &self.at))
    }
}

/// `models.fast.targets: ["a/x"] -> ["b/y"]`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&on_one_line(&format!("{}: {}", Place(&self.at), self.what)))
    }
}

/// The files that a configuration refers to, as they are written: of secrets, also by variables, of roots that are trusted,
/// and of TLS.
pub fn files(written: &Source, environment: &Environment) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (name, value) in &written.tree() {
        referred(name, value, &mut files);
    }
    for (_, value) in environment.starting("TOLLGATE_") {
        referred("", &Value::from(value), &mut files);
    }
    files
}

/// What stood in a file, to be compared with what stands there later. It is kept as text: as a tree it would take ten times as
/// much memory, for as long as a gateway runs.
#[derive(Debug)]
pub struct Written(String);

impl Written {
    /// What stands there now.
    pub fn of(source: &Source) -> Self {
        Self(source.text().to_owned())
    }

    /// What is different after, in the order of names.
    pub fn changes(&self, after: &Source) -> Vec<Change> {
        // It was read before, so its syntax is right.
        let before = Source::parse(String::new(), PathBuf::new(), &self.0);
        let before = before.map_or_else(|_| Dict::new(), |source| source.tree());
        let mut changes = Vec::new();
        compare(&mut Vec::new(), &before, &after.tree(), &mut changes);
        changes
    }
}

fn referred(name: &str, value: &Value, files: &mut Vec<PathBuf>) {
    match value {
        Value::Dict(_, fields) if name == "tls" => {
            files.extend(fields.values().filter_map(Value::as_str).map(PathBuf::from));
        }
        Value::Dict(_, fields) => fields
            .iter()
            .for_each(|(name, it)| referred(name, it, files)),
        Value::Array(_, list) => list.iter().for_each(|it| referred("", it, files)),
        Value::String(_, text) => match text.strip_prefix("file:") {
            Some(file) => files.push(file.into()),
            None if name == "ca_file" => files.push(text.into()),
            None => {}
        },
        _ => {}
    }
}

fn compare(at: &mut Vec<String>, before: &Dict, after: &Dict, changes: &mut Vec<Change>) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        at.push(name.clone());
        let mut notes = |what| {
            let at = at.clone();
            changes.push(Change { at, what });
        };
        match (before.get(name), after.get(name)) {
            (Some(Value::Dict(_, before)), Some(Value::Dict(_, after))) => {
                compare(at, before, after, changes);
            }
            // Where each was read does not count.
            (Some(before), Some(after)) if before != after => {
                notes(format!("{} -> {}", shown(at, before), shown(at, after)));
            }
            // A section that is not there is one in which nothing stands.
            (None, Some(Value::Dict(_, after))) if at.len() == 1 => {
                compare(at, &Dict::new(), after, changes);
            }
            (Some(Value::Dict(_, before)), None) if at.len() == 1 => {
                compare(at, before, &Dict::new(), changes);
            }
            // What a name has is not told line by line: who wrote it knows.
            (None, Some(Value::Dict(..))) => notes("added".to_owned()),
            (None, Some(value)) => notes(format!("added: {}", shown(at, value))),
            (Some(_), None) => notes("removed".to_owned()),
            (Some(_), Some(_)) | (None, None) => {}
        }
        at.pop();
    }
}

/// A value, unless it may be a secret; a long one not to its end.
fn shown(at: &[String], value: &Value) -> String {
    if SECRETS.iter().any(|pattern| is_at(pattern, at)) {
        let reference = value.as_str();
        let reference =
            reference.filter(|text| text.starts_with("env:") || text.starts_with("file:"));
        return reference.map_or_else(|| "(hidden)".to_owned(), str::to_owned);
    }
    let text = serde_json::to_string(value).unwrap_or_default();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Whether a path is the pattern's, or leads on from it.
fn is_at(pattern: &str, at: &[String]) -> bool {
    let mut parts = at.iter();
    pattern.split('.').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| wanted == "*" || wanted == part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Source {
        Source::parse("t".into(), "".into(), text).unwrap()
    }

    fn changes(before: &str, after: &str) -> Vec<String> {
        let changes = Written::of(&written(before)).changes(&written(after));
        changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn what_is_written_differently_and_means_the_same_is_no_change() {
        let one =
            "# a comment\n[models]\na = { targets = [\"x/y\"] }\n[server]\nmax_in_flight = 1_000\n";
        let other =
            "[server]\nmax_in_flight = 1000\n[models.a]\ntargets = [\n  'x/y', # the same\n]\n";
        assert_eq!(changes(one, other), [""; 0]);
        assert_eq!(changes(one, one), [""; 0]);
    }

    #[test]
    fn each_change_says_where_and_what() {
        let before = "[server]\nlisten = \"127.0.0.1:1\"\n[models.a]\ntargets = [\"x/y\"]\n[models.\"b.1\"]\ntargets = [\"x/z\"]\nprice = { input = 0.10 }\n[keys.old]\nkey = \"env:A\"\n";
        let after = "[models.a]\ntargets = [\"x/y\", \"x/z\"]\nweight = 2\n[models.\"b.1\"]\ntargets = [\"x/z\"]\nprice = { input = 0.20 }\n[keys.new]\nkey = \"env:A\"\n";
        let want = [
            "keys.new: added",
            "keys.old: removed",
            r#"models.a.targets: ["x/y"] -> ["x/y","x/z"]"#,
            "models.a.weight: added: 2",
            r#"models."b.1".price.input: "0.10" -> "0.20""#,
            "server.listen: removed",
        ];
        assert_eq!(changes(before, after), want);
    }

    #[test]
    fn no_secret_is_shown_and_nothing_at_length() {
        let text = |secret: &str| {
            format!(
                "[admin]\ntoken = \"{secret}\"\n[keys.a]\nkey = \"{secret}\"\n[providers.p]\napi_key = \"{secret}\"\nproxy = \"{secret}\"\nheaders = {{ x-key = \"{secret}\" }}\n[traces]\nheaders = {{ x-key = \"{secret}\" }}\n"
            )
        };
        let lines = changes(&text("env:A"), &text("sk-1234"));
        assert_eq!(lines.len(), 6);
        for line in &lines {
            assert!(line.ends_with(": env:A -> (hidden)"), "{line}");
        }
        let hidden = changes(&text("sk-1234"), &text("sk-5678"));
        assert_eq!(hidden.len(), 6, "that it is another one is told");
        assert!(hidden[0].ends_with("(hidden) -> (hidden)"), "{hidden:?}");
        // A secret in the wrong place, with a table around it.
        let wrong = changes("", "keys = { a = { key = [\"sk-1234\"] } }");
        assert_eq!(wrong, ["keys.a: added"]);
        let long = format!("[server]\nnames = [\"{}\"]\n", "é".repeat(999));
        let [line] = &changes("[server]\nnames = []\n", &long)[..] else {
            panic!("one change")
        };
        assert!(line.chars().count() < 160 && line.ends_with('…'), "{line}");
    }

    #[test]
    fn files_are_found_wherever_they_are_referred_to() {
        let text = "[providers.p]\nca_file = \"roots.pem\"\napi_key = \"file:/run/p\"\nbase_url = \"http://a/file:b\"\n[keys]\na = { key = \"file:a\" }\n";
        let token = ("TOLLGATE_ADMIN__TOKEN".to_owned(), "file:token".to_owned());
        let mut files = files(&written(text), &[token].into_iter().collect());
        files.sort();
        assert_eq!(
            files,
            ["/run/p", "a", "roots.pem", "token"].map(PathBuf::from)
        );
    }

    #[test]
    fn what_only_a_start_takes_over_is_known() {
        let change = |at: &[&str]| Change {
            at: at.iter().map(|part| (*part).to_owned()).collect(),
            what: String::new(),
        };
        assert!(change(&["server", "log"]).is_for_the_start());
        assert!(change(&["server", "access_log"]).is_for_the_start());
        assert!(!change(&["keys", "ann", "log_bodies"]).is_for_the_start());
        assert!(change(&["ledger", "store"]).is_for_the_start());
        assert!(change(&["traces", "headers", "x-key"]).is_for_the_start());
        assert!(!change(&["ledger", "unpriced"]).is_for_the_start());
        assert!(!change(&["server", "listen"]).is_for_the_start());
    }
}
