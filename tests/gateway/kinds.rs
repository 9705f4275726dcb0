//! A model is asked for what it is for, and lists say what that is.

use serde_json::{Value, json};

use crate::cli::{folder_with, run};
use crate::support::client::{get, post};
use crate::support::provider::Received;
use crate::support::{Act, CHAT, Gateway, Provider, chat, completion, model, provider_at};

const EMBEDDINGS: &str = "/v1/embeddings";
const COMPLETIONS: &str = "/v1/completions";

fn text_of(model: &str) -> String {
    json!({ "model": model, "input": "hi", "prompt": "hi" }).to_string()
}

async fn kinds(provider: &Provider) -> Gateway {
    let text = provider_at("p", provider.address, "")
        + &model("embed", &["p/vectors", "p/both"], "kind = \"embedding\"")
        + &model("fast", &["p/words", "p/both"], "kind = \"chat\"")
        + &model("any", &["p/any"], "");
    Gateway::start(&text).await
}

#[tokio::test]
async fn what_a_model_is_not_for_is_refused_before_anybody_is_asked() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = kinds(&provider).await;
    for (path, asked, kind, right) in [
        (CHAT, "embed", "embedding", EMBEDDINGS),
        (COMPLETIONS, "embed", "embedding", EMBEDDINGS),
        (CHAT, "p/vectors", "embedding", EMBEDDINGS),
        (EMBEDDINGS, "fast", "chat", CHAT),
        (EMBEDDINGS, "p/words", "chat", CHAT),
    ] {
        let body = match path {
            CHAT => chat(asked),
            _ => text_of(asked),
        };
        let answer = post(gateway.address, path, "", body).await;
        let error = &answer.json()["error"];
        assert_eq!(answer.status, 400, "{path} {asked}: {error}");
        assert_eq!(error["code"], "invalid_request");
        assert_eq!(error["param"], "model");
        let message = error["message"].as_str().unwrap();
        for word in [&format!("`{asked}`"), kind, right] {
            assert!(message.contains(word), "{word} in {message}");
        }
    }
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn what_a_model_is_for_is_asked_and_so_is_one_that_is_for_nothing_in_particular() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = kinds(&provider).await;
    for (path, asked) in [
        (EMBEDDINGS, "embed"),
        (EMBEDDINGS, "p/vectors"),
        (CHAT, "fast"),
        (COMPLETIONS, "fast"),
        // A target of two kinds of models may be for both.
        (CHAT, "p/both"),
        (EMBEDDINGS, "p/both"),
        (CHAT, "any"),
        (EMBEDDINGS, "any"),
        // A model that nobody named.
        (EMBEDDINGS, "p/other"),
        (CHAT, "p/other"),
    ] {
        let body = match path {
            CHAT => chat(asked),
            _ => text_of(asked),
        };
        let answer = post(gateway.address, path, "", body).await;
        assert_eq!(answer.status, 200, "{path} {asked}: {}", answer.text());
    }
    assert_eq!(provider.count(), 10);
}

#[tokio::test]
async fn lists_say_what_a_model_is_for() {
    let provider = Provider::new([]).await;
    let gateway = kinds(&provider).await;
    let list = get(gateway.address, "/v1/models", "").await.json();
    let data = list["data"].as_array().unwrap().iter();
    let listed: Vec<_> = data
        .map(|it| (it["id"].clone(), it.get("kind").cloned()))
        .collect();
    let want = [
        ("any", None),
        ("embed", Some("embedding")),
        ("fast", Some("chat")),
        ("p/any", None),
        ("p/both", None),
        ("p/vectors", Some("embedding")),
        ("p/words", Some("chat")),
    ];
    let want = want.map(|(id, kind)| (json!(id), kind.map(Value::from)));
    assert_eq!(listed, want);
    let one = get(gateway.address, "/v1/models/embed", "").await.json();
    assert_eq!(one["kind"], "embedding");
}

#[tokio::test]
async fn it_is_explained_as_it_would_be_refused() {
    let provider = Provider::new([]).await;
    let gateway = kinds(&provider).await;
    let answer = post(gateway.address, CHAT, "", chat("embed")).await;
    let question = json!({ "model": "embed" }).to_string();
    let told = post(gateway.admin, "/admin/explain", "", question)
        .await
        .json();
    let message = &answer.json()["error"]["message"];
    assert_eq!(&told["rejected"]["message"], message, "{told:#}");
}

/// What is asked instead may lead on to a model of another kind, over one that does not say: nobody is asked there.
#[tokio::test]
async fn whatever_led_there_it_is_asked_for_what_it_is_for() {
    let long = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    let provider = Provider::new([Act::status(400, long)]).await;
    let text = provider_at("p", provider.address, "")
        + &model("fast", &["p/fast"], "on_context_overflow = \"embed\"")
        + &model(
            "slow",
            &["p/slow"],
            "kind = \"chat\"\non_context_overflow = \"fast\"",
        )
        + &model("embed", &["p/vectors"], "kind = \"embedding\"");
    let gateway = Gateway::start(&text).await;
    for (asked, tries) in [("fast", 1), ("slow", 2)] {
        let before = provider.count();
        let answer = post(gateway.address, CHAT, "", chat(asked)).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
        assert_eq!(provider.count() - before, tries, "{asked}");
        let question = json!({ "model": asked }).to_string();
        let told = post(gateway.admin, "/admin/explain", "", question)
            .await
            .text();
        assert!(!told.contains("p/vectors"), "{told}");
    }
    let answer = post(gateway.address, EMBEDDINGS, "", text_of("fast")).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let received = provider.received();
    let models = received.iter().map(Received::text);
    let vectors = models.filter(|text| text.contains("\"vectors\""));
    assert_eq!(vectors.count(), 1, "by whoever asks for vectors");
}

#[test]
fn check_finds_kinds_that_are_none_and_models_that_cannot_stand_in() {
    let folder = folder_with(
        "[providers.echo]\n[models.a]\ntargets = [\"echo/a\"]\nkind = \"chat\"\non_budget = \"b\"\n[models.b]\ntargets = [\"echo/b\"]\nkind = \"embedding\"\n",
    );
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "gateway.toml:5: models.a.on_budget: `b` is of the kind embedding, and `a` of the kind chat; name one that is asked for the same\n"
    );
    let folder =
        folder_with("[providers.echo]\n[models.a]\ntargets = [\"echo/a\"]\nkind = \"chats\"\n");
    let (code, _, err) = run(folder.path(), &["check"]);
    assert_eq!(code, 1);
    assert_eq!(
        err,
        "gateway.toml:4: models.a.kind: no kind of model is called `chats`; there are \"chat\", \"embedding\", \"speech\", \"transcription\", \"image\", \"moderation\" and \"rerank\"\n"
    );
}
