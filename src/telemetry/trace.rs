//! What is told of one request to whoever collects traces: a span for the request, one for each try, one for a stream.
//!
//! A request that is sampled notes its tries on the way, in its [`Record`]; the spans are made of that when it ends, and left
//! to a thread of their own. One that is not sampled tells providers where it stands in its trace, and nothing else.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use smol_str::SmolStr;
use tokio::time::Instant;

use super::context::{self, Context};
use super::lines::Lines;
use super::record::Entered;
use super::{End, Outcome, Record, RequestId};
use crate::usage::{Money, Usage};

/// So many requests wait to be told of, at most; further ones are lost and counted.
pub const MOST_WAITING: usize = 4_096;

/// What part of the traces that begin here is told, out of 2^63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Of a whole: from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is kept between nothing and the whole, and a share need not be exact"
    )]
    pub fn of(part: f64) -> Self {
        const WHOLE: f64 = 9_223_372_036_854_775_808.0;
        Self((part.clamp(0.0, 1.0) * WHOLE) as u64)
    }

    /// Whether one with this number is among them, for numbers as good as random.
    fn has(self, number: u64) -> bool {
        number >> 1 < self.0
    }
}

/// Begins traces, and has what ends told.
pub struct Tracer {
    lines: Arc<Lines<Told>>,
    share: Share,
    /// Scatters a counter: nobody can say which number is next.
    keyed: RandomState,
    next: AtomicU64,
}

impl Tracer {
    /// One that leaves what it tells to `lines`.
    pub fn new(lines: Arc<Lines<Told>>, share: Share) -> Self {
        Self {
            lines,
            share,
            keyed: RandomState::new(),
            next: AtomicU64::new(0),
        }
    }

    /// A number that nobody else has, as good as random, and not zero.
    fn number(&self) -> u64 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.keyed.hash_one(n).max(1)
    }

    /// A trace that begins here.
    fn context(&self) -> Context {
        let (high, low) = (self.number(), self.number());
        Context {
            trace: u128::from(high) << 64 | u128::from(low),
            span: self.number(),
            is_sampled: self.share.has(low),
        }
    }

    /// The trace of a request with this head. Whether it is told the client has said, if it said anything.
    fn trace(
        &self,
        method: &Method,
        headers: &HeaderMap,
        called: impl FnOnce() -> Option<Called>,
    ) -> Trace {
        let parent = Context::of(headers);
        let mut context = parent.unwrap_or_else(|| self.context());
        let noted = context.is_sampled.then(|| {
            if parent.is_some() {
                context.span = self.number();
            }
            Box::new(Noted {
                parent,
                state: parent.and_then(|_| context::state(headers)),
                method: name(method),
                called: called(),
                tries: Vec::new(),
                current: None,
            })
        });
        Trace {
            context,
            is_continued: parent.is_some(),
            noted,
        }
    }
}

/// A method as it is told: what a client may have made up has one name.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

/// Where a request stands in its trace.
pub(super) struct Trace {
    /// Its own span. Of one that is not sampled: its client's, which is passed on.
    context: Context,
    /// The client began it: what it says in `tracestate` belongs to it.
    is_continued: bool,
    /// None: it is not sampled.
    noted: Option<Box<Noted>>,
}

/// What was called.
#[derive(Debug)]
pub struct Called {
    /// Its path, without what differs from one request to the next.
    pub route: String,
    /// A model is asked there.
    pub is_model: bool,
}

/// What is noted on the way of a request that is sampled.
struct Noted {
    parent: Option<Context>,
    state: Option<Box<str>>,
    method: &'static str,
    /// What was called. None: nothing of ours.
    called: Option<Called>,
    /// Those that came to something, but for the last.
    tries: Vec<Tried>,
    /// The last one: its answer is the client's, if it is one.
    current: Option<Tried>,
}

/// One request to a provider.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    pub(super) span: u64,
    /// `provider/model`.
    pub(super) target: Arc<str>,
    /// Where that is: a name, an address or a path, and a port if there are any.
    pub(super) server: Option<(String, Option<u16>)>,
    began: Instant,
    /// When it came to nothing.
    ended: Option<Instant>,
    /// What it came to. None: it was still under way at the end.
    pub(super) outcome: Option<Outcome>,
    /// The status that it was answered with.
    pub(super) status: Option<u16>,
    /// What it was entered with.
    pub(super) entered: Option<Entered>,
}

/// What a provider is told of the trace, in place of what the client said.
#[derive(Clone, Debug)]
pub struct Onward {
    parent: HeaderValue,
    /// What the client says in `tracestate` is passed on.
    keeps_state: bool,
}

