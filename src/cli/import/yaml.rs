//! YAML's text as a tree whose nodes know their lines. What is no YAML, or would grow beyond bounds, is an error with its line.
//!
//! Aliases and merge keys are resolved here, so that whoever reads the tree sees what LiteLLM would: they are counted
//! before they are copied, so that a file of a few lines cannot become a tree of millions of nodes.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::Wrong;

/// No configuration is nested deeper.
const DEEPEST: usize = 64;
/// The most nodes of a tree, what aliases stand for included.
const MOST_NODES: usize = 100_000;
/// The most text of a tree, in bytes, what aliases stand for included.
const MOST_TEXT: usize = 16 << 20;
/// The longest key, in bytes.
const LONGEST_KEY: usize = 1_000;

/// What stands at one place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The line it begins in.
    pub line: usize,
    /// Which leaves of the file are its own, once they were numbered.
    pub leaves: Range<usize>,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// One word, number or text.
    Scalar {
        text: String,
        /// Without quotes: it may be a number, true, false or nothing.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// How much something is.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    /// In bytes.
    text: usize,
    /// How many levels are below it.
    levels: usize,
}

impl Size {
    fn hold(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.text += other.text;
        self.levels = self.levels.max(other.levels + 1);
    }
}

impl Node {
    fn new(line: usize, value: Value) -> Self {
        Self {
            line,
            leaves: 0..0,
            value,
        }
    }

    fn size(&self) -> Size {
        let mut size = Size {
            nodes: 1,
            ..Size::default()
        };
        match &self.value {
            Value::Scalar { text, .. } => size.text = text.len(),
            Value::List(list) => list.iter().for_each(|node| size.hold(node.size())),
            Value::Map(map) => {
                for (key, node) in map {
                    size.text += key.len();
                    size.hold(node.size());
                }
            }
        }
        size
    }

    /// The members of a map; nothing of anything else.
    pub(super) fn members(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Map(map) => map,
            _ => &[],
        }
    }

    /// The elements of a list; nothing of anything else.
    pub(super) fn elements(&self) -> &[Node] {
        match &self.value {
            Value::List(list) => list,
            _ => &[],
        }
    }

    /// A member of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let found = self.members().iter().find(|(name, _)| name == key);
        found.map(|(_, node)| node)
    }

    /// Whether nothing is written, or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if is_nothing(text))
    }

    /// What is written, if it is one word or text, and something.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// True or false, as Python's YAML reads it.
    pub(super) fn truth(&self) -> Option<bool> {
        self.text().and_then(truth)
    }

    /// A number that is not negative, as decimal digits with a point or an exponent where it has them.
    pub(super) fn number(&self) -> Option<String> {
        number(self.text()?)
    }

    /// A whole number.
    pub(super) fn whole(&self) -> Option<u64> {
        let number = self.number()?;
        let decimal = crate::usage::Decimal::parse(&number, 0).ok()?;
        decimal.exact()
    }

    /// The variable that it is read from: `os.environ/NAME`.
    pub(super) fn variable(&self) -> Option<&str> {
        self.text()?.strip_prefix("os.environ/")
    }

    /// What it is, for messages. Never what is written there.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn truth(text: &str) -> Option<bool> {
    let is_cased = |word: &str| {
        let capital = |c: char| c.to_ascii_uppercase().to_string();
        let mut rest = word.chars();
        let first = rest.next().map(capital).unwrap_or_default();
        text == word || text == first + rest.as_str() || text == word.to_ascii_uppercase()
    };
    if ["true", "yes", "on"].into_iter().any(is_cased) {
        Some(true)
    } else if ["false", "no", "off"].into_iter().any(is_cased) {
        Some(false)
    } else {
        None
    }
}

fn number(text: &str) -> Option<String> {
    let text = text.replace('_', "");
    let text = text.strip_prefix('+').unwrap_or(&text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, format!("e{exponent}")),
        None => (text, String::new()),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if part.is_empty() { "" } else { "." };
    let plain = format!("{whole}{point}{part}{exponent}");
    crate::usage::Decimal::parse(&plain, 0)
        .is_ok()
        .then_some(plain)
}

/// Reads a text of one document.
pub(super) fn read(text: &str) -> Result<Node, Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let line = e.marker().line();
            Wrong::at(line, format!("this is no YAML: {}", e.info()))
        })?;
        builder.take(event, &span)?;
    }
    let root = builder.root.filter(|root| !root.is_null());
    root.ok_or_else(|| {
        Wrong::whole("is empty; name the config.yaml that LiteLLM's proxy is started with")
    })
}

/// A list or a map that has not ended.
struct Open {
    line: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        members: Vec<(String, Node)>,
        /// In which line each key was.
        lines: HashMap<String, usize>,
        /// The key whose value comes next.
        key: Option<String>,
        /// What is merged in, in this order.
        merged: Vec<Node>,
    },
}

