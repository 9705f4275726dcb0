//! Keys that are made while the gateway runs: at work at once, revoked for good, and with limits, budgets and teams.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::cli::tollgate;
use crate::support::books::Books;
use crate::support::client::{self, Answer, get, post, whole};
use crate::support::gateway::load;
use crate::support::money::{COST, PRICE, budget, fast, key, of, priced, question, spent};
use crate::support::{Act, Gateway, Hands, Provider, chat, completion, until};

const TOKEN: &str = "token = \"right\"\n";

async fn answering() -> Provider {
    Provider::new([Act::json(completion("hello"))]).await
}

/// A gateway to one target, whose operators have a token.
fn guarded(provider: &Provider, more: &str) -> String {
    [TOKEN, &priced(provider, more)].concat()
}

async fn operate(gateway: &Gateway, method: Method, path: &str, body: impl Into<String>) -> Answer {
    let body = body.into();
    let headers = [
        ("authorization", "Bearer right"),
        ("content-type", "application/json"),
    ];
    whole(client::send(gateway.admin, method, path, &headers, body).await).await
}

/// Makes a key by what operators ask.
async fn made(gateway: &Gateway, terms: &Value) -> String {
    let answer = operate(gateway, Method::POST, "/admin/keys", terms.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["key"].as_str().unwrap().to_owned()
}

/// The same for another.
async fn rotated(gateway: &Gateway, name: &str, grace: &str) -> String {
    let path = format!("/admin/keys/{name}/rotate");
    let body = json!({ "grace": grace }).to_string();
    let answer = operate(gateway, Method::POST, &path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["key"].as_str().unwrap().to_owned()
}

async fn revoked(gateway: &Gateway, name: &str) {
    let path = format!("/admin/keys/{name}");
    let answer = operate(gateway, Method::DELETE, &path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn ask(gateway: &Gateway, key: &str) -> Answer {
    post(gateway.address, "/chat/completions", key, question(10)).await
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    ask(gateway, key).await.status.as_u16()
}

#[tokio::test]
async fn a_key_is_made_used_given_anew_and_revoked() {
    let provider = answering().await;
    let noon = 1_709_208_000;
    let hands = Hands::at(noon);
    let gateway = Gateway::by(&hands, "", &guarded(&provider, &key("ann", ""))).await;
    assert_eq!(status(&gateway, "tg_guess").await, 401);
    let terms =
        json!({ "name": "bob", "budget": { "usd": 1, "per": "month" }, "tags": ["dept-7"] });
    let first = made(&gateway, &terms).await;
    assert!(first.starts_with("tg_") && first.len() == 51, "{first}");
    assert_eq!(status(&gateway, &first).await, 200);
    assert_eq!(spent(&gateway, 0, "bob").await, COST);
    assert_eq!(Books::of(&gateway).await.column("tag"), ["dept-7"]);

    // Both are good until the stated time, and spend from the same account.
    let second = rotated(&gateway, "bob", "1h").await;
    assert_ne!(first, second);
    for key in [&first, &second] {
        assert_eq!(status(&gateway, key).await, 200);
    }
    hands.move_to(noon + 3_599);
    assert_eq!(status(&gateway, &first).await, 200);
    hands.move_to(noon + 3_600);
    assert_eq!(status(&gateway, &first).await, 401);
    assert_eq!(status(&gateway, &second).await, 200);
    assert_eq!(spent(&gateway, 0, "bob").await, 5 * COST);

    let third = rotated(&gateway, "bob", "0s").await;
    assert_eq!(status(&gateway, &second).await, 401, "at once");
    assert_eq!(status(&gateway, &third).await, 200);
    revoked(&gateway, "bob").await;
    for key in [&first, &second, &third] {
        assert_eq!(status(&gateway, key).await, 401);
    }
    let again = operate(&gateway, Method::POST, "/admin/keys", r#"{"name":"bob"}"#).await;
    assert_eq!(
        (again.status.as_u16(), again.code()),
        (409, "key_exists".into())
    );
    let path = "/admin/keys/bob/rotate";
    let anew = operate(&gateway, Method::POST, path, "{}").await;
    assert_eq!(
        (anew.status.as_u16(), anew.code()),
        (409, "key_revoked".into())
    );
    assert_eq!(
        status(&gateway, "sk-ann").await,
        200,
        "nobody else was concerned"
    );
}

/// Only what cannot be turned back into a key is kept or told.
#[tokio::test]
async fn a_key_is_shown_once_and_kept_nowhere() {
    let provider = answering().await;
    let gateway = Gateway::start(&guarded(&provider, &key("ann", ""))).await;
    let bob = made(&gateway, &json!({ "name": "bob", "models": ["fast"] })).await;
    assert_eq!(status(&gateway, &bob).await, 200);
    let listed = operate(&gateway, Method::GET, "/admin/keys", "").await;
    let all = listed.json();
    let names: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["ann", "bob"]);
    assert_eq!(
        (&all[0]["source"], &all[1]["source"]),
        (&json!("file"), &json!("made"))
    );
    assert_eq!(all[1]["models"], json!(["fast"]));
    drop(gateway.ledger());
    let secret = bob.as_bytes();
    let shows = |bytes: &[u8]| bytes.windows(secret.len()).any(|it| it == secret);
    assert!(!shows(listed.text().as_bytes()) && !shows(gateway.metrics().as_bytes()));
    for file in std::fs::read_dir(gateway.folder()).unwrap() {
        let path = file.unwrap().path();
        assert!(!shows(&std::fs::read(&path).unwrap()), "{}", path.display());
    }
}

#[tokio::test]
async fn a_revocation_outranks_the_configuration_for_good() {
    let provider = answering().await;
    let text = guarded(&provider, &(key("ann", "") + &key("eve", "")));
    let gateway = Gateway::start(&text).await;
    assert_eq!(status(&gateway, "sk-ann").await, 200);
    revoked(&gateway, "ann").await;
    assert_eq!(status(&gateway, "sk-ann").await, 401);
    gateway.apply(&text).unwrap();
    assert_eq!(status(&gateway, "sk-ann").await, 401, "also after a reload");
    assert_eq!(status(&gateway, "sk-eve").await, 200);
    let gateway = gateway.restart(&text, |_| {}).await;
    assert_eq!(status(&gateway, "sk-ann").await, 401, "and after a restart");
    assert_eq!(status(&gateway, "sk-eve").await, 200);
    let path = "/admin/keys/nobody";
    let unknown = operate(&gateway, Method::DELETE, path, "").await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.code()),
        (404, "key_not_found".into())
    );
    let written = operate(&gateway, Method::POST, "/admin/keys/eve/rotate", "").await;
    assert_eq!(
        (written.status.as_u16(), written.code()),
        (409, "key_in_configuration".into())
    );
}

#[tokio::test]
async fn open_mode_ends_for_good_with_the_first_key() {
    let provider = answering().await;
    let text = guarded(&provider, "");
    let gateway = Gateway::start(&text).await;
    assert_eq!(status(&gateway, "").await, 200);
    let bob = made(&gateway, &json!({ "name": "bob" })).await;
    assert_eq!(status(&gateway, "").await, 401);
    assert_eq!(status(&gateway, "anything").await, 401);
    assert_eq!(status(&gateway, &bob).await, 200);
    revoked(&gateway, "bob").await;
    let gateway = gateway.restart(&text, |_| {}).await;
    for key in ["", "anything", &bob] {
        assert_eq!(status(&gateway, key).await, 401, "{key}");
    }
    // Who writes that it is open has it open.
    let provider = answering().await;
    let gateway = Gateway::with("open = true", &guarded(&provider, "")).await;
    made(&gateway, &json!({ "name": "bob" })).await;
    assert_eq!(status(&gateway, "").await, 200);
    // But not beside a budget that anybody could leave out.
    let rich = r#"{"name":"eve","budget":{"usd":1,"per":"day"}}"#;
    let refused = operate(&gateway, Method::POST, "/admin/keys", rich).await;
    assert!(
        refused.text().contains("the key eve has a budget"),
        "{}",
        refused.text()
    );
    let text = guarded(&provider, &key("ann", &budget("1")));
    let flawed = load(&tempfile::tempdir().unwrap(), "open = true", &text).unwrap();
    let Err(flaws) = flawed.compile() else {
        panic!("it was taken");
    };
    assert!(
        flaws.0[0].contains("server.open: is true, and the key ann has a budget"),
        "{flaws}"
    );
}

/// What a client is told does not say why.
#[tokio::test]
async fn whatever_is_not_valid_is_told_in_the_same_words_and_at_most_so_often() {
    let provider = answering().await;
    let old = key("old", "expires = \"2020-01-01\"");
    let gateway = Gateway::start(&guarded(&provider, &(key("ann", "") + &old))).await;
    let bob = made(&gateway, &json!({ "name": "bob" })).await;
    revoked(&gateway, "bob").await;
    let mut told = Vec::new();
    for key in ["", "tg_unknown", "sk-old", &bob] {
        let answer = ask(&gateway, key).await;
        let names = ["content-type", "content-length", "x-should-retry"];
        let headers = names.map(|name| answer.header(name).map(str::to_owned));
        told.push((answer.status, answer.text(), headers));
    }
    told.dedup();
    assert_eq!((told.len(), told[0].0.as_u16()), (1, 401), "{told:?}");
    assert!(told[0].1.contains("invalid_api_key"));
    let mut statuses = Vec::new();
    for _ in 0..80 {
        statuses.push(status(&gateway, "tg_guess").await);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429));
    let refused = ask(&gateway, "tg_guess").await;
    assert_eq!(refused.code(), "rate_limit_exceeded");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        status(&gateway, "sk-ann").await,
        200,
        "who has a key is not held up"
    );
    assert_eq!(status(&gateway, "").await, 401, "nor who has forgotten it");
}

