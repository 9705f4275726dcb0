//! The ledger as a whole, over real files. Time is an argument, so that no test waits for a window's end.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::state::IDLE;
use super::*;

/// 2024-02-29 13:00, a Thursday.
pub(super) const NOON: u64 = 1_709_211_600;

pub(super) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn now() -> SystemTime {
    at(NOON)
}

pub(super) fn settings(folder: &TempDir) -> Settings {
    Settings {
        store: Place::File(folder.path().join("ledger.db")),
        durability: Durability::Process,
        settle_wait: Duration::from_secs(5),
        keep: Duration::from_secs(400 * 86_400),
        seats: 10_000,
        backlog: 10_000,
    }
}

pub(super) fn open(folder: &TempDir) -> Ledger {
    Ledger::open(&settings(folder), now()).unwrap()
}

pub(super) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(super) fn budget(limit: u64, per: Per) -> Budget {
    Budget {
        limit: Money(limit),
        per,
        warn: None,
    }
}

pub(super) fn entry(cost: u64) -> Entry {
    Entry {
        request: "r".into(),
        attempt: 1,
        at: now(),
        api: "chat".into(),
        key: "ann".into(),
        team: Some("research".into()),
        model: "fast".into(),
        target: "groq/llama".into(),
        provider: "groq".into(),
        usage: Some(Usage {
            input: 3,
            output: 4,
            ..Usage::default()
        }),
        cost: Some(Money(cost)),
        estimated: false,
        end: "complete".into(),
        prices: "v1".into(),
        user: None,
        tag: None,
        response_id: None,
    }
}

/// Spends so much, out of a hold of so much.
pub(super) async fn spend(
    ledger: &Ledger,
    accounts: &[Account],
    amount: u64,
    cost: u64,
    now: SystemTime,
) {
    let mut hold = ledger.hold(accounts, Money(amount), now).await.unwrap();
    hold.begin(entry(cost));
    assert!(hold.settle().await);
}

pub(super) fn left(refused: Result<Box<Hold>, Refused>) -> u64 {
    match refused {
        Err(Refused::Short { left, .. }) => left.0,
        other => panic!("{other:?}"),
    }
}

/// Waits until all is written.
pub(super) fn flush(ledger: &Ledger) {
    for _ in 0..2_000 {
        let seen = ledger.0.inner.with(|state| {
            state.hurry |= !state.queue.is_empty();
            state.waiting() == 0 && state.wakes_at == Some(1)
        });
        if seen {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the ledger does not come to rest");
}

/// So many ticks.
pub(super) fn pass(ledger: &Ledger, ticks: u64, now: SystemTime) {
    for _ in 0..ticks {
        ledger.tick(now);
    }
}

pub(super) fn sql(file: &Path, query: &str) -> i64 {
    let conn = rusqlite::Connection::open(file).unwrap();
    conn.query_row(query, [], |row| row.get::<_, Option<i64>>(0))
        .unwrap()
        .unwrap_or_default()
}

pub(super) fn count(folder: &TempDir, query: &str) -> i64 {
    sql(&folder.path().join("ledger.db"), query)
}

#[tokio::test]
async fn what_is_held_cannot_be_held_twice_and_what_is_not_spent_comes_back() {
    let folder = folder();
    let ledger = open(&folder);
    let ann = ledger.given(Scope::Key, "ann", budget(100, Per::Day));
    flush(&ledger);
    assert_eq!(ledger.left(&ann, now()), Some(Money(100)));
    let accounts = [ann.clone()];
    let first = ledger.hold(&accounts, Money(60), now()).await.unwrap();
    assert_eq!(ledger.left(&ann, now()), Some(Money(40)));
    assert_eq!(left(ledger.hold(&accounts, Money(41), now()).await), 40);
    let second = ledger.hold(&accounts, Money(40), now()).await.unwrap();
    assert_eq!(left(ledger.hold(&accounts, Money(1), now()).await), 0);
    drop((first, second));
    assert_eq!(ledger.left(&ann, now()), Some(Money(100)));
    spend(&ledger, &accounts, 100, 30, now()).await;
    assert_eq!(ledger.left(&ann, now()), Some(Money(70)));
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT sum(cost) FROM entry"), 30);
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
    assert_eq!(
        count(&folder, "SELECT count(*) FROM spent WHERE amount = 30"),
        4
    );
}

#[tokio::test]
async fn a_refusal_names_the_account_that_lacks_most_and_takes_from_none() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [
        ledger.given(Scope::Key, "ann", budget(100, Per::Day)),
        ledger.given(Scope::Team, "research", budget(20, Per::Hour)),
        ledger.given(Scope::Total, "whatever", budget(50, Per::Total)),
    ];
    let _warm = ledger.hold(&accounts, Money(1), now()).await.unwrap();
    let refused = ledger.hold(&accounts, Money(60), now()).await.unwrap_err();
    let want = Refused::Short {
        scope: Scope::Team,
        name: "research".into(),
        limit: Money(20),
        left: Money(19),
        resets: Some(at(NOON + 3_600)),
    };
    assert_eq!(refused, want);
    for account in &accounts[..1] {
        assert_eq!(ledger.left(account, now()), Some(Money(99)));
    }
    assert!(refused.to_string().contains("team research"), "{refused}");
}

#[tokio::test]
async fn a_clean_restart_loses_nothing_and_charges_nothing() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(1_000, Per::Month))];
    spend(&ledger, &accounts, 500, 10, now()).await;
    drop(ledger.hold(&accounts, Money(5), now()).await.unwrap());
    assert!(ledger.close());
    assert!(matches!(
        ledger.hold(&accounts, Money(1), now()).await,
        Err(Refused::Unavailable)
    ));
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(1_000, Per::Month))];
    assert_eq!(left(ledger.hold(&accounts, Money(991), now()).await), 990);
    assert!(ledger.hold(&accounts, Money(990), now()).await.is_ok());
    assert_eq!(count(&folder, "SELECT count(*) FROM entry"), 1);
}

