//! What each provider is sent and what its client hears, as folders of bytes: `fixtures/<preset>/<case>/`.
//!
//! `client_request.json` goes in, or `.form`, which is form data; `upstream_request` is what the provider must get,
//! `upstream_response.json`, `.sse`, `.txt` or `.bin`, which is sound, what it says, and `client_response` what the client
//! must hear, each to the byte. `case.toml` may give another `path` than chat completions, another `status` than 200, what
//! the client has `heard` as a status where that differs, what is `dropped` as the client is told it, the `type` of a form,
//! with its boundary, and `http = "1.0"` for a provider that speaks no newer. With
//! `UPDATE=1` in the environment the two that must come out are written anew; read them before you keep them.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use http::Method;

use crate::support::client::{self, Answer};
use crate::support::provider::Received;
use crate::support::{Act, Gateway, Provider, completion, post};
use tollgate::provider::PRESETS;

/// What providers are shown where their preset has a key.
const SECRET: &str = "sk-provider-secret";

/// One folder.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) preset: String,
    pub(crate) name: String,
    /// What the client calls.
    pub(crate) path: String,
    /// What the provider answers with.
    status: u16,
    /// What the client is answered with.
    heard: Option<u16>,
    /// What the client is told was left out.
    dropped: Option<String>,
    /// What the client says that it sends.
    kind: String,
    /// The provider speaks HTTP/1.0: its answer ends where the connection does.
    old: bool,
    folder: PathBuf,
}

/// All folders, in order.
pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all = Vec::new();
    for preset in folders(&root) {
        for folder in folders(&preset) {
            let text = fs::read_to_string(folder.join("case.toml")).unwrap_or_default();
            let told: toml_edit::DocumentMut = text.parse().unwrap();
            let word = |name| told.get(name).map(|word| word.as_str().unwrap().to_owned());
            let status = |name: &str| -> Option<u16> {
                let status = told.get(name)?.as_integer().unwrap();
                Some(status.try_into().unwrap())
            };
            all.push(Case {
                preset: name(&preset),
                name: name(&folder),
                path: word("path").unwrap_or_else(|| "/v1/chat/completions".to_owned()),
                status: status("status").unwrap_or(200),
                heard: status("heard"),
                dropped: word("dropped"),
                kind: word("type").unwrap_or_else(|| "application/json".to_owned()),
                old: word("http").is_some_and(|http| http == "1.0"),
                folder,
            });
        }
    }
    all
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_str().unwrap().to_owned()
}

/// How files end that have what somebody says, and the type that it is of.
const ENDINGS: [(&str, &str); 4] = [
    ("sse", "text/event-stream"),
    ("json", "application/json"),
    ("txt", "text/plain"),
    ("bin", "audio/mpeg"),
];

/// A preset, in its own words.
fn preset(name: &str) -> toml_edit::Item {
    let presets: toml_edit::DocumentMut = PRESETS.parse().unwrap();
    presets
        .get(name)
        .unwrap_or_else(|| panic!("there is no preset `{name}`"))
        .clone()
}

