//! Who serves models, and what do they want different?
//!
//! A provider is data: where it is, what it must be shown, which format it speaks and what it wants changed. Knows
//! `envelope`, `protocol` and `usage`.

pub mod dropped;
pub mod echo;
pub mod egress;
pub mod errors;
pub mod rules;
pub mod site;
pub mod trust;
pub mod unfit;

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::protocol::Protocol;
pub use dropped::Dropped;
pub use rules::Rules;
pub use site::{Below, Origin, Site};

/// The built-in providers, in the very words of `gateway.toml`.
pub const PRESETS: &str = include_str!("presets.toml");

/// Someone who serves models.
pub struct Provider {
    /// Its name in the configuration.
    pub name: std::sync::Arc<str>,
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
    /// For how long what fails again and again is not asked, at first. Zero: it never rests.
    pub cooldown: Duration,
    /// How long what comes of a stream before its first content may be held back.
    pub prelude: Duration,
    /// How long a client may hear nothing of its stream before it is told that there is more to come. None: for ever.
    pub keepalive: Option<Duration>,
    /// Its streams end with the format's marker.
    pub done_marker: bool,
    /// What becomes of its answer when the client leaves, if an operator has said so.
    pub on_disconnect: Option<OnDisconnect>,
    /// It tells the usage of a stream if it is asked to.
    pub stream_usage: bool,
    /// Its own models are listed, too.
    pub discover: bool,
    /// The voices that it speaks with.
    pub voices: Voices,
}

/// Who says with which voices a provider speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Voices {
    /// It does, if anybody does. False: nobody.
    Asked(bool),
    /// An operator.
    Listed(Vec<Box<str>>),
}

/// What becomes of an answer whose client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Its provider is stopped at once.
    Abort,
    /// It is read on for so long, for the usage at its end.
    Finish(Duration),
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
