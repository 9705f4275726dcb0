//! What operators may ask, and who is one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use http::Method;
use serde_json::json;

use tollgate::cli::Loaded;
use tollgate::cli::serve::start;
use tollgate::config::load::Source;
use tollgate::config::secret::Environment;
use tollgate::server::Address;

use crate::cli::{Served, folder_with};
use crate::support::client::{self, Answer, get, whole};
use crate::support::money::{key, priced};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, ask, chat, chat_stream, completion, delta, until,
};

const USAGE: &str = "/admin/usage";

/// A line of `[admin]`, which the gateways here stand after.
const TOKEN: &str = "token = \"right\"\n";

/// A gateway that one request has gone through, with these lines in `[admin]`.
async fn used(admin: &str) -> (Provider, Gateway) {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let text = [admin, &priced(&provider, &key("ann", ""))].concat();
    let gateway = Gateway::start(&text).await;
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
    drop(gateway.ledger());
    (provider, gateway)
}

async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Answer {
    whole(client::send(address, method, path, headers, body).await).await
}

/// Asks without a token.
async fn look(address: SocketAddr, path: &str) -> Answer {
    send(address, Method::GET, path, &[], "").await
}

fn refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.code(), code);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = &answer.json()["error"];
    assert!(error["type"].is_string(), "{error}");
    error["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn usage_is_told_as_the_command_tells_it() {
    let (_provider, gateway) = used("").await;
    let answer = look(gateway.admin, USAGE).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let rows = answer.json();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(
        (&rows[0]["key"], &rows[0]["usd"]),
        (&json!("ann"), &json!("0.037"))
    );
    let path = "/admin/usage?by=model%2Ckey,user&since=7d&format=csv";
    let answer = look(gateway.admin, path).await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/csv; charset=utf-8")
    );
    std::fs::write(gateway.folder().join("gateway.toml"), "[providers.echo]\n").unwrap();
    let usage = |format| {
        let by = [
            "usage",
            "--by",
            "model,key,user",
            "--since",
            "7d",
            "--format",
            format,
        ];
        let (code, out, _) = crate::cli::run(gateway.folder(), &by);
        assert_eq!(code, 0);
        out
    };
    assert_eq!(answer.text(), usage("csv"));
    assert_eq!(answer.text().lines().count(), 2);
    let path = "/admin/usage?by=model,key,user&since=7d&format=json";
    let answer = look(gateway.admin, path).await;
    assert_eq!(answer.text(), usage("json").trim_end());
    let head = send(gateway.admin, Method::HEAD, USAGE, &[], "").await;
    assert_eq!((head.status.as_u16(), head.text().as_str()), (200, ""));
    for (query, what) in [
        ("by=colour", "key, model, target, team, day, user, tag"),
        ("by=", "key, model"),
        ("since=yesterday", "is not a duration"),
        ("format=xml", "json or csv"),
        ("who=ann", "by, since and format"),
    ] {
        let answer = look(gateway.admin, &format!("{USAGE}?{query}")).await;
        let message = refused(&answer, 400, "invalid_request");
        assert!(message.contains(what), "{message}");
    }
}

#[tokio::test]
async fn paths_that_are_not_there_are_told_in_json() {
    let (_provider, gateway) = used(TOKEN).await;
    for path in [
        "/admin",
        "/admin/",
        "/admin/nothing",
        "/admin/usage/more",
        "/admin//usage",
    ] {
        let known = get(gateway.admin, path, "right").await;
        refused(&known, 404, "unknown_url");
        // Who may not ask is not told either.
        refused(&look(gateway.admin, path).await, 401, "invalid_admin_token");
    }
    let other = get(gateway.admin, "/administration", "").await;
    assert_eq!(other.status, 404);
    let right = [("authorization", "Bearer right")];
    let post = send(gateway.admin, Method::POST, USAGE, &right, "{}").await;
    refused(&post, 405, "method_not_allowed");
    assert_eq!(post.header("allow"), Some("GET"));
}

