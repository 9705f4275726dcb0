//! A provider over TLS: trusted by the machine's roots, or not at all.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Act, Identity, Provider, chat, completion, post};

/// A provider that proves to be so; and its certificate as PEM.
async fn provider(identity: Identity) -> (Provider, String) {
    let act = Act::json(completion("over TLS"));
    (Provider::secure(&identity, [act]).await, identity.pem())
}

/// A good one.
fn localhost() -> Identity {
    Identity::of(&["localhost"])
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
    let (provider, roots) = provider(localhost()).await;
    for (status, text) in ask(provider.address.port(), &roots, 3).await {
        assert_eq!((status, text), (200, completion("over TLS")));
    }
    assert_eq!(provider.count(), 3);
}

/// It is told that there is no connection, and nothing of the request goes out, once and again.
async fn is_not_asked(provider: &Provider, roots: &str) {
    for (status, text) in ask(provider.address.port(), roots, 2).await {
        assert_eq!(status, 502);
        assert!(text.contains("could not be connected to"), "{text}");
    }
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn a_provider_that_nobody_vouches_for_is_not_asked() {
    let (one, _) = provider(localhost()).await;
    is_not_asked(&one, &localhost().pem()).await;
}

#[tokio::test]
async fn a_provider_with_the_certificate_of_another_name_is_not_asked() {
    let (other, roots) = provider(Identity::of(&["elsewhere.example"])).await;
    is_not_asked(&other, &roots).await;
}

#[tokio::test]
async fn a_provider_whose_certificate_has_expired_is_not_asked() {
    let (late, roots) = provider(Identity::until(&["localhost"], 2020)).await;
    is_not_asked(&late, &roots).await;
}
