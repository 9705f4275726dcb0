//! Who may call? From what an operator wrote of a key, its team and everybody, to a caller.
//!
//! Keys that are made while the gateway runs say the same in the same words, and become callers in the same way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use super::compile::Compiler;
use super::money;
use super::room::Room;
use crate::admission::limits::{Concurrency, Gate, Gates, Limits, Whose};
use crate::admission::{Caller, Digest, Keyring, matches, note};
use crate::config::load::suggest;
use crate::config::money::Shortfall;
use crate::config::{self, Diagnostic, Open};
use crate::ledger::{Account, Budget, Ledger, Per, Scope};
use crate::usage::Money;

/// The longest name of a key, in characters.
const LONGEST: usize = 128;

/// The caller that everybody is while the gateway is open.
pub(super) const OPEN: &str = "open";

/// What callers have in common, and what holds of those that say nothing of their own.
#[derive(Debug, Default)]
pub struct Common {
    teams: BTreeMap<Box<str>, Team>,
    /// Keys that are in a team by its word, and in which.
    members: HashMap<Box<str>, Box<str>>,
    limits: config::Limits,
    budget: Option<Budget>,
    clamps: bool,
    total: Option<Account>,
    /// What models and targets are called, and providers: patterns of keys are held to them.
    names: BTreeSet<Box<str>>,
    providers: BTreeSet<Box<str>>,
}

/// Several callers together.
#[derive(Debug)]
struct Team {
    name: Arc<str>,
    gate: Option<Arc<Gate>>,
    accounts: Vec<Account>,
}

/// Where accounts and limits are found by name.
#[derive(Clone, Copy)]
pub(super) struct Owners<'o> {
    pub(super) ledger: &'o Ledger,
    pub(super) gates: &'o Gates,
}

/// What accounts may spend.
pub(super) type Budgets = Vec<(Account, Budget)>;

impl Owners<'_> {
    /// An account with a budget.
    pub(super) fn account(
        self,
        scope: Scope,
        name: &str,
        budget: Budget,
        budgets: &mut Budgets,
    ) -> Account {
        let account = self.ledger.account(scope, name);
        budgets.push((account.clone(), budget));
        account
    }

    /// What limits mean: those of a moment and a minute, and the requests of a day.
    pub(super) fn limits(
        self,
        whose: Whose,
        name: &str,
        (limits, room): (config::Limits, Room),
        budgets: &mut Budgets,
    ) -> (Option<Arc<Gate>>, Option<Account>) {
        let config::Limits {
            rpm,
            tpm,
            rpd,
            concurrency,
            per_minute,
        } = limits;
        let config::PerMinute {
            characters,
            seconds,
            images,
            searches,
        } = per_minute;
        let here = Limits {
            rpm,
            tpm,
            per_minute: [characters, seconds, images, searches],
            concurrency: concurrency.map(Concurrency::Fixed).or(room.adaptive),
            line: room.line,
        };
        let gate = (!here.is_empty()).then(|| self.gates.gate(whose, name, here));
        let scope = match whose {
            Whose::Key => Scope::KeyRequests,
            Whose::Team => Scope::TeamRequests,
            Whose::Target => Scope::TargetRequests,
        };
        let budget = rpd.map(|requests| Budget {
            limit: Money(requests),
            per: Per::Day,
            warn: None,
        });
        let requests = budget.map(|budget| self.account(scope, name, budget, budgets));
        (gate, requests)
    }
}

