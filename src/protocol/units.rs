//! How much does a request ask for that is no token? What is spoken by its characters, what is heard by its seconds, pictures
//! and searches by their number.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Endpoint;
use crate::envelope::{Members, parse_string};
use crate::usage::{Look, Quality, Size, Unit};

/// So many bytes of sound are a second at the least: Opus, at its lowest bit rate, has 6 kbit/s (RFC 6716, 2.1.1).
const LEAST_PER_SECOND: u64 = 750;

/// So many bytes of sound are probably a second: speech is mostly sent at 32 kbit/s or more.
const PROBABLY_PER_SECOND: u64 = 4_000;

/// So many documents are ranked in one search (docs.cohere.com, "How does Cohere's pricing work?").
const DOCUMENTS: u64 = 100;

/// A document of more tokens, with the query, is ranked as several of so many (same page). A token has a byte at the least.
const DOCUMENT_TOKENS: u64 = 500;

/// What a request asks for of a unit that is no token.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Own {
    /// Which.
    pub unit: Unit,
    /// At most so many. None: nobody knows.
    pub most: Option<u64>,
    /// So many, where the answer does not say.
    pub likely: u64,
    /// What the pictures are to be like that it asks for.
    #[serde(default, skip_serializing_if = "Look::is_any")]
    pub look: Look,
}

impl Own {
    fn exactly(unit: Unit, count: Option<u64>) -> Self {
        Self {
            unit,
            most: count,
            likely: count.unwrap_or(0),
            look: Look::ANY,
        }
    }

    /// What is asked for, with so many answers. None: tokens alone.
    pub(super) fn of(
        endpoint: Endpoint,
        body: &impl Members,
        answers: impl FnOnce() -> u64,
    ) -> Option<Self> {
        match endpoint {
            Endpoint::Speech => Some(Self::exactly(Unit::Characters, characters(body))),
            Endpoint::Transcriptions | Endpoint::Translations => {
                let length = body.length();
                Some(Self {
                    unit: Unit::Seconds,
                    most: Some(length.div_ceil(LEAST_PER_SECOND)),
                    likely: length.div_ceil(PROBABLY_PER_SECOND),
                    look: Look::ANY,
                })
            }
            Endpoint::ImageGenerations | Endpoint::ImageEdits => Some(Self {
                look: look(body.value("size"), body.value("quality")),
                ..Self::exactly(Unit::Images, Some(answers()))
            }),
            Endpoint::Rerank => Some(searches(body)),
            _ => None,
        }
    }
}

/// What pictures are like, by the members that say so: texts of JSON, or a form's.
pub(super) fn look(size: Option<&[u8]>, quality: Option<&[u8]>) -> Look {
    let text = |value: &[u8]| match parse_string(value) {
        Some(text) => text.into_owned(),
        None => String::from_utf8_lossy(value).into_owned(),
    };
    let given = |value: Option<&[u8]>| value.filter(|value| *value != b"null").map(text);
    Look {
        size: given(size).map_or(Size::Any, |text| Size::read(&text)),
        quality: given(quality).map_or(Quality::Any, |text| Quality::read(&text)),
    }
}

/// The characters that are to be spoken, as Unicode counts them. None: it is no text.
fn characters(body: &impl Members) -> Option<u64> {
    let text = parse_string(body.value("input")?)?;
    Some(text.chars().count() as u64)
}

/// The searches that it takes to rank documents.
fn searches(body: &impl Members) -> Own {
    let query = body.value("query").map_or(0, <[u8]>::len) as u64;
    let list = body.value("documents");
    let list: Option<Vec<&RawValue>> = list.and_then(|list| serde_json::from_slice(list).ok());
    let Some(list) = list else {
        return Own {
            unit: Unit::Searches,
            most: None,
            likely: 1,
            look: Look::ANY,
        };
    };
    let parts = list.iter().map(|document| {
        let length = document.get().len() as u64 + query;
        length.div_ceil(DOCUMENT_TOKENS)
    });
    let parts = parts.fold(0, u64::saturating_add);
    Own {
        unit: Unit::Searches,
        most: Some(parts.div_ceil(DOCUMENTS).max(1)),
        likely: (list.len() as u64).div_ceil(DOCUMENTS).max(1),
        look: Look::ANY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use bytes::Bytes;

    fn own(endpoint: Endpoint, body: &str) -> Own {
        let envelope = Envelope::scan(Bytes::copy_from_slice(body.as_bytes()), |_| false).unwrap();
        Own::of(endpoint, &envelope, || 3).unwrap()
    }

    #[test]
    fn what_is_spoken_is_counted_by_its_characters() {
        let spoken = |input: &str| own(Endpoint::Speech, &format!(r#"{{"input":{input}}}"#));
        for (input, want) in [
            (r#""h\u00e9 \ud83d\ude00""#, 4),
            (r#""Zoë""#, 3),
            (r#""""#, 0),
        ] {
            assert_eq!(spoken(input).most, Some(want), "{input}");
            assert_eq!(spoken(input).likely, want, "{input}");
        }
        for input in ["7", "[\"a\"]", "null"] {
            assert_eq!(spoken(input).most, None, "{input}");
        }
    }

    #[test]
    fn pictures_are_counted_by_the_answers() {
        assert_eq!(own(Endpoint::ImageGenerations, "{}").most, Some(3));
    }

    #[test]
    fn what_pictures_are_to_be_like_is_read_from_json_and_from_forms() {
        let asked = |body: &str| own(Endpoint::ImageGenerations, body).look.to_string();
        for (body, want) in [
            ("{}", "any"),
            (r#"{"size":null,"quality":"auto"}"#, "any"),
            (r#"{"size":"1024x1792","quality":"hd"}"#, "1024x1792/hd"),
            (r#"{"size":"1024\u00781792"}"#, "1024x1792"),
            (r#"{"size":"2K","quality":1}"#, "unknown/unknown"),
            (r#"{"size":["1024x1024"]}"#, "unknown"),
            (r#"{"size":""}"#, "unknown"),
        ] {
            assert_eq!(asked(body), want, "{body}");
        }
        // A form's are texts as they are.
        assert_eq!(
            look(Some(b"1024x1024"), Some(b"low")).to_string(),
            "1024x1024/low"
        );
        assert_eq!(look(Some(b"auto"), Some(b"\xff")).to_string(), "unknown");
        let spoken = own(Endpoint::Speech, r#"{"input":"a","size":"1024x1024"}"#);
        assert!(spoken.look.is_any());
    }

    #[test]
    fn long_documents_are_ranked_as_several() {
        let ranked = |documents: &[String], query: &str| {
            let body = serde_json::json!({ "documents": documents, "query": query });
            let own = own(Endpoint::Rerank, &body.to_string());
            (own.most, own.likely)
        };
        let short = vec!["a".to_owned(); 100];
        assert_eq!(ranked(&short, "q"), (Some(1), 1));
        let more = vec!["a".to_owned(); 101];
        assert_eq!(ranked(&more, "q"), (Some(2), 2));
        let long = vec!["a".repeat(996); 51];
        assert_eq!(
            ranked(&long, ""),
            (Some(2), 1),
            "two each, with their quotes"
        );
        assert_eq!(ranked(&[], ""), (Some(1), 1));
        let none = own(Endpoint::Rerank, r#"{"documents":{"a":1}}"#);
        assert_eq!((none.most, none.likely), (None, 1));
    }
}
