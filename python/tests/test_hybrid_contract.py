"""The calls of `memcache_hybrid` and what they answer to what can be meant; `test_hybrid_refusals` has the rest."""

from __future__ import annotations

import ctypes
import inspect
from array import array
from typing import Any, Callable, Optional

import pytest
from conftest import own_only
from hybrid_support import (
    EMPTY_INFO,
    MIB,
    NO_RANK,
    Memory,
    addresses_of,
    answers_without_a_store,
    calls_without_a_store,
    joined,
    local_config,
    open_store,
    pieces,
    pool,
    replicas,
    sizes_of,
    store_fixture,
)

import memcache_hybrid
import mmc
from memcache_hybrid import DistributedObjectStore, KeyInfo, ReplicateConfig

Store = DistributedObjectStore

store = store_fixture(dram_size="8MB")

SIGNATURES = """
    setup(config)
    init(device_id, init_bm=True)
    close()
    get_local_service_id()
    put(key, buf, replicateConfig=...)
    put_batch(keys, values, replicateConfig=...)
    put_from(key, buffer_ptr, size, direct=3, replicateConfig=...)
    batch_put_from(keys, buffer_ptrs, sizes, direct=3, replicateConfig=...)
    put_from_layers(key, buffer_ptrs, sizes, direct=3, replicateConfig=...)
    batch_put_from_layers(keys, buffer_ptrs, sizes, direct=3, replicateConfig=...)
    get(key)
    get_batch(keys)
    get_into(key, buffer_ptr, size, direct=2)
    batch_get_into(keys, buffer_ptrs, sizes, direct=2)
    get_into_layers(key, buffer_ptrs, sizes, direct=2)
    batch_get_into_layers(keys, buffer_ptrs, sizes, direct=2)
    is_exist(key)
    batch_is_exist(keys)
    get_key_info(key, flag=1)
    batch_get_key_info(keys, flag=1)
    remove(key)
    remove_batch(keys)
    remove_all()
    register_buffer(buffer_ptr, size)
    unregister_buffer(buffer_ptr, size)
    batch_alloc(keys, sizes, media=1, leaseTtlMs=0)
    batch_copy(gva_ptrs, buffer_ptrs, sizes, direct=1, flag=0)
    batch_copy_layers(gva_ptrs, buffer_ptrs, sizes, direct=1, flag=0)
    batch_write_finish(keys, res)
    batch_add_lease(keys, leaseTtlMs=0)
    batch_remove_lease(keys)
    evict(keys, src_media=1, dst_media=2, flags=0)
    prefetch(keys, src_media=2, dst_media=1, flags=0)
"""


def test_the_module_has_the_names_that_engines_import() -> None:
    names = {"DistributedObjectStore", "KeyInfo", "LocalConfig", "MetaConfig", "MetaService", "ReplicateConfig"}
    assert names <= set(memcache_hybrid.__all__)
    assert all(isinstance(getattr(memcache_hybrid, name), type) for name in names)


@pytest.mark.parametrize("signature", [line.strip() for line in SIGNATURES.strip().splitlines()])
def test_a_call_has_the_parameters_and_defaults_of_the_contract(signature: str) -> None:
    name = signature.partition("(")[0]
    parameters = list(inspect.signature(getattr(Store, name)).parameters.values())[1:]
    assert all(parameter.kind == parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)

    def shown(parameter: inspect.Parameter) -> str:
        if parameter.default is parameter.empty:
            return parameter.name
        is_config = isinstance(parameter.default, ReplicateConfig)
        return f"{parameter.name}={'...' if is_config else parameter.default}"

    assert f"{name}({', '.join(map(shown, parameters))})" == signature


def test_every_call_without_a_store_is_listed() -> None:
    names = {line.strip().partition("(")[0] for line in SIGNATURES.strip().splitlines()}
    assert {name for name, _, _ in calls_without_a_store()} == names - {"setup", "init", "close"}


# Lifetime


def test_setup_precedes_init_and_both_answer_0() -> None:
    store = Store()
    assert store.setup(local_config(dram_size="1MB")) == 0
    assert store.init(device_id=0, init_bm=True) == 0
    assert store.init(0) == 0
    assert store.setup(config=local_config(dram_size="2MB")) == -3005
    assert store.close() == 0
    assert store.close() == 0


def test_an_instance_answers_minus_3019_before_init_and_after_close() -> None:
    store = Store()
    assert answers_without_a_store(store) == []
    assert store.close() == 0
    assert store.setup(local_config(dram_size="1MB")) == 0
    assert answers_without_a_store(store) == []
    assert store.init(0) == 0
    assert store.put("k", b"data") == 0
    assert store.close() == 0
    assert answers_without_a_store(store) == []