#[tokio::test]
async fn a_ledger_in_memory_has_nothing_to_tell() {
    let gateway = Gateway::start("[ledger]\nstore = \"memory:\"\n[providers.echo]\n").await;
    let message = refused(&look(gateway.admin, USAGE).await, 404, "no_ledger");
    assert!(message.contains("memory:"), "{message}");
}

#[tokio::test]
async fn the_token_opens_and_a_wrong_one_is_looked_at_ten_times_a_minute() {
    let (_provider, gateway) = used(TOKEN).await;
    let missing = look(gateway.admin, USAGE).await;
    let message = refused(&missing, 401, "invalid_admin_token");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer"));
    for n in 0..10 {
        let wrong = get(gateway.admin, USAGE, &format!("wrong-{n}")).await;
        assert_eq!(refused(&wrong, 401, "invalid_admin_token"), message);
    }
    let late = get(gateway.admin, USAGE, "wrong-10").await;
    refused(&late, 429, "rate_limit_exceeded");
    let wait: u64 = late.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait), "{wait}");
    assert_eq!(get(gateway.admin, USAGE, "right").await.status, 200);
    // A key of a caller's opens nothing.
    assert_eq!(get(gateway.admin, USAGE, "sk-ann").await.status, 429);
    for free in ["/metrics", "/health", "/health/live", "/health/ready"] {
        assert_eq!(look(gateway.admin, free).await.status, 200, "{free}");
    }
    // And the token is nobody's key.
    let key = client::post(gateway.address, CHAT, "right", chat("fast")).await;
    assert_eq!(key.status, 401);
}

#[tokio::test]
async fn another_token_is_in_force_with_the_next_configuration() {
    let (provider, gateway) = used(TOKEN).await;
    let text = priced(&provider, &key("ann", ""));
    gateway
        .apply(&["token = \"next\"\n", &text].concat())
        .unwrap();
    assert_eq!(get(gateway.admin, USAGE, "right").await.status, 401);
    assert_eq!(get(gateway.admin, USAGE, "next").await.status, 200);
    for (flawed, why) in [
        ("token = \"\"\n", "admin.token: it is empty"),
        ("token = \"env:UNSET\"\n", "admin.token: UNSET is not set"),
        ("token = \" x\"\n", "admin.token: a token must not begin"),
    ] {
        let flaws = gateway.apply(&[flawed, &text].concat()).unwrap_err();
        assert!(flaws.0[0].contains(why), "{flaws}");
    }
    assert_eq!(get(gateway.admin, USAGE, "next").await.status, 200);
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed() {
    let (_provider, gateway) = used("").await;
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        for path in [USAGE, "/admin/keys", "/admin/keys/ann"] {
            let answer = send(gateway.admin, method.clone(), path, &[], "").await;
            let message = refused(&answer, 403, "admin_token_not_set");
            assert!(message.contains("set `token` in [admin]"), "{message}");
        }
    }
}

