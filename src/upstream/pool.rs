//! Connections that wait for their next request, and those with room for one more.
//!
//! One shelf for each site. A connection goes back when its answer has been read to the end, the youngest is taken
//! first, and what is old, long idle or closed by the provider is thrown away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::link::{Link, Own};
use super::share::{Share, Shared};
use crate::provider::Site;

/// Connections that wait on one shelf, at most.
const MOST_IDLE: usize = 512;
/// Small servers close idle connections after five seconds (uvicorn, Node): before that, lest a request meets the close.
const KEEP_PLAIN: Duration = Duration::from_secs(4);
/// Load balancers of hosted providers close after a minute or more, and a TLS handshake is dear.
const KEEP_TLS: Duration = Duration::from_secs(50);
/// A connection outlives a change of DNS by no more than this.
const OLDEST: Duration = Duration::from_secs(600);

/// All shelves, by their sites' keys. There are as many as providers: to look through them by address costs less than to
/// hash one key.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<(Arc<str>, Arc<Shelf>)>>);

/// The connections to one site.
pub(super) struct Shelf {
    /// Those of HTTP/1.1 that wait, the youngest last.
    idle: Mutex<Vec<(Instant, Box<Own>)>>,
    keep: Duration,
    /// What HTTP/2 needs, where it is wanted.
    shares: Option<Box<Shares>>,
}

/// Connections that many requests go over at once.
#[derive(Default)]
struct Shares {
    /// The oldest first, each with when it last was given a request. The first with room is taken, so that those that
    /// are not needed fall idle.
    open: Mutex<Vec<(Instant, Arc<Shared>)>>,
    /// Who opens one; the others wait for it, since it will have room for them.
    turn: tokio::sync::Mutex<()>,
    /// The site speaks HTTP/1.1 after all: nobody need wait for another's connection.
    declined: AtomicBool,
}

impl Pool {
    /// The shelf of a site.
    pub(super) fn shelf(&self, site: &Site) -> Arc<Shelf> {
        let mut shelves = lock(&self.0);
        if let Some((_, shelf)) = shelves.iter().find(|(key, _)| Arc::ptr_eq(key, &site.key)) {
            return Arc::clone(shelf);
        }
        if let Some((key, shelf)) = shelves.iter_mut().find(|(key, _)| *key == site.key) {
            // The same site of another plan, which is asked from here on.
            *key = Arc::clone(&site.key);
            return Arc::clone(shelf);
        }
        let shelf = Arc::new(Shelf {
            idle: Mutex::default(),
            keep: if site.tls.is_some() {
                KEEP_TLS
            } else {
                KEEP_PLAIN
            },
            shares: site.http2.then(Box::default),
        });
        shelves.push((Arc::clone(&site.key), Arc::clone(&shelf)));
        shelf
    }

    /// Throws away what nobody should take any more.
    pub(super) fn sweep(&self, now: Instant) {
        let shelves: Vec<_> = {
            let mut shelves = lock(&self.0);
            // A shelf that only the pool knows and that is empty belongs to nobody.
            shelves.retain(|(_, shelf)| Arc::strong_count(shelf) > 1 || !shelf.is_empty());
            shelves.iter().map(|(_, shelf)| Arc::clone(shelf)).collect()
        };
        let mut cx = Context::from_waker(Waker::noop());
        for shelf in shelves {
            lock(&shelf.idle).retain_mut(|(since, own)| {
                own.drive(&mut cx);
                shelf.is_fresh(*since, own, now) && own.is_usable()
            });
            if let Some(shares) = &shelf.shares {
                shares.sweep(now);
            }
        }
    }
}

impl Shelf {
    fn is_empty(&self) -> bool {
        let shares = self.shares.as_ref();
        lock(&self.idle).is_empty() && shares.is_none_or(|shares| lock(&shares.open).is_empty())
    }

    fn is_fresh(&self, since: Instant, own: &Own, now: Instant) -> bool {
        now < since + self.keep && now < own.born + OLDEST
    }

