"""Pins, reservations, leases, and copies by pool address."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from typing import Any

import pytest
from conftest import MIB, own_only

import mmc
from mmc import Code

np = pytest.importorskip("numpy")


def address_of(buffer: object) -> int:
    """Where a writable buffer lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # type: ignore[arg-type]


def test_a_pin_shows_the_bytes_where_they_lie(store: mmc.Store) -> None:
    store.put("k", b"hello")
    with store.pin("k") as view:
        assert bytes(view) == b"hello" and view.readonly and view.format == "B" and view.nbytes == 5
        with pytest.raises(TypeError):
            view[0] = 1
        assert store.stats().pins == 1
    with pytest.raises(ValueError, match="released"):
        view[0]
    assert store.stats().pins == 0


def test_a_pinned_object_outlives_its_removal(store: mmc.Store) -> None:
    store.put("k", b"hello")
    pin = store.pin("k")
    assert (pin.size, pin.address) == (5, store.query("k").blobs[0].address)
    store.remove("k")
    store.put("k", b"other")
    assert bytes(pin.view) == b"hello"
    assert store.stats().allocated == 8192
    pin.close()
    pin.close()
    assert store.stats().allocated == 4096
    with pytest.raises(mmc.NotFound, match="has ended"):
        pin.view[0]


def test_an_array_over_a_pin_keeps_the_bytes(store: mmc.Store) -> None:
    """A view that is still looked at when its `with` ends is no error, and never shows another object's bytes."""
    store.put("k", bytes(range(64)))
    with store.pin("k") as view:
        values, piece = np.frombuffer(view, np.uint8), view[8:16]
    store.remove("k")
    store.batch_put([str(number) for number in range(100)], [b"\xff" * 64] * 100)
    assert values.tobytes() == bytes(range(64)) and bytes(piece) == bytes(range(8, 16))
    del values
    assert store.stats().pins == 1
    piece.release()
    del piece
    assert store.stats().pins == 0


def test_a_forgotten_pin_ends_by_itself(store: mmc.Store) -> None:
    store.put("k", b"hello")
    store.pin("k")
    gc.collect()
    assert store.stats().pins == 0


def test_a_pin_outlives_the_store() -> None:
    store = mmc.Store(dram=MIB)
    store.put("k", b"hello")
    pin = store.pin("k")
    store.close()
    assert bytes(pin.view) == b"hello"
    pin.close()


def test_many_pins_end_in_one_call(store: mmc.Store) -> None:
    store.batch_put(["a", "b", "c"], [b"1", b"2", b"3"])
    pins = store.batch_pin(["a", "x", "b", "c"])
    assert [pin and bytes(pin.view) for pin in pins] == [b"1", None, b"2", b"3"]
    last = pins[3]
    assert last is not None
    values = np.frombuffer(last.view, np.uint8)
    store.batch_unpin(pins)
    assert store.stats().pins == 1
    assert values[0] == ord("3")
    del values
    assert store.stats().pins == 0


def test_what_is_written_in_place_is_there_after_the_with(store: mmc.Store) -> None:
    values = np.arange(1000, dtype=np.float32)
    with store.reserve("k", values.nbytes) as view:
        assert not store.exists("k")
        assert store.query("k", reserved=True).readable is False
        np.copyto(np.frombuffer(view, np.float32), values)
        with pytest.raises(mmc.KeyExists):
            store.put("k", b"1")
    assert store.get("k") == values.tobytes()


def test_an_exception_in_the_with_gives_the_reservation_up(store: mmc.Store) -> None:
    with pytest.raises(KeyError), store.reserve("k", 5) as view:
        view[:] = b"hello"
        raise KeyError
    assert not store.exists("k")
    assert store.stats().allocated == 0


def test_what_can_still_be_written_is_not_published(store: mmc.Store) -> None:
    """An array over a reservation could change what others read, so it can't be committed; nor is its memory given to another."""
    reservation = store.reserve("k", 64)
    values = np.frombuffer(reservation.view, np.uint8)
    with pytest.raises(BufferError, match="still there"):
        reservation.commit()
    piece = reservation.view[8:16]
    del values
    with pytest.raises(BufferError, match="still there"):
        reservation.commit()
    del piece
    reservation.commit()
    assert store.exists("k")

    with pytest.raises(BufferError), store.reserve("l", 64) as view:
        values = np.frombuffer(view, np.uint8)
        del view
    store.batch_put([str(number) for number in range(100)], [bytes(64)] * 100)
    values[:] = 7
    assert store.batch_get([str(number) for number in range(100)]) == [bytes(64)] * 100
    assert store.stats().reservations == 1
    del values
    assert store.stats().reservations == 0


def test_a_reservation_ends_once(store: mmc.Store) -> None:
    reservation = store.reserve("k", 5)
    reservation.commit()
    with pytest.raises(mmc.NotFound):
        reservation.commit()
    reservation.abort()
    assert store.exists("k")


