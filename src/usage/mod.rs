//! What was used, and what does it cost? Integers only; the classes of tokens are disjoint, so they add up.

pub mod book;
mod decimal;
pub mod import;
mod kinds;
mod money;
mod price;

pub use decimal::{Decimal, NoDecimal};
pub use kinds::{Kinds, relative};
pub use money::Money;
pub use price::{NoRate, Price, Rate, Rates, Stated, Tier};

/// The tokens of one answer, by how they are billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input of none of the further classes.
    pub input: u64,
    /// Input read from the provider's cache.
    pub cached: u64,
    /// Input written to the provider's cache, for a few minutes.
    pub cache_write: u64,
    /// Input written to the provider's cache, for an hour.
    pub cache_write_1h: u64,
    /// Input that was sound.
    pub audio_input: u64,
    /// Input that was pictures.
    pub image_input: u64,
    /// Output of none of the further classes.
    pub output: u64,
    /// Output that was reasoning.
    pub reasoning: u64,
    /// Output that was sound.
    pub audio_output: u64,
    /// Output that was pictures.
    pub image_output: u64,
    /// What the provider itself says that the answer costs. It goes before every price.
    pub cost: Option<Money>,
}

/// The classes of tokens, by the name that labels, columns and prices have.
pub const KINDS: [&str; 10] = [
    "input",
    "cached",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "image_input",
    "output",
    "reasoning",
    "audio_output",
    "image_output",
];

impl Usage {
    /// From counts in the order of [`KINDS`], and what the provider says that they cost.
    pub fn of(counts: [u64; KINDS.len()], cost: Option<Money>) -> Self {
        let [
            input,
            cached,
            cache_write,
            cache_write_1h,
            audio_input,
            image_input,
            output,
            reasoning,
            audio_output,
            image_output,
        ] = counts;
        Self {
            input,
            cached,
            cache_write,
            cache_write_1h,
            audio_input,
            image_input,
            output,
            reasoning,
            audio_output,
            image_output,
            cost,
        }
    }

    /// The counts, in the order of [`KINDS`].
    pub fn counts(&self) -> [u64; KINDS.len()] {
        [
            self.input,
            self.cached,
            self.cache_write,
            self.cache_write_1h,
            self.audio_input,
            self.image_input,
            self.output,
            self.reasoning,
            self.audio_output,
            self.image_output,
        ]
    }
}
