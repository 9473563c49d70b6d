"""Memory of the pool in Python's hands: pins to read, reservations to write.

Each stands for a token of the library and lends a `memoryview`. Slices of it, and numpy arrays over it, all keep one small object alive, which
lies over the memory; so it can be told whether anybody still looks there.

- A **pin** is given back when nobody looks any more: `close`, or the end of its `with`, ends your own view, and arrays that you made from it
  keep the bytes where they are until they go. A reservation that is given up goes the same way.
- A **reservation** must not be written any more once it is committed, as others read it then. So `commit` refuses, with a
  `BufferError`, while anything made from its view is alive, and the reservation stays open.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Callable, Optional

from . import _native
from ._errors import NotFound, Unsupported

if TYPE_CHECKING:
    from ._calls import Handle


class _Memory(ctypes.Array):  # type: ignore[type-arg]
    """The bytes of a token, for as long as anybody looks at them. Unlike an array of ctypes it can be referred to weakly."""

    _type_ = ctypes.c_ubyte
    _length_ = 0


@lru_cache(maxsize=128)
def _memory_of(size: int) -> type[_Memory]:
    return type("_Memory", (_Memory,), {"_length_": size})


class _Token:
    """What pins and reservations have in common."""

    _is_read_only = True

    def __init__(self, store: Handle, view: _native.View, end: Callable[[int, int], int]) -> None:
        self._store = store
        self._token: int = view.token
        #: Pool address of the first byte.
        self.address: int = view.address
        #: Bytes.
        self.size: int = view.size
        self._data: Optional[int] = view.data
        self._memory: Optional[_Memory] = None
        self._view: Optional[memoryview] = None
        self._end = partial(end, store._handle, view.token)
        self._lend()

    @property
    def view(self) -> memoryview:
        """The bytes: one dimension of unsigned bytes, read-only for a pin.

        Raises `Unsupported` for memory of a device, which only its copy callback reaches, or on SSD, and `NotFound` when it has ended.
        """
        if self._view is not None:
            return self._view
        if self._token == 0:
            raise NotFound(f"{self._name}: has ended")
        raise Unsupported(
            f"{self._name}: memory of a device or a file can't be looked at; use read_at and write_at with its address"
        )

    def close(self) -> None:
        """Gives the memory back, or leaves that to the last array that was made from the view. Again does nothing."""
        self._token = 0
        self._take_back()
        if self._memory is None:
            self._finalizer()
        self._memory = None

    def __enter__(self) -> memoryview:
        return self.view

    @property
    def _name(self) -> str:
        return f"{type(self).__name__.lower()} of {self.size} bytes"

    def _lend(self) -> None:
        """Makes a view, and sees to it that the token ends with the last who looks."""
        looked_at: object = self
        if self._data is not None:
            if self._memory is None:
                self._memory = _memory_of(self.size).from_address(self._data)
            view = memoryview(self._memory).cast("B")
            self._view = view.toreadonly() if self._is_read_only else view
            looked_at = self._memory
        self._finalizer = weakref.finalize(looked_at, self._end)
        # Whoever still looks when the interpreter ends may look on.
        self._finalizer.atexit = False  # type: ignore[misc]

    def _take_back(self) -> None:
        """Ends the view that was lent. What was made from it is still there."""
        if self._view is not None:
            try:
                self._view.release()
            except BufferError:
                pass
            self._view = None

    def _take_token(self) -> int:
        """The token, for a call that ends it. 0, with nothing changed, while anybody else looks."""
        if self._memory is not None:
            self._finalizer.detach()
            memory = weakref.ref(self._memory)
            self._take_back()
            self._memory = None
            self._memory = memory()
            if self._memory is not None:
                self._lend()
                return 0
        self._finalizer.detach()
        token, self._token = self._token, 0
        return token

    def _give_back_token(self, token: int) -> None:
        """The call did not come to be."""
        self._token = token
        self._lend()


class Pin(_Token):
    """Keeps an object's bytes where they are: `with store.pin(key) as view`. See `Store.pin`."""

    def __init__(self, store: Handle, view: _native.View) -> None:
        super().__init__(store, view, _native.library.mmc_unpin)

    def __exit__(self, *exception: object) -> None:
        self.close()


class Reservation(_Token):
    """Memory of an object that is yet to be written: `with store.reserve(key, size) as view`. See `Store.reserve`.

    The `with` commits at its end, and aborts when it is left by an exception or can't commit.
    """

    _is_read_only = False

    def __init__(self, store: Handle, view: _native.View) -> None:
        super().__init__(store, view, _native.library.mmc_abort)

    def commit(self) -> None:
        """Publishes the object.

        Raises `BufferError`, and changes nothing, while an array or a slice made from the view is alive; `Timeout` when the
        term had passed; `NotFound` when it has ended; what a copy callback raises, for replicas. Blocks for the copies to replicas.
        """
        (token,) = take_tokens([self])
        _native.check(_native.library.mmc_commit(self._store._handle, token))

    def abort(self) -> None:
        """Gives the object up; as `close`."""
        self.close()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.commit()
        except BaseException:
            self.abort()
            raise


def take_tokens(reservations: Sequence[Reservation]) -> list[int]:
    """The tokens of reservations that are to be committed. Raises `BufferError`, and takes none, while a view of one is in use."""
    tokens: list[int] = []
    for reservation in reservations:
        is_open = reservation._token != 0
        tokens.append(reservation._take_token())
        if is_open and tokens[-1] == 0:
            for other, token in zip(reservations, tokens[:-1]):
                if token:
                    other._give_back_token(token)
            raise BufferError(
                f"{reservation._name}: an array or a slice that was made from its view is still there, and could write what others read"
            )
    return tokens
