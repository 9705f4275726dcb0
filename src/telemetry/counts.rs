//! What counts? Plain numbers that many may add to at once, side by side in memory: what a request adds to is then a few
//! lines of memory, however many targets there are.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that many may add to at once.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes back one that was added.
    pub(super) fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Times, and how many of them were within each of some bounds.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Times<const N: usize> {
    /// In nanoseconds. Five centuries fit.
    sum: Count,
    /// How many were within a bound, and not within the one before it.
    within: [Count; N],
    beyond: Count,
}

impl<const N: usize> Default for Times<N> {
    fn default() -> Self {
        Self {
            sum: Count::default(),
            within: std::array::from_fn(|_| Count::default()),
            beyond: Count::default(),
        }
    }
}

impl<const N: usize> Times<N> {
    /// One more time. The bounds are in order, and always the same.
    pub(super) fn observe(&self, time: Duration, bounds: &[Duration; N]) {
        self.sum
            .add(u64::try_from(time.as_nanos()).unwrap_or_default());
        let mut places = self.within.iter().zip(bounds);
        let place = places.find(|(_, bound)| time <= **bound);
        place.map_or(&self.beyond, |(count, _)| count).add(1);
    }

    /// Adds what was observed here to that.
    pub(super) fn add_to(&self, seen: &mut Distribution<N>) {
        seen.sum += Duration::from_nanos(self.sum.get());
        for (sum, count) in seen.within.iter_mut().zip(&self.within) {
            *sum += count.get();
        }
        seen.beyond += self.beyond.get();
    }
}

/// What was seen of some [`Times`].
#[derive(Debug)]
pub(super) struct Distribution<const N: usize> {
    pub(super) sum: Duration,
    pub(super) within: [u64; N],
    pub(super) beyond: u64,
}

impl<const N: usize> Default for Distribution<N> {
    fn default() -> Self {
        Self {
            sum: Duration::ZERO,
            within: [0; N],
            beyond: 0,
        }
    }
}

/// How many counts lie together in a [`Row`].
const TOGETHER: usize = 32;

/// A count for each of some small numbers below [`Row::LEN`]. Those that were never asked for take next to no memory.
#[derive(Debug, Default)]
pub(super) struct Row([OnceLock<Box<[Count; TOGETHER]>>; TOGETHER]);

impl Row {
    /// How many there are.
    pub(super) const LEN: usize = TOGETHER * TOGETHER;

    /// That of a number. None: the number is too large.
    pub(super) fn of(&self, number: usize) -> Option<&Count> {
        let some = self.0.get(number / TOGETHER)?;
        some.get_or_init(Box::default).get(number % TOGETHER)
    }

    /// Those that are not zero, with their numbers.
    pub(super) fn counted(&self) -> impl Iterator<Item = (usize, u64)> {
        let some = (0..)
            .step_by(TOGETHER)
            .zip(&self.0)
            .filter_map(|(first, some)| Some((first, some.get()?)));
        let each = some.flat_map(|(first, some)| (first..).zip(some.iter()));
        each.map(|(number, count)| (number, count.get()))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_within_the_first_bound_that_it_does_not_exceed() {
        let ms = Duration::from_millis;
        let bounds = [ms(10), ms(20)];
        let times = Times::default();
        for time in [0, 10, 11, 20, 21, 5_000] {
            times.observe(ms(time), &bounds);
        }
        let mut seen = Distribution::default();
        times.add_to(&mut seen);
        assert_eq!(seen.within, [2, 2]);
        assert_eq!((seen.beyond, seen.sum), (2, ms(5_062)));
        times.add_to(&mut seen);
        assert_eq!(seen.within, [4, 4]);
    }

    #[test]
    fn a_row_counts_by_number() {
        let row = Row::default();
        for number in [0, 31, 32, Row::LEN - 1, 31] {
            row.of(number).unwrap().add(1);
        }
        assert!(row.of(Row::LEN).is_none());
        let counted: Vec<_> = row.counted().collect();
        assert_eq!(counted, [(0, 1), (31, 2), (32, 1), (Row::LEN - 1, 1)]);
    }
}
