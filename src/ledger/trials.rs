//! The ledger under load and under chance.

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::state::IDLE;
use super::tests::{budget, count, entry, flush, folder, now, open, pass, settings, spend};
use super::*;

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The same numbers each time, without a crate for it.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// One caller among many: holds, spends some of it, leaves.
async fn caller(ledger: Ledger, accounts: Vec<Account>, seed: u64) -> u64 {
    let mut chance = Chance(seed);
    let mut spent = 0;
    for _ in 0..20 {
        let amount = 1 + chance.below(2_000_000);
        let mut hold = match ledger.hold(&accounts, Money(amount), now()).await {
            Ok(hold) => hold,
            Err(Refused::Short { left, .. }) => {
                assert!(left.0 < amount, "refused {amount} while {left} were left");
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        for _ in 0..chance.below(4) {
            tokio::task::yield_now().await;
        }
        let cost = chance.below(amount + 1);
        match chance.below(3) {
            0 => drop(hold),
            1 => {
                hold.begin(entry(cost));
                spent += cost;
                drop(hold);
            }
            _ => {
                hold.begin(entry(cost));
                spent += cost;
                assert!(hold.settle().await);
            }
        }
    }
    spent
}

#[test]
fn ten_thousand_requests_at_once_spend_no_more_than_there_is() {
    const DOLLAR: u64 = 1_000_000_000;
    let folder = folder();
    let ledger = open(&folder);
    let accounts = vec![
        ledger.given(Scope::Key, "ann", budget(DOLLAR, Per::Day)),
        ledger.given(Scope::Total, "", budget(3 * DOLLAR, Per::Month)),
    ];
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let (ledger, accounts) = (ledger.clone(), accounts.clone());
            std::thread::spawn(move || {
                let set = tokio::task::LocalSet::new();
                set.block_on(&runtime(), async move {
                    let callers: Vec<_> = (0..1_000)
                        .map(|seed| {
                            let caller =
                                caller(ledger.clone(), accounts.clone(), worker * 1_000 + seed);
                            tokio::task::spawn_local(caller)
                        })
                        .collect();
                    let mut spent = 0;
                    for caller in callers {
                        spent += caller.await.unwrap();
                    }
                    spent
                })
            })
        })
        .collect();
    let spent: u64 = workers
        .into_iter()
        .map(|worker| worker.join().unwrap())
        .sum();
    assert!(spent <= DOLLAR);
    assert!(
        spent > DOLLAR * 99 / 100,
        "{spent}: it was asked for more than enough"
    );
    assert_eq!(
        ledger.left(&accounts[0], now()),
        Some(Money(DOLLAR - spent))
    );
    assert_eq!(
        ledger.left(&accounts[1], now()),
        Some(Money(3 * DOLLAR - spent))
    );
    assert!(ledger.close());
    let spent = i64::try_from(spent).unwrap();
    assert_eq!(count(&folder, "SELECT sum(cost) FROM entry"), spent);
    assert_eq!(
        count(&folder, "SELECT sum(amount) FROM spent WHERE scope = 0"),
        spent
    );
    assert_eq!(count(&folder, "SELECT count(*) FROM lease"), 0);
}

#[test]
fn a_hundred_crashes_do_not_empty_a_budget() {
    let folder = folder();
    let runtime = runtime();
    let limit = 1_000_000_000;
    let mut spent = 0;
    for _ in 0..100 {
        let ledger = open(&folder);
        let accounts = [ledger.given(Scope::Key, "ann", budget(limit, Per::Month))];
        let held = runtime.block_on(async {
            spend(&ledger, &accounts, 1_000, 500, now()).await;
            ledger.hold(&accounts, Money(1_000), now()).await.unwrap()
        });
        spent += 500;
        ledger.crash();
        drop(held);
    }
    let ledger = open(&folder);
    let accounts = [ledger.given(Scope::Key, "ann", budget(limit, Per::Month))];
    let _first = runtime
        .block_on(ledger.hold(&accounts, Money(1), now()))
        .unwrap();
    let left = ledger.left(&accounts[0], now()).unwrap();
    assert!(left.0 > limit / 3, "{left} left");
    assert!(left.0 < limit - spent);
}

#[derive(Clone, Debug)]
enum Step {
    Hold(u64),
    /// Of which hold, which provider, how much, and which part of it is spent, in percent.
    Try(usize, usize, u64, u64),
    Waive(usize),
    Drop(usize),
    Settle(usize),
    Reload(u64, usize),
    Later(u64),
    Tick,
    /// What is due is brought into the sums.
    Sum,
    Close,
    Crash,
    /// Without all being written before.
    CrashAtOnce,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..400_u64).prop_map(Step::Hold),
        8 => (0..8_usize, 0..3_usize, 0..300_u64, 0..=100_u64).prop_map(|(a, b, c, d)| Step::Try(a, b, c, d)),
        1 => (0..8_usize).prop_map(Step::Waive),
        2 => (0..8_usize).prop_map(Step::Drop),
        3 => (0..8_usize).prop_map(Step::Settle),
        1 => (500..2_000_u64, 0..4_usize).prop_map(|(limit, per)| Step::Reload(limit, per)),
        1 => (1..30_u64).prop_map(Step::Later),
        2 => Just(Step::Tick),
        2 => Just(Step::Sum),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
        1 => Just(Step::CrashAtOnce),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A world in which steps happen, and what must hold in it.
struct World {
    folder: TempDir,
    ledger: Ledger,
    runtime: Runtime,
    limit: u64,
    per: Per,
    now: SystemTime,
    holds: Vec<Hold>,
    /// What the key has spent, all windows together, and what crashes were charged.
    spent: u64,
}

