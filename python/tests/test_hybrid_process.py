"""One store a process: shared by instances, not by children, and ended in order however the interpreter ends."""

from __future__ import annotations

import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import pytest
from conftest import own_only, run_program
from hybrid_support import (
    EMPTY_INFO,
    MIB,
    NO_RANK,
    Memory,
    answers_without_a_store,
    forks,
    in_child,
    local_config,
    open_store,
    opened,
    pool,
    put_in_place,
    store_fixture,
    write,
)

import mmc
from memcache_hybrid import DistributedObjectStore as Store
from memcache_hybrid import _process

store = store_fixture(dram_size="8MB")


# Sharing


def test_instances_see_each_others_objects(store: Store) -> None:
    with_setup, without = open_store(dram_size="1MB"), Store()
    assert without.init(1) == 0
    others = (with_setup, without)
    assert store.put("k", b"data") == 0
    assert [other.get("k") for other in others] == [b"data", b"data"]
    assert with_setup.put("k", b"other") == without.put("l", b"more") == 0
    assert store.get_batch(["k", "l"]) == [b"data", b"more"]
    assert without.remove("k") == 0
    assert [other.is_exist("k") for other in (store, *others)] == [0, 0, 0]
    assert sum(segment.capacity for segment in pool().segments()) == 8 * MIB, "the first has brought the memory"
    assert [other.close() for other in others] == [0, 0]


def test_an_object_allocated_by_one_instance_is_finished_by_another(store: Store) -> None:
    other = open_store()
    (address,) = store.batch_alloc(["k"], [4])
    assert other.batch_alloc(["k"], [4]) == [address]
    assert write(other, address, b"data") == 0
    assert other.batch_write_finish(["k"], [0]) == [0]
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.get("k") == b"data"
    assert other.batch_add_lease(["k"]) == [0]
    assert store.batch_remove_lease(["k"]) == other.close() == 0


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]], ids=str)
def test_the_last_close_ends_the_store(order: list[int]) -> None:
    stores = [open_store(dram_size="1MB") for _ in range(3)]
    assert stores[0].put("k", b"data") == 0
    first, second, last = (stores[number] for number in order)
    assert first.close() == first.close() == 0
    assert first.get("k") == b""
    assert second.close() == second.close() == 0
    assert last.get("k") == b"data"
    assert last.close() == 0
    assert all(answers_without_a_store(store) == [] for store in stores)
    with opened(dram_size="1MB") as store:
        assert store.is_exist("k") == 0


def test_an_init_again_is_no_second_user() -> None:
    store = open_store(dram_size="1MB")
    assert store.init(0) == store.init(0, False) == 0
    assert store.close() == 0
    assert _process.current.store is None


def test_an_instance_that_nobody_holds_any_more_has_left() -> None:
    store = open_store(dram_size="1MB")
    assert store.put("k", b"data") == 0
    del store
    gc.collect()
    assert _process.current.store is None


def test_a_close_with_leases_and_allocations_ends_them() -> None:
    store = open_store(dram_size="1MB")
    assert store.put("k", b"data") == 0
    assert store.batch_add_lease(["k"]) == [0]
    assert all(store.batch_alloc(["a", "b"], [4, 4], 1, 60_000))
    assert store.close() == 0
    assert _process.current.store is None
    with opened(dram_size="1MB") as store:
        assert store.batch_write_finish(["a"], [0]) == [-3102]
        assert pool().stats().reservations == pool().stats().leases == 0


def test_an_init_that_fails_leaves_nothing_and_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    assert store.setup(local_config(dram_size="1MB")) == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MMC_HTTP_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        for init_bm in (True, False):
            assert store.init(0, init_bm) < 0
            assert answers_without_a_store(store) == []
            assert _process.current.store is None
        monkeypatch.delenv("MMC_HTTP_ADDRESS")
    assert store.init(0) == 0
    assert store.put("k", b"data") == store.close() == 0


# Metadata clients


def assert_only_metadata(client: Store) -> None:
    """It has a store, and nothing in it and no room."""
    memory = Memory(b"data")
    assert client.get_local_service_id() == 0
    assert pool().segments() == []
    assert client.is_exist("k") == 0
    assert client.batch_is_exist(["k", ""]) == [0, -3000]
    assert client.get("k") == b""
    assert str(client.get_key_info("k")) == EMPTY_INFO
    assert client.remove("k") == -3102
    assert client.remove_batch(["k"]) == [-3102]
    assert client.remove_all() == 0
    assert client.batch_add_lease(["k"]) == [-3102]
    assert client.put("k", b"data") == client.put_from("k", memory.address, 4) == -1
    assert client.batch_put_from(["k"], [memory.address], [4]) == [-1]
    assert client.batch_alloc(["k"], [4]) == [0]
    assert client.get_into("k", memory.address, 4) == -1
    assert client.is_exist("k") == 0


