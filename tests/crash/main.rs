//! The ledger under kill -9: load on, killed at some moment, started again, and every book looked at.
//!
//! ```text
//! cargo test --test crash             # a few rounds
//! cargo test --test crash -- 50       # as many as you like
//! ```
//!
//! After each round: the file is whole; every answer that a client saw complete has exactly one entry; none is there twice;
//! what was spent is the sum of the entries, and within the budget. At the end a gateway that is asked to end leaves nothing
//! drawn, and the crashes have not eaten the budget.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a check that fails panics and says what it saw, and what is asked is asked elsewhere, too"
)]

#[path = "../gateway/support/form.rs"]
mod form;
mod load;
#[path = "../gateway/support/services.rs"]
#[allow(
    dead_code,
    reason = "the chapters of tests/gateway need the rest of it"
)]
mod services;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::{Load, Provider};
use rusqlite::Connection;

/// In billionths of a dollar.
const BUDGET: u64 = 1_000_000_000;

/// How long a round may last, at most, in milliseconds.
const LONGEST: u64 = 300;

fn main() {
    // What runs tests asks first which there are.
    let asked: Vec<String> = std::env::args().collect();
    if asked.iter().any(|word| word == "--list") {
        if !asked.iter().any(|word| word == "--ignored") {
            println!("crash: test");
        }
        return;
    }
    let rounds = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let rounds: u64 = rounds.unwrap_or(3);
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start();
    let port = configure(folder.path(), &provider);
    let began = Instant::now();
    let mut seen = Vec::new();
    for round in 1..=rounds {
        let mut gateway = start(folder.path(), port);
        // What the round before has left, now that it was found.
        check(folder.path(), &seen, round);
        let load = Load::start(port);
        // The moment differs from round to round and from machine to machine: that is the point.
        let jitter = u64::from(began.elapsed().subsec_nanos()) % LONGEST;
        std::thread::sleep(Duration::from_millis(20 + jitter));
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        seen.extend(load.stop());
    }
    // What the last one left is charged at the next start, and a clean end leaves nothing drawn.
    let mut gateway = start(folder.path(), port);
    let load = Load::start(port);
    std::thread::sleep(Duration::from_millis(100));
    seen.extend(load.stop());
    let pid = gateway.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(
        gateway.wait().unwrap().success(),
        "it ends when it is asked to"
    );
    let books = check(folder.path(), &seen, rounds + 1);
    assert_eq!(books.drawn, 0, "a clean end leaves nothing drawn");
    assert!(
        books.spent < BUDGET,
        "{rounds} crashes have eaten the budget"
    );
    println!(
        "{rounds} crashes: {} answers seen, {} entries, {} of them for crashes; spent {} of {BUDGET}, {} of it charged for crashes",
        seen.len(),
        books.entries,
        books.crashes,
        books.spent,
        books.charged
    );
}

/// What the file says.
struct Books {
    entries: u64,
    crashes: u64,
    charged: u64,
    spent: u64,
    drawn: u64,
}

fn check(folder: &Path, seen: &[String], round: u64) -> Books {
    let db = Connection::open(folder.join("tollgate.db")).unwrap();
    let number = |sql: &str| -> u64 {
        let number: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
        u64::try_from(number).unwrap()
    };
    let whole: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(whole, "ok", "round {round}");
    let mut rows = db
        .prepare("SELECT request, attempt FROM entry WHERE scope IS NULL")
        .unwrap();
    let rows = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let mut entered = std::collections::HashMap::new();
    for (request, attempt) in rows.map(Result::unwrap) {
        let (request, attempt): (String, i64) = (request, attempt);
        let times = entered.entry(request.clone()).or_insert(0);
        *times += 1;
        assert_eq!(
            (*times, attempt),
            (1, 1),
            "round {round}: {request} is entered twice"
        );
    }
    for request in seen {
        assert!(
            entered.contains_key(request),
            "round {round}: {request} was answered and is not entered"
        );
    }
    let spent = number("SELECT coalesce(sum(amount), 0) FROM spent WHERE scope = 0");
    let of_entries =
        number("SELECT coalesce(sum(cost), 0) FROM entry WHERE scope IS NULL OR scope = 'key'");
    assert_eq!(
        spent, of_entries,
        "round {round}: what was spent is not the sum of the entries"
    );
    let drawn = number("SELECT coalesce(sum(amount), 0) FROM lease WHERE scope = 0");
    assert!(
        spent + drawn <= BUDGET,
        "round {round}: {spent} and {drawn} drawn"
    );
    Books {
        entries: number("SELECT count(*) FROM entry"),
        crashes: number("SELECT count(*) FROM entry WHERE \"end\" = 'crashed'"),
        charged: number("SELECT coalesce(sum(cost), 0) FROM entry WHERE scope = 'key'"),
        spent,
        drawn,
    }
}

/// Writes a configuration; gives the port that clients use.
fn configure(folder: &Path, provider: &Provider) -> u16 {
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (port, admin, upstream) = (free(), free(), provider.port);
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\nlog = \"off\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [providers.p]\npreset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:{upstream}/v1\"\n\
         [models.fast]\ntargets = [{{ to = \"p/m\", price = {{ input = 0.01, output = 0.1, characters = 1, seconds = 0.000001, images = 0.000001, searches = 0.000001 }}, context = 1000, max_output = 20 }}]\n\
         [keys.ann]\nkey = \"sk-ann\"\nbudget = {{ usd = 1, per = \"total\" }}\n"
    );
    std::fs::write(folder.join("gateway.toml"), text).unwrap();
    port
}

fn start(folder: &Path, port: u16) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "it does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}
