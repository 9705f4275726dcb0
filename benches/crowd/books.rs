//! Do the books agree? What the ledger's file says once its gateway has ended, beside what was sent.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use rusqlite::Connection;

use crate::deal::{Deal, Kind};

/// What the upstream's answers cost, in billionths of a dollar: 190 tokens at 0.1 dollars a million, and 64 of an answer
/// or 200 of a stream at 0.4.
const WHOLE: u64 = 190 * 100 + 64 * 400;
const STREAM: u64 = 190 * 100 + 200 * 400;

/// What entries say of one key.
#[derive(Default, Debug)]
struct Line {
    entries: u64,
    left: u64,
    /// What is not an estimate, in billionths of a dollar.
    told: u64,
}

impl Line {
    /// Whether it is what is due. On a machine that pauses, a stream may end before its client comes to hang up.
    fn fits(&self, due: &Self) -> bool {
        let late = due.left.saturating_sub(self.left);
        self.entries == due.entries
            && self.left + late == due.left
            && self.told == due.told + late * STREAM
    }
}

/// What the file says, and everything in it that is not as it must be.
pub(crate) struct Verdict {
    pub(crate) entries: u64,
    /// In billionths of a dollar.
    pub(crate) spent: u64,
    pub(crate) wrong: Vec<String>,
}

/// Compares the ledger in a folder with so many requests of so many keys, of which so many are even.
pub(crate) fn judge(folder: &Path, keys: u32, (requests, even): (u64, u64)) -> Result<Verdict> {
    let file = folder.join("tollgate.db");
    let conn = Connection::open(&file)?;
    let mut wrong = Vec::new();
    let mut found: BTreeMap<String, Line> = BTreeMap::new();
    let mut costs: BTreeMap<String, u64> = BTreeMap::new();
    let mut read = conn.prepare(
        "SELECT key, count(*), sum(\"end\" = 'client_gone'), sum(iif(estimated, 0, cost)), sum(cost)
         FROM entry GROUP BY key",
    )?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        let line = Line {
            entries: number(1)?,
            left: number(2)?,
            told: number(3)?,
        };
        found.insert(key.clone(), line);
        costs.insert(key, number(4)?);
    }
    let due = due(keys, (requests, even));
    let fits = |key: &str, line: &Line| found.get(key).is_some_and(|it| it.fits(line));
    if let Some((key, line)) = due.iter().find(|(key, line)| !fits(key, line)) {
        let is = found.get(key);
        wrong.push(format!("{key}: the entries are {is:?} and not {line:?}"));
    }
    if found.len() > due.len() {
        wrong.push(format!("entries of {} keys", found.len()));
    }
    let spent = spent(&conn)?;
    if spent != costs {
        let other = costs
            .iter()
            .find(|(key, cost)| spent.get(*key) != Some(cost));
        wrong.push(format!(
            "what was spent is not the sum of entries: {other:?}"
        ));
    }
    let leases: i64 = conn.query_row("SELECT count(*) FROM lease", [], |row| row.get(0))?;
    if leases > 0 {
        wrong.push(format!("{leases} blocks were not given back at the end"));
    }
    for ending in [".tail0", ".tail1"] {
        let left = fs::metadata(folder.join(format!("tollgate.db{ending}")))?.len();
        if left > 0 {
            wrong.push(format!("{left} bytes are left in {ending}"));
        }
    }
    Ok(Verdict {
        entries: found.values().map(|line| line.entries).sum(),
        spent: costs.values().sum(),
        wrong,
    })
}

/// What must be there.
fn due(keys: u32, (requests, even): (u64, u64)) -> BTreeMap<String, Line> {
    let mut deal = Deal::new(keys, even);
    let mut due: BTreeMap<String, Line> = BTreeMap::new();
    for _ in 0..requests {
        let (key, kind) = deal.next();
        let line = due.entry(format!("key-{key}")).or_default();
        line.entries += 1;
        match kind {
            Kind::Whole => line.told += WHOLE,
            Kind::Stream => line.told += STREAM,
            Kind::HangUp => line.left += 1,
        }
    }
    due
}

fn spent(conn: &Connection) -> Result<BTreeMap<String, u64>> {
    let mut read =
        conn.prepare("SELECT name, sum(amount) FROM spent WHERE scope = 0 GROUP BY name")?;
    let rows = read.query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
