//! Who may take what, now? All accounts under one lock, and the queue of what the store has yet to learn.
//!
//! The lock is held for a few steps at a time, never across an `await` or a write. What is queued is queued under it, so
//! that the store hears of things in the order in which they happened here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use hugealloc::HugeAlloc;
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::sync::Notify;

use super::book::{Book, Books, Cut, Known, Part};
use super::item::{Amount, Chores, Draw, Granted, Item, Settled};
use super::window::hour_of;
use super::{Account, Balance, Budget, Entry, Observed, Refused, Scope, Settings};
use crate::usage::Money;

/// How the thread that writes is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Not at all.
    No,
    /// Once all is written.
    Written,
    /// Once all is given back and written: a clean end.
    Clean,
    /// At once.
    Now,
    /// It has ended.
    Done,
}

/// An amount that someone wants to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want<'a> {
    pub(super) account: &'a Account,
    pub(super) amount: u64,
}

/// As a rule those of a key and of a provider, or of one of them.
pub(super) type Parts = SmallVec<[Part; 2]>;
/// What someone who waits has said that they need, by account.
pub(super) type Said = SmallVec<[(usize, u64); 4]>;

/// What came of a try to hold.
pub(super) enum Taken {
    All,
    /// The store was asked; this account's bell will ring.
    Wait(usize),
    Not(Refused),
}

/// Whether the file is far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Yes,
    No,
}

/// After so many ticks without use an account gives its block back: an hour, and in tests less. To draw one anew costs a write
/// that a request waits for, and who comes seldom has a small one.
pub(super) const IDLE: u64 = if cfg!(test) { 480 } else { 14_400 };

/// After so many it gives back what is more than a block may be, for so many were under way at once: a minute.
pub(super) const REST: u64 = 240;

/// After so many ticks it is looked for what is too old to be kept.
const SWEEP: u64 = 240;

/// After so many ticks what is due is brought into the sums, however little it is: five minutes.
pub(super) const SUM: u64 = 1_200;

#[derive(Debug)]
pub(super) struct State {
    pub(super) books: Books,
    index: [HashMap<SmolStr, usize>; Scope::ALL.len()],
    /// Accounts that are looked at from outside.
    pub(super) watched: Vec<usize>,
    /// Accounts that may have something to give back, and the ticks at which each is looked at, in this order.
    warm: VecDeque<(u64, usize)>,
    seats: usize,
    pub(super) seated: usize,
    backlog: usize,
    /// The latest hour seen: what comes earlier is taken for it, so that a clock that jumps back opens nothing.
    pub(super) hour: i64,
    ticks: u64,
    pub(super) queue: VecDeque<Item>,
    /// How much of what was queued is being written.
    pub(super) writing: usize,
    /// The number of what was settled last.
    pub(super) number: u64,
    /// What was settled and written, to be used again.
    pub(super) used: Vec<Arc<Settled>>,
    /// From how many items on the thread that writes is to be woken; none while it is awake.
    pub(super) wakes_at: Option<usize>,
    /// Whether someone waits for the store.
    pub(super) hurry: bool,
    pub(super) unavailable: bool,
    pub(super) stop: Stop,
    pub(super) written: u64,
    /// How many groups were written.
    pub(super) groups: u64,
    pub(super) chores: Chores,
    /// Budgets of which much is spent, not told of yet: at most one for each and its window.
    warnings: Vec<Balance>,
    /// Said to the connection before the next group.
    #[cfg(test)]
    pub(super) pragma: Option<&'static str>,
}

impl State {
    pub(super) fn new(settings: &Settings, hour: i64, number: u64) -> Self {
        Self {
            books: Books::new_in(HugeAlloc),
            index: Default::default(),
            watched: Vec::new(),
            warm: VecDeque::new(),
            seats: settings.seats,
            seated: 0,
            backlog: settings.backlog,
            hour,
            ticks: 0,
            queue: VecDeque::new(),
            writing: 0,
            number,
            used: Vec::new(),
            wakes_at: None,
            hurry: false,
            unavailable: false,
            stop: Stop::No,
            written: 0,
            groups: 0,
            chores: Chores {
                sweep: true,
                ..Chores::NONE
            },
            warnings: Vec::new(),
            #[cfg(test)]
            pragma: None,
        }
    }

    /// Puts budgets in force, and no others. Requests under way may still spend from an account that has none any more, by
    /// the one it had.
    pub(super) fn enforce(&mut self, budgets: &[(Account, Budget)]) {
        for book in &mut self.books {
            book.in_force = false;
        }
        for (account, budget) in budgets {
            self.put(account, *budget);
        }
        self.watch();
    }

    /// Puts budgets in force, beside those that are.
    pub(super) fn allow(&mut self, budgets: &[(Account, Budget)]) {
        for (account, budget) in budgets {
            let is_new = self.books.get(account.id).is_some_and(|it| !it.in_force);
            self.put(account, *budget);
            if is_new {
                self.watch_also(account);
            }
        }
    }

