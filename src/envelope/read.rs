//! Reading a body: once, whole, up to a limit, within a time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The client broke off, or its chunks make no sense.
    #[error("the request's body broke off")]
    Broken,
    /// It did not come in time.
    #[error("the request's body did not arrive within {0:?}")]
    TooSlow(Duration),
    /// It is longer than the limit, in bytes.
    #[error("the request's body is larger than {0} bytes")]
    TooLarge(u64),
}

/// What a body is taken at its word for before any of it has come, in bytes: a client may state anything.
const TAKEN_AT_WORD: usize = 1 << 20;

/// Up to so much of a longer body, or of one of which nobody knows the length, as much room is made as has come already.
const DOUBLED: usize = 256 << 10;

/// The least room for what is longer. It is more than most bodies need, for what is not written to takes no memory: only
/// addresses. A smaller block may come from the allocator's heap, where it grows by being copied and leaves holes behind.
/// jemalloc (above 8 MiB) and that of glibc (above 32 MiB, for sure) map a block by itself and give it back when it is
/// free.
const MAPPED: usize = (32 << 20) + (64 << 10);

/// Where there are no addresses for that, there is room for a piece in so many of what has come.
const STEP_OF: usize = 8;

/// Reads a whole body. One frame is taken as it is; several are joined by one copy. `take` hears of each piece's length
/// and may refuse it.
///
/// A body is in memory once, while it is read and after that.
pub async fn read<B, E>(
    body: B,
    most: u64,
    within: Duration,
    take: impl FnMut(u64) -> Result<(), E>,
) -> Result<Bytes, E>
where
    B: Body<Data = Bytes>,
    E: From<Unread>,
{
    if body.size_hint().lower() > most {
        return Err(Unread::TooLarge(most).into());
    }
    let mut frames = pin!(collect(body, most, take));
    // A short body came with its head: no timer for it.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(frames.as_mut().poll(cx))).await {
        return read;
    }
    tokio::time::timeout(within, frames)
        .await
        .unwrap_or_else(|_| Err(Unread::TooSlow(within).into()))
}

async fn collect<B, E>(
    body: B,
    most: u64,
    mut take: impl FnMut(u64) -> Result<(), E>,
) -> Result<Bytes, E>
where
    B: Body<Data = Bytes>,
    E: From<Unread>,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut joined = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else {
            continue;
        };
        length += data.len() as u64;
        if length > most {
            return Err(Unread::TooLarge(most).into());
        }
        take(data.len() as u64)?;
        if joined.is_empty() && first.is_empty() {
            first = data;
        } else {
            let rest = body.size_hint().exact();
            let stated = rest.map(|rest| length.saturating_add(rest));
            make_room(&mut joined, first.len() + data.len(), stated, most);
            // It holds more than its own bytes.
            joined.extend_from_slice(&std::mem::take(&mut first));
            joined.extend_from_slice(&data);
        }
    }
    if joined.is_empty() {
        return Ok(first);
    }
    if joined.capacity() < MAPPED {
        joined.shrink_to_fit();
    }
    Ok(joined.into())
}

/// Makes room for what has come. `stated` is how long the whole is, if that is known, and `most` how long it may be.
fn make_room(joined: &mut Vec<u8>, come: usize, stated: Option<u64>, most: u64) {
    if joined.capacity() - joined.len() >= come {
        return;
    }
    let whole = joined.len() + come;
    let ahead = room(whole, stated, most) - joined.len();
    let is_there = joined.try_reserve_exact(ahead).is_ok()
        || joined.try_reserve_exact(come + whole / STEP_OF).is_ok();
    // Not to have what must be ends the process, as any other want of memory does.
    if !is_there {
        joined.reserve_exact(come);
    }
}

