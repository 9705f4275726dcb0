//! What does an answer tell of its usage while it passes? Found in an answer of any length, with bounded memory.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::tokens::{Tokens, searches, seconds};
use super::units::look;
use super::{Endpoint, Skimmer};
use crate::usage::{Look, Unit, Usage};

/// Finds `usage` at the top level of an object of any length, with bounded memory, and whether the object was complete. Of some
/// answers also what tells a unit that is no token, what pictures are like, or by which id a response can be gone on from. It
/// checks as little as that takes: an answer is the provider's to write, and the client's to read.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what a byte means depends on each of them"
)]
pub(super) struct Skim {
    /// The object has begun.
    started: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// At the top level, a name comes next.
    wants_name: bool,
    name: Name,
    /// What came in earlier pieces of the value of `usage`.
    value: Option<Vec<u8>>,
    broken: bool,
    usage: Option<Usage>,
    tells: Tells,
    /// How many of its unit it told.
    own: Option<u64>,
    /// What it told its pictures to be like.
    look: Look,
    response_id: Option<Box<str>>,
}

/// What an answer tells beside `usage`.
#[derive(Clone, Copy, Debug, Default)]
enum Tells {
    /// Nothing that matters.
    #[default]
    Nothing,
    /// In one member, how much it took of a unit.
    Count(&'static [u8], Unit),
    /// What its pictures are like.
    Look,
    /// By which id it can be gone on from.
    Id,
}

impl Tells {
    /// Whether a member has some of it.
    fn is_in(self, name: &Name) -> bool {
        match self {
            Self::Nothing => false,
            Self::Count(own, _) => name.is(own),
            Self::Id => name.is(b"id"),
            Self::Look => name.is(b"size") || name.is(b"quality"),
        }
    }
}

/// The longest value that is read, in bytes.
const LONGEST_VALUE: usize = 16 << 10;

/// The longest id that is kept, in bytes: `OpenAI`'s have fewer than a hundred.
const LONGEST_ID: usize = 256;

/// An id of a response. None: it is none, or one that nobody would write.
pub(super) fn id(raw: &RawValue) -> Option<Box<str>> {
    let id = serde_json::from_str::<Cow<'_, str>>(raw.get()).ok()?;
    let is_plain = !id.is_empty() && id.len() <= LONGEST_ID && !id.contains(char::is_control);
    is_plain.then(|| id.into())
}

/// The start of a member's name: enough to know the one that matters from all others.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    bytes: [u8; 9],
    length: usize,
}

impl Name {
    fn push(&mut self, text: &[u8]) {
        let free = self.bytes.iter_mut().skip(self.length);
        free.zip(text).for_each(|(slot, byte)| *slot = *byte);
        self.length = self.length.saturating_add(text.len());
    }

    fn is(&self, name: &[u8]) -> bool {
        self.bytes.get(..self.length) == Some(name)
    }
}

impl Skim {
    /// For the answers of an endpoint.
    pub(super) fn of(endpoint: Endpoint) -> Self {
        Self {
            tells: match endpoint {
                // With `response_format` = `verbose_json`.
                Endpoint::Transcriptions | Endpoint::Translations => {
                    Tells::Count(b"duration", Unit::Seconds)
                }
                Endpoint::Rerank => Tells::Count(b"meta", Unit::Searches),
                Endpoint::ImageGenerations | Endpoint::ImageEdits => Tells::Look,
                Endpoint::Responses => Tells::Id,
                _ => Tells::Nothing,
            },
            ..Self::default()
        }
    }

    /// Whether the member that is under way matters.
    fn matters(&self) -> bool {
        self.name.is(b"usage") || self.tells.is_in(&self.name)
    }

    /// Reads on within a string: to its end, to an escape, or to the end of the text. How many bytes that were.
    fn string(&mut self, text: &[u8]) -> usize {
        let is_name = self.depth == 1 && self.wants_name;
        if self.escaped {
            self.escaped = false;
            return 1;
        }
        // Inside a string only its end matters.
        let run = memchr::memchr2(b'"', b'\\', text).unwrap_or(text.len());
        if is_name {
            // With the backslash of an escape: a name that has one is not the one that matters.
            let shown = run + usize::from(text.get(run) == Some(&b'\\'));
            self.name.push(text.get(..shown).unwrap_or_default());
        }
        match text.get(run) {
            Some(b'"') => {
                self.in_string = false;
                self.wants_name &= !is_name;
            }
            Some(_) => self.escaped = true,
            None => {}
        }
        run + 1
    }

