//! What mostly comes of a fault, by name.

use crate::fault::{Billed, Comes, Told};

/// All is well in the end.
pub const WHOLE_ANSWER: Comes = Comes::Whole;
/// The connection broke before there was anything to show: asked once more, even though another could be asked.
pub const RESET: Comes = fails((502, "upstream_error"), "reset", (2, 2), Billed::Yes);
/// What came is no answer: it would be none a second time.
pub const NONSENSE: Comes = fails((502, "upstream_error"), "nonsense", (1, 1), Billed::Yes);
/// No connection: another that can be reached is asked at once.
pub const CONNECT: Comes = fails((502, "upstream_error"), "connect", (2, 1), Billed::No);
/// No connection in time.
pub const UNCONNECTED: Comes = fails((504, "upstream_timeout"), "timeout", (1, 1), Billed::No);
/// A clock ran out over a request that may have been worked on: never a second time at the same place.
pub const SILENCE: Comes = fails((504, "upstream_timeout"), "timeout", (1, 1), Billed::Yes);
/// The provider says that the fault is its own.
pub const FAULT: Comes = fails(
    (502, "upstream_error"),
    "provider_fault",
    (2, 2),
    Billed::No,
);
/// It says so, and that it would be no use to ask again here and now.
pub const FAULT_ONCE: Comes = fails(
    (502, "upstream_error"),
    "provider_fault",
    (1, 1),
    Billed::No,
);
/// It refuses the gateway's credentials.
pub const REFUSED: Comes = fails((502, "upstream_error"), "credentials", (1, 1), Billed::No);
/// It broke off in the middle.
pub const TRUNCATED: Comes = breaks("upstream_error", "truncated", Told::No);
/// It fell silent in the middle.
pub const STALLED: Comes = breaks("upstream_timeout", "stalled", Told::No);

/// It fails before there is anything to show.
pub const fn fails(
    seen: (u16, &'static str),
    outcome: &'static str,
    asked: (usize, usize),
    billed: Billed,
) -> Comes {
    Comes::Fails {
        seen,
        outcome,
        asked,
        billed,
    }
}

/// It fails with some of it shown.
pub const fn breaks(code: &'static str, end: &'static str, told: Told) -> Comes {
    Comes::Breaks {
        code: Some(code),
        end,
        told,
    }
}

/// There is too much at once; so often it is asked alone, and where another can be asked.
pub const fn busy(alone: usize, another: usize) -> Comes {
    let seen = (429, "rate_limit_exceeded");
    fails(seen, "rate_limited", (alone, another), Billed::No)
}

/// It is the fault of who asks; `elsewhere`: another may know better.
pub const fn clients(status: u16, code: &'static str, elsewhere: bool) -> Comes {
    let seen = (status, code);
    Comes::Clients { seen, elsewhere }
}
