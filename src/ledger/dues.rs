//! Groups, steps and crashes in any order: what the file says is always what it was told, whatever is in its sums by then.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::book::Cut;
use super::item::{Amount, Cuts, Draw, Granted, Item, Settled};
use super::state::SUM;
use super::store::Store;
use super::tests::{count, entry, flush, folder, now, open, pass, settings, spend};
use super::window::hour_of;
use super::*;

const KEYS: [&str; 4] = ["ann", "bob", "z\"é,[", ""];

#[derive(Clone, Debug)]
enum Told {
    /// Whose request, what it cost, so many hours from now, and how much of what is drawn it settles.
    Settled(usize, u64, i64, u64),
    /// Requests that were made and are not drawn any more.
    Made(usize, u64),
    Draw(usize, u64, i64),
    Read(usize, i64),
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Told>),
    /// Some of what is due is brought in.
    Bring(usize),
    Ask,
    Crash,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..KEYS.len();
    let told = prop_oneof![
        6 => (key(), 0..100_u64, 0..3_i64, 0..200_u64).prop_map(|(a, b, c, d)| Told::Settled(a, b, c, d)),
        2 => (key(), 1..5_u64).prop_map(|(a, b)| Told::Made(a, b)),
        4 => (key(), 1..300_u64, 0..3_i64).prop_map(|(a, b, c)| Told::Draw(a, b, c)),
        2 => (key(), 0..3_i64).prop_map(|(a, b)| Told::Read(a, b)),
    ];
    let step = prop_oneof![
        8 => proptest::collection::vec(told, 0..6).prop_map(Step::Write),
        8 => (1..6_usize).prop_map(Step::Bring),
        3 => Just(Step::Ask),
        2 => Just(Step::Crash),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 1..40)
}

/// By number of scope, name, and hour or window.
type Amounts = BTreeMap<(u8, String, i64), u64>;

/// A file, and what it was told.
struct World {
    folder: TempDir,
    store: Option<Store>,
    accounts: Vec<Account>,
    hour: i64,
    later: i64,
    number: u64,
    spent: Amounts,
    /// With the hour in which it counts after a crash.
    drawn: BTreeMap<(u8, String, i64), (u64, i64)>,
}

impl World {
    fn new() -> Self {
        let folder = folder();
        let hour = hour_of(now());
        let (store, _) = Store::open(&settings(&folder), hour).unwrap();
        let memory = Settings {
            store: Place::Memory,
            ..settings(&folder)
        };
        let ledger = Ledger::open(&memory, now()).unwrap();
        Self {
            folder,
            store: Some(store),
            accounts: KEYS.map(|key| ledger.account(Scope::Key, key)).into(),
            hour,
            later: 0,
            number: 0,
            spent: Amounts::new(),
            drawn: BTreeMap::new(),
        }
    }

    fn spend(&mut self, scope: Scope, name: &str, hour: i64, amount: u64) {
        if amount > 0 {
            let owner = (scope as u8, name.to_owned(), hour);
            *self.spent.entry(owner).or_default() += amount;
        }
    }

    /// No more than there is.
    fn cut(&mut self, key: usize, most: u64, spent: u64) -> Option<Cut> {
        let (start, name) = (self.hour, KEYS[key]);
        let drawn = self
            .drawn
            .get_mut(&(0, name.to_owned(), start))
            .filter(|drawn| drawn.0 > 0)?;
        let amount = most.min(drawn.0);
        drawn.0 -= amount;
        let cut = Cut::of(&self.accounts[key], start, amount)?;
        let spent = spent.min(amount);
        self.spend(Scope::Key, name, start, spent);
        Some(Cut { spent, ..cut })
    }

    /// What the store is told. What it must answer is added to `wanted`.
    fn item(&mut self, told: &Told, wanted: &mut Vec<Option<u64>>) -> Option<Item> {
        match *told {
            Told::Settled(key, cost, later, settles) => {
                let (hour, name) = (self.hour + later, KEYS[key]);
                let entry = Entry {
                    key: name.into(),
                    ..entry(cost)
                };
                let payers: Vec<_> = entry.payers().map(|(a, b)| (a, b.to_owned())).collect();
                for (scope, name) in payers {
                    self.spend(scope, &name, hour, cost);
                }
                let cuts: Cuts = self.cut(key, settles, 0).into_iter().collect();
                self.number += 1;
                let entries = [entry].into_iter().collect();
                let settled = Settled::of(self.number, hour, entries, cuts);
                Some(Item::Settled(Arc::new(settled)))
            }
            Told::Made(key, requests) => {
                let cut = self.cut(key, requests, requests)?;
                Some(Item::Back(cut))
            }
            Told::Draw(key, amount, later) => {
                let owner = (0, KEYS[key].to_owned(), self.hour);
                let drawn = self.drawn.entry(owner).or_default();
                // Hours go by.
                self.later = self.later.max(later);
                *drawn = (drawn.0 + amount, self.hour + self.later);
                wanted.push(None);
                Some(self.draw(key, self.hour, Amount::Exactly(amount)))
            }
            Told::Read(key, later) => {
                let start = self.hour + later;
                let since = self.spent.iter().filter(|((scope, name, hour), _)| {
                    (*scope, &**name) == (0, KEYS[key]) && *hour >= start
                });
                wanted.push(Some(since.map(|(_, amount)| amount).sum()));
                let (most, wanted) = (0, 0);
                Some(self.draw(key, start, Amount::Read { most, wanted }))
            }
        }
    }

