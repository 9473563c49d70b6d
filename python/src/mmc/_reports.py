"""What the store tells of itself: objects, segments, counters, events."""

from __future__ import annotations

from typing import NamedTuple, Optional

from . import _native


class BlobInfo(NamedTuple):
    """One copy of an object."""

    #: "HBM", "DRAM" or "SSD".
    medium: str
    rank: int
    #: Pool address of its first byte: the store's own number for it, below 2^63, and no pointer.
    address: int


class ObjectInfo(NamedTuple):
    """An object as it was when it was asked for."""

    #: Bytes, as it was put.
    size: int
    #: False while it is being written.
    readable: bool
    #: Leases on it that were not over.
    lease_count: int
    #: Its copies in placement order.
    blobs: tuple[BlobInfo, ...]


class SegmentInfo(NamedTuple):
    """A segment as it was when it was asked for."""

    #: Pool address of its first byte, which names it.
    address: int
    #: "HBM", "DRAM" or "SSD".
    medium: str
    rank: int
    #: Bytes.
    capacity: int
    #: Bytes in use, every object rounded up to 4096.
    allocated: int
    #: "private" or "memfd" for memory that the library mapped, None for the host's.
    memory: Optional[str]
    #: Its pages, "small", "advised", "hugetlb" or "collapsed"; None for the host's memory.
    pages: Optional[str]


class Statistics(NamedTuple):
    """Counters since the store was opened, and levels now. Bytes where the name says so, and for the capacity, the allocated and the metadata."""

    segment_count: int
    stored_keys: int
    capacity: int
    allocated: int
    metadata: int
    alloc_operations: int
    get_operations: int
    get_hits: int
    get_misses: int
    exist_hits: int
    exist_misses: int
    remove_operations: int
    evict_operations: int
    evicted_bytes: int
    put_bytes: int
    get_bytes: int
    pins: int
    reservations: int
    leases: int
    events_dropped: int
    get_hits_hbm: int
    get_hits_ssd: int
    demotions: int
    promotions: int
    moved_bytes: int
    move_failures: int
    rotten_objects: int
    spill_drops: int
    attached: int


class Event(NamedTuple):
    """Something that happened to a copy of an object."""

    #: "stored", "removed" or "moved".
    kind: str
    key: str
    #: "HBM", "DRAM" or "SSD".
    medium: str
    rank: int


def object_info(info: _native.ObjectInfo) -> ObjectInfo:
    blobs = tuple(
        BlobInfo(_native.MEDIUM_NAMES[blob.medium], blob.rank, blob.address) for blob in info.blobs[: info.blob_count]
    )
    return ObjectInfo(info.size, bool(info.readable), info.lease_count, blobs)


def segment_info(info: _native.SegmentInfo) -> SegmentInfo:
    return SegmentInfo(
        info.address,
        _native.MEDIUM_NAMES[info.medium],
        info.rank,
        info.capacity,
        info.allocated,
        _native.MEMORY_NAMES.get(info.memory),
        _native.PAGES_NAMES.get(info.pages),
    )


def statistics(values: _native.Statistics) -> Statistics:
    return Statistics(*[getattr(values, name) for name in Statistics._fields])
