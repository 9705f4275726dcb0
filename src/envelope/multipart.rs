//! Where does each part of form data begin and end? `multipart/form-data` (RFC 7578, and RFC 2046 below it), as strictly as
//! all of its readers agree.
//!
//! They differ in what is no line end, in what may follow a boundary on its line, and in what a boundary in the middle
//! of a part is: to one it is a boundary, to another a text. Whoever reads more than we do reads another `model`. Clients
//! write none of that, so it is refused.

use std::fmt;
use std::ops::Range;

use memchr::memmem;

use super::form::{Form, Part};
use super::part::{Parameters, head, is_utf8, word};
use super::{MOST_MEMBERS, Malformed, Member, Object, length_bit};

/// The longest that a boundary may be (RFC 2046, 5.1.1).
const LONGEST_BOUNDARY: usize = 70;

const FORM: &[u8] = b"multipart/form-data";

/// What is wrong with form data.
#[derive(Debug, thiserror::Error)]
pub struct Defect {
    /// In which part, counted from 1; none: in the whole.
    part: Option<usize>,
    what: &'static str,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Some(part) => write!(f, "part {part} of the form data {}", self.what),
            None => write!(f, "the form data {}", self.what),
        }
    }
}

/// The boundary between the parts of a body, as its Content-Type gives it. None if it is no form data.
pub fn boundary(content_type: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    if !word(content_type).eq_ignore_ascii_case(FORM) {
        return Ok(None);
    }
    let refused = Malformed::NoBoundary;
    let mut found = None;
    for parameter in Parameters::of(content_type) {
        let parameter = parameter.map_err(|_| refused("cannot be read"))?;
        // `boundary*=` and `boundary*0=` are ways to write it that few know.
        let plain = parameter.name.split(|byte| *byte == b'*').next();
        if plain.is_some_and(|name| name.eq_ignore_ascii_case(b"boundary")) {
            if found.is_some() {
                return Err(refused("gives its boundary twice"));
            }
            if plain != Some(parameter.name) {
                return Err(refused("gives its boundary in parts or with an encoding"));
            }
            found = Some(parameter.value);
        } else if parameter.name.eq_ignore_ascii_case(b"charset") {
            // Some readers decode all texts by it.
            if !is_utf8(parameter.value) {
                return Err(refused("gives another charset than UTF-8"));
            }
        } else if parameter.value.iter().any(|byte| b";\\".contains(byte)) {
            // Whoever does not know quotes finds another parameter in it.
            return Err(refused("cannot be read"));
        }
    }
    let boundary = found.ok_or(refused("gives no boundary"))?;
    check(boundary).map(|()| Some(boundary))
}

/// Whether it is a boundary at all.
fn check(boundary: &[u8]) -> Result<(), Malformed> {
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    let refused = Malformed::NoBoundary;
    match boundary {
        [] => Err(refused("gives no boundary")),
        boundary if boundary.len() > LONGEST_BOUNDARY => {
            Err(refused("gives a boundary of more than 70 characters"))
        }
        [.., b' '] => Err(refused("gives a boundary that ends in a space")),
        boundary if !boundary.iter().all(may_stand) => Err(refused(
            "gives a boundary with characters that none may have",
        )),
        _ => Ok(()),
    }
}

