//! Streams: whole however they are cut, sent on at once, and true about their end.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;

use crate::protocols::{Case, cases, events};
use crate::support::client::{Coming, open};
use crate::support::{
    Act, Answer, DONE, FINISH, Gateway, Provider, USAGE, chat_stream, completion, delta, post,
    until,
};
use tollgate::protocol::openai::OpenAi;
use tollgate::protocol::{Ended, Ending, Endpoint, Pieces, Progress, Protocol};
use tollgate::usage::Usage;

const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";

/// One provider that is asked once, with more lines of its own.
fn with(provider: &Provider, more: &str) -> String {
    format!(
        "[providers.p]\npreset = \"openai-compatible\"\nbase_url = \"http://{}/v1\"\ntries = 1\n{more}\n\
         [models.fast]\ntargets = [\"p/m\"]\n",
        provider.address
    )
}

async fn ask(gateway: &Gateway) -> Answer {
    post(
        gateway.address,
        "/v1/chat/completions",
        "",
        chat_stream("fast"),
    )
    .await
}

async fn begin(gateway: &Gateway) -> Coming {
    open(
        gateway.address,
        "/v1/chat/completions",
        "",
        chat_stream("fast"),
    )
    .await
}

/// How many streams ended so.
fn ended(gateway: &Gateway, end: &str) -> f64 {
    gateway.metric(&format!(
        "tollgate_streams_total{{end=\"{end}\",target=\"p/m\"}}"
    ))
}

async fn until_ended(gateway: &Gateway, end: &str, times: f64) {
    until(&format!("{times} streams ended {end}"), || {
        ended(gateway, end) >= times
    })
    .await;
    let all = gateway
        .metrics()
        .lines()
        .filter(|l| l.starts_with("tollgate_streams_total{") && !l.ends_with(" 0"))
        .count();
    assert_eq!(
        (ended(gateway, end), all),
        (times, 1),
        "{}",
        gateway.metrics()
    );
}

/// The one error event at the end of a body, and what stands before it.
fn last_error(body: &str) -> (&str, serde_json::Value) {
    let event = body
        .strip_suffix("\n\n")
        .unwrap_or_else(|| panic!("no event at the end: {body:?}"));
    let at = event
        .rfind("data: {\"error\":")
        .unwrap_or_else(|| panic!("no error: {body:?}"));
    let (before, event) = event.split_at(at);
    (
        before,
        serde_json::from_str(&event["data: ".len()..]).unwrap(),
    )
}

// ---- In process: every cut of every folder's stream.

fn decode(pieces: &[&[u8]], (endpoint, ends): Ends) -> (Vec<u8>, Progress) {
    let mut decoder = OpenAi.decoder(endpoint, ends);
    let mut out = Pieces::new();
    for piece in pieces {
        decoder
            .feed(Bytes::copy_from_slice(piece), &mut out)
            .unwrap();
    }
    decoder.finish(&mut out);
    (out.concat(), *decoder.progress())
}

/// What was called, and how its stream ends.
type Ends = (Endpoint, Ending);

fn ending(case: &Case) -> Ends {
    let ends = Ending {
        marker: true,
        hide_usage: case.hides_usage(),
    };
    (Endpoint::of(&Method::POST, &case.path).unwrap(), ends)
}

fn streams() -> Vec<(Case, Vec<u8>)> {
    let all: Vec<_> = cases()
        .into_iter()
        .filter_map(|case| case.stream().map(|stream| (case, stream)))
        .collect();
    assert!(all.len() > 30);
    all
}

/// The data of each event, read with no help of ours.
fn data(stream: &[u8]) -> Vec<String> {
    let text = String::from_utf8(stream.to_vec())
        .unwrap()
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let of = |event: &str| {
        let lines: Vec<&str> = event
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .collect();
        lines
            .iter()
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n")
    };
    text.trim_start_matches('\u{feff}')
        .split("\n\n")
        .map(of)
        .filter(|data| !data.is_empty())
        .collect()
}

