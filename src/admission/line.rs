//! Who is next? A short line that is fair between callers, by their weights.
//!
//! Start-time fair queueing: each request of a caller stands 1/weight of a round behind the one before, the first of
//! whoever comes anew stands where the line is now, and who stands foremost goes first, whoever came first among equals.
//! So a caller who floods waits behind itself, and delays a single request of another by a round at most. Who leaves has
//! not been served, and is charged nothing: the next of its caller takes its place.
//!
//! A look at the line is a walk over the callers in it. It is short: whoever stood far behind would not wait for it.

use std::collections::{BTreeMap, HashMap};
use std::task::Waker;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::time::Instant;

/// A line in front of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// How many may wait.
    pub most: usize,
    /// How long each may.
    pub wait: Duration,
}

/// How far a request of weight one moves its caller on. All weights up to sixteen divide it, so that equals are equal.
const ROUND: u64 = 720_720 << 10;
/// So many callers who have nobody in the line are remembered, besides as many as are waiting.
const REMEMBERED: usize = 256;

/// Requests that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    callers: HashMap<SmolStr, Caller>,
    /// Where the line is: where the last who was served stood.
    place: u64,
    /// How many have come so far, which is the next one's ticket.
    came: u64,
    waiting: usize,
}

/// One caller's part of the line.
#[derive(Debug)]
struct Caller {
    /// Where its first stands; if nobody waits, where its next may at the foremost.
    place: u64,
    /// How far each of its requests moves it on.
    step: u64,
    /// By their tickets, which is the order in which they came.
    waiting: BTreeMap<u64, Waiter>,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    /// It will not have waited for longer.
    pub(super) until: Instant,
    /// None: it has not been polled yet.
    pub(super) waker: Option<Waker>,
}

impl Caller {
    /// Where the n-th of its requests stands, counted from zero.
    fn nth(&self, n: usize) -> u64 {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        self.place.saturating_add(self.step.saturating_mul(n))
    }

    /// How many of its requests go before another caller's at this place who comes now.
    fn before(&self, place: u64) -> usize {
        match place.checked_sub(self.place) {
            Some(behind) => {
                let fit = usize::try_from(behind / self.step).unwrap_or(usize::MAX);
                self.waiting.len().min(fit.saturating_add(1))
            }
            None => 0,
        }
    }

    /// Where its last stands, and which that is.
    fn last(&self) -> Option<(u64, u64)> {
        let (ticket, _) = self.waiting.last_key_value()?;
        Some((self.nth(self.waiting.len() - 1), *ticket))
    }
}

/// How far a request of such a weight moves its caller on.
fn step(weight: u32) -> u64 {
    (ROUND / u64::from(weight.max(1))).max(1)
}

impl Queue {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Where a caller's next request would stand.
    fn next_place(&self, caller: &str, weight: u32) -> u64 {
        match self.callers.get(caller) {
            Some(known) if known.waiting.is_empty() => known.place.max(self.place),
            Some(known) => {
                let queued = u64::try_from(known.waiting.len()).unwrap_or(u64::MAX);
                let further = step(weight).saturating_mul(queued);
                known.place.saturating_add(further)
            }
            None => self.place,
        }
    }

    /// How many would go before a caller's next request, if nobody else came.
    pub(super) fn ahead(&self, caller: &str, weight: u32) -> usize {
        let place = self.next_place(caller, weight);
        let others = self.callers.iter().map(|(name, known)| {
            if **name == *caller {
                known.waiting.len()
            } else {
                known.before(place)
            }
        });
        others.sum()
    }

    /// Makes one more wait; gives its ticket.
    pub(super) fn arrive(&mut self, caller: &SmolStr, weight: u32, until: Instant) -> u64 {
        let (ticket, here) = (self.came, self.place);
        let known = self
            .callers
            .entry(caller.clone())
            .or_insert_with(|| Caller {
                place: here,
                step: ROUND,
                waiting: BTreeMap::new(),
            });
        if known.waiting.is_empty() {
            known.place = known.place.max(here);
        }
        known.step = step(weight);
        let waker = None;
        known.waiting.insert(ticket, Waiter { until, waker });
        self.came += 1;
        self.waiting += 1;
        ticket
    }

    /// One that waits.
    pub(super) fn get(&mut self, caller: &str, ticket: u64) -> Option<&mut Waiter> {
        self.callers.get_mut(caller)?.waiting.get_mut(&ticket)
    }

