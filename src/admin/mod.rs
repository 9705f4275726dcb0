//! The operator's window: its own listener, with health and metrics for whoever asks, and `/admin` for whoever may.
//!
//! Served by the control thread, never by one that serves clients: to write the metrics takes milliseconds.

mod api;
pub mod explain;
mod guard;
mod keys;
pub mod reload;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::sync::Semaphore;

use crate::admission::door::Stranger;
use crate::gateway::Gateway;
use crate::server::Handler;
use crate::telemetry::metrics;
use api::{Answer, Ask};
use guard::{Guard, Lock, Turned};
use reload::Reloads;

/// The longest body of an operator's, in bytes.
const LONGEST: usize = 64 << 10;

/// Where it is asked what would become of a request.
const EXPLAIN: &str = "/admin/explain";

/// How long it may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers operators.
#[derive(Clone)]
pub struct Window {
    gateway: Arc<Gateway>,
    guard: Arc<Guard>,
    reading: Arc<Semaphore>,
    reloads: Reloads,
}

impl Window {
    /// On a gateway, whose configuration is read again by whoever hears of it there.
    pub fn on(gateway: Arc<Gateway>, reloads: Reloads) -> Self {
        Self {
            gateway,
            guard: Arc::default(),
            reading: Arc::new(Semaphore::new(1)),
            reloads,
        }
    }

    /// Answers at `/admin` and below, if it may be asked.
    async fn answer(&self, lock: Lock, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        // To ask what would happen changes nothing.
        let is_question = head.uri.path() == EXPLAIN;
        let method = match is_question {
            true => &Method::GET,
            false => &head.method,
        };
        if let Err(turned) = self.guard.admit(lock, method, &head.headers) {
            return turned_away(&turned);
        }
        let ask = Ask::of(self, &head);
        if ask.method == Method::GET || body.is_end_stream() {
            return api::answer(ask, Bytes::new()).await;
        }
        // No page can send this type without asking first.
        if !is_json(&head.headers) {
            let message = "the body must be JSON, and say `content-type: application/json`";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Answer::refusal(status, "unsupported_media_type", message);
        }
        let longest = match is_question {
            true => explain::LONGEST,
            false => LONGEST,
        };
        match tokio::time::timeout(PATIENCE, Limited::new(body, longest).collect()).await {
            Ok(Ok(body)) => api::answer(ask, body.to_bytes()).await,
            Ok(Err(_)) => Answer::refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                &format!(
                    "the body is longer than {} KiB, or it broke off",
                    longest >> 10
                ),
            ),
            Err(_) => Answer::refusal(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "the body did not come within 10 seconds",
            ),
        }
    }
}

fn turned_away(turned: &Turned) -> Answer {
    let (status, code) = turned.kind();
    let mut answer = Answer::refusal(status, code, &turned.to_string());
    match turned {
        Turned::Unknown => {
            let bearer = HeaderValue::from_static("Bearer");
            answer.headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        Turned::Guessing { again } => {
            let seconds = HeaderValue::from(again.as_secs() + 1);
            answer.headers.insert(header::RETRY_AFTER, seconds);
        }
        Turned::Reachable | Turned::ReadOnly => {}
    }
    answer
}

fn is_json(headers: &HeaderMap) -> bool {
    let stated = headers.get(header::CONTENT_TYPE);
    let kind = stated.and_then(|stated| stated.as_bytes().split(|byte| *byte == b';').next());
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

impl Handler for Window {
    type Body = Full<Bytes>;

    async fn handle(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let plan = self.gateway.plan();
        let (version, uri) = (request.version(), request.uri());
        if let Err(stranger) = plan.admin_door.admit(version, uri, request.headers()) {
            let status = match stranger {
                Stranger::Hosts => StatusCode::BAD_REQUEST,
                Stranger::Host(_) | Stranger::Page(_) => StatusCode::FORBIDDEN,
            };
            return said(status, TEXT, format!("{stranger}\n"));
        }
        let path = uri.path();
        if path == "/admin" || path.starts_with("/admin/") {
            let lock = Lock {
                token: plan.admin_token,
                is_private: plan.admin_is_private,
            };
            // To take a large one apart is not for whoever asks.
            drop(plan);
            let answer = self.answer(lock, request).await;
            let mut response = Response::new(Full::new(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            return response;
        }
        let known = matches!(
            path,
            "/metrics" | "/health" | "/health/live" | "/health/ready"
        );
        if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
            return said(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".into());
        }
        match path {
            "/metrics" => {
                let gateway = Arc::clone(&self.gateway);
                match tokio::task::spawn_blocking(move || gateway.metrics()).await {
                    Ok(text) => said(StatusCode::OK, metrics::CONTENT_TYPE, text),
                    Err(_) => said(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        TEXT,
                        "no metrics\n".into(),
                    ),
                }
            }
            "/health" | "/health/live" => said(StatusCode::OK, TEXT, "ok\n".into()),
            "/health/ready" if self.gateway.draining.load(Ordering::Acquire) => {
                said(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n".into())
            }
            "/health/ready" => said(StatusCode::OK, TEXT, "ok\n".into()),
            _ => said(
                StatusCode::NOT_FOUND,
                TEXT,
                "see /metrics, /health/ready, /admin/usage, /admin/keys and /admin/explain\n"
                    .into(),
            ),
        }
    }
}

fn said(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
