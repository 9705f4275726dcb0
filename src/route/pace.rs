//! How fast is it, and how much does it have to do? What requests saw of a target lately, counted without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

/// A new answer weighs as much as all before it when so much time has passed since the last.
const SETTLES: Duration = Duration::from_secs(10);
/// What was seen longer ago than this says nothing any more.
const STALE: Duration = Duration::from_secs(30);
/// Whoever works again after a rest gets its full share after so long.
const RAMP: Duration = Duration::from_secs(10);
/// And this part of it at first.
const LEAST_WARM: f64 = 0.1;

/// A model that nobody has asked for so long may have to be loaded again.
const COOLS: Duration = Duration::from_secs(300);

/// Fewer answers than this have no percentiles.
const FEW: u32 = 20;
/// After so many all count half, so that what was long ago counts little.
const MANY: u32 = 2_000;

/// What is known of how a target answers. What a walk looks at comes first, side by side.
#[derive(Debug)]
#[repr(C)]
pub struct Pace {
    /// The mean time to the first content, in microseconds as an `f32`, and when the last was seen, in milliseconds since it
    /// was born. Zero: nothing is known.
    mean: AtomicU64,
    /// Requests under way, of all routes.
    busy: AtomicU32,
    /// When it began to work again, in milliseconds since it was born. Zero: it never rested.
    back: AtomicU32,
    born: Instant,
    /// The same of its provider, with all its targets.
    provider_back: Arc<AtomicU32>,
    /// When it answered last, likewise. Zero: it never did.
    warm: AtomicU32,
    /// Where somebody asks for percentiles.
    seen: OnceLock<Box<Times>>,
}

/// Who works again after a rest.
#[derive(Clone, Copy, Debug)]
pub(super) enum Back {
    /// This one alone.
    Target,
    /// All targets of its provider.
    Provider,
}

impl Pace {
    /// Of which nothing is known yet, but when its provider began to work again.
    pub(super) fn new(provider_back: &Arc<AtomicU32>, now: Instant) -> Self {
        Self {
            born: now,
            busy: AtomicU32::new(0),
            mean: AtomicU64::new(0),
            back: AtomicU32::new(0),
            warm: AtomicU32::new(0),
            provider_back: Arc::clone(provider_back),
            seen: OnceLock::new(),
        }
    }

    /// Of another target of its provider, of which nothing is known yet.
    pub(super) fn anew(&self) -> Self {
        Self::new(&self.provider_back, self.born)
    }

    /// How many requests are under way.
    pub fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    pub(super) fn enters(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leaves(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn age(&self, now: Instant) -> u32 {
        let age = now.saturating_duration_since(self.born).as_millis();
        // After seven weeks it begins anew: what is known then is believed to be fresh once too often.
        #[expect(clippy::cast_possible_truncation, reason = "seven weeks")]
        let age = age as u32;
        age
    }

    /// An answer's first content came after so long. A slow one counts at once, and fast ones make it forgotten bit by bit:
    /// whoever becomes slow should lose its callers before many of them wait.
    pub(super) fn answers(&self, after: Duration, now: Instant) {
        if let Some(seen) = self.seen.get() {
            seen.add(after);
        }
        let age = self.age(now);
        let micros = after.as_secs_f32().mul_add(1e6, 1.0);
        let mean = |old: u64| {
            let (mean, at) = taken_apart(old);
            let apart = age.wrapping_sub(at);
            let mean = if mean < micros || apart > millis(STALE) {
                micros
            } else {
                let old = 1.0 / (1.0 + f32_of(apart) / f32_of(millis(SETTLES)));
                // Each answer weighs something, also where many come at once.
                let old = old.min(0.95);
                mean.mul_add(old, micros * (1.0 - old))
            };
            Some(put_together(mean, age))
        };
        // Of two at once the second is counted on top of the first.
        let _ = self
            .mean
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, mean);
    }

    /// It answered, however long that took.
    pub(super) fn warms(&self, now: Instant) {
        self.warm.store(self.age(now).max(1), Ordering::Relaxed);
    }

    /// Whether it may have to load its model first: nobody has had an answer of it for five minutes, after which Ollama lets
    /// go of one.
    pub fn is_cold(&self, now: Instant) -> bool {
        match self.warm.load(Ordering::Relaxed) {
            0 => true,
            warm => self.age(now).wrapping_sub(warm) >= millis(COOLS),
        }
    }

    /// It works again after a rest, or its provider does: what was known of it before counts no more.
    pub(super) fn returns(&self, who: Back, now: Instant) {
        self.mean.store(0, Ordering::Relaxed);
        let back = match who {
            Back::Target => &self.back,
            Back::Provider => &*self.provider_back,
        };
        back.store(self.age(now).max(1), Ordering::Relaxed);
    }

    /// The mean time to the first content, with slow answers weighing more. None: nobody has seen any of late.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        let (mean, at) = taken_apart(self.mean.load(Ordering::Relaxed));
        let is_fresh = mean > 0.0 && self.age(now).wrapping_sub(at) <= millis(STALE);
        is_fresh.then(|| Duration::from_secs_f32(mean / 1e6))
    }