def test_a_metadata_client_answers_and_contributes_no_memory() -> None:
    with opened(init_bm=False, dram_size="4MB") as client:
        assert_only_metadata(client)


def test_a_metadata_client_sees_what_others_store(store: Store) -> None:
    client = open_store(init_bm=False, dram_size="4MB")
    assert sum(segment.capacity for segment in pool().segments()) == 8 * MIB
    assert store.put_batch(["a", "b"], [b"1", b"2"]) == 0
    assert client.batch_is_exist(["a", "x"]) == [1, 0]
    assert str(client.get_key_info("a")) == str(store.get_key_info("a"))
    assert client.remove("a") == 0
    assert store.batch_is_exist(["a", "b"]) == [0, 1]
    assert client.close() == 0
    assert store.get("b") == b"2"


def test_the_memory_comes_with_the_instance_that_brings_it() -> None:
    client = open_store(init_bm=False, dram_size="4MB")
    second = open_store(init_bm=False)
    assert_only_metadata(second)
    bringer = open_store(dram_size="2MB")
    assert [segment.capacity for segment in pool().segments()] == [2 * MIB]
    assert bringer.put("k", b"data") == 0
    assert client.is_exist("k") == second.is_exist("k") == 1
    assert client.get("k") == b"data"
    late = open_store(dram_size="2MB")
    assert [segment.capacity for segment in pool().segments()] == [2 * MIB]
    assert [store.close() for store in (bringer, late, second)] == [0, 0, 0]
    assert client.get("k") == b"data", "it is the process's, as long as anybody uses it"
    assert client.close() == 0
    assert _process.current.store is None


# Threads