/// Prompt and completion of the last usage that a stream tells; the total tells what some leave out of the completion.
fn told(stream: &[u8]) -> Option<[f64; 2]> {
    let usage = |data: &String| -> Option<[f64; 2]> {
        let value: serde_json::Value = serde_json::from_str(data).ok()?;
        let usages = [&value["usage"], &value["response"]["usage"]];
        let count = |names: [&str; 2]| {
            let mut counts = usages
                .iter()
                .flat_map(|usage| names.map(|name| usage[name].as_f64()));
            counts.find_map(|count| count)
        };
        let prompt = count(["prompt_tokens", "input_tokens"])?;
        let completion = count(["completion_tokens", "output_tokens"])?;
        let count = |name: &str| count([name, name]);
        let total = count("total_tokens").unwrap_or(0.0);
        Some([prompt, completion.max(total - prompt)])
    };
    data(stream).iter().filter_map(usage).next_back()
}

fn sums(usage: Usage) -> [f64; 2] {
    [
        usage.input + usage.cached + usage.cache_write + usage.audio_input,
        usage.output + usage.reasoning,
    ]
    .map(|count| f64::from(u32::try_from(count).unwrap()))
}

/// Nothing but comments follows the last whole event.
fn ends_between_events(out: &[u8]) -> bool {
    let is_whole = ["\n\n", "\r\r", "\r\n\r", "\r\n\r\n"]
        .iter()
        .any(|end| out.ends_with(end.as_bytes()));
    let is_gap = || {
        let rest = events(out).pop().unwrap_or_default();
        let mut lines = rest.split(|byte| b"\r\n".contains(byte));
        lines.all(|line| {
            line.is_empty()
                || line
                    .strip_prefix(b"\xef\xbb\xbf")
                    .unwrap_or(line)
                    .starts_with(b":")
        })
    };
    is_whole || is_gap()
}

