"""What keeps an object from eviction, and for how long: leases, and the term of what is allocated and never finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from hybrid_support import EMPTY_INFO, UNIT, Memory, eventually, pool, put_in_place, read, store_fixture, write

from memcache_hybrid import DistributedObjectStore as Store
from memcache_hybrid import _process

store = store_fixture(dram_size="8MB")

#: As many units as `small` has.
UNITS = 16
LONG_MS = 600_000


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that fills up soon. Only puts and allocations evict there, so that nothing goes between two calls of a test."""
    settings = tmp_path / "local.conf"
    settings.write_text(f"ock.mmc.local_service.dram.size = {UNITS * UNIT}\nock.mmc.evict_threshold_high = 100\n")
    monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", str(settings))
    store = Store()
    assert store.init(0) == 0
    yield store
    assert store.close() == 0


def fill(store: Store, prefix: str = "full", *, keys: int = UNITS) -> list[str]:
    """Puts as many objects as there are units, one after the other, and answers their keys."""
    names = [f"{prefix}{number}" for number in range(keys)]
    assert [store.put(name, bytes(UNIT)) for name in names] == [0] * keys
    return names


# Leases


def test_leases_are_added_and_removed(store: Store) -> None:
    assert store.put_batch(["a", "b"], [b"1", b"2"]) == 0
    assert store.batch_alloc(["reserved"], [4]) != [0]
    assert store.batch_add_lease(["a", "x", "reserved"], 1000) == [0, -3102, -3101]
    assert store.batch_add_lease(keys=["a", "b"], leaseTtlMs=0) == [0, 0]
    assert store.batch_add_lease(["a"], -1) == [-3000]
    assert store.batch_remove_lease(["a", "b"]) == 0
    assert store.batch_remove_lease(keys=["a"]) == 0
    assert [store.batch_remove_lease(keys) for keys in (["a"], ["b"], ["x"], ["a", "b", "x"])] == [-3106] * 4
    assert store.batch_add_lease(["a"]) == [0]
    assert store.batch_remove_lease(["a", "b"]) == -3106


def test_eviction_never_takes_a_leased_object(small: Store) -> None:
    leased = [f"leased{number}" for number in range(UNITS - 1)]
    for number, name in enumerate(leased):
        assert small.put(name, bytes([number]) * UNIT) == 0
    assert small.batch_add_lease(leased, LONG_MS) == [0] * len(leased)
    for number in range(40):
        assert small.put(f"other{number}", bytes([number]) * UNIT) == 0
        assert small.get(f"other{number}") == bytes([number]) * UNIT
    assert small.batch_is_exist(leased) == [1] * len(leased)
    assert small.put("large", bytes(2 * UNIT)) == -1
    assert small.batch_alloc(["large"], [2 * UNIT]) == [0]
    assert small.get_batch(leased) == [bytes([number]) * UNIT for number in range(len(leased))]
    assert small.batch_remove_lease(leased) == 0
    assert small.put("large", bytes(2 * UNIT)) == 0


def test_a_lease_that_is_over_keeps_nothing(small: Store) -> None:
    names = fill(small, keys=UNITS - 1)
    assert small.batch_add_lease(names, 30) == [0] * len(names)
    eventually(lambda: small.put("large", bytes(UNITS * UNIT)) == 0)
    assert small.batch_is_exist(names) == [0] * len(names)


@pytest.mark.parametrize("is_finished", [False, True], ids=["reserved", "published"])
def test_a_lease_of_an_allocation_keeps_the_object_published_or_not(small: Store, is_finished: bool) -> None:
    (address,) = small.batch_alloc(["k"], [UNIT], 1, LONG_MS)
    assert write(small, address, b"7" * UNIT) == 0
    if is_finished:
        assert small.batch_write_finish(["k"], [0]) == [0]
    fill(small, keys=3 * UNITS)
    assert small.put("large", bytes(UNITS * UNIT)) == -1
    assert small.get_key_info("k", 0).gva_list() == [address]
    assert small.batch_write_finish(["k"], [0]) == [0]
    assert small.get("k") == b"7" * UNIT
    assert small.batch_remove_lease(["k"]) == 0
    assert small.put("large", bytes(UNITS * UNIT)) == 0


def test_an_allocation_of_an_existing_key_leases_it_too(small: Store) -> None:
    assert small.put("k", b"data") == 0
    assert small.batch_alloc(["k"], [4], 1, LONG_MS) == small.get_key_info("k").gva_list()
    fill(small, keys=3 * UNITS)
    assert small.get("k") == b"data"
    assert small.batch_remove_lease(["k"]) == 0


def test_an_allocation_of_a_reserved_key_leases_it_when_it_is_published(small: Store) -> None:
    address = small.batch_alloc(["k"], [4])
    assert small.batch_alloc(["k"], [4], 1, LONG_MS) == address
    assert small.batch_write_finish(["k"], [0]) == [0]
    fill(small, keys=3 * UNITS)
    assert small.is_exist("k") == 1
    assert [small.batch_remove_lease(["k"]) for _ in range(2)] == [0, -3106]


