//! The same body with a few changes, and nothing copied that did not change.
//!
//! Bytes that no edit names reach the provider as the client wrote them, white space and all.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::rope::{Patch, Rope};
use super::{Envelope, Kind, Member, Members, Object, elements, form, json, parse_string};

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

    /// The fate of a member, to be changed.
    fn fate_at(&mut self, n: usize) -> Option<&mut Fate> {
        let at = self.fates.iter().position(|(at, _)| *at == n);
        let at = at.unwrap_or_else(|| {
            self.fates.push((n, Fate::default()));
            self.fates.len() - 1
        });
        self.fates.get_mut(at).map(|(_, fate)| fate)
    }

    fn find(&self, name: &str) -> Option<usize> {
        let Envelope { body, object, .. } = self.envelope;
        if self.fates.is_empty() {
            return object.find(body, name);
        }
        let mut members = object.members.iter().enumerate();
        members.position(|(n, member)| self.goes_by(n, member, name))
    }

    /// All members that go by this name now. JSON has one at the most, a form has as many as there are parts of a list.
    fn find_all(&self, name: &str) -> SmallVec<[usize; 4]> {
        let first = self.find(name);
        match (first, &self.envelope.kind) {
            (Some(first), Kind::Form(_)) => {
                let members = self.envelope.object.members.iter().enumerate();
                let others = members.skip(first + 1);
                let others = others.filter(|(n, member)| self.goes_by(*n, member, name));
                let others = others.map(|(n, _)| n);
                std::iter::once(first).chain(others).collect()
            }
            _ => first.into_iter().collect(),
        }
    }

    fn goes_by(&self, n: usize, member: &Member, name: &str) -> bool {
        match self.fate(n) {
            Some(Fate { gone: true, .. }) => false,
            Some(Fate {
                name: Some(renamed),
                ..
            }) => **renamed == *name,
            _ => member.is_named(&self.envelope.body, name),
        }
    }

    /// The names of the members by now.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let Envelope { body, object, .. } = self.envelope;
        let own = (0..object.members.len()).filter_map(|n| match self.fate(n) {
            Some(Fate { gone: true, .. }) => None,
            Some(Fate {
                name: Some(renamed),
                ..
            }) => Some(&**renamed),
            _ => Some(object.name(body, n)),
        });
        own.chain(self.added.iter().map(|(name, _)| *name))
    }

    /// The value a member has by now, without changes within it. Of several parts of a form it is the first one's.
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
        let own = self.find_all(name);
        for n in &own {
            self.remove(*n);
        }
        !own.is_empty() || before != self.added.len()
    }

    fn remove(&mut self, n: usize) {
        if let Some(fate) = self.fate_at(n) {
            fate.gone = true;
        }
    }

    /// Gives a member another name. Where that name is taken, the member that has it stays.
    pub fn rename(&mut self, from: &str, to: &'e str) {
        if self.get(to).is_some() {
            self.drop(from);
            return;
        }
        let own = self.find_all(from);
        for n in &own {
            if let Some(fate) = self.fate_at(*n) {
                fate.name = Some(to.into());
            }
        }
        if own.is_empty()
            && let Some((name, _)) = self.added.iter_mut().find(|(added, _)| *added == from)
        {
            *name = to;
        }
    }

    /// Gives a member a value, whether it is there or not. `value` is JSON; in a form a string becomes its text, and of
    /// several parts one is left.
    pub fn set(&mut self, name: &'e str, value: Bytes) {
        let value = match &self.envelope.kind {
            Kind::Json => value,
            Kind::Form(form) => form.value(value),
        };
        if let Some((first, others)) = self.find_all(name).split_first() {
            for n in others {
                self.remove(*n);
            }
            if let Some(fate) = self.fate_at(*first) {
                fate.value = Some(value);
            }
        } else if let Some((_, old)) = self.added.iter_mut().find(|(added, _)| *added == name) {
            *old = value;
        } else {
            self.added.push((name, value));
        }
    }

    /// Sets one member of the object that `name` is; false if it is none.
    pub fn set_within(&mut self, name: &str, member: &str, value: &'static [u8]) -> bool {
        let mut is_object = false;
        self.rework(name, |text, range, patches| {
            let Some(object) = object_at(text, range) else {
                return;
            };
            is_object = true;
            let found = object.find(text, member);
            patches.push(match found.and_then(|n| object.members.get(n)) {
                Some(found) => Patch {
                    range: found.value.clone(),
                    bytes: Bytes::from_static(value),
                },
                None => {
                    let at = object
                        .members
                        .last()
                        .map_or(object.close, |last| last.value.end);
                    Patch {
                        range: at..at,
                        bytes: json::pairs(
                            [(member, value)].into_iter(),
                            object.members.is_empty(),
                        ),
                    }
                }
            });
        });
        is_object
    }

    /// Shows each object in the list that `name` is to `change`, which may edit it.
    pub fn each_within(&mut self, name: &str, mut change: impl FnMut(&mut Inner<'_>)) {
        self.rework(name, |text, range, patches| {
            let list = text.get(range.clone());
            let elements = list.and_then(|list| elements(list, range.start));
            for element in elements.into_iter().flatten() {
                let Some(object) = object_at(text, element) else {
                    continue;
                };
                let mut inner = Inner {
                    body: text,
                    gone: SmallVec::from_elem(false, object.members.len()),
                    object: &object,
                    before: patches.len(),
                    patches,
                };
                change(&mut inner);
                inner.finish();
            }
        });
    }

    /// Shows `change` in which text a member's value lies by now, and where, and takes its patches to that text. The
    /// client's own is patched in place; what was written or patched before is written anew, so that patches never
    /// meet. What a form has are texts, whatever they look like: there is nothing within them.
    fn rework(&mut self, name: &str, change: impl FnOnce(&Bytes, Range<usize>, &mut Vec<Patch>)) {
        if !matches!(self.envelope.kind, Kind::Json) {
            return;
        }
        if let Some(range) = self.untouched(name) {
            change(&self.envelope.body, range, &mut self.inner);
        } else if let Some(value) = self.rewritten(name) {
            let mut patches = Vec::new();
            change(value, 0..value.len(), &mut patches);
            *value = Rope::splice(value, patches).into_bytes();
        }
    }

    /// Where a member's value lies, if it is still as the client wrote it.
    fn untouched(&self, name: &str) -> Option<Range<usize>> {
        let n = self.find(name)?;
        let member = self.envelope.object.members.get(n)?;
        let written = self.fate(n).is_some_and(|fate| fate.value.is_some());
        let patched = || {
            self.inner
                .iter()
                .any(|patch| patch.is_within(&member.value))
        };
        (!written && !patched()).then(|| member.value.clone())
    }

    /// The value of a member as a text of its own, with the patches it has had.
    fn rewritten(&mut self, name: &str) -> Option<&mut Bytes> {
        let Some(n) = self.find(name) else {
            let added = self.added.iter_mut().find(|(added, _)| *added == name);
            return added.map(|(_, value)| value);
        };
        let range = self.envelope.object.members.get(n)?.value.clone();
        let inner = std::mem::take(&mut self.inner).into_iter();
        let (mut own, others): (Vec<Patch>, _) = inner.partition(|patch| patch.is_within(&range));
        self.inner = others;
        let text = self.envelope.body.slice(range.clone());
        let fate = self.fate_at(n)?;
        Some(fate.value.get_or_insert_with(|| {
            for patch in &mut own {
                patch.range = patch.range.start - range.start..patch.range.end - range.start;
            }
            Rope::splice(&text, own).into_bytes()
        }))
    }

    /// Whether a member that goes, or gets a new value, takes a change within it along.
    fn is_lost(&self, patch: &Patch) -> bool {
        self.fates.iter().any(|(n, fate)| {
            (fate.gone || fate.value.is_some())
                && self
                    .envelope
                    .object
                    .members
                    .get(*n)
                    .is_some_and(|member| patch.is_within(&member.value))
        })
    }

    /// The body with all changes.
    pub fn into_rope(mut self) -> Rope {
        let Envelope { body, object, kind } = self.envelope;
        let mut patches = std::mem::take(&mut self.inner);
        patches.retain(|patch| !self.is_lost(patch));
        let gone = |n: usize| self.fate(n).is_some_and(|fate| fate.gone);
        match kind {
            Kind::Json => object.remove(gone, &mut patches),
            Kind::Form(form) => form.remove(object.close, gone, &mut patches),
        }
        if !self.added.is_empty() {
            let added = self.added.iter().map(|(name, value)| (*name, &value[..]));
            let is_first = || (0..object.members.len()).all(gone);
            patches.push(Patch {
                // After whatever is removed up to the end, so that the two do not overlap.
                range: object.close..object.close,
                bytes: match kind {
                    Kind::Json => json::pairs(added, is_first()),
                    Kind::Form(form) => form.added(added),
                },
            });
        }
        for (n, fate) in self.fates {
            let Some(member) = object.members.get(n).filter(|_| !fate.gone) else {
                continue;
            };
            if let Some(name) = fate.name {
                patches.push(Patch {
                    range: member.key.clone(),
                    bytes: kind.quoted(&name).into(),
                });
            }
            if let Some(value) = fate.value {
                if let Kind::Form(form) = kind {
                    patches.extend(form.unstated(n));
                }
                patches.push(Patch {
                    range: member.value.clone(),
                    bytes: value,
                });
            }
        }
        Rope::splice(body, patches)
    }
}

