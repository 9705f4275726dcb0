//! What do `router_settings`, and what `litellm_settings` say of the same, hold for all models? Order, tries, clocks, fallbacks.

use super::Wrong;
use super::amounts;
use super::deployments::Common;
use super::marks::{Marks, Note};
use super::params::{COOLDOWN, STREAM_TIMEOUT, TIMEOUT, TRIES, tries};
use super::yaml::{Node, Value};

/// Who is asked instead of whom, and where that stands.
#[derive(Debug)]
pub(super) struct Fallback<'y> {
    /// `*` for all that have none of their own.
    pub from: String,
    pub to: Vec<(String, &'y Node)>,
}

/// A name that stands for another.
#[derive(Debug)]
pub(super) struct Alias<'y> {
    pub name: String,
    pub of: String,
    pub node: &'y Node,
}

/// What a provider, by LiteLLM's name, may be paid.
#[derive(Debug)]
pub(super) struct Allowed<'y> {
    pub prefix: String,
    pub usd: String,
    pub per: &'static str,
    pub notes: Vec<Note>,
    pub node: &'y Node,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Routing<'y> {
    pub common: Common,
    /// Beside what is common to providers: to be told with them.
    pub notes: Vec<Note>,
    pub strategy: &'static str,
    pub strategy_notes: Vec<Note>,
    pub fallbacks: Vec<Fallback<'y>>,
    pub overflow: Vec<Fallback<'y>>,
    pub content: Vec<Fallback<'y>>,
    pub aliases: Vec<Alias<'y>>,
    pub budgets: Vec<Allowed<'y>>,
}

impl<'y> Routing<'y> {
    pub(super) fn read(root: &'y Node, marks: &mut Marks) -> Result<Self, Wrong> {
        let mut routing = Self {
            common: Common::default(),
            notes: Vec::new(),
            strategy: "weight",
            strategy_notes: Vec::new(),
            fallbacks: Vec::new(),
            overflow: Vec::new(),
            content: Vec::new(),
            aliases: Vec::new(),
            budgets: Vec::new(),
        };
        for section in ["router_settings", "litellm_settings"] {
            for (key, node) in root.get(section).map(Node::members).unwrap_or_default() {
                if !node.is_null() {
                    routing.shared(key, node, marks)?;
                    if section == "router_settings" {
                        routing.own(key, node, marks)?;
                    }
                }
            }
        }
        for (key, node) in root
            .get("router_settings")
            .map(Node::members)
            .unwrap_or_default()
        {
            marks.tell("router_settings", key, node);
        }
        Ok(routing)
    }

    /// What both sections can say. The router's own goes first.
    fn shared(&mut self, key: &str, node: &'y Node, marks: &mut Marks) -> Result<(), Wrong> {
        match key {
            "fallbacks" => pairs(node, &mut self.fallbacks, marks)?,
            "context_window_fallbacks" => pairs(node, &mut self.overflow, marks)?,
            "content_policy_fallbacks" => pairs(node, &mut self.content, marks)?,
            "default_fallbacks" => {
                let to = names(node, marks);
                let from = "*".to_owned();
                self.fallbacks.push(Fallback { from, to });
            }
            "num_retries" => match node.whole() {
                Some(_) if self.common.tries.is_some() => marks.exact(node, SAID),
                Some(retries) => {
                    self.common.tries = Some(tries(retries));
                    self.notes.push(marks.approximate(node, TRIES));
                }
                None => drop(marks.manual(
                    node,
                    "it is no whole number: write `tries` with each provider",
                )),
            },
            "timeout" | "request_timeout" => match amounts::duration(node) {
                Some(_) if self.common.timeout.is_some() => marks.exact(node, SAID),
                Some((millis, _)) => {
                    self.common.timeout = Some(millis);
                    self.notes.push(marks.approximate(node, TIMEOUT));
                }
                None => drop(marks.manual(
                    node,
                    "it is no time in seconds: write `timeouts` with each provider",
                )),
            },
            _ => {}
        }
        Ok(())
    }

