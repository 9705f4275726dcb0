//! What goes wrong with money elsewhere, as people have told of gateways: each of it once, and that it does not here.

use http::StatusCode;
use rusqlite::Connection;
use tokio::task::JoinSet;
use tollgate::usage::Money;

use crate::support::client::{self, Coming};
use crate::support::money::{
    COST, PRICE, Row, asks, asks_at, bound, budget, column, entries, estimate, key, of, priced,
    question, spent, streamed, strict,
};
use crate::support::{
    Act, DONE, FINISH, Gateway, PATHS, Provider, USAGE, chat, completion, delta, until,
};

/// A body that each of them takes.
const ANY: &str = r#"{"model":"fast","max_tokens":10,"prompt":"h","input":"h","messages":[{"role":"user","content":"h"}]}"#;

/// So many at once, each with the status it got; those that are answered are still under way.
async fn at_once(gateway: &Gateway, name: &str, body: &str, many: usize) -> Vec<Coming> {
    let mut clients = JoinSet::new();
    for _ in 0..many {
        let (address, key, body) = (gateway.address, format!("sk-{name}"), body.to_owned());
        clients.spawn(async move { client::open(address, "/chat/completions", &key, body).await });
    }
    clients.join_all().await
}

/// Asks as ann, and is gone when the provider has its `n`th request.
async fn leaves(gateway: &Gateway, provider: &Provider, n: usize, body: String) {
    let address = gateway.address;
    let asking = async move { client::open(address, "/chat/completions", "sk-ann", body).await };
    let asking = tokio::task::spawn(asking);
    until("it was sent", || provider.count() == n).await;
    asking.abort();
    // What has come of it goes, too.
    drop(asking);
    until("its client is gone", || gateway.in_flight() == 0).await;
}

fn answered(all: &[Coming]) -> usize {
    let is_answered = |one: &&Coming| one.status == StatusCode::OK;
    all.iter().filter(is_answered).count()
}

/// Nothing is known of a key until its first request has been paid for: by then all of them may have passed.
#[tokio::test]
async fn the_first_requests_of_a_new_key_are_held_to_its_budget_together() {
    let body = streamed(&question(10));
    let two = format!("{}e-9", 2 * bound(&body, 10));
    for (usd, want) in [("1e-9", 0), (two.as_str(), 2)] {
        let usd = format!("\"{usd}\"");
        let own = key("ann", &strict(&usd));
        let team = key("ann", "team = \"t\"\non_shortfall = \"refuse\"");
        let defaults = format!("[defaults]\n{}\n", strict(&usd));
        for whose in [
            own,
            format!("{team}[teams.t]\n{}\n", budget(&usd)),
            format!("{}{defaults}", key("ann", "")),
        ] {
            let provider = Provider::new([Act::Stall(vec![delta("a")])]).await;
            let gateway = Gateway::start(&priced(&provider, &whose)).await;
            let all = at_once(&gateway, "ann", &body, 8).await;
            assert_eq!(answered(&all), want, "{whose}");
            let is_refused = |one: &&Coming| one.status == StatusCode::TOO_MANY_REQUESTS;
            assert_eq!(all.iter().filter(is_refused).count(), 8 - want, "{whose}");
            assert_eq!(provider.count(), want, "{whose}");
        }
    }
}

/// What does not fit is let through all the same, with less set aside for it.
#[tokio::test]
async fn nothing_is_let_through_that_could_cost_more_than_is_left() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let (asked, left) = (question(1_000), 1_000_000_000);
    let strictly = Gateway::start(&priced(&provider, &key("ann", &strict("1")))).await;
    assert_eq!(asks(&strictly, "ann", asked.clone()).await.status, 429);
    assert_eq!(provider.count(), 0);
    let lowered = Gateway::start(&priced(&provider, &key("ann", &budget("1")))).await;
    assert_eq!(asks(&lowered, "ann", asked.clone()).await.status, 200);
    let sent: serde_json::Value = serde_json::from_str(&provider.only().text()).unwrap();
    let limit = sent["max_tokens"].as_u64().unwrap();
    assert!(bound(&asked, limit) <= left, "{limit}");
    assert!(
        bound(&asked, limit + 1) > left,
        "and no less than fits: {limit}"
    );
}

