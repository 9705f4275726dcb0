//! Who serves models, and what do they want different?
//!
//! A provider is data: where it is, what it must be shown, which format it speaks and what it wants changed. Knows
//! `envelope`, `protocol` and `usage`.

pub mod dropped;
pub mod echo;
pub mod errors;
pub mod rules;

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};

use crate::protocol::{Endpoint, Protocol};
pub use dropped::Dropped;
pub use rules::Rules;

/// The built-in providers, in the very words of `gateway.toml`.
pub const PRESETS: &str = include_str!("presets.toml");

/// Someone who serves models.
pub struct Provider {
    /// Where it is.
    pub origin: Origin,
    /// The format it speaks.
    pub protocol: &'static dyn Protocol,
    /// The header that holds its key, and the key in it; marked sensitive.
    pub credential: Option<(HeaderName, HeaderValue)>,
    /// Further headers it is sent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Further headers of the client's it is sent.
    pub forward: Vec<HeaderName>,
    /// The clocks of one try.
    pub timeouts: Timeouts,
    /// How often one of its models is asked, the first time included.
    pub tries: u32,
    /// Its streams end with the format's marker.
    pub done_marker: bool,
    /// It tells the usage of a stream if it is asked to.
    pub stream_usage: bool,
    /// Its own models are listed, too.
    pub discover: bool,
}

/// The clocks of one try; see `config::Timeouts`, where each is documented.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "documented where an operator writes them")]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub first_content: Duration,
    pub idle: Duration,
    pub total: Duration,
}

/// Where a provider is.
#[derive(Debug)]
pub enum Origin {
    /// In this process.
    Echo,
    /// At a URL.
    Site(Box<Site>),
}

/// A base URL, taken apart once.
#[derive(Debug)]
pub struct Site {
    /// Over TLS.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: Box<str>,
    /// A port.
    pub port: u16,
    /// What goes into `Host`: the provider's authority, never the client's (Ollama and text-generation-webui refuse
    /// any other).
    pub authority: HeaderValue,
    /// Scheme, host and port: connections to the same one are the same.
    pub key: Arc<str>,
    uris: [Uri; 4],
}

/// The endpoints that a provider is asked for, in the order of `Site::uris`.
const ASKED: [Endpoint; 4] = [
    Endpoint::ChatCompletions,
    Endpoint::Completions,
    Endpoint::Embeddings,
    Endpoint::Models,
];

/// Why a base URL is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongUrl {
    /// Not a URL at all.
    #[error("is not a URL; write \"https://host/v1\"")]
    NotAUrl,
    /// A scheme we do not speak.
    #[error("must start with http:// or https://")]
    Scheme,
    /// Unix sockets come later.
    #[error("not yet: this version connects over TCP only")]
    Unix,
    /// Credentials belong into `api_key`.
    #[error("must hold no user name or password; use api_key")]
    UserInfo,
    /// A query would be lost.
    #[error("must hold no query")]
    Query,
}

impl Origin {
    /// Reads a base URL; `echo:` is the built-in engine.
    pub fn parse(url: &str, protocol: &dyn Protocol) -> Result<Self, WrongUrl> {
        if url == "echo:" {
            return Ok(Self::Echo);
        }
        if url.starts_with("unix:") {
            return Err(WrongUrl::Unix);
        }
        let uri: Uri = url.parse().map_err(|_| WrongUrl::NotAUrl)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) => return Err(WrongUrl::Scheme),
            None => return Err(WrongUrl::NotAUrl),
        };
        let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(WrongUrl::UserInfo);
        }
        if uri.query().is_some() {
            return Err(WrongUrl::Query);
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or(WrongUrl::NotAUrl)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let default = if tls { 443 } else { 80 };
        let port = match uri.authority().and_then(Authority::port) {
            Some(port) => port.as_u16(),
            None if authority.trim_end_matches(']').ends_with(host) => default,
            // A port that is no number, or too large to be one.
            None => return Err(WrongUrl::NotAUrl),
        };
        let scheme = if tls { "https" } else { "http" };
        let prefix = uri.path().trim_end_matches('/');
        let mut uris = ASKED.map(|_| Uri::default());
        for (slot, endpoint) in uris.iter_mut().zip(ASKED) {
            let path = format!("{prefix}{}", protocol.path(endpoint));
            *slot = PathAndQuery::from_maybe_shared(path)
                .map_err(|_| WrongUrl::NotAUrl)?
                .into();
        }
        Ok(Self::Site(Box::new(Site {
            tls,
            host: host.into(),
            port,
            authority: HeaderValue::from_str(authority).map_err(|_| WrongUrl::NotAUrl)?,
            key: format!("{scheme}://{host}:{port}").into(),
            uris,
        })))
    }
}

impl Site {
    /// Where an endpoint lies, in the form a request line has.
    pub fn uri(&self, endpoint: Endpoint) -> &Uri {
        let [chat, completions, embeddings, models] = &self.uris;
        match endpoint {
            Endpoint::ChatCompletions => chat,
            Endpoint::Completions => completions,
            Endpoint::Embeddings => embeddings,
            Endpoint::Live | Endpoint::Model | Endpoint::Models | Endpoint::Ready => models,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::openai::OpenAi;

    #[test]
    fn a_base_url_is_taken_apart() {
        let site = |url: &str| match Origin::parse(url, &OpenAi).unwrap() {
            Origin::Site(site) => site,
            Origin::Echo => panic!("{url} is no site"),
        };
        let groq = site("https://api.groq.com/openai/v1/");
        assert_eq!(
            (groq.tls, &*groq.host, groq.port),
            (true, "api.groq.com", 443)
        );
        assert_eq!(groq.authority, "api.groq.com");
        let uri = groq.uri(Endpoint::ChatCompletions);
        assert_eq!(*uri, "/openai/v1/chat/completions");
        let six = site("http://[::1]:8080");
        assert_eq!(
            (&*six.host, six.port, &*six.key),
            ("::1", 8080, "http://::1:8080")
        );
        assert_eq!(six.authority, "[::1]:8080");
        assert_eq!(*six.uri(Endpoint::Embeddings), "/embeddings");
        assert!(matches!(Origin::parse("echo:", &OpenAi), Ok(Origin::Echo)));
    }

    #[test]
    fn what_is_no_base_url_says_why() {
        let wrong = |url: &str| Origin::parse(url, &OpenAi).unwrap_err();
        for url in [
            "",
            "localhost:80",
            "/v1",
            "http://",
            "http:///v1",
            "not a url",
            "http://a:99999",
        ] {
            assert_eq!(wrong(url), WrongUrl::NotAUrl, "{url}");
        }
        assert_eq!(wrong("ftp://a"), WrongUrl::Scheme);
        assert_eq!(wrong("unix:/run/x.sock"), WrongUrl::Unix);
        assert_eq!(wrong("https://user:pass@a/v1"), WrongUrl::UserInfo);
        assert_eq!(wrong("https://a/v1?key=x"), WrongUrl::Query);
    }
}
