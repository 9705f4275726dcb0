//! A provider that can do anything: answer, stream in given pieces, stall, reset, lie. Over raw sockets, so that it can
//! also do what no HTTP library would.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::server::TlsStream;

use super::identity::Identity;

/// What a provider does with one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with a status, headers and a body of known length.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Sends a stream of pieces, each in a write and a chunk of its own, and ends it.
    Stream(Vec<String>),
    /// The same, of any bytes, and with a pause of one's own before each.
    Pieces(Duration, Vec<Vec<u8>>),
    /// The same, and cuts the connection instead of ending it.
    Cut(Vec<String>),
    /// The same, and says nothing more, but keeps the connection.
    Stall(Vec<String>),
    /// Says nothing at all.
    Hang,
    /// Breaks the connection with a reset.
    Reset,
    /// Writes these bytes and closes.
    Raw(Vec<u8>),
    /// Writes these bytes, and says nothing more, but keeps the connection.
    Hold(Vec<u8>),
    /// Writes these bytes, and takes the next request.
    Keep(Vec<u8>),
    /// Writes the first bytes, and then the second again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// Writes the first bytes, the second so many times, and the last; then closes.
    Repeat(Vec<u8>, Vec<u8>, usize, Vec<u8>),
    /// Sends a stream of pieces with a pause before each, and ends it.
    Slow(Duration, Vec<String>),
    /// Says nothing for so long, and then does this.
    After(Duration, Box<Act>),
    /// Says nothing until it is told to go on, and then does this.
    Told(watch::Receiver<()>, Box<Act>),
    /// Does this, and breaks the connection with a reset.
    #[allow(dead_code, reason = "only the fault suite, which shares this, does so")]
    Snap(Box<Act>),
    /// Sends the first pieces of a stream, waits until it is told to go on, sends the others and ends it.
    Gated(Vec<String>, watch::Receiver<()>, Vec<String>),
}

impl Act {
    /// A success with a JSON body.
    pub fn json(body: impl Into<String>) -> Self {
        Self::status(200, body)
    }

    /// Any status with a JSON body.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self::Answer(status, headers, body.into().into_bytes())
    }

    /// A status with one more header.
    pub fn with(self, name: &'static str, value: &str) -> Self {
        match self {
            Self::Answer(status, mut headers, body) => {
                headers.retain(|(other, _)| *other != name);
                headers.push((name, value.to_owned()));
                Self::Answer(status, headers, body)
            }
            other => other,
        }
    }

    /// A whole stream.
    pub fn events<S: Into<String>>(pieces: impl IntoIterator<Item = S>) -> Self {
        Self::Stream(pieces.into_iter().map(Into::into).collect())
    }
}

/// One request, as a provider got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// What a provider is to do, and what it has seen.
#[derive(Default)]
pub struct Shared {
    acts: Mutex<VecDeque<Act>>,
    received: Mutex<Vec<Received>>,
    pub connections: AtomicUsize,
    pub left: AtomicUsize,
    pub refused: AtomicUsize,
    resumed: AtomicUsize,
    written: AtomicUsize,
}

impl Shared {
    pub fn new(acts: impl IntoIterator<Item = Act>) -> Arc<Self> {
        Arc::new(Self {
            acts: Mutex::new(acts.into_iter().collect()),
            ..Self::default()
        })
    }

    /// Notes a request, and what is to be done with it.
    pub fn next(&self, request: Received) -> Act {
        self.received.lock().unwrap().push(request);
        let mut acts = self.acts.lock().unwrap();
        if acts.len() > 1 {
            acts.pop_front().unwrap()
        } else {
            acts.front().cloned().unwrap_or(Act::Hang)
        }
    }
}

/// A connection that can also be broken.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Closes it with a reset.
    fn reset(&self) -> std::io::Result<()>;
}

impl Wire for TcpStream {
    fn reset(&self) -> std::io::Result<()> {
        socket2::SockRef::from(self).set_linger(Some(Duration::ZERO))
    }
}

