//! Configurations that are made up: whatever stands in them, nothing is lost, nothing is told, and `check` finds it fine.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tollgate::cli::import::translate;

use super::{flaws, listed};

/// Names that mean something somewhere, and some that do not.
const NAMES: &[&str] = &[
    "model",
    "model_name",
    "api_base",
    "api_key",
    "api_version",
    "rpm",
    "tpm",
    "weight",
    "order",
    "timeout",
    "stream_timeout",
    "max_retries",
    "num_retries",
    "cooldown_time",
    "tags",
    "max_parallel_requests",
    "extra_headers",
    "organization",
    "temperature",
    "max_tokens",
    "stop",
    "additional_drop_params",
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "output_cost_per_image",
    "mode",
    "max_input_tokens",
    "max_output_tokens",
    "supports_reasoning",
    "id",
    "base_model",
    "custom_llm_provider",
    "drop_params",
    "callbacks",
    "cache",
    "max_budget",
    "budget_duration",
    "json_logs",
    "timezone",
    "default_key_generate_params",
    "rpm_limit",
    "master_key",
    "database_url",
    "global_max_parallel_requests",
    "routing_strategy",
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "default_fallbacks",
    "model_group_alias",
    "provider_budget_config",
    "budget_limit",
    "time_period",
    "default_max_parallel_requests",
    "disable_cooldowns",
    "optional_pre_call_checks",
    "request_timeout",
    "retry_policy",
    "a",
    "b",
    "a b",
    "a.b",
    "\u{e4}",
    "x\ty",
    "\"",
    "",
];

/// Words that mean something somewhere, and some that do not.
const WORDS: &[&str] = &[
    "openai/gpt-4.1",
    "gpt-4.1",
    "groq/a",
    "azure/b",
    "ollama/c",
    "anthropic/*",
    "openai/*",
    "*",
    "a",
    "b",
    "bedrock/x",
    "somewhere/x",
    "fireworks_ai/y",
    "os.environ/SOME",
    "http://127.0.0.1:8000/v1",
    "https://u:p@h/v1",
    "http://",
    "https://h.openai.azure.com/",
    "chat",
    "embedding",
    "image_generation",
    "simple-shuffle",
    "least-busy",
    "latency-based-routing",
    "cost-based-routing",
    "usage-based-routing-v2",
    "enforce_model_rate_limits",
    "prometheus",
    "30d",
    "1h",
    "10s",
    "7d",
    "x",
    "true",
    "",
    "two\nlines",
    "quote\"d",
    "back\\slash",
    "\u{7f}",
    "# no comment",
    "UTC",
    "1_000",
    "1e-6",
    "-5",
    "0x10",
    "99999999999999999999999",
    "[models.x]",
    "env:X",
    "file:x",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => proptest::sample::select(WORDS).prop_map(|word| json!(word)),
        2 => any::<u32>().prop_map(|n| json!(n)),
        1 => any::<i64>().prop_map(|n| json!(n)),
        1 => (0_u32..50).prop_map(|n| json!(f64::from(n) / 8.0)),
        1 => any::<bool>().prop_map(|is| json!(is)),
        1 => Just(Value::Null),
        1 => Just(json!([])),
        1 => Just(json!({})),
        1 => "[a-z:{}#&*!|>'%@` -]{0,8}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 20, 4, |below| {
        prop_oneof![
            proptest::collection::vec(below.clone(), 0..4).prop_map(Value::from),
            map(below),
        ]
    })
}

fn map(of: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    let member = (proptest::sample::select(NAMES), of);
    let members = proptest::collection::vec(member, 0..8);
    let joined = members.prop_map(|all| {
        let all = all
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Value::Object(all.collect::<Map<_, _>>())
    });
    joined.boxed()
}

