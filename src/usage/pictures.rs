//! What does one picture cost, where that depends on what it is like?
//!
//! A price is of a size, of a quality, of both, or of whatever no other is of. It agrees with a request that asks for that, or
//! that leaves it open. Where one is of all that a look says, what says less does not count.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Look, Quality, Rate, Size, Stated};

/// What one picture costs, by its look. There is one price at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures(Arc<[(Look, Rate)]>);

impl Pictures {
    /// Of prices of looks. None: there is none.
    pub fn of(each: BTreeMap<Look, Rate>) -> Option<Self> {
        let is_empty = each.is_empty();
        (!is_empty).then(|| Self(each.into_iter().collect()))
    }

    /// States what a picture costs: the dearest, and by what it is like if that matters.
    pub fn state(self, stated: &mut Stated) -> Option<Self> {
        let [.., images, _] = stated;
        *images = Some(self.dearest());
        let depends = !matches!(*self.0, [(Look::ANY, _)]);
        depends.then_some(self)
    }

    /// All of them, in order.
    pub fn all(&self) -> &[(Look, Rate)] {
        &self.0
    }

    /// The dearest of all.
    pub fn dearest(&self) -> Rate {
        let rates = self.0.iter().map(|(_, rate)| *rate);
        rates.max().unwrap_or_default()
    }

    /// The most that a picture costs for all that is known of its look. None: no price agrees with that.
    pub fn most(&self, look: Look) -> Option<Rate> {
        self.agreeing(look).max()
    }

    /// Whether what is known of a look leaves no more than one amount.
    pub fn is_certain(&self, look: Look) -> bool {
        self.agreeing(look).min() == self.agreeing(look).max()
    }

    /// Whether all that counts of a look is known here.
    pub fn understands(&self, look: Look) -> bool {
        let look = self.counting(look);
        look == look.known()
    }

    /// The prices that a picture may have for all that is known of its look: those that agree with it, but for what says less
    /// than another that is of all the same pictures.
    fn agreeing(&self, look: Look) -> impl Iterator<Item = Rate> {
        let look = self.counting(look);
        let is_hidden = move |of: Look| {
            let narrowed = look.over(of);
            let mut others = self.0.iter().map(|(other, _)| *other);
            others.any(|other| says(other) > says(of) && covers(other, narrowed))
        };
        let agreeing = self.0.iter().filter(move |(of, _)| agrees(*of, look));
        let agreeing = agreeing.filter(move |(of, _)| !is_hidden(*of));
        agreeing.map(|(_, rate)| *rate)
    }

    /// What of a look counts: where no price is of a size, the size does not, nor does the quality where none is of one.
    fn counting(&self, look: Look) -> Look {
        let has_sizes = self.0.iter().any(|(of, _)| !of.size.is_any());
        let has_qualities = self.0.iter().any(|(of, _)| !of.quality.is_any());
        Look {
            size: if has_sizes { look.size } else { Size::Any },
            quality: if has_qualities {
                look.quality
            } else {
                Quality::Any
            },
        }
    }
}

/// How much is said.
fn says(look: Look) -> usize {
    usize::from(!look.size.is_any()) + usize::from(!look.quality.is_any())
}

/// Whether a price is of every picture of which so much is known.
fn covers(of: Look, look: Look) -> bool {
    agrees(of, look)
        && (of.size.is_any() || of.size == look.size)
        && (of.quality.is_any() || of.quality == look.quality)
}

