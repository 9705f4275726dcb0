//! What may it cost at most? What a request asks for, at the terms of each target.

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::owns::as_sent;
use super::{Route, Target, Terms};
use crate::envelope::{Edits, Envelope};
use crate::protocol::demand::Boundless;
use crate::protocol::{Demand, Endpoint};
use crate::provider::rules::Refused;
use crate::usage::{Look, Money, Most, Unit};

/// A caller with a budget is not sent away for want of output, if there is as much as this, in tokens.
const FLOOR: u64 = 64;

/// Bytes of a body to a token, where only a guess is asked for.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The most that a request may cost, wherever it goes.
#[derive(Clone, Debug)]
pub struct Bounds {
    demand: Demand,
    /// What is asked of those targets whose rules may change that, by their numbers. None: it has no bound.
    rewritten: Vec<(usize, Option<Demand>)>,
    /// The output that each choice may have, in tokens.
    each: u64,
}

impl Bounds {
    /// Of a request; `cap` is the output of each choice, in tokens, where its client gives no limit.
    pub fn new(
        route: &Route,
        endpoint: Endpoint,
        envelope: &Envelope,
        cap: u64,
    ) -> Result<Self, Boundless> {
        let demand = Demand::of(endpoint, envelope)?;
        Ok(Self::of(demand, (endpoint, envelope), route, cap))
    }

    /// The same by its tokens alone, whatever else may be billed: to compare targets by. None: a number of it is none.
    pub(super) fn by_tokens(
        route: &Route,
        endpoint: Endpoint,
        envelope: &Envelope,
        cap: u64,
    ) -> Option<Self> {
        let demand = Demand::at_a_price(endpoint, envelope).ok()?;
        Some(Self::of(demand, (endpoint, envelope), route, cap))
    }

    fn of(
        demand: Demand,
        (endpoint, envelope): (Endpoint, &Envelope),
        route: &Route,
        cap: u64,
    ) -> Self {
        let rewritten = route.targets.rewriting().filter_map(|target| {
            let n = target.terms.rewrites?;
            Some((n, rewritten(route, target, endpoint, envelope).ok()?))
        });
        Self {
            demand,
            rewritten: rewritten.collect(),
            each: demand.limit.unwrap_or(cap),
        }
    }

    /// Of a request that asks for nothing in particular, to see whether that has a price at all.
    pub fn ordinary(endpoint: Endpoint, cap: u64) -> Option<Self> {
        let demand = Demand::ordinary(endpoint)?;
        Some(Self {
            demand,
            rewritten: Vec::new(),
            each: demand.limit.unwrap_or(cap),
        })
    }

    /// What it asks for, as it is logged. What rules change of that is not in it.
    pub fn json(&self) -> Value {
        json!({ "demand": self.demand, "each": self.each })
    }

    /// The same, read back. None: it is none.
    pub fn from_json(logged: &Value) -> Option<Self> {
        Some(Self {
            demand: Demand::deserialize(logged.get("demand")?).ok()?,
            rewritten: Vec::new(),
            each: logged.get("each")?.as_u64()?,
        })
    }

    /// How many tokens it will probably use: a quarter of its bytes, and as much output as it may have.
    pub fn probable(&self, envelope: &Envelope) -> u64 {
        Self::likely(&self.demand, envelope, self.each)
    }

    /// The same of a request whose bounds nobody needs.
    pub fn guess(endpoint: Endpoint, envelope: &Envelope, cap: u64) -> u64 {
        match Demand::at_a_price(endpoint, envelope) {
            Ok(demand) => Self::likely(&demand, envelope, demand.limit.unwrap_or(cap)),
            // What it asks for is no number; its provider will say so.
            Err(_) => envelope.length().div_ceil(BYTES_PER_TOKEN),
        }
    }

    fn likely(demand: &Demand, envelope: &Envelope, each: u64) -> u64 {
        // Sound and pictures are long, and little of it is in tokens.
        let input = match demand.own().map(|own| own.unit) {
            Some(Unit::Seconds | Unit::Images) => 0,
            _ => envelope.length().div_ceil(BYTES_PER_TOKEN),
        };
        let output = match demand.gives_any() {
            true => 0,
            false => demand.output(each),
        };
        input.saturating_add(output)
    }

