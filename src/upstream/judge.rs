//! Is it an answer? Reads as much of one as it takes to be sure, and no more.
//!
//! A short answer is held whole and a stream up to its first content, so that a truncated or nonsensical one can still
//! move on to another try. What is held is at most [`HELD`] bytes, and for as long as its provider's `prelude` says.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep};

use super::{AnswerBody, Begun, Broken, Call, Cause, Exchange, Failure, Inflow, Said};
use crate::protocol::{
    Ended, Ending, Endpoint, ErrorBody, Opaque, Pieces, Progress, Reading, Skimmer, Whole,
};
use crate::provider::Provider;
use crate::provider::errors::{self, Fault, Retry};
use crate::provider::unfit::Unfit;
use crate::usage::Usage;

/// What is held back of an answer, in bytes, before it must be passed on as it comes.
const HELD: usize = 64 << 10;

/// The longest list of models that is read, in bytes: OpenRouter's has about a megabyte.
const LONGEST_LIST: u64 = 16 << 20;

/// An error of the provider's, read and judged.
pub(super) struct Judged {
    pub(super) said: Said,
    pub(super) fault: Fault,
    pub(super) retry: Retry,
    pub(super) wait: Option<Duration>,
}

impl Judged {
    /// What went wrong with a try.
    pub(super) fn failure(self, target: &Arc<str>) -> Failure {
        Failure {
            target: Arc::clone(target),
            cause: Cause::Status(Box::new(self.said)),
            fault: self.fault,
            retry: self.retry,
            wait: self.wait,
        }
    }
}

/// Why a success is none.
pub(super) enum NoAnswer {
    /// It is no answer at all, or did not come.
    Failed(Cause),
    /// It is an error in the clothes of an answer.
    Error(Box<Told>),
}

/// What an error says, and its bytes where they are a body.
#[derive(Default)]
pub(super) struct Told {
    error: ErrorBody,
    body: Bytes,
    /// What it cost all the same.
    pub(super) usage: Option<Usage>,
}

impl From<Cause> for NoAnswer {
    fn from(cause: Cause) -> Self {
        Self::Failed(cause)
    }
}

impl From<Broken> for NoAnswer {
    fn from(broken: Broken) -> Self {
        Self::Failed(broken.into())
    }
}

/// Reads an error.
pub(super) async fn error(provider: &Provider, mut exchange: Exchange, now: SystemTime) -> Judged {
    // An error that breaks off is an error all the same.
    let body = match hold(&mut exchange.inflow).await {
        Ok(Held::All(body)) if !is_encoded(&exchange.headers) => body,
        Ok(_) | Err(_) => Bytes::new(),
    };
    let error = provider.protocol.error(&body).unwrap_or_default();
    let told = Told {
        error,
        body,
        usage: None,
    };
    judged(
        exchange.status,
        exchange.status,
        exchange.headers,
        told,
        now,
    )
}

/// Judges an error that came as a success, by what it says.
pub(super) fn disguised(
    came_as: StatusCode,
    headers: HeaderMap,
    told: Told,
    now: SystemTime,
) -> Judged {
    judged(errors::meant(&told.error), came_as, headers, told, now)
}

fn judged(
    status: StatusCode,
    came_as: StatusCode,
    mut headers: HeaderMap,
    told: Told,
    now: SystemTime,
) -> Judged {
    let Told { error, body, .. } = told;
    let unfit = Unfit::of(status, &error);
    let lacks_endpoint = errors::lacks_endpoint(status, &error);
    // It is the client's fault, whatever older servers call it.
    let status = match unfit {
        Some(_) if status.is_server_error() => StatusCode::BAD_REQUEST,
        _ => status,
    };
    let (fault, retry) = errors::judge(status, &headers, &error);
    let wait = errors::stated_wait(&headers, &error, now);
    // Nobody but the client hears a provider's words, and only about its own faults: as they came, if that is the way
    // it reads errors.
    let body = match fault {
        Fault::Client if error.in_envelope && !body.is_empty() => Some(body),
        Fault::Client => {
            let written = error.body(status);
            if written.is_some() {
                describe_as_json(&mut headers);
            }
            written
        }
        _ => None,
    };
    let said = Said {
        status,
        came_as,
        headers,
        body,
        unfit,
        lacks_endpoint,
    };
    Judged {
        said,
        fault,
        retry,
        wait,
    }
}

/// What the headers say of the body that came is not true of the one that is written instead.
fn describe_as_json(headers: &mut HeaderMap) {
    let is_of_body = |name: &&HeaderName| name.as_str().starts_with("content-");
    let gone: SmallVec<[HeaderName; 4]> = headers.keys().filter(is_of_body).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
}

