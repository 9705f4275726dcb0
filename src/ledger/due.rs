//! What is in the file, but not in its sums yet? What each group came to stands in a row of its own, in the transaction of
//! the group's entries; many of them are added up and brought into the sums together, in the order in which the sums lie.
//!
//! For what was spent and what is drawn are a row for each owner, and with many owners each request would write two pages
//! that no other request writes. So the sums may lag behind, and the truth is always both: what the tables of sums say,
//! and what the rows of `due` say besides. The views `spent` and `lease` show it.
//!
//! Rows are brought in a few owners at a time, so that whoever waits for a block waits for no more than that. The file
//! knows how far that has come (`summed`): up to which row, and up to which owner in their order. Once all owners are
//! through, these rows count no more and are deleted, again a few at a time; only then the next ones are begun with. So
//! after a crash at any moment each row counts once for each owner: in the sums, or as it stands.

use std::borrow::Cow;

use rusqlite::Error::{FromSqlConversionFailure, ToSqlConversionFailure};
use rusqlite::types::{ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use hashbrown::HashMap;
use hugealloc::HugeAlloc;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::Scope;
use super::sums::{Lease, Owner, Spent, Sum, Sums};

/// In bytes: with so much in rows they are brought in. In tests so little, here and below, that it happens all the time and
/// much can happen in between.
const FULL: usize = if cfg!(test) { 1 << 10 } else { 64 << 20 };
/// The same for how many owners they are of; so many fit into a map before it doubles.
const MANY: usize = 7 << 14;
/// How many owners are brought in at once: a millisecond's work.
const OWNERS: usize = if cfg!(test) { 1 } else { 512 };
/// How many rows are deleted at once.
const ROWS: i64 = if cfg!(test) { 1 } else { 16 };
/// A scope behind all others: all owners are through.
const ALL: u8 = u8::MAX;

/// What is due, and how far it has come.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// What rows say that are not begun with, by scope and name. Owners stay in their places as long as they come again: what
    /// this takes of memory is taken once, and on large pages, once it is much.
    sums: [HashMap<Name, Sum, FxBuildHasher, HugeAlloc>; Scope::ALL.len()],
    /// How many owners have something that is not begun with.
    owners: usize,
    /// How long the rows are that are not begun with.
    bytes: usize,
    /// The last row.
    last: i64,
    /// The last row that was begun with.
    until: i64,
    /// What was begun with and is to be brought in; the first is the last.
    begun: Vec<Begun>,
    /// The last row that is deleted.
    through: i64,
    step: Step,
    /// Whether they are to be brought in, however few they are.
    is_asked: bool,
    /// Whether that failed, so that it is left alone for a while.
    has_failed: bool,
}

/// What is due of one owner.
#[derive(Debug)]
struct Begun {
    scope: Scope,
    name: Name,
    sum: Sum,
}

impl Begun {
    /// In their order.
    fn owner(&self) -> (u8, &[u8]) {
        (self.scope as u8, &self.name)
    }
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// Nothing, until there is enough.
    #[default]
    Rest,
    /// Owners are brought in.
    Sum,
    /// Rows that are through are deleted.
    Delete,
}

/// An owner's name. Most are so short that they need no memory of their own, which would have to be looked for each time.
type Name = SmallVec<[u8; 24]>;

/// One owner's part of a row.
type Part<'a> = (u8, Cow<'a, str>, Vec<Spent>, Vec<Lease>);

impl Due {
    /// Of a file: what a crash left there is brought in, so that nothing is due.
    pub(super) fn open(conn: &mut Connection) -> rusqlite::Result<Self> {
        let mut due = Self::read(conn)?;
        // At once: what is due of rows that are half through cannot be told from what is not, once it is in memory. Also if
        // they are wholly through, for they must be gone before others are begun with.
        if due.last > due.through {
            due.begin();
            due.finish(conn)?;
        }
        Ok(due)
    }

    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut due = Self::default();
        let (until, scope, name): (i64, u8, String) =
            conn.query_row("SELECT until, scope, name FROM summed", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let mut read = conn.prepare("SELECT id, sums FROM due ORDER BY id DESC")?;
        let mut rows = read.query([])?;
        (due.last, due.through) = (until, until);
        while let Some(row) = rows.next()? {
            let (id, text): (i64, String) = (row.get(0)?, row.get(1)?);
            (due.last, due.through) = (due.last.max(id), id - 1);
            let parts: Vec<Part<'_>> = serde_json::from_str(&text)
                .map_err(|why| FromSqlConversionFailure(1, Type::Text, why.into()))?;
            for (at, whose, spent, leases) in parts {
                if id > until || (at, &*whose) > (scope, &name) {
                    let (spent, leases) = (spent.into(), leases.into());
                    due.add_to(at, &whose, &Sum { spent, leases });
                }
            }
        }
        Ok(due)
    }

