//! HTTP/2 towards providers: many requests on few connections, each as free as if it were alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::errors::complaint;
use crate::hostile::request;
use crate::support::client::{self, Answer, Coming};
use crate::support::frames::{DATA, GOAWAY, HEADERS, PREFACE, RESET, SETTINGS, frame, literal};
use crate::support::http2::{Http2, Manners, Refuses};
use crate::support::proxy::Proxy;
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Identity, Provider, ask, chat, chat_stream, completion,
    delta, model, provider_at, until,
};

const ANN: &str = "[keys.ann]\nkey = \"sk-ann\"\n";

fn says(text: &str) -> Act {
    Act::json(completion(text))
}

fn tells(text: &str) -> [String; 3] {
    [delta(text), FINISH.into(), DONE.into()]
}

#[track_caller]
fn said(answer: &Answer, text: &str) {
    let got = (answer.status.as_u16(), answer.text());
    assert_eq!(got, (200, completion(text)));
}

/// `fast` goes to one provider that is spoken HTTP/2 with.
fn two(provider: &Http2, more: &str) -> String {
    provider_at("p", provider.address, &format!("http2 = true\n{more}"))
        + &model("fast", &["p/x"], ANN)
}

async fn plain(acts: impl IntoIterator<Item = Act>) -> (Http2, Gateway) {
    let provider = Http2::plain(Manners::default(), acts).await;
    let gateway = Gateway::start(&two(&provider, "")).await;
    (provider, gateway)
}

async fn open(gateway: &Gateway) -> Coming {
    let mut coming = client::open(gateway.address, CHAT, "sk-ann", chat_stream("fast")).await;
    assert_eq!(coming.status, 200);
    coming.piece().await.unwrap().unwrap();
    coming
}

