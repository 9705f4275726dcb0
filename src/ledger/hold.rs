//! What is set aside for one request, from before it is sent until it is entered. Whatever ends it settles it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use smallvec::SmallVec;
use tokio::time::{Sleep, sleep, timeout};

use super::book::{Book, Part};
use super::inner::Inner;
use super::item::{Item, Settled};
use super::state::{Behind, Parts, Said, State, Taken, Want};
use super::tail::{Batch, Safe};
use super::twin::Twin;
use super::window::moment_of;
use super::{Account, Entry, Refused, Scope, line};
use crate::usage::Money;

/// Money set aside for one request, and a seat in the ledger's queue. Dropping it settles it.
#[derive(Debug)]
pub struct Hold {
    inner: Arc<Inner>,
    amount: u64,
    parts: Parts,
    hour: i64,
    at: SystemTime,
    /// What will be entered: the tries that were billed, and behind them the one under way, if there is one. It is where
    /// it will be queued from the beginning, for it is long. Shared once it is settled.
    ending: Arc<Settled>,
    is_under_way: bool,
    is_settled: bool,
}

/// Takes back what was said, when a hold no longer waits.
struct Waiting {
    inner: Arc<Inner>,
    said: Said,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.said.is_empty() {
            let said = &mut self.said;
            self.inner.with(|state| state.unsay(said));
        }
    }
}

/// How much is to be held of each account, all together.
type Needs<'a> = SmallVec<[Want<'a>; 4]>;

impl Hold {
    pub(super) async fn make(
        inner: &Arc<Inner>,
        accounts: &[Account],
        amount: Money,
        now: SystemTime,
    ) -> Result<Box<Self>, Refused> {
        let (hour, used) = inner.with(|state| {
            let hour = state.reach(now);
            state.sit().map(|()| (hour, state.used.pop()))
        })?;
        // From here on the seat is given back by `Drop`.
        let mut hold = Box::new(Self {
            inner: Arc::clone(inner),
            amount: amount.0,
            parts: Parts::new(),
            hour,
            at: moment_of(hour).max(now),
            ending: Settled::anew(used),
            is_under_way: false,
            is_settled: false,
        });
        let mut needs = Needs::new();
        for account in accounts {
            if !needs.iter().any(|need| need.account == account) {
                let amount = match account.scope.is_of_requests() {
                    true => 1,
                    false => amount.0,
                };
                needs.push(Want { account, amount });
            }
        }
        hold.acquire(&needs, now).await?;
        Ok(hold)
    }

    /// Holds as much as is needed of each account, or nothing more than before. Waits for the store if it must; what it
    /// would take is not held meanwhile.
    async fn acquire(&mut self, needs: &[Want<'_>], now: SystemTime) -> Result<(), Refused> {
        let lacks = |need: &Want<'_>| {
            let part = self.part(need.account);
            part.is_none_or(|part| part.held < need.amount)
        };
        if !needs.iter().any(lacks) {
            return Ok(());
        }
        let inner = Arc::clone(&self.inner);
        let mut said = Said::new();
        let taken = inner.with(|state| self.step(state, needs, now, &mut said));
        match taken {
            Taken::All => Ok(()),
            Taken::Not(refused) => Err(refused),
            // Seldom; so it is kept out of what every request carries along.
            Taken::Wait(_) => Box::pin(self.wait(needs, now, Waiting { inner, said })).await,
        }
    }

    /// What is held of an account.
    fn part(&self, account: &Account) -> Option<&Part> {
        let mut parts = self.parts.iter();
        parts.find(|part| part.account == *account)
    }

