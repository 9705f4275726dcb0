//! Another model by cause: what is too long, what is not answered, and what there is no money for.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::leave::request;
use crate::support::books::Books;
use crate::support::money::{
    COST, PRICE, Row, asks, bound, budget, column, entries, estimate, key, of, question, spent,
    strict,
};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, chat, chat_stream, completion, delta, model, post,
    provider_at, until,
};

const OVERFLOW: &str = r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
const FILTER: &str = r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400}}"#;

async fn overflows() -> Provider {
    Provider::new([Act::status(400, OVERFLOW)]).await
}

async fn answers() -> Provider {
    Provider::new([Act::json(completion("b"))]).await
}

/// `fast` goes to `a/x`, with these words of its own, and the other model to `b/y`.
async fn two(a: &Provider, b: &Provider, other: &str, more: &str) -> Gateway {
    let text = provider_at("a", a.address, "tries = 1")
        + &provider_at("b", b.address, "")
        + &model("fast", &["a/x"], more)
        + &model(other, &["b/y"], "");
    Gateway::start(&text).await
}

/// A chat request with so many words.
fn long(words: usize) -> String {
    chat("fast").replace("hi", &"word ".repeat(words))
}

/// Less than a dollar, of billionths.
fn usd(billionths: u64) -> String {
    format!("0.{billionths:09}")
}

