//! A client that has left, and an answer that is read on for the usage at its end.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::leave::request;
use crate::support::money::{
    COST, PRICE, Row, bound, budget, entered, entries_in, estimate, fast, key,
};
use crate::support::{
    Act, DONE, FINISH, Gateway, Provider, USAGE, chat, chat_stream, completion, delta, model,
    provider_at, until,
};
use crate::ways;

/// Between two pieces: long enough for a client to leave in.
const PAUSE: Duration = Duration::from_millis(60);

/// What nothing here should take, and everything would that was not ended.
const LONG: Duration = Duration::from_secs(20);

/// A gateway to one target with a price, whose provider has these lines of its own; ann has ten dollars.
async fn finishing(provider: &Provider, lines: &str) -> Gateway {
    on_terms(provider, lines, PRICE).await
}

/// The same, and the target thinks before it answers.
async fn thinking(provider: &Provider, lines: &str) -> Gateway {
    on_terms(provider, lines, &format!("{PRICE}, reasoning = true")).await
}

async fn on_terms(provider: &Provider, lines: &str, terms: &str) -> Gateway {
    let text = [
        provider_at("p", provider.address, lines),
        fast(terms),
        key("ann", &budget("10")),
    ];
    Gateway::start(&text.concat()).await
}

/// A stream that takes half a second, and tells its usage.
fn events() -> Vec<String> {
    let deltas = (0..5).map(|n| delta(&n.to_string()));
    deltas
        .chain([FINISH.into(), USAGE.into(), DONE.into()])
        .collect()
}

/// A whole answer of so many bytes or more.
fn longer_than(bytes: usize) -> String {
    completion(&"x".repeat(bytes))
}

/// The same, in pieces.
fn in_pieces(text: &str) -> Vec<String> {
    let bytes = text.as_bytes().chunks(text.len().div_ceil(5));
    bytes
        .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
        .collect()
}

/// Where a client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    /// Once the provider has the request.
    Waiting,
    /// Once something of the answer has come.
    Reading,
}

/// Asks, and leaves.
async fn leave(gateway: &Gateway, provider: &Provider, body: &str, leaves: Leaves) {
    let before = provider.count();
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&request(body)).await.unwrap();
    until("the provider has it", || provider.count() == before + 1).await;
    if leaves == Leaves::Reading {
        let mut some = [0; 256];
        assert!(stream.read(&mut some).await.unwrap() > 0);
    }
}

/// The entries, once there are so many.
async fn once(gateway: &Gateway, count: usize) -> Vec<Row> {
    until("it is entered", || entered(gateway).len() == count).await;
    entered(gateway)
}

/// Exactly, and by name an answer that its client did not wait for.
fn exact() -> Row {
    Row::new("client_gone", COST, false)
}

fn estimated(cost: u64) -> Row {
    Row::new("client_gone", cost, true)
}

#[tokio::test]
async fn wherever_the_client_leaves_the_usage_is_entered_as_told() {
    use Leaves::{Reading, Waiting};
    let (short, long) = (completion("hello"), longer_than(200 << 10));
    let stream = Act::Slow(PAUSE, events());
    let late = |act: &Act| Act::After(PAUSE * 5, Box::new(act.clone()));
    let (streamed, whole) = (chat_stream("fast"), chat("fast"));
    for (act, body, leaves) in [
        (stream.clone(), &streamed, Reading),
        // Before the head of the answer.
        (late(&stream), &streamed, Waiting),
        (late(&Act::json(short.clone())), &whole, Waiting),
        // After it, while the answer is held.
        (Act::Slow(PAUSE, in_pieces(&short)), &whole, Waiting),
        // One that is too long for that.
        (Act::Slow(PAUSE, in_pieces(&long)), &whole, Waiting),
        (Act::Slow(PAUSE, in_pieces(&long)), &whole, Reading),
    ] {
        let what = format!("{leaves:?}: {:.300}", format!("{act:?}"));
        let provider = Provider::new([act]).await;
        let gateway = finishing(&provider, "on_disconnect = \"finish:10s\"").await;
        leave(&gateway, &provider, body, leaves).await;
        assert_eq!(once(&gateway, 1).await, [exact()], "{what}");
        assert_eq!(provider.left(), 0, "it was told to stop: {what}");
        until("nobody reads on", || gateway.finishing() == 0).await;
        let requests = |status| {
            format!(
                r#"tollgate_requests_total{{api="chat_completions",key="ann",model="fast",status="{status}"}}"#
            )
        };
        let status = if leaves == Reading { "200" } else { "499" };
        until("it is told", || gateway.metric(&requests(status)) == 1.0).await;
        for (metric, want) in [
            (
                r#"tollgate_tokens_total{kind="output",model="fast",target="p/m"}"#,
                3.0,
            ),
            (
                r#"tollgate_tries_total{outcome="answered",target="p/m"}"#,
                1.0,
            ),
            (
                r#"tollgate_streams_total{end="client_gone",target="p/m"}"#,
                f64::from(u8::from(*body == streamed)),
            ),
            (
                r#"tollgate_spend_usd_total{key="ann",model="fast",target="p/m"}"#,
                0.037,
            ),
        ] {
            assert_eq!(gateway.metric(metric), want, "{metric} {what}");
        }
    }
}

