//! By which name, and from which web page, was it called?
//!
//! A browser sends requests for any page to any address, a local gateway's included. Two headers that no page can forge
//! tell what is behind a request: `Origin`, the page that asks, and `Host`, the name by which it found us. A page that
//! points its own name at our address (DNS rebinding) is given away by the second.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header};

/// Names that no public DNS can point at us: RFC 6761 and ICANN keep the first two, the others are Kubernetes' and no
/// domain that can be registered lies below them.
const PRIVATE: [&str; 4] = [".localhost", ".internal", ".cluster.local", ".svc"];

/// Who may knock: under our names only, and from the pages that may.
#[derive(Clone, Debug)]
pub struct Door {
    names: Vec<Box<str>>,
    pages: Pages,
}

/// The web pages that may call.
#[derive(Clone, Debug)]
pub enum Pages {
    /// Any.
    Any,
    /// Those of these origins.
    Listed(Vec<HeaderValue>),
    /// Those that we serve ourselves.
    Own,
}

/// Why a request was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// By a name that is not ours.
    #[error("`{0}` is not a name of this gateway; if it is, add it to `names` in [server]")]
    Host(Box<str>),
    /// HTTP/1.1 wants exactly one `Host` (RFC 9112, 3.2).
    #[error("the request must have one `Host` header")]
    Hosts,
    /// From a web page that may not.
    #[error(
        "requests from the web page `{0}` are not allowed; `cors` in [server] lists those that are"
    )]
    Page(Box<str>),
}

/// What is written as an origin is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an origin; write scheme, host and port, such as \"https://app.example.com\"")]
pub struct WrongOrigin;

/// What is written as a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a host's name; write it without scheme and port, such as \"gateway.example.com\" or \"*.example.com\""
)]
pub struct WrongName;

/// An origin as browsers write it: in lower case, without the port that goes without saying.
pub fn origin(text: &str) -> Result<HeaderValue, WrongOrigin> {
    let text = text.to_ascii_lowercase();
    let uri: Uri = text.parse().map_err(|_| WrongOrigin)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(WrongOrigin);
    };
    let rest = text.strip_prefix(scheme).unwrap_or_default();
    let is_bare = rest.strip_prefix("://") == Some(authority.as_str());
    // A port that is none is read as no port.
    let has_port = !authority.as_str().ends_with(authority.host());
    let is_wrong = authority.as_str().contains('@') || authority.host().is_empty();
    if !is_bare || is_wrong || (has_port && authority.port_u16().is_none()) {
        return Err(WrongOrigin);
    }
    let port = match (scheme, authority.port_u16()) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    let origin = format!("{scheme}://{}{port}", authority.host());
    HeaderValue::from_str(&origin).map_err(|_| WrongOrigin)
}

/// A name of ours: a host's, `*.` and a domain for all below it, or `*` for any.
pub fn name(text: &str) -> Result<Box<str>, WrongName> {
    let bare = text.strip_prefix("*.").unwrap_or(text);
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = !bare.is_empty() && bare.chars().all(valid) && !bare.starts_with('.');
    if text == "*" || is_name {
        Ok(text.trim_end_matches('.').to_ascii_lowercase().into())
    } else {
        Err(WrongName)
    }
}

impl Door {
    /// With names of ours, besides those that can only be ours, and the pages that may call.
    pub fn new(names: Vec<Box<str>>, pages: Pages) -> Self {
        Self { names, pages }
    }

