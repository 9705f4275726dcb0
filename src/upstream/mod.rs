//! Send it, and try again while that can help.
//!
//! [`Client`] sends one request to one target; [`attempt`] goes from target to target. Knows `envelope`, `protocol`,
//! `provider`, `route`, `telemetry` and `usage`.

pub mod attempt;
mod clock;
mod connect;
mod inflow;
mod judge;
mod pool;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::envelope::{Envelope, Rope};
use crate::protocol::{Decoder, Endpoint, Pieces, Skimmer};
use crate::provider::errors::{Fault, Retry};
use crate::provider::{Origin, Provider, Site, echo};
use crate::route::Target;
use crate::telemetry::{Outcome, RequestId};
use crate::usage::Usage;
pub use clock::Clock;
use clock::{Clocks, Phase};
use connect::{Connector, Link};
pub use inflow::{Broken, Inflow};

/// Sends requests, and keeps connections for the next. Each worker has its own, so that nothing is shared on the path.
#[derive(Default)]
pub struct Client {
    connector: Connector,
    pool: pool::Pool,
}

/// What is sent, whoever it is sent to.
pub struct Call<'c> {
    /// What the client called.
    pub endpoint: Endpoint,
    /// Its body.
    pub envelope: &'c Envelope,
    /// Its headers, of which some are passed on.
    pub headers: &'c HeaderMap,
    /// It wants a stream.
    pub stream: bool,
    /// When it arrived.
    pub arrived: Instant,
    /// Our id for it.
    pub id: RequestId,
}

/// An answer that the client will get.
pub struct Answer {
    /// Its status; a success.
    pub status: StatusCode,
    /// Its headers, as they came.
    pub headers: HeaderMap,
    /// Its body.
    pub body: AnswerBody,
}

/// The body of an answer, as far as it was read to be sure of it.
pub enum AnswerBody {
    /// Read to its end, with the usage it tells.
    Whole(Bytes, Option<Usage>),
    /// Longer than is held: what has come, and what will.
    Long {
        /// What has come.
        pieces: Pieces,
        /// Reads the usage while it passes.
        skimmer: Box<dyn Skimmer>,
        /// What will come.
        inflow: Inflow,
    },
    /// A stream that has had its first content.
    Stream {
        /// What has come.
        pieces: Pieces,
        /// Knows what has passed.
        decoder: Box<dyn Decoder>,
        /// What will come.
        inflow: Inflow,
    },
}

/// A try that came to nothing: where, why, whose fault, and what could still help.
#[derive(Debug)]
pub struct Failure {
    /// `provider/model`.
    pub target: Arc<str>,
    /// Why.
    pub cause: Cause,
    /// Whose fault.
    pub fault: Fault,
    /// What could still help.
    pub retry: Retry,
    /// How long the provider asks to wait.
    pub wait: Option<Duration>,
}

/// Why a try came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A clock ran out.
    #[error("the {0} clock ran out")]
    Clock(Clock),
    /// No connection.
    #[error("could not connect: {0}")]
    Connect(#[source] io::Error),
    /// An answer that is none.
    #[error("answered nonsense: {0}")]
    Nonsense(&'static str),
    /// One of its rules refuses the request.
    #[error("{0}")]
    Refused(#[source] crate::provider::rules::Refused),
    /// The connection broke before there was an answer, or in its middle.
    #[error("broke off")]
    Reset(#[source] hyper::Error),
    /// An error of the provider's.
    #[error("answered {0}")]
    Status(Box<Said>),
}

/// A provider's error.
#[derive(Debug)]
pub struct Said {
    /// Its status: what it means, whatever it came as.
    pub status: StatusCode,
    /// The status it came with: a success where the error was in the clothes of an answer.
    pub came_as: StatusCode,
    /// Its headers, as they came, but true of the body.
    pub headers: HeaderMap,
    /// What a client may be told; none if there is nothing that would help it.
    pub body: Option<Bytes>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.as_str())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " {reason}")?;
        }
        if self.status != self.came_as {
            write!(f, ", as an error under status {}", self.came_as.as_str())?;
        }
        Ok(())
    }
}

