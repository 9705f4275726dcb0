//! A client that sees every byte.

use std::net::SocketAddr;

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
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response: Response<Incoming> = sender
        .send_request(request.body(Full::new(body.into())).unwrap())
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
