"""`DistributedObjectStore`: the calls of MemCache Hybrid 1.3.0 and their codes, over the process's `mmc.Store`.

Single calls answer -1 where an element of a batch has a code of its own. What is wrong with the arguments of a batch is said of each of its keys, and nothing is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any, Optional

import mmc
from mmc import Code, _native

from . import _process
from ._codes import (
    EXIST_CODES,
    GET_CODES,
    LEASE_CODES,
    MOVE_CODES,
    PUT_CODES,
    READ_CODES,
    REMOVE_CODES,
    WRITE_CODES,
    code_of,
    has_disk,
    meanings_of,
    report,
    state_of,
)
from ._config import LocalConfig, Settings, settings_of, settings_of_file
from ._owner import NoMetaService
from ._pointers import Addresses, has_zero, in_pieces, is_piece, require_some
from ._values import (
    CLIENT_NOT_INITIALIZED,
    ERROR,
    GETS,
    INVALID_PARAM,
    MEDIA,
    NO_LEASE,
    NO_META_SERVICE,
    NO_RANK,
    NOT_FOUND,
    OK,
    PUTS,
    REPEATED,
    SIZE_MISMATCH,
    Key,
    KeyInfo,
    ReplicateConfig,
    are_valid,
    is_valid,
    list_of_keys,
)

_log = logging.getLogger("memcache_hybrid")


#: How often, and how far apart, an allocation looks where another thread's of the same key has its memory.
_LOOKS, _LOOK_SECONDS = 1000, 0.0005

_ONE_COPY = ReplicateConfig()


class DistributedObjectStore:
    """A user of the process's store. All instances of a process see the same objects, and with an owner those of all processes of the host.

    Keys are 1 to 256 bytes of text, `str` or UTF-8 `bytes`. Pointers and sizes are integers, in batches lists of them, `array('Q')` or numpy arrays of 64-bit
    integers; the memory must stay for the call. Calls may be made from any thread, and let the interpreter's lock go while bytes are copied. Codes: 0 for
    success, -1 and -3000 to -3106 as MemCache Hybrid has them; -3017 once the owner of the pool has gone, until `close` and another `init`; -3019 before `init`, after `close` and in a forked child, which may `init` an instance of its own.
    A wrong type is a `TypeError`.

    `direct`: 0 device to pool, 1 pool to device, 2 pool to host, 3 host to pool. Puts take 0 and 3, gets 1 and 2, anything else is -1. No device
    is registered here: pointers are the host's with each.
    """

    def __init__(self) -> None:
        self._settings: Optional[Settings] = None
        self._process: Optional[_process.Process] = None

    # Lifetime

    def setup(self, config: LocalConfig) -> int:
        """Says how `init` is to open the store. 0; -3000 for a value that is out of range, which the log names; -3005 after `init`."""
        if not isinstance(config, LocalConfig):
            raise TypeError(f"config must be a LocalConfig, not {type(config).__name__}")
        if self._store is not None:
            return REPEATED
        try:
            self._settings = settings_of(config)
        except mmc.InvalidParam as error:
            _log.error("%s", error)
            return INVALID_PARAM
        return OK

    def init(self, device_id: int, init_bm: bool = True) -> int:
        """Joins the process's store; the first one attaches to the pool of this host's owner, `MetaService` of the same `meta_service_url`, or opens a store of
        this process's own when none has come within `client_retry_milliseconds`, and the log says so at info. Again does nothing.

        `device_id`: 0 or more; nothing depends on it here. `init_bm`: whether this instance brings the memory, unless another has: `dram_size` of the config. Without
        `setup` the file that `MMC_LOCAL_CONFIG_PATH` names counts, else the defaults. 0; -3017 when `meta_service_url` is another host's, or the owner refuses this
        process or does not answer; or the code of what failed else. The log names the reason; a mistake in the file is a `ValueError`.
        """
        if not isinstance(device_id, int):
            raise TypeError(f"device_id must be int, not {type(device_id).__name__}")
        if device_id < 0:
            return INVALID_PARAM
        if self._store is not None:
            return OK
        process = _process.current
        try:
            settings = self._settings or settings_of_file("MMC_LOCAL_CONFIG_PATH", LocalConfig())
            process.join(settings, brings_memory=bool(init_bm))
        except mmc.InvalidParam:
            raise
        except NoMetaService as error:
            _log.error("%s", error)
            return NO_META_SERVICE
        except mmc.Error as error:
            _log.error("%s", error)
            return code_of(error)
        self._process = process
        return OK

    def close(self) -> int:
        """Leaves the store; the last instance closes it. 0, also when it was never opened or is closed already, or its owner has gone."""
        process, self._process = self._process, None
        if process is not None and process is _process.current:
            try:
                process.leave()
            except mmc.Error as error:
                self._process = process
                _log.error("%s", error)
                return code_of(error)
        return OK

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.close()

    def get_local_service_id(self) -> int:
        """This process's rank; 4294967295 when not initialised, or attached without memory: then nothing is local."""
        return NO_RANK if self._process is None or self._store is None else self._process.rank

    @property
    def _store(self) -> Optional[mmc.Store]:
        """The store that this instance has joined; of a parent's process it is none."""
        process = self._process
        return process.store if process is not None and process is _process.current else None

    # Put

    def put(self, key: Key, buf: Any, replicateConfig: ReplicateConfig = _ONE_COPY) -> int:
        """Stores a copy of a buffer: `bytes`, `bytearray`, `memoryview`, an array. 0, also when the key is there already, which then keeps its value."""
        if isinstance(buf, (list, tuple)):
            raise TypeError(f"a value must be a bytes-like object, not {type(buf).__name__}")
        if replicateConfig is not _ONE_COPY:
            return self._put_many(
                [key], replicateConfig, lambda store, copies: _put_values(store, [key], [buf], copies)
            )[0]

        def put(store: mmc.Store) -> None:
            if memoryview(buf).nbytes == 0:
                raise mmc.InvalidParam("the value has no bytes")
            store.put(key, buf)

        return self._put_one(key, put)

    def put_batch(
        self, keys: Sequence[Key], values: Sequence[Any], replicateConfig: ReplicateConfig = _ONE_COPY
    ) -> int:
        """As `put` for each of the keys, and one code for all: the first that is not 0."""
        names = list_of_keys(keys)
        for value in values:
            memoryview(value)  # a TypeError for what has no bytes
        codes = self._put_many(names, replicateConfig, lambda store, copies: _put_values(store, names, values, copies))
        return next((code for code in codes if code != OK), OK)

    def put_from(
        self, key: Key, buffer_ptr: int, size: int, direct: int = 3, replicateConfig: ReplicateConfig = _ONE_COPY
    ) -> int:
        """Stores `size` bytes at `buffer_ptr`."""
        if replicateConfig is _ONE_COPY and is_piece(buffer_ptr, size):
            return self._put_one(key, lambda store: store.put_from(key, buffer_ptr, size), direct)
        return self.put_from_layers(key, [buffer_ptr], [size], direct, replicateConfig)

    def batch_put_from(
        self,
        keys: Sequence[Key],
        buffer_ptrs: Addresses,
        sizes: Addresses,
        direct: int = 3,
        replicateConfig: ReplicateConfig = _ONE_COPY,
    ) -> list[int]:
        """Stores an object for each key, of one buffer each. A code for each."""
        names = list_of_keys(keys)
        return self._put_many(
            names, replicateConfig, lambda store, copies: _put_from(store, names, buffer_ptrs, sizes, copies), direct
        )

    def put_from_layers(
        self,
        key: Key,
        buffer_ptrs: Addresses,
        sizes: Addresses,
        direct: int = 3,
        replicateConfig: ReplicateConfig = _ONE_COPY,
    ) -> int:
        """Stores the layers as one object, in their order."""
        if replicateConfig is not _ONE_COPY:
            return self._put_many(
                [key],
                replicateConfig,
                lambda store, copies: _put_from(store, [key], [buffer_ptrs], [sizes], copies),
                direct,
            )[0]

        def put(store: mmc.Store) -> None:
            require_some(buffer_ptrs, sizes)
            store.put_from(key, buffer_ptrs, sizes)

        return self._put_one(key, put, direct)

    def batch_put_from_layers(
        self,
        keys: Sequence[Key],
        buffer_ptrs: Addresses,
        sizes: Addresses,
        direct: int = 3,
        replicateConfig: ReplicateConfig = _ONE_COPY,
    ) -> list[int]:
        """Stores an object for each key, of a list of layers each: lists of lists, or numpy arrays of shape (keys, layers)."""
        return self.batch_put_from(keys, buffer_ptrs, sizes, direct, replicateConfig)

    # Get

    def get(self, key: Key) -> bytes:
        """The bytes of an object; `b''` when it can't be got."""
        store = self._store
        if store is None:
            return b""
        try:
            return store.get(key)
        except (mmc.NotFound, mmc.InvalidParam):
            return b""
        except mmc.Error as error:
            report(error)
            return b""

    def get_batch(self, keys: Sequence[Key]) -> list[bytes]:
        """The bytes of each object; `b''` where one can't be got."""
        names = list_of_keys(keys)
        store = self._store
        if store is None or not are_valid(names):
            return [b""] * len(names)
        try:
            return [data or b"" for data in store.batch_get(names)]
        except mmc.Error as error:
            report(error)
            return [b""] * len(names)

    def get_into(self, key: Key, buffer_ptr: int, size: int, direct: int = 2) -> int:
        """Copies an object to `size` bytes at `buffer_ptr`; -1 when it is not there or has another size, and nothing is written."""
        if is_piece(buffer_ptr, size):
            return self._one(key, lambda store: store.get_to(key, buffer_ptr, size), GET_CODES, direct in GETS)
        return self.get_into_layers(key, [buffer_ptr], [size], direct)

    def batch_get_into(
        self, keys: Sequence[Key], buffer_ptrs: Addresses, sizes: Addresses, direct: int = 2
    ) -> list[int]:
        """Copies each object into its buffer. A code for each: -3007 missing, -3012 another size where no other object fitted."""
        names = list_of_keys(keys)
        codes = self._many(names, lambda store: _get_to(store, names, buffer_ptrs, sizes), {}, direct in GETS)
        if SIZE_MISMATCH in codes and OK in codes:
            return [NOT_FOUND if code == SIZE_MISMATCH else code for code in codes]
        return codes

    def get_into_layers(self, key: Key, buffer_ptrs: Addresses, sizes: Addresses, direct: int = 2) -> int:
        """Copies an object into layers, which may split it otherwise than the put did."""

        def get(store: mmc.Store) -> None:
            require_some(buffer_ptrs, sizes)
            store.get_to(key, buffer_ptrs, sizes)

        return self._one(key, get, GET_CODES, direct in GETS)

    def batch_get_into_layers(
        self, keys: Sequence[Key], buffer_ptrs: Addresses, sizes: Addresses, direct: int = 2
    ) -> list[int]:
        """Copies each object into its list of layers; codes as for `batch_get_into`."""
        return self.batch_get_into(keys, buffer_ptrs, sizes, direct)

    # What is there

    def is_exist(self, key: Key) -> int:
        """1 when the object can be read, 0 when it can't, or a negative code."""
        store = self._store
        if store is None:
            return CLIENT_NOT_INITIALIZED
        try:
            return 1 if store.exists(key) else 0
        except mmc.Error as error:
            return code_of(error, EXIST_CODES)

    def batch_is_exist(self, keys: Sequence[Key]) -> list[int]:
        """As `is_exist` for each key."""
        return self._each(list_of_keys(keys), lambda store, names: store._batch_exist(names), EXIST_CODES)

    def get_key_info(self, key: Key, flag: int = 1) -> KeyInfo:
        """Where an object lies; empty when it is not there. `flag` 0 also shows one that is allocated and not finished."""
        return self.batch_get_key_info([key], flag)[0]

    def batch_get_key_info(self, keys: Sequence[Key], flag: int = 1) -> list[KeyInfo]:
        """As `get_key_info` for each key."""
        names = list_of_keys(keys)
        store = self._store
        if store is None or not are_valid(names):
            return [KeyInfo() for _ in names]
        try:
            return [KeyInfo(info) for info in store.batch_query(names, reserved=flag == 0)]
        except mmc.Error as error:
            report(error)
            return [KeyInfo() for _ in names]

    def remove(self, key: Key) -> int:
        """Removes an object, a leased one too. -3102 when it is not there."""
        return self._one(key, lambda store: store.remove(key), REMOVE_CODES)

    def remove_batch(self, keys: Sequence[Key]) -> list[int]:
        """As `remove` for each key."""
        return self._each(list_of_keys(keys), lambda store, names: store.batch_remove(names), REMOVE_CODES)

    def remove_all(self) -> int:
        """Removes every object."""
        store = self._store
        if store is None:
            return CLIENT_NOT_INITIALIZED
        try:
            store.remove_all()
        except mmc.Error as error:
            return code_of(error)
        return OK

    # Buffers

    def register_buffer(self, buffer_ptr: int, size: int) -> int:
        """Says that memory will be used for copies. Nothing needs to be known of it here; 0, also again."""
        return self._buffer(buffer_ptr, size)

    def unregister_buffer(self, buffer_ptr: int, size: int) -> int:
        """Takes that back."""
        return self._buffer(buffer_ptr, size)

    def _buffer(self, buffer_ptr: int, size: int) -> int:
        if self._store is None:
            return CLIENT_NOT_INITIALIZED
        return OK if buffer_ptr > 0 and size > 0 else INVALID_PARAM

    # In place

    def batch_alloc(self, keys: Sequence[Key], sizes: Sequence[int], media: int = 1, leaseTtlMs: int = 0) -> list[int]:
        """Takes memory for objects that are then written by `batch_copy` and published by `batch_write_finish`.

        `sizes`: bytes of each. `media`: 0 HBM, 1 DRAM, 2 SSD. `leaseTtlMs`: for so many milliseconds the object is not evicted, published or not. What
        is not finished within that time or 60 seconds, whichever is longer, is dropped. A global address for each key; that of the object that is there
        for an existing key; 0 where it failed.
        """
        names = list_of_keys(keys)
        store, process = self._store, self._process
        is_good = media in range(len(MEDIA)) and leaseTtlMs >= 0 and len(sizes) == len(names) and are_valid(names)
        if store is None or process is None or not is_good:
            return [0] * len(names)
        try:
            addresses, codes = process.reserve(store, names, sizes, MEDIA[media], leaseTtlMs)
            there = [number for number, code in enumerate(codes) if code == Code.EXISTS]
            existing = [names[number] for number in there]
            if leaseTtlMs > 0:
                # The lease comes first: what has it stays at the address that is then looked up.
                process.lease(store, existing, leaseTtlMs)
            for number, address in zip(there, _addresses_of(store, existing)):
                addresses[number] = address
        except mmc.Error as error:
            report(error)
            return [0] * len(names)
        return [address if code in (Code.OK, Code.EXISTS) else 0 for address, code in zip(addresses, codes)]

    def batch_copy(
        self, gva_ptrs: Addresses, buffer_ptrs: Addresses, sizes: Addresses, direct: int = 1, flag: int = 0
    ) -> int:
        """Copies between global addresses and buffers, any range inside one object: `direct` 0 and 3 into the pool, 1 and 2 out of it.

        0, or the first code that is not: -3000 for an address, a pointer or a size of 0, and nothing is copied; -3102 where no object has such
        bytes; -3101 for reading one that is not finished. Writing into one that is published answers 0 and changes nothing.
        """
        store = self._store
        if store is None:
            return CLIENT_NOT_INITIALIZED
        if direct not in PUTS and direct not in GETS:
            return ERROR
        count = len(gva_ptrs)
        if not count == len(buffer_ptrs) == len(sizes) or any(map(has_zero, (gva_ptrs, buffer_ptrs, sizes))):
            return INVALID_PARAM
        if count == 0:
            return OK
        is_write = direct in PUTS
        meanings = WRITE_CODES if is_write else READ_CODES
        copy = store.write_at if is_write else store.read_at
        try:
            codes = in_pieces(copy, gva_ptrs, buffer_ptrs, sizes)
        except mmc.Error as error:
            return code_of(error)
        return next((code for code in meanings_of(codes, meanings) if code != OK), OK)

    def batch_copy_layers(
        self, gva_ptrs: Addresses, buffer_ptrs: Addresses, sizes: Addresses, direct: int = 1, flag: int = 0
    ) -> int:
        """As `batch_copy`, for several layers an object: `buffer_ptrs` and `sizes` are lists of lists.

        `gva_ptrs`: for each object the global address at which its layers follow each other, or a list with the address of each layer.
        """
        if not len(gva_ptrs) == len(buffer_ptrs) == len(sizes):
            return INVALID_PARAM if self._store is not None else CLIENT_NOT_INITIALIZED
        addresses: list[int] = []
        for gva, row in zip(gva_ptrs, sizes):
            if hasattr(gva, "__len__"):
                addresses.extend(gva)
            elif gva:
                addresses.extend(accumulate(row[:-1], initial=gva))
            else:
                return INVALID_PARAM if self._store is not None else CLIENT_NOT_INITIALIZED
        buffers, lengths = list(chain.from_iterable(buffer_ptrs)), list(chain.from_iterable(sizes))
        if list(map(len, buffer_ptrs)) != list(map(len, sizes)):
            return INVALID_PARAM if self._store is not None else CLIENT_NOT_INITIALIZED
        return self.batch_copy(addresses, buffers, lengths, direct, flag)

    def batch_write_finish(self, keys: Sequence[Key], res: Sequence[int]) -> list[int]:
        """Publishes allocated objects where `res` is 0, and drops them where it is not. 0 also for one that is published already; -3102 for one that is not
        there, -3101 for one that somebody else is writing, -3004 for one whose time was over."""
        names = list_of_keys(keys)
        store, process = self._store, self._process
        if store is None or process is None:
            return [CLIENT_NOT_INITIALIZED] * len(names)
        if len(res) != len(names) or len(names) > _native.MAX_BATCH or not are_valid(names):
            return [INVALID_PARAM] * len(names)
        try:
            codes = process.finish(store, names, [code == 0 for code in res])
            unknown = [name for name, code in zip(names, codes) if code is None]
            infos = iter(store.batch_query(unknown, peek=True, reserved=True))
        except mmc.Error as error:
            return [code_of(error)] * len(names)
        return [state_of(next(infos)) if code is None else code for code in codes]

    def batch_add_lease(self, keys: Sequence[Key], leaseTtlMs: int = 0) -> list[int]:
        """Keeps objects from eviction for so many milliseconds; 0: for 10 seconds. 0; -3102 for one that is not there, -3101 for one not finished."""
        names = list_of_keys(keys)
        if leaseTtlMs < 0:
            return [INVALID_PARAM] * len(names)
        return self._many(names, lambda store: store.batch_add_lease(names, leaseTtlMs), LEASE_CODES)

    def batch_remove_lease(self, keys: Sequence[Key]) -> int:
        """Ends a lease of each object. 0, or -3106 when one of them has none."""
        names = list_of_keys(keys)
        if self._store is None:
            return CLIENT_NOT_INITIALIZED
        if not names or not are_valid(names):
            return INVALID_PARAM
        codes = self._many(names, lambda store: store.batch_remove_lease(names), {})
        if NO_META_SERVICE in codes:
            return NO_META_SERVICE
        return NO_LEASE if any(codes) else OK

    # Media

    def evict(self, keys: Sequence[Key], src_media: int = 1, dst_media: int = 2, flags: int = 0) -> int:
        """Moves objects from DRAM to SSD. 0 when all of them are there, else what kept the first one: -3102 it is missing, -1 anything else."""
        return self._move(keys, (src_media, dst_media), (1, 2), mmc.Store.evict)

    def prefetch(self, keys: Sequence[Key], src_media: int = 2, dst_media: int = 1, flags: int = 0) -> int:
        """Copies objects from SSD to DRAM. 0 when all of them are there, else what kept the first one: -3102 it is missing, -1 anything else."""
        return self._move(keys, (src_media, dst_media), (2, 1), mmc.Store.prefetch)

    def _move(
        self,
        keys: Sequence[Key],
        media: tuple[int, int],
        way: tuple[int, int],
        move: Callable[[mmc.Store, list[Key]], list[int]],
    ) -> int:
        names = list_of_keys(keys)
        if self._store is None:
            return CLIENT_NOT_INITIALIZED
        if media != way or not are_valid(names):
            return INVALID_PARAM
        codes = self._many(names, lambda store: move(store, names) if has_disk(store) else [ERROR], MOVE_CODES)
        return next((code for code in codes if code), OK)

    # How calls are made and answered

    def _one(
        self, key: Key, call: Callable[[mmc.Store], object], meanings: dict[Code, int], is_direct: bool = True
    ) -> int:
        """A call for one key: 0, or what the code of its failure means."""
        store = self._store
        if store is None:
            return CLIENT_NOT_INITIALIZED
        if not is_direct:
            return ERROR
        if not is_valid(key):
            return INVALID_PARAM
        try:
            call(store)
        except mmc.Error as error:
            return code_of(error, meanings)
        return OK

    def _many(
        self,
        names: list[Key],
        call: Callable[[mmc.Store], list[int]],
        meanings: dict[Code, int],
        is_direct: bool = True,
    ) -> list[int]:
        """A call for keys that must all be good: what the code of each means."""
        store = self._store
        if not names:
            return []
        if store is None:
            return [CLIENT_NOT_INITIALIZED] * len(names)
        if not is_direct:
            return [ERROR] * len(names)
        if not are_valid(names):
            return [INVALID_PARAM] * len(names)
        try:
            return meanings_of(call(store), meanings)
        except mmc.Error as error:
            return [code_of(error, meanings)] * len(names)

    def _each(
        self,
        names: list[Key],
        call: Callable[[mmc.Store, list[Key]], list[int]],
        meanings: dict[Code, int],
    ) -> list[int]:
        """A call in which a bad key spoils no other."""
        store = self._store
        if store is None:
            return [CLIENT_NOT_INITIALIZED] * len(names)
        codes = [INVALID_PARAM] * len(names)
        good = range(len(names)) if are_valid(names) else [n for n, name in enumerate(names) if are_valid([name])]
        try:
            answers = meanings_of(call(store, [names[number] for number in good]), meanings)
            for number, code in zip(good, answers):
                codes[number] = code
        except mmc.Error as error:
            return [code_of(error, meanings)] * len(names)
        return codes

    def _put_one(self, key: Key, put: Callable[[mmc.Store], None], direct: int = 3) -> int:
        """A put of one copy of one object, again when reservations that nobody finished have kept it out."""

        def attempt(store: mmc.Store) -> None:
            try:
                put(store)
            except mmc.NoSpace:
                if self._process is None or not self._process.give_up_overdue(store):
                    raise
                put(store)

        return self._one(key, attempt, PUT_CODES, direct in PUTS)

    def _put_many(
        self,
        names: list[Key],
        config: ReplicateConfig,
        put: Callable[[mmc.Store, dict[str, Any]], list[int]],
        direct: int = 3,
    ) -> list[int]:
        copies = _copies_of(config)
        if copies is None:
            return [INVALID_PARAM if self._store is not None else CLIENT_NOT_INITIALIZED] * len(names)

        def attempt(store: mmc.Store) -> list[int]:
            codes = put(store, copies)
            if Code.NO_SPACE in codes and self._process is not None and self._process.give_up_overdue(store):
                # Those that were stored exist now, which is as good.
                codes = put(store, copies)
            # Everything else was found good before: there are not so many ranks, or not these.
            return [ERROR if code == Code.INVALID_PARAM else code for code in codes] if copies else codes

        return self._many(names, attempt, PUT_CODES, direct in PUTS)


