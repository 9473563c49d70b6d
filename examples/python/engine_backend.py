"""How an engine keeps its KV blocks in a pool behind `memcache_hybrid`: the class that stands between its attention layers and the store.

    python examples/python/engine_backend.py

A block is what the model has computed of some tokens: in each layer one page of every buffer that the layer's cache consists of. The store knows it as
one object, the layers one after the other, under a key that stands for the tokens and all before them. There are two ways to move it:

- whole: `put` and `get`, one call for all layers of all blocks, when the forward pass is over or before it begins;
- layer by layer, while the pass computes the next one: space is taken once (`begin_save`), each layer is copied to its place in it
  (`save_layer`), and only `finish_save` shows the blocks to others. Loading goes the same way, under leases instead of reservations.

A pool address means its block for as long as that is reserved or leased, and another one's memory after that. So `begin_load` takes its leases before it asks where
the blocks lie, and a block has one writer at a time: what one thread is storing, another leaves to it.

The class needs what the package and this drop-in have in common. `main` runs it over arrays of a real geometry and compares every byte; for the package, start its
service first, and name your settings file in MMC_LOCAL_CONFIG_PATH.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Optional

import numpy as np

from memcache_hybrid import DistributedObjectStore, LocalConfig

COPY_L2G, COPY_G2L = 0, 1  # device to pool, pool to device
LEASE_MS = 300_000  # longer than any forward pass; `finish_load` ends it

Rows = list[list[int]]  # for each block the addresses, or the bytes, of its buffers in their order


@dataclass
class Transfer:
    """Blocks that are on their way layer by layer."""

    keys: list[str]
    blocks: list[int]  # which of the keys that were asked for these are
    bases: list[int]  # where each begins in the pool
    code: int = 0  # the first one of a layer that was not 0


class EngineBackend:
    """The KV pool of one worker. Any thread may call it; the addresses are of memory that stays, such as the engine's cache."""

    def __init__(self, device_id: int = 0, config: Optional[LocalConfig] = None) -> None:
        self.store = DistributedObjectStore()
        code = 0 if config is None else self.store.setup(config)
        code = code or self.store.init(device_id)
        if code != 0:
            raise RuntimeError(f"the KV pool can't be opened: code {code}")
        self._lock = threading.Lock()
        self._storing: set[str] = set()

    def close(self) -> None:
        self.store.close()

    def register_buffer(self, ptrs: list[int], sizes: list[int]) -> None:
        """Says where the engine's cache lies, once, at its start."""
        for ptr, size in zip(ptrs, sizes):
            if self.store.register_buffer(ptr, size) != 0:
                raise RuntimeError(f"buffer of {size} bytes at {ptr:#x} can't be registered")

    def exists(self, keys: list[str]) -> list[int]:
        """1 for each block that is there."""
        return self.store.batch_is_exist(keys)

    # Whole blocks

    def put(self, keys: list[str], ptrs: Rows, sizes: Rows) -> list[int]:
        """Stores blocks. A code for each; 0 also for one that is there, or that another thread is storing."""
        mine = self._claim(keys)
        taken = [keys[block] for block in mine]
        try:
            codes = self.store.batch_put_from_layers(
                taken, [ptrs[block] for block in mine], [sizes[block] for block in mine], COPY_L2G
            )
        finally:
            self._give_back(taken)
        code_of = dict(zip(mine, codes))
        return [code_of.get(block, 0) for block in range(len(keys))]

    def get(self, keys: list[str], ptrs: Rows, sizes: Rows) -> list[int]:
        """Loads blocks. A code for each; the buffers of one that is not there are unchanged."""
        return self.store.batch_get_into_layers(keys, ptrs, sizes, COPY_G2L)

    # Layer by layer

    def begin_save(self, keys: list[str], sizes: list[int]) -> Transfer:
        """Takes space for the blocks that are missing, of so many bytes each. What it returns must be given to `finish_save`, whatever happens."""
        mine = self._claim(keys)
        found = self.exists([keys[block] for block in mine])
        missing = [block for block, is_there in zip(mine, found) if is_there != 1]
        bases = self.store.batch_alloc([keys[block] for block in missing], [sizes[block] for block in missing])
        got = [(block, base) for block, base in zip(missing, bases) if base != 0]
        blocks = [block for block, _ in got]
        self._give_back([keys[block] for block in set(mine).difference(blocks)])
        return Transfer([keys[block] for block in blocks], blocks, [base for _, base in got])

    def save_layer(self, save: Transfer, offset: int, ptrs: Rows, sizes: Rows) -> int:
        """Copies one layer, which begins `offset` bytes into a block: for each block of `save` the buffers that it has in this layer."""
        return self._copy_layer(save, offset, ptrs, sizes, COPY_L2G)

    def finish_save(self, save: Transfer, results: Optional[list[int]] = None) -> list[int]:
        """Shows the blocks whose result is 0 to everybody, and drops the others; none is shown when a copy has failed. A code for each."""
        if results is None or save.code != 0:
            results = [save.code] * len(save.keys)
        try:
            return self.store.batch_write_finish(save.keys, results)
        finally:
            self._give_back(save.keys)

    def begin_load(self, keys: list[str]) -> Transfer:
        """Keeps the blocks of a chain where they are, up to the first that is missing: what comes after that one is of no use."""
        leases = self.store.batch_add_lease(keys, LEASE_MS)
        infos = self.store.batch_get_key_info(keys)
        holes = (block for block, code in enumerate(leases) if code != 0 or infos[block].size() == 0)
        hits = next(holes, len(keys))
        useless = [key for key, code in zip(keys[hits:], leases[hits:]) if code == 0]
        if useless:
            self.store.batch_remove_lease(useless)
        return Transfer(keys[:hits], list(range(hits)), [info.gva_list()[0] for info in infos[:hits]])

    def load_layer(self, load: Transfer, offset: int, ptrs: Rows, sizes: Rows) -> int:
        """As `save_layer`, out of the pool."""
        return self._copy_layer(load, offset, ptrs, sizes, COPY_G2L)

    def finish_load(self, load: Transfer) -> int:
        """Gives the blocks back to eviction."""
        return self.store.batch_remove_lease(load.keys) if load.keys else 0

    def _copy_layer(self, transfer: Transfer, offset: int, ptrs: Rows, sizes: Rows, direct: int) -> int:
        # The buffers of a layer follow each other in the block.
        rows = (accumulate(row[:-1], initial=base + offset) for base, row in zip(transfer.bases, sizes))
        addresses = list(chain.from_iterable(rows))
        code = self.store.batch_copy(
            addresses, list(chain.from_iterable(ptrs)), list(chain.from_iterable(sizes)), direct
        )
        transfer.code = transfer.code or code
        return code

    def _claim(self, keys: list[str]) -> list[int]:
        """Which of the blocks nobody else is storing; they are this thread's until `_give_back`."""
        with self._lock:
            mine = [block for block, key in enumerate(keys) if key not in self._storing]
            self._storing.update(keys[block] for block in mine)
            return mine

    def _give_back(self, keys: list[str]) -> None:
        with self._lock:
            self._storing.difference_update(keys)