def test_an_allocation_without_a_lease_is_kept_while_it_is_written(small: Store) -> None:
    (address,) = small.batch_alloc(["k"], [UNIT])
    fill(small, keys=3 * UNITS)
    assert write(small, address, b"7" * UNIT) == 0
    assert small.batch_write_finish(["k"], [0]) == [0]
    assert small.get("k") == b"7" * UNIT
    assert small.batch_remove_lease(["k"]) == -3106


def test_a_removed_object_is_read_by_its_address_until_its_lease_is_over(small: Store) -> None:
    address = put_in_place(small, "k", b"data" * 1024)
    assert small.batch_add_lease(["k"], LONG_MS) == [0]
    assert small.remove("k") == 0
    fill(small, keys=3 * UNITS)
    assert read(small, address, UNIT) == b"data" * 1024
    assert small.put("k", b"new") == 0
    assert read(small, address + 4, 4) == b"data"
    assert small.get("k") == b"new"


# Terms

Alloc = Callable[..., "list[int]"]


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Alloc:
    """An allocation whose term is over soon. Those that the test makes itself have a long one."""

    def alloc(store: Store, *arguments: Any) -> list[int]:
        with monkeypatch.context() as patch:
            patch.setattr(_process, "TERM_MS", 30)
            return store.batch_alloc(*arguments)

    return alloc


ALL = Memory(UNITS * UNIT)
TAKE_ALL: dict[str, Callable[[Store], bool]] = {
    "put": lambda store: store.put("new", ALL.content) == 0,
    "put_batch": lambda store: store.put_batch(["new"], [ALL.content]) == 0,
    "put_from": lambda store: store.put_from("new", ALL.address, ALL.size) == 0,
    "put_from_layers": lambda store: store.put_from_layers("new", [ALL.address], [ALL.size]) == 0,
    "batch_put_from": lambda store: store.batch_put_from(["new"], [ALL.address], [ALL.size]) == [0],
    "batch_put_from_layers": lambda store: store.batch_put_from_layers(["new"], [[ALL.address]], [[ALL.size]]) == [0],
    "batch_alloc": lambda store: store.batch_alloc(["new"], [ALL.size]) != [0],
}


@pytest.mark.parametrize("take_all", list(TAKE_ALL.values()), ids=list(TAKE_ALL))
def test_what_nobody_finished_comes_back_after_its_term(
    small: Store, forget: Alloc, take_all: Callable[[Store], bool]
) -> None:
    forgotten = [f"forgotten{number}" for number in range(UNITS)]
    assert all(forget(small, forgotten, [UNIT] * UNITS))
    eventually(lambda: take_all(small))
    assert small.get_key_info("new", 0).size() == ALL.size
    assert small.batch_write_finish(forgotten, [0] * UNITS) == [-3102] * UNITS
    assert pool().stats().reservations == (1 if small.is_exist("new") == 0 else 0)


def test_a_term_that_is_not_over_keeps_the_memory(small: Store) -> None:
    keys = [f"k{number}" for number in range(UNITS)]
    assert all(small.batch_alloc(keys, [UNIT] * UNITS))
    assert not any(take_all(small) for take_all in TAKE_ALL.values())
    assert small.batch_write_finish(keys, [0] * UNITS) == [0] * UNITS
    assert small.batch_is_exist(keys) == [1] * UNITS


def test_a_finish_after_the_term_is_minus_3004_and_publishes_nothing(store: Store, forget: Alloc) -> None:
    (address,) = forget(store, ["k"], [4])
    eventually(lambda: str(store.get_key_info("k", 0)) == EMPTY_INFO)
    assert write(store, address, b"late") == -3102
    assert store.batch_write_finish(["k"], [0]) == [-3004]
    assert store.is_exist("k") == 0
    assert store.put("k", b"new") == 0
    assert store.get("k") == b"new"


def test_a_key_whose_term_is_over_can_be_allocated_again(store: Store, forget: Alloc) -> None:
    forget(store, ["k"], [4])
    (address,) = eventually(lambda: store.batch_alloc(["k"], [8]) if store.get_key_info("k", 0).size() != 4 else [])
    assert write(store, address, b"new data") == 0
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.get("k") == b"new data"


def test_a_lease_makes_the_term_longer(small: Store, forget: Alloc) -> None:
    kept = forget(small, ["kept"], [UNIT], 1, LONG_MS)
    forget(small, ["forgotten"], [UNIT])
    eventually(lambda: str(small.get_key_info("forgotten", 0)) == EMPTY_INFO)
    assert small.put("large", bytes((UNITS - 1) * UNIT)) == 0
    assert small.get_key_info("kept", 0).gva_list() == kept
    assert small.batch_write_finish(["kept"], [0]) == [0]
