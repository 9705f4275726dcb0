//! The path of a request that goes well, and of one that its target refuses.

use crate::support::client::{self, get, whole};
use crate::support::{
    Act, DONE, FINISH, Gateway, PATHS, Provider, USAGE, ask, chat, chat_stream, completion, delta,
    post,
};
use http::Method;

pub fn one(provider: &Provider) -> String {
    format!(
        "[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"http://{}/v1\"\napi_key = \"env:SOME_KEY\"\nheaders = {{ x-team = \"research\" }}\nforward = [\"x-session\"]\n\
         [models.fast]\ntargets = [\"p/big-model\"]\n[keys.ann]\nkey = \"sk-ann\"\n",
        provider.address
    )
}

#[tokio::test]
async fn a_request_is_carried_through_and_only_what_must_be_is_changed() {
    let provider = Provider::new([Act::json(completion("hello"))
        .with("openai-version", "2020")
        .with("server", "x")])
    .await;
    let gateway = Gateway::start(&one(&provider)).await;
    let body = "{ \"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9\"}],\n \"model\" : \"fast\", \"seed\":18446744073709551615, \"x\":1e0 }";
    let headers = [
        ("authorization", "Bearer sk-ann"),
        ("x-request-id", "mine"),
        ("x-session", "s1"),
        ("x-other", "o"),
        ("cookie", "c"),
        ("openai-beta", "b"),
        ("idempotency-key", "k"),
        ("anthropic-beta", "a"),
        ("accept-encoding", "gzip"),
    ];
    let answer = whole(
        client::send(
            gateway.address,
            Method::POST,
            "/v1/chat/completions",
            &headers,
            body,
        )
        .await,
    )
    .await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), completion("hello"), "the provider's bytes");
    assert_eq!(answer.header("openai-version"), Some("2020"));
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-tollgate-target"), Some("p/big-model"));
    assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));

    let received = provider.only();
    assert_eq!(received.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(
        received.text(),
        body.replace("\"fast\"", "\"big-model\""),
        "only the model's name changed"
    );
    assert_eq!(
        received.header("host"),
        Some(&*provider.address.to_string())
    );
    assert_eq!(
        received.header("authorization"),
        Some("Bearer sk-provider-secret")
    );
    assert_eq!(received.header("x-client-request-id"), Some("mine"));
    assert_eq!(received.header("accept-encoding"), Some("identity"));
    assert_eq!(
        received.header("content-length"),
        Some(&*received.body.len().to_string())
    );
    for (name, want) in [
        ("x-team", Some("research")),
        ("x-session", Some("s1")),
        ("openai-beta", Some("b")),
        ("idempotency-key", Some("k")),
        ("anthropic-beta", Some("a")),
        ("x-other", None),
        ("cookie", None),
        ("connection", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(received.header(name), want, "{name}");
    }
}

#[tokio::test]
async fn a_provider_hears_the_id_that_the_log_has() {
    let long = "l".repeat(201);
    for (given, heard) in [
        (None, None),
        (Some("mine"), Some("mine")),
        (Some(&*long), None),
    ] {
        let provider = Provider::new([Act::json(completion("hello"))]).await;
        let gateway = Gateway::start(&one(&provider)).await;
        let key = ("authorization", "Bearer sk-ann");
        let headers: Vec<_> = [key]
            .into_iter()
            .chain(given.map(|id| ("x-request-id", id)))
            .collect();
        let path = "/v1/chat/completions";
        let sent = client::send(gateway.address, Method::POST, path, &headers, chat("fast"));
        let answer = whole(sent.await).await;
        let ours = answer.header("x-request-id");
        let received = provider.only();
        assert_eq!(received.header("x-client-request-id"), heard.or(ours));
    }
}

#[tokio::test]
async fn a_stream_goes_out_as_it_came_and_its_usage_is_counted() {
    let events = [
        delta("a"),
        delta("b"),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ];
    let provider = Provider::new([Act::events(events.clone())]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let asked =
        r#"{"model":"fast","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let answer = ask(&gateway, asked).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.text(), events.concat());

    let silent = post(
        gateway.address,
        "/chat/completions",
        "sk-ann",
        chat_stream("fast"),
    )
    .await;
    assert_eq!(
        silent.text(),
        events.concat().replace(USAGE, ""),
        "who did not ask does not see the extra event"
    );
    let received = provider.received();
    assert!(
        received[1]
            .text()
            .contains(r#""stream_options":{"include_usage":true}"#),
        "but the provider was asked"
    );

    crate::support::until("both are counted", || {
        gateway.metric(r#"tollgate_tokens_total{kind="input",model="fast",target="p/big-model"}"#)
            == 14.0
    })
    .await;
    assert_eq!(
        gateway.metric(r#"tollgate_tokens_total{kind="output",model="fast",target="p/big-model"}"#),
        6.0
    );
    assert_eq!(
        gateway.metric(r#"tollgate_streams_total{end="complete",target="p/big-model"}"#),
        2.0
    );
    let line =
        r#"tollgate_requests_total{api="chat_completions",key="ann",model="fast",status="200"}"#;
    assert_eq!(gateway.metric(line), 2.0);
    assert_eq!(
        gateway.metric(r#"tollgate_tries_total{outcome="answered",target="p/big-model"}"#),
        2.0
    );
    assert_eq!(gateway.metric(r#"tollgate_in_flight{model="fast"}"#), 0.0);
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn connections_to_a_provider_are_used_again() {
    let stream = Act::events([delta("a"), FINISH.into(), DONE.into()]);
    let provider = Provider::new([
        Act::json(completion("x")),
        stream,
        Act::status(429, "{}"),
        Act::json(completion("x")),
    ])
    .await;
    let text = one(&provider).replace("base_url", "tries = 1\nbase_url");
    let gateway = Gateway::with("", &text).await;
    // One connection to the gateway, so that one worker serves it all.
    let stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::task::spawn(connection);
    for (body, status) in [
        (chat("fast"), 200),
        (chat_stream("fast"), 200),
        (chat("fast"), 429),
        (chat("fast"), 200),
    ] {
        let request = http::Request::post("/v1/chat/completions")
            .header("host", "x")
            .header("content-type", "application/json")
            .header("api-key", "sk-ann");
        let answer = sender
            .send_request(
                request
                    .body(http_body_util::Full::new(bytes::Bytes::from(body)))
                    .unwrap(),
            )
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
        http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap();
    }
    assert_eq!((provider.count(), provider.connections()), (4, 1));
    driving.abort();
}

#[tokio::test]
async fn a_kept_connection_that_the_provider_closed_costs_nothing() {
    let closing = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        completion("x").len(),
        completion("x")
    );
    let provider = Provider::new([Act::Raw(closing.into_bytes())]).await;
    let gateway = Gateway::start(&one(&provider).replace("base_url", "tries = 1\nbase_url")).await;
    for _ in 0..4 {
        let answer = ask(&gateway, chat("fast")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn models_are_asked_for_by_either_name() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    for (model, sent) in [
        ("fast", "big-model"),
        ("p/any/thing:free", "any/thing:free"),
    ] {
        let answer = ask(&gateway, chat(model)).await;
        assert_eq!(answer.status, 200);
        let body: serde_json::Value =
            serde_json::from_slice(&provider.received().last().unwrap().body).unwrap();
        assert_eq!(body["model"], sent);
    }
    let labels = gateway.metrics();
    assert!(
        labels.contains(r#"model="p/*""#),
        "names that clients make up are no labels"
    );
    assert!(!labels.contains("thing"));
}

#[tokio::test]
async fn every_endpoint_goes_to_its_own_path() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    for path in PATHS {
        let answer = post(
            gateway.address,
            path,
            "sk-ann",
            r#"{"model":"fast","input":"x","prompt":"x"}"#,
        )
        .await;
        assert_eq!(answer.status, 200, "{path}");
        let line = provider.received().last().unwrap().line.clone();
        assert_eq!(
            line,
            format!("POST /v1{} HTTP/1.1", path.trim_start_matches("/v1"))
        );
    }
}

#[tokio::test]
async fn the_lists_of_models_are_what_a_key_may_use() {
    let provider = Provider::new([]).await;
    let text = one(&provider)
        + "[models.\"big/one\"]\ntargets = [\"p/x\"]\n[keys.bob]\nkey = \"sk-bob\"\nmodels = [\"big/one\", \"p/big*\"]\n";
    let gateway = Gateway::start(&text).await;
    let ids = |answer: client::Answer| -> Vec<String> {
        answer.json()["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        ids(get(gateway.address, "/v1/models", "sk-ann").await),
        ["big/one", "fast", "p/big-model", "p/x"]
    );
    assert_eq!(
        ids(get(gateway.address, "/models", "sk-bob").await),
        ["big/one", "p/big-model"]
    );
    for path in [
        "/v1/models/big/one",
        "/v1/models/big%2Fone",
        "/models/p/big-model",
    ] {
        assert_eq!(
            get(gateway.address, path, "sk-bob").await.status,
            200,
            "{path}"
        );
    }
    assert_eq!(
        get(gateway.address, "/v1/models/fast", "sk-bob")
            .await
            .code(),
        "model_not_allowed"
    );
    assert_eq!(
        get(gateway.address, "/v1/models/none", "sk-bob")
            .await
            .code(),
        "model_not_found"
    );
    assert_eq!(
        post(
            gateway.address,
            "/v1/chat/completions",
            "sk-bob",
            chat("fast")
        )
        .await
        .code(),
        "model_not_allowed"
    );
}

#[tokio::test]
async fn health_needs_no_key_on_either_listener() {
    let provider = Provider::new([]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    for path in ["/health", "/health/live", "/health/ready", "/v1/health"] {
        assert_eq!(get(gateway.address, path, "").await.status, 200, "{path}");
    }
    for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
        assert_eq!(get(gateway.admin, path, "").await.status, 200, "{path}");
    }
    assert_eq!(get(gateway.admin, "/v1/models", "sk-ann").await.status, 404);
    assert_eq!(get(gateway.address, "/metrics", "sk-ann").await.status, 404);
    assert_eq!(post(gateway.admin, "/metrics", "", "").await.status, 405);
}

#[tokio::test]
async fn the_built_in_engine_needs_nothing() {
    let gateway = Gateway::start("[providers.echo]\n").await;
    let answer = post(
        gateway.address,
        "/v1/chat/completions",
        "",
        chat("echo/any"),
    )
    .await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "hi");
    let answer = post(
        gateway.address,
        "/v1/chat/completions",
        "whatever",
        chat_stream("echo/any"),
    )
    .await;
    assert!(answer.text().ends_with(DONE) && !answer.text().contains("usage"));
    let answer = post(
        gateway.address,
        "/v1/embeddings",
        "",
        r#"{"model":"echo/e","input":"a b"}"#,
    )
    .await;
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 2);
    assert_eq!(
        gateway.metric(r#"tollgate_tokens_total{kind="input",model="echo/*",target="echo/*"}"#),
        4.0
    );
}

#[tokio::test]
async fn long_answers_pass_through_and_are_counted() {
    let long = "x".repeat(300_000);
    let body = completion(&long);
    let provider = Provider::new([Act::json(body.clone())]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let answer = ask(&gateway, chat("fast")).await;
    assert_eq!(
        answer.header("content-length"),
        Some(&*body.len().to_string())
    );
    assert!(answer.text() == body);
    crate::support::until("it is counted", || {
        gateway.metric(r#"tollgate_tokens_total{kind="output",model="fast",target="p/big-model"}"#)
            == 3.0
    })
    .await;
}

#[tokio::test]
async fn large_bodies_are_spliced_as_small_ones_are() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let long = "y".repeat(3 << 20);
    let body = format!(r#"{{"input":"{long}","model":"fast"}}"#);
    let answer = post(gateway.address, "/v1/embeddings", "sk-ann", body.clone()).await;
    assert_eq!(answer.status, 200);
    assert!(provider.only().text() == body.replace("fast", "big-model"));
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_breaks_the_connection() {
    let body = completion(&"x".repeat(300_000));
    for kept in [100_000, 200_000, 290_000] {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let cut = [head.as_bytes(), &body.as_bytes()[..kept]].concat();
        let chunk = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{kept:x}\r\n"
        );
        let chunked = [chunk.as_bytes(), &body.as_bytes()[..kept], b"\r\n"].concat();
        // The end of the connection is the end of this one's body, and says nothing of the answer's.
        let old = [
            b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n",
            &body.as_bytes()[..kept],
        ]
        .concat();
        for act in [cut, chunked, old] {
            let provider = Provider::new([Act::Raw(act)]).await;
            let gateway = Gateway::start(&one(&provider)).await;
            let asked = chat("fast");
            let request = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer sk-ann\r\ncontent-length: {}\r\n\r\n{asked}",
                asked.len()
            );
            // The connection closes, which a keep-alive connection does for this reason only.
            let got = client::raw(gateway.address, request.as_bytes()).await;
            assert!(
                got.len() < body.len() && !got.ends_with("\r\n0\r\n\r\n"),
                "{}",
                got.len()
            );
            let line = r#"tollgate_requests_total{api="chat_completions",key="ann",model="fast",status="200"}"#;
            crate::support::until("it is counted", || gateway.metric(line) == 1.0).await;
            assert_eq!(gateway.in_flight(), 0);
        }
    }
}
