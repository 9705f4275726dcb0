//! A provider that notes what it bills, request by request, and a crowd of clients of whom some leave. What each request
//! is like goes by its number alone, so that a failure can be repeated.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::Answer;
use super::{CHAT, DONE, FINISH, delta};

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
    /// When it has seen so many tokens.
    Having(u64),
}

/// What one request is like.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub number: u64,
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
        let does = match random(14) {
            0..=6 => Does::Answers,
            7..=9 => Does::Dawdles,
            10 => Does::Fails,
            11 => Does::Refuses,
            12 => Does::Breaks,
            _ => Does::Cuts,
        };
        Self {
            number,
            stream: random(2) == 0,
            does,
            input: 1 + random(60),
            output: 1 + random(50),
            leaves: match random(6) {
                0 => Leaves::After(1 + random(30)),
                1 => Leaves::Having(random(20)),
                _ => Leaves::Never,
            },
        }
    }

    /// Its body, as long as every other of the same limit.
    pub fn body(&self, limit: u64) -> String {
        let (number, stream) = (self.number, self.stream);
        let blank = if stream { " " } else { "" };
        format!(
            r#"{{"model":"fast","stream":{stream}{blank},"max_tokens":{limit},"messages":[{{"role":"user","content":"{number:07}"}}]}}"#
        )
    }
}

/// What a provider knows of one try that it got.
#[derive(Clone, Copy, Debug)]
pub struct Bill {
    /// Tokens; none if it has said no.
    pub tokens: Option<(u64, u64)>,
    /// Whether it has told them.
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
    fn open(&self, id: &str, attempt: u64) -> Note<'_> {
        let bill = Bill {
            tokens: None,
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
    fn bill(&self, input: u64, output: u64, told: bool) {
        let mut notes = self.notes.0.lock().unwrap();
        let bill = notes
            .get_mut(&self.id)
            .and_then(|tries| tries.get_mut(&self.attempt));
        let bill = bill.unwrap();
        (bill.tokens, bill.told) = (Some((input, output)), told);
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

    /// Two providers that are one, so that what fails at the first is tried at the second, without a pause.
    pub fn providers(&self, more: &str) -> String {
        let address = self.address;
        let provider = |name, path| {
            format!(
                "[providers.{name}]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}/{path}/v1\"\nhttp2 = true\ntries = 1\ncooldown = \"0s\"\n{more}\n"
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
    let asked: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    let number = asked["messages"][0]["content"].as_str().unwrap();
    let case = Case::of(number.parse().unwrap());
    let output = case.output.min(asked["max_tokens"].as_u64().unwrap());
    let id = head.headers["x-client-request-id"].to_str().unwrap();
    // The second provider is asked what the first did not answer.
    let attempt = if head.uri.path().starts_with("/1/") {
        1
    } else {
        2
    };
    let note = notes.open(id, attempt);
    let is_first = attempt == 1;
    match case.does {
        Does::Refuses => return say(&mut respond, 400, &error("no")),
        Does::Fails if is_first => return say(&mut respond, 500, &error("not now")),
        Does::Breaks if is_first => {
            note.bill(case.input, 0, false);
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        _ => {}
    }
    if case.stream {
        return stream(respond, &case, output, &note).await;
    }
    // It bills the whole, also if nobody waits for it any more.
    note.bill(case.input, output, false);
    if case.does == Does::Dawdles {
        tokio::select! {
            reset = poll_fn(|cx| respond.poll_reset(cx)) => return reset.map(drop),
            () = sleep(Duration::from_millis(case.number % 60)) => {}
        }
    }
    let text = format!(
        r#"{{"object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],{}}}"#,
        usage(case.input, output)
    );
    if case.does == Does::Cuts {
        let mut half = respond.send_response(head_of(200, "application/json"), false)?;
        half.send_data(text[..text.len() / 2].to_owned().into(), false)?;
        sleep(Duration::from_millis(2)).await;
        half.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    note.bill(case.input, output, true);
    say(&mut respond, 200, &text)
}

fn error(message: &str) -> String {
    format!(r#"{{"error":{{"message":"{message}","type":"x","param":null,"code":null}}}}"#)
}

fn usage(input: u64, output: u64) -> String {
    let total = input + output;
    format!(
        r#""usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total}}}"#
    )
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

/// A token an event. What is said is billed, whether or not it arrives.
async fn stream(
    mut respond: SendResponse<Bytes>,
    case: &Case,
    output: u64,
    note: &Note<'_>,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head_of(200, "text/event-stream"), false)?;
    let pause = (case.does == Does::Dawdles).then_some(Duration::from_millis(2));
    let said = match case.does {
        Does::Cuts => output / 2,
        _ => output,
    };
    note.bill(case.input, 0, false);
    for n in 1..=said {
        note.bill(case.input, n, false);
        send(&mut stream, delta("x"), pause).await?;
    }
    if case.does == Does::Cuts {
        // Not before the gateway can have read what was said.
        sleep(Duration::from_millis(2)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    note.bill(case.input, output, true);
    let told = format!("data: {{\"choices\":[],{}}}\n\n", usage(case.input, output));
    send(&mut stream, FINISH.to_owned() + &told, pause).await?;
    stream.send_data(DONE.into(), true)
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
    /// So many tokens, then it left. It may have heard by then what we call its request.
    Left(Option<String>, u64),
}

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
    let address = line.address;
    let request = Request::post(format!("http://{address}{CHAT}"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(case.body(limit).into()))
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
        *tokens = String::from_utf8_lossy(&whole).matches(r#""x"}"#).count() as u64;
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