    /// Waits for blocks that the store was asked for, and takes what it needs as soon as it is there.
    async fn wait(
        &mut self,
        needs: &[Want<'_>],
        now: SystemTime,
        mut waiting: Waiting,
    ) -> Result<(), Refused> {
        let inner = Arc::clone(&waiting.inner);
        let bell = |state: &State, account: &Account| Some((account.id, state.bell(account)?));
        let bells: SmallVec<[_; 4]> = inner.with(|state| {
            needs
                .iter()
                .filter_map(|it| bell(state, it.account))
                .collect()
        });
        loop {
            let said = &mut waiting.said;
            // Heard from here on: whoever rings needs the lock that is taken below.
            let heard: SmallVec<[_; 4]> = bells
                .iter()
                .map(|(id, bell)| (*id, bell.notified()))
                .collect();
            let taken = inner.with(|state| {
                state.unsay(said);
                self.step(state, needs, now, said)
            });
            let id = match taken {
                Taken::All => return Ok(()),
                Taken::Not(refused) => return Err(refused),
                Taken::Wait(id) => id,
            };
            let Some((_, bell)) = heard.into_iter().find(|(it, _)| *it == id) else {
                return Err(Refused::Unavailable);
            };
            let rung = timeout(inner.settle_wait, bell).await;
            rung.map_err(|_| Refused::Unavailable)?;
        }
    }

    fn step(
        &mut self,
        state: &mut State,
        needs: &[Want<'_>],
        now: SystemTime,
        said: &mut Said,
    ) -> Taken {
        let hour = state.reach(now);
        let mut wants: SmallVec<[Want<'_>; 4]> = SmallVec::new();
        for need in needs {
            let part = self.part(need.account);
            let held = part.map_or(0, |part| part.held);
            // A part of an older window is taken anew, in full.
            let is_mine = part.is_some_and(|part| state.is_mine(part, hour));
            let amount = match is_mine {
                true => need.amount.saturating_sub(held),
                false => need.amount,
            };
            if !is_mine || amount > 0 {
                wants.push(Want { amount, ..*need });
            }
        }
        let mut parts = Parts::new();
        let taken = state.take(&wants, hour, &mut parts, said);
        if matches!(taken, Taken::All) {
            for part in parts.drain(..) {
                self.join(state, part, hour);
            }
            self.hour = hour;
            self.at = moment_of(hour).max(now);
        }
        taken
    }

    /// Adds a part to those there are.
    fn join(&mut self, state: &mut State, part: Part, hour: i64) {
        let id = part.account.id;
        let Some(old) = self.parts.iter_mut().find(|old| old.account.id == id) else {
            self.parts.push(part);
            return;
        };
        if state.is_mine(old, hour) {
            old.held = old.held.saturating_add(part.held);
            return;
        }
        let old = std::mem::replace(old, part);
        let cut = state.on(id, |book| book.settle(&old, 0, hour)).flatten();
        state.queue.extend(cut.map(Item::Back));
    }

    /// What is set aside, without what is for a provider alone.
    pub fn held(&self) -> Money {
        Money(self.amount)
    }

    /// What another hold for the same request is made from.
    pub fn twin(&self) -> Twin {
        let is_shared = |part: &&Part| {
            let scope = part.account.scope;
            matches!(scope, Scope::Key | Scope::Team | Scope::Total)
        };
        let shared = self.parts.iter().filter(is_shared);
        Twin {
            inner: Arc::clone(&self.inner),
            accounts: shared.map(|part| part.account.clone()).collect(),
        }
    }

    /// Before a try that costs at most `bound`: sees to it that what is held covers that and what earlier tries may have
    /// cost, and that its target's accounts, the provider's and that of its requests, have room for it. What was held for
    /// other targets is given back beyond what their tries may have cost. If it has to hold more, it moves to the window of
    /// `now`, all of it. A refusal leaves the hold as it was, and so does dropping the future.
    pub async fn cover(
        &mut self,
        target: &[&Account],
        bound: Money,
        now: SystemTime,
    ) -> Result<(), Refused> {
        self.uncover(target);
        let needed = self.cost().plus(bound).max(Money(self.amount));
        // Copies: what is needed is told of them while parts change.
        let accounts: SmallVec<[Account; 4]> =
            self.parts.iter().map(|part| part.account.clone()).collect();
        let mut needs = Needs::new();
        for account in &accounts {
            let amount = match account.scope {
                Scope::Provider | Scope::TargetRequests => continue,
                Scope::KeyRequests | Scope::TeamRequests => 1,
                Scope::Key | Scope::Team | Scope::Total => needed.0,
            };
            needs.push(Want { account, amount });
        }
        for account in target {
            let more = match account.scope.is_of_requests() {
                true => 1,
                false => bound.0,
            };
            let tries = &self.ending.entries;
            let part = self.part(account);
            let used = part.map_or_else(|| paid(account, tries), |part| used(part, tries));
            let amount = used.saturating_add(more);
            needs.push(Want { account, amount });
        }
        self.acquire(&needs, now).await?;
        self.amount = needed.0;
        Ok(())
    }

    /// What all tries may have cost, the one under way included.
    pub(super) fn cost(&self) -> Money {
        let tries = self.ending.entries.iter();
        tries.filter_map(|entry| entry.cost).sum()
    }

    /// Gives back what is held for other targets beyond what their tries may have cost.
    fn uncover(&mut self, target: &[&Account]) {
        let is_other = |part: &Part| {
            let scope = part.account.scope;
            matches!(scope, Scope::Provider | Scope::TargetRequests)
                && !target.contains(&&part.account)
        };
        if !self.parts.iter().any(is_other) {
            return;
        }
        let mut parts = std::mem::take(&mut self.parts);
        self.inner.with(|state| {
            for part in parts.iter_mut().filter(|part| is_other(part)) {
                let used = used(part, &self.ending.entries);
                state.on(part.account.id, |book| book.shrink(part, used));
            }
        });
        self.parts = parts;
    }

    /// Begins a try: this is how it would be entered if all ended now. One that is under way already counts as billed. It
    /// counts as a request of its caller, if it is the first, and as one to its target.
    pub fn begin(&mut self, entry: Entry) {
        for part in &mut self.parts {
            match part.account.scope {
                Scope::KeyRequests | Scope::TeamRequests => part.used = 1,
                Scope::TargetRequests if *part.account.name == *entry.target => part.used += 1,
                _ => {}
            }
        }
        if let Some(ending) = Arc::get_mut(&mut self.ending) {
            ending.entries.push(entry);
            self.is_under_way = true;
        }
    }

    /// The entry of the try under way, to be kept up to date.
    pub fn current(&mut self) -> Option<&mut Entry> {
        let ending = Arc::get_mut(&mut self.ending)?;
        let is_under_way = self.is_under_way;
        ending.entries.last_mut().filter(|_| is_under_way)
    }

    /// The try under way was billed: its entry is kept.
    pub fn bill(&mut self) {
        self.is_under_way = false;
    }

    /// The try under way was not billed: it leaves no entry.
    pub fn waive(&mut self) {
        if std::mem::take(&mut self.is_under_way)
            && let Some(ending) = Arc::get_mut(&mut self.ending)
        {
            ending.entries.pop();
        }
    }

    /// Enters every try that was billed and the one under way, and gives back what was not spent, at once. The future
    /// ends when the entries are durable, and need not be waited for. Whatever is done with the hold later is entered no
    /// more.
    pub fn settle(&mut self) -> Settling {
        let ended = self.end();
        Settling::of(&self.inner, ended)
    }

    /// What has to be made durable, and whether the file is so far behind that it has to be waited for.
    fn end(&mut self) -> Option<(Arc<Settled>, Behind)> {
        if std::mem::replace(&mut self.is_settled, true) {
            return None;
        }
        self.bill();
        let (parts, hour) = (&mut self.parts, self.hour);
        let ending = &mut self.ending;
        if let Some(Settled { entries, text, .. }) = Arc::get_mut(ending) {
            entries.iter_mut().for_each(|entry| entry.at = self.at);
            line::list(entries, text);
            // Known before its last bytes go: whoever has them may go on from it at once.
            let responses = entries.iter().filter(|it| it.response_id.is_some());
            responses.for_each(|entry| self.inner.makers().learn(entry));
        }
        self.amount = 0;
        self.inner.with(|state| {
            state.seated = state.seated.saturating_sub(1);
            let Settled {
                number,
                entries,
                hour: counts_in,
                cuts,
                ..
            } = Arc::get_mut(ending)?;
            state.count(entries, parts, hour);
            for part in parts.drain(..) {
                let used = used(&part, entries);
                let settle = |book: &mut Book| book.settle(&part, used, hour);
                let cut = state.on(part.account.id, settle).flatten();
                // Entries tell what was spent; of requests they tell nothing.
                match part.account.scope.is_of_requests() {
                    true => state.queue.extend(cut.map(Item::Back)),
                    false => cuts.extend(cut),
                }
            }
            if entries.is_empty() {
                state.queue.extend(cuts.drain(..).map(Item::Back));
                return None;
            }
            state.number += 1;
            (*number, *counts_in) = (state.number, hour);
            state.queue.push_back(Item::Settled(Arc::clone(ending)));
            Some((Arc::clone(ending), state.is_behind()))
        })
    }
}

/// What was used of a part: requests that were made, or else what its account pays of these tries.
fn used(part: &Part, tries: &[Entry]) -> u64 {
    match part.account.scope.is_of_requests() {
        true => part.used,
        false => paid(&part.account, tries),
    }
}

/// What an account pays of these tries.
fn paid(account: &Account, tries: &[Entry]) -> u64 {
    let paid = tries.iter().filter(|it| it.is_paid_by(account));
    let cost: Money = paid.filter_map(|entry| entry.cost).sum();
    cost.0
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.settle());
    }
}

/// Ends when the entries of a settled hold are durable, or when that takes longer than `settle_wait`. Then they stay
/// queued, and it says false. Dropped before, it has them written as well.
#[derive(Debug)]
#[must_use = "the entries are on their way, but perhaps not durable yet"]
pub struct Settling {
    inner: Arc<Inner>,
    /// None: it is durable.
    settled: Option<Arc<Settled>>,
    /// The lines of the tail among which it is. None: it waits for the store.
    batch: Option<Arc<Batch>>,
    has_yielded: bool,
    clock: Option<Pin<Box<Sleep>>>,
}

impl Settling {
    /// None: there is nothing to wait for.
    fn of(inner: &Arc<Inner>, ended: Option<(Arc<Settled>, Behind)>) -> Self {
        let (settled, batch) = match (ended, &inner.safe) {
            (None, _) | (_, Safe::Never) => (None, None),
            (Some((settled, Behind::No)), Safe::Tail(tail)) => {
                let batch = tail.gather(&settled);
                (Some(settled), batch)
            }
            (Some((settled, _)), _) => (Some(settled), None),
        };
        if settled.is_some() && batch.is_none() {
            inner.with(|state| state.hurry = true);
        }
        Self {
            inner: Arc::clone(inner),
            settled,
            batch,
            has_yielded: false,
            clock: None,
        }
    }

