//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::answer::Tracked;
use super::listen::Accepted;
use super::pulse::{Overdue, Pulse};
use super::quiet::Quiet;
use super::socket::{Socket, Spoken, Watch};
use super::streams::{Spawner, Streams};
use super::tls::{Io, Tls};
use super::{Handler, Stage, Times};

/// The longest head of a request, in bytes; 431 above it.
const MAX_HEAD: u32 = 64 << 10;

/// The most that is read from a client at once and not yet looked at, in bytes.
const MAX_BUFFER: usize = 2 * MAX_HEAD as usize;

/// The requests that one connection of HTTP/2 may have under way.
const MOST_STREAMS: u32 = 250;

/// A client of HTTP/2 that is silent is asked this often whether it is still there, and has as long to say so.
const PING: Duration = Duration::from_secs(20);

/// How long a client that we leave because it asked nothing may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves requests until either side has had enough. Dropping what this gives cancels whatever is under way.
pub async fn serve<H: Handler>(
    Accepted { stream, tls }: Accepted,
    times: Times,
    mut stage: watch::Receiver<Stage>,
    handler: H,
) {
    let pulse = Pulse::new(Instant::now());
    // A connection that is gone before it began is ordinary.
    let Ok((socket, watch)) = Socket::new(stream, Arc::clone(&pulse)) else {
        return;
    };
    let mut guard = Guard {
        watch,
        pulse,
        times,
        stage: &mut stage,
        replaced: None,
    };
    let (io, spoken) = match guard.opening(socket, tls.as_ref()).await {
        Some(Ok(opened)) => opened,
        Some(Err(error)) if tls.is_some() => {
            return tracing::debug!(%error, "a client did not shake hands");
        }
        Some(Err(_)) | None => return,
    };
    let requests = Arc::clone(&guard.pulse);
    let replaced = tls.as_ref().map(Tls::replaced);
    if spoken == Spoken::Http2 {
        guard.replaced.clone_from(&replaced);
    }
    let service = service_fn(move |request| {
        let is_last = || replaced.as_ref().is_some_and(|it| *it.borrow());
        let closes = request.version() <= Version::HTTP_11 && (is_chunked(&request) || is_last());
        let busy = requests.busy();
        let answering = handler.clone().handle(request);
        async move {
            let mut answer = answering.await;
            if closes {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(answer.map(|body| Tracked::new(body, busy)))
        }
    });
    let io = TokioIo::new(io);
    match spoken {
        Spoken::Http1 => {
            let mut http1 = http1::Builder::new();
            http1
                .max_header_size(MAX_HEAD as usize)
                .max_buf_size(MAX_BUFFER);
            guard.over(http1.serve_connection(io, service)).await;
        }
        Spoken::Http2 => {
            guard.pulse.share();
            let streams = Streams::default();
            let spawner = streams.spawner(Arc::clone(&guard.pulse));
            let mut http2 = http2::Builder::new(spawner);
            http2
                .timer(TokioTimer::new())
                .max_concurrent_streams(MOST_STREAMS)
                .max_header_list_size(MAX_HEAD)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING);
            // Twice as long as a conversation of HTTP/1.1, whose task should not have room for it.
            Box::pin(guard.over(http2.serve_connection(io, service))).await;
        }
    }
}

/// Whether a body of HTTP/1.1 came in chunks. It may have come with a `Content-Length` as well, which hyper does not show, and whoever
/// stands before us may have believed that one: to them what follows on the connection may be part of the body. So it is
/// closed after the answer (RFC 9112, 6.3).
fn is_chunked(request: &Request<Incoming>) -> bool {
    request.body().size_hint().exact().is_none()
}

/// A conversation, whichever protocol it is in.
trait Conversation: Future {
    /// Ends it after what is under way.
    fn finish(self: Pin<&mut Self>);
}

impl<S> Conversation for http1::Connection<TokioIo<Io>, S>
where
    S: HttpService<
            Incoming,
            ResBody: Body<Error: std::error::Error + Send + Sync + 'static> + 'static,
        >,
    S::Error: std::error::Error + Send + Sync + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Conversation for http2::Connection<TokioIo<Io>, S, Spawner>
