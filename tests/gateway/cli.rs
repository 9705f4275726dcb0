//! What an operator types: the real binary, its words and its exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub fn tollgate(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    command
}

pub fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = tollgate(folder).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

pub fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    folder
}

/// A gateway of its own that prints what it says, ended at the end of the test.
pub struct Served {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Served {
    pub fn start(folder: &Path) -> Self {
        Self::spawn(&mut tollgate(folder))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that says something.
    pub fn line_with(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "it ended before it said `{what}`"
            );
            if line.contains(what) {
                return line;
            }
        }
    }

    /// All that it says until it ends.
    pub fn rest(mut self) -> String {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        rest
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where clients connect, on this machine.
    pub fn port(&mut self) -> u16 {
        self.port_in("listening on")
    }

    /// And where operators do.
    pub fn admin(&mut self) -> u16 {
        self.port_in("metrics on")
    }

    fn port_in(&mut self, what: &str) -> u16 {
        let line = self.line_with(what);
        line.split("127.0.0.1:")
            .nth(1)
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn exit_code(mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < Duration::from_secs(10), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SMALL: &str = "[server]\nlisten = \"127.0.0.1:0\"\nlog = \"json\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[providers.echo]\n";

fn ask(port: u16, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\nx-request-id: mine\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_without_traces_says_how_to_build_one_that_has_them() {
    let folder = folder_with(&(SMALL.to_owned() + "[traces]\nsample = 0.1\n"));
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!((code, out.as_str()), (1, ""));
    let flaw = "gateway.toml:7: traces: this tollgate was built without traces; build it with `cargo build --release --features otlp`, or leave the section out";
    assert_eq!(err.lines().collect::<Vec<_>>(), [flaw]);
}

#[test]
fn check_names_every_flaw_and_exits_with_1() {
    let folder = folder_with(
        "[server]\nlisten = \"127.0.0.1:1\"\nlisten_to = 1\n[providers.groq]\nbase_url = \"ftp://x\"\ntries = 0\n[models.a]\ntargets = [\"groc/x\", \"groq\"]\n[keys.k]\n[keys.l]\nkey = \"env:UNSET\"\nmodels = [\"b\"]\nexpires = \"soon\"\n[admin]\ntoken = \"env:UNSET\"\n",
    );
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!((code, out.as_str()), (1, ""));
    let want = [
        "gateway.toml:3: server.listen_to: `listen_to` is unknown",
        "gateway.toml:5: providers.groq.base_url: `ftp://x` must start with http://, https:// or unix:",
        "gateway.toml:6: providers.groq.tries: 0 is not between 1 and 10",
        "gateway.toml:8: models.a.targets[0]: there is no [providers.groc]; did you mean `groq`?",
        "gateway.toml:8: models.a.targets[1]: `groq` names no provider; write \"provider/model\"",
        "gateway.toml:9: keys.k: give it `key` or `digest`",
        "gateway.toml:11: keys.l.key: UNSET is not set",
        "gateway.toml:12: keys.l.models[0]: `b` can match no model; did you mean `a`?",
        "gateway.toml:13: keys.l.expires: is not a day; write it in quotes, such as \"2027-01-31\"",
        "gateway.toml:15: admin.token: UNSET is not set",
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), want);
    let (code, _, err) = run(folder.path(), &[]);
    assert_eq!(
        (code, err.lines().count()),
        (1, want.len()),
        "to serve it is refused as well"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = folder_with(SMALL);
    for command in ["check", "providers"] {
        let mut child = tollgate(folder.path())
            .arg(command)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command}");
    }
}

#[test]
fn secrets_in_a_wrong_base_url_are_not_shown() {
    for url in [
        "htps://me:hunter2@host/v1",
        "https://me:hunter2 x@host/v1",
        "https://me:hunter2@host:99999/v1",
        "me:hunter2@host",
        "https:/host/v1?key=hunter2",
    ] {
        let text = format!("[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"{url}\"\n");
        let (code, _, err) = run(folder_with(&text).path(), &["check"]);
        assert_eq!(code, 1);
        assert!(
            err.contains("base_url") && !err.contains("hunter2"),
            "{err}"
        );
    }
}

#[test]
fn roots_that_are_named_and_not_there_are_a_flaw() {
    let text =
        "[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"https://engine.test/v1\"\n";
    let folder = folder_with(text);
    let check = |file: &str| {
        let output = tollgate(folder.path())
            .arg("check")
            .env("SSL_CERT_FILE", file)
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), err)
    };
    let (code, err) = check("/nonexistent/company-only.pem");
    assert!(code == Some(1) && err.contains("SSL_CERT_FILE"), "{err}");
}

#[test]
fn bodies_that_could_never_be_taken_are_a_flaw() {
    let limits = "[server]\nmax_body = \"2MiB\"\nmax_body_memory = \"1MiB\"\n";
    let text = SMALL.replace("[server]\n", limits);
    let (code, _, err) = run(folder_with(&text).path(), &["check"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("gateway.toml:3: server.max_body_memory: "),
        "{err}"
    );
}

#[test]
fn a_probe_does_not_wait_for_one_after_the_other() {
    let silent: Vec<_> = (0..3)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut text = String::new();
    for (n, listener) in silent.iter().enumerate() {
        let address = listener.local_addr().unwrap();
        text += &format!(
            "[providers.p{n}]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\ntimeouts = {{ first_byte = \"1s\" }}\n"
        );
    }
    let began = Instant::now();
    let (code, out, _) = run(folder_with(&text).path(), &["check", "--probe"]);
    assert_eq!(code, 1);
    assert!(began.elapsed() < Duration::from_millis(2_500), "{out}");
    let told: Vec<&str> = out.lines().skip(1).collect();
    let want = [0, 1, 2].map(|n| format!("p{n}: the first byte clock ran out"));
    assert_eq!(told, want);
}

#[test]
fn doors_that_stand_wide_open_are_named() {
    let wide = SMALL.replace("[server]\n", "[server]\ncors = [\"*\"]\n");
    let warned = |text: &str| {
        run(folder_with(text).path(), &["check"])
            .1
            .contains("any web page")
    };
    assert!(warned(&wide));
    assert!(!warned(SMALL));
    assert!(!warned(&format!("{wide}[keys.a]\nkey = \"sk-a\"\n")));
}

#[test]
fn a_good_configuration_is_fine() {
    let folder = folder_with(&format!(
        "{SMALL}[providers.groq]\n[models.a]\ntargets = [\"groq/x\", \"echo/x\"]\n"
    ));
    let (code, out, err) = run(folder.path(), &["check", "--probe"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "groq: GROQ_API_KEY is not set, 1 target skipped\ngateway.toml: fine: 1 provider, 1 model, 0 keys\necho: answers, 1 model\necho: does not list x\n"
    );
}

#[test]
fn patterns_that_can_match_are_fine_and_secrets_are_not_shown() {
    let keys = "[keys.a]\nkey = \"sk-a\"\nmodels = [\"team/*\", \"*/echo\", \"ec*/x\", \"*\"]\n";
    let fine = format!("{SMALL}[models.\"team/fast\"]\ntargets = [\"echo/echo\"]\n{keys}");
    assert_eq!(run(folder_with(&fine).path(), &["check"]).0, 0);
    let flawed = format!(
        "{SMALL}[providers.x]\nbase_url = \"https://user:hunter2@host/v1\"\n[providers.y]\nbase_url = \"https://host/v1?key=hunter2\"\n[keys.b]\nkey = \"\"\n[keys.c]\nkey = \" c\"\n"
    );
    let (code, _, err) = run(folder_with(&flawed).path(), &["check"]);
    assert_eq!((code, err.lines().count()), (1, 4), "{err}");
    assert!(
        !err.contains("hunter2") && err.contains("keys.b.key: it is empty"),
        "{err}"
    );
}

#[test]
fn a_probe_says_who_does_not_answer() {
    let folder = folder_with(
        "[providers.x]\npreset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\n",
    );
    let (code, out, err) = run(folder.path(), &["check", "--probe"]);
    assert_eq!(code, 1);
    assert!(out.contains("x: could not connect"), "{out}");
    assert_eq!(err, "1 provider did not answer\n");
}

#[test]
fn mistakes_on_the_command_line_have_their_codes() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = run(folder.path(), &["check"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("gateway.toml: ") && err.contains("--config FILE"),
        "{err}"
    );
    assert_eq!(run(folder.path(), &["frobnicate"]).0, 2);
    assert_eq!(run(folder.path(), &["--version"]).0, 0);
    let elsewhere = folder_with(SMALL);
    let named = elsewhere.path().join("gateway.toml");
    assert_eq!(
        run(folder.path(), &["check", "-c", named.to_str().unwrap()]).0,
        0
    );
    let by_variable = tollgate(folder.path())
        .arg("check")
        .env("TOLLGATE_CONFIG", &named)
        .output()
        .unwrap();
    assert_eq!(by_variable.status.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_the_users_mistake() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = folder_with(&SMALL.replacen("127.0.0.1:0", &address.to_string(), 1));
    let (code, _, err) = run(folder.path(), &["serve"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with(&format!("cannot listen on {address}: ")),
        "{err}"
    );
}

#[test]
fn check_names_what_a_provider_cannot_mean() {
    let text = r#"[providers.azure]
api_key = "sk-a"
[providers.p]
base_url = "http://p/v1"
api_key = "sk-p"
auth = "basic"
headers = { Authorization = "Basic eA==", x-team = "a" }
forward = ["X-Goog-Api-Key"]
rules = { known = ["messages"], unknown = "drop" }
[providers.p.rules_for."gpt-4.1*"]
unknown = "keep"
clamp = { temperature = [1, 0] }
[providers.q]
base_url = "http://q/v1"
headers = { authorization = "Basic eA==" }
rules = { known = ["model", "stream"] }
rules_for."x*".unknown = "refuse"
rules_for."y*" = { unknown = "refuse", drap = [] }
"#;
    let folder = folder_with(text);
    let (code, _, err) = run(folder.path(), &["check"]);
    assert_eq!(code, 1);
    let want = [
        "gateway.toml:1: providers.azure.base_url: `base_url` is missing; write base_url = \"https://RESOURCE.openai.azure.com/openai/v1\"",
        "gateway.toml:6: providers.p.auth: `basic` is not one of api-key, bearer, x-api-key",
        "gateway.toml:7: providers.p.headers.Authorization: `authorization` would be a second credential beside `api_key`; `auth` says which header that goes in",
        "gateway.toml:8: providers.p.forward[0]: `X-Goog-Api-Key` carries the caller's key, which never travels on",
        "gateway.toml:9: providers.p.rules.unknown: name every member it knows in `known`; `model` is not among them",
        "gateway.toml:11: providers.p.rules_for.\"gpt-4.1*\".unknown: `keep` is not one of drop, forward, refuse",
        "gateway.toml:12: providers.p.rules_for.\"gpt-4.1*\".clamp.temperature: the lowest value, 1, is above the highest, 0",
        "gateway.toml:18: providers.q.rules_for.\"y*\".drap: `drap` is unknown; did you mean `drop`?",
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), want);
}

#[test]
fn the_presets_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, _) = run(folder.path(), &["providers"]);
    assert_eq!(code, 0);
    for (preset, key, url) in [
        ("openai", "env:OPENAI_API_KEY", "https://api.openai.com/v1"),
        (
            "azure",
            "env:AZURE_OPENAI_API_KEY",
            "(give it one: https://RESOURCE.openai.azure.com/openai/v1)",
        ),
        (
            "cerebras",
            "env:CEREBRAS_API_KEY",
            "https://api.cerebras.ai/v1 (unverified)",
        ),
        ("ollama", "none", "http://localhost:11434/v1"),
        ("echo", "none", "echo:"),
    ] {
        let is_it = |line: &str| {
            let rest = line.strip_prefix(preset).map(str::trim_start);
            let rest = rest.and_then(|rest| rest.strip_prefix(key));
            rest.map(str::trim_start) == Some(url)
        };
        assert!(out.lines().any(is_it), "{preset} in {out}");
    }
    let presets: toml_edit::DocumentMut = tollgate::provider::PRESETS.parse().unwrap();
    assert_eq!(out.lines().count(), 1 + presets.len());
}

#[test]
fn shells_and_man_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let (code, help, _) = run(folder.path(), &["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<_> = commands
        .map_while(|line| line.split_whitespace().next())
        .collect();
    assert!(code == 0 && commands.len() > 10, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, text, err) = run(folder.path(), &["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""));
        for command in &commands {
            assert!(text.contains(command), "{shell} does not know {command}");
        }
    }
    let (code, _, err) = run(folder.path(), &["completions", "tcsh"]);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = run(folder.path(), &["man", "pages"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "pages is no folder: make it first\n")
    );
    std::fs::create_dir(folder.path().join("pages")).unwrap();
    assert_eq!(run(folder.path(), &["man", "pages"]).0, 0);
    for command in &commands {
        let page = folder.path().join(format!("pages/tollgate-{command}.1"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(
            page.contains(".SH NAME") && page.contains(".SH OPTIONS"),
            "{page}"
        );
    }
    let bash = Command::new("bash")
        .args(["-n", "/dev/stdin"])
        .stdin(Stdio::piped())
        .spawn();
    let mut bash = bash.unwrap();
    let (_, text, _) = run(folder.path(), &["completions", "bash"]);
    bash.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(bash.wait().unwrap().success(), "bash cannot read it");
}

#[test]
fn it_says_what_it_serves_to_whom() {
    let folder = folder_with(&format!("{SMALL}[models.a]\ntargets = [\"echo/x\"]\n"));
    let mut served = Served::start(folder.path());
    let line = served.line_with("serving");
    assert!(
        line.contains("serving 1 model of 1 provider to anybody, without a key"),
        "{line}"
    );
    served.port();
    drop(served);
    let (code, _, err) = run(folder.path(), &["keys", "new", "ann"]);
    assert_eq!(code, 0, "{err}");
    let mut served = Served::start(folder.path());
    let line = served.line_with("serving");
    assert!(
        line.contains("serving 1 model of 1 provider to 1 key"),
        "{line}"
    );
}

#[test]
fn it_serves_tells_each_request_in_one_line_and_ends_when_told() {
    for (signal, log) in [("-TERM", "json"), ("-INT", "text")] {
        let folder = folder_with(&SMALL.replace("json", log));
        let mut served = Served::start(folder.path());
        let port = served.port();
        let answer = ask(
            port,
            r#"{"model":"echo/x","messages":[{"role":"user","content":"a secret"}]}"#,
        );
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("a secret"),
            "{answer}"
        );
        let line = served.line_with("chat_completions");
        assert!(!line.contains("secret"), "no prompt is logged: {line}");
        if log == "json" {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["status"], 200);
            assert_eq!(line["end"], "complete");
            assert_eq!(line["to"], "echo/x");
            assert_eq!(line["client_id"], "mine");
            assert_eq!((&line["input"], &line["output"]), (&2.into(), &2.into()));
            assert!(line["ms"].is_number());
        }
        served.signal(signal);
        assert_eq!(served.exit_code(), 0, "{signal}");
    }
}

/// An answer without a body has come to its end as well: a client that asked got it all.
#[test]
fn an_answer_without_a_body_is_complete() {
    let cors = "[server]\ncors = [\"https://app.example.com\"]\n";
    let folder = folder_with(&SMALL.replace("[server]\n", cors));
    let mut served = Served::start(folder.path());
    let mut stream = TcpStream::connect(("127.0.0.1", served.port())).unwrap();
    let lines = "host: x\r\nconnection: close\r\norigin: https://app.example.com\r\naccess-control-request-method: POST";
    write!(stream, "OPTIONS /v1/models HTTP/1.1\r\n{lines}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let line = served.line_with("\"status\":204");
    assert!(line.contains("\"end\":\"complete\""), "{line}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let hang = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder_with(&format!(
        "{SMALL}[providers.x]\npreset = \"openai-compatible\"\nbase_url = \"http://{}\"\n",
        hang.local_addr().unwrap()
    ));
    let mut served = Served::start(folder.path());
    let port = served.port();
    let asking = std::thread::spawn(move || ask(port, r#"{"model":"x/y","messages":[]}"#));
    let _upstream = hang.accept().unwrap();
    served.signal("-INT");
    served.line_with("draining");
    served.signal("-INT");
    assert_eq!(served.exit_code(), 130);
    let _ = asking.join();
}

/// With the example configuration, on ports of its own by the variables that the README names.
#[test]
fn the_requests_of_the_readme_are_answered() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut served = Served::spawn(
        tollgate(root)
            .env("TOLLGATE_LEDGER__STORE", "memory:")
            .env("TOLLGATE_SERVER__LISTEN", "127.0.0.1:0")
            .env("TOLLGATE_ADMIN__LISTEN", "127.0.0.1:0"),
    );
    let port = served.port();
    let bodies: Vec<&str> = readme
        .split("-d '")
        .skip(1)
        .map(|rest| rest.split('\'').next().unwrap())
        .collect();
    assert_eq!(bodies.len(), 3, "{bodies:?}");
    for body in bodies {
        let answer = ask(port, body);
        if body.contains("groq/") {
            assert!(
                answer.contains("503") && answer.contains("GROQ_API_KEY is not set"),
                "{answer}"
            );
        } else {
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{body}: {answer}");
            assert!(
                answer.contains("hello") && answer.contains("there"),
                "{body}: {answer}"
            );
        }
    }
}

#[test]
fn check_warns_of_a_model_that_cannot_be_asked_instead() {
    let folder = folder_with(
        "[server]\nlisten = \"127.0.0.1:0\"\n[providers.groq]\n[providers.echo]\n[models.fast]\ntargets = [\"echo/echo\"]\non_budget = \"off\"\n[models.off]\ntargets = [\"groq/x\", \"groq/y\"]\n",
    );
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!(code, 0, "{err}");
    let want = "models.fast.on_budget: no target of `off` can be asked, so it helps nobody";
    assert!((out + &err).contains(want), "{want}");
}

#[test]
fn check_finds_models_that_are_asked_instead_of_themselves() {
    let folder = folder_with(
        "[providers.echo]\n[models.a]\ntargets = [\"echo/a\"]\non_budget = \"a\"\non_context_overflow = \"lng\"\n[models.b]\ntargets = [\"echo/b\"]\non_context_overflow = \"c\"\non_content_filter = \"a\"\n[models.c]\ntargets = [\"echo/c\"]\non_budget = \"d\"\n[models.d]\ntargets = [\"echo/d\"]\non_content_filter = \"b\"\n[models.long]\ntargets = [\"echo/l\"]\non_budget = \"d\"\n",
    );
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!((code, out.as_str()), (1, ""));
    let lines: Vec<&str> = err.lines().collect();
    let want = [
        "gateway.toml:4: models.a.on_budget: a model cannot be asked instead of itself; name another one",
        "gateway.toml:5: models.a.on_context_overflow: there is no [models.lng]; did you mean `long`?",
        "gateway.toml:8: models.b.on_context_overflow: goes in a circle: b → c → d → b; name a model that does not lead back",
    ];
    assert_eq!(lines, want);
}
