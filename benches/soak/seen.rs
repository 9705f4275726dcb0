//! What clients saw, to be compared with what the gateway says happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::child::Line;
use crate::support::Answer;
use crate::support::client::Coming;

/// At most so many things that were wrong are kept: the first tell most.
const MOST_WRONG: usize = 20;

/// Shared by all clients.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    /// Runs by kind of client.
    runs: BTreeMap<&'static str, usize>,
    /// The status of each answer, by its id.
    answers: BTreeMap<String, u16>,
    /// Requests whose clients may not have waited for an answer.
    left: usize,
    wrong: Vec<String>,
}

impl Seen {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap()
    }

    /// A client of this kind starts.
    pub fn starts(&self, kind: &'static str) {
        *self.all().runs.entry(kind).or_default() += 1;
    }

    /// A request may end without an answer that its client hears.
    pub fn left(&self) {
        self.all().left += 1;
    }

    /// Something is not as it must be.
    pub fn wrong(&self, what: String) {
        let wrong = &mut self.all().wrong;
        if wrong.len() < MOST_WRONG {
            wrong.push(what);
        }
    }

    /// The same, unless it holds.
    pub fn holds(&self, is_so: bool, otherwise: impl FnOnce() -> String) {
        if !is_so {
            self.wrong(otherwise());
        }
    }

    /// A whole answer, and which status it must have.
    pub fn answered(&self, what: &str, status: u16, answer: &Answer) {
        self.holds(answer.status == status, || {
            format!(
                "{what}: {} and not {status}: {}",
                answer.status,
                answer.text()
            )
        });
        match answer.header("x-request-id") {
            Some(id) => self.note(id, answer.status.as_u16()),
            None => self.wrong(format!("{what}: an answer without an id")),
        }
    }

    /// An answer of this id, and which status it must have.
    pub fn noted(&self, what: &str, status: u16, is: u16, id: &str) {
        self.holds(is == status, || format!("{what}: {is} and not {status}"));
        self.note(id, is);
    }

    /// An answer that begins.
    pub fn opened(&self, what: &str, status: u16, coming: &Coming) {
        self.holds(coming.status == status, || {
            format!("{what}: {} and not {status}", coming.status)
        });
        match coming.headers.get("x-request-id") {
            Some(id) => self.note(id.to_str().unwrap(), coming.status.as_u16()),
            None => self.wrong(format!("{what}: an answer without an id")),
        }
    }

    /// Answers as bytes. Those that were refused before they were a request have no id, and no record.
    pub fn heard(&self, text: &str) {
        for answer in text.split("HTTP/1.").skip(1) {
            let status = answer.get(2..5).and_then(|status| status.parse().ok());
            let id = answer
                .lines()
                .find_map(|line| line.strip_prefix("x-request-id: "));
            if let (Some(status), Some(id)) = (status, id) {
                self.note(id, status);
            }
        }
    }

    fn note(&self, id: &str, status: u16) {
        if self.all().answers.insert(id.to_owned(), status).is_some() {
            self.wrong(format!("{id}: an id twice"));
        }
    }

    /// Runs by kind.
    pub fn runs(&self) -> BTreeMap<&'static str, usize> {
        self.all().runs.clone()
    }

    /// How many answers, and how many may have had none.
    pub fn counts(&self) -> (usize, usize) {
        let all = self.all();
        (all.answers.len(), all.left)
    }

    /// Compares what clients saw with access lines, and these with metrics.
    pub fn judge(&self, lines: &[Line], metrics: &BTreeMap<String, u64>) -> Vec<String> {
        let all = self.all();
        let mut wrong = all.wrong.clone();
        let mut told: BTreeMap<&str, &Line> = BTreeMap::new();
        for line in lines {
            if told.insert(&line.id, line).is_some() {
                wrong.push(format!("{}: two access lines for one request", line.id));
            }
        }
        let mut unheard = told.clone();
        for (id, status) in &all.answers {
            match unheard.remove(id.as_str()) {
                None => wrong.push(format!("{id}: answered with {status}, and no access line")),
                Some(line) if line.status != *status => {
                    wrong.push(format!(
                        "{id}: answered with {status}, told as {}",
                        line.status
                    ));
                }
                Some(_) => {}
            }
        }
        if unheard.len() > all.left {
            let (count, left) = (unheard.len(), all.left);
            wrong.push(format!(
                "{count} requests nobody heard an answer to; {left} clients may have left"
            ));
        }
        for line in unheard
            .values()
            .filter(|line| line.status == 200 && line.end == "complete")
        {
            wrong.push(format!("{}: complete, and nobody heard it", line.id));
        }
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for (line, count) in metrics {
            let labels = line.strip_prefix("tollgate_requests_total{");
            let status = labels.and_then(|labels| labels.split("status=\"").nth(1));
            if let Some(status) = status.and_then(|rest| rest.split('"').next()) {
                *counted.entry(status.to_owned()).or_default() += count;
            }
        }
        let mut by_status: BTreeMap<String, u64> = BTreeMap::new();
        for line in lines {
            // Labels are bounded: a status that has none of its own shares one.
            let own = line.status.to_string();
            let label = match counted.contains_key(&own) {
                true => own,
                false => format!("{}xx", line.status / 100),
            };
            *by_status.entry(label).or_default() += 1;
        }
        if counted != by_status {
            wrong.push(format!(
                "metrics count {counted:?}, access lines {by_status:?}"
            ));
        }
        let lost = metrics.get("tollgate_access_lines_lost_total").copied();
        if lost != Some(0) {
            wrong.push(format!("access lines lost: {lost:?}"));
        }
        wrong.truncate(MOST_WRONG * 2);
        wrong
    }
}