#[tokio::test]
async fn no_foreign_page_or_name_asks() {
    for (admin, token) in [("", ""), (TOKEN, "Bearer right")] {
        let (_provider, gateway) = used(admin).await;
        for foreign in [("origin", "http://evil.example"), ("host", "evil.example")] {
            for method in [Method::GET, Method::POST] {
                let headers = [foreign, ("authorization", token)];
                let answer = send(gateway.admin, method, USAGE, &headers, "").await;
                assert_eq!(answer.status, 403);
                assert!(answer.text().contains("evil.example"), "{}", answer.text());
            }
        }
        let own = format!("http://{}", gateway.admin);
        let headers = [("origin", own.as_str()), ("authorization", token)];
        let answer = send(gateway.admin, Method::GET, USAGE, &headers, "").await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn what_changes_something_is_json_and_not_too_long() {
    let (_provider, gateway) = used(TOKEN).await;
    let right = ("authorization", "Bearer right");
    for form in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [right, ("content-type", form)];
        let answer = send(gateway.admin, Method::POST, USAGE, &headers, "{}").await;
        refused(&answer, 415, "unsupported_media_type");
    }
    let bare = send(gateway.admin, Method::DELETE, USAGE, &[right], "").await;
    refused(&bare, 405, "method_not_allowed");
    let long = "x".repeat((64 << 10) + 1);
    let head = format!(
        "POST {USAGE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer right\r\nconnection: close\r\ncontent-type: application/json; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    let answer = client::raw(gateway.admin, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:.300}");
}

#[tokio::test]
async fn where_others_can_connect_only_the_token_opens() {
    let folder = tempfile::tempdir().unwrap();
    for (token, want) in [("", (403, 403)), (TOKEN, (401, 200))] {
        let text = format!(
            "[server]\nlog = \"off\"\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = [\"127.0.0.1:0\", \"0.0.0.0:0\"]\n{token}[providers.echo]\n"
        );
        let source = Source::parse("x".into(), PathBuf::from(folder.path()), &text).unwrap();
        let loaded = Loaded::read(source, Environment::default());
        let starting = move || start(&loaded, 1, Box::new(SystemTime::now));
        let running = tokio::task::spawn_blocking(starting)
            .await
            .unwrap()
            .unwrap();
        for address in &running.admin {
            let Address::Tcp(address) = address else {
                panic!()
            };
            let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
            let answer = look(address, USAGE).await;
            assert_eq!(answer.status, want.0);
            if want.0 == 403 {
                let message = refused(&answer, 403, "admin_token_not_set");
                assert!(message.contains("set `token` in [admin]"), "{message}");
            }
            assert_eq!(get(address, USAGE, "right").await.status, want.1);
            assert_eq!(look(address, "/metrics").await.status, 200);
        }
        tokio::task::spawn_blocking(move || drop(running))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_log_tells_of_wrong_tokens_and_not_which() {
    let folder = folder_with(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"right\"\n[providers.echo]\n",
    );
    let mut served = Served::start(folder.path());
    let admin = SocketAddr::from(([127, 0, 0, 1], served.admin()));
    for _ in 0..20 {
        let wrong = get(admin, USAGE, "sk-secret").await;
        assert!(matches!(wrong.status.as_u16(), 401 | 429));
    }
    assert_eq!(get(admin, USAGE, "right").await.status, 200);
    served.signal("-TERM");
    let line = served.line_with("wrong token");
    assert!(line.contains("WARN") && line.contains("count=1"), "{line}");
    let mut rest = String::new();
    loop {
        let line = served.line_with("");
        rest += &line;
        if line.contains("draining") {
            break;
        }
    }
    assert!(
        !rest.contains("wrong token") && !rest.contains("secret"),
        "{rest}"
    );
}

#[tokio::test]
async fn each_end_of_a_stream_is_in_its_line() {
    let whole = vec![delta("a"), FINISH.into(), DONE.into()];
    let error = "data: {\"error\":{\"message\":\"no\"}}\n\n";
    let acts = [
        (Act::events(whole), "complete"),
        (Act::Cut(vec![delta("a")]), "truncated"),
        (Act::Stall(vec![delta("a")]), "stalled"),
        (Act::events([delta("a"), error.into()]), "error"),
        (Act::Stall(vec![delta("a")]), "client_gone"),
    ];
    let ends = acts.each_ref().map(|(_, end)| *end);
    let provider = Provider::new(acts.map(|(act, _)| act)).await;
    let folder = folder_with(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nlog = \"json\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [providers.p]\npreset = \"openai-compatible\"\nbase_url = \"http://{}/v1\"\n\
         timeouts = {{ idle = \"1s\" }}\n[models.fast]\ntargets = [\"p/m\"]\n",
        provider.address
    ));
    let mut served = Served::start(folder.path());
    let address = SocketAddr::from(([127, 0, 0, 1], served.port()));
    for end in ends {
        let mut coming = client::open(address, CHAT, "", chat_stream("fast")).await;
        coming.piece().await.unwrap().unwrap();
        match end {
            "client_gone" => {
                drop(coming);
                until("both that stall are left", || provider.left() == 2).await;
            }
            _ => _ = coming.rest().await,
        }
        let line = served.line_with("\"access\"");
        assert!(line.contains(&format!("\"end\":\"{end}\"")), "{line}");
    }
}
