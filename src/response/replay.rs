//! How do several read one answer? It is recorded while it passes to the first who asked, and the others read the record.
//!
//! They may sit on other threads, come late, read slowly and leave: nobody waits for them, and each has its own place in
//! what has been recorded so far.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::SizeHint;
use tokio::time::Instant;

use super::relay::SHUTTING_DOWN;
use super::source::Source;
use super::{Alive, Body, Broken, Closing, sign};
use crate::admission::{Crowded, Share, Slot};
use crate::telemetry::{End, Record, RequestId};

/// On every answer that somebody else was given first.
const REPLAYED: HeaderName = HeaderName::from_static("x-tollgate-replayed");

/// The most that is given out at once, in bytes.
const PIECE: usize = 64 << 10;

/// The room that a record begins with, in bytes; it doubles when it is full.
const ROOM: usize = 4 << 10;

/// What an answer takes besides its body and its headers' text, in bytes, generously.
const APART: usize = 1 << 10;

/// One answer's record, of which there is one for all of its readers.
pub(super) struct Replay(Mutex<Recorded>);

struct Recorded {
    head: Option<Arc<Head>>,
    bytes: Vec<u8>,
    /// What all of this takes.
    share: Share,
    stage: Stage,
    /// Readers that wait for more, by number.
    waiting: HashMap<u64, Waker>,
    /// How many readers there have been.
    readers: u64,
}

#[derive(Clone, Copy)]
enum Stage {
    /// There is more to come.
    Coming,
    /// What is recorded is all of it, and this is how it ended.
    Ended(End),
    /// There is more to it, but not here.
    Broken,
}

/// What an answer begins with, for whoever reads the record.
pub struct Head {
    status: StatusCode,
    headers: HeaderMap,
    /// The length of the body, if it was known from the start.
    length: Option<u64>,
    is_stream: bool,
    /// How long whoever reads it may hear nothing. None: for ever.
    keepalive: Option<Duration>,
}

impl Head {
    /// The head of an answer as the first client gets it, but for what was said to that client only. Copied, since a slice
    /// holds on to all of what was read with it.
    pub(super) fn of(response: &Response<Body>) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in response.headers() {
            let is_theirs = *name == RequestId::NAME
                || (*name == header::VARY && value == "origin")
                || name.as_str().starts_with("access-control-")
                || name.as_str().starts_with("x-ratelimit-");
            if !is_theirs && let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(name.clone(), value);
            }
        }
        let stated = response.headers().get(header::CONTENT_LENGTH);
        let stated = stated.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            status: response.status(),
            headers,
            length: stated.or(http_body::Body::size_hint(response.body()).exact()),
            is_stream: response.body().source.is_stream(),
            keepalive: response.body().alive.as_ref().and_then(|it| it.keepalive()),
        }
    }

    /// Whether it says that all went well.
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// What it takes, in bytes.
    fn size(&self) -> usize {
        let headers = self.headers.iter();
        let texts = headers.map(|(name, value)| name.as_str().len() + value.len());
        texts.sum::<usize>() + APART
    }
}

