//! How is what was settled written? By position, as JSON: names would make more than half of it. Entries stand so in the
//! lines of the tail and in the rows of the file.

use std::borrow::Cow;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::book::Cut;
use super::item::Settled;
use super::store::stored;
use super::{Entry, Scope};
use crate::usage::{KINDS, Money, Usage};

/// Writes a line: which ledger's it is, the number and the hour; the entries; what the store is to lower, and the number
/// again. What is half a new line and half an older one has two.
pub(super) fn write(
    ledger: i64,
    settled: &Settled,
    mut out: impl io::Write,
) -> serde_json::Result<()> {
    let number = settled.number;
    serde_json::to_writer(&mut out, &(ledger, number, settled.hour))?;
    for part in [b"[", &*settled.text, b"]"] {
        out.write_all(part).map_err(serde_json::Error::io)?;
    }
    serde_json::to_writer(out, &(&*settled.cuts, number))
}

/// Reads a line: whose it is, and what was settled. None if it is none.
pub(super) fn read(line: &[u8]) -> Option<(i64, Settled)> {
    let mut line = serde_json::Deserializer::from_slice(line);
    let (ledger, number, hour): (_, u64, _) = Deserialize::deserialize(&mut line).ok()?;
    let entries: Vec<Entry> = Deserialize::deserialize(&mut line).ok()?;
    let (cuts, again): (Vec<Cut>, u64) = Deserialize::deserialize(&mut line).ok()?;
    line.end().ok()?;
    let settled = Settled::of(number, hour, entries.into(), cuts.into());
    (number == again).then_some((ledger, settled))
}

/// More tokens than any answer has: so sums do not overflow.
const MOST_TOKENS: u64 = 1 << 53;

/// Writes entries as they stand in a list.
pub(super) fn list(entries: &[Entry], out: &mut Vec<u8>) {
    for (n, entry) in entries.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        // Nothing in an entry is refused, and memory takes what is written.
        let _ = serde_json::to_writer(&mut *out, entry);
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
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
            self.usage.map(|it| it.counts().map(|n| n.min(MOST_TOKENS))),
            self.cost.map(|cost| stored(cost.0)),
            self.estimated,
            &*self.end,
            &*self.prices,
        );
        line.serialize(s)
    }
}

/// What an [`Entry`] is read as, by position. In the file there are also charges for crashes, which lack most of it.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    request: Text<'a>,
    attempt: u32,
    /// In milliseconds from 1970.
    pub(super) at: u64,
    #[serde(borrow)]
    api: Text<'a>,
    #[serde(borrow)]
    pub(super) key: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) team: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) target: Option<Text<'a>>,
    #[serde(borrow)]
    provider: Option<Text<'a>>,
    /// The tokens, in the order of [`KINDS`].
    pub(super) usage: Option<[u64; KINDS.len()]>,
    pub(super) cost: Option<u64>,
    pub(super) estimated: bool,
    #[serde(borrow)]
    end: Text<'a>,
    #[serde(borrow)]
    prices: Text<'a>,
    /// Whose budget a crash was charged to; none for a try.
    #[serde(borrow, default)]
    pub(super) scope: Option<Text<'a>>,
}

/// A text, which mostly can be read where it stands.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(d)?;
        let name = |text: Option<Text<'_>>| text.as_deref().unwrap_or_default().into();
        Ok(Self {
            request: (*fields.request).into(),
            attempt: fields.attempt,
            at: UNIX_EPOCH + Duration::from_millis(fields.at),
            api: fields.api.to_owned().into(),
            key: name(fields.key),
            team: fields.team.map(|team| Arc::from(&*team)),
            model: name(fields.model),
            target: name(fields.target),
            provider: name(fields.provider),
            usage: fields.usage.map(|counts| Usage::of(counts, None)),
            cost: fields.cost.map(Money),
            estimated: fields.estimated,
            end: fields.end.to_owned().into(),
            prices: (*fields.prices).into(),
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
