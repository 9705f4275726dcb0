//! Who has a key that was made while the gateway ran, or beside it? And how one is made, changed and revoked.
//!
//! What such a key may do is said in the words of gateway.toml, so it is read, checked and compiled as if it stood there.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::fmt_http_date;
use serde::Serialize;

use super::keys::{self, Budgets, Owners};
use super::{Plan, State, money};
use crate::admission::{self, Caller, Digest, Register};
use crate::config::{self, Day, Diagnostic};
use crate::ledger::{KeyError, Keys, MadeKey};

/// The longest name of a key that is made, in characters.
const LONGEST: usize = 64;

/// The longest terms, in bytes.
const MOST: usize = 16 << 10;

/// Why a key was not made, changed or revoked. Nothing was.
#[derive(Debug, thiserror::Error)]
pub enum NoKey {
    /// Its name is none.
    #[error(
        "a key's name is made of letters, digits and `.`, `_`, `-`, `@`, `+`, at most {LONGEST} of them"
    )]
    Name,
    /// What it may do is not said in the right words.
    #[error("{}", .0.join("; "))]
    Flawed(Vec<String>),
    /// It stands in the configuration.
    #[error(
        "the key {0} stands in the configuration: change it there; it can only be revoked from here"
    )]
    Written(Box<str>),
    /// There is none.
    #[error("there is no key {0}; `tollgate keys list` shows those there are")]
    Unknown(Box<str>),
    /// The ledger has reasons.
    #[error(transparent)]
    Ledger(#[from] KeyError),
    /// The machine has no random numbers.
    #[error("the machine gave no random numbers for a key: {0}")]
    Random(getrandom::Error),
}

/// Makes a key that may do what `terms` say, and gives it: it is kept nowhere.
pub fn make(
    plan: &Plan,
    made: &Keys,
    name: &str,
    terms: &str,
    now: SystemTime,
) -> Result<String, NoKey> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    if name.is_empty() || name.chars().count() > LONGEST || !name.chars().all(is_plain) {
        return Err(NoKey::Name);
    }
    if plan.keyring.has(name) {
        return Err(NoKey::Written(name.into()));
    }
    let mut flaws = Vec::new();
    match read(terms) {
        Ok(key) => {
            flaws = plan.common.flaws(name, &key);
            let at = ["keys", name, "budget"];
            money::budget(&at, key.budget.as_ref(), &mut flaws);
            if key.budget.is_some() && plan.keyring.stays_open() {
                flaws.push(Diagnostic::new(["server", "open"], keys::with_budget(name)));
            }
            if key.key.is_some() || key.digest.is_some() {
                let message = "a key that is made has neither `key` nor `digest`: it is given one";
                flaws.push(Diagnostic::new(["keys", name], message));
            }
            if key.log_bodies.is_some() {
                let message = "a key that is made has no `log_bodies`: whose text is logged must stand in the configuration";
                flaws.push(Diagnostic::new(["keys", name], message));
            }
        }
        Err(wrong) => flaws.push(Diagnostic::new(["keys", name], wrong)),
    }
    if !flaws.is_empty() {
        let lines = flaws.iter().map(Diagnostic::to_string);
        return Err(NoKey::Flawed(lines.collect()));
    }
    let key = admission::new_key().map_err(NoKey::Random)?;
    made.add(name, Digest::of(&key).bytes(), terms, now)?;
    Ok(key)
}

/// Gives somebody another key; the one before is good for so long still. Gives the key, and when the other ends.
pub fn rotate(
    plan: &Plan,
    keys: &Keys,
    name: &str,
    grace: Duration,
    now: SystemTime,
) -> Result<(String, SystemTime), NoKey> {
    let key = admission::new_key().map_err(NoKey::Random)?;
    let until = now.checked_add(grace).unwrap_or(now);
    match keys.rotate(name, Digest::of(&key).bytes(), until) {
        Err(KeyError::Missing(name)) if plan.keyring.has(&name) => Err(NoKey::Written(name)),
        Err(why) => Err(why.into()),
        Ok(()) => Ok((key, until)),
    }
}

/// Revokes a key for good, also one that stands in the configuration.
pub fn revoke(plan: &Plan, keys: &Keys, name: &str, now: SystemTime) -> Result<(), NoKey> {
    if !plan.keyring.has(name) && !keys.has(name)? {
        return Err(NoKey::Unknown(name.into()));
    }
    Ok(keys.revoke(name, now)?)
}

