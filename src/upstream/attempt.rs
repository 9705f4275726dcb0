//! Target after target, try after try, within one deadline.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::judge::{self, Judged, NoAnswer};
use super::turn::{self, Chosen, Passed};
use super::{Answer, Call, Cause, Client, Clock, Failure, Span, Tab, decided, hedge};
use crate::envelope::Edits;
use crate::protocol::Endpoint;
use crate::provider::errors::{self, Fault, Retry};
use crate::provider::rules::Refused;
use crate::provider::{Dropped, Provider, Rules};
use crate::route::{Resting, Route, Target, Why, chance};
use crate::telemetry::{Outcome, Record};
use crate::usage::Usage;

/// The first pause is at most this; each further one at most twice the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// No pause of our own is longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A wait that a provider asks for is honoured up to here, and only where there is no other target to go to.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Whether a model is loaded is asked as often as this.
const LOADING_PAUSE: Duration = Duration::from_secs(1);

/// So many tries are made for one request, over all targets of all models that are asked, but for the first of each.
const MOST_TRIES: u32 = 12;

/// Of more targets than this that rest, a failure need not tell.
const MOST_TOLD: usize = 100;

/// Every try came to nothing. The failures are in the order they happened, at least one of them, unless there was no
/// target at all.
#[derive(Debug)]
pub struct Exhausted(pub Vec<Failure>);

/// Asks a route's targets until one answers.
pub async fn run(
    client: &Client,
    route: &Route,
    call: &Call<'_>,
    tab: &mut Tab,
    record: &mut Record,
) -> Result<Box<Answer>, Exhausted> {
    let deadline = call.deadline;
    let mut now = Instant::now();
    let latest = deadline.min(now + LONGEST_WAIT);
    let mut walk = route.walk(&call.asks(tab.bounds()));
    let (mut failures, mut passed) = (Vec::new(), Passed::default());
    record.decides(|| decided::of(route, call, tab));
    'targets: loop {
        let next = decided::chosen(&mut walk, (route, call, tab.bounds()), record, now);
        let mut chosen = match next {
            Some(target) => Chosen::of(target),
            // In a box, as what follows failures: most requests should not be longer for it.
            None => {
                let (asked, way) = ((route, call), (&mut walk, &mut passed));
                let turn = turn::awaited(asked, way, tab, &mut failures, latest);
                let Some(chosen) = Box::pin(turn).await else {
                    break;
                };
                now = Instant::now();
                chosen
            }
        };
        let (target, since) = (chosen.target, now);
        for times in 1.. {
            let began = now;
            if let Err(cause) = tab.begin(&mut chosen, began, (call.wall)()).await {
                passed.notes(target, &cause);
                let failure = Failure::unasked(target, cause);
                record.steps(|began| decided::passed_over(target, call, &failure, now - began));
                failures.push(failure);
                now = Instant::now();
                continue 'targets;
            }
            record.try_begins(&target.name, &target.meters, began);
            let this = Try::of(route, target, call, began);
            let came = match route.hedge.as_deref().filter(|_| tab.tries() == 1) {
                None => watched(client, this, tab, record).await,
                Some(hedge) => {
                    let (way, told) = ((&mut walk, &mut failures), (&mut *tab, &mut *record));
                    Box::pin(hedge::raced(client, (route, hedge), this, way, told)).await
                }
            };
            let failure = match came {
                Ok(answer) => {
                    if answer.body.has_content() {
                        route.allowance.earn();
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            now = Instant::now();
            record.steps(|began| decided::failed(&failure, now - began));
            let tried = Tried {
                target,
                times,
                since,
                is_last: !walk.has_more(now),
            };
            match after(failure, tried, (route, call, tab), &mut failures, now) {
                Next::Nobody => break 'targets,
                Next::Target => continue 'targets,
                Next::Here(pause) | Next::Loading(pause) => {
                    Box::pin(wait(tried, now + pause, deadline)).await;
                    now = Instant::now();
                }
            }
        }
    }
    Err(exhausted(route, failures, now))
}

/// Why nobody answered: those that were not asked rest.
#[cold]
fn exhausted(route: &Route, failures: Vec<Failure>, now: Instant) -> Exhausted {
    let is_told = |name: &Arc<str>| failures.iter().any(|it| Arc::ptr_eq(&it.target, name));
    let others = route.targets.iter().filter(|target| !is_told(&target.name));
    let resting = others.filter_map(|target| {
        let resting = target.health.look(now).err()?;
        Some(Failure::unasked(target, Cause::Resting(resting)))
    });
    let mut all: Vec<Failure> = resting.take(MOST_TOLD).collect();
    all.extend(failures);
    Exhausted(all)
}

/// A target that was tried so many times.
#[derive(Clone, Copy)]
struct Tried<'t> {
    target: &'t Target,
    times: u32,
    /// Since then.
    since: Instant,
    /// There is none after it.
    is_last: bool,
}

impl Tried<'_> {
    /// It may be that it still loads its model: there is time for that, and nobody else to ask.
    fn loads(&self, failure: &Failure, now: Instant) -> bool {
        let is_in_time = |load| now < self.since + load;
        self.is_last
            && self.target.load.is_some_and(is_in_time)
            && failure.is_unready()
            && self.target.health.pace().is_cold(now)
    }
}

