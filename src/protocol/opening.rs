//! How does a conversation begin? What all its requests have in common: a provider that has seen one of them may still have
//! that part in its cache.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Endpoint;
use crate::envelope::Members;

/// Of a prompt that is one text, so many bytes are its beginning.
const PROMPT: usize = 1_024;

/// Who speaks before the conversation begins.
const BEFORE: [&str; 2] = ["system", "developer"];

/// The beginning of a conversation, as its client wrote it: all messages up to the first that is neither the system's nor
/// the developer's. None: it has none, or cannot be read in one way.
pub fn opening(endpoint: Endpoint, body: &impl Members) -> Option<&[u8]> {
    match endpoint {
        Endpoint::ChatCompletions => messages(body.value("messages")?),
        Endpoint::Completions => {
            let prompt = body.value("prompt")?;
            prompt.get(..prompt.len().min(PROMPT))
        }
        _ => None,
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<std::borrow::Cow<'a, str>>,
}

fn messages(list: &[u8]) -> Option<&[u8]> {
    struct Opening;
    impl<'de> Visitor<'de> for Opening {
        type Value = Option<&'de str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of messages")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut last = None;
            while let Some(message) = seq.next_element::<&'de RawValue>()? {
                last = Some(message.get());
                let role = serde_json::from_str(message.get()).ok();
                let role = role.and_then(|Message { role }| role);
                if role.is_none_or(|role| !BEFORE.contains(&&*role)) {
                    break;
                }
            }
            // What follows is of no interest, but a visitor must have seen all of it.
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(last)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(list);
    let last = reader.deserialize_seq(Opening).ok()??;
    let end = last.as_ptr().addr() + last.len() - list.as_ptr().addr();
    list.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use bytes::Bytes;

    fn of(endpoint: Endpoint, body: &str) -> Option<String> {
        let envelope = Envelope::scan(Bytes::copy_from_slice(body.as_bytes()), |_| false).unwrap();
        opening(endpoint, &envelope).map(|it| String::from_utf8(it.to_vec()).unwrap())
    }

    #[test]
    fn it_ends_with_the_first_word_of_the_user() {
        let chat = |messages: &str| {
            of(
                Endpoint::ChatCompletions,
                &format!(r#"{{"model":"m","messages":[{messages}]}}"#),
            )
        };
        let system = r#"{"role":"system","content":"be brief"}"#;
        let user = r#"{"role":"user","content":"hello"}"#;
        let answer = r#"{"role":"assistant","content":"hi"}"#;
        let both = Some(format!("[{system},{user}"));
        assert_eq!(chat(&format!("{system},{user}")), both);
        assert_eq!(chat(&format!("{system},{user},{answer},{user}")), both);
        assert_eq!(chat(&format!("{user},{answer}")), Some(format!("[{user}")));
        assert_eq!(chat(system), Some(format!("[{system}")));
        assert_eq!(chat("7"), Some("[7".into()));
        assert_eq!(chat(""), None);
        assert_eq!(of(Endpoint::ChatCompletions, r#"{"messages":"x"}"#), None);
        assert_eq!(of(Endpoint::ChatCompletions, "{}"), None);
    }

    #[test]
    fn of_a_prompt_it_is_the_first_part_and_of_an_embedding_nothing() {
        let long = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(5_000));
        assert_eq!(
            of(Endpoint::Completions, &long).map(|it| it.len()),
            Some(PROMPT)
        );
        assert_eq!(
            of(Endpoint::Completions, r#"{"prompt":"a"}"#).as_deref(),
            Some("\"a\"")
        );
        assert_eq!(of(Endpoint::Embeddings, r#"{"input":"a"}"#), None);
    }
}
