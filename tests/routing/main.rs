//! Who is asked, for how long, and how much at once: each strategy by itself in a world of virtual time, seeded, that runs
//! the gateway's own code. The pictures of `docs/routing.md` are drawn from it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that fails panics, and a chapter is no library"
)]

mod dice;
mod log;
mod picture;
mod world;

mod weight;
mod latency;
mod least_busy;
mod recovery;
mod many;
mod cost;
mod sticky;
mod tiers;
mod hedge;
mod pictures;

use world::Actor;

/// The strategies that look at how targets are, and bring one back little by little.
const CAREFUL: [&str; 3] = ["weight", "latency", "least_busy"];

/// The line that chooses a strategy.
fn strategy(name: &str) -> String {
    format!("strategy = \"{name}\"")
}

/// So many targets, each at a provider of its own: `p0/m`, `p1/m` …
fn actors(count: usize) -> Vec<Actor> {
    (0..count).map(|n| Actor::new(&name(n))).collect()
}

/// The name of one of them.
fn name(n: usize) -> String {
    format!("p{n}/m")
}
