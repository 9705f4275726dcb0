//! The same body with a few changes, and nothing copied that did not change.
//!
//! Bytes that no edit names reach the provider as the client wrote them, white space and all.

use std::borrow::Cow;
use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;

use super::{Envelope, Object, elements, parse_string};

/// Up to here one flat copy is cheaper than a list of slices (measured: 0.1 µs at 8 KiB).
const FLAT: usize = 16 << 10;

/// Changes to the top-level members of a body, collected first and applied at once.
#[derive(Debug)]
pub struct Edits<'e> {
    envelope: &'e Envelope,
    /// What becomes of members, by their number; most keep theirs, and are not here.
    fates: Vec<(usize, Fate)>,
    added: Vec<(&'e str, Bytes)>,
    inner: Vec<Patch>,
}

/// What becomes of one member.
#[derive(Clone, Debug, Default)]
struct Fate {
    gone: bool,
    name: Option<Box<str>>,
    value: Option<Bytes>,
}

/// Other bytes in the place of a range.
#[derive(Clone, Debug)]
struct Patch {
    range: Range<usize>,
    bytes: Bytes,
}

impl<'e> Edits<'e> {
    pub(super) fn new(envelope: &'e Envelope) -> Self {
        Self {
            envelope,
            fates: Vec::new(),
            added: Vec::new(),
            inner: Vec::new(),
        }
    }

    fn fate(&self, n: usize) -> Option<&Fate> {
        self.fates
            .iter()
            .find(|(at, _)| *at == n)
            .map(|(_, fate)| fate)
    }

    /// The fate of the member that goes by this name now, to be changed.
    fn fate_of(&mut self, name: &str) -> Option<&mut Fate> {
        let n = self.find(name)?;
        let at = self.fates.iter().position(|(at, _)| *at == n);
        let at = at.unwrap_or_else(|| {
            self.fates.push((n, Fate::default()));
            self.fates.len() - 1
        });
        self.fates.get_mut(at).map(|(_, fate)| fate)
    }

    fn find(&self, name: &str) -> Option<usize> {
        let Envelope { body, object } = self.envelope;
        if self.fates.is_empty() {
            return object.find(body, name);
        }
        let is = |(n, member): (usize, &super::Member)| match self.fate(n) {
            Some(Fate { gone: true, .. }) => false,
            Some(Fate {
                name: Some(renamed),
                ..
            }) => **renamed == *name,
            _ => member.is_named(body, name),
        };
        object.members.iter().enumerate().position(is)
    }

