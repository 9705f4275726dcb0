//! What an operator types.

pub mod check;
mod control;
pub mod explain;
pub mod import;
pub mod keys;
mod listen;
mod logs;
pub mod pages;
pub mod prices;
mod progress;
pub mod providers;
mod reload;
pub mod replay;
pub mod serve;
mod service;
mod signals;
#[cfg(feature = "otlp")]
mod traces;
#[cfg(not(feature = "otlp"))]
mod untraced;
pub mod usage;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Parser, Subcommand};

use self::listen::Both;
use crate::config::load::{Flaws, Source};
use crate::config::secret::Environment;
use crate::config::{Config, Diagnostic};
use crate::gateway::{Gateway, Wall};
use crate::ledger::{By, Ledger};
use crate::plan::Plan;
use crate::provider;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;
use crate::usage::import::Format;
#[cfg(not(feature = "otlp"))]
use untraced as traces;

/// What `--version` says: with the commit, if it is known.
const VERSION: &str = match option_env!("TOLLGATE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// A routing gateway for language models.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version = VERSION, about, disable_help_subcommand = true)]
pub struct Arguments {
    /// The configuration; default: ./gateway.toml, else $`TOLLGATE_CONFIG`
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway (what happens without a command, too)
    Serve,
    /// Name every flaw of a configuration, with its line
    Check {
        /// Also ask each provider for its models
        #[arg(long)]
        probe: bool,
        /// Exit with 1 also where a budget needs a price that is not wholly known
        #[arg(long)]
        strict: bool,
    },
    /// What would become of a request, and why, without sending it
    Explain(explain::Asked),
    /// Make, list, revoke and rotate keys, also beside a gateway that runs
    #[command(subcommand)]
    Keys(Keys),
    /// List the built-in presets
    Providers,
    /// Which requests of a log of decisions would go elsewhere by this configuration, and what they would cost
    Replay {
        /// What `decision_log` has written
        log: PathBuf,
        /// As one object, with each change
        #[arg(long)]
        json: bool,
    },
    /// Who spent what: read from the ledger, also beside a gateway that runs
    Usage {
        /// What the rows are told apart by: key, model, target, team, day, user, tag; several with commas
        #[arg(long, value_delimiter = ',', default_value = "key")]
        by: Vec<By>,
        /// Only what is no older than this: 12h, 7d, 30d
        #[arg(long, value_parser = usage::age)]
        since: Option<Duration>,
        /// How it is written: table, json, csv
        #[arg(long, default_value = "table")]
        format: usage::Format,
    },
    /// Copy the ledger to a file, also beside a gateway that runs
    Backup {
        /// A file that is not there yet
        file: PathBuf,
    },
    /// Write a gateway.toml from another gateway's configuration: litellm
    #[command(subcommand)]
    Import(import::Import),
    /// What is known of prices: show, import, diff
    #[command(subcommand)]
    Prices(Prices),
    /// Print what makes a shell complete the commands
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command
    Man {
        /// Into this folder
        folder: PathBuf,
    },
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key and print it, once; where nothing is said, the defaults of the configuration hold
    New {
        /// By what name its requests are counted
        name: String,
        /// What it may do
        #[command(flatten)]
        terms: Box<keys::Terms>,
    },
    /// List the keys there are
    List {
        /// As a list of objects
        #[arg(long)]
        json: bool,
    },
    /// Refuse a key from now on, for good, also one that stands in the configuration
    Revoke {
        /// Its name
        name: String,
    },
    /// Give a key anew and print it, once; its budget and what was spent of it stay
    Rotate {
        /// Its name
        name: String,
        /// How long the one before is good still
        #[arg(long, default_value = "1h", value_parser = usage::age)]
        grace: Duration,
    },
}

/// What to do with prices.
#[derive(Debug, Subcommand)]
pub enum Prices {
    /// Print the prices in force, in US dollars per million tokens
    Show {
        /// Only of this provider, or of this model of it
        #[arg(value_name = "PROVIDER[/MODEL]")]
        what: Option<String>,
    },
    /// Read a list of prices and keep it beside the configuration, over what is built in
    Import {
        /// Whose list it is: litellm or genai
        #[arg(long)]
        format: Format,
        /// Such a list, which you have downloaded
        file: PathBuf,
    },
    /// Print what importing a list would change
    Diff {
        /// Whose list it is: litellm or genai
        #[arg(long)]
        format: Format,
        /// Such a list, which you have downloaded
        file: PathBuf,
    },
}

/// Why a command failed, by whose mistake it is.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The configuration has flaws.
    #[error(transparent)]
    Flawed(#[from] Flaws),
    /// Something else the user can mend.
    #[error("{0:#}")]
    User(anyhow::Error),
    /// Ours, or the machine's.
    #[error("{0:#}")]
    Ours(#[from] anyhow::Error),
}

impl Failed {
    /// 1 is the user's mistake, 70 is ours.
    pub fn code(&self) -> u8 {
        match self {
            Self::Flawed(_) | Self::User(_) => 1,
            Self::Ours(_) => 70,
        }
    }
}

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> Result<(), Failed> {
    let environment = Environment::of_process();
    let file = file(arguments.config, &environment);
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&file, environment),
        Command::Check { probe, strict } => check::run(&file, environment, probe, strict),
        Command::Explain(asked) => explain::run(&file, environment, &asked),
        Command::Keys(Keys::New { name, terms }) => keys::new(&file, environment, &name, &terms),
        Command::Keys(Keys::List { json }) => keys::list(&file, environment, json),
        Command::Keys(Keys::Revoke { name }) => keys::revoke(&file, environment, &name),
        Command::Keys(Keys::Rotate { name, grace }) => {
            keys::rotate(&file, environment, &name, grace)
        }
        Command::Completions { shell } => {
            pages::completions(shell);
            Ok(())
        }
        Command::Man { folder } => pages::man(&folder),
        Command::Providers => providers::run(),
        Command::Replay { log, json } => replay::run(&file, environment, &log, json),
        Command::Backup { file: to } => usage::backup(&file, environment, &to),
        Command::Usage { by, since, format } => usage::run(&file, environment, &by, since, format),
        Command::Import(import::Import::Litellm {
            file,
            output,
            force,
        }) => import::litellm(&file, output.as_deref(), force),
        Command::Prices(Prices::Show { what }) => prices::show(&file, what.as_deref()),
        Command::Prices(Prices::Import { format, file: list }) => {
            prices::import(&file, format, &list)
        }
        Command::Prices(Prices::Diff { format, file: list }) => prices::diff(&file, format, &list),
    }
}

