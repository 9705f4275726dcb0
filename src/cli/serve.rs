//! `tollgate serve`: from a configuration to listeners, and from a signal to the end.

use std::num::NonZero;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::{oneshot, watch};

use super::control::{Bound, Control};
use super::logs::{self, Logs};
use super::progress::Progress;
use super::reload::{Reloadable, Reloader};
use super::signals::{Signals, Told};
use super::{Failed, Loaded, count, service};
use crate::admin::reload::Reloads;
use crate::admission::MadeKeys;
use crate::config::load::Source;
use crate::config::secret::Environment;
use crate::config::{Config, Log};
use crate::gateway::{Gateway, Wall};
use crate::ledger::Ledger;
use crate::plan::{Plan, money};
use crate::proxy::{self, Worker};
use crate::response::Body;
use crate::server::{Address, Beat, Beats, Handler, Listeners, Stage, Times, Workers};
use crate::telemetry::journal::Reopen;

/// How often it is looked whether keys were made or revoked.
const KEYS_LOOK: Duration = Duration::from_millis(250);

/// How long answers that were told to end may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs until a signal, and drains.
pub fn run(file: &Path, environment: Environment) -> Result<(), Failed> {
    let loaded = Loaded::read(Source::open(file)?, environment);
    log_to_stdout(loaded.config.server.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for signals")?;
    // Listened to before anybody is told that there is a gateway, so that the first is heard however soon it comes, and the
    // second however soon it follows.
    let mut signals = runtime
        .block_on(async { Signals::listen() })
        .context("signals cannot be heard")?;
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let starting = Progress::of("starting");
    let running = start(&loaded, workers, Box::new(SystemTime::now))?;
    drop(starting);
    let plan = running.gateway.plan();
    for warning in plan.gaps.iter().chain(&plan.warnings) {
        tracing::warn!("{warning}");
    }
    tracing::info!("{}", served(&plan, &running.gateway.state.made.load()));
    if let (Some(to), Some(written)) = (&plan.traces, &loaded.config.traces) {
        let (collector, part) = (&to.at.absolute, written.sample);
        tracing::info!("traces go to {collector}: {part} of those that begin here (sample)");
    }
    // Another may take its place.
    drop(plan);
    let (clients, operators) = (&loaded.config.server.tls, &loaded.config.admin.tls);
    for address in &running.addresses {
        let url = url(address, clients.is_some(), "/v1");
        tracing::info!("listening on {url}");
    }
    for address in &running.admin {
        let url = url(address, operators.is_some(), "/metrics");
        tracing::info!("metrics on {url}");
    }
    // It is compiled, and with many keys it is large.
    drop(loaded);
    service::ready();
    runtime.block_on(async {
        let beats = running.beats();
        let mut telling = pin!(service::keep_telling(|now| beats.go_on(now)));
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::End => break,
                    Told::Reload => running.reload(),
                    Told::Reopen => running.reopen().ask(),
                },
                () = &mut telling => {}
            }
        }
        tracing::info!("draining; again to exit at once");
        service::stopping();
        let ending = running.gateway.plan().ending;
        let reopen = running.reopen();
        let draining = std::thread::spawn(move || running.drain(ending.delay, ending.drain));
        tokio::select! {
            () = finished(&draining) => {}
            () = telling => {}
            // What a shell makes of Ctrl-C.
            () = signals.end(&reopen) => std::process::exit(130),
        }
    });
    Ok(())
}

/// What there is for whom: `serving 3 models of 2 providers to 12 keys`.
fn served(plan: &Plan, made: &MadeKeys) -> String {
    let (models, providers) = (plan.models.len(), plan.providers.len());
    let whom = match plan.keyring.let_in(made) {
        Some(_) => "anybody, without a key".to_owned(),
        None => count(plan.keyring.callers().count() + made.count(), "key"),
    };
    let (models, providers) = (count(models, "model"), count(providers, "provider"));
    format!("serving {models} of {providers} to {whom}")
}

