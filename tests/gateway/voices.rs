//! The voices that can be spoken with: of every provider that a caller may ask, told by it or by the configuration.

use serde_json::Value;

use crate::support::client::get;
use crate::support::money::key;
use crate::support::{Act, Gateway, Provider, model, provider_at, until};

const VOICES: &str = "/v1/audio/voices";

/// The ids that are told, with who has them.
async fn told(gateway: &Gateway, path: &str, key: &str) -> Vec<String> {
    let answer = get(gateway.address, path, key).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list: Value = answer.json();
    let voices = list["voices"].as_array().unwrap().iter();
    let word = |voice: &Value, name: &str| voice[name].as_str().unwrap().to_owned();
    voices
        .map(|voice| word(voice, "owned_by") + ":" + &word(voice, "id"))
        .collect()
}

async fn voices() -> (Provider, Gateway) {
    let list = r#"{"voices":[{"voice_id":"af_heart","name":"Heart","lang":"en"},"with/slash"]}"#;
    let provider = Provider::new([Act::json(list)]).await;
    let text = provider_at("asked", provider.address, "voices = true")
        + &provider_at("listed", provider.address, "voices = [\"alloy\", \"ash\"]")
        + &provider_at("silent", provider.address, "")
        + &model("speak", &["asked/tts"], "kind = \"speech\"")
        + &model("read", &["listed/tts", "silent/tts"], "kind = \"speech\"")
        + &model("write", &["listed/m"], "kind = \"chat\"")
        + &key("ann", "")
        + &key("bob", "models = [\"read\"]")
        + &key("eve", "models = [\"asked/*\"]");
    let gateway = Gateway::start(&text).await;
    until("they are told", || provider.count() > 0).await;
    (provider, gateway)
}

#[tokio::test]
async fn voices_are_joined_over_the_providers_that_one_may_ask() {
    let (provider, gateway) = voices().await;
    let all = [
        "asked:af_heart",
        "asked:with/slash",
        "listed:alloy",
        "listed:ash",
    ];
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen = told(&gateway, VOICES, "sk-ann").await;
        if seen.len() == all.len() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(seen, all);
    assert_eq!(told(&gateway, "/audio/voices", "sk-bob").await, all[2..]);
    assert_eq!(told(&gateway, VOICES, "sk-eve").await, all[..2]);
    let narrowed = |model: &str| format!("{VOICES}?model={model}");
    assert_eq!(told(&gateway, &narrowed("speak"), "sk-ann").await, all[..2]);
    assert_eq!(told(&gateway, &narrowed("read"), "sk-ann").await, all[2..]);
    assert_eq!(
        told(&gateway, &narrowed("asked%2Ftts"), "sk-ann").await,
        all[..2]
    );
    for (model, key, status, code) in [
        ("none", "sk-ann", 404, "model_not_found"),
        ("speak", "sk-bob", 403, "model_not_allowed"),
        ("write", "sk-ann", 400, "invalid_request"),
    ] {
        let answer = get(gateway.address, &narrowed(model), key).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code)
        );
    }
    assert_eq!(get(gateway.address, VOICES, "sk-wrong").await.status, 401);
    // It is asked once, and not for each of these.
    assert_eq!(provider.count(), 1);
    assert_eq!(provider.received()[0].line, "GET /v1/audio/voices HTTP/1.1");
}

#[tokio::test]
async fn one_voice_is_told_with_all_that_its_provider_says_of_it() {
    let (_provider, gateway) = voices().await;
    told(&gateway, VOICES, "sk-ann").await;
    let one =
        async |id: &str, key: &str| get(gateway.address, &format!("{VOICES}/{id}"), key).await;
    let mut heart = one("af_heart", "sk-ann").await;
    for _ in 0..100 {
        if heart.status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        heart = one("af_heart", "sk-ann").await;
    }
    let heart = heart.json();
    assert_eq!(
        (heart["name"].as_str(), heart["lang"].as_str()),
        (Some("Heart"), Some("en"))
    );
    assert_eq!(heart["owned_by"], "asked");
    for id in ["with/slash", "with%2Fslash", "alloy"] {
        assert_eq!(one(id, "sk-ann").await.status, 200, "{id}");
    }
    for (id, key) in [
        ("nobody", "sk-ann"),
        ("af_heart", "sk-bob"),
        ("alloy?model=speak", "sk-ann"),
    ] {
        let answer = one(id, key).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, "voice_not_found")
        );
    }
}
