//! What is a fault, and what must come of it? A provider's act, where it is met, and what the contract makes of it.

use crate::support::Act;
use crate::support::http2::{Manners, Refuses};
use crate::{answers, errors, recorded, ways};

/// The clocks of what stalls. All others are as they are without being told.
pub const SHORT: &str = "timeouts = { connect = \"1s\", first_content = \"1s\", idle = \"1s\" }";

/// The same, and a client hears that it is waited for.
const KEPT: &str =
    "timeouts = { connect = \"1s\", first_content = \"1s\", idle = \"1s\" }\nkeepalive = \"100ms\"";

/// All faults, in the order of an answer's life.
pub fn all() -> Vec<Fault> {
    let kinds = [
        ways::connections(),
        ways::tls(),
        answers::before_the_answer(),
        answers::no_answers(),
        answers::in_the_middle(),
        answers::ends(),
        answers::stalls(),
        answers::behind_comments(),
        answers::lines(),
        errors::statuses(),
        errors::limits(),
        errors::error_forms(),
        errors::errors_in_streams(),
        ways::kept_connections(),
        ways::http2(),
    ];
    kinds.into_iter().flatten().collect()
}

/// Where a provider is met.
#[derive(Clone, Debug)]
pub enum Place {
    /// Over plain TCP.
    Plain,
    /// Its connections are taken by the system, and looked at so late.
    Late,
    /// Its connections are not taken: the queue for them is full.
    Full,
    /// Nobody listens.
    Nowhere,
    /// Nobody has this name.
    Name(String),
    /// Over TLS, proving to be trusted, unknown, somebody else, or somebody until long ago.
    Tls(Proof),
    /// It speaks TLS, and is spoken to without.
    TlsOnly,
    /// It speaks no TLS, and is spoken to with.
    NoTls,
    /// It takes connections, and never answers a handshake.
    Silent,
    /// Over HTTP/2, known beforehand.
    Http2(Manners),
    /// The same, and while it answers it says that it takes no more requests.
    Parting,
    /// It speaks no HTTP/2, and is spoken to with.
    NoHttp2,
}

/// What a provider proves over TLS.
#[derive(Clone, Copy, Debug)]
pub enum Proof {
    Trusted,
    Unknown,
    Elsewhere,
    Expired,
}

/// What must come of a fault where its target is the only one.
#[derive(Clone, Debug)]
pub enum Comes {
    /// The client sees the whole answer.
    Whole,
    /// The client sees it of the second try; the first came to this, and was billed or not.
    Again(&'static str, Billed),
    /// It fails before anything of it is shown. With a status and a code where nobody else can help.
    Fails {
        seen: (u16, &'static str),
        outcome: &'static str,
        /// How often it is asked: alone, and where another can be asked.
        asked: (usize, usize),
        billed: Billed,
    },
    /// It is the client's fault, and is told in these words. `elsewhere`: another may know better.
    Clients {
        seen: (u16, &'static str),
        elsewhere: bool,
    },
    /// The client has seen some of it, and sees that this is not all: an error of this code, or, of an answer in one
    /// piece, a broken connection.
    Breaks {
        code: Option<&'static str>,
        end: &'static str,
        told: Told,
    },
}

/// Whether a try that came to nothing has an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Billed {
    Yes,
    No,
}

/// Whether the provider told what its answer used, before it failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    Yes,
    No,
}

/// How an answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Stream,
    Whole,
}

/// One way to ask: what the provider does then, what a client hears who hears it all, and what comes of it.
#[derive(Clone, Debug)]
pub struct Play {
    pub acts: Vec<Act>,
    pub hears: Vec<u8>,
    pub comes: Comes,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Fault {
    pub name: String,
    pub place: Place,
    /// So many requests are made before, on the same connection.
    pub before: usize,
    /// More lines of its provider.
    pub lines: &'static str,
    /// A client that waits for a stream hears comments, and has its status with the first of them.
    pub comments: bool,
    pub stream: Option<Play>,
    pub whole: Option<Play>,
}

impl Fault {
    /// One that comes to the same, however it is asked.
    pub fn both(name: &str, comes: &Comes, stream: Act, whole: Act) -> Self {
        Self::of(name).streams(stream, comes).wholes(whole, comes)
    }

    /// One that does the same, however it is asked.
    pub fn any(name: &str, comes: &Comes, act: Act) -> Self {
        Self::both(name, comes, act.clone(), act)
    }

    /// Asked in this way. None: it is not met so.
    pub fn play(&self, mode: Mode) -> Option<&Play> {
        match mode {
            Mode::Stream => self.stream.as_ref(),
            Mode::Whole => self.whole.as_ref(),
        }
    }

    /// One that shows in no way of asking yet.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            place: Place::Plain,
            before: 0,
            lines: "",
            comments: false,
            stream: None,
            whole: None,
        }
    }

    /// Asked for a stream.
    pub fn streams(mut self, act: Act, comes: &Comes) -> Self {
        self.stream = Some(Play {
            acts: vec![act],
            hears: recorded::HEARD.into(),
            comes: comes.clone(),
        });
        self
    }

    /// Asked for an answer in one piece.
    pub fn wholes(mut self, act: Act, comes: &Comes) -> Self {
        self.whole = Some(Play {
            acts: vec![act],
            hears: recorded::WHOLE.into(),
            comes: comes.clone(),
        });
        self
    }

    /// And it comes to this.
    pub fn comes(mut self, comes: &Comes) -> Self {
        for play in [&mut self.stream, &mut self.whole].into_iter().flatten() {
            play.comes = comes.clone();
        }
        self
    }

    /// Met elsewhere.
    pub fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Whether its target's breaker opens, should it happen again and again: not by what is busy or wrongly asked. What does
    /// well at first does not happen five times in a row; and behind comments it is the same fault.
    pub fn opens(&self, mode: Mode) -> bool {
        let fails = |play: &Play| match &play.comes {
            Comes::Fails { outcome, .. } => *outcome != "rate_limited",
            Comes::Breaks { .. } => true,
            Comes::Whole | Comes::Again(..) | Comes::Clients { .. } => false,
        };
        self.before == 0 && !self.comments && self.play(mode).is_some_and(fails)
    }

    /// Met while comments keep the client waiting.
    pub fn behind_comments(mut self) -> Self {
        self.comments = true;
        self.with(KEPT)
    }

    /// With more lines of its provider.
    pub fn with(mut self, lines: &'static str) -> Self {
        self.lines = lines;
        self
    }

    /// A client that hears a stream to its end hears this.
    pub fn hears(mut self, hears: impl Into<Vec<u8>>) -> Self {
        if let Some(stream) = &mut self.stream {
            stream.hears = hears.into();
        }
        self
    }

    /// So often does it do well before, on the same connection, by `acts`; and afterwards as well.
    pub fn after(mut self, times: usize, stream: &Act, whole: &Act) -> Self {
        self.before = times;
        for (play, act) in [(&mut self.stream, stream), (&mut self.whole, whole)] {
            if let Some(play) = play {
                for _ in 0..times {
                    play.acts.insert(0, act.clone());
                }
            }
        }
        self
    }

    /// And then it does well.
    pub fn then_well(mut self) -> Self {
        if let Some(play) = &mut self.stream {
            play.acts.push(recorded::good_stream());
        }
        if let Some(play) = &mut self.whole {
            play.acts.push(recorded::good_whole());
        }
        self
    }
}

/// Manners of a provider that refuses streams unread.
pub fn refuses(refuses: Refuses) -> Place {
    Place::Http2(Manners {
        refuses,
        ..Manners::default()
    })
}
