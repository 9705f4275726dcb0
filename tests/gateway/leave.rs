//! A client that leaves: its upstream request is cancelled at once, whatever else lies on its connection.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::path::one;
use crate::support::{Act, Gateway, Provider, chat, chat_stream, client, delta, until};

/// At once: what a slow machine under load still keeps to. The clocks that would end it otherwise are minutes away.
const AT_ONCE: Duration = Duration::from_millis(1_500);

pub fn request(body: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer sk-ann\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends bytes to a gateway whose provider never answers, leaves in the way that `leave` says, and waits for the
/// provider to notice.
async fn leaves(sent: &[u8], leave: impl FnOnce(TcpStream) -> Option<TcpStream>) {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    until("the provider has the request", || provider.count() == 1).await;
    assert_eq!(gateway.in_flight(), 1);
    let left = Instant::now();
    let _kept = leave(stream);
    until("the provider is left", || provider.left() == 1).await;
    assert!(left.elapsed() < AT_ONCE, "{:?}", left.elapsed());
    until("the slot is free", || gateway.in_flight() == 0).await;
    // What is counted is told after the slot is free.
    let cancelled = r#"tollgate_tries_total{outcome="cancelled",target="p/big-model"}"#;
    until("it is counted", || gateway.metric(cancelled) == 1.0).await;
    let in_flight = r#"tollgate_in_flight{model="fast"}"#;
    until("it is told", || gateway.metric(in_flight) == 0.0).await;
}

fn close(stream: TcpStream) -> Option<TcpStream> {
    drop(stream);
    None
}

#[tokio::test]
async fn it_closes() {
    leaves(&request(&chat("fast")), close).await;
}

#[tokio::test]
async fn it_resets() {
    leaves(&request(&chat("fast")), |stream| {
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        close(stream)
    })
    .await;
}

#[tokio::test]
async fn it_only_stops_sending() {
    leaves(&request(&chat("fast")), |stream| {
        socket2::SockRef::from(&stream)
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        Some(stream)
    })
    .await;
}

#[tokio::test]
async fn it_closes_after_a_stray_line() {
    leaves(&[&request(&chat("fast"))[..], b"\r\n"].concat(), close).await;
}

#[tokio::test]
async fn it_closes_after_a_request_sent_ahead() {
    let one = request(&chat("fast"));
    leaves(&[&one[..], &one[..]].concat(), close).await;
}

#[tokio::test]
async fn it_closes_before_its_body_is_complete() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let whole = request(&chat("fast"));
    stream.write_all(&whole[..whole.len() - 5]).await.unwrap();
    until("the gateway reads", || gateway.in_flight() == 1).await;
    drop(stream);
    until("the slot is free", || gateway.in_flight() == 0).await;
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn it_closes_in_the_middle_of_a_stream_that_flows() {
    let events: Vec<String> = (0..10_000).map(|n| delta(&n.to_string())).collect();
    let provider = Provider::new([Act::Stream(events)]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut coming = client::open(
        gateway.address,
        "/v1/chat/completions",
        "sk-ann",
        chat_stream("fast"),
    )
    .await;
    coming.piece().await.unwrap().unwrap();
    drop(coming);
    let left = Instant::now();
    until("the provider is left", || provider.left() == 1).await;
    assert!(left.elapsed() < AT_ONCE);
    let gone = r#"tollgate_streams_total{end="client_gone",target="p/big-model"}"#;
    until("it is counted", || gateway.metric(gone) == 1.0).await;
    assert_eq!(gateway.in_flight(), 0);
}

/// The provider says nothing and a second request lies on the connection: nobody reads or writes, and still.
#[tokio::test]
async fn it_closes_in_the_middle_of_a_stream_that_is_silent() {
    let provider = Provider::new([Act::Stall(vec![delta("a")])]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    for extra in [&b""[..], b"\r\n", &request(&chat("fast"))] {
        let before = provider.left();
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream
            .write_all(&[&request(&chat_stream("fast"))[..], extra].concat())
            .await
            .unwrap();
        let mut some = [0; 1024];
        assert!(stream.read(&mut some).await.unwrap() > 0);
        drop(stream);
        let left = Instant::now();
        until("the provider is left", || provider.left() == before + 1).await;
        assert!(left.elapsed() < AT_ONCE);
    }
    until("all slots are free", || gateway.in_flight() == 0).await;
}
