//! Is what a budget is charged what the provider bills? How well each target's price is known, and what is not.
//!
//! A class of tokens needs a rate of its own only where its provider bills it apart from its relative, and that is known
//! from the lists of prices: of this very model, or of the others in its section. What no list speaks of is taken as it is
//! written. Of a model of a kind the price has to say what a request costs that is asked where the kind is: that is asked
//! of the very bound that is set aside for one. Targets whose provider's key is not there are judged as well: a gate runs
//! where there are no keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::compile::Compiler;
use super::instead::asked_as;
use super::money::is_free;
use crate::admission::{Caller, Keyring};
use crate::config;
use crate::config::money::Unpriced;
use crate::protocol::{Endpoint, Gives, Kind};
use crate::route::{Bounds, Route, Terms};
use crate::usage::book::{Apart, Book};
use crate::usage::{Kinds, Price, relative};

/// Sections of those whose answers say what they cost: their word is entered, and a rate only bounds it.
const TELL_THEIR_BILL: [&str; 3] = ["openrouter", "perplexity", "xai"];

/// So many targets are named in one line; more have further lines.
const LINE: usize = 8;

/// How well a target's price is known, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// It costs nothing, or every class of tokens that is known to be billed apart has a rate of its own.
    Exact,
    /// These are charged at their relatives' rates.
    Estimated(Kinds),
    /// There is a price, and it does not tell what a request of the model's kind costs at most.
    Boundless(Needs),
    /// Nobody knows.
    Unpriced,
}

impl Known {
    /// The metric's label.
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Estimated(_) => "estimated",
            Self::Boundless(_) | Self::Unpriced => "unpriced",
        }
    }

    /// Of a model, beside what is billed apart in its section.
    fn of(
        terms: &Terms,
        asked: Asked,
        section: Option<&str>,
        model: &str,
        apart: &Apart<'_>,
    ) -> Self {
        let Some(price) = &terms.price else {
            return Self::Unpriced;
        };
        if let Some(needs) = asked.lacks(terms) {
            return Self::Boundless(needs);
        }
        let tells = section.is_some_and(|section| TELL_THEIR_BILL.contains(&section));
        // Of what is priced without tokens there are no classes.
        if price.is_free() || tells || !price.is_of_tokens() {
            return Self::Exact;
        }
        let mut billed = apart.by_model.get(model).copied().unwrap_or_default();
        // What embeds gives no tokens, and nobody caches it.
        if !price.gives_for_nothing() && !asked.gives_nothing() {
            // Who caches does so for whatever is asked again, while to write is billed by some for some models only.
            let cached = apart.any.among(Kinds::named("cached"));
            billed = billed.and(apart.every).and(cached);
        }
        let lacking = billed.without(price.base.stated());
        match lacking.is_empty() {
            true => Self::Exact,
            false => Self::Estimated(lacking),
        }
    }
}

/// What a model is asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// None: whatever anybody likes, which is taken for chats.
    kind: Option<Kind>,
    /// The output of each choice, in tokens, where a request gives no limit.
    cap: u64,
}

impl Asked {
    fn endpoints(self) -> impl Iterator<Item = Endpoint> {
        let all = Endpoint::asking();
        all.filter(move |endpoint| endpoint.kind() == self.kind)
    }

    /// Where a request has no bound at these terms, and what they need. None: it has one everywhere.
    fn lacks(self, terms: &Terms) -> Option<Needs> {
        let kind = self.kind?;
        let is_bound = |endpoint| Bounds::ordinary(endpoint, self.cap)?.at(terms);
        let mut lacking = self.endpoints().filter(|it| is_bound(*it).is_none());
        let first = lacking.next()?;
        let is_all = lacking.count() + 1 == self.endpoints().count();
        Some(Needs {
            kind: kind.name(),
            at: (!is_all).then_some(first.path()),
            what: needs(kind, first),
        })
    }

    /// Whether its answers have no tokens.
    fn gives_nothing(self) -> bool {
        let mut all = self.endpoints().map(Endpoint::gives);
        self.kind.is_some() && all.all(|gives| gives == Gives::Nothing)
    }
}

