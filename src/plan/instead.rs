//! Which models are asked instead of others? Each must be there, and no way may lead back to where it came from.

use std::collections::{BTreeMap, BTreeSet};

use super::compile::{Compiler, kind};
use crate::config;
use crate::config::load::suggest;
use crate::route::Instead;

/// As it is written.
pub(super) fn instead(model: &config::Model) -> Instead {
    let named = |name: &Option<String>| name.as_deref().map(Into::into);
    Instead {
        too_long: named(&model.on_context_overflow),
        flagged: named(&model.on_content_filter),
        short: named(&model.on_budget),
    }
}

impl<'c> Compiler<'c> {
    /// Names models that are not there, and each loop once: at the first of its models.
    pub(super) fn instead(&mut self) {
        let models = &self.config.models;
        for (name, entry) in models {
            for (field, to) in entry.instead() {
                let at = ["models", name, field];
                if !models.contains_key(to) {
                    let hint = suggest(to, models.keys().map(String::as_str));
                    self.flaw(at, format!("there is no [models.{to}]{hint}"));
                } else if to == name {
                    self.flaw(
                        at,
                        "a model cannot be asked instead of itself; name another one",
                    );
                } else if let Some(way) = self.way(to, name) {
                    let message = format!(
                        "goes in a circle: {name} → {way}; name a model that does not lead back"
                    );
                    self.flaw(at, message);
                } else if let (Some(own), Some(other)) = (entry.kind, self.kind_of(to))
                    && own != other
                {
                    let (own, other) = (kind(own).name(), kind(other).name());
                    let message = format!(
                        "`{to}` is of the kind {other}, and `{name}` of the kind {own}; name one that is asked for the same"
                    );
                    self.flaw(at, message);
                } else if self.is_unavailable(to) {
                    let why = format!("no target of `{to}` can be asked, so it helps nobody");
                    self.warnings.push(format!("models.{name}.{field}: {why}"));
                }
            }
        }
    }

    fn kind_of(&self, model: &str) -> Option<config::Kind> {
        self.config.models.get(model)?.kind
    }

    /// Whether no provider of a model can be asked.
    fn is_unavailable(&self, model: &str) -> bool {
        let entry = self.config.models.get(model);
        let can_be_asked = |target: &config::Target| {
            let provider = target.to.split_once('/').map(|(provider, _)| provider);
            provider.is_none_or(|provider| !self.unavailable.contains_key(provider))
        };
        entry.is_some_and(|entry| !entry.targets.iter().any(can_be_asked))
    }

    /// For each model that is asked instead of others: those others.
    pub(super) fn asked_instead(&self) -> BTreeMap<&'c str, Vec<&'c str>> {
        let mut asked: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, entry) in &self.config.models {
            for (_, next) in entry.instead() {
                asked.entry(next).or_default().push(name.as_str());
            }
        }
        asked
    }

    /// A way from one model to another that comes before it, by whatever causes, over none that come before both.
    fn way(&self, from: &'c str, to: &'c str) -> Option<String> {
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![(from, from.to_owned())];
        while let Some((name, way)) = open.pop() {
            if name == to {
                return Some(way);
            }
            let next = self.config.models.get(name).into_iter();
            for (_, next) in next.flat_map(config::Model::instead) {
                if next >= to && seen.insert(next) {
                    open.push((next, format!("{way} → {next}")));
                }
            }
        }
        None
    }
}

/// A model, and all those instead of which it may come to be asked, by [`Compiler::asked_instead`].
pub(super) fn asked_as<'c>(
    model: &'c str,
    asked_instead: &BTreeMap<&'c str, Vec<&'c str>>,
) -> BTreeSet<&'c str> {
    let (mut names, mut open) = (BTreeSet::from([model]), vec![model]);
    while let Some(to) = open.pop() {
        for name in asked_instead.get(to).into_iter().flatten() {
            if names.insert(name) {
                open.push(name);
            }
        }
    }
    names
}
