//! Whose fault a failure is, what could still help, and how long to wait.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode};

use super::unfit::{self, Unfit};
use crate::protocol::ErrorBody;

/// Who must do something about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client: its request is wrong, here as elsewhere. It hears the provider's own words.
    Client,
    /// The operator: the provider refuses our credentials. Its words are not for clients.
    Credentials,
    /// Nobody: there is too much at once.
    Busy,
    /// The provider.
    Provider,
}

/// What could still help after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same target once more.
    Here,
    /// Another target.
    Elsewhere,
    /// Nothing.
    Never,
}

/// What an error means. Facts: RFC 9110, and each provider's list of errors.
///
/// Beside the status only words for programs are read, and of a message its beginning: further in, a prompt may be
/// said back, and a prompt may say anything.
pub fn judge(status: StatusCode, headers: &HeaderMap, said: &ErrorBody) -> (Fault, Retry) {
    let (fault, retry) = match (status.as_u16(), Unfit::of(status, said)) {
        // Another target may have more room.
        (_, Some(Unfit::TooLong)) => (Fault::Client, Retry::Elsewhere),
        // Nobody else is asked for that unless an operator wants it.
        (_, Some(Unfit::Flagged)) => (Fault::Client, Retry::Never),
        (status, None) => by_status(status, said),
    };
    let told = headers
        .get("x-should-retry")
        .map(http::HeaderValue::as_bytes);
    match (told, retry) {
        (Some(b"false"), Retry::Here) => (fault, Retry::Elsewhere),
        _ => (fault, retry),
    }
}

/// What an error means that is not about what was asked.
fn by_status(status: u16, said: &ErrorBody) -> (Fault, Retry) {
    match status {
        // A bad key, or a bill that is not paid, in the clothes of a bad request: Gemini, xAI, Anthropic.
        400 if refuses_us(said) || is_used_up(said) => (Fault::Credentials, Retry::Elsewhere),
        401..=403 => (Fault::Credentials, Retry::Elsewhere),
        // It does nothing of the kind, for whatever model.
        405 | 501 => (Fault::Client, Retry::Elsewhere),
        // The model or the room for it may be there elsewhere.
        404 | 413 => (Fault::Client, Retry::Elsewhere),
        408 | 409 | 425 => (Fault::Provider, Retry::Here),
        // A quota that is used up does not come back in a moment.
        429 if is_used_up(said) => (Fault::Busy, Retry::Elsewhere),
        429 => (Fault::Busy, Retry::Here),
        // Cohere: invalid token. Groq: flex capacity exceeded.
        498 if begins(said, "invalid") => (Fault::Credentials, Retry::Elsewhere),
        // Groq: failed dependency.
        424 | 498 => (Fault::Provider, Retry::Here),
        400..=499 => (Fault::Client, Retry::Never),
        // Cloudflare gave up waiting; the work may have been done, so not here again.
        524 => (Fault::Provider, Retry::Elsewhere),
        500..=599 => (Fault::Provider, Retry::Here),
        _ => (Fault::Provider, Retry::Elsewhere),
    }
}

/// Whether it says that there is nothing where it was asked, rather than that it lacks the model: what else it does is as well
/// as before. So say servers by their frameworks (Go, Python, Node, llama.cpp), `OpenAI` and Groq.
pub fn lacks_endpoint(status: StatusCode, said: &ErrorBody) -> bool {
    const STARTS: [&str; 7] = [
        "404 page not found",
        "cannot post",
        "file not found",
        "invalid url",
        "not found",
        "page not found",
        "unknown request url",
    ];
    match status.as_u16() {
        405 | 501 => true,
        404 => said.message.is_none() || STARTS.iter().any(|start| begins(said, start)),
        _ => false,
    }
}

/// It does not know us, whatever status it says so with.
fn refuses_us(said: &ErrorBody) -> bool {
    let mut words = said.words();
    words.any(|word| matches!(word, "API_KEY_INVALID" | "invalid_api_key"))
        || begins(said, "api key not valid")
        || begins(said, "incorrect api key provided")
}

