//! In which order are a model's targets asked, and who is asked instead? Weights, tiers, fallbacks and other names.

use std::collections::{BTreeMap, BTreeSet};

use super::amounts;
use super::deployments::Deployment;
use super::marks::{Marks, Note};
use super::models::param;
use super::params::is_rule;
use super::toml::{Section, Value};
use super::yaml::Node;
use crate::usage::Decimal;

/// The heaviest that a target may be.
const HEAVIEST: u64 = 1_000_000;

/// Longer than this, in milliseconds, a try must be allowed for by the model.
const DEADLINE: u64 = 300_000;

/// One of a model's targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    pub to: String,
    pub shares: [Option<String>; 3],
    pub weight: Option<u64>,
    pub tier: u64,
    pub limits: BTreeMap<&'static str, u64>,
    pub price: BTreeMap<&'static str, String>,
    pub context: Option<u64>,
    pub max_output: Option<u64>,
    pub reasoning: bool,
    pub notes: Vec<Note>,
}

impl Target {
    /// One of which nothing is known but its name.
    pub(super) fn plain(to: &str) -> Self {
        Self {
            to: to.to_owned(),
            ..Self::default()
        }
    }

    fn write(&self, strategy: Option<&str>) -> Value {
        let mut fields = vec![("to".to_owned(), Value::text(&self.to))];
        let mut put = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        let weight = self.weight.filter(|_| strategy == Some("weight"));
        put("weight", weight.map(Value::bare));
        put(
            "tier",
            Some(self.tier).filter(|tier| *tier > 0).map(Value::bare),
        );
        let limits = self
            .limits
            .iter()
            .map(|(name, limit)| ((*name).to_owned(), Value::bare(limit)));
        let limits: Vec<_> = limits.collect();
        put(
            "limits",
            Some(Value::Table(limits)).filter(|_| !self.limits.is_empty()),
        );
        let price = self
            .price
            .iter()
            .map(|(class, price)| ((*class).to_owned(), Value::bare(price)));
        let price: Vec<_> = price.collect();
        put(
            "price",
            Some(Value::Table(price)).filter(|_| !self.price.is_empty()),
        );
        put("context", self.context.map(Value::bare));
        put("max_output", self.max_output.map(Value::bare));
        put("reasoning", self.reasoning.then(|| Value::bare(true)));
        match fields.as_slice() {
            [_] => Value::text(&self.to),
            _ => Value::Table(fields),
        }
    }
}

/// `[models.NAME]`.
#[derive(Clone, Debug)]
pub(super) struct Model<'y> {
    pub name: String,
    /// The model that it is another name of.
    pub of: Option<String>,
    pub kind: Option<&'static str>,
    pub strategy: Option<&'static str>,
    pub targets: Vec<Target>,
    /// By which field, and which model is asked instead.
    pub instead: BTreeMap<&'static str, (String, Vec<Note>)>,
    /// In milliseconds.
    pub deadline: Option<u64>,
    pub defaults: Vec<(String, Value)>,
    pub drops: Vec<String>,
    pub notes: Vec<Note>,
    pub strategy_notes: Vec<Note>,
    pub entries: Vec<&'y Node>,
}

impl<'y> Model<'y> {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            of: None,
            kind: None,
            strategy: None,
            targets: Vec::new(),
            instead: BTreeMap::new(),
            deadline: None,
            defaults: Vec::new(),
            drops: Vec::new(),
            notes: Vec::new(),
            strategy_notes: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Adds what a deployment says.
    pub(super) fn add(&mut self, provider: &str, deployment: Deployment<'y>, marks: &mut Marks) {
        let entry = deployment.entry;
        self.kinds(&deployment, marks);
        self.rules(&deployment, marks);
        self.entries.push(entry);
        let total = deployment.place.site.timeouts.get("total").copied();
        self.deadline = self.deadline.max(total.filter(|total| *total > DEADLINE));
        let to = format!("{provider}/{}", deployment.place.model);
        if self.targets.iter().any(|known| known.to == to) {
            let text = "the same target as before it: it is asked once";
            let note = marks.approximate(param(entry, "model").unwrap_or(entry), text);
            self.notes.push(note);
            return;
        }
        self.targets.push(Target {
            to,
            shares: deployment.shares,
            weight: None,
            // Those without an order come last.
            tier: deployment.order.unwrap_or(u64::MAX),
            limits: deployment.limits,
            price: deployment.price,
            context: deployment.context,
            max_output: deployment.max_output,
            reasoning: deployment.reasoning,
            notes: deployment.notes,
        });
    }

    fn kinds(&mut self, deployment: &Deployment<'y>, marks: &mut Marks) {
        if self.entries.is_empty() {
            self.kind = deployment.kind;
        } else if self.kind != deployment.kind {
            self.kind = None;
            let mut nodes = self.entries.iter().chain([&deployment.entry]);
            let node = nodes.find_map(|entry| entry.get("model_info")?.get("mode"));
            if let Some(node) = node {
                let text = "its deployments are not all said to be for the same: write `kind`, if they are";
                self.notes.push(marks.manual(node, text));
            }
        }
    }

