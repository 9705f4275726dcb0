//! Should it be asked at all? What one thing did of late (a model, a key, an endpoint) decides whether it is asked now.
//!
//! Whatever fails again and again rests for a while, then one request tries it, and its outcome decides: back to work, or
//! a longer rest. As long as nothing is wrong, nobody who asks or answers takes a lock.

use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest rest after failures, if not even the first is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest that somebody's word is taken for how long to stay away.
const PARKED: Duration = Duration::from_secs(3_600);
/// Failures are counted beside answers over so long a time, which begins with a failure.
const WINDOW: Duration = Duration::from_secs(30);
/// So many of both must have come before the share of failures says anything.
const MANY: u32 = 20;
/// Whoever has worked for so long since its last rest begins with the shortest one again.
const FORGETS: Duration = Duration::from_secs(120);

/// Something that can fail.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Breaker {
    /// Nothing is known against it: to be looked at without the lock.
    is_well: AtomicBool,
    /// With so many failures one after another it rests.
    row: u32,
    /// Answers since the window began.
    answers: AtomicU32,
    trouble: Mutex<Trouble>,
    dice: RandomState,
}

#[derive(Debug, Default)]
struct Trouble {
    /// Failures one after another.
    row: u32,
    /// When the window began, and failures since.
    window: Option<(Instant, u32)>,
    rest: Option<Rest>,
    /// A request is trying it.
    is_tried: bool,
    /// How often it has rested lately, and since when it works again.
    rests: u32,
    works_since: Option<Instant>,
}

/// It is not asked until then.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Instant,
    why: Why,
    /// Afterwards one request tries it. Else it is back by the clock, as it said itself.
    is_tried_first: bool,
}

impl Rest {
    /// Whether it is over, with nothing left to be found out.
    fn is_past(&self, now: Instant) -> bool {
        self.until <= now && !self.is_tried_first
    }
}

/// Why something is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It failed.
    Failing,
    /// It said itself for how long it will not answer.
    Parked,
}

impl Why {
    /// In words, of what rests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failing => "failed again and again",
            Self::Parked => "is at its limit",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// It is not asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, and is not asked for {} s", self.why, self.wait.as_secs_f64().ceil())]
pub struct Resting {
    /// When to come back.
    pub wait: Duration,
    /// Why.
    pub why: Why,
}

/// Who may be let through to what rests after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resort {
    /// Nobody: there are others.
    Other,
    /// One at a time: there is nobody else to ask.
    Last,
}

