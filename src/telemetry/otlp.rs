//! How is a request that is over told to a collector? As spans of OTLP, in protobuf: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! Attributes have the names of the semantic conventions: `gen_ai.*` of semantic-conventions-genai as of v0.1.0
//! (<https://github.com/open-telemetry/semantic-conventions-genai>), `http.*`, `server.*` and `error.type` of v1.44.0. What
//! they have no name for is `tollgate.*`. Tokens stand with the tries that used them and nowhere else by those names: whoever
//! adds up spans counts none twice. No word of a prompt or an answer is among them, nor a secret.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};
use prost::Message as _;

use super::trace::{Times, Told, Tried};
use super::{End, Outcome};
use crate::usage::{INPUTS, Money, TOKENS, Usage};

/// What is sent to a collector, of a gateway that calls itself so.
pub fn encode(batch: &[Told], service: &str) -> Vec<u8> {
    let mut spans = Vec::with_capacity(batch.iter().map(|told| 1 + told.tries.len()).sum());
    for told in batch {
        let is_model = told.called.as_ref().is_some_and(|it| it.is_model);
        let operation = is_model.then(|| operation(told.api));
        spans.push(of_request(told, operation));
        let tries = told.tries.iter().enumerate();
        spans.extend(tries.map(|(n, tried)| of_try(told, tried, n, operation)));
        spans.extend(of_stream(told));
    }
    let own = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let mut of_service = Attributes::default();
    of_service.text("service.name", service);
    of_service.text("service.version", env!("CARGO_PKG_VERSION"));
    let whole = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: of_service.0,
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(own),
                spans,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    };
    whole.encode_to_vec()
}

/// How many spans a collector did not take of what it answered a success to, and why.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let answer = ExportTraceServiceResponse::decode(answer).ok()?;
    let partial = answer.partial_success?;
    let count = u64::try_from(partial.rejected_spans).unwrap_or(0);
    (count > 0).then_some((count, partial.error_message))
}

