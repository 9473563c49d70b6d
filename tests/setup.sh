#!/bin/bash
# Installs the commands that are named and missing: tests/setup.sh curl valgrind
#
# Packages come from apt-get, as root or through sudo; rustfmt, clippy and rust-src from rustup. Where that can't be done it says what to
# install, and fails.
set -eu -o pipefail
PATH=$PATH:${HOME:-/root}/.cargo/bin

fail() {
    echo "setup: $*" >&2
    exit 1
}

packages_of() {
    case $1 in
        venv) echo python3-venv ;;
        valgrind) echo valgrind libc6-dbg ;; # valgrind reads the symbols of the C library
        *) echo "$1" ;;
    esac
}

install_packages() {
    local become=()
    command -v apt-get > /dev/null || fail "please install these packages: $* (there is no apt-get on this machine)"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || fail "please install these packages: $* (this is neither root, nor is there sudo)"
        become=(sudo)
        [ -t 0 ] || become=(sudo -n)
    fi
    echo "setup: installing $*"
    if ! { "${become[@]}" apt-get -qq update &&
        "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; } \
        > /tmp/mmc-setup.$$ 2>&1; then
        cat "/tmp/mmc-setup.$$" >&2
        rm -f "/tmp/mmc-setup.$$"
        fail "apt-get could not install: $*"
    fi
    rm -f "/tmp/mmc-setup.$$"
}

command -v cargo > /dev/null || fail "please install Rust: https://rustup.rs"
command -v gcc > /dev/null || fail "please install gcc"

# Whether the toolchain has this component.
has_component() {
    case $1 in
        rust-src) test -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/std/src/lib.rs" ;;
        *) cargo "${1/rustfmt/fmt}" --version > /dev/null 2>&1 ;;
    esac
}

packages=()
for wanted in "$@"; do
    case $wanted in
        rustfmt | clippy | rust-src)
            has_component "$wanted" && continue
            command -v rustup > /dev/null || fail "please install $wanted: the toolchain lacks it, and there is no rustup"
            echo "setup: installing $wanted"
            rustup component add "$wanted"
            ;;
        # Debian's Python comes without what `python3 -m venv` needs.
        venv) python3 -c 'import ensurepip, venv' 2> /dev/null || packages+=($(packages_of venv)) ;;
        *) command -v "$wanted" > /dev/null || packages+=($(packages_of "$wanted")) ;;
    esac
done
[ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
