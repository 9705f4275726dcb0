//! Every metric: those of the whole gateway here, one documented line each; what each request counts about its model and
//! its target in `board`. Label values come from the configuration, never from a client: this crate tells children apart by
//! a hash only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use smol_str::SmolStr;
use tokio::time::Instant;

use super::board::{Board, Shown};
use super::labels::KeyLabel;
use super::meters::BOUNDS;
pub use super::meters::{RouteMeters, TargetMeters};
pub use super::observed::{Observed, SeenTarget};
use super::{End, Record};
use crate::usage::Money;

/// The content type of [`Metrics::read`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// All metrics of one gateway, in a registry of its own.
pub struct Metrics {
    registry: Registry,
    /// What each request counts about its model and its target.
    pub(super) board: Arc<Board>,
    requests: IntCounterVec,
    rejections: IntCounterVec,
    budgets: GaugeVec,
    targets_up: IntGaugeVec,
    waiting: IntGaugeVec,
    slots: IntGaugeVec,
    limits: IntGaugeVec,
    prices: IntGaugeVec,
    warnings: IntCounterVec,
    ledger_queue: IntGauge,
    ledger_late: IntGauge,
    ledger_up: IntGauge,
    reloads: IntCounterVec,
    connections: IntGauge,
    certificates: IntGaugeVec,
    /// Lines of logs that were not written.
    pub lines_lost: IntCounter,
    /// Texts of lines that are not all there.
    pub texts_lost: IntCounter,
    /// Spans, by what became of them.
    pub spans: Spans,
    /// One reads at a time: what is observed is taken out and set anew, and nobody may look meanwhile.
    reading: Mutex<()>,
}

/// What became of spans.
#[derive(Clone)]
pub struct Spans(IntCounterVec);

impl Spans {
    /// The collector has taken so many.
    pub fn sent(&self, count: u64) {
        self.0.with_label_values(&["sent"]).inc_by(count);
    }

    /// So many are lost: there was no room for them, or the collector did not take them.
    pub fn lost(&self, count: u64) {
        self.0.with_label_values(&["lost"]).inc_by(count);
    }
}

/// Registers a metric. The names are constants of this file, and a test makes them all.
#[expect(
    clippy::expect_used,
    reason = "fails for a malformed or a second name only, which a test would find"
)]
fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("a well-formed metric");
    enroll(registry, Ok(metric.clone()));
    metric
}

