//! From looks at the process to a table, and to what is wrong with it.

use crate::EVEN;
use crate::callers::Part;
use crate::house::{Cost, House, Look};

/// What memory may grow by from the second quarter of the load to the last, KiB. By then every key was used.
const TOLERANCE: u64 = 6 << 10;
/// The most that the ledger's log may grow to, bytes: three times what is long for its writer, which looks only now and then.
const LONGEST_LOG: u64 = 192 << 20;
/// The same for both places of its tail: eight times what is full.
const LONGEST_TAIL: u64 = 32 << 20;

/// The table's head.
pub(crate) fn head() {
    println!(
        "{:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "requests",
        "a second",
        "p50 ms",
        "p99 ms",
        "µs CPU",
        "ledger",
        "MiB",
        "db MiB",
        "wal MiB",
        "tail MiB"
    );
}

/// A line: what a part of the load came to, and the most of each that was seen in it.
pub(crate) fn line(house: &House, requests: u64, part: &Part, most: Look) {
    let cost = house.costs.last().copied().unwrap_or_default();
    println!(
        "{:>10} {:>8.0} {:>9.2} {:>9.2} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        house.requests,
        requests as f64 / part.wall.as_secs_f64(),
        part.p50.as_secs_f64() * 1e3,
        part.p99.as_secs_f64() * 1e3,
        cost.all,
        cost.ledger,
        most.memory as f64 / 1024.0,
        mebibytes(most.file),
        mebibytes(most.log),
        mebibytes(most.tail),
    );
}

/// What a request cost in some parts of the load.
fn mean(parts: &[Cost]) -> Cost {
    let mean =
        |figure: fn(&Cost) -> f64| parts.iter().map(figure).sum::<f64>() / parts.len() as f64;
    Cost {
        all: mean(|cost| cost.all),
        ledger: mean(|cost| cost.ledger),
    }
}

/// In the first part, in which every key is used for the first time; in those in which all come equally often; and in
/// those in which some come far more often than others.
fn costs(house: &House) -> [Cost; 3] {
    let (even, skewed) = house.costs.split_at(EVEN.min(house.costs.len()));
    let (first, even) = even.split_at(1.min(even.len()));
    [first, even, skewed].map(mean)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Prints what is to be known of both, and says what is wrong.
pub(crate) fn judge(crowd: &House, one: &House) -> Vec<String> {
    let mut wrong = Vec::new();
    for house in [crowd, one] {
        let mut scrapes = house.scrapes.clone();
        scrapes.sort_unstable();
        let most = house.looks.iter().copied().fold(house.empty, Look::max);
        let [first, even, skewed] = costs(house);
        println!(
            "\n{} keys: listens after {:.2} s; {:.1} MiB then, {:.1} at most; {:.1} µs of CPU a request in the \
             first part, {:.1} in even ones, {:.1} in skewed ones, of it in the ledger's threads {:.1}, {:.1}, {:.1}; metrics told in {:.1} ms under load, {:.1} at most; wal {:.1} MiB at most, tail {:.1}",
            house.keys,
            house.start.as_secs_f64(),
            house.empty.memory as f64 / 1024.0,
            most.memory as f64 / 1024.0,
            first.all,
            even.all,
            skewed.all,
            first.ledger,
            even.ledger,
            skewed.ledger,
            middle(&scrapes).as_secs_f64() * 1e3,
            scrapes.last().copied().unwrap_or_default().as_secs_f64() * 1e3,
            mebibytes(most.log),
            mebibytes(most.tail),
        );
        if most.log > LONGEST_LOG {
            wrong.push(format!("the log grew to {:.0} MiB", mebibytes(most.log)));
        }
        if most.tail > LONGEST_TAIL {
            wrong.push(format!("the tail grew to {:.0} MiB", mebibytes(most.tail)));
        }
    }
    let ([_, even, skewed], [_, one_even, one_skewed]) = (costs(crowd), costs(one));
    println!(
        "CPU a request, {} keys to one, once every key was used: {:.2} where all come equally often, {:.2} \
         by Zipf's law and four at a time",
        crowd.keys,
        even.all / one_even.all,
        skewed.all / one_skewed.all,
    );
    wrong.extend(memory(&crowd.looks));
    wrong
}

/// Whether memory stays where it was.
fn memory(looks: &[Look]) -> Option<String> {
    let mut quarters = looks.chunks(looks.len().div_ceil(4).max(1)).map(|looks| {
        let mut memory: Vec<u64> = looks.iter().map(|look| look.memory).collect();
        memory.sort_unstable();
        middle(&memory)
    });
    let (Some(second), Some(last)) = (quarters.nth(1), quarters.next_back()) else {
        return Some("it was over too soon to see whether memory grows".into());
    };
    println!(
        "memory: {:.1} MiB in the second quarter, {:.1} MiB in the last (medians): {:+.1} MiB",
        second as f64 / 1024.0,
        last as f64 / 1024.0,
        (last as f64 - second as f64) / 1024.0,
    );
    let grown = last.saturating_sub(second);
    (grown > TOLERANCE)
        .then(|| format!("memory has grown by {grown} KiB; {TOLERANCE} are tolerated"))
}

fn middle<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