/// What a price needs so that a request has a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Needs {
    /// Of the model.
    kind: &'static str,
    /// The first endpoint that has no bound. None: no endpoint of the kind has one.
    at: Option<&'static str>,
    what: &'static str,
}

/// What it takes to bound a request, for a person.
fn needs(kind: Kind, endpoint: Endpoint) -> &'static str {
    match kind {
        Kind::Chat | Kind::Embedding | Kind::Moderation => "`input` and `output`",
        Kind::Speech => "`characters`, or `input` and `output` with a `max_output`",
        Kind::Transcription => {
            "`seconds`, or `input` and `output` with a `context` and a `max_output`"
        }
        Kind::Image if endpoint == Endpoint::ImageEdits => {
            "`images`, or `input` and `output` with a `context` and a `max_output`"
        }
        Kind::Image => "`images`, or `input` and `output` with a `max_output`",
        Kind::Rerank => "`searches`, or `input` and `output`",
    }
}

/// A configured target, judged.
struct Judged<'c> {
    model: &'c str,
    /// Where it is written.
    place: String,
    target: &'c str,
    provider: &'c str,
    known: Known,
    /// What its rules ask for that its price does not tell.
    extra: Option<String>,
}

impl<'c> Judged<'c> {
    /// As it is counted: what rules add is not in its price.
    fn state(&self) -> Known {
        match self.extra {
            Some(_) => Known::Unpriced,
            None => self.known,
        }
    }

    fn gap(&self, whom: Whom) -> Option<Gap<'c>> {
        match (self.known, &self.extra) {
            (Known::Unpriced, _) => Some(Gap::Unpriced(self.provider, whom)),
            (Known::Boundless(needs), _) => Some(Gap::Boundless(needs, whom)),
            (_, Some(extra)) => Some(Gap::Extra(extra.clone(), whom)),
            (Known::Estimated(kinds), _) => Some(Gap::Classes(self.provider, kinds)),
            (Known::Exact, _) => None,
        }
    }
}

/// Whom a gap concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    /// A provider of the route has a budget.
    Everybody,
    /// Callers that have one.
    Some,
}

