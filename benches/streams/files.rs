//! How many streams fit into the files that a process may open? Raises that to what is allowed.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Files that a process has open beside those of its streams, at most.
const OTHERS: u64 = 300;

/// How many streams a process can proxy that is started from now on: each is two sockets.
pub(crate) fn streams_that_fit() -> Result<u64> {
    let (soft, hard) = limits()?;
    if soft < hard {
        // Without `prlimit` it stays as it is, and the answer says so.
        let _ = Command::new("prlimit")
            .arg(format!("--pid={}", std::process::id()))
            .arg(format!("--nofile={hard}:{hard}"))
            .stderr(Stdio::null())
            .status();
    }
    let (soft, _) = limits()?;
    Ok(soft.saturating_sub(OTHERS) / 2)
}

/// How many files this process and those it starts may open, and how far that may be raised.
fn limits() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut words = line.context("Max open files")?.split_whitespace();
    let mut number = || match words.next() {
        Some("unlimited") => Ok(u64::MAX),
        word => word
            .context("Max open files")?
            .parse::<u64>()
            .context("Max open files"),
    };
    Ok((number()?, number()?))
}