#[tokio::test]
async fn what_is_no_name_is_said_and_nothing_is_made() {
    let provider = answering().await;
    let gateway = Gateway::start(&guarded(&provider, &key("ann", ""))).await;
    let long = "k".repeat(10_000);
    for name in [
        "", "a\"b", "a'b", "a\nb", "a b", "naïve", "../x", "a/b", &long,
    ] {
        let body = json!({ "name": name }).to_string();
        let refused = operate(&gateway, Method::POST, "/admin/keys", body).await;
        assert_eq!(refused.status, 400, "{name}");
        assert!(
            refused.text().contains("a key's name is made of"),
            "{}",
            refused.text()
        );
    }
    let listed = operate(&gateway, Method::GET, "/admin/keys", "").await;
    assert_eq!(listed.json().as_array().unwrap().len(), 1);
}

/// Those of the configuration may be odd, but not break a line or a label.
#[tokio::test]
async fn odd_names_in_the_configuration_work_or_are_named() {
    let provider = answering().await;
    let odd = "[keys.\"a \\\"b\\\" 'c'\"]\nkey = \"sk-odd\"\n";
    let gateway = Gateway::start(&guarded(&provider, odd)).await;
    assert_eq!(status(&gateway, "sk-odd").await, 200);
    let line = r#"tollgate_requests_total{api="chat_completions",key="a \"b\" 'c'",model="fast",status="200"} 1"#;
    until("it is told", || gateway.metrics().contains(line)).await;
    for name in ["a\\nb", &"k".repeat(10_000)] {
        let text = guarded(&provider, &format!("[keys.\"{name}\"]\nkey = \"sk-odd\"\n"));
        let flawed = load(
            &tempfile::tempdir().unwrap(),
            "listen = \"127.0.0.1:0\"",
            &text,
        );
        let Err(flaws) = flawed.unwrap().compile() else {
            panic!("it was taken");
        };
        let told = flaws.to_string();
        assert!(
            told.contains("a key's name is one line of at most 128 characters"),
            "{told}"
        );
        assert!(told.lines().count() == 1 && told.len() < 200, "{told}");
    }
}