def test_an_instance_may_be_opened_again_and_is_empty_then() -> None:
    store = open_store(dram_size="1MB")
    assert store.put("k", b"data") == 0
    assert store.close() == 0
    assert store.init(0) == 0
    assert store.is_exist("k") == 0
    assert store.put("k", b"other") == 0
    assert store.get("k") == b"other"
    assert store.close() == 0


def test_a_device_has_a_number() -> None:
    store = Store()
    assert store.init(-1) == -3000
    with pytest.raises(TypeError):
        store.init("0")  # type: ignore[arg-type]
    assert answers_without_a_store(store) == []


def test_the_local_service_id_is_the_rank(store: Store) -> None:
    assert store.get_local_service_id() == 0
    assert Store().get_local_service_id() == NO_RANK


# Put and get


def test_what_is_put_is_got_whatever_kind_of_buffer_it_was(store: Store) -> None:
    buffers: list[Any] = [b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), array("I", [1, 2])]
    for number, buffer in enumerate(buffers):
        assert store.put(f"k{number}", buffer) == 0
    expected = [memoryview(buffer).tobytes() for buffer in buffers]
    assert [store.get(f"k{number}") for number in range(4)] == expected
    assert store.get_batch(["k0", "x", "k3"]) == [expected[0], b"", expected[3]]
    assert all(type(data) is bytes for data in store.get_batch(["k0", "x"]))


def test_what_is_put_may_change_afterwards(store: Store) -> None:
    data = bytearray(b"before")
    assert store.put("k", data) == 0
    data[:] = b"after!"
    assert store.get("k") == b"before"


@pytest.mark.parametrize("value", ["text", 5, None, [b"a"]], ids=repr)
def test_what_is_no_buffer_is_a_type_error(store: Store, value: Any) -> None:
    with pytest.raises(TypeError):
        store.put("k", value)
    with pytest.raises(TypeError):
        store.put_batch(["k", "l"], [b"data", value])
    assert store.batch_is_exist(["k", "l"]) == [0, 0]


def test_every_put_stores_what_every_get_gets(store: Store) -> None:
    content = bytes(range(256)) * 41
    whole, parts = Memory(content), pieces(content, [1, 4096, 4096, 2303])
    places, sizes = addresses_of(parts), sizes_of(parts)
    puts: list[Callable[[str], Any]] = [
        lambda key: store.put(key=key, buf=content),
        lambda key: store.put_batch(keys=[key], values=[content]),
        lambda key: store.put_from(key=key, buffer_ptr=whole.address, size=whole.size),
        lambda key: store.batch_put_from(keys=[key], buffer_ptrs=[whole.address], sizes=[whole.size])[0],
        lambda key: store.put_from_layers(key=key, buffer_ptrs=places, sizes=sizes),
        lambda key: store.batch_put_from_layers(keys=[key], buffer_ptrs=[places], sizes=[sizes])[0],
    ]
    for number, put in enumerate(puts):
        key = f"k{number}"
        assert put(key) == 0
        outs = [[Memory(len(content))], [Memory(len(content))], pieces(bytes(len(content)), [10000, 496])]
        more = pieces(bytes(len(content)), [1] * 96 + [10400])
        assert store.get(key=key) == content
        assert store.get_batch(keys=[key]) == [content]
        assert store.get_into(key=key, buffer_ptr=outs[0][0].address, size=len(content)) == 0
        assert store.batch_get_into(keys=[key], buffer_ptrs=addresses_of(outs[1]), sizes=[len(content)]) == [0]
        assert store.get_into_layers(key=key, buffer_ptrs=addresses_of(outs[2]), sizes=sizes_of(outs[2])) == 0
        assert store.batch_get_into_layers(keys=[key], buffer_ptrs=[addresses_of(more)], sizes=[sizes_of(more)]) == [0]
        assert [joined(out) for out in (*outs, more)] == [content] * 4


def test_keys_may_have_different_numbers_of_layers(store: Store) -> None:
    first, second = pieces(b"abcdef", [1, 2, 3]), pieces(b"xyz", [3])
    keys, places, sizes = ["a", "b"], [addresses_of(first), addresses_of(second)], [[1, 2, 3], [3]]
    assert store.batch_put_from_layers(keys, places, sizes) == [0, 0]
    assert store.get_batch(keys) == [b"abcdef", b"xyz"]
    back, one = pieces(bytes(6), [3, 3]), Memory(3)
    assert store.batch_get_into_layers(keys, [addresses_of(back), [one.address]], [[3, 3], [3]]) == [0, 0]
    assert joined(back) + one.content == b"abcdefxyz"


