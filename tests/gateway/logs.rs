//! Access lines in a file: each request is one of them, wherever the file goes; and a word of what was said is in it only
//! for a key that is named for that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::cli::{Served, folder_with, run, tollgate};
use crate::disk::is_there;
use crate::support::client::{get, open, post, send, whole};
use crate::support::form::{form, type_of_form};
use crate::support::money::{asks, key, of};
use crate::support::{
    Act, Answer, CHAT, DONE, FINISH, Gateway, Provider, USAGE, chat, chat_stream, completion,
    delta, model, until,
};

const FILE: &str = "access.jsonl";
const WITH_FILE: &str = "access_log = \"access.jsonl\"";

/// What stands in a file, a line of JSON each.
fn lines_of(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "the last is whole");
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().unwrap()
}

/// The line of an answer's request, once it is written.
async fn line_of(gateway: &Gateway, answer: &Answer) -> Value {
    let id = answer.header("x-request-id").unwrap();
    let found = || {
        let mut lines = lines_of(gateway.folder(), FILE).into_iter();
        lines.find(|line| line["id"] == id)
    };
    until("its line is written", || found().is_some()).await;
    found().unwrap()
}

/// A gateway of which ann's text is logged, and bob's is not.
async fn logging(provider: &Provider, size: &str) -> Gateway {
    let text = [
        of("p", provider, ""),
        one(),
        key("ann", &format!("log_bodies = \"{size}\"")),
        key("bob", ""),
    ];
    Gateway::with(WITH_FILE, &text.concat()).await
}

/// The file of a gateway that is a process of its own, with the built-in echo.
fn echo(server: &str, more: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n[providers.echo]\n[models.fast]\ntargets = [\"echo/x\"]\n{more}"
    )
}

