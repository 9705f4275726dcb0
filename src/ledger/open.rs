//! Is there a ledger in this file, is it ours alone, and is it whole? Whatever is not so is said, and nothing is changed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::store::about;
use super::tail::{self, Unread};

/// Why the ledger could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another gateway writes to it.
    #[error("another gateway is using the ledger {}; stop it, or give this one a ledger of its own with `store` in [ledger]", path.display())]
    Locked {
        /// The ledger's file.
        path: PathBuf,
    },
    /// The path is that of a folder.
    #[error("the ledger {} is a folder; name a file in it", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be made or written.
    #[error("the ledger {} cannot be written: {why}; its folder must exist, and be writable with every file in it that belongs to the ledger", path.display())]
    Unwritable {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// What stands beside the file is another ledger's.
    #[error("{} holds what was settled in another ledger than the one beside it; put its own ledger back, or move it away", path.display())]
    Stray {
        /// The file beside it.
        path: PathBuf,
    },
    /// There is something else in the file.
    #[error("{} is not a ledger of tollgate; name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error("the ledger {} was written by a later version of tollgate (its schema is {found}, this one knows {known}); use that version", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
        /// The latest that we know.
        known: i64,
    },
    /// The file was written by an earlier version, and only a gateway may change that.
    #[error("the ledger {} was written by an earlier version of tollgate; start a gateway of this version with it once", path.display())]
    Older {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold together.
    #[error("the ledger {} is damaged: {what}; restore a backup, or move it away to begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// Anything else that SQLite says.
    #[error("the ledger {} could not be opened: {why}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: rusqlite::Error,
    },
    /// There is no thread for it.
    #[error("the ledger's thread could not be started: {0}")]
    Thread(#[from] io::Error),
}

impl From<Unread> for OpenError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Foreign(path) => Self::Stray { path },
            Unread::Io(path, why) => Self::Unwritable {
                path,
                why: why.to_string(),
            },
        }
    }
}

/// What a new file is made of.
const TABLES: &str = include_str!("tables.sql");
/// What is made anew with each version, for people's own SQL and for ours.
const VIEWS: &str = include_str!("views.sql");
/// What brings the tables of each version to the next, from the first.
const MIGRATIONS: &[&str] = &[
    include_str!("from_1.sql"),
    include_str!("from_2.sql"),
    include_str!("from_3.sql"),
    include_str!("from_4.sql"),
];
/// The latest version of the schema.
fn latest() -> i64 {
    i64::try_from(1 + MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Marks a file as ours: "toll".
const MARK: i64 = 0x746f_6c6c;
/// How long to wait for another gateway to leave the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file, and the lock beside it.
pub(super) fn open_file(path: &Path) -> Result<(Connection, File), OpenError> {
    if path.is_dir() {
        return Err(OpenError::Folder { path: path.into() });
    }
    let lock = lock(path)?;
    look_beside(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = |why| because(Some(path), why);
    let conn = Connection::open_with_flags(path, flags).map_err(store)?;
    // Before anything is read: for that SQLite makes files beside this one, and they would stay.
    if conn.is_readonly("main").map_err(store)? {
        let (path, why) = (path.into(), "it is read-only".into());
        return Err(OpenError::Unwritable { path, why });
    }
    check(&conn, path)?;
    Ok((conn, lock))
}

/// Looks whether what stands beside the file can be written, as far as it is there.
fn look_beside(path: &Path) -> Result<(), OpenError> {
    for place in tail::PLACES.map(|name| tail::beside(path, name)) {
        match File::options().append(true).open(&place) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                let (path, why) = (place, why.to_string());
                return Err(OpenError::Unwritable { path, why });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Looks whether the file is ours and of a version that we know, and changes nothing. The version; 0 if it is new.
pub(super) fn look(conn: &Connection, path: &Path) -> Result<i64, OpenError> {
    let store = |why| because(Some(path), why);
    let number = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = number("user_version").map_err(store)?;
    let known = latest();
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(store)?;
    let mark = number("application_id").map_err(store)?;
    if tables > 0 && mark != MARK {
        return Err(OpenError::Foreign { path: path.into() });
    }
    if version > known {
        let (path, found) = (path.into(), version);
        return Err(OpenError::Newer { path, found, known });
    }
    Ok(version)
}

/// As [`look`], for whoever only reads: it has to be of this version.
pub(super) fn look_only(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    match look(conn, path)? {
        version if version == latest() => Ok(()),
        0 => Err(OpenError::Foreign { path: path.into() }),
        _ => Err(OpenError::Older { path: path.into() }),
    }
}

/// Brings a file of this version to the latest. A new file's version is 0.
pub(super) fn migrate(tx: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
    if version == latest() {
        return Ok(());
    }
    match usize::try_from(version - 1) {
        Ok(done) => {
            for migration in MIGRATIONS.iter().skip(done) {
                tx.execute_batch(migration)?;
            }
        }
        Err(_) => tx.execute_batch(TABLES)?,
    }
    tx.execute_batch(VIEWS)?;
    tx.pragma_update(None, "application_id", MARK)?;
    tx.pragma_update(None, "user_version", latest())
}

/// Looks whether the file is whole if it was not closed in order.
fn check(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let store = |why| because(Some(path), why);
    let is_new = look(conn, path)? == 0;
    if is_new || about(conn, "clean").map_err(store)? == Some(1) {
        return Ok(());
    }
    let what: String = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(store)?;
    if what == "ok" {
        return Ok(());
    }
    let path = path.into();
    Err(OpenError::Damaged { path, what })
}

/// Keeps other gateways out, or waits until they have left.
fn lock(path: &Path) -> Result<File, OpenError> {
    let place = tail::beside(path, ".lock");
    let unwritable = |why: io::Error| OpenError::Unwritable {
        path: place.clone(),
        why: why.to_string(),
    };
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&place)
        .map_err(unwritable)?;
    let step = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(why)) => return Err(unwritable(why)),
            Err(TryLockError::WouldBlock) if waited >= PATIENCE => {
                return Err(OpenError::Locked { path: path.into() });
            }
            Err(TryLockError::WouldBlock) => sleep(step),
        }
        waited += step;
    }
}

/// What is wrong with a file that was ours and whole when it was opened, if that is what SQLite says.
pub(super) fn damage(path: Option<&Path>, why: &rusqlite::Error) -> Option<OpenError> {
    let code = why.sqlite_error_code()?;
    let is_damage = matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase);
    is_damage.then(|| OpenError::Damaged {
        path: path.unwrap_or(Path::new(":memory:")).into(),
        what: why.to_string(),
    })
}

