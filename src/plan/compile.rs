//! From a configuration to a plan, or to every flaw at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::instead::instead;
use super::keys::{Budgets, OPEN, Owners};
use super::{Ending, Limits, Passage, Plan, Spending, State, Surroundings, room, rules};
use crate::admission::limits::Whose;
use crate::admission::matches;
use crate::config::load::suggest;
use crate::config::money::Unpriced;
use crate::config::{self, Config, Diagnostic, Log};
use crate::protocol::Kind;
use crate::provider::Rules;
use crate::provider::site::Servers;
use crate::provider::trust::Trust;
use crate::route::health::Healths;
use crate::route::{Allowance, Instead, Route, Strategy, Target, Targets};
use crate::telemetry::metrics::{Metrics, RouteMeters};
use crate::usage::book::Book;

/// The longest name of a target that the configuration does not have, in characters.
const LONGEST_NAME: usize = 200;

/// So many keys of which text is logged are told by their names.
const MOST_NAMED: usize = 20;

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
            healths: &state.healths,
            servers: &state.servers,
            owners: Owners {
                ledger: &state.ledger,
                gates: &state.gates,
            },
            budgets: Vec::new(),
            target_limits: BTreeMap::new(),
            flaws: Vec::new(),
            warnings: Vec::new(),
            gaps: Vec::new(),
            unavailable: BTreeMap::new(),
            machine: None,
        };
        let book = compiler.book();
        compiler.target_limits();
        let providers = compiler.providers(&book);
        let models = compiler.models(&providers, &book);
        let targets = compiler.targets(&models);
        let (keyring, common) = compiler.keyring();
        let (door, admin_door) = compiler.doors();
        let admin_token = compiler.admin_token();
        let traces = compiler.traces();
        compiler.limits();
        compiler.instead();
        compiler.warn();
        compiler.coverage(&models, &book, &keyring);
        let unavailable = compiler.unavailable_routes();
        let Compiler {
            flaws,
            warnings,
            gaps,
            budgets,
            ..
        } = compiler;
        if !flaws.is_empty() {
            return Err(flaws);
        }
        state.ledger.enforce(&budgets);
        let names = config.keys.keys().map(|name| name.as_str().into());
        let metrics = &state.telemetry.metrics;
        metrics.label_keys(names.chain([OPEN.into()]));
        let acted_on = rules::acted_on(&providers, &models);
        Ok(Self {
            door,
            admin_door,
            admin_token,
            admin_is_private: config.admin.listen.iter().all(config::Listen::is_private),
            ending: Ending::of(&config.server),
            keyring,
            common,
            models,
            targets,
            providers,
            unavailable,
            limits: Limits::of(&config.server),
            spending: Spending {
                output_cap: config.defaults.output_cap,
                unpriced: config.ledger.unpriced == Unpriced::Free,
            },
            traces,
            book,
            acted_on,
            warnings,
            gaps,
        })
    }
}

impl Passage {
    /// The route of a request for one of the provider's models by a name that the configuration does not have.
    pub(super) fn route(&self, name: &str, model: &str, book: &Book) -> Route {
        // A client wrote it, and it goes into headers and lines.
        let name: Arc<str> = name.chars().take(LONGEST_NAME).collect::<String>().into();
        let target = Target {
            health: Arc::new(self.health.unknown(&name)),
            name,
            provider: Arc::clone(&self.provider),
            model: quoted(model),
            rules: self.rules_of(model),
            terms: self.terms_of(model, book),
            gate: None,
            requests: None,
            meters: Arc::clone(&self.target_meters),
            weight: 1,
            tier: 0,
            load: None,
        };
        direct(
            target,
            Arc::clone(&self.allowance),
            Arc::clone(&self.meters),
        )
    }

    /// What the provider wants different for one of its models.
    fn rules_of(&self, model: &str) -> Arc<Rules> {
        let mut some = self.rules_for.iter();
        let found = some.find(|(pattern, _)| matches(pattern, model));
        Arc::clone(found.map_or(&self.rules, |(_, rules)| rules))
    }
}

/// A route to one target, for those who ask for it by its own name.
fn direct(mut target: Target, allowance: Arc<Allowance>, meters: Arc<RouteMeters>) -> Route {
    target.terms.rewrites = target.rules.may_ask_for_more().then_some(0);
    Route {
        kind: None,
        targets: vec![target].into(),
        strategy: Strategy::default(),
        hedge: None,
        deadline: config::Model::deadline(),
        rules: Arc::default(),
        instead: Instead::default(),
        skipped: Vec::new(),
        keeper: None,
        allowance,
        meters,
    }
}

