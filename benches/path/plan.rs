//! What to measure: the scenarios, and the options that choose among them.

use std::env;
use std::fs;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One kind of load.
#[derive(Clone)]
pub(crate) struct Scenario {
    /// What it is called in tables and by `--scenario`.
    pub(crate) name: &'static str,
    /// The model in the request, by which the upstream chooses its answer.
    pub(crate) model: &'static str,
    /// Whether answers are event streams.
    pub(crate) stream: bool,
    /// Connections, each with one request under way.
    pub(crate) connections: u16,
}

impl Scenario {
    /// What its costs are divided by.
    pub(crate) fn unit(&self) -> &'static str {
        if self.stream { "event" } else { "request" }
    }
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "unary-64",
        model: "bench",
        stream: false,
        connections: 64,
    },
    Scenario {
        name: "unary-8",
        model: "bench",
        stream: false,
        connections: 8,
    },
    Scenario {
        name: "flood-16",
        model: "flood",
        stream: true,
        connections: 16,
    },
    Scenario {
        name: "paced-50",
        model: "paced",
        stream: true,
        connections: 50,
    },
    Scenario {
        name: "paced-200",
        model: "paced",
        stream: true,
        connections: 200,
    },
];

/// The proxies there are; `before` is the build that `--beside` names.
const PROXIES: [&str; 3] = ["tollgate", "before", "nginx"];

/// How a gateway can choose among targets.
const STRATEGIES: [&str; 6] = ["order", "weight", "latency", "least_busy", "cost", "sticky"];

const USAGE: &str = "options: --quick, --beside PROGRAM (another build of tollgate, measured as \
    `before`), --targets N and --strategy NAME (this build has so many targets for the model of the \
    unary scenarios), --only tollgate|before|nginx (more than once for more than one), --scenario NAME, \
    --log off|text, --usage (clients ask for the usage chunk), --pace LOW-HIGH (microseconds \
    between paced events)";

/// What the command line and the environment ask for.
pub(crate) struct Options {
    /// Rounds, each with every scenario through every proxy.
    pub(crate) rounds: u32,
    /// How long each measured window starts new requests.
    pub(crate) window: Duration,
    /// The scenarios to run.
    pub(crate) scenarios: Vec<Scenario>,
    /// tollgate's `server.log`.
    pub(crate) log: String,
    /// Whether streaming clients ask for usage themselves.
    pub(crate) usage: bool,
    /// The shortest and the longest gap between paced events, microseconds.
    pub(crate) pace: (String, String),
    /// Another build of the gateway, to be measured as well.
    pub(crate) beside: Option<String>,
    /// How many targets this build has for the model of the unary scenarios, and how it chooses among them.
    pub(crate) targets: u32,
    pub(crate) strategy: String,
    only: Vec<String>,
}

impl Options {
    /// Reads the command line; the environment's rounds and seconds win over `--quick`.
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self {
            rounds: 5,
            window: Duration::from_secs(2),
            scenarios: SCENARIOS.to_vec(),
            log: "off".to_owned(),
            usage: false,
            pace: ("1000".to_owned(), "2000".to_owned()),
            beside: None,
            targets: 1,
            strategy: "order".to_owned(),
            only: Vec::new(),
        };
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg {
                "--bench" => {}
                "--quick" => {
                    options.rounds = 2;
                    options.window = Duration::from_millis(300);
                }
                "--usage" => options.usage = true,
                "--beside" => options.beside = Some(program(value()?)?),
                "--only" => options.only.push(one_of(value()?, &PROXIES)?),
                "--targets" => options.targets = value()?.parse().context("--targets")?,
                "--strategy" => options.strategy = one_of(value()?, &STRATEGIES)?,
                "--log" => options.log = one_of(value()?, &["off", "text"])?,
                "--scenario" => {
                    let name = one_of(value()?, &SCENARIOS.map(|s| s.name))?;
                    options.scenarios.retain(|s| s.name == name);
                }
                "--pace" => options.pace = pace(value()?)?,
                _ => bail!("unknown option `{arg}`; {USAGE}"),
            }
        }
        if let Some(rounds) = from_env("BENCH_ROUNDS")? {
            options.rounds = rounds;
        }
        if let Some(seconds) = from_env::<f64>("BENCH_SECONDS")? {
            options.window = Duration::try_from_secs_f64(seconds).context("BENCH_SECONDS")?;
        }
        if !(1..=100).contains(&options.rounds) {
            bail!("between 1 and 100 rounds, please");
        }
        if options.window.is_zero() || options.window > Duration::from_mins(1) {
            bail!("a window lasts more than 0 and at most 60 seconds");
        }
        Ok(options)
    }

    /// Whether the proxy of this name is to be measured.
    pub(crate) fn wants(&self, proxy: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == proxy)
    }
}

fn one_of(value: &str, known: &[&str]) -> Result<String> {
    if !known.contains(&value) {
        bail!("`{value}` is none of {}", known.join(", "));
    }
    Ok(value.to_owned())
}

/// The whole path of a program, so that it is found wherever it is started from.
fn program(value: &str) -> Result<String> {
    let path = fs::canonicalize(value).with_context(|| format!("no program at `{value}`"))?;
    let path = path.to_str().context("a program's path that is no text")?;
    Ok(path.to_owned())
}

fn pace(value: &str) -> Result<(String, String)> {
    let (low, high) = value
        .split_once('-')
        .context("--pace takes LOW-HIGH, in microseconds")?;
    let (least, most): (u32, u32) = (low.parse()?, high.parse()?);
    if least == 0 || least > most || most > 100_000 {
        bail!("--pace wants 1 <= LOW <= HIGH <= 100000");
    }
    Ok((low.to_owned(), high.to_owned()))
}

fn from_env<T: FromStr>(name: &str) -> Result<Option<T>> {
    match env::var(name) {
        Ok(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("{name}: `{text}` is not a number"),
        },
        Err(_) => Ok(None),
    }
}
