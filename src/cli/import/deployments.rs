//! What does one entry of `model_list` say? Whom to ask, how much that takes and costs, and what it is for.

use std::collections::BTreeMap;

use super::marks::Note;
use super::prices::is_price;
use super::sites::{Place, Reading};
use super::toml::Value;
use super::yaml::Node;

/// What holds for every deployment that says nothing of its own.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// In milliseconds, as all times here.
    pub timeout: Option<u64>,
    pub stream_timeout: Option<u64>,
    pub tries: Option<u64>,
    pub cooldown: Option<String>,
    pub parallel: Option<u64>,
    /// LiteLLM holds to `rpm` and `tpm` instead of weighing by them.
    pub is_enforced: bool,
}

/// An entry that can be asked.
#[derive(Debug)]
pub(super) struct Deployment<'y> {
    /// Where it stands.
    pub entry: &'y Node,
    pub group: String,
    pub place: Place,
    /// By what LiteLLM would weigh it: `weight`, `rpm`, `tpm`.
    pub shares: [Option<String>; 3],
    pub order: Option<u64>,
    pub limits: BTreeMap<&'static str, u64>,
    pub price: BTreeMap<&'static str, String>,
    pub context: Option<u64>,
    pub max_output: Option<u64>,
    pub reasoning: bool,
    pub kind: Option<&'static str>,
    /// What a request gets that does not say it.
    pub defaults: Vec<(String, Value)>,
    pub drops: Vec<String>,
    /// To be told beside its target.
    pub notes: Vec<Note>,
}

/// LiteLLM's names of what a model is for.
const MODES: &[(&str, &str)] = &[
    ("chat", "chat"),
    ("completion", "chat"),
    ("responses", "chat"),
    ("embedding", "embedding"),
    ("audio_speech", "speech"),
    ("audio_transcription", "transcription"),
    ("image_generation", "image"),
    ("image_edit", "image"),
    ("moderation", "moderation"),
    ("rerank", "rerank"),
];

impl Reading<'_> {
    /// What an entry says; or nothing, where it can ask nobody. Its marks say why.
    pub(super) fn deployment<'y>(
        &mut self,
        entry: &'y Node,
        common: &Common,
    ) -> Option<Deployment<'y>> {
        let Some(group) = entry
            .get("model_name")
            .and_then(Node::text)
            .filter(|name| !name.is_empty())
        else {
            self.marks
                .unsupported(entry, "it has no `model_name` that clients could ask for");
            return None;
        };
        let place = match entry.get("litellm_params").filter(|node| !node.is_null()) {
            Some(params) => self.place(params),
            None => Err("it has no `litellm_params`, so there is nobody to ask".to_owned()),
        };
        let place = match place {
            Ok(place) => place,
            Err(why) => {
                self.marks.unsupported(entry, why);
                return None;
            }
        };
        let mut deployment = Deployment {
            entry,
            group: group.to_owned(),
            place,
            shares: [None, None, None],
            order: None,
            limits: BTreeMap::new(),
            price: BTreeMap::new(),
            context: None,
            max_output: None,
            reasoning: false,
            kind: None,
            defaults: Vec::new(),
            drops: Vec::new(),
            notes: Vec::new(),
        };
        // What it is for decides what its prices are of.
        let info = entry.get("model_info");
        if let Some(mode) = info.and_then(|info| info.get("mode")) {
            self.mode(mode, &mut deployment);
        }
        for (key, node) in entry
            .get("litellm_params")
            .map(Node::members)
            .unwrap_or_default()
        {
            self.param(key, node, common, &mut deployment);
        }
        for (key, node) in info.map(Node::members).unwrap_or_default() {
            self.info(key, node, common, &mut deployment);
        }
        for key in ["rpm", "tpm"] {
            if let Some(node) = entry.get(key) {
                self.limit(key, node, common, &mut deployment);
            }
        }
        deployment.settle(common);
        self.priced(entry, &mut deployment);
        Some(deployment)
    }

    fn mode(&mut self, node: &Node, deployment: &mut Deployment<'_>) {
        let mode = node.text().unwrap_or_default();
        match MODES.iter().find(|(name, _)| *name == mode) {
            Some((_, kind)) => {
                deployment.kind = Some(kind);
                self.marks.exact(node, "the model's `kind`");
            }
            None => {
                let text = "there is no kind of model like this one";
                deployment.notes.push(self.marks.unsupported(node, text));
            }
        }
    }

    fn info(&mut self, key: &str, node: &Node, common: &Common, deployment: &mut Deployment<'_>) {
        match key {
            "mode" => {}
            _ if node.is_null() => self.marks.exact(node, "nothing is set"),
            "max_tokens" | "max_output_tokens" | "max_input_tokens" => {
                self.length(key, node, deployment);
            }
            "supports_reasoning" => match node.truth() {
                Some(thinks) => {
                    deployment.reasoning = thinks;
                    self.marks.exact(node, "the target's `reasoning`");
                }
                None => self.unread(node, "true or false", deployment),
            },
            "rpm" | "tpm" => self.limit(key, node, common, deployment),
            "base_model" => self.base_model(node, deployment),
            _ if is_price(key) => self.price(key, node, deployment),
            _ => self.marks.tell("model_info", key, node),
        }
    }

    fn length(&mut self, key: &str, node: &Node, deployment: &mut Deployment<'_>) {
        let Some(tokens) = node.whole().filter(|n| (1..=1_000_000_000).contains(n)) else {
            return self.unread(node, "a number of tokens", deployment);
        };
        match key {
            "max_input_tokens" => {
                deployment.context = Some(tokens);
                self.marks.exact(node, "the target's `context`");
            }
            // The older name of the same, which the newer one overrides.
            "max_tokens" => {
                deployment.max_output.get_or_insert(tokens);
                self.marks.exact(node, "the target's `max_output`");
            }
            _ => {
                deployment.max_output = Some(tokens);
                self.marks.exact(node, "the target's `max_output`");
            }
        }
    }
}

impl Deployment<'_> {
    /// Takes what is common where nothing of its own is said.
    fn settle(&mut self, common: &Common) {
        let site = &mut self.place.site;
        let timeouts = &mut site.timeouts;
        if let Some(idle) = common.stream_timeout {
            timeouts.entry("idle").or_insert(idle);
        }
        let total = timeouts.get("total").copied().or(common.timeout);
        if let Some(total) = total {
            for clock in ["first_byte", "first_content", "total"] {
                timeouts.insert(clock, total);
            }
        }
        site.tries = site.tries.or(common.tries);
        if site.cooldown.is_none() {
            site.cooldown.clone_from(&common.cooldown);
        }
        if let Some(limit) = common.parallel {
            self.limits.entry("concurrency").or_insert(limit);
        }
    }

    /// Whether it stands for many models.
    pub(super) fn is_pattern(&self) -> bool {
        self.group.contains('*') || self.place.model.contains('*')
    }
}
