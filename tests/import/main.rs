//! `tollgate import litellm`: configurations of LiteLLM's proxy in, gateway.toml out, and nothing lost in between.
//!
//! Each `tests/fixtures/import/NAME.yaml` is imported and compared with the `NAME.toml` beside it; `UPDATE=1` writes that
//! anew. `tests/import/run.sh` imports what LiteLLM's own package has.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails panics"
)]

mod made;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tollgate::cli::Loaded;
use tollgate::cli::import::{Imported, translate};
use tollgate::config::load::Source;

/// Runs the binary.
fn run(folder: &Path, arguments: &[&str], variables: &[(String, String)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    command.envs(variables.iter().cloned());
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// The variables that a gateway.toml names, each set to something.
fn variables(text: &str) -> Vec<(String, String)> {
    let named = text.split("\"env:").skip(1);
    let named = named.filter_map(|rest| rest.split('"').next());
    named
        .map(|name| (name.to_owned(), "dummy-of-a-test".to_owned()))
        .collect()
}

/// What `tollgate check` finds wrong with it.
fn flaws(text: &str) -> Vec<String> {
    let source = match Source::parse("x".into(), PathBuf::new(), text) {
        Ok(source) => source,
        Err(flaws) => return flaws.0,
    };
    let loaded = Loaded::read(source, variables(text).into_iter().collect());
    loaded
        .compile()
        .err()
        .map_or_else(Vec::new, |flaws| flaws.0)
}

/// Each value of the list at the end, by its path: how it is marked, and what is told of it.
fn listed(text: &str) -> BTreeMap<String, (String, String)> {
    let (_, list) = text.split_once("\n# What became of each value").unwrap();
    let (mut all, mut told) = (BTreeMap::new(), (String::new(), String::new()));
    for line in list.lines().skip(1) {
        if let Some(leaf) = line.strip_prefix("#   ") {
            let (path, _) = leaf.rsplit_once(" (line ").unwrap();
            let before = all.insert(path.to_owned(), told.clone());
            assert_eq!(before, None, "{path} is listed twice");
        } else if let Some((mark, text)) = line.trim_start_matches("# ").split_once(": ") {
            told = (mark.to_owned(), text.to_owned());
        }
    }
    all
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import")
}

fn fixture(name: &str) -> (String, Imported) {
    let text = fs::read_to_string(fixtures().join(format!("{name}.yaml"))).unwrap();
    let imported = translate(&format!("{name}.yaml"), &text).unwrap();
    (text, imported)
}

#[test]
fn each_fixture_becomes_what_stands_beside_it() {
    for name in ["small", "deployments", "routing", "settings", "every"] {
        let (text, imported) = fixture(name);
        let beside = fixtures().join(format!("{name}.toml"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&beside, &imported.text).unwrap();
        }
        let want = fs::read_to_string(&beside).unwrap();
        assert_eq!(imported.text, want, "{name}; UPDATE=1 writes it anew");
        assert_eq!(flaws(&want), [""; 0], "{name}");
        assert!(text.contains("not-to-be-told") || name == "small" || name == "every");
        assert!(!want.contains("not-to-be-told"), "{name}");
        let all: usize = imported.counts.iter().sum();
        assert_eq!(listed(&want).len(), all, "{name}");
    }
}

#[test]
fn the_command_writes_what_check_finds_fine_and_nothing_over() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["small", "deployments", "routing", "settings", "every"] {
        let (_, imported) = fixture(name);
        let config = fixtures().join(format!("{name}.yaml"));
        let config = config.to_str().unwrap();
        let output = format!("{name}.toml");
        let import = ["import", "litellm", config, "--output", &output];
        let (code, out, err) = run(folder.path(), &import, &[]);
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        assert!(
            err.starts_with(&format!("{config}: ")) && err.contains(" unsupported\n"),
            "{err}"
        );
        assert!(!err.contains("not-to-be-told"));
        let written = fs::read_to_string(folder.path().join(&output)).unwrap();
        assert_eq!(written, imported.text);
        let check = ["check", "--config", &output];
        let (code, out, err) = run(folder.path(), &check, &variables(&written));
        assert_eq!(code, 0, "{out}{err}");
        let (code, out, _) = run(folder.path(), &["import", "litellm", config], &[]);
        assert_eq!((code, out), (0, imported.text));
        fs::write(folder.path().join(&output), "mine").unwrap();
        let (code, _, err) = run(folder.path(), &import, &[]);
        assert_eq!(code, 1);
        assert_eq!(
            err,
            format!("{output} is there already; --force writes over it\n")
        );
        let (code, ..) = run(folder.path(), &[&import[..], &["--force"]].concat(), &[]);
        assert_eq!(code, 0);
        assert_eq!(
            fs::read_to_string(folder.path().join(&output)).unwrap(),
            written
        );
    }
}

/// `every.yaml` has each setting that LiteLLM's pages name.
#[test]
fn every_setting_that_there_is_is_known_by_name() {
    let (_, imported) = fixture("every");
    for (path, (mark, told)) in listed(&imported.text) {
        assert_ne!(told, "nothing of this name is known here", "{mark}: {path}");
        assert!(!told.starts_with("no such parameter"), "{mark}: {path}");
    }
    let (_, imported) = fixture("deployments");
    let listed = listed(&imported.text);
    let unknown = &listed["model_list[16].litellm_params.not_known_to_anybody.a[1]"];
    assert!(unknown.1.starts_with("no such parameter"), "{unknown:?}");
}

/// What is no configuration, and what is said of it.
const REFUSED: &[(&str, &str)] = &[
    ("", ": is empty; name the config.yaml"),
    ("# nothing\n", ": is empty; name the config.yaml"),
    ("~", ": is empty; name the config.yaml"),
    ("a: [1, 2\nb: 3\n", ": this is no YAML: "),
    ("model_list:\n  - x\n bad", ": this is no YAML: "),
    (
        "just words",
        ":1: the file is a single value; a configuration of LiteLLM's is a map",
    ),
    (
        "- 1\n- 2\n",
        ":1: the file is a list; a configuration of LiteLLM's is a map",
    ),
    (
        "rules: 1\n",
        ": this is no configuration of LiteLLM's proxy: it has none of `model_list`",
    ),
    (
        "model_list: {a: 1}\n",
        ":1: `model_list` is a map; it is a list of entries",
    ),
    (
        "model_list: 7\n",
        ":1: `model_list` is a single value; it is a list of entries",
    ),
    (
        "model_list:\n  - gpt\n",
        ":2: an entry of `model_list` is a single value; it is a map",
    ),
    (
        "model_list:\n  - model_name: a\n    litellm_params: [1]\n",
        ":3: `litellm_params` is a list; it is a map",
    ),
    (
        "model_list:\nrouter_settings:\n  - a\n",
        ":3: `router_settings` is a list; it is a map",
    ),
    (
        "router_settings: {fallbacks: a}",
        ":1: fallbacks are a single value; they are a list such as",
    ),
    (
        "router_settings: {fallbacks: [a]}",
        ":1: a fallback is a single value; it is a map such as",
    ),
    (
        "router_settings: {model_group_alias: [a]}",
        ":1: `model_group_alias` is a list; it is a map",
    ),
    (
        "model_list: []\nmodel_list: []\n",
        ":2: `model_list` was given in line 1 already; LiteLLM takes the last",
    ),
    (
        "model_list: []\n1: 2\n",
        ":2: the key `1` is no text to YAML but a number",
    ),
    (
        "model_list: []\non: 2\n",
        ":2: the key `on` is no text to YAML but a number, true",
    ),
    (
        "model_list: []\n? [a]\n: 2\n",
        ":2: a key is a list or a map here",
    ),
    (
        "model_list: []\n---\na: 1\n",
        ": a second document begins here",
    ),
    (
        "model_list: !mine [a]\n",
        ":1: the tag `!mine` means nothing",
    ),
    (
        "model_list: &a [*a]\n",
        ":1: an alias stands for what it is itself a part of",
    ),
    ("model_list: *a\n", ": this is no YAML: "),
    (
        "a: &a 1\nmodel_list: [{<<: *a}]\n",
        ":1: `<<` merges maps, and this is none",
    ),
];

fn refused(text: &str, want: &str) {
    let short: String = text.chars().take(60).collect();
    let wrong = translate("x.yaml", text).map(|imported| imported.text);
    let wrong = wrong.expect_err(&short).to_string();
    assert!(wrong.contains(want), "{short:?}: {wrong}");
    assert!(
        wrong.starts_with(':') && !wrong.contains('\n'),
        "{short:?}: {wrong}"
    );
}

#[test]
fn what_is_no_configuration_is_said_with_its_line() {
    for (text, want) in REFUSED {
        refused(text, want);
    }
}

#[test]
fn what_grows_beyond_all_sense_is_refused_before_it_does() {
    let around = |n: usize, what: &str| "[".repeat(n) + what + &"]".repeat(n);
    refused(&around(70, ""), ":1: more than 64 levels within each other");
    let nested = format!("a: &a {}\nb: {}\n", around(40, "x"), around(40, "*a"));
    refused(&nested, ":2: more than 64 levels within each other");
    let wide = vec!["k"; 101_000].join(", ");
    refused(&format!("a: [{wide}]\n"), ": there is too much by here");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = vec![format!("*a{}", n - 1); 9].join(", ");
        bomb += &format!("a{n}: &a{n} [{before}]\n");
    }
    refused(&bomb, ": there is too much by here");
    let long = "x".repeat(1 << 20);
    let many = vec!["*a"; 100].join(", ");
    refused(
        &format!("a: &a \"{long}\"\nb: [{many}]\n"),
        ":2: there is too much by here",
    );
    let key = "k".repeat(1_001);
    refused(&format!("{key}: 1\n"), ":1: a key of more than 1000 bytes");
}