impl Wire for UnixStream {
    fn reset(&self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Wire for TlsStream<TcpStream> {
    fn reset(&self) -> std::io::Result<()> {
        self.get_ref().0.reset()
    }
}

/// A provider on a port of its own. Its last act is repeated.
pub struct Provider {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Provider {
    pub async fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), acts)
    }

    /// Where somebody listens already.
    pub fn on(listener: TcpListener, acts: impl IntoIterator<Item = Act>) -> Self {
        let address = listener.local_addr().unwrap();
        Self::serving(address, acts, move |shared| async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, &shared).await });
            }
        })
    }

    /// At a socket in the file system. It has no address.
    pub fn at(path: &std::path::Path, acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::serving(address, acts, move |shared| async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, &shared).await });
            }
        })
    }

    /// Over TLS, as `localhost`.
    pub async fn secure(identity: &Identity, acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = identity.acceptor(&[]);
        Self::serving(address, acts, move |shared| async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                connections.spawn(async move {
                    let stream = acceptor.accept(stream).await?;
                    if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                        shared.resumed.fetch_add(1, Ordering::SeqCst);
                    }
                    serve(stream, &shared).await
                });
            }
        })
    }

    fn serving<F: Future<Output = ()> + Send + 'static>(
        address: SocketAddr,
        acts: impl IntoIterator<Item = Act>,
        serve: impl FnOnce(Arc<Shared>) -> F,
    ) -> Self {
        let shared = Shared::new(acts);
        Self {
            address,
            task: tokio::task::spawn(serve(Arc::clone(&shared))),
            shared,
        }
    }

    /// A provider that somebody else serves.
    pub fn of(address: SocketAddr, shared: Arc<Shared>, task: tokio::task::JoinHandle<()>) -> Self {
        Self {
            address,
            shared,
            task,
        }
    }

    /// Where nobody listens, nor will as long as the tests run: another test would be given a port that is free.
    pub fn nowhere() -> SocketAddr {
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Box::leak(Box::new(taken)).local_addr().unwrap()
    }

    /// What it got so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The only request it got.
    pub fn only(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:?}");
        received[0].clone()
    }

    /// How many requests it got.
    pub fn count(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes that come again and again it got rid of.
    pub fn written(&self) -> usize {
        self.shared.written.load(Ordering::SeqCst)
    }

    /// How many connections went on with a TLS session of another.
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// How often the gateway went away in the middle of an act.
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }

    /// How many requests it refused unread.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: impl Wire, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let act = shared.next(request);
        let goes_on = perform(&mut stream, act, shared).await?;
        stream.flush().await?;
        if !goes_on {
            return Ok(());
        }
    }
    Ok(())
}

async fn read_request(
    stream: &mut impl Wire,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Received>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|l| l.split_once(':').unwrap_or((l, "")))
        .map(|(n, v)| (n.trim().to_lowercase(), v.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(n, _)| n == "content-length")
        .map_or(0, |(_, v)| v.parse().unwrap());
    buffer.drain(..end + 4);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer.drain(..length).collect();
    Ok(Some(Received {
        line,
        headers,
        body,
    }))
}

