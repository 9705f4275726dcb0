//! What does the try under way cost, for all that is known? What it would be entered with if all ended now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Asked;
use super::taken::Taken;
use crate::admission::limits::{Charge, Feeling, Gate, Slots};
use crate::route::health::Trial;
use crate::telemetry::Entered;
use crate::usage::{Money, Price, Usage};

/// What the try under way costs, for all that is known.
pub(super) struct Bill {
    pub(super) price: Option<Arc<Price>>,
    /// Its target's number, if the rules of that may change what is asked for.
    pub(super) rewrites: Option<usize>,
    /// What it may cost at most. None: nobody has a budget, or nobody knows.
    pub(super) bound: Option<Money>,
    /// The most input that the model takes, in tokens.
    pub(super) context: u64,
    /// The most output that it may have, in tokens.
    pub(super) most: u64,
    /// It may have had more output than is to be seen.
    pub(super) is_unseen: bool,
    /// How long it is read on, should the client leave.
    pub(super) finish: Option<Duration>,
    /// It may have arrived.
    pub(super) is_sent: bool,
    /// Tokens of output that have passed, at least.
    pub(super) said: u64,
    /// The usage that was told so far, and whether it is that of the whole answer.
    pub(super) told: (Option<Usage>, bool),
    /// Bytes of an answer in one piece that have passed.
    pub(super) passed: u64,
    /// What it takes of its target's limits.
    pub(super) charge: Charge,
    #[expect(dead_code, reason = "given back when it is dropped")]
    pub(super) slots: Slots,
    /// Its target's limits, which may be found out by what comes of this.
    pub(super) gate: Option<Arc<Gate>>,
    /// Tells the target's health what comes of it. None: that says nothing of it.
    pub(super) trial: Option<Trial>,
    /// Its first content is there, which the target's health knows.
    pub(super) has_begun: bool,
}

impl Bill {
    pub(super) fn begins(&mut self, now: Instant) {
        self.has_begun = true;
        if let Some(trial) = &mut self.trial {
            let after = trial.begins(now);
            if let Some(gate) = &self.gate {
                gate.feels(Feeling::Good(after), now);
            }
        }
    }

    /// What it comes to by what was told, or else by all that is known of its request and has passed; and whether that is a
    /// guess.
    pub(super) fn comes_to(
        &self,
        asked: &Asked,
        told: Option<Usage>,
        is_complete: bool,
    ) -> (Entered, bool) {
        let own = asked.own(self.rewrites);
        let taken = Taken::new(own, self.price.as_deref(), told.as_ref());
        let price = taken.price;
        let estimate = match taken.known() {
            // Whose price is by the piece has tokens that nobody counts.
            Some(known) => known,
            None => taken.likely(asked.estimate(self.said, self.passed)),
        };
        let estimate = Usage {
            input: estimate.input.min(self.context),
            output: estimate.output.min(self.most),
            ..estimate
        };
        let told = told.map(|told| (told, taken.whole(told)));
        // An answer may tell all but what is billed.
        let billed = told.filter(|(_, whole)| price.is_none_or(|price| price.is_told_by(whole)));
        let cost = match billed {
            Some((_, whole)) => price.map(|price| price.cost(&whole)),
            None => self.guess(price, &estimate),
        };
        let is_guess = match billed {
            Some((told, _)) => taken.lacks(&told),
            None => !(is_complete && taken.known().is_some() && taken.is_certain()),
        };
        let usage = told.map_or(estimate, |(_, whole)| whole);
        (Entered { usage, cost }, is_guess)
    }

    /// What it comes to where nobody says so: never more than was held.
    fn guess(&self, price: Option<&Price>, estimate: &Usage) -> Option<Money> {
        match self.bound {
            // How much more there was is not to be seen.
            Some(bound) if self.is_unseen => Some(bound),
            bound => {
                let cost = price.map(|price| price.cost(estimate));
                cost.map(|cost| bound.map_or(cost, |bound| cost.min(bound)))
            }
        }
    }
}
