//! Who spent what? Read from the file, also beside a gateway that is running; and a copy of the file while it is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::open::{OpenError, because, look};
use crate::usage::{KINDS, Money};

/// What the rows of a report are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Who asked.
    Key,
    /// What was asked for.
    Model,
    /// Where it went.
    Target,
    /// The team of who asked.
    Team,
    /// The day, in UTC, as in 2027-01-31.
    Day,
    /// Not known yet: empty.
    User,
    /// Not known yet: empty.
    Tag,
}

impl By {
    /// What it is called on the command line and in columns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Target => "target",
            Self::Team => "team",
            Self::Day => "day",
            Self::User => "user",
            Self::Tag => "tag",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Target => "target",
            Self::Team => "team",
            Self::Day => "date(day * 86400, 'unixepoch')",
            Self::User | Self::Tag => "''",
        }
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            Self::Key,
            Self::Model,
            Self::Target,
            Self::Team,
            Self::Day,
            Self::User,
            Self::Tag,
        ];
        let known = all.into_iter().find(|by| by.name() == text);
        known.ok_or_else(|| {
            let names = all.map(Self::name).join(", ");
            format!("rows can be told apart by {names}")
        })
    }
}

/// One line of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// What tells it apart, in the order that was asked for.
    pub by: Vec<String>,
    /// How many tries were billed, what crashes were charged included.
    pub entries: u64,
    /// How many of them are a guess of ours.
    pub estimated: u64,
    /// How many of them have no price.
    pub unpriced: u64,
    /// The tokens, in the order of [`KINDS`].
    pub tokens: [u64; KINDS.len()],
    /// What they cost.
    pub cost: Money,
}

/// Why there is no report, or no copy.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file is not there.
    #[error("there is no ledger at {}; look at `store` under [ledger]", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The copy's file is there already.
    #[error("{} exists already; name a new file for the copy", path.display())]
    Exists {
        /// The copy's file.
        path: PathBuf,
    },
    /// It could not be opened or read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Reads what was spent.
#[derive(Clone, Copy, Debug)]
pub struct Report;

impl Report {
    /// What was spent since a moment, or ever, told apart by these, sorted by them. What a crash was charged counts once:
    /// with the team's if told apart by team and not by key, else with the key's. Days that are rolled up count whole.
    pub fn read(
        path: &Path,
        by: &[By],
        since: Option<SystemTime>,
    ) -> Result<Vec<Row>, ReportError> {
        let failed = |why| ReportError::Open(because(Some(path), why));
        let conn = reader(path)?;
        let charged = match by.contains(&By::Team) && !by.contains(&By::Key) {
            true => "team",
            false => "key",
        };
        let since = since.map_or(Duration::ZERO, |at| {
            at.duration_since(UNIX_EPOCH).unwrap_or_default()
        });
        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let text = question(by, charged);
        let mut rows: BTreeMap<Vec<String>, Row> = BTreeMap::new();
        let mut read = conn.prepare(&text).map_err(failed)?;
        let mut found = read.query([since, since / 86_400_000]).map_err(failed)?;
        while let Some(row) = found.next().map_err(failed)? {
            add(&mut rows, row, by.len()).map_err(failed)?;
        }
        Ok(rows.into_values().collect())
    }
}

/// Every entry and rolled-up day, in one shape. Added up outside: SQLite's sums end in an error when they overflow.
fn question(by: &[By], charged: &str) -> String {
    let columns: String = by.iter().flat_map(|by| [by.column(), ", "]).collect();
    let kinds = KINDS.join(", ");
    format!(
        "SELECT {columns} entries, estimated, unpriced, cost, {kinds} FROM (
             SELECT at / 86400000 AS day, key, team, model, target, 1 AS entries, estimated,
                    cost IS NULL AS unpriced, cost, {kinds}
             FROM entry WHERE at >= ?1 AND (scope IS NULL OR scope = '{charged}')
             UNION ALL
             SELECT day, key, team, model, target, entries, estimated, unpriced, cost, {kinds}
             FROM past WHERE day >= ?2 AND scope IN ('request', '{charged}'))"
    )
}

fn add(
    rows: &mut BTreeMap<Vec<String>, Row>,
    found: &rusqlite::Row<'_>,
    width: usize,
) -> rusqlite::Result<()> {
    let by = (0..width).map(|at| Ok(found.get::<_, Option<String>>(at)?.unwrap_or_default()));
    let by: Vec<String> = by.collect::<rusqlite::Result<_>>()?;
    let number = |at: usize| -> rusqlite::Result<u64> {
        let number = found.get::<_, Option<i64>>(width + at)?.unwrap_or_default();
        Ok(u64::try_from(number).unwrap_or_default())
    };
    let row = rows.entry(by.clone()).or_insert_with(|| Row {
        by,
        ..Row::default()
    });
    row.entries = row.entries.saturating_add(number(0)?);
    row.estimated = row.estimated.saturating_add(number(1)?);
    row.unpriced = row.unpriced.saturating_add(number(2)?);
    row.cost = row.cost.plus(Money(number(3)?));
    for (at, count) in row.tokens.iter_mut().enumerate() {
        *count = count.saturating_add(number(4 + at)?);
    }
    Ok(())
}

/// Copies the ledger while it may be written. The copy is whole, as of some moment during the call.
pub fn backup(from: &Path, to: &Path) -> Result<(), ReportError> {
    if to.exists() {
        return Err(ReportError::Exists { path: to.into() });
    }
    let failed = |path| move |why| ReportError::Open(because(Some(path), why));
    let source = reader(from)?;
    // One transaction over all of it: a writer that never rests would have the copy begun anew again and again.
    source
        .execute_batch("BEGIN; SELECT count(*) FROM about")
        .map_err(failed(from))?;
    let mut target = Connection::open(to).map_err(failed(to))?;
    let copy = Backup::new(&source, &mut target).map_err(failed(from))?;
    loop {
        match copy.step(1_000).map_err(failed(to))? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn reader(path: &Path) -> Result<Connection, ReportError> {
    if path.is_dir() {
        return Err(OpenError::Folder { path: path.into() }.into());
    }
    if !path.exists() {
        return Err(ReportError::Missing { path: path.into() });
    }
    let failed = |why| ReportError::Open(because(Some(path), why));
    // The log beside the file may have to be made: so not read-only, though nothing is written.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    look(&conn, path)?;
    conn.pragma_update(None, "query_only", true)
        .map_err(failed)?;
    Ok(conn)
}
