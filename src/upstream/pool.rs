//! Connections that wait for their next request.
//!
//! One shelf for each site. A connection goes back when its answer has been read to the end, the youngest is taken
//! first, and what is old, long idle or closed by the provider is thrown away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Link;
use crate::provider::Site;

/// Connections that wait on one shelf, at most.
const MOST_IDLE: usize = 512;
/// Small servers close idle connections after five seconds (uvicorn, Node): before that, lest a request meets the close.
const KEEP_PLAIN: Duration = Duration::from_secs(4);
/// Load balancers of hosted providers close after a minute or more, and a TLS handshake is dear.
const KEEP_TLS: Duration = Duration::from_secs(50);
/// A connection outlives a change of DNS by no more than this.
const OLDEST: Duration = Duration::from_secs(600);

/// All shelves.
#[derive(Default)]
pub(super) struct Pool(Mutex<HashMap<Arc<str>, Arc<Shelf>>>);

/// The idle connections to one site, the youngest last.
pub(super) struct Shelf {
    idle: Mutex<Vec<(Instant, Box<Link>)>>,
    keep: Duration,
}

impl Pool {
    /// The shelf of a site.
    pub(super) fn shelf(&self, site: &Site) -> Arc<Shelf> {
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = shelves.get(&site.key) {
            return Arc::clone(shelf);
        }
        let shelf = Arc::new(Shelf {
            idle: Mutex::default(),
            keep: if site.tls { KEEP_TLS } else { KEEP_PLAIN },
        });
        shelves.insert(Arc::clone(&site.key), Arc::clone(&shelf));
        shelf
    }

    /// Throws away what nobody should take any more.
    pub(super) fn sweep(&self, now: Instant) {
        let shelves: Vec<_> = {
            let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A shelf that only the pool knows and that is empty belongs to nobody.
            shelves.retain(|_, shelf| Arc::strong_count(shelf) > 1 || !shelf.lock().is_empty());
            shelves.values().cloned().collect()
        };
        let mut cx = Context::from_waker(Waker::noop());
        for shelf in shelves {
            shelf.lock().retain_mut(|(since, link)| {
                link.drive(&mut cx);
                shelf.is_fresh(*since, link, now) && link.is_usable()
            });
        }
    }
}

impl Shelf {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Box<Link>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self, since: Instant, link: &Link, now: Instant) -> bool {
        now < since + self.keep && now < link.born + OLDEST
    }

    /// Takes a connection that may be good. One that the provider has closed meanwhile gives the request back whole.
    pub(super) fn take(&self, now: Instant) -> Option<Box<Link>> {
        loop {
            let (since, link) = self.lock().pop()?;
            if self.is_fresh(since, &link, now) && link.is_usable() {
                return Some(link);
            }
        }
    }

    /// Puts a connection back, if it is good for another request.
    pub(super) fn put(&self, link: Box<Link>, now: Instant) {
        let mut idle = self.lock();
        if link.is_usable() && idle.len() < MOST_IDLE {
            idle.push((now, link));
        }
    }
}
