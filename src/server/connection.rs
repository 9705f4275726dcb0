//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::quiet::Quiet;
use super::socket::{Busy, Pulse, Socket, Watch};
use super::{Handler, Stage, Times};

/// The longest head of a request, in bytes; 431 above it.
const MAX_HEAD: usize = 64 << 10;

/// Serves requests until either side has had enough. Dropping what this gives cancels whatever is under way.
pub async fn serve<H: Handler>(
    stream: TcpStream,
    times: Times,
    mut stage: watch::Receiver<Stage>,
    handler: H,
) {
    // Without it the second of two small writes waits for an acknowledgement; a stream is small writes.
    let _ = stream.set_nodelay(true);
    let pulse = Pulse::new(Instant::now());
    let (socket, watch) = Socket::new(stream, pulse.clone());
    let requests = pulse.clone();
    let service = service_fn(move |request| {
        let busy = requests.busy();
        let handler = handler.clone();
        async move {
            let answer = handler.handle(request).await;
            Ok::<_, Infallible>(answer.map(|body| Tracked { body, _busy: busy }))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .serve_connection(TokioIo::new(socket), service)
    );
    match *stage.borrow_and_update() {
        Stage::Open => {}
        Stage::Draining | Stage::Closing => connection.as_mut().graceful_shutdown(),
        Stage::Ended => return,
    }
    loop {
        let verdict = {
            let mut warden = pin!(Quiet::new(warden(&watch, &pulse, times, &mut stage)));
            tokio::select! {
                biased;
                // A connection that breaks is ordinary, and the record of its request tells.
                _ = connection.as_mut() => return,
                verdict = warden.as_mut() => verdict,
            }
        };
        match verdict {
            Verdict::Drain => connection.as_mut().graceful_shutdown(),
            // The next turn polls the answer under way, and it sees that time is up.
            Verdict::Close => {}
            Verdict::End => return,
        }
    }
}

/// What is to be done with a connection.
enum Verdict {
    /// Finish what is under way, and close.
    Drain,
    /// End what is under way with an error.
    Close,
    /// Close.
    End,
}

/// Watches over a connection: has the client gone, does it take too long, are we to stop?
async fn warden(
    watch: &Watch,
    pulse: &Pulse,
    times: Times,
    stage: &mut watch::Receiver<Stage>,
) -> Verdict {
    let mut closed = pin!(watch.closed());
    let mut timer = pin!(sleep_until(Instant::now()));
    loop {
        tokio::select! {
            () = closed.as_mut() => return Verdict::End,
            () = timer.as_mut() => match pulse.check(times, Instant::now()) {
                Some(next) => timer.as_mut().reset(next),
                None => return Verdict::End,
            },
            changed = stage.changed() => match (changed, *stage.borrow_and_update()) {
                (Ok(()), Stage::Open) => {}
                (Ok(()), Stage::Draining) => return Verdict::Drain,
                (Ok(()), Stage::Closing) => return Verdict::Close,
                (Ok(()), Stage::Ended) | (Err(_), _) => return Verdict::End,
            },
        }
    }
}

/// A body, and the knowledge that a request is under way until it ends.
struct Tracked<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
