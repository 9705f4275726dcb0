//! Who is asked where a model's own targets cannot answer, and by which further names is it known?

use std::collections::{BTreeMap, BTreeSet};

use super::marks::{Marks, Note};
use super::models::{Providers, param};
use super::routing::{Fallback, Routing};
use super::targets::{Model, Target};

/// Orders targets, adds those of fallbacks and further names.
pub(super) fn settle<'y>(
    models: &mut Vec<Model<'y>>,
    routing: &Routing<'y>,
    providers: &Providers,
    marks: &mut Marks,
) {
    for model in models.iter_mut() {
        model.order(routing.strategy);
    }
    limits(models, marks);
    let mut told = routing.strategy_notes.iter();
    let first = models.iter_mut().find(|model| model.strategy.is_some());
    if let Some(first) = first {
        first.strategy_notes.extend(told.by_ref().cloned());
    }
    aliases(models, routing, marks);
    fallbacks(models, routing, providers, marks);
    for (field, all) in [
        ("on_context_overflow", &routing.overflow),
        ("on_content_filter", &routing.content),
    ] {
        instead(models, field, all, marks);
    }
    let known: BTreeMap<String, _> = models
        .iter()
        .map(|model| (model.name.clone(), model.instead.clone()))
        .collect();
    for model in models.iter_mut().filter(|model| model.instead.is_empty()) {
        let instead = model.of.as_ref().and_then(|of| known.get(of));
        model.instead = instead.cloned().unwrap_or_default();
        // Its own name would be asked instead of itself.
        let name = model.name.clone();
        model.instead.retain(|_, (to, _)| *to != name);
    }
}

/// A target's limits hold over all models, and are written once.
fn limits(models: &mut [Model<'_>], marks: &mut Marks) {
    let mut known: BTreeMap<String, (String, BTreeMap<&'static str, u64>)> = BTreeMap::new();
    for model in models.iter_mut() {
        for target in &mut model.targets {
            if target.limits.is_empty() {
                continue;
            }
            let own = (model.name.clone(), target.limits.clone());
            let (elsewhere, limits) = known.entry(target.to.clone()).or_insert(own);
            if *limits == target.limits {
                continue;
            }
            target.limits.clear();
            let text = format!(
                "a target's limits hold over all models, and those of {} stand at models.{elsewhere}",
                target.to
            );
            for entry in &model.entries {
                for name in ["rpm", "tpm", "rpd", "max_parallel_requests"] {
                    if let Some(node) = param(entry, name) {
                        target.notes.push(marks.approximate(node, text.clone()));
                    }
                }
            }
        }
    }
}

fn aliases<'y>(models: &mut Vec<Model<'y>>, routing: &Routing<'y>, marks: &mut Marks) {
    for alias in &routing.aliases {
        if models.iter().any(|model| model.name == alias.name) {
            let text = "a model of this name is there already: take one of them out";
            marks.manual(alias.node, text);
            continue;
        }
        match models.iter().find(|model| model.name == alias.of).cloned() {
            Some(model) => {
                marks.exact(
                    alias.node,
                    format!("models.{}, with the same targets", alias.name),
                );
                models.push(Model {
                    name: alias.name.clone(),
                    of: Some(alias.of.clone()),
                    notes: Vec::new(),
                    strategy_notes: Vec::new(),
                    ..model
                });
            }
            None => drop(marks.unsupported(alias.node, GONE)),
        }
    }
}

/// Why nobody is asked instead.
const GONE: &str = "no model of this name was carried over";

/// Who is asked where nobody of a model can answer: the targets of others, behind its own.
fn fallbacks(
    models: &mut [Model<'_>],
    routing: &Routing<'_>,
    providers: &Providers,
    marks: &mut Marks,
) {
    let own = models
        .iter()
        .map(|model| (model.name.clone(), (model.kind, model.targets.clone())));
    let own: BTreeMap<String, _> = own.collect();
    for fallback in &routing.fallbacks {
        let is_general = fallback.from == "*";
        let has_own =
            |model: &Model<'_>| routing.fallbacks.iter().any(|other| model.is(&other.from));
        let all = models.iter_mut().filter(|model| match is_general {
            true => !has_own(model),
            false => model.is(&fallback.from),
        });
        let mut some = all.peekable();
        if some.peek().is_none() {
            for (_, node) in &fallback.to {
                marks.unsupported(node, GONE);
            }
        }
        for model in some {
            for (name, node) in &fallback.to {
                let direct = || Some((None, vec![providers.direct(name)?]));
                let Some((kind, targets)) = own.get(name).cloned().or_else(direct) else {
                    marks.unsupported(node, GONE);
                    continue;
                };
                let text = format!(
                    "the targets of `{name}` are asked behind the others, as further tiers; its own fallbacks are not"
                );
                let note = marks.approximate(node, text);
                // Nobody is asked for what another kind of model answers.
                if matches!((model.kind, kind), (Some(one), Some(other)) if one != other) {
                    continue;
                }
                behind(model, targets, &note, routing.strategy);
            }
        }
    }
}

/// Adds targets that are asked when all others cannot be.
fn behind(model: &mut Model<'_>, targets: Vec<Target>, note: &Note, strategy: &'static str) {
    let tier = model.last_tier() + 1;
    let new: Vec<Target> = targets
        .into_iter()
        .filter(|target| model.targets.iter().all(|known| known.to != target.to))
        .map(|target| Target {
            tier: tier + target.tier,
            notes: vec![note.clone()],
            ..target
        })
        .collect();
    let tiers: BTreeSet<u64> = new.iter().map(|target| target.tier).collect();
    if tiers.len() < new.len() {
        model.strategy.get_or_insert(strategy);
    }
    model.targets.extend(new);
}

/// Who is asked where a model cannot take a request. No way may lead back.
fn instead(models: &mut [Model<'_>], field: &'static str, all: &[Fallback<'_>], marks: &mut Marks) {
    for fallback in all {
        let mut is_set = false;
        for (name, node) in &fallback.to {
            let from = models.iter().position(|model| model.name == fallback.from);
            let to = models.iter().find(|model| model.name == *name);
            let (Some(from), Some(to)) = (from.and_then(|n| models.get(n)), to) else {
                marks.unsupported(node, GONE);
                continue;
            };
            let kinds_differ =
                matches!((from.kind, to.kind), (Some(one), Some(other)) if one != other);
            if is_set || from.instead.contains_key(field) {
                let text = format!(
                    "one model is asked instead; write `{field}` of that one, too, for the next"
                );
                marks.unsupported(node, text);
            } else if kinds_differ || leads(models, name, &fallback.from) {
                let text = format!(
                    "leads back, or to a model of another kind: write another one as `{field}`"
                );
                marks.manual(node, text);
            } else {
                marks.exact(node, format!("models.{}.{field}", fallback.from));
                is_set = true;
                let from = models.iter_mut().find(|model| model.name == fallback.from);
                if let Some(from) = from {
                    from.instead.insert(field, (name.clone(), Vec::new()));
                }
            }
        }
    }
}

/// Whether one model may come to be asked after another.
fn leads(models: &[Model<'_>], from: &str, to: &str) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::from([from]));
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        let model = models.iter().find(|model| model.name == name);
        let next = model.into_iter().flat_map(|model| model.instead.values());
        for (name, _) in next {
            if seen.insert(name) {
                open.push(name);
            }
        }
    }
    false
}
