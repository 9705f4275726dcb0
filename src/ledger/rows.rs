//! How are the rows of a report written for programs? As JSON and as CSV, in the same columns wherever they are asked for.

use std::borrow::Cow;

use super::{By, Row};
use crate::usage::KINDS;

/// The columns between the cost and the tokens.
pub const COUNTS: [&str; 3] = ["entries", "estimated", "unpriced"];

/// What a row has in the columns of [`COUNTS`].
pub fn counts(row: &Row) -> [u64; COUNTS.len()] {
    [row.entries, row.estimated, row.unpriced]
}

/// A list of rows; amounts are decimal text, so that no reader makes floats of them.
pub fn json(by: &[By], rows: &[Row]) -> String {
    let object = |row: &Row| {
        let mut object = serde_json::Map::new();
        for (by, name) in by.iter().zip(&row.by) {
            object.insert(by.name().into(), name.as_str().into());
        }
        object.insert("usd".into(), row.cost.to_string().into());
        let numbers = COUNTS.into_iter().zip(counts(row));
        for (name, count) in numbers.chain(KINDS.into_iter().zip(row.used)) {
            object.insert(name.into(), count.into());
        }
        serde_json::Value::Object(object)
    };
    serde_json::Value::Array(rows.iter().map(object).collect()).to_string()
}

/// A line of names, then one for each row.
pub fn csv(by: &[By], rows: &[Row]) -> Vec<String> {
    let head = by.iter().map(|by| by.name()).chain(["usd"]).chain(COUNTS);
    let mut lines = vec![head.chain(KINDS).collect::<Vec<_>>().join(",")];
    for row in rows {
        let names = row.by.iter().map(|name| quoted(&inert(name)));
        let numbers = counts(row).into_iter().chain(row.used);
        let numbers = numbers.map(|n| n.to_string());
        let cells = names.chain([row.cost.to_string()]).chain(numbers);
        lines.push(cells.collect::<Vec<_>>().join(","));
    }
    lines
}

/// A cell that no spreadsheet runs. A client may have written it, and what begins like a formula is one where the file is
/// opened: it could send the other cells away. Behind an apostrophe it is text.
fn inert(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}").into()
    } else {
        text.into()
    }
}

/// A cell, in quotes where it must be (RFC 4180, 2).
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Money;

    fn row(name: &str) -> Row {
        let mut used = [0; KINDS.len()];
        used[0] = 12;
        used[6] = 5;
        Row {
            by: vec![name.into()],
            entries: 2,
            used,
            cost: Money(1_500_000_001),
            ..Row::default()
        }
    }

    #[test]
    fn rows_are_written_in_each_form() {
        let rows = [row("ann"), row("b,\"o\"b")];
        let lines = csv(&[By::Key], &rows);
        assert!(lines[0].starts_with("key,usd,entries,estimated,unpriced,input,"));
        assert_eq!(
            lines[1],
            "ann,1.500000001,2,0,0,12,0,0,0,0,0,5,0,0,0,0,0,0,0"
        );
        assert!(lines[2].starts_with("\"b,\"\"o\"\"b\",1.500000001,"));
        let list: serde_json::Value = serde_json::from_str(&json(&[By::Key], &rows)).unwrap();
        assert_eq!(list[0]["usd"], "1.500000001");
        assert_eq!(
            (list[0]["key"].as_str(), list[0]["output"].as_u64()),
            (Some("ann"), Some(5))
        );
    }

    #[test]
    fn no_cell_is_a_formula() {
        let cell = |name: &str| {
            let line = csv(&[By::User], &[row(name)]).remove(1);
            line.strip_suffix(",1.500000001,2,0,0,12,0,0,0,0,0,5,0,0,0,0,0,0,0")
                .unwrap()
                .to_owned()
        };
        for name in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"] {
            assert_eq!(cell(name), format!("'{name}"));
        }
        assert_eq!(cell("=A(1,\"x\")"), "\"'=A(1,\"\"x\"\")\"");
        assert_eq!(cell("\rx"), "\"'\rx\"");
        for name in ["", "a=1", "7", "ann@example.com", "'=1"] {
            assert_eq!(cell(name), name);
        }
        let list: serde_json::Value =
            serde_json::from_str(&json(&[By::User], &[row("=1+1")])).unwrap();
        assert_eq!(list[0]["user"], "=1+1", "JSON is what was written");
    }
}
