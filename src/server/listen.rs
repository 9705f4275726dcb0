//! Where clients connect: addresses of the network, and sockets in the file system. They may be exchanged under load.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::tls::Tls;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At an IP address and a port.
    Tcp(SocketAddr),
    /// At a path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A place that accepts connections.
#[derive(Debug)]
struct Listener {
    socket: Socket,
    /// Where it was asked for.
    wanted: Address,
    /// Where it is: with a port of the system's if 0 was asked for.
    at: Address,
    /// The number of the connection it accepted last, among those of all that are asked together.
    last: AtomicU64,
}

/// Where it shall be listened, and how.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// At all of these.
    pub addresses: Vec<Address>,
    /// What is spoken at those of the network; none if bytes are what they are. A socket in the file system is not listened
    /// in to.
    pub tls: Option<Tls>,
}

/// Listeners that are asked together.
#[derive(Clone, Debug, Default)]
struct Several {
    listeners: Arc<[Arc<Listener>]>,
    tls: Option<Tls>,
}

/// The listeners there are, whoever accepts their connections.
#[derive(Debug)]
pub struct Listeners {
    /// None any more once they are closed for good.
    open: watch::Sender<Option<Several>>,
    /// Whose sockets they are.
    runtime: Handle,
}

/// Those that shall be open next. Dropped, they are as if nobody had asked for them.
#[derive(Debug)]
pub struct Prepared(Several);

/// Accepts the connections of whichever listeners there are.
#[derive(Debug)]
pub struct Accepting {
    changes: watch::Receiver<Option<Several>>,
    open: Several,
}

impl Listeners {
    /// Opens the first, in the runtime that this is called in.
    pub async fn open(places: &Places) -> Result<Self, (Address, io::Error)> {
        let open = Several::opened(places, &Several::default()).await?;
        Ok(Self {
            open: watch::Sender::new(Some(open)),
            runtime: Handle::current(),
        })
    }

    /// Opens what is not open yet of these. Connections that are made there wait until they are [put](Self::put) in place.
    /// Not to be called on the runtime's own thread.
    pub fn prepare(&self, places: &Places) -> Result<Prepared, (Address, io::Error)> {
        let open = self.open.borrow().clone().unwrap_or_default();
        let opening = Several::opened(places, &open);
        Ok(Prepared(self.runtime.block_on(opening)?))
    }

    /// Accepts from these from here on, and closes the others. Connections that were accepted stay open; only where TLS is
    /// another one now, those of the one before end with what is under way.
    pub fn put(&self, Prepared(next): Prepared) {
        self.open.send_if_modified(|open| {
            let Some(open) = open else {
                return false;
            };
            if let Some(tls) = &open.tls {
                tls.gives_way_to(next.tls.as_ref());
            }
            *open = next;
            true
        });
    }

    /// Closes all of them, for good.
    pub fn close(&self) {
        self.open.send_replace(None);
    }

    /// Where they are, with ports where 0 was asked for.
    pub fn addresses(&self) -> Vec<Address> {
        let open = self.open.borrow();
        let open = open.iter().flat_map(|it| &*it.listeners);
        open.map(|it| it.at.clone()).collect()
    }

    /// Accepts their connections, and those of whatever comes in their place.
    pub fn accepting(&self) -> Accepting {
        let mut changes = self.open.subscribe();
        let open = changes.borrow_and_update().clone().unwrap_or_default();
        Accepting { changes, open }
    }
}

