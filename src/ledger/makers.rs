//! Who made which response? A provider keeps what it answered, and whatever goes on from that can only go there.
//!
//! It is known by the entry of the request that the response came of, and so survives what that survives.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};
use smol_str::SmolStr;

use super::Entry;

/// So many are known, the last ones: about ten MiB.
const MOST: usize = 100_000;

/// Who made a response, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// Who asked.
    pub key: SmolStr,
    /// Their team.
    pub team: Option<Arc<str>>,
    /// The label of the model that was asked for.
    pub model: Arc<str>,
    /// Who keeps it.
    pub provider: Arc<str>,
}

/// Who made which response.
#[derive(Debug, Default)]
pub(super) struct Makers {
    /// By what the id comes to, by a hash that nobody outside can foresee.
    all: HashMap<u64, Maker>,
    /// The oldest first.
    order: VecDeque<u64>,
    hash: RandomState,
}

impl Makers {
    /// Who made the response of this id.
    pub(super) fn get(&self, id: &str) -> Option<Maker> {
        self.all.get(&self.hash.hash_one(id)).cloned()
    }

    /// What is entered tells who made it, if it is a response.
    pub(super) fn learn(&mut self, entry: &Entry) {
        if let Some(id) = &entry.response_id {
            let maker = Maker {
                key: entry.key.clone(),
                team: entry.team.clone(),
                model: Arc::clone(&entry.model),
                provider: Arc::clone(&entry.provider),
            };
            self.add(id, maker);
        }
    }

    fn add(&mut self, id: &str, maker: Maker) {
        let hash = self.hash.hash_one(id);
        if self.all.insert(hash, maker).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > MOST {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.all.remove(&oldest));
        }
    }
}

/// Writes who made the response that is entered, if it is one. Gives its number.
pub(super) fn write(tx: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<Option<i64>> {
    let Some(id) = &entry.response_id else {
        return Ok(None);
    };
    tx.prepare_cached(
        "INSERT INTO response (id, key, team, model, provider) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        id,
        &*entry.key,
        entry.team,
        entry.model,
        entry.provider
    ])?;
    Ok(Some(tx.last_insert_rowid()))
}

/// Forgets all but the last ones, of which this is the number of the very last.
pub(super) fn forget(tx: &Transaction<'_>, last: i64) -> rusqlite::Result<()> {
    let most = i64::try_from(MOST).unwrap_or(i64::MAX);
    tx.prepare_cached("DELETE FROM response WHERE number <= ?1")?
        .execute([last.saturating_sub(most)])
        .map(|_| ())
}

/// Reads who made which.
pub(super) fn read(conn: &Connection) -> rusqlite::Result<Makers> {
    let mut makers = Makers::default();
    // Many have the same few names.
    let mut names: HashSet<Arc<str>> = HashSet::new();
    let mut one = |name: String| match names.get(&*name) {
        Some(known) => Arc::clone(known),
        None => {
            let name = Arc::from(name);
            names.insert(Arc::clone(&name));
            name
        }
    };
    let mut read =
        conn.prepare("SELECT id, key, team, model, provider FROM response ORDER BY number")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let maker = Maker {
            key: row.get::<_, String>(1)?.into(),
            team: row.get::<_, Option<String>>(2)?.map(&mut one),
            model: one(row.get(3)?),
            provider: one(row.get(4)?),
        };
        makers.add(&id, maker);
    }
    Ok(makers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{entry, folder, now, open};
    use super::super::{Ledger, Money};
    use super::*;

    async fn made(ledger: &Ledger, id: &str, key: &str) {
        let mut hold = ledger.hold(&[], Money(0), now()).await.unwrap();
        hold.begin(Entry {
            key: key.into(),
            response_id: Some(id.into()),
            ..entry(1)
        });
        assert!(hold.settle().await);
    }

    fn maker(key: &str) -> Maker {
        Maker {
            key: key.into(),
            team: Some("research".into()),
            model: "fast".into(),
            provider: "groq".into(),
        }
    }

    #[tokio::test]
    async fn who_made_a_response_is_known_at_once_and_after_a_crash() {
        let folder = folder();
        let ledger = open(&folder);
        made(&ledger, "resp_1", "ann").await;
        assert_eq!(ledger.maker("resp_1"), Some(maker("ann")));
        assert_eq!(ledger.maker("resp_2"), None);
        ledger.crash();
        drop(ledger);
        let ledger = open(&folder);
        assert_eq!(
            ledger.maker("resp_1"),
            Some(maker("ann")),
            "from beside the file"
        );
        made(&ledger, "resp_1", "bob").await;
        assert!(ledger.close());
        drop(ledger);
        let ledger = open(&folder);
        assert_eq!(
            ledger.maker("resp_1"),
            Some(maker("bob")),
            "who made it last"
        );
        let conn = Connection::open(folder.path().join("ledger.db")).unwrap();
        let told: String = conn
            .query_row("SELECT group_concat(response_id) FROM entries", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(told, "resp_1,resp_1");
    }

    #[test]
    fn the_last_ones_are_known_in_memory_and_in_the_file() {
        let mut makers = Makers::default();
        (0..=MOST).for_each(|n| makers.add(&n.to_string(), maker("ann")));
        assert_eq!((makers.all.len(), makers.order.len()), (MOST, MOST));
        assert_eq!(
            (makers.get("0"), makers.get("1")),
            (None, Some(maker("ann")))
        );
        makers.add("1", maker("bob"));
        assert_eq!(makers.order.len(), MOST, "the same one once more");

        let folder = folder();
        drop(open(&folder));
        let mut conn = Connection::open(folder.path().join("ledger.db")).unwrap();
        conn.busy_timeout(Duration::from_secs(5)).unwrap();
        let tx = conn.transaction().unwrap();
        for n in [1, 2, MOST + 1] {
            tx.execute(
                "INSERT INTO response VALUES (?1, 'x', 'k', NULL, 'm', 'p')",
                [i64::try_from(n).unwrap()],
            )
            .unwrap();
        }
        let response = Entry {
            response_id: Some("last".into()),
            ..entry(1)
        };
        let last = write(&tx, &response).unwrap().unwrap();
        forget(&tx, last).unwrap();
        let first: i64 = tx
            .query_row("SELECT min(number) FROM response", [], |row| row.get(0))
            .unwrap();
        assert_eq!(first, i64::try_from(MOST).unwrap() + 1);
    }
}
