//! What stands before the content of a part: headers, of which few matter and none may be read in two ways.

use std::ops::Range;

use smallvec::SmallVec;

/// The most headers of one part; as many as the reader of most Python servers takes.
const MOST_HEADERS: usize = 8;

/// The longest header of a part, in bytes.
const LONGEST_HEADER: usize = 4096;

/// Why a part is refused.
type What = &'static str;

const UNCLEAR: What = "has a Content-Disposition that may be read in several ways";

/// What the headers of a part say. Ranges are those in the part.
#[derive(Debug)]
pub(super) struct Head {
    /// Where its name stands, with quotes if it has any.
    pub(super) name: Range<usize>,
    /// The name, if it has none.
    pub(super) unquoted: Option<Box<str>>,
    /// It has a name as a file, or is one to some readers.
    pub(super) is_file: bool,
    /// The header that states how long the content is; empty if none does.
    pub(super) stated: Range<usize>,
    /// How long all of them are, with the empty line behind.
    pub(super) length: usize,
}

/// Reads the headers of a part.
pub(super) fn head(part: &[u8]) -> Result<Head, What> {
    let lines = Lines::read(part)?;
    let content = part.len() - lines.length;
    let text = |line: &Line| part.get(line.value.clone()).unwrap_or_default();
    let disposition = lines.disposition.ok_or("has no Content-Disposition")?;
    let disposition = Disposition::read(part, disposition.value)?;
    let is_plain = |encoding: &[u8]| {
        let plain = ["binary", "8bit", "7bit"];
        let is = |plain: &str| encoding.eq_ignore_ascii_case(plain.as_bytes());
        plain.into_iter().any(is)
    };
    if !lines.encoding.as_ref().map(text).is_none_or(is_plain) {
        return Err("has a Content-Transfer-Encoding, which few readers know");
    }
    let is_right = |stated: &[u8]| stated == content.to_string().as_bytes();
    if !lines.stated.as_ref().map(text).is_none_or(is_right) {
        return Err("has a Content-Length that is not its length");
    }
    let kind = lines.kind.as_ref().map(text);
    let has_filename = disposition.has_filename;
    // What has this type is a file to some readers, whatever it is called.
    let is_stream = |kind| word(kind).eq_ignore_ascii_case(b"application/octet-stream");
    let is_file = has_filename || kind.is_some_and(is_stream);
    if let Some(kind) = kind {
        check_kind(kind, is_file)?;
    }
    // A part of this name says in which charset the others are (RFC 7578, 4.6).
    let name = disposition.name(part)?;
    let says = part.get(lines.length..).unwrap_or_default();
    if name.eq_ignore_ascii_case("_charset_") && !is_utf8(says) {
        return Err("says that the others are in another charset than UTF-8");
    }
    Ok(Head {
        unquoted: (!disposition.is_quoted).then(|| name.into()),
        name: disposition.written,
        is_file,
        stated: lines.stated.map_or(0..0, |line| line.whole),
        length: lines.length,
    })
}

/// Refuses parts that have parts themselves, and texts that are not read as what they are.
fn check_kind(kind: &[u8], is_file: bool) -> Result<(), What> {
    let is_multipart = |kind: &[u8]| kind.eq_ignore_ascii_case(b"multipart/");
    if word(kind)
        .get(.."multipart/".len())
        .is_some_and(is_multipart)
    {
        return Err("has parts itself");
    }
    if is_file {
        return Ok(());
    }
    for parameter in Parameters::of(kind) {
        let parameter = parameter.map_err(|_| "has a Content-Type that cannot be read")?;
        if parameter.name.eq_ignore_ascii_case(b"charset") && !is_utf8(parameter.value) {
            return Err("is a text in another charset than UTF-8");
        }
    }
    Ok(())
}

/// Whether a charset is UTF-8 or a part of it.
pub(super) fn is_utf8(charset: &[u8]) -> bool {
    [&b"utf-8"[..], b"utf8", b"us-ascii"]
        .iter()
        .any(|known| charset.eq_ignore_ascii_case(known))
}

/// Where a header stands: the whole of its line, and its value.
struct Line {
    whole: Range<usize>,
    value: Range<usize>,
}

/// The headers of a part that matter.
#[derive(Default)]
struct Lines {
    disposition: Option<Line>,
    kind: Option<Line>,
    encoding: Option<Line>,
    stated: Option<Line>,
    /// How long all of them are, with the empty line behind.
    length: usize,
}

