//! A provider over TLS: trusted by the machine's roots, or not at all.

use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};

use crate::support::{chat, completion, post};

/// A provider with a certificate of its own; its port, and the certificate as PEM.
async fn provider() -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
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
                    stream.write_all(answer.as_bytes()).await.ok()?;
                    stream.flush().await.ok()?;
                }
                Some(())
            });
        }
    });
    (port, made.cert.pem())
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
    let (port, roots) = provider().await;
    for (status, text) in ask(port, &roots, 3).await {
        assert_eq!((status, text), (200, completion("over TLS")));
    }
}

#[tokio::test]
async fn a_provider_that_nobody_vouches_for_is_not_asked() {
    let (port, _) = provider().await;
    let (_, others) = provider().await;
    let answers = ask(port, &others, 1).await;
    assert_eq!(answers[0].0, 502);
    assert!(
        answers[0].1.contains("could not be connected to"),
        "{}",
        answers[0].1
    );
}
