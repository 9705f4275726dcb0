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

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (
            request,
            attempt,
            at,
            api,
            key,
            team,
            model,
            target,
            provider,
            usage,
            cost,
            estimated,
            end,
            prices,
        ): (
            String,
            u32,
            u64,
            String,
            String,
            Option<String>,
            String,
            String,
            String,
            Option<([u64; KINDS.len()], Option<u64>)>,
            Option<u64>,
            bool,
            String,
            String,
        ) = Deserialize::deserialize(d)?;
        Ok(Self {
            request: request.into(),
            attempt,
            at: UNIX_EPOCH + Duration::from_millis(at),
            api: api.into(),
            key: key.into(),
            team: team.map(Arc::from),
            model: model.into(),
            target: target.into(),
            provider: provider.into(),
            usage: usage.map(|(counts, cost)| Usage::of(counts, cost.map(Money))),
            cost: cost.map(Money),
            estimated,
            end: end.into(),
            prices: prices.into(),
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
