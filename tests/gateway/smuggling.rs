//! Requests that two readers might take apart differently: whatever a proxy before us made of them, nobody gets a
//! request through that was not one (RFC 9112, 2.2, 5.1, 5.2, 6.1, 6.3, 7.1, 11.2).

use crate::path::one;
use crate::support::client::{self, Socket};
use crate::support::{Act, CHAT, Gateway, Provider, ask, chat, completion};

/// A request that must never reach anybody: it would be seen by the provider's count, or answered.
const SMUGGLED: &str = "GET /v1/models/smuggled HTTP/1.1\r\nhost: x\r\napi-key: sk-ann\r\n\r\n";

async fn well() -> (Provider, Gateway) {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    (provider, gateway)
}

/// A chat request with these lines in its head, and then these bytes.
fn request(lines: &str, rest: &str) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\napi-key: sk-ann\r\n{lines}\r\n{rest}"
    )
}

/// How often the gateway answered what was written on one connection, until it closed it.
async fn answers(gateway: &Gateway, bytes: &str) -> (usize, String) {
    let answer = client::raw(gateway.address, bytes.as_bytes()).await;
    assert!(!answer.contains("smuggled"), "{bytes:?}: {answer}");
    (answer.matches("HTTP/1.1 ").count(), answer)
}

#[tokio::test]
async fn what_follows_a_body_of_two_lengths_is_never_a_request() {
    let (provider, gateway) = well().await;
    let body = chat("fast");
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    // Both orders, both views: whoever believed the length took what follows for the body's rest, or for less of it.
    for lines in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 99999\r\n",
        "Transfer-Encoding: CHUNKED\r\ncontent-length: 4\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let (count, answer) =
            answers(&gateway, &request(lines, &(chunked.clone() + SMUGGLED))).await;
        assert_eq!(count, 1, "{lines:?}: {answer}");
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.contains("connection: close"),
            "{lines:?}: {answer}"
        );
    }
    for received in provider.received() {
        assert_eq!(received.text(), body.replace("fast", "big-model"));
        assert_eq!(received.header("transfer-encoding"), None);
    }
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
}

#[tokio::test]
async fn heads_that_two_readers_would_read_differently_are_refused() {
    let (provider, gateway) = well().await;
    let body = chat("fast");
    let length = format!("content-length: {}\r\n", body.len());
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (lines, rest) in [
        // Folded lines, white space before a colon, names and values that hide another line.
        (format!("x: a\r\n {length}{length}"), body.clone()),
        (format!("x: a\r\n\tb\r\n{length}"), body.clone()),
        (format!(" x: a\r\n{length}"), body.clone()),
        (format!("content-length : {}\r\n", body.len()), body.clone()),
        ("transfer-encoding : chunked\r\n".into(), chunked.clone()),
        (format!("x\r: a\r\n{length}"), body.clone()),
        (format!("x: a\rcontent-length: 1\r\n{length}"), body.clone()),
        (format!("x: a\0b\r\n{length}"), body.clone()),
        (format!(": a\r\n{length}"), body.clone()),
        (format!("x y: a\r\n{length}"), body.clone()),
        // Lengths that are none, or several.
        (format!("{length}content-length: 1\r\n"), body.clone()),
        (
            format!("content-length: {0}, {0}1\r\n", body.len()),
            body.clone(),
        ),
        (format!("content-length: +{}\r\n", body.len()), body.clone()),
        (
            format!("content-length: 0x{:x}\r\n", body.len()),
            body.clone(),
        ),
        (
            format!("content-length: {} 1\r\n", body.len()),
            body.clone(),
        ),
        ("content-length: -1\r\n".into(), body.clone()),
        ("content-length: \r\n".into(), body.clone()),
        // Encodings that are not chunked at their end.
        ("transfer-encoding: gzip\r\n".into(), chunked.clone()),
        (
            "transfer-encoding: chunked, gzip\r\n".into(),
            chunked.clone(),
        ),
        ("transfer-encoding: xchunked\r\n".into(), chunked.clone()),
        ("transfer-encoding: \"chunked\"\r\n".into(), chunked.clone()),
        (
            "transfer-encoding: \u{b}chunked\r\n".into(),
            chunked.clone(),
        ),
        (
            format!("transfer-encoding: identity\r\n{length}"),
            body.clone(),
        ),
    ] {
        let (_, answer) = answers(&gateway, &request(&lines, &(rest + SMUGGLED))).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{lines:?}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            usize::from(!answer.is_empty())
        );
    }
    assert_eq!(provider.count(), 0);
    // An HTTP/1.0 client cannot send chunks, says RFC 9112, 6.1; whoever says so is confused, or means no good.
    let old = request("transfer-encoding: chunked\r\n", &chunked).replace("HTTP/1.1", "HTTP/1.0");
    let answer = client::raw(gateway.address, old.as_bytes()).await;
    assert!(answer.is_empty() || answer.contains(" 400 "), "{answer}");
    assert_eq!(provider.count(), 0);
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
}

