//! `tollgate keys`: made, listed, given anew, revoked. Straight in the ledger's file, so that a gateway need not run; one
//! that does sees it within a second.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value, json};

use super::usage::aligned;
use super::{Failed, Loaded};
use crate::config::load::Source;
use crate::config::money::Written;
use crate::config::secret::Environment;
use crate::ledger::{Keys, Ledger, OpenError, Place};
use crate::plan::made::{self, Listed};
use crate::plan::{Plan, money};

/// What a new key may do, as it is typed.
#[derive(Debug, Default, clap::Args)]
pub struct Terms {
    /// A model that it may ask for, or a pattern such as groq/*; again for more. Default: all
    #[arg(long = "model", value_name = "PATTERN")]
    models: Vec<String>,
    /// The team that it is in
    #[arg(long)]
    team: Option<String>,
    /// Requests in any 60 seconds
    #[arg(long)]
    rpm: Option<u64>,
    /// Tokens in any 60 seconds
    #[arg(long)]
    tpm: Option<u64>,
    /// Requests of a day
    #[arg(long)]
    rpd: Option<u64>,
    /// What is no token, in any 60 seconds: characters, seconds, images or searches; again for more
    #[arg(long, value_name = "UNIT=N", value_parser = per_minute)]
    per_minute: Vec<(String, u64)>,
    /// Requests under way
    #[arg(long)]
    concurrency: Option<u64>,
    /// What it may spend, in US dollars: 25/month; per hour, day, week, month or total
    #[arg(long, value_name = "USD/PER")]
    budget: Option<String>,
    /// From which part of its budget on operators are told: 0.8
    #[arg(long, requires = "budget")]
    warn: Option<String>,
    /// What becomes of a request that its budget does not cover: clamp, refuse
    #[arg(long)]
    on_shortfall: Option<String>,
    /// Refused from 00:00 UTC of this day: 2027-01-31
    #[arg(long)]
    expires: Option<String>,
    /// What its requests are charged to; again for more
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Its turns where requests wait in line for a target: 1 to 100
    #[arg(long)]
    weight: Option<u32>,
    /// With `x-tollgate-explain: 1` it may have kept why its request went where it went
    #[arg(long)]
    explain: bool,
}

impl Terms {
    /// In the words of gateway.toml.
    fn json(&self) -> Result<String, Failed> {
        let mut terms = Map::new();
        if !self.models.is_empty() {
            terms.insert("models".into(), json!(self.models));
        }
        let texts = [
            ("team", &self.team),
            ("on_shortfall", &self.on_shortfall),
            ("expires", &self.expires),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                terms.insert(name.into(), json!(text));
            }
        }
        let limits = [
            ("rpm", self.rpm),
            ("tpm", self.tpm),
            ("rpd", self.rpd),
            ("concurrency", self.concurrency),
        ];
        let limits = limits
            .into_iter()
            .filter_map(|(name, limit)| Some((name.into(), json!(limit?))));
        let mut limits: Map<String, Value> = limits.collect();
        let units = self.per_minute.iter();
        let units: Map<_, _> = units.map(|(unit, n)| (unit.clone(), json!(n))).collect();
        if !units.is_empty() {
            limits.insert("per_minute".into(), units.into());
        }
        if !limits.is_empty() {
            terms.insert("limits".into(), limits.into());
        }
        if let Some(budget) = &self.budget {
            let Some((usd, per)) = budget.split_once('/') else {
                return Err(Failed::User(anyhow!(
                    "`{budget}` is no budget; write dollars and a window, such as 25/month"
                )));
            };
            let budget = match &self.warn {
                Some(warn) => json!({ "usd": usd, "per": per, "warn": warn }),
                None => json!({ "usd": usd, "per": per }),
            };
            terms.insert("budget".into(), budget);
        }
        if let Some(weight) = self.weight {
            terms.insert("weight".into(), json!(weight));
        }
        if self.explain {
            terms.insert("explain".into(), json!(true));
        }
        if !self.tags.is_empty() {
            terms.insert("tags".into(), json!(self.tags));
        }
        Ok(Value::Object(terms).to_string())
    }
}

/// A limit of a unit, as it is typed. Which units there are is known where the key is made.
fn per_minute(text: &str) -> Result<(String, u64), String> {
    let limit = text
        .split_once('=')
        .and_then(|(unit, n)| Some((unit.to_owned(), n.parse().ok()?)));
    limit.ok_or_else(|| "write a unit and a number, such as images=10".to_owned())
}

