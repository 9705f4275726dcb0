//! Bad input from clients: it is refused, it costs a bounded amount of memory, and the next request is served.

use std::time::Duration;

use http::Method;

use crate::errors::complaint;
use crate::path::one;
use crate::support::client::{self, Socket, whole};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, ask, chat, chat_stream, completion, delta, until,
};

/// What this process may grow by: several times the longest event, and far from what no bound at all would make of it.
pub const BOUND: u64 = 400 << 20;

/// A file about this process; nothing if other tests run in it, because then its figures are not ours.
fn process(file: &str) -> String {
    match std::env::var("NEXTEST_EXECUTION_MODE").as_deref() {
        Ok("process-per-test") => std::fs::read_to_string(format!("/proc/self/{file}")),
        _ => Ok(String::new()),
    }
    .unwrap_or_default()
}

/// The most memory that this process ever had, in bytes.
pub fn peak() -> u64 {
    let status = process("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// A gateway before a provider that does this once, and then answers.
pub async fn with(act: Act) -> (Provider, Gateway) {
    let provider = Provider::new([act, Act::json(completion("x"))]).await;
    let text = one(&provider).replace("base_url", "tries = 1\nbase_url");
    let gateway = Gateway::start(&text).await;
    (provider, gateway)
}

/// A gateway before a provider that answers.
async fn well() -> (Provider, Gateway) {
    with(Act::json(completion("x"))).await
}

/// Nothing is left of what was, and the next request is served.
pub async fn serves_on(gateway: &Gateway) {
    until("nothing is under way", || gateway.in_flight() == 0).await;
    let answer = ask(gateway, chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, completion("x"))
    );
}

/// A chat request as bytes, with further lines in its head.
pub fn request(lines: &str, body: &str) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\napi-key: sk-ann\r\n{lines}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused() {
    let (provider, gateway) = well().await;
    let deep = "[".repeat(500_000);
    let members = (0..300)
        .map(|n| format!(",\"m{n}\":1"))
        .collect::<Vec<_>>()
        .concat();
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (b"\0\0\0\0".to_vec(), "invalid_json"),
        (b"\xef\xbb\xbf{\"model\":\"fast\"}".to_vec(), "invalid_json"),
        (b"{\"model\":\"fast\xff\"}".to_vec(), "invalid_json"),
        (
            b"{\"model\":\"fast\",\"\xc3\x28\":1}".to_vec(),
            "invalid_json",
        ),
        (b"{\"model\":\"fast\",\"x\":\"\\ud800\"}".to_vec(), ""),
        (b"{\"model\":\"\\ud800\"}".to_vec(), "invalid_request"),
        (b"[{\"model\":\"fast\"}]".to_vec(), "invalid_request"),
        (deep.clone().into_bytes(), "invalid_json"),
        (
            format!("{deep}{}", "]".repeat(500_000)).into_bytes(),
            "invalid_request",
        ),
        (
            format!("{{\"model\":\"fast\",\"x\":{deep}").into_bytes(),
            "invalid_json",
        ),
        (
            format!(
                "{{\"model\":\"fast\",\"messages\":{deep}{}}}",
                "]".repeat(500_000)
            )
            .into_bytes(),
            "",
        ),
        ("{\"a\":".repeat(500_000).into_bytes(), "invalid_json"),
        (
            format!("{{\"model\":\"fast\"{members}}}").into_bytes(),
            "invalid_request",
        ),
        (vec![b' '; 1 << 20], "invalid_json"),
        (
            format!("{{\"model\":{}}}", "9".repeat(1 << 20)).into_bytes(),
            "invalid_request",
        ),
    ];
    let mut asked = 0;
    for (body, code) in bodies {
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let answer = ask(&gateway, body).await;
        if code.is_empty() {
            // What is wrong where we do not look is the provider's to judge.
            asked += 1;
            assert_eq!(answer.status, 200, "{start}: {}", answer.text());
        } else {
            complaint(&answer, 400, code);
            assert!(answer.body.len() < 1000, "{start}: {}", answer.body.len());
        }
        assert_eq!(provider.count(), asked, "{start}");
    }
    serves_on(&gateway).await;
    assert!(peak() < BOUND, "{}", peak());
}

#[tokio::test]
async fn deep_messages_do_not_exhaust_the_stack_of_a_rule() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let rules = "rules = { messages = { roles = { developer = \"system\" }, drop = [\"name\"] } }\nbase_url";
    let gateway = Gateway::start(&one(&provider).replace("base_url", rules)).await;
    let (open, close) = ("[".repeat(500_000), "]".repeat(500_000));
    for body in [
        format!(r#"{{"model":"fast","messages":{open}{close}}}"#),
        format!(
            r#"{{"model":"fast","messages":[{{"role":"user","content":{open}{close}}}],"stream_options":{open}{close},"stream":true}}"#
        ),
    ] {
        let answer = ask(&gateway, body).await;
        assert!(
            answer.status == 200 || answer.status == 502,
            "{}",
            answer.text()
        );
    }
    serves_on(&gateway).await;
}

