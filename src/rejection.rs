//! Why we said no: the only errors a client ever hears from us.
//!
//! Joins the rooms' own errors and knows their statuses and codes; `protocol` writes the bodies.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::admission::door::Stranger;
use crate::admission::guesses::TooMany;
use crate::admission::limits::{self, Limited};
use crate::admission::{Crowded, Full, UnknownKey};
use crate::envelope::{Malformed, Unread};
use crate::ledger::Refused;
use crate::protocol::demand::Boundless;
use crate::protocol::{Complaint, Kind, NoEndpoint};
use crate::provider::errors::Fault;
use crate::provider::unfit::Unfit;
use crate::route::Why;
use crate::upstream::attempt::Exhausted;
use crate::upstream::{Cause, Clock, Failure, Said};

/// The longest wait that the usual clients heed.
const HEEDED: Duration = Duration::from_secs(60);

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The request has a header we act on that is not what it must be.
    #[error("the header `{0}` {1}")]
    BadHeader(&'static str, &'static str),
    /// The body has a member we act on that is not what it must be.
    #[error("`{0}` {1}")]
    BadMember(&'static str, &'static str),
    /// Its body cannot be read in one way only.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The body is encoded.
    #[error("the request's body has the content-encoding `{0}`; send it as it is")]
    Encoded(Box<str>),
    /// The bodies under way take all the memory there is for them.
    #[error(transparent)]
    Crowded(#[from] Crowded),
    /// Its caller is at a limit.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// Its `Idempotency-Key` is that of another request.
    #[error(
        "this `Idempotency-Key` was sent with another request before; a retry has the same body, and whatever is new a key of its own"
    )]
    KeyReused,
    /// The caller may not use this model.
    #[error("this key may not use the model `{0}`")]
    ModelNotAllowed(Box<str>),
    /// The request has no bound, or may not have one, and its caller has a budget.
    #[error(transparent)]
    Boundless(#[from] Boundless),
    /// It may cost more than is left, or nobody can say what is left.
    #[error(transparent)]
    Budget(#[from] Refused),
    /// The model is for something else.
    #[error("the model `{model}` is of the kind {}: ask it at {}", .kind.name(), .kind.paths())]
    WrongKind {
        /// As it was asked for.
        model: Box<str>,
        /// What it is for.
        kind: Kind,
    },
    /// Nobody here goes by this name.
    #[error("there is no model `{0}`; GET /v1/models lists those there are")]
    ModelNotFound(Box<str>),
    /// What it goes on from is not known to be its caller's. `OpenAI`'s code.
    #[error("there is no response `{0}` of this key or its team")]
    NoPrevious(Box<str>),
    /// What it goes on from is kept where its model is not.
    #[error(
        "the response that this goes on from was made by the model `{maker}`, and `{model}` has no target at the provider that keeps it: go on with `{maker}`, or send what was said in `input`"
    )]
    KeptElsewhere {
        /// That is asked for.
        model: Box<str>,
        /// That was asked for then.
        maker: Box<str>,
    },
    /// Nobody keeps such a response for who asks.
    #[error("there is no response `{0}` of this key or its team")]
    ResponseNotFound(Box<str>),
    /// Nobody speaks with that voice.
    #[error("the voice `{0}` does not exist, or none of your models has it; see /v1/audio/voices")]
    VoiceNotFound(Box<str>),
    /// There is nothing at this path.
    #[error(transparent)]
    NoEndpoint(#[from] NoEndpoint),
    /// A model is configured, and none of its targets can be asked.
    #[error("no target of `{model}` is available{why}")]
    NoTarget {
        /// As it was asked for.
        model: Box<str>,
        /// What is missing.
        why: String,
    },
    /// The body does not say that it is JSON.
    #[error("the request must be {0}; it says {1}")]
    WrongType(&'static str, Box<str>),
    /// Too much is under way.
    #[error(transparent)]
    Overloaded(#[from] Full),
    /// The provider's own words, for a fault of the client's.
    #[error("the provider answered {0}, and its reason could not be passed on")]
    Provider(Box<Said>),
    /// No target accepts a member of the request.
    #[error("`{0}` is not accepted by any target of this model")]
    RefusedMember(Box<str>),
    /// Every target failed before, and rests.
    #[error("no target is asked at the moment: {0}")]
    Resting(String, Option<Duration>),
    /// Every try was told to come back later.
    #[error("every target is at its rate limit: {0}")]
    RateLimited(String, Option<Duration>),
    /// We are about to stop.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// The request came by a name that is not ours, or from a web page.
    #[error(transparent)]
    Stranger(#[from] Stranger),
    /// Too many wrong keys were shown of late.
    #[error("too many keys that are not valid were shown; try again in a moment")]
    Guessing(TooMany),
    /// Every target of the model has less room than it takes. `OpenAI`'s words, which agents know.
    #[error(
        "This model's maximum context length is {context} tokens. However, your request has at least {least} tokens. Please reduce the length of the messages, or ask a model with a longer context."
    )]
    TooLong {
        /// The longest of their contexts, in tokens.
        context: u64,
        /// What the request has at the least, in tokens.
        least: u64,
    },
    /// Who asks did not show a key we know.
    #[error(transparent)]
    UnknownKey(#[from] UnknownKey),
    /// Nobody knows what it may cost, and its caller has a budget.
    #[error(
        "no target of this model has a price, or the request points at what is not in it (an earlier response, a picture's URL) and no target has a `context`: callers with a budget need both; see docs/budgets.md"
    )]
    Unpriced,
    /// The body was not read.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// Providers failed.
    #[error("no target could answer: {0}")]
    Upstream(String),
    /// A clock ran out.
    #[error("{0}")]
    UpstreamTimeout(String),
}