/// Long prompts cost more by the token, and are set aside for as if they were short.
#[tokio::test]
async fn a_long_prompt_is_set_aside_for_at_the_price_of_long_prompts() {
    let provider = Provider::new([Act::Stall(vec![delta("a")])]).await;
    let tiers = "tiers = [{ above = 300, input = 2000, output = 20000 }]";
    let body = streamed(&question(10));
    assert!(
        (45..300).contains(&body.len()),
        "only its bound is that long"
    );
    let two = format!("\"{}e-9\"", 2 * 2 * bound(&body, 10));
    let text = priced(&provider, &key("ann", &strict(&two)))
        .replace("output = 10000", &format!("output = 10000, {tiers}"));
    let gateway = Gateway::start(&text).await;
    let all = at_once(&gateway, "ann", &body, 5).await;
    assert_eq!((answered(&all), provider.count()), (2, 2));
    drop(all);

    let usage = r#""usage":{"prompt_tokens":301,"completion_tokens":2,"total_tokens":303}"#;
    let long = format!(
        r#"{{"choices":[{{"index":0,"message":{{"content":"x"}},"finish_reason":"stop"}}],{usage}}}"#
    );
    let provider = Provider::new([Act::json(long)]).await;
    let text = priced(&provider, &key("ann", &budget("10")))
        .replace("output = 10000", &format!("output = 10000, {tiers}"));
    let gateway = Gateway::start(&text).await;
    assert_eq!(asks(&gateway, "ann", question(10)).await.status, 200);
    let cost = 301 * 2_000_000 + 2 * 20_000_000;
    assert_eq!(entries(&gateway).await, [Row::new("complete", cost, false)]);
}

/// What points at a picture elsewhere is a few bytes long, and costs thousands of tokens.
#[tokio::test]
async fn what_cannot_be_seen_is_set_aside_for_at_its_longest() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let body = r#"{"model":"fast","max_tokens":10,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}"#;
    for (usd, context, want) in [
        // A dollar for the whole context, and ten cents for the answer.
        ("1.1", ", context = 1000", 200),
        ("1.099", ", context = 1000", 429),
        ("1000", "", 503),
    ] {
        let text = priced(&provider, &key("ann", &strict(usd)))
            .replace(PRICE, &format!("{PRICE}{context}"));
        let gateway = Gateway::start(&text).await;
        let answer = asks(&gateway, "ann", body).await;
        assert_eq!(
            answer.status.as_u16(),
            want,
            "{usd}{context}: {}",
            answer.text()
        );
    }
    assert_eq!(provider.count(), 1);
}

/// A budget that was passed stops also what costs nothing.
#[tokio::test]
async fn what_is_free_is_answered_when_the_budget_is_spent() {
    let billed = completion("x").replace("\"usage\":{", "\"usage\":{\"cost\":2,");
    let provider = Provider::new([Act::json(billed), Act::json(completion("x"))]).await;
    let free =
        "[models.free]\ntargets = [{ to = \"p/free\", price = { input = 0, output = 0 } }]\n";
    let text = priced(&provider, &(free.to_owned() + &key("ann", &strict("1"))));
    let gateway = Gateway::start(&text).await;
    assert_eq!(asks(&gateway, "ann", question(10)).await.status, 200);
    assert_eq!(
        spent(&gateway, 0, "ann").await,
        2_000_000_000,
        "its provider sent a bill of its own"
    );
    assert_eq!(asks(&gateway, "ann", question(1)).await.status, 429);
    let free = question(10).replace("fast", "free");
    for _ in 0..3 {
        assert_eq!(asks(&gateway, "ann", free.clone()).await.status, 200);
    }
    assert_eq!(spent(&gateway, 0, "ann").await, 2_000_000_000);
}

/// Of two budgets that concern a request only one is asked.
#[tokio::test]
async fn a_key_and_its_team_must_both_have_room() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    for (own, team, total, whose) in [
        ("10", "0.1", "10", "team t"),
        ("0.1", "10", "10", "key ann"),
        ("10", "10", "0.1", "all callers"),
    ] {
        let text = key("ann", &format!("team = \"t\"\n{}", strict(own)))
            + &format!("[teams.t]\n{}\n[total]\n{}\n", budget(team), budget(total));
        let gateway = Gateway::start(&priced(&provider, &text)).await;
        let refused = asks(&gateway, "ann", question(10)).await;
        assert_eq!(refused.code(), "budget_exceeded");
        assert!(refused.text().contains(whose), "{}", refused.text());
    }
    assert_eq!(provider.count(), 0);
}

