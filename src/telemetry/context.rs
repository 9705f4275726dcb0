//! Where does a request stand in a trace? The headers `traceparent` and `tracestate`.
//!
//! W3C Trace Context, level 1: <https://www.w3.org/TR/trace-context-1/>. What is malformed is as if it were not there: then a
//! new trace begins, and what stands in `tracestate` is not passed on, since it belongs to another.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names a trace and a span of it.
pub const PARENT: HeaderName = HeaderName::from_static("traceparent");
/// What others want to know of it, each in its own words.
pub const STATE: HeaderName = HeaderName::from_static("tracestate");

/// How long a `traceparent` of version 00 is, and what of any version is read, in bytes.
const LENGTH: usize = 55;

/// The longest `tracestate` that is told to a collector, in bytes: so much must be passed on (3.3.1.5).
const LONGEST_STATE: usize = 512;

/// A span of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace. Never zero.
    pub trace: u128,
    /// The span. Never zero.
    pub span: u64,
    /// Whoever made it may have told a collector of it.
    pub is_sampled: bool,
}

impl Context {
    /// What a client says. None: it says nothing, or something malformed, or two things.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(PARENT).iter();
        let only = all.next().filter(|_| all.next().is_none())?;
        Self::parse(only.as_bytes())
    }

    /// Reads a `traceparent`. Of a version that is not known, as much as version 00 has (3.2.4).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, further) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let version = hexadecimal(parts.next()?, 2)?;
        let trace = hexadecimal(parts.next()?, 32)?;
        let span = hexadecimal(parts.next()?, 16)?;
        let flags = hexadecimal(parts.next()?, 2)?;
        let fits = match version {
            0 => further.is_empty(),
            0xff => false,
            _ => further.first().is_none_or(|byte| *byte == b'-'),
        };
        let span = u64::try_from(span).ok()?;
        (fits && trace != 0 && span != 0).then_some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }

    /// As a header's value, in version 00.
    pub fn header(self) -> HeaderValue {
        let flags = u8::from(self.is_sampled);
        let text = format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span);
        // It is made of digits and dashes.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
            .unwrap_or(HeaderValue::from_static("00"))
    }
}

/// So many digits, in lower case.
fn hexadecimal(digits: &[u8], count: usize) -> Option<u128> {
    let value = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut number = 0;
    for digit in digits {
        number = number << 4 | u128::from(value(digit)?);
    }
    (digits.len() == count).then_some(number)
}

/// What a client says in `tracestate`, as one text, for a collector. None: nothing, or what is too long or no text.
pub(super) fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let mut all = String::new();
    for value in headers.get_all(STATE) {
        let text = value.to_str().ok()?.trim();
        if !(all.is_empty() || text.is_empty()) {
            all.push(',');
        }
        all.push_str(text);
        if all.len() > LONGEST_STATE {
            return None;
        }
    }
    (!all.is_empty()).then(|| all.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|it| HeaderValue::from_str(it).unwrap());
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn what_the_standard_says_is_read_and_written() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        let want = Context {
            trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span: 0xb7ad_6b71_6920_3331,
            is_sampled: true,
        };
        assert_eq!(context, want);
        assert_eq!(context.header(), GOOD);
        let not = Context::parse(GOOD.replace("-01", "-00").as_bytes()).unwrap();
        assert!(!not.is_sampled);
        // Of its flags one has a meaning (3.2.2.5); the others are not ours to pass on.
        let other = Context::parse(GOOD.replace("-01", "-fe").as_bytes()).unwrap();
        assert_eq!(other.header(), GOOD.replace("-01", "-00"));
    }

    /// The table of the standard's own test harness, and more.
    #[test]
    fn what_is_malformed_is_as_if_it_were_not_there() {
        let future = |rest: &str| GOOD.replacen("00", "cc", 1) + rest;
        for good in [
            GOOD.to_owned(),
            future(""),
            future("-what-the-future-will-be-like"),
            GOOD.replacen("00", "01", 1),
        ] {
            assert!(Context::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            String::new(),
            "00".into(),
            // Another length, in any place.
            GOOD[..54].into(),
            GOOD.to_owned() + "-",
            GOOD.to_owned() + "-what-the-future-will-be-like",
            GOOD.to_owned() + ".",
            format!(" {GOOD}"),
            format!("{GOOD} "),
            future(".what"),
            future("0"),
            GOOD.replacen("00", "0", 1),
            GOOD.replacen("00", "000", 1),
            GOOD.replace("9c-", "9-"),
            GOOD.replace("9c-", "9cc-"),
            GOOD.replace("31-", "3-"),
            GOOD.replace("31-", "311-"),
            GOOD.replace("-01", "-1"),
            GOOD.replace("-01", "-001"),
            // The dashes are elsewhere, and the length is right.
            GOOD.replace("9c-b7", "9-cb7"),
            GOOD.replace("31-01", "3-101"),
            // No version, and none that there may ever be.
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", ".0", 1),
            // Nothing but zeros.
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            // No digits, or large ones.
            GOOD.replace("0af7", ".af7"),
            GOOD.replace("0af7", "0AF7"),
            GOOD.replace("b7ad", "B7AD"),
            GOOD.replace("b7ad", ".7ad"),
            GOOD.replace("-01", "-.1"),
            GOOD.replace("-01", "-0A"),
            GOOD.replace("0af7", "+af7"),
        ] {
            assert_eq!(Context::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn who_says_two_things_says_nothing() {
        assert!(Context::of(&headers(&PARENT, &[GOOD])).is_some());
        assert_eq!(Context::of(&headers(&PARENT, &[GOOD, GOOD])), None);
        assert_eq!(Context::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_state_in_several_headers_is_one() {
        let state = |values: &[&str]| state(&headers(&STATE, values));
        assert_eq!(
            state(&["a=1", "b=2, c=3"]).unwrap().as_ref(),
            "a=1,b=2, c=3"
        );
        assert_eq!(state(&["", " a=1 "]).unwrap().as_ref(), "a=1");
        assert_eq!(state(&[]), None);
        assert_eq!(state(&[&"a".repeat(513)]), None);
    }

    /// Any bytes, and bytes that are nearly right.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let near = (0..LENGTH, any::<u8>(), 0..70_usize).prop_map(|(at, byte, length)| {
            let mut text = GOOD.as_bytes().to_vec();
            text[at] = byte;
            text.resize(length.max(50), b'-');
            text
        });
        prop_oneof![prop::collection::vec(any::<u8>(), 0..80), near]
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not_and_what_is_read_is_written_so(text in texts()) {
            if let Some(context) = Context::parse(&text) {
                let header = context.header();
                prop_assert_eq!(Context::parse(header.as_bytes()), Some(context));
                prop_assert_eq!(&header.as_bytes()[2..53], &text[2..53]);
            }
        }
    }
}
