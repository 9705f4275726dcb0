//! Which key asks for what, and when? The same for the callers, who send it, and for the books, which must say so.

use crate::bodies;

/// One in so many requests is for a stream.
const STREAMS: u64 = 20;
/// One in so many is for a stream whose client hangs up once it has seen the beginning.
const HANG_UPS: u64 = 100;

/// What one request is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole answer.
    Whole,
    /// A stream, read to its end.
    Stream,
    /// A stream whose client leaves.
    HangUp,
}

impl Kind {
    /// What the `at`th request is, whosever turn it is.
    pub(crate) fn of(at: u64) -> Self {
        match (at % HANG_UPS, at % STREAMS) {
            (7, _) => Self::HangUp,
            (_, 3) => Self::Stream,
            _ => Self::Whole,
        }
    }

    /// The model by which the upstream chooses its answer.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::Whole => "bench",
            Self::Stream => "flood",
            Self::HangUp => "paced",
        }
    }
}

/// The secret of a key, as long as the one that all requests of `bodies` carry.
pub(crate) fn secret(key: u32) -> String {
    let width = bodies::KEY.len() - "sk-bench-".len();
    format!("sk-bench-{key:0width$x}")
}

/// All keys, in an order that changes with each time that all of them have had their turn.
pub(crate) struct Deal {
    order: Vec<u32>,
    at: u64,
    dice: u64,
}

impl Deal {
    pub(crate) fn new(keys: u32) -> Self {
        Self {
            order: (0..keys).collect(),
            at: 0,
            dice: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The next request: whose, and what.
    pub(crate) fn next(&mut self) -> (u32, Kind) {
        let place = usize::try_from(self.at).unwrap_or(0) % self.order.len();
        if place == 0 {
            self.shuffle();
        }
        let kind = Kind::of(self.at);
        self.at += 1;
        (self.order.get(place).copied().unwrap_or(0), kind)
    }

    fn shuffle(&mut self) {
        for last in (1..self.order.len()).rev() {
            // xorshift64: any order will do.
            self.dice ^= self.dice << 13;
            self.dice ^= self.dice >> 7;
            self.dice ^= self.dice << 17;
            let other = usize::try_from(self.dice >> 1).unwrap_or(0) % (last + 1);
            self.order.swap(last, other);
        }
    }
}
