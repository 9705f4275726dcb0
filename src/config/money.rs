//! What did the operator write about money: budgets, prices, the ledger?
//!
//! Amounts stay text here ([`Written`]): they are read exactly where they get a meaning, never through a float.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};

use super::value;

/// A decimal number as it stands in the file: of dollars, of dollars per million tokens, of a whole.
#[derive(Clone, Debug, serde::Serialize, PartialEq, Eq)]
pub struct Written(pub String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number such as 25 or 0.15")
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Written, E> {
                Ok(Written(n.to_string()))
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Written, E> {
                Ok(Written(n.to_string()))
            }
            fn visit_f64<E: Error>(self, n: f64) -> Result<Written, E> {
                // From JSON, where its text is lost. In gateway.toml it is read from that.
                Err(E::custom(format_args!(
                    "write {n} as text, \"{n}\", so that it is read exactly"
                )))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written(text.replace('_', "")))
            }
        }
        d.deserialize_any(Number)
    }
}

/// `[ledger]`: where entries and budgets are kept.
#[derive(Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// `sqlite:FILE`, relative to the configuration file; or `memory:`, which forgets.
    pub store: Store,
    /// What a settled request survives.
    pub durability: Durability,
    /// What becomes of a request that cannot be priced, from a caller with a budget.
    pub unpriced: Unpriced,
    /// How long the end of an answer may wait for its entry.
    #[serde(deserialize_with = "value::duration")]
    pub settle_wait: Duration,
    /// How long entries are kept before they are rolled up by day.
    #[serde(deserialize_with = "value::long_duration")]
    pub keep: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            store: Store::File("tollgate.db".into()),
            durability: Durability::Process,
            unpriced: Unpriced::Refuse,
            settle_wait: Duration::from_secs(1),
            keep: Duration::from_secs(400 * 86_400),
        }
    }
}

/// Where a ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In a file, relative to the configuration's.
    File(PathBuf),
    /// Nowhere: gone with the process.
    Memory,
}

/// What a settled request survives.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The end of the process, however it comes.
    Process,
    /// A power cut, too.
    Power,
}

/// What becomes of a request that cannot be priced, from a caller with a budget.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Unpriced {
    /// It costs nothing.
    Free,
    /// It is refused.
    Refuse,
}

/// How much money may be spent in how much time.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// In US dollars.
    pub usd: Written,
    /// In which window of the calendar, in UTC.
    pub per: Per,
    /// From which part of it on operators are told, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn: Option<Written>,
}

/// A window of the calendar.
#[derive(Clone, Copy, Debug, serde::Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own description")]
pub enum Per {
    Hour,
    Day,
    Week,
    Month,
    Total,
}

impl Per {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }
}

/// `[total]`: everything together.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Total {
    /// What may be spent.
    pub budget: Option<Budget>,
}

/// What becomes of a request whose worst case is more than is left.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Shortfall {
    /// Its output is limited to what is left, but not to fewer than 64 tokens.
    Clamp,
    /// It is refused.
    Refuse,
}

impl<'de> Deserialize<'de> for Store {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.split_once(':') {
            Some(("sqlite", file)) if !file.is_empty() => Ok(Self::File(file.into())),
            Some(("memory", "")) => Ok(Self::Memory),
            _ => Err(D::Error::custom(format_args!(
                "`{text}` is no store; write \"sqlite:tollgate.db\" or \"memory:\""
            ))),
        }
    }
}

/// What a target's tokens cost, in US dollars per million: by class, and from some length of the prompt on.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Price {
    /// For prompts of more than so many tokens, the whole request.
    pub tiers: Vec<Tier>,
    /// What one picture costs, by its size and quality: `1024x1024`, `hd`, `1024x1024/hd`, or `any`.
    #[serde(deserialize_with = "images")]
    pub images: Option<BTreeMap<String, Written>>,
    /// By class: `input`, `output`, `cached` … What is not given costs what its nearest relative costs.
    #[serde(flatten)]
    pub rates: BTreeMap<String, Written>,
}

/// What a picture costs whatever it is like is a price of `any`.
fn images<'de, D: Deserializer<'de>>(d: D) -> Result<Option<BTreeMap<String, Written>>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = BTreeMap<String, Written>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number such as 0.04, or one for each size and quality, such as { \"1024x1024/hd\" = 0.08 }")
        }
        fn visit_u64<E: Error>(self, n: u64) -> Result<Self::Value, E> {
            self.visit_str(&n.to_string())
        }
        fn visit_i64<E: Error>(self, n: i64) -> Result<Self::Value, E> {
            self.visit_str(&n.to_string())
        }
        fn visit_f64<E: Error>(self, n: f64) -> Result<Self::Value, E> {
            Written::deserialize(n.into_deserializer()).map(|one| [("any".to_owned(), one)].into())
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            let one = Written::deserialize(text.into_deserializer());
            one.map(|one| [("any".to_owned(), one)].into())
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            BTreeMap::deserialize(MapAccessDeserializer::new(map))
        }
    }
    d.deserialize_any(Either).map(Some)
}

/// Rates for long prompts.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Tier {
    /// The longest prompt, in tokens, that they do not hold for.
    #[serde(deserialize_with = "value::tokens")]
    pub above: u64,
    /// By class.
    #[serde(flatten)]
    pub rates: BTreeMap<String, Written>,
}
