//! Which keys have a label of their own? The first thousand; all others share one, so that metrics stay bounded.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use super::counts::Row;

/// More keys than this share the label `other`.
const MOST: usize = 1_000;

const _: () = assert!(SHARED.len() + MOST <= Row::LEN);

/// The label of a key, as a number that stays its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyLabel(u16);

/// Labels that are no key's name.
const SHARED: [&str; 2] = ["", "other"];

impl KeyLabel {
    /// Nobody has said who asks.
    pub(super) const NOBODY: Self = Self(0);
    const OTHER: Self = Self(1);

    /// Below [`Row::LEN`].
    pub(super) fn number(self) -> usize {
        self.0.into()
    }

    /// Its text, for a key of that name.
    pub(super) fn text(self, name: &str) -> &str {
        SHARED.get(self.number()).copied().unwrap_or(name)
    }
}

/// The keys that have a label of their own.
#[derive(Debug, Default)]
pub(super) struct Labels(ArcSwap<Known>);

/// Labels by name, and names by label.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    labels: FxHashMap<SmolStr, KeyLabel>,
    /// In the order of their numbers, after those of [`SHARED`].
    names: Vec<SmolStr>,
}

impl Labels {
    /// Gives the first of all keys a label of their own, but one that is called as the shared label is. A name that once had one keeps it: its counters stand.
    pub(super) fn give(&self, names: impl Iterator<Item = SmolStr>) {
        let names: Vec<_> = names.collect();
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            for name in &names {
                let next = u16::try_from(SHARED.len() + known.names.len()).map(KeyLabel);
                if let Ok(label) = next
                    && known.names.len() < MOST
                    && !known.labels.contains_key(name)
                    && !SHARED.contains(&&**name)
                {
                    known.labels.insert(name.clone(), label);
                    known.names.push(name.clone());
                }
            }
            known
        });
    }

    /// The label of a key.
    pub(super) fn of(&self, name: &str) -> KeyLabel {
        let known = self.0.load();
        known.labels.get(name).copied().unwrap_or(KeyLabel::OTHER)
    }

    /// Whether a key has a label of its own.
    pub(super) fn has(&self, name: &str) -> bool {
        self.of(name) != KeyLabel::OTHER
    }

    /// All of them, as they are now.
    pub(super) fn known(&self) -> Arc<Known> {
        self.0.load_full()
    }
}

impl Known {
    /// The text of a label by its number. None: it was given later.
    pub(super) fn text(&self, number: usize) -> Option<&str> {
        match number.checked_sub(SHARED.len()) {
            None => SHARED.get(number).copied(),
            Some(own) => self.names.get(own).map(|name| &**name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_stay() {
        let labels = Labels::default();
        labels.give((0..2_000).map(|n| format!("k{n}").into()));
        let (first, last) = (labels.of("k0"), labels.of("k999"));
        assert_eq!(labels.of("k1000"), KeyLabel::OTHER);
        assert!(labels.has("k999") && !labels.has("k1000"));
        labels.give(["late".into(), "k0".into()].into_iter());
        let few = Labels::default();
        few.give(["other".into(), "k0".into()].into_iter());
        assert_eq!(few.of("other"), KeyLabel::OTHER);
        assert!(few.has("k0"));
        assert_eq!((labels.of("k0"), labels.of("k999")), (first, last));
        let known = labels.known();
        for (label, text) in [
            (KeyLabel::NOBODY, Some("")),
            (labels.of("late"), Some("other")),
            (first, Some("k0")),
            (last, Some("k999")),
            (KeyLabel(last.0 + 1), None),
        ] {
            assert_eq!(known.text(label.number()), text);
        }
    }

    #[test]
    fn who_gives_while_others_give_takes_no_label_away() {
        let labels = Labels::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let labels = &labels;
                scope.spawn(move || {
                    for n in 0..50 {
                        labels.give([format!("{thread}-{n}").into()].into_iter());
                    }
                });
            }
        });
        let known = labels.known();
        for name in (0..4).flat_map(|thread| (0..50).map(move |n| format!("{thread}-{n}"))) {
            assert_eq!(known.text(labels.of(&name).number()), Some(&*name));
        }
    }
}
