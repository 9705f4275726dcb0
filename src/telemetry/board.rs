//! How does what requests counted become metrics? All meters that were ever looked up, read when somebody asks.
//!
//! The crate's own counters are an allocation each, and its children are found by hashing their labels. With a thousand
//! targets that is memory no cache holds. So what each request counts lies in the [`meters`](super::meters), and is put
//! into the crate's form here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::counts::{Count, Distribution, Times};
use super::labels::{KeyLabel, Labels};
use super::meters::{BOUNDS, RouteMeters, Spend, TargetMeters};
use super::metrics::dollars;
use super::{End, Outcome};
use crate::usage::{KINDS, Money};

/// The bounds of what tollgate itself takes.
const OVERHEAD_BOUNDS: [Duration; 13] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_secs(1),
];

/// A family of metrics.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// In the order of the alphabet, as the crate has them.
    labels: &'static [&'static str],
}

const DURATION: Family = Family {
    name: "tollgate_request_duration_seconds",
    help: "From a request's head to its answer's last byte.",
    kind: MetricType::HISTOGRAM,
    labels: &["api", "model"],
};
const FIRST_CONTENT: Family = Family {
    name: "tollgate_time_to_first_content_seconds",
    help: "From a request's head to the first content of its answer.",
    kind: MetricType::HISTOGRAM,
    labels: &["target"],
};
const OVERHEAD: Family = Family {
    name: "tollgate_overhead_seconds",
    help: "Time a request spent in tollgate itself, by phase: `request` is from its head to the first try.",
    kind: MetricType::HISTOGRAM,
    labels: &["phase"],
};
const TRIES: Family = Family {
    name: "tollgate_tries_total",
    help: "Requests to targets, by what they came to.",
    kind: MetricType::COUNTER,
    labels: &["outcome", "target"],
};
const STREAMS: Family = Family {
    name: "tollgate_streams_total",
    help: "Streamed answers, by how they ended.",
    kind: MetricType::COUNTER,
    labels: &["end", "target"],
};
const TOKENS: Family = Family {
    name: "tollgate_tokens_total",
    help: "Tokens as they were entered: what providers told, or else an estimate; the kinds are disjoint.",
    kind: MetricType::COUNTER,
    labels: &["kind", "model", "target"],
};
const UNITS: Family = Family {
    name: "tollgate_units_total",
    help: "What was used that is no token, as it was entered: characters, seconds, images, searches.",
    kind: MetricType::COUNTER,
    labels: &["kind", "model", "target"],
};
const SPEND: Family = Family {
    name: "tollgate_spend_usd_total",
    help: "What tries cost, those included that were given up, in US dollars.",
    kind: MetricType::COUNTER,
    labels: &["key", "model", "target"],
};
const IN_FLIGHT: Family = Family {
    name: "tollgate_in_flight",
    help: "Requests under way.",
    kind: MetricType::GAUGE,
    labels: &["model"],
};

/// All meters.
#[derive(Default)]
pub(super) struct Board {
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteMeters>>>,
    /// By their own label and their model's.
    targets: Mutex<BTreeMap<[Arc<str>; 2], Arc<TargetMeters>>>,
    /// What was spent at targets for other models than their own, likewise.
    instead: Mutex<BTreeMap<[Arc<str>; 2], Spend>>,
    overhead: Times<{ OVERHEAD_BOUNDS.len() }>,
    /// The keys that have a label of their own.
    pub(super) keys: Labels,
}

