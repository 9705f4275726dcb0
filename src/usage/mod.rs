//! What was used: tokens by class. Integers only; the classes are disjoint, so they add up.

/// The tokens of one answer, by how they are billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input that was neither read from nor written to a cache.
    pub input: u64,
    /// Input read from the provider's cache.
    pub cached: u64,
    /// Input written to the provider's cache.
    pub cache_write: u64,
    /// Output that was not reasoning.
    pub output: u64,
    /// Output that was reasoning.
    pub reasoning: u64,
}

/// The classes, by the name their label has.
pub const KINDS: [&str; 5] = ["input", "cached", "cache_write", "output", "reasoning"];

impl Usage {
    /// The counts, in the order of [`KINDS`].
    pub fn counts(&self) -> [u64; KINDS.len()] {
        [
            self.input,
            self.cached,
            self.cache_write,
            self.output,
            self.reasoning,
        ]
    }
}
