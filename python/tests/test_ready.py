"""Calls of one object go straight where all is plain, and the general way where it is not: both answer the same, and neither keeps anything."""

from __future__ import annotations

import array
import ctypes
import mmap
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import MIB, run_program
from hypothesis import given
from hypothesis import strategies as st
from test_buffers import Tensor

import mmc
from mmc import Code, _native, _ready

np = pytest.importorskip("numpy")


class Text(str):
    """A `str` that would be encoded to something else."""

    def encode(self, *_: Any) -> bytes:
        return b"something else"


class Name(bytes):
    pass


class Liar(bytearray):
    """More bytes than there are, for who asks the object and not its buffer."""

    nbytes = 1 << 20

    def __len__(self) -> int:
        return 1 << 20


class Blob(bytes):
    def __len__(self) -> int:
        return 1 << 20


def released() -> memoryview:
    view = memoryview(bytearray(8))
    view.release()
    return view


def frozen(values: Any) -> Any:
    values.flags.writeable = False
    return values


BUFFERS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"12345678",
    "no bytes": lambda: b"",
    "bytes of a subclass": lambda: Blob(b"12345678"),
    "bytearray": lambda: bytearray(b"12345678"),
    "empty bytearray": bytearray,
    "bytearray that lies": lambda: Liar(b"12345678"),
    "short bytearray": lambda: bytearray(7),
    "long bytearray": lambda: bytearray(9),
    "view": lambda: memoryview(bytearray(b"12345678")),
    "view of a part": lambda: memoryview(bytearray(b"-12345678-"))[1:9],
    "view of words": lambda: memoryview(bytearray(b"12345678")).cast("I"),
    "view of two dimensions": lambda: memoryview(bytearray(b"12345678")).cast("B", (2, 4)),
    "view with gaps": lambda: memoryview(bytearray(16))[::2],
    "read-only view": lambda: memoryview(b"12345678"),
    "released view": released,
    "array": lambda: array.array("H", b"12345678"),
    "array of ctypes": lambda: (ctypes.c_char * 8)(*b"12345678"),
    "map": lambda: mmap.mmap(-1, 8),
    "numpy": lambda: np.arange(4, dtype=np.uint16),
    "numpy in Fortran order": lambda: np.asfortranarray(np.arange(4, dtype=np.uint16).reshape(2, 2)),
    "numpy with gaps": lambda: np.zeros(16, np.uint8)[::2],
    "numpy read-only": lambda: frozen(np.arange(8, dtype=np.uint8)),
    "numpy of no dimension": lambda: np.zeros((), np.uint64),
    "numpy of no elements": lambda: np.zeros((4, 0), np.uint8),
    "numpy of dates": lambda: np.zeros(1, "datetime64[s]"),
    "numpy scalar": lambda: np.float64(1.5),
    "tensor": lambda: Tensor(np.arange(4, dtype=np.uint16)),
    "tensor of a device": lambda: Tensor(np.arange(4, dtype=np.uint16), "cuda"),
    "list": lambda: [b"1234", bytearray(b"5678")],
    "tuple of one": lambda: (bytearray(b"12345678"),),
    "empty list": list,
    "text": lambda: "12345678",
    "number": lambda: 8,
    "nothing": lambda: None,
}
KEYS: list[Any] = [
    "k",
    "schlüssel/块",
    b"k",
    Text("k"),
    Name(b"k"),
    "k" * 256,
    "",
    "k" * 257,
    "a\nb",
    b"\xff",
    "\ud800",
]
KEYS += [1, None, bytearray(b"k"), ["k"]]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class and the words of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def content(buffer: Any) -> Any:
    """The bytes of a buffer, to see whether it was written."""
    if isinstance(buffer, (list, tuple)):
        return list(map(content, buffer))
    buffer = buffer.values if isinstance(buffer, Tensor) else buffer
    return outcome(lambda: memoryview(buffer).tobytes())


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{type(key).__name__} {key!a:.20}")
@pytest.mark.parametrize("kind", BUFFERS)
def test_both_ways_answer_the_same(store: mmc.Store, kind: str, key: Any) -> None:
    """A stream means nothing to memory that has no copy callback, and asks for the general way."""
    make = BUFFERS[kind]
    answers = []
    for ways in ({}, {"stream": 0}):
        source, out, peeked = make(), make(), make()
        store.put("there", b"12345678")
        store.remove_all()
        put = outcome(lambda source=source, ways=ways: store.put(key, source, **ways))
        stored = outcome(lambda ways=ways: store.get(key, **ways))
        again = outcome(lambda source=source, ways=ways: store.put(key, source, **ways))
        store.remove_all()
        outcome(lambda: store.put(key, b"abcdefgh"))
        got = outcome(lambda out=out, ways=ways: store.get_into(key, out, **ways))
        also = outcome(lambda peeked=peeked, ways=ways: store.get_into(key, peeked, peek=True, **ways))
        answers.append((put, stored, again, got, content(out), also, content(peeked)))
    assert answers[0] == answers[1]


