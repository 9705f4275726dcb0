//! A collector that is down, slow, wrong or picky: requests do not notice, what is lost is counted, and it is told again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tollgate::cli::Loaded;
use tollgate::config::load::Source;
use tollgate::config::secret::Environment;
use tollgate::telemetry::trace::MOST_WAITING;

use crate::cli::{Served, folder_with};
use crate::support::collector::{collector, seen, spans, takes, traces};
use crate::support::{Act, Gateway, Identity, Provider, ask, chat, post, until};

/// A gateway whose provider is built in: all time is its own.
const OWN: &str =
    "[providers.echo]\n[models.fast]\ntargets = [\"echo/x\"]\n[keys.ann]\nkey = \"sk-ann\"\n";

/// What takes longer has waited for a collector.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn telling(collector: &Provider) -> Gateway {
    Gateway::start(&(OWN.to_owned() + &traces(collector, "sample = 1"))).await
}

async fn asks(gateway: &Gateway, times: usize) {
    let began = Instant::now();
    for _ in 0..times {
        assert_eq!(ask(gateway, chat("fast")).await.status, 200);
    }
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

fn count(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("tollgate_spans_total{{outcome=\"{outcome}\"}}"))
}

/// Where a collector will listen, some time.
async fn reserved() -> (TcpListener, SocketAddr) {
    // An address of its own: no other test is given its ports.
    let listener = TcpListener::bind("127.3.18.43:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn one_that_is_down_misses_nothing_that_there_was_room_for() {
    let (listener, address) = reserved().await;
    drop(listener);
    let text = format!("{OWN}[traces]\nendpoint = \"http://{address}\"\nsample = 1\n");
    let gateway = Gateway::start(&text).await;
    asks(&gateway, 10).await;
    // Long enough for it to have been tried.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    asks(&gateway, 10).await;
    let collector = Provider::on(TcpListener::bind(address).await.unwrap(), [takes()]);
    seen(&collector, 40).await;
    until("it is counted", || count(&gateway, "sent") == 40.0).await;
    assert_eq!(count(&gateway, "lost"), 0.0);
}

#[tokio::test]
async fn one_that_hangs_holds_nobody_up_also_at_the_end() {
    let collector = Provider::new([Act::Hang]).await;
    let mut gateway = telling(&collector).await;
    let whole = Arc::clone(&gateway.running.as_ref().unwrap().gateway);
    asks(&gateway, 10).await;
    until("it is told", || collector.count() == 1).await;
    asks(&gateway, 10).await;
    let began = Instant::now();
    let drained = gateway.drained(Duration::ZERO, Duration::from_secs(5));
    tokio::task::spawn_blocking(move || drained.join().unwrap())
        .await
        .unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let lost = "tollgate_spans_total{outcome=\"lost\"} 40";
    assert!(whole.metrics().contains(lost), "{}", whole.metrics());
}

#[tokio::test]
async fn one_that_never_takes_it_is_not_told_again() {
    let collector = Provider::new([Act::status(500, "{}"), takes()]).await;
    let gateway = telling(&collector).await;
    asks(&gateway, 3).await;
    until("they are lost", || count(&gateway, "lost") == 6.0).await;
    asks(&gateway, 2).await;
    until("it is told of the others", || {
        count(&gateway, "sent") == 4.0
    })
    .await;
    assert_eq!(collector.count(), 2);
}

#[tokio::test]
async fn one_that_has_no_time_is_told_again_when_it_says() {
    let busy = Act::status(503, "").with("retry-after", "2");
    let collector = Provider::new([busy, takes()]).await;
    let gateway = telling(&collector).await;
    asks(&gateway, 3).await;
    until("it was asked", || collector.count() == 1).await;
    let began = Instant::now();
    until("it was asked again", || collector.count() == 2).await;
    assert!(
        began.elapsed() > Duration::from_millis(1_700),
        "{:?}",
        began.elapsed()
    );
    let [first, second] = &collector.received()[..] else {
        panic!()
    };
    assert_eq!(first.body, second.body);
    until("it is counted", || count(&gateway, "sent") == 6.0).await;
    assert_eq!(count(&gateway, "lost"), 0.0);
}

#[tokio::test]
async fn what_it_does_not_take_of_a_batch_is_lost() {
    let partly = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too many".into(),
        }),
    };
    let partly = Act::Answer(200, Vec::new(), partly.encode_to_vec());
    let collector = Provider::new([partly]).await;
    let gateway = telling(&collector).await;
    asks(&gateway, 2).await;
    until("it is counted", || count(&gateway, "lost") == 3.0).await;
    assert_eq!(count(&gateway, "sent"), 1.0);
}

