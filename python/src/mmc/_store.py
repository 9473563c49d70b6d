"""The store, as `include/mmc.h` has it, in Python's terms."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import time
import warnings
import weakref
from collections.abc import Iterable
from typing import Any, Callable, Optional, Union

from . import _log, _native, _ready
from ._batches import Batches
from ._calls import medium_number
from ._errors import Code, InvalidParam
from ._inplace import InPlace
from ._native import check, library, sized
from ._reports import Event, SegmentInfo, Statistics, segment_info, statistics
from ._segments import CopyCallback, Registration
from ._settings import clock_of, milliseconds, new_config, numbers, size_of, switch

_byref = ctypes.byref
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()
_nobody = _native.EVENT_CALLBACK(0)

#: How long an attach waits for an owner in one call of the library.
_PIECE_SECONDS = 0.25


class Store(Batches, InPlace):
    """A cache of KV blocks: objects of bytes under keys, in segments of memory. This process's own, or with `attach` one that another process shares.

    Keys are 1 to 256 bytes of UTF-8 without control characters, `str` or `bytes`. A buffer is anything with the buffer protocol, a
    numpy array or a torch CPU tensor, contiguous; its bytes are taken as they lie, whatever its shape and type. A list or a tuple
    of buffers stands for one object: the layers of a block, in their order.

    Every method may be called from any thread and lets the interpreter's lock go while the library works. In a forked child all raise
    `Forked`; a child opens a store of its own. After `close` they raise `NotStarted`. A wrong argument is `InvalidParam` (a `ValueError`), a wrong
    type a `TypeError`, and a buffer that can't be used a `BufferError`; nothing was done then.

    In a batch, key i + 1 is taken to be of no use without key i: eviction takes the tail first. A batch has at most 16384 keys; it returns a
    result for each, and a key that fails spoils no other.
    """

    def __init__(
        self,
        dram: Union[int, str, None] = "1GiB",
        http: Optional[str] = None,
        *,
        rank: Optional[int] = None,
        watermark_high: Optional[int] = None,
        watermark_low: Optional[int] = None,
        http_token: Optional[str] = None,
        config_path: Union[str, os.PathLike[str], None] = None,
        log_level: Union[int, str, None] = None,
        huge_pages: Optional[bool] = None,
        prefault: Optional[bool] = None,
        memory: Optional[str] = None,
        numa_node: Optional[int] = None,
        eviction: Optional[str] = None,
        clock: Optional[Callable[[], int]] = None,
        ssd: Union[str, os.PathLike[str], None] = None,
        ssd_size: Union[int, str, None] = None,
        move_rate: Union[int, str, None] = None,
        verify_dram: Optional[bool] = None,
        state: Union[str, os.PathLike[str], None] = None,
        state_wipe: Optional[bool] = None,
        share: Optional[str] = None,
        share_mode: Optional[int] = None,
        share_users: Optional[Iterable[int]] = None,
        share_groups: Optional[Iterable[int]] = None,
        share_wait_ms: Optional[int] = None,
    ) -> None:
        """Opens a store.

        `dram`: bytes of its DRAM segment, a multiple of 4096, or text such as "4GiB" (units of 1024); None or 0: no segment yet; "" leaves
        it to the file, or the default of 1 GiB. `http`: where the admin port listens, "host:port", port 0 for any free one; None is off.
        `rank`: 0 to 65535, of the segment. `watermark_high`, `watermark_low`: percent of a segment in use at which eviction in the background begins (90; 100 is
        never) and ends (80). `http_token`: what a client of the admin port must show. `config_path`: a file of `key = value` lines for what
        is not set here. `log_level`: as for `set_log_level`. `huge_pages` (on), `prefault` (off; touches every page now), `memory` ("private", or "memfd"),
        `numa_node`: how the segment is mapped. `eviction`: what goes first when there is no room; "adaptive" (the default): what is
        the least likely to be used again soon, by what has become of others like it; "prefix": what was not used for longest, and of one batch
        the tail before the head. `clock`: tells the time in nanoseconds, from any beginning, for leases, terms and eviction, instead of the
        system's monotonic clock. It is called inside of puts, gets, leases and queries by the thread whose call it is, and must not use the
        store; what it raises goes to `sys.excepthook`, and time stands still for that call.
        `ssd`, `ssd_size`: the file of an SSD segment, which is made or has its size already, and its bytes;
        objects move there when memory is short. `move_rate`: bytes a second that move between media in the background, at most. `verify_dram` (off):
        what is got from memory is compared with what was put, as what comes from SSD always is. `state`: a directory in which it is kept what is on
        SSD, so that a store that is opened with the same files finds it; closing then writes down what is only in memory, as far as there is room.
        `state_wipe` (off): a state that is of another version, size or store is replaced, and not an error. `share`: where other processes attach,
        "unix:/path/of/socket"; the memory is a memfd then, unless `memory` says otherwise. `share_mode` (0o600): permission bits of the socket's file.
        `share_users`, `share_groups`: numbers of users and groups, at most 64 each, whose processes may attach beside the owner's own user.
        `share_wait_ms` (60000): milliseconds that a segment which an attached process has brought waits, when that process has died, for one that
        comes in its place.

        Raises `InvalidParam` for a setting that is wrong, wherever it comes from; `Io` when the file can't be read or the port's address is
        taken; `OutOfMemory`; `NoSpace` when 1024 stores are open. Blocks while a file is read and with `prefault`.
        """
        config = new_config()
        if dram != "":
            config.dram_size = (size_of("dram", dram) if dram is not None else 0) or _native.NO_DRAM
        config.rank = rank or 0
        config.watermark_high, config.watermark_low = watermark_high or 0, watermark_low or 0
        config.http_address = None if http is None else http.encode()
        config.http_token = None if http_token is None else http_token.encode()
        config.config_path = None if config_path is None else os.fsencode(config_path)
        config.log_level = 0 if log_level is None else _log.level_number(log_level)
        config.huge_pages, config.prefault = switch(huge_pages), switch(prefault)
        if memory is not None and memory not in _native.MEMORY:
            raise InvalidParam(f'memory {memory!r}: must be "private" or "memfd"')
        config.memory = 0 if memory is None else _native.MEMORY[memory]
        config.numa_node = 0 if numa_node is None else numa_node + 1
        if eviction is not None and eviction not in _native.EVICTION:
            raise InvalidParam(f'eviction {eviction!r}: must be "prefix" or "adaptive"')
        config.eviction = 0 if eviction is None else _native.EVICTION[eviction]
        if clock is not None:
            # Kept for as long as the library may call it.
            self._clock = clock_of(clock)
            config.clock = ctypes.cast(self._clock, ctypes.c_void_p)
        config.ssd_path = None if ssd is None else os.fsencode(ssd)
        config.ssd_size = 0 if ssd_size is None else size_of("ssd_size", ssd_size)
        config.move_rate = 0 if move_rate is None else size_of("move_rate", move_rate)
        config.verify_dram = switch(verify_dram)
        config.state_path = None if state is None else os.fsencode(state)
        config.state_wipe = switch(state_wipe)
        config.share = None if share is None else share.encode()
        config.share_mode = share_mode or 0
        config.share_users = None if share_users is None else numbers(share_users)
        config.share_groups = None if share_groups is None else numbers(share_groups)
        config.share_wait_ms = share_wait_ms or 0
        self._open(config)

    @classmethod
    def of_config(cls, config: _native.Config) -> Store:
        """Opens a store of an `mmc_config`."""
        store = cls.__new__(cls)
        store._open(config)
        return store

    @classmethod
    def attach(
        cls,
        address: str,
        *,
        dram: Union[int, str, None] = None,
        rank: Optional[int] = None,
        wait: float = 0.0,
        call_timeout: float = 60.0,
        huge_pages: Optional[bool] = None,
        prefault: Optional[bool] = None,
        numa_node: Optional[int] = None,
        log_level: Union[int, str, None] = None,
    ) -> Store:
        """Attaches to the pool that another process of this host shares, as a store of this process.

        `address`: "unix:/path/of/socket", as its owner shares it. `dram`: bytes of DRAM that this process brings to the pool, a multiple of 4096, or text
        such as "4GiB"; the owner maps it, and it serves all processes; None or 0: none. `rank`: 0 to 65535, of that memory, or without any the one that is
        near; None: the smallest that nobody has, or none. `wait`: seconds to wait for an owner when there is none; 0 looks once. `call_timeout`: seconds
        after which a call to an owner that does not answer gives the connection up. `huge_pages` (on), `prefault` (off), `numa_node`: how the memory that is
        brought is mapped. `log_level`: as for `set_log_level`.

        Every method has the same meaning and raises the same as on an own store: keys, objects, pins, leases, segments and addresses are the pool's, and
        bytes are copied by this process itself, in memory that it maps. What differs:

        - `Disconnected`, from any method: the owner has closed the pool, has gone, or did not answer in time. Memory that is pinned stays readable until
          `close`; reservations and leases are gone. Attach anew, for a new owner.
        - `register_segment` brings DRAM that the owner maps, and raises `Unsupported` for anything else; `unregister_segment` takes away what this process
          has brought. Reserving in HBM or on SSD, `write_at` and `read_at` in memory that this process can't map, `share` and
          `set_event_callback` are `Unsupported`. A `stream` is given to nobody.
        - A put that needs memory that is being read here does not wait for that, but raises `NoSpace`; one that takes longer than a minute raises `Timeout`.
          An object in memory that this process can't map is copied into memory that it can, and `NoSpace` is raised if there is no room.
        - No method "never blocks": each waits for the owner's answer.

        `close` gives back the pins, reservations and leases, and withdraws the memory that was brought; the end of the process gives back the former, and
        the latter then waits, with what is in it, for a process that brings as much, for the owner's `share_wait_ms`.

        Raises `Disconnected` when no process shares a pool there; `Unsupported` when the owner refuses this process, with its reason: another user,
        another version; `InvalidParam`; `Io`; `OutOfMemory` when memory can't be mapped; `NoSpace` when 1024 stores are open. Blocks for `wait`, for
        the owner's answer, and while memory is mapped.
        """
        if rank is not None and not 0 <= rank <= _native.MAX_RANK:
            raise InvalidParam(f"rank {rank}: must be 0 to {_native.MAX_RANK}")
        until = time.monotonic() + milliseconds("wait", wait) / 1000
        options = sized(
            _native.AttachOptions,
            rank=0 if rank is None else rank + 1,
            dram_size=0 if dram is None else size_of("dram", dram),
            # 0 would be the library's default.
            call_timeout_ms=milliseconds("call_timeout", call_timeout) or 1,
            huge_pages=switch(huge_pages),
            prefault=switch(prefault),
            numa_node=0 if numa_node is None else numa_node + 1,
            log_level=0 if log_level is None else _log.level_number(log_level),
        )
        handle = ctypes.c_void_p()
        while True:
            # In pieces, between which Python handles signals.
            left = max(0.0, until - time.monotonic())
            options.wait_ms = milliseconds("wait", min(left, _PIECE_SECONDS))
            code = library.mmc_attach(address.encode(), _byref(options), _byref(handle))
            if code != Code.DISCONNECTED or left <= _PIECE_SECONDS:
                break
        check(code)
        store = cls.__new__(cls)
        store._begin(handle.value or 0)
        return store

    def _open(self, config: _native.Config) -> None:
        handle = ctypes.c_void_p()
        check(library.mmc_init(_byref(config), _byref(handle)))
        self._begin(handle.value or 0)

    def _begin(self, handle: int) -> None:
        self._handle = handle
        self._ready_handle = _ready.argument_of_handle(self._handle)
        self._registrations: dict[int, Registration] = {}
        # Whether a callback of Python may run inside of a call, which then may have raised.
        self._has_copies = False
        self._listener: Any = None
        _open_stores.add(self)

    # Lifetime

    def close(self) -> None:
        """Closes the store. Again does nothing.

        Waits for other threads' calls, copies too. Pins and reservations that are open keep the memory that they show. Raises `Busy`, with
        the store still open, when a pin, lease or reservation is in memory that this process brought, or from inside a callback. An attached
        store is closed, too, when its owner has gone.
        """
        code = library.mmc_uninit(self._handle)
        if code not in (Code.OK, Code.NOT_STARTED):
            check(code)
        _open_stores.discard(self)
        for registration in self._registrations.values():
            registration.release()
        self._registrations.clear()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self not in _open_stores

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0) and self in _open_stores:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<mmc.Store {self._handle:#x}{' closed' if self.closed else ''}>"

    # Other processes

    def share(self, address: str) -> None:
        """Shares the store with other processes of this host, which `attach` at `address`, "unix:/path/of/socket", until it is closed.

        What they put lies in DRAM segments that are memfds: open the store with `memory="memfd"`, or at once with `share`, which also takes who may attach.
        Raises `InvalidParam` for what is no address; `Busy` when the store is shared already, or another one there; `Io` when the socket can't be
        made; `Unsupported` for an attached store.
        """
        check(library.mmc_share(self._handle, address.encode()))

    @property
    def rank(self) -> Optional[int]:
        """This process's rank in the pool: that of its memory, to which it puts first and from which it gets first. None for an attached process that
        brought no memory and named no rank."""
        rank = ctypes.c_uint32()
        check(library.mmc_rank(self._handle, _byref(rank)))
        return None if rank.value == _native.NO_RANK else rank.value

    # Segments

    def register_segment(
        self,
        medium: str = "DRAM",
        *,
        rank: int = 0,
        capacity: Union[int, str, None] = None,
        memory: Any = None,
        base: Optional[int] = None,
        copy: Optional[CopyCallback] = None,
        huge_pages: Optional[bool] = None,
        prefault: Optional[bool] = None,
        mapping: Optional[str] = None,
        numa_node: Optional[int] = None,
        path: Union[str, os.PathLike[str], None] = None,
    ) -> int:
        """Adds memory to the store and returns its pool address, which names it.

        `medium`: "DRAM", "HBM" or "SSD". `rank`: 0 to 65535. One of: `capacity` alone, for DRAM that the library maps (with `huge_pages`, `prefault`,
        `mapping` and `numa_node` as for the store); `memory`, a writable buffer such as a numpy array of bytes, whose whole units of 4096 bytes are used and
        which is held until the segment is unregistered or the store closed; `base` and `capacity`, addresses of a device or of memory
        that the caller keeps; `capacity` and `path`, for SSD: a file, which is made or has that size already. `copy`: who copies, needed for HBM: see
        `CopyCallback`.

        Raises `InvalidParam`, `OutOfMemory`, `NoSpace`, `Io` when the file can't be opened. Blocks while memory is touched, with `prefault`, and
        while a file gets its blocks.
        """
        if memory is not None and (capacity is not None or base is not None):
            raise InvalidParam("memory brings its own base and capacity: give either")
        if mapping is not None and mapping not in _native.MEMORY:
            raise InvalidParam(f'mapping {mapping!r}: must be "private" or "memfd"')
        options = sized(
            _native.SegmentOptions,
            medium=medium_number(medium),
            rank=rank,
            capacity=0 if capacity is None else size_of("capacity", capacity),
            base=base,
            huge_pages=switch(huge_pages),
            prefault=switch(prefault),
            memory=0 if mapping is None else _native.MEMORY[mapping],
            numa_node=0 if numa_node is None else numa_node + 1,
            path=None if path is None else os.fsencode(path),
        )
        registration = Registration(options, memory, copy)
        address = ctypes.c_uint64()
        self._has_copies = self._has_copies or copy is not None
        try:
            check(library.mmc_register_segment(self._handle, _byref(options), _byref(address)))
        except BaseException:
            registration.release()
            raise
        self._registrations[address.value] = registration
        return address.value

    def unregister_segment(self, address: int) -> None:
        """Takes a segment away, by its pool address: its copies are dropped, and memory that was brought is its owner's again.

        Waits for copies under way. Raises `Busy`, with nothing changed, while a pin, lease or reservation is in it; `NotFound`.
        """
        check(library.mmc_unregister_segment(self._handle, address))
        registration = self._registrations.pop(address, None)
        if registration is not None:
            registration.release()

    def segments(self) -> list[SegmentInfo]:
        """The segments by medium, rank and address."""
        count = ctypes.c_size_t(8)
        while True:
            room = count.value
            infos = _native.array_of(_native.SegmentInfo, room)
            check(library.mmc_list_segments(self._handle, infos, room, _byref(count)))
            if count.value <= room:
                return [segment_info(infos[number]) for number in range(count.value)]

    # What happened

    def stats(self) -> Statistics:
        """Counters since the store was opened, and levels now."""
        values = sized(_native.Statistics)
        check(library.mmc_stats(self._handle, _byref(values)))
        return statistics(values)

    @property
    def http_address(self) -> Optional[str]:
        """Where the admin port listens, "host:port" with the true port, that of the owner for an attached store; None when it is off."""
        text = ctypes.create_string_buffer(512)
        check(library.mmc_http_address(self._handle, text, len(text), None))
        return text.value.decode() or None

    def set_event_callback(self, callback: Optional[Callable[[list[Event], int], None]]) -> None:
        """Sets who hears what is stored and removed: `callback(events, dropped)`, on a thread of the library; None: nobody.

        `dropped`: how many events before these were lost as the listener was slow; then list the keys again. What it raises goes to `sys.excepthook`.
        Returns when the old callback will not be called again. Raises `Busy` from inside the callback; `Unsupported` for an attached store, whose owner hears.
        """
        listener = _nobody if callback is None else _native.EVENT_CALLBACK(_hearing(callback))
        check(library.mmc_set_event_callback(self._handle, listener, None))
        self._listener = listener


def _hearing(callback: Callable[[list[Event], int], None]) -> Callable[..., None]:
    def call(_context: Any, events: int, count: int, dropped: int) -> None:
        try:
            heard = []
            for _number in range(count):
                # The distance to the next one is the library's size of an event.
                event = _native.Event.from_address(events)
                key = ctypes.string_at(event.key_data, event.key_size).decode()
                heard.append(
                    Event(_native.EVENT_KINDS[event.kind], key, _native.MEDIUM_NAMES[event.medium], event.rank)
                )
                events += event.struct_size
            callback(heard, dropped)
        except BaseException:
            sys.excepthook(*sys.exc_info())

    return call


@atexit.register
def _close_all() -> None:
    """At exit: no thread of the library comes into the interpreter any more, and the stores end in order."""
    for store in list(_open_stores):
        # Refused for an attached store, which has no listener.
        library.mmc_set_event_callback(store._handle, _nobody, None)
        # One whose memory is still looked at stays open, and ends with the process.
        library.mmc_uninit(store._handle)
    _open_stores.clear()
    _log.end()


# The parent's stores are not a child's to close.
os.register_at_fork(after_in_child=_open_stores.clear)
