//! A connection that many requests go over at once: HTTP/2 (RFC 9113).
//!
//! Unlike HTTP/1.1's it cannot be polled by whoever waits for an answer, since many do. Its tasks are its own, and end
//! with it: it lives as long as the pool keeps it or an answer comes over it.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Cause;
use super::connect::MAX_BUFFER;
use super::link::closed;
use super::pool::Shares;
use super::wire::Io;
use crate::envelope::Rope;

/// Requests under way on one connection, at most: what RFC 9113 asks every server to allow.
const MOST_STREAMS: u32 = 100;
/// What a provider may send of one answer before the client has read it, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// As many for all answers together as for each of them: clients that do not read never hold the others up.
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;
/// Streams of ours that we have reset and still know, on one connection: far more than are open at once, since whole
/// crowds of clients come and leave again before the provider has heard of the first. What comes late for one that is
/// known costs nothing. What comes for one that is forgotten counts as an error of the connection.
const MOST_RESET: usize = 4096;
/// So long a provider may go on sending what it had on its way when we reset a stream. It is more than a slow line holds.
const RESET_MEMORY: Duration = Duration::from_secs(30);
/// Such errors of one connection before we end it, and cut off everybody on it: nobody who keeps to the protocol gets
/// there, and who does not costs us no more than this.
const MOST_ERRORS: usize = 8192;
/// What stands for the number of streams that the other side allows, until it has said it; no number it can say.
const UNSAID: usize = usize::MAX - 1;
/// A connection that says nothing for so long while answers are waited for is asked whether it is still there …
const PING_AFTER: Duration = Duration::from_secs(20);
/// … and given up after so long.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub(super) struct Shared {
    sender: SendRequest<Upload>,
    under_way: AtomicUsize,
    /// How many the other side allows at once.
    allowed: Arc<AtomicUsize>,
    /// The other side has said that it takes no more requests.
    leaves: AtomicBool,
    /// When it was made.
    pub(super) born: Instant,
    /// What it consists of; ends when it is dropped.
    tasks: Arc<Mutex<Tasks>>,
}

/// What a connection consists of.
#[derive(Default)]
struct Tasks {
    all: JoinSet<()>,
    /// Whose body was first asked for last: the next task is that request's.
    beginning: Option<Leash>,
}

/// What ends the task that sends a request's body, once it has one.
type Leash = Arc<OnceLock<AbortHandle>>;

/// One request's share of a connection. Dropping it makes room for another.
pub(super) struct Share {
    connection: Arc<Shared>,
    /// Where the connection is kept, once it is.
    pub(super) home: Option<Arc<Shares>>,
    /// Ends what still sends its request.
    leash: Leash,
}

