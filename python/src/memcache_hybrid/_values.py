"""What the calls take and give: directions, codes, keys, `KeyInfo`, `ReplicateConfig`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Optional, Union

import mmc
from mmc import _native

Key = Union[str, bytes]

#: Directions of a copy: device to pool, pool to device, pool to host, host to pool; and one that is none of them here.
L2G, G2L, G2H, H2G, AUTO = 0, 1, 2, 3, 4
PUTS = (L2G, H2G)
GETS = (G2L, G2H)

#: Media by the numbers of this interface.
MEDIA = ("HBM", "DRAM", "SSD")

OK = 0
ERROR = -1
INVALID_PARAM = -3000
REPEATED = -3005
NOT_FOUND = -3007
SIZE_MISMATCH = -3012
NO_META_SERVICE = -3017
CLIENT_NOT_INITIALIZED = -3019
UNMATCHED_STATE = -3101
UNMATCHED_KEY = -3102
NO_LEASE = -3106

#: The rank of an instance that is not initialised, or brings no memory to a pool of several processes.
NO_RANK = _native.NO_RANK

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def list_of_keys(keys: Sequence[Key]) -> list[Key]:
    """Keys as a list; a single key, which is a sequence too, is a mistake."""
    if isinstance(keys, (str, bytes)):
        raise TypeError("keys must be a list of keys, not one key")
    return keys if isinstance(keys, list) else list(keys)


def are_valid(keys: list[Key]) -> bool:
    """Whether all are keys: 1 to 256 bytes of UTF-8 without control characters. Raises `TypeError` where one is no text at all."""
    try:
        texts: Any = keys
        try:
            joined = "".join(texts)
        except TypeError:
            texts = [_text(key) for key in keys]
            joined = "".join(texts)
        sizes = list(map(len, texts if joined.isascii() else [text.encode() for text in texts]))
    except UnicodeError:
        return False
    if not sizes:
        return True
    # What can be printed has no control character, and that is the common case and quickly found out.
    return (
        min(sizes) >= 1
        and max(sizes) <= _native.MAX_KEY_SIZE
        and (joined.isprintable() or _CONTROL.search(joined) is None)
    )


def is_valid(key: Key) -> bool:
    """As `are_valid`, of one key."""
    if type(key) is str and key.isascii():
        # ASCII that can be printed is what has no control character.
        return 1 <= len(key) <= _native.MAX_KEY_SIZE and key.isprintable()
    return are_valid([key])


def _text(key: Key) -> str:
    if isinstance(key, bytes):
        return key.decode()
    if not isinstance(key, str):
        raise TypeError(f"a key must be str or bytes, not {type(key).__name__}")
    return key


class KeyInfo:
    """Where an object lies. Empty when there is none."""

    def __init__(self, info: Optional[mmc.ObjectInfo] = None) -> None:
        self._size = 0 if info is None else info.size
        self._blobs = () if info is None else info.blobs

    def size(self) -> int:
        """Bytes, as it was put; 0 when there is none."""
        return self._size

    def loc_list(self) -> list[int]:
        """The rank of each copy."""
        return [blob.rank for blob in self._blobs]

    def type_list(self) -> list[int]:
        """The medium of each copy: 0 HBM, 1 DRAM, 2 SSD."""
        return [MEDIA.index(blob.medium) for blob in self._blobs]

    def gva_list(self) -> list[int]:
        """The global address of each copy, for `batch_copy`. Valid while the object is reserved or leased."""
        return [blob.address for blob in self._blobs]

    def __str__(self) -> str:
        def joined(numbers: list[int]) -> str:
            return ",".join(map(str, numbers))

        # One copy after the other, and nothing but the names when there is none.
        if not self._blobs:
            return "loc: type: gva: blobNum:0, size:0"
        return (
            f"loc:{joined(self.loc_list())}, type:{joined(self.type_list())}, gva:{joined(self.gva_list())}, "
            f"blobNum:{len(self._blobs)}, size:{self._size}"
        )

    __repr__ = __str__


class ReplicateConfig:
    """How many copies of an object there are to be, and where.

    `replicaNum`: 1 to 8, each on another rank. `preferredLocalServiceIDs`: ranks to try first; unique, and at most `replicaNum`.
    """

    __slots__ = ("preferredLocalServiceIDs", "replicaNum")

    def __init__(self) -> None:
        self.replicaNum: int = 1
        self.preferredLocalServiceIDs: list[int] = []

    def is_valid(self) -> bool:
        """Whether it says what can be meant, whatever ranks there are."""
        ranks = self.preferredLocalServiceIDs
        return (
            1 <= self.replicaNum <= _native.MAX_REPLICAS
            and len(ranks) <= self.replicaNum
            and len(set(ranks)) == len(ranks)
            and all(0 <= rank < NO_RANK for rank in ranks)
        )
