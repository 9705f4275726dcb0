//! The callers: keep-alive connections that send one request after the other, each with the key whose turn it is.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::task::{JoinSet, LocalSet};

use crate::bodies;
use crate::client::{Client, Order};
use crate::deal::{Deal, Kind, secret};

/// Connections, each with one request under way.
const CONNECTIONS: usize = 64;

/// What one part of the load came to.
pub(crate) struct Part {
    /// Half the answers (of streams: first events) came at least this fast.
    pub(crate) p50: Duration,
    /// Ninety-nine in a hundred did.
    pub(crate) p99: Duration,
    /// How long it took.
    pub(crate) wall: Duration,
}

impl Part {
    /// Reads what the callers printed.
    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let numbers = line.split(' ').map(str::parse);
        let numbers: Vec<u64> = numbers
            .collect::<Result<_, _>>()
            .with_context(|| format!("the callers said `{line}`"))?;
        let &[p50, p99, wall] = numbers.as_slice() else {
            bail!("the callers said `{line}`");
        };
        let [p50, p99, wall] = [p50, p99, wall].map(Duration::from_nanos);
        Ok(Self { p50, p99, wall })
    }
}

/// `callers PORT KEYS EVEN`: for each line on its standard input, which is a number, sends so many requests and prints what
/// that came to. Ends with its input.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let [port, keys, even] = args else {
        bail!("callers take PORT KEYS EVEN");
    };
    let callers = Rc::new(Callers {
        port: port.parse()?,
        deal: RefCell::new(Deal::new(keys.parse()?, even.parse()?)),
        templates: [Kind::Whole, Kind::Stream, Kind::HangUp].map(template),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let mut clients = Vec::new();
    for line in std::io::stdin().lines() {
        let requests = line?.parse()?;
        let part = local.block_on(&runtime, callers.send(&mut clients, requests));
        match part {
            Ok(part) => {
                let Part { p50, p99, wall } = part;
                let numbers = [p50, p99, wall].map(|time| time.as_nanos().to_string());
                println!("{}", numbers.join(" "));
            }
            Err(error) => println!("error: {error:#}"),
        }
    }
    Ok(())
}

struct Callers {
    port: u16,
    deal: RefCell<Deal>,
    /// A request of each kind, and where in it the key stands.
    templates: [(Vec<u8>, usize); 3],
}

/// A request of a kind, and where in it the key stands.
fn template(kind: Kind) -> (Vec<u8>, usize) {
    let request = bodies::request(0, kind.model(), kind != Kind::Whole, false);
    let at = memchr::memmem::find(&request, bodies::KEY.as_bytes());
    (request.to_vec(), at.unwrap_or_default())
}

impl Callers {
    /// Sends so many requests over these connections, which are opened at first.
    async fn send(self: &Rc<Self>, clients: &mut Vec<Client>, requests: u64) -> Result<Part> {
        while clients.len() < CONNECTIONS {
            clients.push(Client::connect(self.order(0, Kind::Whole)).await?);
        }
        let start = std::time::Instant::now();
        let left = Rc::new(RefCell::new(requests));
        let mut tasks = JoinSet::new();
        for client in clients.drain(..) {
            tasks.spawn_local(Rc::clone(self).run(client, Rc::clone(&left)));
        }
        let mut times: Vec<Duration> = Vec::new();
        while let Some(client) = tasks.join_next().await {
            let mut client = client??;
            times.append(&mut client.tally.times);
            clients.push(client);
        }
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied();
        Ok(Part {
            p50: at(50).context("no request was answered")?,
            p99: at(99).context("no request was answered")?,
            wall: start.elapsed(),
        })
    }

    /// One connection, which is opened anew after its client has hung up.
    async fn run(self: Rc<Self>, mut client: Client, left: Rc<RefCell<u64>>) -> Result<Client> {
        while *left.borrow() > 0 {
            *left.borrow_mut() -= 1;
            let (key, kind) = self.deal.borrow_mut().next();
            client.order = self.order(key, kind);
            let done = match kind {
                Kind::HangUp => client.begin().await.map(|_| ()),
                Kind::Whole | Kind::Stream => client.exchange().await,
            };
            done.with_context(|| format!("key {key}, {}", kind.model()))?;
            if kind == Kind::HangUp {
                let tally = std::mem::take(&mut client.tally);
                client = Client::connect(client.order.clone()).await?;
                client.tally = tally;
            }
        }
        Ok(client)
    }

    fn order(&self, key: u32, kind: Kind) -> Order {
        let [whole, stream, hang_up] = &self.templates;
        let (request, at) = match kind {
            Kind::Whole => whole,
            Kind::Stream => stream,
            Kind::HangUp => hang_up,
        };
        let mut request = request.clone();
        let secret = secret(key);
        if let Some(place) = request.get_mut(*at..*at + secret.len()) {
            place.copy_from_slice(secret.as_bytes());
        }
        Order {
            port: self.port,
            request: Bytes::from(request),
            events: (kind == Kind::Stream).then(|| bodies::expected_events(false)),
        }
    }
}