    /// A member of the top level is over; `last` is what this piece has of its value, if the value matters.
    fn close(&mut self, last: Option<&[u8]>) {
        let earlier = self.value.take();
        if let Some(last) = last {
            let whole = match earlier {
                Some(mut earlier) if !earlier.is_empty() => {
                    earlier.extend_from_slice(last);
                    Cow::Owned(earlier)
                }
                _ => Cow::Borrowed(last),
            };
            self.read(&whole);
        }
        self.name = Name::default();
    }
}

impl Skim {
    /// The value of a member that matters.
    fn read(&mut self, value: &[u8]) {
        if self.name.is(b"usage") {
            let tokens = serde_json::from_slice::<Tokens<'_>>(value).ok();
            // Who ranks may tell nothing but the whole.
            let ranks = matches!(self.tells, Tells::Count(_, Unit::Searches));
            let whole = tokens.as_ref().and_then(Tokens::only_total);
            let whole = whole.filter(|_| ranks).map(|input| Usage {
                input,
                ..Usage::default()
            });
            self.usage = tokens.and_then(Tokens::usage).or(whole).or(self.usage);
            return;
        }
        let Ok(raw) = serde_json::from_slice::<&RawValue>(value) else {
            return;
        };
        match self.tells {
            Tells::Nothing => {}
            Tells::Count(_, unit) => {
                let told = match unit {
                    Unit::Searches => searches(raw),
                    _ => seconds(raw),
                };
                self.own = told.or(self.own);
            }
            Tells::Look => {
                let raw = Some(raw.get().as_bytes());
                let told = match self.name.is(b"size") {
                    true => look(raw, None),
                    false => look(None, raw),
                };
                self.look = told.over(self.look);
            }
            Tells::Id => self.response_id = id(raw).or(self.response_id.take()),
        }
    }
}

impl Skimmer for Skim {
    fn feed(&mut self, piece: &[u8]) {
        let mut at = 0;
        // Where the value that matters starts in this piece.
        let mut from = self.value.is_some().then_some(0);
        while let Some(&byte) = piece.get(at) {
            if self.in_string {
                at += self.string(piece.get(at..).unwrap_or_default());
                continue;
            }
            match byte {
                b'"' => {
                    self.broken |= self.depth == 0;
                    self.in_string = true;
                    at += 1 + self.string(piece.get(at + 1..).unwrap_or_default());
                    continue;
                }
                b'{' | b'[' => {
                    self.broken |= self.depth == 0 && (self.started || byte == b'[');
                    self.started = true;
                    self.depth += 1;
                    self.wants_name = self.depth == 1;
                }
                b',' | b'}' | b']' if self.depth == 1 => {
                    self.close(from.take().and_then(|from| piece.get(from..at)));
                    self.wants_name = true;
                    self.depth -= usize::from(byte != b',');
                }
                b'}' | b']' => {
                    self.broken |= self.depth == 0;
                    self.depth = self.depth.saturating_sub(1);
                }
                b':' if self.depth == 1 && self.matters() => {
                    from = from.or(Some(at + 1));
                }
                // Within a member's value nothing matters but how deep it goes.
                _ if self.depth > 1 => {
                    let matters = |byte: &u8| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
                    let rest = piece.get(at..).unwrap_or_default();
                    at += rest.iter().position(matters).unwrap_or(rest.len());
                    continue;
                }
                // Outside of everything there is nothing but white space.
                _ => self.broken |= self.depth == 0 && !byte.is_ascii_whitespace(),
            }
            at += 1;
        }
        if let Some(rest) = from.and_then(|from| piece.get(from..)) {
            let value = self.value.get_or_insert_default();
            if value.len() + rest.len() > LONGEST_VALUE {
                // Forget it, and its name, so that what is left of it is not taken for the whole.
                self.value = None;
                self.name = Name::default();
            } else {
                value.extend_from_slice(rest);
            }
        }
    }

    fn usage(&self) -> Option<Usage> {
        let known = || self.usage.unwrap_or_default();
        match (self.tells, self.own) {
            // What is told in the usage itself is what is billed.
            (Tells::Count(_, unit), Some(count)) => match known().units(unit) {
                0 => Some(known().with(unit, count)),
                _ => self.usage,
            },
            (Tells::Look, _) if !self.look.is_any() => Some(Usage {
                look: self.look,
                ..known()
            }),
            _ => self.usage,
        }
    }

    fn response_id(&self) -> Option<&str> {
        self.response_id.as_deref()
    }

    fn is_complete(&self) -> bool {
        self.started && self.depth == 0 && !self.broken
    }
}
