//! The ledger under faults: what cannot be written, what is no ledger, what is too old, and clocks that were wrong.

use std::fs;

use rusqlite::Connection;

use super::tests::{
    NOON, at, budget, count, entry, flush, folder, now, open, settings, spend, sql,
};
use super::trials::runtime;
use super::*;

/// From now on the file cannot grow, or can again.
fn full(ledger: &Ledger, pages: &'static str) {
    ledger.0.inner.with(|state| {
        state.pragma = Some(pages);
        state.hurry = true;
    });
}

const FULL: &str = "PRAGMA max_page_count = 1";
const ROOM: &str = "PRAGMA max_page_count = 1000000";

/// Enters one request for nothing. False if it took too long.
async fn enters(ledger: &Ledger) -> bool {
    let mut hold = ledger.hold(&[], Money(0), now()).await.unwrap();
    hold.begin(entry(1));
    hold.settle().await
}

async fn recovers(ledger: &Ledger) {
    full(ledger, ROOM);
    while ledger.observe().unavailable {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    flush(ledger);
}

#[tokio::test]
async fn while_nothing_can_be_written_nothing_is_lost_and_nothing_is_entered_twice() {
    let folder = folder();
    let settings = Settings {
        // The file alone counts.
        durability: Durability::Power,
        settle_wait: Duration::from_millis(50),
        seats: 400,
        ..settings(&folder)
    };
    let ledger = Ledger::open(&settings, now()).unwrap();
    let accounts = [ledger.given(Scope::Key, "ann", budget(1_000_000, Per::Day))];
    let mut under_way = ledger.hold(&accounts, Money(500), now()).await.unwrap();
    full(&ledger, FULL);
    let mut entered = 1;
    while enters(&ledger).await {
        entered += 1;
        assert!(entered < 300, "the disk is never full");
    }
    assert!(ledger.observe().unavailable);
    assert_eq!(ledger.observe().late, 1);
    assert!(matches!(
        ledger.hold(&accounts, Money(1), now()).await,
        Err(Refused::Unavailable)
    ));
    under_way.begin(entry(400));
    assert!(!under_way.settle().await, "it ends within settle_wait");
    // Requests without a budget go on until the seats are taken.
    let mut free = Vec::new();
    let refused = loop {
        match ledger.hold(&[], Money(0), now()).await {
            Ok(hold) => free.push(hold),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused, free.len()), (Refused::Full, 400));
    drop(free);
    recovers(&ledger).await;
    assert!(ledger.hold(&accounts, Money(1), now()).await.is_ok());
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT count(*) FROM entry"), entered + 1);
    assert_eq!(
        count(&folder, "SELECT sum(amount) FROM spent WHERE scope = 0"),
        entered + 400
    );
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
}

#[tokio::test]
async fn while_the_file_cannot_be_written_requests_end_in_its_tail_up_to_a_bound() {
    let folder = folder();
    let settings = Settings {
        backlog: 100,
        ..settings(&folder)
    };
    let ledger = Ledger::open(&settings, now()).unwrap();
    let accounts = [ledger.given(Scope::Key, "ann", budget(1_000_000, Per::Day))];
    let mut under_way = ledger.hold(&accounts, Money(500), now()).await.unwrap();
    full(&ledger, FULL);
    let mut entered = 0;
    while !ledger.observe().unavailable {
        assert!(enters(&ledger).await, "it is in the tail");
        entered += 1;
        flush_soon(&ledger);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    under_way.begin(entry(400));
    assert!(under_way.settle().await);
    let refused = loop {
        match ledger.hold(&[], Money(0), now()).await {
            Ok(mut hold) => {
                hold.begin(entry(1));
                assert!(hold.settle().await);
                entered += 1;
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Unavailable);
    // Killed like this, it has them all; and so has one that can write again.
    let whole = folder.path().join("copy");
    fs::create_dir(&whole).unwrap();
    for file in fs::read_dir(folder.path()).unwrap().flatten() {
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), whole.join(file.file_name())).unwrap();
        }
    }
    let copy = Settings {
        store: Place::File(whole.join("ledger.db")),
        ..settings.clone()
    };
    let copy = Ledger::open(&copy, now()).unwrap();
    recovers(&ledger).await;
    assert!(ledger.close() && copy.close());
    let entries = "SELECT count(*) FROM entry WHERE \"end\" = 'complete'";
    assert_eq!(count(&folder, entries), entered + 1);
    assert_eq!(sql(&whole.join("ledger.db"), entries), entered + 1);
}

/// The thread need not wait for more.
fn flush_soon(ledger: &Ledger) {
    ledger.0.inner.with(|state| state.hurry = true);
}

#[tokio::test]
async fn when_the_tail_takes_nothing_the_file_is_waited_for() {
    let folder = folder();
    let ledger = open(&folder);
    let tail = ledger.0.inner.safe.tail().unwrap();
    tail.refuse();
    spend(&ledger, &[], 0, 7, now()).await;
    assert_eq!(count(&folder, "SELECT sum(cost) FROM entry"), 7);
}

#[test]
fn whoever_waits_for_a_block_while_the_file_is_locked_is_refused() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(1_000, Per::Day))];
    let other = Connection::open(folder.path().join("ledger.db")).unwrap();
    flush(&ledger);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = runtime().block_on(ledger.hold(&accounts, Money(1), now()));
    assert!(matches!(refused, Err(Refused::Unavailable)), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    flush(&ledger);
    assert!(
        runtime()
            .block_on(ledger.hold(&accounts, Money(1_000), now()))
            .is_ok()
    );
}

