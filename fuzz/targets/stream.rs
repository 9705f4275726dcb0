//! A stream says the same however it is cut, and only whole events go out.

use bytes::Bytes;
use tollgate::protocol::openai::OpenAi;
use tollgate::protocol::{Ending, Endpoint, Pieces, Progress, Protocol};

use super::{Script, pieces};

/// The first line says how the stream ends and how it is cut, the rest is the stream.
pub(crate) fn check(input: &[u8]) {
    let (mut script, stream) = Script::split(input);
    let flags = script.next();
    let ends = Ending {
        marker: flags & 1 == 0,
        hide_usage: flags & 2 == 2,
    };
    for endpoint in [Endpoint::ChatCompletions, Endpoint::Responses] {
        check_of((endpoint, ends), &script, stream);
    }
}

fn check_of(ends: (Endpoint, Ending), script: &Script<'_>, stream: &[u8]) {
    let whole = Heard::of(ends, &[stream]);
    let cut = Heard::of(ends, &pieces(script, stream));
    let bytes = Heard::of(ends, &stream.chunks(1).collect::<Vec<_>>());
    whole.is_same(&cut);
    whole.is_same(&bytes);
    let gaps = gaps(stream);
    assert!(
        is_made_of(whole.given(), stream, &gaps),
        "not a part of the stream's events"
    );
    // What is hidden is missing in the middle: a usage, or the mark of a chat's end where that is none.
    if ends.1.hide_usage || ends.0 == Endpoint::Responses {
        return;
    }
    for heard in [whole, cut, bytes] {
        assert!(stream.starts_with(heard.given()), "no prefix of the stream");
        for place in heard.places {
            assert!(
                gaps.binary_search(&place).is_ok(),
                "half an event, up to {place}"
            );
        }
    }
}

/// What came of a stream.
struct Heard {
    out: Vec<u8>,
    /// How much of it was given out before the stream's end.
    before_end: usize,
    /// How much of it had been given out after each piece.
    places: Vec<usize>,
    /// What was known after the last piece, and after the end.
    known: [Progress; 2],
}

impl Heard {
    fn of((endpoint, ends): (Endpoint, Ending), pieces: &[&[u8]]) -> Self {
        let mut decoder = OpenAi.decoder(endpoint, ends);
        let mut out = Pieces::new();
        let length = |out: &[Bytes]| out.iter().map(Bytes::len).sum::<usize>();
        let mut places = vec![0];
        for piece in pieces {
            let told = out.len();
            let fed = decoder.feed(Bytes::copy_from_slice(piece), &mut out);
            fed.expect("no input here is as long as an event may be");
            let given = length(&out[told..]);
            places.push(places[places.len() - 1] + given);
        }
        let before = *decoder.progress();
        let before_end = length(&out);
        decoder.finish(&mut out);
        Self {
            out: out.concat(),
            before_end,
            places,
            known: [before, *decoder.progress()],
        }
    }

    /// What was given out before the stream's end.
    fn given(&self) -> &[u8] {
        &self.out[..self.before_end]
    }

    fn is_same(&self, other: &Self) {
        assert_eq!(self.given(), other.given(), "before the end");
        assert_eq!(self.out, other.out, "all of it");
        for (one, other) in self.known.iter().zip(&other.known) {
            assert_eq!(one.content, other.content);
            assert_eq!(one.usage, other.usage);
            assert_eq!(one.end, other.end);
        }
    }
}

/// The places between events, by the letter of the standard: the stream's start, after a blank line, and after a
/// comment that stands in no event. Between the CR and the LF of one line end as well.
fn gaps(stream: &[u8]) -> Vec<usize> {
    let mut gaps = vec![0];
    let (mut start, mut at, mut open) = (0, 0, false);
    while let Some(length) = stream[at..].iter().position(|b| matches!(b, b'\r' | b'\n')) {
        let mut line = &stream[at..at + length];
        if start == at {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        start = usize::MAX;
        at += length + 1;
        let more = usize::from(stream[at - 1] == b'\r' && stream.get(at) == Some(&b'\n'));
        if line.is_empty() || (line.starts_with(b":") && !open) {
            gaps.extend(at..=at + more);
        }
        open = !line.is_empty() && (open || !line.starts_with(b":"));
        at += more;
    }
    gaps
}

/// Whether a text is some of the stream's events, in their order.
fn is_made_of(text: &[u8], stream: &[u8], gaps: &[usize]) -> bool {
    let mut left = text;
    for pair in gaps.windows(2) {
        left = left.strip_prefix(&stream[pair[0]..pair[1]]).unwrap_or(left);
    }
    left.is_empty()
}
