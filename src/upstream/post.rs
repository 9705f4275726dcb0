//! What is told to a server that is no provider: one request, over a connection of its own, and a short answer.
//!
//! There is one every second at most: it is not worth keeping a connection that may have been closed when it is needed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use tokio::time::Instant;

use super::clock::{Clocks, Phase};
use super::link::Unsent;
use super::{Cause, Client, Inflow, request, within};
use crate::envelope::Rope;
use crate::provider::site::Below;
use crate::provider::{Site, Timeouts};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 64 << 10;

impl Client {
    /// Posts this to a site, with these headers, and reads the answer, all within so long.
    pub async fn post(
        &self,
        site: &Site,
        at: &Below,
        (mut headers, body): (http::HeaderMap, Bytes),
        most: Duration,
    ) -> Result<Response<Bytes>, Cause> {
        const TOO_LONG: Cause = Cause::Nonsense("its answer is longer than 64 KiB");
        let times = Timeouts {
            connect: most,
            first_byte: most,
            first_content: most,
            idle: most,
            total: most,
        };
        let began = Instant::now();
        let mut clocks = Clocks::start(times, began + most, Phase::Connecting, None, began);
        let connecting = Box::pin(self.connector.connect(site, began));
        let mut link = within(&mut clocks, connecting).await?;
        clocks.enter(Phase::Waiting, Instant::now());
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::HOST, site.authority.clone());
        if let Some(authorization) = site.credential_of_proxy() {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        let head = |_, body| {
            let mut request = Request::new(body);
            *request.method_mut() = Method::POST;
            *request.uri_mut() = at.uri.clone();
            *request.headers_mut() = headers;
            request
        };
        let sent = link.send(head, Rope::from(body), &mut clocks).await;
        let (head, body) = match sent {
            Ok(response) => response.into_parts(),
            Err(Unsent::Whole(_, cause) | Unsent::Lost(cause)) => return Err(cause),
        };
        request::refused_by_proxy(site, head.status)?;
        let shelf = self.pool.shelf(site);
        let inflow = Inflow::link(body, link, shelf, clocks);
        let whole = inflow.whole(LONGEST).await?.ok_or(TOO_LONG)?;
        Ok(Response::from_parts(head, whole))
    }
}
