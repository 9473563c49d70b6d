"""Buffers of the caller, held for a call.

Whatever has the buffer protocol is taken through it: the exporter keeps its memory where it is, and a `bytearray` refuses to be
resized, until the buffer is given back. Contiguous in C or Fortran order is enough, as bytes are copied as they lie. Arrays that
can't export their type (bfloat16) and tensors of torch, which have no buffer protocol, are asked for their address; the caller's reference keeps them.

A batch takes its buffers in one sweep without a step of Python a buffer. `PyObject_GetBuffer` and `PyBuffer_Release` are the
interpreter's own functions, called with its lock held. Source: https://docs.python.org/3/c-api/buffer.html
"""

from __future__ import annotations

import ctypes
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

from ._errors import InvalidParam
from ._ready import SIZES

# PyBUF_ANY_CONTIGUOUS, and with PyBUF_WRITABLE.
_READ, _WRITE = 0x98, 0x99
# Words of a Py_buffer, and two of them.
_WORDS = 10
_BYTES = 8 * _WORDS
_ADDRESS, _LENGTH = 0, 2

_at = ctypes.c_char.from_buffer
_nbytes = attrgetter("nbytes")
_view: Callable[[Any], memoryview] = memoryview

_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_get.restype = ctypes.c_int
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.c_void_p,)
_release.restype = None
# Of None and one of `SIZES`.
_new_bytes: Any = ctypes.pythonapi["PyBytes_FromStringAndSize"]
_new_bytes.restype = ctypes.py_object
_bytes_address = ctypes.pythonapi.PyBytes_AsString
_bytes_address.argtypes = (ctypes.py_object,)
_bytes_address.restype = ctypes.c_void_p


class Buffers:
    """Addresses and sizes of buffers, which stay valid until `release`: `with Buffers(objects, writable) as buffers: ...`."""

    __slots__ = ("_held", "_slots", "_views", "addresses", "sizes")

    def __init__(self, objects: Sequence[Any], writable: bool) -> None:
        self._slots: Sequence[int] = ()
        try:
            # What can be written and lies in C order, which most do, ctypes takes by itself, in a third of the time.
            views = list(map(_view, objects))
            self._held: Any = list(map(_at, views))
            self.addresses = array("L", list(map(ctypes.addressof, self._held)))
            self.sizes = array("L", list(map(_nbytes, views)))
        except (TypeError, ValueError, BufferError):
            self._held = objects
            try:
                self._take(objects, writable)
            except BaseException:
                self.release()
                raise

    def _take(self, objects: Sequence[Any], writable: bool) -> None:
        count, access = len(objects), _WRITE if writable else _READ
        self._views = ctypes.create_string_buffer(count * _BYTES)
        base = ctypes.addressof(self._views)
        self._slots = range(base, base + count * _BYTES, _BYTES)
        words = memoryview(self._views).cast("B").cast("Q")
        try:
            deque(map(_get, objects, self._slots, repeat(access)), 0)
        except (TypeError, ValueError, BufferError):
            # One of them is of another kind, or wrong: look at each.
            deque(map(_release, self._slots), 0)
            for number, item in enumerate(objects):
                words[number * _WORDS], words[number * _WORDS + 2] = _each(item, self._slots[number], writable)
        self.addresses, self.sizes = (
            array("L", words[field : count * _WORDS : _WORDS].tolist()) for field in (_ADDRESS, _LENGTH)
        )

    def release(self) -> None:
        """Gives the buffers back. Again does nothing."""
        self._held = None
        deque(map(_release, self._slots), 0)

    def __enter__(self) -> Buffers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def _each(item: Any, slot: int, writable: bool) -> tuple[int, int]:
    """Address and bytes of one buffer, in a `Py_buffer` if it has the protocol."""
    try:
        _get(item, slot, _WRITE if writable else _READ)
    except (TypeError, ValueError, BufferError) as error:
        if hasattr(item, "data_ptr"):
            return _tensor(item)
        if hasattr(item, "__array_interface__") and isinstance(error, ValueError) and "buffer" in str(error):
            return _array(item, writable)
        if isinstance(error, TypeError):
            raise
        # numpy says ValueError where the protocol has BufferError.
        raise BufferError(f"{type(item).__name__}: {error}") from None
    view = (ctypes.c_uint64 * _WORDS).from_address(slot)
    return view[_ADDRESS], view[_LENGTH]


def _tensor(tensor: Any) -> tuple[int, int]:
    """Address and bytes of a torch tensor."""
    if tensor.device.type != "cpu":
        raise BufferError(
            f"tensor on device {tensor.device}: memory of a device is reached through the copy callback of a segment, by address (put_from, get_to)"
        )
    item = tensor.element_size()
    _require_dense(tensor.shape, [stride * item for stride in tensor.stride()], item)
    return tensor.data_ptr(), tensor.numel() * item


def _array(source: Any, writable: bool) -> tuple[int, int]:
    """Address and bytes of an array whose type the buffer protocol has no name for."""
    interface = source.__array_interface__
    address, is_read_only = interface["data"]
    if writable and is_read_only:
        raise BufferError(f"{type(source).__name__}: is read-only")
    item = int(interface["typestr"][2:])
    if interface.get("strides") is not None:
        _require_dense(interface["shape"], interface["strides"], item)
    size = item
    for length in interface["shape"]:
        size *= length
    return address, size


def _require_dense(shape: Iterable[int], strides: Iterable[int], item: int) -> None:
    """The elements follow each other without a gap, in some order of the dimensions."""
    expected = item
    for stride, length in sorted((stride, length) for stride, length in zip(strides, shape) if length != 1):
        if stride != expected:
            raise BufferError(f"array of shape {tuple(shape)}: is not contiguous")
        expected *= length


def fresh_bytes(size: int) -> bytes:
    """Fresh `bytes` of a size of at least 1, with anything in them: to be filled before anyone sees them."""
    made: bytes = _new_bytes(None, SIZES[size])
    return made


def new_bytes(sizes: Iterable[int]) -> tuple[list[bytes], array[int]]:
    """`fresh_bytes` of these sizes, and their addresses."""
    made = list(map(fresh_bytes, sizes))
    return made, array("L", map(_bytes_address, made))


def flatten(items: Sequence[Any]) -> tuple[Sequence[Any], Any]:
    """Buffers of elements that may be lists of buffers, one after the other, and how many each has; `None`: one each."""
    if not any(isinstance(item, (list, tuple)) for item in items):
        return items, None
    lists = [item if isinstance(item, (list, tuple)) else (item,) for item in items]
    return [buffer for one in lists for buffer in one], array("L", map(len, lists))


def require_count(name: str, given: int, keys: int) -> None:
    if given != keys:
        raise InvalidParam(f"{name}: {given} for {keys} keys")