/// What may be spent in all on one day.
const FIXED: u64 = 1_500;
const PERS: [Per; 4] = [Per::Hour, Per::Day, Per::Month, Per::Total];

impl World {
    fn new() -> Self {
        let folder = folder();
        Self {
            ledger: open(&folder),
            folder,
            runtime: runtime(),
            limit: 1_000,
            per: Per::Day,
            now: now(),
            holds: Vec::new(),
            spent: 0,
        }
    }

    fn ann(&self) -> Account {
        self.ledger
            .given(Scope::Key, "ann", budget(self.limit, self.per))
    }

    fn provider(&self, which: usize) -> Option<Account> {
        let name = ["groq", "other"].get(which)?;
        Some(
            self.ledger
                .given(Scope::Provider, name, budget(5_000, Per::Day)),
        )
    }

    /// A budget that no reload changes.
    fn total(&self) -> Account {
        self.ledger.given(Scope::Total, "", budget(FIXED, Per::Day))
    }

    fn in_flight(&self) -> u64 {
        self.holds.iter().map(|hold| hold.held().0).sum()
    }

    /// What is left of the key's block. Asking for the account turns its window, so there may be something to write.
    fn left(&self) -> u64 {
        let id = self.ann().id;
        self.ledger
            .0
            .inner
            .with(|state| state.on(id, |book| book.left).unwrap())
    }

    fn paid(hold: &mut Hold) -> u64 {
        hold.bill();
        hold.cost().0
    }

    fn reopen(&mut self) {
        self.ledger = Ledger::open(&settings(&self.folder), self.now).unwrap();
    }

    fn key_sum(&self) -> u64 {
        count(
            &self.folder,
            "SELECT sum(amount) FROM spent WHERE scope = 0",
        )
        .unsigned_abs()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Hold(amount) => {
                let accounts = [self.ann(), self.total()];
                let hold = self.ledger.hold(&accounts, Money(amount), self.now);
                match self.runtime.block_on(hold) {
                    Ok(hold) => self.holds.push(*hold),
                    Err(Refused::Short { left, .. }) => assert!(left.0 < amount),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Try(which, provider, bound, percent) => {
                let account = self.provider(provider);
                let now = self.now;
                let Some(hold) = self.holds.get_mut(which) else {
                    return;
                };
                let payee: Vec<_> = account.iter().collect();
                let cover = hold.cover(&payee, Money(bound), now);
                if self.runtime.block_on(cover).is_ok() {
                    hold.begin(Entry {
                        provider: account.as_ref().map_or("free", |it| it.name()).into(),
                        ..entry(bound * percent / 100)
                    });
                }
            }
            Step::Waive(which) => {
                if let Some(hold) = self.holds.get_mut(which) {
                    hold.waive();
                }
            }
            Step::Drop(which) | Step::Settle(which) if which < self.holds.len() => {
                let mut hold = self.holds.swap_remove(which);
                self.spent += Self::paid(&mut hold);
                if matches!(step, Step::Settle(_)) {
                    assert!(self.runtime.block_on(hold.settle()));
                }
            }
            Step::Drop(_) | Step::Settle(_) => {}
            Step::Reload(limit, per) => {
                (self.limit, self.per) = (limit, PERS[per]);
                self.ann();
            }
            Step::Later(hours) => self.now += Duration::from_secs(hours * 3_600),
            // After three of these an account is idle.
            Step::Tick => pass(&self.ledger, IDLE / 3, self.now),
            Step::Sum => self.ledger.0.inner.with(|state| state.chores.sum = true),
            Step::Close => {
                for mut hold in std::mem::take(&mut self.holds) {
                    self.spent += Self::paid(&mut hold);
                }
                assert!(self.ledger.close());
                assert_eq!(count(&self.folder, "SELECT count(*) FROM lease"), 0);
                self.reopen();
                assert_eq!(self.key_sum(), self.spent);
            }
            Step::Crash => {
                flush(&self.ledger);
                let left = self.left();
                flush(&self.ledger);
                let most = self.in_flight() + left + self.spent;
                self.crash();
                assert!(self.spent <= most, "{} > {most}", self.spent);
            }
            Step::CrashAtOnce => self.crash(),
        }
    }

    fn crash(&mut self) {
        let least = self.spent + self.in_flight();
        self.ledger.crash();
        self.holds.clear();
        self.reopen();
        self.spent = self.key_sum();
        assert!(self.spent >= least, "{} < {least}", self.spent);
    }

    fn check(&self) {
        // A block may still be on its way for a hold that was refused meanwhile.
        flush(&self.ledger);
        let left = self.left();
        flush(&self.ledger);
        let drawn = count(
            &self.folder,
            "SELECT sum(amount) FROM lease WHERE scope = 0",
        );
        assert_eq!(
            drawn.unsigned_abs(),
            self.in_flight() + left,
            "what the disk knows"
        );
        let of_money = |scope: &&Scope| !scope.is_of_requests();
        for (scope, number) in Scope::ALL.iter().filter(of_money).zip(0..) {
            let name = scope.name();
            let entries =
                format!("SELECT sum(cost) FROM entry WHERE scope IS NULL OR scope = '{name}'");
            let sums = format!("SELECT sum(amount) FROM spent WHERE scope = {number}");
            assert_eq!(
                count(&self.folder, &entries),
                count(&self.folder, &sums),
                "{name}"
            );
        }
        assert_eq!(self.key_sum(), self.spent);
        let days = "SELECT max(day) FROM (SELECT sum(amount) AS day FROM spent WHERE scope = 3 GROUP BY hour / 24)";
        let day = count(&self.folder, days).unsigned_abs();
        assert!(day <= FIXED, "{day} on one day");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn money_is_conserved_whatever_happens(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
    }
}
