#!/bin/bash
# Fuzzes what the owner of a pool reads from other processes, for MMC_FUZZ_SECONDS, 20 if it is not set. A longer run is
#
#     MMC_FUZZ_SECONDS=600 tests/fuzz.sh
#
# The target is one of cargo-fuzz, and `cargo fuzz run frames` runs it, too. Here it is built with the same switches, and needs nothing that a
# Rust toolchain and a C++ compiler do not have. What it has found to begin from stays in build/fuzz/corpus; an input that fails it, in
# build/fuzz: give it to build/fuzz/target/*/release/frames to see it again.
set -eu -o pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:${HOME:-/root}/.cargo/bin

host=$(rustc --version --verbose | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
# As cargo-fuzz has them, but for the sanitizer: tests/asan.sh has that for all of the library.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
work=$PWD/build/fuzz
mkdir -p "$work/corpus"
cargo build --locked --release --target "$host" --target-dir "$work/target" --manifest-path fuzz/Cargo.toml
frames=$work/target/$host/release/frames
MMC_FUZZ_SEEDS=$work/corpus "$frames"
"$frames" -max_total_time="${MMC_FUZZ_SECONDS:-20}" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$work/" "$work/corpus"
