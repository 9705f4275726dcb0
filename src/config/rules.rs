//! What providers want different, as it is written under `rules`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What is changed in a request before a provider sees it, applied in the order of these fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Members it must not be sent; the request is refused.
    pub refuse: Vec<String>,
    /// Old name to new name.
    pub rename: BTreeMap<String, String>,
    /// Members to leave out.
    pub drop: Vec<String>,
    /// Every member it knows, by its new name: asked by `unknown`.
    pub known: Vec<String>,
    /// What becomes of members that are not in `known`. Default: they are forwarded.
    pub unknown: Option<Unknown>,
    /// Values for members the client does not give.
    pub default: BTreeMap<String, serde_json::Value>,
    /// Values whatever the client gives.
    pub set: BTreeMap<String, serde_json::Value>,
    /// The lowest and the highest value of a number.
    pub clamp: BTreeMap<String, [f64; 2]>,
    /// What is changed in each message.
    pub messages: MessageRules,
}

/// What becomes of members that a provider is not known to know.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// They are left out.
    Drop,
    /// They are sent.
    Forward,
    /// The request is refused.
    Refuse,
}

/// What is changed in each of a request's messages. A switch that is not given is off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessageRules {
    /// Old role to new role.
    pub roles: BTreeMap<String, String>,
    /// Make one string of a `content` that is a list of nothing but text parts.
    pub join_text: Option<bool>,
    /// Make an empty string of a `content` that is `null`.
    pub empty_content: Option<bool>,
    /// Members to leave out.
    pub drop: Vec<String>,
    /// The only members not to leave out; empty: all of them.
    pub known: Vec<String>,
    /// Leave out members that are `null`.
    pub drop_nulls: Option<bool>,
}
