//! Which key asks for what, and when? The same for the callers, who send it, and for the books, which must say so.

use crate::bodies;

/// One in so many requests is for a stream.
const STREAMS: u64 = 20;
/// One in so many is for a stream whose client hangs up once it has seen the beginning.
const HANG_UPS: u64 = 100;

/// With so many requests a key comes at a time, in the skewed part: a choice, not a measurement of anybody's traffic. With
/// one at a time the cost is nearly that of the even part.
const AT_A_TIME: u64 = 4;

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

/// Whose turn it is. At first all keys come equally often, in an order that changes each time that all have had their turn:
/// no memory of a key is at hand any more when it comes again, which is the worst that can be. Behind that they come
/// skewed: the nth of them `1/n` times as often as the first one (Zipf's law), and with a few requests at a
/// time.
pub(crate) struct Deal {
    order: Vec<u32>,
    /// How many requests there are in which keys come equally often.
    even: u64,
    at: u64,
    /// Whose turn it is, of the skewed ones.
    place: u64,
    dice: u64,
}

impl Deal {
    pub(crate) fn new(keys: u32, even: u64) -> Self {
        Self {
            order: (0..keys).collect(),
            even,
            at: 0,
            place: 0,
            dice: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The next request: whose, and what.
    pub(crate) fn next(&mut self) -> (u32, Kind) {
        let turn = self.at % self.order.len() as u64;
        let is_even = self.at < self.even;
        if is_even && turn == 0 {
            self.shuffle();
        }
        if !is_even && self.at.is_multiple_of(AT_A_TIME) {
            self.place = self.skewed();
        }
        let place = if is_even { turn } else { self.place };
        let place = usize::try_from(place).unwrap_or(0);
        let kind = Kind::of(self.at);
        self.at += 1;
        (self.order.get(place).copied().unwrap_or(0), kind)
    }

    /// A place, each of them so much more seldom than the first.
    fn skewed(&mut self) -> u64 {
        let most = (self.order.len() as f64 + 1.0).ln();
        let part = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        ((part * most).exp() as u64).clamp(1, self.order.len() as u64) - 1
    }

    fn shuffle(&mut self) {
        for last in (1..self.order.len()).rev() {
            let other = usize::try_from(self.roll() >> 1).unwrap_or(0) % (last + 1);
            self.order.swap(last, other);
        }
    }

    /// xorshift64: any numbers will do.
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }
}
