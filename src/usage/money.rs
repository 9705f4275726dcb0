//! Amounts of money.

use std::fmt;
use std::iter::Sum;

use super::{Decimal, NoDecimal};

/// An amount in billionths of a US dollar, never negative. What would be less than nothing is nothing, and what would be
/// more than the most (18 billion dollars) is the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub u64);

/// Digits after the point.
const PLACES: u8 = 9;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Dollars as a person writes them, exactly: a billionth is the smallest part.
    pub fn parse(text: &str) -> Result<Self, NoDecimal> {
        let exact = Decimal::parse(text, PLACES)?.exact();
        exact.map(Self).ok_or(NoDecimal)
    }

    /// Dollars as a provider states what it bills, rounded up.
    pub fn billed(text: &str) -> Result<Self, NoDecimal> {
        Decimal::parse(text, PLACES)?.up().map(Self)
    }

    /// The two together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Self::plus)
    }
}

/// Dollars, exactly, with at least two digits after the point.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Digit by digit, from the last: it is written with every answer. The most has 11 digits before the point.
        const POINT: usize = 11;
        let mut text = *b"00000000000.000000000";
        let mut rest = self.0;
        for (n, digit) in text.iter_mut().enumerate().rev() {
            if rest == 0 {
                break;
            }
            if n != POINT {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        // Zeros before the first of the others and behind the last are left out, but one and two.
        let counts = |byte: &u8| *byte != b'0';
        let start = text.iter().position(counts).unwrap_or(POINT);
        let end = text.iter().rposition(counts).unwrap_or(POINT);
        let shown = text.get(start.min(POINT - 1)..=end.max(POINT + 2));
        f.write_str(str::from_utf8(shown.unwrap_or_default()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_written_as_they_are_read() {
        for (text, nanos) in [
            ("0.00", 0),
            ("25.00", 25_000_000_000),
            ("0.05", 50_000_000),
            ("0.000000001", 1),
            ("1.234567891", 1_234_567_891),
            ("18446744073.709551615", u64::MAX),
        ] {
            assert_eq!(Money::parse(text), Ok(Money(nanos)));
            assert_eq!(Money(nanos).to_string(), text);
        }
        assert_eq!(
            Money::parse("0.0000000001"),
            Err(NoDecimal),
            "finer than there is"
        );
        assert_eq!(Money::billed("0.0000000001"), Ok(Money(1)));
        assert_eq!(Money(1).minus(Money(2)), Money::ZERO);
        assert_eq!(Money(u64::MAX).plus(Money(2)), Money(u64::MAX));
    }
}
