"""The backend of an engine over `memcache_hybrid`, with blocks of a real size: every byte that a load delivers is the right one.

It is the class of examples/python/engine_backend.py, driven as an engine drives it: from several threads, whole blocks and layer by layer, with a store that has room
and with one that has not. A load may miss; it must never bring bytes of another block.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from kv_blocks import BLOCK_SIZE, EXAMPLES, KINDS, LAYER_SIZE, LAYERS, Cache, example, run_threads  # noqa: E402

from memcache_hybrid import LocalConfig  # noqa: E402

engine_backend = example("engine_backend")

ERROR, NOT_FOUND, UNMATCHED_KEY, NO_LEASE = -1, -3007, -3102, -3106
WAYS = ["whole", "layerwise"]
OpenBackend = Callable[[int], Any]


@pytest.fixture
def open_backend() -> Iterator[OpenBackend]:
    """Opens backends of this process's store, with room for so many blocks."""
    opened: list[Any] = []

    def open_one(blocks: int) -> Any:
        config = LocalConfig()
        config.dram_size = str(blocks * BLOCK_SIZE)
        opened.append(engine_backend.EngineBackend(config=config))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


def keys_of(chain: str, count: int) -> list[str]:
    return [f"model-61@{chain}-{number:08x}@0" for number in range(count)]


def copy_layers(copy: Callable[..., int], transfer: Any, cache: Cache, layers: range = range(LAYERS)) -> None:
    """Copies layers of the blocks of a transfer, each to or from the page with its number in the chain."""
    for layer in layers:
        assert copy(transfer, layer * LAYER_SIZE, *cache.layer_of(layer, transfer.blocks)) == 0


def save(backend: Any, cache: Cache, keys: list[str], way: str) -> list[int]:
    """Saves a chain from the first pages. The codes of the blocks that it had to deal with."""
    if way == "whole":
        return backend.put(keys, *cache.blocks_of(range(len(keys))))
    saved = backend.begin_save(keys, [BLOCK_SIZE] * len(keys))
    copy_layers(backend.save_layer, saved, cache)
    return backend.finish_save(saved)


def load(backend: Any, cache: Cache, keys: list[str], way: str) -> list[int]:
    """Loads what is there of a chain to the first pages, and compares it. Which blocks these were."""
    cache.clear()
    if way == "whole":
        codes = backend.get(keys, *cache.blocks_of(range(len(keys))))
        assert set(codes) <= {0, NOT_FOUND}
        blocks = [block for block, code in enumerate(codes) if code == 0]
    else:
        loaded = backend.begin_load(keys)
        copy_layers(backend.load_layer, loaded, cache)
        assert backend.finish_load(loaded) == 0
        blocks = loaded.blocks
    for block, key in enumerate(keys):
        assert cache.holds(block, key) if block in blocks else cache.is_clear(block)
    return blocks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("saved", WAYS)
@pytest.mark.parametrize("loaded", WAYS)
def test_a_chain_comes_back_byte_for_byte(open_backend: OpenBackend, kind: str, saved: str, loaded: str) -> None:
    backend, keys = open_backend(4), keys_of("a", 3)
    computed, empty = Cache(kind, 3), Cache(kind, 3)
    for cache in (computed, empty):
        backend.register_buffer(*cache.buffers())
    computed.fill(keys)
    assert backend.exists(keys) == [0, 0, 0]
    assert save(backend, computed, keys, saved) == [0, 0, 0]
    assert backend.exists(keys) == [1, 1, 1]
    assert load(backend, empty, keys, loaded) == [0, 1, 2]
    # A key stands for its bytes: saving it again changes nothing.
    computed.clear()
    assert set(save(backend, computed, keys, saved)) <= {0}
    assert load(backend, empty, keys, loaded) == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ways", [("layerwise",), ("whole", "layerwise")], ids="-".join)
def test_threads_save_and_load_chains_that_overlap(open_backend: OpenBackend, kind: str, ways: tuple[str, ...]) -> None:
    backend = open_backend(16)
    # The first two blocks are everybody's, the next one is that of a pair, the last two are a thread's own.
    chains = [
        [*keys_of("all", 2), *keys_of(f"pair-{number // 2}", 1), *keys_of(f"own-{number}", 2)] for number in range(4)
    ]

    def work(number: int, barrier: threading.Barrier) -> None:
        own, way, cache = chains[number], ways[number % len(ways)], Cache(kind, 5)
        cache.fill(own)
        barrier.wait()
        assert set(save(backend, cache, own, way)) <= {0}
        # What another thread is still saving is missing yet, but not what is this one's alone.
        hits = load(backend, cache, own, "whole")
        assert {3, 4} <= set(hits)
        load(backend, cache, own, "layerwise")
        barrier.wait()
        for other in (number, (number + 1) % 4, (number + 2) % 4):
            assert load(backend, cache, chains[other], ways[(number + other) % len(ways)]) == [0, 1, 2, 3, 4]

    run_threads([partial(work, number) for number in range(4)])


