//! Answers that fail, or come in an unusual way: before there is one, in its middle, at its end.

use std::time::Duration;

use crate::comes::{
    FAULT, NONSENSE, RESET, SILENCE, STALLED, TRUNCATED, WHOLE_ANSWER, breaks, clients,
};
use crate::fault::{Comes, Fault, SHORT, Told};
use crate::recorded::{
    DONE, HEARD, JSON, SSE, STREAM, WHOLE, chunks, events, first, good_stream, good_whole,
    long_half, raw, told, with,
};
use crate::support::Act;

/// The connection breaks before there is anything to show.
pub fn before_the_answer() -> Vec<Fault> {
    vec![
        Fault::any("reset before the head", &RESET, Act::Reset),
        Fault::any("closed before the head", &RESET, Act::Raw(vec![])),
        Fault::any(
            "closed within the head",
            &RESET,
            Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec()),
        ),
        Fault::any(
            "no HTTP",
            &RESET,
            Act::Raw(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ),
        Fault::both(
            "reset after the head",
            &RESET,
            Act::Snap(Box::new(Act::Cut(vec![]))),
            Act::Snap(Box::new(Act::Raw(told(0, WHOLE.len())))),
        ),
        Fault::both(
            "closed after the head",
            &RESET,
            Act::Cut(vec![]),
            Act::Raw(told(0, WHOLE.len())),
        ),
        Fault::of("closed before there was content").streams(Act::Cut(first(1)), &RESET),
    ]
}

