//! From windows to a table, and to what is wrong with them.

use std::time::Duration;

use crate::Options;
use crate::caller::{Outcome, Statuses};
use crate::house::{Flood, Round, Window};

/// How many times as long an answer may take with the flood in its gateway as with the flood beside it. Both put the same
/// load on the machine. On two cores, quiet or kept busy by builds, the median of seven or nine rounds was 0.77 to 1.04,
/// whatever the flood (the gateway is awake already, and nobody else has its core), and that of three rounds 1.10 at most;
/// single rounds were anything. One lock for all keys, held for 50 µs by each that is refused, made it 1.34.
pub(crate) const MOST: f64 = 1.25;

/// The table's head.
pub(crate) fn head(options: &Options) {
    println!(
        "{} rounds of {:.1} s; times of `quiet` in ms, medians over rounds: no flood / flood beside / flood with it\n",
        options.rounds,
        options.window.as_secs_f64()
    );
    println!(
        "{:<20} {:>6} | {:>18} {:>18} | {:>12} {:>22} {:>12} | {:>7} {:>6} {:>7}",
        "flood",
        "a s",
        "p50",
        "p99",
        "p50 ÷ alone",
        "p50 ÷ beside",
        "p99 ÷ beside",
        "gateway",
        "bench",
        "waited",
    );
}

/// Prints the line of a flood, and says what was wrong.
pub(crate) fn judge(flood: &Flood, rounds: &[Round]) -> Vec<String> {
    let of = |what: fn(&Round) -> f64| median(rounds.iter().map(what));
    let three = |what: fn(&Outcome) -> Duration| {
        let of = |at: fn(&Round) -> &Window| {
            median(
                rounds
                    .iter()
                    .map(|it| what(&at(it).quiet).as_secs_f64() * 1e3),
            )
        };
        let all = [of(|it| &it.nowhere), of(|it| &it.beside), of(|it| &it.with)];
        all.map(|ms| format!("{ms:.2}")).join(" / ")
    };
    let added = rounds
        .iter()
        .map(|it| ratio(it.with.quiet.p50, it.beside.quiet.p50));
    let (least, most) = added
        .clone()
        .fold((f64::MAX, 0.0_f64), |(least, most), it| {
            (least.min(it), most.max(it))
        });
    let added = median(added);
    println!(
        "{:<20} {:>6.0} | {:>18} {:>18} | {:>12.2} {:>22} {:>12.2} | {:>6.0}% {:>5.0}% {:>6.0}%",
        flood.name,
        of(|it| it.with.loud.statuses.all() as f64 / it.with.loud.wall.as_secs_f64()),
        three(|it| it.p50),
        three(|it| it.p99),
        of(|it| ratio(it.with.quiet.p50, it.nowhere.quiet.p50)),
        format!("{added:.2} ({least:.2} to {most:.2})"),
        of(|it| ratio(it.with.quiet.p99, it.beside.quiet.p99)),
        of(|it| it.with.load.gateway) * 100.0,
        of(|it| it.with.load.bench) * 100.0,
        of(|it| it.with.load.waited) * 100.0,
    );
    let (quiet, loud) = statuses(rounds);
    println!("{:<20} quiet: {quiet}; loud: {loud}", "");
    let mut wrong = Vec::new();
    if added > MOST {
        wrong.push(format!(
            "{}: what another key waits is {added:.2} times as long as with the flood beside; {MOST} is the most",
            flood.name
        ));
    }
    if quiet.of(200) != quiet.all() {
        wrong.push(format!("{}: `quiet` was answered {quiet}", flood.name));
    }
    let refused = loud.of(401) + loud.of(429);
    if refused + loud.of(200) != loud.all() || loud.of(200) * 10 > loud.all() {
        wrong.push(format!("{}: `loud` was answered {loud}", flood.name));
    }
    wrong
}

/// What was answered, to `quiet` and to `loud`.
fn statuses(rounds: &[Round]) -> (Statuses, Statuses) {
    let (mut quiet, mut loud) = (Statuses::default(), Statuses::default());
    for round in rounds {
        for window in [&round.nowhere, &round.beside, &round.with] {
            quiet.add(&window.quiet.statuses);
            loud.add(&window.loud.statuses);
        }
    }
    (quiet, loud)
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