    /// Takes one out of the line, as if it had never come.
    pub(super) fn leave(&mut self, caller: &str, ticket: u64) -> Option<Waiter> {
        let known = self.callers.get_mut(caller)?;
        let left = known.waiting.remove(&ticket)?;
        self.waiting -= 1;
        if known.waiting.is_empty() && known.place <= self.place {
            self.callers.remove(caller);
        }
        Some(left)
    }

    /// Whoever stands last, if that is behind where this caller's next request would stand.
    fn last_behind(&self, caller: &str, weight: u32) -> Option<(SmolStr, u64)> {
        let place = self.next_place(caller, weight);
        let lasts = self.callers.iter();
        let lasts = lasts.filter_map(|(name, known)| Some((known.last()?, name)));
        let behind = lasts.filter(|((at, _), _)| *at > place);
        let ((_, ticket), name) = behind.max_by_key(|((at, ticket), _)| (*at, *ticket))?;
        Some((name.clone(), ticket))
    }

    /// Whether there is somebody whose place this caller's next request would take.
    pub(super) fn may_make_room(&self, caller: &str, weight: u32) -> bool {
        self.last_behind(caller, weight).is_some()
    }

    /// Takes out whoever stands last, if that is behind where this caller's next request would stand.
    pub(super) fn make_room(&mut self, caller: &str, weight: u32) -> Option<Waiter> {
        let (name, ticket) = self.last_behind(caller, weight)?;
        self.leave(&name, ticket)
    }

