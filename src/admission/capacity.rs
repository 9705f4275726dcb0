//! How many requests at once are good for a target? A number that is given, or one that is found by trying.
//!
//! What is found grows slowly while all is well and shrinks at once when it is not (additive increase, multiplicative
//! decrease): that settles just below what a target can do, and follows when that changes.

use std::time::Duration;

use tokio::time::Instant;

use super::window::MINUTE;

/// How many requests may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// So many.
    Fixed(u64),
    /// As many as it is found to bear.
    Adaptive {
        /// So many at least.
        least: u64,
        /// So many at most.
        most: u64,
    },
}

/// What a request tells of how its target bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feeling {
    /// It was answered; its first content came after so long.
    Good(Duration),
    /// It was refused because there were too many.
    Overloaded,
}

/// With so many it begins, if it may.
const START: u64 = 4;
/// The number is counted in thousandths.
const MILLI: u64 = 1_000;
/// How long it is waited before it shrinks again, as long as nobody knows how long requests are under way.
const PAUSE: Duration = Duration::from_secs(1);

impl Concurrency {
    /// The number to begin with.
    pub(super) fn first(self) -> u64 {
        match self {
            Self::Fixed(most) => most,
            Self::Adaptive { .. } => self.within(START),
        }
    }

    /// The nearest number that may be. None at all could never be found to be too few.
    fn within(self, number: u64) -> u64 {
        match self {
            Self::Fixed(most) => most,
            Self::Adaptive { least, most } => number.max(least).min(most).max(1),
        }
    }
}

/// A mean of durations in which the latest eight or so count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean(Option<Duration>);

impl Mean {
    pub(super) fn add(&mut self, new: Duration) {
        self.0 = Some(match self.0 {
            Some(mean) => mean.saturating_mul(7).saturating_add(new) / 8,
            None => new,
        });
    }

    /// None: nothing was added yet.
    pub(super) fn get(self) -> Option<Duration> {
        self.0
    }
}

/// The number in force, and what is known to find a better one.
#[derive(Debug)]
pub(super) struct Capacity {
    /// None: as many as come.
    rule: Option<Concurrency>,
    /// What was found, in thousandths.
    found: u64,
    /// When it shrank last.
    shrunk: Option<Instant>,
    /// The time to the first content.
    first: Mean,
    /// The lowest that this mean was, in this minute and in the one before.
    lows: [Duration; 2],
    /// When this minute began.
    minute: Option<Instant>,
}

impl Capacity {
    pub(super) fn new(rule: Option<Concurrency>) -> Self {
        let first = rule.map_or(START, Concurrency::first);
        Self {
            rule,
            found: first.saturating_mul(MILLI),
            shrunk: None,
            first: Mean::default(),
            lows: [Duration::MAX; 2],
            minute: None,
        }
    }

    /// Goes by another rule from now on. What was found stays, as far as it may.
    pub(super) fn rule(&mut self, rule: Option<Concurrency>) {
        let was_found = matches!(self.rule, Some(Concurrency::Adaptive { .. }));
        match rule {
            Some(rule) if was_found => {
                self.rule = Some(rule);
                self.keep_within(rule);
            }
            _ if self.rule != rule => *self = Self::new(rule),
            _ => {}
        }
    }

    /// The number in force. None: as many as come.
    pub(super) fn limit(&self) -> Option<u64> {
        let rule = self.rule?;
        Some(rule.within(self.found / MILLI))
    }

    /// Learns from an answer while so many slots are taken, which are held for so long as a rule.
    pub(super) fn feels(
        &mut self,
        feeling: Feeling,
        slots: u64,
        held: Option<Duration>,
        now: Instant,
    ) {
        let Some(rule @ Concurrency::Adaptive { .. }) = self.rule else {
            return;
        };
        let is_slow = match feeling {
            Feeling::Good(first) => self.is_slow(first, now),
            Feeling::Overloaded => true,
        };
        if is_slow {
            // Whatever is felt before the last time is, is felt of what was before it: until no more are under way than
            // may be, and then for as long as these take.
            let pause = held.unwrap_or(PAUSE);
            let is_over = slots > self.found / MILLI;
            if is_over || self.shrunk.is_some_and(|shrunk| now < shrunk + pause) {
                return;
            }
            self.shrunk = Some(now);
            self.found = self.found.saturating_mul(7) / 10;
        } else if slots.saturating_mul(2) >= self.found / MILLI {
            // Else it would grow without being tried.
            self.found += (MILLI * MILLI / self.found.max(1)).max(1);
        }
        self.keep_within(rule);
    }

    fn keep_within(&mut self, rule: Concurrency) {
        let least = rule.within(0).saturating_mul(MILLI);
        let most = rule.within(u64::MAX).saturating_mul(MILLI);
        self.found = self.found.max(least).min(most);
    }

