//! The provider behind the proxies: raw HTTP/1.1 over TCP with answers built beforehand.

use std::io::Read as _;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::bodies;
use crate::pacer::Pacer;
use crate::wire;

/// Every answer it has. Of two, the second has the usage chunk.
struct Answers {
    whole: Bytes,
    flood: [Bytes; 2],
    paced: [Arc<[Bytes]>; 2],
}

/// What one request gets.
enum Reply {
    AtOnce(Bytes),
    Paced(Arc<[Bytes]>),
}

/// `upstream LOW HIGH`: prints its port and serves until its standard input closes.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let [low, high] = args else {
        bail!("upstream takes the gap between paced events, LOW HIGH");
    };
    let pacer = Pacer::start(low.parse()?, high.parse()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new().spawn(|| {
        // Ends with the bench, however that ends.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    })?;
    runtime.block_on(serve(pacer))
}

async fn serve(pacer: Pacer) -> Result<()> {
    let flood = |usage| Bytes::from(bodies::stream("flood", usage).concat());
    let spaced = |usage| Arc::from(bodies::stream("paced", usage));
    let answers = Arc::new(Answers {
        whole: bodies::answer(),
        flood: [flood(false), flood(true)],
        paced: [spaced(false), spaced(true)],
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted.context("accept")?;
                let answers = Arc::clone(&answers);
                let pacer = pacer.clone();
                connections.spawn(async move { connection(socket, &answers, &pacer).await });
            }
            // A connection that broke is the load generator's to report.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(socket: TcpStream, answers: &Answers, pacer: &Pacer) -> Result<()> {
    socket.set_nodelay(true)?;
    let (mut from, mut to) = socket.into_split();
    let mut buf = BytesMut::with_capacity(16 * 1024);
    loop {
        let len = match request(&mut from, &mut buf).await {
            Ok(Some(len)) => len,
            Ok(None) => return Ok(()),
            Err(error) => {
                let text = format!("the bench's upstream: {error:#}\n");
                let head = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length:";
                to.write_all(format!("{head} {}\r\n\r\n{text}", text.len()).as_bytes())
                    .await?;
                return Ok(());
            }
        };
        let reply = choose(buf.get(..len).unwrap_or_default(), answers);
        buf.advance(len);
        match reply {
            Reply::AtOnce(bytes) => to.write_all(&bytes).await?,
            Reply::Paced(pieces) => to = pacer.send(to, pieces).await?,
        }
    }
}

/// Reads a request as the wire has it, and makes sure that it is one for which there are answers.
async fn request(from: &mut OwnedReadHalf, buf: &mut BytesMut) -> Result<Option<usize>> {
    let len = wire::request(from, buf).await?;
    if len.is_some() && !buf.starts_with(b"POST /v1/chat/completions HTTP/1.1\r\n") {
        bail!("only POST /v1/chat/completions is served");
    }
    Ok(len)
}

fn choose(request: &[u8], answers: &Answers) -> Reply {
    let has = |needle: &str| memmem::find(request, needle.as_bytes()).is_some();
    if !has("\"stream\":true") && !has("\"stream\": true") {
        return Reply::AtOnce(answers.whole.clone());
    }
    let [flood, flood_usage] = &answers.flood;
    let [paced, paced_usage] = &answers.paced;
    match (has("\"paced\""), has("\"include_usage\"")) {
        (false, false) => Reply::AtOnce(flood.clone()),
        (false, true) => Reply::AtOnce(flood_usage.clone()),
        (true, false) => Reply::Paced(Arc::clone(paced)),
        (true, true) => Reply::Paced(Arc::clone(paced_usage)),
    }
}