/// What a budget does not see, by which targets are told of in one line; the worst first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gap<'c> {
    /// No target of a model has a price.
    Nothing(Whom),
    /// A provider's targets have none.
    Unpriced(&'c str, Whom),
    /// Their prices do not tell what a request costs at most.
    Boundless(Needs, Whom),
    /// Rules ask for what a price does not tell.
    Extra(String, Whom),
    /// Classes of tokens are charged at their relatives' rates.
    Classes(&'c str, Kinds),
}

impl<'c> Compiler<'c> {
    /// Names what is not known of the prices of routes that somebody with a budget may use, the worst first; and counts
    /// how well the price of each target is known.
    pub(super) fn coverage(
        &mut self,
        models: &BTreeMap<Box<str>, Arc<Route>>,
        book: &Book,
        keyring: &Keyring,
    ) {
        let judged = self.judged(models, book);
        // A configuration that is refused leaves what is counted as it is.
        if self.flaws.is_empty() {
            self.count(&judged);
        }
        // One of all those that may ask for the same; and whoever is given a key later, if they then have a budget.
        let spenders = keyring.callers().chain(keyring.anybody());
        let spenders = spenders.filter(|it| it.has_budget);
        let spenders: BTreeMap<_, &Caller> = spenders.map(|it| (&it.models, it)).collect();
        let (defaults, total) = (&self.config.defaults, &self.config.total);
        let is_everybodys = defaults.budget.is_some() || total.budget.is_some();
        let mut found: BTreeMap<Gap<'c>, Vec<(String, &str)>> = BTreeMap::new();
        let mut find = |gap, place, one: &Judged<'c>| {
            found.entry(gap).or_default().push((place, one.target));
        };
        // A key's list names what its callers ask for; what is asked instead is the operator's choice.
        let asked_instead = self.asked_instead();
        for of_one in judged.chunk_by(|one, other| one.model == other.model) {
            let may_ask =
                |name: &&str| is_everybodys || spenders.values().any(|it| it.may_use(name));
            let model = of_one.first().map(|one| one.model);
            let asked_as = model.map(|model| asked_as(model, &asked_instead));
            let whom = |target: Option<&'c str>| {
                let mut names = asked_as.iter().flatten().chain(&target);
                match of_one.iter().any(|one| self.has_budget(one)) {
                    true => Some(Whom::Everybody),
                    false => names.any(may_ask).then_some(Whom::Some),
                }
            };
            let is_bare = of_one.iter().all(|one| one.known == Known::Unpriced);
            if let (Some(one), true) = (of_one.first(), is_bare && self.refuses())
                && let Some(whom) = whom(None)
            {
                find(Gap::Nothing(whom), format!("models.{}", one.model), one);
                continue;
            }
            for one in of_one {
                // A target can be asked for by its own name as well.
                let gap = whom(Some(one.target)).and_then(|whom| one.gap(whom));
                if let Some(gap) = gap {
                    find(gap, one.place.clone(), one);
                }
            }
        }
        let lines = found.iter().flat_map(|(gap, of_it)| {
            let lines = of_it.chunks(LINE);
            lines.map(|some| self.told(gap, some))
        });
        self.gaps = lines.collect();
    }

    /// Sets each target's state, the worst of all its prices.
    fn count(&self, judged: &[Judged<'c>]) {
        let mut worst = BTreeMap::new();
        for one in judged {
            let known = worst.entry(one.target).or_insert(Known::Exact);
            *known = one.state().max(*known);
        }
        let states = worst.into_iter().map(|(name, known)| (name, known.name()));
        self.metrics.prices(states);
    }

    /// Every target that is written, model by model.
    fn judged(&mut self, models: &BTreeMap<Box<str>, Arc<Route>>, book: &Book) -> Vec<Judged<'c>> {
        let config = self.config;
        let mut apart = BTreeMap::<&str, Apart<'_>>::new();
        let mut judged = Vec::new();
        for (name, route) in models {
            let Some((model, entry)) = config.models.get_key_value(&**name) else {
                continue;
            };
            let mut askable = route.targets.iter();
            let asked = Asked {
                kind: route.kind,
                cap: config.defaults.output_cap,
            };
            for (n, written) in entry.targets.iter().enumerate() {
                let to = written.to.as_str();
                let Some((provider, rest)) = to.split_once('/') else {
                    continue;
                };
                let Some(of) = config.providers.get(provider) else {
                    continue;
                };
                let (terms, extra) = if self.unavailable.contains_key(provider) {
                    let at = ["models", model, "targets", &n.to_string()];
                    (self.terms_unasked(&at, written, rest, of, book), None)
                } else {
                    // Where one is flawed it is not there, and there will be no plan.
                    let Some(target) = askable.next() else {
                        continue;
                    };
                    let extra = target.rules.extra().or_else(|| route.rules.extra());
                    let extra = extra.filter(|_| !target.terms.own_price);
                    (target.terms.clone(), extra)
                };
                let is_free = terms.price.as_ref().is_some_and(|price| price.is_free());
                let section = section(provider, of, book);
                let apart = apart
                    .entry(section.unwrap_or_default())
                    .or_insert_with(|| section.map_or_else(Apart::default, |it| book.apart(it)));
                judged.push(Judged {
                    model,
                    place: format!("models.{model}.targets[{n}]"),
                    target: to,
                    provider,
                    known: Known::of(&terms, asked, section, rest, apart),
                    extra: extra.filter(|_| !is_free).map(str::to_owned),
                });
            }
        }
        judged
    }

    /// What a target costs whose provider cannot be asked, and how much it takes: what is written, else listed, else free.
    fn terms_unasked(
        &mut self,
        at: &[&str],
        written: &config::Target,
        model: &str,
        of: &config::Provider,
        book: &Book,
    ) -> Terms {
        let listed = of.prices.as_deref();
        let listed = listed.and_then(|section| book.find(section, model));
        let free = || is_free(of, self.surroundings.folder).then(Price::free);
        let price = listed.map(|entry| entry.price.clone()).or_else(free);
        let listed = Terms {
            price: price.map(Arc::new),
            context: listed.and_then(|entry| entry.context),
            max_output: listed.and_then(|entry| entry.max_output),
            ..Terms::default()
        };
        self.terms(at, written, listed)
    }

    fn has_budget(&self, one: &Judged<'c>) -> bool {
        let entry = self.config.providers.get(one.provider);
        entry.is_some_and(|entry| entry.budget.is_some())
    }

    /// Whether callers with a budget are refused what has no price.
    fn refuses(&self) -> bool {
        self.config.ledger.unpriced == Unpriced::Refuse
    }

    /// One line of a gap and some of its targets.
    fn told(&self, gap: &Gap<'c>, some: &[(String, &str)]) -> String {
        let places: Vec<&str> = some.iter().map(|(place, _)| place.as_str()).collect();
        let places = places.join(", ");
        let targets: BTreeSet<&str> = some.iter().map(|(_, target)| *target).collect();
        let (have, its, it) = match targets.len() {
            1 => ("has", "its", "it"),
            _ => ("have", "their", "them"),
        };
        let targets: Vec<&str> = targets.into_iter().collect();
        let targets = targets.join(", ");
        let served = |whom: &Whom| match whom {
            Whom::Some => format!("callers with a budget are not served by {it}"),
            Whom::Everybody => {
                format!("nobody is served by {it}, since a provider of the model has a budget")
            }
        };
        match gap {
            Gap::Nothing(whom) => {
                let who = match whom {
                    Whom::Some => "callers with a budget are never served",
                    Whom::Everybody => "nobody is ever served, since a provider has a budget",
                };
                format!("{places}: no target has a price: {who}; write the `price` of one")
            }
            Gap::Unpriced(provider, whom) => {
                let seen = match self.refuses() {
                    true => served(whom),
                    false => "that is counted as costing nothing, and no budget sees it".to_owned(),
                };
                let entry = self.config.providers.get(*provider);
                let or = match entry.and_then(|entry| entry.prices.as_deref()) {
                    Some(section) => format!("or import a list whose `{section}` has {it}"),
                    None => format!("or `prices` or `free` in [providers.{provider}]"),
                };
                format!("{places}: {targets} {have} no price: {seen}; write {its} `price`, {or}")
            }
            Gap::Boundless(Needs { kind, at, what }, whom) => {
                let at = at.map_or_else(String::new, |path| format!(" at /v1{path}"));
                let seen = match self.refuses() {
                    true => served(whom),
                    false => "nothing is set aside for that".to_owned(),
                };
                format!(
                    "{places}: {its} price does not tell what {targets} may cost at most as `{kind}`{at}: {seen}; state {what}"
                )
            }
            Gap::Extra(extra, whom) => {
                let seen = match self.refuses() {
                    true => format!("{} unless {it} {have} a `price`", served(whom)),
                    false => "budgets see only what its tokens cost without".to_owned(),
                };
                format!(
                    "{places}: rules give `{extra}` to {targets}, and what that costs is not known: {seen}"
                )
            }
            Gap::Classes(_, kinds) => {
                let mut each = String::new();
                for (n, kind) in kinds.names().enumerate() {
                    let and = if n == 0 { "" } else { ", " };
                    let _ = write!(each, "{and}`{kind}` (charged as `{}`)", relative(kind));
                }
                format!(
                    "{places}: {targets} {have} no rate for {each}, which is billed apart; state it in {its} `price`"
                )
            }
        }
    }
}

/// The section of the lists that knows how a provider bills: its own, else its preset's, which may have one without
/// naming it, as a deployment's name is its owner's choice.
fn section<'c>(name: &'c str, of: &'c config::Provider, book: &Book) -> Option<&'c str> {
    let preset = || Some(of.preset.as_deref().unwrap_or(name));
    let section = of.prices.as_deref().or_else(preset)?;
    book.sections().contains(section).then_some(section)
}
