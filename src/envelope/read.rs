//! Reading a body: once, whole, up to a limit, within a time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
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

/// What is made ready for a body of a stated length before any of it has come, in bytes: a client may state anything.
const TAKEN_AT_WORD: usize = 1 << 20;

/// Reads a whole body. One frame is taken as it is; several are joined by one copy. `take` hears of each piece's length
/// and may refuse it.
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
    let mut joined = BytesMut::new();
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
            if joined.is_empty() {
                let rest = usize::try_from(body.size_hint().lower()).unwrap_or(0);
                joined.reserve(first.len() + data.len() + rest.min(TAKEN_AT_WORD));
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() {
        first
    } else {
        joined.freeze()
    })
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
