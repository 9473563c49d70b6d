"""Many objects a call, with a result for each.

A batch is a chain: key i + 1 is taken to be of no use without key i, and eviction takes the tail before the head.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any, Optional

from . import _native
from ._arguments import Key, KeyArray, Keys, Results, pointers
from ._buffers import Buffers, flatten, new_bytes, require_count
from ._calls import KNOWN, error_of, first_error, flags_of, get_options, medium_number, put_options, spans_of
from ._errors import Code, NotFound
from ._native import check, library
from ._objects import Objects
from ._reports import ObjectInfo, object_info


class Batches(Objects):
    """The part of `Store` that deals with many objects a call."""

    def batch_put(
        self,
        keys: Keys,
        buffers: Sequence[Any],
        *,
        replicas: int = 1,
        preferred_ranks: Sequence[int] = (),
        medium: Optional[str] = None,
        stream: Optional[int] = None,
    ) -> list[int]:
        """Puts a buffer, or a list of buffers, under each key. A `Code` for each: OK, EXISTS, NO_SPACE, …

        No element is evicted for another of the same batch, and all become readable at the end.
        """
        options = put_options(replicas, preferred_ranks, medium, stream)
        require_count("buffers", len(buffers), len(keys))
        pieces, per_key = flatten(buffers)
        with Buffers(pieces, False) as held:
            return self._batch_put(KeyArray(keys), held.addresses, held.sizes, per_key, options)

    def batch_put_from(
        self,
        keys: Keys,
        addresses: Any,
        sizes: Any,
        *,
        replicas: int = 1,
        preferred_ranks: Sequence[int] = (),
        medium: Optional[str] = None,
        stream: Optional[int] = None,
    ) -> list[int]:
        """As `batch_put`, by address. `addresses`, `sizes`: a number for each key, or a list of numbers for each, the layers of its block.

        Lists of `int`, `array('Q')`, or numpy arrays of 64-bit integers of shape (keys,) or (keys, layers), which are taken as they are.
        """
        options = put_options(replicas, preferred_ranks, medium, stream)
        names = KeyArray(keys)
        data, lengths = pointers(names.count, addresses, sizes)
        return self._batch_put(names, data, lengths, data.per_key, options)

    def _batch_put(self, names: KeyArray, addresses: Any, sizes: Any, per_key: Any, options: Any) -> list[int]:
        (data, lengths, _), results = spans_of(addresses, sizes), Results(names.count)
        if per_key is None:
            code = library.mmc_batch_put(
                self._handle, names.address, names.count, data, lengths, options, 0, results.address
            )
        else:
            code = library.mmc_batch_putv(
                self._handle,
                names.address,
                names.count,
                per_key.buffer_info()[0],
                data,
                lengths,
                options,
                0,
                results.address,
            )
        return self._finished(code, results)

    def batch_get(self, keys: Keys, *, peek: bool = False, stream: Optional[int] = None) -> list[Optional[bytes]]:
        """The bytes of each object; None for one that is not there."""
        names = KeyArray(keys)
        results = Results(names.count)
        infos = _native.array_of(_native.ObjectInfo, names.count)
        check(library.mmc_batch_query(self._handle, names.address, names.count, _native.PEEK, infos, results.address))
        # An element that was not there is asked for, too: it may have come, and else counts as a miss.
        sizes = array("L", [size or 1 for size in _native.column(infos, "size", names.count)])
        found, addresses = new_bytes(sizes)
        codes = self._batch_get(names, addresses, sizes, None, peek, False, stream)
        return [
            data if code == Code.OK else self._get_again(key, code, peek, stream)
            for key, data, code in zip(keys, found, codes)
        ]

    def _get_again(self, key: Key, code: int, peek: bool, stream: Optional[int]) -> Optional[bytes]:
        """An object whose size has changed since it was looked up."""
        if code == Code.SIZE_MISMATCH:
            try:
                return self.get(key, peek=peek, stream=stream)
            except NotFound:
                return None
        if code == Code.NOT_FOUND:
            return None
        raise error_of(code, key)

    def batch_get_into(
        self,
        keys: Keys,
        buffers: Sequence[Any],
        *,
        peek: bool = False,
        up_to: bool = False,
        stream: Optional[int] = None,
    ) -> list[int]:
        """Copies each object into its buffer, or its list of buffers. A `Code` for each: OK, NOT_FOUND, SIZE_MISMATCH, …"""
        require_count("buffers", len(buffers), len(keys))
        pieces, per_key = flatten(buffers)
        with Buffers(pieces, True) as held:
            return self._batch_get(KeyArray(keys), held.addresses, held.sizes, per_key, peek, up_to, stream)

    def batch_get_to(
        self,
        keys: Keys,
        addresses: Any,
        sizes: Any,
        *,
        peek: bool = False,
        up_to: bool = False,
        stream: Optional[int] = None,
    ) -> list[int]:
        """As `batch_get_into`, by address; `addresses` and `sizes` as for `batch_put_from`."""
        names = KeyArray(keys)
        data, lengths = pointers(names.count, addresses, sizes)
        return self._batch_get(names, data, lengths, data.per_key, peek, up_to, stream)

    def _batch_get(
        self, names: KeyArray, addresses: Any, sizes: Any, per_key: Any, peek: bool, up_to: bool, stream: Optional[int]
    ) -> list[int]:
        (data, lengths, _), results = spans_of(addresses, sizes), Results(names.count)
        flags, options = flags_of(peek, up_to), get_options(stream)
        if per_key is None:
            code = library.mmc_batch_get(
                self._handle, names.address, names.count, data, lengths, flags, options, results.address, None
            )
        else:
            counts = per_key.buffer_info()[0]
            code = library.mmc_batch_getv(
                self._handle, names.address, names.count, counts, data, lengths, flags, options, results.address, None
            )
        return self._finished(code, results)

    def batch_exists(self, keys: Keys, *, peek: bool = False) -> list[bool]:
        """Which of the objects can be read. Never blocks."""
        codes = self._batch_exist(keys, peek)
        if not KNOWN.issuperset(codes):
            raise first_error(codes, keys)
        return [code == 0 for code in codes]

    def _batch_exist(self, keys: Keys, peek: bool = False) -> list[int]:
        return self._each_key(library.mmc_batch_exist, keys, flags_of(peek))

    def prefix_len(self, keys: Keys, *, peek: bool = False) -> int:
        """How many leading keys have readable objects: what of a prefix chain is there. Never blocks."""
        names, length = KeyArray(keys), ctypes.c_size_t()
        check(library.mmc_prefix_len(self._handle, names.address, names.count, flags_of(peek), ctypes.byref(length)))
        return length.value

    def batch_query(self, keys: Keys, *, peek: bool = False, reserved: bool = False) -> list[Optional[ObjectInfo]]:
        """Each object as `query` shows it; None for one that is not there. Never blocks."""
        names = KeyArray(keys)
        results = Results(names.count)
        infos, flags = _native.array_of(_native.ObjectInfo, names.count), flags_of(peek, reserved=reserved)
        check(library.mmc_batch_query(self._handle, names.address, names.count, flags, infos, results.address))
        codes = results.list()
        if not KNOWN.issuperset(codes):
            raise first_error(codes, keys)
        return [object_info(infos[number]) if code == 0 else None for number, code in enumerate(codes)]

    def batch_remove(self, keys: Keys) -> list[int]:
        """Removes objects. A `Code` for each: OK, NOT_FOUND, …"""
        return self._each_key(library.mmc_batch_remove, keys, 0)

    def evict(self, keys: Keys, source: str = "DRAM", target: str = "SSD") -> list[int]:
        """Moves objects to a slower medium. A `Code` for each: OK, NOT_FOUND, BUSY where it is pinned or leased, NO_SPACE, IO, …

        They can be read all the while. Blocks for the copies and the disk.
        """
        way = medium_number(source), medium_number(target)
        return self._each_key(library.mmc_evict, keys, *way, 0)

    def prefetch(self, keys: Keys, source: str = "SSD", target: str = "DRAM") -> list[int]:
        """Copies objects to a faster medium, so that they are there when they are wanted. A `Code` for each, as `evict`.

        What they have on `source` stays. Blocks for the copies and the disk.
        """
        way = medium_number(source), medium_number(target)
        return self._each_key(library.mmc_prefetch, keys, *way, 0)