/// What comes after a failure, which is noted.
#[cold]
fn after(
    failure: Failure,
    tried: Tried<'_>,
    (route, call, tab): (&Route, &Call<'_>, &Tab),
    failures: &mut Vec<Failure>,
    now: Instant,
) -> Next {
    tracing::debug!(id = call.id.as_str(), target = &*failure.target, cause = %failure.cause, "a try failed");
    let next = if tab.presence().absence().is_some() {
        // Nobody is asked for whoever has left.
        Next::Nobody
    } else {
        next(&failure, tried, call, now)
    };
    // What does not fit says nothing of how its targets are: where it goes next is no retry.
    let is_unfit = failure.unfit().is_some()
        || failure.lacks_endpoint()
        || matches!(failure.cause, Cause::Rehearsed);
    failures.push(failure);
    match next {
        Next::Nobody | Next::Loading(_) => next,
        Next::Target if tried.is_last => Next::Nobody,
        _ if tab.tries() >= MOST_TRIES => Next::Nobody,
        _ if !(is_unfit || route.allowance.take(now)) => {
            failures.push(Failure::unasked(tried.target, Cause::Spent));
            Next::Nobody
        }
        next => next,
    }
}

/// Waits until then before a target is asked again, and if it is the last, for longer where it told others meanwhile that
/// it will have time a little later.
async fn wait(tried: Tried<'_>, mut then: Instant, deadline: Instant) {
    let latest = deadline.min(then + LONGEST_WAIT);
    loop {
        sleep_until(then).await;
        let now = Instant::now();
        match tried.target.health.look(now) {
            Err(rest) if tried.is_last && rest.why == Why::Parked && now + rest.wait < latest => {
                then = now + rest.wait;
            }
            _ => return,
        }
    }
}

/// Who is asked next.
enum Next {
    /// The same target, after a pause.
    Here(Duration),
    /// The same target, after a pause: not because it failed, but because it was not ready.
    Loading(Duration),
    /// The next one.
    Target,
    /// Nobody: that would be no use.
    Nobody,
}

/// Who is asked after a failure.
fn next(failure: &Failure, tried: Tried<'_>, call: &Call<'_>, now: Instant) -> Next {
    let Tried {
        target,
        times,
        is_last,
        ..
    } = tried;
    let is_out_of_time = matches!(failure.cause, Cause::Clock(Clock::Deadline));
    let fails = |resting: Resting| resting.why == Why::Failing;
    match failure.retry {
        _ if is_out_of_time => Next::Nobody,
        _ if tried.loads(failure, now) && now + LOADING_PAUSE < call.deadline => {
            Next::Loading(LOADING_PAUSE)
        }
        Retry::Never => Next::Nobody,
        Retry::Elsewhere => Next::Target,
        Retry::Here if times == target.provider.tries => Next::Target,
        // Whoever cannot be reached now will hardly be in half a second; another can.
        Retry::Here if matches!(failure.cause, Cause::Connect(_)) && !is_last => Next::Target,
        // This was once too often.
        Retry::Here if target.health.look(now).is_err_and(fails) => Next::Target,
        Retry::Here => {
            let random = chance(&RandomState::new(), call.id.as_str());
            match pause(times, failure.wait, is_last, random) {
                // Whoever is next can be asked without a pause.
                Some(pause) if now + pause < call.deadline => Next::Here(pause),
                _ => Next::Target,
            }
        }
    }
}

/// How long to wait before the same target is asked again. None: do not wait, go on.
///
/// Our own pauses are exponential with full jitter: anything from nothing to the whole. A provider's word goes before
/// ours, but nobody waits for one provider while there is another.
fn pause(tried: u32, stated: Option<Duration>, is_last: bool, random: f64) -> Option<Duration> {
    match stated {
        Some(wait) => (is_last && wait <= LONGEST_WAIT).then_some(wait),
        None => {
            let most = FIRST_PAUSE
                .saturating_mul(1 << tried.saturating_sub(1).min(8))
                .min(LONGEST_PAUSE);
            Some(most.mul_f64(random.clamp(0.0, 1.0)))
        }
    }
}

/// What is written down of a try, whatever becomes of it: dropped in its middle, too.
struct Watch<'w> {
    tab: &'w mut Tab,
    record: &'w mut Record,
    /// It has come to something.
    is_over: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.record.enters(self.tab.abandon(None));
            self.record.ends_early(self.tab.presence().absence());
        }
    }
}

