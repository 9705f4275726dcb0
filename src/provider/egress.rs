//! Through which proxy does a request leave? What an operator writes goes before the environment's word.
//!
//! Decided by name and once, when the plan is compiled: what is asked on a request's path is only the outcome.

use std::fmt;
use std::net::IpAddr;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};

use super::site::{Base, Host, Place};
use super::trust::{self, Offer, Tls, Trust};

/// What an operator writes to go without a proxy, whatever the environment says.
pub const DIRECT: &str = "direct";

/// A proxy, as it is named. Shows itself without its credentials.
#[derive(Hash)]
pub struct Proxy {
    secure: bool,
    host: Host,
    port: u16,
    /// `Proxy-Authorization`; marked sensitive.
    authorization: Option<HeaderValue>,
}

/// A proxy, ready to be asked.
#[derive(Debug)]
pub struct Via {
    /// What is connected to.
    pub place: Place,
    /// How TLS is spoken with the proxy itself, if it is.
    pub tls: Option<Tls>,
    /// What it is shown as `Proxy-Authorization`; marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// It is asked for a tunnel, and sees nothing of what passes. Else it is given each request to carry.
    pub tunnels: bool,
    /// Its URL without credentials, for people.
    pub name: Box<str>,
}

/// Why a proxy cannot be used. Says nothing of what was written: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongProxy {
    /// Not a URL.
    #[error("is not the URL of a proxy; write \"http://host:3128\", or \"direct\" for none")]
    NotAUrl,
    /// A scheme we do not speak.
    #[error("must start with http:// or https://")]
    Scheme,
    /// SOCKS.
    #[error(
        "is a SOCKS proxy, which tollgate does not speak; name an HTTP proxy, or \"direct\" for none"
    )]
    Socks,
}

impl Proxy {
    /// Reads the URL of a proxy; without a scheme it is `http`, as the environment's often are.
    pub fn parse(text: &str) -> Result<Self, WrongProxy> {
        let text = text.trim();
        let whole = match text.split_once("://") {
            Some((scheme, _)) if scheme.to_ascii_lowercase().starts_with("socks") => {
                return Err(WrongProxy::Socks);
            }
            Some(_) => text.to_owned(),
            None => format!("http://{text}"),
        };
        let uri: Uri = whole.parse().map_err(|_| WrongProxy::NotAUrl)?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) => return Err(WrongProxy::Scheme),
            None => return Err(WrongProxy::NotAUrl),
        };
        if uri.query().is_some() || uri.path().len() > 1 {
            return Err(WrongProxy::NotAUrl);
        }
        let authority = uri.authority().ok_or(WrongProxy::NotAUrl)?;
        let default = if secure { 443 } else { 80 };
        let (host, port) = Host::of(authority, default).ok_or(WrongProxy::NotAUrl)?;
        if secure && trust::provable(&host).is_none() {
            return Err(WrongProxy::NotAUrl);
        }
        Ok(Self {
            secure,
            host,
            port,
            authorization: authorization(authority),
        })
    }

    /// TLS is spoken with the proxy itself.
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

/// The URL without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Via {
    /// A proxy that opens tunnels. None if it is spoken TLS with, and there is no trust.
    pub(super) fn new(proxy: Proxy, trust: Option<&Trust>) -> Option<Self> {
        let tls = match trust {
            // A proxy is spoken HTTP/1.1 with, whatever is spoken behind it.
            Some(trust) if proxy.secure => Some(trust.tls(&proxy.host, Offer::Http1)?),
            None if proxy.secure => return None,
            _ => None,
        };
        Some(Self {
            name: proxy.to_string().into(),
            place: Place::Tcp(proxy.host, proxy.port),
            tls,
            authorization: proxy.authorization,
            tunnels: true,
        })
    }
}

