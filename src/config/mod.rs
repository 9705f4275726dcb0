//! What did the operator write? Data only: no behaviour, no handles, no clocks.
//!
//! The sections stand in the order of `gateway.toml`. Unknown fields are refused by name; fields that are promised but
//! not built are refused as "not yet" ([`load`] knows them). Knows no other room.

pub mod changes;
mod diagnostic;
pub mod keys;
pub mod load;
mod models;
pub mod money;
mod rules;
pub mod secret;
mod traces;
mod tree;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub use diagnostic::Diagnostic;
pub use keys::{Day, Key, Limits, PerMinute};
pub use models::{Adaptive, After, Hedge, Kind, Model, Queue, StickyBy, Strategy, Target};
pub use rules::{MessageRules, Rules, Unknown};
pub use secret::Secret;
pub use traces::Traces;
pub use value::parse_duration as duration;

/// A whole configuration, as written and merged, not yet checked for sense.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect, and what one of them may cost us.
    pub server: Server,
    /// Where operators and Prometheus connect.
    pub admin: Admin,
    /// Where spans of requests go. None: nowhere.
    pub traces: Option<Traces>,
    /// Where entries and budgets are kept.
    pub ledger: money::Ledger,
    /// Who serves models, by name; each already merged over its preset.
    pub providers: BTreeMap<String, Provider>,
    /// The names clients use.
    pub models: BTreeMap<String, Model>,
    /// Who may call.
    pub keys: BTreeMap<String, Key>,
    /// Keys that share a budget.
    pub teams: BTreeMap<String, keys::Team>,
    /// For keys that say nothing of their own.
    pub defaults: keys::Defaults,
    /// What all may spend together.
    pub total: money::Total,
}

/// `[server]`: the listener for clients and its limits.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// One address or several.
    #[serde(deserialize_with = "value::listen")]
    pub listen: Vec<Listen>,
    /// What is spoken with those who connect over the network; by default no TLS.
    pub tls: Option<Tls>,
    /// Whether callers without a key are let in.
    #[serde(deserialize_with = "value::open")]
    pub open: Open,
    /// The public names of this gateway, on both listeners: a `Host` that is neither one of these, nor an address, nor a
    /// name that no public DNS has, gets 403. `*.example.com` stands for all names below, `*` for any.
    pub names: Vec<String>,
    /// Origins of web pages that may call; `*` stands for any. A page of any other gets 403.
    pub cors: Vec<String>,
    /// How access lines and other lines are written to standard output.
    pub log: Log,
    /// A file that access lines go to instead, as JSON.
    pub access_log: Option<PathBuf>,
    /// How long it may grow, in bytes, before it becomes `FILE.1` and is begun anew. Zero: it grows.
    #[serde(deserialize_with = "value::size")]
    pub access_log_size: u64,
    /// A file with a line of JSON for each request that says why it went where it went, without a word of its text.
    pub decision_log: Option<PathBuf>,
    /// How long it may grow, in bytes, before it becomes `FILE.1` and is begun anew. Zero: it grows.
    #[serde(deserialize_with = "value::size")]
    pub decision_log_size: u64,
    /// Whether the configuration is read again when something else stands in its file, or in one that it refers to.
    pub watch: bool,
    /// The longest request body, in bytes; 413 above it.
    #[serde(deserialize_with = "value::size")]
    pub max_body: u64,
    /// The bodies of all requests under way together, in bytes; 503 above it.
    #[serde(deserialize_with = "value::size")]
    pub max_body_memory: u64,
    /// How many connections are served at once; further ones wait in the listener's queue.
    #[serde(deserialize_with = "value::count")]
    pub max_connections: usize,
    /// How many requests are under way at once; 503 above it.
    #[serde(deserialize_with = "value::count")]
    pub max_in_flight: usize,
    /// How long the answer to a request with an `Idempotency-Key` is kept for its retries. Zero: the header is passed on,
    /// and nothing else is done with it.
    #[serde(deserialize_with = "value::duration_or_zero")]
    pub replay: Duration,
    /// The answers that are kept together, in bytes; the oldest go first.
    #[serde(deserialize_with = "value::size")]
    pub replay_memory: u64,
    /// From the first byte of a request to the end of its head.
    #[serde(deserialize_with = "value::duration")]
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    #[serde(deserialize_with = "value::duration")]
    pub body_timeout: Duration,
    /// How long a connection may stay open between requests.
    #[serde(deserialize_with = "value::duration")]
    pub idle_timeout: Duration,
    /// How long a client may leave bytes unread.
    #[serde(deserialize_with = "value::duration")]
    pub write_timeout: Duration,
    /// How long answers under way may take to finish once we are told to stop.
    #[serde(deserialize_with = "value::duration_or_zero")]
    pub drain: Duration,
    /// How long listeners stay open after readiness has dropped.
    #[serde(deserialize_with = "value::duration_or_zero")]
    pub drain_delay: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 4000)))],
            tls: None,
            open: Open::Auto,
            names: Vec::new(),
            cors: Vec::new(),
            log: Log::Text,
            access_log: None,
            access_log_size: 256 << 20,
            decision_log: None,
            decision_log_size: 256 << 20,
            watch: true,
            max_body: 64 << 20,
            max_body_memory: 1 << 30,
            max_connections: 20_000,
            max_in_flight: 10_000,
            replay: Duration::from_secs(600),
            replay_memory: 64 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
        }
    }
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At an address.
    Tcp(SocketAddr),
    /// At a path, relative to the configuration file: `unix:/run/tollgate.sock`.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can connect.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// What proves who we are: files of PEM, which are read again when something else stands in them.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table such as { cert = \"tls.crt\", key = \"tls.key\" }"
)]
pub struct Tls {
    /// Our certificate, and those that lead from it to a root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose certificates clients must have; by default they need none.
    pub client_ca: Option<PathBuf>,
}

