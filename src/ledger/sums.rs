//! What does a group come to, owner by owner? One change of the file for each of them, however many requests there were.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use super::book::Cut;
use super::item::Draw;
use super::store::stored;
use super::{Entry, Scope};

/// What a transaction comes to for one owner, beside its entries.
#[derive(Debug, Default)]
pub(super) struct Sums<'i> {
    spent: ByOwner<'i, u64>,
    leases: ByOwner<'i, Lease>,
}

/// One sum for each owner and hour. Neighbours often have the same owners, so that the last one of each scope is found
/// without a look into the map.
#[derive(Debug)]
struct ByOwner<'i, S> {
    sums: Vec<(Owner<'i>, S)>,
    places: HashMap<Owner<'i>, usize>,
    last: [usize; Scope::ALL.len()],
}

/// Whose, and which hour's.
type Owner<'i> = (Scope, &'i str, i64);

impl<S> Default for ByOwner<'_, S> {
    fn default() -> Self {
        Self {
            sums: Vec::new(),
            places: HashMap::new(),
            last: [0; Scope::ALL.len()],
        }
    }
}

impl<'i, S: Default> ByOwner<'i, S> {
    /// This owner's sum.
    fn of(&mut self, owner: Owner<'i>) -> Option<&mut S> {
        let last = self.last.get_mut(owner.0 as usize)?;
        if self
            .sums
            .get(*last)
            .is_none_or(|(known, _)| *known != owner)
        {
            *last = *self.places.entry(owner).or_insert_with(|| {
                self.sums.push((owner, S::default()));
                self.sums.len() - 1
            });
        }
        self.sums.get_mut(*last).map(|(_, sum)| sum)
    }

    /// All of them, and none are left.
    fn take(&mut self) -> impl Iterator<Item = (Owner<'i>, S)> {
        std::mem::take(self).sums.into_iter()
    }
}

#[derive(Debug, Default)]
struct Lease {
    more: u64,
    less: u64,
    hour: i64,
}

impl<'i> Sums<'i> {
    /// How many rows they are.
    pub(super) fn len(&self) -> usize {
        self.spent.sums.len() + self.leases.sums.len()
    }

    pub(super) fn count(&mut self, entry: &'i Entry, hour: i64) {
        let Some(cost) = entry.cost.filter(|cost| cost.0 > 0) else {
            return;
        };
        for (scope, name) in entry.payers() {
            if let Some(spent) = self.spent.of((scope, name, hour)) {
                *spent = spent.saturating_add(cost.0);
            }
        }
    }

    pub(super) fn cut(&mut self, cut: &'i Cut) {
        if let Some(lease) = self.leases.of((cut.scope, &cut.name, cut.start)) {
            lease.less = lease.less.saturating_add(cut.amount);
        }
        if cut.spent > 0
            && let Some(spent) = self.spent.of((cut.scope, &cut.name, cut.start))
        {
            *spent = spent.saturating_add(cut.spent);
        }
    }

    pub(super) fn draw(&mut self, draw: &'i Draw, block: u64) {
        if block > 0 {
            let account = &draw.account;
            if let Some(lease) = self.leases.of((account.scope, &account.name, draw.start)) {
                lease.more = lease.more.saturating_add(block);
                lease.hour = lease.hour.max(draw.hour);
            }
        }
    }

    pub(super) fn write(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        self.write_spent(tx)?;
        if self.leases.sums.is_empty() {
            return Ok(());
        }
        let mut change = tx.prepare_cached(
            "INSERT INTO lease (scope, name, start, amount, hour) VALUES (?1, ?2, ?3, max(0, ?4), ?5)
             ON CONFLICT DO UPDATE SET amount = max(0, amount + ?4), hour = max(hour, ?5)",
        )?;
        let mut delete = tx.prepare_cached(
            "DELETE FROM lease WHERE scope = ?1 AND name = ?2 AND start = ?3 AND amount = 0",
        )?;
        for ((scope, name, start), lease) in self.leases.take() {
            let by = stored(lease.more).saturating_sub(stored(lease.less));
            change.execute(params![scope as i64, name, start, by, lease.hour])?;
            if by < 0 {
                delete.execute(params![scope as i64, name, start])?;
            }
        }
        Ok(())
    }

    pub(super) fn write_spent(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        if self.spent.sums.is_empty() {
            return Ok(());
        }
        let mut add = tx.prepare_cached(ADD_SPENT)?;
        for ((scope, name, hour), amount) in self.spent.take() {
            add.execute(params![scope as i64, name, hour, stored(amount)])?;
        }
        Ok(())
    }
}

/// More than SQLite can count is the most that it can.
pub(super) const ADD_SPENT: &str = "INSERT INTO spent (scope, name, hour, amount) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT DO UPDATE SET amount = CASE WHEN amount > 9223372036854775807 - ?4 THEN 9223372036854775807 ELSE amount + ?4 END";
