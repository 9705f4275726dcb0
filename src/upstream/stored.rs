//! What does a provider store of what it answered? Asked once, and read whole: there is nothing to be streamed, tried again or
//! billed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tokio::time::Instant;

use super::attempt::{self, Exhausted};
use super::request::Ask;
use super::{Cause, Client, Exchange, Inflow, Span, judge};
use crate::envelope::Rope;
use crate::protocol::Endpoint;
use crate::provider::Provider;
use crate::telemetry::trace::Onward;

/// How long it may take.
const WITHIN: Duration = Duration::from_secs(60);

/// The longest that is passed on, in bytes: pictures are in it, too.
const LONGEST: u64 = 16 << 20;

/// What is asked of whoever stores a response.
pub struct StoredCall<'c> {
    /// Who stores it.
    pub provider: &'c Arc<Provider>,
    /// How it is asked.
    pub method: Method,
    /// Where it lies, behind `/responses`, with its query.
    pub below: String,
    /// The client's headers, of which some are passed on.
    pub headers: &'c HeaderMap,
    /// What it says of the trace in their place.
    pub onward: Option<Onward>,
    /// The id of the request.
    pub id: HeaderValue,
    /// When it came.
    pub began: Instant,
    /// Says what time it is by the calendar.
    pub wall: &'c (dyn Fn() -> SystemTime + Send + Sync),
}

/// An answer of which the head has come.
pub struct Coming {
    provider: Arc<str>,
    status: StatusCode,
    headers: HeaderMap,
    inflow: Inflow,
    most: u64,
}

impl Client {
    /// Asks for what a provider stores.
    pub async fn stored(&self, call: StoredCall<'_>) -> Result<Coming, Exhausted> {
        let provider = call.provider;
        let name = &provider.name;
        let below = provider.origin.below(Endpoint::Responses, &call.below);
        let nowhere = || Cause::Nonsense("it has no responses");
        let below = below.ok_or_else(|| failed(name, nowhere()))?;
        let ask = Ask {
            provider,
            method: call.method,
            endpoint: Endpoint::Response,
            below: Some(&below),
            times: provider.timeouts,
            given: call.headers,
            onward: call.onward,
            id: Some(call.id),
        };
        let span = Span {
            began: call.began,
            deadline: call.began + WITHIN,
        };
        let exchange = self.carry(ask, Rope::default(), span, None).await;
        let exchange = exchange.map_err(|cause| failed(name, cause))?;
        if !exchange.status.is_success() {
            let judged = judge::error(provider, exchange, (call.wall)()).await;
            return Err(Exhausted(vec![judged.failure(name)]));
        }
        let Exchange {
            status,
            headers,
            inflow,
        } = exchange;
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Coming {
            provider: Arc::clone(name),
            status,
            headers,
            inflow,
            most: length.unwrap_or(LONGEST),
        })
    }
}

impl Coming {
    /// How long it is at most, in bytes.
    pub fn most(&self) -> u64 {
        self.most.min(LONGEST)
    }

    /// Reads it to its end.
    pub async fn whole(self) -> Result<Response<Bytes>, Exhausted> {
        const TOO_LONG: Cause = Cause::Nonsense("what it stores is longer than 16 MiB");
        let most = self.most();
        let whole = match self.inflow.whole(most).await {
            Ok(whole) => whole.ok_or(TOO_LONG),
            Err(broken) => Err(broken.into()),
        };
        let whole = whole.map_err(|cause| failed(&self.provider, cause))?;
        let mut response = Response::new(whole);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        Ok(response)
    }
}

fn failed(provider: &Arc<str>, cause: Cause) -> Exhausted {
    Exhausted(vec![attempt::failed(provider, false, cause)])
}