    /// Takes a connection that may be good, or a share of one. One that the provider has closed meanwhile gives the
    /// request back whole.
    pub(super) fn take(&self, now: Instant) -> Option<Link> {
        if let Some(shares) = &self.shares
            && let Some(share) = shares.take(now)
        {
            return Some(Link::Share(share));
        }
        loop {
            let (since, own) = lock(&self.idle).pop()?;
            if self.is_fresh(since, &own, now) && own.is_usable() {
                return Some(Link::Own(own));
            }
        }
    }

    /// Puts a connection back, if it is good for another request.
    pub(super) fn put(&self, own: Box<Own>, now: Instant) {
        let mut idle = lock(&self.idle);
        if own.is_usable() && idle.len() < MOST_IDLE {
            idle.push((now, own));
        }
    }

    /// A new connection: one's own, or a share of one that was opened meanwhile. Of several who need one at once the first
    /// opens it; if it cannot be opened, it is the next one's turn.
    pub(super) async fn open<E>(
        &self,
        connect: impl Future<Output = Result<Link, E>>,
    ) -> Result<Link, E> {
        let Some(shares) = &self.shares else {
            return connect.await;
        };
        let _turn = match shares.declined.load(Ordering::Relaxed) {
            true => None,
            false => Some(shares.turn.lock().await),
        };
        if let Some(share) = shares.take(Instant::now()) {
            return Ok(Link::Share(share));
        }
        let link = connect.await?;
        let declined = matches!(link, Link::Own(_));
        shares.declined.store(declined, Ordering::Relaxed);
        if let Link::Share(share) = &link {
            shares.add(share);
        }
        Ok(link)
    }
}

impl Shares {
    /// A share of the first connection that has room.
    fn take(&self, now: Instant) -> Option<Share> {
        lock(&self.open).iter_mut().find_map(|(used, shared)| {
            let is_young = now < shared.born + OLDEST;
            let share = is_young.then(|| shared.share())??;
            *used = now;
            Some(share)
        })
    }

    fn add(&self, share: &Share) {
        let shared = share.connection();
        lock(&self.open).push((shared.born, Arc::clone(shared)));
    }

    /// Lets go of those that are closed, old, or have been idle for long. Answers that still come keep theirs open.
    fn sweep(&self, now: Instant) {
        lock(&self.open).retain(|(used, shared)| {
            let is_needed = !shared.is_idle() || now < *used + KEEP_TLS;
            is_needed && shared.is_usable() && now < shared.born + OLDEST
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::openai::OpenAi;
    use crate::provider::site::{Base, Way};
    use crate::upstream::connect::Connector;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_shared_connection_that_nobody_needs_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let base = Base::parse(&url, std::path::Path::new("")).unwrap();
        let way = Way {
            http2: true,
            ..Way::default()
        };
        let site = Site::new(base, &OpenAi, way).unwrap();
        let (pool, connector) = (Pool::default(), Connector::default());
        let shelf = pool.shelf(&site);
        let now = Instant::now();
        assert!(shelf.take(now).is_none());
        let greet = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream
                .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
                .await
                .unwrap();
            stream
        };
        let opened = shelf.open(connector.connect(&site, now));
        let (link, mut theirs) = tokio::join!(opened, greet);
        let link = link.unwrap();
        let later = now + KEEP_TLS + Duration::from_secs(9);
        pool.sweep(later);
        assert!(shelf.take(later).is_some(), "one is under way on it");
        drop(link);
        pool.sweep(later);
        assert!(shelf.take(later).is_some(), "it was needed a moment ago");
        assert!(shelf.take(now + OLDEST + KEEP_TLS).is_none(), "it is old");
        pool.sweep(later + KEEP_TLS);
        assert!(shelf.is_empty());
        theirs.read_to_end(&mut Vec::new()).await.unwrap();
        drop(shelf);
        pool.sweep(later);
        assert!(lock(&pool.0).is_empty());
    }
}