impl Lines {
    fn read(part: &[u8]) -> Result<Self, What> {
        let mut lines = Self::default();
        let mut names = SmallVec::<[&[u8]; MOST_HEADERS]>::new();
        loop {
            let line = line(part, lines.length)?;
            let end = line.end + b"\r\n".len();
            let text = part.get(line.clone()).unwrap_or_default();
            let start = std::mem::replace(&mut lines.length, end);
            if text.is_empty() {
                return Ok(lines);
            }
            let (name, value) = header(text)?;
            if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err("has a header twice");
            }
            if names.len() == MOST_HEADERS {
                return Err("has more than 8 headers");
            }
            names.push(name);
            if let Some(place) = lines.place(name) {
                *place = Some(Line {
                    whole: start..end,
                    value: start + value.start..start + value.end,
                });
            }
        }
    }

    /// Where a header is kept. None: it does not matter.
    fn place(&mut self, name: &[u8]) -> Option<&mut Option<Line>> {
        let all: [(&[u8], _); 4] = [
            (b"content-disposition", &mut self.disposition),
            (b"content-type", &mut self.kind),
            (b"content-length", &mut self.stated),
            (b"content-transfer-encoding", &mut self.encoding),
        ];
        let mut all = all.into_iter();
        let found = all.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, place)| place)
    }
}

/// The line that begins at a place, without its end.
fn line(part: &[u8], at: usize) -> Result<Range<usize>, What> {
    let rest = part.get(at..).unwrap_or_default();
    let most = LONGEST_HEADER + b"\r\n".len();
    let text = rest.get(..most).unwrap_or(rest);
    let Some(end) = memchr::memchr(b'\n', text) else {
        return Err(match text.len() < rest.len() {
            true => "has a header of more than 4096 bytes",
            false => "has no empty line after its headers",
        });
    };
    match text.get(..end).and_then(|text| text.strip_suffix(b"\r")) {
        Some(line) => Ok(at..at + line.len()),
        None => Err("has a header that ends in LF instead of CRLF"),
    }
}

/// The name of a header, and where in its line the value stands.
fn header(line: &[u8]) -> Result<(&[u8], Range<usize>), What> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err("has a header that goes on in the next line");
    }
    // All of them, which takes less time than to stop at the first.
    let is_wrong = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if line.iter().fold(false, |any, byte| any | is_wrong(byte)) {
        return Err("has a header with control characters");
    }
    let colon = memchr::memchr(b':', line);
    let (name, value) = colon
        .and_then(|at| line.split_at_checked(at))
        .unwrap_or((line, b""));
    if colon.is_none() || name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("has a line among its headers that is none");
    }
    let value = value.strip_prefix(b":").unwrap_or(value);
    let end = line.trim_ascii_end().len();
    let start = (line.len() - value.trim_ascii_start().len()).min(end);
    Ok((name, start..end))
}

/// What a Content-Disposition says.
struct Disposition {
    /// Where the name stands, with quotes if it has any.
    written: Range<usize>,
    is_quoted: bool,
    has_filename: bool,
}

impl Disposition {
    fn read(part: &[u8], value: Range<usize>) -> Result<Self, What> {
        let text = part.get(value.clone()).unwrap_or_default();
        if !word(text).eq_ignore_ascii_case(b"form-data") {
            return Err("has a Content-Disposition other than form-data");
        }
        let mut names = SmallVec::<[&[u8]; 8]>::new();
        let mut found = None;
        let mut has_filename = false;
        for parameter in Parameters::of(text) {
            let parameter = parameter.map_err(|_| UNCLEAR)?;
            let name = parameter.name;
            if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err("has a parameter of its Content-Disposition twice");
            }
            if name.eq_ignore_ascii_case(b"name") {
                // Some look for `name=` wherever it stands, and find it in what a file is called.
                if !names.is_empty() {
                    return Err("does not give its name first");
                }
                let written = parameter.written;
                let written = value.start + written.start..value.start + written.end;
                found = Some((written, parameter.is_quoted));
            }
            let plain = name.split(|byte| *byte == b'*').next().unwrap_or(name);
            if plain.eq_ignore_ascii_case(b"name") && plain != name {
                return Err("has a name with an encoding (`name*`), which few readers know");
            }
            has_filename |= plain.eq_ignore_ascii_case(b"filename");
            names.push(name);
        }
        let (written, is_quoted) = found.ok_or("has no name")?;
        Ok(Self {
            written,
            is_quoted,
            has_filename,
        })
    }

    /// The name, if all readers agree on it.
    fn name<'p>(&self, part: &'p [u8]) -> Result<&'p str, What> {
        let quote = usize::from(self.is_quoted);
        let name = part.get(self.written.start + quote..self.written.end - quote);
        let name = std::str::from_utf8(name.unwrap_or_default());
        let name = name.map_err(|_| "has a name that is not UTF-8")?;
        if name.is_empty() {
            return Err("has no name");
        }
        // Not all undo the escapes that browsers and mailers (`=?utf-8?…`) write, some cut spaces, and some find parameters
        // in a name.
        let is_escape = |text: &&[u8]| {
            let escapes: [&[u8]; 3] = [b"%22", b"%0d", b"%0a"];
            escapes.iter().any(|it| it.eq_ignore_ascii_case(text))
        };
        let is_escaped = name.contains('%') && name.as_bytes().windows(3).any(|it| is_escape(&it));
        if is_escaped || name.contains(['\\', ';', '=']) || name.trim() != name {
            return Err("has a name that may be read in several ways");
        }
        Ok(name)
    }
}

