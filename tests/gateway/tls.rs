//! A provider over TLS: trusted by the machine's roots, or not at all.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};

use crate::support::{chat, completion, post};

/// A provider that speaks TLS.
struct Speaker {
    port: u16,
    /// Its certificate, as PEM.
    certificate: String,
    /// How many requests it got.
    asked: Arc<AtomicUsize>,
}

/// With a good certificate of its own.
async fn provider() -> Speaker {
    speaker("localhost", 2100).await
}

/// With a certificate for a name, which is good until a year begins.
async fn speaker(name: &str, year: i32) -> Speaker {
    let mut wanted = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    wanted.not_before = rcgen::date_time_ymd(2000, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = wanted.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
            tokio::task::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let body = completion("over TLS");
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                // A request of this chapter is short: it comes in one read.
                let mut request = [0; 4096];
                while stream.read(&mut request).await.ok()? > 0 {
                    counted.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(answer.as_bytes()).await.ok()?;
                    stream.flush().await.ok()?;
                }
                Some(())
            });
        }
    });
    Speaker {
        port,
        certificate: made.pem(),
        asked,
    }
}

/// The real binary, because its roots are found by a variable of the process.
async fn ask(port: u16, roots: &str, times: usize) -> Vec<(u16, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("roots.pem"), roots).unwrap();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"https://localhost:{port}/v1\"\ntries = 1\n"
    );
    std::fs::write(path("gateway.toml"), text).unwrap();
    let mut child = tokio_command(folder.path(), &path("roots.pem"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("it ended");
        if let Some((_, rest)) = line.split_once("listening on http://") {
            break rest.trim_end_matches("/v1").parse().unwrap();
        }
    };
    let mut answers = Vec::new();
    for _ in 0..times {
        let answer = post(address, "/v1/chat/completions", "", chat("p/x")).await;
        answers.push((answer.status.as_u16(), answer.text()));
    }
    child.kill().await.unwrap();
    answers
}

fn tokio_command(folder: &std::path::Path, roots: &std::path::Path) -> tokio::process::Child {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .current_dir(folder)
        .env_clear()
        .env("SSL_CERT_FILE", roots)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_provider_that_the_roots_vouch_for_is_asked_over_tls() {
    let speaker = provider().await;
    for (status, text) in ask(speaker.port, &speaker.certificate, 3).await {
        assert_eq!((status, text), (200, completion("over TLS")));
    }
    assert_eq!(speaker.asked.load(Ordering::SeqCst), 3);
}

/// It is told that there is no connection, and nothing of the request goes out, once and again.
async fn is_not_asked(speaker: &Speaker, roots: &str) {
    for (status, text) in ask(speaker.port, roots, 2).await {
        assert_eq!(status, 502);
        assert!(text.contains("could not be connected to"), "{text}");
    }
    assert_eq!(speaker.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_provider_that_nobody_vouches_for_is_not_asked() {
    let (one, other) = (provider().await, provider().await);
    is_not_asked(&one, &other.certificate).await;
}

#[tokio::test]
async fn a_provider_with_the_certificate_of_another_name_is_not_asked() {
    let other = speaker("elsewhere.example", 2100).await;
    is_not_asked(&other, &other.certificate).await;
}

#[tokio::test]
async fn a_provider_whose_certificate_has_expired_is_not_asked() {
    let late = speaker("localhost", 2020).await;
    is_not_asked(&late, &late.certificate).await;
}
