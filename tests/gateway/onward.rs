//! What goes on from a response goes where that is kept, and for nobody but those it was made for.

use http::Method;
use serde_json::{Value, json};

use crate::cli::run;
use crate::support::client::{self, Answer, post};
use crate::support::money::{asks_at, budget, key, of};
use crate::support::{Act, Gateway, Provider, until};

const RESPONSES: &str = "/v1/responses";

fn response(id: &str, text: &str) -> String {
    let content =
        json!([{ "type": "message", "content": [{ "type": "output_text", "text": text }] }]);
    json!({
        "id": id, "object": "response", "status": "completed", "error": null, "output": content,
        "usage": { "input_tokens": 7, "output_tokens": 3, "total_tokens": 10 },
    })
    .to_string()
}

/// The events of a response, one after another.
fn streamed(id: &str) -> Vec<String> {
    let begun =
        json!({ "type": "response.created", "response": { "id": id, "status": "in_progress" } });
    let delta = json!({ "type": "response.output_text.delta", "item_id": "msg_1", "delta": "x" });
    let whole: Value = serde_json::from_str(&response(id, "x")).unwrap();
    let done = json!({ "type": "response.completed", "response": whole });
    let event = |event: Value| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
    };
    [begun, delta, done].map(event).to_vec()
}

fn body(model: &str, more: &Value) -> String {
    let mut body = json!({ "model": model, "input": "h", "max_output_tokens": 9 });
    let members = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(members);
    body.to_string()
}

fn onward(model: &str, id: &str) -> String {
    body(model, &json!({ "previous_response_id": id }))
}

/// Two providers, of whom the first fails as often as it is said, and the second answers what it is given.
async fn two(fails: usize, second: impl IntoIterator<Item = Act>) -> (Provider, Provider) {
    let fails = (0..fails).map(|_| Act::status(500, "{}"));
    let first = fails.chain([Act::json(response("resp_first", "x"))]);
    (Provider::new(first).await, Provider::new(second).await)
}

fn config(first: &Provider, second: &Provider) -> String {
    [
        of("p", first, "cooldown = \"0s\""),
        of("q", second, "cooldown = \"0s\""),
        "[models.m]\ntargets = [\"p/m\", \"q/m\"]\n[models.other]\ntargets = [\"p/m\"]\n"
            .to_owned(),
        key("ann", "team = \"t\""),
        key("bob", "team = \"t\""),
        key("cid", ""),
        "[teams.t]\n".to_owned(),
    ]
    .concat()
}

async fn asks(gateway: &Gateway, name: &str, body: String) -> Answer {
    asks_at(gateway, RESPONSES, name, body).await
}

#[tokio::test]
async fn it_goes_where_it_is_kept_however_long_the_answer_was_and_after_a_restart() {
    let long = "x".repeat(200 << 10);
    let acts = [
        Act::json(response("resp_1", "x")),
        Act::events(streamed("resp_2")),
        Act::json(response("resp_3", &long)),
        Act::json(response("resp_4", "x")),
    ];
    let (first, second) = two(3, acts).await;
    let text = config(&first, &second);
    let gateway = Gateway::start(&text).await;
    for (stream, id) in [(false, "resp_1"), (true, "resp_2"), (false, "resp_3")] {
        let made = asks(&gateway, "ann", body("m", &json!({ "stream": stream }))).await;
        assert_eq!(made.status, 200);
        assert!(made.text().contains(id));
    }
    assert_eq!((first.count(), second.count()), (3, 3));
    let gateway = gateway.restart(&text, |_| ()).await;
    for (n, id) in ["resp_1", "resp_2", "resp_3", "resp_4"].iter().enumerate() {
        assert_eq!(asks(&gateway, "ann", onward("m", id)).await.status, 200);
        assert_eq!((first.count(), second.count()), (3, 4 + n), "{id}");
    }
    let sent: Value = serde_json::from_str(&second.received()[5].text()).unwrap();
    assert_eq!(sent["previous_response_id"], "resp_3", "as it came");
    // What goes on from nothing goes as before, and so does what nobody here has heard of.
    for other in [
        body("m", &json!({})),
        onward("m", "resp_0"),
        body("m", &json!({ "previous_response_id": null })),
    ] {
        assert_eq!(asks(&gateway, "ann", other).await.status, 200);
    }
    assert_eq!((first.count(), second.count()), (6, 7));
}