/// Has the registry read it.
#[expect(
    clippy::expect_used,
    reason = "fails for a malformed or a second name only, which a test would find"
)]
fn enroll(registry: &Registry, collector: prometheus::Result<impl Collector + 'static>) {
    let collector = collector.expect("a well-formed metric");
    registry
        .register(Box::new(collector))
        .expect("a new metric");
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[expect(
        clippy::too_many_lines,
        reason = "the list of metrics is the reference, in one place"
    )]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let build = Opts::new("tollgate_build_info", "Always 1; the version is the label.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(r, IntGauge::with_opts(build)).set(1);
        let reloads = counters(
            "tollgate_reloads_total",
            "Configurations put in force, or refused.",
            &["outcome"],
        );
        // There from the start: Prometheus sees no increase in what comes with its first count.
        for outcome in ["applied", "refused"] {
            reloads.with_label_values(&[outcome]);
        }
        let board = Arc::<Board>::default();
        enroll(r, Shown::new(Arc::clone(&board)));
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            // The same collector twice is the only way this can fail.
            let _ = r.register(Box::new(process));
        }
        Self {
            requests: counters(
                "tollgate_requests_total",
                "Requests, by how they were answered.",
                &["api", "model", "key", "status"],
            ),
            rejections: counters(
                "tollgate_rejections_total",
                "Requests tollgate itself said no to.",
                &["code"],
            ),
            budgets: register(
                r,
                GaugeVec::new(
                    Opts::new(
                        "tollgate_budget_remaining_usd",
                        "What is neither spent nor set aside of a budget, in US dollars; of the first 1,000: the total's, providers', teams', then keys'.",
                    ),
                    &["scope", "name"],
                ),
            ),
            prices: register(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "tollgate_target_price",
                        "Always 1; how well is known what a target bills: exact, estimated (some tokens at their relatives' rates), unpriced.",
                    ),
                    &["target", "state"],
                ),
            ),
            targets_up: register(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "tollgate_target_up",
                        "1 while a target of a model is asked; 0 while it rests, after failures or at its provider's word.",
                    ),
                    &["target"],
                ),
            ),
            waiting: register(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "tollgate_target_waiting",
                        "Requests that wait in line for a target, where there is a line.",
                    ),
                    &["target"],
                ),
            ),
            slots: register(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "tollgate_target_slots",
                        "How many requests may be under way at a target now, where that is limited or found out.",
                    ),
                    &["target"],
                ),
            ),
            limits: register(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "tollgate_limit_remaining",
                        "What is left now of a key's own limits: rpm, tpm, rpd, concurrency, per_minute.*; of keys that have a label.",
                    ),
                    &["key", "limit"],
                ),
            ),
            warnings: counters(
                "tollgate_budget_warnings_total",
                "Windows in which as much of a budget was spent as its `warn` says.",
                &["scope", "name"],
            ),
            ledger_queue: register(
                r,
                IntGauge::new(
                    "tollgate_ledger_queue",
                    "What waits to be written to the ledger.",
                ),
            ),
            ledger_late: register(
                r,
                IntGauge::new(
                    "tollgate_ledger_late_total",
                    "Ends of answers that did not wait for their entry any longer.",
                ),
            ),
            ledger_up: register(
                r,
                IntGauge::new(
                    "tollgate_ledger_up",
                    "1 while the ledger can write; while it is 0, callers with a budget are refused.",
                ),
            ),
            reloads,
            connections: register(
                r,
                IntGauge::new("tollgate_connections", "Connections of clients."),
            ),
            certificates: register(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "tollgate_certificate_expires_timestamp_seconds",
                        "When the certificate of a listener expires, in seconds since 1970.",
                    ),
                    &["listener"],
                ),
            ),
            lines_lost: register(
                r,
                IntCounter::new(
                    "tollgate_access_lines_lost_total",
                    "Lines of the access log and the log of decisions that were not written: the writer could not keep up, or the disk took no more.",
                ),
            ),
            texts_lost: register(
                r,
                IntCounter::new(
                    "tollgate_access_texts_lost_total",
                    "Texts that log_bodies asks for and that were cut, since too many waited to be written.",
                ),
            ),
            spans: Spans(counters(
                "tollgate_spans_total",
                "Spans of requests that are traced: sent to the collector, or lost.",
                &["outcome"],
            )),
            reading: Mutex::default(),
            board,
            registry,
        }
    }

    /// What is counted about a model, by its label.
    pub fn route(&self, name: &str) -> Arc<RouteMeters> {
        self.board.route(name)
    }

    /// What is counted about a target, by its label and its model's.
    pub fn target(&self, model: &str, name: &str) -> Arc<TargetMeters> {
        self.board.target(model, name)
    }

    /// Gives the first keys a label of their own. A name that once had one keeps it: its counters stand.
    pub fn label_keys(&self, names: impl Iterator<Item = SmolStr>) {
        self.board.keys.give(names);
    }

    /// Whether a key has a label of its own.
    pub fn is_labelled(&self, key: &str) -> bool {
        self.board.keys.has(key)
    }

    pub(super) fn label_of(&self, key: &str) -> KeyLabel {
        self.board.keys.of(key)
    }

    /// Counts a configuration that was `applied`, or `refused`.
    pub fn reloaded(&self, outcome: &'static str) {
        self.reloads.with_label_values(&[outcome]).inc();
    }

    /// Sets how well the price of each target is known, in place of what was set before. The names are the
    /// configuration's.
    pub fn prices<'n>(&self, states: impl Iterator<Item = (&'n str, &'static str)>) {
        self.prices.reset();
        for (target, state) in states {
            self.prices.with_label_values(&[target, state]).set(1);
        }
    }

    /// Sets when the certificate of each listener that has one expires, in place of what was set before.
    pub fn certificates(&self, expiries: impl Iterator<Item = (&'static str, SystemTime)>) {
        self.certificates.reset();
        for (listener, expires) in expiries {
            let gauge = self.certificates.with_label_values(&[listener]);
            let since = expires.duration_since(SystemTime::UNIX_EPOCH);
            gauge.set(whole(since.unwrap_or_default().as_secs()));
        }
    }

    /// Counts a window in which a budget's `warn` was reached. The names are the configuration's.
    pub fn warned(&self, scope: &str, name: &str) {
        self.warnings.with_label_values(&[scope, name]).inc();
    }

    /// Everything, as Prometheus reads it, with what was observed just now. Takes milliseconds: never on a thread that
    /// serves clients.
    pub fn read(&self, observed: &Observed) -> String {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.observe(observed);
        self.text()
    }

    /// Sets what the ledger looks like, as it is read.
    fn observe(&self, observed: &Observed) {
        self.ledger_queue.set(whole(observed.queue as u64));
        self.ledger_late.set(whole(observed.late));
        self.ledger_up.set(i64::from(observed.up));
        self.targets_up.reset();
        self.waiting.reset();
        self.slots.reset();
        for seen in &observed.targets {
            let label = &[&*seen.name];
            let gauge = self.targets_up.with_label_values(label);
            gauge.set(i64::from(seen.is_up));
            if let Some((slots, waiting)) = seen.slots {
                self.slots.with_label_values(label).set(whole(slots));
                let gauge = self.waiting.with_label_values(label);
                gauge.set(whole(waiting as u64));
            }
        }
        self.limits.reset();
        for (key, limit, left) in &observed.limits {
            let gauge = self.limits.with_label_values(&[&**key, limit]);
            gauge.set(whole(*left));
        }
        // A budget that is in force no more has no line.
        self.budgets.reset();
        for (scope, name, left) in &observed.budgets {
            let gauge = self.budgets.with_label_values(&[scope, &**name]);
            gauge.set(dollars(*left));
        }
    }

    /// The gauge of clients' connections.
    pub fn connections(&self) -> IntGauge {
        self.connections.clone()
    }

    /// Everything, but as it was observed last.
    pub(super) fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory fails only for a metric without a name.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(super) fn tell(&self, record: &Record, end: End, now: Instant) {
        if let Some(code) = record.code {
            self.rejections.with_label_values(&[code]).inc();
        }
        let model = record.route.as_ref().map_or("", |route| &*route.name);
        let key = record.label.text(record.key.as_deref().unwrap_or_default());
        let status = status(record.status);
        self.requests
            .with_label_values(&[record.api, model, key, status])
            .inc();
        if let Some(route) = &record.route {
            route.took(record.api, now - record.began);
        }
        if let Some(sent) = record.sent {
            self.board.held_up(sent - record.began);
        }
        let Some(target) = &record.meters else {
            return;
        };
        if let Some(content) = record.content {
            target
                .first_content
                .observe(content - record.began, &BOUNDS);
        }
        if record.streamed {
            target.stream_ends(end);
        }
    }
}

