//! What do so many tokens cost? Rates in whole pico-dollars per token; a sum is rounded up once, to a billionth.

use std::fmt;
use std::sync::Arc;

use super::{Decimal, KINDS, Kinds, Money, NoDecimal, Usage, relative};

/// What one token costs, in trillionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

/// What is written as a price is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRate {
    /// It is no number, a negative one, or one that is far too large.
    #[error(transparent)]
    Number(#[from] NoDecimal),
    /// Less than a whole trillionth of a dollar per token is left over.
    #[error(
        "has more than six digits after the point; a price is in US dollars per million tokens, and a millionth is its smallest part"
    )]
    Finer,
}

/// A dollar per million tokens is so many trillionths per token: 10^6.
const PLACES: u8 = 6;
/// Trillionths of a dollar in a billionth.
const PICO_PER_NANO: u128 = 1000;

impl Rate {
    /// US dollars per million tokens as a person writes them, exactly.
    pub fn parse(text: &str) -> Result<Self, NoRate> {
        let exact = Decimal::parse(text, PLACES)?.exact();
        exact.map(Self).ok_or(NoRate::Finer)
    }

    /// US dollars per token, as lists of prices have them: floats that were written out, hence rounded to the nearest.
    pub fn per_token(text: &str) -> Result<Self, NoDecimal> {
        Decimal::parse(text, 12)?.nearest().map(Self)
    }
}

/// US dollars per million tokens, exactly, with at least two digits after the point.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = 10_u64.pow(PLACES.into());
        let text = format!("{}.{:06}", self.0 / part, self.0 % part);
        let shortest = text.len() - usize::from(PLACES) + 2;
        let kept = text.trim_end_matches('0').len().max(shortest);
        f.write_str(text.get(..kept).unwrap_or(&text))
    }
}

/// The rates that are stated, in the order of [`KINDS`]. A stated zero is one; what is not stated is not zero.
pub type Stated = [Option<Rate>; KINDS.len()];

/// One rate for each of [`KINDS`], and which of them were stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates([u64; KINDS.len()], Kinds);

/// How many of [`KINDS`], from the first, are input.
const INPUTS: usize = 6;

impl Rates {
    /// What is not stated follows what is: cached, written, heard and seen input costs what input does, writing for an
    /// hour what writing costs, reasoning and output that is heard or seen what output does. None unless input and
    /// output are both stated: what is not known is not free.
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
        ] = *stated;
        let (input, output) = (input?, output?);
        let cache_write = cache_write.unwrap_or(input);
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

    fn dearest_input(&self) -> u64 {
        self.0.iter().take(INPUTS).copied().max().unwrap_or(0)
    }

    fn dearest_output(&self) -> u64 {
        self.0.iter().skip(INPUTS).copied().max().unwrap_or(0)
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
    /// Which list the price is of, for the record: each entry of the ledger names it.
    pub version: Arc<str>,
}

impl Price {
    /// The price of what costs nothing, stated as such.
    pub fn free() -> Self {
        Self {
            base: Rates::default(),
            tiers: Vec::new(),
            version: "free".into(),
        }
    }

    /// Whether nothing can cost anything.
    pub fn is_free(&self) -> bool {
        let (input, output) = self.dearest(u64::MAX);
        input == 0 && output == 0
    }

    /// Whether output costs nothing while input does: it is a price of what gives none.
    pub fn gives_for_nothing(&self) -> bool {
        let (input, output) = self.dearest(u64::MAX);
        input > 0 && output == 0
    }

