"""KV blocks of a real geometry in arrays as engines have them, whose every byte tells where it belongs; and threads whose errors are raised again.

61 layers of two buffers, 512 and 64 wide, 16 bits an element, 128 tokens a page. The bytes of a block are one random pattern, other at each place, with the
checksum of its key laid over it: a page that holds another block, another layer or a mix of two is told from the right one.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch: Any = None
try:
    with warnings.catch_warnings():
        # What it has to say of itself while it is imported is no matter of these tests.
        warnings.simplefilter("ignore")
        import torch
except ImportError:
    pass

LAYERS, TOKENS, WIDTHS = 61, 128, (512, 64)
PAGE_SIZES = [TOKENS * width * 2 for width in WIDTHS]
LAYER_SIZE = sum(PAGE_SIZES)
BLOCK_SIZE = LAYERS * LAYER_SIZE

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"

#: Element types of a cache: numpy's, and those of torch where it is installed.
KINDS = [
    "numpy",
    *(
        pytest.param(name, marks=pytest.mark.skipif(torch is None, reason="torch is not installed"))
        for name in ("float16", "bfloat16")
    ),
]

Rows = list[list[int]]


def example(name: str) -> ModuleType:
    """A program of the examples, as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def _pattern() -> list[np.ndarray]:
    """For each buffer the words of all its layers."""
    rng = np.random.default_rng(61)
    return [rng.integers(0, 1 << 32, (LAYERS, size // 4), np.uint32) for size in PAGE_SIZES]


def _words(key: str, layer: int, buffer: int) -> np.ndarray:
    return _pattern()[buffer][layer] ^ np.uint32(zlib.crc32(key.encode()))


class Cache:
    """An engine's paged cache: in each layer a tensor for each buffer, whose rows are the pages."""

    def __init__(self, kind: str, pages: int) -> None:
        self.pages = list(range(pages))
        shapes = [(pages, TOKENS, width) for width in WIDTHS]
        if kind == "numpy":
            self.tensors = [[np.zeros(shape, np.uint16) for shape in shapes] for _ in range(LAYERS)]
            self._bases = [[tensor.ctypes.data for tensor in layer] for layer in self.tensors]
            self._words = [[tensor.view(np.uint32).reshape(pages, -1) for tensor in layer] for layer in self.tensors]
        else:
            dtype = getattr(torch, kind)
            self.tensors = [[torch.zeros(shape, dtype=dtype) for shape in shapes] for _ in range(LAYERS)]
            self._bases = [[tensor.data_ptr() for tensor in layer] for layer in self.tensors]
            # numpy has no bfloat16, so it looks at the same memory as bytes.
            self._words = [
                [tensor.view(torch.uint8).numpy().view(np.uint32).reshape(pages, -1) for tensor in layer]
                for layer in self.tensors
            ]

    def buffers(self) -> tuple[list[int], list[int]]:
        """Addresses and sizes of its tensors."""
        sizes = [len(self.pages) * size for size in PAGE_SIZES] * LAYERS
        return [base for layer in self._bases for base in layer], sizes

    def layer_of(self, layer: int, pages: Sequence[int]) -> tuple[Rows, Rows]:
        """Addresses and sizes of what a layer has of each of the pages."""
        rows = [[base + page * size for base, size in zip(self._bases[layer], PAGE_SIZES)] for page in pages]
        return rows, [PAGE_SIZES] * len(pages)

    def blocks_of(self, pages: Sequence[int]) -> tuple[Rows, Rows]:
        """The same of all layers."""
        layers = [self.layer_of(layer, pages)[0] for layer in range(LAYERS)]
        rows = [[address for row in parts for address in row] for parts in zip(*layers)]
        return rows, [PAGE_SIZES * LAYERS] * len(pages)

    def fill(self, keys: Sequence[str]) -> None:
        """Computes blocks: that of the first key in page 0, and so on."""
        for page, key in enumerate(keys):
            for layer, buffers in enumerate(self._words):
                for buffer, words in enumerate(buffers):
                    words[page] = _words(key, layer, buffer)

    def clear(self) -> None:
        for buffers in self._words:
            for words in buffers:
                words[:] = 0

    def holds(self, page: int, key: str) -> bool:
        """Whether every byte of the page is the key's."""
        return all(
            np.array_equal(words[page], _words(key, layer, buffer))
            for layer, buffers in enumerate(self._words)
            for buffer, words in enumerate(buffers)
        )

    def is_clear(self, page: int) -> bool:
        return not any(words[page].any() for buffers in self._words for words in buffers)


def run_threads(works: Sequence[Callable[[threading.Barrier], None]]) -> None:
    """Runs each on a thread of its own, with a barrier for all of them, and raises what one has raised."""
    barrier = threading.Barrier(len(works), timeout=60)

    def run(work: Callable[[threading.Barrier], None]) -> None:
        try:
            work(barrier)
        except BaseException:
            # The others must not wait for this one.
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(works)) as threads:
        ended = [threads.submit(run, work) for work in works]
    errors = [error for error in (one.exception() for one in ended) if error is not None]
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if errors:
        raise errors[0]
