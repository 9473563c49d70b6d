#!/bin/bash
# Runs the threads, the races of the store and the model under ThreadSanitizer, and fails upon its first report.
#
#     tests/tsan.sh                all of them
#     tests/tsan.sh threads        one of them: threads, races or model
#
# A longer run is `MMC_SOAK_SECONDS=600 tests/tsan.sh threads`, or another MMC_MODEL_CASES.
#
# The standard library has to be instrumented too: its locks are not seen otherwise, and whatever happens under them is reported. So it is built
# from its source, rustup's component rust-src. Where that can't be had, this says so and ends with 77.
#
# ThreadSanitizer knows no fences. Ours order atomics only, which it never reports; what they promise is for tests/models to check. Nor
# does it look into assembly, so here the bytes of objects go through the portable copy. helgrind and drd of valgrind can't do the same: std's locks
# are futexes, of which they see nothing, so 3 threads with 400 operations each bring some 380000 and 150000 reports, none of them true.
set -eu -o pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:${HOME:-/root}/.cargo/bin

bash tests/setup.sh rust-src || {
    echo "not run: ThreadSanitizer needs rust-src, the source of this toolchain's standard library, and it can't be had"
    exit 77
}

host=$(rustc --version --verbose | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
# A host's own flags would build everything for another machine than the tests.
export RUSTFLAGS="-Zsanitizer=thread --cfg portable_copy"
# Some tests ask for tables that are too large to be had.
export TSAN_OPTIONS="halt_on_error=1 allocator_may_return_null=1"
export CARGO_PROFILE_DEV_INCREMENTAL=false
export MMC_MODEL_CASES=${MMC_MODEL_CASES:-60} MMC_SOAK_SECONDS=${MMC_SOAK_SECONDS:-10}

run() {
    cargo test --locked -Zbuild-std --target "$host" "$@"
}

targets_of() {
    printf -- '--test=%s\n' "$@" | sed 's/--test=races/--lib/'
}

[ $# -gt 0 ] || set -- threads races model
# All at once, so that they are built side by side.
# shellcheck disable=SC2046 # the targets are words
run --no-run $(targets_of "$@")
for wanted in "$@"; do
    case $wanted in
        races) run --lib races ;;
        *) run --test "$wanted" ;;
    esac
done
