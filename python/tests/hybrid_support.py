"""What the tests of `memcache_hybrid` share: stores of a size, memory with an address, forked children, ports, waiting."""

from __future__ import annotations

import ctypes
import http.client
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Union

import pytest

import mmc
from memcache_hybrid import DistributedObjectStore, KeyInfo, LocalConfig, ReplicateConfig, _process

MIB = 1 << 20
#: Memory is handed out in units of this many bytes.
UNIT = 4096
NO_RANK = 4294967295
EMPTY_INFO = "loc: type: gva: blobNum:0, size:0"
DIRECTIONS_IN, DIRECTIONS_OUT = (0, 3), (1, 2)

#: A child that is forked from a process with the library's threads in it is what these tests are about.
forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


class Memory:
    """Bytes with an address, as an engine has them in its tensors."""

    def __init__(self, content: Union[bytes, int]) -> None:
        """`content`: the bytes, or how many zeros."""
        content = bytes(content)
        self.size = len(content)
        self._bytes = ctypes.create_string_buffer(content, max(self.size, 1))
        self.address = ctypes.addressof(self._bytes)

    @property
    def content(self) -> bytes:
        return self._bytes.raw[: self.size]


def pieces(content: bytes, sizes: Sequence[int]) -> list[Memory]:
    """Content that lies in several places."""
    assert sum(sizes) == len(content)
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [Memory(content[end - size : end]) for end, size in zip(ends, sizes)]


def addresses_of(memories: Sequence[Memory]) -> list[int]:
    return [memory.address for memory in memories]


def sizes_of(memories: Sequence[Memory]) -> list[int]:
    return [memory.size for memory in memories]


def joined(memories: Sequence[Memory]) -> bytes:
    return b"".join(memory.content for memory in memories)


def local_config(**attributes: Any) -> LocalConfig:
    config = LocalConfig()
    for name, value in attributes.items():
        setattr(config, name, value)
    return config


def open_store(*, init_bm: bool = True, **attributes: Any) -> DistributedObjectStore:
    """An initialised instance; `attributes` are those of its config."""
    store = DistributedObjectStore()
    assert store.setup(local_config(**attributes)) == 0
    assert store.init(0, init_bm) == 0
    return store


@contextmanager
def opened(**settings: Any) -> Iterator[DistributedObjectStore]:
    """An initialised instance that is closed in the end, and with it the process's store: nobody else may have kept it."""
    store = open_store(**settings)
    try:
        yield store
    finally:
        assert store.close() == 0
        assert _process.current.store is None


def store_fixture(**settings: Any) -> Any:
    """A fixture of an initialised instance, empty, as `opened` has it: with a store of its process, and once more attached to another's that has no memory."""

    @pytest.fixture(params=["own", pytest.param("attached", marks=pytest.mark.slow)])
    def fixture(request: pytest.FixtureRequest) -> Iterator[DistributedObjectStore]:
        with ExitStack() as owner:
            if request.param == "attached":
                owner.enter_context(mmc.Store(None, share=os.environ["MMC_SHARE"]))
            with opened(**settings) as store:
                yield store

    return fixture


def pool() -> mmc.Store:
    """The process's store, for what the interface has no call for."""
    assert _process.current.store is not None
    return _process.current.store


def replicas(count: int, ranks: Sequence[int] = ()) -> ReplicateConfig:
    config = ReplicateConfig()
    config.replicaNum = count
    config.preferredLocalServiceIDs = list(ranks)
    return config


