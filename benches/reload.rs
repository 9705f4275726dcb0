//! How long does a large configuration take to come into force, and does a request under way notice?
//!
//! ```text
//! cargo bench --bench reload                        # 10,000 keys and 2,000 models, 20 reloads
//! BENCH_KEYS=100 BENCH_MODELS=10 BENCH_ROUNDS=100 cargo bench --bench reload
//! ```
//!
//! The release build runs as a process of its own, as users run it, and answers by itself (`echo`): what a request takes is
//! the gateway's doing. Eight connections ask 100 times a second each, and an answer's time runs from when its request was
//! due. In each round a second passes in peace; then another configuration is written (a model has another target, a key
//! another limit) and asked for by `POST /admin/reload`, whose own time is printed. Requests that were under way during
//! that are told apart from the others.
//!
//! What to bear in mind when reading it: on two cores a reload has one of them for itself, and the kernel wakes threads
//! late when both are busy: the worst in peace says by how much.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench talks to a person and reads the clock"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Connections that ask.
const CALLERS: u32 = 8;
/// Between two requests of one.
const PACE: Duration = Duration::from_millis(10);
/// Before each reload.
const PEACE: Duration = Duration::from_secs(1);

/// When a request was due, and when its answer had come.
type Asked = (Instant, Instant);

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("nothing to test here: run `cargo bench --bench reload`");
        return;
    }
    let number = |name, usual| std::env::var(name).map_or(usual, |it| it.parse().unwrap());
    let size = (number("BENCH_KEYS", 10_000), number("BENCH_MODELS", 2_000));
    let rounds = number("BENCH_ROUNDS", 20);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), size, 0);
    let (mut gateway, port, admin) = start(folder.path());
    let (asked, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            std::thread::spawn(move || call(port, n, &stop, &asked))
        })
        .collect();
    let mut reloads = Vec::new();
    for round in 1..=rounds {
        std::thread::sleep(PEACE);
        write(folder.path(), size, round);
        let began = Instant::now();
        let answer = post(&mut connect(admin), "/admin/reload", "right", "");
        reloads.push((began, Instant::now()));
        assert!(answer.contains("models.m1.targets"), "{answer}");
    }
    std::thread::sleep(PEACE);
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller
            .join()
            .expect("a caller got an answer that was not 200");
    }
    report(size, &reloads, &asked.lock().unwrap());
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

/// A configuration, of which every round is another.
fn write(folder: &Path, (keys, models): (usize, usize), round: usize) {
    let mut text = String::from(
        "[server]\nlisten = \"127.0.0.1:0\"\nwatch = false\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"right\"\n[ledger]\nstore = \"memory:\"\n[providers.echo]\n[keys.caller]\nkey = \"sk-caller\"\n",
    );
    for n in 0..models {
        let target = if n == 1 { round } else { 0 };
        writeln!(
            text,
            "[models.m{n}]\ntargets = [\"echo/x{n}-{target}\", \"echo/y{n}\"]"
        )
        .unwrap();
    }
    for n in 0..keys {
        let rpm = if n == 1 { round + 1 } else { 1000 };
        writeln!(text, "[keys.k{n}]\nkey = \"sk-{n}\"\nlimits = {{ rpm = {rpm} }}\nbudget = {{ usd = 10, per = \"month\" }}").unwrap();
    }
    std::fs::write(folder.join("gateway.toml"), text).unwrap();
}

fn start(folder: &Path) -> (Child, u16, u16) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .current_dir(folder)
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut port = |what: &str| {
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains(what)));
        let line = line.expect("the gateway starts");
        let rest = line.split("127.0.0.1:").nth(1).unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    };
    let ports = (port("listening on"), port("metrics on"));
    // What it says further is read, so that it can go on.
    std::thread::spawn(move || lines.for_each(drop));
    (child, ports.0, ports.1)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks, and gives the body of the answer.
fn post(stream: &mut TcpStream, path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "it was cut: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, rest)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let length = head
            .lines()
            .find_map(|it| it.strip_prefix("content-length: "));
        if rest.len() == length.unwrap().parse::<usize>().unwrap() {
            return rest.to_owned();
        }
    }
}

fn call(port: u16, n: u32, stop: &AtomicBool, asked: &Mutex<Vec<Asked>>) {
    let body = r#"{"model":"m0","messages":[{"role":"user","content":"hi"}]}"#;
    let (mut stream, mut seen) = (connect(port), Vec::new());
    let mut due = Instant::now() + PACE * n / CALLERS;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        post(&mut stream, "/v1/chat/completions", "sk-caller", body);
        seen.push((due, Instant::now()));
        due += PACE;
    }
    asked.lock().unwrap().extend(seen);
}

fn report((keys, models): (usize, usize), reloads: &[Asked], asked: &[Asked]) {
    let times = |spans: Vec<&Asked>| {
        let mut times: Vec<_> = spans.iter().map(|(began, ended)| *ended - *began).collect();
        times.sort_unstable();
        let at = |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)];
        format!(
            "{:>6} times: median {:>9.3?}, 99 in a hundred {:>9.3?}, worst {:>9.3?}",
            times.len(),
            at(500),
            at(990),
            at(1000)
        )
    };
    let meets = |(due, came): &&Asked| {
        reloads
            .iter()
            .any(|(began, ended)| due < ended && came > began)
    };
    let (during, in_peace): (Vec<_>, Vec<_>) = asked.iter().partition(meets);
    println!("{keys} keys, {models} models");
    println!("  reloads              {}", times(reloads.iter().collect()));
    println!("  requests in peace    {}", times(in_peace));
    println!("  requests during one  {}", times(during));
}
