//! The bench's own processes, the core each runs on, and talking with them.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::RangeInclusive;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Which cores to use, if processes can be pinned.
pub(crate) struct Pins {
    /// For the upstream and the load generator.
    pub(crate) load: Option<u32>,
    /// For the proxy under test.
    pub(crate) proxy: Option<u32>,
}

impl Pins {
    /// The first two cores this process may use.
    pub(crate) fn find() -> Self {
        let cores = allowed_cores();
        match cores.as_slice() {
            &[load, proxy, ..] if can_pin(load) && can_pin(proxy) => Self {
                load: Some(load),
                proxy: Some(proxy),
            },
            _ => Self {
                load: None,
                proxy: None,
            },
        }
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.load, self.proxy) {
            (Some(load), Some(proxy)) => write!(
                f,
                "upstream and load on core {load}, the proxy under test on core {proxy}"
            ),
            _ => write!(
                f,
                "UNPINNED: fewer than two cores, or no `taskset`; figures will be rough"
            ),
        }
    }
}

/// The cores of the kernel's list, such as `0-1,4`.
fn allowed_cores() -> Vec<u32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap_or_default();
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(low), Ok(high)) = (low.parse(), high.parse()) {
            cores.extend::<RangeInclusive<u32>>(low..=high);
        }
    }
    cores
}

fn can_pin(core: u32) -> bool {
    let mut command = pinned(Some(core), "true");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A command that runs `program` on `core`, under its own process id.
pub(crate) fn pinned(core: Option<u32>, program: &str) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// A process of the bench's own, ended when this is dropped.
pub(crate) struct Helper {
    child: Child,
    input: ChildStdin,
    lines: UnboundedReceiver<String>,
}

impl Helper {
    /// Runs this same program with other arguments.
    pub(crate) fn start(core: Option<u32>, args: &[&str]) -> Result<Self> {
        let program = std::env::current_exe()?;
        let program = program.to_str().context("the bench's own path")?;
        let mut child = pinned(core, program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the bench's {args:?}"))?;
        let (sender, lines) = unbounded_channel();
        // Both were just asked for.
        let input = child.stdin.take().context("no pipe")?;
        let output = child.stdout.take().context("no pipe")?;
        std::thread::Builder::new().spawn(move || {
            // Ends with the process, whose end of the pipe closes then.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    /// The next line it prints.
    pub(crate) async fn line(&mut self, limit: Duration) -> Result<String> {
        let line = tokio::time::timeout(limit, self.lines.recv())
            .await
            .context("a helper is silent")?
            .context("a helper ended early")?;
        if let Some(error) = line.strip_prefix("error: ") {
            // A refusal may show the answer, over several lines.
            let mut text = error.to_owned();
            while let Ok(Some(more)) =
                tokio::time::timeout(Duration::from_secs(1), self.lines.recv()).await
            {
                text = text + "\n" + &more;
            }
            bail!(text);
        }
        Ok(line)
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a bench until it ends or a signal ends it; either way the processes it started end with it.
pub(crate) fn to_its_end<T>(bench: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            result = bench => result,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
        }
    })
}

/// Says what was wrong, and ends with it.
#[allow(dead_code, reason = "the bench of the path judges nothing")]
pub(crate) fn verdict(result: Result<Vec<String>>) -> ExitCode {
    match result {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            println!("\nFAILED:");
            for line in &wrong {
                println!("  {line}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
