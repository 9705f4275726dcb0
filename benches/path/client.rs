//! One keep-alive connection of a client, which checks what it hears.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bodies;
use crate::wire::{self, Chunks, Events, Framing, Head};

/// What each connection is to send, and to expect.
#[derive(Clone)]
pub(crate) struct Order {
    /// Where.
    pub(crate) port: u16,
    /// The bytes of a request.
    pub(crate) request: Bytes,
    /// Events in an answer, if it is to be a stream.
    pub(crate) events: Option<u64>,
}

/// What its answers came to.
#[derive(Default)]
pub(crate) struct Tally {
    /// Until the answer was complete; of streams, until their first event.
    pub(crate) times: Vec<Duration>,
    /// Events in them.
    pub(crate) events: u64,
    /// Reads that brought something.
    pub(crate) reads: u64,
}

/// One connection.
pub(crate) struct Client {
    socket: TcpStream,
    buf: BytesMut,
    /// What is sent next.
    pub(crate) order: Order,
    /// What came of it so far.
    pub(crate) tally: Tally,
    /// The payload of an answer, while it is to be checked in full.
    pub(crate) keep: Option<Vec<u8>>,
}

impl Client {
    /// Opens it.
    pub(crate) async fn connect(order: Order) -> Result<Self> {
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
    pub(crate) async fn run(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.exchange().await?;
        }
        Ok(())
    }

    /// One request and its whole answer.
    pub(crate) async fn exchange(&mut self) -> Result<()> {
        let start = Instant::now();
        let head = self.begin().await?;
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

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn begin(&mut self) -> Result<Head> {
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
        Ok(head)
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
    pub(crate) fn check_kept(&mut self) -> Result<()> {
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