/// Scans the form that `body` is.
pub(super) fn scan(body: &[u8], boundary: &[u8]) -> Result<(Object, Form), Malformed> {
    check(boundary)?;
    let dashes = [b"--", boundary].concat();
    let mut members = Vec::with_capacity(16);
    let mut parts = Vec::with_capacity(16);
    let mut marks = Marks::of(body, &dashes);
    let mut at = marks.first()?;
    while let Some(start) = marks.opened(at)? {
        let next = marks.next()?;
        if members.len() == MOST_MEMBERS {
            return Err(Malformed::TooMany);
        }
        let part = Some(members.len() + 1);
        // The line end before a boundary is the boundary's.
        let text = body.get(start..next - CRLF.len());
        let head = text.ok_or("has no headers").and_then(head);
        let head = head.map_err(|what| Defect { part, what })?;
        let shift = |range: Range<usize>| start + range.start..start + range.end;
        members.push(Member {
            key: shift(head.name),
            value: start + head.length..next - CRLF.len(),
            unescaped: head.unquoted,
        });
        parts.push(Part {
            start: at,
            stated: shift(head.stated),
            is_file: head.is_file,
        });
        at = next;
    }
    let lengths = members
        .iter()
        .fold(0, |lengths, member| lengths | length_bit(member.length()));
    let object = Object {
        members,
        lengths,
        close: at,
    };
    let form = Form::new(dashes, parts);
    Ok((object, form))
}

const CRLF: &[u8] = b"\r\n";

/// The places where lines begin with a boundary, one after the other.
struct Marks<'b> {
    body: &'b [u8],
    dashes: &'b [u8],
    found: memmem::FindIter<'b, 'b>,
}

impl<'b> Marks<'b> {
    fn of(body: &'b [u8], dashes: &'b [u8]) -> Self {
        let found = memmem::find_iter(body, dashes);
        Self {
            body,
            dashes,
            found,
        }
    }

    /// The next line that begins with a boundary. To some readers a CR or an LF ends a line, too.
    fn mark(&mut self) -> Option<usize> {
        let begins_line = |at: &usize| match at.checked_sub(1) {
            Some(before) => matches!(self.body.get(before), Some(b'\r' | b'\n')),
            None => true,
        };
        self.found.find(begins_line)
    }

    /// The one that a body must begin with.
    fn first(&mut self) -> Result<usize, Defect> {
        match self.mark() {
            Some(0) => Ok(0),
            // Some clients write an empty line first.
            Some(at) if at == CRLF.len() && self.body.starts_with(CRLF) => Ok(at),
            _ => Err(whole("does not begin with its boundary")),
        }
    }

    /// The one that ends the part that has begun.
    fn next(&mut self) -> Result<usize, Defect> {
        let at = self.mark().ok_or(CUT)?;
        match self.body.get(..at) {
            Some(before) if before.ends_with(CRLF) => Ok(at),
            _ => Err(STRAY),
        }
    }

    /// Where the part begins that this boundary opens. None if it closes the form.
    fn opened(&self, at: usize) -> Result<Option<usize>, Defect> {
        let start = at + self.dashes.len();
        let behind = self.body.get(start..).unwrap_or_default();
        match behind {
            [b'-', b'-'] | [b'-', b'-', b'\r', b'\n'] => Ok(None),
            [b'-', b'-', ..] => Err(whole("goes on after its closing boundary")),
            // White space is allowed here, but to some it makes the line a text.
            [b'\r', b'\n', ..] => Ok(Some(start + CRLF.len())),
            [] | [b'-' | b'\r'] => Err(CUT),
            _ => Err(STRAY),
        }
    }
}

const CUT: Defect = whole("ends before its closing boundary");
const STRAY: Defect = whole("has its boundary within a part");

