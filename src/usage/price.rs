//! What does so much cost? Rates in whole pico-dollars for one token, or for one of another unit; a sum is rounded up once, to
//! a billionth.

use std::sync::Arc;

use super::kinds::power;
use super::{
    Decimal, INPUTS, KINDS, Kinds, Look, Money, NoDecimal, Pictures, TOKENS, UNITS, Unit, Usage,
    relative,
};

/// What one token, or one of another unit, costs, in trillionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

/// What is written as a price is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRate {
    /// It is no number, a negative one, or one that is far too large.
    #[error(transparent)]
    Number(#[from] NoDecimal),
    /// Less than a whole trillionth of a dollar for one is left over.
    #[error(
        "has more than {0} digits after the point; a trillionth of a US dollar for one token, or for one of another unit, is the smallest part of a price"
    )]
    Finer(u8),
}

/// A dollar has so many trillionths, as a power of ten.
const PICO: u8 = 12;
/// Trillionths of a dollar in a billionth.
const PICO_PER_NANO: u128 = 1000;

/// How many digits a price of a class may have after the point.
fn places(kind: &str) -> u8 {
    PICO - power(kind)
}

impl Rate {
    /// US dollars as a person writes them, exactly: for a million tokens or characters, or for one of another unit.
    pub fn parse(kind: &str, text: &str) -> Result<Self, NoRate> {
        let exact = Decimal::parse(text, places(kind))?.exact();
        exact.map(Self).ok_or(NoRate::Finer(places(kind)))
    }

    /// US dollars for one, as lists of prices have them: floats that were written out, hence rounded to the nearest.
    pub fn per_one(text: &str) -> Result<Self, NoDecimal> {
        Decimal::parse(text, PICO)?.nearest().map(Self)
    }

    /// As it is written for a class: exactly, with at least two digits after the point.
    pub fn written(self, kind: &str) -> String {
        let places = places(kind);
        let part = 10_u64.saturating_pow(places.into());
        let places = usize::from(places);
        let text = format!("{}.{:0places$}", self.0 / part, self.0 % part);
        let shortest = text.len() - places + 2;
        let kept = text.trim_end_matches('0').len().max(shortest);
        text.get(..kept).unwrap_or(&text).to_owned()
    }
}

/// The rates that are stated, in the order of [`KINDS`]. A stated zero is one; what is not stated is not zero.
pub type Stated = [Option<Rate>; KINDS.len()];

/// One rate for each of [`KINDS`], and which of them were stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates([u64; KINDS.len()], Kinds);

impl Rates {
    /// What is not stated follows what is: cached, written, heard and seen input costs what input does, writing for an
    /// hour what writing costs, reasoning and output that is heard or seen what output does. None unless input and
    /// output are both stated, or neither is and another unit is: what is not known is not free. Where a price speaks of
    /// tokens alone, or of others alone, nothing else is billed.
    pub fn of(stated: &Stated) -> Option<Self> {
        let [
            input,
            cached,
            cache_write,
            cache_write_1h,
            audio_input,
            image_input,
            output,
            reasoning,
            audio_output,
            image_output,
            units @ ..,
        ] = *stated;
        let has_tokens = stated.iter().take(TOKENS).any(Option::is_some);
        let free =
            Some(Rate::default()).filter(|_| !has_tokens && units.iter().any(Option::is_some));
        let (input, output) = (input.or(free)?, output.or(free)?);
        let cache_write = cache_write.unwrap_or(input);
        let [characters, seconds, images, searches] = units.map(Option::unwrap_or_default);
        let all = [
            input,
            cached.unwrap_or(input),
            cache_write,
            cache_write_1h.unwrap_or(cache_write),
            audio_input.unwrap_or(input),
            image_input.unwrap_or(input),
            output,
            reasoning.unwrap_or(output),
            audio_output.unwrap_or(output),
            image_output.unwrap_or(output),
            characters,
            seconds,
            images,
            searches,
        ];
        let stated = Kinds::of(stated.map(|rate| rate.is_some()));
        Some(Self(all.map(|rate| rate.0), stated))
    }

    /// As [`Rates::of`], where what is not stated for a tier is looked for in what is stated for the base.
    pub fn over(base: &Stated, tier: &Stated) -> Option<Self> {
        let mut stated = *base;
        for (slot, own) in stated.iter_mut().zip(tier) {
            *slot = own.or(*slot);
        }
        Self::of(&stated)
    }

