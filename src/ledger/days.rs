//! Requests of a day, counted as money is: never more than may be, whatever happens, and none lost but to a crash.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::state::IDLE;
use super::tests::{at, budget, count, entry, flush, folder, now, open, pass, settings};
use super::{Account, Hold, Ledger, Per, Refused, Scope};
use crate::usage::Money;

fn requests(ledger: &Ledger, limit: u64) -> Account {
    ledger.given(Scope::KeyRequests, "ann", budget(limit, Per::Day))
}

async fn hold(ledger: &Ledger, account: &Account, now: SystemTime) -> Result<Hold, Refused> {
    let accounts = [account.clone()];
    ledger
        .hold(&accounts, Money(9_000), now)
        .await
        .map(|it| *it)
}

#[tokio::test]
async fn a_request_counts_once_it_is_sent_and_is_no_money() {
    let folder = folder();
    let ledger = open(&folder);
    let ann = requests(&ledger, 3);
    for _ in 0..9 {
        drop(hold(&ledger, &ann, now()).await.unwrap());
    }
    for _ in 0..3 {
        let mut sent = hold(&ledger, &ann, now()).await.unwrap();
        sent.begin(entry(5));
        sent.waive();
        sent.begin(entry(5));
    }
    let refused = hold(&ledger, &ann, now()).await.unwrap_err();
    let Refused::Day { limit, resets, .. } = refused else {
        panic!("{refused}");
    };
    let day = 86_400;
    let since = now().duration_since(at(0)).unwrap().as_secs();
    assert_eq!((limit, resets), (3, at((since / day + 1) * day)));
    assert!(hold(&ledger, &ann, resets).await.is_ok(), "the next day");
    assert!(ledger.close());
    let of = |what: &str| count(&folder, what);
    assert_eq!(of("SELECT sum(amount) FROM spent WHERE scope = 4"), 3);
    assert_eq!(of("SELECT count(*) FROM lease"), 0);
    assert_eq!(
        of("SELECT count(*) FROM entry"),
        3,
        "of money there are the tries"
    );
}