PIECES: list[Any] = [0, 1, 7, 8, 9, -1, 1 << 64, True, 8.0, "8", None, [8], [4, 4], (8,), [], np.uint64(8)]


@pytest.mark.parametrize("size", PIECES, ids=repr)
@pytest.mark.parametrize("place", ["address", "list", "numpy", "null", "negative", "beyond", "text"])
def test_both_ways_answer_the_same_of_addresses(store: mmc.Store, place: str, size: Any) -> None:
    answers = []
    for ways in ({}, {"stream": 0}):
        memory = ctypes.create_string_buffer(b"12345678", 16)
        start = ctypes.addressof(memory)
        addresses: dict[str, Any] = {
            "address": start,
            "list": [start, start + 4],
            "numpy": np.uint64(start),
            "null": 0,
            "negative": -start,
            "beyond": start + (1 << 64),
            "text": str(start),
        }
        address = addresses[place]
        store.remove_all()
        put = outcome(lambda ways=ways, address=address: store.put_from("k", address, size, **ways))
        stored = outcome(lambda: store.get("k"))
        store.remove_all()
        store.put("k", b"abcdefgh")
        got = outcome(lambda ways=ways, address=address: store.get_to("k", address, size, **ways))
        answers.append((put, stored, got, memory.raw))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("peek", [False, True])
