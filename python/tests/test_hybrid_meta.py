"""`MetaService`: the admin port of a store, served until a signal comes. In processes of their own, with true signals and sockets."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from hybrid_support import MIB, eventually, free_port, http_get, opened, store_fixture
from processes import is_healthy, running

from memcache_hybrid import DistributedObjectStore, MetaConfig, MetaService, _process

store = store_fixture(dram_size="1MB")


def meta_config(port: int) -> MetaConfig:
    config = MetaConfig()
    config.metrics_url = f"http://127.0.0.1:{port}"
    return config


@pytest.fixture(autouse=True)
def _not_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set up stays set up for the process."""
    monkeypatch.setattr(MetaService, "_settings", None)


@pytest.fixture
def handlers() -> Iterator[Callable[[], list[Any]]]:
    """Who handles the two signals now; these are the same in the end as they were in the beginning."""

    def current() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before = current()
    yield current
    assert current() == before


# Serving


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_main_serves_the_port_of_the_config_until_a_signal(number: signal.Signals) -> None:
    port = free_port()
    with running("print(MetaService.setup(meta_config(sys.argv[1])), MetaService.main(), flush=True)", port) as program:
        eventually(lambda: is_healthy(port))
        address = f"127.0.0.1:{port}"
        assert http_get(address, "/get_all_keys") == (200, "")
        assert http_get(address, "/get_all_segments") == (200, "[]")
        assert http_get(address, "/query_key?key=k") == (404, "Key not found")
        assert http_get(address, "/query_key") == (400, "Missing 'key' parameter")
        status, metrics = http_get(address, "/metrics")
        assert status == 200 and "memcache_stored_keys 0" in metrics
        assert http_get(address, "/metrics/summary")[1].startswith("=== MemCache Metrics Summary ===\n")
        assert http_get(address, "/metrics/ptracer")[0] == 200
        assert http_get(address, "/nothing") == (404, "Not found")
        program.process.send_signal(number)
        assert program.output() == "0 0\n"
    assert not is_healthy(port)


