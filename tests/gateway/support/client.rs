//! A client that sees every byte.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The contract's code in an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", self.text()))
            .to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An answer that is still coming. To drop it is to leave.
pub struct Coming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    task: JoinHandle<()>,
}

impl Coming {
    /// The next piece; none at the end; an error where the connection broke.
    pub async fn piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        Some(
            self.body
                .frame()
                .await?
                .map(|frame| frame.into_data().unwrap_or_default()),
        )
    }

    /// What is left, and whether it came to its end.
    pub async fn rest(mut self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await {
            match piece {
                Ok(piece) => all.extend_from_slice(&piece),
                Err(_) => return (all, false),
            }
        }
        (all, true)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Posts a body with a key and reads the whole answer.
pub async fn post(address: SocketAddr, path: &str, key: &str, body: impl Into<Bytes>) -> Answer {
    whole(
        send(
            address,
            Method::POST,
            path,
            &[("authorization", &format!("Bearer {key}"))],
            body,
        )
        .await,
    )
    .await
}

/// Gets a path with a key.
pub async fn get(address: SocketAddr, path: &str, key: &str) -> Answer {
    whole(
        send(
            address,
            Method::GET,
            path,
            &[("authorization", &format!("Bearer {key}"))],
            "",
        )
        .await,
    )
    .await
}

/// Posts a body and gives the answer while it comes.
pub async fn open(address: SocketAddr, path: &str, key: &str, body: impl Into<Bytes>) -> Coming {
    send(
        address,
        Method::POST,
        path,
        &[("authorization", &format!("Bearer {key}"))],
        body,
    )
    .await
}

/// Sends anything.
pub async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Coming {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::task::spawn(async move {
        let _ = connection.await;
    });
    let is_post = method == Method::POST;
    let mut request = Request::builder().method(method).uri(path);
    let says = |name: &str| headers.iter().any(|(other, _)| *other == name);
    if !says("host") {
        request = request.header("host", address.to_string());
    }
    if is_post && !says("content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.into();
    let response: Response<Incoming> = sender
        .send_request(request.body(Full::new(body)).unwrap())
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    // The sender keeps the connection open until the answer has been read.
    std::mem::forget(sender);
    Coming {
        status: head.status,
        headers: head.headers,
        body,
        task,
    }
}

pub async fn whole(mut coming: Coming) -> Answer {
    let (status, headers) = (coming.status, std::mem::take(&mut coming.headers));
    let (body, complete) = coming.rest().await;
    assert!(
        complete,
        "the answer broke off: {}",
        String::from_utf8_lossy(&body)
    );
    Answer {
        status,
        headers,
        body: body.into(),
    }
}

/// Writes bytes on a connection and reads until it closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// How long anything may take to come at all, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection whose every byte is the test's own.
pub struct Socket {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Socket {
    pub async fn to(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            came: Vec::new(),
        }
    }

    /// Writes, as far as the other side lets it.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that refuses early may close before all is written.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Sends one byte past all others (TCP's "urgent" data).
    pub fn write_urgent(&self) {
        socket2::SockRef::from(&self.stream)
            .send_out_of_band(b"!")
            .unwrap();
    }

    /// Reads one answer whose length is told, and leaves what follows.
    pub async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.came.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            assert!(self.more().await, "no answer: {}", self.text());
        };
        let head = String::from_utf8(self.came.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let length = headers
            .get("content-length")
            .map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        while self.came.len() < length {
            assert!(self.more().await, "half an answer: {}", self.text());
        }
        Answer {
            status,
            headers,
            body: self.came.drain(..length).collect(),
        }
    }

    /// What comes until the other side closes.
    pub async fn rest(mut self) -> String {
        while self.more().await {}
        self.text()
    }

    /// Reads what has come, or waits for it. False at the end, however it ends.
    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.came);
        let read = tokio::time::timeout(PATIENCE, read)
            .await
            .unwrap_or_else(|_| panic!("nothing comes, and nobody closes"));
        read.is_ok_and(|length| length > 0)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.came).into_owned()
    }
}
