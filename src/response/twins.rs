//! Has this been asked already? Requests that say so by one `Idempotency-Key`, and the answers that are kept for them.
//!
//! The first of them leads: it is carried out, and its answer is recorded. Whoever asks the same meanwhile, or for a while
//! after it, reads the record. What did not come to a complete answer is forgotten at its end, so that a retry is carried
//! out anew.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use tokio::time::Instant;

use super::replay::{Head, Reader, Replay};
use crate::admission::Memory;
use crate::telemetry::End;

/// The longest answer that is kept, in bytes.
const LONGEST: usize = 4 << 20;

/// So many are recorded or kept at once; what is asked beyond that is carried out without.
const MOST: usize = 10_000;

/// Who asks, at which endpoint, under which key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The caller's name.
    pub caller: SmolStr,
    /// The endpoint's.
    pub api: &'static str,
    /// As the client wrote it.
    pub key: Arc<str>,
}

/// The SHA-256 of a request's body.
pub type Asked = [u8; 32];

/// How long an answer is kept, and how much all of them may take.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// From its end on.
    pub replay: Duration,
    /// In bytes.
    pub memory: u64,
}

/// What a request is to its twins.
pub enum Turn {
    /// The first: it is carried out, and recorded.
    Leads(Keeper),
    /// The same has been asked: its answer is read.
    Follows(Reader),
    /// There is no room to record one more.
    Alone,
}

/// Something else was asked under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused;

/// Every request under way that has a key, and the answers that are kept. Outlives plans, and is shared by all workers.
#[derive(Clone, Default)]
pub struct Twins(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    /// What the answers take.
    memory: Memory,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Scope, Entry>,
    /// Those that are complete, by when they expire.
    kept: BTreeMap<Expiry, Scope>,
    /// How many have been.
    count: u64,
}

/// When an answer is forgotten. The number tells those apart that expire at once.
type Expiry = (Instant, u64);

struct Entry {
    asked: Asked,
    replay: Arc<Replay>,
    /// None: it is under way.
    expiry: Option<Expiry>,
}

impl Twins {
    /// What this request is to its twins. The first is under way from here on.
    pub fn claim(
        &self,
        scope: &Scope,
        asked: Asked,
        terms: Terms,
        now: Instant,
    ) -> Result<Turn, Reused> {
        let mut table = self.table();
        table.sweep(now);
        if let Some(entry) = table.entries.get(scope) {
            return match entry.asked == asked {
                true => Ok(Turn::Follows(entry.replay.reader())),
                false => Err(Reused),
            };
        }
        if table.entries.len() >= MOST && !table.forget_oldest() {
            return Ok(Turn::Alone);
        }
        let replay = Replay::new(self.0.memory.share());
        let entry = Entry {
            asked,
            replay: Arc::clone(&replay),
            expiry: None,
        };
        table.entries.insert(scope.clone(), entry);
        Ok(Turn::Leads(Keeper {
            twins: self.clone(),
            scope: scope.clone(),
            terms,
            replay,
            is_success: false,
            is_over: false,
        }))
    }

    /// Forgets what has expired.
    pub fn sweep(&self, now: Instant) {
        self.table().sweep(now);
    }

    /// How many requests and answers there are, and what the answers take, in bytes.
    pub fn count(&self) -> (usize, u64) {
        (self.table().entries.len(), self.0.memory.taken())
    }

    /// Forgets the oldest answers until all take no more than this. False if that is not enough.
    fn make_room(&self, most: u64) -> bool {
        while self.0.memory.taken() > most {
            if !self.table().forget_oldest() {
                return false;
            }
        }
        true
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn sweep(&mut self, now: Instant) {
        while let Some(first) = self.kept.first_entry()
            && first.key().0 <= now
        {
            self.entries.remove(&first.remove());
        }
    }

    /// False if none is complete.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.kept.pop_first();
        oldest.is_some_and(|(_, scope)| self.entries.remove(&scope).is_some())
    }

