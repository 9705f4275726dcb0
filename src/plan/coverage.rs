//! Is what a budget is charged what the provider bills? How well each target's price is known, and what is not.
//!
//! A class of tokens needs a rate of its own only where its provider bills it apart from its relative, and that is known
//! from the lists of prices: of this very model, or of the others in its section. What no list speaks of is taken as it is
//! written. Targets whose provider's key is not there are judged as well: a gate runs where there are no keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::compile::Compiler;
use super::money::is_free;
use crate::admission::{Caller, Keyring};
use crate::config;
use crate::config::money::Unpriced;
use crate::route::Route;
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
    /// Nobody knows.
    Unpriced,
}

impl Known {
    /// The metric's label.
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Estimated(_) => "estimated",
            Self::Unpriced => "unpriced",
        }
    }

    /// Of a model, beside what is billed apart in its section.
    fn of(price: Option<&Price>, section: Option<&str>, model: &str, apart: &Apart<'_>) -> Self {
        let Some(price) = price else {
            return Self::Unpriced;
        };
        if price.is_free() || section.is_some_and(|section| TELL_THEIR_BILL.contains(&section)) {
            return Self::Exact;
        }
        let mut billed = apart.by_model.get(model).copied().unwrap_or_default();
        // What embeds gives no tokens, and nobody caches it.
        if !price.gives_for_nothing() {
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
        let spenders: BTreeMap<_, &Caller> = spenders.map(|it| (&it.models, &**it)).collect();
        let (defaults, total) = (&self.config.defaults, &self.config.total);
        let is_everybodys = defaults.budget.is_some() || total.budget.is_some();
        let mut found: BTreeMap<Gap<'c>, Vec<(String, &str)>> = BTreeMap::new();
        let mut find = |gap, place, one: &Judged<'c>| {
            found.entry(gap).or_default().push((place, one.target));
        };
        // A key's list names what its callers ask for; what is asked instead is the operator's choice.
        let asked_as: BTreeMap<&str, BTreeSet<&str>> = judged
            .iter()
            .map(|one| (one.model, self.asked_as(one.model)))
            .collect();
        for of_one in judged.chunk_by(|one, other| one.model == other.model) {
            let may_ask =
                |name: &&str| is_everybodys || spenders.values().any(|it| it.may_use(name));
            let asked_as = of_one.first().and_then(|one| asked_as.get(one.model));
            let whom = |target: Option<&'c str>| {
                let mut names = asked_as.into_iter().flatten().chain(&target);
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
            for (n, written) in entry.targets.iter().enumerate() {
                let to = written.to.as_str();
                let Some((provider, rest)) = to.split_once('/') else {
                    continue;
                };
                let Some(of) = config.providers.get(provider) else {
                    continue;
                };
                let (price, extra) = if self.unavailable.contains_key(provider) {
                    let at = ["models", model, "targets", &n.to_string(), "price"];
                    (self.price_unasked(&at, written, rest, of, book), None)
                } else {
                    // Where one is flawed it is not there, and there will be no plan.
                    let Some(target) = askable.next() else {
                        continue;
                    };
                    let extra = target.rules.extra().or_else(|| route.rules.extra());
                    let extra = extra.filter(|_| !target.terms.own_price);
                    (target.terms.price.clone(), extra)
                };
                let is_free = price.as_ref().is_some_and(|price| price.is_free());
                let section = section(provider, of, book);
                let apart = apart
                    .entry(section.unwrap_or_default())
                    .or_insert_with(|| section.map_or_else(Apart::default, |it| book.apart(it)));
                judged.push(Judged {
                    model,
                    place: format!("models.{model}.targets[{n}]"),
                    target: to,
                    provider,
                    known: Known::of(price.as_deref(), section, rest, apart),
                    extra: extra.filter(|_| !is_free).map(str::to_owned),
                });
            }
        }
        judged
    }

    /// What a target costs whose provider cannot be asked: what is written, else listed, else free.
    fn price_unasked(
        &mut self,
        at: &[&str],
        written: &config::Target,
        model: &str,
        of: &config::Provider,
        book: &Book,
    ) -> Option<Arc<Price>> {
        let own = written
            .price
            .as_ref()
            .and_then(|price| self.price(at, price));
        let listed = || Some(book.find(of.prices.as_deref()?, model)?.price.clone());
        let free = || is_free(of, self.surroundings.folder).then(Price::free);
        own.or_else(listed).or_else(free).map(Arc::new)
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