impl Onward {
    /// Writes it over what the client said.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(context::PARENT, self.parent.clone());
        if !self.keeps_state {
            headers.remove(context::STATE);
        }
    }
}

impl Trace {
    /// For a try beside another one: it notes its own.
    pub(super) fn aside(&self) -> Self {
        let noted = self.noted.as_ref().map(|noted| {
            Box::new(Noted {
                parent: None,
                state: None,
                method: noted.method,
                called: None,
                tries: Vec::new(),
                current: None,
            })
        });
        Self { noted, ..*self }
    }

    /// The try under way, if it is noted.
    fn current(&mut self) -> Option<&mut Tried> {
        self.noted.as_mut()?.current.as_mut()
    }

    /// The try under way came to something.
    pub(super) fn ends(&mut self, outcome: Outcome) {
        if let Some(tried) = self.current() {
            tried.outcome = Some(outcome);
            // Of an answer there is more to come.
            tried.ended = (outcome != Outcome::Answered).then(Instant::now);
        }
    }

    /// The last try was entered with this.
    pub(super) fn enters(&mut self, entered: Entered) {
        if let Some(tried) = self.current() {
            tried.entered = Some(entered);
        }
    }

    /// All tries, the last one too.
    pub(super) fn leaves(&mut self) -> Vec<Tried> {
        let Some(noted) = &mut self.noted else {
            return Vec::new();
        };
        let mut tries = std::mem::take(&mut noted.tries);
        tries.extend(noted.current.take());
        tries
    }

    /// What a try beside this one's came to.
    pub(super) fn collects(&mut self, tries: Vec<Tried>) {
        if let Some(noted) = &mut self.noted {
            noted.tries.extend(tries);
        }
    }

    /// The try beside this one's is the one that answers.
    pub(super) fn takes_over(&mut self, aside: &mut Self) {
        let (Some(noted), Some(other)) = (&mut self.noted, &mut aside.noted) else {
            return;
        };
        noted.tries.extend(noted.current.take());
        noted.current = other.current.take();
    }
}

impl Record {
    /// Its head is known, and with it where it stands in a trace.
    pub fn is_traced(
        &mut self,
        method: &Method,
        headers: &HeaderMap,
        called: impl FnOnce() -> Option<Called>,
    ) {
        if let Some(tracer) = &self.telemetry.tracer {
            self.trace = Some(tracer.trace(method, headers, called));
        }
    }

    /// The try that began goes out, to this server.
    pub fn goes_to(&mut self, server: impl FnOnce() -> Option<(String, Option<u16>)>) {
        let (Some(tracer), Some(target)) = (&self.telemetry.tracer, &self.target) else {
            return;
        };
        let trace = self.trace.as_mut();
        if let Some(noted) = trace.and_then(|trace| trace.noted.as_mut()) {
            let before = noted.current.replace(Tried {
                span: tracer.number(),
                target: Arc::clone(target),
                server: server(),
                began: Instant::now(),
                ended: None,
                outcome: None,
                status: None,
                entered: None,
            });
            noted.tries.extend(before);
        }
    }

    /// What whoever is asked now hears of the trace. None: what the client said.
    pub fn onward(&self) -> Option<Onward> {
        let trace = self.trace.as_ref()?;
        let current = trace.noted.as_ref().and_then(|it| it.current.as_ref());
        let span = current.map_or(trace.context.span, |tried| tried.span);
        let context = Context {
            span,
            ..trace.context
        };
        Some(Onward {
            parent: context.header(),
            keeps_state: trace.is_continued,
        })
    }

    /// The provider that was asked last answers with this status.
    pub fn hears(&mut self, status: StatusCode) {
        if let Some(tried) = self.trace.as_mut().and_then(Trace::current) {
            tried.status = Some(status.as_u16());
        }
    }

    /// Has it told, if it is sampled. It ended then for its client.
    pub(super) fn is_told(&mut self, end: End, now: Instant) {
        let (Some(tracer), Some(trace)) = (&self.telemetry.tracer, self.trace.take()) else {
            return;
        };
        let Some(noted) = trace.noted else {
            return;
        };
        // Whoever was not let in has no say in what is told: anybody could fill the collector.
        if self.key.is_none() && noted.parent.is_some() && !tracer.share.has(tracer.number()) {
            return;
        }
        let told = Told::of(self, (trace.context, *noted), end, now);
        let spans = told.spans();
        if !tracer.lines.push(told) {
            self.telemetry.metrics.spans.lost(spans);
        }
    }
}