    fn draw(&self, key: usize, start: i64, amount: Amount) -> Item {
        Item::Draw(Draw {
            account: self.accounts[key].clone(),
            series: 0,
            start,
            hour: self.hour + self.later,
            amount,
        })
    }

    fn step(&mut self, step: &Step) {
        let hour = self.hour;
        match step {
            Step::Write(told) => {
                let mut wanted = Vec::new();
                let items = told.iter().filter_map(|told| self.item(told, &mut wanted));
                let items: Vec<_> = items.collect();
                let store = self.store.as_mut().unwrap();
                let answers: Vec<Granted> = store.write(&items, hour).unwrap();
                let answers: Vec<_> = answers.iter().map(|answer| answer.spent).collect();
                assert_eq!(answers, wanted);
            }
            Step::Bring(steps) => {
                let store = self.store.as_mut().unwrap();
                for _ in 0..*steps {
                    if store.is_due() {
                        store.bring_in().unwrap();
                    }
                }
            }
            Step::Ask => self.store.as_mut().unwrap().ask(),
            Step::Crash => {
                self.store = None;
                for ((scope, name, _), (amount, hour)) in std::mem::take(&mut self.drawn) {
                    self.spend(Scope::ALL[usize::from(scope)], &name, hour, amount);
                }
                self.reopen();
            }
            Step::Close => {
                self.store.take().unwrap().close().unwrap();
                let conn = self.file();
                let due = "SELECT count(*) FROM due";
                let due: i64 = conn.query_row(due, [], |row| row.get(0)).unwrap();
                assert_eq!(due, 0);
                self.check_in("spent_base", "lease_base WHERE amount > 0");
                // What is still drawn counts, as nobody will settle it.
                self.step(&Step::Crash);
            }
        }
    }

    fn reopen(&mut self) {
        let (store, _) = Store::open(&settings(&self.folder), self.hour).unwrap();
        self.store = Some(store);
    }

    fn file(&self) -> Connection {
        Connection::open(self.folder.path().join("ledger.db")).unwrap()
    }

    fn check_in(&self, spent: &str, lease: &str) {
        let conn = self.file();
        let read = |columns: &str, from: &str| -> Amounts {
            let mut read = conn
                .prepare(&format!("SELECT {columns} FROM {from}"))
                .unwrap();
            let rows = read.query_map([], |row| {
                let owner = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((owner, row.get::<_, i64>(3)?.unsigned_abs()))
            });
            rows.unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(read("scope, name, hour, amount", spent), self.spent);
        let drawn = self.drawn.iter().filter(|(_, (amount, _))| *amount > 0);
        let drawn: Amounts = drawn.map(|(owner, it)| (owner.clone(), it.0)).collect();
        assert_eq!(read("scope, name, start, amount", lease), drawn);
    }
}

#[test]
fn what_cannot_be_brought_in_is_brought_in_once_the_file_can_be_written() {
    let mut world = World::new();
    let settled = || Step::Write(vec![Told::Draw(0, 50, 0), Told::Settled(0, 7, 0, 7)]);
    world.step(&settled());
    world.step(&Step::Ask);
    world.step(&Step::Bring(2));
    let other = world.file();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = world.store.as_mut().unwrap();
    assert!(store.is_due() && store.bring_in().is_err());
    assert!(!store.is_due(), "not at once again");
    other.execute_batch("ROLLBACK").unwrap();
    world.check_in("spent", "lease");
    world.step(&settled());
    assert!(world.store.as_ref().unwrap().is_due());
    world.step(&Step::Bring(100));
    world.step(&Step::Ask);
    world.step(&Step::Bring(100));
    assert!(!world.store.as_ref().unwrap().is_due());
    world.check_in("spent_base", "lease_base");
    world.check_in("spent", "lease");
}

#[tokio::test]
async fn what_is_due_is_in_the_sums_after_five_minutes() {
    let folder = folder();
    let ledger = open(&folder);
    spend(&ledger, &[], 0, 7, now()).await;
    pass(&ledger, SUM - 1, now());
    flush(&ledger);
    let of = |table: &str| count(&folder, &format!("SELECT sum(amount) FROM {table}"));
    assert_eq!((of("spent"), of("spent_base")), (28, 0));
    pass(&ledger, 1, now());
    flush(&ledger);
    assert_eq!((of("spent"), of("spent_base")), (28, 28));
    assert_eq!(count(&folder, "SELECT count(*) FROM due"), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_due_counts_once_however_far_it_was_brought_in(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check_in("spent", "lease");
        }
    }
}
