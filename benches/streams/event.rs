//! What does an event say? Which of its stream it is, and when it was sent; as the provider writes it and the listener
//! reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memmem;

/// What stands before both numbers.
const BEFORE: &str = "\"content\":\"";

/// One event with content.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    /// How many came before it in its stream.
    pub(crate) number: u64,
    /// When it was sent, by [`clock`].
    pub(crate) sent: u64,
}

impl Event {
    /// The one that is sent now.
    pub(crate) fn now(number: u64) -> Self {
        let sent = clock();
        Self { number, sent }
    }

    /// Its text in a stream, as long as those of real providers.
    pub(crate) fn text(self) -> String {
        let Self { number, sent } = self;
        format!(
            "data: {{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\
             \"created\":1741570283,\"model\":\"paced\",\"choices\":[{{\"index\":0,\"delta\":{{\
             {BEFORE}{number} {sent}\"}},\"finish_reason\":null}}],\"obfuscation\":\"qT7vXbZ3mK0d\"}}\n\n"
        )
    }

    /// Reads one event's text; nothing if it has no content.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let at = memmem::find(text, BEFORE.as_bytes())? + BEFORE.len();
        let text = std::str::from_utf8(text.get(at..)?).ok()?;
        let (content, _) = text.split_once('"')?;
        let (number, sent) = content.split_once(' ')?;
        Some(Self {
            number: number.parse().ok()?,
            sent: sent.parse().ok()?,
        })
    }
}

/// Nanoseconds by the calendar clock: the only one that two processes can compare.
pub(crate) fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(0))
}
