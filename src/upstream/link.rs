//! What a request goes over: a connection of its own, or a share of one.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::Cause;
use super::clock::{Clocks, Timer};
use super::share::Share;
use super::wire::Io;
use crate::envelope::Rope;

/// What a request goes over.
pub(super) enum Link {
    /// A connection that is the request's alone: HTTP/1.1.
    Own(Box<Own>),
    /// One stream among others: HTTP/2.
    Share(Share),
}

/// A connection of HTTP/1.1, and the half that puts requests on it.
///
/// The connection is a future that must be polled for anything to move. It is polled by whoever waits for the answer,
/// not by a task of its own: a burst of events is then one read and one write (measured: 26–37 % less CPU an event), to
/// drop it is to cancel, and a client that does not read holds the provider back.
pub(super) struct Own {
    sender: SendRequest<Rope>,
    /// None once it is closed. It must be dropped then: what waits in it for an answer learns of the end by that.
    connection: Option<Connection<TokioIo<Io>, Rope>>,
    /// The timer of its last request, for its next.
    pub(super) timer: Option<Timer>,
    /// When it was made.
    pub(super) born: Instant,
}

/// Why a request has no answer.
pub(super) enum Unsent {
    /// Nothing of it was acted on; here is its body.
    Whole(Rope),
    /// It may have arrived.
    Lost(Cause),
}

impl Own {
    pub(super) fn new(
        sender: SendRequest<Rope>,
        connection: Connection<TokioIo<Io>, Rope>,
        now: Instant,
    ) -> Self {
        Self {
            sender,
            connection: Some(connection),
            timer: None,
            born: now,
        }
    }

    /// Lets the connection do what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// Whether another request can be put on it.
    pub(super) fn is_usable(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }
}

impl Link {
    /// The timer of the last request that went over it.
    pub(super) fn take_timer(&mut self) -> Option<Timer> {
        match self {
            Self::Own(own) => own.timer.take(),
            Self::Share(_) => None,
        }
    }

    /// Puts a request on it and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Rope>,
        clocks: &mut Clocks,
    ) -> Result<Response<Incoming>, Unsent> {
        match self {
            Self::Own(own) => {
                let answered = own.sender.try_send_request(request);
                answer(answered, |cx| own.drive(cx), |_| None, clocks).await
            }
            Self::Share(share) => {
                // Once it is on its way, its body is not given back; what the other side refused needs another.
                let spare = request.body().clone();
                let answered = share.sender().try_send_request(request);
                let refused = |error: &hyper::Error| share.is_refusal(error).then_some(spare);
                answer(answered, |_| (), refused, clocks).await
            }
        }
    }
}

/// Drives a request until the head of its answer is there. `refused` gives its body back if the other side says that it
/// did nothing with it.
async fn answer(
    answered: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Rope>>>>,
    mut drive: impl FnMut(&mut Context<'_>),
    refused: impl FnOnce(&hyper::Error) -> Option<Rope>,
    clocks: &mut Clocks,
) -> Result<Response<Incoming>, Unsent> {
    let mut answered = pin!(answered);
    let answered = poll_fn(|cx| {
        drive(cx);
        match answered.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Ok(answered)),
            Poll::Pending => clocks.poll_expired(cx).map(Err),
        }
    });
    match answered.await {
        Ok(Ok(response)) if has_two_lengths(&response) => {
            let cause = Cause::Nonsense("it says two lengths of its body");
            Err(Unsent::Lost(cause))
        }
        Ok(Ok(response)) => Ok(response),
        Ok(Err(mut error)) => Err(match error.take_message() {
            Some(request) => Unsent::Whole(request.into_body()),
            None => match refused(error.error()) {
                Some(body) => Unsent::Whole(body),
                None => Unsent::Lost(Cause::Reset(error.into_error())),
            },
        }),
        Err(clock) => Err(Unsent::Lost(Cause::Clock(clock))),
    }
}

/// One of the two is a lie, and what follows the body may be someone's idea of our next answer (RFC 9112, 6.3). HTTP/2 has
/// frames, and its `content-length` is held to them.
fn has_two_lengths(response: &Response<Incoming>) -> bool {
    let is_told = response.body().size_hint().exact().is_some();
    !is_told
        && response.version() <= Version::HTTP_11
        && response.headers().contains_key(header::CONTENT_LENGTH)
}