    /// Lets a request in, or not. Gives the page it comes from, if it comes from one.
    pub fn admit<'h>(
        &self,
        version: Version,
        uri: &Uri,
        headers: &'h HeaderMap,
    ) -> Result<Option<&'h HeaderValue>, Stranger> {
        // A target with an authority goes before `Host` (RFC 9112, 3.2.2), which must be there all the same. HTTP/2 has
        // nothing else.
        let host = match uri.authority() {
            Some(authority) if version > Version::HTTP_11 => authority.as_str(),
            Some(authority) => named(version, headers).map(|_| authority.as_str())?,
            None => named(version, headers)?,
        };
        if !self.is_ours(bare(host)) {
            return Err(Stranger::Host(shown(host)));
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(None);
        };
        let may = match &self.pages {
            Pages::Any => true,
            Pages::Listed(pages) => pages.contains(origin),
            Pages::Own => ["http://", "https://"].iter().any(|scheme| {
                let authority = origin.as_bytes().strip_prefix(scheme.as_bytes());
                authority.is_some_and(|own| own.eq_ignore_ascii_case(host.as_bytes()))
            }),
        };
        if may && is_alone(headers, header::ORIGIN) {
            Ok(Some(origin))
        } else {
            Err(Stranger::Page(shown(&String::from_utf8_lossy(
                origin.as_bytes(),
            ))))
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        // Who comes by an address has not been led here by a name.
        let is_address = || match host.strip_prefix('[') {
            Some(six) => six
                .strip_suffix(']')
                .is_some_and(|six| six.parse::<Ipv6Addr>().is_ok()),
            None => host.parse::<IpAddr>().is_ok(),
        };
        // A name of one label cannot be registered by anybody.
        let is_private =
            || !host.is_empty() && !host.contains(['.', ':', '[']) || ends_with_any(host, &PRIVATE);
        let is_named = || {
            self.names.iter().any(|name| match name.strip_prefix('*') {
                Some(domain) => ends_with(host, domain),
                None => host.eq_ignore_ascii_case(name),
            })
        };
        is_address() || is_private() || is_named()
    }
}

fn ends_with_any(host: &str, domains: &[&str]) -> bool {
    domains.iter().any(|domain| ends_with(host, domain))
}

fn ends_with(host: &str, domain: &str) -> bool {
    let start = host.len().saturating_sub(domain.len());
    host.get(start..)
        .is_some_and(|end| end.eq_ignore_ascii_case(domain))
}

/// The one `Host`; HTTP/1.0 may have none, and no browser speaks it.
fn named(version: Version, headers: &HeaderMap) -> Result<&str, Stranger> {
    match headers.get(header::HOST) {
        Some(host) if is_alone(headers, header::HOST) => host.to_str().map_err(|_| Stranger::Hosts),
        None if version < Version::HTTP_11 => Ok("localhost"),
        _ => Err(Stranger::Hosts),
    }
}

/// Whether a header is there once. In most requests all are, and that is known without looking.
fn is_alone(headers: &HeaderMap, name: HeaderName) -> bool {
    headers.len() == headers.keys_len() || headers.get_all(name).iter().count() == 1
}

