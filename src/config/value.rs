//! How single values are written: durations, sizes, addresses, days.

use std::fmt;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::money::{Price, Written};
use super::{
    Adaptive, After, Day, Hedge, Kind, Limits, Listen, OnDisconnect, Open, Queue, StickyBy,
    Strategy, Target, Voices,
};

/// A duration longer than nothing: a clock that has run out before it starts helps nobody.
pub(super) fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    match duration_or_zero(d)? {
        Duration::ZERO => Err(D::Error::custom("must be longer than nothing")),
        duration => Ok(duration),
    }
}

/// The same, where it need not be given.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    duration(d).map(Some)
}

/// Comments closer to each other than this would be more than the answer.
const SHORTEST_KEEPALIVE: Duration = Duration::from_millis(100);

/// The longest that is of any use: nobody in between waits longer for the next byte.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(3_600);

/// After how much silence a client is told that its answer is still to come; nothing: never.
pub(super) fn keepalive<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let every = duration_or_zero(d)?;
    let is_sensible = (SHORTEST_KEEPALIVE..=LONGEST_KEEPALIVE).contains(&every);
    if every.is_zero() || is_sensible {
        Ok(every)
    } else {
        let message = "must be from 100ms to 1h, or \"0s\" for never";
        Err(D::Error::custom(message))
    }
}

/// `"250ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"`.
pub(super) fn duration_or_zero<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    match parse_duration(&text).map_err(D::Error::custom)? {
        // A year is beyond every sensible clock and far from overflowing one.
        total if total <= YEAR => Ok(total),
        _ => Err(D::Error::custom(format_args!(
            "`{text}` is longer than a year"
        ))),
    }
}

/// The same for what is kept: up to a hundred years, and at least a day.
pub(super) fn long_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    match parse_duration(&text).map_err(D::Error::custom)? {
        total if (DAY..=YEAR * 100).contains(&total) => Ok(total),
        _ => Err(D::Error::custom(format_args!(
            "`{text}` is not between a day and a hundred years"
        ))),
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// A length of time, as it is written: `"250ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"`; or what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("`{text}` is not a duration; write \"250ms\", \"5s\", \"10m\", \"2h\" or \"30d\"")
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

/// `"512KiB"`, `"32MiB"`, `"1GiB"`, `"100B"`.
pub(super) fn size<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let text = String::deserialize(d)?;
    let wrong = || {
        D::Error::custom(format_args!(
            "`{text}` is not a size; write \"512KiB\", \"32MiB\" or \"1GiB\""
        ))
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// The longest text that is logged of one body, in bytes.
const LONGEST_TEXT: u64 = 1 << 20;

/// How much of a text is logged: a size from a byte to a MiB.
pub(super) fn text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<usize>, D::Error> {
    let size = size(d)?;
    match usize::try_from(size) {
        Ok(most @ 1..) if size <= LONGEST_TEXT => Ok(Some(most)),
        _ => Err(D::Error::custom("must be from \"1B\" to \"1MiB\"")),
    }
}

/// A whole number from 1 up.
pub(super) fn count<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    match usize::deserialize(d)? {
        0 => Err(D::Error::custom("must be at least 1")),
        n => Ok(n),
    }
}

/// A number of tokens: from 1 up to what any model may ever take.
pub(super) fn tokens<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    match u64::deserialize(d)? {
        n @ 1..=1_000_000_000 => Ok(n),
        n => Err(D::Error::custom(format_args!(
            "{n} is no number of tokens; write one from 1 to 1000000000"
        ))),
    }
}

/// A whole number from 1 to 10: more tries than that help nobody and multiply load.
pub(super) fn tries<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    match u32::deserialize(d)? {
        n @ 1..=10 => Ok(n),
        n => Err(D::Error::custom(format_args!(
            "{n} is not between 1 and 10"
        ))),
    }
}

impl<'de> Deserialize<'de> for Voices {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Known;
        impl<'de> Visitor<'de> for Known {
            type Value = Voices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a list of names such as [\"alloy\"]")
            }
            fn visit_bool<E: Error>(self, is_asked: bool) -> Result<Voices, E> {
                Ok(if is_asked {
                    Voices::Asked
                } else {
                    Voices::Unknown
                })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Voices, A::Error> {
                let names = Vec::<String>::deserialize(SeqAccessDeserializer::new(list))?;
                match names.iter().any(String::is_empty) {
                    true => Err(A::Error::custom("a voice has a name")),
                    false => Ok(Voices::Listed(names)),
                }
            }
        }
        d.deserialize_any(Known)
    }
}

