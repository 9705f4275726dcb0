//! Who asks, and what for? What every entry of a request says.

use std::sync::Arc;
use std::time::SystemTime;

use crate::ledger::Entry;
use crate::protocol::{Endpoint, Form, Gives, Whole};
use crate::route::{BYTES_PER_TOKEN, Target};
use crate::telemetry::End;
use crate::usage::{Price, Unit, Usage};

/// Who asks, and what for: what every entry of a request says.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Our id of the request.
    pub request: Arc<str>,
    /// What was called.
    pub endpoint: Endpoint,
    /// The caller's name.
    pub key: Arc<str>,
    /// And its team's.
    pub team: Option<Arc<str>>,
    /// The label of the model that was asked for, whichever is asked instead.
    pub model: Arc<str>,
    /// How many tries were made before, at other models' targets.
    pub tries: u32,
    /// The length of the body, in bytes.
    pub length: u64,
    /// What it takes that is no token, and how much of that where its answer does not say.
    pub own: Option<(Unit, u64)>,
    /// The tokens that it will probably use.
    pub probable: u64,
    /// The tokens of input that it has at least.
    pub least: u64,
    /// When the hold was made: the windows of budgets that it counts in.
    pub at: SystemTime,
    /// For whom the caller asks, as it says.
    pub user: Option<Arc<str>>,
    /// To what it is charged further, as the caller says.
    pub tag: Option<Arc<str>>,
}

impl Asked {
    /// Its try at a target, as it is entered if all ends now.
    pub(super) fn entry(&self, attempt: u32, target: &Target) -> Entry {
        let version = target.terms.price.as_ref().map(|price| &price.version);
        Entry {
            request: Arc::clone(&self.request),
            attempt,
            at: self.at,
            api: self.endpoint.name().into(),
            key: Arc::clone(&self.key),
            team: self.team.clone(),
            model: Arc::clone(&self.model),
            target: Arc::clone(&target.name),
            provider: Arc::clone(&target.provider.name),
            usage: None,
            cost: None,
            estimated: true,
            end: End::ClientGone.name().into(),
            prices: version.map_or_else(|| "".into(), Arc::clone),
            user: self.user.clone(),
            tag: self.tag.clone(),
            response_id: None,
        }
    }

    /// The most output that it may have, in tokens, for all that is known of it alone.
    pub(super) fn most(&self) -> u64 {
        match self.endpoint.gives() {
            Gives::Nothing => 0,
            Gives::Text | Gives::Any => u64::MAX,
        }
    }

    /// What it will have used after so many tokens and bytes of an answer, where that says nothing itself. Of sound and
    /// pictures the bytes tell nothing of tokens.
    pub(super) fn estimate(&self, said: u64, passed: u64) -> Usage {
        let input = match self.endpoint.form() {
            Form::Json => self.length.div_ceil(BYTES_PER_TOKEN),
            Form::Data | Form::Both | Form::Nothing => 0,
        };
        let is_text = match self.endpoint.gives() {
            Gives::Text => true,
            Gives::Any => self.endpoint.whole() == Whole::Text,
            Gives::Nothing => false,
        };
        let shown = if is_text { passed / BYTES_PER_TOKEN } else { 0 };
        let usage = Usage {
            input,
            output: said.max(shown),
            ..Usage::default()
        };
        match self.own {
            Some((unit, count)) => usage.with(unit, count),
            None => usage,
        }
    }

    /// What was used by an answer that says so, with what it took besides.
    pub(super) fn whole(&self, told: Usage, price: Option<&Price>) -> Usage {
        match self.own {
            Some((unit, count)) if is_exact(unit) || self.lacks(&told, price) => {
                told.with(unit, count)
            }
            _ => told,
        }
    }

    /// What limits count of what was used: tokens, and how much of what is no token. Where an answer is silent about that it has
    /// used what it was let in for: a limit that providers need not tell of would be none.
    pub(super) fn counts(&self, usage: &Usage) -> (u64, u64) {
        let own = self
            .own
            .map_or(0, |(unit, likely)| match usage.units(unit) {
                0 => likely,
                told => told,
            });
        (usage.tokens(), own)
    }

    /// Whether an answer does not say how much it took of what its price is by, so that this is a guess.
    pub(super) fn lacks(&self, told: &Usage, price: Option<&Price>) -> bool {
        let own = self.own.map(|(unit, _)| unit);
        own.is_some_and(|unit| {
            let is_billed = price.is_some_and(|price| price.states(unit));
            !is_exact(unit) && is_billed && told.units(unit) == 0
        })
    }

    /// What it takes of what its price is by, where that was known from the start and nothing else is billed.
    pub(super) fn known(&self, price: Option<&Price>) -> Option<Usage> {
        let (unit, count) = self.own.filter(|(unit, _)| is_exact(*unit))?;
        let is_all = price.is_some_and(|price| price.states(unit) && !price.is_of(None));
        is_all.then(|| Usage::default().with(unit, count))
    }

    /// Whether it may have more output than is to be seen, which costs something: sound and pictures do not show their tokens.
    pub(super) fn is_unseen(&self, price: Option<&Price>) -> bool {
        self.endpoint.gives() == Gives::Any && price.is_some_and(|price| price.is_of(None))
    }
}

/// Whether a request itself says how many it takes. How long sound is, and into how many searches documents are cut, is for
/// the provider to say.
fn is_exact(unit: Unit) -> bool {
    match unit {
        Unit::Characters | Unit::Images => true,
        Unit::Seconds | Unit::Searches => false,
    }
}
