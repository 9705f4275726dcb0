//! What was spent? Budgets that cannot be overspent, and a ledger that survives a crash.
//!
//! There are two layers. In memory one short lock stands over all accounts: a [`Hold`] sets money aside before a request
//! is sent, from every account that is concerned or from none, and gives back what was not spent. On disk a thread of its
//! own writes what was spent, in groups. While the process lives memory decides; the disk only has to be at least as
//! pessimistic: an account takes blocks of its budget there before it holds anything from them, so that after a crash
//! whatever was held counts as spent.
//!
//! For each account and window: drawn on disk >= held + spent and not yet written + left of the blocks.
//!
//! What was settled stands in a tail beside the file before anybody is told, and in the file a moment later.

mod bell;
mod book;
mod chunk;
mod due;
mod hold;
mod inner;
mod item;
mod keep;
mod line;
mod made;
mod makers;
mod open;
mod recent;
mod refused;
mod report;
pub mod rows;
mod state;
mod store;
mod sums;
mod tail;
mod twin;
mod watch;
mod window;
mod writer;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use smol_str::SmolStr;

use crate::usage::{Money, Usage};
use book::Book;
pub use hold::{Hold, Settling};
use inner::Inner;
pub use made::{KeyDigest, KeyError, Keys, MadeKey};
pub use makers::Maker;
use makers::Makers;
pub use open::OpenError;
pub use recent::{Recent, recent};
pub use refused::Refused;
pub use report::{By, Report, ReportError, Row, backup};
use state::{State, Stop};
use tail::Safe;
pub use twin::Twin;
pub use window::Per;

/// Whose money it is; or whose requests, which are counted by the day as money is by its windows: they are held, drawn in
/// blocks, and survive a crash in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One caller's.
    Key,
    /// That of several callers.
    Team,
    /// What one provider bills.
    Provider,
    /// All of it.
    Total,
    /// One caller's requests.
    KeyRequests,
    /// Those of several callers.
    TeamRequests,
    /// Those to one model of one provider.
    TargetRequests,
}

impl Scope {
    /// All scopes, in the order of their numbers in the file.
    pub const ALL: [Self; 7] = [
        Self::Key,
        Self::Team,
        Self::Provider,
        Self::Total,
        Self::KeyRequests,
        Self::TeamRequests,
        Self::TargetRequests,
    ];

    /// The name that labels and columns have.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Provider => "provider",
            Self::Total => "total",
            Self::KeyRequests => "key requests",
            Self::TeamRequests => "team requests",
            Self::TargetRequests => "target requests",
        }
    }

    /// Whether it is requests that are counted, and no money.
    pub fn is_of_requests(self) -> bool {
        matches!(
            self,
            Self::KeyRequests | Self::TeamRequests | Self::TargetRequests
        )
    }
}

/// How much may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At most, in one window. Of requests: their number.
    pub limit: Money,
    /// How often it starts anew.
    pub per: Per,
    /// When to warn, in millionths of the limit.
    pub warn: Option<u32>,
}

/// Where the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, which is made if there is none.
    File(PathBuf),
    /// Nowhere: it ends with the process.
    Memory,
}

/// What a settled request survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however it comes.
    Process,
    /// A power cut, too.
    Power,
}

/// How the ledger is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where.
    pub store: Place,
    /// What a settled request survives.
    pub durability: Durability,
    /// How long the end of an answer may wait for its entry; also how long a hold waits for the store.
    pub settle_wait: Duration,
    /// How long entries are kept one by one.
    pub keep: Duration,
    /// How many holds there may be.
    pub seats: usize,
    /// How many settled requests and messages may wait for the file before no more holds are made.
    pub backlog: usize,
}

/// The name of the one account of [`Scope::Total`].
const TOTAL: &str = "total";

/// A budget that requests share. What it holds and what was spent is known to the ledger that made it. It is small, and what
/// needs it has it by value: with many accounts, each look at another place in memory costs more than to copy it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its number among those of this ledger.
    id: usize,
    scope: Scope,
    name: SmolStr,
}

impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Account {
    /// Whose it is.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Its owner's name.
    pub fn name(&self) -> &SmolStr {
        &self.name
    }
}

