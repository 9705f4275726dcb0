//! Connections that wait for their next request, and those with room for one more.
//!
//! One shelf for each site. A connection goes back when its answer has been read to the end, the youngest is taken
//! first, and what is old, long idle or closed by the provider is thrown away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Cause;
use super::link::{Link, Own, Unsent};
use super::share::{Share, Shared};
use crate::provider::Site;
use crate::provider::site::Closes;

/// Requests that the connections waiting on one shelf have room for, at most: a connection of HTTP/1.1 for one, a
/// shared one for as many as it takes.
const MOST_IDLE: usize = 512;
/// Where a connection takes no more than so many requests, whoever needs one opens one: to wait for another's would
/// hardly save any, and would put one handshake after the other.
const FEW: usize = 8;
/// Small servers close idle connections after five seconds (uvicorn, Node): before that, lest a request meets the close.
const KEEP_PLAIN: Duration = Duration::from_secs(4);
/// Some small servers close a connection right after an answer and do not say so (llama.cpp after each stream). Where one
/// was seen to, none is taken for so long that has not lain for a moment: the close may be on its way.
const WARY: Duration = Duration::from_secs(600);
/// That moment.
const MOMENT: Duration = Duration::from_millis(100);
/// A connection that is closed before it has lain for so long is closed right after an answer.
const AT_ONCE: Duration = Duration::from_secs(1);
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
    /// What is known of how they are closed, to whoever connects to the site.
    closes: Arc<Closes>,
    /// What HTTP/2 needs, where it is wanted.
    shares: Option<Arc<Shares>>,
}

/// Connections that many requests go over at once.
pub(super) struct Shares {
    /// The oldest first, each with when it last was given a request. The first with room is taken, so that those that
    /// are not needed fall idle.
    open: Mutex<Vec<(Instant, Arc<Shared>)>>,
    /// Who opens one where it takes many requests, or nothing is known yet; the others wait, since they may find room on
    /// it. A queue, not a lock on data.
    turn: tokio::sync::Mutex<()>,
    /// How many requests a connection of the site takes, by the last one that was opened: one if that speaks HTTP/1.1
    /// after all, many until one was.
    takes: AtomicUsize,
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
            closes: Arc::clone(&site.closes),
            shares: site.http2.then(Arc::default),
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
                let is_fresh = shelf.is_fresh(*since, own, now);
                if is_fresh && !own.is_usable() {
                    // What is found here is not found by the next request.
                    shelf.was_closed(now - *since, now);
                }
                is_fresh && own.is_usable()
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
    /// request back whole. Of one connection it tells for how long it has lain.
    pub(super) fn take(&self, now: Instant) -> Option<(Link, Option<Duration>)> {
        if let Some(shares) = &self.shares
            && let Some(share) = shares.take(now)
        {
            return Some((Link::Share(share), None));
        }
        loop {
            let is_wary = self.closes.is_doubted(now);
            let (since, own) = {
                let mut idle = lock(&self.idle);
                let lain = |(since, _): &(Instant, _)| !is_wary || *since + MOMENT <= now;
                let youngest = idle.iter().rposition(lain)?;
                idle.remove(youngest)
            };
            match self.is_fresh(since, &own, now) {
                true if own.is_usable() => {
                    return Some((Link::Own(own), Some(now - since)));
                }
                true => self.was_closed(now - since, now),
                false => {}
            }
        }
    }

    /// A connection was closed that had lain for so long. What closes those that nobody uses for some seconds does as many
    /// servers do, and is not doubted for that; connections to hosted providers are too dear to be.
    fn was_closed(&self, lain: Duration, now: Instant) {
        if self.keep == KEEP_PLAIN && lain < AT_ONCE {
            self.closes.doubt(now + WARY);
        }
    }

    /// Learns from what became of a request on a connection that had lain for so long. None: it is new.
    pub(super) fn learns<T>(
        &self,
        lain: Option<Duration>,
        answered: Result<T, Unsent>,
    ) -> Result<T, Unsent> {
        if let Err(Unsent::Whole(..) | Unsent::Lost(Cause::Reset(_))) = &answered
            && let Some(lain) = lain
        {
            self.was_closed(lain, Instant::now());
        }
        answered
    }

    /// Puts a connection back, if it is good for another request.
    pub(super) fn put(&self, own: Box<Own>, now: Instant) {
        if !own.is_usable() {
            return self.was_closed(Duration::ZERO, now);
        }
        let mut idle = lock(&self.idle);
        if own.is_usable() && idle.len() < MOST_IDLE {
            idle.push((now, own));
        }
    }

