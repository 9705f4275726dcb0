//! What does a try take that is no token, at its target's price? By its request, and by what its answer tells.

use crate::protocol::Own;
use crate::usage::{Look, Price, Unit, Usage};

/// What a try takes that is no token, and what that is priced by.
#[derive(Clone, Copy)]
pub(super) struct Taken<'p> {
    own: Option<Own>,
    /// None: it says nothing of what is taken.
    pub(super) price: Option<&'p Price>,
    /// What its pictures are like, as far as the price knows pictures like that.
    look: Look,
    /// What is known of its pictures leaves one price only.
    is_certain: bool,
}

impl<'p> Taken<'p> {
    /// By what its request takes as its target is sent it, and what its answer has told.
    pub(super) fn new(own: Option<Own>, price: Option<&'p Price>, told: Option<&Usage>) -> Self {
        let says_cost = told.is_some_and(|told| told.cost.is_some());
        let unit = own.map(|own| own.unit);
        let asked = own.map_or(Look::ANY, |own| own.look);
        let told = told.map_or(Look::ANY, |told| told.look);
        let drawn = told.known().over(asked);
        // Where the price knows no pictures like those that were made, those that were asked for tell what is likely.
        let is_drawn = price.is_none_or(|price| price.draws(drawn));
        let look = if is_drawn { drawn } else { asked };
        // A price of something else says nothing of this, but where its provider says what it costs.
        let price = price.filter(|price| says_cost || price.is_of(unit, look));
        let is_one = |price: &Price| price.understands(told) && price.is_certain(look);
        Self {
            own,
            price,
            look,
            is_certain: says_cost
                || unit != Some(Unit::Images)
                || (is_drawn && price.is_none_or(is_one)),
        }
    }

    /// What was used by an answer that says so, with what it took besides.
    pub(super) fn whole(&self, told: Usage) -> Usage {
        match self.own {
            Some(own) if is_exact(own.unit) || self.lacks_count(&told) => self.with(told, own),
            _ => told,
        }
    }

    /// What it takes of what its price is by, where that was known from the start and nothing else is billed.
    pub(super) fn known(&self) -> Option<Usage> {
        let own = self.own.filter(|own| is_exact(own.unit))?;
        let is_all = self
            .price
            .is_some_and(|price| price.states(own.unit) && !price.is_of_tokens());
        is_all.then(|| self.with(Usage::default(), own))
    }

    /// The same beside an estimate of its tokens.
    pub(super) fn likely(&self, tokens: Usage) -> Usage {
        self.own.map_or(tokens, |own| self.with(tokens, own))
    }

    fn with(&self, usage: Usage, own: Own) -> Usage {
        Usage {
            look: self.look,
            ..usage.with(own.unit, own.likely)
        }
    }

    /// Whether an answer does not say enough of what its price is by, so that this is a guess.
    pub(super) fn lacks(&self, told: &Usage) -> bool {
        !self.is_certain || self.lacks_count(told)
    }

    /// Whether it is known what each of its pictures costs.
    pub(super) fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Whether an answer does not say how much it took of what its price is by.
    fn lacks_count(&self, told: &Usage) -> bool {
        self.own.is_some_and(|own| {
            let is_billed = self.price.is_some_and(|price| price.states(own.unit));
            !is_exact(own.unit) && is_billed && told.units(own.unit) == 0
        })
    }
}

/// Whether a request itself says how many it takes. How long sound is, and into how many searches documents are cut, is for
/// the provider to say.
fn is_exact(unit: Unit) -> bool {
    match unit {
        Unit::Characters | Unit::Images => true,
        Unit::Seconds | Unit::Searches => false,
    }
}
