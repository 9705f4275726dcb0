//! The access log: one structured line for each request.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::{End, Record, RequestId};
use crate::usage::Usage;

/// What is told about one request.
pub struct Line {
    id: RequestId,
    client_id: Option<HeaderValue>,
    api: &'static str,
    key: Option<Arc<str>>,
    model: Option<Box<str>>,
    target: Option<Arc<str>>,
    tries: u32,
    status: u16,
    code: Option<&'static str>,
    end: End,
    took: Duration,
    first_content: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    usage: Option<Usage>,
}

impl Line {
    pub(super) fn of(record: &mut Record, end: End, now: Instant) -> Self {
        Self {
            id: record.id,
            client_id: record.client_id.take(),
            api: record.api,
            key: record.key.take(),
            model: record.asked.take(),
            target: record.target.take(),
            tries: record.tries,
            status: record.status,
            code: record.code,
            end,
            took: now - record.began,
            first_content: record.content.map(|content| content - record.began),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            usage: record.usage,
        }
    }

    /// Writes it.
    pub fn write(&self) {
        let usage = self.usage.unwrap_or_default();
        tracing::info!(
            target: "access",
            id = self.id.as_str(),
            client_id = self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            api = self.api,
            key = self.key.as_deref(),
            model = self.model.as_deref(),
            to = self.target.as_deref(),
            tries = self.tries,
            status = self.status,
            code = self.code,
            end = self.end.name(),
            ms = millis(self.took),
            first_content_ms = self.first_content.map(millis),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            input = self.usage.map(|_| usage.input),
            cached = self.usage.map(|_| usage.cached),
            output = self.usage.map(|_| usage.output + usage.reasoning),
        );
    }
}

/// Milliseconds to three places: what is finer is noise.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
