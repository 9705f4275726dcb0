//! Where is a provider, and how does one get there? Decided once, when the plan is compiled.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use tokio::time::Instant;

use super::egress::{Proxy, Via};
use super::trust::{Offer, Tls, Trust};
use crate::protocol::{ASKING, Endpoint, Protocol};

/// Names below these are looked up in private networks only.
const PRIVATE: [&str; 6] = [
    ".home.arpa",
    ".internal",
    ".lan",
    ".local",
    ".localhost",
    ".svc",
];

/// Where a provider is.
#[derive(Debug)]
pub enum Origin {
    /// In this process.
    Echo,
    /// At a URL.
    Site(Box<Site>),
}

/// A base URL and the way there, taken apart once.
#[derive(Debug)]
pub struct Site {
    /// What is connected to, if no proxy stands between.
    pub place: Place,
    /// How TLS is spoken, if it is.
    pub tls: Option<Tls>,
    /// The proxy that stands between.
    pub via: Option<Via>,
    /// HTTP/2 is wanted: over TLS it is offered, elsewhere it is spoken at once.
    pub http2: bool,
    /// What goes into `Host`: the provider's authority, never the client's (Ollama and text-generation-webui refuse
    /// any other).
    pub authority: HeaderValue,
    /// All that tells connections apart: those with the same key are the same.
    pub key: Arc<str>,
    /// How its connections are closed: one's own, unless it is taken from [`Servers`].
    pub closes: Arc<Closes>,
    /// By the number of the endpoint; the last are those of lists.
    relative: Box<[Uri]>,
    absolute: Box<[Uri]>,
}

/// Whether connections to a server may be closed without a word right after they were used, as far as was seen.
#[derive(Debug)]
pub struct Closes {
    made: Instant,
    /// Milliseconds after that.
    doubted_until: AtomicU64,
}

/// What is known of how servers close, by the keys of their sites: whoever asks there, on whichever thread. Outlives plans.
#[derive(Debug, Default)]
pub struct Servers(Mutex<BTreeMap<Arc<str>, Arc<Closes>>>);

/// What a socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A host and a port.
    Tcp(Host, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// One machine, or several by one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address, as it was written.
    Address(IpAddr),
    /// A name, to be looked up.
    Name(Arc<str>),
}

/// A base URL, taken apart.
#[derive(Debug)]
pub struct Base {
    /// Over TLS.
    pub secure: bool,
    /// Where it is.
    pub place: Place,
    authority: Box<str>,
    path: Box<str>,
}

/// What an operator wants of the way to a provider.
#[derive(Default)]
pub struct Way<'w> {
    /// Who vouches for certificates; none where there is no TLS.
    pub trust: Option<&'w Trust>,
    /// The proxy that stands between.
    pub proxy: Option<Proxy>,
    /// HTTP/2 is wanted.
    pub http2: bool,
}

/// Why a base URL is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongUrl {
    /// Not a URL at all.
    #[error("is not a URL; write \"https://host/v1\"")]
    NotAUrl,
    /// A scheme we do not speak.
    #[error("must start with http://, https:// or unix:")]
    Scheme,
    /// No path that a socket can have.
    #[error("is no socket; write \"unix:/run/engine.sock\", at most 107 bytes of path")]
    Socket,
    /// Nobody can prove to be this.
    #[error("has a host that no certificate can name")]
    Unprovable,
    /// Credentials belong into `api_key`.
    #[error("must hold no user name or password; use api_key")]
    UserInfo,
    /// A query would be lost.
    #[error("must hold no query")]
    Query,
}

/// Where something lies below an endpoint.
#[derive(Debug)]
pub struct Below {
    /// In the form that a request line of HTTP/1.1 has: whole for a proxy that reads it.
    pub uri: Uri,
    /// Whole.
    pub absolute: Uri,
}

impl Origin {
    /// Where something lies below an endpoint. None: nowhere, or that would be no URI.
    pub fn below(&self, endpoint: Endpoint, rest: &str) -> Option<Below> {
        match self {
            Self::Echo => None,
            Self::Site(site) => site.below(endpoint, rest),
        }
    }

    /// Where it is: a name, an address or a path, and a port if there are any. None: in this process.
    pub fn server(&self) -> Option<(String, Option<u16>)> {
        let Self::Site(site) = self else {
            return None;
        };
        Some(match &site.place {
            Place::Tcp(Host::Address(address), port) => (address.to_string(), Some(*port)),
            Place::Tcp(Host::Name(name), port) => (name.to_string(), Some(*port)),
            Place::Unix(path) => (path.display().to_string(), None),
        })
    }

