//! The load generator: keep-alive connections, one request under way on each.

use std::io::BufRead as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;

use crate::bodies;
use crate::client::{Client, Order, Tally};
use crate::helper::Helper;
use crate::plan::{Options, Scenario};

/// Unmeasured load before each window.
const WARM_UP: Duration = Duration::from_millis(300);
/// Longer than this after the window's end, and something hangs.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

/// What one window came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Requests answered in full.
    pub(crate) requests: u64,
    /// Events in their answers.
    pub(crate) events: u64,
    /// Reads from sockets that brought something.
    pub(crate) reads: u64,
    /// How long it took, until the last answer was complete.
    pub(crate) wall: Duration,
    /// Half the answers (of streams: first events) came at least this fast.
    pub(crate) p50: Duration,
    /// Ninety-nine in a hundred did.
    pub(crate) p99: Duration,
}

impl Outcome {
    fn to_line(&self) -> String {
        let times = [self.wall, self.p50, self.p99].map(|t| t.as_nanos().to_string());
        let Self {
            requests,
            events,
            reads,
            ..
        } = self;
        format!("{requests} {events} {reads} {}", times.join(" "))
    }

    /// Reads what the generator printed.
    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let numbers: Vec<u64> = line
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the load generator said `{line}`"))?;
        let &[requests, events, reads, wall, p50, p99] = numbers.as_slice() else {
            bail!("the load generator said `{line}`");
        };
        Ok(Self {
            requests,
            events,
            reads,
            wall: Duration::from_nanos(wall),
            p50: Duration::from_nanos(p50),
            p99: Duration::from_nanos(p99),
        })
    }
}

/// A load generator, as the bench sees it.
impl Helper {
    /// Starts a load generator for one window.
    pub(crate) fn load(
        core: Option<u32>,
        options: &Options,
        scenario: &Scenario,
        port: u16,
        window: Duration,
    ) -> Result<Self> {
        let kind = match (scenario.stream, options.usage) {
            (false, _) => "whole",
            (true, false) => "stream",
            (true, true) => "stream+usage",
        };
        let numbers = [
            port.to_string(),
            scenario.connections.to_string(),
            window.as_millis().to_string(),
        ];
        let [port, connections, window] = &numbers;
        Self::start(
            core,
            &["load", port, scenario.model, kind, connections, window],
        )
    }

    /// Waits until a load generator is warm.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let line = self.line(GRACE + GRACE).await?;
        if line != "ready" {
            bail!("the load generator said `{line}`");
        }
        Ok(())
    }

    /// Lets a load generator run its window.
    pub(crate) async fn go(&mut self, window: Duration) -> Result<Outcome> {
        self.tell("go")?;
        let line = self.line(window + GRACE + GRACE).await?;
        Outcome::from_line(&line)
    }
}

/// `load PORT MODEL whole|stream|stream+usage CONNECTIONS MILLISECONDS`: opens
/// and warms its connections, prints `ready`, and after a line on its standard
/// input loads for as long as told and prints what that came to. The
/// connections stay open until its standard input closes.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let [port, model, kind, connections, window] = args else {
        bail!("load takes PORT MODEL KIND CONNECTIONS MILLISECONDS");
    };
    let port = port.parse()?;
    let (stream, usage) = (*kind != "whole", *kind == "stream+usage");
    let order = Order {
        port,
        request: bodies::request(port, model, stream, usage),
        events: stream.then(|| bodies::expected_events(usage)),
    };
    let window = Duration::from_millis(window.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let limit = window + WARM_UP + GRACE;
        let warm = tokio::time::timeout(limit, warm_up(&order, connections.parse()?)).await;
        let clients = warm.context("the warm-up does not end")??;
        println!("ready");
        wait_for_line()?;
        let run = tokio::time::timeout(limit, measured(clients, window)).await;
        run.context("answers do not end")?
    });
    match outcome {
        Ok((outcome, _still_open)) => {
            println!("{}", outcome.to_line());
            wait_for_line()
        }
        Err(error) => {
            println!("error: {error:#}");
            Ok(())
        }
    }
}

/// Blocks on purpose: nothing else is to happen meanwhile.
fn wait_for_line() -> Result<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Opens the connections, checks the first answer on each in full, and gets all warm.
async fn warm_up(order: &Order, connections: u16) -> Result<Vec<Client>> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let order = order.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(order).await?;
            client.keep = Some(Vec::new());
            client.exchange().await?;
            client.check_kept()?;
            client.run(WARM_UP).await?;
            anyhow::Ok(client)
        });
    }
    let mut clients = Vec::new();
    while let Some(client) = tasks.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

/// The measured window; gives the connections back, still open.
async fn measured(clients: Vec<Client>, window: Duration) -> Result<(Outcome, Vec<Client>)> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            client.tally = Tally::default();
            client.run(window).await?;
            anyhow::Ok(client)
        });
    }
    let mut clients = Vec::new();
    while let Some(client) = tasks.join_next().await {
        clients.push(client??);
    }
    let wall = start.elapsed();
    let mut times: Vec<Duration> = Vec::new();
    let (mut events, mut reads) = (0, 0);
    for client in &mut clients {
        times.append(&mut client.tally.times);
        events += client.tally.events;
        reads += client.tally.reads;
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied();
    let outcome = Outcome {
        requests: u64::try_from(times.len())?,
        events,
        reads,
        wall,
        p50: at(50).context("no request was answered")?,
        p99: at(99).context("no request was answered")?,
    };
    Ok((outcome, clients))
}
