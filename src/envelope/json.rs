//! How the members of a JSON object are written: added, and taken out.

use bytes::{Bytes, BytesMut};

use super::Object;
use super::rope::Patch;

impl Object {
    /// Patches that take the `gone` members out, each run with the comma that would be left over.
    pub(super) fn remove(&self, gone: impl Fn(usize) -> bool, patches: &mut Vec<Patch>) {
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
}

/// Members as they are written behind others, or as the first ones.
pub(super) fn pairs<'a>(
    members: impl Iterator<Item = (&'a str, &'a [u8])>,
    are_first: bool,
) -> Bytes {
    let mut bytes = BytesMut::new();
    let mut comma = !are_first;
    for (name, value) in members {
        if comma {
            bytes.extend_from_slice(b",");
        }
        bytes.extend_from_slice(quoted(name).as_bytes());
        bytes.extend_from_slice(b":");
        bytes.extend_from_slice(value);
        comma = true;
    }
    bytes.freeze()
}

/// A text as it is written.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