/// An answer of known length.
fn answer(status: u16, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Whether the connection is good for another request.
async fn perform(stream: &mut impl Wire, act: Act, shared: &Shared) -> std::io::Result<bool> {
    match act {
        Act::Answer(status, headers, body) => {
            let answer = answer(status, &headers, &body);
            stream.write_all(&answer).await.map(|()| true)
        }
        Act::Stream(pieces) => whole(stream, &pieces, PAUSE, shared).await,
        Act::Pieces(pause, pieces) => whole(stream, &pieces, pause, shared).await,
        Act::Slow(pause, pieces) => whole(stream, &pieces, pause, shared).await,
        Act::After(pause, act) => {
            tokio::time::sleep(pause).await;
            Box::pin(perform(stream, *act, shared)).await
        }
        Act::Told(mut gate, act) => {
            let _ = gate.changed().await;
            Box::pin(perform(stream, *act, shared)).await
        }
        Act::Snap(act) => {
            Box::pin(perform(stream, *act, shared)).await?;
            stream.flush().await?;
            stream.reset().map(|()| false)
        }
        Act::Gated(first, mut gate, others) => {
            send(stream, &first, PAUSE, shared).await?;
            let _ = gate.changed().await;
            go_on(stream, &others, PAUSE, shared).await?;
            stream.write_all(b"0\r\n\r\n").await.map(|()| true)
        }
        Act::Cut(pieces) => {
            send(stream, &pieces, PAUSE, shared).await?;
            Ok(false)
        }
        Act::Stall(pieces) => {
            send(stream, &pieces, PAUSE, shared).await?;
            wait_for_leave(stream, shared).await;
            Ok(false)
        }
        Act::Hang => {
            wait_for_leave(stream, shared).await;
            Ok(false)
        }
        Act::Reset => stream.reset().map(|()| false),
        Act::Raw(bytes) => stream.write_all(&bytes).await.map(|()| false),
        Act::Hold(bytes) => {
            stream.write_all(&bytes).await?;
            wait_for_leave(stream, shared).await;
            Ok(false)
        }
        Act::Keep(bytes) => stream.write_all(&bytes).await.map(|()| true),
        Act::Endless(start, again) => {
            stream.write_all(&start).await?;
            while write_again(stream, &again, shared).await {}
            Ok(false)
        }
        Act::Repeat(start, again, times, end) => {
            stream.write_all(&start).await?;
            let mut left = times;
            while left > 0 && write_again(stream, &again, shared).await {
                left -= 1;
            }
            if left == 0 {
                stream.write_all(&end).await?;
            }
            Ok(false)
        }
    }
}

/// Writes as much as is taken. False once nobody is there any more.
async fn write_again(stream: &mut impl Wire, bytes: &[u8], shared: &Shared) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.write(rest).await {
            Ok(taken) if taken > 0 => {
                shared.written.fetch_add(taken, Ordering::SeqCst);
                rest = &rest[taken..];
            }
            _ => {
                shared.left.fetch_add(1, Ordering::SeqCst);
                return false;
            }
        }
    }
    true
}

/// A pause that lets each piece travel alone, and shows who went away meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// Sends a stream and ends it.
async fn whole<P: AsRef<[u8]>>(
    stream: &mut impl Wire,
    pieces: &[P],
    pause: Duration,
    shared: &Shared,
) -> std::io::Result<bool> {
    send(stream, pieces, pause, shared).await?;
    stream.write_all(b"0\r\n\r\n").await?;
    Ok(true)
}

async fn send<P: AsRef<[u8]>>(
    stream: &mut impl Wire,
    pieces: &[P],
    pause: Duration,
    shared: &Shared,
) -> std::io::Result<()> {
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await?;
    go_on(stream, pieces, pause, shared).await
}

async fn go_on<P: AsRef<[u8]>>(
    stream: &mut impl Wire,
    pieces: &[P],
    pause: Duration,
    shared: &Shared,
) -> std::io::Result<()> {
    let rest = || async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    };
    for piece in pieces.iter().map(AsRef::as_ref) {
        rest().await;
        let size = format!("{:x}\r\n", piece.len());
        let chunk = [size.as_bytes(), piece, b"\r\n"].concat();
        if let Err(error) = stream.write_all(&chunk).await {
            shared.left.fetch_add(1, Ordering::SeqCst);
            return Err(error);
        }
    }
    rest().await;
    Ok(())
}

async fn wait_for_leave(stream: &mut impl Wire, shared: &Shared) {
    let mut rest = [0; 64];
    while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    shared.left.fetch_add(1, Ordering::SeqCst);
}
