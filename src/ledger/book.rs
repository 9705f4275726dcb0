//! What is there of one budget, right now? The arithmetic of an account in memory, without clocks, locks or files.
//!
//! `spent + held` never passes the limit by a hold's doing: what fits is decided by [`Book::room`] alone. Blocks only see
//! to it that the disk knows of at least as much as is held here, so that a crash frees nothing. What a crash finds in them
//! it charges; so they begin small, and only who spends much has large ones.

use std::slice::from_ref;
use std::sync::Arc;

use hugealloc::HugeAlloc;
use prefetch_index::prefetch_index;
use smol_str::SmolStr;
use tokio::sync::Notify;

use super::state::Want;
use super::{Account, Balance, Budget, Per, Scope, window};
use crate::usage::Money;

/// Whether it is known what was spent in this window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// No, and nobody asked.
    No,
    /// The store was asked. What is spent meanwhile is counted already.
    Asked,
    /// Yes.
    Yes,
}

/// One account, as it stands in memory: two lines of a processor's cache, which come together.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Book {
    pub(super) seldom: Box<Seldom>,
    pub(super) budget: Budget,
    /// Whether the configuration has it; what it had may still be spent by requests under way.
    pub(super) in_force: bool,
    /// Whether it was told in this window that much is spent.
    warned: bool,
    /// The window's first hour.
    pub(super) start: i64,
    /// The hour for which that was worked out last.
    hour: i64,
    /// Counts windows: a hold of an older one is no longer held here.
    pub(super) turn: u32,
    /// Counts windows and changes of the period: blocks of an older series are not ours.
    pub(super) series: u32,
    pub(super) known: Known,
    /// Spent in this window, in billionths of a dollar as all that follows.
    pub(super) spent: u64,
    /// Set aside for requests under way.
    pub(super) held: u64,
    /// What is left of the blocks that the store knows of.
    pub(super) left: u64,
    /// Requests that were made and that the store only knows as drawn: to write each would cost more than to make it.
    unwritten: u64,
    /// When it was used last, in ticks.
    pub(super) used: u64,
    /// Whether it is on the list of those that may have something to give back.
    pub(super) warm: bool,
}

/// All of them. Once they are many they stand on large pages, for each is looked at now and then, and a processor would have to
/// find its page first.
pub(super) type Books = allocator_api2::vec::Vec<Book, HugeAlloc>;

/// What is looked at seldom of an account: when it draws a block, and when it is told of.
#[derive(Debug)]
pub(super) struct Seldom {
    pub(super) account: Account,
    /// Rings when the store has answered.
    pub(super) bell: Arc<Notify>,
    /// Blocks that the store was asked for.
    pub(super) pending: u64,
    /// What those who wait for a block need, all together.
    pub(super) wanted: u64,
    /// The block that was drawn last, of those that were not given back.
    pub(super) last: u64,
}

/// What one hold holds of one account.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) account: Account,
    turn: u32,
    series: u32,
    /// The window of which it is part.
    pub(super) start: i64,
    pub(super) held: u64,
    /// Requests that were made of those that are held.
    pub(super) used: u64,
}

/// An amount by which what the store knows as drawn is to be lowered.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) scope: Scope,
    pub(super) name: SmolStr,
    pub(super) start: i64,
    pub(super) amount: u64,
    /// Requests that were made, of which no entry tells.
    pub(super) spent: u64,
}

impl Cut {
    pub(super) fn of(account: &Account, start: i64, amount: u64) -> Option<Self> {
        (amount > 0).then(|| Self {
            scope: account.scope,
            name: account.name.clone(),
            start,
            amount,
            spent: 0,
        })
    }
}

