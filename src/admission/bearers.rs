//! Who shows which key? Callers by the digest of their key.
//!
//! A caller stands where its digest leads, so that with many keys a look at one is a look at one place in memory; and once
//! there are many, that is on large pages, for which a processor seldom has to ask where they are.

use std::ops::Deref;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use hugealloc::HugeAlloc;

use super::{Caller, Digest};

/// Callers, each with another key.
#[derive(Clone, Debug, Default)]
pub(super) struct Bearers(HashTable<Caller, HugeAlloc>);

impl Bearers {
    /// With room for so many.
    pub(super) fn with_capacity(most: usize) -> Self {
        Self(HashTable::with_capacity_in(most, HugeAlloc))
    }

    /// Adds one, instead of whoever had that key. False if somebody had.
    pub(super) fn add(&mut self, caller: Caller) -> bool {
        let digest = caller.digest;
        let rehash = |other: &Caller| hash(&other.digest);
        match self.0.entry(hash(&digest), has(&digest), rehash) {
            Entry::Occupied(mut other) => {
                *other.get_mut() = caller;
                false
            }
            Entry::Vacant(place) => {
                place.insert(caller);
                true
            }
        }
    }

    /// Who has this key.
    pub(super) fn get(&self, digest: &Digest) -> Option<&Caller> {
        self.0.find(hash(digest), has(digest))
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        if let Ok(entry) = self.0.find_entry(hash(digest), has(digest)) {
            entry.remove();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Caller> {
        self.0.iter()
    }
}

fn has(digest: &Digest) -> impl Fn(&Caller) -> bool {
    move |caller| caller.digest == *digest
}

/// A digest is its own hash: it is one already, and nobody who asks can add to the ring.
fn hash(digest: &Digest) -> u64 {
    digest
        .0
        .first_chunk()
        .copied()
        .map_or(0, u64::from_ne_bytes)
}

/// Who shows a key.
#[derive(Debug)]
pub enum Bearer<'k> {
    /// As the configuration has them, which a request keeps in any case.
    Written(&'k Caller),
    /// With a key that was made: a copy. Those are swapped at each change, and a request that waits for long must not keep
    /// them all.
    Made(Box<Caller>),
}

impl Deref for Bearer<'_> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        match self {
            Self::Written(caller) => caller,
            Self::Made(caller) => caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(n: u32) -> Caller {
        Caller {
            digest: Digest::of(&format!("sk-{n}")),
            name: n.to_string().into(),
            ..Caller::default()
        }
    }

    fn named(bearers: &Bearers, n: u32) -> Option<&str> {
        bearers.get(&caller(n).digest).map(|it| &*it.name)
    }

    #[test]
    fn many_are_told_apart_while_others_come_and_go() {
        // So many that their memory grows from small pages to large ones.
        const MANY: u32 = 20_000;
        let mut bearers = Bearers::default();
        assert!((0..MANY).all(|n| bearers.add(caller(n))));
        for n in (0..MANY).step_by(2) {
            bearers.remove(&caller(n).digest);
        }
        for n in 0..MANY {
            let name = (n % 2 == 1).then(|| n.to_string());
            assert_eq!(named(&bearers, n), name.as_deref());
        }
        assert_eq!(bearers.clone().iter().count(), MANY as usize / 2);
        assert!((MANY..2 * MANY).all(|n| bearers.add(caller(n))));
        assert!((MANY..2 * MANY).all(|n| named(&bearers, n).is_some()));
    }

    #[test]
    fn whoever_is_added_last_has_the_key() {
        let mut bearers = Bearers::default();
        assert!(bearers.add(caller(1)));
        let name = "other".into();
        assert!(!bearers.add(Caller { name, ..caller(1) }));
        assert_eq!(named(&bearers, 1), Some("other"));
        assert_eq!(bearers.iter().count(), 1);
    }

    #[test]
    fn a_caller_takes_four_lines() {
        assert_eq!((size_of::<Caller>(), align_of::<Caller>()), (256, 64));
    }
}
