//! What would be sent? The very requests, of a client that notes them instead of sending them.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method};

use super::Cause;
use super::request::Ask;
use crate::envelope::Rope;
use crate::provider::Origin;

/// What a client notes that sends nothing.
#[derive(Clone, Debug, Default)]
pub struct Rehearsal(Arc<Mutex<Vec<Unsent>>>);

/// A request that was not sent.
#[derive(Debug)]
pub struct Unsent {
    /// How it is asked.
    pub method: Method,
    /// Where it would have gone. Of the built-in engine: `echo:`.
    pub url: String,
    /// Its headers. Those that hold secrets are marked so.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Rehearsal {
    /// What was noted so far.
    pub fn take(&self) -> Vec<Unsent> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why nothing was sent.
    pub(super) fn notes(&self, ask: &Ask<'_>, body: Rope) -> Cause {
        let unsent = match &ask.provider.origin {
            Origin::Echo => Unsent {
                method: ask.method.clone(),
                url: "echo:".into(),
                headers: HeaderMap::new(),
                body: body.to_vec(),
            },
            Origin::Site(site) => {
                let (head, body) = ask.over(site, site.http2, body).into_parts();
                Unsent {
                    method: head.method,
                    url: site.absolute(ask.endpoint).to_string(),
                    headers: head.headers,
                    body: body.to_vec(),
                }
            }
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(unsent);
        Cause::Rehearsed
    }
}
