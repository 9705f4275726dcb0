//! What do the tries of one request cost? Its hold, and the try under way as it would be entered if all ended now.
//!
//! A try begins only if the hold covers it. Not connected, or refused with a status: nothing. Sent and then lost: the input
//! at least, estimated. Once content has passed: what has passed, too. Dropped, it enters what it knows, which is the usage
//! itself if that was told.

use std::sync::Arc;
use std::time::SystemTime;

use super::Cause;
use crate::ledger::{Account, Entry, Hold, Settling};
use crate::protocol::Progress;
use crate::route::{Bounds, Target};
use crate::telemetry::End;
use crate::usage::{Money, Price, Usage};

/// Bytes of a body to a token, where only a guess is asked for.
const BYTES_PER_TOKEN: u64 = 4;

/// Who asks, and what for: what every entry of a request says.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Our id of the request.
    pub request: Arc<str>,
    /// The endpoint's name.
    pub api: &'static str,
    /// The caller's name.
    pub key: Arc<str>,
    /// And its team's.
    pub team: Option<Arc<str>>,
    /// The model's label.
    pub model: Arc<str>,
    /// The length of the body, in bytes.
    pub length: u64,
    /// When the hold was made: the windows of budgets that it counts in.
    pub at: SystemTime,
}

/// What the tries of one request cost.
pub struct Tab {
    hold: Hold,
    asked: Asked,
    /// None: nobody who is asked has a budget.
    bounds: Option<Bounds>,
    /// What has no price may be asked for all the same.
    unpriced: bool,
    attempt: u32,
    price: Option<Arc<Price>>,
    /// What the try under way may cost at most. None: nobody has a budget, or nobody knows.
    bound: Option<Money>,
    /// The most output that it may have, in tokens.
    most: u64,
    reasoning: bool,
    stage: Stage,
    /// Tokens of output that have passed, at least.
    said: u64,
    /// The usage that has been told by now.
    told: Option<Usage>,
    /// Bytes of an answer in one piece that have passed.
    passed: u64,
}

/// How far the try under way has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
    None,
    /// Nothing has been sent.
    Begun,
    /// It may have arrived.
    Sent,
}

impl Tab {
    /// With what is held.
    pub fn new(hold: Hold, asked: Asked, bounds: Option<Bounds>, unpriced: bool) -> Self {
        Self {
            hold,
            asked,
            bounds,
            unpriced,
            attempt: 0,
            price: None,
            bound: None,
            most: u64::MAX,
            reasoning: false,
            stage: Stage::None,
            said: 0,
            told: None,
            passed: 0,
        }
    }

    /// Makes sure that a try is covered, and opens its entry.
    pub(super) async fn begin(&mut self, target: &Target, now: SystemTime) -> Result<(), Cause> {
        let terms = &target.terms;
        if let Some(bounds) = &self.bounds {
            self.bound = bounds.at(terms);
            if self.bound.is_none() && !self.unpriced {
                return Err(Cause::Unpriced);
            }
            self.most = bounds.output(terms);
            let account: Option<&Arc<Account>> = terms.account.as_ref();
            let bound = self.bound.unwrap_or_default();
            let covered = self.hold.cover(account, bound, now).await;
            covered.map_err(Cause::Budget)?;
        }
        self.attempt += 1;
        self.price.clone_from(&terms.price);
        self.reasoning = terms.reasoning;
        self.stage = Stage::Begun;
        (self.said, self.told, self.passed) = (0, None, 0);
        let version = self.price.as_ref().map(|price| &price.version);
        self.hold.begin(Entry {
            request: Arc::clone(&self.asked.request),
            attempt: self.attempt,
            at: self.asked.at,
            api: self.asked.api,
            key: Arc::clone(&self.asked.key),
            team: self.asked.team.clone(),
            model: Arc::clone(&self.asked.model),
            target: Arc::clone(&target.name),
            provider: Arc::clone(&target.provider.name),
            usage: None,
            cost: None,
            estimated: true,
            end: "client_gone",
            prices: version.map_or_else(|| "".into(), Arc::clone),
        });
        Ok(())
    }

