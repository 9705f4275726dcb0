//! Another configuration in a gateway that runs: when somebody asks for it, or when something else stands in the files.
//!
//! Files are looked at by what stands in them, neither by name nor by time: the symbolic links of a Kubernetes `ConfigMap`
//! are swapped, and file systems of networks tell stale times. What differs is taken once it was seen twice, so that a file
//! that is being written is not read half. One thread does all of it, one reload after another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};

use super::listen::{Both, prepared};
use super::{Loaded, serve, service};
use crate::admin::reload::Reloaded;
use crate::config::changes::{self, Written};
use crate::config::load::{Flaws, Source};
use crate::config::secret::Environment;
use crate::gateway::Gateway;
use crate::plan::{Plan, money};
use crate::server::{Listeners, Prepared, Times};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After how long what differs is looked at again.
const SETTLE: Duration = Duration::from_millis(200);
/// To look takes at most one part in so many of a core, however long the files are and however many.
const SHARE: u32 = 500;
/// So much of a file is read at a time, in bytes.
const PIECE: usize = 1 << 16;
/// How many changes are logged, each in a line.
const MOST_TOLD: usize = 100;

/// Who asked, and waits for what became of it.
type Asked = oneshot::Sender<Result<Reloaded, Flaws>>;

/// What was read, and where it shall be listened: what is left is to put it in force.
struct Ready {
    loaded: Loaded,
    wanted: Both,
    clients: Prepared,
    operators: Prepared,
}

/// What stands in each file, as its SHA-256; none if it cannot be read.
type Marks = BTreeMap<PathBuf, Option<Mark>>;
type Mark = [u8; 32];

/// Puts another configuration in force.
pub(super) struct Reloader {
    environment: Environment,
    running: Reloadable,
    /// Where the configuration stands; none if it was never in a file.
    file: Option<PathBuf>,
    /// The one in force.
    written: Written,
    is_watched: bool,
    /// What stood in the files when they were read last, whatever came of it.
    seen: Marks,
    /// What stood in them at the last look, if that is something else.
    settling: Option<Marks>,
    /// Plans that requests under way hold on to. They are dropped here, since to take a large one apart takes its time.
    retired: Vec<Arc<Plan>>,
}

/// What a reload changes.
pub(super) struct Reloadable {
    pub(super) gateway: Arc<Gateway>,
    pub(super) clients: Arc<Listeners>,
    pub(super) operators: Arc<Listeners>,
    pub(super) times: watch::Sender<Times>,
}

impl Reloader {
    /// Of a gateway that was started with this.
    pub(super) fn new(loaded: &Loaded, running: Reloadable) -> Self {
        let source = &loaded.source;
        let file = source.file().map(Path::to_owned);
        let mut seen = marks(files(source, &loaded.environment));
        // As it was read: to start takes a while, in which something else may have been written.
        seen.extend(
            file.clone()
                .map(|file| (file, mark(source.text().as_bytes()))),
        );
        Self {
            environment: loaded.environment.clone(),
            running,
            is_watched: loaded.config.server.watch,
            seen,
            written: Written::of(source),
            file,
            settling: None,
            retired: Vec::new(),
        }
    }

