# mmc: build, try, check, install. `make help` says what there is.
#
# It needs Rust, gcc and Python 3. What else a target needs, tests/setup.sh installs first.

SHELL := /bin/bash
.DEFAULT_GOAL := all
# rustup puts cargo there, and not every shell has been told.
export PATH := $(PATH):$(HOME)/.cargo/bin

PREFIX ?= /usr/local
DESTDIR ?=
CFLAGS ?= -O2 -g
CXXFLAGS ?= -O2 -g

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The number in the library's name, which build.rs gives it too: that of the ABI.
ABI := 0
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
LIBRARY := $(RELEASE)/libmmc.so
SONAME := $(RELEASE)/libmmc.so.$(ABI)

WARNINGS := -Wall -Wextra -Wpedantic -Werror
C := $(CC) -std=c11 $(WARNINGS) $(CFLAGS) -pthread -Iinclude
CPP := $(CXX) -std=c++17 $(WARNINGS) $(CXXFLAGS) -pthread -Iinclude
# A program of this tree finds the library of this tree.
LINK = -L$(RELEASE) -lmmc -Wl,-rpath,$(abspath $(RELEASE)) -lm

.PHONY: all examples demo test bench bench-peers instructions wheel header symbols install clean help tests/programs

## all: the release library, target/release/libmmc.so
all: $(SONAME)

$(LIBRARY): Cargo.toml Cargo.lock build.rs $(shell find src -name '*.rs')
	cargo build --release --locked --lib
	@touch -c $@

$(SONAME): $(LIBRARY)
	ln -sf libmmc.so $@