where
    S: HttpService<
            Incoming,
            Future: Send + 'static,
            ResBody: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static>
                         + Send
                         + 'static,
        >,
    S::Error: std::error::Error + Send + Sync + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Watches over a connection: has the client gone, does it take too long, are we to stop?
struct Guard<'g> {
    watch: Watch,
    pulse: Arc<Pulse>,
    times: Times,
    stage: &'g mut watch::Receiver<Stage>,
    /// Whether the connection should end since others prove another way who we are. In HTTP/1.1 its last answer says so.
    replaced: Option<watch::Receiver<bool>>,
}

impl Guard<'_> {
    /// Waits for what the client speaks. None if it says nothing for too long, or we stop.
    async fn opening(
        &mut self,
        mut socket: Socket,
        tls: Option<&Tls>,
    ) -> Option<std::io::Result<(Io, Spoken)>> {
        if *self.stage.borrow_and_update() != Stage::Open {
            return None;
        }
        let opening = async {
            match tls {
                // Whoever needs no handshake should not have to carry one.
                Some(tls) => Box::pin(tls.accept(socket)).await,
                None => {
                    let spoken = socket.opening().await?;
                    Ok((Io::Left(socket), spoken))
                }
            }
        };
        tokio::select! {
            biased;
            opened = opening => Some(opened),
            _ = self.verdict() => None,
        }
    }

    /// Lets a conversation go on until it ends, or has to.
    async fn over(&mut self, conversation: impl Conversation) {
        let mut conversation = pin!(conversation);
        loop {
            let verdict = {
                let mut verdict = pin!(Quiet::new(self.verdict()));
                tokio::select! {
                    biased;
                    // A connection that breaks is ordinary, and the record of its request tells.
                    _ = conversation.as_mut() => return,
                    verdict = verdict.as_mut() => verdict,
                }
            };
            match verdict {
                Verdict::Finish => {
                    conversation.as_mut().finish();
                    // From here on a client that asks nothing is left, one that sleeps as well.
                    self.times.idle = self.times.idle.min(FAREWELL);
                    // Should time be up, an answer under way sees it when polled: in HTTP/1.1 with the next turn.
                    self.pulse.wake();
                }
                // A client of HTTP/2 is told which of its requests will not be answered, should one be on its way.
                Verdict::Leave => {
                    conversation.as_mut().finish();
                    let said = timeout(FAREWELL, conversation.as_mut()).await;
                    if said.is_ok() || !self.pulse.is_busy() {
                        return;
                    }
                }
                Verdict::End => return,
            }
        }
    }

    async fn verdict(&mut self) -> Verdict {
        let mut closed = pin!(self.watch.closed());
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            tokio::select! {
                () = closed.as_mut() => return Verdict::End,
                () = timer.as_mut() => match self.pulse.check(self.times, Instant::now()) {
                    Ok(next) => timer.as_mut().reset(next),
                    Err(Overdue::Idle) => return Verdict::Leave,
                    Err(Overdue::Stuck) => return Verdict::End,
                },
                changed = self.stage.changed() => match (changed, *self.stage.borrow_and_update()) {
                    (Ok(()), Stage::Open) => {}
                    (Ok(()), Stage::Draining | Stage::Closing) => return Verdict::Finish,
                    (Ok(()), Stage::Ended) | (Err(_), _) => return Verdict::End,
                },
                () = is_over(&mut self.replaced) => return Verdict::Finish,
            }
        }
    }
}

/// Ends once, when the connection should.
async fn is_over(replaced: &mut Option<watch::Receiver<bool>>) {
    let Some(receiver) = replaced else {
        return std::future::pending().await;
    };
    // It is there for as long as the connection is.
    let _ = receiver.wait_for(|is| *is).await;
    *replaced = None;
}

/// What is to be done with a connection.
enum Verdict {
    /// Finish what is under way, which knows whether it may take its time, and close.
    Finish,
    /// Close, since nothing is under way.
    Leave,
    /// Close.
    End,
}