    /// The value a member has by now.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        if let Some(n) = self.find(name) {
            return match self.fate(n).and_then(|fate| fate.value.as_ref()) {
                Some(value) => Some(value),
                None => self
                    .envelope
                    .body
                    .get(self.envelope.object.members.get(n)?.value.clone()),
            };
        }
        let added = self.added.iter().find(|(added, _)| *added == name);
        added.map(|(_, value)| &value[..])
    }

    /// Leaves a member out. False if there is none.
    pub fn drop(&mut self, name: &str) -> bool {
        let before = self.added.len();
        self.added.retain(|(added, _)| *added != name);
        match self.fate_of(name) {
            Some(fate) => {
                fate.gone = true;
                true
            }
            None => before != self.added.len(),
        }
    }

    /// Gives a member another name. Where that name is taken, the member that has it stays.
    pub fn rename(&mut self, from: &str, to: &'e str) {
        if self.get(to).is_some() {
            self.drop(from);
        } else if let Some(fate) = self.fate_of(from) {
            fate.name = Some(to.into());
        } else if let Some((name, _)) = self.added.iter_mut().find(|(added, _)| *added == from) {
            *name = to;
        }
    }

    /// Gives a member a value, whether it is there or not. `value` is JSON.
    pub fn set(&mut self, name: &'e str, value: Bytes) {
        if let Some(fate) = self.fate_of(name) {
            fate.value = Some(value);
        } else if let Some((_, old)) = self.added.iter_mut().find(|(added, _)| *added == name) {
            *old = value;
        } else {
            self.added.push((name, value));
        }
    }

    /// Sets one member of the object that `name` is; false if it is none.
    pub fn set_within(&mut self, name: &'e str, member: &str, value: &'static [u8]) -> bool {
        let Some(range) = self.untouched(name) else {
            return self.set_within_new(name, member, value);
        };
        let Some((_, object)) = self.object_at(range) else {
            return false;
        };
        let found = object.find(&self.envelope.body, member);
        let patch = match found.and_then(|n| object.members.get(n)) {
            Some(found) => Patch {
                range: found.value.clone(),
                bytes: Bytes::from_static(value),
            },
            None => object.insertion(object.members.last(), [(member, value)].into_iter()),
        };
        self.inner.push(patch);
        true
    }

    /// The same for a value that is not the client's own any more.
    fn set_within_new(&mut self, name: &'e str, member: &str, value: &'static [u8]) -> bool {
        let current = self.get(name).map(Bytes::copy_from_slice);
        let Some(Ok(inner)) = current.map(|text| Envelope::scan(text, |_| false)) else {
            return false;
        };
        let mut edits = inner.edit();
        edits.set(member, Bytes::from_static(value));
        let new = Bytes::from(edits.into_rope().to_vec());
        self.set(name, new);
        true
    }

    /// Shows each object in the list that `name` is to `change`, which may edit it.
    pub fn each_within(&mut self, name: &str, mut change: impl FnMut(&mut Inner<'_>)) {
        let Some(range) = self.untouched(name) else {
            return;
        };
        let body = &self.envelope.body;
        let elements = body
            .get(range.clone())
            .and_then(|text| elements(text, range.start));
        for element in elements.into_iter().flatten() {
            if let Some((_, object)) = self.object_at(element) {
                let mut inner = Inner {
                    body: &self.envelope.body,
                    gone: SmallVec::from_elem(false, object.members.len()),
                    object: &object,
                    before: self.inner.len(),
                    patches: &mut self.inner,
                };
                change(&mut inner);
                inner.finish();
            }
        }
    }

    /// Where a member's value lies, if it is still the client's own.
    fn untouched(&self, name: &str) -> Option<Range<usize>> {
        let n = self.find(name)?;
        if self.fate(n).is_some_and(|fate| fate.value.is_some()) {
            return None;
        }
        self.envelope
            .object
            .members
            .get(n)
            .map(|member| member.value.clone())
    }

    fn object_at(&self, range: Range<usize>) -> Option<(Range<usize>, Object)> {
        let text = self.envelope.body.get(range.clone())?;
        Object::scan(text, range.start)
            .ok()
            .map(|object| (range, object))
    }

    /// The body with all changes.
    pub fn into_rope(mut self) -> Rope {
        let object = &self.envelope.object;
        let mut patches = std::mem::take(&mut self.inner);
        // A member that goes, or gets a new value, takes the changes within it along.
        patches.retain(|patch| {
            let lost = |(n, fate): &(usize, Fate)| {
                (fate.gone || fate.value.is_some())
                    && object.members.get(*n).is_some_and(|member| {
                        member.value.start <= patch.range.start
                            && patch.range.end <= member.value.end
                    })
            };
            !self.fates.iter().any(lost)
        });
        let gone = |n: usize| self.fate(n).is_some_and(|fate| fate.gone);
        object.remove(gone, &mut patches);
        if !self.added.is_empty() {
            let last = (0..object.members.len()).rfind(|n| !gone(*n));
            let added = self.added.iter().map(|(name, value)| (*name, &value[..]));
            let mut insertion = object.insertion(last.and_then(|n| object.members.get(n)), added);
            // After whatever is removed up to the brace, so that the two do not overlap.
            insertion.range = object.close..object.close;
            patches.push(insertion);
        }
        for (n, fate) in self.fates {
            let Some(member) = object.members.get(n).filter(|_| !fate.gone) else {
                continue;
            };
            if let Some(name) = fate.name {
                patches.push(Patch {
                    range: member.key.clone(),
                    bytes: quoted(&name).into(),
                });
            }
            if let Some(value) = fate.value {
                patches.push(Patch {
                    range: member.value.clone(),
                    bytes: value,
                });
            }
        }
        Rope::splice(&self.envelope.body, patches)
    }
}

/// One object within a list, being changed.
pub struct Inner<'i> {
    body: &'i Bytes,
    object: &'i Object,
    gone: SmallVec<[bool; 16]>,
    patches: &'i mut Vec<Patch>,
    /// How many of them belong to other objects.
    before: usize,
}

