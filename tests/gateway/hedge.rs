//! Where the first target takes too long a second is asked: whoever is faster answers, and both are paid for.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::books::Books;
use crate::support::client::{self, post};
use crate::support::money::{COST, PRICE, asks, budget, key, of, question, strict};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, chat_stream, completion, delta, until,
};

/// What a try costs that was outrun: a quarter of the request's bytes, at a tenth of a cent each.
fn guessed(body: &str) -> u64 {
    body.len().div_ceil(4) as u64 * 1_000_000
}

fn after(ms: u64, act: Act) -> Act {
    Act::After(Duration::from_millis(ms), Box::new(act))
}

fn says(text: &str) -> Act {
    Act::json(completion(text))
}

/// `fast` at `a` and then `b`, with these lines of its own, and what follows.
pub fn two(a: &Provider, b: &Provider, hedge: &str, more: &str) -> String {
    [
        of("a", a, ""),
        of("b", b, ""),
        format!("[models.fast]\nhedge = {hedge}\ntargets = [{{ to = \"a/m\", {PRICE} }}, {{ to = \"b/m\", {PRICE} }}]\n"),
        more.to_owned(),
    ]
    .concat()
}

const SOON: &str = "{ after = \"100ms\", at_most = 1 }";

fn rich() -> String {
    key("ann", &budget("1000"))
}