/// `[models.fast]` with one target.
fn one() -> String {
    model("fast", &["p/m"], "")
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn names(line: &Value) -> BTreeSet<&str> {
    let fields = line.as_object().unwrap().iter();
    let flat = fields.filter(|(_, it)| !it.is_object() && !it.is_array() && !it.is_null());
    flat.map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn a_file_has_the_lines_that_standard_output_has_else() {
    let mut lines = Vec::new();
    for server in ["log = \"json\"", &format!("log = \"json\"\n{WITH_FILE}")] {
        let keys = key("ann", "log_bodies = \"1KiB\"");
        let folder = folder_with(&echo(server, &keys));
        let mut served = Served::start(folder.path());
        let port = served.port();
        let answer = post(at(port), CHAT, "sk-ann", chat("fast")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let file = folder.path().join(FILE);
        let line = if server.contains("access_log") {
            until("its line is written", || {
                std::fs::metadata(&file).is_ok_and(|it| it.len() > 0)
            })
            .await;
            served.signal("-TERM");
            assert!(!served.rest().contains("chat_completions"), "not twice");
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            lines_of(folder.path(), FILE).remove(0)
        } else {
            serde_json::from_str(&served.line_with("chat_completions")).unwrap()
        };
        assert_eq!(line["id"], *answer.header("x-request-id").unwrap());
        lines.push(line);
    }
    let [out, file] = &mut lines[..] else {
        panic!("two lines")
    };
    assert_eq!(names(out), names(file));
    for (name, value) in [
        ("level", "INFO"),
        ("target", "access"),
        ("api", "chat_completions"),
        ("key", "ann"),
        ("model", "fast"),
        ("to", "echo/x"),
        ("end", "complete"),
    ] {
        assert_eq!(file[name], value, "{name}");
    }
    for (name, value) in [("status", 200), ("tries", 1), ("input", 1), ("output", 1)] {
        assert_eq!(file[name], value, "{name}");
    }
    assert_eq!(file["request"], *chat("fast"));
    assert!(file["answer"].as_str().unwrap().contains("\"hi\""));
    assert!(file["ms"].is_f64());
    // `2026-01-31T23:59:59.123456Z`
    let time = file["timestamp"].as_str().unwrap().to_owned();
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let form: String = time.chars().map(digits).collect();
    assert_eq!(form, "0000-00-00T00:00:00.000000Z", "{time}");
    // All but what is another request's.
    for name in ["timestamp", "id", "ms", "first_content_ms", "answer"] {
        out[name] = Value::Null;
        file[name] = Value::Null;
    }
    assert_eq!(out, file);
}

#[tokio::test]
async fn with_log_off_a_file_has_its_lines_all_the_same() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let text = [of("p", &provider, ""), one(), key("ann", "")].concat();
    let gateway = Gateway::with(WITH_FILE, &text).await;
    let told = asks(&gateway, "ann", chat("fast")).await;
    let line = line_of(&gateway, &told).await;
    assert_eq!((&line["key"], &line["to"]), (&"ann".into(), &"p/m".into()));
    let refused = asks(&gateway, "nobody", chat("fast")).await;
    let line = line_of(&gateway, &refused).await;
    assert_eq!(line["code"], "invalid_api_key");
    assert!(line.get("key").is_none() && line.get("model").is_none());
}

/// The mechanism of logrotate: a file is moved away, and its writer is told.
#[tokio::test]
async fn files_that_are_moved_away_lose_no_line() {
    let server = format!("{WITH_FILE}\ndecision_log = \"decisions.jsonl\"");
    let folder = folder_with(&echo(&server, &key("ann", "log_bodies = \"100B\"")));
    let mut served = Served::start(folder.path());
    let address = at(served.port());
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for n in 0..8 {
        let stop = Arc::clone(&stop);
        load.spawn(async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let body = [chat("fast"), chat_stream("fast")][n % 2].clone();
                let answer = post(address, CHAT, "sk-ann", body).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                ids.push(answer.header("x-request-id").unwrap().to_owned());
            }
            ids
        });
    }
    let moved = |name: &str, turn: usize| format!("{name}.{turn}");
    let kinds = [FILE, "decisions.jsonl"];
    for turn in 0..6 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        for name in kinds {
            let to = folder.path().join(moved(name, turn));
            std::fs::rename(folder.path().join(name), to).unwrap();
        }
        served.signal("-USR1");
        until("both are opened anew", || {
            kinds.iter().all(|name| folder.path().join(name).exists())
        })
        .await;
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
    stop.store(true, Ordering::SeqCst);
    let ids: Vec<String> = load.join_all().await.concat();
    served.signal("-TERM");
    let said = served.rest();
    assert_eq!(
        said.matches("access_log is opened anew").count(),
        6,
        "{said}"
    );
    for name in kinds {
        let mut found = BTreeMap::new();
        for turn in 0..6 {
            let lines = lines_of(folder.path(), &moved(name, turn));
            assert!(!lines.is_empty(), "{name} of turn {turn}");
            for line in lines {
                *found
                    .entry(line["id"].as_str().unwrap().to_owned())
                    .or_insert(0) += 1;
            }
        }
        for line in lines_of(folder.path(), name) {
            *found
                .entry(line["id"].as_str().unwrap().to_owned())
                .or_insert(0) += 1;
        }
        assert_eq!(found.len(), ids.len(), "{name}");
        assert!(ids.iter().all(|id| found.get(id) == Some(&1)), "{name}");
    }
    assert!(ids.len() > 100, "{}", ids.len());
}

