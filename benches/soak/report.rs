//! From samples to a table, and to what is wrong with them.

use std::collections::BTreeMap;

use crate::child::{Ended, Sample};
use crate::seen::Seen;
use crate::{LOOK, TOLERANCE, WARM};

/// Lines of the table, about.
const ROWS: usize = 20;
/// So many samples are a few.
const FEW: usize = 6;

/// Prints what there is to see.
pub fn print(samples: &[Sample], seen: &Seen, ended: &Ended) {
    println!("\n{:<24} {:>8}", "clients", "runs");
    for (kind, runs) in seen.runs() {
        println!("{kind:<24} {runs:>8}");
    }
    let (answers, left) = seen.counts();
    println!("\n{answers} answers seen; {left} requests whose clients may have left before one");
    let mut told: BTreeMap<(u16, &str), usize> = BTreeMap::new();
    for line in &ended.lines {
        *told.entry((line.status, line.end.as_str())).or_default() += 1;
    }
    println!("\n{:<8} {:<12} {:>8}", "status", "end", "records");
    for ((status, end), count) in told {
        println!("{status:<8} {end:<12} {count:>8}");
    }
    println!(
        "\n{:>6} {:>9} {:>6} {:>8} {:>10} {:>12}",
        "s", "MiB", "files", "threads", "in flight", "connections"
    );
    let step = samples.len().div_ceil(ROWS).max(1);
    for (n, sample) in samples.iter().enumerate().filter(|(n, _)| n % step == 0) {
        let Sample {
            memory,
            files,
            threads,
            in_flight,
            connections,
        } = sample;
        println!(
            "{:>6.0} {:>9.1} {files:>6} {threads:>8} {in_flight:>10} {connections:>12}",
            seconds(n),
            memory / 1024.0
        );
    }
}

fn seconds(sample: usize) -> f64 {
    LOOK.as_secs_f64() * f64::from(u32::try_from(sample).unwrap())
}

/// Whether all that was taken has been given back.
pub fn judge_rest(before: Sample, after: Sample) -> Vec<String> {
    let mut wrong = Vec::new();
    if after.files > before.files || after.threads > before.threads {
        wrong.push(format!("it holds more than before: {before}; {after}"));
    }
    if after.in_flight > 0 || after.connections > 0 {
        wrong.push(format!("something goes on: {after}"));
    }
    wrong
}

/// Whether memory stays where it was.
pub fn judge_memory(samples: &[Sample]) -> Option<String> {
    let quarter = samples.len() / 4;
    let second = median(&samples[quarter..2 * quarter]);
    let last = median(&samples[3 * quarter..]);
    println!(
        "\nmemory: {:.1} MiB in the second quarter, {:.1} MiB in the last (medians); its floor from the second on: \
         {:+.2} MiB a minute",
        second / 1024.0,
        last / 1024.0,
        slope(&samples[quarter..]) * 60.0 / 1024.0
    );
    let tolerated = match LOOK * u32::try_from(samples.len()).unwrap() < WARM {
        true => 4.0 * TOLERANCE,
        false => TOLERANCE,
    };
    let grown = last - second;
    (grown > tolerated)
        .then(|| format!("memory has grown by {grown:.0} KiB; {tolerated:.0} are tolerated"))
}

/// The middle one: a large body that is under way now and then says nothing about what stays.
fn median(samples: &[Sample]) -> f64 {
    let mut memory: Vec<f64> = samples.iter().map(|sample| sample.memory).collect();
    memory.sort_by(f64::total_cmp);
    memory[memory.len() / 2]
}

/// The slope of the straight line that lies nearest (least squares) to the lowest of every few samples, KiB a second:
/// the floor is what a leak raises.
fn slope(samples: &[Sample]) -> f64 {
    let floor = samples.chunks(FEW).enumerate().map(|(n, few)| {
        let memory = few.iter().map(|sample| sample.memory);
        (seconds(n * FEW), memory.fold(f64::INFINITY, f64::min))
    });
    let points: Vec<(f64, f64)> = floor.collect();
    let count = f64::from(u32::try_from(points.len()).unwrap());
    let x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let above: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    above / below
}
