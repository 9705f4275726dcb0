//! Errors as providers tell them: statuses, forms, within streams.

use crate::comes::{FAULT, FAULT_ONCE, REFUSED, breaks, busy, clients, fails};
use crate::fault::{Billed, Comes, Fault, Told};
use crate::recorded::{DONE, first, with};
use crate::support::Act;

/// An error in OpenAI's envelope.
fn envelope(code: &str) -> String {
    format!(r#"{{"error":{{"message":"m","type":"some_error","param":null,"code":"{code}"}}}}"#)
}

/// Each status.
pub fn statuses() -> Vec<Fault> {
    let statuses = [
        (302, FAULT_ONCE),
        (400, clients(400, "their_code", false)),
        (401, REFUSED),
        (402, REFUSED),
        (403, REFUSED),
        (404, clients(404, "their_code", true)),
        (408, FAULT),
        (409, FAULT),
        (413, clients(413, "their_code", true)),
        (422, clients(422, "their_code", false)),
        (500, FAULT),
        (502, FAULT),
        (503, FAULT),
        (504, FAULT),
        (524, FAULT_ONCE),
        (529, FAULT),
    ];
    let answers = statuses.into_iter().map(|(status, comes)| {
        let act = Act::status(status, envelope("their_code"));
        Fault::any(&status.to_string(), &comes, act)
    });
    answers.collect()
}

/// With hints and without, and well at last.
pub fn limits() -> Vec<Fault> {
    let limit = || Act::status(429, envelope("rate_limit"));
    let hint = r#"{"error":{"message":"Please try again in 20ms.","code":"rate_limit_exceeded"}}"#;
    vec![
        Fault::any("429", &busy(2, 2), limit()),
        Fault::any(
            "429, come back in 20 ms",
            &busy(2, 1),
            limit().with("retry-after-ms", "20"),
        ),
        Fault::any(
            "429, come back in a second",
            &busy(2, 1),
            limit().with("retry-after", "1"),
        ),
        Fault::any(
            "429, come back in a minute",
            &busy(1, 1),
            limit().with("retry-after", "60"),
        ),
        Fault::any(
            "429, come back in 20 ms, says its message",
            &busy(2, 1),
            Act::status(429, hint),
        ),
        Fault::any(
            "429, and no use to come back",
            &busy(1, 1),
            limit().with("x-should-retry", "false"),
        ),
        Fault::any(
            "429, the quota is used up",
            &busy(1, 1),
            Act::status(429, envelope("insufficient_quota")),
        ),
        Fault::any(
            "503, come back in 20 ms",
            &fails(
                (502, "upstream_error"),
                "provider_fault",
                (2, 1),
                Billed::No,
            ),
            Act::status(503, "{}").with("retry-after-ms", "20"),
        ),
        Fault::any("503 without a body", &FAULT, Act::status(503, "")),
        Fault::any(
            "503, the body cut",
            &FAULT,
            Act::Raw(b"HTTP/1.1 503 X\r\ncontent-length: 99\r\n\r\n{\"err".to_vec()),
        ),
        Fault::any(
            "503, then well",
            &Comes::Again("provider_fault", Billed::No),
            Act::status(503, "{}"),
        )
        .then_well(),
        Fault::any(
            "429, then well",
            &Comes::Again("rate_limited", Billed::No),
            limit(),
        )
        .then_well(),
        Fault::any(
            "reset, then well",
            &Comes::Again("reset", Billed::Yes),
            Act::Reset,
        )
        .then_well(),
    ]
}

/// Each form, with a status of its own, and in the clothes of an answer.
pub fn error_forms() -> Vec<Fault> {
    let asked = |name: &str, code, body: &str| {
        Fault::any(
            &format!("400: {name}"),
            &clients(400, code, false),
            Act::status(400, body),
        )
    };
    let dressed = |name: &str, comes: &Comes, body: &str| {
        Fault::any(&format!("200: {name}"), comes, Act::json(body))
    };
    vec![
        asked("OpenAI's envelope", "their_code", &envelope("their_code")),
        asked("a text for an error", "", r#"{"error":"no such thing"}"#),
        asked("a message alone", "", r#"{"message":"no such thing"}"#),
        asked("a detail", "", r#"{"detail":"no such thing"}"#),
        asked(
            "a list of details",
            "",
            r#"{"detail":[{"loc":["body","x"],"msg":"extra"}]}"#,
        ),
        asked(
            "Google's list",
            "400",
            r#"[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]"#,
        ),
        asked(
            "Anthropic's envelope",
            "",
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#,
        ),
        asked(
            "vLLM's older one",
            "400",
            r#"{"object":"error","message":"no","type":"BadRequestError","code":400}"#,
        ),
        asked("plain text", "", "no such thing"),
        asked("a page", "upstream_error", "<html>no</html>"),
        asked("nothing", "upstream_error", ""),
        dressed(
            "an error with a status",
            &FAULT,
            r#"{"error":{"message":"m","code":503}}"#,
        ),
        dressed(
            "an error that means a limit",
            &busy(2, 2),
            r#"{"error":{"message":"m","code":429}}"#,
        ),
        dressed(
            "an error that is a text",
            &FAULT,
            r#"{"error":"something broke"}"#,
        ),
        dressed(
            "an error of the client's",
            &clients(400, "", false),
            r#"{"error":{"message":"m","type":"invalid_request_error"}}"#,
        ),
        dressed(
            "Anthropic's overload",
            &FAULT,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
        ),
    ]
}

/// Each form, at a stream's beginning and in its middle.
pub fn errors_in_streams() -> Vec<Fault> {
    let forms = [
        (
            "OpenAI's",
            "data: {\"error\":{\"message\":\"m\",\"code\":\"overloaded\"}}\n\n",
            "overloaded",
        ),
        ("a text", "data: {\"error\":\"overloaded\"}\n\n", ""),
        (
            "an event by this name",
            "event: error\ndata: {\"message\":\"m\"}\n\n",
            "upstream_error",
        ),
        (
            "older llama.cpp's",
            "error: {\"code\":500,\"message\":\"m\"}\n\n",
            "upstream_error",
        ),
        (
            "beside empty choices",
            "data: {\"choices\":[],\"error\":{\"message\":\"m\",\"code\":502}}\n\n",
            "",
        ),
        (
            "a finish reason",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
            "upstream_error",
        ),
    ];
    let mut all = Vec::new();
    for (name, event, code) in forms {
        let at_once = with(with(vec![], event), DONE);
        let heard = with(first(3), event);
        let later = with(heard.clone(), DONE);
        all.push(
            Fault::of(&format!("an error for a stream: {name}"))
                .streams(Act::Stream(at_once), &FAULT),
        );
        all.push(
            Fault::of(&format!("an error in the stream: {name}"))
                .streams(Act::Stream(later), &breaks(code, "error", Told::No))
                .hears(heard.concat()),
        );
    }
    all
}
