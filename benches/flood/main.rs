//! Does a flood of one key touch another key's latency? What that one sees, without a flood, with one, and with the same
//! flood next door.
//!
//! ```text
//! cargo bench --bench flood              # 9 rounds of 2 s for each flood, eight minutes or so
//! cargo bench --bench flood -- --quick   # 3 rounds of 1 s
//! BENCH_ROUNDS=15 BENCH_SECONDS=4 BENCH_RATE=2 BENCH_ONLY=money cargo bench --bench flood
//! ```
//!
//! `quiet` asks 200 times a second over 8 connections, and each answer's time runs from when its request was due: who is
//! held up sends later, and that counts. `loud` floods as fast as [`FLOODS`] says, of its own accord and not as fast as it
//! is answered (`BENCH_RATE` times that), and is refused: for its rate, its slots, its key, its money or its tokens.
//!
//! Two gateways of this build run side by side as users run them: a worker for each core, on whichever core the kernel
//! likes, ledger and access lines on, and both keys with limits and a budget. `quiet` always asks the first. A round has
//! three windows: no flood, the flood through the other gateway (`beside`), and through the same (`with`); so a drift of
//! the machine meets all three. The order within a round alternates.
//!
//! A flood takes processor time from whatever runs on the machine, its neighbour's gateway and the generators included.
//! That is what `beside` shows, and no gateway can help it. What shares a gateway adds is `with` ÷ `beside`: waiting for a
//! worker that is busy with the flood, for a lock, for a place. By that ratio it is judged, for the median of the times; the
//! run fails where
//!
//! - its median over all rounds is more than [`report::MOST`];
//! - an answer to `quiet` is not 200;
//! - a flood was not one: more than a tenth of it was let in, or it was answered with what it should not.
//!
//! What to bear in mind when reading it: times have the 50 µs or so in them by which Linux wakes a thread late; and the 99th in
//! a hundred of 400 is the fourth worst, which on a machine that does anything else is that machine's. `gateway` is the CPU
//! of the flooded gateway, of one core, and `bench` that of all the bench's processes, of all cores. `waited` is how much
//! of its time that gateway was ready to run while others had the core: a third of it on two cores that nobody else used,
//! where the others are the generators.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a bench talks to a person and reads the clock"
)]

#[path = "../path/bodies.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod bodies;
#[path = "../path/cpu.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod cpu;
#[path = "../path/helper.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod helper;
#[path = "../path/pacer.rs"]
mod pacer;
#[path = "../path/proxy.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod proxy;
#[path = "../path/upstream.rs"]
mod upstream;
#[path = "../path/wire.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod wire;

mod caller;
mod house;
mod report;

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::caller::Order;
use crate::helper::{Helper, to_its_end, verdict};
use crate::house::{FLOODS, Flood, Look, Round, Where, Window};
use crate::proxy::Proxy;

/// How long a flood goes on before `quiet` is looked at, and after; and how long what it held may take to be given back.
const MARGIN: Duration = Duration::from_millis(300);

/// How much is measured.
struct Options {
    rounds: usize,
    window: Duration,
    /// How many times as fast floods are as they say.
    haste: f64,
    /// What the names of floods begin with that are measured.
    only: String,
}

impl Options {
    /// As the environment has it, or else so many rounds of so many seconds.
    fn or(rounds: usize, seconds: f64) -> Result<Self> {
        let seconds = setting("BENCH_SECONDS", seconds)?;
        Ok(Self {
            rounds: setting("BENCH_ROUNDS", rounds)?,
            window: Duration::try_from_secs_f64(seconds)?,
            haste: setting("BENCH_RATE", 1.0)?,
            only: setting("BENCH_ONLY", String::new())?,
        })
    }
}

fn setting<T: FromStr>(name: &str, otherwise: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(otherwise),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let measured = |options: Result<Options>| to_its_end(async { bench(&options?).await });
    let result = match words.as_slice() {
        ["upstream", rest @ ..] => upstream::main(rest).map(|()| Vec::new()),
        ["caller", rest @ ..] => caller::main(rest).map(|()| Vec::new()),
        ["--bench"] => measured(Options::or(9, 2.0)),
        ["--quick", "--bench"] | ["--bench", "--quick"] => measured(Options::or(3, 1.0)),
        words if words.contains(&"--bench") => Err(anyhow::anyhow!("options: --quick")),
        _ => {
            println!("nothing to test here: run `cargo bench --bench flood`");
            Ok(Vec::new())
        }
    };
    verdict(result)
}

/// The whole of it; what was wrong.
async fn bench(options: &Options) -> Result<Vec<String>> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    // A stream's events come so seldom that none ends in a window.
    let mut upstream = Helper::start(None, &["upstream", "400000", "800000"])?;
    let line = upstream.line(Duration::from_secs(5)).await?;
    let port: u16 = line.parse().context("the upstream named no port")?;
    let same = house::start("same", dir.path(), port, options.rounds).await?;
    let other = house::start("other", dir.path(), port, options.rounds).await?;
    report::head(options);
    let mut wrong = Vec::new();
    let wanted = |flood: &&Flood| flood.name.starts_with(&options.only);
    for flood in FLOODS.iter().filter(wanted) {
        let mut rounds = Vec::new();
        for round in 0..options.rounds {
            let mut order = [Where::Nowhere, Where::Beside, Where::With];
            if round % 2 == 1 {
                order.reverse();
            }
            let mut seen = Round::default();
            for place in order {
                let window = window(options, [&same, &other], (flood, place, round)).await;
                let window = window.with_context(|| format!("{}, {place:?}", flood.name))?;
                *seen.at(place) = window;
            }
            rounds.push(seen);
        }
        wrong.extend(report::judge(flood, &rounds));
    }
    Ok(wrong)
}

/// What `quiet` sees of one flood in one place.
async fn window(
    options: &Options,
    [same, other]: [&Proxy; 2],
    (flood, place, round): (&Flood, Where, usize),
) -> Result<Window> {
    tokio::time::sleep(MARGIN).await;
    let flooded = if place == Where::Beside { other } else { same };
    let mut quiet = Order::quiet(same.port(false), options.window).start()?;
    quiet.is_ready().await?;
    let mut loud = None;
    if place != Where::Nowhere {
        let order = flood.order(flooded.port(false), round, options);
        let loud = loud.insert(order.start()?);
        loud.is_ready().await?;
        loud.tell("go")?;
    }
    tokio::time::sleep(MARGIN).await;
    let before = Look::at(flooded)?;
    quiet.tell("go")?;
    let seen = quiet.outcome(options.window).await?;
    let load = Look::at(flooded)?.since(&before);
    let loud = match &mut loud {
        Some(loud) => loud.outcome(options.window).await?,
        None => caller::Outcome::default(),
    };
    Ok(Window {
        quiet: seen,
        loud,
        load,
    })
}
