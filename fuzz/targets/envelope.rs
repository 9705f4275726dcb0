//! The scan takes what is JSON and can be read in one way; a splice changes what it names, and no other byte.

use bytes::Bytes;
use serde::de::IgnoredAny;
use tollgate::envelope::{Edits, Envelope, Malformed};

use super::Script;

const ACTED_ON: [&str; 4] = ["model", "max_tokens", "stream", "task"];
/// Names that edits speak of.
const NAMES: [&str; 8] = [
    "model",
    "max_tokens",
    "stream",
    "messages",
    "a",
    "b",
    "\u{e9}\"\\",
    "zz",
];
const VALUES: [&str; 6] = [
    "1",
    "null",
    "\"x\\n\"",
    "{}",
    r#"{"a":{"b":1}}"#,
    r#"[{"a":1},{"b":[2]}]"#,
];
/// Bodies above 16 KiB are spliced in another way.
const LONG: usize = 17 << 10;

/// The first line says what is changed, the rest is the body.
pub(crate) fn check(input: &[u8]) {
    let (mut script, text) = Script::split(input);
    let mut body = text.to_vec();
    if script.next() % 2 == 1 {
        body.splice(0..0, std::iter::repeat_n(b' ', LONG));
    }
    let body = Bytes::from(body);
    let scanned = Envelope::scan(body.clone(), |name| ACTED_ON.contains(&name));
    let is_json = serde_json::from_slice::<IgnoredAny>(&body).is_ok();
    let envelope = match scanned {
        Ok(envelope) => envelope,
        Err(why) => return is_refused_rightly(&why, &body, is_json),
    };
    assert!(is_json, "accepted, and no JSON");
    let mut model = Model::of(&body).expect("accepted, and no object");
    model.is_unambiguous();
    for member in &model.members {
        let value = envelope.value(&member.name).expect("a member is not found");
        assert_eq!(squeezed(value), member.value, "{}", member.name);
    }
    assert_eq!(
        envelope.edit().into_rope().to_vec(),
        body,
        "changed for nothing"
    );
    let mut edits = envelope.edit();
    while !script.is_over() {
        change(&mut script, &mut edits, &mut model);
    }
    // A change within a value shows when all is put together.
    for name in NAMES.into_iter().filter(|name| !model.is_changed(name)) {
        let want = model.at(name).map(|at| model.members[at].value.clone());
        assert_eq!(edits.get(name).map(squeezed), want, "{name}");
    }
    let got = edits.into_rope().to_vec();
    let shown = String::from_utf8_lossy(&got);
    assert_eq!(
        String::from_utf8_lossy(&squeezed(&got)),
        model.text(),
        "{shown}"
    );
    assert!(
        serde_json::from_slice::<IgnoredAny>(&got).is_ok(),
        "{shown}"
    );
}

fn is_refused_rightly(why: &Malformed, body: &[u8], is_json: bool) {
    let model = Model::of(body).filter(|_| is_json);
    match (why, model) {
        (Malformed::NotText(_), _) => assert!(std::str::from_utf8(body).is_err()),
        // A name with half a surrogate pair is no text, though it is passed over where nobody looks.
        (Malformed::NotJson(_), Some(_)) => panic!("refused, and an object: {why}"),
        (Malformed::NotJson(_), None) => {}
        (Malformed::NotObject, model) => assert!(is_json && model.is_none()),
        (Malformed::Twice(_), Some(model)) => assert!(model.twice()),
        (Malformed::Disguised(..), Some(model)) => assert!(model.disguised()),
        (Malformed::TooMany, model) => assert!(model.is_none_or(|m| m.members.len() > 256)),
        (Malformed::NoBoundary(_) | Malformed::NotForm(_) | Malformed::MustBeText(_), _) => {
            panic!("{why}, and it is JSON")
        }
        (_, None) => panic!("{why}, and it is none"),
    }
}

/// One change to both. What they say of it must be the same.
fn change(script: &mut Script<'_>, edits: &mut Edits<'_>, model: &mut Model) {
    let name = script.pick(&NAMES);
    match script.next() % 5 {
        0 => assert_eq!(edits.drop(name), model.drop(name)),
        1 => {
            let to = script.pick(&NAMES);
            // A member that is given its own name is not renamed: nobody asks for it.
            if to != name {
                edits.rename(name, to);
                model.rename(name, to);
            }
        }
        2 => {
            let value = script.pick(&VALUES);
            edits.set(name, Bytes::from_static(value.as_bytes()));
            model.set(name, value);
        }
        3 => {
            let (inner, value) = (script.pick(&NAMES), script.pick(&VALUES));
            let set = edits.set_within(name, inner, value.as_bytes());
            assert_eq!(set, model.set_within(name, inner, value));
        }
        _ => {
            let (gone, put, value) = (
                script.pick(&NAMES),
                script.pick(&NAMES),
                script.pick(&VALUES),
            );
            let is_gone = |name: &str, old: &[u8]| name == gone || old == b"null";
            edits.each_within(name, |object| {
                object.replace(put, Bytes::from_static(value.as_bytes()));
                object.drop(is_gone);
            });
            model.each_within(name, put, value, is_gone);
        }
    }
}