/// What a model is asked for at an endpoint, in the words of the conventions where they have one.
fn operation(api: &'static str) -> &'static str {
    match api {
        "chat_completions" | "responses" => "chat",
        "completions" => "text_completion",
        api => api,
    }
}

fn of_request(told: &Told, operation: Option<&'static str>) -> Span {
    let mut its = Attributes::default();
    its.text("http.request.method", told.method);
    let route = told.called.as_ref().map(|it| &*it.route);
    if let Some(route) = route {
        its.text("http.route", route);
    }
    its.number("http.response.status_code", told.status.into());
    if let Some(operation) = operation {
        its.text("gen_ai.operation.name", operation);
        its.flag("gen_ai.request.stream", told.is_stream);
    }
    if let Some(asked) = &told.asked {
        its.text("gen_ai.request.model", asked);
    }
    its.text("tollgate.request_id", told.id.as_str());
    if let Some(key) = &told.key {
        its.text("tollgate.key", key);
    }
    if let Some(target) = &told.target {
        its.text("tollgate.target", target);
    }
    its.number("tollgate.tries", told.count.into());
    its.text("tollgate.end", told.end.name());
    if let Some(code) = told.code {
        its.text("tollgate.code", code);
    }
    if let Some(usage) = &told.usage {
        let [input, output] = sums(usage);
        its.number("tollgate.input_tokens", input);
        its.number("tollgate.output_tokens", output);
    }
    its.cost(told.cost);
    let broken = broken(told.end);
    let status = told.status.to_string();
    let error = match told.status {
        500.. => Some(told.code.unwrap_or(&status)),
        _ => broken,
    };
    let what = operation.unwrap_or(match told.method {
        "_OTHER" => "HTTP",
        method => method,
    });
    // What a client made up is no name.
    let name = match (operation, &told.model, route) {
        (Some(_), Some(model), _) => format!("{what} {model}"),
        (None, _, Some(route)) => format!("{what} {route}"),
        _ => what.to_owned(),
    };
    let parent = told.parent.map(|parent| parent.span);
    let span = span(told, (told.context.span, parent), name, told.times());
    Span {
        kind: SpanKind::Server.into(),
        flags: of(told, told.parent.is_some()),
        ..its.of(span, error)
    }
}

fn of_try(told: &Told, tried: &Tried, n: usize, operation: Option<&'static str>) -> Span {
    let mut its = Attributes::default();
    let (provider, model) = tried.target.split_once('/').unwrap_or((&tried.target, ""));
    if let Some(operation) = operation {
        its.text("gen_ai.operation.name", operation);
    }
    its.text("gen_ai.provider.name", provider);
    its.text("gen_ai.request.model", model);
    if let Some((address, port)) = &tried.server {
        its.text("server.address", address);
        if let Some(port) = port {
            its.number("server.port", (*port).into());
        }
    }
    its.text("http.request.method", "POST");
    if let Some(status) = tried.status {
        its.number("http.response.status_code", status.into());
    }
    its.text("tollgate.target", &tried.target);
    its.number("tollgate.try", n as u64 + 1);
    let is_answer = told.answered().is_some_and(|it| it.span == tried.span);
    let outcome = tried.outcome.unwrap_or(Outcome::Cancelled);
    its.text("tollgate.outcome", outcome.name());
    if is_answer {
        its.flag("gen_ai.request.stream", told.is_stream);
        if let Some((_, waited)) = told.stream() {
            its.real("gen_ai.response.time_to_first_chunk", waited.as_secs_f64());
        }
    }
    if let Some(entered) = &tried.entered {
        its.usage(&entered.usage);
        its.cost(entered.cost);
    }
    let status = tried.status.map(|status| status.to_string());
    let error = match outcome {
        Outcome::Answered if is_answer => broken(told.end),
        // Another was faster, or nobody waited any more: it did nothing wrong.
        Outcome::Answered | Outcome::Cancelled => None,
        // A status says more than what it is taken for.
        _ if tried.status.is_some_and(|status| status >= 400) => status.as_deref(),
        outcome => Some(outcome.name()),
    };
    let name = format!("{} {model}", operation.unwrap_or("POST"));
    let ids = (tried.span, Some(told.context.span));
    let span = span(told, ids, name, told.times_of(tried));
    Span {
        kind: SpanKind::Client.into(),
        ..its.of(span, error)
    }
}

/// A stream from its first content on, within the try that it is the answer of.
fn of_stream(told: &Told) -> Option<Span> {
    let (times, _) = told.stream()?;
    let tried = told.answered()?;
    let mut its = Attributes::default();
    its.text("tollgate.end", told.end.name());
    its.text("tollgate.target", &tried.target);
    // Any number will do that is no other's: a try has one stream.
    let id = (tried.span.rotate_left(32) ^ told.context.span).max(1);
    let span = span(told, (id, Some(tried.span)), "stream".into(), times);
    Some(Span {
        kind: SpanKind::Internal.into(),
        ..its.of(span, broken(told.end))
    })
}

/// Why an answer that ended so is none. None: it is one, or it was its client that did not want it.
fn broken(end: End) -> Option<&'static str> {
    match end {
        End::Complete | End::ClientGone => None,
        End::BudgetCut | End::Error | End::Shutdown | End::Stalled | End::Truncated => {
            Some(end.name())
        }
    }
}

/// A span of this id below a parent's, and nothing more.
fn span(told: &Told, (id, parent): (u64, Option<u64>), name: String, times: Times) -> Span {
    let bytes = |id: u64| id.to_be_bytes().to_vec();
    let (began, ended) = times;
    Span {
        trace_id: told.context.trace.to_be_bytes().to_vec(),
        span_id: bytes(id),
        parent_span_id: parent.map_or_else(Vec::new, bytes),
        trace_state: told.state.as_deref().unwrap_or_default().to_owned(),
        flags: of(told, false),
        name,
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(ended),
        ..Span::default()
    }
}

