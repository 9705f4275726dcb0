//! The path of one request, from its head to the last byte of its answer.
//!
//! Read `forward` from top to bottom and you have read the gateway. Nothing else knows all the rooms.

mod asked;
mod catalogue;
mod destination;
mod discover;
pub mod explain;
mod funds;
mod instead;
mod opened;
mod own;
mod stored;
mod twins;
mod voices;
mod wait;

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use crate::admission::limits;
use crate::admission::{Bearer, Caller, Permit, Share, UnknownKey};
use crate::envelope::{self, Envelope};
use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::protocol::{Endpoint, NoEndpoint};
use crate::rejection::Rejection;
use crate::response::{self, Body, Finisher, Opening, Timers};
use crate::telemetry::{End, Record};
use crate::upstream::{Answer, AnswerBody, Call, Client, Presence, Tab, attempt};
use asked::{Manner, wants_stream};
pub use catalogue::unescape;
use destination::{destination, nobody, onward};
pub use discover::discover;
use funds::{Taken, Wanted};
use instead::{Hops, Turned};
use opened::Opened;
use wait::{Asking, Noted, Outcome, Places, Wait};

/// The longest word of a client's, in characters, that is repeated to it or written to a log.
const LOGGED: usize = 200;

/// What one worker answers requests with.
pub struct Worker {
    /// What all workers share.
    pub gateway: Arc<Gateway>,
    /// Its own connections to providers.
    pub client: Client,
    /// Reads on what its clients have left.
    pub finisher: Arc<Finisher>,
    places: Places,
    timers: Arc<Timers>,
}

impl Worker {
    /// A worker of a gateway.
    pub fn of(gateway: &Arc<Gateway>) -> Arc<Self> {
        let (closing, finishing) = (gateway.closing.clone(), gateway.finishing.clone());
        Arc::new(Self {
            gateway: Arc::clone(gateway),
            client: Client::default(),
            finisher: Arc::new(Finisher::new(closing, finishing)),
            places: Places::default(),
            timers: Arc::default(),
        })
    }
}

/// Answers a request: with a provider's answer, or with words of our own.
pub fn handle<B>(
    worker: Arc<Worker>,
    request: Request<B>,
) -> impl Future<Output = Response<Body>> + Send
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let opened = Opened::by(&worker.gateway, &request);
    // Apart, and in a box: what most requests need should not grow for it.
    let mut way = if request.headers().contains_key(twins::KEY) {
        Err(Box::pin(twins::handle(worker, request, opened)))
    } else {
        Ok(waits(worker, request, opened))
    };
    async move {
        match &mut way {
            Ok(waiting) => answered(waiting).await,
            Err(twin) => twin.await,
        }
    }
}

/// Answers a request that has no twins, or is the first of them.
fn alone<B>(
    worker: Arc<Worker>,
    request: Request<B>,
    opened: Opened,
) -> impl Future<Output = Response<Body>> + Send
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let mut waiting = waits(worker, request, opened);
    async move { answered(&mut waiting).await }
}

/// Lets a request be asked, and waits for what it comes to.
fn waits<B>(
    worker: Arc<Worker>,
    request: Request<B>,
    opened: Opened,
) -> Wait<impl Future<Output = Outcome> + Send>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let presence = Presence::default();
    let (asker, known) = (Arc::clone(&worker), presence.clone());
    let opening = Opening {
        id: opened.record.id,
        // Whoever comes from a page that may not ask is turned away long before its answer is waited for.
        page: request.headers().get(header::ORIGIN).cloned(),
    };
    Wait {
        asking: Asking::new(|| ask(asker, request, opened, known), presence, worker),
        opening,
        alive: None,
    }
}