/// What a client is told: all but the writing of it.
#[derive(Debug)]
pub struct Told {
    /// The status.
    pub status: StatusCode,
    /// The contract's code, if the words are ours.
    pub code: Option<&'static str>,
    /// Headers of this very answer.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Rejection {
    /// Its status and its code.
    pub fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadHeader(..)
            | Self::BadMember(..)
            | Self::Boundless(_)
            | Self::Encoded(_)
            | Self::RefusedMember(_)
            | Self::WrongKind { .. }
            | Self::Malformed(
                Malformed::NotObject
                | Malformed::Twice(_)
                | Malformed::Disguised(..)
                | Malformed::TooMany
                | Malformed::NoBoundary(_)
                | Malformed::MustBeText(_),
            ) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Malformed(Malformed::NotJson(_) | Malformed::NotText(_)) => {
                (StatusCode::BAD_REQUEST, "invalid_json")
            }
            Self::Malformed(Malformed::NotForm(_)) => (StatusCode::BAD_REQUEST, "invalid_form"),
            Self::TooLong { .. } => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
            Self::NoPrevious(_) | Self::KeptElsewhere { .. } => {
                (StatusCode::BAD_REQUEST, "previous_response_not_found")
            }
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Self::ModelNotAllowed(_) => (StatusCode::FORBIDDEN, "model_not_allowed"),
            Self::ModelNotFound(_) => (StatusCode::NOT_FOUND, "model_not_found"),
            Self::ResponseNotFound(_) => (StatusCode::NOT_FOUND, "response_not_found"),
            Self::VoiceNotFound(_) => (StatusCode::NOT_FOUND, "voice_not_found"),
            Self::NoEndpoint(NoEndpoint::Method(_)) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            }
            Self::NoEndpoint(NoEndpoint::Path) => (StatusCode::NOT_FOUND, "unknown_url"),
            Self::NoTarget { .. } | Self::Resting(..) => {
                (StatusCode::SERVICE_UNAVAILABLE, "no_target_available")
            }
            Self::WrongType(..) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::Stranger(Stranger::Host(_)) => (StatusCode::FORBIDDEN, "host_not_allowed"),
            Self::Stranger(Stranger::Hosts) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Stranger(Stranger::Page(_)) => (StatusCode::FORBIDDEN, "origin_not_allowed"),
            Self::Crowded(_) | Self::Overloaded(_) | Self::Budget(Refused::Full) => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
            }
            Self::Budget(Refused::Short { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "budget_exceeded")
            }
            Self::Budget(Refused::Unavailable) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable")
            }
            Self::Unpriced => (StatusCode::SERVICE_UNAVAILABLE, "no_target_available"),
            Self::Provider(said) => (said.status, "upstream_error"),
            Self::Guessing(_)
            | Self::Limited(_)
            | Self::RateLimited(..)
            | Self::Budget(Refused::Day { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded")
            }
            Self::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            Self::UnknownKey(_) => (StatusCode::UNAUTHORIZED, "invalid_api_key"),
            Self::Unread(Unread::Broken) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Unread(Unread::TooSlow(_)) => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::Unread(Unread::TooLarge(_)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large")
            }
            Self::Upstream(_) => (StatusCode::BAD_GATEWAY, "upstream_error"),
            Self::UpstreamTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
        }
    }

    /// The member of the request it is about.
    fn param(&self) -> Option<&str> {
        match self {
            Self::BadHeader(name, _) | Self::BadMember(name, _) => Some(name),
            Self::Boundless(boundless) => Some(boundless.param()),
            Self::RefusedMember(name) => Some(name),
            Self::Malformed(
                Malformed::Twice(name)
                | Malformed::Disguised(name, _)
                | Malformed::MustBeText(name),
            ) => Some(name),
            Self::TooLong { .. } => Some("messages"),
            Self::NoPrevious(_) | Self::KeptElsewhere { .. } => Some("previous_response_id"),
            Self::ModelNotAllowed(_)
            | Self::ModelNotFound(_)
            | Self::WrongKind { .. }
            | Self::NoTarget { .. } => Some("model"),
            _ => None,
        }
    }

    /// Whether and when to come back.
    fn advice(&self, headers: &mut HeaderMap) {
        const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
        const AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
        let (should, wait) = match self {
            Self::Crowded(crowded) => (true, Some(crowded.retry_after)),
            Self::Overloaded(full) => (true, Some(full.retry_after)),
            // The same key will not become a right one.
            Self::Guessing(guessing) => (false, Some(guessing.again)),
            Self::Limited(limited) => {
                limits::tell(&[limited.left()], headers);
                (true, Some(limited.wait))
            }
            Self::RateLimited(_, wait) | Self::Resting(_, wait) => (true, *wait),
            Self::Budget(Refused::Full | Refused::Unavailable) => {
                (true, Some(Duration::from_secs(1)))
            }
            Self::NoTarget { .. }
            | Self::Unpriced
            | Self::Budget(Refused::Short { .. } | Refused::Day { .. }) => (false, None),
            Self::ShuttingDown => (true, None),
            Self::NoEndpoint(NoEndpoint::Method(takes)) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(takes));
                return;
            }
            // Clients come back on their own account for these two: there is none that does not say whether they should.
            _ if matches!(self.kind().0.as_u16(), 429 | 503) => (true, None),
            _ => return,
        };
        // Beyond a minute they would not wait, but come back at once, and in vain.
        let should = should && wait.is_none_or(|wait| wait <= HEEDED);
        headers.insert(
            SHOULD_RETRY,
            HeaderValue::from_static(if should { "true" } else { "false" }),
        );
        if let Some(wait) = wait {
            // Rounded up: whoever comes back earlier comes in vain.
            let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(millis.div_ceil(1_000)),
            );
            headers.insert(AFTER_MS, HeaderValue::from(millis));
        }
    }

    /// What the client is told: a provider's own words as they came, or ours.
    pub fn tell(self) -> Told {
        let (status, code) = self.kind();
        let ours = match self {
            Self::Provider(said) => match said.whole() {
                Ok(told) => return told,
                Err(said) => Self::Provider(said),
            },
            ours => ours,
        };
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        ours.advice(&mut headers);
        let message = ours.to_string();
        let complaint = Complaint {
            status,
            code,
            message: &message,
            param: ours.param(),
        };
        Told {
            status,
            code: Some(code),
            headers,
            body: complaint.body(),
        }
    }
}

