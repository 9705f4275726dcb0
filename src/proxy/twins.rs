//! Has this been asked already? A request with an `Idempotency-Key` gets the answer of its twin, and is charged once.
//!
//! The first is carried out as any other, and for whoever asks the same meanwhile or after it its answer is recorded. It
//! is not over when its client leaves: the retry will come for it. Who has a twin passes no limit and costs nothing.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::Full;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::asked::Writing;
use super::{Manner, Opened, Worker, alone, identify, refuse};
use crate::admission::Slot;
use crate::envelope;
use crate::plan::Plan;
use crate::protocol::{Endpoint, NoEndpoint};
use crate::rejection::Rejection;
use crate::response::twins::{Asked, Keeper, Reused, Scope, Turn};
use crate::response::{self, Body, Finisher, Head, Replayed};
use crate::telemetry::Record;

/// What a client calls a request that it may send again.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key, in characters.
const LONGEST: usize = 255;

/// So much of a body is looked at before others on this thread have their turn, in bytes.
const AT_ONCE: usize = 1 << 20;

/// Answers a request that has a key.
pub(super) async fn handle<B>(
    worker: Arc<Worker>,
    request: Request<B>,
    mut opened: Opened,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let plan = worker.gateway.plan();
    // What is not carried out twice by being sent twice has no twins.
    let is_asked = opened.endpoint.is_ok_and(|it| it.number().is_some());
    if !is_asked || plan.limits.twins.replay.is_zero() {
        return alone(worker, request, opened).await;
    }
    let (head, body) = request.into_parts();
    let way = {
        let Opened { endpoint, record } = &mut opened;
        let mut finding = pin!(find(&worker, &plan, *endpoint, (&head, body), record));
        // As for those that ask a provider.
        poll_fn(|cx| match finding.as_mut().poll(cx) {
            Poll::Pending if worker.gateway.closing.is_closed() => {
                Poll::Ready(Err(Rejection::ShuttingDown))
            }
            poll => poll,
        })
        .await
    };
    match way {
        Err(rejection) => refuse(rejection, opened.record),
        Ok(Way::Follows(head, answer, slot)) => {
            let closing = &worker.gateway.closing;
            response::follow(&head, answer, opened.record, slot, closing)
        }
        Ok(Way::Alone(body)) => {
            let request = Request::from_parts(head, Full::new(body));
            alone(worker, request, opened).await
        }
        Ok(Way::Leads(body, keeper)) => {
            let request = Request::from_parts(head, Full::new(body));
            let finisher = Arc::clone(&worker.finisher);
            Leading {
                answering: Some(Box::pin(alone(worker, request, opened))),
                keeper: Some(keeper),
                finisher,
            }
            .await
        }
    }
}

/// What becomes of a request that has a key.
enum Way {
    /// It is carried out, and recorded.
    Leads(Bytes, Keeper),
    /// It is carried out.
    Alone(Bytes),
    /// It gets its twin's answer.
    Follows(Arc<Head>, Replayed, Slot),
}

/// Finds out whether a request has a twin, and waits for its answer to begin.
async fn find<B>(
    worker: &Worker,
    plan: &Plan,
    endpoint: Result<Endpoint, NoEndpoint>,
    (head, body): (&Parts, B),
    record: &mut Record,
) -> Result<Way, Rejection>
where
    B: HttpBody<Data = Bytes> + Send,
{
    // The same as for those that have none: who asks, is there room, what is asked?
    let gateway = &worker.gateway;
    let page = plan.door.admit(head.version, &head.uri, &head.headers)?;
    record.page = page.cloned();
    let caller = identify(gateway, plan, &head.headers, record)?;
    let slot = gateway.state.in_flight.enter(plan.limits.in_flight)?;
    let writing = Manner::of(&head.headers).writing(endpoint?)?;
    let scope = Scope {
        caller: caller.name.clone(),
        api: record.api,
        key: key(&head.headers)?,
    };
    let (most, within) = (plan.limits.body, plan.limits.body_timeout);
    let mut share = gateway.state.memory.share();
    let take = |bytes| Ok::<_, Rejection>(share.grow(bytes, plan.limits.body_memory)?);
    let body = envelope::read(body, most, within, take).await?;
    record.asks(&body, writing.no_text());

    let asked = digest(&body, writing).await;
    loop {
        let (twins, now) = (&gateway.state.twins, Instant::now());
        // Whoever is carried out takes its place, and room for its body, by itself.
        let answer = match twins.claim(&scope, asked, plan.limits.twins, now) {
            Err(Reused) => return Err(Rejection::KeyReused),
            Ok(Turn::Leads(keeper)) => return Ok(Way::Leads(body, keeper)),
            Ok(Turn::Alone) => return Ok(Way::Alone(body)),
            Ok(Turn::Follows(answer)) => answer,
        };
        // If the first goes without a word, one of those that wait for it is the next.
        if let Some(head) = poll_fn(|cx| answer.poll_head(cx)).await {
            return Ok(Way::Follows(head, answer, slot));
        }
    }
}

/// What a client calls a request, which must be one thing, and short.
fn key(headers: &HeaderMap) -> Result<Arc<str>, Rejection> {
    let wrong = |why| Rejection::BadHeader("idempotency-key", why);
    let mut keys = headers.get_all(KEY).iter();
    let (key, None) = (keys.next(), keys.next()) else {
        return Err(wrong("must be given once"));
    };
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.len() > LONGEST || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("must be 1 to 255 visible ASCII characters"));
    }
    Ok(key.into())
}

/// What is asked, short enough to be kept.
async fn digest(body: &[u8], writing: Writing<'_>) -> Asked {
    let mut digest = Sha256::new();
    // Clients make up another boundary each time that they write the same form.
    let boundary = match writing {
        Writing::Json => None,
        Writing::Form(boundary) => Some(boundary),
    };
    let mut from = 0;
    let ends = boundary
        .into_iter()
        .flat_map(|it| memchr::memmem::find_iter(body, it));
    for end in ends.chain([body.len()]) {
        let part = body.get(from..end).unwrap_or_default();
        from = end + boundary.map_or(0, <[u8]>::len);
        digest.update((part.len() as u64).to_le_bytes());
        for piece in part.chunks(AT_ONCE) {
            digest.update(piece);
            if piece.len() == AT_ONCE {
                tokio::task::yield_now().await;
            }
        }
    }
    digest.finalize().into()
}

/// The first of several twins. Dropped before its answer begins, it goes on with the finisher, as it is.
struct Leading<F: Future<Output = Response<Body>> + Send + 'static> {
    /// None once it has begun.
    answering: Option<Pin<Box<F>>>,
    keeper: Option<Keeper>,
    finisher: Arc<Finisher>,
}

impl<F: Future<Output = Response<Body>> + Send + 'static> Future for Leading<F> {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let Some(answering) = &mut self.answering else {
            return Poll::Pending;
        };
        let answer = ready!(answering.as_mut().poll(cx));
        self.answering = None;
        Poll::Ready(match self.keeper.take() {
            Some(keeper) => response::lead(answer, keeper, &self.finisher),
            None => answer,
        })
    }
}

impl<F: Future<Output = Response<Body>> + Send + 'static> Drop for Leading<F> {
    fn drop(&mut self) {
        let (Some(answering), Some(keeper)) = (self.answering.take(), self.keeper.take()) else {
            return;
        };
        let (finisher, since) = (Arc::clone(&self.finisher), Instant::now());
        self.finisher.take(response::LONGEST, async move {
            let answer = response::lead(answering.await, keeper, &finisher);
            response::read_out(answer, since).await;
        });
    }
}