/// What stands before the parameters of a header's value.
pub(super) fn word(value: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', value);
    let word = end.and_then(|end| value.get(..end)).unwrap_or(value);
    word.trim_ascii()
}

/// One `name=value`, or `name="value"`.
pub(super) struct Parameter<'t> {
    pub(super) name: &'t [u8],
    /// What stands between its quotes, if it has any.
    pub(super) value: &'t [u8],
    /// Where the value stands, with its quotes.
    pub(super) written: Range<usize>,
    pub(super) is_quoted: bool,
}

/// Parameters that are none, or that may be read in several ways.
pub(super) struct Unclear;

/// The parameters of a header's value, each behind a semicolon.
pub(super) struct Parameters<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Parameters<'t> {
    pub(super) fn of(text: &'t [u8]) -> Self {
        let end = memchr::memchr(b';', text);
        let at = end.unwrap_or(text.len());
        Self { text, at }
    }

    fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        while let [b' ' | b'\t', ..] = self.rest() {
            self.at += 1;
        }
    }

    /// As many bytes as will do, at least one.
    fn run(&mut self, which: impl Fn(u8) -> bool) -> Result<&'t [u8], Unclear> {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !which(*byte));
        let run = length.and_then(|length| rest.get(..length)).unwrap_or(rest);
        self.at += run.len();
        if run.is_empty() {
            Err(Unclear)
        } else {
            Ok(run)
        }
    }

    /// What stands between quotes. A quote with an escape ends the text to some and not to others.
    fn quoted(&mut self) -> Result<&'t [u8], Unclear> {
        let rest = self.rest();
        let length = memchr::memchr(b'"', rest).ok_or(Unclear)?;
        let text = rest.get(..length).unwrap_or_default();
        self.at += length + 1;
        if text.ends_with(b"\\") {
            Err(Unclear)
        } else {
            Ok(text)
        }
    }

    fn parameter(&mut self) -> Result<Parameter<'t>, Unclear> {
        let name = self.run(is_token)?;
        if !self.rest().starts_with(b"=") {
            return Err(Unclear);
        }
        self.at += 1;
        let start = self.at;
        let is_quoted = self.rest().starts_with(b"\"");
        let value = match is_quoted {
            true => {
                self.at += 1;
                self.quoted()?
            }
            false => self.run(is_token)?,
        };
        Ok(Parameter {
            name,
            value,
            written: start..self.at,
            is_quoted,
        })
    }
}

impl<'t> Iterator for Parameters<'t> {
    type Item = Result<Parameter<'t>, Unclear>;

    fn next(&mut self) -> Option<Self::Item> {
        self.space();
        match self.rest() {
            [] => return None,
            [b';', ..] => self.at += 1,
            _ => return Some(Err(Unclear)),
        }
        self.space();
        // Nothing after the last one does no harm.
        match self.rest() {
            [] => None,
            _ => Some(self.parameter()),
        }
    }
}

/// What may stand without quotes (RFC 9110, 5.6.2): the lowest bit for the lowest byte.
const TOKEN: u128 = {
    let (mut bits, mut byte) = (0, 0_u8);
    while byte < 128 {
        let is_one = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        bits |= (is_one as u128) << byte;
        byte += 1;
    }
    bits
};