impl Case {
    fn read(&self, file: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join(file)).ok()
    }

    /// How what is sent ends in files.
    fn sent_as(&self) -> &'static str {
        if self.is_form() { "form" } else { "json" }
    }

    fn is_form(&self) -> bool {
        self.kind.starts_with("multipart/form-data")
    }

    /// What the client sends.
    pub(crate) fn request(&self) -> Vec<u8> {
        self.read(&format!("client_request.{}", self.sent_as()))
            .unwrap()
    }

    /// Asks a gateway.
    pub(crate) async fn ask(&self, gateway: SocketAddr) -> Answer {
        let headers = [
            ("authorization", "Bearer sk-ann"),
            ("content-type", &self.kind),
        ];
        let sent = client::send(gateway, Method::POST, &self.path, &headers, self.request());
        client::whole(sent.await).await
    }

    /// The stream the provider sends, if it is one.
    pub(crate) fn stream(&self) -> Option<Vec<u8>> {
        self.read("upstream_response.sse")
    }

    /// What the client hears.
    pub(crate) fn heard(&self) -> Option<Vec<u8>> {
        let files = ENDINGS.map(|(ending, _)| format!("client_response.{ending}"));
        files.iter().find_map(|file| self.read(file))
    }

    /// Whether the client asked to be told the usage of its stream.
    pub(crate) fn asks_for_usage(&self) -> bool {
        if self.is_form() {
            return false;
        }
        let request: Value = serde_json::from_slice(&self.request()).unwrap();
        request["stream_options"]["include_usage"] == true
    }

    /// Whether the provider is asked to tell it all the same, so that its telling must be taken out.
    pub(crate) fn hides_usage(&self) -> bool {
        let told = preset(&self.preset);
        !self.asks_for_usage()
            && self.path.ends_with("/completions")
            && told.get("stream_usage").and_then(toml_edit::Item::as_bool) != Some(false)
    }

    /// The stream goes to its end, and that is no error.
    pub(crate) fn is_complete(&self) -> bool {
        let is_chat = self.path.ends_with("/completions");
        let ends = |stream: String| !is_chat || stream.contains("[DONE]");
        self.stream()
            .is_some_and(|stream| ends(String::from_utf8(stream).unwrap()))
            && !self.has_error()
    }

    pub(crate) fn has_error(&self) -> bool {
        self.name.contains("error")
    }

    /// What the provider does: a stream goes out event by event.
    fn act(&self) -> Option<Act> {
        if self.old {
            let kind = match self.stream() {
                Some(_) => "text/event-stream",
                None => "application/json",
            };
            let head = format!("HTTP/1.0 {} X\r\ncontent-type: {kind}\r\n\r\n", self.status);
            let body = self.stream().or(self.read("upstream_response.json"));
            return Some(Act::Raw([head.into_bytes(), body?].concat()));
        }
        if let Some(stream) = self.stream() {
            return Some(Act::Pieces(Duration::from_millis(1), events(&stream)));
        }
        let said = ENDINGS.into_iter().find_map(|(ending, kind)| {
            Some((self.read(&format!("upstream_response.{ending}"))?, kind))
        });
        let (body, kind) = said?;
        let headers = vec![("content-type", kind.to_owned())];
        Some(Act::Answer(self.status, headers, body))
    }

    /// The very preset, but with our provider behind its address and with a key of ours, where it has one.
    pub(crate) fn provider(&self, provider: &Provider) -> String {
        let Case { preset: name, .. } = self;
        if name == "echo" {
            return "[providers.echo]\n".to_owned();
        }
        let mut text = format!(
            "[providers.{name}]\ntries = 1\nvoices = false\nbase_url = \"http://{}{}\"\n",
            provider.address,
            self.base()
        );
        if preset(name).get("api_key").is_some() {
            let _ = writeln!(text, "api_key = \"{SECRET}\"");
        }
        text
    }

    /// The path of the preset's base URL.
    fn base(&self) -> String {
        let told = preset(&self.preset);
        let url = told.get("base_url").or(told.get("base_url_example"));
        let uri: http::Uri = url.unwrap().as_str().unwrap().parse().unwrap();
        uri.path().trim_end_matches('/').to_owned()
    }

    /// What the provider must be shown: the header and its value.
    fn credential(&self) -> Option<(String, String)> {
        let told = preset(&self.preset);
        told.get("api_key")?;
        Some(match told.get("auth").and_then(toml_edit::Item::as_str) {
            None => ("authorization".to_owned(), format!("Bearer {SECRET}")),
            Some(header) => (header.to_owned(), SECRET.to_owned()),
        })
    }

    /// What holds for every request that a provider gets: where it goes, and what it is shown.
    fn check_head(&self, provider: &Provider, received: &Received) {
        let path = self.path.strip_prefix("/v1").unwrap();
        let line = format!("POST {}{path} HTTP/1.1", self.base());
        assert_eq!(received.line, line);
        let (header, key) = self.credential().unzip();
        let header = header.as_deref().unwrap_or("authorization");
        assert_eq!(received.header(header), key.as_deref(), "{self:?}");
        // The client's host would be refused by some, and a body in chunks not read by others.
        let address = provider.address.to_string();
        assert_eq!(received.header("host"), Some(&*address), "{self:?}");
        let length = received.body.len().to_string();
        assert_eq!(
            received.header("content-length"),
            Some(&*length),
            "{self:?}"
        );
        assert_eq!(received.header("content-type"), Some(&*self.kind));
    }
}

