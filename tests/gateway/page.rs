//! `docs/providers.md`, written from the presets and their folders. With `UPDATE=1` in the environment it is written
//! anew; otherwise it must be what it would be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use tollgate::config::load::presets;
use tollgate::config::{Auth, MessageRules, Provider, Rules, Unknown};
use tollgate::protocol::{Endpoint, Form, Kind, Whole};
use tollgate::provider::PRESETS;

use crate::protocols::{Case, cases};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/providers.md");

const INTRODUCTION: &str = r#"# Providers

<!-- Written by a test from src/provider/presets.toml and tests/fixtures; change those, then run
     UPDATE=1 cargo nextest run -E 'test(page_of_providers)' -->

A *preset* is what tollgate knows about a provider: where it is, where its key is found, and what it wants different in
a request. `[providers.NAME]` picks the preset of its name, or the one that `preset` names, and whatever else it says
goes before the preset: tables are merged by key, lists and single values take the preset's place.

```toml
[providers.mistral]                     # all from the preset; the key is in MISTRAL_API_KEY

[providers.mistral-lab]                 # the same provider once more
preset = "mistral"
api_key = "file:mistral-lab.key"
rules.unknown = "forward"               # a value of its own: members that the preset does not know are sent
rules.refuse = []                       # a list of its own: nothing is refused
rules.clamp = { top_p = [0.1, 1] }      # one more bound: that of the preset for `temperature` stays
rules_for."magistral*".default = { prompt_mode = "reasoning" }

[providers.engine]                      # a server that has no preset
preset = "openai-compatible"
base_url = "http://127.0.0.1:8080/v1"
rules.drop = ["user"]
```

Rules are applied in the order in which they stand below. What they leave out is named in the answer's header
`x-tollgate-dropped`. Two changes need no rule: `model` becomes the provider's own name for it, and an empty list of
`tools` is left out, with `tool_choice` and `parallel_tool_calls`. `gateway.toml` has every field with its meaning.

*Usage of streams* is asked for on the client's behalf where a provider tells it only then; the event that tells it is
shown to clients that asked themselves.

*Proven by* counts folders under `tests/fixtures`, one for each conversation: what a client sends, what the provider must
get, what it says and what the client must hear, each to the byte. What providers say there is written after their
documentation, their SDK or their source. *Unverified* presets have none: where such a provider is and how it is shown
its key is known, and nothing else.

"#;

