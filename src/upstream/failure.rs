//! What went wrong with a try? Where, why, whose fault, and what could still help.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{Broken, Clock};
use crate::admission::limits::Limited;
use crate::provider::errors::{Fault, Retry};
use crate::provider::unfit::Unfit;
use crate::route::health::Blame;
use crate::route::{Resting, Target, Why};
use crate::telemetry::Outcome;

/// A try that came to nothing: where, why, whose fault, and what could still help.
#[derive(Debug)]
pub struct Failure {
    /// `provider/model`.
    pub target: Arc<str>,
    /// Why.
    pub cause: Cause,
    /// Whose fault.
    pub fault: Fault,
    /// What could still help.
    pub retry: Retry,
    /// How long the provider asks to wait.
    pub wait: Option<Duration>,
}

/// Why a try came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A clock ran out.
    #[error("the {0} clock ran out")]
    Clock(Clock),
    /// No connection.
    #[error("could not connect: {0}")]
    Connect(#[source] io::Error),
    /// An answer that is none.
    #[error("answered nonsense: {0}")]
    Nonsense(&'static str),
    /// One of its rules refuses the request.
    #[error("{0}")]
    Refused(#[source] crate::provider::rules::Refused),
    /// The connection broke before there was an answer, or in its middle.
    #[error("broke off")]
    Reset(#[source] hyper::Error),
    /// A kept connection was closed while the request was on its way: nobody can say whether it arrived.
    #[error("closed a connection that was kept, with the request on its way")]
    Stale(#[source] hyper::Error),
    /// It does not fit into a budget.
    #[error("was not asked: {0}")]
    Budget(#[source] crate::ledger::Refused),
    /// It is at a limit of its own.
    #[error("was not asked: {0}")]
    Limited(#[source] Limited),
    /// It loads its model, for another request.
    #[error("was not asked: it loads its model for another request")]
    Loading,
    /// It rests after failures, or at its own word.
    #[error("was not asked: it {0}")]
    Resting(#[source] Resting),
    /// Too many requests for its model are being tried again.
    #[error("was the last to be asked: too many requests for this model are being tried again")]
    Spent,
    /// It gave the request back without having looked at it, as one does who has too much to do.
    #[error("refused the request unread")]
    Shed,
    /// An error of the provider's.
    #[error("answered {0}")]
    Status(Box<Said>),
    /// Its context is shorter than the prompt, in tokens.
    #[error("was not asked: the request is longer than its context of {0} tokens")]
    TooLong(u64),
    /// Nobody is asked: it is only to be seen what would be.
    #[error("would be asked")]
    Rehearsed,
    /// It has no price, and the caller has a budget.
    #[error("was not asked: it has no price, or the request points at what cannot be measured")]
    Unpriced,
}

/// A provider's error.
#[derive(Debug)]
pub struct Said {
    /// Its status: what it means, whatever it came as.
    pub status: StatusCode,
    /// The status it came with: a success where the error was in the clothes of an answer.
    pub came_as: StatusCode,
    /// Its headers, as they came, but true of the body.
    pub headers: HeaderMap,
    /// What a client may be told; none if there is nothing that would help it.
    pub body: Option<Bytes>,
    /// Another model may take the request all the same.
    pub unfit: Option<Unfit>,
    /// There is nothing where it was asked, for whatever model.
    pub lacks_endpoint: bool,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.as_str())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " {reason}")?;
        }
        if self.status != self.came_as {
            write!(f, ", as an error under status {}", self.came_as.as_str())?;
        }
        Ok(())
    }
}

/// How long to wait for a model that is being loaded: nobody knows.
const LOADS: Duration = Duration::from_secs(1);

impl Failure {
    /// Of a target that was passed over.
    pub(super) fn unasked(target: &Target, cause: Cause) -> Self {
        let wait = match &cause {
            Cause::Limited(limited) => Some(limited.wait),
            Cause::Resting(resting) => Some(resting.wait),
            Cause::Loading => Some(LOADS),
            _ => None,
        };
        Self {
            target: Arc::clone(&target.name),
            cause,
            fault: Fault::Provider,
            retry: Retry::Elsewhere,
            wait,
        }
    }

    /// The target had too much to do; later it may answer.
    pub fn is_busy(&self) -> bool {
        self.outcome() == Outcome::RateLimited
    }

    /// Whether there is nothing where it was asked, for whatever model.
    pub(super) fn lacks_endpoint(&self) -> bool {
        matches!(&self.cause, Cause::Status(said) if said.lacks_endpoint)
    }

    /// Whose fault it is, as far as the target's health goes.
    pub(super) fn blame(&self) -> Blame {
        match (&self.cause, self.fault) {
            (Cause::Connect(_) | Cause::Clock(Clock::Connect), _) => Blame::Endpoint,
            // Its client waited for less long than the route would have, or others had taken the time.
            (Cause::Clock(Clock::Deadline), Fault::Client) => Blame::Nobody,
            (Cause::Clock(_) | Cause::Nonsense(_) | Cause::Reset(_), _) => Blame::Model,
            // What it was asked for it does not do; all else it may do well.
            _ if self.lacks_endpoint() => Blame::Request,
            (Cause::Status(_), Fault::Credentials) => Blame::Key,
            (Cause::Status(_), Fault::Provider) => Blame::Model,
            (Cause::Status(said), Fault::Client) if said.status == StatusCode::NOT_FOUND => {
                Blame::Model
            }
            (Cause::Status(_), Fault::Busy) => match (self.wait, self.retry) {
                (Some(wait), _) => Blame::Busy(wait),
                // A quota that is used up.
                (None, Retry::Elsewhere) => Blame::Model,
                (None, _) => Blame::Request,
            },
            (Cause::Status(_), Fault::Client) => Blame::Request,
            _ => Blame::Nobody,
        }
    }

    /// It has no time yet, as one says that loads its model: llama.cpp, vLLM and others answer 503 meanwhile.
    pub(super) fn is_unready(&self) -> bool {
        match &self.cause {
            Cause::Status(said) => said.status == StatusCode::SERVICE_UNAVAILABLE,
            Cause::Connect(_) => true,
            _ => false,
        }
    }

    /// It says by this that it has too much to do.
    pub(super) fn is_overload(&self) -> bool {
        let is_late = matches!(
            self.cause,
            Cause::Clock(Clock::FirstByte | Clock::FirstContent) | Cause::Shed
        );
        let is_unready = matches!(self.cause, Cause::Status(_)) && self.is_unready();
        is_late || is_unready || self.fault == Fault::Busy
    }

    /// Why another model may take the request, if one may.
    pub fn unfit(&self) -> Option<Unfit> {
        match &self.cause {
            Cause::Status(said) => said.unfit,
            Cause::TooLong(_) => Some(Unfit::TooLong),
            _ => None,
        }
    }

    /// What is counted.
    pub fn outcome(&self) -> Outcome {
        match (&self.cause, self.fault) {
            // Nothing was sent.
            (
                Cause::Budget(_)
                | Cause::TooLong(_)
                | Cause::Unpriced
                | Cause::Spent
                | Cause::Rehearsed,
                _,
            ) => Outcome::Cancelled,
            (Cause::Clock(_), _) => Outcome::Timeout,
            (Cause::Connect(_), _) => Outcome::Connect,
            (Cause::Nonsense(_), _) => Outcome::Nonsense,
            (Cause::Reset(_) | Cause::Stale(_), _) => Outcome::Reset,
            (Cause::Refused(_), _) | (Cause::Status(_), Fault::Client) => Outcome::ClientFault,
            (Cause::Resting(resting), _) if resting.why == Why::Failing => Outcome::Cancelled,
            (Cause::Limited(_) | Cause::Loading | Cause::Resting(_) | Cause::Shed, _)
            | (Cause::Status(_), Fault::Busy) => Outcome::RateLimited,
            (Cause::Status(_), Fault::Credentials) => Outcome::Credentials,
            (Cause::Status(_), Fault::Provider) => Outcome::ProviderFault,
        }
    }
}

impl From<Broken> for Cause {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Clock(clock) => Self::Clock(clock),
            Broken::Cut(error) => Self::Reset(error),
        }
    }
}