    /// The entry of an answer, unless it was forgotten, and perhaps asked for anew.
    fn entry(&mut self, scope: &Scope, replay: &Arc<Replay>) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(scope)?;
        Arc::ptr_eq(&entry.replay, replay).then_some(entry)
    }

    fn forget(&mut self, scope: &Scope, replay: &Arc<Replay>) {
        if self.entry(scope, replay).is_some() {
            self.entries.remove(scope);
        }
    }

    fn keep(&mut self, scope: &Scope, replay: &Arc<Replay>, until: Instant) {
        self.count += 1;
        let expiry = (until, self.count);
        if let Some(entry) = self.entry(scope, replay) {
            entry.expiry = Some(expiry);
            self.kept.insert(expiry, scope.clone());
        }
    }
}

/// Records an answer. Dropped before its end, whoever reads it sees that there was more, and it is forgotten.
pub struct Keeper {
    twins: Twins,
    scope: Scope,
    terms: Terms,
    replay: Arc<Replay>,
    /// By its status.
    is_success: bool,
    is_over: bool,
}

impl Keeper {
    /// The answer begins.
    pub(super) fn begins(&mut self, head: Head) {
        self.is_success = head.is_success();
        if self.replay.begins(head, self.terms.memory).is_err() {
            self.fit();
        }
    }

    /// So much more of it has passed. What is too long is given up: its readers see that there was more.
    pub(super) fn keeps(&mut self, piece: &[u8]) {
        if self.is_over {
            return;
        }
        if self.replay.length() + piece.len() > LONGEST {
            self.give_up();
            return;
        }
        let room = self.replay.makes_room(piece.len(), self.terms.memory);
        if room.is_ok() || self.fit() {
            self.replay.grows(piece);
        }
    }

    /// It has come to its end, and is kept if it is one to be had again.
    pub(super) fn ends(&mut self, end: End, now: Instant) {
        if mem::replace(&mut self.is_over, true) {
            return;
        }
        if self.is_success && end == End::Complete {
            let until = now + self.terms.replay;
            self.twins.table().keep(&self.scope, &self.replay, until);
        } else {
            // Before anybody hears of it: a retry is carried out anew.
            self.twins.table().forget(&self.scope, &self.replay);
        }
        self.replay.ends(end);
    }

    /// It broke off.
    pub(super) fn breaks(&mut self) {
        if !mem::replace(&mut self.is_over, true) {
            self.twins.table().forget(&self.scope, &self.replay);
            self.replay.breaks();
        }
    }

    /// Nothing more is recorded.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// All together take too much: the oldest go, and if that is not enough, this one.
    fn fit(&mut self) -> bool {
        let fits = self.twins.make_room(self.terms.memory);
        if !fits {
            self.give_up();
        }
        fits
    }

