//! Whose word is taken for who a provider is: the roots that its certificate must lead to.
//!
//! The only place that makes TLS. What is made here is shared by all workers, so that they resume each other's sessions.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::site::Host;

/// Roots, and what is made of them.
pub struct Trust {
    roots: Arc<RootCertStore>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    digest: u64,
}

/// What a client of TLS offers to speak inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1, and says nothing of it, as there is no choice.
    Http1,
    /// HTTP/2, or HTTP/1.1 with those who do not speak it.
    Http2,
}

/// How TLS is spoken with one host.
#[derive(Clone)]
pub struct Tls {
    /// Whom to trust, and what to offer.
    pub config: Arc<ClientConfig>,
    /// Who the other side must prove to be.
    pub name: ServerName<'static>,
}

/// The variables that name the machine's roots.
const NAMED: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Why there is no trust.
#[derive(Debug, thiserror::Error)]
pub enum Untrusting {
    /// A file has no certificates.
    #[error("holds no certificate; it must be PEM, with a line -----BEGIN CERTIFICATE-----")]
    Empty,
    /// A file is no PEM, or one of its certificates cannot be read.
    #[error("holds what is no certificate: {0}")]
    Garbled(String),
    /// A variable names roots, and there are none.
    #[error("{0} names no root certificates that can be read; mend it, or leave it out")]
    Missing(&'static str),
    /// TLS itself cannot be had.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// The machine's own roots, so that a company's are trusted; Mozilla's where the machine has none, as in an empty
    /// container. Reads files: some milliseconds.
    pub fn of_machine() -> Result<Self, Untrusting> {
        let machine = rustls_native_certs::load_native_certs().certs;
        let named = NAMED.iter().find(|name| std::env::var_os(name).is_some());
        match named {
            // Whoever names roots wants those and no others.
            Some(name) if machine.is_empty() => Err(Untrusting::Missing(name)),
            _ => Self::of(machine),
        }
    }

    pub(super) fn of(machine: Vec<CertificateDer<'static>>) -> Result<Self, Untrusting> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(machine);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self::new(roots, 0)
    }

    /// These roots and those of a PEM file: a company's stands beside the usual ones, as in `NODE_EXTRA_CA_CERTS`. What
    /// is called through a proxy that opens TLS today may be called directly tomorrow.
    pub fn and(&self, pem: &[u8]) -> Result<Self, Untrusting> {
        let mut roots = RootCertStore::clone(&self.roots);
        let mut hash = DefaultHasher::new();
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| Untrusting::Garbled(e.to_string()))?;
            certificate.hash(&mut hash);
            roots
                .add(certificate)
                .map_err(|e| Untrusting::Garbled(e.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(Untrusting::Empty);
        }
        Self::new(roots, hash.finish())
    }

    fn new(roots: RootCertStore, digest: u64) -> Result<Self, Untrusting> {
        let roots = Arc::new(roots);
        let config = |alpn: &[&[u8]]| -> Result<Arc<ClientConfig>, Untrusting> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(Arc::clone(&roots))
                .with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Ok(Arc::new(config))
        };
        Ok(Self {
            http1: config(&[])?,
            http2: config(&[b"h2", b"http/1.1"])?,
            roots,
            digest,
        })
    }

    /// What tells these roots from others, beside the machine's.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// How TLS is spoken with a host; none if no certificate can name it.
    pub(super) fn tls(&self, host: &Host, offer: Offer) -> Option<Tls> {
        let name = provable(host)?;
        let config = match offer {
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
        };
        let config = Arc::clone(config);
        Some(Tls { config, name })
    }
}

/// Who a host must prove to be; none if no certificate can say so.
pub(super) fn provable(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Address(address) => Some(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.to_string()).ok(),
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS with {:?}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap()
    }

    #[test]
    fn a_machine_without_roots_trusts_mozillas() {
        let mozilla = webpki_roots::TLS_SERVER_ROOTS.len();
        assert!(mozilla > 50);
        assert_eq!(Trust::of(Vec::new()).unwrap().roots.len(), mozilla);
        let own = vec![certificate().cert.der().clone()];
        assert_eq!(Trust::of(own).unwrap().roots.len(), 1);
    }

    #[test]
    fn a_companys_roots_stand_beside_the_machines() {
        let machine = Trust::of(vec![certificate().cert.der().clone()]).unwrap();
        let pem = certificate().cert.pem();
        let both = machine.and((pem.clone() + &pem).as_bytes()).unwrap();
        assert_eq!(both.roots.len(), 3);
        assert_ne!(both.digest(), machine.digest());
        let other = machine.and(certificate().cert.pem().as_bytes()).unwrap();
        assert_ne!(both.digest(), other.digest());
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let machine = Trust::of(Vec::new()).unwrap();
        let key = certificate().signing_key.serialize_pem();
        for pem in ["", "hello", &key] {
            let why = machine.and(pem.as_bytes()).err().unwrap();
            assert!(matches!(why, Untrusting::Empty), "{pem}: {why}");
        }
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        for pem in [garbled, cut] {
            let why = machine.and(pem.as_bytes()).err().unwrap();
            assert!(matches!(why, Untrusting::Garbled(_)), "{pem}: {why}");
        }
    }

    #[test]
    fn http2_is_offered_where_it_is_wanted() {
        let trust = Trust::of(Vec::new()).unwrap();
        let host = Host::Name("a".into());
        let offers = |offer| {
            let tls = trust.tls(&host, offer).unwrap();
            tls.config.alpn_protocols.clone()
        };
        assert!(offers(Offer::Http1).is_empty());
        assert_eq!(offers(Offer::Http2), [&b"h2"[..], b"http/1.1"]);
    }
}