#[tokio::test]
async fn a_day_survives_a_restart_and_a_crash_and_a_changed_limit_does_not_refill() {
    let folder = folder();
    let ledger = open(&folder);
    let ann = requests(&ledger, 1_000);
    for _ in 0..150 {
        hold(&ledger, &ann, now()).await.unwrap().begin(entry(0));
    }
    assert!(ledger.close());
    let ledger = open(&folder);
    let ann = requests(&ledger, 1_000);
    for _ in 0..150 {
        hold(&ledger, &ann, now()).await.unwrap().begin(entry(0));
    }
    assert_eq!(ledger.left(&ann, now()), Some(Money(700)));
    ledger.crash();
    let ledger = open(&folder);
    let ann = requests(&ledger, 400);
    drop(hold(&ledger, &ann, now()).await.unwrap());
    let left = ledger.left(&ann, now()).unwrap().0;
    assert!(
        (90..=100).contains(&left),
        "a crash takes a hundredth: {left}"
    );
    let fewer = requests(&ledger, 300);
    assert!(matches!(
        hold(&ledger, &fewer, now()).await,
        Err(Refused::Day { .. })
    ));
    let money = "SELECT coalesce(sum(cost), 0) FROM entry";
    flush(&ledger);
    assert_eq!(
        count(&folder, money),
        0,
        "a crash charges no money for requests"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Hold,
    Send(usize),
    Drop(usize),
    Reload(u64),
    Later(u64),
    Tick,
    Close,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        9 => Just(Step::Hold),
        7 => (0..6_usize).prop_map(Step::Send),
        6 => (0..6_usize).prop_map(Step::Drop),
        1 => (2..30_u64).prop_map(Step::Reload),
        1 => (1..30_u64).prop_map(Step::Later),
        2 => Just(Step::Tick),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A world in which steps happen. For each day: what was sent, and what crashes counted besides.
struct World {
    folder: TempDir,
    ledger: Ledger,
    runtime: tokio::runtime::Runtime,
    limit: u64,
    /// The highest limit of each day.
    most: BTreeMap<u64, u64>,
    now: SystemTime,
    /// With the day of each, and whether it was sent.
    holds: Vec<(Hold, u64, bool)>,
    sent: BTreeMap<u64, u64>,
    crashed: BTreeMap<u64, u64>,
}

impl World {
    fn day(&self) -> u64 {
        self.now.duration_since(at(0)).unwrap().as_secs() / 86_400
    }

    fn held(&self) -> u64 {
        let today = self.day();
        let open = self.holds.iter().filter(|(_, day, _)| *day == today);
        open.filter(|(.., sent)| !sent).count() as u64
    }

    fn step(&mut self, step: &Step) {
        let today = self.day();
        let most = self.most.entry(today).or_default();
        *most = self.limit.max(*most);
        match *step {
            Step::Hold => {
                let account = requests(&self.ledger, self.limit);
                let held = self
                    .runtime
                    .block_on(hold(&self.ledger, &account, self.now));
                let sent = self.sent.get(&today).copied().unwrap_or_default();
                let crashed = self.crashed.get(&today).copied().unwrap_or_default();
                let fits = sent + self.held() + crashed < self.limit;
                match held {
                    Ok(hold) => self.holds.push((hold, today, false)),
                    Err(refused) => assert!(!fits, "{refused}, with {sent} of {}", self.limit),
                }
            }
            Step::Send(which) => {
                if let Some((hold, day, sent)) = self.holds.get_mut(which) {
                    hold.begin(entry(0));
                    if !std::mem::replace(sent, true) {
                        *self.sent.entry(*day).or_default() += 1;
                    }
                }
            }
            Step::Drop(which) if which < self.holds.len() => drop(self.holds.swap_remove(which)),
            Step::Drop(_) => {}
            Step::Reload(limit) => self.limit = limit,
            Step::Later(hours) => self.now += Duration::from_secs(hours * 3_600),
            Step::Tick => pass(&self.ledger, IDLE / 3, self.now),
            Step::Close => {
                self.holds.clear();
                assert!(self.ledger.close());
                self.ledger = Ledger::open(&settings(&self.folder), self.now).unwrap();
            }
            Step::Crash => {
                // What is held, and what is left of the block: a hundredth, and what was held of late and not sent.
                let account = requests(&self.ledger, self.limit);
                flush(&self.ledger);
                let inner = &self.ledger.0.inner;
                let left = inner.with(|state| state.on(account.id, |book| book.left));
                *self.crashed.entry(today).or_default() += self.held() + left.unwrap();
                self.ledger.crash();
                self.holds.clear();
                self.ledger = Ledger::open(&settings(&self.folder), self.now).unwrap();
            }
        }
        for (day, sent) in &self.sent {
            assert!(sent <= &self.most[day], "{sent} on one day");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_day_has_more_requests_than_may_be_and_what_fits_passes(steps in steps()) {
        let folder = folder();
        let mut world = World {
            ledger: open(&folder),
            folder,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            limit: 10,
            most: BTreeMap::new(),
            now: now(),
            holds: Vec::new(),
            sent: BTreeMap::new(),
            crashed: BTreeMap::new(),
        };
        for step in &steps {
            world.step(step);
        }
    }
}

#[tokio::test]
async fn days_that_are_over_leave_nothing_behind() {
    let folder = folder();
    let ledger = open(&folder);
    let ann = requests(&ledger, 9);
    for days in 0..5 {
        let now = now() + Duration::from_secs(days * 86_400);
        hold(&ledger, &ann, now).await.unwrap().begin(entry(0));
        pass(&ledger, 2 * IDLE, now);
        flush(&ledger);
    }
    let days = || count(&folder, "SELECT count(*) FROM spent WHERE scope = 4");
    for _ in 0..500 {
        if days() <= 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!((1..=3).contains(&days()), "{} days", days());
}
