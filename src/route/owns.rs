//! What does a request take that is no token? At each target what its rules leave of that.

use super::{Route, Target};
use crate::envelope::{Edits, Envelope};
use crate::protocol::{Endpoint, Own, demand};
use crate::provider::Dropped;
use crate::provider::rules::Refused;
use crate::usage::Unit;

/// What a request takes that is no token.
#[derive(Clone, Debug)]
pub struct Owns {
    /// As it came.
    asked: Own,
    /// As it is sent to those targets whose rules may change that, by their numbers.
    rewritten: Vec<(usize, Option<Own>)>,
}

impl Owns {
    /// Of a request. None: it takes tokens alone.
    pub fn of(route: &Route, endpoint: Endpoint, envelope: &Envelope) -> Option<Box<Self>> {
        let asked = demand::own(endpoint, envelope)?;
        let rewritten = route.targets.rewriting().filter_map(|target| {
            let read = |edits: &Edits<'_>| demand::own(endpoint, edits);
            let own = as_sent(route, target, endpoint, envelope, read).ok()?;
            Some((target.terms.rewrites?, own))
        });
        Some(Box::new(Self {
            asked,
            rewritten: rewritten.collect(),
        }))
    }

    /// What limits count of it as it came: which unit, and how many where the answer does not say.
    pub fn counted(&self) -> (Unit, u64) {
        (self.asked.unit, self.asked.likely)
    }

    /// As it is sent to a target, by the number that it has if its rules may change it.
    pub fn at(&self, rewrites: Option<usize>) -> Option<Own> {
        let mut rewritten = self.rewritten.iter();
        let found = rewritten.find(|(n, _)| Some(*n) == rewrites);
        found.map_or(Some(self.asked), |(_, own)| *own)
    }
}

/// What is read of a body as it will be sent to a target, before the limits on its output, which are held to whatever becomes
/// of them. Refused: it will not be sent at all.
pub(super) fn as_sent<T>(
    route: &Route,
    target: &Target,
    endpoint: Endpoint,
    envelope: &Envelope,
    read: impl FnOnce(&Edits<'_>) -> T,
) -> Result<T, Refused> {
    let (mut edits, mut dropped) = (envelope.edit(), Dropped::default());
    for rules in [&route.rules, &*target.rules] {
        rules.apply(endpoint, &mut edits, &mut dropped)?;
    }
    Ok(read(&edits))
}