/// Reads an answer that claims success.
pub(super) async fn answer(
    provider: &Provider,
    call: &Call<'_>,
    hide_usage: bool,
    headers: &HeaderMap,
    inflow: Inflow,
) -> Result<AnswerBody, NoAnswer> {
    if is_encoded(headers) {
        let cause = Cause::Nonsense("it is encoded, though we asked for it as it is");
        return Err(cause.into());
    }
    let endpoint = call.endpoint;
    match endpoint.whole() {
        _ if call.stream => {
            let way = (endpoint, hide_usage);
            Box::pin(stream(provider, way, headers, inflow)).await
        }
        Whole::Text if !claims(headers, b"application/json") => {
            Box::pin(text(provider, endpoint, headers, inflow)).await
        }
        Whole::Json | Whole::Text => whole(provider, endpoint, inflow).await,
        Whole::Sound => Box::pin(sound(provider, endpoint, headers, inflow)).await,
    }
}

/// Whether the type that a body is said to be of begins so.
fn claims(headers: &HeaderMap, start: &[u8]) -> bool {
    let stated = headers.get(header::CONTENT_TYPE);
    let stated = stated.map_or(&b""[..], |stated| stated.as_bytes());
    let stated = stated.trim_ascii_start().get(..start.len());
    stated.is_some_and(|stated| stated.eq_ignore_ascii_case(start))
}

async fn whole(
    provider: &Provider,
    endpoint: Endpoint,
    mut inflow: Inflow,
) -> Result<AnswerBody, NoAnswer> {
    const NO_JSON: Cause = Cause::Nonsense("its body is not JSON");
    match hold(&mut inflow).await? {
        Held::All(body) => match provider.protocol.read(endpoint, &body) {
            Some(reading) if reading.is_error => Err(in_clothes(provider, body, reading.usage)),
            Some(reading) => Ok(AnswerBody::Whole(body, reading)),
            None => Err(NO_JSON.into()),
        },
        Held::Part(pieces) => {
            let first = pieces
                .iter()
                .flat_map(|piece| piece.iter())
                .find(|b| !b.is_ascii_whitespace());
            if first != Some(&b'{') {
                return Err(NO_JSON.into());
            }
            Ok(long(pieces, inflow, provider.protocol.skimmer(endpoint)))
        }
    }
}

/// An answer that is passed on as it comes from here on.
fn long(pieces: Pieces, mut inflow: Inflow, mut skimmer: Box<dyn Skimmer>) -> AnswerBody {
    pieces.iter().for_each(|piece| skimmer.feed(piece));
    inflow.flows(Instant::now());
    AnswerBody::Long(Box::new(Begun { pieces, inflow }), skimmer)
}

/// Plain text, as somebody was heard to say it: whoever says nothing may be heard, too.
async fn text(
    provider: &Provider,
    endpoint: Endpoint,
    headers: &HeaderMap,
    mut inflow: Inflow,
) -> Result<AnswerBody, NoAnswer> {
    if claims(headers, b"text/html") {
        return Err(Cause::Nonsense("it is a web page").into());
    }
    match hold(&mut inflow).await? {
        Held::All(body) => match provider.protocol.read(endpoint, &body) {
            Some(reading) if reading.is_error => Err(in_clothes(provider, body, reading.usage)),
            reading => Ok(AnswerBody::Whole(body, reading.unwrap_or_default())),
        },
        Held::Part(pieces) => Ok(long(pieces, inflow, Box::new(Opaque))),
    }
}

/// Sound, which is played while it comes: nothing of it is held back.
async fn sound(
    provider: &Provider,
    endpoint: Endpoint,
    headers: &HeaderMap,
    mut inflow: Inflow,
) -> Result<AnswerBody, NoAnswer> {
    const SILENT: Cause = Cause::Nonsense("it sent no sound");
    const NO_SOUND: Cause = Cause::Nonsense("we asked for sound and it sent something else");
    if ["application/json", "text/"]
        .into_iter()
        .any(|start| claims(headers, start.as_bytes()))
    {
        return match hold(&mut inflow).await? {
            Held::All(body) => match provider.protocol.read(endpoint, &body) {
                Some(reading) if reading.is_error => Err(in_clothes(provider, body, reading.usage)),
                _ => Err(NO_SOUND.into()),
            },
            Held::Part(_) => Err(NO_SOUND.into()),
        };
    }
    while let Some(piece) = poll_fn(|cx| inflow.poll_piece(cx)).await {
        let piece = piece?;
        if !piece.is_empty() {
            if inflow.is_over() {
                return Ok(AnswerBody::Whole(piece, Reading::default()));
            }
            let pieces = Pieces::from_iter([piece]);
            return Ok(long(pieces, inflow, Box::new(Opaque)));
        }
    }
    Err(SILENT.into())
}

/// A body that is an error, though its status is a success.
fn in_clothes(provider: &Provider, body: Bytes, usage: Option<Usage>) -> NoAnswer {
    let error = provider.protocol.error(&body).unwrap_or_default();
    NoAnswer::Error(Box::new(Told { error, body, usage }))
}