    /// What tells one from another.
    pub fn key(&self) -> Arc<str> {
        match self {
            Self::Echo => "echo:".into(),
            Self::Site(site) => Arc::clone(&site.key),
        }
    }
}

impl Place {
    /// Whether it is on this machine or a private network: nobody sells anything there. A name is not looked up for it.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(host, _) => host.is_private(),
        }
    }
}

impl Base {
    /// Reads a base URL. `unix:` names a socket, whose path starts at `folder` if it is relative, and behind another
    /// colon the path of the API: `/v1` if there is none.
    pub fn parse(url: &str, folder: &Path) -> Result<Self, WrongUrl> {
        if let Some(rest) = url.strip_prefix("unix:") {
            return Self::socket(rest, folder);
        }
        let uri: Uri = url.parse().map_err(|_| WrongUrl::NotAUrl)?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) => return Err(WrongUrl::Scheme),
            None => return Err(WrongUrl::NotAUrl),
        };
        let authority = uri.authority().ok_or(WrongUrl::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(WrongUrl::UserInfo);
        }
        if uri.query().is_some() {
            return Err(WrongUrl::Query);
        }
        let default = if secure { 443 } else { 80 };
        let (host, port) = Host::of(authority, default).ok_or(WrongUrl::NotAUrl)?;
        Ok(Self {
            secure,
            place: Place::Tcp(host, port),
            authority: authority.as_str().into(),
            path: uri.path().trim_end_matches('/').into(),
        })
    }

    fn socket(rest: &str, folder: &Path) -> Result<Self, WrongUrl> {
        let (path, base) = match rest.rsplit_once(":/") {
            Some((path, base)) => (path, format!("/{base}")),
            None => (rest, "/v1".to_owned()),
        };
        let place = folder.join(path);
        let fits = std::os::unix::net::SocketAddr::from_pathname(&place).is_ok();
        if path.is_empty() || path.ends_with('/') || !fits {
            return Err(WrongUrl::Socket);
        }
        let like = Self::parse(&format!("http://localhost{base}"), folder)?;
        Ok(Self {
            place: Place::Unix(place),
            ..like
        })
    }

    /// The host and the port, unless it is a socket.
    pub fn tcp(&self) -> Option<(&Host, u16)> {
        match &self.place {
            Place::Tcp(host, port) => Some((host, *port)),
            Place::Unix(_) => None,
        }
    }
}

impl Host {
    /// The host and the port of an authority; none if either is wrong.
    pub(super) fn of(authority: &Authority, default: u16) -> Option<(Self, u16)> {
        let host = authority.host();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().ends_with(host) => default,
            // A port that is no number, or too large to be one.
            None => return None,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) if bare.is_empty() || bare.len() < host.len() => return None,
            Err(_) => Self::Name(bare.to_ascii_lowercase().into()),
        };
        Some((host, port))
    }

    fn is_private(&self) -> bool {
        match self {
            Self::Name(name) => {
                let name = name.trim_end_matches('.');
                // A name of one label cannot be registered by anybody, nor can one below these.
                !name.contains('.') || PRIVATE.iter().any(|domain| name.ends_with(domain))
            }
            Self::Address(address) => match address.to_canonical() {
                IpAddr::V4(four) => {
                    // What providers of networks share out among their customers, and overlay networks use.
                    let is_shared = matches!(four.octets(), [100, 64..128, ..]);
                    let is_own = four.is_loopback() || four.is_unspecified();
                    is_own || four.is_private() || four.is_link_local() || is_shared
                }
                IpAddr::V6(six) => {
                    let is_own = six.is_loopback() || six.is_unspecified();
                    is_own || six.is_unique_local() || six.is_unicast_link_local()
                }
            },
        }
    }
}

impl Default for Closes {
    fn default() -> Self {
        Self {
            made: Instant::now(),
            doubted_until: AtomicU64::new(0),
        }
    }
}

impl Closes {
    fn millis(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.made);
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }

    /// They may, until then.
    pub fn doubt(&self, until: Instant) {
        self.doubted_until
            .store(self.millis(until), Ordering::Relaxed);
    }

    /// Whether they may.
    pub fn is_doubted(&self, now: Instant) -> bool {
        self.millis(now) < self.doubted_until.load(Ordering::Relaxed)
    }
}

impl Servers {
    /// Of the server that connections with this key lead to. Those that no site leads to any more are forgotten.
    pub fn closes(&self, key: &Arc<str>) -> Arc<Closes> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, closes| Arc::strong_count(closes) > 1);
        Arc::clone(all.entry(Arc::clone(key)).or_default())
    }
}

