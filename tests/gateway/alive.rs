//! Clients that hear nothing of their stream: what they are told, what may still change by then, and what never does.

use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt;
use tokio::sync::watch;

use crate::support::client::{self, Coming, Socket, whole};
use crate::support::{
    Act, Answer, CHAT, DONE, FINISH, Gateway, Provider, USAGE, chat, chat_stream, completion,
    delta, model, provider_at, until,
};
use crate::ways;

const COMMENT: &str = ": keep-alive\n\n";

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";

/// Long enough for several comments.
const LONG: Duration = Duration::from_millis(700);

/// One target of each provider's, in order; each is asked once, and a client of theirs may hear nothing for 200 ms.
fn order(providers: &[&Provider]) -> String {
    with(providers, "keepalive = \"200ms\"")
}

/// The same, with lines of their own.
fn with(providers: &[&Provider], lines: &str) -> String {
    let names = ["a", "b"];
    let named = || names.iter().zip(providers);
    let sections = named()
        .map(|(name, it)| provider_at(name, it.address, &format!("tries = 1\n{lines}")))
        .collect::<String>();
    let targets: Vec<String> = named().map(|(name, _)| format!("{name}/m")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    sections + &model("fast", &targets, "") + "[keys.ann]\nkey = \"sk-ann\"\n"
}

async fn begin(gateway: &Gateway) -> Coming {
    client::open(gateway.address, CHAT, "sk-ann", chat_stream("fast")).await
}

async fn ask(gateway: &Gateway) -> Answer {
    whole(begin(gateway).await).await
}

/// A stream that says this.
fn stream(text: &str) -> Vec<String> {
    vec![
        ROLE.into(),
        delta(text),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ]
}

fn late(act: Act) -> Act {
    Act::After(LONG, Box::new(act))
}

/// What is left without our comments, and how many there were. None stands within an event.
#[track_caller]
fn split(text: &str) -> (String, usize) {
    let comments = text.match_indices(COMMENT);
    for (at, _) in comments.clone() {
        assert!(at == 0 || text[..at].ends_with("\n\n"), "{text}");
    }
    (text.replace(COMMENT, ""), comments.count())
}

/// The one event that ends a stream that never was one.
#[track_caller]
fn only_error(text: &str) -> serde_json::Value {
    let (rest, comments) = split(text);
    assert!(comments > 0, "{text}");
    let data = rest
        .strip_prefix("data: ")
        .and_then(|rest| rest.strip_suffix("\n\n"));
    let data = data.unwrap_or_else(|| panic!("{text}"));
    assert!(!data.contains('\n'), "{text}");
    serde_json::from_str(data).unwrap_or_else(|_| panic!("{text}"))
}

fn requests(gateway: &Gateway, status: u16) -> f64 {
    gateway.metric(&format!(
        r#"tollgate_requests_total{{api="chat_completions",key="ann",model="fast",status="{status}"}}"#
    ))
}

fn ended(gateway: &Gateway, target: &str, end: &str) -> f64 {
    gateway.metric(&format!(
        r#"tollgate_streams_total{{end="{end}",target="{target}"}}"#
    ))
}

#[tokio::test]
async fn silence_before_the_answer_is_told_and_the_answer_follows() {
    let provider = Provider::new([late(Act::events(stream("hello")))]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let answer = ask(&gateway).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(answer.header("x-tollgate-target"), None, "not known then");
    let (text, comments) = split(&answer.text());
    assert!(answer.text().starts_with(COMMENT));
    assert!((2..=3).contains(&comments), "{comments}");
    assert_eq!(text, [ROLE, &delta("hello"), FINISH, DONE].concat());
    until("it is told", || requests(&gateway, 200) == 1.0).await;
    assert_eq!(ended(&gateway, "a/m", "complete"), 1.0);
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn a_stream_that_comes_in_time_is_the_providers_own() {
    let act = Act::Slow(Duration::from_millis(20), stream("hello"));
    let provider = Provider::new([act]).await;
    let gateway = Gateway::start(&with(&[&provider], "keepalive = \"3s\"")).await;
    let answer = ask(&gateway).await;
    assert_eq!(
        answer.text(),
        [ROLE, &delta("hello"), FINISH, DONE].concat()
    );
    assert_eq!(answer.header("x-tollgate-target"), Some("a/m"));
}

#[tokio::test]
async fn never_is_never_and_whole_answers_are_waited_for() {
    let provider = Provider::new([
        late(Act::events(stream("hello"))),
        late(Act::json(completion("x"))),
    ])
    .await;
    let gateway = Gateway::start(&with(&[&provider], "keepalive = \"0s\"")).await;
    let answer = ask(&gateway).await;
    assert!(answer.text().starts_with(ROLE), "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    let gateway = Gateway::start(&order(&[&provider])).await;
    let answer = client::post(gateway.address, CHAT, "sk-ann", chat("fast")).await;
    assert_eq!(answer.text(), completion("x"));
    assert_eq!(answer.header("x-tollgate-target"), Some("a/m"));
}

#[tokio::test]
async fn who_fails_after_the_status_is_followed_by_the_next_target() {
    let fails = [
        Act::status(503, "{}"),
        Act::Reset,
        Act::Cut(vec![ROLE.into()]),
    ];
    for act in fails {
        let a = Provider::new([late(act.clone())]).await;
        let b = Provider::new([late(Act::events(stream("b")))]).await;
        let gateway = Gateway::start(&order(&[&a, &b])).await;
        let answer = ask(&gateway).await;
        let (text, comments) = split(&answer.text());
        assert_eq!(text, [ROLE, &delta("b"), FINISH, DONE].concat(), "{act:?}");
        assert!(comments >= 4, "{comments}");
        assert_eq!((a.count(), b.count()), (1, 1));
        until("it is told", || requests(&gateway, 200) == 1.0).await;
        assert_eq!(ended(&gateway, "b/m", "complete"), 1.0);
        assert_eq!(ended(&gateway, "a/m", "complete"), 0.0);
    }
}

#[tokio::test]
async fn the_silence_is_that_of_whoever_is_asked_now() {
    let a = Provider::new([late(Act::status(503, "{}"))]).await;
    let b = Provider::new([late(Act::events(stream("b")))]).await;
    let text = order(&[&a, &b]);
    let never = text.replacen("keepalive = \"200ms\"", "keepalive = \"0s\"", 1);
    let gateway = Gateway::start(&never).await;
    let (_, comments) = split(&ask(&gateway).await.text());
    assert!((2..=5).contains(&comments), "{comments}");
}

#[tokio::test]
async fn if_all_fail_the_last_event_says_why() {
    let a = Provider::new([late(Act::status(503, "{}"))]).await;
    let b = Provider::new([Act::status(500, "{}")]).await;
    let gateway = Gateway::start(&order(&[&a, &b])).await;
    let answer = ask(&gateway).await;
    assert_eq!(answer.status, 200);
    let error = only_error(&answer.text());
    assert_eq!(error["error"]["code"], "upstream_error");
    assert_eq!(error["error"]["type"], "server_error");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("a/m answered 503"), "{message}");
    assert!(message.contains("b/m answered 500"), "{message}");
    until("it is told", || requests(&gateway, 200) == 1.0).await;
    assert_eq!(
        gateway.metric(r#"tollgate_rejections_total{code="upstream_error"}"#),
        1.0
    );
    assert_eq!(ended(&gateway, "b/m", "error"), 1.0);
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn a_clients_own_fault_is_told_in_the_providers_words_on_one_line() {
    let words = "{\n  \"error\": {\n    \"message\": \"too long\",\r\n    \"code\": \"context_length_exceeded\"\n  }\n}";
    let provider = Provider::new([late(Act::status(400, words))]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let error = only_error(&ask(&gateway).await.text());
    let want: serde_json::Value = serde_json::from_str(words).unwrap();
    assert_eq!(error, want);
    // Its status, which would have said so, is a success.
    let told = || gateway.metric(r#"tollgate_rejections_total{code="upstream_error"}"#);
    until("it is told", || told() == 1.0).await;
}

#[tokio::test]
async fn what_is_refused_before_anybody_is_asked_keeps_its_status() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let answer = client::post(gateway.address, CHAT, "sk-ann", chat_stream("other")).await;
    assert_eq!(answer.status, 404);
    let answer = client::post(gateway.address, CHAT, "sk-bob", chat_stream("fast")).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_model_that_thinks_in_the_middle_of_its_answer_is_waited_for() {
    for pieces in [
        vec![ROLE.to_owned(), delta("a")],
        // Half an event, and the CR of a line end, are held: nothing comes between.
        vec![delta("a"), "data: {\"choices\":".into()],
        vec![delta("a").replace('\n', "\r\n").trim_end().to_owned() + "\r\n\r"],
    ] {
        let (open, gate) = watch::channel(());
        let whole_event = pieces.len() == 2 && pieces[1].ends_with(':');
        let next = match whole_event {
            true => "[]}\n\n".to_owned(),
            false => "\n".to_owned(),
        };
        let rest = vec![next, delta("b"), FINISH.into(), DONE.into()];
        let act = Act::Gated(pieces.clone(), gate, rest.clone());
        let provider = Provider::new([act]).await;
        let gateway = Gateway::start(&order(&[&provider])).await;
        let mut coming = begin(&gateway).await;
        assert_eq!(coming.headers["x-tollgate-target"], "a/m");
        let mut text = String::new();
        while !text.ends_with(&COMMENT.repeat(2)) {
            let piece = coming.piece().await.unwrap().unwrap();
            text += std::str::from_utf8(&piece).unwrap();
        }
        assert_eq!(gateway.in_flight(), 1, "its place is taken");
        drop(open);
        let (more, complete) = coming.rest().await;
        text += std::str::from_utf8(&more).unwrap();
        assert!(complete);
        let want = pieces.concat() + &rest.concat();
        assert_eq!(text.replace(COMMENT, ""), want);
        assert!(text.ends_with(&[&delta("b"), FINISH, DONE].concat()));
        until("it is told", || ended(&gateway, "a/m", "complete") == 1.0).await;
    }
}

#[tokio::test]
async fn what_comes_after_a_comment_is_passed_at_once() {
    let (open, gate) = watch::channel(());
    let act = Act::Gated(vec![ROLE.into()], gate, stream("a"));
    let provider = Provider::new([act]).await;
    let gateway = Gateway::start(&with(&[&provider], "keepalive = \"2s\"")).await;
    let mut coming = begin(&gateway).await;
    assert_eq!(coming.piece().await.unwrap().unwrap(), COMMENT);
    let began = Instant::now();
    drop(open);
    let piece = coming.piece().await.unwrap().unwrap();
    assert!(piece.starts_with(ROLE.as_bytes()));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn nothing_is_said_after_the_end() {
    // Its body has no end, and is waited for a moment.
    let provider = Provider::new([Act::Stall(stream("a"))]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let text = ask(&gateway).await.text();
    assert_eq!(text, [ROLE, &delta("a"), FINISH, DONE].concat());
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_missed() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let mut coming = begin(&gateway).await;
    for _ in 0..2 {
        assert_eq!(coming.piece().await.unwrap().unwrap(), COMMENT);
    }
    assert_eq!((gateway.in_flight(), provider.left()), (1, 0));
    drop(coming);
    until("the provider is told to stop", || provider.left() == 1).await;
    until("it is told", || requests(&gateway, 200) == 1.0).await;
    assert_eq!(ended(&gateway, "a/m", "client_gone"), 1.0);
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn an_answer_is_read_on_whose_client_left_while_it_waited() {
    let provider = Provider::new([late(Act::events(stream("a")))]).await;
    let lines = "keepalive = \"200ms\"\non_disconnect = \"finish:10s\"";
    let gateway = Gateway::start(&with(&[&provider], lines)).await;
    let mut coming = begin(&gateway).await;
    assert_eq!(coming.piece().await.unwrap().unwrap(), COMMENT);
    drop(coming);
    until("it is read on", || gateway.finishing() == 1).await;
    let tokens = r#"tollgate_tokens_total{kind="output",model="fast",target="a/m"}"#;
    until("its usage is counted", || gateway.metric(tokens) == 3.0).await;
    until("it is told", || requests(&gateway, 200) == 1.0).await;
    assert_eq!(ended(&gateway, "a/m", "client_gone"), 1.0);
    assert_eq!(provider.left(), 0);
}

#[tokio::test]
async fn time_is_up_for_whoever_waits_with_a_status() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let mut coming = begin(&gateway).await;
    assert_eq!(coming.piece().await.unwrap().unwrap(), COMMENT);
    let running = gateway.running.as_ref().unwrap().gateway.clone();
    let ended = gateway.drain(Duration::ZERO, Duration::from_millis(300));
    let (rest, complete) = coming.rest().await;
    let text = String::from_utf8(rest).unwrap();
    let (text, _) = split(&text);
    assert!(
        complete && text.contains(r#""code":"shutting_down""#),
        "{text}"
    );
    assert!(
        text.starts_with("data: {") && !text.contains("[DONE]"),
        "{text}"
    );
    until("it ended", || ended.is_finished()).await;
    until("the provider is told to stop", || provider.left() == 1).await;
    for line in [
        r#"tollgate_rejections_total{code="shutting_down"} 1"#,
        r#"tollgate_streams_total{end="shutdown",target="a/m"} 1"#,
    ] {
        let text = running.metrics();
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn it_is_the_same_over_http2_and_http1_0() {
    let provider = Provider::new([late(Act::events(stream("a")))]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let want = [ROLE, &delta("a"), FINISH, DONE].concat();
    let mut sender = ways::connect(&gateway).await;
    let asked = ways::request(&gateway, chat_stream("fast"));
    let answer = sender.send_request(asked).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let (text, comments) = split(std::str::from_utf8(&body).unwrap());
    assert!(comments > 1 && text == want, "{text}");

    let body = chat_stream("fast");
    let mut socket = Socket::to(gateway.address).await;
    let length = body.len();
    let head = format!(
        "POST {CHAT} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer sk-ann\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write(head + &body).await;
    let text = socket.rest().await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK") && !head.contains("chunked"));
    let (text, comments) = split(body);
    assert!(comments > 1 && text == want, "{text}");
}

#[tokio::test]
async fn a_page_may_read_what_it_is_told() {
    const APP: &str = "https://app.example.com";
    let provider = Provider::new([late(Act::events(stream("a")))]).await;
    let cors = format!("cors = [\"{APP}\"]");
    let gateway = Gateway::with(&cors, &order(&[&provider])).await;
    let headers = [("authorization", "Bearer sk-ann"), ("origin", APP)];
    let body = chat_stream("fast");
    let answer = client::send(gateway.address, Method::POST, CHAT, &headers, body).await;
    assert_eq!(answer.headers["access-control-allow-origin"], APP);
    assert_eq!(answer.headers["vary"], "origin");
    let answer = whole(answer).await;
    assert!(split(&answer.text()).1 > 1);
}

/// Asks as ann, under a key.
async fn under(gateway: &Gateway, twin: &str) -> Coming {
    let headers = [
        ("authorization", "Bearer sk-ann"),
        ("idempotency-key", twin),
    ];
    let body = chat_stream("fast");
    client::send(gateway.address, Method::POST, CHAT, &headers, body).await
}

#[tokio::test]
async fn twins_hear_comments_of_their_own_and_no_others() {
    let provider = Provider::new([late(Act::Slow(LONG / 2, stream("a")))]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let want = [ROLE, &delta("a"), FINISH, DONE].concat();
    let first = under(&gateway, "k").await;
    let twin = under(&gateway, "k").await;
    assert_eq!(twin.headers["x-tollgate-replayed"], "true");
    let (first, twin) = tokio::join!(whole(first), whole(twin));
    for answer in [first, twin] {
        let (text, comments) = split(&answer.text());
        assert_eq!(text, want);
        assert!(comments >= 4, "{}", answer.text());
    }
    let again = whole(under(&gateway, "k").await).await;
    assert_eq!(again.text(), want, "what is kept has none");
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn an_answer_that_failed_in_band_is_no_answer_for_a_retry() {
    let provider = Provider::new([
        late(Act::status(503, "{}")),
        late(Act::events(stream("a"))),
        Act::Hang,
    ])
    .await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    let first = under(&gateway, "k").await;
    let twin = under(&gateway, "k").await;
    let (first, twin) = tokio::join!(whole(first), whole(twin));
    for answer in [first, twin] {
        let error = only_error(&answer.text());
        assert_eq!(error["error"]["code"], "upstream_error");
    }
    // Whoever asked first leaves while it waits; the retry comes for the answer.
    let mut coming = under(&gateway, "k").await;
    assert_eq!(coming.piece().await.unwrap().unwrap(), COMMENT);
    drop(coming);
    let (text, _) = split(&whole(under(&gateway, "k").await).await.text());
    assert_eq!(text, [ROLE, &delta("a"), FINISH, DONE].concat());
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn whoever_left_while_it_waited_has_left_whatever_its_twins_hear() {
    for act in [
        Act::events(stream("a")),
        Act::status(500, r#"{"error":{"message":"no"}}"#),
    ] {
        let (open, gate) = watch::channel(());
        let provider = Provider::new([Act::Told(gate, Box::new(act))]).await;
        let lines = "keepalive = \"200ms\"";
        let gateway = Gateway::start(&with(&[&provider], lines)).await;
        let mut first = under(&gateway, "k").await;
        assert_eq!(first.piece().await.unwrap().unwrap(), COMMENT);
        drop(first);
        until("it is read on", || gateway.finishing() == 1).await;
        drop(open);
        until("it is told", || requests(&gateway, 200) == 1.0).await;
        assert_eq!(ended(&gateway, "a/m", "client_gone"), 1.0);
    }
}

#[tokio::test]
async fn what_comes_before_the_content_is_held_for_so_long() {
    let lines = "prelude = \"200ms\"\nkeepalive = \"0s\"\ntimeouts = { idle = \"700ms\" }";
    let a = Provider::new([Act::Stall(vec![": ping\n\n".into(), ROLE.into()])]).await;
    let b = Provider::new([Act::events(stream("b"))]).await;
    let gateway = Gateway::start(&with(&[&a, &b], lines)).await;
    let mut coming = begin(&gateway).await;
    assert_eq!(coming.headers["x-tollgate-target"], "a/m");
    let held = format!(": ping\n\n{ROLE}");
    assert_eq!(coming.piece().await.unwrap().unwrap(), held);
    let (rest, complete) = coming.rest().await;
    let text = String::from_utf8(rest).unwrap();
    assert!(complete && text.contains("the idle clock"), "{text}");
    assert_eq!(b.count(), 0, "its target is committed");
    until("it is told", || ended(&gateway, "a/m", "stalled") == 1.0).await;
    let content = r#"tollgate_time_to_first_content_seconds_count{target="a/m"}"#;
    assert_eq!(gateway.metric(content), 0.0, "there was none");
}

#[tokio::test]
async fn comments_alone_are_held_for_as_long_as_content_is_waited_for() {
    let lines = "prelude = \"100ms\"\ntimeouts = { first_content = \"500ms\" }";
    let a = Provider::new([Act::Stall(vec![": ping\n\n".into()])]).await;
    let b = Provider::new([Act::events(stream("b"))]).await;
    let gateway = Gateway::start(&with(&[&a, &b], lines)).await;
    let answer = ask(&gateway).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("b/m"));
    // And so is a first event, if nothing is said of a prelude.
    let lines = "timeouts = { first_content = \"300ms\" }";
    let a = Provider::new([Act::Stall(vec![ROLE.into()])]).await;
    let gateway = Gateway::start(&with(&[&a, &b], lines)).await;
    let answer = ask(&gateway).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("b/m"));
}

#[tokio::test]
async fn a_long_prelude_is_passed_on() {
    let times = (64 << 10) / ROLE.len() + 10;
    let all = vec![ROLE.to_owned(); times];
    let rest = vec![delta("a"), FINISH.into(), DONE.into()];
    let pieces = [all, rest].concat();
    let provider = Provider::new([Act::events([pieces.concat()])]).await;
    let gateway = Gateway::start(&order(&[&provider])).await;
    assert_eq!(ask(&gateway).await.text(), pieces.concat());
    // Also where no content ever comes.
    let a = Provider::new([Act::events([ROLE.repeat(times)])]).await;
    let b = Provider::new([Act::events(stream("b"))]).await;
    let gateway = Gateway::start(&order(&[&a, &b])).await;
    let text = ask(&gateway).await.text();
    let rest = text.strip_prefix(&ROLE.repeat(times)).unwrap();
    assert!(rest.contains("in the middle of the answer"), "{rest}");
    assert_eq!(b.count(), 0);
}