impl Case {
    /// What was explained is what was sent, but for what nobody may see.
    fn check_explained(&self, told: &Value, provider: &Provider, received: &Received) {
        let request = &told["models"][0]["targets"][0]["request"];
        let body = String::from_utf8(received.body.clone()).unwrap();
        // What stands behind a body in its file is no part of it where it is a member.
        assert_eq!(request["body"], body.trim_end(), "{self:?}: {told:#}");
        let path = received.line.split(' ').nth(1).unwrap();
        let url = format!("http://{}{path}", provider.address);
        assert_eq!(request["url"], url, "{self:?}");
        let secret = self.credential().map(|(header, _)| header);
        let by_itself = ["content-length", "x-client-request-id"];
        for (name, value) in &received.headers {
            let told = &request["headers"][name];
            if Some(name) == secret.as_ref() {
                assert_eq!(told, "***", "{self:?}");
            } else if !by_itself.contains(&&**name) {
                assert_eq!(told, value, "{self:?}: {name}");
            }
        }
        assert!(!told.to_string().contains(SECRET), "{self:?}");
        // Whoever changes the client's body as it says has what was sent.
        let mut changed: Value = serde_json::from_slice(&self.request()).unwrap();
        for change in request["changes"].as_array().unwrap() {
            patch(&mut changed, change);
        }
        let sent: Value = serde_json::from_slice(&received.body).unwrap();
        assert_eq!(changed, sent, "{self:?}");
    }
}

/// Applies one change of a JSON Patch.
fn patch(document: &mut Value, change: &Value) {
    let path = change["path"].as_str().unwrap();
    let (parent, name) = path.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent).unwrap() {
        Value::Object(members) if change["op"] == "remove" => drop(members.remove(&name).unwrap()),
        Value::Object(members) => drop(members.insert(name, change["value"].clone())),
        Value::Array(all) => all[name.parse::<usize>().unwrap()] = change["value"].clone(),
        other => panic!("{other} has no {path}"),
    }
}

/// Cuts a stream after each blank line.
pub(crate) fn events(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut events = vec![Vec::new()];
    let mut line_is_empty = true;
    let mut bytes = stream.iter().peekable();
    while let Some(&byte) = bytes.next() {
        let event = events.last_mut().unwrap();
        event.push(byte);
        match byte {
            b'\r' if bytes.peek() == Some(&&b'\n') => {}
            b'\r' | b'\n' if line_is_empty => events.push(Vec::new()),
            b'\r' | b'\n' => line_is_empty = true,
            _ => line_is_empty = false,
        }
    }
    events.retain(|event| !event.is_empty());
    events
}

impl Case {
    /// What holds for everything that a client hears. Gives how files end that have such.
    fn check_heard(&self, answer: &Answer) -> &'static str {
        let kind = answer.header("content-type").unwrap_or_default();
        let mut endings = ENDINGS.into_iter();
        let (ending, _) = endings.find(|(_, known)| kind.starts_with(known)).unwrap();
        for (other, _) in ENDINGS.into_iter().filter(|(other, _)| *other != ending) {
            assert!(
                self.read(&format!("client_response.{other}")).is_none(),
                "{self:?}: it heard {ending}, and there is {other}"
            );
        }
        if ending == "json" {
            serde_json::from_slice::<Value>(&answer.body).unwrap();
        }
        let body = String::from_utf8_lossy(&answer.body);
        let shown = format!("{:?}{body}", answer.headers);
        assert!(!shown.contains(SECRET), "{self:?}: the secret is shown");
        ending
    }
}

