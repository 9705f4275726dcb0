//! Which commit is this built from? `tollgate --version` says so.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TOLLGATE_COMMIT");
    // Where the sources are without their history, as in the build of an image, whoever builds may say.
    let said = std::env::var("TOLLGATE_COMMIT").ok();
    // Only what is given to others: a build for tests would otherwise begin anew with each commit.
    let is_release = std::env::var("PROFILE").is_ok_and(|it| it == "release");
    let found = || is_release.then(commit).flatten();
    if let Some(commit) = said.filter(|it| !it.is_empty()).or_else(found) {
        let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
        println!("cargo::rustc-env=TOLLGATE_VERSION={version} ({commit})");
    }
}

/// What is built from.
const SOURCES: [&str; 4] = ["Cargo.lock", "Cargo.toml", "build.rs", "src"];

/// The first digits of the commit, with a `+` if something else than that is built.
fn commit() -> Option<String> {
    // What each commit writes a line into. Without it the index, which each `git status` may write as well.
    let path = |file| git(&["rev-parse", "--git-path", file]);
    let is_there = |file: &String| std::path::Path::new(file).exists();
    let commits = path("logs/HEAD").filter(is_there);
    let history = [path("HEAD")?, commits.or_else(|| path("index"))?];
    for file in history.iter().map(String::as_str).chain(SOURCES) {
        println!("cargo::rerun-if-changed={file}");
    }
    // A folder of another project's may have us in it.
    let root = git(&["rev-parse", "--show-toplevel"])?;
    if std::fs::canonicalize(root).ok()? != std::fs::canonicalize(".").ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "--short=9", "HEAD"])?;
    // Without leave to write the index, which would begin the next build anew.
    let status = ["--no-optional-locks", "status", "--porcelain", "--"];
    let is_changed = !git(&[&status[..], &SOURCES].concat())?.is_empty();
    Some(commit + if is_changed { "+" } else { "" })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
