//! A recorded answer, as a stream and in one piece, and what is made of it to do harm.

use crate::support::Act;

/// As it was sent.
pub const STREAM: &str = include_str!("../fixtures/openai/stream/upstream_response.sse");
/// As a client hears it: all but the usage that it did not ask for.
pub const HEARD: &str = include_str!("../fixtures/openai/stream/client_response.sse");
/// In one piece, which passes as it is.
pub const WHOLE: &str = include_str!("../fixtures/openai/chat/upstream_response.json");

/// A stream's end.
pub const DONE: &str = "data: [DONE]\n\n";
/// The head of a stream, but for further lines.
pub const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
/// The head of an answer in one piece, but for further lines.
pub const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// The recorded stream, as it is.
pub fn good_stream() -> Act {
    Act::Stream(events())
}

/// The recorded answer in one piece, as it is.
pub fn good_whole() -> Act {
    Act::json(WHOLE)
}

/// The recorded stream's events: a role, two of content, the finish reason, the usage, the end.
pub fn events() -> Vec<String> {
    STREAM.split_inclusive("\n\n").map(Into::into).collect()
}

/// The first of its events.
pub fn first(count: usize) -> Vec<String> {
    events().into_iter().take(count).collect()
}

/// Events, and one more.
pub fn with(mut events: Vec<String>, last: &str) -> Vec<String> {
    events.push(last.to_owned());
    events
}

/// An answer in one piece whose length is told to be `longer` than it is; all of it but the last `missing` bytes.
pub fn told(longer: usize, missing: usize) -> Vec<u8> {
    let length = WHOLE.len() + longer;
    let body = &WHOLE[..WHOLE.len() - missing];
    format!("{JSON}content-length: {length}\r\n\r\n{body}").into()
}

/// An answer in one piece of more than is held back, but for its end.
pub fn long_half() -> Vec<u8> {
    let words = "word ".repeat(30_000);
    format!(
        "{JSON}content-length: 200000\r\n\r\n{{\"choices\":[{{\"message\":{{\"content\":\"{words}"
    )
    .into()
}

/// Pieces, each in a chunk of its own.
pub fn chunks<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in pieces {
        all.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        all.extend(piece);
        all.extend(b"\r\n");
    }
    all
}

/// Writes these bytes and closes.
pub fn raw(parts: &[&[u8]]) -> Act {
    Act::Raw(parts.concat())
}