/// What would happen to a folder's request.
async fn explain(gateway: &Gateway, case: &Case) -> Value {
    let question = json!({ "endpoint": case.path }).to_string();
    let request = String::from_utf8(case.request()).unwrap();
    let question = format!(r#"{},"body":{request}}}"#, question.trim_end_matches('}'));
    let explained = post(gateway.admin, "/admin/explain", "", question).await;
    assert_eq!(explained.status, 200, "{case:?}: {}", explained.text());
    explained.json()
}

/// Sends a folder's request through the whole gateway and compares what comes out on both sides.
async fn check(case: &Case) -> Result<(), String> {
    let update = std::env::var("UPDATE").is_ok_and(|update| update == "1");
    let provider = Provider::new(case.act()).await;
    let gateway = Gateway::start(&case.provider(&provider)).await;
    let explained = match case.is_form() {
        // Questions are JSON.
        true => None,
        false => Some(explain(&gateway, case).await),
    };
    assert_eq!(provider.count(), 0, "nothing is sent");
    let answer = case.ask(gateway.address).await;
    let mut flaws = String::new();
    let mut compare = |file: &str, got: &[u8]| {
        if update {
            fs::write(case.folder.join(file), got).unwrap();
        }
        match case.read(file) {
            Some(want) if want == got => {}
            Some(want) => {
                let (want, got) = (String::from_utf8_lossy(&want), String::from_utf8_lossy(got));
                let _ = writeln!(flaws, "{file}:\n  want {want:?}\n   got {got:?}");
            }
            None => {
                let _ = writeln!(flaws, "{file} is missing; UPDATE=1 writes it");
            }
        }
    };

    let ending = case.check_heard(&answer);
    let is_stream = ending == "sse";
    compare(&format!("client_response.{ending}"), &answer.body);
    if case.preset == "echo" {
        assert_eq!(case.read("upstream_request.json"), None);
    } else {
        let received = provider.only();
        compare(
            &format!("upstream_request.{}", case.sent_as()),
            &received.body,
        );
        case.check_head(&provider, &received);
        if let Some(explained) = explained {
            case.check_explained(&explained, &provider, &received);
        }
    }
    if answer.header("x-tollgate-dropped") != case.dropped.as_deref() {
        let got = answer.header("x-tollgate-dropped");
        let _ = writeln!(flaws, "dropped: {got:?} instead of {:?}", case.dropped);
    }
    // A stream that fails before there was anything in it has a status of ours.
    let never_began = case.stream().is_some() && !is_stream;
    let ours = if never_began { 502 } else { case.status };
    let status = case.heard.unwrap_or(ours);
    if answer.status != status {
        let _ = writeln!(flaws, "status {} instead of {status}", answer.status);
    }
    if flaws.is_empty() {
        Ok(())
    } else {
        Err(format!("{}/{}\n{flaws}", case.preset, case.name))
    }
}

#[tokio::test]
async fn every_provider_is_sent_and_every_client_hears_what_the_folder_says() {
    let mut flaws = Vec::new();
    for case in cases() {
        flaws.extend(check(&case).await.err());
    }
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
}

#[test]
fn every_preset_has_a_chat_and_a_stream_or_says_that_it_is_unverified() {
    let presets: toml_edit::DocumentMut = PRESETS.parse().unwrap();
    let all = cases();
    for (name, preset) in presets.iter() {
        let of_it: Vec<&Case> = all.iter().filter(|case| case.preset == name).collect();
        let unverified = preset.get("unverified").and_then(toml_edit::Item::as_bool) == Some(true);
        assert_eq!(unverified, of_it.is_empty(), "{name}: unverified and cases");
        let heard = |kind: &str| {
            let answers = |case: &&&Case| {
                case.path.ends_with("/chat/completions")
                    && case.status == 200
                    && case.heard.is_none()
                    && case.folder.join(format!("client_response.{kind}")).exists()
            };
            of_it.iter().filter(answers).count()
        };
        assert!(unverified || heard("json") > 0, "{name} has no chat");
        assert!(unverified || heard("sse") > 0, "{name} has no stream");
    }
    for case in &all {
        assert!(
            presets.contains_key(&case.preset),
            "{case:?} is of no preset"
        );
    }
}

#[tokio::test]
async fn a_limit_of_null_does_not_lift_the_other() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let text = format!(
        "[providers.ollama]\nbase_url = \"http://{}/v1\"\n",
        provider.address
    );
    let gateway = Gateway::start(&text).await;
    let body = r#"{"model":"ollama/a","max_tokens":null,"max_completion_tokens":5,"messages":[]}"#;
    assert_eq!(
        post(gateway.address, "/v1/chat/completions", "", body)
            .await
            .status,
        200
    );
    let sent: Value = serde_json::from_slice(&provider.only().body).unwrap();
    assert_eq!(sent["max_tokens"], 5, "{sent}");
}