#[tokio::test]
async fn a_crash_charges_what_was_held_and_what_was_left_of_the_block() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [
        ledger.given(Scope::Key, "ann", budget(10_000, Per::Month)),
        ledger.given(Scope::Total, "", budget(100_000, Per::Month)),
    ];
    spend(&ledger, &accounts, 50, 50, now()).await;
    let hold = ledger.hold(&accounts, Money(40), now()).await.unwrap();
    ledger.crash();
    drop(hold);
    drop(ledger);
    // A hundredth, 100, and what eight requests need, 400, were drawn, of which 50 were spent.
    let ledger = open(&folder);
    let charged =
        "SELECT sum(cost) FROM entry WHERE \"end\" = 'crashed' AND estimated AND scope = ";
    assert_eq!(
        count(&folder, &format!("{charged} 'key' AND key = 'ann'")),
        50
    );
    assert_eq!(count(&folder, &format!("{charged} 'total'")), 350);
    let accounts = [ledger.given(Scope::Key, "ann", budget(10_000, Per::Month))];
    assert_eq!(
        left(ledger.hold(&accounts, Money(9_901), now()).await),
        9_900
    );
    ledger.crash();
    // What was asked for in vain was drawn all the same, and nothing is charged twice.
    let again = count(&folder, &format!("{charged} 'key'"));
    assert_eq!(again, 50);
}