/// A request that is over, as it is told.
#[derive(Debug)]
pub struct Told {
    /// Its own span.
    pub(super) context: Context,
    pub(super) parent: Option<Context>,
    pub(super) state: Option<Box<str>>,
    pub(super) method: &'static str,
    pub(super) called: Option<Called>,
    pub(super) id: RequestId,
    pub(super) api: &'static str,
    pub(super) key: Option<SmolStr>,
    /// The label of the model, if there is one.
    pub(super) model: Option<Arc<str>>,
    /// The model as it was asked for, shortened.
    pub(super) asked: Option<Box<str>>,
    /// Who was asked last.
    pub(super) target: Option<Arc<str>>,
    pub(super) count: u32,
    pub(super) tries: Vec<Tried>,
    pub(super) status: u16,
    pub(super) code: Option<&'static str>,
    pub(super) end: End,
    pub(super) is_stream: bool,
    began: Instant,
    content: Option<Instant>,
    /// When it ended for its client.
    ended: Instant,
    /// When it was over, which may be later: it was read on; by both clocks.
    over: (Instant, SystemTime),
    /// The tokens of the try that was entered last.
    pub(super) usage: Option<Usage>,
    /// What all tries cost.
    pub(super) cost: Option<Money>,
}

/// When a span began and ended.
pub(super) type Times = (SystemTime, SystemTime);

impl Told {
    fn of(record: &Record, (context, mut noted): (Context, Noted), end: End, now: Instant) -> Self {
        noted.tries.extend(noted.current.take());
        Self {
            context,
            parent: noted.parent,
            state: noted.state,
            method: noted.method,
            called: noted.called,
            id: record.id,
            api: record.api,
            key: record.key.clone(),
            model: record.route.as_ref().map(|route| Arc::clone(&route.name)),
            asked: record.asked.clone(),
            target: record.target.clone(),
            count: record.tries,
            tries: noted.tries,
            status: record.status,
            code: record.code,
            end,
            is_stream: record.streamed,
            began: record.began,
            content: record.content,
            ended: now,
            over: (
                record.left.map_or(now, |_| Instant::now()),
                SystemTime::now(),
            ),
            usage: record.usage,
            cost: record.cost,
        }
    }

    /// How many spans are made of it.
    pub fn spans(&self) -> u64 {
        1 + self.tries.len() as u64 + u64::from(self.stream().is_some())
    }

    /// The time of an instant that is over, by the calendar.
    fn at(&self, instant: Instant) -> SystemTime {
        let (over, wall) = self.over;
        let ago = over.saturating_duration_since(instant);
        wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// From its head to its end for its client.
    pub(super) fn times(&self) -> Times {
        (self.at(self.began), self.at(self.ended))
    }

    /// From when a try went out to when it came to nothing, or else to the end of its answer.
    pub(super) fn times_of(&self, tried: &Tried) -> Times {
        let ended = tried.ended.unwrap_or(self.over.0);
        (self.at(tried.began), self.at(ended))
    }

    /// The try whose answer is the client's.
    pub(super) fn answered(&self) -> Option<&Tried> {
        let last = self.tries.last();
        last.filter(|tried| tried.outcome == Some(Outcome::Answered))
    }

    /// From the first content of a stream to its end; and how long a client of the provider waited for that.
    pub(super) fn stream(&self) -> Option<(Times, Duration)> {
        let content = self.content.filter(|_| self.is_stream)?;
        let waited = content.saturating_duration_since(self.answered()?.began);
        Some(((self.at(content), self.at(self.over.0)), waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as good as random, and always the same.
    fn numbers() -> impl Iterator<Item = u64> {
        // SplitMix64: <https://prng.di.unimi.it/splitmix64.c>
        (1..=10_000_u64).map(|n| {
            let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        })
    }

    #[test]
    fn so_many_are_sampled_as_the_share_says() {
        let count = |part: f64| {
            let share = Share::of(part);
            numbers().filter(|number| share.has(*number)).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        assert!(Share::of(1.0).has(u64::MAX));
        // Four standard deviations.
        assert!((4_800..=5_200).contains(&count(0.5)), "{}", count(0.5));
        assert!((880..=1_120).contains(&count(0.1)), "{}", count(0.1));
        assert_eq!((count(-1.0), count(2.0), count(f64::NAN)), (0, 10_000, 0));
    }

    #[test]
    fn whoever_is_sampled_at_a_share_is_at_a_larger_one() {
        let (some, more) = (Share::of(0.3), Share::of(0.6));
        assert!(numbers().all(|number| more.has(number) || !some.has(number)));
    }

    #[test]
    fn a_method_that_is_made_up_has_no_name_of_its_own() {
        assert_eq!(name(&Method::POST), "POST");
        assert_eq!(name(&Method::from_bytes(b"SECRET").unwrap()), "_OTHER");
    }
}
