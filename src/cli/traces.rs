//! Tells a collector of the requests that are over, on a thread of its own, which nobody waits for.
//!
//! What the collector does not take for now is kept and sent again after a pause, as OTLP has it; what there is no room for
//! meanwhile, and what it will never take, is lost and counted. Where it hangs, only this thread waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Failed;
use crate::plan::Traces;
use crate::telemetry::lines::Writer;
use crate::telemetry::metrics::{Metrics, Spans};
use crate::telemetry::otlp;
use crate::telemetry::trace::{MOST_WAITING, Told, Tracer};
use crate::upstream::Client;

/// So many requests are told together.
const BATCH: usize = 256;
/// The first of them waits no longer than this for the others.
const EVERY: Duration = Duration::from_secs(1);
/// How long a collector may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// The pause after a failure; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer, whatever the collector asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long it may take at the end of the process to tell what is left.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The thread that tells. To drop it is to have it tell what is left, and to wait for that.
pub(super) struct Telling {
    /// By when it must be over, once that is so.
    end: watch::Sender<Option<Instant>>,
    _writer: Writer<Told>,
}

impl Drop for Telling {
    fn drop(&mut self) {
        // Before its writer is told to stop: it may be waiting for a collector that hangs.
        self.end.send_replace(Some(Instant::now() + LAST_WORDS));
    }
}

/// Starts it, with what begins traces and leaves to it those that are over.
pub(super) fn start(
    traces: Option<&Arc<Traces>>,
    metrics: &Metrics,
) -> Result<Option<(Tracer, Telling)>, Failed> {
    let Some(to) = traces else {
        return Ok(None);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for traces")?;
    let (end, ending) = watch::channel(None);
    let spans = metrics.spans.clone();
    // There from the start: Prometheus sees no increase in what comes with its first count.
    spans.sent(0);
    spans.lost(0);
    let mut teller = Teller {
        runtime: Some(runtime),
        client: Client::default(),
        to: Arc::clone(to),
        spans,
        ending,
        waiting: VecDeque::new(),
        since: Instant::now(),
        failing: None,
    };
    let write = move |told| teller.takes(told);
    let writing = Writer::holding(MOST_WAITING, "traces", write);
    let (lines, writer) = writing.context("no thread for traces")?;
    let telling = Telling {
        end,
        _writer: writer,
    };
    Ok(Some((Tracer::new(lines, to.share), telling)))
}

/// What the thread has.
struct Teller {
    /// None only while it is dropped.
    runtime: Option<Runtime>,
    client: Client,
    to: Arc<Traces>,
    spans: Spans,
    ending: watch::Receiver<Option<Instant>>,
    waiting: VecDeque<Told>,
    /// When the first of them came.
    since: Instant,
    /// The last attempt came to nothing: when there may be another, and the pause before that.
    failing: Option<(Instant, Duration)>,
}

impl Drop for Teller {
    fn drop(&mut self) {
        // It does not wait for a name that is still being looked up.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a batch was not taken.
struct Untaken {
    why: String,
    again: Again,
}

/// Whether what was not taken may be taken later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Never,
    /// At the earliest after so long, if the collector says so.
    Later(Option<Duration>),
}

impl Teller {
    /// Takes what has come together, and tells it if it is time to. Called every few milliseconds.
    fn takes(&mut self, told: Vec<Told>) {
        let now = Instant::now();
        if self.waiting.is_empty() {
            self.since = now;
        }
        let room = MOST_WAITING.saturating_sub(self.waiting.len());
        let mut told = told.into_iter();
        self.waiting.extend(told.by_ref().take(room));
        self.lose(told);
        if self.is_time(now) {
            self.tell();
        }
    }

    fn is_time(&self, now: Instant) -> bool {
        let is_ending = self.ending.borrow().is_some();
        let may = self.failing.is_none_or(|(again, _)| again <= now);
        let is_full = self.waiting.len() >= BATCH;
        is_ending || (may && (is_full || now >= self.since + EVERY))
    }

    /// Tells all that waits, batch by batch, as long as the collector takes it.
    fn tell(&mut self) {
        while !self.waiting.is_empty() {
            let end = *self.ending.borrow();
            if end.is_some_and(|end| end <= Instant::now()) {
                let rest = std::mem::take(&mut self.waiting);
                return self.lose(rest.into_iter());
            }
            let count = BATCH.min(self.waiting.len());
            let batch = self.waiting.make_contiguous();
            let body = otlp::encode(batch.get(..count).unwrap_or_default(), &self.to.service);
            match self.send(body) {
                Ok(untaken) => {
                    let told = self.waiting.drain(..count);
                    let spans: u64 = told.map(|told| told.spans()).sum();
                    self.spans.sent(spans.saturating_sub(untaken));
                    self.spans.lost(untaken.min(spans));
                    if self.failing.take().is_some() {
                        tracing::info!("traces reach their collector again");
                    }
                }
                Err(untaken) => {
                    let pause = self.fails(&untaken);
                    // At the end each is told once: there is no time for a pause.
                    if untaken.again == Again::Never || end.is_some() {
                        let batch: Vec<Told> = self.waiting.drain(..count).collect();
                        self.lose(batch.into_iter());
                    } else {
                        self.failing = Some((Instant::now() + pause, pause));
                        return;
                    }
                }
            }
        }
    }

    /// Says once that it fails, and gives the pause after that.
    fn fails(&mut self, Untaken { why, again }: &Untaken) -> Duration {
        let collector = &self.to.at.absolute;
        let pause = match self.failing {
            Some((_, pause)) => (pause * 2).min(LONGEST_PAUSE),
            None => {
                tracing::warn!(%collector, why, "traces do not reach their collector; those that there is no room for are lost");
                PAUSE
            }
        };
        self.failing = Some((Instant::now(), pause));
        match again {
            Again::Later(Some(wait)) => (*wait).min(LONGEST_PAUSE),
            Again::Later(None) | Again::Never => pause,
        }
    }

    fn lose(&self, told: impl Iterator<Item = Told>) {
        let spans = told.map(|told| told.spans()).sum();
        if spans > 0 {
            self.spans.lost(spans);
        }
    }

    /// Sends a batch; gives how many spans of it were not taken all the same.
    fn send(&self, body: Vec<u8>) -> Result<u64, Untaken> {
        let lost = |why: &str| Untaken {
            why: why.to_owned(),
            again: Again::Later(None),
        };
        let Some(runtime) = &self.runtime else {
            return Err(lost("the process ends"));
        };
        let mut headers: HeaderMap = self.to.headers.iter().cloned().collect();
        let kind = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, kind);
        let ours = HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, ours);
        let (site, at) = (&self.to.site, &self.to.at);
        let post = self.client.post(site, at, (headers, body.into()), WITHIN);
        let mut ending = self.ending.clone();
        let ended = async move {
            let end = ending.wait_for(Option::is_some).await.map(|end| *end);
            // Whoever would say so may be gone.
            if let Ok(Some(end)) = end {
                sleep_until(end).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                answer = post => match answer {
                    Ok(answer) => taken(&answer),
                    Err(cause) => Err(lost(&cause.to_string())),
                },
                () = ended => Err(lost("the process ends")),
            }
        })
    }
}