    fn own(&mut self, key: &str, node: &'y Node, marks: &mut Marks) -> Result<(), Wrong> {
        match key {
            "stream_timeout" => match amounts::duration(node) {
                Some((millis, _)) => {
                    self.common.stream_timeout = Some(millis);
                    self.notes.push(marks.approximate(node, STREAM_TIMEOUT));
                }
                None => drop(marks.manual(
                    node,
                    "it is no time in seconds: write `timeouts` with each provider",
                )),
            },
            "cooldown_time" => {
                // What never rests stays so.
                match amounts::duration(node) {
                    Some((_, text)) if self.common.cooldown.is_none() => {
                        self.common.cooldown = Some(text);
                    }
                    _ => {}
                }
                self.notes.push(marks.approximate(node, COOLDOWN));
            }
            "disable_cooldowns" => match node.truth() {
                Some(true) => {
                    self.common.cooldown = Some("0s".to_owned());
                    marks.exact(node, "`cooldown` of each provider");
                }
                Some(false) => marks.exact(node, "what fails again and again rests"),
                None => {}
            },
            "default_max_parallel_requests" => {
                if let Some(limit) = node.whole().filter(|n| (1..=1_000_000_000_000).contains(n)) {
                    self.common.parallel = Some(limit);
                    let text = "`limits.concurrency` of each target; beyond it 16 requests wait, for 10s each";
                    self.notes.push(marks.approximate(node, text));
                }
            }
            "enable_pre_call_checks" => {
                let text =
                    "always: what certainly does not fit a target's `context` is not sent there";
                marks.approximate(node, text);
            }
            "optional_pre_call_checks" => self.checks(node, marks),
            "routing_strategy" => self.strategy(node, marks),
            "model_group_alias" => self.alias(node, marks)?,
            "provider_budget_config" => self.budget(node, marks)?,
            _ => {}
        }
        Ok(())
    }

    fn strategy(&mut self, node: &Node, marks: &mut Marks) {
        let (strategy, text) = match node.text().unwrap_or_default() {
            "simple-shuffle" => ("weight", ""),
            "least-busy" => ("least_busy", ""),
            "latency-based-routing" => (
                "latency",
                "of two that chance names the one whose first content comes sooner",
            ),
            "cost-based-routing" => (
                "cost",
                "the cheapest for the request at hand, not by the token",
            ),
            "usage-based-routing" | "usage-based-routing-v2" => {
                self.common.is_enforced = true;
                (
                    "least_busy",
                    "LiteLLM asks whoever was used least in this minute, tollgate whoever has the fewest requests under way",
                )
            }
            _ => {
                let text = "there is no such strategy: choose one of docs/routing.md";
                self.strategy_notes.push(marks.manual(node, text));
                return;
            }
        };
        self.strategy = strategy;
        match text {
            "" => marks.exact(
                node,
                format!("strategy = \"{strategy}\" of models with several targets"),
            ),
            text => self.strategy_notes.push(marks.approximate(node, text)),
        }
    }

    fn checks(&mut self, node: &Node, marks: &mut Marks) {
        for node in node.elements() {
            match node.text().unwrap_or_default() {
                "enforce_model_rate_limits" => {
                    self.common.is_enforced = true;
                    marks.exact(node, "`limits` of targets hold");
                }
                "router_budget_limiting" => marks.exact(node, "`budget` of providers holds"),
                "responses_api_deployment_check" => {
                    marks.exact(node, "what goes on from a response goes to who keeps it");
                }
                "prompt_caching" | "deployment_affinity" | "session_affinity" => {
                    let text = "write strategy = \"sticky\" with the models that are to stay where a conversation was";
                    self.strategy_notes.push(marks.manual(node, text));
                }
                _ => drop(marks.unsupported(node, "there is no such check here")),
            }
        }
    }