impl Said {
    /// What a client is told of it, if there is something it can use.
    fn whole(mut self: Box<Self>) -> Result<Told, Box<Self>> {
        let Some(body) = self.body.take() else {
            return Err(self);
        };
        self.headers.remove(header::CONTENT_LENGTH);
        Ok(Told {
            status: self.status,
            code: None,
            headers: self.headers,
            body,
        })
    }
}

/// Whose failure a client sees, over all tries.
impl From<Exhausted> for Rejection {
    fn from(Exhausted(mut failures): Exhausted) -> Self {
        let said = |f: &Failure| f.fault == Fault::Client && matches!(f.cause, Cause::Status(_));
        let is_too_long = |f: &Failure| f.unfit() == Some(Unfit::TooLong);
        // Of what is too long for one the others may think otherwise; unless they do not.
        let is_spent = |f: &Failure| matches!(f.cause, Cause::Spent);
        let is_all = failures.iter().all(|f| is_too_long(f) || is_spent(f));
        let clients = |f: &Failure| said(f) && (is_all || !is_too_long(f));
        if let Some(n) = failures.iter().rposition(clients)
            && let Cause::Status(said) = failures.swap_remove(n).cause
        {
            return Self::Provider(said);
        }
        let refused = |f: &Failure| match &f.cause {
            Cause::Refused(refused) => Some(refused.0.as_str().into()),
            _ => None,
        };
        let members: Option<Vec<Box<str>>> = failures.iter().map(refused).collect();
        if let Some(name) = members.and_then(|members| members.into_iter().next()) {
            return Self::RefusedMember(name);
        }
        let told = summary(&failures);
        // That there was no further try is no failure of its own.
        failures.retain(|f| !is_spent(f));
        // Nothing was asked because nothing fitted: that is the caller's budget, or its provider's.
        let is_unasked = |f: &Failure| {
            matches!(
                f.cause,
                Cause::Budget(_) | Cause::TooLong(_) | Cause::Unpriced
            )
        };
        let is_limited = |f: &Failure| match &f.cause {
            Cause::Limited(_) | Cause::Loading => true,
            Cause::Resting(resting) => resting.why == Why::Parked,
            _ => false,
        };
        let is_resting = |f: &Failure| matches!(f.cause, Cause::Resting(_));
        let is_waited_for = |f: &Failure| is_limited(f) || is_resting(f);
        if failures.iter().any(is_waited_for)
            && failures.iter().all(|f| is_unasked(f) || is_waited_for(f))
        {
            // Who waits is served, if only there.
            let wait = failures.iter().filter_map(|f| f.wait).min();
            return match failures.iter().any(is_limited) {
                true => Self::RateLimited(told, wait),
                false => Self::Resting(told, wait),
            };
        }
        if failures.iter().all(is_unasked) {
            let refused = failures.into_iter().find_map(|f| match f.cause {
                Cause::Budget(refused) => Some(refused),
                _ => None,
            });
            return refused.map_or(Self::Unpriced, Self::Budget);
        }
        if failures.iter().all(Failure::is_busy) {
            return Self::RateLimited(told, failures.iter().filter_map(|f| f.wait).min());
        }
        match failures.last().map(|f| &f.cause) {
            Some(Cause::Clock(Clock::Deadline)) => {
                Self::UpstreamTimeout(format!("the deadline clock ran out over all tries: {told}"))
            }
            Some(Cause::Clock(_))
                if failures
                    .iter()
                    .all(|f| matches!(f.cause, Cause::Clock(_) | Cause::Resting(_))) =>
            {
                Self::UpstreamTimeout(format!("no target answered in time: {told}"))
            }
            _ => Self::Upstream(told),
        }
    }
}

