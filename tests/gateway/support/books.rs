//! What the ledger's file says, read beside the gateway that writes it.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, Row};

use super::{Gateway, until};

/// One entry, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub request: String,
    pub attempt: u64,
    /// What was called, and the model that was asked for.
    pub api: String,
    pub model: String,
    pub key: String,
    /// Hours since 1970.
    pub hour: u64,
    pub end: String,
    pub input: u64,
    pub output: u64,
    /// Characters, seconds, pictures and searches.
    pub units: [u64; 4],
    /// In billionths of a dollar.
    pub cost: Option<u64>,
    pub estimated: bool,
}

/// The file of a ledger.
pub struct Books(Connection);

impl Books {
    /// Of a folder.
    pub fn open(folder: &Path) -> Self {
        Self(Connection::open(folder.join("tollgate.db")).unwrap())
    }

    /// Of a gateway that may be at work: with everything that was settled by now.
    pub fn so_far(gateway: &Gateway) -> Self {
        Self(gateway.ledger())
    }

    /// Of a gateway at rest: once everything that was settled is written.
    pub async fn of(gateway: &Gateway) -> Self {
        until("nothing is under way", || gateway.in_flight() == 0).await;
        let ledger = &gateway.running.as_ref().unwrap().gateway.state.ledger;
        until("nothing is set aside", || ledger.observe().seated == 0).await;
        Self::so_far(gateway)
    }

    /// Every entry, in the order in which they were written.
    pub fn rows(&self) -> Vec<Entry> {
        let columns = [
            "request",
            "attempt",
            "coalesce(key, '')",
            "at / 3600000",
            "\"end\"",
            "coalesce(input, 0)",
            "coalesce(output, 0)",
            "cost",
            "estimated",
            "api",
            "model",
            "coalesce(characters, 0)",
            "coalesce(seconds, 0)",
            "coalesce(images, 0)",
            "coalesce(searches, 0)",
        ];
        self.all(&columns.join(", "), |row| {
            let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok(Entry {
                request: row.get(0)?,
                attempt: number(1)?,
                key: row.get(2)?,
                hour: number(3)?,
                end: row.get(4)?,
                input: number(5)?,
                output: number(6)?,
                cost: row.get::<_, Option<i64>>(7)?.map(i64::unsigned_abs),
                estimated: row.get(8)?,
                api: row.get(9)?,
                model: row.get(10)?,
                units: [number(11)?, number(12)?, number(13)?, number(14)?],
            })
        })
    }

    /// One column of every entry, whatever it is.
    pub fn column(&self, name: &str) -> Vec<String> {
        self.all(name, |row| row.get(0))
    }

    fn all<T>(&self, columns: &str, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let sql = format!("SELECT {columns} FROM entry ORDER BY id");
        let mut rows = self.0.prepare(&sql).unwrap();
        let rows = rows.query_map([], |row| read(row));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// All tokens of a kind.
    pub fn tokens(&self, kind: &str) -> f64 {
        let sql = format!("SELECT total({kind}) FROM entry");
        self.0.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// What one owner has spent in each hour. Scopes are numbered: key, team, provider, total.
    pub fn spent(&self, scope: u8, name: &str) -> BTreeMap<u64, u64> {
        let sql = "SELECT hour, amount FROM spent WHERE scope = ? AND name = ?";
        let mut rows = self.0.prepare(sql).unwrap();
        let rows = rows.query_map((scope, name), |row| {
            let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok((number(0)?, number(1)?))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Whether SQLite finds the file whole.
    pub fn is_whole(&self) -> bool {
        let check = self
            .0
            .query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        check.unwrap() == "ok"
    }
}

/// What entries cost by the hour.
pub fn by_hour<'r>(rows: impl IntoIterator<Item = &'r Entry>) -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for row in rows {
        if let Some(cost) = row.cost.filter(|cost| *cost > 0) {
            *sums.entry(row.hour).or_default() += cost;
        }
    }
    sums
}