#[test]
fn files_that_are_no_text_or_none_are_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("long.yaml"), "# x\n".repeat(1_310_720)).unwrap();
    fs::write(folder.path().join("bytes.yaml"), b"model_list: []\n\xff\n").unwrap();
    fs::write(folder.path().join("list.yaml"), "a: &a 1\n- 2\n").unwrap();
    for (file, want) in [
        (
            "long.yaml",
            "long.yaml: longer than 4 MiB; that is no configuration of LiteLLM's\n",
        ),
        (
            "bytes.yaml",
            "bytes.yaml:2: this is no text in UTF-8; save it as such\n",
        ),
        (
            "none.yaml",
            "none.yaml: No such file or directory (os error 2); name LiteLLM's config.yaml\n",
        ),
    ] {
        let (code, out, err) = run(folder.path(), &["import", "litellm", file], &[]);
        assert_eq!((code, out.as_str(), err.as_str()), (1, "", want));
    }
    let (code, _, err) = run(folder.path(), &["import", "litellm", "list.yaml"], &[]);
    assert_eq!(code, 1);
    assert!(err.starts_with("list.yaml:2: this is no YAML: "), "{err}");
    let (code, ..) = run(
        folder.path(),
        &["import", "litellm", "list.yaml", "--force"],
        &[],
    );
    assert_eq!(code, 2, "--force is for a file");
}

