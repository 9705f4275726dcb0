//! What became of each value of the file? Nothing is lost: what nobody has marked in the end is unsupported, and says so.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::Wrong;
use super::words::Words;
use super::yaml::{Node, Value};

/// The most that all paths together may have, in bytes.
const MOST_PATHS: usize = 64 << 20;

/// How well a value could be carried over; a later one is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It means the same here.
    Exact,
    /// It means nearly the same; the difference is told.
    Approximate,
    /// Somebody has to do something; what is told.
    Manual,
    /// There is no such thing here; why is told.
    Unsupported,
}

impl Mark {
    /// All, the best first.
    pub const ALL: [Self; 4] = [
        Self::Exact,
        Self::Approximate,
        Self::Manual,
        Self::Unsupported,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Approximate => "approximate",
            Self::Manual => "manual",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A mark and what is to be told with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub mark: Mark,
    pub text: Arc<str>,
}

struct Leaf {
    path: String,
    line: usize,
    /// There is nothing in it.
    is_empty: bool,
    note: Option<Note>,
}

/// The values of a file, each with what became of it.
pub(super) struct Marks {
    leaves: Vec<Leaf>,
    words: Words,
}

impl Marks {
    /// Numbers the leaves of a tree: single values, and lists and maps without anything in them.
    pub(super) fn of(root: &mut Node) -> Result<Self, Wrong> {
        let mut marks = Self {
            leaves: Vec::new(),
            words: Words::read(),
        };
        let mut left = MOST_PATHS;
        marks.number(root, "", &mut left)?;
        Ok(marks)
    }

    fn number(&mut self, node: &mut Node, path: &str, left: &mut usize) -> Result<(), Wrong> {
        let first = self.leaves.len();
        let line = node.line;
        let is_empty = node.is_null() || !matches!(node.value, Value::Scalar { .. });
        match &mut node.value {
            Value::List(list) if !list.is_empty() => {
                for (n, node) in list.iter_mut().enumerate() {
                    self.number(node, &format!("{path}[{n}]"), left)?;
                }
            }
            Value::Map(map) if !map.is_empty() => {
                for (key, node) in map {
                    let dot = if path.is_empty() { "" } else { "." };
                    self.number(node, &format!("{path}{dot}{}", part(key)), left)?;
                }
            }
            _ => {
                let Some(rest) = left.checked_sub(path.len()) else {
                    let message = "the keys are too long by here; no configuration has such names";
                    return Err(Wrong::at(line, message));
                };
                *left = rest;
                self.leaves.push(Leaf {
                    path: path.to_owned(),
                    line,
                    is_empty,
                    note: None,
                });
            }
        }
        node.leaves = first..self.leaves.len();
        Ok(())
    }

    /// Marks all that is at a place. What has a worse mark already keeps that.
    pub(super) fn mark(&mut self, node: &Node, mark: Mark, text: impl Into<Arc<str>>) -> Note {
        let note = Note {
            mark,
            text: text.into(),
        };
        let leaves = self.leaves.get_mut(node.leaves.clone());
        for leaf in leaves.into_iter().flatten() {
            if leaf.note.as_ref().is_none_or(|known| known.mark < mark) {
                leaf.note = Some(note.clone());
            }
        }
        note
    }

    pub(super) fn exact(&mut self, node: &Node, text: impl Into<Arc<str>>) {
        self.mark(node, Mark::Exact, text);
    }

    pub(super) fn approximate(&mut self, node: &Node, text: impl Into<Arc<str>>) -> Note {
        self.mark(node, Mark::Approximate, text)
    }

    pub(super) fn manual(&mut self, node: &Node, text: impl Into<Arc<str>>) -> Note {
        self.mark(node, Mark::Manual, text)
    }

    pub(super) fn unsupported(&mut self, node: &Node, text: impl Into<Arc<str>>) -> Note {
        self.mark(node, Mark::Unsupported, text)
    }

    /// The name of what is at a place.
    pub(super) fn name(&self, node: &Node) -> String {
        let path = self
            .leaves
            .get(node.leaves.start)
            .map_or("", |leaf| &leaf.path);
        let name = path.rsplit('.').next().unwrap_or(path);
        name.split('[').next().unwrap_or(name).to_owned()
    }

    /// Whether anything at a place has no mark yet.
    pub(super) fn is_open(&self, node: &Node) -> bool {
        let leaves = self.leaves.get(node.leaves.clone()).unwrap_or_default();
        leaves.iter().any(|leaf| leaf.note.is_none())
    }

    /// Marks what is known of a setting by its name alone, unless it is marked already.
    pub(super) fn tell(&mut self, section: &str, key: &str, node: &Node) {
        if !self.is_open(node) {
            return;
        }
        if node.is_null() {
            return self.exact(node, "nothing is set");
        }
        let truth = node.truth();
        let Some(word) = self.words.of(section, key, truth) else {
            return;
        };
        let (mark, text) = (word.mark, word.text);
        match (mark, truth) {
            _ if word.value.is_some() => drop(self.mark(node, mark, text)),
            (Mark::Exact, Some(false)) => drop(self.approximate(node, text)),
            (Mark::Unsupported | Mark::Manual, Some(false)) => {
                self.exact(node, "it is off, and there is no such thing here");
            }
            _ => drop(self.mark(node, mark, text)),
        }
    }

    /// Marks what nobody has marked.
    pub(super) fn close(&mut self) {
        let [unknown, nothing] = [
            (Mark::Unsupported, "nothing of this name is known here"),
            (Mark::Exact, "nothing is set"),
        ]
        .map(|(mark, text)| Note {
            mark,
            text: text.into(),
        });
        for leaf in &mut self.leaves {
            let note = if leaf.is_empty { &nothing } else { &unknown };
            leaf.note.get_or_insert_with(|| note.clone());
        }
    }

    /// How many values have each mark, in the order of [`Mark::ALL`].
    pub(super) fn counts(&self) -> [usize; 4] {
        Mark::ALL.map(|mark| self.with(mark).count())
    }

    fn with(&self, mark: Mark) -> impl Iterator<Item = (&Leaf, &Note)> {
        let told = self
            .leaves
            .iter()
            .filter_map(|leaf| Some((leaf, leaf.note.as_ref()?)));
        told.filter(move |(_, note)| note.mark == mark)
    }

    /// Every value with its line and what became of it, as comments, the worst first; those of which the same is told together.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for mark in Mark::ALL.into_iter().rev() {
            let (mut told, mut places) = (Vec::new(), HashMap::new());
            for (leaf, note) in self.with(mark) {
                let place = *places.entry(&note.text).or_insert(told.len());
                if place == told.len() {
                    told.push((&note.text, Vec::new()));
                }
                told.get_mut(place)
                    .into_iter()
                    .for_each(|(_, leaves)| leaves.push(leaf));
            }
            for (said, leaves) in told {
                let _ = writeln!(text, "#\n# {}: {}", mark.name(), shown(said));
                for Leaf { path, line, .. } in leaves {
                    let _ = writeln!(text, "#   {path} (line {line})");
                }
            }
        }
        text
    }
}

/// A key as a part of a path.
fn part(key: &str) -> String {
    let is_bare = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    match !key.is_empty() && key.chars().all(is_bare) {
        true => key.to_owned(),
        false => format!("\"{}\"", shown(key)),
    }
}

/// On one line, and with nothing that a comment must not have.
pub(super) fn shown(text: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().collect(),
        false => String::from(c),
    };
    text.chars().map(shown).collect()
}