    fn put(&mut self, account: &Account, budget: Budget) {
        let hour = self.hour;
        if let Some(book) = self.books.get_mut(account.id) {
            book.in_force = true;
            let backs = [book.turn_to(hour), book.rebudget(budget, hour)];
            let backs = backs.into_iter().flatten();
            self.queue.extend(backs.map(Item::Back));
        }
    }

    pub(super) fn account(&mut self, scope: Scope, name: &str) -> Account {
        let hour = self.hour;
        let known = self.id(scope, name).and_then(|id| self.books.get(id));
        if let Some(book) = known {
            return book.seldom.account.clone();
        }
        let id = self.books.len();
        let account = Account {
            id,
            scope,
            name: name.into(),
        };
        if let Some(index) = self.index.get_mut(scope as usize) {
            index.insert(account.name.clone(), id);
        }
        self.books.push(Book::new(account.clone(), hour));
        account
    }

    fn id(&self, scope: Scope, name: &str) -> Option<usize> {
        let index = self.index.get(scope as usize)?;
        if index.is_empty() {
            return None;
        }
        index.get(name).copied()
    }

    /// The latest hour seen, this one included.
    pub(super) fn reach(&mut self, now: SystemTime) -> i64 {
        self.hour = self.hour.max(hour_of(now));
        self.hour
    }

    /// The account's book, in the window of an hour.
    pub(super) fn book(&mut self, id: usize, hour: i64) -> Option<&mut Book> {
        let book = self.books.get_mut(id)?;
        let back = book.turn_to(hour);
        self.queue.extend(back.map(Item::Back));
        Some(book)
    }