/// A member as text: its name as it reads and as it is written, and its value without white space.
#[derive(Clone)]
struct Member {
    name: String,
    key: String,
    value: Vec<u8>,
    /// Something in it was changed.
    changed: bool,
}

impl Member {
    fn new(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            key: quoted(name),
            value: squeezed(value.as_bytes()),
            changed: false,
        }
    }
}

/// An object, the plain way: its members in a list, each a text.
struct Model {
    members: Vec<Member>,
}

impl Model {
    /// Takes JSON apart. None if it is no object, or has a name that is no text.
    fn of(json: &[u8]) -> Option<Self> {
        let text = squeezed(json);
        let inner = text.strip_prefix(b"{")?.strip_suffix(b"}")?;
        let mut members = Vec::new();
        for pair in split(inner, b',') {
            let key = split(pair, b':').next()?;
            members.push(Member {
                name: serde_json::from_slice(key).ok()?,
                key: String::from_utf8(key.to_vec()).ok()?,
                value: pair.get(key.len() + 1..)?.to_vec(),
                changed: false,
            });
        }
        Some(Self { members })
    }

    fn text(&self) -> String {
        let pairs = self
            .members
            .iter()
            .map(|member| format!("{}:{}", member.key, String::from_utf8_lossy(&member.value)));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
    }

    /// What Go's readers take for the same: letters of either case, and the two signs that fold into letters.
    fn folded(&self) -> Vec<String> {
        let fold = |name: &str| {
            name.replace('\u{17f}', "s")
                .replace('\u{212a}', "k")
                .to_ascii_lowercase()
        };
        self.members
            .iter()
            .map(|member| fold(&member.name))
            .collect()
    }

    fn twice(&self) -> bool {
        let mut names = self.folded();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }

    fn disguised(&self) -> bool {
        let folded = self.folded();
        let mut pairs = self.members.iter().zip(&folded);
        pairs.any(|(member, folded)| member.name != *folded && ACTED_ON.contains(&folded.as_str()))
    }

    fn is_unambiguous(&self) {
        assert!(!self.twice(), "a member twice");
        assert!(!self.disguised(), "a member in disguise");
        assert!(self.members.len() <= 256, "too many members");
    }

    fn at(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == name)
    }

    fn drop(&mut self, name: &str) -> bool {
        let at = self.at(name);
        at.map(|at| self.members.remove(at)).is_some()
    }

    fn rename(&mut self, from: &str, to: &str) {
        if self.at(to).is_some() {
            self.drop(from);
        } else if let Some(at) = self.at(from) {
            to.clone_into(&mut self.members[at].name);
            self.members[at].key = quoted(to);
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        match self.at(name) {
            Some(at) => {
                let key = self.members[at].key.clone();
                self.members[at] = Member {
                    key,
                    ..Member::new(name, value)
                };
            }
            None => self.members.push(Member::new(name, value)),
        }
    }

    /// Whether something within a member was changed.
    fn is_changed(&self, name: &str) -> bool {
        self.at(name).is_some_and(|at| self.members[at].changed)
    }

    fn set_within(&mut self, name: &str, inner: &str, value: &str) -> bool {
        let Some(member) = self.at(name).map(|at| &mut self.members[at]) else {
            return false;
        };
        let Some(mut object) = Self::within(&member.value) else {
            return false;
        };
        object.set(inner, value);
        member.value = object.text().into_bytes();
        member.changed = true;
        true
    }

    fn each_within(
        &mut self,
        name: &str,
        put: &str,
        value: &str,
        gone: impl Fn(&str, &[u8]) -> bool,
    ) {
        let Some(member) = self.at(name).map(|at| &mut self.members[at]) else {
            return;
        };
        let list = member
            .value
            .strip_prefix(b"[")
            .and_then(|list| list.strip_suffix(b"]"));
        let Some(list) = list else {
            return;
        };
        let elements = split(list, b',').map(|element| {
            let Some(mut object) = Self::within(element) else {
                return element.to_vec();
            };
            let before: Vec<Member> = object.members.clone();
            if object.at(put).is_some() {
                object.set(put, value);
            }
            // It is shown the members as they were.
            let mut were = before.iter();
            object
                .members
                .retain(|_| were.next().is_some_and(|m| !gone(&m.name, &m.value)));
            object.text().into_bytes()
        });
        member.value = [&b"["[..], &elements.collect::<Vec<_>>().join(&b','), b"]"].concat();
        member.changed = true;
    }

    /// An object within a value, if it is one that is looked into.
    fn within(value: &[u8]) -> Option<Self> {
        Self::of(value).filter(|object| object.members.len() <= 256)
    }
}

/// JSON without white space between its words.
fn squeezed(json: &[u8]) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    let mut out = Vec::with_capacity(json.len());
    for &byte in json {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else {
            in_string = byte == b'"';
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                continue;
            }
        }
        out.push(byte);
    }
    out
}

/// The parts of squeezed JSON between separators that stand in no bracket and in no string.
fn split(json: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let parts = json.split(move |&byte| {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => return byte == separator && depth == 0,
        }
        false
    });
    parts.filter(|part| !part.is_empty())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
