//! What is asked? The top-level members of a request body, found in one pass and never copied.
//!
//! A body is a JSON object, or form data, whose parts are members like any other: only what writes a member knows which
//! of the two it is.
//!
//! What we read and what the provider reads must be the same, or we route and bill by one `model` and the provider
//! answers another: a body with a member twice is rejected, also when written with escapes, also when the two differ
//! only in case (Go's `encoding/json` folds case). Of form data whatever common readers are known to take in different
//! ways is rejected. Knows no other room.

mod read;
mod rope;
mod scan;
mod multipart;
mod part;
mod form;
mod json;
mod splice;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Visitor};
use smallvec::SmallVec;

use form::Form;
pub use multipart::{Defect, boundary};
pub use read::{Unread, read};
pub use rope::Rope;
pub use scan::Flaw;
use scan::Scan;
pub use splice::Edits;

/// More members than any request of the OpenAI family has; comparing them is quadratic.
const MOST_MEMBERS: usize = 256;

/// A request body and where its members lie.
#[derive(Clone, Debug)]
pub struct Envelope {
    body: Bytes,
    object: Object,
    kind: Kind,
}

/// What a body is, and so how a member of it is written.
#[derive(Clone, Debug)]
enum Kind {
    Json,
    Form(Box<Form>),
}

/// A body as far as it is read: one that came, or one that is being changed.
pub trait Members {
    /// The value of a member.
    fn value(&self, name: &str) -> Option<&[u8]>;

    /// Its length in bytes, or somewhat more.
    fn length(&self) -> u64;

    /// How many of its bytes are files, which no model reads as text.
    fn file_bytes(&self) -> u64;
}

impl Members for Envelope {
    fn value(&self, name: &str) -> Option<&[u8]> {
        Self::value(self, name)
    }

    fn length(&self) -> u64 {
        Self::length(self)
    }

    fn file_bytes(&self) -> u64 {
        self.files().map(|(_, file)| file.len() as u64).sum()
    }
}

/// Where the members of one JSON object, or of a form, lie, as ranges into the text it was scanned from.
#[derive(Clone, Debug)]
pub struct Object {
    members: Vec<Member>,
    /// How long the names are that occur: the first bit is for none. Most members that are asked for are not there, and
    /// most of them have a length that is not there either.
    lengths: u64,
    /// Where its closing brace stands, or a form's closing boundary.
    close: usize,
}

/// One `"name": value`, or one part of a form.
#[derive(Clone, Debug)]
struct Member {
    /// Its name, with quotes; a form's may be written without.
    key: Range<usize>,
    value: Range<usize>,
    /// The name, where it is not simply what stands between the quotes.
    unescaped: Option<Box<str>>,
}

