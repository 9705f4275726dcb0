//! Who opens the streams, and notes of each event how late it came.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::bodies;
use crate::event::{Event, clock};
use crate::wire::{self, Chunks};

/// Streams opened in a second.
pub(crate) const RAMP: u64 = 500;
/// The latest that an event may come.
pub(crate) const LATEST: Duration = Duration::from_millis(50);
/// Streams that are opened and hung up on before: few, since the memory that they leave free is used by the first of those
/// that are measured.
const WARM: u64 = 10;
/// Between the last stream's opening and the beginning of what is measured.
const SETTLE: Duration = Duration::from_secs(1);

/// How late events came, of those that were sent while it was measured.
pub(crate) struct Heard {
    /// How many there were.
    pub(crate) events: u64,
    /// How many of them came later than [`LATEST`].
    pub(crate) late: u64,
    /// Half of them came at most this late.
    pub(crate) p50: Duration,
    /// Ninety-nine in a hundred.
    pub(crate) p99: Duration,
    /// All of them.
    pub(crate) max: Duration,
}

impl Heard {
    fn of(mut times: Vec<u64>) -> Result<Self> {
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let at = |percent: usize| times.get(last * percent / 100).copied();
        let at = |percent| at(percent).map(Duration::from_nanos);
        let late = |time: &&u64| Duration::from_nanos(**time) > LATEST;
        Ok(Self {
            events: times.len() as u64,
            late: times.iter().filter(late).count() as u64,
            p50: at(50).context("no event came")?,
            p99: at(99).context("no event came")?,
            max: at(100).context("no event came")?,
        })
    }

    fn to_line(&self) -> String {
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|time| time.as_nanos());
        format!("{} {} {p50} {p99} {max}", self.events, self.late)
    }

    /// Reads what the listener printed.
    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let numbers = line.split(' ').map(str::parse);
        let numbers: Vec<u64> = numbers
            .collect::<Result<_, _>>()
            .with_context(|| format!("the listener said `{line}`"))?;
        let &[events, late, p50, p99, max] = numbers.as_slice() else {
            bail!("the listener said `{line}`");
        };
        let [p50, p99, max] = [p50, p99, max].map(Duration::from_nanos);
        Ok(Self {
            events,
            late,
            p50,
            p99,
            max,
        })
    }
}

