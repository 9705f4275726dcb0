//! Is it an answer? Reads as much of one as it takes to be sure, and no more.
//!
//! A short answer is held whole and a stream up to its first content, so that a truncated or nonsensical one can still
//! move on to another try. What is held is at most [`HELD`] bytes.

use std::future::poll_fn;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use tokio::time::Instant;

use super::{AnswerBody, Broken, Call, Cause, Exchange, Inflow, Said};
use crate::protocol::{Ended, Ending, Pieces};
use crate::provider::Provider;
use crate::provider::errors::{self, Fault, Retry};

/// What is held back of an answer, in bytes, before it must be passed on as it comes.
const HELD: usize = 64 << 10;

/// The longest list of models that is read, in bytes: OpenRouter's has about a megabyte.
const LONGEST_LIST: usize = 16 << 20;

/// An error of the provider's, read and judged.
pub(super) struct Judged {
    pub(super) said: Said,
    pub(super) fault: Fault,
    pub(super) retry: Retry,
    pub(super) wait: Option<std::time::Duration>,
}

/// Reads an error.
pub(super) async fn error(provider: &Provider, mut exchange: Exchange, now: SystemTime) -> Judged {
    // An error that breaks off is an error all the same.
    let body = match hold(&mut exchange.inflow).await {
        Ok(Held::All(body)) => Some(body),
        Ok(Held::Part(_)) | Err(_) => None,
    };
    let (status, headers) = (exchange.status, exchange.headers);
    let (fault, retry) = errors::judge(status, &headers, body.as_deref().unwrap_or_default());
    let wait = errors::stated_wait(&headers, now);
    // Nobody but the client hears a provider's words, only about the client's own faults, and only if they are of the
    // format: a proxy's page of HTML helps no client.
    let said = Said {
        status,
        headers,
        body: body.filter(|body| fault == Fault::Client && provider.protocol.read(body).is_some()),
    };
    Judged {
        said,
        fault,
        retry,
        wait,
    }
}

/// Reads an answer that claims success.
pub(super) async fn answer(
    provider: &Provider,
    call: &Call<'_>,
    hide_usage: bool,
    headers: &HeaderMap,
    inflow: Inflow,
) -> Result<AnswerBody, Cause> {
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
    {
        return Err(Cause::Nonsense(
            "it is encoded, though we asked for it as it is",
        ));
    }
    if call.stream {
        Box::pin(stream(provider, hide_usage, headers, inflow)).await
    } else {
        whole(provider, inflow).await
    }
}

async fn whole(provider: &Provider, mut inflow: Inflow) -> Result<AnswerBody, Cause> {
    const NO_JSON: Cause = Cause::Nonsense("its body is not JSON");
    match hold(&mut inflow).await? {
        Held::All(body) => match provider.protocol.read(&body) {
            Some(reading) if reading.is_error => Err(Cause::Nonsense(
                "it is an error in the clothes of an answer",
            )),
            Some(reading) => Ok(AnswerBody::Whole(body, reading.usage)),
            None => Err(NO_JSON),
        },
        Held::Part(pieces) => {
            let first = pieces
                .iter()
                .flat_map(|piece| piece.iter())
                .find(|b| !b.is_ascii_whitespace());
            if first != Some(&b'{') {
                return Err(NO_JSON);
            }
            let mut skimmer = provider.protocol.skimmer();
            pieces.iter().for_each(|piece| skimmer.feed(piece));
            inflow.flows(Instant::now());
            Ok(AnswerBody::Long {
                pieces,
                skimmer,
                inflow,
            })
        }
    }
}

async fn stream(
    provider: &Provider,
    hide_usage: bool,
    headers: &HeaderMap,
    mut inflow: Inflow,
) -> Result<AnswerBody, Cause> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    if !content_type
        .to_ascii_lowercase()
        .starts_with(b"text/event-stream")
    {
        return Err(Cause::Nonsense(
            "we asked for a stream and it sent something else",
        ));
    }
    let mut decoder = provider.protocol.decoder(Ending {
        marker: provider.done_marker,
        hide_usage,
    });
    let mut pieces = Pieces::new();
    while !decoder.progress().content && decoder.progress().end.is_none() {
        let Some(piece) = poll_fn(|cx| inflow.poll_piece(cx)).await else {
            decoder.finish(&mut pieces);
            return Err(Cause::Nonsense(
                "its stream ended before there was anything in it",
            ));
        };
        let piece = piece?;
        let fed = decoder.feed(piece, &mut pieces);
        // Only whole events count: the one under way may be an image, and the decoder bounds it.
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if fed.is_err() || (length > HELD && !decoder.progress().content) {
            return Err(Cause::Nonsense(
                "64 KiB of its stream held no event with content",
            ));
        }
    }
    if matches!(decoder.progress().end, Some(Ended::Error { .. })) && !decoder.progress().content {
        return Err(Cause::Nonsense("its stream began with an error"));
    }
    inflow.flows(Instant::now());
    Ok(AnswerBody::Stream {
        pieces,
        decoder,
        inflow,
    })
}

/// Reads a list of models: longer than an answer that is held may be, but not without bound.
pub(super) async fn list(mut inflow: Inflow) -> Result<Bytes, Cause> {
    let mut whole = BytesMut::new();
    while let Some(piece) = poll_fn(|cx| inflow.poll_piece(cx)).await {
        whole.extend_from_slice(&piece?);
        if whole.len() > LONGEST_LIST {
            return Err(Cause::Nonsense("its list of models has no end"));
        }
    }
    Ok(whole.freeze())
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
