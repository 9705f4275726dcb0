//! Many accounts, of which few are used: which keep their blocks, and which are told of.

use super::state::IDLE;
use super::tests::{NOON, at, budget, count, flush, folder, now, open, pass, spend};
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
async fn an_account_that_is_used_now_and_then_keeps_its_block_and_gives_it_back_after_that() {
    let folder = folder();
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(10_000, Per::Day))];
    for _ in 0..5 {
        drop(ledger.hold(&accounts, Money(30), now()).await.unwrap());
        pass(&ledger, IDLE - 1, now());
        flush(&ledger);
        assert_eq!(count(&folder, "SELECT sum(amount) FROM lease"), 100);
    }
    pass(&ledger, IDLE, now());
    flush(&ledger);
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
}

#[tokio::test]
async fn balances_are_those_of_the_window_that_it_is_also_where_nobody_spends() {
    let ledger = open(&folder());
    let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Day))];
    spend(&ledger, &accounts, 60, 60, now()).await;
    pass(&ledger, 2 * IDLE, now());
    let told = || {
        let found = ledger.balances(1);
        let it = found.first().unwrap();
        (it.spent.0, it.held.0, it.left.0)
    };
    assert_eq!(told(), (60, 0, 40));
    ledger.tick(at(NOON + 86_400));
    assert_eq!(told(), (0, 0, 100));
}

#[tokio::test]
async fn however_many_keys_there_are_the_balances_of_teams_are_told() {
    let ledger = open(&folder());
    let keys = (0..2_000).map(|n| ledger.account(Scope::Key, &format!("key-{n}")));
    let mut accounts: Vec<_> = keys.collect();
    accounts.push(ledger.account(Scope::Team, "late"));
    let budgets: Vec<_> = accounts
        .iter()
        .map(|it| (Arc::clone(it), budget(100, Per::Day)))
        .collect();
    ledger.enforce(&budgets);
    drop(ledger.hold(&accounts, Money(1), now()).await.unwrap());
    let names = |most| -> Vec<String> {
        let found = ledger.balances(most);
        found
            .iter()
            .map(|it| it.account.name().to_string())
            .collect()
    };
    assert_eq!(names(2), ["key-0", "key-1", "late"]);
    assert_eq!(names(usize::MAX).len(), 2_001);
}
