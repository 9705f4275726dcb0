//! How the parts of a form are written: added, taken out, given another name or content.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::rope::Patch;
use super::{Malformed, Object, parse_string, shown};

/// What is written before the name of a part.
const BEFORE_NAME: &[u8] = b"\r\nContent-Disposition: form-data; name=";
/// What is written between the name of a part and its content.
const AFTER_NAME: &[u8] = b"\r\n\r\n";
/// What is written after its content.
const AFTER: &[u8] = b"\r\n";

/// What is known of a form besides where the names and contents of its parts lie.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// Two dashes and the boundary: what a part begins with.
    dashes: Box<[u8]>,
    parts: Vec<Part>,
}

/// What is known of a part besides where its name and its content lie.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Where it begins, with its boundary. It ends where the next one begins.
    pub(super) start: usize,
    /// The header that states how long its content is; empty if none does.
    pub(super) stated: Range<usize>,
    pub(super) is_file: bool,
}

impl Form {
    pub(super) fn new(dashes: Vec<u8>, parts: Vec<Part>) -> Self {
        let dashes = dashes.into();
        Self { dashes, parts }
    }

    pub(super) fn is_file(&self, n: usize) -> bool {
        self.parts.get(n).is_some_and(|part| part.is_file)
    }

    /// Refuses parts that are acted on and that are not one text to every reader.
    pub(super) fn refuse_files(
        &self,
        object: &Object,
        body: &[u8],
        acted_on: impl Fn(&str) -> bool,
    ) -> Result<(), Malformed> {
        for (n, member) in object.members.iter().enumerate() {
            let name = object.name(body, n);
            let is_text = || {
                let content = body.get(member.value.clone()).unwrap_or_default();
                !self.is_file(n) && std::str::from_utf8(content).is_ok()
            };
            if acted_on(name) && !is_text() {
                return Err(Malformed::MustBeText(shown(name)));
            }
        }
        Ok(())
    }

    /// Patches that take the `gone` parts out, whole.
    pub(super) fn remove(
        &self,
        close: usize,
        gone: impl Fn(usize) -> bool,
        patches: &mut Vec<Patch>,
    ) {
        for (n, part) in self.parts.iter().enumerate().filter(|(n, _)| gone(*n)) {
            let end = self.parts.get(n + 1).map_or(close, |next| next.start);
            patches.push(Patch {
                range: part.start..end,
                bytes: Bytes::new(),
            });
        }
    }

    /// More parts, as they are written before the closing boundary.
    pub(super) fn added<'a>(&self, members: impl Iterator<Item = (&'a str, &'a [u8])>) -> Bytes {
        let mut bytes = Vec::new();
        for (name, value) in members {
            let name = quoted(name);
            for piece in [
                &self.dashes,
                BEFORE_NAME,
                name.as_bytes(),
                AFTER_NAME,
                value,
                AFTER,
            ] {
                bytes.extend_from_slice(piece);
            }
        }
        bytes.into()
    }

    /// How much is written around the name and the content of a part that is added.
    pub(super) fn around(&self) -> usize {
        self.dashes.len() + BEFORE_NAME.len() + AFTER_NAME.len() + AFTER.len()
    }

    /// A patch that goes with another content: nothing is to state how long the old one was.
    pub(super) fn unstated(&self, n: usize) -> Option<Patch> {
        let stated = self.parts.get(n)?.stated.clone();
        (!stated.is_empty()).then(|| Patch {
            range: stated,
            bytes: Bytes::new(),
        })
    }

    /// A value that is given as JSON, as the content of a part: a string is its text, anything else is what it is.
    ///
    /// The client has chosen the boundary, and may have chosen one that the value has. A line of it that begins with the
    /// boundary gets a space in front: to leave the value out would be to let the client choose what a rule sets, and a
    /// form with another boundary needs another Content-Type.
    pub(super) fn value(&self, json: Bytes) -> Bytes {
        let text = match parse_string(&json) {
            Some(text) => Bytes::from(text.into_owned()),
            None => json,
        };
        let begins_line = |at: &usize| match at.checked_sub(1) {
            Some(before) => matches!(text.get(before), Some(b'\r' | b'\n')),
            None => true,
        };
        let mut places = memmem::find_iter(&text, &self.dashes)
            .filter(begins_line)
            .peekable();
        if places.peek().is_none() {
            return text;
        }
        let mut written = Vec::with_capacity(text.len() + 1);
        let mut from = 0;
        for at in places {
            written.extend_from_slice(text.get(from..at).unwrap_or_default());
            written.push(b' ');
            from = at;
        }
        written.extend_from_slice(text.get(from..).unwrap_or_default());
        written.into()
    }
}