/// What a person can put into a browser; for a socket in the file system there is no such thing.
fn url(address: &Address, has_tls: bool, path: &str) -> String {
    match address {
        Address::Tcp(address) if has_tls => format!("https://{address}{path}"),
        Address::Tcp(address) => format!("http://{address}{path}"),
        Address::Unix(_) => format!("{address} at {path}"),
    }
}

async fn finished(thread: &JoinHandle<()>) {
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lines go to standard output. `RUST_LOG` narrows or widens what is told.
fn log_to_stdout(log: Log) {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stdout);
    let set = match log {
        Log::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        Log::Off | Log::Text => lines.with_ansi(false).try_init(),
    };
    // Whoever set one before us wants theirs.
    let _ = set;
}

/// A gateway that runs.
pub struct Running {
    /// Where clients connect.
    pub addresses: Vec<Address>,
    /// Where operators connect.
    pub admin: Vec<Address>,
    /// What runs.
    pub gateway: Arc<Gateway>,
    stage: watch::Sender<Stage>,
    workers: Arc<Workers>,
    control: Option<JoinHandle<()>>,
    beats: Beats,
    /// Reads the configuration again, for as long as somebody can ask for it.
    reloads: Option<(Reloads, JoinHandle<()>)>,
    /// Looks for keys that were made, for as long as it can be told to stop.
    keys: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
    /// Written to the end of all that is above.
    logs: Logs,
}

/// Answers clients.
#[derive(Clone)]
struct Clients(Arc<Worker>);

impl Handler for Clients {
    type Body = Body;

    fn handle(self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send {
        proxy::handle(self.0, request)
    }

    fn sweep(&self) {
        let now = tokio::time::Instant::now();
        self.0.client.sweep(now);
        self.0.gateway.state.twins.sweep(now);
    }

    async fn close(&self) {
        self.0.finisher.close().await;
    }
}

/// The way out where no ledger can be opened.
const WITHOUT: &str = "a gateway starts without one with `store = \"memory:\"` in [ledger], and forgets with its end what was spent";

/// Starts a gateway on `workers` threads, which goes by this clock. With a flaw in its configuration, none.
pub fn start(loaded: &Loaded, workers: usize, wall: Wall) -> Result<Running, Failed> {
    let config = &loaded.config;
    // Before any file is touched.
    let (plan, wanted) = loaded.checked()?;
    let (telemetry, logs) = logs::open(loaded, plan.traces.as_ref())?;
    drop(plan);
    let settings = money::ledger(config, loaded.source.folder());
    // Also where nobody has a budget: what is spent unseen is not to be found later.
    let ledger = Ledger::open(&settings, wall())
        .map_err(|error| Failed::User(anyhow!("[ledger]: {error}; {WITHOUT}")))?;
    let gateway = loaded.gateway(telemetry, ledger, wall)?;
    let metrics = &gateway.state.telemetry.metrics;
    let warnings = wanted.certified(metrics, (gateway.wall)());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let (stage, staged) = watch::channel(Stage::Open);
    let (times, timed) = watch::channel(times(config));
    let clients = || Clients(Worker::of(&gateway));
    let workers = Workers::start(workers, &timed, &staged, clients);
    let workers = Arc::new(workers.context("no threads to serve with")?);
    let beat = Arc::new(Beat::new(tokio::time::Instant::now()));
    let mut beats = workers.beats();
    beats.0.push(Arc::clone(&beat));
    let (reloads, asked) = mpsc::channel();
    let (bound, listening) = oneshot::channel();
    let control = Control {
        gateway: Arc::clone(&gateway),
        workers: Arc::clone(&workers),
        stage: staged,
        times: timed,
        beat,
        most: config.server.max_connections,
    };
    let control = control.start(wanted, reloads.clone(), bound)?;
    let (clients, operators) = heard(listening)?;
    let (addresses, admin) = (clients.addresses(), operators.addresses());
    let reloadable = Reloadable {
        gateway: Arc::clone(&gateway),
        clients,
        operators,
        times,
    };
    let reloader = Reloader::new(loaded, reloadable);
    let reloading = spawn("config", move || reloader.run(&asked))?;
    let (stop, stopped) = mpsc::channel();
    let looking = Arc::clone(&gateway);
    let looking = spawn("keys", move || keep_keys(&looking, &stopped))?;
    Ok(Running {
        addresses,
        admin,
        gateway,
        stage,
        workers,
        control: Some(control),
        beats,
        reloads: Some((reloads, reloading)),
        keys: Some((stop, looking)),
        logs,
    })
}

/// Where clients and operators connect, once somebody says so.
fn heard(listening: oneshot::Receiver<Bound>) -> Result<(Arc<Listeners>, Arc<Listeners>), Failed> {
    let listening = listening.blocking_recv();
    let listening = listening.context("the control thread ended")?;
    listening.map_err(|(address, error)| {
        Failed::User(anyhow::Error::new(error).context(format!("cannot listen on {address}")))
    })
}

/// A thread of its own.
pub(super) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Failed> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    Ok(thread.with_context(|| format!("no thread for {name}"))?)
}

