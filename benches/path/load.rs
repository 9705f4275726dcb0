//! The load generator: keep-alive connections, one request under way on each.

use std::io::BufRead as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::bodies;
use crate::wire::{self, Chunks, Events, Framing};

/// Unmeasured load before each window.
const WARM_UP: Duration = Duration::from_millis(300);
/// Longer than this after the window's end, and something hangs.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

/// What one window came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Requests answered in full.
    pub(crate) requests: u64,
    /// Events in their answers.
    pub(crate) events: u64,
    /// Reads from sockets that brought something.
    pub(crate) reads: u64,
    /// How long it took, until the last answer was complete.
    pub(crate) wall: Duration,
    /// Half the answers (of streams: first events) came at least this fast.
    pub(crate) p50: Duration,
    /// Ninety-nine in a hundred did.
    pub(crate) p99: Duration,
}

impl Outcome {
    fn to_line(&self) -> String {
        let times = [self.wall, self.p50, self.p99].map(|t| t.as_nanos().to_string());
        let Self {
            requests,
            events,
            reads,
            ..
        } = self;
        format!("{requests} {events} {reads} {}", times.join(" "))
    }

    /// Reads what the generator printed.
    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let numbers: Vec<u64> = line
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the load generator said `{line}`"))?;
        let &[requests, events, reads, wall, p50, p99] = numbers.as_slice() else {
            bail!("the load generator said `{line}`");
        };
        Ok(Self {
            requests,
            events,
            reads,
            wall: Duration::from_nanos(wall),
            p50: Duration::from_nanos(p50),
            p99: Duration::from_nanos(p99),
        })
    }
}

/// What each connection is to send, and to expect.
#[derive(Clone)]
struct Order {
    port: u16,
    request: Bytes,
    /// Events in an answer, if it is to be a stream.
    events: Option<u64>,
}

/// `load PORT MODEL whole|stream|stream+usage CONNECTIONS MILLISECONDS`: opens
/// and warms its connections, prints `ready`, and after a line on its standard
/// input loads for as long as told and prints what that came to. The
/// connections stay open until its standard input closes.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let [port, model, kind, connections, window] = args else {
        bail!("load takes PORT MODEL KIND CONNECTIONS MILLISECONDS");
    };
    let port = port.parse()?;
    let (stream, usage) = (*kind != "whole", *kind == "stream+usage");
    let order = Order {
        port,
        request: bodies::request(port, model, stream, usage),
        events: stream.then(|| bodies::expected_events(usage)),
    };
    let window = Duration::from_millis(window.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let limit = window + WARM_UP + GRACE;
        let warm = tokio::time::timeout(limit, warm_up(&order, connections.parse()?)).await;
        let clients = warm.context("the warm-up does not end")??;
        println!("ready");
        wait_for_line()?;
        let run = tokio::time::timeout(limit, measured(clients, window)).await;
        run.context("answers do not end")?
    });
    match outcome {
        Ok((outcome, _still_open)) => {
            println!("{}", outcome.to_line());
            wait_for_line()
        }
        Err(error) => {
            println!("error: {error:#}");
            Ok(())
        }
    }
}

/// Blocks on purpose: nothing else is to happen meanwhile.
fn wait_for_line() -> Result<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Opens the connections, checks the first answer on each in full, and gets all warm.
async fn warm_up(order: &Order, connections: u16) -> Result<Vec<Client>> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let order = order.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(order).await?;
            client.keep = Some(Vec::new());
            client.exchange().await?;
            client.check_kept()?;
            client.run(WARM_UP).await?;
            anyhow::Ok(client)
        });
    }
    let mut clients = Vec::new();
    while let Some(client) = tasks.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

/// The measured window; gives the connections back, still open.
async fn measured(clients: Vec<Client>, window: Duration) -> Result<(Outcome, Vec<Client>)> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            client.tally = Tally::default();
            client.run(window).await?;
            anyhow::Ok(client)
        });
    }
    let mut clients = Vec::new();
    while let Some(client) = tasks.join_next().await {
        clients.push(client??);
    }
    let wall = start.elapsed();
    let mut times: Vec<Duration> = Vec::new();
    let (mut events, mut reads) = (0, 0);
    for client in &mut clients {
        times.append(&mut client.tally.times);
        events += client.tally.events;
        reads += client.tally.reads;
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied();
    let outcome = Outcome {
        requests: u64::try_from(times.len())?,
        events,
        reads,
        wall,
        p50: at(50).context("no request was answered")?,
        p99: at(99).context("no request was answered")?,
    };
    Ok((outcome, clients))
}

#[derive(Default)]
struct Tally {
    /// Until the answer was complete; of streams, until their first event.
    times: Vec<Duration>,
    events: u64,
    reads: u64,
}

