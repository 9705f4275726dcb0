//! Recorded answers, cut at every byte of what goes over the wire: none is taken for whole whose end was not sent.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::expected::others;
use crate::fault::Mode;
use crate::recorded;
use crate::stage::{BUDGET, Caller, Entry, Got, Stage};
use crate::support::{Act, Provider, chat, chat_stream};

/// The key of all who ask here.
pub const KEY: &str = "cuts";

/// In the short form, one cut of so many; the last bytes and the first are cut at each.
const SAMPLE: usize = 67;
/// So many of the last.
const LAST: usize = 24;

/// So many ask for one answer, each for cuts of its own; where another target stands behind and all bytes are cut, of
/// models of their own, none of which may be answered by another target more often than its allowance allows.
const ASKERS: usize = 2;
const MANY_ASKERS: usize = 12;

/// So many of them ask at once.
const AT_ONCE: usize = 48;

/// An answer as it was recorded.
struct Recorded {
    preset: &'static str,
    name: &'static str,
    mode: Mode,
    /// Without: a stream's finish reason is its end.
    marker: bool,
    sent: Vec<u8>,
    heard: Vec<u8>,
}

/// How an answer's end shows on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire {
    /// By a last chunk.
    Chunks,
    /// By the end of the connection.
    Close,
    /// By a length that was told.
    Length,
}

impl Recorded {
    fn all() -> Vec<Self> {
        let streams = [
            ("openai", "stream", true),
            ("groq", "stream", true),
            ("llama-cpp", "stream", true),
            ("ollama", "stream", true),
            ("openai-compatible", "stream_crlf", true),
            ("mistral", "stream", false),
        ];
        let wholes = [("openai", "chat"), ("llama-cpp", "chat")];
        let streams = streams
            .into_iter()
            .map(|(preset, name, marker)| Self::stream(preset, name, marker));
        let wholes = wholes.into_iter().map(|(preset, name)| Self {
            preset,
            name,
            mode: Mode::Whole,
            marker: false,
            sent: fixture(preset, name, "upstream_response.json"),
            heard: fixture(preset, name, "client_response.json"),
        });
        streams.chain(wholes).collect()
    }

    /// Without a marker: as if its provider knew none.
    fn stream(preset: &'static str, name: &'static str, marker: bool) -> Self {
        let read = |file: &str| {
            let text = String::from_utf8(fixture(preset, name, file)).unwrap();
            let text = if marker { text } else { text.replace(END, "") };
            text.into_bytes()
        };
        Self {
            preset,
            name,
            mode: Mode::Stream,
            marker,
            sent: read("upstream_response.sse"),
            heard: read("client_response.sse"),
        }
    }

    /// What goes over the wire; and of each byte of it, how many of the answer have come with it.
    fn over(&self, wire: Wire) -> (Vec<u8>, Vec<usize>) {
        let kind = match self.mode {
            Mode::Stream => "text/event-stream",
            Mode::Whole => "application/json",
        };
        let more = match wire {
            Wire::Chunks => "transfer-encoding: chunked\r\n".to_owned(),
            Wire::Close => String::new(),
            Wire::Length => format!("content-length: {}\r\n", self.sent.len()),
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{more}\r\n");
        let (mut bytes, mut come) = (Vec::new(), Vec::new());
        let mut put = |part: &[u8], is_answer: bool| {
            for byte in part {
                bytes.push(*byte);
                come.push(come.last().copied().unwrap_or(0) + usize::from(is_answer));
            }
        };
        put(head.as_bytes(), false);
        if wire != Wire::Chunks {
            put(&self.sent, true);
            return (bytes, come);
        }
        for chunk in self.sent.chunks(150) {
            put(format!("{:x}\r\n", chunk.len()).as_bytes(), false);
            put(chunk, true);
            put(b"\r\n", false);
        }
        put(b"0\r\n\r\n", false);
        (bytes, come)
    }

    /// How many of its bytes there are when its first content has come whole. The CR of a blank line ends an event, and
    /// nobody waits for the LF.
    fn content(&self) -> usize {
        let text = std::str::from_utf8(&self.sent).unwrap();
        let (end, spare) = match text.contains("\r\n\r\n") {
            true => ("\r\n\r\n", 1),
            false => ("\n\n", 0),
        };
        let is_content = |event: &str| {
            ["content", "reasoning", "reasoning_content"]
                .iter()
                .any(|name| {
                    let start = format!("\"{name}\":\"");
                    let rest = event.split_once(&start).map(|(_, rest)| rest);
                    rest.is_some_and(|rest| !rest.starts_with('"'))
                })
        };
        let mut events = text.split_inclusive(end);
        let before = events.by_ref().position(is_content).unwrap_or_default();
        let length: usize = text
            .split_inclusive(end)
            .take(before + 1)
            .map(str::len)
            .sum();
        length - spare
    }

    /// Whether `come` of it are an answer with its end: certainly, and possibly.
    fn is_whole(&self, come: usize, is_clean: bool) -> (bool, bool) {
        let came = String::from_utf8_lossy(&self.sent[..come]);
        match (self.mode, self.marker) {
            // What follows its end is no part of it.
            (Mode::Stream, true) => {
                let certain = ["data: [DONE]\n\n", "data: [DONE]\r\n\r\n"];
                (
                    certain.iter().any(|end| came.contains(end)),
                    came.contains("data: [DONE]"),
                )
            }
            (Mode::Stream, false) => (is_clean && come == self.sent.len(), came.contains(FINISH)),
            (Mode::Whole, _) => {
                let is_all = come >= self.sent.trim_ascii_end().len();
                (is_clean && come == self.sent.len(), is_all)
            }
        }
    }
}

const END: &str = "data: [DONE]\n\n";
const FINISH: &str = "\"finish_reason\":\"stop\"";

fn fixture(preset: &str, name: &str, file: &str) -> Vec<u8> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read(root.join(preset).join(name).join(file)).unwrap()
}

