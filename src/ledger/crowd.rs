//! Many accounts, each of which is used now and then: how large are their blocks, and when do they give them back?

use proptest::prelude::*;

use super::book::share;
use super::state::{IDLE, REST};
use super::tests::{budget, count, flush, folder, now, open, pass, spend};
use super::*;

#[tokio::test]
async fn an_account_that_is_not_used_gives_its_block_back() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(10_000, Per::Day))];
    let held = ledger.hold(&accounts, Money(30), now()).await.unwrap();
    pass(&ledger, IDLE - 1, now());
    flush(&ledger);
    assert_eq!(count(&folder, "SELECT sum(amount) FROM lease"), 100);
    pass(&ledger, 1, now());
    flush(&ledger);
    assert_eq!(count(&folder, "SELECT sum(amount) FROM lease"), 30);
    drop(held);
    pass(&ledger, IDLE, now());
    flush(&ledger);
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
}

#[tokio::test]
async fn an_account_that_is_used_every_ten_seconds_keeps_its_block_and_gives_it_back_after_that() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(10_000, Per::Day))];
    for _ in 0..10 {
        drop(ledger.hold(&accounts, Money(30), now()).await.unwrap());
        pass(&ledger, 40, now());
        flush(&ledger);
        assert_eq!(count(&folder, "SELECT sum(amount) FROM lease"), 100);
    }
    pass(&ledger, 2 * IDLE, now());
    flush(&ledger);
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
}

#[tokio::test]
async fn what_many_needed_at_once_is_given_back_soon_and_the_rest_is_kept() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(10_000, Per::Day))];
    let mut holds = Vec::new();
    for _ in 0..50 {
        holds.push(ledger.hold(&accounts, Money(30), now()).await.unwrap());
    }
    drop(holds);
    let drawn = || {
        flush(&ledger);
        count(&folder, "SELECT sum(amount) FROM lease")
    };
    assert!(drawn() >= 1_500);
    pass(&ledger, REST, now());
    assert_eq!(drawn(), 100);
    pass(&ledger, IDLE - REST - 1, now());
    assert_eq!(drawn(), 100);
    pass(&ledger, REST, now());
    assert_eq!(drawn(), 0);
}

#[tokio::test]
async fn blocks_begin_small_and_double_up_to_a_hundredth() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(100_000, Per::Month))];
    let drawn = || {
        flush(&ledger);
        count(&folder, "SELECT sum(amount) FROM lease")
    };
    let (mut blocks, mut before) = (Vec::new(), 0);
    for _ in 0..100 {
        spend(&ledger, &accounts, 10, 10, now()).await;
        let after = drawn();
        if after > before - 10 {
            blocks.push(after + 10 - before);
        }
        before = after;
    }
    assert_eq!(blocks, [80, 160, 320, 640]);
    for _ in 0..200 {
        spend(&ledger, &accounts, 10, 10, now()).await;
    }
    let left = drawn();
    assert!((1..=980).contains(&left), "{left} of 97,000 that are free");
    // Who was away begins anew.
    pass(&ledger, 2 * IDLE, now());
    assert_eq!(drawn(), 0);
    drop(ledger.hold(&accounts, Money(10), now()).await.unwrap());
    assert_eq!(drawn(), 80);
}

#[tokio::test]
async fn a_crash_charges_little_to_who_spent_little() {
    let folder = folder();
    let ledger = open(&folder);
    let account = ledger.given(Scope::Key, "ann", budget(1_000_000, Per::Month));
    spend(&ledger, &[account], 100, 30, now()).await;
    flush(&ledger);
    ledger.crash();
    let ledger = open(&folder);
    let spent = "SELECT sum(amount) FROM spent WHERE scope = 0";
    assert_eq!(count(&folder, spent), 800, "a hundredth would be 10,000");
    assert!(ledger.close());
}

#[test]
fn many_accounts_stay_what_they_are_while_they_become_more() {
    let folder = folder();
    let ledger = open(&folder);
    // So many that their memory grows from small pages to large ones.
    let all = (1..=20_000).map(|n| {
        let account = ledger.account(Scope::Key, &format!("key-{n}"));
        (account, budget(n, Per::Day))
    });
    let all: Vec<_> = all.collect();
    ledger.enforce(&all);
    ledger.0.inner.with(|state| {
        for (book, (account, budget)) in state.books.iter().zip(&all) {
            assert_eq!((&book.seldom.account, book.budget), (account, *budget));
        }
        assert_eq!(state.books.len(), all.len());
    });
}

proptest! {
    #[test]
    fn a_block_is_enough_and_no_more_than_a_hundredth(free: u64, lacking: u64, last: u64, shift in 0..64) {
        let (lacking, last) = (lacking >> shift, last >> shift);
        let block = share(free, lacking, last);
        prop_assert!(block <= free);
        prop_assert!(block >= lacking.min(free));
        prop_assert!(block <= lacking.max(free / 100));
        prop_assert!(block <= lacking.saturating_mul(8).max(last.saturating_mul(2)));
    }
}
