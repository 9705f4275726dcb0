//! Every kind of client: one function each, and a line in [`KINDS`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::http2;
use crate::providers::{BAD, BROKEN, PAGE};
use crate::seen::Seen;
use crate::support::client::{self, Coming};
use crate::support::{CHAT, DONE, chat, chat_stream};

/// How long one run of a client may take: every clock of the configuration is far shorter.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a client needs: where to go, and where to say what came of it.
#[derive(Clone)]
pub struct Site {
    pub address: SocketAddr,
    pub seen: Seen,
}

/// One kind of client.
pub struct Kind {
    pub name: &'static str,
    /// How many of it there are.
    pub at_once: u32,
    /// How long each rests after a run.
    pub pause: Duration,
    pub run: fn(Site) -> Run,
}

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

const fn kind(name: &'static str, at_once: u32, pause: u64, run: fn(Site) -> Run) -> Kind {
    Kind {
        name,
        at_once,
        pause: Duration::from_millis(pause),
        run,
    }
}

/// All of them, with how many there are, and their pause in milliseconds.
#[rustfmt::skip]
pub const KINDS: &[Kind] = &[
    kind("whole answers", 2, 80, |site| Box::pin(whole_answers(site))),
    kind("streams", 3, 80, |site| Box::pin(streams(site))),
    kind("other endpoints", 1, 150, |site| Box::pin(other_endpoints(site))),
    kind("keep-alive", 1, 150, |site| Box::pin(keep_alive(site))),
    kind("fallbacks", 1, 150, |site| Box::pin(fallbacks(site))),
    kind("bad providers", 3, 100, |site| Box::pin(bad_providers(site))),
    kind("broken streams", 3, 100, |site| Box::pin(broken_streams(site))),
    kind("swollen events", 1, 2000, |site| Box::pin(swollen_events(site))),
    kind("leave in mid-stream", 2, 80, |site| Box::pin(leave_in_mid_stream(site))),
    kind("leave before an answer", 2, 80, |site| Box::pin(leave_before_an_answer(site))),
    kind("leave within a body", 1, 100, |site| Box::pin(leave_within_a_body(site))),
    kind("half-closed", 1, 150, |site| Box::pin(half_closed(site))),
    kind("read slowly", 2, 200, |site| Box::pin(read_slowly(site))),
    kind("never read", 2, 200, |site| Box::pin(never_read(site))),
    kind("slow heads", 3, 100, |site| Box::pin(slow_heads(site))),
    kind("slow bodies", 3, 100, |site| Box::pin(slow_bodies(site))),
    kind("silent", 40, 100, |site| Box::pin(silent(site))),
    kind("send ahead", 1, 150, |site| Box::pin(send_ahead(site))),
    kind("no HTTP", 1, 150, |site| Box::pin(no_http(site))),
    kind("smuggle", 1, 150, |site| Box::pin(smuggle(site))),
    kind("web pages", 1, 150, |site| Box::pin(web_pages(site))),
    kind("not let in", 1, 150, |site| Box::pin(not_let_in(site))),
    kind("wait for a word", 1, 150, |site| Box::pin(wait_for_a_word(site))),
    kind("too large", 1, 150, |site| Box::pin(too_large(site))),
    kind("no request", 1, 150, |site| Box::pin(no_request(site))),
    kind("old HTTP", 1, 150, |site| Box::pin(old_http(site))),
    kind("HTTP/2", 2, 150, |site| Box::pin(http2::share(site))),
    kind("reset at once", 1, 500, |site| Box::pin(http2::reset(site))),
    kind("make no room", 2, 200, |site| Box::pin(http2::make_no_room(site))),
];

/// One request that must be answered well.
pub async fn well_meant(site: &Site) {
    let answer = client::whole(post(site, CHAT, chat("good")).await).await;
    site.seen.answered("well-meant", 200, &answer);
}

/// Posts as ann, with all that a well-meant request has.
async fn post(site: &Site, path: &str, body: String) -> Coming {
    let headers = [
        ("authorization", "Bearer sk-ann"),
        ("content-type", "application/json"),
    ];
    client::send(site.address, Method::POST, path, &headers, body).await
}

/// The same as bytes, with further lines in its head.
fn request(site: &Site, lines: &str, body: &str) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\napi-key: sk-ann\r\ncontent-type: application/json\r\n{lines}content-length: {}\r\n\r\n{body}",
        site.address,
        body.len()
    )
}

/// One after the other, over all runs.
fn next<T: Copy>(turn: &AtomicUsize, of: &[T]) -> T {
    of[turn.fetch_add(1, Ordering::Relaxed) % of.len()]
}

async fn whole_answers(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let model = next(&TURN, &["good", "long/m", "old/m"]);
    let answer = client::whole(post(&site, CHAT, chat(model)).await).await;
    site.seen.answered(model, 200, &answer);
}

