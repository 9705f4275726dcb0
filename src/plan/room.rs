//! How much does a target take? Its limits, which hold over all models, and what becomes of requests beyond them.

use std::time::Duration;

use super::compile::Compiler;
use crate::admission::limits::{Concurrency, Line};
use crate::config;

/// What is written of how much a target takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) limits: config::Limits,
    adaptive: Option<config::Adaptive>,
    queue: Option<config::Queue>,
    pub(super) load: Option<Duration>,
}

/// What somebody has beside fixed limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// How many requests may be under way is found out.
    pub(super) adaptive: Option<Concurrency>,
    /// Where others wait.
    pub(super) line: Option<Line>,
}

impl Written {
    /// Nothing is, where nothing is said of any of it.
    fn of(target: &config::Target) -> Option<Self> {
        let written = Self {
            limits: target.limits.unwrap_or_default(),
            adaptive: target.adaptive,
            queue: target.queue,
            load: target.load_timeout,
        };
        (written != Self::default()).then_some(written)
    }

    /// What that means. Where there is a limit on requests under way, others wait, if nothing else is said.
    pub(super) fn room(&self) -> Room {
        let adaptive = self.adaptive.map(|it| Concurrency::Adaptive {
            least: it.least,
            most: it.most,
        });
        let is_limited = self.limits.concurrency.is_some() || adaptive.is_some();
        let queue = self.queue.unwrap_or_default();
        let line = Line {
            most: queue.most,
            wait: queue.wait,
        };
        Room {
            adaptive,
            line: Some(line).filter(|line| is_limited && line.most > 0),
        }
    }
}

impl Compiler<'_> {
    /// What targets take is the same wherever any of it is written.
    pub(super) fn target_limits(&mut self) {
        for (model, entry) in &self.config.models {
            for (n, target) in entry.targets.iter().enumerate() {
                let Some(written) = Written::of(target) else {
                    continue;
                };
                let known = *self.target_limits.entry(&target.to).or_insert(written);
                let n = n.to_string();
                let at = |field| ["models", model, "targets", &n, field];
                if known != written {
                    let message = format!(
                        "{} has other limits elsewhere; they hold over all models: write them once",
                        target.to
                    );
                    self.flaw(at("limits"), message);
                }
                let Written {
                    limits,
                    adaptive,
                    queue,
                    ..
                } = written;
                if limits.concurrency.is_some() && adaptive.is_some() {
                    let message =
                        "there is a fixed `concurrency` in `limits` already; write one of them";
                    self.flaw(at("adaptive"), message);
                }
                if adaptive.is_some_and(|it| it.least > it.most) {
                    self.flaw(at("adaptive"), "`least` is more than `most`");
                }
                if queue.is_some() && limits.concurrency.is_none() && adaptive.is_none() {
                    let message = "nobody waits where any number of requests may be under way; write `limits = { concurrency = 1 }`, or `adaptive`";
                    self.flaw(at("queue"), message);
                }
            }
        }
    }
}
