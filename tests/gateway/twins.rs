//! Requests that are sent again with the same `Idempotency-Key`: asked once, answered as often, and charged once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::client::{Coming, send, whole};
use crate::support::money::{
    COST, PRICE, Row, budget, entered, entries, entries_in, fast, key, of, strict,
};
use crate::support::{
    Act, Answer, CHAT, DONE, FINISH, Gateway, Provider, USAGE, chat, chat_stream, completion,
    delta, until,
};
use crate::ways;

/// Between two pieces: long enough for others to come and go in.
const PAUSE: Duration = Duration::from_millis(60);

/// A gateway to one target with a price, which is asked once; ann and bob have ten dollars each.
async fn gateway(provider: &Provider) -> Gateway {
    on_terms("", provider).await
}

/// With more lines for `[server]`.
async fn on_terms(server: &str, provider: &Provider) -> Gateway {
    let text = [
        of("p", provider, ""),
        fast(PRICE),
        key("ann", &budget("10")),
        key("bob", &budget("10")),
    ];
    Gateway::with(server, &text.concat()).await
}

/// Asks as somebody, under a key.
async fn begin(gateway: &Gateway, name: &str, twin: &str, body: &str) -> Coming {
    let bearer = format!("Bearer sk-{name}");
    let headers = [("authorization", &*bearer), ("idempotency-key", twin)];
    send(
        gateway.address,
        Method::POST,
        CHAT,
        &headers,
        body.to_owned(),
    )
    .await
}

async fn ask(gateway: &Gateway, twin: &str, body: &str) -> Answer {
    whole(begin(gateway, "ann", twin, body).await).await
}

/// The same bytes, with the head that is told again.
fn is_replayed(first: &Answer, again: &Answer) {
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(first.header("x-tollgate-replayed"), None);
    assert_eq!(again.header("x-tollgate-replayed"), Some("true"));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    // The date is that of the answer to each.
    let ours = ["x-request-id", "x-tollgate-replayed", "date"];
    let told = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        for name in ours {
            headers.remove(name);
        }
        headers
    };
    assert_eq!(told(again), told(first));
}

fn once() -> [Row; 1] {
    [Row::new("complete", COST, false)]
}

/// A stream of so many words.
fn events(words: usize) -> Vec<String> {
    let deltas = (0..words).map(|n| delta(&n.to_string()));
    deltas
        .chain([FINISH.into(), USAGE.into(), DONE.into()])
        .collect()
}

fn requests(status: u16) -> String {
    format!(
        r#"tollgate_requests_total{{api="chat_completions",key="ann",model="",status="{status}"}}"#
    )
}

#[tokio::test]
async fn a_retry_gets_the_answer_again_and_is_charged_once() {
    let long = completion(&"x".repeat(200 << 10));
    for (act, body) in [
        (Act::json(completion("hello")), chat("fast")),
        (Act::json(long), chat("fast")),
        (Act::events(events(5)), chat_stream("fast")),
    ] {
        let provider = Provider::new([act]).await;
        let gateway = gateway(&provider).await;
        let first = ask(&gateway, "k", &body).await;
        assert_eq!(first.status, 200, "{}", first.text());
        for _ in 0..3 {
            is_replayed(&first, &ask(&gateway, "k", &body).await);
        }
        assert_eq!(provider.count(), 1);
        assert_eq!(provider.only().header("idempotency-key"), Some("k"));
        assert_eq!(entries(&gateway).await, once());
        until("all are told", || gateway.metric(&requests(200)) == 3.0).await;
    }
}

#[tokio::test]
async fn what_it_cost_is_told_again() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = gateway(&provider).await;
    for _ in 0..2 {
        let answer = ask(&gateway, "k", &chat("fast")).await;
        assert_eq!(answer.header("x-tollgate-cost-usd"), Some("0.037"));
        assert_eq!(answer.header("x-tollgate-target"), Some("p/m"));
    }
}

