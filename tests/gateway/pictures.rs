//! What pictures cost by their size and quality: held for by what is asked for, entered by what is told.

use serde_json::{Value, json};

use crate::cli::{folder_with, run};
use crate::endpoints::{asks, entries, priced};
use crate::support::books::Books;
use crate::support::client::post;
use crate::support::form::form;
use crate::support::money::{budget, key, of, strict};
use crate::support::{Act, Gateway, Provider, until};

const IMAGES: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";

/// What one costs: 4, 8, 6 and 12 cents.
const PRICE: &str = r#"price = { images = { "1024x1024/standard" = 0.04, "1792x1024/standard" = 0.08, "1024x1024/hd" = 0.06, "1792x1024/hd" = 0.12 } }"#;
const CENT: u64 = 10_000_000;

/// A request for pictures, as JSON.
fn drawing(more: &Value) -> Vec<u8> {
    let mut body = json!({ "model": "m", "prompt": "a" });
    let (all, more) = (body.as_object_mut().unwrap(), more.as_object().unwrap());
    all.extend(more.clone());
    body.to_string().into_bytes()
}

/// The same for changes of a picture, as a form.
fn changing(texts: &[(&str, &str)]) -> Vec<u8> {
    form(
        &[7; 100],
        &[texts, &[("model", "m"), ("prompt", "a")]].concat(),
    )
}

/// An answer that tells what its pictures are like, or does not.
fn drawn(more: &Value) -> Act {
    let mut answer = json!({ "created": 1, "data": [{ "b64_json": "AA" }] });
    let (all, more) = (answer.as_object_mut().unwrap(), more.as_object().unwrap());
    all.extend(more.clone());
    Act::json(answer.to_string())
}

/// A stream of pictures, each of a size.
fn streamed(sizes: &[&str]) -> Act {
    let event = |size: &&str| {
        let kind = "image_generation.completed";
        let event = json!({ "type": kind, "b64_json": "AA", "size": size, "quality": "standard" });
        format!("event: {kind}\ndata: {event}\n\n")
    };
    let text: String = sizes.iter().map(event).collect();
    let head = vec![("content-type", "text/event-stream".to_owned())];
    Act::Answer(200, head, text.into_bytes())
}