    /// The rates, in the order of [`KINDS`].
    pub fn all(&self) -> [Rate; KINDS.len()] {
        self.0.map(Rate)
    }

    /// The same with another rate of a unit.
    fn with(mut self, unit: Unit, rate: Rate) -> Self {
        if let Some(slot) = self.0.get_mut(TOKENS + unit as usize) {
            *slot = rate.0;
        }
        self
    }

    /// The classes whose rates were stated; the others follow.
    pub fn stated(&self) -> Kinds {
        self.1
    }

    /// The classes that cost something else than they would if they were not stated.
    pub fn apart(&self) -> Kinds {
        let rate = |name: &str| {
            let mut each = KINDS.into_iter().zip(self.0);
            each.find_map(|(kind, rate)| (kind == name).then_some(rate))
        };
        Kinds::of(KINDS.map(|kind| rate(kind) != rate(relative(kind))))
    }
}

/// The most that a request may use. None: nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Most {
    /// Tokens of input, of whichever class.
    pub input: Option<u64>,
    /// Tokens of output, of whichever class.
    pub output: Option<u64>,
    /// A unit of its own, and how many.
    pub unit: Option<(Unit, Option<u64>)>,
    /// What the pictures are to be like that it asks for.
    #[serde(default, skip_serializing_if = "Look::is_any")]
    pub look: Look,
}

impl Most {
    /// So many tokens, and nothing else.
    pub fn tokens(input: u64, output: u64) -> Self {
        Self {
            input: Some(input),
            output: Some(output),
            unit: None,
            look: Look::ANY,
        }
    }
}

/// Other rates for a request with a long prompt, for all of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// It applies to prompts of more tokens than this.
    pub above: u64,
    /// What it costs then.
    pub rates: Rates,
}

/// What a model costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Where no tier applies.
    pub base: Rates,
    /// For long prompts, in any order; of those that apply the one with the highest threshold counts.
    pub tiers: Vec<Tier>,
    /// What a picture costs by its size and quality, whichever tier applies; the rate of the base is then the dearest. None: it
    /// costs the same whatever it is like.
    pub pictures: Option<Pictures>,
    /// Which list the price is of, for the record: each entry of the ledger names it.
    pub version: Arc<str>,
}

impl Price {
    /// The price of what costs nothing, stated as such.
    pub fn free() -> Self {
        Self {
            base: Rates::default(),
            tiers: Vec::new(),
            pictures: None,
            version: "free".into(),
        }
    }

    /// Whether nothing can cost anything.
    pub fn is_free(&self) -> bool {
        let (input, output, units) = self.dearest(u64::MAX);
        input == 0 && output == 0 && units == [0; UNITS] && self.pictures.is_none()
    }

    /// Whether output costs nothing while input does: it is a price of what gives none.
    pub fn gives_for_nothing(&self) -> bool {
        let (input, output, _) = self.dearest(u64::MAX);
        input > 0 && output == 0
    }

    /// Whether it says what a request costs that may have a unit of its own, pictures of a look: by the token, or by that unit.
    pub fn is_of(&self, unit: Option<Unit>, look: Look) -> bool {
        let own = unit.map(Kinds::unit);
        let kinds = Kinds::tokens().and(own.unwrap_or_default());
        let is_drawn = || unit != Some(Unit::Images) || self.draws(look);
        (!self.base.stated().among(kinds).is_empty() && is_drawn()) || self.is_free()
    }

    /// Whether it says what tokens cost.
    pub fn is_of_tokens(&self) -> bool {
        self.is_of(None, Look::ANY)
    }

    /// Whether it says what a picture of a look costs, if it says at all what pictures cost.
    pub fn draws(&self, look: Look) -> bool {
        let pictures = self.pictures.as_ref();
        pictures.is_none_or(|pictures| pictures.most(look).is_some())
    }

    /// Whether all is known here that counts of a look.
    pub fn understands(&self, look: Look) -> bool {
        let pictures = self.pictures.as_ref();
        pictures.is_none_or(|pictures| pictures.understands(look))
    }

