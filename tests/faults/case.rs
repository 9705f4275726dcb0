//! One fault, asked for in one way, in one place of a list of targets: set up, asked, judged.

use std::net::SocketAddr;
use std::time::Duration;

use crate::expected::{Column, Expected, others, seen};
use crate::fault::{Fault, Mode};
use crate::stage::{BUDGET, Caller, Entry, Got, Identities, Metrics, Stage};
use crate::support::{chat, chat_stream};
use crate::upstream::Upstream;

/// No fault may make the gateway ask a provider more often than this: two tries, each sent again once where the
/// request came back unread.
const MOST_ASKED: usize = 4;

/// What a client hears that waits.
const COMMENT: &str = ": keep-alive\n\n";

/// With so many failures in a row a target rests.
const FAILURES: usize = 5;

/// One fault in one way and one place.
pub struct Case {
    pub fault: Fault,
    pub mode: Mode,
    pub column: Column,
    pub expected: Expected,
    /// The name of its model and its key, and the start of its providers'.
    pub stem: String,
    upstream: Upstream,
}

impl Case {
    /// Set up, its provider waiting. None: the fault is not met in this way.
    pub async fn new(
        n: usize,
        fault: &Fault,
        mode: Mode,
        column: Column,
        identities: &Identities,
    ) -> Option<Self> {
        let expected = Expected::of(fault, mode, column)?;
        let play = fault.play(mode)?;
        let upstream = Upstream::at(&fault.place, play.acts.clone(), identities).await;
        Some(Self {
            fault: fault.clone(),
            mode,
            column,
            expected,
            stem: format!("f{n}-{mode:?}-{column:?}").to_lowercase(),
            upstream,
        })
    }

    /// Its part of the configuration; the other target is at this address.
    pub fn lines(&self, other: SocketAddr) -> String {
        let Self { stem, fault, .. } = self;
        let provider = |name: &str, lines: &str| {
            format!(
                "[providers.{stem}-{name}]\npreset = \"openai-compatible\"\napi_key = \"sk-p\"\n{lines}\n"
            )
        };
        let price = "price = { input = 1, output = 2 }";
        let more = match self.column {
            // Long enough to be found at rest.
            Column::Open => "tries = 1\ncooldown = \"1h\"\n",
            Column::Alone | Column::Another => "",
        };
        let lines = [&*self.upstream.lines, more, fault.lines].concat();
        let mut text = provider("a", &lines);
        let mut targets = format!("{{ to = \"{stem}-a/x\", {price} }}");
        if self.column != Column::Alone {
            text += &provider("b", &format!("base_url = \"http://{other}/v1\""));
            targets += &format!(", {{ to = \"{stem}-b/y\", {price} }}");
        }
        let usd = BUDGET / 1_000_000_000;
        text + &format!(
            "[models.{stem}]\ntargets = [{targets}]\n[keys.{stem}]\nkey = \"sk-{stem}\"\nbudget = {{ usd = {usd}, per = \"total\" }}\n"
        )
    }

    /// Asks, after what must be asked before. The answer, if there was one.
    pub async fn ask(&self, stage: &Stage) -> Option<Got> {
        let body = match self.mode {
            Mode::Stream => chat_stream(&self.stem),
            Mode::Whole => chat(&self.stem),
        };
        let mut caller = Caller::to(stage.address).await;
        for _ in 0..self.fault.before {
            let got = caller.ask(&self.stem, body.clone()).await.unwrap();
            assert_eq!(got.status, 200, "{}: {got:?}", self.stem);
            // What a provider does after its answer takes a moment to be seen.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.column == Column::Open {
            for _ in 0..FAILURES {
                caller.ask(&self.stem, body.clone()).await;
            }
        }
        let asked = self.upstream.count();
        let asking = caller.ask(&self.stem, body);
        let got = tokio::join!(asking, self.upstream.part()).0;
        if self.column == Column::Open {
            assert_eq!(
                self.upstream.count(),
                asked,
                "{} {}: it is asked: {got:?}",
                self.stem,
                self.fault.name
            );
        }
        got
    }

    /// What is wrong, in words; none if nothing is.
    pub fn judge(&self, got: Option<&Got>, entries: &[Entry], metrics: &Metrics) -> Vec<String> {
        let mut wrong = Vec::new();
        let Self { expected, stem, .. } = self;
        let hears = match self.fault.play(self.mode) {
            Some(play) if !expected.another => play.hears.clone(),
            _ => others(self.mode),
        };
        // Comments are ours, and no part of an answer.
        let mut got = got.cloned();
        if let Some(got) = got.as_mut().filter(|_| self.fault.comments) {
            let text = String::from_utf8_lossy(&got.body).replace(COMMENT, "");
            got.body = text.into();
        }
        let got = got.as_ref();
        match seen(got, self.mode, &hears) {
            Ok(seen) if seen == expected.seen => {}
            Ok(seen) => {
                let body = got.map(|got| String::from_utf8_lossy(&got.body).into_owned());
                wrong.push(format!(
                    "the client sees {seen:?}, not {:?}: {body:?}",
                    expected.seen
                ));
            }
            Err(lie) => wrong.push(format!("the client sees {lie}")),
        }
        let other = format!("{stem}-b/y");
        let entered = entries.iter();
        let entered = entered.map(|entry| (entry.target == other, &*entry.end, entry.estimated));
        let entered: Vec<(bool, &str, bool)> = entered.collect();
        if entered != expected.entries {
            wrong.push(format!(
                "entered are {entered:?}, not {:?}",
                expected.entries
            ));
        }
        if self.column == Column::Open {
            if !metrics.rests(&format!("{stem}-a/x")) {
                wrong.push("the target does not rest".into());
            }
            return wrong;
        }
        wrong.extend(self.judge_metrics(metrics));
        wrong
    }

    fn judge_metrics(&self, metrics: &Metrics) -> Vec<String> {
        let mut wrong = Vec::new();
        let Self { expected, stem, .. } = self;
        let mut differs = |what: &str, is: Vec<(String, usize)>, must: &[(String, usize)]| {
            if is != must {
                wrong.push(format!("{what} are counted as {is:?}, not {must:?}"));
            }
        };
        let (a, b) = (format!("{stem}-a/x"), format!("{stem}-b/y"));
        let helped = usize::from(expected.another);
        let once = |word: &str, count: usize| vec![(word.to_owned(), count); count];
        let is_stream = usize::from(self.mode == Mode::Stream);
        differs("tries", metrics.tries(&a), &expected.tries);
        differs("streams", metrics.streams(&a), &expected.streams);
        differs(
            "the other's tries",
            metrics.tries(&b),
            &once("answered", helped),
        );
        differs(
            "the other's streams",
            metrics.streams(&b),
            &once("complete", helped * is_stream),
        );
        let count = self.upstream.count();
        if count > MOST_ASKED + self.fault.before {
            wrong.push(format!("the provider is asked {count} times"));
        }
        wrong
    }
}