    /// How much of its share it gets, from a tenth to all of it: little when it has just begun to work again.
    pub fn warmth(&self, now: Instant) -> f64 {
        let warmth = |back: &AtomicU32| match back.load(Ordering::Relaxed) {
            0 => 1.0,
            back => {
                let apart = self.age(now).wrapping_sub(back);
                (f64::from(apart) / f64::from(millis(RAMP))).clamp(LEAST_WARM, 1.0)
            }
        };
        warmth(&self.back).min(warmth(&self.provider_back))
    }

    /// How long one more request would take there, for all that is known.
    pub fn wait(&self, now: Instant) -> f64 {
        wait(self.latency(now), self.busy(), self.warmth(now))
    }

    /// The time within which this part of its answers had their first content, of those of late. None: there were too few.
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        self.seen.get()?.percentile(part)
    }

    /// From here on it is counted how long its answers took: somebody will ask for percentiles.
    pub fn counts_times(&self) {
        self.seen.get_or_init(Box::default);
    }
}

/// How much somebody has to do, with one request more, as far as its share goes.
pub(super) fn load(busy: u32, warmth: f64) -> f64 {
    f64::from(busy.saturating_add(1)) / warmth
}

/// How long one more request would take, in seconds, weighed by what there is to do. Of whom nothing is known one request
/// finds it out.
pub(super) fn wait(latency: Option<Duration>, busy: u32, warmth: f64) -> f64 {
    const UNKNOWN: f64 = 3_600.0;
    let latency = match (latency, busy) {
        (Some(latency), _) => latency.as_secs_f64(),
        (None, 0) => 0.0,
        (None, _) => UNKNOWN,
    };
    latency * load(busy, warmth)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "seven digits are plenty")]
fn f32_of(n: u32) -> f32 {
    n as f32
}

fn put_together(mean: f32, at: u32) -> u64 {
    u64::from(mean.to_bits()) << 32 | u64::from(at)
}

fn taken_apart(both: u64) -> (f32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    let at = both as u32;
    let mean = u32::try_from(both >> 32).unwrap_or(0);
    (f32::from_bits(mean), at)
}

/// How many places there are for times: four to each power of two, from 128 µs to 67 s.
const PLACES: usize = 76;
/// The bits of a `f32` that tell the place: its exponent, and two of what follows.
const FINE: u32 = 21;
/// The place of 128 µs, if all are counted from zero.
const FIRST: u32 = (127 + 7) << 2;

/// Times, by how long they were.
#[derive(Debug)]
struct Times {
    places: [AtomicU32; PLACES],
    all: AtomicU32,
}

impl Default for Times {
    fn default() -> Self {
        let places = std::array::from_fn(|_| AtomicU32::new(0));
        let all = AtomicU32::new(0);
        Self { places, all }
    }
}

impl Times {
    fn add(&self, time: Duration) {
        let micros = time.as_secs_f32() * 1e6;
        let place = (micros.to_bits() >> FINE).saturating_sub(FIRST);
        let place = usize::try_from(place).unwrap_or(0).min(PLACES - 1);
        if let Some(place) = self.places.get(place) {
            place.fetch_add(1, Ordering::Relaxed);
        }
        if self.all.fetch_add(1, Ordering::Relaxed) >= MANY {
            self.halve();
        }
    }

