//! What would become of a request is told as it then happens, and leaves no trace.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::{Served, folder_with, run};
use crate::support::client::{get, post};
use crate::support::money::{PRICE, asks, budget, fast, key, of, strict};
use crate::support::{Act, CHAT, Gateway, Provider, chat, completion, model, provider_at};

/// A secret of a provider's that nobody may see.
const SECRET: &str = "sk-upstream-secret";

async fn explains(gateway: &Gateway, question: Value) -> Value {
    let answer = post(gateway.admin, "/admin/explain", "", question.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn targets(told: &Value) -> Vec<(String, String)> {
    let targets = told["models"][0]["targets"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pair = |it: &Value| {
        let verdict = match it["why"].as_str() {
            Some(why) => format!("{}: {why}", text(&it["verdict"])),
            None => text(&it["verdict"]),
        };
        (text(&it["target"]), verdict)
    };
    targets.iter().map(pair).collect()
}

async fn says(text: &str) -> Provider {
    Provider::new([Act::json(completion(text))]).await
}

#[tokio::test]
async fn what_is_billed_beside_tokens_has_no_bound_in_dollars() {
    let provider = says("x").await;
    let text = provider_at("p", provider.address, "prices = \"groq\"")
        + &model("fast", &["p/openai/gpt-oss-20b"], "");
    let gateway = Gateway::start(&text).await;
    let plain = json!({ "messages": [], "max_tokens": 9 });
    let searches = json!({ "messages": [], "max_tokens": 9, "web_search_options": {} });
    for (body, has_bound) in [(plain, true), (searches, false)] {
        let told = explains(&gateway, json!({ "model": "fast", "body": body })).await;
        let target = &told["models"][0]["targets"][0];
        assert_eq!(target["most"]["output"], 9, "{told:#}");
        assert_eq!(target["bound_usd"].is_string(), has_bound, "{target:#}");
    }
}

#[tokio::test]
async fn to_explain_leaves_no_trace() {
    let provider = says("x").await;
    let limits = "limits = { rpm = 2, tpm = 30000, rpd = 2, concurrency = 1 }";
    let ann = key("ann", &format!("{limits}\n{}", budget("1000")));
    let terms = format!("{PRICE}, limits = {{ rpm = 2, rpd = 2, concurrency = 1 }}");
    let text = [of("p", &provider, ""), fast(&terms), ann].concat();
    let gateway = Gateway::start(&text).await;
    for _ in 0..9 {
        let told = explains(&gateway, json!({ "model": "fast", "key": "ann" })).await;
        assert_eq!(told.get("rejected"), None, "{told:#}");
        assert_eq!(told["limits"][0]["left"], 2, "{told:#}");
        assert_eq!(told["budgets"][0]["left_usd"], "1000.00");
        assert_eq!(told["budgets"][0]["held_usd"], "0.00");
        let target = &told["models"][0]["targets"][0];
        let left = json!({ "rpm": 2, "concurrency": 1 });
        assert_eq!(target["limits_left"], left, "{told:#}");
        assert_eq!(target["busy"], 0);
    }
    assert_eq!(provider.count(), 0);
    let metrics = gateway.metrics();
    for line in metrics.lines() {
        let counts = [
            "tollgate_requests_total",
            "tollgate_tries_total",
            "tollgate_tokens_total",
        ];
        let is_counted = counts.iter().any(|name| line.starts_with(name));
        assert!(!is_counted || line.ends_with(" 0"), "{line}");
    }
    for _ in 0..2 {
        assert_eq!(asks(&gateway, "ann", chat("fast")).await.status, 200);
    }
    let told = explains(&gateway, json!({ "model": "fast", "key": "ann" })).await;
    assert_eq!(told["rejected"]["code"], "rate_limit_exceeded", "{told:#}");
    assert_eq!(asks(&gateway, "ann", chat("fast")).await.status, 429);
}

/// Five targets, of which each but two has a reason not to be asked.
fn five(down: &Provider, works: &Provider) -> String {
    [
        of("down", down, "cooldown = \"60s\""),
        of("p", works, ""),
        "[models.fast]\ntargets = [\n".to_owned(),
        format!("  {{ to = \"down/m\", {PRICE} }},\n"),
        format!("  {{ to = \"p/busy\", {PRICE}, limits = {{ rpm = 1 }} }},\n"),
        "  \"p/unpriced\",\n".to_owned(),
        format!("  {{ to = \"p/good\", {PRICE}, max_output = 100 }},\n"),
        format!("  {{ to = \"p/other\", {PRICE}, tier = 1 }},\n]\n"),
        model("down", &["down/m"], ""),
        model("busy", &["p/busy"], ""),
        key("ann", &budget("1000")),
        key("bob", ""),
    ]
    .concat()
}

#[tokio::test]
async fn each_target_is_told_with_its_reason_and_the_hold_with_its_parts() {
    let works = says("x").await;
    let down = Provider::new([Act::status(500, "{}")]).await;
    let gateway = Gateway::start(&five(&down, &works)).await;
    for _ in 0..5 {
        assert_eq!(asks(&gateway, "bob", chat("down")).await.status, 502);
    }
    assert_eq!(asks(&gateway, "bob", chat("busy")).await.status, 200);
    let told = explains(&gateway, json!({ "model": "fast", "key": "ann" })).await;
    let all = targets(&told);
    let want = [
        (
            "p/busy",
            "would be passed over: was not asked: it is at its limit of 1 requests a minute (rpm)",
        ),
        (
            "p/unpriced",
            "would be passed over: was not asked: it has no price",
        ),
        ("p/good", "would be asked"),
        ("p/other", "would be asked if those before it failed"),
        ("down/m", "would be passed over: it failed again and again"),
    ];
    assert_eq!(all.len(), want.len(), "{told:#}");
    for ((target, verdict), (to, begins)) in all.iter().zip(want) {
        assert_eq!(target, to, "{told:#}");
        assert!(verdict.starts_with(begins), "{verdict}");
    }
    let good = &told["models"][0]["targets"][2];
    assert_eq!(good["most"]["output"], 100);
    let input = good["most"]["input"].as_u64().unwrap();
    let bound = input * 1_000_000 + 100 * 10_000_000;
    let told_usd: f64 = good["bound_usd"].as_str().unwrap().parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a few dollars")]
    let want = bound as f64 / 1e9;
    assert!((told_usd - want).abs() < 1e-9, "{told_usd} of {want}");
    // The dearest decides what is held.
    assert_eq!(
        told["models"][0]["held_usd"],
        told["models"][0]["targets"][0]["bound_usd"]
    );
    assert_eq!(good["clocks_ms"]["first_byte"], 60_000);
    assert!(
        told["models"][0]["targets"][4]["rests_ms"]
            .as_u64()
            .unwrap()
            > 30_000
    );
    assert_eq!(told["deadline_ms"], 300_000);
    let request = &good["request"];
    assert_eq!(request["headers"]["authorization"], "***");
    let changes = request["changes"].to_string();
    assert!(
        changes.contains(r#"{"op":"replace","path":"/model","value":"good"}"#),
        "{changes}"
    );
    assert!(
        changes.contains(r#"{"op":"add","path":"/max_completion_tokens","value":100}"#)
            || changes.contains("max_tokens"),
        "{changes}"
    );
}

#[tokio::test]
async fn what_is_parked_is_not_waited_for_to_be_explained() {
    let limited = Act::status(429, "{}").with("retry-after", "8");
    let provider = Provider::new([limited]).await;
    let text = [of("p", &provider, ""), fast(PRICE), key("ann", "")].concat();
    let gateway = Gateway::start(&text).await;
    assert_eq!(asks(&gateway, "ann", chat("fast")).await.status, 429);
    let began = std::time::Instant::now();
    let told = explains(&gateway, json!({ "model": "fast", "key": "ann" })).await;
    assert!(began.elapsed().as_secs() < 3, "at once");
    assert_eq!(told["rejected"]["code"], "rate_limit_exceeded", "{told:#}");
    let all = targets(&told);
    assert_eq!(all[0].1, "would be passed over: it is at its limit");
}

#[tokio::test]
async fn whoever_would_be_turned_away_is_told_so_as_a_client_hears_it() {
    let provider = says("x").await;
    let more = key("ann", "models = [\"fast\"]")
        + &key("poor", &strict("\"1e-9\""))
        + &key("late", "expires = \"2020-01-01\"");
    let text = [of("p", &provider, ""), fast(PRICE), more].concat();
    let gateway = Gateway::start(&text).await;
    for (question, status, code, message) in [
        (
            json!({"model": "slow", "key": "ann"}),
            404,
            "model_not_found",
            "there is no model `slow`",
        ),
        (
            json!({"model": "p/m", "key": "ann"}),
            403,
            "model_not_allowed",
            "this key may not use",
        ),
        (
            json!({"model": "fast", "key": "poor"}),
            429,
            "budget_exceeded",
            "key poor",
        ),
        (
            json!({"model": "fast", "key": "eve"}),
            401,
            "invalid_api_key",
            "there is no key `eve`",
        ),
        (
            json!({"model": "fast", "key": "late"}),
            401,
            "invalid_api_key",
            "the key `late` has expired",
        ),
        (
            json!({"model": "fast"}),
            401,
            "invalid_api_key",
            "callers without a key are not let in",
        ),
        (
            json!({"key": "ann", "body": {"messages": []}}),
            400,
            "invalid_request",
            "`model` must be given",
        ),
    ] {
        let told = explains(&gateway, question.clone()).await;
        let rejected = &told["rejected"];
        assert_eq!(rejected["status"], status, "{question}: {told:#}");
        assert_eq!(rejected["code"], code, "{question}");
        let said = rejected["message"].as_str().unwrap();
        assert!(said.contains(message), "{question}: {said}");
    }
}

#[tokio::test]
async fn what_a_request_would_be_refused_for_by_its_head_or_length_is_told_as_well() {
    let provider = says("x").await;
    let text = [of("p", &provider, ""), fast(PRICE), key("ann", "")].concat();
    let gateway = Gateway::with("max_body = \"1KiB\"", &text).await;
    let long = chat("fast").replace("hi", &"hi ".repeat(500));
    for (headers, body, status, message) in [
        (
            r#"{"content-encoding": "gzip"}"#,
            chat("fast"),
            400,
            "content-encoding",
        ),
        (
            r#"{"content-type": "text/plain"}"#,
            chat("fast"),
            415,
            "must be JSON",
        ),
        (
            r#"{"x-tollgate-timeout": "soon"}"#,
            chat("fast"),
            400,
            "x-tollgate-timeout",
        ),
        ("{}", long, 413, "1024 bytes"),
    ] {
        let question = format!(r#"{{"key":"ann","headers":{headers},"body":{body}}}"#);
        let told = post(gateway.admin, "/admin/explain", "", question)
            .await
            .json();
        let said = told["rejected"]["message"].as_str().unwrap_or_default();
        assert_eq!(told["rejected"]["status"], status, "{told:#}");
        assert!(said.contains(message), "{said}");
    }
}

#[tokio::test]
async fn a_question_that_is_none_is_answered_with_what_is_wrong() {
    let provider = says("x").await;
    let gateway = Gateway::start(&[of("p", &provider, ""), fast(PRICE)].concat()).await;
    for (question, why) in [
        ("{}", "name a `model`"),
        (r#"{"modle": "x"}"#, "unknown field `modle`"),
        (
            r#"{"model": "x", "endpoint": "/v1/models"}"#,
            "no model is asked at",
        ),
        (
            r#"{"model": "x", "endpoint": "/v1/responses/resp_1/cancel"}"#,
            "no model is asked at",
        ),
        (
            r#"{"model": "x", "headers": {"a b": "c"}}"#,
            "`a b` is no name",
        ),
        (r#"{"model": "x", "body": [1]}"#, "`body`"),
    ] {
        let answer = post(gateway.admin, "/admin/explain", "", question).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (400, "invalid_request")
        );
        assert!(answer.text().contains(why), "{question}: {}", answer.text());
    }
    let answer = get(gateway.admin, "/admin/explain", "").await;
    assert_eq!(answer.status, 405);
}

/// A small random generator: the same cases each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % most
    }
}

#[tokio::test]
async fn what_is_explained_and_what_happens_do_not_disagree() {
    let works = says("x").await;
    let fails = Provider::new([Act::status(500, "{}")]).await;
    let mut dice = Dice(7);
    for round in 0..40 {
        let strategy = ["order", "cost", "sticky"][usize::try_from(dice.below(3)).unwrap()];
        let mut text = of("works", &works, "") + &of("fails", &fails, "cooldown = \"60s\"");
        let _ = write!(text, "[models.m]\nstrategy = \"{strategy}\"\ntargets = [\n");
        let count = 1 + dice.below(6);
        for n in 0..count {
            let provider = if dice.below(3) == 0 { "fails" } else { "works" };
            let price = match dice.below(4) {
                0 => String::new(),
                it => format!(
                    ", price = {{ input = {it}, output = {} }}",
                    1 + dice.below(5)
                ),
            };
            let limits = match dice.below(3) {
                0 => ", limits = { rpm = 2 }",
                _ => "",
            };
            let tier = dice.below(2);
            let _ = writeln!(
                text,
                "  {{ to = \"{provider}/{n}\", tier = {tier}{price}{limits} }},"
            );
        }
        text += "]\n";
        text += &key(
            "ann",
            if dice.below(2) == 0 {
                "budget = { usd = 1000, per = \"day\" }"
            } else {
                ""
            },
        );
        let gateway = Gateway::start(&text).await;
        for _ in 0..6 {
            let question = format!(r#"{{"key":"ann","body":{}}}"#, chat("m"));
            let told = post(gateway.admin, "/admin/explain", "", question)
                .await
                .json();
            let answer = asks(&gateway, "ann", chat("m")).await;
            let wanted = answer.header("x-tollgate-target");
            if told.get("rejected").is_some() {
                assert_eq!(
                    told["rejected"]["status"],
                    answer.status.as_u16(),
                    "{round}\n{text}\n{told:#}"
                );
                assert_eq!(told["rejected"]["code"], answer.code());
                continue;
            }
            // Those that fail are asked, too: the first that works answers.
            let asked = targets(&told);
            let asked = asked
                .iter()
                .filter(|(_, verdict)| !verdict.contains("passed over"));
            let first = asked.clone().find(|(to, _)| to.starts_with("works/"));
            assert_eq!(
                first.map(|(to, _)| &**to),
                wanted.filter(|_| answer.status == 200),
                "{round}\n{text}\n{told:#}"
            );
        }
    }
}

#[tokio::test]
async fn the_command_asks_the_gateway_that_runs_and_else_works_it_out() {
    let provider = says("x").await;
    let more = format!("headers = {{ \"x-secret\" = \"{SECRET}\" }}");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nopen = true\n[admin]\nlisten = \"unix:admin.sock\"\ntoken = \"right\"\n[ledger]\nstore = \"memory:\"\n".to_owned()
        + &provider_at("p", provider.address, &more).replace("env:SOME_KEY", SECRET)
        + "[providers.groq]\napi_key = \"env:GROQ_API_KEY\"\n"
        + &model("fast", &["p/m", "p/n", "groq/x"], "");
    let folder = folder_with(&text);
    let body = r#"{"model":"other","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    std::fs::write(folder.path().join("body.json"), body).unwrap();
    let explain = |more: &[&str]| {
        let arguments = [&["explain", "--model", "fast"], more].concat();
        run(folder.path(), &arguments)
    };
    let alone = "no gateway runs here that could be asked: as if nobody had asked before";
    let (code, said, wrong) = explain(&[]);
    assert_eq!((code, &*wrong), (0, ""), "{said}");
    assert!(said.starts_with(alone), "{said}");
    assert!(
        said.ends_with("-  skipped: groq/x: GROQ_API_KEY is not set\n"),
        "{said}"
    );
    let mut served = Served::start(folder.path());
    let port = served.port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(post(address, CHAT, "", chat("fast")).await.status, 200);
    let (code, said, wrong) = explain(&["--body", "body.json", "--header", "x-a: b"]);
    assert_eq!((code, &*wrong), (0, ""), "{said}");
    for line in [
        "open asks for fast, chat_completions, as a stream",
        "fast: by order, within 300000 ms",
        "1. p/m: would be asked",
        "   0 under way, first content after",
        "2. p/n: would be asked if those before it failed",
        "   replace /model \"m\"",
        "   add /stream_options {\"include_usage\":true}",
    ] {
        assert!(
            said.lines().any(|it| it.starts_with(line)),
            "{line} in\n{said}"
        );
    }
    let (code, said, _) = explain(&["--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 0);
    assert_eq!(
        told["models"][0]["targets"][0]["request"]["headers"]["x-secret"],
        "***"
    );
    assert!(!said.contains(SECRET));
    let (_, said, _) = explain(&["--offline"]);
    assert!(said.starts_with(alone), "{said}");
    let (code, _, wrong) = run(folder.path(), &["explain", "--model", "slow"]);
    let want =
        "it would be rejected: there is no model `slow`; GET /v1/models lists those there are\n";
    assert_eq!((code, &*wrong), (1, want));
    let (code, _, wrong) = explain(&["--body", "no.json"]);
    assert_eq!(code, 1);
    assert!(wrong.contains("no.json cannot be read"), "{wrong}");
    let (code, _, wrong) = explain(&["--header", "x"]);
    assert_eq!(
        (code, &*wrong),
        (1, "`x` is no header; write \"name: value\"\n")
    );
    let (code, _, wrong) = explain(&["--endpoint", "/v1/nothing"]);
    assert_eq!(code, 1);
    assert!(
        wrong.contains("no model is asked at `/v1/nothing`"),
        "{wrong}"
    );
}
