"""What `memcache_hybrid` refuses, with which code: keys, lists, sizes, replicas. Nothing is stored or written then."""

from __future__ import annotations

from typing import Any

import pytest
from hybrid_support import EMPTY_INFO, MIB, Memory, opened, replicas, store_fixture
from hypothesis import given
from hypothesis import strategies as st

from memcache_hybrid import DistributedObjectStore as Store
from memcache_hybrid import ReplicateConfig
from memcache_hybrid._values import are_valid, is_valid

store = store_fixture(dram_size="8MB")

BAD_KEYS = {
    "empty": "",
    "257 bytes": "k" * 257,
    "258 bytes in 129 characters": "é" * 129,
    "NUL": "a\0b",
    "line feed": "a\nb",
    "tab": "a\tb",
    "delete": "a\x7f",
    "next line": "a\x85b",
    "half a surrogate": "\ud800",
    "no UTF-8": b"\xff",
    "empty bytes": b"",
    "NUL in bytes": b"a\0b",
}


def test_a_value_larger_than_the_pool_is_minus_1(store: Store) -> None:
    large = Memory(8 * MIB + 1)
    assert store.put("k", bytes(8 * MIB + 1)) == -1
    assert store.put_batch(["a", "k"], [b"data", bytes(8 * MIB + 1)]) == -1
    assert store.put_from("k", large.address, large.size) == -1
    assert store.batch_put_from(["b", "k"], [large.address] * 2, [4, large.size]) == [0, -1]
    assert store.put_from_layers("k", [large.address] * 2, [5 * MIB] * 2) == -1
    assert store.batch_put_from_layers(["k", "c"], [[large.address] * 2] * 2, [[5 * MIB] * 2, [1, 1]]) == [-1, 0]
    assert store.batch_is_exist(["k", "b", "c"]) == [0, 1, 1]


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (replicas(1), 0),
        (replicas(1, [0]), 0),
        (replicas(2), -1),
        (replicas(8), -1),
        (replicas(1, [1]), -1),
        (replicas(2, [0, 1]), -1),
        (replicas(0), -3000),
        (replicas(9), -3000),
        (replicas(1, [0, 1]), -3000),
        (replicas(2, [0, 0]), -3000),
    ],
    ids=lambda value: f"{value.replicaNum} of {value.preferredLocalServiceIDs}" if not isinstance(value, int) else "",
)
def test_copies_are_as_many_as_there_are_ranks(store: Store, config: ReplicateConfig, code: int) -> None:
    data = Memory(b"data")
    place = data.address
    codes = [
        store.put("a", b"data", config),
        store.put_batch(["b"], [b"data"], replicateConfig=config),
        store.put_from("c", place, 4, 3, config),
        *store.batch_put_from(["d"], [place], [4], replicateConfig=config),
        store.put_from_layers("e", [place], [4], 0, config),
        *store.batch_put_from_layers(["f"], [[place]], [[4]], replicateConfig=config),
    ]
    assert codes == [code] * 6
    assert store.get_batch(list("abcdef")) == [b"data" if code == 0 else b""] * 6


