//! How much memory does a process hold?

use std::fs;

use anyhow::{Context, Result};

/// What of it is resident (`VmRSS`), in KiB.
pub(crate) fn resident(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("no figures for process {pid} in /proc (has it ended?)"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|text| text.split_whitespace().next());
    Ok(number.context("VmRSS")?.parse()?)
}