/// One address or a list of them.
pub(super) fn listen<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Listen>, D::Error> {
    struct Addresses;
    impl<'de> Visitor<'de> for Addresses {
        type Value = Vec<Listen>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address such as \"127.0.0.1:4000\", or a list of them")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            let address = match text.strip_prefix("unix:") {
                Some(path) if !path.is_empty() => Some(Listen::Unix(path.into())),
                Some(_) => None,
                None => text.parse().ok().map(Listen::Tcp),
            };
            address.map(|address| vec![address]).ok_or_else(|| {
                E::custom(format_args!(
                    "`{text}` is not an address; write an IP and a port, such as \"127.0.0.1:4000\", or \"unix:/run/tollgate.sock\""
                ))
            })
        }
        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            let texts = Vec::<String>::deserialize(SeqAccessDeserializer::new(list))?;
            if texts.is_empty() {
                return Err(A::Error::custom("name at least one address"));
            }
            let mut addresses = Vec::new();
            for text in texts {
                addresses.extend(Addresses.visit_str::<A::Error>(&text)?);
            }
            Ok(addresses)
        }
    }
    d.deserialize_any(Addresses)
}

/// The longest that an answer is read on which nobody waits for.
const LONGEST_FINISH: Duration = Duration::from_secs(600);

/// `"abort"` or `"finish:10s"`.
pub(super) fn on_disconnect<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<OnDisconnect>, D::Error> {
    let text = String::deserialize(d)?;
    let wrong = |why: &str| D::Error::custom(format_args!("`{text}` {why}"));
    if text == "abort" {
        return Ok(Some(OnDisconnect::Abort));
    }
    let Some(most) = text.strip_prefix("finish:") else {
        return Err(wrong("is neither \"abort\" nor \"finish:10s\""));
    };
    match parse_duration(most).map_err(D::Error::custom)? {
        Duration::ZERO => Err(wrong(
            "finishes nothing; write \"abort\", or a time longer than nothing",
        )),
        most if most > LONGEST_FINISH => Err(wrong("is longer than ten minutes")),
        most => Ok(Some(OnDisconnect::Finish(most))),
    }
}

/// `true`, `false` or `"auto"`.
pub(super) fn open<'de, D: Deserializer<'de>>(d: D) -> Result<Open, D::Error> {
    struct Word;
    impl Visitor<'_> for Word {
        type Value = Open;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or \"auto\"")
        }
        fn visit_bool<E: Error>(self, yes: bool) -> Result<Open, E> {
            Ok(if yes { Open::Yes } else { Open::No })
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Open, E> {
            match text {
                "auto" => Ok(Open::Auto),
                "true" => Ok(Open::Yes),
                "false" => Ok(Open::No),
                _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
            }
        }
    }
    d.deserialize_any(Word)
}

/// `"2027-01-31"`.
pub(super) fn day<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Day>, D::Error> {
    let wrong = || D::Error::custom("is not a day; write it in quotes, such as \"2027-01-31\"");
    let text = String::deserialize(d).map_err(|_| wrong())?;
    parse_day(&text).map(Some).ok_or_else(wrong)
}

fn parse_day(text: &str) -> Option<Day> {
    let mut parts = text.split('-');
    let mut part = |digits: usize| -> Option<u64> {
        let part = parts.next()?;
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
        part.parse().ok()
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    if parts.next().is_some() || year < 1970 {
        return None;
    }
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month.checked_sub(1)?).ok()?;
    if day == 0 || day > *months.get(month)? {
        return None;
    }
    let years: u64 = (1970..year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let days = years + months.iter().take(month).sum::<u64>() + day - 1;
    Some(Day {
        starts: days * 86_400,
    })
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "chat" => Ok(Self::Chat),
            "embedding" => Ok(Self::Embedding),
            "speech" => Ok(Self::Speech),
            "transcription" => Ok(Self::Transcription),
            "image" => Ok(Self::Image),
            "moderation" => Ok(Self::Moderation),
            "rerank" => Ok(Self::Rerank),
            _ => Err(D::Error::custom(format_args!(
                "no kind of model is called `{text}`; there are \"chat\", \"embedding\", \"speech\", \"transcription\", \"image\", \"moderation\" and \"rerank\""
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Strategy {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "order" => Ok(Self::Order),
            "weight" => Ok(Self::Weight),
            "latency" => Ok(Self::Latency),
            "least_busy" => Ok(Self::LeastBusy),
            "cost" => Ok(Self::Cost),
            "sticky" => Ok(Self::Sticky),
            _ => Err(D::Error::custom(format_args!(
                "no strategy is called `{text}`; there are \"order\", \"weight\", \"latency\", \"least_busy\", \"cost\" and \"sticky\""
            ))),
        }
    }
}

/// A number of requests under way.
pub(super) fn waiting<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(d)?;
    if (1..=1_000_000).contains(&number) {
        Ok(number)
    } else {
        let message = format_args!("{number} is not between 1 and 1000000");
        Err(D::Error::custom(message))
    }
}

/// A share among others.
pub(super) fn share<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    let share = u32::deserialize(d)?;
    if (1..=100).contains(&share) {
        Ok(Some(share))
    } else {
        let message = format_args!("{share} is no share; write a number from 1 to 100");
        Err(D::Error::custom(message))
    }
}

impl Hedge {
    pub(super) fn at_most() -> Written {
        Written("0.05".to_owned())
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let wrong = || {
            D::Error::custom(format_args!(
                "`{text}` says not how late is late; write a percentile such as \"p95\" (from p50 to p99.9), or a time such as \"800ms\""
            ))
        };
        let Some(percent) = text.strip_prefix('p') else {
            return parse_duration(&text).map(Self::Fixed).map_err(|_| wrong());
        };
        let (whole, tenth) = percent.split_once('.').unwrap_or((percent, "0"));
        let digits = |text: &str, most: usize| {
            let is_plain = !text.is_empty() && text.len() <= most;
            let all = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| is_plain && all)
        };
        let both = digits(whole, 2).zip(digits(tenth, 1));
        let thousandths = both.map(|(whole, tenth)| 10 * whole + tenth);
        let thousandths = thousandths.filter(|it| (500..1_000).contains(it));
        thousandths.map(Self::Percentile).ok_or_else(wrong)
    }
}

