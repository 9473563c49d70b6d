"""What a call costs in Python: the time of a batch through `mmc`, beside the same call of the library with its arguments ready.

The difference is what Python, ctypes and the conversion of arguments take; per key for one buffer a key, per pointer for blocks of many
layers. Both are measured in turn, so that a machine that slows down does so for both; medians are printed, one JSON line a row. Calls of one
key come last, told in empty calls of ctypes, too, which is what any call of a library from Python takes at least.

    python benches/python/overhead.py --rounds 400 --batch 128 --size 4096 --layers 61
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any

import mmc
from mmc import _native, _ready
from mmc._arguments import KeyArray, Numbers, Results
from mmc._buffers import Buffers

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]

library = _native.library


def median_of(act: Callable[[], object], bare: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians of both in nanoseconds, called in turn."""
    times: tuple[list[int], list[int]] = ([], [])
    for number in range(rounds + rounds // 10):
        for which, call in enumerate((act, bare)):
            begin = time.perf_counter_ns()
            call()
            end = time.perf_counter_ns()
            if number >= rounds // 10:
                times[which].append(end - begin)
    return statistics.median(times[0]), statistics.median(times[1])


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        count, size = options.batch, options.size
        self.store = mmc.Store(dram=1 << 30, prefault=True, watermark_high=100)
        self.handle = self.store._handle
        self.keys = [f"model-7b@layers-0-61/tokens-128/chain-{number:016x}/rank-0000" for number in range(count)]
        self.names = KeyArray(self.keys)
        self.results = Results(count)
        # More than the processor's caches hold, so that every round meets cold memory, as an engine's is.
        self.sets = [[bytearray(size) for _ in range(count)] for _ in range(options.sets)]
        self.flat = [self.arguments(buffers) for buffers in self.sets]
        self.turn = 0

    def arguments(self, buffers: list[bytearray]) -> tuple[Any, Any]:
        held = Buffers(buffers, True)
        held.release()
        return Numbers("addresses", held.addresses), Numbers("sizes", held.sizes)

    def next(self) -> int:
        self.turn = (self.turn + 1) % len(self.sets)
        return self.turn

    def clear(self) -> None:
        library.mmc_batch_remove(self.handle, self.names.address, self.names.count, 0, self.results.address)

    def put_bare(self, addresses: Any, sizes: Any) -> None:
        code = library.mmc_batch_put(
            self.handle,
            self.names.address,
            self.names.count,
            addresses.address,
            sizes.address,
            None,
            0,
            self.results.address,
        )
        assert code == 0

    def get_bare(self, addresses: Any, sizes: Any) -> None:
        code = library.mmc_batch_get(
            self.handle,
            self.names.address,
            self.names.count,
            addresses.address,
            sizes.address,
            0,
            None,
            self.results.address,
            None,
        )
        assert code == 0

    def row(self, what: str, act: Callable[[], object], bare: Callable[[], object], per: int, unit: str) -> float:
        whole, alone = median_of(act, bare, self.options.rounds)
        return self.show(what, whole, alone, per, unit)

    def show(self, what: str, whole: float, alone: float, per: int, unit: str, **more: float) -> float:
        cost = (whole - alone) / per
        line = {
            "what": what,
            "unit": unit,
            "whole_ns": round(whole / per, 1),
            "library_ns": round(alone / per, 1),
            "python_ns": round(cost, 1),
            "python_share": round((whole - alone) / whole, 3),
            **more,
        }
        print(json.dumps(line), flush=True)
        return cost

    def run(self) -> dict[str, float]:
        count, options = self.options.batch, self.options
        costs: dict[str, float] = {}

        def flat(what: str, act: Callable[[], object], bare: Callable[[], object]) -> None:
            costs[what] = self.row(what, act, bare, count, "key")

        def put() -> None:
            self.store.batch_put(self.keys, self.sets[self.next()])
            self.clear()

        def put_bare() -> None:
            self.put_bare(*self.flat[self.next()])
            self.clear()

        flat("batch_put of bytearrays", put, put_bare)
        self.put_bare(*self.flat[0])
        flat(
            "batch_get_into bytearrays",
            lambda: self.store.batch_get_into(self.keys, self.sets[self.next()]),
            lambda: self.get_bare(*self.flat[self.next()]),
        )
        lists = [(list(addresses._kept), list(sizes._kept)) for addresses, sizes in self.flat]
        flat(
            "batch_get_to lists of addresses",
            lambda: self.store.batch_get_to(self.keys, *lists[self.next()]),
            lambda: self.get_bare(*self.flat[self.next()]),
        )
        flat(
            "batch_exists",
            lambda: self.store.batch_exists(self.keys),
            lambda: library.mmc_batch_exist(self.handle, self.names.address, self.names.count, 0, self.results.address),
        )
        length = ctypes.c_size_t()
        flat(
            "prefix_len",
            lambda: self.store.prefix_len(self.keys),
            lambda: library.mmc_prefix_len(self.handle, self.names.address, self.names.count, 0, ctypes.byref(length)),
        )
        self.numpy_rows(flat)
        self.layered_rows(costs, options.layers)
        self.single_rows(costs)
        return costs

    def numpy_rows(self, flat: Callable[[str, Callable[[], object], Callable[[], object]], None]) -> None:
        if np is None:
            return
        sets = [[np.frombuffer(buffer, np.uint16) for buffer in buffers] for buffers in self.sets]
        flat(
            "batch_get_into numpy arrays",
            lambda: self.store.batch_get_into(self.keys, sets[self.next()]),
            lambda: self.get_bare(*self.flat[self.next()]),
        )

    def layered_rows(self, costs: dict[str, float], layers: int) -> None:
        """Objects of `size` bytes in as many pieces as a block has layers: it is the pointers that are many."""
        count, piece = self.options.batch, self.options.size // layers
        self.clear()
        pointers, sizes = [], [[piece] * layers for _ in range(count)]
        for buffers in self.sets:
            held = Buffers(buffers, True)
            held.release()
            pointers.append([[start + layer * piece for layer in range(layers)] for start in held.addresses])
        ragged = [[piece] * (layers - 1) + [piece - number % 2] for number in range(count)]
        data, lengths = Numbers("addresses", pointers[0]), Numbers("sizes", sizes)
        counts = array("Q", [layers]) * count
        self.store.batch_put_from(self.keys, pointers[0], sizes)

        def bare(lengths: Numbers) -> Callable[[], None]:
            def call() -> None:
                code = library.mmc_batch_getv(
                    self.handle,
                    self.names.address,
                    count,
                    counts.buffer_info()[0],
                    data.address,
                    lengths.address,
                    _native.GET_UP_TO,
                    None,
                    self.results.address,
                    None,
                )
                assert code == 0

            return call

        rows: list[tuple[str, Any, Any, Any]] = [
            ("layers, lists of equal sizes", pointers[0], sizes, lengths),
            ("layers, lists of other sizes", pointers[0], ragged, Numbers("sizes", ragged)),
        ]
        if np is not None:
            rows.append(("layers, numpy arrays", np.array(pointers[0], np.uint64), np.array(sizes, np.uint64), lengths))
        for what, addresses, given, bare_lengths in rows:
            costs[what] = self.row(
                what,
                lambda addresses=addresses, given=given: self.store.batch_get_to(
                    self.keys, addresses, given, up_to=True
                ),
                bare(bare_lengths),
                count * layers,
                "pointer",
            )

    def single_rows(self, costs: dict[str, float]) -> None:
        """Calls of one key: all keys are put, looked for, got and removed by the package, and then with the arguments ready."""
        store, handle, room = self.store, self.store._ready_handle, _ready.SIZES[self.options.size]
        keys, names = self.keys, [key.encode() for key in self.keys]
        size = _ready.SIZES[len(names[0])]
        # Views, as of a program that cuts its blocks out of one large buffer.
        views = [[memoryview(buffer) for buffer in buffers] for buffers in self.sets]
        places = [[_ready.span_of(buffer)[0] for buffer in buffers] for buffers in self.sets]
        version = library.mmc_abi_version
        passes: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
            "put": (
                lambda turn: [store.put(key, view) for key, view in zip(keys, views[turn])],
                lambda turn: [_ready.put(handle, name, size, at, room, None) for name, at in zip(names, places[turn])],
            ),
            "exists": (
                lambda _: [store.exists(key) for key in keys],
                lambda _: [_ready.exist(handle, name, size, 0) for name in names],
            ),
            "get_into": (
                lambda turn: [store.get_into(key, view) for key, view in zip(keys, views[turn])],
                lambda turn: [
                    _ready.get(handle, name, size, at, room, 0, None, None) for name, at in zip(names, places[turn])
                ],
            ),
            "get": (
                lambda _: [store.get(key) for key in keys],
                lambda turn: [
                    _ready.get(handle, name, size, at, room, 0, None, None) for name, at in zip(names, places[turn])
                ],
            ),
            "remove": (
                lambda _: [store.remove(key) for key in keys],
                lambda _: [_ready.remove(handle, name, size) for name in names],
            ),
            "empty call": (lambda _: [version() for _ in names], lambda _: None),
        }
        times: dict[str, tuple[list[int], list[int]]] = {what: ([], []) for what in passes}
        self.clear()
        for _ in range(self.options.rounds):
            for which in (0, 1):
                for what, both in passes.items():
                    turn = self.next()
                    begin = time.perf_counter_ns()
                    both[which](turn)
                    times[what][which].append(time.perf_counter_ns() - begin)
        medians = {what: [statistics.median(some) for some in both] for what, both in times.items()}
        empty, _ = medians.pop("empty call")
        for what, (whole, alone) in medians.items():
            more = {"empty_calls": round(whole / empty, 1)}
            costs[what] = self.show(f"single {what}", whole, alone, len(keys), "call", **more)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400, help="calls of each kind (400)")
    parser.add_argument("--batch", type=int, default=128, help="keys a call (128)")
    parser.add_argument("--size", type=int, default=4096, help="bytes an object (4096)")
    parser.add_argument("--layers", type=int, default=61, help="pointers a key in the layered rows (61)")
    parser.add_argument("--sets", type=int, default=128, help="buffers a key, taken in turn (128)")
    options = parser.parse_args()
    bench = Bench(options)
    with bench.store:
        bench.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