async fn answered<F>(waiting: &mut Wait<F>) -> Response<Body>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let (answered, record) = match poll_fn(|cx| waiting.poll_heard(cx)).await {
        Ok(outcome) => outcome,
        Err(alive) => {
            let rest = late(waiting.asking.hand_over());
            return response::begin(&waiting.opening, alive, rest);
        }
    };
    match answered {
        Ok(Answered::Relayed(answer, permit, tab)) => {
            let (finisher, alive) = (waiting.asking.finisher(), waiting.alive.take());
            response::relay(answer, permit, tab, record, finisher, alive)
        }
        Ok(Answered::Said(said)) => response::say(*said, record),
        Ok(Answered::PassedOn(told, permit)) => response::pass_on(*told, record, permit),
        Err(rejection) => refuse(rejection, record),
    }
}

/// What follows a status that went out before there was an answer.
async fn late<F>(mut asking: Asking<F>) -> Body
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let (answered, mut record) = poll_fn(|cx| asking.poll_outcome(cx)).await;
    match answered {
        Ok(Answered::Relayed(answer, permit, tab)) => {
            response::go_on(answer.body, permit, tab, record, asking.finisher())
        }
        Ok(Answered::Said(said) | Answered::PassedOn(said, _)) => {
            response::say(*said, record).into_body()
        }
        Err(rejection) => {
            let end = match rejection {
                Rejection::ShuttingDown => End::Shutdown,
                _ => End::Error,
            };
            let told = rejection.tell();
            // A provider's own words have a code of ours only where their status does not speak for them.
            record.code = told.code.or(Some("upstream_error"));
            response::complain(&told.body, end, record)
        }
    }
}

/// Finds out what a request comes to. It owns all that it needs, so that it can go on when nobody waits for it; and what
/// answers borrows that, so that a head is not handed from one to the next.
async fn ask<B>(
    worker: Arc<Worker>,
    request: Request<B>,
    Opened {
        endpoint,
        mut record,
    }: Opened,
    presence: Presence,
) -> Outcome
where
    B: HttpBody<Data = Bytes> + Send,
{
    let (head, body) = request.into_parts();
    let gateway = &worker.gateway;
    let answered = {
        let request = (&head, body);
        let noted = Noted {
            record: &mut record,
            presence: &presence,
        };
        let mut answer = pin!(answer(&worker, endpoint, request, &presence, noted.record));
        // When time is up for answers under way, those that have not begun end here.
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Pending if gateway.closing.is_closed() => {
                presence.stops(Instant::now());
                Poll::Ready(Err(Rejection::ShuttingDown))
            }
            poll => poll,
        })
        .await
    };
    (answered, record)
}

/// In boxes: what a request comes to goes through many hands.
enum Answered {
    Relayed(Box<Answer>, Option<Permit>, Box<Tab>),
    Said(Box<Response<Bytes>>),
    PassedOn(Box<Response<Bytes>>, Option<Permit>),
}

impl Answered {
    fn said(said: Response<Bytes>) -> Self {
        Self::Said(Box::new(said))
    }
}

async fn answer<B>(
    worker: &Worker,
    endpoint: Result<Endpoint, NoEndpoint>,
    (head, body): (&Parts, B),
    presence: &Presence,
    record: &mut Record,
) -> Result<Answered, Rejection>
where
    B: HttpBody<Data = Bytes> + Send,
{
    let gateway = &worker.gateway;
    let plan = gateway.plan();
    let identify = |record| identify(gateway, &plan, &head.headers, record);
    let page = plan.door.admit(head.version, &head.uri, &head.headers)?;
    if let Some(page) = page {
        record.page = Some(page.clone());
        if let Some(permission) = catalogue::permission(&head.method, &head.headers) {
            return Ok(Answered::said(permission));
        }
    }
    match endpoint? {
        Endpoint::Live => Ok(Answered::said(catalogue::health(StatusCode::OK))),
        Endpoint::Ready if gateway.draining.load(Ordering::Acquire) => Ok(Answered::said(
            catalogue::health(StatusCode::SERVICE_UNAVAILABLE),
        )),
        Endpoint::Ready => Ok(Answered::said(catalogue::health(StatusCode::OK))),
        Endpoint::Models => {
            let caller = identify(record)?;
            Ok(Answered::said(catalogue::models(
                &plan,
                &gateway.state,
                &caller,
            )))
        }
        Endpoint::Model => {
            let caller = identify(record)?;
            catalogue::model(&plan, &gateway.state, &caller, head.uri.path()).map(Answered::said)
        }
        Endpoint::Voices => {
            let caller = identify(record)?;
            voices::all(&plan, &gateway.state, &caller, &head.uri).map(Answered::said)
        }
        Endpoint::Voice => {
            let caller = identify(record)?;
            voices::one(&plan, &gateway.state, &caller, &head.uri).map(Answered::said)
        }
        Endpoint::Response => stored::ask(worker, &plan, head, record).await,
        Endpoint::Usage => {
            let caller = identify(record)?;
            Ok(Answered::said(own::usage(gateway, &caller, record).await))
        }
        endpoint => forward(worker, &plan, endpoint, (head, body), presence, record).await,
    }
}

