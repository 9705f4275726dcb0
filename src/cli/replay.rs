//! `tollgate replay`: would requests have gone elsewhere by another configuration, and at what cost? Decides each request of
//! a log of decisions again, by what was known of the targets then.
//!
//! What happened is taken to happen again: a target that failed fails, and one that nobody asked answers. A target that the
//! log does not know is taken to be as fast and as busy as the others were, on average.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use super::progress::Progress;
use super::{Failed, Loaded};
use crate::config::load::Source;
use crate::config::secret::Environment;
use crate::plan::Plan;
use crate::protocol::Endpoint;
use crate::route::{Bounds, Route, Seen, StickyBy, Target};
use crate::telemetry::Outcome;
use crate::telemetry::decision::{Decision, Logged, Pick};
use crate::usage::{KINDS, Money, Usage};

/// What it comes to, decided again.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// Who answers.
    Answered(String),
    /// Nobody, as all fail that are asked.
    Failed,
    /// It is not sent.
    Rejected(String),
}

/// All of a log.
#[derive(Default)]
struct Sum {
    decided: usize,
    /// Those that were not: they were turned away before that.
    others: usize,
    same: usize,
    moves: BTreeMap<(String, String, String), usize>,
    rejected: BTreeMap<String, usize>,
    /// Of so many answers both costs are known, and what they are together, before and after.
    priced: usize,
    costs: (Money, Money),
    dearer: usize,
    cheaper: usize,
    changes: Vec<Value>,
}

/// Prints what would change. Bad lines fail, but for one that is cut off at the end.
pub fn run(file: &Path, environment: Environment, log: &Path, as_json: bool) -> Result<(), Failed> {
    let loaded = Loaded::read(Source::open(file)?, environment);
    let plan = loaded.compile()?;
    let opened = File::open(log).with_context(|| format!("{} cannot be read", log.display()));
    let mut lines = BufReader::new(opened.map_err(Failed::User)?)
        .lines()
        .enumerate()
        .peekable();
    let mut sum = Sum::default();
    let deciding = Progress::of("deciding again");
    while let Some((n, line)) = lines.next() {
        let line = line.with_context(|| format!("{} cannot be read", log.display()));
        let line = line.map_err(Failed::User)?;
        match serde_json::from_str(&line) {
            Ok(logged) => sum.add(&plan, &logged),
            Err(error) if lines.peek().is_some() => {
                let place = format!("{}:{}", log.display(), n + 1);
                return Err(Failed::User(anyhow!(
                    "{place}: no decision of tollgate: {error}"
                )));
            }
            // The gateway was ended while it wrote, or writes still.
            Err(_) => {}
        }
    }
    drop(deciding);
    super::print(&match as_json {
        true => vec![format!("{:#}", sum.json())],
        false => sum.lines(),
    });
    Ok(())
}

impl Sum {
    fn add(&mut self, plan: &Plan, logged: &Logged) {
        let Some(asked) = logged
            .asked
            .as_deref()
            .filter(|_| !logged.decisions.is_empty())
        else {
            self.others += 1;
            return;
        };
        self.decided += 1;
        let before = answered(logged);
        let (came, route) = decide(plan, asked, logged);
        let costs = match &came {
            Came::Answered(target) => costs(logged, route.as_deref(), target),
            _ => None,
        };
        if let Some((old, new)) = costs {
            self.priced += 1;
            self.costs = (self.costs.0.plus(old), self.costs.1.plus(new));
            self.dearer += usize::from(new > old);
            self.cheaper += usize::from(new < old);
        }
        let is_same = match &came {
            Came::Answered(target) => before == Some(target),
            Came::Failed => before.is_none(),
            Came::Rejected(_) => false,
        };
        if is_same {
            self.same += 1;
        } else if let Came::Rejected(why) = &came {
            *self.rejected.entry(why.clone()).or_default() += 1;
        } else {
            let name = |target: Option<&str>| target.unwrap_or("nobody").to_owned();
            let after = match &came {
                Came::Answered(target) => Some(&**target),
                _ => None,
            };
            let key = (asked.to_owned(), name(before), name(after));
            *self.moves.entry(key).or_default() += 1;
        }
        let is_dearer = costs.is_some_and(|(old, new)| old != new);
        if !is_same || is_dearer {
            let (after, why) = match &came {
                Came::Answered(target) => (Some(target), None),
                Came::Failed => (None, None),
                Came::Rejected(why) => (None, Some(why)),
            };
            self.changes.push(json!({
                "id": logged.id,
                "model": asked,
                "before": before,
                "after": after,
                "rejected": why,
                "cost_usd_before": costs.map(|(old, _)| old.to_string()),
                "cost_usd_after": costs.map(|(_, new)| new.to_string()),
            }));
        }
    }

