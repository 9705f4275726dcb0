//! How much was taken in the last minute? A window that slides, can be paid back, and goes into debt.
//!
//! No token bucket: one that holds a minute's worth lets through nearly twice as much in its first minute, and one that
//! holds less refuses what would fit. This one remembers when each amount was taken, so in no sixty seconds is more taken
//! than may be, and nothing waits longer than it must. Moments are kept exactly while they are few, and to a quarter of a
//! second, rounded up, once they are many.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::told::{Left, What};

/// How long what was taken counts.
pub const MINUTE: Duration = Duration::from_secs(60);
/// From so many moments on, those that lie close together are kept as one.
const MANY: usize = 256;
/// How close that is: a full window has no more than [`MANY`] moments and 240 of these.
const CLOSE: Duration = Duration::from_millis(250);

/// What was taken in the last minute.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// When, and how much; the oldest first.
    taken: VecDeque<(Instant, u64)>,
    sum: u64,
    /// When the first of what the last moment stands for was taken.
    opened: Option<Instant>,
}

impl Window {
    /// How much was taken in the minute before now.
    pub(super) fn sum(&mut self, now: Instant) -> u64 {
        while let Some((_, amount)) = self.taken.pop_front_if(|(at, _)| now >= *at + MINUTE) {
            self.sum = self.sum.saturating_sub(amount);
        }
        self.sum
    }

    /// How long until an amount fits below a limit. None: it does now.
    pub(super) fn wait(&mut self, now: Instant, amount: u64, limit: u64) -> Option<Duration> {
        let mut over = self.sum(now).saturating_add(amount).checked_sub(limit)?;
        if over == 0 {
            return None;
        }
        let mut until = now;
        for (at, amount) in &self.taken {
            until = *at + MINUTE;
            over = over.saturating_sub(*amount);
            if over == 0 {
                break;
            }
        }
        Some(until.saturating_duration_since(now))
    }

    /// When nothing of it will count any more.
    pub(super) fn reset(&self, now: Instant) -> Duration {
        let last = self.taken.back();
        last.map_or(Duration::ZERO, |(at, _)| {
            (*at + MINUTE).saturating_duration_since(now)
        })
    }

    /// What is left of a limit on it.
    pub(super) fn left(&mut self, what: What, limit: u64, now: Instant) -> Left {
        Left {
            what,
            limit,
            left: limit.saturating_sub(self.sum(now)),
            reset: self.reset(now),
        }
    }

    /// Takes an amount, whether or not it fits. Gives the moment at which it counts.
    pub(super) fn take(&mut self, now: Instant, amount: u64) -> Instant {
        let is_many = self.taken.len() >= MANY;
        let is_close = self.opened.is_some_and(|opened| now < opened + CLOSE);
        self.sum = self.sum.saturating_add(amount);
        match self.taken.back_mut() {
            // Later than it was, never earlier: so it counts for too long rather than not long enough.
            Some((at, sum)) if now <= *at || (is_many && is_close) => {
                *at = now.max(*at);
                *sum = sum.saturating_add(amount);
                *at
            }
            _ => {
                self.taken.push_back((now, amount));
                self.opened = Some(now);
                now
            }
        }
    }

    /// Gives back of what was taken at a moment. What no longer counts is not given back.
    pub(super) fn pay_back(&mut self, at: Instant, amount: u64, now: Instant) {
        if now >= at + MINUTE {
            return;
        }
        // What was joined with others since stands a little later.
        let place = self.taken.partition_point(|(taken, _)| *taken < at);
        if let Some((_, sum)) = self.taken.get_mut(place) {
            let back = amount.min(*sum);
            *sum -= back;
            self.sum = self.sum.saturating_sub(back);
        }
    }