/// A quota, a budget or a balance is used up, and is not there again in a moment.
fn is_used_up(said: &ErrorBody) -> bool {
    let is_quota = |word: &str| {
        matches!(
            word,
            "insufficient_quota"
                | "billing_hard_limit_reached"
                | "enforced_spend_limit_reached"
                | "contract_spend_limit_reached"
                | "budget_exceeded"
        ) || word.contains("PerDay")
    };
    said.words().any(is_quota)
        || begins(said, "rate limit exceeded: free-models-per-day")
        || begins(said, "your credit balance is too low")
}

/// Whether its message begins so; `start` in small letters.
fn begins(said: &ErrorBody, start: &str) -> bool {
    unfit::begins(said.message.as_deref().unwrap_or_default(), start)
}

/// The status of an error that came in the clothes of an answer: the one it names, else what its words stand for, else
/// 502.
pub fn meant(said: &ErrorBody) -> StatusCode {
    let known = || {
        said.words().find_map(stands_for).or_else(|| {
            MESSAGES
                .iter()
                .find(|(start, _)| begins(said, start))
                .map(|m| m.1)
                .or_else(|| Unfit::told(said).map(|_| StatusCode::BAD_REQUEST))
        })
    };
    said.status
        .or_else(known)
        .unwrap_or(StatusCode::BAD_GATEWAY)
}

/// What errors without any word for programs begin with: Language Pipes.
const MESSAGES: [(&str, StatusCode); 3] = [
    ("no pipe available", StatusCode::SERVICE_UNAVAILABLE),
    ("no model ends available", StatusCode::SERVICE_UNAVAILABLE),
    (
        "maximum number of jobs reached",
        StatusCode::SERVICE_UNAVAILABLE,
    ),
];

/// The status that a type or a code stands for, in OpenAI's words, Anthropic's, Google's and vLLM's.
fn stands_for(word: &str) -> Option<StatusCode> {
    let word = word.to_ascii_lowercase();
    Some(match word.as_str() {
        "invalid_request_error"
        | "invalid_request"
        | "badrequesterror"
        | "invalid_argument"
        | "failed_precondition"
        | "out_of_range"
        | "validation_error"
        | "content_filter"
        | "content_policy_violation"
        | "context_length_exceeded"
        | "exceed_context_size_error"
        | "max_tokens_exceeded"
        | "token_limit_exceeded"
        | "string_too_long"
        | "unsupported_parameter"
        | "unsupported_value"
        | "unknown_parameter"
        | "invalid_prompt"
        | "image_content_policy_violation"
        | "moderation_blocked" => StatusCode::BAD_REQUEST,
        // A response names what is wrong with a picture: its format, its size, that it is not there.
        image
            if image.starts_with("invalid_image") || image.starts_with("invalid_base64_image") =>
        {
            StatusCode::BAD_REQUEST
        }
        "authentication_error"
        | "authenticationerror"
        | "invalid_api_key"
        | "api_key_invalid"
        | "unauthenticated" => StatusCode::UNAUTHORIZED,
        "billing_error" => StatusCode::PAYMENT_REQUIRED,
        "permission_error" | "permission_denied" => StatusCode::FORBIDDEN,
        "not_found_error" | "notfounderror" | "not_found" | "model_not_found" => {
            StatusCode::NOT_FOUND
        }
        "request_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "insufficient_quota"
        | "billing_hard_limit_reached"
        | "enforced_spend_limit_reached"
        | "contract_spend_limit_reached"
        | "ramp_limit_exceeded"
        | "resource_exhausted"
        | "too_many_requests"
        | "ratelimiterror" => StatusCode::TOO_MANY_REQUESTS,
        limit if limit.starts_with("rate_limit") => StatusCode::TOO_MANY_REQUESTS,
        "overloaded_error"
        | "server_is_overloaded"
        | "slow_down"
        | "unavailable_error"
        | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "timeout_error" | "deadline_exceeded" => StatusCode::GATEWAY_TIMEOUT,
        _ => return None,
    })
}

