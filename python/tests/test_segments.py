"""Memory that this process brings, and copy callbacks in Python for a device's."""

from __future__ import annotations

import ctypes
from typing import Optional

import pytest
from conftest import MIB, own_only

import mmc
from mmc import Code

np = pytest.importorskip("numpy")


class Device:
    """Memory that only `copy` reaches, as a device's."""

    BASE = 1 << 40

    def __init__(self, capacity: int = MIB) -> None:
        self.memory = np.zeros(capacity, np.uint8)
        self.streams: list[Optional[int]] = []
        self.failure: Optional[BaseException] = None
        self.answer: Optional[int] = None

    def copy(self, operations: list[mmc.CopyOperation], to_segment: bool, stream: Optional[int]) -> Optional[int]:
        self.streams.append(stream)
        if self.failure is not None:
            raise self.failure
        here = self.memory.__array_interface__["data"][0] - self.BASE
        for source, destination, length in operations:
            if to_segment:
                ctypes.memmove(destination + here, source, length)
            else:
                ctypes.memmove(destination, source + here, length)
        return self.answer


@pytest.fixture
def device(store: mmc.Store) -> Device:
    device = Device()
    store.register_segment("HBM", rank=1, base=device.BASE, capacity=MIB, copy=device.copy)
    return device


@own_only
def test_a_device_is_reached_through_its_callback(store: mmc.Store, device: Device) -> None:
    store.put("k", [b"hello ", b"device"], medium="HBM", stream=7)
    assert store.query("k").blobs[0][:2] == ("HBM", 1)
    assert device.memory[:12].tobytes() == b"hello device"
    assert store.get("k", stream=8) == b"hello device"
    assert store.batch_put(["a", "b"], [b"1", b"2"], medium="HBM", stream=9) == [Code.OK, Code.OK]
    assert store.batch_get(["a", "b", "k"]) == [b"1", b"2", b"hello device"]
    assert device.streams == [7, 8, 9, None]
    with pytest.raises(mmc.Unsupported, match="device"), store.pin("k"):
        pass
    assert store.stats().pins == 0


@own_only
def test_a_device_is_written_and_read_by_pool_address(store: mmc.Store, device: Device) -> None:
    data = bytearray(b"abc")
    here = ctypes.addressof(ctypes.c_char.from_buffer(data))
    reservation = store.reserve("k", 6, medium="HBM")
    assert store.write_at([reservation.address, reservation.address + 3], [here, here], [3, 3]) == [Code.OK, Code.OK]
    reservation.commit()
    assert store.get("k") == b"abcabc"


@own_only
@pytest.mark.parametrize("failure", [ValueError("no such stream"), KeyboardInterrupt()], ids=repr)
def test_what_a_callback_raises_is_raised_from_the_call(
    store: mmc.Store, device: Device, failure: BaseException
) -> None:
    store.put("k", b"1", medium="HBM")
    device.failure = failure
    out = bytearray(1)
    for call in (
        lambda: store.put("x", b"1", medium="HBM"),
        lambda: store.batch_put(["x", "y"], [b"1", b"2"], medium="HBM"),
        lambda: store.get("k"),
        lambda: store.get_into("k", out),
        lambda: store.batch_get(["k"]),
        lambda: store.batch_get_into(["k"], [out]),
    ):
        with pytest.raises(type(failure)) as caught:
            call()
        assert caught.value is failure
    device.failure = None
    assert store.get("k") == b"1"
    assert store.batch_exists(["x", "y"]) == [False, False]
    assert store.batch_put(["x"], [b"1"], medium="HBM") == [Code.OK]


@own_only
def test_a_code_of_a_callback_is_the_calls(store: mmc.Store, device: Device) -> None:
    device.answer = -77
    with pytest.raises(mmc.Error, match="-77") as caught:
        store.put("k", b"1", medium="HBM")
    assert caught.value.code == -77
    assert store.batch_put(["a", "b"], [b"1", b"2"], medium="HBM") == [-77, -77]
    assert store.stats().stored_keys == 0


@own_only
def test_a_callback_may_use_the_store(store: mmc.Store) -> None:
    seen = []

    def copy(operations: list[mmc.CopyOperation], to_segment: bool, stream: Optional[int]) -> None:
        seen.append(store.exists("other"))
        store.put(f"from inside {len(seen)}", b"1", medium="DRAM")
        with pytest.raises(mmc.Busy):
            store.close()

    store.register_segment("HBM", base=1 << 40, capacity=MIB, copy=copy)
    store.put("k", b"1", medium="HBM")
    assert seen == [False]
    assert store.exists("from inside 1")


@own_only
def test_a_numpy_array_becomes_a_segment(store: mmc.Store) -> None:
    memory = np.zeros(MIB + 100, np.uint8)
    address = store.register_segment("DRAM", rank=2, memory=memory)
    segment = next(segment for segment in store.segments() if segment.address == address)
    assert segment.rank == 2 and segment.memory is None and MIB - 8192 < segment.capacity <= MIB
    store.put("k", b"in numpy's memory", preferred_ranks=[2])
    assert b"in numpy's memory" in memory.tobytes()
    # It is held: numpy may not move it away.
    with pytest.raises(ValueError, match="resize"):
        memory.resize(2 * MIB)
    with pytest.raises(mmc.InvalidParam, match="overlaps"):
        store.register_segment("DRAM", rank=3, memory=memory)
    pin = store.pin("k")
    with pytest.raises(mmc.Busy):
        store.unregister_segment(address)
    with pytest.raises(mmc.Busy):
        store.close()
    pin.close()
    store.unregister_segment(address)
    assert not store.exists("k")
    memory.resize(2 * MIB)


def test_memory_of_a_closed_store_is_its_owners_again() -> None:
    memory = bytearray(MIB)
    store = mmc.Store(dram=None)
    store.register_segment(memory=memory)
    with pytest.raises(BufferError):
        memory.append(0)
    store.close()
    memory.append(0)


@own_only
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"medium": "TAPE"}, "TAPE"),
        ({"medium": "HBM", "base": 4096, "capacity": 4096}, "callback"),
        ({"capacity": 4097}, "4096"),
        ({"capacity": 0}, "4096"),
        ({"base": 1, "capacity": 4096}, "multiple of 4096"),
        ({"memory": bytearray(100)}, "no whole unit"),
        ({"memory": bytearray(MIB), "capacity": MIB}, "give either"),
        ({"capacity": MIB, "rank": 70000}, "70000"),
        ({"capacity": MIB, "mapping": "paper"}, "paper"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
)
def test_a_wrong_segment_is_named(store: mmc.Store, options: dict[str, object], words: str) -> None:
    with pytest.raises(mmc.InvalidParam, match=words):
        store.register_segment(**options)  # type: ignore[arg-type]
    assert len(store.segments()) == 1


def test_memory_that_can_not_be_written_is_no_segment(store: mmc.Store) -> None:
    with pytest.raises(BufferError):
        store.register_segment(memory=bytes(MIB))


def test_a_memfd_says_so(store: mmc.Store) -> None:
    address = store.register_segment(capacity=MIB, mapping="memfd", huge_pages=False, prefault=True)
    segment = next(segment for segment in store.segments() if segment.address == address)
    assert (segment.memory, segment.pages) == ("memfd", "small")


def test_many_segments_are_listed(store: mmc.Store) -> None:
    for rank in range(1, 21):
        store.register_segment(rank=rank, capacity=4096)
    assert [segment.rank for segment in store.segments()] == list(range(21))
