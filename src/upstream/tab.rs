//! What do the tries of one request cost? Its hold, and the try under way as it would be entered if all ended now.
//!
//! A try begins only if the hold covers it. Not connected, or refused with a status: nothing. Sent and then lost: the input
//! at least, estimated. Once content has passed: what has passed, too. Dropped, it enters what it knows, which is the usage
//! itself if that was told.

use std::time::{Duration, SystemTime};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::asked::Asked;
use super::bill::Bill;
use super::hedge::{Outrun, Second};
use super::turn::Chosen;
use super::{Cause, Failure, Presence};
use crate::admission::limits::{self, Charge, Feeling, Limited};
use crate::ledger::{Account, Hold, Settling};
use crate::protocol::Progress;
use crate::provider::unfit::Unfit;
use crate::route::health::{Blame, Trial};
use crate::route::{Bounds, Target, Terms};
use crate::telemetry::{End, Entered, Record};
use crate::usage::{Money, Usage};

/// How a try ends that another outran.
const OUTRUN: &str = "outrun";

/// What the tries of one request cost.
pub struct Tab {
    hold: Box<Hold>,
    /// What it takes of its caller's limits.
    charge: Charge,
    asked: Asked,
    /// None: nobody who is asked has a budget.
    bounds: Option<Bounds>,
    /// What has no price may be asked for all the same.
    unpriced: bool,
    /// Nothing is sent, and so nothing is counted.
    is_rehearsed: bool,
    /// Another target may be asked beside the one under way.
    outrun: Option<Outrun>,
    presence: Presence,
    attempt: u32,
    /// A target with a context of so many tokens is known to be too small.
    too_small: u64,
    /// None: no try is under way.
    bill: Option<Bill>,
}

impl Tab {
    /// With what is held, and what was taken of limits: whoever asks a provider has both.
    pub fn new(
        hold: Box<Hold>,
        charge: Charge,
        asked: Asked,
        bounds: Option<Bounds>,
        unpriced: bool,
    ) -> Self {
        Self {
            attempt: asked.tries,
            too_small: asked.least.saturating_sub(1),
            hold,
            charge,
            asked,
            bounds,
            unpriced,
            is_rehearsed: false,
            outrun: None,
            presence: Presence::default(),
            bill: None,
        }
    }

    /// Nothing will be sent: it is only to be seen what would be.
    pub fn rehearses(&mut self) {
        self.is_rehearsed = true;
    }

    /// Whether nothing is sent.
    pub(super) fn is_rehearsed(&self) -> bool {
        self.is_rehearsed
    }

    /// Whether the try under way has its target load a model.
    pub(super) fn is_loading(&self) -> bool {
        let trial = self.bill.as_ref().and_then(|bill| bill.trial.as_ref());
        trial.is_some_and(Trial::is_loading)
    }

    /// What is set aside.
    pub fn held(&self) -> Money {
        self.hold.held()
    }

    /// By this it knows, and is known by, whoever waits for the answer.
    pub fn watch(&mut self, presence: &Presence) {
        self.presence = presence.clone();
    }

    /// Whoever waits for the answer.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Makes sure that a target is not known to be too small.
    fn fits(&self, terms: &Terms) -> Result<(), Cause> {
        match terms.context {
            Some(context) if context <= self.too_small => Err(Cause::TooLong(context)),
            _ => Ok(()),
        }
    }

    /// Whether the try under way was outrun by another.
    fn is_outrun(&self) -> bool {
        self.outrun.as_ref().is_some_and(Outrun::is_so)
    }

    /// Another target may be asked beside the one under way, and be faster.
    pub(super) fn may_be_outrun(&mut self) -> Outrun {
        self.outrun.get_or_insert_default().clone()
    }

    /// Its try runs beside another, and may be outrun by that.
    pub(super) fn runs_beside(&mut self, outrun: Outrun) {
        self.outrun = Some(outrun);
    }

