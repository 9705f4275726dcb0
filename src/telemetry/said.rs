//! What was said? The beginnings of what a request asks and is answered, for a key of which the operator wants that logged.
//!
//! What all of them take is bounded, from the first byte of a request until its line is written. Only text is kept; of
//! anything else it is said what it is. No header is ever looked at but the one that says so.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, header};

/// What all texts may take together, in bytes.
const MOST: usize = 64 << 20;

/// The longest name of a type of content, in bytes.
const LONGEST: usize = 100;

/// What an answer begins with room for, in bytes.
const ROOM: usize = 512;

/// What all texts take together.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

impl Room {
    /// False, and nothing taken, if that is too much.
    fn take(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|all| *all <= MOST);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }
}

/// The beginnings of both bodies of one request.
#[derive(Debug)]
pub(super) struct Said {
    /// Of each of them, in bytes.
    most: usize,
    pub(super) request: Part,
    pub(super) answer: Part,
    room: Room,
}

/// The beginning of one of them.
#[derive(Debug, Default)]
pub(super) struct Part {
    bytes: Vec<u8>,
    /// Of the room of all.
    taken: usize,
    kind: Kind,
    /// There was more.
    is_cut: bool,
}

/// What a body is.
#[derive(Debug, Default)]
enum Kind {
    #[default]
    Text,
    /// Nobody said.
    Unstated,
    Other(Box<str>),
}

/// A body as it is logged.
#[derive(Debug, Default)]
pub(super) struct Told<'s> {
    /// None: there is none, or it is no text.
    pub(super) text: Option<Cow<'s, str>>,
    /// There was more.
    pub(super) is_cut: bool,
    /// What it is, if it is no text.
    pub(super) kind: Option<&'s str>,
}

impl Said {
    /// Of a request of which so many bytes are logged, each way.
    pub(super) fn of(most: usize, room: &Room) -> Box<Self> {
        Box::new(Self {
            most,
            request: Part::default(),
            answer: Part::default(),
            room: room.clone(),
        })
    }

    /// So much is asked. False: there was no room for it.
    pub(super) fn asks(&mut self, piece: &[u8]) -> bool {
        self.request.grows(piece, self.most, &self.room)
    }

    /// So much more is answered. False: there was no room for it.
    pub(super) fn answers(&mut self, piece: &[u8]) -> bool {
        self.answer.grows(piece, self.most, &self.room)
    }

    /// The request and its answer, as they are logged.
    pub(super) fn told(&self) -> (Told<'_>, Told<'_>) {
        (self.request.told(), self.answer.told())
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let taken = self.request.taken + self.answer.taken;
        self.room.0.fetch_sub(taken, Ordering::Relaxed);
    }
}

impl Part {
    /// It is no text, but this.
    pub(super) fn is(&mut self, kind: &str) {
        self.kind = Kind::Other(kind.into());
    }

    /// Its head says what it is.
    pub(super) fn begins(&mut self, headers: &HeaderMap) {
        let stated = |name| {
            let value = headers.get(name)?.to_str().unwrap_or_default();
            let first = value.split(';').next().unwrap_or_default().trim();
            let is_short = !first.is_empty() && first.len() <= LONGEST;
            Some(if is_short { first } else { "unknown" })
        };
        let encoding = stated(header::CONTENT_ENCODING).filter(|it| *it != "identity");
        self.kind = match encoding.or(stated(header::CONTENT_TYPE)) {
            None => Kind::Unstated,
            Some(kind) if encoding.is_none() && is_text(kind) => Kind::Text,
            Some(kind) => Kind::Other(kind.into()),
        };
    }

    fn grows(&mut self, piece: &[u8], most: usize, room: &Room) -> bool {
        if self.is_cut || matches!(self.kind, Kind::Other(_)) {
            return true;
        }
        let left = most - self.bytes.len();
        let kept = piece.get(..left).unwrap_or(piece);
        let length = self.bytes.len() + kept.len();
        if length > self.taken {
            // What comes in pieces is copied as often as it doubles.
            let wanted = length.max(ROOM).max(2 * self.taken).min(most);
            if !room.take(wanted - self.taken) {
                self.is_cut = true;
                return false;
            }
            self.taken = wanted;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(kept);
        self.is_cut = kept.len() < piece.len();
        true
    }

    fn told(&self) -> Told<'_> {
        let whole = whole(&self.bytes);
        // The end of a text may lie within a character only where we cut it.
        let bytes = if self.is_cut { whole } else { &self.bytes };
        let kind = match &self.kind {
            Kind::Other(kind) => Some(&**kind),
            Kind::Unstated if std::str::from_utf8(whole).is_err() => Some("unknown"),
            Kind::Unstated | Kind::Text => None,
        };
        let is_some = kind.is_none() && (self.is_cut || !bytes.is_empty());
        Told {
            text: is_some.then(|| String::from_utf8_lossy(bytes)),
            is_cut: self.is_cut,
            kind,
        }
    }
}

