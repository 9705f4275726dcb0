//! What a request costs in processor time on its way through the gateway, beside nginx doing the same.
//!
//! ```text
//! cargo bench --bench path                              # 5 rounds of 2 s, two minutes or so
//! cargo bench --bench path -- --quick                   # a smoke run
//! cargo bench --bench path -- --only tollgate --scenario flood-16 --log text
//! cargo bench --bench path -- --beside /path/to/another/tollgate
//! BENCH_ROUNDS=9 BENCH_SECONDS=4 cargo bench --bench path
//! ```
//!
//! The bench starts an upstream and a load generator (both are this same
//! binary) on one core and each proxy under test on another, and sends the same
//! bytes through every proxy in turn, round after round, so that a drift of the
//! machine meets all of them alike. The order within a round alternates.
//!
//! The figure that counts is processor time: what the kernel's scheduler
//! charged to the proxy's processes in the window, in nanoseconds, divided by
//! the requests (or streamed events) finished in it. Connections are opened and
//! warmed, and their first answers read in full and checked, before the window.
//! It opens and closes while nothing is under way, so no request is counted
//! half and no figure is a tick old.
//!
//! What to bear in mind when reading it:
//!
//! - Work the kernel does for a loopback write (the receiver's half included)
//!   is charged to the writer. It is the same for all proxies.
//! - The load is a closed loop: a proxy that has time to sleep between requests
//!   pays for more wake-ups than one that is always behind. `busy` shows how
//!   much of its core a proxy used; near 100 % it gathers work in batches, which
//!   makes each piece cheaper.
//! - `ev/read` is how many events came with one read of a client. In `paced-50`
//!   each travels alone; `paced-200` asks for more events than the generator's
//!   core can carry, so some arrive together.
//! - `waited` is time the proxy was ready to run and another process had its
//!   core. More than a few per cent says the machine was not quiet.
//! - nginx is a plain pass-through here: it reads no body, checks no key, counts
//!   no token. Its figure is what moving the bytes costs.
//! - `before` is the other build that `--beside` names, with the same
//!   configuration, or without limits, or prices and a budget, if it takes none. What a
//!   change costs is the ratio to it, not the difference between two runs of the
//!   bench.
//!
//! A status other than 200, a stream with an event missing, one that does not
//! end in `[DONE]` or a closed connection ends the bench with an error.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench talks to a person"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod bodies;
mod client;
#[allow(dead_code, reason = "the bench of the crowd needs more of it")]
mod cpu;
mod helper;
mod load;
mod pacer;
mod plan;
mod proxy;
mod report;
mod upstream;
mod wire;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cpu::Usage;
use crate::helper::{Helper, Pins, to_its_end};
use crate::load::Outcome;
use crate::plan::{Options, Scenario};
use crate::proxy::{Build, Proxy};
use crate::report::Sample;

/// How long a proxy is given to finish what it does after its last answer.
const SETTLE: Duration = Duration::from_millis(30);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["upstream", rest @ ..] => upstream::main(rest),
        ["load", rest @ ..] => load::main(rest),
        words if words.contains(&"--bench") => {
            Options::parse(words).and_then(|o| to_its_end(bench(&o)))
        }
        _ => {
            println!("nothing to test here: run `cargo bench --bench path`");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The whole of it: start everything, check it, measure, print.
async fn bench(options: &Options) -> Result<()> {
    let pins = Pins::find();
    println!("{pins}");
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let upstream_args = ["upstream", &options.pace.0, &options.pace.1];
    let mut upstream = Helper::start(pins.load, &upstream_args)?;
    let line = upstream.line(Duration::from_secs(5)).await?;
    let upstream_port: u16 = line.parse().context("the upstream named no port")?;

    println!("\nstraight to the upstream, no proxy:");
    for scenario in &options.scenarios {
        let window = options.window.min(Duration::from_millis(500));
        let outcome = direct(&pins, options, scenario, upstream_port, window)
            .await
            .with_context(|| format!("{}, no proxy", scenario.name))?;
        println!("{}", report::direct(scenario, &outcome));
    }

    let proxies = start(options, &pins, dir.path(), upstream_port).await?;
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        println!("round {} of {}", round + 1, options.rounds);
        for (at, scenario) in options.scenarios.iter().enumerate() {
            let mut order: Vec<&Proxy> = proxies.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for proxy in order {
                let sample = measure(&pins, options, scenario, proxy)
                    .await
                    .with_context(|| format!("{} through {}", scenario.name, proxy.name));
                let (outcome, usage) = sample.inspect_err(|_| proxy.show_output())?;
                samples.push(Sample {
                    scenario: at,
                    proxy: proxy.name,
                    outcome,
                    usage,
                });
            }
        }
    }
    report::print(&options.scenarios, &proxies, &samples);
    Ok(())
}

/// Starts the proxies asked for, of those that are there.
async fn start(options: &Options, pins: &Pins, dir: &Path, upstream: u16) -> Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    let before = options.beside.as_deref().map(|program| Build {
        name: "before",
        program,
        targets: Build::THIS.targets,
    });
    if let Some(Build { name, program, .. }) = before {
        println!("\n{name}: {program}");
    }
    let this = Build {
        targets: (options.targets, &options.strategy),
        ..Build::THIS
    };
    if options.targets > 1 {
        let Options {
            targets, strategy, ..
        } = options;
        println!("\n{} has {targets} targets, by {strategy}", this.name);
    }
    for build in [Some(this), before].into_iter().flatten() {
        if options.wants(build.name) {
            let log = &options.log;
            proxies.push(Proxy::gateway(&build, pins.proxy, dir, upstream, log).await?);
        }
    }
    if options.wants("nginx") {
        if let Some(version) = proxy::nginx_version() {
            println!("\n{version}, one worker");
            proxies.push(Proxy::nginx(pins.proxy, dir, upstream).await?);
        } else {
            println!("\nnginx is not installed: no comparison");
        }
    }
    if proxies.is_empty() {
        bail!("no proxy to measure");
    }
    Ok(proxies)
}

/// One short window without a proxy: the harness itself must be free of errors.
async fn direct(
    pins: &Pins,
    options: &Options,
    scenario: &Scenario,
    port: u16,
    window: Duration,
) -> Result<Outcome> {
    let mut load = Helper::load(pins.load, options, scenario, port, window)?;
    load.ready().await?;
    load.go(window).await
}

/// One window through one proxy, and what the proxy was charged for it.
async fn measure(
    pins: &Pins,
    options: &Options,
    scenario: &Scenario,
    proxy: &Proxy,
) -> Result<(Outcome, Usage)> {
    let port = proxy.port(scenario.stream);
    let mut load = Helper::load(pins.load, options, scenario, port, options.window)?;
    load.ready().await?;
    tokio::time::sleep(SETTLE).await;
    let before = cpu::usage(proxy.pid())?;
    let outcome = load.go(options.window).await?;
    tokio::time::sleep(SETTLE).await;
    let usage = cpu::usage(proxy.pid())?.since(&before);
    Ok((outcome, usage))
}
