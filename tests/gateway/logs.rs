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

use serde_json::Value;
use tokio::task::JoinSet;

use crate::cli::{Served, folder_with, run};
use crate::disk::is_there;
use crate::support::client::{get, open, post};
use crate::support::money::{asks, key, of};
use crate::support::{
    Act, Answer, CHAT, DONE, FINISH, Gateway, Provider, chat, chat_stream, completion, delta,
    model, until,
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
        let keys = key("ann", "");
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
    assert!(file["ms"].is_f64());
    // `2026-01-31T23:59:59.123456Z`
    let time = file["timestamp"].as_str().unwrap().to_owned();
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let form: String = time.chars().map(digits).collect();
    assert_eq!(form, "0000-00-00T00:00:00.000000Z", "{time}");
    // All but what is another request's.
    for name in ["timestamp", "id", "ms", "first_content_ms"] {
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
    let folder = folder_with(&echo(&server, &key("ann", "")));
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