#[tokio::test]
async fn its_place_is_free_at_once_and_its_money_when_it_is_known() {
    for (body, leaves) in [
        (chat_stream("fast"), Leaves::Reading),
        (chat_stream("fast"), Leaves::Waiting),
    ] {
        let act = Act::Stall(vec![delta("a")]);
        let act = match leaves {
            Leaves::Reading => act,
            Leaves::Waiting => Act::After(LONG, Box::new(act)),
        };
        let provider = Provider::new([act]).await;
        let gateway = finishing(&provider, "on_disconnect = \"finish:1s\"").await;
        leave(&gateway, &provider, &body, leaves).await;
        until("it is read on", || gateway.finishing() == 1).await;
        until("its place is free", || gateway.in_flight() == 0).await;
        assert_eq!(gateway.finishing(), 1, "{leaves:?}: and is read on still");
        let left = r#"tollgate_budget_remaining_usd{name="ann",scope="key"}"#;
        let held = 10.0 - gateway.metric(left);
        assert_eq!(entered(&gateway), []);
        once(&gateway, 1).await;
        let spent = 10.0 - gateway.metric(left);
        assert!(
            held > spent && spent > 0.0,
            "{leaves:?}: {held} held, {spent} spent"
        );
    }
}

#[tokio::test]
async fn its_connection_is_good_for_another() {
    let provider = Provider::new([Act::Slow(PAUSE, events())]).await;
    let gateway = finishing(&provider, "on_disconnect = \"finish:10s\"").await;
    for n in 1..=4 {
        leave(&gateway, &provider, &chat_stream("fast"), Leaves::Reading).await;
        assert_eq!(once(&gateway, n).await[n - 1], exact());
        until("nobody reads on", || gateway.finishing() == 0).await;
    }
    assert!(
        provider.connections() <= 2,
        "each worker has its own: {}",
        provider.connections()
    );
}

#[tokio::test]
async fn a_client_of_http2_is_no_different() {
    let act = Act::After(PAUSE * 5, Box::new(Act::json(completion("hello"))));
    let provider = Provider::new([act]).await;
    let gateway = finishing(&provider, "on_disconnect = \"finish:10s\"").await;
    let mut sender = ways::connect(&gateway).await;
    let asking = sender.send_request(ways::request(&gateway, chat("fast")));
    let asking = tokio::task::spawn(asking);
    until("the provider has it", || provider.count() == 1).await;
    asking.abort();
    until("its place is free", || gateway.in_flight() == 0).await;
    assert_eq!(once(&gateway, 1).await, [exact()]);
    assert_eq!(provider.left(), 0);
}

#[tokio::test]
async fn what_takes_too_long_is_cut_and_estimated() {
    let stalls = Act::Stall(vec![delta("a"), delta("b")]);
    let (streamed, whole) = (chat_stream("fast"), chat("fast"));
    for (act, body, leaves, seen) in [
        (stalls, &streamed, Leaves::Reading, 2),
        (Act::Hang, &whole, Leaves::Waiting, 0),
    ] {
        let provider = Provider::new([act]).await;
        let gateway = finishing(&provider, "on_disconnect = \"finish:400ms\"").await;
        let began = Instant::now();
        leave(&gateway, &provider, body, leaves).await;
        until("it is read on", || gateway.finishing() == 1).await;
        assert_eq!(provider.left(), 0, "not yet");
        until("the provider is left", || provider.left() == 1).await;
        assert!(began.elapsed() >= Duration::from_millis(400));
        let cost = estimate(body, seen);
        assert_eq!(once(&gateway, 1).await, [estimated(cost)]);
        until("nobody reads on", || gateway.finishing() == 0).await;
        let spend = r#"tollgate_spend_usd_total{key="ann",model="fast",target="p/m"}"#;
        #[expect(clippy::cast_precision_loss, reason = "a metric has fewer digits")]
        let want = cost as f64 / 1e9;
        until("it is counted", || gateway.metric(spend) == want).await;
    }
}