    /// Of what was taken so much was used: the rest is given back, and what was used beyond it is owed.
    pub(super) fn settle(&mut self, (at, amount): (Instant, u64), used: u64, now: Instant) {
        self.pay_back(at, amount.saturating_sub(used), now);
        if used > amount {
            self.take(now, used - amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(begin: Instant, millis: u64) -> Instant {
        begin + Duration::from_millis(millis)
    }

    #[test]
    fn a_minute_has_sixty_seconds_from_each_request_on() {
        let (mut window, begin) = (Window::default(), Instant::now());
        for millis in [0, 10, 20_000] {
            assert_eq!(window.wait(at(begin, millis), 1, 3), None);
            window.take(at(begin, millis), 1);
        }
        let wait = |window: &mut Window, millis, amount| {
            let wait = window.wait(at(begin, millis), amount, 3);
            wait.map(|wait| u64::try_from(wait.as_millis()).unwrap())
        };
        assert_eq!(wait(&mut window, 20_000, 1), Some(40_000));
        assert_eq!(wait(&mut window, 20_000, 2), Some(40_010));
        assert_eq!(wait(&mut window, 20_000, 3), Some(60_000));
        assert_eq!(window.reset(at(begin, 30_000)), Duration::from_secs(50));
        assert_eq!(wait(&mut window, 59_999, 1), Some(1));
        assert_eq!(wait(&mut window, 60_000, 1), None);
        assert_eq!(window.sum(at(begin, 80_000)), 0);
        assert_eq!(window.reset(at(begin, 80_000)), Duration::ZERO);
    }

    #[test]
    fn what_is_paid_back_is_free_at_once_and_a_debt_is_worked_off() {
        let (mut window, begin) = (Window::default(), Instant::now());
        let first = window.take(begin, 80);
        let second = window.take(at(begin, 1), 20);
        window.pay_back(first, 50, begin);
        assert_eq!(window.wait(at(begin, 2), 50, 100), None);
        window.pay_back(second, 50, begin);
        assert_eq!(window.sum(begin), 30, "no more than was taken");
        window.take(at(begin, 30_000), 170);
        assert_eq!(
            window.wait(at(begin, 30_000), 1, 100),
            Some(Duration::from_secs(60)),
            "a debt of half a minute's worth"
        );
        window.pay_back(first, 10, at(begin, 60_000));
        assert_eq!(window.sum(at(begin, 60_000)), 170, "it counts no more");
    }

    /// What a window is held to: every amount with its moment.
    fn exact(all: &[(u64, u64)], now: u64) -> u64 {
        let in_it = all.iter().filter(|(at, _)| at + 60_000 > now);
        in_it.map(|(_, amount)| amount).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_minute_has_more_than_the_limit_and_what_fits_passes(
            limit in 1_u64..40,
            steps in proptest::collection::vec((0_u64..4_000, 1_u64..6, any::<bool>()), 1..300),
        ) {
            let (mut window, begin) = (Window::default(), Instant::now());
            let (mut all, mut now): (Vec<(u64, u64)>, u64) = (Vec::new(), 0);
            for (pause, amount, is_paid_back) in steps {
                now += pause;
                let amount = amount.min(limit);
                let fits = exact(&all, now) + amount <= limit;
                match window.wait(at(begin, now), amount, limit) {
                    None => {
                        prop_assert!(fits);
                        let moment = window.take(at(begin, now), amount);
                        match is_paid_back {
                            true => window.pay_back(moment, amount, at(begin, now)),
                            false => all.push((now, amount)),
                        }
                    }
                    Some(wait) => {
                        prop_assert!(!fits);
                        let wait = u64::try_from(wait.as_millis()).unwrap();
                        prop_assert!(exact(&all, now + wait) + amount <= limit, "it is true");
                        prop_assert!(exact(&all, now + wait - 1) + amount > limit, "and no longer");
                    }
                }
            }
        }

        #[test]
        fn a_busy_window_is_small_and_right_to_a_quarter_of_a_second(
            pauses in proptest::collection::vec(0_u64..20, 4_000..8_000),
        ) {
            let (mut window, begin) = (Window::default(), Instant::now());
            let (mut all, mut now): (Vec<(u64, u64)>, u64) = (Vec::new(), 0);
            for pause in pauses {
                now += pause;
                window.take(at(begin, now), 1);
                all.push((now, 1));
                if all.len() % 97 > 0 {
                    continue;
                }
                let sum = window.sum(at(begin, now));
                prop_assert!(sum >= exact(&all, now));
                prop_assert!(sum <= exact(&all, now.saturating_sub(250)));
                prop_assert!(window.taken.len() <= MANY + 241);
            }
        }
    }
}
