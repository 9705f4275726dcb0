//! One gateway under test: its configuration, its start, and how it looks from outside.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::callers::Part;
use crate::cpu::{self, Usage};
use crate::deal::secret;
use crate::helper::{Helper, Pins, pinned};
use crate::memory;
use crate::proxy::{Proxy, free_ports};

/// Between two looks at the process while it is under load.
const LOOK: Duration = Duration::from_millis(25);
/// Between two times that it is asked for its metrics under load: as often as an impatient Prometheus does.
const SCRAPE: Duration = Duration::from_secs(5);
/// How long a part of the load may take.
const PART: Duration = Duration::from_secs(1_200);
/// Until the ledger has written what is queued, once there is no load.
const SETTLED: Duration = Duration::from_millis(250);
/// How long it may take at most.
const WRITE: Duration = Duration::from_secs(30);

/// A gateway, its callers and their figures.
pub(crate) struct House {
    pub(crate) keys: u32,
    /// Requests sent so far.
    pub(crate) requests: u64,
    /// How long it took to listen.
    pub(crate) start: Duration,
    /// What it looked like before the first request.
    pub(crate) empty: Look,
    /// What it looked like under load.
    pub(crate) looks: Vec<Look>,
    /// How long it took to tell its metrics, under load.
    pub(crate) scrapes: Vec<Duration>,
    /// What a request cost, in each part of the load.
    pub(crate) costs: Vec<Cost>,
    /// How much load there was since it was asked for its metrics.
    unasked: Duration,
    pub(crate) site: Site,
    callers: Helper,
}

/// Processor time of a request, microseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    /// All of it.
    pub(crate) all: f64,
    /// What the ledger's own threads took of it.
    pub(crate) ledger: f64,
}

/// The process and its files, as one can see them from outside.
pub(crate) struct Site {
    proxy: Proxy,
    folder: PathBuf,
    admin: u16,
}

/// What is there at one moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Look {
    /// Memory of the process, KiB.
    pub(crate) memory: u64,
    /// The ledger's file, bytes.
    pub(crate) file: u64,
    /// Its log.
    pub(crate) log: u64,
    /// Both places of its tail.
    pub(crate) tail: u64,
}

impl Look {
    /// The most of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            file: self.file.max(other.file),
            log: self.log.max(other.log),
            tail: self.tail.max(other.tail),
        }
    }
}

impl House {
    /// Writes a configuration with so many keys, starts a gateway with it and its callers, who come equally often in so many
    /// requests.
    pub(crate) async fn start(
        dir: &Path,
        pins: &Pins,
        upstream: u16,
        (keys, even): (u32, u64),
    ) -> Result<Self> {
        let folder = dir.join(format!("{keys}"));
        fs::create_dir(&folder)?;
        let ports = free_ports()?;
        let file = folder.join("gateway.toml");
        fs::write(&file, configuration(ports, upstream, keys)?)?;
        let mut command = pinned(pins.proxy, env!("CARGO_BIN_EXE_tollgate"));
        command.arg("serve").arg("-c").arg(&file);
        let [port, admin] = ports;
        let began = Instant::now();
        let output = Some(folder.join("output"));
        let proxy = Proxy::start("tollgate", command, [port, admin], output).await?;
        let start = began.elapsed();
        let callers = [
            "callers",
            &port.to_string(),
            &keys.to_string(),
            &even.to_string(),
        ];
        let callers = Helper::start(pins.load, &callers)?;
        let site = Site {
            proxy,
            folder,
            admin,
        };
        Ok(Self {
            keys,
            requests: 0,
            start,
            empty: site.look()?,
            looks: Vec::new(),
            scrapes: Vec::new(),
            costs: Vec::new(),
            unasked: Duration::ZERO,
            site,
            callers,
        })
    }