def in_threads(count: int, call: Callable[[int], Any]) -> list[Any]:
    """What a call answers in each of as many threads, which begin together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait(20)
        return call(number)

    with ThreadPoolExecutor(count) as executor:
        return list(executor.map(run, range(count)))


def test_threads_may_open_and_close_instances_at_once() -> None:
    def use(number: int) -> set[Any]:
        answers: set[Any] = set()
        for round_ in range(30):
            store, key = Store(), f"{number}/{round_}"
            # All keys of all threads find room, should the store never be closed in between.
            answers |= {store.setup(local_config(dram_size="4MB")), store.init(0), store.put(key, b"data")}
            answers |= {store.get(key), store.close()}
        return answers

    assert in_threads(8, use) == [{0, b"data"}] * 8
    assert _process.current.store is None


def test_threads_that_put_one_key_leave_one_value(store: Store) -> None:
    for round_ in range(30):
        key = f"k{round_}"
        codes = in_threads(4, lambda number, key=key: store.put(key, bytes([number]) * 5000))  # type: ignore[misc]
        assert codes == [0] * 4
        value = store.get(key)
        assert value in [bytes([number]) * 5000 for number in range(4)]


def test_threads_that_allocate_one_key_get_one_address(store: Store) -> None:
    for round_ in range(30):
        key = f"k{round_}"
        answers = in_threads(4, lambda _, key=key: store.batch_alloc([key], [5000]))  # type: ignore[misc]
        assert len({address for (address,) in answers}) == 1 and answers[0] != [0]
        finished = in_threads(4, lambda _, key=key: store.batch_write_finish([key], [0]))  # type: ignore[misc]
        assert [0] in finished
        assert store.is_exist(key) == 1


def test_threads_that_evict_each_others_objects_never_get_wrong_bytes() -> None:
    def use(number: int) -> int:
        out = Memory(20_000)
        for round_ in range(150):
            # A key that is there may go between its allocation and its finish, so those are new.
            name = f"{number}/{round_ % 40}" if round_ % 3 else f"{number}/{round_}/new"
            content = name.encode().ljust(20_000, b".")
            if round_ % 3:
                assert store.put(name, content) == 0
            else:
                (address,) = store.batch_alloc([name], [len(content)])
                assert write(store, address, content) == 0
                assert store.batch_write_finish([name], [0]) == [0]
            keys = [f"{other}/{round_ % 40}" for other in range(4)] + [
                f"{other}/{round_ // 3 * 3}/new" for other in range(4)
            ]
            for key, data in zip(keys, store.get_batch(keys)):
                assert data in (b"", key.encode().ljust(20_000, b"."))
            if store.get_into(keys[0], out.address, out.size) == 0:
                assert out.content == keys[0].encode().ljust(20_000, b".")
        return number

    with opened(dram_size="1MB") as store:
        assert in_threads(4, use) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_close_may_come_while_threads_are_in_calls(caplog: pytest.LogCaptureFixture) -> None:
    store, out = Store(), Memory(20_000)
    assert store.setup(local_config(dram_size="1MB", log_level="error")) == 0
    is_over = threading.Event()

    def use(number: int) -> set[Any]:
        answers: set[Any] = set()
        round_ = 0
        while not is_over.is_set():
            round_ += 1
            key, new = f"{number}/{round_ % 7}", f"{number}/{round_}"
            answers |= {store.put(key, bytes(20_000)), store.get_into(key, out.address, out.size), store.is_exist(key)}
            answers |= {
                store.get(key).strip(b"\0"),
                store.get_key_info(key, 0).size(),
                *store.batch_add_lease([key], 1),
            }
            if store.batch_alloc([new], [20_000]) != [0]:
                answers.update(store.batch_write_finish([new], [round_ % 2]))
            answers.add(store.remove(key))
        return answers

    with ThreadPoolExecutor(3) as executor:
        users = [executor.submit(use, number) for number in range(3)]
        for _ in range(60):
            assert store.init(0) == 0
            assert store.close() == 0
        is_over.set()
        answers = set().union(*(user.result() for user in users))
    # A key may be gone with the store that had it, and then the next one may be opened in the middle of a round.
    assert answers <= {0, 1, -1, 20_000, b"", -3019, -3102, -3101, -3004}
    assert caplog.messages == []
    assert _process.current.store is None
    with opened(dram_size="1MB") as store:
        assert pool().stats().reservations == 0
        assert store.batch_write_finish(["0/1"], [0]) == [-3102]


def test_an_allocation_that_a_close_overtakes_is_of_no_other_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store, reserve = open_store(dram_size="1MB"), mmc.Store._reserve_many

    def overtaken(self: mmc.Store, *arguments: Any) -> Any:
        reserved = reserve(self, *arguments)
        assert store.close() == store.init(0) == 0
        return reserved

    with monkeypatch.context() as patch:
        patch.setattr(mmc.Store, "_reserve_many", overtaken)
        assert store.batch_alloc(["lost"], [4]) == [0]
    # In the new store this one is the first, as the lost one was in the old.
    assert all(store.batch_alloc(["new"], [4]))
    assert store.batch_write_finish(["lost"], [0]) == [-3102]
    assert store.is_exist("new") == 0
    assert store.batch_write_finish(["new"], [0]) == [0]
    assert store.close() == 0


# Children


@forks
def test_a_forked_child_has_no_store_and_the_parent_goes_on(store: Store) -> None:
    address = put_in_place(store, "k", b"data")
    assert in_child(lambda: answers_without_a_store(store)) == []
    assert in_child(lambda: (store.close(), store.close(), store.get_local_service_id())) == (0, 0, NO_RANK)
    assert store.get("k") == b"data"
    assert store.get_key_info("k").gva_list() == [address]
    assert store.put("l", b"more") == 0
    other = open_store()
    assert other.get("l") == b"more"
    assert other.close() == 0


@forks
@own_only
def test_a_forked_child_may_have_a_store_of_its_own(store: Store) -> None:
    assert store.put("k", b"parent") == 0
    before = store.batch_alloc(["reserved"], [4])

    def child() -> Any:
        own = open_store(dram_size="1MB")
        answers = [own.is_exist("k"), own.put("k", b"child"), own.get("k"), own.batch_write_finish(["reserved"], [0])]
        # The parent's instance joins the child's store when it is told to.
        answers += [store.get("k"), store.init(0), store.get("k"), own.close(), store.get("k"), store.close()]
        return answers

    assert in_child(child) == [0, 0, b"child", [-3102], b"", 0, b"child", 0, b"child", 0]
    assert in_child(lambda: in_grandchild(store)) == b"grandchild"
    assert store.get("k") == b"parent"
    assert store.batch_alloc(["reserved"], [4]) == before
    assert store.batch_write_finish(["reserved"], [0]) == [0]


def in_grandchild(store: Store) -> Any:
    own = open_store(dram_size="1MB")
    assert own.put("k", b"child") == 0

    def grandchild() -> bytes:
        assert answers_without_a_store(store) == answers_without_a_store(own) == []
        with opened(dram_size="1MB") as another:
            assert another.put("k", b"grandchild") == 0
            return another.get("k")

    answer = in_child(grandchild)
    assert own.get("k") == b"child"
    assert own.close() == 0
    return answer


@forks
def test_a_child_may_be_forked_while_threads_are_in_calls(store: Store) -> None:
    is_over = threading.Event()

    def use(number: int) -> None:
        while not is_over.is_set():
            key = f"k{number}"
            store.put(key, bytes(50_000))
            store.batch_alloc([f"{key}/alloc"], [50_000])
            store.batch_write_finish([f"{key}/alloc"], [0])
            store.remove_batch([key, f"{key}/alloc"])

    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()

    def child() -> Any:
        assert store.put("k", b"data") == -3019
        with opened(dram_size="1MB") as own:
            return own.put("k", b"data"), own.get("k"), own.batch_alloc(["l"], [4]) != [0]

    try:
        for _ in range(10):
            assert in_child(child) == (0, b"data", True)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@forks
@pytest.mark.parametrize("ends", ["sys.exit(0)", "os._exit(0)", "pass"])
def test_a_child_of_os_fork_ends_as_it_likes(ends: str) -> None:
    done = run_program(
        PROLOGUE
        + f"""