#[tokio::test]
async fn whatever_ends_it_meanwhile_ends_it_at_once() {
    let finish = "tries = 2\non_disconnect = \"finish:60s\"";
    let idle = format!("{finish}\ntimeouts = {{ idle = \"200ms\" }}");
    let total = format!("{finish}\ntimeouts = {{ total = \"400ms\" }}");
    let body = chat_stream("fast");
    let stalls = || Act::Stall(vec![delta("a")]);
    let cut = Act::Slow(PAUSE, vec![delta("a"), delta("b"), delta("c")]);
    for (act, lines, cost) in [
        (cut, finish, estimate(&body, 3)),
        (stalls(), &idle, estimate(&body, 1)),
        (stalls(), &total, estimate(&body, 1)),
    ] {
        let provider = Provider::new([act]).await;
        let gateway = finishing(&provider, lines).await;
        leave(&gateway, &provider, &body, Leaves::Reading).await;
        assert_eq!(once(&gateway, 1).await, [estimated(cost)], "{lines}");
        until("nobody reads on", || gateway.finishing() == 0).await;
    }
}

#[tokio::test]
async fn nobody_else_is_asked_for_whoever_has_left() {
    let late = |act| Act::After(PAUSE * 5, Box::new(act));
    let body = chat("fast");
    for (act, want) in [
        (Act::status(500, "{}"), vec![]),
        (Act::Reset, vec![estimated(estimate(&body, 0))]),
        (Act::json("<html>"), vec![estimated(estimate(&body, 0))]),
    ] {
        let provider = Provider::new([late(act)]).await;
        let other = Provider::new([Act::json(completion("other"))]).await;
        let text = [
            provider_at("p", provider.address, "on_disconnect = \"finish:60s\""),
            provider_at("other", other.address, ""),
            format!(
                "[models.fast]\ntargets = [{{ to = \"p/m\", {PRICE} }}, {{ to = \"other/m\", {PRICE} }}]\n"
            ),
            key("ann", &budget("10")),
        ];
        let gateway = Gateway::start(&text.concat()).await;
        leave(&gateway, &provider, &body, Leaves::Waiting).await;
        until("it is read on", || gateway.finishing() == 1).await;
        until("nobody reads on", || gateway.finishing() == 0).await;
        assert_eq!((provider.count(), other.count()), (1, 0));
        assert_eq!(once(&gateway, want.len()).await, want);
    }
}

#[tokio::test]
async fn who_thinks_is_read_on_by_default() {
    let provider = Provider::new([Act::Slow(PAUSE, events())]).await;
    let gateway = thinking(&provider, "").await;
    let body = chat_stream("fast");
    leave(&gateway, &provider, &body, Leaves::Reading).await;
    assert_eq!(once(&gateway, 1).await, [exact()]);
    assert_eq!(provider.left(), 0);
}

#[tokio::test]
async fn who_thinks_is_charged_the_whole_hold_where_the_usage_never_came() {
    let body = r#"{"model":"fast","stream":true,"max_tokens":50,"messages":[]}"#;
    let most = bound(body, 50);
    let cut = Act::Slow(PAUSE, vec![delta("a"), delta("b"), delta("c")]);
    let stalls = Act::Stall(vec![delta("a")]);
    for (act, lines) in [
        (cut, ""),
        (stalls.clone(), "on_disconnect = \"finish:200ms\""),
        (stalls, "on_disconnect = \"abort\""),
    ] {
        let provider = Provider::new([act]).await;
        let gateway = thinking(&provider, lines).await;
        leave(&gateway, &provider, body, Leaves::Reading).await;
        assert_eq!(once(&gateway, 1).await, [estimated(most)], "{lines}");
    }
}

#[tokio::test]
async fn who_is_to_be_stopped_is_stopped_at_once() {
    let stalls = || Act::Stall(vec![delta("a")]);
    for (lines, act, body, leaves) in [
        ("", stalls(), chat_stream("fast"), Leaves::Reading),
        ("", Act::Hang, chat("fast"), Leaves::Waiting),
        (
            "on_disconnect = \"abort\"",
            stalls(),
            chat_stream("fast"),
            Leaves::Reading,
        ),
        (
            "on_disconnect = \"abort\"",
            Act::Hang,
            chat("fast"),
            Leaves::Waiting,
        ),
    ] {
        let provider = Provider::new([act]).await;
        // What is written goes before what a target that thinks has by default.
        let gateway = match lines {
            "" => finishing(&provider, lines).await,
            _ => thinking(&provider, lines).await,
        };
        leave(&gateway, &provider, &body, leaves).await;
        until("the provider is left", || provider.left() == 1).await;
        assert_eq!(gateway.finishing(), 0);
        let row = once(&gateway, 1).await.remove(0);
        assert_eq!((&*row.end, row.estimated), ("client_gone", true));
        let spend = r#"tollgate_spend_usd_total{key="ann",model="fast",target="p/m"}"#;
        until("it is counted", || gateway.metric(spend) > 0.0).await;
    }
}