## examples: every program of examples/, in build/examples
# A program is a file; one of several files names the others here.
replay_FILES := $(filter-out examples/c/quickstart.c examples/c/replay.c examples/c/sharing.c, $(wildcard examples/c/*.c))
EXAMPLES_C := $(patsubst examples/c/%.c, build/examples/%, $(filter-out $(replay_FILES), $(wildcard examples/c/*.c)))
EXAMPLES_CPP := $(patsubst examples/cpp/%.cpp, build/examples/%-cpp, $(wildcard examples/cpp/*.cpp))
HEADERS := $(wildcard include/*) $(wildcard examples/c/*.h)

examples: $(EXAMPLES_C) $(EXAMPLES_CPP)

.SECONDEXPANSION:
build/examples/%: examples/c/%.c $$($$*_FILES) $(HEADERS) $(SONAME) | build/examples
	$(C) $(filter %.c, $^) -o $@ $(LINK)

build/examples/%-cpp: examples/cpp/%.cpp $(HEADERS) $(SONAME) | build/examples
	$(CPP) $< -o $@ $(LINK)

build/examples build/tests build/instructions:
	@mkdir -p $@

## demo: replay a real trace and look at it over HTTP
demo:
	@bash tests/setup.sh curl
	@$(MAKE) --no-print-directory build/examples/replay
	@bash examples/demo.sh

## test: everything there is; tests/run.sh runs some steps of it by name
test:
	+@bash tests/run.sh

# The programs of tests/c and tests/cpp, for tests/run.sh.
TEST_PROGRAMS := $(patsubst tests/c/%.c, build/tests/%, $(wildcard tests/c/*.c)) \
    $(patsubst tests/cpp/%.cpp, build/tests/%-cpp, $(wildcard tests/cpp/*.cpp))
tests/programs: $(TEST_PROGRAMS)

build/tests/%: tests/c/%.c $(wildcard tests/c/*.h) include/mmc.h $(SONAME) | build/tests
	$(C) -D_GNU_SOURCE $< -o $@ $(LINK)

build/tests/%-cpp: tests/cpp/%.cpp $(HEADERS) $(SONAME) | build/tests
	$(CPP) $< -o $@ $(LINK)

# This one loads the library by itself.
build/tests/reload: tests/c/reload.c $(wildcard tests/c/*.h) include/mmc.h $(SONAME) | build/tests
	$(C) -D_GNU_SOURCE -DLIBRARY='"$(abspath $(SONAME))"' $< -o $@ -ldl

## bench: the benchmarks
bench:
	cargo bench --locked

## bench-peers: mmc beside what users would take instead; `benches/peers/run.py --help` has shorter runs
bench-peers:
	@python3 benches/peers/run.py

## instructions: renew the instructions that calls take, benches/instructions/*.tsv, with which `make test` compares
instructions:
	@bash tests/setup.sh valgrind
	@$(MAKE) --no-print-directory build/instructions/calls
	@python3 benches/instructions/run.py --renew

build/instructions/calls: benches/instructions/calls.c include/mmc.h $(SONAME) | build/instructions
	$(C) $< -o $@ $(LINK)

## wheel: the Python package with its library, in build/wheel
wheel: $(SONAME)
	@mkdir -p build/wheel
	python3 -m venv build/venv
	build/venv/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel ./python

## header: renew include/mmc.h from src/ffi
header:
	MMC_BLESS=1 cargo test --locked --test header

## symbols: renew the list of what the library exports
symbols: all
	bash tests/symbols.sh $(LIBRARY) > tests/symbols.txt

## install: the library, its headers, pkg-config and CMake files; PREFIX=/usr/local DESTDIR=
ROOT = $(DESTDIR)$(abspath $(PREFIX))

define PKG_CONFIG_FILE
prefix=$(abspath $(PREFIX))
includedir=$${prefix}/include
libdir=$${prefix}/lib

Name: mmc
Description: An in-process cache for the KV blocks of large language models
Version: $(VERSION)
Cflags: -I$${includedir}
Libs: -L$${libdir} -lmmc
endef

define CMAKE_CONFIG_FILE
if(NOT TARGET mmc::mmc)
  get_filename_component(MMC_PREFIX "$${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
  add_library(mmc::mmc SHARED IMPORTED)
  set_target_properties(mmc::mmc PROPERTIES
    IMPORTED_LOCATION "$${MMC_PREFIX}/lib/libmmc.so.$(VERSION)"
    IMPORTED_SONAME "libmmc.so.$(ABI)"
    INTERFACE_INCLUDE_DIRECTORIES "$${MMC_PREFIX}/include")
  unset(MMC_PREFIX)
endif()
endef

# Before 1.0 a minor version may break a program, so it must be the same one.
define CMAKE_VERSION_FILE
set(PACKAGE_VERSION "$(VERSION)")
string(REGEX MATCH "^[0-9]+\\.[0-9]+" MMC_WANTED "$${PACKAGE_FIND_VERSION}.0")
if("$(basename $(VERSION))" STREQUAL MMC_WANTED AND NOT PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
if(NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(PACKAGE_VERSION_UNSUITABLE TRUE)
endif()
endef

export PKG_CONFIG_FILE CMAKE_CONFIG_FILE CMAKE_VERSION_FILE

install: $(LIBRARY)
	install -d "$(ROOT)/include" "$(ROOT)/lib/pkgconfig" "$(ROOT)/lib/cmake/mmc"
	install -m 644 include/* "$(ROOT)/include"
	install -m 755 $(LIBRARY) "$(ROOT)/lib/libmmc.so.$(VERSION)"
	ln -sf libmmc.so.$(VERSION) "$(ROOT)/lib/libmmc.so.$(ABI)"
	ln -sf libmmc.so.$(ABI) "$(ROOT)/lib/libmmc.so"
	printf '%s\n' "$$PKG_CONFIG_FILE" > "$(ROOT)/lib/pkgconfig/mmc.pc"
	printf '%s\n' "$$CMAKE_CONFIG_FILE" > "$(ROOT)/lib/cmake/mmc/mmc-config.cmake"
	printf '%s\n' "$$CMAKE_VERSION_FILE" > "$(ROOT)/lib/cmake/mmc/mmc-config-version.cmake"

## clean: remove what was built
clean:
	cargo clean
	rm -rf build python/src/mmc/libmmc.so

help:
	@sed -n 's/^## \([a-z-]*\): /  make \1\t/p' Makefile | expand -t 20
