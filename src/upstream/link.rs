//! What a request goes over: a connection of its own, or a share of one.

use std::future::poll_fn;
use std::io;
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
    /// Nothing of it was acted on, for this reason; here is its body.
    Whole(Rope, Cause),
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

    /// Puts a request on it and waits for the head of the answer. `head` makes it, in the form that fits: for a share, or not.
    pub(super) async fn send(
        &mut self,
        head: impl FnOnce(bool, Rope) -> Request<Rope>,
        body: Rope,
        clocks: &mut Clocks,
    ) -> Result<Response<Incoming>, Unsent> {
        match self {
            Self::Own(own) => {
                let request = head(false, body);
                let mut answered = pin!(own.sender.try_send_request(request));
                poll_fn(|cx| {
                    own.drive(cx);
                    poll_answer(answered.as_mut(), clocks, cx)
                })
                .await
            }
            Self::Share(share) => {
                // Once it is on its way, its body is not given back; what the other side refused needs another.
                let spare = body.clone();
                let request = head(true, body);
                let request = request.map(|rope| share.upload(rope));
                let mut sender = share.sender();
                let mut answered = pin!(sender.try_send_request(request));
                match poll_fn(|cx| poll_answer(answered.as_mut(), clocks, cx)).await {
                    Err(Unsent::Lost(Cause::Reset(error))) => Err(match share.undone(&error) {
                        Some(cause) => Unsent::Whole(spare, cause),
                        None => Unsent::Lost(Cause::Reset(error)),
                    }),
                    answered => answered,
                }
            }
        }
    }
}

/// Ready when the head of an answer is there, or will not come.
fn poll_answer<B: Into<Rope>>(
    answered: Pin<&mut impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>>,
    clocks: &mut Clocks,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<Incoming>, Unsent>> {
    match answered.poll(cx) {
        Poll::Ready(Ok(response)) if has_two_lengths(&response) => {
            let cause = Cause::Nonsense("it says two lengths of its body");
            Poll::Ready(Err(Unsent::Lost(cause)))
        }
        Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
        Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
            Some(request) => Unsent::Whole(request.into_body().into(), Cause::Connect(closed())),
            None => Unsent::Lost(Cause::Reset(error.into_error())),
        })),
        Poll::Pending => clocks
            .poll_expired(cx)
            .map(|clock| Err(Unsent::Lost(Cause::Clock(clock)))),
    }
}

/// What becomes of a request that came too late for its connection.
pub(super) fn closed() -> io::Error {
    let what = "it was closed before a request could be sent";
    io::Error::new(io::ErrorKind::ConnectionAborted, what)
}

/// One of the two is a lie, and what follows the body may be someone's idea of our next answer (RFC 9112, 6.3). HTTP/2 has
/// frames, and its `content-length` is held to them.
fn has_two_lengths(response: &Response<Incoming>) -> bool {
    let is_told = response.body().size_hint().exact().is_some();
    !is_told
        && response.version() <= Version::HTTP_11
        && response.headers().contains_key(header::CONTENT_LENGTH)
}
