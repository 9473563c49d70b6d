"""The C ABI of libmmc, for ctypes: structs, prototypes, and the turning of a code into an exception.

Everything here mirrors `include/mmc.h`, which says what each function does. The library is called through `CDLL`, which lets the
interpreter's lock go for the call: other Python threads run while bytes are copied. Only `_buffers` calls the interpreter itself,
and keeps the lock.
"""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Optional, TypeVar

from ._errors import Error

# The version of the interface that this package is written for. The library's must be at least that.
ABI_VERSION = 1
MAX_REPLICAS = 8
MAX_KEY_SIZE = 256
MAX_BATCH = 16384
NO_DRAM = 2**64 - 1
NO_RANK = 2**32 - 1
MAX_RANK = 65535
OFF, ON = 1, 2
PEEK, GET_UP_TO, QUERY_RESERVED = 1, 2, 4
TO_SEGMENT, FROM_SEGMENT = 1, 2
MEDIA = {"HBM": 1, "DRAM": 2, "SSD": 3}
MEDIUM_NAMES = {number: name for name, number in MEDIA.items()}
MEMORY = {"private": 1, "memfd": 2}
MEMORY_NAMES = {number: name for name, number in MEMORY.items()}
EVICTION = {"prefix": 1, "adaptive": 2}
PAGES_NAMES = {1: "small", 2: "advised", 3: "hugetlb", 4: "collapsed"}
EVENT_KINDS = {1: "stored", 2: "removed", 3: "moved"}
LOG_LEVELS = {"off": 1, "error": 2, "warn": 3, "info": 4, "debug": 5, "trace": 6}


class Key(ctypes.Structure):
    """`mmc_key`. Its bytes must be kept for as long as it is used; a `bytes` given to it is."""

    _fields_ = [("data", c_char_p), ("size", c_size_t)]


class Config(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("rank", c_uint32),
        ("dram_size", c_uint64),
        ("watermark_high", c_uint32),
        ("watermark_low", c_uint32),
        ("http_address", c_char_p),
        ("http_token", c_char_p),
        ("config_path", c_char_p),
        ("log_level", c_uint32),
        ("huge_pages", c_uint32),
        ("prefault", c_uint32),
        ("memory", c_uint32),
        ("numa_node", c_uint32),
        ("reserved", c_uint32),
        ("clock", c_void_p),
        ("clock_user_data", c_void_p),
        ("ssd_path", c_char_p),
        ("ssd_size", c_uint64),
        ("move_rate", c_uint64),
        ("eviction", c_uint32),
        ("verify_dram", c_uint32),
        ("state_path", c_char_p),
        ("state_wipe", c_uint32),
        ("reserved_2", c_uint32),
        ("share", c_char_p),
        ("share_users", c_char_p),
        ("share_groups", c_char_p),
        ("share_wait_ms", c_uint64),
        ("share_mode", c_uint32),
        ("reserved_3", c_uint32),
    ]


class AttachOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("rank", c_uint32),
        ("dram_size", c_uint64),
        ("wait_ms", c_uint64),
        ("call_timeout_ms", c_uint64),
        ("huge_pages", c_uint32),
        ("prefault", c_uint32),
        ("numa_node", c_uint32),
        ("log_level", c_uint32),
    ]


class SegmentOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("medium", c_uint32),
        ("rank", c_uint32),
        ("huge_pages", c_uint32),
        ("capacity", c_uint64),
        ("base", c_void_p),
        ("copy", c_void_p),
        ("context", c_void_p),
        ("prefault", c_uint32),
        ("memory", c_uint32),
        ("numa_node", c_uint32),
        ("reserved", c_uint32),
        ("path", c_char_p),
    ]


class SegmentInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("medium", c_uint32),
        ("rank", c_uint32),
        ("pages", c_uint32),
        ("address", c_uint64),
        ("capacity", c_uint64),
        ("allocated", c_uint64),
        ("memory", c_uint32),
        ("reserved", c_uint32),
    ]


class PutOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("replicas", c_uint32),
        ("preferred_ranks", ctypes.POINTER(c_uint32)),
        ("preferred_count", c_size_t),
        ("medium", c_uint32),
        ("reserved", c_uint32),
        ("stream", c_void_p),
        ("term_ms", c_uint64),
    ]


class GetOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("stream", c_void_p)]


class BlobInfo(ctypes.Structure):
    _fields_ = [("medium", c_uint32), ("rank", c_uint32), ("address", c_uint64), ("data", c_void_p)]


class ObjectInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("readable", c_uint32),
        ("size", c_uint64),
        ("blob_count", c_uint32),
        ("lease_count", c_uint32),
        ("blobs", BlobInfo * MAX_REPLICAS),
    ]


class View(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("token", c_uint64),
        ("address", c_uint64),
        ("data", c_void_p),
        ("size", c_uint64),
    ]


class Statistics(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("segment_count", c_uint32),
        *[
            (name, c_uint64)
            for name in (
                "stored_keys capacity allocated metadata alloc_operations get_operations get_hits get_misses exist_hits exist_misses "
                "remove_operations evict_operations evicted_bytes put_bytes get_bytes pins reservations leases events_dropped "
                "get_hits_hbm get_hits_ssd demotions promotions moved_bytes move_failures rotten_objects spill_drops "
                "attached"
            ).split()
        ],
    ]


class CopyOperation(ctypes.Structure):
    _fields_ = [("source", c_uint64), ("destination", c_uint64), ("length", c_uint64)]


class Event(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("medium", c_uint32),
        ("rank", c_uint32),
        ("key_data", c_void_p),
        ("key_size", c_size_t),
    ]


CLOCK_CALLBACK = ctypes.CFUNCTYPE(c_uint64, c_void_p)
COPY_CALLBACK = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t, c_uint32, c_void_p)
KEYS_CALLBACK = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t)
LOG_CALLBACK = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_char_p)
EVENT_CALLBACK = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t, c_uint64)

# A function's arguments; what it returns is a code, unless RETURNS says otherwise. Arrays and structs are given by address.
_STORE, _ARRAY, _COUNT, _FLAGS, _TOKEN = c_void_p, c_void_p, c_size_t, c_uint32, c_uint64
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "mmc_version": (),
    "mmc_abi_version": (),
    "mmc_config_init_sized": (c_void_p, c_size_t),
    "mmc_config_parse": (c_char_p, c_char_p, c_size_t, c_void_p, c_void_p, c_size_t, c_void_p),
    "mmc_init": (c_void_p, c_void_p),
    "mmc_uninit": (_STORE,),
    "mmc_register_segment": (_STORE, c_void_p, c_void_p),
    "mmc_unregister_segment": (_STORE, c_uint64),
    "mmc_list_segments": (_STORE, _ARRAY, _COUNT, c_void_p),
    "mmc_put": (_STORE, Key, c_void_p, c_size_t, c_void_p),
    "mmc_putv": (_STORE, Key, _ARRAY, _ARRAY, _COUNT, c_void_p),
    "mmc_get": (_STORE, Key, c_void_p, c_size_t, _FLAGS, c_void_p, c_void_p),
    "mmc_getv": (_STORE, Key, _ARRAY, _ARRAY, _COUNT, _FLAGS, c_void_p, c_void_p),
    "mmc_exist": (_STORE, Key, _FLAGS),
    "mmc_query": (_STORE, Key, _FLAGS, c_void_p),
    "mmc_remove": (_STORE, Key),
    "mmc_remove_all": (_STORE, c_void_p),
    "mmc_list_keys": (_STORE, KEYS_CALLBACK, c_void_p),
    "mmc_batch_put": (_STORE, _ARRAY, _COUNT, _ARRAY, _ARRAY, c_void_p, _FLAGS, _ARRAY),
    "mmc_batch_putv": (_STORE, _ARRAY, _COUNT, _ARRAY, _ARRAY, _ARRAY, c_void_p, _FLAGS, _ARRAY),
    "mmc_batch_get": (_STORE, _ARRAY, _COUNT, _ARRAY, _ARRAY, _FLAGS, c_void_p, _ARRAY, _ARRAY),
    "mmc_batch_getv": (_STORE, _ARRAY, _COUNT, _ARRAY, _ARRAY, _ARRAY, _FLAGS, c_void_p, _ARRAY, _ARRAY),
    "mmc_batch_exist": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY),
    "mmc_prefix_len": (_STORE, _ARRAY, _COUNT, _FLAGS, c_void_p),
    "mmc_batch_query": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY, _ARRAY),
    "mmc_batch_remove": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY),
    "mmc_evict": (_STORE, _ARRAY, _COUNT, c_uint32, c_uint32, _FLAGS, _ARRAY),
    "mmc_prefetch": (_STORE, _ARRAY, _COUNT, c_uint32, c_uint32, _FLAGS, _ARRAY),
    "mmc_reserve": (_STORE, Key, c_uint64, c_void_p, c_void_p),
    "mmc_commit": (_STORE, _TOKEN),
    "mmc_abort": (_STORE, _TOKEN),
    "mmc_pin": (_STORE, Key, _FLAGS, c_void_p),
    "mmc_unpin": (_STORE, _TOKEN),
    "mmc_add_lease": (_STORE, Key, c_uint64),
    "mmc_remove_lease": (_STORE, Key),
    "mmc_batch_reserve": (_STORE, _ARRAY, _COUNT, _ARRAY, c_void_p, _FLAGS, _ARRAY, _ARRAY),
    "mmc_batch_commit": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY),
    "mmc_batch_abort": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY),
    "mmc_batch_pin": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY, _ARRAY),
    "mmc_batch_unpin": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY),
    "mmc_batch_add_lease": (_STORE, _ARRAY, _COUNT, c_uint64, _FLAGS, _ARRAY),
    "mmc_batch_remove_lease": (_STORE, _ARRAY, _COUNT, _FLAGS, _ARRAY),
    "mmc_batch_copy": (_STORE, _ARRAY, _COUNT, _ARRAY, _ARRAY, c_uint32, _FLAGS, c_void_p, _ARRAY),
    "mmc_last_error": (),
    "mmc_error_name": (c_int32,),
    "mmc_set_logger": (LOG_CALLBACK, c_void_p),
    "mmc_set_log_level": (c_uint32,),
    "mmc_stats": (_STORE, c_void_p),
    "mmc_http_address": (_STORE, c_void_p, c_size_t, c_void_p),
    "mmc_set_event_callback": (_STORE, EVENT_CALLBACK, c_void_p),
    "mmc_share": (_STORE, c_char_p),
    "mmc_attach": (c_char_p, c_void_p, c_void_p),
    "mmc_rank": (_STORE, c_void_p),
}
RETURNS: dict[str, Any] = {
    "mmc_version": c_char_p,
    "mmc_abi_version": c_uint32,
    "mmc_last_error": c_char_p,
    "mmc_error_name": c_char_p,
}


