//! Charge-back: an entry says for whom a request was and to what it is charged, and whoever adds up can tell them apart.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;

use crate::cli;
use crate::support::books::Books;
use crate::support::client::{self, Answer, whole};
use crate::support::money::{COST, column, entered, key, priced};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Hands, Provider, USAGE, chat, completion, delta, until,
};

/// A chat request with a `user`, as JSON has it.
fn by(user: &str) -> String {
    chat("fast").replacen('{', &format!("{{\"user\":{user},"), 1)
}

async fn asks(gateway: &Gateway, name: &str, tag: Option<&str>, body: String) -> Answer {
    let key = format!("Bearer sk-{name}");
    let tag = tag.map(|tag| ("x-tollgate-tag", tag));
    let headers: Vec<_> = [("authorization", key.as_str())]
        .into_iter()
        .chain(tag)
        .collect();
    whole(client::send(gateway.address, Method::POST, CHAT, &headers, body).await).await
}

/// Users and tags of all entries; `-` stands for none.
async fn marks(gateway: &Gateway) -> Vec<String> {
    column(gateway, "coalesce(user, '-') || '/' || coalesce(tag, '-')").await
}

fn events() -> Act {
    Act::events([delta("a"), FINISH.into(), USAGE.into(), DONE.into()])
}

#[tokio::test]
async fn an_entry_says_for_whom_it_was() {
    let provider = Provider::new([
        Act::json(completion("x")),
        events(),
        Act::json(completion("x")),
    ])
    .await;
    let keys = key("ann", "") + &key("bob", "tags = [\"dept-7\", \"b\"]");
    let gateway = Gateway::start(&priced(&provider, &keys)).await;
    let whole = asks(&gateway, "ann", Some("dept-1"), by("\"u-1\"")).await;
    assert_eq!(whole.status, 200);
    let streamed = by("\"u-2\"").replacen('{', "{\"stream\":true,", 1);
    let streamed = asks(&gateway, "bob", Some("dept-2"), streamed).await;
    assert!(streamed.text().ends_with(DONE));
    // What a request says goes before what is written of its key, but says nothing where it is empty.
    for (name, tag) in [("bob", None), ("bob", Some(" ")), ("ann", None)] {
        assert_eq!(asks(&gateway, name, tag, chat("fast")).await.status, 200);
    }
    let want = [
        "u-1/dept-1",
        "u-2/dept-2",
        "-/dept-7,b",
        "-/dept-7,b",
        "-/-",
    ];
    assert_eq!(marks(&gateway).await, want);
    let sent = provider.received();
    assert!(
        sent[0].text().contains("\"user\":\"u-1\""),
        "it is passed on"
    );
    assert!(sent[0].header("x-tollgate-tag").is_none(), "a tag is ours");
}

#[tokio::test]
async fn what_a_client_writes_is_one_short_line() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&priced(&provider, &key("ann", ""))).await;
    let long = "x".repeat(60 << 10);
    for (user, tag) in [
        ("\"a\\nb\\u2028\\u202e\\u0000\"", Some("a\tb")),
        ("\"'; DROP TABLE chunk; --\"", Some("\"q\",")),
        ("\"=1+1\"", Some(long.as_str())),
        ("7", None),
        ("null", None),
        ("{\"id\":\"x\"}", None),
        ("\" \\r\\n\"", None),
    ] {
        let answer = asks(&gateway, "ann", tag, by(user)).await;
        assert_eq!(answer.status, 200, "{user}: {}", answer.text());
    }
    let body = by(&format!("\"{}\"", "é".repeat(500_000)));
    assert_eq!(asks(&gateway, "ann", None, body).await.status, 200);
    let want = [
        "ab/ab".to_owned(),
        "'; DROP TABLE chunk; --/\"q\",".to_owned(),
        format!("=1+1/{}", "x".repeat(128)),
        "-/-".to_owned(),
        "-/-".to_owned(),
        "-/-".to_owned(),
        "-/-".to_owned(),
        format!("{}/-", "é".repeat(128)),
    ];
    assert_eq!(marks(&gateway).await, want);
}