/// Whether a type of content is text.
fn is_text(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    kind.starts_with("text/")
        || matches!(&*kind, "application/json" | "application/x-ndjson")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

/// A text without a last character that is not all there.
fn whole(bytes: &[u8]) -> &[u8] {
    for back in 1..4.min(bytes.len() + 1) {
        let (before, last) = bytes.split_at(bytes.len() - back);
        match std::str::from_utf8(last) {
            Err(wrong) if wrong.error_len().is_none() && wrong.valid_up_to() == 0 => return before,
            _ => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn answered(most: usize, pieces: &[&[u8]]) -> Box<Said> {
        let mut said = Said::of(most, &Room::default());
        for piece in pieces {
            assert!(said.answers(piece));
        }
        said
    }

    fn text(said: &Said) -> (String, bool) {
        let (_, answer) = said.told();
        (answer.text.unwrap().into_owned(), answer.is_cut)
    }

    #[test]
    fn a_text_ends_with_a_whole_character_at_the_limit() {
        assert_eq!(text(&answered(4, &[b"abcd"])), ("abcd".into(), false));
        assert_eq!(text(&answered(4, &[b"abcd", b"e"])), ("abcd".into(), true));
        for (most, want) in [(3, "é"), (4, "éé"), (5, "éé"), (7, "éé"), (8, "éé😀")] {
            let said = answered(most, &["éé😀é".as_bytes()]);
            assert_eq!(text(&said), (want.into(), true), "{most}");
        }
        // What is no text in itself is shown as such, and so is what breaks off by itself.
        assert_eq!(text(&answered(9, &[b"a\xffb"])).0, "a\u{fffd}b");
        assert_eq!(text(&answered(9, &[b"a\xc3"])).0, "a\u{fffd}");
    }

    #[test]
    fn only_text_is_kept() {
        let told = |headers: &[(HeaderName, &'static str)], body: &[u8]| {
            let mut said = Said::of(100, &Room::default());
            let headers = headers.iter().cloned();
            let headers = headers.map(|(name, it)| (name, HeaderValue::from_static(it)));
            said.answer.begins(&headers.collect());
            assert!(said.answers(body));
            let (request, answer) = said.told();
            assert!(request.text.is_none() && request.kind.is_none());
            (answer.text.is_some(), answer.kind.map(str::to_owned))
        };
        let is = |kind: &'static str| told(&[(header::CONTENT_TYPE, kind)], b"x");
        for kind in [
            "application/json",
            "application/json; charset=utf-8",
            "text/event-stream",
            "Text/Plain",
            "application/problem+json",
        ] {
            assert_eq!(is(kind), (true, None), "{kind}");
        }
        for kind in ["audio/mpeg", "application/octet-stream", "image/png"] {
            assert_eq!(is(kind), (false, Some(kind.to_owned())));
        }
        let long = (false, Some("unknown".to_owned()));
        assert_eq!(is(""), long);
        assert_eq!(told(&[], b"plain"), (true, None));
        assert_eq!(told(&[], b"\x00\xff\xfe\xfd\xfc"), long);
        let packed = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CONTENT_ENCODING, "gzip"),
        ];
        assert_eq!(told(&packed, b"x"), (false, Some("gzip".to_owned())));
    }

    #[test]
    fn all_together_take_no_more_than_there_is_room() {
        let (room, most) = (Room::default(), 1 << 20);
        let long = vec![b'x'; most + 1];
        let mut all: Vec<_> = (0..MOST / most).map(|_| Said::of(most, &room)).collect();
        assert!(all.iter_mut().all(|said| said.answers(&long)));
        let mut one = Said::of(most, &room);
        assert!(!one.asks(b"{}"), "there is no room for it");
        assert!(one.asks(b"{}"), "which is told once");
        assert_eq!(one.told().0.text.as_deref(), Some(""));
        assert!(one.told().0.is_cut);
        all.pop();
        assert!(one.answers(&long));
        drop((all, one));
        assert_eq!(room.0.load(Ordering::Relaxed), 0);
    }

    proptest! {
        /// However it comes: the same is kept, and no more room is taken than was said.
        #[test]
        fn what_is_kept_is_its_beginning(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..900), 0..9),
            most in 1..4_000_usize,
        ) {
            let room = Room::default();
            let mut said = Said::of(most, &room);
            let all = pieces.concat();
            for piece in &pieces {
                prop_assert!(said.answers(piece));
            }
            let length = all.len().min(most);
            prop_assert_eq!(&said.answer.bytes, &all[..length]);
            prop_assert_eq!(said.answer.is_cut, all.len() > most);
            let taken = room.0.load(Ordering::Relaxed);
            prop_assert!(taken >= said.answer.bytes.capacity() && taken <= most);
            prop_assert!(taken <= ROOM.max(2 * length));
        }
    }
}
