//! What does each path under `/admin` answer? JSON, and where it does not, why: in the envelope that clients know.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Window, explain, keys, reload};
use crate::config::duration;
use crate::gateway::Gateway;
use crate::ledger::{By, Place, Report, ReportError, rows};
use crate::protocol::Complaint;
use crate::proxy::unescape;

/// What an operator asks, once it is known that it may.
pub(super) struct Ask {
    /// What it is asked of.
    pub(super) gateway: Arc<Gateway>,
    /// Who holds it may read the ledger: one at a time, for that is work.
    pub(super) reading: Arc<Semaphore>,
    /// Who reads the configuration again.
    pub(super) reloads: reload::Reloads,
    /// `GET` also where only the head of the answer is wanted.
    pub(super) method: Method,
    /// The parts of the path below `/admin`.
    pub(super) path: Vec<String>,
    /// Names and values, in order.
    pub(super) query: Vec<(String, String)>,
}

/// What an operator is told.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Ask {
    /// Takes a request's head apart.
    pub(super) fn of(window: &Window, head: &Parts) -> Self {
        let path = head.uri.path().split('/').skip(2);
        let query = head.uri.query().unwrap_or_default().split('&');
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // As forms write spaces.
            let plain = |text: &str| unescape(&text.replace('+', " "));
            (plain(name), plain(value))
        };
        Self {
            gateway: Arc::clone(&window.gateway),
            reading: Arc::clone(&window.reading),
            reloads: window.reloads.clone(),
            method: match head.method {
                Method::HEAD => Method::GET,
                ref method => method.clone(),
            },
            path: path.map(unescape).collect(),
            query: query.filter(|pair| !pair.is_empty()).map(pair).collect(),
        }
    }
}

impl Answer {
    /// An object or a list.
    pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        Self::of(status, "application/json", value.to_string().into())
    }

    fn of(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        let content_type = HeaderValue::from_static(content_type);
        headers.insert(header::CONTENT_TYPE, content_type);
        // What was spent is nothing that a browser should keep.
        let no_store = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, no_store);
        Self {
            status,
            headers,
            body,
        }
    }

    /// Why there is no other answer.
    pub(super) fn refusal(status: StatusCode, code: &'static str, message: &str) -> Self {
        let complaint = Complaint {
            status,
            code,
            message,
            param: None,
        };
        Self::of(status, "application/json", complaint.body())
    }
}

/// Answers what is asked. A body is JSON.
pub(super) async fn answer(ask: Ask, body: Bytes) -> Answer {
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    match (&*path, ask.method.as_str()) {
        (["usage"], "GET") => usage(&ask).await,
        (["usage"], _) => only("GET"),
        (["decisions", id], "GET") => decision(&ask, id),
        (["decisions", _], _) => only("GET"),
        (["explain"], "POST") => explain::answer(&ask, body).await,
        (["explain"], _) => only("POST"),
        (["reload"], "POST") => reload::answer(&ask).await,
        (["reload"], _) => only("POST"),
        (["keys"], "GET") => keys::list(ask).await,
        (["keys"], "POST") => keys::make(ask, body).await,
        (["keys"], _) => only("GET, POST"),
        (["keys", name], "DELETE") => keys::revoke(&ask, (*name).to_owned()).await,
        (["keys", _], _) => only("DELETE"),
        (["keys", name, "rotate"], "POST") => keys::rotate(&ask, (*name).to_owned(), body).await,
        (["keys", _, "rotate"], _) => only("POST"),
        _ => Answer::refusal(
            StatusCode::NOT_FOUND,
            "unknown_url",
            "there is no such path; see /admin/usage, /admin/keys and /admin/explain",
        ),
    }
}

/// Why a request went where it went.
fn decision(ask: &Ask, id: &str) -> Answer {
    let kept = &ask.gateway.state.telemetry.kept;
    match kept.get(id, Instant::now()) {
        Some(told) => Answer::of(
            StatusCode::OK,
            "application/json",
            Bytes::copy_from_slice(told.as_bytes()),
        ),
        None => {
            let message = "nothing is kept of this request: it is for ten minutes, where it was sent with \
                           `x-tollgate-explain: 1` by a key with `explain = true`, once its answer is over";
            Answer::refusal(StatusCode::NOT_FOUND, "unknown_decision", message)
        }
    }
}

/// The path is known, but not with this method.
fn only(methods: &'static str) -> Answer {
    let message = format!("{methods} only");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut answer = Answer::refusal(status, "method_not_allowed", &message);
    let methods = HeaderValue::from_static(methods);
    answer.headers.insert(header::ALLOW, methods);
    answer
}

