//! What the scheduler charged to a process and its children.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};

/// Nanoseconds in one tick of `/proc/PID/stat`, whose ticks are hundredths of a second.
const TICK: u64 = 10_000_000;

/// Sums over all threads of a process and of its children.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Time on a core.
    pub(crate) ran: Duration,
    /// Time ready to run while others had the core.
    pub(crate) waited: Duration,
    /// Time in user mode: coarse, for the share of it.
    pub(crate) user: Duration,
    /// Time in the kernel: as coarse.
    pub(crate) system: Duration,
}

impl Usage {
    /// What came on top of `before`.
    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }

    /// Whether threads that ended in between took a part of the figure with
    /// them: the process's own total still has it.
    pub(crate) fn incomplete(&self) -> bool {
        let total = self.user + self.system;
        total > self.ran + self.ran / 20 + Duration::from_millis(50)
    }
}

/// What process `pid` and its children have used so far.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let mut sum = Usage::default();
    let mut pids = vec![pid];
    while let Some(pid) = pids.pop() {
        add(pid, &mut sum, &mut pids)
            .with_context(|| format!("no figures for process {pid} in /proc (has it ended?)"))?;
    }
    Ok(sum)
}

/// Time on a core of those threads of a process whose names begin with this.
pub(crate) fn threads(pid: u32, name: &str) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let is_one = fs::read_to_string(task.join("comm"));
        if is_one.is_ok_and(|found| found.starts_with(name)) {
            let stat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            sum += Duration::from_nanos(number(stat.split_ascii_whitespace().next())?);
        }
    }
    Ok(sum)
}

/// Adds one process's figures to `sum` and its children to `pids`.
fn add(pid: u32, sum: &mut Usage, pids: &mut Vec<u32>) -> Result<()> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end between the listing and the reading.
        let Ok(stat) = fs::read_to_string(task.join("schedstat")) else {
            continue;
        };
        let mut fields = stat.split_ascii_whitespace();
        sum.ran += Duration::from_nanos(number(fields.next())?);
        sum.waited += Duration::from_nanos(number(fields.next())?);
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        for child in children.split_ascii_whitespace() {
            pids.push(number(Some(child))?);
        }
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in brackets; user time is the 14th of all.
    let (_, after_name) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    sum.user += Duration::from_nanos(number::<u64>(fields.next())? * TICK);
    sum.system += Duration::from_nanos(number::<u64>(fields.next())? * TICK);
    Ok(())
}

fn number<T: FromStr>(field: Option<&str>) -> Result<T> {
    let value = field.and_then(|text| text.parse().ok());
    value.context("a figure that is no number")
}