#[tokio::test]
async fn what_is_too_long_goes_to_the_other_model() {
    let (a, b) = (overflows().await, answers().await);
    let gateway = two(&a, &b, "long", "on_context_overflow = \"long\"").await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, completion("b"))
    );
    assert_eq!(answer.header("x-tollgate-target"), Some("b/y"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
    assert!(b.only().text().contains(r#""model":"y""#));
    let asked =
        r#"tollgate_requests_total{api="chat_completions",key="open",model="fast",status="200"}"#;
    assert_eq!(gateway.metric(asked), 1.0, "{}", gateway.metrics());
    for model in ["fast", "long"] {
        let under_way = format!("tollgate_in_flight{{model=\"{model}\"}}");
        assert_eq!(gateway.metric(&under_way), 0.0, "{model}");
    }
}

#[tokio::test]
async fn a_stream_that_is_too_long_goes_there_too_however_it_is_said() {
    let events = [delta("b"), FINISH.into(), DONE.into()];
    let in_a_stream = "data: {\"error\":{\"code\":500,\"message\":\"Context size has been exceeded.\",\"type\":\"server_error\"}}\n\n";
    for act in [
        Act::status(400, OVERFLOW),
        Act::json(OVERFLOW),
        Act::events([in_a_stream]),
    ] {
        let a = Provider::new([act.clone()]).await;
        let b = Provider::new([Act::events(events.clone())]).await;
        let gateway = two(&a, &b, "long", "on_context_overflow = \"long\"").await;
        let answer = post(gateway.address, CHAT, "", chat_stream("fast")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, events.concat()),
            "{act:?}"
        );
        let without = two(&a, &b, "long", "").await;
        let refused = post(without.address, CHAT, "", chat_stream("fast")).await;
        assert_eq!(refused.status, 400, "{act:?}: {}", refused.text());
        assert_eq!((a.count(), b.count()), (2, 1), "{act:?}");
    }
}

#[tokio::test]
async fn a_stream_that_has_begun_with_comments_goes_there_still() {
    let slow = Act::After(
        Duration::from_millis(500),
        Box::new(Act::status(400, OVERFLOW)),
    );
    let a = Provider::new([slow]).await;
    let b = Provider::new([Act::events([delta("b"), FINISH.into(), DONE.into()])]).await;
    let text = provider_at("a", a.address, "keepalive = \"100ms\"")
        + &provider_at("b", b.address, "")
        + &model("fast", &["a/x"], "on_context_overflow = \"long\"")
        + &model("long", &["b/y"], "");
    let gateway = Gateway::start(&text).await;
    let answer = post(gateway.address, CHAT, "", chat_stream("fast")).await;
    let told = answer.text();
    assert!(told.starts_with(':'), "{told}");
    assert!(told.contains(&delta("b")) && told.ends_with(DONE), "{told}");
}

#[tokio::test]
async fn all_too_long_without_another_model_is_what_the_client_hears() {
    let (a, b) = (overflows().await, overflows().await);
    let text = provider_at("a", a.address, "")
        + &provider_at("b", b.address, "")
        + &model("fast", &["a/x", "b/y"], "");
    let gateway = Gateway::start(&text).await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (400, OVERFLOW)
    );
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[tokio::test]
async fn the_next_target_is_asked_unless_it_has_no_more_room() {
    let (a, b, c) = (overflows().await, answers().await, answers().await);
    let providers = provider_at("a", a.address, "")
        + &provider_at("b", b.address, "")
        + &provider_at("c", c.address, "");
    let targets = "{ to = \"a/x\", context = 4096 }, { to = \"b/y\", context = 4096 }, { to = \"c/z\", context = 8192 }";
    let text = format!("{providers}[models.fast]\ntargets = [{targets}]\n");
    let gateway = Gateway::start(&text).await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("c/z"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
    assert_eq!(b.count(), 0);
}

#[tokio::test]
async fn one_that_is_too_small_and_one_that_is_down_are_told_apart_from_a_fault_of_the_clients() {
    let (a, b) = (
        overflows().await,
        Provider::new([Act::status(503, "{}")]).await,
    );
    let other = answers().await;
    let text = |more: &str| {
        provider_at("a", a.address, "")
            + &provider_at("b", b.address, "tries = 1")
            + &provider_at("c", other.address, "")
            + &model("fast", &["a/x", "b/y"], more)
            + &model("long", &["c/z"], "")
    };
    let gateway = Gateway::start(&text("")).await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(answer.code(), "upstream_error");
    let told = answer.text();
    assert!(
        told.contains("a/x answered 400 Bad Request; b/y answered 503"),
        "{told}"
    );
    let gateway = Gateway::start(&text("on_context_overflow = \"long\"")).await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("c/z"));
}

#[tokio::test]
async fn what_was_flagged_goes_elsewhere_only_if_it_is_written() {
    let (next, other) = (answers().await, answers().await);
    for flagged in [
        Act::status(400, FILTER),
        Act::status(
            403,
            r#"{"error":{"message":"Input flagged","code":403,"metadata":{"reasons":["violence"],"flagged_input":"Hi"}}}"#,
        ),
    ] {
        let a = Provider::new([flagged.clone()]).await;
        let text = |more: &str| {
            provider_at("a", a.address, "")
                + &provider_at("next", next.address, "")
                + &provider_at("c", other.address, "")
                + &model("fast", &["a/x", "next/x"], more)
                + &model("other", &["c/z"], "")
        };
        let gateway = Gateway::start(&text("on_context_overflow = \"other\"")).await;
        let refused = post(gateway.address, CHAT, "", chat("fast")).await;
        let Act::Answer(status, _, body) = flagged else {
            unreachable!()
        };
        assert_eq!(
            (refused.status.as_u16(), refused.body.to_vec()),
            (status, body)
        );
        let gateway = Gateway::start(&text("on_content_filter = \"other\"")).await;
        let answer = post(gateway.address, CHAT, "", chat("fast")).await;
        assert_eq!(answer.header("x-tollgate-target"), Some("c/z"));
    }
    assert_eq!(next.count(), 0);
    assert_eq!(other.count(), 2);
}

#[tokio::test]
async fn an_answer_that_was_cut_by_a_filter_is_an_answer() {
    let cut = completion("x").replace("stop", "content_filter");
    let a = Provider::new([Act::json(cut.clone())]).await;
    let b = answers().await;
    let gateway = two(&a, &b, "other", "on_content_filter = \"other\"").await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, cut));
    assert_eq!(b.count(), 0);
}

/// `fast` goes to `p/m` and `cheap` to `q/m`, which costs a hundredth; ann may ask for `fast` only.
fn dear_and_cheap(p: &Provider, q: &Provider, more: &str, budget: &str) -> String {
    let cheap = "price = { input = 10, output = 100 }";
    let models = format!(
        "[models.fast]\ntargets = [{{ to = \"p/m\", {PRICE} }}]\n{more}\n[models.cheap]\ntargets = [{{ to = \"q/m\", {cheap} }}]\n"
    );
    let ann = key("ann", &format!("models = [\"fast\"]\n{budget}"));
    of("p", p, "") + &of("q", q, "") + &models + &ann
}