impl Inner<'_> {
    /// The value of a member that is a string.
    pub fn string(&self, name: &str) -> Option<Cow<'_, str>> {
        let member = self
            .object
            .members
            .get(self.object.find(self.body, name)?)?;
        parse_string(self.body.get(member.value.clone())?)
    }

    /// Gives a member that is there another value, which is JSON.
    pub fn replace(&mut self, name: &str, value: Bytes) {
        let found = self.object.find(self.body, name);
        if let Some(member) = found.and_then(|n| self.object.members.get(n)) {
            self.patches.push(Patch {
                range: member.value.clone(),
                bytes: value,
            });
        }
    }

    /// Leaves out the members that `which` picks by name and value.
    pub fn drop(&mut self, which: impl Fn(&str, &[u8]) -> bool) {
        for (n, gone) in self.gone.iter_mut().enumerate() {
            let value = self
                .object
                .members
                .get(n)
                .and_then(|m| self.body.get(m.value.clone()));
            *gone |= which(self.object.name(self.body, n), value.unwrap_or_default());
        }
    }

    fn finish(self) {
        if self.gone.contains(&true) {
            let gone = |at: &Range<usize>| {
                let members = self.object.members.iter().zip(&self.gone);
                members.into_iter().any(|(m, gone)| *gone && m.value == *at)
            };
            let own = self.patches.split_off(self.before);
            self.patches
                .extend(own.into_iter().filter(|patch| !gone(&patch.range)));
            let gone = |n: usize| self.gone.get(n).copied().unwrap_or(false);
            self.object.remove(gone, self.patches);
        }
    }
}

impl Object {
    /// Patches that take the `gone` members out, each run with the comma that would be left over.
    fn remove(&self, gone: impl Fn(usize) -> bool, patches: &mut Vec<Patch>) {
        let mut n = 0;
        while n < self.members.len() {
            let run = (n..self.members.len()).take_while(|n| gone(*n)).count();
            if run == 0 {
                n += 1;
                continue;
            }
            let before = n.checked_sub(1).and_then(|n| self.members.get(n));
            let ends = self
                .members
                .get(n + run - 1)
                .map_or(self.close, |m| m.value.end);
            let starts = self.members.get(n).map_or(self.close, |m| m.key.start);
            let range = match (self.members.get(n + run), before) {
                (Some(next), _) => starts..next.key.start,
                (None, Some(before)) => before.value.end..ends,
                (None, None) => starts..ends,
            };
            patches.push(Patch {
                range,
                bytes: Bytes::new(),
            });
            n += run;
        }
    }

