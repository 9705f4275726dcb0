//! Names to addresses, and how long an answer is believed.
//!
//! Each worker has a cache of its own, as it has connections of its own: nothing is shared between threads, and what it
//! costs is one look-up for each worker in half a minute. A look-up is a task of the cache's, not of who asked first: it
//! goes on when they leave, so that a name server that says nothing costs one thread for a name and not one for each
//! request.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// An answer is believed so long.
const FRESH: Duration = Duration::from_secs(30);
/// And so long while no other is to be had.
const STALE: Duration = Duration::from_secs(3_600);
/// A failure is believed so long.
const FAILED: Duration = Duration::from_secs(1);
/// Whoever has an old answer waits so long for a new one.
const PATIENCE: Duration = Duration::from_millis(500);
/// A name that cannot be looked up is told of once in so long.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Names that are kept, at most. They come from configurations, so that only reloads can bring as many.
const MOST_NAMES: usize = 1_024;
/// Addresses of one name, at most.
const MOST_ADDRESSES: usize = 16;

/// What a look-up is made with.
pub(super) type Lookup = dyn Fn(Arc<str>) -> Looking + Send + Sync;
type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// What is known of names.
pub(super) struct Names {
    lookup: Box<Lookup>,
    entries: Mutex<HashMap<Arc<str>, Arc<Entry>>>,
    under_way: Mutex<JoinSet<()>>,
}

struct Entry {
    known: Mutex<Known>,
    /// Tells all who wait that a look-up has ended.
    ended: Notify,
}

/// What is known of one name.
struct Known {
    /// As they came.
    addresses: Vec<IpAddr>,
    /// When they came.
    found: Option<Instant>,
    /// The last failure, unless an answer came after it.
    failed: Option<(Instant, String)>,
    /// When the look-up that is under way began.
    looking: Option<Instant>,
    warned: Option<Instant>,
    asked: Instant,
    /// Counts those who were given addresses, for the rotation.
    turn: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Box::new(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((&*name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        }))
    }
}

impl Names {
    pub(super) fn new(lookup: Box<Lookup>) -> Self {
        Self {
            lookup,
            entries: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    /// The addresses of a name, in the order in which they are to be tried.
    pub(super) async fn resolve(&self, name: &Arc<str>, now: Instant) -> io::Result<Vec<IpAddr>> {
        let entry = self.entry(name, now);
        let (ended, has_old) = {
            let mut known = lock(&entry.known);
            known.asked = now;
            if let Some(answer) = known.answer(now) {
                return answer;
            }
            // Made before the lock is given up: it hears of every end from here on.
            let ended = entry.ended.notified();
            if known.looking.is_none() {
                known.looking = Some(now);
                self.look(name, &entry);
            }
            (ended, known.is_usable(now))
        };
        if has_old {
            let _ = timeout(PATIENCE, ended).await;
        } else {
            ended.await;
        }
        lock(&entry.known).outcome(now)
    }

    /// Forgets names that nobody asks for any more.
    pub(super) fn sweep(&self, now: Instant) {
        lock(&self.entries).retain(|_, entry| lock(&entry.known).asked + STALE > now);
    }

    fn entry(&self, name: &Arc<str>, now: Instant) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get(name) {
            return Arc::clone(entry);
        }
        if entries.len() >= MOST_NAMES {
            // The worst that comes of it is one look-up for each name.
            entries.clear();
        }
        let entry = Arc::new(Entry {
            known: Mutex::new(Known {
                addresses: Vec::new(),
                found: None,
                failed: None,
                looking: None,
                warned: None,
                asked: now,
                turn: 0,
            }),
            ended: Notify::new(),
        });
        entries.insert(Arc::clone(name), Arc::clone(&entry));
        entry
    }

    fn look(&self, name: &Arc<str>, entry: &Arc<Entry>) {
        let looking = (self.lookup)(Arc::clone(name));
        let (name, entry) = (Arc::clone(name), Arc::clone(entry));
        let mut under_way = lock(&self.under_way);
        while under_way.try_join_next().is_some() {}
        under_way.spawn(async move {
            let found = looking.await;
            lock(&entry.known).learn(&name, found, Instant::now());
            entry.ended.notify_waiters();
        });
    }
}

impl Known {
    fn is_usable(&self, now: Instant) -> bool {
        self.found.is_some_and(|found| now < found + STALE)
    }