#[test]
fn a_second_gateway_waits_and_is_refused_while_reports_are_read_beside_the_first() {
    let folder = folder();
    let ledger = open(&folder);
    runtime().block_on(spend(&ledger, &[], 0, 7, now()));
    flush(&ledger);
    let path = folder.path().join("ledger.db");
    let rows = Report::read(&path, &[By::Key, By::Day, By::User], None).unwrap();
    let want = Row {
        by: vec!["ann".into(), "2024-02-29".into(), String::new()],
        entries: 1,
        used: [3, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
        cost: Money(7),
        ..Row::default()
    };
    assert_eq!(rows, [want]);
    assert_eq!(Report::read(&path, &[], Some(at(NOON + 1))).unwrap(), []);
    let copy = folder.path().join("copy.db");
    backup(&path, &copy).unwrap();
    assert!(matches!(
        backup(&path, &copy),
        Err(ReportError::Exists { .. })
    ));
    assert_eq!(Report::read(&copy, &[], None).unwrap()[0].cost, Money(7));
    let refused = Ledger::open(&settings(&folder), now()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }));
    assert!(refused.to_string().contains("ledger.db"), "{refused}");
    // One that leaves in time is waited for.
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        ledger.close()
    });
    assert!(open(&folder).close());
    assert!(leaving.join().unwrap());
}