/// One connection.
struct Client {
    socket: TcpStream,
    buf: BytesMut,
    order: Order,
    tally: Tally,
    /// The payload of an answer, while it is to be checked in full.
    keep: Option<Vec<u8>>,
}

impl Client {
    async fn connect(order: Order) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", order.port)).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            buf: BytesMut::with_capacity(64 * 1024),
            order,
            tally: Tally::default(),
            keep: None,
        })
    }

    /// Starts requests, one after the other, until the time is over.
    async fn run(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.exchange().await?;
        }
        Ok(())
    }

    /// One request and its whole answer.
    async fn exchange(&mut self) -> Result<()> {
        let start = Instant::now();
        self.socket.write_all(&self.order.request).await?;
        let head = loop {
            if let Some(head) = wire::head(&self.buf)? {
                break head;
            }
            self.fill().await?;
        };
        if !head.ok {
            let text = String::from_utf8_lossy(&self.buf);
            let text: String = text.chars().take(600).collect();
            bail!("an answer other than 200:\n{text}");
        }
        self.buf.advance(head.len);
        let mut events = Events::default();
        let mut first = None;
        match head.framing {
            Framing::Length(len) => self.sized(len, &mut events).await?,
            Framing::Chunked => self.chunked(&mut events, start, &mut first).await?,
            Framing::Unsaid => bail!("an answer that does not say how long it is"),
        }
        if !self.buf.is_empty() {
            bail!("{} bytes after the end of an answer", self.buf.len());
        }
        let whole = start.elapsed();
        if let Some(expected) = self.order.events {
            if !events.done() {
                bail!("a stream that does not end with [DONE]");
            }
            if events.count != expected {
                bail!("a stream of {} events, not {expected}", events.count);
            }
            self.tally.events += events.count;
            self.tally.times.push(first.unwrap_or(whole));
        } else {
            self.tally.times.push(whole);
        }
        Ok(())
    }

    async fn sized(&mut self, len: usize, events: &mut Events) -> Result<()> {
        while self.buf.len() < len {
            self.fill().await?;
        }
        let body = self.buf.split_to(len);
        if self.order.events.is_some() {
            events.take(&body);
        }
        if let Some(kept) = &mut self.keep {
            kept.extend_from_slice(&body);
        }
        Ok(())
    }

    async fn chunked(
        &mut self,
        events: &mut Events,
        start: Instant,
        first: &mut Option<Duration>,
    ) -> Result<()> {
        let mut chunks = Chunks::Size;
        let keep = &mut self.keep;
        let mut sink = |payload: &[u8]| {
            first.get_or_insert_with(|| start.elapsed());
            events.take(payload);
            if let Some(kept) = keep {
                kept.extend_from_slice(payload);
            }
        };
        while !chunks.take(&mut self.buf, &mut sink)? {
            fill(&mut self.socket, &mut self.buf, &mut self.tally).await?;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        fill(&mut self.socket, &mut self.buf, &mut self.tally).await
    }

    /// Reads what was kept as a program would, all of it.
    fn check_kept(&mut self) -> Result<()> {
        let kept = self.keep.take().unwrap_or_default();
        if self.order.events.is_none() {
            let answer: Value = serde_json::from_slice(&kept).context("an answer's JSON")?;
            let text = answer.pointer("/choices/0/message/content");
            text.and_then(Value::as_str)
                .context("an answer without content")?;
            let tokens = answer.pointer("/usage/total_tokens");
            tokens
                .and_then(Value::as_u64)
                .context("an answer without usage")?;
            return Ok(());
        }
        let text = std::str::from_utf8(&kept).context("a stream's text")?;
        let (mut content, mut finished) = (0, false);
        for event in text.split_terminator("\n\n") {
            let data = event.strip_prefix("data: ");
            let data = data.with_context(|| format!("an event without data: `{event}`"))?;
            if data == "[DONE]" {
                break;
            }
            let chunk: Value = serde_json::from_str(data).context("an event's JSON")?;
            let delta = chunk.pointer("/choices/0/delta/content");
            content += u64::from(delta.is_some_and(Value::is_string));
            finished |= chunk.pointer("/choices/0/finish_reason") == Some(&Value::from("stop"));
        }
        if content != bodies::EVENTS || !finished {
            bail!("a stream of {content} pieces, finished: {finished}");
        }
        Ok(())
    }
}

async fn fill(socket: &mut TcpStream, buf: &mut BytesMut, tally: &mut Tally) -> Result<()> {
    buf.reserve(16 * 1024);
    if socket.read_buf(buf).await? == 0 {
        bail!("the connection was closed before the answer was complete");
    }
    tally.reads += 1;
    Ok(())
}