#[tokio::test]
async fn a_twin_joins_an_answer_under_way_and_gets_it_as_it_comes() {
    let (open, gate) = watch::channel(());
    let all = events(6);
    let (begun, rest) = all.split_at(3);
    let act = Act::Gated(begun.to_vec(), gate, rest.to_vec());
    let provider = Provider::new([act]).await;
    let gateway = gateway(&provider).await;
    let body = chat_stream("fast");
    let mut first = begin(&gateway, "ann", "k", &body).await;
    let mut twin = begin(&gateway, "ann", "k", &body).await;
    assert_eq!(twin.headers["x-tollgate-replayed"], "true");
    let mut came = [Vec::new(), Vec::new()];
    for (coming, came) in [&mut first, &mut twin].into_iter().zip(&mut came) {
        while came.len() < begun.concat().len() {
            came.extend_from_slice(&coming.piece().await.unwrap().unwrap());
        }
    }
    assert_eq!(gateway.in_flight(), 2);
    open.send(()).unwrap();
    for (coming, mut came) in [first, twin].into_iter().zip(came) {
        let (rest, complete) = coming.rest().await;
        came.extend(rest);
        assert!(complete);
        assert_eq!(String::from_utf8(came).unwrap(), without_usage(&all));
    }
    assert_eq!(provider.count(), 1);
    assert_eq!(entries(&gateway).await, once());
}

/// What a client sees of a stream whose usage it did not ask for.
fn without_usage(events: &[String]) -> String {
    let seen = events.iter().filter(|event| **event != USAGE);
    seen.map(String::as_str).collect()
}

#[tokio::test]
async fn a_hundred_at_once_are_one_request() {
    for (act, body) in [
        (Act::json(completion("hello")), chat("fast")),
        (Act::Slow(PAUSE, events(3)), chat_stream("fast")),
    ] {
        let provider = Provider::new([Act::After(PAUSE * 3, Box::new(act))]).await;
        let gateway = gateway(&provider).await;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (address, body) = (gateway.address, body.clone());
            asking.spawn(async move {
                let headers = [("authorization", "Bearer sk-ann"), ("idempotency-key", "k")];
                whole(send(address, Method::POST, CHAT, &headers, body).await).await
            });
        }
        let answers = asking.join_all().await;
        let (bodies, ids): (HashSet<_>, HashSet<_>) = answers
            .iter()
            .map(|answer| (answer.body.clone(), answer.header("x-request-id")))
            .unzip();
        assert_eq!((bodies.len(), ids.len()), (1, 100));
        assert!(answers.iter().all(|answer| answer.status == 200));
        let first = answers
            .iter()
            .filter(|answer| answer.header("x-tollgate-replayed").is_none());
        assert_eq!((first.count(), provider.count()), (1, 1));
        assert_eq!(entries(&gateway).await, once());
    }
}

#[tokio::test]
async fn over_http2_it_is_no_different() {
    let provider = Provider::new([Act::Slow(PAUSE, events(4))]).await;
    let gateway = gateway(&provider).await;
    let mut sender = ways::connect(&gateway).await;
    let asking = [(); 4].map(|()| {
        let mut request = ways::request(&gateway, chat_stream("fast"));
        let key = "k".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        sender.send_request(request)
    });
    let mut bodies = HashSet::new();
    for answer in asking {
        let body = answer.await.unwrap().into_body();
        let body = http_body_util::BodyExt::collect(body).await.unwrap();
        bodies.insert(body.to_bytes());
    }
    assert_eq!((bodies.len(), provider.count()), (1, 1));
    assert_eq!(entries(&gateway).await, once());
}

/// Where the first client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    /// Once the provider has the request.
    Waiting,
    /// Once something of the answer has come.
    Reading,
}

/// Asks under a key, and leaves.
async fn leave(gateway: &Gateway, provider: &Provider, body: &str, leaves: Leaves) {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&request(body)).await.unwrap();
    until("the provider has it", || provider.count() == 1).await;
    if leaves == Leaves::Reading {
        assert!(stream.read(&mut [0; 256]).await.unwrap() > 0);
    }
}

fn request(body: &str) -> Vec<u8> {
    let plain = String::from_utf8(crate::leave::request(body)).unwrap();
    plain
        .replacen("host: x", "host: x\r\nidempotency-key: k", 1)
        .into_bytes()
}