/// As it stands in the documentation, but for where the files are and how the gateway is found.
#[tokio::test]
async fn logrotate_does_with_the_example() {
    let page = std::fs::read_to_string("docs/operations.md").unwrap();
    let block = page.split("```\n").find(|it| it.starts_with("/var/log"));
    let telling = "systemctl kill --kill-whom=main --signal=USR1 tollgate.service";
    assert!(block.unwrap().contains(telling));
    if !is_there("logrotate") {
        return;
    }
    let folder = folder_with(&echo(&format!("{WITH_FILE}\naccess_log_size = \"0B\""), ""));
    let mut served = Served::start(folder.path());
    let (address, at) = (at(served.port()), folder.path().display().to_string());
    let text = block.unwrap().replace("/var/log/tollgate", &at);
    let text = text.replace(telling, &format!("kill -USR1 {}", served.id()));
    let rules = folder.path().join("rules");
    std::fs::write(&rules, text).unwrap();
    std::fs::set_permissions(&rules, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        for _ in 0..10 {
            let answer = post(address, CHAT, "none", chat("fast")).await;
            ids.push(answer.header("x-request-id").unwrap().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let rotated = Command::new("logrotate")
            .args(["--force", "--state", "state", "rules"])
            .current_dir(&at)
            .output()
            .unwrap();
        assert!(rotated.status.success(), "{rotated:?}");
        until("it is opened anew", || folder.path().join(FILE).exists()).await;
    }
    served.signal("-TERM");
    served.rest();
    let packed = folder.path().join(format!("{FILE}.3.gz"));
    let unpacked = Command::new("gzip")
        .arg("-d")
        .args([&packed, &folder.path().join(format!("{FILE}.2.gz"))])
        .status();
    assert!(unpacked.unwrap().success());
    let all = ["3", "2", "1"].map(|n| lines_of(folder.path(), &format!("{FILE}.{n}")));
    let all: Vec<Value> = all.concat();
    let all: Vec<&str> = all
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(all, ids);
}

#[tokio::test]
async fn who_has_no_file_takes_the_signal_as_well() {
    let folder = folder_with(&echo("log = \"text\"", ""));
    let mut served = Served::start(folder.path());
    let port = served.port();
    for _ in 0..3 {
        served.signal("-USR1");
    }
    let answer = post(at(port), CHAT, "none", chat("fast")).await;
    assert_eq!(answer.status, 200);
    served.signal("-TERM");
    served.line_with("draining");
    assert_eq!(served.exit_code(), 0);
}

/// While the last answers go out, too.
#[tokio::test]
async fn a_file_can_be_moved_away_from_a_gateway_that_ends() {
    let (tell, told) = tokio::sync::watch::channel(());
    let rest = vec![FINISH.into(), DONE.into()];
    let provider = Provider::new([Act::Gated(vec![delta("a")], told, rest)]).await;
    let text = [
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n{WITH_FILE}\n[admin]\nlisten = \"127.0.0.1:0\"\n"
        ),
        of("p", &provider, "").replace("env:SOME_KEY", "sk-p"),
        one(),
        key("ann", ""),
    ];
    let folder = folder_with(&text.concat());
    let mut served = Served::start(folder.path());
    let mut coming = open(at(served.port()), CHAT, "sk-ann", chat_stream("fast")).await;
    coming.piece().await.unwrap().unwrap();
    served.signal("-TERM");
    served.line_with("draining");
    std::fs::rename(folder.path().join(FILE), folder.path().join("moved")).unwrap();
    served.signal("-USR1");
    served.line_with("access_log is opened anew");
    tell.send_replace(());
    assert!(coming.rest().await.1);
    assert_eq!(served.exit_code(), 0);
    assert_eq!(lines_of(folder.path(), FILE).len(), 1);
    assert_eq!(lines_of(folder.path(), "moved").len(), 0);
}

#[tokio::test]
async fn it_becomes_the_older_one_when_it_is_long() {
    let server = format!("{WITH_FILE}\naccess_log_size = \"2KiB\"");
    let folder = folder_with(&echo(&server, ""));
    let mut served = Served::start(folder.path());
    let address = at(served.port());
    let mut ids = Vec::new();
    for _ in 0..30 {
        let answer = post(address, CHAT, "none", chat("fast")).await;
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    served.signal("-TERM");
    assert_eq!(served.exit_code(), 0);
    let older = format!("{FILE}.1");
    for name in [FILE, &older] {
        let length = std::fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(length <= 2 << 10, "{name} has {length} bytes");
    }
    let mut kept = lines_of(folder.path(), &older);
    kept.extend(lines_of(folder.path(), FILE));
    let kept: Vec<String> = kept
        .iter()
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(kept.len() > 4 && ids.ends_with(&kept), "the last of them");
}

#[tokio::test]
async fn a_disk_that_is_full_is_in_nobodys_way() {
    let folder = folder_with(&echo("access_log = \"/dev/full\"", ""));
    let mut served = Served::start(folder.path());
    let (port, admin) = (served.port(), served.admin());
    for _ in 0..20 {
        let answer = post(at(port), CHAT, "none", chat("fast")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut lost = String::new();
    for _ in 0..500 {
        let metrics = get(at(admin), "/metrics", "none").await.text();
        let mut lines = metrics.lines();
        let found = lines.find_map(|it| it.strip_prefix("tollgate_access_lines_lost_total "));
        lost = found.unwrap().to_owned();
        if lost == "20" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lost, "20");
    served.signal("-TERM");
    let said = served.rest();
    assert_eq!(
        said.matches("access_log cannot be written").count(),
        1,
        "{said}"
    );
}

#[test]
fn a_file_that_cannot_be_opened_is_told_at_the_start() {
    for (server, why) in [
        (
            "access_log = \"nowhere/access.jsonl\"",
            "[server] access_log: nowhere/access.jsonl: No such file or directory (os error 2)\n",
        ),
        (
            "access_log = \".\"",
            "[server] access_log: .: Is a directory (os error 21)\n",
        ),
        (
            "access_log = \"a\"\ndecision_log = \"a\"",
            "gateway.toml:3: server.access_log: is the file of `decision_log`: each needs one of its own\n",
        ),
        (
            "access_log_size = \"big\"",
            "gateway.toml:3: server.access_log_size: `big` is not a size; write \"512KiB\", \"32MiB\" or \"1GiB\"\n",
        ),
    ] {
        let folder = folder_with(&echo(server, ""));
        let (code, _, err) = run(folder.path(), &["serve"]);
        assert_eq!((code, err.as_str()), (1, why));
    }
}

#[test]
fn text_is_logged_of_keys_by_their_names_only() {
    let elsewhere =
        "`log_bodies` is for one key by its name, under [keys.NAME]: nobody else's text is logged";
    let wrong = "must be from \"1B\" to \"1MiB\"";
    for (more, at, why) in [
        ("[defaults]\nlog_bodies = \"1KiB\"\n", "defaults", elsewhere),
        ("[teams.a]\nlog_bodies = \"1KiB\"\n", "teams.a", elsewhere),
        (&*key("ann", "log_bodies = \"0B\""), "keys.ann", wrong),
        (&*key("ann", "log_bodies = \"2MiB\""), "keys.ann", wrong),
    ] {
        let folder = folder_with(&echo("", more));
        let (code, _, err) = run(folder.path(), &["check"]);
        assert!(
            code == 1 && err.contains(&format!(": {at}.log_bodies: {why}\n")),
            "{err}"
        );
    }
    let named = [
        key("ann", "log_bodies = \"16KiB\""),
        key("bob", ""),
        key("cy", "log_bodies = \"1B\""),
    ];
    let said =
        "keys.ann.log_bodies: what it asks and is answered is logged, up to 16384 bytes of each";
    let folder = folder_with(&echo("log = \"text\"", &named.concat()));
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains(said) && out.contains("keys.cy.") && !out.contains("keys.bob"),
        "{out}"
    );
    assert!(
        Served::start(folder.path())
            .line_with("log_bodies")
            .contains(said)
    );
    let folder = folder_with(&echo("log = \"off\"", &named.concat()));
    let (_, out, _) = run(folder.path(), &["check"]);
    assert!(
        out.contains("keys.ann.log_bodies: nothing is logged, for `log` is \"off\""),
        "{out}"
    );
    let many: String = (0..30)
        .map(|n| key(&format!("k{n}"), "log_bodies = \"1B\""))
        .collect();
    let (_, out, _) = run(folder_with(&echo("", &many)).path(), &["check"]);
    assert_eq!(out.matches("is logged, up to").count(), 20);
    assert!(out.contains("keys: and `log_bodies` of 10 more"), "{out}");
}

#[tokio::test]
async fn a_key_that_is_made_has_none_of_its_text_logged() {
    let gateway = Gateway::with(WITH_FILE, "token = \"right\"\n[providers.echo]\n").await;
    let headers = [("authorization", "Bearer right")];
    let body = r#"{"name":"made","log_bodies":"1KiB"}"#;
    let told = send(gateway.admin, Method::POST, "/admin/keys", &headers, body).await;
    let told = whole(told).await;
    assert_eq!(told.status, 400);
    assert!(
        told.text()
            .contains("a key that is made has no `log_bodies`"),
        "{}",
        told.text()
    );
}

const MARKER: &str = "a word that nobody should read";

/// Everything that a process wrote, and every file beside it.
fn all_of(served: Served, folder: &Path) -> String {
    served.signal("-TERM");
    let mut all = served.rest();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if !path.ends_with("gateway.toml") {
            all += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn no_word_is_written_anywhere_unless_somebody_wants_it() {
    for (more, times) in [("", 0), ("log_bodies = \"16KiB\"", 3)] {
        let keys = [key("ann", more), key("bob", "")].concat();
        for (log, file) in [("json", WITH_FILE), ("json", ""), ("text", "")] {
            let decisions = "decision_log = \"decisions.jsonl\"";
            let server = format!("log = \"{log}\"\n{file}\n{decisions}");
            let folder = folder_with(&echo(&server, &keys));
            let mut served = Served::spawn(tollgate(folder.path()).env("RUST_LOG", "trace"));
            let address = at(served.port());
            for name in ["ann", "bob"] {
                let secret = format!("sk-{name}");
                for body in [chat("fast"), chat_stream("fast"), chat("none")] {
                    let body = body.replace("hi", MARKER);
                    let answer = post(address, CHAT, &secret, body).await;
                    assert!([200, 404].contains(&answer.status.as_u16()));
                }
                let unread = send(
                    address,
                    Method::POST,
                    CHAT,
                    &[("authorization", "Bearer no")],
                    MARKER,
                );
                assert_eq!(whole(unread.await).await.status, 401);
            }
            let all = all_of(served, folder.path());
            assert!(all.contains("\"asked\":\"fast\"") && all.contains("chat_completions"));
            let lines: Vec<&str> = all.lines().filter(|line| line.contains(MARKER)).collect();
            assert_eq!(lines.len(), times, "{log} {file}: {lines:#?}");
            let is_anns = |line: &&str| line.contains("ann") && !line.contains("bob");
            assert!(lines.iter().all(is_anns), "{lines:#?}");
            assert!(
                !all.contains("sk-ann") && !all.contains("sk-bob"),
                "no key is written"
            );
        }
    }
}

#[tokio::test]
async fn the_text_is_that_which_was_asked_and_answered() {
    let events = [
        delta("é"),
        delta("b"),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ];
    let provider = Provider::new([
        Act::json(completion("one")),
        Act::events(events.clone()),
        Act::status(400, r#"{"error":{"message":"not so"}}"#),
    ])
    .await;
    let gateway = logging(&provider, "16KiB").await;
    for body in [
        chat("fast"),
        chat_stream("fast"),
        chat("fast"),
        chat("none"),
    ] {
        let told = asks(&gateway, "ann", body.clone()).await;
        let line = line_of(&gateway, &told).await;
        assert_eq!(line["request"], *body);
        assert_eq!(line["answer"], *told.text());
        assert_eq!(line["status"], told.status.as_u16());
        for name in ["request_cut", "answer_cut", "request_type", "answer_type"] {
            assert!(line.get(name).is_none(), "{name} in {line}");
        }
        assert!(
            !line.to_string().contains("sk-"),
            "no key, no secret: {line}"
        );
        assert!(!line.to_string().contains("authorization"));
    }
    // What has no body has an answer all the same.
    let told = get(gateway.address, "/v1/models", "sk-ann").await;
    let line = line_of(&gateway, &told).await;
    assert_eq!(line["answer"], *told.text());
    assert!(line.get("request").is_none());
    let told = asks(&gateway, "bob", chat("fast")).await;
    let line = line_of(&gateway, &told).await;
    assert!(line.get("request").is_none() && line.get("answer").is_none());
    assert_eq!(gateway.metric("tollgate_access_texts_lost_total"), 0.0);
}

#[tokio::test]
async fn a_text_ends_at_the_limit_and_never_within_a_character() {
    let answer = completion(&"é".repeat(400));
    let events: Vec<String> = (0..200).map(|_| delta("😀")).collect();
    let events = [events, vec![FINISH.into(), DONE.into()]].concat();
    for size in [100, 101, 102, 103] {
        let provider =
            Provider::new([Act::json(answer.clone()), Act::events(events.clone())]).await;
        let gateway = logging(&provider, &format!("{size}B")).await;
        for body in [chat("fast"), chat_stream("fast")] {
            let body = body.replace("hi", &"é😀".repeat(300));
            let told = asks(&gateway, "ann", body.clone()).await;
            let line = line_of(&gateway, &told).await;
            let sent = told.text();
            for (name, whole) in [("request", &body), ("answer", &sent)] {
                let text = line[name].as_str().unwrap();
                assert!(
                    whole.starts_with(text) && !text.contains('\u{fffd}'),
                    "{text}"
                );
                assert!((size - 3..=size).contains(&text.len()), "{}", text.len());
                assert_eq!(line[format!("{name}_cut")], true);
            }
            assert_eq!(line["bytes_out"], sent.len());
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_logged_as_far_as_it_went() {
    let provider = Provider::new([
        Act::Cut(vec![delta("a"), delta("b")]),
        Act::Stall(vec![delta("a")]),
    ])
    .await;
    let gateway = logging(&provider, "16KiB").await;
    let told = asks(&gateway, "ann", chat_stream("fast")).await;
    let line = line_of(&gateway, &told).await;
    assert_eq!(line["end"], "truncated");
    let text = line["answer"].as_str().unwrap();
    assert_eq!(text, told.text());
    assert!(
        text.contains("\"b\"") && text.contains("\"error\""),
        "{text}"
    );
    // Its client leaves.
    let mut coming = open(gateway.address, CHAT, "sk-ann", chat_stream("fast")).await;
    let id = coming.headers["x-request-id"].to_str().unwrap().to_owned();
    let piece = coming.piece().await.unwrap().unwrap();
    drop(coming);
    let found = || {
        let mut lines = lines_of(gateway.folder(), FILE).into_iter();
        lines.find(|line| line["id"] == *id)
    };
    until("it is told", || found().is_some()).await;
    let line = found().unwrap();
    assert_eq!(line["end"], "client_gone");
    assert_eq!(line["answer"], *String::from_utf8_lossy(&piece));
}

#[tokio::test]
async fn what_is_no_text_is_not_logged_but_what_it_is() {
    let sound = Act::json("SOUNDBYTES").with("content-type", "audio/mpeg");
    let heard = Act::json(r#"{"text":"heard"}"#);
    let provider = Provider::new([sound, heard]).await;
    let gateway = logging(&provider, "16KiB").await;
    let speech = r#"{"model":"fast","input":"say it","voice":"v"}"#;
    let told = post(gateway.address, "/v1/audio/speech", "sk-ann", speech).await;
    assert_eq!(told.text(), "SOUNDBYTES");
    let line = line_of(&gateway, &told).await;
    assert_eq!(
        (&line["request"], &line["answer_type"]),
        (&speech.into(), &"audio/mpeg".into())
    );
    assert!(line.get("answer").is_none() && line.get("answer_cut").is_none());
    assert_eq!(line["bytes_out"], 10);
    let kind = type_of_form();
    let headers = [("authorization", "Bearer sk-ann"), ("content-type", &*kind)];
    let upload = form(
        b"UPLOADED",
        &[("model", "fast"), ("prompt", "a secret prompt")],
    );
    let path = "/v1/audio/transcriptions";
    let told = send(
        gateway.address,
        Method::POST,
        path,
        &headers,
        upload.clone(),
    )
    .await;
    let told = whole(told).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let line = line_of(&gateway, &told).await;
    assert_eq!(line["request_type"], "multipart/form-data");
    assert_eq!(line["bytes_in"], upload.len());
    assert_eq!(line["answer"], r#"{"text":"heard"}"#);
    let text = std::fs::read_to_string(gateway.folder().join(FILE)).unwrap();
    assert!(!text.contains("UPLOADED") && !text.contains("SOUNDBYTES"));
}

#[tokio::test]
async fn who_gets_a_twins_answer_has_it_in_its_own_line() {
    let events = [delta("a"), FINISH.into(), USAGE.into(), DONE.into()];
    let provider = Provider::new([Act::events(events)]).await;
    let gateway = logging(&provider, "16KiB").await;
    let headers = [
        ("authorization", "Bearer sk-ann"),
        ("idempotency-key", "one"),
    ];
    for replayed in [None, Some("true")] {
        let body = chat_stream("fast");
        let told = send(gateway.address, Method::POST, CHAT, &headers, body.clone());
        let told = whole(told.await).await;
        assert_eq!(told.header("x-tollgate-replayed"), replayed);
        let line = line_of(&gateway, &told).await;
        assert_eq!(line["request"], *body);
        assert_eq!(line["answer"], *told.text());
    }
}

#[tokio::test]
async fn a_reload_begins_and_ends_it() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let text = |more: &str| [of("p", &provider, ""), one(), key("ann", more)].concat();
    let gateway = Gateway::with(WITH_FILE, &text("")).await;
    for (more, is_logged) in [
        ("", false),
        ("log_bodies = \"16KiB\"", true),
        ("log_bodies = \"1B\"", true),
        ("", false),
    ] {
        gateway.apply(&text(more)).unwrap();
        let told = asks(&gateway, "ann", chat("fast")).await;
        let line = line_of(&gateway, &told).await;
        assert_eq!(line.get("request").is_some(), is_logged, "{more}: {line}");
        assert_eq!(line.get("answer").is_some(), is_logged);
        assert_eq!(line.get("answer_cut").is_some(), more.contains("1B"));
    }
}

#[tokio::test]
async fn a_reload_says_whose_text_is_logged_and_that_another_file_takes_a_restart() {
    let server = |more: &str| format!("watch = false\n{more}");
    let token = |text: &str| text.replacen("[admin]\n", "[admin]\ntoken = \"right\"\n", 1);
    let before = echo(&server(WITH_FILE), &key("ann", ""));
    let gateway = Gateway::of_file(folder_with(&token(&before))).await;
    let after = echo(
        &server("access_log = \"other.jsonl\"\naccess_log_size = \"1MiB\""),
        &key("ann", "log_bodies = \"1KiB\""),
    );
    std::fs::write(gateway.folder().join("gateway.toml"), token(&after)).unwrap();
    let headers = [("authorization", "Bearer right")];
    let told = send(gateway.admin, Method::POST, "/admin/reload", &headers, "").await;
    let told = whole(told).await.json();
    let warnings = told["warnings"].to_string();
    assert!(
        warnings.contains("keys.ann.log_bodies: what it asks"),
        "{told}"
    );
    let restart = told["needs_restart"].to_string();
    assert!(
        restart.contains("server.access_log: ") && restart.contains("server.access_log_size"),
        "{told}"
    );
    let told = asks(&gateway, "ann", chat("fast")).await;
    assert_eq!(line_of(&gateway, &told).await["request"], *chat("fast"));
    assert!(!gateway.folder().join("other.jsonl").exists());
}