/// One try, and what it costs if it comes to nothing.
pub(super) async fn watched(
    client: &Client,
    this: Try<'_>,
    tab: &mut Tab,
    record: &mut Record,
) -> Result<Box<Answer>, Failure> {
    let mut watch = Watch {
        tab,
        record,
        is_over: false,
    };
    let call = this.call;
    let tried = one(client, this, watch.tab, watch.record).await;
    watch.is_over = true;
    match tried {
        Ok(answer) => {
            if answer.body.has_content() {
                let now = Instant::now();
                watch.tab.begins(now);
                watch.record.content.get_or_insert(now);
            }
            if let Some(wait) = errors::reset(&answer.headers, call.wall) {
                watch.tab.parks(wait);
            }
            watch.record.try_ends(Outcome::Answered);
            let name = &this.target.name;
            let steps = |began| decided::answered(name, Instant::now() - began);
            watch.record.steps(steps);
            Ok(answer)
        }
        Err(failed) => {
            let Failed { failure, usage } = *failed;
            let outcome = failure.outcome();
            let entered = watch.tab.fails(&failure, usage);
            watch.record.enters(entered);
            watch.record.try_ends(outcome);
            Err(failure)
        }
    }
}

/// One request to one target.
#[derive(Clone, Copy)]
pub(super) struct Try<'t> {
    pub(super) target: &'t Arc<Target>,
    /// What is changed for every target of its route.
    pub(super) rules: &'t Rules,
    pub(super) call: &'t Call<'t>,
    pub(super) span: Span,
}

impl<'t> Try<'t> {
    /// Of a request that began to be asked then.
    pub(super) fn of(
        route: &'t Route,
        target: &'t Arc<Target>,
        call: &'t Call<'t>,
        began: Instant,
    ) -> Self {
        let deadline = call.deadline;
        Self {
            target,
            rules: &route.rules,
            call,
            span: Span { began, deadline },
        }
    }
}

/// A try that came to nothing.
struct Failed {
    failure: Failure,
    /// What the provider told all the same.
    usage: Option<Usage>,
}

impl From<Failure> for Box<Failed> {
    fn from(failure: Failure) -> Self {
        let usage = None;
        Self::new(Failed { failure, usage })
    }
}

