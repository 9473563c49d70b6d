"""Opening, closing, one object a call, many objects a call."""

from __future__ import annotations

import os
import urllib.request

import pytest
from conftest import MIB

import mmc
from mmc import Code


def test_what_is_put_can_be_got(store: mmc.Store) -> None:
    store.put("k", b"hello")
    assert store.get("k") == b"hello"
    out = bytearray(5)
    assert store.get_into("k", out) == 5
    assert out == b"hello"
    assert store.exists("k") and "k" in store
    assert store.list_keys() == ["k"]


def test_a_key_is_text_or_its_bytes(store: mmc.Store) -> None:
    store.put("schlüssel/块", b"1")
    assert store.get("schlüssel/块".encode()) == b"1"
    assert store.batch_exists(["schlüssel/块", "schlüssel/块".encode(), b"plain", "plain"]) == [
        True,
        True,
        False,
        False,
    ]
    assert store.list_keys() == ["schlüssel/块"]


@pytest.mark.parametrize("key", ["", "k" * 257, "é" * 129, "a\0b", "a\nb", "\x7f", b"\xff", "\ud800"], ids=ascii)
def test_what_is_no_key_is_an_invalid_param(store: mmc.Store, key: mmc.Key) -> None:
    for call in (store.exists, store.get, store.remove, store.query, store.pin, lambda key: store.put(key, b"1")):
        with pytest.raises(mmc.InvalidParam):
            call(key)
    for batch in (store.batch_exists, store.batch_get, store.prefix_len, store.batch_query, store.batch_pin):
        with pytest.raises(mmc.InvalidParam):
            batch([key])


@pytest.mark.parametrize("key", [1, None, ["k"], bytearray(b"k")], ids=repr)
def test_a_key_of_another_type_is_a_type_error(store: mmc.Store, key: object) -> None:
    with pytest.raises(TypeError, match="must be str or bytes"):
        store.exists(key)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be str or bytes"):
        store.batch_exists(["k", key])  # type: ignore[list-item]


def test_one_key_is_no_list_of_keys(store: mmc.Store) -> None:
    with pytest.raises(TypeError, match="not one key"):
        store.batch_exists("abc")


def test_errors_have_a_class_a_code_and_the_librarys_words(store: mmc.Store) -> None:
    store.put("k", b"12345")
    cases = [
        (mmc.KeyExists, Code.EXISTS, lambda: store.put("k", b"1")),
        (mmc.NotFound, Code.NOT_FOUND, lambda: store.get("x")),
        (mmc.NotFound, Code.NOT_FOUND, lambda: store.get_into("x", bytearray(1))),
        (mmc.NotFound, Code.NOT_FOUND, lambda: store.remove("x")),
        (mmc.SizeMismatch, Code.SIZE_MISMATCH, lambda: store.get_into("k", bytearray(4))),
        (mmc.NoSpace, Code.NO_SPACE, lambda: store.put("large", bytes(33 * MIB))),
        (mmc.NoLease, Code.NO_LEASE, lambda: store.remove_lease("k")),
        (mmc.InvalidParam, Code.INVALID_PARAM, lambda: store.put("e", b"")),
        (mmc.InvalidParam, Code.INVALID_PARAM, lambda: store.put("r", b"1", replicas=2)),
        (mmc.InvalidParam, Code.INVALID_PARAM, lambda: store.register_segment("SSD", capacity=MIB)),
        (mmc.NotFound, Code.NOT_FOUND, lambda: store.unregister_segment(4096)),
    ]
    for error, code, call in cases:
        with pytest.raises(error, match="mmc_") as caught:
            call()
        assert caught.value.code == code and isinstance(caught.value, mmc.Error)
    assert issubclass(mmc.InvalidParam, ValueError) and issubclass(mmc.NotFound, LookupError)


def test_every_error_of_the_header_has_its_class_or_name() -> None:
    codes = {error.code for error in vars(mmc).values() if isinstance(error, type) and issubclass(error, mmc.Error)}
    assert codes == set(Code) - {Code.OK}


def test_a_list_of_buffers_is_one_object_however_it_is_split(store: mmc.Store) -> None:
    store.put("k", [b"abc", bytearray(b"de"), memoryview(b"f")])
    assert store.get("k") == b"abcdef"
    head, tail = bytearray(1), bytearray(5)
    assert store.get_into("k", [head, tail]) == 6
    assert head + tail == b"abcdef"


def test_up_to_takes_what_the_buffer_holds(store: mmc.Store) -> None:
    store.put("k", b"abcdef")
    small, large = bytearray(2), bytearray(8)
    assert store.get_into("k", small, up_to=True) == 6
    assert store.get_into("k", large, up_to=True) == 6
    assert small == b"ab" and large == b"abcdef\0\0"


