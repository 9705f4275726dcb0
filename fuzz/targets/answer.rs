//! A whole answer is one object, and says the same in one piece and in many, and what `serde_json` reads in it.

use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};
use tollgate::protocol::Protocol;
use tollgate::protocol::openai::OpenAi;
use tollgate::usage::Usage;

use super::{Script, pieces};

/// The first line is the lengths of the pieces, the rest is the answer.
pub(crate) fn check(input: &[u8]) {
    let (script, body) = Script::split(input);
    let whole = OpenAi.read(body);
    let mut skimmer = OpenAi.skimmer();
    for piece in pieces(&script, body) {
        skimmer.feed(piece);
    }
    assert_eq!(skimmer.is_complete(), whole.is_some());
    if let Some(reading) = whole {
        assert_eq!(skimmer.usage(), reading.usage);
    }
    let values = Deserializer::from_slice(body).into_iter::<&RawValue>();
    if let Ok(values) = values.collect::<Result<Vec<_>, _>>() {
        let is_object = matches!(values[..], [one] if one.get().starts_with('{'));
        // A text beside the object is passed over.
        let is_text = |value: &&RawValue| value.get().starts_with('"');
        if !values.iter().any(is_text) {
            assert_eq!(whole.is_some(), is_object, "one object is an answer");
        }
    }
    let Ok(members) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return;
    };
    let reading = whole.expect("an object is an answer");
    // A name with an escape in it is none of those that are looked for.
    if body.contains(&b'\\') {
        return;
    }
    assert!(reading.usage.is_none() || members.contains_key("usage"));
    assert_eq!(reading.is_error, is_error(body));
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
        assert_eq!(input + cached + cache_write, prompt);
    }
}

/// Whether there is an error by this name, as it is written.
fn is_error(body: &[u8]) -> bool {
    let raw: std::collections::BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).expect("it was read before");
    let nothing = |error: &&RawValue| matches!(error.get(), "null" | "false" | "\"\"" | "{}");
    raw.get("error").is_some_and(|error| !nothing(error))
}
