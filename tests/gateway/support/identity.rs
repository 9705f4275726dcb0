//! Who somebody proves to be: a certificate of its own, which nobody vouches for but itself, or an authority.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// A certificate for names, and its key.
pub struct Identity(rcgen::CertifiedKey<rcgen::KeyPair>);

impl Identity {
    pub fn of(names: &[&str]) -> Self {
        Self::until(names, 2100)
    }

    /// One that is good until a year begins.
    pub fn until(names: &[&str], year: i32) -> Self {
        let signing_key = rcgen::KeyPair::generate().unwrap();
        let cert = wanted(names, year).self_signed(&signing_key).unwrap();
        Self(rcgen::CertifiedKey { cert, signing_key })
    }

    /// Its key, as PEM.
    pub fn key(&self) -> String {
        self.0.signing_key.serialize_pem()
    }

    /// Both, as somebody shows them who connects.
    pub fn shown(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(self.0.signing_key.serialize_der()).unwrap();
        (self.0.cert.der().clone(), key)
    }

    /// What must be trusted to trust it.
    pub fn pem(&self) -> String {
        self.0.cert.pem()
    }

    /// TLS that proves it, and chooses among these protocols.
    pub fn acceptor(&self, alpn: &[&[u8]]) -> TlsAcceptor {
        let (cert, key) = self.shown();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn wanted(names: &[&str], year: i32) -> rcgen::CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut wanted = rcgen::CertificateParams::new(names).unwrap();
    wanted.not_before = rcgen::date_time_ymd(2000, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
    wanted
}

/// Somebody who vouches for others.
pub struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut wanted = wanted(&[], 2100);
        wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self(rcgen::CertifiedIssuer::self_signed(wanted, key).unwrap())
    }

    /// What must be trusted to trust whom it vouches for.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Vouches for somebody of these names.
    pub fn vouches_for(&self, names: &[&str]) -> Identity {
        let signing_key = rcgen::KeyPair::generate().unwrap();
        let cert = wanted(names, 2100).signed_by(&signing_key, &self.0);
        let cert = cert.unwrap();
        Identity(rcgen::CertifiedKey { cert, signing_key })
    }
}