impl Accepting {
    /// The next connection of whichever listener has one. They are asked in turn: a busy one does not starve the others.
    pub async fn next(&mut self) -> Accepted {
        loop {
            let accepted = tokio::select! {
                biased;
                Ok(()) = self.changes.changed() => {
                    self.open = self.changes.borrow_and_update().clone().unwrap_or_default();
                    continue;
                }
                accepted = poll_fn(|cx| poll_any(&self.open.listeners, cx)) => accepted,
            };
            match accepted {
                Ok(stream) => return self.open.accepted(stream),
                Err(error) => {
                    // No file is left to open, most likely. To ask again at once would only burn the CPU.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[derive(Debug)]
enum Socket {
    /// On the network.
    Tcp(TcpListener),
    /// In the file system. The name goes before the socket is closed: as long as it is open, nobody else's has its number.
    Unix { _name: Name, listener: UnixListener },
}

/// The name of a socket in the file system, taken away when nobody listens at it any more.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    /// Device and inode.
    number: (u64, u64),
}

impl Name {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            number: number(path)?,
        })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // The next process may have taken the name for a socket of its own. Whoever took ours away did our work.
        if number(&self.path).is_ok_and(|number| number == self.number) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn number(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A connection, and what is spoken over it.
#[derive(Debug)]
pub struct Accepted {
    pub(super) stream: Stream,
    pub(super) tls: Option<Tls>,
}

/// A connection that belongs to no runtime yet.
#[derive(Debug)]
pub(super) enum Stream {
    /// From the network.
    Tcp(std::net::TcpStream),
    /// From this machine.
    Unix(std::os::unix::net::UnixStream),
}

impl Several {
    /// Listeners at these places: those of `open` that are there already, and new ones. TLS that is made of the same files is
    /// the one that is there, so that sessions can be resumed.
    async fn opened(places: &Places, open: &Self) -> Result<Self, (Address, io::Error)> {
        let mut listeners: Vec<Arc<Listener>> = Vec::new();
        for wanted in &places.addresses {
            let is_it = |it: &&Arc<Listener>| {
                it.wanted == *wanted && !listeners.iter().any(|used| Arc::ptr_eq(used, it))
            };
            if let Some(there) = open.listeners.iter().find(is_it) {
                listeners.push(Arc::clone(there));
                continue;
            }
            let opened = match wanted {
                Address::Tcp(address) => tcp(*address).await,
                Address::Unix(path) => unix(path),
            };
            let (socket, at) = opened.map_err(|error| (wanted.clone(), error))?;
            listeners.push(Arc::new(Listener {
                socket,
                wanted: wanted.clone(),
                at,
                last: AtomicU64::new(0),
            }));
        }
        let is_there = open.tls == places.tls;
        Ok(Self {
            listeners: listeners.into(),
            tls: if is_there { &open.tls } else { &places.tls }.clone(),
        })
    }

    fn accepted(&self, stream: Stream) -> Accepted {
        let tls = match stream {
            Stream::Tcp(_) => self.tls.clone(),
            Stream::Unix(_) => None,
        };
        Accepted { stream, tls }
    }
}

async fn tcp(address: SocketAddr) -> io::Result<(Socket, Address)> {
    let listener = TcpListener::bind(address).await?;
    let at = listener.local_addr()?;
    Ok((Socket::Tcp(listener), Address::Tcp(at)))
}

/// A socket that nobody listens at is left over from a process that was killed, and makes room. Nothing else does.
fn unix(path: &Path) -> io::Result<(Socket, Address)> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if is_socket
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let socket = Socket::Unix {
        _name: Name::of(path)?,
        listener,
    };
    Ok((socket, Address::Unix(path.to_owned())))
}

impl Socket {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => ready!(listener.poll_accept(cx))
                .and_then(|(stream, _)| stream.into_std().map(Stream::Tcp)),
            Self::Unix { listener, .. } => ready!(listener.poll_accept(cx))
                .and_then(|(stream, _)| stream.into_std().map(Stream::Unix)),
        })
    }
}

