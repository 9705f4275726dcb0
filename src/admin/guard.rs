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
pub(super) struct Guard(Guesses);

/// What an operator must show, and where.
#[derive(Clone, Copy)]
pub(super) struct Lock {
    /// None: there is no token.
    pub(super) token: Option<Digest>,
    /// Whether only this machine can connect, to any listener of operators.
    pub(super) is_private: bool,
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

impl Default for Guard {
    fn default() -> Self {
        Self(Guesses::of(GUESSES))
    }
}

impl Guard {
    /// Lets somebody in, or not. The right token is let in however many wrong ones there were: nobody can lock it out.
    pub(super) fn admit(
        &self,
        lock: Lock,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(), Turned> {
        let Some(token) = lock.token else {
            let only_reads = matches!(*method, Method::GET | Method::HEAD);
            return match (lock.is_private, only_reads) {
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
        match self.0.wrong(tell) {
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
        at(guard, true, method, token)
    }

    fn at(
        guard: &Guard,
        is_private: bool,
        method: &Method,
        token: Option<&str>,
    ) -> Result<(), Turned> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        let lock = Lock {
            token: Some(Digest::of("right")),
            is_private,
        };
        guard.admit(lock, method, &headers)
    }

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        for is_private in [true, false] {
            let guard = Guard::default();
            for method in [Method::GET, Method::POST] {
                for right in ["Bearer right", "bearer  right "] {
                    assert_eq!(at(&guard, is_private, &method, Some(right)), Ok(()));
                }
                for wrong in ["Bearer wrong", "Bearer ", "Basic right", "right"] {
                    let turned = at(&guard, is_private, &method, Some(wrong));
                    assert_eq!(turned, Err(Turned::Unknown), "{wrong}");
                }
                assert_eq!(at(&guard, is_private, &method, None), Err(Turned::Unknown));
            }
        }
    }

    #[test]
    fn who_guesses_waits_and_locks_nobody_out() {
        let guard = Guard::default();
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
            let lock = Lock {
                token: None,
                is_private,
            };
            Guard::default().admit(lock, &method, &HeaderMap::new())
        };
        assert_eq!(asks(true, Method::GET), Ok(()));
        assert_eq!(asks(true, Method::HEAD), Ok(()));
        assert_eq!(asks(true, Method::POST), Err(Turned::ReadOnly));
        assert_eq!(asks(true, Method::OPTIONS), Err(Turned::ReadOnly));
        assert_eq!(asks(false, Method::GET), Err(Turned::Reachable));
        assert_eq!(asks(false, Method::DELETE), Err(Turned::Reachable));
    }
}