#[tokio::test]
async fn a_body_far_above_the_limit_is_not_read() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::with("max_body = \"64KiB\"", &one(&provider)).await;
    let before = peak();
    let mut told = Socket::to(gateway.address).await;
    told.write(request("", &" ".repeat(8 << 20))).await;
    complaint(&told.answer().await, 413, "request_too_large");
    told.rest().await;

    let mut shown = Socket::to(gateway.address).await;
    shown
        .write(request("", "").replace("content-length: 0", "transfer-encoding: chunked"))
        .await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    for _ in 0..100 {
        shown.write(&chunk).await;
    }
    complaint(&shown.answer().await, 413, "request_too_large");
    shown.rest().await;
    assert_eq!(provider.count(), 0);
    assert!(peak() - before < 64 << 20);
    serves_on(&gateway).await;
}

#[tokio::test]
async fn a_client_that_waits_for_a_word_before_its_body_gets_it_or_its_refusal() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::with("max_body = \"1KiB\"", &one(&provider)).await;
    let body = chat("fast");
    let head = request("expect: 100-continue\r\n", &body).replace(&body, "");
    let mut welcome = Socket::to(gateway.address).await;
    welcome.write(&head).await;
    assert_eq!(welcome.answer().await.status, 100);
    welcome.write(&body).await;
    assert_eq!(welcome.answer().await.status, 200);

    let mut refused = Socket::to(gateway.address).await;
    refused
        .write(request("expect: 100-continue\r\n", &" ".repeat(2000)).trim_end_matches(' '))
        .await;
    complaint(&refused.answer().await, 413, "request_too_large");
    let mut unknown = Socket::to(gateway.address).await;
    unknown.write(head.replace("sk-ann", "sk-bob")).await;
    complaint(&unknown.answer().await, 401, "invalid_api_key");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let (_provider, gateway) = well().await;
    let many = (0..300)
        .map(|n| format!("x-{n}: 1\r\n"))
        .collect::<Vec<_>>()
        .concat();
    for head in [
        format!(
            "GET /health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
            "y".repeat(100 << 10)
        ),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(100 << 10)),
        format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
    ] {
        let answer = client::raw(gateway.address, head.as_bytes()).await;
        let status: u16 = answer
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .parse()
            .unwrap();
        assert!([414, 431].contains(&status), "{answer}");
    }
    let long = format!(
        "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: {}\r\n\r\n",
        "y".repeat(50 << 10)
    );
    assert!(
        client::raw(gateway.address, long.as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    serves_on(&gateway).await;
}

#[tokio::test]
async fn what_is_no_http_is_hung_up_on() {
    let (provider, gateway) = well().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\napi-key: sk-ann\r\n";
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".to_vec(),
        b"\0\xff\xfe\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET  / HTTP/1.1\r\n\r\n".to_vec(),
        format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}").into_bytes(),
        format!("{head}content-length: -1\r\n\r\n{{}}").into_bytes(),
        format!("{head}content-length: 99999999999999999999\r\n\r\n{{}}").into_bytes(),
        format!("{head}transfer-encoding: gzip\r\n\r\n{{}}").into_bytes(),
        format!("{head}x-bad\r\n\r\n").into_bytes(),
        format!("{head}x-bad: a\0b\r\n\r\n").into_bytes(),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n").into_bytes(),
    ] {
        let mut socket = Socket::to(gateway.address).await;
        socket.write(&bytes).await;
        let answer = socket.rest().await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{bytes:?}: {answer}"
        );
    }
    assert_eq!(provider.count(), 0);
    serves_on(&gateway).await;
}

#[tokio::test]
async fn old_and_unusual_http_is_served() {
    let (provider, gateway) = well().await;
    let body = chat("fast");
    let old = request("", &body).replace("HTTP/1.1\r\nhost: x\r\n", "HTTP/1.0\r\n");
    let answer = client::raw(gateway.address, old.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"),
        "{answer}"
    );
    assert!(
        answer.ends_with(&completion("x")) && !answer.contains("chunked"),
        "{answer}"
    );

    let mut socket = Socket::to(gateway.address).await;
    socket
        .write(request("", &body).replace("POST /v1", "POST http://elsewhere/v1"))
        .await;
    assert_eq!(socket.answer().await.status, 200);
    socket
        .write(format!(
            "\r\n{}",
            request("", &body).replace("host: x", "HoSt: x")
        ))
        .await;
    assert_eq!(
        socket.answer().await.status,
        200,
        "a stray line before a request is skipped"
    );
    socket
        .write(request("", &body).replace("completions HTTP", "completions?api-version=1 HTTP"))
        .await;
    assert_eq!(socket.answer().await.status, 200);
    let line = provider.received().pop().unwrap().line;
    assert_eq!(
        line, "POST /v1/chat/completions HTTP/1.1",
        "where it goes is not the client's to say"
    );
}