def test_pointers_and_sizes_may_be_arrays(store: Store) -> None:
    numpy = pytest.importorskip("numpy")
    keys = ["a", "b"]
    data = numpy.arange(48, dtype=numpy.uint8).reshape(2, 3, 8)
    places = data.ctypes.data + 8 * numpy.arange(6, dtype=numpy.uint64).reshape(2, 3)
    sizes = numpy.full((2, 3), 8, dtype=numpy.uint64)
    assert store.batch_put_from_layers(keys, places, sizes) == [0, 0]
    assert store.put("array", data) == 0
    assert store.get("array") == data.tobytes()
    out = numpy.zeros_like(data)
    starts = array("Q", [out.ctypes.data, out.ctypes.data + 24])
    assert store.batch_get_into(keys, starts, array("Q", [24, 24])) == [0, 0]
    assert (out == data).all()


@pytest.mark.parametrize("direct", range(-1, 6))
def test_puts_take_0_and_3_and_gets_1_and_2(store: Store, direct: int) -> None:
    data, out = Memory(b"data"), Memory(4)
    place, back = data.address, out.address
    put = [
        store.put_from("a", place, 4, direct),
        *store.batch_put_from(["b"], [place], [4], direct),
        store.put_from_layers("c", [place], [4], direct),
        *store.batch_put_from_layers(["d"], [[place]], [[4]], direct),
    ]
    assert put == [0 if direct in (0, 3) else -1] * 4
    assert store.batch_is_exist(["a", "b", "c", "d"]) == [int(direct in (0, 3))] * 4

    assert store.put("k", b"data") == 0
    gets: list[Callable[[], int]] = [
        lambda: store.get_into("k", back, 4, direct),
        lambda: store.batch_get_into(["k"], [back], [4], direct)[0],
        lambda: store.get_into_layers("k", [back], [4], direct),
        lambda: store.batch_get_into_layers(["k"], [[back]], [[4]], direct)[0],
    ]
    for get in gets:
        out = Memory(4)
        back = out.address
        assert get() == (0 if direct in (1, 2) else -1)
        assert out.content == (b"data" if direct in (1, 2) else bytes(4))


def test_a_put_of_an_existing_key_leaves_the_first_value(store: Store) -> None:
    other = Memory(b"other")
    assert store.put("k", b"first") == 0
    assert store.put("k", b"other value") == 0
    assert store.put_from("k", other.address, 5) == 0
    assert store.put_from_layers("k", [other.address], [5]) == 0
    assert store.put_batch(["k", "l", "l"], [b"other", b"1", b"2"]) == 0
    assert store.batch_put_from(["k", "m", "m"], [other.address] * 3, [5, 5, 4]) == [0, 0, 0]
    assert store.batch_put_from_layers(["k"], [[other.address]], [[5]]) == [0]
    assert store.get_batch(["k", "l", "m"]) == [b"first", b"1", b"other"]


# What a get says


@pytest.mark.parametrize("size", [1, 3, 5, 4096])
def test_a_get_of_another_size_or_of_nothing_is_minus_1_and_leaves_the_buffer(store: Store, size: int) -> None:
    out = Memory(b"#" * size)
    assert store.put("k", b"data") == 0
    for key in ("k", "x"):
        assert store.get_into(key, out.address, size) == -1
        assert store.get_into_layers(key, [out.address], [size]) == -1
    assert out.content == b"#" * size
    assert store.get("x") == b""


@pytest.mark.parametrize(
    ("keys", "sizes", "codes"),
    [
        (["k"], [4], [0]),
        (["x"], [4], [-3007]),
        (["k"], [5], [-3012]),
        (["k", "l"], [5, 5], [-3012, -3012]),
        (["k", "l"], [4, 5], [0, -3007]),
        (["k", "x"], [4, 4], [0, -3007]),
        (["x", "l", "k"], [4, 3, 4], [-3007, -3007, 0]),
        (["x", "k"], [4, 5], [-3007, -3012]),
        (["k", "k"], [4, 4], [0, 0]),
    ],
)
def test_a_batch_of_gets_says_what_became_of_each(
    store: Store, keys: list[str], sizes: list[int], codes: list[int]
) -> None:
    assert store.put_batch(["k", "l"], [b"data", b"more"]) == 0
    values = {"k": b"data", "l": b"more"}
    expected = [values[key] if code == 0 else b"#" * size for key, size, code in zip(keys, sizes, codes)]
    outs = [Memory(b"#" * size) for size in sizes]
    assert store.batch_get_into(keys, addresses_of(outs), sizes) == codes
    assert [out.content for out in outs] == expected
    layers = [[Memory(b"#"), Memory(b"#" * (size - 1))] for size in sizes]
    layer_sizes = [sizes_of(row) for row in layers]
    assert store.batch_get_into_layers(keys, list(map(addresses_of, layers)), layer_sizes) == codes
    assert list(map(joined, layers)) == expected


