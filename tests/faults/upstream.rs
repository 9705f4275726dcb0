//! A provider in its place: listening or not, over TLS or not, and kept for as long as its fault is looked at.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::fault::{Place, Proof};
use crate::stage::Identities;
use crate::support::http2::{Http2, Manners};
use crate::support::{Act, Provider};

/// A provider, and whatever must live as long.
pub struct Upstream {
    /// Its base URL, and more lines of its configuration.
    pub lines: String,
    /// None: nobody would read a request.
    provider: Option<Provider>,
    parting: Option<Http2>,
    held: Vec<Box<dyn Any + Send + Sync>>,
}

impl Upstream {
    /// In its place, and ready.
    pub async fn at(place: &Place, acts: Vec<Act>, identities: &Identities) -> Self {
        match place {
            Place::Plain => {
                let provider = Provider::new(acts).await;
                Self::new(plain(provider.address)).by(provider)
            }
            Place::Late => {
                let (listener, address) = listening().await;
                let provider = Provider::new(acts).await;
                let task = tokio::task::spawn(late(listener, provider.address));
                Self::new(plain(address)).by(provider).holding(Task(task))
            }
            Place::Full => full(),
            Place::Nowhere => {
                let (socket, address) = bound();
                // So that nobody else comes to listen there.
                Self::new(plain(address)).holding(socket)
            }
            Place::Name(name) => Self::new(format!("base_url = \"http://{name}/v1\"\n")),
            Place::Tls(proof) => {
                let identity = match proof {
                    Proof::Trusted => &identities.trusted,
                    Proof::Unknown => &identities.unknown,
                    Proof::Elsewhere => &identities.elsewhere,
                    Proof::Expired => &identities.expired,
                };
                let provider = Provider::secure(identity, acts).await;
                Self::new(secure(provider.address)).by(provider)
            }
            Place::TlsOnly => {
                let provider = Provider::secure(&identities.trusted, acts).await;
                Self::new(plain(provider.address)).by(provider)
            }
            Place::NoTls => {
                let (listener, address) = listening().await;
                let task = tokio::task::spawn(only_http(listener));
                Self::new(secure(address)).holding(Task(task))
            }
            Place::Silent => {
                let (listener, address) = listening().await;
                Self::new(secure(address)).holding(listener)
            }
            Place::Http2(manners) => {
                let Http2 { provider, .. } = Http2::plain(manners.clone(), acts).await;
                Self::new(shared(provider.address)).by(provider)
            }
            Place::Parting => {
                let parting = Http2::plain(Manners::default(), acts).await;
                let mut this = Self::new(shared(parting.address));
                this.parting = Some(parting);
                this
            }
            Place::NoHttp2 => {
                let provider = Provider::new(acts).await;
                Self::new(shared(provider.address)).by(provider)
            }
        }
    }

    fn new(lines: String) -> Self {
        Self {
            lines,
            provider: None,
            parting: None,
            held: Vec::new(),
        }
    }

    fn by(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self
    }

    fn holding(mut self, what: impl Any + Send + Sync) -> Self {
        self.held.push(Box::new(what));
        self
    }

    /// How many requests reached it.
    pub fn count(&self) -> usize {
        let parting = self.parting.as_ref().map(|parting| &parting.provider);
        let provider = self.provider.as_ref().or(parting);
        provider.map_or(0, |provider| provider.count() + provider.refused())
    }

    /// In the middle of an answer it says that it takes no more requests, if that is its way.
    pub async fn part(&self) {
        if let Some(parting) = &self.parting {
            tokio::time::sleep(Duration::from_millis(70)).await;
            parting.part();
        }
    }
}

fn plain(address: SocketAddr) -> String {
    format!("base_url = \"http://{address}/v1\"\n")
}

fn secure(address: SocketAddr) -> String {
    let port = address.port();
    format!("base_url = \"https://localhost:{port}/v1\"\n")
}

fn shared(address: SocketAddr) -> String {
    plain(address) + "http2 = true\n"
}

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A socket with a port of its own, at which nobody listens.
fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A listener whose queue is full, so that the system does not answer who knocks.
fn full() -> Upstream {
    let (socket, address) = bound();
    socket.listen(0).unwrap();
    let mut this = Upstream::new(plain(address));
    let soon = Duration::from_millis(50);
    while let Ok(waiting) = std::net::TcpStream::connect_timeout(&address, soon) {
        this = this.holding(waiting);
    }
    this.holding(socket)
}

/// A task that ends with whoever holds this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes connections, and lets each wait before anybody looks at it.
async fn late(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        connections.spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut other = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
        });
    }
}

/// Takes whatever is said first for bad HTTP.
async fn only_http(listener: TcpListener) {
    let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(refusal).await;
    }
}
