//! What a settled request costs the ledger, and how long its end waits.
//!
//! ```text
//! cargo bench --bench ledger              # a minute or so
//! cargo bench --bench ledger -- --quick   # a smoke run
//! ```
//!
//! Each request holds an amount from three accounts, enters one try and waits until it is written. `writer` is the
//! processor time of the thread that writes, `log` that of the one that brings the log into the file, `callers` that of
//! all others: the bench's own work is in it, which where a pace is kept is a
//! whole core's. Times are what the kernel's scheduler charged. The file is in the folder
//! for temporary files, or in `BENCH_FOLDER`.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench shows what it finds, and ends where it cannot go on"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::{LocalSet, spawn_local};
use tollgate::ledger::{Account, Budget, Durability, Entry, Ledger, Per, Place, Scope, Settings};
use tollgate::usage::{Money, Usage};

const SECONDS: u64 = 4;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let time = Duration::from_secs(if quick { 1 } else { SECONDS });
    println!(
        "load              entries/s   writer     log   callers µs/entry   wait p50      p99 µs  groups of"
    );
    for (name, rate, callers) in [
        ("2,000 a second", Some(2_000), 0),
        ("10,000 a second", Some(10_000), 0),
        ("50,000 a second", Some(50_000), 0),
        ("32 at once", None, 32),
        ("256 at once", None, 256),
        ("2,048 at once", None, 2_048),
    ] {
        run(name, rate, callers, time);
    }
}

/// One kind of load, with a ledger of its own.
fn run(name: &str, rate: Option<u64>, callers: usize, time: Duration) {
    let folder = match std::env::var_os("BENCH_FOLDER") {
        Some(base) => tempfile::tempdir_in(base),
        None => tempfile::tempdir(),
    }
    .expect("a folder for the file");
    let settings = Settings {
        store: Place::File(folder.path().join("ledger.db")),
        durability: Durability::Process,
        settle_wait: Duration::from_secs(1),
        keep: Duration::from_secs(400 * 86_400),
        seats: 100_000,
        backlog: 100_000,
    };
    let ledger = Ledger::open(&settings, SystemTime::now()).expect("a ledger");
    let budget = Budget {
        limit: Money(1_000_000_000_000_000),
        per: Per::Month,
        warn: None,
    };
    let accounts: Arc<[Account]> = [
        ledger.account(Scope::Key, "alice"),
        ledger.account(Scope::Team, "research"),
        ledger.account(Scope::Total, ""),
    ]
    .into();
    let budgets: Vec<_> = accounts.iter().map(|it| (it.clone(), budget)).collect();
    ledger.enforce(&budgets);
    let before = Cpu::read();
    let waits = match rate {
        Some(rate) => paced(&ledger, &accounts, rate, time),
        None => flood(&ledger, &accounts, callers, time),
    };
    let used = Cpu::read().since(&before);
    let entries = waits.len() as f64;
    let groups = ledger.observe().groups;
    assert!(ledger.close(), "the ledger was not written in time");
    let mut waits = waits;
    waits.sort_unstable();
    let share = |part: usize| {
        waits
            .get(waits.len() * part / 100)
            .map_or(0, Duration::as_micros)
    };
    println!(
        "{name:<16} {:>10.0} {:>8.2} {:>7.2} {:>9.2} {:>19} {:>8} {:>13.1}",
        entries / time.as_secs_f64(),
        used.writer as f64 / entries / 1_000.0,
        used.log as f64 / entries / 1_000.0,
        used.others as f64 / entries / 1_000.0,
        share(50),
        share(99),
        entries / groups.max(1) as f64,
    );
}

/// One request, and how long its end waited.
#[allow(clippy::disallowed_methods, reason = "the bench measures time")]
async fn request(ledger: &Ledger, accounts: &[Account], names: &Names) -> Duration {
    let now = SystemTime::now();
    let mut hold = ledger
        .hold(accounts, Money(2_000_000), now)
        .await
        .expect("room");
    hold.begin(names.entry(now));
    let start = Instant::now();
    assert!(hold.settle().await, "it took too long");
    start.elapsed()
}

