//! What a collector of traces hears of requests, and what providers hear of the trace.

use std::time::{Duration, SystemTime};

use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::hedge::two;
use crate::support::collector::{Seen, collector, seen, spans, told, traces};
use crate::support::money::{COST, budget, of, priced, question};
use crate::support::provider::Received;
use crate::support::{
    Act, Answer, CHAT, DONE, FINISH, Gateway, Provider, USAGE, ask, chat, chat_stream, client,
    completion, delta, model, post, provider_at, until,
};

const ALL: &str = "sample = 1";
const ANN: &str = "[keys.ann]\nkey = \"sk-ann\"\n";

/// What a client may say.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn says(text: &str) -> Act {
    Act::json(completion(text))
}

/// `fast` at the targets `a/m`, `b/m`, … in order, and ann.
fn fast(providers: &[&Provider], more: &str) -> String {
    let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
    let named = names.iter().zip(providers);
    let written = named.map(|(name, it)| provider_at(name, it.address, more));
    let targets: Vec<String> = names
        .iter()
        .take(providers.len())
        .map(|it| format!("{it}/m"))
        .collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    written.collect::<String>() + &model("fast", &targets, "") + ANN
}

/// Asks as ann, with these headers too.
async fn asks(gateway: &Gateway, headers: &[(&str, &str)], body: String) -> Answer {
    let mut all = vec![("authorization", "Bearer sk-ann")];
    all.extend(headers);
    client::whole(client::send(gateway.address, Method::POST, CHAT, &all, body).await).await
}

/// What a provider was told.
fn parent(received: &Received) -> &str {
    received.header("traceparent").unwrap_or("nothing")
}

fn is_now(span: &Seen) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ended = Duration::from_nanos(span.0.end_time_unix_nano);
    let ago = now.unwrap().checked_sub(ended);
    ago.is_some_and(|ago| ago < Duration::from_secs(60))
        && span.0.start_time_unix_nano <= span.0.end_time_unix_nano
}

/// It has these attributes.
fn has(span: &Seen, want: &[(&str, &str)]) {
    for (name, value) in want {
        assert_eq!(span.get(name), *value, "{name} of {span:#?}");
    }
}

#[tokio::test]
async fn a_chat_is_a_span_and_its_try_another() {
    let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
    let ann = format!("[keys.ann]\nkey = \"sk-ann\"\n{}\n", budget("10"));
    let gateway = Gateway::start(&(priced(&provider, &ann) + &traces(&collector, ALL))).await;
    let answer = ask(&gateway, question(50)).await;
    let [request, tried] = &seen(&collector, 2).await[..] else {
        panic!()
    };
    assert_eq!(
        (&*request.0.name, request.0.kind()),
        ("chat fast", SpanKind::Server)
    );
    assert_eq!(
        (&*tried.0.name, tried.0.kind()),
        ("chat m", SpanKind::Client)
    );
    assert!(request.0.parent_span_id.is_empty() && tried.is_below(request));
    assert!(is_now(request) && is_now(tried) && !request.is_error() && !tried.is_error());
    assert!(tried.0.start_time_unix_nano >= request.0.start_time_unix_nano);
    assert!(tried.0.end_time_unix_nano <= request.0.end_time_unix_nano);
    let cost = COST.to_string();
    has(
        request,
        &[
            ("http.request.method", "POST"),
            ("http.route", CHAT),
            ("http.response.status_code", "200"),
            ("error.type", ""),
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.request.model", "fast"),
            ("gen_ai.request.stream", "false"),
            (
                "tollgate.request_id",
                answer.header("x-request-id").unwrap(),
            ),
            ("tollgate.key", "ann"),
            ("tollgate.target", "p/m"),
            ("tollgate.tries", "1"),
            ("tollgate.end", "complete"),
            ("tollgate.input_tokens", "7"),
            ("tollgate.output_tokens", "3"),
            ("tollgate.cost_nano_usd", &cost),
        ],
    );
    has(
        tried,
        &[
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "p"),
            ("gen_ai.request.model", "m"),
            ("gen_ai.usage.input_tokens", "7"),
            ("gen_ai.usage.output_tokens", "3"),
            ("server.address", "127.0.0.1"),
            ("server.port", &provider.address.port().to_string()),
            ("http.response.status_code", "200"),
            ("error.type", ""),
            ("tollgate.outcome", "answered"),
            ("tollgate.cost_nano_usd", &cost),
        ],
    );
    assert_eq!(
        parent(&provider.only()),
        tried.name(),
        "the try is the parent"
    );
    assert_eq!(provider.only().header("tracestate"), None);
}

