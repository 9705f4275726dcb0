//! Who is connected? Accepts connections, spreads them over workers, and lets them end.
//!
//! Each worker is a thread with a runtime of its own: a request never changes threads, and nothing on its path is
//! shared that need not be (measured: 10–20 % less CPU than one runtime over all threads). New connections go to the
//! worker that has fewest, so that a handful of long-lived ones does not meet on one core. Knows no other room: what is
//! done with a request is a handler it is given.

mod answer;
mod beat;
mod connection;
mod listen;
mod pulse;
mod quiet;
mod socket;
mod streams;
mod tls;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use beat::{Beat, Beats};
pub use connection::serve;
pub use listen::{Accepted, Accepting, Address, Listeners, Places, Prepared};
pub use tls::{Pem, Tls, Unusable};

/// How long a connection may do nothing, or next to nothing.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From the first byte of a request to the end of its head.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// With bytes that the client does not read.
    pub write: Duration,
}

/// How near the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Requests are welcome.
    Open,
    /// Those under way finish; connections close after them.
    Draining,
    /// Those under way end now, with an error of ours. Whatever polls them must see it.
    Closing,
    /// Connections close.
    Ended,
}

/// Answers requests.
pub trait Handler: Clone + Send + 'static {
    /// What is answered with.
    type Body: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync>
        + Send
        + Unpin
        + 'static;

    /// Answers one, with a copy of itself. What can be done at once is done here: a request is long, and what waits for
    /// its answer should not have to carry it.
    fn handle(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Called every few seconds on the worker's own thread.
    fn sweep(&self) {}

    /// Called there once its last connection is closed: ends whatever goes on without one.
    fn close(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Threads that serve connections.
pub struct Workers {
    seats: Vec<Seat>,
    threads: Vec<JoinHandle<()>>,
}

struct Seat {
    connections: mpsc::UnboundedSender<Guest>,
    open: Arc<AtomicUsize>,
    beat: Arc<Beat>,
}

/// A connection on its way to a worker, and what it holds on to while it is open.
struct Guest {
    accepted: Accepted,
    place: tokio::sync::OwnedSemaphorePermit,
    open: Open,
}

/// Counts one connection, here and in the gauge, until it is dropped.
struct Open {
    here: Arc<AtomicUsize>,
    gauge: Arc<dyn Fn(i64) + Send + Sync>,
}

impl Open {
    fn count(here: &Arc<AtomicUsize>, gauge: &Arc<dyn Fn(i64) + Send + Sync>) -> Self {
        here.fetch_add(1, Ordering::AcqRel);
        gauge(1);
        Self {
            here: Arc::clone(here),
            gauge: Arc::clone(gauge),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.here.fetch_sub(1, Ordering::AcqRel);
        (self.gauge)(-1);
    }
}

const SWEEP: Duration = Duration::from_secs(2);

impl Workers {
    /// Starts `count` threads; each answers with a handler of its own. A connection goes by the times that hold when it is
    /// made.
    pub fn start<H: Handler>(
        count: usize,
        times: &watch::Receiver<Times>,
        stage: &watch::Receiver<Stage>,
        handler: impl Fn() -> H,
    ) -> io::Result<Self> {
        let mut workers = Self {
            seats: Vec::new(),
            threads: Vec::new(),
        };
        for n in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let beat = Arc::new(Beat::new(Instant::now()));
            let watched = (times.clone(), stage.clone());
            let work = work(receiver, watched, handler(), Arc::clone(&beat));
            let thread = std::thread::Builder::new()
                .name(format!("worker-{n}"))
                .spawn(move || runtime.block_on(work))?;
            workers.threads.push(thread);
            workers.seats.push(Seat {
                connections: sender,
                open: Arc::default(),
                beat,
            });
        }
        Ok(workers)
    }

    /// Accepts connections until told to stop. `most` are open at once; further ones wait in the listener's queue.
    pub async fn accept(
        &self,
        mut accepting: Accepting,
        most: usize,
        gauge: Arc<dyn Fn(i64) + Send + Sync>,
        mut stage: watch::Receiver<Stage>,
    ) {
        let places = Arc::new(Semaphore::new(most));
        loop {
            let guest = async {
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((place, accepting.next().await))
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = past(&mut stage, Stage::Open) => return,
                guest = guest => match guest {
                    Some(guest) => guest,
                    None => return,
                },
            };
            let Some(seat) = self
                .seats
                .iter()
                .min_by_key(|seat| seat.open.load(Ordering::Acquire))
            else {
                return;
            };
            let open = Open::count(&seat.open, &gauge);
            let guest = Guest {
                accepted,
                place,
                open,
            };
            // A worker ends only after we do.
            let _ = seat.connections.send(guest);
        }
    }

    /// Whether the threads go on.
    pub fn beats(&self) -> Beats {
        Beats(self.seats.iter().map(|it| Arc::clone(&it.beat)).collect())
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.seats
            .iter()
            .map(|seat| seat.open.load(Ordering::Acquire))
            .sum()
    }

    /// Waits for the threads, which end with their last connection.
    pub fn join(&mut self) {
        self.seats.clear();
        for thread in self.threads.drain(..) {
            // A worker that panicked is gone as well.
            let _ = thread.join();
        }
    }
}

async fn work<H: Handler>(
    mut guests: mpsc::UnboundedReceiver<Guest>,
    (times, stage): (watch::Receiver<Times>, watch::Receiver<Stage>),
    handler: H,
    beat: Arc<Beat>,
) {
    let mut connections = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            guest = guests.recv() => {
                let Some(Guest { accepted, place, open }) = guest else { break };
                let (times, stage, handler) = (*times.borrow(), stage.clone(), handler.clone());
                connections.spawn(async move {
                    let _held = (place, open);
                    serve(accepted, times, stage, handler).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = sweep.tick() => {
                beat.beats(Instant::now());
                handler.sweep();
            }
        }
    }
    while connections.join_next().await.is_some() {}
    handler.close().await;
}

/// Waits until the stage is beyond this one.
pub async fn past(stage: &mut watch::Receiver<Stage>, this: Stage) {
    // A sender that is gone has nothing more to tell: that is the end.
    let _ = stage.wait_for(|now| *now > this).await;
}