/// Whether a price may be that of a picture of which so much is known. With what nobody knows only that agrees which is of
/// everything.
fn agrees(of: Look, look: Look) -> bool {
    let has_unknown = look.size == Size::Unknown || look.quality == Quality::Unknown;
    let size = of.size.is_any() || look.size.is_any() || of.size == look.size;
    let quality = of.quality.is_any() || look.quality.is_any() || of.quality == look.quality;
    of.is_any() || (!has_unknown && size && quality)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Prices, each as `1024x1024/hd 8`.
    pub(in crate::usage) fn pictures(each: &[(&str, u64)]) -> Pictures {
        let each = each
            .iter()
            .map(|(of, rate)| (Look::key(of).unwrap(), Rate(*rate)));
        Pictures::of(each.collect()).unwrap()
    }

    /// A look as a request has it: a size and a quality, each of which may be anything.
    fn look(size: &str, quality: &str) -> Look {
        Look {
            size: Size::read(size),
            quality: Quality::read(quality),
        }
    }

    #[test]
    fn what_agrees_is_looked_for_and_the_dearest_counts() {
        let both = pictures(&[
            ("1024x1024/standard", 4),
            ("1024x1024/hd", 8),
            ("1792x1024/standard", 9),
            ("1792x1024/hd", 12),
        ]);
        for (size, quality, most, is_certain) in [
            ("1024x1024", "standard", Some(4), true),
            ("1024x1024", "hd", Some(8), true),
            ("1024x1024", "auto", Some(8), false),
            ("auto", "standard", Some(9), false),
            ("auto", "auto", Some(12), false),
            ("512x512", "hd", None, true),
            ("1024x1024", "low", None, true),
            ("1024x1024", "ultra", None, true),
            ("2K", "hd", None, true),
        ] {
            let look = look(size, quality);
            let most = most.map(Rate);
            assert_eq!(both.most(look), most, "{size} {quality}");
            assert_eq!(both.is_certain(look), is_certain, "{size} {quality}");
        }
        assert_eq!(both.dearest(), Rate(12));
    }

    #[test]
    fn what_says_more_goes_before_what_says_less() {
        let mixed = pictures(&[
            ("1024x1024", 9),
            ("1024x1024/low", 1),
            ("low", 2),
            ("any", 20),
        ]);
        for (size, quality, most, is_certain) in [
            ("1024x1024", "low", 1, true),
            ("1024x1024", "hd", 9, true),
            ("512x512", "low", 2, true),
            ("512x512", "hd", 20, true),
            // Of any quality there may be the low one, and what is of the size alone is of all others.
            ("1024x1024", "auto", 9, false),
            ("auto", "low", 2, false),
            ("auto", "auto", 20, false),
            // What nobody knows has the price of what no other is of.
            ("1024x1024", "ultra", 20, true),
        ] {
            let look = look(size, quality);
            assert_eq!(mixed.most(look), Some(Rate(most)), "{size} {quality}");
            assert_eq!(mixed.is_certain(look), is_certain, "{size} {quality}");
        }
        let two = pictures(&[("1024x1024", 3), ("hd", 5)]);
        assert_eq!(
            two.most(look("1024x1024", "hd")),
            Some(Rate(5)),
            "the dearer of equals"
        );
    }

    #[test]
    fn what_no_price_is_of_does_not_count() {
        let by_size = pictures(&[("1024x1024", 3), ("1792x1024", 5)]);
        assert_eq!(by_size.most(look("1024x1024", "ultra")), Some(Rate(3)));
        assert!(by_size.is_certain(look("1024x1024", "auto")));
        let by_quality = pictures(&[("low", 3), ("high", 5)]);
        assert_eq!(by_quality.most(look("2K", "high")), Some(Rate(5)));
        assert_eq!(by_quality.most(look("2K", "hd")), None);
        let one = pictures(&[("any", 3)]);
        assert_eq!(one.most(look("2K", "ultra")), Some(Rate(3)));
    }

    const SIZES: [&str; 4] = ["auto", "1024x1024", "1792x1024", "2K"];
    const QUALITIES: [&str; 4] = ["auto", "low", "hd", "ultra"];

    pub(in crate::usage) fn some_look() -> impl Strategy<Value = Look> {
        (0..4_usize, 0..4_usize).prop_map(|(size, quality)| look(SIZES[size], QUALITIES[quality]))
    }

    pub(in crate::usage) fn some_pictures() -> impl Strategy<Value = Pictures> {
        let of = (0..3_usize, 0..3_usize).prop_map(|(s, q)| look(SIZES[s], QUALITIES[q]));
        let each = proptest::collection::btree_map(of, (0..9_u64).prop_map(Rate), 1..9);
        each.prop_map(|each| Pictures::of(each).unwrap())
    }

    proptest! {
        #[test]
        fn to_know_more_never_makes_it_dearer(all in some_pictures(), asked in some_look(), told in some_look()) {
            // What is told and known agrees with what was asked for: it is the same, or that was left open.
            let told = told.known();
            let agrees = told.over(asked) == asked.over(told);
            if agrees && let (Some(least), Some(most)) = (all.most(asked.over(told)), all.most(asked)) {
                prop_assert!(least <= most);
            }
            if let Some(most) = all.most(asked) {
                prop_assert!(most <= all.dearest());
                prop_assert!(all.all().iter().any(|(_, rate)| *rate == most));
            }
        }

        #[test]
        fn of_a_picture_that_is_known_there_is_one_price_of_what_says_most(all in some_pictures()) {
            let known = look("1024x1024", "hd");
            let says = |of: &Look| (!of.size.is_any(), !of.quality.is_any());
            let fits = |of: &&(Look, Rate)| of.0.over(known) == known;
            let best = all.all().iter().filter(fits).map(|(of, rate)| {
                let (size, quality) = says(of);
                (u8::from(size) + u8::from(quality), *rate)
            });
            prop_assert_eq!(all.most(known), best.max().map(|(_, rate)| rate));
        }
    }
}
