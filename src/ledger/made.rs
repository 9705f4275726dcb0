//! Which keys were made while the gateway ran, or beside it? Kept with what was spent: their names, their digests, and what
//! they may do, in the words of gateway.toml. The keys themselves are kept nowhere.
//!
//! A connection of its own, so that a key is made without waiting for what is settled. Whoever looks asks for what has
//! changed since it looked last; rows are never deleted, so that a name is not had twice and a revoked key stays one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, Transaction,
    TransactionBehavior, params,
};
use smol_str::SmolStr;

use super::open::{OpenError, because, look_only, migrate};
use super::store::about;
use super::window::millis_of;
use super::{Place, store};

/// The SHA-256 of a key.
pub type KeyDigest = [u8; 32];

/// A key that was made, or one of the file's that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeKey {
    /// Its name.
    pub name: SmolStr,
    /// Its digest. None: it is one of the file's.
    pub digest: Option<KeyDigest>,
    /// The digest that it had before, and until when that is good, too.
    pub older: Option<(KeyDigest, SystemTime)>,
    /// What it may do, as JSON.
    pub terms: String,
    /// Since when there is a row for it.
    pub made: SystemTime,
    /// Since when it is revoked.
    pub revoked: Option<SystemTime>,
}

/// Why a key was not made or changed. Nothing was.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is one of this name, or was.
    #[error(
        "there is a key {0} already, or was one: a name is used once, for what was spent goes by it"
    )]
    Taken(Box<str>),
    /// Nobody made it.
    #[error("no key {0} was made; `tollgate keys list` shows those that were")]
    Missing(Box<str>),
    /// It is revoked.
    #[error("the key {0} is revoked, for good; make another")]
    Revoked(Box<str>),
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Nowhere,
    /// What SQLite says.
    #[error("the ledger could not be read or written: {0}")]
    Store(#[from] rusqlite::Error),
}

/// The keys that were made. By default there is no place for any.
#[derive(Debug, Default)]
pub struct Keys(Mutex<Option<Connection>>);

/// How long to wait for others who write: a group is written in some milliseconds.
const BUSY: Duration = Duration::from_secs(5);

impl Keys {
    /// Of a ledger that is there, also beside a gateway that uses it; or of none, for as long as the process lives.
    pub fn open(place: &Place) -> Result<Self, OpenError> {
        let Place::File(path) = place else {
            let made = Connection::open_in_memory().and_then(|mut conn| {
                let tx = conn.transaction()?;
                migrate(&tx, 0)?;
                tx.commit()?;
                Ok(Self(Mutex::new(Some(conn))))
            });
            return made.map_err(|why| because(None, why));
        };
        let said = |why| because(Some(path), why);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(said)?;
        look_only(&conn, path)?;
        conn.busy_timeout(BUSY).map_err(said)?;
        // A key that was shown must not be forgotten, whatever is cut. What is in the log is brought into the file by others.
        let set = |name, value: &str| conn.pragma_update(None, name, value).map_err(said);
        set("synchronous", "FULL")?;
        set("wal_autocheckpoint", "0")?;
        Ok(Self(Mutex::new(Some(conn))))
    }

    fn conn(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        *self.conn() = None;
    }

    /// What was made or changed after a version of all of it, and which version that is now. The first one is 0.
    pub fn since(&self, version: i64) -> Result<(i64, Vec<MadeKey>), KeyError> {
        let conn = self.conn();
        let conn = conn.as_ref().ok_or(KeyError::Nowhere)?;
        let mut read = conn.prepare_cached(
            "SELECT name, digest, older, until, terms, made, revoked, version FROM made WHERE version > ?1 ORDER BY version",
        )?;
        let mut rows = read.query([version])?;
        let (mut latest, mut found) = (version, Vec::new());
        while let Some(row) = rows.next()? {
            latest = row.get(7)?;
            found.push(made(row)?);
        }
        Ok((latest, found))
    }

    /// Whether there is one of this name, or one of the file's that was revoked.
    pub fn has(&self, name: &str) -> Result<bool, KeyError> {
        let conn = self.conn();
        let conn = conn.as_ref().ok_or(KeyError::Nowhere)?;
        let mut read = conn.prepare_cached("SELECT 1 FROM made WHERE name = ?1")?;
        Ok(read.exists([name])?)
    }