/// Why a body cannot be read in one way only.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not JSON; the place is in the message.
    #[error("the body is not valid JSON: {0}")]
    NotJson(#[from] Flaw),
    /// Not even text; the place is in the message.
    #[error("the body is not valid JSON: {0}")]
    NotText(#[source] std::str::Utf8Error),
    /// JSON, but an array, a number …
    #[error("the body must be a JSON object")]
    NotObject,
    /// Two members that a provider may read as one.
    #[error("`{0}` is given twice")]
    Twice(Box<str>),
    /// A member that a case-folding provider would read as one we act on.
    #[error("`{0}` must be written `{1}`")]
    Disguised(Box<str>, Box<str>),
    /// More members than any request has.
    #[error("the body has more than {MOST_MEMBERS} members")]
    TooMany,
    /// Form data, and nobody can say where its parts begin.
    #[error("the Content-Type of form data {0}")]
    NoBoundary(&'static str),
    /// No form data, or such as may be read in several ways.
    #[error("{0}")]
    NotForm(#[from] Defect),
    /// A part of a form that we act on, and that is not one text to every reader.
    #[error("`{0}` must be text in UTF-8, and no file")]
    MustBeText(Box<str>),
}

impl Member {
    /// What stands between the quotes of its name.
    fn inner<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        body.get(self.key.start + 1..self.key.end - 1)
            .unwrap_or_default()
    }

    /// How long its name is, as it reads, in bytes.
    fn length(&self) -> usize {
        let written = self.key.len().saturating_sub(2);
        self.unescaped.as_ref().map_or(written, |name| name.len())
    }

    /// Its name, as it reads.
    fn name<'a>(&'a self, body: &'a [u8]) -> &'a [u8] {
        let unescaped = self.unescaped.as_deref();
        unescaped.map_or_else(|| self.inner(body), str::as_bytes)
    }

    fn is_named(&self, body: &[u8], name: &str) -> bool {
        match &self.unescaped {
            Some(unescaped) => **unescaped == *name,
            // Most differ in length.
            None => self.key.len() == name.len() + 2 && self.inner(body) == name.as_bytes(),
        }
    }
}

impl Envelope {
    /// Scans a body. `acted_on` says which names tollgate or a rule may act on.
    pub fn scan(body: Bytes, acted_on: impl Fn(&str) -> bool) -> Result<Self, Malformed> {
        let object = Object::scan(&body, 0)?;
        object.refuse_ambiguity(&body, acted_on, |one, other| one == other)?;
        let kind = Kind::Json;
        Ok(Self { body, object, kind })
    }

    /// Scans a body that is form data, with a boundary as [`boundary`] gives it. Each part is a member, and `acted_on`
    /// says the same as for [`Self::scan`].
    pub fn form(
        body: Bytes,
        boundary: &[u8],
        acted_on: impl Fn(&str) -> bool,
    ) -> Result<Self, Malformed> {
        let (object, form) = multipart::scan(&body, boundary)?;
        object.refuse_ambiguity(&body, &acted_on, form::are_one)?;
        form.refuse_files(&object, &body, acted_on)?;
        let kind = Kind::Form(Box::new(form));
        Ok(Self { body, object, kind })
    }

    /// Its length, in bytes.
    pub fn length(&self) -> u64 {
        self.body.len() as u64
    }

    /// The value of a member, as the client wrote it. Of several parts with one name, which only lists (`name[]`) have,
    /// it is the first.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let member = self
            .object
            .members
            .get(self.object.find(&self.body, name)?)?;
        self.body.get(member.value.clone())
    }

    /// The value of a member that is a string, or a part of a form that is text.
    pub fn string(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = self.value(name)?;
        match self.kind {
            Kind::Json => parse_string(value),
            Kind::Form(_) => std::str::from_utf8(value).ok().map(Cow::Borrowed),
        }
    }

    /// The files of a form, by their names as members. JSON has none.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let members = self.object.members.iter().enumerate();
        members.filter_map(|(n, member)| {
            let content = self.body.get(member.value.clone())?;
            self.is_file(n)
                .then(|| (self.object.name(&self.body, n), content))
        })
    }

    fn is_file(&self, n: usize) -> bool {
        match &self.kind {
            Kind::Json => false,
            Kind::Form(form) => form.is_file(n),
        }
    }

    /// The same body, to be changed.
    pub fn edit(&self) -> Edits<'_> {
        Edits::new(self)
    }
}

impl Object {
    /// Scans the object that `text` is. Ranges are shifted by `offset`, where `text` starts in the whole.
    pub(crate) fn scan(text: &[u8], offset: usize) -> Result<Self, Malformed> {
        // Most is ASCII, and that is found out some times faster.
        if !text.is_ascii() {
            std::str::from_utf8(text).map_err(Malformed::NotText)?;
        }
        let mut scan = Scan::new(text);
        if !scan.open(b'{') {
            scan.value()?;
            scan.end()?;
            return Err(Malformed::NotObject);
        }
        let shift = |range: Range<usize>| range.start + offset..range.end + offset;
        let mut members = Vec::with_capacity(16);
        let mut lengths = 0;
        while scan.goes_on(b'}')? {
            let name = scan.name()?;
            let value = scan.value()?;
            if members.len() == MOST_MEMBERS {
                return Err(Malformed::TooMany);
            }
            let unescaped = match name.is_escaped {
                true => Some(
                    text.get(name.range.clone())
                        .and_then(parse_string)
                        .ok_or_else(|| scan.flaw_at(name.range.start, "a name that is text"))?
                        .into(),
                ),
                false => None,
            };
            let member = Member {
                key: shift(name.range),
                value: shift(value),
                unescaped,
            };
            lengths |= length_bit(member.length());
            members.push(member);
        }
        let close = scan.passed() - 1 + offset;
        scan.end()?;
        Ok(Self {
            members,
            lengths,
            close,
        })
    }