    /// The output that each choice may have at a target, in tokens, where somebody has a budget.
    pub(super) fn limit(&self, target: &Target) -> Option<u64> {
        self.bounds.as_ref()?.each(&target.terms)
    }

    /// The request goes out: from here on it may be billed.
    pub(super) fn sent(&mut self) {
        if self.stage == Stage::Begun {
            self.stage = Stage::Sent;
        }
    }

    /// The try came to nothing, which is called `end`. Gives what it cost all the same.
    pub(super) fn fails(
        &mut self,
        cause: &Cause,
        end: &'static str,
        usage: Option<Usage>,
    ) -> Option<Money> {
        let is_answered = match cause {
            // It said no, or never heard of it.
            Cause::Status(_) | Cause::Shed | Cause::Connect(_) | Cause::Refused(_) => true,
            Cause::Budget(_) | Cause::Unpriced => true,
            Cause::Clock(_) | Cause::Nonsense(_) | Cause::Reset(_) | Cause::Stale(_) => false,
        };
        match (usage, self.stage) {
            (Some(_), _) => self.enter(end, usage),
            (None, Stage::Sent) if !is_answered => self.enter(end, None),
            _ => {
                self.hold.waive();
                self.stage = Stage::None;
                None
            }
        }
    }

    /// What has passed by now. True if it certainly is more than what is held pays for.
    pub fn passes(&mut self, progress: &Progress) -> bool {
        (self.said, self.told) = (progress.said, progress.usage);
        if self.bounds.is_none() {
            return false;
        }
        let cost = |usage| self.price.as_ref().map(|price| price.cost(&usage));
        let told = progress.usage.and_then(cost);
        let is_dearer = told
            .zip(self.bound)
            .is_some_and(|(cost, bound)| cost > bound);
        self.said > self.most || is_dearer
    }

    /// So many more bytes of an answer in one piece have passed.
    pub fn pass(&mut self, bytes: usize) {
        self.passed = self.passed.saturating_add(bytes as u64);
    }

    /// The try has come to its end: everything is entered. Gives what it cost, and a wait until that is durable.
    pub fn ends(&mut self, end: &'static str, usage: Option<Usage>) -> (Option<Money>, Settling) {
        let cost = match self.stage {
            Stage::None => None,
            Stage::Begun | Stage::Sent => self.enter(end, usage),
        };
        (cost, self.hold.settle())
    }

    /// No try is under way any more: what the others cost is entered.
    pub fn close(&mut self) -> Settling {
        self.hold.settle()
    }

    fn enter(&mut self, end: &'static str, usage: Option<Usage>) -> Option<Money> {
        // Of an answer that broke off, what was told may be the usage of its beginning only.
        let is_whole = |usage: &Usage| end == End::Complete.name() || said(usage) >= self.said;
        let usage = usage.filter(is_whole);
        let estimate = self.estimate();
        let price = self.price.as_deref();
        let cost = match (usage, self.bound) {
            // How much it has thought is not to be seen.
            (None, Some(bound)) if self.reasoning => Some(bound),
            (usage, _) => price.map(|price| price.cost(&usage.unwrap_or(estimate))),
        };
        if let Some(entry) = self.hold.current() {
            entry.end = end;
            entry.estimated = usage.is_none();
            entry.usage = usage.or(Some(estimate));
            entry.cost = cost;
        }
        self.hold.bill();
        self.stage = Stage::None;
        cost
    }

    /// What the try has used, for all that is known.
    fn estimate(&self) -> Usage {
        Usage {
            input: self.asked.length.div_ceil(BYTES_PER_TOKEN),
            output: self.said.max(self.passed / BYTES_PER_TOKEN).min(self.most),
            ..Usage::default()
        }
    }
}

/// All output that was told.
fn said(usage: &Usage) -> u64 {
    let kinds = [
        usage.output,
        usage.reasoning,
        usage.audio_output,
        usage.image_output,
    ];
    kinds.into_iter().fold(0, u64::saturating_add)
}

impl Drop for Tab {
    fn drop(&mut self) {
        match self.stage {
            Stage::Sent => drop(self.enter("client_gone", self.told)),
            Stage::Begun => self.hold.waive(),
            Stage::None => {}
        }
    }
}