impl Site {
    /// Puts a base URL and the way there together.
    pub fn new(base: Base, protocol: &dyn Protocol, way: Way<'_>) -> Result<Self, WrongUrl> {
        let offer = match way.http2 {
            true => Offer::Http2,
            false => Offer::Http1,
        };
        let tls = match base.tcp() {
            Some((host, _)) if base.secure => {
                let tls = way.trust.and_then(|trust| trust.tls(host, offer));
                Some(tls.ok_or(WrongUrl::Unprovable)?)
            }
            _ => None,
        };
        let scheme = if base.secure { "https" } else { "http" };
        let key = key(scheme, &base.place, &way).into();
        let via = match way.proxy {
            Some(proxy) => Some(Via {
                // What a proxy can read, neither encrypted nor HTTP/2, it is asked in so many words.
                tunnels: tls.is_some() || way.http2,
                ..Via::new(proxy, way.trust).ok_or(WrongUrl::Unprovable)?
            }),
            None => None,
        };
        let paths = Endpoint::asking().chain(Endpoint::LISTS);
        let paths = paths.map(|endpoint| format!("{}{}", base.path, protocol.path(endpoint)));
        let paths: Vec<String> = paths.collect();
        let whole = |path: &String| format!("{scheme}://{}{path}", base.authority);
        let read = |uri: String| uri.parse::<Uri>().map_err(|_| WrongUrl::NotAUrl);
        let absolute: Result<_, _> = paths.iter().map(whole).map(read).collect();
        let relative: Result<_, _> = paths.into_iter().map(read).collect();
        Ok(Self {
            authority: HeaderValue::from_str(&base.authority).map_err(|_| WrongUrl::NotAUrl)?,
            key,
            closes: Arc::default(),
            place: base.place,
            tls,
            via,
            http2: way.http2,
            relative: relative?,
            absolute: absolute?,
        })
    }

    /// Where an endpoint lies, in the form that a request line of HTTP/1.1 has: whole for a proxy that reads it.
    pub fn uri(&self, endpoint: Endpoint) -> &Uri {
        match &self.via {
            Some(via) if !via.tunnels => self.absolute(endpoint),
            _ => nth(&self.relative, endpoint),
        }
    }

    /// What a proxy is shown that reads the requests themselves; one that opens tunnels was shown it before.
    pub fn credential_of_proxy(&self) -> Option<&HeaderValue> {
        let via = self.via.as_ref().filter(|via| !via.tunnels)?;
        via.authorization.as_ref()
    }

    /// Where something lies below an endpoint. None: that would be no URI.
    fn below(&self, endpoint: Endpoint, rest: &str) -> Option<Below> {
        let read = |uri: &Uri| format!("{uri}{rest}").parse().ok();
        Some(Below {
            uri: read(self.uri(endpoint))?,
            absolute: read(self.absolute(endpoint))?,
        })
    }

    /// Where an endpoint lies, whole.
    pub fn absolute(&self, endpoint: Endpoint) -> &Uri {
        nth(&self.absolute, endpoint)
    }
}

/// The one of an endpoint. Those that no provider is asked for have none.
fn nth(uris: &[Uri], endpoint: Endpoint) -> &Uri {
    static NOWHERE: LazyLock<Uri> = LazyLock::new(Uri::default);
    let of_list = || Endpoint::LISTS.iter().position(|list| *list == endpoint);
    let place = endpoint.number().or_else(|| Some(ASKING + of_list()?));
    place.and_then(|place| uris.get(place)).unwrap_or(&NOWHERE)
}

