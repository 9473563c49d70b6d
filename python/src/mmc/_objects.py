"""One object a call: put, get, exist, query, remove, list.

The library takes a microsecond for a small object, so the usual call, one copy of one plain buffer, goes straight down to a function of `_ready`.
Everything else takes the general way behind it, a key or a buffer with anything odd about it too: that way knows what to make of it, or what to say.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any, Optional, Union

from . import _native, _ready
from ._arguments import Key, key_bytes, key_of, pointers
from ._buffers import Buffers, fresh_bytes
from ._calls import Handle, flags_of, get_options, listed, number_at, peek_flags, put_options, spans_of
from ._errors import Code
from ._native import check, library, sized
from ._ready import SIZES, piece_of, span_of
from ._reports import ObjectInfo, object_info

# What is raised for a key or a buffer that is odd or wrong, before anything is done.
_ODD = (TypeError, ValueError, BufferError)
_NOT_FOUND = Code.NOT_FOUND.value
_INFO_SIZE = ctypes.sizeof(_native.ObjectInfo)


class Objects(Handle):
    """The part of `Store` that deals with one object a call."""

    def put(
        self,
        key: Key,
        buffer: Any,
        *,
        replicas: int = 1,
        preferred_ranks: Sequence[int] = (),
        medium: Optional[str] = None,
        stream: Optional[int] = None,
    ) -> None:
        """Stores a copy of `buffer`, or of a list of buffers as one object, under `key`.

        `replicas`: copies, 1 to 8, each on another rank, `preferred_ranks` tried first. `medium`: "HBM" or "DRAM"; DRAM where there is any.
        `stream`: a number for copy callbacks.

        Raises `KeyExists`, and what is there stays; `NoSpace` when no room can be made; `OutOfMemory`. Nothing is stored then. Blocks for the copy, and for
        eviction where it must make room.
        """
        if replicas == 1 and not preferred_ranks and medium is None and stream is None:
            try:
                name = key.encode() if type(key) is str else key_bytes(key)
                data, size = (buffer, len(buffer)) if type(buffer) is bytes else span_of(buffer)
            except _ODD:
                pass
            else:
                code = _ready.put(self._ready_handle, name, SIZES[len(name)], data, SIZES[size], None)
                # Whoever keeps an exception keeps this frame, too, and must not hold the buffer with it.
                del data
                if code:
                    check(code)
                return
        options = put_options(replicas, preferred_ranks, medium, stream)
        with Buffers(buffer if isinstance(buffer, (list, tuple)) else (buffer,), False) as held:
            self._put(key, held.addresses, held.sizes, options)

    def put_from(
        self,
        key: Key,
        address: Union[int, Sequence[int]],
        size: Union[int, Sequence[int]],
        *,
        replicas: int = 1,
        preferred_ranks: Sequence[int] = (),
        medium: Optional[str] = None,
        stream: Optional[int] = None,
    ) -> None:
        """As `put`, of `size` bytes at `address`, or of as many pieces as both have numbers: memory that the caller keeps, or a device's."""
        options = put_options(replicas, preferred_ranks, medium, stream)
        piece = piece_of(address, size) if options is None else None
        if piece is not None:
            name, (data, room) = key_bytes(key), piece
            check(_ready.put(self._ready_handle, name, SIZES[len(name)], data, SIZES[room], None))
            return
        addresses, sizes = pointers(1, [listed(address)], [listed(size)])
        self._put(key, addresses, sizes, options)

    def _put(self, key: Key, addresses: Any, sizes: Any, options: Any) -> None:
        data, lengths, count = spans_of(addresses, sizes)
        if count == 1:
            check(library.mmc_put(self._handle, key_of(key), number_at(data), number_at(lengths), options))
        else:
            check(library.mmc_putv(self._handle, key_of(key), data, lengths, count, options))

    def get(self, key: Key, *, peek: bool = False, stream: Optional[int] = None) -> bytes:
        """The bytes of `key`.

        `peek`: it is no use of the object for eviction. Raises `NotFound`. Blocks for the copy.
        """
        name, options = key_bytes(key), get_options(stream)
        named = (self._ready_handle, name, SIZES[len(name)])
        flags = 0 if peek is False else peek_flags(peek)
        info = _native.ObjectInfo(_INFO_SIZE)
        while True:
            info.size = 1
            # One that is not there is asked for all the same: it may have come, and else counts as a miss.
            _ready.query(*named, _native.PEEK, ctypes.byref(info))
            data = fresh_bytes(info.size)
            code = _ready.get(*named, data, SIZES[len(data)], flags, options, None)
            if code == 0:
                return data
            # Another object may have come in its place meanwhile.
            if code != Code.SIZE_MISMATCH:
                check(code)

    def get_into(
        self, key: Key, buffer: Any, *, peek: bool = False, up_to: bool = False, stream: Optional[int] = None
    ) -> int:
        """Copies the object into `buffer`, or into a list of buffers, which may split it otherwise than the put did; returns its size in bytes.

        The buffers must be writable, and together as large as the object; with `up_to` the smaller of both is copied. `peek` as for
        `get`. Raises `NotFound`, `SizeMismatch`; the buffers are unchanged then. Blocks for the copy.
        """
        if stream is None and up_to is False and type(peek) is bool:
            try:
                name = key.encode() if type(key) is str else key_bytes(key)
                data, size = span_of(buffer)
            except _ODD:
                pass
            else:
                flags = _native.PEEK if peek else 0
                code = _ready.get(self._ready_handle, name, SIZES[len(name)], data, SIZES[size], flags, None, None)
                del data
                if code:
                    check(code)
                return size
        with Buffers(buffer if isinstance(buffer, (list, tuple)) else (buffer,), True) as held:
            return self._get(key, held.addresses, held.sizes, peek, up_to, stream)

    def get_to(
        self,
        key: Key,
        address: Union[int, Sequence[int]],
        size: Union[int, Sequence[int]],
        *,
        peek: bool = False,
        up_to: bool = False,
        stream: Optional[int] = None,
    ) -> int:
        """As `get_into`, to `size` bytes at `address`, or to as many pieces as both have numbers."""
        piece = piece_of(address, size) if stream is None and up_to is False and type(peek) is bool else None
        if piece is not None:
            name, (data, room) = key_bytes(key), piece
            flags = _native.PEEK if peek else 0
            check(_ready.get(self._ready_handle, name, SIZES[len(name)], data, SIZES[room], flags, None, None))
            return room
        addresses, sizes = pointers(1, [listed(address)], [listed(size)])
        return self._get(key, addresses, sizes, peek, up_to, stream)

    def _get(self, key: Key, addresses: Any, sizes: Any, peek: bool, up_to: bool, stream: Optional[int]) -> int:
        data, lengths, count = spans_of(addresses, sizes)
        name, flags, options = key_of(key), flags_of(peek, up_to), get_options(stream)
        true_size = ctypes.c_uint64()
        size = ctypes.byref(true_size)
        if count == 1:
            check(library.mmc_get(self._handle, name, number_at(data), number_at(lengths), flags, options, size))
        else:
            check(library.mmc_getv(self._handle, name, data, lengths, count, flags, options, size))
        return true_size.value

    def exists(self, key: Key, *, peek: bool = False) -> bool:
        """Whether the object can be read. Never blocks."""
        name = key.encode() if type(key) is str and key.isascii() else key_bytes(key)
        flags = 0 if peek is False else peek_flags(peek)
        code = _ready.exist(self._ready_handle, name, SIZES[len(name)], flags)
        if code == 0:
            return True
        if code != _NOT_FOUND:
            check(code)
        return False

    def __contains__(self, key: Key) -> bool:
        return self.exists(key, peek=True)

    def query(self, key: Key, *, peek: bool = False, reserved: bool = False) -> ObjectInfo:
        """Size, leases and copies of an object; with `reserved` also of one that is being written. Raises `NotFound`. Never blocks."""
        info = sized(_native.ObjectInfo)
        check(library.mmc_query(self._handle, key_of(key), flags_of(peek, reserved=reserved), ctypes.byref(info)))
        return object_info(info)

    def remove(self, key: Key) -> None:
        """Removes an object: its key is free at once, its memory when pins, leases and reads under way are done. Raises `NotFound`."""
        name = key.encode() if type(key) is str and key.isascii() else key_bytes(key)
        code = _ready.remove(self._ready_handle, name, SIZES[len(name)])
        if code:
            check(code)

    def remove_all(self) -> int:
        """Removes every object that is there from start to end; how many. Reserved ones stay."""
        removed = ctypes.c_uint64()
        check(library.mmc_remove_all(self._handle, ctypes.byref(removed)))
        return removed.value

    def list_keys(self) -> list[str]:
        """The keys of the readable objects. One that is there from start to end comes exactly once; nobody is stopped."""
        keys: list[str] = []

        def take(_context: Any, page: int, count: int) -> int:
            try:
                words = array("L", ctypes.string_at(page, 16 * count))
                keys.extend(ctypes.string_at(data, size).decode() for data, size in zip(words[0::2], words[1::2]))
                return 0
            except BaseException as error:
                _native.keep_raised(error)
                return 1

        check(library.mmc_list_keys(self._handle, _native.KEYS_CALLBACK(take), None))
        _native.raise_kept()
        return keys
