//! The bytes on the wire, built once: requests, answers and streams of fixed sizes.

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};

/// The key every request carries; tollgate's configuration names the same.
pub(crate) const KEY: &str = "sk-bench-0123456789abcdef0123456789abcdef";
/// Content events in a stream; a finish event and `[DONE]` follow.
pub(crate) const EVENTS: u64 = 200;

const REQUEST_BODY: usize = 999;
const ANSWER_BODY: usize = 953;
const EVENT: usize = 245;

const PROSE: &str = "A gateway stands between programs and the models they call: it knows who \
    asks, what they may spend and where the answer can be had, and it passes the rest on as it \
    came. What it adds to a request should be less than the noise of the network around it. ";

/// Events a client must count in one stream, `[DONE]` among them.
pub(crate) fn expected_events(usage: bool) -> u64 {
    EVENTS + 2 + u64::from(usage)
}

/// A whole request: head and a body of 999 bytes.
pub(crate) fn request(port: u16, model: &str, stream: bool, usage: bool) -> Bytes {
    let mut tail = String::from("\"}],\"temperature\":0.7,\"max_tokens\":512");
    if stream {
        tail.push_str(",\"stream\":true");
        if usage {
            tail.push_str(",\"stream_options\":{\"include_usage\":true}");
        }
    }
    tail.push('}');
    let front = format!(
        "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"system\",\"content\":\
         \"Answer briefly.\"}},{{\"role\":\"user\",\"content\":\""
    );
    let body = filled(&front, &tail, REQUEST_BODY);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\n\
         Host: 127.0.0.1:{port}\r\n\
         Authorization: Bearer {KEY}\r\n\
         Accept: application/json\r\n\
         User-Agent: path-bench\r\n\
         Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    Bytes::from(head + &body)
}

/// A whole answer to a request that does not stream: head and a body of 953 bytes.
pub(crate) fn answer() -> Bytes {
    let body = filled(
        "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion\",\
         \"created\":1741569952,\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":\
         {\"role\":\"assistant\",\"content\":\"",
        "\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\
         \"usage\":{\"prompt_tokens\":190,\"completion_tokens\":64,\"total_tokens\":254,\
         \"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\
         \"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,\
         \"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},\
         \"service_tier\":\"default\",\"system_fingerprint\":\"fp_06737a9306\"}",
        ANSWER_BODY,
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\n\
         Content-Type: application/json\r\n\
         Content-Length: {}\r\n\
         Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         x-request-id: req_7f3c2a9e51d84b06\r\n\
         openai-processing-ms: 412\r\n\r\n",
        body.len()
    );
    Bytes::from(head + &body)
}

/// A stream as the upstream sends it: the head, then pieces to be paced.
pub(crate) fn stream(model: &str, usage: bool) -> Vec<Bytes> {
    let mut pieces = vec![Bytes::from_static(
        b"HTTP/1.1 200 OK\r\n\
          Content-Type: text/event-stream; charset=utf-8\r\n\
          Transfer-Encoding: chunked\r\n\
          Cache-Control: no-cache\r\n\
          Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
          x-request-id: req_7f3c2a9e51d84b06\r\n\r\n",
    )];
    for at in 0..EVENTS {
        let delta = if at == 0 {
            "{\"role\":\"assistant\",\"content\":\"\"}".to_owned()
        } else {
            format!("{{\"content\":\" word{at}\"}}")
        };
        let choices = choice(&delta, "null");
        pieces.push(framed(&event(model, &choices, "", EVENT)));
    }
    let mut last = BytesMut::new();
    last.put(framed(&event(model, &choice("{}", "\"stop\""), "", EVENT)));
    if usage {
        let counts = ",\"usage\":{\"prompt_tokens\":190,\"completion_tokens\":200,\
            \"total_tokens\":390}";
        last.put(framed(&event(model, "", counts, 0)));
    }
    last.put(framed("data: [DONE]\n\n"));
    last.put_slice(b"0\r\n\r\n");
    pieces.push(last.freeze());
    pieces
}

fn choice(delta: &str, finish: &str) -> String {
    format!("{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}")
}

/// One `chat.completion.chunk` event, padded to `size` bytes as the real ones are.
fn event(model: &str, choices: &str, more: &str, size: usize) -> String {
    let front = format!(
        "data: {{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\
         \"object\":\"chat.completion.chunk\",\"created\":1741570283,\"model\":\"{model}\",\
         \"choices\":[{choices}]{more},\"obfuscation\":\""
    );
    let room = size.saturating_sub(front.len() + 4);
    let padding: String = "qT7vXbZ3mK0d".chars().cycle().take(room).collect();
    front + &padding + "\"}\n\n"
}

/// Wraps a text into one chunk of the chunked coding.
fn framed(text: &str) -> Bytes {
    let mut out = String::with_capacity(text.len() + 8);
    // Writing to a string cannot fail.
    let _ = write!(out, "{:x}\r\n{text}\r\n", text.len());
    Bytes::from(out)
}

/// `front`, prose and `tail`, `size` bytes in all.
fn filled(front: &str, tail: &str, size: usize) -> String {
    let room = size.saturating_sub(front.len() + tail.len());
    let prose: String = PROSE.chars().cycle().take(room).collect();
    format!("{front}{prose}{tail}")
}
