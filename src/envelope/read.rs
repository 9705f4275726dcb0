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

/// Reads a whole body. One frame is taken as it is; several are joined by one copy.
pub async fn read<B>(body: B, most: u64, within: Duration) -> Result<Bytes, Unread>
where
    B: Body<Data = Bytes>,
{
    if body.size_hint().lower() > most {
        return Err(Unread::TooLarge(most));
    }
    let mut frames = pin!(collect(body, most));
    // A short body came with its head: no timer for it.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(frames.as_mut().poll(cx))).await {
        return read;
    }
    tokio::time::timeout(within, frames)
        .await
        .unwrap_or(Err(Unread::TooSlow(within)))
}

async fn collect<B>(body: B, most: u64) -> Result<Bytes, Unread>
where
    B: Body<Data = Bytes>,
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
            return Err(Unread::TooLarge(most));
        }
        if joined.is_empty() && first.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                let rest = usize::try_from(body.size_hint().lower()).unwrap_or(0);
                joined.reserve(first.len() + data.len() + rest);
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

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_whole_or_says_why_not() {
        let soon = Duration::from_secs(1);
        assert_eq!(
            read(pieces(&["ab", "c", "d"], false), 4, soon)
                .await
                .unwrap(),
            "abcd"
        );
        assert_eq!(
            read(Full::new(Bytes::from("abcd")), 4, soon).await.unwrap(),
            "abcd"
        );
        assert!(matches!(
            read(pieces(&["ab", "cd"], false), 3, soon).await,
            Err(Unread::TooLarge(3))
        ));
        assert!(matches!(
            read(Full::new(Bytes::from("abcd")), 3, soon).await,
            Err(Unread::TooLarge(3))
        ));
        assert!(matches!(
            read(pieces(&["ab", "!"], false), 9, soon).await,
            Err(Unread::Broken)
        ));
        assert!(matches!(
            read(pieces(&["ab"], true), 9, soon).await,
            Err(Unread::TooSlow(_))
        ));
    }
}