/// Whether two names, folded, may be read as one. Only lists are written in several parts, and some readers take `a[]`
/// for a list called `a`.
pub(super) fn are_one(one: &[u8], other: &[u8]) -> bool {
    match (one.strip_suffix(b"[]"), other.strip_suffix(b"[]")) {
        (Some(_), Some(_)) => false,
        (list, other_list) => list.unwrap_or(one) == other_list.unwrap_or(other),
    }
}

/// A name as it is written in a header, with its quotes. What would end it there is escaped as browsers do.
pub(super) fn quoted(name: &str) -> String {
    let mut quoted = String::with_capacity(quoted_length(name));
    quoted.push('"');
    for letter in name.chars() {
        match ends(letter) {
            true => quoted.push_str(&format!("%{:02X}", u32::from(letter))),
            false => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// How long a name is, as it is written.
pub(super) fn quoted_length(name: &str) -> usize {
    let escaped = name.chars().filter(|letter| ends(*letter)).count();
    name.len() + "\"\"".len() + escaped * "%0".len()
}

fn ends(letter: char) -> bool {
    letter.is_ascii_control() || matches!(letter, '"' | '\\')
}

#[cfg(test)]
mod tests {
    use super::super::multipart::tests::{
        BOUNDARY, Written, content, field, file, form, parts_of, split, written,
    };
    use super::super::{Edits, Envelope, Members as _};
    use super::*;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    fn envelope(body: Vec<u8>) -> Envelope {
        Envelope::form(body.into(), BOUNDARY.as_bytes(), |_| false).unwrap()
    }

    fn raw(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[track_caller]
    fn check(parts: &[Written], change: impl FnOnce(&mut Edits<'_>), want: &[Written]) {
        let body = written(parts);
        let envelope = envelope(body.clone());
        let mut edits = envelope.edit();
        change(&mut edits);
        let (length, files) = (edits.length(), edits.file_bytes());
        let got = edits.into_rope().to_vec();
        let shown = String::from_utf8_lossy(&got);
        assert_eq!(shown, String::from_utf8_lossy(&written(want)));
        let longer = (body.len() + got.len()) as u64;
        assert!((got.len() as u64..=longer).contains(&length), "{length}");
        let again = Envelope::form(got.into(), BOUNDARY.as_bytes(), |_| false).unwrap();
        assert_eq!(files, again.file_bytes());
    }

    #[test]
    fn parts_are_changed_as_members_are() {
        let parts = [field("model", "a"), file("file", "\0\r\n"), field("n", "1")];
        let [_, upload, n] = parts.clone();
        check(&parts, |_| (), &parts);
        check(
            &parts,
            |e| e.set("model", raw(r#""\u0062\n\"""#)),
            &[field("model", "b\n\""), upload.clone(), n.clone()],
        );
        check(
            &parts,
            |e| {
                assert!(e.drop("model"));
                assert!(!e.drop("model"));
                assert!(e.drop("n"));
            },
            std::slice::from_ref(&upload),
        );
        check(
            &parts,
            |e| {
                e.set("temperature", raw("0.5"));
                e.set("list", raw("[1]"));
                e.set("text", raw("\"x\""));
                assert_eq!(e.get("text"), Some(&b"x"[..]));
                e.set("text", raw("\"y\""));
                e.rename("file", "audio");
                e.rename("list", "l[]");
                e.rename("n", "temperature");
            },
            &[
                field("model", "a"),
                file("audio", "\0\r\n"),
                field("temperature", "0.5"),
                field("l[]", "[1]"),
                field("text", "y"),
            ],
        );
        check(
            &parts,
            |e| assert!(["model", "file", "n"].iter().all(|n| e.drop(n))),
            &[],
        );
        check(&[], |e| e.set("a", raw("true")), &[field("a", "true")]);
        check(
            &parts[..1],
            |e| {
                e.drop("model");
                e.set("a", raw("1"));
            },
            &[field("a", "1")],
        );
    }

    #[test]
    fn the_parts_of_a_list_go_together() {
        let parts = [
            field("i[]", "1"),
            field("x", "2"),
            field("i[]", "3"),
            field("i[]", "4"),
        ];
        let [one, other, three, four] = parts.clone();
        check(
            &parts,
            |e| assert!(e.drop("i[]")),
            std::slice::from_ref(&other),
        );
        check(
            &parts,
            |e| e.set("i[]", raw("7")),
            &[field("i[]", "7"), other.clone()],
        );
        check(
            &parts,
            |e| {
                e.rename("i[]", "j[]");
                assert_eq!(e.get("j[]"), Some(&b"1"[..]));
                assert_eq!(e.names().collect::<Vec<_>>(), ["j[]", "x", "j[]", "j[]"]);
            },
            &[
                field("j[]", "1"),
                other.clone(),
                field("j[]", "3"),
                field("j[]", "4"),
            ],
        );
        check(
            &parts,
            |e| e.rename("i[]", "x"),
            std::slice::from_ref(&other),
        );
        check(&parts, |e| e.rename("x", "i[]"), &[one, three, four]);
    }

    #[test]
    fn there_is_nothing_within_a_text() {
        let parts = [field("o", "{}"), field("l", "[{}]")];
        let want = [field("o", "{}"), field("l", "[{}]"), field("s", "{}")];
        check(
            &parts,
            |e| {
                e.set("s", raw("{}"));
                assert!(!e.set_within("o", "a", b"1"));
                assert!(!e.set_within("s", "a", b"1"));
                e.each_within("l", |_| panic!("it is a text"));
            },
            &want,
        );
    }

    #[test]
    fn nothing_states_the_length_of_what_was_there() {
        let stated = |name: &str, content: &str| {
            let (headers, content) = field(name, content);
            let length = content.len();
            (
                format!("Content-Length: {length}\r\n{headers}\r\nX: y"),
                content,
            )
        };
        check(
            &[stated("model", "a"), stated("b", "c")],
            |e| e.set("model", raw("\"long\"")),
            &[
                (
                    format!("{}\r\nX: y", field("model", "").0),
                    b"long".to_vec(),
                ),
                stated("b", "c"),
            ],
        );
    }

    #[test]
    fn no_value_and_no_name_breaks_a_form() {
        let dashes = format!("--{BOUNDARY}");
        let value = |text: &str| Bytes::from(serde_json::Value::from(text).to_string());
        for (text, want) in [
            (format!("{dashes}--"), format!(" {dashes}--")),
            (format!("a\r\n{dashes}\r\n"), format!("a\r\n {dashes}\r\n")),
            (
                format!("\n{dashes}\r{dashes}"),
                format!("\n {dashes}\r {dashes}"),
            ),
            (
                format!("a{dashes} \n -{dashes}"),
                format!("a{dashes} \n -{dashes}"),
            ),
            ("\r\n--\r\n".into(), "\r\n--\r\n".into()),
        ] {
            let set = |e: &mut Edits<'_>| {
                e.set("a", value(&text));
                e.set("z", value(&text));
            };
            check(
                &[field("a", "1")],
                set,
                &[field("a", &want), field("z", &want)],
            );
        }
        let envelope = envelope(written(&[field("a", "1")]));
        let mut edits = envelope.edit();
        let name = format!("\"\r\n\r\n\\{dashes}\r\n");
        edits.rename("a", &name);
        edits.set("b\"\\", raw("2"));
        let length = edits.length();
        let body = edits.into_rope().to_vec();
        assert!(length >= body.len() as u64);
        let name = format!("%22%0D%0A%0D%0A%5C{dashes}%0D%0A");
        assert_eq!(split(&body), [field(&name, "1"), field("b%22%5C", "2")]);
    }

    /// Also what is written without quotes, and behind an empty line.
    #[test]
    fn bytes_that_no_edit_names_stay() {
        let body = format!(
            "\r\n--{BOUNDARY}\r\ncontent-disposition: Form-Data ;name=a\r\n\r\n1\r\n--{BOUNDARY}--"
        );
        let envelope = envelope(body.clone().into());
        assert_eq!(envelope.edit().into_rope().to_vec(), body.as_bytes());
        let mut edits = envelope.edit();
        edits.rename("a", "b");
        assert!(edits.length() >= body.len() as u64 + 2);
        let want = body.replace("name=a", "name=\"b\"");
        assert_eq!(edits.into_rope().to_vec(), want.as_bytes());
    }

    #[tokio::test]
    async fn a_file_is_not_copied() {
        let upload = "\0".repeat(1 << 20);
        let parts = [field("model", "a"), file("file", &upload), field("n", "1")];
        let body = Bytes::from(written(&parts));
        let envelope = Envelope::form(body.clone(), BOUNDARY.as_bytes(), |_| false).unwrap();
        let within = |piece: &[u8]| body.as_ptr_range().contains(&piece.as_ptr());
        assert!(within(envelope.value("file").unwrap()));
        let mut edits = envelope.edit();
        edits.set("model", raw("\"other\""));
        edits.rename("file", "audio");
        edits.drop("n");
        edits.set("z", raw("1"));
        let mut rope = edits.into_rope();
        let mut own = 0;
        while let Some(frame) = rope.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            own += if within(&piece) { 0 } else { piece.len() };
        }
        assert!(own < 200, "{own} bytes are not the client's");
    }

    #[derive(Clone, Debug)]
    enum Change {
        Drop(&'static str),
        Rename(&'static str, &'static str),
        Set(&'static str, String),
    }

    const NAMES: [&str; 6] = ["a", "model", "file", "include[]", "größe", "z[]"];

    fn change() -> impl Strategy<Value = Change> {
        let name = || prop::sample::select(&NAMES[..]);
        let plain = || name().prop_filter("no list", |name| !name.ends_with("[]"));
        let text = content().prop_map(|content| String::from_utf8_lossy(&content).into_owned());
        prop_oneof![
            name().prop_map(Change::Drop),
            // What is given several times keeps a name that may be.
            (plain(), plain()).prop_map(|(from, to)| Change::Rename(from, to)),
            Just(Change::Rename("include[]", "z[]")),
            (name(), text).prop_map(|(name, text)| Change::Set(name, text)),
        ]
    }

    fn is_named((headers, _): &Written, name: &str) -> bool {
        headers.contains(&format!("; name=\"{name}\""))
    }

    /// The same change to a list of parts.
    fn apply(parts: &mut Vec<Written>, change: &Change) {
        let has = |parts: &[Written], name: &str| parts.iter().any(|part| is_named(part, name));
        match change {
            Change::Drop(name) => parts.retain(|part| !is_named(part, name)),
            Change::Rename(from, to) if has(parts, to) => {
                parts.retain(|part| !is_named(part, from));
            }
            Change::Rename(from, to) => {
                for (headers, _) in parts.iter_mut() {
                    *headers =
                        headers.replace(&format!("; name=\"{from}\""), &format!("; name=\"{to}\""));
                }
            }
            Change::Set(name, text) => {
                let mut is_first = true;
                parts.retain_mut(|part| {
                    let is = is_named(part, name);
                    if is && is_first {
                        part.1 = text.clone().into();
                    }
                    !is || std::mem::take(&mut is_first)
                });
                if is_first {
                    parts.push(field(name, text));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_parts(
            parts in form(),
            long in any::<bool>(),
            changes in prop::collection::vec(change(), 0..8),
        ) {
            let mut parts = parts;
            if long {
                // Longer than what is spliced flat.
                parts.push(file("upload", "\r\n--x".repeat(5000)));
            }
            let envelope = envelope(written(&parts));
            let mut edits = envelope.edit();
            for change in &changes {
                match change {
                    Change::Drop(name) => {
                        let has = parts.iter().any(|part| is_named(part, name));
                        prop_assert_eq!(edits.drop(name), has);
                    }
                    // To give a part its own name is no renaming.
                    Change::Rename(from, to) if from == to => continue,
                    Change::Rename(from, to) => edits.rename(from, to),
                    Change::Set(name, text) => {
                        edits.set(name, serde_json::Value::from(text.as_str()).to_string().into());
                        prop_assert_eq!(edits.get(name), Some(text.as_bytes()));
                    }
                }
                apply(&mut parts, change);
            }
            let (length, files) = (edits.length(), edits.file_bytes());
            let got = edits.into_rope().to_vec();
            prop_assert!(length >= got.len() as u64);
            prop_assert_eq!(&split(&got), &parts);
            let again = Envelope::form(got.into(), BOUNDARY.as_bytes(), |_| false).unwrap();
            let read = parts_of(&again);
            prop_assert_eq!(read.len(), parts.len());
            for ((name, content), part) in read.into_iter().zip(&parts) {
                prop_assert!(is_named(part, name));
                prop_assert_eq!(content, &part.1);
            }
            // What has become a text has a file's headers still.
            prop_assert!(files <= again.file_bytes());
        }
    }
}
