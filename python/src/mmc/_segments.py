"""Segments that this process brings: memory of its own, and copy callbacks in Python for a device's.

A callback runs on the thread whose call it is, inside of that call. What it raises ends the call and is raised from it; nothing of a failed put is stored.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import Any, Callable, NamedTuple, Optional

from . import _native
from ._buffers import Buffers
from ._errors import Code, InvalidParam

GRAIN = 4096


class CopyOperation(NamedTuple):
    """Bytes to copy. Addresses are the host's: of the call's buffers, and in the segment counted from the base that it was registered with."""

    source: int
    destination: int
    #: Bytes.
    length: int


#: `copy(operations, to_segment, stream)`: copies and returns when the bytes are there. `stream` is the call's own, or None. Returns None or
#: 0, or a negative number, which is then the code of the put or get.
CopyCallback = Callable[[list[CopyOperation], bool, Optional[int]], Optional[int]]


class Registration:
    """What must stay for as long as a segment is registered: its callback, and the buffer whose memory it is."""

    def __init__(self, options: _native.SegmentOptions, memory: Any, copy: Optional[CopyCallback]) -> None:
        self._buffers: Optional[Buffers] = None
        if memory is not None:
            self._buffers = Buffers([memory], True)
            options.base, options.capacity = _inside(self._buffers)
        if copy is not None:
            self._callback = _native.COPY_CALLBACK(_calling(copy))
            options.copy = ctypes.cast(self._callback, ctypes.c_void_p)

    def release(self) -> None:
        """The memory is its owner's again."""
        if self._buffers is not None:
            self._buffers.release()


def _inside(buffers: Buffers) -> tuple[int, int]:
    """The part of a buffer that begins and ends at a multiple of 4096."""
    start, size = buffers.addresses[0], buffers.sizes[0]
    first = -(-start // GRAIN) * GRAIN
    end = (start + size) // GRAIN * GRAIN
    if end <= first:
        buffers.release()
        raise InvalidParam(f"memory of {size} bytes: no whole unit of {GRAIN} bytes lies in it")
    return first, end - first


def _calling(copy: CopyCallback) -> Callable[..., int]:
    def call(_context: Any, operations: int, count: int, direction: int, stream: Optional[int]) -> int:
        try:
            words = array("L", ctypes.string_at(operations, count * ctypes.sizeof(_native.CopyOperation)))
            code = copy(
                list(map(CopyOperation, words[0::3], words[1::3], words[2::3])), direction == _native.TO_SEGMENT, stream
            )
            return 0 if code is None else int(code)
        except BaseException as error:
            _native.keep_raised(error)
            return Code.FAILED.value

    return call