async fn stream(
    provider: &Provider,
    (endpoint, hide_usage): (Endpoint, bool),
    headers: &HeaderMap,
    mut inflow: Inflow,
) -> Result<AnswerBody, NoAnswer> {
    if !claims(headers, b"text/event-stream") {
        return Err(no_stream(provider, endpoint, inflow).await);
    }
    let ends = Ending {
        marker: provider.done_marker,
        hide_usage,
    };
    let mut decoder = provider.protocol.decoder(endpoint, ends);
    let mut pieces = Pieces::new();
    let mut prelude = Prelude::of(provider);
    while !decoder.progress().content && decoder.progress().end.is_none() {
        let Some(piece) = prelude.wait(&mut inflow).await else {
            break;
        };
        let Some(piece) = piece else {
            decoder.finish(&mut pieces);
            // All of it may have been in one event, whose blank line never came.
            let Progress { content, end, .. } = *decoder.progress();
            if matches!(end, Some(Ended::Error { .. })) || (content && end.is_some()) {
                break;
            }
            let cause = Cause::Nonsense("its stream ended before there was anything in it");
            return Err(cause.into());
        };
        let piece = piece?;
        if decoder.feed(piece, &mut pieces).is_err() {
            let cause = Cause::Nonsense("an event of its stream is longer than 16 MiB");
            return Err(cause.into());
        }
        let Progress { content, begun, .. } = *decoder.progress();
        // Only whole events count: the one under way may be an image, and the decoder bounds it.
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length > HELD && !content {
            if begun {
                break;
            }
            let cause = Cause::Nonsense("64 KiB of its stream held no event");
            return Err(cause.into());
        }
        if begun {
            prelude.begins();
        }
    }
    if matches!(decoder.progress().end, Some(Ended::Error { .. })) && !decoder.progress().content {
        let error = decoder.error().unwrap_or_default();
        let (body, usage) = (Bytes::new(), decoder.progress().usage);
        return Err(NoAnswer::Error(Box::new(Told { error, body, usage })));
    }
    inflow.flows(Instant::now());
    let begun = Box::new(Begun { pieces, inflow });
    Ok(AnswerBody::Stream(begun, decoder))
}

/// How long what comes before the first content is held back.
struct Prelude {
    /// None: the clock of the first content ends the try before that.
    most: Option<Duration>,
    /// None until something is held that is more than a comment.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Prelude {
    fn of(provider: &Provider) -> Self {
        let Provider {
            prelude, timeouts, ..
        } = provider;
        Self {
            most: Some(*prelude).filter(|most| *most < timeouts.first_content),
            timer: None,
        }
    }

    /// Something is held.
    fn begins(&mut self) {
        if let (Some(most), None) = (self.most, &self.timer) {
            self.timer = Some(Box::pin(sleep(most)));
        }
    }

    /// The next piece, or the end. None: what is held has been held long enough.
    async fn wait(&mut self, inflow: &mut Inflow) -> Option<Option<Result<Bytes, Broken>>> {
        poll_fn(|cx| match (inflow.poll_piece(cx), &mut self.timer) {
            (Poll::Ready(piece), _) => Poll::Ready(Some(piece)),
            (Poll::Pending, Some(timer)) => timer.as_mut().poll(cx).map(|()| None),
            (Poll::Pending, None) => Poll::Pending,
        })
        .await
    }
}

/// Instead of a stream there is something else: an error, as a body of its own, or nothing we could use.
async fn no_stream(provider: &Provider, endpoint: Endpoint, mut inflow: Inflow) -> NoAnswer {
    const NO_STREAM: Cause = Cause::Nonsense("we asked for a stream and it sent something else");
    match hold(&mut inflow).await {
        Ok(Held::All(body)) => match provider.protocol.read(endpoint, &body) {
            Some(reading) if reading.is_error => in_clothes(provider, body, reading.usage),
            _ => NO_STREAM.into(),
        },
        Ok(Held::Part(_)) => NO_STREAM.into(),
        Err(broken) => broken.into(),
    }
}

/// Reads a list of models: longer than an answer that is held may be, but not without bound.
pub(super) async fn list(inflow: Inflow) -> Result<Bytes, Cause> {
    let whole = inflow.whole(LONGEST_LIST).await?;
    whole.ok_or(Cause::Nonsense("its list has no end"))
}

enum Held {
    All(Bytes),
    Part(Pieces),
}

/// Reads up to [`HELD`] bytes.
async fn hold(inflow: &mut Inflow) -> Result<Held, Broken> {
    let mut pieces = Pieces::new();
    let mut length = 0;
    while let Some(piece) = poll_fn(|cx| inflow.poll_piece(cx)).await {
        let piece = piece?;
        length += piece.len();
        pieces.push(piece);
        if inflow.is_over() {
            break;
        }
        if length > HELD {
            return Ok(Held::Part(pieces));
        }
    }
    Ok(Held::All(match pieces.len() {
        0 | 1 => pieces.pop().unwrap_or_default(),
        _ => {
            let mut whole = BytesMut::with_capacity(length);
            pieces
                .iter()
                .for_each(|piece| whole.extend_from_slice(piece));
            whole.freeze()
        }
    }))
}