impl Replay {
    /// Of an answer that nothing has come of yet.
    pub(super) fn new(share: Share) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Recorded {
            head: None,
            bytes: Vec::new(),
            share,
            stage: Stage::Coming,
            waiting: HashMap::new(),
            readers: 0,
        })))
    }

    /// One more who reads it, from the start.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let mut recorded = self.recorded();
        recorded.readers += 1;
        Reader {
            replay: Arc::clone(self),
            number: recorded.readers,
        }
    }

    /// The answer begins. It is told whatever it takes, which together with all else should not be more than `most`.
    pub(super) fn begins(&self, head: Head, most: u64) -> Result<(), Crowded> {
        let size = head.size();
        self.change(|recorded| {
            recorded.head = Some(Arc::new(head));
            recorded.share.grow(size as u64, most)
        })
    }

    /// How many bytes of the body are recorded.
    pub(super) fn length(&self) -> usize {
        self.recorded().bytes.len()
    }

    /// Makes room for so many bytes more, which together with all else should not take more than `most`. It is made, and
    /// counted, in any case.
    pub(super) fn makes_room(&self, bytes: usize, most: u64) -> Result<(), Crowded> {
        let mut recorded = self.recorded();
        let recorded = &mut *recorded;
        let (before, length) = (recorded.bytes.capacity(), recorded.bytes.len());
        if length + bytes > before {
            // An answer in one piece takes its length, one in many at most twice that.
            let doubled = if length == 0 { 0 } else { ROOM.max(length) };
            recorded.bytes.reserve_exact(bytes.max(doubled));
        }
        let more = recorded.bytes.capacity() - before;
        recorded.share.grow(more as u64, most)
    }

    /// So much more has passed.
    pub(super) fn grows(&self, piece: &[u8]) {
        self.change(|recorded| recorded.bytes.extend_from_slice(piece));
    }

    /// It has come to its end.
    pub(super) fn ends(&self, end: End) {
        self.change(|recorded| recorded.stage = Stage::Ended(end));
    }

    /// It goes no further here.
    pub(super) fn breaks(&self) {
        self.change(|recorded| recorded.stage = Stage::Broken);
    }

    /// It goes no further here, and what has been recorded is given up.
    pub(super) fn forgets(&self, share: Share) {
        self.change(|recorded| {
            recorded.stage = Stage::Broken;
            recorded.bytes = Vec::new();
            recorded.share = share;
        });
    }

    /// Changes it, and wakes whoever waits for that.
    fn change<T>(&self, change: impl FnOnce(&mut Recorded) -> T) -> T {
        let mut recorded = self.recorded();
        let changed = change(&mut recorded);
        let waiting = mem::take(&mut recorded.waiting);
        drop(recorded);
        waiting.into_values().for_each(Waker::wake);
        changed
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who reads a record.
pub struct Reader {
    replay: Arc<Replay>,
    number: u64,
}

impl Reader {
    /// What the answer begins with. None: whoever asked is gone, and nobody will ever know.
    pub fn poll_head(&self, cx: &Context<'_>) -> Poll<Option<Arc<Head>>> {
        let recorded = self.replay.recorded();
        match (&recorded.head, recorded.stage) {
            (Some(head), _) => Poll::Ready(Some(Arc::clone(head))),
            (None, Stage::Broken) => Poll::Ready(None),
            (None, _) => self.wait(recorded, cx),
        }
    }

    /// What was recorded from here on, and how the answer ended if that is all of it.
    fn poll_from(&self, at: usize, cx: &Context<'_>) -> Poll<Result<(Bytes, Option<End>), Broken>> {
        let recorded = self.replay.recorded();
        let rest = recorded.bytes.get(at..).unwrap_or_default();
        let piece = Bytes::copy_from_slice(rest.get(..PIECE).unwrap_or(rest));
        let is_all = piece.len() == rest.len();
        match recorded.stage {
            Stage::Ended(end) => Poll::Ready(Ok((piece, is_all.then_some(end)))),
            _ if !piece.is_empty() => Poll::Ready(Ok((piece, None))),
            Stage::Broken => Poll::Ready(Err(Broken)),
            Stage::Coming => self.wait(recorded, cx),
        }
    }

    /// Until it changes. Whatever was to be woken before is dropped when nothing is locked, since that may be the end of
    /// somebody who reads here, too.
    fn wait<T>(&self, mut recorded: MutexGuard<'_, Recorded>, cx: &Context<'_>) -> Poll<T> {
        let waker = cx.waker().clone();
        let before = recorded.waiting.insert(self.number, waker);
        drop(recorded);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut recorded = self.replay.recorded();
        let waker = recorded.waiting.remove(&self.number);
        drop(recorded);
        drop(waker);
    }
}

/// The body of an answer that somebody else was given first.
pub struct Follow {
    reader: Reader,
    at: usize,
    /// How much of the body is left, if its length was known from the start.
    left: Option<u64>,
    /// Of a stream, which ends with an error of ours when time is up.
    closing: Option<Closing>,
    /// Nothing more goes out.
    is_over: bool,
    record: Box<Record>,
    _slot: Slot,
}

/// An answer that somebody else was given first, with what this request holds.
pub fn follow(
    head: &Head,
    reader: Reader,
    mut record: Box<Record>,
    slot: Slot,
    closing: &Closing,
) -> Response<Body> {
    record.status = head.status.as_u16();
    record.answers(&head.headers);
    let now = Instant::now();
    // A stream's head may have come long before its content.
    record.content = (!head.is_stream).then_some(now);
    record.streamed = head.is_stream;
    // Nobody asks for a body that there is none of.
    record.end = (head.length == Some(0)).then_some(End::Complete);
    let mut headers = head.headers.clone();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    sign(&mut headers, &record);
    let follow = Follow {
        reader,
        at: 0,
        left: head.length,
        closing: head.is_stream.then(|| closing.clone()),
        is_over: false,
        record,
        _slot: slot,
    };
    let mut response = Response::new(Body {
        source: Source::Follow(Box::new(follow)),
        // Of its own: what the first is told while it hears nothing is not recorded.
        alive: head
            .is_stream
            .then(|| Box::new(Alive::every(head.keepalive, now))),
    });
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    response
}

impl Follow {
    /// The next piece for the client.
    pub(super) fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let piece = match self.reader.poll_from(self.at, cx) {
            Poll::Ready(Ok((piece, end))) => {
                self.is_over = end.is_some();
                self.record.end = end;
                if self.record.content.is_none() && !piece.is_empty() {
                    self.record.content = Some(Instant::now());
                }
                piece
            }
            Poll::Ready(Err(broken)) => {
                self.is_over = true;
                self.record.end = Some(End::Truncated);
                return Poll::Ready(Some(Err(broken)));
            }
            // Whoever was given it first may have left, and nobody looks at what goes on without a client.
            Poll::Pending if self.closing.as_ref().is_some_and(Closing::is_closed) => self.stop(),
            Poll::Pending => return Poll::Pending,
        };
        self.at += piece.len();
        self.left = self
            .left
            .map(|left| left.saturating_sub(piece.len() as u64));
        if self.left == Some(0) {
            // Nobody asks for more, even if nothing tells yet that this is all.
            self.record.end.get_or_insert(End::Complete);
        }
        self.record.passes(&piece);
        Poll::Ready(Some(piece).filter(|piece| !piece.is_empty()).map(Ok))
    }

    /// Time is up.
    fn stop(&mut self) -> Bytes {
        self.is_over = true;
        self.record.end = Some(End::Shutdown);
        self.record.code = Some(SHUTTING_DOWN.code);
        SHUTTING_DOWN.event()
    }

    /// Whether the client has all of it.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.left == Some(0)
    }

    /// How much is left, if that is known.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{InFlight, Memory};
    use crate::response::say;
    use crate::telemetry::Telemetry;
    use crate::telemetry::metrics::Metrics;
    use proptest::prelude::*;

    fn record() -> Box<Record> {
        Telemetry::new(Metrics::new(), None).begin(Instant::now(), "x")
    }

    fn head(body: &'static [u8]) -> Head {
        let mut said = Response::new(Bytes::from_static(body));
        for (name, value) in [
            ("vary", "origin"),
            ("vary", "accept"),
            ("access-control-allow-origin", "https://one.example"),
            ("x-ratelimit-remaining-requests", "7"),
            ("x-tollgate-target", "p/m"),
        ] {
            said.headers_mut()
                .append(name, HeaderValue::from_static(value));
        }
        Head::of(&say(said, record()))
    }

    fn followed(replay: &Arc<Replay>, head: &Head, closing: &Closing) -> Follow {
        let slot = InFlight::default().enter(1).unwrap();
        let followed = follow(head, replay.reader(), record(), slot, closing);
        match followed.into_body().source {
            Source::Follow(follow) => *follow,
            _ => panic!("it follows"),
        }
    }

    fn poll(follow: &mut Follow) -> Poll<Option<Result<Bytes, Broken>>> {
        follow.poll_piece(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_was_said_to_the_first_only_is_not_said_again() {
        let (head, slot) = (head(b"ab"), InFlight::default().enter(1).unwrap());
        let replay = Replay::new(Memory::default().share());
        let (record, closing) = (record(), Closing::default());
        let id = record.id.header();
        let response = follow(&head, replay.reader(), record, slot, &closing);
        let mut told: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        told.sort_unstable();
        let want = [
            "vary",
            "x-request-id",
            "x-tollgate-replayed",
            "x-tollgate-target",
        ];
        assert_eq!(told, want);
        assert_eq!(response.headers()["vary"], "accept");
        assert_eq!(response.headers()["x-request-id"], id);
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(2));
    }

    #[test]
    fn it_ends_as_the_record_does() {
        let closing = Closing::default();
        let mut head = head(b"");
        (head.length, head.is_stream) = (None, true);
        let begin = || {
            let replay = Replay::new(Memory::default().share());
            let mut follow = followed(&replay, &head, &closing);
            replay.grows(b"ab");
            let piece = poll(&mut follow);
            assert!(matches!(piece, Poll::Ready(Some(Ok(piece))) if piece == "ab"));
            assert!(poll(&mut follow).is_pending());
            (replay, follow)
        };
        let (replay, mut follow) = begin();
        replay.ends(End::Error);
        assert!(matches!(poll(&mut follow), Poll::Ready(None)));
        assert_eq!(follow.record.end, Some(End::Error));
        for share in [None, Some(Memory::default().share())] {
            let (replay, mut follow) = begin();
            match share {
                None => replay.breaks(),
                Some(share) => replay.forgets(share),
            }
            assert!(matches!(poll(&mut follow), Poll::Ready(Some(Err(Broken)))));
            assert!(matches!(poll(&mut follow), Poll::Ready(None)));
            assert_eq!(follow.record.end, Some(End::Truncated));
        }
        let (replay, mut follow) = begin();
        replay.grows(b"cd");
        closing.close();
        // First what has come.
        for want in ["cd", "shutting_down"] {
            let Poll::Ready(Some(Ok(piece))) = poll(&mut follow) else {
                panic!("{want} was to come");
            };
            assert!(String::from_utf8_lossy(&piece).contains(want));
        }
        assert!(matches!(poll(&mut follow), Poll::Ready(None)));
        assert_eq!(follow.record.end, Some(End::Shutdown));
    }

    proptest! {
        /// However it comes, and whenever they come: all read the same.
        #[test]
        fn all_read_the_same(
            pieces in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..6_000), 0..8),
            turns in proptest::collection::vec((0..12_usize, 0..4_usize), 0..24),
        ) {
            let memory = Memory::default();
            let (replay, closing) = (Replay::new(memory.share()), Closing::default());
            let mut head = head(b"");
            head.length = None;
            let mut all = Vec::new();
            let mut came = pieces.iter();
            let mut readers: HashMap<usize, (Follow, Vec<u8>)> = HashMap::new();
            for (turn, reader) in turns {
                if turn % 3 == 0 && let Some(piece) = came.next() {
                    prop_assert!(replay.makes_room(piece.len(), u64::MAX).is_ok());
                    replay.grows(piece);
                    all.extend_from_slice(piece);
                }
                let (follow, read) = readers
                    .entry(reader)
                    .or_insert_with(|| (followed(&replay, &head, &closing), Vec::new()));
                if let Poll::Ready(Some(Ok(piece))) = poll(follow) {
                    read.extend_from_slice(&piece);
                }
                prop_assert!(all.starts_with(read));
            }
            let taken = memory.taken();
            prop_assert!(taken >= all.len() as u64);
            prop_assert!(taken <= (2 * all.len() + ROOM) as u64, "{taken} for {}", all.len());
            replay.ends(End::Complete);
            for (mut follow, mut read) in readers.into_values() {
                while let Poll::Ready(Some(Ok(piece))) = poll(&mut follow) {
                    read.extend_from_slice(&piece);
                }
                prop_assert!(follow.is_over() && read == all);
            }
        }
    }
}
