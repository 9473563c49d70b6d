#!/bin/bash
# Runs the model and the threads under AddressSanitizer, with its leak check. Needs nothing that a Rust toolchain does not have: the
# sanitizer's switch is one of the unstable ones, which RUSTC_BOOTSTRAP opens for this build only.
#
#     tests/asan.sh                both
#     tests/asan.sh threads        one of them
set -eu -o pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:${HOME:-/root}/.cargo/bin

host=$(rustc --version --verbose | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
# The sanitizer stops at the first error. A host's own flags would build everything for another machine than the tests.
export RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes"
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:halt_on_error=1
export MMC_MODEL_CASES=${MMC_MODEL_CASES:-60} MMC_SOAK_SECONDS=${MMC_SOAK_SECONDS:-10}

tests=("${@:-model}")
[ $# -gt 0 ] || tests=(model threads)
# With --target the flags are not those of build scripts and macros.
cargo test --locked --target "$host" "${tests[@]/#/--test=}"