    /// Has the lines written, if that was not done. What they did not take waits for the store.
    fn write(&mut self) {
        let (Some(batch), Some(tail)) = (self.batch.take(), self.inner.safe.tail()) else {
            return;
        };
        if tail.write(&batch) {
            self.settled = None;
        } else {
            self.inner.with(|state| state.hurry = true);
        }
    }
}

impl Future for Settling {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let this = &mut *self;
        let is_gathered = |batch: &Arc<Batch>| batch.is_written().is_none();
        if this.batch.as_ref().is_some_and(is_gathered) && !this.has_yielded {
            // Others of this thread first: what they settle now is written with this.
            this.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.write();
        let Some(settled) = &this.settled else {
            return Poll::Ready(true);
        };
        if settled.slot.poll(cx.waker()) {
            this.settled = None;
            return Poll::Ready(true);
        }
        let wait = this.inner.settle_wait;
        let clock = this.clock.get_or_insert_with(|| Box::pin(sleep(wait)));
        if clock.as_mut().poll(cx).is_ready() {
            this.inner.is_late();
            if let Some(settled) = this.settled.take() {
                settled.slot.leave();
            }
            return Poll::Ready(false);
        }
        Poll::Pending
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.write();
        if let Some(settled) = self.settled.take() {
            settled.slot.leave();
        }
    }
}
