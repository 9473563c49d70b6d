"""The one store of a process: attached or opened by the first `init`, closed by the last `close`.

It is that of this host's owner when there is one, and otherwise the process's own, which then nobody else can see.

It also knows what `batch_alloc` has reserved, by key, as the calls that finish a write name keys. A reservation that nobody finished in
its term is given up here, so that its memory comes back: callers know it by a global address only, and copies to that then find nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Optional

import mmc
from mmc import _native
from mmc._calls import put_options

from . import _owner
from ._config import Settings
from ._values import NO_RANK, Key

#: Milliseconds for which `batch_alloc` keeps memory at least: the library's own term of a reservation.
TERM_MS = 60_000

_SWITCHES = {_native.OFF: False, _native.ON: True}


class _Reserved(NamedTuple):
    store: mmc.Store
    token: int
    #: Where `time.monotonic` is when its term is over.
    end: float
    #: Until when the object is to be leased once it is published; 0: not at all.
    leased_until: float


class Process:
    """The store that instances share, and how many they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._has_memory = False
        self._is_attached = False
        self._reserved: dict[bytes, _Reserved] = {}
        self.store: Optional[mmc.Store] = None
        #: What was attached before there was memory to bring. Its reservations and leases last as long as it does.
        self._former: Optional[mmc.Store] = None
        self.rank = NO_RANK

    def join(self, settings: Settings, *, brings_memory: bool) -> None:
        """Attaches to the owner or opens a store of these settings, or adds their memory if the store has none, for one more user.

        Raises `mmc.Error` and `_owner.NoMetaService`.
        """
        with self._lock:
            if self.store is None:
                attached = _owner.attach(settings, brings_memory=brings_memory)
                if attached is None:
                    self._open(settings.config, brings_memory=brings_memory, share=None)
                else:
                    self._use(attached)
                self._is_attached = attached is not None
                self._has_memory = brings_memory
            elif brings_memory and not self._has_memory:
                self._add_memory(self.store, settings)
                self._has_memory = True
            self._users += 1

    def serve(self, settings: Settings) -> None:
        """Opens a store without memory and shares it with other processes, for one more user. Raises `mmc.Error` and `_owner.NoMetaService`."""
        with self._lock:
            if self.store is not None:
                raise mmc.Busy("the process has a store already")
            self._open(settings.config, brings_memory=False, share=_owner.address_of(settings))
            self._is_attached = self._has_memory = False
            self._users += 1

    def _open(self, config: _native.Config, *, brings_memory: bool, share: Optional[str]) -> None:
        before = config.dram_size, config.share
        if not brings_memory:
            config.dram_size = _native.NO_DRAM
        config.share = None if share is None else share.encode()
        try:
            self._use(mmc.Store.of_config(config))
        finally:
            config.dram_size, config.share = before

    def _use(self, store: mmc.Store) -> None:
        rank = store.rank
        self.store, self.rank = store, NO_RANK if rank is None else rank

    def _add_memory(self, store: mmc.Store, settings: Settings) -> None:
        config = settings.config
        if config.dram_size == _native.NO_DRAM:
            return
        if self._is_attached:
            # Only what comes with attaching has a rank of its own, and waits for a successor should this process die.
            attached = _owner.attach(settings, brings_memory=True)
            if attached is None:
                raise mmc.Disconnected("the owner of the pool has gone")
            self._former = store
            self._use(attached)
            return
        store.register_segment(
            "DRAM",
            rank=self.rank,
            capacity=config.dram_size or "1GiB",
            huge_pages=_SWITCHES.get(config.huge_pages),
            prefault=_SWITCHES.get(config.prefault),
            mapping=_native.MEMORY_NAMES.get(config.memory),
            numa_node=config.numa_node - 1 if config.numa_node else None,
        )

    def leave(self) -> None:
        """One user less; the last one closes the store. Raises `mmc.Busy` when it is in use, from inside a callback say."""
        with self._lock:
            if self._users > 1 or self.store is None:
                self._users -= 1
                return
            # What was reserved has gone with the owner, if that has.
            with suppress(mmc.Disconnected):
                self._abort(list(self._reserved))
            self.store.close()
            if self._former is not None:
                self._former.close()
            self._users = 0
            self.store = self._former = None

    def reserve(
        self, store: mmc.Store, keys: list[Key], sizes: Sequence[int], medium: str, lease_ms: int
    ) -> tuple[list[int], list[int]]:
        """Reserves objects: the addresses, which mean something where the code is 0, and the codes."""
        now = time.monotonic()
        term_ms = max(lease_ms, TERM_MS)
        self.give_up_overdue(store)
        views, codes = store._reserve_many(keys, sizes, put_options(1, (), medium, None, term_ms))
        tokens = _native.column(views, "token", len(keys))
        leased_until = now + lease_ms / 1000 if lease_ms > 0 else 0.0
        with self._lock:
            if not self._is_open(store):
                store._each_token(
                    _native.library.mmc_batch_abort, [token for token, code in zip(tokens, codes) if code == 0]
                )
            self._require_open(store)
            for key, token, code in zip(keys, tokens, codes):
                if code == 0:
                    # One that still stands there is overdue by the library's clock, or its key would not have been free.
                    self._abort([_name(key)])
                    self._reserved[_name(key)] = _Reserved(store, token, now + term_ms / 1000, leased_until)
        return _native.column(views, "address", len(keys)), codes

    def lease(self, store: mmc.Store, keys: list[Key], lease_ms: int) -> None:
        """Leases objects that are there, and those that are reserved from when they are published."""
        until = time.monotonic() + lease_ms / 1000
        with self._lock:
            self._require_open(store)
            for name in map(_name, keys):
                reserved = self._reserved.get(name)
                if reserved is not None:
                    self._reserved[name] = reserved._replace(leased_until=max(until, reserved.leased_until))
        store.batch_add_lease(keys, lease_ms)

    def finish(self, store: mmc.Store, keys: list[Key], good: list[bool]) -> list[Optional[int]]:
        """Publishes the reserved objects that are good and drops the others: the code of each, None for a key that is not reserved here."""
        codes: list[Optional[int]] = [None] * len(keys)
        published: list[tuple[int, _Reserved]] = []
        with self._lock:
            self._require_open(store)
            for number, key in enumerate(keys):
                if good[number]:
                    reserved = self._reserved.pop(_name(key), None)
                    if reserved is not None:
                        published.append((number, reserved))
                elif self._abort([_name(key)]):
                    codes[number] = 0
        for holder in {reserved.store for _, reserved in published}:
            own = [(number, reserved) for number, reserved in published if reserved.store is holder]
            results = holder._each_token(_native.library.mmc_batch_commit, [reserved.token for _, reserved in own])
            for (number, reserved), code in zip(own, results):
                codes[number] = code
                left = reserved.leased_until - time.monotonic()
                if code == 0 and left > 0:
                    store.batch_add_lease([keys[number]], max(1, int(left * 1000)))
        return codes

    def give_up_overdue(self, store: mmc.Store) -> bool:
        """Gives up the reservations whose term is over; whether there were any."""
        # The library counts whole milliseconds, so by its clock it may have been over for one already.
        now = time.monotonic() + 0.001
        with self._lock:
            self._require_open(store)
            # Terms may differ, so all are looked at: as many as are being written at this moment, and those that were forgotten.
            overdue = [name for name, reserved in self._reserved.items() if reserved.end <= now]
            return self._abort(overdue)

    def _is_open(self, store: mmc.Store) -> bool:
        return store is self.store or store is self._former

    def _require_open(self, store: mmc.Store) -> None:
        """What is known of reservations is of the open store: in another, opened since, a token may be somebody else's."""
        if not self._is_open(store):
            raise mmc.NotStarted("the store was closed meanwhile")

    def _abort(self, names: list[bytes]) -> bool:
        given_up = [self._reserved.pop(name) for name in names if name in self._reserved]
        for holder in {reserved.store for reserved in given_up}:
            tokens = [reserved.token for reserved in given_up if reserved.store is holder]
            holder._each_token(_native.library.mmc_batch_abort, tokens)
        return bool(given_up)


def _name(key: Key) -> bytes:
    return key if isinstance(key, bytes) else key.encode()


#: The process's own. A child has its own, too, and the parent's is of no use there.
current = Process()


def _begin_child() -> None:
    global current
    current = Process()


os.register_at_fork(after_in_child=_begin_child)