/// All that tells connections apart. It is looked up for each request: where the way is the usual one, no more is said.
fn key(scheme: &str, place: &Place, way: &Way<'_>) -> String {
    let roots = way.trust.map_or(0, Trust::digest);
    if roots == 0 && way.proxy.is_none() && !way.http2 {
        return format!("{scheme}://{place}");
    }
    let mut hash = DefaultHasher::new();
    (roots, &way.proxy, way.http2).hash(&mut hash);
    format!("{scheme}://{place} {:x}", hash.finish())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::openai::OpenAi;

    fn base(url: &str) -> Result<Base, WrongUrl> {
        Base::parse(url, Path::new("/etc/tollgate"))
    }

    fn site(url: &str, way: Way<'_>) -> Site {
        Site::new(base(url).unwrap(), &OpenAi, way).unwrap()
    }

    #[test]
    fn what_is_private_is_known_by_its_name_or_address() {
        let is_private = |host: &str| {
            let base = base(&format!("http://{host}/v1"));
            base.unwrap().place.is_private()
        };
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost:1",
            "ollama",
            "gpu.local",
            "a.b.internal",
            "ollama.ai.svc",
            "ollama.ai.svc.cluster.local",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(is_private(host), "{host}");
        }
        for host in [
            "api.example",
            "local.example",
            "evil-internal.com",
            "8.8.8.8",
            "172.32.0.1",
            "192.169.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "[2001:db8::1]",
            "[::ffff:8.8.8.8]",
        ] {
            assert!(!is_private(host), "{host}");
        }
        let socket = base("unix:/run/engine.sock").unwrap();
        assert!(socket.place.is_private());
    }

    #[test]
    fn a_base_url_is_taken_apart() {
        let trust = Trust::of(Vec::new()).unwrap();
        let way = Way {
            trust: Some(&trust),
            ..Way::default()
        };
        let groq = site("https://api.groq.com/openai/v1/", way);
        assert!(groq.tls.is_some());
        assert_eq!(groq.place.to_string(), "api.groq.com:443");
        assert_eq!(groq.authority, "api.groq.com");
        let uri = groq.uri(Endpoint::ChatCompletions);
        assert_eq!(*uri, "/openai/v1/chat/completions");
        let uri = groq.absolute(Endpoint::ChatCompletions);
        assert_eq!(*uri, "https://api.groq.com/openai/v1/chat/completions");
        let six = site("http://[::1]:8080", Way::default());
        assert!(six.tls.is_none());
        let place = Place::Tcp(Host::Address("::1".parse().unwrap()), 8080);
        assert_eq!(six.place, place);
        assert_eq!(six.authority, "[::1]:8080");
        assert_eq!(*six.uri(Endpoint::Embeddings), "/embeddings");
    }

    #[test]
    fn a_socket_has_a_path_and_may_have_another() {
        for (url, path, models) in [
            ("unix:/run/engine.sock", "/run/engine.sock", "/v1/models"),
            (
                "unix:/run/engine.sock:/api/v1/",
                "/run/engine.sock",
                "/api/v1/models",
            ),
            ("unix:/run/engine.sock:/", "/run/engine.sock", "/models"),
            (
                "unix:engine.sock",
                "/etc/tollgate/engine.sock",
                "/v1/models",
            ),
        ] {
            let site = site(url, Way::default());
            assert_eq!(site.place, Place::Unix(path.into()), "{url}");
            assert_eq!(*site.uri(Endpoint::Models), models, "{url}");
            assert_eq!(site.authority, "localhost", "{url}");
        }
        let long = format!("unix:/{}", "x".repeat(200));
        for url in ["unix:", "unix::/v1", "unix:/run/", &long] {
            assert_eq!(base(url).unwrap_err(), WrongUrl::Socket, "{url}");
        }
        assert_eq!(base("unix:/x:/v1?y").unwrap_err(), WrongUrl::Query);
    }

    #[test]
    fn what_is_no_base_url_says_why() {
        for url in [
            "",
            "localhost:80",
            "/v1",
            "http://",
            "http:///v1",
            "not a url",
            "http://a:99999",
            "http://[::1",
            "http://[nonsense]",
        ] {
            assert_eq!(base(url).unwrap_err(), WrongUrl::NotAUrl, "{url}");
        }
        assert_eq!(base("ftp://a").unwrap_err(), WrongUrl::Scheme);
        assert_eq!(
            base("https://user:pass@a/v1").unwrap_err(),
            WrongUrl::UserInfo
        );
        assert_eq!(base("https://a/v1?key=x").unwrap_err(), WrongUrl::Query);
    }

    #[test]
    fn connections_that_differ_have_keys_that_differ() {
        let proxy = |text: &str| Some(Proxy::parse(text).unwrap());
        let plain = |proxy, http2| {
            let way = Way {
                proxy,
                http2,
                ..Way::default()
            };
            site("http://a:1/v1", way).key
        };
        let secure = |trust: &Trust| {
            let way = Way {
                trust: Some(trust),
                ..Way::default()
            };
            site("https://a:1/v1", way).key
        };
        let machine = Trust::of(Vec::new()).unwrap();
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let company = machine.and(made.cert.pem().as_bytes()).unwrap();
        let mut keys = vec![
            plain(None, false),
            plain(None, true),
            plain(proxy("http://p:1"), false),
            plain(proxy("http://q:1"), false),
            plain(proxy("http://me:secret@p:1"), false),
            plain(proxy("http://me:other@p:1"), false),
            secure(&machine),
            secure(&company),
            site("unix:/a", Way::default()).key,
            site("unix:/b", Way::default()).key,
        ];
        assert!(keys.iter().all(|key| !key.contains("secret")));
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all, "{keys:?}");
        assert_eq!(
            plain(None, false),
            site("http://a:1/v2", Way::default()).key
        );
    }
}
