//! The access log: one structured line for each request, on standard output or in a file.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;
use smol_str::SmolStr;
use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::said::Said;
use super::{End, Record, RequestId};
use crate::usage::Usage;

/// What is told about one request.
pub struct Line {
    id: RequestId,
    client_id: Option<HeaderValue>,
    api: &'static str,
    key: Option<SmolStr>,
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
    said: Option<Box<Said>>,
}

/// The same in words. What is not known is left out.
#[derive(Serialize)]
struct Told<'l> {
    id: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'l str>,
    api: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'l str>,
    tries: u32,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'l str>,
    end: &'l str,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_content_ms: Option<f64>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Cow<'l, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_cut: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_type: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Cow<'l, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_cut: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_type: Option<&'l str>,
}

/// A line of a file: the object that is written to standard output with `log = "json"`.
#[derive(Serialize)]
struct Written<'l> {
    timestamp: String,
    level: &'static str,
    #[serde(flatten)]
    told: Told<'l>,
    target: &'static str,
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
            said: record.said.take(),
        }
    }

    fn told(&self) -> Told<'_> {
        let usage = self.usage.unwrap_or_default();
        let (request, answer) = self.said.as_ref().map(|said| said.told()).unzip();
        let (request, answer) = (request.unwrap_or_default(), answer.unwrap_or_default());
        Told {
            id: self.id.as_str(),
            client_id: self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            api: self.api,
            key: self.key.as_deref(),
            model: self.model.as_deref(),
            to: self.target.as_deref(),
            tries: self.tries,
            status: self.status,
            code: self.code,
            end: self.end.name(),
            ms: millis(self.took),
            first_content_ms: self.first_content.map(millis),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            input: self.usage.map(|_| usage.input),
            cached: self.usage.map(|_| usage.cached),
            output: self.usage.map(|_| usage.output + usage.reasoning),
            request: request.text,
            request_cut: request.is_cut.then_some(true),
            request_type: request.kind,
            answer: answer.text,
            answer_cut: answer.is_cut.then_some(true),
            answer_type: answer.kind,
        }
    }

    /// Writes it to standard output, as other lines are.
    pub fn write(&self) {
        let it = self.told();
        tracing::info!(
            target: "access",
            id = it.id,
            client_id = it.client_id,
            api = it.api,
            key = it.key,
            model = it.model,
            to = it.to,
            tries = it.tries,
            status = it.status,
            code = it.code,
            end = it.end,
            ms = it.ms,
            first_content_ms = it.first_content_ms,
            bytes_in = it.bytes_in,
            bytes_out = it.bytes_out,
            input = it.input,
            cached = it.cached,
            output = it.output,
            request = it.request.as_deref(),
            request_cut = it.request_cut,
            request_type = it.request_type,
            answer = it.answer.as_deref(),
            answer_cut = it.answer_cut,
            answer_type = it.answer_type,
        );
    }

    /// It as JSON, for a file, written now.
    pub fn json(&self) -> String {
        let mut timestamp = String::new();
        // In the form of the lines on standard output. Into memory it can always be written.
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let written = Written {
            timestamp,
            level: "INFO",
            told: self.told(),
            target: "access",
        };
        // There is nothing in it that JSON could not say.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

/// Milliseconds to three places: what is finer is noise.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
