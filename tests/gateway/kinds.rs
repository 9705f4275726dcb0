//! A model is asked for what it is for, and lists say what that is.

use serde_json::{Value, json};

use crate::cli::{folder_with, run};
use crate::endpoints::asks;
use crate::prices::gaps;
use crate::support::client::{get, post};
use crate::support::form::form;
use crate::support::money::{budget, key, of};
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

/// A short request, as it is asked at each endpoint of a kind.
fn requests(kind: &str) -> Vec<(&'static str, Vec<u8>)> {
    let json = |path, body: Value| {
        let mut body = body;
        body["model"] = "m".into();
        (path, body.to_string().into_bytes())
    };
    let heard = || form(&[7; 50], &[("model", "m")]);
    match kind {
        "chat" => vec![
            json(
                CHAT,
                json!({ "messages": [{ "role": "user", "content": "a" }] }),
            ),
            json(COMPLETIONS, json!({ "prompt": "a" })),
            json("/v1/responses", json!({ "input": "a" })),
        ],
        "embedding" => vec![json(EMBEDDINGS, json!({ "input": "a" }))],
        "speech" => vec![json(
            "/v1/audio/speech",
            json!({ "input": "a", "voice": "v" }),
        )],
        "transcription" => vec![
            ("/v1/audio/transcriptions", heard()),
            ("/v1/audio/translations", heard()),
        ],
        "image" => vec![
            json("/v1/images/generations", json!({ "prompt": "a" })),
            (
                "/v1/images/edits",
                form(&[7; 50], &[("model", "m"), ("prompt", "a")]),
            ),
        ],
        "moderation" => vec![json("/v1/moderations", json!({ "input": "a" }))],
        "rerank" => vec![json(
            "/v1/rerank",
            json!({ "query": "a", "documents": ["a"] }),
        )],
        _ => panic!("{kind}"),
    }
}

/// What is written for a target, and what `check` says of it, if it is not fine: from where it begins to tell what may cost more.
const COVERED: &[(&str, &str, Option<&str>)] = &[
    ("chat", TOKENS, None),
    (
        "chat",
        "price = { characters = 15 }",
        Some("`chat`: callers with a budget are not served by it; state `input` and `output`"),
    ),
    (
        "chat",
        "price = { input = 1, output = 2, characters = 15 }",
        None,
    ),
    ("embedding", "price = { input = 1, output = 0 }", None),
    (
        "embedding",
        "price = { images = 1 }",
        Some("`embedding`: callers with a budget are not served by it; state `input` and `output`"),
    ),
    ("moderation", TOKENS, None),
    ("moderation", "price = { input = 0, output = 0 }", None),
    (
        "moderation",
        "price = { searches = 1 }",
        Some("`moderation`: callers with"),
    ),
    ("speech", "price = { characters = 15 }", None),
    (
        "speech",
        TOKENS,
        Some(
            "`speech`: callers with a budget are not served by it; state `characters`, or `input` and `output` with a `max_output`",
        ),
    ),
    ("speech", BOUNDED, None),
    (
        "speech",
        "price = { seconds = 1 }",
        Some("`speech`: callers with"),
    ),
    ("transcription", "price = { seconds = 0.0001 }", None),
    (
        "transcription",
        BOUNDED,
        Some(
            "`transcription`: callers with a budget are not served by it; state `seconds`, or `input` and `output` with a `context` and a `max_output`",
        ),
    ),
    ("transcription", WHOLE, None),
    ("image", "price = { images = 0.04 }", None),
    (
        "image",
        "price = { images = { \"1024x1024\" = 0.04, hd = 0.08 } }",
        None,
    ),
    (
        "image",
        TOKENS,
        Some(
            "`image`: callers with a budget are not served by it; state `images`, or `input` and `output` with a `max_output`",
        ),
    ),
    // What is changed is a picture, of whose tokens the request says nothing.
    (
        "image",
        BOUNDED,
        Some(
            "`image` at /v1/images/edits: callers with a budget are not served by it; state `images`, or `input` and `output` with a `context` and a `max_output`",
        ),
    ),
    ("image", WHOLE, None),
    ("rerank", "price = { searches = 0.002 }", None),
    ("rerank", "price = { input = 1, output = 0 }", None),
    (
        "rerank",
        "price = { characters = 1 }",
        Some(
            "`rerank`: callers with a budget are not served by it; state `searches`, or `input` and `output`",
        ),
    ),
];