    /// Whether all pictures of a look cost the same.
    pub fn is_certain(&self, look: Look) -> bool {
        let pictures = self.pictures.as_ref();
        pictures.is_none_or(|pictures| pictures.is_certain(look))
    }

    /// Whether something was used of what it says the cost of, so that it can be reckoned by that.
    pub fn is_told_by(&self, usage: &Usage) -> bool {
        let counts = usage.counts();
        let used = Kinds::of(counts.map(|count| count > 0));
        let stated = self.base.stated();
        // Tokens of whichever class: those that are not stated follow.
        let has_tokens = !stated.among(Kinds::tokens()).is_empty() && usage.tokens() > 0;
        has_tokens || !used.among(stated).is_empty() || usage.cost.is_some() || self.is_free()
    }

    /// Whether it says what a unit costs that is no token.
    pub fn states(&self, unit: Unit) -> bool {
        let own = Kinds::unit(unit);
        !self.base.stated().among(own).is_empty()
    }

    /// What an answer cost: what its provider says, else what it took at the rates that the whole prompt leads to, rounded
    /// up once.
    pub fn cost(&self, usage: &Usage) -> Money {
        if let Some(cost) = usage.cost {
            return cost;
        }
        let counts = usage.counts();
        let inputs = counts.iter().take(INPUTS);
        let prompt = inputs.fold(0_u64, |sum, count| sum.saturating_add(*count));
        let tiers = self.tiers.iter().filter(|tier| prompt > tier.above);
        let tier = tiers.max_by_key(|tier| tier.above);
        let rates = tier.map_or(&self.base, |tier| &tier.rates);
        // Of a look without a price nobody knows better than that.
        let drawn = self.pictures.as_ref().map(|pictures| {
            let rate = pictures.most(usage.look);
            rates.with(Unit::Images, rate.unwrap_or(pictures.dearest()))
        });
        let each = counts.iter().zip(&drawn.as_ref().unwrap_or(rates).0);
        money(each.fold(0, |sum, (count, rate)| {
            sum.saturating_add(product(*count, *rate))
        }))
    }

    /// The most that a request may cost that may use so much, whichever classes its tokens are of. None: it is no price of
    /// that, or nobody knows how much it uses.
    pub fn bound(&self, most: &Most) -> Option<Money> {
        self.pico(most).map(money)
    }

    fn pico(&self, most: &Most) -> Option<u128> {
        if !self.is_of(most.unit.map(|(unit, _)| unit), most.look) {
            return None;
        }
        let (input, output, units) = self.dearest(most.input.unwrap_or(u64::MAX));
        let tokens = [(most.input, input), (most.output, output)];
        let drawn = || self.pictures.as_ref()?.most(most.look);
        let own = most.unit.map(|(unit, count)| match unit {
            Unit::Images => (count, drawn().map_or(unit.of(units), |rate| rate.0)),
            _ => (count, unit.of(units)),
        });
        let each = tokens.into_iter().chain(own);
        // Of what costs nothing nobody needs to know how much it is.
        let mut costly = each.filter(|(_, rate)| *rate > 0);
        costly.try_fold(0_u128, |sum, (count, rate)| {
            Some(sum.saturating_add(product(count?, rate)))
        })
    }

    /// How many tokens of output an amount surely pays for beside all else that a request may use: the most for which the
    /// bound is no more than the amount, or 0.
    pub fn output_for(&self, most: &Most, amount: Money) -> u64 {
        // Every bound is at most this.
        if amount == Money(u64::MAX) {
            return u64::MAX;
        }
        let others = Most {
            output: Some(0),
            ..*most
        };
        let (_, rate, _) = self.dearest(most.input.unwrap_or(u64::MAX));
        let amount = u128::from(amount.0) * PICO_PER_NANO;
        let others = self.pico(&others);
        let Some(left) = others.and_then(|others| amount.checked_sub(others)) else {
            return 0;
        };
        let fits = left.checked_div(u128::from(rate));
        fits.map_or(u64::MAX, |fits| u64::try_from(fits).unwrap_or(u64::MAX))
    }

