//! Times, budgets and prices, from LiteLLM's way to write them to tollgate's: by their digits, never through a float.

use super::yaml::Node;
use crate::usage::{Decimal, Rate};

/// The longest a clock may run, in milliseconds: a year.
const YEAR: u64 = 366 * 86_400_000;

/// A time in seconds, as `"500ms"`, `"5s"` or `"10m"`. None if it is none, or is none that a clock could have.
pub(super) fn duration(node: &Node) -> Option<(u64, String)> {
    let number = node.number()?;
    let millis = Decimal::parse(&number, 3).ok()?.up().ok()?;
    (1..=YEAR)
        .contains(&millis)
        .then(|| (millis, written(millis)))
}

/// Milliseconds as they are written.
pub(super) fn written(millis: u64) -> String {
    match millis {
        n if n.is_multiple_of(60_000) => format!("{}m", n / 60_000),
        n if n.is_multiple_of(1_000) => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

/// An amount of US dollars, and what becomes of what is finer than a budget can be.
pub(super) fn dollars(node: &Node) -> Option<String> {
    let number = node.number()?;
    let nanos = Decimal::parse(&number, 9).ok()?.exact()?;
    let (whole, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let text = format!("{whole}.{part:09}");
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// The window of a budget, and whether it is as long as what is written. None: no window is that long.
pub(super) fn window(text: &str) -> Option<(&'static str, bool)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|n| *n > 0)?;
    let seconds = number.checked_mul(match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "mo" => 30 * 86_400,
        _ => return None,
    })?;
    let windows = [
        (3_600, "hour"),
        (86_400, "day"),
        (7 * 86_400, "week"),
        (30 * 86_400, "month"),
    ];
    // Of those that are too long the shortest: the same amount in more time is less.
    let found = windows.into_iter().find(|(length, _)| seconds <= *length);
    Some(found.map_or(("total", false), |(length, name)| (name, seconds == length)))
}

/// The price of one, as the price of a million, or of one where that is the unit; and whether nothing was rounded.
pub(super) fn price(class: &str, node: &Node) -> Option<(String, bool)> {
    let number = node.number()?;
    let rate = Rate::per_one(&number).ok()?;
    let is_exact = Decimal::parse(&number, 12).ok()?.exact().is_some();
    Some((rate.written(class), is_exact))
}