impl Kind {
    /// A name as it is written.
    fn quoted(&self, name: &str) -> String {
        match self {
            Self::Json => json::quoted(name),
            Self::Form(_) => form::quoted(name),
        }
    }

    /// How long a name is, as it is written, without quotes or somewhat more.
    fn name_length(&self, name: &str) -> usize {
        match self {
            Self::Json => name.len(),
            Self::Form(_) => form::quoted_length(name),
        }
    }

    /// How much is written around the name and the value of a member that is added.
    fn around(&self) -> usize {
        match self {
            // Two quotes, a colon and a comma.
            Self::Json => 4,
            Self::Form(form) => form.around(),
        }
    }
}

impl Members for Edits<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.get(name)
    }

    fn length(&self) -> u64 {
        let Envelope { body, object, kind } = self.envelope;
        let (mut more, mut less) = (body.len(), 0);
        for (name, value) in &self.added {
            more += kind.name_length(name) + value.len() + kind.around();
        }
        for (n, fate) in &self.fates {
            let value = object.members.get(*n).map_or(0, |m| m.value.len());
            let name = fate.name.as_deref();
            more += name.map_or(0, |name| kind.name_length(name));
            match &fate.value {
                _ if fate.gone => less += value,
                Some(new) => (more, less) = (more + new.len(), less + value),
                None => {}
            }
        }
        for patch in self.inner.iter().filter(|patch| !self.is_lost(patch)) {
            (more, less) = (more + patch.bytes.len(), less + patch.range.len());
        }
        more.saturating_sub(less) as u64
    }

    fn file_bytes(&self) -> u64 {
        let members = self.envelope.object.members.iter().enumerate();
        let is_kept = |n: usize| {
            let fate = self.fate(n);
            fate.is_none_or(|fate| !fate.gone && fate.value.is_none())
        };
        let files = members.filter(|(n, _)| self.envelope.is_file(*n) && is_kept(*n));
        files.map(|(_, member)| member.value.len() as u64).sum()
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
    /// The value of a member, as it was written.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let n = self.object.find(self.body, name)?;
        let member = self.object.members.get(n)?;
        self.body.get(member.value.clone())
    }

    /// The value of a member that is a string.
    pub fn string(&self, name: &str) -> Option<Cow<'_, str>> {
        parse_string(self.get(name)?)
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
    pub fn drop(&mut self, mut which: impl FnMut(&str, &[u8]) -> bool) {
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

fn object_at(text: &Bytes, range: Range<usize>) -> Option<Object> {
    let object = text.get(range.clone())?;
    Object::scan(object, range.start).ok()
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
        let length = edits.length();
        let got = String::from_utf8(edits.into_rope().to_vec()).unwrap();
        assert_eq!(got, want);
        let longer = (body.len() + want.len()) as u64;
        assert!((got.len() as u64..=longer).contains(&length), "{length}");
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
    fn a_list_is_changed_again_whoever_wrote_it() {
        let without = |e: &mut Edits<'_>, name: &str| {
            e.each_within("m", |m| m.drop(|other, _| other == name));
        };
        // The patches of the two meet in the comma between.
        check(
            r#"{"m":[{"a":1, "b":2},{"b":2, "a":1}],"n":[{"a":1}]}"#,
            |e| {
                e.each_within("n", |m| m.replace("a", raw("7")));
                without(e, "a");
                without(e, "b");
            },
            r#"{"m":[{},{}],"n":[{"a":7}]}"#,
        );
        for body in ["{}", r#"{"m":[]}"#, r#"{"old":[{"a":3}]}"#] {
            let envelope = envelope(body);
            let mut edits = envelope.edit();
            edits.rename("old", "m");
            edits.set("m", raw(r#"[{"a":1,"b":2}]"#));
            without(&mut edits, "a");
            let got = edits.into_rope().to_vec();
            assert_eq!(got, br#"{"m":[{"b":2}]}"#, "{body}");
        }
        // A value that is set once more takes the changes within the old one along.
        check(
            r#"{"m":[{"a":1}]}"#,
            |e| {
                without(e, "a");
                e.set("m", raw(r#"[{"a":2,"c":3}]"#));
                without(e, "a");
            },
            r#"{"m":[{"c":3}]}"#,
        );
    }

    #[test]
    fn names_are_as_they_are_by_now() {
        let envelope = envelope(r#"{"a":1,"b":2,"\u0063":3}"#);
        let mut edits = envelope.edit();
        edits.drop("a");
        edits.rename("b", "z");
        edits.set("y", raw("1"));
        assert_eq!(edits.names().collect::<Vec<_>>(), ["z", "c", "y"]);
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
