//! A collector of traces: a server that takes what it is sent, and reads it with OpenTelemetry's own messages.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, Status, status};
use prost::Message as _;

use super::{Act, Provider, until};

/// What it answers a batch with: an empty message.
pub fn takes() -> Act {
    let kind = ("content-type", "application/x-protobuf".to_owned());
    Act::Answer(200, vec![kind], Vec::new())
}

/// One that takes everything.
pub async fn collector() -> Provider {
    Provider::new([takes()]).await
}

/// `[traces]` to a collector, with more lines of its own.
pub fn traces(collector: &Provider, more: &str) -> String {
    let address = collector.address;
    format!("[traces]\nendpoint = \"http://{address}\"\n{more}\n")
}

/// All that it was sent.
pub fn told(collector: &Provider) -> Vec<ResourceSpans> {
    let all = collector.received().into_iter();
    let read = |body: Vec<u8>| ExportTraceServiceRequest::decode(&*body).unwrap();
    all.flat_map(|it| read(it.body).resource_spans).collect()
}

/// The spans that it has by now.
pub fn spans(collector: &Provider) -> Vec<Seen> {
    let all = told(collector).into_iter().flat_map(|it| it.scope_spans);
    all.flat_map(|it| it.spans).map(Seen).collect()
}

/// Waits until it has so many spans, and gives them: parents first, then by the time they began.
pub async fn seen(collector: &Provider, count: usize) -> Vec<Seen> {
    until("the spans are there", || spans(collector).len() >= count).await;
    let mut spans = spans(collector);
    assert_eq!(spans.len(), count, "{spans:#?}");
    let rank = |it: &Seen| match it.0.kind() {
        SpanKind::Server => 0,
        SpanKind::Client => 1,
        _ => 2,
    };
    spans.sort_by_key(|it| (rank(it), it.0.start_time_unix_nano));
    spans
}

/// A span.
#[derive(Clone, Debug)]
pub struct Seen(pub Span);

impl Seen {
    /// An attribute as text, whatever it is. Empty: there is none.
    pub fn get(&self, name: &str) -> String {
        let found: Vec<_> = self
            .0
            .attributes
            .iter()
            .filter(|it| it.key == name)
            .collect();
        assert!(found.len() < 2, "{name} is there twice: {self:?}");
        let value = found.first().and_then(|it| it.value.clone()?.value);
        match value {
            None => String::new(),
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            Some(Value::BoolValue(is_so)) => is_so.to_string(),
            Some(other) => panic!("{name}: {other:?}"),
        }
    }

    /// Several of them, with commas.
    pub fn all(&self, names: &[&str]) -> String {
        let values: Vec<_> = names.iter().map(|name| self.get(name)).collect();
        values.join(",")
    }

    pub fn is_error(&self) -> bool {
        let code = self.0.status.as_ref().map(Status::code);
        code == Some(status::StatusCode::Error)
    }

    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.trace_id == parent.0.trace_id && self.0.parent_span_id == parent.0.span_id
    }

    /// As a `traceparent` names it.
    pub fn name(&self) -> String {
        let trace = u128::from_be_bytes(self.0.trace_id.clone().try_into().unwrap());
        let span = u64::from_be_bytes(self.0.span_id.clone().try_into().unwrap());
        format!("00-{trace:032x}-{span:016x}-01")
    }

    /// How long it was, in milliseconds.
    pub fn ms(&self) -> u64 {
        (self.0.end_time_unix_nano - self.0.start_time_unix_nano) / 1_000_000
    }
}