#[tokio::test]
async fn nobody_else_is_asked_where_it_is_kept_by_one_that_fails() {
    let acts = [
        Act::json(response("resp_1", "x")),
        Act::status(500, "{}"),
        Act::json(response("resp_2", "x")),
    ];
    let (first, second) = two(1, acts).await;
    let gateway = Gateway::start(&config(&first, &second)).await;
    assert_eq!(
        asks(&gateway, "ann", body("m", &json!({}))).await.status,
        200
    );
    let failed = asks(&gateway, "ann", onward("m", "resp_1")).await;
    assert_eq!(
        (failed.status.as_u16(), &*failed.code()),
        (502, "upstream_error")
    );
    assert_eq!(
        asks(&gateway, "ann", onward("m", "resp_1")).await.status,
        200
    );
    assert_eq!((first.count(), second.count()), (1, 3));
}

#[tokio::test]
async fn it_is_for_whom_it_was_made_and_their_team_and_where_their_model_is() {
    let (first, second) = two(1, [Act::json(response("resp_1", "x"))]).await;
    let gateway = Gateway::start(&config(&first, &second)).await;
    assert_eq!(
        asks(&gateway, "ann", body("m", &json!({}))).await.status,
        200
    );
    assert_eq!(
        asks(&gateway, "bob", onward("m", "resp_1")).await.status,
        200
    );
    for (name, model, told) in [
        ("cid", "m", "there is no response `resp_1` of this key"),
        (
            "ann",
            "other",
            "was made by the model `m`, and `other` has no target",
        ),
    ] {
        let refused = asks(&gateway, name, onward(model, "resp_1")).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.code(), "previous_response_not_found");
        let error = &refused.json()["error"];
        assert_eq!(error["param"], "previous_response_id");
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
    assert_eq!((first.count(), second.count()), (1, 2), "nothing was sent");
}

#[tokio::test]
async fn a_response_that_its_client_left_can_be_gone_on_from() {
    let mut events = streamed("resp_1");
    events.truncate(2);
    let (first, second) = two(1, [Act::Stall(events), Act::json(response("r", "x"))]).await;
    let gateway = Gateway::start(&config(&first, &second)).await;
    let stream = body("m", &json!({ "stream": true }));
    let mut coming = client::open(gateway.address, RESPONSES, "sk-ann", stream).await;
    assert!(coming.piece().await.unwrap().is_ok());
    drop(coming);
    until("it is entered", || gateway.in_flight() == 0).await;
    assert_eq!(
        asks(&gateway, "ann", onward("m", "resp_1")).await.status,
        200
    );
    assert_eq!((first.count(), second.count()), (1, 2));
}

#[tokio::test]
async fn it_is_explained_and_decided_again_as_it_was() {
    let (first, second) = two(1, [Act::json(response("resp_1", "x"))]).await;
    let text = config(&first, &second).replace("env:SOME_KEY", "sk-x");
    let gateway = Gateway::with("decision_log = \"decisions.jsonl\"", &text).await;
    assert_eq!(
        asks(&gateway, "ann", body("m", &json!({}))).await.status,
        200
    );
    assert_eq!(
        asks(&gateway, "ann", onward("m", "resp_1")).await.status,
        200
    );
    let question = |key: &str| {
        let body: Value = serde_json::from_str(&onward("m", "resp_1")).unwrap();
        json!({ "endpoint": "/v1/responses", "key": key, "body": body }).to_string()
    };
    let told = post(gateway.admin, "/admin/explain", "", question("ann"))
        .await
        .json();
    let model = &told["models"][0];
    let targets = model["targets"].as_array();
    let targets = targets.unwrap_or_else(|| panic!("{told:#}"));
    assert_eq!(
        (&model["kept_at"], targets.len()),
        (&json!("q"), 1),
        "{told:#}"
    );
    assert_eq!(targets[0]["target"], "q/m");
    let told = post(gateway.admin, "/admin/explain", "", question("cid"))
        .await
        .json();
    assert_eq!(told["rejected"]["code"], "previous_response_not_found");

    let log = gateway.folder().join("decisions.jsonl");
    let lines = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .count()
    };
    until("both are written", || lines() == 2).await;
    std::fs::write(gateway.folder().join("gateway.toml"), &text).unwrap();
    let (code, said, wrong) = run(gateway.folder(), &["replay", "decisions.jsonl", "--json"]);
    assert_eq!((code, &*wrong), (0, ""));
    let replayed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&replayed["decided"], &replayed["same"]),
        (&json!(2), &json!(2))
    );
}