/// One try that is billed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The request's id.
    pub request: Arc<str>,
    /// Which of the request's tries it is, from 1.
    pub attempt: u32,
    /// When the hold was made. The ledger sets it when the hold is settled: it decides in which window the entry counts.
    pub at: SystemTime,
    /// What was called.
    pub api: Cow<'static, str>,
    /// Who asked.
    pub key: SmolStr,
    /// Their team.
    pub team: Option<Arc<str>>,
    /// What was asked for.
    pub model: Arc<str>,
    /// Where it went: `provider/model`.
    pub target: Arc<str>,
    /// Who bills it.
    pub provider: Arc<str>,
    /// The tokens, if they are known.
    pub usage: Option<Usage>,
    /// What it costs. None: there is no price.
    pub cost: Option<Money>,
    /// Whether tokens or cost are a guess of ours.
    pub estimated: bool,
    /// How the try ended.
    pub end: Cow<'static, str>,
    /// The version of the price.
    pub prices: Arc<str>,
    /// For whom the caller asked, as it says.
    pub user: Option<Arc<str>>,
    /// To what it is charged further, as the caller says.
    pub tag: Option<Arc<str>>,
    /// By which id its provider keeps the response, if it is one.
    pub response_id: Option<Arc<str>>,
}

impl Entry {
    /// The accounts that pay for it, whether or not they have a budget.
    fn payers(&self) -> impl Iterator<Item = (Scope, &str)> {
        [
            Some((Scope::Key, &*self.key)),
            self.team.as_deref().map(|team| (Scope::Team, team)),
            Some((Scope::Provider, &*self.provider)),
            Some((Scope::Total, TOTAL)),
        ]
        .into_iter()
        .flatten()
    }

    fn is_paid_by(&self, account: &Account) -> bool {
        self.payers()
            .any(|payer| payer == (account.scope, &*account.name))
    }
}

/// What the ledger looks like from outside, for gauges.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// How many settled requests and messages wait to be written.
    pub queue: usize,
    /// How many seats are taken.
    pub seated: usize,
    /// How many ends of answers did not wait for their entry, since the start.
    pub late: u64,
    /// Whether nothing can be written at the moment.
    pub unavailable: bool,
    /// How many entries were written since the start.
    pub written: u64,
    /// In how many groups, other messages included.
    pub groups: u64,
    /// The first thousand budgets in force, as soon as it is known what was spent: that of all, then providers', teams'
    /// and keys'.
    pub accounts: Vec<Balance>,
}

/// One account's balance in the window that it is in.
#[derive(Clone, Debug)]
pub struct Balance {
    /// Whose.
    pub account: Account,
    /// Its budget.
    pub budget: Budget,
    /// What was spent.
    pub spent: Money,
    /// What is set aside.
    pub held: Money,
    /// The limit without both.
    pub left: Money,
    /// When the window ends; none if it never does.
    pub resets: Option<SystemTime>,
}

/// The ledger. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<House>);

/// What ends when the last clone is dropped.
#[derive(Debug)]
struct House {
    place: Place,
    keys: Keys,
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.inner.stop(Stop::Written);
    }
}

/// In hours: a clock that was further ahead than this was wrong.
const DAY: i64 = 24;

/// How long [`Ledger::close`] waits for the store.
const CLOSING: Duration = Duration::from_secs(5);

impl Ledger {
    /// Opens the store, which is made or brought to this version if need be, and starts the thread that writes. What a
    /// crash left counts as spent. Waits up to 5 seconds for another gateway to leave the file.
    pub fn open(settings: &Settings, now: SystemTime) -> Result<Self, OpenError> {
        let hour = window::hour_of(now);
        let (store, safe) = store::Store::open(settings, hour)?;
        let keys = Keys::open(&settings.store)?;
        if store.hour > hour + DAY {
            tracing::warn!(
                "the ledger has seen a clock at {}; until then no budget starts anew; if the clock is right now, do what is \
                 said of \"A clock that was wrong\" in docs/budgets.md",
                refused::date(window::moment_of(store.hour))
            );
        }
        let state = State::new(settings, store.hour, store.number);
        let makers = store.makers().map_err(|why| store.says(why))?;
        let inner = Arc::new(Inner::new(settings, state, safe, makers));
        let threads = Mutex::new(writer::start(&inner, store)?);
        let place = settings.store.clone();
        Ok(Self(Arc::new(House {
            place,
            keys,
            inner,
            threads,
        })))
    }

    /// One that nothing is held in and nothing is written to: for those who only ask what a configuration means.
    pub fn unopened() -> Self {
        let settings = Settings {
            store: Place::Memory,
            durability: Durability::Process,
            settle_wait: Duration::ZERO,
            keep: Duration::ZERO,
            seats: 0,
            backlog: 0,
        };
        let state = State::new(&settings, 0, 0);
        let inner = Inner::new(&settings, state, Safe::Never, Makers::default());
        inner.stop(Stop::Now);
        Self(Arc::new(House {
            place: settings.store,
            keys: Keys::default(),
            inner: Arc::new(inner),
            threads: Mutex::default(),
        }))
    }