impl Failure {
    /// What is counted.
    pub fn outcome(&self) -> Outcome {
        match (&self.cause, self.fault) {
            (Cause::Clock(_), _) => Outcome::Timeout,
            (Cause::Connect(_), _) => Outcome::Connect,
            (Cause::Nonsense(_), _) => Outcome::Nonsense,
            (Cause::Reset(_), _) => Outcome::Reset,
            (Cause::Refused(_), _) | (Cause::Status(_), Fault::Client) => Outcome::ClientFault,
            (Cause::Status(_), Fault::Busy) => Outcome::RateLimited,
            (Cause::Status(_), Fault::Credentials) => Outcome::Credentials,
            (Cause::Status(_), Fault::Provider) => Outcome::ProviderFault,
        }
    }
}

impl From<Broken> for Cause {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Clock(clock) => Self::Clock(clock),
            Broken::Cut(error) => Self::Reset(error),
        }
    }
}

/// The head of an answer, and the way to its body.
struct Exchange {
    status: StatusCode,
    headers: HeaderMap,
    inflow: Inflow,
}

impl Client {
    /// Throws away connections that nobody should take any more. To be called every few seconds.
    pub fn sweep(&self, now: Instant) {
        self.pool.sweep(now);
    }

    /// Asks a provider for its models, as it calls them; at most [`crate::protocol::MOST_MODELS`].
    pub async fn models(&self, provider: &Provider) -> Result<Vec<Box<str>>, Cause> {
        const NO_LIST: Cause = Cause::Nonsense("its answer is no list of models");
        let Origin::Site(site) = &provider.origin else {
            return Ok(vec!["echo".into()]);
        };
        let now = Instant::now();
        let deadline = now + provider.timeouts.total;
        let mut clocks = Clocks::start(provider.timeouts, deadline, Phase::Connecting, None, now);
        let mut request = request(
            provider,
            site,
            Endpoint::Models,
            &HeaderMap::new(),
            Rope::default(),
        );
        *request.method_mut() = Method::GET;
        let mut link = self.connect(site, &mut clocks).await?;
        clocks.enter(Phase::Waiting, Instant::now());
        let response = match send(&mut link, request, &mut clocks).await {
            Ok(response) => response,
            Err(Unsent::Lost(cause)) => return Err(cause),
            Err(Unsent::Whole(_)) => return Err(Cause::Connect(closed())),
        };
        clocks.enter(Phase::Answering, Instant::now());
        let (head, body) = response.into_parts();
        let inflow = Inflow::link(body, link, self.pool.shelf(site), clocks);
        if !head.status.is_success() {
            let exchange = Exchange {
                status: head.status,
                headers: head.headers,
                inflow,
            };
            let judged = judge::error(provider, exchange, std::time::SystemTime::now()).await;
            return Err(Cause::Status(Box::new(judged.said)));
        }
        let body = judge::list(inflow).await?;
        provider.protocol.models(&body).ok_or(NO_LIST)
    }

