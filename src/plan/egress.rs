//! From `base_url`, `proxy`, `ca_file` and `http2` to an origin: where a provider is and the way there.

use std::path::Path;
use std::sync::Arc;

use super::compile::Compiler;
use crate::config;
use crate::protocol::Protocol;
use crate::provider::egress::{self, Proxy, WrongProxy};
use crate::provider::site::{Base, Way, WrongUrl};
use crate::provider::trust::Trust;
use crate::provider::{Origin, Site};

/// What is wrong with the way to a provider has been said, or makes it unavailable.
pub(super) struct NoWay;

impl<'c> Compiler<'c> {
    /// Where a provider is; none if it is flawed or cannot be asked, which has been noted then.
    pub(super) fn origin(
        &mut self,
        name: &'c str,
        entry: &config::Provider,
        protocol: &dyn Protocol,
    ) -> Option<Origin> {
        let Some(url) = &entry.base_url else {
            // A provider whose preset is unknown has its flaw already, and that comes first.
            let example = entry.base_url_example.as_ref();
            let write = example.map(|url| format!("; write base_url = \"{url}\""));
            let message = format!("`base_url` is missing{}", write.unwrap_or_default());
            self.flaw(["providers", name, "base_url"], message);
            return None;
        };
        if url == "echo:" {
            return Some(Origin::Echo);
        }
        let base = match Base::parse(url, self.surroundings.folder) {
            Ok(base) => base,
            Err(wrong) => {
                self.wrong_url(name, url, wrong);
                return None;
            }
        };
        let proxy = self.proxy(name, entry, &base);
        let secure = base.secure
            || proxy
                .as_ref()
                .is_ok_and(|proxy| proxy.as_ref().is_some_and(Proxy::is_secure));
        let at = ["providers", name];
        let company = self.company(&at, entry.ca_file.as_deref(), ("base_url", secure));
        let (Ok(proxy), Ok(company)) = (proxy, company) else {
            return None;
        };
        let trust = match company {
            Some(trust) => Some(trust),
            None if secure => Some(self.machine(&at).ok()?),
            None => None,
        };
        let way = Way {
            trust: trust.as_deref(),
            proxy,
            http2: entry.http2,
        };
        match Site::new(base, protocol, way) {
            Ok(mut site) => {
                site.closes = self.servers.closes(&site.key);
                Some(Origin::Site(Box::new(site)))
            }
            Err(wrong) => {
                self.wrong_url(name, url, wrong);
                None
            }
        }
    }

    fn wrong_url(&mut self, name: &str, url: &str, wrong: WrongUrl) {
        let message = match wrong {
            // There may be a secret in it, wherever it is wrong.
            _ if url.contains(['@', '?']) => wrong.to_string(),
            _ => format!("`{url}` {wrong}"),
        };
        self.flaw(["providers", name, "base_url"], message);
    }

    /// The proxy that is written, else the environment's.
    fn proxy(
        &mut self,
        name: &'c str,
        entry: &config::Provider,
        base: &Base,
    ) -> Result<Option<Proxy>, NoWay> {
        let Some(secret) = &entry.proxy else {
            let environment = self.surroundings.environment;
            let named = egress::of_environment(|name| environment.get(name), base);
            let Some((variable, text)) = named else {
                return Ok(None);
            };
            return Proxy::parse(text).map(Some).map_err(|wrong| {
                self.wrong_proxy(name, &format!("the environment's {variable}"), wrong)
            });
        };
        match secret.reveal(self.surroundings.folder, self.surroundings.environment) {
            Ok(text) if text == egress::DIRECT => Ok(None),
            Ok(_) if base.tcp().is_none() => {
                let message = "no proxy stands before a socket; leave it out";
                self.flaw(["providers", name, "proxy"], message);
                Err(NoWay)
            }
            Ok(text) => Proxy::parse(&text)
                .map(Some)
                .map_err(|wrong| self.wrong_proxy(name, "it", wrong)),
            // Nobody leaves directly because a variable was forgotten.
            Err(missing) => {
                self.unavailable.insert(name, format!("proxy: {missing}"));
                Err(NoWay)
            }
        }
    }

    fn wrong_proxy(&mut self, name: &str, what: &str, wrong: WrongProxy) -> NoWay {
        self.flaw(["providers", name, "proxy"], format!("{what} {wrong}"));
        NoWay
    }

    /// The roots of a `ca_file` beside the machine's; none if there is none. `url` is what would have to be `https://`.
    pub(super) fn company(
        &mut self,
        at: &[&str],
        file: Option<&Path>,
        (url, secure): (&str, bool),
    ) -> Result<Option<Arc<Trust>>, NoWay> {
        let Some(file) = file else {
            return Ok(None);
        };
        let shown = file.display();
        if !secure {
            let message =
                format!("`{shown}` would vouch for nobody: {url} is not https://; leave it out");
            self.flaw(at.iter().copied().chain(["ca_file"]), message);
            return Err(NoWay);
        }
        let machine = self.machine(at)?;
        let read = std::fs::read(self.surroundings.folder.join(file));
        let trust = read
            .map_err(|e| format!("`{shown}` cannot be read: {e}"))
            .and_then(|pem| machine.and(&pem).map_err(|e| format!("`{shown}` {e}")));
        match trust {
            Ok(trust) => Ok(Some(trust.into())),
            Err(message) => {
                self.flaw(at.iter().copied().chain(["ca_file"]), message);
                Err(NoWay)
            }
        }
    }

    /// The machine's roots, read when first needed and once for a plan.
    pub(super) fn machine(&mut self, at: &[&str]) -> Result<Arc<Trust>, NoWay> {
        if let Some(trust) = &self.machine {
            return Ok(Arc::clone(trust));
        }
        match Trust::of_machine() {
            Ok(trust) => {
                let trust = Arc::new(trust);
                self.machine = Some(Arc::clone(&trust));
                Ok(trust)
            }
            Err(e) => {
                self.flaw(at.iter().copied(), e.to_string());
                Err(NoWay)
            }
        }
    }
}