#[test]
fn every_stream_is_the_same_however_it_is_cut() {
    for (case, stream) in streams() {
        let ends = ending(&case);
        let same = |pieces: &[&[u8]]| {
            let (out, progress) = decode(pieces, ends);
            (out, progress.usage, progress.end, progress.content)
        };
        let whole = same(&[&stream]);
        assert_eq!(whole.1.map(sums), told(&stream), "{case:?}");
        if case.is_complete() {
            assert_eq!(whole.0, case.heard().unwrap(), "{case:?}");
            assert_eq!(whole.2, Some(Ended::Complete), "{case:?}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(same(&single), whole, "{case:?} byte by byte");
        for i in 0..=stream.len() {
            assert_eq!(
                same(&[&stream[..i], &stream[i..]]),
                whole,
                "{case:?} cut at {i}"
            );
        }
        if stream.len() <= 200 {
            for i in 0..stream.len() {
                for j in i..stream.len() {
                    let cut = [&stream[..i], &stream[i..j], &stream[j..]];
                    assert_eq!(same(&cut), whole, "{case:?} cut at {i} and {j}");
                }
            }
        }
    }
}

#[test]
fn what_a_client_has_of_a_stream_that_breaks_off_ends_between_events() {
    for (case, stream) in streams() {
        let ends = ending(&case);
        let (whole, _) = decode(&[&stream], ends);
        let said = stream
            .windows(6)
            .position(|window| window == b"[DONE]")
            .unwrap_or(stream.len());
        let check = |out: &[u8], progress: &Progress, i: usize| {
            assert!(
                whole.starts_with(out) && ends_between_events(out),
                "{case:?} cut at {i} leaves {out:?}"
            );
            assert!(
                i > said || case.has_error() || progress.end.is_none(),
                "{case:?} cut at {i}"
            );
        };
        let mut single = OpenAi.decoder(ends.0, ends.1);
        let mut out = Pieces::new();
        for i in 0..stream.len() {
            check(&out.concat(), single.progress(), i);
            single
                .feed(Bytes::copy_from_slice(&stream[i..=i]), &mut out)
                .unwrap();
            let mut at_once = OpenAi.decoder(ends.0, ends.1);
            let mut first = Pieces::new();
            at_once
                .feed(Bytes::copy_from_slice(&stream[..i]), &mut first)
                .unwrap();
            check(&first.concat(), at_once.progress(), i);
        }
    }
}

// ---- Over sockets.

#[tokio::test]
async fn every_folders_stream_passes_through_the_gateway_however_it_is_cut() {
    for (case, stream) in streams().into_iter().filter(|(case, _)| case.is_complete()) {
        // The last two bytes stay together; see `the_last_line_end_of_a_stream_is_not_lost`.
        let (start, end) = stream.split_at(stream.len() - 2);
        let mut single: Vec<Vec<u8>> = start.chunks(1).map(<[u8]>::to_vec).collect();
        single.push(end.to_vec());
        let mut acts = vec![
            Act::Pieces(Duration::ZERO, vec![stream.clone()]),
            Act::Pieces(Duration::ZERO, single),
        ];
        for n in 1..8 {
            // Odd steps, so that the cuts fall anywhere in an event.
            let at = (stream.len() * n / 8 + 7 * n) % (stream.len() - 1);
            let cut = vec![stream[..at].to_vec(), stream[at..].to_vec()];
            acts.push(Act::Pieces(Duration::from_millis(1), cut));
        }
        let times = acts.len();
        let provider = Provider::new(acts).await;
        let gateway = Gateway::start(&case.provider(&provider)).await;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..times {
            let (address, case) = (gateway.address, case.clone());
            asking.spawn(async move { case.ask(address).await });
        }
        while let Some(answer) = asking.join_next().await {
            let answer = answer.unwrap();
            let want = String::from_utf8(case.heard().unwrap()).unwrap();
            assert_eq!(answer.text(), want, "{case:?}");
        }
        let labels = format!("model=\"{0}/*\",target=\"{0}/*\"", case.preset);
        let times = u32::try_from(times).unwrap();
        let complete = format!(
            "tollgate_streams_total{{end=\"complete\",target=\"{}/*\"}}",
            case.preset
        );
        until("all are counted", || {
            gateway.metric(&complete) == f64::from(times)
        })
        .await;
        let tokens = |kinds: &[&str]| -> f64 {
            let line = |kind: &&str| {
                gateway.metric(&format!(
                    "tollgate_tokens_total{{kind=\"{kind}\",{labels}}}"
                ))
            };
            kinds.iter().map(line).sum()
        };
        let counted = [
            tokens(&["input", "cached", "cache_write", "audio_input"]),
            tokens(&["output", "reasoning"]),
        ];
        let sums = "SELECT total(input + cached + cache_write + audio_input), total(output + reasoning), total(estimated) FROM entry";
        let entered = gateway.ledger().query_row(sums, [], |row| {
            Ok(([row.get::<_, f64>(0)?, row.get(1)?], row.get::<_, f64>(2)?))
        });
        let (entered, estimated) = entered.unwrap();
        assert_eq!(counted, entered, "{case:?}");
        match told(&stream) {
            Some(told) => {
                let told = told.map(|count| count * f64::from(times));
                assert_eq!((counted, estimated), (told, 0.0), "{case:?}");
            }
            None => assert_eq!(estimated, f64::from(times), "{case:?}"),
        }
    }
}

#[tokio::test]
async fn the_last_line_end_of_a_stream_is_not_lost() {
    let stream = [delta("a"), FINISH.into(), DONE.into()]
        .concat()
        .replace('\n', "\r\n");
    let (start, end) = stream.split_at(stream.len() - 1);
    let provider = Provider::new([Act::events([start, end])]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    assert_eq!(ask(&gateway).await.text(), stream);
}

/// The streams that break off, and what the client must have of each: cut before, in and at the end of every event.
fn broken_streams() -> Vec<(Vec<String>, String)> {
    let whole = [
        ": ping\n\n".to_owned(),
        ROLE.to_owned(),
        delta("a"),
        ": ping\n\n".to_owned(),
        delta("é\u{1f44b}"),
        FINISH.to_owned(),
        USAGE.to_owned(),
        DONE.to_owned(),
    ];
    let mut all = Vec::new();
    for (n, event) in whole.iter().enumerate() {
        let before = &whole[..n];
        let heard = before.concat().replace(USAGE, "");
        for at in [0, 1, event.len() / 2, event.len() - 2] {
            let at = (0..=at)
                .rev()
                .find(|at| event.is_char_boundary(*at))
                .unwrap();
            // A comment is whole with its line, an event with the blank line; `[DONE]` says all it has to at once.
            if at > 0 && at == event.len() - 2 && (event == DONE || event.starts_with(':')) {
                continue;
            }
            let mut sent = before.to_vec();
            sent.push(event[..at].to_owned());
            sent.retain(|piece| !piece.is_empty());
            all.push((sent, heard.clone()));
        }
    }
    all
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_one_error_and_no_word_of_success() {
    let all = broken_streams();
    let mut acts = Vec::new();
    for (sent, _) in &all {
        acts.extend([Act::Cut(sent.clone()), Act::Stream(sent.clone())]);
    }
    let provider = Provider::new(acts).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let mut truncated = 0.0;
    for (sent, heard) in &all {
        for how in ["cut", "ended"] {
            let answer = ask(&gateway).await;
            let text = answer.text();
            if !heard.contains("\"a\"") {
                // Nothing had been said: the status is still to be given.
                assert_eq!(
                    (answer.status.as_u16(), answer.code().as_str()),
                    (502, "upstream_error"),
                    "{how} {sent:?}"
                );
                continue;
            }
            truncated += 1.0;
            assert_eq!(answer.status, 200);
            let (before, error) = last_error(&text);
            assert_eq!(before, heard, "{how} after {:?}", sent.last());
            assert_eq!(error["error"]["code"], "upstream_error", "{how} {text}");
            assert!(!text.contains("[DONE]"), "{how} {text}");
        }
    }
    assert_eq!(provider.count(), all.len() * 2);
    until_ended(&gateway, "truncated", truncated).await;
}

/// An error, in every form that providers have for it and clients understand.
const ERRORS: [&str; 6] = [
    "data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"code\":500}}\n\n",
    "data: {\"error\":\"x\"}\n\n",
    "data:{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}],\"error\":{\"code\":502,\"message\":\"x\"}}\n\n",
    "event: error\ndata: {\"error\":{\"message\":\"x\"}}\n\n",
    "event: error\r\ndata: {\"error\":\"x\"}\r\n\r\n",
    "data: {\"type\":\"error\",\ndata: \"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n",
];

#[tokio::test]
async fn an_error_ends_a_stream_whatever_the_provider_says_after_it() {
    let said = |error: &str| {
        [
            ROLE.to_owned(),
            delta("a"),
            error.to_owned(),
            DONE.to_owned(),
        ]
    };
    let provider = Provider::new(ERRORS.map(|error| Act::events(said(error)))).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    for error in ERRORS {
        assert_eq!(
            ask(&gateway).await.text(),
            [ROLE, &delta("a"), error].concat()
        );
    }
    until_ended(&gateway, "error", 6.0).await;
}

#[tokio::test]
async fn an_error_ends_a_stream_also_where_the_end_came_along_with_it() {
    let said = |error: &str| [delta("a"), error.to_owned() + DONE];
    let provider = Provider::new(ERRORS.map(|error| Act::events(said(error)))).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    for error in ERRORS {
        assert_eq!(ask(&gateway).await.text(), [&delta("a"), error].concat());
    }
    until_ended(&gateway, "error", 6.0).await;
}

#[tokio::test]
async fn an_error_before_any_content_moves_on_to_the_next_target() {
    let failing = Provider::new(ERRORS.map(|error| Act::events([ROLE, error, DONE]))).await;
    let stream = [delta("a"), FINISH.into(), DONE.into()];
    let other = Provider::new([Act::events(stream.clone())]).await;
    let text = format!(
        "{}[providers.q]\npreset = \"openai-compatible\"\nbase_url = \"http://{}/v1\"\n",
        with(&failing, "").replace("[\"p/m\"]", "[\"p/m\", \"q/m\"]"),
        other.address
    );
    let gateway = Gateway::start(&text).await;
    for error in ERRORS {
        assert_eq!(ask(&gateway).await.text(), stream.concat(), "{error}");
    }
}

#[tokio::test]
async fn an_error_that_no_client_would_hear_is_said_again() {
    let error = "error: {\"code\":500,\"message\":\"Context size has been exceeded.\",\"type\":\"server_error\"}\n\n";
    let provider = Provider::new([Act::events([delta("a"), error.into(), DONE.into()])]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let text = ask(&gateway).await.text();
    assert!(!text.contains("[DONE]"), "{text}");
    until_ended(&gateway, "error", 1.0).await;
    assert!(text.contains("data: {\"error\":"), "{text}");
}

#[tokio::test]
async fn errors_of_older_servers_and_of_groq_are_errors() {
    let errors = [
        "data: {\"object\":\"error\",\"message\":\"x\",\"type\":\"InternalServerError\",\"param\":null,\"code\":500}\n\n",
        "data: {\"id\":\"c\",\"choices\":[],\"x_groq\":{\"id\":\"r\",\"error\":\"x\"}}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"error\":{\"code\":502,\"message\":\"x\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
        "data: [{\"error\":{\"code\":503,\"message\":\"x\",\"status\":\"UNAVAILABLE\"}}]\n\n",
    ];
    let provider =
        Provider::new(errors.map(|error| Act::events([delta("a"), error.into(), DONE.into()])))
            .await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    for error in errors {
        let text = ask(&gateway).await.text();
        assert!(
            text.starts_with(&(delta("a") + error)) && !text.contains("[DONE]"),
            "{text}"
        );
        // No client looks for it there.
        let (before, ours) = last_error(&text);
        assert_eq!(before, delta("a") + error);
        assert_eq!(ours["error"]["code"], "upstream_error");
    }
    until_ended(&gateway, "error", 5.0).await;
}

#[tokio::test]
async fn an_event_is_sent_on_before_the_next_one_has_come() {
    let half = &delta("second")[..20];
    let provider = Provider::new([
        Act::Stall(vec![delta("first")]),
        Act::Stall(vec![delta("first") + half]),
        Act::Stall(vec![delta("first"), half.to_owned()]),
        Act::Stall(vec![ROLE.to_owned(), delta("first")]),
    ])
    .await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    for _ in 0..4 {
        let mut coming = begin(&gateway).await;
        let mut heard = Vec::new();
        while !heard.ends_with(delta("first").as_bytes()) {
            let piece = tokio::time::timeout(Duration::from_secs(2), coming.piece()).await;
            heard.extend(piece.expect("it is held back").unwrap().unwrap());
        }
        let more = tokio::time::timeout(Duration::from_millis(20), coming.piece()).await;
        assert!(more.is_err(), "half an event went out: {more:?}");
    }
}

#[tokio::test]
async fn each_event_goes_out_in_a_frame_of_its_own() {
    let events = [
        delta("a"),
        delta("b"),
        delta("c"),
        FINISH.into(),
        DONE.into(),
    ];
    let pieces = events.map(String::into_bytes);
    let provider = Provider::new([Act::Pieces(Duration::from_millis(5), pieces.to_vec())]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let mut coming = begin(&gateway).await;
    let mut heard = Vec::new();
    while let Some(piece) = coming.piece().await {
        heard.push(piece.unwrap().to_vec());
    }
    assert_eq!(heard, pieces);
}

#[tokio::test]
async fn a_provider_without_a_marker_ends_with_its_finish_reason() {
    let (complete, cut) = (
        [delta("a"), FINISH.into(), USAGE.into()],
        [delta("a"), delta("b")],
    );
    let marked = [delta("a"), FINISH.into(), USAGE.into(), DONE.into()];
    let provider = Provider::new([
        Act::events(complete.clone()),
        Act::events(marked),
        Act::events(cut.clone()),
        Act::Cut(cut.to_vec()),
    ])
    .await;
    let gateway = Gateway::start(&with(&provider, "done_marker = false")).await;
    assert_eq!(
        ask(&gateway).await.text(),
        complete[..2].concat(),
        "no marker is made up"
    );
    assert_eq!(
        ask(&gateway).await.text(),
        complete[..2].concat() + DONE,
        "nor taken out"
    );
    until_ended(&gateway, "complete", 2.0).await;
    for _ in 0..2 {
        let text = ask(&gateway).await.text();
        let (before, error) = last_error(&text);
        assert_eq!(
            (before, &error["error"]["code"]),
            (&*cut.concat(), &"upstream_error".into())
        );
    }
    until("both are counted", || ended(&gateway, "truncated") == 2.0).await;
    assert_eq!(ended(&gateway, "complete"), 2.0);
    let tokens =
        gateway.metric(r#"tollgate_tokens_total{kind="output",model="fast",target="p/m"}"#);
    assert_eq!(tokens, 6.0 + 4.0, "what was told, and what was seen");
}

#[tokio::test]
async fn after_the_end_nobody_waits_for_a_provider_that_stays() {
    let events = vec![delta("a"), FINISH.to_owned(), DONE.to_owned()];
    let provider = Provider::new([Act::Stall(events.clone())]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let began = Instant::now();
    assert_eq!(ask(&gateway).await.text(), events.concat());
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    until_ended(&gateway, "complete", 1.0).await;
    until("the provider is left", || provider.left() == 1).await;
}

#[tokio::test]
async fn who_leaves_after_the_end_has_had_a_complete_answer() {
    let events = vec![
        delta("a"),
        FINISH.to_owned(),
        USAGE.to_owned(),
        DONE.to_owned(),
    ];
    let provider = Provider::new([Act::Stall(events.clone()), Act::Stall(vec![delta("a")])]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let mut coming = begin(&gateway).await;
    let mut heard = Vec::new();
    while !heard.ends_with(DONE.as_bytes()) {
        heard.extend(coming.piece().await.unwrap().unwrap());
    }
    drop(coming);
    until_ended(&gateway, "complete", 1.0).await;
    assert_eq!(
        gateway.metric(r#"tollgate_tokens_total{kind="output",model="fast",target="p/m"}"#),
        3.0
    );

    let mut coming = begin(&gateway).await;
    coming.piece().await.unwrap().unwrap();
    drop(coming);
    until("who leaves earlier has not", || {
        ended(&gateway, "client_gone") == 1.0
    })
    .await;
    assert_eq!(ended(&gateway, "complete"), 1.0);
}

#[tokio::test]
async fn line_ends_comments_and_a_missing_last_one_pass_as_they_came() {
    let lf = format!(": one\n\n{ROLE}: two\n{}:\n\n{FINISH}{DONE}", delta("a"));
    let forms = [
        lf.clone(),
        lf.replace('\n', "\r\n"),
        lf.replace('\n', "\r"),
        lf.trim_end().to_owned(),
        lf.trim_end().to_owned() + "\n",
        lf.replace("data: ", "data:"),
        format!("\u{feff}retry: 1\n\nid: 7\n{lf}"),
    ];
    for pieces in [
        |form: &String| vec![form.clone().into_bytes()],
        |form: &String| events(form.as_bytes()),
    ] {
        let acts: Vec<Act> = forms
            .iter()
            .map(|form| Act::Pieces(Duration::from_millis(1), pieces(form)))
            .collect();
        let provider = Provider::new(acts).await;
        let gateway = Gateway::start(&with(&provider, "")).await;
        for form in &forms {
            assert_eq!(ask(&gateway).await.text(), *form);
        }
        until_ended(&gateway, "complete", 7.0).await;
    }
}

#[tokio::test]
async fn usage_is_shown_to_who_asked_and_to_nobody_else() {
    let with_finish = FINISH.replace(
        "}]}",
        "}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}",
    );
    let apart = [delta("a"), FINISH.into(), USAGE.into(), DONE.into()];
    let together = [delta("a"), with_finish, DONE.into()];
    let twice = [&together[..2], &apart[2..]].concat();
    let provider = Provider::new([
        Act::events(apart.clone()),
        Act::events(apart.clone()),
        Act::events(together.clone()),
        Act::events(together.clone()),
        Act::events(twice.clone()),
        Act::Pieces(Duration::ZERO, vec![apart.concat().into_bytes()]),
    ])
    .await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let asked =
        r#"{"model":"fast","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let asked = || async {
        post(gateway.address, "/v1/chat/completions", "", asked)
            .await
            .text()
    };
    let silent = || async { ask(&gateway).await.text() };
    let hidden = apart.concat().replace(USAGE, "");
    assert_eq!(silent().await, hidden);
    assert_eq!(asked().await, apart.concat(), "exactly once");
    assert_eq!(
        silent().await,
        together.concat(),
        "what finishes the answer stays"
    );
    assert_eq!(asked().await, together.concat());
    assert_eq!(
        silent().await,
        together.concat(),
        "only the event that we asked for goes"
    );
    assert_eq!(silent().await, hidden, "also out of the middle of a piece");
    until_ended(&gateway, "complete", 6.0).await;
    let tokens = gateway.metric(r#"tollgate_tokens_total{kind="input",model="fast",target="p/m"}"#);
    assert_eq!(tokens, 42.0, "once an answer");
}

/// A long event, and an odd number of bytes at a time.
fn in_pieces(stream: &str) -> Act {
    Act::Pieces(
        Duration::ZERO,
        stream
            .as_bytes()
            .chunks(49_999)
            .map(<[u8]>::to_vec)
            .collect(),
    )
}

#[tokio::test]
async fn an_event_of_many_mebibytes_passes_whole() {
    let image = "iVBORw0KGgo".repeat(500_000);
    let stream = [
        delta("a"),
        delta(&image),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ]
    .concat();
    let provider = Provider::new([in_pieces(&stream)]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let answer = ask(&gateway).await.text();
    assert!(
        answer == stream.replace(USAGE, ""),
        "{} of {} bytes",
        answer.len(),
        stream.len()
    );
    until_ended(&gateway, "complete", 1.0).await;
}

#[tokio::test]
async fn an_event_of_many_mebibytes_may_be_the_first() {
    let image = "iVBORw0KGgo".repeat(500_000);
    let stream = [ROLE.into(), delta(&image), FINISH.into(), DONE.into()].concat();
    let provider = Provider::new([in_pieces(&stream)]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let answer = ask(&gateway).await.text();
    let start: String = answer.chars().take(200).collect();
    assert!(
        answer == stream,
        "{} of {} bytes: {start}",
        answer.len(),
        stream.len()
    );
}

#[tokio::test]
async fn an_event_without_end_is_an_error() {
    let stream = delta("a") + "data: " + &"x".repeat(17 << 20);
    let provider = Provider::new([in_pieces(&stream)]).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    let text = ask(&gateway).await.text();
    let (before, error) = last_error(&text);
    assert_eq!(
        (before, &error["error"]["code"]),
        (&*delta("a"), &"upstream_error".into())
    );
    until_ended(&gateway, "truncated", 1.0).await;
}

#[tokio::test]
async fn a_stream_may_end_with_its_connection() {
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n";
    let whole = [
        delta("a"),
        ": keepalive\n\n".into(),
        FINISH.into(),
        DONE.into(),
    ]
    .concat();
    let said = [whole.as_str(), whole.trim_end(), &delta("a")];
    let provider =
        Provider::new(said.map(|body| Act::Raw(format!("{head}{body}").into_bytes()))).await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    assert_eq!(ask(&gateway).await.text(), whole);
    assert_eq!(ask(&gateway).await.text(), whole.trim_end());
    until_ended(&gateway, "complete", 2.0).await;
    let text = ask(&gateway).await.text();
    let (before, error) = last_error(&text);
    assert_eq!(
        (before, &error["error"]["code"]),
        (&*delta("a"), &"upstream_error".into())
    );
}

#[tokio::test]
async fn what_is_no_stream_is_none() {
    let html = Act::Answer(
        200,
        vec![("content-type", "text/html".into())],
        b"<html>".to_vec(),
    );
    let provider = Provider::new([
        Act::json(completion("x")),
        html,
        Act::events([""; 0]),
        Act::events([": ping\n\n"; 3]),
    ])
    .await;
    let gateway = Gateway::start(&with(&provider, "")).await;
    for _ in 0..4 {
        let answer = ask(&gateway).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (502, "upstream_error")
        );
    }
}
