//! A provider that notes what it bills, request by request, and a crowd of clients of whom some leave. What each request
//! is like, and where it is asked, goes by its number alone, so that a failure can be repeated.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::answers::{events, whole};
use super::client::{self, Answer};
use super::form::type_of;
use super::services::{SERVICES, Service, Used, number_in};

/// What a provider does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Answers at once.
    Answers,
    /// Takes its time.
    Dawdles,
    /// Says 500 at first, and answers when it is asked again.
    Fails,
    /// Says 400.
    Refuses,
    /// Resets at first, before it has said anything, and answers when it is asked again.
    Breaks,
    /// Breaks off in the middle of its answer.
    Cuts,
}

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Not before the end.
    Never,
    /// After so many milliseconds, whatever has come.
    After(u64),
    /// When it has seen so many pieces of content.
    Having(u64),
}

/// What one request is like.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub number: u64,
    /// Where it is asked: each request somewhere else than the one before.
    pub service: Service,
    pub stream: bool,
    pub does: Does,
    /// Tokens that are billed, if the request allows as much output.
    pub input: u64,
    pub output: u64,
    pub leaves: Leaves,
}

impl Case {
    pub fn of(number: u64) -> Self {
        let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let _ = random(2);
        let service = SERVICES[usize::try_from(number).unwrap() % SERVICES.len()];
        let does = match random(15) {
            0..=6 => Does::Answers,
            7..=9 => Does::Dawdles,
            10 => Does::Fails,
            11 => Does::Refuses,
            12 => Does::Breaks,
            _ => Does::Cuts,
        };
        Self {
            number,
            service,
            stream: random(2) == 0 && service.endpoint.streams(),
            does,
            input: 1 + random(60),
            output: 1 + random(50),
            leaves: match random(6) {
                // Whether a machine is fast or slow, some of them leave in the middle.
                0 => Leaves::After(1 << random(11)),
                1 => Leaves::Having(random(20)),
                _ => Leaves::Never,
            },
        }
    }

    /// Its body, as long as every other of the same service and limit.
    pub fn body(&self, limit: u64) -> Vec<u8> {
        let model = self.service.by.model();
        self.service.body(model, self.number, limit, self.stream)
    }

    /// What it takes, if it is answered to the end.
    fn used(&self) -> Used {
        self.service.used(self.input, self.output, self.stream)
    }

    /// Whether this is all of its answer, a success that has come to an end: none of ours ends so.
    pub fn is_whole(&self, text: &str) -> bool {
        let last = || events(self.service, self.used()).closing.pop().unwrap();
        !self.stream || text.ends_with(&last())
    }

    /// Asks it as ann, and reads the whole answer.
    pub async fn ask(&self, address: SocketAddr, limit: u64) -> Answer {
        let body = self.body(limit);
        let kind = type_of(&body);
        let headers = [("authorization", "Bearer sk-ann"), ("content-type", &*kind)];
        let path = self.service.path();
        client::whole(client::send(address, Method::POST, &path, &headers, body).await).await
    }
}

/// What a provider knows of one try that it got.
#[derive(Clone, Copy, Debug)]
pub struct Bill {
    /// Where it was asked.
    pub service: Service,
    /// What it bills; none if it has said no.
    pub used: Option<Used>,
    /// Whether it has told that, as far as it tells it at all.
    pub told: bool,
}

/// All tries: by the request's id, and by which of the request's tries it is.
pub type Bills = HashMap<String, BTreeMap<u64, Bill>>;

#[derive(Default)]
struct Notes(Mutex<Bills>);

/// One try's place in the notes.
struct Note<'n> {
    notes: &'n Notes,
    id: String,
    attempt: u64,
}

impl Notes {
    fn open(&self, id: &str, attempt: u64, service: Service) -> Note<'_> {
        let bill = Bill {
            service,
            used: None,
            told: false,
        };
        let mut notes = self.0.lock().unwrap();
        let before = notes
            .entry(id.to_owned())
            .or_default()
            .insert(attempt, bill);
        assert!(before.is_none(), "{id} came twice as its try {attempt}");
        Note {
            notes: self,
            id: id.to_owned(),
            attempt,
        }
    }
}