/// A host without its port, and without the dot that ends a full name.
fn bare(host: &str) -> &str {
    let end = host.bytes().rposition(|byte| !byte.is_ascii_digit());
    let name = match end.and_then(|end| host.split_at_checked(end)) {
        Some((name, port)) if port.starts_with(':') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// What a client wrote, short enough to be repeated.
fn shown(text: &str) -> Box<str> {
    text.chars().take(200).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(names: &[&str], pages: Pages) -> Door {
        let names = names.iter().map(|text| name(text).unwrap()).collect();
        Door::new(names, pages)
    }

    fn admit(door: &Door, target: &str, lines: &[(&'static str, &str)]) -> Result<bool, Stranger> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let page = door.admit(Version::HTTP_11, &target.parse().unwrap(), &headers)?;
        Ok(page.is_some())
    }

    #[test]
    fn only_under_our_names() {
        let door = door(
            &["Gate.example.com", "*.apps.example.org"],
            Pages::Listed(vec![]),
        );
        for ours in [
            "127.0.0.1:4000",
            "10.1.2.3",
            "[::1]:4000",
            "[fe80::1]",
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "tollgate:4000",
            "a.b.localhost",
            "host.docker.internal:4000",
            "tollgate.default.svc",
            "tollgate.default.svc.cluster.local:4000",
            "gate.example.com",
            "GATE.EXAMPLE.COM.:443",
            "x.apps.example.org",
        ] {
            assert_eq!(admit(&door, "/", &[("host", ours)]), Ok(false), "{ours}");
        }
        for theirs in [
            "evil.example",
            "evil.example:4000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "example.com",
            "x.gate.example.com",
            "apps.example.org",
            "xapps.example.org",
            "1.2.3",
            "evil.svc.example",
            "[::1",
            "[::1].evil",
            "[evil]:80",
            "a:b",
            "",
            ":80",
            ".",
        ] {
            let refused = Err(Stranger::Host(theirs.into()));
            assert_eq!(admit(&door, "/", &[("host", theirs)]), refused, "{theirs}");
        }
        let any = self::door(&["*"], Pages::Own);
        assert_eq!(admit(&any, "/", &[("host", "evil.example")]), Ok(false));
    }

    #[test]
    fn there_is_one_host_and_the_target_goes_before_it() {
        let door = door(&[], Pages::Own);
        assert_eq!(admit(&door, "/", &[]), Err(Stranger::Hosts));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(admit(&door, "/", &twice), Err(Stranger::Hosts));
        let (root, none) = (Uri::from_static("/"), HeaderMap::new());
        assert_eq!(door.admit(Version::HTTP_10, &root, &none), Ok(None));
        let ours = [("host", "localhost")];
        let evil = admit(&door, "http://evil.example/", &ours);
        assert_eq!(evil, Err(Stranger::Host("evil.example".into())));
        let evil = [("host", "evil.example")];
        assert_eq!(admit(&door, "http://localhost/", &evil), Ok(false));
        assert_eq!(admit(&door, "http://localhost/", &[]), Err(Stranger::Hosts));
        let both = admit(&door, "http://localhost/", &twice);
        assert_eq!(both, Err(Stranger::Hosts));
    }

    #[test]
    fn only_from_the_pages_that_may() {
        let listed = Pages::Listed(vec![origin("https://App.example.com:443").unwrap()]);
        let from = |pages: &Pages, lines: &[(&'static str, &str)]| {
            let door = door(&[], pages.clone());
            admit(&door, "/", &[&[("host", "127.0.0.1:4000")], lines].concat())
        };
        let app = [("origin", "https://app.example.com")];
        assert_eq!(from(&listed, &app), Ok(true));
        assert_eq!(from(&listed, &[]), Ok(false));
        for other in [
            "https://app.example.com:8443",
            "http://app.example.com",
            "https://app.example.com.evil",
            "null",
            "",
            "http://127.0.0.1:4000",
        ] {
            let refused = Err(Stranger::Page(other.into()));
            assert_eq!(from(&listed, &[("origin", other)]), refused, "{other}");
        }
        assert!(from(&listed, &[app[0], ("origin", "null")]).is_err());
        assert_eq!(from(&Pages::Any, &[("origin", "null")]), Ok(true));
        let own = [("origin", "http://127.0.0.1:4000")];
        assert_eq!(from(&Pages::Own, &own), Ok(true));
        assert!(from(&Pages::Own, &[("origin", "http://127.0.0.1:4001")]).is_err());
    }

    #[test]
    fn origins_and_names_are_written_in_one_way() {
        let written = |text: &str| origin(text).map(|origin| origin.to_str().unwrap().to_owned());
        assert_eq!(
            written("HTTP://Localhost:80"),
            Ok("http://localhost".into())
        );
        assert_eq!(written("http://[::1]:5173"), Ok("http://[::1]:5173".into()));
        assert_eq!(written("app://obsidian.md"), Ok("app://obsidian.md".into()));
        for wrong in [
            "app.example.com",
            "https://a/",
            "https://a/b",
            "https://u@a",
            "https://",
            "null",
            "https://a?b",
            "https://a:8o80",
            "https://a:70000",
            "https://a:",
            "",
        ] {
            assert_eq!(written(wrong), Err(WrongOrigin), "{wrong}");
        }
        for wrong in ["http://a", "a:80", "", "*.", "a b", "a.*"] {
            assert_eq!(name(wrong), Err(WrongName), "{wrong}");
        }
    }
}