const fn whole(what: &'static str) -> Defect {
    Defect { part: None, what }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use bytes::Bytes;
    use proptest::prelude::*;

    pub(in crate::envelope) const BOUNDARY: &str = "----b0undary";

    /// A part, the plain way: its headers as one text, and its content.
    pub(in crate::envelope) type Written = (String, Vec<u8>);

    pub(in crate::envelope) fn field(name: &str, content: impl AsRef<[u8]>) -> Written {
        let headers = format!("Content-Disposition: form-data; name=\"{name}\"");
        (headers, content.as_ref().to_vec())
    }

    pub(in crate::envelope) fn file(name: &str, content: impl AsRef<[u8]>) -> Written {
        let (headers, content) = field(name, content);
        let headers = format!("{headers}; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg");
        (headers, content)
    }

    pub(in crate::envelope) fn written(parts: &[Written]) -> Vec<u8> {
        let mut body = Vec::new();
        for (headers, content) in parts {
            body.extend_from_slice(format!("--{BOUNDARY}\r\n{headers}\r\n\r\n").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        body
    }

    /// The parts of a form that is written well, by nothing but its boundaries.
    pub(in crate::envelope) fn split(body: &[u8]) -> Vec<Written> {
        let divided = |text: &[u8], by: &[u8]| {
            let at = text.windows(by.len()).position(|window| window == by);
            at.map(|at| (text[..at].to_vec(), text[at + by.len()..].to_vec()))
        };
        let delimiter = format!("\r\n--{BOUNDARY}");
        let mut rest = [b"\r\n", body].concat();
        let mut parts = Vec::new();
        while let Some((before, after)) = divided(&rest, delimiter.as_bytes()) {
            parts.push(before);
            rest = after;
        }
        assert!(rest == b"--\r\n" || rest == b"--", "{rest:?}");
        let parts = parts.into_iter().skip(1);
        let parts = parts.map(|part| {
            let (headers, content) = divided(&part, b"\r\n\r\n").unwrap();
            let headers = String::from_utf8_lossy(&headers);
            (headers.strip_prefix("\r\n").unwrap().to_owned(), content)
        });
        parts.collect()
    }

    fn scan(body: impl AsRef<[u8]>) -> Result<Envelope, Malformed> {
        let acted_on = |name: &str| matches!(name, "model" | "stream" | "include[]");
        let body = Bytes::copy_from_slice(body.as_ref());
        Envelope::form(body, BOUNDARY.as_bytes(), acted_on)
    }

    #[track_caller]
    fn refused(body: impl AsRef<[u8]>, because: &str) {
        let body = body.as_ref();
        let shown = String::from_utf8_lossy(body);
        let message = scan(body).expect_err(&shown).to_string();
        assert!(message.contains(because), "{message}\n{shown}");
    }

    /// `@` stands for the boundary with its dashes, and a line break for CRLF.
    fn text(body: &str) -> String {
        body.replace('\n', "\r\n")
            .replace('@', &format!("--{BOUNDARY}"))
    }

    #[test]
    fn parts_are_found_whoever_wrote_them() {
        // As httpx, curl, .NET, a browser and OkHttp write them.
        let body = "@\nContent-Disposition: form-data; name=\"model\"\n\nwhisper-1\n@\n\
            content-disposition:form-data; name=\"file\"; filename=\"C:\\a;b.mp3\"; filename*=utf-8''a.mp3\n\
            Content-Type: audio/mpeg\n\nRIFF\0\n\n-\n@\n\
            Content-Type: text/plain; charset=utf-8\nContent-Disposition: form-data; name=prompt\n\n\n@\n\
            Content-Disposition: form-data; name=\"include[]\";\n\n1\n@\n\
            Content-Disposition: form-data; name=\"include[]\"\nContent-Transfer-Encoding: BINARY\n\
            Content-Length: 1\nX-Other: \"\n\n2\n@--";
        for body in [text(body), text(&format!("\n{body}\n"))] {
            let envelope = scan(&body).unwrap();
            assert_eq!(envelope.string("model").unwrap(), "whisper-1");
            assert_eq!(envelope.value("prompt").unwrap(), b"");
            assert_eq!(envelope.value("include[]").unwrap(), b"1");
            assert!(envelope.value("absent").is_none());
            let file = &b"RIFF\0\r\n\r\n-"[..];
            assert_eq!(envelope.value("file"), Some(file));
            assert_eq!(envelope.files().collect::<Vec<_>>(), [("file", file)]);
            assert_eq!(envelope.length(), body.len() as u64);
        }
        let empty = scan(text("@--")).unwrap();
        assert!(empty.value("model").is_none());
        let envelope = scan(written(&[file("file", b"\xff"), file("empty", b"")])).unwrap();
        assert!(envelope.string("file").is_none(), "it is no text");
        let sizes = envelope.files().map(|(_, file)| file.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn what_readers_take_in_different_ways_is_refused() {
        let part = "@\nContent-Disposition: form-data; name=\"a\"\n\n1\n";
        for (body, because) in [
            ("", "does not begin with its boundary"),
            ("x\n@--", "does not begin with its boundary"),
            ("\n\n@--", "does not begin with its boundary"),
            (" @--", "does not begin with its boundary"),
            ("@--\n\n", "goes on after its closing boundary"),
            ("@--x", "goes on after its closing boundary"),
            ("@--\n@--", "goes on after its closing boundary"),
            ("@-x", "has its boundary within a part"),
            (&format!("{part}@ x\n@--"), "has its boundary within a part"),
            (&format!("{part}@ \n@--"), "has its boundary within a part"),
            (&format!("{part}@x\n@--"), "has its boundary within a part"),
            (&format!("{part}@-\n@--"), "has its boundary within a part"),
            (part, "ends before its closing boundary"),
            (&format!("{part}@"), "ends before its closing boundary"),
            (&format!("{part}@-"), "ends before its closing boundary"),
            (&format!("{part}@\n"), "ends before its closing boundary"),
            ("@\n@--", "part 1 of the form data has no headers"),
            ("@\n\n@--", "part 1 of the form data has no empty line"),
            ("@\n\n\n@--", "has no Content-Disposition"),
            (&format!("{part}@\n\n1\n@--"), "part 2 of the form data"),
            (
                "@\nContent-Disposition: form-data; name=\"a\"\n\n@--",
                "has no empty line after its headers",
            ),
        ] {
            refused(text(body), because);
        }
        // To some readers one of the two is a line end.
        for end in ["\r", "\n"] {
            let inner = format!("1{end}--{BOUNDARY}\r\n");
            refused(written(&[field("a", inner)]), "within a part");
            let first = format!("{end}--{BOUNDARY}--");
            refused(first, "does not begin with its boundary");
        }
        let fine = format!("1--{BOUNDARY}\r\n \r\n--{}", &BOUNDARY[1..]);
        assert!(scan(written(&[field("a", fine)])).is_ok());
    }

    #[test]
    fn a_name_twice_is_refused_unless_it_is_a_lists() {
        let all = |names: &[&str]| {
            let parts: Vec<Written> = names.iter().map(|name| field(name, "1")).collect();
            written(&parts)
        };
        refused(all(&["model", "model"]), "`model` is given twice");
        refused(all(&["a", "A"]), "`A` is given twice");
        refused(all(&["image", "image[]"]), "`image[]` is given twice");
        refused(all(&["image[]", "Image"]), "`Image` is given twice");
        assert!(scan(all(&["image[]", "image[]", "b"])).is_ok());
        let many: Vec<String> = (0..=MOST_MEMBERS).map(|n| format!("m{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(scan(all(&many[1..])).is_ok());
        refused(all(&many), "more than 256 members");
        refused(all(&vec!["a[]"; MOST_MEMBERS + 1]), "more than 256 members");
    }

    #[test]
    fn what_is_acted_on_is_one_text_to_every_reader() {
        refused(
            written(&[field("Stream", "true")]),
            "`Stream` must be written `stream`",
        );
        refused(
            written(&[field("\u{17f}tream", "true")]),
            "must be written `stream`",
        );
        let stream = |kind: &str| {
            let (headers, content) = field("model", "a");
            written(&[(format!("{headers}\r\nContent-Type: {kind}"), content)])
        };
        for body in [
            written(&[file("model", "a")]),
            written(&[field("model", b"\xff")]),
            written(&[field("include[]", "a"), field("include[]", b"\xff")]),
            written(&[(field("model", "").0 + "; filename*=a", b"a".to_vec())]),
            stream("application/octet-stream"),
        ] {
            refused(body, "must be text in UTF-8, and no file");
        }
        assert!(scan(stream("text/plain")).is_ok());
        assert!(scan(written(&[field("other", b"\xff")])).is_ok());
    }

    #[track_caller]
    fn bounds(content_type: &str, want: Result<Option<&str>, &str>) {
        let got = boundary(content_type.as_bytes());
        let got = got.map(|found| found.map(|found| std::str::from_utf8(found).unwrap()));
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{content_type}"),
            (Err(got), Err(want)) => assert_eq!(
                got.to_string(),
                format!("the Content-Type of form data {want}"),
                "{content_type}"
            ),
            (got, _) => panic!("{content_type}: {got:?}"),
        }
    }

    #[test]
    fn a_content_type_says_what_the_boundary_is() {
        for other in [
            "",
            "application/json; boundary=x",
            "multipart/mixed; boundary=x",
        ] {
            bounds(other, Ok(None));
        }
        for (parameters, want) in [
            ("boundary=x", Ok("x")),
            ("Boundary=\"a b:c\" ; charset=UTF-8;", Ok("a b:c")),
            (
                "x=\"1\";\tboundary=----WebKitFormBoundary7",
                Ok("----WebKitFormBoundary7"),
            ),
            (
                &format!("boundary={}", "x".repeat(70)),
                Ok(&*"x".repeat(70)),
            ),
            (
                &format!("boundary={}", "x".repeat(200)),
                Err("gives a boundary of more than 70 characters"),
            ),
        ] {
            bounds(&format!("Multipart/Form-Data;{parameters}"), want.map(Some));
        }
        bounds("multipart/form-data", Err("gives no boundary"));
    }

    #[test]
    fn a_boundary_that_readers_take_in_different_ways_is_refused() {
        for (parameters, because) in [
            ("boundary=\"\"", "gives no boundary"),
            ("charset=utf-8", "gives no boundary"),
            ("", "gives no boundary"),
            ("boundary=x; boundary=x", "gives its boundary twice"),
            ("boundary=x; BOUNDARY=\"y\"", "gives its boundary twice"),
            (
                "boundary*=utf-8''x",
                "gives its boundary in parts or with an encoding",
            ),
            ("boundary=x; boundary*0=y", "gives its boundary twice"),
            ("boundary=\"x \"", "gives a boundary that ends in a space"),
            (
                "boundary=\"x\\y\"",
                "gives a boundary with characters that none may have",
            ),
            (
                "boundary=\"x;y\"",
                "gives a boundary with characters that none may have",
            ),
            (
                "boundary=\"\u{e9}\"",
                "gives a boundary with characters that none may have",
            ),
            (
                "boundary=x&y",
                "gives a boundary with characters that none may have",
            ),
            ("a=\"; boundary=y\"; boundary=x", "cannot be read"),
            ("boundary=a=b", "cannot be read"),
            ("boundary=", "cannot be read"),
            ("boundary = x", "cannot be read"),
            ("boundary=\"x", "cannot be read"),
            ("boundary=x y", "cannot be read"),
            ("boundary=x;;", "cannot be read"),
            (
                "boundary=x; charset=utf-7",
                "gives another charset than UTF-8",
            ),
        ] {
            bounds(&format!("Multipart/Form-Data;{parameters}"), Err(because));
        }
        let form = |boundary: &[u8]| Envelope::form(Bytes::new(), boundary, |_| false);
        for boundary in [&b""[..], b"a\r\n", b"a ", &[b'x'; 71]] {
            let why = form(boundary).unwrap_err();
            assert!(matches!(why, Malformed::NoBoundary(_)), "{why}");
        }
    }

    const PIECES: [&str; 8] = [
        "\r\n",
        "\n",
        "\r",
        "--",
        "-",
        "\r\n--",
        "\r\n------b0undar",
        "------b0undary",
    ];

    /// Bytes as they lie in files, and such as look like boundaries.
    pub(in crate::envelope) fn content() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        let content = prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat());
        content.prop_filter(
            "the boundary is chosen so that it does not occur",
            |content| {
                let lines = content.split(|byte| matches!(byte, b'\r' | b'\n'));
                let dashes = format!("--{BOUNDARY}");
                lines
                    .into_iter()
                    .all(|line| !line.starts_with(dashes.as_bytes()))
            },
        )
    }

    const NAMES: [&str; 7] = ["a", "model", "file", "include[]", "image[]", "größe", "x y"];

    pub(in crate::envelope) fn form() -> impl Strategy<Value = Vec<Written>> {
        let name = prop::sample::select(&NAMES[..]);
        let part = (name, any::<bool>(), content());
        prop::collection::vec(part, 0..8).prop_map(|parts| {
            let mut seen = Vec::new();
            let mut all = Vec::new();
            for (name, is_file, content) in parts {
                if name.ends_with("[]") || !seen.contains(&name) {
                    seen.push(name);
                    all.push(match is_file {
                        true => file(name, content),
                        false => field(name, content),
                    });
                }
            }
            all
        })
    }

    fn scan_any(body: &[u8]) -> Result<Envelope, Malformed> {
        Envelope::form(Bytes::copy_from_slice(body), BOUNDARY.as_bytes(), |_| false)
    }

    /// What was read, part by part.
    pub(in crate::envelope) fn parts_of(envelope: &Envelope) -> Vec<(&str, &[u8])> {
        let Envelope { body, object, .. } = envelope;
        let members = object.members.iter().enumerate();
        members
            .map(|(n, member)| (object.name(body, n), &body[member.value.clone()]))
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in form()) {
            let body = written(&parts);
            let envelope = scan_any(&body).unwrap();
            let got = parts_of(&envelope);
            prop_assert_eq!(got.len(), parts.len());
            for ((name, got), (headers, content)) in got.into_iter().zip(&parts) {
                let named = format!("name=\"{name}\"");
                prop_assert!(headers.contains(&named));
                prop_assert_eq!(got, content);
            }
            let files = parts.iter().filter(|(headers, _)| headers.contains("filename"));
            let sizes = files.map(|(_, content)| content.len());
            let got = envelope.files().map(|(_, file)| file.len());
            prop_assert_eq!(got.collect::<Vec<_>>(), sizes.collect::<Vec<_>>());
            prop_assert_eq!(split(&body), parts);
        }

        #[test]
        fn a_form_that_is_cut_is_refused_wherever_that_is(parts in form()) {
            let body = written(&parts);
            // Of the last line end nothing depends.
            for end in (0..body.len() - CRLF.len()).chain([body.len() - 1]) {
                prop_assert!(scan_any(&body[..end]).is_err(), "{}", end);
            }
        }

        #[test]
        fn whatever_comes_in_nothing_breaks(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = scan_any(&body);
            let _ = boundary(&body);
            let _ = boundary(&[b"multipart/form-data;", &body[..]].concat());
            let _ = head(&body);
        }

        /// A form with something changed in it is refused, or read as by the plain way.
        #[test]
        fn what_is_read_is_what_is_there(
            parts in form(),
            at in any::<prop::sample::Index>(),
            by in prop::collection::vec(prop::sample::select(&b"\r\n\t -:;=\"\\%a\0\xff"[..]), 0..4),
            gone in 0..4_usize,
        ) {
            let mut body = written(&parts);
            let at = at.index(body.len());
            let end = (at + gone).min(body.len());
            body.splice(at..end, by);
            if let Ok(envelope) = scan_any(&body) {
                let body = body.strip_prefix(CRLF).unwrap_or(&body);
                let contents = split(body).into_iter().map(|(_, content)| content);
                let got = parts_of(&envelope).into_iter().map(|(_, content)| content.to_vec());
                prop_assert_eq!(got.collect::<Vec<_>>(), contents.collect::<Vec<_>>());
            }
        }
    }
}
