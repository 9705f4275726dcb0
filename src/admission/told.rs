//! How is a limit told of: that it is reached, and what is left of it?

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use smol_str::SmolStr;

use super::window::MINUTE;
use crate::ledger::{Refused, Scope};
use crate::usage::Unit;

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// A caller's own.
    Key,
    /// That of several callers.
    Team,
    /// That of one model of one provider, whoever asks for it.
    Target,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Requests under way.
    Concurrency,
    /// Requests of a day.
    Rpd,
    /// Requests of a minute.
    Rpm,
    /// Tokens of a minute.
    Tpm,
    /// What is no token, of a minute.
    Unit(Unit),
}

impl What {
    /// The name that it has in the configuration, and as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Rpd => "rpd",
            Self::Rpm => "rpm",
            Self::Tpm => "tpm",
            Self::Unit(Unit::Characters) => "per_minute.characters",
            Self::Unit(Unit::Seconds) => "per_minute.seconds",
            Self::Unit(Unit::Images) => "per_minute.images",
            Self::Unit(Unit::Searches) => "per_minute.searches",
        }
    }
}

/// A limit is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Whose it is.
    pub whose: Whose,
    /// Its owner's name.
    pub name: SmolStr,
    /// What is limited.
    pub what: What,
    /// The limit.
    pub limit: u64,
    /// When there will be room, if nobody else takes it. Of requests under way nobody knows, unless there is a line of
    /// those who wait for them: a second.
    pub wait: Duration,
}

impl Limited {
    /// What a ledger says of the requests of a day, as seen from now. None: it says something else.
    pub fn of_day(refused: &Refused, now: SystemTime) -> Option<Self> {
        let Refused::Day {
            scope,
            name,
            limit,
            resets,
        } = refused
        else {
            return None;
        };
        Some(Self {
            whose: match scope {
                Scope::TeamRequests => Whose::Team,
                Scope::TargetRequests => Whose::Target,
                _ => Whose::Key,
            },
            name: name.clone(),
            what: What::Rpd,
            limit: *limit,
            wait: resets.duration_since(now).unwrap_or_default(),
        })
    }

    /// The limit, of which nothing is left.
    pub fn left(&self) -> Left {
        Left {
            what: self.what,
            limit: self.limit,
            left: 0,
            reset: self.wait,
        }
    }
}

impl std::error::Error for Limited {}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whose {
            Whose::Key => write!(f, "key {}", self.name),
            Whose::Team => write!(f, "team {}", self.name),
            // Whoever says so has named it.
            Whose::Target => write!(f, "it"),
        }?;
        let limit = self.limit;
        match self.what {
            What::Concurrency => write!(f, " has {limit} requests under way, which is the most"),
            What::Rpd => write!(f, " is at its limit of {limit} requests a day"),
            What::Rpm => write!(f, " is at its limit of {limit} requests a minute"),
            What::Tpm => write!(f, " is at its limit of {limit} tokens a minute"),
            What::Unit(unit) => write!(f, " is at its limit of {limit} {} a minute", unit.name()),
        }?;
        write!(f, " ({})", self.what.name())?;
        if self.what == What::Concurrency {
            return f.write_str("; try again when one of them has ended");
        }
        write!(f, "; there is room in {}", Span(self.wait))
    }
}

/// A duration as headers have it: `350ms`, `12.5s`, `6m0s`, `13h0m5s`. Rounded up.
#[derive(Clone, Copy, Debug)]
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_nanos().div_ceil(1_000_000);
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let (tenths, seconds) = (millis.div_ceil(100), millis.div_ceil(1_000));
        match seconds {
            _ if millis < 1_000 => write!(f, "{millis}ms"),
            0..60 => write!(f, "{}.{}s", tenths / 10, tenths % 10),
            60..3_600 => write!(f, "{}m{}s", seconds / 60, seconds % 60),
            _ => {
                let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
                write!(f, "{hours}h{minutes}m{}s", seconds % 60)
            }
        }
    }
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// What is limited.
    pub what: What,
    /// The limit.
    pub limit: u64,
    /// What is left of it now.
    pub left: u64,
    /// When all of it will be there again, if nothing more is taken.
    pub reset: Duration,
}

/// Tells in an answer's head what is left, in the words that clients of OpenAI know: those of requests and tokens.
pub fn tell(all: &[Left], headers: &mut HeaderMap) {
    const REQUESTS: [HeaderName; 3] = [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ];
    const TOKENS: [HeaderName; 3] = [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ];
    if all.is_empty() {
        return;
    }
    // One piece of memory for all of them: every answer has these.
    let mut text = BytesMut::with_capacity(128);
    let mut value = |shown: &str| {
        text.extend_from_slice(shown.as_bytes());
        HeaderValue::from_maybe_shared(text.split().freeze()).ok()
    };
    let mut digits = itoa::Buffer::new();
    headers.reserve(3 * all.len());
    for it in all {
        let [limit, left, reset] = match it.what {
            What::Rpm | What::Rpd => REQUESTS,
            What::Tpm => TOKENS,
            // They know no others.
            What::Concurrency | What::Unit(_) => continue,
        };
        let reset_value = match it.reset {
            // As a rule, for this very request was just counted.
            MINUTE => Some(HeaderValue::from_static("1m0s")),
            reset => value(&Span(reset).to_string()),
        };
        let most = value(digits.format(it.limit));
        let values = [most, value(digits.format(it.left)), reset_value];
        for (name, value) in [limit, left, reset].into_iter().zip(values) {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_clients_read_them() {
        for (millis, want) in [
            (0, "0ms"),
            (1, "1ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (12_340, "12.4s"),
            (59_000, "59.0s"),
            (59_999, "1m0s"),
            (60_000, "1m0s"),
            (3_599_001, "1h0m0s"),
            (46_805_000, "13h0m5s"),
        ] {
            let span = Span(Duration::from_millis(millis));
            assert_eq!(span.to_string(), want, "{millis}");
        }
        assert_eq!(Span(Duration::from_nanos(1)).to_string(), "1ms");
    }
}
