//! `/admin/reload`: is what stands in the files in force now, and what was different?

use std::sync::mpsc;

use http::StatusCode;
use serde_json::json;
use tokio::sync::oneshot;

use super::api::{Answer, Ask};
use crate::config::changes::Change;
use crate::config::load::Flaws;

/// Asks whoever reads the configuration to read it again.
pub type Reloads = mpsc::Sender<oneshot::Sender<Result<Reloaded, Flaws>>>;

/// What is in force now that was not before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What is written differently.
    pub changes: Vec<Change>,
    /// The files that it refers to in which something else stands now.
    pub files: Vec<String>,
    /// What an operator should know, though it is no flaw.
    pub warnings: Vec<String>,
}

/// Reads it, and tells what became of it.
pub(super) async fn answer(ask: &Ask) -> Answer {
    let (told, hears) = oneshot::channel();
    let heard = match ask.reloads.send(told) {
        Ok(()) => hears.await.ok(),
        Err(_) => None,
    };
    match heard {
        Some(Ok(reloaded)) => Answer::json(StatusCode::OK, &written(&reloaded)),
        Some(Err(Flaws(flaws))) => Answer::refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_configuration",
            &format!("nothing was changed: {}", flaws.join("; ")),
        ),
        None => Answer::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "nothing was changed: this gateway is ending",
        ),
    }
}

fn written(reloaded: &Reloaded) -> serde_json::Value {
    let (later, now): (Vec<&Change>, _) = reloaded
        .changes
        .iter()
        .partition(|change| change.is_for_the_start());
    let lines = |changes: Vec<&Change>| -> Vec<String> {
        changes.into_iter().map(Change::to_string).collect()
    };
    json!({
        "changes": lines(now),
        "files": reloaded.files,
        "needs_restart": lines(later),
        "warnings": reloaded.warnings,
    })
}