impl Book {
    /// Without a budget nothing can be held.
    pub(super) fn new(account: Account, hour: i64) -> Self {
        let budget = Budget {
            limit: Money::ZERO,
            per: Per::Total,
            warn: None,
        };
        Self {
            seldom: Box::new(Seldom {
                account,
                bell: Arc::default(),
                pending: 0,
                wanted: 0,
                last: 0,
            }),
            budget,
            in_force: false,
            warned: false,
            start: budget.per.start(hour),
            hour,
            turn: 0,
            series: 0,
            known: Known::No,
            spent: 0,
            held: 0,
            left: 0,
            unwritten: 0,
            used: 0,
            warm: false,
        }
    }

    /// Begins to bring it into the processor's cache.
    pub(super) fn prefetch(&self) {
        prefetch_index(from_ref(&self.hour), 0);
        prefetch_index(from_ref(&self.series), 0);
    }

    pub(super) fn balance(&self) -> Balance {
        Balance {
            account: self.seldom.account.clone(),
            budget: self.budget,
            spent: Money(self.spent),
            held: Money(self.held),
            left: Money(self.room()),
            resets: resets(&self.budget, self.hour),
        }
    }

    /// Whether so much is spent that it is to be told, for the first time in this window.
    pub(super) fn warns(&mut self) -> bool {
        let Some(part) = self.budget.warn.filter(|_| self.in_force && !self.warned) else {
            return false;
        };
        let from = u128::from(self.budget.limit.0) * u128::from(part);
        self.warned = u128::from(self.spent) * 1_000_000 >= from;
        self.warned
    }

    /// What may still be held.
    pub(super) fn room(&self) -> u64 {
        let taken = self.spent.saturating_add(self.held);
        self.budget.limit.0.saturating_sub(taken)
    }

    /// What is in no block.
    fn free(&self) -> u64 {
        self.room()
            .saturating_sub(self.left)
            .saturating_sub(self.seldom.pending)
    }

    /// The block to ask for, so that all who wait can go on; nothing if what was asked for already is enough.
    pub(super) fn block(&self) -> u64 {
        let there = self.left.saturating_add(self.seldom.pending);
        let lacking = self.seldom.wanted.saturating_sub(there);
        if lacking == 0 {
            return 0;
        }
        share(self.free(), lacking, self.seldom.last)
    }

    /// Moves on to the window in which an hour lies, never back. What was left in the old one's block is to be given
    /// back.
    pub(super) fn turn_to(&mut self, hour: i64) -> Option<Cut> {
        if hour == self.hour {
            return None;
        }
        self.hour = hour;
        let start = self.budget.per.start(hour);
        if start <= self.start {
            return None;
        }
        // All that is spent passes through here, so that nothing was spent yet in a window that begins.
        if self.known == Known::Asked {
            self.known = Known::No;
        }
        self.turn = self.turn.wrapping_add(1);
        self.held = 0;
        self.spent = 0;
        self.begin(start)
    }

    /// Takes a new budget. What was spent is kept; if the period is another, it has to be read anew.
    pub(super) fn rebudget(&mut self, budget: Budget, hour: i64) -> Option<Cut> {
        let old = std::mem::replace(&mut self.budget, budget);
        if old.per == budget.per {
            return None;
        }
        // What is held stays held, also for holds of before: they may still count in the new window.
        self.known = Known::No;
        self.spent = 0;
        self.hour = hour;
        self.begin(budget.per.start(hour))
    }

    fn begin(&mut self, start: i64) -> Option<Cut> {
        let back = self.give_back();
        self.start = start;
        self.series = self.series.wrapping_add(1);
        self.seldom.pending = 0;
        self.warned = false;
        back
    }

    /// Whether there is something that the store should know of before long.
    pub(super) fn has_to_give(&self) -> bool {
        self.left > 0 || self.unwritten > 0
    }

    /// Empties the block. The next one begins small again.
    pub(super) fn give_back(&mut self) -> Option<Cut> {
        self.seldom.last = 0;
        let spent = std::mem::take(&mut self.unwritten);
        let amount = std::mem::take(&mut self.left).saturating_add(spent);
        let cut = Cut::of(&self.seldom.account, self.start, amount);
        cut.map(|cut| Cut { spent, ..cut })
    }