impl Note<'_> {
    /// Bills this from now on.
    fn bill(&self, used: Used, told: bool) {
        let mut notes = self.notes.0.lock().unwrap();
        let bill = notes
            .get_mut(&self.id)
            .and_then(|tries| tries.get_mut(&self.attempt));
        let bill = bill.unwrap();
        (bill.used, bill.told) = (Some(used), told);
    }
}

/// The provider, on a port of its own. It speaks HTTP/2, so that a crowd needs few connections.
pub struct Biller {
    address: SocketAddr,
    notes: Arc<Notes>,
    task: tokio::task::JoinHandle<()>,
}

impl Biller {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let notes = Arc::new(Notes::default());
        let theirs = Arc::clone(&notes);
        let task = tokio::task::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(Duration::from_millis(5)).await;
                    continue;
                };
                stream.set_nodelay(true).unwrap();
                let notes = Arc::clone(&theirs);
                connections.spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    // It sees through whatever comes: a try that is lost unread would be in nobody's notes.
                    builder.max_pending_accept_reset_streams(usize::MAX);
                    // Who wanted it may have left meanwhile.
                    let Ok(mut connection) = builder.handshake(stream).await else {
                        return;
                    };
                    let mut streams = JoinSet::new();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let notes = Arc::clone(&notes);
                        streams.spawn(async move { answer(request, respond, &notes).await });
                    }
                });
            }
        });
        Self {
            address,
            notes,
            task,
        }
    }

    /// Two providers that are one, so that what fails at the first is tried at the second, without a pause. However slow the
    /// machine is, nobody hears of a stream before it has begun.
    pub fn providers(&self, more: &str) -> String {
        let address = self.address;
        let provider = |name, path| {
            format!(
                "[providers.{name}]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}/{path}/v1\"\nhttp2 = true\ntries = 1\ncooldown = \"0s\"\nkeepalive = \"0s\"\n{more}\n"
            )
        };
        provider("p", 1) + &provider("q", 2)
    }

    /// What it has billed so far.
    pub fn bills(&self) -> Bills {
        self.notes.0.lock().unwrap().clone()
    }
}

impl Drop for Biller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Does what the request's number says. Whoever leaves meanwhile ends it.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    notes: &Notes,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    let case = Case::of(number_in(&whole));
    let id = head.headers["x-client-request-id"].to_str().unwrap();
    // The second provider is asked what the first did not answer.
    let (attempt, path) = match head.uri.path().strip_prefix("/1") {
        Some(path) => (1, path),
        None => (2, &head.uri.path()[2..]),
    };
    assert_eq!(path, case.service.path());
    // A request may allow less than there would be.
    let case = Case {
        output: case.output.min(limit_in(&case, &whole)),
        ..case
    };
    let note = notes.open(id, attempt, case.service);
    let is_first = attempt == 1;
    match case.does {
        Does::Refuses => return say(&mut respond, 400, &error("no")),
        Does::Fails if is_first => return say(&mut respond, 500, &error("not now")),
        Does::Breaks if is_first => {
            note.bill(nothing_said(case.used()), false);
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        _ => {}
    }
    match case.stream {
        true => stream(respond, &case, &note).await,
        false => at_once(respond, &case, &note).await,
    }
}

/// The limit on output in a body, as far as there is one.
fn limit_in(case: &Case, body: &[u8]) -> u64 {
    if !case.service.is_limited() {
        return u64::MAX;
    }
    let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
    let mut limits = ["max_tokens", "max_output_tokens"]
        .iter()
        .filter_map(|name| asked[name].as_u64());
    limits.next().unwrap()
}

/// What is billed before there is any output.
fn nothing_said(used: Used) -> Used {
    Used { output: 0, ..used }
}

