//! From `[providers]` to providers: headers checked, credentials read.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};

use super::Passage;
use super::compile::Compiler;
use super::money;
use crate::config::{self, Auth};
use crate::protocol::openai::OpenAi;
use crate::provider::{OnDisconnect, Provider, Timeouts, Voices};
use crate::usage::book::Book;

/// Headers that are tollgate's to write.
pub(super) const OWN_HEADERS: [&str; 9] = [
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "proxy-authorization",
    "te",
    "transfer-encoding",
];

/// Headers that hold a credential: a request has one, and it is the gateway's.
const CREDENTIALS: [&str; 5] = [
    "api-key",
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
];

impl<'c> Compiler<'c> {
    pub(super) fn providers(&mut self, book: &Book) -> HashMap<Box<str>, Passage> {
        let mut providers = HashMap::new();
        for (name, entry) in &self.config.providers {
            let rules = self.rules(&["providers", name, "rules"], &entry.rules, &entry.rules);
            let rules_for = self.rules_for(name, entry);
            let section = self.section(name, entry, book);
            let at = ["providers", name, "budget"];
            let budget = money::budget(&at, entry.budget.as_ref(), &mut self.flaws);
            if let Some(provider) = self.provider(name, entry) {
                // Models that nobody named share one label: what a client writes is never one.
                let label = format!("{name}/*");
                let terms = self.common_terms(name, entry, budget);
                let passage = Passage {
                    health: self.healths.of(&provider.name, &label),
                    allowance: self.healths.allowance(&label),
                    provider: Arc::new(provider),
                    rules: Arc::new(rules),
                    rules_for,
                    section,
                    terms,
                    meters: self.metrics.route(&label),
                    target_meters: self.metrics.target(&label, &label),
                };
                providers.insert(name.as_str().into(), passage);
            }
        }
        providers
    }

    fn provider(&mut self, name: &'c str, entry: &config::Provider) -> Option<Provider> {
        let origin = self.origin(name, entry, &OpenAi);
        let headers = self.headers(name, entry);
        let forward = self.forward(name, entry);
        let credential = match &entry.api_key {
            None => None,
            Some(secret) => {
                match secret.reveal(self.surroundings.folder, self.surroundings.environment) {
                    Ok(key) => {
                        let credential = credential(entry.auth, &key);
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
            name: name.into(),
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
            cooldown: entry.cooldown,
            prelude: entry.prelude.unwrap_or(t.first_content),
            keepalive: Some(entry.keepalive).filter(|every| !every.is_zero()),
            done_marker: entry.done_marker,
            on_disconnect: entry.on_disconnect.map(|written| match written {
                config::OnDisconnect::Abort => OnDisconnect::Abort,
                config::OnDisconnect::Finish(most) => OnDisconnect::Finish(most),
            }),
            stream_usage: entry.stream_usage,
            discover: entry.discover,
            voices: match &entry.voices {
                config::Voices::Unknown => Voices::Asked(false),
                config::Voices::Asked => Voices::Asked(true),
                config::Voices::Listed(names) => {
                    Voices::Listed(names.iter().map(|name| name.as_str().into()).collect())
                }
            },
        })
    }

    fn headers(&mut self, name: &str, entry: &config::Provider) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (header, value) in &entry.headers {
            let at = ["providers", name, "headers", header];
            match (self.header_name(at, header), HeaderValue::from_str(value)) {
                (Some(header), Ok(mut value)) => {
                    let is_credential = CREDENTIALS.contains(&header.as_str());
                    if is_credential && entry.api_key.is_some() {
                        let message = format!(
                            "`{header}` would be a second credential beside `api_key`; `auth` says which header that goes in"
                        );
                        self.flaw(at, message);
                    }
                    value.set_sensitive(is_credential);
                    headers.push((header, value));
                }
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
            if CREDENTIALS
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
}

/// The header that shows a key to a provider. None if no header can carry it.
fn credential(auth: Auth, key: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = match auth {
        Auth::ApiKey => (
            HeaderName::from_static("api-key"),
            HeaderValue::from_str(key),
        ),
        Auth::Bearer => {
            let value = HeaderValue::from_str(&format!("Bearer {key}"));
            (header::AUTHORIZATION, value)
        }
        Auth::XApiKey => (
            HeaderName::from_static("x-api-key"),
            HeaderValue::from_str(key),
        ),
    };
    let mut value = value.ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_where_it_belongs_and_is_not_shown() {
        for (auth, name, shown) in [
            (Auth::ApiKey, "api-key", "sk-secret"),
            (Auth::Bearer, "authorization", "Bearer sk-secret"),
            (Auth::XApiKey, "x-api-key", "sk-secret"),
        ] {
            let (header, value) = credential(auth, "sk-secret").unwrap();
            assert_eq!((header.as_str(), value.to_str().unwrap()), (name, shown));
            assert!(!format!("{value:?}").contains("sk-secret"));
            assert!(credential(auth, "sk\nsecret").is_none());
        }
    }
}
