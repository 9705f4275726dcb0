//! May it pass? From what a caller shows to who is calling, and whether there is room.
//!
//! A key is looked up by its SHA-256 digest: the key itself is kept nowhere. (A plain hash is right for keys that are
//! random; a slow one would cost every request.) Knows `ledger` and `usage`.

mod bearers;
mod capacity;
mod charge;
pub mod door;
pub mod guesses;
pub mod limits;
mod line;
mod made;
pub mod note;
mod told;
mod turns;
mod units;
mod waiting;
mod window;

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::ledger::{Account, Scope};
pub use bearers::Bearer;
use bearers::Bearers;
use http::{HeaderMap, HeaderName, header};
use limits::{Gate, Left, Slots, Whose};
pub use made::{MadeKeys, Register, new_key};
use prefetch_index::prefetch_index;
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;
use smol_str::SmolStr;

/// The SHA-256 of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// `sha256:` and 64 hexadecimal digits were expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a digest; write \"sha256:\" and 64 hexadecimal digits")]
pub struct WrongDigest;

impl Digest {
    /// The digest of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }

    /// Reads `sha256:…`.
    pub fn parse(text: &str) -> Result<Self, WrongDigest> {
        let digits = text
            .strip_prefix("sha256:")
            .filter(|digits| digits.len() == 64)
            .ok_or(WrongDigest)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| WrongDigest)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(WrongDigest);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WrongDigest)?;
        }
        Ok(Self(digest))
    }
}

/// Someone who may call. In four lines of memory, and what is looked at first in the first: with many callers none of them is
/// in any cache when it comes again.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct Caller {
    /// The digest of its key. Of whoever comes without one: nothing.
    pub digest: Digest,
    /// From when on the key is refused.
    pub expires: Option<SystemTime>,
    /// So many bytes of each body of its requests and of their answers are logged, at most. None: no text is.
    pub log_bodies: Option<NonZeroUsize>,
    /// Its share where requests wait in line; zero is one.
    pub weight: u32,
    /// Whether one of its accounts is of money.
    pub has_budget: bool,
    /// What is left does not cover a request: lower its output instead of refusing it.
    pub clamps: bool,
    /// It may have kept why a request went where it went.
    pub explains: bool,
    /// The key's name.
    pub name: SmolStr,
    /// What it may spend from: its own accounts, its team's, and everybody's, as far as they have a budget or a limit on the
    /// requests of a day.
    pub accounts: SmallVec<[Account; 2]>,
    /// What it may do at once and in a minute: its own limits, then its team's.
    pub gates: Box<[Arc<Gate>]>,
    /// The name of its team.
    pub team: Option<Arc<str>>,
    /// What may be asked for: names, or patterns with `*`. None: everything.
    pub models: Option<Arc<[String]>>,
    /// To what its requests are charged further, where they do not say themselves.
    pub tag: Option<Arc<str>>,
}

impl Caller {
    /// Whether it has limits of its own.
    fn has_limits(&self) -> bool {
        let is_own = |gate: &Arc<Gate>| gate.whose() == Whose::Key;
        let is_of_day = |account: &Account| account.scope() == Scope::KeyRequests;
        self.gates.iter().any(is_own) || self.accounts.iter().any(is_of_day)
    }

    /// Begins to bring into the processor's cache what is looked at next: each look would wait for memory anew.
    fn prefetch(&self) {
        prefetch_index(from_ref(&self.name), 0);
        prefetch_index(from_ref(&self.gates), 0);
        prefetch_index(from_ref(&self.models), 0);
    }

    /// Whether what was made for a key, and its team, is this caller's, too.
    pub fn owns(&self, key: &str, team: Option<&Arc<str>>) -> bool {
        *self.name == *key || team.is_some() && self.team.as_ref() == team
    }

    /// Whether this caller may ask for a model by this name.
    pub fn may_use(&self, model: &str) -> bool {
        let patterns = self.models.as_ref();
        patterns.is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, model)))
    }
}

/// Whether a name matches a pattern in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, mut rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    while let Some((middle, after)) = rest.split_once('*') {
        let Some(at) = name.find(middle) else {
            return false;
        };
        name = name.get(at + middle.len()..).unwrap_or_default();
        rest = after;
    }
    name.ends_with(rest)
}

/// Every key, by digest.
#[derive(Debug, Default)]
pub struct Keyring {
    callers: Bearers,
    open: Option<Caller>,
    /// It stays open, also when there are keys.
    is_open_for_good: bool,
    /// The keys of the first of those that have limits of their own.
    limited: Vec<Digest>,
}

/// So many callers with limits of their own are looked at from outside.
const SHOWN: usize = 1_000;

/// No key, or one that is not valid. The words are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is missing or not valid; send it as `Authorization: Bearer KEY`")]
pub enum UnknownKey {
    /// There is none.
    Missing,
    /// It is unknown, expired or revoked.
    Wrong,
}

