//! How is what was settled written as a line of the tail? By position, as JSON.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::book::Cut;
use super::item::Settled;
use super::{Entry, Scope};
use crate::usage::{KINDS, Money, Usage};

/// What a line says, by position, for names would make more than half of it: which ledger's it is, the number, the hour,
/// the tries, what the store is to lower, and the number again: what is half a new line and half an older one has two.
type Line<T, C> = (i64, u64, i64, T, C, u64);

/// An [`Entry`], in the order of its members.
type Try<'a> = (
    Cow<'a, str>,
    u32,
    u64,
    Cow<'a, str>,
    Cow<'a, str>,
    Option<Cow<'a, str>>,
    Cow<'a, str>,
    Cow<'a, str>,
    Cow<'a, str>,
    Option<([u64; KINDS.len()], Option<u64>)>,
    Option<u64>,
    bool,
    Cow<'a, str>,
    Cow<'a, str>,
);

/// A [`Cut`], in the order of its members.
type Less<'a> = (u8, Cow<'a, str>, i64, u64);

/// A list of which each item is written as something else.
struct Each<'a, T, W>(&'a [T], fn(&'a T) -> W);

impl<T, W: Serialize> Serialize for Each<'_, T, W> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(self.1))
    }
}

pub(super) fn written(ledger: i64, settled: &Settled) -> impl Serialize {
    let tries = Each(&settled.entries, |entry| {
        let since = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let usage = entry.usage.as_ref();
        let line: Try<'_> = (
            Cow::Borrowed(&entry.request),
            entry.attempt,
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            Cow::Borrowed(&entry.api),
            Cow::Borrowed(&entry.key),
            entry.team.as_deref().map(Cow::Borrowed),
            Cow::Borrowed(&entry.model),
            Cow::Borrowed(&entry.target),
            Cow::Borrowed(&entry.provider),
            usage.map(|usage| (usage.counts(), usage.cost.map(|cost| cost.0))),
            entry.cost.map(|cost| cost.0),
            entry.estimated,
            Cow::Borrowed(&entry.end),
            Cow::Borrowed(&entry.prices),
        );
        line
    });
    let cuts = Each(&settled.cuts, |cut| {
        let line: Less<'_> = (
            cut.scope as u8,
            Cow::Borrowed(&cut.name),
            cut.start,
            cut.amount,
        );
        line
    });
    let number = settled.number;
    let line: Line<_, _> = (ledger, number, settled.hour, tries, cuts, number);
    line
}

fn settled((_, number, hour, tries, cuts, _): Line<Vec<Try<'_>>, Vec<Less<'_>>>) -> Settled {
    let shared = |text: Cow<'_, str>| Arc::from(&*text);
    let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    let entries = tries.into_iter().map(|line| Entry {
        request: shared(line.0),
        attempt: line.1,
        at: UNIX_EPOCH + Duration::from_millis(line.2),
        api: owned(line.3),
        key: shared(line.4),
        team: line.5.map(shared),
        model: shared(line.6),
        target: shared(line.7),
        provider: shared(line.8),
        usage: line
            .9
            .map(|(counts, cost)| Usage::of(counts, cost.map(Money))),
        cost: line.10.map(Money),
        estimated: line.11,
        end: owned(line.12),
        prices: shared(line.13),
    });
    let cuts = cuts.into_iter().filter_map(|(scope, name, start, amount)| {
        Some(Cut {
            scope: *Scope::ALL.get(usize::from(scope))?,
            name: shared(name),
            start,
            amount,
        })
    });
    Settled {
        number,
        hour,
        entries: entries.collect(),
        cuts: cuts.collect(),
        ..Settled::default()
    }
}

/// Reads a line: whose it is, and what was settled. None if it is none.
pub(super) fn read(line: &[u8]) -> Option<(i64, Settled)> {
    let line: Line<Vec<Try<'_>>, Vec<Less<'_>>> = serde_json::from_slice(line).ok()?;
    (line.1 == line.5).then(|| (line.0, settled(line)))
}