    fn name<'a>(&'a self, body: &'a [u8], n: usize) -> &'a str {
        let name = self.members.get(n).map(|member| member.name(body));
        // The scan has checked that the body is UTF-8.
        name.and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
    }

    fn find(&self, body: &[u8], name: &str) -> Option<usize> {
        if self.lengths & length_bit(name.len()) == 0 {
            return None;
        }
        self.members
            .iter()
            .position(|member| member.is_named(body, name))
    }

    fn refuse_ambiguity(
        &self,
        body: &[u8],
        acted_on: impl Fn(&str) -> bool,
        are_one: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<(), Malformed> {
        let names = self.members.iter().map(|member| fold(member.name(body)));
        let names: SmallVec<[Cow<'_, [u8]>; 16]> = names.collect();
        for (n, folded) in names.iter().enumerate() {
            if names.iter().take(n).any(|earlier| are_one(earlier, folded)) {
                return Err(Malformed::Twice(shown(self.name(body, n))));
            }
            if let Cow::Owned(folded) = folded {
                let (name, folded) = (self.name(body, n), String::from_utf8_lossy(folded));
                if name != folded && acted_on(&folded) {
                    return Err(Malformed::Disguised(shown(name), shown(&folded)));
                }
            }
        }
        Ok(())
    }
}

/// The bit of a length. All that are longer than any name we know of share one.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// A name that a client wrote, short enough to be repeated to it.
fn shown(name: &str) -> Box<str> {
    let end = name.char_indices().nth(80).map_or(name.len(), |(at, _)| at);
    name.get(..end).unwrap_or(name).into()
}

/// A name as case-folding readers see it: ASCII in lower case, and the two letters beyond ASCII that fold into it
/// (U+017F and U+212A; Go's `bytes.EqualFold`).
fn fold(name: &[u8]) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    if name.iter().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let letter = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    let folded: String = String::from_utf8_lossy(name).chars().map(letter).collect();
    Cow::Owned(folded.into_bytes())
}

/// A JSON string's text; borrowed if it has no escapes.
pub(crate) fn parse_string(raw: &[u8]) -> Option<Cow<'_, str>> {
    struct Text<'a>(Cow<'a, str>);
    impl<'de> Deserialize<'de> for Text<'de> {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Either;
            impl<'de> Visitor<'de> for Either {
                type Value = Text<'de>;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a string")
                }
                fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                    Ok(Text(Cow::Borrowed(text)))
                }
                fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                    Ok(Text(Cow::Owned(text.to_owned())))
                }
            }
            d.deserialize_str(Either)
        }
    }
    serde_json::from_slice::<Text<'_>>(raw)
        .ok()
        .map(|text| text.0)
}