def _copies_of(config: ReplicateConfig) -> Optional[dict[str, Any]]:
    """A replicate config as arguments of a put; None for one that says what can't be."""
    if config is _ONE_COPY:
        return {}
    if not isinstance(config, ReplicateConfig):
        raise TypeError(f"replicateConfig must be a ReplicateConfig, not {type(config).__name__}")
    if not config.is_valid():
        return None
    if config.replicaNum == 1 and not config.preferredLocalServiceIDs:
        return {}
    return {"replicas": config.replicaNum, "preferred_ranks": config.preferredLocalServiceIDs}


def _put_values(store: mmc.Store, names: list[Key], values: Sequence[Any], copies: dict[str, Any]) -> list[int]:
    if not all(memoryview(value).nbytes for value in values):
        raise mmc.InvalidParam("a value has no bytes")
    return store.batch_put(names, values, **copies)


def _put_from(
    store: mmc.Store, names: list[Key], buffer_ptrs: Addresses, sizes: Addresses, copies: dict[str, Any]
) -> list[int]:
    require_some(buffer_ptrs, sizes)
    return store.batch_put_from(names, buffer_ptrs, sizes, **copies)


def _get_to(store: mmc.Store, names: list[Key], buffer_ptrs: Addresses, sizes: Addresses) -> list[int]:
    require_some(buffer_ptrs, sizes)
    return store.batch_get_to(names, buffer_ptrs, sizes)


def _addresses_of(store: mmc.Store, names: list[Key]) -> list[int]:
    """The address of each object that is there; 0 for one that has gone meanwhile."""
    addresses = [0] * len(names)
    left = list(range(len(names)))
    for _ in range(_LOOKS):
        infos = store.batch_query([names[number] for number in left], peek=True, reserved=True)
        for number, info in zip(left, infos):
            if info is not None and info.blobs:
                addresses[number] = info.blobs[0].address
        # Another thread has the key and not yet the memory: it is making room.
        left = [number for number, info in zip(left, infos) if info is not None and not info.blobs]
        if not left:
            break
        time.sleep(_LOOK_SECONDS)
    return addresses
