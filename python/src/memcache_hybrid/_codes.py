"""What the library's codes mean in this interface, call by call."""

from __future__ import annotations

import logging
from typing import Optional

import mmc
from mmc import Code

from ._values import CLIENT_NOT_INITIALIZED, ERROR, NO_META_SERVICE, OK, UNMATCHED_KEY, UNMATCHED_STATE

_log = logging.getLogger("memcache_hybrid")

PUT_CODES = {Code.EXISTS: OK, Code.NO_SPACE: ERROR}
GET_CODES = {Code.NOT_FOUND: ERROR, Code.SIZE_MISMATCH: ERROR}
EXIST_CODES = {Code.OK: 1, Code.NOT_FOUND: 0}
REMOVE_CODES = {Code.NOT_FOUND: UNMATCHED_KEY}
LEASE_CODES = {Code.NOT_FOUND: UNMATCHED_KEY, Code.STATE: UNMATCHED_STATE}
MOVE_CODES = {Code.NOT_FOUND: UNMATCHED_KEY, Code.NO_SPACE: ERROR}
WRITE_CODES = {Code.NOT_FOUND: UNMATCHED_KEY, Code.STATE: OK}
READ_CODES = {Code.NOT_FOUND: UNMATCHED_KEY, Code.STATE: UNMATCHED_STATE}
_GONE_CODES = {Code.NOT_STARTED: CLIENT_NOT_INITIALIZED, Code.FORKED: CLIENT_NOT_INITIALIZED}


#: The library's own codes, which this interface has no number for: what it calls an error, but for the end of the owner.
_OWN_CODES = {**{code: ERROR for code in Code if code <= Code.FORKED}, Code.DISCONNECTED: NO_META_SERVICE}


def meanings_of(codes: list[int], meanings: dict[Code, int]) -> list[int]:
    """What the codes of a batch mean."""
    if not any(codes) and Code.OK not in meanings:
        return codes
    known = {**_OWN_CODES, **meanings}
    return [known.get(code, code) for code in codes]  # type: ignore[call-overload]


def state_of(info: Optional[mmc.ObjectInfo]) -> int:
    """What finishing a write of an object means that is not reserved here."""
    if info is None:
        return UNMATCHED_KEY
    return OK if info.readable else UNMATCHED_STATE


def report(error: mmc.Error) -> None:
    """Logs a failure for which the answer has no code. That another thread has closed the store, or the interpreter ends, is none."""
    if error.code not in _GONE_CODES:
        _log.error("%s", error)


def code_of(error: mmc.Error, meanings: Optional[dict[Code, int]] = None) -> int:
    """What a failure of a whole call means."""
    code = error.code
    return int({**_OWN_CODES, **_GONE_CODES, **(meanings or {})}.get(code, code))  # type: ignore[call-overload]


def has_disk(store: mmc.Store) -> bool:
    """Whether there is anything to move objects to and from."""
    return any(segment.medium == "SSD" for segment in store.segments())
