//! Try after try, target after target: what moves on, what waits, what stops, and what the client can tell of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::errors::complaint;
use crate::support::client::{self, Answer};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, chat, chat_stream, completion, delta, model, post,
    provider_at, until,
};

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const STREAM: &str = "text/event-stream";

/// The moment an operation begins, for comparison with pauses that are much longer or much shorter.
#[expect(
    clippy::disallowed_methods,
    reason = "real sockets have no clock but the real one"
)]
fn now() -> Instant {
    Instant::now()
}

/// A provider that answers with its name, streamed or not.
async fn good(stream: bool) -> Provider {
    Provider::new([if stream {
        said()
    } else {
        Act::json(completion("b"))
    }])
    .await
}

fn said() -> Act {
    Act::events([delta("b"), FINISH.into(), DONE.into()])
}

/// `fast` goes to `a/x`, then to `b/y`.
async fn two(a: SocketAddr, more: &str, b: &Provider) -> Gateway {
    let text = provider_at("a", a, more)
        + &provider_at("b", b.address, "")
        + &model("fast", &["a/x", "b/y"], "");
    Gateway::start(&text).await
}

/// `fast` goes to `a/x` alone.
async fn alone(a: &Provider, more: &str) -> Gateway {
    Gateway::start(&(provider_at("a", a.address, more) + &model("fast", &["a/x"], ""))).await
}

async fn ask(gateway: &Gateway) -> Answer {
    post(gateway.address, CHAT, "", chat("fast")).await
}

async fn stream(gateway: &Gateway) -> Answer {
    post(gateway.address, CHAT, "", chat_stream("fast")).await
}

fn tries(gateway: &Gateway, target: &str, outcome: &str) -> f64 {
    gateway.metric(&format!(
        r#"tollgate_tries_total{{outcome="{outcome}",target="{target}"}}"#
    ))
}

/// Whatever the first does, the second answers, and it shows.
async fn second_helps(act: Act, streamed: bool, outcome: &str) {
    let a = Provider::new([act.clone()]).await;
    let b = good(streamed).await;
    // What never ends is ended by its length, which takes a busy machine a while.
    let clock = match act {
        Act::Endless(..) => "5s",
        _ => "200ms",
    };
    let more = format!(
        "tries = 1\ntimeouts = {{ first_byte = \"{clock}\", first_content = \"{clock}\" }}"
    );
    let gateway = two(a.address, &more, &b).await;
    let answer = if streamed {
        stream(&gateway).await
    } else {
        ask(&gateway).await
    };
    let want = if streamed {
        [delta("b"), FINISH.into(), DONE.into()].concat()
    } else {
        completion("b")
    };
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, want),
        "{act:?}"
    );
    assert_eq!(answer.header("x-tollgate-target"), Some("b/y"), "{act:?}");
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"), "{act:?}");
    assert_eq!((a.count(), b.count()), (1, 1), "{act:?}");
    assert_eq!(
        tries(&gateway, "a/x", outcome),
        1.0,
        "{act:?}: {}",
        gateway.metrics()
    );
    assert_eq!(tries(&gateway, "b/y", "answered"), 1.0);
}

fn answer(content_type: &str, body: &str) -> Act {
    Act::Answer(
        200,
        vec![("content-type", content_type.to_owned())],
        body.into(),
    )
}

#[tokio::test]
async fn targets_are_asked_in_the_order_they_are_written() {
    let (a, b) = (
        Provider::new([Act::json(completion("a"))]).await,
        good(false).await,
    );
    let gateway = two(a.address, "", &b).await;
    for _ in 0..3 {
        let answer = ask(&gateway).await;
        assert_eq!(answer.text(), completion("a"));
        assert_eq!(answer.header("x-tollgate-target"), Some("a/x"));
        assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    }
    assert_eq!((a.count(), b.count()), (3, 0));
}

#[tokio::test]
async fn the_first_is_asked_first_again_when_it_has_recovered() {
    let a = Provider::new([Act::status(503, "{}"), Act::json(completion("a"))]).await;
    let b = good(false).await;
    let gateway = two(a.address, "tries = 1", &b).await;
    assert_eq!(ask(&gateway).await.text(), completion("b"));
    assert_eq!(ask(&gateway).await.text(), completion("a"));
}

