//! What does a model cost? LiteLLM's prices by the token, as tollgate's by the million.

use super::amounts;
use super::deployments::Deployment;
use super::sites::Reading;
use super::yaml::Node;

/// LiteLLM's names of what a model costs, and of which class that is a price; those of units only for what is billed so.
const PRICES: &[(&str, &str, &str)] = &[
    ("input_cost_per_token", "input", ""),
    ("cache_read_input_token_cost", "cached", ""),
    ("cache_creation_input_token_cost", "cache_write", ""),
    (
        "cache_creation_input_token_cost_above_1hr",
        "cache_write_1h",
        "",
    ),
    ("input_cost_per_audio_token", "audio_input", ""),
    ("input_cost_per_image_token", "image_input", ""),
    ("output_cost_per_token", "output", ""),
    ("output_cost_per_reasoning_token", "reasoning", ""),
    ("output_cost_per_audio_token", "audio_output", ""),
    ("output_cost_per_image_token", "image_output", ""),
    ("input_cost_per_character", "characters", "speech"),
    ("input_cost_per_second", "seconds", "transcription"),
    ("output_cost_per_second", "seconds", "transcription"),
    ("output_cost_per_image", "images", "image"),
    ("input_cost_per_image", "images", "image"),
    ("input_cost_per_query", "searches", "rerank"),
];

impl Reading<'_> {
    pub(super) fn price(&mut self, key: &str, node: &Node, deployment: &mut Deployment<'_>) {
        let Some((_, class, kind)) = PRICES.iter().find(|(name, ..)| *name == key) else {
            let text = match key.contains("_above_") {
                true => "a price for long prompts: write it as `tiers` of the target's `price`",
                false => {
                    "tollgate has no such class of what is used; write `price` of the target without it"
                }
            };
            deployment.notes.push(self.marks.manual(node, text));
            return;
        };
        if !kind.is_empty() && deployment.kind != Some(*kind) {
            let text = format!(
                "{class} are billed where a model's `kind` is \"{kind}\"; write both, if it is"
            );
            deployment.notes.push(self.marks.manual(node, text));
            return;
        }
        match amounts::price(class, node) {
            Some((price, is_exact)) => {
                deployment.price.entry(class).or_insert(price);
                let text = format!("the target's `price.{class}`");
                match is_exact {
                    true => self.marks.exact(node, text),
                    false => {
                        let text = format!("{text}, rounded to a trillionth of a dollar");
                        deployment.notes.push(self.marks.approximate(node, text));
                    }
                }
            }
            None => self.unread(node, "a price", deployment),
        }
    }

    /// A price of tokens is one of input and of output, or it is none.
    pub(super) fn priced(&mut self, entry: &Node, deployment: &mut Deployment<'_>) {
        let price = &deployment.price;
        let is_of_tokens = PRICES
            .iter()
            .any(|(_, class, kind)| kind.is_empty() && price.contains_key(class));
        let [input, output] = ["input", "output"].map(|class| price.contains_key(class));
        if !is_of_tokens || (input && output) {
            return;
        }
        let has_no_output = matches!(deployment.kind, Some("embedding" | "rerank" | "moderation"));
        if has_no_output && input {
            deployment.price.insert("output", "0".to_owned());
            return;
        }
        deployment.price.clear();
        let text = "a price is one of input and of output, and one of them is missing: write both as `price` of the target";
        for part in ["litellm_params", "model_info"] {
            for (key, node) in entry.get(part).map(Node::members).unwrap_or_default() {
                if is_price(key) && !node.is_null() {
                    deployment.notes.push(self.marks.manual(node, text));
                }
            }
        }
    }
}

/// Whether a setting is a price.
pub(super) fn is_price(key: &str) -> bool {
    key.contains("_cost_per_") || key.contains("_token_cost")
}