    /// Reloads whenever somebody asks, or something has changed, until nobody can ask any more.
    pub(super) fn run(mut self, asked: &mpsc::Receiver<Asked>) {
        let mut pause = LOOK;
        loop {
            match asked.recv_timeout(pause) {
                Ok(who) => {
                    // Whoever asked may have left.
                    let _ = who.send(self.reload());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => pause = self.look(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Reloads if something has changed, and says when to look again.
    fn look(&mut self) -> Duration {
        self.retired.retain(|plan| Arc::strong_count(plan) > 1);
        if !self.is_watched || self.file.is_none() {
            return LOOK;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "how long the disk takes is told by the real clock only"
        )]
        let began = Instant::now();
        let now = marks(self.seen.keys().cloned());
        let pause = LOOK.max(began.elapsed() * SHARE);
        if now == self.seen {
            self.settling = None;
        } else if self.settling.as_ref() == Some(&now) {
            // What came of it is logged.
            let _ = self.reload();
        } else {
            self.settling = Some(now);
            return SETTLE;
        }
        pause
    }

    fn reload(&mut self) -> Result<Reloaded, Flaws> {
        self.settling = None;
        if self.running.gateway.draining.load(Ordering::Acquire) {
            return Err(Flaws(vec!["this gateway is ending".to_owned()]));
        }
        let Some(file) = self.file.clone() else {
            let message = "the configuration was not read from a file";
            return Err(Flaws(vec![message.to_owned()]));
        };
        service::reloading();
        let before = self.seen.clone();
        let ready = self.read(&file);
        if ready.is_err() {
            let metrics = &self.running.gateway.state.telemetry.metrics;
            metrics.reloaded("refused");
        }
        let outcome = ready.and_then(|ready| self.apply(ready, &before));
        match &outcome {
            Ok(reloaded) => tell(reloaded),
            Err(Flaws(flaws)) => {
                for flaw in flaws {
                    tracing::error!("not reloaded: {flaw}");
                }
            }
        }
        service::ready();
        outcome
    }

    /// Reads the files, and opens new listeners: what may fail. Marked before they are read, what changes meanwhile is seen
    /// by the next look.
    fn read(&mut self, file: &Path) -> Result<Ready, Flaws> {
        self.seen.extend(marks([file.to_owned()].into_iter()));
        let source = Source::open(file)?;
        let own = self.seen.remove_entry(file);
        self.seen = marks(files(&source, &self.environment));
        self.seen.extend(own);
        let loaded = Loaded::read(source, self.environment.clone());
        // All flaws are told at once, those of compiling too: beside what runs, without what is flawed.
        let wanted = match Both::of(&loaded) {
            Ok(wanted) if loaded.flaws.is_empty() => wanted,
            wanted => return Err(loaded.all_flaws(wanted.err().unwrap_or_default())),
        };
        let Reloadable {
            clients, operators, ..
        } = &self.running;
        let ours = [clients.addresses(), operators.addresses()].concat();
        let prepare = |section, listeners: &Listeners, wanted| {
            let prepared = prepared(section, listeners, wanted, &ours);
            prepared.map_err(|flaw| loaded.report(vec![flaw]))
        };
        Ok(Ready {
            clients: prepare("server", clients, &wanted.clients)?,
            operators: prepare("admin", operators, &wanted.operators)?,
            wanted,
            loaded,
        })
    }

    /// Puts what was read in force, all of it or nothing.
    fn apply(&mut self, ready: Ready, before: &Marks) -> Result<Reloaded, Flaws> {
        let Ready {
            loaded,
            wanted,
            clients,
            operators,
        } = ready;
        let (running, config) = (&self.running, &loaded.config);
        let applied = running.gateway.apply(config, loaded.surroundings());
        let retired = applied.map_err(|found| loaded.report(found))?;
        running.clients.put(clients);
        running.operators.put(operators);
        running.times.send_replace(serve::times(config));
        let gateway = &running.gateway;
        let mut warnings = news(&retired, &gateway.plan());
        let metrics = &gateway.state.telemetry.metrics;
        warnings.extend(wanted.certified(metrics, (gateway.wall)()));
        let reloaded = Reloaded {
            changes: self.written.changes(&loaded.source),
            files: self.files_changed(before),
            warnings,
        };
        self.retired.push(retired);
        self.retired.retain(|plan| Arc::strong_count(plan) > 1);
        self.is_watched = config.server.watch;
        self.written = Written::of(&loaded.source);
        Ok(reloaded)
    }

    /// The files beside the configuration's own in which something else stands than before.
    fn files_changed(&self, before: &Marks) -> Vec<String> {
        let own = self.file.as_ref();
        let others = self.seen.iter().filter(|(file, _)| Some(*file) != own);
        let changed = others.filter(|(file, mark)| before.get(*file).is_some_and(|it| it != *mark));
        changed
            .map(|(file, _)| file.display().to_string())
            .collect()
    }
}

/// The files that a configuration refers to, and the prices beside it.
fn files(source: &Source, environment: &Environment) -> impl Iterator<Item = PathBuf> {
    let mut files = changes::files(source, environment);
    files.push(money::IMPORTED.into());
    files.into_iter().map(|file| source.folder().join(file))
}

fn marks(files: impl Iterator<Item = PathBuf>) -> Marks {
    let marked = |file: PathBuf| {
        let opened = File::open(&file).ok();
        (file, opened.and_then(mark))
    };
    files.map(marked).collect()
}

/// Piece by piece: what is only looked at takes no memory, and leaves that of requests in the processor's cache.
fn mark(mut file: impl Read) -> Option<Mark> {
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Some(digest.finalize().into()),
            Ok(length) => digest.update(piece.get(..length)?),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// What an operator was not warned of before.
fn news(before: &Plan, after: &Plan) -> Vec<String> {
    let all =
        |plan: &Plan| -> Vec<String> { plan.gaps.iter().chain(&plan.warnings).cloned().collect() };
    let known: std::collections::HashSet<_> = all(before).into_iter().collect();
    all(after)
        .into_iter()
        .filter(|it| !known.contains(it))
        .collect()
}

fn tell(reloaded: &Reloaded) {
    let (changes, files) = (reloaded.changes.len(), reloaded.files.len());
    tracing::info!(changes, files, "reloaded");
    for change in reloaded.changes.iter().take(MOST_TOLD) {
        match change.is_for_the_start() {
            true => tracing::warn!("{change} (in force after a restart)"),
            false => tracing::info!("{change}"),
        }
    }
    if changes > MOST_TOLD {
        tracing::info!("and {} more changes", changes - MOST_TOLD);
    }
    for file in &reloaded.files {
        tracing::info!("{file}: something else stands in it");
    }
    for warning in &reloaded.warnings {
        tracing::warn!("{warning}");
    }
}
