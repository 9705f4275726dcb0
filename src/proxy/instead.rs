//! Which model is asked instead, where one cannot take a request? By the cause, and only where its operator says so.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ledger::Refused;
use crate::plan::Plan;
use crate::protocol::Endpoint;
use crate::provider::errors::{Fault, Retry};
use crate::provider::unfit::Unfit;
use crate::rejection::Rejection;
use crate::route::Route;
use crate::upstream::attempt::Exhausted;
use crate::upstream::{Cause, Clock, Failure, Presence};

/// Why another model may take what this one cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    TooLong,
    Flagged,
    Short,
}

/// A model that did not answer: what its client hears, unless another does.
pub(super) struct Turned {
    rejection: Rejection,
    why: Option<Reason>,
}

impl From<Rejection> for Turned {
    fn from(rejection: Rejection) -> Self {
        let why = match &rejection {
            Rejection::TooLong { .. } => Some(Reason::TooLong),
            Rejection::Budget(Refused::Short { .. }) => Some(Reason::Short),
            _ => None,
        };
        Self { rejection, why }
    }
}

impl From<Exhausted> for Turned {
    fn from(exhausted: Exhausted) -> Self {
        let why = Reason::of(&exhausted.0);
        let rejection = exhausted.into();
        Self { rejection, why }
    }
}

impl Reason {
    /// What would help is enough, whatever else went wrong: one target said that it is too long, and the others were down.
    fn of(failures: &[Failure]) -> Option<Self> {
        let last = failures.last()?;
        // Time is up; or the request is wrong, here as elsewhere.
        let is_over = matches!(last.cause, Cause::Clock(Clock::Deadline))
            || last.fault == Fault::Client && last.retry == Retry::Never && last.unfit().is_none();
        if is_over {
            return None;
        }
        let has = |unfit| failures.iter().any(|f| f.unfit() == Some(unfit));
        let is_short = |f: &Failure| matches!(f.cause, Cause::Budget(Refused::Short { .. }));
        if has(Unfit::Flagged) {
            Some(Self::Flagged)
        } else if has(Unfit::TooLong) {
            Some(Self::TooLong)
        } else {
            failures.iter().any(is_short).then_some(Self::Short)
        }
    }
}

/// For what other models were asked so far: at most once for each cause.
#[derive(Default)]
pub(super) struct Hops(SmallVec<[Reason; 3]>);

impl Hops {
    /// Where to ask instead; or what the client hears. A model that cannot be asked at all helps nobody, nor does one that is
    /// for something else.
    pub(super) fn next(
        &mut self,
        plan: &Plan,
        (route, endpoint): (&Route, Endpoint),
        presence: &Presence,
        Turned { rejection, why }: Turned,
    ) -> Result<Arc<Route>, Rejection> {
        // Nor is anybody else asked for whoever has left.
        let is_due = |why: &Reason| !self.0.contains(why) && presence.absence().is_none();
        let Some(why) = why.filter(is_due) else {
            return Err(rejection);
        };
        let name = match why {
            Reason::TooLong => &route.instead.too_long,
            Reason::Flagged => &route.instead.flagged,
            Reason::Short => &route.instead.short,
        };
        let next = name.as_ref().and_then(|name| plan.models.get(name));
        let helps =
            |next: &&Arc<Route>| !next.targets.is_empty() && next.is_for_other(endpoint).is_none();
        // What it goes on from is kept where it was.
        let next = next.filter(helps).and_then(|next| match &route.keeper {
            Some(keeper) => next.at(keeper),
            None => Some(Arc::clone(next)),
        });
        match next {
            Some(next) => {
                self.0.push(why);
                Ok(next)
            }
            None => Err(rejection),
        }
    }
}