fn is_token(byte: u8) -> bool {
    byte.is_ascii() && TOKEN >> byte & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(headers: &str, because: &str) {
        let part = format!("{headers}\r\n\r\n12");
        let what = head(part.as_bytes()).map(|head| head.name);
        assert_eq!(what, Err(because), "{headers:?}");
    }

    fn named(parameters: &str) -> String {
        format!("Content-Disposition: form-data; {parameters}")
    }

    #[test]
    fn a_header_that_readers_take_in_different_ways_is_refused() {
        let fine = named("name=\"a\"");
        for (more, because) in [
            ("X: 1\n", "has a header that ends in LF instead of CRLF"),
            (
                "X: 1\n2\r\n",
                "has a header that ends in LF instead of CRLF",
            ),
            (" folded", "has a header that goes on in the next line"),
            ("\tfolded", "has a header that goes on in the next line"),
            ("X: a\0b", "has a header with control characters"),
            ("X: a\rb", "has a header with control characters"),
            ("X", "has a line among its headers that is none"),
            (": x", "has a line among its headers that is none"),
            ("X : x", "has a line among its headers that is none"),
            (
                "content-disposition: form-data; name=\"b\"",
                "has a header twice",
            ),
            ("X-A: 1\r\nx-a: 1", "has a header twice"),
            (
                "1: \r\n2: \r\n3: \r\n4: \r\n5: \r\n6: \r\n7: \r\n8: ",
                "has more than 8 headers",
            ),
            (
                &format!("X: {}", "x".repeat(LONGEST_HEADER)),
                "has a header of more than 4096 bytes",
            ),
            (
                "Content-Transfer-Encoding: base64",
                "has a Content-Transfer-Encoding, which few readers know",
            ),
            (
                "Content-Transfer-Encoding: ",
                "has a Content-Transfer-Encoding, which few readers know",
            ),
            (
                "Content-Length: 3",
                "has a Content-Length that is not its length",
            ),
            (
                "Content-Length: +2",
                "has a Content-Length that is not its length",
            ),
            (
                "Content-Type: Multipart/mixed; boundary=x",
                "has parts itself",
            ),
            (
                "Content-Type: text/plain; charset=utf-16",
                "is a text in another charset than UTF-8",
            ),
            (
                "Content-Type: text/plain; charset",
                "has a Content-Type that cannot be read",
            ),
        ] {
            refused(&format!("{fine}\r\n{more}"), because);
            refused(&format!("{more}\r\n{fine}"), because);
        }
        assert_eq!(
            head(b"X: 1").err(),
            Some("has no empty line after its headers")
        );
        assert_eq!(head(b"").err(), Some("has no empty line after its headers"));
        let charset = format!("{}\r\n\r\nutf-7", named("name=_CHARSET_"));
        let because = "says that the others are in another charset than UTF-8";
        assert_eq!(head(charset.as_bytes()).err(), Some(because));
    }

    #[test]
    fn a_name_that_readers_take_in_different_ways_is_refused() {
        refused("Content-Type: text/plain", "has no Content-Disposition");
        for other in [
            "",
            "attachment; name=\"a\"",
            "form-data x; name=a",
            "\"form-data\"; name=a",
        ] {
            let headers = format!("Content-Disposition: {other}");
            refused(&headers, "has a Content-Disposition other than form-data");
        }
        refused("Content-Disposition: form-data", "has no name");
        for (parameters, because) in [
            ("filename=\"a\"", "has no name"),
            ("name=\"\"", "has no name"),
            ("filename=\"a\"; name=\"b\"", "does not give its name first"),
            (
                "name=a; NAME=b",
                "has a parameter of its Content-Disposition twice",
            ),
            (
                "name=a; filename=b; Filename=c",
                "has a parameter of its Content-Disposition twice",
            ),
            (
                "name*=utf-8''a",
                "has a name with an encoding (`name*`), which few readers know",
            ),
            (
                "name=a; Name*0=b",
                "has a name with an encoding (`name*`), which few readers know",
            ),
            ("name=", UNCLEAR),
            ("name", UNCLEAR),
            ("name = a", UNCLEAR),
            ("name=\"a", UNCLEAR),
            ("name=\"a\"b", UNCLEAR),
            ("name=a b", UNCLEAR),
            ("name=\"a\\\"b\"", UNCLEAR),
            ("name=a; filename=\"x\\\"; y=\"", UNCLEAR),
            ("name=a; filename=\u{e9}", UNCLEAR),
        ] {
            refused(&named(parameters), because);
        }
        for name in [
            "a\\b",
            "a%22b",
            "a%0D",
            "%0a",
            "a;b",
            "=?utf-8?Q?a?=",
            " a",
            "a ",
            "\u{a0}a",
        ] {
            let because = "has a name that may be read in several ways";
            refused(&named(&format!("name=\"{name}\"")), because);
        }
        let bytes = [named("name=\"").as_bytes(), b"\xff\"\r\n\r\n"].concat();
        assert_eq!(head(&bytes).err(), Some("has a name that is not UTF-8"));
    }

    #[test]
    fn a_head_says_where_everything_stands() {
        let part = format!(
            "content-length:  2 \r\n{}\r\nX: y\r\n\r\n12",
            named("name=a; filename*=b")
        );
        let head = head(part.as_bytes()).unwrap();
        assert_eq!(&part[head.name], "a");
        assert_eq!(head.unquoted.as_deref(), Some("a"));
        assert_eq!(&part[head.stated], "content-length:  2 \r\n");
        assert_eq!(&part[head.length..], "12");
        assert!(head.is_file);
    }
}
