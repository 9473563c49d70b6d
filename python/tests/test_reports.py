"""What the library tells: events, log, version."""

from __future__ import annotations

import logging
import queue
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, own_only, run_program

import mmc
from mmc import _native


@own_only
def test_a_listener_hears_what_happens(store: mmc.Store) -> None:
    heard: queue.Queue[tuple[list[mmc.Event], int]] = queue.Queue()
    store.set_event_callback(lambda events, dropped: heard.put((events, dropped)))
    store.batch_put(["a", "b"], [b"1", b"2"])
    store.remove("a")
    events: list[mmc.Event] = []
    while len(events) < 3:
        some, dropped = heard.get(timeout=10)
        events += some
        assert dropped == 0
    assert events == [
        mmc.Event("stored", "a", "DRAM", 0),
        mmc.Event("stored", "b", "DRAM", 0),
        mmc.Event("removed", "a", "DRAM", 0),
    ]
    store.set_event_callback(None)
    store.remove("b")
    assert heard.empty()


@own_only
def test_a_listener_that_raises_is_reported_and_goes_on(store: mmc.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: queue.Queue[Any] = queue.Queue()
    monkeypatch.setattr(sys, "excepthook", lambda *error: errors.put(error[1]))
    heard: queue.Queue[str] = queue.Queue()

    def hear(events: list[mmc.Event], dropped: int) -> None:
        heard.put(events[0].key)
        raise ValueError(events[0].key)

    store.set_event_callback(hear)
    for key in ("a", "b"):
        store.put(key, b"1")
        assert heard.get(timeout=10) == key
        assert str(errors.get(timeout=10)) == key
    store.set_event_callback(None)


@own_only
def test_a_listener_can_not_replace_itself(store: mmc.Store) -> None:
    answers: queue.Queue[Any] = queue.Queue()

    def hear(events: list[mmc.Event], dropped: int) -> None:
        try:
            store.set_event_callback(None)
        except mmc.Busy as error:
            answers.put(error)

    store.set_event_callback(hear)
    store.put("k", b"1")
    assert isinstance(answers.get(timeout=10), mmc.Busy)
    store.set_event_callback(None)


def test_the_log_goes_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    mmc.set_log_level("info")
    try:
        with caplog.at_level(logging.DEBUG, "mmc"), mmc.Store(dram=MIB):
            pass
    finally:
        mmc.set_log_level("warn")
    assert ("mmc", logging.INFO) in [(record.name, record.levelno) for record in caplog.records]
    assert "registered" in caplog.text


def test_a_level_is_a_name_or_a_number_of_logging(caplog: pytest.LogCaptureFixture) -> None:
    for level, says in ((logging.INFO, True), ("warning", False), (logging.CRITICAL + 1, False), ("TRACE", True)):
        caplog.clear()
        mmc.set_log_level(level)
        with caplog.at_level(1, "mmc"), mmc.Store(dram=MIB):
            pass
        assert bool(caplog.records) is says, level
    mmc.set_log_level("warn")
    with pytest.raises(ValueError, match="loud"):
        mmc.set_log_level("loud")


def test_a_logger_of_ones_own_hears_instead(caplog: pytest.LogCaptureFixture) -> None:
    mmc.set_logger(logging.getLogger("engine.cache"))
    mmc.set_log_level("info")
    try:
        with caplog.at_level(logging.INFO, "engine"), mmc.Store(dram=MIB):
            pass
    finally:
        mmc.set_logger(logging.getLogger("mmc"))
        mmc.set_log_level("warn")
    assert {record.name for record in caplog.records} == {"engine.cache"}


def test_a_handler_that_raises_fails_no_call() -> None:
    program = """
import logging, sys, mmc
sys.excepthook = lambda *error: print("hook", error[1])
class Bad(logging.Handler):
    def emit(self, record): raise RuntimeError("full")
logging.getLogger("mmc").addHandler(Bad())
logging.getLogger("mmc").setLevel(logging.INFO)
mmc.set_log_level("info")
with mmc.Store(dram=1 << 20) as store:
    store.put("k", b"1")
    print(store.get("k"))
"""
    assert "hook full" in run_program(program).stdout


def test_nothing_is_said_that_nobody_asked_for() -> None:
    assert run_program("import mmc\nwith mmc.Store(dram=1 << 20) as store: store.put('k', b'1')").stdout == ""


@own_only
def test_another_thread_runs_while_the_library_works(store: mmc.Store) -> None:
    """The interpreter's lock is let go in a call: a callback of another thread, which needs it, runs while this one waits inside."""
    inside, go_on = threading.Event(), threading.Event()

    def copy(operations: list[mmc.CopyOperation], to_segment: bool, stream: object) -> None:
        inside.set()
        assert go_on.wait(20)

    address = store.register_segment("HBM", rank=1, base=1 << 40, capacity=MIB, copy=copy)
    put = threading.Thread(target=store.put, args=("k", b"1"), kwargs={"medium": "HBM"})
    put.start()
    assert inside.wait(20)
    # This call waits in the library for the put, whose callback waits for the timer's thread: all need the lock in turn.
    timer = threading.Timer(0.05, go_on.set)
    timer.start()
    store.unregister_segment(address)
    assert go_on.is_set()
    put.join()
    timer.join()


def test_all_of_the_header_is_reachable() -> None:
    """Every function of the library has a prototype here, and every prototype is called somewhere."""
    package = Path(mmc.__file__).parent
    exported = set(Path(__file__).parents[2].joinpath("tests", "symbols.txt").read_text(encoding="utf-8").split())
    # What programs call that were built before the config grew; the header has another function behind that name.
    exported.remove("mmc_config_init")
    assert set(_native.PROTOTYPES) == exported
    sources = "".join(path.read_text(encoding="utf-8") for path in package.glob("*.py"))
    unused = [name for name in exported if not re.search(rf"library\.{name}\b|\"{name}\"\)", sources)]
    assert unused == []


def test_structs_are_as_large_as_the_headers() -> None:
    header = Path(__file__).parents[2].joinpath("include", "mmc.h").read_text(encoding="utf-8")
    sources = {
        "mmc_config": _native.Config,
        "mmc_attach_options": _native.AttachOptions,
        "mmc_segment_options": _native.SegmentOptions,
        "mmc_segment_info": _native.SegmentInfo,
        "mmc_put_options": _native.PutOptions,
        "mmc_get_options": _native.GetOptions,
        "mmc_object_info": _native.ObjectInfo,
        "mmc_blob_info": _native.BlobInfo,
        "mmc_view": _native.View,
        "mmc_statistics": _native.Statistics,
        "mmc_copy_operation": _native.CopyOperation,
    }
    for name, struct in sources.items():
        body = re.search(rf"typedef struct {name} \{{(.*?)\n\}} {name};", header, re.DOTALL)
        assert body is not None, name
        fields = re.findall(r"^    [^/\n].*?(\w+)(?:\[\w+\])?;$", body[1], re.MULTILINE)
        assert fields == [field[0] for field in struct._fields_], name


def test_the_version_is_the_librarys() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", mmc.__version__)
    assert _native.library.mmc_abi_version() >= _native.ABI_VERSION
    assert _native.library.mmc_error_name(-3006) == b"MMC_ERR_EXISTS"


def test_another_library_is_refused_at_import(tmp_path: Path) -> None:
    done = run_program(
        "import os; os.environ['MMC_LIBRARY'] = '/nowhere/libmmc.so'\ntry: import mmc\nexcept ImportError as error: print(error)"
    )
    assert "/nowhere/libmmc.so can't be used" in done.stdout
