//! `tollgate providers`: the built-in presets.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::Failed;
use crate::config::Provider;
use crate::config::load::presets;
use crate::provider;

/// Prints one line for each preset.
pub fn run() -> Result<(), Failed> {
    let presets: BTreeMap<String, Provider> =
        presets(provider::PRESETS).context("the presets are flawed")?;
    let mut lines = vec![line("PRESET", "KEY", "BASE URL")];
    for (name, preset) in &presets {
        let key = preset
            .api_key
            .as_ref()
            .map_or_else(|| "none".to_owned(), |key| format!("{key:?}"));
        let url = match (&preset.base_url, &preset.base_url_example) {
            (Some(url), _) => url.clone(),
            (None, Some(example)) => format!("(give it one: {example})"),
            (None, None) => "(give it one)".to_owned(),
        };
        let mark = if preset.unverified {
            " (unverified)"
        } else {
            ""
        };
        lines.push(line(name, &key, &format!("{url}{mark}")));
    }
    super::print(&lines);
    Ok(())
}

fn line(name: &str, key: &str, url: &str) -> String {
    format!("{name:<22} {key:<26} {url}")
}