    fn alias(&mut self, node: &'y Node, marks: &mut Marks) -> Result<(), Wrong> {
        must_be_map(node, "model_group_alias")?;
        for (name, node) in node.members() {
            let of = match &node.value {
                Value::Map(_) => node.get("model"),
                _ => Some(node),
            };
            if let Some(hidden) = node.get("hidden") {
                let text = "a model is listed to whoever may ask for it; write `models` with the keys that may not";
                match hidden.truth() {
                    Some(false) => marks.exact(hidden, "it is listed"),
                    _ => drop(marks.unsupported(hidden, text)),
                }
            }
            let Some((of, node)) = of.and_then(|node| Some((node.text()?, node))) else {
                marks.manual(node, "it names no model: write one of this name");
                continue;
            };
            self.aliases.push(Alias {
                name: name.clone(),
                of: of.to_owned(),
                node,
            });
        }
        Ok(())
    }

    fn budget(&mut self, node: &'y Node, marks: &mut Marks) -> Result<(), Wrong> {
        must_be_map(node, "provider_budget_config")?;
        for (prefix, node) in node.members() {
            let limit = node.get("budget_limit").or_else(|| node.get("max_budget"));
            let time = node
                .get("time_period")
                .or_else(|| node.get("budget_duration"));
            let usd = limit.and_then(amounts::dollars);
            let window = time.and_then(Node::text).and_then(amounts::window);
            let (Some(usd), Some((per, is_same))) = (usd, window) else {
                marks.manual(
                    node,
                    "it is no amount in a time: write `budget` with the provider",
                );
                continue;
            };
            let mut notes = Vec::new();
            if let (false, Some(time)) = (is_same, time) {
                notes.push(marks.approximate(
                    time,
                    format!("the next longer window that there is, a {per}"),
                ));
            }
            self.budgets.push(Allowed {
                prefix: prefix.clone(),
                usd,
                per,
                notes,
                node,
            });
        }
        Ok(())
    }
}

/// What is told of what another section says as well.
const SAID: &str = "router_settings says it, and that goes first in LiteLLM";

fn must_be_map(node: &Node, name: &str) -> Result<(), Wrong> {
    match &node.value {
        Value::Map(_) => Ok(()),
        _ => Err(Wrong::at(
            node.line,
            format!("`{name}` is {}; it is a map of names", node.kind()),
        )),
    }
}

/// `[{a: [b, c]}, …]`, or `{a: [b, c]}`.
fn pairs<'y>(node: &'y Node, all: &mut Vec<Fallback<'y>>, marks: &mut Marks) -> Result<(), Wrong> {
    let maps = match &node.value {
        Value::List(list) => list.iter().collect(),
        Value::Map(_) => vec![node],
        Value::Scalar { .. } => {
            let message = format!(
                "fallbacks are {}; they are a list such as [{{\"a\": [\"b\"]}}]",
                node.kind()
            );
            return Err(Wrong::at(node.line, message));
        }
    };
    for map in maps {
        if !matches!(map.value, Value::Map(_)) {
            let message = format!(
                "a fallback is {}; it is a map such as {{\"a\": [\"b\"]}}",
                map.kind()
            );
            return Err(Wrong::at(map.line, message));
        }
        for (from, node) in map.members() {
            let to = names(node, marks);
            let from = from.clone();
            all.push(Fallback { from, to });
        }
    }
    Ok(())
}

/// The names of a list, or a single one.
fn names<'y>(node: &'y Node, marks: &mut Marks) -> Vec<(String, &'y Node)> {
    let all: Vec<&Node> = match &node.value {
        Value::List(list) => list.iter().collect(),
        _ => vec![node],
    };
    let mut named = Vec::new();
    for node in all {
        match node.text() {
            Some(name) => named.push((name.to_owned(), node)),
            None => {
                let text = "another model is asked for the same request: write a model of its own with `rules.set`, and name that";
                marks.manual(node, text);
            }
        }
    }
    named
}
