//! What does one of `litellm_params` say? Limits, clocks, tries, and what each request is sent with.

use super::amounts;
use super::deployments::{Common, Deployment};
use super::prices::is_price;
use super::sites::Reading;
use super::toml::Value;
use super::yaml::Node;

/// What a request says itself, and an entry says for requests that do not.
const SAMPLING: &[&str] = &[
    "frequency_penalty",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "seed",
    "service_tier",
    "stop",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
    "verbosity",
];

/// What is told of retries.
pub(super) const TRIES: &str = "`tries` of a provider: so often each target is asked, the first time included; LiteLLM counts over all of them";
/// What is told of the time for a try.
pub(super) const TIMEOUT: &str = "`timeouts` of a provider, for a whole try, streams included; LiteLLM's holds between a stream's pieces";
/// What is told of the time between pieces.
pub(super) const STREAM_TIMEOUT: &str =
    "`timeouts.idle` of a provider: between any two pieces of an answer, from its head on";
/// What is told of rests.
pub(super) const COOLDOWN: &str = "`cooldown` of a provider: the first rest of what fails again and again; each further one is twice as long, up to a minute";
/// What is told of parameters that are left out.
pub(super) const DROPS: &str = "always: a preset's rules leave out what its provider is known to refuse, and x-tollgate-dropped names it";

/// Whether requests are changed by it.
pub(super) fn is_rule(key: &str) -> bool {
    key == "additional_drop_params" || SAMPLING.contains(&key)
}

/// Tries are counted with the first, and there are at most ten.
pub(super) fn tries(retries: u64) -> u64 {
    retries.saturating_add(1).min(10)
}