/// What was set aside for a request that came to nothing is never given back, until everybody is refused.
#[tokio::test]
async fn nothing_stays_set_aside() {
    let provider = Provider::new([
        Act::status(400, "{}"),
        Act::status(429, "{}"),
        Act::status(500, "{}"),
        Act::status(401, "{}"),
        Act::json(completion("hello")),
        Act::Hang,
        Act::Stall(vec![delta("a")]),
        Act::json(completion("hello")),
    ])
    .await;
    let body = question(10);
    // As much as one may cost, and what is spent before the last.
    let gone = estimate(&body, 0) + COST;
    let stream = streamed(&body);
    let usd = format!("\"{}e-9\"", gone + estimate(&stream, 1) + bound(&body, 10));
    let text = priced(&provider, &key("ann", &strict(&usd)));
    let gateway = Gateway::start(&text).await;
    for _ in 0..4 {
        assert_ne!(asks(&gateway, "ann", body.clone()).await.status, 200);
    }
    for wrong in [
        r#"{"model":"fast","max_tokens":0}"#,
        r#"{"model":"none"}"#,
        "{",
    ] {
        let refused = asks(&gateway, "ann", wrong).await.status;
        assert!(refused.is_client_error(), "{refused}");
    }
    assert_eq!(asks(&gateway, "ann", body.clone()).await.status, 200);
    for (n, left) in [(6, body.clone()), (7, stream)] {
        leaves(&gateway, &provider, n, left).await;
    }
    let rows = entries(&gateway).await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    let last = asks(&gateway, "ann", body).await;
    assert_eq!(last.status.as_u16(), 200, "{}", last.text());
}

/// A budget for a day, given to a key that has been used for months, is spent before its first request.
#[tokio::test]
async fn a_window_begins_with_what_was_spent_in_it() {
    let billed = completion("x").replace("\"usage\":{", "\"usage\":{\"cost\":5,");
    let provider = Provider::new([Act::json(billed), Act::json(completion("x"))]).await;
    let with = |per: &str| {
        let budget = strict("1").replace("total", per);
        priced(&provider, &key("ann", &budget))
    };
    let gateway = Gateway::start(&priced(&provider, &key("ann", ""))).await;
    assert_eq!(asks(&gateway, "ann", question(10)).await.status, 200);
    let long_ago = |folder: &std::path::Path| {
        let db = Connection::open(folder.join("tollgate.db")).unwrap();
        let changed = db.execute("UPDATE spent_base SET hour = hour - 24 * 40", ());
        assert!(changed.unwrap() > 0);
    };
    let mut gateway = gateway.restart(&with("hour"), long_ago).await;
    assert_eq!(spent(&gateway, 0, "ann").await, 5_000_000_000);
    for per in ["hour", "day", "week", "month"] {
        gateway.apply(&with(per)).unwrap();
        let answer = asks(&gateway, "ann", question(10)).await;
        assert_eq!(answer.status.as_u16(), 200, "{per}: {}", answer.text());
    }
    gateway = gateway.restart(&with("total"), |_| ()).await;
    let refused = asks(&gateway, "ann", question(10)).await;
    assert_eq!(refused.status.as_u16(), 429, "for good all of it counts");
}

/// Budgets and prices are asked for chats, and nowhere else.
#[tokio::test]
async fn every_endpoint_stands_under_the_same_budget_and_ledger() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let keys =
        key("ann", &budget("100")) + &key("bob", &strict("1e-9").replace("1e-9", "\"1e-9\""));
    let text =
        priced(&provider, &keys) + &of("q", &provider, "") + "[models.new]\ntargets = [\"q/m\"]\n";
    let gateway = Gateway::start(&text).await;
    for path in PATHS {
        for (name, body, want) in [
            ("nobody", ANY.to_owned(), 401),
            ("bob", ANY.to_owned(), 429),
            ("ann", ANY.replace("fast", "new"), 503),
            (
                "ann",
                ANY.replace("\"max_tokens\"", "\"service_tier\":\"priority\",\"x\""),
                400,
            ),
        ] {
            let refused = asks_at(&gateway, path, name, body).await;
            assert_eq!(refused.status.as_u16(), want, "{path} as {name}");
        }
    }
    assert_eq!(provider.count(), 0);
    for path in PATHS {
        assert_eq!(
            asks_at(&gateway, path, "ann", ANY).await.status,
            200,
            "{path}"
        );
    }
    assert_eq!(
        entries(&gateway).await,
        vec![Row::new("complete", COST, false); PATHS.len()]
    );
    let apis = column(&gateway, "api").await;
    let once = ["chat.completions", "completions", "embeddings"];
    let want: Vec<&str> = once.into_iter().flat_map(|api| [api; 2]).collect();
    assert_eq!(
        apis.iter()
            .map(|api| api.replace('_', "."))
            .collect::<Vec<_>>(),
        want
    );
}

