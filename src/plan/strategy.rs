//! In which order are a model's targets asked? What is written of it, and what of that would say nothing.

use http::HeaderName;

use super::compile::Compiler;
use super::money::part;
use crate::config;
use crate::config::money::Written;
use crate::route::{After, Hedge, Pace, StickyBy, Strategy, Target};

/// The largest weight: a thousand of them still have a sum.
const HEAVIEST: u32 = 1_000_000;

impl Compiler<'_> {
    /// A model's strategy.
    pub(super) fn strategy(
        &mut self,
        model: &str,
        entry: &config::Model,
        targets: &[Target],
    ) -> Strategy {
        self.weights(model, entry);
        let is_sticky = entry.strategy == config::Strategy::Sticky;
        if !is_sticky && entry.sticky_by != config::StickyBy::usual() {
            let strategy = "`sticky_by` says nothing but with strategy = \"sticky\"";
            self.warnings.push(format!("models.{model}: {strategy}"));
        }
        match entry.strategy {
            config::Strategy::Order => Strategy::Order,
            config::Strategy::Weight => Strategy::Weight,
            config::Strategy::Latency => Strategy::Latency,
            config::Strategy::LeastBusy => Strategy::LeastBusy,
            config::Strategy::Cost => {
                let unpriced = targets.iter().filter(|target| target.terms.price.is_none());
                self.warnings.extend(unpriced.map(|target| {
                    let name = &target.name;
                    format!("models.{model}: nobody knows what {name} costs: with strategy = \"cost\" it is asked last")
                }));
                Strategy::Cost
            }
            config::Strategy::Sticky => Strategy::Sticky(self.sticky_by(model, entry)),
        }
    }

    /// When a second target of a model is asked beside the first.
    pub(super) fn hedge(
        &mut self,
        model: &str,
        entry: &config::Model,
        targets: &[Target],
    ) -> Option<Box<Hedge>> {
        let written = entry.hedge.as_ref()?;
        if entry.targets.len() == 1 {
            let message = "there is only one target, and nobody to ask beside it";
            self.flaw(["models", model, "hedge"], message);
        }
        let Written(text) = &written.at_most;
        let Some(at_most) = part(text) else {
            let message = format!("`{text}` is no part of a whole; write a number such as 0.02");
            self.flaw(["models", model, "hedge", "at_most"], message);
            return None;
        };
        if matches!(written.after, config::After::Percentile(_)) {
            let paces = targets.iter().map(|target| target.health.pace());
            paces.for_each(Pace::counts_times);
        }
        Some(Box::new(Hedge {
            after: match written.after {
                config::After::Percentile(it) => After::Percentile(f64::from(it) / 1e3),
                config::After::Fixed(after) => After::Fixed(after),
            },
            at_most,
            share: self.healths.share(model),
        }))
    }

    fn weights(&mut self, model: &str, entry: &config::Model) {
        let is_weighed = entry.strategy == config::Strategy::Weight;
        let mut is_used = false;
        for (n, target) in entry.targets.iter().enumerate() {
            let n = n.to_string();
            let at = ["models", model, "targets", &n, "weight"];
            match target.weight {
                Some(weight) if weight > HEAVIEST => {
                    self.flaw(at, format!("is more than {HEAVIEST}"));
                }
                Some(_) if !is_weighed => {
                    let strategy = "`weight` says nothing but with strategy = \"weight\"";
                    let place = format!("models.{model}.targets[{n}]: {strategy}");
                    self.warnings.push(place);
                }
                _ => {}
            }
            is_used |= target.weight != Some(0);
        }
        if is_weighed && !is_used && !entry.targets.is_empty() {
            let message = "every weight is 0: give one target some";
            self.flaw(["models", model, "targets"], message);
        }
    }

    fn sticky_by(&mut self, model: &str, entry: &config::Model) -> Vec<StickyBy> {
        if entry.sticky_by.is_empty() {
            let message = "says by nothing what belongs together; leave it out for the usual";
            self.flaw(["models", model, "sticky_by"], message);
        }
        let mut all = Vec::new();
        for (n, by) in entry.sticky_by.iter().enumerate() {
            all.push(match by {
                config::StickyBy::Messages => StickyBy::Messages,
                config::StickyBy::PromptCacheKey => StickyBy::Member("prompt_cache_key"),
                config::StickyBy::User => StickyBy::Member("user"),
                config::StickyBy::Header(name) => match HeaderName::try_from(name.as_str()) {
                    Ok(name) => StickyBy::Header(name),
                    Err(_) => {
                        let n = n.to_string();
                        let message = format!("`{name}` is no name of a header");
                        self.flaw(["models", model, "sticky_by", &n], message);
                        continue;
                    }
                },
            });
        }
        all
    }
}