#[tokio::test]
async fn what_is_held_is_the_most_where_it_may_go() {
    let (first, second) = two(1, [Act::json(response("resp_1", "x"))]).await;
    let price = |usd: u32| format!("context = 9000, price = {{ input = {usd}, output = {usd} }}");
    let text = [
        of("p", &first, "cooldown = \"0s\""),
        of("q", &second, ""),
        format!(
            "[models.m]\ntargets = [{{ to = \"p/m\", {} }}, {{ to = \"q/m\", {} }}]\n",
            price(1_000_000),
            price(1)
        ),
        key(
            "ann",
            &format!("on_shortfall = \"refuse\"\n{}", budget("2000")),
        ),
    ]
    .concat();
    let gateway = Gateway::start(&text).await;
    assert_eq!(
        asks(&gateway, "ann", body("m", &json!({}))).await.status,
        200
    );
    let mut held = Vec::new();
    for more in [json!({}), json!({ "previous_response_id": "resp_1" })] {
        let body: Value = serde_json::from_str(&body("m", &more)).unwrap();
        let question = json!({ "endpoint": "/v1/responses", "key": "ann", "body": body });
        let told = post(gateway.admin, "/admin/explain", "", question.to_string()).await;
        let told = told.json()["models"][0]["held_usd"]
            .as_str()
            .map(str::to_owned);
        held.push(told.unwrap().parse::<f64>().unwrap());
    }
    // A dollar a token, and a millionth of one.
    assert!(held[0] > 300.0 && held[1] < 0.01, "{held:?}");
}

/// Asks for what is kept, as clients do who send what they post again.
async fn kept(gateway: &Gateway, method: Method, name: &str, path: &str) -> Answer {
    let key = format!("Bearer sk-{name}");
    let headers = [("authorization", &*key), ("idempotency-key", "k")];
    let sent = client::send(gateway.address, method, path, &headers, "");
    client::whole(sent.await).await
}