/// How long a body may become without more room, of which so much has come. A long one gets room once, for all that it
/// may be: to move it takes as much memory again.
fn room(whole: usize, stated: Option<u64>, most: u64) -> usize {
    let in_memory = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    match stated.map(in_memory) {
        Some(stated) if stated <= TAKEN_AT_WORD => stated,
        _ if whole <= DOUBLED => whole + whole,
        stated => stated.unwrap_or(in_memory(most)).max(MAPPED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Full, combinators::UnsyncBoxBody};
    use std::collections::VecDeque;

    fn pieces(pieces: &[&'static str], hangs: bool) -> UnsyncBoxBody<Bytes, std::io::Error> {
        struct Pieces(VecDeque<&'static str>, bool);
        impl Body for Pieces {
            type Data = Bytes;
            type Error = std::io::Error;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
                match self.0.pop_front() {
                    Some("!") => Poll::Ready(Some(Err(std::io::Error::other("cut")))),
                    Some(piece) => {
                        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from(piece)))))
                    }
                    None if self.1 => Poll::Pending,
                    None => Poll::Ready(None),
                }
            }
        }
        Pieces(pieces.iter().copied().collect(), hangs).boxed_unsync()
    }

    async fn read_from(body: impl Body<Data = Bytes>, most: u64) -> Result<Bytes, Unread> {
        let mut taken = 0;
        let take = |bytes| {
            taken += bytes;
            Ok(())
        };
        let read = read(body, most, Duration::from_secs(1), take).await;
        if let Ok(body) = &read {
            assert_eq!(taken, body.len() as u64);
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_whole_or_says_why_not() {
        let (three, full) = (["ab", "c", "d"], || Full::new(Bytes::from("abcd")));
        let read = read_from(pieces(&three, false), 4).await;
        assert_eq!(read.unwrap(), "abcd");
        assert_eq!(read_from(full(), 4).await.unwrap(), "abcd");
        for (read, want) in [
            (read_from(pieces(&["ab", "cd"], false), 3).await, "larger"),
            (read_from(full(), 3).await, "larger"),
            (read_from(pieces(&["ab", "!"], false), 9).await, "broke off"),
            (read_from(pieces(&["ab"], true), 9).await, "did not arrive"),
        ] {
            let why = read.unwrap_err().to_string();
            assert!(why.contains(want), "{why}");
        }
    }

    #[test]
    fn nobody_gets_room_for_what_is_only_stated() {
        let (frame, mib) = (64 << 10, 1 << 20);
        let most = 64 << 20;
        // All of a short one is believed, and nothing is copied.
        assert_eq!(room(2 * frame, Some(7 << 16), most), 7 * frame);
        assert_eq!(room(2 * frame, Some(1 << 20), most), mib);
        // A long one has to come first.
        assert_eq!(room(2 * frame, Some(9 << 20), most), 4 * frame);
        assert_eq!(room(2 * frame, Some(u64::MAX), most), 4 * frame);
        assert_eq!(room(DOUBLED + 1, Some(2 << 20), most), MAPPED);
        assert_eq!(room(mib, Some(most), most), 64 * mib);
        // Where nobody knows, it may be as long as any.
        assert_eq!(room(frame, None, most), 2 * frame);
        assert_eq!(room(DOUBLED + 1, None, most), 64 * mib);
        assert_eq!(room(DOUBLED + 1, None, 1 << 20), MAPPED);
    }

    #[tokio::test]
    async fn a_long_body_in_frames_is_what_was_sent() {
        let sent: Vec<u8> = (0..3_u32 << 20)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        // There are no addresses for the last one, so that it grows by steps.
        for (stated, most) in [(true, 1 << 30), (false, 1 << 30), (false, u64::MAX)] {
            let frames: VecDeque<Bytes> = sent.chunks(60_000).map(Bytes::copy_from_slice).collect();
            let read = read_from(Frames { frames, stated }, most).await;
            assert!(read.unwrap() == sent);
        }
    }

    struct Frames {
        frames: VecDeque<Bytes>,
        stated: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            let frame = self.frames.pop_front();
            Poll::Ready(frame.map(|frame| Ok(http_body::Frame::data(frame))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            let rest = self.frames.iter().map(|frame| frame.len() as u64).sum();
            match self.stated {
                true => http_body::SizeHint::with_exact(rest),
                false => http_body::SizeHint::default(),
            }
        }
    }

    #[tokio::test]
    async fn whoever_takes_it_may_have_had_enough() {
        let mut room = 3;
        let take = |bytes: u64| match bytes <= room {
            true => {
                room -= bytes;
                Ok(())
            }
            false => Err(Unread::Broken),
        };
        let body = pieces(&["ab", "cd"], false);
        let read = read(body, 9, Duration::from_secs(1), take).await;
        assert!(read.is_err());
    }
}
