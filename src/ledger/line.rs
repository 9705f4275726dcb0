//! How is what was settled written? By position, as JSON: names would make more than half of it. Entries stand so in the
//! lines of the tail and in the rows of the file.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::book::Cut;
use super::item::Settled;
use super::store::stored;
use super::window::millis_of;
use super::{Entry, Scope};
use crate::usage::{KINDS, Money, TOKENS, Usage};

/// Which ledger's it is, the number, the hour, the entries, what the store is to lower, and the number again: what is half a
/// new line and half an older one has two.
type Line = (i64, u64, i64, Vec<Entry>, Vec<Cut>, u64);

/// Writes a [`Line`].
pub(super) fn write(ledger: i64, settled: &Settled, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let number = settled.number;
    serde_json::to_writer(&mut *out, &(ledger, number, settled.hour))?;
    // The list goes on, with entries that are written already.
    out.pop();
    out.extend_from_slice(b",[");
    out.extend_from_slice(&settled.text);
    out.extend_from_slice(b"],");
    serde_json::to_writer(&mut *out, &*settled.cuts)?;
    out.push(b',');
    serde_json::to_writer(&mut *out, &number)?;
    out.push(b']');
    Ok(())
}

/// Reads a line: whose it is, and what was settled. None if it is none.
pub(super) fn read(line: &[u8]) -> Option<(i64, Settled)> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let (ledger, number, hour, entries, cuts, again) = line;
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
        let usage = |usage: Usage| {
            let cost = usage.cost.map(|cost| stored(cost.0));
            (Counts(usage.counts()), cost)
        };
        let marks = (self.user.as_deref(), self.tag.as_deref());
        let response_id = self.response_id.as_deref();
        let length = match (marks, response_id) {
            (_, Some(_)) => 18,
            ((None, None), None) => 14,
            (_, None) => 17,
        };
        let mut line = s.serialize_tuple(length)?;
        line.serialize_element(&*self.request)?;
        line.serialize_element(&self.attempt)?;
        line.serialize_element(&millis_of(self.at))?;
        line.serialize_element(&*self.api)?;
        line.serialize_element(&*self.key)?;
        line.serialize_element(&self.team.as_deref())?;
        line.serialize_element(&*self.model)?;
        line.serialize_element(&*self.target)?;
        line.serialize_element(&*self.provider)?;
        line.serialize_element(&self.usage.map(usage))?;
        line.serialize_element(&self.cost.map(|cost| stored(cost.0)))?;
        line.serialize_element(&self.estimated)?;
        line.serialize_element(&*self.end)?;
        line.serialize_element(&*self.prices)?;
        // Most have none of these, and are shorter for it.
        if length > 14 {
            let scope = None::<()>;
            line.serialize_element(&scope)?;
            line.serialize_element(&marks.0)?;
            line.serialize_element(&marks.1)?;
        }
        if let Some(id) = response_id {
            line.serialize_element(id)?;
        }
        line.end()
    }
}

/// Writes what an owner was charged for a crash, as if it were an entry, with whose budget it was at its end.
pub(super) fn charge(
    (scope, name): (Scope, &str),
    at: i64,
    cost: i64,
    out: &mut Vec<u8>,
) -> serde_json::Result<()> {
    let of = |its: Scope| (scope == its).then_some(name);
    let (key, team, provider) = (of(Scope::Key), of(Scope::Team), of(Scope::Provider));
    let (none, is_estimated) = (None::<()>, true);
    let line = (
        "",
        0,
        at,
        "",
        key,
        team,
        none,
        none,
        provider,
        none,
        cost,
        is_estimated,
        "crashed",
        "",
        scope.name(),
    );
    serde_json::to_writer(out, &line)
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
    /// What was used, and what the provider itself says that it costs.
    pub(super) usage: Option<(Counts, Option<u64>)>,
    pub(super) cost: Option<u64>,
    pub(super) estimated: bool,
    #[serde(borrow)]
    end: Text<'a>,
    #[serde(borrow)]
    prices: Text<'a>,
    /// Whose budget a crash was charged to; none for a try.
    #[serde(borrow, default)]
    pub(super) scope: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) user: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tag: Option<Text<'a>>,
    #[serde(borrow, default)]
    response_id: Option<Text<'a>>,
}

impl Fields<'_> {
    /// Our id of the request.
    pub(super) fn request(&self) -> &str {
        &self.request
    }
}

/// What was used, in the order of [`KINDS`]. Most use nothing but tokens: then the others are not written.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts(pub(super) [u64; KINDS.len()]);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let counts = self.0.map(|count| count.min(MOST_TOKENS));
        let tokens = counts.first_chunk::<TOKENS>();
        match tokens.filter(|tokens| counts.iter().skip(tokens.len()).all(|it| *it == 0)) {
            Some(tokens) => tokens.serialize(s),
            None => counts.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Counts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of counts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Counts, A::Error> {
                let mut counts = Counts::default();
                for slot in &mut counts.0 {
                    match seq.next_element()? {
                        Some(count) => *slot = count,
                        None => break,
                    }
                }
                Ok(counts)
            }
        }
        d.deserialize_seq(List)
    }
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
        let usage = |(counts, cost): (Counts, Option<u64>)| Usage::of(counts.0, cost.map(Money));
        let name = |text: Option<Text<'_>>| Arc::from(text.as_deref().unwrap_or_default());
        let mark = |text: Option<Text<'_>>| text.map(|text| Arc::from(&*text));
        Ok(Self {
            request: (*fields.request).into(),
            attempt: fields.attempt,
            at: UNIX_EPOCH + Duration::from_millis(fields.at),
            api: fields.api.to_owned().into(),
            key: fields.key.as_deref().unwrap_or_default().into(),
            team: mark(fields.team),
            model: name(fields.model),
            target: name(fields.target),
            provider: name(fields.provider),
            usage: fields.usage.map(usage),
            cost: fields.cost.map(Money),
            estimated: fields.estimated,
            end: fields.end.to_owned().into(),
            prices: (*fields.prices).into(),
            user: mark(fields.user),
            tag: mark(fields.tag),
            response_id: mark(fields.response_id),
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
            spent: 0,
        })
    }
}
