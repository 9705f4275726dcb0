//! What an operator's rules add to a request is paid for as well: they are applied after a client's words were read, and
//! what is set aside is for what is sent.

use crate::cli::{folder_with, run};
use crate::support::money::{PRICE, asks, asks_at, budget, entries, key, of, question, strict};
use crate::support::{Act, Gateway, Provider, completion};

/// A text so long that its tokens do not fit into a dollar.
fn long() -> String {
    "x".repeat(1_000)
}

/// A gateway to one target, with rules of its provider's and rules of its model's; ann has a dollar.
async fn gateway(provider: &Provider, rules: &str, model_rules: &str) -> Gateway {
    let text = of("p", provider, rules)
        + &format!("[models.fast]\ntargets = [{{ to = \"p/m\", {PRICE} }}]\n{model_rules}\n")
        + &key("ann", &strict("1"));
    Gateway::start(&text).await
}

#[tokio::test]
async fn what_rules_add_is_set_aside_too() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    // 33 cents of input and 10 of output, unless a rule asks for more.
    let asked = question(10).replace("\"model\"", "\"candidates\":10,\"model\"");
    let long = long();
    for rules in [
        "rules.set = { n = 10 }".to_owned(),
        "rules.default = { n = 10 }".into(),
        "rules.set = { best_of = 10 }".into(),
        "rules.clamp = { n = [10, 20] }\nrules.default = { n = 1 }".into(),
        "rules.rename = { candidates = \"n\" }".into(),
        "rules_for.\"m*\" = { set = { n = 10 } }".into(),
        "rules.set = { tools = [{ type = \"function\", function = { name = \"f\" } }] }".into(),
        "rules.default = { functions = [{ name = \"f\" }] }".into(),
        format!("rules.set = {{ system = \"{long}\" }}"),
        format!("rules.default = {{ response_format = {{ a = \"{long}\" }} }}"),
        format!("rules.set = {{ prediction = {{ type = \"content\", content = \"{long}\" }} }}"),
        format!("rules.messages.roles = {{ user = \"{long}\" }}"),
    ] {
        for (ours, model_rules) in [(rules.as_str(), ""), ("", rules.as_str())] {
            if model_rules.starts_with("rules_for") {
                continue;
            }
            let gateway = gateway(&provider, ours, model_rules).await;
            let refused = asks(&gateway, "ann", asked.clone()).await;
            assert_eq!(refused.status.as_u16(), 429, "{rules}: {}", refused.text());
            assert_eq!(refused.code(), "budget_exceeded", "{rules}");
            assert_eq!(entries(&gateway).await, [], "{rules}");
        }
    }
    assert_eq!(provider.count(), 0);
    for rules in [
        "",
        "rules.set = { n = 1 }",
        "rules.clamp = { n = [1, 1] }",
        "rules.set = { user = \"us\" }",
        "rules.default = { temperature = 0.5, tools = [] }",
        "rules.messages.roles = { user = \"person\" }",
    ] {
        let gateway = gateway(&provider, rules, "").await;
        let answer = asks(&gateway, "ann", asked.clone()).await;
        assert_eq!(answer.status.as_u16(), 200, "{rules}: {}", answer.text());
    }
}

#[tokio::test]
async fn what_rules_take_away_need_not_be_set_aside() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let many = question(10).replace("\"model\"", "\"n\":10,\"model\"");
    let one = gateway(&provider, "rules.set = { n = 1 }", "").await;
    assert_eq!(asks(&one, "ann", many.clone()).await.status, 200);
    let clamped = gateway(&provider, "rules.clamp = { n = [1, 1] }", "").await;
    assert_eq!(asks(&clamped, "ann", many).await.status, 200);
}

#[tokio::test]
async fn output_is_lowered_to_what_fits_as_often_as_rules_ask_for_it() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let text = of("p", &provider, "rules.set = { n = 10 }")
        + &format!("[models.fast]\ntargets = [{{ to = \"p/m\", {PRICE} }}]\n")
        + &key("ann", &budget("10"));
    let gateway = Gateway::start(&text).await;
    assert_eq!(asks(&gateway, "ann", question(1_000)).await.status, 200);
    let sent: serde_json::Value = serde_json::from_str(&provider.only().text()).unwrap();
    let limit = sent["max_tokens"].as_u64().unwrap();
    assert!((90..=97).contains(&limit), "ten times {limit}");
}

#[tokio::test]
async fn rules_count_for_a_target_by_its_own_name_and_for_a_prompt() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let gateway = gateway(&provider, "rules.set = { best_of = 10 }", "").await;
    let direct = question(10).replace("fast", "p/m");
    assert_eq!(
        asks(&gateway, "ann", direct).await.code(),
        "budget_exceeded"
    );
    let prompt = r#"{"model":"fast","max_tokens":10,"prompt":"h"}"#;
    let refused = asks_at(&gateway, "/v1/completions", "ann", prompt).await;
    assert_eq!(refused.code(), "budget_exceeded");
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn a_target_whose_rules_ask_for_too_much_is_passed_over() {
    let many = Provider::new([Act::json(completion("many"))]).await;
    let one = Provider::new([Act::json(completion("one"))]).await;
    let text = of("many", &many, "rules.set = { n = 10 }")
        + &of("one", &one, "")
        + &format!(
            "[models.fast]\ntargets = [{{ to = \"many/m\", {PRICE} }}, {{ to = \"one/m\", {PRICE} }}]\n"
        )
        + &key("ann", &strict("1"));
    let gateway = Gateway::start(&text).await;
    let answer = asks(&gateway, "ann", question(10)).await;
    assert_eq!(answer.header("x-tollgate-target"), Some("one/m"));
    assert_eq!((many.count(), one.count()), (0, 1));
}