    #[cold]
    fn halve(&self) {
        let mut all = 0;
        for place in &self.places {
            let half = place.load(Ordering::Relaxed) / 2;
            place.store(half, Ordering::Relaxed);
            all += half;
        }
        self.all.store(all, Ordering::Relaxed);
    }

    fn percentile(&self, part: f64) -> Option<Duration> {
        let counts = self
            .places
            .iter()
            .map(|place| place.load(Ordering::Relaxed));
        let all: u32 = counts.clone().sum();
        if all < FEW {
            return None;
        }
        let wanted = f64::from(all) * part;
        let mut sum = 0;
        let place = counts.take_while(|count| {
            sum += count;
            f64::from(sum) < wanted
        });
        let place = u32::try_from(place.count()).unwrap_or(u32::MAX);
        // Where the next place begins.
        let micros = f32::from_bits((FIRST + place.saturating_add(1)) << FINE);
        Some(Duration::from_secs_f32(micros / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_bit_by_bit() {
        let mut now = Instant::now();
        let pace = Pace::new(&Arc::default(), now);
        assert_eq!(pace.latency(now), None);
        let seen = |now| pace.latency(now).unwrap().as_millis();
        pace.answers(ms(100), now);
        assert_eq!(seen(now), 100);
        pace.answers(ms(900), now);
        assert_eq!(seen(now), 900);
        let mut last = 900;
        for _ in 0..30 {
            now += ms(1_000);
            pace.answers(ms(100), now);
            assert!(seen(now) < last || last == 100, "{last}");
            last = seen(now);
        }
        assert!(last < 160, "{last}");
        assert_eq!(pace.latency(now + STALE + ms(2)), None, "who knows");
    }

    #[test]
    fn of_whom_nothing_is_known_one_finds_it_out() {
        let now = Instant::now();
        let (known, new) = (
            Pace::new(&Arc::default(), now),
            Pace::new(&Arc::default(), now),
        );
        known.answers(ms(500), now);
        assert!(new.wait(now) < known.wait(now));
        new.enters();
        assert!(new.wait(now) > known.wait(now), "by one is enough");
        new.answers(ms(50), now);
        assert!(new.wait(now) < known.wait(now));
        new.leaves();
        assert_eq!(new.busy(), 0);
    }

    #[test]
    fn whoever_works_again_gets_its_share_little_by_little() {
        let now = Instant::now();
        let pace = Pace::new(&Arc::default(), now);
        assert!((pace.warmth(now) - 1.0).abs() < 1e-9);
        pace.answers(ms(5), now);
        pace.returns(Back::Target, now);
        assert_eq!(pace.latency(now), None);
        for (after, want) in [(1, 0.1), (2_000, 0.2), (5_000, 0.5), (20_000, 1.0)] {
            let warmth = pace.warmth(now + ms(after));
            assert!((warmth - want).abs() < 0.01, "{after}: {warmth}");
        }
    }

    #[test]
    fn a_model_is_warm_for_five_minutes_after_an_answer() {
        let now = Instant::now();
        let pace = Pace::new(&Arc::default(), now);
        assert!(pace.is_cold(now));
        pace.warms(now);
        assert!(!pace.is_cold(now + ms(299_000)) && pace.is_cold(now + ms(300_001)));
        assert_eq!(
            pace.latency(now),
            None,
            "how long it took to load says nothing of it"
        );
    }

    #[test]
    fn percentiles_are_of_what_was_seen_and_within_a_fifth() {
        let now = Instant::now();
        let pace = Pace::new(&Arc::default(), now);
        pace.counts_times();
        for n in 1..=19 {
            pace.answers(ms(n), now);
        }
        assert_eq!(pace.percentile(0.5), None, "too few");
        for n in 20..=1_000 {
            pace.answers(ms(n), now);
        }
        for part in [0.1, 0.5, 0.9, 0.95, 0.99] {
            let seen = pace.percentile(part).unwrap().as_secs_f64() * 1e3;
            let want = part * 1_000.0;
            assert!((want..want * 1.26).contains(&seen), "{part}: {seen}");
        }
        for _ in 0..20 * MANY {
            pace.answers(ms(2), now);
        }
        let most = pace.percentile(0.99).unwrap();
        assert!(most < ms(3), "what was long ago is forgotten: {most:?}");
        for extreme in [Duration::ZERO, Duration::MAX] {
            pace.answers(extreme, now);
        }
    }
}