    /// How much is not in the file yet.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.writing
    }

    /// Whether the file is so far behind that who settles should wait for it: then there is room again before there is
    /// none.
    pub(super) fn is_behind(&self) -> Behind {
        // While nothing can be written it would be waited for in vain.
        if self.waiting() > self.backlog / 2 && !self.unavailable {
            Behind::Yes
        } else {
            Behind::No
        }
    }

    /// Takes a seat.
    pub(super) fn sit(&mut self) -> Result<(), Refused> {
        if self.stop != Stop::No {
            return Err(Refused::Unavailable);
        }
        if self.waiting() >= self.backlog {
            return Err(Refused::Unavailable);
        }
        if self.seated >= self.seats {
            return Err(Refused::Full);
        }
        self.seated += 1;
        Ok(())
    }

    /// Takes all that is wanted and adds it to `parts`, or nothing. If blocks are missing they are asked for, and `said`
    /// tells what for.
    pub(super) fn take(
        &mut self,
        wants: &[Want<'_>],
        hour: i64,
        parts: &mut Parts,
        said: &mut Said,
    ) -> Taken {
        if wants.is_empty() {
            return Taken::All;
        }
        if self.unavailable || self.stop != Stop::No {
            return Taken::Not(Refused::Unavailable);
        }
        let mut lacks = None;
        let mut short: Option<(u64, Refused)> = None;
        for want in wants {
            let Some(book) = self.book(want.account.id, hour) else {
                continue;
            };
            if book.known != Known::Yes {
                lacks = lacks.or(Some(want.account));
                continue;
            }
            let room = book.room();
            if want.amount > room {
                let by = want.amount - room;
                if short.as_ref().is_none_or(|(most, _)| by > *most) {
                    short = Some((by, Refused::of(book, hour)));
                }
            } else if want.amount > book.left {
                lacks = lacks.or(Some(want.account));
            }
        }
        if let Some((_, refused)) = short {
            return Taken::Not(refused);
        }
        if let Some(account) = lacks {
            self.ask(wants, hour, said);
            return Taken::Wait(account.id);
        }
        let now = self.ticks;
        for want in wants {
            if let Some(book) = self.books.get_mut(want.account.id) {
                book.used = now;
                parts.push(book.take(*want));
            }
        }
        Taken::All
    }

    /// Asks the store for the blocks that are missing.
    fn ask(&mut self, wants: &[Want<'_>], hour: i64, said: &mut Said) {
        for want in wants {
            let Some(book) = self.books.get_mut(want.account.id) else {
                continue;
            };
            if book.known == Known::Yes && book.left >= want.amount {
                continue;
            }
            book.seldom.wanted = book.seldom.wanted.saturating_add(want.amount);
            said.push((want.account.id, want.amount));
            let amount = match book.known {
                Known::Asked => continue,
                Known::No => {
                    book.known = Known::Asked;
                    book.spent = 0;
                    Amount::Read {
                        most: book.budget.limit.0.saturating_sub(book.held),
                        wanted: book.seldom.wanted,
                    }
                }
                Known::Yes => {
                    let block = book.block();
                    if block == 0 {
                        continue;
                    }
                    book.seldom.pending = book.seldom.pending.saturating_add(block);
                    Amount::Exactly(block)
                }
            };
            let draw = Draw::of(book, hour, amount);
            self.queue.push_back(Item::Draw(draw));
            self.hurry = true;
        }
    }

    /// Takes back what was said.
    pub(super) fn unsay(&mut self, said: &mut Said) {
        for (id, amount) in said.drain(..) {
            if let Some(book) = self.books.get_mut(id) {
                book.seldom.wanted = book.seldom.wanted.saturating_sub(amount);
            }
        }
    }

    /// The store has written a draw.
    pub(super) fn granted(&mut self, draw: &Draw, granted: Granted) {
        let Some(book) = self.books.get_mut(draw.account.id) else {
            return;
        };
        if book.series != draw.series {
            let back = Cut::of(&draw.account, draw.start, granted.block);
            self.queue.extend(back.map(Item::Back));
            return;
        }
        match granted.spent {
            Some(spent) => {
                book.known = Known::Yes;
                book.spent = book.spent.saturating_add(spent);
            }
            None => book.seldom.pending = book.seldom.pending.saturating_sub(granted.block),
        }
        book.seldom.last = granted.block;
        book.left = book.left.saturating_add(granted.block);
        book.used = self.ticks;
        self.warm_up(draw.account.id);
    }

    /// The store has answered, or cannot: whoever waits for that looks again.
    pub(super) fn ring(&self, account: &Account) {
        if let Some(book) = self.books.get(account.id) {
            book.seldom.bell.notify_waiters();
        }
    }

    /// What rings when the store has answered.
    pub(super) fn bell(&self, account: &Account) -> Option<Arc<Notify>> {
        let book = self.books.get(account.id)?;
        Some(Arc::clone(&book.seldom.bell))
    }

    /// Looks whether an account has to be told of, once something was spent from it.
    fn look_at(&mut self, id: usize) {
        if let Some(book) = self.books.get_mut(id)
            && book.warns()
        {
            self.warnings.push(book.balance());
        }
    }

    fn warm_up(&mut self, id: usize) {
        if let Some(book) = self.books.get_mut(id)
            && !book.warm
            && book.has_to_give()
        {
            book.warm = true;
            self.warm.push_back((self.ticks + REST, id));
        }
    }

    /// Whether a part is of its account's window and period in this hour.
    pub(super) fn is_mine(&mut self, part: &Part, hour: i64) -> bool {
        self.book(part.account.id, hour)
            .is_some_and(|book| book.is_mine(part))
    }

    /// Works on the book of a part: it may have more to give back afterwards.
    pub(super) fn on<R>(&mut self, id: usize, work: impl FnOnce(&mut Book) -> R) -> Option<R> {
        let done = self.books.get_mut(id).map(work);
        self.look_at(id);
        self.warm_up(id);
        done
    }

    /// Counts entries in the accounts that pay for them but of which nothing was held.
    pub(super) fn count(&mut self, entries: &[Entry], parts: &[Part], hour: i64) {
        if self.books.is_empty() {
            return;
        }
        for entry in entries {
            let Some(cost) = entry.cost.filter(|cost| *cost > Money::ZERO) else {
                continue;
            };
            for (scope, name) in entry.payers() {
                let is_held = parts
                    .iter()
                    .any(|part| part.account.scope == scope && *part.account.name == *name);
                if is_held {
                    continue;
                }
                if let Some(id) = self.id(scope, name)
                    && let Some(book) = self.book(id, hour)
                {
                    book.count(cost.0, hour);
                    self.look_at(id);
                }
            }
        }
    }

    /// Whether the thread that writes rests and should not any longer.
    pub(super) fn is_to_wake(&self) -> bool {
        self.wakes_at.is_some_and(|most| {
            self.queue.len() >= most
                || self.hurry
                || self.stop != Stop::No
                || (self.chores != Chores::NONE && self.queue.is_empty() && most == 1)
        })
    }

    pub(super) fn balance(&mut self, account: &Account, now: SystemTime) -> Option<Balance> {
        let hour = self.reach(now);
        let book = self.book(account.id, hour)?;
        (book.known == Known::Yes).then(|| book.balance())
    }

    pub(super) fn observe(&self) -> Observed {
        Observed {
            queue: self.waiting(),
            seated: self.seated,
            late: 0,
            unavailable: self.unavailable,
            written: self.written,
            groups: self.groups,
            accounts: Vec::new(),
        }
    }

    pub(super) fn tick(&mut self, now: SystemTime) -> Vec<Balance> {
        let hour = self.reach(now);
        self.ticks += 1;
        self.chores.sweep |= self.ticks.is_multiple_of(SWEEP);
        self.chores.sum |= self.ticks.is_multiple_of(SUM);
        let now = self.ticks;
        // However many there are, each is looked at once in this time.
        while let Some((_, id)) = self.warm.pop_front_if(|(due, _)| *due <= now) {
            let Some(book) = self.book(id, hour) else {
                continue;
            };
            let back = match now.saturating_sub(book.used) {
                IDLE.. => book.give_back(),
                REST.. => book.trim(),
                _ => None,
            };
            book.warm = false;
            self.queue.extend(back.map(Item::Back));
            self.warm_up(id);
        }
        std::mem::take(&mut self.warnings)
    }

    /// Every block is given back.
    pub(super) fn give_all_back(&mut self) {
        let backs = self.books.iter_mut().filter_map(Book::give_back);
        self.queue.extend(backs.map(Item::Back));
    }
}