    /// What is asked of a target. None: it has no bound.
    fn demand(&self, terms: &Terms) -> Option<&Demand> {
        let mut rewritten = self.rewritten.iter();
        match rewritten.find(|(n, _)| Some(*n) == terms.rewrites) {
            Some((_, demand)) => demand.as_ref(),
            None => Some(&self.demand),
        }
    }

    /// The output that each choice may have at a target, in tokens; none where there is no output at all.
    pub fn each(&self, terms: &Terms) -> Option<u64> {
        let least = terms
            .max_output
            .map_or(self.each, |most| most.min(self.each));
        self.demand.answers().then_some(least)
    }

    /// All output that a target may give, in tokens. None: nobody knows.
    pub fn output(&self, terms: &Terms) -> Option<u64> {
        let demand = self.demand(terms)?;
        let each = match demand.gives_any() {
            true => terms.max_output?,
            false => self.each(terms).unwrap_or(0),
        };
        Some(demand.output(each))
    }

    /// The most that one try at a target may use.
    pub fn most(&self, terms: &Terms) -> Option<Most> {
        let demand = self.demand(terms)?;
        let own = demand.own();
        Some(Most {
            input: demand.input(terms.context),
            output: self.output(terms),
            unit: own.map(|own| (own.unit, own.most)),
            look: own.map_or(Look::ANY, |own| own.look),
        })
    }

    /// The most that one try at a target may cost. None: it has no price, or nobody knows how much it may use.
    pub fn at(&self, terms: &Terms) -> Option<Money> {
        terms.bound(self.most(terms))
    }

    /// The most that it may cost at those targets where it fits into what is left, as it is. None: at none of them.
    pub fn fitting<'t>(&self, all: impl Iterator<Item = &'t Terms>, left: Money) -> Option<Money> {
        let costs = all.filter_map(|terms| self.at(terms));
        costs.filter(|cost| *cost <= left).max()
    }

    /// The same request with less output, so that it fits into what is left wherever it can at all, and what it may cost
    /// then. None: it fits nowhere, not even with the least output.
    pub fn within<'t>(
        &self,
        all: impl Iterator<Item = &'t Terms> + Clone,
        left: Money,
    ) -> Option<(Self, Money)> {
        let each = all
            .clone()
            .filter_map(|terms| self.each_within(terms, left));
        let each = each.min().unwrap_or(self.each);
        let less = Self {
            each,
            ..self.clone()
        };
        let most = less.fitting(all, left)?;
        Some((less, most))
    }

    /// How much output each choice may have at a target for so much money. None: not even the least, or there is no price.
    fn each_within(&self, terms: &Terms, left: Money) -> Option<u64> {
        let price = terms.price.as_ref().filter(|price| !price.is_free())?;
        let demand = self.demand(terms)?;
        let most = self.most(terms)?;
        let without = Most {
            output: Some(0),
            ..most
        };
        if price.bound(&without).is_none_or(|bound| bound > left) {
            return None;
        }
        let wanted = self.each(terms).unwrap_or(0);
        let each = demand.each(price.output_for(&most, left)).min(wanted);
        (each >= wanted.min(FLOOR)).then_some(each)
    }
}

impl Terms {
    /// The most that it may cost to use so much. None: there is no price, or nobody knows how much it is.
    pub fn bound(&self, most: Option<Most>) -> Option<Money> {
        let price = self.price.as_ref()?;
        if price.is_free() {
            return Some(Money::ZERO);
        }
        price.bound(&most?)
    }
}

