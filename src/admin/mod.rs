//! The operator's window: its own listener, with health and metrics.
//!
//! Served by the control thread, never by one that serves clients: to write the metrics takes milliseconds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::admission::door::Stranger;
use crate::gateway::Gateway;
use crate::server::Handler;
use crate::telemetry::metrics;

/// Answers operators.
#[derive(Clone)]
pub struct Window {
    gateway: Arc<Gateway>,
}

impl Window {
    /// On a gateway.
    pub fn on(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }
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
                "see /metrics and /health/ready\n".into(),
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
