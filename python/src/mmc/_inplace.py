"""Writing and reading objects where they lie: reservations, pins, leases, and copies by pool address."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Optional, Union

from . import _native
from ._arguments import Key, KeyArray, Keys, Numbers, Results, key_of
from ._buffers import require_count
from ._calls import KNOWN, Handle, first_error, flags_of, get_options, put_options
from ._native import check, library, sized
from ._views import Pin, Reservation, take_tokens


class InPlace(Handle):
    """The part of `Store` that deals with objects where they lie."""

    def pin(self, key: Key, *, peek: bool = False) -> Pin:
        """Keeps the object's bytes where they are, to be read there without a copy: `with store.pin(key) as view: ...`.

        Eviction and `remove` leave the memory alone until the pin is closed and no array made from its view is there any more. Raises `NotFound`. Never blocks.
        """
        view = sized(_native.View)
        check(library.mmc_pin(self._handle, key_of(key), flags_of(peek), ctypes.byref(view)))
        return Pin(self, view)

    def batch_pin(self, keys: Keys, *, peek: bool = False) -> list[Optional[Pin]]:
        """Pins objects; None for one that is not there."""
        names = KeyArray(keys)
        results = Results(names.count)
        views = _native.array_of(_native.View, names.count)
        check(library.mmc_batch_pin(self._handle, names.address, names.count, flags_of(peek), views, results.address))
        codes = results.list()
        pins = [Pin(self, views[number]) if code == 0 else None for number, code in enumerate(codes)]
        if not KNOWN.issuperset(codes):
            raise first_error(codes, keys)
        return pins

    def batch_unpin(self, pins: Sequence[Optional[Pin]]) -> None:
        """Closes pins in one call; one whose view somebody else looks at ends with that."""
        self._end_all(library.mmc_batch_unpin, [pin for pin in pins if pin is not None])

    def reserve(
        self,
        key: Key,
        size: int,
        *,
        term_ms: int = 0,
        replicas: int = 1,
        preferred_ranks: Sequence[int] = (),
        medium: Optional[str] = None,
    ) -> Reservation:
        """Takes `key` and memory for `size` bytes, to be written there: `with store.reserve(key, size) as view: view[:] = ...`.

        Nobody sees the object before the commit. `term_ms`: milliseconds after which the key is free again, 60 seconds by default. Raises as
        `put` does. Blocks for eviction where it must make room.
        """
        view, options = sized(_native.View), put_options(replicas, preferred_ranks, medium, None, term_ms)
        check(library.mmc_reserve(self._handle, key_of(key), size, options, ctypes.byref(view)))
        return Reservation(self, view)

    def batch_reserve(
        self,
        keys: Keys,
        sizes: Any,
        *,
        term_ms: int = 0,
        replicas: int = 1,
        preferred_ranks: Sequence[int] = (),
        medium: Optional[str] = None,
    ) -> tuple[list[Optional[Reservation]], list[int]]:
        """Reserves objects; None where that failed. And a `Code` for each: OK, EXISTS, NO_SPACE, …"""
        options = put_options(replicas, preferred_ranks, medium, None, term_ms)
        views, codes = self._reserve_many(keys, sizes, options)
        return [Reservation(self, views[number]) if code == 0 else None for number, code in enumerate(codes)], codes

    def _reserve_many(self, keys: Keys, sizes: Any, options: Any) -> tuple[ctypes.Array[_native.View], list[int]]:
        names, lengths = KeyArray(keys), Numbers("sizes", sizes)
        results = Results(names.count)
        require_count("sizes", lengths.count, names.count)
        views = _native.array_of(_native.View, names.count)
        check(
            library.mmc_batch_reserve(
                self._handle, names.address, names.count, lengths.address, options, 0, views, results.address
            )
        )
        return views, results.list()

    def batch_commit(self, reservations: Sequence[Reservation]) -> list[int]:
        """Publishes reserved objects as a batch. A `Code` for each. Raises `BufferError`, and publishes none, while a view of one is in use."""
        codes = self._each_token(library.mmc_batch_commit, take_tokens(reservations))
        if self._has_copies:
            _native.raise_kept()
        return codes

    def batch_abort(self, reservations: Sequence[Reservation]) -> None:
        """Gives reserved objects up in one call; the memory of one whose view is in use goes with that."""
        self._end_all(library.mmc_batch_abort, reservations)

    def add_lease(self, key: Key, term_ms: int = 0) -> None:
        """Keeps every copy of the object where it is for `term_ms` milliseconds, 10 seconds by default. Leases count, each with its own end.

        Raises `NotFound`; `WrongState` while it is being written. Never blocks.
        """
        check(library.mmc_add_lease(self._handle, key_of(key), term_ms))

    def remove_lease(self, key: Key) -> None:
        """Ends the lease of the object that would end first. Raises `NoLease`, `NotFound`. Never blocks."""
        check(library.mmc_remove_lease(self._handle, key_of(key)))

    def batch_add_lease(self, keys: Keys, term_ms: int = 0) -> list[int]:
        """Leases objects. A `Code` for each: OK, NOT_FOUND, STATE, …"""
        return self._each_key(library.mmc_batch_add_lease, keys, term_ms, 0)

    def batch_remove_lease(self, keys: Keys) -> list[int]:
        """Ends a lease of each object. A `Code` for each: OK, NO_LEASE, NOT_FOUND, …"""
        return self._each_key(library.mmc_batch_remove_lease, keys, 0)

    def read_at(self, addresses: Any, buffers: Any, sizes: Any, *, stream: Optional[int] = None) -> list[int]:
        """Copies from pool addresses into memory of the caller: any range inside one object, which is readable, or removed but leased.

        `addresses`: pool addresses; `buffers`, `sizes`: as many addresses of memory and bytes; numbers as for `batch_put_from`, one an element.
        A `Code` for each: OK, NOT_FOUND where no object has such bytes, STATE while it is being written. Blocks for the copies.
        """
        return self._copy(addresses, buffers, sizes, _native.FROM_SEGMENT, stream)

    def write_at(self, addresses: Any, buffers: Any, sizes: Any, *, stream: Optional[int] = None) -> list[int]:
        """Copies from memory of the caller to pool addresses of reserved objects; else as `read_at`. STATE: the object is published already."""
        return self._copy(addresses, buffers, sizes, _native.TO_SEGMENT, stream)

    def _copy(self, addresses: Any, buffers: Any, sizes: Any, direction: int, stream: Optional[int]) -> list[int]:
        places, data, lengths = Numbers("addresses", addresses), Numbers("buffers", buffers), Numbers("sizes", sizes)
        require_count("buffers", data.count, places.count)
        require_count("sizes", lengths.count, places.count)
        results, options = Results(places.count), get_options(stream)
        code = library.mmc_batch_copy(
            self._handle,
            places.address,
            places.count,
            data.address,
            lengths.address,
            direction,
            0,
            options,
            results.address,
        )
        return self._finished(code, results)

    def _end_all(self, function: Any, ended: Sequence[Union[Pin, Reservation]]) -> None:
        tokens = []
        for one in ended:
            tokens.append(one._take_token())
            one.close()
        self._each_token(function, [token for token in tokens if token])