#[test]
fn the_page_of_providers_is_what_the_presets_and_the_folders_say() {
    let page = page();
    if std::env::var("UPDATE").is_ok_and(|update| update == "1") {
        fs::write(PAGE, &page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/providers.md is old; UPDATE=1 writes it"
    );
}

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// What stands around the table of endpoints.
const AROUND: [&str; 2] = ["<!-- endpoints, written by a test -->\n", "<!-- end -->\n"];

#[test]
fn the_readmes_table_of_endpoints_is_what_the_folders_prove() {
    let readme = fs::read_to_string(README).unwrap();
    let [begin, end] = AROUND;
    let (before, rest) = readme.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let new = [before, begin, &endpoints(), end, after].concat();
    if std::env::var("UPDATE").is_ok_and(|update| update == "1") {
        fs::write(README, &new).unwrap();
    }
    let readme = fs::read_to_string(README).unwrap();
    assert!(readme == new, "README.md is old; UPDATE=1 writes it");
}

/// One line for each endpoint that asks a model: what is known of it, and who is proven to be asked there.
fn endpoints() -> String {
    let all = cases();
    let mut table = "| `POST` | kind of model | sent as | answered with | billed by | proven with |\n|---|---|---|---|---|---|\n".to_owned();
    for endpoint in Endpoint::asking() {
        let path = format!("/v1{}", endpoint.path());
        let is_here = |case: &&Case| case.path == path;
        let presets: BTreeSet<&str> = all
            .iter()
            .filter(is_here)
            .map(|case| &*case.preset)
            .collect();
        assert!(!presets.is_empty(), "nothing proves {path}");
        let presets: Vec<&str> = presets.into_iter().collect();
        let some = match presets.len() {
            0..=4 => presets.join(", "),
            many => format!("{many} presets"),
        };
        let folders = all.iter().filter(is_here).count();
        let kind = endpoint.kind().unwrap();
        let sent = match endpoint.form() {
            Form::Json => "JSON",
            Form::Data => "form",
            Form::Both => "form or JSON",
            Form::Nothing => "–",
        };
        let answered = match (endpoint.whole(), endpoint.streams()) {
            (Whole::Json, false) => "JSON",
            (Whole::Json, true) => "JSON or events",
            (Whole::Text, _) => "JSON, text or events",
            (Whole::Sound, _) => "sound as it comes, or events",
        };
        let billed = match kind {
            Kind::Chat | Kind::Embedding | Kind::Moderation => "tokens",
            Kind::Speech => "tokens or characters",
            Kind::Transcription => "tokens or seconds",
            Kind::Image => "tokens or images",
            Kind::Rerank => "tokens or searches",
        };
        let kind = kind.name();
        let _ = writeln!(
            table,
            "| `{path}` | `{kind}` | {sent} | {answered} | {billed} | {some}: {folders} |"
        );
    }
    table
}

fn page() -> String {
    let presets: BTreeMap<String, Provider> = presets(PRESETS).unwrap();
    let mut page = INTRODUCTION.to_owned();
    page += "| preset | base URL | key | sent as | usage of streams | proven by |\n|---|---|---|---|---|---|\n";
    for (name, preset) in &presets {
        page += &row(name, preset);
    }
    for (name, preset) in &presets {
        if preset.unverified {
            continue;
        }
        let _ = write!(page, "\n## {name}\n\n");
        for change in changes(preset) {
            let _ = writeln!(page, "* {change}");
        }
        let _ = writeln!(page, "* Proven by: {}", proofs(name).join(", "));
    }
    page
}

/// The names of a preset's folders.
fn proofs(preset: &str) -> Vec<String> {
    let all = cases().into_iter();
    all.filter(|case| case.preset == preset)
        .map(|case| case.name)
        .collect()
}

fn row(name: &str, preset: &Provider) -> String {
    let url = match (&preset.base_url, &preset.base_url_example) {
        (Some(url), _) => format!("`{url}`"),
        (None, Some(example)) => format!("give it one: `{example}`"),
        (None, None) => "give it one".to_owned(),
    };
    let (key, sent) = match (&preset.api_key, preset.auth) {
        (None, _) => ("none".to_owned(), "–"),
        (Some(key), auth) => {
            let sent = match auth {
                Auth::ApiKey => "`api-key`",
                Auth::Bearer => "`authorization: Bearer`",
                Auth::XApiKey => "`x-api-key`",
            };
            (
                format!("`{}`", format!("{key:?}").trim_start_matches("env:")),
                sent,
            )
        }
    };
    let usage = match preset.stream_usage {
        true => "asked for",
        false => "not asked for",
    };
    let proofs = match proofs(name).len() {
        0 => "*unverified*".to_owned(),
        1 => format!("[1 case](../tests/fixtures/{name})"),
        n => format!("[{n} cases](../tests/fixtures/{name})"),
    };
    format!("| `{name}` | {url} | {key} | {sent} | {usage} | {proofs} |\n")
}

/// What is changed in a request, one line each, in the order it happens.
fn changes(preset: &Provider) -> Vec<String> {
    let mut all = rules(&preset.rules);
    if all.is_empty() {
        all.push("Has no rules".to_owned());
    }
    for (pattern, some) in &preset.rules_for {
        let some = match rules(some) {
            none if none.is_empty() => "nothing more".to_owned(),
            some => some.join("; "),
        };
        all.push(format!("For models `{pattern}`: {some}"));
    }
    all
}

fn rules(rules: &Rules) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |words: &str, names: String| {
        if !names.is_empty() {
            all.push(format!("{words} {names}"));
        }
    };
    say("Refuses", list(&rules.refuse));
    say("Renames", pairs(&rules.rename, |to| format!("→ `{to}`")));
    say("Leaves out", list(&rules.drop));
    match rules.unknown {
        None | Some(Unknown::Forward) => {}
        Some(Unknown::Drop) => say("Leaves out all but", list(&rules.known)),
        Some(Unknown::Refuse) => say("Refuses all but", list(&rules.known)),
    }
    say(
        "Gives, where it is missing,",
        pairs(&rules.default, |value| format!("`{value}`")),
    );
    say("Sets", pairs(&rules.set, |value| format!("`{value}`")));
    say(
        "Keeps within bounds",
        pairs(&rules.clamp, |[low, high]| format!("{low} to {high}")),
    );
    let MessageRules {
        roles,
        join_text,
        empty_content,
        drop,
        known,
        drop_nulls,
    } = &rules.messages;
    say(
        "In messages, renames the role",
        pairs(roles, |to| format!("→ `{to}`")),
    );
    let mut switch = |on: &Option<bool>, words: &str| {
        if *on == Some(true) {
            say("In messages,", words.to_owned());
        }
    };
    switch(join_text, "makes one string of text parts");
    switch(
        empty_content,
        "makes an empty string of a content of `null`",
    );
    switch(drop_nulls, "leaves out members that are `null`");
    say("In messages, leaves out", list(drop));
    say("In messages, leaves out all but", list(known));
    all
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn pairs<V>(values: &BTreeMap<String, V>, show: impl Fn(&V) -> String) -> String {
    let pair = |(name, value): (&String, &V)| format!("`{name}` {}", show(value));
    values.iter().map(pair).collect::<Vec<_>>().join(", ")
}
