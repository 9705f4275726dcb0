//! The ways in: sockets in the file system, and HTTP/2 on the same listener as HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::path::one;
use crate::support::client::Socket;
use crate::support::frames::{
    self, CONTINUATION, DATA, GOAWAY, HEADERS, PREFACE, RESET, WINDOW, frame, literal, rest,
};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, ask, chat, chat_stream, completion, delta, until,
};

/// A connection that speaks HTTP/2 from its first byte.
pub async fn connect(gateway: &Gateway) -> SendRequest<Full<Bytes>> {
    connect_with(gateway, 65_535).await
}

/// With so much room for each answer, in bytes.
async fn connect_with(gateway: &Gateway, room: u32) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(room)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::task::spawn(async move {
        let _ = connection.await;
    });
    sender
}

pub fn request(gateway: &Gateway, body: String) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{}{CHAT}", gateway.address))
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-ann")
        .body(Full::new(body.into()))
        .unwrap()
}

async fn text(body: hyper::body::Incoming) -> String {
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let sender = connect(&gateway).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (mut sender, request) = (sender.clone(), request(&gateway, chat("fast")));
        asked.spawn(async move {
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.version()),
                (200, Version::HTTP_2)
            );
            assert!(
                answer.headers()["x-request-id"]
                    .to_str()
                    .unwrap()
                    .starts_with("req_")
            );
            text(answer.into_body()).await
        });
    }
    for answer in asked.join_all().await {
        assert_eq!(answer, completion("x"));
    }
    assert_eq!(gateway.metric("tollgate_connections"), 1.0);
    assert_eq!(provider.count(), 100);
}

#[tokio::test]
async fn streams_flow_side_by_side_and_one_that_is_left_stops_its_provider_alone() {
    let stays = Act::Slow(
        Duration::from_millis(50),
        [delta("a"), delta("b"), FINISH.into(), DONE.into()].to_vec(),
    );
    let provider = Provider::new([Act::Stall(vec![delta("first")]), stays]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut sender = connect(&gateway).await;
    let left = sender
        .send_request(request(&gateway, chat_stream("fast")))
        .await
        .unwrap();
    let mut left = left.into_body();
    let piece = left.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece, delta("first"));
    let other = sender
        .send_request(request(&gateway, chat_stream("fast")))
        .await
        .unwrap();
    drop(left);
    until("the provider is told to stop", || provider.left() == 1).await;
    let want = [delta("a"), delta("b"), FINISH.into(), DONE.into()].concat();
    assert_eq!(text(other.into_body()).await, want);
    until("nothing is under way", || gateway.in_flight() == 0).await;
    assert_eq!(gateway.metric("tollgate_connections"), 1.0);
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_here_too() {
    let provider = Provider::new([Act::Cut(vec![delta("a")])]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut sender = connect(&gateway).await;
    let answer = sender
        .send_request(request(&gateway, chat_stream("fast")))
        .await
        .unwrap();
    let text = text(answer.into_body()).await;
    assert!(
        text.starts_with(&delta("a")) && text.contains("\"code\":\"upstream_error\""),
        "{text}"
    );
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_resets_its_stream() {
    let body = format!("{{\"x\":\"{}", "y".repeat(200_000));
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n";
    let provider = Provider::new([Act::Raw([head, &body].concat().into_bytes())]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut sender = connect(&gateway).await;
    let answer = sender
        .send_request(request(&gateway, chat("fast")))
        .await
        .unwrap();
    assert!(answer.into_body().collect().await.is_err());
}

#[tokio::test]
async fn errors_of_ours_are_told_here_too() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::with("max_body = \"1KiB\"", &one(&provider)).await;
    let mut sender = connect(&gateway).await;
    let mut status = async |change: &dyn Fn(&mut Request<Full<Bytes>>)| {
        let mut request = request(&gateway, chat("fast"));
        change(&mut request);
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        (status, text(answer.into_body()).await)
    };
    let evil = |request: &mut Request<Full<Bytes>>| {
        *request.uri_mut() = "http://evil.example/v1/models".parse().unwrap();
    };
    let (code, said) = status(&evil).await;
    assert!(code == 403 && said.contains("host_not_allowed"), "{said}");
    let (code, said) = status(&|request| *request.body_mut() = Full::from(" ".repeat(2000))).await;
    assert!(code == 413 && said.contains("request_too_large"), "{said}");
    let (code, _) = status(&|request| drop(request.headers_mut().remove("authorization"))).await;
    assert_eq!(code, 401);
    let (code, said) = status(&|_| ()).await;
    assert_eq!((code, said), (200, completion("x")));
}

// --- HTTP/2, frame by frame ---

#[tokio::test]
async fn requests_that_are_reset_as_fast_as_they_come_end_the_connection() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut stream = frames::open(gateway.address, &[]).await;
    let (head, body) = (frames::head(gateway.address), chat("fast"));
    let mut sent = Vec::new();
    for n in 0..2000 {
        let id = 2 * n + 1;
        sent.extend(frame(HEADERS, 0x4, id, &head));
        sent.extend(frame(DATA, 0x1, id, body.as_bytes()));
        sent.extend(frame(RESET, 0, id, &8_u32.to_be_bytes()));
    }
    // Whoever is hung up on cannot write to the end.
    let _ = stream.write_all(&sent).await;
    assert!(rest(stream).await.contains(&GOAWAY));
    until("nothing is under way", || gateway.in_flight() == 0).await;
    assert!(provider.count() < 200, "{} went on", provider.count());
    let provider_well = Provider::new([Act::json(completion("x"))]).await;
    gateway.apply(&one(&provider_well)).unwrap();
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut stream = frames::open(gateway.address, &[]).await;
    let mut sent = frame(HEADERS, 0, 1, &frames::head(gateway.address));
    let more = literal("x-more", &"y".repeat(100)).repeat(100);
    for _ in 0..1000 {
        sent.extend(frame(CONTINUATION, 0, 1, &more));
    }
    let _ = stream.write_all(&sent).await;
    rest(stream).await;
    assert_eq!(provider.count(), 0);
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
}

/// A chat request, as frames.
fn asked(gateway: &Gateway, id: u32) -> Vec<u8> {
    let head = frame(HEADERS, 0x4, id, &frames::head(gateway.address));
    [head, frame(DATA, 0x1, id, chat("fast").as_bytes())].concat()
}

#[tokio::test]
async fn an_answer_that_its_client_makes_no_room_for_is_reset() {
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20));
    let provider = Provider::new([Act::json(long), Act::json(completion("x"))]).await;
    let server = "write_timeout = \"200ms\"\nidle_timeout = \"600ms\"\nheader_timeout = \"60s\"";
    let gateway = Gateway::with(server, &one(&provider)).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0: the connection is read, this answer never.
    let mut stream = frames::open(gateway.address, &[0, 4, 0, 0, 0, 0]).await;
    stream.write_all(&asked(&gateway, 1)).await.unwrap();
    let kinds = rest(stream).await;
    let reset = kinds.iter().position(|kind| *kind == RESET);
    let left = kinds.iter().position(|kind| *kind == GOAWAY);
    assert!(reset.is_some() && reset < left, "{kinds:?}");
    until("nothing is under way", || gateway.in_flight() == 0).await;
    assert_eq!(ask(&gateway, chat("fast")).await.text(), completion("x"));
}