/// Writes lines to standard output, as a command answers. A reader that has seen enough (`| head`) is no error.
fn print(lines: &[String]) {
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// So many of something: `1 key`, `2 keys`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn file(named: Option<PathBuf>, environment: &Environment) -> PathBuf {
    let here = PathBuf::from("gateway.toml");
    match (named, environment.get("TOLLGATE_CONFIG")) {
        (Some(named), _) => named,
        (None, Some(elsewhere)) if !here.exists() => elsewhere.into(),
        (None, _) => here,
    }
}

/// A configuration that was read, and what is needed to say where its flaws are.
pub struct Loaded {
    /// What was written, without what was flawed.
    pub config: Config,
    /// Where it stands.
    pub source: Source,
    /// What was flawed.
    pub flaws: Vec<Diagnostic>,
    /// The variables it may refer to.
    pub environment: Environment,
}

impl Loaded {
    /// Reads a configuration.
    pub fn read(mut source: Source, environment: Environment) -> Self {
        let (config, flaws) = source.read(provider::PRESETS, &environment);
        Self {
            config,
            source,
            flaws,
            environment,
        }
    }

    /// What compiling needs besides the configuration.
    pub fn surroundings(&self) -> crate::plan::Surroundings<'_> {
        crate::plan::Surroundings {
            folder: self.source.folder(),
            environment: &self.environment,
        }
    }

    /// What it means, without anything that runs, and without the ledger's file; or every flaw.
    pub fn compile(&self) -> Result<Arc<Plan>, Flaws> {
        self.compiled().map_err(|found| self.report(found))
    }

    /// The same, and where it is listened.
    fn checked(&self) -> Result<(Arc<Plan>, Both), Flaws> {
        match Both::of(self) {
            Ok(wanted) => Ok((self.compile()?, wanted)),
            Err(found) => Err(self.all_flaws(found)),
        }
    }

    /// Every flaw: those of reading, those that were found, and those of compiling.
    fn all_flaws(&self, mut found: Vec<Diagnostic>) -> Flaws {
        found.extend(self.compiled().err().unwrap_or_default());
        self.report(found)
    }

    /// What it means; or what flaws there are beside those of reading.
    fn compiled(&self) -> Result<Arc<Plan>, Vec<Diagnostic>> {
        let telemetry = Telemetry::new(Metrics::new(), None);
        let (ledger, wall) = (Ledger::unopened(), Box::new(SystemTime::now));
        Ok(self.made(telemetry, ledger, wall)?.plan())
    }

    /// The gateway that it means; or every flaw.
    pub fn gateway(
        &self,
        telemetry: Arc<Telemetry>,
        ledger: Ledger,
        wall: Wall,
    ) -> Result<Arc<Gateway>, Flaws> {
        let made = self.made(telemetry, ledger, wall);
        made.map_err(|found| self.report(found))
    }

    fn made(
        &self,
        telemetry: Arc<Telemetry>,
        ledger: Ledger,
        wall: Wall,
    ) -> Result<Arc<Gateway>, Vec<Diagnostic>> {
        let surroundings = self.surroundings();
        let gateway = Gateway::new(&self.config, telemetry, ledger, surroundings, wall)?;
        match self.flaws.is_empty() {
            true => Ok(gateway),
            false => Err(Vec::new()),
        }
    }

    /// Every flaw: those of reading, and those that compiling found.
    pub fn report(&self, found: Vec<Diagnostic>) -> Flaws {
        let mut flaws = self.flaws.clone();
        flaws.extend(found);
        self.source.report(&flaws)
    }
}
