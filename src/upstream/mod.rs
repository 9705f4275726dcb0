//! Send it, and try again while that can help.
//!
//! [`Client`] sends one request to one target; [`attempt`] goes from target to target. Knows `envelope`, `protocol`,
//! `provider`, `route`, `telemetry` and `usage`.

mod asked;
pub mod attempt;
mod bill;
mod clock;
mod connect;
mod decided;
mod failure;
mod hedge;
mod inflow;
mod judge;
mod link;
mod pool;
#[cfg(feature = "otlp")]
mod post;
mod presence;
mod race;
pub mod rehearsal;
mod request;
mod resolve;
mod share;
mod stored;
mod taken;
pub mod tab;
mod turn;
mod tunnel;
mod wire;

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use smol_str::SmolStr;
use tokio::time::Instant;

use crate::envelope::{Envelope, Rope};
use crate::protocol::{Decoder, Endpoint, Pieces, Reading, Skimmer, Voice};
use crate::provider::{Origin, Provider, echo};
use crate::route::{Asks, Bounds};
use crate::telemetry::RequestId;
use crate::telemetry::trace::Onward;
pub use asked::Asked;
use attempt::Try;
pub use clock::Clock;
use clock::{Clocks, Phase};
use connect::Connector;
pub use failure::{Cause, Failure, Said};
pub use inflow::{Broken, Inflow};
use link::{Link, Unsent};
pub use presence::Presence;
use rehearsal::Rehearsal;
use request::Ask;
pub use stored::{Coming, StoredCall};
pub use tab::Tab;

/// How often one request is sent within a try, where nothing was done with it before: once more, since a connection may
/// have been closed while it waited. Whoever turns it down again has no room for it now, and is given a pause.
const MOST_SENT: u32 = 2;

/// Sends requests, and keeps connections for the next. Each worker has its own, so that nothing is shared on the path.
#[derive(Default)]
pub struct Client {
    connector: Connector,
    pool: pool::Pool,
    rehearsal: Option<Rehearsal>,
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
    /// The output, in tokens, that it is taken to ask for where it gives no limit.
    pub output_cap: u64,
    /// Our id for it.
    pub id: RequestId,
    /// What providers hear as its id: the client's own, or else ours.
    pub client_id: HeaderValue,
    /// Who asks, where requests wait in line, and with what share.
    pub caller: (&'c SmolStr, u32),
}

impl Call<'_> {
    /// What of it the order of targets depends on.
    fn asks<'a>(&'a self, bounds: Option<&'a Bounds>) -> Asks<'a> {
        Asks {
            endpoint: self.endpoint,
            envelope: self.envelope,
            headers: self.headers,
            bounds,
            output_cap: self.output_cap,
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
    /// Read to its end, with what it tells.
    Whole(Bytes, Reading),
    /// Longer than is held, with what reads it while it passes.
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
    /// One that sends nothing, and notes what it would have sent.
    pub fn rehearsing(rehearsal: &Rehearsal) -> Self {
        Self {
            rehearsal: Some(rehearsal.clone()),
            ..Self::default()
        }
    }

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
        let body = self.list(provider, Endpoint::Models, now).await?;
        provider.protocol.models(&body).ok_or(NO_LIST)
    }

    /// Asks a provider for its voices; at most [`crate::protocol::MOST_MODELS`].
    pub async fn voices(&self, provider: &Provider, now: SystemTime) -> Result<Vec<Voice>, Cause> {
        const NO_LIST: Cause = Cause::Nonsense("its answer is no list of voices");
        if matches!(provider.origin, Origin::Echo) {
            return Ok(Vec::new());
        }
        let body = self.list(provider, Endpoint::Voices, now).await?;
        provider.protocol.voices(&body).ok_or(NO_LIST)
    }

    /// Asks a provider for a list.
    async fn list(
        &self,
        provider: &Provider,
        endpoint: Endpoint,
        now: SystemTime,
    ) -> Result<Bytes, Cause> {
        let headers = HeaderMap::new();
        let ask = Ask {
            provider,
            method: Method::GET,
            endpoint,
            below: None,
            times: provider.timeouts,
            given: &headers,
            onward: None,
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
        judge::list(exchange.inflow).await
    }

    /// Sends one request and waits for the head of its answer.
    fn exchange<'e>(
        &'e self,
        this: Try<'e>,
        body: Rope,
        onward: Option<Onward>,
        tab: &'e mut Tab,
    ) -> impl Future<Output = Result<Exchange, Cause>> + 'e {
        let Try {
            target, call, span, ..
        } = this;
        if call.stream {
            tab.presence().keeps_alive(target.provider.keepalive);
        }
        let ask = Ask {
            provider: &target.provider,
            method: Method::POST,
            endpoint: call.endpoint,
            below: None,
            times: target.timeouts(tab.is_loading()),
            given: call.headers,
            onward,
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
        if let Some(rehearsal) = &self.rehearsal {
            return Err(rehearsal.notes(&ask, body));
        }
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
        let (mut kept, lain) = shelf.take(began).unzip();
        let timer = kept.as_mut().and_then(Link::take_timer);
        let phase = if kept.is_some() {
            Phase::Waiting
        } else {
            Phase::Connecting
        };
        let mut clocks = Clocks::start(ask.times, deadline, phase, timer, began);
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
            let sent_over = lain.flatten().filter(|_| was_kept);
            let head = |is_shared, body| ask.over(site, is_shared, body);
            match shelf.learns(sent_over, link.send(head, body, &mut clocks).await) {
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
