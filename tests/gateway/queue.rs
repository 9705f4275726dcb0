//! Where a target has all that it can do, requests wait in a short line that is fair; and while it loads its model, one has it
//! do so.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cli::{Served, folder_with, run};
use crate::support::client::{self, Answer, post, whole};
use crate::support::money::{asks, key, of};
use crate::support::{Act, CHAT, Gateway, Provider, chat, chat_stream, completion, until};

fn after(ms: u64, text: &str) -> Act {
    Act::After(
        Duration::from_millis(ms),
        Box::new(Act::json(completion(text))),
    )
}

/// `fast` at `p/m`, of which this holds, and keys for ann and bob.
fn one(provider: &Provider, terms: &str) -> String {
    [
        of("p", provider, "cooldown = \"60s\"\nkeepalive = \"100ms\""),
        format!("[models.fast]\ntargets = [{{ to = \"p/m\", {terms} }}]\n"),
        key("ann", ""),
        key("bob", "weight = 2"),
    ]
    .concat()
}

const ONE: &str = "limits = { concurrency = 1 }";

/// So many requests of one caller at once, and how long each took.
fn crowd(gateway: &Gateway, name: &'static str, count: usize) -> JoinSet<(Answer, Duration)> {
    crowd_at(gateway.address, name, count)
}

fn crowd_at(
    address: std::net::SocketAddr,
    name: &'static str,
    count: usize,
) -> JoinSet<(Answer, Duration)> {
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..count {
        asking.spawn(async move {
            let answer = post(address, CHAT, &format!("sk-{name}"), chat("fast")).await;
            (answer, began.elapsed())
        });
    }
    asking
}

#[tokio::test]
async fn all_wait_for_one_slot_and_all_are_served() {
    let provider = Provider::new([after(30, "x")]).await;
    let terms = format!("{ONE}, queue = {{ most = 20, wait = \"20s\" }}");
    let gateway = Gateway::start(&one(&provider, &terms)).await;
    let answers = crowd(&gateway, "ann", 20).join_all().await;
    let mut times: Vec<Duration> = answers.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    for (n, took) in times.iter().enumerate() {
        let least = Duration::from_millis(30 * (n as u64 + 1));
        assert!(*took >= least, "never two at once: {times:?}");
    }
    assert!(answers.iter().all(|(answer, _)| answer.status == 200));
    assert_eq!(provider.count(), 20);
}

#[tokio::test]
async fn whoever_can_be_asked_elsewhere_does_not_wait() {
    let (slow, other) = (
        Provider::new([after(400, "a")]).await,
        Provider::new([after(0, "b")]).await,
    );
    let text =
        one(&slow, ONE).replace("}]", "}, { to = \"q/m\", tier = 1 }]") + &of("q", &other, "");
    let gateway = Gateway::start(&text).await;
    let answers = crowd(&gateway, "ann", 3).join_all().await;
    let from = |target: &str| {
        let all = answers
            .iter()
            .filter(|(it, _)| it.header("x-tollgate-target") == Some(target));
        all.count()
    };
    assert_eq!((from("p/m"), from("q/m")), (1, 2));
}

fn wait_ms(answer: &Answer) -> u64 {
    answer.header("retry-after-ms").unwrap().parse().unwrap()
}

#[tokio::test]
async fn whoever_would_wait_too_long_is_told_so_at_once_and_for_how_long() {
    let provider = Provider::new([after(200, "x")]).await;
    let terms = format!("{ONE}, queue = {{ most = 2, wait = \"20s\" }}");
    let gateway = Gateway::start(&one(&provider, &terms)).await;
    // So long a request takes.
    for _ in 0..3 {
        assert_eq!(asks(&gateway, "ann", chat("fast")).await.status, 200);
    }
    let mut waiting = crowd(&gateway, "ann", 3);
    until("one is asked", || provider.count() == 4).await;
    sleep(Duration::from_millis(30)).await;
    let began = Instant::now();
    let answer = asks(&gateway, "ann", chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (429, "rate_limit_exceeded"),
        "{}",
        answer.text()
    );
    assert!(began.elapsed() < Duration::from_millis(100), "at once");
    // Three are before it, of which one is half done.
    let told = wait_ms(&answer);
    assert!((550..1_100).contains(&told), "{told}");
    // So it is explained; and to another caller that it would be let wait, in the place of one of these.
    let explained = async |name: &str| {
        let question = json!({ "key": name, "model": "fast" }).to_string();
        let told = post(gateway.admin, "/admin/explain", "", question).await;
        told.json()
    };
    let told = explained("ann").await;
    assert_eq!(told["rejected"]["code"], "rate_limit_exceeded", "{told:#}");
    let target = &told["models"][0]["targets"][0];
    assert_eq!(target["verdict"], "would be passed over", "{told:#}");
    assert_eq!(
        (&target["slots"]["under_way"], &target["slots"]["waiting"]),
        (&1.into(), &2.into())
    );
    let told = explained("bob").await;
    assert_eq!(told.get("rejected"), None, "{told:#}");
    let verdict = &told["models"][0]["targets"][0]["verdict"];
    assert_eq!(
        verdict,
        "would be waited for, where nobody else can be asked"
    );
    for (metric, want) in [("waiting", 2.0), ("slots", 1.0)] {
        let line = format!("tollgate_target_{metric}{{target=\"p/m\"}}");
        assert_eq!(gateway.metric(&line), want, "{line}");
    }
    while let Some(done) = waiting.join_next().await {
        assert_eq!(done.unwrap().0.status, 200);
    }
    // A client that has less time than that.
    let mut waiting = crowd(&gateway, "ann", 2);
    until("one is asked", || provider.count() == 7).await;
    sleep(Duration::from_millis(30)).await;
    let headers = [
        ("authorization", "Bearer sk-bob"),
        ("x-tollgate-timeout", "150ms"),
    ];
    let began = Instant::now();
    let sent = client::send(
        gateway.address,
        http::Method::POST,
        CHAT,
        &headers,
        chat("fast"),
    )
    .await;
    let answer = whole(sent).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(began.elapsed() < Duration::from_millis(100), "at once");
    while waiting.join_next().await.is_some() {}
}

