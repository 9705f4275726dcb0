//! The proxies under test: how each is configured, started and ended.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

use crate::bodies::KEY;
use crate::helper::pinned;

/// How long a proxy may take to listen.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end when asked to.
const END: Duration = Duration::from_secs(10);

/// A build of the gateway.
pub(crate) struct Build<'a> {
    /// What tables call it.
    pub(crate) name: &'static str,
    /// Where its program lies.
    pub(crate) program: &'a str,
    /// How many targets it has for the model of the unary scenarios, and how it chooses among them.
    pub(crate) targets: (u32, &'a str),
}

impl Build<'_> {
    /// The one built along with this bench.
    pub(crate) const THIS: Build<'static> = Build {
        name: "tollgate",
        program: env!("CARGO_BIN_EXE_tollgate"),
        targets: (1, "order"),
    };
}

/// What a gateway is told that its one caller may do.
struct Terms {
    /// What its targets cost, and how much they take.
    target: &'static str,
    /// What its one caller may do and spend.
    key: &'static str,
    /// What is not among it.
    lacks: &'static str,
}

/// Everything there is, and what builds take from before there was.
const TERMS: [Terms; 3] = [
    Terms {
        target: ", price = { input = 0.1, output = 0.4 }",
        key: "limits = { rpm = 1000000000, tpm = 1000000000000, rpd = 1000000000, concurrency = 100000 }\n\
              budget = { usd = 1000000000, per = \"month\" }\n[defaults]\noutput_cap = 1000000",
        lacks: "",
    },
    Terms {
        target: ", price = { input = 0.1, output = 0.4 }",
        key: "budget = { usd = 1000000000, per = \"month\" }\n[defaults]\noutput_cap = 1000000",
        lacks: "limits",
    },
    Terms {
        target: "",
        key: "",
        lacks: "limits or money",
    },
];

/// A running proxy, ended when this is dropped.
pub(crate) struct Proxy {
    /// What tables call it.
    pub(crate) name: &'static str,
    child: Child,
    /// Where to send requests for whole answers, and for streams.
    ports: [u16; 2],
    output: Option<PathBuf>,
}

impl Proxy {
    /// Starts a build of the gateway, this one or another to stand beside it, in a folder of its own: there is its ledger.
    pub(crate) async fn gateway(
        build: &Build<'_>,
        core: Option<u32>,
        dir: &Path,
        upstream: u16,
        log: &str,
    ) -> Result<Self> {
        let Build {
            name,
            program,
            targets,
        } = *build;
        let [port, admin] = free_ports()?;
        let dir = dir.join(name);
        fs::create_dir(&dir)?;
        let file = dir.join("gateway.toml");
        for terms in &TERMS {
            let text = gateway_config((terms, targets), [port, admin], upstream, log);
            fs::write(&file, text)?;
            let checked = Command::new(program)
                .arg("check")
                .arg("-c")
                .arg(&file)
                .output();
            if checked?.status.success() {
                if !terms.lacks.is_empty() {
                    println!("{name} is told of no {}: it knows of none", terms.lacks);
                }
                break;
            }
        }
        let mut command = pinned(core, program);
        command.arg("serve").arg("-c").arg(&file);
        // A log is written, but not kept: the disk is not what is measured.
        let output = (log == "off").then(|| dir.join("out"));
        Self::start(name, command, [port, port], output).await
    }

    /// Starts nginx with one worker and everything it writes below `dir`.
    pub(crate) async fn nginx(core: Option<u32>, dir: &Path, upstream: u16) -> Result<Self> {
        let ports = free_ports()?;
        let prefix = dir.join("nginx");
        fs::create_dir(&prefix)?;
        fs::write(prefix.join("nginx.conf"), nginx_config(ports, upstream))?;
        let mut command = pinned(core, "nginx");
        command.arg("-p").arg(&prefix);
        command.arg("-c").arg(prefix.join("nginx.conf"));
        command.arg("-e").arg(prefix.join("error.log"));
        Self::start("nginx", command, ports, Some(dir.join("nginx.out"))).await
    }

