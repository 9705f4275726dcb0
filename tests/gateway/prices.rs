//! Prices, as an operator asks for them: shown, imported, compared.

use std::path::Path;

use super::cli::{folder_with, run};
use crate::support::money::{asks, key, question, strict};
use crate::support::{Act, Gateway, Provider, completion};

/// Invented models and round numbers, in the words of both lists.
const LITELLM: &str = r#"{
    "sample_spec": {"litellm_provider": "one of ...", "mode": "one of ..."},
    "acme/anvil": {"litellm_provider": "acme", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "max_input_tokens": 1000},
    "groq/openai/gpt-oss-120b": {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 7e-06, "output_cost_per_token": 8e-06},
    "acme/hammer": {"litellm_provider": "acme", "mode": "image_generation"}
}"#;
const GENAI: &str = r#"[{"id": "acme", "name": "Acme", "models": [
    {"id": "anvil", "match": {"equals": "anvil"}, "prices": {"input_mtok": 3, "output_mtok": {"base": 4, "tiers": [{"start": 100, "price": 5}]}}}
]}]"#;
const CONFIGURATION: &str = "[providers.mine]\npreset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\nprices = \"acme\"\n[providers.open]\npreset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";

fn folder() -> tempfile::TempDir {
    let folder = folder_with(CONFIGURATION);
    std::fs::write(folder.path().join("litellm.json"), LITELLM).unwrap();
    std::fs::write(folder.path().join("genai.json"), GENAI).unwrap();
    folder
}

/// What a command says that must not fail.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = run(folder, arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

/// What a command says that the user must mend.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = run(folder, arguments);
    assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {err}");
    err
}

#[test]
fn prices_are_shown_by_provider_and_by_model() {
    let folder = folder();
    let path = folder.path();
    let all = said(path, &["prices", "show"]);
    assert!(all.starts_with("prices: built-in 20"), "{all}");
    assert!(all.lines().count() > 200);
    let groq = said(path, &["prices", "show", "groq"]);
    assert!(groq.lines().skip(2).all(|line| line.contains("  groq/")));
    assert!(groq.lines().count() > 3 && groq.lines().count() < all.lines().count());
    // By a preset's name, whose section has another.
    let one = said(path, &["prices", "show", "gemini-openai/gemini-2.5-pro"]);
    assert!(
        one.starts_with("gemini/gemini-2.5-pro, US dollars"),
        "{one}"
    );
    assert!(one.contains("\nabove 200000 tokens: input "), "{one}");
    let free = said(path, &["prices", "show", "ollama"]);
    assert_eq!(free, "ollama: its answers cost nothing\n");
}

#[test]
fn a_list_is_kept_beside_the_configuration_and_goes_before_what_is_built_in() {
    let folder = folder();
    let path = folder.path();
    let before = said(path, &["prices", "show", "groq"]);
    let diff = said(
        path,
        &["prices", "diff", "--format", "litellm", "litellm.json"],
    );
    assert!(
        diff.starts_with(
            "+ acme/anvil: input 1.00, output 2.00\n~ groq/openai/gpt-oss-120b: input "
        ),
        "{diff}"
    );
    assert_eq!(diff.lines().count(), 2, "{diff}");
    assert_eq!(
        said(path, &["prices", "show", "groq"]),
        before,
        "diff changes nothing"
    );

    let told = said(
        path,
        &["prices", "import", "--format", "litellm", "litellm.json"],
    );
    assert!(
        told.contains("prices.json: 2 models; 1 were left out"),
        "{told}"
    );
    let shown = said(path, &["prices", "show", "mine/anvil"]);
    assert!(
        shown.starts_with("acme/anvil, US dollars per million tokens, by `litellm "),
        "{shown}"
    );
    assert!(shown.contains("\nprice: input 1.00, ") && shown.contains("\ncontext: 1000\n"));
    let groq = said(path, &["prices", "show", "groq/openai/gpt-oss-120b"]);
    assert!(
        groq.contains("\nprice: input 7.00, cached 7.00, "),
        "{groq}"
    );
    assert!(
        groq.contains("\ncontext: 131072\n"),
        "what it did not say stays: {groq}"
    );
    let again = said(
        path,
        &["prices", "diff", "--format", "litellm", "litellm.json"],
    );
    assert_eq!(again, "nothing would change\n");
}

#[test]
fn a_list_that_is_imported_takes_the_place_of_the_one_before() {
    let folder = folder();
    let path = folder.path();
    let before = said(path, &["prices", "show", "groq"]);
    said(
        path,
        &["prices", "import", "--format", "litellm", "litellm.json"],
    );
    let diff = said(path, &["prices", "diff", "--format", "genai", "genai.json"]);
    assert!(
        diff.starts_with("~ acme/anvil: input 1.00 → 3.00, "),
        "{diff}"
    );
    assert!(
        diff.contains("tiers above [] → [100], context 1000 → not known\n~ groq/"),
        "{diff}"
    );
    said(
        path,
        &["prices", "import", "--format", "genai", "genai.json"],
    );
    assert_eq!(
        said(path, &["prices", "show", "groq"])
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        before.lines().skip(1).collect::<Vec<_>>()
    );
    let names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 4, "nothing else is left there: {names:?}");
}

