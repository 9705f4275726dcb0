//! Which classes of what is used? Some of [`KINDS`], what each of them costs where nobody says, and for how many of it a
//! price is.

use super::{KINDS, TOKENS, Unit};

/// Some of [`KINDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kinds(u16);

impl Kinds {
    /// Every class there is.
    pub const ALL: Self = Self((1 << KINDS.len()) - 1);

    /// Those for which there is a yes, in the order of [`KINDS`].
    pub fn of(each: [bool; KINDS.len()]) -> Self {
        let bits = each.iter().zip(0..);
        Self(bits.fold(0, |all, (has, n)| all | u16::from(*has) << n))
    }

    /// Those that are tokens.
    pub fn tokens() -> Self {
        Self((1 << TOKENS) - 1)
    }

    /// The one that is a unit, and no token.
    pub fn unit(unit: Unit) -> Self {
        Self(1 << (TOKENS + unit as usize))
    }

    /// The one that is called so, or none.
    pub fn named(name: &str) -> Self {
        Self::of(KINDS.map(|kind| kind == name))
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These and others.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those that are among others, too.
    #[must_use]
    pub fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// These but for others.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Their names, in the order of [`KINDS`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let each = KINDS.into_iter().zip(0..);
        each.filter_map(move |(kind, n)| (self.0 >> n & 1 == 1).then_some(kind))
    }
}

/// The class whose rate one has that is not stated: its nearest relative. Input, output, and
/// what is no token have none but themselves.
pub fn relative(kind: &str) -> &'static str {
    match kind {
        "cache_write_1h" => "cache_write",
        "output" | "reasoning" | "audio_output" | "image_output" => "output",
        "characters" => "characters",
        "seconds" => "seconds",
        "images" => "images",
        "searches" => "searches",
        _ => "input",
    }
}

/// For how many of a class its price is, as a power of ten: tokens and characters are priced by the million, all else by the
/// piece.
pub(super) fn power(kind: &str) -> u8 {
    match kind {
        "seconds" | "images" | "searches" => 0,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::super::INPUTS;
    use super::*;

    #[test]
    fn classes_are_joined_and_told_apart() {
        let (cached, heard) = (Kinds::named("cached"), Kinds::named("audio_output"));
        let both = cached.and(heard);
        assert_eq!(
            both.names().collect::<Vec<_>>(),
            ["cached", "audio_output"],
            "in order"
        );
        assert_eq!(both.without(cached), heard);
        assert_eq!(both.among(cached), cached);
        assert!(Kinds::named("seen").is_empty() && heard.among(cached).is_empty());
        assert_eq!(Kinds::ALL.names().collect::<Vec<_>>(), KINDS);
        assert_eq!(Kinds::of([true; KINDS.len()]), Kinds::ALL);
    }

    #[test]
    fn every_class_has_a_relative_of_its_own_side() {
        let place = |name: &str| KINDS.iter().position(|kind| *kind == name).unwrap();
        let side = |name: &str| (place(name) < INPUTS, place(name) < TOKENS);
        for kind in KINDS {
            assert_eq!(side(kind), side(relative(kind)), "{kind}");
        }
        assert_eq!(["input", "output"].map(relative), ["input", "output"]);
        let units = KINDS.iter().skip(TOKENS);
        assert!(units.clone().all(|unit| relative(unit) == *unit));
        for unit in Unit::ALL {
            assert_eq!(Kinds::unit(unit), Kinds::named(unit.name()));
        }
        assert_eq!(
            Unit::ALL.map(Unit::name),
            *units.copied().collect::<Vec<_>>()
        );
    }
}