/// What was spent is forgotten when the gateway starts again.
#[tokio::test]
async fn a_restart_forgets_nothing() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let body = question(10);
    // Three times what it costs, and one that fits no more.
    let usd = format!("\"{}e-9\"", 2 * COST + bound(&body, 10));
    let text = priced(&provider, &key("ann", &strict(&usd)));
    let mut gateway = Gateway::start(&text).await;
    for n in 1..=3 {
        assert_eq!(asks(&gateway, "ann", body.clone()).await.status, 200, "{n}");
        gateway = gateway.restart(&text, |_| ()).await;
        assert_eq!(spent(&gateway, 0, "ann").await, n * COST);
        assert_eq!(
            entries(&gateway).await.len() as u64,
            n,
            "and nothing is counted twice"
        );
    }
    assert_eq!(asks(&gateway, "ann", body).await.status, 429);
    assert_eq!(provider.count(), 3);
    let left = gateway.metric(r#"tollgate_budget_remaining_usd{name="ann",scope="key"}"#);
    let want = Money(bound(&question(10), 10) - COST).to_string();
    assert_eq!(left, want.parse::<f64>().unwrap());
}

/// When the store of what was spent fails, everybody is let through.
#[tokio::test]
async fn without_a_ledger_nobody_with_a_budget_is_let_through() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = Gateway::start(&priced(&provider, &key("ann", &budget("10")))).await;
    assert_eq!(asks(&gateway, "ann", question(10)).await.status, 200);
    let running = gateway.running.as_ref().unwrap();
    let inner = std::sync::Arc::clone(&running.gateway);
    let closing = tokio::task::spawn_blocking(move || inner.state.ledger.close());
    assert!(closing.await.unwrap());
    let refused = asks(&gateway, "ann", question(10)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "ledger_unavailable")
    );
    assert_eq!(provider.count(), 1);
}

/// Entries repeat what was asked and answered, until the file is full of it.
#[tokio::test]
async fn the_ledger_has_no_words_of_anybodys() {
    let provider = Provider::new([Act::json(completion("a-word-of-the-answer"))]).await;
    let text = priced(&provider, &key("ann", &budget("10")));
    let gateway = Gateway::start(&text).await;
    let body = chat("fast").replace("hi", &"a-word-of-the-question".repeat(100));
    for _ in 0..20 {
        assert_eq!(asks(&gateway, "ann", body.clone()).await.status, 200);
    }
    assert_eq!(entries(&gateway).await.len(), 20);
    for file in std::fs::read_dir(gateway.folder()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("a-word-of"));
    }
}

/// A client that asks again is billed for one of the two only, or nobody knows for which.
#[tokio::test]
async fn a_request_that_is_sent_twice_is_two_entries() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = Gateway::start(&priced(&provider, &key("ann", &budget("10")))).await;
    for _ in 0..2 {
        assert_eq!(asks(&gateway, "ann", question(10)).await.status, 200);
    }
    assert_eq!(
        entries(&gateway).await,
        vec![Row::new("complete", COST, false); 2]
    );
    let ids = column(&gateway, "request").await;
    assert_ne!(ids[0], ids[1]);
    assert_eq!(spent(&gateway, 0, "ann").await, 2 * COST);
}