#[tokio::test]
async fn the_first_may_leave_and_its_retry_gets_the_whole_answer() {
    use Leaves::{Reading, Waiting};
    let (streamed, asked) = (chat_stream("fast"), chat("fast"));
    let long = completion(&"x".repeat(300 << 10));
    let pieces = long.as_bytes().chunks(60 << 10);
    let pieces = pieces.map(|piece| String::from_utf8(piece.to_vec()).unwrap());
    let pieces: Vec<String> = pieces.collect();
    let short = completion("hello");
    let late = |act: Act| Act::After(PAUSE * 5, Box::new(act));
    for (act, body, leaves, want) in [
        (
            Act::Slow(PAUSE, events(5)),
            &streamed,
            Reading,
            without_usage(&events(5)),
        ),
        (
            late(Act::events(events(5))),
            &streamed,
            Waiting,
            without_usage(&events(5)),
        ),
        (late(Act::json(&*short)), &asked, Waiting, short.clone()),
        (
            Act::Slow(PAUSE, pieces.clone()),
            &asked,
            Waiting,
            long.clone(),
        ),
        (Act::Slow(PAUSE, pieces), &asked, Reading, long),
    ] {
        // At once, while it is under way, and once it is over.
        for pause in [Duration::ZERO, PAUSE, PAUSE * 15] {
            let what = format!("{leaves:?} {pause:?} {:.60}", format!("{act:?}"));
            let provider = Provider::new([act.clone()]).await;
            let gateway = gateway(&provider).await;
            leave(&gateway, &provider, body, leaves).await;
            tokio::time::sleep(pause).await;
            let again = ask(&gateway, "k", body).await;
            assert_eq!(again.text(), want, "{what}");
            assert_eq!(again.header("x-tollgate-replayed"), Some("true"), "{what}");
            assert_eq!((provider.count(), provider.left()), (1, 0), "{what}");
            assert_eq!(entries(&gateway).await, once(), "{what}");
            until("nobody reads on", || gateway.finishing() == 0).await;
        }
    }
}

#[tokio::test]
async fn the_line_of_a_client_that_left_says_so() {
    let provider = Provider::new([Act::Slow(PAUSE, events(5))]).await;
    let gateway = gateway(&provider).await;
    leave(&gateway, &provider, &chat_stream("fast"), Leaves::Reading).await;
    let ended = r#"tollgate_streams_total{end="client_gone",target="p/m"}"#;
    until("it is told", || gateway.metric(ended) == 1.0).await;
    assert_eq!(entered(&gateway), once(), "the answer was complete");
}

#[tokio::test]
async fn something_else_under_the_same_key_is_refused() {
    let provider = Provider::new([Act::Slow(PAUSE, events(5))]).await;
    let gateway = gateway(&provider).await;
    let first = begin(&gateway, "ann", "k", &chat_stream("fast")).await;
    let refused = ask(&gateway, "k", &chat("fast")).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (422, "idempotency_key_reused".into())
    );
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
    assert!(first.rest().await.1);
    let refused = ask(&gateway, "k", &chat("fast")).await;
    assert_eq!(refused.status, 422, "also after it");
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn keys_are_each_callers_and_each_endpoints_own() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = gateway(&provider).await;
    for name in ["ann", "bob", "ann", "bob"] {
        whole(begin(&gateway, name, "k", &chat("fast")).await).await;
    }
    assert_eq!(provider.count(), 2);
    let headers = [("authorization", "Bearer sk-ann"), ("idempotency-key", "k")];
    let completions = "/v1/completions";
    let other = send(
        gateway.address,
        Method::POST,
        completions,
        &headers,
        chat("fast"),
    )
    .await;
    let other = whole(other).await;
    assert_ne!(other.status, 422, "{}", other.text());
    assert_eq!(provider.count(), 3);
    let stranger = begin(&gateway, "eve", "k", &chat("fast")).await;
    assert_eq!(stranger.status, 401);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = gateway(&provider).await;
    let (long, longer) = ("k".repeat(255), "k".repeat(256));
    for (key, status) in [
        ("", 400),
        ("a b", 400),
        (&longer, 400),
        ("\u{e9}", 400),
        (&long, 200),
    ] {
        let answer = ask(&gateway, key, &chat("fast")).await;
        assert_eq!(answer.status.as_u16(), status, "{key}: {}", answer.text());
        if status == 400 {
            assert_eq!(answer.code(), "invalid_request");
            assert!(
                answer.text().contains("`idempotency-key`"),
                "{}",
                answer.text()
            );
        }
    }
    let twice = String::from_utf8(request(&chat("fast"))).unwrap();
    let twice = twice.replacen(
        "idempotency-key: k",
        "idempotency-key: k\r\nidempotency-key: l",
        1,
    );
    let twice = twice.replacen("host: x", "host: x\r\nconnection: close", 1);
    let answer = crate::support::client::raw(gateway.address, twice.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("must be given once"),
        "{answer}"
    );
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn without_a_key_nothing_is_joined_nor_with_one_where_nothing_is_kept() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = on_terms("replay = \"0s\"", &provider).await;
    for n in 1..=2 {
        let answer = ask(&gateway, "k", &chat("fast")).await;
        assert_eq!(answer.header("x-tollgate-replayed"), None);
        assert_eq!(provider.count(), n);
    }
    // It says nothing about the key either.
    assert_eq!(ask(&gateway, "a b", &chat("fast")).await.status, 200);
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = self::gateway(&provider).await;
    for n in 1..=2 {
        let answer = crate::support::ask(&gateway, chat("fast")).await;
        assert_eq!((answer.status.as_u16(), provider.count()), (200, n));
    }
}