def test_a_forgotten_reservation_is_given_up(store: mmc.Store) -> None:
    store.reserve("k", 5)
    gc.collect()
    assert store.stats().reservations == 0
    store.put("k", b"1")


@own_only
def test_a_reservation_is_late_after_its_term(store: mmc.Store) -> None:
    reservation = store.reserve("k", 5, term_ms=1)
    free = threading.Event()

    def hear(events: list[mmc.Event], dropped: int) -> None:
        free.set()

    store.set_event_callback(hear)
    while not free.is_set():
        # The put that comes after the term gets the key.
        try:
            store.put("k", b"other")
        except mmc.KeyExists:
            continue
        assert free.wait(10)
    with pytest.raises(mmc.Timeout):
        reservation.commit()
    assert store.get("k") == b"other"


def test_a_batch_is_reserved_and_committed(store: mmc.Store) -> None:
    store.put("b", b"1")
    reservations, codes = store.batch_reserve(["a", "b", "c"], [5, 5, 6])
    assert codes == [Code.OK, Code.EXISTS, Code.OK]
    good = [reservation for reservation in reservations if reservation is not None]
    good[0].view[:] = b"hello"
    good[1].view[:] = b"world!"
    values = np.frombuffer(good[1].view, np.uint8)
    with pytest.raises(BufferError):
        store.batch_commit(good)
    del values
    assert bytes(good[0].view) == b"hello"
    assert store.batch_commit(good) == [Code.OK, Code.OK]
    assert store.batch_get(["a", "b", "c"]) == [b"hello", b"1", b"world!"]

    reservations, _ = store.batch_reserve(["d", "e"], np.array([5, 5], np.uint64))
    store.batch_abort([reservation for reservation in reservations if reservation is not None])
    assert store.stats().reservations == 0
    assert store.batch_exists(["d", "e"]) == [False, False]


def test_a_leased_object_is_not_evicted(store: mmc.Store) -> None:
    store.put("k", bytes(MIB))
    store.add_lease("k", 60_000)
    for number in range(64):
        store.put(str(number), bytes(MIB))
    assert store.exists("k")
    store.remove_lease("k")
    with pytest.raises(mmc.NoLease):
        store.remove_lease("k")
    assert store.batch_add_lease(["k", "x"], 1000) == [Code.OK, Code.NOT_FOUND]
    assert store.batch_remove_lease(["k", "k", "x"]) == [Code.OK, Code.NO_LEASE, Code.NOT_FOUND]
    with store.reserve("r", 1), pytest.raises(mmc.WrongState):
        store.add_lease("r")


def test_leases_end_by_the_clock_that_the_store_is_given() -> None:
    now = 5
    with mmc.Store(dram=MIB, clock=lambda: now) as store:
        store.put("k", b"1")
        store.add_lease("k", 60_000)
        now += 59_999_999_999
        assert (store.query("k").lease_count, store.stats().leases) == (1, 1)
        now += 1
        assert (store.query("k").lease_count, store.stats().leases) == (0, 0)


def test_a_clock_that_raises_is_reported_and_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: errors.append(error[1]))
    times: list[Any] = [0, 1000, RuntimeError("stopped"), -1, "soon", 2**64]

    def tell() -> Any:
        time = times.pop(0) if times else 1000
        if isinstance(time, Exception):
            raise time
        return time

    with mmc.Store(dram=MIB, clock=tell) as store:
        for number in range(6):
            store.put(f"k{number}", b"1")
            assert store.get(f"k{number}") == b"1"
    assert [type(error) for error in errors] == [RuntimeError, ValueError, ValueError, ValueError]


def test_bytes_go_by_pool_address_both_ways(store: mmc.Store) -> None:
    layer = bytearray(b"0123456789")
    source = address_of(layer)
    reservation = store.reserve("k", 20)
    places = [reservation.address + 10, reservation.address]
    assert store.write_at(places, [source, source + 5], [10, 5]) == [Code.OK, Code.OK]
    assert store.read_at([reservation.address], [source], [1]) == [Code.STATE]
    assert store.write_at([reservation.address + 5], [source], [5]) == [Code.OK]
    reservation.commit()
    assert store.get("k") == b"56789012340123456789"
    assert store.write_at([reservation.address], [source], [1]) == [Code.STATE]
    out = bytearray(4)
    assert store.read_at([reservation.address + 8], [address_of(out)], [4]) == [Code.OK]
    assert out == b"3401"
    assert store.read_at([reservation.address + 18, 1 << 62], [address_of(out)] * 2, [3, 1]) == [Code.NOT_FOUND] * 2
    assert store.read_at([0, places[0], places[0]], [source, 0, source], [1, 1, 0]) == [Code.INVALID_PARAM] * 3


def test_a_leased_object_can_be_read_by_address_until_the_lease_ends(store: mmc.Store) -> None:
    store.put("k", b"hello")
    address = store.query("k").blobs[0].address
    out = bytearray(5)
    store.add_lease("k", 60_000)
    store.remove("k")
    assert store.read_at([address], [address_of(out)], [5]) == [Code.OK]
    assert out == b"hello"
