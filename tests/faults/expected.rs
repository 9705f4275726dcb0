//! What must be seen of a fault, from three sides: by the client, in the ledger, in the metrics.

use std::fmt::Write as _;

use crate::fault::{Billed, Comes, Fault, Mode, Told};
use crate::recorded;
use crate::stage::Got;

/// Where the faulty target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// It is the only one.
    Alone,
    /// Another, which does well, stands behind it.
    Another,
    /// The same, and it has failed so often that it is not asked.
    Open,
}

/// What a client sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// All of an answer, as its provider ended it.
    Whole,
    /// The beginning of one, and an error of this code in the stream.
    InBand(String),
    /// No answer but an error.
    Refused(u16, String),
    /// The beginning of one, and a broken connection.
    Broken,
}

/// What must be seen. Of entries: whether the other target's, the end, whether estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub seen: Seen,
    pub entries: Vec<(bool, &'static str, bool)>,
    /// Of the faulty target, in the order of their names.
    pub tries: Vec<(String, usize)>,
    pub streams: Vec<(String, usize)>,
    /// The other target answers.
    pub another: bool,
}

impl Expected {
    /// Of a fault, asked for in this way. None: it has none.
    pub fn of(fault: &Fault, mode: Mode, column: Column) -> Option<Self> {
        let play = fault.play(mode)?;
        if column == Column::Open {
            if !fault.opens(mode) {
                return None;
            }
            return Some(Self::new(Seen::Whole, vec![], vec![], None).helped());
        }
        let is_alone = column == Column::Alone;
        let expected = match &play.comes {
            Comes::Whole => Self::whole(vec![], vec![]),
            Comes::Again(outcome, billed) => {
                let entries = (*billed == Billed::Yes).then_some((false, *outcome, true));
                Self::whole(entries.into_iter().collect(), vec![(*outcome, 1)])
            }
            Comes::Fails {
                seen: (status, code),
                outcome,
                asked: (alone, another),
                billed,
            } => {
                let times = if is_alone { *alone } else { *another };
                let billed = if *billed == Billed::Yes { times } else { 0 };
                let seen = Seen::Refused(*status, (*code).to_owned());
                let entries = vec![(false, *outcome, true); billed];
                let expected = Self::new(seen, entries, vec![(*outcome, times)], None);
                if is_alone {
                    expected
                } else {
                    expected.helped()
                }
            }
            Comes::Clients {
                seen: (status, code),
                elsewhere,
            } => {
                let seen = Seen::Refused(*status, (*code).to_owned());
                let expected = Self::new(seen, vec![], vec![("client_fault", 1)], None);
                if is_alone || !elsewhere {
                    expected
                } else {
                    expected.helped()
                }
            }
            Comes::Breaks { code, end, told } => {
                let seen = match code {
                    Some(code) => Seen::InBand((*code).to_owned()),
                    None => Seen::Broken,
                };
                let entries = vec![(false, *end, *told == Told::No)];
                Self::new(seen, entries, vec![("answered", 1)], Some(end))
            }
        };
        let expected = expected.in_mode(mode, fault.before);
        match fault.comments && mode == Mode::Stream {
            true => Some(expected.behind_comments()),
            false => Some(expected),
        }
    }

