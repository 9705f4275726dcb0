//! Any text is a configuration or has flaws, each in a line of its own; and it is so twice.

use std::path::PathBuf;

use tollgate::cli::Loaded;
use tollgate::config::load::Source;
use tollgate::config::secret::Environment;

/// The first line is a variable's value, the rest is the file.
pub(crate) fn check(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else {
        return;
    };
    let (variable, text) = input.split_once('\n').unwrap_or(("", input));
    let first = read(variable, text);
    assert_eq!(first, read(variable, text), "it is read in two ways");
    if let Err(flaws) = first {
        assert!(!flaws.is_empty(), "refused for no reason");
        for flaw in flaws {
            assert!(!flaw.contains('\n'), "more than a line: {flaw}");
            assert!(flaw.contains(": "), "no place: {flaw}");
        }
    }
}

/// What it means, as far as it shows itself, or its flaws.
fn read(variable: &str, text: &str) -> Result<String, Vec<String>> {
    let source = Source::parse("gateway.toml".into(), PathBuf::new(), text);
    let source = source.map_err(|flaws| flaws.0)?;
    let environment: Environment = [
        ("SOME_KEY", "sk-some"),
        ("TOLLGATE_SERVER__LISTEN", variable),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let loaded = Loaded::read(source, environment);
    let shown = format!("{:?}", loaded.config);
    // What is in this machine's files is not to be read, and some of them never end.
    if shown.contains("(file:") || shown.contains("ca_file: Some") {
        return match loaded.flaws.is_empty() {
            true => Ok(shown),
            false => Err(loaded.report(Vec::new()).0),
        };
    }
    let plan = loaded.compile().map_err(|flaws| flaws.0)?;
    Ok(format!("{shown}{:?}{:?}", plan.gaps, plan.warnings))
}
