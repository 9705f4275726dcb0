//! What is taken for a form is one to whoever knows nothing but boundaries; a splice changes the parts it names, and no
//! other byte.

use bytes::Bytes;
use tollgate::envelope::{Envelope, Malformed, boundary};

use super::Script;

const ACTED_ON: [&str; 3] = ["model", "stream", "include[]"];
/// Names that edits speak of.
const NAMES: [&str; 6] = ["model", "stream", "file", "include[]", "image[]", "\u{e9}"];
/// As they are given, and as they stand in a form whose boundary is `x`.
const VALUES: [(&str, &str); 5] = [
    ("1", "1"),
    ("\"a\\r\\nb\"", "a\r\nb"),
    ("{}", "{}"),
    ("\"--x--\"", " --x--"),
    ("\"\\r\\n--x\\r\\n\"", "\r\n --x\r\n"),
];
const BOUNDARY: &str = "x";
/// Bodies above 16 KiB are spliced in another way.
const LONG: usize = 17 << 10;

/// The first line says what is changed, the rest is the body. It is read as a Content-Type as well.
pub(crate) fn check(input: &[u8]) {
    let (mut script, text) = Script::split(input);
    is_boundary(text);
    let mut body = text.to_vec();
    if script.next() % 2 == 1 {
        let file = "Content-Disposition: form-data; name=\"long\"; filename=\"\"";
        let long = "-".repeat(LONG);
        let part = format!("--{BOUNDARY}\r\n{file}\r\n\r\n{long}\r\n");
        body.splice(0..0, part.into_bytes());
    }
    let body = Bytes::from(body);
    let scanned = Envelope::form(body.clone(), BOUNDARY.as_bytes(), |name| {
        ACTED_ON.contains(&name)
    });
    let envelope = match scanned {
        Ok(envelope) => envelope,
        Err(Malformed::NotJson(_) | Malformed::NotText(_) | Malformed::NotObject) => {
            panic!("it is no JSON")
        }
        Err(_) => return,
    };
    let mut parts = split(&body);
    assert!(parts.len() <= 256, "too many parts");
    for name in NAMES {
        let value = envelope.value(name);
        assert_eq!(value, first(&parts, name), "{name}");
        let acted_on = ACTED_ON.contains(&name);
        if let Some(value) = value.filter(|_| acted_on) {
            assert!(std::str::from_utf8(value).is_ok(), "{name} is no text");
            assert!(envelope.files().all(|(file, _)| file != name), "{name}");
        }
        let count = parts.iter().filter(|part| part.name == name).count();
        assert!(count < 2 || name.ends_with("[]"), "{name} is there twice");
    }
    let same = envelope.edit().into_rope().to_vec();
    assert_eq!(same, body, "changed for nothing");
    let mut edits = envelope.edit();
    while !script.is_over() {
        let name = script.pick(&NAMES);
        match script.next() % 3 {
            0 => {
                let before = parts.len();
                parts.retain(|part| part.name != name);
                assert_eq!(edits.drop(name), before != parts.len());
            }
            1 => {
                let to = script.pick(&NAMES);
                // A member that is given its own name is not renamed: nobody asks for it.
                if to != name {
                    edits.rename(name, to);
                    rename(&mut parts, name, to);
                }
            }
            _ => {
                let (value, text) = VALUES[script.next() % VALUES.len()];
                edits.set(name, Bytes::from_static(value.as_bytes()));
                set(&mut parts, name, text);
            }
        }
        for name in NAMES {
            assert_eq!(edits.get(name), first(&parts, name), "{name}");
        }
    }
    let got = split(&edits.into_rope().to_vec());
    let shown = |parts: &[Part]| {
        let parts = parts
            .iter()
            .map(|part| (part.name.clone(), part.content.clone()));
        parts.collect::<Vec<_>>()
    };
    assert_eq!(shown(&got), shown(&parts));
}

/// A boundary that is taken is one, and stands where it says.
fn is_boundary(content_type: &[u8]) {
    for text in [
        content_type,
        &[b"multipart/form-data;", content_type].concat(),
    ] {
        if let Ok(Some(found)) = boundary(text) {
            assert!((1..=70).contains(&found.len()));
            assert!(!found.ends_with(b" ") && !found.iter().any(u8::is_ascii_control));
            let lower = text.to_ascii_lowercase();
            let written = [b"boundary=", &found.to_ascii_lowercase()[..]].concat();
            let quoted = [b"boundary=\"", &found.to_ascii_lowercase()[..]].concat();
            let has = |what: &[u8]| lower.windows(what.len()).any(|window| window == what);
            assert!(has(&written) || has(&quoted), "it is made up");
        }
    }
}

/// A part, the plain way.
struct Part {
    name: String,
    content: Vec<u8>,
}

/// Takes a form apart by its boundaries, and headers by what stands behind `name=`.
fn split(body: &[u8]) -> Vec<Part> {
    let delimiter = format!("\r\n--{BOUNDARY}");
    let body = body.strip_prefix(b"\r\n").unwrap_or(body);
    let mut rest = [b"\r\n", body].concat();
    let mut parts = Vec::new();
    while let Some((part, after)) = divide(&rest, delimiter.as_bytes()) {
        parts.push(part);
        rest = after;
    }
    assert!(rest == b"--" || rest == b"--\r\n", "it does not end");
    let parts = parts.iter().skip(1).map(|part| {
        let (headers, content) = divide(part, b"\r\n\r\n").expect("a part has headers");
        let headers = String::from_utf8_lossy(&headers);
        let lower = headers.to_ascii_lowercase();
        let at = lower.find("content-disposition:").expect("what it is");
        let at = at + lower[at..].find("name=").expect("a name") + "name=".len();
        let rest = &headers[at..];
        let name = match rest.strip_prefix('"') {
            Some(rest) => rest.split('"').next(),
            None => rest.split([';', ' ', '\t', '\r']).next(),
        };
        Part {
            name: name.unwrap_or_default().to_owned(),
            content,
        }
    });
    parts.collect()
}

fn divide(text: &[u8], by: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = text.windows(by.len()).position(|window| window == by)?;
    Some((text[..at].to_vec(), text[at + by.len()..].to_vec()))
}

fn first<'p>(parts: &'p [Part], name: &str) -> Option<&'p [u8]> {
    let found = parts.iter().find(|part| part.name == name);
    found.map(|part| &part.content[..])
}

fn rename(parts: &mut Vec<Part>, from: &str, to: &str) {
    if first(parts, to).is_some() {
        return parts.retain(|part| part.name != from);
    }
    for part in parts.iter_mut().filter(|part| part.name == from) {
        to.clone_into(&mut part.name);
    }
}

/// Of several parts one is left.
fn set(parts: &mut Vec<Part>, name: &str, text: &str) {
    let at = parts.iter().position(|part| part.name == name);
    let Some(at) = at else {
        return parts.push(Part {
            name: name.to_owned(),
            content: text.into(),
        });
    };
    parts[at].content = text.into();
    let mut n = 0;
    parts.retain(|part| {
        n += 1;
        n - 1 <= at || part.name != name
    });
}