#[tokio::test]
async fn over_tls_it_is_offered_and_spoken() {
    let identity = Identity::of(&["localhost"]);
    let provider = Http2::secure(&identity, [says("hi"), Act::events(tells("a"))]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corp.pem"), identity.pem()).unwrap();
    let host = format!("localhost:{}", provider.address.port());
    let text = two(&provider, "ca_file = \"corp.pem\"").replace(
        &format!("http://{}", provider.address),
        &format!("https://{host}"),
    );
    let gateway = Gateway::among(folder, &[], &text).await;
    said(&ask(&gateway, chat("fast")).await, "hi");
    let stream = ask(&gateway, chat_stream("fast")).await;
    assert_eq!(stream.text(), tells("a").concat());
    let received = provider.received();
    let line = format!("POST https://{host}/v1/chat/completions HTTP/2.0");
    assert_eq!(received[0].line, line);
    assert_eq!(
        received[0].header("authorization"),
        Some("Bearer sk-provider-secret")
    );
    let length = received[0].body.len().to_string();
    assert_eq!(received[0].header("content-length"), Some(&*length));
    for name in ["host", "connection", "transfer-encoding"] {
        assert_eq!(received[0].header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_provider_that_declines_it_is_spoken_http_1_1_with() {
    let identity = Identity::of(&["localhost"]);
    let provider = Provider::secure(&identity, [says("hi")]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corp.pem"), identity.pem()).unwrap();
    let text = format!(
        "[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"https://localhost:{}/v1\"\nhttp2 = true\nca_file = \"corp.pem\"\n",
        provider.address.port()
    ) + &model("fast", &["p/x"], ANN);
    let gateway = Gateway::among(folder, &[], &text).await;
    for _ in 0..3 {
        said(&ask(&gateway, chat("fast")).await, "hi");
    }
    let received = provider.received();
    assert_eq!(received[2].line, "POST /v1/chat/completions HTTP/1.1");
    assert!(received[2].header("host").is_some());
}

#[tokio::test]
async fn over_plain_tcp_it_is_spoken_at_once() {
    let (provider, gateway) = plain([says("hi"), Act::events(tells("a"))]).await;
    said(&ask(&gateway, chat("fast")).await, "hi");
    let stream = ask(&gateway, chat_stream("fast")).await;
    assert_eq!(stream.text(), tells("a").concat());
    assert!(provider.received()[0].line.ends_with("HTTP/2.0"));

    // One that does not speak it is not sent a request at all.
    let old = Provider::new([Act::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]).await;
    let text =
        provider_at("p", old.address, "http2 = true\ntries = 1") + &model("fast", &["p/x"], ANN);
    gateway.apply(&text).unwrap();
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 502, "upstream_error");
    assert!(message.contains("could not be connected to"), "{message}");
}

/// Whoever is connected to through a tunnel or a socket may speak first, and in HTTP/2 does.
#[tokio::test]
async fn it_goes_through_a_proxys_tunnel_and_over_a_socket() {
    let (provider, proxy) = (
        Http2::plain(Manners::default(), [says("hi")]).await,
        Proxy::new(None).await,
    );
    let port = provider.address.port();
    let text = two(&provider, &format!("proxy = \"http://{}\"", proxy.address)).replace(
        &format!("http://{}", provider.address),
        &format!("http://engine.test:{port}"),
    );
    let folder = tempfile::tempdir().unwrap();
    let socket = Http2::at(&folder.path().join("engine.sock"), [says("there")]);
    let gateway = Gateway::among(folder, &[], &text).await;
    said(&ask(&gateway, chat("fast")).await, "hi");
    assert!(
        proxy
            .only()
            .starts_with(&format!("CONNECT engine.test:{port} "))
    );

    let text = text.replace(&format!("http://engine.test:{port}/v1"), "unix:engine.sock");
    let (before, after) = text.split_once("proxy = ").unwrap();
    let text = before.to_owned() + after.split_once('\n').unwrap().1;
    gateway.apply(&text).unwrap();
    said(&ask(&gateway, chat("fast")).await, "there");
    assert_eq!(
        socket.only().line,
        "POST http://localhost/v1/chat/completions HTTP/2.0"
    );
}

#[tokio::test]
async fn its_clocks_are_the_same() {
    for (act, clock) in [
        (Act::Stall(vec![]), "idle"),
        (Act::Hang, "first byte"),
        (
            Act::Stall(vec!["data: {\"choices\":[]}\n\n".into()]),
            "idle",
        ),
    ] {
        let provider = Http2::plain(Manners::default(), [act.clone()]).await;
        let clocks = "timeouts = { idle = \"150ms\", first_byte = \"150ms\" }";
        let gateway = Gateway::start(&two(&provider, clocks)).await;
        let answer = ask(&gateway, chat_stream("fast")).await;
        let message = complaint(&answer, 504, "upstream_timeout");
        assert!(
            message.contains(&format!("p/x the {clock} clock")),
            "{act:?}: {message}"
        );
        until("its stream is reset", || provider.left() == 1).await;
    }
    let provider = Http2::plain(Manners::default(), [Act::Stall(vec![delta("a")])]).await;
    let gateway = Gateway::start(&two(&provider, "timeouts = { idle = \"150ms\" }")).await;
    let text = ask(&gateway, chat_stream("fast")).await.text();
    assert!(
        text.starts_with(&delta("a")) && text.contains("the idle clock ran out"),
        "{text}"
    );
    until("its stream is reset", || provider.left() == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let silent = || Act::Stall(vec![delta("a")]);
    let acts = [silent(), silent(), Act::Hang, says("hi")];
    let (provider, gateway) = plain(acts).await;
    // One worker's connection is shared: the same client connection stays with the same worker.
    let (one, other) = (open(&gateway).await, open(&gateway).await);
    drop(one);
    until("its stream is reset", || provider.left() == 1).await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), ask(&gateway, chat("fast")));
    assert!(waiting.await.is_err());
    until("who waits for a head can leave, too", || {
        provider.left() == 2
    })
    .await;
    until("two are given back", || gateway.in_flight() == 1).await;
    for _ in 0..4 {
        said(&ask(&gateway, chat("fast")).await, "hi");
    }
    assert_eq!(provider.left(), 2, "the other goes on");
    assert!(provider.connections() <= 2, "one for each worker, at most");
    drop(other);
    until("the other is reset as well", || provider.left() == 3).await;
}

/// A request that the provider does not take holds its stream, unless the client's leaving ends that, too.
#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_request_resets_its_stream_and_makes_room() {
    let manners = Manners {
        streams: 1,
        reads: 1000,
        ..Manners::default()
    };
    let provider = Http2::plain(manners, [Act::Stall(vec![delta("a")]), says("hi")]).await;
    let gateway = Gateway::start(&two(&provider, "")).await;
    // Clients of both workers.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client::Socket::to(gateway.address).await);
    }
    let long = format!(
        r#"{{"model":"fast","stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(400_000)
    );
    let mut coming = client::open(gateway.address, CHAT, "sk-ann", long).await;
    coming.piece().await.unwrap().unwrap();
    drop(coming);
    until("its stream is reset", || provider.left() == 1).await;
    for client in &mut clients {
        client.write(request("", &chat("fast"))).await;
        said(&client.answer().await, "hi");
    }
    assert!(provider.connections() <= 2, "one for each worker, at most");
}

/// Opens so many streams at once that all are open together.
async fn crowd(gateway: &Gateway, many: usize) -> Vec<Coming> {
    let mut opening = JoinSet::new();
    for _ in 0..many {
        let address = gateway.address;
        opening.spawn(async move {
            let mut coming = client::open(address, CHAT, "sk-ann", chat_stream("fast")).await;
            assert_eq!(coming.status, 200);
            coming.piece().await.unwrap().unwrap();
            coming
        });
    }
    opening.join_all().await
}

#[tokio::test]
async fn many_at_once_share_few_connections() {
    let (provider, gateway) = plain([Act::Stall(vec![delta("a")])]).await;
    let open = crowd(&gateway, 150).await;
    assert_eq!(provider.count(), 150);
    // Two workers; a hundred on each connection.
    assert!(provider.connections() <= 3, "{}", provider.connections());
    drop(open);
    until("all are reset", || provider.left() == 150).await;
    until("all are given back", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn no_more_share_a_connection_than_the_provider_allows() {
    let manners = Manners {
        streams: 10,
        ..Manners::default()
    };
    let provider = Http2::plain(manners, [Act::Stall(vec![delta("a")])]).await;
    let gateway = Gateway::start(&two(&provider, "")).await;
    let open = crowd(&gateway, 60).await;
    assert_eq!(provider.count(), 60);
    let connections = provider.connections();
    assert!((6..=7).contains(&connections), "{connections}");
    drop(open);
    until("all are reset", || provider.left() == 60).await;
}

#[tokio::test]
async fn a_connection_that_takes_no_more_is_replaced_and_finishes_what_it_has() {
    let slow: Vec<String> = (0..200).map(|n| delta(&n.to_string())).collect();
    let whole = [slow.clone(), vec![FINISH.into(), DONE.into()]].concat();
    let (provider, gateway) = plain([Act::Stream(whole.clone()), says("hi")]).await;
    let mut coming = client::open(gateway.address, CHAT, "sk-ann", chat_stream("fast")).await;
    let first = coming.piece().await.unwrap().unwrap();
    // Clients that stay are spread over both workers, and each worker has a connection of its own.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client::Socket::to(gateway.address).await);
    }
    let mut all_ask = async || {
        for client in &mut clients {
            client.write(request("", &chat("fast"))).await;
            said(&client.answer().await, "hi");
        }
    };
    all_ask().await;
    assert_eq!(provider.connections(), 2);
    provider.part();
    // Some may be answered before it is heard.
    for _ in 0..50 {
        all_ask().await;
    }
    assert_eq!(provider.connections(), 4, "one more for each worker");
    let (rest, complete) = coming.rest().await;
    assert!(complete);
    assert_eq!([first.to_vec(), rest].concat(), whole.concat().into_bytes());
}

/// Refused before it was looked at, by a stream's reset or by going away: sent again, within the same try.
#[tokio::test]
async fn what_was_not_looked_at_is_sent_again() {
    let refusing = Manners {
        refuses: Refuses::Half,
        ..Manners::default()
    };
    let leaving = Manners {
        leaves: true,
        ..Manners::default()
    };
    for (manners, name) in [(refusing, "refuses"), (leaving, "leaves")] {
        let provider = Http2::plain(manners, [says("hi")]).await;
        let gateway = Gateway::start(&two(&provider, "tries = 1")).await;
        for _ in 0..6 {
            let answer = ask(&gateway, chat("fast")).await;
            said(&answer, "hi");
            assert_eq!(answer.header("x-tollgate-tries"), Some("1"), "{name}");
        }
        assert_eq!(provider.count(), 6, "{name}");
    }
}

/// Refused twice over in each try: it can be reached, and has too much to do.
#[tokio::test]
async fn who_refuses_every_stream_is_busy() {
    let manners = Manners {
        refuses: Refuses::All,
        ..Manners::default()
    };
    let provider = Http2::plain(manners, []).await;
    let gateway = Gateway::start(&two(&provider, "tries = 2")).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 429, "rate_limit_exceeded");
    assert!(
        message.contains("p/x refused the request unread (2 tries)"),
        "{message}"
    );
    assert_eq!(provider.refused(), 4);
    let line = r#"tollgate_tries_total{outcome="rate_limited",target="p/x"}"#;
    until("it is counted", || gateway.metric(line) == 2.0).await;
}

#[tokio::test]
async fn a_provider_that_dies_in_the_middle_ends_every_stream_with_an_error() {
    let acts = [
        Act::Stall(vec![delta("a")]),
        Act::Cut(vec![delta("b")]),
        says("hi"),
    ];
    let (provider, gateway) = plain(acts).await;
    let other = open(&gateway).await;
    let dying = ask(&gateway, chat_stream("fast")).await.text();
    assert!(
        dying.starts_with(&delta("b")) && dying.contains("\"error\""),
        "{dying}"
    );
    assert!(!dying.contains("[DONE]"), "{dying}");
    said(&ask(&gateway, chat("fast")).await, "hi");
    // Whether the two shared a connection is the workers' business.
    drop(other);
    until("all are given back", || gateway.in_flight() == 0).await;
    assert!(provider.connections() >= 2);
}

#[tokio::test]
async fn what_fails_falls_back_to_a_target_of_any_kind() {
    let good = Provider::new([says("b")]).await;
    for act in [Act::status(500, "{}"), Act::Cut(vec![]), Act::Hang] {
        let bad = Http2::plain(Manners::default(), [act.clone()]).await;
        let text = provider_at(
            "a",
            bad.address,
            "http2 = true\ntries = 1\ntimeouts = { first_byte = \"500ms\" }",
        ) + &provider_at("b", good.address, "")
            + &model("fast", &["a/x", "b/y"], ANN);
        let gateway = Gateway::start(&text).await;
        let answer = ask(&gateway, chat("fast")).await;
        said(&answer, "b");
        assert_eq!(answer.header("x-tollgate-target"), Some("b/y"), "{act:?}");
    }
}

/// What a provider far away has seen.
#[derive(Default)]
struct Seen {
    /// Streams that it sends no more on, since it has heard of their reset.
    stopped: AtomicUsize,
    /// How often it was told that the connection ends.
    goaways: AtomicUsize,
}

/// Answers every request with an event each 10 ms, and hears of a reset only after 400 ms.
async fn far_away(mut stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    const AWAY: Duration = Duration::from_millis(400);
    let (mut read, mut write) = stream.split();
    read.read_exact(&mut [0; PREFACE.len()]).await?;
    write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut open: Vec<(u32, Option<Instant>)> = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut got = Vec::new();
    loop {
        tokio::select! {
            read = read.read_buf(&mut got) => if read? == 0 { return Ok(()) },
            now = tick.tick() => {
                let before = open.len();
                open.retain(|(_, reset)| reset.is_none_or(|at| now < at + AWAY));
                seen.stopped.fetch_add(before - open.len(), SeqCst);
                let events = open.iter().map(|(id, _)| frame(DATA, 0, *id, delta("a").as_bytes()));
                write.write_all(&events.collect::<Vec<_>>().concat()).await?;
            }
        }
        while let [a, b, c, kind, flags, id @ ..] = &got[..]
            && let Some((id, rest)) = id.split_first_chunk()
            && let length = u32::from_be_bytes([0, *a, *b, *c]) as usize
            && rest.len() >= length
        {
            let id = u32::from_be_bytes(*id);
            match *kind {
                SETTINGS if flags & 1 == 0 => write.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
                HEADERS => {
                    // `:status: 200`, from the table that everybody knows.
                    let head = [vec![0x88], literal("content-type", "text/event-stream")].concat();
                    write.write_all(&frame(HEADERS, 4, id, &head)).await?;
                    open.push((id, None));
                }
                RESET => {
                    let reset = open.iter_mut().find(|one| one.0 == id);
                    reset.unwrap().1 = Some(Instant::now());
                }
                GOAWAY => drop(seen.goaways.fetch_add(1, SeqCst)),
                _ => {}
            }
            got.drain(..9 + length);
        }
    }
}

/// What is still on its way to streams that were reset must not end the connection for those who stay.
#[tokio::test]
async fn a_crowd_that_leaves_at_once_takes_nobody_along() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let theirs = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&theirs);
            connections.spawn(async move { far_away(stream, &seen).await });
        }
    });
    let text = provider_at("p", address, "http2 = true") + &model("fast", &["p/x"], ANN);
    let gateway = Gateway::start(&text).await;
    let mut stay = crowd(&gateway, 4).await;
    drop(crowd(&gateway, 190).await);
    until("the provider has heard of it", || {
        seen.stopped.load(SeqCst) == 190 || seen.goaways.load(SeqCst) > 0
    })
    .await;
    assert_eq!(seen.goaways.load(SeqCst), 0);
    for coming in &mut stay {
        // More than what had come before the crowd left.
        let mut events = 0;
        while events < 200 {
            let piece = coming.piece().await.expect("it goes on").unwrap();
            let text = String::from_utf8(piece.to_vec()).unwrap();
            assert!(!text.contains("\"error\""), "{text}");
            events += text.matches("data: ").count();
        }
    }
}
