//! Where clients connect: addresses of the network, and sockets in the file system.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

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
pub struct Listener {
    socket: Socket,
    /// The number of the connection it accepted last, among those of all that are asked together.
    last: AtomicU64,
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

/// A connection that belongs to no runtime yet.
#[derive(Debug)]
pub enum Stream {
    /// From the network.
    Tcp(std::net::TcpStream),
    /// From this machine.
    Unix(std::os::unix::net::UnixStream),
}

/// Opens listeners; the second value is where they are, with ports where 0 was asked for.
pub async fn bind(
    addresses: &[Address],
) -> Result<(Vec<Listener>, Vec<Address>), (Address, io::Error)> {
    let mut listeners = Vec::new();
    let mut bound = Vec::new();
    for address in addresses {
        let opened = match address {
            Address::Tcp(address) => tcp(*address).await,
            Address::Unix(path) => unix(path),
        };
        let (socket, at) = opened.map_err(|error| (address.clone(), error))?;
        let last = AtomicU64::new(0);
        listeners.push(Listener { socket, last });
        bound.push(at);
    }
    Ok((listeners, bound))
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

/// The next connection of whichever listener has one. They are asked in turn: a busy one does not starve the others.
pub async fn accept_any(listeners: &[Listener]) -> Stream {
    loop {
        let accepted = poll_fn(|cx| poll_any(listeners, cx));
        match accepted.await {
            Ok(stream) => return stream,
            Err(error) => {
                // No file is left to open, most likely. To ask again at once would only burn the CPU.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Asks all of them, beginning after the one that accepted last.
fn poll_any(listeners: &[Listener], cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
    let last = |listener: &Listener| listener.last.load(Ordering::Relaxed);
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

    #[tokio::test]
    async fn a_socket_that_was_left_behind_makes_room_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sock");
        let at = [Address::Unix(path.clone())];
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let (listeners, bound) = bind(&at).await.unwrap();
        assert_eq!(bound, at);
        let (_, error) = bind(&at).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(!path.exists(), "taken away");
        std::fs::write(&path, "a file of somebody's").unwrap();
        let (wrong, error) = bind(&at).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{wrong}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_socket_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sock");
        let at = [Address::Unix(path.clone())];
        let (old, _) = bind(&at).await.unwrap();
        // The name is taken for the next process while this one drains.
        std::fs::remove_file(&path).unwrap();
        let (new, _) = bind(&at).await.unwrap();
        drop(old);
        assert!(path.exists(), "the next one's was taken away");
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(new);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn no_listener_starves_another() {
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let (listeners, bound) = bind(&[any.clone(), any.clone(), any]).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..10 {
            for at in &bound {
                let Address::Tcp(at) = at else { panic!() };
                held.push(tokio::net::TcpStream::connect(at).await.unwrap());
            }
        }
        let mut turns = Vec::new();
        for _ in 0..held.len() {
            let Stream::Tcp(stream) = accept_any(&listeners).await else {
                panic!()
            };
            let at = Address::Tcp(stream.local_addr().unwrap());
            turns.push(bound.iter().position(|bound| *bound == at).unwrap());
        }
        let (first, rest) = turns.split_at(3);
        assert!(rest.chunks(3).all(|next| next == first), "{turns:?}");
        assert!([0, 1, 2].iter().all(|n| first.contains(n)), "{turns:?}");
    }
}