    fn give_up(&mut self) {
        self.is_over = true;
        self.twins.table().forget(&self.scope, &self.replay);
        self.replay.forgets(self.twins.0.memory.share());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.breaks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::{Body, say};
    use crate::telemetry::Telemetry;
    use crate::telemetry::metrics::Metrics;
    use bytes::Bytes;
    use http::Response;
    use proptest::prelude::*;
    use std::task::{Context, Poll, Waker};

    const TERMS: Terms = Terms {
        replay: Duration::from_secs(600),
        memory: 64 << 10,
    };

    fn scope(key: &str) -> Scope {
        Scope {
            caller: "ann".into(),
            api: "chat_completions",
            key: key.into(),
        }
    }

    fn head(status: u16) -> Head {
        let telemetry = Telemetry::new(Metrics::new(), None);
        let mut said = Response::new(Bytes::new());
        *said.status_mut() = status.try_into().unwrap();
        let said: Response<Body> = say(said, telemetry.begin(Instant::now(), "x"));
        Head::of(&said)
    }

    fn claim(twins: &Twins, key: &str, now: Instant) -> Turn {
        twins.claim(&scope(key), [0; 32], TERMS, now).unwrap()
    }

    fn leads(twins: &Twins, key: &str, now: Instant) -> Keeper {
        match claim(twins, key, now) {
            Turn::Leads(keeper) => keeper,
            _ => panic!("{key} has a twin"),
        }
    }

    fn follows(twins: &Twins, key: &str, now: Instant) -> Reader {
        match claim(twins, key, now) {
            Turn::Follows(reader) => reader,
            _ => panic!("{key} has no twin"),
        }
    }

    /// Carries one out: so many bytes of an answer with this status.
    fn done(twins: &Twins, key: &str, (status, bytes): (u16, usize), now: Instant) {
        let mut keeper = leads(twins, key, now);
        keeper.begins(head(status));
        keeper.keeps(&vec![b'x'; bytes]);
        keeper.ends(End::Complete, now);
    }

    fn is_gone(twins: &Twins, key: &str, now: Instant) -> bool {
        matches!(claim(twins, key, now), Turn::Leads(_))
    }

    #[tokio::test]
    async fn the_first_leads_and_the_others_follow_until_it_expires() {
        let (twins, now) = (Twins::default(), Instant::now());
        let mut keeper = leads(&twins, "a", now);
        follows(&twins, "a", now);
        keeper.begins(head(200));
        keeper.ends(End::Complete, now);
        drop(keeper);
        let just = now + TERMS.replay - Duration::from_millis(1);
        follows(&twins, "a", just);
        assert!(is_gone(&twins, "a", now + TERMS.replay));
        done(&twins, "b", (200, 10), now);
        twins.sweep(just);
        assert_eq!(twins.count().0, 1);
        twins.sweep(now + TERMS.replay);
        assert_eq!(twins.count(), (0, 0));
    }

    #[tokio::test]
    async fn another_body_caller_or_endpoint_is_no_twin() {
        let (twins, now) = (Twins::default(), Instant::now());
        let _keeper = leads(&twins, "a", now);
        let other = twins.claim(&scope("a"), [1; 32], TERMS, now);
        assert_eq!(other.err(), Some(Reused));
        for other in [
            scope("b"),
            Scope {
                caller: "bob".into(),
                ..scope("a")
            },
            Scope {
                api: "embeddings",
                ..scope("a")
            },
        ] {
            let turn = twins.claim(&other, [0; 32], TERMS, now);
            assert!(matches!(turn, Ok(Turn::Leads(_))), "{other:?}");
        }
    }

    #[tokio::test]
    async fn only_complete_successes_are_kept() {
        let (twins, now) = (Twins::default(), Instant::now());
        done(&twins, "a", (500, 10), now);
        assert!(is_gone(&twins, "a", now));
        for end in End::ALL {
            let mut keeper = leads(&twins, end.name(), now);
            keeper.begins(head(200));
            keeper.ends(end, now);
            let is_gone = is_gone(&twins, end.name(), now);
            assert_eq!(is_gone, end != End::Complete, "{end:?}");
        }
        leads(&twins, "c", now).breaks();
        assert!(is_gone(&twins, "c", now));
        drop(leads(&twins, "d", now));
        assert!(is_gone(&twins, "d", now));
    }

    #[tokio::test]
    async fn who_was_given_up_does_not_forget_who_came_after_it() {
        let (twins, now) = (Twins::default(), Instant::now());
        let mut first = leads(&twins, "a", now);
        first.begins(head(200));
        first.keeps(&vec![0; LONGEST + 1]);
        assert!(first.is_over());
        let _second = leads(&twins, "a", now);
        first.ends(End::Complete, now);
        drop(first);
        follows(&twins, "a", now);
    }

    #[tokio::test]
    async fn the_oldest_answers_make_room_and_else_the_newest_gives_up() {
        let (twins, now) = (Twins::default(), Instant::now());
        for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
            let now = now + Duration::from_secs(n as u64);
            done(&twins, key, (200, 20 << 10), now);
        }
        let mut fourth = leads(&twins, "d", now);
        fourth.begins(head(200));
        fourth.keeps(&vec![0; 20 << 10]);
        assert!(is_gone(&twins, "a", now));
        follows(&twins, "b", now);
        fourth.keeps(&vec![0; 20 << 10]);
        assert!(is_gone(&twins, "b", now) && !fourth.is_over());
        follows(&twins, "c", now);
        let mut fifth = leads(&twins, "e", now);
        fifth.begins(head(200));
        fifth.keeps(&vec![0; 40 << 10]);
        assert!(is_gone(&twins, "c", now), "it was tried");
        assert!(fifth.is_over() && !fourth.is_over());
        assert!(twins.count().1 <= TERMS.memory);
    }

