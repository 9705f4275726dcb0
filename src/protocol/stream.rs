//! How does a stream pass? As it came, cut so that each piece given out ends where an event ends.
//!
//! What an event means is not known here: an [`Eye`] looks at each, and says which are not for the client.

use bytes::Bytes;
use serde::de::IgnoredAny;
use smallvec::SmallVec;

use super::sse::{Found, Scanner};
use super::{Decoder, ErrorBody, MAX_EVENT, Pieces, Progress, TooLong};

/// Looks at the events of one stream while they pass. Once it has seen the end it is shown no more of them.
pub(super) trait Eye: Send {
    /// Looks at an event. True if it is not for the client.
    fn look(&mut self, data: &[u8], is_error: bool) -> bool;

    /// The provider has ended its body; `is_between` events, and not in the middle of one.
    fn close(&mut self, is_between: bool);

    /// What is known so far.
    fn progress(&self) -> &Progress;

    /// What the error said that ended the stream before its first content.
    fn error(&mut self) -> Option<ErrorBody>;

    /// The id by which a response can be gone on from. Of a chat nobody can.
    fn response_id(&self) -> Option<&str> {
        None
    }
}

/// Reads a stream.
pub(super) struct Stream<E> {
    scanner: Scanner,
    /// The pieces of an event that is not complete.
    held: SmallVec<[Bytes; 1]>,
    /// What was found last is not for the client.
    hidden: bool,
    eye: E,
}

impl<E: Eye> Stream<E> {
    /// From its beginning.
    pub(super) fn new(eye: E) -> Self {
        Self {
            scanner: Scanner::default(),
            held: SmallVec::new(),
            hidden: false,
            eye,
        }
    }
}

impl<E: Eye> Decoder for Stream<E> {
    fn feed(&mut self, piece: Bytes, out: &mut Pieces) -> Result<(), TooLong> {
        // Everything before `from` is dealt with; the last place between events is at `gap`.
        let (mut from, mut gap) = (0, None);
        let Self {
            scanner,
            held,
            hidden,
            eye,
        } = self;
        scanner.feed(&piece, |found, at| {
            // After the last word nothing passes but what is left of its line end.
            let ended = eye.progress().end.is_some();
            *hidden = match found {
                Found::Rest => *hidden,
                _ if ended => true,
                Found::Event { data, is_error } => eye.look(data, is_error),
                Found::Gap => false,
            };
            if *hidden {
                match gap {
                    Some(gap) => give(held, &piece, from..gap, out),
                    None => held.clear(),
                }
                from = at;
            }
            gap = Some(at);
        })?;
        let rest = match gap {
            Some(gap) => {
                give(held, &piece, from..gap, out);
                gap
            }
            None => 0,
        };
        if rest < piece.len() {
            held.push(piece.slice(rest..));
        }
        // Fields that are no data are not the scanner's to keep, but they are held here.
        let length: usize = held.iter().map(Bytes::len).sum();
        if length > MAX_EVENT {
            Err(TooLong)
        } else {
            Ok(())
        }
    }

    fn finish(&mut self, out: &mut Pieces) {
        let Self {
            scanner, held, eye, ..
        } = self;
        let mut hide = eye.progress().end.is_some();
        let mut is_between = held.is_empty();
        scanner.finish(|found| {
            if let Found::Event { data, is_error } = found {
                is_between = data.starts_with(b"[DONE]")
                    || serde_json::from_slice::<IgnoredAny>(data).is_ok();
                hide |= eye.look(data, is_error) || !is_between;
            }
        });
        eye.close(is_between);
        if eye.progress().end.is_some() && !hide {
            out.extend(held.drain(..));
        }
        held.clear();
    }

    fn progress(&self) -> &Progress {
        self.eye.progress()
    }

    fn response_id(&self) -> Option<&str> {
        self.eye.response_id()
    }

    fn error(&mut self) -> Option<ErrorBody> {
        self.eye.error()
    }
}

/// Gives out what was held and a part of the piece.
fn give(
    held: &mut SmallVec<[Bytes; 1]>,
    piece: &Bytes,
    range: std::ops::Range<usize>,
    out: &mut Pieces,
) {
    if range.is_empty() {
        return;
    }
    out.extend(held.drain(..));
    out.push(if range.len() == piece.len() {
        piece.clone()
    } else {
        piece.slice(range)
    });
}
