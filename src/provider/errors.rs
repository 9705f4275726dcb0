//! Whose fault a failure is, what could still help, and how long to wait.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode};

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

/// What a status means. Facts: RFC 9110, and each provider's list of errors.
pub fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> (Fault, Retry) {
    let (fault, retry) = match status.as_u16() {
        401..=403 => (Fault::Credentials, Retry::Elsewhere),
        // The model or the room for it may be there elsewhere.
        404 | 413 => (Fault::Client, Retry::Elsewhere),
        408 | 409 | 425 => (Fault::Provider, Retry::Here),
        // A quota that is used up does not come back in a moment.
        429 if memchr::memmem::find(body, b"insufficient_quota").is_some() => {
            (Fault::Busy, Retry::Elsewhere)
        }
        429 => (Fault::Busy, Retry::Here),
        // Groq: failed dependency, flex capacity exceeded.
        424 | 498 => (Fault::Provider, Retry::Here),
        400..=499 => (Fault::Client, Retry::Never),
        // Cloudflare gave up waiting; the work may have been done, so not here again.
        524 => (Fault::Provider, Retry::Elsewhere),
        500..=599 => (Fault::Provider, Retry::Here),
        _ => (Fault::Provider, Retry::Elsewhere),
    };
    let told = headers
        .get("x-should-retry")
        .map(http::HeaderValue::as_bytes);
    match (told, retry) {
        (Some(b"false"), Retry::Here) => (fault, Retry::Elsewhere),
        _ => (fault, retry),
    }
}

/// How long a provider asks to wait: `retry-after-ms`, else `retry-after` in seconds (also with a fraction) or as a
/// date (RFC 9110, 10.2.3).
pub fn stated_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = text(RETRY_AFTER_MS)
        .and_then(|ms| ms.parse::<f64>().ok())
        .map(|ms| ms / 1e3);
    if let Some(wait) = millis.and_then(seconds) {
        return Some(wait);
    }
    let after = text(http::header::RETRY_AFTER)?;
    match after.parse::<f64>() {
        Ok(number) => seconds(number),
        Err(_) => {
            let date = httpdate::parse_http_date(after).ok()?;
            Some(date.duration_since(now).unwrap_or(Duration::ZERO))
        }
    }
}

/// A day at the most: what is longer is no wait but a closed door.
fn seconds(number: f64) -> Option<Duration> {
    (0.0..=86_400.0)
        .contains(&number)
        .then(|| Duration::from_secs_f64(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn statuses_are_judged() {
        let judge = |status: u16| {
            judge(
                StatusCode::from_u16(status).unwrap(),
                &HeaderMap::new(),
                b"",
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
    fn a_provider_may_say_that_it_is_no_use() {
        let mut headers = HeaderMap::new();
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
        let status = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(judge(status, &headers, b"").1, Retry::Elsewhere);
        let quota = br#"{"error":{"code":"insufficient_quota"}}"#;
        let judged = judge(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), quota);
        assert_eq!(judged, (Fault::Busy, Retry::Elsewhere));
    }

    #[test]
    fn waits_are_read_in_every_form() {
        let now = httpdate::parse_http_date("Fri, 20 Nov 2026 10:00:00 GMT").unwrap();
        let wait = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            stated_wait(&headers, now)
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
        for wrong in ["", "soon", "-1", "NaN", "inf", "1e9"] {
            assert_eq!(after(wrong), None, "{wrong}");
        }
    }
}
