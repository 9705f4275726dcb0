//! Who may ask? Whoever shows the token. Where there is none, whoever is on this machine may read, and nobody may write.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};

use crate::admission::Digest;
use crate::admission::guesses::{Guesses, TooMany};

/// So many wrong tokens a minute are told that they are wrong.
const GUESSES: NonZeroU32 = match NonZeroU32::new(10) {
    Some(guesses) => guesses,
    None => NonZeroU32::MIN,
};

/// Lets operators in, and remembers who was not.
pub(super) struct Guard {
    /// Whether only this machine can connect, to any listener of operators.
    is_private: bool,
    guesses: Guesses,
}

/// Why somebody was not let in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Turned {
    /// No token, or a wrong one: the same words for both.
    #[error("the token is missing or not valid; send it as `Authorization: Bearer TOKEN`")]
    Unknown,
    /// Too many wrong ones.
    #[error("too many wrong tokens; try again in a moment")]
    Guessing {
        /// When the next one is looked at.
        again: Duration,
    },
    /// Others can connect as well, and there is no token.
    #[error(
        "a listener of [admin] can be reached from other machines: set `token` in [admin] to use this path"
    )]
    Reachable,
    /// There is no token.
    #[error("nothing can be changed here without a token: set `token` in [admin]")]
    ReadOnly,
}

impl Turned {
    /// The status it is told with, and the code.
    pub(super) fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unknown => (StatusCode::UNAUTHORIZED, "invalid_admin_token"),
            Self::Guessing { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            Self::Reachable | Self::ReadOnly => (StatusCode::FORBIDDEN, "admin_token_not_set"),
        }
    }
}

impl Guard {
    /// At listeners that only this machine can connect to, or at others.
    pub(super) fn new(is_private: bool) -> Self {
        Self {
            is_private,
            guesses: Guesses::of(GUESSES),
        }
    }

    /// Lets somebody in, or not. The right token is let in however many wrong ones there were: nobody can lock it out.
    pub(super) fn admit(
        &self,
        token: Option<Digest>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(), Turned> {
        let Some(token) = token else {
            return match (
                self.is_private,
                matches!(*method, Method::GET | Method::HEAD),
            ) {
                (true, true) => Ok(()),
                (true, false) => Err(Turned::ReadOnly),
                (false, _) => Err(Turned::Reachable),
            };
        };
        let shown = shown(headers).ok_or(Turned::Unknown)?;
        // Digests are compared: how long that takes tells how far two digests are alike, and of the token nothing.
        if Digest::of(shown) == token {
            return Ok(());
        }
        let tell = |count| tracing::warn!(count, "somebody showed a wrong token to [admin]");
        match self.guesses.wrong(tell) {
            Ok(()) => Err(Turned::Unknown),
            Err(TooMany { again }) => Err(Turned::Guessing { again }),
        }
    }
}

/// The token that somebody shows.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(guard: &Guard, method: &Method, token: Option<&str>) -> Result<(), Turned> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        guard.admit(Some(Digest::of("right")), method, &headers)
    }

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        for is_private in [true, false] {
            let guard = Guard::new(is_private);
            for method in [Method::GET, Method::POST] {
                for right in ["Bearer right", "bearer  right "] {
                    assert_eq!(asks(&guard, &method, Some(right)), Ok(()));
                }
                for wrong in ["Bearer wrong", "Bearer ", "Basic right", "right"] {
                    let turned = asks(&guard, &method, Some(wrong));
                    assert_eq!(turned, Err(Turned::Unknown), "{wrong}");
                }
                assert_eq!(asks(&guard, &method, None), Err(Turned::Unknown));
            }
        }
    }

    #[test]
    fn who_guesses_waits_and_locks_nobody_out() {
        let guard = Guard::new(true);
        let wrong = || asks(&guard, &Method::GET, Some("Bearer wrong"));
        for _ in 0..GUESSES.get() {
            assert_eq!(wrong(), Err(Turned::Unknown));
        }
        let Err(Turned::Guessing { again }) = wrong() else {
            panic!("one too many")
        };
        assert!(again <= Duration::from_secs(6), "{again:?}");
        let right = asks(&guard, &Method::GET, Some("Bearer right"));
        assert_eq!(right, Ok(()));
        assert_eq!(asks(&guard, &Method::GET, None), Err(Turned::Unknown));
    }

    #[test]
    fn without_a_token_this_machine_reads() {
        let asks = |is_private, method: Method| {
            Guard::new(is_private).admit(None, &method, &HeaderMap::new())
        };
        assert_eq!(asks(true, Method::GET), Ok(()));
        assert_eq!(asks(true, Method::HEAD), Ok(()));
        assert_eq!(asks(true, Method::POST), Err(Turned::ReadOnly));
        assert_eq!(asks(true, Method::OPTIONS), Err(Turned::ReadOnly));
        assert_eq!(asks(false, Method::GET), Err(Turned::Reachable));
        assert_eq!(asks(false, Method::DELETE), Err(Turned::Reachable));
    }
}
