//! What the rules took out of a request, for the header that tells the client.

use http::HeaderValue;

/// More names than this are not told.
const MOST: usize = 32;
/// The longest name that is told, in bytes.
const LONGEST: usize = 64;

/// The names of members that were left out, in the order that happened, each once.
#[derive(Debug, Default)]
pub struct Dropped(Vec<String>);

impl Dropped {
    /// Notes a member by its name and by what stands before it: `messages[].`, or nothing at the top.
    pub(super) fn note(&mut self, within: &str, name: &str) {
        let name = shown(name);
        let known = |told: &String| told.strip_prefix(within) == Some(name);
        if self.0.len() < MOST && !self.0.iter().any(known) {
            self.0.push([within, name].concat());
        }
    }

    /// The value of `x-tollgate-dropped`, if there is anything to tell.
    pub fn header(&self) -> Option<HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        HeaderValue::from_str(&self.0.join(", ")).ok()
    }
}

/// A name as it may stand in a header's list: a client wrote it, and it may be anything.
pub(super) fn shown(name: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    if name.len() <= LONGEST && !name.is_empty() && name.bytes().all(plain) {
        name
    } else {
        "?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_once_in_order_and_not_without_end() {
        let mut dropped = Dropped::default();
        assert_eq!(dropped.header(), None);
        let long = "x".repeat(LONGEST + 1);
        for name in ["user", "a b", "user", "n", &long, "é", "a,b", "\u{7f}", ""] {
            dropped.note("", name);
        }
        dropped.note("messages[].", "user");
        dropped.note("messages[].", "user");
        dropped.note("messages[].", "\n");
        let told = dropped.header().unwrap();
        assert_eq!(told, "user, ?, n, messages[].user, messages[].?");
        (0..100).for_each(|n| dropped.note("", &format!("{n:064}")));
        assert_eq!(dropped.0.len(), MOST);
        assert!(dropped.header().unwrap().len() <= MOST * (LONGEST + 13));
    }
}