def test_a_batch_has_a_result_for_each_key(store: mmc.Store) -> None:
    store.put("b", b"old")
    assert store.batch_put(["a", "b", "", "c"], [b"1", b"2", b"3", [b"4", b"5"]]) == [
        Code.OK,
        Code.EXISTS,
        Code.INVALID_PARAM,
        Code.OK,
    ]
    assert store.batch_get(["a", "b", "x", "c"]) == [b"1", b"old", None, b"45"]
    outs = [bytearray(1), bytearray(3), bytearray(1), bytearray(1)]
    assert store.batch_get_into(["a", "b", "x", "c"], outs) == [Code.OK, Code.OK, Code.NOT_FOUND, Code.SIZE_MISMATCH]
    assert outs == [b"1", b"old", b"\0", b"\0"]
    assert store.batch_exists(["a", "x", "c"]) == [True, False, True]
    infos = store.batch_query(["a", "x", "c"])
    assert [info and info.size for info in infos] == [1, None, 2]
    assert store.batch_remove(["a", "x"]) == [Code.OK, Code.NOT_FOUND]


def test_an_empty_batch_has_no_results(store: mmc.Store) -> None:
    assert store.batch_put([], []) == store.batch_get([]) == store.batch_get_into([], []) == []
    assert store.batch_exists([]) == store.batch_query([]) == store.batch_remove([]) == store.batch_pin([]) == []
    assert store.batch_put_from([], [], []) == store.read_at([], [], []) == store.batch_commit([]) == []
    assert store.batch_reserve([], []) == ([], [])
    assert store.prefix_len([]) == 0


def test_a_batch_over_the_limit_is_refused_whole(store: mmc.Store) -> None:
    keys = [str(number) for number in range(16385)]
    for call in (store.batch_exists, store.prefix_len, store.batch_get, store.batch_remove, store.batch_query):
        with pytest.raises(mmc.InvalidParam, match="16384"):
            call(keys)
    with pytest.raises(mmc.InvalidParam, match="16384"):
        store.batch_put(keys, [b"1"] * len(keys))
    assert store.stats().stored_keys == 0
    assert store.batch_exists(keys[:-1]) == [False] * 16384


def test_the_prefix_that_is_there_is_counted_in_one_call(store: mmc.Store) -> None:
    keys = [f"block{number}" for number in range(10)]
    store.batch_put(keys, [b"1"] * 10)
    assert store.prefix_len(keys) == 10
    store.remove("block4")
    assert store.prefix_len(keys) == 4
    assert store.prefix_len(keys[5:], peek=True) == 5
    store.remove("block0")
    assert store.prefix_len(keys) == 0


def test_lists_of_another_length_than_the_keys_are_refused(store: mmc.Store) -> None:
    for call in (
        lambda: store.batch_put(["a", "b"], [b"1"]),
        lambda: store.batch_get_into(["a"], [bytearray(1), bytearray(1)]),
        lambda: store.batch_put_from(["a"], [1, 2], [1, 2]),
        lambda: store.batch_put_from(["a"], [1], [1, 2]),
        lambda: store.batch_put_from(["a", "b"], [[1], [2, 3]], [[1, 1], [1]]),
        lambda: store.batch_reserve(["a"], [1, 2]),
        lambda: store.read_at([1 << 40], [1, 2], [1, 2]),
    ):
        with pytest.raises(mmc.InvalidParam):
            call()
    assert store.stats().stored_keys == 0


def test_a_get_of_nothing_counts_as_a_miss(store: mmc.Store) -> None:
    with pytest.raises(mmc.NotFound):
        store.get("x")
    store.batch_get(["x", "y"])
    stats = store.stats()
    assert (stats.get_operations, stats.get_hits, stats.get_misses) == (3, 0, 3)


def test_peeking_is_no_use() -> None:
    """What was only peeked at goes first when room is needed, what was used stays."""
    block = bytes(MIB)
    with mmc.Store(dram=8 * MIB, watermark_high=100) as store:
        store.batch_put(["used", "peeked"], [block, block])
        store.batch_put([f"other{number}" for number in range(6)], [block] * 6)
        store.exists("used")
        store.exists("peeked", peek=True)
        store.get("peeked", peek=True)
        store.batch_get(["peeked"], peek=True)
        store.query("peeked", peek=True)
        store.prefix_len(["peeked"], peek=True)
        store.put("more", block)
        assert "used" in store and "peeked" not in store


def test_a_query_shows_size_copies_and_leases(store: mmc.Store) -> None:
    store.register_segment("DRAM", rank=3, capacity="4MiB")
    store.put("k", b"12345", replicas=2, preferred_ranks=[3])
    store.add_lease("k", 60_000)
    info = store.query("k")
    assert (info.size, info.readable, info.lease_count) == (5, True, 1)
    assert [(blob.medium, blob.rank) for blob in info.blobs] == [("DRAM", 3), ("DRAM", 0)]
    assert [segment.address for segment in store.segments()] == [info.blobs[1].address, info.blobs[0].address]


def test_remove_all_removes_all(store: mmc.Store) -> None:
    store.batch_put(["a", "b"], [b"1", b"2"])
    assert store.remove_all() == 2
    assert store.list_keys() == []
    assert store.stats().allocated == 0