/// As many at once, each beginning anew when it has ended.
fn flood(
    ledger: &Ledger,
    accounts: &Arc<[Account]>,
    callers: usize,
    time: Duration,
) -> Vec<Duration> {
    let stop = Arc::new(AtomicBool::new(false));
    on_a_worker(async {
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (ledger, accounts, stop) =
                    (ledger.clone(), Arc::clone(accounts), Arc::clone(&stop));
                spawn_local(async move {
                    let names = Names::new();
                    let mut waits = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        waits.push(request(&ledger, &accounts, &names).await);
                    }
                    waits
                })
            })
            .collect();
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await.expect("no panic"));
        }
        waits
    })
}

/// So many a second, whether or not earlier ones have ended.
#[allow(clippy::disallowed_methods, reason = "the bench measures time")]
fn paced(ledger: &Ledger, accounts: &Arc<[Account]>, rate: u64, time: Duration) -> Vec<Duration> {
    on_a_worker(async {
        let names = std::rc::Rc::new(Names::new());
        let start = Instant::now();
        let mut tasks = Vec::new();
        let mut begun = 0;
        while start.elapsed() < time {
            let due =
                u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX) * rate / 1_000_000;
            while begun < due {
                begun += 1;
                let (ledger, accounts, names) =
                    (ledger.clone(), Arc::clone(accounts), names.clone());
                tasks.push(spawn_local(async move {
                    request(&ledger, &accounts, &names).await
                }));
            }
            // Not a timer's, which knows milliseconds only.
            tokio::task::yield_now().await;
        }
        let mut waits = Vec::new();
        for task in tasks {
            waits.push(task.await.expect("no panic"));
        }
        waits
    })
}

fn on_a_worker<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// What every entry says.
struct Names {
    key: &'static str,
    team: Arc<str>,
    model: Arc<str>,
    target: Arc<str>,
    provider: Arc<str>,
    prices: Arc<str>,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Names {
    fn new() -> Self {
        Self {
            key: "alice",
            team: "research".into(),
            model: "fast".into(),
            target: "groq/llama-3.1-8b-instant".into(),
            provider: "groq".into(),
            prices: "2026-11-01".into(),
        }
    }

    fn entry(&self, at: SystemTime) -> Entry {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Entry {
            request: format!("req_{number:022}").into(),
            attempt: 1,
            at,
            api: "chat".into(),
            key: self.key.into(),
            team: Some(Arc::clone(&self.team)),
            model: Arc::clone(&self.model),
            target: Arc::clone(&self.target),
            provider: Arc::clone(&self.provider),
            usage: Some(Usage {
                input: 1_234,
                output: 567,
                ..Usage::default()
            }),
            cost: Some(Money(1_234_567)),
            estimated: false,
            end: "complete".into(),
            prices: Arc::clone(&self.prices),
            user: None,
            tag: None,
            response_id: None,
        }
    }
}

/// Nanoseconds on a core, by thread.
#[derive(Default)]
struct Cpu {
    writer: u64,
    log: u64,
    others: u64,
}

impl Cpu {
    fn read() -> Self {
        let mut all = Self::default();
        let tasks = fs::read_dir("/proc/self/task").expect("Linux");
        for task in tasks.flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let ran = read("schedstat")
                .split(' ')
                .next()
                .and_then(|ran| ran.parse().ok());
            let ran: u64 = ran.unwrap_or_default();
            match read("comm").trim() {
                "ledger" => all.writer += ran,
                "ledger-log" => all.log += ran,
                _ => all.others += ran,
            }
        }
        all
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            writer: self.writer - before.writer,
            log: self.log - before.log,
            others: self.others - before.others,
        }
    }
}