#[tokio::test]
async fn what_a_key_may_do_is_checked_before_it_is_made() {
    let provider = answering().await;
    let gateway = Gateway::start(&guarded(&provider, &key("ann", ""))).await;
    for (terms, why) in [
        (r"{}", "`name` must be given, as a string"),
        (r#"{"name":7}"#, "`name` must be given, as a string"),
        (r"[]", "the body must be a JSON object"),
        (r"{", "the body is not JSON"),
        (r#"{"name":"x","model":["fast"]}"#, "unknown field `model`"),
        (
            r#"{"name":"x","models":["fsat"]}"#,
            "keys.x.models[0]: `fsat` can match no model; did you mean `fast`?",
        ),
        (r#"{"name":"x","team":"t"}"#, "there is no [teams.t]"),
        (r#"{"name":"x","limits":{"rpm":0}}"#, "0 is no limit"),
        (
            r#"{"name":"x","limits":{"per_minute":{"pictures":1}}}"#,
            "pictures",
        ),
        (
            r#"{"name":"x","limits":{"rpm":-1}}"#,
            "invalid value: integer `-1`",
        ),
        (
            r#"{"name":"x","budget":{"usd":"ten","per":"day"}}"#,
            "keys.x.budget.usd: `ten` is not a number",
        ),
        (
            r#"{"name":"x","budget":{"usd":2.5,"per":"day"}}"#,
            "write 2.5 as text",
        ),
        (
            r#"{"name":"x","budget":{"usd":1,"per":"year"}}"#,
            "unknown variant `year`",
        ),
        (r#"{"name":"x","expires":"soon"}"#, "is not a day"),
        (
            r#"{"name":"x","key":"sk-mine"}"#,
            "has neither `key` nor `digest`",
        ),
    ] {
        let refused = operate(&gateway, Method::POST, "/admin/keys", terms).await;
        assert_eq!(refused.status, 400, "{terms}");
        let told = refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(told.contains(why), "{terms}: {told}");
    }
    let written = operate(&gateway, Method::POST, "/admin/keys", r#"{"name":"ann"}"#).await;
    assert_eq!(
        (written.status.as_u16(), written.code()),
        (409, "key_in_configuration".into())
    );
    let wrong = operate(
        &gateway,
        Method::POST,
        "/admin/keys/x/rotate",
        r#"{"grace":"soon"}"#,
    )
    .await;
    assert!(
        wrong.text().contains("`soon` is not a duration"),
        "{}",
        wrong.text()
    );
    let listed = operate(&gateway, Method::GET, "/admin/keys", "").await;
    assert_eq!(listed.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_that_is_made_has_limits_a_team_and_the_defaults_from_its_first_request_on() {
    let provider = answering().await;
    let teams = format!("[teams.t]\nmembers = [\"later\"]\n{}\n", budget("\"0.4\""));
    let defaults = format!(
        "[defaults]\n{}\non_shortfall = \"refuse\"\n",
        budget("\"0.41\"")
    );
    let gateway = Gateway::start(&guarded(&provider, &(teams + &defaults))).await;
    // What one request may cost is some 0.4 dollars: the second does not fit any more.
    let body = question(5);
    let ask = async |key: &str| {
        let answer = post(gateway.address, "/chat/completions", key, body.clone()).await;
        (answer.status.as_u16(), answer.text())
    };
    let plain = made(&gateway, &json!({ "name": "plain" })).await;
    assert_eq!(ask(&plain).await.0, 200);
    let (status, text) = ask(&plain).await;
    assert_eq!(status, 429);
    assert!(
        text.contains("the budget of key plain (0.41 US dollars)"),
        "{text}"
    );

    // By its own word, and by its team's.
    let own = json!({ "name": "own", "team": "t", "budget": { "usd": "9", "per": "day" } });
    let own = made(&gateway, &own).await;
    let later = json!({ "name": "later", "budget": { "usd": "9", "per": "day" } });
    let later = made(&gateway, &later).await;
    assert_eq!(ask(&own).await.0, 200);
    for key in [&own, &later] {
        let (status, text) = ask(key).await;
        assert_eq!(status, 429);
        assert!(text.contains("the budget of team t"), "{text}");
    }
    let busy = json!({ "name": "busy", "limits": { "rpm": 1 }, "models": ["fast"], "budget": { "usd": "9", "per": "day" } });
    let busy = made(&gateway, &busy).await;
    let other = post(gateway.address, "/chat/completions", &busy, chat("p/m")).await;
    assert_eq!(other.code(), "model_not_allowed");
    assert_eq!(ask(&busy).await.0, 200);
    assert!(
        ask(&busy)
            .await
            .1
            .contains("key busy is at its limit of 1 requests a minute")
    );
    let own = json!({ "images": 2 });
    let paints = json!({ "name": "paints", "limits": { "per_minute": own }, "budget": { "usd": "9", "per": "day" } });
    let paints = made(&gateway, &paints).await;
    let listed = operate(&gateway, Method::GET, "/admin/keys", "").await;
    let listed = listed.json();
    let mut all = listed.as_array().unwrap().iter();
    let found = all.find(|it| it["name"] == "paints").unwrap();
    assert_eq!(found["limits"], json!({ "per_minute": own }));
    let told = get(gateway.address, "/usage", &paints).await;
    let limit = &told.json()["limits"][0];
    assert_eq!(limit["limit"], "per_minute.images", "{limit}");
    assert_eq!((&limit["most"], &limit["left"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn a_reload_changes_what_holds_of_keys_that_were_made() {
    let provider = answering().await;
    let with = |rpm: u32| {
        guarded(
            &provider,
            &format!("[defaults]\nlimits = {{ rpm = {rpm} }}\n"),
        )
    };
    let gateway = Gateway::start(&with(2)).await;
    let bob = made(&gateway, &json!({ "name": "bob" })).await;
    assert_eq!(status(&gateway, &bob).await, 200);
    assert_eq!(status(&gateway, &bob).await, 200);
    assert_eq!(status(&gateway, &bob).await, 429);
    gateway.apply(&with(3)).unwrap();
    assert_eq!(status(&gateway, &bob).await, 200);
    assert_eq!(
        status(&gateway, &bob).await,
        429,
        "a changed limit does not refill"
    );
}

#[tokio::test]
async fn a_gateway_without_a_file_makes_keys_for_as_long_as_it_lives() {
    let provider = answering().await;
    let text = guarded(&provider, "[ledger]\nstore = \"memory:\"\n");
    let gateway = Gateway::start(&text).await;
    let bob = made(&gateway, &json!({ "name": "bob" })).await;
    assert_eq!(status(&gateway, &bob).await, 200);
    assert_eq!(status(&gateway, "").await, 401);
    revoked(&gateway, "bob").await;
    assert_eq!(status(&gateway, &bob).await, 401);
}

/// A folder with a configuration, and the text that a gateway in it is started with.
fn folder(provider: &Provider) -> (tempfile::TempDir, String) {
    let text = [of("p", provider, ""), fast(PRICE), "[teams.t]\n".into()].concat();
    let folder = tempfile::tempdir().unwrap();
    let quiet = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("gateway.toml"), format!("{quiet}{text}")).unwrap();
    (folder, text)
}

/// Runs `tollgate keys` in a folder: its code, what it prints, and what it says besides.
fn keys(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tollgate(folder);
    let output = command
        .env("SOME_KEY", "x")
        .arg("keys")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The key that a command prints, and nothing else.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let (code, key, said) = keys(folder, arguments);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        key.starts_with("tg_") && key.ends_with('\n') && key.len() == 52,
        "{key}"
    );
    assert!(
        said.contains("can call with this key, which is shown once"),
        "{said}"
    );
    key.trim().to_owned()
}

async fn within_a_second(gateway: &Gateway, key: &str, want: u16) {
    let since = Instant::now();
    while status(gateway, key).await != want {
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "not within a second"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn commands_make_keys_before_there_is_a_gateway_and_list_them() {
    let provider = answering().await;
    let (folder, text) = folder(&provider);
    let terms = [
        "new",
        "bob",
        "--team",
        "t",
        "--rpm",
        "100",
        "--per-minute",
        "images=10",
        "--per-minute",
        "seconds=3600",
        "--budget",
        "25/month",
        "--warn",
        "0.8",
        "--tag",
        "a",
        "--tag",
        "b",
        "--expires",
        "2099-01-01",
        "--model",
        "fast",
    ];
    let bob = printed(folder.path(), &terms);
    let (code, listed, _) = keys(folder.path(), &["list"]);
    assert_eq!(code, Some(0));
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines[0].starts_with("NAME  SOURCE  STATE"), "{listed}");
    assert!(lines[1].starts_with("bob   made    live"), "{listed}");
    for part in [
        "rpm=100 per_minute.seconds=3600 per_minute.images=10",
        "25/month",
        "a,b",
        "2099-01-01",
        "fast",
    ] {
        assert!(lines[1].contains(part), "{part} in\n{listed}");
    }
    let (_, listed, _) = keys(folder.path(), &["list", "--json"]);
    let all: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&all[0]["team"], &all[0]["budget"]["usd"]),
        (&json!("t"), &json!("25"))
    );
    assert_eq!(
        all[0]["limits"],
        json!({ "rpm": 100, "per_minute": { "seconds": 3600, "images": 10 } })
    );
    let gateway = Gateway::among(folder, &[], &text).await;
    assert_eq!(status(&gateway, &bob).await, 200);
}

#[tokio::test]
async fn a_gateway_hears_of_commands_within_a_second() {
    let provider = answering().await;
    let (folder, text) = folder(&provider);
    let gateway = Gateway::among(folder, &[], &text).await;
    let bob = printed(gateway.folder(), &["new", "bob"]);
    within_a_second(&gateway, &bob, 200).await;
    let anew = printed(gateway.folder(), &["rotate", "bob", "--grace", "0s"]);
    within_a_second(&gateway, &anew, 200).await;
    within_a_second(&gateway, &bob, 401).await;
    let (_, revoked, _) = keys(gateway.folder(), &["revoke", "bob"]);
    assert_eq!(revoked, "bob is revoked, for good\n");
    within_a_second(&gateway, &anew, 401).await;
}

#[tokio::test]
async fn commands_say_what_is_wrong() {
    let provider = answering().await;
    let (folder, _) = folder(&provider);
    printed(folder.path(), &["new", "bob"]);
    for (arguments, why) in [
        (&["new", "bob"][..], "there is a key bob already"),
        (&["new", "a b"], "a key's name is made of"),
        (&["new", "x", "--model", "fsat"], "did you mean `fast`?"),
        (
            &["new", "x", "--budget", "25"],
            "`25` is no budget; write dollars and a window, such as 25/month",
        ),
        (&["new", "x", "--rpm", "0"], "0 is no limit"),
        (&["new", "x", "--per-minute", "images=0"], "0 is no limit"),
        (
            &["new", "x", "--per-minute", "pictures=1"],
            "`pictures`, expected one of `characters`, `seconds`, `images`, `searches`",
        ),
        (&["rotate", "nobody"], "no key nobody was made"),
        (&["revoke", "nobody"], "there is no key nobody"),
    ] {
        let (code, out, said) = keys(folder.path(), arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

/// 500 requests a second, of a key of the file and of one that was made.
#[tokio::test]
async fn keys_change_under_load_and_nobody_else_is_disturbed() {
    let provider = answering().await;
    let gateway = Arc::new(Gateway::start(&guarded(&provider, &key("ann", ""))).await);
    let steady = made(&gateway, &json!({ "name": "steady" })).await;
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut load = tokio::task::JoinSet::new();
    let began = Instant::now();
    // Each of ten clients fifty times a second.
    for n in 0..10_u32 {
        let (gateway, stop, asked) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&asked));
        let key = if n % 2 == 0 {
            "sk-ann".to_owned()
        } else {
            steady.clone()
        };
        load.spawn(async move {
            let mut next = began + Duration::from_millis(2 * u64::from(n));
            while !stop.load(Ordering::SeqCst) {
                sleep_until(next).await;
                next += Duration::from_millis(20);
                let answer = ask(&gateway, &key).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for turn in 0..8 {
        let name = format!("k{turn}");
        let first = made(&gateway, &json!({ "name": name })).await;
        within_a_second(&gateway, &first, 200).await;
        let second = rotated(&gateway, &name, "0s").await;
        within_a_second(&gateway, &second, 200).await;
        within_a_second(&gateway, &first, 401).await;
        revoked(&gateway, &name).await;
        within_a_second(&gateway, &second, 401).await;
        let before = asked.load(Ordering::SeqCst);
        until("the load goes on", || {
            asked.load(Ordering::SeqCst) > before + 50
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    load.join_all().await;
    assert!(asked.load(Ordering::SeqCst) > 400);
}

#[tokio::test]
async fn a_caller_is_told_what_it_has_left() {
    let provider = answering().await;
    let noon = 1_709_208_000;
    let hands = Hands::at(noon);
    let ann = key(
        "ann",
        "team = \"t\"\nbudget = { usd = 1, per = \"day\" }\nlimits = { rpm = 5, tpm = 1000, rpd = 7, concurrency = 3 }",
    );
    let more = ann
        + &key("bob", "")
        + "[teams.t]\nbudget = { usd = 9, per = \"total\" }\nlimits = { rpd = 90 }\n[total]\nbudget = { usd = 100, per = \"month\" }\n";
    let gateway = Gateway::by(&hands, "", &guarded(&provider, &more)).await;
    let told = get(gateway.address, "/usage", "sk-ann").await;
    assert_eq!(told.status, 200);
    let before = told.json();
    assert_eq!(before["budgets"][0]["left_usd"], "1.00", "{before}");
    assert_eq!(status(&gateway, "sk-ann").await, 200);
    let midnight = noon + 86_400 - noon % 86_400;
    let told = get(gateway.address, "/v1/usage", "sk-ann").await.json();
    assert_eq!(
        told["budgets"],
        json!([
            { "scope": "key", "name": "ann", "usd": "1.00", "spent_usd": "0.037", "held_usd": "0.00", "left_usd": "0.963", "per": "day", "resets_at": midnight },
            { "scope": "team", "name": "t", "usd": "9.00", "spent_usd": "0.037", "held_usd": "0.00", "left_usd": "8.963", "per": "total", "resets_at": null },
        ])
    );
    let limits = told["limits"].as_array().unwrap();
    let of = |scope: &str, limit: &str| {
        let found = limits
            .iter()
            .find(|it| it["scope"] == scope && it["limit"] == limit);
        let found = found.unwrap_or_else(|| panic!("{scope} {limit} in {told}"));
        (
            found["most"].as_u64().unwrap(),
            found["left"].as_u64().unwrap(),
        )
    };
    assert_eq!(of("key", "rpm"), (5, 4));
    assert_eq!(of("key", "tpm"), (1_000, 990), "seven in, three out");
    assert_eq!(of("key", "rpd"), (7, 6));
    assert_eq!(of("key", "concurrency"), (3, 3));
    assert_eq!(of("team", "rpd"), (90, 89));
    assert_eq!(limits.len(), 5);
    for line in [
        "tollgate_limit_remaining{key=\"ann\",limit=\"rpm\"} 4",
        "tollgate_limit_remaining{key=\"ann\",limit=\"rpd\"} 6",
    ] {
        assert!(gateway.metrics().contains(line), "{line}");
    }
    // Nobody else's, and to ask has counted nowhere.
    let bob = get(gateway.address, "/usage", "sk-bob").await.json();
    assert_eq!((&bob["budgets"], &bob["limits"]), (&json!([]), &json!([])));
    assert_eq!(get(gateway.address, "/usage", "sk-eve").await.status, 401);
    assert_eq!(
        post(gateway.address, "/usage", "sk-ann", "{}").await.status,
        405
    );
    assert_eq!(of("key", "rpm"), (5, 4));
}
