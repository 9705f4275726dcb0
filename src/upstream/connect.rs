//! A connection to a provider: from where it is to something that a request can be put on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::link::{Link, Own};
use super::race::race;
use super::resolve::Names;
use super::share::Shared;
use super::tunnel;
use super::wire::Io;
use crate::provider::Site;
use crate::provider::egress::Via;
use crate::provider::site::{Host, Place};
use crate::provider::trust::Tls;

/// The most that is read from a provider at once, and so the longest head of an answer, in bytes. It also bounds how
/// long one poll can take, whatever comes.
pub(super) const MAX_BUFFER: u32 = 32 << 10;

/// Makes connections.
#[derive(Default)]
pub(super) struct Connector {
    names: Names,
}

impl Connector {
    /// Connects to a site: through its proxy if it has one, over TLS and by HTTP/2 as it wants.
    pub(super) async fn connect(&self, site: &Site, now: Instant) -> io::Result<Link> {
        let below = match &site.via {
            Some(via) => self.through(via, &site.place, now).await?,
            None => self.dial(&site.place, now).await?,
        };
        let (io, http2) = match &site.tls {
            Some(tls) => {
                let stream = secured(below, tls).await?;
                let chosen = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Io::Tls(stream), chosen)
            }
            None => (below, site.http2),
        };
        if http2 {
            return Ok(Link::Share(Shared::open(io).await?));
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER as usize)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        Ok(Link::Own(Box::new(Own::new(sender, connection, now))))
    }

    /// Forgets what nobody asks for any more.
    pub(super) fn sweep(&self, now: Instant) {
        self.names.sweep(now);
    }

    /// Connects to a proxy, and through it where it opens tunnels.
    async fn through(&self, via: &Via, place: &Place, now: Instant) -> io::Result<Io> {
        let reached = async {
            let io = self.dial(&via.place, now).await?;
            match &via.tls {
                Some(tls) => Ok(Io::Tls(secured(io, tls).await?)),
                None => Ok(io),
            }
        };
        let unreached = |e: io::Error| {
            let message = format!("the proxy {} could not be reached: {e}", via.name);
            io::Error::new(e.kind(), message)
        };
        let mut io = reached.await.map_err(unreached)?;
        if via.tunnels {
            tunnel::open(&mut io, via, place).await?;
        }
        Ok(io)
    }

    async fn dial(&self, place: &Place, now: Instant) -> io::Result<Io> {
        let (host, port) = match place {
            Place::Unix(path) => return Ok(Io::Unix(UnixStream::connect(path).await?)),
            Place::Tcp(host, port) => (host, *port),
        };
        let stream = match host {
            Host::Address(address) => TcpStream::connect((*address, port)).await?,
            Host::Name(name) => {
                let addresses = self.names.resolve(name, now).await?;
                race(addresses, |ip| {
                    TcpStream::connect(SocketAddr::new(ip, port))
                })
                .await?
            }
        };
        stream.set_nodelay(true)?;
        Ok(Io::Tcp(stream))
    }
}

async fn secured(io: Io, tls: &Tls) -> io::Result<Box<tokio_rustls::client::TlsStream<Io>>> {
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    Ok(Box::new(connector.connect(tls.name.clone(), io).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::openai::OpenAi;
    use crate::provider::site::{Base, Way};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    fn site(url: &str) -> Site {
        let base = Base::parse(url, std::path::Path::new("")).unwrap();
        Site::new(base, &OpenAi, Way::default()).unwrap()
    }

    /// A connector whose names all have these addresses.
    fn with(addresses: &'static [[u8; 4]]) -> Connector {
        let addresses = addresses.iter().copied().map(Into::into);
        let addresses: Vec<std::net::IpAddr> = addresses.collect();
        Connector {
            names: Names::new(Box::new(move |_| {
                let addresses = addresses.clone();
                Box::pin(async move { Ok(addresses) })
            })),
        }
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_no_hindrance() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let site = site(&format!("http://engine:{port}/v1"));
        // Nobody listens on the others: whichever the rotation puts first, a connection comes about.
        let connector = with(&[[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 1]]);
        for _ in 0..6 {
            connector.connect(&site, Instant::now()).await.unwrap();
        }
        let refused = with(&[[127, 0, 0, 2], [127, 0, 0, 3]]);
        let error = refused.connect(&site, Instant::now()).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_name_server_that_fails_later_is_no_hindrance() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let connector = Connector {
            names: Names::new(Box::new(move |_| {
                let first = count.fetch_add(1, Ordering::SeqCst) == 0;
                let found = if first {
                    Ok(vec![[127, 0, 0, 1].into()])
                } else {
                    Err(io::Error::other("broken"))
                };
                Box::pin(async move { found })
            })),
        };
        let site = site(&format!("http://engine:{port}/v1"));
        let now = Instant::now();
        connector.connect(&site, now).await.unwrap();
        let later = now + std::time::Duration::from_secs(60);
        connector.connect(&site, later).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let next_day = now + std::time::Duration::from_secs(86_400);
        let error = connector.connect(&site, next_day).await.err().unwrap();
        let why = "the name engine could not be looked up: broken";
        assert_eq!(error.to_string(), why);
    }

    #[tokio::test]
    async fn connections_are_spread_over_all_addresses() {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        let other = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let count = async |listener: TcpListener, n: usize| {
            while listener.accept().await.is_ok() {
                counts[n].fetch_add(1, Ordering::SeqCst);
            }
        };
        let connector = with(&[[127, 0, 0, 1], [127, 0, 0, 2]]);
        let site = site(&format!("http://engine:{port}/v1"));
        let connect = async {
            for _ in 0..10 {
                connector.connect(&site, Instant::now()).await.unwrap();
            }
            while counts.iter().any(|n| n.load(Ordering::SeqCst) < 5) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = connect => {}
            () = count(one, 0) => {}
            () = count(other, 1) => {}
        }
        assert!(counts.iter().all(|n| n.load(Ordering::SeqCst) == 5));
    }
}