#[tokio::test]
async fn a_limit_that_rules_lift_is_held_to_what_is_set_aside() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    for rules in [
        "rules.set = { max_tokens = 100000 }",
        "rules.set = { max_completion_tokens = 100000 }",
        "rules.drop = [\"max_tokens\"]",
        "rules.clamp = { max_tokens = [5000, 100000] }",
    ] {
        for (ours, model_rules) in [(rules, ""), ("", rules)] {
            let gateway = gateway(&provider, ours, model_rules).await;
            assert_eq!(asks(&gateway, "ann", question(10)).await.status, 200);
            let sent = provider.received().last().unwrap().text();
            let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
            let limits = ["max_tokens", "max_completion_tokens"].map(|name| sent[name].as_u64());
            assert!(
                limits.iter().flatten().all(|limit| *limit == 10),
                "{rules}: {sent}"
            );
            assert_ne!(limits, [None, None], "{rules}: {sent}");
        }
    }
}

#[tokio::test]
async fn what_rules_let_cost_more_needs_a_price_of_its_own() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    // One that the list of prices has.
    let text = |rules: &str, price: &str| {
        format!(
            "[providers.groq]\nbase_url = \"http://{}/v1\"\napi_key = \"k\"\n{rules}\n\
             [models.fast]\ntargets = [{{ to = \"groq/openai/gpt-oss-120b\"{price} }}]\n{}{}",
            provider.address,
            key("ann", &strict("1")),
            key("bob", ""),
        )
    };
    for rules in [
        "rules.set = { service_tier = \"priority\" }",
        "rules.default = { service_tier = \"auto\" }",
        "rules.set = { plugins = [{ id = \"web\" }] }",
        "rules.set = { tools = [{ type = \"web_search\" }] }",
        "rules_for.\"openai/*\" = { set = { service_tier = \"priority\" } }",
    ] {
        let gateway = Gateway::start(&text(rules, "")).await;
        let refused = asks(&gateway, "ann", question(10)).await;
        assert_eq!(refused.status.as_u16(), 503, "{rules}: {}", refused.text());
        assert_eq!(refused.code(), "no_target_available", "{rules}");
        assert_eq!(provider.count(), 0, "{rules}");
        // By its own name, it is no other.
        let direct = question(10).replace("fast", "groq/openai/gpt-oss-120b");
        assert_eq!(
            asks(&gateway, "ann", direct).await.status.as_u16(),
            503,
            "{rules}"
        );
    }
    for (rules, price, name) in [
        // Whoever writes a price knows what he asks for.
        (
            "rules.set = { service_tier = \"priority\" }",
            ", price = { input = 1, output = 2 }",
            "ann",
        ),
        (
            "rules.set = { tools = [{ type = \"web_search\" }] }",
            ", price = { input = 1, output = 2 }",
            "ann",
        ),
        ("rules.set = { service_tier = \"flex\" }", "", "ann"),
        ("rules.set = { service_tier = \"priority\" }", "", "bob"),
    ] {
        let gateway = Gateway::start(&text(rules, price)).await;
        let answer = asks(&gateway, name, question(10)).await;
        assert_eq!(
            answer.status.as_u16(),
            200,
            "{rules}{price}: {}",
            answer.text()
        );
    }
}

#[test]
fn rules_that_let_cost_more_are_named() {
    let text = |price: &str, unpriced: &str, budget: &str| {
        format!(
            "[providers.groq]\napi_key = \"k\"\nrules.set = {{ service_tier = \"priority\" }}\n\
             [models.fast]\ntargets = [{{ to = \"groq/openai/gpt-oss-20b\"{price} }}]\n[keys.ann]\nkey = \"k\"\n{budget}\n{unpriced}"
        )
    };
    let told = |text: &str| run(folder_with(text).path(), &["check"]).1;
    let one = strict("1");
    let named = told(&text("", "", &one));
    let want = "models.fast.targets[0]: rules give `service_tier` to groq/openai/gpt-oss-20b, and what that costs is not \
                known: callers with a budget are not served by it unless it has a `price`\n";
    assert!(named.starts_with(want), "{named}");
    let free = told(&text("", "[ledger]\nunpriced = \"free\"\n", &one));
    let want = "not known: budgets see only what its tokens cost without\n";
    assert!(free.contains(want), "{free}");
    for fine in [
        text(", price = { input = 1, cached = 1, output = 2 }", "", &one),
        text("", "", ""),
        text("", "", &one).replace("priority", "flex"),
    ] {
        let told = told(&fine);
        assert!(told.starts_with("gateway.toml: fine"), "{told}");
    }
}
