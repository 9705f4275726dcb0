//! Send it, and try again while that can help.
//!
//! [`Client`] sends one request to one target; [`attempt`] goes from target to target. Knows `envelope`, `protocol`,
//! `provider`, `route`, `telemetry` and `usage`.

pub mod attempt;
mod clock;
mod connect;
mod inflow;
mod judge;
mod link;
mod pool;
mod presence;
mod race;
mod request;
mod resolve;
mod share;
pub mod tab;
mod tunnel;
mod wire;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use crate::admission::limits::Limited;
use crate::envelope::{Envelope, Rope};
use crate::protocol::{Decoder, Endpoint, Pieces, Skimmer};
use crate::provider::errors::{Fault, Retry};
use crate::provider::unfit::Unfit;
use crate::provider::{Origin, Provider, echo};
use crate::route::health::Blame;
use crate::route::{Asks, Bounds, Resting, Target, Why};
use crate::telemetry::{Outcome, RequestId};
use crate::usage::Usage;
pub use clock::Clock;
use clock::{Clocks, Phase};
use connect::Connector;
pub use inflow::{Broken, Inflow};
use link::{Link, Unsent};
pub use presence::Presence;
use request::Ask;
pub use tab::{Asked, Tab};

/// How often one request is sent within a try, where nothing was done with it before: once more, since a connection may
/// have been closed while it waited. Whoever turns it down again has no room for it now, and is given a pause.
const MOST_SENT: u32 = 2;

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
    /// When it must have been answered, over all tries.
    pub deadline: Instant,
    /// That is the client's own wish: the route would give more time.
    pub is_hurried: bool,
    /// Says what time it is by the calendar.
    pub wall: &'c (dyn Fn() -> SystemTime + Send + Sync),
    /// Our id for it.
    pub id: RequestId,
    /// What providers hear as its id: the client's own, or else ours.
    pub client_id: HeaderValue,
}

impl Call<'_> {
    /// What of it the order of targets depends on.
    fn asks<'a>(&'a self, bounds: Option<&'a Bounds>) -> Asks<'a> {
        Asks {
            endpoint: self.endpoint,
            envelope: self.envelope,
            headers: self.headers,
            bounds,
            seed: self.id.seed(),
        }
    }
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
    /// Longer than is held, with what reads the usage while it passes.
    Long(Box<Begun>, Box<dyn Skimmer>),
    /// A stream that has had its first content, with what knows what has passed.
    Stream(Box<Begun>, Box<dyn Decoder>),
}

impl AnswerBody {
    /// Whether its client sees that it is an answer. A stream may be passed on before that, for it took its time.
    fn has_content(&self) -> bool {
        match self {
            Self::Whole(..) | Self::Long(..) => true,
            Self::Stream(_, decoder) => decoder.progress().content,
        }
    }
}