/// Makes a key. It alone goes to standard output, so that a script can take it.
pub fn new(file: &Path, environment: Environment, name: &str, terms: &Terms) -> Result<(), Failed> {
    let house = House::open(file, environment)?;
    let key = made::make(
        &house.plan,
        &house.keys,
        name,
        &terms.json()?,
        SystemTime::now(),
    );
    super::print(&[key.map_err(failed)?]);
    say(&format!(
        "{name} can call with this key, which is shown once: only its digest is kept"
    ));
    Ok(())
}

/// Gives a key anew.
pub fn rotate(
    file: &Path,
    environment: Environment,
    name: &str,
    grace: Duration,
) -> Result<(), Failed> {
    let house = House::open(file, environment)?;
    let rotated = made::rotate(&house.plan, &house.keys, name, grace, SystemTime::now());
    let (key, until) = rotated.map_err(failed)?;
    super::print(&[key]);
    let until = httpdate::fmt_http_date(until);
    say(&format!(
        "{name} can call with this key, which is shown once; the one before is good until {until}"
    ));
    Ok(())
}

/// Revokes a key, for good.
pub fn revoke(file: &Path, environment: Environment, name: &str) -> Result<(), Failed> {
    let house = House::open(file, environment)?;
    made::revoke(&house.plan, &house.keys, name, SystemTime::now()).map_err(failed)?;
    super::print(&[format!("{name} is revoked, for good")]);
    Ok(())
}

/// Lists the keys there are, those of the configuration included.
pub fn list(file: &Path, environment: Environment, json: bool) -> Result<(), Failed> {
    let house = House::open(file, environment)?;
    let all = made::list(&house.plan, &house.keys, SystemTime::now()).map_err(failed)?;
    if json {
        let text = serde_json::to_string(&all).context("the list could not be written")?;
        super::print(&[text]);
        return Ok(());
    }
    let head = [
        "NAME", "SOURCE", "STATE", "MADE", "TEAM", "MODELS", "LIMITS", "BUDGET", "EXPIRES", "TAGS",
    ];
    let names = head.len();
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(all.into_iter().map(line));
    super::print(&aligned(&lines, names));
    Ok(())
}

/// One key, as a person reads it.
fn line(key: Listed) -> Vec<String> {
    let limits = key.limits.unwrap_or_default();
    let units = limits.per_minute;
    let limits = [
        ("rpm", limits.rpm),
        ("tpm", limits.tpm),
        ("rpd", limits.rpd),
        ("concurrency", limits.concurrency),
        ("per_minute.characters", units.characters),
        ("per_minute.seconds", units.seconds),
        ("per_minute.images", units.images),
        ("per_minute.searches", units.searches),
    ];
    let limits = limits
        .into_iter()
        .filter_map(|(name, limit)| Some(format!("{name}={}", limit?)));
    let budget = key.budget.map(|budget| {
        let Written(usd) = budget.usd;
        format!("{usd}/{}", budget.per.name())
    });
    let cells = [
        Some(key.name),
        Some(key.source.to_owned()),
        Some(key.state.to_owned()),
        key.made,
        key.team,
        key.models.map(|models| models.join(",")),
        Some(limits.collect::<Vec<_>>().join(" ")),
        budget,
        key.expires.map(|day| day.to_string()),
        Some(key.tags.join(",")),
    ];
    let cells = cells
        .into_iter()
        .map(|cell| cell.filter(|text| !text.is_empty()));
    cells
        .map(|cell| cell.unwrap_or_else(|| "-".into()))
        .collect()
}

/// What is for a person, beside what is for a script.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn failed(error: impl Into<anyhow::Error>) -> Failed {
    Failed::User(error.into())
}

/// A configuration, and the keys of its ledger.
struct House {
    plan: Arc<Plan>,
    keys: Keys,
}

impl House {
    fn open(file: &Path, environment: Environment) -> Result<Self, Failed> {
        let loaded = Loaded::read(Source::open(file)?, environment);
        let plan = loaded.compile()?;
        let settings = money::ledger(&loaded.config, loaded.source.folder());
        let Place::File(path) = &settings.store else {
            return Err(Failed::User(anyhow!(
                "[ledger] store is \"memory:\": keys are made in the gateway itself, at /admin/keys"
            )));
        };
        let is_there = path.exists();
        let keys = match Keys::open(&settings.store) {
            Err(why) if !is_there || matches!(why, OpenError::Older { .. }) => {
                // It becomes one of this version, as a gateway would make it.
                let ledger = Ledger::open(&settings, SystemTime::now()).map_err(failed)?;
                ledger.close();
                Keys::open(&settings.store)
            }
            keys => keys,
        };
        let keys = keys.map_err(failed)?;
        Ok(Self { plan, keys })
    }
}
