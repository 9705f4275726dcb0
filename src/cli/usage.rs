//! `tollgate usage`: who spent what; and `tollgate backup`: a copy of the ledger while it is in use.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;

use super::progress::Progress;
use super::{Failed, Loaded};
use crate::config;
use crate::config::load::Source;
use crate::config::secret::Environment;
use crate::ledger::rows::{self, COUNTS};
use crate::ledger::{self, By, Place, Report, ReportError, Row};
use crate::plan::money;
use crate::usage::KINDS;

/// How rows are written.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// For people.
    Table,
    /// A list of objects.
    Json,
    /// With a line of names.
    Csv,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err("rows are written as table, json or csv"),
        }
    }
}

/// How far back: `12h`, `7d`.
pub fn age(text: &str) -> Result<Duration, String> {
    config::duration(text)
}

/// Prints what was spent.
pub fn run(
    file: &Path,
    environment: Environment,
    by: &[By],
    since: Option<Duration>,
    format: Format,
) -> Result<(), Failed> {
    let ledger = place(file, environment)?;
    let since = since.and_then(|age| SystemTime::now().checked_sub(age));
    let reading = Progress::of("reading the ledger");
    let rows = Report::read(&ledger, by, since).map_err(failed)?;
    drop(reading);
    super::print(&match format {
        Format::Table => table(by, &rows),
        Format::Json => vec![rows::json(by, &rows)],
        Format::Csv => rows::csv(by, &rows),
    });
    Ok(())
}

/// Copies the ledger.
pub fn backup(file: &Path, environment: Environment, to: &Path) -> Result<(), Failed> {
    let ledger = place(file, environment)?;
    let copying = Progress::of("copying the ledger");
    ledger::backup(&ledger, to).map_err(failed)?;
    drop(copying);
    super::print(&[format!(
        "{} is a copy of {}",
        to.display(),
        ledger.display()
    )]);
    Ok(())
}

fn failed(error: ReportError) -> Failed {
    Failed::User(anyhow::Error::new(error))
}

/// Where the ledger of a configuration is.
fn place(file: &Path, environment: Environment) -> Result<PathBuf, Failed> {
    let loaded = Loaded::read(Source::open(file)?, environment);
    match money::ledger(&loaded.config, loaded.source.folder()).store {
        Place::File(file) => Ok(file),
        Place::Memory => Err(Failed::User(anyhow!(
            "[ledger] store is \"memory:\": nothing is kept that could be read"
        ))),
    }
}

fn table(by: &[By], rows: &[Row]) -> Vec<String> {
    // What nobody has used has no column.
    let used = KINDS.iter().enumerate();
    let used: Vec<(usize, &str)> = used
        .filter(|(n, _)| rows.iter().any(|row| row.used.get(*n) > Some(&0)))
        .map(|(n, kind)| (n, *kind))
        .collect();
    let head = by.iter().map(|by| by.name()).chain(["usd"]).chain(COUNTS);
    let head = head.chain(used.iter().map(|(_, kind)| *kind));
    let mut lines = vec![head.map(str::to_uppercase).collect::<Vec<String>>()];
    for row in rows {
        let tokens = used.iter().filter_map(|(n, _)| row.used.get(*n));
        let names = row.by.iter().map(|name| match name.as_str() {
            "" => "-".to_owned(),
            name => name.to_owned(),
        });
        let numbers = rows::counts(row).into_iter().chain(tokens.copied());
        let numbers = numbers.map(|n| n.to_string());
        lines.push(names.chain([row.cost.to_string()]).chain(numbers).collect());
    }
    aligned(&lines, by.len())
}

/// Columns as wide as they must be; the first ones are names, the others numbers.
pub(super) fn aligned(lines: &[Vec<String>], names: usize) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        widths.resize(widths.len().max(line.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: &Vec<String>| {
        let mut text = String::new();
        for (n, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let width = *width;
            let _ = match n {
                0 => write!(text, "{cell:<width$}"),
                n if n < names => write!(text, "  {cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Money;

    #[test]
    fn a_table_has_the_columns_that_are_used() {
        let mut used = [0; KINDS.len()];
        used[0] = 12;
        used[6] = 5;
        let rows = [
            Row {
                by: vec!["ann".into()],
                entries: 2,
                used,
                cost: Money(1_500_000_001),
                ..Row::default()
            },
            Row {
                by: vec!["b,\"o\"b".into()],
                ..Row::default()
            },
        ];
        assert_eq!(
            table(&[By::Key], &rows),
            [
                "KEY             USD  ENTRIES  ESTIMATED  UNPRICED  INPUT  OUTPUT",
                "ann     1.500000001        2          0         0     12       5",
                "b,\"o\"b         0.00        0          0         0      0       0",
            ]
        );
    }
}