#[tokio::test]
async fn who_has_too_little_for_one_model_is_served_by_a_cheaper_one() {
    let (p, q) = (answers().await, answers().await);
    let text = dear_and_cheap(&p, &q, "on_budget = \"cheap\"", &strict("0.1"));
    let gateway = Gateway::start(&text).await;
    let answer = asks(&gateway, "ann", question(10)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-target"), Some("q/m"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    assert_eq!((p.count(), q.count()), (0, 1));
    assert_eq!(
        entries(&gateway).await,
        [Row::new("complete", COST / 100, false)]
    );
    assert_eq!(
        column(&gateway, "model").await,
        ["fast"],
        "as it was asked for"
    );
    assert_eq!(column(&gateway, "target").await, ["q/m"]);
    assert_eq!(spent(&gateway, 0, "ann").await, COST / 100);
    // Metrics tell what the entries tell.
    for (model, want) in [("fast", COST / 100), ("cheap", 0)] {
        let line =
            format!("tollgate_spend_usd_total{{key=\"ann\",model=\"{model}\",target=\"q/m\"}}");
        let told = gateway.metric(&line);
        assert!(
            (told - usd(want).parse::<f64>().unwrap()).abs() < 1e-12,
            "{model}: {told}"
        );
    }
    let of_others = "model=\"fast\",target=\"q/m\"";
    let metrics = gateway.metrics();
    let lines = metrics.lines().filter(|line| line.contains(of_others));
    assert_eq!(lines.count(), 1, "tokens go by the target's own model");
    let asked = asks(&gateway, "ann", question(10).replace("fast", "cheap")).await;
    assert_eq!(
        asked.code(),
        "model_not_allowed",
        "that is the operator's choice"
    );
}

#[tokio::test]
async fn who_has_too_little_for_the_cheaper_one_either_is_refused() {
    let (p, q) = (answers().await, answers().await);
    for (more, usd) in [("", "0.1"), ("on_budget = \"cheap\"", "0.0001")] {
        let text = dear_and_cheap(&p, &q, more, &strict(usd));
        let gateway = Gateway::start(&text).await;
        let refused = asks(&gateway, "ann", question(10)).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (429, "budget_exceeded")
        );
        assert_eq!(entries(&gateway).await, []);
    }
    assert_eq!((p.count(), q.count()), (0, 0));
}

#[tokio::test]
async fn a_providers_own_budget_is_a_cause_as_well() {
    let (p, q) = (answers().await, answers().await);
    let text = dear_and_cheap(&p, &q, "on_budget = \"cheap\"", "");
    let text = text.replace(
        "[providers.p]\n",
        &format!("[providers.p]\n{}\n", budget("0.1")),
    );
    let gateway = Gateway::start(&text).await;
    let answer = asks(&gateway, "ann", question(10)).await;
    assert_eq!(
        answer.header("x-tollgate-target"),
        Some("q/m"),
        "{}",
        answer.text()
    );
    assert_eq!(spent(&gateway, 2, "p").await, 0);
}

