//! The whole gateway, in this process, on ports of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tollgate::cli::Loaded;
use tollgate::cli::serve::{Running, start};
use tollgate::config::load::{Flaws, Source};
use tollgate::config::secret::Environment;
use tollgate::gateway::Wall;
use tollgate::server::Address;

/// A clock on the wall that stands still until somebody moves its hands.
#[derive(Clone)]
pub struct Hands(Arc<AtomicU64>);

impl Hands {
    /// At so many seconds after 1970.
    pub fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    /// Moves them, forward or back.
    pub fn move_to(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    /// The clock that they are of.
    fn wall(&self) -> Wall {
        let hands = Arc::clone(&self.0);
        Box::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(hands.load(Ordering::SeqCst)))
    }
}

/// A gateway that runs until it is dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub running: Option<Running>,
    folder: tempfile::TempDir,
}

impl Gateway {
    /// With what follows `[server]`'s own lines, and on two workers.
    pub async fn start(text: &str) -> Self {
        Self::with("", text).await
    }

    /// With more lines for `[server]`.
    pub async fn with(server: &str, text: &str) -> Self {
        Self::listening(&format!("listen = \"127.0.0.1:0\"\n{server}"), text).await
    }

    /// With all lines of `[server]` that say where it listens.
    pub async fn listening(server: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let loaded = load(&folder, server, text).unwrap_or_else(|flaws| panic!("{flaws}"));
        Self::run(folder, loaded, Box::new(SystemTime::now)).await
    }

    /// With files beside its configuration, and more variables.
    pub async fn among(
        folder: tempfile::TempDir,
        variables: &[(&str, String)],
        text: &str,
    ) -> Self {
        let loaded = load_among(&folder, variables, "listen = \"127.0.0.1:0\"", text)
            .unwrap_or_else(|flaws| panic!("{flaws}"));
        Self::run(folder, loaded, Box::new(SystemTime::now)).await
    }

    /// Of the file `gateway.toml` of a folder, read as it is when somebody starts it.
    pub async fn of_file(folder: tempfile::TempDir) -> Self {
        let source = Source::open(&folder.path().join("gateway.toml")).unwrap();
        let loaded = Loaded::read(source, variables(&[]));
        assert_eq!(loaded.flaws, []);
        Self::run(folder, loaded, Box::new(SystemTime::now)).await
    }

    /// With a clock of the test's own, and more lines for `[server]`.
    pub async fn by(hands: &Hands, server: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = format!("listen = \"127.0.0.1:0\"\n{server}");
        let loaded = load(&folder, &server, text).unwrap_or_else(|flaws| panic!("{flaws}"));
        Self::run(folder, loaded, hands.wall()).await
    }

    async fn run(folder: tempfile::TempDir, loaded: Loaded, wall: Wall) -> Self {
        // It waits for its own threads, which no thread of a runtime may do.
        let starting = tokio::task::spawn_blocking(move || start(&loaded, 2, wall));
        let running = starting.await.unwrap();
        let running = running.unwrap_or_else(|failed| panic!("{failed}"));
        Self {
            address: tcp(&running.addresses[0]),
            admin: tcp(&running.admin[0]),
            running: Some(running),
            folder,
        }
    }

    /// Puts another configuration in force.
    pub fn apply(&self, text: &str) -> Result<(), Flaws> {
        let loaded = load(&self.folder, "listen = \"127.0.0.1:0\"", text)?;
        let gateway = &self.running.as_ref().unwrap().gateway;
        gateway
            .apply(&loaded.config, loaded.surroundings())
            .map(drop)
            .map_err(|found| loaded.report(found))
    }

    /// Ends it, shows `between` what it leaves behind, and starts another in its place.
    pub async fn restart(mut self, text: &str, between: impl FnOnce(&std::path::Path)) -> Self {
        let running = self.running.take();
        // It waits for its own threads, which no thread of a runtime may do.
        let ending = tokio::task::spawn_blocking(move || drop(running));
        ending.await.unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        between(folder.path());
        Self::among(folder, &[], text).await
    }

    /// Drains it, as a signal would.
    pub fn drain(mut self, delay: Duration, drain: Duration) -> std::thread::JoinHandle<()> {
        self.drained(delay, drain)
    }

    /// The same, and keeps what it leaves behind.
    pub fn drained(&mut self, delay: Duration, drain: Duration) -> std::thread::JoinHandle<()> {
        let running = self.running.take().unwrap();
        std::thread::spawn(move || running.drain(delay, drain))
    }

    /// Where its configuration and its ledger stand.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The ledger's file, once all that was settled stands in it.
    pub fn ledger(&self) -> rusqlite::Connection {
        let ledger = &self.running.as_ref().unwrap().gateway.state.ledger;
        let start = std::time::Instant::now();
        while ledger.observe().queue > 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "it is not written"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        rusqlite::Connection::open(self.folder().join("tollgate.db")).unwrap()
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.running
            .as_ref()
            .unwrap()
            .gateway
            .state
            .in_flight
            .count()
    }

    /// How many requests are read on whose clients have left.
    pub fn finishing(&self) -> usize {
        let gateway = &self.running.as_ref().unwrap().gateway;
        gateway.finishing.count()
    }

    /// What the bodies of requests under way take, in bytes.
    pub fn body_memory(&self) -> u64 {
        let gateway = &self.running.as_ref().unwrap().gateway;
        gateway.state.memory.taken()
    }

    /// The metrics, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        self.running.as_ref().unwrap().gateway.metrics()
    }

    /// The value of one line of the metrics; 0 if there is none.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.metrics();
        let found = text
            .lines()
            .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It waits for its threads; a thread of a runtime must not.
        let running = self.running.take();
        std::thread::spawn(move || drop(running));
    }
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(_) => "0.0.0.0:0".parse().unwrap(),
    }
}

/// Reads a configuration with the variables that the chapters use.
pub fn load(folder: &tempfile::TempDir, server: &str, text: &str) -> Result<Loaded, Flaws> {
    load_among(folder, &[], server, text)
}

fn load_among(
    folder: &tempfile::TempDir,
    variables: &[(&str, String)],
    server: &str,
    text: &str,
) -> Result<Loaded, Flaws> {
    let text =
        format!("[server]\nlog = \"off\"\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n{text}");
    let environment = self::variables(variables);
    let source = Source::parse("gateway.toml".into(), folder.path().to_owned(), &text)?;
    let loaded = Loaded::read(source, environment);
    if loaded.flaws.is_empty() {
        Ok(loaded)
    } else {
        Err(loaded.report(Vec::new()))
    }
}

/// Those that the chapters use, and more.
fn variables(more: &[(&str, String)]) -> Environment {
    let more = more.iter();
    let more = more.map(|(name, value)| ((*name).to_owned(), value.clone()));
    [("SOME_KEY".to_owned(), "sk-provider-secret".to_owned())]
        .into_iter()
        .chain(more)
        .collect()
}
