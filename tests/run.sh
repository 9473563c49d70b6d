#!/bin/bash
# Runs the steps of `make test` in their order, each with its name and time, and ends at the first that fails.
#
#     tests/run.sh                 all of them
#     tests/run.sh symbols headers these
#     tests/run.sh tsan            which is not among them: it builds for four minutes of a processor
#     tests/run.sh fuzz            nor is this one, which builds for nearly three
#
# A step is a function `step_<name>`. What it prints goes to build/log/<name>, and to the terminal when it fails. One that ends with 77 can't be
# run on this machine, and the last line that it prints says why.
set -eu -o pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:${HOME:-/root}/.cargo/bin
export CARGO_TERM_COLOR=never
# Settings of whoever runs this are not the tests'.
unset MMC_CONFIG_PATH MMC_HTTP_ADDRESS MMC_LOG_LEVEL MMC_SHARE MMC_BLESS

TARGET=${CARGO_TARGET_DIR:-target}
LIBRARY=$TARGET/release/libmmc.so
WARNINGS=(-Wall -Wextra -Wpedantic -Werror)
LOGS=build/log
STEPS=(setup format clippy rustdoc rust asan abort library symbols headers programs valgrind instructions examples install wheel python pythons)

step_setup() {
    bash tests/setup.sh rustfmt clippy g++ valgrind pkg-config cmake curl venv
}

step_format() {
    cargo fmt --check
}

step_clippy() {
    cargo clippy --locked --all-targets -- -D warnings
}

step_rustdoc() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
}

step_rust() {
    cargo test --locked
}

# A short run; longer ones are `MMC_SOAK_SECONDS=600 tests/asan.sh threads` and the like.
step_asan() {
    MMC_MODEL_CASES=40 MMC_SOAK_SECONDS=4 bash tests/asan.sh
}

# The model, which runs one thread, is left to longer runs.
step_tsan() {
    MMC_SOAK_SECONDS=4 bash tests/tsan.sh threads races
}

# What other processes send, changed at random: tests/fuzz.sh.
step_fuzz() {
    bash tests/setup.sh g++
    MMC_FUZZ_SECONDS=${MMC_FUZZ_SECONDS:-20} bash tests/fuzz.sh
}

# A build that can't catch panics must not come to be.
step_abort() {
    local said
    if said=$(cargo rustc --locked --lib --profile check -- -C panic=abort 2>&1); then
        echo "a build with panic=abort was not refused"
        return 1
    fi
    grep -F 'mmc catches panics at its C ABI: build it with panic = "unwind"' <<< "$said"
}

step_library() {
    make all
}

# The library exports what the list says and nothing else, has its name, and stays in memory after dlclose.
step_symbols() {
    local dynamic
    diff -u tests/symbols.txt <(bash tests/symbols.sh "$LIBRARY") || {
        echo "exported symbols differ from tests/symbols.txt; if they should, renew it with \`make symbols\`"
        return 1
    }
    if grep -v '^mmc_[a-z_]*$' tests/symbols.txt; then return 1; fi
    dynamic=$(readelf --dynamic --wide "$LIBRARY")
    grep -F 'soname: [libmmc.so.0]' <<< "$dynamic"
    grep -E 'FLAGS_1.*NODELETE' <<< "$dynamic"
    test "$(readlink "$TARGET/release/libmmc.so.0")" = libmmc.so
}

# Each header compiles by itself.
step_headers() {
    echo '#include "mmc.h"' | gcc -std=c11 "${WARNINGS[@]}" -fsyntax-only -Iinclude -x c -
    echo '#include "mmc.h"' | g++ -std=c++17 "${WARNINGS[@]}" -fsyntax-only -Iinclude -x c++ -
    if [ -e include/mmc.hpp ]; then
        echo '#include "mmc.hpp"' | g++ -std=c++17 "${WARNINGS[@]}" -fsyntax-only -Iinclude -x c++ -
    fi
}

