//! The program as a process of its own: started, watched from outside, and told to end.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::memory;
use crate::support::client;

/// The running program.
pub struct Child {
    /// Where clients connect.
    pub address: SocketAddr,
    admin: SocketAddr,
    process: std::process::Child,
    lines: UnboundedReceiver<String>,
    errors: Option<JoinHandle<String>>,
    _folder: tempfile::TempDir,
}

/// What the process holds at one moment.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Memory, KiB.
    pub memory: f64,
    /// Open file descriptors.
    pub files: usize,
    pub threads: usize,
    pub in_flight: u64,
    pub connections: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory,
            files,
            threads,
            in_flight,
            connections,
        } = self;
        write!(
            f,
            "{:.1} MiB, {files} files, {threads} threads, {in_flight} in flight, {connections} connections",
            memory / 1024.0
        )
    }
}

/// What an access line says.
pub struct Line {
    pub id: String,
    pub status: u16,
    pub end: String,
}

/// What is known once the process has ended.
pub struct Ended {
    /// In the order they were written.
    pub lines: Vec<Line>,
    pub wrong: Vec<String>,
}

impl Child {
    /// Starts it and waits until it listens.
    pub async fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("gateway.toml"), configuration).unwrap();
        let program = std::env::var("TOLLGATE");
        let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_tollgate").to_owned());
        println!("{program}");
        let mut process = Command::new(fs::canonicalize(program).unwrap())
            .current_dir(folder.path())
            .env_clear()
            .env("SOME_KEY", "sk-provider-secret")
            // jemalloc keeps what was freed for ten seconds, and for as long as nobody asks it for more: what is held would
            // drown in what was. So it is given back at once.
            .env("_RJEM_MALLOC_CONF", "dirty_decay_ms:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = process.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let (sender, mut lines) = unbounded_channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut at = async |what: &str| loop {
            let line = tokio::time::timeout(Duration::from_secs(10), lines.recv()).await;
            let line = line.expect("it does not listen").expect("it ended at once");
            if let Some(rest) = line.split(what).nth(1) {
                return rest.split('/').next().unwrap().parse().unwrap();
            }
        };
        let address = at("listening on http://").await;
        let admin = at("metrics on http://").await;
        Self {
            address,
            admin,
            process,
            lines,
            errors: Some(errors),
            _folder: folder,
        }
    }

    /// What it says of itself: each line of its metrics, and its number.
    pub async fn metrics(&self) -> BTreeMap<String, u64> {
        let answer = client::get(self.admin, "/metrics", "").await;
        let lines = answer.text();
        let pairs = lines.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        pairs.collect()
    }

    /// Looks at it.
    pub async fn look(&self) -> Sample {
        let metrics = self.metrics().await;
        let sum = |name: &str| {
            let lines = metrics
                .iter()
                .filter(|(line, _)| line.split('{').next() == Some(name));
            lines.map(|(_, count)| count).sum()
        };
        let folder = format!("/proc/{}", self.process.id());
        let count = |what: &str| fs::read_dir(format!("{folder}/{what}")).unwrap().count();
        Sample {
            memory: memory::resident(self.process.id()).unwrap().into(),
            files: count("fd"),
            threads: count("task"),
            in_flight: sum("tollgate_in_flight"),
            connections: sum("tollgate_connections"),
        }
    }

    /// Waits until nothing goes on and it holds no more than before, or the time is over.
    pub async fn rest(&self, at_most: Duration, before: Option<Sample>) {
        let began = Instant::now();
        let mut files = Vec::new();
        while began.elapsed() < at_most {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.look().await;
            files.push(now.files);
            // Without anything to compare with: as few for as long as a connection to a provider may wait.
            let settled = match before {
                Some(before) => now.files <= before.files && now.threads <= before.threads,
                None => {
                    files
                        .iter()
                        .rev()
                        .take_while(|count| **count == now.files)
                        .count()
                        > 28
                }
            };
            if settled && now.in_flight == 0 && now.connections == 0 {
                return;
            }
        }
    }

    /// Tells it to end, and reads the rest of what it has to say.
    pub async fn end(mut self) -> Ended {
        let mut wrong = Vec::new();
        let pid = self.process.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.is_ok_and(|status| status.success()));
        let mut lines = Vec::new();
        let read = async {
            while let Some(text) = self.lines.recv().await {
                if text.contains("panicked") {
                    wrong.push(text.clone());
                }
                lines.extend(access(&text));
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(15), read).await;
        if ended.is_err() {
            wrong.push("it does not end when it is told to".into());
            let _ = self.process.kill();
        }
        let status = self.process.wait().unwrap();
        if !status.success() {
            wrong.push(format!("it ended with {status}"));
        }
        let errors = self.errors.take().unwrap().join().unwrap();
        if !errors.is_empty() {
            let text: String = errors.chars().take(2_000).collect();
            wrong.push(format!("on its standard error: {text}"));
        }
        Ended { lines, wrong }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already, as a rule.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads an access line; other lines are none.
fn access(text: &str) -> Option<Line> {
    let line: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(Line {
        id: line["id"].as_str()?.to_owned(),
        status: u16::try_from(line["status"].as_u64()?).ok()?,
        end: line["end"].as_str()?.to_owned(),
    })
}