impl StickyBy {
    /// By what they belong together if nothing is written.
    pub fn usual() -> Vec<Self> {
        vec![Self::PromptCacheKey, Self::User, Self::Messages]
    }
}

impl<'de> Deserialize<'de> for StickyBy {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "messages" => Ok(Self::Messages),
            "prompt_cache_key" => Ok(Self::PromptCacheKey),
            "user" => Ok(Self::User),
            _ => match text.strip_prefix("header:") {
                Some(name) => Ok(Self::Header(name.to_ascii_lowercase())),
                None => Err(D::Error::custom(format_args!(
                    "`{text}` is nothing that requests belong together by; there are \"header:NAME\", \"prompt_cache_key\", \"user\" and \"messages\""
                ))),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            to: String,
            price: Option<Price>,
            context: Option<Tokens>,
            max_output: Option<Tokens>,
            reasoning: Option<bool>,
            limits: Option<Limits>,
            weight: Option<u32>,
            #[serde(default)]
            tier: u32,
            adaptive: Option<Adaptive>,
            queue: Option<Queue>,
            #[serde(default, deserialize_with = "some_duration")]
            load_timeout: Option<Duration>,
        }
        #[derive(serde::Deserialize)]
        struct Tokens(#[serde(deserialize_with = "tokens")] u64);
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Target;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"provider/model\" or { to = \"provider/model\" }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
                Ok(Target {
                    to: text.to_owned(),
                    ..Target::default()
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Target, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Target {
                    to: table.to,
                    price: table.price,
                    context: table.context.map(|tokens| tokens.0),
                    max_output: table.max_output.map(|tokens| tokens.0),
                    reasoning: table.reasoning,
                    limits: table.limits,
                    weight: table.weight,
                    tier: table.tier,
                    adaptive: table.adaptive,
                    queue: table.queue,
                    load_timeout: table.load_timeout,
                })
            }
        }
        d.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as ValueError, StrDeserializer};

    fn text(s: &str) -> StrDeserializer<'_, ValueError> {
        s.into_deserializer()
    }

    #[test]
    fn durations() {
        assert_eq!(duration(text("250ms")).unwrap(), Duration::from_millis(250));
        assert_eq!(duration(text("10m")).unwrap(), Duration::from_secs(600));
        assert_eq!(
            duration(text("30d")).unwrap(),
            Duration::from_secs(30 * 86_400)
        );
        assert_eq!(duration_or_zero(text("0s")).unwrap(), Duration::ZERO);
        assert!(duration(text("0s")).is_err());
        for wrong in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "1.5s",
            "5weeks",
            "99999999999999999999s",
            "18446744073709551615d",
            "400d",
        ] {
            assert!(duration(text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size(text("32MiB")).unwrap(), 32 << 20);
        assert_eq!(size(text("100B")).unwrap(), 100);
        for wrong in ["", "5", "MiB", "5MB", "18446744073709551615GiB"] {
            assert!(size(text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn days() {
        let day = |s| parse_day(s).map(|d| d.starts / 86_400);
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("2000-02-29"), Some(11_016));
        assert_eq!(day("2027-01-01"), Some(20_819));
        for days in (0..400 * 366).step_by(11) {
            let day = Day {
                starts: days * 86_400,
            };
            assert_eq!(parse_day(&day.to_string()), Some(day), "{day}");
        }
        for wrong in [
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-01-00",
            "2027-1-1",
            "27-01-01",
            "2027-01-01T",
            "2027-01-01-1",
            "",
        ] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }
}
