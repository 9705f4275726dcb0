//! The house rules, kept by a test: who may know whom, how long a file may grow, and that what users read is true.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails panics"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may know: only rooms above it.
const ROOMS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("usage", &[]),
    ("envelope", &[]),
    ("pieces", &[]),
    ("telemetry", &["usage"]),
    ("ledger", &["usage"]),
    // A caller holds what it may spend from. `usage`: units have limits.
    ("admission", &["ledger", "usage"]),
    ("protocol", &["envelope", "usage"]),
    ("provider", &["envelope", "protocol"]),
    // `admission`: a target has limits. `envelope`: what a request may cost is read from it as a target's rules leave it.
    // `telemetry`: meters are looked up once per plan and kept with what they measure.
    (
        "route",
        &[
            "admission",
            "envelope",
            "ledger",
            "protocol",
            "provider",
            "telemetry",
            "usage",
        ],
    ),
    (
        // `admission`: a try begins only below its target's limits, and what it used is known where it ends. `ledger`: a try
        // begins only if the hold covers it, and what it cost is known where it fails.
        "upstream",
        &[
            "admission",
            "envelope",
            "ledger",
            "pieces",
            "protocol",
            "provider",
            "route",
            "telemetry",
            "usage",
        ],
    ),
    (
        "response",
        &[
            "admission",
            "ledger",
            "protocol",
            "telemetry",
            "upstream",
            "usage",
        ],
    ),
    // `response`: what is kept for retries outlives plans.
    (
        "plan",
        &[
            "admission",
            "config",
            "ledger",
            "protocol",
            "provider",
            "response",
            "route",
            "telemetry",
            "usage",
        ],
    ),
    // The error types of the rooms, and `protocol` to write them. `route`: why a target rests.
    (
        "rejection",
        &[
            "admission",
            "envelope",
            "ledger",
            "protocol",
            "provider",
            "route",
            "upstream",
        ],
    ),
    (
        // `provider`, `route`: what is known of servers and of targets outlives plans.
        "gateway",
        &[
            "admission",
            "config",
            "ledger",
            "plan",
            "provider",
            "response",
            "route",
            "telemetry",
        ],
    ),
    (
        // `config`: clients write a span of time as it is written there. `provider`: why a request fits no target of a
        // model decides which other model is asked.
        "proxy",
        &[
            "admission",
            "config",
            "envelope",
            "gateway",
            "ledger",
            "plan",
            "protocol",
            "provider",
            "rejection",
            "response",
            "route",
            "telemetry",
            "upstream",
            "usage",
        ],
    ),
    ("server", &["pieces"]),
    (
        // `config`: how far back is written as spans of time are there. `ledger`: its rows are what is asked for.
        // `plan`: what a key that is made may do is checked there. `protocol`: it writes every error. `proxy`: escapes in paths are undone there.
        "admin",
        &[
            "admission",
            "config",
            "gateway",
            "ledger",
            "plan",
            "protocol",
            "proxy",
            "server",
            "telemetry",
        ],
    ),
    (
        // `admission`, `route`: requests of a log are decided again.
        "cli",
        &[
            "admin",
            "admission",
            "config",
            "gateway",
            "ledger",
            "plan",
            // `replay`: a log says by its name what was called.
            "protocol",
            "provider",
            "proxy",
            "response",
            "route",
            "server",
            "telemetry",
            "upstream",
            "usage",
        ],
    ),
];

/// The longest a file may be without its tests, in lines.
const LONGEST: usize = 500;

