//! Where do spans of requests go?

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::Secret;

/// `[traces]`: to whom requests are told, span by span. Without it to nobody.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// The URL of a collector that takes OTLP over HTTP, in protobuf. Without a path it is asked at `/v1/traces`.
    pub endpoint: String,
    /// What it wants to be shown.
    pub headers: BTreeMap<String, Secret>,
    /// What part of the traces that begin here is told, from 0 to 1. Whether any other is told says whoever began it.
    #[serde(deserialize_with = "part")]
    pub sample: f64,
    /// What the gateway calls itself there: `service.name`.
    pub service: String,
    /// A PEM file of roots that are trusted beside the machine's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: "http://127.0.0.1:4318".into(),
            headers: BTreeMap::new(),
            sample: 0.1,
            service: "tollgate".into(),
            ca_file: None,
        }
    }
}

/// A part of a whole.
fn part<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    let part = f64::deserialize(d)?;
    if (0.0..=1.0).contains(&part) {
        Ok(part)
    } else {
        let message = format_args!("{part} is no part of a whole; write a number from 0 to 1");
        Err(D::Error::custom(message))
    }
}
