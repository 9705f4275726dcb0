//! A client that speaks TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};

use super::client::Answer;
use super::{CHAT, Identity};

/// Whom a client trusts, what it speaks, and who it is. Clones resume each other's sessions.
#[derive(Clone)]
pub struct Secure(Arc<ClientConfig>);

/// A connection that requests can be put on.
pub enum Line {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Secure {
    /// Trusts these roots; `alpn` is what it speaks, in the order of its liking.
    pub fn new(roots: &str, alpn: &[&str], own: Option<&Identity>) -> Self {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store);
        let mut config = match own.map(Identity::shown) {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Shakes hands.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, stream)
            .await
    }

    /// Shakes hands, and speaks what was agreed upon.
    pub async fn line(&self, address: SocketAddr) -> io::Result<Line> {
        let stream = self.connect(address).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            return Ok(Line::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Ok(Line::Http1(sender))
    }

    /// Posts a chat request as ann over a connection of its own.
    pub async fn ask(&self, address: SocketAddr, body: String) -> Answer {
        self.line(address)
            .await
            .unwrap()
            .ask(address, body)
            .await
            .unwrap()
    }

    /// Whether its next session is a new one.
    pub async fn resumes(&self, address: SocketAddr) -> bool {
        let mut line = self.connect(address).await.unwrap();
        // Tickets come with the first bytes.
        let request =
            format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut line, request.as_bytes())
            .await
            .unwrap();
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut line, &mut answer)
            .await
            .unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        line.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl Line {
    /// Posts a chat request as ann, and gives the answer while it comes.
    pub async fn open(
        &mut self,
        address: SocketAddr,
        body: String,
    ) -> hyper::Result<Response<Incoming>> {
        let uri = match self {
            Self::Http1(_) => CHAT.to_owned(),
            Self::Http2(_) => format!("https://{address}{CHAT}"),
        };
        let mut request = Request::post(uri)
            .header(header::AUTHORIZATION, "Bearer sk-ann")
            .header(header::CONTENT_TYPE, "application/json");
        if matches!(self, Self::Http1(_)) {
            request = request.header(header::HOST, address.to_string());
        }
        let request = request.body(Full::new(body.into())).unwrap();
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// The same, and reads it.
    pub async fn ask(&mut self, address: SocketAddr, body: String) -> hyper::Result<Answer> {
        let (head, body) = self.open(address, body).await?.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }
}