# Names of the programs of tests/c and tests/cpp, once they are built.
programs() {
    local source
    for source in tests/c/*.c tests/cpp/*.cpp; do
        case $source in
            *\**) ;;
            *.c) basename "$source" .c ;;
            *) echo "$(basename "$source" .cpp)-cpp" ;;
        esac
    done
}

step_programs() {
    make tests/programs
    for program in $(programs); do
        timeout 120 "build/tests/$program"
    done
}

# The same programs with smaller loads; an error or a leak anywhere, in a forked child too, fails them.
valgrind_one() {
    MMC_SLOW=1 timeout 300 valgrind --quiet --error-exitcode=99 --leak-check=full \
        --show-leak-kinds=definite --errors-for-leak-kinds=definite --num-callers=30 "build/tests/$1" > "$LOGS/valgrind-$1" 2>&1 || {
        echo "$1 failed under valgrind:"
        cat "$LOGS/valgrind-$1"
        return 255
    }
}

step_valgrind() {
    export -f valgrind_one
    export LOGS
    rm -f "$LOGS"/valgrind-*
    make tests/programs
    programs | xargs -P 2 -I '{}' bash -c 'valgrind_one {}'
    # No error was reported by a process that could not say so in its own exit code.
    if grep -E '^==[0-9]+== ' "$LOGS"/valgrind-*; then return 1; fi
}

# What calls cost, in instructions, is what it was.
step_instructions() {
    make build/instructions/calls
    python3 benches/instructions/run.py
}

# Every example is built, and run on real input: a replay fails at the first wrong byte.
step_examples() {
    make examples
    build/examples/quickstart
    build/examples/sharing < /dev/null
    for replay in build/examples/replay build/examples/replay-cpp; do
        "$replay" --trace examples/data/*.kvt.gz --requests 500 --block 65536 --dram 268435456
    done
    make demo
}

# Programs outside of this tree find an installed library: by pkg-config, and by CMake.
step_install() {
    local prefix=$PWD/build/prefix work=build/outside
    rm -rf "$prefix" "$work" build/root
    mkdir -p "$work"
    make install PREFIX="$prefix"
    export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
    # shellcheck disable=SC2046 # the flags are words
    gcc -std=c11 "${WARNINGS[@]}" tests/install/program.c -o "$work/program" $(pkg-config --cflags --libs mmc)
    LD_LIBRARY_PATH=$prefix/lib "$work/program" | grep -x "mmc $(pkg-config --modversion mmc)"
    readelf --dynamic "$work/program" | grep -F '[libmmc.so.0]'
    # The README's program is what a newcomer tries first.
    awk '/^```c$/ {inside = 1; next} /^```$/ {inside = 0} inside' README.md > "$work/hello.c"
    gcc -std=c11 "${WARNINGS[@]}" "$work/hello.c" -o "$work/hello" $(pkg-config --cflags --libs mmc)
    LD_LIBRARY_PATH=$prefix/lib "$work/hello" | grep -x 'the bytes of a KV block'

    cmake -S tests/install -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix"
    cmake --build "$work/cmake"
    "$work/cmake/program" | grep -x "mmc $(pkg-config --modversion mmc)"

    # Packagers install somewhere else than where it will be.
    make install PREFIX=/usr DESTDIR="$PWD/build/root"
    grep -x 'prefix=/usr' build/root/usr/lib/pkgconfig/mmc.pc
    test -e build/root/usr/lib/libmmc.so
}

# A fresh virtual environment in which nothing but the wheel, and what its tests need, is installed.
python_environment() {
    local python=$1 where=$2 extras=$3
    "$python" -m venv --clear "$where"
    "$where/bin/pip" install --quiet --disable-pip-version-check "$(echo build/wheel/mmc-*.whl)[$extras]"
}

# The wheel carries the library and no compiled Python code, for any Python of this platform; what a source distribution holds builds.
step_wheel() {
    rm -rf build/wheel build/sdist
    make wheel
    ls build/wheel/mmc-*-py3-none-linux_*.whl
    python3 - build/wheel/*.whl <<- 'END'
	import sys, zipfile
	names = zipfile.ZipFile(sys.argv[1]).namelist()
	compiled = [name for name in names if not name.endswith((".py", "py.typed")) and ".dist-info/" not in name]
	assert compiled == ["mmc/libmmc.so"], compiled
	assert {"mmc/__init__.py", "mmc/py.typed", "memcache_hybrid/__init__.py", "memcache_hybrid/py.typed"} <= set(names), names
	END
    python3 -m venv --clear build/sdist
    build/sdist/bin/pip install --quiet --disable-pip-version-check build
    build/sdist/bin/python -m build --quiet --sdist --outdir build/sdist/dist python
    tar -xzf build/sdist/dist/mmc-*.tar.gz -C build/sdist
    cargo check --locked --lib --target-dir "$TARGET" --manifest-path "$(echo build/sdist/mmc-*/crate)/Cargo.toml"
}

