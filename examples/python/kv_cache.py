"""A toy engine with a KV cache: prompts come in as token ids, and what was computed for one is found again for the next.

    python examples/python/kv_cache.py

1. A prompt is cut into blocks of 128 tokens. Each gets a name by a hash over its tokens and the name before it, so that a key stands for all text up to the
   block's end: as attention looks back, the same 128 tokens after another beginning are another block. A rest that fills no block has no name.
2. `prefix_len` tells how many of these blocks the store has, from the first on.
3. `batch_get_into` copies them to the engine's pages. There a block is not one piece but a slice of each layer's arrays; in the store the list of
   these slices is one object.
4. What is missing is computed, here by a generator of random numbers that starts from the block's name, so that every byte can be checked; and stored by `batch_put`.

Then one block is computed straight into the store's memory (`reserve`), and one is read there (`pin`), both without a copy.
"""

from __future__ import annotations

import hashlib
from itertools import chain

import numpy as np

import mmc

BLOCK_TOKENS = 128
LAYERS, HEADS, HEAD_SIZE = 12, 8, 64
BLOCK_SHAPE = (LAYERS, 2, BLOCK_TOKENS, HEADS, HEAD_SIZE)  # 2: keys and values
BLOCK_SIZE = int(np.prod(BLOCK_SHAPE)) * 2  # bytes, of float16


def names_of(tokens: list[int]) -> list[str]:
    """The key of each full block of a prompt."""
    names, digest = [], b""
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        block = np.array(tokens[start : start + BLOCK_TOKENS], np.uint32)
        digest = hashlib.sha256(digest + block.tobytes()).digest()
        # The model and the precision belong to the name: another model's block of the same text is another block.
        names.append(f"toy-model/float16/{digest.hex()}")
    return names


def compute(name: str, out: list[np.ndarray]) -> None:
    """The forward pass of one block: fills its slices, layer by layer, first keys and then values."""
    rng = np.random.default_rng(int(name[-16:], 16))
    for array in out:
        array[...] = rng.random(array.shape, np.float32)


class Engine:
    """A model with a paged cache: for each layer an array of keys and an array of values, both of so many pages."""

    def __init__(self, store: mmc.Store, pages: int) -> None:
        self.store = store
        shape = (pages, *BLOCK_SHAPE[2:])
        self.cache = [[np.zeros(shape, np.float16) for _ in range(2)] for _ in range(LAYERS)]

    def page(self, number: int) -> list[np.ndarray]:
        """What a block is in this cache: a slice of each array."""
        return [array[number] for array in chain.from_iterable(self.cache)]

    def read(self, tokens: list[int]) -> tuple[int, int]:
        """Brings the blocks of a prompt to pages 0, 1, 2, …; how many there are, and how many of them the store had."""
        names = names_of(tokens)
        pages = [self.page(number) for number in range(len(names))]

        hits = self.store.prefix_len(names)
        codes = self.store.batch_get_into(names[:hits], pages[:hits])
        # Between question and answer a block may have been evicted: what follows it is computed again.
        hits = next((number for number, code in enumerate(codes) if code != mmc.Code.OK), hits)

        for name, page in zip(names[hits:], pages[hits:]):
            compute(name, page)
        codes = self.store.batch_put(names[hits:], pages[hits:])
        # NO_SPACE, say, would be no accident either: the block is in its page all the same.
        assert all(code in (mmc.Code.OK, mmc.Code.EXISTS) for code in codes)

        self.check(names, pages)
        return len(names), hits

    def check(self, names: list[str], pages: list[list[np.ndarray]]) -> None:
        """Every page has what the model computes for its block, wherever it came from."""
        expected = [np.empty_like(array) for array in self.page(0)]
        for name, page in zip(names, pages):
            compute(name, expected)
            assert all(map(np.array_equal, expected, page))


def compute_in_place(store: mmc.Store, name: str) -> None:
    """Computes a block into the store's memory. Nobody sees it before the `with` ends, and no array may lie over it any more then."""
    with store.reserve(name, BLOCK_SIZE) as view:
        compute(name, list(np.frombuffer(view, np.float16).reshape(-1, *BLOCK_SHAPE[2:])))


def mean_key(store: mmc.Store, name: str, layer: int) -> float:
    """Looks at one layer of a block where it lies; its memory stays there until the pin ends."""
    with store.pin(name) as view:
        block = np.frombuffer(view, np.float16).reshape(BLOCK_SHAPE)
        return float(block[layer, 0].mean(dtype=np.float32))


def main() -> None:
    rng = np.random.default_rng(7)
    system = rng.integers(0, 32_000, 4 * BLOCK_TOKENS).tolist()  # what every conversation begins with
    first = system + rng.integers(0, 32_000, 300).tolist()
    second = system + rng.integers(0, 32_000, 200).tolist()

    with mmc.Store(dram="256MiB") as store:
        engine = Engine(store, pages=16)
        for title, prompt in (("first", first), ("second", second), ("first again", first), ("other", second[1:])):
            blocks, hits = engine.read(prompt)
            print(
                f"{title:>11}: {len(prompt)} tokens, {blocks} full blocks, {hits} of them found, {blocks - hits} computed"
            )

        # The first prompt goes on: its next block is computed in place, and found like any other.
        answer = first + rng.integers(0, 32_000, BLOCK_TOKENS).tolist()
        name = names_of(answer)[-1]
        compute_in_place(store, name)
        blocks, hits = engine.read(answer)
        print(f"     answer: {len(answer)} tokens, {blocks} full blocks, {hits} of them found")
        print(f"the mean of the keys in its layer 3, read in place: {mean_key(store, name, 3):.4f}")

        statistics = store.stats()
        print(
            f"{statistics.stored_keys} blocks of {BLOCK_SIZE / 2**20:.0f} MiB in {statistics.allocated / 2**20:.0f} of "
            f"{statistics.capacity / 2**20:.0f} MiB; {statistics.get_hits} hits, {statistics.get_misses} misses, "
            f"{statistics.put_bytes / 2**20:.0f} MiB in, {statistics.get_bytes / 2**20:.0f} MiB out"
        )


if __name__ == "__main__":
    main()