#[tokio::test]
async fn a_gateway_says_who_it_is_and_counts_what_it_tells() {
    let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
    let own = traces(&collector, "sample = 1\nservice = \"gate\"");
    let gateway = Gateway::start(&(fast(&[&provider], "") + &own)).await;
    ask(&gateway, chat("fast")).await;
    seen(&collector, 2).await;
    let told = told(&collector);
    let named = &told[0].resource.as_ref().unwrap().attributes[0];
    assert_eq!(named.key, "service.name");
    assert!(format!("{named:?}").contains("\"gate\""), "{named:?}");
    let sent = collector.only();
    assert_eq!(sent.line, "POST /v1/traces HTTP/1.1");
    assert_eq!(sent.header("content-type"), Some("application/x-protobuf"));
    let count = |outcome| gateway.metric(&format!("tollgate_spans_total{{outcome=\"{outcome}\"}}"));
    until("it is counted", || count("sent") == 2.0).await;
    assert_eq!(count("lost"), 0.0);
}

#[tokio::test]
async fn a_stream_is_a_span_below_its_try() {
    let pieces = [
        delta("a"),
        delta("b"),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ];
    let slow = Act::Slow(Duration::from_millis(60), pieces.into());
    let (collector, provider) = (collector().await, Provider::new([slow]).await);
    let gateway = Gateway::start(&(fast(&[&provider], "") + &traces(&collector, ALL))).await;
    ask(&gateway, chat_stream("fast")).await;
    let [request, tried, stream] = &seen(&collector, 3).await[..] else {
        panic!()
    };
    assert!(tried.is_below(request) && stream.is_below(tried));
    assert_ne!(stream.0.span_id, request.0.span_id);
    assert_eq!(
        (&*stream.0.name, stream.get("tollgate.end")),
        ("stream", "complete".into())
    );
    assert_eq!(request.get("gen_ai.request.stream"), "true");
    let waited: f64 = tried
        .get("gen_ai.response.time_to_first_chunk")
        .parse()
        .unwrap();
    assert!((0.05..5.0).contains(&waited), "{waited}");
    assert!(stream.0.start_time_unix_nano >= tried.0.start_time_unix_nano + 50_000_000);
    assert!(
        stream.ms() >= 120 && tried.ms() >= stream.ms(),
        "{stream:?}"
    );
    assert_eq!(
        tried.all(&["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"]),
        "7,3"
    );
    assert!(!stream.is_error());
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error_in_all_its_spans() {
    let cut = Act::Cut(vec![delta("a")]);
    let (collector, provider) = (collector().await, Provider::new([cut]).await);
    let gateway = Gateway::start(&(fast(&[&provider], "") + &traces(&collector, ALL))).await;
    ask(&gateway, chat_stream("fast")).await;
    for span in seen(&collector, 3).await {
        assert!(span.is_error(), "{span:?}");
        assert_eq!(span.get("error.type"), "truncated");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_ends_its_stream_and_is_no_error() {
    let stall = Act::Stall(vec![delta("a")]);
    let (collector, provider) = (collector().await, Provider::new([stall]).await);
    let gateway = Gateway::start(&(fast(&[&provider], "") + &traces(&collector, ALL))).await;
    let mut coming = client::open(gateway.address, CHAT, "sk-ann", chat_stream("fast")).await;
    coming.piece().await.unwrap().unwrap();
    drop(coming);
    for span in seen(&collector, 3).await {
        assert!(!span.is_error() && is_now(&span), "{span:?}");
        if span.0.kind() != SpanKind::Client {
            assert_eq!(span.get("tollgate.end"), "client_gone");
        }
    }
}

#[tokio::test]
async fn each_retry_and_each_fallback_has_a_span_of_its_own() {
    let bad = || Act::status(500, "{}");
    let a = Provider::new([bad(), bad()]).await;
    let b = Provider::new([Act::Reset]).await;
    let c = Provider::new([says("c")]).await;
    let collector = collector().await;
    let gateway = Gateway::start(&(fast(&[&a, &b, &c], "") + &traces(&collector, ALL))).await;
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
    let tried = seen(&collector, 1 + a.count() + b.count() + c.count()).await;
    let (request, tries) = tried.split_first().unwrap();
    assert!(tries.len() >= 4 && tries.iter().all(|it| it.is_below(request)));
    assert_eq!(request.get("tollgate.tries"), tries.len().to_string());
    let told = |it: &Seen| it.all(&["tollgate.target", "tollgate.outcome", "error.type"]);
    assert_eq!(told(&tries[0]), "a/m,provider_fault,500");
    assert_eq!(told(&tries[1]), "a/m,provider_fault,500");
    assert_eq!(told(&tries[2]), "b/m,reset,reset");
    assert_eq!(told(tries.last().unwrap()), "c/m,answered,");
    for (n, it) in tries.iter().enumerate() {
        assert_eq!(it.get("tollgate.try"), (n + 1).to_string());
        assert_eq!(it.is_error(), n + 1 < tries.len());
    }
    assert!(!request.is_error());
    // Each provider heard of its own try, whichever that was.
    let heard = [&a, &b, &c].into_iter().flat_map(Provider::received);
    let mut heard: Vec<String> = heard.map(|it| parent(&it).to_owned()).collect();
    let mut names: Vec<String> = tries.iter().map(Seen::name).collect();
    heard.sort();
    names.sort();
    assert_eq!(heard, names);
}

#[tokio::test]
async fn nobody_who_answers_is_an_error_of_ours() {
    let (collector, a) = (
        collector().await,
        Provider::new([Act::status(500, "{}")]).await,
    );
    let text = fast(&[&a], "tries = 1") + &traces(&collector, ALL);
    let gateway = Gateway::start(&text).await;
    assert_eq!(ask(&gateway, chat("fast")).await.status, 502);
    let [request, tried] = &seen(&collector, 2).await[..] else {
        panic!()
    };
    assert_eq!(
        request.all(&["http.response.status_code", "error.type"]),
        "502,upstream_error"
    );
    assert!(request.is_error() && tried.is_error());
}

#[tokio::test]
async fn of_two_tries_side_by_side_the_faster_has_the_answer() {
    const SOON: &str = "{ after = \"100ms\", at_most = 1 }";
    let (collector, a) = (collector().await, Provider::new([Act::Hang]).await);
    let pieces = [delta("b"), FINISH.into(), USAGE.into(), DONE.into()];
    let b = Provider::new([Act::events(pieces)]).await;
    let text = two(&a, &b, SOON, ANN) + &traces(&collector, ALL);
    let gateway = Gateway::start(&text).await;
    ask(&gateway, chat_stream("fast")).await;
    let [request, first, second, stream] = &seen(&collector, 4).await[..] else {
        panic!()
    };
    assert!(first.is_below(request) && second.is_below(request) && stream.is_below(second));
    let told = |it: &Seen| it.all(&["tollgate.target", "tollgate.outcome", "error.type"]);
    assert_eq!(told(first), "a/m,cancelled,", "it did nothing wrong");
    assert_eq!(told(second), "b/m,answered,");
    assert_eq!(request.all(&["tollgate.tries", "tollgate.target"]), "2,b/m");
    assert!(first.ms() >= 100 && second.0.start_time_unix_nano > first.0.start_time_unix_nano);
    assert_eq!(
        (parent(&a.only()), parent(&b.only())),
        (&*first.name(), &*second.name())
    );
    // What was outrun is paid for: it says what it cost.
    let [own, other] =
        [first, second].map(|it| it.get("tollgate.cost_nano_usd").parse::<u64>().unwrap());
    assert_eq!(
        request.get("tollgate.cost_nano_usd"),
        (own + other).to_string()
    );
}

#[tokio::test]
async fn where_the_first_is_faster_after_all_it_has_the_answer() {
    const SOON: &str = "{ after = \"100ms\", at_most = 1 }";
    let late = Act::After(Duration::from_millis(400), Box::new(says("a")));
    let (collector, a) = (collector().await, Provider::new([late]).await);
    let b = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&(two(&a, &b, SOON, ANN) + &traces(&collector, ALL))).await;
    assert_eq!(ask(&gateway, chat("fast")).await.status, 200);
    let [request, first, second] = &seen(&collector, 3).await[..] else {
        panic!()
    };
    let told = |it: &Seen| {
        it.all(&[
            "tollgate.target",
            "tollgate.outcome",
            "gen_ai.usage.input_tokens",
        ])
    };
    assert_eq!(told(first), "a/m,answered,7");
    assert!(told(second).starts_with("b/m,cancelled,"), "{second:?}");
    assert!(first.is_below(request) && second.is_below(request));
}

#[tokio::test]
async fn whoever_is_refused_is_told_of_too_without_a_word_of_theirs() {
    let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
    let text = fast(&[&provider], "") + "limits = { rpm = 1 }\n" + &traces(&collector, ALL);
    let gateway = Gateway::start(&text).await;
    let address = gateway.address;
    post(address, CHAT, "sk-wrong-secret", chat("fast")).await;
    ask(&gateway, chat("fast")).await;
    ask(&gateway, chat("fast")).await;
    client::get(address, "/v1/models/some-secret-model", "sk-wrong-secret").await;
    client::get(address, "/secret-path", "sk-wrong-secret").await;
    client::get(address, "/health", "").await;
    let seen = seen(&collector, 6).await;
    let told = |it: &Seen| {
        let rest = it.all(&[
            "http.route",
            "http.response.status_code",
            "tollgate.code",
            "tollgate.key",
        ]);
        format!("{}: {rest}", it.0.name)
    };
    let servers = seen.iter().filter(|it| it.0.kind() == SpanKind::Server);
    let servers: Vec<String> = servers.map(told).collect();
    let want = [
        "chat: /v1/chat/completions,401,invalid_api_key,",
        "chat fast: /v1/chat/completions,200,,ann",
        "chat: /v1/chat/completions,429,rate_limit_exceeded,ann",
        "GET /v1/models/{id}: /v1/models/{id},401,invalid_api_key,",
        "GET: ,404,unknown_url,",
    ];
    assert_eq!(servers, want);
    assert!(
        seen.iter().all(|it| !it.is_error()),
        "it was the clients' fault"
    );
    is_without(&collector, &["secret"]);
}

/// None of these words is anywhere in what a collector was sent.
fn is_without(collector: &Provider, words: &[&str]) {
    for received in collector.received() {
        for word in words {
            let found = received
                .body
                .windows(word.len())
                .any(|it| it == word.as_bytes());
            assert!(
                !found,
                "{word}: {}",
                String::from_utf8_lossy(&received.body)
            );
        }
    }
}

#[tokio::test]
async fn no_word_of_a_prompt_or_an_answer_and_no_secret_is_told() {
    let collector = collector().await;
    let bad = Act::status(400, r#"{"error":{"message":"ERRORWORD","type":"x"}}"#);
    let pieces = [
        delta("ANSWERWORD"),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ];
    let provider = Provider::new([says("ANSWERWORD"), Act::events(pieces), bad]).await;
    let headers = "sample = 1\nheaders = { x-team = \"env:TEAM\" }";
    let text = fast(&[&provider], "") + &traces(&collector, headers);
    let variables = [("TEAM", "team-secret".to_owned())];
    let gateway = Gateway::among(tempfile::tempdir().unwrap(), &variables, &text).await;
    for body in [chat("fast"), chat_stream("fast"), chat("fast")] {
        let body = body.replace("\"hi\"", "\"PROMPTWORD\"");
        asks(
            &gateway,
            &[("x-tollgate-tag", "TAGWORD"), ("x-request-id", "IDWORD")],
            body,
        )
        .await;
    }
    seen(&collector, 7).await;
    let words = [
        "PROMPTWORD",
        "ANSWERWORD",
        "ERRORWORD",
        "TAGWORD",
        "IDWORD",
        "sk-ann",
        "sk-provider-secret",
        "team-secret",
    ];
    is_without(&collector, &words);
    for received in collector.received() {
        assert_eq!(received.header("x-team"), Some("team-secret"));
    }
}

#[tokio::test]
async fn a_trace_that_a_client_began_goes_on() {
    let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
    // Whatever the share of our own.
    let text = fast(&[&provider], "") + &traces(&collector, "sample = 0");
    let gateway = Gateway::start(&text).await;
    let headers = [("traceparent", PARENT), ("tracestate", "a=1,b=2")];
    asks(&gateway, &headers, chat("fast")).await;
    let [request, tried] = &seen(&collector, 2).await[..] else {
        panic!()
    };
    assert!(request.name().starts_with(&format!("00-{TRACE}-")) && tried.is_below(request));
    assert_eq!(
        request.0.parent_span_id,
        0xb7ad_6b71_6920_3331_u64.to_be_bytes()
    );
    assert_eq!(request.0.trace_state, "a=1,b=2");
    assert_eq!(
        request.0.flags, 0x301,
        "sampled, and its parent is another's"
    );
    assert_eq!(tried.0.flags, 0x101);
    let received = provider.only();
    assert_eq!(parent(&received), tried.name());
    assert_eq!(received.header("tracestate"), Some("a=1,b=2"));
}

#[tokio::test]
async fn a_trace_that_its_client_does_not_tell_of_is_not_told_and_goes_on() {
    let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
    let gateway = Gateway::start(&(fast(&[&provider], "") + &traces(&collector, ALL))).await;
    let headers = [("traceparent", NOT_SAMPLED), ("tracestate", "a=1")];
    asks(&gateway, &headers, chat("fast")).await;
    // One that is told, so that there is something to wait for.
    ask(&gateway, chat("fast")).await;
    let spans = seen(&collector, 2).await;
    assert!(
        spans.iter().all(|it| !it.name().contains(TRACE)),
        "{spans:?}"
    );
    let received = &provider.received()[0];
    assert_eq!(parent(received), NOT_SAMPLED);
    assert_eq!(received.header("tracestate"), Some("a=1"));
}

#[tokio::test]
async fn what_is_malformed_begins_a_new_trace() {
    let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
    let gateway = Gateway::start(&(fast(&[&provider], "") + &traces(&collector, ALL))).await;
    let bad = [
        "",
        "00",
        &PARENT.replace(TRACE, &"0".repeat(32)),
        &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        &PARENT.replacen("00", "ff", 1),
        &PARENT.to_uppercase(),
        &format!("{PARENT}-more"),
    ];
    for header in &bad {
        let headers = [("traceparent", *header), ("tracestate", "a=1")];
        asks(&gateway, &headers, chat("fast")).await;
    }
    let twice = [
        ("traceparent", PARENT),
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
    ];
    asks(&gateway, &twice, chat("fast")).await;
    let spans = seen(&collector, 2 * (bad.len() + 1)).await;
    let tried: Vec<String> = spans.iter().map(Seen::name).collect();
    for received in provider.received() {
        let told = parent(&received);
        assert!(tried.iter().any(|it| it == told), "{told}");
        assert!(!told.contains(TRACE) && received.header("tracestate").is_none());
        let count = received
            .headers
            .iter()
            .filter(|(name, _)| name == "traceparent");
        assert_eq!(count.count(), 1);
    }
    let mut traces: Vec<_> = spans.iter().map(|it| it.0.trace_id.clone()).collect();
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), bad.len() + 1);
}

#[tokio::test]
async fn who_is_not_let_in_has_no_say_in_what_is_told() {
    let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
    let text = fast(&[&provider], "") + &traces(&collector, "sample = 0");
    let gateway = Gateway::start(&text).await;
    for _ in 0..5 {
        let headers = [
            ("traceparent", PARENT),
            ("authorization", "Bearer sk-wrong"),
        ];
        let coming = client::send(gateway.address, Method::POST, CHAT, &headers, chat("fast"));
        assert_eq!(client::whole(coming.await).await.status, 401);
    }
    asks(&gateway, &[("traceparent", PARENT)], chat("fast")).await;
    let spans = seen(&collector, 2).await;
    assert_eq!(spans[0].get("tollgate.key"), "ann");
}

#[tokio::test]
async fn where_nobody_collects_what_a_client_says_goes_on_untouched() {
    let provider = Provider::new([says("hi")]).await;
    let gateway = Gateway::start(&fast(&[&provider], "")).await;
    for (header, state) in [(PARENT, "a=1"), ("nonsense", "b=2")] {
        let headers = [("traceparent", header), ("tracestate", state)];
        asks(&gateway, &headers, chat("fast")).await;
        let received = provider.received().pop().unwrap();
        assert_eq!(
            (parent(&received), received.header("tracestate")),
            (header, Some(state))
        );
    }
    ask(&gateway, chat("fast")).await;
    assert_eq!(parent(&provider.received()[2]), "nothing");
    assert!(!gateway.metrics().contains("tollgate_spans_total{"));
}

#[tokio::test]
async fn none_all_or_half_of_the_traces_that_begin_here_are_told() {
    let pages = 400;
    for (part, least, most) in [("0", 0, 0), ("1", 400, 400), ("0.5", 140, 260)] {
        let (collector, provider) = (collector().await, Provider::new([says("hi")]).await);
        let text = fast(&[&provider], "") + &traces(&collector, &format!("sample = {part}"));
        let gateway = Gateway::start(&text).await;
        for _ in 0..pages {
            ask(&gateway, chat("fast")).await;
        }
        // A trace that its client tells of is the last, and told in any case.
        asks(&gateway, &[("traceparent", PARENT)], chat("fast")).await;
        until("the last is there", || {
            spans(&collector).iter().any(|it| it.name().contains(TRACE))
        })
        .await;
        let told = spans(&collector).len() / 2 - 1;
        assert!((least..=most).contains(&told), "{part}: {told} of {pages}");
        // Every provider is told of a trace, and truly whether it is told.
        let sampled = provider
            .received()
            .iter()
            .filter(|it| parent(it).ends_with("-01"))
            .count();
        assert_eq!(sampled, told + 1);
        assert!(provider.received().iter().all(|it| parent(it).len() == 55));
    }
}

#[tokio::test]
async fn a_stored_response_is_asked_for_within_the_trace() {
    let stored = r#"{"id":"resp_1","object":"response","status":"completed","output":[],"usage":{"input_tokens":1,"output_tokens":1}}"#;
    let (collector, provider) = (collector().await, Provider::new([Act::json(stored)]).await);
    let gateway = Gateway::start(
        &(of("a", &provider, "") + &model("fast", &["a/m"], "") + ANN + &traces(&collector, ALL)),
    )
    .await;
    let body = r#"{"model":"fast","input":"hi"}"#;
    assert_eq!(
        post(gateway.address, "/v1/responses", "sk-ann", body)
            .await
            .status,
        200
    );
    assert_eq!(
        client::get(gateway.address, "/v1/responses/resp_1", "sk-ann")
            .await
            .status,
        200
    );
    let spans = seen(&collector, 3).await;
    let shown = spans
        .iter()
        .find(|it| it.0.name == "GET /v1/responses/{id}");
    let shown = shown.unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!(parent(&provider.received()[1]), shown.name());
}