#[tokio::test]
async fn a_try_that_was_billed_before_is_entered_beside_the_other_models() {
    let broken = Provider::new([Act::Reset]).await;
    let (small, large) = (overflows().await, answers().await);
    let text = of("p", &broken, "")
        + &of("s", &small, "")
        + &of("q", &large, "")
        + &format!(
            "[models.fast]\ntargets = [{{ to = \"p/m\", {PRICE} }}, {{ to = \"s/m\", {PRICE} }}]\non_context_overflow = \"long\"\n[models.long]\ntargets = [{{ to = \"q/m\", {PRICE} }}]\n"
        )
        + &key(
            "ann",
            &format!("limits = {{ rpm = 5, tpm = 1000 }}\n{}", budget("10")),
        );
    let gateway = Gateway::start(&text).await;
    let answer = asks(&gateway, "ann", question(10)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-tries"), Some("3"));
    let lost = estimate(&question(10), 0);
    let cost = usd(COST + lost);
    assert_eq!(
        answer.header("x-tollgate-cost-usd"),
        Some(cost.trim_end_matches('0'))
    );
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("4"));
    let rows = Books::of(&gateway).await.rows();
    let told: Vec<(u64, &str, Option<u64>)> = rows
        .iter()
        .map(|row| (row.attempt, row.end.as_str(), row.cost))
        .collect();
    assert_eq!(
        told,
        [(1, "reset", Some(lost)), (3, "complete", Some(COST))]
    );
    assert_eq!(rows[0].request, rows[1].request);
    assert_eq!(spent(&gateway, 0, "ann").await, lost + COST);
    // It is one request, whose tokens are those of both tries: and so many are taken for the next.
    let input = question(10).len().div_ceil(4);
    let (used, probable) = (input + 7 + 3, input + 10);
    let answer = asks(&gateway, "ann", question(10)).await;
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("3"));
    let left = (1000 - used - probable).to_string();
    assert_eq!(
        answer.header("x-ratelimit-remaining-tokens"),
        Some(left.as_str())
    );
}

#[tokio::test]
async fn it_is_one_of_the_requests_of_a_day_whoever_is_asked() {
    let (a, b) = (overflows().await, answers().await);
    let text = provider_at("a", a.address, "")
        + &provider_at("b", b.address, "")
        + &model("fast", &["a/x"], "on_context_overflow = \"long\"")
        + &model("long", &["b/y"], "")
        + &key("ann", "limits = { rpd = 2 }");
    let gateway = Gateway::start(&text).await;
    for _ in 0..2 {
        let answer = asks(&gateway, "ann", chat("fast")).await;
        assert_eq!(answer.header("x-tollgate-target"), Some("b/y"));
    }
    let refused = asks(&gateway, "ann", chat("fast")).await;
    assert_eq!(refused.code(), "rate_limit_exceeded");
    assert_eq!((a.count(), b.count()), (2, 2));
}

