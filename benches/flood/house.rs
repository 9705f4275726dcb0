//! The gateways, what their keys may do, and the floods.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::caller::{Order, Outcome};
use crate::cpu::{self, Usage};
use crate::proxy::{Build, Proxy, free_ports};
use crate::{MARGIN, Options};

/// What `loud` does.
pub(crate) struct Flood {
    /// What tables call it.
    pub(crate) name: &'static str,
    /// The name of its key: one for all rounds, or one for each.
    key: &'static str,
    is_new_each_round: bool,
    /// What the key may do. None: there is no such key.
    may: Option<&'static str>,
    /// Requests a second.
    rate: f64,
    /// Bytes of a request's body.
    size: usize,
    /// Streams that it opens at once, until it has no slot left.
    streams: usize,
}

/// Each is refused for something else.
pub(crate) const FLOODS: [Flood; 6] = [
    Flood {
        name: "rate (rpm)",
        key: "fast",
        is_new_each_round: false,
        may: Some("limits = { rpm = 60 }\nbudget = { usd = 1000000, per = \"month\" }"),
        rate: 10_000.0,
        size: 1_000,
        streams: 0,
    },
    Flood {
        name: "slots (concurrency)",
        key: "wide",
        is_new_each_round: false,
        may: Some("limits = { concurrency = 128 }\nbudget = { usd = 1000000, per = \"month\" }"),
        rate: 10_000.0,
        size: 1_000,
        streams: 128,
    },
    Flood {
        name: "wrong key",
        key: "nobody",
        is_new_each_round: false,
        may: None,
        rate: 10_000.0,
        size: 1_000,
        streams: 0,
    },
    // About 200 answers' worth.
    Flood {
        name: "money (budget)",
        key: "poor",
        is_new_each_round: true,
        may: Some(
            "limits = { rpm = 1000000000 }\nbudget = { usd = 0.01, per = \"total\" }\non_shortfall = \"refuse\"",
        ),
        rate: 10_000.0,
        size: 1_000,
        streams: 0,
    },
    Flood {
        name: "tokens (64 KiB)",
        key: "long",
        is_new_each_round: false,
        may: Some("limits = { tpm = 20000 }\nbudget = { usd = 1000000, per = \"month\" }"),
        rate: 4_000.0,
        size: 64 << 10,
        streams: 0,
    },
    // One takes a worker milliseconds: its median is not for that, but the 99th in a hundred tells.
    Flood {
        name: "tokens (16 MiB)",
        key: "huge",
        is_new_each_round: false,
        may: Some("limits = { tpm = 20000 }\nbudget = { usd = 1000000, per = \"month\" }"),
        rate: 16.0,
        size: 16 << 20,
        streams: 0,
    },
];

impl Flood {
    /// What its caller is told.
    pub(crate) fn order(&self, port: u16, round: usize, options: &Options) -> Order {
        Order {
            port,
            key: self.key(round),
            size: self.size,
            rate: self.rate * options.haste,
            connections: 64,
            streams: self.streams,
            time: options.window + 2 * MARGIN,
        }
    }

    fn key(&self, round: usize) -> String {
        match self.is_new_each_round {
            true => format!("{}-{round}", self.key),
            false => self.key.to_owned(),
        }
    }
}

/// Where a flood goes, as seen by `quiet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// There is none.
    Nowhere,
    /// To another gateway on the same machine.
    Beside,
    /// To the same gateway.
    With,
}

/// What one window came to.
#[derive(Default)]
pub(crate) struct Window {
    pub(crate) quiet: Outcome,
    pub(crate) loud: Outcome,
    pub(crate) load: Load,
}

/// A window of each kind.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) nowhere: Window,
    pub(crate) beside: Window,
    pub(crate) with: Window,
}

impl Round {
    /// That of a kind.
    pub(crate) fn at(&mut self, place: Where) -> &mut Window {
        match place {
            Where::Nowhere => &mut self.nowhere,
            Where::Beside => &mut self.beside,
            Where::With => &mut self.with,
        }
    }
}

/// Shares of processor time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    /// The flooded gateway's, of one core.
    pub(crate) gateway: f64,
    /// The whole bench's, of all cores.
    pub(crate) bench: f64,
    /// What the flooded gateway was ready to run and others had the core, of its own and that time.
    pub(crate) waited: f64,
}

/// Processor time that was used up to a moment.
pub(crate) struct Look {
    at: Instant,
    gateway: Usage,
    bench: Duration,
}

impl Look {
    /// Looks at a gateway, and at the bench.
    pub(crate) fn at(gateway: &Proxy) -> Result<Self> {
        let bench = cpu::usage(std::process::id())?;
        Ok(Self {
            at: Instant::now(),
            gateway: cpu::usage(gateway.pid())?,
            // Coarse, but threads that have ended count.
            bench: bench.user + bench.system,
        })
    }

    /// The shares since then.
    pub(crate) fn since(&self, before: &Self) -> Load {
        let wall = (self.at - before.at).as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let gateway = self.gateway.since(&before.gateway);
        let [ran, waited] = [gateway.ran, gateway.waited].map(|time| time.as_secs_f64());
        let bench = self.bench.saturating_sub(before.bench);
        Load {
            gateway: ran / wall,
            bench: bench.as_secs_f64() / wall / cores,
            waited: waited / (ran + waited),
        }
    }
}

/// Starts a gateway in a folder of its own: there is its ledger.
pub(crate) async fn start(
    name: &'static str,
    dir: &Path,
    upstream: u16,
    rounds: usize,
) -> Result<Proxy> {
    let ports = free_ports()?;
    let dir = dir.join(name);
    fs::create_dir(&dir)?;
    let file = dir.join("gateway.toml");
    fs::write(&file, configuration(ports, upstream, rounds)?)?;
    let mut command = Command::new(Build::THIS.program);
    command.arg("serve").arg("-c").arg(&file);
    // Access lines are written, but not kept: the disk is not what is measured.
    Proxy::start(name, command, ports, None).await
}

fn configuration([port, admin]: [u16; 2], upstream: u16, rounds: usize) -> Result<String> {
    let mut text = format!(
        r#"[server]
listen = "127.0.0.1:{port}"

[admin]
listen = "127.0.0.1:{admin}"

[providers.bench]
preset = "openai-compatible"
base_url = "http://127.0.0.1:{upstream}/v1"

[models]
bench.targets = [{{ to = "bench/bench", price = {{ input = 0.1, output = 0.4 }} }}]
paced.targets = [{{ to = "bench/paced", price = {{ input = 0.1, output = 0.4 }} }}]

[keys.quiet]
key = "sk-quiet"
limits = {{ rpm = 1000000, tpm = 1000000000, rpd = 1000000000, concurrency = 1000 }}
budget = {{ usd = 1000000, per = "month" }}
"#
    );
    for flood in &FLOODS {
        let keys = if flood.is_new_each_round { rounds } else { 1 };
        for round in 0..keys {
            let Some(may) = flood.may else { continue };
            let key = flood.key(round);
            write!(text, "\n[keys.{key}]\nkey = \"sk-{key}\"\n{may}\n")?;
        }
    }
    Ok(text)
}