const TOKENS: &str = "price = { input = 1, output = 2 }";
const BOUNDED: &str = "price = { input = 1, output = 2 }, max_output = 1000";
const WHOLE: &str = "price = { input = 1, output = 2 }, context = 9000, max_output = 1000";

/// A model of a kind, whose one target has these terms.
fn covered(provider: &Provider, kind: &str, terms: &str) -> String {
    let model = format!("[models.m]\n{kind}targets = [{{ to = \"p/m\", {terms} }}]\n");
    of("p", provider, "") + &model + &key("ann", &budget("9"))
}

#[tokio::test]
async fn check_names_what_callers_with_a_budget_are_refused_for_want_of_a_price() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    for (kind, terms, gap) in COVERED {
        let text = covered(&provider, &format!("kind = {kind:?}\n"), terms);
        let (told, is_fine) = gaps(&text);
        // Without its key the provider is skipped, and judged all the same.
        let told: Vec<_> = told.iter().filter(|line| line.contains("price")).collect();
        let begins = "models.m.targets[0]: its price does not tell what p/m may cost at most as ";
        let want = gap.map(|gap| format!("{begins}{gap}"));
        let is_told = told
            .first()
            .zip(want.as_ref())
            .map(|(line, want)| line.starts_with(want));
        assert_eq!(
            (told.len(), is_told),
            (usize::from(gap.is_some()), gap.map(|_| true)),
            "{kind} {terms}: {told:?}"
        );
        assert_eq!(is_fine, gap.is_none(), "{kind} {terms}");
        // It is so as it is told.
        let gateway = Gateway::start(&text).await;
        let mut refused = Vec::new();
        for (path, body) in requests(kind) {
            let answer = asks(&gateway, path, &body).await;
            if answer.status == 503 {
                assert!(answer.text().contains("price"), "{}", answer.text());
                refused.push(path);
            }
        }
        assert_eq!(
            refused.is_empty(),
            gap.is_none(),
            "{kind} {terms}: {refused:?}"
        );
        if let Some((_, rest)) = gap.and_then(|gap| gap.split_once(" at ")) {
            assert_eq!(
                rest.split_once(':').unwrap().0,
                refused.join(", "),
                "{kind} {terms}"
            );
        }
        let state = if gap.is_some() { "unpriced" } else { "exact" };
        let metric = format!("tollgate_target_price{{state=\"{state}\",target=\"p/m\"}}");
        assert_eq!(gateway.metric(&metric), 1.0, "{kind} {terms}");
    }
    // Whom anybody may ask for anything, is taken at the price's word.
    for terms in [
        TOKENS,
        "price = { characters = 15 }",
        "price = { images = { hd = 1 } }",
    ] {
        let (told, is_fine) = gaps(&covered(&provider, "", terms));
        assert!(is_fine && !told.concat().contains("price"), "{told:?}");
    }
    let free =
        covered(&provider, "kind = \"speech\"\n", TOKENS) + "[ledger]\nunpriced = \"free\"\n";
    let (told, is_fine) = gaps(&free);
    assert!(
        !is_fine
            && told
                .iter()
                .any(|line| line.contains("as `speech`: nothing is set aside for that; state ")),
        "{told:?}"
    );
}

#[test]
fn what_is_priced_without_tokens_has_no_classes_of_them() {
    let base = "[providers.openai]\napi_key = \"k\"\n".to_owned() + &key("ann", &budget("1"));
    for (kind, price) in [
        ("kind = \"speech\"", "characters = 15"),
        ("kind = \"image\"", "images = 0.04"),
        ("", "images = 0.04"),
        // What judges has no answers to be cached or thought of.
        ("kind = \"moderation\"", "input = 1, output = 1"),
    ] {
        let model = format!(
            "[models.m]\n{kind}\ntargets = [{{ to = \"openai/own\", price = {{ {price} }} }}]\n"
        );
        assert_eq!(
            gaps(&format!("{base}{model}")),
            (Vec::new(), true),
            "{kind} {price}"
        );
    }
}