    /// What the tab of another try is made from, beside this one.
    pub(super) fn second(&self) -> Second {
        Second {
            twin: self.hold.twin(),
            asked: Asked {
                tries: self.attempt,
                ..self.asked.clone()
            },
            bounds: self.bounds.clone(),
            unpriced: self.unpriced,
            presence: self.presence.clone(),
        }
    }

    /// The try beside this one is over, and was entered as this says: what it used the request did, too.
    pub(super) fn outran(&mut self, beside: &Record) {
        self.outrun = None;
        self.attempt += beside.tries;
        if let Some(usage) = &beside.usage {
            let (tokens, own) = self.asked.counts(usage);
            self.charge.uses(tokens, own);
        }
        if let Some(bill) = self.bill.as_ref().filter(|bill| bill.is_sent) {
            self.presence.finishes(bill.finish);
        }
    }

    /// This one's try was faster than the other's, which has been entered: what was taken of limits goes over to it.
    pub(super) fn takes_over(mut self: Box<Self>, other: &mut Self) {
        self.charge = other.hand_over();
        self.outrun = None;
        if let Some(bill) = &self.bill {
            self.presence.finishes(bill.finish);
        }
        std::mem::swap(&mut *self, other);
        // What it cost need not be waited for: the end of the answer does so for all that comes after it.
        drop(self.hold.settle());
    }

    /// How many tries were made, at targets of other models, too.
    pub(super) fn tries(&self) -> u32 {
        self.attempt
    }

    /// Makes sure that a try has leave, is below its target's limits and covered, and opens its entry.
    pub(super) async fn begin(
        &mut self,
        Chosen {
            target,
            resort,
            slots,
        }: &mut Chosen<'_>,
        now: Instant,
        at: SystemTime,
    ) -> Result<(), Cause> {
        let terms = &target.terms;
        self.fits(terms)?;
        let cooldown = target.provider.cooldown;
        let trial = target.health.enter(cooldown, *resort, now);
        let mut trial = trial.map_err(Cause::Resting)?;
        if target.load.is_some() && !trial.loads() {
            return Err(Cause::Loading);
        }
        let gates = target.gate.as_slice();
        let entered = match slots.take() {
            None => limits::enter(gates, now),
            Some(slots) => limits::enter_with(slots, gates, now),
        };
        let (mut slots, mut charge) = entered.map_err(Cause::Limited)?;
        slots.set_used(false);
        let charged = charge.take(self.asked.probable, self.asked.share(), now);
        charged.map_err(Cause::Limited)?;
        let (mut bound, mut most) = (None, self.asked.most());
        if let Some(bounds) = &self.bounds {
            bound = bounds.at(terms);
            if bound.is_none() && !self.unpriced {
                return Err(Cause::Unpriced);
            }
            most = bounds.output(terms).unwrap_or(u64::MAX);
        }
        if self.bounds.is_some() || target.requests.is_some() {
            let accounts: SmallVec<[&Account; 2]> =
                terms.account.iter().chain(&target.requests).collect();
            let covered = self.hold.cover(&accounts, bound.unwrap_or_default(), at);
            covered
                .await
                .map_err(|refused| match Limited::of_day(&refused, at) {
                    Some(limited) => Cause::Limited(limited),
                    None => Cause::Budget(refused),
                })?;
        }
        self.attempt += 1;
        if !self.is_rehearsed {
            self.charge.spend();
            charge.spend();
            slots.set_used(true);
        }
        self.bill = Some(Bill {
            price: terms.price.clone(),
            rewrites: terms.rewrites,
            bound,
            context: terms.context.unwrap_or(u64::MAX),
            most,
            is_unseen: terms.reasoning || self.asked.is_unseen(terms.price.as_deref()),
            finish: target.finish(),
            is_sent: false,
            said: 0,
            told: (None, false),
            passed: 0,
            charge,
            slots,
            gate: target.gate.clone(),
            trial: Some(trial),
            has_begun: false,
        });
        if self.is_rehearsed {
            return Ok(());
        }
        self.hold.begin(self.asked.entry(self.attempt, target));
        Ok(())
    }