/// The ranges of an array's elements, in the text that starts at `offset`.
pub(crate) fn elements(text: &[u8], offset: usize) -> Option<Vec<Range<usize>>> {
    let mut scan = Scan::new(text);
    let mut elements = Vec::new();
    if !scan.open(b'[') {
        return None;
    }
    while scan.goes_on(b']').ok()? {
        let element = scan.value().ok()?;
        elements.push(element.start + offset..element.end + offset);
    }
    scan.end().ok()?;
    Some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn scan(body: &[u8]) -> Result<Envelope, Malformed> {
        let acted_on = |name: &str| matches!(name, "model" | "max_tokens" | "stream" | "task");
        Envelope::scan(Bytes::copy_from_slice(body), acted_on)
    }

    #[track_caller]
    fn refused(body: &[u8], because: &str) {
        let message = scan(body).expect_err("must be refused").to_string();
        assert!(message.contains(because), "{message}");
    }

    #[test]
    fn members_are_found_wherever_they_stand() {
        let envelope =
            scan(br#" {"messages":[{"model":"x"}], "mod\u0065l" : "g\u0070t","n":1} "#).unwrap();
        assert_eq!(envelope.string("model").unwrap(), "gpt");
        assert_eq!(envelope.value("n").unwrap(), b"1");
        assert!(envelope.value("absent").is_none());
        assert!(envelope.string("n").is_none());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in [&br#"["a"]"#[..], b"null", b"7", b"\"x\"", b" [1,2]"] {
            refused(body, "must be a JSON object");
        }
        for body in [
            &b""[..],
            b"{",
            b"{\"a\":}",
            b"{\"a\":1} x",
            b"{\"a\":tru}",
            b"hello",
            b"{a:1}",
            b"{\"a\":1,}",
        ] {
            refused(body, "not valid JSON");
        }
    }

    #[test]
    fn a_member_twice_is_refused_however_it_is_written() {
        refused(br#"{"model":"a","model":"b"}"#, "`model` is given twice");
        refused(
            br#"{"model":"a","mod\u0065l":"b"}"#,
            "`model` is given twice",
        );
        refused(br#"{"model":"a","Model":"b"}"#, "`Model` is given twice");
        refused(br#"{"x":1,"X":2}"#, "`X` is given twice");
    }

    #[test]
    fn a_member_in_disguise_is_refused() {
        refused(br#"{"Max_Tokens":1}"#, "must be written `max_tokens`");
        refused(
            "{\"\u{17f}tream\":true}".as_bytes(),
            "must be written `stream`",
        );
        refused(
            "{\"tas\u{212a}\":true}".as_bytes(),
            "must be written `task`",
        );
        assert!(
            scan(br#"{"X-Custom":1,"model":"a"}"#).is_ok(),
            "what nobody acts on may look as it likes"
        );
    }

    #[test]
    fn deep_nesting_and_broken_text_do_no_harm() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(500_000), "]".repeat(500_000));
        assert!(
            scan(deep.as_bytes()).is_ok(),
            "it is the provider's to judge"
        );
        let open = format!(r#"{{"x":{}"#, "[".repeat(500_000));
        refused(open.as_bytes(), "not valid JSON");
        refused(b"{\"x\":\"\xff\"}", "not valid JSON");
        refused(b"{\"\xff\":1}", "not valid JSON");
        let many: Vec<String> = (0..=MOST_MEMBERS).map(|n| format!("\"m{n}\":1")).collect();
        refused(
            format!("{{{}}}", many.join(",")).as_bytes(),
            "more than 256 members",
        );
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            // As serde_json reads its own text: it does not promise floats back to the last digit.
            let value: Value = serde_json::from_slice(&text).unwrap();
            match (Object::scan(&text, 0), &value) {
                (Ok(object), Value::Object(members)) => {
                    prop_assert_eq!(object.members.len(), members.len());
                    for (name, member) in members {
                        let n = object.find(&text, name).unwrap();
                        let raw = &text[object.members[n].value.clone()];
                        prop_assert_eq!(&serde_json::from_slice::<Value>(raw).unwrap(), member);
                    }
                }
                (Err(Malformed::NotObject), other) => prop_assert!(!other.is_object()),
                (other, _) => prop_assert!(false, "{:?}", other.err()),
            }
        }

        #[test]
        fn whatever_comes_in_it_takes_what_serde_json_takes(text in "[ \\[\\]{}\",:a1\\\\u0-9]{0,24}") {
            let ours = Object::scan(text.as_bytes(), 0);
            match serde_json::from_str::<Value>(&text) {
                Ok(Value::Object(_)) => prop_assert!(ours.is_ok()),
                Ok(_) => prop_assert!(matches!(ours, Err(Malformed::NotObject))),
                // A number too large for `Value` or an escape it will not decode may lie in a value that is not ours to judge.
                Err(e) => prop_assert!(ours.is_err() || e.is_data() || text.contains('\\')),
            }
        }
    }
}
