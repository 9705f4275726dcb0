//! One who asks at a pace of its own: when a request is due does not depend on when the last was answered.
//!
//! A thread for each connection, which sleeps until the next is due: the timers of a runtime are a millisecond coarse.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::helper::Helper;
use crate::wire::{self, Framing};

/// Longer than this, and something hangs.
const GRACE: Duration = Duration::from_secs(20);
/// What stands for the status of an answer that did not come.
const BROKEN: u16 = 0;
/// Who is looked at: its connections are warm when it begins.
const QUIET: &str = "quiet";

/// What it asks, and how often.
pub(crate) struct Order {
    pub(crate) port: u16,
    pub(crate) key: String,
    /// Of a request's body, bytes.
    pub(crate) size: usize,
    /// Requests a second, over all connections.
    pub(crate) rate: f64,
    pub(crate) connections: u32,
    /// Streams that it opens before, until it is refused, and keeps.
    pub(crate) streams: usize,
    pub(crate) time: Duration,
}

impl Order {
    /// What `quiet` asks for so long.
    pub(crate) fn quiet(port: u16, time: Duration) -> Self {
        Self {
            port,
            key: QUIET.into(),
            size: 1_000,
            rate: 200.0,
            connections: 8,
            streams: 0,
            time,
        }
    }

    /// Starts a process that does.
    pub(crate) fn start(&self) -> Result<Helper> {
        let words = format!(
            "caller {} {} {} {} {} {} {}",
            self.port,
            self.key,
            self.size,
            self.rate,
            self.connections,
            self.streams,
            self.time.as_millis(),
        );
        Helper::start(None, &words.split(' ').collect::<Vec<_>>())
    }

    fn from_words(words: &[&str]) -> Result<Self> {
        let &[port, key, size, rate, connections, streams, time] = words else {
            bail!("a caller takes PORT KEY SIZE RATE CONNECTIONS STREAMS MILLISECONDS");
        };
        Ok(Self {
            port: port.parse()?,
            key: key.into(),
            size: size.parse()?,
            rate: rate.parse()?,
            connections: connections.parse()?,
            streams: streams.parse()?,
            time: Duration::from_millis(time.parse()?),
        })
    }

