//! Events in a stream, however its bytes are cut.
//!
//! WHATWG HTML, "server-sent events": lines end with LF, CR LF or CR; a byte order mark at the start is no text; a line
//! that starts with a colon is a comment; `data` lines of one event are joined with LF; a blank line ends the event.

use memchr::memchr2;

use super::{MAX_EVENT, TooLong};

/// What was found in a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A complete event.
    Event {
        /// Its `data`.
        data: &'a [u8],
        /// It calls itself an error: `event: error`, or the field `error` of older llama.cpp servers, which is then
        /// the data.
        is_error: bool,
    },
    /// A place between events: after a comment or a stray blank line.
    Gap,
    /// The LF of a CR LF whose CR ended the last piece, and with it what was found there.
    Rest,
}

/// Finds events. Holds what is left of an incomplete one, at most [`MAX_EVENT`] bytes.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    started: bool,
    /// The last piece ended with CR: an LF at the start of the next belongs to it.
    after_cr: bool,
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    event: Event,
}

/// The event that is being read.
#[derive(Debug, Default)]
struct Event {
    /// Whether any field of it has come.
    open: bool,
    data: Vec<u8>,
    lines: usize,
    is_error: bool,
}

impl Scanner {
    /// Reads the next piece. `found` hears what was found, and at which offset of the piece it ended.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        mut found: impl FnMut(Found<'_>, usize),
    ) -> Result<(), TooLong> {
        let mut at = 0;
        if self.after_cr && piece.first() == Some(&b'\n') {
            at = 1;
            if !self.event.open {
                found(Found::Rest, at);
            }
        }
        if !piece.is_empty() {
            self.after_cr = false;
        }
        // One line of data that lies in this piece whole needs no copy, as long as its event ends here too.
        let mut single: Option<&[u8]> = None;
        while let Some(length) = memchr2(b'\n', b'\r', piece.get(at..).unwrap_or_default()) {
            let text = piece.get(at..at + length).unwrap_or_default();
            at += length + 1;
            if piece.get(at - 1) == Some(&b'\r') {
                match piece.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if self.line.is_empty() {
                self.take(text, &mut single, at, &mut found);
            } else {
                self.line.extend_from_slice(text);
                let line = std::mem::take(&mut self.line);
                let mut copied = None;
                self.keep(&mut single);
                self.take(&line, &mut copied, at, &mut found);
                self.keep(&mut copied);
            }
        }
        self.keep(&mut single);
        self.line
            .extend_from_slice(piece.get(at..).unwrap_or_default());
        if self.line.len() + self.event.data.len() > MAX_EVENT {
            return Err(TooLong);
        }
        Ok(())
    }

    /// The body is over: an event whose blank line never came is read all the same.
    pub(super) fn finish(&mut self, mut found: impl FnMut(Found<'_>)) {
        let line = std::mem::take(&mut self.line);
        let mut single = None;
        self.take(&line, &mut single, 0, &mut |f, _| found(f));
        self.take(b"", &mut single, 0, &mut |f, _| found(f));
    }

    fn take<'a>(
        &mut self,
        mut line: &'a [u8],
        single: &mut Option<&'a [u8]>,
        at: usize,
        found: &mut impl FnMut(Found<'_>, usize),
    ) {
        if !self.started {
            self.started = true;
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let event = &mut self.event;
            if event.lines > 0 {
                let data = single.take().unwrap_or(&event.data);
                found(
                    Found::Event {
                        data,
                        is_error: event.is_error,
                    },
                    at,
                );
            } else {
                found(Found::Gap, at);
            }
            event.open = false;
            event.is_error = false;
            event.lines = 0;
            event.data.clear();
            return;
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(0) => {
                if !self.event.open {
                    found(Found::Gap, at);
                }
                return;
            }
            Some(colon) => {
                let (name, value) = line.split_at(colon);
                let value = value.get(1..).unwrap_or_default();
                (name, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        self.event.open = true;
        match name {
            b"data" | b"error" => {
                self.event.is_error |= name == b"error";
                if self.event.lines == 0 {
                    *single = Some(value);
                } else {
                    self.keep(single);
                    self.event.data.push(b'\n');
                    self.event.data.extend_from_slice(value);
                }
                self.event.lines += 1;
            }
            b"event" => self.event.is_error |= value == b"error",
            _ => {}
        }
    }

    /// Copies a line of data whose event goes on beyond what it lies in.
    fn keep(&mut self, single: &mut Option<&[u8]>) {
        if let Some(data) = single.take() {
            self.event.data.extend_from_slice(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found, as text: `E`rrors, `D`ata, and the offset in the whole where each ended.
    fn read(pieces: &[&[u8]]) -> Vec<(String, usize)> {
        let mut scanner = Scanner::default();
        let (mut all, mut before) = (Vec::new(), 0);
        for piece in pieces {
            scanner
                .feed(piece, |found, at| {
                    if let Found::Event { data, is_error } = found {
                        let kind = if is_error { "E" } else { "D" };
                        all.push((
                            format!("{kind}{}", String::from_utf8_lossy(data)),
                            before + at,
                        ));
                    }
                })
                .unwrap();
            before += piece.len();
        }
        scanner.finish(|found| {
            if let Found::Event { data, .. } = found {
                all.push((format!("L{}", String::from_utf8_lossy(data)), before));
            }
        });
        all
    }

    const STREAM: &str = "\u{feff}data: {\"a\":\"é\u{2028}\"}\n\n: ping\n\nevent: x\ndata:{\"b\":2}\r\n\r\ndata: 1\ndata:  2\r\r\
        id: 7\nretry\n\nerror: bad\n\nevent: error\ndata: {}\n\n:c\ndata\n\ndata: [DONE]";

    #[test]
    fn events_are_found() {
        let texts: Vec<String> = read(&[STREAM.as_bytes()])
            .into_iter()
            .map(|(text, _)| text)
            .collect();
        assert_eq!(
            texts,
            [
                "D{\"a\":\"é\u{2028}\"}",
                "D{\"b\":2}",
                "D1\n 2",
                "Ebad",
                "E{}",
                "D",
                "L[DONE]"
            ]
        );
    }

    #[test]
    fn however_the_bytes_are_cut() {
        let text = STREAM.as_bytes();
        let whole: Vec<_> = read(&[text]).into_iter().map(|(text, _)| text).collect();
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(
            read(&bytes).into_iter().map(|(t, _)| t).collect::<Vec<_>>(),
            whole
        );
        for i in 0..text.len() {
            for j in i..text.len() {
                let cut = read(&[&text[..i], &text[i..j], &text[j..]]);
                let cut: Vec<_> = cut.into_iter().map(|(text, _)| text).collect();
                assert_eq!(cut, whole, "cut at {i} and {j}");
            }
        }
    }

    #[test]
    fn offsets_are_those_of_the_blank_lines() {
        assert_eq!(
            read(&[b"data: 1\n\ndata: 2\r\n\r\nda"]),
            [("D1".into(), 9), ("D2".into(), 20)]
        );
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut scanner = Scanner::default();
        let piece = vec![b'x'; 1 << 20];
        let fed = (0..17).try_for_each(|_| scanner.feed(&piece, |_, _| ()));
        assert_eq!(fed, Err(TooLong));
    }
}