/// Each target and what became of it: a provider's own words are not among it.
fn summary(failures: &[Failure]) -> String {
    let mut told: Vec<(Cow<'_, str>, u32)> = Vec::new();
    for failure in failures {
        let cause = match (&failure.cause, failure.fault) {
            (Cause::Status(_), Fault::Credentials) => "refused the gateway's credentials".into(),
            // An address or a system's error is the operator's business.
            (Cause::Connect(_), _) => "could not be connected to".into(),
            (cause, _) => cause.to_string(),
        };
        let line = Cow::from(format!("{} {cause}", failure.target));
        match told.last_mut() {
            Some((last, times)) if *last == line => *times += 1,
            _ => told.push((line, 1)),
        }
    }
    let lines = told.into_iter().map(|(line, times)| match times {
        1 => line.into_owned(),
        times => format!("{line} ({times} tries)"),
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::limits::{What, Whose};
    use crate::ledger::Scope;
    use crate::provider::errors::Retry;
    use crate::usage::Money;

    fn failure(target: &str, cause: Cause, fault: Fault, wait: Option<u64>) -> Failure {
        Failure {
            target: target.into(),
            cause,
            fault,
            retry: Retry::Elsewhere,
            wait: wait.map(Duration::from_secs),
        }
    }

    fn status(status: u16) -> Cause {
        Cause::Status(Box::new(Said {
            status: StatusCode::from_u16(status).unwrap(),
            came_as: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Some(Bytes::from("the provider's own words, with sk-secret")),
            unfit: None,
            lacks_endpoint: false,
        }))
    }

    fn told(failures: Vec<Failure>) -> (u16, Option<&'static str>, String, HeaderMap) {
        let told = Rejection::from(Exhausted(failures)).tell();
        let body = String::from_utf8_lossy(&told.body).into_owned();
        (told.status.as_u16(), told.code, body, told.headers)
    }

    #[test]
    fn whose_failure_a_client_sees() {
        let clock = |clock| failure("a/x", Cause::Clock(clock), Fault::Provider, None);
        let limited = |wait| failure("a/x", status(429), Fault::Busy, wait);

        let (code, kind, body, _) = told(vec![
            failure("a/x", status(503), Fault::Provider, None),
            failure("b/x", status(422), Fault::Client, None),
        ]);
        assert_eq!((code, kind), (422, None));
        assert!(body.starts_with("the provider's own words"));

        let (code, kind, _, headers) =
            told(vec![limited(Some(9)), limited(Some(3)), limited(None)]);
        assert_eq!((code, kind), (429, Some("rate_limit_exceeded")));
        assert_eq!(headers["retry-after"], "3");
        assert_eq!(headers["retry-after-ms"], "3000");
        assert_eq!(headers["x-should-retry"], "true");

        let shed = failure("a/x", Cause::Shed, Fault::Provider, None);
        let (code, _, body, _) = told(vec![shed, limited(None)]);
        assert_eq!(code, 429);
        assert!(body.contains("a/x refused the request unread; "), "{body}");

        let (code, kind, body, _) =
            told(vec![failure("a/x", status(401), Fault::Credentials, None)]);
        assert_eq!((code, kind), (502, Some("upstream_error")));
        assert!(body.contains("refused the gateway's credentials") && !body.contains("sk-secret"));

        let (code, _, body, _) = told(vec![
            failure("a/x", status(503), Fault::Provider, None),
            failure("a/x", status(503), Fault::Provider, None),
            limited(None),
        ]);
        assert_eq!(code, 502);
        assert!(
            body.contains("a/x answered 503 Service Unavailable (2 tries); a/x answered 429"),
            "{body}"
        );

        let (code, kind, body, _) = told(vec![clock(Clock::FirstByte)]);
        assert_eq!((code, kind), (504, Some("upstream_timeout")));
        assert!(body.contains("the first byte clock ran out"), "{body}");
        let (code, _, body, _) = told(vec![
            failure("a/x", status(500), Fault::Provider, None),
            clock(Clock::Deadline),
        ]);
        assert_eq!(code, 504);
        assert!(body.contains("the deadline clock"), "{body}");
    }

    fn too_long(target: &str) -> Failure {
        let mut cause = status(400);
        if let Cause::Status(said) = &mut cause {
            said.unfit = Some(Unfit::TooLong);
        }
        failure(target, cause, Fault::Client, None)
    }

    #[test]
    fn what_is_too_long_for_all_is_the_clients_fault_and_for_some_a_cause_among_others() {
        let unasked = || failure("a/x", Cause::TooLong(10), Fault::Provider, None);
        let limited = failure("b/x", status(429), Fault::Busy, Some(3));
        let (code, kind, body, _) = told(vec![unasked(), too_long("b/x")]);
        assert_eq!((code, kind), (400, None));
        assert!(body.starts_with("the provider's own words"));
        let (code, kind, body, _) = told(vec![too_long("a/x"), limited]);
        assert_eq!((code, kind), (502, Some("upstream_error")));
        assert!(
            body.contains("a/x answered 400 Bad Request; b/x answered 429"),
            "{body}"
        );
        let missing = failure("b/x", status(404), Fault::Client, None);
        assert_eq!(told(vec![too_long("a/x"), missing]).0, 404);
        let short = Refused::Short {
            scope: Scope::Key,
            name: "ann".into(),
            limit: Money::ZERO,
            left: Money::ZERO,
            resets: None,
        };
        let short = failure("b/x", Cause::Budget(short), Fault::Provider, None);
        let (code, kind, ..) = told(vec![unasked(), short]);
        assert_eq!((code, kind), (429, Some("budget_exceeded")));
    }

    /// One of each that may be 429 or 503, and what else waits.
    fn busy() -> Vec<Rejection> {
        let wait = Duration::from_secs(1);
        let said = |status: u16| {
            Box::new(Said {
                status: StatusCode::from_u16(status).unwrap(),
                came_as: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: None,
                unfit: None,
                lacks_endpoint: false,
            })
        };
        let short = Refused::Short {
            scope: Scope::Key,
            name: "ann".into(),
            limit: Money::ZERO,
            left: Money::ZERO,
            resets: None,
        };
        vec![
            Rejection::Crowded(Crowded {
                most: 1,
                retry_after: wait,
            }),
            Rejection::Overloaded(Full {
                most: 1,
                retry_after: wait,
            }),
            Rejection::Budget(Refused::Full),
            Rejection::Budget(Refused::Unavailable),
            Rejection::Budget(short),
            Rejection::NoTarget {
                model: "fast".into(),
                why: String::new(),
            },
            Rejection::Unpriced,
            Rejection::Guessing(TooMany { again: wait }),
            Rejection::Limited(Limited {
                whose: Whose::Key,
                name: "ann".into(),
                what: What::Rpm,
                limit: 1,
                wait,
            }),
            Rejection::Provider(said(429)),
            Rejection::Provider(said(503)),
            Rejection::RateLimited(String::new(), None),
            Rejection::RateLimited(String::new(), Some(wait)),
            Rejection::ShuttingDown,
        ]
    }

    #[test]
    fn who_is_told_to_come_back_is_told_whether() {
        for rejection in busy() {
            let what = format!("{rejection:?}");
            let told = rejection.tell();
            assert!([429, 503].contains(&told.status.as_u16()), "{what}");
            let should = &told.headers["x-should-retry"];
            assert!(should == "true" || should == "false", "{what}");
        }
    }

    #[test]
    fn nobody_comes_back_for_what_takes_longer_than_clients_wait() {
        for (wait, should) in [(60_000, "true"), (60_001, "false"), (3_600_000, "false")] {
            let told =
                Rejection::RateLimited(String::new(), Some(Duration::from_millis(wait))).tell();
            assert_eq!(told.headers["x-should-retry"], should, "{wait}");
            assert_eq!(told.headers["retry-after-ms"], wait.to_string().as_str());
            assert_eq!(
                told.headers["retry-after"],
                wait.div_ceil(1_000).to_string().as_str()
            );
        }
    }
}