/// It is no longer than a head may be.
#[tokio::test]
async fn a_tag_of_a_megabyte_is_refused_and_does_no_damage() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&priced(&provider, &key("ann", ""))).await;
    let body = by("null");
    let tag = "x".repeat(1 << 20);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\napi-key: sk-ann\r\nx-tollgate-tag: {tag}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = client::raw(gateway.address, request.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    assert_eq!(provider.count(), 0);
    let after = asks(&gateway, "ann", Some("dept-7"), body).await;
    assert_eq!(after.status, 200, "{}", after.text());
    assert_eq!(marks(&gateway).await, ["-/dept-7"]);
}

/// Reads CSV as RFC 4180 says it is written, and takes nothing else.
fn cells(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut chars = text.chars().peekable();
    let (mut is_quoted, mut is_over) = (false, false);
    while let Some(c) = chars.next() {
        let row = rows.last_mut().unwrap();
        let cell = row.last_mut().unwrap();
        match (c, is_quoted) {
            ('"', true) if chars.next_if_eq(&'"').is_some() => cell.push('"'),
            ('"', true) => (is_quoted, is_over) = (false, true),
            (c, true) => cell.push(c),
            ('"', false) if cell.is_empty() && !is_over => is_quoted = true,
            (',', false) => {
                row.push(String::new());
                is_over = false;
            }
            ('\n', false) => {
                rows.push(vec![String::new()]);
                is_over = false;
            }
            (c, false) => {
                assert!(c != '"' && c != '\r' && !is_over, "{c:?} in {text}");
                cell.push(c);
            }
        }
    }
    assert!(!is_quoted, "{text}");
    assert_eq!(rows.pop(), Some(vec![String::new()]), "it ends with a line");
    rows
}

#[tokio::test]
async fn usage_tells_users_and_tags_apart_also_of_days_that_are_rolled_up() {
    const DAY: u64 = 86_400;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs();
    let hands = Hands::at(now - 40 * DAY);
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let keys = key("ann", "") + "[ledger]\nkeep = \"2d\"\n";
    let text = priced(&provider, &keys);
    let gateway = Gateway::by(&hands, "", &text).await;
    let users = ["\"u,1\"", "\"=HYPERLINK(\\\"http://x\\\")\"", "\"-1\""];
    for day in [40, 39, 0] {
        hands.move_to(now - day * DAY);
        for user in users {
            let answer = asks(&gateway, "ann", Some("dept \"7\""), by(user)).await;
            assert_eq!(answer.status, 200);
        }
        // What is written together is rolled up together.
        assert!(!entered(&gateway).is_empty());
    }
    // A ledger rolls up when it is opened, and once in a while.
    let gateway = gateway.restart(&text, |_| {}).await;
    let books = Books::of(&gateway).await;
    until("the first days are rolled up", || books.rows().len() == 3).await;
    std::fs::write(gateway.folder().join("gateway.toml"), "[providers.echo]\n").unwrap();
    let usage = |more: &[&str]| {
        let arguments = [&["usage", "--by", "user,tag"], more].concat();
        let (code, out, err) = cli::run(gateway.folder(), &arguments);
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let rows: serde_json::Value = serde_json::from_str(&usage(&["--format", "json"])).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for (row, user) in rows.iter().zip(["-1", "=HYPERLINK(\"http://x\")", "u,1"]) {
        assert_eq!(
            (&row["user"], &row["tag"]),
            (&user.into(), &"dept \"7\"".into())
        );
        assert_eq!(
            (row["entries"].as_u64(), row["input"].as_u64()),
            (Some(3), Some(21))
        );
        assert_eq!(row["usd"], "0.111");
        assert_eq!(3 * COST, 111_000_000);
    }
    let table = cells(&usage(&["--format", "csv"]));
    assert!(table.iter().all(|row| row.len() == table[0].len()));
    assert_eq!(table[0][..4], ["user", "tag", "usd", "entries"]);
    let users: Vec<&str> = table[1..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(users, ["'-1", "'=HYPERLINK(\"http://x\")", "u,1"]);
    assert!(
        table[1..]
            .iter()
            .all(|row| row[1..4] == ["dept \"7\"", "0.111", "3"])
    );
    assert!(usage(&[]).starts_with("USER"));
    let other = cli::run(gateway.folder(), &["usage", "--by", "colour"]);
    assert_eq!(other.0, 2);
}
