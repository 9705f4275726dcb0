//! What shells and `man` know of the commands: written from the commands themselves.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Arguments, Failed};

/// Prints what makes a shell complete the commands and their flags.
pub fn completions(shell: Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tollgate", &mut text);
    super::print(&[String::from_utf8_lossy(&text).trim_end().to_owned()]);
}

/// Writes a page for each command into a folder that is there.
pub fn man(folder: &Path) -> Result<(), Failed> {
    if !folder.is_dir() {
        let message = format!("{} is no folder: make it first", folder.display());
        return Err(Failed::User(anyhow!(message)));
    }
    clap_mangen::generate_to(Arguments::command(), folder)
        .with_context(|| format!("cannot write into {}", folder.display()))
        .map_err(Failed::User)
}
