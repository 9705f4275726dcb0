//! `tollgate explain`: what would become of a request, and why? Asks the gateway that runs; where none does, it is worked
//! out from the configuration alone, as if nobody had asked before.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Failed, Loaded};
use crate::admin::explain::{LONGEST, question};
use crate::config::Listen;
use crate::config::load::Source;
use crate::config::secret::Environment;
use crate::ledger::{Ledger, Place, Settings};
use crate::plan::money;
use crate::proxy::explain;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;

/// How long a gateway that runs may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked about, as it is typed.
#[derive(Debug, clap::Args)]
pub struct Asked {
    /// The model that is asked for
    #[arg(long)]
    model: String,
    /// The name of the key that asks; default: whoever comes without one
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// The request's body; default: a chat that says hello
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// What is called
    #[arg(long, value_name = "PATH", default_value = "/v1/chat/completions")]
    endpoint: String,
    /// A header of the request: "x-session: 7"; again for more
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// By the configuration alone, also where a gateway runs
    #[arg(long)]
    offline: bool,
    /// As one object, with the whole bodies
    #[arg(long)]
    json: bool,
}

impl Asked {
    /// In the words of `/admin/explain`.
    fn written(&self) -> Result<Vec<u8>, Failed> {
        let mut headers = Map::new();
        for text in &self.headers {
            let (name, value) = text.split_once(':').ok_or_else(|| {
                let message = format!("`{text}` is no header; write \"name: value\"");
                Failed::User(anyhow!(message))
            })?;
            headers.insert(name.trim().into(), value.trim().into());
        }
        let mut written = json!({
            "model": self.model,
            "key": self.key,
            "endpoint": self.endpoint,
            "headers": headers,
        })
        .to_string();
        if let Some(file) = &self.body {
            let body = std::fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()));
            let body = body.map_err(Failed::User)?;
            // As it stands there: what is sent on is made from these very bytes.
            written.truncate(written.len() - 1);
            written = format!("{written},\"body\":{body}}}");
        }
        if written.len() > LONGEST {
            let message = format!("the body is longer than {} MiB", LONGEST >> 20);
            return Err(Failed::User(anyhow!(message)));
        }
        Ok(written.into_bytes())
    }
}

/// Prints what would become of a request. With 1 where it would be rejected.
pub fn run(file: &Path, environment: Environment, asked: &Asked) -> Result<(), Failed> {
    let loaded = Loaded::read(Source::open(file)?, environment);
    let written = asked.written()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime to ask with")?;
    let running = match asked.offline {
        true => None,
        false => runtime.block_on(ask(&loaded, &written))?,
    };
    let is_running = running.is_some();
    let told = match running {
        Some(told) => told,
        None => runtime.block_on(work_out(&loaded, &written))?,
    };
    let lines = match asked.json {
        true => vec![format!("{told:#}")],
        false => lines(&told, is_running),
    };
    super::print(&lines);
    match told.pointer("/rejected/message").and_then(Value::as_str) {
        Some(why) => Err(Failed::User(anyhow!("it would be rejected: {why}"))),
        None => Ok(()),
    }
}

/// What the gateway says that runs by this configuration. None: there is none.
async fn ask(loaded: &Loaded, written: &[u8]) -> Result<Option<Value>, Failed> {
    let admin = &loaded.config.admin;
    let mut listeners = admin.listen.iter();
    // Whoever asks has no certificate that the gateway may want to see.
    let asked = match admin.tls {
        None => listeners.next(),
        Some(_) => listeners.find(|it| matches!(it, Listen::Unix(_))),
    };
    let Some(listen) = asked else {
        let message = "[admin] is listened at with TLS, which this command does not speak; let it listen at a unix socket as well, or try --offline";
        return Err(Failed::User(anyhow!(message)));
    };
    let answered = match listen {
        Listen::Tcp(address) => match TcpStream::connect(address).await {
            Ok(stream) => post(loaded, stream, written.to_vec()).await,
            Err(_) => return Ok(None),
        },
        Listen::Unix(path) => match UnixStream::connect(loaded.source.folder().join(path)).await {
            Ok(stream) => post(loaded, stream, written.to_vec()).await,
            Err(_) => return Ok(None),
        },
    };
    let (status, body) = answered.map_err(Failed::User)?;
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (
        status,
        told.pointer("/error/message").and_then(Value::as_str),
    ) {
        (StatusCode::OK, _) => Ok(Some(told)),
        (_, Some(why)) => Err(Failed::User(anyhow!("the gateway that runs says: {why}"))),
        (status, None) => {
            let message = "what listens at the address of [admin] is no tollgate, or an older one";
            Err(Failed::User(anyhow!(
                "{message}: it answered {status}; try --offline"
            )))
        }
    }
}

async fn post<S>(loaded: &Loaded, stream: S, body: Vec<u8>) -> anyhow::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::post("/admin/explain")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = &loaded.config.admin.token {
        let token = token.reveal(loaded.source.folder(), &loaded.environment);
        let token = token.context("the token of [admin]")?;
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let asking = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answering = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        tokio::pin!(answering, connection);
        // The connection must be driven for as long as its answer is read.
        tokio::select! {
            answered = &mut answering => answered,
            _ = &mut connection => answering.await,
        }
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    Ok(answered.context("the gateway that runs did not answer within 10 seconds")??)
}

