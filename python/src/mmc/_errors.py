"""Exceptions: one class for each code of the library that a program may want to tell apart.

The code is `Error.code`, the sentence of the library its text: the function, what was wrong, the value, the limit.
Source of the numbers: `include/mmc.h`.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Code(enum.IntEnum):
    """What a batch says of one of its elements. Equal to the number: `results[0] == 0` and `results[0] == Code.OK` are the same."""

    OK = 0
    FAILED = -1
    INVALID_PARAM = -3000
    NO_SPACE = -3001
    NOT_STARTED = -3003
    TIMEOUT = -3004
    EXISTS = -3006
    NOT_FOUND = -3007
    SIZE_MISMATCH = -3012
    OUT_OF_MEMORY = -3016
    STATE = -3101
    NO_LEASE = -3106
    FORKED = -4001
    BUSY = -4002
    UNSUPPORTED = -4003
    DISCONNECTED = -4004
    IO = -4005
    INTERNAL = -4006


class Error(Exception):
    """Whatever the library refuses or fails at. `code` is its number, a `Code` or a copy callback's own."""

    code: int = Code.FAILED
    _of_code: ClassVar[dict[int, type[Error]]] = {}

    def __init_subclass__(cls, code: Code) -> None:
        cls.code = code
        Error._of_code[code] = cls

    @staticmethod
    def of(code: int, message: str) -> Error:
        """The exception for a code; the base class for one that has none of its own."""
        error = Error._of_code.get(code, Error)(message)
        error.code = code
        return error


class InvalidParam(Error, ValueError, code=Code.INVALID_PARAM):
    """An argument is wrong; nothing was done."""


class NoSpace(Error, code=Code.NO_SPACE):
    """No run of the object's size is free of pinned, leased and reserved memory; or no segment is that large."""


class NotStarted(Error, code=Code.NOT_STARTED):
    """The store was closed."""


class Timeout(Error, TimeoutError, code=Code.TIMEOUT):
    """The term of the reservation had passed: its key is free again."""


class KeyExists(Error, code=Code.EXISTS):
    """The key is taken; what is there stays."""


class NotFound(Error, LookupError, code=Code.NOT_FOUND):
    """No readable object has this key, or no such segment, address, pin or reservation."""


class SizeMismatch(Error, ValueError, code=Code.SIZE_MISMATCH):
    """The buffers are not as large as the object together."""


class OutOfMemory(Error, MemoryError, code=Code.OUT_OF_MEMORY):
    """No memory for the library's own tables, or for a segment."""


class WrongState(Error, code=Code.STATE):
    """The object is not in the state that the call needs: still being written, or published already."""


class NoLease(Error, LookupError, code=Code.NO_LEASE):
    """No lease is held on the object."""


class Forked(Error, code=Code.FORKED):
    """The store belongs to the parent of this process; a child may open one of its own."""


class Busy(Error, code=Code.BUSY):
    """Something is still in use; nothing has changed."""


class Unsupported(Error, code=Code.UNSUPPORTED):
    """Not available here, or not yet."""


class Disconnected(Error, code=Code.DISCONNECTED):
    """The process that owns the pool has gone, or the connection to it broke."""


class Io(Error, code=Code.IO):
    """An operating system call failed."""


class Internal(Error, code=Code.INTERNAL):
    """A defect of the library, caught before it reached this process."""