def test_many_keys_are_listed_once_each(store: mmc.Store) -> None:
    keys = [f"key{number:05}" for number in range(5000)]
    store.batch_put(keys, [b"1"] * 5000)
    assert sorted(store.list_keys()) == keys


@pytest.mark.parametrize("given", [8 << 20, "8MiB", "8mb", "8192K", "8388608", "0.0078125GB"], ids=str)
def test_the_size_of_the_pool_is_a_number_or_a_text(given: object) -> None:
    with mmc.Store(dram=given) as store:  # type: ignore[arg-type]
        assert store.stats().capacity == 8 << 20


def test_a_store_without_memory_of_its_own_takes_it_later() -> None:
    for none in (None, 0, "0"):
        with mmc.Store(dram=none) as store:
            assert store.segments() == []
            with pytest.raises(mmc.NoSpace):
                store.put("k", b"1")
            store.register_segment(capacity=MIB)
            store.put("k", b"1")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dram": 4097}, "multiple of 4096"),
        ({"dram": "4QB"}, "4QB"),
        ({"rank": 70000}, "rank 70000"),
        ({"watermark_low": 90, "watermark_high": 80}, "watermark_low 90"),
        ({"http": "nowhere:port"}, "nowhere:port"),
        ({"http_token": "two words"}, "http_token"),
        ({"memory": "paper"}, "paper"),
        ({"log_level": "loud"}, "loud"),
        ({"numa_node": 5000}, "numa_node"),
        ({"eviction": "random"}, "random"),
        ({"share": "/run/mmc.sock"}, "share = /run/mmc.sock: must be unix:/path"),
        ({"share_mode": 0o1000}, "share_mode 1000 octal: must be 1 to 0777 octal"),
        ({"share_users": range(65)}, "share_users = 0,1,2"),
        ({"share_groups": [0, -1]}, "share_groups = 0,-1: must be at most 64 numbers"),
        ({"share_wait_ms": 86400001}, "share_wait_ms 86400001"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_wrong_setting_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mmc.Store(**settings)  # type: ignore[arg-type]


def test_settings_come_from_a_file_too(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "mmc.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write("mmc.dram_size = 3MiB\nmmc.rank = 9\n")
    with mmc.Store("", config_path=path) as store:
        assert [(segment.rank, segment.capacity) for segment in store.segments()] == [(9, 3 * MIB)]
    with mmc.Store(2 * MIB, config_path=path) as store:
        assert store.stats().capacity == 2 * MIB
    with pytest.raises(mmc.Io, match=r"nowhere\.conf"):
        mmc.Store(config_path="nowhere.conf")


def test_the_memory_of_a_store_that_is_shared_can_be_given_to_others(tmp_path: os.PathLike[str]) -> None:
    address = "unix:" + os.path.join(tmp_path, "s")
    with mmc.Store(MIB, share=address, share_mode=0o660, share_users=[0], share_groups=(), share_wait_ms=1) as store:
        assert [segment.memory for segment in store.segments()] == ["memfd"]


def test_the_admin_port_shows_the_same_store() -> None:
    with mmc.Store(dram=MIB, http="127.0.0.1:0", http_token="secret") as store:
        store.put("k", b"1")
        request = urllib.request.Request(
            f"http://{store.http_address}/get_all_keys", headers={"Authorization": "Bearer secret"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.read() == b"k\n"
        with pytest.raises(mmc.Io):
            mmc.Store(dram=MIB, http=store.http_address)


def test_without_an_admin_port_there_is_no_address(store: mmc.Store) -> None:
    assert store.http_address is None


def test_a_closed_store_refuses_everything_and_closes_again() -> None:
    store = mmc.Store(dram=MIB)
    store.put("k", b"1")
    assert not store.closed
    store.close()
    store.close()
    assert store.closed and "closed" in repr(store)
    for call in (
        lambda: store.get("k"),
        lambda: store.put("k", b"1"),
        lambda: store.exists("k"),
        lambda: store.batch_get(["k"]),
        lambda: store.batch_put(["k"], [b"1"]),
        lambda: store.prefix_len(["k"]),
        lambda: store.pin("k"),
        lambda: store.reserve("k", 1),
        store.list_keys,
        store.stats,
        store.segments,
        store.remove_all,
        lambda: store.http_address,
        lambda: store.register_segment(capacity=MIB),
        lambda: store.set_event_callback(None),
        lambda: store.read_at([1], [1], [1]),
    ):
        with pytest.raises(mmc.NotStarted):
            call()


def test_a_store_that_is_forgotten_warns_and_closes() -> None:
    store = mmc.Store(dram=MIB)
    handle = store._handle
    with pytest.warns(ResourceWarning, match="unclosed"):
        del store
    assert mmc._native.library.mmc_uninit(handle) == Code.NOT_STARTED


def test_stores_are_apart() -> None:
    with mmc.Store(dram=MIB) as one, mmc.Store(dram=MIB) as other:
        one.put("k", b"1")
        assert "k" in one and "k" not in other