#[tokio::test]
async fn answers_keep_their_places_until_they_are_taken_or_left() {
    const COUNT: u32 = 10;
    let long = completion(&"y".repeat(40_000));
    let provider = Provider::new([Act::json(long)]).await;
    let server = "write_timeout = \"1500ms\"\nidle_timeout = \"300ms\"";
    let gateway = Gateway::with(server, &one(&provider)).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 1: each answer begins, and none goes on.
    let mut stream = frames::open(gateway.address, &[0, 4, 0, 0, 0, 1]).await;
    for n in 0..COUNT {
        let asked = asked(&gateway, 2 * n + 1);
        stream.write_all(&asked).await.unwrap();
    }
    let mut begun = 0;
    while begun < COUNT {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        begun += u32::from(head[3] == DATA);
    }
    assert_eq!(gateway.in_flight(), COUNT as usize);
    let kinds = rest(stream).await;
    let mut resets = kinds.clone();
    resets.retain(|kind| *kind == RESET);
    assert_eq!(resets.len(), COUNT as usize, "{kinds:?}");
    until("nothing is under way", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn an_answer_that_is_not_read_does_not_end_the_others() {
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20));
    let mut events: Vec<String> = (0..15).map(|n| delta(&n.to_string())).collect();
    events.extend([FINISH.into(), DONE.into()]);
    let slow = Act::Slow(Duration::from_millis(100), events.clone());
    let provider = Provider::new([Act::json(long), slow]).await;
    let gateway = Gateway::with("write_timeout = \"400ms\"", &one(&provider)).await;
    let mut sender = connect_with(&gateway, 10_000).await;
    let left = request(&gateway, chat("fast"));
    let left = sender.send_request(left).await.unwrap();
    let read = request(&gateway, chat_stream("fast"));
    let read = sender.send_request(read).await.unwrap();
    assert_eq!(text(read.into_body()).await, events.concat());
    assert!(left.into_body().collect().await.is_err(), "it was reset");
}

