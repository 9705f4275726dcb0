//! How are entries kept in the file? Many together, as one row: a row for each would cost more than all else that is done
//! for it. The view `entry` shows them one by one.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Transaction, params};

use super::item::Settled;
use super::window::millis_of;
use super::{Scope, line};

/// In bytes: with so much in it a row is full. Reports read a row at a time.
const FULL: usize = 32 << 10;

/// Entries that will be a row.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    text: Vec<u8>,
    count: u32,
    until: i64,
}

impl Chunk {
    /// Adds a request's, and writes them all if they are many.
    pub(super) fn add(&mut self, settled: &Settled, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        self.go_on();
        self.text.extend_from_slice(&settled.text);
        for entry in &settled.entries {
            self.count(millis_of(entry.at));
        }
        if self.text.len() >= FULL {
            self.write(tx)?;
        }
        Ok(())
    }

    /// Adds what an owner was charged for a crash.
    pub(super) fn charge(
        &mut self,
        owner: (Scope, &str),
        at: i64,
        cost: i64,
    ) -> rusqlite::Result<()> {
        self.go_on();
        line::charge(owner, at, cost, &mut self.text)
            .map_err(|why| rusqlite::Error::ToSqlConversionFailure(why.into()))?;
        self.count(at);
        Ok(())
    }

    /// Begins the list, or goes on with it.
    fn go_on(&mut self) {
        let sign = if self.text.is_empty() { b'[' } else { b',' };
        self.text.push(sign);
    }

    fn count(&mut self, at: i64) {
        self.count += 1;
        self.until = self.until.max(at);
    }

    /// Writes them as a row; none if there are none.
    pub(super) fn write(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        self.text.push(b']');
        let text = ToSqlOutput::Borrowed(ValueRef::Text(&self.text));
        tx.prepare_cached("INSERT INTO chunk (until, count, entries) VALUES (?1, ?2, ?3)")?
            .execute(params![self.until, self.count, text])?;
        self.text.clear();
        (self.count, self.until) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::item::{Cuts, Entries};
    use super::super::open::migrate;
    use super::super::tests::entry;
    use super::*;
    use crate::usage::{KINDS, Usage};

    #[test]
    fn many_entries_are_several_rows_and_each_reads_as_it_was() {
        let mut conn = Connection::open_in_memory().unwrap();
        let tx = conn.transaction().unwrap();
        migrate(&tx, 0).unwrap();
        let odd = "a \"key\" \\ with\tall, [of] {it} \u{1f600}";
        let mut chunk = Chunk::default();
        for n in 0..1_000 {
            let mut entries = Entries::new();
            for attempt in 1..=1 + n % 3 {
                let mut entry = entry(u64::MAX >> (n % 3));
                entry.key = odd.into();
                entry.team = (n % 2 == 0).then(|| odd.into());
                entry.usage = (n % 5 > 0).then(|| Usage::of([u64::MAX; KINDS.len()], None));
                entry.cost = entry.cost.filter(|_| n % 7 > 0);
                entry.attempt = attempt;
                entries.push(entry);
            }
            let settled = Settled::of(1, 0, entries, Cuts::new());
            chunk.add(&settled, &tx).unwrap();
        }
        chunk.charge((Scope::Team, odd), 7, 9).unwrap();
        chunk.write(&tx).unwrap();
        chunk.write(&tx).unwrap();
        let number = |sql: &str| -> i64 { tx.query_row(sql, [], |row| row.get(0)).unwrap() };
        let all: i64 = (0..1_000).map(|n| 1 + n % 3).sum();
        assert_eq!(number("SELECT count(*) FROM entry"), all + 1);
        assert_eq!(number("SELECT sum(count) FROM chunk"), all + 1);
        assert_eq!(number("SELECT count(DISTINCT id) FROM entry"), all + 1);
        let longest = number("SELECT max(length(entries)) FROM chunk");
        let rows = number("SELECT count(*) FROM chunk");
        assert!(rows > 10 && longest < 2 * i64::try_from(FULL).unwrap());
        let mut read = tx
            .prepare("SELECT key, team, cost, input, image_output, attempt FROM entry WHERE scope IS NULL ORDER BY id")
            .unwrap();
        let mut found = read.query([]).unwrap();
        for n in 0..1_000_u32 {
            for attempt in 1..=1 + n % 3 {
                let row = found.next().unwrap().unwrap();
                let team: Option<String> = row.get(1).unwrap();
                let cost: Option<i64> = row.get(2).unwrap();
                let most = i64::try_from(u64::MAX >> (n % 3)).unwrap_or(i64::MAX);
                let tokens = (n % 5 > 0).then_some(1_i64 << 53);
                assert_eq!(row.get::<_, String>(0).unwrap(), odd);
                assert_eq!(team.as_deref(), (n % 2 == 0).then_some(odd));
                assert_eq!(cost, (n % 7 > 0).then_some(most));
                assert_eq!(row.get::<_, Option<i64>>(3).unwrap(), tokens);
                assert_eq!(row.get::<_, Option<i64>>(4).unwrap(), tokens);
                assert_eq!(row.get::<_, u32>(5).unwrap(), attempt);
            }
        }
        let charged = "SELECT cost FROM entry WHERE scope = 'team' AND \"end\" = 'crashed' AND estimated AND at = 7";
        assert_eq!(number(charged), 9);
    }
}