/// An answer in one piece.
async fn at_once(
    mut respond: SendResponse<Bytes>,
    case: &Case,
    note: &Note<'_>,
) -> Result<(), h2::Error> {
    let used = case.used();
    // It bills the whole, also if nobody waits for it any more.
    note.bill(used, false);
    if case.does == Does::Dawdles {
        tokio::select! {
            reset = poll_fn(|cx| respond.poll_reset(cx)) => return reset.map(drop),
            () = sleep(Duration::from_millis(case.number % 60)) => {}
        }
    }
    let (kind, text) = whole(case.service, used);
    let (first, rest) = text.split_at(text.len() / 2);
    let mut stream = respond.send_response(head_of(200, kind), false)?;
    stream.send_data(first.to_owned().into(), false)?;
    if case.does == Does::Cuts {
        sleep(Duration::from_millis(2)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    note.bill(used, true);
    stream.send_data(rest.to_owned().into(), true)
}

fn error(message: &str) -> String {
    format!(r#"{{"error":{{"message":"{message}","type":"none","param":null,"code":null}}}}"#)
}

fn head_of(status: u16, kind: &str) -> Response<()> {
    let head = Response::builder()
        .status(status)
        .header("content-type", kind);
    head.body(()).unwrap()
}

fn say(respond: &mut SendResponse<Bytes>, status: u16, text: &str) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head_of(status, "application/json"), false)?;
    stream.send_data(text.to_owned().into(), true)
}

/// What is said is billed, whether or not it arrives.
async fn stream(
    mut respond: SendResponse<Bytes>,
    case: &Case,
    note: &Note<'_>,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head_of(200, "text/event-stream"), false)?;
    let pause = (case.does == Does::Dawdles).then_some(Duration::from_millis(2));
    let used = case.used();
    let mut events = events(case.service, used);
    let all = events.content.len();
    if case.does == Does::Cuts {
        events.content.truncate(all / 2);
    }
    note.bill(nothing_said(used), false);
    for event in events.opening {
        send(&mut stream, event, pause).await?;
    }
    for (n, event) in (1..).zip(events.content) {
        let output = used.output * n / all as u64;
        note.bill(Used { output, ..used }, false);
        send(&mut stream, event, pause).await?;
    }
    if case.does == Does::Cuts {
        // Not before the gateway can have read what was said.
        sleep(Duration::from_millis(2)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    note.bill(used, true);
    let last = events.closing.pop().unwrap();
    for event in events.closing {
        send(&mut stream, event, pause).await?;
    }
    stream.send_data(last.into(), true)
}

async fn send(
    stream: &mut SendStream<Bytes>,
    text: String,
    pause: Option<Duration>,
) -> Result<(), h2::Error> {
    stream.send_data(text.into(), false)?;
    let Some(pause) = pause else {
        return Ok(());
    };
    tokio::select! {
        reset = poll_fn(|cx| stream.poll_reset(cx)) => Err(reset?.into()),
        () = sleep(pause) => Ok(()),
    }
}

/// What a client has seen of one request.
#[derive(Debug)]
pub enum Seen {
    /// All of an answer.
    Whole(Answer),
    /// The connection broke: who sees too many of its streams reset ends it, and all that are on it.
    Broken,
    /// So many pieces of content, then it left. It may have heard by then what we call its request.
    Left(Option<String>, u64),
}

/// What each piece of an answer's content has in it, and nothing else has.
pub const PIECE: &str = r#""x""#;

type Sender = SendRequest<Full<Bytes>>;

/// A connection that many clients share, made anew when it was closed.
struct Line {
    address: SocketAddr,
    sender: tokio::sync::Mutex<Option<Sender>>,
}

impl Line {
    async fn sender(&self) -> Sender {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return sender.clone();
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = http2.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn(connection);
        kept.insert(sender).clone()
    }
}

/// Many clients on few connections.
pub struct Crowd {
    lines: Vec<Arc<Line>>,
    key: String,
    limit: u64,
    ended: Arc<AtomicUsize>,
    is_told_to_stop: Arc<AtomicBool>,
}

/// How many requests a connection carries at once.
const STREAMS: usize = 100;

impl Crowd {
    /// As many as ask at once, all with one key.
    pub fn of(most: usize, address: SocketAddr, key: &str, limit: u64) -> Self {
        let line = || {
            let sender = tokio::sync::Mutex::default();
            Arc::new(Line { address, sender })
        };
        Self {
            lines: (0..most.div_ceil(STREAMS)).map(|_| line()).collect(),
            key: key.to_owned(),
            limit,
            ended: Arc::default(),
            is_told_to_stop: Arc::default(),
        }
    }

    /// How many requests have ended, one way or another.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Asks for no more.
    pub fn stop(&self) {
        self.is_told_to_stop.store(true, Ordering::SeqCst);
    }

    /// Asks for each of these numbers, as many at once as connections carry, and gives what was seen of each.
    pub async fn ask(&self, numbers: std::ops::Range<u64>) -> Vec<(Case, Seen)> {
        let next = Arc::new(Mutex::new(numbers));
        let mut clients = JoinSet::new();
        for line in &self.lines {
            for _ in 0..STREAMS {
                let (line, next) = (Arc::clone(line), Arc::clone(&next));
                let (key, limit) = (self.key.clone(), self.limit);
                let (ended, stop) = (Arc::clone(&self.ended), Arc::clone(&self.is_told_to_stop));
                clients.spawn(async move {
                    let mut all = Vec::new();
                    loop {
                        let number = next.lock().unwrap().next();
                        let Some(number) = number.filter(|_| !stop.load(Ordering::SeqCst)) else {
                            return all;
                        };
                        let case = Case::of(number);
                        let seen = one(&line, &key, &case, limit).await;
                        ended.fetch_add(1, Ordering::SeqCst);
                        // Whoever is refused does not ask again at once.
                        if matches!(&seen, Seen::Whole(answer) if answer.status == 429) {
                            sleep(Duration::from_millis(100)).await;
                        }
                        all.push((case, seen));
                    }
                });
            }
        }
        clients.join_all().await.into_iter().flatten().collect()
    }
}

async fn one(line: &Line, key: &str, case: &Case, limit: u64) -> Seen {
    let sender = line.sender().await;
    let (address, path, body) = (line.address, case.service.path(), case.body(limit));
    let request = Request::post(format!("http://{address}{path}"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", type_of(&body))
        .body(Full::new(body.into()))
        .unwrap();
    let (mut name, mut tokens) = (None, 0);
    let hearing = hear(sender, request, case.leaves, (&mut name, &mut tokens));
    let heard = match case.leaves {
        Leaves::After(pause) => {
            let most = Duration::from_millis(pause);
            tokio::time::timeout(most, hearing).await.ok().flatten()
        }
        _ => hearing.await,
    };
    heard.unwrap_or(Seen::Left(name, tokens))
}

/// Reads until the end, or until there is enough of it: then it is none. Notes meanwhile what has come.
async fn hear(
    mut sender: Sender,
    request: Request<Full<Bytes>>,
    leaves: Leaves,
    (name, tokens): (&mut Option<String>, &mut u64),
) -> Option<Seen> {
    let Ok(response) = sender.send_request(request).await else {
        return Some(Seen::Broken);
    };
    let (head, mut body) = response.into_parts();
    let id = head.headers["x-request-id"].to_str().unwrap();
    *name = Some(id.to_owned());
    let mut whole = Vec::new();
    while let Some(piece) = body.frame().await {
        let Ok(piece) = piece else {
            return Some(Seen::Broken);
        };
        whole.extend_from_slice(&piece.into_data().unwrap_or_default());
        // Events may come in halves.
        *tokens = String::from_utf8_lossy(&whole).matches(PIECE).count() as u64;
        if head.status == 200 && matches!(leaves, Leaves::Having(enough) if *tokens >= enough) {
            return None;
        }
    }
    Some(Seen::Whole(Answer {
        status: head.status,
        headers: head.headers,
        body: whole.into(),
    }))
}
