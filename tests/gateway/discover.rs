//! What providers tell of their models is listed; nobody waits for it.

use std::time::Duration;

use crate::support::client::get;
use crate::support::{Act, Gateway, Provider, ask, chat, completion, model, provider_at, until};

/// The names that ann, or whoever else, is listed.
async fn listed(gateway: &Gateway, key: &str) -> Vec<String> {
    let list = get(gateway.address, "/v1/models", key).await.json();
    let data = list["data"].as_array().unwrap().iter();
    data.map(|entry| entry["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until ann is listed a model.
async fn until_listed(gateway: &Gateway, name: &str) {
    for _ in 0..500 {
        if listed(gateway, "sk-ann")
            .await
            .iter()
            .any(|one| one == name)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} is never listed");
}

const KEYS: &str =
    "[keys.ann]\nkey = \"sk-ann\"\n[keys.bob]\nkey = \"sk-bob\"\nmodels = [\"p/small-*\"]\n";
const LIST: &str =
    r#"{"object":"list","data":[{"id":"small-1","object":"model"},{"id":"org/big:free","x":[1]}]}"#;

#[tokio::test]
async fn models_of_a_provider_are_listed_as_far_as_a_key_may_use_them() {
    let provider = Provider::new([Act::json(LIST), Act::json(completion("x"))]).await;
    let text = provider_at("p", provider.address, "discover = true")
        + &model("fast", &["p/known"], "")
        + KEYS;
    let gateway = Gateway::start(&text).await;
    until_listed(&gateway, "p/org/big:free").await;
    let ann = ["fast", "p/known", "p/org/big:free", "p/small-1"];
    assert_eq!(listed(&gateway, "sk-ann").await, ann);
    assert_eq!(listed(&gateway, "sk-bob").await, ["p/small-1"]);
    let one = |name: &str, key: &'static str| {
        let path = format!("/v1/models/{name}");
        async move { get(gateway.address, &path, key).await.status.as_u16() }
    };
    assert_eq!(one("p/org%2Fbig:free", "sk-ann").await, 200);
    assert_eq!(one("p/org/big:free", "sk-bob").await, 403);
    assert_eq!(one("p/other", "sk-ann").await, 404);
    let asked = provider.only();
    assert_eq!(asked.line, "GET /v1/models HTTP/1.1");
    assert_eq!(
        asked.header("authorization"),
        Some("Bearer sk-provider-secret")
    );
    assert_eq!(ask(&gateway, chat("p/small-1")).await.status, 200);
}

#[tokio::test]
async fn a_provider_that_does_not_tell_keeps_nobody_waiting() {
    let silent = Provider::new([Act::Hang]).await;
    let broken = Provider::new([Act::json(r#"{"data":7}"#)]).await;
    let well = Provider::new([Act::json(r#"[{"id":"bare"}]"#)]).await;
    let text = provider_at("silent", silent.address, "discover = true")
        + &provider_at("broken", broken.address, "discover = true")
        + &provider_at("p", well.address, "discover = true")
        + KEYS;
    let gateway = Gateway::start(&text).await;
    let asking = tokio::time::timeout(Duration::from_secs(1), listed(&gateway, "sk-ann"));
    asking.await.expect("it waits");
    until_listed(&gateway, "p/bare").await;
    until("all were asked", || {
        silent.count() == 1 && broken.count() == 1
    })
    .await;
    assert_eq!(listed(&gateway, "sk-ann").await, ["p/bare"]);
}

#[tokio::test]
async fn a_change_of_the_configuration_changes_who_is_asked() {
    let (first, second) = (
        Provider::new([Act::json(LIST)]).await,
        Provider::new([Act::json(r#"{"data":[{"id":"new"}]}"#)]).await,
    );
    let with = |p: &str, q: &str| {
        provider_at("p", first.address, p) + &provider_at("q", second.address, q) + KEYS
    };
    let gateway = Gateway::start(&with("discover = true", "")).await;
    until_listed(&gateway, "p/small-1").await;
    assert_eq!(second.count(), 0, "nobody said that it should be asked");
    gateway.apply(&with("", "discover = true")).unwrap();
    until_listed(&gateway, "q/new").await;
    assert_eq!(listed(&gateway, "sk-ann").await, ["q/new"]);
}

#[tokio::test]
async fn a_provider_that_has_moved_is_listed_by_what_it_has_there() {
    let (first, second) = (
        Provider::new([Act::json(LIST)]).await,
        Provider::new([Act::json(r#"{"data":[{"id":"new"}]}"#)]).await,
    );
    let at = |provider: &Provider| provider_at("p", provider.address, "discover = true") + KEYS;
    let gateway = Gateway::start(&at(&first)).await;
    until_listed(&gateway, "p/small-1").await;
    gateway.apply(&at(&second)).unwrap();
    until_listed(&gateway, "p/new").await;
    assert_eq!(listed(&gateway, "sk-ann").await, ["p/new"]);
}
