//! How much does a request ask for that is no token? What is spoken by its characters, what is heard by its seconds, pictures
//! and searches by their number.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Endpoint;
use crate::envelope::{Members, parse_string};
use crate::usage::Unit;

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
pub(super) struct Own {
    pub(super) unit: Unit,
    /// At most so many. None: nobody knows.
    pub(super) most: Option<u64>,
    /// So many, where the answer does not say.
    pub(super) likely: u64,
}

impl Own {
    fn exactly(unit: Unit, count: Option<u64>) -> Self {
        Self {
            unit,
            most: count,
            likely: count.unwrap_or(0),
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
                })
            }
            Endpoint::ImageGenerations | Endpoint::ImageEdits => {
                Some(Self::exactly(Unit::Images, Some(answers())))
            }
            Endpoint::Rerank => Some(searches(body)),
            _ => None,
        }
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
