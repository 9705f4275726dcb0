//! The ledger's file under the real binary: a disk that takes no more, and files that are no ledger of ours.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::cli::{Served, folder_with, run, tollgate};
use crate::support::books::Books;
use crate::support::{
    Act, Answer, CHAT, DONE, FINISH, Provider, USAGE, client, completion, delta, post,
};

/// How long the end of an answer waits for its entry.
const SETTLE_WAIT: Duration = Duration::from_millis(500);
/// What anything may take beyond that on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn configuration(provider: SocketAddr) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nlog = \"off\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [providers.p]\npreset = \"openai-compatible\"\nbase_url = \"http://{provider}/v1\"\n\
         [models.fast]\ntargets = [{{ to = \"p/m\", price = {{ input = 1, output = 10 }} }}]\n\
         [keys.ann]\nkey = \"sk-ann\"\nbudget = {{ usd = 100, per = \"total\" }}\n[keys.bob]\nkey = \"sk-bob\"\n\
         [ledger]\nsettle_wait = \"500ms\"\n"
    )
}

/// What an answer with the sample usage costs at that: 7 tokens in, 3 out.
const COST: u64 = 37_000;

/// A gateway that is a process of its own, and what its clients have seen of it.
struct Tried {
    served: Served,
    address: SocketAddr,
    admin: SocketAddr,
    /// The requests that were answered.
    answered: Vec<String>,
}

impl Tried {
    fn start(folder: &Path) -> Self {
        let mut served = Served::start(folder);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (address, admin) = (at(served.port()), at(served.admin()));
        let answered = Vec::new();
        Self {
            served,
            address,
            admin,
            answered,
        }
    }

    /// Asks, and gets an answer in time, whatever it is.
    async fn ask(&mut self, key: &str) -> Answer {
        let body = r#"{"model":"fast","max_tokens":10,"messages":[]}"#;
        let asking = post(self.address, CHAT, key, body);
        let answer = tokio::time::timeout(SETTLE_WAIT + PATIENCE, asking).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer in time"));
        if answer.status == 200 {
            self.answered.push(id(&answer.headers));
        } else {
            let told = (answer.status.as_u16(), answer.code());
            assert_eq!(told, (503, "ledger_unavailable".into()));
        }
        answer
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = client::get(self.admin, "/metrics", "none").await.text();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }

    /// Waits until a metric has this value.
    async fn until(&self, name: &str, value: f64) {
        let began = Instant::now();
        while self.metric(name).await != value {
            assert!(began.elapsed() < PATIENCE, "{name} is never {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// No file of the process may grow beyond so many bytes from now on.
    fn limit(&self, bytes: &str) {
        let status = Command::new("prlimit")
            .args(["--pid", &self.served.id().to_string()])
            .arg(format!("--fsize={bytes}:"))
            .status();
        assert!(status.unwrap().success());
    }
}

fn id(headers: &http::HeaderMap) -> String {
    headers["x-request-id"].to_str().unwrap().to_owned()
}

#[allow(
    clippy::print_stderr,
    reason = "who reads what a test says should know what it has not tried"
)]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Whether a program of the machine's is there. If not, says what is not tried.
pub fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skip(&format!("`{program}` is not there"));
    }
    found
}

/// The length of the longest file in a folder, in bytes.
fn longest(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    let lengths = files.map(|file| file.unwrap().metadata().unwrap().len());
    lengths.max().unwrap()
}

