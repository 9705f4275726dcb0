//! Every clock: which one runs out, what the client hears before and after the first content, and what is given back.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::errors::complaint;
use crate::support::client::{self, Answer, Socket};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, chat, chat_stream, completion, delta, model, post,
    provider_at, until,
};

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";

/// The moment an operation begins, for lower bounds only: how long a slow machine takes is nobody's promise.
#[expect(
    clippy::disallowed_methods,
    reason = "real sockets have no clock but the real one"
)]
fn now() -> Instant {
    Instant::now()
}

/// A gateway whose one model has one target, with these timeouts.
async fn with(act: Act, timeouts: &str) -> (Provider, Gateway) {
    let provider = Provider::new([act]).await;
    let text = provider_at(
        "p",
        provider.address,
        &format!("timeouts = {{ {timeouts} }}"),
    ) + &model("fast", &["p/x"], "");
    let gateway = Gateway::start(&text).await;
    (provider, gateway)
}

async fn ask(gateway: &Gateway, body: String) -> Answer {
    post(gateway.address, CHAT, "", body).await
}

/// The in-band error that ends a stream, and what came before it.
#[track_caller]
fn last_event(text: &str) -> (String, serde_json::Value) {
    let (before, last) = text
        .trim_end()
        .rsplit_once("\n\n")
        .unwrap_or_else(|| panic!("{text}"));
    let json = last
        .strip_prefix("data: ")
        .unwrap_or_else(|| panic!("{text}"));
    (
        before.to_owned() + "\n\n",
        serde_json::from_str(json).unwrap_or_else(|_| panic!("{text}")),
    )
}

#[tokio::test]
async fn before_the_first_content_every_clock_is_an_error_that_names_it() {
    let role = || Act::Stall(vec![ROLE.into()]);
    for (act, timeouts, clock) in [
        (Act::Hang, "first_byte = \"150ms\"", "first byte"),
        (Act::Hang, "first_content = \"150ms\"", "first content"),
        (Act::Hang, "total = \"150ms\"", "total"),
        (role(), "first_content = \"150ms\"", "first content"),
        (role(), "idle = \"150ms\"", "idle"),
        (role(), "total = \"150ms\"", "total"),
        (Act::Stall(vec![]), "idle = \"150ms\"", "idle"),
        (
            Act::Stall(vec![
                ": ping\n\n".into(),
                "data: {\"choices\":[]}\n\n".into(),
            ]),
            "first_content = \"150ms\"",
            "first content",
        ),
    ] {
        let (provider, gateway) = with(act.clone(), timeouts).await;
        let began = now();
        let answer = ask(&gateway, chat_stream("fast")).await;
        let message = complaint(&answer, 504, "upstream_timeout");
        assert!(began.elapsed() >= Duration::from_millis(150), "{clock}");
        assert!(
            message.contains(&format!("p/x the {clock} clock ran out")),
            "{act:?}: {message}"
        );
        assert_eq!(
            provider.count(),
            1,
            "what may still be paid for is not asked for again"
        );
        until("the provider is told to stop", || provider.left() == 1).await;
        assert_eq!(
            gateway.metric(r#"tollgate_tries_total{outcome="timeout",target="p/x"}"#),
            1.0
        );
        assert_eq!(gateway.in_flight(), 0);
    }
}

#[tokio::test]
async fn a_whole_answer_that_stops_half_way_is_an_error_too() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"choices\":".to_vec();
    for (timeouts, clock) in [
        ("idle = \"150ms\"", "idle"),
        ("first_content = \"150ms\"", "first content"),
        ("total = \"150ms\"", "total"),
    ] {
        let (_provider, gateway) = with(Act::Hold(half.clone()), timeouts).await;
        let message = complaint(&ask(&gateway, chat("fast")).await, 504, "upstream_timeout");
        assert!(message.contains(clock), "{message}");
    }
}

#[tokio::test]
async fn the_connect_clock_covers_the_handshake() {
    // It accepts, by its backlog, and never says a word of TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let text = provider_at("p", address, "timeouts = { connect = \"200ms\" }")
        .replace("http://", "https://")
        + &model("fast", &["p/x"], "");
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 504, "upstream_timeout");
    assert!(
        message.contains("p/x the connect clock ran out"),
        "{message}"
    );
}