def test_a_load_ends_at_the_first_block_that_is_missing(open_backend: OpenBackend) -> None:
    backend, keys, cache = open_backend(8), keys_of("a", 5), Cache("numpy", 5)
    cache.fill(keys)
    assert save(backend, cache, keys[:4], "whole") == [0] * 4
    # Its tail was never saved, then a block in the middle is gone: one way brings what is there, the other what is of use.
    for there, prefix in (([0, 1, 2, 3], [0, 1, 2, 3]), ([0, 1, 3], [0, 1])):
        assert load(backend, cache, keys, "whole") == there
        assert load(backend, cache, keys, "layerwise") == prefix
        backend.store.remove(keys[2])
    assert backend.begin_load(keys[4:]).keys == []
    assert load(backend, cache, keys[4:], "layerwise") == []
    # Of the block behind the hole, too, no lease is left.
    assert backend.store.batch_remove_lease([keys[3]]) == NO_LEASE


def test_a_block_that_another_thread_saves_is_left_to_it(open_backend: OpenBackend) -> None:
    backend, keys = open_backend(4), keys_of("a", 2)
    computed, empty = Cache("numpy", 2), Cache("numpy", 2)
    computed.fill(keys)
    saved = backend.begin_save(keys[:1], [BLOCK_SIZE])
    copy_layers(backend.save_layer, saved, computed, range(30))

    def other(_: threading.Barrier) -> None:
        for way in WAYS:
            assert set(save(backend, computed, keys, way)) <= {0}
        assert backend.exists(keys) == [0, 1]

    run_threads([other])
    copy_layers(backend.save_layer, saved, computed, range(30, LAYERS))
    assert backend.finish_save(saved) == [0]
    assert load(backend, empty, keys, "layerwise") == [0, 1]


def test_two_workers_that_save_a_block_write_to_one_place_and_its_first_end_counts(open_backend: OpenBackend) -> None:
    first, second, keys = open_backend(4), open_backend(4), keys_of("a", 1)
    computed, empty = Cache("numpy", 1), Cache("numpy", 1)
    computed.fill(keys)
    saved = first.begin_save(keys, [BLOCK_SIZE])
    copy_layers(first.save_layer, saved, computed, range(30))

    def other(_: threading.Barrier) -> None:
        again = second.begin_save(keys, [BLOCK_SIZE])
        assert again.bases == saved.bases
        copy_layers(second.save_layer, again, computed)
        assert second.exists(keys) == [0]
        assert second.finish_save(again) == [0]
        assert load(second, empty, keys, "layerwise") == [0]

    run_threads([other])
    # Readers have it now: what the first one still writes is taken, and changes nothing.
    computed.clear()
    copy_layers(first.save_layer, saved, computed)
    assert first.finish_save(saved) == [0]
    assert load(first, empty, keys, "whole") == [0]