def _load() -> ctypes.CDLL:
    # MMC_LIBRARY names another build of the library, for those who work on it.
    path = os.environ.get("MMC_LIBRARY") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "libmmc.so")
    try:
        library = ctypes.CDLL(path)
        for name, arguments in PROTOTYPES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = RETURNS.get(name, c_int32)
    except (OSError, AttributeError) as error:
        raise ImportError(f"mmc: {path} can't be used: {error}") from error
    if library.mmc_abi_version() < ABI_VERSION:
        raise ImportError(
            f"mmc: {path} has version {library.mmc_abi_version()} of the interface, this package needs {ABI_VERSION}: install them together"
        )
    return library


library = _load()

Struct = TypeVar("Struct", bound=ctypes.Structure)


def sized(struct: type[Struct], **fields: Any) -> Struct:
    """A struct with its `struct_size` set."""
    return struct(struct_size=ctypes.sizeof(struct), **fields)


def array_of(struct: type[Struct], count: int) -> ctypes.Array[Struct]:
    """An array of structs, the first with its `struct_size` set, which holds for all."""
    elements = (struct * max(count, 1))()
    elements[0].struct_size = ctypes.sizeof(struct)
    return elements


def column(elements: ctypes.Array[Any], field: str, count: int) -> list[int]:
    """A 64-bit field of `count` elements of an array of structs, without a step of Python an element."""
    struct = elements._type_
    words = memoryview(elements).cast("B").cast("Q")
    return words[getattr(struct, field).offset // 8 :: ctypes.sizeof(struct) // 8].tolist()[:count]


class _Raised(threading.local):
    """What callbacks of this thread have raised, to be raised again when the call that they were made for returns."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []


_raised = _Raised()


def keep_raised(error: BaseException) -> None:
    """Keeps an exception of a callback for the call that this thread is inside of."""
    _raised.errors.append(error)


def raise_kept() -> None:
    """Raises what a callback of the call that has just returned has raised, if it did."""
    if _raised.errors:
        errors, _raised.errors = _raised.errors, []
        raise errors[0]


def last_error() -> str:
    """This thread's last failure in words."""
    words: Optional[bytes] = library.mmc_last_error()
    return (words or b"").decode("utf-8", "replace")


def check(code: int) -> None:
    """Raises the exception of a code that is not 0: what a callback has raised, or the library's own words."""
    if code:
        raise_kept()
        raise Error.of(code, last_error())