#[tokio::test]
async fn the_command_tells_how_many_are_under_way_and_wait() {
    let provider = Provider::new([after(50, "x"), after(1_500, "x"), after(0, "x")]).await;
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"unix:admin.sock\"\n[ledger]\nstore = \"memory:\"\n".to_owned()
        + &one(&provider, ONE).replace("env:SOME_KEY", "made-up");
    let folder = folder_with(&text);
    let explain = || {
        let (_, said, _) = run(
            folder.path(),
            &["explain", "--model", "fast", "--key", "bob"],
        );
        said
    };
    let known = |said: &str| {
        let line = said.lines().find(|line| line.starts_with("   "));
        line.unwrap_or(said).trim().to_owned()
    };
    let mut served = Served::start(folder.path());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], served.port()));
    assert!(known(&explain()).starts_with("0 of 1 under way"));
    let first = crowd_at(address, "ann", 1).join_all().await;
    assert_eq!(first[0].0.status, 200);
    let mut waiting = crowd_at(address, "ann", 3);
    until("one is asked", || provider.count() == 2).await;
    sleep(Duration::from_millis(100)).await;
    let said = explain();
    assert!(said.contains("would be waited for"), "{said}");
    let told = known(&said);
    let rest = told.strip_prefix("1 of 1 under way, 2 wait, one more would wait for ");
    let wait = rest.and_then(|rest| rest.split_once(" ms"));
    let wait: u64 = wait.and_then(|(wait, _)| wait.parse().ok()).expect(&told);
    // As somebody new, behind the one under way and the first of those who wait, each as long as the one before.
    assert!((100..1_000).contains(&wait), "{told}");
    while waiting.join_next().await.is_some() {}
}

#[tokio::test]
async fn to_explain_says_nothing_of_how_long_requests_take() {
    let provider = Provider::new([after(300, "x")]).await;
    let gateway = Gateway::start(&one(&provider, ONE)).await;
    let explain = || async {
        let told = json!({ "model": "fast", "key": "ann" }).to_string();
        let told = post(gateway.admin, "/admin/explain", "", told).await.json();
        told["models"][0]["targets"][0]["slots"].clone()
    };
    assert_eq!(asks(&gateway, "ann", chat("fast")).await.status, 200);
    // What would be is found out with a slot, which is held for no time at all.
    for _ in 0..8 {
        assert_eq!(explain().await["wait_ms"], 0);
    }
    let mut asked = crowd(&gateway, "ann", 1);
    until("one is asked", || provider.count() == 2).await;
    let slots = explain().await;
    let wait = slots["wait_ms"].as_u64().unwrap();
    assert!((300..600).contains(&wait), "{slots}");
    while asked.join_next().await.is_some() {}
}

#[tokio::test]
async fn a_flood_of_one_caller_is_not_before_another() {
    let provider = Provider::new([after(40, "x")]).await;
    let terms = format!("{ONE}, queue = {{ most = 30, wait = \"20s\" }}");
    let gateway = Gateway::start(&one(&provider, &terms)).await;
    let flood = crowd(&gateway, "ann", 15);
    until("one is asked", || provider.count() == 1).await;
    sleep(Duration::from_millis(20)).await;
    let began = Instant::now();
    assert_eq!(asks(&gateway, "bob", chat("fast")).await.status, 200);
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
    let times = flood.join_all().await;
    assert!(
        times
            .iter()
            .any(|(_, took)| *took > Duration::from_millis(500))
    );
}

