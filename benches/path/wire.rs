//! Just enough HTTP/1.1 for both ends of the bench: heads, the chunked coding, events.

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use memchr::{memchr, memchr_iter, memmem};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer heads than this are a mistake.
const HEAD_LIMIT: usize = 16 * 1024;
const DONE: &[u8; 14] = b"data: [DONE]\n\n";

/// How the body after a head ends.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(usize),
    /// With the last chunk.
    Chunked,
    /// The head does not say.
    Unsaid,
}

/// What is to be known of a head.
pub(crate) struct Head {
    /// Its length, the empty line included.
    pub(crate) len: usize,
    /// How the body ends.
    pub(crate) framing: Framing,
    /// Whether the first line is that of an answer with status 200.
    pub(crate) ok: bool,
}

/// Reads the head at the front of `buf`, if all of it is there.
pub(crate) fn head(buf: &[u8]) -> Result<Option<Head>> {
    let Some(end) = memmem::find(buf, b"\r\n\r\n") else {
        if buf.len() > HEAD_LIMIT {
            bail!("a head of more than {HEAD_LIMIT} bytes");
        }
        return Ok(None);
    };
    let mut framing = Framing::Unsaid;
    let mut lines = buf.get(..end).unwrap_or_default().split(|&b| b == b'\n');
    let first = lines.next().unwrap_or_default();
    for line in lines {
        let Some(colon) = memchr(b':', line) else {
            bail!("a header line without a colon");
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value)?;
            framing = Framing::Length(value.parse().context("Content-Length")?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                bail!("an unknown transfer coding");
            }
            framing = Framing::Chunked;
        }
    }
    Ok(Some(Head {
        len: end + 4,
        framing,
        ok: first.starts_with(b"HTTP/1.1 200 "),
    }))
}

/// Reads one whole request to the front of `buf` and says how long it is; nothing if the client closed the connection
/// instead.
pub(crate) async fn request(
    from: &mut (impl AsyncRead + Unpin),
    buf: &mut BytesMut,
) -> Result<Option<usize>> {
    let mut whole = None;
    loop {
        if whole.is_none()
            && let Some(head) = head(buf)?
        {
            let Framing::Length(len) = head.framing else {
                bail!("a request without Content-Length");
            };
            whole = Some(head.len + len);
        }
        if let Some(whole) = whole
            && buf.len() >= whole
        {
            return Ok(Some(whole));
        }
        if from.read_buf(buf).await? == 0 {
            return Ok(None);
        }
    }
}

/// Where in a chunked body the reader stands.
#[derive(Clone, Copy)]
pub(crate) enum Chunks {
    /// Before the line with a chunk's size.
    Size,
    /// Within a chunk, this many bytes before its end.
    Data(usize),
    /// Before the line end that closes a chunk.
    Close,
    /// After the last chunk.
    Trailer,
}

impl Chunks {
    /// Takes what `buf` holds of the body, hands payload to `sink`, and says
    /// whether the body has ended.
    pub(crate) fn take(&mut self, buf: &mut BytesMut, mut sink: impl FnMut(&[u8])) -> Result<bool> {
        loop {
            match *self {
                Self::Size => {
                    let Some(size) = line(buf, |line| {
                        let digits = line.split(|&b| b == b';').next().unwrap_or_default();
                        let digits = std::str::from_utf8(digits)?.trim();
                        usize::from_str_radix(digits, 16).context("the size of a chunk")
                    })?
                    else {
                        return Ok(false);
                    };
                    *self = if size == 0 {
                        Self::Trailer
                    } else {
                        Self::Data(size)
                    };
                }
                Self::Data(left) => {
                    if buf.is_empty() {
                        return Ok(false);
                    }
                    let here = left.min(buf.len());
                    sink(buf.get(..here).unwrap_or_default());
                    buf.advance(here);
                    *self = if here == left {
                        Self::Close
                    } else {
                        Self::Data(left - here)
                    };
                }
                Self::Close => match line(buf, |line| Ok(line.is_empty()))? {
                    None => return Ok(false),
                    Some(true) => *self = Self::Size,
                    Some(false) => bail!("a chunk is longer than its size says"),
                },
                Self::Trailer => match line(buf, |line| Ok(line.is_empty()))? {
                    None => return Ok(false),
                    Some(true) => return Ok(true),
                    Some(false) => {}
                },
            }
        }
    }
}

/// Takes one line off the front of `buf` and reads it with `read`.
fn line<T>(buf: &mut BytesMut, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
    let Some(end) = memchr(b'\n', buf) else {
        if buf.len() > HEAD_LIMIT {
            bail!("no end of line in {HEAD_LIMIT} bytes");
        }
        return Ok(None);
    };
    let text = buf.get(..end).unwrap_or_default();
    let Some(text) = text.strip_suffix(b"\r") else {
        bail!("a line of the chunked coding without its carriage return");
    };
    let value = read(text)?;
    buf.advance(end + 1);
    Ok(Some(value))
}

/// Counts events by the empty lines between them, and remembers how the stream ended.
#[derive(Default)]
pub(crate) struct Events {
    /// Events that have ended, `[DONE]` among them.
    pub(crate) count: u64,
    after_newline: bool,
    tail: Vec<u8>,
}

impl Events {
    /// Takes the next bytes of the stream.
    pub(crate) fn take(&mut self, payload: &[u8]) {
        let mut next_to = if self.after_newline { Some(0) } else { None };
        for at in memchr_iter(b'\n', payload) {
            if next_to == Some(at) {
                self.count += 1;
                next_to = None;
            } else {
                next_to = Some(at + 1);
            }
        }
        self.after_newline = next_to == Some(payload.len());
        let keep = payload.len().min(DONE.len());
        let excess = (self.tail.len() + keep).saturating_sub(DONE.len());
        self.tail.drain(..excess);
        let from = payload.len() - keep;
        self.tail
            .extend_from_slice(payload.get(from..).unwrap_or_default());
    }

    /// Whether the stream so far ends with `[DONE]`.
    pub(crate) fn done(&self) -> bool {
        self.tail == DONE
    }
}
