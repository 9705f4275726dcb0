//! One program for all targets; `FUZZ_TARGET` picks one. `fuzz/run.sh` builds it as libFuzzer wants it and runs it.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

use std::sync::LazyLock;

static CHECK: LazyLock<targets::Check> = LazyLock::new(|| {
    let names: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = targets::ALL.iter().find(|(name, _)| *name == wanted);
    let Some((_, check)) = found else {
        panic!(
            "FUZZ_TARGET is `{wanted}`, and none of {}",
            names.join(", ")
        );
    };
    *check
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| CHECK(input));