    /// The keys that were made.
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Where it is kept.
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// The account of this name, the same one whenever it is asked for. A new one has no budget until [`Self::enforce`]
    /// gives it one. There is one account of [`Scope::Total`], whatever the name.
    pub fn account(&self, scope: Scope, name: &str) -> Account {
        let name = if scope == Scope::Total { TOTAL } else { name };
        self.0.inner.with(|state| state.account(scope, name))
    }

    /// Puts these budgets in force, and no others. What was spent stays spent when a limit changes, and is counted anew when
    /// a period does.
    pub fn enforce(&self, budgets: &[(Account, Budget)]) {
        self.0.inner.with(|state| state.enforce(budgets));
    }

    /// Puts these budgets in force, beside those that are.
    pub fn allow(&self, budgets: &[(Account, Budget)]) {
        self.0.inner.with(|state| state.allow(budgets));
    }

    /// Something is set aside from these accounts soon: memory may begin to bring what is known of them. With many accounts
    /// that takes longer than all that is done to it.
    pub fn prefetch(&self, accounts: &[Account]) {
        let state = self.0.inner.lock();
        let books = accounts.iter().filter_map(|it| state.books.get(it.id));
        books.for_each(Book::prefetch);
    }

    /// Sets an amount aside from each account, or from none; of those of requests it is one request. Without accounts it
    /// still takes a seat. Waits for the store when a block has run out, at most `settle_wait`. Dropping the future gives everything back. What is held comes in a
    /// box, for it goes from hand to hand.
    pub async fn hold(
        &self,
        accounts: &[Account],
        amount: Money,
        now: SystemTime,
    ) -> Result<Box<Hold>, Refused> {
        Hold::make(&self.0.inner, accounts, amount, now).await
    }

    /// Who made a response, if it is known: of the last hundred thousand it is.
    pub fn maker(&self, response_id: &str) -> Option<Maker> {
        self.0.inner.makers().get(response_id)
    }

    /// How an account stands. None before it was first read: of many budgets that is when they are first spent from, else
    /// at once.
    pub fn balance(&self, account: &Account, now: SystemTime) -> Option<Balance> {
        self.0.inner.with(|state| state.balance(account, now))
    }

    /// What it looks like from outside.
    pub fn observe(&self) -> Observed {
        let inner = &self.0.inner;
        let mut seen = inner.with(|state| state.observe());
        seen.late = inner.late();
        // A few at a time: whoever holds something meanwhile waits for the lock.
        let mut next = Some(0);
        while let Some(from) = next {
            next = inner.with(|state| state.see(from, &mut seen.accounts));
        }
        seen
    }

    /// To be called about every 250 ms: accounts that were not used for a while give their blocks back. Tells of budgets of
    /// which as much is spent as they want to be warned of, once in each window.
    pub fn tick(&self, now: SystemTime) -> Vec<Balance> {
        self.0.inner.with(|state| state.tick(now))
    }

    /// Gives the blocks back, writes everything and ends the thread. Blocks for at most 5 seconds; what cannot be written
    /// by then counts as spent at the next start. False if so. Holds are refused from now on.
    pub fn close(&self) -> bool {
        self.0.keys.close();
        self.0.inner.stop(Stop::Clean);
        let done = self.0.inner.wait_until_stopped(CLOSING);
        if !done {
            self.0.inner.stop(Stop::Now);
        }
        let threads = self.0.threads.lock();
        let threads = std::mem::take(&mut *threads.unwrap_or_else(PoisonError::into_inner));
        for thread in threads.into_iter().filter(|_| done) {
            let _ = thread.join();
        }
        done
    }

    /// The limit without what was spent and is held.
    #[cfg(test)]
    fn left(&self, account: &Account, now: SystemTime) -> Option<Money> {
        self.balance(account, now).map(|balance| balance.left)
    }

    /// The account of this name, with this budget from now on.
    #[cfg(test)]
    fn given(&self, scope: Scope, name: &str, budget: Budget) -> Account {
        let account = self.account(scope, name);
        self.enforce(&[(account.clone(), budget)]);
        account
    }

    /// Ends the thread as a crash would: nothing more is written.
    #[cfg(test)]
    fn crash(&self) {
        if let Some(tail) = self.0.inner.safe.tail() {
            tail.refuse();
        }
        self.0.inner.stop(Stop::Now);
        for thread in std::mem::take(&mut *self.0.threads.lock().unwrap()) {
            thread.join().unwrap();
        }
    }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod days;
#[cfg(test)]
mod dues;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod marks;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trials;
