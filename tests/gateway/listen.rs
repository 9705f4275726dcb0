//! Clients and operators over TLS: who the gateway proves to be, who they must prove to be, and certificates that change.

use std::fs::{rename, write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cli::run;
use crate::reload::reload;
use crate::support::client::raw;
use crate::support::secure::{Line, Secure};
use crate::support::{
    Act, Authority, DONE, FINISH, Gateway, Identity, Provider, chat, chat_stream, completion,
    delta, model, provider_at, until,
};

const ANN: &str = "[keys.ann]\nkey = \"sk-ann\"\n";
const TLS: &str = "tls = { cert = \"tls.crt\", key = \"tls.key\" }\n";
const MUTUAL: &str = "tls = { cert = \"tls.crt\", key = \"tls.key\", client_ca = \"ca.crt\" }\n";

/// What a client speaks.
const HTTP1: &[&str] = &["http/1.1"];
const HTTP2: &[&str] = &["http/1.1", "h2"];

fn localhost() -> Identity {
    Identity::of(&["localhost"])
}

/// Puts who we are into a folder, as one who renews certificates does: each file at once, one after the other.
fn put(folder: &Path, identity: &Identity) {
    for (name, pem) in [("tls.crt", identity.pem()), ("tls.key", identity.key())] {
        write(folder.join("new"), pem).unwrap();
        rename(folder.join("new"), folder.join(name)).unwrap();
    }
}

/// A gateway of a file, with who it is beside it; `tls` are lines of `[server]`.
async fn secure(identity: &Identity, provider: &Provider, tls: &str) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), identity);
    of(folder, provider, tls).await
}

async fn of(folder: tempfile::TempDir, provider: &Provider, tls: &str) -> Gateway {
    let text = configured(provider, tls);
    write(folder.path().join("gateway.toml"), text).unwrap();
    Gateway::of_file(folder).await
}

fn configured(provider: &Provider, tls: &str) -> String {
    let listen = "listen = \"127.0.0.1:0\"\n";
    format!("[server]\nlog = \"off\"\n{listen}{tls}[admin]\n{listen}token = \"right\"\n")
        + &provider_at("p", provider.address, "")
        + &model("fast", &["p/x"], ANN)
}

async fn says(text: &str) -> Provider {
    Provider::new([Act::json(completion(text))]).await
}

fn told(n: usize) -> Act {
    let pieces = (0..n).map(|n| delta(&n.to_string()));
    Act::events(pieces.chain([FINISH.into(), DONE.into()]))
}

#[tokio::test]
async fn requests_and_streams_come_as_they_are_in_either_protocol() {
    let identity = localhost();
    let acts = [Act::json(completion("hi")), told(3)];
    let provider = Provider::new(acts.clone().into_iter().chain(acts.clone()).chain(acts)).await;
    let gateway = secure(&identity, &provider, TLS).await;
    for (alpn, version) in [
        (HTTP1, Version::HTTP_11),
        (HTTP2, Version::HTTP_2),
        (&[][..], Version::HTTP_11),
    ] {
        let client = Secure::new(&identity.pem(), alpn, None);
        let mut line = client.line(gateway.address).await.unwrap();
        let answer = line.ask(gateway.address, chat("fast")).await.unwrap();
        assert_eq!(answer.text(), completion("hi"));
        let stream = line
            .open(gateway.address, chat_stream("fast"))
            .await
            .unwrap();
        assert_eq!((stream.status().as_u16(), stream.version()), (200, version));
        let body = stream.into_body().collect().await.unwrap().to_bytes();
        let want = (0..3).map(|n| delta(&n.to_string())).collect::<String>() + FINISH + DONE;
        assert_eq!(String::from_utf8_lossy(&body), want, "{version:?}");
    }
    let line =
        r#"tollgate_requests_total{api="chat_completions",key="ann",model="fast",status="200"}"#;
    until("each is counted", || gateway.metric(line) == 6.0).await;
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_told_to() {
    let provider = says("hi").await;
    let gateway = secure(&localhost(), &provider, TLS).await;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 9999\r\n\r\n{}",
        "x".repeat(9999)
    );
    let answer = raw(gateway.address, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(
        head.contains(&format!("content-length: {}\r\n", body.len())),
        "{answer}"
    );
    assert!(body.contains("https://"), "{body}");
    assert_eq!(gateway.metrics().matches("sk-").count(), 0);
}

#[tokio::test]
async fn a_handshake_that_is_cut_anywhere_leaves_nothing() {
    let identity = localhost();
    let provider = says("hi").await;
    let gateway = secure(&identity, &provider, TLS).await;
    // What a client says first: nobody answers it here.
    let (listener, client) = (
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        Secure::new(&identity.pem(), HTTP2, None),
    );
    let address = listener.local_addr().unwrap();
    let saying = tokio::spawn(async move { client.connect(address).await.map(drop) });
    let accepted = tokio::task::spawn_blocking(move || listener.accept().unwrap().0);
    let accepted = accepted.await.unwrap();
    accepted.set_nonblocking(true).unwrap();
    let mut hello = vec![0; 4096];
    let mut accepted = TcpStream::from_std(accepted).unwrap();
    let length = accepted.read(&mut hello).await.unwrap();
    hello.truncate(length);
    drop(accepted);
    assert!(saying.await.unwrap().is_err() && hello.len() > 100);
    for cut in 0..=hello.len() {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&hello[..cut]).await.unwrap();
        // Each byte may as well be a wrong one.
        if let Some(byte) = hello.get(cut) {
            let _ = stream.write_all(&[byte ^ 0x55]).await;
        }
    }
    until("all are gone", || {
        gateway.metric("tollgate_connections") == 0.0
    })
    .await;
    let client = Secure::new(&identity.pem(), HTTP1, None);
    assert_eq!(client.ask(gateway.address, chat("fast")).await.status, 200);
}

