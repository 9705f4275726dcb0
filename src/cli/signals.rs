//! What the system tells the process.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::journal::Reopen;

/// SIGTERM, SIGINT, SIGHUP and SIGUSR1.
pub(super) struct Signals(Signal, Signal, Signal, Signal);

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// End, after what is under way.
    End,
    /// Read the configuration again.
    Reload,
    /// Open the files of logs anew: somebody has moved them away.
    Reopen,
}

/// SIGXFSZ: a file would grow beyond the limit of the process. Where nobody takes it, it ends the process.
const FILE_TOO_LONG: SignalKind = SignalKind::from_raw(25);

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        // Taken for good, and not looked at: from here on only the write fails, and the ledger knows what to do then.
        let _taken = signal(FILE_TOO_LONG)?;
        Ok(Self(
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            // Also where no log has a file: nobody who tells all is to end us.
            signal(SignalKind::user_defined1())?,
        ))
    }

    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.0.recv() => Told::End,
            _ = self.1.recv() => Told::End,
            _ = self.2.recv() => Told::Reload,
            _ = self.3.recv() => Told::Reopen,
        }
    }

    /// The next that says to end. Meanwhile logs can be moved away.
    pub(super) async fn end(&mut self, reopen: &Reopen) {
        loop {
            match self.next().await {
                Told::End => return,
                Told::Reload => {}
                Told::Reopen => reopen.ask(),
            }
        }
    }
}
