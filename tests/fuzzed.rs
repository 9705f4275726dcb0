//! The inputs kept in `fuzz/corpus`, through the same checks as under libFuzzer: what once failed must never fail again.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails panics"
)]

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn every_kept_input_holds() {
    let mut failed = Vec::new();
    for (target, check) in targets::ALL {
        let folder = Path::new("fuzz/corpus").join(target);
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            count += 1;
            if catch_unwind(|| check(&input)).is_err() {
                failed.push(path.display().to_string());
            }
        }
        assert!(count >= 10, "{target} has {count} inputs");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_folder_of_inputs_has_its_target() {
    let folders = fs::read_dir("fuzz/corpus").unwrap();
    let folders: BTreeSet<String> = folders
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let targets = targets::ALL.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(folders, targets.collect());
}