impl Keyring {
    /// With room for so many: to make room later would move all of them.
    pub fn with_capacity(most: usize) -> Self {
        Self {
            callers: Bearers::with_capacity(most),
            ..Self::default()
        }
    }

    /// Adds somebody, by the digest of their key. False if there is another with it.
    pub fn add(&mut self, caller: Caller) -> bool {
        if caller.has_limits() && self.limited.len() < SHOWN {
            self.limited.push(caller.digest);
        }
        self.callers.add(caller)
    }

    /// Lets in whoever comes, as this caller; until the first key is made, or for good.
    pub fn open(&mut self, caller: Caller, for_good: bool) {
        self.open = Some(caller);
        self.is_open_for_good = for_good;
    }

    /// The first thousand keys that have limits of their own, and whoever comes without one, if that has.
    pub fn limited(&self) -> impl Iterator<Item = &Caller> {
        let keys = self.limited.iter();
        let open = self.open.as_ref().filter(|open| open.has_limits());
        keys.filter_map(|digest| self.callers.get(digest))
            .chain(open)
    }

    /// Whether callers without a key are let in for good.
    pub fn stays_open(&self) -> bool {
        self.is_open_for_good
    }

    /// Whether there is a key of this name.
    pub fn has(&self, name: &str) -> bool {
        self.callers().any(|caller| *caller.name == *name)
    }

    /// Everybody who has a key here.
    pub fn callers(&self) -> impl Iterator<Item = &Caller> {
        self.callers.iter()
    }

    /// Who has a key of this name, here or made, that is not revoked.
    pub fn named<'k>(&'k self, name: &str, made: &'k MadeKeys) -> Option<&'k Caller> {
        let is_it = |caller: &&Caller| *caller.name == *name;
        let mut written = self.callers().filter(|it| !made.revoked.contains(&it.name));
        written.find(is_it).or_else(|| made.callers().find(is_it))
    }

    /// Whoever comes without one, if they are let in now.
    pub fn let_in(&self, made: &MadeKeys) -> Option<&Caller> {
        let stays = self.is_open_for_good || !made.is_any;
        self.open.as_ref().filter(|_| stays)
    }

    /// Whoever comes without one, if they are let in.
    pub fn anybody(&self) -> Option<&Caller> {
        self.open.as_ref()
    }

    /// Who is asking, also by keys that were made. The clock is looked at only for keys that expire.
    ///
    /// A key is looked up by its digest, so how long that takes tells of a digest at most, from which no key can be found;
    /// and what is not valid takes the same way, whatever the reason.
    pub fn identify<'k>(
        &'k self,
        headers: &HeaderMap,
        made: &MadeKeys,
        now: impl Fn() -> SystemTime,
    ) -> Result<Bearer<'k>, UnknownKey> {
        let shown = token(headers).filter(|token| !token.is_empty());
        let known = shown.and_then(|token| {
            let digest = Digest::of(token);
            let written = self.callers.get(&digest);
            let written = written.filter(|caller| !made.revoked.contains(&caller.name));
            let made = || {
                made.get(&digest)
                    .map(|it| Bearer::Made(Box::new(it.clone())))
            };
            written.map(Bearer::Written).or_else(made)
        });
        if let Some(caller) = &known {
            caller.prefetch();
        }
        let valid = known.filter(|caller| caller.expires.is_none_or(|expires| now() < expires));
        valid
            .or_else(|| self.let_in(made).map(Bearer::Written))
            .ok_or(if shown.is_some() {
                UnknownKey::Wrong
            } else {
                UnknownKey::Missing
            })
    }
}

/// The key a request shows: `Authorization: Bearer`, `x-api-key` or `api-key`.
fn token(headers: &HeaderMap) -> Option<&str> {
    const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
    const API_KEY: HeaderName = HeaderName::from_static("api-key");
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    let value = headers.get(X_API_KEY).or_else(|| headers.get(API_KEY))?;
    value.to_str().ok().map(str::trim)
}

/// How many requests are under way. Outlives plans, so that a reload forgets none.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<AtomicUsize>);

/// A place among the requests under way, given back by `Drop`.
#[derive(Debug)]
pub struct Slot(InFlight);

/// There is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{most} requests are under way, which is the most; try again in a moment")]
pub struct Full {
    /// How many there may be.
    pub most: usize,
    /// When a place may have become free.
    pub retry_after: Duration,
}

impl InFlight {
    /// Takes a place, if fewer than `most` are taken.
    pub fn enter(&self, most: usize) -> Result<Slot, Full> {
        let before = self.0.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(self.clone());
        if before < most {
            Ok(slot)
        } else {
            Err(Full {
                most,
                retry_after: Duration::from_secs(1),
            })
        }
    }