def test_a_replicate_config_says_one_copy_anywhere_and_nothing_else_can_be_one(store: Store) -> None:
    config = ReplicateConfig()
    assert (config.replicaNum, config.preferredLocalServiceIDs) == (1, [])
    with pytest.raises(TypeError):
        store.put("k", b"data", 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", list(BAD_KEYS.values()), ids=list(BAD_KEYS))
def test_what_is_no_key_is_minus_3000_and_stores_nothing(store: Store, key: Any) -> None:
    data = Memory(b"data")
    place = data.address
    assert store.put("there", b"data") == 0
    keys, old = ["new", key], ["there", key]
    single = {
        "put": store.put(key, b"data"),
        "put_batch": store.put_batch(keys, [b"1", b"2"]),
        "put_from": store.put_from(key, place, 4),
        "put_from_layers": store.put_from_layers(key, [place], [4]),
        "get_into": store.get_into(key, place, 4),
        "get_into_layers": store.get_into_layers(key, [place], [4]),
        "is_exist": store.is_exist(key),
        "remove": store.remove(key),
        "batch_remove_lease": store.batch_remove_lease(old),
    }
    assert single == dict.fromkeys(single, -3000)
    whole_list = {
        "batch_put_from": store.batch_put_from(keys, [place] * 2, [4] * 2),
        "batch_put_from_layers": store.batch_put_from_layers(keys, [[place]] * 2, [[4]] * 2),
        "batch_get_into": store.batch_get_into(old, [place] * 2, [4] * 2),
        "batch_get_into_layers": store.batch_get_into_layers(old, [[place]] * 2, [[4]] * 2),
        "batch_write_finish": store.batch_write_finish(old, [0, 0]),
        "batch_add_lease": store.batch_add_lease(old),
    }
    assert whole_list == {call: [-3000, -3000] for call in whole_list}
    assert data.content == b"data"
    assert store.get(key) == b""
    assert store.get_batch(old) == [b"", b""]
    assert str(store.get_key_info(key)) == EMPTY_INFO
    assert list(map(str, store.batch_get_key_info(old))) == [EMPTY_INFO] * 2
    assert store.batch_alloc([key], [4]) == [0]
    assert store.batch_is_exist([key, "new", "there"]) == [-3000, 0, 1]
    assert store.remove_batch([key, "there", "new"]) == [-3000, 0, -3102]


@given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.from_regex("[ -~]{0,300}")), max_size=20))
def test_one_key_is_judged_as_one_of_many(keys: list[Any]) -> None:
    """By this package, and by the library where it is left to that."""
    with opened(dram_size="1MB") as store:
        for key in [*keys, *BAD_KEYS.values()]:
            assert is_valid(key) == are_valid([key])
            assert [store.is_exist(key)] == store.batch_is_exist([key]) == [0 if is_valid(key) else -3000]
            assert [store.remove(key)] == store.remove_batch([key]) == [-3102 if is_valid(key) else -3000]
            assert store.get(key) == b""


@pytest.mark.parametrize("key", [5, None, ["k"]], ids=repr)
def test_a_key_that_is_no_text_is_a_type_error(store: Store, key: Any) -> None:
    for call in (store.is_exist, store.get, store.remove, store.get_key_info, lambda key: store.put(key, b"data")):
        with pytest.raises(TypeError):
            call(key)
    for batch in (store.batch_is_exist, store.get_batch, store.remove_batch, store.batch_add_lease):
        with pytest.raises(TypeError):
            batch(["k", key])


@pytest.mark.parametrize("key", ["k", "k" * 256, "é" * 128, "Schlüssel/块 🗝", " ", "\u00a0", "a\u200bb"], ids=ascii)
def test_a_key_is_text_or_its_bytes(store: Store, key: str) -> None:
    name = key.encode()
    data, out = Memory(b"data"), Memory(4)
    assert store.put_from(name, data.address, 4) == 0
    assert store.get(key) == store.get(name) == b"data"
    assert store.get_batch([name, key]) == [b"data", b"data"]
    assert store.batch_is_exist([key, name]) == [1, 1]
    assert store.batch_get_into([name], [out.address], [4]) == [0]
    assert store.put(key, b"other") == store.put_batch([name], [b"other"]) == 0
    assert store.get_key_info(name).size() == 4
    assert store.batch_add_lease([name]) == [0]
    assert store.batch_remove_lease([key]) == 0
    assert store.remove(name) == 0
    (address,) = store.batch_alloc([name], [4])
    assert address == store.get_key_info(key, 0).gva_list()[0]
    assert store.batch_write_finish([key], [0]) == [0]
    assert store.remove_batch([name]) == [0]
    assert store.is_exist(key) == 0


def test_one_key_is_no_list_of_keys(store: Store) -> None:
    for key in ("key", b"key"):
        for batch in (store.batch_is_exist, store.get_batch, store.remove_batch, store.batch_get_key_info):
            with pytest.raises(TypeError):
                batch(key)


