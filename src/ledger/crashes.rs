//! The ledger after a crash: what stood in its tail, and what did not. And what comes when nobody waits for it any more.

use std::fs;

use rusqlite::Connection;

use super::faults::logged;
use super::item::{Granted, Item};
use super::state::{Parts, Said, State, Taken, Want};
use super::tests::{NOON, at, budget, count, entry, flush, folder, now, open, settings, spend};
use super::trials::runtime;
use super::window::hour_of;
use super::*;

#[tokio::test]
async fn what_is_settled_survives_a_crash_at_once_and_is_entered_once() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(100_000, Per::Month))];
    spend(&ledger, &accounts, 10, 10, now()).await;
    flush(&ledger);
    // Nothing more reaches the file.
    let other = Connection::open(folder.path().join("ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    spend(&ledger, &accounts, 10, 5, now()).await;
    let mut left = ledger.hold(&accounts, Money(10), now()).await.unwrap();
    left.begin(entry(3));
    drop(left);
    ledger.crash();
    other.execute_batch("ROLLBACK").unwrap();
    drop(ledger);
    for _ in 0..3 {
        let ledger = open(&folder);
        let entries = "SELECT count(*) FROM entry WHERE \"end\" = 'complete'";
        assert_eq!(count(&folder, entries), 3);
        let spent = "SELECT amount FROM spent WHERE scope = 0";
        assert_eq!(
            count(&folder, spent),
            80,
            "18, and what was left of the block"
        );
        ledger.crash();
    }
}

#[test]
fn of_many_accounts_a_crash_is_told_in_few_lines() {
    let folder = folder();
    let ledger = open(&folder);
    for n in 0..50 {
        let name = format!("key-{n}");
        let account = ledger.given(Scope::Key, &name, budget(100_000, Per::Month));
        runtime().block_on(spend(&ledger, &[account], 10, 0, now()));
    }
    flush(&ledger);
    ledger.crash();
    let (_ledger, told) = logged(&folder, || open(&folder));
    assert_eq!(told.matches("unsettled, which count as spent").count(), 20);
    assert_eq!(told.matches("30 more accounts").count(), 1);
    assert_eq!(told.lines().count(), 21, "{told}");
    let charged = "SELECT count(*) FROM entry WHERE \"end\" = 'crashed' AND cost = 80";
    assert_eq!(count(&folder, charged), 50);
}

#[tokio::test]
async fn what_is_settled_after_the_end_is_entered_at_the_next_start() {
    let folder = folder();
    let ledger = open(&folder);
    let mut late = ledger.hold(&[], Money(0), now()).await.unwrap();
    assert!(ledger.close());
    late.begin(entry(3));
    assert!(late.settle().await);
    drop((late, ledger));
    assert!(open(&folder).close());
    assert_eq!(count(&folder, "SELECT sum(cost) FROM entry"), 3);
}

#[tokio::test]
async fn the_tail_stays_short_and_loses_nothing_when_its_places_change() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(1_000_000, Per::Month))];
    let length = || -> u64 {
        let files = ["ledger.db.tail0", "ledger.db.tail1"].map(|name| folder.path().join(name));
        files
            .map(|file| fs::metadata(file).unwrap().len())
            .iter()
            .sum()
    };
    for _ in 0..30_000 {
        spend(&ledger, &accounts, 2, 1, now()).await;
    }
    // A line has more than a hundred bytes.
    let longest = length();
    assert!(longest < 30_000 * 100, "{longest}");
    ledger.crash();
    drop(ledger);
    assert!(open(&folder).close());
    assert_eq!(length(), 0);
    let entries = "SELECT count(*) FROM entry WHERE \"end\" = 'complete'";
    assert_eq!(count(&folder, entries), 30_000);
    let once = "SELECT count(DISTINCT id) FROM entry WHERE \"end\" = 'complete'";
    assert_eq!(count(&folder, once), 30_000);
}

#[test]
fn a_tail_of_another_ledger_is_refused_and_nothing_is_changed() {
    let folder = folder();
    let ledger = open(&folder);
    let path = folder.path().join("ledger.db");
    // Nothing reaches the file.
    flush(&ledger);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    runtime().block_on(spend(&ledger, &[], 0, 7, now()));
    ledger.crash();
    drop((ledger, other));
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = fs::remove_file(folder.path().join(file));
    }
    let tail = folder.path().join("ledger.db.tail0");
    let before = fs::read(&tail).unwrap();
    let refused = Ledger::open(&settings(&folder), now()).unwrap_err();
    assert!(matches!(refused, OpenError::Stray { .. }), "{refused}");
    assert!(refused.to_string().contains("ledger.db.tail0"), "{refused}");
    assert_eq!(fs::read(&tail).unwrap(), before);
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        0,
        "nothing was made of it"
    );
}

#[test]
fn a_block_that_comes_after_its_window_is_given_back() {
    let mut state = State::new(&settings(&folder()), hour_of(now()), 0);
    let account = state.account(Scope::Key, "ann");
    state.enforce(&[(account.clone(), budget(100, Per::Hour))]);
    let wants = [Want {
        account: &account,
        amount: 10,
    }];
    let asked = |state: &mut State| match state.queue.pop_front() {
        Some(Item::Draw(draw)) => draw,
        _ => panic!("the store was not asked"),
    };
    let spent = Granted {
        block: 0,
        spent: Some(90),
    };
    let draw = asked(&mut state);
    state.granted(&draw, spent);
    let taken = state.take(&wants, hour_of(now()), &mut Parts::new(), &mut Said::new());
    assert!(matches!(taken, Taken::Wait(0)));
    let draw = asked(&mut state);
    let hour = state.reach(at(NOON + 3_600));
    let taken = state.take(&wants, hour, &mut Parts::new(), &mut Said::new());
    assert!(matches!(taken, Taken::Wait(0)));
    state.queue.clear();
    let answer = Granted {
        block: 10,
        spent: None,
    };
    state.granted(&draw, answer);
    let Some(Item::Back(cut)) = state.queue.pop_front() else {
        panic!("it was kept");
    };
    assert_eq!((cut.amount, cut.start), (10, draw.start));
    let balance = state.balance(&account, at(NOON + 3_600));
    assert_eq!(balance.map(|it| it.left), Some(Money(100)));
}

#[test]
fn who_settles_faster_than_the_file_is_written_waits_and_is_not_refused() {
    let folder = folder();
    let settings = Settings {
        backlog: 600,
        ..settings(&folder)
    };
    let ledger = Ledger::open(&settings, now()).unwrap();
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime(), async {
        let callers = (0..200).map(|_| {
            let ledger = ledger.clone();
            tokio::task::spawn_local(async move {
                for _ in 0..50 {
                    spend(&ledger, &[], 0, 1, now()).await;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
    });
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT count(*) FROM entry"), 10_000);
}
