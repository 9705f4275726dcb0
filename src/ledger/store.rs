//! How is the ledger kept on disk? One SQLite file, one connection that writes, one transaction for a group.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::book::share;
use super::chunk::Chunk;
use super::due::{ADD_SPENT, Due};
use super::item::{Amount, Draw, Granted, Item, Settled};
use super::makers::{self, Makers};
use super::open::{OpenError, because, migrate, open_file};
use super::sums::Sums;
use super::tail::{self, Safe, Tail};
use super::{Durability, Place, Scope, Settings, keep};
use crate::usage::Money;

/// How long to wait for others who write: nobody should.
const BUSY: Duration = Duration::from_millis(250);

/// In bytes.
const PAGE: u64 = 4_096;
/// How many pages each transaction writes, beside those that are full.
const FEW: u64 = 8;
/// How many rows of sums are in a page, at least, where many are changed.
const DENSE: u64 = 4;

/// The ledger on disk.
#[derive(Debug)]
pub(super) struct Store {
    conn: Connection,
    /// Keeps other gateways out as long as it is open.
    _lock: Option<File>,
    pub(super) path: Option<PathBuf>,
    /// The latest hour that was seen, as the file knows it.
    pub(super) hour: i64,
    /// The number of what was settled last, as the file knows it.
    pub(super) number: u64,
    /// How many pages were written, as far as one can tell.
    pub(super) pages: u64,
    /// What is in the file, but not in its sums yet.
    due: Due,
    /// For how many hours entries are kept.
    keep: i64,
    /// The day on which those before were forgotten.
    day: i64,
}

impl Store {
    /// With what makes durable what will be settled. What was settled before and only stands beside the file is entered,
    /// and what a crash left of each lease is charged.
    pub(super) fn open(settings: &Settings, hour: i64) -> Result<(Self, Safe), OpenError> {
        let Place::File(path) = &settings.store else {
            let path = PathBuf::from(":memory:");
            let opened = Connection::open_in_memory().and_then(|conn| {
                let mut store = Self::new(conn, settings, None);
                store.prepare(settings.durability, hour)?;
                store.begin()?;
                Ok((store, Safe::Never))
            });
            return opened.map_err(|why| OpenError::Store { path, why });
        };
        let said = |why| because(Some(path), why);
        let (conn, lock) = open_file(path)?;
        let (ledger, number) = whose(&conn).map_err(said)?;
        let missing = tail::read(path, ledger, number)?;
        let mut store = Self::new(conn, settings, Some((path.clone(), lock)));
        let ledger = store.prepare(settings.durability, hour).map_err(said)?;
        store.enter(missing).map_err(said)?;
        store.begin().map_err(said)?;
        let tail = Tail::open(path, ledger).map_err(|why| OpenError::Unwritable {
            path: path.clone(),
            why: why.to_string(),
        })?;
        let safe = match settings.durability {
            Durability::Process => Safe::Tail(tail),
            Durability::Power => Safe::Store,
        };
        Ok((store, safe))
    }

    fn new(conn: Connection, settings: &Settings, file: Option<(PathBuf, File)>) -> Self {
        let (path, lock) = file.unzip();
        Self {
            conn,
            _lock: lock,
            path,
            hour: 0,
            number: 0,
            pages: 0,
            due: Due::default(),
            keep: i64::try_from(settings.keep.as_secs() / 3_600).unwrap_or(i64::MAX),
            day: 0,
        }
    }

