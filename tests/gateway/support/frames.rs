//! HTTP/2 from a client, frame by frame, so that it can also be spoken wrongly.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::CHAT;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// A frame (RFC 9113, 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header as a literal that nobody need remember (RFC 7541, 6.2.2).
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The head of a chat request.
pub fn head(address: SocketAddr) -> Vec<u8> {
    [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":authority", &address.to_string()),
        literal(":path", CHAT),
        literal("content-type", "application/json"),
        literal("authorization", "Bearer sk-ann"),
    ]
    .concat()
}

/// A connection whose frames are the test's own.
pub async fn open(address: SocketAddr, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
    stream.write_all(&opening).await.unwrap();
    stream
}

/// Reads frames until the other side closes; the kinds that came.
pub async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    let closed = tokio::time::timeout(Duration::from_secs(5), reading).await;
    assert!(closed.is_ok(), "nobody closes");
    let (mut kinds, mut at) = (Vec::new(), &bytes[..]);
    while let [a, b, c, kind, _, _, _, _, _, ..] = at {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        kinds.push(*kind);
        at = at.get(9 + length..).unwrap_or_default();
    }
    kinds
}
