//! What was used, and what does it cost? Integers only; the classes of tokens are disjoint, so they add up. What is billed by
//! another unit than the token has classes of its own.

pub mod book;
mod decimal;
pub mod import;
mod kinds;
mod look;
mod money;
mod pictures;
mod price;

use serde::{Deserialize, Serialize};

pub use decimal::{Decimal, NoDecimal};
pub use kinds::{Kinds, relative};
pub use look::{Look, NoLook, Quality, Size};
pub use money::Money;
pub use pictures::Pictures;
pub use price::{Most, NoRate, Price, Rate, Rates, Stated, Tier};

/// The tokens of one answer, by how they are billed, and what else it took.
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
    /// Characters of text that were spoken.
    pub characters: u32,
    /// Seconds of sound that were heard, each begun one whole.
    pub seconds: u32,
    /// Pictures that were made.
    pub images: u32,
    /// Searches, as those who rank documents bill them.
    pub searches: u32,
    /// What its pictures are like, as far as anybody says.
    pub look: Look,
    /// What the provider itself says that the answer costs. It goes before every price.
    pub cost: Option<Money>,
}

/// The classes of what is used, by the name that labels, columns and prices have: tokens of input, tokens of output, and
/// what has a unit of its own.
pub const KINDS: [&str; 14] = [
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
    "characters",
    "seconds",
    "images",
    "searches",
];

/// How many of [`KINDS`], from the first, are input.
pub const INPUTS: usize = 6;

/// How many of [`KINDS`], from the first, are tokens. The others are units of their own.
pub const TOKENS: usize = 10;

/// How many of [`KINDS`], from the last, are no tokens: as many as there are [`Unit`]s.
pub const UNITS: usize = KINDS.len() - TOKENS;

/// A unit that is no token. A request has one of its own at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Characters of text that are spoken.
    Characters,
    /// Seconds of sound that are heard.
    Seconds,
    /// Pictures that are made.
    Images,
    /// Searches, as those who rank documents bill them.
    Searches,
}

impl Unit {
    /// All of them, in the order of [`KINDS`].
    pub const ALL: [Self; UNITS] = [
        Self::Characters,
        Self::Seconds,
        Self::Images,
        Self::Searches,
    ];

    /// Its name among [`KINDS`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Characters => "characters",
            Self::Seconds => "seconds",
            Self::Images => "images",
            Self::Searches => "searches",
        }
    }

    /// What is its own of things that are there for each.
    pub fn of<T: Copy>(self, each: [T; UNITS]) -> T {
        let [characters, seconds, images, searches] = each;
        match self {
            Self::Characters => characters,
            Self::Seconds => seconds,
            Self::Images => images,
            Self::Searches => searches,
        }
    }
}

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
            characters,
            seconds,
            images,
            searches,
        ] = counts;
        // More of them than that is a mistake of who counts.
        let unit = |count| u32::try_from(count).unwrap_or(u32::MAX);
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
            characters: unit(characters),
            seconds: unit(seconds),
            images: unit(images),
            searches: unit(searches),
            look: Look::ANY,
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
            self.characters.into(),
            self.seconds.into(),
            self.images.into(),
            self.searches.into(),
        ]
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        let counts = self.counts().into_iter().take(TOKENS);
        counts.fold(0, u64::saturating_add)
    }

    /// How many of a unit.
    pub fn units(&self, unit: Unit) -> u64 {
        let each = [self.characters, self.seconds, self.images, self.searches];
        unit.of(each).into()
    }

    /// The same with so many of a unit.
    #[must_use]
    pub fn with(mut self, unit: Unit, count: u64) -> Self {
        let slot = match unit {
            Unit::Characters => &mut self.characters,
            Unit::Seconds => &mut self.seconds,
            Unit::Images => &mut self.images,
            Unit::Searches => &mut self.searches,
        };
        *slot = u32::try_from(count).unwrap_or(u32::MAX);
        self
    }
}