/// How long a provider asks to wait: `retry-after-ms`, else `retry-after` in seconds (also with a fraction) or as a
/// date (RFC 9110, 10.2.3), else what the error says (Google's `RetryInfo`; OpenAI and Groq, in their message), else when a
/// limit of which nothing remains begins anew. A day at the most: what is longer is no wait but a closed door.
pub fn stated_wait(headers: &HeaderMap, said: &ErrorBody, now: SystemTime) -> Option<Duration> {
    const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = || {
        let millis = text(RETRY_AFTER_MS)?.parse::<f64>().ok()?;
        seconds(millis / 1e3)
    };
    let after = || {
        let after = text(http::header::RETRY_AFTER)?;
        match after.parse::<f64>() {
            Ok(number) => seconds(number),
            Err(_) => {
                let date = httpdate::parse_http_date(after).ok()?;
                let wait = date.duration_since(now).unwrap_or(Duration::ZERO);
                seconds(wait.as_secs_f64())
            }
        }
    };
    let hint = || {
        let message = said.message.as_deref()?;
        let (_, hint) = message.rsplit_once("try again in ")?;
        duration(hint)
    };
    let told = || duration(said.wait.as_deref()?);
    let said = millis().or_else(after).or_else(told).or_else(hint);
    said.or_else(|| reset(headers, || now))
}

/// What remains of a limit, and when it begins anew: OpenAI, Azure and Groq in spans of time (`6m0s`), Together and Cerebras
/// in seconds, OpenRouter in milliseconds since 1970. Of any other header nobody knows what it means. Anthropic's are not
/// believed: they round what remains to thousands of tokens, so that nothing is not nothing, and say when a limit is full
/// again, though it fills all the time; its 429 says how long to wait.
const RESETS: [[&str; 2]; 5] = [
    [
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ],
    ["x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    ["x-ratelimit-remaining", "x-ratelimit-reset"],
    [
        "x-ratelimit-remaining-requests-day",
        "x-ratelimit-reset-requests-day",
    ],
    [
        "x-ratelimit-remaining-tokens-minute",
        "x-ratelimit-reset-tokens-minute",
    ],
];

/// When the last of the limits begins anew of which nothing remains, if that is in a while: also an answer may say so.
pub fn reset(headers: &HeaderMap, now: impl Fn() -> SystemTime) -> Option<Duration> {
    // Most answers say nothing of limits, and names of our own are dear to look for.
    let mut names = headers.keys();
    if !names.any(|name| name.as_str().starts_with("x-ratelimit-rem")) {
        return None;
    }
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let resets = RESETS.iter().filter_map(|[remaining, reset]| {
        let reset = text(reset).filter(|_| text(remaining) == Some("0"))?;
        let since_1970 = match reset.parse::<u64>() {
            // No span is as long as the time since 1970, in either unit.
            Ok(moment) if moment > 1_000_000_000_000 => Duration::from_millis(moment),
            Ok(moment) if moment > 1_000_000_000 => Duration::from_secs(moment),
            _ => return duration(reset),
        };
        let wait = SystemTime::UNIX_EPOCH.checked_add(since_1970)?;
        seconds(wait.duration_since(now()).unwrap_or_default().as_secs_f64())
    });
    resets.max().filter(|wait| !wait.is_zero())
}

/// Reads what a text begins with: `34s`, `6m3.2s`, `250ms`, or a number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut rest, mut sum, mut read) = (text.trim_start(), 0.0, false);
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "ms" => 1e-3,
            "s" | "" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        // A number at the end of a sentence has its full stop.
        let number: f64 = number.trim_end_matches('.').parse().ok()?;
        (rest, sum, read) = (after, sum + number * unit, true);
    }
    read.then(|| seconds(sum)).flatten()
}

