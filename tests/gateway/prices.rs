//! Prices, as an operator asks for them: shown, imported, compared.

use std::path::Path;

use super::cli::{folder_with, run};
use crate::support::money::{asks, budget, key, question, strict};
use crate::support::{Act, Gateway, Provider, completion, provider_at};

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
    assert!(told.contains(want), "{told}");
    for fine in [
        at(&near, ""),
        at(far, "free = true"),
        at("unix:engine.sock", ""),
        at("http://ollama:11434/v1", ""),
    ] {
        let told = check(&fine);
        assert!(told.starts_with("gateway.toml: fine"), "{told}");
    }
    for said in [at(far, "free = false"), at(far, "prices = \"groq\"")] {
        let told = check(&said);
        let lacks = "models.fast: no target has a price: ";
        assert!(
            told.starts_with(lacks) && !told.contains("ollama.invalid"),
            "{told}"
        );
    }
}

/// A provider whose prices are in a section of the list, or in none.
fn of(name: &str, section: &str) -> String {
    let prices = match section {
        "" => String::new(),
        section => format!("prices = \"{section}\"\n"),
    };
    format!(
        "[providers.{name}]\npreset = \"openai-compatible\"\nbase_url = \"https://{name}.invalid/v1\"\n{prices}"
    )
}

fn model(name: &str, targets: &[&str]) -> String {
    let targets = targets.join(", ");
    format!("[models.{name}]\ntargets = [{targets}]\n")
}

/// What `check` says before its last line, that it is fine; and whether it is so if it is to be strict.
pub fn gaps(text: &str) -> (Vec<String>, bool) {
    let folder = folder_with(text);
    let out = said(folder.path(), &["check"]);
    let (code, strict, err) = run(folder.path(), &["check", "--strict"]);
    assert_eq!(strict, out, "it is told all the same");
    assert_eq!(code == 0, err.is_empty(), "{err}");
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    let last = lines.pop().unwrap();
    assert!(last.starts_with("gateway.toml: fine: "), "{out}");
    (lines, code == 0)
}

const ANVIL: &str = "{ to = \"x/anvil\", price = { input = 1, output = 2 } }";

#[test]
fn a_budget_that_a_price_is_missing_for_is_told_before_it_matters() {
    let providers = of("x", "") + &of("groq", "groq");
    let fast = model("fast", &[ANVIL, "\"groq/new\"", "\"x/hammer\""]);
    let all = providers + &fast;
    let groq = "models.fast.targets[1]: groq/new has no price: callers with a budget are not served by it; write its \
                `price`, or import a list whose `groq` has it";
    let x = "models.fast.targets[2]: x/hammer has no price: callers with a budget are not served by it; write its \
             `price`, or `prices` or `free` in [providers.x]";
    let both = vec![groq.to_owned(), x.to_owned()];
    for budgeted in [
        key("ann", &budget("1")),
        format!("[defaults]\n{}\n{}", budget("1"), key("ann", "")),
        format!("[total]\n{}\n{}", budget("1"), key("ann", "")),
        format!("[teams.t]\n{}\n{}", budget("1"), key("ann", "team = \"t\"")),
        // By a target's own name.
        key("ann", &format!("models = [\"*/*\"]\n{}", budget("1"))),
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[total]\n{}",
            budget("1")
        ),
    ] {
        let found = gaps(&format!("{all}{budgeted}"));
        assert_eq!(found, (both.clone(), false), "{budgeted}");
    }
    let one_of = key("ann", &format!("models = [\"groq/*\"]\n{}", budget("1")));
    assert_eq!(
        gaps(&format!("{all}{one_of}")),
        (vec![groq.to_owned()], false)
    );
    for free in [
        key("ann", ""),
        // Those who have a budget may not ask for it.
        key("ann", &format!("models = [\"echo\"]\n{}", budget("1")))
            + &key("bob", "")
            + "[providers.echo]\n"
            + &model("echo", &["\"echo/echo\""]),
    ] {
        assert_eq!(gaps(&format!("{all}{free}")), (Vec::new(), true), "{free}");
    }
}

