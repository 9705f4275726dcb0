//! From a configuration to a plan, or to every flaw at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Limits, Passage, Plan, Spending, State, Surroundings};
use crate::admission::door::{self, Door, Pages};
use crate::admission::{Caller, Digest, Keyring, matches};
use crate::config::load::suggest;
use crate::config::money::{Shortfall, Unpriced};
use crate::config::{self, Config, Diagnostic, Open};
use crate::ledger::{Account, Budget, Ledger};
use crate::protocol::demand;
use crate::provider::Rules;
use crate::provider::trust::Trust;
use crate::route::{Route, Target};
use crate::telemetry::metrics::{Metrics, RouteMeters};
use crate::usage::book::Book;

/// Members that tollgate itself acts on, whatever the rules.
const ACTED_ON: [&str; 3] = ["model", "stream", "stream_options"];

/// The longest name of a target that the configuration does not have, in characters.
const LONGEST_NAME: usize = 200;

/// The caller that everybody is while the gateway is open.
const OPEN: &str = "open";

impl Plan {
    /// Compiles a configuration, or names every flaw in it.
    pub fn compile(
        config: &Config,
        state: &State,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut compiler = Compiler {
            config,
            surroundings,
            metrics: &state.telemetry.metrics,
            ledger: &state.ledger,
            budgets: Vec::new(),
            flaws: Vec::new(),
            warnings: Vec::new(),
            unavailable: BTreeMap::new(),
            machine: None,
        };
        let book = compiler.book();
        let providers = compiler.providers(&book);
        let models = compiler.models(&providers, &book);
        let targets = compiler.targets(&models);
        let keyring = compiler.keyring(&models);
        let (door, admin_door) = compiler.doors();
        compiler.limits();
        compiler.warn(&models);
        let unavailable = compiler.unavailable_routes();
        let Compiler {
            flaws,
            warnings,
            budgets,
            ..
        } = compiler;
        if !flaws.is_empty() {
            return Err(flaws);
        }
        state.ledger.enforce(&budgets);
        let names = config.keys.keys().map(|name| name.as_str().into());
        state
            .telemetry
            .metrics
            .label_keys(names.chain([OPEN.into()]));
        let rules = providers.values().flat_map(|passage| {
            let some = passage.rules_for.iter().map(|(_, rules)| &**rules);
            some.chain([&*passage.rules])
        });
        let rules = rules.chain(models.values().map(|route| &route.rules));
        let mut acted_on: HashSet<Box<str>> =
            rules.flat_map(Rules::names).map(Into::into).collect();
        acted_on.extend(
            ACTED_ON
                .into_iter()
                .chain(demand::acted_on())
                .map(Into::into),
        );
        Ok(Self {
            door,
            admin_door,
            keyring,
            models,
            targets,
            providers,
            unavailable,
            limits: Limits::of(&config.server),
            spending: Spending {
                output_cap: config.defaults.output_cap,
                unpriced: config.ledger.unpriced == Unpriced::Free,
            },
            book,
            acted_on,
            warnings,
        })
    }
}

impl Passage {
    /// The route of a request for one of the provider's models by a name that the configuration does not have.
    pub(super) fn route(&self, name: &str, model: &str, book: &Book) -> Route {
        let target = Target {
            // A client wrote it, and it goes into headers and lines.
            name: name.chars().take(LONGEST_NAME).collect::<String>().into(),
            provider: Arc::clone(&self.provider),
            model: quoted(model),
            rules: self.rules_of(model),
            terms: self.terms_of(model, book),
            meters: Arc::clone(&self.target_meters),
        };
        direct(target, Arc::clone(&self.meters))
    }

    /// What the provider wants different for one of its models.
    fn rules_of(&self, model: &str) -> Arc<Rules> {
        let mut some = self.rules_for.iter();
        let found = some.find(|(pattern, _)| matches(pattern, model));
        Arc::clone(found.map_or(&self.rules, |(_, rules)| rules))
    }
}

/// A route to one target, for those who ask for it by its own name.
fn direct(mut target: Target, meters: Arc<RouteMeters>) -> Route {
    target.terms.rewrites = target.rules.may_ask_for_more().then_some(0);
    Route {
        targets: vec![Arc::new(target)],
        deadline: config::Model::deadline(),
        rules: Rules::default(),
        skipped: Vec::new(),
        meters,
    }
}

pub(super) struct Compiler<'c> {
    pub(super) config: &'c Config,
    pub(super) surroundings: Surroundings<'c>,
    pub(super) metrics: &'c Metrics,
    pub(super) ledger: &'c Ledger,
    /// What each account may spend, once there is no flaw.
    pub(super) budgets: Vec<(Arc<Account>, Budget)>,
    pub(super) flaws: Vec<Diagnostic>,
    pub(super) warnings: Vec<String>,
    /// Providers that cannot be asked, and why.
    pub(super) unavailable: BTreeMap<&'c str, String>,
    /// The machine's roots, once they were needed.
    pub(super) machine: Option<Arc<Trust>>,
}