/// What is asked of a target whose rules may change that. None: it has no bound. Refused: it will not be sent at all.
fn rewritten(
    route: &Route,
    target: &Target,
    endpoint: Endpoint,
    envelope: &Envelope,
) -> Result<Option<Demand>, Refused> {
    let read = |edits: &Edits<'_>| match target.terms.own_price {
        true => Demand::at_a_price(endpoint, edits),
        false => Demand::of(endpoint, edits),
    };
    Ok(as_sent(route, target, endpoint, envelope, read)?.ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{Price, Rate, Rates};
    use bytes::Bytes;
    use std::sync::Arc;

    fn terms(input: &str, output: &str) -> Terms {
        let mut stated = crate::usage::Stated::default();
        stated[0] = Some(Rate::parse("input", input).unwrap());
        stated[6] = Some(Rate::parse("output", output).unwrap());
        Terms {
            price: Some(Arc::new(Price {
                base: Rates::of(&stated).unwrap(),
                tiers: Vec::new(),
                pictures: None,
                version: "test".into(),
            })),
            ..Terms::default()
        }
    }

    fn bounds(body: &str, cap: u64) -> Bounds {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let envelope = Envelope::scan(body, |_| false).unwrap();
        let route = Route {
            kind: None,
            targets: crate::route::Targets::default(),
            strategy: crate::route::Strategy::default(),
            hedge: None,
            deadline: std::time::Duration::ZERO,
            rules: Arc::default(),
            instead: crate::route::Instead::default(),
            skipped: Vec::new(),
            keeper: None,
            allowance: Arc::default(),
            meters: crate::telemetry::metrics::Metrics::new().route("fast"),
        };
        Bounds::new(&route, Endpoint::ChatCompletions, &envelope, cap).unwrap()
    }

    #[test]
    fn a_bound_is_what_the_target_may_charge() {
        let asked = bounds(r#"{"messages":[],"max_tokens":100,"n":2}"#, 4_096);
        let input = 38 + 256;
        let one = terms("1", "10");
        assert_eq!(asked.at(&one), Some(Money(1_000 * input + 10_000 * 200)));
        let short = Terms {
            max_output: Some(10),
            context: Some(100),
            ..one.clone()
        };
        assert_eq!(asked.at(&short), Some(Money(1_000 * 100 + 10_000 * 20)));
        assert_eq!(asked.at(&Terms::default()), None, "no price is not free");
        let free = terms("0", "0");
        let unseen = r#"{"messages":[{"content":[{"type":"file"}]}]}"#;
        assert_eq!(bounds(unseen, 1).at(&free), Some(Money::ZERO));
        assert_eq!(
            bounds(unseen, 1).at(&one),
            None,
            "nobody knows how long it is"
        );
        assert_eq!(
            bounds(r#"{"messages":[]}"#, 7).each(&one),
            Some(7),
            "the cap"
        );
    }

    #[test]
    fn output_is_lowered_to_what_is_left_but_not_to_nothing() {
        let asked = bounds(r#"{"messages":[],"max_tokens":1000}"#, 4_096);
        let (cheap, dear) = (terms("1", "10"), terms("1", "100"));
        let input = 1_000 * (33 + 256);
        let left = Money(input + 100_000 * 80);
        let (less, most) = asked.within([&cheap, &dear].into_iter(), left).unwrap();
        assert_eq!(less.each(&dear), Some(80));
        assert_eq!(most, left);
        // The dear one does not fit with the least output: it is passed over, and the cheap one has what fits.
        let left = Money(input + 100_000 * 63);
        let (less, most) = asked.within([&cheap, &dear].into_iter(), left).unwrap();
        assert_eq!(less.each(&cheap), Some(630));
        assert_eq!(most, left);
        assert!(less.at(&dear).unwrap() > left);
        let left = Money(input + 10_000 * 63);
        assert!(asked.within([&cheap, &dear].into_iter(), left).is_none());
        let few = bounds(r#"{"messages":[],"max_tokens":10}"#, 4_096);
        assert!(
            few.within([&cheap].into_iter(), Money(input - 1_000 + 10_000 * 9))
                .is_none()
        );
        assert!(
            few.within([&cheap].into_iter(), Money(input - 1_000 + 10_000 * 10))
                .is_some()
        );
        let free = terms("0", "0");
        let all = [&free, &dear].into_iter();
        let (less, most) = asked.within(all, Money::ZERO).unwrap();
        assert_eq!(
            (less.each(&free), most),
            (Some(1_000), Money::ZERO),
            "what is free is never short"
        );
        assert_eq!(
            asked.fitting([&free, &dear].into_iter(), left),
            Some(Money::ZERO)
        );
    }
}
