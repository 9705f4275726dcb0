//! What is known of a request by its head alone: what was called, and what is told of it from the start.

use http::Request;
use tokio::time::Instant;

use super::LOGGED;
use crate::gateway::Gateway;
use crate::protocol::{Endpoint, NoEndpoint};
use crate::telemetry::trace::Called;
use crate::telemetry::{Record, RequestId};

/// What is known of a request by its head alone.
pub(super) struct Opened {
    pub(super) endpoint: Result<Endpoint, NoEndpoint>,
    pub(super) record: Box<Record>,
}

impl Opened {
    pub(super) fn by<B>(gateway: &Gateway, request: &Request<B>) -> Self {
        let endpoint = Endpoint::of(request.method(), request.uri().path());
        let api = endpoint.map_or("unknown", Endpoint::name);
        let mut record = gateway.state.telemetry.begin(Instant::now(), api);
        let client_id = request.headers().get(RequestId::NAME);
        // Whoever only looks whether there is a gateway looks often.
        if !matches!(endpoint, Ok(Endpoint::Live | Endpoint::Ready)) {
            let called = |endpoint: Endpoint| Called {
                route: endpoint.route(),
                is_model: endpoint.number().is_some(),
            };
            let called = || endpoint.ok().map(called);
            record.is_traced(request.method(), request.headers(), called);
        }
        record.client_id = client_id.filter(|id| id.len() <= LOGGED).cloned();
        Self { endpoint, record }
    }
}