/// Who spent what: the same rows as `tollgate usage` has.
async fn usage(ask: &Ask) -> Answer {
    let wanted = match Wanted::read(&ask.query) {
        Ok(wanted) => wanted,
        Err(wrong) => {
            return Answer::refusal(StatusCode::BAD_REQUEST, "invalid_request", &wrong);
        }
    };
    let Place::File(file) = ask.gateway.state.ledger.place().clone() else {
        let message = "[ledger] store is \"memory:\": nothing is kept that could be read";
        return Answer::refusal(StatusCode::NOT_FOUND, "no_ledger", message);
    };
    let since = wanted
        .since
        .map(|age| (ask.gateway.wall)().checked_sub(age));
    // An age from before all time is none.
    let since = since.map(|since| since.unwrap_or(SystemTime::UNIX_EPOCH));
    let place = Arc::clone(&ask.reading).acquire_owned().await;
    // It reads to its end, also when nobody waits for it any more.
    let read = tokio::task::spawn_blocking(move || {
        let _place = place;
        let Wanted { by, format, .. } = wanted;
        let rows = Report::read(&file, &by, since)?;
        Ok::<_, ReportError>(match format {
            Format::Json => ("application/json", rows::json(&by, &rows)),
            Format::Csv => (
                "text/csv; charset=utf-8",
                rows::csv(&by, &rows)
                    .iter()
                    .flat_map(|line| [line, "\n"])
                    .collect(),
            ),
        })
    });
    let why = match read.await {
        Ok(Ok((content_type, text))) => {
            return Answer::of(StatusCode::OK, content_type, text.into());
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the ledger was not read to its end".into(),
    };
    Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "ledger_unreadable", &why)
}

/// Which rows, and how they are written.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    by: Vec<By>,
    since: Option<Duration>,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

impl Wanted {
    /// Reads it, or says what is wrong with it.
    fn read(query: &[(String, String)]) -> Result<Self, String> {
        let mut wanted = Self {
            by: vec![By::Key],
            since: None,
            format: Format::Json,
        };
        for (n, (name, value)) in query.iter().enumerate() {
            if query.iter().take(n).any(|(earlier, _)| earlier == name) {
                return Err(format!("`{name}` is given twice"));
            }
            match name.as_str() {
                "by" => wanted.by = columns(value).map_err(|why| format!("`by`: {why}"))?,
                "since" => {
                    let age = duration(value).map_err(|why| format!("`since`: {why}"))?;
                    wanted.since = Some(age);
                }
                "format" => {
                    wanted.format = match value.as_str() {
                        "json" => Format::Json,
                        "csv" => Format::Csv,
                        _ => return Err("`format`: rows are written as json or csv".into()),
                    }
                }
                _ => {
                    return Err(format!(
                        "`{name}` is unknown; there are by, since and format"
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

fn columns(names: &str) -> Result<Vec<By>, String> {
    let mut columns = Vec::new();
    for name in names.split(',') {
        let by: By = name.parse()?;
        if columns.contains(&by) {
            return Err(format!("{name} is named twice"));
        }
        columns.push(by);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Wanted, String> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
        let pairs: Vec<_> = pairs.map(|(a, b)| (a.into(), b.into())).collect();
        Wanted::read(&pairs)
    }

    #[test]
    fn what_is_wanted_is_read_or_refused_in_words() {
        let plain = Wanted {
            by: vec![By::Key],
            since: None,
            format: Format::Json,
        };
        assert_eq!(read(""), Ok(plain));
        let all = Wanted {
            by: vec![By::Tag, By::User],
            since: Some(Duration::from_secs(7 * 86_400)),
            format: Format::Csv,
        };
        assert_eq!(read("format=csv&by=tag,user&since=7d"), Ok(all));
        for (query, why) in [
            ("by=colour", "`by`: rows can be told apart by key, model"),
            ("by=", "`by`: rows can be told apart by"),
            ("by=key,key", "`by`: key is named twice"),
            ("since=soon", "`since`: `soon` is not a duration"),
            ("since=-1d", "`since`: `-1d` is not a duration"),
            ("format=table", "`format`: rows are written as json or csv"),
            (
                "key=ann",
                "`key` is unknown; there are by, since and format",
            ),
            ("since=1d&since=2d", "`since` is given twice"),
        ] {
            let wrong = read(query).unwrap_err();
            assert!(wrong.starts_with(why), "{wrong}");
        }
    }
}