/// What SQLite says, as a person would.
pub(super) fn because(path: Option<&Path>, why: rusqlite::Error) -> OpenError {
    let path = path.map_or_else(|| PathBuf::from(":memory:"), Path::to_path_buf);
    let text = why.to_string();
    if let rusqlite::Error::FromSqlConversionFailure(..) = why {
        return OpenError::Damaged { path, what: text };
    }
    match why.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, what: text },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenError::Unwritable { path, why: text }
        }
        _ => OpenError::Store { path, why },
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::types::Value;

    use std::fs;

    use super::super::tests::{folder, open};
    use super::super::{By, Report};
    use super::*;

    /// What is for people.
    const VIEWS: [&str; 2] = ["entries", "spend_by_day"];

    /// The columns that a view has in the file's version.
    fn columns(path: &Path, view: &str) -> String {
        let conn = Connection::open(path).unwrap();
        let read = conn.prepare(&format!("SELECT * FROM {view}")).unwrap();
        let names = read.column_names().filter(|name| *name != "id");
        // "end" is a word of SQL's.
        let quoted = names.flat_map(|name| ["\"", name, "\", "]);
        quoted.collect()
    }

    /// Every row, in these columns.
    fn shown(path: &Path, columns: &str, view: &str) -> Vec<String> {
        let conn = Connection::open(path).unwrap();
        let mut read = conn
            .prepare(&format!("SELECT {columns} 1 FROM {view}"))
            .unwrap();
        let columns = read.column_count();
        let rows = read.query_map([], |row| {
            let cells = (0..columns).map(|n| row.get::<_, Value>(n));
            cells.collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.unwrap().map(|row| format!("{row:?}")).collect()
    }

    /// A file of an earlier version, with so many entries and days, is brought to this one; what was settled last has this
    /// number. Gives how many entries each key then has.
    fn brought_here(
        folder: &tempfile::TempDir,
        file: &str,
        counts: (usize, usize),
        number: u64,
    ) -> Vec<(String, u64)> {
        let path = folder.path().join("ledger.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch(file)
            .unwrap();
        let columns = VIEWS.map(|view| columns(&path, view));
        let say = || {
            let [entries, days] = [0, 1].map(|n| shown(&path, &columns[n], VIEWS[n]));
            (entries, days)
        };
        let before = say();
        assert_eq!((before.0.len(), before.1.len()), counts);
        let unread = Report::read(&path, &[], None).unwrap_err();
        assert!(
            unread.to_string().contains("an earlier version"),
            "{unread}"
        );

        // What a crash had left beside it counts as well: the lines are the same.
        let next = number + 1;
        let line = format!(
            r#"[7,{next},474780,[["req_new",1,1709208000800,"chat","bob",null,"fast","groq/llama","groq",[[1,0,0,0,0,0,2,0,0,0],null],5,false,"complete","v1"]],[],{next}]"#
        );
        fs::write(tail::beside(&path, tail::PLACES[0]), format!("\n{line}\n")).unwrap();
        assert!(open(folder).close());
        let (mut entries, _) = say();
        assert!(entries.pop().is_some_and(|last| last.contains("req_new")));
        assert_eq!(entries, before.0);
        let before = say();
        let report = Report::read(&path, &[By::Key, By::User, By::Tag], None).unwrap();
        assert!(report.iter().all(|row| row.by[1..] == ["", ""]));
        assert!(open(folder).close(), "and again");
        assert_eq!(say(), before);
        let count = |row: &super::super::Row| (row.by[0].clone(), row.entries);
        report.iter().map(count).collect()
    }

    #[test]
    fn a_file_of_the_first_version_says_the_same_in_this_one() {
        let first = include_str!("../../tests/fixtures/ledger/first.sql");
        let report = brought_here(&folder(), first, (602, 9), 600);
        // What the team was charged counts where it is asked for by team.
        assert_eq!(report.iter().map(|row| row.1).sum::<u64>(), 602 + 3);
    }

    #[test]
    fn a_file_of_the_second_version_says_the_same_in_this_one() {
        let second = include_str!("../../tests/fixtures/ledger/second.sql");
        let folder = folder();
        let report = brought_here(&folder, second, (6, 13), 604);
        let of = |key: &str| report.iter().find(|row| row.0 == key).unwrap().1;
        assert_eq!((of("ann"), of("bob")), (3 + 2 + 1, 1 + 2 + 1));
        assert_eq!(report.iter().map(|row| row.1).sum::<u64>(), 600 + 10);
    }
}