/// The proxy that the environment names for a base URL, and the variable that does. Lower case goes before upper, the
/// scheme's own variable before the one for all; an empty one is as good as none. Loopback and sockets are never behind
/// a proxy.
pub fn of_environment<'e>(
    variable: impl Fn(&str) -> Option<&'e str>,
    base: &Base,
) -> Option<(&'static str, &'e str)> {
    let (host, port) = base.tcp()?;
    let read = |name: &'static str| Some((name, variable(name).filter(|v| !v.trim().is_empty())?));
    let first = |lower, upper| read(lower).or_else(|| read(upper));
    let named = if base.secure {
        first("https_proxy", "HTTPS_PROXY")
    } else {
        first("http_proxy", "HTTP_PROXY")
    };
    let named = named.or_else(|| first("all_proxy", "ALL_PROXY"))?;
    let (_, spared) = first("no_proxy", "NO_PROXY").unwrap_or_default();
    (!is_loopback(host) && !is_spared(spared, host, port)).then_some(named)
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Address(address) => address.to_canonical().is_loopback(),
        Host::Name(name) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// Whether a list like `NO_PROXY` has a host: names with all below them, addresses, networks, each with or without a
/// port, or `*` for everything. A name is not looked up for it.
fn is_spared(list: &str, host: &Host, port: u16) -> bool {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            let (what, only) = split_port(entry);
            let at_port = only.is_none_or(|only| only.parse() == Ok(port));
            at_port && (what == "*" || is_within(what, host))
        })
}

/// `host:port`, `[::1]:port` or either without a port.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    if let Some((inside, rest)) = entry.strip_prefix('[').and_then(|e| e.split_once(']')) {
        return (inside, rest.strip_prefix(':'));
    }
    match entry.rsplit_once(':') {
        // More than one colon: an address of IPv6, which has no port without brackets.
        Some((before, port)) if !before.contains(':') => (before, Some(port)),
        _ => (entry, None),
    }
}

fn is_within(what: &str, host: &Host) -> bool {
    match host {
        Host::Name(name) => {
            let what = what.strip_prefix('*').unwrap_or(what);
            let what = what.trim_start_matches('.').trim_end_matches('.');
            let what = what.to_ascii_lowercase();
            let name = name.trim_end_matches('.');
            !what.is_empty()
                && name
                    .strip_suffix(&what)
                    .is_some_and(|below| below.is_empty() || below.ends_with('.'))
        }
        Host::Address(address) => {
            let (network, length) = match what.split_once('/') {
                Some((network, length)) => (network, length.parse().ok()),
                None => (what, Some(u32::MAX)),
            };
            let network: Option<IpAddr> = network.parse().ok();
            network
                .zip(length)
                .is_some_and(|(network, length)| shares(network, *address, length))
        }
    }
}

/// Whether two addresses agree in their first bits; beyond the last bit there is nothing to differ in.
fn shares(one: IpAddr, other: IpAddr, length: u32) -> bool {
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= length.min(32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= length.min(128)
        }
        _ => false,
    }
}