/// `listener PORT STREAMS SECONDS EVENTS`: says when the proxy is warm, waits for a line on its standard input, opens so many
/// streams, says when all are open, measures for so long, says so, reads all to their end, and prints what it heard.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let &[port, streams, seconds, events] = args else {
        bail!("listener takes PORT STREAMS SECONDS EVENTS");
    };
    let port = port.parse()?;
    let listener = Rc::new(Listener {
        port,
        request: bodies::request(port, "paced", true, true),
        events: events.parse()?,
        opened: Cell::default(),
        window: Cell::default(),
        times: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let (streams, seconds) = (streams.parse()?, seconds.parse()?);
    let heard = (|| {
        local.block_on(&runtime, listener.warm())?;
        println!("warm");
        std::io::stdin().read_line(&mut String::new())?;
        local.block_on(&runtime, listener.listen(streams, seconds))
    })();
    match heard {
        Ok(heard) => println!("{}", heard.to_line()),
        Err(error) => println!("error: {error:#}"),
    }
    Ok(())
}

struct Listener {
    port: u16,
    request: Bytes,
    /// In a whole stream.
    events: u64,
    /// Streams that have had their first event.
    opened: Cell<u64>,
    /// When the events were sent that count, from and until, by [`clock`].
    window: Cell<Option<(u64, u64)>>,
    /// How late each came, nanoseconds.
    times: RefCell<Vec<u64>>,
}

impl Listener {
    /// Opens a few streams and hangs up on them.
    async fn warm(&self) -> Result<()> {
        let mut streams = Vec::new();
        for _ in 0..WARM {
            streams.push(Stream::open(self.port, &self.request).await?);
        }
        drop(streams);
        // A provider notices when it writes the next event but one.
        sleep(3 * SETTLE).await;
        Ok(())
    }

    async fn listen(self: &Rc<Self>, streams: u64, seconds: u64) -> Result<Heard> {
        let mut tasks = JoinSet::new();
        let mut ticks = interval(Duration::from_secs(1) / u32::try_from(RAMP)?);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..streams {
            ticks.tick().await;
            tasks.spawn_local(Rc::clone(self).follow());
        }
        while self.opened.get() < streams {
            tokio::select! {
                Some(ended) = tasks.join_next() => {
                    ended??;
                    bail!("a stream ended before all were open");
                }
                () = sleep(Duration::from_millis(10)) => {}
            }
        }
        println!("open");
        sleep(SETTLE).await;
        let time = Duration::from_secs(seconds);
        let from = clock();
        let nanos = u64::try_from(time.as_nanos())?;
        self.window.set(Some((from, from + nanos)));
        sleep(time).await;
        println!("measured");
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Heard::of(self.times.take())
    }

    /// One stream, from its opening to its end.
    async fn follow(self: Rc<Self>) -> Result<()> {
        let mut stream = Stream::open(self.port, &self.request).await?;
        let mut count = 0;
        loop {
            let now = clock();
            while let Some(text) = stream.event() {
                stream.is_done = text == b"data: [DONE]\n\n";
                let Some(event) = Event::read(&text) else {
                    continue;
                };
                if event.number != count {
                    bail!("event {} of a stream came after {count}", event.number);
                }
                if count == 0 {
                    self.opened.set(self.opened.get() + 1);
                }
                count += 1;
                if let Some((from, until)) = self.window.get()
                    && (from..until).contains(&event.sent)
                {
                    let late = now.saturating_sub(event.sent);
                    self.times.borrow_mut().push(late);
                }
            }
            if stream.has_ended {
                break;
            }
            stream.more().await?;
        }
        if count != self.events || !stream.is_done {
            bail!("a stream ended after {count} of {} events", self.events);
        }
        match self.window.get() {
            Some((_, until)) if until < clock() => Ok(()),
            _ => bail!("a stream ended before it was measured: it took too long to open all"),
        }
    }
}

/// One stream that is being read.
struct Stream {
    socket: TcpStream,
    buf: BytesMut,
    chunks: Chunks,
    /// What came of its body and is no whole event yet.
    text: Vec<u8>,
    is_done: bool,
    has_ended: bool,
}

impl Stream {
    /// Sends a request and waits for the head of its answer.
    async fn open(port: u16, request: &[u8]) -> Result<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        socket.write_all(request).await?;
        let mut buf = BytesMut::with_capacity(4 * 1024);
        let head = loop {
            if let Some(head) = wire::head(&buf)? {
                break head;
            }
            if socket.read_buf(&mut buf).await? == 0 {
                bail!("a connection was closed without an answer");
            }
        };
        if !head.ok {
            let text: String = String::from_utf8_lossy(&buf).chars().take(600).collect();
            bail!("an answer other than 200:\n{text}");
        }
        buf.advance(head.len);
        let mut stream = Self {
            socket,
            buf,
            chunks: Chunks::Size,
            text: Vec::new(),
            is_done: false,
            has_ended: false,
        };
        stream.unwrap_chunks()?;
        Ok(stream)
    }

    /// Waits for more of it.
    async fn more(&mut self) -> Result<()> {
        self.buf.reserve(1024);
        if self.socket.read_buf(&mut self.buf).await? == 0 {
            bail!("a connection was closed before its stream had ended");
        }
        self.unwrap_chunks()
    }

    fn unwrap_chunks(&mut self) -> Result<()> {
        let text = &mut self.text;
        self.has_ended = self
            .chunks
            .take(&mut self.buf, |payload| text.extend_from_slice(payload))?;
        Ok(())
    }

    /// The next whole event that has come.
    fn event(&mut self) -> Option<Vec<u8>> {
        let end = memmem::find(&self.text, b"\n\n")? + 2;
        Some(self.text.drain(..end).collect())
    }
}