    fn add_to(&mut self, scope: u8, name: &str, more: &Sum) {
        let Some(sums) = self.sums.get_mut(usize::from(scope)) else {
            return;
        };
        if let Some(sum) = sums.get_mut(name.as_bytes()) {
            self.owners += usize::from(sum.is_empty());
            sum.add(more);
        } else {
            sums.insert(name.as_bytes().into(), more.clone());
            self.owners += 1;
        }
    }

    /// Writes what a group comes to. How long that is; nothing is due before it is [added](Self::add).
    pub(super) fn write(&self, tx: &Transaction<'_>, sums: &Sums<'_>) -> rusqlite::Result<usize> {
        let mut list = Vec::new();
        for ((scope, name), sum) in sums.iter() {
            list.push(if list.is_empty() { b'[' } else { b',' });
            let part = (*scope as u8, name, &*sum.spent, &*sum.leases);
            serde_json::to_writer(&mut list, &part)
                .map_err(|why| ToSqlConversionFailure(why.into()))?;
        }
        if list.is_empty() {
            return Ok(0);
        }
        list.push(b']');
        tx.prepare_cached("INSERT INTO due (id, sums) VALUES (?1, ?2)")?
            .execute(params![self.last + 1, text(&list)])?;
        Ok(list.len())
    }

    /// What was written, of this length, is due.
    pub(super) fn add(&mut self, sums: &Sums<'_>, bytes: usize) {
        self.has_failed = false;
        if bytes > 0 {
            self.last += 1;
            self.bytes += bytes;
        }
        // A look at each comes first. None of these depends on another, so that what memory a processor has to wait for, it
        // waits for at once: with many owners that is most of the work.
        let mut missing = [0; Scope::ALL.len()];
        for ((scope, name), _) in sums.iter() {
            let known = self.sums.get(*scope as usize);
            let is_known = known.is_some_and(|it| it.contains_key(name.as_bytes()));
            if let Some(missing) = missing.get_mut(*scope as usize) {
                *missing += usize::from(!is_known);
            }
        }
        for (known, missing) in self.sums.iter_mut().zip(missing) {
            known.reserve(missing);
        }
        for ((scope, name), sum) in sums.iter() {
            self.add_to(*scope as u8, name, sum);
        }
    }

    /// What an owner has spent from an hour on, beside what the sums say.
    pub(super) fn spent_since(&self, (scope, name): Owner<'_>, start: i64) -> u64 {
        let sums = self.sums.get(scope as usize);
        let new = sums.and_then(|sums| sums.get(name.as_bytes()));
        let owner = (scope as u8, name.as_bytes());
        let place = self.begun.binary_search_by(|it| owner.cmp(&it.owner()));
        let begun = place.ok().and_then(|at| self.begun.get(at));
        let sums = new.into_iter().chain(begun.map(|it| &it.sum));
        sums.map(|sum| sum.spent_since(start))
            .fold(0, u64::saturating_add)
    }

