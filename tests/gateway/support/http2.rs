//! A provider that speaks HTTP/2, on streams of its own making, so that it can also refuse them or go away.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::identity::Identity;
use super::provider::{Act, Provider, Received, Shared};

/// How it behaves on its connections.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Streams at once on one connection.
    pub streams: u32,
    /// Which streams it refuses.
    pub refuses: Refuses,
    /// The longest request that it reads, in bytes. A longer one it answers at once, and takes nothing of.
    pub reads: u64,
    /// After one request on a connection it goes away, not having looked at any further one.
    pub leaves: bool,
}

/// Which streams of a connection are refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refuses {
    None,
    /// Every second, from the first on.
    Half,
    All,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            streams: 200,
            refuses: Refuses::None,
            reads: u64::MAX,
            leaves: false,
        }
    }
}

/// A provider and the means to have it end its connections.
pub struct Http2 {
    pub provider: Provider,
    /// Whoever hears it says that it takes no more requests, and finishes those under way.
    parting: watch::Sender<()>,
}

impl std::ops::Deref for Http2 {
    type Target = Provider;

    fn deref(&self) -> &Provider {
        &self.provider
    }
}

impl Http2 {
    /// Over plain TCP, known beforehand.
    pub async fn plain(manners: Manners, acts: impl IntoIterator<Item = Act>) -> Self {
        Self::serve(None, manners, acts).await
    }

    /// Over TLS, if it is offered.
    pub async fn secure(identity: &Identity, acts: impl IntoIterator<Item = Act>) -> Self {
        Self::serve(Some(identity), Manners::default(), acts).await
    }

    /// At a socket in the file system.
    pub fn at(path: &std::path::Path, acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (parting, parted) = watch::channel(());
        let shared = Shared::new(acts);
        let theirs = Arc::clone(&shared);
        let task = tokio::task::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, parted) = (Arc::clone(&theirs), parted.clone());
                connections.spawn(connection(stream, Manners::default(), shared, parted));
            }
        });
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            provider: Provider::of(address, shared, task),
            parting,
        }
    }

    async fn serve(
        identity: Option<&Identity>,
        manners: Manners,
        acts: impl IntoIterator<Item = Act>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let acceptor = identity.map(|identity| identity.acceptor(&[b"h2", b"http/1.1"]));
        let (parting, parted) = watch::channel(());
        let shared = Shared::new(acts);
        let theirs = Arc::clone(&shared);
        let task = tokio::task::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                theirs.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, mut parted) = (Arc::clone(&theirs), parted.clone());
                // What was said before is not said to those who come later.
                parted.mark_unchanged();
                let (manners, acceptor) = (manners.clone(), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else {
                                return;
                            };
                            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                            connection(stream, manners, shared, parted).await;
                        }
                        None if manners.leaves => drop(leave(stream, &shared).await),
                        None => connection(stream, manners, shared, parted).await,
                    }
                });
            }
        });
        Self {
            provider: Provider::of(address, shared, task),
            parting,
        }
    }

    /// Says on every connection that no more requests are taken.
    pub fn part(&self) {
        self.parting.send_replace(());
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    manners: Manners,
    shared: Arc<Shared>,
    mut parted: watch::Receiver<()>,
) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(manners.streams);
    let Ok(mut connection): Result<Connection<_, Bytes>, _> = builder.handshake(stream).await
    else {
        return;
    };
    let mut streams = JoinSet::new();
    let (mut came, mut leaving) = (0, false);
    loop {
        tokio::select! {
            next = connection.accept() => {
                let Some(Ok((request, mut respond))) = next else { return };
                came += 1;
                let refuses = match manners.refuses {
                    Refuses::None => false,
                    Refuses::Half => came % 2 == 1,
                    Refuses::All => true,
                };
                if refuses {
                    shared.refused.fetch_add(1, Ordering::SeqCst);
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    streams.spawn(answer(request, respond, manners.reads, Arc::clone(&shared)));
                }
            }
            Some(done) = streams.join_next() => {
                // It dies in the middle of an answer.
                if matches!(done, Ok(After::Die)) {
                    return;
                }
            }
            Ok(()) = parted.changed(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
        }
    }
}

