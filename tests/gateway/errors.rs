//! What a client hears when there is no answer: every row of the contract's table, and whose failure it sees.

use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;

use crate::path::one;
use crate::support::client::{self, Answer, Socket, get, whole};
use crate::support::{
    Act, CHAT, DONE, Gateway, Provider, ask, chat, chat_stream, completion, model, post,
    provider_at, until,
};

/// Checks that an answer is an error of ours in every respect, and gives its message.
#[track_caller]
pub fn complaint(answer: &Answer, status: u16, code: &str) -> String {
    let text = answer.text();
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (status, code),
        "{text}"
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let id = answer.header("x-request-id").unwrap();
    assert!(id.starts_with("req_") && id.len() == 28, "{id}");
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let json = answer.json();
    let error = json["error"].as_object().unwrap();
    assert_eq!(error["type"], kind);
    assert!(error.contains_key("param"), "{text}");
    assert!(!text.contains("sk-"), "a secret: {text}");
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty());
    message.to_owned()
}

/// The member of the request that an error is about.
fn param(answer: &Answer) -> Option<String> {
    answer.json()["error"]["param"].as_str().map(str::to_owned)
}

/// A gateway with one key, and with one model whose only target does this.
async fn with(act: Act) -> (Provider, Gateway) {
    let provider = Provider::new([act]).await;
    let text = one(&provider).replace("base_url", "tries = 1\nbase_url");
    let gateway = Gateway::start(&text).await;
    (provider, gateway)
}

