//! Web pages: which may call, by which name a browser may have found us, and what it is told before it lets a page go.

use http::Method;

use crate::errors::complaint;
use crate::path::one;
use crate::support::client::{self, get, whole};
use crate::support::{Act, Answer, CHAT, DONE, FINISH, Gateway, Provider};
use crate::support::{chat, chat_stream, completion, delta};

const APP: &str = "https://app.example.com";

/// A chat request with headers of one's own.
async fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("authorization", "Bearer sk-ann")], headers].concat();
    whole(client::send(gateway.address, Method::POST, CHAT, &headers, chat("fast")).await).await
}

/// A gateway that a page may call, before a provider that answers.
async fn with(act: Act) -> (Provider, Gateway) {
    let provider = Provider::new([act]).await;
    let server =
        format!("cors = [\"{APP}:443\"]\nnames = [\"gate.example.com\"]\nmax_body = \"1KiB\"");
    let gateway = Gateway::with(&server, &one(&provider)).await;
    (provider, gateway)
}

#[tokio::test]
async fn pages_that_are_not_listed_are_refused_also_in_open_mode() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let open = one(&provider).replace("[keys.ann]\nkey = \"sk-ann\"\n", "");
    for text in [one(&provider), open] {
        let gateway = Gateway::start(&text).await;
        for (method, path) in [
            (Method::POST, CHAT),
            (Method::GET, "/v1/models"),
            (Method::GET, "/v1/models/fast"),
            (Method::GET, "/health"),
            (Method::OPTIONS, CHAT),
        ] {
            for origin in ["https://evil.example", "null"] {
                let headers = [
                    ("authorization", "Bearer sk-ann"),
                    ("origin", origin),
                    ("access-control-request-method", "POST"),
                ];
                let coming = client::send(
                    gateway.address,
                    method.clone(),
                    path,
                    &headers,
                    chat("fast"),
                );
                let answer = whole(coming.await).await;
                let message = complaint(&answer, 403, "origin_not_allowed");
                assert!(message.contains(origin), "{message}");
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
    }
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn a_listed_page_is_answered_and_may_read_the_answer() {
    let theirs = Act::json(completion("x"))
        .with("access-control-allow-origin", "*")
        .with("vary", "accept");
    let (provider, gateway) = with(theirs).await;
    let answer = ask(&gateway, &[("origin", APP)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
    let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["accept", "origin"]);
    assert_eq!(
        provider.only().header("origin"),
        None,
        "it stays between us"
    );

    // Errors as well, or the page could not tell what was wrong.
    let wrong = [("origin", APP), ("authorization", "Bearer sk-bob")];
    let coming = client::send(gateway.address, Method::POST, CHAT, &wrong, chat("fast"));
    let refused = whole(coming.await).await;
    complaint(&refused, 401, "invalid_api_key");
    assert_eq!(refused.header("access-control-allow-origin"), Some(APP));

    let plain = ask(&gateway, &[]).await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_page_may_read_a_stream() {
    let (_provider, gateway) = with(Act::events([delta("a"), FINISH.into(), DONE.into()])).await;
    let headers = [("api-key", "sk-ann"), ("origin", APP)];
    let coming = client::send(
        gateway.address,
        Method::POST,
        CHAT,
        &headers,
        chat_stream("fast"),
    );
    let answer = whole(coming.await).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert!(answer.text().ends_with(DONE));
}

#[tokio::test]
async fn a_browser_is_told_what_a_listed_page_may_send() {
    let (provider, gateway) = with(Act::Hang).await;
    let asks = [
        ("origin", APP),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization,content-type",
        ),
        ("access-control-request-private-network", "true"),
    ];
    let coming = client::send(gateway.address, Method::OPTIONS, CHAT, &asks, "");
    let told = whole(coming.await).await;
    assert_eq!((told.status.as_u16(), told.text()), (204, String::new()));
    for (name, want) in [
        ("access-control-allow-origin", APP),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-allow-private-network", "true"),
        ("access-control-max-age", "7200"),
        ("vary", "origin"),
    ] {
        assert_eq!(told.header(name), Some(want), "{name}");
    }
    // Without the question it is a method like any other.
    let coming = client::send(gateway.address, Method::OPTIONS, CHAT, &asks[..1], "");
    complaint(&whole(coming.await).await, 405, "method_not_allowed");
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn names_that_are_not_ours_are_refused_on_both_listeners() {
    let (provider, gateway) = with(Act::json(completion("x"))).await;
    for ours in ["localhost:4000", "tollgate", "gate.example.com", "10.0.0.1"] {
        assert_eq!(ask(&gateway, &[("host", ours)]).await.status, 200, "{ours}");
    }
    for theirs in [
        "evil.example",
        "127.0.0.1.evil.example:4000",
        "gate.example.com.evil",
    ] {
        let message = complaint(
            &ask(&gateway, &[("host", theirs)]).await,
            403,
            "host_not_allowed",
        );
        assert!(
            message.contains(theirs) && message.contains("names"),
            "{message}"
        );
        let line = format!("GET /metrics HTTP/1.1\r\nhost: {theirs}\r\nconnection: close\r\n\r\n");
        let operators = client::raw(gateway.admin, line.as_bytes()).await;
        assert!(operators.starts_with("HTTP/1.1 403 "), "{operators}");
        assert!(
            operators.contains(theirs) && !operators.contains("tollgate_"),
            "{operators}"
        );
    }
    assert_eq!(provider.count(), 4);
    for lines in ["", "host: localhost\r\nhost: localhost\r\n"] {
        let line = format!("GET /health HTTP/1.1\r\nconnection: close\r\n{lines}\r\n");
        for listener in [gateway.address, gateway.admin] {
            let answer = client::raw(listener, line.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
    }
    // A target with a name in it goes before `Host`.
    let line =
        "GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = client::raw(gateway.address, line.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn no_page_but_its_own_may_call_the_operators_listener() {
    let (_provider, gateway) = with(Act::Hang).await;
    let from = async |origin: &str| {
        let headers = [("origin", origin)];
        let coming = client::send(gateway.admin, Method::GET, "/metrics", &headers, "");
        whole(coming.await).await.status.as_u16()
    };
    assert_eq!(from(&format!("http://{}", gateway.admin)).await, 200);
    for other in [APP, "null", &format!("http://{}", gateway.address)] {
        assert_eq!(from(other).await, 403, "{other}");
    }
    assert_eq!(get(gateway.admin, "/metrics", "").await.status, 200);
}

#[tokio::test]
async fn a_body_must_say_that_it_is_json() {
    let (provider, gateway) = with(Act::json(completion("x"))).await;
    for json in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(ask(&gateway, &[("content-type", json)]).await.status, 200);
    }
    for other in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "",
    ] {
        let answer = ask(&gateway, &[("content-type", other)]).await;
        let message = complaint(&answer, 415, "unsupported_media_type");
        assert!(message.contains("application/json"), "{message}");
    }
    let body = chat("fast");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\napi-key: sk-ann\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = client::raw(gateway.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn any_page_may_call_where_the_operator_says_so() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::with("cors = [\"*\"]\nnames = [\"*\"]", &one(&provider)).await;
    for origin in [APP, "null", "http://evil.example"] {
        let headers = [("origin", origin), ("host", "evil.example")];
        let answer = ask(&gateway, &headers).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    }
}
