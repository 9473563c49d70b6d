"""Keys and addresses as the arrays that the library takes.

A batch of 128 keys with 61 layers each is 7808 numbers, so no step here is one of Python a number: the work is done by `join`, `map` and
`array`, whose "L" takes a number in a third of the time of "Q" and is as wide here. What is given as an array of 64-bit integers already (`array('Q')`, numpy, at best of two dimensions) is taken where it lies.
"""

from __future__ import annotations

import builtins
import ctypes
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, Optional, Union

from . import _native
from ._buffers import Buffers
from ._errors import InvalidParam

Key = Union[str, bytes]
Keys = Sequence[Key]


def key_bytes(key: Key) -> bytes:
    """The bytes of a key."""
    if isinstance(key, str):
        try:
            # Of a subclass, too, it is the text that counts.
            return str.encode(key)
        except UnicodeEncodeError as error:
            raise InvalidParam(f"key {key!r}: {error}") from None
    if isinstance(key, bytes):
        return key
    raise TypeError(f"a key must be str or bytes, not {type(key).__name__}")


def key_of(key: Key) -> _native.Key:
    """A key for a call. It keeps its bytes."""
    data = key_bytes(key)
    return _native.Key(data, len(data))


class KeyArray:
    """Keys of a batch as an array of `mmc_key` at `address`, kept for as long as this is."""

    __slots__ = ("_bytes", "_words", "address", "count")

    def __init__(self, keys: Iterable[Key]) -> None:
        if isinstance(keys, (str, bytes)):
            raise TypeError("keys must be a list of keys, not one key")
        if not isinstance(keys, (list, tuple)):
            keys = list(keys)
        self.count = len(keys)
        lengths: Any
        try:
            joined = "".join(keys)  # type: ignore[arg-type]
            # Of ASCII, as keys mostly are, the lengths in characters are those in bytes, and all are encoded at once.
            if not joined.isascii():
                raise TypeError
            self._bytes, lengths = joined.encode(), map(len, keys)
        except TypeError:
            encoded = list(map(key_bytes, keys))
            self._bytes, lengths = b"".join(encoded), map(len, encoded)
        sizes = list(lengths)
        base = ctypes.cast(ctypes.c_char_p(self._bytes), ctypes.c_void_p).value or 0
        words = [0] * (2 * self.count)
        words[0::2] = list(accumulate(sizes[:-1], initial=base))[: self.count]
        words[1::2] = sizes
        self._words = array("L", words)
        self.address = self._words.buffer_info()[0]


class Numbers:
    """64-bit numbers of a batch at `address`, `count` of them, and how many of them each key has; `None`: one each."""

    __slots__ = ("_kept", "address", "count", "per_key")

    def __init__(self, name: str, values: Any) -> None:
        """`values`: integers from 0 to 2^64 - 1, one a key, or a list (or row) of them a key."""
        self.per_key: Optional[array[int]] = None
        if isinstance(values, (list, tuple)):
            has_rows = len(values) > 0 and hasattr(values[0], "__len__")
            self._keep(self._join_rows(name, values) if has_rows else _array_of(name, values))
            return
        view = memoryview(values)
        if (
            view.itemsize != 8
            or view.format not in ("Q", "L", "q", "l")
            or not view.c_contiguous
            or view.ndim not in (1, 2)
        ):
            raise InvalidParam(f"{name}: must be contiguous 64-bit integers in one or two dimensions")
        if view.ndim == 2:
            rows, columns = view.shape  # type: ignore[misc]
            self.per_key = array("L", [columns]) * rows
        self._keep(view)

    def _keep(self, values: Union[array[int], memoryview]) -> None:
        # A view keeps its array from being resized meanwhile, and gives it back by itself.
        self._kept = values
        if isinstance(values, array):
            self.address, self.count = values.buffer_info()
        else:
            with Buffers([values], False) as held:
                self.address, self.count = held.addresses[0], held.sizes[0] // 8

    def _join_rows(self, name: str, rows: Sequence[Any]) -> Any:
        try:
            self.per_key = array("L", list(map(len, rows)))
        except TypeError:
            raise InvalidParam(f"{name}: either a number for each key, or a list of numbers for each") from None
        first = rows[0]
        if isinstance(first, list) and rows.count(first) == len(rows):
            # Sizes mostly: every key has the same layers.
            return _array_of(name, first) * len(rows)
        return _array_of(name, list(chain.from_iterable(rows)))


def _array_of(name: str, values: Iterable[Any]) -> array[int]:
    try:
        return array("L", values)
    except OverflowError as error:
        raise InvalidParam(f"{name}: {error}") from None
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def pointers(keys: int, addresses: Any, sizes: Any) -> tuple[Numbers, Numbers]:
    """Addresses and sizes of as many keys: one buffer a key, or as many as each key's list has."""
    data, lengths = Numbers("addresses", addresses), Numbers("sizes", sizes)
    if data.per_key != lengths.per_key or data.count != lengths.count:
        raise InvalidParam(f"sizes: {lengths.count} for {data.count} addresses, or split otherwise among the keys")
    given = data.count if data.per_key is None else len(data.per_key)
    if given != keys:
        raise InvalidParam(f"addresses: {given} for {keys} keys")
    return data, lengths


class Results:
    """Room for a code for each key."""

    __slots__ = ("_codes", "address")

    def __init__(self, count: int) -> None:
        self._codes = array("i", bytes(4 * count))
        self.address = self._codes.buffer_info()[0]

    def list(self) -> builtins.list[int]:
        """The codes, 0 or one of `Code`."""
        return self._codes.tolist()
