//! Who spent what? Read from the file, also beside a gateway that is running; and a copy of the file while it is written.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rusqlite::Error::FromSqlConversionFailure;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags};

use super::line::{Fields, Text};
use super::open::{OpenError, because, look_only};
use super::window::millis_of;
use crate::usage::{KINDS, Money};

/// In milliseconds.
const DAY: i64 = 86_400_000;

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
    /// For whom the caller asked, as it says in `user`.
    User,
    /// To what it is charged further: the request's `x-tollgate-tag`, else the tags of its key.
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

    /// What a rolled-up day says about it.
    fn column(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Target => "target",
            Self::Team => "team",
            Self::Day => "date(day * 86400, 'unixepoch')",
            Self::User => "user",
            Self::Tag => "tag",
        }
    }

    /// What an entry says about it.
    fn of<'f>(self, fields: &'f Fields<'_>, date: Option<&'f String>) -> &'f str {
        let text = match self {
            Self::Key => &fields.key,
            Self::Model => &fields.model,
            Self::Target => &fields.target,
            Self::Team => &fields.team,
            Self::Day => return date.map_or("", |date| date),
            Self::User => &fields.user,
            Self::Tag => &fields.tag,
        };
        text.as_deref().unwrap_or_default()
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
    /// What was used, in the order of [`KINDS`].
    pub used: [u64; KINDS.len()],
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
        let since = since.map_or(0, millis_of);
        let mut sums = Sums {
            by,
            charged,
            since,
            rows: BTreeMap::new(),
        };
        // As of one moment: what is rolled up meanwhile counts once.
        let conn = conn.unchecked_transaction().map_err(failed)?;
        sums.past(&conn).map_err(failed)?;
        sums.entries(&conn).map_err(failed)?;
        Ok(sums.rows.into_values().collect())
    }
}

/// Entries and rolled-up days, added up outside of SQLite: its sums end in an error when they overflow, and it takes ten
/// times as long to read entries.
struct Sums<'b> {
    by: &'b [By],
    /// Whose charges for crashes count.
    charged: &'b str,
    /// In milliseconds from 1970.
    since: i64,
    rows: BTreeMap<Vec<String>, Row>,
}

impl Sums<'_> {
    /// Adds the days that are rolled up.
    fn past(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let columns: String = self.by.iter().flat_map(|by| [by.column(), ", "]).collect();
        let (kinds, charged) = (KINDS.join(", "), self.charged);
        let mut read = conn.prepare(&format!(
            "SELECT {columns} entries, estimated, unpriced, cost, {kinds}
             FROM past WHERE day >= ?1 AND scope IN ('request', '{charged}')"
        ))?;
        let mut found = read.query([self.since / DAY])?;
        let width = self.by.len();
        while let Some(found) = found.next()? {
            let by: rusqlite::Result<_> = (0..width).map(|at| found.get(at)).collect();
            let number = |at: usize| found.get::<_, i64>(width + at).map(i64::unsigned_abs);
            let mut used = [0; KINDS.len()];
            for (at, count) in used.iter_mut().enumerate() {
                *count = number(4 + at)?;
            }
            self.add(&Row {
                by: by?,
                entries: number(0)?,
                estimated: number(1)?,
                unpriced: number(2)?,
                used,
                cost: Money(number(3)?),
            });
        }
        Ok(())
    }

    /// Adds the entries.
    fn entries(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut date = conn.prepare("SELECT date(?1 * 86400, 'unixepoch')")?;
        let mut dates: HashMap<i64, String> = HashMap::new();
        let mut read = conn.prepare("SELECT entries FROM chunk WHERE until >= ?1")?;
        let mut found = read.query([self.since])?;
        while let Some(found) = found.next()? {
            let text = found.get_ref(0)?.as_str()?;
            let lines: Vec<Fields<'_>> = serde_json::from_str(text)
                .map_err(|why| FromSqlConversionFailure(0, Type::Text, why.into()))?;
            for line in lines {
                let at = i64::try_from(line.at).unwrap_or(i64::MAX);
                let counts = |scope: &Text<'_>| **scope == *self.charged;
                if at < self.since || !line.scope.as_ref().is_none_or(counts) {
                    continue;
                }
                let day = at / DAY;
                if self.by.contains(&By::Day) && !dates.contains_key(&day) {
                    dates.insert(day, date.query_row([day], |row| row.get(0))?);
                }
                let name = |by: &By| by.of(&line, dates.get(&day)).to_owned();
                self.add(&Row {
                    by: self.by.iter().map(name).collect(),
                    entries: 1,
                    estimated: line.estimated.into(),
                    unpriced: line.cost.is_none().into(),
                    used: line.usage.unwrap_or_default().0.0,
                    cost: line.cost.map(Money).unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, more: &Row) {
        let Some(row) = self.rows.get_mut(&more.by) else {
            self.rows.insert(more.by.clone(), more.clone());
            return;
        };
        row.entries = row.entries.saturating_add(more.entries);
        row.estimated = row.estimated.saturating_add(more.estimated);
        row.unpriced = row.unpriced.saturating_add(more.unpriced);
        row.cost = row.cost.plus(more.cost);
        for (count, more) in row.used.iter_mut().zip(more.used) {
            *count = count.saturating_add(more);
        }
    }
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

pub(super) fn reader(path: &Path) -> Result<Connection, ReportError> {
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
    look_only(&conn, path)?;
    conn.pragma_update(None, "query_only", true)
        .map_err(failed)?;
    Ok(conn)
}
