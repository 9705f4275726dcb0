//! The thread beside the workers: it accepts connections, serves operators, and does now and then what must be done.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Failed;
use super::listen::Both;
use super::serve::spawn;
use crate::admin::Window;
use crate::admin::reload::Reloads;
use crate::gateway::Gateway;
use crate::proxy;
use crate::server::{self, Address, Beat, Listeners, Stage, Times, Workers};

/// Connections to the operators' listener, at most; further ones wait in its queue.
const MOST_OPERATORS: usize = 256;

/// How often the ledger looks for accounts that are idle.
const LEDGER_TICK: Duration = Duration::from_millis(250);

/// Where clients and operators connect, or where nobody can.
pub(super) type Bound = Result<(Arc<Listeners>, Arc<Listeners>), (Address, std::io::Error)>;

/// The thread that accepts connections and serves operators.
pub(super) struct Control {
    pub(super) gateway: Arc<Gateway>,
    pub(super) workers: Arc<Workers>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) times: watch::Receiver<Times>,
    pub(super) beat: Arc<Beat>,
    /// How many connections of clients are open at once.
    pub(super) most: usize,
}

impl Control {
    /// Starts it; whether it listens is told by `bound`.
    pub(super) fn start(
        self,
        wanted: Both,
        reloads: Reloads,
        bound: oneshot::Sender<Bound>,
    ) -> Result<JoinHandle<()>, Failed> {
        let window = Window::on(Arc::clone(&self.gateway), reloads);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime for the control thread")?;
        let run = async move {
            let listeners = async {
                let clients = Arc::new(Listeners::open(&wanted.clients).await?);
                Ok((clients, Arc::new(Listeners::open(&wanted.operators).await?)))
            };
            let (clients, operators) = match listeners.await {
                Ok((clients, operators)) => {
                    let _ = bound.send(Ok((Arc::clone(&clients), Arc::clone(&operators))));
                    (clients, operators)
                }
                Err(error) => {
                    let _ = bound.send(Err(error));
                    return;
                }
            };
            let connections = self.gateway.state.telemetry.metrics.connections();
            let gauge = Arc::new(move |by| connections.add(by));
            let accepting = async {
                let (accepting, stage) = (clients.accepting(), self.stage.clone());
                self.workers
                    .accept(accepting, self.most, gauge, stage)
                    .await;
                clients.close();
            };
            let serving = async { tokio::join!(accepting, self.operators(&operators, window)) };
            tokio::select! {
                _ = serving => {}
                () = proxy::discover(&self.gateway) => {}
                () = keep_ledger(&self.gateway, &self.beat) => {}
            }
        };
        spawn("control", move || runtime.block_on(run))
    }

    /// Serves operators until the very end, so that readiness can be seen to drop.
    async fn operators(&self, listeners: &Listeners, window: Window) {
        let mut accepting = listeners.accepting();
        let mut connections = JoinSet::new();
        let mut stage = self.stage.clone();
        loop {
            tokio::select! {
                accepted = accepting.next(), if connections.len() < MOST_OPERATORS => {
                    let (times, window) = (*self.times.borrow(), window.clone());
                    connections.spawn(server::serve(accepted, times, self.stage.clone(), window));
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                () = server::past(&mut stage, Stage::Closing) => return listeners.close(),
            }
        }
    }
}

/// Lets the ledger take back what nobody uses.
async fn keep_ledger(gateway: &Gateway, beat: &Beat) {
    loop {
        tokio::time::sleep(LEDGER_TICK).await;
        beat.beats(Instant::now());
        for it in gateway.state.ledger.tick((gateway.wall)()) {
            let (scope, name) = (it.account.scope().name(), &**it.account.name());
            gateway.state.telemetry.metrics.warned(scope, name);
            let (spent, limit) = (it.spent, it.budget.limit);
            tracing::warn!(scope, name, %spent, %limit, "a budget is nearly spent");
        }
    }
}
