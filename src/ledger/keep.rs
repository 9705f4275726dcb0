//! What is too old to be kept one by one? It is rolled up by the day, in small steps, when there is nothing else to write.

use std::collections::HashSet;

use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use super::due::ADD_SPENT;
use super::{Scope, TOTAL};
use crate::usage::KINDS;

/// How many entries are rolled up in one step, if no row has more: a millisecond's work, or two.
const STEP: i64 = 100;
/// In hours: no window but that which never ends is longer, so what was spent before needs no hour of its own.
const LONGEST: i64 = 62 * 24;

/// Forgets how many requests were made on days before yesterday.
pub(super) fn forget_days(conn: &Connection, hour: i64) -> rusqlite::Result<()> {
    let mut forget =
        conn.prepare_cached("DELETE FROM spent_base WHERE scope = ?1 AND hour < ?2")?;
    for scope in Scope::ALL.into_iter().filter(|it| it.is_of_requests()) {
        forget.execute(params![scope as i64, hour - 48])?;
    }
    Ok(())
}

/// Rolls up some of the entries that are older than `keep` hours. True if there are more.
pub(super) fn sweep(conn: &mut Connection, hour: i64, keep: i64) -> rusqlite::Result<bool> {
    let before = hour.saturating_sub(keep);
    if before <= 0 {
        return Ok(false);
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: Option<i64> = {
        // Rows follow time: the first that is young enough ends it, and the rest is not looked at.
        let mut read = tx.prepare_cached("SELECT id, until, count FROM chunk ORDER BY id")?;
        let mut rows = read.query([])?;
        let (mut last, mut entries) = (None, 0);
        while entries < STEP
            && let Some(row) = rows.next()?
            && row.get::<_, i64>(1)? < before.saturating_mul(3_600_000)
        {
            last = Some(row.get(0)?);
            entries += row.get::<_, i64>(2)?;
        }
        last
    };
    let Some(last) = last else {
        return Ok(false);
    };
    roll_up(&tx, last)?;
    fold(&tx, last, hour - LONGEST)?;
    tx.prepare_cached("DELETE FROM chunk WHERE id <= ?1")?
        .execute([last])?;
    tx.commit()?;
    Ok(true)
}

/// Adds the entries up to this one to their days.
fn roll_up(tx: &Transaction<'_>, last: i64) -> rusqlite::Result<()> {
    let kinds = KINDS.join(", ");
    let counted = KINDS.map(|kind| format!("coalesce({kind}, 0)")).join(", ");
    let sums = KINDS
        .iter()
        .chain(&["entries", "estimated", "unpriced", "cost"])
        .map(|column| {
            // More than SQLite can count is the most that it can.
            format!(
                "{column} = CASE WHEN {column} > 9223372036854775807 - excluded.{column}
                 THEN 9223372036854775807 ELSE {column} + excluded.{column} END"
            )
        })
        .collect::<Vec<_>>()
        .join(", ");
    let text = format!(
        "INSERT INTO past (day, scope, key, team, model, target, provider, user, tag, entries, estimated, unpriced,
                           cost, {kinds})
         SELECT at / 86400000, coalesce(scope, 'request'), coalesce(key, ''), coalesce(team, ''), coalesce(model, ''),
                coalesce(target, ''), coalesce(provider, ''), coalesce(user, ''), coalesce(tag, ''), 1, estimated,
                cost IS NULL, coalesce(cost, 0), {counted}
         FROM entry WHERE chunk <= ?1
         ON CONFLICT DO UPDATE SET {sums}"
    );
    tx.prepare_cached(&text)?.execute([last]).map(|_| ())
}

/// Folds the hours of entries that go into one row for each owner, if no window but an endless one can need them.
fn fold(tx: &Transaction<'_>, last: i64, before: i64) -> rusqlite::Result<()> {
    let mut read =
        tx.prepare_cached("SELECT at, scope, key, team, provider FROM entry WHERE chunk <= ?1")?;
    let mut rows = read.query([last])?;
    let mut found = HashSet::new();
    while let Some(row) = rows.next()? {
        let hour = row.get::<_, i64>(0)? / 3_600_000;
        if hour > 0 && hour < before {
            let owners = owners(row)?;
            found.extend(owners.into_iter().map(|(scope, name)| (scope, name, hour)));
        }
    }
    let mut take = tx.prepare_cached(
        "DELETE FROM spent_base WHERE scope = ?1 AND name = ?2 AND hour = ?3 RETURNING amount",
    )?;
    let mut add = tx.prepare_cached(ADD_SPENT)?;
    for (scope, name, hour) in found {
        let mut rows = take.query(params![scope as i64, name, hour])?;
        let mut amount = 0;
        while let Some(row) = rows.next()? {
            amount = row.get(0)?;
        }
        drop(rows);
        if amount > 0 {
            add.execute(params![scope as i64, name, 0, amount])?;
        }
    }
    Ok(())
}

/// Who paid for an entry.
fn owners(row: &Row<'_>) -> rusqlite::Result<Vec<(Scope, String)>> {
    let charged: Option<String> = row.get(1)?;
    let owner = |scope, name: Option<String>| {
        let is_paid = charged
            .as_deref()
            .is_none_or(|charged| charged == Scope::name(scope));
        name.filter(|_| is_paid).map(|name| (scope, name))
    };
    let all = [
        owner(Scope::Key, row.get(2)?),
        owner(Scope::Team, row.get(3)?),
        owner(Scope::Provider, row.get(4)?),
        owner(Scope::Total, Some(TOTAL.into())),
    ];
    Ok(all.into_iter().flatten().collect())
}
