//! Where clients and operators connect: from what is written to places to listen at, and to the files of their TLS.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Loaded;
use crate::config::{Config, Diagnostic, Listen, Tls};
use crate::server::{self, Address, Listeners, Pem, Places, Prepared, Unusable};
use crate::telemetry::metrics::Metrics;

/// Where clients and operators connect.
pub(super) struct Both {
    pub(super) clients: Places,
    pub(super) operators: Places,
}

impl Both {
    /// As it is written; reads certificates and keys.
    pub(super) fn of(loaded: &Loaded) -> Result<Self, Vec<Diagnostic>> {
        let Config { server, admin, .. } = &loaded.config;
        let folder = loaded.source.folder();
        let clients = places("server", &server.listen, server.tls.as_ref(), folder);
        let operators = places("admin", &admin.listen, admin.tls.as_ref(), folder);
        match (clients, operators) {
            (Ok(clients), Ok(operators)) => Ok(Self { clients, operators }),
            (clients, operators) => Err([clients.err(), operators.err()]
                .into_iter()
                .flatten()
                .collect()),
        }
    }
}

/// From when on it is warned of a certificate that will expire: most are renewed a month before.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

impl Both {
    /// Tells when certificates expire, by their listeners; and warns of those that soon will.
    pub(super) fn certified(&self, metrics: &Metrics, now: SystemTime) -> Vec<String> {
        let places = [
            ("clients", "server", &self.clients),
            ("operators", "admin", &self.operators),
        ];
        let expiries: Vec<_> = places
            .into_iter()
            .filter_map(|(who, section, places)| {
                Some((who, section, places.tls.as_ref()?.expires()?))
            })
            .collect();
        metrics.certificates(expiries.iter().map(|(who, _, at)| (*who, *at)));
        let warning = |(_, section, at): (_, &str, SystemTime)| {
            let date = httpdate::fmt_http_date(at);
            match at.duration_since(now) {
                Ok(left) if left > SOON => None,
                Ok(_) => Some(format!("{section}.tls.cert: it expires soon, on {date}")),
                Err(_) => Some(format!("{section}.tls.cert: it expired on {date}")),
            }
        };
        expiries.into_iter().filter_map(warning).collect()
    }
}

fn places(
    section: &str,
    written: &[Listen],
    tls: Option<&Tls>,
    folder: &Path,
) -> Result<Places, Diagnostic> {
    let at = |listen: &Listen| match listen {
        Listen::Tcp(address) => Address::Tcp(*address),
        Listen::Unix(path) => Address::Unix(folder.join(path)),
    };
    let is_spoken = written.iter().any(|it| matches!(it, Listen::Tcp(_)));
    if tls.is_some() && !is_spoken {
        let message = "nobody connects over the network; what goes through a unix socket is not encrypted: leave it out";
        return Err(Diagnostic::new([section, "tls"], message));
    }
    Ok(Places {
        addresses: written.iter().map(at).collect(),
        tls: tls.map(|tls| read(section, tls, folder)).transpose()?,
    })
}

fn read(section: &str, tls: &Tls, folder: &Path) -> Result<server::Tls, Diagnostic> {
    let flaw = |field: &str, file: &Path, why: &dyn std::fmt::Display| {
        Diagnostic::new([section, "tls", field], format!("{} {why}", file.display()))
    };
    let open = |field: &str, file: &Path| {
        let unread = |error| flaw(field, file, &format_args!("cannot be read: {error}"));
        std::fs::read(folder.join(file)).map_err(unread)
    };
    let (cert, key) = (open("cert", &tls.cert)?, open("key", &tls.key)?);
    let client_ca = tls.client_ca.as_deref();
    let roots = client_ca.map(|file| open("client_ca", file)).transpose()?;
    let files = Pem {
        cert: &cert,
        key: &key,
        client_ca: roots.as_deref(),
    };
    server::Tls::new(files).map_err(|unusable| match &unusable {
        Unusable::Cert(why) => flaw("cert", &tls.cert, why),
        Unusable::Key(why) => flaw("key", &tls.key, why),
        Unusable::ClientCa(why) => flaw("client_ca", client_ca.unwrap_or(&tls.cert), why),
    })
}

/// Listeners where they shall be, or what is in the way; `ours` are all that are open.
pub(super) fn prepared(
    section: &str,
    listeners: &Listeners,
    wanted: &Places,
    ours: &[Address],
) -> Result<Prepared, Diagnostic> {
    listeners.prepare(wanted).map_err(|(address, error)| {
        let port = |address: &Address| match address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        };
        let is_ours = |it: &&Address| port(it).is_some() && port(it) == port(&address);
        let message = match ours.iter().find(is_ours) {
            Some(ours) => format!(
                "cannot listen on {address} while {ours} is open: restart to move within a port, or take another one"
            ),
            None => format!("cannot listen on {address}: {error}"),
        };
        Diagnostic::new([section, "listen"], message)
    })
}