/// Whether callers without a key are let in, as the one caller `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Only while no key is written and every listener is loopback or a unix socket.
    Auto,
    /// Never.
    No,
    /// Always.
    Yes,
}

/// How lines are written to standard output.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// One JSON object a line.
    Json,
    /// No access lines on standard output; other lines as text.
    Off,
    /// For people.
    Text,
}

/// `[admin]`: the operator's own listener.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// `/metrics`, `/health*` and `/admin/*` are served here.
    #[serde(deserialize_with = "value::listen")]
    pub listen: Vec<Listen>,
    /// As at the listener for clients.
    pub tls: Option<Tls>,
    /// What opens `/admin/*`. Without one it can only be read, and only while every listener is loopback or a unix socket.
    pub token: Option<Secret>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 4001)))],
            tls: None,
            token: None,
        }
    }
}

/// `[providers.NAME]`: someone who serves models.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that an operator writes"
)]
pub struct Provider {
    /// The preset this entry is merged over; by default the one of its own name.
    pub preset: Option<String>,
    /// With its version segment (`https://api.openai.com/v1`); `unix:/run/engine.sock` is HTTP over a socket, with `/v1`
    /// unless another path follows a colon; `echo:` is answered in process.
    pub base_url: Option<String>,
    /// In a preset that has no `base_url`: what one looks like, for the message that asks for it.
    pub base_url_example: Option<String>,
    /// The URL of an HTTP proxy to leave through, which may hold a user name and a password; `direct` is none. By default
    /// the environment's: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, and their lower case.
    pub proxy: Option<Secret>,
    /// A PEM file of roots that are trusted beside the machine's.
    pub ca_file: Option<PathBuf>,
    /// HTTP/2: over TLS it is offered, over TCP and sockets it is spoken at once.
    pub http2: bool,
    /// Sent in the header that `auth` names.
    pub api_key: Option<Secret>,
    /// The header the key goes in.
    pub auth: Auth,
    /// Further request headers to send.
    pub headers: BTreeMap<String, String>,
    /// Further request headers of the client's to pass on.
    pub forward: Vec<String>,
    /// The clocks of one try.
    pub timeouts: Timeouts,
    /// How often one target is asked, the first time included.
    #[serde(deserialize_with = "value::tries")]
    pub tries: u32,
    /// For how long what fails again and again is not asked, at first; each further rest is twice as long, up to a minute.
    /// Zero: it never rests.
    #[serde(deserialize_with = "value::duration_or_zero")]
    pub cooldown: Duration,
    /// How long what comes of a stream before its first content may be held back, at most 64 KiB of it; then it is passed
    /// on, and nobody else is asked any more. By default as long as `first_content`, whose clock then ends the try first.
    #[serde(deserialize_with = "value::some_duration")]
    pub prelude: Option<Duration>,
    /// A client that has heard nothing of its stream for so long gets the status and a comment, and one more as often;
    /// `"0s"`: never.
    #[serde(deserialize_with = "value::keepalive")]
    pub keepalive: Duration,
    /// Its streams end with `[DONE]`; without it a stream that ends is a stream that was cut.
    pub done_marker: bool,
    /// What becomes of what it was sent when the client leaves: `"abort"`, or `"finish:10s"`. By default it is stopped at
    /// once, but for targets marked `reasoning`, which are read on for a minute.
    #[serde(deserialize_with = "value::on_disconnect")]
    pub on_disconnect: Option<OnDisconnect>,
    /// It takes `stream_options.include_usage`, so tollgate may ask for usage on the client's behalf.
    pub stream_usage: bool,
    /// Its own models are listed, too, where clients ask for those there are.
    pub discover: bool,
    /// The voices that it speaks with: a list of them, or `true`, where it is asked for them itself.
    pub voices: Voices,
    /// The section of the list of prices that its models are in; by default none, and what they cost is not known.
    pub prices: Option<String>,
    /// Its answers cost nothing: a price of 0 for every model. If nothing is said: whether it is `local`, and on this
    /// machine or a private network.
    pub free: Option<bool>,
    /// In a preset: a server of one's own.
    pub local: bool,
    /// What it wants different.
    pub rules: Rules,
    /// What it wants different for models whose name, as it calls them, matches a pattern with `*`; of several patterns
    /// the longest. Laid over `rules`: lists are joined, tables overridden by key, single values replaced.
    pub rules_for: BTreeMap<String, Rules>,
    /// What may be spent with it.
    pub budget: Option<money::Budget>,
    /// In a preset: nobody has replayed this provider's own words against it. Changes nothing.
    pub unverified: bool,
}