#[tokio::test]
async fn the_deadline_is_over_all_tries() {
    let a = Provider::new([Act::status(503, "{}").with("retry-after-ms", "1")]).await;
    let b = Provider::new([Act::Hang]).await;
    let c = Provider::new([Act::json(completion("c"))]).await;
    let text = provider_at("a", a.address, "")
        + &provider_at("b", b.address, "")
        + &provider_at("c", c.address, "")
        + &model("fast", &["a/x", "b/y", "c/z"], "deadline = \"300ms\"");
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 504, "upstream_timeout");
    assert!(
        message.contains("the deadline clock ran out over all tries"),
        "{message}"
    );
    assert!(
        message.contains("a/x answered 503") && message.contains("b/y the deadline clock"),
        "{message}"
    );
    assert_eq!(c.count(), 0, "there was no time left");
    until("the provider is told to stop", || b.left() == 1).await;
}

#[tokio::test]
async fn the_deadline_does_not_count_once_there_is_content() {
    let pieces = [
        delta("a"),
        delta("b"),
        delta("c"),
        FINISH.into(),
        DONE.into(),
    ];
    let provider = Provider::new([Act::Slow(Duration::from_millis(300), pieces.to_vec())]).await;
    let text = provider_at(
        "p",
        provider.address,
        "timeouts = { first_content = \"1s\", first_byte = \"1s\" }",
    ) + &model("fast", &["p/x"], "deadline = \"1s\"");
    let gateway = Gateway::start(&text).await;
    let began = now();
    let answer = ask(&gateway, chat_stream("fast")).await;
    assert_eq!(answer.text(), pieces.concat());
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "longer than every clock that counts to the first content"
    );
}

