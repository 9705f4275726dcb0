//! A second request, to another target, where the first takes too long. Whoever has content first has the client, and the
//! other is stopped at once; what that cost is an entry as any other.
//!
//! Both are held for: the second has a hold of its own, or is not made.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::SystemTime;

use tokio::time::{Instant, sleep_until};

use super::attempt::{Try, watched};
use super::turn::Chosen;
use super::{Answer, Asked, Client, Failure, Presence, Tab, decided};
use crate::admission::limits;
use crate::ledger::Twin;
use crate::route::{Bounds, Hedge, Route, Target, Walk};
use crate::telemetry::{Outcome, Record};

/// Whether a try was outrun by another.
#[derive(Clone, Debug, Default)]
pub(super) struct Outrun(Arc<AtomicBool>);

impl Outrun {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn is(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One try, and beside it one at the next target, should it take too long. Of two that fail the second is noted.
pub(super) async fn raced<'r>(
    client: &Client,
    (route, hedge): (&'r Route, &Hedge),
    this: Try<'r>,
    (walk, failures): (&mut Walk<'r>, &mut Vec<Failure>),
    (tab, record): (&mut Tab, &mut Record),
) -> Result<Box<Answer>, Failure> {
    let Some(after) = hedge.after(this.target) else {
        return watched(client, this, tab, record).await;
    };
    let (is_decided, bounds) = (record.decision().is_some(), tab.bounds().cloned());
    let (seed, ours, theirs) = (tab.second(), tab.may_be_outrun(), Outrun::default());
    let mut aside = record.aside();
    let mut first = Box::pin(watched(client, this, tab, record));
    tokio::select! {
        biased;
        came = &mut first => return came,
        () = sleep_until(this.span.began + after) => {}
    }
    let (mut ahead, now) = (walk.clone(), Instant::now());
    let (next, pick) = match is_decided {
        false => (ahead.next(now), None),
        true => {
            let known = (this.call, bounds.as_ref());
            let (next, pick) = decided::next(&mut ahead, route, known, now);
            (next, Some(pick))
        }
    };
    let Some(next) = next.filter(|_| hedge.share.take()) else {
        return first.await;
    };
    let that = Try::of(route, next, this.call, now);
    let mut second = Box::pin(beside(client, that, (seed, theirs.clone()), &mut aside));
    let race = race(first.as_mut(), second.as_mut()).await;
    match &race {
        Race::First(..) => theirs.is(),
        Race::Second(..) => ours.is(),
        Race::Neither(..) => {}
    }
    // Whoever has not come to anything is stopped by this, and enters what it cost.
    drop((first, second));
    if aside.tries == 0 {
        hedge.share.give_back();
    } else {
        *walk = ahead;
        if let Some(decision) = record.decision() {
            decision.picks.extend(pick);
        }
    }
    race.settled(this.target, aside, (tab, record), failures)
}

/// A try of its own, if there is money for it and its target is below its limits. None: there is none.
async fn beside(
    client: &Client,
    that: Try<'_>,
    (seed, outrun): (Second, Outrun),
    aside: &mut Record,
) -> Option<(Box<Tab>, Result<Box<Answer>, Failure>)> {
    let (target, began, at) = (that.target, that.span.began, (that.call.wall)());
    let mut tab = seed.open(target, outrun, at).await?;
    tab.begin(&mut Chosen::of(target), began, at).await.ok()?;
    aside.try_begins(&target.name, &target.meters, began);
    let came = watched(client, that, &mut tab, aside).await;
    Some((tab, came))
}

/// What two tries come to: an answer, with what the other had failed with before, if it had; or nothing.
enum Race {
    First(Box<Answer>, Option<Failure>),
    Second(Box<Tab>, Box<Answer>, Option<Failure>),
    Neither(Failure, Option<Failure>),
}

impl Race {
    /// What the request goes on with: the tab of whoever answers, and a record of both.
    fn settled(
        self,
        target: &Target,
        aside: Box<Record>,
        (tab, record): (&mut Tab, &mut Record),
        failures: &mut Vec<Failure>,
    ) -> Result<Box<Answer>, Failure> {
        let now = Instant::now();
        let lost = |record: &mut Record, target: &str, failure: Option<&Failure>| {
            record.steps(|began| match failure {
                Some(failure) => decided::failed(failure, now - began),
                None => decided::outrun(target, now - began),
            });
        };
        match self {
            Self::First(answer, other) => {
                if let Some(beside) = &aside.target {
                    lost(record, beside, other.as_ref());
                }
                tab.outran(&aside);
                record.collects(aside);
                Ok(answer)
            }
            Self::Second(won, answer, other) => {
                // If it failed before, that is counted.
                record.try_ends(Outcome::Cancelled);
                lost(record, &target.name, other.as_ref());
                if let Some(beside) = &aside.target {
                    record.steps(|began| decided::answered(beside, now - began));
                }
                record.takes_over(aside);
                won.takes_over(tab);
                Ok(answer)
            }
            Self::Neither(first, second) => {
                tab.outran(&aside);
                record.collects(aside);
                if let Some(failure) = second {
                    lost(record, &failure.target, Some(&failure));
                    failures.push(failure);
                }
                Err(first)
            }
        }
    }
}

/// Waits for the first answer of the two; or for both, where none is one.
async fn race<A, B>(mut first: Pin<&mut A>, mut second: Pin<&mut B>) -> Race
where
    A: Future<Output = Result<Box<Answer>, Failure>>,
    B: Future<Output = Option<(Box<Tab>, Result<Box<Answer>, Failure>)>>,
{
    // The second may come to nothing without having been asked.
    let (mut failed, mut other) = (None, None::<Option<Failure>>);
    poll_fn(|cx| {
        if failed.is_none()
            && let Poll::Ready(came) = first.as_mut().poll(cx)
        {
            match came {
                Ok(answer) => {
                    return Poll::Ready(Race::First(answer, other.take().flatten()));
                }
                Err(failure) => failed = Some(failure),
            }
        }
        if other.is_none()
            && let Poll::Ready(came) = second.as_mut().poll(cx)
        {
            other = Some(match came {
                Some((tab, Ok(answer))) => {
                    return Poll::Ready(Race::Second(tab, answer, failed.take()));
                }
                Some((_, Err(failure))) => Some(failure),
                None => None,
            });
        }
        match (failed.take(), other.take()) {
            (Some(first), Some(second)) => Poll::Ready(Race::Neither(first, second)),
            both => {
                (failed, other) = both;
                Poll::Pending
            }
        }
    })
    .await
}

/// What a tab is made from for a try beside another.
pub(super) struct Second {
    pub(super) twin: Twin,
    pub(super) asked: Asked,
    pub(super) bounds: Option<Bounds>,
    pub(super) unpriced: bool,
    pub(super) presence: Presence,
}

impl Second {
    /// The tab, if there is money for one more try. What it takes of its caller's limits was taken by the first.
    pub(super) async fn open(
        self,
        target: &Target,
        outrun: Outrun,
        at: SystemTime,
    ) -> Option<Box<Tab>> {
        let bounds = self.bounds.as_ref();
        let bound = bounds.and_then(|bounds| bounds.at(&target.terms));
        let hold = self.twin.hold(bound.unwrap_or_default(), at).await.ok()?;
        let (_, charge) = limits::enter(&[], Instant::now()).ok()?;
        let mut tab = Box::new(Tab::new(
            hold,
            charge,
            self.asked,
            self.bounds,
            self.unpriced,
        ));
        tab.watch(&self.presence);
        tab.runs_beside(outrun);
        Some(tab)
    }
}