    /// A patch that adds members after `last`, or as the first ones.
    fn insertion<'a>(
        &self,
        last: Option<&super::Member>,
        members: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Patch {
        let mut bytes = BytesMut::new();
        let mut comma = last.is_some();
        for (name, value) in members {
            if comma {
                bytes.extend_from_slice(b",");
            }
            bytes.extend_from_slice(quoted(name).as_bytes());
            bytes.extend_from_slice(b":");
            bytes.extend_from_slice(value);
            comma = true;
        }
        let at = last.map_or(self.close, |member| member.value.end);
        Patch {
            range: at..at,
            bytes: bytes.freeze(),
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A body made of slices of other bodies. Cloning counts references, so a retry copies nothing.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    /// What comes next.
    head: Bytes,
    /// What comes after it, last first.
    rest: Vec<Bytes>,
}

impl Rope {
    fn splice(body: &Bytes, mut patches: Vec<Patch>) -> Self {
        patches.sort_by_key(|patch| (patch.range.start, patch.range.end));
        let added: usize = patches.iter().map(|patch| patch.bytes.len()).sum();
        let removed: usize = patches.iter().map(|patch| patch.range.len()).sum();
        let length = body.len() + added - removed;
        if length <= FLAT {
            let mut flat = BytesMut::with_capacity(length);
            splice_into(body, patches, |part| flat.extend_from_slice(&part));
            return Self {
                head: flat.freeze(),
                rest: Vec::new(),
            };
        }
        let mut rest = Vec::with_capacity(2 * patches.len() + 1);
        splice_into(body, patches, |part| rest.push(part));
        rest.retain(|part| !part.is_empty());
        rest.reverse();
        let head = rest.pop().unwrap_or_default();
        Self { head, rest }
    }

    /// Its bytes in one piece, for those who must look into it.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut whole = self.head.to_vec();
        self.rest
            .iter()
            .rev()
            .for_each(|part| whole.extend_from_slice(part));
        whole
    }
}

/// The parts of a body with patches in their places, in order.
fn splice_into(body: &Bytes, patches: Vec<Patch>, mut part: impl FnMut(Bytes)) {
    let mut at = 0;
    for patch in patches {
        if patch.range.start < at {
            debug_assert!(false, "patches overlap");
            continue;
        }
        part(body.slice(at..patch.range.start));
        at = patch.range.end;
        part(patch.bytes);
    }
    part(body.slice(at..));
}

impl Body for Rope {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.pop().unwrap_or_default();
        let part = std::mem::replace(&mut self.head, next);
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let rest: usize = self.rest.iter().map(Bytes::len).sum();
        SizeHint::with_exact((self.head.len() + rest) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn envelope(body: &str) -> Envelope {
        Envelope::scan(Bytes::copy_from_slice(body.as_bytes()), |_| false).unwrap()
    }

    #[track_caller]
    fn check(body: &str, change: impl FnOnce(&mut Edits<'_>), want: &str) {
        let envelope = envelope(body);
        let mut edits = envelope.edit();
        change(&mut edits);
        let got = String::from_utf8(edits.into_rope().to_vec()).unwrap();
        assert_eq!(got, want);
        serde_json::from_str::<Value>(&got).unwrap();
    }

    fn raw(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn nothing_changes_unless_it_is_named() {
        check(
            " {\n \"a\" : 1 , \"b\":[ 2 ] }\n",
            |_| (),
            " {\n \"a\" : 1 , \"b\":[ 2 ] }\n",
        );
        check(
            r#"{ "messages":[{"model":"x"}], "model" : "a", "n":1 }"#,
            |e| e.set("model", raw("\"b\"")),
            r#"{ "messages":[{"model":"x"}], "model" : "b", "n":1 }"#,
        );
        check(
            r#"{"mod\u0065l":"a"}"#,
            |e| e.set("model", raw("\"b\"")),
            r#"{"mod\u0065l":"b"}"#,
        );
    }

    #[test]
    fn members_go_with_their_commas() {
        let drop = |names: &'static [&str]| {
            move |e: &mut Edits<'_>| names.iter().for_each(|name| assert!(e.drop(name)))
        };
        check(r#"{"a":1,"b":2,"c":3}"#, drop(&["a"]), r#"{"b":2,"c":3}"#);
        check(
            r#"{"a":1, "b":2 ,"c":3}"#,
            drop(&["b"]),
            r#"{"a":1, "c":3}"#,
        );
        check(r#"{"a":1,"b":2,"c":3 }"#, drop(&["c"]), r#"{"a":1,"b":2 }"#);
        check(r#"{"a":1,"b":2,"c":3}"#, drop(&["b", "c"]), r#"{"a":1}"#);
        check(r#"{"a":1,"b":2,"c":3}"#, drop(&["a", "b", "c"]), "{}");
        check("{}", |e| assert!(!e.drop("a")), "{}");
    }

    #[test]
    fn members_are_added_renamed_and_set_again() {
        check("{}", |e| e.set("z", raw("9")), r#"{"z":9}"#);
        check(r#"{"a":1 }"#, |e| e.set("z", raw("9")), r#"{"a":1 ,"z":9}"#);
        check(
            r#"{"a":1}"#,
            |e| {
                e.drop("a");
                e.set("z", raw("9"));
                e.set("y", raw("8"));
                e.set("z", raw("7"));
            },
            r#"{"z":7,"y":8}"#,
        );
        check(
            r#"{"a":1,"b":2}"#,
            |e| {
                e.rename("a", "c");
                assert_eq!(e.get("c"), Some(&b"1"[..]));
                e.set("c", raw("5"));
                e.rename("b", "c");
            },
            r#"{"c":5}"#,
        );
    }

    #[test]
    fn a_member_of_a_member_is_set() {
        let usage = |e: &mut Edits<'_>| assert!(e.set_within("s", "u", b"true"));
        check(r#"{"s":{}}"#, usage, r#"{"s":{"u":true}}"#);
        check(
            r#"{"s":{ "x":1 },"n":1}"#,
            usage,
            r#"{"s":{ "x":1,"u":true },"n":1}"#,
        );
        check(r#"{"s":{"u" : false}}"#, usage, r#"{"s":{"u" : true}}"#);
        check(
            r#"{"s":[]}"#,
            |e| assert!(!e.set_within("s", "u", b"true")),
            r#"{"s":[]}"#,
        );
        check(
            r#"{"s":{"u":1}}"#,
            |e| {
                usage(e);
                e.drop("s");
                e.set("t", raw("1"));
            },
            r#"{"t":1}"#,
        );
    }

    #[test]
    fn objects_in_a_list_are_changed_in_place() {
        check(
            r#"{"m":[ {"role":"developer","name":"x","content":"a"}, 7, {"name":null,"role":"user"} ]}"#,
            |e| {
                e.each_within("m", |m| {
                    if m.string("role").as_deref() == Some("developer") {
                        m.replace("role", raw("\"system\""));
                    }
                    m.drop(|name, _| name == "name");
                });
            },
            r#"{"m":[ {"role":"system","content":"a"}, 7, {"role":"user"} ]}"#,
        );
        check(
            r#"{"m":[{"a":null,"b":1,"c":null}]}"#,
            |e| {
                e.each_within("m", |m| {
                    m.replace("a", raw("1"));
                    m.drop(|_, value| value == b"null");
                });
            },
            r#"{"m":[{"b":1}]}"#,
        );
    }

    #[test]
    fn very_many_objects_take_no_longer_than_they_must() {
        let many = vec![r#"{"name":1,"a":2}"#; 200_000].join(",");
        let envelope = envelope(&format!(r#"{{"m":[{many}]}}"#));
        let mut edits = envelope.edit();
        edits.each_within("m", |m| m.drop(|name, _| name == "name"));
        let want = format!(r#"{{"m":[{}]}}"#, vec![r#"{"a":2}"#; 200_000].join(","));
        assert!(edits.into_rope().to_vec() == want.as_bytes());
    }

    #[test]
    fn what_a_rule_added_is_changed_like_the_clients_own() {
        check(
            "{}",
            |e| {
                e.set("s", raw(r#"{"x":1}"#));
                assert!(e.set_within("s", "u", b"true"));
                e.set("old", raw("5"));
                e.rename("old", "new");
            },
            r#"{"s":{"x":1,"u":true},"new":5}"#,
        );
        check(
            r#"{"s":1}"#,
            |e| {
                e.set("s", raw("{}"));
                assert!(e.set_within("s", "u", b"true"));
            },
            r#"{"s":{"u":true}}"#,
        );
    }

    #[test]
    fn a_rope_knows_its_length_and_survives_a_clone() {
        let long = format!(r#"{{"a":"{}","model":"x"}}"#, "y".repeat(FLAT));
        let envelope = envelope(&long);
        let mut edits = envelope.edit();
        edits.set("model", raw("\"other\""));
        let rope = edits.into_rope();
        assert!(!rope.rest.is_empty());
        assert_eq!(rope.size_hint().exact(), Some(rope.to_vec().len() as u64));
        assert_eq!(rope.clone().to_vec(), rope.to_vec());
        assert!(!rope.is_end_stream());
    }

    #[derive(Clone, Debug)]
    enum Change {
        Drop(usize),
        Rename(usize, usize),
        Set(usize, i32),
    }

    const NAMES: [&str; 6] = ["a", "b", "model", "max_tokens", "é\"\\", "zz"];

    fn change() -> impl Strategy<Value = Change> {
        let name = 0..NAMES.len();
        prop_oneof![
            name.clone().prop_map(Change::Drop),
            (name.clone(), name.clone()).prop_map(|(a, b)| Change::Rename(a, b)),
            (name, any::<i32>()).prop_map(|(a, v)| Change::Set(a, v)),
        ]
    }

    proptest! {
        /// The same changes on a parsed map give the same object.
        #[test]
        fn it_agrees_with_a_map(
            members in prop::collection::btree_map(0..NAMES.len(), any::<u8>(), 0..NAMES.len()),
            changes in prop::collection::vec(change(), 0..8),
            pretty in any::<bool>(),
        ) {
            let mut map: Map<String, Value> =
                members.iter().map(|(n, v)| (NAMES[*n].to_owned(), Value::from(*v))).collect();
            let text = if pretty { serde_json::to_string_pretty(&map) } else { serde_json::to_string(&map) }.unwrap();
            let envelope = envelope(&text);
            let mut edits = envelope.edit();
            for change in &changes {
                match *change {
                    Change::Drop(a) => {
                        prop_assert_eq!(edits.drop(NAMES[a]), map.remove(NAMES[a]).is_some());
                    }
                    Change::Set(a, v) => {
                        edits.set(NAMES[a], Bytes::from(v.to_string()));
                        map.insert(NAMES[a].into(), v.into());
                    }
                    Change::Rename(a, b) if a != b && edits.get(NAMES[a]).is_some() => {
                        edits.rename(NAMES[a], NAMES[b]);
                        let value = map.remove(NAMES[a]).unwrap();
                        map.entry(NAMES[b]).or_insert(value);
                    }
                    Change::Rename(..) => {}
                }
            }
            let got: Value = serde_json::from_slice(&edits.into_rope().to_vec()).unwrap();
            prop_assert_eq!(got, Value::Object(map));
        }
    }
}
