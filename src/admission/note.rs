//! For whom was it, and to what is it charged? Callers say so in words of their own, which are kept with what they spent.
//!
//! They are shown in tables, in logs and in spreadsheets later on. What could break a line there, or turn the letters
//! around, is left out.

use std::sync::Arc;

/// The longest that is kept, in characters.
const LONGEST: usize = 128;

/// What is kept of a word of a caller's: one line, not too long. None if nothing is left of it.
pub fn kept(text: &str) -> Option<Arc<str>> {
    let shown = text.chars().filter(|c| !is_hidden(*c));
    let mut shown = shown.skip_while(|c| c.is_whitespace()).peekable();
    shown.peek()?;
    let line: String = shown.take(LONGEST).collect();
    Some(line.trim_end().into())
}

/// Whether a character breaks lines, or changes in which direction others are read.
fn is_hidden(c: char) -> bool {
    let breaks_lines = matches!(c, '\u{2028}' | '\u{2029}');
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || breaks_lines || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_line_and_not_too_long() {
        let kept = |text: &str| kept(text).map(|kept| kept.to_string());
        let long = "é".repeat(200_000);
        for (written, want) in [
            ("dept-7", Some("dept-7")),
            ("  two words\u{3000}", Some("two words")),
            ("a\nb\r\tc\0\u{7f}\u{85}d", Some("abcd")),
            (
                "\u{202e}evil\u{2066}\u{2028}\u{2029}\u{61c}\u{200f}",
                Some("evil"),
            ),
            ("\n \u{202e} x \n", Some("x")),
            ("=1+1", Some("=1+1")),
            ("\"q\", 'r'", Some("\"q\", 'r'")),
            ("", None),
            (" \u{2069}\t\n", None),
            (&long, Some(&long[..2 * LONGEST])),
        ] {
            assert_eq!(
                kept(written).as_deref(),
                want,
                "{:.20}",
                written.escape_debug()
            );
        }
        let cut = format!("{} {}", "x".repeat(LONGEST - 1), "y");
        assert_eq!(
            kept(&cut),
            Some("x".repeat(LONGEST - 1)),
            "no space at the end"
        );
    }
}
