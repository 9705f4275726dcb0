//! Where is a deployment asked, and with which key? From LiteLLM's names of providers to tollgate's presets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::{HeaderName, HeaderValue};

use super::marks::{Marks, Note};
use super::names::{Address, Known, OTHER, adapted, guessed, known};
use super::yaml::Node;
use crate::provider::site::Base;

/// A server and how it is asked: what `[providers.NAME]` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    pub preset: &'static str,
    pub base_url: Option<String>,
    pub api_key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub timeouts: BTreeMap<&'static str, u64>,
    pub tries: Option<u64>,
    pub cooldown: Option<String>,
}

/// A target: whom to ask, and for what.
#[derive(Debug)]
pub(super) struct Place {
    pub site: Site,
    /// What was there to be told of it.
    pub notes: Vec<Note>,
    /// LiteLLM's name of the provider.
    pub prefix: String,
    /// As the provider calls it.
    pub model: String,
}

/// Keys that stand in the file itself are to be put into variables: each gets one, and none is ever written.
#[derive(Default)]
pub(super) struct Secrets {
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

impl Secrets {
    /// Notes every variable that the file names, so that no other is called so.
    pub(super) fn take_names(&mut self, node: &Node) {
        self.taken.extend(node.variable().map(str::to_owned));
        node.elements()
            .iter()
            .for_each(|node| self.take_names(node));
        node.members()
            .iter()
            .for_each(|(_, node)| self.take_names(node));
    }

    /// The variable for a key; the same for the same key.
    pub(super) fn name(&mut self, secret: &str, like: &str) -> String {
        if let Some(known) = self.names.get(secret) {
            return known.clone();
        }
        let like: String = like
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        let numbered = (1..).map(|n| format!("{like}_{n}"));
        let mut free = numbered.filter(|name| !self.taken.contains(name));
        let name = free.next().unwrap_or(like);
        self.taken.insert(name.clone());
        self.names.insert(secret.to_owned(), name.clone());
        name
    }
}

/// What is written of one deployment, and what it needs to be understood.
pub(super) struct Reading<'r> {
    pub marks: &'r mut Marks,
    pub secrets: &'r mut Secrets,
    /// What `environment_variables` sets.
    pub variables: &'r BTreeMap<String, String>,
}

