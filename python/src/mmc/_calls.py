"""What the calls of a store have in common: its handle, options, flags, the results of a batch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Optional

from . import _native
from ._arguments import Key, KeyArray, Keys, Numbers, Results
from ._errors import Code, Error, InvalidParam
from ._native import check, library, sized
from ._ready import argument_of_flags


class Handle:
    """An open store as the library knows it. A handle is looked up there, not followed: one that was closed is refused."""

    _handle: int
    # The same as an argument of the functions of `_ready`.
    _ready_handle: Any
    # Whether a callback of Python may run inside of a call, which then may have raised.
    _has_copies: bool

    def _finished(self, code: int, results: Results) -> list[int]:
        """The codes of a batch, or what a callback has raised in it."""
        check(code)
        if self._has_copies:
            _native.raise_kept()
        return results.list()

    def _each_key(self, function: Any, keys: Keys, *arguments: int) -> list[int]:
        names = KeyArray(keys)
        results = Results(names.count)
        check(function(self._handle, names.address, names.count, *arguments, results.address))
        return results.list()

    def _each_token(self, function: Any, tokens: list[int]) -> list[int]:
        numbers, results = Numbers("tokens", tokens), Results(len(tokens))
        check(function(self._handle, numbers.address, numbers.count, 0, results.address))
        return results.list()


KNOWN = frozenset((Code.OK.value, Code.NOT_FOUND.value))


def error_of(code: int, key: Key) -> Error:
    return Error.of(code, f"key {key!r:.100}: {library.mmc_error_name(code).decode()}")


def first_error(codes: list[int], keys: Keys) -> Error:
    """The exception of the first element that is neither there nor missing, but wrong."""
    return next(error_of(code, key) for code, key in zip(codes, keys) if code not in KNOWN)


def listed(value: Any) -> Any:
    """One number as a list of one."""
    return [value] if isinstance(value, int) else value


def spans_of(addresses: Any, sizes: Any) -> tuple[int, int, int]:
    """Where addresses and sizes lie, and how many."""
    if isinstance(addresses, Numbers):
        return addresses.address, sizes.address, addresses.count
    data, count = addresses.buffer_info()
    return data, sizes.buffer_info()[0], count


def number_at(address: int) -> int:
    """The 64-bit number that lies there."""
    return ctypes.c_uint64.from_address(address).value


def flags_of(peek: bool = False, up_to: bool = False, reserved: bool = False) -> int:
    return peek * _native.PEEK | up_to * _native.GET_UP_TO | reserved * _native.QUERY_RESERVED


def peek_flags(peek: Any) -> Any:
    """`flags_of` what may be no `bool`, as an argument for the functions of `_ready`."""
    return _native.PEEK if peek is True else argument_of_flags(flags_of(peek))


def medium_number(medium: str) -> int:
    """The library's number of a medium. Raises `InvalidParam` for what is none."""
    if medium not in _native.MEDIA:
        raise InvalidParam(f'medium {medium!r}: must be "HBM", "DRAM" or "SSD"')
    return _native.MEDIA[medium]


def put_options(
    replicas: int, preferred_ranks: Sequence[int], medium: Optional[str], stream: Optional[int], term_ms: int = 0
) -> Any:
    if replicas == 1 and not preferred_ranks and medium is None and stream is None and term_ms == 0:
        return None
    options = sized(_native.PutOptions, replicas=replicas, stream=stream, term_ms=term_ms)
    options.medium = 0 if medium is None else medium_number(medium)
    options.preferred_ranks = (ctypes.c_uint32 * len(preferred_ranks))(*preferred_ranks)
    options.preferred_count = len(preferred_ranks)
    return ctypes.byref(options)


def get_options(stream: Optional[int]) -> Any:
    return None if stream is None else ctypes.byref(sized(_native.GetOptions, stream=stream))