    /// Enters what a crash left beside the file.
    fn enter(&mut self, missing: Vec<Arc<Settled>>) -> rusqlite::Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let (requests, hour) = (missing.len(), missing.iter().map(|it| it.hour).max());
        let items: Vec<Item> = missing.into_iter().map(Item::Settled).collect();
        self.write(&items, hour.unwrap_or_default())?;
        tracing::info!(requests, "what a crash left beside the ledger was entered");
        Ok(())
    }

    /// What a crash left of each lease is charged; from here on a crash is one.
    fn begin(&mut self) -> rusqlite::Result<()> {
        self.due.finish(&mut self.conn)?;
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        charge(&tx)?;
        write_about(&tx, "clean", 0)?;
        tx.commit()
    }

    /// Brings the schema to this version. Says which ledger this is.
    fn prepare(&mut self, durability: Durability, hour: i64) -> rusqlite::Result<i64> {
        let conn = &mut self.conn;
        conn.busy_timeout(BUSY)?;
        conn.set_prepared_statement_cache_capacity(32);
        // In KiB: the pages of many accounts.
        conn.pragma_update(None, "cache_size", -8_192)?;
        if self.path.is_some() {
            conn.pragma_update(None, "journal_mode", "WAL")?;
            // Checkpoints run on a connection of their own.
            conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        }
        let synchronous = match durability {
            Durability::Process => "NORMAL",
            Durability::Power => "FULL",
        };
        conn.pragma_update(None, "synchronous", synchronous)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
        migrate(&tx, version)?;
        let seen = about(&tx, "hour")?.unwrap_or_default();
        let (ledger, number) = whose(&tx)?;
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => {
                let ledger = any();
                write_about(&tx, "ledger", ledger)?;
                ledger
            }
        };
        if hour > seen {
            write_about(&tx, "hour", hour)?;
        }
        tx.commit()?;
        self.due = Due::open(&mut self.conn)?;
        self.hour = seen.max(hour);
        self.number = number;
        Ok(ledger)
    }

    /// Writes a group, whole or not at all. Answers its draws, in order.
    pub(super) fn write(&mut self, items: &[Item], hour: i64) -> rusqlite::Result<Vec<Granted>> {
        if self.due.is_overdue() {
            self.due.finish(&mut self.conn)?;
        }
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut sums = Sums::of_group(items.len());
        let mut answers = Vec::new();
        let (mut number, mut bytes, mut response) = (0, 0, None);
        let mut chunk = Chunk::default();
        for item in items {
            match item {
                Item::Settled(settled) => {
                    number = settled.number;
                    bytes += settled.text.len();
                    chunk.add(settled, &tx)?;
                    for entry in &settled.entries {
                        sums.count(entry, settled.hour);
                        response = makers::write(&tx, entry)?.or(response);
                    }
                    settled.cuts.iter().for_each(|cut| sums.cut(cut));
                }
                Item::Back(cut) => sums.cut(cut),
                Item::Draw(draw) => {
                    let granted = grant(&tx, draw, &sums, &self.due)?;
                    sums.draw(draw, granted.block);
                    answers.push(granted);
                }
            }
        }
        chunk.write(&tx)?;
        if let Some(last) = response {
            makers::forget(&tx, last)?;
        }
        let due = self.due.write(&tx, &sums)?;
        if hour > self.hour {
            write_about(&tx, "hour", hour)?;
        }
        if number > self.number {
            write_about(&tx, "number", stored(number))?;
        }
        tx.commit()?;
        self.due.add(&sums, due);
        self.pages += FEW + (bytes + due) as u64 / PAGE;
        self.hour = self.hour.max(hour);
        self.number = self.number.max(number);
        Ok(answers)
    }

    /// Who made which response, as far as it is known.
    pub(super) fn makers(&self) -> rusqlite::Result<Makers> {
        makers::read(&self.conn)
    }

    /// What SQLite says of it.
    pub(super) fn says(&self, why: rusqlite::Error) -> OpenError {
        because(self.path.as_deref(), why)
    }

    /// Whether some of what is due is to be brought into the sums.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_due()
    }

    /// All of it is, before long.
    pub(super) fn ask(&mut self) {
        self.due.ask();
    }

    /// Brings some of it in: a millisecond's work.
    pub(super) fn bring_in(&mut self) -> rusqlite::Result<()> {
        let rows = self.due.step(&mut self.conn)?;
        self.pages += FEW + rows as u64 / DENSE;
        Ok(())
    }

    /// Rolls up a few of the entries that are too old to be kept, as seen from this hour. True if there are more.
    pub(super) fn sweep(&mut self, hour: i64) -> rusqlite::Result<bool> {
        // Each row is looked at for this, so not every minute.
        if self.day != hour / 24 {
            keep::forget_days(&self.conn, hour)?;
            self.day = hour / 24;
        }
        keep::sweep(&mut self.conn, hour, self.keep)
    }

    #[cfg(test)]
    pub(super) fn say(&self, pragma: &str) {
        self.conn.execute_batch(pragma).unwrap();
    }

    /// Brings all that is in the log into the file, so that the log begins anew. Only if the log has grown long: the
    /// connection that does so all the time could not catch up.
    pub(super) fn restart_log(&self) -> rusqlite::Result<()> {
        self.conn
            .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
    }

    /// Brings all in that is due, and notes that all was given back and written.
    pub(super) fn close(mut self) -> rusqlite::Result<()> {
        self.due.finish(&mut self.conn)?;
        write_about(&self.conn, "clean", 1)
    }
}