/// The flags of a span: those of its trace, and whether its parent is another's.
fn of(told: &Told, is_below_another: bool) -> u32 {
    let mut flags = u32::from(told.context.is_sampled) | bits(SpanFlags::ContextHasIsRemoteMask);
    if is_below_another {
        flags |= bits(SpanFlags::ContextIsRemoteMask);
    }
    flags
}

fn bits(flags: SpanFlags) -> u32 {
    u32::try_from(i32::from(flags)).unwrap_or(0)
}

/// Since 1970.
fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// All tokens of input, and all of output.
fn sums(usage: &Usage) -> [u64; 2] {
    let counts = usage.counts();
    let (input, rest) = counts.split_at(INPUTS);
    let output = rest.iter().take(TOKENS - INPUTS);
    [
        input.iter().fold(0, |sum, n| u64::saturating_add(sum, *n)),
        output.fold(0, |sum, n| u64::saturating_add(sum, *n)),
    ]
}

/// What is known of something.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, name: &str, value: Value) {
        self.0.push(KeyValue {
            key: name.into(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }

    fn text(&mut self, name: &str, text: &str) {
        self.put(name, Value::StringValue(text.into()));
    }

    fn number(&mut self, name: &str, number: u64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.put(name, Value::IntValue(number));
    }

    fn real(&mut self, name: &str, number: f64) {
        self.put(name, Value::DoubleValue(number));
    }

    fn flag(&mut self, name: &str, is_so: bool) {
        self.put(name, Value::BoolValue(is_so));
    }

    /// An amount of money: a whole number, as the ledger has it.
    fn cost(&mut self, cost: Option<Money>) {
        if let Some(Money(billionths)) = cost {
            self.number("tollgate.cost_nano_usd", billionths);
        }
    }

    /// Tokens, where there are any: the conventions' sums contain their parts.
    fn usage(&mut self, usage: &Usage) {
        let [input, output] = sums(usage);
        let written = usage.cache_write.saturating_add(usage.cache_write_1h);
        for (name, count) in [
            ("gen_ai.usage.input_tokens", input),
            ("gen_ai.usage.output_tokens", output),
            ("gen_ai.usage.cache_read.input_tokens", usage.cached),
            ("gen_ai.usage.cache_write.input_tokens", written),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
            ("gen_ai.usage.audio.input_tokens", usage.audio_input),
            ("gen_ai.usage.audio.output_tokens", usage.audio_output),
            ("gen_ai.usage.image.input_tokens", usage.image_input),
            ("gen_ai.usage.image.output_tokens", usage.image_output),
        ] {
            if count > 0 {
                self.number(name, count);
            }
        }
    }

    /// A span with them; and why it is an error, if it is one.
    fn of(mut self, span: Span, error: Option<&str>) -> Span {
        let status = error.map(|why| {
            self.text("error.type", why);
            Status {
                code: StatusCode::Error.into(),
                message: String::new(),
            }
        });
        Span {
            attributes: self.0,
            status,
            ..span
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    #[test]
    fn what_a_collector_did_not_take_is_heard() {
        let answer = |rejected_spans| {
            let partial_success = Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: "too many".into(),
            });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        assert_eq!(rejected(&answer(3)), Some((3, "too many".into())));
        assert_eq!(rejected(&answer(0)), None, "a warning only");
        assert_eq!(rejected(&answer(-1)), None);
        assert_eq!(rejected(b""), None);
        assert_eq!(rejected(b"{}"), None);
    }

    #[test]
    fn sums_contain_their_parts() {
        let usage = Usage {
            input: 1,
            cached: 2,
            cache_write: 4,
            cache_write_1h: 8,
            audio_input: 16,
            image_input: 32,
            output: 100,
            reasoning: 200,
            characters: 5_000,
            ..Usage::default()
        };
        assert_eq!(sums(&usage), [63, 300]);
    }

    #[test]
    fn an_operation_has_the_conventions_name_if_there_is_one() {
        let names = super::super::APIS.map(operation);
        let want = [
            "chat",
            "text_completion",
            "embeddings",
            "chat",
            "audio_speech",
        ];
        assert_eq!(names[..5], want);
    }
}
