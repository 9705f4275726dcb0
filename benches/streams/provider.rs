//! The provider behind the proxies: answers whatever it is asked with a stream of one event a second.

use std::io::Read as _;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};

use crate::event::Event;
use crate::wire;

/// Between two events.
const PACE: Duration = Duration::from_secs(1);
const HEAD: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream; charset=utf-8\r\n\
    Transfer-Encoding: chunked\r\n\
    Cache-Control: no-cache\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    x-request-id: req_7f3c2a9e51d84b06\r\n\r\n";

/// `provider EVENTS`: prints its port and serves streams of so many events, until its standard input closes.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let [events] = args else {
        bail!("provider takes EVENTS");
    };
    let events = events.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new().spawn(|| {
        // Ends with the bench, however that ends.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    })?;
    LocalSet::new().block_on(&runtime, serve(events))
}

async fn serve(events: u64) -> Result<()> {
    let end = Rc::new(end(events));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let mut connections = JoinSet::new();
    let mut moment = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted.context("accept")?;
                // By the golden section, any number of streams are spread evenly over the second.
                moment = (moment + 618_034) % 1_000_000;
                let first = Duration::from_micros(moment);
                connections.spawn_local(connection(socket, first, events, Rc::clone(&end)));
            }
            // A connection that broke is the listener's to report.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One request after the other, each answered with a stream: one event at once, the next after a part of a second that is
/// this connection's own, and then one a second.
async fn connection(
    mut socket: TcpStream,
    first: Duration,
    events: u64,
    end: Rc<String>,
) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut buf = BytesMut::with_capacity(4 * 1024);
    while let Some(len) = wire::request(&mut socket, &mut buf).await? {
        buf.advance(len);
        let mut due = Instant::now() + first;
        let begin = HEAD.to_owned() + &chunk(&Event::now(0).text());
        socket.write_all(begin.as_bytes()).await?;
        for number in 1..events {
            sleep_until(due).await;
            due += PACE;
            let text = chunk(&Event::now(number).text());
            socket.write_all(text.as_bytes()).await?;
        }
        sleep_until(due).await;
        socket.write_all(end.as_bytes()).await?;
    }
    Ok(())
}

/// What comes after the last event with content: why it ended, what was used, and that it is done.
fn end(events: u64) -> String {
    let front = "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\
                 \"created\":1741570283,\"model\":\"paced\"";
    let finish = format!(
        "{front},\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n"
    );
    let usage = format!(
        "{front},\"choices\":[],\"usage\":{{\"prompt_tokens\":190,\"completion_tokens\":{events},\
         \"total_tokens\":{}}}}}\n\n",
        190 + events
    );
    chunk(&finish) + &chunk(&usage) + &chunk("data: [DONE]\n\n") + "0\r\n\r\n"
}

/// A text as one chunk of the chunked coding.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
