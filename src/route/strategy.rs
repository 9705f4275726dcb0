//! In which order? What an operator chooses, and what of a request it goes by.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::targets::mark;
use super::{Bounds, Route, Target};
use crate::envelope::Envelope;
use crate::protocol::{Endpoint, opening};
use crate::usage::Money;

/// In which order the targets of a tier are asked.
#[derive(Clone, Debug, Default)]
pub enum Strategy {
    /// As they are written.
    #[default]
    Order,
    /// By chance, each as often as its weight says.
    Weight,
    /// The one whose first content comes soonest, of two that chance names.
    Latency,
    /// The one with the fewest requests under way.
    LeastBusy,
    /// The cheapest for this very request, at the most that it may cost.
    Cost,
    /// The same one for the same conversation: by the first of these that a request has.
    Sticky(Vec<StickyBy>),
}

impl Strategy {
    /// Its name, as it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Weight => "weight",
            Self::Latency => "latency",
            Self::LeastBusy => "least_busy",
            Self::Cost => "cost",
            Self::Sticky(_) => "sticky",
        }
    }
}

/// By what requests belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    /// A header of the client's.
    Header(HeaderName),
    /// A member of the body: `prompt_cache_key`, `user`.
    Member(&'static str),
    /// How the conversation begins.
    Messages,
}

/// What of a request the order of its targets depends on.
#[derive(Clone, Copy)]
pub struct Asks<'a> {
    /// What was called.
    pub endpoint: Endpoint,
    /// Its body.
    pub envelope: &'a Envelope,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The most that it may cost. None: nobody needed to know yet.
    pub bounds: Option<&'a Bounds>,
    /// The output, in tokens, that it is taken to ask for where it gives no limit.
    pub output_cap: u64,
    /// Chance: the same number gives the same order.
    pub seed: u64,
}

/// What a request is ordered by, worked out once.
#[derive(Clone, Debug)]
pub(super) enum Basis {
    /// Nothing of its own.
    Nothing,
    /// What it may cost, by kinds of targets. None: nobody knows.
    Costs(SmallVec<[Option<Money>; 8]>),
    /// What it belongs to.
    Mark(u64),
}

impl Route {
    /// The most that a request may cost by its tokens, also where nobody needed to know: to compare targets by. None: a
    /// number of it is none.
    pub fn bounds<'a>(&self, asks: &Asks<'a>) -> Option<Cow<'a, Bounds>> {
        let own = || Bounds::by_tokens(self, asks.endpoint, asks.envelope, asks.output_cap);
        let known = asks.bounds.map(Cow::Borrowed);
        known.or_else(|| own().map(Cow::Owned))
    }

    /// What a request is ordered by.
    pub(super) fn basis(&self, asks: &Asks<'_>) -> Basis {
        let bounds = match self.strategy {
            Strategy::Cost => self.bounds(asks),
            _ => None,
        };
        let cost = |target: &Target| bounds.as_ref()?.at(&target.terms);
        self.basis_of(|by| by.mark(asks), cost, asks.seed)
    }

    /// The same, of what is known of a request.
    pub(super) fn basis_of(
        &self,
        mark: impl Fn(&StickyBy) -> Option<u64>,
        cost: impl Fn(&Target) -> Option<Money>,
        seed: u64,
    ) -> Basis {
        match &self.strategy {
            Strategy::Cost => Basis::Costs(self.targets.kinds().map(cost).collect()),
            // What belongs to nothing may go anywhere.
            Strategy::Sticky(by) => Basis::Mark(by.iter().find_map(mark).unwrap_or(seed)),
            _ => Basis::Nothing,
        }
    }
}

impl StickyBy {
    /// A number that stands for what a request has of it: the same after a restart, and at other gateways.
    pub fn mark(&self, asks: &Asks<'_>) -> Option<u64> {
        // What is empty says nothing, and says it for many.
        let said = |text: &[u8]| (!text.is_empty()).then(|| mark(text));
        match self {
            Self::Header(name) => said(asks.headers.get(name)?.as_bytes()),
            Self::Member(name) => said(asks.envelope.string(name)?.as_bytes()),
            Self::Messages => said(opening(asks.endpoint, asks.envelope)?),
        }
    }

    /// Its name, as it is written.
    pub fn name(&self) -> Box<str> {
        match self {
            Self::Header(name) => format!("header:{name}").into(),
            Self::Member(name) => (*name).into(),
            Self::Messages => "messages".into(),
        }
    }
}
