//! A model's targets, in tiers, with what is worked out of them once, so that a request need not look at all of them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

use super::health::Health;
use super::{Target, Terms};

/// Who may serve a model: the first tier first, and in each tier as written.
#[derive(Default)]
pub struct Targets {
    all: Vec<Arc<Target>>,
    /// What is known of each, side by side: whoever compares many looks at nothing else of them.
    healths: Vec<Arc<Health>>,
    tiers: Vec<Tier>,
    /// One of those that cost the same and take as much, for each such kind.
    kinds: Vec<usize>,
    /// Some have limits.
    pub is_limited: bool,
    /// Some have a provider with a budget.
    pub is_metered: bool,
}

/// Targets that are asked before those of the next tier.
pub(super) struct Tier {
    /// Where they stand.
    pub(super) all: Range<usize>,
    /// Of each, what it and all before it weigh.
    pub(super) weights: Vec<u64>,
    /// Of each, a number that only its name decides: the same after a restart, and at other gateways.
    pub(super) marks: Vec<u64>,
    /// Those of each kind, by the number of that.
    pub(super) kinds: Vec<(usize, Vec<usize>)>,
}

impl Tier {
    fn of(all: &[Arc<Target>], range: Range<usize>, kind_of: &[usize]) -> Self {
        let targets = all.get(range.clone()).unwrap_or_default();
        let mut sum = 0_u64;
        let weights = targets.iter().map(|target| {
            sum += u64::from(target.weight);
            sum
        });
        let mut kinds: Vec<(usize, Vec<usize>)> = Vec::new();
        for (n, kind) in range.clone().zip(kind_of.iter().skip(range.start)) {
            match kinds.iter_mut().find(|(known, _)| known == kind) {
                Some((_, members)) => members.push(n),
                None => kinds.push((*kind, vec![n])),
            }
        }
        Self {
            weights: weights.collect(),
            marks: targets
                .iter()
                .map(|target| mark(target.name.as_bytes()))
                .collect(),
            kinds,
            all: range,
        }
    }
}

/// A number for a text. The keys of this hash are fixed.
pub(super) fn mark(text: impl AsRef<[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.as_ref().hash(&mut hasher);
    hasher.finish()
}

impl From<Vec<Target>> for Targets {
    fn from(mut all: Vec<Target>) -> Self {
        // Those of one tier stay in the order in which they are written.
        all.sort_by_key(|target| target.tier);
        let mut kinds: Vec<Terms> = Vec::new();
        for target in &mut all {
            match kinds.iter().find(|terms| terms.binds_like(&target.terms)) {
                // One price in memory: each look at another one is a look at memory that nobody has at hand.
                Some(terms) => target.terms.price.clone_from(&terms.price),
                None => kinds.push(target.terms.clone()),
            }
        }
        Self::of(all.into_iter().map(Arc::new).collect())
    }
}

impl Targets {
    /// Of these, in the order in which they are asked.
    fn of(all: Vec<Arc<Target>>) -> Self {
        let mut kinds: Vec<usize> = Vec::new();
        let kind_of = all.iter().enumerate().map(|(n, target)| {
            let is_like = |first: &usize| {
                let first = all.get(*first);
                first.is_some_and(|first| first.terms.binds_like(&target.terms))
            };
            kinds.iter().position(is_like).unwrap_or_else(|| {
                kinds.push(n);
                kinds.len() - 1
            })
        });
        let kind_of: Vec<usize> = kind_of.collect();
        let chunks = all.chunk_by(|one, other| one.tier == other.tier);
        let mut start = 0;
        let ranges = chunks.map(|chunk| {
            let range = start..start + chunk.len();
            start = range.end;
            range
        });
        let tiers = ranges.map(|range| Tier::of(&all, range, &kind_of));
        Self {
            tiers: tiers.collect(),
            kinds,
            healths: all.iter().map(|it| Arc::clone(&it.health)).collect(),
            is_limited: all.iter().any(|target| target.gate.is_some()),
            is_metered: all.iter().any(|target| target.terms.account.is_some()),
            all,
        }
    }

    /// Those of one provider alone. None: there are none.
    pub(super) fn at(&self, provider: &str) -> Option<Self> {
        let its = self.iter().filter(|it| *it.provider.name == *provider);
        let its: Vec<Arc<Target>> = its.cloned().collect();
        (!its.is_empty()).then(|| Self::of(its))
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Target>> {
        self.all.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// One of each kind that bounds a request alike.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &Target> + Clone {
        let kinds = self.kinds.iter().filter_map(|n| self.all.get(*n));
        kinds.map(|target| &**target)
    }

    /// What they cost and how much they take: each only once that bounds a request alike.
    pub fn terms(&self) -> impl Iterator<Item = &Terms> + Clone {
        self.kinds().map(|target| &target.terms)
    }

    /// Those whose rules may change what a request asks for.
    pub(super) fn rewriting(&self) -> impl Iterator<Item = &Target> {
        self.kinds()
            .filter(|target| target.terms.rewrites.is_some())
    }

    pub(super) fn get(&self, n: usize) -> Option<&Arc<Target>> {
        self.all.get(n)
    }

    pub(super) fn health(&self, n: usize) -> Option<&Health> {
        self.healths.get(n).map(|health| &**health)
    }

    pub(super) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

impl<'t> IntoIterator for &'t Targets {
    type Item = &'t Arc<Target>;
    type IntoIter = std::slice::Iter<'t, Arc<Target>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Terms {
    /// Whether every request is bounded alike by both.
    fn binds_like(&self, other: &Self) -> bool {
        let both = |terms: &Self| (terms.context, terms.max_output, terms.rewrites);
        self.rewrites.is_none() && both(self) == both(other) && self.price == other.price
    }
}
