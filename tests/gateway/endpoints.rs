//! Every endpoint goes the one path: what each takes is counted, priced, held and limited, whatever its answer is made of.

use std::time::Duration;

use http::Method;

use crate::cli::{Served, folder_with, tollgate};
use crate::support::books::{Books, Entry};
use crate::support::client::{self, Answer, open};
use crate::support::form::{BOUNDARY, form, type_of, type_of_form};
use crate::support::money::{budget, key, of, strict};
use crate::support::{Act, Gateway, Provider, completion, until};

async fn sends(gateway: &Gateway, path: &str, kind: &str, body: Vec<u8>) -> Answer {
    let headers = [("authorization", "Bearer sk-ann"), ("content-type", kind)];
    let sent = client::send(gateway.address, Method::POST, path, &headers, body);
    client::whole(sent.await).await
}

/// What is asked: a path, and a body that is a form where it does not begin with a brace.
pub async fn asks(gateway: &Gateway, path: &str, body: &[u8]) -> Answer {
    sends(gateway, path, &type_of(body), body.to_vec()).await
}

fn sound(bytes: &[u8]) -> Act {
    Act::Answer(
        200,
        vec![("content-type", "audio/mpeg".to_owned())],
        bytes.to_vec(),
    )
}

fn plain(text: &str) -> Act {
    let kind = vec![("content-type", "text/plain".to_owned())];
    Act::Answer(200, kind, text.as_bytes().to_vec())
}

/// A gateway with one model at a price, whom `ann` may ask.
pub async fn priced(provider: &Provider, price: &str, ann: &str) -> Gateway {
    let model = format!("[models.m]\ntargets = [{{ to = \"p/m\", {price} }}]\n");
    Gateway::start(&[of("p", provider, ""), model, key("ann", ann)].concat()).await
}

pub fn entries(gateway: &Gateway) -> Vec<Entry> {
    Books::so_far(gateway).rows()
}