/// It breaks off in the middle of a flood, and comes back.
#[tokio::test]
async fn what_waits_is_bounded_and_what_there_is_no_room_for_is_counted() {
    let (again, told) = tokio::sync::watch::channel(());
    let hang = Act::Told(told, Box::new(Act::Reset));
    let collector = Provider::new([takes(), hang, takes()]).await;
    let gateway = telling(&collector).await;
    asks(&gateway, 1).await;
    until("it was told of the first", || {
        count(&gateway, "sent") == 2.0
    })
    .await;
    asks(&gateway, 1).await;
    until("it hangs", || collector.count() == 2).await;
    // Requests as they end, without what comes before.
    let flood = 20_000;
    let telemetry = Arc::clone(&gateway.running.as_ref().unwrap().gateway.state.telemetry);
    for _ in 0..flood {
        let mut record = telemetry.begin(tokio::time::Instant::now(), "chat_completions");
        record.is_traced(&Method::POST, &HeaderMap::new(), || None);
    }
    asks(&gateway, 10).await;
    let total = f64::from(flood) + 2.0 + 20.0;
    let room = f64::from(u32::try_from(2 * MOST_WAITING).unwrap());
    assert!(
        count(&gateway, "lost") >= total - 2.0 * room,
        "{}",
        count(&gateway, "lost")
    );
    again.send(()).unwrap();
    until("all is told or lost", || {
        count(&gateway, "sent") + count(&gateway, "lost") >= total + 2.0
    })
    .await;
    let sent = count(&gateway, "sent");
    assert!((100.0..=2.0 * room).contains(&sent), "{sent}");
    assert_eq!(sent + count(&gateway, "lost"), total + 2.0);
    assert_eq!(
        f64::from(u32::try_from(spans(&collector).len()).unwrap()),
        sent + 2.0,
        "once, but for what broke off"
    );
    asks(&gateway, 1).await;
    until("it is told as before", || {
        count(&gateway, "sent") == sent + 2.0
    })
    .await;
}

#[tokio::test]
async fn at_the_end_what_is_left_is_told() {
    let collector = collector().await;
    let mut gateway = telling(&collector).await;
    asks(&gateway, 3).await;
    let drained = gateway.drained(Duration::ZERO, Duration::from_secs(5));
    tokio::task::spawn_blocking(move || drained.join().unwrap())
        .await
        .unwrap();
    assert_eq!(spans(&collector).len(), 6);
}

#[tokio::test]
async fn one_that_speaks_tls_must_prove_who_it_is() {
    let identity = Identity::of(&["localhost"]);
    let collector = Provider::secure(&identity, [takes()]).await;
    let port = collector.address.port();
    let folder = || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("own.pem"), identity.pem()).unwrap();
        std::fs::write(folder.path().join("token"), "Bearer secret\n").unwrap();
        folder
    };
    let text = format!(
        "{OWN}[traces]\nendpoint = \"https://localhost:{port}/otel/v1/traces\"\nsample = 1\nheaders = {{ authorization = \"file:token\" }}\n"
    );
    let stranger = Gateway::among(folder(), &[], &text).await;
    asks(&stranger, 1).await;
    until("it was tried", || collector.connections() > 0).await;
    let gateway = Gateway::among(folder(), &[], &(text + "ca_file = \"own.pem\"\n")).await;
    asks(&gateway, 1).await;
    seen(&collector, 2).await;
    let sent = collector.only();
    assert_eq!(sent.line, "POST /otel/v1/traces HTTP/1.1");
    assert_eq!(sent.header("authorization"), Some("Bearer secret"));
    assert_eq!(sent.header("host"), Some(&*format!("localhost:{port}")));
    assert_eq!(count(&stranger, "sent"), 0.0);
}