#[test]
fn what_is_no_ledger_is_refused_and_left_as_it_is() {
    let folder = folder();
    let path = folder.path().join("ledger.db");
    let refusal = || Ledger::open(&settings(&folder), now()).unwrap_err();

    fs::write(
        &path,
        "These are my notes, and they are long enough to have a header. ".repeat(20),
    )
    .unwrap();
    let before = fs::read(&path).unwrap();
    assert!(
        matches!(refusal(), OpenError::Foreign { .. }),
        "{}",
        refusal()
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(&path).unwrap();

    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE mine (x)").unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    assert!(
        matches!(refusal(), OpenError::Foreign { .. }),
        "{}",
        refusal()
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(), OpenError::Folder { .. }));
    fs::remove_dir(&path).unwrap();

    assert!(open(&folder).close());
    let later = Connection::open(&path).unwrap();
    later.pragma_update(None, "user_version", 99).unwrap();
    drop(later);
    assert!(matches!(refusal(), OpenError::Newer { found: 99, .. }));
    let missing = Settings {
        store: Place::File(folder.path().join("none/ledger.db")),
        ..settings(&folder)
    };
    let refused = Ledger::open(&missing, now()).unwrap_err();
    assert!(matches!(refused, OpenError::Unwritable { .. }), "{refused}");
    assert!(matches!(
        Report::read(&folder.path().join("none.db"), &[], None),
        Err(ReportError::Missing { .. })
    ));
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let folder = folder();
    let path = folder.path().join("ledger.db");
    let ledger = open(&folder);
    runtime().block_on(async {
        for _ in 0..300 {
            spend(&ledger, &[], 0, 1, now()).await;
        }
    });
    // As a crash leaves it, but with all that is in the log brought into the file.
    ledger.crash();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    drop(conn);
    let mut bytes = fs::read(&path).unwrap();
    for byte in bytes.iter_mut().skip(2 * 4_096) {
        *byte = 0xa5;
    }
    fs::write(&path, &bytes).unwrap();
    let refused = Ledger::open(&settings(&folder), now()).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn old_entries_are_rolled_up_and_still_count() {
    let folder = folder();
    let ledger = open(&folder);
    let runtime = runtime();
    let total = [ledger.given(Scope::Key, "ann", budget(10_000, Per::Total))];
    runtime.block_on(async {
        for _ in 0..250 {
            spend(&ledger, &total, 2, 2, now()).await;
        }
    });
    // What is written together is rolled up together.
    flush(&ledger);
    let day = 86_400;
    let (much_later, later) = (at(NOON + 401 * day), at(NOON + 390 * day));
    runtime.block_on(spend(&ledger, &total, 5, 5, later));
    assert!(ledger.close());
    let path = folder.path().join("ledger.db");
    let by = [By::Team, By::Target, By::Day];
    let before = Report::read(&path, &by, None).unwrap();
    let view = "SELECT sum(replace(usd, '.', '')) FROM spend_by_day";
    assert_eq!((before.len(), count(&folder, view)), (2, 505));

    let ledger = Ledger::open(&settings(&folder), much_later).unwrap();
    flush(&ledger);
    assert_eq!(count(&folder, "SELECT count(*) FROM entry"), 1);
    assert_eq!(count(&folder, "SELECT count(*) FROM past"), 1);
    assert_eq!(Report::read(&path, &by, None).unwrap(), before);
    assert_eq!(count(&folder, view), 505);
    assert_eq!(
        count(
            &folder,
            "SELECT amount FROM spent WHERE scope = 0 AND hour = 0"
        ),
        500
    );
    let total = [ledger.given(Scope::Key, "ann", budget(10_000, Per::Total))];
    let _hold = runtime
        .block_on(ledger.hold(&total, Money(1), much_later))
        .unwrap();
    assert_eq!(ledger.left(&total[0], much_later), Some(Money(9_494)));
}

#[test]
fn people_read_entries_in_words_of_their_own() {
    let folder = folder();
    let ledger = open(&folder);
    runtime().block_on(spend(
        &ledger,
        &[],
        0,
        1_234_567_891,
        at(NOON) + Duration::from_millis(7),
    ));
    assert!(ledger.close());
    let conn = Connection::open(folder.path().join("ledger.db")).unwrap();
    let row: (String, String, String, i64, String) = conn
        .query_row(
            "SELECT at, usd, request_id, \"output\", scope FROM entries",
            [],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            },
        )
        .unwrap();
    let want = ("2024-02-29T13:00:00.007Z", "1.234567891", "r", 4, "request");
    assert_eq!((&*row.0, &*row.1, &*row.2, row.3, &*row.4), want);
    let day: (String, String) = conn
        .query_row("SELECT day, usd FROM spend_by_day", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((&*day.0, &*day.1), ("2024-02-29", "1.234567891"));
}

#[test]
fn a_ledger_in_memory_does_the_same() {
    let folder = folder();
    let ledger = Ledger::open(
        &Settings {
            store: Place::Memory,
            ..settings(&folder)
        },
        now(),
    )
    .unwrap();
    let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Day))];
    runtime().block_on(spend(&ledger, &accounts, 100, 40, now()));
    assert_eq!(ledger.left(&accounts[0], now()), Some(Money(60)));
    assert!(ledger.close());
}