#[tokio::test]
async fn tries_are_covered_one_by_one_and_each_provider_pays_its_own() {
    let folder = folder();
    let ledger = open(&folder);
    let ann = ledger.given(Scope::Key, "ann", budget(100, Per::Day));
    let groq = ledger.given(Scope::Provider, "groq", budget(30, Per::Day));
    let other = ledger.given(Scope::Provider, "other", budget(25, Per::Day));
    let mut hold = ledger
        .hold(std::slice::from_ref(&ann), Money(20), now())
        .await
        .unwrap();
    hold.cover(&[&other], Money(20), now()).await.unwrap();
    assert_eq!(ledger.left(&other, now()), Some(Money(5)));
    hold.begin(Entry {
        provider: "other".into(),
        ..entry(15)
    });
    hold.bill();
    // The first try may have cost 15: what is held must be 35 now.
    hold.cover(&[&groq], Money(20), now()).await.unwrap();
    assert_eq!(hold.held(), Money(35));
    assert_eq!(ledger.left(&ann, now()), Some(Money(65)));
    assert_eq!(ledger.left(&other, now()), Some(Money(10)));
    assert_eq!(ledger.left(&groq, now()), Some(Money(10)));
    hold.begin(entry(7));
    hold.waive();
    let refused = hold.cover(&[&groq], Money(31), now()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::Short {
                scope: Scope::Provider,
                left: Money(10),
                ..
            }
        ),
        "{refused:?}"
    );
    assert_eq!(hold.held(), Money(35), "a refusal leaves it as it was");
    hold.cover(&[], Money(85), now()).await.unwrap();
    assert_eq!(ledger.left(&groq, now()), Some(Money(30)));
    assert!(matches!(
        hold.cover(&[], Money(86), now()).await,
        Err(Refused::Short { .. })
    ));
    hold.begin(entry(4));
    assert!(hold.settle().await);
    assert_eq!(ledger.left(&ann, now()), Some(Money(81)));
    assert_eq!(ledger.left(&other, now()), Some(Money(10)));
    assert_eq!(
        ledger.left(&groq, now()),
        Some(Money(26)),
        "counted without a part"
    );
    drop(hold);
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT count(*) FROM entry"), 2);
    assert_eq!(
        count(&folder, "SELECT amount FROM spent WHERE name = 'groq'"),
        4
    );
    assert_eq!(
        count(&folder, "SELECT amount FROM spent WHERE name = 'other'"),
        15
    );
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
}

#[tokio::test]
async fn what_costs_more_than_was_held_is_recorded_whole() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Day))];
    let other = ledger.hold(&accounts, Money(20), now()).await.unwrap();
    spend(&ledger, &accounts, 10, 150, now()).await;
    assert_eq!(ledger.left(&accounts[0], now()), Some(Money(0)));
    assert_eq!(left(ledger.hold(&accounts, Money(1), now()).await), 0);
    flush(&ledger);
    let lease = "SELECT sum(amount) FROM lease";
    assert!(count(&folder, lease) >= 20, "the other is still held");
    ledger.crash();
    drop(other);
    open(&folder);
    assert_eq!(
        count(&folder, "SELECT amount FROM spent WHERE scope = 0"),
        170
    );
}

#[tokio::test]
async fn a_window_that_turns_forgets_what_is_held_in_the_old_one() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Hour))];
    let mut old = ledger.hold(&accounts, Money(80), now()).await.unwrap();
    let late = ledger.hold(&accounts, Money(15), now()).await.unwrap();
    let next = at(NOON + 3_600);
    assert_eq!(ledger.left(&accounts[0], next), Some(Money(100)));
    let new = ledger.hold(&accounts, Money(100), next).await.unwrap();
    old.begin(entry(70));
    assert!(old.settle().await);
    drop(late);
    assert_eq!(ledger.left(&accounts[0], next), Some(Money(0)));
    // A clock that jumps back opens nothing.
    assert_eq!(left(ledger.hold(&accounts, Money(1), now()).await), 0);
    drop(new);
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
    assert_eq!(
        count(&folder, "SELECT amount FROM spent WHERE scope = 0"),
        70
    );
    let hour = i64::try_from(NOON / 3_600).unwrap();
    assert_eq!(
        count(&folder, "SELECT hour FROM spent WHERE scope = 0"),
        hour
    );
    // Nor does one that jumps back over a restart.
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Hour))];
    spend(&ledger, &accounts, 100, 100, now()).await;
    flush(&ledger);
    assert_eq!(
        count(&folder, "SELECT max(hour) FROM spent WHERE scope = 0"),
        hour + 1
    );
}

