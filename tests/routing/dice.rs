//! Chance that is the same each time: splitmix64, and what is drawn from it.

/// A generator of random numbers.
pub struct Dice(u64);

impl Dice {
    /// Whose numbers are those of this seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// A number from 0 to 1, never 1.
    pub fn part(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX).next_up()
    }

    /// A whole number below another.
    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }

    /// How long it takes until something happens that happens so often, and at any time alike.
    pub fn wait(&mut self, rate: f64) -> f64 {
        -(1.0 - self.part()).ln() / rate
    }

    /// About 1: half of them within an eighth of it.
    pub fn about(&mut self) -> f64 {
        0.6 + 0.8 * (self.part() + self.part() + self.part()) / 3.0
    }
}
