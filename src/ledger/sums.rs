//! What does a group come to, owner by owner? One sum for each of them, however many requests there were.

use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::book::Cut;
use super::item::Draw;
use super::store::stored;
use super::{Entry, Scope};

/// Whose.
pub(super) type Owner<'i> = (Scope, &'i str);

/// What is to be added for one owner, as a rule in one hour and in one window.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) spent: SmallVec<[Spent; 1]>,
    pub(super) leases: SmallVec<[Lease; 1]>,
}

/// So much more was spent in an hour. More than SQLite can count is the most that it can.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(into = "(i64, i64)", from = "(i64, i64)")]
pub(super) struct Spent {
    pub(super) hour: i64,
    pub(super) amount: i64,
}

/// So much more is drawn of a window, or less. After a crash it counts in this hour, or in a later one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(into = "(i64, i64, i64)", from = "(i64, i64, i64)")]
pub(super) struct Lease {
    pub(super) start: i64,
    pub(super) by: i64,
    pub(super) hour: i64,
}

impl From<Spent> for (i64, i64) {
    fn from(spent: Spent) -> Self {
        (spent.hour, spent.amount)
    }
}

impl From<(i64, i64)> for Spent {
    fn from((hour, amount): (i64, i64)) -> Self {
        Self { hour, amount }
    }
}

impl From<Lease> for (i64, i64, i64) {
    fn from(lease: Lease) -> Self {
        (lease.start, lease.by, lease.hour)
    }
}

impl From<(i64, i64, i64)> for Lease {
    fn from((start, by, hour): (i64, i64, i64)) -> Self {
        Self { start, by, hour }
    }
}

impl Sum {
    fn spend(&mut self, more: Spent) {
        match self.spent.iter_mut().find(|it| it.hour == more.hour) {
            Some(spent) => spent.amount = spent.amount.saturating_add(more.amount),
            None => self.spent.push(more),
        }
    }

    fn lease(&mut self, more: Lease) {
        match self.leases.iter_mut().find(|it| it.start == more.start) {
            Some(lease) => {
                lease.by = lease.by.saturating_add(more.by);
                lease.hour = lease.hour.max(more.hour);
            }
            None => self.leases.push(more),
        }
    }

    /// Adds another of the same owner.
    pub(super) fn add(&mut self, more: &Self) {
        more.spent.iter().for_each(|spent| self.spend(*spent));
        more.leases.iter().for_each(|lease| self.lease(*lease));
    }

    /// Whether it is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.spent.is_empty() && self.leases.is_empty()
    }

    /// What was spent from an hour on.
    pub(super) fn spent_since(&self, start: i64) -> u64 {
        let since = self.spent.iter().filter(|spent| spent.hour >= start);
        let amounts = since.map(|spent| spent.amount.unsigned_abs());
        amounts.fold(0, u64::saturating_add)
    }
}

/// What a group comes to, beside its entries. Neighbours often have the same owners, so that the last one of each scope is
/// found without a look into the map.
#[derive(Debug)]
pub(super) struct Sums<'i> {
    sums: Vec<(Owner<'i>, Sum)>,
    places: FxHashMap<Owner<'i>, usize>,
    last: [usize; Scope::ALL.len()],
}

impl<'i> Sums<'i> {
    /// Of a group of so many items, which may all have other owners.
    pub(super) fn of_group(items: usize) -> Self {
        Self {
            sums: Vec::with_capacity(items),
            places: FxHashMap::with_capacity_and_hasher(items, FxBuildHasher),
            last: Default::default(),
        }
    }

    /// This owner's sum.
    fn of(&mut self, owner: Owner<'i>) -> Option<&mut Sum> {
        let last = self.last.get_mut(owner.0 as usize)?;
        if self
            .sums
            .get(*last)
            .is_none_or(|(known, _)| *known != owner)
        {
            *last = *self.places.entry(owner).or_insert_with(|| {
                self.sums.push((owner, Sum::default()));
                self.sums.len() - 1
            });
        }
        self.sums.get_mut(*last).map(|(_, sum)| sum)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Owner<'i>, Sum)> {
        self.sums.iter()
    }

    /// What an owner has spent from an hour on.
    pub(super) fn spent_since(&self, owner: Owner<'_>, start: i64) -> u64 {
        let place = self.places.get(&owner).and_then(|at| self.sums.get(*at));
        place.map_or(0, |(_, sum)| sum.spent_since(start))
    }

    /// Adds an entry, which counts in an hour.
    pub(super) fn count(&mut self, entry: &'i Entry, hour: i64) {
        let Some(cost) = entry.cost.filter(|cost| cost.0 > 0) else {
            return;
        };
        let amount = stored(cost.0);
        for owner in entry.payers() {
            if let Some(sum) = self.of(owner) {
                sum.spend(Spent { hour, amount });
            }
        }
    }

    /// Adds what is no longer drawn.
    pub(super) fn cut(&mut self, cut: &'i Cut) {
        if let Some(sum) = self.of((cut.scope, &cut.name)) {
            let (start, by) = (cut.start, -stored(cut.amount));
            sum.lease(Lease { start, by, hour: 0 });
            if cut.spent > 0 {
                let (hour, amount) = (cut.start, stored(cut.spent));
                sum.spend(Spent { hour, amount });
            }
        }
    }

    /// Adds a block.
    pub(super) fn draw(&mut self, draw: &'i Draw, block: u64) {
        let account = &draw.account;
        if block > 0
            && let Some(sum) = self.of((account.scope, &account.name))
        {
            let (start, by, hour) = (draw.start, stored(block), draw.hour);
            sum.lease(Lease { start, by, hour });
        }
    }
}