#[tokio::test]
async fn a_client_that_takes_its_answer_bit_by_bit_is_not_idle() {
    let long = completion(&"y".repeat(40_000));
    let provider = Provider::new([Act::json(long.clone())]).await;
    let server = "write_timeout = \"1s\"\nidle_timeout = \"300ms\"";
    let gateway = Gateway::with(server, &one(&provider)).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 4000, and as much again every fifth of a second.
    let mut stream = frames::open(gateway.address, &[0, 4, 0, 0, 15, 160]).await;
    stream.write_all(&asked(&gateway, 1)).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let grows = tokio::task::spawn(async move {
        let more = frame(WINDOW, 0, 1, &4000_u32.to_be_bytes());
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        while writer.write_all(&more).await.is_ok() {
            tick.tick().await;
        }
    });
    let mut bytes = Vec::new();
    let reading = reader.read_to_end(&mut bytes);
    let closed = tokio::time::timeout(Duration::from_secs(10), reading).await;
    assert!(closed.is_ok(), "idle in the end");
    assert!(bytes.len() > long.len(), "cut after {}", bytes.len());
    grows.abort();
}

#[tokio::test]
async fn a_connection_that_only_says_what_it_speaks_is_idle() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let server = "header_timeout = \"100ms\"\nidle_timeout = \"400ms\"";
    let gateway = Gateway::with(server, &one(&provider)).await;
    // Half of a preface is half of a head.
    let mut half = Socket::to(gateway.address).await;
    half.write(&PREFACE[..10]).await;
    assert_eq!(half.rest().await, "");
    let stream = frames::open(gateway.address, &[]).await;
    let began = tokio::time::Instant::now();
    assert!(rest(stream).await.contains(&GOAWAY), "it is told");
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "a head's clock rang"
    );
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_takes_no_more() {
    let events = [delta("a"), FINISH.into(), DONE.into()];
    let provider = Provider::new([Act::Slow(Duration::from_millis(100), events.to_vec())]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let (mut sender, request) = (
        connect(&gateway).await,
        request(&gateway, chat_stream("fast")),
    );
    let answer = sender.send_request(request).await.unwrap();
    let draining = gateway.drain(Duration::ZERO, Duration::from_secs(5));
    assert_eq!(text(answer.into_body()).await, events.concat());
    tokio::task::spawn_blocking(move || draining.join().unwrap())
        .await
        .unwrap();
    assert!(sender.ready().await.is_err());
}

// --- Sockets in the file system ---

/// A gateway that listens at a path, and the folder of it.
async fn at_a_path(text: &str) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.sock");
    let listen = format!("listen = \"unix:{}\"", path.display());
    let gateway = Gateway::listening(&listen, text).await;
    (gateway, folder)
}

#[tokio::test]
async fn a_socket_in_the_file_system_serves_chats_streams_and_http2() {
    let acts = [
        Act::json(completion("x")),
        Act::events([delta("a"), FINISH.into(), DONE.into()]),
        Act::json(completion("y")),
        Act::Hang,
    ];
    let provider = Provider::new(acts).await;
    let (gateway, folder) = at_a_path(&one(&provider)).await;
    let path = folder.path().join("t.sock");
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let head = |body: &str| {
        format!(
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\napi-key: sk-ann\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    stream
        .write_all(head(&chat("fast")).as_bytes())
        .await
        .unwrap();
    let mut came = Vec::new();
    while !String::from_utf8_lossy(&came).ends_with(&completion("x")) {
        assert!(stream.read_buf(&mut came).await.unwrap() > 0);
    }
    stream
        .write_all(head(&chat_stream("fast")).as_bytes())
        .await
        .unwrap();
    while !String::from_utf8_lossy(&came).ends_with("\r\n0\r\n\r\n") {
        assert!(stream.read_buf(&mut came).await.unwrap() > 0);
    }

    let second = UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(second))
        .await
        .unwrap();
    tokio::task::spawn(connection);
    let mut asked = request(&gateway, chat("fast"));
    *asked.uri_mut() = format!("http://localhost{CHAT}").parse().unwrap();
    let answer = sender.send_request(asked).await.unwrap();
    assert_eq!(text(answer.into_body()).await, completion("y"));

    // Who leaves is noticed here as well.
    stream
        .write_all(head(&chat("fast")).as_bytes())
        .await
        .unwrap();
    until("it is asked", || provider.count() == 4).await;
    drop(stream);
    until("the provider is told to stop", || provider.left() == 1).await;
    until("nothing is under way", || gateway.in_flight() == 0).await;
    drop(gateway);
    until("the socket is taken away", || !path.exists()).await;
}