    #[tokio::test]
    async fn there_are_so_many_and_no_more() {
        let (twins, now) = (Twins::default(), Instant::now());
        let mut keepers: Vec<_> = (0..MOST)
            .map(|n| leads(&twins, &n.to_string(), now))
            .collect();
        assert!(matches!(claim(&twins, "more", now), Turn::Alone));
        follows(&twins, "0", now);
        keepers[5].begins(head(200));
        keepers[5].ends(End::Complete, now);
        let _more = leads(&twins, "more", now);
        assert!(matches!(claim(&twins, "5", now), Turn::Alone));
        drop(keepers);
        assert_eq!(twins.count().0, 1);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_and_told() {
        let (twins, now) = (Twins::default(), Instant::now());
        let cx = Context::from_waker(Waker::noop());
        let keeper = leads(&twins, "a", now);
        let reader = follows(&twins, "a", now);
        assert!(reader.poll_head(&cx).is_pending());
        drop(keeper);
        assert!(matches!(reader.poll_head(&cx), Poll::Ready(None)));
        let mut keeper = leads(&twins, "a", now);
        let reader = follows(&twins, "a", now);
        let waits = std::future::poll_fn(|cx| reader.poll_head(cx));
        let (head, ()) = tokio::join!(waits, async { keeper.begins(head(200)) });
        assert!(head.is_some());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Claim(u8, u8),
        Keep(u8, usize),
        End(u8, bool),
        Break(u8),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0..6_u8;
        let step = prop_oneof![
            4 => (key.clone(), 0..2_u8).prop_map(|(key, body)| Step::Claim(key, body)),
            4 => (key.clone(), 0..30_000_usize).prop_map(|(key, more)| Step::Keep(key, more)),
            2 => (key.clone(), any::<bool>()).prop_map(|(key, is_well)| Step::End(key, is_well)),
            1 => key.prop_map(Step::Break),
            1 => (0..900_u64).prop_map(Step::Pass),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold(steps in steps()) {
            let (twins, mut now) = (Twins::default(), Instant::now());
            // By key: the leader and its body. And when answers expire.
            let mut under_way: HashMap<u8, (Keeper, u8)> = HashMap::new();
            let mut kept: HashMap<u8, (Instant, u8)> = HashMap::new();
            for step in steps {
                match step {
                    Step::Claim(key, body) => {
                        let asked = [body; 32];
                        let turn = twins.claim(&scope(&key.to_string()), asked, TERMS, now);
                        under_way.retain(|_, (keeper, _)| !keeper.is_over());
                        kept.retain(|_, (until, _)| *until > now);
                        let known = under_way.get(&key).map(|(_, body)| *body);
                        let may = known.or(kept.get(&key).map(|(_, body)| *body));
                        match turn {
                            Ok(Turn::Leads(mut keeper)) => {
                                prop_assert_eq!(known, None);
                                kept.remove(&key);
                                keeper.begins(head(200));
                                under_way.insert(key, (keeper, body));
                            }
                            Ok(Turn::Follows(_)) => prop_assert_eq!(may, Some(body)),
                            Err(Reused) => prop_assert!(may.is_some_and(|it| it != body)),
                            Ok(Turn::Alone) => prop_assert!(false, "there is room"),
                        }
                    }
                    Step::Keep(key, more) => {
                        if let Some((keeper, _)) = under_way.get_mut(&key) {
                            keeper.keeps(&vec![0; more]);
                        }
                    }
                    Step::End(key, is_well) => {
                        if let Some((mut keeper, body)) = under_way.remove(&key) {
                            let is_kept = is_well && !keeper.is_over();
                            let end = if is_well { End::Complete } else { End::Truncated };
                            keeper.ends(end, now);
                            if is_kept {
                                kept.insert(key, (now + TERMS.replay, body));
                            }
                        }
                    }
                    Step::Break(key) => drop(under_way.remove(&key)),
                    Step::Pass(seconds) => {
                        now += Duration::from_secs(seconds);
                        twins.sweep(now);
                    }
                }
                let (count, taken) = twins.count();
                prop_assert!(taken <= TERMS.memory);
                prop_assert!(count <= under_way.len() + kept.len());
            }
            drop(under_way);
            twins.sweep(now + TERMS.replay);
            prop_assert_eq!(twins.count(), (0, 0));
        }
    }
}
