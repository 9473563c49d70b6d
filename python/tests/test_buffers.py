"""What a buffer may be, how long it is held, and numbers as addresses."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import sys
from typing import Any

import pytest
from conftest import MIB

import mmc
from mmc import Code

np = pytest.importorskip("numpy")


def test_whatever_has_the_buffer_protocol_is_taken(store: mmc.Store) -> None:
    mapped = mmap.mmap(-1, 4096)
    mapped[:5] = b"hello"
    sources: list[tuple[Any, bytes]] = [
        (b"bytes", b"bytes"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"__view__")[2:6], b"view"),
        (array.array("i", [1, 2]), array.array("i", [1, 2]).tobytes()),
        ((ctypes.c_uint16 * 2)(7, 8), bytes((ctypes.c_uint16 * 2)(7, 8))),
        (mapped, b"hello" + bytes(4091)),
        (np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(6, dtype=np.float32).tobytes()),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(6).reshape(2, 3).T.tobytes()),
        (np.float64(1.5), np.float64(1.5).tobytes()),
        (np.zeros(3, dtype="datetime64[s]"), bytes(24)),
    ]
    for number, (source, expected) in enumerate(sources):
        store.put(f"k{number}", source)
        assert store.get(f"k{number}") == expected, source
    keys = [f"k{number}" for number in range(len(sources))]
    batch = [f"batch{number}" for number in range(len(sources))]
    assert store.batch_put(batch, [source for source, _ in sources]) == [Code.OK] * len(sources)
    assert store.batch_get(batch) == store.batch_get(keys)
    mapped.close()


def test_a_get_fills_an_array_in_place(store: mmc.Store) -> None:
    source = np.random.default_rng(1).integers(0, 1 << 16, (61, 128, 8), dtype=np.uint16)
    store.put("k", source)
    for out in (np.empty_like(source), np.empty_like(source).reshape(-1), np.zeros(source.nbytes, np.int8)):
        assert store.get_into("k", out) == source.nbytes
        assert out.tobytes() == source.tobytes()
    layers = list(np.zeros_like(source))
    store.get_into("k", layers)
    assert np.array_equal(np.stack(layers), source)


def test_an_array_that_is_not_contiguous_is_refused(store: mmc.Store) -> None:
    grid = np.arange(16, dtype=np.int32).reshape(4, 4)
    for buffer in (grid[:, 1:3], grid[::2], memoryview(b"abcd")[::2], np.zeros(4, "datetime64[s]")[::2]):
        with pytest.raises(BufferError, match="contiguous"):
            store.put("k", buffer)
        with pytest.raises(BufferError, match="contiguous"):
            store.batch_put(["a", "b"], [b"1", buffer])
    assert store.stats().stored_keys == 0


def test_a_get_needs_a_buffer_that_can_be_written(store: mmc.Store) -> None:
    store.put("k", bytes(8))
    frozen, dates = np.zeros(8, np.uint8), np.zeros(1, "datetime64[s]")
    frozen.flags.writeable = dates.flags.writeable = False
    for buffer in (bytes(8), memoryview(bytearray(8)).toreadonly(), frozen, dates):
        with pytest.raises(BufferError):
            store.get_into("k", buffer)
        with pytest.raises(BufferError):
            store.batch_get_into(["k"], [buffer])


@pytest.mark.parametrize("thing", ["text", 5, None, object(), {"a": 1}], ids=repr)
def test_what_has_no_bytes_is_a_type_error(store: mmc.Store, thing: object) -> None:
    for call in (
        lambda: store.put("k", thing),
        lambda: store.put("k", [b"1", thing]),
        lambda: store.batch_put(["k", "l"], [b"1", thing]),
        lambda: store.get_into("k", thing),
    ):
        with pytest.raises(TypeError):
            call()
    assert store.stats().stored_keys == 0


class Tensor:
    """As much of a torch tensor as is looked at, over a numpy array."""

    def __init__(self, values: Any, device: str = "cpu") -> None:
        self.values = values
        self.shape = values.shape
        self.device = type("device", (), {"type": device, "__str__": lambda _: f"{device}:0"})()

    def data_ptr(self) -> int:
        return int(self.values.__array_interface__["data"][0])

    def element_size(self) -> int:
        return int(self.values.itemsize)

    def numel(self) -> int:
        return int(self.values.size)

    def stride(self) -> tuple[int, ...]:
        return tuple(stride // self.values.itemsize for stride in self.values.strides)


def test_a_tensor_is_taken_by_its_address(store: mmc.Store) -> None:
    values = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    store.put("k", Tensor(values))
    assert store.get("k") == values.tobytes()
    store.put("permuted", Tensor(values.transpose(1, 2, 0)))
    assert store.get("permuted") == values.tobytes()
    out = np.zeros_like(values)
    assert store.batch_get_into(["k", "permuted"], [Tensor(out), bytearray(48)]) == [Code.OK, Code.OK]
    assert np.array_equal(out, values)
    with pytest.raises(BufferError, match="contiguous"):
        store.put("sliced", Tensor(values[:, ::2]))
    with pytest.raises(BufferError, match="cuda:0"):
        store.put("device", Tensor(values, "cuda"))


def test_torch_tensors_of_the_cpu_are_taken(store: mmc.Store) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.bfloat16).reshape(4, 6)
    store.put("k", tensor)
    out = torch.zeros_like(tensor)
    store.get_into("k", out)
    assert torch.equal(out, tensor)
    with pytest.raises(BufferError, match="contiguous"):
        store.put("sliced", tensor[:, ::2])


def test_a_buffer_is_given_back_after_the_call(store: mmc.Store) -> None:
    """Neither an export nor a reference is left, whether the call succeeds or fails."""
    data = bytearray(64)
    values = np.zeros(64, np.uint8)
    calls = [
        lambda: store.put("k", data),
        lambda: store.put("k", data),
        lambda: store.get_into("k", data),
        lambda: store.get_into("x", data),
        lambda: store.batch_put(["a", "b"], [data, values]),
        lambda: store.batch_put(["a", "b", "c"], [data, values, "wrong"]),
        lambda: store.batch_put(["a"], [data, values]),
        lambda: store.batch_get_into(["a", "b"], [data, values]),
        lambda: store.batch_get_into(["a", "b"], [data, b"read-only"]),
    ]
    before = sys.getrefcount(data), sys.getrefcount(values)
    for call in calls:
        try:
            call()
        except (mmc.Error, TypeError, BufferError):
            pass
        gc.collect()
        data.append(0)
        data.pop()
        assert (sys.getrefcount(data), sys.getrefcount(values)) == before


def test_addresses_are_lists_arrays_or_numpy(store: mmc.Store) -> None:
    blocks = np.random.default_rng(2).integers(0, 256, (4, 3, 64), dtype=np.uint8)
    addresses = blocks.__array_interface__["data"][0] + np.arange(12, dtype=np.uint64).reshape(4, 3) * 64
    sizes = np.full((4, 3), 64, np.int64)
    forms: list[tuple[Any, Any]] = [
        (addresses, sizes),
        (addresses.tolist(), sizes.tolist()),
        (list(addresses), [array.array("Q", [64] * 3)] * 4),
        ([array.array("Q", row.tolist()) for row in addresses], tuple(map(tuple, sizes.tolist()))),
        (addresses.astype(np.int64), sizes.astype(np.uint64)),
    ]
    for number, (given, lengths) in enumerate(forms):
        keys = [f"{number}/{block}" for block in range(4)]
        assert store.batch_put_from(keys, given, lengths) == [Code.OK] * 4
        assert store.batch_get(keys) == [block.tobytes() for block in blocks]
        out = np.zeros_like(blocks)
        places = out.__array_interface__["data"][0] + np.arange(4, dtype=np.uint64) * 192
        assert store.batch_get_to(keys, places, [192] * 4) == [Code.OK] * 4
        assert np.array_equal(out, blocks)
    flat = np.ascontiguousarray(addresses[:, 0])
    assert store.batch_put_from(["f0", "f1", "f2", "f3"], flat, array.array("Q", [64] * 4)) == [Code.OK] * 4
    assert store.get("f3") == blocks[3, 0].tobytes()


def test_layers_may_differ_from_key_to_key(store: mmc.Store) -> None:
    data = np.arange(64, dtype=np.uint8)
    base = data.__array_interface__["data"][0]
    assert store.batch_put_from(["a", "b"], [[base], [base + 8, base + 32]], [[4], [8, 16]]) == [Code.OK, Code.OK]
    assert store.get("b") == bytes([*range(8, 16), *range(32, 48)])
    assert store.batch_get_to(["b"], [[base, base + 1]], [[1, 23]]) == [Code.OK]
    store.put_from("c", base, 10)
    assert store.get_to("c", [base, base + 5], [5, 5]) == 10
    assert store.get_to("c", base, 3, up_to=True) == 10


@pytest.mark.parametrize(
    ("addresses", "error"),
    [
        ([-1], ValueError),
        ([1 << 64], ValueError),
        (["a"], TypeError),
        ([1.5], TypeError),
        ([[1], 2], ValueError),
        (np.zeros(1, np.int32), ValueError),
        (np.zeros((1, 1, 1), np.uint64), ValueError),
        (np.zeros(4, np.uint64)[::2], ValueError),
        (5, TypeError),
    ],
    ids=repr,
)
def test_what_are_no_addresses_is_refused(store: mmc.Store, addresses: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        store.batch_put_from(["k"], addresses, [1])


def test_a_null_pointer_or_no_bytes_fail_that_key_only(store: mmc.Store) -> None:
    data = (ctypes.c_char * 8)()
    here = ctypes.addressof(data)
    assert store.batch_put_from(["a", "b", "c"], [here, 0, here], [8, 8, 0]) == [
        Code.OK,
        Code.INVALID_PARAM,
        Code.INVALID_PARAM,
    ]


def test_a_large_object_goes_both_ways(store: mmc.Store) -> None:
    block = np.random.default_rng(3).integers(0, 256, 16 * MIB, dtype=np.uint8)
    store.put("k", block)
    assert store.get("k") == block.tobytes()