impl Shared {
    /// Opens a connection and takes the first share of it. Waits for the other side's first word, which says how many
    /// requests it allows at once: what is put on it before may have to be refused, or wait for long.
    pub(super) async fn open(io: Io) -> io::Result<Share> {
        let tasks = Arc::<Mutex<Tasks>>::default();
        let spawner = Spawner {
            tasks: Arc::downgrade(&tasks),
            moved: Arc::default(),
        };
        let (sender, mut connection) = Builder::new(spawner.clone())
            .timer(TokioTimer::new())
            .initial_max_send_streams(UNSAID)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_BUFFER)
            .max_concurrent_reset_streams(MOST_RESET)
            .reset_stream_duration(RESET_MEMORY)
            .max_local_error_reset_streams(MOST_ERRORS)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_PATIENCE)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| mute(&e))?;
        while connection.current_max_send_streams() == UNSAID {
            tokio::select! {
                ended = &mut connection => {
                    ended.map_err(|e| mute(&e))?;
                    return Err(io::Error::other("it closed without a word of HTTP/2"));
                }
                () = spawner.moved.notified() => {}
            }
        }
        let most = |allows: usize| allows.min(MOST_STREAMS as usize);
        let allowed = Arc::new(AtomicUsize::new(most(
            connection.current_max_send_streams(),
        )));
        let told = Arc::clone(&allowed);
        spawner.execute(async move {
            poll_fn(|cx| {
                let ended = Pin::new(&mut connection).poll(cx).map(drop);
                told.store(
                    most(connection.current_max_send_streams()),
                    Ordering::Relaxed,
                );
                ended
            })
            .await;
        });
        let shared = Arc::new(Self {
            sender,
            under_way: AtomicUsize::new(1),
            allowed,
            leaves: AtomicBool::new(false),
            born: Instant::now(),
            tasks,
        });
        Ok(Share::of(shared))
    }

    /// Whether the other side takes requests on it, as far as one knows.
    pub(super) fn is_usable(&self) -> bool {
        !self.leaves.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    /// Whether nothing is under way on it.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// How many requests it takes at once.
    pub(super) fn takes(&self) -> usize {
        self.allowed.load(Ordering::Relaxed)
    }

    /// A share of it, if there is room.
    pub(super) fn share(self: &Arc<Self>) -> Option<Share> {
        let (relaxed, takes) = (Ordering::Relaxed, self.takes());
        let one_more = |n: usize| (n < takes).then_some(n + 1);
        let has_room = self.is_usable()
            && self
                .under_way
                .fetch_update(relaxed, relaxed, one_more)
                .is_ok();
        has_room.then(|| Share::of(Arc::clone(self)))
    }
}

impl Share {
    /// A share whose room is taken already.
    fn of(connection: Arc<Shared>) -> Self {
        Self {
            connection,
            home: None,
            leash: Leash::default(),
        }
    }

    pub(super) fn connection(&self) -> &Arc<Shared> {
        &self.connection
    }

    pub(super) fn sender(&self) -> SendRequest<Upload> {
        self.connection.sender.clone()
    }

    /// A request's body, on the leash of this share.
    pub(super) fn upload(&self, rope: Rope) -> Upload {
        Upload {
            rope,
            unasked: Some((
                Arc::clone(&self.leash),
                Arc::downgrade(&self.connection.tasks),
            )),
        }
    }

    /// What is wrong, if the other side says that it did nothing with a request: it refused the stream, or went away
    /// before it came to it (RFC 9113, section 8.7).
    pub(super) fn undone(&self, error: &hyper::Error) -> Option<Cause> {
        let why = error.source()?.downcast_ref::<h2::Error>()?;
        if !why.is_remote() {
            return None;
        }
        if why.is_go_away() {
            self.connection.leaves.store(true, Ordering::Relaxed);
            return Some(Cause::Connect(closed()));
        }
        (why.reason() == Some(h2::Reason::REFUSED_STREAM)).then_some(Cause::Shed)
    }
}

/// Whether the other side has given up this one stream, and not the connection: that is its answer, however long the
/// connection was kept.
pub(super) fn is_stream_reset(error: &hyper::Error) -> bool {
    let why = error
        .source()
        .and_then(|why| why.downcast_ref::<h2::Error>());
    why.is_some_and(|why| why.is_remote() && why.is_reset())
}

impl Drop for Share {
    fn drop(&mut self) {
        // A stream ends when all its parts are dropped, of which the library keeps the one that sends the body until the
        // other side has taken it. Who does not take it would keep the room for ever.
        if let Some(sending) = self.leash.get() {
            sending.abort();
        }
        let before = self.connection.under_way.fetch_sub(1, Ordering::Relaxed);
        if before == 1
            && let Some(home) = &self.home
        {
            home.fell_idle(&self.connection);
        }
    }
}

/// The other side has not said a word of HTTP/2.
fn mute(error: &hyper::Error) -> io::Error {
    let why = error
        .source()
        .map_or_else(String::new, |why| format!(": {why}"));
    io::Error::other(format!("it does not speak HTTP/2{why}"))
}