#[tokio::test]
async fn the_second_answers_where_the_first_is_slow_and_both_are_entered() {
    let a = Provider::new([Act::Hang]).await;
    let b = Provider::new([says("b")]).await;
    let gateway = Gateway::start(&two(&a, &b, SOON, &rich())).await;
    let began = Instant::now();
    let answer = asks(&gateway, "ann", question(50)).await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("\"b\""), "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-target"), Some("b/m"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
    until("the first is stopped", || a.left() == 1).await;
    let outrun = guessed(&question(50));
    let entries: Vec<_> = Books::of(&gateway).await.rows();
    let told = entries
        .iter()
        .map(|it| (it.attempt, &*it.end, it.cost, it.estimated));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    let want = [
        (1, "outrun", Some(outrun), true),
        (2, "complete", Some(COST), false),
    ];
    assert_eq!(told, want);
    assert_eq!(entries[0].request, entries[1].request);
    let cost: f64 = answer
        .header("x-tollgate-cost-usd")
        .unwrap()
        .parse()
        .unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a few dollars")]
    let want = (outrun + COST) as f64 / 1e9;
    assert!((cost - want).abs() < 1e-9, "{cost} of {want}");
    let left = gateway.metric("tollgate_budget_remaining_usd{name=\"ann\",scope=\"key\"}");
    assert!((left - (1000.0 - want)).abs() < 1e-6, "{left}");
    // Each try is paid for where it went.
    for (target, cost) in [("a/m", outrun), ("b/m", COST)] {
        let spent =
            format!(r#"tollgate_spend_usd_total{{key="ann",model="fast",target="{target}"}}"#);
        let told = gateway.metric(&spent);
        #[expect(clippy::cast_precision_loss, reason = "a few dollars")]
        let want = cost as f64 / 1e9;
        assert!((told - want).abs() < 1e-12, "{target}: {told} of {want}");
    }
    for (outcome, target) in [("cancelled", "a/m"), ("answered", "b/m")] {
        let line = format!("tollgate_tries_total{{outcome=\"{outcome}\",target=\"{target}\"}}");
        assert_eq!(gateway.metric(&line), 1.0, "{line}");
    }
}

#[tokio::test]
async fn the_first_answers_where_it_is_faster_all_the_same() {
    let a = Provider::new([after(300, says("a"))]).await;
    let b = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&two(&a, &b, SOON, &rich())).await;
    let answer = asks(&gateway, "ann", question(50)).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("a/m"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
    until("the second is stopped", || b.left() == 1).await;
    let rows = Books::of(&gateway).await.rows();
    let mut ends: Vec<_> = rows
        .iter()
        .map(|it| (it.attempt, &*it.end, it.cost))
        .collect();
    ends.sort_unstable();
    let outrun = guessed(&question(50));
    assert_eq!(
        ends,
        [(1, "complete", Some(COST)), (2, "outrun", Some(outrun))]
    );
}

#[tokio::test]
async fn whoever_is_in_time_is_not_hedged() {
    let (a, b) = (
        Provider::new([says("a")]).await,
        Provider::new([says("b")]).await,
    );
    let gateway = Gateway::start(&two(&a, &b, SOON, &rich())).await;
    for _ in 0..5 {
        assert_eq!(asks(&gateway, "ann", question(50)).await.status, 200);
    }
    assert_eq!((a.count(), b.count()), (5, 0));
}

#[tokio::test]
async fn a_stream_comes_from_whoever_has_content_first() {
    let role = r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#;
    let a = Provider::new([Act::Stall(vec![format!("data: {role}\n\n")])]).await;
    let b = Provider::new([Act::events([&delta("b"), FINISH, DONE])]).await;
    let gateway = Gateway::start(&two(&a, &b, SOON, &rich())).await;
    let answer = asks(&gateway, "ann", chat_stream("fast")).await;
    assert!(answer.text().contains("\"b\"") && answer.text().ends_with("data: [DONE]\n\n"));
    until("the first is stopped", || a.left() == 1).await;
}

#[tokio::test]
async fn no_more_are_hedged_than_their_share() {
    let a = Provider::new([after(60, says("a"))]).await;
    let b = Provider::new([says("b")]).await;
    let hedge = "{ after = \"20ms\", at_most = 0.1 }";
    let gateway = Gateway::start(&two(&a, &b, hedge, &rich())).await;
    for _ in 0..60 {
        assert_eq!(asks(&gateway, "ann", question(50)).await.status, 200);
    }
    assert_eq!((a.count(), b.count()), (60, 6));
}

#[tokio::test]
async fn nothing_is_hedged_that_is_not_held_for() {
    let a = Provider::new([after(300, says("a"))]).await;
    let b = Provider::new([says("b")]).await;
    // One try may cost about half a dollar of this.
    let poor = key("ann", &strict("0.7"));
    let gateway = Gateway::start(&two(&a, &b, SOON, &poor)).await;
    let answer = asks(&gateway, "ann", question(10)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-target"), Some("a/m"));
    assert_eq!(
        (answer.header("x-tollgate-tries"), b.count()),
        (Some("1"), 0)
    );
}

#[tokio::test]
async fn where_both_fail_the_third_is_asked() {
    let fails = || after(300, Act::status(500, "{}"));
    let (a, b) = (
        Provider::new([fails()]).await,
        Provider::new([fails()]).await,
    );
    let c = Provider::new([says("c")]).await;
    let text =
        two(&a, &b, SOON, "").replace("}]\n", "}, \"c/m\"]\n") + &of("c", &c, "") + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let answer = asks(&gateway, "ann", question(50)).await;
    assert_eq!(
        answer.header("x-tollgate-target"),
        Some("c/m"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("x-tollgate-tries"), Some("3"));
    assert_eq!((a.count(), b.count(), c.count()), (1, 1, 1));
    let rows = Books::of(&gateway).await.rows();
    assert_eq!(
        rows.iter().map(|it| it.attempt).collect::<Vec<_>>(),
        [3],
        "only an answer is billed"
    );
}

#[tokio::test]
async fn what_failed_beside_an_answer_is_told_as_that() {
    let a = Provider::new([after(250, Act::status(500, "{}"))]).await;
    let b = Provider::new([after(300, says("b"))]).await;
    let ann = key("ann", &format!("explain = true\n{}", budget("1000")));
    let gateway = Gateway::start(&two(&a, &b, SOON, &ann)).await;
    let headers = [
        ("authorization", "Bearer sk-ann"),
        ("x-tollgate-explain", "1"),
    ];
    let sent = client::send(
        gateway.address,
        http::Method::POST,
        CHAT,
        &headers,
        question(50),
    );
    let answer = client::whole(sent.await).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("b/m"));
    let path = format!(
        "/admin/decisions/{}",
        answer.header("x-request-id").unwrap()
    );
    let told = client::get(gateway.admin, &path, "").await.json();
    let steps = told["decisions"][0]["steps"].as_array().unwrap();
    let steps: Vec<_> = steps
        .iter()
        .map(|it| (&it["target"], &it["outcome"]))
        .collect();
    let want = [("a/m", "provider_fault"), ("b/m", "answered")].map(|(a, b)| (json!(a), json!(b)));
    assert_eq!(steps, want.each_ref().map(|(a, b)| (a, b)));
    let line = "tollgate_tries_total{outcome=\"provider_fault\",target=\"a/m\"}";
    assert_eq!(gateway.metric(line), 1.0);
}

#[tokio::test]
async fn a_second_that_is_at_its_limit_is_asked_by_nobody_and_is_no_hedge() {
    let a = Provider::new([after(200, says("a"))]).await;
    let b = Provider::new([says("b")]).await;
    let limit = format!("{{ to = \"b/m\", {PRICE}, limits = {{ rpm = 1 }} }}");
    let text = two(&a, &b, SOON, &rich()).replace(&format!("{{ to = \"b/m\", {PRICE} }}"), &limit);
    let gateway = Gateway::start(&text).await;
    let answers = [
        asks(&gateway, "ann", question(50)).await,
        asks(&gateway, "ann", question(50)).await,
    ];
    let from = answers
        .each_ref()
        .map(|it| it.header("x-tollgate-target").unwrap().to_owned());
    assert_eq!(from, ["b/m", "a/m"]);
    assert_eq!(answers[1].header("x-tollgate-tries"), Some("1"));
}

#[tokio::test]
async fn a_hedged_request_counts_once_and_its_tokens_all() {
    let a = Provider::new([Act::Hang]).await;
    let b = Provider::new([says("b")]).await;
    let limits = "limits = { rpm = 5, tpm = 100000, rpd = 5, concurrency = 2 }";
    let gateway = Gateway::start(&two(&a, &b, SOON, &key("ann", limits))).await;
    assert_eq!(asks(&gateway, "ann", question(50)).await.status, 200);
    drop(Books::of(&gateway).await);
    let told = client::get(gateway.address, "/v1/usage", "sk-ann")
        .await
        .json();
    let left = |name: &str| {
        let limits = told["limits"].as_array().unwrap();
        limits.iter().find(|it| it["limit"] == name).unwrap()["left"].clone()
    };
    let outrun = question(50).len().div_ceil(4);
    assert_eq!(left("rpm"), 4);
    assert_eq!(left("rpd"), 4);
    assert_eq!(left("concurrency"), 2);
    assert_eq!(left("tpm"), 100_000 - 10 - outrun);
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_stops_both() {
    let (a, b) = (
        Provider::new([Act::Hang]).await,
        Provider::new([Act::Hang]).await,
    );
    let gateway = Gateway::start(&two(&a, &b, SOON, &rich())).await;
    let address = gateway.address;
    let asking = tokio::spawn(async move { post(address, CHAT, "sk-ann", question(50)).await });
    until("both are asked", || b.count() == 1).await;
    asking.abort();
    until("both are stopped", || (a.left(), b.left()) == (1, 1)).await;
    let rows = Books::of(&gateway).await.rows();
    let mut ends: Vec<_> = rows.iter().map(|it| (it.attempt, &*it.end)).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(1, "client_gone"), (2, "client_gone")]);
    for target in ["a/m", "b/m"] {
        let spent =
            format!(r#"tollgate_spend_usd_total{{key="ann",model="fast",target="{target}"}}"#);
        #[expect(clippy::cast_precision_loss, reason = "a few dollars")]
        let want = guessed(&question(50)) as f64 / 1e9;
        let told = gateway.metric(&spent);
        assert!((told - want).abs() < 1e-12, "{target}: {told} of {want}");
    }
}

#[tokio::test]
async fn late_may_be_later_than_most_of_its_own_answers() {
    let fast = std::iter::repeat_with(|| after(20, says("a"))).take(25);
    let a = Provider::new(fast.chain([Act::Hang])).await;
    let b = Provider::new([says("b")]).await;
    let hedge = "{ at_most = 1 }";
    let gateway = Gateway::start(&two(&a, &b, hedge, &rich())).await;
    for _ in 0..20 {
        assert_eq!(asks(&gateway, "ann", question(50)).await.status, 200);
    }
    assert_eq!(b.count(), 0, "of too few answers nothing is known");
    let told = json!({ "model": "fast", "key": "ann" }).to_string();
    let told = post(gateway.admin, "/admin/explain", "", told).await.json();
    let late = told["models"][0]["hedge"]["after_ms"].as_u64().unwrap();
    assert!((20..200).contains(&late), "{told:#}");
    let mut began = Instant::now();
    let mut answer = asks(&gateway, "ann", question(50)).await;
    for _ in 0..6 {
        if a.count() == 26 {
            break;
        }
        began = Instant::now();
        answer = asks(&gateway, "ann", question(50)).await;
    }
    assert_eq!(answer.header("x-tollgate-target"), Some("b/m"));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn what_a_hedge_cannot_be_is_said() {
    let a = Provider::new([says("a")]).await;
    for (hedge, flaw) in [
        (
            "{ after = \"p40\" }",
            "models.fast.hedge.after: `p40` says not how late is late; write a percentile such as \"p95\" (from p50 to p99.9), or a time such as \"800ms\"",
        ),
        (
            "{ after = \"p9x\" }",
            "models.fast.hedge.after: `p9x` says not how late is late",
        ),
        (
            "{ at_most = 0 }",
            "models.fast.hedge.at_most: `0` is no part of a whole; write a number such as 0.02",
        ),
        (
            "{ at_most = 2 }",
            "models.fast.hedge.at_most: `2` is no part of a whole",
        ),
        ("{ most = 1 }", "models.fast.hedge.most: `most` is unknown"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let text = two(&a, &a, hedge, "");
        let loaded = crate::support::gateway::load(&folder, "listen = \"127.0.0.1:0\"", &text);
        let flaws = match loaded {
            Ok(loaded) => loaded.compile().err().map(|it| it.to_string()),
            Err(flaws) => Some(flaws.to_string()),
        };
        let flaws = flaws.unwrap_or_default();
        assert!(flaws.contains(flaw), "{hedge}: {flaws}");
    }
}
