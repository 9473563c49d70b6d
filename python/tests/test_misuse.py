"""Processes that fork, threads that race, interpreters that end: an exception each, never a crash."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any

import pytest
from conftest import MIB, run_program

import mmc


def in_child(call: Any) -> Any:
    """What a call answers in a forked child, or what it raises there."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        try:
            answers.put(call())
        except Exception as error:
            answers.put(error)

    process = context.Process(target=child)
    process.start()
    answer = answers.get()
    process.join(20)
    assert process.exitcode == 0
    return answer


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_refused_and_may_open_its_own(store: mmc.Store) -> None:
    store.put("k", b"parent")
    pin = store.pin("k")
    for call in (
        lambda: store.get("k"),
        lambda: store.put("x", b"1"),
        lambda: store.batch_get(["k"]),
        store.stats,
        store.close,
        lambda: store.pin("k"),
        lambda: store.reserve("x", 1),
    ):
        assert isinstance(in_child(call), mmc.Forked)

    def own() -> Any:
        pin.close()
        with mmc.Store(dram=MIB) as other:
            other.put("k", b"child")
            return other.get("k")

    assert in_child(own) == b"child"
    assert bytes(pin.view) == b"parent"
    pin.close()
    assert store.get("k") == b"parent"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_beside_busy_threads_is_not_stuck(store: mmc.Store) -> None:
    done = threading.Event()

    def work(name: int) -> None:
        number = 0
        while not done.is_set():
            store.put(f"{name}/{number}", bytes(4096))
            number += 1

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert isinstance(in_child(lambda: store.exists("k")), mmc.Forked)
    finally:
        done.set()
        for thread in threads:
            thread.join()


ENDINGS = {
    "an open store": "store.put('k', b'1')",
    "a pin and an array over it": "store.put('k', bytes(64)); pin = store.pin('k'); view = pin.view[2:9]",
    "a reservation": "reservation = store.reserve('k', 64); view = reservation.view[1:]",
    "a listener": "store.set_event_callback(lambda events, dropped: None); store.put('k', b'1')",
    "the admin port": "other = mmc.Store(dram=1 << 20, http='127.0.0.1:0')",
    "a logger": "mmc.set_log_level('trace'); store.put('k', b'1')",
    "memory of its own": "memory = bytearray(1 << 20); store.register_segment(memory=memory, rank=1)",
    "a pin in memory of its own": (
        "memory = bytearray(1 << 20); store.register_segment(memory=memory, rank=1); "
        "store.put('k', b'1', preferred_ranks=[1]); pin = store.pin('k')"
    ),
    "a cycle": "store.self = store",
}


@pytest.mark.parametrize("what", ENDINGS, ids=str)
def test_an_interpreter_may_end_with(what: str) -> None:
    run_program(f"import mmc\nstore = mmc.Store(dram=1 << 20)\n{ENDINGS[what]}")


def test_an_interpreter_may_end_beside_threads_at_work() -> None:
    program = """
import threading, mmc
store = mmc.Store(dram=1 << 24)
events = []
store.set_event_callback(lambda some, dropped: events.extend(some))
def copy(operations, to_segment, stream):
    pass
store.register_segment("HBM", rank=1, base=1 << 40, capacity=1 << 20, copy=copy)
started = threading.Barrier(4)
def work(name):
    number = 0
    while True:
        try:
            store.put(f"{name}/{number}", bytes(4096), medium=("HBM", "DRAM", "DRAM")[name])
        except mmc.NoSpace:
            pass
        except mmc.NotStarted:
            return
        number += 1
        if number == 10:
            started.wait()
for name in range(3):
    threading.Thread(target=work, args=(name,), daemon=True).start()
started.wait()
"""
    for _ in range(3):
        run_program(program)


def test_an_interrupted_call_leaves_the_store_whole() -> None:
    program = """
import os, signal, threading, mmc
store = mmc.Store(dram=1 << 24)
inside, go_on = threading.Event(), threading.Event()
def copy(operations, to_segment, stream):
    inside.set()
    go_on.wait()
store.register_segment("HBM", rank=1, base=1 << 40, capacity=1 << 20, copy=copy)
def interrupt():
    inside.wait()
    os.kill(os.getpid(), signal.SIGINT)
    go_on.set()
threading.Thread(target=interrupt).start()
try:
    store.put("k", b"1", medium="HBM")
    while True:
        pass
except KeyboardInterrupt:
    print("interrupted")
store.put("l", b"2")
print(store.get("l"))
store.close()
"""
    assert run_program(program).stdout == "interrupted\nb'2'\n"


def test_a_store_closed_under_threads_ends_their_calls() -> None:
    store = mmc.Store(dram=16 * MIB)
    store.put("k", bytes(MIB))
    ready = threading.Barrier(5)
    refused: list[BaseException] = []

    def work() -> None:
        out = bytearray(MIB)
        ready.wait()
        try:
            while True:
                store.get_into("k", out)
        except mmc.Error as error:
            refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait()
    store.close()
    for thread in threads:
        thread.join(20)
    assert [type(error) for error in refused] == [mmc.NotStarted] * 4


def test_threads_get_whole_blocks_while_others_put_and_evict(store: mmc.Store) -> None:
    """Every block is one number over and over, and its key says which."""
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            out = bytearray(MIB)
            for round in range(60):
                number = (seed * 7 + round * 13) % 50
                try:
                    store.put(f"k{number}", bytes([number]) * MIB)
                except mmc.KeyExists:
                    pass
                try:
                    store.get_into(f"k{number}", out)
                except mmc.NotFound:
                    continue
                assert out == bytes([number]) * MIB
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_fork_of_the_whole_program_ends_in_both() -> None:
    program = """
import os, sys, mmc
store = mmc.Store(dram=1 << 20)
store.put("k", b"1")
child = os.fork()
if child == 0:
    try:
        store.get("k")
    except mmc.Forked:
        sys.exit(7)
    sys.exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert store.get("k") == b"1"
"""
    run_program(program)


def test_the_process_holds_nothing_of_stores_that_were_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with mmc.Store(dram=MIB, http="127.0.0.1:0") as store:
            store.put("k", b"1")
    # Threads of the admin port's server leave within seconds of their server, their descriptors with them.
    assert len(os.listdir("/proc/self/fd")) <= before + 2