#[tokio::test]
async fn a_handshake_has_the_time_of_a_head_and_a_client_that_waits_has_more() {
    let identity = localhost();
    let times = format!("{TLS}header_timeout = \"150ms\"\nidle_timeout = \"1m\"\n");
    let provider = says("hi").await;
    let gateway = secure(&identity, &provider, &times).await;
    let mut stuck = TcpStream::connect(gateway.address).await.unwrap();
    // The beginning of a record of 512 bytes.
    stuck.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), stuck.read_u8());
    assert!(closed.await.unwrap().is_err(), "it is left");
    let client = Secure::new(&identity.pem(), HTTP1, None);
    let mut line = client.line(gateway.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let answer = line.ask(gateway.address, chat("fast")).await.unwrap();
    assert_eq!(
        answer.status, 200,
        "it asked nothing, and may take its time"
    );
}

#[tokio::test]
async fn clients_must_be_vouched_for_where_somebody_says_by_whom() {
    let (identity, ours, others) = (localhost(), Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &identity);
    write(folder.path().join("ca.crt"), ours.pem()).unwrap();
    let provider = says("hi").await;
    let gateway = of(folder, &provider, MUTUAL).await;
    for alpn in [HTTP1, HTTP2] {
        let vouched = ours.vouches_for(&["ann"]);
        let client = Secure::new(&identity.pem(), alpn, Some(&vouched));
        assert_eq!(client.ask(gateway.address, chat("fast")).await.status, 200);
        let stranger = others.vouches_for(&["ann"]);
        let itself = localhost();
        for own in [None, Some(&stranger), Some(&itself)] {
            let client = Secure::new(&identity.pem(), alpn, own);
            // In TLS 1.3 a client learns of it with the first answer.
            let asked = match client.line(gateway.address).await {
                Ok(mut line) => line.ask(gateway.address, chat("fast")).await.ok(),
                Err(_) => None,
            };
            assert!(asked.is_none(), "{asked:?}");
        }
    }
    assert_eq!(provider.count(), 2, "nothing of strangers was passed on");
}