impl Compiler<'_> {
    pub(super) fn flaw<'a>(
        &mut self,
        at: impl IntoIterator<Item = &'a str>,
        message: impl Into<String>,
    ) {
        self.flaws.push(Diagnostic::new(at, message));
    }

    fn models(
        &mut self,
        providers: &HashMap<Box<str>, Passage>,
        book: &Book,
    ) -> BTreeMap<Box<str>, Arc<Route>> {
        let mut models = BTreeMap::new();
        for (name, entry) in &self.config.models {
            let rules = self.rules(&["models", name, "rules"], &entry.rules, &entry.rules);
            let (mut targets, mut skipped) = (Vec::new(), Vec::new());
            let rewrites = rules.may_ask_for_more();
            if entry.targets.is_empty() {
                self.flaw(["models", name, "targets"], "name at least one target");
            }
            for (n, target) in entry.targets.iter().enumerate() {
                match self.target(name, n, target, providers, book) {
                    Some(Ok(mut target)) => {
                        let rewrites = rewrites || target.rules.may_ask_for_more();
                        target.terms.rewrites = rewrites.then_some(n);
                        targets.push(Arc::new(target));
                    }
                    Some(Err(why)) => skipped.push(why),
                    None => {}
                }
            }
            let route = Route {
                targets,
                deadline: entry.deadline,
                rules,
                skipped,
                meters: self.metrics.route(name),
            };
            models.insert(name.as_str().into(), Arc::new(route));
        }
        models
    }

    /// For each provider that cannot be asked, a route that says why.
    fn unavailable_routes(&self) -> HashMap<Box<str>, Arc<Route>> {
        let route = |(name, why): (&&str, &String)| {
            let route = Route {
                targets: Vec::new(),
                deadline: config::Model::deadline(),
                rules: Rules::default(),
                skipped: vec![format!("{name}: {why}")],
                meters: self.metrics.route(&format!("{name}/*")),
            };
            ((*name).into(), Arc::new(route))
        };
        self.unavailable.iter().map(route).collect()
    }

    /// The targets by their own names, each with a label of its own: the configuration has it.
    fn targets(&self, models: &BTreeMap<Box<str>, Arc<Route>>) -> BTreeMap<Box<str>, Arc<Route>> {
        let mut targets = BTreeMap::new();
        for target in models.values().flat_map(|route| &route.targets) {
            let name = &target.name;
            targets.entry(name.as_ref().into()).or_insert_with(|| {
                let target = Target {
                    name: Arc::clone(name),
                    provider: Arc::clone(&target.provider),
                    model: target.model.clone(),
                    rules: Arc::clone(&target.rules),
                    terms: target.terms.clone(),
                    meters: self.metrics.target(name, name),
                };
                Arc::new(direct(target, self.metrics.route(name)))
            });
        }
        targets
    }

    /// A target; or why it cannot be asked; or nothing, if it is flawed.
    fn target(
        &mut self,
        model: &str,
        n: usize,
        written: &config::Target,
        providers: &HashMap<Box<str>, Passage>,
        book: &Book,
    ) -> Option<Result<Target, String>> {
        let n = n.to_string();
        let at = ["models", model, "targets", &n];
        let to = written.to.as_str();
        let Some((provider, rest)) = to.split_once('/').filter(|(_, rest)| !rest.is_empty()) else {
            self.flaw(
                at,
                format!("`{to}` names no provider; write \"provider/model\""),
            );
            return None;
        };
        if let Some(why) = self.unavailable.get(provider) {
            return Some(Err(format!("{to}: {why}")));
        }
        match providers.get(provider) {
            Some(passage) => {
                let terms = self.terms(&at, written, passage.terms_of(rest, book));
                Some(Ok(Target {
                    name: to.into(),
                    provider: Arc::clone(&passage.provider),
                    model: quoted(rest),
                    rules: passage.rules_of(rest),
                    terms,
                    meters: self.metrics.target(model, to),
                }))
            }
            // A provider that is written, but flawed, has said so.
            None if self.config.providers.contains_key(provider) => None,
            None => {
                let known = self.config.providers.keys().map(String::as_str);
                let hint = suggest(provider, known);
                self.flaw(at, format!("there is no [providers.{provider}]{hint}"));
                None
            }
        }
    }

    fn keyring(&mut self, models: &BTreeMap<Box<str>, Arc<Route>>) -> Keyring {
        self.shared_budgets();
        let mut keyring = Keyring::default();
        for (name, entry) in &self.config.keys {
            for (n, pattern) in entry.models.iter().flatten().enumerate() {
                self.pattern(name, n, pattern, models);
            }
            let Some(digest) = self.digest(name, entry) else {
                continue;
            };
            let caller = Caller {
                name: name.as_str().into(),
                models: entry.models.clone(),
                expires: entry
                    .expires
                    .map(|day| SystemTime::UNIX_EPOCH + Duration::from_secs(day.starts)),
                team: self.team(name, entry),
                accounts: self.accounts(name, entry),
                clamps: entry
                    .on_shortfall
                    .unwrap_or(self.config.defaults.on_shortfall)
                    == Shortfall::Clamp,
            };
            if !keyring.add(digest, Arc::new(caller)) {
                self.flaw(["keys", name, "key"], "another entry has the same key");
            }
        }
        if self.is_open() {
            keyring.open(Arc::new(Caller {
                name: OPEN.into(),
                models: None,
                expires: None,
                team: None,
                accounts: self.accounts(OPEN, &config::Key::default()),
                clamps: self.config.defaults.on_shortfall == Shortfall::Clamp,
            }));
        }
        keyring
    }

    fn limits(&mut self) {
        let server = &self.config.server;
        if server.max_body > server.max_body_memory {
            let message = "is less than `max_body`: a body between the two would never be taken";
            self.flaw(["server", "max_body_memory"], message);
        }
    }

    /// Who may knock: at the clients' listener, and at the operators', which no page but its own may call.
    fn doors(&mut self) -> (Door, Door) {
        let server = &self.config.server;
        let mut names = Vec::new();
        for (n, text) in server.names.iter().enumerate() {
            match door::name(text) {
                Ok(name) => names.push(name),
                Err(wrong) => {
                    self.flaw(
                        ["server", "names", &n.to_string()],
                        format!("`{text}` {wrong}"),
                    );
                }
            }
        }
        let mut pages = Vec::new();
        for (n, text) in server
            .cors
            .iter()
            .enumerate()
            .filter(|(_, text)| *text != "*")
        {
            match door::origin(text) {
                Ok(origin) => pages.push(origin),
                Err(wrong) => {
                    self.flaw(
                        ["server", "cors", &n.to_string()],
                        format!("`{text}` {wrong}"),
                    );
                }
            }
        }
        let pages = match server.cors.iter().any(|text| text == "*") {
            true => Pages::Any,
            false => Pages::Listed(pages),
        };
        let operators = Door::new(names.clone(), Pages::Own);
        (Door::new(names, pages), operators)
    }

    fn digest(&mut self, name: &str, entry: &config::Key) -> Option<Digest> {
        match (&entry.key, &entry.digest) {
            (Some(secret), None) => {
                match secret.reveal(self.surroundings.folder, self.surroundings.environment) {
                    Ok(key) if key.trim() != key => {
                        self.flaw(
                            ["keys", name, "key"],
                            "a key must not begin or end with white space",
                        );
                        None
                    }
                    Ok(key) => Some(Digest::of(&key)),
                    Err(missing) => {
                        self.flaw(["keys", name, "key"], missing.to_string());
                        None
                    }
                }
            }
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

    /// A name that is neither a model's nor a provider's can never match: a typing error, most likely.
    fn pattern(
        &mut self,
        key: &str,
        n: usize,
        pattern: &str,
        models: &BTreeMap<Box<str>, Arc<Route>>,
    ) {
        let provider = pattern.split_once('/').map(|(provider, _)| provider);
        let of_provider = |part: &str| self.config.providers.keys().any(|name| matches(part, name));
        let targets = self.config.models.values().flat_map(|model| &model.targets);
        if provider.is_some_and(of_provider)
            || models.keys().any(|name| matches(pattern, name))
            || targets
                .into_iter()
                .any(|target| matches(pattern, &target.to))
        {
            return;
        }
        let names = self
            .config
            .models
            .keys()
            .chain(self.config.providers.keys());
        let hint = suggest(provider.unwrap_or(pattern), names.map(String::as_str));
        let n = n.to_string();
        self.flaw(
            ["keys", key, "models", &n],
            format!("`{pattern}` can match no model{hint}"),
        );
    }

    fn warn(&mut self, models: &BTreeMap<Box<str>, Arc<Route>>) {
        self.warn_of_extras(models);
        for (name, why) in &self.unavailable {
            let prefix = format!("{name}/");
            let targets = self.config.models.values().flat_map(|model| &model.targets);
            let skipped = targets
                .filter(|target| target.to.starts_with(&prefix))
                .count();
            let s = if skipped == 1 { "" } else { "s" };
            self.warnings
                .push(format!("{name}: {why}, {skipped} target{s} skipped"));
        }
        if self.config.keys.is_empty() && !self.is_open() {
            let message =
                "there are no keys, and callers without one are not let in: nobody can call";
            self.warnings.push(message.into());
        }
        if self.is_open() && self.config.server.cors.iter().any(|page| page == "*") {
            let message = "`cors` is \"*\" and no key is asked for: any web page that a browser on \
                           this network shows can call";
            self.warnings.push(message.into());
        }
    }

    /// Whether callers without a key are let in.
    fn is_open(&self) -> bool {
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

pub(super) fn quoted(text: &str) -> Bytes {
    Bytes::from(serde_json::Value::from(text).to_string())
}