#[tokio::test]
async fn a_hold_that_is_raised_after_its_window_moves_to_the_new_one() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [
        ledger.given(Scope::Key, "ann", budget(100, Per::Hour)),
        ledger.given(Scope::Team, "research", budget(300, Per::Day)),
    ];
    let next = at(NOON + 3_600);
    let mut hold = ledger.hold(&accounts, Money(60), now()).await.unwrap();
    hold.begin(entry(60));
    hold.bill();
    hold.cover(&[], Money(30), next).await.unwrap();
    assert_eq!(ledger.left(&accounts[0], next), Some(Money(10)));
    assert_eq!(ledger.left(&accounts[1], next), Some(Money(210)));
    hold.begin(entry(20));
    assert!(hold.settle().await);
    assert_eq!(ledger.left(&accounts[0], next), Some(Money(20)));
    assert_eq!(ledger.left(&accounts[1], next), Some(Money(220)));
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
    let hour = i64::try_from(NOON / 3_600).unwrap() + 1;
    assert_eq!(
        count(
            &folder,
            &format!("SELECT amount FROM spent WHERE scope = 0 AND hour = {hour}")
        ),
        80
    );
}

#[tokio::test]
async fn a_reload_keeps_what_was_spent() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Day))];
    spend(&ledger, &accounts, 30, 30, now()).await;
    let held = ledger.hold(&accounts, Money(20), now()).await.unwrap();
    // The same account, with less than is held and spent.
    let same = ledger.given(Scope::Key, "ann", budget(40, Per::Day));
    assert!(same == accounts[0]);
    assert_eq!(left(ledger.hold(&accounts, Money(1), now()).await), 0);
    ledger.given(Scope::Key, "ann", budget(200, Per::Day));
    assert_eq!(left(ledger.hold(&accounts, Money(151), now()).await), 150);
    // The next hour, counted by the hour: only what is still held may fall into it.
    let next = at(NOON + 3_600);
    spend(&ledger, &accounts, 5, 5, next).await;
    ledger.given(Scope::Key, "ann", budget(100, Per::Hour));
    assert_eq!(left(ledger.hold(&accounts, Money(76), next).await), 75);
    drop(held);
    assert_eq!(left(ledger.hold(&accounts, Money(96), next).await), 95);
    ledger.given(Scope::Key, "ann", budget(100, Per::Month));
    assert_eq!(left(ledger.hold(&accounts, Money(66), next).await), 65);
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
}

#[tokio::test]
async fn a_key_that_is_given_a_budget_later_has_spent_what_it_spent() {
    let folder = folder();
    let ledger = open(&folder);
    spend(&ledger, &[], 0, 30, now()).await;
    let mut under_way = ledger.hold(&[], Money(0), now()).await.unwrap();
    let ann = [ledger.given(Scope::Key, "ann", budget(100, Per::Day))];
    let _first = ledger.hold(&ann, Money(1), now()).await.unwrap();
    under_way.begin(entry(9));
    drop(under_way);
    assert_eq!(ledger.left(&ann[0], now()), Some(Money(60)));
}

#[tokio::test]
async fn whoever_stops_waiting_leaves_everything_as_it_was() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Day))];
    let mut context = Context::from_waker(Waker::noop());
    // The store cannot answer while another writes, so that it is certain who waits.
    let other = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    flush(&ledger);
    {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let hold = pin!(ledger.hold(&accounts, Money(70), now()));
        assert!(matches!(hold.poll(&mut context), Poll::Pending));
    }
    other.execute_batch("ROLLBACK").unwrap();
    flush(&ledger);
    let mut hold = ledger.hold(&accounts, Money(10), now()).await.unwrap();
    pass(&ledger, IDLE, now());
    flush(&ledger);
    {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let cover = pin!(hold.cover(&[], Money(90), now()));
        assert!(matches!(cover.poll(&mut context), Poll::Pending));
    }
    assert_eq!(hold.held(), Money(10));
    assert_eq!(ledger.left(&accounts[0], now()), Some(Money(90)));
    other.execute_batch("ROLLBACK").unwrap();
    flush(&ledger);
    hold.cover(&[], Money(90), now()).await.unwrap();
    drop(hold);
    assert_eq!(ledger.left(&accounts[0], now()), Some(Money(100)));
    assert_eq!(ledger.observe().seated, 0);
    assert!(ledger.close());
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
    assert_eq!(count(&folder, "SELECT count(*) FROM entry"), 0);
}