    /// They are to be brought in, however few they are.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
        self.has_failed = false;
    }

    /// Whether there is a step to be done.
    pub(super) fn is_due(&self) -> bool {
        let is_enough = self.owners >= MANY || self.bytes >= FULL;
        let begins = is_enough || (self.is_asked && self.owners > 0);
        (self.step != Step::Rest || begins) && !self.has_failed
    }

    /// Whether steps have not kept up, so that nothing more should become due before all is brought in.
    pub(super) fn is_overdue(&self) -> bool {
        self.owners >= 2 * MANY || self.bytes >= 2 * FULL
    }

    /// Does a step. Gives how many rows of sums it wrote.
    pub(super) fn step(&mut self, conn: &mut Connection) -> rusqlite::Result<usize> {
        self.go(conn, OWNERS, ROWS)
    }

    /// Brings all in.
    pub(super) fn finish(&mut self, conn: &mut Connection) -> rusqlite::Result<usize> {
        let mut rows = 0;
        while self.step != Step::Rest || self.owners > 0 {
            rows += self.go(conn, usize::MAX, i64::MAX)?;
        }
        Ok(rows)
    }

    /// Does a step, of so many owners or rows at most.
    fn go(&mut self, conn: &mut Connection, owners: usize, rows: i64) -> rusqlite::Result<usize> {
        if self.step == Step::Rest {
            self.begin();
        }
        self.has_failed = true;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changed = 0;
        if self.step == Step::Sum {
            let rest = self.begun.len().saturating_sub(owners);
            let (_, next) = self.begun.split_at(rest);
            let through = match next.first() {
                Some(begun) if rest > 0 => begun.owner(),
                _ => (ALL, &b""[..]),
            };
            changed = bring(&tx, next)?;
            note(&tx, self.until, through)?;
            tx.commit()?;
            self.has_brought(rest);
        } else {
            let to = self.until.min(self.through.saturating_add(rows));
            tx.prepare_cached("DELETE FROM due WHERE id <= ?1")?
                .execute([to])?;
            tx.commit()?;
            self.through = to;
            if to == self.until {
                self.step = Step::Rest;
            }
        }
        self.has_failed = false;
        Ok(changed)
    }

    /// All but so many owners are in the sums.
    fn has_brought(&mut self, rest: usize) {
        for Begun { scope, name, .. } in self.begun.drain(rest..) {
            // Who has not come again meanwhile may not come for long.
            if let Some(sums) = self.sums.get_mut(scope as usize)
                && sums.get(&name).is_some_and(Sum::is_empty)
            {
                sums.remove(&name);
            }
        }
        if rest == 0 {
            self.begun = Vec::new();
            self.step = Step::Delete;
        }
    }

    /// Begins with all that is there. The file knows of it with the first owners.
    fn begin(&mut self) {
        (self.is_asked, self.step) = (false, Step::Sum);
        self.until = self.last;
        self.begun.reserve_exact(self.owners);
        (self.bytes, self.owners) = (0, 0);
        for (scope, sums) in Scope::ALL.into_iter().zip(&mut self.sums) {
            for (name, sum) in sums.iter_mut().filter(|(_, sum)| !sum.is_empty()) {
                let (name, sum) = (name.clone(), std::mem::take(sum));
                self.begun.push(Begun { scope, name, sum });
            }
        }
        let by_owner = |one: &Begun, two: &Begun| two.owner().cmp(&one.owner());
        self.begun.sort_unstable_by(by_owner);
    }
}

/// Writes how far it has come: up to which row, and up to which owner.
fn note(tx: &Transaction<'_>, until: i64, (scope, name): (u8, &[u8])) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE summed SET until = ?1, scope = ?2, name = ?3")?
        .execute(params![until, scope, text(name)])
        .map(|_| ())
}

/// What came from a text.
fn text(name: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(name))
}

/// Brings owners in, in their order, which is from the last to the first. Gives how many rows that changed.
fn bring(tx: &Transaction<'_>, owners: &[Begun]) -> rusqlite::Result<usize> {
    let mut spend = tx.prepare_cached(ADD_SPENT)?;
    let mut draw = tx.prepare_cached(
        "INSERT INTO lease_base (scope, name, start, amount, hour) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET amount = amount + ?4, hour = max(hour, ?5)",
    )?;
    let mut cut = tx.prepare_cached(
        "UPDATE lease_base SET amount = max(0, amount + ?4), hour = max(hour, ?5)
         WHERE scope = ?1 AND name = ?2 AND start = ?3",
    )?;
    let mut rows = 0;
    let mut cuts: [Option<(&[u8], &[u8])>; Scope::ALL.len()] = Default::default();
    for Begun { scope, name, sum } in owners.iter().rev() {
        let number = *scope as u8;
        for Spent { hour, amount } in &sum.spent {
            rows += spend.execute(params![number, text(name), hour, amount])?;
        }
        for Lease { start, by, hour } in &sum.leases {
            if *by > 0 {
                rows += draw.execute(params![number, text(name), start, by, hour])?;
                continue;
            }
            rows += cut.execute(params![number, text(name), start, by, hour])?;
            if let Some(range) = cuts.get_mut(usize::from(number)) {
                range.get_or_insert((name, name)).1 = name;
            }
        }
    }
    // Those of which nothing is left lie among the ones that were just looked at.
    let mut delete = tx.prepare_cached(
        "DELETE FROM lease_base WHERE scope = ?1 AND name BETWEEN ?2 AND ?3 AND amount = 0",
    )?;
    for (number, range) in (0_u8..).zip(cuts) {
        if let Some((first, last)) = range {
            rows += delete.execute(params![number, text(first), text(last)])?;
        }
    }
    Ok(rows)
}

/// More than SQLite can count is the most that it can.
pub(super) const ADD_SPENT: &str = "INSERT INTO spent_base (scope, name, hour, amount) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT DO UPDATE SET amount = CASE WHEN amount > 9223372036854775807 - ?4 THEN 9223372036854775807 ELSE amount + ?4 END";
