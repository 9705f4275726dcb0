//! What has the store yet to learn? Requests that have ended, blocks that are asked for, and blocks that are given back.

use std::sync::Arc;

use smallvec::SmallVec;

use super::bell::Slot;
use super::book::{Book, Cut};
use super::{Account, Entry, line};

/// Something that the store has yet to learn.
#[derive(Debug)]
pub(super) enum Item {
    /// A request has ended.
    Settled(Arc<Settled>),
    /// An account needs a block.
    Draw(Draw),
    /// A block, or a part of one, is given back.
    Back(Cut),
}

/// A request that has ended.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Counts what is settled, from 1, in the order in which it is queued.
    pub(super) number: u64,
    pub(super) entries: Entries,
    /// The hour in which they count.
    pub(super) hour: i64,
    pub(super) cuts: Cuts,
    /// Where someone may wait for it.
    pub(super) slot: Slot,
    /// The entries as they are written; set once they are settled.
    pub(super) text: Vec<u8>,
}

impl Settled {
    /// With these entries, as they will be written.
    pub(super) fn of(number: u64, hour: i64, entries: Entries, cuts: Cuts) -> Self {
        let mut text = Vec::new();
        line::list(&entries, &mut text);
        Self {
            number,
            entries,
            hour,
            cuts,
            text,
            slot: Slot::default(),
        }
    }

    /// An empty one. One that is no longer used is taken for it: what one thread allocates and another frees costs both.
    pub(super) fn anew(used: Option<Arc<Self>>) -> Arc<Self> {
        let mut settled = used.unwrap_or_default();
        let Some(it) = Arc::get_mut(&mut settled) else {
            return Arc::default();
        };
        it.entries.clear();
        it.cuts.clear();
        it.text.clear();
        it.slot = Slot::default();
        settled
    }
}

/// The tries of a request: one, as a rule.
pub(super) type Entries = SmallVec<[Entry; 1]>;
/// What the store is to lower.
pub(super) type Cuts = SmallVec<[Cut; 4]>;

/// A block that an account asks for.
#[derive(Debug)]
pub(super) struct Draw {
    pub(super) account: Account,
    pub(super) series: u32,
    pub(super) start: i64,
    /// The hour in which it counts as spent after a crash.
    pub(super) hour: i64,
    pub(super) amount: Amount,
}

impl Draw {
    /// Of a book's window.
    pub(super) fn of(book: &Book, hour: i64, amount: Amount) -> Self {
        Self {
            account: book.seldom.account.clone(),
            series: book.series,
            start: book.start,
            hour,
            amount,
        }
    }
}

/// How large the block is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// So much.
    Exactly(u64),
    /// What was spent is to be read first; then as much as befits what is free below `most`, so that `wanted` is there.
    Read { most: u64, wanted: u64 },
}

/// What the store answered to a [`Draw`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Granted {
    pub(super) block: u64,
    pub(super) spent: Option<u64>,
}

/// What it is time for, once there is nothing to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chores {
    /// To look for what is too old to be kept.
    pub(super) sweep: bool,
    /// To bring what is due into the sums.
    pub(super) sum: bool,
}

impl Chores {
    /// For none.
    pub(super) const NONE: Self = Self {
        sweep: false,
        sum: false,
    };
}
