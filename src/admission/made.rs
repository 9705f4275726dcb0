//! Who has a key that was made while the gateway ran, or beside it?

use std::collections::{BTreeMap, HashMap, HashSet};

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::bearers::Bearers;
use super::{Caller, Digest, SHOWN};

/// The keys that were made. Swapped whole when one is made or revoked.
#[derive(Clone, Debug, Default)]
pub struct MadeKeys {
    pub(super) callers: Bearers,
    digests: HashMap<SmolStr, SmallVec<[Digest; 2]>>,
    /// Names of keys that are revoked, the configuration's included.
    pub(super) revoked: HashSet<SmolStr>,
    /// Whether there ever was one.
    pub(super) is_any: bool,
    /// The keys of the first of those that have limits of their own.
    limited: BTreeMap<SmolStr, Digest>,
}

impl MadeKeys {
    /// Lets in somebody by these keys, and by none that it had before.
    pub fn admit(&mut self, keys: impl IntoIterator<Item = Caller>, name: &SmolStr) {
        self.remove(name);
        for caller in keys {
            if caller.has_limits() && self.limited.len() < SHOWN {
                self.limited.insert(name.clone(), caller.digest);
            }
            let digests = self.digests.entry(name.clone()).or_default();
            digests.push(caller.digest);
            self.callers.add(caller);
        }
    }

    /// Lets in somebody no more, whatever the configuration says.
    pub fn revoke(&mut self, name: &SmolStr) {
        self.remove(name);
        self.revoked.insert(name.clone());
    }

    /// How many names have a key.
    pub fn count(&self) -> usize {
        self.digests.len()
    }

    /// The first thousand that have limits of their own.
    pub fn limited(&self) -> impl Iterator<Item = &Caller> {
        let keys = self.limited.values();
        keys.filter_map(|digest| self.callers.get(digest))
    }

    fn remove(&mut self, name: &SmolStr) {
        self.is_any = true;
        self.limited.remove(name);
        for digest in self.digests.remove(name).unwrap_or_default() {
            self.callers.remove(&digest);
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