impl Board {
    /// What is counted about a model: the same for the same label.
    pub(super) fn route(&self, name: &str) -> Arc<RouteMeters> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let name: Arc<str> = name.into();
        let new = || Arc::new(RouteMeters::of(Arc::clone(&name)));
        Arc::clone(routes.entry(Arc::clone(&name)).or_insert_with(new))
    }

    /// What is counted about a target of a model: the same for the same labels.
    pub(super) fn target(&self, model: &str, name: &str) -> Arc<TargetMeters> {
        let model = Arc::clone(&self.route(model).name);
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = [name.into(), model];
        let [name, model] = labels.clone();
        let new = || Arc::new(TargetMeters::of(model, name));
        Arc::clone(targets.entry(labels).or_insert_with(new))
    }

    /// A target of another model was asked in place of this one's: it is spent for this one.
    #[cold]
    pub(super) fn pays_instead(
        &self,
        route: &RouteMeters,
        target: &TargetMeters,
        cost: Money,
        key: KeyLabel,
    ) {
        let labels = [Arc::clone(&target.name), Arc::clone(&route.name)];
        let mut instead = self.instead.lock().unwrap_or_else(PoisonError::into_inner);
        instead.entry(labels).or_default().pays(cost, key);
    }

    /// So long a request was with us before it went anywhere.
    pub(super) fn held_up(&self, time: Duration) {
        self.overhead.observe(time, &OVERHEAD_BOUNDS);
    }

    fn of_models(&self) -> [MetricFamily; 2] {
        let routes = all(&self.routes);
        let in_flight = routes.iter().map(|it| {
            let mut gauge = Gauge::default();
            gauge.set_value(number(it.in_flight.get()));
            IN_FLIGHT.with(&[&it.name], |metric| metric.set_gauge(gauge))
        });
        let durations = routes.iter().flat_map(|it| {
            it.times().map(|(api, times)| {
                let mut seen = Distribution::default();
                times.add_to(&mut seen);
                DURATION.times(&[api, &it.name], &seen, &BOUNDS)
            })
        });
        [IN_FLIGHT.of(in_flight), DURATION.of(durations)]
    }

    fn of_targets(&self) -> [MetricFamily; 5] {
        let all = all(&self.targets);
        let (mut tries, mut streams) = (Vec::new(), Vec::new());
        let (mut first_content, mut tokens, mut units) = (Vec::new(), Vec::new(), Vec::new());
        // A target of several models has one line of those that do not tell models apart.
        for same in all.chunk_by(|one, other| one.name == other.name) {
            let Some(name) = same.first().map(|it| &*it.name) else {
                continue;
            };
            for (n, outcome) in Outcome::ALL.into_iter().enumerate() {
                let sum = sum(same, |it| it.tries.get(n));
                tries.push(TRIES.count(&[outcome.name(), name], sum));
            }
            for (n, end) in End::ALL.into_iter().enumerate() {
                let sum = sum(same, |it| it.ends.get(n));
                streams.push(STREAMS.count(&[end.name(), name], sum));
            }
            let mut seen = Distribution::default();
            for it in same {
                it.first_content.add_to(&mut seen);
            }
            first_content.push(FIRST_CONTENT.times(&[name], &seen, &BOUNDS));
        }
        for it in all {
            for (kind, count) in KINDS.into_iter().zip(&it.tokens) {
                tokens.push(TOKENS.count(&[kind, &it.model, &it.name], number(count.get())));
            }
            let own = KINDS.into_iter().skip(it.tokens.len()).zip(&it.units);
            // Most targets use none of them.
            for (kind, count) in own.filter(|(_, count)| count.get() > 0) {
                units.push(UNITS.count(&[kind, &it.model, &it.name], number(count.get())));
            }
        }
        [
            TRIES.of(tries),
            STREAMS.of(streams),
            FIRST_CONTENT.of(first_content),
            TOKENS.of(tokens),
            UNITS.of(units),
        ]
    }

    /// What was spent at each target for each model, whether it is that model's or not.
    fn of_spend(&self) -> MetricFamily {
        let mut sums: BTreeMap<([Arc<str>; 2], usize), Money> = BTreeMap::new();
        let mut add = |labels: &[Arc<str>; 2], spend: &Spend| {
            for (key, paid) in spend.all() {
                let sum = sums.entry((labels.clone(), key)).or_default();
                *sum = sum.plus(paid);
            }
        };
        for it in all(&self.targets) {
            add(&[Arc::clone(&it.name), Arc::clone(&it.model)], &it.spend);
        }
        let instead = self.instead.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, spend) in &*instead {
            add(labels, spend);
        }
        drop(instead);
        let keys = self.keys.known();
        let lines = sums.iter().filter_map(|(([name, model], key), sum)| {
            // Every label that was given before is among `keys`.
            let key = keys.text(*key)?;
            Some(SPEND.count(&[key, model, name], dollars(*sum)))
        });
        SPEND.of(lines)
    }
}

/// All that there are, in order. Nobody who looks for one waits until they are read.
fn all<K, M>(meters: &Mutex<BTreeMap<K, Arc<M>>>) -> Vec<Arc<M>> {
    let meters = meters.lock().unwrap_or_else(PoisonError::into_inner);
    meters.values().cloned().collect()
}

/// The sum of one count over several meters.
fn sum(all: &[Arc<TargetMeters>], count: impl Fn(&TargetMeters) -> Option<&Count>) -> f64 {
    let counts = all.iter().filter_map(|it| count(it));
    number(counts.map(Count::get).sum())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53; the form has no integers"
)]
fn number(count: u64) -> f64 {
    count as f64
}

impl Family {
    const ALL: [Self; 8] = [
        DURATION,
        FIRST_CONTENT,
        OVERHEAD,
        TRIES,
        STREAMS,
        TOKENS,
        SPEND,
        IN_FLIGHT,
    ];