    /// The dearest rates of input, of output and of each unit that a prompt of up to so many tokens may lead to.
    fn dearest(&self, input: u64) -> (u64, u64, [u64; UNITS]) {
        let tiers = self.tiers.iter().filter(|tier| input > tier.above);
        let all = tiers.map(|tier| &tier.rates).chain([&self.base]);
        let (mut input, mut output, mut units) = (0, 0, [0; UNITS]);
        for Rates(rates, _) in all {
            let (tokens, own) = rates.split_at(TOKENS);
            let (inputs, outputs) = tokens.split_at(INPUTS);
            input = inputs.iter().fold(input, |most, rate| *rate.max(&most));
            output = outputs.iter().fold(output, |most, rate| *rate.max(&most));
            for (most, rate) in units.iter_mut().zip(own) {
                *most = *rate.max(most);
            }
        }
        (input, output, units)
    }
}

/// Cannot overflow: the square of the largest `u64` is a `u128`.
fn product(count: u64, rate: u64) -> u128 {
    u128::from(count) * u128::from(rate)
}

fn money(pico: u128) -> Money {
    Money(u64::try_from(pico.div_ceil(PICO_PER_NANO)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pictures::tests::{pictures, some_look, some_pictures};
    use super::*;

    fn rates(input: u64, output: u64) -> Rates {
        let mut stated = Stated::default();
        stated[0] = Some(Rate(input));
        stated[INPUTS] = Some(Rate(output));
        Rates::of(&stated).unwrap()
    }

    fn price(base: Rates, tiers: Vec<Tier>) -> Price {
        Price {
            base,
            tiers,
            pictures: None,
            version: "test".into(),
        }
    }

    fn usage(counts: [u64; KINDS.len()]) -> Usage {
        Usage::of(counts, None)
    }

    #[test]
    fn a_price_is_read_as_it_is_written_and_written_as_it_is_read() {
        for (text, pico) in [
            ("0.00", 0),
            ("2.50", 2_500_000),
            ("0.000001", 1),
            ("15.00", 15_000_000),
            ("0.0375", 37_500),
        ] {
            assert_eq!(Rate::parse("input", text), Ok(Rate(pico)));
            assert_eq!(Rate(pico).written("input"), text);
        }
        for (kind, text, pico) in [
            ("characters", "15.00", 15_000_000),
            ("seconds", "0.0001", 100_000_000),
            ("images", "0.04", 40_000_000_000),
            ("searches", "0.002", 2_000_000_000),
            ("images", "0.000000000001", 1),
        ] {
            assert_eq!(Rate::parse(kind, text), Ok(Rate(pico)), "{kind}");
            assert_eq!(Rate(pico).written(kind), text);
        }
        assert_eq!(Rate::parse("input", "0"), Ok(Rate(0)));
        assert_eq!(Rate::parse("input", "2.5e-06"), Err(NoRate::Finer(6)));
        assert_eq!(Rate::parse("input", "0.0000001"), Err(NoRate::Finer(6)));
        assert_eq!(Rate::parse("input", "-1"), Err(NoRate::Number(NoDecimal)));
        assert_eq!(Rate::parse("input", "free"), Err(NoRate::Number(NoDecimal)));
        assert_eq!(Rate::per_one("2.5e-06"), Ok(Rate(2_500_000)));
        assert_eq!(
            Rate::per_one("0.0000000299999000000000002"),
            Ok(Rate(30_000))
        );
        assert_eq!(Rate::per_one("-1e-6"), Err(NoDecimal));
        let most = Rate(u64::MAX).written("input");
        assert_eq!(Rate::parse("input", &most), Ok(Rate(u64::MAX)));
    }

    #[test]
    fn what_is_not_stated_follows_what_is() {
        let all = |stated: Stated| {
            let rates = Rates::of(&stated)?.0;
            assert_eq!(rates[TOKENS..], [0; UNITS], "nothing else is billed");
            rates[..TOKENS].first_chunk::<TOKENS>().copied()
        };
        let (none, some) = (None, |rate| Some(Rate(rate)));
        let mut stated = [none; KINDS.len()];
        assert_eq!(all(stated), None);
        stated[0] = some(7);
        assert_eq!(all(stated), None, "output is not known");
        stated[6] = some(9);
        assert_eq!(all(stated), Some([7, 7, 7, 7, 7, 7, 9, 9, 9, 9]));
        stated[2] = some(8);
        assert_eq!(all(stated), Some([7, 7, 8, 8, 7, 7, 9, 9, 9, 9]));
        stated[1] = some(0);
        stated[7] = some(0);
        assert_eq!(
            all(stated),
            Some([7, 0, 8, 8, 7, 7, 9, 0, 9, 9]),
            "a stated zero stays"
        );
        let mut tier = [none; KINDS.len()];
        tier[0] = some(70);
        tier[3] = some(80);
        assert_eq!(
            Rates::over(&stated, &tier).unwrap().0[..TOKENS],
            [70, 0, 8, 80, 70, 70, 9, 0, 9, 9]
        );
    }

    #[test]
    fn what_was_stated_and_what_is_billed_apart_are_two_things() {
        let mut stated = Stated::default();
        for (n, rate) in [(0, 7), (1, 7), (2, 8), (6, 9), (8, 10)] {
            stated[n] = Some(Rate(rate));
        }
        let rates = Rates::of(&stated).unwrap();
        let names = |kinds: Kinds| kinds.names().collect::<Vec<_>>();
        assert_eq!(
            names(rates.stated()),
            ["input", "cached", "cache_write", "output", "audio_output"]
        );
        assert_eq!(
            names(rates.apart()),
            ["cache_write", "audio_output"],
            "cached costs what input does, and an hour's writing follows writing"
        );
        let mut tier = Stated::default();
        tier[3] = Some(Rate(80));
        let over = Rates::over(&stated, &tier).unwrap();
        let more = over.stated().without(rates.stated());
        assert_eq!(names(more), ["cache_write_1h"]);
    }

    #[test]
    fn a_price_is_of_tokens_or_of_units_or_of_both() {
        let of = |pairs: &[(usize, u64)]| {
            let mut stated = Stated::default();
            for (n, rate) in pairs {
                stated[*n] = Some(Rate(*rate));
            }
            Rates::of(&stated).map(|rates| price(rates, Vec::new()))
        };
        let by_character = of(&[(10, 15_000_000)]).unwrap();
        assert!(by_character.is_of(Some(Unit::Characters), Look::ANY));
        assert!(!by_character.is_of(Some(Unit::Seconds), Look::ANY));
        assert!(!by_character.is_of_tokens(), "a chat has none");
        let speech = |characters| Most {
            unit: Some((Unit::Characters, characters)),
            ..Most::tokens(100, 0)
        };
        assert_eq!(by_character.bound(&speech(Some(2))), Some(Money(30_000)));
        assert_eq!(by_character.bound(&speech(None)), None, "nobody knows");
        assert_eq!(by_character.bound(&Most::tokens(1, 1)), None);
        let used = Usage {
            characters: 2,
            input: 9,
            ..Usage::default()
        };
        assert_eq!(by_character.cost(&used), Money(30_000));
        // Whoever bills by the token bills nothing else, but for what is stated.
        let by_token = of(&[(0, 1_000), (6, 1_000)]).unwrap();
        assert_eq!(by_token.bound(&speech(None)), Some(Money(100)));
        assert_eq!(by_token.cost(&used), Money(9));
        let unknown = Most {
            output: None,
            ..speech(Some(1))
        };
        assert_eq!(by_token.bound(&unknown), None);
        assert_eq!(by_token.output_for(&unknown, Money(150)), 50);
        let both = of(&[(0, 1_000), (6, 1_000), (12, 40_000)]).unwrap();
        let images = Most {
            unit: Some((Unit::Images, Some(3))),
            ..Most::tokens(1, 1)
        };
        assert_eq!(both.bound(&images), Some(Money(2 + 120)));
        assert_eq!(both.output_for(&images, Money(121 + 7)), 7);
        assert!(of(&[(0, 1), (12, 1)]).is_none(), "output is not known");
        let free = of(&[(13, 0)]).unwrap();
        assert_eq!(
            free.bound(&speech(None)),
            Some(Money::ZERO),
            "stated as such"
        );
    }

    #[test]
    fn pictures_cost_what_they_are_like() {
        let look = |text| Look::key(text).unwrap();
        let drawn = drawn(pictures(&[("1024x1024", 40_000), ("1024x1024/hd", 80_000)]));
        let most = |text| Most {
            unit: Some((Unit::Images, Some(3))),
            look: look(text),
            ..Most::tokens(9, 0)
        };
        assert_eq!(drawn.bound(&most("1024x1024/low")), Some(Money(120)));
        assert_eq!(drawn.bound(&most("1024x1024/hd")), Some(Money(240)));
        assert_eq!(drawn.bound(&most("any")), Some(Money(240)), "the dearest");
        assert_eq!(drawn.bound(&most("512x512")), None, "nobody knows");
        assert!(drawn.states(Unit::Images) && !drawn.is_of_tokens());
        assert!(!drawn.is_certain(Look::ANY) && drawn.is_certain(look("1024x1024/hd")));
        let used = |text| Usage {
            images: 2,
            look: look(text),
            ..Usage::default()
        };
        assert_eq!(drawn.cost(&used("1024x1024")), Money(160));
        assert_eq!(drawn.cost(&used("1024x1024/low")), Money(80));
        assert_eq!(drawn.cost(&used("512x512")), Money(160), "as nobody knows");
        let nothing = Price {
            pictures: Some(pictures(&[("low", 0)])),
            ..price(drawn.base.with(Unit::Images, Rate(0)), Vec::new())
        };
        assert!(!nothing.is_free(), "of others nobody knows what they cost");
        assert_eq!(nothing.bound(&most("low")), Some(Money::ZERO));
        assert_eq!(nothing.bound(&most("hd")), None);
    }

    #[test]
    fn a_long_prompt_reprices_the_whole_request() {
        let tier = |above, by: u64| Tier {
            above,
            rates: rates(1000 * by, 2000 * by),
        };
        let price = price(rates(1000, 2000), vec![tier(200, 10), tier(100, 5)]);
        for (cached, input, want) in [
            (0, 100, 100 + 20),
            (60, 40, 100 + 20),
            // All input counts, whichever class it is of.
            (60, 41, 505 + 100),
            (0, 200, 1000 + 100),
            (200, 1, 2010 + 200),
        ] {
            let usage = Usage {
                input,
                cached,
                output: 10,
                ..Usage::default()
            };
            assert_eq!(price.cost(&usage), Money(want), "{cached} + {input}");
        }
    }

    #[test]
    fn a_sum_is_rounded_up_once() {
        let price = price(rates(1, 1), Vec::new());
        let each = usage([1; KINDS.len()]);
        assert_eq!(price.cost(&each), Money(1), "fourteen trillionths");
        let thousand = usage([100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 0, 0, 0, 0]);
        assert_eq!(price.cost(&thousand), Money(1));
        let one_more = Usage {
            output: 101,
            ..thousand
        };
        assert_eq!(price.cost(&one_more), Money(2));
        assert_eq!(price.cost(&Usage::default()), Money::ZERO);
    }

    #[test]
    fn what_the_provider_says_goes_before_every_price() {
        let said = Usage {
            cost: Some(Money(3)),
            ..usage([1 << 39; KINDS.len()])
        };
        assert_eq!(price(rates(9, 9), Vec::new()).cost(&said), Money(3));
        assert_eq!(Price::free().cost(&said), Money(3));
    }

    #[test]
    fn free_is_free_only_if_every_tier_is() {
        let free = Price::free();
        assert!(free.is_free());
        let all = Most::tokens(u64::MAX, u64::MAX);
        assert_eq!(free.bound(&all), Some(Money::ZERO));
        assert_eq!(free.output_for(&all, Money::ZERO), u64::MAX);
        let tier = Tier {
            above: 10,
            rates: rates(0, 1),
        };
        let later = price(rates(0, 0), vec![tier]);
        assert!(!later.is_free());
        assert_eq!(later.bound(&Most::tokens(10, 5000)), Some(Money::ZERO));
        assert_eq!(later.bound(&Most::tokens(11, 5000)), Some(Money(5)));
    }

    #[test]
    fn the_most_is_the_most() {
        let most = rates(u64::MAX, u64::MAX);
        let tier = Tier {
            above: u64::MAX,
            rates: most,
        };
        let price = price(most, vec![tier]);
        let all = usage([u64::MAX; KINDS.len()]);
        assert_eq!(price.cost(&all), Money(u64::MAX));
        let most = Most::tokens(u64::MAX, u64::MAX);
        assert_eq!(price.bound(&most), Some(Money(u64::MAX)));
        assert_eq!(price.output_for(&most, Money(u64::MAX)), u64::MAX);
        assert_eq!(price.output_for(&most, Money(u64::MAX - 1)), 0);
    }

    /// Small numbers, where things meet, and the largest.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..50_u64, 0..5_000_000_u64, any::<u64>(), Just(u64::MAX)]
    }

    fn some_rates() -> impl Strategy<Value = Rates> {
        proptest::array::uniform14(number()).prop_map(|each| Rates(each, Kinds::ALL))
    }

    fn some_price() -> impl Strategy<Value = Price> {
        let tier = (number(), some_rates()).prop_map(|(above, rates)| Tier { above, rates });
        let tiers = proptest::collection::vec(tier, 0..4);
        (some_rates(), tiers).prop_map(|(base, tiers)| price(base, tiers))
    }

    /// A price by the picture, and nothing else.
    fn drawn(pictures: Pictures) -> Price {
        let mut stated = Stated::default();
        stated[12] = Some(pictures.dearest());
        Price {
            pictures: Some(pictures),
            ..price(Rates::of(&stated).unwrap(), Vec::new())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_pictures_cost_more_than_their_bound(
            all in some_pictures(), asked in some_look(), told in some_look(), images in 0..9_u32,
        ) {
            let (price, told) = (drawn(all), told.known());
            let most = Most {
                unit: Some((Unit::Images, Some(images.into()))),
                look: asked,
                ..Most::tokens(1, 1)
            };
            let agrees = told.over(asked) == asked.over(told);
            prop_assert_eq!(price.bound(&most).is_some(), price.draws(asked));
            let look = told.over(asked);
            if let Some(bound) = price.bound(&most).filter(|_| agrees && price.draws(look)) {
                let usage = Usage { images, look, ..Usage::default() };
                prop_assert!(price.cost(&usage) <= bound);
            }
        }

        #[test]
        fn no_usage_costs_more_than_its_bound(
            price in some_price(),
            // So that their sum is a number, too.
            counts in proptest::array::uniform14(number().prop_map(|n| n >> 4)),
            more in (0..9_u64, 0..9_u64),
        ) {
            // A request has one unit of its own at most.
            let usage = Usage { characters: 0, images: 0, searches: 0, ..usage(counts) };
            let most = Most {
                input: Some(counts[..INPUTS].iter().sum::<u64>() + more.0),
                output: Some(counts[INPUTS..TOKENS].iter().sum::<u64>() + more.1),
                unit: Some((Unit::Seconds, Some(u64::from(usage.seconds) + more.1))),
                look: Look::ANY,
            };
            prop_assert!(price.cost(&usage) <= price.bound(&most).unwrap());
        }

        #[test]
        fn as_much_output_as_can_be_paid_and_no_more(
            price in some_price(), input in number(), images in number(), amount in number(),
        ) {
            let amount = Money(amount);
            let unit = Some((Unit::Images, Some(images)));
            let most = |output| Most { unit, ..Most::tokens(input, output) };
            let fits = price.output_for(&most(0), amount);
            if fits > 0 && fits < u64::MAX {
                prop_assert!(price.bound(&most(fits)).unwrap() <= amount);
            }
            if let (Some(more), Some(bound)) = (fits.checked_add(1), price.bound(&most(fits.saturating_add(1)))) {
                prop_assert!(more > fits && bound > amount);
            }
        }

        #[test]
        fn the_parts_cost_the_whole_but_for_one_rounding_each(
            base in proptest::array::uniform14(0..1_000_000_000_u64),
            counts in proptest::array::uniform14(0..(1_u64 << 32)),
        ) {
            let price = price(Rates(base, Kinds::ALL), Vec::new());
            let whole = price.cost(&usage(counts));
            let mut parts = 0;
            for n in 0..KINDS.len() {
                let mut one = [0; KINDS.len()];
                one[n] = counts[n];
                parts += price.cost(&usage(one)).0;
            }
            prop_assert!(whole.0 <= parts && parts < whole.0 + KINDS.len() as u64);
        }

        #[test]
        fn every_price_is_read_as_it_is_shown(rate in number(), n in 0..KINDS.len()) {
            prop_assert_eq!(Rate::parse(KINDS[n], &Rate(rate).written(KINDS[n])), Ok(Rate(rate)));
        }
    }
}