#[test]
fn what_is_wrong_with_a_list_is_said_and_changes_nothing() {
    let folder = folder();
    let path = folder.path();
    let import = |format, file| refused(path, &["prices", "import", "--format", format, file]);
    assert!(import("genai", "litellm.json").contains("litellm.json: invalid type: map"));
    assert!(import("litellm", "genai.json").contains("is it a list in the form of litellm?"));
    assert!(import("litellm", "missing.json").contains("missing.json: No such file"));
    std::fs::write(path.join("empty.json"), "{}").unwrap();
    assert!(import("litellm", "empty.json").contains("no model in it has a price by the token"));
    assert!(!path.join("prices.json").exists());
    let (code, _, err) = run(path, &["prices", "import", "--format", "csv", "x"]);
    assert!(
        code == 2 && err.contains("the formats are `litellm` and `genai`"),
        "{err}"
    );

    let show = |what| refused(path, &["prices", "show", what]);
    assert!(show("groq/nothing").contains("no price is known for `groq/nothing`"));
    assert!(
        show("nobody").contains("no provider is called `nobody`; there are prices of anthropic, ")
    );
    assert!(show("open").contains("what `open` costs is not known; `prices` in [providers.open]"));

    std::fs::write(
        path.join("prices.json"),
        r#"{"schema":1,"version":"x","providers":{"acme":{"anvil":{"input":"-1","output":"1"}}}}"#,
    )
    .unwrap();
    let told = show("groq");
    assert!(
        told.contains("prices.json: acme/anvil: `input` is not a number"),
        "{told}"
    );
    assert!(told.contains("or remove it"), "{told}");
}

#[test]
fn a_section_that_is_not_there_is_a_flaw_until_it_is_imported() {
    let folder = folder();
    let (code, _, err) = run(folder.path(), &["check"]);
    let flaw = "gateway.toml:4: providers.mine.prices: the list of prices has no section `acme`";
    assert_eq!((code, err.trim_end()), (1, flaw));
    said(
        folder.path(),
        &["prices", "import", "--format", "litellm", "litellm.json"],
    );
    assert_eq!(run(folder.path(), &["check"]).0, 0);
    std::fs::write(folder.path().join("prices.json"), "{}").unwrap();
    let (code, _, err) = run(folder.path(), &["check"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("prices.json") && err.contains("import it again"),
        "{err}"
    );
}

#[test]
fn a_section_that_is_misspelled_is_a_flaw_with_advice() {
    let text = "[providers.mine]\npreset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\nprices = \"gorq\"\n[providers.openai]\nprices = \"opnai\"\n";
    let folder = folder_with(text);
    let (code, _, err) = run(folder.path(), &["check"]);
    let want = "gateway.toml:4: providers.mine.prices: the list of prices has no section `gorq`; did you mean `groq`?\n\
                gateway.toml:6: providers.openai.prices: the list of prices has no section `opnai`; did you mean `openai`?\n";
    assert_eq!((code, err.as_str()), (1, want));
}

#[tokio::test]
async fn a_local_server_is_free_where_it_is_ones_own() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let at = |base: &str, more: &str| {
        format!(
            "[providers.ollama]\nbase_url = \"{base}\"\ntries = 1\n{more}\n[models.fast]\ntargets = [\"ollama/m\"]\n{}",
            key("ann", &strict("0"))
        )
    };
    let show = |text: &str| run(folder_with(text).path(), &["prices", "show", "ollama"]);
    let near = format!("http://{}/v1", provider.address);
    let far = "https://ollama.invalid/v1";
    for (base, more, is_free) in [
        (near.as_str(), "", true),
        (near.as_str(), "free = false", false),
        (far, "", false),
        (far, "free = true", true),
        (far, "free = false", false),
    ] {
        let gateway = Gateway::start(&at(base, more)).await;
        let answer = asks(&gateway, "ann", question(10)).await;
        // What is free is asked, and is not there.
        let want = match (is_free, base == near) {
            (true, true) => 200,
            (true, false) => 502,
            (false, _) => 503,
        };
        assert_eq!(answer.status.as_u16(), want, "{base} {more}");
        let shown = show(&at(base, more));
        assert_eq!(shown.1 == "ollama: its answers cost nothing\n", is_free);
        let is_unknown = shown.2.contains("what `ollama` costs is not known");
        assert_eq!(is_unknown, !is_free, "{shown:?}");
    }
    let listed = show(&at(far, "prices = \"groq\"")).1;
    assert!(listed.contains("  groq/"), "{listed}");
    let check = |text: &str| run(folder_with(text).path(), &["check"]).1;
    let told = check(&at(far, ""));
    let want = "ollama: `https://ollama.invalid/v1` is not on this machine or a private network, so what it answers is not \
                taken to cost nothing; write `free = true` or `false`, or `prices`\n";
    assert!(told.starts_with(want), "{told}");
    for fine in [
        at(&near, ""),
        at(far, "free = true"),
        at(far, "free = false"),
        at(far, "prices = \"groq\""),
        at("unix:engine.sock", ""),
        at("http://ollama:11434/v1", ""),
    ] {
        let told = check(&fine);
        assert!(told.starts_with("gateway.toml: fine"), "{told}");
    }
}