/// What the configuration alone says.
async fn work_out(loaded: &Loaded, written: &[u8]) -> Result<Value, Failed> {
    let question = question(written).map_err(|wrong| Failed::User(anyhow!(wrong)))?;
    let settings = Settings {
        store: Place::Memory,
        ..money::ledger(&loaded.config, loaded.source.folder())
    };
    let ledger = Ledger::open(&settings, SystemTime::now()).context("no ledger in memory")?;
    let telemetry = Telemetry::new(Metrics::new(), None);
    let gateway = loaded.gateway(telemetry, ledger, Box::new(SystemTime::now))?;
    Ok(explain::explain(&gateway, &question).await)
}

/// For people.
fn lines(told: &Value, is_running: bool) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    if !is_running {
        lines.push(
            "no gateway runs here that could be asked: as if nobody had asked before".to_owned(),
        );
    }
    let team = told["team"].as_str();
    let team = team.map_or_else(String::new, |team| format!(" of team {team}"));
    lines.push(format!(
        "{} asks for {}, {}{}",
        told["key"].as_str().unwrap_or("nobody known").to_owned() + &team,
        told["model"].as_str().unwrap_or("?"),
        text(&told["endpoint"]),
        if told["stream"] == true {
            ", as a stream"
        } else {
            ""
        },
    ));
    for it in told["budgets"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  budget of {} {}: {} USD left of {} per {}",
            text(&it["scope"]),
            text(&it["name"]),
            text(&it["left_usd"]),
            text(&it["usd"]),
            text(&it["per"]),
        ));
    }
    for it in told["limits"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {} of {} {}: {} left of {}",
            text(&it["limit"]),
            text(&it["scope"]),
            text(&it["name"]),
            it["left"],
            it["most"],
        ));
    }
    for model in told["models"].as_array().into_iter().flatten() {
        let held = model["held_usd"].as_str();
        lines.push(format!(
            "{}: by {}, within {} ms{}",
            text(&model["model"]),
            text(&model["strategy"]),
            told["deadline_ms"],
            held.map_or_else(String::new, |usd| format!("; {usd} USD would be set aside")),
        ));
        let targets = model["targets"].as_array().into_iter().flatten();
        for (n, target) in targets.enumerate() {
            lines.extend(about(n + 1, target));
        }
        let skipped = model["skipped"].as_array().into_iter().flatten();
        lines.extend(skipped.map(|why| format!("-  skipped: {}", text(why))));
    }
    lines
}

/// How many requests a target has; and where it may not have more, how many wait for that.
fn under_way(target: &Value) -> Vec<String> {
    let slots = &target["slots"];
    let Some(most) = slots["most"].as_u64() else {
        return vec![format!("{} under way", target["busy"])];
    };
    let mut known = vec![format!("{} of {most} under way", slots["under_way"])];
    if slots["waiting"] != 0 {
        known.push(format!("{} wait", slots["waiting"]));
    }
    if let Some(wait) = slots["wait_ms"].as_u64().filter(|wait| *wait > 0) {
        known.push(format!("one more would wait for {wait} ms"));
    }
    known
}

fn about(n: usize, target: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let why = target["why"].as_str();
    let mut lines = vec![format!(
        "{n}. {}: {}{}",
        text(&target["target"]),
        text(&target["verdict"]),
        why.map_or_else(String::new, |why| format!(": {why}")),
    )];
    let mut known = under_way(target);
    if let Some(latency) = target["latency_us"].as_u64() {
        known.push(format!(
            "first content after {} ms",
            latency.div_ceil(1_000)
        ));
    }
    if let Some(rest) = target["rests_ms"].as_u64() {
        known.push(format!("rests for {rest} ms more"));
    }
    if let Some(usd) = target["bound_usd"].as_str() {
        let tokens = |side: &str| target["most"].get(side).unwrap_or(&Value::Null);
        known.push(format!(
            "at most {usd} USD ({} tokens in, {} out; prices: {})",
            tokens("input"),
            tokens("output"),
            text(&target["prices"])
        ));
    }
    if target["tier"] != 0 {
        known.push(format!("tier {}", target["tier"]));
    }
    lines.push(format!("   {}", known.join(", ")));
    let clocks = ["connect", "first_byte", "first_content", "idle", "total"];
    let clocks = clocks.map(|clock| {
        let ms = target["clocks_ms"].get(clock).unwrap_or(&Value::Null);
        format!("{} {ms} ms", clock.replace('_', " "))
    });
    lines.push(format!("   clocks: {}", clocks.join(", ")));
    let request = &target["request"];
    if let (Some(method), Some(url)) = (request["method"].as_str(), request["url"].as_str()) {
        lines.push(format!("   {method} {url}"));
        for change in request["changes"].as_array().into_iter().flatten() {
            let value = match &change["value"] {
                Value::Null => String::new(),
                value => format!(" {value}"),
            };
            lines.push(format!(
                "   {} {}{value}",
                text(&change["op"]),
                text(&change["path"])
            ));
        }
    }
    lines
}