#[tokio::test]
async fn whoever_leaves_the_line_is_asked_for_by_nobody() {
    let provider = Provider::new([after(300, "x")]).await;
    let gateway = Gateway::start(&one(&provider, ONE)).await;
    let mut asked = crowd(&gateway, "ann", 1);
    until("one is asked", || provider.count() == 1).await;
    let mut waiting = crowd(&gateway, "bob", 3);
    sleep(Duration::from_millis(100)).await;
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    assert_eq!(asked.join_next().await.unwrap().unwrap().0.status, 200);
    let began = Instant::now();
    assert_eq!(asks(&gateway, "bob", chat("fast")).await.status, 200);
    assert!(
        began.elapsed() < Duration::from_millis(450),
        "nobody is before it"
    );
    assert_eq!(provider.count(), 2);
    until("nothing is under way", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn a_stream_that_waits_is_kept_alive() {
    let provider = Provider::new([after(500, "x"), Act::events(["data: [DONE]"])]).await;
    let gateway = Gateway::start(&one(&provider, ONE)).await;
    let mut asked = crowd(&gateway, "ann", 1);
    until("one is asked", || provider.count() == 1).await;
    let mut coming = client::open(gateway.address, CHAT, "sk-bob", chat_stream("fast")).await;
    assert_eq!(coming.status, 200);
    let first = coming.piece().await.unwrap().unwrap();
    assert!(first.starts_with(b":"), "{first:?}");
    assert_eq!(asked.join_next().await.unwrap().unwrap().0.status, 200);
}

#[tokio::test]
async fn while_a_model_loads_one_request_waits_at_it_and_the_others_for_that() {
    // Its first answer takes longer than any other may.
    let provider = Provider::new([after(700, "x"), after(10, "x")]).await;
    let text = one(&provider, "load_timeout = \"10s\"").replace(
        "cooldown",
        "timeouts = { first_byte = \"300ms\" }\ncooldown",
    );
    let gateway = Gateway::start(&text).await;
    let mut all = crowd(&gateway, "ann", 6);
    until("one is asked", || provider.count() == 1).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(provider.count(), 1, "one at a time");
    while let Some(done) = all.join_next().await {
        let (answer, took) = done.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(took > Duration::from_millis(600));
    }
    assert_eq!(provider.count(), 6);
    // What it took to load is nothing that is usual with it.
    let told = json!({ "model": "fast", "key": "ann" }).to_string();
    let told = post(gateway.admin, "/admin/explain", "", told).await.json();
    let usual = told["models"][0]["targets"][0]["latency_us"]
        .as_u64()
        .unwrap();
    assert!(usual < 300_000, "{told:#}");
}

#[tokio::test]
async fn a_server_that_says_that_it_loads_is_asked_until_it_has() {
    let loading = r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
    let provider = Provider::new([
        Act::status(503, loading),
        Act::status(503, loading),
        after(0, "x"),
    ])
    .await;
    let gateway = Gateway::start(&one(&provider, "load_timeout = \"10s\"")).await;
    let answer = asks(&gateway, "ann", chat("fast")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-tries"), Some("3"));
    // Without that it is one failure as any other.
    let provider = Provider::new([Act::status(503, loading)]).await;
    let gateway = Gateway::start(&one(&provider, "weight = 1")).await;
    assert_eq!(asks(&gateway, "ann", chat("fast")).await.status, 502);
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn how_many_it_takes_may_be_found_out() {
    let provider = Provider::new([after(20, "x")]).await;
    let terms = "adaptive = { least = 1, most = 8 }, queue = { most = 100, wait = \"20s\" }";
    let gateway = Gateway::start(&one(&provider, terms)).await;
    let answers = crowd(&gateway, "ann", 60).join_all().await;
    assert!(answers.iter().all(|(answer, _)| answer.status == 200));
    let told = json!({ "model": "fast", "key": "ann" }).to_string();
    let told = post(gateway.admin, "/admin/explain", "", told).await.json();
    let most = told["models"][0]["targets"][0]["slots"]["most"]
        .as_u64()
        .unwrap();
    assert!((1..=8).contains(&most), "{told:#}");
}

#[tokio::test]
async fn what_makes_no_sense_of_lines_is_said() {
    let provider = Provider::new([after(0, "x")]).await;
    for (terms, flaw) in [
        (
            "queue = { most = 3 }",
            "models.fast.targets[0].queue: nobody waits where any number of requests may be under way",
        ),
        (
            "limits = { concurrency = 1 }, adaptive = {}",
            "models.fast.targets[0].adaptive: there is a fixed `concurrency` in `limits` already",
        ),
        (
            "adaptive = { least = 9, most = 3 }",
            "models.fast.targets[0].adaptive: `least` is more than `most`",
        ),
        ("adaptive = { least = 0 }", "0 is not between 1 and 1000000"),
        ("load_timeout = \"soon\"", "`soon` is not a duration"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let text = one(&provider, terms);
        let loaded = crate::support::gateway::load(&folder, "listen = \"127.0.0.1:0\"", &text);
        let flaws = match loaded {
            Ok(loaded) => loaded.compile().err().map(|it| it.to_string()),
            Err(flaws) => Some(flaws.to_string()),
        };
        let flaws = flaws.unwrap_or_default();
        assert!(flaws.contains(flaw), "{terms}: {flaws}");
    }
    let flaws = Gateway::with("", "")
        .await
        .apply("[keys.ann]\nkey = \"a\"\nweight = 0\n")
        .unwrap_err();
    assert!(
        flaws
            .to_string()
            .contains("keys.ann.weight: 0 is no share; write a number from 1 to 100"),
        "{flaws}"
    );
}