#[tokio::test]
async fn who_cannot_be_reached_is_not_asked_twice_while_there_is_another() {
    let b = good(false).await;
    let gateway = two(Provider::nowhere(), "tries = 5", &b).await;
    let answer = ask(&gateway).await;
    assert_eq!(answer.text(), completion("b"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
    assert_eq!(tries(&gateway, "a/x", "connect"), 1.0);
}

#[tokio::test]
async fn whatever_a_target_says_instead_of_an_answer_the_next_is_asked() {
    for (status, outcome) in [
        (500, "provider_fault"),
        (502, "provider_fault"),
        (503, "provider_fault"),
        (529, "provider_fault"),
        (408, "provider_fault"),
        (302, "provider_fault"),
        (401, "credentials"),
        (402, "credentials"),
        (403, "credentials"),
        (404, "client_fault"),
        (413, "client_fault"),
        (429, "rate_limited"),
    ] {
        second_helps(Act::status(status, "{}"), status % 2 == 0, outcome).await;
    }
}

#[tokio::test]
async fn whatever_a_target_does_instead_of_an_answer_the_next_is_asked() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{\"choices\":[]";
    for (act, outcome) in [
        (Act::Hang, "timeout"),
        (Act::Reset, "reset"),
        (Act::Raw(vec![]), "reset"),
        (Act::Raw(half.into()), "reset"),
        (Act::Hold(half.into()), "timeout"),
        (Act::Raw(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()), "reset"),
        (
            Act::Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}".to_vec()),
            "reset",
        ),
        (
            answer("text/html", "<html><body>Welcome!</body></html>"),
            "nonsense",
        ),
        (answer("application/json", ""), "nonsense"),
        (
            answer("application/json", r#"{"id":"c","choices":[{"index":0,"#),
            "nonsense",
        ),
        (answer("application/json", "null"), "nonsense"),
        (answer("application/json", &" ".repeat(1 << 20)), "nonsense"),
        (answer(STREAM, &delta("x")), "nonsense"),
        (
            answer("application/json", &completion("x")).with("content-encoding", "gzip"),
            "nonsense",
        ),
    ] {
        second_helps(act, false, outcome).await;
    }
}

#[tokio::test]
async fn whatever_a_target_does_instead_of_a_stream_the_next_is_asked() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    for (act, outcome) in [
        (Act::Hang, "timeout"),
        (Act::Reset, "reset"),
        (Act::Cut(vec![]), "reset"),
        (Act::Cut(vec![ROLE.into()]), "reset"),
        (Act::Stall(vec![]), "timeout"),
        (
            Act::Stall(vec![ROLE.into(), ": ping\n\n".into()]),
            "timeout",
        ),
        (Act::Stream(vec![]), "nonsense"),
        (Act::Stream(vec![ROLE.into()]), "nonsense"),
        (
            Act::Stream(vec![": ping\n\n".into(), "\n\n".into()]),
            "nonsense",
        ),
        (
            Act::Stream(vec![
                "data: {\"error\":{\"message\":\"overloaded\"}}\n\n".into(),
            ]),
            "provider_fault",
        ),
        (
            Act::Stream(vec!["event: error\ndata: {}\n\n".into()]),
            "provider_fault",
        ),
        (
            Act::Stream(vec![
                ROLE.into(),
                "data: {\"error\":{\"code\":500}}\n\n".into(),
                DONE.into(),
            ]),
            "provider_fault",
        ),
        (Act::Stream(vec!["data: not json\n\n".into()]), "nonsense"),
        (
            answer("text/html", "<html><body>Welcome!</body></html>"),
            "nonsense",
        ),
        (answer("application/json", &completion("x")), "nonsense"),
        (answer(STREAM, &completion("x")), "nonsense"),
        (
            answer(STREAM, &delta("x")).with("content-encoding", "br"),
            "nonsense",
        ),
        (Act::Endless(head.into(), vec![b'x'; 9000]), "nonsense"),
        (
            Act::Endless(head.into(), b": ping\n\n".repeat(1000)),
            "nonsense",
        ),
    ] {
        second_helps(act, true, outcome).await;
    }
}

#[tokio::test]
async fn an_error_in_the_clothes_of_an_answer_is_none() {
    let error = r#"{"error":{"message":"upstream overloaded","code":502}}"#;
    second_helps(answer("application/json", error), false, "provider_fault").await;
}

#[tokio::test]
async fn a_target_is_tried_as_often_as_it_says() {
    for (setting, count) in [("tries = 1", 1), ("", 2), ("tries = 4", 4)] {
        let a = Provider::new([Act::status(503, "{}").with("retry-after-ms", "1")]).await;
        let gateway = alone(&a, setting).await;
        let answer = ask(&gateway).await;
        let message = complaint(&answer, 502, "upstream_error");
        assert_eq!(a.count(), count);
        assert_eq!(answer.header("x-tollgate-tries"), Some(&*count.to_string()));
        assert_eq!(
            message.contains(&format!("({count} tries)")),
            count > 1,
            "{message}"
        );
        assert_eq!(
            tries(&gateway, "a/x", "provider_fault"),
            f64::from(u32::try_from(count).unwrap())
        );
    }
}

#[tokio::test]
async fn a_try_that_may_help_is_made_after_a_pause_of_our_own() {
    for act in [Act::status(500, "{}"), Act::Reset, Act::Raw(vec![])] {
        let a = Provider::new([act, Act::json(completion("a"))]).await;
        let b = good(false).await;
        let gateway = two(a.address, "tries = 2", &b).await;
        let answer = ask(&gateway).await;
        assert_eq!(answer.text(), completion("a"), "the same target, once more");
        assert_eq!(answer.header("x-tollgate-target"), Some("a/x"));
        assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
        assert_eq!((a.count(), b.count()), (2, 0));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_first_content_is_tried_again() {
    let a = Provider::new([Act::Cut(vec![ROLE.into()]), said()]).await;
    let gateway = alone(&a, "").await;
    let answer = stream(&gateway).await;
    assert_eq!(
        answer.text(),
        [delta("b"), FINISH.into(), DONE.into()].concat(),
        "nothing of the first is seen"
    );
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
    assert_eq!(
        (
            tries(&gateway, "a/x", "reset"),
            tries(&gateway, "a/x", "answered")
        ),
        (1.0, 1.0)
    );
}

#[tokio::test]
async fn the_last_target_is_waited_for_as_long_as_it_asks() {
    let busy = Act::status(429, "{}")
        .with("retry-after-ms", "200")
        .with("retry-after", "60");
    let a = Provider::new([busy, Act::json(completion("a"))]).await;
    let gateway = alone(&a, "").await;
    let began = now();
    let answer = ask(&gateway).await;
    assert_eq!(answer.text(), completion("a"));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(answer.header("x-tollgate-tries"), Some("2"));
    assert_eq!(answer.header("retry-after"), None);
}

#[tokio::test]
async fn nobody_waits_for_one_target_while_there_is_another() {
    for status in [429, 503] {
        let a = Provider::new([Act::status(status, "{}").with("retry-after", "8")]).await;
        let b = good(false).await;
        let gateway = two(a.address, "tries = 3", &b).await;
        let began = now();
        let answer = ask(&gateway).await;
        assert_eq!(answer.text(), completion("b"));
        assert!(began.elapsed() < Duration::from_secs(7));
        assert_eq!((a.count(), b.count()), (1, 1));
    }
}

#[tokio::test]
async fn a_wait_that_is_too_long_for_us_is_left_to_the_client() {
    let a = Provider::new([Act::status(429, "{}").with("retry-after", "11")]).await;
    let gateway = alone(&a, "tries = 3").await;
    let began = now();
    let answer = ask(&gateway).await;
    complaint(&answer, 429, "rate_limit_exceeded");
    assert!(began.elapsed() < Duration::from_secs(7));
    assert_eq!(answer.header("retry-after"), Some("11"));
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_not_asked_for_again() {
    let words =
        r#"{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}"#;
    let a = Provider::new([Act::status(429, words).with("retry-after-ms", "1")]).await;
    let gateway = alone(&a, "tries = 3").await;
    complaint(&ask(&gateway).await, 429, "rate_limit_exceeded");
    assert_eq!(a.count(), 1);

    let b = good(false).await;
    let gateway = two(a.address, "tries = 3", &b).await;
    assert_eq!(ask(&gateway).await.text(), completion("b"));
    assert_eq!(a.count(), 2);
}

#[tokio::test]
async fn a_provider_that_says_it_is_no_use_is_believed() {
    for status in [429, 500, 503] {
        let act = Act::status(status, "{}")
            .with("x-should-retry", "false")
            .with("retry-after-ms", "1");
        let a = Provider::new([act]).await;
        let gateway = alone(&a, "tries = 3").await;
        assert!(!ask(&gateway).await.status.is_success());
        assert_eq!(a.count(), 1);

        let b = good(false).await;
        let gateway = two(a.address, "tries = 3", &b).await;
        assert_eq!(
            ask(&gateway).await.text(),
            completion("b"),
            "but another may be"
        );
        assert_eq!((a.count(), b.count()), (2, 1));
    }
}

#[tokio::test]
async fn no_try_is_begun_that_the_deadline_would_end() {
    let a = Provider::new([Act::status(503, "{}").with("retry-after-ms", "700")]).await;
    let text =
        provider_at("a", a.address, "tries = 9") + &model("fast", &["a/x"], "deadline = \"1s\"");
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway).await;
    let message = complaint(&answer, 502, "upstream_error");
    assert!(
        message.contains("a/x answered 503"),
        "the cause, not the clock: {message}"
    );
    assert!((1..=2).contains(&a.count()), "{}", a.count());
}

#[tokio::test]
async fn after_the_first_content_nobody_else_is_asked() {
    for act in [
        Act::Cut(vec![delta("a")]),
        Act::Stream(vec![delta("a")]),
        Act::Cut(vec![delta("a"), "data: {\"choi".into()]),
        Act::Cut(vec![ROLE.into(), delta("a"), FINISH.into()]),
    ] {
        let (a, b) = (Provider::new([act.clone()]).await, good(true).await);
        let gateway = two(a.address, "", &b).await;
        let answer = stream(&gateway).await;
        let text = answer.text();
        assert_eq!(answer.status, 200);
        assert!(text.contains(&delta("a")), "{text}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let error: serde_json::Value =
            serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(error["error"]["code"], "upstream_error", "{act:?}");
        assert!(
            !text.contains("[DONE]") && !text.contains("choi\n"),
            "{text}"
        );
        assert_eq!(answer.header("x-tollgate-target"), Some("a/x"));
        assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
        assert_eq!((a.count(), b.count()), (1, 0));
        let line = r#"tollgate_streams_total{end="truncated",target="a/x"}"#;
        until("it is counted", || gateway.metric(line) == 1.0).await;
    }
}

#[tokio::test]
async fn an_error_of_the_providers_after_the_first_content_ends_the_stream() {
    let error = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
    let a = Provider::new([Act::Stream(vec![
        delta("a"),
        error.into(),
        delta("z"),
        DONE.into(),
    ])])
    .await;
    let b = good(true).await;
    let gateway = two(a.address, "", &b).await;
    let answer = stream(&gateway).await;
    assert_eq!(answer.text(), delta("a") + error);
    assert_eq!((a.count(), b.count()), (1, 0));
    let line = r#"tollgate_streams_total{end="error",target="a/x"}"#;
    until("it is counted", || gateway.metric(line) == 1.0).await;
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_breaks_the_connection() {
    let mut raw = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n{\"x\":\"".to_vec();
    raw.resize(800_000, b'x');
    let (a, b) = (Provider::new([Act::Raw(raw)]).await, good(false).await);
    let gateway = two(a.address, "", &b).await;
    let coming = client::open(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(coming.headers["content-length"], "900000");
    let (body, complete) = coming.rest().await;
    assert!(!complete && body.len() < 900_000, "{}", body.len());
    assert_eq!((a.count(), b.count()), (1, 0));
    until("its place is free", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn every_try_is_sent_the_same_bytes() {
    // A wait that is stated keeps the last target's pauses short; the first's would be skipped by it.
    let soon = Act::status(503, "{}").with("retry-after-ms", "1");
    let a = Provider::new([Act::status(503, "{}")]).await;
    let b = Provider::new([Act::Reset, soon, said()]).await;
    let rules = "tries = 3\nrules = { set = { user = \"us\" }, drop = [\"seed\"] }";
    let text = provider_at("a", a.address, &rules.replace('3', "2"))
        + &provider_at("b", b.address, rules)
        + &model("fast", &["a/x", "b/some/y"], "");
    let gateway = Gateway::start(&text).await;
    let long = "\u{e9}".repeat(50_000);
    let body = format!(
        r#"{{"seed":1, "model" : "fast","stream":true,"big":18446744073709551617,"messages":[{{"role":"user","content":"{long}"}}]}}"#
    );
    let answer = post(gateway.address, CHAT, "", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-tries"), Some("5"));
    let (to_a, to_b) = (a.received(), b.received());
    assert_eq!((to_a.len(), to_b.len()), (2, 3));
    for one in &to_a {
        assert!(
            one.body == to_a[0].body && one.headers == to_a[0].headers && one.line == to_a[0].line
        );
    }
    for one in &to_b {
        assert!(
            one.text() == to_a[0].text().replace("\"x\"", "\"some/y\""),
            "only the model differs"
        );
    }
    assert!(to_a[0].text().contains(r#""user":"us""#) && !to_a[0].text().contains("seed"));
}

#[tokio::test]
async fn each_try_is_counted_by_what_it_came_to() {
    let busy = Act::status(429, "{}").with("retry-after-ms", "1");
    let a = Provider::new([Act::Reset, busy, Act::json(completion("a"))]).await;
    let gateway = alone(&a, "tries = 3").await;
    let answer = ask(&gateway).await;
    assert_eq!(answer.header("x-tollgate-tries"), Some("3"));
    for (outcome, count) in [
        ("rate_limited", 1.0),
        ("reset", 1.0),
        ("answered", 1.0),
        ("timeout", 0.0),
    ] {
        assert_eq!(tries(&gateway, "a/x", outcome), count, "{outcome}");
    }
    let one =
        r#"tollgate_requests_total{api="chat_completions",key="open",model="fast",status="200"}"#;
    until("the request is counted", || gateway.metric(one) == 1.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_we_try_is_not_worked_for_any_more() {
    let a = Provider::new([Act::Hang]).await;
    let b = good(false).await;
    let gateway = two(a.address, "", &b).await;
    let address = gateway.address;
    let mut asking = JoinSet::new();
    asking.spawn(async move { post(address, CHAT, "", chat("fast")).await });
    until("it is asked", || a.count() == 1).await;
    asking.abort_all();
    until("the provider is told to stop", || a.left() == 1).await;
    until("its place is free", || gateway.in_flight() == 0).await;
    until("it is counted", || {
        tries(&gateway, "a/x", "cancelled") == 1.0
    })
    .await;
    assert_eq!(b.count(), 0);
    let line =
        r#"tollgate_requests_total{api="chat_completions",key="open",model="fast",status="499"}"#;
    assert_eq!(gateway.metric(line), 1.0);
}

#[tokio::test]
async fn who_closes_every_connection_is_not_asked_for_ever() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = accepted.clone();
    let closing = tokio::task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(stream);
        }
    });
    let text = format!(
        "[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}\"\ntries = 2\n"
    );
    let gateway = Gateway::start(&text).await;
    let answer = post(gateway.address, "/v1/chat/completions", "", chat("p/x")).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(
        accepted.load(std::sync::atomic::Ordering::SeqCst),
        2,
        "once for each try"
    );
    closing.abort();
}

#[tokio::test]
async fn what_a_failed_answer_cost_is_counted_as_well() {
    let failed = r#"{"choices":[{"index":0,"message":{"content":"half"},"finish_reason":"error","error":{"code":502,"message":"gone"}}],"usage":{"prompt_tokens":7000,"completion_tokens":3000,"total_tokens":10000}}"#;
    let provider = Provider::new([Act::json(failed), Act::json(completion("x"))]).await;
    let text = provider_at("p", provider.address, "") + &model("fast", &["p/x"], "");
    let gateway = Gateway::start(&text).await;
    assert_eq!(ask(&gateway).await.status, 200);
    let of = |kind: &str| {
        format!("tollgate_tokens_total{{kind=\"{kind}\",model=\"fast\",target=\"p/x\"}}")
    };
    until("it is counted", || gateway.metric(&of("input")) == 7007.0).await;
    assert_eq!(gateway.metric(&of("output")), 3003.0);
}
