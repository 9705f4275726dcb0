//! Where logs and traces go: a thread each that writes them, and a signal that has files opened anew.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::{Failed, Loaded, traces};
use crate::config::Log;
use crate::plan::Traces;
use crate::telemetry::Telemetry;
use crate::telemetry::access::Line;
use crate::telemetry::journal::{Journal, Reopen};
use crate::telemetry::lines::{Lines, Writer};
use crate::telemetry::metrics::Metrics;

/// The threads that write logs and tell traces; dropping it writes and tells what is left.
pub(super) struct Logs {
    /// Has the files opened anew.
    pub(super) reopen: Reopen,
    _access: Option<Writer<Line>>,
    _decisions: Option<Writer<String>>,
    _traces: Option<traces::Telling>,
}

/// Lines, and the thread that writes them.
type Written<T> = (Arc<Lines<T>>, Writer<T>);

/// Opens the logs that a configuration asks for, and what tells traces where they go; gives what is to be told to them.
pub(super) fn open(
    loaded: &Loaded,
    collected: Option<&Arc<Traces>>,
) -> Result<(Arc<Telemetry>, Logs), Failed> {
    let (metrics, reopen) = (Metrics::new(), Reopen::default());
    let (lines, access) = access(loaded, &metrics, &reopen)?.unzip();
    let (decisions, journal) = decisions(loaded, &metrics, &reopen)?.unzip();
    let (tracer, telling) = traces::start(collected, &metrics)?.unzip();
    let logs = Logs {
        reopen,
        _access: access,
        _decisions: journal,
        _traces: telling,
    };
    Ok((Telemetry::logging(metrics, lines, decisions, tracer), logs))
}

/// Where access lines go: to a file if there is one, else to standard output, unless nobody wants them there.
fn access(
    loaded: &Loaded,
    metrics: &Metrics,
    reopen: &Reopen,
) -> Result<Option<Written<Line>>, Failed> {
    let server = &loaded.config.server;
    let writing = match (&server.access_log, server.log) {
        // What a line holds is given back as soon as it is written, here and below.
        (Some(path), _) => {
            let size = server.access_log_size;
            let mut journal = journal(loaded, "access_log", (path.as_path(), size), reopen)?;
            let lost = metrics.lines_lost.clone();
            Writer::start("access-log", move |lines: Vec<Line>| {
                lost.inc_by(journal.add(lines.into_iter().map(|line| line.json())));
            })
        }
        (None, Log::Json | Log::Text) => Writer::start("access-log", |lines: Vec<Line>| {
            for line in lines {
                line.write();
            }
        }),
        (None, Log::Off) => return Ok(None),
    };
    Ok(Some(writing.context("no thread for the log")?))
}

/// Where decisions are logged, if they are.
fn decisions(
    loaded: &Loaded,
    metrics: &Metrics,
    reopen: &Reopen,
) -> Result<Option<Written<String>>, Failed> {
    let server = &loaded.config.server;
    let Some(path) = &server.decision_log else {
        return Ok(None);
    };
    let size = server.decision_log_size;
    let mut journal = journal(loaded, "decision_log", (path.as_path(), size), reopen)?;
    let lost = metrics.lines_lost.clone();
    let writing = Writer::start("decision-log", move |lines: Vec<String>| {
        lost.inc_by(journal.add(lines));
    });
    Ok(Some(writing.context("no thread for the log of decisions")?))
}

/// The file of a log, and how long it may grow.
fn journal(
    loaded: &Loaded,
    name: &'static str,
    (path, most): (&Path, u64),
    reopen: &Reopen,
) -> Result<Journal, Failed> {
    let path = loaded.source.folder().join(path);
    let opened = Journal::open(name, &path, most, reopen.clone());
    opened.map_err(|error| {
        let message = format!("[server] {name}: {}: {error}", path.display());
        Failed::User(anyhow!(message))
    })
}