/// A stream whose first piece has come.
async fn begun(line: &mut Line, gateway: &Gateway) -> Response<Incoming> {
    let opened = line.open(gateway.address, chat_stream("fast")).await;
    let mut stream = opened.unwrap();
    let piece = stream.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(piece.into_data().unwrap(), delta("a"));
    stream
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let identity = localhost();
    let provider = Provider::new([Act::Stall(vec![delta("a")])]).await;
    let gateway = secure(&identity, &provider, TLS).await;
    for alpn in [HTTP1, HTTP2] {
        let client = Secure::new(&identity.pem(), alpn, None);
        let mut line = client.line(gateway.address).await.unwrap();
        let stream = begun(&mut line, &gateway).await;
        drop((stream, line));
    }
    let line = r#"tollgate_streams_total{end="client_gone",target="p/x"}"#;
    until("both are told", || gateway.metric(line) == 2.0).await;
    until("the provider is left", || provider.left() == 2).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_end_of_tls() {
    let identity = localhost();
    // Longer than what is held back.
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999999\r\n\r\n";
    let half = head.to_owned() + &completion(&"x".repeat(600_000));
    let provider = Provider::new([Act::Raw(half.into_bytes())]).await;
    let gateway = secure(&identity, &provider, TLS).await;
    let client = Secure::new(&identity.pem(), HTTP1, None);
    let mut line = client.line(gateway.address).await.unwrap();
    let answer = line.open(gateway.address, chat("fast")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.into_body().collect().await.is_err());
}

/// Load until somebody stops it, over connections that are kept and over new ones; how many were answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Load {
    fn on(gateway: &Gateway, clients: &[Secure]) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (address, mut tasks) = (gateway.address, JoinSet::new());
        for (n, client) in clients.iter().cycle().take(8).enumerate() {
            let (client, stop, answered) =
                (client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tasks.spawn(async move {
                let mut line = client.line(address).await.unwrap();
                while !stop.load(Ordering::SeqCst) {
                    if n & 2 == 0 {
                        line = client.line(address).await.unwrap();
                    }
                    let answer = match line.ask(address, chat_stream("fast")).await {
                        // It was not sent, since HTTP/2 was told to open another connection.
                        Err(error) if error.is_canceled() => {
                            line = client.line(address).await.unwrap();
                            continue;
                        }
                        answer => answer.unwrap(),
                    };
                    assert!(answer.status == 200 && answer.text().ends_with(DONE));
                    // What is said to be the last answer of a connection is.
                    if answer.header("connection") == Some("close") {
                        line = client.line(address).await.unwrap();
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self {
            stop,
            answered,
            tasks,
        }
    }

    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        let is_so = || self.answered.load(Ordering::SeqCst) > before + 16;
        until("the load goes on", is_so).await;
    }

    async fn ends(mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.answered.load(Ordering::SeqCst)
    }
}

/// Waits until new connections see who is to be seen.
async fn is_seen(gateway: &Gateway, identity: &Identity) {
    let client = Secure::new(&identity.pem(), HTTP1, None);
    for _ in 0..500 {
        if client.connect(gateway.address).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("five seconds passed before the other certificate was seen");
}

#[tokio::test]
async fn a_certificate_is_swapped_under_load() {
    let all: Vec<_> = (0..4).map(|_| localhost()).collect();
    let provider = Provider::new([told(20)]).await;
    let gateway = secure(&all[0], &provider, TLS).await;
    let roots: String = all.iter().map(Identity::pem).collect();
    let clients = [HTTP1, HTTP2].map(|alpn| Secure::new(&roots, alpn, None));
    let load = Load::on(&gateway, &clients);
    load.goes_on().await;
    for identity in &all[1..] {
        put(gateway.folder(), identity);
        is_seen(&gateway, identity).await;
        load.goes_on().await;
    }
    let answered = load.ends().await;
    // Between its two files nothing may have been in force that does not fit.
    assert_eq!(
        gateway.metric(r#"tollgate_reloads_total{outcome="applied"}"#),
        3.0
    );
    let line =
        r#"tollgate_requests_total{api="chat_completions",key="ann",model="fast",status="200"}"#;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let answered = answered as f64;
    until("each is counted once", || gateway.metric(line) == answered).await;
    let before = Secure::new(&all[0].pem(), HTTP1, None);
    assert!(before.connect(gateway.address).await.is_err(), "it is gone");
}

#[tokio::test]
async fn what_is_under_way_ends_well_over_the_certificate_it_began_with() {
    let (old, new) = (localhost(), localhost());
    let (go_on, held) = tokio::sync::watch::channel(());
    let stream = Act::Gated(vec![delta("a")], held, vec![FINISH.into(), DONE.into()]);
    let acts = [Act::json(completion("first")), stream];
    let acts = acts.clone().into_iter().chain(acts);
    let provider = Provider::new(acts.chain([Act::json(completion("last"))])).await;
    let gateway = secure(&old, &provider, TLS).await;
    let mut lines = Vec::new();
    for alpn in [HTTP1, HTTP2] {
        let client = Secure::new(&old.pem(), alpn, None);
        let mut line = client.line(gateway.address).await.unwrap();
        line.ask(gateway.address, chat("fast")).await.unwrap();
        let stream = begun(&mut line, &gateway).await;
        lines.push((line, stream));
    }
    put(gateway.folder(), &new);
    is_seen(&gateway, &new).await;
    go_on.send(()).unwrap();
    for (mut line, stream) in lines {
        let rest = stream.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(rest, FINISH.to_owned() + DONE);
        let last = line.ask(gateway.address, chat("fast")).await;
        match line {
            // Its answer says that it is the last one.
            Line::Http1(_) => assert_eq!(last.unwrap().header("connection"), Some("close")),
            // It was told to open another connection.
            Line::Http2(_) => assert!(last.is_err()),
        }
    }
}

#[tokio::test]
async fn sessions_are_resumed_until_another_must_vouch() {
    let (identity, ours) = (localhost(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &identity);
    write(folder.path().join("ca.crt"), ours.pem()).unwrap();
    let provider = says("hi").await;
    let gateway = of(folder, &provider, MUTUAL).await;
    let reloaded = async || {
        let answer = reload(gateway.admin).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let vouched = ours.vouches_for(&["ann"]);
    let client = Secure::new(&identity.pem(), HTTP1, Some(&vouched));
    assert!(!client.resumes(gateway.address).await, "the first");
    assert!(client.resumes(gateway.address).await);
    reloaded().await;
    assert!(
        client.resumes(gateway.address).await,
        "nothing is different"
    );
    let others = Authority::new();
    write(gateway.folder().join("ca.crt"), others.pem() + &ours.pem()).unwrap();
    reloaded().await;
    assert!(
        !client.resumes(gateway.address).await,
        "the roots are others"
    );
    write(gateway.folder().join("ca.crt"), others.pem()).unwrap();
    reloaded().await;
    let asked = match client.line(gateway.address).await {
        Ok(mut line) => line.ask(gateway.address, chat("fast")).await.ok(),
        Err(_) => None,
    };
    assert!(asked.is_none(), "a session of before is no way in");
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_changes_nothing() {
    let (identity, other) = (localhost(), localhost());
    let provider = says("hi").await;
    let gateway = secure(&identity, &provider, TLS).await;
    write(gateway.folder().join("tls.key"), other.key()).unwrap();
    let answer = reload(gateway.admin).await;
    assert_eq!(answer.code(), "invalid_configuration");
    let want = "gateway.toml:4: server.tls.key: tls.key is not the key of the certificate";
    assert!(answer.text().contains(want), "{}", answer.text());
    let client = Secure::new(&identity.pem(), HTTP1, None);
    assert_eq!(client.ask(gateway.address, chat("fast")).await.status, 200);
}

#[tokio::test]
async fn tls_comes_and_goes() {
    let identity = localhost();
    let provider = says("hi").await;
    let gateway = secure(&identity, &provider, "").await;
    let plainly = async || {
        raw(
            gateway.address,
            b"GET /health/live HTTP/1.0\r\nhost: a\r\n\r\n",
        )
        .await
    };
    assert!(plainly().await.starts_with("HTTP/1.0 200 "));
    let change = async |tls: &str| {
        write(
            gateway.folder().join("gateway.toml"),
            configured(&provider, tls),
        )
        .unwrap();
        assert_eq!(reload(gateway.admin).await.status, 200);
    };
    change(TLS).await;
    assert!(plainly().await.contains("https://"));
    is_seen(&gateway, &identity).await;
    change("").await;
    assert!(plainly().await.starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn operators_connect_over_tls_as_well() {
    let identity = localhost();
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &identity);
    let text = configured(&says("hi").await, "").replace("[admin]\n", &format!("[admin]\n{TLS}"));
    write(folder.path().join("gateway.toml"), text).unwrap();
    let gateway = Gateway::of_file(folder).await;
    let client = Secure::new(&identity.pem(), HTTP1, None);
    let mut line = client.connect(gateway.admin).await.unwrap();
    let request = "GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n";
    line.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\ntollgate_build_info{"), "{answer}");
    let (code, _, text) = run(gateway.folder(), &["explain", "--model", "fast"]);
    assert!(code == 1 && text.contains("--offline"), "{text}");
}

/// What stands in `tls`, and what is said of it.
const FLAWED: &[(&str, &str)] = &[
    (
        "cert = \"none\", key = \"tls.key\"",
        "tls.cert: none cannot be read: No such file",
    ),
    (
        "cert = \"empty\", key = \"tls.key\"",
        "tls.cert: empty holds no certificate",
    ),
    (
        "cert = \"tls.key\", key = \"tls.key\"",
        "tls.cert: tls.key holds no certificate",
    ),
    (
        "cert = \"wrong.crt\", key = \"tls.key\"",
        "tls.cert: wrong.crt",
    ),
    (
        "cert = \"tls.crt\", key = \"none\"",
        "tls.key: none cannot be read: No such file",
    ),
    (
        "cert = \"tls.crt\", key = \"tls.crt\"",
        "tls.key: tls.crt holds no private key",
    ),
    (
        "cert = \"tls.crt\", key = \"secret.key\"",
        "tls.key: secret.key is encrypted",
    ),
    (
        "cert = \"tls.crt\", key = \"wrong.key\"",
        "tls.key: wrong.key",
    ),
    (
        "cert = \"tls.crt\", key = \"other.key\"",
        "tls.key: other.key is not the key of the certificate",
    ),
    (
        "cert = \"tls.crt\", key = \"tls.key\", client_ca = \"none\"",
        "tls.client_ca: none cannot be read",
    ),
    (
        "cert = \"tls.crt\", key = \"tls.key\", client_ca = \"empty\"",
        "tls.client_ca: empty holds no certificate",
    ),
    (
        "cert = \"tls.crt\", key = \"tls.key\", client_ca = \"wrong.crt\"",
        "tls.client_ca: wrong.crt",
    ),
    (
        "cert = \"tls.crt\", key = \"tls.key\", ca = 1",
        "tls.ca: `ca` is unknown; there are cert, key and client_ca",
    ),
    ("cert = \"tls.crt\"", "tls.key: `key` is missing"),
];

fn pem(kind: &str) -> String {
    format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")
}

#[test]
fn each_flaw_of_tls_says_where_it_is() {
    let (identity, other, authority) = (localhost(), localhost(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("tls.crt", identity.pem()),
        ("tls.key", identity.key()),
        ("other.key", other.key()),
        ("secret.key", pem("ENCRYPTED PRIVATE KEY")),
        ("wrong.key", pem("PRIVATE KEY")),
        ("wrong.crt", pem("CERTIFICATE")),
        ("empty", String::new()),
        ("ca.crt", authority.pem()),
    ] {
        write(folder.path().join(name), text).unwrap();
    }
    let check = |section: &str, listen: &str, tls: &str| {
        let text = format!("[{section}]\nlisten = \"{listen}\"\ntls = {tls}\n");
        write(folder.path().join("gateway.toml"), text).unwrap();
        run(folder.path(), &["check"])
    };
    let fails = |section: &str, listen: &str, tls: &str, want: &str| {
        let (code, _, text) = check(section, listen, tls);
        let want = format!("gateway.toml:3: {section}.{want}");
        assert!(code == 1 && text.contains(&want), "{want}: {text}");
        assert!(!text.contains("KEY-----\nM"), "{text}");
    };
    let good = "{ cert = \"tls.crt\", key = \"tls.key\", client_ca = \"ca.crt\" }";
    for section in ["server", "admin"] {
        for (fields, want) in FLAWED {
            fails(section, "127.0.0.1:0", &format!("{{ {fields} }}"), want);
        }
        let want = "tls: expected a table such as { cert";
        fails(section, "127.0.0.1:0", "true", want);
        fails(
            section,
            "unix:t.sock",
            good,
            "tls: nobody connects over the network",
        );
        assert_eq!(check(section, "127.0.0.1:0", good).0, 0);
    }
}

#[tokio::test]
async fn when_a_certificate_expires_is_told() {
    let soon = Identity::until(&["localhost"], 2026);
    let provider = says("hi").await;
    let gateway = secure(&soon, &provider, TLS).await;
    let line = |listener: &str| {
        format!("tollgate_certificate_expires_timestamp_seconds{{listener=\"{listener}\"}}")
    };
    // 2026-01-01 in UTC.
    assert_eq!(gateway.metric(&line("clients")), 1_767_225_600.0);
    assert!(!gateway.metrics().contains(&line("operators")));
    let (code, said, _) = run(gateway.folder(), &["check"]);
    let want = "server.tls.cert: it expired on Thu, 01 Jan 2026 00:00:00 GMT";
    assert!(code == 0 && said.contains(want), "{said}");
    put(gateway.folder(), &localhost());
    let told = reload(gateway.admin).await.json();
    assert_eq!(told["warnings"], serde_json::json!([]));
    let files: Vec<&str> = told["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it.as_str())
        .collect();
    assert!(files.len() == 2 && files[0].ends_with("tls.crt"), "{told}");
    // 2100-01-01 in UTC.
    assert_eq!(gateway.metric(&line("clients")), 4_102_444_800.0);
    put(gateway.folder(), &soon);
    let told = reload(gateway.admin).await.json();
    assert_eq!(told["warnings"], serde_json::json!([want]));
}
