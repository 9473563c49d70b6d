"""Pointers and sizes as the calls give them: checked whole before anything is done, in steps of C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mmc
from mmc import _native

#: Numbers for each key: a list of int, array('Q'), or a numpy array of 64-bit integers.
Addresses = Any


def is_piece(buffer_ptr: Any, size: Any) -> bool:
    """Whether these are one pointer and its size, plain integers, and neither is 0."""
    return type(buffer_ptr) is int and type(size) is int and buffer_ptr != 0 and size != 0


def require_some(buffer_ptrs: Addresses, sizes: Addresses) -> None:
    if has_zero(buffer_ptrs) or has_zero(sizes):
        raise mmc.InvalidParam("a pointer is null, or a size 0, or an object has no layers")


def has_zero(values: Addresses) -> bool:
    """Whether a number is 0, or a list of them empty."""
    if hasattr(values, "all"):
        return not values.all()
    if not all(values):
        return True
    if not values or not hasattr(values[0], "__len__"):
        return False
    first = values[0]
    if isinstance(first, list) and values.count(first) == len(values):
        return not all(first)
    return not all(map(all, values))


def in_pieces(
    copy: Callable[[Any, Any, Any], list[int]], gva_ptrs: Addresses, buffer_ptrs: Addresses, sizes: Addresses
) -> list[int]:
    """A copy of any number of ranges, as many at once as the library takes."""
    count, most = len(gva_ptrs), _native.MAX_BATCH
    if count <= most:
        return copy(gva_ptrs, buffer_ptrs, sizes)
    codes: list[int] = []
    for begin in range(0, count, most):
        piece = slice(begin, begin + most)
        codes += copy(gva_ptrs[piece], buffer_ptrs[piece], sizes[piece])
    return codes