    /// How many places are taken.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Leave to be answered: a place among the requests under way, and a slot of each limit on them. It goes as far as the
/// answer's body does, and `Drop` gives all of it back.
#[derive(Debug)]
pub struct Permit {
    _place: Slot,
    _slots: Slots,
    /// What is left of the caller's own limits, for the answer's head.
    pub left: Vec<Left>,
    /// The memory that the answer takes, where it is held whole and may be long.
    pub share: Option<Share>,
}

impl Permit {
    /// With a place and slots.
    pub fn new(place: Slot, slots: Slots) -> Self {
        Self {
            _place: place,
            _slots: slots,
            left: Vec::new(),
            share: None,
        }
    }
}

/// What the bodies of requests under way take, in bytes. Outlives plans.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<AtomicU64>);

/// One request's part of it, given back by `Drop`.
#[derive(Debug)]
pub struct Share {
    memory: Memory,
    bytes: u64,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bodies of all requests under way would take more than {most} bytes; try again in a moment"
)]
pub struct Crowded {
    /// How much they may take.
    pub most: u64,
    /// When there may be room.
    pub retry_after: Duration,
}

impl Memory {
    /// A part of it that is nothing yet.
    pub fn share(&self) -> Share {
        Share {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// How much is taken.
    pub fn taken(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Share {
    /// Takes so many bytes more, if all together stay within `most`.
    pub fn grow(&mut self, by: u64, most: u64) -> Result<(), Crowded> {
        let before = self.memory.0.fetch_add(by, Ordering::AcqRel);
        self.bytes += by;
        if before.saturating_add(by) <= most {
            Ok(())
        } else {
            Err(Crowded {
                most,
                retry_after: Duration::from_secs(1),
            })
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Keyring {
        let mut ring = Keyring::default();
        let caller = |key, name: &str, expires| Caller {
            name: name.into(),
            digest: Digest::of(key),
            expires,
            ..Caller::default()
        };
        ring.add(caller("sk-ann", "ann", None));
        ring.add(caller("", "nobody", None));
        ring.add(caller("sk-old", "old", Some(SystemTime::UNIX_EPOCH)));
        ring
    }

    fn who(ring: &Keyring, name: &'static str, value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let now = || SystemTime::UNIX_EPOCH;
        ring.identify(&headers, &MadeKeys::default(), now)
            .ok()
            .map(|caller| caller.name.to_string())
    }

    #[test]
    fn a_key_is_known_wherever_it_stands() {
        let ring = ring();
        for (name, value) in [
            ("authorization", "Bearer sk-ann"),
            ("authorization", "bearer  sk-ann"),
            ("x-api-key", "sk-ann"),
            ("api-key", "sk-ann"),
        ] {
            assert_eq!(who(&ring, name, value).as_deref(), Some("ann"), "{name}");
        }
        for (name, value) in [
            ("authorization", "Bearer sk-bob"),
            ("authorization", "sk-ann"),
            ("authorization", "Basic sk-ann"),
            ("x-api-key", ""),
            ("x-api-key", "sk-old"),
            ("cookie", "sk-ann"),
        ] {
            assert_eq!(who(&ring, name, value), None, "{name}: {value}");
        }
    }

    #[test]
    fn an_open_gateway_lets_in_whoever_comes_and_still_knows_its_keys() {
        let mut ring = ring();
        ring.open(
            Caller {
                name: "open".into(),
                models: None,
                expires: None,
                ..Caller::default()
            },
            false,
        );
        assert_eq!(who(&ring, "x-api-key", "whatever").as_deref(), Some("open"));
        assert_eq!(who(&ring, "x-api-key", "sk-ann").as_deref(), Some("ann"));
    }

    #[test]
    fn digests_are_those_of_sha256sum() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::parse(text), Ok(Digest::of("abc")));
        assert_eq!(
            Digest::parse(&text.to_uppercase().replace("SHA256", "sha256")),
            Ok(Digest::of("abc"))
        );
        for wrong in [
            "",
            "sha256:",
            "ba78",
            &text[..70],
            &text.replace('b', "g"),
            &text.replace("ba", "+1"),
        ] {
            assert_eq!(Digest::parse(wrong), Err(WrongDigest), "{wrong}");
        }
    }

    #[test]
    fn patterns_match_as_a_person_expects() {
        for (pattern, name, want) in [
            ("fast", "fast", true),
            ("fast", "faster", false),
            ("groq/*", "groq/llama", true),
            ("groq/*", "grok/llama", false),
            ("*", "anything", true),
            ("*:free", "a:free", true),
            ("*:free", "a:freed", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn places_are_given_back() {
        let in_flight = InFlight::default();
        let one = in_flight.enter(1).unwrap();
        assert!(in_flight.enter(1).is_err());
        assert_eq!(in_flight.count(), 1, "who was turned away holds nothing");
        drop(one);
        assert!(in_flight.enter(1).is_ok());
    }
}
