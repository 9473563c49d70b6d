"""Objects written where they lie: allocation, copies by global address, finishing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import pytest
from hybrid_support import (
    DIRECTIONS_IN,
    DIRECTIONS_OUT,
    EMPTY_INFO,
    UNIT,
    Memory,
    addresses_of,
    joined,
    pieces,
    pool,
    put_in_place,
    read,
    sizes_of,
    store_fixture,
    write,
)

from memcache_hybrid import DistributedObjectStore as Store

store = store_fixture(dram_size="8MB")


# Allocation


def test_an_allocated_object_is_written_finished_and_then_seen(store: Store) -> None:
    content = bytes(range(250)) * 40
    (address,) = store.batch_alloc(keys=["k"], sizes=[len(content)], media=1, leaseTtlMs=0)
    assert store.is_exist("k") == 0
    assert store.get("k") == b""
    data = Memory(content)
    assert store.batch_copy(gva_ptrs=[address], buffer_ptrs=[data.address], sizes=[data.size], direct=3, flag=0) == 0
    assert store.is_exist("k") == 0
    assert store.batch_write_finish(keys=["k"], res=[0]) == [0]
    assert store.is_exist("k") == 1
    assert store.get("k") == content
    assert store.get_key_info("k").gva_list() == [address]


def test_global_addresses_are_positive_below_two_to_the_63_and_apart(store: Store) -> None:
    sizes = [1, UNIT - 1, UNIT, UNIT + 1, 3 * UNIT]
    addresses = store.batch_alloc([f"k{size}" for size in sizes], sizes)
    assert all(isinstance(address, int) and 0 < address < 2**63 for address in addresses)
    ends = sorted((address, address + size) for address, size in zip(addresses, sizes))
    assert all(end <= start for (_, end), (start, _) in zip(ends, ends[1:]))


@pytest.mark.parametrize("into", DIRECTIONS_IN)
@pytest.mark.parametrize("out_of", DIRECTIONS_OUT)
def test_a_global_address_is_linear_within_the_object(store: Store, into: int, out_of: int) -> None:
    content = bytes(range(256)) * 40
    (address,) = store.batch_alloc(["k"], [len(content)])
    cuts = [0, 1, 4095, 4096, 4097, 8192, len(content)]
    for start, end in reversed(list(zip(cuts, cuts[1:]))):
        assert write(store, address + start, content[start:end], into) == 0
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.get("k") == content
    for start, end in [(0, 1), (1, 2), (4000, 5000), (len(content) - 1, len(content)), (0, len(content))]:
        assert read(store, address + start, end - start, out_of) == content[start:end]


@pytest.mark.parametrize(
    ("keys", "sizes", "media", "lease_ms"),
    [
        (["k"], [0], 1, 0),
        (["k"], [9 << 20], 1, 0),
        (["k"], [4], 0, 0),
        (["k"], [4], 2, 0),
        (["k"], [4], 3, 0),
        (["k"], [4], -1, 0),
        (["k"], [4], 1, -1),
        (["k", "l"], [4], 1, 0),
        (["k"], [4, 4], 1, 0),
        ([""], [4], 1, 0),
    ],
)
def test_an_allocation_that_can_not_be_is_address_0(
    store: Store, keys: list[str], sizes: list[int], media: int, lease_ms: int
) -> None:
    assert store.batch_alloc(keys, sizes, media, lease_ms) == [0] * len(keys)
    assert str(store.get_key_info("k", 0)) == EMPTY_INFO


def test_an_allocation_that_fails_spoils_no_other(store: Store) -> None:
    first, second, third = store.batch_alloc(["a", "b", "c"], [4, 9 << 20, 4])
    assert first and third and second == 0
    assert store.batch_write_finish(["a", "b", "c"], [0, 0, 0]) == [0, -3102, 0]
    assert store.batch_is_exist(["a", "b", "c"]) == [1, 0, 1]


def test_an_existing_key_gives_its_address(store: Store) -> None:
    assert store.put("published", b"data") == 0
    (reserved,) = store.batch_alloc(["reserved"], [4])
    new, published, again, twice = store.batch_alloc(["new", "published", "reserved", "new"], [4, 4, 8, 4])
    assert [published] == store.get_key_info("published").gva_list()
    assert again == reserved
    assert new == twice
    assert len({new, published, reserved}) == 3
    assert store.get("published") == b"data"


def test_a_key_that_is_allocated_is_not_stored_by_a_put(store: Store) -> None:
    (address,) = store.batch_alloc(["k"], [4])
    assert store.put("k", b"other") == 0
    assert store.is_exist("k") == 0
    assert write(store, address, b"data") == 0
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.get("k") == b"data"


def test_key_info_shows_what_is_allocated_when_asked(store: Store) -> None:
    (address,) = store.batch_alloc(["k"], [6])
    assert str(store.get_key_info("k")) == str(store.get_key_info("k", flag=1)) == EMPTY_INFO
    info = store.get_key_info("k", flag=0)
    assert str(info) == f"loc:0, type:1, gva:{address}, blobNum:1, size:6"
    assert list(map(str, store.batch_get_key_info(["x", "k"], 0))) == [EMPTY_INFO, str(info)]
    assert list(map(str, store.batch_get_key_info(["x", "k"]))) == [EMPTY_INFO, EMPTY_INFO]
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert str(store.get_key_info("k")) == str(store.get_key_info("k", 0)) == str(info)


# Finishing


def test_what_was_not_written_well_is_dropped(store: Store) -> None:
    assert all(store.batch_alloc(["good", "bad", "worse"], [4, 4, 4]))
    assert store.batch_write_finish(["good", "bad", "worse"], [0, 1, -1]) == [0, 0, 0]
    assert store.batch_is_exist(["good", "bad", "worse"]) == [1, 0, 0]
    assert str(store.get_key_info("bad", 0)) == EMPTY_INFO
    assert store.put("bad", b"new") == 0
    assert store.get("bad") == b"new"


def test_a_second_finish_answers_0(store: Store) -> None:
    put_in_place(store, "k", b"data")
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.batch_write_finish(["k", "k"], [0, 0]) == [0, 0]
    assert store.get("k") == b"data"


def test_a_finish_of_a_key_twice_in_a_list_is_one(store: Store) -> None:
    (address,) = store.batch_alloc(["k"], [4])
    assert write(store, address, b"data") == 0
    assert store.batch_write_finish(["k", "k"], [0, 0]) == [0, 0]
    assert store.get("k") == b"data"


def test_a_finish_of_a_published_object_answers_0_and_leaves_it(store: Store) -> None:
    assert store.put("k", b"data") == 0
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.batch_write_finish(["k"], [1]) == [0]
    assert store.get("k") == b"data"


def test_a_finish_of_what_was_never_allocated_or_was_dropped_is_minus_3102(store: Store) -> None:
    assert store.batch_alloc(["k"], [4]) != [0]
    assert store.batch_write_finish(["k"], [1]) == [0]
    for code in (0, 1):
        assert store.batch_write_finish(["k", "x"], [code, code]) == [-3102, -3102]


def test_a_finish_of_what_somebody_else_is_writing_is_minus_3101(store: Store) -> None:
    with pool().reserve("k", 4) as view:
        view[:] = b"data"
        assert store.batch_write_finish(["k"], [0]) == [-3101]
        del view
    assert store.get("k") == b"data"


@pytest.mark.parametrize("res", [[], [0], [0, 0, 0]], ids=len)
def test_a_finish_needs_a_result_for_each_key(store: Store, res: list[int]) -> None:
    assert all(store.batch_alloc(["a", "b"], [4, 4]))
    assert store.batch_write_finish(["a", "b"], res) == [-3000, -3000]
    assert store.batch_is_exist(["a", "b"]) == [0, 0]
    assert store.batch_write_finish(["a", "b"], [0, 0]) == [0, 0]


def test_a_finish_that_is_refused_loses_nothing(store: Store) -> None:
    (address,) = store.batch_alloc(["k"], [4])
    for others in ([""], ["a\nb"], [f"other{number}" for number in range(20_000)]):
        keys = ["k", *others]
        assert store.batch_write_finish(keys, [0] * len(keys)) == [-3000] * len(keys)
        assert store.batch_write_finish(keys, [1] * len(keys)) == [-3000] * len(keys)
    assert write(store, address, b"data") == 0
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.get("k") == b"data"


# Copies


def test_a_copy_into_a_published_object_answers_0_and_copies_nothing(store: Store) -> None:
    address = put_in_place(store, "k", b"data")
    assert [write(store, address, b"DATA", direct) for direct in DIRECTIONS_IN] == [0, 0]
    assert store.get("k") == b"data"
    assert store.put("put", b"data") == 0
    (address,) = store.get_key_info("put").gva_list()
    assert write(store, address + 1, b"A") == 0
    assert store.get("put") == b"data"


@pytest.mark.parametrize("direct", DIRECTIONS_OUT)
def test_an_unfinished_object_can_not_be_read(store: Store, direct: int) -> None:
    (address,) = store.batch_alloc(["k"], [4])
    out = Memory(b"####")
    assert store.batch_copy([address], [out.address], [4], direct) == -3101
    assert store.batch_copy_layers([address], [[out.address]], [[4]], direct) == -3101
    assert out.content == b"####"


def test_a_copy_takes_a_direction(store: Store) -> None:
    address = put_in_place(store, "k", b"data")
    for direct in (-1, 4, 5):
        assert write(store, address, b"DATA", direct) == -1
    out = Memory(4)
    assert store.batch_copy([address], [out.address], [4]) == 0
    assert out.content == b"data", "out of the pool is the default"
    layers = pieces(bytes(4), [1, 3])
    assert store.batch_copy_layers([address], [addresses_of(layers)], [[1, 3]]) == 0
    assert joined(layers) == b"data"


@pytest.mark.parametrize("size", [2 * UNIT, 2 * UNIT - 100], ids=["whole units", "with an end inside a unit"])
def test_a_copy_stays_inside_one_object(store: Store, size: int) -> None:
    content = bytes([7]) * size
    # Neighbours, so that what runs over is somebody's.
    addresses = store.batch_alloc(["a", "b", "c"], [size] * 3)
    assert [write(store, address, content) for address in addresses] == [0, 0, 0]
    place = addresses[1]
    bad = [
        ("one byte too long", place, size + 1, -3102),
        ("past the end", place + size - 1, 2, -3102),
        ("before the begin", place - 1, 2, -3102),
        ("far away", 2**62, 1, -3102),
        ("below every pool", 1, 1, -3102),
        ("address 0", 0, 1, -3000),
        ("size 0", place, 0, -3000),
    ]
    if size % UNIT:
        bad.append(("behind the end", place + size, 1, -3102))
    data = Memory(b"#" * (size + 1))
    for case, address, count, code in bad:
        assert (case, store.batch_copy([address], [data.address], [count], 3)) == (case, code)
        assert (case, store.batch_copy_layers([address], [[data.address]], [[count]], 3)) == (case, code)
    assert store.batch_copy([place], [0], [1], 3) == -3000
    assert store.batch_write_finish(["a", "b", "c"], [0, 0, 0]) == [0, 0, 0]
    assert store.get_batch(["a", "b", "c"]) == [content] * 3
    for case, address, count, code in bad:
        assert (case, store.batch_copy([address], [data.address], [count], 2)) == (case, code)
    assert store.batch_copy([place], [0], [1], 2) == -3000
    assert data.content == b"#" * (size + 1)


def test_a_copy_to_an_object_that_was_dropped_or_removed_finds_nothing(store: Store) -> None:
    dropped, removed = store.batch_alloc(["dropped", "removed"], [4, 4])
    assert store.batch_write_finish(["dropped", "removed"], [1, 0]) == [0, 0]
    assert store.remove("removed") == 0
    assert [write(store, address, b"data") for address in (dropped, removed)] == [-3102, -3102]
    assert [read(store, address, 4) for address in (dropped, removed)] == [b"", b""]


@pytest.mark.parametrize(
    ("addresses", "buffers", "sizes"),
    [([1], [1, 1], [4]), ([1], [1], [4, 4]), ([1, 1], [1], [4]), ([1], [], []), ([], [1], [4])],
)
def test_a_copy_needs_as_many_addresses_as_buffers_and_sizes(
    store: Store, addresses: list[int], buffers: list[int], sizes: list[int]
) -> None:
    gva, data = put_in_place(store, "k", b"data"), Memory(b"####")
    places, memory = [gva] * len(addresses), [data.address] * len(buffers)
    assert store.batch_copy(places, memory, sizes) == -3000
    assert store.batch_copy_layers(places, [[place] for place in memory], [[size] for size in sizes]) == -3000
    assert data.content == b"####"


def test_a_bad_argument_of_a_copy_spoils_all_and_a_missing_object_none(store: Store) -> None:
    first, second = store.batch_alloc(["a", "b"], [4, 4])
    data = Memory(b"data")
    for bad in (
        ([first, 0], [data.address] * 2, [4, 4]),
        ([first, second], [data.address, 0], [4, 4]),
        ([first, second], [data.address] * 2, [4, 0]),
    ):
        assert store.batch_copy(*bad, 3) == -3000
    assert store.batch_copy([first, 2**62, second], [data.address] * 3, [4] * 3, 3) == -3102
    assert store.batch_write_finish(["a", "b"], [0, 0]) == [0, 0]
    assert store.get_batch(["a", "b"]) == [b"data", b"data"]


def test_a_copy_has_as_many_ranges_as_one_likes(store: Store) -> None:
    count = 20_000
    content = bytes(number % 251 for number in range(count))
    (address,) = store.batch_alloc(["k"], [count])
    data, out = Memory(content), Memory(count)

    def ranges(begin: int) -> list[int]:
        return list(range(begin, begin + count))

    assert store.batch_copy(ranges(address), ranges(data.address), [1] * count, 3) == 0
    assert store.batch_write_finish(["k"], [0]) == [0]
    assert store.get("k") == content
    assert store.batch_copy(ranges(address), ranges(out.address), [1] * count, 2) == 0
    assert out.content == content


def test_layers_follow_each_other_from_an_address_or_have_one_each(store: Store) -> None:
    first, second = store.batch_alloc(["a", "b"], [10, 6])
    data = [pieces(b"abcdefghij", [2, 3, 5]), pieces(b"uvwxyz", [6])]
    rows, sizes = list(map(addresses_of, data)), list(map(sizes_of, data))
    assert store.batch_copy_layers([first, second], rows, sizes, 0) == 0
    assert store.batch_write_finish(["a", "b"], [0, 0]) == [0, 0]
    assert store.get_batch(["a", "b"]) == [b"abcdefghij", b"uvwxyz"]
    back = [Memory(5), Memory(2), Memory(3)]
    places: list[Any] = [[first + 5, first], second + 1]
    assert store.batch_copy_layers(places, [addresses_of(back[:2]), [back[2].address]], [[5, 2], [3]], 1) == 0
    assert [out.content for out in back] == [b"fghij", b"ab", b"vwx"]


@pytest.mark.parametrize(
    ("buffers", "sizes"),
    [
        ([[1, 1], [1]], [[2], [4]]),
        ([[1], [1]], [[2, 2], [4]]),
        ([[1, 0], [1]], [[2, 2], [4]]),
        ([[1], [1]], [[0], [4]]),
    ],
)
def test_layers_of_a_copy_that_can_not_be_meant_are_minus_3000(
    store: Store, buffers: list[list[int]], sizes: list[list[int]]
) -> None:
    addresses, data = store.batch_alloc(["a", "b"], [4, 4]), Memory(b"data")
    rows = [[place and data.address for place in row] for row in buffers]
    assert store.batch_copy_layers(addresses, rows, sizes, 3) == -3000
    assert store.batch_copy_layers([addresses[0], 0], [[data.address]] * 2, [[4], [4]], 3) == -3000
    assert store.batch_copy_layers(addresses, [[data.address]] * 2, [[4], [4]], 3) == 0


# Numbers in other forms


@pytest.mark.parametrize("form", [list, tuple], ids=["list", "tuple"])
def test_addresses_and_results_may_come_as_any_sequence(
    store: Store, form: Callable[[list[Any]], Sequence[Any]]
) -> None:
    keys, sizes = form(["a", "b"]), form([4, 2])
    addresses, data = store.batch_alloc(keys, sizes), pieces(b"dataup", [4, 2])
    assert store.batch_copy(form(addresses), form(addresses_of(data)), sizes, 3) == 0
    assert store.batch_write_finish(keys, form([0, 0])) == [0, 0]
    assert store.get_batch(keys) == [b"data", b"up"]


def test_addresses_may_be_numpy_arrays(store: Store) -> None:
    numpy = pytest.importorskip("numpy")
    data = numpy.arange(64, dtype=numpy.uint8).reshape(2, 4, 8)
    places = data.ctypes.data + 8 * numpy.arange(8, dtype=numpy.uint64).reshape(2, 4)
    sizes = numpy.full((2, 4), 8, dtype=numpy.uint64)
    addresses = numpy.array(store.batch_alloc(["a", "b"], [32, 32]), dtype=numpy.uint64)
    assert store.batch_copy_layers(addresses, places, sizes, 3) == 0
    assert store.batch_write_finish(["a", "b"], numpy.zeros(2, dtype=numpy.int32)) == [0, 0]
    assert store.get_batch(["a", "b"]) == [data[0].tobytes(), data[1].tobytes()]
    out = numpy.zeros(32, dtype=numpy.uint8)
    starts = out.ctypes.data + numpy.arange(2, dtype=numpy.uint64) * 16
    assert store.batch_copy(addresses + 16, starts, numpy.full(2, 16, dtype=numpy.uint64), 2) == 0
    assert out.tobytes() == data[0].tobytes()[16:] + data[1].tobytes()[16:]