#[tokio::test]
async fn pictures_cost_what_the_answer_tells_else_the_dearest_that_was_asked_for() {
    let two = json!({ "n": 2, "size": "1024x1024", "quality": "hd" });
    let open = json!({ "size": "auto", "quality": null });
    let told = |size: &str, quality: &str| drawn(&json!({ "size": size, "quality": quality }));
    let form = changing(&[("n", "2"), ("size", "1792x1024"), ("quality", "standard")]);
    let open_form = changing(&[("size", "1792x1024"), ("quality", "auto")]);
    for (n, (path, body, act, cents, estimated)) in [
        // All of it is asked for.
        (IMAGES, drawing(&two), drawn(&json!({})), 12, false),
        (EDITS, form, drawn(&json!({})), 16, false),
        // It is left open, and not told.
        (IMAGES, drawing(&open), drawn(&json!({})), 12, true),
        (IMAGES, drawing(&json!({})), drawn(&json!({})), 12, true),
        (EDITS, open_form.clone(), drawn(&json!({})), 12, true),
        // It is left open, and told, or some of it is.
        (
            IMAGES,
            drawing(&open),
            told("1024x1024", "standard"),
            4,
            false,
        ),
        (EDITS, open_form, told("1792x1024", "standard"), 8, false),
        (
            IMAGES,
            drawing(&open),
            drawn(&json!({ "size": "1024x1024" })),
            6,
            true,
        ),
        (IMAGES, drawing(&open), told("1024x1024", "auto"), 6, true),
        // What is told has no price: nobody knows better than what was asked for.
        (IMAGES, drawing(&two), told("512x512", "hd"), 12, true),
        // As is a word that nobody knows.
        (IMAGES, drawing(&open), told("1024x1024", "ultra"), 6, true),
        // A stream tells it with each picture.
        (
            IMAGES,
            drawing(&json!({ "n": 2, "stream": true })),
            streamed(&["1024x1024"; 2]),
            8,
            false,
        ),
        (
            IMAGES,
            drawing(&json!({ "n": 2, "stream": true })),
            streamed(&["1024x1024", "1792x1024"]),
            16,
            true,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // With a budget, and without.
        for ann in [budget("1"), String::new()] {
            let provider = Provider::new([act.clone()]).await;
            let gateway = priced(&provider, PRICE, &ann).await;
            let answer = asks(&gateway, path, &body).await;
            assert_eq!(answer.status, 200, "{n}: {}", answer.text());
            until("it is entered", || entries(&gateway).len() == 1).await;
            let entry = &entries(&gateway)[0];
            let known = (entry.cost, entry.estimated);
            assert_eq!(known, (Some(cents * CENT), estimated), "{n} {ann}");
        }
    }
}

#[tokio::test]
async fn the_dearest_that_agrees_is_held_for_and_what_agrees_with_none_is_not_sent() {
    let sized = |n: u32, size: &str, quality: &str| {
        let texts = [
            ("n", n.to_string()),
            ("size", size.to_owned()),
            ("quality", quality.to_owned()),
        ];
        let texts: Vec<(&str, &str)> = texts
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        let json = drawing(&json!({ "n": n, "size": size, "quality": quality }));
        [(IMAGES, json), (EDITS, changing(&texts))]
    };
    for (size, quality, cents) in [
        ("1024x1024", "standard", 4),
        ("1024x1024", "hd", 6),
        ("1024x1024", "auto", 6),
        ("auto", "standard", 8),
        ("auto", "auto", 12),
    ] {
        let usd = format!("0.{:02}", 2 * cents);
        for ((path, fits), (_, too_many)) in sized(2, size, quality)
            .into_iter()
            .zip(sized(3, size, quality))
        {
            let provider = Provider::new([drawn(&json!({}))]).await;
            let gateway = priced(&provider, PRICE, &strict(&usd)).await;
            let refused = asks(&gateway, path, &too_many).await;
            assert_eq!(refused.status, 429, "{size} {quality}: {}", refused.text());
            assert_eq!(
                (refused.code().as_str(), provider.count()),
                ("budget_exceeded", 0)
            );
            let answer = asks(&gateway, path, &fits).await;
            assert_eq!(answer.status, 200, "{size} {quality}: {}", answer.text());
        }
    }
    for (size, quality) in [
        ("512x512", "hd"),
        ("1024x1024", "low"),
        ("1024x1024", "ultra"),
        ("2K", "hd"),
    ] {
        for (path, body) in sized(1, size, quality) {
            let provider = Provider::new([drawn(&json!({}))]).await;
            let gateway = priced(&provider, PRICE, &budget("9")).await;
            let refused = asks(&gateway, path, &body).await;
            assert_eq!(refused.status, 503, "{size} {quality}: {}", refused.text());
            assert!(refused.text().contains("price"), "{}", refused.text());
            assert_eq!(provider.count(), 0, "{size} {quality}");
            // Without a budget it is sent, and nobody knows what it costs.
            let gateway = priced(&provider, PRICE, "").await;
            assert_eq!(asks(&gateway, path, &body).await.status, 200);
            until("it is entered", || entries(&gateway).len() == 1).await;
            assert_eq!(entries(&gateway)[0].cost, None, "{size} {quality}");
        }
    }
}

#[tokio::test]
async fn what_costs_more_than_was_held_is_entered_as_it_is() {
    let provider = Provider::new([drawn(&json!({ "size": "1792x1024", "quality": "hd" }))]).await;
    let gateway = priced(&provider, PRICE, &strict("0.1")).await;
    let body = drawing(&json!({ "size": "1024x1024", "quality": "standard" }));
    assert_eq!(asks(&gateway, IMAGES, &body).await.status, 200);
    let books = Books::of(&gateway).await;
    let entry = &books.rows()[0];
    assert_eq!((entry.cost, entry.estimated), (Some(12 * CENT), false));
    let refused = asks(&gateway, IMAGES, &body).await;
    assert_eq!(refused.status, 429, "nothing is left: {}", refused.text());
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn pictures_are_what_rules_leave_of_them() {
    let hd = json!({ "n": 2, "size": "1024x1024", "quality": "hd" });
    let vague = json!({ "n": 2, "size": "1024x1024", "quality": "standard" });
    for (rules, asked, cents, estimated) in [
        ("set = { quality = \"standard\" }", &hd, 8, false),
        ("set = { size = \"1792x1024\", n = 1 }", &hd, 12, false),
        (
            "default = { quality = \"hd\" }",
            &json!({ "size": "1024x1024" }),
            6,
            false,
        ),
        // What is left out is left to the model.
        ("drop = [\"quality\"]", &vague, 12, true),
        ("drop = [\"n\"]", &vague, 4, false),
        ("rename = { size = \"image_size\" }", &vague, 16, true),
        ("clamp = { n = [1, 1] }", &vague, 4, false),
    ] {
        for ann in [strict(&format!("0.{cents:02}")), String::new()] {
            let provider = Provider::new([drawn(&json!({}))]).await;
            let model = format!(
                "[models.m]\nrules = {{ {rules} }}\ntargets = [{{ to = \"p/m\", {PRICE} }}]\n"
            );
            let text = [of("p", &provider, ""), model, key("ann", &ann)].concat();
            let gateway = Gateway::start(&text).await;
            let answer = asks(&gateway, IMAGES, &drawing(asked)).await;
            assert_eq!(answer.status, 200, "{rules}: {}", answer.text());
            until("it is entered", || entries(&gateway).len() == 1).await;
            let entry = &entries(&gateway)[0];
            let known = (entry.cost, entry.estimated);
            assert_eq!(known, (Some(cents * CENT), estimated), "{rules} {ann}");
        }
        // With less than that it is not sent.
        let provider = Provider::new([drawn(&json!({}))]).await;
        let model =
            format!("[models.m]\nrules = {{ {rules} }}\ntargets = [{{ to = \"p/m\", {PRICE} }}]\n");
        let less = strict(&format!("0.{:03}", 10 * cents - 1));
        let gateway =
            Gateway::start(&[of("p", &provider, ""), model, key("ann", &less)].concat()).await;
        assert_eq!(
            asks(&gateway, IMAGES, &drawing(asked)).await.status,
            429,
            "{rules}"
        );
    }
}

#[tokio::test]
async fn the_cheapest_is_asked_for_what_is_wanted_and_that_is_decided_again_from_the_log() {
    let provider = Provider::new([drawn(&json!({ "size": "1024x1024" }))]).await;
    let text = [
        of("p", &provider, ""),
        "[models.m]\nkind = \"image\"\nstrategy = \"cost\"\ntargets = [\n".to_owned(),
        "  { to = \"p/plain\", price = { images = { low = 0.01, high = 0.09 } } },\n".to_owned(),
        "  { to = \"p/fine\", price = { images = { low = 0.02, high = 0.05 } } },\n]\n".to_owned(),
        key("ann", &budget("9")),
    ]
    .concat();
    let gateway = Gateway::with("decision_log = \"decisions.jsonl\"", &text).await;
    for (quality, target) in [
        ("low", "plain"),
        ("high", "fine"),
        ("auto", "fine"),
        ("low", "plain"),
    ] {
        let body = drawing(&json!({ "n": 2, "quality": quality }));
        assert_eq!(asks(&gateway, IMAGES, &body).await.status, 200);
        let received = provider.received();
        let sent: Value = serde_json::from_slice(&received.last().unwrap().body).unwrap();
        assert_eq!(sent["model"], target, "{quality}");
    }
    let question = json!({ "model": "m", "key": "ann", "endpoint": IMAGES, "body": { "n": 2, "quality": "high" } });
    let told = post(gateway.admin, "/admin/explain", "", question.to_string())
        .await
        .json();
    let bounds: Vec<_> = told["models"][0]["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["bound_usd"].clone())
        .collect();
    assert_eq!(bounds, ["0.10", "0.18"], "{told:#}");
    assert_eq!(
        told["models"][0]["targets"][0]["most"]["look"],
        json!({ "quality": "high" })
    );
    Books::of(&gateway).await;
    let log = gateway.folder().join("decisions.jsonl");
    let text = text.replace("env:SOME_KEY", "sk-x");
    std::fs::write(gateway.folder().join("gateway.toml"), text).unwrap();
    let lines = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .count()
    };
    until("all is logged", || lines() == 4).await;
    let (code, said, wrong) = run(gateway.folder(), &["replay", "decisions.jsonl", "--json"]);
    assert_eq!(code, 0, "{wrong}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["decided"], &said["same"]),
        (&json!(4), &json!(4)),
        "{said:#}"
    );
    assert_eq!(said["cost_usd_before"], said["cost_usd_after"], "{said:#}");
}

#[test]
fn a_price_that_is_none_is_told_with_what_to_write() {
    let check = |price: &str| {
        let text = format!(
            "[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[models.m]\ntargets = [{{ to = \"p/m\", price = {{ {price} }} }}]\n"
        );
        run(folder_with(&text).path(), &["check"])
    };
    for (price, want) in [
        (
            "images = {}",
            "images: names no price: write one number for all, or one for each size and quality",
        ),
        (
            "images = { \"1024\" = 1, hd = 2 }",
            "images[1024]: `1024` is no size: write the width and the height, such as \"1024x1024\"",
        ),
        (
            "images = { big = 1 }",
            "images: `big` is neither a size nor a quality: write a size such as",
        ),
        (
            "images = { \"hd/1024x1024\" = 1 }",
            "`hd/1024x1024` begins with the quality: write \"1024x1024/hd\"",
        ),
        (
            "images = { \"1x1/1x1\" = 1, hd = 1 }",
            "`1x1/1x1` names two: write one size, one quality, or",
        ),
        ("images = { auto = 1 }", "`auto` has no price of its own"),
        ("images = { hd = \"much\" }", "`much` "),
        (
            "images = true",
            "a number such as 0.04, or one for each size and quality",
        ),
        (
            "images = { hd = 1 }, input = 1, output = 1, tiers = [{ above = 9, images = 2 }]",
            "tiers[0].images: is not there where a picture's price depends on",
        ),
        ("characters = { hd = 1 }", "a number such as 25 or 0.15"),
    ] {
        let (code, out, err) = check(price);
        assert_eq!(code, 1, "{price}: {out}");
        assert!(err.contains(want), "{price}: {err}");
    }
    for fine in [
        "images = 0.04",
        "images = { any = \"0.04\" }",
        "images = { \"1024x1024/hd\" = 0.08, low = 0, any = 1 }",
    ] {
        let (code, _, err) = check(fine);
        assert_eq!((code, err.as_str()), (0, ""), "{fine}");
    }
}
