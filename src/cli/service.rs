//! What the service manager is told: that the gateway is ready, reads its configuration again, ends, and is alive
//! (`sd_notify(3)`). Where there is none, nobody is told.

use std::future::pending;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// Requests are welcome.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] says that it was.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// What is under way finishes.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the gateway is alive, twice as often as is wanted, for as long as it is.
pub(super) async fn keep_telling(is_alive: impl Fn(Instant) -> bool) {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return pending().await;
    };
    loop {
        tokio::time::sleep(within / 2).await;
        if is_alive(Instant::now()) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told how the gateway is");
    }
}