def calls_without_a_store() -> list[tuple[str, tuple[Any, ...], Any]]:
    """Every call of an instance that has no store, with good arguments, and its answer; a `KeyInfo` as its text."""
    memory = _KEPT.address
    one, many = ("k", memory, 4), (["k", "l"], [memory, memory], [4, 4])
    one_layers, many_layers = ("k", [memory], [4]), (["k", "l"], [[memory], [memory]], [[4], [4]])
    keys = ["k", "l"]
    return [
        ("get_local_service_id", (), NO_RANK),
        ("put", ("k", b"data"), -3019),
        ("put_batch", (keys, [b"data", b"data"]), -3019),
        ("put_from", one, -3019),
        ("batch_put_from", many, [-3019, -3019]),
        ("put_from_layers", one_layers, -3019),
        ("batch_put_from_layers", many_layers, [-3019, -3019]),
        ("get", ("k",), b""),
        ("get_batch", (keys,), [b"", b""]),
        ("get_into", one, -3019),
        ("batch_get_into", many, [-3019, -3019]),
        ("get_into_layers", one_layers, -3019),
        ("batch_get_into_layers", many_layers, [-3019, -3019]),
        ("is_exist", ("k",), -3019),
        ("batch_is_exist", (keys,), [-3019, -3019]),
        ("get_key_info", ("k",), EMPTY_INFO),
        ("batch_get_key_info", (keys,), [EMPTY_INFO, EMPTY_INFO]),
        ("remove", ("k",), -3019),
        ("remove_batch", (keys,), [-3019, -3019]),
        ("remove_all", (), -3019),
        ("register_buffer", (memory, 4), -3019),
        ("unregister_buffer", (memory, 4), -3019),
        ("batch_alloc", (keys, [4, 4]), [0, 0]),
        ("batch_copy", ([UNIT], [memory], [4]), -3019),
        ("batch_copy_layers", ([UNIT], [[memory]], [[4]]), -3019),
        ("batch_write_finish", (keys, [0, 0]), [-3019, -3019]),
        ("batch_add_lease", (keys,), [-3019, -3019]),
        ("batch_remove_lease", (keys,), -3019),
        ("evict", (keys,), -3019),
        ("prefetch", (keys,), -3019),
    ]


#: What the arguments of `calls_without_a_store` point to.
_KEPT = Memory(4)


def in_words(answer: Any) -> Any:
    """An answer with each `KeyInfo` as its text."""
    if isinstance(answer, list):
        return [in_words(one) for one in answer]
    return str(answer) if isinstance(answer, KeyInfo) else answer


def answers_without_a_store(store: DistributedObjectStore) -> list[tuple[str, Any, Any]]:
    """The calls that do not answer as an instance without a store must: name, answer, what it should have been."""
    answers = [
        (name, in_words(getattr(store, name)(*arguments)), expected)
        for name, arguments, expected in calls_without_a_store()
    ]
    return [(name, answer, expected) for name, answer, expected in answers if answer != expected]


def in_child(call: Callable[[], Any]) -> Any:
    """What a call answers in a forked child, which then ends as it should."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        try:
            sender.send(call())
        except BaseException as error:
            sender.send(repr(error))
            raise

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        assert receiver.poll(30), "the child does not answer"
        answer = receiver.recv()
    finally:
        process.join(30)
        if process.is_alive():
            process.kill()
        receiver.close()
    assert process.exitcode == 0, answer
    return answer


def free_port() -> int:
    """A port that nobody listened at a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def http_get(address: str, path: str) -> tuple[int, str]:
    """Status and body of a GET at "host:port"."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def eventually(is_so: Callable[[], Any], seconds: float = 20) -> Any:
    """Asks until the answer is true, for what only the clock or another process brings about; gives that answer."""
    end = time.monotonic() + seconds
    while not (answer := is_so()):
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.002)
    return answer


def write(store: DistributedObjectStore, address: int, content: bytes, direct: int = 3) -> int:
    data = Memory(content)
    return store.batch_copy([address], [data.address], [data.size], direct)


def read(store: DistributedObjectStore, address: int, size: int, direct: int = 2) -> bytes:
    """The bytes at a global address; `b''` where they can't be read, and then nothing was written."""
    out = Memory(b"#" * size)
    if store.batch_copy([address], [out.address], [size], direct) == 0:
        return out.content
    assert out.content == b"#" * size
    return b""


def put_in_place(store: DistributedObjectStore, key: str, content: bytes) -> int:
    """An object by way of `batch_alloc`; its address."""
    (address,) = store.batch_alloc([key], [len(content)])
    assert write(store, address, content) == 0
    assert store.batch_write_finish([key], [0]) == [0]
    return address