    /// What can be said without a look-up.
    fn answer(&mut self, now: Instant) -> Option<io::Result<Vec<IpAddr>>> {
        let fresh = self.found.is_some_and(|found| now < found + FRESH);
        let failed = self.failed.as_ref();
        let failed = failed.is_some_and(|(failed, _)| now < *failed + FAILED);
        let silent = self.looking.is_some_and(|began| now >= began + PATIENCE);
        let settled = fresh || failed || (silent && self.is_usable(now));
        settled.then(|| self.outcome(now))
    }

    /// What can be said at all.
    fn outcome(&mut self, now: Instant) -> io::Result<Vec<IpAddr>> {
        if self.is_usable(now) {
            self.turn = self.turn.wrapping_add(1);
            return Ok(order(&self.addresses, self.turn));
        }
        let why = self
            .failed
            .as_ref()
            .map_or("it was not found", |(_, why)| why);
        Err(io::Error::new(io::ErrorKind::NotFound, why))
    }

    fn learn(&mut self, name: &str, found: io::Result<Vec<IpAddr>>, now: Instant) {
        self.looking = None;
        let why = match found {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.truncate(MOST_ADDRESSES);
                self.addresses = addresses;
                self.found = Some(now);
                self.failed = None;
                return;
            }
            Ok(_) => "it has no addresses".to_owned(),
            Err(error) => error.to_string(),
        };
        if self.warned.is_none_or(|warned| now >= warned + WARN_EVERY) {
            self.warned = Some(now);
            let old = if self.is_usable(now) {
                "; its last addresses are still used"
            } else {
                ""
            };
            tracing::warn!("the name {name} could not be looked up: {why}{old}");
        }
        self.failed = Some((
            now,
            format!("the name {name} could not be looked up: {why}"),
        ));
    }
}

