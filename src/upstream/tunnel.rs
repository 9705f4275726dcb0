//! A tunnel through a proxy: `CONNECT` (RFC 9110, section 9.3.6).

use std::io;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::provider::egress::Via;
use crate::provider::site::Place;

/// The longest head of a proxy's answer, in bytes.
const LONGEST_HEAD: usize = 8 << 10;

/// Asks for a tunnel. What is written to the stream afterwards reaches the place as it is.
pub(super) async fn open<S>(stream: &mut S, via: &Via, place: &Place) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut asked = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n").into_bytes();
    if let Some(authorization) = &via.authorization {
        asked.extend_from_slice(b"Proxy-Authorization: ");
        asked.extend_from_slice(authorization.as_bytes());
        asked.extend_from_slice(b"\r\n");
    }
    asked.extend_from_slice(b"\r\n");
    stream.write_all(&asked).await?;
    stream.flush().await?;
    let head = head(stream).await?;
    match status(&head) {
        Some(status) if status.is_success() => Ok(()),
        Some(status) => Err(refusal(status)),
        None => Err(io::Error::other("the proxy answered nonsense")),
    }
}

/// A proxy's own refusal.
pub(super) fn refusal(status: StatusCode) -> io::Error {
    io::Error::other(format!("the proxy answered {}", status.as_u16()))
}

/// Reads the head of an answer and not one byte more: what follows is already the tunnel's, and in HTTP/2 it is the
/// other side that may speak first.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST_HEAD {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        let byte = stream.read_u8().await.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(e.kind(), "the proxy closed the connection")
            }
            _ => e,
        })?;
        head.push(byte);
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let (version, rest) = rest.split_first()?;
    let (code, after) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let is_line = version.is_ascii_digit() && after.first().is_some_and(|c| b" \r".contains(c));
    StatusCode::from_bytes(code).ok().filter(|_| is_line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::egress::Proxy;
    use crate::provider::site::{Base, Site, Way};

    /// Opens a tunnel at a proxy that says this: what came of it, what the proxy was told, and what is left to read.
    async fn tunnel(proxy: &str, says: &[u8]) -> (Result<(), String>, String, Vec<u8>) {
        let base = Base::parse("http://[fd12::1]:8080/v1", std::path::Path::new("")).unwrap();
        let way = Way {
            proxy: Some(Proxy::parse(proxy).unwrap()),
            http2: true,
            ..Way::default()
        };
        let site = Site::new(base, &crate::protocol::openai::OpenAi, way).unwrap();
        let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
        theirs.write_all(says).await.unwrap();
        theirs.shutdown().await.unwrap();
        let opened = open(&mut ours, site.via.as_ref().unwrap(), &site.place).await;
        let mut left = Vec::new();
        ours.read_to_end(&mut left).await.unwrap();
        drop(ours);
        let mut told = String::new();
        theirs.read_to_string(&mut told).await.unwrap();
        (opened.map_err(|e| e.to_string()), told, left)
    }

    #[tokio::test]
    async fn a_tunnel_begins_where_the_head_ends() {
        let says = b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\nand more";
        let (opened, told, left) = tunnel("http://me:secret@p:1", says).await;
        assert_eq!(opened, Ok(()));
        assert_eq!(left, b"and more");
        let asked = "CONNECT [fd12::1]:8080 HTTP/1.1\r\nHost: [fd12::1]:8080\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n";
        assert_eq!(told, asked);
        let (opened, told, _) = tunnel("http://p:1", b"HTTP/1.1 204\r\n\r\n").await;
        assert_eq!(opened, Ok(()));
        assert!(!told.contains("Authorization"), "{told}");
    }

    #[tokio::test]
    async fn what_opens_no_tunnel_says_why() {
        let endless = [&b"HTTP/1.1 200 OK\r\n"[..], &[b'x'; 8 << 10]].concat();
        for (says, why) in [
            (
                &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
                "the proxy answered 407",
            ),
            (b"HTTP/1.1 302 Found\r\n\r\n", "the proxy answered 302"),
            (b"HTTP/1.1 20000\r\n\r\n", "the proxy answered nonsense"),
            (b"SSH-2.0-x\r\n\r\n", "the proxy answered nonsense"),
            (b"HTTP/1.1 200 OK\r\n", "the proxy closed the connection"),
            (b"", "the proxy closed the connection"),
            (&endless, "the proxy's answer has no end"),
        ] {
            let (opened, ..) = tunnel("http://p:1", says).await;
            assert_eq!(opened, Err(why.to_owned()));
        }
    }
}
