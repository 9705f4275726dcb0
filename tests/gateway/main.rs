//! The whole gateway, over real sockets, on ports of its own. One binary, many chapters.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::float_cmp,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that fails panics, a counter is exact, and a chapter is no library"
)]

mod support;

mod path;
mod fallback;
mod routing;
mod health;
mod cause;
mod explain;
mod decisions;
mod logs;
#[cfg(feature = "otlp")]
mod traces;
#[cfg(feature = "otlp")]
mod collectors;
mod hedge;
mod queue;
mod endpoints;
mod onward;
mod pictures;
mod errors;
mod kinds;
mod clocks;
mod alive;
mod streaming;
mod protocols;
mod page;
mod rules;
mod tls;
mod egress;
mod http2;
mod keys;
mod leave;
mod limits;
mod finish;
mod twins;
mod hostile;
mod broken;
mod reload;
mod drain;
mod browsers;
mod operators;
mod discover;
mod voices;
mod ways;
mod smuggling;
mod crowds;
mod cli;
mod prices;
mod budgets;
mod charge;
mod bounds;
mod field;
mod proof;
mod disk;
mod listen;