/// An entry that can be asked, more often than not.
fn entry() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(&["a", "b", "c", "groq/*", "*", "x.y", "1"][..]);
    let model = proptest::sample::select(WORDS);
    (name, model, map(value().boxed()), map(value().boxed())).prop_map(
        |(name, model, params, info)| {
            let mut params = params;
            params["model"] = json!(model);
            json!({"model_name": name, "litellm_params": params, "model_info": info})
        },
    )
}

fn configuration() -> impl Strategy<Value = Value> {
    let section = || map(value().boxed());
    let entries = proptest::collection::vec(entry(), 0..5);
    let rest = map(value().boxed());
    (entries, section(), section(), section(), rest).prop_map(
        |(entries, one, other, third, rest)| {
            let mut whole = rest;
            whole["model_list"] = Value::from(entries);
            whole["router_settings"] = one;
            whole["litellm_settings"] = other;
            whole["general_settings"] = third;
            whole
        },
    )
}

/// Every value by its path, as somebody else would count them.
fn leaves(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let is_bare = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                let part = match !key.is_empty() && key.chars().all(is_bare) {
                    true => key.clone(),
                    false => format!("\"{}\"", key.replace('\t', "\\t")),
                };
                let dot = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{dot}{part}"), out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (n, value) in list.iter().enumerate() {
                leaves(value, &format!("{path}[{n}]"), out);
            }
        }
        _ => drop(out.insert(path.to_owned())),
    }
}

/// What it becomes, if it has the shape that it must have.
fn imported(whole: &Value) -> Option<(String, String)> {
    let text = serde_json::to_string_pretty(whole).unwrap();
    match translate("made.yaml", &text) {
        Ok(imported) => Some((text, imported.text)),
        Err(wrong) => {
            assert!(wrong.to_string().starts_with(':'), "{wrong}");
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// JSON is YAML.
    #[test]
    fn nothing_is_lost(whole in configuration()) {
        if let Some((_, made)) = imported(&whole) {
            let mut want = BTreeSet::new();
            leaves(&whole, "", &mut want);
            let listed: BTreeSet<String> = listed(&made).into_keys().collect();
            prop_assert_eq!(&listed, &want);
        }
    }

    #[test]
    fn no_text_is_too_odd(text in "[a-c:{}\\[\\]#&*!|>'\"%@`,<\n -]{0,60}") {
        drop(translate("made.yaml", &text));
        drop(translate("made.yaml", &format!("model_list:\n  - model_name: a\n    litellm_params:\n      {text}")));
    }

    #[test]
    fn a_key_is_never_told(key in "sk-[a-zA-Z0-9]{12,40}", at in 0_usize..8) {
        let mut whole = json!({
            "model_list": [{"model_name": "a", "litellm_params": {"model": "openai/x"}}],
            "general_settings": {}, "litellm_settings": {}, "environment_variables": {},
        });
        let [part, name] = [
            ["/model_list/0/litellm_params", "api_key"],
            ["/model_list/0/litellm_params", "aws_secret_access_key"],
            ["/model_list/0/litellm_params", "extra_headers"],
            ["/model_list/0/litellm_params", "api_base"],
            ["/general_settings", "master_key"],
            ["/general_settings", "database_url"],
            ["/litellm_settings", "cache_params"],
            ["/environment_variables", "OPENAI_API_KEY"],
        ][at];
        let value = match name {
            "extra_headers" => json!({"Authorization": key}),
            "api_base" => json!(format!("https://x:{key}@host/v1")),
            "cache_params" => json!({"password": key}),
            _ => json!(key),
        };
        whole.pointer_mut(part).unwrap()[name] = value;
        let imported = translate("made.yaml", &whole.to_string()).unwrap();
        prop_assert!(!imported.text.contains(&key), "{}", imported.text);
    }
}

proptest! {
    // Each reads all prices.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn check_finds_it_fine(whole in configuration()) {
        if let Some((text, made)) = imported(&whole) {
            let flaws = flaws(&made);
            prop_assert!(flaws.is_empty(), "{:?}\n{}\n{}", flaws, text, made);
        }
    }
}