    /// Whether answers begin twice as late as they did at best of late: they wait for each other where they are made.
    fn is_slow(&mut self, first: Duration, now: Instant) -> bool {
        self.first.add(first);
        let mean = self.first.get().unwrap_or(first);
        let minute = *self.minute.get_or_insert(now);
        let age = now.saturating_duration_since(minute);
        let [this, last] = self.lows;
        if age >= MINUTE {
            self.minute = Some(now);
            self.lows = [mean, if age < 2 * MINUTE { this } else { mean }];
        } else {
            self.lows = [this.min(mean), last];
        }
        let [this, last] = self.lows;
        mean > this.min(last).saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP_TO_40: Option<Concurrency> = Some(Concurrency::Adaptive { least: 2, most: 40 });
    const HELD: Option<Duration> = Some(Duration::from_secs(2));

    fn good(millis: u64) -> Feeling {
        Feeling::Good(Duration::from_millis(millis))
    }

    #[test]
    fn it_grows_by_one_a_round_while_it_is_used_up() {
        let (mut capacity, now) = (Capacity::new(UP_TO_40), Instant::now());
        assert_eq!(capacity.limit(), Some(4));
        for limit in 4..12 {
            assert_eq!(capacity.limit(), Some(limit));
            // A little more than one each, for the number grows meanwhile.
            for _ in 0..=limit {
                capacity.feels(good(100), limit, HELD, now);
            }
        }
        let before = capacity.limit();
        for _ in 0..100 {
            capacity.feels(good(100), 5, HELD, now);
        }
        assert_eq!(capacity.limit(), before, "half of it would do");
        for _ in 0..10_000 {
            capacity.feels(good(100), 40, HELD, now);
        }
        assert_eq!(capacity.limit(), Some(40));
    }

    #[test]
    fn it_shrinks_once_for_what_happens_at_once() {
        let (mut capacity, now) = (Capacity::new(UP_TO_40), Instant::now());
        capacity.found = 20 * MILLI;
        for _ in 0..20 {
            capacity.feels(Feeling::Overloaded, 20, HELD, now);
        }
        assert_eq!(capacity.limit(), Some(14));
        let later = now + Duration::from_secs(10);
        capacity.feels(Feeling::Overloaded, 15, HELD, later);
        assert_eq!(capacity.limit(), Some(14), "more are under way than may be");
        let soon = now + Duration::from_millis(1_999);
        capacity.feels(Feeling::Overloaded, 14, HELD, soon);
        assert_eq!(capacity.limit(), Some(14), "they began before");
        capacity.feels(Feeling::Overloaded, 14, HELD, later);
        assert_eq!(capacity.limit(), Some(9));
        for n in 1..20 {
            capacity.feels(Feeling::Overloaded, 0, HELD, later + MINUTE * n);
        }
        assert_eq!(capacity.limit(), Some(2));
    }

    #[test]
    fn it_shrinks_when_answers_begin_twice_as_late() {
        let (mut capacity, mut now) = (Capacity::new(UP_TO_40), Instant::now());
        for _ in 0..20 {
            capacity.feels(good(100), 4, HELD, now);
        }
        let before = capacity.limit().unwrap();
        for _ in 0..20 {
            capacity.feels(good(190), before, HELD, now);
        }
        assert!(capacity.limit() > Some(before), "that is not twice");
        let before = capacity.limit().unwrap();
        for _ in 0..40 {
            now += Duration::from_millis(50);
            capacity.feels(good(300), before, HELD, now);
        }
        assert_eq!(capacity.limit(), Some(before * 7 / 10));
        // Once it has been so for two minutes, that is how it is.
        for _ in 0..4 {
            now += MINUTE;
            capacity.feels(good(300), 0, HELD, now);
        }
        let before = capacity.limit().unwrap();
        for _ in 0..60 {
            capacity.feels(good(300), 40, HELD, now);
        }
        assert!(capacity.limit() > Some(before));
    }

    #[test]
    fn a_rule_may_change() {
        let mut capacity = Capacity::new(UP_TO_40);
        capacity.found = 30 * MILLI;
        capacity.rule(Some(Concurrency::Adaptive { least: 1, most: 20 }));
        assert_eq!(capacity.limit(), Some(20), "as far as it may");
        capacity.rule(Some(Concurrency::Adaptive { least: 1, most: 90 }));
        assert_eq!(capacity.limit(), Some(20), "what was found stays");
        capacity.rule(Some(Concurrency::Fixed(7)));
        assert_eq!(capacity.limit(), Some(7));
        capacity.feels(Feeling::Overloaded, 0, HELD, Instant::now());
        assert_eq!(capacity.limit(), Some(7));
        capacity.rule(None);
        assert_eq!(capacity.limit(), None);
        capacity.rule(UP_TO_40);
        assert_eq!(capacity.limit(), Some(4));
        // Wrong numbers are no reason to panic, or to stop.
        capacity.rule(Some(Concurrency::Adaptive { least: 9, most: 0 }));
        assert_eq!(capacity.limit(), Some(1));
    }
}