/// The real binary, because its lines go to its own output.
#[tokio::test]
async fn it_is_said_once_when_it_begins_to_fail_and_when_it_is_over() {
    let busy = || Act::status(503, "");
    let collector = Provider::new([busy(), busy(), takes()]).await;
    let server =
        "[server]\nlisten = \"127.0.0.1:0\"\nlog = \"off\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let folder = folder_with(
        &(server.to_owned()
            + OWN
            + &traces(
                &collector,
                "sample = 1\nheaders = { x-key = \"sk-hidden\" }",
            )),
    );
    let mut served = Served::start(folder.path());
    let address = SocketAddr::from(([127, 0, 0, 1], served.port()));
    assert_eq!(
        post(address, "/v1/chat/completions", "sk-ann", chat("fast"))
            .await
            .status,
        200
    );
    seen(&collector, 2 * 3).await;
    let first = served.line_with("collector");
    assert!(
        first.contains("do not reach") && first.contains("503"),
        "{first}"
    );
    let second = served.line_with("collector");
    assert!(second.contains("again"), "{second}");
    assert!(!(first + &second).contains("sk-hidden"));
}

/// A line of `[traces]`, and what is wrong with it.
const FLAWS: [(&str, &str); 16] = [
    (
        "endpoint = \"nonsense\"",
        "endpoint: `nonsense` is not a URL; write \"https://host/v1\"",
    ),
    (
        "endpoint = \"unix:/run/c\"",
        "endpoint: must start with http:// or https://",
    ),
    (
        "endpoint = \"grpc://c:4317\"",
        "endpoint: must start with http:// or https://",
    ),
    (
        "endpoint = \"http://ann:sk-hidden@c\"",
        "endpoint: must hold no user name or password; use headers",
    ),
    (
        "endpoint = \"http://c/?key=sk-hidden\"",
        "endpoint: must hold no query",
    ),
    (
        "sample = 1.5",
        "sample: 1.5 is no part of a whole; write a number from 0 to 1",
    ),
    (
        "sample = -1",
        "sample: -1 is no part of a whole; write a number from 0 to 1",
    ),
    ("sample = \"all\"", "sample: expected f64"),
    ("service = \" \"", "service: must be a name"),
    (
        "sampel = 1",
        "sampel: `sampel` is unknown; did you mean `sample`?",
    ),
    (
        "headers = { x-a = [\"sk-hidden\"] }",
        "headers.x-a: expected a string",
    ),
    (
        "headers = { \"a b\" = \"x\" }",
        "headers.\"a b\": `a b` is not a header's name",
    ),
    (
        "headers = { content-type = \"x\" }",
        "headers.content-type: `content-type` is tollgate's own to write",
    ),
    (
        "headers = { x-a = \"env:UNSET\" }",
        "headers.x-a: UNSET is not set",
    ),
    (
        "headers = { x-a = \"env:KEY\" }",
        "headers.x-a: the value has characters that no header can carry",
    ),
    (
        "ca_file = \"none.pem\"",
        "ca_file: `none.pem` would vouch for nobody: endpoint is not https://; leave it out",
    ),
];

/// What is wrong with a `[traces]`.
fn flaws(lines: &str) -> Vec<String> {
    let text = format!("{OWN}[traces]\n{lines}\n");
    let source = Source::parse("t".into(), PathBuf::new(), &text).unwrap();
    let variables = [("KEY".to_owned(), "line\nbreak".to_owned())];
    let environment: Environment = variables.into_iter().collect();
    let flaws = Loaded::read(source, environment).compile().err();
    flaws.map_or_else(Vec::new, |flaws| flaws.0)
}

#[test]
fn every_flaw_has_its_line_and_none_shows_a_secret() {
    for good in [
        "",
        "sample = 0",
        "sample = 1",
        "sample = 0.25",
        "endpoint = \"https://c.example\"",
    ] {
        assert_eq!(flaws(good), [""; 0], "{good}");
    }
    for (line, why) in FLAWS {
        assert_eq!(flaws(line), [format!("t:7: traces.{why}")], "{line}");
    }
}