/// What an answer means: <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>.
fn taken(answer: &Response<Bytes>) -> Result<u64, Untaken> {
    let status = answer.status();
    if status.is_success() {
        let Some((count, why)) = otlp::rejected(answer.body()) else {
            return Ok(0);
        };
        tracing::debug!(count, why, "the collector did not take some spans");
        return Ok(count);
    }
    let is_for_now = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let wait = || {
        let stated = answer.headers().get(header::RETRY_AFTER)?;
        let seconds = stated.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    };
    Err(Untaken {
        why: format!("it answered {status}"),
        again: match is_for_now {
            true => Again::Later(wait()),
            false => Again::Never,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, wait: Option<&'static str>) -> Response<Bytes> {
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        let wait = wait.map(HeaderValue::from_static);
        answer
            .headers_mut()
            .extend(wait.map(|it| (header::RETRY_AFTER, it)));
        answer
    }

    #[test]
    fn what_may_be_taken_later_is_told_from_what_never_will() {
        let later = |status, wait| taken(&answer(status, wait)).map_err(|it| it.again);
        assert_eq!(later(200, None), Ok(0));
        assert_eq!(later(202, None), Ok(0));
        for status in [429, 502, 503, 504] {
            assert_eq!(later(status, None), Err(Again::Later(None)), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 413, 415, 500] {
            assert_eq!(later(status, Some("1")), Err(Again::Never), "{status}");
        }
        let seven = Again::Later(Some(Duration::from_secs(7)));
        assert_eq!(later(503, Some("7")), Err(seven));
        assert_eq!(later(503, Some("soon")), Err(Again::Later(None)));
    }
}
