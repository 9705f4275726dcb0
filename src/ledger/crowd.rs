//! Many accounts, each of which is used now and then: when do they give their blocks back?

use super::state::IDLE;
use super::tests::{budget, count, flush, folder, now, open, pass};
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
