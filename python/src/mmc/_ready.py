"""The library's functions for a call of one object, with arguments that are C values already.

For every argument of a function with `argtypes` ctypes calls a converter, a tenth of a microsecond each, and together more than the
library takes for a small object. The functions here declare none, so **nothing checks what they are given**:

- of the store's handle and of sizes, arguments that ctypes has made before, which may be given again and again: `argument_of_handle`, `SIZES`;
- of memory, what `span_of` or `piece_of` makes of it, or a `bytes`;
- of flags, the library's own, or `argument_of_flags` of what a caller gave: a bare integer goes as 32 bits;
- of a key, its two words: `bytes` and their size.

`mmc_key` is a struct by value. As second argument its two words go where two arguments would go, into the registers after that of the store: section 3.2.3
of the ABI of x86-64, rule C.12 of AArch64's. So they are given as two there, as to make the struct takes as long as the call. Where the
machine is another one, it is made.
Sources: https://gitlab.com/x86-psABIs/x86-64-ABI, https://github.com/ARM-software/abi-aa/blob/main/aapcs64/aapcs64.rst
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Optional

from . import _native

HAS_KEYS_AS_WORDS = os.uname().machine in ("x86_64", "aarch64")


def function_of(name: str, *, has_keys_as_words: bool = HAS_KEYS_AS_WORDS) -> Any:
    """A function whose first arguments are the store and a key, `bytes` and size; then come those that `mmc.h` names."""
    # As an item it is a function of its own, without the `argtypes` of the attribute.
    function = _native.library[name]
    function.restype = ctypes.c_int32
    if has_keys_as_words:
        return function

    def call(handle: Any, name: bytes, _size: Any, *arguments: Any) -> int:
        code: int = function(handle, _native.Key(name, len(name)), *arguments)
        return code

    return call


put = function_of("mmc_put")
get = function_of("mmc_get")
exist = function_of("mmc_exist")
query = function_of("mmc_query")
remove = function_of("mmc_remove")

argument_of_handle = ctypes.c_void_p.from_param
argument_of_flags = ctypes.c_uint32.from_param
_argument_of_size = ctypes.c_size_t.from_param
_argument_of_address = ctypes.c_void_p.from_param


class _Sizes(dict[int, Any]):
    """Sizes as arguments, by the size, which must be in range. The first ones are kept: keys and blocks of a model have few sizes."""

    __slots__ = ()
    _LIMIT = 1024

    def __missing__(self, size: int) -> Any:
        argument = _argument_of_size(size)
        if len(self) < self._LIMIT:
            self[size] = argument
        return argument


SIZES = _Sizes()

# An array of no elements goes as its address, like any array, and is made sooner than one that has some.
_start_of = (ctypes.c_char * 0).from_buffer


def span_of(buffer: Any) -> tuple[Any, int]:
    """The memory of a buffer, which is held for as long as this is, and its bytes.

    Raises `TypeError`, `ValueError` or `BufferError` for one that can't be written or does not lie in C order, and for what has no buffer protocol:
    `Buffers` knows what of that is wrong.
    """
    # The size that a view tells is true, whatever class the buffer is of.
    view = buffer if type(buffer) is memoryview else memoryview(buffer)
    return _start_of(view), view.nbytes


def piece_of(address: Any, size: Any) -> Optional[tuple[Any, int]]:
    """Memory by its address, and its bytes. None for what are no plain integers, or are out of range."""
    if type(address) is int and type(size) is int and not address >> 64 and not size >> 64:
        return _argument_of_address(address), size
    return None
