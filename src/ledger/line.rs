//! How is what was settled written as a line of the tail? By position, as JSON: names would make more than half of it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::book::Cut;
use super::item::Settled;
use super::{Entry, Scope};
use crate::usage::{KINDS, Money, Usage};

/// Which ledger's it is, the number, the hour, the tries, what the store is to lower, and the number again: what is half a
/// new line and half an older one has two.
type Line<T, C> = (i64, u64, i64, T, C, u64);

/// Writes a line.
pub(super) fn write(ledger: i64, settled: &Settled, out: impl io::Write) -> serde_json::Result<()> {
    let (entries, cuts) = (&*settled.entries, &*settled.cuts);
    let number = settled.number;
    let line: Line<&[Entry], &[Cut]> = (ledger, number, settled.hour, entries, cuts, number);
    serde_json::to_writer(out, &line)
}

/// Reads a line: whose it is, and what was settled. None if it is none.
pub(super) fn read(line: &[u8]) -> Option<(i64, Settled)> {
    let line: Line<Vec<Entry>, Vec<Cut>> = serde_json::from_slice(line).ok()?;
    let (ledger, number, hour, entries, cuts, again) = line;
    let settled = Settled {
        number,
        hour,
        entries: entries.into(),
        cuts: cuts.into(),
        ..Settled::default()
    };
    (number == again).then_some((ledger, settled))
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let usage = |usage: &Usage| (usage.counts(), usage.cost.map(|cost| cost.0));
        let line = (
            &*self.request,
            self.attempt,
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            &*self.api,
            &*self.key,
            self.team.as_deref(),
            &*self.model,
            &*self.target,
            &*self.provider,
            self.usage.as_ref().map(usage),
            self.cost.map(|cost| cost.0),
            self.estimated,
            &*self.end,
            &*self.prices,
        );
        line.serialize(s)
    }
}

/// What an [`Entry`] is read as, by position.
#[derive(Deserialize)]
struct Fields {
    request: String,
    attempt: u32,
    at: u64,
    api: String,
    key: String,
    team: Option<String>,
    model: String,
    target: String,
    provider: String,
    usage: Option<([u64; KINDS.len()], Option<u64>)>,
    cost: Option<u64>,
    estimated: bool,
    end: String,
    prices: String,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(d)?;
        let usage = |(counts, cost): (_, Option<u64>)| Usage::of(counts, cost.map(Money));
        Ok(Self {
            request: fields.request.into(),
            attempt: fields.attempt,
            at: UNIX_EPOCH + Duration::from_millis(fields.at),
            api: fields.api.into(),
            key: fields.key.into(),
            team: fields.team.map(Arc::from),
            model: fields.model.into(),
            target: fields.target.into(),
            provider: fields.provider.into(),
            usage: fields.usage.map(usage),
            cost: fields.cost.map(Money),
            estimated: fields.estimated,
            end: fields.end.into(),
            prices: fields.prices.into(),
        })
    }
}

impl Serialize for Cut {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.scope as u8, &*self.name, self.start, self.amount).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Cut {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (scope, name, start, amount): (u8, String, i64, u64) = Deserialize::deserialize(d)?;
        let scope = Scope::ALL.get(usize::from(scope)).copied();
        let scope = scope.ok_or_else(|| serde::de::Error::custom("no scope"))?;
        Ok(Self {
            scope,
            name: name.into(),
            start,
            amount,
        })
    }
}
