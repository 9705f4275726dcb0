//! Who shows which key? Callers by the digest of their key.
//!
//! A caller's digest stands beside the caller, so that with many keys a look at one is a look at one place in memory.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use super::{Caller, Digest};

/// Callers, each with another key.
#[derive(Clone, Debug, Default)]
pub(super) struct Bearers(HashSet<Bearer, BuildHasherDefault<AsItIs>>);

#[derive(Clone, Debug)]
struct Bearer(Arc<Caller>);

impl Borrow<Digest> for Bearer {
    fn borrow(&self) -> &Digest {
        &self.0.digest
    }
}

impl Hash for Bearer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
    }
}

impl PartialEq for Bearer {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for Bearer {}

impl Bearers {
    /// Adds one, instead of whoever had that key. False if somebody had.
    pub(super) fn add(&mut self, caller: Arc<Caller>) -> bool {
        self.0.replace(Bearer(caller)).is_none()
    }

    /// Who has this key.
    pub(super) fn get(&self, digest: &Digest) -> Option<&Arc<Caller>> {
        self.0.get(digest).map(|bearer| &bearer.0)
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        self.0.remove(digest);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Caller>> {
        self.0.iter().map(|bearer| &bearer.0)
    }
}

/// Takes a digest for its own hash: it is one already, and nobody who asks can add to the ring.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, digest: &[u8]) {
        if let Some(first) = digest.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
