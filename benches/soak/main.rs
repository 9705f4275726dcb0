//! The real program under everything that clients and providers can do, for as long as one likes: does anything stay?
//!
//! ```text
//! cargo bench --bench soak                              # ten minutes
//! SOAK_SECONDS=15 cargo bench --bench soak              # a smoke run
//! TOLLGATE=/path/to/tollgate cargo bench --bench soak   # another build
//! ```
//!
//! Starts the release build as a process of its own, with providers of every kind in this process (`providers`), and
//! lets a mix of clients loose on it (`clients`): well-meant ones, slow ones, such as leave, and such as attack. The
//! rate is bounded by pauses: this is no load test. All the while the process is watched from outside (`child`):
//! memory, file descriptors, threads, and what it says of itself in its metrics.
//!
//! Then all clients stop, and what must hold is judged:
//!
//! - It still answers, and ends with 0 when it is told to. It has said nothing on its standard error.
//! - Nothing is under way and no connection is open; as many file descriptors and threads as before the first request
//!   (a pooled connection to a provider may wait for its next request for 4 s).
//! - Every answer that a client saw has one access line with its id and its status. There are no further lines but for
//!   clients that left before they saw an answer. The metrics count the same as the lines, by status.
//! - Memory of the last quarter is not above that of the second by more than [`TOLERANCE`], median against median. The
//!   slope of a straight line through its floor is printed as well: in a long run it shows a leak before the bound does.
//!
//! A further kind of client is a function and a line in `clients::KINDS`; a further kind of provider is a line in
//! `providers::start`.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a proof that fails panics, reads the clock and talks to a person"
)]

#[allow(
    dead_code,
    unused_imports,
    reason = "the tests of the whole gateway need more of it"
)]
#[path = "../../tests/gateway/support/mod.rs"]
mod support;
#[path = "../streams/memory.rs"]
mod memory;

mod child;
mod clients;
mod http2;
mod providers;
mod report;
mod seen;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use child::{Child, Sample};
use clients::Site;
use seen::Seen;

/// What memory may grow by from the second quarter to the last, in KiB. An allocator hands pages back late and in
/// pieces: two equal quarters differ by a MiB or two, by how many bodies happened to meet.
const TOLERANCE: f64 = 6.0 * 1024.0;
/// A shorter run is over before all that is kept for reuse has been needed once; four times as much is tolerated.
const WARM: Duration = Duration::from_secs(60);
/// Between two looks at the process.
const LOOK: Duration = Duration::from_millis(500);
/// How long all may take to come to rest: clocks of a few seconds, the 50 s for which a connection of HTTP/2 to a provider
/// waits for another request, and two of the workers' sweeps.
const REST: Duration = Duration::from_secs(70);

fn main() -> ExitCode {
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("nothing to test here: run `cargo bench --bench soak`");
        return ExitCode::SUCCESS;
    }
    let seconds = std::env::var("SOAK_SECONDS").map_or(600, |text| {
        text.parse().expect("SOAK_SECONDS is a number of seconds")
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let wrong = runtime.block_on(soak(Duration::from_secs(seconds)));
    if wrong.is_empty() {
        println!("\nfine");
        return ExitCode::SUCCESS;
    }
    println!("\nFAILED:");
    for line in &wrong {
        println!("  {line}");
    }
    ExitCode::FAILURE
}

/// The whole of it; what was wrong.
async fn soak(time: Duration) -> Vec<String> {
    let providers = providers::start().await;
    let child = Child::start(&providers.configuration).await;
    let site = Site {
        address: child.address,
        seen: Seen::default(),
    };
    // The first request may open what stays open: it belongs to what is measured against.
    clients::well_meant(&site).await;
    child.rest(REST, None).await;
    let before = child.look().await;
    println!("before: {before}");

    let (samples, mut wrong) = load(&child, &site, time).await;
    child.rest(REST, Some(before)).await;
    let after = child.look().await;
    println!("after:  {after}");

    clients::well_meant(&site).await;
    child.rest(REST, Some(before)).await;
    let metrics = child.metrics().await;
    let ended = child.end().await;
    report::print(&samples, &site.seen, &ended);

    wrong.extend(report::judge_rest(before, after));
    wrong.extend(report::judge_memory(&samples));
    wrong.extend(site.seen.judge(&ended.lines, &metrics));
    wrong.extend(ended.wrong);
    wrong
}

/// All kinds of clients at once, and a look at the process now and then.
async fn load(child: &Child, site: &Site, time: Duration) -> (Vec<Sample>, Vec<String>) {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for kind in clients::KINDS {
        for n in 0..kind.at_once {
            let site = site.clone();
            clients.spawn(async move {
                // Not all at the same moment.
                tokio::time::sleep(kind.pause * n / kind.at_once).await;
                while began.elapsed() < time {
                    site.seen.starts(kind.name);
                    let client = (kind.run)(site.clone());
                    if tokio::time::timeout(clients::PATIENCE, client)
                        .await
                        .is_err()
                    {
                        site.seen
                            .wrong(format!("{}: a client waits for ever", kind.name));
                    }
                    tokio::time::sleep(kind.pause).await;
                }
            });
        }
    }
    let mut samples = Vec::new();
    while began.elapsed() < time {
        tokio::time::sleep(LOOK).await;
        samples.push(child.look().await);
    }
    let mut wrong = Vec::new();
    // Each ends within its patience.
    while let Some(client) = clients.join_next().await {
        if let Err(error) = client {
            wrong.push(format!("a client: {error}"));
        }
    }
    (samples, wrong)
}