/// What a request is like, and what it is entered with.
struct Case {
    path: &'static str,
    body: Vec<u8>,
    act: Act,
    price: &'static str,
    /// Tokens of input and of output, and how much of a unit.
    used: ([i64; 2], &'static str, i64),
    /// In billionths. None: nobody knows.
    cost: Option<i64>,
    estimated: bool,
}

const SPEECH: &str = "/v1/audio/speech";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const IMAGES: &str = "/v1/images/generations";
const RERANK: &str = "/v1/rerank";

#[expect(
    clippy::too_many_lines,
    reason = "one entry for each shape of an answer"
)]
fn cases() -> Vec<Case> {
    let heard = |more: &[(&str, &str)]| {
        let texts = [more, &[("model", "m")]].concat();
        form(&[7; 8_000], &texts)
    };
    let case = |path, body: Vec<u8>, act, price, used, cost, estimated| Case {
        path,
        body,
        act,
        price,
        used,
        cost,
        estimated,
    };
    let json = |text: &str| text.as_bytes().to_vec();
    let speech = json(r#"{"model":"m","input":"Gr\u00fcezi 😀","voice":"v"}"#);
    let images = json(r#"{"model":"m","prompt":"abcd","n":2}"#);
    let ranked = json(r#"{"model":"m","query":"q","documents":["a","b"]}"#);
    let drawn = r#"{"created":1,"data":[{"b64_json":"AA"},{"b64_json":"AA"}]}"#;
    let tokens = r#"{"created":1,"data":[{}],"usage":{"input_tokens":10,"output_tokens":272,"total_tokens":282}}"#;
    let response = r#"{"id":"resp_1","object":"response","status":"completed","error":null,"output":[],"usage":{"input_tokens":7,"output_tokens":3,"total_tokens":10}}"#;
    vec![
        // Eight characters, whatever they are written as.
        case(
            SPEECH,
            speech.clone(),
            sound(b"ID3"),
            "price = { characters = 15 }",
            ([0, 0], "characters", 8),
            Some(120_000),
            false,
        ),
        case(
            TRANSCRIPTIONS,
            heard(&[]),
            Act::json(r#"{"text":"a","usage":{"type":"duration","seconds":9}}"#),
            "price = { seconds = 0.0001 }",
            ([0, 0], "seconds", 9),
            Some(900_000),
            false,
        ),
        case(
            TRANSCRIPTIONS,
            heard(&[("response_format", "verbose_json")]),
            Act::json(r#"{"duration":8.47,"text":"a"}"#),
            "price = { seconds = 0.0001 }",
            ([0, 0], "seconds", 9),
            Some(900_000),
            false,
        ),
        // Nobody says how long it was: a guess, by its bytes.
        case(
            TRANSCRIPTIONS,
            heard(&[("response_format", "text")]),
            plain("four words\n"),
            "price = { seconds = 0.0001 }",
            ([0, 2], "seconds", 3),
            Some(300_000),
            true,
        ),
        case(
            TRANSCRIPTIONS,
            heard(&[]),
            Act::json(
                r#"{"text":"a","usage":{"type":"tokens","input_tokens":14,"output_tokens":31,"total_tokens":45}}"#,
            ),
            "price = { input = 1, output = 2 }, context = 16000, max_output = 2000",
            ([14, 31], "seconds", 0),
            Some(76_000),
            false,
        ),
        case(
            "/v1/audio/translations",
            heard(&[]),
            Act::json(r#"{"text":"a","usage":{"type":"duration","seconds":2}}"#),
            "price = { seconds = 0.0001 }",
            ([0, 0], "seconds", 2),
            Some(200_000),
            false,
        ),
        case(
            IMAGES,
            images.clone(),
            Act::json(drawn),
            "price = { images = 0.04 }",
            ([0, 0], "images", 2),
            Some(80_000_000),
            false,
        ),
        case(
            IMAGES,
            images,
            Act::json(tokens),
            "price = { input = 5, output = 40 }, max_output = 10000",
            ([10, 272], "images", 2),
            Some(10_930_000),
            false,
        ),
        case(
            RERANK,
            ranked.clone(),
            Act::json(r#"{"results":[],"meta":{"billed_units":{"search_units":3}}}"#),
            "price = { searches = 0.002 }",
            ([0, 0], "searches", 3),
            Some(6_000_000),
            false,
        ),
        case(
            RERANK,
            ranked.clone(),
            Act::json(r#"{"results":[]}"#),
            "price = { searches = 0.002 }",
            ([12, 0], "searches", 1),
            Some(2_000_000),
            true,
        ),
        case(
            RERANK,
            ranked,
            Act::json(r#"{"results":[],"usage":{"total_tokens":20}}"#),
            "price = { input = 1, output = 0 }",
            ([20, 0], "searches", 0),
            Some(20_000),
            false,
        ),
        case(
            "/v1/moderations",
            json(r#"{"model":"m","input":"abcd"}"#),
            Act::json(r#"{"id":"modr-1","results":[]}"#),
            "price = { input = 0, output = 0 }",
            ([7, 0], "images", 0),
            Some(0),
            true,
        ),
        case(
            "/v1/responses",
            json(r#"{"model":"m","input":"hi","max_output_tokens":9}"#),
            Act::json(response),
            "price = { input = 1, output = 2 }",
            ([7, 3], "images", 0),
            Some(13_000),
            false,
        ),
    ]
}

#[tokio::test]
async fn each_endpoint_is_entered_with_what_it_took() {
    for (n, case) in cases().into_iter().enumerate() {
        let provider = Provider::new([case.act.clone()]).await;
        let gateway = priced(&provider, case.price, &budget("1")).await;
        let answer = asks(&gateway, case.path, &case.body).await;
        let at = format!(
            "{n}: {}: {}",
            case.path,
            String::from_utf8_lossy(&answer.body)
        );
        assert_eq!(answer.status, 200, "{at}");
        let (tokens, unit, count) = case.used;
        until(&at, || entries(&gateway).len() == 1).await;
        let sum = format!(
            "SELECT input + cached + audio_input, output, coalesce({unit}, 0), cost, estimated, api FROM entry"
        );
        let entry = gateway.ledger().query_row(&sum, [], |row| {
            let used: [i64; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok((
                used,
                row.get::<_, Option<i64>>(3)?,
                row.get::<_, bool>(4)?,
                row.get::<_, String>(5)?,
            ))
        });
        let (used, cost, estimated, api) = entry.unwrap();
        assert_eq!(used, [tokens[0], tokens[1], count], "{at}");
        assert_eq!((cost, estimated), (case.cost, case.estimated), "{at}");
        let asked = case.path.trim_start_matches("/v1/").replace('/', "_");
        assert_eq!(api, asked, "{at}");
        if count > 0 {
            let metric =
                format!("tollgate_units_total{{kind=\"{unit}\",model=\"m\",target=\"p/m\"}}");
            let count = f64::from(i32::try_from(count).unwrap());
            assert_eq!(gateway.metric(&metric), count, "{at}");
        }
    }
}

#[tokio::test]
async fn what_may_cost_more_than_is_left_is_not_sent_whatever_its_unit_is() {
    let [form, longer] = [75_000, 77_000].map(|bytes| form(&vec![7; bytes], &[("model", "m")]));
    let images = |n: u32| format!(r#"{{"model":"m","prompt":"a","n":{n}}}"#).into_bytes();
    let speech = |n: usize| format!(r#"{{"model":"m","input":"{}"}}"#, "é".repeat(n)).into_bytes();
    let documents = |n: usize| {
        let list = vec!["a"; n];
        format!(r#"{{"model":"m","query":"q","documents":{list:?}}}"#).into_bytes()
    };
    for (path, price, usd, fits, too_much) in [
        (IMAGES, "images = 0.04", "0.1", images(2), images(3)),
        (SPEECH, "characters = 1000", "0.1", speech(100), speech(101)),
        (
            RERANK,
            "searches = 0.05",
            "0.1",
            documents(200),
            documents(201),
        ),
        // A hundred seconds at the lowest bit rate there is, and a few for the form.
        (
            TRANSCRIPTIONS,
            "seconds = 0.001",
            "0.102",
            form.clone(),
            longer,
        ),
    ] {
        let act = match path {
            SPEECH => sound(b"ID3"),
            _ => Act::json(completion("x")),
        };
        let provider = Provider::new([act]).await;
        let gateway = priced(&provider, &format!("price = {{ {price} }}"), &strict(usd)).await;
        let refused = asks(&gateway, path, &too_much).await;
        assert_eq!(refused.status, 429, "{path}: {}", refused.text());
        assert_eq!(refused.code(), "budget_exceeded", "{path}");
        assert_eq!(provider.count(), 0, "{path}");
        let answer = asks(&gateway, path, &fits).await;
        assert_eq!(
            answer.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        // Whatever was set aside and not used is there again, or all of it is spent: never more.
        let spent = entries(&gateway)
            .iter()
            .filter_map(|it| it.cost)
            .sum::<u64>();
        assert!(spent > 0 && spent <= 102_000_000, "{path}: {spent}");
    }
}

#[tokio::test]
async fn whose_use_nobody_can_bound_has_no_price() {
    // Sound has no length in tokens that a request would tell, and pictures neither.
    let transcript = form(&[7; 100], &[("model", "m")]);
    let speech = br#"{"model":"m","input":"a"}"#.to_vec();
    let chat = br#"{"model":"m","messages":[]}"#.to_vec();
    let by_token = "price = { input = 1, output = 2 }";
    for (path, body, price) in [
        (SPEECH, &speech, by_token),
        (TRANSCRIPTIONS, &transcript, by_token),
        ("/v1/chat/completions", &chat, "price = { characters = 15 }"),
        (SPEECH, &speech, "price = { seconds = 1 }"),
    ] {
        let provider = Provider::new([sound(b"ID3")]).await;
        let gateway = priced(&provider, price, &budget("1")).await;
        let refused = asks(&gateway, path, body).await;
        assert_eq!(refused.status, 503, "{path} {price}: {}", refused.text());
        assert!(refused.text().contains("price"), "{}", refused.text());
        assert_eq!(provider.count(), 0);
    }
    // Where the operator says how much there may be at most, it has one.
    let provider = Provider::new([sound(b"ID3")]).await;
    let price = format!("{by_token}, max_output = 1000");
    let gateway = priced(&provider, &price, &budget("1")).await;
    assert_eq!(asks(&gateway, SPEECH, &speech).await.status, 200);
    until("it is entered", || entries(&gateway).len() == 1).await;
    let entry = &entries(&gateway)[0];
    let most = 1_000 * 2_000 + (speech.len() as u64 + 256) * 1_000;
    assert_eq!(entry.cost, Some(most), "nobody sees what it was: the most");
    assert!(entry.estimated);
}

#[tokio::test]
async fn what_a_price_does_not_speak_of_is_not_free() {
    let chat = br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#.to_vec();
    let transcript = form(&[7; 100], &[("model", "m")]);
    let by_length = r#"{"text":"a b c d","usage":{"type":"duration","seconds":9}}"#;
    let by_token = "price = { input = 1, output = 2 }";
    for (path, body, act, price, cost) in [
        // A price by character says nothing of a chat.
        (
            "/v1/chat/completions",
            &chat,
            completion("x"),
            "price = { characters = 15 }",
            None,
        ),
        // A length says nothing of tokens: a guess, by what was heard.
        (
            TRANSCRIPTIONS,
            &transcript,
            by_length.to_owned(),
            by_token,
            Some(by_length.len() as u64 / 4 * 2_000),
        ),
    ] {
        let provider = Provider::new([Act::json(act)]).await;
        let gateway = priced(&provider, price, "").await;
        assert_eq!(asks(&gateway, path, body).await.status, 200, "{path}");
        until("it is entered", || entries(&gateway).len() == 1).await;
        let entry = &entries(&gateway)[0];
        assert_eq!(entry.cost, cost, "{path}");
        assert_eq!(entry.estimated, cost.is_some(), "{path}");
    }
}

#[tokio::test]
async fn sound_is_passed_on_while_it_comes_and_never_made_up() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n3\r\nID3\r\n";
    let provider = Provider::new([
        Act::Hold(head.to_vec()),
        Act::Raw(head.to_vec()),
        sound(b""),
    ])
    .await;
    let gateway = priced(&provider, "price = { characters = 15 }", &budget("1")).await;
    let body = r#"{"model":"m","input":"four"}"#;
    // Nothing more comes, and what has come is there already.
    let mut coming = open(gateway.address, SPEECH, "sk-ann", body).await;
    let piece = tokio::time::timeout(Duration::from_secs(5), coming.piece()).await;
    assert_eq!(piece.unwrap().unwrap().unwrap(), "ID3");
    drop(coming);
    until("it is entered", || entries(&gateway).len() == 1).await;
    // It breaks off: so does what the client gets.
    let coming = open(gateway.address, SPEECH, "sk-ann", body).await;
    let (bytes, is_complete) = coming.rest().await;
    assert_eq!((bytes.as_slice(), is_complete), (&b"ID3"[..], false));
    // Silence of no bytes is no answer.
    let nothing = asks(&gateway, SPEECH, body.as_bytes()).await;
    assert_eq!(nothing.status, 502, "{}", nothing.text());
    until("all are entered", || entries(&gateway).len() == 3).await;
    let ends: Vec<_> = entries(&gateway)
        .iter()
        .map(|it| (it.end.clone(), it.cost))
        .collect();
    // It was sent, so its characters may be billed.
    let cost = Some(60_000);
    for (end, paid) in &ends {
        assert_eq!(*paid, cost, "{end}");
    }
    let ends: Vec<&str> = ends.iter().map(|(end, _)| end.as_str()).collect();
    assert_eq!(ends, ["client_gone", "truncated", "nonsense"]);
}

#[tokio::test]
async fn an_error_in_the_clothes_of_sound_moves_on() {
    let error = r#"{"error":{"message":"overloaded","type":"server_error"}}"#;
    let provider = Provider::new([Act::json(error), plain("busy"), sound(b"ID3")]).await;
    let text = of("p", &provider, "")
        + "[models.m]\ntargets = [\"p/a\", \"p/b\", \"p/c\"]\n"
        + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let answer = asks(&gateway, SPEECH, br#"{"model":"m","input":"a"}"#).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"ID3"[..]));
    assert_eq!(answer.header("x-tollgate-tries"), Some("3"));
    assert_eq!(answer.header("content-type"), Some("audio/mpeg"));
}

#[tokio::test]
async fn a_form_that_can_be_read_in_two_ways_is_refused() {
    let provider = Provider::new([Act::json(r#"{"text":""}"#)]).await;
    let text = of("p", &provider, "") + "[models.m]\ntargets = [\"p/m\"]\n" + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let good = form(b"sound", &[("model", "m")]);
    let none = form(b"sound", &[("language", "de")]);
    let two = form(b"sound", &[("model", "m"), ("model", "n")]);
    let disguised = form(b"sound", &[("Model", "m")]);
    let long = format!("multipart/form-data; boundary={}", "b".repeat(200));
    let kind = type_of_form();
    for (name, kind, body, status, word) in [
        ("no model", kind.as_str(), none, 400, "`model`"),
        ("two models", &kind, two, 400, "`model` is given twice"),
        (
            "a disguise",
            &kind,
            disguised,
            400,
            "must be written `model`",
        ),
        ("a long boundary", &long, good.clone(), 400, "70 characters"),
        (
            "no boundary",
            "multipart/form-data",
            good.clone(),
            400,
            "no boundary",
        ),
        (
            "another boundary",
            "multipart/form-data; boundary=other",
            good.clone(),
            400,
            "form data",
        ),
        (
            "a lie: it is JSON",
            &kind,
            br#"{"model":"m"}"#.to_vec(),
            400,
            "form data",
        ),
        (
            "a lie: it is none",
            "application/json",
            good.clone(),
            415,
            "multipart/form-data",
        ),
        ("nothing", &kind, Vec::new(), 400, "form data"),
    ] {
        let answer = sends(&gateway, TRANSCRIPTIONS, kind, body).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.text());
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(word), "{name}: {message}");
    }
    let chat = sends(&gateway, "/v1/chat/completions", &kind, good.clone()).await;
    assert_eq!(chat.status, 415, "{}", chat.text());
    assert_eq!(provider.count(), 0);
    // A file without a byte is for the provider to judge.
    let empty = form(b"", &[("model", "m")]);
    assert_eq!(asks(&gateway, TRANSCRIPTIONS, &empty).await.status, 200);
    assert_eq!(provider.only().body, form(b"", &[("model", "m")]));
}

#[tokio::test]
async fn a_body_that_is_said_to_be_two_things_is_refused() {
    let provider = Provider::new([Act::json(r#"{"text":""}"#)]).await;
    let text = of("p", &provider, "") + "[models.m]\ntargets = [\"p/m\"]\n" + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let (good, kind) = (form(b"sound", &[("model", "m")]), type_of_form());
    let headers = [
        ("authorization", "Bearer sk-ann"),
        ("content-type", kind.as_str()),
        ("content-type", "multipart/form-data; boundary=other"),
    ];
    let twice = client::send(
        gateway.address,
        Method::POST,
        TRANSCRIPTIONS,
        &headers,
        good,
    );
    let twice = client::whole(twice.await).await;
    assert_eq!(twice.status, 400, "{}", twice.text());
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn a_form_that_is_cut_anywhere_is_not_sent_and_one_in_pieces_is_the_same() {
    let provider = Provider::new([Act::json(r#"{"text":""}"#)]).await;
    let text = of("p", &provider, "") + "[models.m]\ntargets = [\"p/else\"]\n" + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let whole = form(
        b"\r\n--b0und\x00\xff",
        &[("language", "de"), ("model", "m")],
    );
    // The line end after the last boundary may be missing.
    for at in 0..whole.len() - 2 {
        let answer = asks(
            &gateway,
            TRANSCRIPTIONS,
            &[b"-", &whole[1..at.max(1)]].concat(),
        )
        .await;
        assert_eq!(answer.status, 400, "{at}: {}", answer.text());
    }
    assert_eq!(provider.count(), 0);
    let want = form(
        b"\r\n--b0und\x00\xff",
        &[("language", "de"), ("model", "else")],
    );
    for at in 1..whole.len() {
        let (first, second) = whole.split_at(at);
        let mut request = format!(
            "POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-ann\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
            type_of_form()
        )
        .replace("host: x", &format!("host: {}", gateway.address))
        .into_bytes();
        for piece in [first, second] {
            request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            request.extend_from_slice(piece);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        let answer = client::raw(gateway.address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{at}: {answer}");
    }
    for received in provider.received() {
        assert_eq!(received.body, want);
        assert_eq!(received.header("content-type"), Some(&*type_of_form()));
        assert_eq!(
            received.header("content-length"),
            Some(&*want.len().to_string())
        );
    }
}

#[tokio::test]
async fn a_form_that_is_sent_again_with_another_boundary_has_its_twin() {
    let provider = Provider::new([Act::json(r#"{"text":"once"}"#)]).await;
    let text = of("p", &provider, "") + "[models.m]\ntargets = [\"p/m\"]\n" + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let ask = async |boundary: &str, file: &[u8]| {
        let body = form(file, &[("model", "m")]);
        let body = String::from_utf8(body).unwrap().replace(BOUNDARY, boundary);
        let kind = format!("multipart/form-data; boundary={boundary}");
        let headers = [
            ("authorization", "Bearer sk-ann"),
            ("content-type", kind.as_str()),
            ("idempotency-key", "k"),
        ];
        let sent = client::send(
            gateway.address,
            Method::POST,
            TRANSCRIPTIONS,
            &headers,
            body,
        );
        client::whole(sent.await).await
    };
    assert_eq!(ask("first", b"sound").await.status, 200);
    let again = ask("second", b"sound").await;
    assert_eq!(
        (again.status.as_u16(), again.text().as_str()),
        (200, r#"{"text":"once"}"#)
    );
    assert_eq!(provider.count(), 1);
    assert_eq!(ask("third", b"other").await.status, 422);
}

#[tokio::test]
async fn rules_change_forms_as_they_change_json() {
    let provider = Provider::new([Act::json(r#"{"text":""}"#)]).await;
    let text = of("p", &provider, "")
        + "[models.m]\ntargets = [\"p/else\"]\nrules = { drop = [\"prompt\"], set = { language = \"fr\", temperature = 0 }, rename = { hotwords = \"keywords\" } }\n"
        + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let body = form(
        b"x",
        &[
            ("prompt", "p"),
            ("hotwords", "h"),
            ("language", "de"),
            ("model", "m"),
        ],
    );
    let answer = asks(&gateway, TRANSCRIPTIONS, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-dropped"), Some("prompt"));
    let want = form(
        b"x",
        &[
            ("keywords", "h"),
            ("language", "fr"),
            ("model", "else"),
            ("temperature", "0"),
        ],
    );
    let sent = provider.only().text();
    assert_eq!(sent, String::from_utf8(want).unwrap());
}

/// How much memory a process has (`VmRSS:`), or ever had at once (`VmHWM:`), in bytes.
fn memory(process: u32, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn an_upload_takes_its_size_in_memory_and_not_much_more() {
    let provider = Provider::new([Act::json(r#"{"text":""}"#)]).await;
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned()
        + &of("p", &provider, "")
        + "[models.m]\ntargets = [\"p/else\"]\n"
        + &key("ann", "");
    let folder = folder_with(&text);
    let mut served = Served::spawn(tollgate(folder.path()).env("SOME_KEY", "x"));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], served.port()));
    let upload = async |bytes: usize, framing: &[(&str, &str)]| {
        let body = form(&vec![7; bytes], &[("model", "m")]);
        let kind = type_of_form();
        let headers = [
            ("authorization", "Bearer sk-ann"),
            ("content-type", kind.as_str()),
        ];
        let headers = [&headers, framing].concat();
        let sent = client::send(address, Method::POST, TRANSCRIPTIONS, &headers, body);
        assert_eq!(client::whole(sent.await).await.status, 200);
    };
    let chunked = &[("transfer-encoding", "chunked")][..];
    // What it takes to serve such at all is there already, in whichever worker the next connection comes to.
    for _ in 0..8 {
        let one = || upload(700 << 10, chunked);
        tokio::join!(one(), one(), one(), one());
    }
    let before = memory(served.id(), "VmRSS:");
    // One that states its length, and one whose length nobody knows before its end.
    for (size, framing) in [(25 << 20, &[][..]), (60 << 20, chunked)] {
        upload(size, framing).await;
        let more = memory(served.id(), "VmHWM:") - before;
        let most = (size + (1 << 20)) as u64;
        assert!(more < most, "{size} bytes: {} KiB more", more >> 10);
        let sent = provider.received().pop().unwrap().body;
        assert!(
            sent == form(&vec![7; size], &[("model", "else")]),
            "to the byte"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_a_provider_lacks_makes_nothing_else_of_it_rest() {
    /// More than a model may retry of its own.
    const TIMES: usize = 150;
    let detail = Act::status(404, r#"{"detail":"Not Found"}"#);
    let engine = r#"{"error":{"code":501,"message":"This server does not support reranking.","type":"not_supported_error"}}"#;
    for lacking in [
        detail,
        Act::status(501, engine),
        Act::status(405, r#"{"detail":"Method Not Allowed"}"#),
        Act::Answer(
            404,
            vec![("content-type", "text/plain".to_owned())],
            b"404 page not found".to_vec(),
        ),
    ] {
        let mut acts = vec![lacking; TIMES];
        acts.push(Act::json(completion("here")));
        let (first, second) = (
            Provider::new(acts).await,
            Provider::new([Act::json(completion("there"))]).await,
        );
        let text = of("a", &first, "")
            + &of("b", &second, "")
            + "[models.m]\ntargets = [\"a/m\", \"b/m\"]\n"
            + &key("ann", "");
        let gateway = Gateway::start(&text).await;
        let rank = br#"{"model":"m","query":"q","documents":["a"]}"#;
        for _ in 0..TIMES {
            assert_eq!(
                asks(&gateway, RERANK, rank)
                    .await
                    .header("x-tollgate-target"),
                Some("b/m")
            );
        }
        assert_eq!(first.count(), TIMES, "once each time, and it never rests");
        let chat = br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
        let answer = asks(&gateway, "/v1/chat/completions", chat).await;
        assert_eq!(
            answer.header("x-tollgate-target"),
            Some("a/m"),
            "{}",
            answer.text()
        );
    }
}