    /// A whole request: head and body.
    fn request(&self, is_stream: bool) -> Vec<u8> {
        let (model, stream) = match is_stream {
            true => ("paced", ",\"stream\":true"),
            false => ("bench", ""),
        };
        let front = format!(
            "{{\"model\":\"{model}\"{stream},\"max_tokens\":512,\"messages\":[{{\"role\":\"user\",\"content\":\""
        );
        let text = "words ".repeat(self.size.saturating_sub(front.len()) / 6);
        let body = front + &text + "\"}]}";
        let Self { port, key, .. } = self;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer sk-{key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        (head + &body).into_bytes()
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Half the answers came at least this fast, counted from when the requests were due.
    pub(crate) p50: Duration,
    /// Ninety-nine in a hundred did.
    pub(crate) p99: Duration,
    /// How long it took, until the last was answered.
    pub(crate) wall: Duration,
    pub(crate) statuses: Statuses,
}

/// How many answers had which status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Statuses(pub(crate) BTreeMap<u16, u64>);

impl Statuses {
    /// How many answers there were.
    pub(crate) fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many had this one.
    pub(crate) fn of(&self, status: u16) -> u64 {
        self.0.get(&status).copied().unwrap_or_default()
    }

    /// Adds others.
    pub(crate) fn add(&mut self, more: &Self) {
        for (status, count) in &more.0 {
            *self.0.entry(*status).or_default() += count;
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.iter().map(|(status, count)| match *status {
            BROKEN => format!("{count} broken off"),
            status => format!("{count} × {status}"),
        });
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

impl Outcome {
    fn of(mut times: Vec<Duration>, wall: Duration, statuses: Statuses) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied();
        Self {
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            wall,
            statuses,
        }
    }

    fn to_line(&self) -> String {
        let times = [self.p50, self.p99, self.wall].map(|time| time.as_nanos().to_string());
        let pairs = self.statuses.0.iter();
        let pairs = pairs.map(|(status, count)| format!(" {status} {count}"));
        times.join(" ") + &pairs.collect::<String>()
    }

    fn from_line(line: &str) -> Result<Self> {
        let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("a caller said `{line}`"))?;
        let [p50, p99, wall, pairs @ ..] = numbers.as_slice() else {
            bail!("a caller said `{line}`");
        };
        let [p50, p99, wall] = [*p50, *p99, *wall].map(Duration::from_nanos);
        let mut statuses = BTreeMap::new();
        for pair in pairs.chunks_exact(2) {
            if let [status, count] = *pair {
                statuses.insert(u16::try_from(status)?, count);
            }
        }
        Ok(Self {
            p50,
            p99,
            wall,
            statuses: Statuses(statuses),
        })
    }
}

/// A caller, as the bench sees it.
impl Helper {
    /// Waits until it has opened its connections.
    pub(crate) async fn is_ready(&mut self) -> Result<()> {
        match self.line(GRACE).await?.as_str() {
            "ready" => Ok(()),
            line => bail!("a caller said `{line}`"),
        }
    }

    /// What came of what it asked, once it has asked for so long.
    pub(crate) async fn outcome(&mut self, time: Duration) -> Result<Outcome> {
        Outcome::from_line(&self.line(time + GRACE).await?)
    }
}

/// `caller PORT KEY SIZE RATE CONNECTIONS STREAMS MILLISECONDS`: opens its connections and streams, prints `ready`, and
/// after a line on its standard input asks for as long as told and prints what came of it. What is open stays so until its
/// standard input closes.
pub(crate) fn main(words: &[&str]) -> Result<()> {
    let called = Order::from_words(words).and_then(|order| call(&order));
    if let Err(error) = &called {
        println!("error: {error:#}");
    }
    wait_for_line()
}

fn wait_for_line() -> Result<()> {
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

fn call(order: &Order) -> Result<()> {
    let lines = (0..order.connections).map(|_| Line::open(order.port));
    let mut lines = lines.collect::<io::Result<Vec<_>>>()?;
    let request = order.request(false);
    if order.key == QUIET {
        for line in &mut lines {
            line.ask(&request);
        }
    }
    let mut streams = Vec::new();
    // Until they have every slot.
    while order.streams > 0 && lines.iter_mut().any(|line| line.ask(&request) != 429) {
        for _ in 0..order.streams {
            let mut stream = TcpStream::connect(("127.0.0.1", order.port))?;
            stream.write_all(&order.request(true))?;
            streams.push(stream);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("ready");
    wait_for_line()?;
    let start = Instant::now();
    let gap = Duration::from_secs_f64(1.0 / order.rate);
    let (mut times, mut statuses) = (Vec::new(), Statuses::default());
    std::thread::scope(|scope| {
        let threads = lines.iter_mut().zip(0..).map(|(line, n)| {
            let dues = (0..).map(move |turn: u32| gap * (turn * order.connections + n));
            let dues = dues.take_while(|due| *due < order.time);
            let request = &request;
            scope.spawn(move || line.keep(request, dues.map(|due| start + due)))
        });
        // All are started before the first is waited for.
        for thread in threads.collect::<Vec<_>>() {
            let (took, seen) = thread.join().unwrap_or_default();
            times.extend(took);
            statuses.add(&seen);
        }
    });
    let outcome = Outcome::of(times, start.elapsed(), statuses);
    println!("{}", outcome.to_line());
    wait_for_line()
}

/// One connection.
struct Line {
    port: u16,
    socket: TcpStream,
    came: Vec<u8>,
}

impl Line {
    fn open(port: u16) -> io::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(GRACE / 2))?;
        Ok(Self {
            port,
            socket,
            came: vec![0; 16 << 10],
        })
    }

    /// Sends a request at each of these moments, or as soon after as there is an answer to the one before.
    fn keep(
        &mut self,
        request: &[u8],
        dues: impl Iterator<Item = Instant>,
    ) -> (Vec<Duration>, Statuses) {
        let (mut times, mut statuses) = (Vec::new(), Statuses::default());
        for due in dues {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let status = self.ask(request);
            times.push(due.elapsed());
            *statuses.0.entry(status).or_default() += 1;
        }
        (times, statuses)
    }

    /// The status of the answer. A connection that broke is opened anew.
    fn ask(&mut self, request: &[u8]) -> u16 {
        let status = self.exchange(request);
        status.unwrap_or_else(|_| {
            // Should that fail, the next one will break off, too.
            if let Ok(anew) = Self::open(self.port) {
                *self = anew;
            }
            BROKEN
        })
    }

    fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.socket.write_all(request)?;
        let mut filled = 0;
        loop {
            let room = self.came.get_mut(filled..).unwrap_or_default();
            match self.socket.read(room)? {
                0 => bail!("closed"),
                more => filled += more,
            }
            let came = self.came.get(..filled).unwrap_or_default();
            let Some(head) = wire::head(came)? else {
                continue;
            };
            let Framing::Length(length) = head.framing else {
                bail!("an answer without a length");
            };
            if filled >= head.len + length {
                let status = came.get(9..12).unwrap_or_default();
                return Ok(std::str::from_utf8(status)?.parse()?);
            }
        }
    }
}
