//! Does anything grow with how many call, or with how often? A million requests of 100,000 keys, each with a budget.
//!
//! ```text
//! cargo bench --bench crowd              # a few minutes, and a gigabyte for files (of TMPDIR)
//! cargo bench --bench crowd -- --quick   # 20,000 requests of 2,000 keys
//! ```
//!
//! Starts the gateway with 100,000 keys, the bench's upstream as its only provider and its ledger on, and sends a million
//! requests over keep-alive connections as fast as it takes them: each key comes as often as any other, in an order that
//! changes, and in the second half some come far more often than others, with a few requests at a time. One in twenty is
//! a stream, and of one in a hundred the client hangs up when it has seen the beginning. A second gateway with one key
//! gets as many of the same, in between, so that a drift of the machine meets both. Processes are pinned as those of the
//! `path` bench.
//!
//! A line of the table is a tenth of the load; memory and files are the most that was seen in it. The run fails where
//!
//! - memory grew: the median of the last quarter above that of the second, in which every key was used already;
//! - the ledger's log or what stands beside it became long;
//! - the books do not agree, which are read once the gateway has ended: for every key one entry for each request, at
//!   exactly what the provider told, and what was spent is the sum of the entries; no block is left over;
//! - an answer is not as it must be.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a bench talks to a person and reads the clock"
)]

#[path = "../path/bodies.rs"]
mod bodies;
#[path = "../path/client.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod client;
#[path = "../path/cpu.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod cpu;
#[path = "../path/helper.rs"]
mod helper;
#[path = "../streams/memory.rs"]
mod memory;
#[path = "../path/pacer.rs"]
mod pacer;
#[path = "../path/proxy.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod proxy;
#[path = "../path/upstream.rs"]
mod upstream;
#[path = "../path/wire.rs"]
mod wire;

mod books;
mod callers;
mod deal;
mod house;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::helper::{Helper, Pins, to_its_end, verdict};
use crate::house::{House, Look};

/// The load comes in so many parts.
const PARTS: u64 = 10;
/// In so many of them all keys come equally often.
const EVEN: usize = 5;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["upstream", rest @ ..] => upstream::main(rest).map(|()| Vec::new()),
        ["callers", rest @ ..] => callers::main(rest).map(|()| Vec::new()),
        ["--bench"] => to_its_end(bench(1_000_000, 100_000)),
        ["--quick", "--bench"] | ["--bench", "--quick"] => to_its_end(bench(20_000, 2_000)),
        words if words.contains(&"--bench") => Err(anyhow::anyhow!("options: --quick")),
        _ => {
            println!("nothing to test here: run `cargo bench --bench crowd`");
            Ok(Vec::new())
        }
    };
    verdict(result)
}

/// The whole of it; what was wrong.
async fn bench(requests: u64, keys: u32) -> Result<Vec<String>> {
    let pins = Pins::find();
    println!("{pins}");
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let mut upstream = Helper::start(pins.load, &["upstream", "1000", "2000"])?;
    let line = upstream.line(Duration::from_secs(5)).await?;
    let port: u16 = line.parse().context("the upstream named no port")?;
    let even = requests / PARTS * EVEN as u64;
    let mut crowd = House::start(dir.path(), &pins, port, (keys, even)).await?;
    let mut one = House::start(dir.path(), &pins, port, (1, even)).await?;
    report::head();
    for _ in 0..PARTS {
        let seen = crowd.looks.len();
        let part = crowd.load(requests / PARTS).await?;
        let looks = crowd.looks.iter().skip(seen).copied();
        let most = looks.fold(crowd.site.look()?, Look::max);
        report::line(&crowd, requests / PARTS, &part, most);
        one.load(requests / PARTS).await?;
    }
    let mut wrong = report::judge(&crowd, &one);
    for house in [crowd, one] {
        let (keys, requests) = (house.keys, house.requests);
        let (_, rest) = house.site.scrape().await?;
        let (end, folder) = house.end()?;
        let verdict = books::judge(&folder, keys, (requests, even))?;
        println!(
            "{keys} keys: metrics told in {:.1} ms at rest, ended after {:.2} s; {requests} requests, {} entries, \
             {:.6} dollars",
            rest.as_secs_f64() * 1e3,
            end.as_secs_f64(),
            verdict.entries,
            verdict.spent as f64 / 1e9,
        );
        wrong.extend(verdict.wrong);
    }
    Ok(wrong)
}