impl Common {
    /// What is wrong with the team of a key, and with the models that it may ask for: a name that is neither a model's nor a
    /// provider's can never match, and is a typing error, most likely.
    pub(super) fn flaws(&self, name: &str, key: &config::Key) -> Vec<Diagnostic> {
        let mut flaws = Vec::new();
        if let Some(team) = key.team.as_deref()
            && !self.teams.contains_key(team)
        {
            let hint = suggest(team, self.teams.keys().map(|name| &**name));
            let message = format!("there is no [teams.{team}]{hint}");
            flaws.push(Diagnostic::new(["keys", name, "team"], message));
        }
        for (n, pattern) in key.models.iter().flatten().enumerate() {
            let provider = pattern.split_once('/').map(|(provider, _)| provider);
            let mut providers = self.providers.iter();
            if provider.is_some_and(|part| providers.any(|name| matches(part, name)))
                || self.names.iter().any(|name| matches(pattern, name))
            {
                continue;
            }
            let names = self.names.iter().filter(|name| !name.contains('/'));
            let names = names.chain(&self.providers).map(|name| &**name);
            let hint = suggest(provider.unwrap_or(pattern), names);
            let n = n.to_string();
            let message = format!("`{pattern}` can match no model{hint}");
            flaws.push(Diagnostic::new(["keys", name, "models", &n], message));
        }
        flaws
    }

    /// Someone who may call. What its accounts may spend is added to `budgets`.
    pub(super) fn caller(
        &self,
        owners: Owners<'_>,
        (name, digest): (&str, Digest),
        key: &config::Key,
        budget: Option<Budget>,
        budgets: &mut Budgets,
    ) -> Caller {
        let limits = key.limits.or(self.limits);
        let (own_gate, own_requests) =
            owners.limits(Whose::Key, name, (limits, Room::default()), budgets);
        let budget = budget.or(self.budget);
        let own = budget.map(|budget| owners.account(Scope::Key, name, budget, budgets));
        // Whoever writes a team's list decides.
        let team = self.members.get(name).map(|team| &**team);
        let team = team.or(key.team.as_deref());
        let known = team.and_then(|team| self.teams.get(team));
        let shared = known.map_or(&[][..], |team| &team.accounts);
        // A long name stands in memory once: with many keys each look at another place is at memory that nobody has at hand.
        let same = own.as_ref().map(|own| own.name().clone());
        let accounts: SmallVec<[Account; 2]> = [own, own_requests]
            .into_iter()
            .flatten()
            .chain(shared.iter().cloned())
            .chain(self.total.clone())
            .collect();
        Caller {
            name: same.unwrap_or_else(|| name.into()),
            digest,
            models: key.models.as_deref().map(Arc::from),
            expires: key
                .expires
                .map(|day| SystemTime::UNIX_EPOCH + Duration::from_secs(day.starts)),
            // A team that the file has no more is still whose requests they are.
            team: known
                .map(|team| Arc::clone(&team.name))
                .or(team.map(Arc::from)),
            has_budget: accounts.iter().any(|it| !it.scope().is_of_requests()),
            accounts,
            gates: own_gate
                .into_iter()
                .chain(known.and_then(|team| team.gate.clone()))
                .collect(),
            clamps: key
                .on_shortfall
                .map_or(self.clamps, |it| it == Shortfall::Clamp),
            tag: note::kept(&key.tags.join(",")),
            explains: key.explain || name == OPEN,
            // Of a key that is named in the configuration only.
            log_bodies: None,
            weight: key.weight.unwrap_or(1),
        }
    }
}