/// An amount as SQLite counts it, at most 9 billion dollars.
pub(super) fn stored(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Answers a draw. What was spent is read after all that was queued before it.
fn grant(
    tx: &Transaction<'_>,
    draw: &Draw,
    sums: &Sums<'_>,
    due: &Due,
) -> rusqlite::Result<Granted> {
    let (most, wanted) = match draw.amount {
        Amount::Exactly(block) => {
            return Ok(Granted { block, spent: None });
        }
        Amount::Read { most, wanted } => (most, wanted),
    };
    let mut read = tx.prepare_cached(
        "SELECT amount FROM spent_base WHERE scope = ?1 AND name = ?2 AND hour >= ?3",
    )?;
    let owner = (draw.account.scope, &*draw.account.name);
    let mut rows = read.query(params![owner.0 as i64, owner.1, draw.start])?;
    let mut spent = sums.spent_since(owner, draw.start);
    spent = spent.saturating_add(due.spent_since(owner, draw.start));
    while let Some(row) = rows.next()? {
        spent = spent.saturating_add(row.get::<_, i64>(0)?.unsigned_abs());
    }
    Ok(Granted {
        block: share(most.saturating_sub(spent), wanted, 0),
        spent: Some(spent),
    })
}

/// Of so many accounts the log tells one by one what a crash left; with many keys it would be full of them.
const TOLD: usize = 20;

/// What a crash left of each lease counts as spent.
fn charge(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut read =
        tx.prepare("SELECT scope, name, start, amount, hour FROM lease_base WHERE amount > 0")?;
    let mut add = tx.prepare(ADD_SPENT)?;
    let mut rows = read.query([])?;
    let mut chunk = Chunk::default();
    let mut charged = 0;
    while let Some(row) = rows.next()? {
        let (number, name, start): (u8, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (amount, hour): (i64, i64) = (row.get(3)?, row.get(4)?);
        let Some(scope) = Scope::ALL.get(usize::from(number)).copied() else {
            continue;
        };
        add.execute(params![scope as i64, name, hour, amount])?;
        if !scope.is_of_requests() {
            chunk.charge((scope, &name), hour * 3_600_000, amount)?;
        }
        charged += 1;
        if charged <= TOLD {
            tell(scope, &name, start, amount.unsigned_abs());
        }
    }
    drop(rows);
    chunk.write(tx)?;
    tx.execute("DELETE FROM lease_base", [])?;
    let more = charged.saturating_sub(TOLD);
    if more > 0 {
        tracing::warn!(
            "a crash left something of {more} more accounts, which counts as spent or made as well"
        );
    }
    Ok(())
}

/// Says what a crash left of a lease.
fn tell(scope: Scope, name: &str, start: i64, amount: u64) {
    let whose = scope.name();
    if scope.is_of_requests() {
        tracing::warn!(
            scope = whose,
            name,
            "a crash left {amount} requests uncounted, which count as made"
        );
    } else {
        tracing::warn!(
            scope = whose,
            name,
            window = start,
            "a crash left {} US dollars unsettled, which count as spent",
            Money(amount)
        );
    }
}

pub(super) fn about(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    conn.query_row("SELECT value FROM about WHERE name = ?1", [name], |row| {
        row.get(0)
    })
    .optional()
}

/// Which ledger is in the file, and the number of what was settled last; neither if the file is new.
fn whose(conn: &Connection) -> rusqlite::Result<(Option<i64>, u64)> {
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok((None, 0));
    }
    let number = about(conn, "number")?.unwrap_or_default();
    Ok((about(conn, "ledger")?, number.unsigned_abs()))
}

/// A number that no other ledger has.
fn any() -> i64 {
    RandomState::new().hash_one(0).cast_signed()
}

pub(super) fn write_about(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO about (name, value) VALUES (?1, ?2)")?
        .execute(params![name, value])
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::super::item::{Cuts, Settled};
    use super::super::tests::{budget, entry, folder, now, settings};
    use super::super::window::hour_of;
    use super::super::{Ledger, Per};
    use super::*;

    #[test]
    fn what_was_spent_is_read_after_all_that_was_queued_before() {
        let settings = Settings {
            store: Place::Memory,
            ..settings(&folder())
        };
        let ledger = Ledger::open(&settings, now()).unwrap();
        let account = ledger.given(Scope::Key, "ann", budget(100, Per::Day));
        let hour = hour_of(now());
        let settled = || {
            let entries = [entry(30)].into_iter().collect();
            Item::Settled(Arc::new(Settled::of(1, hour, entries, Cuts::new())))
        };
        let draw = || {
            Item::Draw(Draw {
                account: account.clone(),
                series: 0,
                start: Per::Day.start(hour),
                hour,
                amount: Amount::Read {
                    most: 100,
                    wanted: 50,
                },
            })
        };
        let (mut store, _) = Store::open(&settings, hour).unwrap();
        let group = [draw(), settled(), draw(), settled(), draw(), settled()];
        let answers = store.write(&group, hour).unwrap();
        let answers: Vec<_> = answers.iter().map(|it| (it.spent, it.block)).collect();
        assert_eq!(answers, [(Some(0), 50), (Some(30), 50), (Some(60), 40)]);
    }
}
