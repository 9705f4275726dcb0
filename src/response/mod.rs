//! Give it back: an answer, or a rejection.
//!
//! The body that goes to the client carries everything the request holds; when it ends or is dropped, all of it is
//! given back, at once or by the finisher that reads on. Knows `admission`, `ledger`, `protocol`, `telemetry`, `upstream`
//! and `usage`.

mod alive;
mod finish;
mod lead;
mod relay;
mod replay;
mod source;
pub mod twins;

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Frame, SizeHint};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::admission::{Permit, limits};
use crate::protocol::last_event;
use crate::telemetry::{End, Record, RequestId};
use crate::upstream::{Answer, AnswerBody, Tab};
use crate::usage::Money;
pub use alive::{Alive, Timers};
pub use finish::Finisher;
pub use lead::{LONGEST, Lead, lead, read_out};
pub use relay::{Broken, Relay, read_on};
use relay::{Flow, Reader};
pub use replay::{Follow, Head, Reader as Replayed, follow};
use source::{Early, Source};

/// What a client is sent.
pub struct Body {
    source: Source,
    /// Of a stream only.
    alive: Option<Box<Alive>>,
}

/// What the head of an answer says that has not come yet.
pub struct Opening {
    /// The request's.
    pub id: RequestId,
    /// The origin of the web page that asks, if one does and may.
    pub page: Option<HeaderValue>,
}

/// A body in one piece, and what ends with it.
pub struct Whole {
    bytes: Option<Bytes>,
    record: Box<Record>,
    _permit: Option<Permit>,
}

/// Says that time is up: every answer under way ends with an error of ours. Whoever polls it next sees it.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<AtomicBool>);