def test_every_call_peeks_or_does_not(peek: bool) -> None:
    """In a full pool the oldest goes, unless it was used meanwhile; a peek is no use."""
    out = ctypes.create_string_buffer(MIB // 4)
    looks: list[Callable[[mmc.Store], object]] = [
        lambda store: store.exists("0", peek=peek),
        lambda store: store.get("0", peek=peek),
        lambda store: store.get_into("0", out, peek=peek),
        lambda store: store.get_to("0", ctypes.addressof(out), len(out), peek=peek),
    ]
    for look in looks:
        with mmc.Store(dram=MIB, watermark_high=100) as store:
            for number in range(4):
                store.put(str(number), bytes(MIB // 4))
            look(store)
            store.put("new", bytes(MIB // 4))
            assert store.exists("0", peek=True) is not peek
            assert store.exists("1", peek=True) is peek


@pytest.mark.parametrize("peek", ["yes", 1.0, None, []])
def test_what_is_no_flag_reaches_no_function(store: mmc.Store, peek: Any) -> None:
    store.put("k", bytes(8))
    out = bytearray(b"unchanged")
    place = ctypes.addressof(ctypes.c_char.from_buffer(out))
    for call in (
        lambda: store.exists("k", peek=peek),
        lambda: store.get("k", peek=peek),
        lambda: store.get_into("k", out, peek=peek),
        lambda: store.get_to("k", place, 8, peek=peek),
    ):
        with pytest.raises((TypeError, ctypes.ArgumentError, mmc.InvalidParam)):
            call()
    assert out == b"unchanged"


@pytest.mark.parametrize("flags", [4, 5, -1])
def test_a_number_that_is_no_flag_is_an_invalid_param(store: mmc.Store, flags: Any) -> None:
    store.put("k", bytes(8))
    for call in (store.exists, store.get, lambda key, peek: store.get_into(key, bytearray(8), peek=peek)):
        with pytest.raises(mmc.InvalidParam, match="flags"):
            call("k", peek=flags)


@pytest.fixture
def structs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keys as structs, as on a machine whose ABI is not known to take them as words."""
    for name in ("put", "get", "exist", "query", "remove"):
        monkeypatch.setattr(_ready, name, _ready.function_of(f"mmc_{name}", has_keys_as_words=False))
    yield


@pytest.mark.usefixtures("structs")
def test_keys_may_go_as_structs(store: mmc.Store) -> None:
    for number in range(1, 257):
        store.put("k" * number, number.to_bytes(2, "big"))
    out = bytearray(2)
    for number in range(1, 257):
        key = "k" * number
        assert store.exists(key) and store.get(key) == number.to_bytes(2, "big")
        assert store.get_into(key, out) == 2 and out == number.to_bytes(2, "big")
        store.remove(key)
        assert key not in store
    for key in ("", "k" * 257):
        with pytest.raises(mmc.InvalidParam, match=f"key of {len(key)} bytes"):
            store.exists(key)


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300)))
def test_a_key_is_the_same_as_words_and_as_a_struct(key: Any) -> None:
    name = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    calls = [_ready.exist, _ready.function_of("mmc_exist", has_keys_as_words=False)]
    with mmc.Store(dram=None) as store:
        answers = [
            (call(store._ready_handle, name, _ready.SIZES[len(name)], 0), _native.last_error()) for call in calls
        ]
        prototyped = _native.library.mmc_exist(store._handle, _native.Key(name, len(name)), 0)
    assert answers[0] == answers[1] and answers[0][0] == prototyped


def test_sizes_are_kept_up_to_a_limit_and_right_beyond_it(store: mmc.Store) -> None:
    memory = bytes(range(256)) * 16
    for size in range(1, 4096, 3):
        store.put("k", memory[:size])
        assert store.query("k").size == size and store.get("k") == memory[:size]
        store.remove("k")
    assert len(_ready.SIZES) <= 1024


def test_a_buffer_that_lies_is_never_written_beyond_its_end(store: mmc.Store) -> None:
    store.put("k", bytes(MIB))
    for buffer in (Liar(8), np.zeros(8, np.uint8).view(type("Array", (np.ndarray,), {"nbytes": MIB}))):
        with pytest.raises(mmc.SizeMismatch):
            store.get_into("k", buffer)


def test_an_exception_that_is_kept_holds_no_buffer(store: mmc.Store) -> None:
    store.put("k", b"12345678")
    data, array_ = bytearray(4), np.zeros(4, np.uint8)
    calls: list[Callable[[Any], object]] = [
        lambda buffer: store.put("k", buffer),
        lambda buffer: store.put("", buffer),
        lambda buffer: store.put("\ud800", buffer),
        lambda buffer: store.put(1, buffer),  # type: ignore[arg-type]
        lambda buffer: store.get_into("k", buffer),
        lambda buffer: store.get_into("x", buffer),
        lambda buffer: store.get_into(1, buffer),  # type: ignore[arg-type]
        lambda buffer: store.get_into("k", buffer, peek="no"),  # type: ignore[arg-type]
    ]
    kept = []
    before = sys.getrefcount(data), sys.getrefcount(array_)
    for call in calls:
        for buffer in (data, array_):
            with pytest.raises(Exception) as caught:
                call(buffer)
            error = caught.value
            kept.append(error)
            # What pytest adds is not looked at: an export is what keeps a bytearray from growing.
            data.append(0)
            data.pop()
    assert len(kept) == 2 * len(calls)
    kept.clear()
    del caught, error, buffer
    assert (sys.getrefcount(data), sys.getrefcount(array_)) == before


def test_calls_leave_no_references(store: mmc.Store) -> None:
    # Made here, so that nobody else has them.
    key, data, out = "".join(["k", "ey"]), bytes([7]) * 4096, bytearray(4096)
    view = memoryview(out)

    def use() -> None:
        store.put(key, data)
        store.exists(key)
        assert key in store
        store.get_into(key, out)
        store.get_into(key, view)
        store.get(key)
        store.remove(key)
        for call in (store.remove, store.get, lambda key: store.get_into(key, out)):
            with pytest.raises(mmc.NotFound):
                call(key)

    use()
    before = [sys.getrefcount(thing) for thing in (key, data, out, view, store._ready_handle)]
    for _ in range(100):
        use()
    assert [sys.getrefcount(thing) for thing in (key, data, out, view, store._ready_handle)] == before


def test_calls_leave_no_memory() -> None:
    program = """
import gc, tracemalloc, mmc
with mmc.Store(dram=1 << 24) as store:
    out = bytearray(4096)
    def use():
        for number in range(200):
            key = f"key/{number}"
            store.put(key, memoryview(out))
            store.get_into(key, out)
            store.get(key)
            store.exists(key)
            store.remove(key)
            try:
                store.get_into(key, out)
            except mmc.NotFound:
                pass
    use()
    tracemalloc.start()
    use()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10):
        use()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    # The least object that Python has, for each of the 2000 rounds, would be twice as much; the interpreter's own caches take some.
    assert grown < 8 * 2000, grown
"""
    run_program(program)


class Device:
    """Memory behind a copy callback, which does something while a call is inside of it."""

    def __init__(self, store: mmc.Store) -> None:
        self.memory = ctypes.create_string_buffer(MIB + 4096)
        self.base = -(-ctypes.addressof(self.memory) // 4096) * 4096
        self.meanwhile: Callable[[], object] = lambda: None
        store.register_segment("HBM", base=self.base, capacity=MIB, copy=self.copy)

    def copy(self, operations: list[mmc.CopyOperation], _to_segment: bool, _stream: Any) -> None:
        self.meanwhile()
        for source, destination, length in operations:
            ctypes.memmove(destination, source, length)


@pytest.fixture
def on_device() -> Iterator[tuple[mmc.Store, Device]]:
    with mmc.Store(dram=None) as store:
        yield store, Device(store)
        store.remove_all()


def test_a_buffer_is_held_during_the_call(on_device: tuple[mmc.Store, Device]) -> None:
    store, device = on_device
    data, out = bytearray(b"12345678"), bytearray(8)

    def grow(buffer: bytearray) -> None:
        with pytest.raises(BufferError):
            buffer.extend(bytes(MIB))

    device.meanwhile = lambda: grow(data)
    store.put("k", data)
    device.meanwhile = lambda: grow(out)
    assert store.get_into("k", out) == 8 and out == data
    data.extend(out)


def test_a_view_may_be_released_and_a_buffer_forgotten_during_the_call(on_device: tuple[mmc.Store, Device]) -> None:
    store, device = on_device
    view = memoryview(bytearray(b"12345678"))
    filler: list[bytearray] = []

    def release() -> None:
        view.release()
        # Memory that came back too early would be taken now.
        filler.extend(bytearray(8) for _ in range(100))

    device.meanwhile = release
    store.put("k", view)
    device.meanwhile = filler.clear
    assert store.get("k") == b"12345678"
    out = bytearray(8)
    view = memoryview(out)
    device.meanwhile = release
    store.get_into("k", view)
    assert out == b"12345678"


def test_calls_may_be_made_inside_of_a_call(on_device: tuple[mmc.Store, Device]) -> None:
    store, device = on_device

    def others() -> None:
        device.meanwhile = lambda: None
        store.put("inner/with/another/size", bytearray(b"abc"))
        assert store.get("inner/with/another/size") == b"abc"
        store.remove("inner/with/another/size")

    device.meanwhile = others
    store.put("outer", bytearray(b"12345678"))
    device.meanwhile = others
    assert store.get("outer") == b"12345678"
    assert store.list_keys() == ["outer"]


def test_what_a_callback_raises_comes_out_of_the_call_once(on_device: tuple[mmc.Store, Device]) -> None:
    store, device = on_device
    calls = []

    def fail() -> None:
        calls.append(1)
        raise TypeError("of the callback")

    device.meanwhile = fail
    with pytest.raises(TypeError, match="of the callback"):
        store.put("k", bytearray(8))
    assert len(calls) == 1
    device.meanwhile = lambda: None
    store.put("k", bytearray(8))
    device.meanwhile = fail
    with pytest.raises(TypeError, match="of the callback"):
        store.get_into("k", bytearray(8))
    assert len(calls) == 2


CALLS: dict[str, Callable[[mmc.Store, str, bytearray], object]] = {
    "put": lambda store, key, data: store.put(key, data),
    "get_into": lambda store, key, data: store.get_into(key, data),
    "get": lambda store, key, _: store.get(key),
    "exists": lambda store, key, _: store.exists(key),
    "remove": lambda store, key, _: store.remove(key),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_store_closed_under_threads_ends_their_calls(what: str) -> None:
    call = CALLS[what]
    store = mmc.Store(dram=16 * MIB)
    store.put("0", bytes(4096))
    ready = threading.Barrier(5)
    refused: list[BaseException] = []

    def work(name: str) -> None:
        data = bytearray(4096)
        ready.wait()
        while True:
            try:
                call(store, name, data)
            except (mmc.KeyExists, mmc.NotFound):
                pass
            except Exception as error:
                refused.append(error)
                return

    threads = [threading.Thread(target=work, args=(str(name),)) for name in range(4)]
    for thread in threads:
        thread.start()
    ready.wait()
    store.close()
    for thread in threads:
        thread.join(20)
    assert [type(error) for error in refused] == [mmc.NotStarted] * 4
    assert all(error.code == Code.NOT_STARTED for error in refused if isinstance(error, mmc.Error))