#[tokio::test]
async fn after_the_first_content_silence_is_told_in_the_stream() {
    for (timeouts, clock) in [("idle = \"200ms\"", "idle"), ("total = \"400ms\"", "total")] {
        let (provider, gateway) = with(Act::Stall(vec![delta("a"), delta("b")]), timeouts).await;
        let answer = ask(&gateway, chat_stream("fast")).await;
        assert_eq!(answer.status, 200);
        let (before, error) = last_event(&answer.text());
        assert_eq!(before, delta("a") + &delta("b"));
        assert_eq!(error["error"]["code"], "upstream_timeout");
        assert_eq!(error["error"]["type"], "server_error");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("the {clock} clock")), "{message}");
        assert!(
            !answer.text().contains("[DONE]") && !answer.text().contains("finish_reason\":\"stop")
        );
        until("the provider is told to stop", || provider.left() == 1).await;
        until("it is counted", || {
            gateway.metric(r#"tollgate_streams_total{end="stalled",target="p/x"}"#) == 1.0
        })
        .await;
        assert_eq!(
            gateway.metric(r#"tollgate_tries_total{outcome="answered",target="p/x"}"#),
            1.0
        );
        assert_eq!(
            gateway.metric(r#"tollgate_rejections_total{code="upstream_timeout"}"#),
            1.0
        );
        assert_eq!(gateway.in_flight(), 0);
    }
}

#[tokio::test]
async fn half_an_event_is_not_shown_when_the_rest_does_not_come() {
    let (_provider, gateway) = with(
        Act::Stall(vec![delta("a"), "data: {\"choices\":[{\"del".into()]),
        "idle = \"200ms\"",
    )
    .await;
    let answer = ask(&gateway, chat_stream("fast")).await;
    let (before, error) = last_event(&answer.text());
    assert_eq!(
        (before, &error["error"]["code"]),
        (delta("a"), &"upstream_timeout".into())
    );
}

#[tokio::test]
async fn each_piece_winds_the_idle_clock_up_again() {
    let pieces: Vec<String> = (0..8)
        .map(|n| delta(&n.to_string()))
        .chain([DONE.into()])
        .collect();
    let provider = Provider::new([Act::Slow(Duration::from_millis(150), pieces.clone())]).await;
    let text = provider_at("p", provider.address, "timeouts = { idle = \"1s\" }")
        + &model("fast", &["p/x"], "");
    let gateway = Gateway::start(&text).await;
    assert_eq!(
        ask(&gateway, chat_stream("fast")).await.text(),
        pieces.concat()
    );
}

#[tokio::test]
async fn the_total_clock_also_ends_a_stream_that_never_pauses() {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let act = Act::Endless(
        head.into(),
        chunk(&delta("again").repeat(1000)).into_bytes(),
    );
    let (provider, gateway) = with(act, "total = \"300ms\"").await;
    let mut coming = client::open(gateway.address, CHAT, "", chat_stream("fast")).await;
    let reading = async {
        let mut last = Vec::new();
        while let Some(piece) = coming.piece().await {
            last.extend_from_slice(&piece.unwrap());
            last.drain(..last.len().saturating_sub(1000));
        }
        String::from_utf8_lossy(&last).into_owned()
    };
    let end = tokio::time::timeout(Duration::from_secs(2), reading)
        .await
        .expect("it has no end");
    assert_eq!(
        last_event(&end).1["error"]["code"],
        "upstream_timeout",
        "{end}"
    );
    until("the provider is told to stop", || provider.left() == 1).await;
}

#[tokio::test]
async fn a_long_answer_that_stops_half_way_breaks_the_connection() {
    let mut start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 300000\r\n\r\n{\"x\":\"".to_vec();
    start.resize(100_000, b'x');
    let (provider, gateway) = with(Act::Hold(start), "idle = \"200ms\"").await;
    let coming = client::open(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(coming.status, 200);
    let (body, complete) = coming.rest().await;
    assert!(!complete && body.len() > 64 << 10, "{}", body.len());
    until("the provider is told to stop", || provider.left() == 1).await;
    until("its place is free", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_the_connection() {
    let gateway = Gateway::with("header_timeout = \"300ms\"", "[providers.echo]\n").await;
    let began = now();
    let mut silent = Socket::to(gateway.address).await;
    silent
        .write("POST /v1/chat/completions HTTP/1.1\r\nhost:")
        .await;
    assert_eq!(silent.rest().await, "");
    assert!(began.elapsed() >= Duration::from_millis(300));

    let mut dripping = Socket::to(gateway.address).await;
    let drip = async {
        loop {
            dripping.write("x").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(600), drip).await;
    assert_eq!(
        dripping.rest().await,
        "",
        "a byte now and then does not keep it open"
    );
}

#[tokio::test]
async fn a_second_head_that_does_not_end_closes_the_connection_too() {
    let gateway = Gateway::with("header_timeout = \"300ms\"", "[providers.echo]\n").await;
    let mut socket = Socket::to(gateway.address).await;
    socket
        .write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert_eq!(socket.answer().await.status, 200);
    socket.write("GET /health HT").await;
    assert_eq!(socket.rest().await, "");
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_after_a_while() {
    let server = "idle_timeout = \"300ms\"\nheader_timeout = \"5s\"";
    let gateway = Gateway::with(server, "[providers.echo]\n").await;
    let began = now();
    let never = Socket::to(gateway.address).await;
    let mut used = Socket::to(gateway.address).await;
    used.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(used.answer().await.status, 200);
    assert_eq!(never.rest().await, "");
    assert_eq!(used.rest().await, "");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_long_wait_for_an_answer_is_not_an_idle_connection() {
    let pieces = [delta("a"), delta("b"), DONE.into()];
    let provider = Provider::new([Act::Slow(Duration::from_millis(400), pieces.to_vec())]).await;
    let text = provider_at("p", provider.address, "") + &model("fast", &["p/x"], "");
    let server = "idle_timeout = \"100ms\"\nheader_timeout = \"100ms\"\nwrite_timeout = \"100ms\"";
    let gateway = Gateway::with(server, &text).await;
    assert_eq!(
        ask(&gateway, chat_stream("fast")).await.text(),
        pieces.concat()
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left_and_so_is_its_provider() {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let start = format!("{head}{}", chunk(&delta("first")));
    let act = Act::Endless(
        start.into(),
        chunk(&delta("again").repeat(500)).into_bytes(),
    );
    let provider = Provider::new([act]).await;
    let text = provider_at("p", provider.address, "") + &model("fast", &["p/x"], "");
    let gateway = Gateway::with("write_timeout = \"300ms\"", &text).await;
    let mut socket = Socket::to(gateway.address).await;
    let body = chat_stream("fast");
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write(request).await;
    until("the provider is told to stop", || provider.left() == 1).await;
    until("its place is free", || gateway.in_flight() == 0).await;
    let line = r#"tollgate_streams_total{end="client_gone",target="p/x"}"#;
    until("it is counted", || gateway.metric(line) == 1.0).await;
    drop(socket);
}