/// Who asks for one answer, cut here and there.
struct Asker {
    recorded: Arc<Recorded>,
    wire: Wire,
    /// Another target stands behind.
    is_another: bool,
    stem: String,
    /// How many bytes went out, how many of them were of the answer, and whether that was all.
    cuts: Vec<(usize, usize, bool)>,
    provider: Provider,
}

/// All of them, and the targets that do well.
pub struct Cuts {
    askers: Vec<Asker>,
    others: [Provider; 2],
}

/// What must be entered of each request.
pub struct Cut {
    what: String,
    id: String,
    /// The ends of its entries, of which any may be.
    ends: Vec<&'static [&'static str]>,
}

/// What was seen.
#[derive(Default)]
pub struct IsCut {
    wrong: Vec<String>,
    cuts: Vec<Cut>,
}

impl Cuts {
    /// All cuts, or a sample of them.
    pub async fn new(all: bool) -> Self {
        let mut askers = Vec::new();
        for recorded in Recorded::all().into_iter().map(Arc::new) {
            let wires: &[Wire] = match recorded.mode {
                Mode::Stream => &[Wire::Chunks, Wire::Close],
                Mode::Whole => &[Wire::Chunks, Wire::Close, Wire::Length],
            };
            for wire in wires {
                for is_another in [false, true] {
                    let askers_of_it = if all && is_another {
                        MANY_ASKERS
                    } else {
                        ASKERS
                    };
                    for n in 0..askers_of_it {
                        let part = (n, askers_of_it);
                        let asker = Asker::new(&recorded, *wire, is_another, part, all).await;
                        askers.push(asker);
                    }
                }
            }
        }
        let good = |act: Act| Provider::new([act]);
        let others = [
            good(recorded::good_stream()).await,
            good(recorded::good_whole()).await,
        ];
        Self { askers, others }
    }

    /// Its part of the configuration.
    pub fn lines(&self) -> String {
        let usd = BUDGET / 1_000_000_000;
        let key = format!(
            "[keys.{KEY}]\nkey = \"sk-{KEY}\"\nbudget = {{ usd = {usd}, per = \"total\" }}\n"
        );
        let others = ["stream", "whole"].iter().zip(&self.others).map(|(name, other)| {
            let address = other.address;
            format!("[providers.cut-{name}]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\n")
        });
        let askers = self.askers.iter().map(Asker::lines);
        std::iter::once(key).chain(others).chain(askers).collect()
    }

    /// Asks for all of them. Gives how many there were, and what was seen.
    pub async fn ask(self, stage: &Arc<Stage>) -> (usize, IsCut) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut asking = JoinSet::new();
        for asker in self.askers {
            let (stage, places) = (Arc::clone(stage), Arc::clone(&places));
            asking.spawn(async move {
                let _place = places.acquire().await.unwrap();
                asker.ask(&stage).await
            });
        }
        let mut all = IsCut::default();
        for seen in asking.join_all().await {
            all.wrong.extend(seen.wrong);
            all.cuts.extend(seen.cuts);
        }
        (all.cuts.len(), all)
    }
}

impl IsCut {
    /// What is wrong, in words.
    pub fn judge(mut self, entries: &HashMap<String, Vec<Entry>>) -> Vec<String> {
        for Cut { what, id, ends } in self.cuts {
            let of_it = entries.get(&id).map(Vec::as_slice).unwrap_or_default();
            let fits = of_it.len() == ends.len()
                && of_it
                    .iter()
                    .zip(&ends)
                    .all(|(entry, may)| may.contains(&&*entry.end));
            if !fits {
                let found: Vec<&str> = of_it.iter().map(|entry| &*entry.end).collect();
                self.wrong
                    .push(format!("{what}: entered are {found:?}, not {ends:?}"));
            }
        }
        self.wrong
    }
}