#[test]
fn what_is_asked_instead_needs_a_price_as_well() {
    let text = of("x", "")
        + &model("fast", &[ANVIL])
        + "on_budget = \"cheap\"\n"
        + &model("cheap", &["\"x/saw\""])
        + &key("ann", &format!("models = [\"fast\"]\n{}", budget("1")));
    let (told, is_fine) = gaps(&text);
    let want = "models.cheap: no target has a price: callers with a budget are never served";
    assert!(
        !is_fine && told.len() == 1 && told[0].starts_with(want),
        "{told:?}"
    );
    assert!(gaps(&text.replace("on_budget = \"cheap\"\n", "")).1);
}

#[test]
fn a_provider_with_a_budget_concerns_everybody_on_its_way() {
    let base = of("x", "") + &model("fast", &[ANVIL, "\"x/hammer\""]) + &key("ann", "");
    let budgeted = base.replace("[models", &format!("{}\n[models", budget("1")));
    let (told, is_fine) = gaps(&budgeted);
    let want = "models.fast.targets[1]: x/hammer has no price: nobody is served by it, since a provider of the model has a \
                budget; write its ";
    assert!(
        !is_fine && told.len() == 1 && told[0].starts_with(want),
        "{told:?}"
    );
    assert!(gaps(&base).1);
}

#[test]
fn a_model_that_has_no_price_at_all_is_told_of_first() {
    let text = of("x", "")
        + &model("a", &[ANVIL, "\"x/hammer\""])
        + &model("b", &["\"x/hammer\"", "\"x/saw\""])
        + &model("c", &["\"x/saw\""])
        + &key("ann", &budget("1"));
    let (told, is_fine) = gaps(&text);
    let want = "models.b, models.c: no target has a price: callers with a budget are never served; write the `price` of one";
    assert!(!is_fine && told.len() == 2, "{told:?}");
    assert_eq!(told[0], want);
    assert!(
        told[1].starts_with("models.a.targets[1]: x/hammer has"),
        "{told:?}"
    );
    let by_target = text.replace("[keys.ann]\n", "[keys.ann]\nmodels = [\"x/*\"]\n");
    let (told, _) = gaps(&by_target);
    let each = "models.a.targets[1], models.b.targets[0], models.b.targets[1], models.c.targets[0]: x/hammer, x/saw have no";
    assert!(told.len() == 1 && told[0].starts_with(each), "{told:?}");
    let (told, is_fine) = gaps(&format!("{text}[ledger]\nunpriced = \"free\"\n"));
    let want = "models.a.targets[1], models.b.targets[0], models.b.targets[1], models.c.targets[0]: x/hammer, x/saw have no \
                price: that is counted as costing nothing, and no budget sees it; write their `price`, ";
    assert!(
        !is_fine && told.len() == 1 && told[0].starts_with(want),
        "{told:?}"
    );
}

#[test]
fn tokens_that_are_charged_as_others_are_named() {
    let providers: String = ["openai", "anthropic", "openrouter", "groq"]
        .into_iter()
        .map(|name| of(name, name))
        .collect();
    // A provider of one's own and a preset without a section, whose models the list knows all the same.
    let own =
        "[providers.azure]\nbase_url = \"https://x.openai.azure.com/openai/v1\"\napi_key = \"k\"\n";
    let base = providers + own + &of("x", "") + &key("ann", &budget("1"));
    let of_target = |target: &str| gaps(&format!("{base}{}", model("m", &[target])));
    let priced = |to: &str| format!("{{ to = \"{to}\", price = {{ input = 1, output = 2 }} }}");
    for (target, classes) in [
        (priced("openai/gpt-4o"), "`cached` (charged as `input`)"),
        (priced("openai/not-listed"), "`cached` (charged as `input`)"),
        (
            "\"openai/gpt-5-pro\"".to_owned(),
            "`cached` (charged as `input`)",
        ),
        (priced("azure/my-own"), "`cached` (charged as `input`)"),
        (
            priced("anthropic/not-listed"),
            "`cached` (charged as `input`), `cache_write` (charged as `input`), `cache_write_1h` (charged as `cache_write`)",
        ),
    ] {
        let (told, is_fine) = of_target(&target);
        let want =
            format!(" has no rate for {classes}, which is billed apart; state it in its `price`");
        assert!(!is_fine && told.len() == 1, "{target}: {told:?}");
        assert!(
            told[0].starts_with("models.m.targets[0]: ") && told[0].ends_with(&want),
            "{told:?}"
        );
    }
    for exact in [
        "\"openai/gpt-4o\"",
        "\"openai/text-embedding-3-small\"",
        "\"anthropic/claude-opus-5\"",
        "\"groq/openai/gpt-oss-20b\"",
        // It says what it costs.
        "\"openrouter/anthropic/claude-3-haiku\"",
        // Nobody knows anything of it but what is written.
        ANVIL,
        "{ to = \"openai/gpt-4o\", price = { input = 1, cached = 1, output = 2 } }",
        "{ to = \"openai/gpt-4o\", price = { input = 0, output = 0 } }",
    ] {
        assert_eq!(of_target(exact), (Vec::new(), true), "{exact}");
    }
}