/// Carries a request through the rooms, in order. Each may refuse it; none knows the others.
async fn forward<B>(
    worker: &Worker,
    plan: &Plan,
    endpoint: Endpoint,
    (head, body): (&Parts, B),
    presence: &Presence,
    record: &mut Record,
) -> Result<Answered, Rejection>
where
    B: HttpBody<Data = Bytes> + Send,
{
    // Who asks, and is there room?
    let gateway = &worker.gateway;
    let caller = &*identify(gateway, plan, &head.headers, record)?;
    gateway.state.ledger.prefetch(&caller.accounts);
    let mut taken = admit(gateway, plan, caller, record)?;

    // What is asked?
    let manner = Manner::of(&head.headers);
    let writing = manner.writing(endpoint)?;
    let is_kept = manner.explains() && caller.explains;
    if is_kept || gateway.state.telemetry.logs_decisions() {
        record.is_decided((gateway.wall)(), is_kept);
    }
    let mut share = gateway.state.memory.share();
    let body = whole(plan, &mut share, body).await?;
    record.asks(&body, writing.no_text());
    let envelope = writing.read(body, |name| plan.acted_on.contains(name))?;
    let model = model(&envelope)?;
    record.asked = Some(shortened(&model));
    let stream = wants_stream(endpoint, &envelope)?;
    if stream {
        presence.listens(Instant::now());
    }
    let patience = manner.patience()?;

    // Where may it go?
    let mut route = destination(plan, caller, &model, endpoint)?;
    record.routed(&route.meters);
    if route.targets.is_empty() {
        return Err(nobody(&route, &model));
    }
    route = onward(&gateway.state.ledger, caller, (endpoint, &envelope), route)?;

    // May it pass, may it be paid, and who answers? What a model cannot take, another may.
    let client_id = record.client_id.clone();
    let call = Call {
        endpoint,
        envelope: &envelope,
        headers: &head.headers,
        stream,
        deadline: record.began + patience.unwrap_or(route.deadline).min(route.deadline),
        is_hurried: patience.is_some_and(|patience| patience < route.deadline),
        wall: &*gateway.wall,
        output_cap: plan.spending.output_cap,
        id: record.id,
        client_id: client_id.unwrap_or_else(|| record.id.header()),
        caller: (&caller.name, caller.weight.max(1)),
    };
    let model = &Arc::clone(&route.meters.name);
    let mut hops = Hops::default();
    let (answer, mut tab) = loop {
        let wanted = Wanted {
            caller,
            manner: &manner,
            call: &call,
            model,
            route: &route,
        };
        match one(worker, plan, wanted, &mut taken, presence, record).await {
            Ok(answered) => break answered,
            Err(turned) => route = hops.next(plan, (&route, endpoint), presence, turned)?,
        }
    };

    // What did it cost? Of an answer that is still to come, its end will tell.
    if let AnswerBody::Whole(bytes, reading) = &answer.body {
        tab.pass(bytes.len());
        tab.is_kept_as(reading.response_id.as_deref());
        let (entered, settled) = tab.ends(End::Complete, reading.usage);
        record.enters(entered);
        settled.await;
    }
    Ok(Answered::Relayed(answer, taken.permit, tab))
}