    /// Runs a command that listens on these ports, and waits until it does. What it prints goes to a file, or is not kept.
    pub(crate) async fn start(
        name: &'static str,
        mut command: Command,
        ports: [u16; 2],
        output: Option<PathBuf>,
    ) -> Result<Self> {
        command.stdin(Stdio::null());
        if let Some(path) = &output {
            let file = File::create(path)?;
            command.stdout(file.try_clone()?).stderr(file);
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut proxy = Self {
            name,
            child,
            ports,
            output,
        };
        let ready = proxy.ready().await;
        ready.inspect_err(|_| proxy.show_output())?;
        Ok(proxy)
    }

    /// Waits until it listens.
    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        for port in self.ports {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if let Some(status) = self.child.try_wait()? {
                    bail!("{} ended instead of listening: {status}", self.name);
                }
                if Instant::now() > deadline {
                    bail!("{} does not listen on port {port}", self.name);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Where to send requests.
    pub(crate) fn port(&self, stream: bool) -> u16 {
        let [whole, streams] = self.ports;
        if stream { streams } else { whole }
    }

    /// Its process; `taskset` becomes the program it starts.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Prints the end of what it has printed.
    pub(crate) fn show_output(&self) {
        let Some(path) = &self.output else {
            eprintln!("({}'s output was not kept; try --log off)", self.name);
            return;
        };
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(30);
        eprintln!("the last that {} printed:", self.name);
        for line in lines.iter().skip(from) {
            eprintln!("  {line}");
        }
    }
}

impl Proxy {
    /// Asks it to end and waits. What it ended with, unless it takes too long.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg("-TERM").arg(pid).status();
        let deadline = Instant::now() + END;
        while asked.is_ok() && Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
        eprintln!("{} does not end when asked to", self.name);
        None
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Asked first: nginx ends its worker only when asked.
        self.end();
        // It has ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What nginx calls itself, if it is installed.
pub(crate) fn nginx_version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let version = text.trim().strip_prefix("nginx version: ")?;
    Some(version.to_owned())
}

/// Two ports that nobody listens on just now.
pub(crate) fn free_ports() -> Result<[u16; 2]> {
    let first = TcpListener::bind(("127.0.0.1", 0))?;
    let second = TcpListener::bind(("127.0.0.1", 0))?;
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}

fn gateway_config(
    (terms, (targets, strategy)): (&Terms, (u32, &str)),
    [port, admin]: [u16; 2],
    upstream: u16,
    log: &str,
) -> String {
    let Terms { target, key, .. } = terms;
    // The first has the name that all builds know.
    let others = (1..targets).map(|n| format!(", {{ to = \"bench/bench-{n}\"{target} }}"));
    let others: String = others.collect();
    // A build from before there was a choice has none.
    let choice = match strategy {
        "order" => String::new(),
        _ => format!("strategy = \"{strategy}\"\n"),
    };
    format!(
        r#"[server]
listen = "127.0.0.1:{port}"
log = "{log}"

[admin]
listen = "127.0.0.1:{admin}"

[providers.bench]
preset = "openai-compatible"
base_url = "http://127.0.0.1:{upstream}/v1"

[models.bench]
{choice}targets = [{{ to = "bench/bench"{target} }}{others}]

[models.flood]
targets = [{{ to = "bench/flood"{target} }}]

[models.paced]
targets = [{{ to = "bench/paced"{target} }}]

[keys.bench]
key = "{KEY}"
{key}
"#
    )
}

/// Two servers: one that may buffer, and one for streams that passes on what comes.
fn nginx_config(ports: [u16; 2], upstream: u16) -> String {
    let [whole, streams] = ports;
    format!(
        r#"daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log crit;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_max_temp_file_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream bench {{
        server 127.0.0.1:{upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{whole};
        location / {{
            proxy_pass http://bench;
        }}
    }}
    server {{
        listen 127.0.0.1:{streams};
        location / {{
            proxy_pass http://bench;
            proxy_buffering off;
        }}
    }}
}}
"#
    )
}