impl Asker {
    async fn new(
        recorded: &Arc<Recorded>,
        wire: Wire,
        is_another: bool,
        (n, of): (usize, usize),
        all: bool,
    ) -> Self {
        let (bytes, come) = recorded.over(wire);
        let length = bytes.len();
        let is_asked = |at: &usize| all || at.is_multiple_of(SAMPLE) || at + LAST >= length;
        let (mut cuts, mut acts) = (Vec::new(), Vec::new());
        for at in (0..=length).filter(is_asked).skip(n).step_by(of) {
            let came = at.checked_sub(1).map_or(0, |last| come[last]);
            cuts.push((at, came, at == length));
            acts.push(Act::Raw(bytes[..at].to_vec()));
        }
        let Recorded { preset, name, .. } = &**recorded;
        let place = if is_another { "another" } else { "alone" };
        let stem = format!("cut-{preset}-{name}-{wire:?}-{place}-{n}").to_lowercase();
        Self {
            recorded: Arc::clone(recorded),
            wire,
            is_another,
            stem,
            cuts,
            provider: Provider::new(acts).await,
        }
    }

    fn lines(&self) -> String {
        let Self { stem, recorded, .. } = self;
        let (preset, address) = (recorded.preset, self.provider.address);
        let price = "price = { input = 1, output = 2 }";
        let marker = recorded.marker || recorded.mode == Mode::Whole;
        let other = match (self.is_another, recorded.mode) {
            (false, _) => String::new(),
            (true, Mode::Stream) => format!(", {{ to = \"cut-stream/y\", {price} }}"),
            (true, Mode::Whole) => format!(", {{ to = \"cut-whole/y\", {price} }}"),
        };
        format!(
            "[providers.{stem}]\npreset = \"{preset}\"\nbase_url = \"http://{address}/v1\"\napi_key = \"sk-p\"\n\
             tries = 1\ncooldown = \"0s\"\ndone_marker = {marker}\n\
             [models.{stem}]\ntargets = [{{ to = \"{stem}/x\", {price} }}{other}]\n"
        )
    }

    async fn ask(self, stage: &Stage) -> IsCut {
        let mut is_cut = IsCut::default();
        let mut caller = Caller::to(stage.address).await;
        for (at, come, is_all) in &self.cuts {
            let body = match self.recorded.mode {
                Mode::Stream => chat_stream(&self.stem),
                Mode::Whole => chat(&self.stem),
            };
            let what = format!("{} at byte {at}", self.stem);
            let got = caller.ask(KEY, body).await;
            match self.judge(got.as_ref(), *come, *is_all) {
                Ok(ends) => is_cut.cuts.push(Cut {
                    what,
                    id: got.as_ref().map(Got::id).unwrap_or_default().to_owned(),
                    ends,
                }),
                Err(wrong) => is_cut.wrong.push(format!("{what}: {wrong}")),
            }
        }
        if self.provider.count() != self.cuts.len() {
            is_cut.wrong.push(format!(
                "{}: asked {} times for {} cuts",
                self.stem,
                self.provider.count(),
                self.cuts.len()
            ));
        }
        is_cut
    }

    /// What a client makes of an answer of which so much has come. Gives the ends that must be entered.
    fn judge(
        &self,
        got: Option<&Got>,
        come: usize,
        is_all: bool,
    ) -> Result<Vec<&'static [&'static str]>, String> {
        const FAILED: &[&str] = &["reset", "nonsense"];
        let Recorded { heard, mode, .. } = &*self.recorded;
        let got = got.ok_or("the connection broke without any answer")?;
        let text = String::from_utf8_lossy(&got.body);
        if !got.is_whole {
            return Err(format!("a body that ends without a word: {text}"));
        }
        // Only the end of the connection says so, and it comes.
        let is_clean = is_all || self.wire == Wire::Close;
        let (must, may) = self.recorded.is_whole(come, is_clean);
        let is_shown = *mode == Mode::Stream && come >= self.recorded.content();
        if got.status != 200 {
            let is_error = serde_json::from_slice::<serde_json::Value>(&got.body)
                .is_ok_and(|error| error["error"]["code"] == "upstream_error");
            let fits = got.status == 502 && is_error && !must && !is_shown && !self.is_another;
            return if fits {
                Ok(vec![FAILED])
            } else {
                Err(format!("{}: {text}", got.status))
            };
        }
        if self.is_another && got.body == others(*mode) && got.header("x-tollgate-tries") == "2" {
            let fits = !must && !is_shown;
            return if fits {
                Ok(vec![FAILED, &["complete"]])
            } else {
                Err("the other's answer".into())
            };
        }
        if let Some(at) = text.rfind("data: {\"error\"") {
            let before = &text.as_bytes()[..at];
            let fits = heard.starts_with(before) && is_shown && !must && !text.contains("[DONE]");
            return if fits {
                Ok(vec![&["truncated"]])
            } else {
                Err(format!("an error after {text}"))
            };
        }
        // Whole, as the client sees it. The last line's end may be missing, as it was.
        let is_heard =
            heard.starts_with(&got.body) && got.body.len() >= heard.trim_ascii_end().len();
        match may && is_heard {
            true => Ok(vec![&["complete"]]),
            false => Err(format!("WHOLE, AND IT IS NOT: {text}")),
        }
    }
}
