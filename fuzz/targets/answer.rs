//! A whole answer is one object, and says the same in one piece and in many, and what `serde_json` reads in it.

use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};
use tollgate::protocol::openai::OpenAi;
use tollgate::protocol::{Endpoint, Protocol};
use tollgate::usage::Usage;

use super::{Script, pieces};

/// The first line is the lengths of the pieces, the rest is the answer.
pub(crate) fn check(input: &[u8]) {
    let (script, body) = Script::split(input);
    for (endpoint, tells) in [
        (Endpoint::ChatCompletions, "usage"),
        (Endpoint::Transcriptions, "duration"),
        (Endpoint::Rerank, "meta"),
        (Endpoint::Responses, "id"),
    ] {
        check_of((endpoint, tells), &script, body);
    }
}

/// What an endpoint answers, which may tell what was used by another name than `usage`, too.
fn check_of((endpoint, tells): (Endpoint, &str), script: &Script<'_>, body: &[u8]) {
    let whole = OpenAi.read(endpoint, body);
    let mut skimmer = OpenAi.skimmer(endpoint);
    for piece in pieces(script, body) {
        skimmer.feed(piece);
    }
    // An error is one in other shapes, too; those are read whole.
    let answer = whole.as_ref().filter(|reading| !reading.is_error);
    assert!(skimmer.is_complete() || answer.is_none());
    if let Some(reading) = answer {
        assert_eq!(skimmer.usage(), reading.usage);
        assert_eq!(skimmer.response_id(), reading.response_id.as_deref());
    }
    let values = Deserializer::from_slice(body).into_iter::<&RawValue>();
    if let Ok(values) = values.collect::<Result<Vec<_>, _>>() {
        let is_object = matches!(values[..], [one] if one.get().starts_with('{'));
        assert!(whole.is_some() || !is_object, "one object is an answer");
        assert!(answer.is_none() || is_object, "what is none is no answer");
    }
    let Ok(members) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return;
    };
    let reading = whole.expect("an object is an answer");
    // A name with an escape in it is none of those that are looked for.
    if body.contains(&b'\\') {
        return;
    }
    let may_tell = ["usage", tells]
        .iter()
        .any(|name| members.contains_key(*name));
    assert!(reading.usage.is_none() || may_tell);
    // There are other places for an error than this one, but none without the word.
    let word = br#""error""#;
    let says_so = body.windows(word.len()).any(|w| w == word);
    assert!(reading.is_error >= is_error(body) && says_so >= reading.is_error);
    let once = |name: &[u8]| body.windows(name.len()).filter(|w| *w == name).count() == 1;
    let prompt = members
        .get("usage")
        .and_then(|u| u.get("prompt_tokens")?.as_u64());
    if let (Some(usage), Some(prompt)) = (reading.usage, prompt)
        && once(b"\"usage\"")
        && once(b"\"prompt_tokens\"")
        && prompt < 1 << 40
    {
        let Usage {
            input,
            cached,
            cache_write,
            ..
        } = usage;
        // More cached than there is of the prompt came on top of it.
        let whole = if cached > prompt {
            prompt + cached
        } else {
            prompt
        };
        assert_eq!(input + cached + cache_write, whole);
    }
}

/// Whether there is an error by this name, as it is written.
fn is_error(body: &[u8]) -> bool {
    let raw: std::collections::BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).expect("it was read before");
    let nothing = |error: &&RawValue| matches!(error.get(), "null" | "false" | "\"\"" | "{}");
    raw.get("error").is_some_and(|error| !nothing(error))
}
