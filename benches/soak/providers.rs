//! Providers of every kind, scripted, and the configuration that names them.

use std::time::Duration;

use crate::support::http2::{Http2, Manners};
use crate::support::{Act, DONE, FINISH, Provider, USAGE, completion, delta, model, provider_at};

/// They run until this is dropped.
pub struct Providers {
    /// Everything but where to listen.
    pub configuration: String,
    _running: Vec<Provider>,
    _shared: Http2,
}

/// Those who answer a request for a whole answer with something else. All may be asked as `NAME/m`.
pub const BAD: &[&str] = &[
    "busy", "limited", "refused", "wrong", "reset", "hang", "banana", "html", "gzip", "redirect",
    "short", "error", "comments", "cut", "stall",
];
/// Those who begin a stream and do not end it as they should.
pub const BROKEN: &[&str] = &["cut", "stall", "said"];
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Starts them all.
pub async fn start() -> Providers {
    let mut configuration = String::from(SHORT);
    let mut running = Vec::new();
    for (name, act) in acts() {
        let provider = Provider::new([act]).await;
        // Whoever is asked for alone does what it does each time; whoever stands before others may rest.
        let clocks = format!("cooldown = \"0s\"\n{CLOCKS}");
        configuration += &provider_at(name, provider.address, &clocks);
        configuration += &provider_at(&format!("tired-{name}"), provider.address, CLOCKS);
        running.push(provider);
    }
    let shared = Http2::plain(Manners::default(), [Act::Stream(ended(words(20)))]).await;
    let clocks = format!("http2 = true\n{CLOCKS}");
    configuration += &provider_at("shared", shared.address, &clocks);
    configuration += &model("good", &["good/m"], "");
    configuration += &model(
        "fallback",
        &["tired-busy/m", "tired-reset/m", "tired-html/m", "good/m"],
        "",
    );
    configuration += &model(
        "streams",
        &["tired-busy/m", "tired-hang/m", "stream/m"],
        "deadline = \"5s\"",
    );
    configuration += "[keys.ann]\nkey = \"sk-ann\"\n";
    Providers {
        configuration,
        _running: running,
        _shared: shared,
    }
}

/// A page that may call, asked for by [`crate::clients`].
pub const PAGE: &str = "https://app.example.com";

/// Clocks so short that what they end turns over quickly, a bound that large bodies pass, and [`PAGE`].
const SHORT: &str = "[server]
listen = \"127.0.0.1:0\"
log = \"json\"
cors = [\"https://app.example.com\"]
max_body = \"256KiB\"
max_connections = 400
header_timeout = \"1s\"
body_timeout = \"1s\"
idle_timeout = \"2s\"
write_timeout = \"1s\"
drain = \"5s\"
[admin]
listen = \"127.0.0.1:0\"
";
const CLOCKS: &str = "tries = 1\ntimeouts = { connect = \"1s\", first_byte = \"1s\", first_content = \"1500ms\", idle = \"1s\", total = \"4s\" }";

fn acts() -> Vec<(&'static str, Act)> {
    let mut acts = good();
    acts.extend(failing());
    acts.extend(breaking());
    acts
}

fn words(count: usize) -> Vec<String> {
    (0..count).map(|n| delta(&format!("word {n}"))).collect()
}

fn large(count: usize, size: usize) -> Vec<String> {
    vec![delta(&"x".repeat(size)); count]
}

fn raw(text: &str) -> Act {
    Act::Raw(text.as_bytes().to_vec())
}

fn ended(mut events: Vec<String>) -> Vec<String> {
    events.extend([FINISH, USAGE, DONE].map(str::to_owned));
    events
}

fn good() -> Vec<(&'static str, Act)> {
    let slow = Act::Slow(Duration::from_millis(40), ended(words(20)));
    let embedding = r#"{"object":"list","data":[{"index":0,"embedding":[0.1,0.2]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    let old = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
    vec![
        ("good", Act::json(completion("x"))),
        ("long", Act::json(completion(&"x".repeat(100 << 10)))),
        ("embed", Act::json(embedding)),
        ("old", raw(&format!("{old}{}", completion("x")))),
        ("stream", Act::Stream(ended(words(20)))),
        ("slow", slow),
        ("flood", Act::Stream(ended(large(60, 64 << 10)))),
        // More than the buffers of both sides hold.
        ("vast", Act::Stream(ended(large(80, 256 << 10)))),
    ]
}

fn failing() -> Vec<(&'static str, Act)> {
    let said = |status, message: &str| {
        Act::status(
            status,
            format!("{{\"error\":{{\"message\":\"{message}\"}}}}"),
        )
    };
    let html = ("content-type", "text/html".to_owned());
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"choices\":[";
    vec![
        ("busy", said(503, "busy")),
        ("limited", said(429, "slow down")),
        ("refused", said(401, "who are you")),
        ("wrong", said(400, "no")),
        ("error", said(200, "an error in disguise")),
        ("reset", Act::Reset),
        ("hang", Act::Hang),
        ("banana", raw("HTTP/1.1 banana\r\n\r\n")),
        ("short", raw(short)),
        (
            "html",
            Act::Answer(200, vec![html], b"<html></html>".to_vec()),
        ),
        (
            "gzip",
            Act::json("\u{1f}\u{8b}").with("content-encoding", "gzip"),
        ),
        (
            "redirect",
            Act::status(302, "").with("location", "http://127.0.0.1:1/"),
        ),
        (
            "comments",
            Act::Endless(HEAD.into(), b"8\r\n: ping\n\n\r\n".to_vec()),
        ),
    ]
}

fn breaking() -> Vec<(&'static str, Act)> {
    let error = "data: {\"error\":{\"message\":\"x\"}}\n\n".to_owned();
    let first = delta("a");
    let begun = format!("{HEAD}{:x}\r\n{first}\r\n", first.len());
    let more = [b"10000\r\n", &vec![b'y'; 1 << 16][..], b"\r\n"].concat();
    vec![
        ("cut", Act::Cut(words(3))),
        ("stall", Act::Stall(words(3))),
        ("said", Act::Stream([words(2), vec![error]].concat())),
        // An event without end.
        ("swollen", Act::Endless(begun.into(), more)),
    ]
}