    /// With these metrics.
    fn of(&self, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.into());
        family.set_help(self.help.into());
        family.set_field_type(self.kind);
        family.set_metric(metrics.into_iter().collect());
        family
    }

    /// A metric with these values of its labels.
    fn with(&self, values: &[&str], set: impl FnOnce(&mut Metric)) -> Metric {
        let pairs = self.labels.iter().zip(values).map(|(label, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*label).into());
            pair.set_value((*value).into());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        set(&mut metric);
        metric
    }

    fn count(&self, values: &[&str], value: f64) -> Metric {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.with(values, |metric| metric.set_counter(counter))
    }

    fn times<const N: usize>(
        &self,
        values: &[&str],
        seen: &Distribution<N>,
        bounds: &[Duration; N],
    ) -> Metric {
        let mut so_far = 0;
        let buckets = bounds.iter().zip(seen.within).map(|(bound, within)| {
            so_far += within;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(so_far);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(so_far + seen.beyond);
        histogram.set_sample_sum(seen.sum.as_secs_f64());
        self.with(values, |metric| metric.set_histogram(histogram))
    }
}

/// A board that a registry reads.
pub(super) struct Shown {
    board: Arc<Board>,
    descs: Vec<Desc>,
}

impl Shown {
    /// Fails for a malformed name only, which a test would find.
    pub(super) fn new(board: Arc<Board>) -> prometheus::Result<Self> {
        let desc = |family: &Family| {
            let labels = family.labels.iter().map(|label| (*label).into());
            Desc::new(
                family.name.into(),
                family.help.into(),
                labels.collect(),
                HashMap::new(),
            )
        };
        let descs = Family::ALL.iter().map(desc);
        Ok(Self {
            descs: descs.collect::<Result<_, _>>()?,
            board,
        })
    }
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut overhead = Distribution::default();
        self.board.overhead.add_to(&mut overhead);
        let overhead = OVERHEAD.times(&["request"], &overhead, &OVERHEAD_BOUNDS);
        let mut families = vec![OVERHEAD.of([overhead])];
        families.extend(self.board.of_models());
        families.extend(self.board.of_targets());
        families.push(self.board.of_spend());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_labels_have_the_same_meters() {
        let board = Board::default();
        let one = board.target("fast", "p/m");
        assert!(Arc::ptr_eq(&one, &board.target("fast", "p/m")));
        assert!(!Arc::ptr_eq(&one, &board.target("slow", "p/m")));
        let route = board.route("fast");
        assert!(Arc::ptr_eq(&route, &board.route("fast")));
        assert!(one.is_of(&route) && !one.is_of(&board.route("slow")));
    }

    #[test]
    fn a_target_of_two_models_has_one_line_of_what_does_not_tell_models_apart() {
        let board = Arc::new(Board::default());
        for (model, tokens, ms) in [("fast", 5, 7), ("slow", 8, 70_000)] {
            let target = board.target(model, "p/m");
            target.try_ends(Outcome::Answered);
            target.stream_ends(End::Complete);
            target.count(crate::usage::Usage {
                input: tokens,
                ..Default::default()
            });
            let time = Duration::from_millis(ms);
            target.first_content.observe(time, &BOUNDS);
        }
        let registry = prometheus::Registry::new();
        let shown = Shown::new(board).unwrap();
        registry.register(Box::new(shown)).unwrap();
        let mut text = Vec::new();
        let families = registry.gather();
        prometheus::Encoder::encode(&prometheus::TextEncoder::new(), &families, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            r#"tollgate_tries_total{outcome="answered",target="p/m"} 2"#,
            r#"tollgate_streams_total{end="complete",target="p/m"} 2"#,
            r#"tollgate_tokens_total{kind="input",model="fast",target="p/m"} 5"#,
            r#"tollgate_tokens_total{kind="input",model="slow",target="p/m"} 8"#,
            r#"tollgate_time_to_first_content_seconds_bucket{target="p/m",le="0.01"} 1"#,
            r#"tollgate_time_to_first_content_seconds_bucket{target="p/m",le="60"} 1"#,
            r#"tollgate_time_to_first_content_seconds_bucket{target="p/m",le="120"} 2"#,
            r#"tollgate_time_to_first_content_seconds_bucket{target="p/m",le="+Inf"} 2"#,
            r#"tollgate_time_to_first_content_seconds_sum{target="p/m"} 70.007"#,
            r#"tollgate_time_to_first_content_seconds_count{target="p/m"} 2"#,
        ] {
            let lines = text.lines().filter(|it| *it == line).count();
            assert_eq!(lines, 1, "{line} in\n{text}");
        }
    }
}
