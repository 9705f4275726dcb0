//! Clients that ask as fast as they are answered, and a provider that answers at once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::form::type_of;
use crate::services::{SERVICES, Service};

/// How many ask at once.
const CLIENTS: usize = 12;

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub(crate) fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                // Until it is killed, or we are told to stop.
                while !stop.load(Ordering::Acquire) && ask_on(port, &stop, &mut seen).is_some() {}
                seen
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    /// The ids of the requests whose answers were seen complete.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        let seen = self
            .clients
            .into_iter()
            .map(|client| client.join().unwrap());
        seen.flatten().collect()
    }
}

/// Asks on one connection as long as it holds. None once nobody is there.
fn ask_on(port: u16, stop: &AtomicBool, seen: &mut Vec<String>) -> Option<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    let requests = requests();
    for request in requests.iter().cycle() {
        if stop.load(Ordering::Acquire) {
            break;
        }
        writer.write_all(request).ok()?;
        let (status, id) = answer(&mut reader)?;
        match status {
            200 => seen.push(id),
            // Nothing is wrong: what is drawn for the others is not there for this one.
            429 | 503 => std::thread::sleep(Duration::from_millis(1)),
            other => panic!("an answer of {other}"),
        }
    }
    Some(())
}

/// One request for each endpoint that asks a model, by each of its kinds of price, chats between them.
fn requests() -> Vec<Vec<u8>> {
    let request = |service: &Service| {
        let (path, body) = (service.path(), service.body("fast", 7, 20, false));
        let kind = type_of(&body);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-ann\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    };
    let [chat, others @ ..] = &SERVICES;
    let others = others.iter().map(request);
    others.flat_map(|it| [request(chat), it]).collect()
}

/// The status and the id of a whole answer.
fn answer(reader: &mut BufReader<TcpStream>) -> Option<(u16, String)> {
    let (mut status, mut id, mut length) = (0, String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.get(..3)?.parse().ok()?;
        } else if let Some(value) = line.strip_prefix("x-request-id: ") {
            value.clone_into(&mut id);
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((status, id))
}

/// A provider whose answers cost something else each time.
pub(crate) struct Provider {
    pub(crate) port: u16,
}

impl Provider {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { port }
    }
}

/// Answers on one connection until it is closed.
fn serve(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    for n in 0_u64.. {
        let (mut length, mut kind) = (0, "application/json");
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.contains("/audio/speech") {
                kind = "audio/mpeg";
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim_end().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (prompt, output) = (5 + n % 40, 1 + n % 20);
        let total = prompt + output;
        let body = format!(
            r#"{{"object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{output},"total_tokens":{total}}}}}"#
        );
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        writer.write_all(answer.as_bytes()).ok()?;
    }
    None
}
