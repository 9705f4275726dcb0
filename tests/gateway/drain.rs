//! Told to stop: readiness drops, what is under way finishes, what does not finish is told why.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::path::one;
use crate::support::client::{self, get, open};
use crate::support::frames;
use crate::support::{Act, DONE, FINISH, Gateway, Provider, chat, chat_stream, delta, until};
use crate::ways::{connect, request};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn answers_under_way_finish() {
    let events = (0..100)
        .map(|n| delta(&n.to_string()))
        .chain([FINISH.into(), DONE.into()]);
    let provider = Provider::new([Act::events(events)]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let address = gateway.address;
    let mut coming = open(
        address,
        "/v1/chat/completions",
        "sk-ann",
        chat_stream("fast"),
    )
    .await;
    coming.piece().await.unwrap().unwrap();
    let began = Instant::now();
    let ended = gateway.drain(Duration::ZERO, LONG);
    let (rest, complete) = coming.rest().await;
    assert!(complete && String::from_utf8_lossy(&rest).ends_with(DONE));
    until("it ended", || ended.is_finished()).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it does not wait for longer than it must"
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn none_of_500_streams_is_cut_that_ends_within_the_drain() {
    let (tell, told) = tokio::sync::watch::channel(());
    let rest = vec![delta("b"), FINISH.into(), DONE.into()];
    let provider = Provider::new([Act::Gated(vec![delta("a")], told, rest)]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let address = gateway.address;
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..500 {
        streams.spawn(async move {
            let path = "/v1/chat/completions";
            let mut coming = open(address, path, "sk-ann", chat_stream("fast")).await;
            coming.piece().await.unwrap().unwrap();
            coming
        });
    }
    let streams = streams.join_all().await;
    assert_eq!(gateway.in_flight(), 500);
    let ended = gateway.drain(Duration::ZERO, LONG);
    until("nobody listens any more", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    tell.send_replace(());
    for coming in streams {
        let (rest, complete) = coming.rest().await;
        let rest = String::from_utf8_lossy(&rest);
        assert!(complete && rest.ends_with(DONE), "it was cut: {rest}");
    }
    until("it ended", || ended.is_finished()).await;
}

#[tokio::test]
async fn answers_that_take_too_long_end_with_an_error() {
    let provider = Provider::new([Act::Stall(vec![delta("a")]), Act::Hang]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let address = gateway.address;
    let stream = open(
        address,
        "/v1/chat/completions",
        "sk-ann",
        chat_stream("fast"),
    )
    .await;
    let waiting = tokio::task::spawn(async move {
        client::whole(open(address, "/v1/chat/completions", "sk-ann", chat("fast")).await).await
    });
    until("both are under way", || provider.count() == 2).await;
    let ended = gateway.drain(Duration::ZERO, Duration::from_millis(200));
    let (rest, complete) = stream.rest().await;
    let text = String::from_utf8_lossy(&rest).into_owned();
    assert!(
        complete && text.contains(r#""code":"shutting_down""#) && !text.contains("[DONE]"),
        "{text}"
    );
    let answer = waiting.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (503, "shutting_down")
    );
    until("it ended", || ended.is_finished()).await;
    until("the provider is told to stop", || provider.left() == 2).await;
}

#[tokio::test]
async fn answers_over_http2_that_take_too_long_end_with_an_error() {
    let provider = Provider::new([Act::Stall(vec![delta("a")]), Act::Hang]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut sender = connect(&gateway).await;
    let stream = request(&gateway, chat_stream("fast"));
    let stream = sender.send_request(stream).await.unwrap();
    let second = request(&gateway, chat("fast"));
    let waiting = tokio::task::spawn(async move { sender.send_request(second).await });
    until("both are under way", || provider.count() == 2).await;
    let ended = gateway.drain(Duration::ZERO, Duration::from_millis(200));
    let body = stream.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(
        text.starts_with(&delta("a"))
            && text.contains(r#""code":"shutting_down""#)
            && !text.contains("[DONE]"),
        "{text}"
    );
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(text.contains(r#""code":"shutting_down""#), "{text}");
    until("it ended", || ended.is_finished()).await;
    until("the provider is told to stop", || provider.left() == 2).await;
}

#[tokio::test]
async fn a_client_of_http2_that_sleeps_does_not_hold_it_up() {
    let gateway = Gateway::start("[providers.echo]\n").await;
    // It never says that it heard the goodbye.
    let mut asleep = frames::open(gateway.address, &[]).await;
    assert!(asleep.read_u8().await.is_ok(), "it is spoken to");
    let ended = gateway.drain(Duration::ZERO, LONG);
    until("it ended", || ended.is_finished()).await;
}

#[tokio::test]
async fn readiness_drops_before_the_listeners_close() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let (address, admin) = (gateway.address, gateway.admin);
    let running = gateway.running.as_ref().unwrap().gateway.clone();
    let ended = gateway.drain(Duration::from_millis(400), LONG);
    until("readiness drops", || {
        running.draining.load(std::sync::atomic::Ordering::Acquire)
    })
    .await;
    for address in [address, admin] {
        assert_eq!(get(address, "/health/ready", "").await.status, 503);
        assert_eq!(get(address, "/health/live", "").await.status, 200);
    }
    until("it ended", || ended.is_finished()).await;
}

#[tokio::test]
async fn who_waits_in_the_queue_does_not_hold_it_up() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::with("max_connections = 1", &one(&provider)).await;
    let address = gateway.address;
    let _served = TcpStream::connect(address).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(TcpStream::connect(address).await.unwrap());
    }
    let ended = gateway.drain(Duration::ZERO, Duration::from_millis(100));
    until("it ended", || ended.is_finished()).await;
}
