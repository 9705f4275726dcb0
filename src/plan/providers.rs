//! From `[providers]` to providers: URLs taken apart, headers checked, rules made ready, credentials read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::Passage;
use super::compile::{Compiler, quoted};
use crate::config::{self, Diagnostic};
use crate::protocol::Protocol as _;
use crate::protocol::openai::OpenAi;
use crate::provider::rules::{MessageRules, Rules};
use crate::provider::{Origin, Provider, Timeouts, WrongUrl};

/// Headers that are tollgate's to write.
const OWN_HEADERS: [&str; 8] = [
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "te",
    "transfer-encoding",
];

impl<'c> Compiler<'c> {
    pub(super) fn providers(&mut self) -> HashMap<Box<str>, Passage> {
        let mut providers = HashMap::new();
        for (name, entry) in &self.config.providers {
            if let Some(provider) = self.provider(name, entry) {
                // Models that nobody named share one label: what a client writes is never one.
                let label = format!("{name}/*");
                let passage = Passage {
                    provider: Arc::new(provider),
                    meters: self.metrics.route(&label),
                    target_meters: self.metrics.target(&label, &label),
                };
                providers.insert(name.as_str().into(), passage);
            }
        }
        providers
    }

    fn provider(&mut self, name: &'c str, entry: &config::Provider) -> Option<Provider> {
        let Some(url) = &entry.base_url else {
            // A provider whose preset is unknown has its flaw already, and that comes first.
            self.flaw(["providers", name, "base_url"], "`base_url` is missing");
            return None;
        };
        let origin = match Origin::parse(url, &OpenAi) {
            Ok(origin) => Some(origin),
            Err(wrong) => {
                self.flaw(
                    ["providers", name, "base_url"],
                    match wrong {
                        // What is wrong with it is a secret in it.
                        WrongUrl::UserInfo | WrongUrl::Query => wrong.to_string(),
                        _ => format!("`{url}` {wrong}"),
                    },
                );
                None
            }
        };
        let headers = self.headers(name, entry);
        let forward = self.forward(name, entry);
        let rules = self.rules(&["providers", name, "rules"], &entry.rules);
        let credential = match &entry.api_key {
            None => None,
            Some(secret) => {
                match secret.reveal(self.surroundings.folder, self.surroundings.environment) {
                    Ok(key) => {
                        let credential = OpenAi.credential(&key);
                        if credential.is_none() {
                            let message = "the key has characters that no header can carry";
                            self.flaw(["providers", name, "api_key"], message);
                        }
                        credential
                    }
                    Err(missing) => {
                        self.unavailable.insert(name, missing.to_string());
                        return None;
                    }
                }
            }
        };
        let t = &entry.timeouts;
        Some(Provider {
            origin: origin?,
            protocol: &OpenAi,
            credential,
            headers,
            forward,
            timeouts: Timeouts {
                connect: t.connect,
                first_byte: t.first_byte,
                first_content: t.first_content,
                idle: t.idle,
                total: t.total,
            },
            tries: entry.tries,
            done_marker: entry.done_marker,
            stream_usage: entry.stream_usage,
            discover: entry.discover,
            rules,
        })
    }

    fn headers(&mut self, name: &str, entry: &config::Provider) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (header, value) in &entry.headers {
            let at = ["providers", name, "headers", header];
            match (self.header_name(at, header), HeaderValue::from_str(value)) {
                (Some(header), Ok(value)) => headers.push((header, value)),
                (Some(_), Err(_)) => {
                    self.flaw(at, "the value has characters that no header can carry");
                }
                (None, _) => {}
            }
        }
        headers
    }

    fn forward(&mut self, name: &str, entry: &config::Provider) -> Vec<HeaderName> {
        let mut forward = Vec::new();
        for (n, header) in entry.forward.iter().enumerate() {
            let n = n.to_string();
            let at = ["providers", name, "forward", &n];
            if ["authorization", "x-api-key", "api-key"]
                .iter()
                .any(|own| header.eq_ignore_ascii_case(own))
            {
                self.flaw(
                    at,
                    format!("`{header}` carries the caller's key, which never travels on"),
                );
            } else if let Some(header) = self.header_name(at, header) {
                forward.push(header);
            }
        }
        forward
    }

    fn header_name(&mut self, at: [&str; 4], name: &str) -> Option<HeaderName> {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            self.flaw(at, format!("`{name}` is not a header's name"));
            return None;
        };
        if OWN_HEADERS.contains(&header.as_str()) {
            self.flaw(at, format!("`{name}` is tollgate's own to write"));
            return None;
        }
        Some(header)
    }

    pub(super) fn rules(&mut self, at: &[&str], entry: &config::Rules) -> Rules {
        for (member, [low, high]) in &entry.clamp {
            if low.partial_cmp(high).is_none_or(std::cmp::Ordering::is_gt) {
                let at = at.iter().copied().chain(["clamp", member]);
                let message = format!("the lowest value, {low}, is above the highest, {high}");
                self.flaws.push(Diagnostic::new(at, message));
            }
        }
        let values = |values: &BTreeMap<String, serde_json::Value>| -> Vec<(String, Bytes)> {
            values
                .iter()
                .map(|(name, value)| (name.clone(), Bytes::from(value.to_string())))
                .collect()
        };
        Rules {
            refuse: entry.refuse.clone(),
            rename: entry.rename.clone().into_iter().collect(),
            drop: entry.drop.clone(),
            default: values(&entry.default),
            set: values(&entry.set),
            clamp: entry
                .clamp
                .clone()
                .into_iter()
                .filter(|(_, [low, high])| low <= high)
                .collect(),
            messages: MessageRules {
                roles: entry
                    .messages
                    .roles
                    .iter()
                    .map(|(old, new)| (old.clone(), quoted(new)))
                    .collect(),
                drop: entry.messages.drop.clone(),
                drop_nulls: entry.messages.drop_nulls,
            },
        }
    }
}