    fn json(&self) -> Value {
        json!({
            "decided": self.decided,
            "not_decided": self.others,
            "same": self.same,
            "priced": self.priced,
            "cost_usd_before": self.costs.0.to_string(),
            "cost_usd_after": self.costs.1.to_string(),
            "changes": self.changes,
        })
    }

    fn lines(&self) -> Vec<String> {
        let moved: usize = self.moves.values().sum();
        let rejected: usize = self.rejected.values().sum();
        let mut lines = vec![format!(
            "{} requests: {} as before, {moved} elsewhere, {rejected} rejected; {} were turned away before anybody was chosen",
            self.decided + self.others,
            self.same,
            self.others
        )];
        for ((model, before, after), count) in &self.moves {
            lines.push(format!("  {count} x {model}: {before} -> {after}"));
        }
        for (why, count) in &self.rejected {
            lines.push(format!("  {count} x rejected: {why}"));
        }
        lines.push(format!(
            "what {} answers cost: {} USD before, {} USD after; {} cheaper, {} dearer",
            self.priced, self.costs.0, self.costs.1, self.cheaper, self.dearer
        ));
        lines
    }
}

/// Who answered.
fn answered(logged: &Logged) -> Option<&str> {
    logged.decisions.last()?.answered()
}

/// What the answer of a request cost, and what it would cost of somebody.
fn costs(logged: &Logged, route: Option<&Route>, after: &str) -> Option<(Money, Money)> {
    let old = Money::parse(logged.paid_usd.as_deref()?).ok()?;
    let told = logged.usage.as_ref()?;
    let counts = KINDS.map(|kind| told.get(kind).copied().unwrap_or(0));
    // What a provider says itself that it bills, another one would not.
    let billed = logged.billed_usd.as_deref();
    let billed = billed.filter(|_| answered(logged) == Some(after));
    let usage = Usage {
        look: logged.look,
        ..Usage::of(counts, billed.and_then(|usd| Money::parse(usd).ok()))
    };
    let mut targets = route?.targets.iter();
    let target = targets.find(|target| &*target.name == after)?;
    let price = target.terms.price.as_ref()?;
    // Of pictures that it does not speak of nobody knows what they would cost.
    let is_known = usage.images == 0 || usage.cost.is_some() || price.draws(usage.look);
    is_known.then(|| (old, price.cost(&usage)))
}

/// Decides a request again.
fn decide(plan: &Plan, asked: &str, logged: &Logged) -> (Came, Option<Arc<Route>>) {
    let Some(mut route) = plan.route(asked) else {
        return (Came::Rejected(format!("there is no model `{asked}`")), None);
    };
    let made = crate::admission::MadeKeys::default();
    let caller = logged.key.as_deref();
    let caller = caller.and_then(|name| plan.keyring.named(name, &made));
    // Of keys that were made nothing stands in a configuration.
    if let Some(caller) = caller.filter(|caller| !caller.may_use(asked)) {
        let why = format!("the key `{}` may not use the model `{asked}`", caller.name);
        return (Came::Rejected(why), None);
    }
    // A line without a word of it is of a time when all were for anything.
    let endpoint = Endpoint::named(&logged.api);
    let other = |route: &Route| endpoint.and_then(|endpoint| route.is_for_other(endpoint));
    if let Some(kind) = other(&route) {
        let why = format!("the model `{asked}` is of the kind {}", kind.name());
        return (Came::Rejected(why), None);
    }
    let mut decisions = logged.decisions.iter().peekable();
    while let Some(decision) = decisions.next() {
        if route.targets.is_empty() {
            let why = route.skipped.join("; ");
            let why = format!("no target of `{asked}` is available: {why}");
            return (Came::Rejected(why), None);
        }
        if let Some(keeper) = &decision.keeper {
            let Some(narrowed) = route.at(&Arc::from(&**keeper)) else {
                let why = format!(
                    "what it goes on from is kept at `{keeper}`, where `{asked}` has no target"
                );
                return (Came::Rejected(why), None);
            };
            route = narrowed;
        }
        if let Some(target) = again(&route, decision) {
            return (Came::Answered(target), Some(route));
        }
        let Some(next) = decisions.peek() else {
            break;
        };
        let instead = route.instead.clone();
        let mut all = [instead.too_long, instead.flagged, instead.short].into_iter();
        let is_next = all.any(|name| name.as_deref() == Some(&*next.model));
        let next = plan.models.get(&*next.model).filter(|_| is_next);
        match next.filter(|next| other(next).is_none()) {
            Some(other) => route = Arc::clone(other),
            None => break,
        }
    }
    (Came::Failed, Some(route))
}