@pytest.mark.slow
def test_a_pool_that_is_too_small_loses_blocks_and_never_mixes_them(open_backend: OpenBackend) -> None:
    backend = open_backend(9)
    kept, cache = keys_of("kept", 1), Cache("numpy", 1)
    cache.fill(kept)
    assert save(backend, cache, kept, "whole") == [0]
    leased = backend.begin_load(kept)
    chains = [[*keys_of("all", 2), *keys_of(f"own-{number}", 3)] for number in range(4)]
    hits = [0] * 4

    def work(number: int, barrier: threading.Barrier) -> None:
        own, computed, loaded = chains[number], Cache("numpy", 5), Cache("numpy", 5)
        computed.fill(own)
        barrier.wait()
        for turn in range(6):
            # There may be no room for a block: it is computed anew one day.
            assert set(save(backend, computed, own, WAYS[(number + turn) % 2])) <= {0, ERROR}
            for other in (number, (number + turn) % 4):
                hits[number] += len(load(backend, loaded, chains[other], WAYS[(number + turn // 2) % 2]))
            assert backend.exists(kept) == [1]

    run_threads([partial(work, number) for number in range(4)])
    asked = 4 * 6 * 2 * 5
    assert 0 < sum(hits) < asked
    # Fourteen blocks were stored over and over in the room of eight; the leased one has not moved.
    copy_layers(backend.load_layer, leased, cache)
    assert cache.holds(0, kept[0])
    assert backend.finish_load(leased) == 0
    # Nothing that was begun has been left open: with all of it ended, the whole room is there again.
    assert backend.store.remove_all() == 0
    assert 0 not in backend.store.batch_alloc(keys_of("new", 9), [BLOCK_SIZE] * 9)


def test_a_block_that_moves_while_its_load_begins_is_read_where_it_lies_now(
    open_backend: OpenBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, keys, others, cache = open_backend(6), keys_of("a", 1), keys_of("b", 2), Cache("numpy", 2)

    def store(chain: list[str]) -> None:
        cache.fill(chain)
        assert set(save(backend, cache, chain, "whole")) == {0}

    store(keys)
    add_lease = backend.store.batch_add_lease
    old = backend.store.batch_get_key_info(keys)[0].gva_list()

    def move_and_lease(*arguments: Any) -> list[int]:
        # As if it had been evicted, another had taken its place, and a third had saved it again.
        backend.store.remove_batch(keys)
        store(others)
        store(keys)
        return add_lease(*arguments)

    monkeypatch.setattr(backend.store, "batch_add_lease", move_and_lease)
    assert load(backend, cache, keys, "layerwise") == [0]
    assert backend.store.batch_get_key_info(keys)[0].gva_list() != old


def test_blocks_whose_copy_failed_are_dropped_and_their_room_is_free(open_backend: OpenBackend) -> None:
    backend, keys, cache = open_backend(4), keys_of("a", 3), Cache("numpy", 3)
    cache.fill(keys)
    # Room that a dropped block kept would be missing the next time.
    for _ in range(3):
        saved = backend.begin_save(keys, [BLOCK_SIZE] * 3)
        assert saved.blocks == [0, 1, 2]
        copy_layers(backend.save_layer, saved, cache, range(1))
        assert backend.finish_save(saved, [ERROR, ERROR, ERROR]) == [0, 0, 0]
        assert backend.exists(keys) == [0, 0, 0]
    saved = backend.begin_save(keys, [BLOCK_SIZE] * 3)
    copy_layers(backend.save_layer, saved, cache)
    assert backend.finish_save(saved, [0, ERROR, 0]) == [0, 0, 0]
    assert load(backend, cache, keys, "whole") == [0, 2]
    # A layer at a place that is none: the code of that copy drops the block, whatever is said at its end.
    cache.fill(keys)
    saved = backend.begin_save(keys, [BLOCK_SIZE] * 3)
    assert saved.blocks == [1]
    assert backend.save_layer(saved, 1 << 40, *cache.layer_of(0, [1])) == UNMATCHED_KEY
    assert backend.finish_save(saved, [0]) == [0]
    assert backend.exists(keys) == [1, 0, 1]
    assert save(backend, cache, keys, "layerwise") == [0]
    assert load(backend, cache, keys, "layerwise") == [0, 1, 2]


def test_blocks_that_are_removed_under_a_load_stay_until_its_end(open_backend: OpenBackend) -> None:
    backend, keys, others = open_backend(5), keys_of("a", 2), keys_of("b", 4)
    loaded = Cache("numpy", 2)
    loaded.fill(keys)
    assert save(backend, loaded, keys, "whole") == [0, 0]
    loaded.clear()
    transfer = backend.begin_load(keys)
    copy_layers(backend.load_layer, transfer, loaded, range(20))

    def other(_: threading.Barrier) -> None:
        assert backend.store.remove_batch(keys) == [0, 0]
        assert backend.exists(keys) == [0, 0]
        computed = Cache("numpy", 4)
        # One more than there is room for beside the two.
        for way in WAYS:
            computed.fill(others)
            assert set(save(backend, computed, others, way)) <= {0, ERROR}
            load(backend, computed, others, way)
            assert 0 in backend.exists(others)

    run_threads([other])
    copy_layers(backend.load_layer, transfer, loaded, range(20, LAYERS))
    assert all(loaded.holds(page, key) for page, key in enumerate(keys))
    # A lease is given back by its key, and that is free: it may be said to have none.
    assert backend.finish_load(transfer) in (0, NO_LEASE)
    assert backend.exists(keys) == [0, 0]


@pytest.mark.parametrize("name", ["quickstart", "kv_cache", "engine_backend"])
def test_an_example_runs_to_its_end(name: str) -> None:
    program = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") > 3