impl Reading<'_> {
    /// Whom `litellm_params` ask; or why nobody can be asked.
    pub(super) fn place(&mut self, params: &Node) -> Result<Place, String> {
        let node = params.get("model");
        let written = node.and_then(Node::text).filter(|name| !name.is_empty());
        let (Some(node), Some(written)) = (node, written) else {
            return Err("it names no `model`, so there is nobody to ask".to_owned());
        };
        if node.variable().is_some() {
            return Err(
                "its `model` is read from a variable; write the model's name instead".to_owned(),
            );
        }
        let mut notes = Vec::new();
        let custom = params.get("custom_llm_provider").and_then(Node::text);
        let base = params.get("api_base").or_else(|| params.get("base_url"));
        let base = base.filter(|node| !node.is_null());
        let split = written.split_once('/').filter(|(_, rest)| !rest.is_empty());
        let (prefix, model) = match (custom, split) {
            (Some(custom), Some((first, rest))) if custom == first => (custom, rest),
            (Some(custom), _) => (custom, written),
            (None, Some((first, rest))) => (first, rest),
            (None, None) => match guessed(written) {
                Some(prefix) => {
                    let text = format!("no provider is named; by its name it is {prefix}'s");
                    notes.push(self.marks.approximate(node, text));
                    (prefix, written)
                }
                None if base.is_some() => ("openai_like", written),
                None => {
                    return Err(format!(
                        "`{written}` names no provider; write \"provider/model\""
                    ));
                }
            },
        };
        let (prefix, known) = (prefix.to_owned(), known(prefix, model, base.is_some())?);
        self.marks.exact(node, "the target's name");
        if let Some(custom) = params.get("custom_llm_provider") {
            self.marks.exact(custom, "the target's provider");
        }
        let mut place = Place {
            site: Site {
                preset: known.1,
                ..Site::default()
            },
            notes,
            model: self.model(node, &prefix, model),
            prefix,
        };
        self.base(params, base, known, &mut place)?;
        self.key(params, known, &mut place);
        self.headers(params, &mut place);
        Ok(place)
    }

    /// As its provider calls it.
    fn model(&mut self, node: &Node, prefix: &str, model: &str) -> String {
        match prefix {
            "fireworks_ai" if !model.contains('/') && !model.contains('*') => {
                self.marks
                    .exact(node, "the target's name, by its whole path");
                format!("accounts/fireworks/models/{model}")
            }
            "huggingface" => {
                let text = "asked at the router, which may call it `model:provider`";
                self.marks.approximate(node, text);
                model.to_owned()
            }
            _ => model.to_owned(),
        }
    }

    fn base(
        &mut self,
        params: &Node,
        base: Option<&Node>,
        known: Known,
        place: &mut Place,
    ) -> Result<(), String> {
        let (prefix, preset, _, address) = known;
        if let Some(version) = params.get("api_version") {
            let text = "the v1 endpoint of Azure takes no `api_version`";
            place.notes.push(self.marks.approximate(version, text));
        }
        let Some(node) = base else {
            if address == Address::Azure || preset == OTHER || preset == "litellm" {
                return Err(format!(
                    "it names no `api_base`; write it as base_url of a provider with preset = \"{preset}\""
                ));
            }
            if preset == "anthropic-openai" {
                let text = "asked at Anthropic's OpenAI endpoint";
                let model = params.get("model").unwrap_or(params);
                place.notes.push(self.marks.approximate(model, text));
            }
            return Ok(());
        };
        let written = match node.variable() {
            Some(name) => self.variables.get(name).map(String::as_str),
            None => node.text(),
        };
        let url = written.map(|url| adapted(url, address));
        let url = url.filter(|url| Base::parse(url, Path::new("")).is_ok());
        let (url, note) = match (url, node.variable()) {
            (Some(url), _) => (url, self.address(node, address)),
            (None, Some(name)) => {
                let text = match address {
                    Address::Azure => {
                        format!("write the address that {name} holds, with /openai/v1 behind it")
                    }
                    _ => format!("write the address that {name} holds, with its /v1"),
                };
                (nowhere(name), Some(self.marks.manual(node, text)))
            }
            (None, None) => {
                let text = "its `api_base` is no address that tollgate takes (it has a user name, a password or a query, perhaps): write base_url";
                (nowhere(prefix), Some(self.marks.manual(node, text)))
            }
        };
        place.notes.extend(note);
        if preset == "openai" && !url.starts_with("https://api.openai.com/") {
            place.site.preset = OTHER;
        }
        place.site.base_url = Some(url);
        Ok(())
    }

    /// What is to be told of an address that was read.
    fn address(&mut self, node: &Node, address: Address) -> Option<Note> {
        let text = match address {
            Address::Same => {
                self.marks.exact(node, "its provider's `base_url`");
                return None;
            }
            Address::Anthropic => "asked at /v1/chat/completions there, not at /v1/messages",
            Address::Azure => "asked at the v1 endpoint, /openai/v1",
            Address::Bare => "asked in OpenAI's format, below /v1",
        };
        Some(self.marks.approximate(node, text))
    }

    fn key(&mut self, params: &Node, known: Known, place: &mut Place) {
        let (prefix, _, variable, _) = known;
        let is_usual = place.site.preset != OTHER && !variable.is_empty();
        let usual = is_usual.then(|| format!("env:{variable}"));
        let Some(node) = params.get("api_key") else {
            place.site.api_key = usual;
            return;
        };
        place.site.api_key = match (node.variable(), node.text()) {
            (Some(name), _) => {
                self.marks
                    .exact(node, format!("its provider's `api_key`, from {name}"));
                Some(format!("env:{name}"))
            }
            (None, None | Some("")) => {
                self.marks.exact(node, "none is written");
                usual
            }
            (None, Some(secret)) => {
                let name = self.secrets.name(secret, &format!("{prefix}_API_KEY"));
                let text = format!(
                    "the key itself stands in the file, line {}: put it into {name}",
                    node.line
                );
                place.notes.push(self.marks.manual(node, text));
                Some(format!("env:{name}"))
            }
        };
    }

    fn headers(&mut self, params: &Node, place: &mut Place) {
        if let Some(node) = params.get("organization") {
            self.header("openai-organization", node, place);
        }
        for name in ["extra_headers", "headers"] {
            for (name, node) in params.get(name).map(Node::members).unwrap_or_default() {
                self.header(name, node, place);
            }
        }
    }

    fn header(&mut self, name: &str, node: &Node, place: &mut Place) {
        let text = match (node.variable(), node.text()) {
            (Some(variable), _) => {
                format!("write the header `{name}` with what {variable} holds under `headers`")
            }
            (None, Some(value)) if is_plain(name, value) => {
                place.site.headers.push((name.to_owned(), value.to_owned()));
                self.marks
                    .exact(node, format!("its provider's `headers`, `{name}`"));
                return;
            }
            _ => format!(
                "the header `{name}` may hold a secret, or is none: write it under `headers`, or use `api_key`"
            ),
        };
        place.notes.push(self.marks.manual(node, text));
    }
}

/// Whether a header can be sent, and holds no secret by its name.
fn is_plain(name: &str, value: &str) -> bool {
    const TELLING: [&str; 7] = [
        "auth",
        "cookie",
        "key",
        "pass",
        "secret",
        "token",
        "credential",
    ];
    const OURS: [&str; 7] = [
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "te",
        "transfer-encoding",
    ];
    let lower = name.to_ascii_lowercase();
    let is_header =
        HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok();
    is_header && !OURS.contains(&&*lower) && !TELLING.iter().any(|word| lower.contains(word))
}

/// An address that nobody has, and that says what belongs there.
fn nowhere(name: &str) -> String {
    let name = slug(name);
    format!("https://{name}.invalid/v1")
}

/// A name of nothing but `a-z`, `0-9` and `-`.
pub(super) fn slug(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            ' '
        }
    };
    let words: String = text.chars().map(plain).take(60).collect();
    let words: Vec<&str> = words.split_whitespace().collect();
    match words.is_empty() {
        true => "x".to_owned(),
        false => words.join("-"),
    }
}