@pytest.mark.parametrize("variable", ["MMC_META_CONFIG_PATH", None], ids=["file", "setup before file"])
def test_main_serves_the_port_of_the_file_when_it_was_not_set_up(
    variable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, path = free_port(), tmp_path / "meta.conf"
    if variable:
        path.write_text(f"ock.mmc.meta_service.metrics_url = http://127.0.0.1:{port}\nock.mmc.log_level = error\n")
        text = "print(MetaService.main(), flush=True)"
    else:
        path.write_text("nonsense\n")
        text = "MetaService.setup(meta_config(sys.argv[1])); print(MetaService.main(), flush=True)"
    monkeypatch.setenv("MMC_META_CONFIG_PATH", str(path))
    with running(text, port) as program:
        eventually(lambda: is_healthy(port))
        program.process.terminate()
        assert program.output() == "0\n"


def test_without_setup_and_file_the_port_is_that_of_the_defaults() -> None:
    assert MetaService.setup(MetaConfig()) == 0
    assert MetaService._settings is not None
    assert MetaService._settings.config.http_address == b"127.0.0.1:8000"


def test_the_port_shows_what_instances_of_the_process_store() -> None:
    port = free_port()
    text = """
import socket, time

def use():
    # The service comes first, as it opens the store with its port.
    while socket.socket().connect_ex(("127.0.0.1", int(sys.argv[1]))) != 0:
        time.sleep(0.002)
    config = LocalConfig()
    config.dram_size = "4MB"
    config.log_level = "error"
    store = DistributedObjectStore()
    print(store.setup(config), store.init(0), store.put("block/1", bytes(5000)), flush=True)
    is_over.wait()
    print(store.get("block/1") == bytes(5000), store.put("block/2", b"data"), store.close(), flush=True)

import warnings
warnings.simplefilter("ignore", ResourceWarning)
is_over = threading.Event()
thread = threading.Thread(target=use)
thread.start()
MetaService.setup(meta_config(sys.argv[1]))
print(MetaService.main(), flush=True)
is_over.set()
thread.join()
"""
    with running(text, port) as program:
        assert program.line() == "0 0 0\n"
        address = f"127.0.0.1:{port}"
        assert http_get(address, "/get_all_keys") == (200, "block/1\n")
        status, segments = http_get(address, "/get_all_segments")
        (segment,) = json.loads(segments)
        assert (status, segment["capacity"], segment["allocatedSize"], segment["medium"]) == (
            200,
            4 * MIB,
            8192,
            "DRAM",
        )
        status, info = http_get(address, "/query_key?key=block%2F1")
        assert (status, json.loads(info)["size"]) == (200, 5000)
        program.process.terminate()
        assert program.output() == "0\nTrue 0 0\n", "the store is its users' as long as there are any"
    assert not is_healthy(port)


def test_a_metadata_service_may_run_in_a_process_that_engines_fork() -> None:
    # As engines start it: `multiprocessing.Process(target=MetaService.main)`, here from a process that has a store.
    port = free_port()
    text = """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
config = LocalConfig()
config.dram_size = "1MB"
config.log_level = "error"
store = DistributedObjectStore()
assert store.setup(config) == store.init(0) == store.put("k", b"parent") == 0
MetaService.setup(meta_config(sys.argv[1]))
service = multiprocessing.get_context("fork").Process(target=MetaService.main)
service.start()
print("started", flush=True)
sys.stdin.readline()
service.terminate()
service.join()
print(service.exitcode, store.get("k"), store.close(), flush=True)
"""
    with running(text, port) as program:
        eventually(lambda: is_healthy(port))
        assert http_get(f"127.0.0.1:{port}", "/get_all_keys") == (200, ""), "it has a store of its own"
        assert program.output("over\n") == "started\n0 b'parent' 0\n"


# Signals


def test_the_old_handlers_are_back_after_main() -> None:
    port = free_port()
    text = """
def own(number, frame):
    print("own", signal.Signals(number).name, flush=True)

signal.signal(signal.SIGTERM, own)
MetaService.setup(meta_config(sys.argv[1]))
for number in (signal.SIGTERM, signal.SIGINT):
    print(MetaService.main(), flush=True)
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
signal.raise_signal(signal.SIGTERM)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted", flush=True)
store = DistributedObjectStore()
config = LocalConfig()
config.dram_size = "1MB"
print(store.setup(config), store.init(0), store.put("k", b"data"), store.close(), flush=True)
"""
    with running(text, port) as program:
        for number in (signal.SIGTERM, signal.SIGINT):
            eventually(lambda: is_healthy(port))
            program.process.send_signal(number)
            assert program.line() == "0\n"
        assert program.output() == "own SIGTERM\ninterrupted\n0 0 0 0\n"


@pytest.mark.parametrize("how", [signal.SIG_IGN, signal.SIG_DFL], ids=lambda how: how.name)
def test_signals_that_were_ignored_or_deadly_are_so_again(how: signal.Handlers) -> None:
    port = free_port()
    text = f"""
signal.signal(signal.SIGTERM, signal.{how.name})
MetaService.setup(meta_config(sys.argv[1]))
print(MetaService.main(), signal.getsignal(signal.SIGTERM) is signal.{how.name}, flush=True)
"""
    with running(text, port) as program:
        eventually(lambda: is_healthy(port))
        program.process.terminate()
        assert program.output() == "0 True\n"


def test_other_signals_do_not_end_main_unless_their_handler_raises() -> None:
    port = free_port()
    text = """
def heard(number, frame):
    print("heard", flush=True)

def raising(number, frame):
    raise RuntimeError("from a handler")

signal.signal(signal.SIGUSR1, heard)
signal.signal(signal.SIGUSR2, raising)
MetaService.setup(meta_config(sys.argv[1]))
try:
    MetaService.main()
except RuntimeError as error:
    print(error, flush=True)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.set_wakeup_fd(-1) == -1
print(MetaService.main(), flush=True)
"""
    with running(text, port) as program:
        eventually(lambda: is_healthy(port))
        program.process.send_signal(signal.SIGUSR1)
        assert program.line() == "heard\n"
        assert is_healthy(port)
        program.process.send_signal(signal.SIGUSR2)
        assert program.line() == "from a handler\n"
        eventually(lambda: is_healthy(port))
        program.process.terminate()
        assert program.output() == "0\n"


def test_a_signal_ends_main_at_any_moment() -> None:
    text = """
import os, time
from memcache_hybrid import _process

def send(number):
    while _process.current.store is None:
        time.sleep(0)
    # From right away to well into the wait.
    time.sleep(number % 10 / 10000)
    os.kill(os.getpid(), signal.SIGTERM)

MetaService.setup(meta_config(0))
for number in range(200):
    thread = threading.Thread(target=send, args=(number,))
    thread.start()
    assert MetaService.main() == 0
    thread.join()
print("over")
"""
    with running(text) as program:
        assert program.output() == "over\n"


# What is refused


def test_main_answers_a_code_when_the_port_is_taken(
    handlers: Callable[[], list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert MetaService.setup(meta_config(port)) == 0
        assert MetaService.main() == -1
        assert [str(port) in record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
            True
        ]
    assert _process.current.store is None
    with opened(dram_size="1MB") as store:
        assert store.put("k", b"data") == 0


def test_main_is_a_repeated_call_where_there_is_a_store(
    store: DistributedObjectStore, handlers: Callable[[], list[Any]]
) -> None:
    assert MetaService.setup(meta_config(free_port())) == 0
    assert MetaService.main() == -3005
    assert store.put("k", b"data") == 0


def test_main_must_be_called_on_the_main_thread(handlers: Callable[[], list[Any]]) -> None:
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(MetaService.main()))
    thread.start()
    thread.join(20)
    assert answers == [-1]
    assert _process.current.store is None


@pytest.mark.parametrize(
    "line", ["ock.mmc.meta_service.metrics_url = https://127.0.0.1:1", "ock.mmc.evict_threshold_high = 0", "key = 1"]
)
def test_a_mistake_in_the_file_is_a_value_error_with_file_line_and_key(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: Callable[[], list[Any]]
) -> None:
    path = tmp_path / "meta.conf"
    path.write_text(f"# Settings\n{line}\n")
    monkeypatch.setenv("MMC_META_CONFIG_PATH", str(path))
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: {line.partition(' ')[0]}")):
        MetaService.main()
    assert _process.current.store is None


def test_an_engine_may_serve_the_port_of_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, path = free_port(), tmp_path / "local.conf"
    path.write_text(f"mmc.dram_size = 1MB\nock.mmc.meta_service.metrics_url = http://127.0.0.1:{port}\n")
    monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", str(path))
    store = DistributedObjectStore()
    assert store.init(0) == store.put("k", b"data") == 0
    assert http_get(f"127.0.0.1:{port}", "/get_all_keys") == (200, "k\n")
    assert store.close() == 0
    assert not is_healthy(port)
