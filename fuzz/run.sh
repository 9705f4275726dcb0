#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz/run.sh [seconds for each, 60] [one target]
#
# Starts from the inputs in fuzz/corpus and keeps what it finds in a temporary folder, or in $FUZZ_FOUND. What is worth
# keeping is taken over with: FUZZ_TARGET=x fuzz/target/*/release/fuzz -merge=1 fuzz/corpus/x $FUZZ_FOUND/x
# An input that fails is left in fuzz/artifacts; put it into fuzz/corpus once it is mended, and every `cargo test` has it.
#
# Stable Rust counts coverage with these flags; a nightly toolchain and cargo-fuzz are not needed. They are for the
# target only, so it has to be named: build scripts could not be linked with them.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60} # 0 would be for ever
[[ $seconds =~ ^[1-9][0-9]*$ ]] || {
    echo "fuzz: seconds must be a whole number above 0, not \`$seconds\`" >&2
    exit 2
}
only=${2:-}
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=8 --cfg fuzzing"
coverage=$(tr -s ' \n' ' ' <<<"$coverage")

found=${FUZZ_FOUND:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
found=${found:-$scratch/found}

skip() {
    echo "fuzz: SKIPPED: $*; the kept inputs are checked by \`cargo test --test fuzzed\`"
    exit 0
}
command -v "${CXX:-c++}" >/dev/null || skip "there is no C++ compiler to build libFuzzer with"
# shellcheck disable=SC2086 # flags are words
echo 'pub fn f() {}' | rustc $coverage --crate-type lib --out-dir "$scratch" - 2>"$scratch/rustc" ||
    skip "this rustc cannot count coverage: $(head -n 1 "$scratch/rustc")"

host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$coverage" cargo build --quiet --release --locked --target "$host"
program=target/$host/release/fuzz

failed=0
for corpus in corpus/*/; do
    target=$(basename "$corpus")
    [[ -z $only || $target == "$only" ]] || continue
    mkdir -p "artifacts/$target" "$found/$target"
    log=$scratch/$target.log
    began=$SECONDS
    if FUZZ_TARGET=$target "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" "$found/$target" "$corpus" >"$log" 2>&1; then
        outcome=fine
    else
        outcome=FAILED
        failed=1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    last=$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -n 1 || true)
    printf '%-10s %-6s %10s runs in %ss, %s (kept: %s)\n' "$target" "$outcome" "${runs:-?}" \
        "$((SECONDS - began))" "${last:-no coverage}" "$(find "$corpus" -type f | wc -l)"
    if [[ $outcome == FAILED ]]; then
        grep -vE '^(#[0-9]|INFO|NEW_FUNC|\s*NEW)' "$log" | tail -n 40
        echo "fuzz: the input is in fuzz/$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)"
    fi
done
exit "$failed"
