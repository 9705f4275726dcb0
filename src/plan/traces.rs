//! From `[traces]` to a collector: its URL, its headers with their secrets, whom to trust that it is the one.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Uri};

use super::compile::Compiler;
use super::egress::NoWay;
use super::providers::OWN_HEADERS;
use crate::config;
use crate::protocol::openai::OpenAi;
use crate::provider::Site;
use crate::provider::egress::{self, Proxy};
use crate::provider::site::{Base, Below, Way, WrongUrl};
use crate::telemetry::trace::Share;

/// Where a collector takes traces whose URL does not say so:
/// <https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>.
const PATH: &str = "/v1/traces";

/// Where spans go, and how many.
pub struct Traces {
    /// Where the collector is, and the way there.
    pub site: Site,
    /// Where it takes traces.
    pub at: Below,
    /// What it is shown; marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What part of the traces that begin here is told.
    pub share: Share,
    /// What the gateway calls itself.
    pub service: Box<str>,
}

impl Compiler<'_> {
    /// Where spans go, if they go anywhere.
    pub(super) fn traces(&mut self) -> Option<Arc<Traces>> {
        let written = self.config.traces.as_ref()?;
        if !cfg!(feature = "otlp") {
            let message = "this tollgate was built without traces; build it with `cargo build --release --features otlp`, or leave the section out";
            self.flaw(["traces"], message);
            return None;
        }
        if written.service.trim().is_empty() {
            self.flaw(["traces", "service"], "must be a name");
        }
        let headers = self.shown(written);
        let (site, at) = self.collector(written).ok()?;
        Some(Arc::new(Traces {
            site,
            at,
            headers,
            share: Share::of(written.sample),
            service: written.service.as_str().into(),
        }))
    }

    fn shown(&mut self, written: &config::Traces) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, secret) in &written.headers {
            let at = ["traces", "headers", name];
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                self.flaw(at, format!("`{name}` is not a header's name"));
                continue;
            };
            if OWN_HEADERS.contains(&header.as_str()) {
                self.flaw(at, format!("`{name}` is tollgate's own to write"));
                continue;
            }
            let secret = secret.reveal(self.surroundings.folder, self.surroundings.environment);
            match secret.map(|text| HeaderValue::from_str(&text)) {
                Ok(Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((header, value));
                }
                Ok(Err(_)) => self.flaw(at, "the value has characters that no header can carry"),
                Err(missing) => self.flaw(at, missing.to_string()),
            }
        }
        headers
    }

    /// Where the collector is, and where it takes traces.
    fn collector(&mut self, written: &config::Traces) -> Result<(Site, Below), NoWay> {
        const AT: [&str; 2] = ["traces", "endpoint"];
        let url = &*written.endpoint;
        let base = match Base::parse(url, self.surroundings.folder) {
            Ok(base) if base.tcp().is_some() => base,
            Ok(_) => return Err(self.wrong_collector(url, WrongUrl::Scheme)),
            Err(wrong) => return Err(self.wrong_collector(url, wrong)),
        };
        let environment = self.surroundings.environment;
        let named = egress::of_environment(|name| environment.get(name), &base);
        let proxy = match named.map(|(variable, text)| (variable, Proxy::parse(text))) {
            None => None,
            Some((_, Ok(proxy))) => Some(proxy),
            Some((variable, Err(wrong))) => {
                self.flaw(AT, format!("the environment's {variable} {wrong}"));
                return Err(NoWay);
            }
        };
        let secure = base.secure || proxy.as_ref().is_some_and(Proxy::is_secure);
        let company = self.company(
            &["traces"],
            written.ca_file.as_deref(),
            ("endpoint", secure),
        )?;
        let trust = match company {
            Some(trust) => Some(trust),
            None if secure => Some(self.machine(&["traces"])?),
            None => None,
        };
        let way = Way {
            trust: trust.as_deref(),
            proxy,
            http2: false,
        };
        let site = Site::new(base, &OpenAi, way);
        let site = site.map_err(|wrong| self.wrong_collector(url, wrong))?;
        let at = below(url, &site).ok_or(WrongUrl::NotAUrl);
        Ok((site, at.map_err(|wrong| self.wrong_collector(url, wrong))?))
    }

    fn wrong_collector(&mut self, url: &str, wrong: WrongUrl) -> NoWay {
        let message = match wrong {
            WrongUrl::UserInfo => "must hold no user name or password; use headers".into(),
            WrongUrl::Scheme => "must start with http:// or https://".into(),
            // There may be a secret in it, wherever it is wrong.
            _ if url.contains(['@', '?']) => wrong.to_string(),
            _ => format!("`{url}` {wrong}"),
        };
        self.flaw(["traces", "endpoint"], message);
        NoWay
    }
}

/// Where a collector takes traces: at the path of its URL, or else at the usual one.
fn below(url: &str, site: &Site) -> Option<Below> {
    let uri: Uri = url.parse().ok()?;
    let path = match uri.path() {
        "/" | "" => PATH,
        path => path,
    };
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let absolute: Uri = format!("{scheme}://{authority}{path}").parse().ok()?;
    let is_read = site.via.as_ref().is_some_and(|via| !via.tunnels);
    let uri = match is_read {
        true => absolute.clone(),
        false => path.parse().ok()?,
    };
    Some(Below { uri, absolute })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_written_is_the_one() {
        let at = |url: &str| {
            let base = Base::parse(url, std::path::Path::new("")).unwrap();
            let site = Site::new(base, &OpenAi, Way::default()).unwrap();
            let below = below(url, &site).unwrap();
            (below.uri.to_string(), below.absolute.to_string())
        };
        let usual = (
            "/v1/traces".to_owned(),
            "http://a:4318/v1/traces".to_owned(),
        );
        assert_eq!(at("http://a:4318"), usual);
        assert_eq!(at("http://a:4318/"), usual);
        let own = (
            "/otel/v1/traces".to_owned(),
            "http://a/otel/v1/traces".to_owned(),
        );
        assert_eq!(at("http://a/otel/v1/traces"), own);
    }
}
