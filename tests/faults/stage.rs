//! What the faults are shown on: the real binary with a ledger of its own, and a client that sees every byte.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rusqlite::Connection;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use tollgate::telemetry::{End, Outcome};

use crate::support::client::get;
use crate::support::{CHAT, Identity};

/// How long any answer may take, on the slowest machine. Beyond it, it never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key's budget, in billionths of a dollar.
pub const BUDGET: i64 = 1_000_000_000_000;

/// Who providers that speak TLS may prove to be.
pub struct Identities {
    /// Whom the gateway trusts.
    pub trusted: Identity,
    /// Whom nobody vouches for.
    pub unknown: Identity,
    /// Vouched for, by another name.
    pub elsewhere: Identity,
    /// Vouched for, until a time that is over.
    pub expired: Identity,
}

impl Identities {
    /// Four of them.
    pub fn new() -> Self {
        Self {
            trusted: Identity::of(&["localhost"]),
            unknown: Identity::of(&["localhost"]),
            elsewhere: Identity::of(&["elsewhere.example"]),
            expired: Identity::until(&["localhost"], 2020),
        }
    }

    /// What the gateway's machine vouches for.
    fn roots(&self) -> String {
        self.trusted.pem() + &self.elsewhere.pem() + &self.expired.pem()
    }
}

/// The gateway under test. Dropped, it is killed.
pub struct Stage {
    pub address: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    _child: Child,
}

impl Stage {
    /// With a configuration that says everything but where it listens.
    pub async fn set(text: &str, identities: &Identities) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let head = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(path("gateway.toml"), format!("{head}{text}")).unwrap();
        std::fs::write(path("roots.pem"), identities.roots()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .current_dir(folder.path())
            .env_clear()
            .env("SSL_CERT_FILE", path("roots.pem"))
            .env("RUST_LOG", "info")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut found: [Option<SocketAddr>; 2] = [None; 2];
        while found.iter().any(Option::is_none) {
            let line = lines.next_line().await.unwrap().expect("it does not start");
            for (n, says) in ["listening on http://", "metrics on http://"]
                .iter()
                .enumerate()
            {
                if let Some((_, rest)) = line.split_once(says) {
                    let address = rest.split('/').next().unwrap();
                    found[n] = Some(address.parse().unwrap());
                }
            }
        }
        // Nobody who writes to a pipe may find it full.
        tokio::task::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            address: found[0].unwrap(),
            admin: found[1].unwrap(),
            folder,
            _child: child,
        }
    }

    /// The metrics now, line by line.
    pub async fn metrics(&self) -> Metrics {
        let text = get(self.admin, "/metrics", "").await.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Metrics(
            pairs
                .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
                .collect(),
        )
    }

    /// The metrics once nothing is under way and all is written down.
    pub async fn rest(&self) -> Metrics {
        for _ in 0..200 {
            let metrics = self.metrics().await;
            if metrics.under_way() == 0.0 && metrics.value("tollgate_ledger_queue") == 0.0 {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let metrics = self.metrics().await;
        let under_way = metrics.starting("tollgate_in_flight{");
        panic!("ten seconds after the last answer something is still under way: {under_way:?}");
    }

    /// Every entry of the ledger, by its request.
    pub fn entries(&self) -> HashMap<String, Vec<Entry>> {
        let db = Connection::open(self.folder.path().join("tollgate.db")).unwrap();
        let sql = "SELECT request, target, \"end\", estimated, cost, key, attempt FROM entry \
                   WHERE scope IS NULL ORDER BY attempt";
        let mut rows = db.prepare(sql).unwrap();
        let rows = rows.query_map([], |row| {
            let entry = Entry {
                target: row.get(1)?,
                end: row.get(2)?,
                estimated: row.get(3)?,
                cost: row.get(4)?,
                key: row.get(5)?,
            };
            Ok((row.get(0)?, entry))
        });
        let mut entries: HashMap<String, Vec<Entry>> = HashMap::new();
        for row in rows.unwrap() {
            let (request, entry) = row.unwrap();
            entries.entry(request).or_default().push(entry);
        }
        entries
    }
}

/// One billed try.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub target: String,
    pub end: String,
    pub estimated: bool,
    /// In billionths of a dollar.
    pub cost: i64,
    pub key: String,
}