    /// Makes one, with what it may do.
    pub fn add(
        &self,
        name: &str,
        digest: KeyDigest,
        terms: &str,
        now: SystemTime,
    ) -> Result<(), KeyError> {
        self.change(|tx, version| {
            let added = tx.execute(
                "INSERT INTO made (name, digest, terms, made, version) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![name, digest, terms, millis_of(now), version],
            );
            match added {
                Err(why) if why.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    Err(KeyError::Taken(name.into()))
                }
                added => Ok(added.map(|_| ())?),
            }
        })
    }

    /// Gives one another key; the one before is good until a moment, and that before it no more.
    pub fn rotate(&self, name: &str, digest: KeyDigest, until: SystemTime) -> Result<(), KeyError> {
        self.change(|tx, version| {
            let found = tx
                .query_row(
                    "SELECT revoked FROM made WHERE name = ?1 AND digest IS NOT NULL",
                    [name],
                    |row| row.get::<_, Option<i64>>(0),
                )
                .optional()?;
            match found {
                None => Err(KeyError::Missing(name.into())),
                Some(Some(_)) => Err(KeyError::Revoked(name.into())),
                Some(None) => {
                    let change = "UPDATE made SET older = digest, until = ?2, digest = ?3, version = ?4 WHERE name = ?1";
                    tx.execute(change, params![name, millis_of(until), digest, version])?;
                    Ok(())
                }
            }
        })
    }

    /// Revokes one for good, also one of the file's. Once more changes nothing.
    pub fn revoke(&self, name: &str, now: SystemTime) -> Result<(), KeyError> {
        self.change(|tx, version| {
            tx.execute(
                "INSERT INTO made (name, terms, made, revoked, version) VALUES (?1, '{}', ?2, ?2, ?3)
                 ON CONFLICT DO UPDATE SET revoked = coalesce(revoked, ?2), version = ?3",
                params![name, millis_of(now), version],
            )?;
            Ok(())
        })
    }

    fn change(
        &self,
        steps: impl FnOnce(&Transaction<'_>, i64) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        let mut conn = self.conn();
        let conn = conn.as_mut().ok_or(KeyError::Nowhere)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = about(&tx, "made")?.unwrap_or_default() + 1;
        steps(&tx, version)?;
        store::write_about(&tx, "made", version)?;
        Ok(tx.commit()?)
    }
}

fn made(row: &Row<'_>) -> rusqlite::Result<MadeKey> {
    let moment = |millis: i64| UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs());
    let older: Option<KeyDigest> = row.get(2)?;
    let until: Option<i64> = row.get(3)?;
    Ok(MadeKey {
        name: row.get::<_, String>(0)?.into(),
        digest: row.get(1)?,
        older: older.zip(until.map(moment)),
        terms: row.get(4)?,
        made: moment(row.get(5)?),
        revoked: row.get::<_, Option<i64>>(6)?.map(moment),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, folder, now, open};
    use super::*;

    #[test]
    fn keys_are_made_rotated_and_revoked_and_nothing_is_forgotten() {
        let folder = folder();
        let file = folder.path().join("ledger.db");
        assert!(open(&folder).close());
        for place in [Place::Memory, Place::File(file)] {
            let keys = Keys::open(&place).unwrap();
            assert_eq!(keys.since(0).unwrap(), (0, Vec::new()));
            keys.add("ann", [1; 32], "{}", now()).unwrap();
            keys.add("bob", [2; 32], "{\"team\":\"t\"}", now()).unwrap();
            let (version, all) = keys.since(0).unwrap();
            assert_eq!((version, all.len()), (2, 2));
            assert_eq!(all[1].terms, "{\"team\":\"t\"}");
            for digest in [[2; 32], [9; 32]] {
                let taken = keys.add("ann", digest, "{}", now()).unwrap_err();
                assert!(matches!(taken, KeyError::Taken(_)), "{taken}");
            }
            let same = keys.add("eve", [1; 32], "{}", now()).unwrap_err();
            assert!(matches!(same, KeyError::Taken(_)), "{same}");

            let until = at(1_709_300_000);
            keys.rotate("ann", [3; 32], until).unwrap();
            let (version, changed) = keys.since(version).unwrap();
            assert_eq!((version, changed.len()), (3, 1));
            assert_eq!(changed[0].digest, Some([3; 32]));
            assert_eq!(changed[0].older, Some(([1; 32], until)));
            keys.revoke("ann", now()).unwrap();
            keys.revoke("of the file", now()).unwrap();
            keys.revoke("ann", until).unwrap();
            let (_, changed) = keys.since(version).unwrap();
            let revoked: Vec<_> = changed.iter().map(|it| (&*it.name, it.revoked)).collect();
            assert_eq!(
                revoked,
                [("of the file", Some(now())), ("ann", Some(now()))]
            );
            for (name, why) in [("ann", "is revoked, for good"), ("nobody", "no key nobody")] {
                let refused = keys.rotate(name, [4; 32], until).unwrap_err();
                assert!(refused.to_string().contains(why), "{refused}");
            }
            let missing = keys.rotate("of the file", [4; 32], until).unwrap_err();
            assert!(matches!(missing, KeyError::Missing(_)), "{missing}");
        }
    }

    /// A gateway and a command use the same file.
    #[test]
    fn what_one_connection_makes_another_sees() {
        let folder = folder();
        let ledger = open(&folder);
        let place = Place::File(folder.path().join("ledger.db"));
        let other = Keys::open(&place).unwrap();
        assert_eq!(ledger.keys().since(0).unwrap().0, 0);
        other.add("ann", [1; 32], "{}", now()).unwrap();
        let (version, found) = ledger.keys().since(0).unwrap();
        assert_eq!((version, &*found[0].name), (1, "ann"));
        assert!(ledger.close());
        let ledger = open(&folder);
        assert_eq!(ledger.keys().since(0).unwrap(), (1, found));
    }
}