    /// Sends one request and waits for the head of its answer.
    async fn exchange(
        &self,
        target: &Target,
        call: &Call<'_>,
        body: Rope,
        deadline: Instant,
    ) -> Result<Exchange, Cause> {
        let provider = &target.provider;
        let site = match &provider.origin {
            Origin::Site(site) => site,
            Origin::Echo => {
                let said = echo::answer(call.endpoint, &body.to_vec());
                let content_type = HeaderValue::from_static(said.content_type);
                return Ok(Exchange {
                    status: said.status,
                    headers: HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]),
                    inflow: Inflow::memory(said.pieces),
                });
            }
        };
        let mut request = request(provider, site, call.endpoint, call.headers, body);
        let id = call.headers.get("x-request-id").cloned();
        request
            .headers_mut()
            .insert(CLIENT_ID, id.unwrap_or_else(|| call.id.header()));
        let shelf = self.pool.shelf(site);
        let now = Instant::now();
        let mut kept = shelf.take(now);
        let timer = kept.as_mut().and_then(|link| link.timer.take());
        let phase = if kept.is_some() {
            Phase::Waiting
        } else {
            Phase::Connecting
        };
        let mut clocks = Clocks::start(provider.timeouts, deadline, phase, timer, now);
        loop {
            let was_kept = kept.is_some();
            let mut link = match kept.take() {
                Some(link) => link,
                None => {
                    let link = self.connect(site, &mut clocks).await?;
                    clocks.enter(Phase::Waiting, Instant::now());
                    link
                }
            };
            match send(&mut link, request, &mut clocks).await {
                Ok(response) => {
                    clocks.enter(Phase::Answering, Instant::now());
                    let (head, body) = response.into_parts();
                    return Ok(Exchange {
                        status: head.status,
                        headers: head.headers,
                        inflow: Inflow::link(body, link, shelf, clocks),
                    });
                }
                // A kept connection was closed before anything went out: the request is still ours, and whole. Once:
                // a provider that closes new connections, too, would be asked for ever.
                Err(Unsent::Whole(whole)) if was_kept => {
                    request = *whole;
                    let timer = Some(clocks.into_timer());
                    let (times, now) = (provider.timeouts, Instant::now());
                    clocks = Clocks::start(times, deadline, Phase::Connecting, timer, now);
                }
                Err(Unsent::Whole(_)) => return Err(Cause::Connect(closed())),
                Err(Unsent::Lost(cause)) => return Err(cause),
            }
        }
    }

    async fn connect(&self, site: &Site, clocks: &mut Clocks) -> Result<Box<Link>, Cause> {
        // In a box: it is long, seldom needed, and would lengthen every request's future.
        let mut connecting = Box::pin(self.connector.connect(site, Instant::now()));
        poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected.map_err(Cause::Connect));
            }
            clocks
                .poll_expired(cx)
                .map(|clock| Err(Cause::Clock(clock)))
        })
        .await
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "it was closed before a request could be sent",
    )
}

/// Why a request has no answer.
enum Unsent {
    /// Nothing of it went out; here it is.
    Whole(Box<Request<Rope>>),
    /// It may have arrived.
    Lost(Cause),
}

/// Puts a request on a connection and drives it until the head of the answer is there.
async fn send(
    link: &mut Link,
    request: Request<Rope>,
    clocks: &mut Clocks,
) -> Result<Response<Incoming>, Unsent> {
    let mut answered = pin!(link.sender.try_send_request(request));
    poll_fn(|cx| {
        link.drive(cx);
        match answered.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) if has_two_lengths(&response) => {
                let cause = Cause::Nonsense("it says two lengths of its body");
                Poll::Ready(Err(Unsent::Lost(cause)))
            }
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                Some(request) => Unsent::Whole(Box::new(request)),
                None => Unsent::Lost(Cause::Reset(error.into_error())),
            })),
            Poll::Pending => clocks
                .poll_expired(cx)
                .map(|clock| Err(Unsent::Lost(Cause::Clock(clock)))),
        }
    })
    .await
}

/// One of the two is a lie, and what follows the body may be someone's idea of our next answer (RFC 9112, 6.3).
fn has_two_lengths(response: &Response<Incoming>) -> bool {
    let is_told = response.body().size_hint().exact().is_some();
    !is_told && response.headers().contains_key(header::CONTENT_LENGTH)
}

const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-request-id");

fn request(
    provider: &Provider,
    site: &Site,
    endpoint: Endpoint,
    given: &HeaderMap,
    body: Rope,
) -> Request<Rope> {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::HOST, site.authority.clone());
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    if !provider.forward.contains(&header::USER_AGENT) {
        let ours = HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, ours);
    }
    for (name, value) in given {
        if is_forwarded(name) || provider.forward.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &provider.headers {
        headers.insert(name.clone(), value.clone());
    }
    // Last, so that nothing takes its place.
    if let Some((name, value)) = &provider.credential {
        headers.insert(name.clone(), value.clone());
    }
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = site.uri(endpoint).clone();
    *request.headers_mut() = headers;
    request
}

/// The client's headers that every provider is sent.
fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "accept" | "idempotency-key" | "openai-beta" | "traceparent" | "tracestate"
    ) || name.starts_with("anthropic-")
}