/// Answers the first request of a connection, and at the next says that it goes away, naming only the first as looked
/// at. In frames of its own: a library names what it has read.
async fn leave(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    async fn write(
        stream: &mut TcpStream,
        (kind, flags, id): (u8, u8, u32),
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
        stream.write_all(&[&head, payload].concat()).await
    }
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    write(&mut stream, (SETTINGS, 0, 0), &[]).await?;
    let mut first = None;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes(head[5..].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await?;
        let is_last = flags & 1 == 1;
        match (kind, first) {
            (SETTINGS, _) if !is_last => write(&mut stream, (SETTINGS, 1, 0), &[]).await?,
            (HEADERS, Some(first)) if first != id => {
                let payload = [u32::to_be_bytes(first), [0; 4]].concat();
                write(&mut stream, (GOAWAY, 0, 0), &payload).await?;
            }
            (HEADERS, None) => first = Some(id),
            (DATA, Some(first)) if first == id && is_last => {
                let act = shared.next(Received {
                    line: String::new(),
                    headers: Vec::new(),
                    body: payload,
                });
                let Act::Answer(200, _, body) = act else {
                    panic!("nobody has taught it {act:?}");
                };
                // `:status: 200`, from the table that everybody knows.
                write(&mut stream, (HEADERS, 4, id), &[0x88]).await?;
                write(&mut stream, (DATA, 1, id), &body).await?;
            }
            _ => {}
        }
    }
}

/// What becomes of the connection.
enum After {
    Live,
    Die,
    /// It lives, and the stream does not.
    Reset,
}

async fn answer(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    reads: u64,
    shared: Arc<Shared>,
) -> After {
    let (head, mut body) = request.into_parts();
    let mut whole = Vec::new();
    let length = head.headers.get("content-length");
    let length: u64 = length.map_or(0, |length| length.to_str().unwrap().parse().unwrap());
    while length <= reads
        && let Some(Ok(piece)) = body.data().await
    {
        let _ = body.flow_control().release_capacity(piece.len());
        whole.extend_from_slice(&piece);
    }
    let headers = head.headers.iter();
    let act = shared.next(Received {
        line: format!("{} {} {:?}", head.method, head.uri, head.version),
        headers: headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body: whole,
    });
    // Whoever left before the end is counted.
    match perform(respond, act).await {
        Ok(after) => after,
        Err(_) => {
            shared.left.fetch_add(1, Ordering::SeqCst);
            After::Live
        }
    }
}

async fn perform(mut respond: SendResponse<Bytes>, act: Act) -> Result<After, h2::Error> {
    let mut pause = PAUSE;
    let (pieces, end) = match act {
        Act::Answer(status, headers, body) => {
            let mut head = Response::builder().status(status);
            for (name, value) in headers {
                head = head.header(name, value);
            }
            let mut stream = respond.send_response(head.body(()).unwrap(), false)?;
            stream.send_data(body.into(), true)?;
            return Ok(After::Live);
        }
        Act::Hang => {
            poll_fn(|cx| respond.poll_reset(cx)).await?;
            return Err(Reason::CANCEL.into());
        }
        Act::Reset => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(After::Live);
        }
        Act::Stream(pieces) => (pieces, Some(After::Live)),
        Act::Slow(rest, pieces) => {
            pause = rest;
            (pieces, Some(After::Live))
        }
        Act::Cut(pieces) => (pieces, Some(After::Die)),
        Act::Snap(act) => match *act {
            Act::Cut(pieces) => (pieces, Some(After::Reset)),
            other => panic!("nobody has taught it to reset {other:?}"),
        },
        Act::Stall(pieces) => (pieces, None),
        other => panic!("nobody has taught it {other:?}"),
    };
    let head = Response::builder().header("content-type", "text/event-stream");
    let mut stream = respond.send_response(head.body(()).unwrap(), false)?;
    for piece in pieces {
        send(&mut stream, piece, pause).await?;
    }
    match end {
        Some(After::Live) => {
            stream.send_data(Bytes::new(), true)?;
            Ok(After::Live)
        }
        Some(After::Die) => Ok(After::Die),
        Some(After::Reset) => {
            stream.send_reset(Reason::INTERNAL_ERROR);
            Ok(After::Live)
        }
        None => {
            poll_fn(|cx| stream.poll_reset(cx)).await?;
            Err(Reason::CANCEL.into())
        }
    }
}

/// A pause that lets each piece travel alone.
const PAUSE: Duration = Duration::from_millis(2);

/// Sends a piece in a frame of its own, and notices who went away meanwhile.
async fn send(
    stream: &mut SendStream<Bytes>,
    piece: String,
    pause: Duration,
) -> Result<(), h2::Error> {
    stream.send_data(piece.into(), false)?;
    tokio::select! {
        reset = poll_fn(|cx| stream.poll_reset(cx)) => Err(reset?.into()),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}
