//! What must hold for any input: one file for each target. libFuzzer makes inputs up (`fuzz/run.sh`); `tests/fuzzed.rs`
//! checks those that are kept in `fuzz/corpus`, with every `cargo test`.
//!
//! A new target is a file here with a `check`, a line in [`ALL`], and a folder of inputs. A check panics if something
//! does not hold. Most inputs are two parts: the first line says what is done, the rest is what it is done to.

mod answer;
mod config;
mod envelope;
mod form;
mod stream;

/// Panics if something does not hold for this input.
pub(crate) type Check = fn(&[u8]);

/// The targets, by their names.
pub(crate) const ALL: &[(&str, Check)] = &[
    ("answer", answer::check),
    ("config", config::check),
    ("envelope", envelope::check),
    ("form", form::check),
    ("stream", stream::check),
];

/// What an input's first line says, byte by byte; after its end it says 0.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Takes an input apart: its first line, and the rest.
    fn split(input: &'a [u8]) -> (Self, &'a [u8]) {
        let end = input.iter().position(|byte| *byte == b'\n');
        let end = end.unwrap_or(input.len());
        let rest = input.get(end + 1..).unwrap_or_default();
        (Self(&input[..end]), rest)
    }

    /// The next word of it.
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first)
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One of these, as the next word picks.
    fn pick<'c, T: ?Sized>(&mut self, choices: &[&'c T]) -> &'c T {
        choices[self.next() % choices.len()]
    }
}

/// The same bytes in pieces, as the words of a script say: each is the length of one piece, and after the last word they
/// start again. Without words each byte is a piece.
fn pieces<'a>(script: &Script<'_>, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let mut lengths = script.0.iter().map(|word| usize::from(*word) % 48).cycle();
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        // No word would end it if all were 0.
        let length = lengths.next().filter(|length| *length > 0).unwrap_or(1);
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
