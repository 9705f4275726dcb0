//! Why was nothing held? And what of it may a caller know?

use std::time::{Duration, SystemTime};

use smol_str::SmolStr;

use super::Scope;
use super::book::{Book, resets};
use crate::usage::Money;

/// Why nothing was held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The budget does not suffice.
    #[error("{}{}", whose(*scope, name, *limit, *left), until(*resets))]
    Short {
        /// Whose budget.
        scope: Scope,
        /// Its owner's name.
        name: SmolStr,
        /// How much may be spent in a window.
        limit: Money,
        /// What may still be held.
        left: Money,
        /// When the window ends; none if it never does.
        resets: Option<SystemTime>,
    },
    /// As many requests were made as may be in a day.
    #[error("{} of {name} are used up{}", scope.name(), until(Some(*resets)))]
    Day {
        /// Whose requests.
        scope: Scope,
        /// Its owner's name.
        name: SmolStr,
        /// How many there may be.
        limit: u64,
        /// When the next day begins.
        resets: SystemTime,
    },
    /// Nothing can be written.
    #[error(
        "the ledger cannot write at the moment, and a budget cannot be kept without it; try again in a moment"
    )]
    Unavailable,
    /// There is no seat.
    #[error(
        "as many requests are under way or wait to be written as there may be; try again in a moment"
    )]
    Full,
}

impl Refused {
    /// A book has no room.
    pub(super) fn of(book: &Book, hour: i64) -> Self {
        let account = &book.seldom.account;
        let (scope, name) = (account.scope, account.name.clone());
        let (limit, resets) = (book.budget.limit, resets(&book.budget, hour));
        match resets.filter(|_| scope.is_of_requests()) {
            Some(resets) => Self::Day {
                scope,
                name,
                limit: limit.0,
                resets,
            },
            None => Self::Short {
                scope,
                name,
                limit,
                left: Money(book.room()),
                resets,
            },
        }
    }
}

/// What a caller may know: its own amounts and its team's, and of others only that they do not suffice.
fn whose(scope: Scope, name: &str, limit: Money, left: Money) -> String {
    let enough = "which is not enough for this request";
    match scope {
        Scope::Key | Scope::Team => {
            let scope = scope.name();
            format!("the budget of {scope} {name} ({limit} US dollars) has {left} left, {enough}")
        }
        Scope::Provider => {
            format!("the budget for provider {name} does not suffice for this request")
        }
        Scope::Total => {
            "the budget of all callers together does not suffice for this request".into()
        }
        Scope::KeyRequests | Scope::TeamRequests | Scope::TargetRequests => {
            format!("{} of {name} are used up", scope.name())
        }
    }
}

fn until(resets: Option<SystemTime>) -> String {
    resets.map_or_else(String::new, |at| {
        format!("; it starts anew at {}", date(at))
    })
}

/// A moment, for people.
pub(super) fn date(at: SystemTime) -> String {
    // What is written as a date ends with the year 9999.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    httpdate::fmt_http_date(at.min(last))
}