    /// What a model changes in requests is the same for all of its targets.
    fn rules(&mut self, deployment: &Deployment<'y>, marks: &mut Marks) {
        let (defaults, drops) = (&deployment.defaults, &deployment.drops);
        if self.entries.is_empty() {
            self.defaults.clone_from(defaults);
            self.drops.clone_from(drops);
        } else if (&self.defaults, &self.drops) != (defaults, drops) {
            self.defaults.clear();
            self.drops.clear();
            for entry in self.entries.iter().chain([&deployment.entry]) {
                let params = entry.get("litellm_params");
                for (name, node) in params.map(Node::members).unwrap_or_default() {
                    if is_rule(name) && !node.is_null() {
                        let text = format!(
                            "its deployments differ in `{name}`: write it under `rules_for` of their providers"
                        );
                        self.notes.push(marks.manual(node, text));
                    }
                }
            }
        }
    }

    /// Tiers from 0 on, and weights within each.
    pub(super) fn order(&mut self, strategy: &'static str) {
        let tiers: BTreeSet<u64> = self.targets.iter().map(|target| target.tier).collect();
        for (n, tier) in (0..).zip(tiers) {
            let mut some: Vec<&mut Target> = self
                .targets
                .iter_mut()
                .filter(|target| target.tier == tier)
                .collect();
            if some.len() > 1 {
                self.strategy = Some(strategy);
                weigh(&mut some);
            }
            for target in some {
                target.tier = n;
            }
        }
        self.targets.sort_by_key(|target| target.tier);
    }

    /// Whether it has a name, or is another name of what has it.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name || self.of.as_deref() == Some(name)
    }

    pub(super) fn last_tier(&self) -> u64 {
        self.targets
            .iter()
            .map(|target| target.tier)
            .max()
            .unwrap_or_default()
    }

    pub(super) fn write(&self, out: &mut String) {
        let mut section = Section::new(&["models", &self.name]);
        self.notes
            .iter()
            .for_each(|note| section.tell(note.clone()));
        if let Some(kind) = self.kind {
            section.put("kind", Value::text(kind), Vec::new());
        }
        if let Some(strategy) = self.strategy {
            section.put(
                "strategy",
                Value::text(strategy),
                self.strategy_notes.clone(),
            );
        }
        let written = |target: &Target| (target.write(self.strategy), target.notes.clone());
        let lines: Vec<_> = self.targets.iter().map(written).collect();
        let targets = match lines.as_slice() {
            [(only, notes)] if notes.is_empty() => Value::List(vec![only.clone()]),
            _ => Value::Lines(lines),
        };
        section.put("targets", targets, Vec::new());
        if let Some(deadline) = self.deadline {
            section.put(
                "deadline",
                Value::text(amounts::written(deadline)),
                Vec::new(),
            );
        }
        for (field, (model, notes)) in &self.instead {
            section.put(field, Value::text(model), notes.clone());
        }
        if !self.defaults.is_empty() {
            section.put(
                "rules.default",
                Value::Table(self.defaults.clone()),
                Vec::new(),
            );
        }
        if !self.drops.is_empty() {
            let drops = self.drops.iter().map(Value::text).collect();
            section.put("rules.drop", Value::List(drops), Vec::new());
        }
        section.write(out);
    }
}

/// Weights by the first of what LiteLLM weighs by that anybody has; those who have it not get none of it.
fn weigh(targets: &mut [&mut Target]) {
    let parts = |n: usize, target: &Target| {
        let share = target.shares.get(n).and_then(Option::as_deref);
        let parts = share.and_then(|share| Decimal::parse(share, 6).ok()?.nearest().ok());
        parts.unwrap_or_default()
    };
    let all = (0..3).map(|n| {
        targets
            .iter()
            .map(|target| parts(n, target))
            .collect::<Vec<u64>>()
    });
    let mut weighed = all.filter(|weights| weights.iter().any(|weight| *weight > 0));
    let Some(weights) = weighed.next() else {
        return;
    };
    if weights
        .windows(2)
        .all(|two| matches!(two, [one, other] if one == other))
    {
        return;
    }
    let common = weights.iter().copied().fold(0, gcd).max(1);
    let most = weights.iter().copied().max().unwrap_or_default() / common;
    for (target, weight) in targets.iter_mut().zip(weights) {
        let weight = weight / common;
        let scaled = u128::from(weight) * u128::from(HEAVIEST) / u128::from(most.max(1));
        let scaled = u64::try_from(scaled).unwrap_or(HEAVIEST);
        target.weight = Some(match most > HEAVIEST {
            true => scaled.max(u64::from(weight > 0)),
            false => weight,
        });
    }
}

fn gcd(one: u64, other: u64) -> u64 {
    match other {
        0 => one,
        _ => gcd(other, one % other),
    }
}