/// Who of a model's targets answers. None: nobody.
fn again(route: &Route, logged: &Decision) -> Option<String> {
    let mark = |by: &StickyBy| logged.marks.get(&by.name()).map(|mark| mark.0);
    let bounds = Bounds::from_json(&logged.demand);
    let cost = |target: &Target| {
        let mut known = logged.candidates().iter();
        let known = known.find(|it| *it.target == *target.name);
        // What its rules made of the request is not in what the client asked for.
        match known.filter(|_| target.terms.rewrites.is_some()) {
            Some(known) => target.terms.bound(known.most),
            None => bounds.as_ref()?.at(&target.terms),
        }
    };
    let mut walk = route.walk_again(mark, cost, logged.seed.0);
    let answered = logged.answered();
    let mut is_alike = true;
    for n in 0.. {
        let known = logged.picks.get(n).or(logged.picks.last())?;
        let seen: Vec<Seen> = route.targets.iter().map(|it| seen(known, it)).collect();
        let target = walk.next_of(&seen[..]).map(|target| &*target.name);
        let Some(name) = target else {
            // All rested, and one was tried all the same.
            let is_last_resort = is_alike && logged.picks.iter().all(|it| it.target.is_none());
            let answered = answered.filter(|_| is_last_resort)?;
            let mut targets = route.targets.iter();
            let is_there = targets.any(|target| &*target.name == answered);
            return is_there.then(|| answered.to_owned());
        };
        is_alike &= logged.picks.get(n).and_then(|it| it.target.as_deref()) == Some(name);
        let mut steps = logged.steps.iter().filter(|step| *step.target == *name);
        let Some(step) = steps.next_back() else {
            return Some(name.to_owned());
        };
        if step.is_answer() || step.outrun && route.hedge.is_none() {
            return Some(name.to_owned());
        }
        // Up to here all is as it was, and there it ended: time was up, or nobody else could have helped.
        if step.outcome == Outcome::ClientFault.name()
            || is_alike && answered.is_none() && n + 1 == logged.picks.len()
        {
            return None;
        }
    }
    None
}

/// What was known of a target when it was chosen from.
fn seen(pick: &Pick, target: &Target) -> Seen {
    let all = pick.candidates.iter();
    if let Some(known) = all.clone().find(|it| *it.target == *target.name) {
        return Seen {
            is_open: known.rests_ms.is_none(),
            busy: known.busy,
            warmth: known.warmth,
            latency_us: known.latency_us,
        };
    }
    let latencies: Vec<u64> = all.clone().filter_map(|it| it.latency_us).collect();
    let mean = |all: u64, count: usize| all.checked_div(count as u64);
    let busy = all.clone().map(|it| u64::from(it.busy)).sum();
    let busy = mean(busy, all.len()).map(u32::try_from);
    Seen {
        is_open: true,
        busy: busy.map_or(0, |busy| busy.unwrap_or(u32::MAX)),
        warmth: 1_000,
        latency_us: mean(latencies.iter().sum(), latencies.len()),
    }
}