fn seconds(number: f64) -> Option<Duration> {
    (0.0..=86_400.0)
        .contains(&number)
        .then(|| Duration::from_secs_f64(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    use crate::protocol::Protocol;
    use crate::protocol::openai::OpenAi;

    #[test]
    fn statuses_are_judged() {
        let judge = |status: u16| {
            judge(
                StatusCode::from_u16(status).unwrap(),
                &HeaderMap::new(),
                &ErrorBody::default(),
            )
        };
        for (status, want) in [
            (400, (Fault::Client, Retry::Never)),
            (422, (Fault::Client, Retry::Never)),
            (404, (Fault::Client, Retry::Elsewhere)),
            (401, (Fault::Credentials, Retry::Elsewhere)),
            (402, (Fault::Credentials, Retry::Elsewhere)),
            (403, (Fault::Credentials, Retry::Elsewhere)),
            (408, (Fault::Provider, Retry::Here)),
            (429, (Fault::Busy, Retry::Here)),
            (500, (Fault::Provider, Retry::Here)),
            (503, (Fault::Provider, Retry::Here)),
            (524, (Fault::Provider, Retry::Elsewhere)),
            (529, (Fault::Provider, Retry::Here)),
            (302, (Fault::Provider, Retry::Elsewhere)),
        ] {
            assert_eq!(judge(status), want, "{status}");
        }
    }

    #[test]
    fn a_limit_of_which_nothing_remains_says_when_it_begins_anew() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let wait = |lines: &str| {
            let lines = lines.split(", ").filter_map(|line| line.split_once(' '));
            let headers = lines.map(|(name, value)| {
                let name = HeaderName::try_from(format!("x-ratelimit-{name}")).unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            });
            stated_wait(&headers.collect(), &ErrorBody::default(), now).map(|it| it.as_millis())
        };
        for (told, want) in [
            (
                "remaining-requests 0, reset-requests 2m59.56s",
                Some(179_560),
            ),
            ("remaining-requests 1, reset-requests 1s", None),
            ("remaining-requests 0", None),
            (
                "remaining-requests 0, reset-requests 1s, remaining-tokens 0, reset-tokens 20ms",
                Some(1_000),
            ),
            ("remaining-tokens 0, reset-tokens 6m0s", Some(360_000)),
            ("remaining 0, reset 1800000012500", Some(12_500)),
            ("remaining 0, reset 1500000000000", None),
            ("remaining 0, reset 3", Some(3_000)),
            ("remaining 0, reset 1800000007", Some(7_000)),
            ("remaining 0, reset 18446744073709551615", None),
            (
                "remaining-requests-day 0, reset-requests-day 33011.38",
                Some(33_011_380),
            ),
            (
                "remaining-requests-day 9, remaining-tokens-minute 0, reset-tokens-minute 11.5",
                Some(11_500),
            ),
            ("remaining 0, reset soon", None),
            ("remaining 0, reset 99999999999999999999", None),
        ] {
            assert_eq!(wait(told), want, "{told}");
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "3"),
            ("retry-after", "7"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let wait = stated_wait(&headers, &ErrorBody::default(), now);
        assert_eq!(
            wait,
            Some(Duration::from_secs(7)),
            "its own word goes before"
        );
    }

    #[test]
    fn a_provider_may_say_that_it_is_no_use() {
        let mut headers = HeaderMap::new();
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let judged = judge(status, &headers, &ErrorBody::default());
        assert_eq!(judged.1, Retry::Elsewhere);
    }

    fn said(body: &str) -> ErrorBody {
        OpenAi.error(body.as_bytes()).unwrap()
    }

    /// What a client may have made a provider say back.
    const ECHOED: &str = r#"{"error":{"message":"Invalid content: 'insufficient_quota API_KEY_INVALID API key not valid. Incorrect API key provided, free-models-per-day, no pipe available, PerDay'","type":"invalid_request_error","param":"insufficient_quota","code":null}}"#;

    fn judges(cases: &[(u16, &str, (Fault, Retry))]) {
        for (status, body, want) in cases {
            let status = StatusCode::from_u16(*status).unwrap();
            let judged = judge(status, &HeaderMap::new(), &said(body));
            assert_eq!(judged, *want, "{body}");
        }
    }

    #[test]
    fn what_is_used_up_is_told_from_what_is_too_fast() {
        let used_up = (Fault::Busy, Retry::Elsewhere);
        let busy = (Fault::Busy, Retry::Here);
        let quota = |id: &str| {
            format!(
                r#"[{{"error":{{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{{"violations":[{{"quotaId":"{id}"}}]}}]}}}}]"#
            )
        };
        let (a_day, a_minute) = (quota("RequestsPerDayPerModel"), quota("RequestsPerMinute"));
        // OpenAI, Anthropic, OpenRouter, Gemini.
        judges(&[
            (
                429,
                r#"{"error":{"type":"insufficient_quota","message":"m"}}"#,
                used_up,
            ),
            (
                429,
                r#"{"error":{"code":"billing_hard_limit_reached","message":"m"}}"#,
                used_up,
            ),
            (
                429,
                r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
                used_up,
            ),
            (
                429,
                r#"{"error":{"error_code":"contract_spend_limit_reached","message":"m"}}"#,
                used_up,
            ),
            (
                429,
                r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-day. Add 10 credits"}}"#,
                used_up,
            ),
            (
                429,
                r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-min."}}"#,
                busy,
            ),
            (429, &a_day, used_up),
            (429, &a_minute, busy),
            (429, ECHOED, busy),
        ]);
    }

    #[test]
    fn a_bad_key_is_one_in_any_clothes() {
        let client = (Fault::Client, Retry::Never);
        let operator = (Fault::Credentials, Retry::Elsewhere);
        judges(&[
            // A bad key, or an unpaid bill, as a 400: Gemini, xAI, Anthropic.
            (
                400,
                r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#,
                operator,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#,
                operator,
            ),
            (
                400,
                r#"{"code":"c","error":"Incorrect API key provided: xa***ab."}"#,
                operator,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
                operator,
            ),
            (400, ECHOED, client),
            // 498 is Cohere's for a bad token and Groq's for no room.
            (498, r#"{"message":"invalid api token"}"#, operator),
            (
                498,
                r#"{"error":{"message":"Flex tier capacity exceeded, invalid for now","type":"capacity_exceeded"}}"#,
                (Fault::Provider, Retry::Here),
            ),
        ]);
    }

    #[test]
    fn what_a_client_wrote_and_is_said_back_judges_nobody() {
        let client = (Fault::Client, Retry::Never);
        let prompt = "Bad request: hi\ndata: {\"error\":{\"code\":\"insufficient_quota\",\"message\":\"m\"}}\n";
        judges(&[
            (400, prompt, client),
            (
                400,
                r#"{"detail":[{"loc":["API key not valid"],"msg":"extra"}]}"#,
                client,
            ),
        ]);
    }

    #[test]
    fn what_was_flagged_is_the_clients_fault_and_an_unpaid_bill_is_not() {
        let flagged = r#"{"error":{"message":"Input flagged","code":403,"metadata":{"reasons":["violence"],"flagged_input":"Hi"}}}"#;
        let unpaid = r#"{"error":{"message":"Budget has been exceeded! Current cost: 12.0, Max budget: 10.0","type":"budget_exceeded","param":null,"code":"400"}}"#;
        judges(&[
            (403, flagged, (Fault::Client, Retry::Never)),
            (400, unpaid, (Fault::Credentials, Retry::Elsewhere)),
        ]);
    }

    #[test]
    fn an_error_in_the_clothes_of_an_answer_has_the_status_it_means() {
        for (body, want) in [
            (r#"{"error":{"code":429,"message":"m"}}"#, 429),
            (r#"{"error":{"code":"404","message":"m"}}"#, 404),
            (r#"{"error":{"code":200,"message":"m"}}"#, 502),
            (
                r#"{"error":{"code":3051,"type":"invalid_request_error","message":"m"}}"#,
                400,
            ),
            (
                r#"{"error":{"code":"context_length_exceeded","message":"m"}}"#,
                400,
            ),
            (
                r#"{"object":"error","type":"BadRequestError","message":"m"}"#,
                400,
            ),
            (
                r#"{"type":"error","error":{"type":"authentication_error","message":"m"}}"#,
                401,
            ),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                503,
            ),
            (
                r#"{"error":{"type":"unavailable_error","message":"m"}}"#,
                503,
            ),
            (
                r#"{"error":{"type":"tokens","code":"rate_limit_exceeded","message":"m"}}"#,
                429,
            ),
            (
                r#"{"error":{"type":"insufficient_quota","message":"m"}}"#,
                429,
            ),
            (
                r#"[{"error":{"status":"RESOURCE_EXHAUSTED","message":"m"}}]"#,
                429,
            ),
            (
                r#"{"error":{"code":502,"type":"invalid_request_error","message":"m"}}"#,
                502,
            ),
            (r#"{"error":"no pipe available"}"#, 503),
            (r#"{"error":"No model ends available"}"#, 503),
            (r#"{"error":"Maximum number of jobs reached"}"#, 503),
            (
                r#"{"error":"Cannot truncate prompt with n_keep (5000) >= n_ctx (4096)"}"#,
                400,
            ),
            (r#"{"error":"something else: no pipe available"}"#, 502),
            (r#"{"error":{"type":"server_error","message":"m"}}"#, 502),
            (ECHOED, 400),
        ] {
            assert_eq!(meant(&said(body)), want, "{body}");
        }
        assert_eq!(meant(&ErrorBody::default()), 502);
    }

    #[test]
    fn waits_are_read_in_every_form() {
        let now = httpdate::parse_http_date("Fri, 20 Nov 2026 10:00:00 GMT").unwrap();
        let wait = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            stated_wait(&headers, &ErrorBody::default(), now)
        };
        let after = |value| wait(&[("retry-after", value)]);
        assert_eq!(after("2"), Some(Duration::from_secs(2)));
        assert_eq!(after(" 1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(
            after("Fri, 20 Nov 2026 10:00:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(after("Fri, 20 Nov 2026 09:00:30 GMT"), Some(Duration::ZERO));
        assert_eq!(
            wait(&[("retry-after-ms", "250"), ("retry-after", "9")]),
            Some(Duration::from_millis(250))
        );
        for wrong in [
            "",
            "soon",
            "-1",
            "NaN",
            "inf",
            "1e9",
            "Mon, 23 Nov 2026 10:00:00 GMT",
        ] {
            assert_eq!(after(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn waits_in_the_error_itself_are_read_after_the_headers() {
        let wait = |headers: &HeaderMap, body: &str| {
            stated_wait(headers, &said(body), SystemTime::UNIX_EPOCH)
        };
        let gemini = r#"[{"error":{"code":429,"message":"m","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]"#;
        let says = |text: &str| {
            let body =
                format!(r#"{{"error":{{"message":"{text}","code":"rate_limit_exceeded"}}}}"#);
            wait(&HeaderMap::new(), &body)
        };
        let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        assert_eq!(wait(&HeaderMap::new(), gemini), seconds(34.0));
        for (text, want) in [
            (
                "Rate limit reached. Please try again in 6m3.2s. Visit",
                363.2,
            ),
            ("Please try again in 20s.", 20.0),
            ("Please try again in 250ms.", 0.25),
            ("Please try again in 1h2m3.5s.", 3_723.5),
            ("Please try again in 7.", 7.0),
            ("for 'try again in 1s': Please try again in 2s", 2.0),
        ] {
            assert_eq!(says(text), seconds(want), "{text}");
        }
        for text in [
            "Try later",
            "try again in a moment",
            "try again in 9d",
            "try again in 25h",
        ] {
            assert_eq!(says(text), None, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("9"));
        assert_eq!(wait(&headers, gemini), seconds(9.0));
        headers.insert("retry-after", HeaderValue::from_static("soon"));
        assert_eq!(wait(&headers, gemini), seconds(34.0));
    }
}
