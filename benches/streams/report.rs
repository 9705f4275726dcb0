//! From what was heard and held to a table, and to what is wrong with it.

use std::time::Duration;

use crate::Load;
use crate::cpu::Usage;
use crate::listener::{Heard, LATEST};

/// What a stream through the gateway may hold above one through the bare proxy, KiB.
const MOST: f64 = 8.0;
/// So many in a hundred of the events that are due must have been sent.
const ENOUGH: u64 = 98;

/// What the load came to through one proxy.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) streams: u64,
    pub(crate) heard: Heard,
    /// Memory before there was a stream, KiB.
    pub(crate) before: u32,
    /// The most of it while all were open.
    pub(crate) open: u32,
    /// Processor time while it was measured.
    pub(crate) cpu: Usage,
    /// How long that took.
    pub(crate) time: Duration,
}

impl Line {
    /// What a stream holds, KiB.
    fn each(&self) -> f64 {
        (f64::from(self.open) - f64::from(self.before)) / self.streams as f64
    }
}

/// The table's head.
pub(crate) fn head() {
    println!(
        "\n{:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9} {:>12} {:>6} {:>6}",
        "",
        "streams",
        "events",
        "p50 ms",
        "p99 ms",
        "max ms",
        "> 50 ms",
        "before MiB",
        "open MiB",
        "KiB a stream",
        "busy",
        "waited"
    );
}

/// A line of it.
pub(crate) fn line(line: &Line) {
    let heard = &line.heard;
    let share = |time: Duration| 100.0 * time.as_secs_f64() / line.time.as_secs_f64();
    println!(
        "{:<10} {:>8} {:>8} {:>8.2} {:>8.2} {:>8.2} {:>8} {:>10.1} {:>9.1} {:>12.1} {:>5.1}% {:>5.1}%",
        line.name,
        line.streams,
        heard.events,
        milliseconds(heard.p50),
        milliseconds(heard.p99),
        milliseconds(heard.max),
        heard.late,
        f64::from(line.before) / 1024.0,
        f64::from(line.open) / 1024.0,
        line.each(),
        share(line.cpu.ran),
        share(line.cpu.waited),
    );
}

/// Prints how both differ, and says what is wrong.
pub(crate) fn judge(load: Load, bare: &Line, gateway: &Line) -> Vec<String> {
    let above = gateway.each() - bare.each();
    let latest = milliseconds(gateway.heard.max);
    println!(
        "\na stream through {} holds {above:+.1} KiB beside one through {}, of {MOST} allowed; its latest event came \
         after {latest:.2} ms, of {} allowed",
        gateway.name,
        bare.name,
        LATEST.as_millis(),
    );
    let mut wrong = Vec::new();
    if above > MOST {
        wrong.push(format!("a stream holds {above:.1} KiB more, not {MOST}"));
    }
    if gateway.heard.late > 0 {
        wrong.push(format!(
            "{} of {} events came late, the last of them after {latest:.1} ms; through {}: {}, and {:.1} ms",
            gateway.heard.late,
            gateway.heard.events,
            bare.name,
            bare.heard.late,
            milliseconds(bare.heard.max),
        ));
    }
    let due = load.streams * load.seconds;
    for line in [bare, gateway] {
        if line.heard.events < due * ENOUGH / 100 {
            wrong.push(format!(
                "{}: only {} events were sent of {due}; the machine is too slow for this load",
                line.name, line.heard.events
            ));
        }
    }
    wrong
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