assert store.put("k", b"parent") == 0
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    assert store.put("k", b"data") == -3019
    own = open_store()
    assert own.put("k", b"child") == 0 and own.get("k") == b"child"
    print("child", flush=True)
    {ends}
else:
    assert os.waitpid(child, 0) == (child, 0)
    assert store.get("k") == b"parent"
    print("parent")
"""
    )
    assert done.stdout == "child\nparent\n"


# The end of the interpreter

PROLOGUE = """
import os, sys, threading
from memcache_hybrid import DistributedObjectStore, LocalConfig

def open_store():
    config = LocalConfig()
    config.dram_size = "4MB"
    config.log_level = "error"
    store = DistributedObjectStore()
    assert store.setup(config) == 0 and store.init(0) == 0
    return store

store = open_store()
"""
ENDS = {
    "closed": "assert store.close() == 0",
    "open": "assert store.put('k', b'data') == 0",
    "two instances": "other = open_store(); assert other.put('k', b'data') == 0",
    "metadata only": "other = DistributedObjectStore(); assert other.init(0, False) == 0; assert store.close() == 0",
    "allocations": "assert all(store.batch_alloc(['a', 'b'], [4, 4], 1, 60_000))",
    "leases": "assert store.put('k', b'data') == 0 and store.batch_add_lease(['k']) == [0]",
    "in a cycle": "store.cycle = store\nassert store.put('k', b'data') == 0",
    "in a module": "sys.kept = store; import json; json.kept = store",
    "in a thread that is joined": "t = threading.Thread(target=open_store); t.start(); t.join()",
    "closed at exit": "import atexit; atexit.register(store.close)",
    "used at exit": "import atexit; atexit.register(lambda: store.put('k', b'data') and None)",
    "closed in a finalizer": """
class Last:
    def __del__(self, close=store.close):
        close()
last = Last()
""",
}
LOOPS = {
    "puts": "store.put(str(number % 500), value)",
    "gets": "store.get_batch(['0', '1']), store.is_exist('0'), store.get_key_info('0')",
    "allocations": "store.batch_alloc([str(number)], [50_000]); store.batch_write_finish([str(number)], [number % 2])",
    "instances": "open_store().close()",
}


@pytest.mark.parametrize("end", list(ENDS.values()), ids=list(ENDS))
def test_the_interpreter_ends_in_order(end: str) -> None:
    run_program(PROLOGUE + end + "\nprint('end')")


@pytest.mark.parametrize("loop", list(LOOPS.values()), ids=list(LOOPS))
def test_the_interpreter_ends_in_order_while_a_daemon_thread_is_in_a_loop(loop: str) -> None:
    run_program(
        PROLOGUE
        + f"""
value = bytes(50_000)
has_begun = threading.Event()

def use():
    number = 0
    while True:
        {loop}
        number += 1
        if number == 20:
            has_begun.set()

for _ in range(2):
    threading.Thread(target=use, daemon=True).start()
assert has_begun.wait(20)
"""
    )


def test_the_code_of_an_exit_is_kept() -> None:
    run_program(PROLOGUE + "assert store.put('k', b'data') == 0; sys.exit(3)", code=3)
