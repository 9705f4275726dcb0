//! Where does each value begin and end? One walk over JSON that builds nothing, copies nothing and does not recurse.
//!
//! It takes what `serde_json` takes, and passes over what strings say many bytes at a time: most of a request is what
//! somebody said.

use std::ops::Range;

use smallvec::SmallVec;

/// What is no JSON, and where.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected} at line {line} column {column}")]
pub struct Flaw {
    expected: &'static str,
    line: usize,
    /// In bytes, from 1.
    column: usize,
}

/// A place in a text.
#[derive(Debug)]
pub(super) struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    /// Right behind the opening of an object or a list.
    opened: bool,
}

/// The name of a member, with its quotes.
pub(super) struct Name {
    pub(super) range: Range<usize>,
    /// It is not simply what stands between the quotes.
    pub(super) is_escaped: bool,
}

impl<'t> Scan<'t> {
    /// At the first word of a text, which is UTF-8.
    pub(super) fn new(text: &'t [u8]) -> Self {
        let mut scan = Self {
            text,
            at: 0,
            opened: false,
        };
        scan.space();
        scan
    }

    /// Behind an opening bracket, if there is one here.
    pub(super) fn open(&mut self, bracket: u8) -> bool {
        self.opened = self.take(bracket);
        self.opened
    }

    /// Whether more follows in the object or list that `closing` ends. If not, it was the end, and lies behind.
    pub(super) fn goes_on(&mut self, closing: u8) -> Result<bool, Flaw> {
        self.space();
        let opened = std::mem::take(&mut self.opened);
        if self.take(closing) {
            return Ok(false);
        }
        if !opened && !self.take(b',') {
            return Err(self.flaw(match closing {
                b'}' => "`,` or `}`",
                _ => "`,` or `]`",
            }));
        }
        Ok(true)
    }