async fn streams(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let model = next(&TURN, &["stream/m", "slow/m", "flood/m", "streams"]);
    let coming = post(&site, CHAT, chat_stream(model)).await;
    site.seen.opened(model, 200, &coming);
    let (text, complete) = coming.rest().await;
    site.seen
        .holds(complete && text.ends_with(DONE.as_bytes()), || {
            format!(
                "{model}: a stream that does not end well, after {} bytes",
                text.len()
            )
        });
}

async fn other_endpoints(site: Site) {
    let embeddings = post(
        &site,
        "/v1/embeddings",
        r#"{"model":"embed/m","input":"x"}"#.into(),
    )
    .await;
    site.seen
        .answered("embeddings", 200, &client::whole(embeddings).await);
    for (path, status) in [
        ("/v1/models", 200),
        ("/v1/models/good", 200),
        ("/v1/models/none", 404),
        ("/health", 200),
        ("/nothing", 404),
    ] {
        let answer = client::get(site.address, path, "sk-ann").await;
        site.seen.answered(path, status, &answer);
    }
}

/// Many requests on one connection, and a pause that a keep-alive outlasts.
async fn keep_alive(site: Site) {
    let mut socket = client::Socket::to(site.address).await;
    for n in 0..10 {
        socket.write(request(&site, "", &chat("good"))).await;
        site.seen
            .answered("keep-alive", 200, &socket.answer().await);
        if n == 5 {
            sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn fallbacks(site: Site) {
    let answer = client::whole(post(&site, CHAT, chat("fallback")).await).await;
    site.seen.answered("fallback", 200, &answer);
}

async fn bad_providers(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let name = next(&TURN, BAD);
    let status = match name {
        "limited" => 429,
        "wrong" => 400,
        "hang" => 504,
        _ => 502,
    };
    let answer = client::whole(post(&site, CHAT, chat(&format!("{name}/m"))).await).await;
    // Streams were not asked for, and come all the same: they are nobody's to judge here.
    let status = match name {
        "comments" | "cut" | "stall" => answer.status.as_u16(),
        _ => status,
    };
    site.seen.answered(name, status, &answer);
}

async fn broken_streams(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    broken_stream(&site, next(&TURN, BROKEN)).await;
}

/// Few at a time: each is held up to the longest event there may be.
async fn swollen_events(site: Site) {
    broken_stream(&site, "swollen").await;
}

async fn broken_stream(site: &Site, name: &str) {
    let coming = post(site, CHAT, chat_stream(&format!("{name}/m"))).await;
    site.seen.opened(name, 200, &coming);
    let (text, _) = coming.rest().await;
    let text = String::from_utf8_lossy(&text);
    site.seen.holds(
        text.contains("\"error\"") && !text.contains("[DONE]"),
        || {
            format!(
                "{name}: a stream that broke off does not say so: {}",
                tail(&text)
            )
        },
    );
}

fn tail(text: &str) -> String {
    let from = text.chars().count().saturating_sub(200);
    text.chars().skip(from).collect()
}

async fn leave_in_mid_stream(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let model = next(&TURN, &["slow/m", "flood/m", "stall/m"]);
    let mut coming = post(&site, CHAT, chat_stream(model)).await;
    site.seen.opened(model, 200, &coming);
    let piece = coming.piece().await;
    site.seen.holds(matches!(piece, Some(Ok(_))), || {
        format!("{model}: no first piece")
    });
}

async fn leave_before_an_answer(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let body = next(&TURN, &[chat as fn(&str) -> String, chat_stream])("hang/m");
    site.seen.left();
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    socket
        .write_all(request(&site, "", &body).as_bytes())
        .await
        .unwrap();
    sleep(Duration::from_millis(
        u64::try_from(TURN.load(Ordering::Relaxed) % 5).unwrap() * 20,
    ))
    .await;
    if TURN.load(Ordering::Relaxed).is_multiple_of(2) {
        socket2::SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

async fn leave_within_a_body(site: Site) {
    let whole = request(&site, "", &chat("good"));
    for length in [1, 20, whole.len() / 2, whole.len() - 10, whole.len() - 1] {
        site.seen.left();
        let mut socket = TcpStream::connect(site.address).await.unwrap();
        socket.write_all(&whole.as_bytes()[..length]).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
}

/// Says that it will say no more, and listens on: to close one's half is to leave.
async fn half_closed(site: Site) {
    site.seen.left();
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    socket
        .write_all(request(&site, "", &chat("slow/m")).as_bytes())
        .await
        .unwrap();
    socket.shutdown().await.unwrap();
    listen(&site, socket).await;
}

/// Reads a long stream in small bits, just fast enough.
async fn read_slowly(site: Site) {
    let mut coming = post(&site, CHAT, chat_stream("flood/m")).await;
    site.seen.opened("flood/m", 200, &coming);
    for _ in 0..20 {
        sleep(Duration::from_millis(50)).await;
        let piece = coming.piece().await;
        site.seen.holds(matches!(piece, Some(Ok(_))), || {
            "a slow reader was cut off".into()
        });
    }
    let (_, complete) = coming.rest().await;
    site.seen
        .holds(complete, || "a slow reader did not get the rest".into());
}

/// Asks for more than all buffers hold, and reads nothing until it has been cut off.
async fn never_read(site: Site) {
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    let request = request(&site, "", &chat_stream("vast/m"));
    socket.write_all(request.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(2_500)).await;
    let text = listen(&site, socket).await;
    site.seen
        .holds(text.contains(" 200 ") && !text.contains("[DONE]"), || {
            format!("one that does not read is served: {}", tail(&text))
        });
}

async fn slow_heads(site: Site) {
    let head = request(&site, "", "").into_bytes();
    drip(&site, &head, 10).await;
}

async fn slow_bodies(site: Site) {
    site.seen.left();
    let whole = request(&site, "", &chat("good")).into_bytes();
    let body = whole.len() - 30;
    drip(&site, &whole, body).await;
}

/// Sends the first bytes at once, and further ones so slowly that it must be refused or hung up on.
async fn drip(site: &Site, bytes: &[u8], at_once: usize) {
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    socket.write_all(&bytes[..at_once]).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let drip = async {
        for byte in &bytes[at_once..] {
            sleep(Duration::from_millis(150)).await;
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let mut text = Vec::new();
    tokio::select! {
        () = drip => site.seen.wrong("one that is too slow is not hung up on".into()),
        _ = reader.read_to_end(&mut text) => {}
    }
    site.seen.heard(&String::from_utf8_lossy(&text));
}

/// Connects and says nothing until it is hung up on.
async fn silent(site: Site) {
    let socket = TcpStream::connect(site.address).await.unwrap();
    let text = listen(&site, socket).await;
    site.seen.holds(text.is_empty(), || {
        format!("nothing asked, and yet: {text}")
    });
}

/// Reads until the other side closes, and counts the answers in it.
async fn listen(site: &Site, mut socket: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = socket.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    site.seen.heard(&text);
    text
}

/// Writes bytes, and counts the answers that come until the other side closes.
async fn raw(site: &Site, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    // A server that refuses early may close before all is written.
    let _ = socket.write_all(bytes).await;
    listen(site, socket).await
}

async fn send_ahead(site: Site) {
    let mut socket = client::Socket::to(site.address).await;
    let unknown = request(&site, "", "{}").replace("sk-ann", "sk-bob");
    let one = request(&site, "", &chat("good"));
    socket
        .write([&one[..], &one, &unknown, &one].concat())
        .await;
    for status in [200, 200, 401, 200] {
        let answer = socket.answer().await;
        let status = if status == 401 {
            unknown_key(&answer)
        } else {
            status
        };
        site.seen.answered("ahead", status, &answer);
    }
}

/// What a key that is not valid is answered with, which is another once there were too many of them.
fn unknown_key(answer: &client::Answer) -> u16 {
    if answer.status == 429 { 429 } else { 401 }
}

async fn no_http(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\napi-key: sk-ann\r\n",
        site.address
    );
    let many = "x-many: 1\r\n".repeat(300);
    let long = "y".repeat(100 << 10);
    let texts = [
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned(),
        "\0\u{ff}\r\n\r\n".into(),
        "GET / HTTP/9.9\r\n\r\n".into(),
        "GET  / HTTP/1.1\r\n\r\n".into(),
        format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
        format!("{head}content-length: -1\r\n\r\n{{}}"),
        format!("{head}content-length: 99999999999999999999\r\n\r\n{{}}"),
        format!("{head}transfer-encoding: gzip\r\n\r\n{{}}"),
        format!("{head}x-bad\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
        format!("{head}{many}\r\n"),
        format!("{head}x-long: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
    ];
    let turn = TURN.fetch_add(1, Ordering::Relaxed) % texts.len();
    // Some are refused by us, some before they are a request.
    site.seen.left();
    let answer = raw(&site, texts[turn].as_bytes()).await;
    site.seen.holds(!answer.contains(" 200 "), || {
        format!("no HTTP is answered: {}", tail(&answer))
    });
}

async fn smuggle(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let body = chat("good");
    let inner = format!(
        "GET /v1/models/smuggled HTTP/1.1\r\nhost: {}\r\n\r\n",
        site.address
    );
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let lines = next(
        &TURN,
        &[
            "content-length: 4\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
            "transfer-encoding: identity, chunked\r\ncontent-length: 4\r\n",
            "transfer-encoding: xchunked\r\ncontent-length: 4\r\n",
            "transfer-encoding : chunked\r\ncontent-length: 4\r\n",
        ],
    );
    site.seen.left();
    let head = request(&site, "", "").replace(
        "content-length: 0\r\n",
        &format!("connection: close\r\n{lines}"),
    );
    let answer = raw(&site, format!("{head}{chunked}{inner}").as_bytes()).await;
    site.seen
        .holds(answer.matches("HTTP/1.1 ").count() <= 1, || {
            format!("{lines}: two answers to one request: {}", tail(&answer))
        });
}

async fn web_pages(site: Site) {
    let asks = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("authorization", "Bearer sk-ann"),
    ];
    let ask = async |method: Method, headers: &[(&str, &str)]| {
        client::whole(client::send(site.address, method, CHAT, headers, chat("good")).await).await
    };
    let may = ask(Method::OPTIONS, &asks).await;
    site.seen.answered("a browser's question", 204, &may);
    let answer = ask(Method::POST, &asks).await;
    site.seen.answered("a page", 200, &answer);
}

async fn not_let_in(site: Site) {
    for (what, lines, status) in [
        (
            "a page elsewhere",
            "origin: http://elsewhere.example\r\n",
            403,
        ),
        ("an encoded body", "content-encoding: gzip\r\n", 400),
    ] {
        let mut socket = client::Socket::to(site.address).await;
        socket.write(request(&site, lines, &chat("good"))).await;
        site.seen.answered(what, status, &socket.answer().await);
    }
    let well = request(&site, "", &chat("good"));
    let host = format!("host: {}", site.address);
    for (what, wrong, status) in [
        (
            "by another name",
            well.replace(&host, "host: elsewhere.example"),
            403,
        ),
        (
            "as a form",
            well.replace("application/json", "text/plain"),
            415,
        ),
    ] {
        let mut socket = client::Socket::to(site.address).await;
        socket.write(wrong).await;
        site.seen.answered(what, status, &socket.answer().await);
    }
    let mut socket = client::Socket::to(site.address).await;
    let unknown = request(&site, "", &chat("good")).replace("sk-ann", "sk-wrong");
    socket.write(unknown).await;
    let answer = socket.answer().await;
    let status = unknown_key(&answer);
    site.seen.answered("a wrong key", status, &answer);
}

/// Waits for a word ahead before it sends its body.
async fn wait_for_a_word(site: Site) {
    let body = chat("good");
    let whole = request(&site, "expect: 100-continue\r\n", &body);
    let head = &whole[..whole.len() - body.len()];
    let mut socket = client::Socket::to(site.address).await;
    socket.write(head).await;
    let word = socket.answer().await.status;
    site.seen
        .holds(word == 100, || format!("a word ahead: {word}"));
    socket.write(&body).await;
    site.seen
        .answered("after a word ahead", 200, &socket.answer().await);
}

async fn too_large(site: Site) {
    let spaces = " ".repeat(1 << 20);
    let mut told = client::Socket::to(site.address).await;
    told.write(request(&site, "", &spaces)).await;
    site.seen.answered("too large", 413, &told.answer().await);
    let mut shown = client::Socket::to(site.address).await;
    let head = request(&site, "", "").replace("content-length: 0", "transfer-encoding: chunked");
    shown.write(head).await;
    for _ in 0..16 {
        shown
            .write(format!("10000\r\n{}\r\n", &spaces[..1 << 16]))
            .await;
    }
    site.seen
        .answered("too large in chunks", 413, &shown.answer().await);
}

async fn no_request(site: Site) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let deep = "[".repeat(20_000);
    let (body, status) = match TURN.fetch_add(1, Ordering::Relaxed) % 5 {
        0 => (
            format!(
                "{{\"model\":\"good\",\"messages\":{deep}{}}}",
                "]".repeat(20_000)
            ),
            200,
        ),
        1 => (format!("{{\"model\":\"good\",\"x\":{deep}"), 400),
        2 => ("{\"model\":\"good\",\"model\":\"good\"}".into(), 400),
        3 => ("{\"model\":\"nobody\"}".into(), 404),
        _ => ("\0\0\0".into(), 400),
    };
    let start: String = body.chars().take(40).collect();
    let answer = client::whole(post(&site, CHAT, body).await).await;
    site.seen.answered(&start, status, &answer);
}

async fn old_http(site: Site) {
    for body in [chat("good"), chat_stream("stream/m")] {
        let old = request(&site, "", &body).replace("HTTP/1.1", "HTTP/1.0");
        let answer = raw(&site, old.as_bytes()).await;
        site.seen.holds(answer.contains(" 200 "), || {
            format!("an old client: {}", tail(&answer))
        });
    }
}