/// Lets one model's targets answer: sets aside what that may cost, sends it, and tries again while that can help.
async fn one(
    Worker {
        gateway, client, ..
    }: &Worker,
    plan: &Plan,
    wanted: Wanted<'_>,
    taken: &mut Taken,
    presence: &Presence,
    record: &mut Record,
) -> Result<(Box<Answer>, Box<Tab>), Turned> {
    let mut tab = funds::open(gateway, plan, wanted, taken, record).await?;
    tab.watch(presence);
    // Its place is free once its client has left.
    let asked = {
        let asking = pin!(attempt::run(
            client,
            wanted.route,
            wanted.call,
            &mut tab,
            record
        ));
        presence.holding(&mut taken.permit, asking).await
    };
    match asked {
        Ok(answer) => Ok((answer, tab)),
        Err(exhausted) => {
            taken.charge = tab.hand_over();
            tab.close(Instant::now()).await;
            Err(exhausted.into())
        }
    }
}

/// A body, if it is not too long, comes in time, and there is room for it.
fn whole<B>(
    plan: &Plan,
    share: &mut Share,
    body: B,
) -> impl Future<Output = Result<Bytes, Rejection>> + Send
where
    B: HttpBody<Data = Bytes> + Send,
{
    let limits = plan.limits;
    let take = move |bytes| Ok::<_, Rejection>(share.grow(bytes, limits.body_memory)?);
    envelope::read(body, limits.body, limits.body_timeout, take)
}

/// The model that is asked for.
fn model(envelope: &Envelope) -> Result<Cow<'_, str>, Rejection> {
    let model = envelope.string("model");
    model.ok_or(Rejection::BadMember("model", "must be given, as a string"))
}

/// Who asks.
fn identify<'k>(
    gateway: &Gateway,
    plan: &'k Plan,
    headers: &HeaderMap,
    record: &mut Record,
) -> Result<Bearer<'k>, Rejection> {
    let made = gateway.state.made.load();
    match plan.keyring.identify(headers, &made, &gateway.wall) {
        Ok(caller) => {
            record.is_called_by(&caller.name, caller.log_bodies);
            Ok(caller)
        }
        Err(UnknownKey::Wrong) => {
            let tell = |count| tracing::warn!(count, "somebody showed a key that is not valid");
            let wrong = gateway.state.guesses.wrong(tell);
            Err(wrong.map_or_else(Rejection::Guessing, |()| UnknownKey::Wrong.into()))
        }
        Err(missing) => Err(missing.into()),
    }
}

/// Whether there is room: one more request under way, by its caller and by all.
fn admit(
    gateway: &Gateway,
    plan: &Plan,
    caller: &Caller,
    record: &Record,
) -> Result<Taken, Rejection> {
    let (slots, charge) = limits::enter(&caller.gates, record.began)?;
    let place = gateway.state.in_flight.enter(plan.limits.in_flight)?;
    let permit = Some(Permit::new(place, slots));
    Ok(Taken { charge, permit })
}

/// What a client wrote, short enough to be repeated.
fn shortened(text: &str) -> Box<str> {
    let end = text
        .char_indices()
        .nth(LOGGED)
        .map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text).into()
}

fn refuse(rejection: Rejection, mut record: Box<Record>) -> Response<Body> {
    let told = rejection.tell();
    record.code = told.code;
    record.end = Some(End::Complete);
    let mut response = Response::new(told.body);
    *response.status_mut() = told.status;
    *response.headers_mut() = told.headers;
    match told.code {
        Some(_) => response::say(response, record),
        None => response::pass_on(response, record, None),
    }
}