pub(super) struct Compiler<'c> {
    pub(super) config: &'c Config,
    pub(super) surroundings: Surroundings<'c>,
    pub(super) metrics: &'c Metrics,
    pub(super) healths: &'c Healths,
    pub(super) servers: &'c Servers,
    pub(super) owners: Owners<'c>,
    /// What each account may spend, once there is no flaw.
    pub(super) budgets: Budgets,
    /// What targets let be done, by their names.
    pub(super) target_limits: BTreeMap<&'c str, room::Written>,
    pub(super) flaws: Vec<Diagnostic>,
    pub(super) warnings: Vec<String>,
    /// What is not known of prices that a budget needs.
    pub(super) gaps: Vec<String>,
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
                        targets.push(target);
                    }
                    Some(Err(why)) => skipped.push(why),
                    None => {}
                }
            }
            let route = Route {
                kind: entry.kind.map(kind),
                strategy: self.strategy(name, entry, &targets),
                hedge: self.hedge(name, entry, &targets),
                targets: targets.into(),
                deadline: entry.deadline,
                rules: Arc::new(rules),
                instead: instead(entry),
                skipped,
                keeper: None,
                allowance: self.healths.allowance(name),
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
                kind: None,
                targets: Targets::default(),
                strategy: Strategy::default(),
                hedge: None,
                deadline: config::Model::deadline(),
                rules: Arc::default(),
                instead: Instead::default(),
                skipped: vec![format!("{name}: {why}")],
                keeper: None,
                allowance: Arc::default(),
                meters: self.metrics.route(&format!("{name}/*")),
            };
            ((*name).into(), Arc::new(route))
        };
        self.unavailable.iter().map(route).collect()
    }

    /// The targets by their own names, each with a label of its own: the configuration has it.
    fn targets(&self, models: &BTreeMap<Box<str>, Arc<Route>>) -> BTreeMap<Box<str>, Arc<Route>> {
        let mut kinds: HashMap<&str, Option<Kind>> = HashMap::new();
        for (route, target) in with_targets(models) {
            let kind = kinds.entry(&target.name).or_insert(route.kind);
            // Of whom models are of several kinds it is asked for either.
            *kind = kind.filter(|kind| route.kind == Some(*kind));
        }
        let mut targets = BTreeMap::new();
        for (_, target) in with_targets(models) {
            let name = &target.name;
            targets.entry(name.as_ref().into()).or_insert_with(|| {
                let target = Target {
                    name: Arc::clone(name),
                    provider: Arc::clone(&target.provider),
                    model: target.model.clone(),
                    rules: Arc::clone(&target.rules),
                    terms: target.terms.clone(),
                    gate: target.gate.clone(),
                    requests: target.requests.clone(),
                    health: Arc::clone(&target.health),
                    meters: self.metrics.target(name, name),
                    weight: 1,
                    tier: 0,
                    load: target.load,
                };
                let allowance = self.healths.allowance(name);
                Arc::new(Route {
                    kind: kinds.get(&**name).copied().flatten(),
                    ..direct(target, allowance, self.metrics.route(name))
                })
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
                let written_of = self.target_limits.get(to).copied().unwrap_or_default();
                let (limits, budgets) = ((written_of.limits, written_of.room()), &mut self.budgets);
                let (gate, requests) = self.owners.limits(Whose::Target, to, limits, budgets);
                Some(Ok(Target {
                    name: to.into(),
                    provider: Arc::clone(&passage.provider),
                    model: quoted(rest),
                    rules: passage.rules_of(rest),
                    terms,
                    gate,
                    requests,
                    health: self.healths.of(&passage.provider.name, to),
                    meters: self.metrics.target(model, to),
                    weight: written.weight.unwrap_or(1),
                    tier: written.tier,
                    load: written_of.load,
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

    fn limits(&mut self) {
        let server = &self.config.server;
        if server.max_body > server.max_body_memory {
            let message = "is less than `max_body`: a body between the two would never be taken";
            self.flaw(["server", "max_body_memory"], message);
        }
        if server.access_log.is_some() && server.access_log == server.decision_log {
            let message = "is the file of `decision_log`: each needs one of its own";
            self.flaw(["server", "access_log"], message);
        }
    }

    /// Whose text is logged.
    fn warn_of_texts(&mut self) {
        let server = &self.config.server;
        let is_written = server.access_log.is_some() || server.log != Log::Off;
        let keys = self.config.keys.iter();
        let mut logged = keys.filter_map(|(name, key)| Some((name, key.log_bodies?)));
        for (name, most) in logged.by_ref().take(MOST_NAMED) {
            self.warnings.push(if is_written {
                format!(
                    "keys.{name}.log_bodies: what it asks and is answered is logged, up to {most} bytes of each"
                )
            } else {
                format!(
                    "keys.{name}.log_bodies: nothing is logged, for `log` is \"off\" and there is no `access_log`"
                )
            });
        }
        let others = logged.count();
        if others > 0 {
            self.warnings
                .push(format!("keys: and `log_bodies` of {others} more"));
        }
    }

    fn warn(&mut self) {
        self.warn_of_texts();
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
}

/// Each target, with the route of its model.
fn with_targets(
    models: &BTreeMap<Box<str>, Arc<Route>>,
) -> impl Iterator<Item = (&Route, &Arc<Target>)> {
    let each = models.values().map(|route| &**route);
    each.flat_map(|route| route.targets.iter().map(move |target| (route, target)))
}

/// As it is written.
pub(super) fn kind(written: config::Kind) -> Kind {
    match written {
        config::Kind::Chat => Kind::Chat,
        config::Kind::Embedding => Kind::Embedding,
        config::Kind::Speech => Kind::Speech,
        config::Kind::Transcription => Kind::Transcription,
        config::Kind::Image => Kind::Image,
        config::Kind::Moderation => Kind::Moderation,
        config::Kind::Rerank => Kind::Rerank,
    }
}

pub(super) fn quoted(text: &str) -> Bytes {
    Bytes::from(serde_json::Value::from(text).to_string())
}