#[tokio::test]
async fn what_is_kept_expires() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = on_terms("replay = \"1s\"", &provider).await;
    let first = ask(&gateway, "k", &chat("fast")).await;
    let began = Instant::now();
    is_replayed(&first, &ask(&gateway, "k", &chat("fast")).await);
    assert_eq!((provider.count(), kept(&gateway).0), (1, 1));
    until("it is swept", || kept(&gateway) == (0, 0)).await;
    assert!(began.elapsed() >= Duration::from_millis(900));
    let anew = ask(&gateway, "k", &chat("fast")).await;
    assert_eq!(
        (anew.header("x-tollgate-replayed"), provider.count()),
        (None, 2)
    );
}

/// How many answers are kept, and what they take.
fn kept(gateway: &Gateway) -> (usize, u64) {
    let gateway = &gateway.running.as_ref().unwrap().gateway;
    gateway.state.twins.count()
}

#[tokio::test]
async fn a_failure_is_told_to_those_who_wait_and_then_tried_anew() {
    for (fails, status) in [
        (Act::status(500, "{}"), 502),
        (Act::status(429, "{}").with("retry-after", "0"), 429),
        (
            Act::status(400, r#"{"error":{"message":"no","code":"bad"}}"#),
            400,
        ),
        (Act::Reset, 502),
    ] {
        let late = Act::After(PAUSE * 5, Box::new(fails));
        let provider = Provider::new([late, Act::json(completion("hello"))]).await;
        let gateway = gateway(&provider).await;
        let body = chat("fast");
        let first = ask(&gateway, "k", &body);
        let twin = async {
            until("the provider has it", || provider.count() == 1).await;
            ask(&gateway, "k", &body).await
        };
        let (first, twin) = tokio::join!(first, twin);
        assert_eq!(first.status.as_u16(), status, "{}", first.text());
        is_replayed(&first, &twin);
        assert_eq!(provider.count(), 1);
        let again = ask(&gateway, "k", &body).await;
        assert_eq!((again.status.as_u16(), provider.count()), (200, 2));
        assert_eq!(again.header("x-tollgate-replayed"), None);
    }
}

#[tokio::test]
async fn a_broken_stream_is_broken_for_all_and_then_tried_anew() {
    let (open, gate) = watch::channel(());
    // The head tells of more than there is.
    let broken = "data: {\"error\":{\"message\":\"engine died\"}}\n\n";
    let act = Act::Gated(vec![delta("a")], gate, vec![delta("b"), broken.into()]);
    let provider = Provider::new([act, Act::events(events(2))]).await;
    let gateway = gateway(&provider).await;
    let body = chat_stream("fast");
    let first = begin(&gateway, "ann", "k", &body).await;
    let twin = begin(&gateway, "ann", "k", &body).await;
    open.send(()).unwrap();
    let (first, twin) = (first.rest().await, twin.rest().await);
    assert!(first == twin && first.1, "{first:?} {twin:?}");
    let text = String::from_utf8(twin.0).unwrap();
    assert!(
        text.contains("engine died") && !text.contains("[DONE]"),
        "{text}"
    );
    let again = ask(&gateway, "k", &body).await;
    assert!(again.text().ends_with(DONE) && provider.count() == 2);
}

#[tokio::test]
async fn a_stream_that_is_cut_ends_with_the_same_error_for_all() {
    let pieces = (0..5).map(|n| delta(&n.to_string())).collect();
    let provider = Provider::new([Act::Slow(PAUSE, pieces)]).await;
    let gateway = gateway(&provider).await;
    let body = chat_stream("fast");
    let first = begin(&gateway, "ann", "k", &body).await;
    let twin = begin(&gateway, "ann", "k", &body).await;
    let (first, twin) = (first.rest().await, twin.rest().await);
    assert!(first == twin && first.1, "{first:?} {twin:?}");
    let text = String::from_utf8(first.0).unwrap();
    assert!(text.contains(r#""code":"upstream_error""#), "{text}");
    assert_eq!(kept(&gateway).0, 0);
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_breaks_for_all() {
    let half = "x".repeat(100 << 10);
    let head =
        "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 9999999\r\n\r\n";
    let raw = format!("{head}{{\"choices\":[{{\"message\":{{\"content\":\"{half}");
    let provider = Provider::new([Act::After(PAUSE * 3, Box::new(Act::Hold(raw.into())))]).await;
    let gateway = gateway(&provider).await;
    let (body, body2) = (chat("fast"), chat("fast"));
    let (first, twin) = tokio::join!(
        begin(&gateway, "ann", "k", &body),
        begin(&gateway, "ann", "k", &body2)
    );
    assert_eq!(twin.headers["content-length"], "9999999");
    // Once both have heads: what breaks before may be all that is seen.
    drop(provider);
    let (first, twin) = (first.rest().await, twin.rest().await);
    assert!(!first.1 && !twin.1, "neither came to an end");
    until("it is forgotten", || kept(&gateway).0 == 0).await;
}

#[tokio::test]
async fn what_is_too_long_is_not_kept_and_breaks_for_twins_alone() {
    let long = completion(&"x".repeat(5 << 20));
    let pieces: Vec<String> = long
        .as_bytes()
        .chunks(512 << 10)
        .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
        .collect();
    let provider = Provider::new([Act::Slow(PAUSE, pieces)]).await;
    let gateway = gateway(&provider).await;
    let body = chat("fast");
    let first = begin(&gateway, "ann", "k", &body).await;
    let twin = begin(&gateway, "ann", "k", &body).await;
    let (first, twin) = tokio::join!(first.rest(), twin.rest());
    assert!(
        first.1 && first.0 == long.as_bytes(),
        "the first is not disturbed"
    );
    assert!(!twin.1 && twin.0.len() < long.len(), "never a false end");
    assert_eq!(kept(&gateway), (0, 0));
    assert_eq!(entries(&gateway).await, once());
}

#[tokio::test]
async fn the_oldest_answers_go_first() {
    let provider = Provider::new([Act::json(completion(&"x".repeat(20 << 10)))]).await;
    let gateway = on_terms("replay_memory = \"64KiB\"", &provider).await;
    for key in ["a", "b", "c", "d"] {
        ask(&gateway, key, &chat("fast")).await;
    }
    let (count, taken) = kept(&gateway);
    assert!(count == 3 && taken <= 64 << 10, "{count} of {taken} bytes");
    for (key, calls) in [("d", 4), ("c", 4), ("a", 5)] {
        ask(&gateway, key, &chat("fast")).await;
        assert_eq!(provider.count(), calls, "{key}");
    }
}

#[tokio::test]
async fn a_twin_that_leaves_anywhere_disturbs_nobody() {
    let all = events(4);
    let provider = Provider::new([Act::Slow(PAUSE, all.clone())]).await;
    let gateway = gateway(&provider).await;
    let body = chat_stream("fast");
    let first = begin(&gateway, "ann", "k", &body).await;
    let asked = String::from_utf8(request(&body)).unwrap();
    let asked = asked.replacen("host: x", "host: x\r\nconnection: close", 1);
    // Leaves after so many bytes, or gets as many as there are.
    let cut = async |after: usize| {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let mut taken = stream.take(after as u64);
        taken.read_to_end(&mut got).await.unwrap();
        got.len()
    };
    for after in [0, 1, 100, 300, 400, 500, 600] {
        cut(after).await;
    }
    let (came, complete) = first.rest().await;
    let came = String::from_utf8(came).unwrap();
    assert!(complete && came == without_usage(&all), "{came}");
    let whole = cut(usize::MAX).await;
    for after in 0..whole {
        assert_eq!(cut(after).await, after);
    }
    assert_eq!(ask(&gateway, "k", &body).await.text(), came);
    until("all places are free", || gateway.in_flight() == 0).await;
    assert_eq!(gateway.body_memory(), 0);
    assert_eq!((provider.count(), provider.left()), (1, 0));
    assert_eq!(entries(&gateway).await, once());
}

#[tokio::test]
async fn a_shutdown_ends_a_joined_stream_for_all() {
    for leaves in [false, true] {
        let provider = Provider::new([Act::Stall(vec![delta("a")])]).await;
        let mut gateway = gateway(&provider).await;
        let body = chat_stream("fast");
        let mut first = begin(&gateway, "ann", "k", &body).await;
        first.piece().await.unwrap().unwrap();
        let mut twin = begin(&gateway, "ann", "k", &body).await;
        assert_eq!(twin.piece().await.unwrap().unwrap(), delta("a"));
        let first = (!leaves).then_some(first);
        if leaves {
            until("it is read on", || gateway.finishing() == 1).await;
        }
        let ended = gateway.drained(Duration::ZERO, Duration::from_millis(200));
        let (rest, complete) = twin.rest().await;
        let text = String::from_utf8(rest).unwrap();
        assert!(
            complete && text.contains(r#""code":"shutting_down""#),
            "{text}"
        );
        if let Some(first) = first {
            assert_eq!(first.rest().await.0, text.as_bytes());
        }
        until("it ended", || ended.is_finished()).await;
        until("the provider is left", || provider.left() == 1).await;
        let row = entries_in(gateway.folder()).remove(0);
        assert_eq!((&*row.end, row.estimated), ("shutdown", true));
    }
}

#[tokio::test]
async fn a_shutdown_ends_those_who_wait() {
    let provider = Provider::new([Act::Hang]).await;
    let mut gateway = gateway(&provider).await;
    let body = chat("fast");
    leave(&gateway, &provider, &body, Leaves::Waiting).await;
    until("it is read on", || gateway.finishing() == 1).await;
    let twin = async {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&request(&body)).await.unwrap();
        stream
    };
    let mut twin = twin.await;
    until("it waits", || gateway.in_flight() == 2).await;
    let ended = gateway.drained(Duration::ZERO, Duration::from_millis(200));
    let mut told = Vec::new();
    twin.read_to_end(&mut told).await.unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("shutting_down"),
        "{told}"
    );
    until("it ended", || ended.is_finished()).await;
    assert_eq!(entries_in(gateway.folder()).len(), 1);
}

#[tokio::test]
async fn shutdown_waits_for_an_answer_that_is_read_on_for_its_twins() {
    let provider = Provider::new([Act::Slow(PAUSE, events(5))]).await;
    let mut gateway = gateway(&provider).await;
    leave(&gateway, &provider, &chat_stream("fast"), Leaves::Reading).await;
    until("it is read on", || gateway.finishing() == 1).await;
    let ended = gateway.drained(Duration::ZERO, Duration::from_secs(20));
    until("it ended", || ended.is_finished()).await;
    assert_eq!(entries_in(gateway.folder()), once());
}

#[tokio::test]
async fn a_twin_needs_no_budget() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let text = [
        of("p", &provider, ""),
        fast(PRICE),
        key("ann", &strict("0.36")),
    ];
    let gateway = Gateway::start(&text.concat()).await;
    let body = r#"{"model":"fast","max_tokens":3,"messages":[]}"#;
    assert_eq!(ask(&gateway, "k", body).await.status, 200);
    // There is not enough left for another, but it was paid for.
    assert_eq!(ask(&gateway, "l", body).await.status, 429);
    assert_eq!(ask(&gateway, "k", body).await.status, 200);
}

#[tokio::test]
async fn a_twin_takes_a_place() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = on_terms("max_in_flight = 2", &provider).await;
    let body = chat("fast");
    let wait = async || {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&request(&body)).await.unwrap();
        stream
    };
    let _first = wait().await;
    until("it is asked", || provider.count() == 1).await;
    let twin = wait().await;
    until("it waits", || gateway.in_flight() == 2).await;
    let third = ask(&gateway, "k", &body).await;
    assert_eq!(
        (third.status.as_u16(), third.code()),
        (503, "overloaded".into())
    );
    drop(twin);
    until("its place is free", || gateway.in_flight() == 1).await;
    assert_eq!(gateway.finishing(), 0);
}