    /// Sends so many requests more, and looks at it meanwhile. Waits until the ledger has written them.
    pub(crate) async fn load(&mut self, requests: u64) -> Result<Part> {
        let before = (self.site.cpu()?, self.site.ledger()?);
        self.callers.tell(&requests.to_string())?;
        let part = self.watch().await;
        let part = part.inspect_err(|_| self.site.proxy.show_output())?;
        self.requests += requests;
        let deadline = Instant::now() + WRITE;
        // To ask it costs as much as hundreds of requests, so that the figures are taken before.
        let (cpu, ledger) = loop {
            tokio::time::sleep(SETTLED).await;
            let now = (self.site.cpu()?, self.site.ledger()?);
            if self.site.queue().await? == 0 {
                break now;
            }
            if Instant::now() > deadline {
                bail!("the ledger does not write what is queued");
            }
        };
        let cpu = cpu.since(&before.0);
        if cpu.incomplete() {
            bail!("threads ended and took their figures with them");
        }
        let ledger = ledger.saturating_sub(before.1);
        let [all, ledger] = [cpu.ran, ledger].map(|it| it.as_secs_f64() * 1e6 / requests as f64);
        self.costs.push(Cost { all, ledger });
        Ok(part)
    }

    async fn watch(&mut self) -> Result<Part> {
        let mut line = Box::pin(self.callers.line(PART));
        loop {
            tokio::select! {
                line = &mut line => return Part::from_line(&line?),
                () = tokio::time::sleep(LOOK) => {}
            }
            self.looks.push(self.site.look()?);
            self.unasked += LOOK;
            if self.unasked >= SCRAPE {
                let (_, took) = self.site.scrape().await?;
                self.scrapes.push(took);
                self.unasked = Duration::ZERO;
            }
        }
    }

    /// Ends it. How long that took, and the folder with its ledger.
    pub(crate) fn end(mut self) -> Result<(Duration, PathBuf)> {
        let began = Instant::now();
        let status = self.site.proxy.end();
        if !status.is_some_and(|status| status.success()) {
            self.site.proxy.show_output();
            bail!("it ended with {status:?}");
        }
        Ok((began.elapsed(), self.site.folder.clone()))
    }
}

impl Site {
    /// The processor time of the ledger's own threads since it was started.
    fn ledger(&self) -> Result<Duration> {
        cpu::threads(self.proxy.pid(), "ledger")
    }

    fn cpu(&self) -> Result<Usage> {
        cpu::usage(self.proxy.pid())
    }

    /// Looks at it.
    pub(crate) fn look(&self) -> Result<Look> {
        let length = |ending: &str| {
            let file = self.folder.join(format!("tollgate.db{ending}"));
            fs::metadata(file).map_or(0, |it| it.len())
        };
        Ok(Look {
            memory: memory::resident(self.proxy.pid())?.into(),
            file: length(""),
            log: length("-wal"),
            tail: length(".tail0") + length(".tail1"),
        })
    }

    /// Its metrics, and how long it took to tell them.
    pub(crate) async fn scrape(&self) -> Result<(String, Duration)> {
        let began = Instant::now();
        let mut socket = TcpStream::connect(("127.0.0.1", self.admin)).await?;
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        socket.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await?;
        Ok((text, began.elapsed()))
    }

    async fn queue(&self) -> Result<u64> {
        let (text, _) = self.scrape().await?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("tollgate_ledger_queue "));
        Ok(line.context("tollgate_ledger_queue")?.parse()?)
    }
}

/// One price, one budget for every key, and nothing else.
fn configuration([port, admin]: [u16; 2], upstream: u16, keys: u32) -> Result<String> {
    let mut text = format!(
        r#"[server]
listen = "127.0.0.1:{port}"
log = "off"

[admin]
listen = "127.0.0.1:{admin}"

[providers.bench]
preset = "openai-compatible"
base_url = "http://127.0.0.1:{upstream}/v1"

[models]
bench.targets = [{{ to = "bench/bench", price = {{ input = 0.1, output = 0.4 }} }}]
flood.targets = [{{ to = "bench/flood", price = {{ input = 0.1, output = 0.4 }} }}]
paced.targets = [{{ to = "bench/paced", price = {{ input = 0.1, output = 0.4 }} }}]

[defaults]
budget = {{ usd = 1000, per = "month" }}
"#
    );
    for key in 0..keys {
        write!(text, "\n[keys.key-{key}]\ndigest = \"sha256:")?;
        for byte in Sha256::digest(secret(key)) {
            write!(text, "{byte:02x}")?;
        }
        text.push_str("\"\n");
    }
    Ok(text)
}