    fn new(
        seen: Seen,
        entries: Vec<(bool, &'static str, bool)>,
        tries: Vec<(&'static str, usize)>,
        end: Option<&'static str>,
    ) -> Self {
        let owned = |(name, count): (&str, usize)| (name.to_owned(), count);
        Self {
            seen,
            entries,
            tries: tries.into_iter().map(owned).collect(),
            streams: end.into_iter().map(|end| owned((end, 1))).collect(),
            another: false,
        }
    }

    fn whole(
        mut entries: Vec<(bool, &'static str, bool)>,
        mut tries: Vec<(&'static str, usize)>,
    ) -> Self {
        entries.push((false, "complete", false));
        tries.push(("answered", 1));
        Self::new(Seen::Whole, entries, tries, Some("complete"))
    }

    /// The other target answers.
    fn helped(mut self) -> Self {
        self.seen = Seen::Whole;
        self.entries.push((true, "complete", false));
        self.another = true;
        self
    }

    /// The status has gone out: what would have had another is told in the stream.
    fn behind_comments(mut self) -> Self {
        if let Seen::Refused(_, code) = self.seen {
            self.seen = Seen::InBand(code);
            more(&mut self.streams, "error", 1);
        }
        self
    }

    /// Ends are counted of streams only; what was asked before counts as well.
    fn in_mode(mut self, mode: Mode, before: usize) -> Self {
        if before > 0 {
            more(&mut self.tries, "answered", before);
            more(&mut self.streams, "complete", before);
        }
        if mode == Mode::Whole {
            self.streams.clear();
        }
        self.tries.sort();
        self
    }

    /// For people: what the client sees, what is charged, what the metrics say.
    pub fn told(&self) -> [String; 3] {
        // Nobody may have answered before the error.
        let is_begun = self.tries.iter().any(|(outcome, _)| outcome == "answered");
        let before = if is_begun {
            "its beginning"
        } else {
            "comments"
        };
        let seen = match &self.seen {
            Seen::Whole if self.another => "the other's answer".to_owned(),
            Seen::Whole => "the whole answer".to_owned(),
            Seen::InBand(code) if code.is_empty() => {
                format!("{before}, then the provider's error")
            }
            Seen::InBand(code) => format!("{before}, then `{code}`"),
            Seen::Refused(status, code) if code.is_empty() => {
                format!("{status}, the provider's reason")
            }
            Seen::Refused(status, code) => format!("{status} `{code}`"),
            Seen::Broken => "its beginning, then a broken connection".to_owned(),
        };
        let mut charged = String::new();
        for (is_others, end, estimated) in &self.entries {
            let whose = if *is_others { "the other's: " } else { "" };
            let how = if *estimated { " (estimated)" } else { "" };
            let line = format!("{whose}{end}{how}");
            // The same once more.
            if charged.ends_with(&line) {
                charged.push_str(", twice");
                continue;
            }
            let comma = if charged.is_empty() { "" } else { "; " };
            let _ = write!(charged, "{comma}{line}");
        }
        if charged.is_empty() {
            charged.push_str("nothing");
        }
        let counted = |pairs: &[(String, usize)]| {
            let each = pairs.iter().map(|(name, count)| match count {
                1 => name.clone(),
                count => format!("{name} × {count}"),
            });
            each.collect::<Vec<_>>().join(", ")
        };
        let mut metrics = match &*self.tries {
            [] => "no try".to_owned(),
            tries => format!("tries: {}", counted(tries)),
        };
        if !self.streams.is_empty() {
            let _ = write!(metrics, "; streams: {}", counted(&self.streams));
        }
        [seen, charged, metrics]
    }
}

fn more(counts: &mut Vec<(String, usize)>, name: &str, by: usize) {
    match counts.iter_mut().find(|(other, _)| other == name) {
        Some((_, count)) => *count += by,
        None => counts.push((name.to_owned(), by)),
    }
}

/// What a client got, judged as a client would: `hears` is the whole answer. In error: a lie, or none of what may be.
pub fn seen(got: Option<&Got>, mode: Mode, hears: &[u8]) -> Result<Seen, String> {
    let Some(got) = got else {
        return Err("the connection broke without any answer".into());
    };
    let text = String::from_utf8_lossy(&got.body);
    if got.status != 200 {
        if !got.is_whole {
            return Err(format!("half an error: {text}"));
        }
        let error: serde_json::Value = serde_json::from_slice(&got.body)
            .map_err(|_| format!("{}, and no JSON: {text}", got.status))?;
        if !error["error"].is_object() {
            return Err(format!("{}, and no error: {text}", got.status));
        }
        return Ok(Seen::Refused(got.status, code(&error)));
    }
    if !got.is_whole {
        return match mode {
            Mode::Whole => Ok(Seen::Broken),
            Mode::Stream => Err(format!("a stream that ends without a word: {text}")),
        };
    }
    // What ends with an error is no answer, whoever said it.
    let error = (mode == Mode::Stream).then(|| in_band(&text)).flatten();
    match error {
        None if got.body == hears => Ok(Seen::Whole),
        None => Err(format!("another answer, as if it were whole: {text}")),
        Some((before, _)) if before.contains("[DONE]") || !hears.starts_with(before.as_bytes()) => {
            Err(format!("an error after what was never said: {text}"))
        }
        Some((_, error)) => Ok(Seen::InBand(code(&error))),
    }
}

/// The error that a stream ends with, and all that comes before it.
fn in_band(text: &str) -> Option<(&str, serde_json::Value)> {
    let events = text
        .strip_suffix("\n\n")
        .or_else(|| text.strip_suffix("\r\n\r\n"))?;
    let at = events.rfind("\n\n").map_or(0, |at| at + 2);
    let data = events
        .get(at..)?
        .lines()
        .find_map(|line| line.strip_prefix("data: "))?;
    let error: serde_json::Value = serde_json::from_str(data).ok()?;
    let is_error = !error["error"].is_null() || events.get(at..)?.contains("event: error");
    is_error.then_some((text.get(..at)?, error))
}

fn code(error: &serde_json::Value) -> String {
    error["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// What a client hears of the target that does well.
pub fn others(mode: Mode) -> Vec<u8> {
    match mode {
        Mode::Stream => recorded::HEARD.into(),
        Mode::Whole => recorded::WHOLE.into(),
    }
}