#[tokio::test]
async fn nothing_is_read_on_that_was_not_sent() {
    // It accepts no connection: nobody has heard of the request.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let filled: Vec<_> = std::iter::from_fn(|| {
        let address = deaf.local_addr().unwrap();
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok()
    })
    .collect();
    let text = [
        provider_at(
            "p",
            deaf.local_addr().unwrap(),
            "on_disconnect = \"finish:60s\"\ntimeouts = { connect = \"60s\" }",
        ),
        model("fast", &["p/m"], ""),
        key("ann", ""),
    ];
    let gateway = Gateway::start(&text.concat()).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&request(&chat("fast"))).await.unwrap();
    until("it waits", || gateway.in_flight() == 1).await;
    drop(stream);
    until("its place is free", || gateway.in_flight() == 0).await;
    assert_eq!(gateway.finishing(), 0);
    assert_eq!(entered(&gateway), []);
    drop(filled);
}

#[tokio::test]
async fn shutdown_waits_for_it() {
    let body = chat_stream("fast");
    let late = Act::After(PAUSE * 5, Box::new(Act::Slow(PAUSE, events())));
    for (act, leaves) in [
        (Act::Slow(PAUSE, events()), Leaves::Reading),
        (late, Leaves::Waiting),
    ] {
        let provider = Provider::new([act]).await;
        let mut gateway = finishing(&provider, "on_disconnect = \"finish:60s\"").await;
        leave(&gateway, &provider, &body, leaves).await;
        until("it is read on", || gateway.finishing() == 1).await;
        let began = Instant::now();
        let ended = gateway.drained(Duration::ZERO, LONG);
        until("it ended", || ended.is_finished()).await;
        assert!(began.elapsed() < LONG, "it waits no longer than it must");
        assert_eq!(entries_in(gateway.folder()), [exact()]);
        assert_eq!(provider.left(), 0);
    }
}

#[tokio::test]
async fn shutdown_cuts_it_when_time_is_up() {
    let stalls = Act::Stall(vec![delta("a")]);
    let (streamed, whole) = (chat_stream("fast"), chat("fast"));
    for (act, body, leaves, seen) in [
        (stalls, &streamed, Leaves::Reading, 1),
        (Act::Hang, &whole, Leaves::Waiting, 0),
    ] {
        let provider = Provider::new([act]).await;
        let mut gateway = finishing(&provider, "on_disconnect = \"finish:60s\"").await;
        leave(&gateway, &provider, body, leaves).await;
        until("it is read on", || gateway.finishing() == 1).await;
        let ended = gateway.drained(Duration::ZERO, Duration::from_millis(300));
        until("it ended", || ended.is_finished()).await;
        until("the provider is left", || provider.left() == 1).await;
        let want = estimated(estimate(body, seen));
        assert_eq!(entries_in(gateway.folder()), [want]);
    }
}

#[tokio::test]
async fn what_a_shutdown_ends_is_entered_as_that() {
    let head =
        "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 9999999\r\n\r\n";
    let long = longer_than(200 << 10);
    for (act, body, leaves, is_guess) in [
        (Act::Hang, chat("fast"), Leaves::Waiting, true),
        (
            Act::Stall(vec![delta("a")]),
            chat_stream("fast"),
            Leaves::Reading,
            true,
        ),
        // Its usage has been told already.
        (
            Act::Hold([head.as_bytes(), long.as_bytes()].concat()),
            chat("fast"),
            Leaves::Reading,
            false,
        ),
    ] {
        let what = format!("{:.60}", format!("{act:?}"));
        let provider = Provider::new([act]).await;
        let mut gateway = finishing(&provider, "on_disconnect = \"finish:60s\"").await;
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&request(&body)).await.unwrap();
        until("the provider has it", || provider.count() == 1).await;
        if leaves == Leaves::Reading {
            assert!(stream.read(&mut [0; 256]).await.unwrap() > 0);
        }
        let ended = gateway.drained(Duration::ZERO, Duration::from_millis(100));
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        until("it ended", || ended.is_finished()).await;
        let row = entries_in(gateway.folder()).remove(0);
        assert_eq!((&*row.end, row.estimated), ("shutdown", is_guess), "{what}");
    }
}
