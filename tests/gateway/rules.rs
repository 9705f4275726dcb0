//! What a provider wants different: rules by model, what is left out and who is told, and where the key goes.

use serde_json::Value;

use crate::support::{
    Act, DONE, FINISH, Gateway, Provider, USAGE, ask, chat_stream, completion, delta, model,
    provider_at, until,
};

const DROPPED: &str = "x-tollgate-dropped";

fn body(provider: &Provider, n: usize) -> Value {
    serde_json::from_slice(&provider.received()[n].body).unwrap()
}

#[tokio::test]
async fn the_longest_pattern_that_matches_a_model_is_laid_over_the_rules_for_all() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let rules = r#"rules = { drop = ["user"], rename = { a = "b" }, set = { who = "all" } }
[providers.p.rules_for]
"*" = { set = { who = "any" } }
"o*" = { drop = ["temperature"], set = { who = "o" } }
"o3.1*" = { rename = { a = "c" }, set = { who = "o3" } }
"#;
    let text = provider_at("p", provider.address, rules) + &model("listed", &["p/o3.1-mini"], "");
    let gateway = Gateway::start(&text).await;
    let mut sent = Vec::new();
    for name in ["p/gpt", "p/o1", "p/o3.1", "listed", "p/o3.1-mini"] {
        let request =
            format!(r#"{{"model":"{name}","user":"u","temperature":1,"a":1,"messages":[]}}"#);
        let answer = ask(&gateway, request).await;
        assert_eq!(answer.status, 200, "{name}");
        let body = body(&provider, sent.len());
        let told = answer.header(DROPPED).unwrap().to_owned();
        let kept = |member: &str| body.get(member).is_some();
        assert!(!kept("user") && !kept("a"));
        let who = body["who"].as_str().unwrap().to_owned();
        sent.push((who, kept("temperature"), kept("b"), kept("c"), told));
    }
    let want = |who: &str, temperature: bool, b: bool, c: bool, told: &str| {
        (who.to_owned(), temperature, b, c, told.to_owned())
    };
    let longest = want("o3", true, false, true, "user");
    assert_eq!(
        sent,
        [
            want("any", true, true, false, "user"),
            want("o", false, true, false, "user, temperature"),
            longest.clone(),
            longest.clone(),
            longest,
        ]
    );
}

#[tokio::test]
async fn who_is_told_what_was_left_out() {
    let first = Provider::new([Act::status(500, "{}")]).await;
    let second = Provider::new([
        Act::json(completion("x")),
        Act::status(
            400,
            r#"{"error":{"message":"no","type":"invalid_request_error"}}"#,
        ),
        Act::events([delta("a"), DONE.into()]),
        Act::json(completion("x")),
    ])
    .await;
    let text = provider_at("a", first.address, "tries = 1\nrules.drop = [\"seed\"]")
        + &provider_at(
            "b",
            second.address,
            "rules.drop = [\"user\"]\nrules.messages.drop = [\"name\"]",
        )
        + &model("m", &["a/1", "b/2"], "rules.drop = [\"both\"]");
    let gateway = Gateway::start(&text).await;
    let request = |more: &str| {
        format!(
            r#"{{"model":"m","user":"u","seed":1,"both":1{more},"messages":[{{"role":"user","name":"n"}},{{"role":"user","name":"n"}}]}}"#
        )
    };
    // The last target's, not the first's; an answer, an error and a stream alike.
    for (more, status) in [("", 200), ("", 400), (r#","stream":true"#, 200)] {
        let answer = ask(&gateway, request(more)).await;
        assert_eq!(answer.status, status);
        let told = "both, user, messages[].name";
        assert_eq!(answer.header(DROPPED), Some(told), "{status}");
        assert_eq!(answer.header("x-tollgate-target"), Some("b/2"));
    }
    assert_eq!(body(&first, 0)["user"], "u");
    assert_eq!(body(&second, 0)["seed"], 1);
    let answer = ask(&gateway, r#"{"model":"m","messages":[]}"#).await;
    assert_eq!(answer.header(DROPPED), None, "nothing was");
    until("every request has ended", || gateway.in_flight() == 0).await;
}

#[tokio::test]
async fn a_member_that_nobody_knows_is_refused_without_a_request() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let rules = "rules = { known = [\"model\", \"messages\"], unknown = \"refuse\" }";
    let gateway = Gateway::start(&provider_at("p", provider.address, rules)).await;
    let answer = ask(&gateway, r#"{"model":"p/x","messages":[],"seed":1}"#).await;
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    assert_eq!(
        (&error["param"], &error["code"]),
        (&"seed".into(), &"invalid_request".into())
    );
    assert_eq!(provider.count(), 0);
    let answer = ask(&gateway, r#"{"model":"p/x","messages":[]}"#).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_key_goes_in_the_header_it_belongs_in_and_no_other() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let headers = ["authorization", "api-key", "x-api-key"];
    let shown = [
        "Bearer sk-provider-secret",
        "sk-provider-secret",
        "sk-provider-secret",
    ];
    for (n, auth) in ["bearer", "api-key", "x-api-key"].iter().enumerate() {
        let text = provider_at("p", provider.address, &format!("auth = \"{auth}\""));
        let gateway = Gateway::start(&text).await;
        assert_eq!(
            ask(&gateway, r#"{"model":"p/x","messages":[]}"#)
                .await
                .status,
            200
        );
        let received = provider.received().pop().unwrap();
        for (header, value) in headers.iter().zip(shown) {
            let want = (*header == headers[n]).then_some(value);
            assert_eq!(received.header(header), want, "{auth}");
        }
    }
}

/// Who asked to be told the usage is told it, also where a rule takes the asking out and tollgate puts it back.
#[tokio::test]
async fn usage_that_was_asked_for_is_shown_whatever_the_rules_take_out() {
    for rules in [
        "rules = { drop = [\"stream_options\"] }",
        "rules = { known = [\"model\", \"messages\", \"stream\"], unknown = \"drop\" }",
    ] {
        let events = [delta("a"), FINISH.into(), USAGE.into(), DONE.into()];
        let provider = Provider::new([Act::events(events)]).await;
        let text = provider_at("p", provider.address, rules) + &model("fast", &["p/x"], "");
        let gateway = Gateway::start(&text).await;
        let asks = "{\"stream_options\":{\"include_usage\":true},";
        let asked = chat_stream("fast").replacen('{', asks, 1);
        let answer = ask(&gateway, asked).await;
        assert!(answer.text().contains(USAGE), "{}", answer.text());
        assert!(
            !ask(&gateway, chat_stream("fast"))
                .await
                .text()
                .contains(USAGE)
        );
    }
}