/// What comes is none.
pub fn no_answers() -> Vec<Fault> {
    let encoded = |act: Act| act.with("content-encoding", "gzip");
    let sse = Act::json(STREAM).with("content-type", "text/event-stream");
    vec![
        Fault::both(
            "ended without anything",
            &NONSENSE,
            Act::Stream(vec![]),
            Act::json(""),
        ),
        Fault::of("ended before there was content").streams(Act::Stream(first(1)), &NONSENSE),
        Fault::any(
            "two ways of telling its length",
            &NONSENSE,
            raw(&[
                format!("{JSON}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes(),
                &chunks([WHOLE.as_bytes(), b""]),
            ]),
        ),
        Fault::both(
            "encoded, though nobody asked",
            &NONSENSE,
            encoded(sse.clone()),
            encoded(good_whole()),
        ),
        Fault::any(
            "a page of HTML",
            &NONSENSE,
            Act::json("<html>Welcome!</html>").with("content-type", "text/html"),
        ),
        Fault::both(
            "the other kind of answer",
            &NONSENSE,
            good_whole(),
            sse.clone(),
        ),
        Fault::of("a stream of nonsense").streams(Act::events(["data: not json\n\n"]), &NONSENSE),
        Fault::any(
            "half a JSON object, of the length it says",
            &NONSENSE,
            Act::json(&WHOLE[..200]),
        ),
        Fault::both(
            "words before the answer (100, 103)",
            &WHOLE_ANSWER,
            raw(&[EARLY, SSE.as_bytes(), b"\r\n", STREAM.as_bytes()]),
            raw(&[EARLY, JSON.as_bytes(), b"\r\n", WHOLE.as_bytes()]),
        ),
    ]
}

/// What another server says before it answers.
const EARLY: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";

/// It breaks off in the middle.
pub fn in_the_middle() -> Vec<Fault> {
    let (half, rest) = STREAM.split_at(first(2).concat().len() + 90);
    let head = [SSE, "transfer-encoding: chunked\r\n\r\n"].concat();
    vec![
        Fault::both(
            "reset after content",
            &TRUNCATED,
            Act::Snap(Box::new(Act::Cut(first(2)))),
            Act::Hang,
        )
        .wholes(Act::Snap(Box::new(Act::Raw(told(0, 40)))), &RESET),
        Fault::of("closed after content")
            .streams(Act::Cut(first(3)), &TRUNCATED)
            .wholes(Act::Raw(told(0, 40)), &RESET),
        Fault::of("closed before the end, all else said")
            .streams(
                Act::Cut(first(5)),
                &breaks("upstream_error", "truncated", Told::Yes),
            )
            .wholes(Act::Raw(told(0, 2)), &RESET),
        Fault::of("ended without its end").streams(
            Act::Stream(first(5)),
            &breaks("upstream_error", "truncated", Told::Yes),
        ),
        Fault::of("ended without a finish reason").streams(Act::Stream(first(3)), &TRUNCATED),
        Fault::of("closed in half an event").streams(
            Act::Cut(with(first(2), &half[first(2).concat().len()..])),
            &TRUNCATED,
        ),
        Fault::of("ended in half an event").streams(
            Act::Stream(with(first(2), &half[first(2).concat().len()..])),
            &TRUNCATED,
        ),
        Fault::of("an event in two halves").streams(
            Act::Slow(Duration::from_millis(50), vec![half.into(), rest.into()]),
            &WHOLE_ANSWER,
        ),
        Fault::of("nonsense for a chunk")
            .streams(
                raw(&[
                    head.as_bytes(),
                    &chunks([first(2).concat().as_bytes()]),
                    b"zz\r\n",
                ]),
                &TRUNCATED,
            )
            .wholes(
                raw(&[
                    JSON.as_bytes(),
                    b"transfer-encoding: chunked\r\n\r\n",
                    &chunks([&WHOLE.as_bytes()[..99]]),
                    b"zz\r\n",
                ]),
                &RESET,
            ),
    ]
}

/// The end of the connection is that of the answer, or is it?
pub fn ends() -> Vec<Fault> {
    let cut = Comes::Breaks {
        code: None,
        end: "truncated",
        told: Told::No,
    };
    vec![
        Fault::both(
            "ended by its connection",
            &WHOLE_ANSWER,
            raw(&[SSE.as_bytes(), b"\r\n", STREAM.as_bytes()]),
            raw(&[JSON.as_bytes(), b"\r\n", WHOLE.as_bytes()]),
        ),
        Fault::of("ended by its connection, too early")
            .streams(
                raw(&[SSE.as_bytes(), b"\r\n", first(4).concat().as_bytes()]),
                &TRUNCATED,
            )
            .wholes(
                raw(&[JSON.as_bytes(), b"\r\n", &WHOLE.as_bytes()[..300]]),
                &NONSENSE,
            ),
        Fault::of("shorter than it said").wholes(Act::Raw(told(7, 0)), &RESET),
        Fault::of("longer than it said").wholes(
            Act::Hold([told(0, 0), b"and more".to_vec()].concat()),
            &WHOLE_ANSWER,
        ),
        Fault::of("a long answer, closed in the middle").wholes(Act::Raw(long_half()), &cut),
        Fault::of("a long answer, reset in the middle")
            .wholes(Act::Snap(Box::new(Act::Raw(long_half()))), &cut),
    ]
}

/// It falls silent.
pub fn stalls() -> Vec<Fault> {
    let mut all: Vec<Fault> = (0..=events().len())
        .map(|n| {
            let comes = match n {
                0 | 1 => SILENCE,
                2..=4 => STALLED,
                5 => breaks("upstream_timeout", "stalled", Told::Yes),
                _ => WHOLE_ANSWER,
            };
            let name = format!("stalls after event {n} of {}", events().len());
            Fault::of(&name)
                .streams(Act::Stall(first(n)), &comes)
                .with(SHORT)
        })
        .collect();
    let half = STREAM.split_at(first(2).concat().len() + 90).0;
    let long = Comes::Breaks {
        code: None,
        end: "stalled",
        told: Told::No,
    };
    let short = [
        Fault::any("says nothing at all", &SILENCE, Act::Hang),
        Fault::any(
            "stalls within the head",
            &SILENCE,
            Act::Hold(b"HTTP/1.1 200 OK\r\nconte".to_vec()),
        ),
        Fault::of("stalls in half an event").streams(Act::Stall(vec![half.into()]), &STALLED),
        Fault::of("stalls after the head").wholes(Act::Hold(told(0, WHOLE.len())), &SILENCE),
        Fault::of("stalls in the middle").wholes(Act::Hold(told(0, 40)), &SILENCE),
        Fault::of("stalls one byte before the length it said")
            .wholes(Act::Hold(told(1, 0)), &SILENCE),
        Fault::of("a long answer stalls in the middle").wholes(Act::Hold(long_half()), &long),
    ];
    all.extend(short.map(|fault| fault.with(SHORT)));
    all.push(Fault::both(
        "comes late",
        &WHOLE_ANSWER,
        Act::After(Duration::from_millis(300), Box::new(good_stream())),
        Act::After(Duration::from_millis(300), Box::new(good_whole())),
    ));
    all.push(Fault::of("trickles").streams(
        Act::Slow(Duration::from_millis(40), events()),
        &WHOLE_ANSWER,
    ));
    all
}

/// It does not come for so long that the client hears comments, and then comes to something.
pub fn behind_comments() -> Vec<Fault> {
    let late = |act: Act| Act::After(Duration::from_millis(500), Box::new(act));
    let fails = [
        Fault::any("behind comments: says nothing at all", &SILENCE, Act::Hang),
        Fault::any("behind comments: reset", &RESET, late(Act::Reset)),
        Fault::any("behind comments: 503", &FAULT, late(Act::status(503, "{}"))),
        Fault::any(
            "behind comments: 400",
            &clients(400, "", false),
            late(Act::status(400, r#"{"error":{"message":"m"}}"#)),
        ),
        Fault::both(
            "behind comments: all is well",
            &WHOLE_ANSWER,
            late(good_stream()),
            late(good_whole()),
        ),
        Fault::of("behind comments: closed after content")
            .streams(late(Act::Cut(first(3))), &TRUNCATED),
    ];
    fails.map(Fault::behind_comments).into()
}

/// It is whole, and comes in an unusual way.
pub fn lines() -> Vec<Fault> {
    let bytes = |text: &str| text.bytes().map(|byte| vec![byte]).collect::<Vec<_>>();
    let json: Vec<&[u8]> = WHOLE.as_bytes().chunks(1).chain([&b""[..]]).collect();
    let ended = |end: &str| {
        let fault = Fault::of(&format!("lines end with {}", end.escape_debug()));
        let act = Act::Pieces(Duration::ZERO, vec![STREAM.replace('\n', end).into()]);
        fault
            .streams(act, &WHOLE_ANSWER)
            .hears(HEARD.replace('\n', end))
    };
    // What follows the end is no part of the answer, and nobody hears it.
    let more = |name: &str, text: &str| {
        let act = Act::events([format!("{STREAM}{text}")]);
        Fault::of(name).streams(act, &WHOLE_ANSWER)
    };
    let pinged = |text: &str| format!(": ping\n\n{text}");
    vec![
        Fault::of("every byte alone, characters split")
            .streams(Act::Pieces(Duration::ZERO, bytes(STREAM)), &WHOLE_ANSWER)
            .wholes(
                raw(&[
                    JSON.as_bytes(),
                    b"transfer-encoding: chunked\r\n\r\n",
                    &chunks(json),
                ]),
                &WHOLE_ANSWER,
            ),
        ended("\n"),
        ended("\r\n"),
        ended("\r"),
        Fault::of("a byte order mark")
            .streams(Act::events([format!("\u{feff}{STREAM}")]), &WHOLE_ANSWER)
            .hears(format!("\u{feff}{HEARD}")),
        Fault::of("comments first")
            .streams(Act::events([pinged(STREAM)]), &WHOLE_ANSWER)
            .hears(pinged(HEARD)),
        more("[DONE] twice", DONE),
        more(
            "an error after the end",
            "data: {\"error\":{\"message\":\"m\"}}\n\n",
        ),
        Fault::of("no line end after [DONE]")
            .streams(Act::events([STREAM.trim_end()]), &WHOLE_ANSWER)
            .hears(HEARD.trim_end()),
    ]
}