#[test]
fn every_room_knows_only_what_it_may() {
    let mut broken = Vec::new();
    for file in sources() {
        let room = room_of(&file);
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            panic!("`{room}` is no room; give it a row in the table");
        };
        for known in mentioned(&without_tests(&file)) {
            if known != room && !may.contains(&known.as_str()) {
                broken.push(format!("{} knows `{known}`", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_row_is_wider_than_its_need() {
    for (room, may) in ROOMS {
        let files = sources().into_iter().filter(|file| room_of(file) == *room);
        let known: Vec<String> = files
            .flat_map(|file| mentioned(&without_tests(&file)))
            .collect();
        for name in *may {
            assert!(
                known.iter().any(|k| k == name),
                "`{room}` may know `{name}` and does not"
            );
        }
    }
}

#[test]
fn the_rooms_stand_in_order() {
    for (n, (room, may)) in ROOMS.iter().enumerate() {
        for known in *may {
            let above = ROOMS[..n].iter().any(|(name, _)| name == known);
            assert!(above, "`{room}` may know `{known}`, which is not above it");
        }
    }
    let map = fs::read_to_string("src/lib.rs").unwrap();
    let modules: Vec<&str> = map
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let rooms: Vec<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        modules, rooms,
        "src/lib.rs declares the rooms in the table's order"
    );
}

#[test]
fn no_file_is_too_long_and_each_says_what_it_is() {
    for file in sources() {
        let text = without_tests(&file);
        let lines = text.lines().count();
        assert!(
            lines <= LONGEST,
            "{} has {lines} lines; the limit is {LONGEST}",
            file.display()
        );
        assert!(
            text.starts_with("//!"),
            "{} does not say what it is",
            file.display()
        );
    }
}

#[test]
fn the_only_places_that_know_an_outside_crate_are_its_home() {
    for (outside, homes) in [
        (
            "prometheus::",
            &["src/telemetry/metrics.rs", "src/telemetry/board.rs"][..],
        ),
        (
            "figment::",
            &[
                "src/config/changes.rs",
                "src/config/load.rs",
                "src/config/tree.rs",
            ],
        ),
        ("toml_edit::", &["src/config/load.rs", "src/config/tree.rs"]),
        ("governor::", &["src/admission/guesses.rs"]),
        ("saphyr_parser::", &["src/cli/import/yaml.rs"]),
        ("clap::", &["src/cli/", "src/main.rs"]),
        ("anyhow::", &["src/cli/"]),
        // TLS is made once for a plan, and shared by all workers so that sessions resume: hence not in `upstream`.
        // With clients it is made where connections are accepted.
        ("rustls::", &["src/provider/trust.rs", "src/server/tls.rs"]),
        ("rusqlite::", &["src/ledger/"]),
        ("opentelemetry_proto::", &["src/telemetry/otlp.rs"]),
        ("prost::", &["src/telemetry/otlp.rs"]),
        (
            "hyper::",
            &[
                "src/server/",
                "src/upstream/",
                "src/admin/mod.rs",
                "src/cli/serve.rs",
                // It asks a gateway that runs.
                "src/cli/explain.rs",
            ],
        ),
    ] {
        for file in sources() {
            let path = file.display().to_string();
            let text = without_tests(&file);
            let at_home = homes.iter().any(|home| path.starts_with(home));
            let uses = text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && line.match_indices(outside).any(|(at, _)| {
                        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    })
            });
            assert!(at_home || !uses, "{path} uses {outside}");
        }
    }
}

/// The example configuration holds as it is, and with every line that is commented out.
#[test]
fn the_example_configuration_is_valid() {
    let text = fs::read_to_string("gateway.toml").unwrap();
    assert_eq!(flaws(&text), [""; 0]);
    let field = |line: &str| {
        let line = line.strip_prefix("# ")?;
        let name: String = line
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "_.\"-[]".contains(*c))
            .collect();
        let is_field = line[name.len()..].trim_start().starts_with('=') || name.starts_with('[');
        is_field.then(|| line.to_owned())
    };
    let whole: Vec<String> = text
        .lines()
        .map(|line| field(line).unwrap_or_else(|| line.to_owned()))
        .collect();
    let whole = whole.join("\n");
    assert!(whole.lines().count() == text.lines().count() && whole.contains("\n[keys.alice]"));
    let left = flaws(&whole);
    let missing = [
        "engine.key",
        "corp.pem",
        "ALICE_KEY",
        "ADMIN_TOKEN",
        "HONEYCOMB_KEY",
    ];
    assert!(
        left.iter()
            .all(|flaw| missing.iter().any(|missing| flaw.contains(missing))),
        "{left:#?}"
    );
}

#[test]
fn the_examples_of_the_pages_are_valid() {
    for page in [
        "README.md",
        "docs/fallback.md",
        "docs/import.md",
        "docs/keys.md",
        "docs/operations.md",
        "docs/providers.md",
        "docs/routing.md",
        "docs/streams.md",
    ] {
        let text = fs::read_to_string(page).unwrap();
        let blocks: Vec<&str> = text
            .split("```toml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap())
            .collect();
        assert!(!blocks.is_empty(), "{page} has no example");
        for block in blocks {
            let flaws = flaws(block);
            assert!(
                flaws.iter().all(|flaw| flaw.ends_with("is not set")),
                "{page}:\n{block}\n{flaws:#?}"
            );
        }
    }
}

/// What is wrong with a configuration. That this build has no traces is nothing that is wrong with it.
fn flaws(text: &str) -> Vec<String> {
    use tollgate::{cli::Loaded, config::load::Source};
    let source = match Source::parse("x".into(), PathBuf::new(), text) {
        Ok(source) => source,
        Err(flaws) => return flaws.0,
    };
    let loaded = Loaded::read(source, tollgate::config::secret::Environment::default());
    let mut flaws = loaded
        .compile()
        .err()
        .map_or_else(Vec::new, |flaws| flaws.0);
    let has_traces = cfg!(feature = "otlp");
    flaws.retain(|flaw| has_traces || !flaw.contains("built without traces"));
    flaws
}

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(Path::new("src"), &mut out);
    out
}

fn without_tests(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .collect::<Vec<_>>()
        .join("\n")
}

fn room_of(file: &Path) -> String {
    let name = file
        .components()
        .nth(1)
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    name.trim_end_matches(".rs").to_owned()
}

/// The rooms named after `crate::`, one by one or in braces.
fn mentioned(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let word = |s: &str| {
        s.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut out = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            out.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && depth == 0 && !c.is_whitespace() => {
                    out.push(word(&list[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    out.retain(|name| ROOMS.iter().any(|(room, _)| room == name));
    out
}

/// Neither of the two rooms knows the other.
#[test]
fn every_endpoint_that_asks_a_model_is_timed() {
    use tollgate::protocol::Endpoint;
    let names: Vec<_> = Endpoint::asking().map(Endpoint::name).collect();
    assert_eq!(names, tollgate::telemetry::APIS);
}