    /// What an answer cost: what its provider says, else its tokens at the rates that the whole prompt leads to, rounded
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
        let each = counts.iter().zip(&rates.0);
        money(each.fold(0, |sum, (count, rate)| {
            sum.saturating_add(product(*count, *rate))
        }))
    }

    /// The most that up to so many tokens of input and of output may cost, whichever classes they are of.
    pub fn bound(&self, input: u64, output: u64) -> Money {
        let (input_rate, output_rate) = self.dearest(input);
        money(product(input, input_rate).saturating_add(product(output, output_rate)))
    }

    /// How many tokens of output an amount surely pays for beside so many tokens of input: the most for which the bound
    /// is no more than the amount, or 0.
    pub fn output_for(&self, input: u64, amount: Money) -> u64 {
        // Every bound is at most this.
        if amount == Money(u64::MAX) {
            return u64::MAX;
        }
        let (input_rate, output_rate) = self.dearest(input);
        let amount = u128::from(amount.0) * PICO_PER_NANO;
        let Some(left) = amount.checked_sub(product(input, input_rate)) else {
            return 0;
        };
        let fits = left.checked_div(u128::from(output_rate));
        fits.map_or(u64::MAX, |fits| u64::try_from(fits).unwrap_or(u64::MAX))
    }

    /// The dearest rates of input and of output that a prompt of up to so many tokens may lead to.
    fn dearest(&self, input: u64) -> (u64, u64) {
        let tiers = self.tiers.iter().filter(|tier| input > tier.above);
        let all = tiers.map(|tier| &tier.rates);
        let of = |rates: &Rates| (rates.dearest_input(), rates.dearest_output());
        all.map(of).fold(of(&self.base), |most, next| {
            (most.0.max(next.0), most.1.max(next.1))
        })
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
            version: "test".into(),
        }
    }

    fn usage(counts: [u64; KINDS.len()]) -> Usage {
        Usage {
            input: counts[0],
            cached: counts[1],
            cache_write: counts[2],
            cache_write_1h: counts[3],
            audio_input: counts[4],
            image_input: counts[5],
            output: counts[6],
            reasoning: counts[7],
            audio_output: counts[8],
            image_output: counts[9],
            cost: None,
        }
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
            assert_eq!(Rate::parse(text), Ok(Rate(pico)));
            assert_eq!(Rate(pico).to_string(), text);
        }
        assert_eq!(Rate::parse("0"), Ok(Rate(0)));
        assert_eq!(Rate::parse("2.5e-06"), Err(NoRate::Finer));
        assert_eq!(Rate::parse("0.0000001"), Err(NoRate::Finer));
        assert_eq!(Rate::parse("-1"), Err(NoRate::Number(NoDecimal)));
        assert_eq!(Rate::parse("free"), Err(NoRate::Number(NoDecimal)));
        assert_eq!(Rate::per_token("2.5e-06"), Ok(Rate(2_500_000)));
        assert_eq!(
            Rate::per_token("0.0000000299999000000000002"),
            Ok(Rate(30_000))
        );
        assert_eq!(Rate::per_token("-1e-6"), Err(NoDecimal));
        let most = Rate(u64::MAX).to_string();
        assert_eq!(Rate::parse(&most), Ok(Rate(u64::MAX)));
    }

    #[test]
    fn what_is_not_stated_follows_what_is() {
        let all = |stated: Stated| Rates::of(&stated).map(|rates| rates.0);
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
            Rates::over(&stated, &tier).unwrap().0,
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
        assert_eq!(price.cost(&each), Money(1), "ten trillionths");
        let thousand = usage([100; KINDS.len()]);
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
        assert_eq!(free.bound(u64::MAX, u64::MAX), Money::ZERO);
        assert_eq!(free.output_for(u64::MAX, Money::ZERO), u64::MAX);
        let tier = Tier {
            above: 10,
            rates: rates(0, 1),
        };
        let later = price(Rates::default(), vec![tier]);
        assert!(!later.is_free());
        assert_eq!(later.bound(10, 5000), Money::ZERO);
        assert_eq!(later.bound(11, 5000), Money(5));
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
        assert_eq!(price.bound(u64::MAX, u64::MAX), Money(u64::MAX));
        assert_eq!(price.output_for(u64::MAX, Money(u64::MAX)), u64::MAX);
        assert_eq!(price.output_for(u64::MAX, Money(u64::MAX - 1)), 0);
    }

    /// Small numbers, where things meet, and the largest.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..50_u64, 0..5_000_000_u64, any::<u64>(), Just(u64::MAX)]
    }

    fn some_rates() -> impl Strategy<Value = Rates> {
        proptest::array::uniform10(number()).prop_map(|each| Rates(each, Kinds::ALL))
    }

    fn some_price() -> impl Strategy<Value = Price> {
        let tier = (number(), some_rates()).prop_map(|(above, rates)| Tier { above, rates });
        let tiers = proptest::collection::vec(tier, 0..4);
        (some_rates(), tiers).prop_map(|(base, tiers)| price(base, tiers))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_usage_costs_more_than_its_bound(
            price in some_price(),
            // So that their sum is a number, too.
            counts in proptest::array::uniform10(number().prop_map(|n| n >> 4)),
            more in (0..9_u64, 0..9_u64),
        ) {
            let input = counts[..INPUTS].iter().sum::<u64>() + more.0;
            let output = counts[INPUTS..].iter().sum::<u64>() + more.1;
            prop_assert!(price.cost(&usage(counts)) <= price.bound(input, output));
        }

        #[test]
        fn as_much_output_as_can_be_paid_and_no_more(
            price in some_price(), input in number(), amount in number(),
        ) {
            let amount = Money(amount);
            let fits = price.output_for(input, amount);
            if fits > 0 {
                prop_assert!(price.bound(input, fits) <= amount);
            }
            if let Some(more) = fits.checked_add(1) {
                prop_assert!(price.bound(input, more) > amount);
            }
        }

        #[test]
        fn the_parts_cost_the_whole_but_for_one_rounding_each(
            base in proptest::array::uniform10(0..1_000_000_000_u64),
            counts in proptest::array::uniform10(0..(1_u64 << 40)),
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
        fn every_price_is_read_as_it_is_shown(rate in number()) {
            prop_assert_eq!(Rate::parse(&Rate(rate).to_string()), Ok(Rate(rate)));
        }
    }
}
