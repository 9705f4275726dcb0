//! TLS with clients: who we prove to be, and whom they must be vouched for by.
//!
//! TLS 1.2 and 1.3 with what rustls takes for safe, and nothing to choose: what could be chosen could be chosen wrong. HTTP/2
//! is offered, and spoken with those who take it. Nothing is taken from a client before its handshake has ended (no early
//! data), so that nobody can send it twice.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::socket::{Socket, Spoken};

/// What HTTP/2 is called in a handshake (RFC 9113, 3.2).
const HTTP2: &[u8] = b"h2";
/// What HTTP/1.1 is called there (RFC 7301, 6).
const HTTP1: &[u8] = b"http/1.1";

/// Bytes to and from a client: as they are, or over TLS.
pub(super) type Io = Either<Socket, Box<TlsStream<Socket>>>;

/// How TLS is spoken with clients. Those that are made of the same files are the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: Arc<ServerConfig>,
    /// What it was made of.
    digest: u64,
    /// Until when the certificate is good.
    expires: Option<SystemTime>,
    /// Another one has come in its place.
    is_replaced: watch::Sender<bool>,
}

/// PEM files, as they were read.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Pem<'f> {
    /// Our certificate, and those that lead from it to a root.
    pub cert: &'f [u8],
    /// Its key.
    pub key: &'f [u8],
    /// Whose certificates clients must have; none if they need not have any.
    pub client_ca: Option<&'f [u8]>,
}

/// Why there can be no TLS with these files.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `cert` is no chain of certificates.
    #[error("{0}")]
    Cert(String),
    /// `key` is no key, or not that of the certificate.
    #[error("{0}")]
    Key(String),
    /// `client_ca` has no roots.
    #[error("{0}")]
    ClientCa(String),
}

impl Tls {
    /// Proves who we are with these, and asks clients who they are if somebody vouches for them.
    pub fn new(files: Pem<'_>) -> Result<Self, Unusable> {
        let chain = certificates(files.cert).map_err(Unusable::Cert)?;
        let expires = chain.first().and_then(expiry);
        let key = key(files.key).map_err(Unusable::Key)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Unusable::Cert(error.to_string()))?;
        let builder = match files.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let wrong = |why: &dyn fmt::Display| Unusable::ClientCa(why.to_string());
                let mut roots = RootCertStore::empty();
                for root in certificates(pem).map_err(Unusable::ClientCa)? {
                    roots.add(root).map_err(|error| wrong(&error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(&error))?)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    Unusable::Key("is not the key of the certificate".to_owned())
                }
                // A kind of key that is not known, say.
                error @ rustls::Error::General(_) => Unusable::Key(error.to_string()),
                error => Unusable::Cert(error.to_string()),
            })?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Sessions are resumed without a list of them. Whoever is not vouched for any more cannot resume: another file is
        // another secret.
        config.ticketer =
            ring::Ticketer::new().map_err(|error| Unusable::Cert(error.to_string()))?;
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        Ok(Self(Arc::new(Inner {
            config: Arc::new(config),
            digest: hasher.finish(),
            expires,
            is_replaced: watch::Sender::new(false),
        })))
    }

    /// Until when the certificate is good, if that can be read.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.expires
    }

    /// Another one is in its place from here on: connections of this one end with what is under way.
    pub(super) fn gives_way_to(&self, other: Option<&Self>) {
        if other != Some(self) {
            self.0.is_replaced.send_replace(true);
        }
    }

    /// Whether another one has come in its place, and when that changes.
    pub(super) fn replaced(&self) -> watch::Receiver<bool> {
        self.0.is_replaced.subscribe()
    }

    /// Shakes hands, and says what is spoken from here on.
    pub(super) async fn accept(&self, mut socket: Socket) -> io::Result<(Io, Spoken)> {
        if !socket.begins_with(HANDSHAKE).await? {
            return Err(refuse(socket).await);
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.0.config));
        let stream = acceptor.accept(socket).await?;
        let (socket, session) = stream.get_ref();
        let spoken = match session.alpn_protocol() {
            Some(HTTP2) => Spoken::Http2,
            _ => Spoken::Http1,
        };
        // What was said so far was no request.
        socket.rests();
        Ok((Io::Right(Box::new(stream)), spoken))
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

/// Keys are not shown.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// How every connection of TLS begins: a record of the kind "handshake" (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// The answer to whoever speaks no TLS.
const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 61\r\nconnection: close\r\n\r\nthis port speaks TLS: write https:// in front of its address\n";

/// Says to whoever speaks no TLS that they should. A head that was not read has no form that an error could be written in.
async fn refuse(mut socket: Socket) -> io::Error {
    let said = async {
        socket.write_all(REFUSAL).await?;
        socket.shutdown().await?;
        // What is not read would have the system take the words back.
        let mut rest = BytesMut::with_capacity(4096);
        while socket.read_buf(&mut rest).await? > 0 {
            rest.clear();
        }
        Ok(())
    };
    let why = said.await.err();
    why.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it speaks no TLS"))
}

/// All certificates of a PEM file.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(
            "holds no certificate; it must be PEM, with a line -----BEGIN CERTIFICATE-----"
                .to_owned(),
        ),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("holds what is no certificate: {error}")),
    }
}

/// Until when a certificate is good, if that can be read: what clients take is served, however odd it is.
fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let read = Certificate::from_der(certificate).ok()?;
    let since = read.tbs_certificate.validity.not_after.to_unix_duration();
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// The first key of a PEM file.
fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let encrypted = memchr::memmem::find(pem, b"ENCRYPTED").is_some();
        let why = match encrypted {
            true => "is encrypted, and there is nobody to ask for its password; store it decrypted (openssl pkey -in FILE)",
            false => "holds no private key; it must be PEM, with a line -----BEGIN PRIVATE KEY-----",
        };
        why.to_owned()
    })
}
