//! A proxy between the gateway and providers: opens tunnels, carries requests, asks for credentials, and takes notes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::identity::Identity;

/// A proxy on a port of its own. Every host is this machine: names are its own business.
pub struct Proxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Without credentials whoever asks is welcome.
    pub async fn new(credentials: Option<&'static str>) -> Self {
        Self::serve(credentials, None).await
    }

    /// Over TLS itself.
    pub async fn secure(identity: &Identity) -> Self {
        Self::serve(None, Some(identity)).await
    }

    async fn serve(credentials: Option<&'static str>, identity: Option<&Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = identity.map(|identity| identity.acceptor(&[]));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heads);
        let task = tokio::task::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (notes, acceptor) = (Arc::clone(&notes), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            pass(acceptor.accept(stream).await?, credentials, &notes).await
                        }
                        None => pass(stream, credentials, &notes).await,
                    }
                });
            }
        });
        Self {
            address,
            heads,
            task,
        }
    }

    /// The heads of the requests that it got, one for each connection.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The only one.
    pub fn only(&self) -> String {
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads[0].clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    credentials: Option<&str>,
    notes: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    notes.lock().unwrap().push(head.clone());
    let shown = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("proxy-authorization: ")
            .map(|_| line)
    });
    let shown = shown
        .and_then(|line| line.split_once(": "))
        .map(|(_, shown)| shown);
    if credentials.is_some() && shown != credentials {
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(answer).await;
    }
    let (method, rest) = head.split_once(' ').unwrap();
    let (target, rest) = rest.split_once(' ').unwrap();
    let port = |authority: &str| {
        authority
            .rsplit_once(':')
            .unwrap()
            .1
            .parse::<u16>()
            .unwrap()
    };
    let mut onward;
    if method == "CONNECT" {
        onward = TcpStream::connect(("127.0.0.1", port(target))).await?;
        stream
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await?;
    } else {
        let (authority, path) = target
            .strip_prefix("http://")
            .unwrap()
            .split_once('/')
            .unwrap();
        onward = TcpStream::connect(("127.0.0.1", port(authority))).await?;
        let rest: Vec<&str> = rest
            .split("\r\n")
            .filter(|line| !line.to_lowercase().starts_with("proxy-"))
            .collect();
        let head = format!("{method} /{path} {}", rest.join("\r\n"));
        onward.write_all(head.as_bytes()).await?;
    }
    copy_bidirectional(&mut stream, &mut onward).await.map(drop)
}