/// A stream that was cut is told, counted and billed as one that came to its end.
#[tokio::test]
async fn a_stream_that_was_cut_is_complete_to_nobody() {
    let events = [
        delta("a"),
        delta("b"),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ];
    let body = streamed(&question(10));
    for n in 1..events.len() {
        let some = events[..n].to_vec();
        for act in [Act::Cut(some.clone()), Act::Stream(some.clone())] {
            let provider = Provider::new([act]).await;
            let gateway = Gateway::start(&priced(&provider, &key("ann", &budget("10")))).await;
            let told = asks(&gateway, "ann", body.clone()).await.text();
            assert!(
                !told.contains("[DONE]") && told.contains("\"error\""),
                "{n}: {told}"
            );
            let said = n.min(2) as u64;
            let want = match n {
                4 => Row::new("truncated", COST, false),
                _ => Row::new("truncated", estimate(&body, said), true),
            };
            assert_eq!(entries(&gateway).await, [want], "{n}");
            let ended = |end| {
                gateway.metric(&format!(
                    r#"tollgate_streams_total{{end="{end}",target="p/m"}}"#
                ))
            };
            assert_eq!((ended("complete"), ended("truncated")), (0.0, 1.0), "{n}");
        }
    }
}

/// Input that was read from a cache, or written to one, is counted once more as input.
#[tokio::test]
async fn cached_and_written_input_is_paid_for_once() {
    let usage = r#""usage":{"prompt_tokens":5000,"completion_tokens":100,"total_tokens":5100,"prompt_tokens_details":{"cached_tokens":1000,"cache_write_tokens":3000}}"#;
    let whole = completion("x");
    let (start, _) = whole.split_once("\"usage\"").unwrap();
    let events = [
        delta("a"),
        FINISH.into(),
        format!("data: {{\"choices\":[],{usage}}}\n\n"),
        DONE.into(),
    ];
    let provider =
        Provider::new([Act::json(format!("{start}{usage}}}")), Act::events(events)]).await;
    let price = "price = { input = 2, cached = 0.20, cache_write = 2.50, output = 8 }";
    let text = priced(&provider, &key("ann", &budget("10"))).replace(PRICE, price);
    let gateway = Gateway::start(&text).await;
    let body = question(100).replace("\"h\"", &format!("\"{}\"", "long ".repeat(1_000)));
    let whole = asks(&gateway, "ann", body.clone()).await;
    assert_eq!(whole.header("x-tollgate-cost-usd"), Some("0.0105"));
    let streamed = asks(&gateway, "ann", streamed(&body)).await;
    assert!(streamed.text().ends_with(DONE), "{}", streamed.text());
    // 1,000 × 2 + 1,000 × 0.20 + 3,000 × 2.50 + 100 × 8 millionths.
    assert_eq!(
        entries(&gateway).await,
        vec![Row::new("complete", 10_500_000, false); 2]
    );
}

/// A provider says that it wrote nothing, and is not believed.
#[tokio::test]
async fn a_zero_beside_a_count_is_a_count() {
    let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":0,"total_tokens":7}"#;
    let whole = completion("hello, is this nothing?");
    let (start, _) = whole.split_once("\"usage\"").unwrap();
    let told = format!("data: {{\"choices\":[],{usage}}}\n\n");
    let events = [delta("a"), FINISH.into(), told, DONE.into()];
    let provider = Provider::new([
        Act::json(format!("{start}{usage}}}")),
        Act::events(events.clone()),
        Act::Cut(events[..3].to_vec()),
    ])
    .await;
    let gateway = Gateway::start(&priced(&provider, &key("ann", &budget("10")))).await;
    assert_eq!(asks(&gateway, "ann", question(10)).await.status, 200);
    for _ in 0..2 {
        assert_eq!(
            asks(&gateway, "ann", streamed(&question(10))).await.status,
            200
        );
    }
    let ends = ["complete", "complete", "truncated"];
    let want = ends.map(|end| Row::new(end, 7_000_000, false));
    assert_eq!(entries(&gateway).await, want);
}

/// A provider goes on with an answer in one piece that nobody waits for any more, and nobody knows what it costs.
#[tokio::test]
async fn an_answer_in_one_piece_is_stopped_and_entered_when_its_client_leaves() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&priced(&provider, &key("ann", &budget("10")))).await;
    let body = question(10);
    leaves(&gateway, &provider, 1, body.clone()).await;
    until("the provider is stopped", || provider.left() == 1).await;
    let want = Row::new("client_gone", estimate(&body, 0), true);
    assert_eq!(entries(&gateway).await, [want]);
}