/// How long a connection may do nothing, as it is written.
pub(super) fn times(config: &Config) -> Times {
    Times {
        header: config.server.header_timeout,
        idle: config.server.idle_timeout,
        write: config.server.write_timeout,
    }
}

/// Lets in whoever was made beside us, and no longer whoever was revoked, until it is told to stop. On a thread of its own,
/// since the disk may take its time.
fn keep_keys(gateway: &Gateway, stop: &mpsc::Receiver<()>) {
    let mut is_well = true;
    while stop.recv_timeout(KEYS_LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        match gateway.admit_made() {
            Ok(()) => is_well = true,
            Err(error) if std::mem::replace(&mut is_well, false) => {
                tracing::error!(%error, "keys that are made or revoked are not heard of until the ledger can be read");
            }
            Err(_) => {}
        }
    }
}

impl Running {
    /// Lets what is under way finish, for so long; then ends it with an error of ours; then ends.
    pub fn drain(mut self, delay: Duration, drain: Duration) {
        self.gateway.draining.store(true, Ordering::Release);
        std::thread::sleep(delay);
        self.stage.send_replace(Stage::Draining);
        let (gateway, workers) = (&self.gateway, &self.workers);
        let finishing = || gateway.finishing.count();
        // In this order: what a client leaves is read on before its place is free.
        let under_way = || workers.open() + gateway.state.in_flight.count() + finishing();
        if !wait(drain, under_way) {
            tracing::warn!(
                connections = workers.open(),
                finishing = finishing(),
                "time is up for answers under way"
            );
            gateway.closing.close();
            self.stage.send_replace(Stage::Closing);
            // Who reads on has last words for nobody.
            wait(LAST_WORDS, || workers.open());
        }
        self.end();
    }

    /// Whether its threads go on.
    pub fn beats(&self) -> Beats {
        self.beats.clone()
    }

    /// Has the files of its logs opened anew.
    pub fn reopen(&self) -> Reopen {
        self.logs.reopen.clone()
    }

    /// Reads the configuration again. What becomes of it is logged.
    pub fn reload(&self) {
        if let Some((reloads, _)) = &self.reloads {
            // Nobody waits for it.
            let _ = reloads.send(oneshot::channel().0);
        }
    }

    fn end(&mut self) {
        self.gateway.closing.close();
        self.stage.send_replace(Stage::Ended);
        if let Some((stop, keys)) = self.keys.take() {
            drop(stop);
            let _ = keys.join();
        }
        if let Some(control) = self.control.take() {
            // Nothing of a thread that panicked is left to wait for.
            let _ = control.join();
            if let Some((reloads, reloading)) = self.reloads.take() {
                drop(reloads);
                let _ = reloading.join();
            }
            if let Some(workers) = Arc::get_mut(&mut self.workers) {
                workers.join();
            }
            // After the last answer.
            self.gateway.state.ledger.close();
        }
    }
}

/// Waits until nothing is under way any more. False if time ran out.
fn wait(most: Duration, under_way: impl Fn() -> usize) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the end of the process has no clock but the real one"
    )]
    let began = Instant::now();
    while under_way() > 0 {
        if began.elapsed() >= most {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