/// The metrics at one moment.
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    /// The value of one line; 0 if there is none.
    fn value(&self, line: &str) -> f64 {
        self.0.get(line).copied().unwrap_or_default()
    }

    /// Whether a target rests: it has failed too often.
    pub fn rests(&self, target: &str) -> bool {
        let line = format!("tollgate_target_up{{target=\"{target}\"}}");
        self.0.get(&line).is_some_and(|up| *up == 0.0)
    }

    /// All lines with this beginning whose value is not 0.
    fn starting(&self, name: &str) -> Vec<(&String, f64)> {
        let all = self.0.iter().filter(|(line, _)| line.starts_with(name));
        all.map(|(line, value)| (line, *value))
            .filter(|(_, value)| *value != 0.0)
            .collect()
    }

    /// What a target's tries came to, in the order of their names.
    pub fn tries(&self, target: &str) -> Vec<(String, usize)> {
        let outcomes = Outcome::ALL.map(Outcome::name);
        self.counted("tollgate_tries_total{outcome", &outcomes, target)
    }

    /// How a target's streams ended, in the order of their names.
    pub fn streams(&self, target: &str) -> Vec<(String, usize)> {
        let ends = End::ALL.map(End::name);
        self.counted("tollgate_streams_total{end", &ends, target)
    }

    fn counted(&self, name: &str, words: &[&str], target: &str) -> Vec<(String, usize)> {
        let counts = words.iter().map(|word| {
            let value = self.value(&format!("{name}=\"{word}\",target=\"{target}\"}}"));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small count"
            )]
            let count = value as usize;
            ((*word).to_owned(), count)
        });
        let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        counts.sort();
        counts
    }

    fn under_way(&self) -> f64 {
        let all = self.starting("tollgate_in_flight{").into_iter();
        all.map(|(_, value)| value).sum()
    }

    /// What is neither spent nor set aside of a key's budget, in billionths of a dollar.
    pub fn remaining(&self, key: &str) -> i64 {
        let line = format!("tollgate_budget_remaining_usd{{name=\"{key}\",scope=\"key\"}}");
        #[expect(clippy::cast_possible_truncation, reason = "below a thousand dollars")]
        let nanos = (self.value(&line) * 1e9).round() as i64;
        nanos
    }
}

/// What a client got, whatever it is.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Its body came to its end, as HTTP counts.
    pub is_whole: bool,
}

impl Got {
    /// A header's text, or none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Our id of the request.
    pub fn id(&self) -> &str {
        self.header("x-request-id")
    }
}

/// A client's connection, on which requests follow each other: the same worker, and its pool, serves them all.
pub struct Caller {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Caller {
    /// Connects.
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let task = tokio::task::spawn(async move {
            let _ = connection.await;
        });
        Self {
            address,
            sender,
            task,
        }
    }

    /// Asks for an answer and reads what comes of it. None: the connection broke without one.
    pub async fn ask(&mut self, key: &str, body: String) -> Option<Got> {
        let asking = async {
            if self.sender.ready().await.is_err() {
                *self = Self::to(self.address).await;
            }
            let request = Request::post(CHAT)
                .header("host", self.address.to_string())
                .header("authorization", format!("Bearer sk-{key}"))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            let (head, mut body) = self.sender.send_request(request).await.ok()?.into_parts();
            let (mut all, mut is_whole) = (Vec::new(), true);
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => all.extend(frame.into_data().unwrap_or_default()),
                    Err(_) => {
                        is_whole = false;
                        break;
                    }
                }
            }
            Some(Got {
                status: head.status.as_u16(),
                headers: head.headers,
                body: all.into(),
                is_whole,
            })
        };
        let got = tokio::time::timeout(PATIENCE, asking).await;
        got.unwrap_or_else(|_| panic!("{key}: an answer never ends"))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.task.abort();
    }
}
