//! How gateway.toml is written: sections and fields in the order a person would write them, comments beside what they are about.

use std::fmt::Write as _;

use super::marks::{Mark, Note, shown};

/// The longest line with a comment at its end, in characters.
const WIDEST: usize = 120;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A number, `true` or `false`, as it is written.
    Bare(String),
    List(Vec<Value>),
    Table(Vec<(String, Value)>),
    /// A list with a line for each element, and what is to be told of it.
    Lines(Vec<(Value, Vec<Note>)>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn bare(value: impl std::fmt::Display) -> Self {
        Self::Bare(format!("{value}"))
    }

    fn write(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Bare(text) => text.clone(),
            Self::List(list) => {
                let all: Vec<String> = list.iter().map(Self::write).collect();
                format!("[{}]", all.join(", "))
            }
            Self::Table(fields) if fields.is_empty() => "{}".to_owned(),
            Self::Table(fields) => {
                let all = fields.iter().map(|(name, value)| {
                    let name = key(name);
                    format!("{name} = {}", value.write())
                });
                format!("{{ {} }}", all.collect::<Vec<_>>().join(", "))
            }
            Self::Lines(lines) => {
                let mut text = String::from("[\n");
                for (value, notes) in lines {
                    with_notes(&mut text, "  ", &format!("{},", value.write()), notes);
                }
                text.push(']');
                text
            }
        }
    }
}

/// `[header]` and what is below it.
#[derive(Debug, Default)]
pub(super) struct Section {
    header: String,
    /// Told above it.
    above: Vec<Note>,
    fields: Vec<(&'static str, Value, Vec<Note>)>,
}

impl Section {
    /// `[server]`, or `[models.fast]`, each part a name as it is.
    pub(super) fn new(path: &[&str]) -> Self {
        let header: Vec<String> = path.iter().map(|part| key(part)).collect();
        Self {
            header: header.join("."),
            ..Self::default()
        }
    }

    /// Tells something above it.
    pub(super) fn tell(&mut self, note: Note) {
        self.above.push(note);
    }

    /// Adds a field, by its name as it is to be written.
    pub(super) fn put(&mut self, name: &'static str, value: Value, notes: Vec<Note>) {
        self.fields.push((name, value, notes));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.above.is_empty()
    }

    pub(super) fn write(&self, out: &mut String) {
        out.push('\n');
        comments(out, "", &self.above);
        let _ = writeln!(out, "[{}]", self.header);
        for (name, value, notes) in &self.fields {
            with_notes(out, "", &format!("{name} = {}", value.write()), notes);
        }
    }
}

/// One line and what is to be told of it: behind it if that fits, else above it.
fn with_notes(out: &mut String, indent: &str, line: &str, notes: &[Note]) {
    let told = told(notes);
    if let [only] = told.as_slice() {
        let whole = format!("{indent}{line}  # {only}");
        if whole.chars().count() <= WIDEST && !line.contains('\n') {
            out.push_str(&whole);
            out.push('\n');
            return;
        }
    }
    comments(out, indent, notes);
    let _ = writeln!(out, "{indent}{line}");
}

fn comments(out: &mut String, indent: &str, notes: &[Note]) {
    for line in told(notes) {
        let _ = writeln!(out, "{indent}# {line}");
    }
}

/// What differs, each once. What is exact goes without saying.
fn told(notes: &[Note]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for note in notes.iter().filter(|note| note.mark != Mark::Exact) {
        let line = format!("{}: {}", note.mark.name(), shown(&note.text));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// A name as a key.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
