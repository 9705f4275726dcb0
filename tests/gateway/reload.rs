//! Another configuration under load: each request sees one plan, nothing under way is lost, counters go on.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::cli::{Served, folder_with, tollgate};
use crate::path::one;
use crate::support::{
    Act, Answer, CHAT, DONE, FINISH, Gateway, Provider, ask, chat, chat_stream, client, completion,
    delta, model, post, provider_at, until,
};

#[tokio::test]
async fn a_reload_under_load_loses_nothing() {
    let (a, b) = (
        Provider::new([Act::json(completion("a"))]).await,
        Provider::new([Act::json(completion("b"))]).await,
    );
    let gateway = Arc::new(Gateway::start(&one(&a)).await);
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (gateway, stop, answered) = (
            Arc::clone(&gateway),
            Arc::clone(&stop),
            Arc::clone(&answered),
        );
        load.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let answer = ask(&gateway, chat("fast")).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for turn in 0..20 {
        let plan = if turn % 2 == 0 { one(&b) } else { one(&a) };
        gateway.apply(&plan).unwrap();
        let before = answered.load(Ordering::SeqCst);
        until("the load goes on", || {
            answered.load(Ordering::SeqCst) > before + 8
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    assert!(a.count() > 0 && b.count() > 0, "both were asked");
    let all = answered.load(Ordering::SeqCst);
    assert_eq!(
        a.count() + b.count(),
        all,
        "each was answered by one of them, once"
    );
    let line =
        r#"tollgate_requests_total{api="chat_completions",key="ann",model="fast",status="200"}"#;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let all = all as f64;
    until("all are counted, over all plans", || {
        gateway.metric(line) == all
    })
    .await;
    assert_eq!(
        gateway.metric(r#"tollgate_reloads_total{outcome="applied"}"#),
        20.0
    );
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn a_stream_under_way_keeps_its_plan() {
    let provider = Provider::new([Act::events(
        (0..100)
            .map(|n| delta(&n.to_string()))
            .chain([FINISH.into(), DONE.into()]),
    )])
    .await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut coming = client::open(
        gateway.address,
        "/v1/chat/completions",
        "sk-ann",
        chat_stream("fast"),
    )
    .await;
    coming.piece().await.unwrap().unwrap();
    gateway.apply("[providers.echo]\n[models.other]\ntargets = [\"echo/x\"]\n[keys.bob]\nkey = \"sk-bob\"\n").unwrap();
    assert_eq!(gateway.in_flight(), 1, "it is still under way");
    let (rest, complete) = coming.rest().await;
    assert!(complete && String::from_utf8_lossy(&rest).ends_with(DONE));
    let refused = ask(&gateway, chat("fast")).await;
    assert_eq!(
        refused.code(),
        "invalid_api_key",
        "the new plan is in force"
    );
    assert_eq!(
        post(
            gateway.address,
            "/v1/chat/completions",
            "sk-bob",
            chat("other")
        )
        .await
        .status,
        200
    );
}

#[tokio::test]
async fn a_flawed_configuration_changes_nothing() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    for flawed in [
        "[models.x]\ntargets = [\"nobody/x\"]\n",
        "nonsense",
        "[keys.x]\nkey = \"env:UNSET\"\n",
    ] {
        assert!(gateway.apply(flawed).is_err(), "{flawed}");
        let answer = ask(&gateway, chat("fast")).await;
        assert_eq!(answer.status, 200);
    }
    // The second never got as far as a plan.
    assert_eq!(
        gateway.metric(r#"tollgate_reloads_total{outcome="refused"}"#),
        2.0
    );
}

/// A whole file: where it listens, the operators' token, and what else there is.
fn file(server: &str, text: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nlog = \"off\"\n{server}[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"right\"\n{text}"
    )
}

/// The built-in echo under a name, for whoever shows a key.
fn echo(model: &str, key: &str) -> String {
    format!(
        "[providers.echo]\n[models.{model}]\ntargets = [\"echo/x\"]\n[keys.ann]\nkey = \"{key}\"\n"
    )
}

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("gateway.toml"), text).unwrap();
}

/// Has the configuration read again, with the token `right`.
pub async fn reload(admin: SocketAddr) -> Answer {
    let token = [("authorization", "Bearer right")];
    client::whole(client::send(admin, Method::POST, "/admin/reload", &token, "").await).await
}

async fn status(address: SocketAddr, key: &str, model: &str) -> u16 {
    post(address, CHAT, key, chat(model)).await.status.as_u16()
}

/// Waits until a model is there, or no longer.
async fn comes_to(address: SocketAddr, key: &str, model: &str, wanted: u16) {
    let began = Instant::now();
    loop {
        let status = status(address, key, model).await;
        if status == wanted {
            return;
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(20), "{model} still {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn reloads(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("tollgate_reloads_total{{outcome=\"{outcome}\"}}"))
}

#[tokio::test]
async fn what_is_written_into_the_file_comes_into_force() {
    let folder = folder_with(&file("", &echo("fast", "sk-ann")));
    let gateway = Gateway::of_file(folder).await;
    assert_eq!(status(gateway.address, "sk-ann", "fast").await, 200);
    write(gateway.folder(), &file("", &echo("slow", "sk-ann")));
    comes_to(gateway.address, "sk-ann", "slow", 200).await;
    assert_eq!(status(gateway.address, "sk-ann", "fast").await, 404);
    // A flaw is told once, and changes nothing.
    write(gateway.folder(), "[models]\nx = 1\n");
    until("it was refused", || reloads(&gateway, "refused") == 1.0).await;
    assert_eq!(status(gateway.address, "sk-ann", "slow").await, 200);
    // Nor does a file that is gone; and it may come back.
    std::fs::remove_file(gateway.folder().join("gateway.toml")).unwrap();
    until("it was missed", || reloads(&gateway, "refused") == 2.0).await;
    assert_eq!(status(gateway.address, "sk-ann", "slow").await, 200);
    write(gateway.folder(), &file("", &echo("fast", "sk-ann")));
    comes_to(gateway.address, "sk-ann", "fast", 200).await;
    assert_eq!(reloads(&gateway, "refused"), 2.0);
    assert_eq!(reloads(&gateway, "applied"), 2.0);
}

/// A reload every tenth of a second under full load, for a few seconds; `RELOAD_SECONDS=60` makes it a minute.
#[tokio::test]
async fn reloads_one_after_another_lose_nothing_and_err_nothing() {
    let seconds = std::env::var("RELOAD_SECONDS").map_or(3, |text| text.parse().unwrap());
    let answer = Act::json(completion("x"));
    let stream = Act::events([delta("a"), delta("b"), FINISH.into(), DONE.into()]);
    let (whole, streams) = (Provider::new([answer]).await, Provider::new([stream]).await);
    let version = |n: usize| {
        let budget = format!("budget = {{ usd = {}, per = \"month\" }}\n", 1000 + n);
        let both = [
            provider_at("whole", whole.address, "free = true"),
            provider_at("streams", streams.address, "free = true"),
            model("fast", &["whole/x"], ""),
            model("slow", &["streams/x"], ""),
            model(&format!("new-{n}"), &["whole/x"], ""),
            format!(
                "[keys.ann]\nkey = \"sk-ann\"\nlimits = {{ concurrency = {} }}\n{budget}",
                100 + n
            ),
        ];
        file("watch = false\n", &both.concat())
    };
    let gateway = Arc::new(Gateway::of_file(folder_with(&version(0))).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (gateway, stop) = (Arc::clone(&gateway), Arc::clone(&stop));
        load.spawn(async move {
            let mut answered = 0;
            while !stop.load(Ordering::SeqCst) {
                let body = if n % 2 == 0 {
                    chat("fast")
                } else {
                    chat_stream("slow")
                };
                let answer = ask(&gateway, body).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(n % 2 == 0 || answer.text().ends_with(DONE));
                answered += 1;
            }
            answered
        });
    }
    let (began, mut reloads) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        reloads += 1;
        write(gateway.folder(), &version(reloads));
        let told = reload(gateway.admin).await;
        assert_eq!(told.status, 200, "{}", told.text());
        let model = format!("new-{reloads}");
        assert_eq!(status(gateway.address, "sk-ann", &model).await, 200);
        let next = Duration::from_millis(100) * u32::try_from(reloads).unwrap();
        tokio::time::sleep(next.saturating_sub(began.elapsed())).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut answered = reloads;
    while let Some(ended) = load.join_next().await {
        answered += ended.unwrap();
    }
    println!("{answered} answers, {reloads} reloads");
    assert_eq!(
        whole.count() + streams.count(),
        answered,
        "each went up once"
    );
    assert_eq!(gateway.in_flight(), 0);
    let entries = "SELECT count(*) FROM entry";
    let entered = gateway.ledger().query_row(entries, [], |row| row.get(0));
    let entered = usize::try_from(entered.unwrap_or(-1_i64)).unwrap();
    assert_eq!(entered, answered, "each is in the books once");
}

/// As Kubernetes mounts a `ConfigMap`, and a `Secret` beside it: two links, of which the first is swapped.
#[tokio::test]
async fn links_that_are_swapped_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let at = |name: &str| root.join(name);
    let put = |version: &str, model: &str, key: &str| {
        std::fs::create_dir(at(version)).unwrap();
        let text = file("", &echo(model, "file:secret"));
        std::fs::write(at(version).join("gateway.toml"), text).unwrap();
        std::fs::write(at(version).join("secret"), key).unwrap();
        std::os::unix::fs::symlink(version, at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
    };
    put("..1", "fast", "sk-ann");
    for name in ["gateway.toml", "secret"] {
        std::os::unix::fs::symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    let gateway = Gateway::of_file(folder).await;
    assert_eq!(status(gateway.address, "sk-ann", "fast").await, 200);
    put("..2", "slow", "sk-ann");
    comes_to(gateway.address, "sk-ann", "slow", 200).await;
    // Only the secret.
    put("..3", "slow", "sk-new");
    comes_to(gateway.address, "sk-new", "slow", 200).await;
    assert_eq!(status(gateway.address, "sk-ann", "slow").await, 401);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_read() {
    let folder = folder_with(&file("", &echo("fast", "sk-ann")));
    let gateway = Gateway::of_file(folder).await;
    let began = Instant::now();
    let mut writes = 0;
    // Longer than it takes to look twice.
    while began.elapsed() < Duration::from_secs(3) {
        writes += 1;
        write(gateway.folder(), &format!("[models.half-{writes}"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    write(gateway.folder(), &file("", &echo("slow", "sk-ann")));
    comes_to(gateway.address, "sk-ann", "slow", 200).await;
    assert_eq!(reloads(&gateway, "refused"), 0.0, "a half was read");
}

#[tokio::test]
async fn who_does_not_want_it_watched_asks() {
    let with = |model: &str, key: &str| file("watch = false\n", &echo(model, key));
    let gateway = Gateway::of_file(folder_with(&with("fast", "sk-ann"))).await;
    let changed = [
        "[models.fast]\ntargets = [\"echo/y\"]\n",
        &with("slow", "sk-secret"),
    ]
    .concat();
    write(gateway.folder(), &changed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(status(gateway.address, "sk-ann", "slow").await, 404);
    let told = reload(gateway.admin).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let want = json!({
        "changes": [
            "keys.ann.key: (hidden) -> (hidden)",
            r#"models.fast.targets: ["echo/x"] -> ["echo/y"]"#,
            "models.slow: added",
        ],
        "files": [],
        "needs_restart": [],
        "warnings": [],
    });
    assert_eq!(told.json(), want);
    assert_eq!(status(gateway.address, "sk-secret", "slow").await, 200);
    // To ask again finds nothing, and says so; and what takes a restart is told.
    let ledger = "[ledger]\nkeep = \"10d\"\n";
    write(gateway.folder(), &[ledger, &changed].concat());
    let told = reload(gateway.admin).await.json();
    assert_eq!(told["changes"], json!([]));
    assert_eq!(
        told["needs_restart"],
        json!([r#"ledger.keep: added: "10d""#])
    );
}

#[tokio::test]
async fn a_flaw_is_told_and_changes_nothing() {
    let folder = folder_with(&file("", &echo("fast", "sk-ann")));
    let gateway = Gateway::of_file(folder).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let both = format!("[\"127.0.0.1:0\", \"{taken}\"]");
    let elsewhere = file("", &echo("slow", "sk-ann")).replacen("\"127.0.0.1:0\"", &both, 1);
    for (flawed, why) in [
        (
            file("", &echo("slow", "env:UNSET")),
            "gateway.toml:11: keys.ann.key: UNSET is not set",
        ),
        (
            file("lisen = 1\n", &echo("slow", "sk-ann")),
            "gateway.toml:4: server.lisen: `lisen` is unknown; did you mean `listen`?",
        ),
        (
            elsewhere,
            "gateway.toml:2: server.listen: cannot listen on 127.0.0.1:",
        ),
        ("[models".to_owned(), "gateway.toml:1: "),
    ] {
        let refused = reloads(&gateway, "refused");
        write(gateway.folder(), &flawed);
        let told = reload(gateway.admin).await;
        assert_eq!(told.status, 422, "{}", told.text());
        assert_eq!(told.code(), "invalid_configuration");
        let message = told.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("nothing was changed: "), "{message}");
        assert!(message.contains(why), "{message}");
        assert_eq!(status(gateway.address, "sk-ann", "fast").await, 200);
        assert_eq!(reloads(&gateway, "refused"), refused + 1.0);
    }
    assert_eq!(reloads(&gateway, "applied"), 0.0);
}

/// As long as nobody writes them: a list of keys that a program made.
#[tokio::test]
async fn five_megabytes_are_read_as_less_is() {
    let key = |n| {
        format!(
            "[keys.a-key-with-a-rather-long-name-{n}]\nkey = \"sk-with-a-rather-long-secret-of-its-own-{n}\"\n"
        )
    };
    let keys: Vec<String> = (0..60_000).map(key).collect();
    let keys = keys.concat();
    let text = file("watch = false\n", &(echo("fast", "sk-ann") + &keys));
    assert!(text.len() > 5 << 20, "{}", text.len());
    let gateway = Gateway::of_file(folder_with(&file("", &echo("fast", "sk-ann")))).await;
    write(gateway.folder(), &text);
    let told = reload(gateway.admin).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let last = "sk-with-a-rather-long-secret-of-its-own-59999";
    assert_eq!(status(gateway.address, last, "fast").await, 200);
    // A flaw at its end is found, and named by its line.
    let lines = text.lines().count();
    write(gateway.folder(), &(text + "[keys.last]\nkey = 1\n"));
    let told = reload(gateway.admin).await;
    assert_eq!(told.status, 422);
    let place = format!("gateway.toml:{}: keys.last.key", lines + 2);
    assert!(told.text().contains(&place), "{}", told.text());
    assert_eq!(status(gateway.address, last, "fast").await, 200);
}

#[tokio::test]
async fn listeners_come_and_go_and_connections_stay() {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (first, second, admin) = (free(), free(), free());
    let at = |clients: &[SocketAddr], operators: SocketAddr| {
        let clients: Vec<String> = clients.iter().map(SocketAddr::to_string).collect();
        format!(
            "[server]\nlisten = {clients:?}\nlog = \"off\"\n[admin]\nlisten = \"{operators}\"\ntoken = \"right\"\n{}",
            echo("fast", "sk-ann")
        )
    };
    let gateway = Gateway::of_file(folder_with(&at(&[first], admin))).await;
    // Made before all of it changes, and used after.
    let mut kept = client::Socket::to(first).await;
    write(gateway.folder(), &at(&[first, second], admin));
    assert_eq!(reload(admin).await.status, 200);
    assert_eq!(status(first, "sk-ann", "fast").await, 200);
    assert_eq!(status(second, "sk-ann", "fast").await, 200);
    let moved = free();
    write(gateway.folder(), &at(&[second], moved));
    assert_eq!(reload(admin).await.status, 200);
    assert_eq!(status(second, "sk-ann", "fast").await, 200);
    assert_eq!(reload(moved).await.status, 200, "operators moved as well");
    for gone in [first, admin] {
        let connected = tokio::net::TcpStream::connect(gone).await;
        assert!(connected.is_err(), "{gone} is open still");
    }
    let body = chat("fast");
    let length = body.len();
    kept.write(format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-ann\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    assert_eq!(kept.answer().await.status, 200);
}

/// Whoever changes a route at noon.
#[test]
fn a_hangup_reloads_and_the_log_tells_what_changed() {
    let text = |targets: &str, key: &str| {
        file("", &echo("fast", key))
            .replace("log = \"off\"", "log = \"text\"\nwatch = false")
            .replace("echo/x", targets)
    };
    let folder = folder_with(&text("echo/x", "sk-before"));
    let mut served = Served::start(folder.path());
    served.port();
    served.admin();
    write(folder.path(), &text("echo/y", "sk-after"));
    served.signal("-HUP");
    let told = served.line_with("reloaded");
    assert!(told.contains("changes=2"), "{told}");
    let told = served.line_with("keys.ann.key");
    assert!(told.contains("(hidden) -> (hidden)"), "{told}");
    let told = served.line_with("models.fast.targets");
    assert!(told.contains(r#"["echo/x"] -> ["echo/y"]"#), "{told}");
    write(folder.path(), &text("nobody/y", "sk-after"));
    served.signal("-HUP");
    let told = served.line_with("not reloaded");
    assert!(told.contains("there is no [providers.nobody]"), "{told}");
    served.signal("-TERM");
    assert_eq!(served.exit_code(), 0);
}

#[test]
fn a_service_manager_is_told_how_it_is() {
    let folder = folder_with(&file("", &echo("fast", "sk-ann")));
    let path = folder.path().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut said = String::new();
    let mut hears = |what: &str| {
        while !said.contains(what) {
            let mut buffer = [0; 256];
            let length = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{what}: {error}, after {said}"));
            said += std::str::from_utf8(&buffer[..length]).unwrap();
        }
        said.clear();
    };
    let mut command = tollgate(folder.path());
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000");
    let served = Served::spawn(&mut command);
    hears("READY=1");
    hears("WATCHDOG=1");
    served.signal("-HUP");
    hears("RELOADING=1\nMONOTONIC_USEC=");
    hears("READY=1");
    hears("WATCHDOG=1");
    served.signal("-TERM");
    hears("STOPPING=1");
    assert_eq!(served.exit_code(), 0);
}

#[tokio::test]
async fn only_operators_reload_and_at_their_own_listener() {
    let folder = folder_with(&file("", &echo("fast", "sk-ann")));
    let gateway = Gateway::of_file(folder).await;
    let public = client::get(gateway.address, "/admin/reload", "right").await;
    assert_eq!(public.status, 404);
    let wrong = [("authorization", "Bearer wrong")];
    for _ in 0..1000 {
        let asked = client::send(gateway.admin, Method::POST, "/admin/reload", &wrong, "").await;
        let status = client::whole(asked).await.status.as_u16();
        assert!(matches!(status, 401 | 429), "{status}");
    }
    assert_eq!(reloads(&gateway, "applied"), 0.0);
    assert_eq!(reload(gateway.admin).await.status, 200, "locked out");
    let looked = client::get(gateway.admin, "/admin/reload", "right").await;
    assert_eq!(looked.status, 405);
}