#[tokio::test]
async fn what_is_kept_is_shown_forgotten_and_stopped_where_it_is_kept() {
    let (get, post) = (Method::GET, Method::POST);
    let deleted = r#"{"id":"resp_1","object":"response","deleted":true}"#;
    let missing = r#"{"error":{"message":"no such response","type":"invalid_request_error","param":null,"code":null}}"#;
    let acts = [
        Act::json(response("resp_1", "x")),
        Act::json(response("resp_1", "shown")).with("x-ratelimit-remaining-requests", "7"),
        Act::json(r#"{"object":"list","data":[]}"#),
        Act::json(r#"{"id":"resp_1","status":"cancelled"}"#),
        Act::json(deleted),
        Act::status(404, missing),
    ];
    let (first, second) = two(1, acts).await;
    let text =
        config(&first, &second).replace("[keys.ann]\n", "[keys.ann]\nlimits = { rpm = 6 }\n");
    let gateway = Gateway::start(&text).await;
    assert_eq!(
        asks(&gateway, "ann", body("m", &json!({}))).await.status,
        200
    );
    for (n, (method, below, told)) in [
        (
            get.clone(),
            "?include[]=reasoning.encrypted_content",
            "shown",
        ),
        (get.clone(), "/input_items?limit=2", "list"),
        (post.clone(), "/cancel", "cancelled"),
        (Method::DELETE, "", "deleted"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/v1/responses/resp_1{below}");
        let answer = kept(&gateway, method.clone(), "ann", &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains(told));
        assert_eq!(
            answer.header("x-ratelimit-remaining-requests"),
            Some(&*(4 - n).to_string())
        );
        let sent = &second.received()[n + 1];
        assert_eq!(sent.line, format!("{method} {path} HTTP/1.1"));
        assert!(sent.body.is_empty());
    }
    let answer = kept(&gateway, get.clone(), "ann", "/v1/responses/resp_1").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (404, missing.to_owned())
    );
    assert_eq!(
        kept(&gateway, get, "ann", "/v1/responses/resp_1")
            .await
            .code(),
        "rate_limit_exceeded"
    );
    let counted = r#"tollgate_requests_total{api="responses",key="ann",model="m",status="200"}"#;
    assert_eq!(gateway.metric(counted), 5.0);
    // What it took was entered when it was made, and nothing since.
    assert_eq!(crate::support::money::entries(&gateway).await.len(), 1);
    assert_eq!((first.count(), second.count()), (1, 6));
}

#[tokio::test]
async fn what_is_kept_for_others_or_nobody_is_not_there() {
    let get = Method::GET;
    let (first, second) = two(1, [Act::json(response("resp_1", "x"))]).await;
    let gateway = Gateway::start(&config(&first, &second)).await;
    let made = asks(&gateway, "ann", body("m", &json!({}))).await;
    assert_eq!(made.status, 200);
    let path = "/v1/responses/resp_1";
    assert_eq!(kept(&gateway, get.clone(), "bob", path).await.status, 200);
    let streams = "/v1/responses/resp_1?stream=true";
    let cancels = "/v1/responses/resp_1/cancel";
    for (method, name, path, status, code) in [
        (&get, "cid", path, 404, "response_not_found"),
        (&get, "ann", "/v1/responses/x", 404, "response_not_found"),
        (&get, "eve", path, 401, "invalid_api_key"),
        (&get, "ann", streams, 400, "invalid_request"),
        (&get, "ann", "/v1/responses/%2e%2e", 404, "unknown_url"),
        (&get, "ann", cancels, 405, "method_not_allowed"),
        (&Method::PUT, "ann", path, 405, "method_not_allowed"),
    ] {
        let refused = kept(&gateway, method.clone(), name, path).await;
        let told = (refused.status.as_u16(), &*refused.code());
        assert_eq!(told, (status, code), "{path}");
    }
    assert_eq!((first.count(), second.count()), (1, 2), "nothing was sent");
}

#[tokio::test]
async fn what_cannot_be_had_from_who_keeps_it_is_said() {
    let acts = [
        Act::json(response("resp_1", "x")),
        Act::json(response("resp_1", &"x".repeat(17 << 20))),
        Act::Hang,
        Act::Cut(vec!["{\"id\"".to_owned()]),
    ];
    let (first, second) = two(1, acts).await;
    let clock = "[providers.q]\ntimeouts = { first_byte = \"300ms\" }\n";
    let text = config(&first, &second).replace("[providers.q]\n", clock);
    let gateway = Gateway::start(&text).await;
    let made = asks(&gateway, "ann", body("m", &json!({}))).await;
    assert_eq!(made.status, 200);
    let path = "/v1/responses/resp_1";
    for (status, code) in [
        (502, "upstream_error"),
        (504, "upstream_timeout"),
        (502, "upstream_error"),
    ] {
        let failed = kept(&gateway, Method::GET, "ann", path).await;
        assert_eq!((failed.status.as_u16(), &*failed.code()), (status, code));
    }
    assert_eq!((gateway.in_flight(), gateway.body_memory()), (0, 0));
    let others = text
        .replace("\"q/m\"", "")
        .replace("[providers.q]", "[providers.z]");
    gateway.apply(&others).unwrap();
    let gone = kept(&gateway, Method::GET, "ann", path).await;
    assert_eq!(gone.code(), "no_target_available", "{}", gone.text());
}