impl Compiler<'_> {
    /// Callers by their keys, and what they have in common.
    pub(super) fn keyring(&mut self) -> (Keyring, Common) {
        let common = self.common();
        let mut keyring = Keyring::with_capacity(self.config.keys.len());
        for (name, entry) in &self.config.keys {
            self.flaws.extend(common.flaws(name, entry));
            // It goes into labels, lines and tables.
            if name.chars().count() > LONGEST || name.chars().any(char::is_control) {
                let short: String = name.chars().filter(|c| !c.is_control()).take(20).collect();
                let message = format!("a key's name is one line of at most {LONGEST} characters");
                self.flaw(["keys", &short], message);
            }
            let Some(digest) = self.digest(name, entry) else {
                continue;
            };
            let at = ["keys", name, "budget"];
            let budget = money::budget(&at, entry.budget.as_ref(), &mut self.flaws);
            if budget.is_some() && self.config.server.open == Open::Yes {
                self.flaw(["server", "open"], with_budget(name));
            }
            let mut caller = common.caller(
                self.owners,
                (name, digest),
                entry,
                budget,
                &mut self.budgets,
            );
            caller.log_bodies = entry.log_bodies.and_then(NonZeroUsize::new);
            if !keyring.add(caller) {
                self.flaw(["keys", name, "key"], "another entry has the same key");
            }
        }
        if self.is_open() {
            let key = config::Key::default();
            let caller = common.caller(
                self.owners,
                (OPEN, Digest::default()),
                &key,
                None,
                &mut self.budgets,
            );
            keyring.open(caller, self.config.server.open == Open::Yes);
        }
        (keyring, common)
    }

    fn common(&mut self) -> Common {
        let config = self.config;
        let targets = config.models.values().flat_map(|model| &model.targets);
        let targets = targets.map(|target| &*target.to);
        let mut common = Common {
            limits: config.defaults.limits,
            clamps: config.defaults.on_shortfall == Shortfall::Clamp,
            names: config
                .models
                .keys()
                .map(String::as_str)
                .chain(targets)
                .map(Into::into)
                .collect(),
            providers: config
                .providers
                .keys()
                .map(|name| name.as_str().into())
                .collect(),
            ..Common::default()
        };
        let (owners, flaws, budgets) = (self.owners, &mut self.flaws, &mut self.budgets);
        let defaults = config.defaults.budget.as_ref();
        common.budget = money::budget(&["defaults", "budget"], defaults, flaws);
        let total = config.total.budget.as_ref();
        let total = money::budget(&["total", "budget"], total, flaws);
        common.total = total.map(|total| owners.account(Scope::Total, "", total, budgets));
        for (name, team) in &config.teams {
            let at = ["teams", name, "budget"];
            let budget = money::budget(&at, team.budget.as_ref(), flaws);
            let account = budget.map(|it| owners.account(Scope::Team, name, it, budgets));
            let (gate, requests) =
                owners.limits(Whose::Team, name, (team.limits, Room::default()), budgets);
            let shared = Team {
                name: name.as_str().into(),
                gate,
                accounts: [account, requests].into_iter().flatten().collect(),
            };
            common.teams.insert(name.as_str().into(), shared);
            for (n, member) in team.members.iter().enumerate() {
                let other = common
                    .members
                    .insert(member.as_str().into(), name.as_str().into());
                let said = config.keys.get(member).and_then(|key| key.team.as_deref());
                let other = other.as_deref().or(said).filter(|other| *other != name);
                if let Some(other) = other {
                    let n = n.to_string();
                    let at = ["teams", name, "members", &n];
                    let message = format!("`{member}` is in the team {other} already");
                    flaws.push(Diagnostic::new(at, message));
                }
            }
        }
        common
    }

    fn digest(&mut self, name: &str, entry: &config::Key) -> Option<Digest> {
        match (&entry.key, &entry.digest) {
            (Some(secret), None) => self.digest_of(["keys", name, "key"], secret),
            (None, Some(text)) => match Digest::parse(text) {
                Ok(digest) => Some(digest),
                Err(wrong) => {
                    self.flaw(["keys", name, "digest"], wrong.to_string());
                    None
                }
            },
            (None, None) => {
                self.flaw(["keys", name], "give it `key` or `digest`");
                None
            }
            (Some(_), Some(_)) => {
                self.flaw(["keys", name], "give it `key` or `digest`, not both");
                None
            }
        }
    }

    /// Whether callers without a key are let in, until the first key is made.
    pub(super) fn is_open(&self) -> bool {
        let server = &self.config.server;
        match server.open {
            Open::Yes => true,
            Open::No => false,
            Open::Auto => {
                let mut listeners = server.listen.iter();
                self.config.keys.is_empty() && listeners.all(config::Listen::is_private)
            }
        }
    }
}

/// Why a key with a budget cannot stand beside an open door.
pub(super) fn with_budget(name: &str) -> String {
    format!(
        "is true, and the key {name} has a budget: whoever leaves the key out is not held to it"
    )
}
