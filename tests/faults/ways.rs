//! Ways to a provider that fail: connections, TLS, kept connections, HTTP/2.

use std::time::Duration;

use crate::comes::{
    CONNECT, FAULT, RESET, SILENCE, STALLED, TRUNCATED, UNCONNECTED, WHOLE_ANSWER, busy, fails,
};
use crate::fault::{Billed, Comes, Fault, Place, Proof, SHORT, refuses};
use crate::recorded::{
    JSON, SSE, STREAM, WHOLE, chunks, events, first, good_stream, good_whole, raw, told,
};
use crate::support::Act;
use crate::support::http2::{Manners, Refuses};

/// On the way to a connection.
pub fn connections() -> Vec<Fault> {
    let well = || Fault::both("", &WHOLE_ANSWER, good_stream(), good_whole());
    let named = |name: &str, place, comes: &Comes| {
        let fault = Fault::any(name, comes, Act::Hang);
        fault.at(place).with(SHORT)
    };
    vec![
        Fault {
            name: "none: all is well".into(),
            ..well()
        },
        named("nobody listens", Place::Nowhere, &CONNECT),
        named(
            "nobody has this name (DNS)",
            Place::Name(format!("{}.invalid", "x".repeat(70))),
            &CONNECT,
        ),
        named("connections are not accepted", Place::Full, &UNCONNECTED),
        Fault {
            name: "connections are accepted late".into(),
            ..well()
        }
        .at(Place::Late),
    ]
}

/// On the way to a secure one.
pub fn tls() -> Vec<Fault> {
    let named = |name: &str, place, comes: &Comes| {
        let fault = Fault::both(name, comes, good_stream(), good_whole());
        fault.at(place).with(SHORT)
    };
    vec![
        Fault::both("none, over TLS", &WHOLE_ANSWER, good_stream(), good_whole())
            .at(Place::Tls(Proof::Trusted)),
        named(
            "TLS: nobody vouches for it",
            Place::Tls(Proof::Unknown),
            &CONNECT,
        ),
        named(
            "TLS: the certificate of another name",
            Place::Tls(Proof::Elsewhere),
            &CONNECT,
        ),
        named(
            "TLS: the certificate has expired",
            Place::Tls(Proof::Expired),
            &CONNECT,
        ),
        named("TLS: it speaks none", Place::NoTls, &CONNECT),
        named("TLS: no handshake", Place::Silent, &UNCONNECTED),
        named("TLS: it speaks nothing else", Place::TlsOnly, &RESET),
        // A stream has an end of its own; the text of an answer in one piece might go on.
        Fault::of("TLS: closed without a farewell, at the end")
            .at(Place::Tls(Proof::Trusted))
            .streams(
                raw(&[SSE.as_bytes(), b"\r\n", STREAM.as_bytes()]),
                &WHOLE_ANSWER,
            )
            .wholes(raw(&[JSON.as_bytes(), b"\r\n", WHOLE.as_bytes()]), &RESET),
        Fault::of("TLS: closed without a farewell, in the middle")
            .at(Place::Tls(Proof::Trusted))
            .streams(
                raw(&[SSE.as_bytes(), b"\r\n", first(3).concat().as_bytes()]),
                &TRUNCATED,
            )
            .wholes(Act::Raw(told(0, 40)), &RESET),
    ]
}

/// On one that was good before.
pub fn kept_connections() -> Vec<Fault> {
    let closing = |body: Vec<u8>| Act::Raw(body);
    let chunked = [
        SSE.as_bytes(),
        b"transfer-encoding: chunked\r\n\r\n",
        &chunks([STREAM.as_bytes(), b""]),
    ]
    .concat();
    let stale = fails((502, "upstream_error"), "reset", (1, 1), Billed::Yes);
    vec![
        Fault::both(
            "a kept connection, closed meanwhile",
            &WHOLE_ANSWER,
            good_stream(),
            good_whole(),
        )
        .after(1, &closing(chunked), &closing(told(0, 0))),
        Fault::any(
            "a kept connection, closed at the request",
            &stale,
            Act::Raw(vec![]),
        )
        .after(1, &good_stream(), &good_whole()),
        Fault::any(
            "a kept connection, reset at the request",
            &stale,
            Act::Reset,
        )
        .after(1, &good_stream(), &good_whole()),
        Fault::any("a kept connection, dead", &SILENCE, Act::Hang)
            .after(1, &good_stream(), &good_whole())
            .with(SHORT),
    ]
}

/// On one that is shared.
pub fn http2() -> Vec<Fault> {
    let plain = || Place::Http2(Manners::default());
    let well = |name: &str| Fault::both(name, &WHOLE_ANSWER, good_stream(), good_whole());
    let leaves = Place::Http2(Manners {
        leaves: true,
        ..Manners::default()
    });
    vec![
        well("none, over HTTP/2").at(plain()),
        well("HTTP/2: refuses every stream")
            .at(refuses(Refuses::All))
            .comes(&busy(2, 2)),
        well("HTTP/2: refuses every other stream").at(refuses(Refuses::Half)),
        Fault::any(
            "HTTP/2: resets the stream before the head",
            &RESET,
            Act::Reset,
        )
        .at(plain()),
        Fault::of("HTTP/2: resets the stream after content")
            .streams(Act::Snap(Box::new(Act::Cut(first(2)))), &TRUNCATED)
            .at(plain()),
        Fault::of("HTTP/2: dies after content")
            .streams(Act::Cut(first(2)), &TRUNCATED)
            .at(plain()),
        Fault::of("HTTP/2: stalls after content")
            .streams(Act::Stall(first(2)), &STALLED)
            .at(plain())
            .with(SHORT),
        Fault::any("HTTP/2: says nothing at all", &SILENCE, Act::Hang)
            .at(plain())
            .with(SHORT),
        Fault::any("HTTP/2: 503", &FAULT, Act::status(503, "{}")).at(plain()),
        Fault::of("HTTP/2: goes away (GOAWAY) and finishes the stream")
            .streams(
                Act::Slow(Duration::from_millis(30), events()),
                &WHOLE_ANSWER,
            )
            .at(Place::Parting),
        Fault::of("HTTP/2: goes away (GOAWAY), the request unread")
            .wholes(good_whole(), &WHOLE_ANSWER)
            .after(1, &good_stream(), &good_whole())
            .at(leaves),
        well("HTTP/2: it speaks none")
            .at(Place::NoHttp2)
            .comes(&CONNECT),
    ]
}
