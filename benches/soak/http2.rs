//! Clients that speak HTTP/2: many requests on one connection, such as are reset, and such as are never read.

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clients::{PATIENCE, Site};
use crate::support::frames::{self, DATA, HEADERS, RESET, frame};
use crate::support::{CHAT, DONE, chat, chat_stream};

async fn send(
    site: &Site,
    sender: &mut SendRequest<Full<Bytes>>,
    body: String,
) -> Response<Incoming> {
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{}{CHAT}", site.address))
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-ann")
        .body(Full::new(body.into()))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap();
    site.seen.noted("HTTP/2", 200, answer.status().as_u16(), id);
    answer
}

/// A whole answer, a stream that is left, and a stream to its end, all on one connection.
pub async fn share(site: Site) {
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let driving = tokio::task::spawn(connection);
    let whole = send(&site, &mut sender, chat("good")).await;
    let left = send(&site, &mut sender, chat_stream("slow/m")).await;
    let stream = send(&site, &mut sender, chat_stream("shared/m")).await;
    let mut left = left.into_body();
    let _ = left.frame().await;
    drop(left);
    for body in [whole.into_body(), stream.into_body()] {
        let text = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let ends = |text: &Bytes| text.ends_with(DONE.as_bytes()) || text.ends_with(b"}");
        site.seen.holds(text.as_ref().is_ok_and(ends), || {
            format!("HTTP/2: an answer that does not end well: {text:?}")
        });
    }
    drop(sender);
    let _ = driving.await;
}

/// Requests that are taken back as soon as they are made.
pub async fn reset(site: Site) {
    let mut stream = frames::open(site.address, &[]).await;
    let (head, body) = (frames::head(site.address), chat("hang/m"));
    let mut sent = Vec::new();
    for n in 0..200 {
        let id = 2 * n + 1;
        sent.extend(frame(HEADERS, 0x4, id, &head));
        sent.extend(frame(DATA, 0x1, id, body.as_bytes()));
        sent.extend(frame(RESET, 0, id, &8_u32.to_be_bytes()));
        site.seen.left();
    }
    // Whoever is hung up on cannot write to the end.
    let _ = stream.write_all(&sent).await;
    let closed = timeout(PATIENCE, frames::rest(stream)).await;
    site.seen
        .holds(closed.is_ok(), || "resets without end are suffered".into());
}

/// A client that lets nothing of its answer in.
pub async fn make_no_room(site: Site) {
    let mut stream = frames::open(site.address, &[0, 4, 0, 0, 0, 0]).await;
    let body = chat("long/m");
    let asked = [
        frame(HEADERS, 0x4, 1, &frames::head(site.address)),
        frame(DATA, 0x1, 1, body.as_bytes()),
    ];
    site.seen.left();
    stream.write_all(&asked.concat()).await.unwrap();
    let closed = timeout(PATIENCE, frames::rest(stream)).await;
    site.seen
        .holds(closed.is_ok(), || "an answer waits for ever".into());
}
