//! What does an ordinary request look like? As little as everybody asks for, to see whether that has a price.

use super::{Demand, Endpoint};
use crate::envelope::Members;

/// A short request, with something in it of all that is asked about anywhere.
struct Ordinary;

/// How long it is, in bytes.
const LENGTH: u64 = 100;

impl Members for Ordinary {
    fn value(&self, name: &str) -> Option<&[u8]> {
        match name {
            "messages" => Some(br#"[{"role":"user","content":"a"}]"#),
            "input" | "query" => Some(br#""a""#),
            "documents" => Some(br#"["a"]"#),
            _ => None,
        }
    }

    fn length(&self) -> u64 {
        LENGTH
    }

    fn file_bytes(&self) -> u64 {
        0
    }
}

impl Demand {
    /// What a request asks for that asks for nothing in particular.
    pub fn ordinary(endpoint: Endpoint) -> Option<Self> {
        Self::of(endpoint, &Ordinary).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_wherever_that_is_for_the_request_to_say() {
        for endpoint in Endpoint::asking() {
            let demand = Demand::ordinary(endpoint).unwrap();
            let is_told = demand.own().is_none_or(|own| own.most.is_some());
            assert!(is_told, "{endpoint:?}");
            // Sound and pictures are in tokens what a provider makes of them.
            let is_unseen = matches!(
                endpoint,
                Endpoint::Transcriptions | Endpoint::Translations | Endpoint::ImageEdits
            );
            assert_eq!(demand.input(None).is_none(), is_unseen, "{endpoint:?}");
        }
    }
}
