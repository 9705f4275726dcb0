//! Who asks, and what for? What every entry of a request says.

use std::sync::Arc;
use std::time::SystemTime;

use smol_str::SmolStr;

use crate::ledger::Entry;
use crate::protocol::{Endpoint, Form, Gives, Own, Whole};
use crate::route::{BYTES_PER_TOKEN, Owns, Target};
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
    pub key: SmolStr,
    /// And its team's.
    pub team: Option<Arc<str>>,
    /// The label of the model that was asked for, whichever is asked instead.
    pub model: Arc<str>,
    /// How many tries were made before, at other models' targets.
    pub tries: u32,
    /// The length of the body, in bytes.
    pub length: u64,
    /// What it takes that is no token. None: tokens alone.
    pub owns: Option<Box<Owns>>,
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
            key: self.key.clone(),
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

    /// The tokens that it will have used after so many tokens and bytes of an answer, where that says nothing itself. Of sound and
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
        Usage {
            input,
            output: said.max(shown),
            ..Usage::default()
        }
    }

    /// What it takes that is no token, as it is sent to a target: by the number that this has if its rules may change that.
    pub(super) fn own(&self, rewrites: Option<usize>) -> Option<Own> {
        self.owns.as_ref()?.at(rewrites)
    }

    /// What limits count of what was used: tokens, and how much of what is no token. Where an answer is silent about that it has
    /// used what it was let in for: a limit that providers need not tell of would be none.
    pub(super) fn counts(&self, usage: &Usage) -> (u64, u64) {
        let own = self
            .share()
            .map_or(0, |(unit, likely)| match usage.units(unit) {
                0 => likely,
                told => told,
            });
        (usage.tokens(), own)
    }

    /// What is taken of limits for what is no token.
    pub(super) fn share(&self) -> Option<(Unit, u64)> {
        Some(self.owns.as_ref()?.counted())
    }

    /// Whether it may have more output than is to be seen, which costs something: sound and pictures do not show their tokens.
    pub(super) fn is_unseen(&self, price: Option<&Price>) -> bool {
        self.endpoint.gives() == Gives::Any && price.is_some_and(Price::is_of_tokens)
    }
}