    /// The id by which its provider keeps the response, if it is one. To be told before that is entered.
    pub fn is_kept_as(&mut self, id: Option<&str>) {
        if let (Some(id), Some(entry)) = (id, self.hold.current()) {
            entry.response_id = Some(id.into());
        }
    }

    /// The most that the request may cost. None: nobody who is asked has a budget.
    pub fn bounds(&self) -> Option<&Bounds> {
        self.bounds.as_ref()
    }

    /// The output that each choice may have at a target, in tokens, where somebody has a budget.
    pub(super) fn limit(&self, target: &Target) -> Option<u64> {
        self.bounds.as_ref()?.each(&target.terms)
    }

    /// The request goes out: from here on it may be billed, and its answer may be read on.
    pub(super) fn sent(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.is_sent = true;
            self.presence.finishes(bill.finish);
        }
    }

    /// The request came back as it went. Another goes out only if somebody still waits for it: false if nobody does.
    pub(super) fn unsent(&mut self) -> bool {
        if let Some(bill) = &mut self.bill {
            bill.is_sent = false;
            self.presence.finishes(None);
        }
        self.presence.absence().is_none()
    }

    /// The try has an answer, of which more may be to come.
    pub(super) fn begins(&mut self, now: Instant) {
        if let Some(bill) = &mut self.bill {
            bill.begins(now);
        }
    }

    /// It says that its target will have no time for so long.
    pub(super) fn parks(&mut self, wait: Duration) {
        if let Some(trial) = self.trial() {
            trial.parks(wait, Instant::now());
        }
    }

    /// What ends the answer now is no fault of its target.
    pub fn excuses(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.trial = None;
        }
    }

    fn trial(&mut self) -> Option<&mut Trial> {
        self.bill.as_mut()?.trial.as_mut()
    }

    /// The try came to nothing. Gives what was entered all the same.
    pub(super) fn fails(&mut self, failure: &Failure, usage: Option<Usage>) -> Option<Entered> {
        if let (Some(Unfit::TooLong), Some(bill)) = (failure.unfit(), &self.bill)
            && bill.context != u64::MAX
        {
            // Nor will it fit where there is no more room.
            self.too_small = self.too_small.max(bill.context);
        }
        let is_answered = match failure.cause {
            // It said no, or never heard of it.
            Cause::Status(_) | Cause::Shed | Cause::Connect(_) | Cause::Refused(_) => true,
            Cause::Budget(_) | Cause::Limited(_) | Cause::Unpriced => true,
            Cause::Resting(_)
            | Cause::Loading
            | Cause::Spent
            | Cause::TooLong(_)
            | Cause::Rehearsed => true,
            Cause::Clock(_) | Cause::Nonsense(_) | Cause::Reset(_) | Cause::Stale(_) => false,
        };
        let is_billed = self.bill.as_ref().is_some_and(|bill| bill.is_sent) && !is_answered;
        if let Some(Bill {
            gate: Some(gate), ..
        }) = &self.bill
            && failure.is_overload()
        {
            gate.feels(Feeling::Overloaded, Instant::now());
        }
        if let Some(trial) = self.trial() {
            let blame = match trial.is_loading() && failure.is_unready() {
                // It says so because it loads.
                true => Blame::Nobody,
                false => failure.blame(),
            };
            trial.failed(blame, Instant::now());
        }
        if usage.is_some() || is_billed {
            return self.enter(failure.outcome().name(), usage);
        }
        self.waive();
        None
    }

    /// What has passed by now. True if it certainly is more than what is held pays for.
    pub fn passes(&mut self, progress: &Progress) -> bool {
        let Some(bill) = &mut self.bill else {
            return false;
        };
        if progress.content && !bill.has_begun {
            bill.begins(Instant::now());
        }
        bill.said = progress.said;
        bill.told = (progress.usage, progress.told_all);
        if progress.told_all {
            // There is nothing left to read on for.
            self.presence.finishes(None);
        }
        if self.bounds.is_none() {
            return false;
        }
        let cost = |usage| bill.price.as_ref().map(|price| price.cost(&usage));
        let told = progress.usage.and_then(cost);
        let is_dearer = told
            .zip(bill.bound)
            .is_some_and(|(cost, bound)| cost > bound);
        bill.said > bill.most || is_dearer
    }

    /// So many more bytes of an answer in one piece have passed.
    pub fn pass(&mut self, bytes: usize) {
        if let Some(bill) = &mut self.bill {
            bill.passed = bill.passed.saturating_add(bytes as u64);
        }
    }

    /// The try has come to its end: everything is entered. Gives what was, and a wait until that is durable.
    pub fn ends(&mut self, end: End, usage: Option<Usage>) -> (Option<Entered>, Settling) {
        let now = Instant::now();
        if let Some(trial) = self.trial() {
            match end {
                End::Complete => trial.answered(now),
                // That was not the provider's doing.
                End::BudgetCut | End::ClientGone | End::Shutdown => {}
                End::Error | End::Stalled | End::Truncated => trial.failed(Blame::Model, now),
            }
        }
        let entered = self.enter(end.name(), usage);
        (entered, self.close(now))
    }

    /// Nobody reads the try under way any further. What is known of it is entered, with the usage if it has been told;
    /// gives what was entered.
    pub fn abandon(&mut self, usage: Option<Usage>) -> Option<Entered> {
        if self.is_outrun()
            && let Some(trial) = self.trial()
        {
            trial.is_outrun(Instant::now());
        }
        let Some(bill) = self.bill.as_ref().filter(|bill| bill.is_sent) else {
            self.waive();
            return None;
        };
        let usage = usage.or(bill.told.0);
        match self.is_outrun() {
            true => self.enter(OUTRUN, usage),
            false => self.enter(End::ClientGone.name(), usage),
        }
    }

    /// No try is under way any more: what the others cost is entered.
    pub fn close(&mut self, now: Instant) -> Settling {
        // Before the last bytes go: whoever has them may ask again at once.
        self.charge.settle(now);
        self.hold.settle()
    }

    /// The targets of another model are asked instead. What the tries have cost so far is entered, in `close`; what was taken
    /// of the caller's limits goes on to the tab of those: it is one request.
    pub fn hand_over(&mut self) -> Charge {
        self.charge.hand_over()
    }

    fn enter(&mut self, end: &'static str, usage: Option<Usage>) -> Option<Entered> {
        let mut bill = self.bill.take()?;
        self.presence.finishes(None);
        // What is told on the way is not yet all: it may be the usage of the beginning only, and of who thinks unseen it says
        // nothing.
        let is_all = end == End::Complete.name() || bill.told.0.is_none() || bill.told.1;
        let is_near = |usage: &Usage| !bill.is_unseen && said(usage) >= bill.said;
        let told = usage.filter(|usage| is_all || is_near(usage));
        let is_complete = end == End::Complete.name();
        let (entered, is_guess) = bill.comes_to(&self.asked, told, is_complete);
        let (tokens, own) = self.asked.counts(&entered.usage);
        bill.charge.uses(tokens, own);
        self.charge.uses(tokens, own);
        if let Some(entry) = self.hold.current() {
            // However it came to its end, nobody heard of that.
            let absence = self.presence.absence();
            entry.end = absence.map_or(end, |(why, _)| why.name()).into();
            entry.estimated = is_guess || !is_all;
            entry.usage = Some(entered.usage);
            entry.cost = entered.cost;
        }
        self.hold.bill();
        Some(entered)
    }

    fn waive(&mut self) {
        if self.bill.take().is_some() {
            self.presence.finishes(None);
            self.hold.waive();
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
        self.abandon(None);
    }
}