impl Reading<'_> {
    pub(super) fn param(
        &mut self,
        key: &str,
        node: &Node,
        common: &Common,
        deployment: &mut Deployment<'_>,
    ) {
        match key {
            _ if node.is_null() && self.marks.is_open(node) => {
                self.marks.exact(node, "nothing is set");
            }
            "rpm" | "tpm" | "rpd" => {
                // Only here LiteLLM weighs by them.
                match key {
                    "rpm" => deployment.shares[1] = node.number(),
                    "tpm" => deployment.shares[2] = node.number(),
                    _ => {}
                }
                self.limit(key, node, common, deployment);
            }
            "max_parallel_requests" => self.parallel(node, deployment),
            "timeout" | "stream_timeout" => self.timeout(key, node, deployment),
            "max_retries" | "num_retries" => self.tries(node, deployment),
            "cooldown_time" => self.cooldown(node, deployment),
            "weight" => match node.number() {
                Some(share) => {
                    deployment.shares[0] = Some(share);
                    self.marks
                        .exact(node, "the target's `weight`, where the model has several");
                }
                None => self.unread(node, "a share", deployment),
            },
            "order" => match node.whole() {
                Some(order) => {
                    deployment.order = Some(order);
                    self.marks
                        .exact(node, "the target's `tier`, where the model has several");
                }
                None => self.unread(node, "a whole number", deployment),
            },
            "drop_params" => self.drop_params(node, deployment),
            "additional_drop_params" => self.drops(node, deployment),
            "max_budget" | "budget_duration" => {
                let text = "a budget is a key's, a team's, a provider's or everybody's: write `budget` under the provider, if all of its models share it";
                deployment.notes.push(self.marks.manual(node, text));
            }
            "litellm_credential_name" => {
                let text =
                    "write the key of that credential as `api_key` of the provider, by a variable";
                deployment.notes.push(self.marks.manual(node, text));
            }
            "base_model" => self.base_model(node, deployment),
            _ if SAMPLING.contains(&key) => self.default(key, node, deployment),
            _ if is_price(key) => self.price(key, node, deployment),
            _ => self.marks.tell("litellm_params", key, node),
        }
    }

    pub(super) fn unread(&mut self, node: &Node, wanted: &str, deployment: &mut Deployment<'_>) {
        let key = self.marks.name(node);
        let text = match node.variable() {
            Some(name) => {
                format!("`{key}` is read from {name}; {wanted} is expected: write it yourself")
            }
            None => format!(
                "`{key}` is {}, where {wanted} is expected: write it yourself",
                node.kind()
            ),
        };
        deployment.notes.push(self.marks.manual(node, text));
    }

    pub(super) fn limit(
        &mut self,
        key: &str,
        node: &Node,
        common: &Common,
        deployment: &mut Deployment<'_>,
    ) {
        let limit = node.whole().filter(|n| (1..=1_000_000_000_000).contains(n));
        let (Some(limit), name) = (limit, limit_named(key)) else {
            return self.unread(node, "a limit from 1 on", deployment);
        };
        if deployment.limits.contains_key(name) {
            return self
                .marks
                .exact(node, "it is written elsewhere in the entry, too");
        }
        deployment.limits.insert(name, limit);
        if common.is_enforced {
            self.marks
                .exact(node, format!("the target's `limits.{name}`"));
        } else {
            let text = "in LiteLLM `rpm` and `tpm` are weights at most; here they are limits, too";
            deployment.notes.push(self.marks.approximate(node, text));
        }
    }

    fn parallel(&mut self, node: &Node, deployment: &mut Deployment<'_>) {
        let Some(limit) = node.whole().filter(|n| (1..=1_000_000_000_000).contains(n)) else {
            return self.unread(node, "a limit from 1 on", deployment);
        };
        deployment.limits.insert("concurrency", limit);
        let text =
            "beyond it 16 requests wait, for 10s each; LiteLLM lets any number wait (`queue`)";
        deployment.notes.push(self.marks.approximate(node, text));
    }

    fn timeout(&mut self, key: &str, node: &Node, deployment: &mut Deployment<'_>) {
        let Some((millis, _)) = amounts::duration(node) else {
            return self.unread(node, "a time in seconds", deployment);
        };
        let text = if key == "timeout" {
            deployment.place.site.timeouts.insert("total", millis);
            TIMEOUT
        } else {
            deployment.place.site.timeouts.insert("idle", millis);
            STREAM_TIMEOUT
        };
        deployment
            .place
            .notes
            .push(self.marks.approximate(node, text));
    }

    fn tries(&mut self, node: &Node, deployment: &mut Deployment<'_>) {
        let Some(retries) = node.whole() else {
            return self.unread(node, "a whole number", deployment);
        };
        deployment.place.site.tries = Some(tries(retries));
        let note = self.marks.approximate(node, TRIES);
        deployment.place.notes.push(note);
    }

    fn cooldown(&mut self, node: &Node, deployment: &mut Deployment<'_>) {
        match amounts::duration(node) {
            Some((_, text)) => {
                deployment.place.site.cooldown = Some(text);
                deployment
                    .place
                    .notes
                    .push(self.marks.approximate(node, COOLDOWN));
            }
            None => self.unread(node, "a time in seconds", deployment),
        }
    }

    fn drop_params(&mut self, node: &Node, deployment: &mut Deployment<'_>) {
        match node.truth() {
            Some(_) => drop(self.marks.approximate(node, DROPS)),
            None => self.unread(node, "true or false", deployment),
        }
    }

    fn drops(&mut self, node: &Node, deployment: &mut Deployment<'_>) {
        for node in node.elements() {
            match node.text().filter(|name| !name.contains(['.', '['])) {
                Some(name) => {
                    deployment.drops.push(name.to_owned());
                    self.marks.exact(node, "`rules.drop` of the model");
                }
                None => {
                    let text = "`rules.drop` leaves out whole members, none within another";
                    self.marks.unsupported(node, text);
                }
            }
        }
        if self.marks.is_open(node) {
            self.unread(node, "a list of names", deployment);
        }
    }

    fn default(&mut self, key: &str, node: &Node, deployment: &mut Deployment<'_>) {
        let whole_or_text = |text: &str| match (node.truth(), number(text)) {
            (Some(is), _) => Value::bare(is),
            (None, Some(number)) => Value::Bare(number),
            (None, None) => Value::text(text),
        };
        let value = match (node.text(), node.variable()) {
            (Some(text), None) if key == "stop" => Some(Value::text(text)),
            (Some(text), None) => Some(whole_or_text(text)),
            _ => None,
        };
        match value {
            Some(value) => {
                deployment.defaults.push((key.to_owned(), value));
                self.marks
                    .exact(node, format!("`rules.default.{key}` of the model"));
            }
            None => self.unread(node, "a single value", deployment),
        }
    }

    pub(super) fn base_model(&mut self, node: &Node, deployment: &mut Deployment<'_>) {
        let text = match node.text() {
            Some(name) if node.variable().is_none() => format!(
                "what it costs is that of {name}, which a deployment's name does not say: write it as `price` of the target (`tollgate prices show`)"
            ),
            _ => "write what it costs as `price` of the target".to_owned(),
        };
        deployment.notes.push(self.marks.manual(node, text));
    }
}

fn limit_named(key: &str) -> &'static str {
    match key {
        "rpm" => "rpm",
        "tpm" => "tpm",
        _ => "rpd",
    }
}

fn number(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let is_number =
        unsigned.starts_with(|c: char| c.is_ascii_digit()) && unsigned.parse::<f64>().is_ok();
    let is_json = serde_json::from_str::<serde_json::Number>(text).is_ok();
    (is_number && is_json).then(|| text.to_owned())
}