#[tokio::test]
async fn every_seat_is_free_again_when_its_hold_has_ended() {
    let folder = folder();
    let settings = Settings {
        seats: 2,
        ..settings(&folder)
    };
    let ledger = Ledger::open(&settings, now()).unwrap();
    let mut first = ledger.hold(&[], Money(0), now()).await.unwrap();
    let second = ledger.hold(&[], Money(0), now()).await.unwrap();
    assert!(matches!(
        ledger.hold(&[], Money(0), now()).await,
        Err(Refused::Full)
    ));
    drop(second);
    assert_eq!(ledger.observe().seated, 1);
    first.begin(entry(1));
    assert!(first.settle().await);
    assert!(first.settle().await, "once more is nothing more");
    drop(first);
    assert_eq!(ledger.observe().seated, 0);
    flush(&ledger);
    assert_eq!(ledger.observe().written, 1);
}

/// What is logged while something is done on this thread.
pub(super) fn logged<R>(folder: &tempfile::TempDir, steps: impl FnOnce() -> R) -> (R, String) {
    let path = folder.path().join("log");
    let file = Arc::new(fs::File::create(&path).unwrap());
    let lines = tracing_subscriber::fmt().with_writer(file).finish();
    let done = tracing::subscriber::with_default(lines, steps);
    (done, fs::read_to_string(path).unwrap())
}

/// What the documentation says about a clock that was wrong.
fn remedy() -> &'static str {
    let text = include_str!("../../docs/budgets.md");
    let (_, rest) = text.split_once("```sql\n").unwrap();
    rest.split_once("```").unwrap().0
}

/// Spends three of a hundred an hour, and ends. Gives what was left before.
fn an_hour(ledger: &Ledger, now: SystemTime) -> u64 {
    let ann = [ledger.given(Scope::Key, "ann", budget(100, Per::Hour))];
    runtime().block_on(spend(ledger, &ann, 3, 3, now));
    let left = ledger.left(&ann[0], now).unwrap();
    assert!(ledger.close());
    left.0 + 3
}

/// The remedy goes by the machine's clock, so this does, too.
#[test]
fn a_clock_that_was_far_ahead_is_warned_of_and_can_be_put_right() {
    let folder = folder();
    let at = |hours: u64| SystemTime::now() + Duration::from_hours(hours);
    let start = |hours| {
        let opened = logged(&folder, || Ledger::open(&settings(&folder), at(hours)));
        (opened.0.unwrap(), opened.1)
    };
    // It jumps ahead while the gateway runs.
    let (ledger, told) = start(0);
    assert_eq!((an_hour(&ledger, at(9_000)), &*told), (100, ""));
    // The clock is right again: nothing begins anew, and that is said.
    for (hours, left) in [(0, 97), (2, 94)] {
        let (ledger, told) = start(hours);
        assert!(told.contains("WARN"), "{told}");
        assert!(told.contains("A clock that was wrong"), "{told}");
        assert_eq!(an_hour(&ledger, at(hours)), left);
    }
    let db = Connection::open(folder.path().join("ledger.db")).unwrap();
    db.execute_batch(remedy()).unwrap();
    drop(db);
    for (hours, left) in [(2, 100), (3, 100), (27, 100)] {
        let (ledger, told) = start(hours);
        assert_eq!((an_hour(&ledger, at(hours)), &*told), (left, ""));
    }
    // All that was spent counts, now.
    let spent = "SELECT sum(amount) FROM spent WHERE scope = 0";
    assert_eq!(count(&folder, spent), 6 * 3);
    let later = "SELECT count(*) FROM spent WHERE hour > strftime('%s', 'now') / 3600 + 28";
    assert_eq!(count(&folder, later), 0);
    let entries =
        "SELECT count(*) FROM entry WHERE at > (strftime('%s', 'now') + 28 * 3600) * 1000";
    assert_eq!(count(&folder, entries), 0);
    // A day ahead is no clock that was wrong.
    let (_ledger, told) = start(4);
    assert_eq!(told, "");
}