    /// Takes out whoever is next, with its ticket. Only who is still in time is charged for it.
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, Waiter)> {
        let heads = self.callers.values_mut().filter_map(|known| {
            let (ticket, _) = known.waiting.first_key_value()?;
            Some(((known.place, *ticket), known))
        });
        let (_, known) = heads.min_by_key(|(order, _)| *order)?;
        let (ticket, waiter) = known.waiting.pop_first()?;
        self.waiting -= 1;
        if now < waiter.until {
            self.place = self.place.max(known.place);
            known.place = known.place.saturating_add(known.step);
        }
        self.tidy();
        Some((ticket, waiter))
    }

    /// Forgets callers who have nobody in the line, if they are too many.
    fn tidy(&mut self) {
        let most = self.waiting + REMEMBERED;
        if self.callers.len() <= most {
            return;
        }
        let here = self.place;
        self.callers
            .retain(|_, known| !known.waiting.is_empty() || known.place > here);
        if self.callers.len() <= most {
            return;
        }
        // The line moves on to the foremost that they might have had. If each began anew where it was, those who wait now
        // would wait for all of them again, and again.
        let mut place = here;
        self.callers.retain(|_, known| {
            let stays = !known.waiting.is_empty();
            if !stays {
                place = place.max(known.place);
            }
            stays
        });
        self.place = place;
    }

    /// Nobody waits and there is room: whoever comes next owes nothing to anybody.
    pub(super) fn forget(&mut self) {
        if self.waiting == 0 {
            self.callers.clear();
            self.place = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of requests, each named by its caller.
    #[derive(Default)]
    struct Lined {
        queue: Queue,
        names: HashMap<u64, &'static str>,
    }

    impl Lined {
        fn arrive(&mut self, name: &'static str, weight: u32) -> u64 {
            let until = Instant::now() + Duration::from_secs(60);
            let ticket = self.queue.arrive(&name.into(), weight, until);
            self.names.insert(ticket, name);
            ticket
        }

        fn next(&mut self) -> Option<&'static str> {
            let (ticket, _) = self.queue.next(Instant::now())?;
            self.names.remove(&ticket)
        }

        fn all(&mut self) -> String {
            std::iter::from_fn(|| self.next()).collect()
        }
    }

    #[test]
    fn who_floods_waits_behind_itself() {
        let mut line = Lined::default();
        for _ in 0..6 {
            line.arrive("a", 1);
        }
        assert_eq!((line.next(), line.next()), (Some("a"), Some("a")));
        assert_eq!(line.queue.ahead("b", 1), 0, "its second is as far as b");
        line.arrive("b", 1);
        line.arrive("b", 1);
        assert_eq!(line.queue.ahead("b", 1), 4);
        assert_eq!(line.queue.ahead("a", 1), 6);
        assert_eq!(line.queue.ahead("c", 1), 1, "the first of b");
        line.arrive("c", 1);
        assert_eq!(line.all(), "bcabaaa");
        assert_eq!(line.queue.len(), 0);
    }

    #[test]
    fn who_weighs_more_has_more_turns() {
        let mut line = Lined::default();
        for _ in 0..9 {
            line.arrive("a", 1);
            line.arrive("b", 3);
        }
        assert_eq!(line.queue.ahead("c", 1), 2);
        let order: String = (0..12).filter_map(|_| line.next()).collect();
        assert_eq!(order.matches('b').count(), 9);
        assert_eq!(order, "abbbabbbabbb");
        assert_eq!(line.all(), "aaaaaa");
        // Weights of nothing and of everything are weights.
        let mut line = Lined::default();
        line.arrive("a", 0);
        line.arrive("b", u32::MAX);
        assert_eq!(line.all(), "ab");
    }

    #[test]
    fn who_leaves_is_charged_nothing() {
        let mut line = Lined::default();
        let tickets = [(); 5].map(|()| line.arrive("a", 1));
        line.arrive("b", 1);
        for ticket in &tickets[1..4] {
            assert!(line.queue.leave("a", *ticket).is_some());
            assert!(line.queue.leave("a", *ticket).is_none(), "once");
        }
        assert_eq!(line.queue.len(), 3);
        line.arrive("b", 1);
        assert_eq!(line.all(), "abab");
        // And neither is whoever is too late.
        let gone = Instant::now();
        line.queue.arrive(&"a".into(), 1, gone);
        line.arrive("b", 1);
        assert!(
            line.queue
                .next(gone)
                .is_some_and(|(_, it)| it.until == gone)
        );
        line.arrive("a", 1);
        line.arrive("a", 1);
        assert_eq!(line.all(), "baa");
    }

    #[test]
    fn a_full_line_keeps_those_who_stand_foremost() {
        let mut line = Lined::default();
        for _ in 0..3 {
            line.arrive("a", 1);
        }
        assert!(line.queue.make_room("a", 1).is_none(), "it would be last");
        assert!(line.queue.make_room("b", 1).is_some());
        line.arrive("b", 1);
        assert!(line.queue.make_room("b", 1).is_none(), "it came later");
        assert!(line.queue.make_room("c", 1).is_some());
        line.arrive("c", 1);
        assert!(line.queue.make_room("d", 1).is_none());
        assert_eq!(line.all(), "abc");
    }

    #[test]
    fn callers_are_forgotten_and_nobody_starves_for_it() {
        let mut line = Lined::default();
        line.arrive("a", 1);
        let ticket = line.arrive("b", 1);
        line.queue.leave("b", ticket);
        assert_eq!(line.queue.callers.len(), 1, "b owes nothing");
        line.arrive("a", 1);
        assert_eq!(line.next(), Some("a"));
        // A crowd in which everybody is new goes before the second of a, but not forever.
        let mut passed = 0;
        loop {
            let name: SmolStr = format!("crowd {passed}").into();
            let until = Instant::now() + Duration::from_secs(60);
            let ticket = line.queue.arrive(&name, 1, until);
            assert!(line.queue.callers.len() <= REMEMBERED + 3);
            let (next, _) = line.queue.next(Instant::now()).unwrap();
            if next != ticket {
                break;
            }
            passed += 1;
            assert!(passed <= REMEMBERED + 1);
        }
        // It has moved on for good, though a stood further in front.
        assert_eq!(line.queue.place, ROUND);
        let mut behind = Lined::default();
        behind.arrive("a", 1);
        behind.arrive("a", 1);
        behind.queue.place = 3 * ROUND;
        assert_eq!(behind.next(), Some("a"));
        assert_eq!(behind.queue.place, 3 * ROUND);
        assert!(passed >= REMEMBERED - 1, "{passed}");
        // One of them is left. Whoever was served goes on owing until nobody waits and there is room.
        line.queue.forget();
        assert!(line.queue.callers.len() > 1 || line.queue.place > 0);
        assert!(line.queue.next(Instant::now()).is_some());
        line.queue.forget();
        assert_eq!((line.queue.callers.len(), line.queue.place), (0, 0));
    }

    #[test]
    fn a_line_of_one_takes_turns() {
        let mut line = Lined::default();
        let mut order = String::new();
        line.arrive("a", 1);
        for _ in 0..6 {
            order.push_str(line.next().unwrap());
            // The one who floods is always the first to come back.
            line.arrive("a", 1);
            if line.queue.make_room("b", 1).is_some() {
                line.arrive("b", 1);
            }
        }
        assert_eq!(order, "ababab");
    }
}
