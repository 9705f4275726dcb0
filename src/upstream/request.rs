//! The head of a request, as a provider gets it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};

use super::{Cause, tunnel};
use crate::envelope::Rope;
use crate::protocol::{Endpoint, Form};
use crate::provider::{Below, Provider, Site, Timeouts};
use crate::telemetry::trace::Onward;

/// Where the id of a request goes: the client's own, or else ours.
const CLIENT_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// All of a request but its body.
pub(super) struct Ask<'a> {
    pub(super) provider: &'a Provider,
    pub(super) method: Method,
    pub(super) endpoint: Endpoint,
    /// Where it lies below that of the endpoint. None: it lies there.
    pub(super) below: Option<&'a Below>,
    /// The clocks of the try.
    pub(super) times: Timeouts,
    /// The client's headers, of which some are passed on.
    pub(super) given: &'a HeaderMap,
    /// What it says of the trace in their place.
    pub(super) onward: Option<Onward>,
    /// Its id, if it was asked for by a client.
    pub(super) id: Option<HeaderValue>,
}

impl Ask<'_> {
    /// The request, in the form that fits what it goes over: a connection of its own, or a share of one.
    pub(super) fn over(&self, site: &Site, is_shared: bool, body: Rope) -> Request<Rope> {
        let provider = self.provider;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = HeaderMap::with_capacity(12);
        let headers = request.headers_mut();
        if !is_shared {
            headers.insert(header::HOST, site.authority.clone());
        }
        // HTTP/2 has the host in the URI.
        let uri = match (self.below, is_shared) {
            (None, true) => site.absolute(self.endpoint),
            (None, false) => site.uri(self.endpoint),
            (Some(below), true) => &below.absolute,
            (Some(below), false) => &below.uri,
        };
        if let Some(authorization) = site.credential_of_proxy() {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        // A form has its boundary there.
        let stated = match self.endpoint.form() {
            Form::Json | Form::Nothing => None,
            Form::Data | Form::Both => self.given.get(header::CONTENT_TYPE),
        };
        let json = || HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, stated.cloned().unwrap_or_else(json));
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if !provider.forward.contains(&header::USER_AGENT) {
            let ours = HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
            headers.insert(header::USER_AGENT, ours);
        }
        for (name, value) in self.given {
            if is_forwarded(name) || provider.forward.contains(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Some(onward) = &self.onward {
            onward.write(headers);
        }
        for (name, value) in &provider.headers {
            headers.insert(name.clone(), value.clone());
        }
        // Last, so that nothing takes its place.
        if let Some((name, value)) = &provider.credential {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(id) = &self.id {
            headers.insert(CLIENT_ID, id.clone());
        }
        *request.uri_mut() = uri.clone();
        request
    }
}

/// A proxy that wants other credentials of us is no answer of the provider's.
pub(super) fn refused_by_proxy(site: &Site, status: StatusCode) -> Result<(), Cause> {
    let is_read = site.via.as_ref().is_some_and(|via| !via.tunnels);
    if is_read && status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Err(Cause::Connect(tunnel::refusal(status)));
    }
    Ok(())
}

/// The client's headers that every provider is sent.
fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "accept" | "idempotency-key" | "openai-beta" | "traceparent" | "tracestate"
    ) || name.starts_with("anthropic-")
}
