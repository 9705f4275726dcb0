//! Whatever a provider can do wrong, and what must come of it: for the client, in the ledger, in the metrics.
//!
//! ```text
//! cargo test --test faults                      # every kind of fault; recorded answers cut at a sample of places
//! cargo test --test faults -- all               # cut at every byte
//! cargo test --test faults -- all --write       # and written down, as docs/faults.md
//! ```
//!
//! The real binary is asked, over real sockets, by clients with a budget each, for streams and for answers in one piece,
//! of a target that has the fault: once where it is the only one, once where another stands behind it that does well.
//! Whatever the fault, no client takes for whole what the provider did not end; each try that may be billed has one
//! entry that says how it ended; and afterwards nothing is under way, and of each budget is left what was not entered.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::float_cmp,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a check that fails panics and says what it saw, and a chapter is no library"
)]

#[path = "../gateway/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the chapters of tests/gateway need the rest of it"
)]
mod support;

mod answers;
mod case;
mod comes;
mod cuts;
mod errors;
mod expected;
mod fault;
mod page;
mod stage;
mod recorded;
mod upstream;
mod ways;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use case::Case;
use cuts::Cuts;
use expected::Column;
use fault::Mode;
use stage::{BUDGET, Entry, Got, Identities, Metrics, Stage};
use support::{Act, Provider};

/// So many are asked for at once.
const AT_ONCE: usize = 24;

fn main() {
    // What runs tests asks first which there are.
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let says = |word: &str| asked.iter().any(|other| other == word);
    if says("--list") {
        if !says("--ignored") {
            println!("faults: test");
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let went_well = runtime.unwrap().block_on(run(says("all"), says("--write")));
    if !went_well {
        std::process::exit(1);
    }
}

async fn run(all: bool, write: bool) -> bool {
    let began = Instant::now();
    let identities = Identities::new();
    let (cases, others) = cases(&identities).await;
    let cuts = Cuts::new(all).await;
    let mut text = cuts.lines();
    for case in &cases {
        text += &case.lines(others[usize::from(case.mode == Mode::Whole)].address);
    }
    let stage = Arc::new(Stage::set(&text, &identities).await);
    let answered = ask(&stage, cases).await;
    let (cut, is_cut) = cuts.ask(&stage).await;
    let metrics = stage.rest().await;
    let entries = stage.entries();
    let mut went_well = tell(&answered, &entries, &metrics);
    for line in is_cut.judge(&entries) {
        println!("CUT: {line}");
        went_well = false;
    }
    let keys = answered.iter().map(|(case, _)| &*case.stem);
    for line in unbalanced(&entries, &metrics, keys.chain([cuts::KEY])) {
        println!("BOOKS: {line}");
        went_well = false;
    }
    println!(
        "{} cases, {cut} cuts, {} entries, in {:.1} s: {}",
        answered.len(),
        entries.values().map(Vec::len).sum::<usize>(),
        began.elapsed().as_secs_f64(),
        if went_well {
            "all as it must be"
        } else {
            "NOT as it must be"
        }
    );
    if all && write && went_well {
        let cases: Vec<&Case> = answered.iter().map(|(case, _)| case).collect();
        page::write(&cases, cut);
    }
    went_well
}

/// All cases, and the targets that do well: of streams, and of answers in one piece.
async fn cases(identities: &Identities) -> (Vec<Case>, [Provider; 2]) {
    let mut cases = Vec::new();
    for (n, fault) in fault::all().iter().enumerate() {
        for mode in [Mode::Stream, Mode::Whole] {
            for column in [Column::Alone, Column::Another, Column::Open] {
                cases.extend(Case::new(n, fault, mode, column, identities).await);
            }
        }
    }
    let good = |act: Act| Provider::new([act]);
    let others = [
        good(recorded::good_stream()).await,
        good(recorded::good_whole()).await,
    ];
    (cases, others)
}

/// Asks them all, many at once. In their order, with what the client got.
async fn ask(stage: &Arc<Stage>, cases: Vec<Case>) -> Vec<(Case, Option<Got>)> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for (n, case) in cases.into_iter().enumerate() {
        let (stage, places) = (Arc::clone(stage), Arc::clone(&places));
        asking.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let got = case.ask(&stage).await;
            (n, case, got)
        });
    }
    let mut answered = asking.join_all().await;
    answered.sort_by_key(|(n, ..)| *n);
    answered
        .into_iter()
        .map(|(_, case, got)| (case, got))
        .collect()
}

/// Prints one line for each fault, and more for each that comes to something else than it must.
fn tell(
    answered: &[(Case, Option<Got>)],
    entries: &HashMap<String, Vec<Entry>>,
    metrics: &Metrics,
) -> bool {
    let mut went_well = true;
    for cases in answered.chunk_by(|(one, _), (other, _)| one.fault.name == other.fault.name) {
        let mut wrong = Vec::new();
        for (case, got) in cases {
            let id = got.as_ref().map(Got::id).unwrap_or_default();
            let of_it = entries.get(id).map(Vec::as_slice).unwrap_or_default();
            let found = case.judge(got.as_ref(), of_it, metrics).into_iter();
            wrong.extend(
                found.map(|line| format!("    {:?}, {:?}: {line}", case.mode, case.column)),
            );
        }
        let name = &cases[0].0.fault.name;
        went_well &= wrong.is_empty();
        let mark = if wrong.is_empty() { "ok   " } else { "WRONG" };
        println!("{mark} {name} ({} ways)", cases.len());
        for line in wrong {
            println!("{line}");
        }
    }
    went_well
}

/// Budgets of which something else is left than was not entered.
fn unbalanced<'k>(
    entries: &HashMap<String, Vec<Entry>>,
    metrics: &Metrics,
    keys: impl Iterator<Item = &'k str>,
) -> Vec<String> {
    let mut spent: HashMap<&str, i64> = HashMap::new();
    for entry in entries.values().flatten() {
        *spent.entry(&entry.key).or_default() += entry.cost;
    }
    let left_out = keys.map(|key| (key, metrics.remaining(key), spent.get(key).copied()));
    let wrong = left_out.filter(|(_, left, spent)| *left != BUDGET - spent.unwrap_or_default());
    wrong
        .map(|(key, left, spent)| format!("{key} has {left} left, and spent {spent:?} of {BUDGET}"))
        .collect()
}
