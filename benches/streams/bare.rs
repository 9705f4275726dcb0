//! What does hyper cost by itself? A proxy that is nothing else: its server, its client, and a connection for each request.
//!
//! Both bodies are hyper's own, handed from one side to the other, so that nothing of ours is between them.

use anyhow::{Context, Result, bail};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// `bare PORT UPSTREAM`: serves on one port until it is ended, and sends everything to the other.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let [port, upstream] = args else {
        bail!("bare takes PORT UPSTREAM");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(port.parse()?, upstream.parse()?))
}

async fn serve(port: u16, upstream: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (socket, _) = listener.accept().await.context("accept")?;
        socket.set_nodelay(true)?;
        let pass = service_fn(move |request| forward(request, upstream));
        let connection = server::conn::http1::Builder::new();
        let connection = connection.serve_connection(TokioIo::new(socket), pass);
        // Whoever reads a stream sees that it broke.
        tokio::spawn(async { connection.await.ok() });
    }
}

async fn forward(request: Request<Incoming>, upstream: u16) -> Result<Response<Incoming>> {
    let socket = TcpStream::connect(("127.0.0.1", upstream)).await?;
    socket.set_nodelay(true)?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(async { connection.await.ok() });
    Ok(sender.send_request(request).await?)
}