/// Asks all of them, beginning after the one that accepted last.
fn poll_any(listeners: &[Arc<Listener>], cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
    let last = |listener: &Arc<Listener>| listener.last.load(Ordering::Relaxed);
    let latest = listeners.iter().map(last).max().unwrap_or_default();
    let before = listeners.iter().take_while(|it| last(it) != latest).count() + 1;
    let (before, after) = listeners.split_at(before.min(listeners.len()));
    for listener in after.iter().chain(before) {
        if let Poll::Ready(accepted) = listener.socket.poll_accept(cx) {
            listener.last.store(latest + 1, Ordering::Relaxed);
            return Poll::Ready(accepted);
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without TLS.
    fn plainly(addresses: impl Into<Vec<Address>>) -> Places {
        Places {
            addresses: addresses.into(),
            tls: None,
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_makes_room_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sock");
        let at = [Address::Unix(path.clone())];
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let listeners = Listeners::open(&plainly(at.clone())).await.unwrap();
        assert_eq!(listeners.addresses(), at);
        let at = plainly(at);
        let (_, error) = Listeners::open(&at).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(!path.exists(), "taken away");
        std::fs::write(&path, "a file of somebody's").unwrap();
        let (wrong, error) = Listeners::open(&at).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{wrong}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_socket_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sock");
        let at = plainly([Address::Unix(path.clone())]);
        let old = Listeners::open(&at).await.unwrap();
        // The name is taken for the next process while this one drains.
        std::fs::remove_file(&path).unwrap();
        let new = Listeners::open(&at).await.unwrap();
        drop(old);
        assert!(path.exists(), "the next one's was taken away");
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(new);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn no_listener_starves_another() {
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let three = [any.clone(), any.clone(), any];
        let listeners = Listeners::open(&plainly(three)).await.unwrap();
        let (bound, mut accepting) = (listeners.addresses(), listeners.accepting());
        let mut held = Vec::new();
        for _ in 0..10 {
            for at in &bound {
                let Address::Tcp(at) = at else { panic!() };
                held.push(tokio::net::TcpStream::connect(at).await.unwrap());
            }
        }
        let mut turns = Vec::new();
        for _ in 0..held.len() {
            let Stream::Tcp(stream) = accepting.next().await.stream else {
                panic!()
            };
            let at = Address::Tcp(stream.local_addr().unwrap());
            turns.push(bound.iter().position(|bound| *bound == at).unwrap());
        }
        let (first, rest) = turns.split_at(3);
        assert!(rest.chunks(3).all(|next| next == first), "{turns:?}");
        assert!([0, 1, 2].iter().all(|n| first.contains(n)), "{turns:?}");
    }

    #[tokio::test]
    async fn listeners_are_exchanged_while_somebody_accepts() {
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sock");
        let opened = Listeners::open(&plainly([any.clone()])).await;
        let listeners = Arc::new(opened.unwrap());
        let Some(Address::Tcp(first)) = listeners.addresses().pop() else {
            panic!()
        };
        let mut accepting = listeners.accepting();
        let early = tokio::net::TcpStream::connect(first).await.unwrap();
        assert!(matches!(accepting.next().await.stream, Stream::Tcp(_)));
        let exchange = async |to: Vec<Address>| {
            let listeners = Arc::clone(&listeners);
            let prepared = tokio::task::spawn_blocking(move || {
                let prepared = listeners.prepare(&plainly(to))?;
                listeners.put(prepared);
                Ok::<_, (Address, io::Error)>(listeners.addresses())
            });
            prepared.await.unwrap()
        };
        // One that stays where it is is not closed for a moment.
        let both = vec![any, Address::Unix(path.clone())];
        let bound = exchange(both).await.unwrap();
        assert_eq!(bound, [Address::Tcp(first), Address::Unix(path.clone())]);
        let unix = tokio::net::UnixStream::connect(&path);
        let (accepted, connected) = tokio::join!(accepting.next(), unix);
        assert!(matches!(accepted.stream, Stream::Unix(_)) && connected.is_ok());
        // What cannot be opened changes nothing.
        let missing = Address::Unix(folder.path().join("none/t.sock"));
        let (wrong, _) = exchange(vec![missing.clone()]).await.unwrap_err();
        assert_eq!(wrong, missing);
        assert_eq!(listeners.addresses(), bound);
        // Who is asked for no longer is closed, once whoever accepts has heard of it; connections are not.
        exchange(vec![Address::Unix(path.clone())]).await.unwrap();
        let unix = tokio::net::UnixStream::connect(&path);
        let (accepted, connected) = tokio::join!(accepting.next(), unix);
        assert!(matches!(accepted.stream, Stream::Unix(_)) && connected.is_ok());
        assert!(tokio::net::TcpStream::connect(first).await.is_err());
        early.writable().await.unwrap();
        assert_eq!(early.try_write(b"x").unwrap(), 1);
        // What is closed for good is not opened by somebody who has not heard of it.
        listeners.close();
        let next = tokio::time::timeout(Duration::from_millis(20), accepting.next());
        assert!(next.await.is_err());
        exchange(vec![Address::Unix(path.clone())]).await.unwrap();
        let next = tokio::time::timeout(Duration::from_millis(20), accepting.next());
        assert!(next.await.is_err() && listeners.addresses().is_empty());
        assert!(!path.exists());
    }
}