/// The body of a request that goes over a share.
///
/// The library makes a task of it if it cannot be sent at once. It asks for the first piece immediately before that, on
/// the connection's own task: so one knows whose task it is.
pub(super) struct Upload {
    rope: Rope,
    /// Until it is asked for the first time.
    unasked: Option<(Leash, Weak<Mutex<Tasks>>)>,
}

impl From<Upload> for Rope {
    fn from(upload: Upload) -> Self {
        upload.rope
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some((leash, tasks)) = self.unasked.take()
            && let Some(tasks) = tasks.upgrade()
        {
            lock(&tasks).beginning = Some(leash);
        }
        Pin::new(&mut self.rope).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.rope.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rope.size_hint()
    }
}

/// Runs what a connection consists of. Knows the connection's tasks, but does not keep them: they hold it themselves.
#[derive(Clone)]
struct Spawner {
    tasks: Weak<Mutex<Tasks>>,
    /// Tells that one of them has moved: only so can one hear of the other side's first word.
    moved: Arc<Notify>,
}

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        if let Some(tasks) = self.tasks.upgrade() {
            let moved = Arc::clone(&self.moved);
            let mut tasks = lock(&tasks);
            while tasks.all.try_join_next().is_some() {}
            let spawned = tasks.all.spawn(async move {
                let mut task = pin!(task);
                poll_fn(|cx| {
                    let ended = task.as_mut().poll(cx);
                    moved.notify_one();
                    ended
                })
                .await;
            });
            if let Some(leash) = tasks.beginning.take() {
                // It has none yet: a body is asked for the first time but once.
                drop(leash.set(spawned));
            }
        }
    }
}

fn lock(tasks: &Mutex<Tasks>) -> MutexGuard<'_, Tasks> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// A frame of settings that says nothing, which is how every server begins.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    /// Both ends of a connection whose other side says this first.
    async fn opened(first: &[u8]) -> (io::Result<Share>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(ours, listener.accept());
        let mut theirs = theirs.unwrap().0;
        theirs.write_all(first).await.unwrap();
        (Shared::open(Io::Tcp(ours.unwrap())).await, theirs)
    }

    #[tokio::test]
    async fn nothing_of_a_connection_outlives_it() {
        let (share, mut theirs) = opened(SETTINGS).await;
        let share = share.unwrap();
        let pooled = Arc::clone(share.connection());
        drop(share);
        assert!(pooled.is_idle() && pooled.is_usable());
        drop(pooled);
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert!(all.starts_with(b"PRI * HTTP/2.0"));
    }

    #[tokio::test]
    async fn it_has_room_for_as_many_as_the_other_side_allows() {
        // SETTINGS_MAX_CONCURRENT_STREAMS is 3.
        let (share, _theirs) = opened(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3]).await;
        let shared = Arc::clone(share.as_ref().unwrap().connection());
        let more = [shared.share(), shared.share()];
        assert!(more.iter().all(Option::is_some));
        assert!(shared.share().is_none());
        drop(more);
        assert!(shared.share().is_some());

        let (share, _theirs) = opened(SETTINGS).await;
        let shared = Arc::clone(share.as_ref().unwrap().connection());
        let more: Vec<Share> = std::iter::from_fn(|| shared.share()).collect();
        assert_eq!(more.len(), 99, "no bound of theirs: ours");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_died_is_noticed() {
        let (share, _theirs) = opened(SETTINGS).await;
        let share = share.unwrap();
        let began = Instant::now();
        let mut request = Request::new(share.upload(Rope::default()));
        *request.uri_mut() = "http://a/".parse().unwrap();
        let error = share.sender().send_request(request).await.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), 30, "{error:?}");
        assert!(share.undone(&error).is_none(), "it may have been looked at");
        assert!(!share.connection().is_usable());
    }

    #[tokio::test]
    async fn what_is_not_http_2_says_so() {
        let (share, _) = opened(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        let error = share.err().unwrap().to_string();
        assert!(error.starts_with("it does not speak HTTP/2: "), "{error}");
    }
}