/// The key that merges another map in.
const MERGE: &str = "<<";

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    size: Size,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Wrong> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here; a configuration is one: take the `---` out, or import each on its own";
                    return Err(Wrong::at(line, message));
                }
                Ok(())
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    let message =
                        "an alias stands for what it is itself a part of; write out what is meant";
                    return Err(Wrong::at(line, message));
                };
                let size = node.size();
                self.fits(size.levels, line)?;
                self.count(size, line)?;
                let node = self.anchors.get(&anchor).cloned();
                node.map_or(Ok(()), |node| self.put(node))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain || is_text(tag.as_deref(), line)?;
                if self.awaits_key() {
                    return self.key(&text, quoted, line);
                }
                let size = Size {
                    nodes: 1,
                    text: text.len(),
                    levels: 0,
                };
                self.count(size, line)?;
                let plain = !quoted;
                let text = text.into_owned();
                self.close(Node::new(line, Value::Scalar { text, plain }), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                is_text(tag.as_deref(), line)?;
                self.begin(line, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                is_text(tag.as_deref(), line)?;
                let (members, lines, merged) = (Vec::new(), HashMap::new(), Vec::new());
                let content = Content::Map {
                    members,
                    lines,
                    key: None,
                    merged,
                };
                self.begin(line, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// Whether so many levels may stand below what is open.
    fn fits(&self, levels: usize, line: usize) -> Result<(), Wrong> {
        if self.open.len() + levels >= DEEPEST {
            let message = format!(
                "more than {DEEPEST} levels within each other; no configuration has so many"
            );
            return Err(Wrong::at(line, message));
        }
        Ok(())
    }

    fn count(&mut self, more: Size, line: usize) -> Result<(), Wrong> {
        self.size.nodes += more.nodes;
        self.size.text += more.text;
        if self.size.nodes > MOST_NODES || self.size.text > MOST_TEXT {
            let message = format!(
                "there is too much by here, what aliases stand for included: no configuration has more than {MOST_NODES} values or {} MiB of text",
                MOST_TEXT >> 20
            );
            return Err(Wrong::at(line, message));
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last().map(|open| &open.content),
            Some(Content::Map { key: None, .. })
        )
    }

    fn begin(&mut self, line: usize, anchor: usize, content: Content) -> Result<(), Wrong> {
        if self.awaits_key() {
            let message = "a key is a list or a map here; a key is one word or text";
            return Err(Wrong::at(line, message));
        }
        self.fits(0, line)?;
        let size = Size {
            nodes: 1,
            ..Size::default()
        };
        self.count(size, line)?;
        self.open.push(Open {
            line,
            anchor,
            content,
        });
        Ok(())
    }

    fn key(&mut self, text: &str, quoted: bool, line: usize) -> Result<(), Wrong> {
        let Some(Content::Map { key, lines, .. }) =
            self.open.last_mut().map(|open| &mut open.content)
        else {
            return Ok(());
        };
        if text.len() > LONGEST_KEY {
            let message =
                format!("a key of more than {LONGEST_KEY} bytes; no setting has such a name");
            return Err(Wrong::at(line, message));
        }
        let is_other = is_nothing(text) || truth(text).is_some() || number(text).is_some();
        if !quoted && is_other {
            let message = format!(
                "the key `{}` is no text to YAML but a number, true, false or nothing; put it in quotes, or mend it",
                text.escape_debug()
            );
            return Err(Wrong::at(line, message));
        }
        let is_merge = !quoted && text == MERGE;
        if !is_merge && let Some(first) = lines.insert(text.to_owned(), line) {
            let message = format!(
                "`{}` was given in line {first} already; LiteLLM takes the last one without a word: keep the one that is meant",
                text.escape_debug()
            );
            return Err(Wrong::at(line, message));
        }
        *key = Some(text.to_owned());
        let size = Size {
            text: text.len(),
            ..Size::default()
        };
        self.count(size, line)
    }

    fn end(&mut self) -> Result<(), Wrong> {
        let Some(Open {
            line,
            anchor,
            content,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match content {
            Content::List(list) => Value::List(list),
            Content::Map {
                mut members,
                mut lines,
                merged,
                ..
            } => {
                for (key, node) in merged.into_iter().flat_map(entries) {
                    if lines.insert(key.clone(), line).is_none() {
                        members.push((key, node));
                    }
                }
                Value::Map(members)
            }
        };
        self.close(Node::new(line, value), anchor)
    }

    /// What is whole can be referred to from here on.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Wrong> {
        if anchor > 0 {
            self.count(node.size(), node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node)
    }

    /// Puts a node where it belongs.
    fn put(&mut self, node: Node) -> Result<(), Wrong> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(list) => list.push(node),
            Content::Map {
                members,
                lines,
                key,
                merged,
            } => match key.take() {
                Some(name) if name == MERGE && !lines.contains_key(MERGE) => {
                    merged.extend(mergeable(node)?);
                }
                Some(name) => members.push((name, node)),
                None => {
                    let message = "an alias is a key here; a key is one word or text";
                    return Err(Wrong::at(node.line, message));
                }
            },
        }
        Ok(())
    }
}

fn entries(node: Node) -> Vec<(String, Node)> {
    match node.value {
        Value::Map(map) => map,
        _ => Vec::new(),
    }
}

/// The maps that a merge key names.
fn mergeable(node: Node) -> Result<Vec<Node>, Wrong> {
    let line = node.line;
    let all = match node.value {
        Value::List(list) => list,
        value => vec![Node::new(line, value)],
    };
    if all.iter().all(|node| matches!(node.value, Value::Map(_))) {
        return Ok(all);
    }
    let message = "`<<` merges maps, and this is none";
    Err(Wrong::at(line, message))
}

/// Whether a tag makes text of what would be a number. Tags that mean something to other programs are none here.
fn is_text(tag: Option<&Tag>, line: usize) -> Result<bool, Wrong> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
        Some(tag) => {
            let message = format!(
                "the tag `{}{}` means nothing to LiteLLM or tollgate; take it out",
                tag.handle.escape_debug(),
                tag.suffix.escape_debug()
            );
            Err(Wrong::at(line, message))
        }
    }
}