/// Values of a prefix of the list, with their marks.
fn marks(yaml: &str, path: &str) -> String {
    let imported = translate("x.yaml", yaml).unwrap();
    assert_eq!(flaws(&imported.text), [""; 0], "{}", imported.text);
    listed(&imported.text)[path].0.clone()
}

#[test]
fn anchors_and_merge_keys_are_what_they_stand_for() {
    let yaml = "x: &x {api_key: os.environ/A, rpm: 5}\ny: &y {rpm: 7, tpm: 9}\nmodel_list:\n  - model_name: a\n    litellm_params: {<<: [*x, *y], model: groq/m, tpm: 11}\n";
    let imported = translate("x.yaml", yaml).unwrap();
    assert!(
        imported.text.contains("limits = { rpm = 5, tpm = 11 }"),
        "{}",
        imported.text
    );
    assert!(imported.text.contains("api_key = \"env:A\""));
    let at = |key: &str| format!("model_list[0].litellm_params.{key}");
    assert_eq!(marks(yaml, &at("api_key")), "exact");
    assert_eq!(marks(yaml, &at("rpm")), "approximate");
    assert!(!listed(&imported.text).contains_key(&at("<<")));
}

#[test]
fn amounts_never_go_through_a_float() {
    for (per_token, per_million) in [
        ("0.0000001", "0.10"),
        ("1e-07", "0.10"),
        ("3.3e-7", "0.33"),
        (".000001", "1.00"),
        ("0.000000123456", "0.123456"),
        ("2.5E-06", "2.50"),
        ("0", "0.00"),
        ("\"1.1e-6\"", "1.10"),
    ] {
        let yaml = format!(
            "model_list:\n  - model_name: a\n    litellm_params: {{model: groq/m, input_cost_per_token: {per_token}, output_cost_per_token: 1}}\n"
        );
        let imported = translate("x.yaml", &yaml).unwrap();
        let want = format!("input = {per_million}, output = 1000000.00 ");
        assert!(
            imported.text.contains(&want),
            "{per_token}: {}",
            imported.text
        );
        assert_eq!(
            marks(&yaml, "model_list[0].litellm_params.input_cost_per_token"),
            "exact"
        );
    }
}
