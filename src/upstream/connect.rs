//! A connection to a provider: TCP or TLS, speaking HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::clock::Timer;
use crate::envelope::Rope;
use crate::provider::Site;

/// One connection, and the half that puts requests on it.
///
/// The connection is a future that must be polled for anything to move. It is polled by whoever waits for the answer,
/// not by a task of its own: a burst of events is then one read and one write (measured: 26–37 % less CPU an event), to
/// drop it is to cancel, and a client that does not read holds the provider back.
pub(super) struct Link {
    pub(super) sender: SendRequest<Rope>,
    /// None once it is closed. It must be dropped then: what waits in it for an answer learns of the end by that.
    connection: Option<Connection<TokioIo<Io>, Rope>>,
    /// The timer of its last request, for its next.
    pub(super) timer: Option<Timer>,
    /// When it was made.
    pub(super) born: Instant,
}

impl Link {
    /// Lets the connection do what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// Whether another request can be put on it.
    pub(super) fn is_usable(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// The most that is read from a provider at once, and so the longest head of an answer, in bytes. It also bounds how
/// long one poll can take, whatever comes.
const MAX_BUFFER: usize = 32 << 10;

/// Makes connections.
#[derive(Default)]
pub(super) struct Connector {
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Connector {
    /// Connects to a site.
    pub(super) async fn connect(&self, site: &Site, now: Instant) -> io::Result<Box<Link>> {
        let stream = TcpStream::connect((&*site.host, site.port)).await?;
        stream.set_nodelay(true)?;
        let io = if site.tls {
            let config = self
                .tls
                .get_or_init(client_config)
                .clone()
                .map_err(io::Error::other)?;
            let name = ServerName::try_from(site.host.to_string()).map_err(io::Error::other)?;
            Io::Tls(Box::new(
                TlsConnector::from(config).connect(name, stream).await?,
            ))
        } else {
            Io::Plain(stream)
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(Link {
            sender,
            connection: Some(connection),
            timer: None,
            born: now,
        }))
    }
}

/// The machine's own roots, so that a company's are trusted; Mozilla's where the machine has none, as in an empty
/// container.
fn client_config() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Bytes to and from a provider.
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