/// An answer of which there is more to come.
pub struct Begun {
    /// What has come.
    pub pieces: Pieces,
    /// What will.
    pub inflow: Inflow,
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
    /// A kept connection was closed while the request was on its way: nobody can say whether it arrived.
    #[error("closed a connection that was kept, with the request on its way")]
    Stale(#[source] hyper::Error),
    /// It does not fit into a budget.
    #[error("was not asked: {0}")]
    Budget(#[source] crate::ledger::Refused),
    /// It is at a limit of its own.
    #[error("was not asked: {0}")]
    Limited(#[source] Limited),
    /// It rests after failures, or at its own word.
    #[error("was not asked: it {0}")]
    Resting(#[source] Resting),
    /// Too many requests for its model are being tried again.
    #[error("was the last to be asked: too many requests for this model are being tried again")]
    Spent,
    /// It gave the request back without having looked at it, as one does who has too much to do.
    #[error("refused the request unread")]
    Shed,
    /// An error of the provider's.
    #[error("answered {0}")]
    Status(Box<Said>),
    /// Its context is shorter than the prompt, in tokens.
    #[error("was not asked: the request is longer than its context of {0} tokens")]
    TooLong(u64),
    /// It has no price, and the caller has a budget.
    #[error("was not asked: it has no price, or the request points at what cannot be measured")]
    Unpriced,
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
    /// Another model may take the request all the same.
    pub unfit: Option<Unfit>,
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
    /// Of a target that was passed over.
    fn unasked(target: &Target, cause: Cause) -> Self {
        let wait = match &cause {
            Cause::Limited(limited) => Some(limited.wait),
            Cause::Resting(resting) => Some(resting.wait),
            _ => None,
        };
        Self {
            target: Arc::clone(&target.name),
            cause,
            fault: Fault::Provider,
            retry: Retry::Elsewhere,
            wait,
        }
    }

    /// The target had too much to do; later it may answer.
    pub fn is_busy(&self) -> bool {
        self.outcome() == Outcome::RateLimited
    }

    /// Whose fault it is, as far as the target's health goes.
    fn blame(&self) -> Blame {
        match (&self.cause, self.fault) {
            (Cause::Connect(_) | Cause::Clock(Clock::Connect), _) => Blame::Endpoint,
            // Its client waited for less long than the route would have, or others had taken the time.
            (Cause::Clock(Clock::Deadline), Fault::Client) => Blame::Nobody,
            (Cause::Clock(_) | Cause::Nonsense(_) | Cause::Reset(_), _) => Blame::Model,
            (Cause::Status(_), Fault::Credentials) => Blame::Key,
            (Cause::Status(_), Fault::Provider) => Blame::Model,
            (Cause::Status(said), Fault::Client) if said.status == StatusCode::NOT_FOUND => {
                Blame::Model
            }
            (Cause::Status(_), Fault::Busy) => match (self.wait, self.retry) {
                (Some(wait), _) => Blame::Busy(wait),
                // A quota that is used up.
                (None, Retry::Elsewhere) => Blame::Model,
                (None, _) => Blame::Request,
            },
            (Cause::Status(_), Fault::Client) => Blame::Request,
            _ => Blame::Nobody,
        }
    }

    /// Why another model may take the request, if one may.
    pub fn unfit(&self) -> Option<Unfit> {
        match &self.cause {
            Cause::Status(said) => said.unfit,
            Cause::TooLong(_) => Some(Unfit::TooLong),
            _ => None,
        }
    }

    /// What is counted.
    pub fn outcome(&self) -> Outcome {
        match (&self.cause, self.fault) {
            // Nothing was sent.
            (Cause::Budget(_) | Cause::TooLong(_) | Cause::Unpriced | Cause::Spent, _) => {
                Outcome::Cancelled
            }
            (Cause::Clock(_), _) => Outcome::Timeout,
            (Cause::Connect(_), _) => Outcome::Connect,
            (Cause::Nonsense(_), _) => Outcome::Nonsense,
            (Cause::Reset(_) | Cause::Stale(_), _) => Outcome::Reset,
            (Cause::Refused(_), _) | (Cause::Status(_), Fault::Client) => Outcome::ClientFault,
            (Cause::Resting(resting), _) if resting.why == Why::Failing => Outcome::Cancelled,
            (Cause::Limited(_) | Cause::Resting(_) | Cause::Shed, _)
            | (Cause::Status(_), Fault::Busy) => Outcome::RateLimited,
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

/// How long a provider may take to list its models.
const LISTED_WITHIN: Duration = Duration::from_secs(20);

/// When a try began, and when all of them must have come to something.
#[derive(Clone, Copy)]
struct Span {
    began: Instant,
    deadline: Instant,
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
        self.connector.sweep(now);
    }

    /// Asks a provider for its models, as it calls them; at most [`crate::protocol::MOST_MODELS`].
    pub async fn models(
        &self,
        provider: &Provider,
        now: SystemTime,
    ) -> Result<Vec<Box<str>>, Cause> {
        const NO_LIST: Cause = Cause::Nonsense("its answer is no list of models");
        if matches!(provider.origin, Origin::Echo) {
            return Ok(vec!["echo".into()]);
        }
        let headers = HeaderMap::new();
        let ask = Ask {
            provider,
            method: Method::GET,
            endpoint: Endpoint::Models,
            given: &headers,
            id: None,
        };
        let began = Instant::now();
        let deadline = began + LISTED_WITHIN;
        let span = Span { began, deadline };
        let exchange = self.carry(ask, Rope::default(), span, None).await?;
        if !exchange.status.is_success() {
            let judged = judge::error(provider, exchange, now).await;
            return Err(Cause::Status(Box::new(judged.said)));
        }
        let body = judge::list(exchange.inflow).await?;
        provider.protocol.models(&body).ok_or(NO_LIST)
    }

    /// Sends one request and waits for the head of its answer.
    fn exchange<'e>(
        &'e self,
        target: &'e Target,
        call: &'e Call<'_>,
        body: Rope,
        span: Span,
        tab: &'e mut Tab,
    ) -> impl Future<Output = Result<Exchange, Cause>> + 'e {
        if call.stream {
            tab.presence().keeps_alive(target.provider.keepalive);
        }
        let ask = Ask {
            provider: &target.provider,
            method: Method::POST,
            endpoint: call.endpoint,
            given: call.headers,
            id: Some(call.client_id.clone()),
        };
        self.carry(ask, body, span, Some(tab))
    }

    /// Puts a request on a kept connection, or a new one, and waits for the head of its answer. `tab` hears when it goes.
    async fn carry(
        &self,
        ask: Ask<'_>,
        mut body: Rope,
        span: Span,
        mut tab: Option<&mut Tab>,
    ) -> Result<Exchange, Cause> {
        let Span { began, deadline } = span;
        let site = match &ask.provider.origin {
            Origin::Site(site) => site,
            Origin::Echo => {
                if let Some(tab) = tab {
                    tab.sent();
                }
                return Ok(echoed(ask.endpoint, &body));
            }
        };
        let shelf = self.pool.shelf(site);
        let mut kept = shelf.take(began);
        let timer = kept.as_mut().and_then(Link::take_timer);
        let phase = if kept.is_some() {
            Phase::Waiting
        } else {
            Phase::Connecting
        };
        let times = ask.provider.timeouts;
        let mut clocks = Clocks::start(times, deadline, phase, timer, began);
        let mut sent = 0;
        loop {
            let was_kept = kept.is_some();
            let mut link = match kept.take() {
                Some(link) => link,
                None => {
                    let connecting = self.connector.connect(site, Instant::now());
                    // In a box: it is long, seldom needed, and would lengthen every request's future.
                    let connecting = Box::pin(shelf.open(connecting));
                    let link = within(&mut clocks, connecting).await?;
                    clocks.enter(Phase::Waiting, Instant::now());
                    link
                }
            };
            sent += 1;
            if let Some(tab) = tab.as_deref_mut() {
                tab.sent();
            }
            // A share may be of a connection that others have used already.
            let may_be_stale = was_kept || matches!(link, Link::Share(_));
            match link.send(&ask, site, body, &mut clocks).await {
                Ok(response) => {
                    clocks.enter(Phase::Answering, Instant::now());
                    let (head, body) = response.into_parts();
                    request::refused_by_proxy(site, head.status)?;
                    return Ok(Exchange {
                        status: head.status,
                        headers: head.headers,
                        inflow: Inflow::link(body, link, shelf, clocks),
                    });
                }
                // The connection was closed before anything went out, or the provider did nothing with it: the request
                // is still ours, and whole.
                Err(Unsent::Whole(whole, cause)) if may_be_stale && sent < MOST_SENT => {
                    if tab.as_deref_mut().is_some_and(|tab| !tab.unsent()) {
                        return Err(cause);
                    }
                    body = whole;
                    clocks.enter(Phase::Connecting, Instant::now());
                }
                Err(Unsent::Lost(Cause::Reset(error)))
                    if was_kept && !share::is_stream_reset(&error) =>
                {
                    return Err(Cause::Stale(error));
                }
                Err(Unsent::Whole(_, cause) | Unsent::Lost(cause)) => return Err(cause),
            }
        }
    }
}

/// What the built-in engine answers.
fn echoed(endpoint: Endpoint, body: &Rope) -> Exchange {
    let said = echo::answer(endpoint, &body.to_vec());
    let content_type = HeaderValue::from_static(said.content_type);
    Exchange {
        status: said.status,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]),
        inflow: Inflow::memory(said.pieces),
    }
}

/// A connection, unless a clock runs out before there is one.
async fn within(
    clocks: &mut Clocks,
    mut connecting: std::pin::Pin<Box<impl Future<Output = io::Result<Link>>>>,
) -> Result<Link, Cause> {
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
