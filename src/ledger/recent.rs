//! What was asked in the last minute? Limits of a minute live in memory; a gateway that starts again learns from the entries
//! how much of them was used, so that a restart does not refill them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Error::FromSqlConversionFailure;
use rusqlite::types::Type;

use super::line::Fields;
use super::open::because;
use super::report::{ReportError, reader};
use super::window::millis_of;
use crate::usage::Usage;

/// A try of late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// How long ago its request came.
    pub age: Duration,
    /// Whether it was its request's first that was billed.
    pub is_first: bool,
    /// Who asked.
    pub key: String,
    /// Their team.
    pub team: Option<String>,
    /// Where it went.
    pub target: String,
    /// What was used.
    pub usage: Usage,
}

/// The tries of the last `span` before now, the oldest first.
pub fn recent(path: &Path, span: Duration, now: SystemTime) -> Result<Vec<Recent>, ReportError> {
    let failed = |why| ReportError::Open(because(Some(path), why));
    let conn = reader(path)?;
    let (from, until) = (now.checked_sub(span).unwrap_or(now), millis_of(now));
    let from = millis_of(from);
    let mut found: Vec<(i64, String, Recent)> = Vec::new();
    // Rows follow time: the first that is too old, from the last on, ends it.
    let mut read = conn
        .prepare("SELECT until, entries FROM chunk ORDER BY id DESC")
        .map_err(failed)?;
    let mut rows = read.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)?
        && row.get::<_, i64>(0).map_err(failed)? >= from
    {
        let text = row.get_ref(1).map_err(failed)?.as_str();
        let text = text.map_err(|why| failed(why.into()))?;
        let lines: Vec<Fields<'_>> = serde_json::from_str(text)
            .map_err(|why| failed(FromSqlConversionFailure(1, Type::Text, why.into())))?;
        for line in &lines {
            let at = i64::try_from(line.at).unwrap_or(i64::MAX);
            // What a clock that was ahead has left counts as of now.
            let age = until.saturating_sub(at).max(0).unsigned_abs();
            let (Some(key), Some(target), None) = (&line.key, &line.target, &line.scope) else {
                continue;
            };
            if at < from {
                continue;
            }
            let used = line.usage.unwrap_or_default().0.0;
            let recent = Recent {
                age: Duration::from_millis(age),
                is_first: false,
                key: key.to_string(),
                team: line.team.as_deref().map(str::to_owned),
                target: target.to_string(),
                usage: Usage::of(used, None),
            };
            found.push((at, line.request().to_owned(), recent));
        }
    }
    found.sort_by(|(at, request, _), (other, another, _)| (at, request).cmp(&(other, another)));
    let mut last = None;
    let told = found.into_iter().map(|(_, request, recent)| {
        let is_first = last.replace(request.clone()).as_ref() != Some(&request);
        Recent { is_first, ..recent }
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::super::tests::{budget, entry, folder, now, open};
    use super::super::{Entry, Per};
    use super::*;
    use crate::usage::Money;

    #[tokio::test]
    async fn tries_of_the_last_minute_are_told_by_request() {
        let folder = folder();
        let ledger = open(&folder);
        let account = [ledger.given(Scope::Key, "ann", budget(1_000, Per::Day))];
        for (seconds, request) in [(0, "old"), (30, "one"), (59, "two")] {
            let at = now() + Duration::from_secs(seconds);
            let mut hold = ledger.hold(&account, Money(1), at).await.unwrap();
            for _ in 0..2 {
                hold.begin(Entry {
                    request: request.into(),
                    ..entry(1)
                });
            }
            assert!(hold.settle().await);
        }
        assert!(ledger.close());
        let path = folder.path().join("ledger.db");
        let span = Duration::from_secs(60);
        let at = |seconds| recent(&path, span, now() + Duration::from_secs(seconds)).unwrap();
        let told: Vec<_> = at(61)
            .iter()
            .map(|it| (it.age.as_secs(), it.is_first))
            .collect();
        assert_eq!(told, [(31, true), (31, false), (2, true), (2, false)]);
        assert_eq!(at(59).len(), 6);
        assert_eq!(at(200).len(), 0);
        assert_eq!(
            at(30).last().unwrap().age,
            Duration::ZERO,
            "a clock that was ahead"
        );
        assert_eq!(at(61)[0].key, "ann");
    }
}