    /// The name of a member, and on behind its colon.
    pub(super) fn name(&mut self) -> Result<Name, Flaw> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.flaw("a member's name, in quotes"));
        }
        let start = self.at;
        let is_escaped = self.string()?;
        let range = start..self.at;
        self.space();
        match self.take(b':') {
            true => Ok(Name { range, is_escaped }),
            false => Err(self.flaw("`:`")),
        }
    }

    /// A whole value, and on behind it.
    pub(super) fn value(&mut self) -> Result<Range<usize>, Flaw> {
        self.space();
        let start = self.at;
        // What closes those that are open.
        let mut open = SmallVec::<[u8; 32]>::new();
        loop {
            self.space();
            match self.peek() {
                Some(b'"') => _ = self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ if self.open(b'{') => open.push(b'}'),
                _ if self.open(b'[') => open.push(b']'),
                _ if self.word(b"true") || self.word(b"false") || self.word(b"null") => {}
                _ => return Err(self.flaw("a value")),
            }
            loop {
                let Some(closing) = open.last().copied() else {
                    return Ok(start..self.at);
                };
                if self.goes_on(closing)? {
                    if closing == b'}' {
                        self.name()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    /// Nothing may follow but white space.
    pub(super) fn end(&mut self) -> Result<(), Flaw> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.flaw("nothing more")),
        }
    }

    /// How many bytes lie behind.
    pub(super) fn passed(&self) -> usize {
        self.at
    }

    /// What is wrong at a place.
    pub(super) fn flaw_at(&self, at: usize, expected: &'static str) -> Flaw {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.rsplit(|byte| *byte == b'\n').next();
        Flaw {
            expected,
            line: 1 + memchr::memchr_iter(b'\n', before).count(),
            column: 1 + line.map_or(0, <[u8]>::len),
        }
    }

    fn flaw(&self, expected: &'static str) -> Flaw {
        self.flaw_at(self.at, expected)
    }

    fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let is_there = self.rest().starts_with(word);
        self.at += if is_there { word.len() } else { 0 };
        is_there
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes over a string. Whether it has escapes.
    fn string(&mut self) -> Result<bool, Flaw> {
        self.at += 1;
        let mut is_escaped = false;
        loop {
            self.at += plain(self.rest());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(is_escaped);
                }
                Some(b'\\') => {
                    is_escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.flaw("an escape instead of a control character")),
                None => return Err(self.flaw("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        let letter = self.text.get(self.at + 1);
        let digits = match letter {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
            Some(b'u') => 4,
            _ => return Err(self.flaw("an escape that JSON has")),
        };
        self.at += 2;
        let written = self.text.get(self.at..self.at + digits);
        if !written.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(self.flaw("four hexadecimal digits"));
        }
        self.at += digits;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Flaw> {
        self.take(b'-');
        // Nothing may follow a leading zero that is a digit, and nobody takes one where a number ends.
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        match self.at > start {
            true => Ok(()),
            false => Err(self.flaw("a digit")),
        }
    }
}

/// How many bytes from the start of a text stand for themselves in a string.
fn plain(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks::<32>();
    let passed = 32 * blocks.iter().take_while(|block| is_plain(block)).count();
    let rest = text.get(passed..).unwrap_or_default();
    passed
        + rest
            .iter()
            .position(|byte| ends(*byte) != 0)
            .unwrap_or(rest.len())
}

/// Looks at all of a block, whatever it finds, and adds up what it finds as bytes: of that the compiler makes a few
/// instructions on many bytes at a time.
fn is_plain(block: &[u8; 32]) -> bool {
    block.iter().fold(0, |found, byte| found | ends(*byte)) == 0
}

/// Not 0 for what does not stand for itself in a string.
fn ends(byte: u8) -> u8 {
    u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    fn whole(text: &[u8]) -> Result<Range<usize>, Flaw> {
        let mut scan = Scan::new(text);
        let value = scan.value()?;
        scan.end()?;
        Ok(value)
    }

    #[test]
    fn a_value_is_where_it_is() {
        for (text, want) in [
            (" 12 ", "12"),
            ("\t[ ]\n", "[ ]"),
            (
                "{\"a\":[{},\"]\",{\"b\":\"\\\"}\"}]}\r",
                "{\"a\":[{},\"]\",{\"b\":\"\\\"}\"}]}",
            ),
        ] {
            assert_eq!(&text[whole(text.as_bytes()).unwrap()], want);
        }
    }

    #[test]
    fn a_flaw_says_what_was_expected_and_where() {
        for (text, want) in [
            ("", "a value at line 1 column 1"),
            ("[1,]", "a value at line 1 column 4"),
            ("[1 2]", "`,` or `]` at line 1 column 4"),
            ("{\"a\":1 \"b\"", "`,` or `}` at line 1 column 8"),
            (
                "{\"a\":1,\n}",
                "a member's name, in quotes at line 2 column 1",
            ),
            ("{\n\n  \"a\" 1}", "`:` at line 3 column 7"),
            (
                "\"a\tb\"",
                "an escape instead of a control character at line 1 column 3",
            ),
            ("\"abc", "the end of a string at line 1 column 5"),
            ("\"\\x\"", "an escape that JSON has at line 1 column 2"),
            ("\"\\u12g4\"", "four hexadecimal digits at line 1 column 4"),
            ("\"\\u12\"", "four hexadecimal digits at line 1 column 4"),
            ("-", "a digit at line 1 column 2"),
            ("1.e5", "a digit at line 1 column 3"),
            ("1e+", "a digit at line 1 column 4"),
            ("01", "nothing more at line 1 column 2"),
            ("{} x", "nothing more at line 1 column 4"),
        ] {
            let flaw = whole(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(flaw, format!("expected {want}"), "{text}");
            assert!(serde_json::from_str::<IgnoredAny>(text).is_err(), "{text}");
        }
    }

    /// Wherever it lies in a block of bytes that are looked at together, and behind it.
    #[test]
    fn whatever_ends_a_run_is_seen_wherever_it_stands() {
        for at in 0..100 {
            for byte in 0..=0x7f_u8 {
                let mut text = vec![b'"'];
                text.extend(std::iter::repeat_n(b'x', at));
                text.push(byte);
                text.extend_from_slice(b"nyy\"");
                let ours = whole(&text).is_ok();
                let theirs = serde_json::from_slice::<IgnoredAny>(&text).is_ok();
                assert_eq!(ours, theirs, "{byte:#x} at {at}");
            }
        }
    }
}
