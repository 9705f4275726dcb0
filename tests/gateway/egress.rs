//! The ways out: sockets, proxies, a company's roots, and servers of another age.

use std::time::{Duration, Instant};

use crate::cli::{folder_with, tollgate};
use crate::errors::complaint;
use crate::support::client::{self, Answer};
use crate::support::http2::{Http2, Manners};
use crate::support::proxy::Proxy;
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Identity, Provider, USAGE, ask, chat, chat_stream,
    completion, delta, model, post, provider_at, until,
};

/// The user `me` with the password `hunter2`.
const ME: &str = "Basic bWU6aHVudGVyMg==";

/// `fast` goes to one provider, with a URL and more lines of its own.
fn at(url: &str, more: &str) -> String {
    format!(
        "[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"{url}\"\napi_key = \"env:SOME_KEY\"\ntries = 1\n{more}\n"
    ) + &model("fast", &["p/x"], "[keys.ann]\nkey = \"sk-ann\"")
}

fn says(text: &str) -> Act {
    Act::json(completion(text))
}

#[track_caller]
fn said(answer: &Answer, text: &str) {
    let got = (answer.status.as_u16(), answer.text());
    assert_eq!(got, (200, completion(text)));
}

/// What `tollgate check` prints and how it ends, with these variables and nothing else.
fn check(text: &str, variables: &[(&str, String)], probe: &[&str]) -> (i32, String, String) {
    let folder = folder_with(text);
    let output = tollgate(folder.path())
        .arg("check")
        .args(probe)
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .env("SOME_KEY", "sk-provider-secret")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// The same with `--probe`, while what is probed answers in this process.
async fn probe(text: String, variables: Vec<(&'static str, String)>) -> (i32, String, String) {
    let checking = tokio::task::spawn_blocking(move || check(&text, &variables, &["--probe"]));
    checking.await.unwrap()
}

#[tokio::test]
async fn a_socket_is_asked_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let events = || [delta("a"), FINISH.into(), USAGE.into(), DONE.into()];
    let acts = [says("hi"), Act::events(events()), says("hi")];
    let provider = Provider::at(&path, acts);
    // Relative to the configuration's folder, and no business of a proxy's.
    let proxy = [("HTTP_PROXY", "http://127.0.0.1:1".to_owned())];
    let gateway = Gateway::among(folder, &proxy, &at("unix:engine.sock", "")).await;
    said(&ask(&gateway, chat("fast")).await, "hi");
    let received = provider.only();
    assert_eq!(received.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(received.header("host"), Some("localhost"));
    let stream = ask(&gateway, chat_stream("fast")).await;
    assert_eq!(
        stream.text(),
        [delta("a"), FINISH.into(), DONE.into()].concat()
    );
    let other = at(&format!("unix:{}:/api/v2", path.display()), "");
    gateway.apply(&other).unwrap();
    said(&ask(&gateway, chat("fast")).await, "hi");
    let last = provider.received().pop().unwrap();
    assert_eq!(last.line, "POST /api/v2/chat/completions HTTP/1.1");
}

#[tokio::test]
async fn a_socket_whose_client_leaves_is_closed_and_one_that_nobody_serves_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let provider = Provider::at(&path, [Act::Stall(vec![delta("a")])]);
    let gateway = Gateway::among(folder, &[], &at("unix:engine.sock", "")).await;
    let mut coming = client::open(gateway.address, CHAT, "sk-ann", chat_stream("fast")).await;
    coming.piece().await.unwrap().unwrap();
    drop(coming);
    until("the provider is told to stop", || provider.left() == 1).await;

    let good = Provider::new([says("b")]).await;
    let dead = at("unix:nobody.sock", "").replace(r#"["p/x"]"#, r#"["p/x", "b/y"]"#);
    let gateway = Gateway::start(&(dead + &provider_at("b", good.address, ""))).await;
    said(&ask(&gateway, chat("fast")).await, "b");
}

#[tokio::test]
async fn a_companys_roots_are_trusted_beside_the_machines() {
    let identity = Identity::of(&["localhost"]);
    let provider = Provider::secure(&identity, [says("hi")]).await;
    let url = format!("https://localhost:{}/v1", provider.address.port());
    let gateway = Gateway::start(&at(&url, "")).await;
    let answer = ask(&gateway, chat("fast")).await;
    complaint(&answer, 502, "upstream_error");
    assert_eq!(provider.count(), 0);

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corp.pem"), identity.pem()).unwrap();
    let gateway = Gateway::among(folder, &[], &at(&url, "ca_file = \"corp.pem\"")).await;
    for _ in 0..3 {
        said(&ask(&gateway, chat("fast")).await, "hi");
    }
    // Whoever takes it back is believed at once: connections are not kept beyond the trust they were made with.
    gateway.apply(&at(&url, "")).unwrap();
    complaint(&ask(&gateway, chat("fast")).await, 502, "upstream_error");
}

/// A whole handshake is dear: a session is gone on with, whichever worker made it.
#[tokio::test]
async fn workers_resume_each_others_sessions() {
    let identity = Identity::of(&["localhost"]);
    let body = completion("hi");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let provider = Provider::secure(&identity, [Act::Raw(answer.into_bytes())]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corp.pem"), identity.pem()).unwrap();
    let url = format!("https://localhost:{}/v1", provider.address.port());
    let gateway = Gateway::among(folder, &[], &at(&url, "ca_file = \"corp.pem\"")).await;
    for _ in 0..6 {
        said(&ask(&gateway, chat("fast")).await, "hi");
    }
    assert_eq!((provider.connections(), provider.resumed()), (6, 5));
}

#[tokio::test]
async fn a_proxy_carries_plain_requests_and_is_shown_its_own_credentials() {
    let (provider, proxy) = (
        Provider::new([says("hi")]).await,
        Proxy::new(Some(ME)).await,
    );
    let url = format!("http://engine.test:{}/v1", provider.address.port());
    let written = format!("proxy = \"http://me:hunter2@{}\"", proxy.address);
    let gateway = Gateway::start(&at(&url, &written)).await;
    said(&ask(&gateway, chat("fast")).await, "hi");
    let head = proxy.only();
    let line = format!("POST {url}/chat/completions HTTP/1.1\r\n");
    assert!(head.starts_with(&line), "{head}");
    let received = provider.only();
    let host = format!("engine.test:{}", provider.address.port());
    assert_eq!(received.header("host"), Some(&*host));
    assert_eq!(
        received.header("authorization"),
        Some("Bearer sk-provider-secret")
    );
    assert_eq!(received.header("proxy-authorization"), None);
    said(&ask(&gateway, chat("fast")).await, "hi");
}

#[tokio::test]
async fn a_proxy_opens_a_tunnel_for_tls_and_sees_nothing_of_it() {
    // Nobody here can look this name up: that is the proxy's business.
    let identity = Identity::of(&["engine.test"]);
    let provider = Provider::secure(&identity, [says("hi")]).await;
    let proxy = Proxy::new(Some(ME)).await;
    let port = provider.address.port();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corp.pem"), identity.pem()).unwrap();
    let more = format!(
        "ca_file = \"corp.pem\"\nproxy = \"http://me:hunter2@{}\"",
        proxy.address
    );
    let text = at(&format!("https://engine.test:{port}/v1"), &more);
    let gateway = Gateway::among(folder, &[], &text).await;
    said(&ask(&gateway, chat("fast")).await, "hi");
    let want = format!(
        "CONNECT engine.test:{port} HTTP/1.1\r\nHost: engine.test:{port}\r\nProxy-Authorization: {ME}\r\n\r\n"
    );
    assert_eq!(proxy.only(), want);
    assert_eq!(provider.only().header("proxy-authorization"), None);
}

#[tokio::test]
async fn tls_with_the_proxy_goes_around_tls_with_the_provider() {
    let identity = Identity::of(&["localhost"]);
    let provider = Provider::secure(&identity, [says("hi")]).await;
    let proxy = Proxy::secure(&identity).await;
    let (to, via) = (provider.address.port(), proxy.address.port());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corp.pem"), identity.pem()).unwrap();
    let more = format!("ca_file = \"corp.pem\"\nproxy = \"https://localhost:{via}\"");
    let text = at(&format!("https://localhost:{to}/v1"), &more);
    let gateway = Gateway::among(folder, &[], &text).await;
    said(&ask(&gateway, chat("fast")).await, "hi");
    assert!(
        proxy
            .only()
            .starts_with(&format!("CONNECT localhost:{to} "))
    );
}

#[tokio::test]
async fn the_environment_names_a_proxy_unless_it_spares_the_host() {
    let (provider, proxy) = (Provider::new([says("hi")]).await, Proxy::new(None).await);
    let port = provider.address.port();
    // No loopback address by its looks, and this machine all the same.
    let url = format!("http://0.0.0.0:{port}/v1");
    let named = format!("http://{}", proxy.address);
    let none = "http://127.0.0.1:1".to_owned();
    let through = async |variables: &[(&str, String)], more: &str, url: &str| {
        let before = proxy.heads().len();
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::among(folder, variables, &at(url, more)).await;
        said(&ask(&gateway, chat("fast")).await, "hi");
        proxy.heads().len() > before
    };
    let one = [("HTTP_PROXY", named.clone())];
    assert!(through(&one, "", &url).await);
    let two = [("http_proxy", named.clone()), ("HTTP_PROXY", none.clone())];
    assert!(
        through(&two, "", &url).await,
        "lower case goes before upper"
    );
    let all = [("ALL_PROXY", named.clone()), ("HTTPS_PROXY", none.clone())];
    assert!(through(&all, "", &url).await);
    let spared = [
        ("HTTP_PROXY", none.clone()),
        ("NO_PROXY", "a.test, 0.0.0.0/8".to_owned()),
    ];
    assert!(!through(&spared, "", &url).await);
    let dead = [("HTTP_PROXY", none)];
    assert!(!through(&dead, "proxy = \"direct\"", &url).await);
    let here = format!("http://localhost:{port}/v1");
    assert!(
        !through(&dead, "", &here).await,
        "loopback is never behind a proxy"
    );
    let written = format!("proxy = \"{named}\"");
    assert!(
        through(&dead, &written, &here).await,
        "what is written goes first"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_dead_moves_on_and_tells_no_credentials() {
    let good = Provider::new([says("b")]).await;
    let refusing = Proxy::new(Some(ME)).await;
    let nowhere = Provider::nowhere();
    for (url, proxy, why) in [
        (
            "http://engine.test:1/v1",
            refusing.address,
            "the proxy answered 407",
        ),
        (
            "https://engine.test:1/v1",
            refusing.address,
            "the proxy answered 407",
        ),
        (
            "https://engine.test:1/v1",
            nowhere,
            "could not be reached: Connection refused",
        ),
    ] {
        let first = format!(
            "[providers.a]\npreset = \"openai-compatible\"\nbase_url = \"{url}\"\ntries = 1\nproxy = \"http://you:hunter3@{proxy}\"\n"
        );
        let both = first.clone()
            + &provider_at("b", good.address, "")
            + &model("fast", &["a/x", "b/y"], "");
        let gateway = Gateway::start(&both).await;
        let answer = post(gateway.address, CHAT, "", chat("fast")).await;
        said(&answer, "b");
        let failed = r#"tollgate_tries_total{outcome="connect",target="a/x"}"#;
        assert_eq!(gateway.metric(failed), 1.0);

        let alone = first.clone() + &model("fast", &["a/x"], "");
        let gateway = Gateway::start(&alone).await;
        let answer = post(gateway.address, CHAT, "", chat("fast")).await;
        let message = complaint(&answer, 502, "upstream_error");
        assert!(
            !message.contains("hunter") && !message.contains("you"),
            "{message}"
        );
        assert!(
            message.contains("a/x could not be connected to"),
            "{message}"
        );

        let (code, out, err) = probe(first, Vec::new()).await;
        assert_eq!(code, 1, "{err}");
        assert!(
            out.contains(&format!("a: through the proxy http://{proxy}\n")),
            "{out}"
        );
        assert!(
            out.contains("a: could not connect: ") && out.contains(why),
            "{out}"
        );
        assert!(!(out + &err).contains("hunter"));
    }
}

#[tokio::test]
async fn a_probe_goes_the_same_ways() {
    let list = || Act::json(r#"{"data":[{"id":"a"},{"id":"b"}]}"#);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let _socket = Provider::at(&path, [list()]);
    let plain = Provider::new([list()]).await;
    let two = Http2::plain(Manners::default(), [list()]).await;
    let proxy = Proxy::new(None).await;
    let entry = |name: &str, url: String, more: &str| {
        format!(
            "[providers.{name}]\npreset = \"openai-compatible\"\nbase_url = \"{url}\"\n{more}\n"
        )
    };
    let port = plain.address.port();
    let text = entry("socket", format!("unix:{}", path.display()), "")
        + &entry("two", format!("http://{}/v1", two.address), "http2 = true")
        + &entry("via", format!("http://engine.test:{port}/v1"), "");
    let variables = vec![("ALL_PROXY", format!("me:hunter2@{}", proxy.address))];
    let (code, out, err) = probe(text, variables).await;
    assert_eq!((code, &*err), (0, ""));
    let want = format!(
        "via: through the proxy http://{}\ngateway.toml: fine: 3 providers, 0 models, 0 keys\nsocket: answers, 2 models\ntwo: answers, 2 models\nvia: answers, 2 models\n",
        proxy.address
    );
    assert_eq!(out, want);
    assert!(two.only().line.starts_with("GET "));
}

/// A provider that is not on this machine.
const FAR: &str = "https://engine.test/v1";

/// The only flaw of a provider with these lines.
#[track_caller]
fn flaw(more: &str, url: &str, variables: &[(&str, String)]) -> String {
    let (code, _, err) = check(&at(url, more), variables, &[]);
    assert_eq!((code, err.lines().count()), (1, 1), "{more}: {err}");
    assert!(!err.contains("hunter"), "{err}");
    err.trim().to_owned()
}

#[test]
fn every_flaw_of_the_way_has_its_place_and_advice() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, key).unwrap();
    let shown = file.display();
    for (more, url, want) in [
        (
            "proxy = \"socks5://me:hunter2@p:1080\"",
            FAR,
            "gateway.toml:6: providers.p.proxy: it is a SOCKS proxy, which tollgate does not speak; name an HTTP proxy, or \"direct\" for none".to_owned(),
        ),
        (
            "proxy = \"ftp://me:hunter2@p\"",
            FAR,
            "gateway.toml:6: providers.p.proxy: it must start with http:// or https://".into(),
        ),
        (
            "proxy = \"http://me:hunter 2@p\"",
            FAR,
            "gateway.toml:6: providers.p.proxy: it is not the URL of a proxy; write \"http://host:3128\", or \"direct\" for none".into(),
        ),
        (
            "proxy = \"http://p:3128\"",
            "unix:/run/engine.sock",
            "gateway.toml:6: providers.p.proxy: no proxy stands before a socket; leave it out".into(),
        ),
        (
            "ca_file = \"/nonexistent/corp.pem\"",
            FAR,
            "gateway.toml:6: providers.p.ca_file: `/nonexistent/corp.pem` cannot be read: No such file or directory (os error 2)".into(),
        ),
        (
            &format!("ca_file = \"{shown}\""),
            FAR,
            format!("gateway.toml:6: providers.p.ca_file: `{shown}` holds no certificate; it must be PEM, with a line -----BEGIN CERTIFICATE-----"),
        ),
        (
            "ca_file = \"corp.pem\"",
            "http://engine.test/v1",
            "gateway.toml:6: providers.p.ca_file: `corp.pem` would vouch for nobody: base_url is not https://; leave it out".into(),
        ),
        (
            "",
            "https://a..b/v1",
            "gateway.toml:3: providers.p.base_url: `https://a..b/v1` has a host that no certificate can name".into(),
        ),
        (
            "",
            "unix:/run/",
            "gateway.toml:3: providers.p.base_url: `unix:/run/` is no socket; write \"unix:/run/engine.sock\", at most 107 bytes of path".into(),
        ),
    ] {
        assert_eq!(flaw(more, url, &[]), want);
    }
}

#[test]
fn the_environment_may_be_wrong_as_well() {
    let socks = [("ALL_PROXY", "socks5h://me:hunter2@p:1080".to_owned())];
    let want = "gateway.toml:1: providers.p.proxy: the environment's ALL_PROXY is a SOCKS proxy, which tollgate does not speak; name an HTTP proxy, or \"direct\" for none";
    assert_eq!(flaw("", FAR, &socks), want);

    // A variable that is not set makes a provider unavailable, as a key's does: nobody leaves directly by mistake.
    let (code, out, _) = check(&at(FAR, "proxy = \"env:NO_SUCH_PROXY\""), &[], &[]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("p: proxy: NO_SUCH_PROXY is not set, 1 target skipped\n"),
        "{out}"
    );
    let here = [("HTTP_PROXY", "socks5://p".to_owned())];
    let (code, ..) = check(&at("http://localhost:1/v1", ""), &here, &[]);
    assert_eq!(code, 0, "what is not used is not judged");
}

#[tokio::test]
async fn a_proxy_that_says_nothing_is_left_by_the_connect_clock() {
    let silent = Provider::new([Act::Hang]).await;
    let more = format!(
        "proxy = \"http://{}\"\ntimeouts = {{ connect = \"150ms\" }}",
        silent.address
    );
    let gateway = Gateway::start(&at("https://engine.test/v1", &more)).await;
    let began = Instant::now();
    let message = complaint(&ask(&gateway, chat("fast")).await, 504, "upstream_timeout");
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert!(
        message.contains("p/x the connect clock ran out"),
        "{message}"
    );
    until("the proxy is left", || silent.left() == 1).await;
    assert!(silent.only().line.starts_with("CONNECT engine.test:443 "));
}