/// Who says with which voices a provider speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Voices {
    /// Nobody: it has none that anybody knows of.
    #[default]
    Unknown,
    /// It does, at `/audio/voices`.
    Asked,
    /// The configuration.
    Listed(Vec<String>),
}

/// What becomes of an answer whose client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Its provider is stopped at once.
    Abort,
    /// It is read on for so long, for the usage at its end.
    Finish(Duration),
}

/// The header a provider's key goes in.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// `api-key: KEY`.
    ApiKey,
    /// `authorization: Bearer KEY`.
    #[default]
    Bearer,
    /// `x-api-key: KEY`.
    XApiKey,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            preset: None,
            base_url: None,
            base_url_example: None,
            proxy: None,
            ca_file: None,
            http2: false,
            api_key: None,
            auth: Auth::default(),
            headers: BTreeMap::new(),
            forward: Vec::new(),
            timeouts: Timeouts::default(),
            tries: 2,
            cooldown: Duration::from_secs(2),
            prelude: None,
            keepalive: Duration::from_secs(15),
            done_marker: true,
            on_disconnect: None,
            stream_usage: true,
            discover: false,
            voices: Voices::default(),
            prices: None,
            free: None,
            local: false,
            rules: Rules::default(),
            rules_for: BTreeMap::new(),
            budget: None,
            unverified: false,
        }
    }
}

/// The clocks of one try. Each names itself in its error.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// To a connection: the look-up of its name, its proxy and TLS included.
    #[serde(deserialize_with = "value::duration")]
    pub connect: Duration,
    /// To the head of the answer.
    #[serde(deserialize_with = "value::duration")]
    pub first_byte: Duration,
    /// To the first content: a token, a tool call, a whole short answer.
    #[serde(deserialize_with = "value::duration")]
    pub first_content: Duration,
    /// Between two pieces of an answer.
    #[serde(deserialize_with = "value::duration")]
    pub idle: Duration,
    /// For the whole of it.
    #[serde(deserialize_with = "value::duration")]
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            first_content: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}