/// Sends it, and reads as much of its answer as it takes to be sure of it.
async fn one(
    client: &Client,
    this: Try<'_>,
    tab: &mut Tab,
    record: &mut Record,
) -> Result<Box<Answer>, Box<Failed>> {
    let Try {
        target,
        rules,
        call,
        ..
    } = this;
    let is_pressed = call.is_hurried || tab.tries() > 1;
    let fail = |cause| failed(&target.name, is_pressed, cause);
    let refuse = |refused: Refused| Failure {
        target: Arc::clone(&target.name),
        cause: Cause::Refused(refused),
        fault: Fault::Client,
        retry: Retry::Elsewhere,
        wait: None,
    };
    let tell = |mut judged: Judged| {
        // Who has no chats has nothing that it could be asked for again.
        judged.said.lacks_endpoint &= call.endpoint != Endpoint::ChatCompletions;
        judged.failure(&target.name)
    };
    let provider = &target.provider;
    let (mut edits, mut dropped) = (call.envelope.edit(), Dropped::default());
    let most = tab.limit(target);
    let limit = |edits: &mut Edits<'_>| {
        if let Some(most) = most {
            provider.protocol.limit_output(call.endpoint, edits, most);
        }
    };
    // Before the rules, which know by what name the model takes it.
    limit(&mut edits);
    if !(rules.is_empty() && target.rules.is_empty()) {
        for rules in [rules, &*target.rules] {
            let applied = rules.apply(call.endpoint, &mut edits, &mut dropped);
            applied.map_err(refuse)?;
        }
        // Again, for a rule may have set more, or taken the limit out.
        limit(&mut edits);
    }
    record.dropped = dropped.header();
    edits.set("model", target.model.clone());
    let hide_usage = call.stream
        && provider.stream_usage
        && call.endpoint.hides_usage()
        && provider.protocol.ask_for_usage(&mut edits)
        && !asks_for_usage(call, provider);
    record.goes_to(|| provider.origin.server());
    let exchange = client
        .exchange(this, edits.into_rope(), record.onward(), tab)
        .await
        .map_err(fail)?;
    record.hears(exchange.status);
    if !exchange.status.is_success() {
        let judged = Box::pin(judge::error(provider, exchange, (call.wall)())).await;
        return Err(tell(judged).into());
    }
    let (status, headers) = (exchange.status, exchange.headers);
    match judge::answer(provider, call, hide_usage, &headers, exchange.inflow).await {
        Ok(body) => Ok(Box::new(Answer {
            status,
            headers,
            body,
        })),
        Err(NoAnswer::Failed(cause)) => Err(fail(cause).into()),
        Err(NoAnswer::Error(told)) => {
            let (usage, now) = (told.usage, (call.wall)());
            let failure = tell(judge::disguised(status, headers, *told, now));
            Err(Box::new(Failed { failure, usage }))
        }
    }
}

/// What did not come to an answer, though the target said nothing against it. It `is_pressed` if it did not have all the
/// time that its route gives.
pub(super) fn failed(target: &Arc<str>, is_pressed: bool, cause: Cause) -> Failure {
    Failure {
        target: Arc::clone(target),
        fault: match cause {
            Cause::Clock(Clock::Deadline) if is_pressed => Fault::Client,
            _ => Fault::Provider,
        },
        retry: match cause {
            // The answer may still come, and be paid for: not a second time at the same place.
            Cause::Clock(_) | Cause::Nonsense(_) | Cause::Stale(_) => Retry::Elsewhere,
            Cause::Rehearsed => Retry::Elsewhere,
            _ => Retry::Here,
        },
        cause,
        wait: None,
    }
}

/// Whether the client asks for the usage itself, whatever the rules made of its words.
fn asks_for_usage(call: &Call<'_>, provider: &Provider) -> bool {
    call.envelope.value("stream_options").is_some()
        && !provider.protocol.ask_for_usage(&mut call.envelope.edit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_providers_word_goes_before() {
        let own = |tried| pause(tried, None, false, 1.0).unwrap();
        assert_eq!(own(1), Duration::from_millis(500));
        assert_eq!(own(2), Duration::from_secs(1));
        assert_eq!(own(9), LONGEST_PAUSE);
        assert_eq!(own(u32::MAX), LONGEST_PAUSE);
        assert_eq!(
            pause(3, None, true, 0.0),
            Some(Duration::ZERO),
            "full jitter"
        );
        let stated = |secs, is_last| pause(1, Some(Duration::from_secs(secs)), is_last, 1.0);
        assert_eq!(stated(2, true), Some(Duration::from_secs(2)));
        assert_eq!(stated(2, false), None, "another target need not wait");
        assert_eq!(
            stated(11, true),
            None,
            "the client can wait as well as we can"
        );
    }
}
