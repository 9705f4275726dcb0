//! Why a request went where it went can be read afterwards, and decided again by another configuration.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::cli::run;
use crate::support::client::{self, Answer, get, whole};
use crate::support::money::{PRICE, asks, fast, key, of};
use crate::support::{Act, CHAT, Gateway, Provider, chat, completion, until};

async fn says(text: &str) -> Provider {
    Provider::new([Act::json(completion(text))]).await
}

async fn with_header(gateway: &Gateway, name: &str, headers: &[(&str, &str)]) -> Answer {
    let key = format!("Bearer sk-{name}");
    let headers = [&[("authorization", &*key)], headers].concat();
    let sent = client::send(
        gateway.address,
        http::Method::POST,
        CHAT,
        &headers,
        chat("fast"),
    );
    whole(sent.await).await
}

#[tokio::test]
async fn a_request_may_have_its_decision_kept_by_those_who_may() {
    let fails = Provider::new([Act::status(500, "{}")]).await;
    let works = says("x").await;
    let text = [
        of("f", &fails, ""),
        of("p", &works, ""),
        format!("[models.fast]\ntargets = [\"f/m\", {{ to = \"p/m\", {PRICE} }}]\n"),
        key("ann", "explain = true"),
        key("bob", ""),
    ]
    .concat();
    let gateway = Gateway::start(&text).await;
    let asks = [("x-tollgate-explain", "1")];
    let answer = with_header(&gateway, "ann", &asks).await;
    assert_eq!(answer.header("x-tollgate-explain"), Some("kept"));
    let id = answer.header("x-request-id").unwrap().to_owned();
    let path = format!("/admin/decisions/{id}");
    let told = get(gateway.admin, &path, "").await;
    assert_eq!(told.status, 200, "{}", told.text());
    let told = told.json();
    assert_eq!(told["id"], id);
    assert_eq!(
        (&told["key"], &told["target"], &told["tries"]),
        (&"ann".into(), &"p/m".into(), &2.into())
    );
    assert_eq!(told["cost_usd"], "0.037");
    let steps = told["decisions"][0]["steps"].as_array().unwrap();
    let steps: Vec<_> = steps
        .iter()
        .map(|it| {
            (
                it["target"].as_str().unwrap(),
                it["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(steps, [("f/m", "provider_fault"), ("p/m", "answered")]);
    assert_eq!(told["decisions"][0]["picks"][1]["target"], "p/m");
    assert!(
        !told.to_string().contains("content"),
        "no word of it: {told:#}"
    );
    for (name, headers) in [
        ("ann", &[][..]),
        ("ann", &[("x-tollgate-explain", "0")]),
        ("bob", &asks),
    ] {
        let answer = with_header(&gateway, name, headers).await;
        assert_eq!(answer.header("x-tollgate-explain"), None);
        let path = format!(
            "/admin/decisions/{}",
            answer.header("x-request-id").unwrap()
        );
        assert_eq!(
            get(gateway.admin, &path, "").await.code(),
            "unknown_decision"
        );
    }
}

fn logged(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("decisions.jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn decisions_are_logged_without_a_word_of_what_was_said() {
    let works = says("x").await;
    let text = [of("p", &works, ""), fast(PRICE), key("ann", "")].concat();
    let gateway = Gateway::with("decision_log = \"decisions.jsonl\"", &text).await;
    let body = chat("fast").replace("hi", "a word that nobody should read");
    assert_eq!(asks(&gateway, "ann", body).await.status, 200);
    assert_eq!(asks(&gateway, "ann", chat("slow")).await.status, 404);
    until("both are written", || logged(gateway.folder()).len() == 2).await;
    let lines = logged(gateway.folder());
    assert_eq!(lines[0]["asked"], "fast");
    assert_eq!(lines[0]["usage"]["output"], 3);
    assert_eq!(lines[0]["paid_usd"], "0.037");
    assert_eq!(
        (&lines[1]["code"], &lines[1]["decisions"]),
        (&"model_not_found".into(), &Value::Array(vec![]))
    );
    let text = std::fs::read_to_string(gateway.folder().join("decisions.jsonl")).unwrap();
    assert!(!text.contains("nobody should read"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let file = std::fs::metadata(gateway.folder().join("decisions.jsonl")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
}

/// Models by every strategy, at targets of which some fail, some are slow, some have limits.
fn busy(all: &[Provider; 4]) -> String {
    let mut text = String::new();
    for (name, provider) in ["a", "b", "c", "d"].into_iter().zip(all) {
        text += &of(name, provider, "cooldown = \"200ms\"");
    }
    for (n, strategy) in ["order", "weight", "latency", "least_busy", "cost", "sticky"]
        .into_iter()
        .enumerate()
    {
        let weights = ["", ", weight = 3"][usize::from(strategy == "weight")];
        text += &format!(
            "[models.m{n}]\nstrategy = \"{strategy}\"\nhedge = {{ after = \"25ms\", at_most = 0.3 }}\ntargets = [\n\
             {{ to = \"a/{n}\"{weights}, price = {{ input = 3, output = 5 }} }},\n\
             {{ to = \"b/{n}\", price = {{ input = 1, output = 9 }}, limits = {{ rpm = 40 }} }},\n\
             {{ to = \"c/{n}\", price = {{ input = 1, output = 9 }} }},\n\
             {{ to = \"d/{n}\", tier = 1, price = {{ input = 9, output = 9 }} }},\n]\n"
        );
    }
    // The command has no such variable.
    text.replace("env:SOME_KEY", "sk-x") + &key("ann", "")
}

/// A gateway that 600 requests have gone through, twelve at a time, and its configuration.
async fn used() -> (Gateway, String) {
    let mixed = |fails: usize, ms: u64| {
        (0..100_usize).map(move |n| match n % fails {
            0 => Act::status(500, "{}"),
            _ => Act::After(
                Duration::from_millis(ms * (n as u64 % 3)),
                Box::new(Act::json(completion("x"))),
            ),
        })
    };
    let acts = [mixed(4, 5), mixed(9, 15), mixed(2, 1), mixed(50, 2)];
    let mut providers = Vec::new();
    for acts in acts {
        providers.push(Provider::new(acts.chain([Act::json(completion("x"))])).await);
    }
    let providers: [Provider; 4] = providers.try_into().ok().unwrap();
    let text = busy(&providers);
    let gateway = Gateway::with("decision_log = \"decisions.jsonl\"", &text).await;
    let (mut asking, address) = (JoinSet::new(), gateway.address);
    for n in 0..600 {
        if asking.len() == 12 {
            asking.join_next().await.unwrap().unwrap();
        }
        let body = chat(&format!("m{}", n % 6)).replace("hi", &format!("hi {}", n % 7));
        asking.spawn(async move { client::post(address, CHAT, "sk-ann", body).await });
    }
    while asking.join_next().await.is_some() {}
    until("all are written", || logged(gateway.folder()).len() == 600).await;
    (gateway, text)
}

#[tokio::test]
async fn a_log_decided_again_by_its_own_configuration_changes_nothing() {
    let (gateway, text) = used().await;
    let lines = logged(gateway.folder());
    let asked: usize = lines
        .iter()
        .map(|it| it["decisions"][0]["steps"].as_array().unwrap().len())
        .sum();
    assert!(asked > 620, "some failed, or were hedged: {asked}");
    std::fs::write(gateway.folder().join("gateway.toml"), &text).unwrap();
    let replays = |name: &str| {
        let (code, said, wrong) = run(gateway.folder(), &["replay", name, "--json"]);
        assert_eq!((code, &*wrong), (0, ""));
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let same = replays("decisions.jsonl");
    assert_eq!(same["changes"].as_array().unwrap().len(), 0, "{same:#}");
    assert_eq!(
        (&same["decided"], &same["same"]),
        (&600.into(), &600.into())
    );
    assert_eq!(same["cost_usd_before"], same["cost_usd_after"]);
    // The other way round much changes.
    let other = text
        .replace("{ to = \"a/4\",", "{ to = \"a/4\", tier = 1,")
        .replace("input = 3, output = 5", "input = 6, output = 10");
    std::fs::write(
        gateway.folder().join("gateway.toml"),
        other.replace("[models.m5]", "[models.m6]"),
    )
    .unwrap();
    let changed = replays("decisions.jsonl");
    let changes = changed["changes"].as_array().unwrap();
    let of = |model: &str| {
        changes
            .iter()
            .filter(|it| it["model"] == model)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(of("m5").len(), 100);
    assert_eq!(of("m5")[0]["rejected"], "there is no model `m5`");
    assert!(
        of("m4")
            .iter()
            .any(|it| it["before"] == "a/4" && it["after"] != "a/4"),
        "{changes:#?}"
    );
    assert!(
        of("m0").iter().all(|it| it["before"] == it["after"]),
        "only dearer"
    );
    let (code, said, _) = run(gateway.folder(), &["replay", "decisions.jsonl"]);
    assert_eq!(code, 0);
    assert!(
        said.starts_with("600 requests: ")
            && said.contains("100 x rejected: there is no model `m5`"),
        "{said}"
    );
}

#[tokio::test]
async fn what_has_no_bound_or_is_rewritten_is_decided_again_as_it_was() {
    let works = says("x").await;
    // `wordy` is the dearest, for its rules ask for three answers.
    let text = of("p", &works, "rules_for.\"wordy*\" = { set = { n = 3 } }")
        .replace("env:SOME_KEY", "sk-x")
        + "[models.fast]\nstrategy = \"cost\"\ntargets = [\n\
           { to = \"p/wordy\", price = { input = 1, output = 2 } },\n\
           { to = \"p/dear\", price = { input = 1, output = 3 } },\n\
           { to = \"p/cheap\", price = { input = 1, output = 2.5 } },\n]\n"
        + &key("ann", "");
    let gateway = Gateway::with("decision_log = \"decisions.jsonl\"", &text).await;
    let short = chat("fast").replacen('{', "{\"max_tokens\":50,", 1);
    let searches = short.replacen('{', "{\"web_search_options\":{},", 1);
    for body in [&short, &searches] {
        let answer = asks(&gateway, "ann", body.clone()).await;
        assert_eq!(
            answer.header("x-tollgate-target"),
            Some("p/cheap"),
            "{body}"
        );
    }
    until("both are written", || logged(gateway.folder()).len() == 2).await;
    std::fs::write(gateway.folder().join("gateway.toml"), &text).unwrap();
    let (code, said, wrong) = run(gateway.folder(), &["replay", "decisions.jsonl"]);
    assert_eq!((code, &*wrong), (0, ""));
    assert!(said.starts_with("2 requests: 2 as before"), "{said}");
}

#[tokio::test]
async fn what_is_free_is_first_whatever_it_is_asked_for_and_is_again() {
    let works = says("x").await;
    let text = of("p", &works, "rules_for.\"wordy*\" = { set = { n = 3 } }")
        .replace("env:SOME_KEY", "sk-x")
        + "[models.fast]\nstrategy = \"cost\"\ntargets = [\n\
           { to = \"p/dear\", price = { input = 1, output = 3 } },\n\
           { to = \"p/wordy\", price = { input = 0, output = 0 } },\n]\n"
        + &key("ann", "");
    let gateway = Gateway::with("decision_log = \"decisions.jsonl\"", &text).await;
    // Nobody sees how long the input is.
    let unseen = chat("fast").replacen('{', "{\"previous_response_id\":\"r\",", 1);
    let answer = asks(&gateway, "ann", unseen).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("p/wordy"));
    until("it is written", || logged(gateway.folder()).len() == 1).await;
    let candidate = &logged(gateway.folder())[0]["decisions"][0]["picks"][0]["candidates"][1];
    assert_eq!(candidate["most"]["input"], Value::Null, "{candidate:#}");
    std::fs::write(gateway.folder().join("gateway.toml"), &text).unwrap();
    let (_, said, _) = run(gateway.folder(), &["replay", "decisions.jsonl"]);
    assert!(said.starts_with("1 requests: 1 as before"), "{said}");
}

#[tokio::test]
async fn a_model_that_is_for_something_else_by_now_would_refuse() {
    let works = says("x").await;
    let text = of("p", &works, "").replace("env:SOME_KEY", "sk-x")
        + "[models.fast]\ntargets = [\"p/m\"]\n"
        + &key("ann", "");
    let gateway = Gateway::with("decision_log = \"decisions.jsonl\"", &text).await;
    assert_eq!(asks(&gateway, "ann", chat("fast")).await.status, 200);
    until("it is written", || logged(gateway.folder()).len() == 1).await;
    for (kind, says) in [
        ("chat", "1 requests: 1 as before"),
        (
            "embedding",
            "1 requests: 0 as before, 0 elsewhere, 1 rejected",
        ),
    ] {
        let text = text.replace("[\"p/m\"]\n", &format!("[\"p/m\"]\nkind = \"{kind}\"\n"));
        std::fs::write(gateway.folder().join("gateway.toml"), &text).unwrap();
        let (_, said, _) = run(gateway.folder(), &["replay", "decisions.jsonl"]);
        assert!(said.starts_with(says), "{said}");
    }
}

#[tokio::test]
async fn a_line_has_to_have_no_more_than_what_decides() {
    let folder = crate::cli::folder_with(
        "[providers.echo]\n[models.fast]\ntargets = [\"echo/a\", \"echo/b\"]\n",
    );
    let line = r#"{"id":"req_1","key":null,"asked":"fast","decisions":[{"model":"fast","seed":"0000000000000001","marks":{},"demand":null,"picks":[{"target":"echo/a","candidates":[{"target":"echo/a","busy":0,"warmth":1000},{"target":"echo/b","busy":0,"warmth":1000}]}],"steps":[{"target":"echo/a","outcome":"answered"}]}]}"#;
    std::fs::write(
        folder.path().join("log"),
        line.to_owned() + "\n" + line + "\n",
    )
    .unwrap();
    let (code, said, wrong) = run(folder.path(), &["replay", "log"]);
    assert_eq!((code, &*wrong), (0, ""));
    assert!(said.starts_with("2 requests: 2 as before"), "{said}");
}

#[tokio::test]
async fn a_log_that_is_none_is_named_with_its_line() {
    let folder =
        crate::cli::folder_with("[providers.echo]\n[models.fast]\ntargets = [\"echo/echo\"]\n");
    std::fs::write(
        folder.path().join("log"),
        "{\"id\":\"x\",\"decisions\":[]}\nnonsense\n{}\n",
    )
    .unwrap();
    let (code, _, wrong) = run(folder.path(), &["replay", "log"]);
    assert_eq!(code, 1);
    assert!(
        wrong.starts_with("log:2: no decision of tollgate: expected"),
        "{wrong}"
    );
    std::fs::write(
        folder.path().join("log"),
        "{\"id\":\"x\",\"decisions\":[]}\n{\"id\":\"y",
    )
    .unwrap();
    let (code, said, _) = run(folder.path(), &["replay", "log"]);
    assert_eq!(code, 0, "its last line is being written");
    assert!(
        said.starts_with("1 requests: 0 as before, 0 elsewhere, 0 rejected; 1 were turned away"),
        "{said}"
    );
    let (code, _, wrong) = run(folder.path(), &["replay", "nothing"]);
    assert_eq!(code, 1);
    assert!(wrong.starts_with("nothing cannot be read"), "{wrong}");
}

#[tokio::test]
async fn keys_that_are_made_may_have_decisions_kept_and_turns_of_their_own() {
    let folder =
        crate::cli::folder_with("[providers.echo]\n[models.fast]\ntargets = [\"echo/echo\"]\n");
    let new = ["keys", "new", "ann", "--explain", "--weight", "3"];
    let (code, shown, _) = run(folder.path(), &new);
    assert_eq!((code, shown.starts_with("tg_")), (0, true), "{shown}");
    let (_, listed, _) = run(folder.path(), &["keys", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["explain"], &listed[0]["weight"]),
        (&true.into(), &3.into())
    );
    let (code, _, wrong) = run(folder.path(), &["keys", "new", "bob", "--weight", "0"]);
    assert_eq!(code, 1);
    assert!(
        wrong.contains("0 is no share; write a number from 1 to 100"),
        "{wrong}"
    );
}