def test_keys_may_come_as_any_sequence(store: Store) -> None:
    assert store.put_batch(("a", "b"), (b"1", b"2")) == 0
    assert store.get_batch(("a", "b")) == [b"1", b"2"]
    assert store.batch_is_exist({"a": 1, "x": 2}.keys()) == [1, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "buffers", "sizes"),
    [
        ("size 0", [1, 1], [4, 0]),
        ("null", [1, 0], [4, 4]),
        ("pointers missing", [1], [4, 4]),
        ("sizes missing", [1, 1], [4]),
        ("both missing", [1], [4]),
        ("one more", [1, 1, 1], [4, 4, 4]),
        ("none", [], []),
    ],
)
def test_lists_that_can_not_be_meant_are_minus_3000(
    store: Store, case: str, buffers: list[int], sizes: list[int]
) -> None:
    data = Memory(b"data")
    places = [buffer and data.address for buffer in buffers]
    rows, row_sizes = [[place] for place in places], [[size] for size in sizes]
    assert store.put_batch(["there", "too"], [b"1234", b"1234"]) == 0
    calls = {
        "batch_put_from": store.batch_put_from(["a", "b"], places, sizes),
        "batch_put_from_layers": store.batch_put_from_layers(["a", "b"], rows, row_sizes),
        "batch_get_into": store.batch_get_into(["there", "too"], places, sizes),
        "batch_get_into_layers": store.batch_get_into_layers(["there", "too"], rows, row_sizes),
    }
    assert calls == {call: [-3000, -3000] for call in calls}
    assert store.batch_is_exist(["a", "b"]) == [0, 0]
    assert data.content == b"data"


@pytest.mark.parametrize(
    ("case", "buffers", "sizes"),
    [
        ("a layer of size 0", [1, 1], [4, 0]),
        ("a null layer", [0, 1], [2, 2]),
        ("a pointer missing", [1], [2, 2]),
        ("a size missing", [1, 1], [4]),
        ("no layers", [], []),
    ],
)
def test_layers_that_can_not_be_meant_are_minus_3000(
    store: Store, case: str, buffers: list[int], sizes: list[int]
) -> None:
    data = Memory(b"data")
    places = [buffer and data.address for buffer in buffers]
    rows, row_sizes = [[data.address], places], [[4], sizes]
    assert store.put_batch(["there", "too"], [b"1234", b"1234"]) == 0
    assert store.put_from_layers("k", places, sizes) == -3000
    assert store.get_into_layers("too", places, sizes) == -3000
    assert store.batch_put_from_layers(["a", "b"], rows, row_sizes) == [-3000, -3000]
    assert store.batch_get_into_layers(["there", "too"], rows, row_sizes) == [-3000, -3000]
    assert store.batch_is_exist(["k", "a", "b"]) == [0, 0, 0]
    assert data.content == b"data"


def test_a_value_without_bytes_or_a_pointer_to_nothing_is_minus_3000(store: Store) -> None:
    data = Memory(b"data")
    assert store.put("there", b"1234") == 0
    codes = {
        "put": store.put("k", b""),
        "put_batch": store.put_batch(["a", "k"], [b"1", b""]),
        "put_batch, unequal": store.put_batch(["a", "k"], [b"1"]),
        "put_batch, no values": store.put_batch(["a"], []),
        "put_from, size 0": store.put_from("k", data.address, 0),
        "put_from, null": store.put_from("k", 0, 4),
        "get_into, size 0": store.get_into("there", data.address, 0),
        "get_into, null": store.get_into("there", 0, 4),
    }
    assert codes == dict.fromkeys(codes, -3000)
    assert store.batch_is_exist(["k", "a"]) == [0, 0]
    assert data.content == b"data"


def test_empty_lists_answer_empty_lists(store: Store) -> None:
    assert store.put_batch([], []) == 0
    assert store.batch_copy([], [], []) == 0
    assert store.batch_copy_layers([], [], []) == 0
    assert store.batch_remove_lease([]) == -3000
    assert store.batch_put_from([], [], []) == store.batch_put_from_layers([], [], []) == []
    assert store.batch_get_into([], [], []) == store.batch_get_into_layers([], [], []) == []
    assert store.get_batch([]) == store.batch_is_exist([]) == store.remove_batch([]) == []
    assert store.batch_get_key_info([]) == store.batch_alloc([], []) == []
    assert store.batch_write_finish([], []) == store.batch_add_lease([]) == []
