//! Whether the time that a refusal takes tells anything of a key.
//!
//! ```text
//! cargo bench --bench guess              # half a minute
//! cargo bench --bench guess -- --quick   # a smoke run
//! ```
//!
//! A gateway with 50,000 keys of its configuration and as many that were made is shown keys that are not valid: made-up ones,
//! valid ones of which a digit is wrong, and those that were valid once, as only their owners have them. Kinds take turns,
//! each a thousand keys at a time; shown is the median of a turn, and its ratio to made-up keys in the same round, the mean
//! with its standard error. It ends with 1 if a key that is nearly right takes another time than one that is made up, by more
//! than 2 % and three standard errors.

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench shows what it finds, and ends where it cannot go on"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, header};
use tollgate::admission::{Caller, Digest, Keyring, MadeKeys, Register, UnknownKey};

const KEYS: u32 = 50_000;
const TURN: u32 = 1_000;

/// A key like those that are made. Others are made up from other numbers.
fn key(kind: char, n: u32) -> String {
    let bytes = Digest::of(&format!("{kind}{n}")).bytes();
    let digits = bytes.iter().take(24).map(|byte| format!("{byte:02x}"));
    digits.fold("tg_".to_owned(), |key, digits| key + &digits)
}

/// The same but for one digit.
fn wrong_at(place: usize, mut key: String) -> String {
    let digit = if key[place..].starts_with('0') {
        "1"
    } else {
        "0"
    };
    key.replace_range(place..=place, digit);
    key
}

fn caller(kind: char, n: u32) -> Caller {
    Caller {
        digest: Digest::of(&key(kind, n)),
        name: format!("{kind}{n}").into(),
        ..Caller::default()
    }
}

/// Every tenth key of the configuration has expired, and the next one is revoked; so is every tenth that was made.
fn keys() -> (Keyring, MadeKeys) {
    let mut written = Keyring::with_capacity(KEYS as usize);
    let mut made = Register::default();
    for n in 0..KEYS {
        let expires = (n % 10 == 1).then_some(SystemTime::UNIX_EPOCH);
        written.add(Caller {
            expires,
            ..caller('w', n)
        });
        made.admit([caller('m', n)], &format!("m{n}").into());
        if n % 10 == 2 {
            made.revoke(&format!("w{n}").into());
            made.revoke(&format!("m{n}").into());
        }
    }
    (written, made.keys())
}

struct Kind {
    name: &'static str,
    /// Whether who shows it does not have a whole key: who has knows more than a refusal's time tells.
    is_guess: bool,
    key: fn(u32) -> String,
    /// Nanoseconds a key, by round.
    took: Vec<f64>,
}

impl Kind {
    fn new(name: &'static str, is_guess: bool, key: fn(u32) -> String) -> Self {
        Self {
            name,
            is_guess,
            key,
            took: Vec::new(),
        }
    }

    /// Other ones in each round: a thousand that are always the same would differ from another thousand by where they lead.
    fn shown(&self, round: u32) -> Vec<HeaderMap> {
        let numbers = round * TURN..(round + 1) * TURN;
        let shown = numbers.map(|n| {
            let value = format!("Bearer {}", (self.key)(n)).parse().unwrap();
            HeaderMap::from_iter([(header::AUTHORIZATION, value)])
        });
        shown.collect()
    }
}

/// The number of a key that there is: of those that end in this digit.
fn ending(digit: u32, n: u32) -> u32 {
    n * 10 % KEYS + digit
}

#[allow(clippy::disallowed_methods, reason = "the bench measures time")]
fn main() -> ExitCode {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let time = Duration::from_secs(if quick { 2 } else { 30 });
    let (written, made) = keys();
    let mut kinds = [
        Kind::new("made up", true, |n| key('x', n)),
        Kind::new("made up, again", true, |n| key('y', n)),
        Kind::new("the first digit wrong", true, |n| {
            wrong_at(3, key('w', n % KEYS))
        }),
        Kind::new("the last digit wrong", true, |n| {
            wrong_at(50, key('w', n % KEYS))
        }),
        Kind::new("the same, of made ones", true, |n| {
            wrong_at(50, key('m', n % KEYS))
        }),
        Kind::new("expired", false, |n| key('w', ending(1, n))),
        Kind::new("revoked", false, |n| key('w', ending(2, n))),
        Kind::new("revoked, of made ones", false, |n| key('m', ending(2, n))),
    ];
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < time {
        for turn in 0..kinds.len() {
            let at = (round as usize + turn) % kinds.len();
            let kind = &mut kinds[at];
            let shown = kind.shown(round);
            let began = Instant::now();
            for headers in &shown {
                let answer = written.identify(black_box(headers), &made, SystemTime::now);
                assert_eq!(answer.unwrap_err(), UnknownKey::Wrong);
            }
            let took = began.elapsed().as_nanos() as f64;
            kind.took.push(took / f64::from(TURN));
        }
        round += 1;
    }
    report(&kinds)
}

fn report(kinds: &[Kind]) -> ExitCode {
    println!("{:26}      ns    to one that is made up", "a key that is");
    let mut told = false;
    for kind in kinds {
        let ratios = kind.took.iter().zip(&kinds[0].took);
        let ratios: Vec<f64> = ratios.map(|(one, other)| one / other).collect();
        let (mean, error) = mean(&ratios);
        let tells = (mean - 1.0).abs() > f64::max(0.02, 3.0 * error);
        told |= tells && kind.is_guess;
        let median = median(kind.took.clone());
        println!("{:26} {median:7.0}    {mean:.4} ± {error:.4}", kind.name);
    }
    println!(
        "\n{}",
        if told {
            "a refusal tells how much of a key is right"
        } else {
            "fine"
        }
    );
    ExitCode::from(u8::from(told))
}

/// Of all but the tenth that is farthest out at either end, since others run on the machine; with its standard error.
fn mean(ratios: &[f64]) -> (f64, f64) {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let out = sorted.len() / 10;
    let inner = &sorted[out..sorted.len() - out];
    let n = inner.len() as f64;
    let mean = inner.iter().sum::<f64>() / n;
    let spread = inner.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / n;
    (mean, (spread / n).sqrt())
}

fn median(mut took: Vec<f64>) -> f64 {
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}
