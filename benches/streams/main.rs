//! What does a stream cost that is open and mostly silent? 5,000 of them at one event a second: how late events come,
//! and how much memory each stream holds.
//!
//! ```text
//! cargo bench --bench streams              # 5,000 streams, 20 s measured; two minutes or so
//! cargo bench --bench streams -- --quick   # 500 streams, 3 s
//! ```
//!
//! The same load goes through two proxies, one after the other: a bare one that is nothing but hyper's server and hyper's
//! client (`bare.rs`), as the yardstick, and this build of the gateway with a key, limits, a budget and its ledger on.
//! Streams are opened 500 a second, and each has its own moment of the second for its events. Every event carries the time
//! at which the provider wrote it, so that the listener can tell how late it came. Once all are open it is measured, and
//! after that all are read to their end, so that an event that never comes is no event that came in time. Processes are
//! pinned as those of the `path` bench.
//!
//! The run fails where
//!
//! - an event came through the gateway more than 50 ms after it was sent, whatever the reason;
//! - a stream through the gateway holds more than 8 KiB above one through the bare proxy;
//! - the provider sent fewer events than it should have, or a stream was not complete.
//!
//! What to bear in mind when reading it: memory is what is resident (`VmRSS`), the most of several looks while all are
//! open, above what it was after a few streams that were hung up on: code that is used for the first time is no stream's.
//! How late an event is includes the time that provider and listener, which share a core, wait for each other; the bare
//! proxy's figures show that share. `busy` is how much of a core a proxy used, and `waited` how much of the time it was
//! ready to run while others had its core: more than a few per cent says the machine was not quiet. Both clocks are the
//! machine's calendar clock, so a step of it spoils a run.

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
mod helper;
#[path = "../path/proxy.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod proxy;
#[path = "../path/wire.rs"]
#[allow(dead_code, reason = "the bench of the path needs more of it")]
mod wire;

mod bare;
mod event;
mod files;
mod listener;
mod memory;
mod provider;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::helper::{Helper, Pins, pinned, to_its_end, verdict};
use crate::listener::Heard;
use crate::proxy::{Build, Proxy, free_ports};
use crate::report::Line;

/// Between two looks at a proxy's memory.
const LOOK: Duration = Duration::from_millis(500);
/// What a helper may take longer than it should.
const GRACE: Duration = Duration::from_secs(30);

/// How much is measured.
#[derive(Clone, Copy)]
struct Load {
    streams: u64,
    /// How long it is measured once all are open.
    seconds: u64,
}

impl Load {
    /// How long it should take to open them.
    fn ramp(self) -> u64 {
        self.streams.div_ceil(listener::RAMP)
    }

    /// Events in a stream. The first one opened lasts until the last one has been measured, with a machine that takes twice
    /// as long to open them.
    fn events(self) -> u64 {
        2 * self.ramp() + self.seconds + 5
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let measured = |streams, seconds| to_its_end(bench(Load { streams, seconds }));
    let result = match words.as_slice() {
        ["provider", rest @ ..] => provider::main(rest).map(|()| Vec::new()),
        ["bare", rest @ ..] => bare::main(rest).map(|()| Vec::new()),
        ["listener", rest @ ..] => listener::main(rest).map(|()| Vec::new()),
        ["--bench"] => measured(5_000, 20),
        ["--quick", "--bench"] | ["--bench", "--quick"] => measured(500, 3),
        words if words.contains(&"--bench") => Err(anyhow::anyhow!("options: --quick")),
        _ => {
            println!("nothing to test here: run `cargo bench --bench streams`");
            Ok(Vec::new())
        }
    };
    verdict(result)
}

/// The whole of it; what was wrong.
async fn bench(mut load: Load) -> Result<Vec<String>> {
    let pins = Pins::find();
    println!("{pins}");
    let fit = files::streams_that_fit()?;
    if fit < load.streams {
        println!(
            "ONLY {fit} STREAMS of {}: a proxy holds two files for each; see `ulimit -Hn`",
            load.streams
        );
        load.streams = fit;
    }
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let mut provider = Helper::start(pins.load, &["provider", &load.events().to_string()])?;
    let line = provider.line(GRACE).await?;
    let upstream: u16 = line.parse().context("the provider named no port")?;

    report::head();
    let [port, _] = free_ports()?;
    let program = std::env::current_exe()?;
    let mut command = pinned(pins.proxy, program.to_str().context("the bench's path")?);
    command.args(["bare", &port.to_string(), &upstream.to_string()]);
    let output = Some(dir.path().join("bare.out"));
    let bare = Proxy::start("bare hyper", command, [port, port], output).await?;
    let bare = measure(&pins, load, bare).await?;
    let gateway = Proxy::gateway(&Build::THIS, pins.proxy, dir.path(), upstream, "off").await?;
    let gateway = measure(&pins, load, gateway).await?;
    Ok(report::judge(load, &bare, &gateway))
}

/// What the load comes to through one proxy, which is ended after it.
async fn measure(pins: &Pins, load: Load, proxy: Proxy) -> Result<Line> {
    let line = watch(pins, load, &proxy).await;
    let line = line.with_context(|| format!("through {}", proxy.name));
    let line = line.inspect_err(|_| proxy.show_output())?;
    report::line(&line);
    Ok(line)
}

/// Lets the listener do its work, and looks at the proxy meanwhile.
async fn watch(pins: &Pins, load: Load, proxy: &Proxy) -> Result<Line> {
    let words = format!(
        "listener {} {} {} {}",
        proxy.port(true),
        load.streams,
        load.seconds,
        load.events()
    );
    let words: Vec<&str> = words.split(' ').collect();
    let mut listener = Helper::start(pins.load, &words)?;
    // It is warm.
    listener.line(GRACE).await?;
    let before = memory::resident(proxy.pid())?;
    listener.tell("go")?;
    // All are open.
    listener
        .line(GRACE + Duration::from_secs(2 * load.ramp()))
        .await?;
    let began = Instant::now();
    let cpu = cpu::usage(proxy.pid())?;
    let mut open = 0;
    {
        // It is measured.
        let mut done = Box::pin(listener.line(GRACE + Duration::from_secs(load.seconds)));
        loop {
            tokio::select! {
                line = &mut done => {
                    line?;
                    break;
                }
                () = tokio::time::sleep(LOOK) => open = open.max(memory::resident(proxy.pid())?),
            }
        }
    }
    let cpu = cpu::usage(proxy.pid())?.since(&cpu);
    let time = began.elapsed();
    let heard = listener.line(GRACE + Duration::from_secs(load.events()));
    Ok(Line {
        name: proxy.name,
        streams: load.streams,
        heard: Heard::from_line(&heard.await?)?,
        before,
        open,
        cpu,
        time,
    })
}
