//! From samples to tables.

use std::time::Duration;

use crate::cpu::Usage;
use crate::load::Outcome;
use crate::plan::Scenario;
use crate::proxy::{Build, Proxy};

/// One window through one proxy.
pub(crate) struct Sample {
    /// Which of the scenarios.
    pub(crate) scenario: usize,
    /// Which of the proxies.
    pub(crate) proxy: &'static str,
    /// What the load generator saw.
    pub(crate) outcome: Outcome,
    /// What the proxy was charged.
    pub(crate) usage: Usage,
}

/// The middle of some figures, and their ends.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (half, last) = (values.len() / 2, values.len().saturating_sub(1));
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(at(half.saturating_sub(1)), at(half))
        } else {
            at(half)
        };
        Self {
            median,
            min: at(0),
            max: at(last),
        }
    }
}

/// One line about a window without a proxy.
pub(crate) fn direct(scenario: &Scenario, outcome: &Outcome) -> String {
    format!(
        "  {:<10} {:>8.0} {}s/s, p50 {:.2} ms, p99 {:.2} ms, no errors",
        scenario.name,
        float(units(scenario, outcome)) / outcome.wall.as_secs_f64(),
        scenario.unit(),
        millis(outcome.p50),
        millis(outcome.p99),
    )
}

/// The tables.
pub(crate) fn print(scenarios: &[Scenario], proxies: &[Proxy], samples: &[Sample]) {
    let of = |at: usize, proxy: &str| -> Vec<&Sample> {
        let belongs = |s: &&Sample| s.scenario == at && s.proxy == proxy;
        samples.iter().filter(belongs).collect()
    };
    println!(
        "\nprocessor time, µs per request or event; the rest for information\n\n\
         {:<10} {:<9} {:>8} {:>8} {:>8}  {:<7} {:>5} {:>5} {:>6} {:>8} {:>9} {:>8} {:>8} {:>8}",
        "scenario",
        "proxy",
        "median",
        "min",
        "max",
        "per",
        "user",
        "busy",
        "waited",
        "per s",
        "ev/read",
        "p50 ms",
        "p99 ms",
        "windows",
    );
    for (at, scenario) in scenarios.iter().enumerate() {
        for proxy in proxies {
            row(scenario, proxy.name, &of(at, proxy.name));
        }
    }
    println!(
        "\np50 and p99: of whole answers, or of streams' first events; medians over the windows"
    );
    let ours = Build::THIS.name;
    let (this, others): (Vec<&Proxy>, Vec<&Proxy>) =
        proxies.iter().partition(|proxy| proxy.name == ours);
    // Without this build there is nothing to compare.
    for other in others.iter().filter(|_| !this.is_empty()) {
        println!(
            "\n{ours} / {}, processor time, round by round\n",
            other.name
        );
        println!(
            "{:<10} {:>8} {:>8} {:>8}",
            "scenario", "median", "min", "max"
        );
        for (at, scenario) in scenarios.iter().enumerate() {
            let (ours, theirs) = (of(at, ours), of(at, other.name));
            let ratio = |(a, b): (&&Sample, &&Sample)| cost(scenario, a) / cost(scenario, b);
            let Spread { median, min, max } = Spread::of(ours.iter().zip(&theirs).map(ratio));
            println!("{:<10} {median:>8.2} {min:>8.2} {max:>8.2}", scenario.name);
        }
    }
    let crowded = |s: &&Sample| s.usage.waited > s.outcome.wall / 20;
    let crowded = samples.iter().filter(crowded).count();
    if crowded > 0 {
        println!(
            "\nNOTE: the machine was not quiet: in {crowded} of {} windows the proxy waited for \
             its core more than 5 % of the time",
            samples.len()
        );
    }
    if samples.iter().any(|sample| sample.usage.incomplete()) {
        println!("\nNOTE: threads ended within a window; the figures leave out part of their time");
    }
}

fn row(scenario: &Scenario, proxy: &str, samples: &[&Sample]) {
    let Spread { median, min, max } = Spread::of(samples.iter().map(|s| cost(scenario, s)));
    let middle = |figure: &dyn Fn(&Sample) -> f64| {
        let spread = Spread::of(samples.iter().map(|s| figure(s)));
        spread.median
    };
    let sum = |part: &dyn Fn(&Usage) -> Duration| -> f64 {
        let total: Duration = samples.iter().map(|s| part(&s.usage)).sum();
        total.as_secs_f64()
    };
    let user = sum(&|u| u.user) / (sum(&|u| u.user) + sum(&|u| u.system));
    let wall = |s: &Sample| s.outcome.wall.as_secs_f64();
    let busy = middle(&|s| s.usage.ran.as_secs_f64() / wall(s));
    let waited = middle(&|s| s.usage.waited.as_secs_f64() / wall(s));
    let rate = middle(&|s| float(units(scenario, &s.outcome)) / wall(s));
    let gathered = if scenario.stream {
        let figure = middle(&|s| float(s.outcome.events) / float(s.outcome.reads));
        format!("{figure:.1}")
    } else {
        "-".to_owned()
    };
    println!(
        "{:<10} {proxy:<9} {median:>8.2} {min:>8.2} {max:>8.2}  {:<7} {:>4.0}% {:>4.0}% {:>5.1}% \
         {rate:>8.0} {gathered:>9} {:>8.2} {:>8.2} {:>8}",
        scenario.name,
        scenario.unit(),
        user * 100.0,
        busy * 100.0,
        waited * 100.0,
        middle(&|s| millis(s.outcome.p50)),
        middle(&|s| millis(s.outcome.p99)),
        samples.len(),
    );
}

/// Microseconds of processor time for each request or event.
fn cost(scenario: &Scenario, sample: &Sample) -> f64 {
    sample.usage.ran.as_secs_f64() * 1e6 / float(units(scenario, &sample.outcome))
}

fn units(scenario: &Scenario, outcome: &Outcome) -> u64 {
    if scenario.stream {
        outcome.events
    } else {
        outcome.requests
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn float(count: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of one window are far below 2^52"
    )]
    let float = count as f64;
    float
}
