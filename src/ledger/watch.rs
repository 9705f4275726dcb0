//! What is left of the budgets, for those who only look? Known from the start, and looked at a few at a time.
//!
//! So many as fit into a graph, and no more: those that many share first, then as many keys' as there is room for.

use super::book::Known;
use super::item::{Amount, Draw, Item};
use super::state::{State, Stop};
use super::{Account, Balance, Scope};

/// So many budgets are looked at.
const MOST: usize = 1_000;
/// So many at once, under the lock that every request needs: for some microseconds.
const AT_ONCE: usize = 100;
/// Whose come first.
const ORDER: [Scope; 4] = [Scope::Total, Scope::Provider, Scope::Team, Scope::Key];

impl State {
    /// Chooses the budgets that are looked at, of those in force.
    pub(super) fn watch(&mut self) {
        let books = &self.books;
        let in_force = |scope| {
            let books = books.iter().filter(|book| book.in_force);
            books.filter(move |book| book.seldom.account.scope == scope)
        };
        let first = ORDER.into_iter().flat_map(in_force).take(MOST);
        self.watched = first.map(|book| book.seldom.account.id).collect();
        for n in 0..self.watched.len() {
            self.look(n);
        }
    }

    /// One more, if there is room for it: all of them are not gone through for one.
    pub(super) fn watch_also(&mut self, account: &Account) {
        if ORDER.contains(&account.scope) && self.watched.len() < MOST {
            self.watched.push(account.id);
            self.look(self.watched.len() - 1);
        }
    }

    /// Adds the balances of some that are looked at, from a place in their list on, if they are known. Gives the place of
    /// the next; none if there is none.
    pub(super) fn see(&mut self, from: usize, seen: &mut Vec<Balance>) -> Option<usize> {
        let to = self.watched.len().min(from + AT_ONCE);
        seen.extend((from..to).filter_map(|n| self.look(n)));
        (to < self.watched.len()).then_some(to)
    }

    /// One balance, in the window of now. What was spent is asked for if it is not known.
    fn look(&mut self, n: usize) -> Option<Balance> {
        let (id, hour) = (*self.watched.get(n)?, self.hour);
        let is_over = self.stop != Stop::No;
        let book = self.book(id, hour)?;
        match book.known {
            Known::Yes => return Some(book.balance()),
            Known::No if !is_over => {
                book.known = Known::Asked;
                book.spent = 0;
                // Not a block of it: nobody wants to spend.
                let (most, wanted) = (0, 0);
                let draw = Draw::of(book, hour, Amount::Read { most, wanted });
                self.queue.push_back(Item::Draw(draw));
                self.hurry = true;
            }
            Known::No | Known::Asked => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOON, at, budget, count, flush, folder, now, open, spend};
    use super::super::{Per, Scope};
    use crate::usage::Money;

    #[tokio::test]
    async fn what_is_left_is_known_from_the_start_and_nothing_is_drawn_for_it() {
        let folder = folder();
        let ledger = open(&folder);
        let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Day))];
        spend(&ledger, &accounts, 30, 30, now()).await;
        assert!(ledger.close());
        let ledger = open(&folder);
        let ann = ledger.given(Scope::Key, "ann", budget(100, Per::Day));
        flush(&ledger);
        let seen = ledger.observe().accounts;
        let seen: Vec<_> = seen.iter().map(|it| (it.spent.0, it.left.0)).collect();
        assert_eq!(seen, [(30, 70)]);
        assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
        assert_eq!(ledger.left(&ann, now()), Some(Money(70)));
        // Counted by the hour it is read anew, and whoever looks need not be told of a budget that is no more.
        ledger.given(Scope::Key, "ann", budget(50, Per::Hour));
        flush(&ledger);
        assert_eq!(ledger.observe().accounts[0].left, Money(20));
        ledger.enforce(&[]);
        assert_eq!(ledger.observe().accounts.len(), 0);
    }

    #[tokio::test]
    async fn a_budget_that_nobody_uses_is_seen_to_start_anew() {
        let folder = folder();
        let ledger = open(&folder);
        let accounts = [ledger.given(Scope::Key, "ann", budget(100, Per::Hour))];
        spend(&ledger, &accounts, 100, 100, now()).await;
        assert_eq!(ledger.observe().accounts[0].left, Money(0));
        for _ in 0..5 {
            ledger.tick(now());
        }
        ledger.tick(at(NOON + 3_600));
        assert_eq!(ledger.observe().accounts[0].left, Money(100));
    }

    #[test]
    fn of_many_budgets_the_first_are_looked_at_and_those_that_many_share_before_all() {
        let folder = folder();
        let ledger = open(&folder);
        let account = |scope, name: &str| (ledger.account(scope, name), budget(100, Per::Day));
        let mut budgets: Vec<_> = (0..1_500)
            .map(|n| account(Scope::Key, &format!("k{n}")))
            .collect();
        budgets.extend([
            account(Scope::Team, "research"),
            account(Scope::Total, ""),
            account(Scope::Provider, "groq"),
        ]);
        ledger.enforce(&budgets);
        flush(&ledger);
        let seen = ledger.observe().accounts;
        let mut names = seen.iter().map(|it| &**it.account.name());
        let first: Vec<_> = names.by_ref().take(4).collect();
        assert_eq!(first, ["total", "groq", "research", "k0"]);
        let rest: Vec<String> = names.map(str::to_owned).collect();
        let want: Vec<String> = (1..997).map(|n| format!("k{n}")).collect();
        assert_eq!(rest, want);
    }
}