#[tokio::test]
async fn a_stream_goes_to_an_old_client_too() {
    let events = [delta("a"), FINISH.into(), DONE.into()];
    let (_provider, gateway) = with(Act::events(events.clone())).await;
    let old = request("", &chat_stream("fast")).replace("HTTP/1.1\r\nhost: x\r\n", "HTTP/1.0\r\n");
    let answer = client::raw(gateway.address, old.as_bytes()).await;
    assert!(
        answer.ends_with(&format!("\r\n\r\n{}", events.concat())),
        "{answer}"
    );
    serves_on(&gateway).await;
}

#[tokio::test]
async fn half_a_request_costs_nothing_once_its_client_has_gone() {
    let (provider, gateway) = well().await;
    let whole = request("", &chat("fast"));
    for length in [1, 20, whole.len() / 2, whole.len() - 1] {
        let mut socket = Socket::to(gateway.address).await;
        socket.write(&whole[..length]).await;
        drop(socket);
    }
    serves_on(&gateway).await;
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let provider = Provider::new(["1", "2", "3"].map(|n| Act::json(completion(n)))).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut socket = Socket::to(gateway.address).await;
    let unknown = request("", "{}").replace("sk-ann", "sk-bob");
    let ahead = [
        request("", &chat("fast")),
        request("", &chat("fast")),
        unknown,
        request("", &chat("fast")),
    ];
    socket.write(ahead.concat()).await;
    assert_eq!(socket.answer().await.text(), completion("1"));
    assert_eq!(socket.answer().await.text(), completion("2"));
    complaint(&socket.answer().await, 401, "invalid_api_key");
    assert_eq!(socket.answer().await.text(), completion("3"));
}

#[tokio::test]
async fn a_client_that_sent_ahead_and_left_is_noticed() {
    let (provider, gateway) = with(Act::Hang).await;
    let mut socket = Socket::to(gateway.address).await;
    socket
        .write([request("", &chat("fast")), request("", &chat("fast"))].concat())
        .await;
    until("it is asked", || provider.count() == 1).await;
    drop(socket);
    until("the provider is told to stop", || provider.left() == 1).await;
    serves_on(&gateway).await;
}

#[tokio::test]
async fn urgent_data_is_no_reason_to_spin() {
    let (provider, gateway) = with(Act::Hang).await;
    let mut socket = Socket::to(gateway.address).await;
    socket.write(request("", &chat("fast"))).await;
    until("it is asked", || provider.count() == 1).await;
    socket.write_urgent();
    let before = cpu();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let used = cpu() - before;
    assert!(
        used < 40,
        "{used} hundredths of a second of work while there was nothing to do"
    );
    drop(socket);
    until("the provider is told to stop", || provider.left() == 1).await;
    serves_on(&gateway).await;
}

/// What the threads of this process have worked so far, in hundredths of a second.
fn cpu() -> u64 {
    let stat = process("stat");
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11);
    fields
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum()
}

#[tokio::test]
async fn many_connections_that_say_nothing_do_not_keep_others_out() {
    let (_provider, gateway) = well().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(Socket::to(gateway.address).await);
    }
    serves_on(&gateway).await;
    drop(silent);
    serves_on(&gateway).await;
}

#[tokio::test]
async fn a_key_in_unreadable_bytes_is_no_key() {
    let (_provider, gateway) = well().await;
    for value in ["Bearer sk-\u{e4}nn", "Bearer\tsk-ann", "Bearer", ""] {
        let mut socket = Socket::to(gateway.address).await;
        socket
            .write(
                request("", &chat("fast"))
                    .replace("api-key: sk-ann", &format!("authorization: {value}")),
            )
            .await;
        complaint(&socket.answer().await, 401, "invalid_api_key");
    }
    serves_on(&gateway).await;
}

#[tokio::test]
async fn headers_of_a_client_cannot_replace_ours_on_the_way_up() {
    let (provider, gateway) = well().await;
    let headers = [
        ("x-api-key", "sk-ann"),
        ("host", "elsewhere"),
        ("connection", "x-team, keep-alive"),
        ("x-team", "theirs"),
        ("accept-encoding", "br"),
        ("proxy-authorization", "Basic x"),
        ("x-forwarded-for", "1.2.3.4"),
    ];
    let answer =
        whole(client::send(gateway.address, Method::POST, CHAT, &headers, chat("fast")).await)
            .await;
    assert_eq!(answer.status, 200);
    let received = provider.only();
    for (name, want) in [
        ("host", Some(provider.address.to_string())),
        ("x-team", Some("research".to_owned())),
        ("accept-encoding", Some("identity".to_owned())),
        ("x-api-key", None),
        ("proxy-authorization", None),
        ("x-forwarded-for", None),
    ] {
        assert_eq!(received.header(name), want.as_deref(), "{name}");
        assert!(
            received.headers.iter().filter(|(n, _)| n == name).count() <= 1,
            "{name}"
        );
    }
    assert!(
        !received
            .headers
            .iter()
            .any(|(_, value)| value.contains("sk-ann"))
    );
}
