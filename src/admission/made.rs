//! Who has a key that was made while the gateway ran, or beside it?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::bearers::Bearers;
use super::{Caller, Digest, SHOWN};

/// In so many parts the keys stand. Of 100,000 each part is just large enough for large pages.
const PARTS: usize = 16;

/// The keys that were made, as requests look at them. Swapped at each change, for one that has the parts in common that did
/// not change.
#[derive(Clone, Debug, Default)]
pub struct MadeKeys {
    parts: [Arc<Bearers>; PARTS],
    /// Names of keys that are revoked, the configuration's included.
    pub(super) revoked: Arc<HashSet<SmolStr>>,
    /// Whether there ever was one.
    pub(super) is_any: bool,
    /// How many names have a key.
    count: usize,
    /// The keys of the first of those that have limits of their own.
    limited: BTreeMap<SmolStr, Digest>,
}

impl MadeKeys {
    /// How many names have a key.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first thousand that have limits of their own.
    pub fn limited(&self) -> impl Iterator<Item = &Caller> {
        let keys = self.limited.values();
        keys.filter_map(|digest| self.get(digest))
    }

    /// Who has this key.
    pub(super) fn get(&self, digest: &Digest) -> Option<&Caller> {
        self.parts.get(part(digest))?.get(digest)
    }

    /// Everybody who has one, by each of theirs.
    pub(super) fn callers(&self) -> impl Iterator<Item = &Caller> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// The part for a key: a copy, if it is in common with those that requests look at.
    fn part(&mut self, digest: &Digest) -> Option<&mut Bearers> {
        self.parts.get_mut(part(digest)).map(Arc::make_mut)
    }
}

/// In which part a key stands: by bits that its place there does not go by.
fn part(digest: &Digest) -> usize {
    let [.., last] = digest.0;
    usize::from(last) % PARTS
}

/// The keys that were made, and by name which are whose: for whoever changes them.
#[derive(Debug, Default)]
pub struct Register {
    keys: MadeKeys,
    digests: HashMap<SmolStr, SmallVec<[Digest; 2]>>,
}

impl Register {
    /// Lets in somebody by these keys, and by none that it had before.
    pub fn admit(&mut self, keys: impl IntoIterator<Item = Caller>, name: &SmolStr) {
        self.remove(name);
        let mut digests = SmallVec::new();
        for caller in keys {
            let limited = &mut self.keys.limited;
            if caller.has_limits() && limited.len() < SHOWN {
                limited.insert(name.clone(), caller.digest);
            }
            digests.push(caller.digest);
            if let Some(part) = self.keys.part(&caller.digest) {
                part.add(caller);
            }
        }
        if !digests.is_empty() {
            self.digests.insert(name.clone(), digests);
        }
    }

    /// Lets in somebody no more, whatever the configuration says.
    pub fn revoke(&mut self, name: &SmolStr) {
        self.remove(name);
        Arc::make_mut(&mut self.keys.revoked).insert(name.clone());
    }

    /// The keys as they are now.
    pub fn keys(&self) -> MadeKeys {
        MadeKeys {
            count: self.digests.len(),
            ..self.keys.clone()
        }
    }

    fn remove(&mut self, name: &SmolStr) {
        self.keys.is_any = true;
        self.keys.limited.remove(name);
        for digest in self.digests.remove(name).unwrap_or_default() {
            if let Some(part) = self.keys.part(&digest) {
                part.remove(&digest);
            }
        }
    }
}

/// A new key, which nobody can guess: 192 random bits.
pub fn new_key() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)?;
    let mut key = String::from("tg_");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            key.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn caller(name: u8, key: u16) -> Caller {
        Caller {
            name: name.to_string().into(),
            digest: Digest::of(&key.to_string()),
            ..Caller::default()
        }
    }

    fn who(keys: &MadeKeys, key: u16) -> Option<&str> {
        let found = keys.get(&Digest::of(&key.to_string()));
        found.map(|caller| &*caller.name)
    }

    proptest! {
        /// Each change gives a name the next so many keys, or revokes it; what was taken before a change stays as it was.
        #[test]
        fn everybody_has_the_keys_that_were_given_last(
            changes in vec((0_u8..12, prop::option::of(0_usize..3)), 1..80),
        ) {
            let mut register = Register::default();
            let mut next = 0;
            let mut whose: HashMap<u8, Vec<u16>> = HashMap::new();
            let mut before: Vec<(MadeKeys, HashMap<u8, Vec<u16>>)> = Vec::new();
            for (name, given) in changes {
                let named = SmolStr::from(name.to_string());
                whose.remove(&name);
                if let Some(given) = given {
                    let keys: Vec<u16> = (next..).take(given).collect();
                    next += 3;
                    register.admit(keys.iter().map(|key| caller(name, *key)), &named);
                    if given > 0 {
                        whose.insert(name, keys);
                    }
                } else {
                    register.revoke(&named);
                    prop_assert!(register.keys().revoked.contains(&named));
                }
                before.push((register.keys(), whose.clone()));
            }
            for (keys, whose) in before {
                prop_assert_eq!(keys.count(), whose.len());
                prop_assert_eq!(keys.callers().count(), whose.values().map(Vec::len).sum::<usize>());
                for (name, theirs) in whose {
                    let name = name.to_string();
                    prop_assert!(theirs.iter().all(|key| who(&keys, *key) == Some(&name)));
                }
            }
        }
    }

    #[test]
    fn a_change_copies_what_it_touches_and_nothing_else() {
        let mut register = Register::default();
        for key in 0..1_000 {
            register.admit([caller(1, key)], &key.to_string().into());
        }
        let before = register.keys();
        assert!(before.parts.iter().all(|part| part.iter().count() > 20));
        register.admit([caller(2, 1_000)], &"1000".into());
        let after = register.keys();
        let both = before.parts.iter().zip(&after.parts);
        assert_eq!(
            both.filter(|(one, other)| !Arc::ptr_eq(one, other)).count(),
            1
        );
        assert_eq!((who(&before, 1_000), who(&after, 1_000)), (None, Some("2")));
        assert!(Arc::ptr_eq(&before.revoked, &after.revoked));
    }
}