#[tokio::test]
async fn what_is_not_json_is_refused_and_the_place_is_told() {
    let (provider, gateway) = with(Act::Hang).await;
    for body in [
        "",
        "hello",
        "{\"model\":\"fast\"",
        "{\"model\":\"fast\",}",
        "{\"model\":fast}",
        "{'model':1}",
    ] {
        let answer = ask(&gateway, body).await;
        let message = complaint(&answer, 400, "invalid_json");
        assert!(message.contains("line 1 column"), "{body}: {message}");
    }
    assert_eq!(provider.count(), 0);
    assert_eq!(
        gateway.metric(r#"tollgate_rejections_total{code="invalid_json"}"#),
        6.0
    );
}

#[tokio::test]
async fn a_body_that_two_readers_may_read_differently_is_refused_by_name() {
    let (provider, gateway) = with(Act::Hang).await;
    for (body, about, says) in [
        (r#"["model"]"#, None, "must be a JSON object"),
        ("7", None, "must be a JSON object"),
        (
            r#"{"model":"fast","model":"slow"}"#,
            Some("model"),
            "`model` is given twice",
        ),
        (
            r#"{"model":"fast","mod\u0065l":"slow"}"#,
            Some("model"),
            "`model` is given twice",
        ),
        (
            r#"{"model":"fast","Model":"slow"}"#,
            Some("Model"),
            "`Model` is given twice",
        ),
        (
            r#"{"model":"fast","x":1,"x":1}"#,
            Some("x"),
            "`x` is given twice",
        ),
        (
            r#"{"model":"fast","Max_Tokens":9}"#,
            Some("Max_Tokens"),
            "must be written `max_tokens`",
        ),
        (
            r#"{"model":"fast","\u017Ftream":true}"#,
            Some("\u{17f}tream"),
            "must be written `stream`",
        ),
        (r#"{"messages":[]}"#, Some("model"), "`model` must be given"),
        (r#"{"model":["fast"]}"#, Some("model"), "as a string"),
        (r#"{"model":null}"#, Some("model"), "as a string"),
        (
            r#"{"model":"fast","stream":"true"}"#,
            Some("stream"),
            "`stream` must be true or false",
        ),
        (
            r#"{"model":"fast","stream":1}"#,
            Some("stream"),
            "`stream` must be true or false",
        ),
    ] {
        let answer = ask(&gateway, body).await;
        let message = complaint(&answer, 400, "invalid_request");
        assert!(message.contains(says), "{body}: {message}");
        assert_eq!(param(&answer).as_deref(), about, "{body}");
    }
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn an_encoded_body_is_refused_and_told_how_to_come() {
    let (_provider, gateway) = with(Act::json(completion("x"))).await;
    let send = async |encoding| {
        let headers = [
            ("authorization", "Bearer sk-ann"),
            ("content-encoding", encoding),
        ];
        whole(client::send(gateway.address, Method::POST, CHAT, &headers, chat("fast")).await).await
    };
    let message = complaint(&send("gzip").await, 400, "invalid_request");
    assert!(message.contains("`gzip`"), "{message}");
    assert_eq!(send("identity").await.status, 200);
}

#[tokio::test]
async fn who_shows_no_good_key_hears_the_same_words_whatever_is_wrong() {
    let provider = Provider::new([]).await;
    let text = one(&provider) + "[keys.old]\nkey = \"sk-old\"\nexpires = \"2020-01-01\"\n";
    let gateway = Gateway::start(&text).await;
    let mut bodies = Vec::new();
    for header in [
        None,
        Some(("authorization", "Bearer sk-unknown")),
        Some(("authorization", "Bearer sk-old")),
        Some(("authorization", "Bearer ")),
        Some(("authorization", "sk-ann")),
        Some(("authorization", "Basic sk-ann")),
        Some(("x-api-key", "sk-annn")),
        Some(("api-key", "")),
    ] {
        for (method, path) in [
            (Method::POST, CHAT),
            (Method::GET, "/v1/models"),
            (Method::GET, "/v1/models/fast"),
        ] {
            let coming = client::send(
                gateway.address,
                method,
                path,
                header.as_slice(),
                chat("fast"),
            );
            let answer = whole(coming.await).await;
            complaint(&answer, 401, "invalid_api_key");
            bodies.push(answer.text());
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(bodies[0].contains("Authorization: Bearer"));
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn a_key_is_refused_before_its_body_is_read() {
    let (_provider, gateway) = with(Act::Hang).await;
    let mut socket = Socket::to(gateway.address).await;
    socket
        .write("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{")
        .await;
    complaint(&socket.answer().await, 401, "invalid_api_key");
}

#[tokio::test]
async fn what_a_key_may_not_use_is_named() {
    let provider = Provider::new([]).await;
    let text = one(&provider) + "[keys.bob]\nkey = \"sk-bob\"\nmodels = [\"p/*\"]\n";
    let gateway = Gateway::start(&text).await;
    let answer = post(gateway.address, CHAT, "sk-bob", chat("fast")).await;
    let message = complaint(&answer, 403, "model_not_allowed");
    assert!(message.contains("`fast`"), "{message}");
    assert_eq!(param(&answer).as_deref(), Some("model"));
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_what_is_asked_for_wrongly() {
    let (_provider, gateway) = with(Act::Hang).await;
    for name in ["gpt-9", "none/x", "p/", "/x", "", "\\ud83d\\ude00"] {
        let answer = ask(&gateway, chat(name)).await;
        let message = complaint(&answer, 404, "model_not_found");
        let name = name.replace("\\ud83d\\ude00", "\u{1f600}");
        assert!(
            message.contains(&format!("`{name}`")) && message.contains("/v1/models"),
            "{message}"
        );
        assert_eq!(param(&answer).as_deref(), Some("model"));
    }
    for path in [
        "/",
        "/v1",
        "/v1/chat/completions/",
        "/v2/chat/completions",
        "/v1/messages",
        "/metrics",
        "/admin/keys",
    ] {
        let answer = post(gateway.address, path, "sk-ann", chat("fast")).await;
        let message = complaint(&answer, 404, "unknown_url");
        assert!(message.contains("/v1/chat/completions"), "{message}");
    }
    for (method, path, allowed) in [
        (Method::GET, CHAT, "POST"),
        (Method::DELETE, "/embeddings", "POST"),
        (Method::OPTIONS, "/v1/completions", "POST"),
        (Method::POST, "/v1/models", "GET"),
        (Method::PUT, "/v1/models/fast", "GET"),
        (Method::POST, "/health", "GET"),
    ] {
        let headers = [("authorization", "Bearer sk-ann")];
        let answer = whole(client::send(gateway.address, method, path, &headers, "").await).await;
        let message = complaint(&answer, 405, "method_not_allowed");
        assert!(message.contains(allowed), "{message}");
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_so_long_and_no_longer() {
    let provider = Provider::new([]).await;
    let gateway = Gateway::with("body_timeout = \"200ms\"", &one(&provider)).await;
    let mut socket = Socket::to(gateway.address).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\napi-key: sk-ann\r\n";
    socket
        .write(format!("{head}content-length: 50\r\n\r\n{{\"model\":"))
        .await;
    let answer = socket.answer().await;
    let message = complaint(&answer, 408, "request_timeout");
    assert!(message.contains("200ms"), "{message}");
    assert_eq!(socket.rest().await, "", "and the connection is closed");
    until("its place is free", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_by_what_it_says_and_by_what_it_is() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::with("max_body = \"1KiB\"", &one(&provider)).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\napi-key: sk-ann\r\n";
    let mut told = Socket::to(gateway.address).await;
    told.write(format!("{head}content-length: 1025\r\n\r\n"))
        .await;
    let mut shown = Socket::to(gateway.address).await;
    shown
        .write(format!("{head}transfer-encoding: chunked\r\n\r\n"))
        .await;
    for _ in 0..3 {
        shown
            .write(format!("190\r\n{}\r\n", " ".repeat(0x190)))
            .await;
    }
    for mut socket in [told, shown] {
        let message = complaint(&socket.answer().await, 413, "request_too_large");
        assert!(message.contains("1024 bytes"), "{message}");
    }
    let fits = chat("fast");
    let fits = format!("{fits}{}", " ".repeat(1024 - fits.len()));
    assert_eq!(
        ask(&gateway, fits).await.status,
        200,
        "the limit itself is allowed"
    );
}

#[tokio::test]
async fn when_every_try_is_told_to_wait_the_client_is_told_the_shortest_wait() {
    let busy = |seconds: &str| {
        Act::status(429, r#"{"error":"sk-provider-secret"}"#).with("retry-after", seconds)
    };
    let (a, b) = (
        Provider::new([busy("50")]).await,
        Provider::new([busy("20.25")]).await,
    );
    let c = Provider::new([Act::status(429, "{}")]).await;
    let text = provider_at("a", a.address, "tries = 1")
        + &provider_at("b", b.address, "tries = 1")
        + &provider_at("c", c.address, "tries = 1")
        + &model("fast", &["a/x", "b/y", "c/z"], "");
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 429, "rate_limit_exceeded");
    for target in ["a/x", "b/y", "c/z"] {
        assert!(message.contains(target), "{message}");
    }
    assert_eq!(answer.header("retry-after"), Some("21"), "rounded up");
    assert_eq!(answer.header("retry-after-ms"), Some("20250"));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("3"));
}

#[tokio::test]
async fn a_provider_that_fails_is_named_and_its_words_are_not_repeated() {
    for (act, cause) in [
        (
            Act::status(500, r#"{"error":"sk-provider-secret"}"#),
            "answered 500",
        ),
        (Act::status(503, "inner workings"), "answered 503"),
        (
            Act::status(302, "{}").with("location", "http://inner/"),
            "answered 302",
        ),
        (
            Act::Answer(200, vec![], b"<html>inner workings".to_vec()),
            "answered nonsense",
        ),
        (Act::Reset, "broke off"),
        (
            Act::Raw(b"inner workings sk-provider-secret".to_vec()),
            "broke off",
        ),
    ] {
        let (provider, gateway) = with(act).await;
        let answer = ask(&gateway, chat("fast")).await;
        let message = complaint(&answer, 502, "upstream_error");
        assert!(
            message.contains(&format!("p/big-model {cause}")),
            "{message}"
        );
        assert!(!message.contains("inner"), "{message}");
        assert_eq!(answer.header("location"), None);
        assert_eq!(answer.header("x-tollgate-target"), Some("p/big-model"));
        assert_eq!(provider.count(), 1);
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_named_and_its_address_is_not() {
    let address = Provider::nowhere();
    let text = provider_at("p", address, "tries = 1") + &model("fast", &["p/x"], "");
    let gateway = Gateway::start(&text).await;
    let message = complaint(&ask(&gateway, chat("fast")).await, 502, "upstream_error");
    assert!(
        message.contains("p/x could not be connected to"),
        "{message}"
    );
    assert!(!message.contains(&address.port().to_string()), "{message}");
}

#[tokio::test]
async fn credentials_of_ours_that_are_refused_are_our_operators_business() {
    for status in [401, 402, 403] {
        let words = r#"{"error":{"message":"Incorrect API key provided: sk-provider-secret"}}"#;
        let (provider, gateway) =
            with(Act::status(status, words).with("www-authenticate", "Bearer")).await;
        let answer = ask(&gateway, chat("fast")).await;
        let message = complaint(&answer, 502, "upstream_error");
        assert!(
            message.contains("p/big-model refused the gateway's credentials"),
            "{message}"
        );
        assert!(!answer.text().contains("Incorrect"), "{message}");
        assert_eq!(answer.header("www-authenticate"), None);
        assert_eq!(provider.count(), 1, "asking again cannot help");
        let line = r#"tollgate_tries_total{outcome="credentials",target="p/big-model"}"#;
        assert_eq!(gateway.metric(line), 1.0);
    }
}

#[tokio::test]
async fn a_model_that_nobody_can_serve_tells_what_is_missing() {
    let provider = Provider::new([]).await;
    let text = one(&provider).replace("env:SOME_KEY", "env:NO_SUCH_KEY");
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 503, "no_target_available");
    for word in ["`fast`", "p/big-model", "NO_SUCH_KEY"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(param(&answer).as_deref(), Some("model"));
    let listed = get(gateway.address, "/v1/models", "sk-ann").await;
    assert_eq!(listed.json()["data"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_model_by_its_providers_name_also_tells_what_is_missing() {
    let provider = Provider::new([]).await;
    let text = one(&provider).replace("env:SOME_KEY", "env:NO_SUCH_KEY");
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway, chat("p/big-model")).await;
    let message = complaint(&answer, 503, "no_target_available");
    assert!(message.contains("NO_SUCH_KEY"), "{message}");
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_is_told_to_come_again() {
    let provider = Provider::new([Act::Hang, Act::json(completion("x"))]).await;
    let gateway = Gateway::with("max_in_flight = 1", &one(&provider)).await;
    let address = gateway.address;
    let mut first = JoinSet::new();
    first.spawn(async move { post(address, CHAT, "sk-ann", chat("fast")).await });
    until("the first is under way", || provider.count() == 1).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 503, "overloaded");
    assert!(message.starts_with("1 requests"), "{message}");
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("retry-after-ms"), Some("1000"));
    assert_eq!(get(gateway.address, "/health", "").await.status, 200);
    assert_eq!(
        get(gateway.address, "/v1/models", "sk-ann").await.status,
        200
    );

    first.abort_all();
    until("its place is free", || gateway.in_flight() == 0).await;
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
    assert_eq!(provider.left(), 1, "and its provider was told to stop");
}

#[tokio::test]
async fn a_fault_of_the_clients_is_told_in_the_providers_own_words_and_at_once() {
    for status in [400, 422, 451] {
        let words = r#"{"error":{"message":"Invalid 'messages[0]'","code":"theirs"}, "n":1e0}"#;
        let act = Act::status(status, words)
            .with("content-type", "application/problem+json; charset=utf-8")
            .with("x-theirs", "1")
            .with("x-ratelimit-remaining-tokens", "5")
            .with("set-cookie", "a=b");
        let a = Provider::new([act]).await;
        let b = Provider::new([Act::json(completion("b"))]).await;
        let text = provider_at("a", a.address, "")
            + &provider_at("b", b.address, "")
            + &model("fast", &["a/x", "b/y"], "");
        let gateway = Gateway::start(&text).await;
        let answer = ask(&gateway, chat("fast")).await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (status, words));
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json; charset=utf-8")
        );
        assert_eq!(answer.header("x-theirs"), Some("1"));
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), None);
        assert_eq!(answer.header("set-cookie"), None);
        assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
        assert_eq!(answer.header("x-tollgate-target"), Some("a/x"));
        assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
        assert_eq!((a.count(), b.count()), (1, 0), "nobody else is bothered");
    }
}

#[tokio::test]
async fn what_is_missing_or_too_much_at_one_place_is_looked_for_at_the_others() {
    for status in [404, 413] {
        let words = format!(r#"{{"error":{{"message":"{status} at a"}}}}"#);
        let a = Provider::new([Act::status(status, words.clone())]).await;
        let b = Provider::new([Act::json(completion("b")), Act::status(503, "{}")]).await;
        let text = provider_at("a", a.address, "")
            + &provider_at("b", b.address, "tries = 1")
            + &model("fast", &["a/x", "b/y"], "");
        let gateway = Gateway::start(&text).await;
        let helped = ask(&gateway, chat("fast")).await;
        assert_eq!(
            (helped.status.as_u16(), helped.text()),
            (200, completion("b"))
        );

        let answer = ask(&gateway, chat("fast")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (status, words),
            "nobody could help"
        );
        assert_eq!((a.count(), b.count()), (2, 2));
    }
}

#[tokio::test]
async fn failures_of_many_kinds_are_one_error_that_names_each() {
    let a = Provider::new([Act::status(429, "{}")]).await;
    let b = Provider::new([Act::status(401, "{}")]).await;
    let c = Provider::new([Act::Reset]).await;
    let d = Provider::new([Act::Hang]).await;
    let text = provider_at("a", a.address, "tries = 1")
        + &provider_at("b", b.address, "")
        + &provider_at("c", c.address, "tries = 1")
        + &provider_at("d", d.address, "timeouts = { first_byte = \"100ms\" }")
        + &provider_at("e", Provider::nowhere(), "tries = 1")
        + &model("fast", &["a/1", "b/2", "c/3", "d/4", "e/5"], "");
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 502, "upstream_error");
    for cause in [
        "a/1 answered 429",
        "b/2 refused the gateway's credentials",
        "c/3 broke off",
        "d/4 the first byte clock ran out",
        "e/5 could not be connected to",
    ] {
        assert!(message.contains(cause), "{cause}: {message}");
    }
    assert_eq!(answer.header("x-tollgate-tries"), Some("5"));
}

#[tokio::test]
async fn a_reason_too_long_to_pass_on_is_replaced_by_one_that_is_json() {
    let act = Act::status(400, "x".repeat(2 << 20))
        .with("content-type", "text/html")
        .with("content-encoding", "br");
    let (_provider, gateway) = with(act).await;
    let answer = ask(&gateway, chat("fast")).await;
    complaint(&answer, 400, "upstream_error");
    assert_eq!(answer.header("content-encoding"), None);
}

#[tokio::test]
async fn a_member_that_no_target_takes_is_named() {
    let provider = Provider::new([]).await;
    let text = one(&provider).replace(
        "base_url",
        "rules = { refuse = [\"logit_bias\"] }\nbase_url",
    );
    let gateway = Gateway::start(&text).await;
    let answer = ask(
        &gateway,
        r#"{"model":"fast","messages":[],"logit_bias":{}}"#,
    )
    .await;
    let message = complaint(&answer, 400, "invalid_request");
    assert_eq!(provider.count(), 0);
    assert!(message.contains("`logit_bias`"), "{message}");
    assert_eq!(param(&answer).as_deref(), Some("logit_bias"));
}

#[tokio::test]
async fn a_silent_provider_is_a_timeout_that_names_its_clock() {
    let provider = Provider::new([Act::Hang]).await;
    let text = one(&provider).replace(
        "base_url",
        "timeouts = { first_byte = \"100ms\" }\nbase_url",
    );
    let gateway = Gateway::start(&text).await;
    let answer = ask(&gateway, chat("fast")).await;
    let message = complaint(&answer, 504, "upstream_timeout");
    assert!(
        message.contains("p/big-model the first byte clock ran out"),
        "{message}"
    );
    tokio::time::timeout(
        Duration::from_secs(5),
        until("the provider is left", || provider.left() == 1),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn what_a_client_writes_is_repeated_in_short() {
    let gateway = Gateway::start("[providers.echo]\n").await;
    let long = "x".repeat(100_000);
    let answer = post(
        gateway.address,
        "/v1/chat/completions",
        "",
        chat(&format!("echo/{long}")),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("x-tollgate-target").unwrap().len() <= 200);
    for body in [chat(&long), format!(r#"{{"{long}":1,"{long}":2}}"#)] {
        let answer = post(gateway.address, "/v1/chat/completions", "", body).await;
        assert!(answer.body.len() < 1_000, "{}", answer.body.len());
    }
}

#[tokio::test]
async fn a_page_of_html_is_no_providers_reason() {
    let page = Act::status(404, "<html>nginx</html>").with("content-type", "text/html");
    let provider = Provider::new([page]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let answer = ask(&gateway, chat("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (404, "upstream_error")
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// A gateway whose `fast` goes to a provider that does this, and then to one that answers.
async fn before_another(act: Act, another: Act) -> (Provider, Provider, Gateway) {
    let (a, b) = (Provider::new([act]).await, Provider::new([another]).await);
    let text = provider_at("a", a.address, "tries = 1")
        + &provider_at("b", b.address, "tries = 1")
        + &model("fast", &["a/x", "b/y"], "");
    let gateway = Gateway::start(&text).await;
    (a, b, gateway)
}

#[tokio::test]
async fn a_fault_of_the_clients_in_the_clothes_of_an_answer_is_told_at_once() {
    let whole = r#"{"error":{"message":"too hot","code":"unsupported_value"}, "n":1e0}"#;
    let event = format!("data: {whole}\n\n");
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    for (act, body, as_it_came) in [
        (Act::json(whole), chat("fast"), true),
        (Act::json(whole), chat_stream("fast"), true),
        (Act::events([&event]), chat_stream("fast"), false),
        (
            Act::events([role, &event, DONE]),
            chat_stream("fast"),
            false,
        ),
        (Act::events([event.trim_end()]), chat_stream("fast"), false),
    ] {
        let (a, b, gateway) = before_another(act, Act::json(completion("b"))).await;
        let answer = ask(&gateway, body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.code(), "unsupported_value");
        assert_eq!(answer.json()["error"]["message"], "too hot");
        assert_eq!(answer.text() == whole, as_it_came, "{}", answer.text());
        assert_eq!((a.count(), b.count()), (1, 0), "nobody else is bothered");
        let line = r#"tollgate_tries_total{outcome="client_fault",target="a/x"}"#;
        assert_eq!(gateway.metric(line), 1.0);
    }
}

#[tokio::test]
async fn a_rate_limit_in_the_clothes_of_an_answer_counts_as_one() {
    let words = r#"{"error":{"message":"Slow down. Please try again in 12.5s.","code":429}}"#;
    let limited = Act::json(words);
    let other = Act::status(429, "{}").with("retry-after", "50");
    let (_a, _b, gateway) = before_another(limited, other).await;
    let answer = ask(&gateway, chat("fast")).await;
    complaint(&answer, 429, "rate_limit_exceeded");
    assert_eq!(answer.header("retry-after-ms"), Some("12500"));
    assert_eq!(answer.header("retry-after"), Some("13"));
    let line = r#"tollgate_tries_total{outcome="rate_limited",target="a/x"}"#;
    assert_eq!(gateway.metric(line), 1.0);
}

#[tokio::test]
async fn a_failure_in_the_clothes_of_an_answer_is_tried_again_and_then_elsewhere() {
    let busy = Act::json(r#"{"error":"no pipe available"}"#).with("retry-after-ms", "1");
    let provider = Provider::new([busy.clone(), Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    assert_eq!(ask(&gateway, chat("fast")).await.text(), completion("x"));
    assert_eq!(provider.count(), 2);
    let line = r#"tollgate_tries_total{outcome="provider_fault",target="p/big-model"}"#;
    assert_eq!(gateway.metric(line), 1.0);

    let (a, b, gateway) = before_another(busy, Act::json(completion("b"))).await;
    assert_eq!(ask(&gateway, chat("fast")).await.text(), completion("b"));
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[tokio::test]
async fn an_answer_that_only_speaks_of_errors_is_an_answer() {
    let body = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"{\"error\":{\"code\":400}} no pipe available"},"logprobs":{"content":[{"token":"error"}]},"finish_reason":"stop"}],"error":null}"#;
    let (_provider, gateway) = with(Act::json(body)).await;
    let answer = ask(&gateway, chat("fast")).await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (200, body));
    let events = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"error\"},\"finish_reason\":null}],\"error\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        DONE,
    ];
    let (_provider, gateway) = with(Act::events(events)).await;
    let answer = ask(&gateway, chat_stream("fast")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, events.concat())
    );
}

#[tokio::test]
async fn a_bad_key_in_the_clothes_of_a_bad_request_is_our_operators_business() {
    let words = r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#;
    for act in [
        Act::status(400, words),
        Act::status(
            400,
            r#"{"code":"x","error":"Incorrect API key provided: sk-pro*** from"}"#,
        ),
        Act::json(r#"{"error":{"message":"sk-pro***","code":"invalid_api_key"}}"#),
        Act::status(498, r#"{"message":"invalid api token"}"#),
    ] {
        let (_a, b, gateway) = before_another(act.clone(), Act::json(completion("b"))).await;
        assert_eq!(ask(&gateway, chat("fast")).await.text(), completion("b"));
        assert_eq!(b.count(), 1);
        let (_provider, gateway) = with(act).await;
        let message = complaint(&ask(&gateway, chat("fast")).await, 502, "upstream_error");
        assert!(
            message.contains("refused the gateway's credentials"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn what_a_prompt_says_does_not_change_whose_fault_it_is() {
    let words = r#"{"error":{"message":"Invalid value: 'insufficient_quota API key not valid, Incorrect API key provided, API_KEY_INVALID'","type":"invalid_request_error","param":null,"code":null}}"#;
    let (a, b, gateway) = before_another(Act::status(400, words), Act::Hang).await;
    let answer = ask(&gateway, chat("fast")).await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (400, words));
    assert_eq!((a.count(), b.count()), (1, 0));

    let soon = Act::status(429, words).with("retry-after-ms", "1");
    let provider = Provider::new([soon, Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    assert_eq!(ask(&gateway, chat("fast")).await.text(), completion("x"));
}

#[tokio::test]
async fn a_reason_in_another_envelope_is_put_into_the_clients() {
    let act = Act::status(422, r#"{"detail":[{"loc":["body","n"],"msg":"too many"}]}"#)
        .with("content-type", "application/problem+json")
        .with("content-language", "fr")
        .with("x-theirs", "1");
    let (_provider, gateway) = with(act).await;
    let answer = ask(&gateway, chat("fast")).await;
    assert_eq!(answer.status, 422);
    let want = serde_json::json!({"error":{"message":"too many (body.n)","type":"invalid_request_error","param":"n","code":null}});
    assert_eq!(answer.json(), want);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-language"), None);
    assert_eq!(answer.header("x-theirs"), Some("1"));
}

#[tokio::test]
async fn a_wait_goes_on_to_the_client_only_where_every_target_is_busy() {
    let busy = Act::status(429, "{}").with("retry-after", "50");
    let down = Act::status(503, "{}").with("retry-after", "20");
    for (first, second) in [(busy, down.clone()), (down.clone(), down)] {
        let (_a, _b, gateway) = before_another(first, second).await;
        let answer = ask(&gateway, chat("fast")).await;
        complaint(&answer, 502, "upstream_error");
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("retry-after-ms"), None);
    }
}

#[tokio::test]
async fn an_encoded_reason_is_not_passed_on() {
    let act = Act::status(400, r#"{"error":{"message":"m"}}"#).with("content-encoding", "gzip");
    let (_provider, gateway) = with(act).await;
    let answer = ask(&gateway, chat("fast")).await;
    complaint(&answer, 400, "upstream_error");
    assert_eq!(answer.header("content-encoding"), None);
}