LAYERS, TOKENS, WIDTHS = 61, 128, (512, 64)  # of a model with latent attention: two buffers a layer, 128 tokens a page


class PagedCache:
    """The engine's cache: in each layer an array for each buffer, whose rows are the pages."""

    def __init__(self, pages: int) -> None:
        self.layers = [[np.zeros((pages, TOKENS, width), np.uint16) for width in WIDTHS] for _ in range(LAYERS)]
        self.page_sizes = [array[0].nbytes for array in self.layers[0]]

    def layer_of(self, number: int, pages: list[int]) -> tuple[Rows, Rows]:
        """Addresses and sizes of what one layer has of each of the pages."""
        rows = [[array.ctypes.data + page * array[0].nbytes for array in self.layers[number]] for page in pages]
        return rows, [self.page_sizes] * len(pages)

    def blocks_of(self, pages: list[int]) -> tuple[Rows, Rows]:
        """The same of all layers."""
        layers = [self.layer_of(number, pages)[0] for number in range(LAYERS)]
        rows = [list(chain.from_iterable(parts)) for parts in zip(*layers)]
        return rows, [self.page_sizes * LAYERS] * len(pages)


def main() -> None:
    rng = np.random.default_rng(1)
    pages = [0, 1, 2, 3]
    computed, loaded = PagedCache(len(pages)), PagedCache(len(pages))
    for array in chain.from_iterable(computed.layers):
        array[:] = rng.integers(0, 1 << 16, array.shape, np.uint16)
    layer_size = sum(computed.page_sizes)
    block_size = LAYERS * layer_size
    print(f"a block: {LAYERS} layers, {len(WIDTHS)} buffers each, {TOKENS} tokens: {block_size / 2**20:.2f} MiB")

    def compare(way: str, hits: int, saved: list[int]) -> None:
        """`hits` blocks have been loaded, of pages that were saved from those named."""
        for source, target in zip(chain.from_iterable(computed.layers), chain.from_iterable(loaded.layers)):
            assert np.array_equal(source[saved[:hits]], target[:hits])
            target[:] = 0
        print(f"{way}: {hits} of {len(saved)} blocks loaded, every byte is right")

    backend = EngineBackend()
    for cache in (computed, loaded):
        arrays = list(chain.from_iterable(cache.layers))
        backend.register_buffer([array.ctypes.data for array in arrays], [array.nbytes for array in arrays])

    keys = [f"demo-model@{number:016x}@0" for number in pages]
    assert backend.put(keys, *computed.blocks_of(pages)) == [0] * len(keys)
    assert backend.get(keys, *loaded.blocks_of(pages)) == [0] * len(keys)
    compare("whole", len(keys), pages)

    # Of a longer chain under other keys, of which the store has no block yet. The pages come in any order.
    keys = [f"demo-model@{number:016x}@0" for number in range(4, 8)]
    order = [2, 0, 3, 1]
    save = backend.begin_save(keys, [block_size] * len(keys))
    own = [order[block] for block in save.blocks]
    for number in range(LAYERS):
        assert backend.save_layer(save, number * layer_size, *computed.layer_of(number, own)) == 0
    assert backend.exists(keys) == [0] * len(keys)  # nobody sees half a block
    assert backend.finish_save(save) == [0] * len(keys)

    for way, expected in (("layer by layer", 4), ("with a hole", 2)):
        load = backend.begin_load(keys)
        assert len(load.keys) == expected
        for number in range(LAYERS):
            assert backend.load_layer(load, number * layer_size, *loaded.layer_of(number, load.blocks)) == 0
        assert backend.finish_load(load) == 0
        compare(way, expected, order)
        backend.store.remove(keys[2])
    backend.close()


if __name__ == "__main__":
    main()