#[test]
fn many_targets_of_a_provider_share_their_lines() {
    let mut text = of("openai", "openai") + &key("ann", &budget("1"));
    for n in 0..20 {
        let target = format!("\"openai/new-{n:02}\"");
        text += &model(&format!("m{n:02}"), &["\"openai/gpt-4o\"", &target]);
    }
    let (told, is_fine) = gaps(&text);
    assert!(!is_fine && told.len() == 3, "{told:#?}");
    for n in 0..20 {
        let target = format!("openai/new-{n:02}");
        assert!(told[n / 8].contains(&target), "each is named: {told:#?}");
    }
}

#[test]
fn a_gate_needs_no_keys_of_providers() {
    let targets = ["\"groq/new\"", "\"groq/openai/gpt-oss-20b\"", ANVIL];
    let text = "[providers.groq]\n".to_owned()
        + &of("x", "")
        + &model("m", &targets)
        + &model("n", &targets[..1])
        + &key("ann", &budget("1"));
    let (told, is_fine) = gaps(&text);
    assert!(!is_fine && told.len() == 3, "{told:?}");
    assert!(
        told[0].starts_with("models.n: no target has a price: "),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("models.m.targets[0]: groq/new has no price: "),
        "{told:?}"
    );
    assert_eq!(told[2], "groq: GROQ_API_KEY is not set, 3 targets skipped");
    // What is written there is read, too.
    let flawed = text.replace(
        "\"groq/new\"",
        "{ to = \"groq/new\", price = { input = 1 } }",
    );
    let (code, _, err) = run(folder_with(&flawed).path(), &["check"]);
    assert!(
        code == 1 && err.contains("models.m.targets[0].price: a price needs both"),
        "{err}"
    );
}

#[tokio::test]
async fn how_well_a_price_is_known_is_counted_by_target() {
    let provider = Provider::new([]).await;
    let x = provider_at("x", provider.address, "");
    let openai = provider_at("openai", provider.address, "prices = \"openai\"");
    let text = |anvil: &str, more: &str| {
        let targets = [
            anvil,
            "\"x/hammer\"",
            "\"openai/gpt-4o\"",
            "\"openai/gpt-5-pro\"",
        ];
        format!("{x}{openai}{}{more}", model("m", &targets))
    };
    let gateway = Gateway::start(&text(ANVIL, "")).await;
    let states = |gateway: &Gateway| -> Vec<String> {
        let metrics = gateway.metrics();
        let lines = metrics.lines();
        let lines = lines.filter_map(|line| line.strip_prefix("tollgate_target_price{state="));
        lines.map(str::to_owned).collect()
    };
    let want = [
        r#""estimated",target="openai/gpt-5-pro"} 1"#,
        r#""exact",target="openai/gpt-4o"} 1"#,
        r#""exact",target="x/anvil"} 1"#,
        r#""unpriced",target="x/hammer"} 1"#,
    ];
    let sorted = |gateway: &Gateway| {
        let mut states = states(gateway);
        states.sort();
        states
    };
    assert_eq!(sorted(&gateway), want);
    // The worst of several prices counts, and what is not asked any more is not there.
    let again = model("n", &["\"x/anvil\""]);
    gateway
        .apply(&text(ANVIL, &again).replace(", \"x/hammer\"", ""))
        .unwrap();
    let now = sorted(&gateway);
    assert_eq!(now[..2], want[..2]);
    assert_eq!(now[2..], [r#""unpriced",target="x/anvil"} 1"#]);
    assert!(gateway.apply("[models.m]\ntargets = []\n").is_err());
    assert_eq!(sorted(&gateway), now, "what is refused changes nothing");
}