/// For people and their graphs; whoever decides by money decides by whole billionths.
#[expect(clippy::cast_precision_loss, reason = "a graph has fewer digits")]
pub(super) fn dollars(money: Money) -> f64 {
    money.0 as f64 / 1e9
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A status as a label; providers may answer with any number, labels are bounded.
fn status(status: u16) -> &'static str {
    match status {
        200 => "200",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        422 => "422",
        429 => "429",
        499 => "499",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        other => match other / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn who_reads_while_others_read_misses_nothing() {
        let metrics = Metrics::new();
        let targets = (0..200).map(|n| SeenTarget {
            name: format!("p/{n}").into(),
            is_up: true,
            slots: Some((8, 1)),
        });
        let targets = targets.collect();
        let observed = Observed {
            queue: 0,
            late: 0,
            up: true,
            budgets: Vec::new(),
            targets,
            limits: Vec::new(),
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let text = metrics.read(&observed);
                        let lines = text.lines();
                        let up = lines.filter(|line| line.starts_with("tollgate_target_up{"));
                        assert_eq!(up.count(), 200);
                    }
                });
            }
        });
    }

    #[test]
    fn every_metric_is_made_and_has_its_help() {
        let metrics = Metrics::new();
        let target = metrics.target("fast", "groq/x");
        target.spend.pays(Money(5), KeyLabel::NOBODY);
        metrics.route("fast");
        metrics.reloaded("applied");
        metrics.rejections.with_label_values(&["x"]).inc();
        metrics
            .requests
            .with_label_values(&["a", "b", "c", "200"])
            .inc();
        for outcome in Outcome::ALL {
            target.try_ends(outcome);
        }
        for end in End::ALL {
            target.stream_ends(end);
        }
        let text = metrics.text();
        for name in [
            "requests_total",
            "rejections_total",
            "request_duration_seconds",
            "time_to_first_content_seconds",
            "overhead_seconds",
            "tries_total",
            "streams_total",
            "tokens_total",
            "spend_usd_total",
            "in_flight",
            "reloads_total",
            "build_info",
        ] {
            assert!(text.contains(&format!("# HELP tollgate_{name} ")), "{name}");
        }
        for outcome in Outcome::ALL {
            let line = format!(
                "tollgate_tries_total{{outcome=\"{}\",target=\"groq/x\"}} 1",
                outcome.name()
            );
            assert!(text.contains(&line), "{line}");
        }
        for end in End::ALL {
            let line = format!(
                "tollgate_streams_total{{end=\"{}\",target=\"groq/x\"}} 1",
                end.name()
            );
            assert!(text.contains(&line), "{line}");
        }
    }
}
