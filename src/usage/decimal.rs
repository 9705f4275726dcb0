//! Decimal numbers, from their text to a whole number of parts: never through a float.

use std::cmp::Ordering;

/// What is left of a decimal number that was cut to whole parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// How many whole parts it has.
    pub whole: u64,
    /// What is left beside them, compared with half a part; none if nothing is.
    rest: Option<Ordering>,
}

/// What is written as a number that is not negative is none, or is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a number from 0 up to about 18 billion, written as in 0.25 or 2.5e-07")]
pub struct NoDecimal;

/// More digits than any price has; and no exponent that would make more of them.
const MOST_DIGITS: usize = 60;

impl Decimal {
    /// Reads a number as JSON and TOML write it, in parts of 10^-`places`.
    pub fn parse(text: &str, places: u8) -> Result<Self, NoDecimal> {
        // Most numbers are whole, and short.
        if let Some(whole) = whole(text, places) {
            return Ok(Self { whole, rest: None });
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i32>().map_err(|_| NoDecimal)?)
            }
            None => (text, 0),
        };
        let (integral, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return Err(NoDecimal),
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if integral.is_empty() || !is_digits(integral) || !is_digits(fraction) {
            return Err(NoDecimal);
        }
        let digits = [integral, fraction].concat();
        if digits.len() > MOST_DIGITS || exponent.unsigned_abs() as usize > MOST_DIGITS {
            return Err(NoDecimal);
        }
        // Where the point stands once the number is counted in parts.
        let point = i64::try_from(integral.len()).map_err(|_| NoDecimal)?
            + i64::from(exponent)
            + i64::from(places);
        let (whole, rest) = match usize::try_from(point) {
            Ok(point) => digits.split_at_checked(point).map_or_else(
                || (digits.clone() + &"0".repeat(point - digits.len()), ""),
                |(whole, rest)| (whole.to_owned(), rest),
            ),
            Err(_) => (String::new(), digits.as_str()),
        };
        let whole = whole.trim_start_matches('0');
        let whole = match whole {
            "" => 0,
            digits => digits.parse().map_err(|_| NoDecimal)?,
        };
        Ok(Self {
            whole,
            rest: rest_of(rest, point < 0),
        })
    }

    /// Rounded up: for what is owed.
    pub fn up(self) -> Result<u64, NoDecimal> {
        let more = u64::from(self.rest.is_some());
        self.whole.checked_add(more).ok_or(NoDecimal)
    }

    /// Rounded to the nearest, to the even one from the middle: for what others have made of a price by floats.
    pub fn nearest(self) -> Result<u64, NoDecimal> {
        let more = match self.rest {
            None | Some(Ordering::Less) => 0,
            Some(Ordering::Equal) => self.whole % 2,
            Some(Ordering::Greater) => 1,
        };
        self.whole.checked_add(more).ok_or(NoDecimal)
    }

    /// As it is, if nothing is left beside whole parts: for what a person writes.
    pub fn exact(self) -> Option<u64> {
        self.rest.is_none().then_some(self.whole)
    }
}

/// The parts of a number that is nothing but digits, if they fit.
fn whole(text: &str, places: u8) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = text.parse().ok().filter(|_| is_digits)?;
    number.checked_mul(10_u64.checked_pow(places.into())?)
}

/// What the digits after the point come to; `far` if there are zeros between it and them.
fn rest_of(digits: &str, far: bool) -> Option<Ordering> {
    let first = digits.bytes().next()?;
    if digits.bytes().all(|digit| digit == b'0') {
        return None;
    }
    if far {
        return Some(Ordering::Less);
    }
    let others = digits.bytes().skip(1).any(|digit| digit != b'0');
    Some(match first.cmp(&b'5') {
        Ordering::Equal if others => Ordering::Greater,
        order => order,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_their_text() {
        let read =
            |text, places| Decimal::parse(text, places).map(|d| (d.up(), d.nearest(), d.exact()));
        for (text, places, up, nearest, exact) in [
            ("0", 9, 0, 0, Some(0)),
            ("0.0", 9, 0, 0, Some(0)),
            (
                "25",
                9,
                25_000_000_000,
                25_000_000_000,
                Some(25_000_000_000),
            ),
            ("0.000000001", 9, 1, 1, Some(1)),
            ("0.0000000011", 9, 2, 1, None),
            ("0.0000000015", 9, 2, 2, None),
            ("0.0000000025", 9, 3, 2, None),
            ("0.00000000251", 9, 3, 3, None),
            ("2.5e-06", 12, 2_500_000, 2_500_000, Some(2_500_000)),
            ("2.5E+2", 0, 250, 250, Some(250)),
            ("2.9999999999999999e-6", 12, 3_000_000, 3_000_000, None),
            ("1e-30", 9, 1, 0, None),
            ("9e-10", 9, 1, 1, None),
            ("9e-11", 9, 1, 0, None),
            ("0e99", 0, 0, 0, None),
            ("007", 0, 7, 7, Some(7)),
            (
                "18446744073.709551615",
                9,
                u64::MAX,
                u64::MAX,
                Some(u64::MAX),
            ),
        ] {
            match read(text, places) {
                Ok(read) => assert_eq!(read, (Ok(up), Ok(nearest), exact), "{text}"),
                Err(_) => assert_eq!(text, "0e99"),
            }
        }
        for wrong in [
            "",
            "-1",
            "+1",
            ".5",
            "1.",
            "1.e3",
            "NaN",
            "inf",
            "1,5",
            "1 ",
            "0x1",
            "1e",
            "1e1.5",
            "ten",
            "18446744073.709551616",
            "1e400",
            "1e61",
        ] {
            assert_eq!(Decimal::parse(wrong, 9), Err(NoDecimal), "{wrong}");
        }
        assert_eq!(
            Decimal::parse("18446744073.7095516151", 9).unwrap().up(),
            Err(NoDecimal)
        );
    }
}