step_python() {
    local bin=$PWD/build/python/bin
    python_environment python3 build/python test,lint
    cd python
    "$bin/ruff" check --config pyproject.toml . ../examples/python ../benches/instructions ../benches/python ../benches/peers
    "$bin/ruff" format --check --config pyproject.toml . ../examples/python ../benches/instructions ../benches/python ../benches/peers
    "$bin/mypy"
    # Nothing that Python 3.9 lacks, in syntax or library.
    "$bin/vermin" --quiet --target=3.9- --no-tips --eval-annotations --violations src tests ../examples/python
    "$bin/python" -c 'import mmc; assert "site-packages" in mmc.__file__, mmc.__file__'
    "$bin/pytest" --quiet --durations=5
    # The README's programs are what a newcomer tries first.
    awk '/^```python$/ {inside = 1; next} /^```$/ {inside = 0} inside' ../README.md > ../build/python/readme.py
    "$bin/python" -W error ../build/python/readme.py
    "$bin/python" ../benches/python/overhead.py --rounds 5 --sets 4
}

# Every other Python from 3.9 on that is installed, with the tests that do not take long.
pythons_one() {
    local python=$1 version=$2
    {
        python_environment "$python" "build/python$version" test
        cd python
        timeout 600 "../build/python$version/bin/pytest" --quiet -m 'not slow'
    } > "$LOGS/python$version" 2>&1 || {
        echo "Python $version failed:"
        cat "$LOGS/python$version"
        return 255
    }
}

step_pythons() {
    local python version seen found=()
    seen=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    for python in $(compgen -c python3. | sort -u) "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
        version=$("$python" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || continue
        case " $seen 3.6 3.7 3.8 " in *" $version "*) continue ;; esac
        seen="$seen $version"
        found+=("$python $version")
    done
    [ ${#found[@]} = 0 ] && return
    export -f pythons_one python_environment
    LOGS=$PWD/$LOGS
    export LOGS
    printf '%s\n' "${found[@]}" | xargs -P 2 -L 1 bash -ec 'pythons_one "$@"' pythons
    echo "run with: ${found[*]}"
}

mkdir -p "$LOGS"
[ $# = 0 ] || STEPS=("$@")
passed=0 skipped=0
for step in "${STEPS[@]}"; do
    printf '%-12s ' "$step"
    begin=$EPOCHREALTIME
    # In a shell of its own, and not asked for its success in a condition: there it would go on after a command that fails.
    set +e
    (
        set -e
        "step_$step"
    ) > "$LOGS/$step" 2>&1
    code=$?
    set -e
    seconds=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $begin }")
    if [ "$code" = 77 ]; then
        printf 'skipped %6s s, %s\n' "$seconds" "$(tail -n 1 "$LOGS/$step")"
        skipped=$((skipped + 1))
        continue
    fi
    if [ "$code" != 0 ]; then
        printf 'FAILED %7s s\n' "$seconds"
        sed 's/^/    /' "$LOGS/$step"
        echo "$passed passed, 1 failed, $((${#STEPS[@]} - passed - skipped - 1)) not run"
        exit 1
    fi
    printf 'passed %7s s\n' "$seconds"
    passed=$((passed + 1))
done
if [ "$skipped" = 0 ]; then
    echo "$passed passed, 0 failed"
else
    echo "$passed passed, 0 failed, $skipped skipped"
fi
