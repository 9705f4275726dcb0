//! Bad answers from providers: no client takes them for good ones, they cost a bounded amount of memory, and the next
//! request is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::errors::complaint;
use crate::hostile::{BOUND, peak, request, serves_on, with};
use crate::path::one;
use crate::support::client::{self, Socket, get};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, ask, chat, chat_stream, completion, delta, model,
    provider_at, until,
};

/// What a long answer that is only passed on may make this process grow by.
const LITTLE: u64 = 32 << 20;

/// The head of a stream, but for further lines.
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

#[tokio::test]
async fn a_line_without_end_ends_the_stream_with_an_error() {
    let start = format!("{HEAD}\r\n{}data: ", delta("a"));
    let (provider, gateway) = with(Act::Endless(start.into(), vec![b'x'; 1 << 20])).await;
    let answer = ask(&gateway, chat_stream("fast")).await;
    let text = answer.text();
    let rest = text
        .strip_prefix(&delta("a"))
        .unwrap_or_else(|| panic!("{} bytes", text.len()));
    let error: serde_json::Value =
        serde_json::from_str(rest.trim().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_error");
    assert_eq!(error["error"]["message"], "an event is longer than 16 MiB");
    until("the provider is told to stop", || provider.left() == 1).await;
    let line = r#"tollgate_streams_total{end="truncated",target="p/big-model"}"#;
    until("it is counted", || gateway.metric(line) == 1.0).await;
    assert!(peak() < BOUND, "{}", peak());
    serves_on(&gateway).await;
}

#[tokio::test]
async fn an_event_of_endless_lines_ends_the_stream_with_an_error() {
    let start = format!("{HEAD}\r\n{}", delta("a"));
    let lines = format!("data: {}\n", "x".repeat(8000)).repeat(100);
    let (provider, gateway) = with(Act::Endless(start.into(), lines.into_bytes())).await;
    let answer = ask(&gateway, chat_stream("fast")).await;
    assert!(answer.text().contains("an event is longer than 16 MiB"));
    until("the provider is told to stop", || provider.left() == 1).await;
    assert!(peak() < BOUND, "{}", peak());
    serves_on(&gateway).await;
}

#[tokio::test]
async fn fields_without_end_that_are_no_data_are_bounded_too() {
    let start = format!("{HEAD}\r\n{}", delta("a"));
    let lines = format!("id: {}\n", "x".repeat(8000)).repeat(100);
    let (provider, gateway) = with(Act::Endless(start.into(), lines.into_bytes())).await;
    let reading = ask(&gateway, chat_stream("fast"));
    let answer = tokio::time::timeout(Duration::from_secs(2), reading).await;
    assert!(
        peak() < BOUND,
        "{} MiB held of an event that never ends",
        peak() >> 20
    );
    let text = answer.expect("it has no end").text();
    assert!(text.contains("upstream_error"), "{text}");
    until("the provider is told to stop", || provider.left() == 1).await;
}

#[tokio::test]
async fn nonsense_in_the_middle_of_a_stream_ends_it_with_an_error() {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = format!(
        "{HEAD}transfer-encoding: chunked\r\n\r\n{}",
        chunk(&delta("a"))
    );
    for nonsense in [
        "zz\r\n",
        "ffffffffffffffffff\r\n",
        "5;\r\nab",
        "-1\r\n",
        "0\r\nbad trailer\r\n\r\n",
    ] {
        let (_provider, gateway) = with(Act::Raw(format!("{head}{nonsense}").into_bytes())).await;
        let text = ask(&gateway, chat_stream("fast")).await.text();
        let rest = text
            .strip_prefix(&delta("a"))
            .unwrap_or_else(|| panic!("{text}"));
        assert!(
            rest.contains("\"code\":\"upstream_error\"") && !rest.contains("[DONE]"),
            "{nonsense}: {text}"
        );
        serves_on(&gateway).await;
    }
}

#[tokio::test]
async fn a_provider_with_too_much_of_a_head_is_no_provider() {
    let long = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n", "y".repeat(2 << 20));
    let many = (0..5000)
        .map(|n| format!("x-{n}: 1\r\n"))
        .collect::<Vec<_>>()
        .concat();
    for act in [
        Act::Raw(format!("{long}\r\n{{}}").into_bytes()),
        Act::Raw(format!("HTTP/1.1 200 OK\r\n{many}\r\n{{}}").into_bytes()),
        Act::Endless(
            "HTTP/1.1 200 OK\r\n".into(),
            b"x-again: and again\r\n".repeat(1000),
        ),
        Act::Endless("HTTP/1.1 200 OK\r\nx: ".into(), vec![b'y'; 1 << 16]),
        Act::Raw(b"HTTP/1.1 999999 OK\r\n\r\n".to_vec()),
        Act::Raw(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nhello".to_vec(),
        ),
        Act::Raw(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
                .to_vec(),
        ),
        Act::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
    ] {
        let (_provider, gateway) = with(act).await;
        complaint(&ask(&gateway, chat("fast")).await, 502, "upstream_error");
        assert!(peak() < BOUND, "{}", peak());
        serves_on(&gateway).await;
    }
}

#[tokio::test]
async fn words_before_an_answer_are_no_answer() {
    let body = completion("after");
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let answer = format!(
        "{early}HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (_provider, gateway) = with(Act::Raw(answer.into_bytes())).await;
    let answer = ask(&gateway, chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text(), answer.header("link")),
        (200, body, None)
    );
}

#[tokio::test]
async fn words_before_an_answer_that_never_comes_run_into_the_clock() {
    let early = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(40_000);
    let provider = Provider::new([Act::Endless(vec![], early), Act::json(completion("x"))]).await;
    let text = one(&provider).replace(
        "base_url",
        "tries = 1\ntimeouts = { first_byte = \"300ms\" }\nbase_url",
    );
    let gateway = Gateway::start(&text).await;
    let asking = ask(&gateway, chat("fast"));
    // Ten seconds, though the clock is set to less than one: without optimization a poll of this takes long.
    let answer = tokio::time::timeout(Duration::from_secs(10), asking)
        .await
        .expect("the clock never rang");
    assert!(
        [502, 504].contains(&answer.status.as_u16()),
        "{}",
        answer.text()
    );
    until("the provider is told to stop", || provider.left() == 1).await;
    serves_on(&gateway).await;
}

#[tokio::test]
async fn an_answer_of_deep_brackets_exhausts_nothing() {
    let (open, close) = ("[".repeat(500_000), "]".repeat(500_000));
    for body in [
        format!(r#"{{"choices":{open}{close}}}"#),
        format!(r#"{{"usage":{open}{close},"error":{open}{close}}}"#),
        format!(r#"{{"choices":{open}"#),
    ] {
        let (_provider, gateway) = with(Act::json(body.clone())).await;
        let answer = ask(&gateway, chat("fast")).await;
        assert!(
            [200, 502].contains(&answer.status.as_u16()),
            "{}",
            answer.status
        );
        serves_on(&gateway).await;

        let event = format!("data: {body}\n\n");
        let (_provider, gateway) =
            with(Act::events([delta("a"), event.clone(), DONE.into()])).await;
        let text = ask(&gateway, chat_stream("fast")).await.text();
        // What it calls an error is one, however deep; the rest is passed on.
        assert!(text.ends_with(DONE) || text.ends_with(&event));
        serves_on(&gateway).await;
    }
}

#[tokio::test]
async fn headers_of_a_provider_cannot_pose_as_ours() {
    let act = Act::json(completion("a"))
        .with("x-request-id", "req_theirs")
        .with("x-tollgate-target", "theirs")
        .with("x-tollgate-tries", "99")
        .with("x-tollgate-dropped", "model")
        .with("connection", "x-hop")
        .with("x-hop", "1");
    let (_provider, gateway) = with(act).await;
    let answer = ask(&gateway, chat("fast")).await;
    assert_ne!(answer.header("x-request-id"), Some("req_theirs"));
    assert_eq!(answer.header("x-tollgate-target"), Some("p/big-model"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    assert_eq!(answer.header("x-tollgate-dropped"), None);
    assert_eq!(answer.header("x-hop"), None);
}

#[tokio::test]
async fn an_answer_that_goes_on_after_its_end_does_not_poison_the_next() {
    let body = completion("first");
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}{poison}",
        body.len()
    );
    let (_provider, gateway) = with(Act::Hold(answer.into_bytes())).await;
    let mut socket = Socket::to(gateway.address).await;
    socket.write(request("", &chat("fast"))).await;
    assert_eq!(socket.answer().await.text(), body);
    // On the same connection, so that the same worker and its pool serve it.
    socket.write(request("", &chat("fast"))).await;
    assert_eq!(socket.answer().await.text(), completion("x"));
}

#[tokio::test]
async fn an_endless_answer_to_a_client_that_left_is_stopped() {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let start = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
    let act = Act::Endless(
        start.into(),
        chunk(&delta("again").repeat(500)).into_bytes(),
    );
    let provider = Provider::new([act]).await;
    let text = provider_at("p", provider.address, "") + &model("fast", &["p/x"], "");
    let gateway = Gateway::start(&text).await;
    let mut coming = client::open(gateway.address, CHAT, "", chat_stream("fast")).await;
    for _ in 0..10 {
        coming.piece().await.unwrap().unwrap();
    }
    drop(coming);
    until("the provider is told to stop", || provider.left() == 1).await;
    until("its place is free", || gateway.in_flight() == 0).await;
    assert_eq!(get(gateway.address, "/health", "").await.status, 200);
}

/// About a hundred kilobytes of comments.
fn comments() -> Vec<u8> {
    format!(": {}\n\n", "x".repeat(1000)).repeat(100).into()
}

/// An answer whose length is told.
fn told(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{line}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into()
}

/// A body in one chunk, without its end.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// That the stream has a beginning, then one error of ours, and nothing more.
#[track_caller]
fn breaks_off_after(text: &str, beginning: &str) {
    let rest = text
        .strip_prefix(beginning)
        .unwrap_or_else(|| panic!("{text}"));
    let event = rest
        .strip_prefix("data: ")
        .unwrap_or_else(|| panic!("{text}"));
    let error: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(error["error"]["code"], "upstream_error", "{text}");
}

#[tokio::test]
async fn a_hundred_mebibytes_of_comments_before_anything_else_are_no_answer() {
    let said = [delta("a"), FINISH.into(), DONE.into()].concat();
    let head = format!("{HEAD}\r\n");
    let act = Act::Repeat(head.into(), comments(), 1_000, said.into());
    let (provider, gateway) = with(act).await;
    let before = peak();
    let answer = ask(&gateway, chat_stream("fast")).await;
    let message = complaint(&answer, 502, "upstream_error");
    assert!(message.contains("64 KiB of its stream"), "{message}");
    until("the provider is told to stop", || provider.left() == 1).await;
    assert!(peak() - before < LITTLE, "{}", peak() - before);
    serves_on(&gateway).await;
}

#[tokio::test]
async fn a_comment_without_end_is_no_answer() {
    let head = format!("{HEAD}\r\n: ");
    let (provider, gateway) = with(Act::Endless(head.into(), vec![b'x'; 1 << 20])).await;
    complaint(
        &ask(&gateway, chat_stream("fast")).await,
        502,
        "upstream_error",
    );
    until("the provider is told to stop", || provider.left() == 1).await;
    assert!(peak() < BOUND, "{}", peak());
    serves_on(&gateway).await;
}

#[tokio::test]
async fn comments_that_come_slowly_run_into_the_clock() {
    let slow = Act::Slow(Duration::from_millis(20), vec![": ping\n\n".into(); 500]);
    let provider = Provider::new([slow, Act::json(completion("x"))]).await;
    let clock = "tries = 1\ntimeouts = { first_content = \"300ms\" }\nbase_url";
    let gateway = Gateway::start(&one(&provider).replace("base_url", clock)).await;
    let answer = ask(&gateway, chat_stream("fast")).await;
    let message = complaint(&answer, 504, "upstream_timeout");
    assert!(message.contains("the first content clock"), "{message}");
    until("the provider is told to stop", || provider.left() == 1).await;
    serves_on(&gateway).await;
}

#[tokio::test]
async fn a_hundred_mebibytes_of_comments_after_content_pass_and_are_not_kept() {
    let (first, last) = (delta("a"), [FINISH, DONE].concat());
    let head = format!("{HEAD}\r\n{first}");
    let act = Act::Repeat(head.into(), comments(), 1_000, last.clone().into());
    let (provider, gateway) = with(act).await;
    let before = peak();
    let mut coming = client::open(gateway.address, CHAT, "sk-ann", chat_stream("fast")).await;
    let (mut length, mut end) = (0, Vec::new());
    while let Some(piece) = coming.piece().await {
        let piece = piece.unwrap();
        length += piece.len();
        end.extend_from_slice(&piece);
        end.drain(..end.len().saturating_sub(last.len()));
    }
    assert_eq!(length, first.len() + 1_000 * comments().len() + last.len());
    assert_eq!(String::from_utf8(end).unwrap(), last);
    assert!(peak() - before < LITTLE, "{}", peak() - before);
    assert_eq!(provider.left(), 0);
    let line = r#"tollgate_streams_total{end="complete",target="p/big-model"}"#;
    until("it is counted", || gateway.metric(line) == 1.0).await;
    serves_on(&gateway).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_provider_back() {
    let head = format!("{HEAD}\r\n{}", delta("a"));
    let (provider, gateway) = with(Act::Endless(head.into(), comments())).await;
    let before = peak();
    let mut socket = Socket::to(gateway.address).await;
    socket.write(request("", &chat_stream("fast"))).await;
    let (mut last, mut still) = (0, 0);
    until("the provider cannot get rid of any more", || {
        let written = provider.written();
        still = if written == last { still + 1 } else { 0 };
        last = written;
        written > 0 && still > 30
    })
    .await;
    // What lies on the way are the buffers of four sockets, which are the system's.
    assert!(last < 64 << 20, "{last} bytes were taken");
    assert!(peak() - before < LITTLE, "{}", peak() - before);
    assert_eq!(provider.left(), 0);
    drop(socket);
    until("the provider is told to stop", || provider.left() == 1).await;
    serves_on(&gateway).await;
}

#[tokio::test]
async fn an_event_of_twenty_mebibytes_is_too_long_wherever_it_comes() {
    let long = delta(&"x".repeat(20 << 20));
    for first in ["", &delta("a")] {
        let said = format!("{HEAD}\r\n{first}{long}{DONE}");
        let (_provider, gateway) = with(Act::Raw(said.into())).await;
        let answer = ask(&gateway, chat_stream("fast")).await;
        if first.is_empty() {
            complaint(&answer, 502, "upstream_error");
        } else {
            breaks_off_after(&answer.text(), first);
            assert!(answer.text().contains("longer than 16 MiB"));
        }
        assert!(peak() < BOUND, "{}", peak());
        serves_on(&gateway).await;
    }
}

#[tokio::test]
async fn nobody_is_sent_elsewhere_by_a_provider() {
    for status in [301, 302, 303, 307, 308] {
        for body in [chat("fast"), chat_stream("fast")] {
            let elsewhere = Provider::new([Act::json(completion("elsewhere"))]).await;
            let place = format!("http://{}{CHAT}", elsewhere.address);
            let (provider, gateway) =
                with(Act::status(status, "{}").with("location", &place)).await;
            let answer = ask(&gateway, body).await;
            let message = complaint(&answer, 502, "upstream_error");
            assert!(message.contains(&format!("answered {status}")), "{message}");
            assert_eq!(answer.header("location"), None);
            assert_eq!((provider.count(), elsewhere.connections()), (1, 0));
            serves_on(&gateway).await;
        }
    }
}

#[tokio::test]
async fn what_is_encoded_though_nobody_asked_is_no_answer() {
    let gzip =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    for kind in ["application/json", "text/event-stream"] {
        for encoding in [Some("gzip"), Some("identity, br"), None] {
            let headers = vec![("content-type", kind.to_owned())];
            let act = Act::Answer(200, headers, gzip.to_vec());
            let act = match encoding {
                Some(encoding) => act.with("content-encoding", encoding),
                None => act,
            };
            let (provider, gateway) = with(act).await;
            let body = match kind {
                "application/json" => chat("fast"),
                _ => chat_stream("fast"),
            };
            let answer = ask(&gateway, body).await;
            let message = complaint(&answer, 502, "upstream_error");
            assert_eq!(message.contains("encoded"), encoding.is_some(), "{message}");
            assert_eq!(answer.header("content-encoding"), None);
            assert_eq!(provider.only().header("accept-encoding"), Some("identity"));
            serves_on(&gateway).await;
        }
    }
}

#[tokio::test]
async fn trailers_stay_here_and_their_connection_is_used_again() {
    let head = "HTTP/1.1 200 OK\r\ntrailer: x-secret\r\ntransfer-encoding: chunked\r\n";
    let end = "0\r\nx-secret: 1\r\nx-request-id: theirs\r\n\r\n";
    let body = completion("trailed");
    let whole = format!(
        "{head}content-type: application/json\r\n\r\n{}{end}",
        chunk(&body)
    );
    let events = [delta("a"), FINISH.into(), DONE.into()].concat();
    let stream = format!(
        "{head}content-type: text/event-stream\r\n\r\n{}{end}",
        chunk(&events)
    );
    let provider = Provider::new([
        Act::Keep(whole.clone().into()),
        Act::Keep(whole.into()),
        Act::Keep(stream.into()),
    ])
    .await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut socket = Socket::to(gateway.address).await;
    for _ in 0..2 {
        socket
            .write(request("te: trailers\r\n", &chat("fast")))
            .await;
        let answer = socket.answer().await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body.clone()));
        assert_eq!(
            (answer.header("x-secret"), answer.header("trailer")),
            (None, None)
        );
    }
    socket
        .write(request(
            "te: trailers\r\nconnection: close\r\n",
            &chat_stream("fast"),
        ))
        .await;
    let text = socket.rest().await;
    assert!(
        text.contains(&delta("a")) && text.ends_with("0\r\n\r\n"),
        "{text}"
    );
    assert!(
        !text.contains("x-secret") && !text.contains("theirs"),
        "{text}"
    );
    assert_eq!((provider.count(), provider.connections()), (3, 1));
}

#[tokio::test]
async fn words_before_a_stream_are_none_of_it() {
    let events = [delta("a"), FINISH.into(), DONE.into()].concat();
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let (_provider, gateway) = with(Act::Raw(format!("{early}{HEAD}\r\n{events}").into())).await;
    let answer = ask(&gateway, chat_stream("fast")).await;
    assert_eq!((answer.text(), answer.header("link")), (events, None));
    serves_on(&gateway).await;
}

#[tokio::test]
async fn a_connection_closed_while_nobody_used_it_costs_no_try() {
    let (first, second) = (completion("1"), completion("2"));
    let provider = Provider::new([
        Act::Raw(told("HTTP/1.1 200 OK", "", &first)),
        Act::json(second.clone()),
    ])
    .await;
    let text = one(&provider).replace("base_url", "tries = 1\nbase_url");
    let gateway = Gateway::start(&text).await;
    let mut socket = Socket::to(gateway.address).await;
    for said in [first, second] {
        socket.write(request("", &chat("fast"))).await;
        let answer = socket.answer().await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, said));
        assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    }
    assert_eq!((provider.count(), provider.connections()), (2, 2));
}

#[tokio::test]
async fn a_request_that_may_have_run_is_not_sent_to_the_same_provider_again() {
    for lost in [Act::Raw(vec![]), Act::Reset] {
        let provider =
            Provider::new([Act::json(completion("1")), lost, Act::json(completion("3"))]).await;
        let gateway = Gateway::start(&one(&provider)).await;
        let mut socket = Socket::to(gateway.address).await;
        socket.write(request("", &chat("fast"))).await;
        assert_eq!(socket.answer().await.text(), completion("1"));
        // On the connection that was kept: it may have run, and be paid for.
        socket.write(request("", &chat("fast"))).await;
        let message = complaint(&socket.answer().await, 502, "upstream_error");
        assert!(message.contains("closed a connection"), "{message}");
        assert_eq!((provider.count(), provider.connections()), (2, 1));
        let line = r#"tollgate_tries_total{outcome="reset",target="p/big-model"}"#;
        assert_eq!(gateway.metric(line), 1.0);
        socket.write(request("", &chat("fast"))).await;
        assert_eq!(socket.answer().await.text(), completion("3"));
        assert_eq!((provider.count(), provider.connections()), (3, 2));
    }
}

/// Answers one request on each connection, whole, and closes it a moment later without a word, whatever came meanwhile.
/// With how many it has closed.
async fn closes_after_each_answer() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    tokio::spawn(async move {
        let body = completion("x");
        let length = body.len();
        let kind = "content-type: application/json";
        let head = format!("HTTP/1.1 200 OK\r\n{kind}\r\ncontent-length: {length}\r\n\r\n");
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (answer, count) = (head.clone() + &body, Arc::clone(&count));
            tokio::spawn(async move {
                let mut read = [0; 16 << 10];
                if stream.read(&mut read).await.is_ok_and(|read| read > 0) {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                drop(stream);
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    (address, closed)
}

#[tokio::test]
async fn no_request_meets_the_close_of_a_server_that_closes_after_answers() {
    let (address, closed) = closes_after_each_answer().await;
    let text = provider_at("p", address, "tries = 1") + &model("fast", &["p/m"], "");
    let gateway = Gateway::start(&text).await;
    let mut began = Instant::now();
    for n in 1.. {
        let lain = began.elapsed();
        began = Instant::now();
        assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
        // That is found out by the next, which is whole. From then on it is known of this server, if it was closed at once;
        // a machine that is so slow has to do it again.
        if n > 1 && lain < Duration::from_millis(900) {
            break;
        }
        until("it is closed", || closed.load(Ordering::Relaxed) == n).await;
    }
    let mut began = Instant::now();
    for _ in 0..5 {
        let before = began;
        began = Instant::now();
        let answer = ask(&gateway, chat("fast")).await;
        // What has lain for long is taken; a machine that is so slow has yet to close it.
        let is_slow = before.elapsed() > Duration::from_millis(90);
        assert!(answer.status == 200 || is_slow, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_whole_answer_of_another_length_than_it_says_is_none() {
    let body = completion("a");
    let length = format!("content-length: {}", body.len());
    let honest = String::from_utf8(told("HTTP/1.1 200 OK", "", &body)).unwrap();
    for lie in [
        honest.replace(&length, "content-length: 9999"),
        honest.replace(&length, "content-length: 20"),
        honest.replace(&length, "content-length: 0"),
        honest.replace(&length, "content-length: -1"),
        honest.replace(&length, "content-length: many"),
        honest.replace(&length, &format!("{length}\r\ncontent-length: 20")),
    ] {
        let (_provider, gateway) = with(Act::Raw(lie.clone().into())).await;
        let answer = ask(&gateway, chat("fast")).await;
        complaint(&answer, 502, "upstream_error");
        serves_on(&gateway).await;
    }
}

#[tokio::test]
async fn a_stream_of_another_length_than_it_says_breaks_off() {
    let (first, second) = (delta("a"), delta("b"));
    let whole = [&first, &second, DONE].concat();
    let half = first.len() + second.len() / 2;
    for (length, sent) in [
        (whole.len() + 1, &whole[..half]),
        (whole.len(), &whole[..first.len()]),
        // What is beyond its length is none of it.
        (half, &whole),
        (first.len(), &whole),
    ] {
        let said = format!("{HEAD}content-length: {length}\r\n\r\n{sent}");
        let (_provider, gateway) = with(Act::Raw(said.into())).await;
        let answer = ask(&gateway, chat_stream("fast")).await;
        breaks_off_after(&answer.text(), &first);
        serves_on(&gateway).await;
    }
    let said = format!("{HEAD}content-length: {}\r\n\r\n{whole}", whole.len());
    let (_provider, gateway) = with(Act::Raw(said.into())).await;
    let answer = ask(&gateway, chat_stream("fast")).await;
    assert_eq!(answer.text(), whole);
    assert_eq!(answer.header("content-length"), None);
}

#[tokio::test]
async fn an_answer_of_two_lengths_is_none_and_its_connection_is_left() {
    let long = completion(&"x".repeat(100_000));
    for (status, body) in [(200, completion("a")), (200, long), (400, completion("a"))] {
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let said = format!("{head}{}0\r\n\r\n", chunk(&body));
        let provider = Provider::new([Act::Keep(said.into()), Act::json(completion("x"))]).await;
        let text = one(&provider).replace("base_url", "tries = 1\nbase_url");
        let gateway = Gateway::start(&text).await;
        let mut socket = Socket::to(gateway.address).await;
        socket.write(request("", &chat("fast"))).await;
        let message = complaint(&socket.answer().await, 502, "upstream_error");
        assert!(message.contains("two lengths"), "{message}");
        socket.write(request("", &chat("fast"))).await;
        assert_eq!(socket.answer().await.text(), completion("x"));
        assert_eq!((provider.count(), provider.connections()), (2, 2));
    }
}

#[tokio::test]
async fn what_is_no_head_or_no_chunk_is_no_answer() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let chunked = format!("{ok}transfer-encoding: chunked\r\n\r\n");
    let body = completion("x");
    for bytes in [
        // A status line that is none.
        "HTTP/1.1\r\n\r\n".to_owned(),
        "200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 20 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 abc OK\r\n\r\n".to_owned(),
        "HTTP/9.9 200 OK\r\n\r\n".to_owned(),
        "ICY 200 OK\r\n\r\n".to_owned(),
        "\0\0\0\0".to_owned(),
        // A line that goes on in the next, a name with a space, a value with a null.
        format!(
            "{ok}x-a: b\r\n c\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
        format!("{ok}x a: b\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        format!(
            "{ok}x-a: \0\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
        // Chunks whose size is none, too large, or not theirs.
        format!("{chunked}zz\r\n{body}\r\n0\r\n\r\n"),
        format!("{chunked}-1\r\n{body}\r\n0\r\n\r\n"),
        format!("{chunked}ffffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
        format!("{chunked}5\r\n{body}\r\n0\r\n\r\n"),
        format!("{chunked}{}", chunk(&body)),
        format!("{chunked}\r\n"),
    ] {
        let (_provider, gateway) = with(Act::Raw(bytes.clone().into())).await;
        complaint(&ask(&gateway, chat("fast")).await, 502, "upstream_error");
        serves_on(&gateway).await;
    }
}

#[tokio::test]
async fn a_provider_that_speaks_old_http_is_understood_and_spoken_to_plainly() {
    let body = completion("old");
    let ended = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}"
    );
    let events = [delta("a"), FINISH.into(), DONE.into()].concat();
    let stream = format!("HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}");
    let provider = Provider::new([
        Act::Raw(told("HTTP/1.0 200 OK", "", &body)),
        Act::Raw(ended.clone().into()),
        Act::Raw(ended[..ended.len() - 2].into()),
        Act::Raw(stream.into()),
    ])
    .await;
    let text = one(&provider).replace("base_url", "tries = 1\nbase_url");
    let gateway = Gateway::start(&text).await;
    let asked = chat("fast");
    let in_chunks = request("expect: 100-continue\r\n", "")
        .replace("content-length: 0\r\n", "transfer-encoding: chunked\r\n")
        + &chunk(&asked)
        + "0\r\n\r\n";
    for _ in 0..2 {
        let mut socket = Socket::to(gateway.address).await;
        socket.write(&in_chunks).await;
        let mut answer = socket.answer().await;
        if answer.status == 100 {
            answer = socket.answer().await;
        }
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body.clone()));
    }
    // Without a length only the text itself can tell that it was cut.
    complaint(&ask(&gateway, asked.clone()).await, 502, "upstream_error");
    for received in provider.received() {
        let sent = asked.replace("fast", "big-model");
        assert_eq!(received.text(), sent);
        let length = sent.len().to_string();
        assert_eq!(received.header("content-length"), Some(length.as_str()));
        assert_eq!(received.header("transfer-encoding"), None);
        assert_eq!(received.header("expect"), None);
    }
    // A stream has its own end, and the connection's after it.
    assert_eq!(ask(&gateway, chat_stream("fast")).await.text(), events);
    assert_eq!((provider.count(), provider.connections()), (4, 4));
}