/// What is told of a key.
#[derive(Debug, Default, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// `file` or `made`. Of those of the configuration only a part is told: it says the rest.
    pub source: &'static str,
    /// `live`, `expired` or `revoked`.
    pub state: &'static str,
    /// Since when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
    /// Until when the one before is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_until: Option<String>,
    /// The team that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// What it may ask for. None: everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Its own limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<config::Limits>,
    /// Its own budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<config::money::Budget>,
    /// From when on it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Day>,
    /// What its requests are charged to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its turns where requests wait in line. None: one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// It may have kept why its requests went where they went.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
}

/// Every key there is, by name: those of the configuration, and those that were made.
pub fn list(plan: &Plan, keys: &Keys, now: SystemTime) -> Result<Vec<Listed>, NoKey> {
    let (_, rows) = keys.since(0)?;
    let revoked = rows.iter().filter(|row| row.revoked.is_some());
    let revoked: HashSet<&str> = revoked.map(|row| &*row.name).collect();
    let today = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let state = |name: &str, expires: Option<Day>| match expires {
        _ if revoked.contains(name) => "revoked",
        Some(day) if day.starts <= today => "expired",
        _ => "live",
    };
    let written = plan.keyring.callers().map(|caller| {
        let expires = caller
            .expires
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let expires = expires.map(|at| Day {
            starts: at.as_secs(),
        });
        Listed {
            name: caller.name.to_string(),
            source: "file",
            state: state(&caller.name, expires),
            team: caller.team.as_deref().map(str::to_owned),
            models: caller.models.as_deref().map(<[String]>::to_vec),
            expires,
            weight: Some(caller.weight).filter(|weight| *weight > 1),
            explain: caller.explains,
            ..Listed::default()
        }
    });
    let made = rows.iter().filter(|row| row.digest.is_some()).map(|row| {
        // What this version cannot read lets nobody in.
        let key = read(&row.terms).unwrap_or_default();
        let older = row.older.filter(|(_, until)| *until > now);
        Listed {
            name: row.name.to_string(),
            source: "made",
            state: state(&row.name, key.expires),
            made: Some(fmt_http_date(row.made)),
            older_until: older.map(|(_, until)| fmt_http_date(until)),
            team: key.team,
            models: key.models,
            limits: Some(key.limits).filter(|limits| *limits != config::Limits::default()),
            budget: key.budget,
            expires: key.expires,
            tags: key.tags,
            weight: key.weight,
            explain: key.explain,
        }
    });
    let mut all: Vec<Listed> = written.chain(made).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// What a key may do.
pub fn read(terms: &str) -> Result<config::Key, String> {
    if terms.len() > MOST {
        return Err(format!("this is longer than {MOST} bytes"));
    }
    serde_json::from_str(terms).map_err(|wrong| {
        let text = wrong.to_string();
        let plain = text.split(" at line ").next();
        plain.unwrap_or(&text).to_owned()
    })
}

impl Plan {
    /// Lets in those who were made since, and no longer those who were revoked.
    pub(crate) fn admit(&self, state: &State, changed: &[MadeKey], made: &mut Register) {
        let mut budgets = Budgets::new();
        for row in changed {
            match (row.revoked, self.bearers(state, row, &mut budgets)) {
                (Some(_), _) => made.revoke(&row.name),
                (None, Ok(bearers)) => made.admit(bearers, &row.name),
                (None, Err(wrong)) => {
                    // A later version may have made it.
                    made.admit([], &row.name);
                    tracing::error!(key = &*row.name, %wrong, "a key that was made is not let in");
                }
            }
        }
        state.ledger.allow(&budgets);
        let names = changed.iter().map(|row| row.name.clone());
        state.telemetry.metrics.label_keys(names);
    }

    /// Somebody by the key there is, and by the one before for as long as that is good.
    fn bearers(
        &self,
        state: &State,
        row: &MadeKey,
        budgets: &mut Budgets,
    ) -> Result<Vec<Caller>, String> {
        let Some(digest) = row.digest else {
            return Ok(Vec::new());
        };
        let key = read(&row.terms)?;
        let mut flaws = Vec::new();
        let budget = money::budget(&["budget"], key.budget.as_ref(), &mut flaws);
        if let Some(flaw) = flaws.first() {
            return Err(flaw.to_string());
        }
        let owners = Owners {
            ledger: &state.ledger,
            gates: &state.gates,
        };
        let caller = self
            .common
            .caller(owners, (&row.name, digest.into()), &key, budget, budgets);
        let mut bearers = Vec::new();
        if let Some((older, until)) = row.older {
            let expires = caller.expires.map_or(until, |expires| expires.min(until));
            bearers.push(Caller {
                digest: older.into(),
                expires: Some(expires),
                ..caller.clone()
            });
        }
        bearers.push(caller);
        Ok(bearers)
    }
}