#[tokio::test]
async fn on_a_disk_that_takes_no_more_nothing_is_lost_and_nothing_has_to_be_restarted() {
    if !is_there("prlimit") {
        return;
    }
    let (gate, gated) = watch::channel(());
    let others = vec![FINISH.into(), USAGE.into(), DONE.into()];
    let whole = || Act::json(completion("hello"));
    let provider = Provider::new([
        whole(),
        Act::Gated(vec![delta("a")], gated, others),
        whole(),
    ])
    .await;
    let folder = folder_with(&configuration(provider.address));
    let mut tried = Tried::start(folder.path());
    assert_eq!(tried.ask("sk-ann").await.status, 200);
    let body = r#"{"model":"fast","stream":true,"max_tokens":10,"messages":[]}"#;
    let mut under_way = client::open(tried.address, CHAT, "sk-ann", body).await;
    tried.answered.push(id(&under_way.headers));
    under_way.piece().await.unwrap().unwrap();

    tried.limit("0");
    // What is drawn already may be spent, but not much longer.
    while tried.ask("sk-ann").await.status == 200 {
        assert!(tried.answered.len() < 1_000);
    }
    tried.until("tollgate_ledger_up", 0.0).await;
    for _ in 0..5 {
        assert_eq!(tried.ask("sk-ann").await.status, 503);
    }
    gate.send(()).unwrap();
    let rest = tokio::time::timeout(SETTLE_WAIT + PATIENCE, under_way.rest()).await;
    let (text, is_complete) = rest.unwrap();
    assert!(is_complete && String::from_utf8(text).unwrap().ends_with(DONE));
    assert_eq!(tried.ask("sk-bob").await.status, 200, "who has no budget");

    tried.limit("unlimited");
    tried.until("tollgate_ledger_up", 1.0).await;
    assert_eq!(tried.ask("sk-ann").await.status, 200);
    tried.until("tollgate_ledger_queue", 0.0).await;

    // Where there is room for a little more, what is written may break off in its middle.
    for more in [1, 100, 5_000] {
        tried.limit(&(longest(folder.path()) + more).to_string());
        for _ in 0..40 {
            tried.ask("sk-ann").await;
        }
        tried.limit("unlimited");
        tried.until("tollgate_ledger_up", 1.0).await;
        assert_eq!(tried.ask("sk-ann").await.status, 200);
        tried.until("tollgate_ledger_queue", 0.0).await;
    }

    tried.served.signal("-TERM");
    assert_eq!(tried.served.exit_code(), 0);
    let books = Books::open(folder.path());
    assert!(books.is_whole());
    let rows = books.rows();
    let entered: HashSet<&String> = rows.iter().map(|row| &row.request).collect();
    assert_eq!(
        (rows.len(), entered.len()),
        (tried.answered.len(), rows.len())
    );
    assert!(tried.answered.iter().all(|id| entered.contains(id)));
    assert!(
        rows.iter()
            .all(|row| row.end == "complete" && row.cost == Some(COST))
    );
    let spent: u64 = books.spent(3, "total").values().sum();
    assert_eq!(spent, rows.len() as u64 * COST);
}

/// What there is in a folder: names and bytes; of folders the names in them.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        all.insert(path, bytes);
    }
    all
}

/// The one line with which a gateway refuses to start: it is the user's mistake, and there is a way out.
fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let told = (output.status.code(), err.lines().count());
    assert_eq!(told, (Some(1), 1), "{err}");
    assert!(err.contains(r#"`store = "memory:"` in [ledger]"#), "{err}");
    err
}

/// The same, and nothing is changed but that the lock is there by which gateways keep each other out.
fn refused_in(folder: &Path, command: Command) -> String {
    let before = contents(folder);
    let told = refused(command);
    let mut after = contents(folder);
    let lock = folder.join("tollgate.db.lock");
    if !before.contains_key(&lock) {
        after.remove(&lock);
    }
    let names = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    assert!(after == before, "{told}");
    told
}

fn refusal(folder: &Path) -> String {
    refused_in(folder, tollgate(folder))
}

#[test]
fn what_is_no_ledger_of_ours_ends_a_start_with_one_line() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let folder = folder_with(&configuration(nowhere));
    let path = folder.path().join("tollgate.db");

    std::fs::create_dir(&path).unwrap();
    let told = refusal(folder.path());
    assert!(told.contains("tollgate.db is a folder"), "{told}");
    std::fs::remove_dir(&path).unwrap();

    std::fs::write(&path, "These are my notes. ".repeat(100)).unwrap();
    let told = refusal(folder.path());
    assert!(told.contains("is not a ledger of tollgate"), "{told}");
    std::fs::remove_file(&path).unwrap();

    // One that was killed, and then something fell upon it.
    let mut served = Served::start(folder.path());
    served.port();
    served.signal("-KILL");
    served.exit_code();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(db);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes
        .iter_mut()
        .skip(2 * 4_096)
        .for_each(|byte| *byte = 0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let told = refusal(folder.path());
    assert!(told.contains("tollgate.db is damaged"), "{told}");
    let (code, out, err) = run(folder.path(), &["usage"]);
    assert_eq!((code, &*out, err.lines().count()), (1, "", 1), "{err}");
}

/// What was closed in order is not looked through at the start.
#[tokio::test]
async fn damage_that_shows_only_when_something_is_written_is_called_damage() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let folder = folder_with(&configuration(provider.address));
    let mut tried = Tried::start(folder.path());
    assert_eq!(tried.ask("sk-ann").await.status, 200);
    tried.served.signal("-TERM");
    assert_eq!(tried.served.exit_code(), 0);

    let path = folder.path().join("tollgate.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    let page = "SELECT rootpage FROM sqlite_master WHERE name = 'chunk'";
    let page: i64 = db.query_row(page, [], |row| row.get(0)).unwrap();
    let page = usize::try_from(page).unwrap();
    drop(db);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(page - 1) * 4_096..page * 4_096].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();

    let mut tried = Tried::start(folder.path());
    tried.ask("sk-ann").await;
    tried.until("tollgate_ledger_up", 0.0).await;
    let told = tried.served.line_with("ERROR");
    assert!(told.contains("tollgate.db is damaged"), "{told}");
    assert!(told.contains("restore a backup"), "{told}");
    assert!(!told.contains("until it can"), "{told}");
}