/// A provider that tells no usage gives its answers away.
#[tokio::test]
async fn an_answer_without_usage_is_estimated_and_never_above_what_was_held() {
    let without = |text: &str| {
        let whole = completion(text);
        let (start, _) = whole.split_once(",\"usage\"").unwrap();
        format!("{start}}}")
    };
    let (short, long) = (without("hello"), without(&"word ".repeat(2_000)));
    let stream = [delta("a"), delta("b"), FINISH.into(), DONE.into()];
    let provider = Provider::new([
        Act::json(short.clone()),
        Act::json(long),
        Act::events(stream),
    ])
    .await;
    let gateway = Gateway::start(&priced(&provider, &key("ann", &budget("100")))).await;
    let asked = [question(1_000), question(20), streamed(&question(20))];
    for body in &asked {
        assert_eq!(asks(&gateway, "ann", body.clone()).await.status, 200);
    }
    let rows = entries(&gateway).await;
    let want = [
        estimate(&asked[0], short.len() as u64 / 4),
        // As much as it may have said.
        estimate(&asked[1], 20),
        estimate(&asked[2], 2),
    ];
    assert_eq!(rows, want.map(|cost| Row::new("complete", cost, true)));
    let held = [
        bound(&asked[0], 1_000),
        bound(&asked[1], 20),
        bound(&asked[2], 20),
    ];
    assert!(want.iter().zip(held).all(|(cost, held)| *cost <= held));
    let total = want.iter().sum::<u64>();
    assert_eq!(spent(&gateway, 0, "ann").await, total);
}

/// What the provider has told already is replaced by a guess, once the client has left.
#[tokio::test]
async fn usage_that_was_told_counts_when_the_client_leaves_before_the_end() {
    let zero = r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":0}}"#
        .to_owned()
        + "\n\n";
    for (usage, cost) in [(USAGE.to_owned(), COST), (zero, 7_000_000)] {
        let provider = Provider::new([Act::Stall(vec![delta("a"), FINISH.into(), usage])]).await;
        let gateway = Gateway::start(&priced(&provider, &key("ann", &budget("10")))).await;
        let body = streamed(&question(10)).replace(
            "{\"stream\"",
            "{\"stream_options\":{\"include_usage\":true},\"stream\"",
        );
        let mut coming = client::open(gateway.address, "/chat/completions", "sk-ann", body).await;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("prompt_tokens") {
            seen.extend_from_slice(&coming.piece().await.unwrap().unwrap());
        }
        drop(coming);
        until("its client is gone", || gateway.in_flight() == 0).await;
        until("it is entered", || {
            gateway.metric("tollgate_ledger_queue") == 0.0
        })
        .await;
        assert_eq!(
            entries(&gateway).await,
            [Row::new("client_gone", cost, false)]
        );
    }
}

/// A guess is more than what was set aside.
#[tokio::test]
async fn an_estimate_is_never_more_than_what_was_held() {
    let provider = Provider::new([Act::Reset]).await;
    let text = priced(&provider, &key("ann", &budget("10")))
        .replace(PRICE, &format!("{PRICE}, context = 10"));
    let gateway = Gateway::start(&text).await;
    let _ = asks(&gateway, "ann", question(10)).await;
    let rows = entries(&gateway).await;
    assert!(
        rows[0].cost.unwrap() <= 10 * 1_000_000 + 10 * 10_000_000,
        "{rows:?}"
    );
    assert_eq!(rows[0].cost.unwrap(), 10 * 1_000_000, "{rows:?}");
}

/// The numbers of an embedding are counted as output.
#[tokio::test]
async fn what_has_no_output_is_not_estimated_to_have_some() {
    let vectors = format!(
        r#"{{"object":"list","data":[{{"index":0,"embedding":[{}0.1]}}]}}"#,
        "0.1,".repeat(1_000)
    );
    let provider = Provider::new([Act::json(vectors)]).await;
    let gateway = Gateway::start(&priced(
        &provider,
        &(key("ann", &budget("10")) + &key("bob", "")),
    ))
    .await;
    let body = r#"{"model":"fast","input":"h"}"#;
    for name in ["ann", "bob"] {
        assert_eq!(
            asks_at(&gateway, "/embeddings", name, body).await.status,
            200
        );
    }
    assert_eq!(
        entries(&gateway).await,
        vec![Row::new("complete", estimate(body, 0), true); 2]
    );
}