impl Breaker {
    /// That rests after so many failures in a row.
    pub(super) fn new(row: u32) -> Self {
        Self {
            row,
            is_well: AtomicBool::new(true),
            answers: AtomicU32::new(0),
            trouble: Mutex::default(),
            dice: RandomState::new(),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        // Nothing in here panics.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is known against it.
    pub(super) fn is_well(&self) -> bool {
        self.is_well.load(Ordering::Acquire)
    }

    /// Whether it would be asked, and if not, when.
    pub(super) fn look(&self, now: Instant) -> Result<(), Resting> {
        if self.is_well() {
            return Ok(());
        }
        self.trouble().look(now)
    }

    /// Asks for leave to ask it. True if this request is the one that tries whether it works again: it must
    /// [say](Self::tried) what it found.
    pub(super) fn enter(&self, now: Instant, resort: Resort) -> Result<bool, Resting> {
        if self.is_well() {
            return Ok(false);
        }
        let mut trouble = self.trouble();
        trouble.rest = trouble.rest.filter(|rest| !rest.is_past(now));
        match trouble.look(now) {
            Ok(()) => {}
            Err(resting)
                if resort == Resort::Last && resting.why == Why::Failing && !trouble.is_tried => {}
            Err(resting) => return Err(resting),
        }
        trouble.is_tried = trouble.rest.is_some();
        Ok(trouble.is_tried)
    }

    /// It works again, says whoever tried it; or that could not be found out (`false`), and the next one may try.
    pub(super) fn tried(&self, works: bool, now: Instant) {
        let mut trouble = self.trouble();
        trouble.is_tried = false;
        if works {
            trouble.rest = None;
            trouble.row = 0;
            trouble.window = None;
            trouble.works_since = Some(now);
            self.answers.store(0, Ordering::Relaxed);
            self.is_well.store(true, Ordering::Release);
        }
    }

    /// It did its part in what came to nothing by another's fault, or in an answer that has begun.
    pub(super) fn worked(&self, was_trying: bool, now: Instant) {
        if was_trying {
            self.tried(true, now);
        } else if !self.is_well() {
            self.trouble().row = 0;
        }
    }

    /// It answered, and all of it was well.
    pub(super) fn answered(&self, now: Instant) {
        // They are counted beside failures only.
        if self.is_well() {
            return;
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble();
        trouble.row = 0;
        trouble.rest = trouble.rest.filter(|rest| !rest.is_past(now));
        let is_over = trouble
            .window
            .is_none_or(|(began, _)| now.duration_since(began) >= WINDOW);
        if is_over && trouble.rest.is_none() {
            trouble.window = None;
            self.is_well.store(true, Ordering::Release);
        }
    }

    /// It failed. Gives for how long it rests, if it begins to by this: the first time for about so long. If that is zero
    /// it never rests.
    pub(super) fn failed(
        &self,
        was_trying: bool,
        first: Duration,
        now: Instant,
    ) -> Option<Duration> {
        if first.is_zero() {
            if was_trying {
                self.tried(true, now);
            }
            return None;
        }
        let mut trouble = self.trouble();
        if was_trying {
            trouble.is_tried = false;
        }
        let rest = trouble.rest.filter(|rest| !rest.is_past(now));
        // Of one that was asked before it rests, or, as the last resort, before it has rested: that is known already.
        if rest.is_some_and(|rest| !was_trying || rest.until > now) {
            return None;
        }
        let is_no_better = rest.is_some_and(|rest| rest.why == Why::Failing);
        trouble.rest = None;
        self.is_well.store(false, Ordering::Release);
        trouble.row += 1;
        let (began, failed) = match trouble.window {
            Some((began, failed)) if now.duration_since(began) < WINDOW => (began, failed + 1),
            _ => {
                self.answers.store(0, Ordering::Relaxed);
                (now, 1)
            }
        };
        trouble.window = Some((began, failed));
        let all = failed.saturating_add(self.answers.load(Ordering::Relaxed));
        let is_half = all >= MANY && failed >= all / 2;
        if !(is_no_better || trouble.row >= self.row || is_half) {
            return None;
        }
        let is_forgotten = |since| now.duration_since(since) >= FORGETS;
        if !is_no_better && trouble.works_since.is_none_or(is_forgotten) {
            trouble.rests = 0;
        }
        let rest = self.length(first, trouble.rests, now);
        trouble.rests = trouble.rests.saturating_add(1);
        (trouble.row, trouble.window) = (0, None);
        trouble.rest = Some(Rest {
            until: now + rest,
            why: Why::Failing,
            is_tried_first: true,
        });
        Some(rest)
    }

    /// It says itself that it will not answer for so long. Gives for how long that is believed, if it is news. Whoever was
    /// believed less than it said is tried by one request afterwards.
    pub(super) fn parks(&self, was_trying: bool, wait: Duration, now: Instant) -> Option<Duration> {
        let believed = wait.min(PARKED);
        let mut trouble = self.trouble();
        if was_trying {
            trouble.is_tried = false;
        }
        let known = trouble.rest.filter(|rest| !rest.is_past(now));
        let until = now + believed;
        if known.is_some_and(|rest| rest.until >= until) {
            return None;
        }
        self.is_well.store(false, Ordering::Release);
        trouble.rest = Some(Rest {
            until,
            why: Why::Parked,
            is_tried_first: wait > believed || known.is_some_and(|rest| rest.why == Why::Failing),
        });
        known
            .is_none_or(|rest| rest.until <= now)
            .then_some(believed)
    }

    /// A quarter of it is left to chance, so that gateways that fell silent together do not come back together.
    fn length(&self, first: Duration, rests: u32, now: Instant) -> Duration {
        let longest = LONGEST.max(first);
        let most = first.saturating_mul(1 << rests.min(8)).min(longest);
        most.mul_f64(0.75 + 0.25 * chance(&self.dice, now))
    }
}

/// Any number from 0 to 1: another one for each of what is given.
pub fn chance(dice: &RandomState, of: impl Hash) -> f64 {
    let hash = dice.hash_one(of) >> 32;
    f64::from(u32::try_from(hash).unwrap_or(0)) / f64::from(u32::MAX)
}

impl Trouble {
    fn look(&self, now: Instant) -> Result<(), Resting> {
        let Some(rest) = self.rest.filter(|rest| !rest.is_past(now)) else {
            return Ok(());
        };
        let wait = rest.until.saturating_duration_since(now);
        if wait.is_zero() && !self.is_tried {
            return Ok(());
        }
        // Whoever tries it will know in a moment.
        let wait = wait.max(Duration::from_millis(500));
        let why = rest.why;
        Err(Resting { wait, why })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(2);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One that rests, by five failures.
    fn resting(now: Instant) -> (Breaker, Duration) {
        let breaker = Breaker::new(5);
        for _ in 0..4 {
            assert_eq!(breaker.failed(false, FIRST, now), None);
        }
        let rest = breaker.failed(false, FIRST, now).unwrap();
        (breaker, rest)
    }

    #[test]
    fn five_failures_in_a_row_are_too_many_and_an_answer_between_them_is_not_forgotten() {
        let now = Instant::now();
        let breaker = Breaker::new(5);
        for _ in 0..3 {
            for _ in 0..4 {
                assert_eq!(breaker.failed(false, FIRST, now), None);
            }
            breaker.answered(now);
        }
        assert_eq!(breaker.look(now), Ok(()));
        let (breaker, rest) = resting(now);
        assert!((FIRST.mul_f64(0.75)..=FIRST).contains(&rest), "{rest:?}");
        let why = breaker.look(now).unwrap_err().why;
        assert_eq!(why, Why::Failing);
    }

    #[test]
    fn half_of_many_is_too_many_even_with_answers_between() {
        let now = Instant::now();
        let breaker = Breaker::new(5);
        for n in 0..MANY / 2 {
            assert_eq!(breaker.failed(false, FIRST, now), None, "after {n} of each");
            breaker.answered(now);
        }
        assert!(breaker.failed(false, FIRST, now).is_some());
        // Of many more answers as many failures are few.
        let breaker = Breaker::new(5);
        for _ in 0..100 {
            assert_eq!(breaker.failed(false, FIRST, now), None);
            (0..3).for_each(|_| breaker.answered(now));
        }
        // And failures that lie far apart are not one trouble.
        let breaker = Breaker::new(5);
        for n in 0..100 {
            let now = now + WINDOW * n;
            assert_eq!(breaker.failed(false, FIRST, now), None);
            breaker.answered(now);
        }
    }

    #[test]
    fn one_tries_it_when_it_has_rested_and_what_it_finds_decides() {
        let now = Instant::now();
        let (breaker, rest) = resting(now);
        assert!(breaker.enter(now, Resort::Other).is_err());
        let later = now + rest;
        assert_eq!(breaker.enter(later, Resort::Other), Ok(true));
        assert!(
            breaker.enter(later, Resort::Other).is_err(),
            "one at a time"
        );
        assert!(breaker.enter(later, Resort::Last).is_err());
        let longer = breaker.failed(true, FIRST, later).unwrap();
        assert!(longer > rest, "{longer:?} after {rest:?}");
        let later = later + longer;
        assert_eq!(breaker.enter(later, Resort::Other), Ok(true));
        breaker.tried(false, later);
        assert_eq!(
            breaker.enter(later, Resort::Other),
            Ok(true),
            "the next one"
        );
        breaker.tried(true, later);
        assert!(breaker.is_well());
        assert_eq!(breaker.enter(later, Resort::Other), Ok(false));
    }

    #[test]
    fn the_last_resort_is_one_at_a_time_and_not_for_what_is_parked() {
        let now = Instant::now();
        let (breaker, _) = resting(now);
        assert_eq!(breaker.enter(now, Resort::Last), Ok(true));
        assert!(breaker.enter(now, Resort::Last).is_err());
        assert_eq!(breaker.failed(true, FIRST, now), None, "no longer for that");
        assert_eq!(breaker.enter(now, Resort::Last), Ok(true));
        breaker.tried(true, now);
        assert_eq!(breaker.parks(false, secs(7), now), Some(secs(7)));
        let resting = breaker.enter(now, Resort::Last).unwrap_err();
        let want = Resting {
            wait: secs(7),
            why: Why::Parked,
        };
        assert_eq!(resting, want);
        let later = now + secs(7);
        for _ in 0..2 {
            assert_eq!(
                breaker.enter(later, Resort::Other),
                Ok(false),
                "by the clock"
            );
        }
    }

    #[test]
    fn nobody_is_believed_for_longer_than_an_hour_and_a_longer_wait_counts() {
        let now = Instant::now();
        let breaker = Breaker::new(5);
        assert_eq!(breaker.parks(false, secs(86_400), now), Some(PARKED));
        assert_eq!(breaker.parks(false, secs(5), now), None);
        assert_eq!(breaker.look(now).unwrap_err().wait, PARKED);
        let later = now + PARKED;
        assert_eq!(
            breaker.enter(later, Resort::Other),
            Ok(true),
            "it said more"
        );
        assert!(breaker.enter(later, Resort::Other).is_err());
        assert_eq!(
            breaker.failed(true, FIRST, later),
            None,
            "one failure is one"
        );
        assert_eq!(breaker.enter(later, Resort::Other), Ok(false));
    }

    #[test]
    fn failures_with_what_works_between_them_are_not_in_a_row() {
        let now = Instant::now();
        let breaker = Breaker::new(3);
        for _ in 0..9 {
            assert_eq!(breaker.failed(false, FIRST, now), None);
            breaker.worked(false, now);
        }
        assert_eq!(breaker.look(now), Ok(()));
    }

    #[test]
    fn what_fails_again_soon_rests_longer_and_what_has_worked_for_long_does_not() {
        let mut now = Instant::now();
        let (breaker, mut rest) = resting(now);
        for _ in 0..8 {
            now += rest;
            assert_eq!(breaker.enter(now, Resort::Other), Ok(true));
            breaker.tried(true, now);
            let mut again = None;
            (0..5).for_each(|_| again = breaker.failed(false, FIRST, now));
            rest = again.unwrap();
        }
        assert!(rest > LONGEST.mul_f64(0.7), "{rest:?}");
        assert!(rest <= LONGEST);
        now += rest;
        assert_eq!(breaker.enter(now, Resort::Other), Ok(true));
        breaker.tried(true, now);
        now += FORGETS;
        let mut again = None;
        (0..5).for_each(|_| again = breaker.failed(false, FIRST, now));
        assert!(again.unwrap() <= FIRST);
    }

    #[test]
    fn what_never_rests_is_always_asked_and_still_believed() {
        let now = Instant::now();
        let breaker = Breaker::new(5);
        for _ in 0..100 {
            assert_eq!(breaker.failed(false, Duration::ZERO, now), None);
        }
        assert_eq!(breaker.look(now), Ok(()));
        breaker.parks(false, secs(1), now);
        assert!(breaker.look(now).is_err());
        assert_eq!(breaker.enter(now + secs(1), Resort::Other), Ok(false));
        assert_eq!(breaker.failed(false, Duration::ZERO, now + secs(1)), None);
        assert_eq!(breaker.look(now + secs(1)), Ok(()));
    }

    proptest! {
        /// Whatever happens, at most one tries it, it is never shut for good, and whoever is let in without trying found
        /// it in order.
        #[test]
        fn it_always_heals(steps in proptest::collection::vec((0_u8..7, 0_u64..20_000), 0..200)) {
            let mut now = Instant::now();
            let breaker = Breaker::new(5);
            let (mut trying, mut asking) = (false, 0_u32);
            for (step, millis) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0..=2 => match breaker.enter(now, if step == 2 { Resort::Last } else { Resort::Other }) {
                        Ok(true) => {
                            prop_assert!(!trying, "two try it at once");
                            trying = true;
                        }
                        Ok(false) => {
                            prop_assert!(breaker.trouble().rest.is_none());
                            asking += 1;
                        }
                        Err(resting) => prop_assert!(resting.wait <= PARKED),
                    },
                    3 if trying => {
                        breaker.tried(true, now);
                        trying = false;
                    }
                    3 if asking > 0 => breaker.answered(now),
                    4 => {
                        breaker.failed(trying, FIRST, now);
                        trying = false;
                    }
                    5 => {
                        breaker.parks(trying, Duration::from_millis(millis), now);
                        trying = false;
                    }
                    6 if trying => {
                        breaker.tried(false, now);
                        trying = false;
                    }
                    _ => {}
                }
            }
            if trying {
                breaker.tried(false, now);
            }
            prop_assert!(breaker.enter(now + PARKED, Resort::Other).is_ok());
        }
    }
}