/// The user name and the password of a URL, as a header (RFC 7617).
fn authorization(authority: &Authority) -> Option<HeaderValue> {
    let (user, _) = authority.as_str().rsplit_once('@')?;
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let pair = [&unescaped(name)[..], b":", &unescaped(password)].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", base64(&pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The bytes that `%40` and its like stand for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let code = after
            .get(..2)
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(code.unwrap_or(b'%'));
        rest = if code.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| {
            bits << 8 | usize::from(three.get(n).copied().unwrap_or(0))
        });
        for n in 0..4 {
            let sixth = ALPHABET.get(bits >> (18 - 6 * n) & 63);
            text.push(match sixth {
                Some(letter) if n <= three.len() => char::from(*letter),
                _ => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> (Host, u16) {
        Host::of(&text.parse().unwrap(), 443).unwrap()
    }

    #[test]
    fn a_proxy_is_taken_apart_and_hides_its_credentials() {
        for (text, shown, credentials) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("http://proxy/", "http://proxy:80", None),
            ("https://proxy", "https://proxy:443", None),
            ("http://[::1]:8", "http://[::1]:8", None),
            (
                "http://Aladdin:open%20sesame@proxy:3128",
                "http://proxy:3128",
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
            ("me@proxy:1", "http://proxy:1", Some("Basic bWU6")),
            (
                "http://me:a%40b%zz@proxy:1",
                "http://proxy:1",
                Some("Basic bWU6YUBiJXp6"),
            ),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(proxy.to_string(), shown);
            let header = proxy.authorization.as_ref();
            assert_eq!(header.map(|v| v.to_str().unwrap()), credentials, "{text}");
            assert!(header.is_none_or(HeaderValue::is_sensitive));
            let via = Via::new(proxy, None);
            assert_eq!(via.is_some(), !shown.starts_with("https"), "{text}");
            assert!(!format!("{via:?}").contains("Basic"), "{via:?}");
        }
    }

    #[test]
    fn what_is_no_proxy_says_why() {
        for text in [
            "",
            "http://",
            "http://a b",
            "http://p/path",
            "p:99999",
            "http://p?x",
            "https://p..q",
        ] {
            assert_eq!(
                Proxy::parse(text).err(),
                Some(WrongProxy::NotAUrl),
                "{text}"
            );
        }
        assert_eq!(Proxy::parse("ftp://p").err(), Some(WrongProxy::Scheme));
        for text in ["socks5://p:1080", "SOCKS5h://p", "socks://p"] {
            assert_eq!(Proxy::parse(text).err(), Some(WrongProxy::Socks), "{text}");
        }
    }

    #[test]
    fn no_proxy_spares_names_addresses_networks_and_ports() {
        for (list, at, spared) in [
            ("", "api.example.com", false),
            ("*", "api.example.com", true),
            ("example.com", "api.example.com", true),
            ("example.com", "example.com", true),
            (".example.com", "example.com", true),
            (".example.com", "api.example.com", true),
            ("*.example.com", "api.example.com", true),
            ("EXAMPLE.com.", "API.example.COM", true),
            ("example.com", "api.example.com.", true),
            ("example.com", "badexample.com", false),
            ("api.example.com", "example.com", false),
            ("a.com, example.com", "api.example.com", true),
            ("a.com example.com", "api.example.com", true),
            ("example.com:8443", "api.example.com:8443", true),
            ("example.com:8443", "api.example.com", false),
            ("*:443", "api.example.com", true),
            ("*:80", "api.example.com", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3:80", "10.1.2.3:80", true),
            ("10.1.2.3:80", "10.1.2.3:81", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "api.example.com", false),
            ("10.1.2.4/31", "10.1.2.5", true),
            ("10.1.2.4/31", "10.1.2.6", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("10.0.0.0/x", "10.0.0.0", false),
            ("fd00::/8", "[fd12::1]", true),
            ("fd00::/8", "[fe80::1]", false),
            ("fd12::1", "[fd12::1]", true),
            ("[fd12::1]:443", "[fd12::1]", true),
            ("[fd12::1]:80", "[fd12::1]", false),
            ("::/0", "10.1.2.3", false),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]", true),
            (",,", "a", false),
            (".", "a", false),
        ] {
            let (host, port) = host(at);
            assert_eq!(is_spared(list, &host, port), spared, "{list:?} {at}");
        }
    }

    #[test]
    fn the_environment_names_a_proxy_in_one_order() {
        let all = [
            ("https_proxy", "low"),
            ("HTTPS_PROXY", "up"),
            ("http_proxy", "low-plain"),
            ("HTTP_PROXY", "up-plain"),
            ("all_proxy", "low-all"),
            ("ALL_PROXY", "up-all"),
        ];
        let named = |set: &[(&'static str, &'static str)], url: &str| {
            let base = Base::parse(url, std::path::Path::new("")).unwrap();
            let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            of_environment(variable, &base)
        };
        for (from, url, want) in [
            (0, "https://a", ("https_proxy", "low")),
            (1, "https://a", ("HTTPS_PROXY", "up")),
            (2, "https://a", ("all_proxy", "low-all")),
            (5, "https://a", ("ALL_PROXY", "up-all")),
            (0, "http://a", ("http_proxy", "low-plain")),
            (3, "http://a", ("HTTP_PROXY", "up-plain")),
            (4, "http://a", ("all_proxy", "low-all")),
        ] {
            assert_eq!(named(&all[from..], url), Some(want));
        }
        assert_eq!(named(&[], "https://a"), None);
        let empty = [("https_proxy", " "), ("HTTPS_PROXY", "up")];
        let want = Some(("HTTPS_PROXY", "up"));
        assert_eq!(named(&empty, "https://a"), want);
        for (no, url, is_behind) in [
            ("no_proxy", "http://b.example", false),
            ("NO_PROXY", "http://b.example", false),
            ("no_proxy", "http://a.example", true),
            ("x", "http://localhost", false),
            ("x", "https://some.localhost", false),
            ("x", "http://127.8.0.1:1", false),
            ("x", "http://[::1]:1", false),
            ("x", "http://[::ffff:127.0.0.1]:1", false),
            ("x", "unix:/run/engine.sock", false),
            ("x", "http://192.0.2.1", true),
        ] {
            let set = [("ALL_PROXY", "up"), (no, "b.example")];
            assert_eq!(named(&set, url).is_some(), is_behind, "{no} {url}");
        }
        let both = [("ALL_PROXY", "up"), ("no_proxy", "a"), ("NO_PROXY", "b")];
        assert!(named(&both, "http://b").is_some(), "lower case goes first");
    }

    #[test]
    fn base64_is_the_rfcs() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }
}