# What is there


def test_existence_and_removal(store: Store) -> None:
    assert store.put_batch(["a", "b", "c"], [b"1", b"2", b"3"]) == 0
    assert store.is_exist("a") == 1
    assert store.is_exist("x") == 0
    assert store.batch_is_exist(["a", "x", "c", "a"]) == [1, 0, 1, 1]
    assert store.remove("a") == 0
    assert store.remove("a") == -3102
    assert store.remove_batch(["a", "b", "b"]) == [-3102, 0, -3102]
    assert store.batch_is_exist(["a", "b", "c"]) == [0, 0, 1]
    assert store.remove_all() == 0
    assert store.remove_all() == 0
    assert store.is_exist("c") == 0


def test_a_leased_object_can_be_removed(store: Store) -> None:
    assert store.put_batch(["a", "b"], [b"1", b"2"]) == 0
    assert store.batch_add_lease(["a", "b"]) == [0, 0]
    assert store.remove("a") == 0
    assert store.is_exist("a") == 0
    assert store.remove_all() == 0
    assert store.is_exist("b") == 0


def test_key_info_says_where_an_object_lies(store: Store) -> None:
    assert store.put("k", b"hello, world") == 0
    info = store.get_key_info("k")
    assert isinstance(info, KeyInfo)
    assert (info.size(), info.loc_list(), info.type_list()) == (12, [0], [1])
    (address,) = info.gva_list()
    assert 0 < address < 2**63
    assert str(info) == f"loc:0, type:1, gva:{address}, blobNum:1, size:12"
    infos = store.batch_get_key_info(["x", "k"], flag=1)
    assert list(map(str, infos)) == [EMPTY_INFO, str(info)]


@own_only
def test_key_info_names_every_copy_and_its_medium(store: Store) -> None:
    device = Memory(2 * MIB)
    assert pool().register_segment("DRAM", rank=1, capacity=MIB) > 0
    base = -(-device.address // MIB) * MIB
    assert pool().register_segment("HBM", rank=0, base=base, capacity=MIB, copy=move) > 0
    assert store.put("two", b"data", replicas(2)) == 0
    assert store.put("far", b"data", replicas(1, [1])) == 0
    assert store.batch_alloc(["device"], [4], media=0) != [0]
    two, far, on_device = store.batch_get_key_info(["two", "far", "device"], 0)
    first, second = two.gva_list()
    assert (sorted(two.loc_list()), two.type_list(), two.size()) == ([0, 1], [1, 1], 4)
    ranks = ",".join(map(str, two.loc_list()))
    assert str(two) == f"loc:{ranks}, type:1,1, gva:{first},{second}, blobNum:2, size:4"
    assert (far.loc_list(), far.type_list()) == ([1], [1])
    assert (on_device.loc_list(), on_device.type_list(), on_device.size()) == ([0], [0], 4)
    assert store.get_batch(["two", "far"]) == [b"data", b"data"]
    assert store.batch_write_finish(["device"], [1]) == [0]


def move(operations: list[mmc.CopyOperation], _to_segment: bool, _stream: Optional[int]) -> None:
    for source, destination, length in operations:
        ctypes.memmove(destination, source, length)


def test_key_info_of_nothing_is_empty(store: Store) -> None:
    for info in (store.get_key_info("x"), store.get_key_info("x", flag=0), *store.batch_get_key_info(["x"], 0)):
        assert (info.size(), info.loc_list(), info.type_list(), info.gva_list()) == (0, [], [], [])
        assert str(info) == EMPTY_INFO


# Buffers and media


def test_buffers_are_registered_and_unregistered_as_often_as_one_likes(store: Store) -> None:
    memory = Memory(8192)
    for call in (store.register_buffer, store.unregister_buffer):
        assert call(buffer_ptr=memory.address, size=memory.size) == 0
        assert call(memory.address, memory.size) == 0
        assert call(0, memory.size) == -3000
        assert call(memory.address, 0) == -3000
    assert store.put_from("k", memory.address, memory.size) == 0


def test_media_moves_are_refused_while_there_is_no_disk(store: Store) -> None:
    assert store.put("k", b"data") == 0
    for call, back in ((store.evict, (2, 1)), (store.prefetch, (1, 2))):
        assert call([]) == 0
        assert call(["k"]) == -1
        assert call(["k"], *back) == -3000
        assert call([""]) == -3000
    assert store.get("k") == b"data"
