//! `docs/faults.md`, written from what was seen to be so.

use std::fmt::Write as _;

use crate::case::Case;
use crate::expected::Column;
use crate::fault::Mode;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");

const INTRODUCTION: &str = r"# Faults

<!-- Written by `cargo test --test faults -- all --write`; change tests/faults, not this. -->

Whatever a provider does wrong, four things hold. A client never takes an answer for whole whose end the provider did not
send: it sees the whole answer, or the beginning of one and an error in the stream, or an error and nothing else, or a
connection that breaks. What fails before its first content is answered by the next target, if there is one. Each try that
a provider may bill is one entry of the ledger, which says how it ended, and *estimated* where the provider did not tell
what was used. And afterwards nothing is left taken: no request under way, no money set aside.

The tables are what a run of the fault suite has seen, of the real program over real sockets. *Asked for*: a stream, an
answer in one piece, or either. *Alone*: the faulty target is the only one of its model; *another*: one that does well
stands behind it. A target is asked up to twice (`tries = 2`, the default) where that can help. What is *charged* are the
entries of the request; what *metrics* say is `tollgate_tries_total` by `outcome` and, for streams, `tollgate_streams_total`
by `end`, both of the faulty target, and with the request that went well before on a connection that was kept. Where
another answers, it has one try `answered` and its stream is `complete`.
*Behind comments*: the client has waited so long that it hears comments, and has its status (docs/streams.md).
";

const CUT: &str = "
## Cut at every byte

Six recorded streams and two recorded answers in one piece are cut at every byte of what goes over the wire: within the
head, between and within chunks, within events and characters; their end told by a last chunk, by a length, or by the end
of the connection alone; alone and with another target. No cut gives an answer that looks whole and is not, and each is one
entry: `complete`, `truncated`, or, before there was anything to show, `reset` or `nonsense`.
";

const REST: &str = "
## An open breaker

A target that has failed so often that its breaker is open (`tollgate_target_up` is 0) is passed over: the client sees the
other's answer, is charged for that alone, and the target with the fault gets no request. If it is the only one, one request at
a time is let through to it, for which holds what stands under *alone*, and the others hear 503 `no_target_available`, which
`tests/gateway/health.rs` shows. So it was tried with each fault below that is the target's own: not with those that end well,
are the request's, or say only that it is busy (429); and not behind comments, where it is the same fault.

## Every fault

| fault | asked for | alone: the client sees | charged | metrics | another: the client sees | charged | metrics |
|---|---|---|---|---|---|---|---|
";

/// What was seen of one fault in one way of asking: alone, and with another target.
type Row = [[String; 3]; 2];

/// Writes it.
pub fn write(cases: &[&Case], cuts: usize) {
    let mut text = INTRODUCTION.to_owned();
    // The day of `Fri, 20 Nov 2026 10:00:00 GMT`.
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let date = date.get(5..16).unwrap_or_default();
    let ways = cases.len();
    let _ = write!(
        text,
        "\n`cargo test --test faults -- all`, {date}: {ways} cases and {cuts} cuts, all as they must be.\n{CUT}"
    );
    text.push_str(REST);
    for cases in cases.chunk_by(|one, other| one.fault.name == other.fault.name) {
        let name = cases[0].fault.name.replace('|', "\\|");
        let [stream, whole] = [Mode::Stream, Mode::Whole].map(|mode| row(cases, mode));
        match (stream, whole) {
            (Some(stream), Some(whole)) if is_same(&stream, &whole) => {
                text.push_str(&line(&name, "either", &stream));
            }
            (stream, whole) => {
                text.extend(stream.map(|row| line(&name, "a stream", &row)));
                text.extend(whole.map(|row| line(&name, "one piece", &row)));
            }
        }
    }
    std::fs::write(PAGE, text).unwrap();
}

fn row(cases: &[&Case], mode: Mode) -> Option<Row> {
    let told = |column: Column| {
        let found = cases
            .iter()
            .find(|case| (case.mode, case.column) == (mode, column));
        found.map(|case| case.expected.told())
    };
    Some([told(Column::Alone)?, told(Column::Another)?])
}

/// Only of streams it is counted how they end; else it is the same.
fn is_same(stream: &Row, whole: &Row) -> bool {
    let pairs = stream.iter().zip(whole);
    pairs.into_iter().all(|(stream, whole)| {
        stream[..2] == whole[..2] && stream[2].split("; streams").next() == Some(&whole[2])
    })
}

fn line(name: &str, asked: &str, [alone, another]: &Row) -> String {
    format!(
        "| {name} | {asked} | {} | {} |\n",
        alone.join(" | "),
        another.join(" | ")
    )
}