impl Closing {
    /// Time is up.
    pub fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is.
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What an answer cost, in US dollars.
const COST: HeaderName = HeaderName::from_static("x-tollgate-cost-usd");

/// An answer of a provider's, with what the request holds, for a client that has waited for it.
pub fn relay(
    answer: Box<Answer>,
    permit: Option<Permit>,
    tab: Box<Tab>,
    mut record: Box<Record>,
    finisher: &Arc<Finisher>,
    alive: Option<Box<Alive>>,
) -> Response<Body> {
    let Answer {
        status,
        mut headers,
        body,
    } = *answer;
    strip(&mut headers);
    record.answers(&headers);
    sign(&mut headers, &record);
    if let Some(permit) = &permit {
        limits::tell(&permit.left, &mut headers);
    }
    record.status = status.as_u16();
    let alive = match &body {
        AnswerBody::Whole(..) => {
            headers.remove(header::CONTENT_LENGTH);
            if let Some(cost) = record.cost.and_then(amount) {
                headers.insert(COST, cost);
            }
            None
        }
        AnswerBody::Long(..) => None,
        AnswerBody::Stream(..) => {
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            alive.or_else(|| Some(Box::new(Alive::of(tab.presence()))))
        }
    };
    let mut response = Response::new(Body {
        alive,
        ..go_on(body, permit, tab, record, finisher)
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The same, for a client that has had a head before.
pub fn go_on(
    body: AnswerBody,
    permit: Option<Permit>,
    tab: Box<Tab>,
    mut record: Box<Record>,
    finisher: &Arc<Finisher>,
) -> Body {
    let (begun, reader) = match body {
        AnswerBody::Whole(bytes, _) => {
            record.content.get_or_insert_with(Instant::now);
            return whole(bytes, record, permit);
        }
        AnswerBody::Long(begun, skimmer) => {
            record.content.get_or_insert_with(Instant::now);
            (begun, Reader::Long(skimmer))
        }
        AnswerBody::Stream(begun, decoder) => {
            (begun, Reader::Stream(decoder, finisher.closing().clone()))
        }
    };
    let flow = Flow::new(*begun, reader, tab, record);
    Body {
        source: Source::Relay(Relay::new(flow, permit, finisher)),
        alive: None,
    }
}

/// The status, and a body that waits for the answer: its client has heard nothing for too long. What is not known yet is
/// not in the head: neither the target nor what is left of limits.
pub fn begin(
    Opening { id, page }: &Opening,
    alive: Box<Alive>,
    coming: impl Future<Output = Body> + Send + 'static,
) -> Response<Body> {
    alive.begins();
    let mut response = Response::new(Body {
        source: Source::Early(Early::new(coming)),
        alive: Some(alive),
    });
    let headers = response.headers_mut();
    let stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, stream);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    open(headers, *id, page.as_ref());
    response
}

/// An error, as the last event of a stream that is begun and has no answer; and the request is over.
pub fn complain(error: &[u8], end: End, mut record: Box<Record>) -> Body {
    record.end.get_or_insert(end);
    whole(last_event(error), record, None)
}

/// An amount of money as a header's value.
fn amount(money: Money) -> Option<HeaderValue> {
    // Written where it stands: every amount has room here.
    let mut text = [0; 32];
    let mut rest = &mut text[..];
    write!(rest, "{money}").ok()?;
    let left = rest.len();
    HeaderValue::from_bytes(text.get(..text.len() - left)?).ok()
}

/// What a provider said, in one piece, and the request is over.
pub fn pass_on(
    mut told: Response<Bytes>,
    record: Box<Record>,
    permit: Option<Permit>,
) -> Response<Body> {
    let headers = told.headers_mut();
    strip(headers);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(permit) = &permit {
        limits::tell(&permit.left, headers);
    }
    ends(told, record, permit)
}

/// Words of our own, in one piece, and the request is over.
pub fn say(told: Response<Bytes>, record: Box<Record>) -> Response<Body> {
    ends(told, record, None)
}

fn ends(told: Response<Bytes>, mut record: Box<Record>, permit: Option<Permit>) -> Response<Body> {
    let (mut head, bytes) = told.into_parts();
    record.status = head.status.as_u16();
    record.answers(&head.headers);
    sign(&mut head.headers, &record);
    Response::from_parts(head, whole(bytes, record, permit))
}

fn whole(bytes: Bytes, mut record: Box<Record>, permit: Option<Permit>) -> Body {
    record.passes(&bytes);
    // Nobody asks for a body that there is none of.
    if bytes.is_empty() {
        record.end.get_or_insert(End::Complete);
    }
    let whole = Whole {
        bytes: Some(bytes),
        record,
        _permit: permit,
    };
    Body {
        source: Source::Whole(Box::new(whole)),
        alive: None,
    }
}

/// Ours, on every answer, also one that has not come yet.
fn open(headers: &mut HeaderMap, id: RequestId, page: Option<&HeaderValue>) {
    headers.insert(RequestId::NAME, id.header());
    if let Some(page) = page {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page.clone());
        let all = HeaderValue::from_static("*");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, all);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// Ours, on every answer.
fn sign(headers: &mut HeaderMap, record: &Record) {
    const EXPLAIN: HeaderName = HeaderName::from_static("x-tollgate-explain");
    const DROPPED: HeaderName = HeaderName::from_static("x-tollgate-dropped");
    const TARGET: HeaderName = HeaderName::from_static("x-tollgate-target");
    const TRIES: HeaderName = HeaderName::from_static("x-tollgate-tries");
    open(headers, record.id, record.page.as_ref());
    if record.is_kept() {
        headers.insert(EXPLAIN, HeaderValue::from_static("kept"));
    }
    if let Some(dropped) = &record.dropped {
        headers.insert(DROPPED, dropped.clone());
    }
    if let Some(target) = &record.target
        && let Ok(value) = HeaderValue::from_str(target)
    {
        headers.insert(TARGET, value);
        headers.insert(
            TRIES,
            match record.tries {
                1 => HeaderValue::from_static("1"),
                tries => HeaderValue::from(tries),
            },
        );
    }
}

/// Takes out what is not for the client: what belongs to the provider's connection (RFC 9110, 7.6.1), its cookies, its
/// name, limits that are its own, what only we may say, and what it says to browsers, which do not ask it but us.
fn strip(headers: &mut HeaderMap) {
    let mut hops = String::new();
    for value in headers.get_all(header::CONNECTION) {
        hops.push_str(&value.to_str().unwrap_or_default().to_ascii_lowercase());
        hops.push(',');
    }
    let is_named = |name: &str| hops.split(',').any(|hop| hop.trim() == name);
    // Most answers have nothing of the kind but perhaps a `server`, so one look at each name is enough.
    let ours = |name: &&HeaderName| {
        let name = name.as_str();
        matches!(
            name,
            "connection"
                | "keep-alive"
                | "proxy-authenticate"
                | "proxy-connection"
                | "server"
                | "set-cookie"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        ) || name.starts_with("x-ratelimit-")
            || name.starts_with("access-control-")
            || name.starts_with("x-tollgate-")
            || (!hops.is_empty() && is_named(name))
    };
    let gone: SmallVec<[HeaderName; 4]> = headers.keys().filter(ours).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Self { source, alive } = self.get_mut();
        let piece = match (source.poll_piece(cx), alive) {
            (Poll::Ready(Some(Ok(piece))), Some(alive)) => Some(Ok(alive.passes(piece))),
            (Poll::Ready(piece), _) => piece,
            // Between two pieces, and so between two events.
            (Poll::Pending, Some(alive)) if source.is_open() => {
                Some(Ok(ready!(alive.poll_comment(cx))))
            }
            (Poll::Pending, _) => return Poll::Pending,
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// A body in one piece never breaks.
impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_provider_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Hop"),
            ("connection", "X-Other-Hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("x-other-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
            ("server", "uvicorn"),
            ("x-ratelimit-remaining-tokens", "5"),
            ("x-tollgate-dropped", "user"),
            ("content-type", "application/json"),
            ("openai-processing-ms", "12"),
        ] {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_static(value),
            );
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "openai-processing-ms"]);
    }
}