    /// Gives back what is more than 1 % of what is free.
    pub(super) fn trim(&mut self) -> Option<Cut> {
        let rest = self.left.saturating_sub(self.room() / 100);
        self.left -= rest;
        Cut::of(&self.seldom.account, self.start, rest)
    }

    /// Takes an amount from the block. The caller has seen that it is there, and has at hand whose it is.
    pub(super) fn take(&mut self, Want { account, amount }: Want<'_>) -> Part {
        self.left = self.left.saturating_sub(amount);
        self.held = self.held.saturating_add(amount);
        Part {
            account: account.clone(),
            turn: self.turn,
            series: self.series,
            start: self.start,
            held: amount,
            used: 0,
        }
    }

    /// Whether a part is of this window and period, so that it can be raised and given back here.
    pub(super) fn is_mine(&self, part: &Part) -> bool {
        part.series == self.series
    }

    /// Gives back what a part holds beyond an amount.
    pub(super) fn shrink(&mut self, part: &mut Part, to: u64) {
        let rest = part.held.saturating_sub(to);
        if rest > 0 && self.is_mine(part) {
            self.held = self.held.saturating_sub(rest);
            self.left = self.left.saturating_add(rest);
            part.held = to;
        }
    }

    /// Ends a part, of which so much was spent in that hour. What the store is to lower for it, if anything.
    pub(super) fn settle(&mut self, part: &Part, cost: u64, hour: i64) -> Option<Cut> {
        if part.account.scope.is_of_requests() {
            return self.count_off(part);
        }
        let amount = if self.is_mine(part) {
            let more = cost.saturating_sub(part.held);
            let from_block = more.min(self.left);
            self.held = self.held.saturating_sub(part.held);
            self.left = self.left.saturating_add(part.held.saturating_sub(cost)) - from_block;
            self.spent = self.spent.saturating_add(cost);
            // What was billed beyond all blocks was never drawn.
            cost - (more - from_block)
        } else {
            if part.turn == self.turn {
                self.held = self.held.saturating_sub(part.held);
            }
            self.count(cost, hour);
            part.held
        };
        Cut::of(&part.account, part.start, amount)
    }

    /// Ends a part of requests. What the store is to lower for it, if its window is over.
    fn count_off(&mut self, part: &Part) -> Option<Cut> {
        if self.is_mine(part) {
            self.held = self.held.saturating_sub(part.held);
            self.left = self
                .left
                .saturating_add(part.held.saturating_sub(part.used));
            self.spent = self.spent.saturating_add(part.used);
            self.unwritten = self.unwritten.saturating_add(part.used);
            return None;
        }
        if part.turn == self.turn {
            self.held = self.held.saturating_sub(part.held);
        }
        let cut = Cut::of(&part.account, part.start, part.held);
        cut.map(|cut| Cut {
            spent: part.used,
            ..cut
        })
    }

    /// Counts what was spent without a part.
    pub(super) fn count(&mut self, cost: u64, hour: i64) {
        if hour >= self.start && self.known != Known::No {
            self.spent = self.spent.saturating_add(cost);
        }
    }
}

/// A first block is so many times what is lacking. That is what a request holds, which as a rule is several times what it
/// costs; so this is enough for some dozens.
const FIRST: u64 = 8;

/// The block for someone who lacks an amount and whose last block was this. Each is twice as large as the last, so that who
/// spends much seldom waits for one; and at most 1 % of what is free, so that many crashes never empty a budget. But it is
/// never less than what is lacking, if there is so much.
pub(super) fn share(free: u64, lacking: u64, last: u64) -> u64 {
    let grown = last.saturating_mul(2);
    let grown = grown.max(lacking.saturating_mul(FIRST));
    free.min(lacking.max(grown.min(free / 100)))
}

/// The end of the window in which an hour lies.
pub(super) fn resets(budget: &Budget, hour: i64) -> Option<std::time::SystemTime> {
    budget.per.end(hour).map(window::moment_of)
}