/// The order in which addresses are tried: the two families by turns (RFC 8305, section 4), beginning with the family
/// that the system puts first.
///
/// The system sorts the same addresses the same way each time, so that every connection would go to one machine of
/// several. Hence each family is rotated by `turn`, which counts connections: the first goes to its first address, the
/// next to its second, and so on.
fn order(addresses: &[IpAddr], turn: usize) -> Vec<IpAddr> {
    let six_first = addresses.first().is_some_and(IpAddr::is_ipv6);
    let family = |six: bool| -> Vec<IpAddr> {
        let mut family: Vec<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| address.is_ipv6() == six)
            .collect();
        let by = turn.checked_rem(family.len()).unwrap_or(0);
        family.rotate_left(by);
        family
    };
    let (first, second) = (family(six_first), family(!six_first));
    let mut first = first.into_iter();
    let mut second = second.into_iter();
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return ordered,
            (one, other) => ordered.extend(one.into_iter().chain(other)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::{advance, sleep};

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split(' ').map(|a| a.parse().unwrap()).collect()
    }

    /// What a scripted name server says next, and after how long.
    type Script = Vec<(Duration, Result<&'static str, &'static str>)>;

    /// Names whose look-ups go as scripted, the last again and again; and how many there were.
    fn scripted(script: Script) -> (Names, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let names = Names::new(Box::new(move |_| {
            let n = count.fetch_add(1, Ordering::SeqCst);
            let (after, says) = script[n.min(script.len() - 1)];
            Box::pin(async move {
                sleep(after).await;
                says.map(addresses).map_err(io::Error::other)
            })
        }));
        (names, asked)
    }

    async fn ask(names: &Names) -> Result<String, String> {
        let found = names.resolve(&"engine".into(), Instant::now()).await;
        let text = |all: Vec<IpAddr>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        found
            .map(|all| text(all).join(" "))
            .map_err(|e| e.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_fresh_for_half_a_minute() {
        let (names, asked) = scripted(vec![(secs(1), Ok("192.0.2.1")), (secs(0), Ok("192.0.2.2"))]);
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.1");
        advance(secs(29)).await;
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.1");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        advance(secs(2)).await;
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.2", "it has moved");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_share_one_look_up_whoever_leaves() {
        let (names, asked) = scripted(vec![(secs(3), Ok("192.0.2.1"))]);
        let leaves = timeout(secs(1), ask(&names));
        let (gone, one, other) = tokio::join!(leaves, ask(&names), ask(&names));
        assert!(gone.is_err());
        assert_eq!(
            (one.unwrap(), other.unwrap()),
            ("192.0.2.1".into(), "192.0.2.1".into())
        );
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_used_for_an_hour_when_there_is_no_new_one() {
        let (names, asked) = scripted(vec![(secs(0), Ok("192.0.2.1")), (secs(0), Err("broken"))]);
        ask(&names).await.unwrap();
        advance(secs(1_800)).await;
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.1");
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.1");
        assert_eq!(
            asked.load(Ordering::SeqCst),
            2,
            "a failure is believed for a moment"
        );
        advance(secs(1_801)).await;
        let why = ask(&names).await.unwrap_err();
        assert_eq!(why, "the name engine could not be looked up: broken");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_used_while_the_name_server_is_silent() {
        let (names, asked) = scripted(vec![(secs(0), Ok("192.0.2.1")), (secs(20), Err("silent"))]);
        ask(&names).await.unwrap();
        advance(secs(60)).await;
        let began = Instant::now();
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.1");
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.1");
        assert_eq!(
            began.elapsed(),
            PATIENCE,
            "the second need not be as patient"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_name_is_not_looked_up_for_each_request() {
        let (names, asked) = scripted(vec![
            (secs(0), Err("broken")),
            (secs(0), Ok("")),
            (secs(0), Ok("192.0.2.1")),
        ]);
        for _ in 0..10 {
            assert!(ask(&names).await.unwrap_err().contains("broken"));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_forgotten_after_a_second() {
        let (names, _) = scripted(vec![(secs(0), Err("broken")), (secs(0), Ok("192.0.2.1"))]);
        ask(&names).await.unwrap_err();
        advance(FAILED).await;
        assert_eq!(ask(&names).await.unwrap(), "192.0.2.1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_of_once_a_minute() {
        let (names, _) = scripted(vec![(secs(0), Err("broken"))]);
        let mut told = Vec::new();
        for _ in 0..70 {
            ask(&names).await.unwrap_err();
            let entry = names.entry(&"engine".into(), Instant::now());
            told.extend(lock(&entry.known).warned);
            advance(secs(2)).await;
        }
        told.dedup();
        assert_eq!(told.len(), 3, "in 140 seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_has_a_bound() {
        let (names, _) = scripted(vec![(secs(0), Ok("192.0.2.1"))]);
        for n in 0..=MOST_NAMES {
            names
                .resolve(&n.to_string().into(), Instant::now())
                .await
                .unwrap();
        }
        assert!(lock(&names.entries).len() <= MOST_NAMES);
        advance(STALE).await;
        names.sweep(Instant::now());
        assert!(lock(&names.entries).is_empty());
        let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        let names = Names::new(Box::new(move |_| {
            let many = many.clone();
            Box::pin(async move { Ok(many) })
        }));
        let found = names.resolve(&"a".into(), Instant::now()).await.unwrap();
        assert_eq!(found.len(), MOST_ADDRESSES);
    }

    #[test]
    fn families_take_turns_and_each_connection_begins_elsewhere() {
        let text = |turn, all: &str| {
            let ordered = order(&addresses(all), turn);
            ordered
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let all = "::1 ::2 192.0.2.1 192.0.2.2 192.0.2.3";
        assert_eq!(text(0, all), "::1 192.0.2.1 ::2 192.0.2.2 192.0.2.3");
        assert_eq!(text(1, all), "::2 192.0.2.2 ::1 192.0.2.3 192.0.2.1");
        assert_eq!(text(2, all), "::1 192.0.2.3 ::2 192.0.2.1 192.0.2.2");
        assert_eq!(text(5, "192.0.2.1 ::1"), "192.0.2.1 ::1");
        assert!(order(&[], 3).is_empty());
    }
}
