//! Who may call, and how much may they do?

use std::fmt;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use super::money::{Budget, Shortfall};
use super::{Secret, value};

/// `[keys.NAME]`: someone who may call.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Key {
    /// The key itself, or where it stands.
    pub key: Option<Secret>,
    /// Or only its digest: `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
    /// What this caller may ask for: names, or patterns with `*`. Default: everything.
    pub models: Option<Vec<String>>,
    /// Refused from 00:00 UTC of this day.
    #[serde(deserialize_with = "value::day")]
    pub expires: Option<Day>,
    /// With whom it shares a budget, besides its own.
    pub team: Option<String>,
    /// What it may do. Default: as `[defaults]` says, each by each.
    pub limits: Limits,
    /// What it may spend. Default: as `[defaults]` says.
    pub budget: Option<Budget>,
    /// What becomes of a request whose worst case is more than is left. Default: as `[defaults]` says.
    pub on_shortfall: Option<Shortfall>,
    /// To what its requests are charged further, where they do not say themselves.
    pub tags: Vec<String>,
    /// With `x-tollgate-explain: 1` it may have kept why a request went where it went.
    pub explain: bool,
    /// So many bytes of what it asks and as many of what it is answered are logged, at most. Default: no text is.
    #[serde(deserialize_with = "value::text")]
    pub log_bodies: Option<usize>,
    /// Its share where requests wait in line for a target, from 1 to 100.
    #[serde(deserialize_with = "value::share")]
    pub weight: Option<u32>,
}

/// A day of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Its first second, counted from 1970.
    pub starts: u64,
}

/// As it is written: `2027-01-31`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years that begin in March have their odd day at their end; every 400 of them have as many days.
        let days = self.starts / 86_400 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, later) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        write!(f, "{:04}-{month:02}-{day:02}", era * 400 + year + later)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// `[teams.NAME]`: keys that share a budget and limits.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Team {
    /// Names of keys that are in it, beside those that say so themselves.
    pub members: Vec<String>,
    /// What all of its keys may do together.
    pub limits: Limits,
    /// What all of its keys may spend together.
    pub budget: Option<Budget>,
}

/// `[defaults]`: for keys that say nothing of their own.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// What each of them may do.
    pub limits: Limits,
    /// What each of them may spend; each has an account of its own.
    pub budget: Option<Budget>,
    /// What becomes of a request whose worst case is more than is left.
    pub on_shortfall: Shortfall,
    /// The output, in tokens, that a caller with a budget is sent and charged for if it gives no limit.
    #[serde(deserialize_with = "value::tokens")]
    pub output_cap: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            budget: None,
            on_shortfall: Shortfall::Clamp,
            output_cap: 4_096,
        }
    }
}

/// How much may be done at once, in a minute, in a day. What is not given is not limited.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests in any 60 seconds.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u64>,
    /// Tokens in any 60 seconds, of input and output.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Requests of a day, in UTC.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub rpd: Option<u64>,
    /// Requests under way.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// What is no token.
    #[serde(skip_serializing_if = "PerMinute::is_empty")]
    pub per_minute: PerMinute,
}

/// How much that is no token may be had in any 60 seconds. What is not given is not limited.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct PerMinute {
    /// Characters of text that are spoken.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub characters: Option<u64>,
    /// Seconds of sound that are heard.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Pictures that are made.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Searches, as those who rank documents bill them.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub searches: Option<u64>,
}

impl PerMinute {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn or(self, others: Self) -> Self {
        Self {
            characters: self.characters.or(others.characters),
            seconds: self.seconds.or(others.seconds),
            images: self.images.or(others.images),
            searches: self.searches.or(others.searches),
        }
    }
}

impl Limits {
    /// These, and others where nothing is written.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            rpm: self.rpm.or(others.rpm),
            tpm: self.tpm.or(others.tpm),
            rpd: self.rpd.or(others.rpd),
            concurrency: self.concurrency.or(others.concurrency),
            per_minute: self.per_minute.or(others.per_minute),
        }
    }
}

/// A whole number from 1 on: who may do nothing at all is better told so.
fn limit<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(d)? {
        n @ 1..=1_000_000_000_000 => Ok(Some(n)),
        n => Err(D::Error::custom(format_args!(
            "{n} is no limit; write a number from 1 to 1000000000000, and shut a key out with `tollgate keys revoke`"
        ))),
    }
}
