//! Users and tags in the ledger: kept as they were written, told apart by, and rolled up.

use super::tests::{NOON, at, count, entry, flush, folder, now, open, settings};
use super::trials::runtime;
use super::*;

const DAY: u64 = 86_400;

async fn enter(ledger: &Ledger, marks: (Option<&str>, Option<&str>), cost: u64, now: SystemTime) {
    let mut hold = ledger.hold(&[], Money(0), now).await.unwrap();
    hold.begin(Entry {
        user: marks.0.map(Arc::from),
        tag: marks.1.map(Arc::from),
        ..entry(cost)
    });
    assert!(hold.settle().await);
}

#[test]
fn an_entry_is_read_as_it_was_written_and_only_as_long_as_it_must_be() {
    for (user, tag, id, end) in [
        (None, None, None, r#""v1"]"#),
        (Some("u"), None, None, r#""v1",null,"u",null]"#),
        (None, Some("t"), None, r#""v1",null,null,"t"]"#),
        (
            Some("a\"\\é"),
            Some("=1"),
            None,
            r#""v1",null,"a\"\\é","=1"]"#,
        ),
        (None, None, Some("r\"1"), r#""v1",null,null,null,"r\"1"]"#),
        (Some("u"), Some("t"), Some("r"), r#""v1",null,"u","t","r"]"#),
    ] {
        let written = Entry {
            user: user.map(Arc::from),
            tag: tag.map(Arc::from),
            response_id: id.map(Arc::from),
            ..entry(3)
        };
        let line = serde_json::to_string(&written).unwrap();
        assert!(line.ends_with(end), "{line}");
        let read: Entry = serde_json::from_str(&line).unwrap();
        assert_eq!(format!("{read:?}"), format!("{written:?}"));
    }
}

#[test]
fn users_and_tags_add_up_over_days_that_are_rolled_up() {
    let folder = folder();
    let path = folder.path().join("ledger.db");
    let ledger = open(&folder);
    let runtime = runtime();
    let marks = [
        ((Some("u1"), Some("t")), 1),
        ((Some("u2"), Some("t")), 20),
        ((Some("u1"), None), 300),
        ((None, None), 4_000),
    ];
    for now in [now(), at(NOON + 390 * DAY)] {
        for (marks, cost) in marks {
            runtime.block_on(enter(&ledger, marks, cost, now));
        }
        // What is written together is rolled up together.
        flush(&ledger);
    }
    let by = [By::User, By::Tag];
    let told = || {
        let rows = Report::read(&path, &by, None).unwrap();
        let rows = rows
            .into_iter()
            .map(|row| (row.by.join("/"), row.entries, row.cost.0));
        rows.collect::<Vec<_>>()
    };
    let want = [
        ("/", 2, 8_000),
        ("u1/", 2, 600),
        ("u1/t", 2, 2),
        ("u2/t", 2, 40),
    ]
    .map(|(by, entries, cost)| (by.to_owned(), entries, cost));
    assert_eq!(told(), want);
    assert!(ledger.close());
    drop(ledger);
    let ledger = Ledger::open(&settings(&folder), at(NOON + 401 * DAY)).unwrap();
    flush(&ledger);
    assert_eq!(count(&folder, "SELECT count(*) FROM entry"), 4);
    assert_eq!(count(&folder, "SELECT count(*) FROM past"), 4);
    assert_eq!(told(), want);
    let days = "SELECT count(*) FROM spend_by_day WHERE user = 'u1' AND tag = 't'";
    assert_eq!(count(&folder, days), 2);
    let entries = "SELECT count(*) FROM entries WHERE user IS NULL AND tag IS NULL";
    assert_eq!(count(&folder, entries), 1);
    assert!(ledger.close());
}

#[tokio::test]
async fn users_and_tags_survive_a_crash() {
    let folder = folder();
    let ledger = open(&folder);
    let other = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    enter(&ledger, (Some("u1"), Some("t")), 1, now()).await;
    // Nothing has reached the file.
    ledger.crash();
    other.execute_batch("ROLLBACK").unwrap();
    drop(ledger);
    assert!(open(&folder).close());
    let entries = "SELECT count(*) FROM entries WHERE user = 'u1' AND tag = 't'";
    assert_eq!(count(&folder, entries), 1);
}

#[test]
fn a_ledger_says_where_it_is_kept() {
    let folder = folder();
    let path = folder.path().join("ledger.db");
    assert_eq!(*open(&folder).place(), Place::File(path));
    assert_eq!(*Ledger::unopened().place(), Place::Memory);
}
