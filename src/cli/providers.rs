//! `tollgate providers`: the built-in presets.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Context as _;

use super::Failed;
use crate::config::Provider;
use crate::config::load::presets;
use crate::provider;

/// Prints one line for each preset.
pub fn run() -> Result<(), Failed> {
    let presets: BTreeMap<String, Provider> =
        presets(provider::PRESETS).context("the presets are flawed")?;
    let mut lines = String::from("PRESET             KEY                    BASE URL\n");
    for (name, preset) in &presets {
        let key = preset
            .api_key
            .as_ref()
            .map_or_else(|| "none".to_owned(), |key| format!("{key:?}"));
        let url = preset.base_url.as_deref().unwrap_or("(give it one)");
        lines.push_str(&format!("{name:<18} {key:<22} {url}\n"));
    }
    // A reader that has seen enough (`| head`) is no error.
    let _ = std::io::stdout().write_all(lines.as_bytes());
    Ok(())
}
