#!/bin/bash
# Prints the symbols that a library exports, one a line.
set -eu -o pipefail
nm -D --defined-only --format=posix "$1" | cut -d ' ' -f 1 | LC_ALL=C sort