#[test]
fn where_nothing_can_be_written_no_gateway_starts() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let text = configuration(nowhere);
    // Not even root can make a file there.
    for place in ["/proc/tollgate.db", "none/tollgate.db"] {
        let store = format!("[ledger]\nstore = \"sqlite:{place}\"\n");
        let folder = folder_with(&text.replace("[ledger]\n", &store));
        let told = refusal(folder.path());
        assert!(told.contains("cannot be written"), "{told}");
    }

    let folder = folder_with(&text);
    let Some(common) = commoner(folder.path()) else {
        return;
    };
    allow(folder.path(), 0o555);
    let told = refused_in(folder.path(), common());
    assert!(told.contains("cannot be written"), "{told}");

    allow(folder.path(), 0o777);
    let mut served = Served::start(folder.path());
    served.port();
    served.signal("-TERM");
    assert_eq!(served.exit_code(), 0);
    let all = [
        ("", 0o444),
        (".lock", 0o666),
        (".tail0", 0o444),
        (".tail1", 0o444),
    ];
    for (ending, mode) in all {
        allow(&folder.path().join(format!("tollgate.db{ending}")), mode);
    }
    for ending in [".tail0", ".tail1", ""] {
        let name = format!("tollgate.db{ending}");
        let told = refused_in(folder.path(), common());
        assert!(
            told.contains(&format!("{name} cannot be written")),
            "{told}"
        );
        allow(&folder.path().join(name), 0o666);
    }
    let mut served = Served::spawn(&mut common());
    served.port();
    served.signal("-TERM");
    assert_eq!(served.exit_code(), 0);
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The gateway as somebody whom permissions hold, in a folder. Root, whom they do not, becomes nobody.
fn commoner(folder: &Path) -> Option<impl Fn() -> Command> {
    let probe = folder.join("probe");
    std::fs::write(&probe, "").unwrap();
    allow(&probe, 0o444);
    let is_root = std::fs::File::options().write(true).open(&probe).is_ok();
    std::fs::remove_file(&probe).unwrap();
    let place = folder.to_owned();
    let common = move || {
        if !is_root {
            return tollgate(&place);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(env!("CARGO_BIN_EXE_tollgate"))
            .current_dir(&place);
        command
    };
    allow(folder, 0o555);
    let output = common().arg("--version").output();
    let can = output.is_ok_and(|output| output.status.success());
    if !can {
        skip("permissions do not hold root, and `setpriv` cannot make it nobody here");
    }
    can.then_some(common)
}

#[tokio::test]
async fn a_second_gateway_is_refused_while_reports_are_read_beside_the_first() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let folder = folder_with(&configuration(provider.address));
    let mut tried = Tried::start(folder.path());
    assert_eq!(tried.ask("sk-ann").await.status, 200);
    tried.until("tollgate_ledger_queue", 0.0).await;
    let told = refused(tollgate(folder.path()));
    assert!(
        told.contains("another gateway is using the ledger"),
        "{told}"
    );
    let arguments = ["usage", "--by", "key", "--format", "json"];
    let report = || {
        let (code, out, err) = run(folder.path(), &arguments);
        assert_eq!((code, &*err), (0, ""));
        serde_json::from_str::<serde_json::Value>(&out).unwrap()
    };
    for times in [1, 2] {
        let rows = report();
        let cost = format!("0.0000{}", 37 * times);
        assert_eq!(
            (&rows[0]["key"], &rows[0]["usd"]),
            (&"ann".into(), &cost.into())
        );
        assert_eq!(rows[0]["entries"], times);
        assert_eq!(tried.ask("sk-ann").await.status, 200);
        tried.until("tollgate_ledger_queue", 0.0).await;
    }
}
