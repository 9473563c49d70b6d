"""SSD segments and moves between media, from Python."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from hybrid_support import opened, pool

import mmc
from mmc import Code

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[mmc.Store]:
    """A store of 4 MiB of memory and 64 MiB of a file, that moves only what it is told to."""
    with mmc.Store(dram=4 * MIB, ssd=tmp_path / "ssd", ssd_size="64MiB", watermark_high=100) as store:
        yield store


def media(store: mmc.Store, key: str) -> list[str]:
    return sorted(blob.medium for blob in store.query(key, peek=True).blobs)


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.002)


def test_objects_move_when_they_are_told_to(store: mmc.Store) -> None:
    assert [(segment.medium, segment.capacity) for segment in store.segments()] == [
        ("DRAM", 4 * MIB),
        ("SSD", 64 * MIB),
    ]
    store.put("a", b"a" * 100_000)
    store.put("b", b"b" * 5)
    assert store.evict(["a", "b", "nobody"]) == [Code.OK, Code.OK, Code.NOT_FOUND]
    assert media(store, "a") == media(store, "b") == ["SSD"]
    assert store.batch_get(["a", "b"]) == [b"a" * 100_000, b"b" * 5]
    assert store.prefetch(["a"]) == [Code.OK]
    assert media(store, "a") == ["DRAM", "SSD"]
    assert store.get("a") == b"a" * 100_000
    statistics = store.stats()
    assert (statistics.demotions, statistics.promotions, statistics.get_hits_ssd) == (2, 1, 2)
    assert statistics.moved_bytes == 200_005
    with store.pin("a"):
        assert store.evict(["a"]) == [Code.BUSY]
    assert store.evict(["a"]) == [Code.OK]


@pytest.mark.parametrize("way", [("SSD", "DRAM"), ("DRAM", "DRAM"), ("DRAM", "TAPE")])
def test_a_way_that_is_none_is_refused(store: mmc.Store, way: tuple[str, str]) -> None:
    with pytest.raises(mmc.InvalidParam):
        store.evict(["a"], *way)
    with pytest.raises(mmc.InvalidParam):
        store.prefetch(["a"], *reversed(way))


def test_an_object_can_be_put_on_ssd_and_is_not_to_be_looked_at_there(store: mmc.Store) -> None:
    store.put("k", b"k" * 9000, medium="SSD")
    assert media(store, "k") == ["SSD"]
    assert store.get("k") == b"k" * 9000
    with pytest.raises(mmc.Unsupported, match="file"), store.pin("k"):
        pass
    with pytest.raises(mmc.Unsupported, match="SSD"), store.reserve("r", 10, medium="SSD"):
        pass
    assert not store.exists("r")


def test_what_does_not_fit_memory_is_on_ssd(tmp_path: Path) -> None:
    with mmc.Store(dram=4 * MIB, ssd=tmp_path / "ssd", ssd_size=64 * MIB, watermark_high=80, watermark_low=50) as store:
        for number in range(400):
            store.put(f"{number}", number.to_bytes(4, "little") * (8 * KIB))
            wait_until("there is room", lambda: store.segments()[0].allocated <= 3.5 * MIB)
        assert all(store.get(f"{number}") == number.to_bytes(4, "little") * (8 * KIB) for number in range(400))
        assert store.stats().spill_drops == 0
        assert store.stats().get_hits_ssd > 200


def test_what_rots_in_memory_is_found_when_that_is_asked_for() -> None:
    with mmc.Store(dram=4 * MIB, verify_dram=True) as store:
        store.put("k", b"k" * 9000)
        assert store.get("k") == b"k" * 9000
        with store.pin("k") as view:
            address = store.query("k").blobs[0].address
            assert len(view) == 9000 and address
        assert store.stats().rotten_objects == 0


def test_a_file_is_one_segments_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "ssd"
    with mmc.Store(dram=None) as store:
        address = store.register_segment("SSD", capacity="1MiB", path=path)
        assert path.stat().st_size == MIB
        with pytest.raises(mmc.InvalidParam, match="another segment's"):
            store.register_segment("SSD", capacity="1MiB", path=path)
        with pytest.raises(mmc.InvalidParam, match="only SSD has a file"):
            store.register_segment("DRAM", capacity="1MiB", path=path)
        store.put("k", b"k")
        assert store.get("k") == b"k"
        store.unregister_segment(address)
        assert not store.exists("k")
    assert path.exists()
    with pytest.raises(mmc.InvalidParam, match="must have the segment's"):
        mmc.Store(dram=None, ssd=path, ssd_size=2 * MIB)
    with pytest.raises(mmc.InvalidParam, match="ssd_size"):
        mmc.Store(dram=None, ssd=path)


def test_the_drop_in_moves_objects_to_a_disk_and_back(tmp_path: Path) -> None:
    with opened(dram_size="8MB") as store:
        assert store.put("k", b"data") == 0
        pool().register_segment("SSD", capacity=MIB, path=tmp_path / "ssd")
        assert store.evict(["k"]) == 0
        assert store.get_key_info("k").type_list() == [2]
        assert store.get("k") == b"data"
        assert store.prefetch(["k"]) == 0
        assert sorted(store.get_key_info("k").type_list()) == [1, 2]
        assert store.evict(["k", "missing"]) == store.prefetch(["missing"]) == -3102
        for segment in pool().segments():
            if segment.medium == "SSD":
                pool().unregister_segment(segment.address)