#[tokio::test]
async fn chunks_that_two_readers_would_read_differently_are_refused() {
    let (provider, gateway) = well().await;
    let body = chat("fast");
    let size = body.len();
    let head = "transfer-encoding: chunked\r\n";
    for rest in [
        format!("{size:x}\n{body}\r\n0\r\n\r\n"),
        format!("0x{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("-{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:x}\r\n{body}0\r\n\r\n"),
        format!("{size:x}\r\n{body}xx0\r\n\r\n"),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", size + 1),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", size - 1),
        format!("ffffffffffffffff1\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:x};a\nb\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:x}\r\n{body}\r\n0\r\nbad trailer\r\n\r\n"),
        format!(
            "{size:x}\r\n{body}\r\n0\r\n{}\r\n",
            "x-trailer: y\r\n".repeat(5000)
        ),
        format!("{size:x};{}\r\n{body}\r\n0\r\n\r\n", "x".repeat(1 << 20)),
        format!("\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let (_, answer) = answers(&gateway, &request(head, &(rest.clone() + SMUGGLED))).await;
        let start = &rest[..rest.len().min(60)];
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{start:?}: {answer}"
        );
    }
    assert_eq!(provider.count(), 0);
    // Extensions and trailers that are well written change nothing, and go no further.
    let fine = format!("{size:x};a=b\r\n{body}\r\n0\r\nx-trailer: y\r\n\r\n");
    let (count, answer) = answers(&gateway, &request(head, &(fine + SMUGGLED))).await;
    assert!(count == 1 && answer.starts_with("HTTP/1.1 200"), "{answer}");
    let received = provider.only();
    assert_eq!(received.text(), body.replace("fast", "big-model"));
    assert_eq!(received.header("x-trailer"), None);
}

#[tokio::test]
async fn request_lines_are_read_in_one_way() {
    let (provider, gateway) = well().await;
    for line in [
        "GET /v1/models HTTP/1.1 HTTP/1.1",
        "GET /v1/models",
        "GET  /v1/models HTTP/1.1",
        "GET\t/v1/models HTTP/1.1",
        "GET /v1/models\rHTTP/1.1",
        "GET /v1/mod els HTTP/1.1",
        "GET /v1/models HTTP/1.2",
        "GET /v1/models HTTP/2",
        "GET /v1/models http/1.1",
        "G\0T /v1/models HTTP/1.1",
        "GET /v1/\0models HTTP/1.1",
        "CONNECT elsewhere:80 HTTP/1.1",
        "GET //evil.example/v1/models HTTP/1.1",
        "GET http:///v1/models HTTP/1.1",
    ] {
        let text = format!("{line}\r\nhost: x\r\napi-key: sk-ann\r\nconnection: close\r\n\r\n");
        let answer = client::raw(gateway.address, text.as_bytes()).await;
        let refused = [
            "HTTP/1.1 400",
            "HTTP/1.1 403",
            "HTTP/1.1 404",
            "HTTP/1.1 505",
        ];
        assert!(
            answer.is_empty() || refused.iter().any(|status| answer.starts_with(status)),
            "{line:?}: {answer}"
        );
    }
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn an_upgrade_is_no_way_around_the_gateway() {
    let (_provider, gateway) = well().await;
    for lines in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n",
    ] {
        let mut socket = Socket::to(gateway.address).await;
        let body = chat("fast");
        let lines = format!("{lines}content-length: {}\r\n", body.len());
        socket.write(request(&lines, &body)).await;
        let answer = socket.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("upgrade"), None);
    }
}