    /// A new connection: one's own, or a share of one that was opened meanwhile. Where a connection takes many requests,
    /// the first of several who need one opens it; if it cannot be opened, it is the next one's turn.
    pub(super) async fn open<E>(
        &self,
        connect: impl Future<Output = Result<Link, E>>,
    ) -> Result<Link, E> {
        let Some(shares) = &self.shares else {
            return connect.await;
        };
        let _turn = shares.turn().await;
        if let Some(share) = shares.take(Instant::now()) {
            return Ok(Link::Share(share));
        }
        let mut link = connect.await?;
        shares.learn(&mut link);
        Ok(link)
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            takes: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Shares {
    /// Waits for one's turn to open a connection; none where nobody need wait.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let takes_few = || self.takes.load(Ordering::Relaxed) <= FEW;
        if takes_few() {
            return None;
        }
        let turn = self.turn.lock().await;
        // Whoever had it before may have found out.
        (!takes_few()).then_some(turn)
    }

    /// A share of the first connection that has room.
    fn take(self: &Arc<Self>, now: Instant) -> Option<Share> {
        let share = lock(&self.open).iter_mut().find_map(|(used, shared)| {
            let is_young = now < shared.born + OLDEST;
            let share = is_young.then(|| shared.share())??;
            *used = now;
            Some(share)
        });
        share.map(|mut share| {
            share.home = Some(Arc::clone(self));
            share
        })
    }

    /// Notes what a new connection shows of the site, and keeps it where others can share it.
    fn learn(self: &Arc<Self>, link: &mut Link) {
        let takes = match link {
            Link::Own(_) => 1,
            Link::Share(share) => {
                let shared = share.connection();
                lock(&self.open).push((shared.born, Arc::clone(shared)));
                share.home = Some(Arc::clone(self));
                share.connection().takes()
            }
        };
        self.takes.store(takes, Ordering::Relaxed);
    }

    /// Nothing is under way on a connection any more. It is let go if enough others wait.
    pub(super) fn fell_idle(&self, fallen: &Arc<Shared>) {
        let mut open = lock(&self.open);
        let idle = open.iter().filter(|(_, shared)| shared.is_idle());
        let room: usize = idle.map(|(_, shared)| shared.takes()).sum();
        if room > MOST_IDLE {
            open.retain(|(_, shared)| !(Arc::ptr_eq(shared, fallen) && shared.is_idle()));
        }
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
    use std::task::Poll;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A frame of settings that says nothing, which is how every server begins.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    fn site(listener: &TcpListener, http2: bool) -> Site {
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let base = Base::parse(&url, std::path::Path::new("")).unwrap();
        let way = Way {
            http2,
            ..Way::default()
        };
        Site::new(base, &OpenAi, way).unwrap()
    }

    /// How many connections twenty make who need one at once, of a provider that says this first. All but the first are
    /// made together: who waits for another's would wait for ever.
    async fn made_together(first: &'static [u8], http2: bool) -> usize {
        const MANY: usize = 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shelf = Pool::default().shelf(&site(&listener, true));
        let site = site(&listener, http2);
        let (connector, made) = (Connector::default(), AtomicUsize::new(0));
        let together = tokio::sync::Barrier::new(MANY - 1);
        let open = async || {
            let connect = async {
                if made.fetch_add(1, Ordering::Relaxed) > 0 {
                    together.wait().await;
                }
                connector.connect(&site, Instant::now()).await
            };
            shelf.open(connect).await.unwrap()
        };
        let greet = async {
            let mut greeted = Vec::new();
            loop {
                let mut stream = listener.accept().await.unwrap().0;
                stream.write_all(first).await.unwrap();
                greeted.push(stream);
            }
        };
        let mut opening: Vec<_> = (0..MANY).map(|_| Box::pin(open())).collect();
        let mut links = Vec::new();
        let all = std::future::poll_fn(|cx| {
            opening.retain_mut(|one| match one.as_mut().poll(cx) {
                Poll::Ready(link) => {
                    links.push(link);
                    false
                }
                Poll::Pending => true,
            });
            match opening.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        tokio::select! {
            all = tokio::time::timeout(Duration::from_secs(5), all) => all.expect("side by side"),
            never = greet => never,
        }
        made.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn connections_that_take_few_requests_are_opened_side_by_side() {
        // SETTINGS_MAX_CONCURRENT_STREAMS is 1.
        const ONE: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
        assert_eq!(made_together(&[], false).await, 20, "HTTP/1.1 after all");
        assert_eq!(made_together(ONE, true).await, 20);
        assert_eq!(made_together(&SETTINGS, true).await, 1);
    }

    #[tokio::test]
    async fn more_than_enough_idle_shared_connections_are_let_go_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = site(&listener, true);
        let greet = async {
            let mut greeted = Vec::new();
            loop {
                let mut stream = listener.accept().await.unwrap().0;
                stream.write_all(&SETTINGS).await.unwrap();
                greeted.push(stream);
            }
        };
        let (pool, connector) = (Pool::default(), Connector::default());
        let shelf = pool.shelf(&site);
        let shares = shelf.shares.as_ref().unwrap();
        let connections = || lock(&shares.open).len();
        let check = async {
            let mut links = Vec::new();
            for _ in 0..900 {
                let now = Instant::now();
                links.push(match shelf.take(now) {
                    Some((link, _)) => link,
                    None => shelf.open(connector.connect(&site, now)).await.unwrap(),
                });
            }
            assert_eq!(connections(), 9, "a hundred on each");
            links.truncate(1);
            assert_eq!(connections(), 1 + MOST_IDLE / 100, "one is not idle");
            drop(links);
            assert_eq!(connections(), MOST_IDLE / 100);
            assert!(shelf.take(Instant::now()).is_some());
        };
        tokio::select! {
            () = check => {}
            never = greet => never,
        }
    }

    #[tokio::test]
    async fn what_may_be_about_to_be_closed_lies_for_a_moment() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = site(&listener, false);
        let (connector, now) = (Connector::default(), Instant::now());
        let shelf = Pool::default().shelf(&site);
        let puts = async |at| match shelf.open(connector.connect(&site, at)).await {
            Ok(Link::Own(mut own)) => {
                own.drive(&mut Context::from_waker(Waker::noop()));
                shelf.put(own, at);
            }
            _ => panic!("no connection of HTTP/1.1"),
        };
        puts(now).await;
        assert!(shelf.take(now).is_some(), "nothing is known of it");
        shelf.was_closed(AT_ONCE, now);
        assert!(!shelf.closes.is_doubted(now), "nobody used it for long");
        shelf.was_closed(Duration::ZERO, now);
        puts(now).await;
        puts(now + MOMENT / 2).await;
        assert!(shelf.take(now + MOMENT / 2).is_none());
        assert!(shelf.take(now + MOMENT).is_some(), "the older one");
        assert!(shelf.take(now + MOMENT).is_none());
        assert!(shelf.take(now + MOMENT * 2).is_some());
        puts(now + WARY).await;
        assert!(shelf.take(now + WARY).is_some(), "that was long ago");
    }

    #[tokio::test]
    async fn a_close_that_the_sweep_finds_is_known_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (pool, connector) = (Pool::default(), Connector::default());
        let (site, now) = (site(&listener, false), Instant::now());
        let shelf = pool.shelf(&site);
        let Ok(Link::Own(mut own)) = shelf.open(connector.connect(&site, now)).await else {
            panic!("no connection of HTTP/1.1")
        };
        own.drive(&mut Context::from_waker(Waker::noop()));
        shelf.put(own, now);
        pool.sweep(now);
        assert!(!site.closes.is_doubted(now));
        drop(listener.accept().await.unwrap());
        while !lock(&shelf.idle).is_empty() {
            tokio::task::yield_now().await;
            pool.sweep(now);
        }
        assert!(site.closes.is_doubted(now));
    }

    #[tokio::test]
    async fn what_is_known_of_a_server_outlives_its_connections_and_whoever_asked_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = crate::provider::site::Servers::default();
        let other = || {
            let mut site = site(&listener, false);
            site.closes = servers.closes(&site.key);
            site
        };
        // Of two providers at one place, and two threads that ask it.
        let (one, two) = (other(), other());
        let (pool, now) = (Pool::default(), Instant::now());
        pool.shelf(&one).was_closed(Duration::ZERO, now);
        pool.sweep(now);
        assert!(lock(&pool.0).is_empty());
        for pool in [pool, Pool::default()] {
            assert!(pool.shelf(&two).closes.is_doubted(now));
        }
        drop((one, two));
        assert!(!other().closes.is_doubted(now), "it was kept for ever");
    }

    #[tokio::test]
    async fn a_shared_connection_that_nobody_needs_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = site(&listener, true);
        let (pool, connector) = (Pool::default(), Connector::default());
        let shelf = pool.shelf(&site);
        let now = Instant::now();
        assert!(shelf.take(now).is_none());
        let greet = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream.write_all(&SETTINGS).await.unwrap();
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