#[tokio::test]
async fn what_certainly_does_not_fit_is_not_sent() {
    let (a, b) = (answers().await, answers().await);
    let small = "[models.fast]\ntargets = [{ to = \"a/x\", context = 1000 }]\n";
    let text = |fast: &str| {
        provider_at("a", a.address, "")
            + &provider_at("b", b.address, "")
            + fast
            + &model("long", &["b/y"], "")
            + &key("ann", &format!("models = [\"fast\"]\n{}", budget("1000")))
            + "[ledger]\nunpriced = \"free\"\n"
    };
    let gateway = Gateway::start(&text(small)).await;
    let refused = asks(&gateway, "ann", long(3_000)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (400, "context_length_exceeded")
    );
    let error = &refused.json()["error"];
    assert_eq!(error["type"], "invalid_request_error");
    assert_eq!(error["param"], "messages");
    let message = error["message"].as_str().unwrap();
    let told = "This model's maximum context length is 1000 tokens. However, your request has at least 1500 tokens.";
    assert!(message.starts_with(told), "{message}");
    assert_eq!((a.count(), entries(&gateway).await), (0, vec![]));
    // What may fit is sent: only its provider knows.
    assert_eq!(asks(&gateway, "ann", long(1_900)).await.status, 200);
    assert_eq!(a.count(), 1);

    let instead = format!("{small}on_context_overflow = \"long\"\n");
    let gateway = Gateway::start(&text(&instead)).await;
    let answer = asks(&gateway, "ann", long(3_000)).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("b/y"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    assert_eq!((a.count(), b.count()), (1, 1));

    let both = "[models.fast]\ntargets = [{ to = \"a/x\", context = 1000 }, \"b/y\"]\n";
    let gateway = Gateway::start(&text(both)).await;
    let answer = asks(&gateway, "ann", long(3_000)).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("b/y"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn each_cause_helps_once_and_others_may_follow() {
    let (a, b) = (overflows().await, overflows().await);
    let flagged = Provider::new([Act::status(400, FILTER)]).await;
    let last = answers().await;
    let text = |second: &Provider| {
        provider_at("a", a.address, "")
            + &provider_at("b", second.address, "")
            + &provider_at("c", last.address, "")
            + &model("fast", &["a/x"], "on_context_overflow = \"long\"")
            + &model(
                "long",
                &["b/y"],
                "on_context_overflow = \"last\"\non_content_filter = \"last\"",
            )
            + &model("last", &["c/z"], "")
    };
    let gateway = Gateway::start(&text(&b)).await;
    let refused = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(
        (refused.status.as_u16(), refused.text().as_str()),
        (400, OVERFLOW)
    );
    assert_eq!((a.count(), b.count(), last.count()), (1, 1, 0));
    let gateway = Gateway::start(&text(&flagged)).await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("c/z"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("3"));
}

#[tokio::test]
async fn a_model_that_cannot_be_asked_at_all_helps_nobody() {
    let a = overflows().await;
    let text = provider_at("a", a.address, "")
        + "[providers.off]\npreset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"env:NOT_SET\"\n"
        + &model("fast", &["a/x"], "on_context_overflow = \"long\"")
        + &model("long", &["off/x"], "");
    let gateway = Gateway::start(&text).await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (400, OVERFLOW)
    );
    let none = post(gateway.address, CHAT, "", chat("long")).await;
    assert_eq!(none.code(), "no_target_available");
}

#[tokio::test]
async fn the_deadline_is_that_of_the_model_that_was_asked_for() {
    let slow = Act::After(
        Duration::from_millis(200),
        Box::new(Act::status(400, OVERFLOW)),
    );
    let a = Provider::new([slow]).await;
    let b = Provider::new([Act::Hang]).await;
    let more = "deadline = \"400ms\"\non_context_overflow = \"long\"";
    let gateway = two(&a, &b, "long", more).await;
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (504, "upstream_timeout")
    );
    let told = answer.text();
    assert!(
        told.contains("the deadline clock") && told.contains("b/y"),
        "{told}"
    );
}

#[tokio::test]
async fn nobody_else_is_asked_for_a_client_that_has_left() {
    let slow = Act::After(
        Duration::from_millis(300),
        Box::new(Act::status(400, OVERFLOW)),
    );
    let (a, b) = (Provider::new([slow]).await, answers().await);
    let text = provider_at("a", a.address, "on_disconnect = \"finish:5s\"")
        + &provider_at("b", b.address, "")
        + &model("fast", &["a/x"], "on_context_overflow = \"long\"")
        + &model("long", &["b/y"], "");
    let gateway = Gateway::start(&text).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(&request(&chat("fast"))).await.unwrap();
    until("the provider has it", || a.count() == 1).await;
    drop(client);
    until("it is read on", || gateway.finishing() == 1).await;
    until("it has ended", || gateway.finishing() == 0).await;
    assert_eq!(b.count(), 0);
}

#[tokio::test]
async fn what_was_set_aside_for_one_model_is_free_for_the_other() {
    // Enough for one of them at a time, and not for both.
    let (a, b) = (overflows().await, answers().await);
    let body = question(10);
    let enough = usd(bound(&body, 10) * 3 / 2);
    let text = of("p", &a, "")
        + &of("q", &b, "")
        + &format!(
            "[models.fast]\ntargets = [{{ to = \"p/m\", {PRICE} }}]\non_context_overflow = \"long\"\n[models.long]\ntargets = [{{ to = \"q/m\", {PRICE} }}]\n"
        )
        + &key("ann", &strict(&enough));
    let gateway = Gateway::start(&text).await;
    let answer = asks(&gateway, "ann", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(spent(&gateway, 0, "ann").await, COST);
}

#[tokio::test]
async fn what_goes_on_because_it_is_too_long_is_no_retry() {
    let (a, b) = (overflows().await, answers().await);
    let text = provider_at("a", a.address, "")
        + &provider_at("b", b.address, "")
        + &model("fast", &["a/x", "b/y"], "");
    let gateway = Gateway::start(&text).await;
    // More often than an allowance for retries would last.
    for n in 0..150 {
        let answer = post(gateway.address, CHAT, "", chat("fast")).await;
        assert_eq!(answer.header("x-tollgate-target"), Some("b/y"), "{n}");
    }
    let up = r#"tollgate_target_up{target="a/x"}"#;
    assert_eq!(gateway.metric(up), 1.0, "nor does it rest");
}
