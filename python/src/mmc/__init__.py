"""mmc: a cache, in this process or shared by those of a host, for the KV blocks of large language models.

    import mmc

    with mmc.Store(dram="4GiB", http="127.0.0.1:0") as store:
        store.put("model-7b/9f8e7d", block)      # bytes, numpy, torch: any contiguous buffer
        store.get_into("model-7b/9f8e7d", out)   # into a writable one
        with store.pin("model-7b/9f8e7d") as view:
            ...                                  # where it lies, without a copy

Several processes of a host share one pool: one of them opens it, with `Store(share="unix:/run/mmc/pool.sock")` or as a program of its own,
`python -m mmc serve`, and the others `Store.attach` to it.

`Store` is all there is to know first. What it raises is under `Error`; its log goes to `logging`, to the logger "mmc". The library lies in this package
and is called through ctypes; `include/mmc.h` of the project is what it mirrors.
"""

from ._errors import (
    Busy,
    Code,
    Disconnected,
    Error,
    Forked,
    Internal,
    InvalidParam,
    Io,
    KeyExists,
    NoLease,
    NoSpace,
    NotFound,
    NotStarted,
    OutOfMemory,
    SizeMismatch,
    Timeout,
    Unsupported,
    WrongState,
)
from ._log import begin as _begin_log
from ._log import set_log_level, set_logger
from ._native import library as _library
from ._reports import BlobInfo, Event, ObjectInfo, SegmentInfo, Statistics
from ._segments import CopyCallback, CopyOperation
from ._store import Store
from ._views import Pin, Reservation

__version__: str = _library.mmc_version().decode()

__all__ = [
    "BlobInfo",
    "Busy",
    "Code",
    "CopyCallback",
    "CopyOperation",
    "Disconnected",
    "Error",
    "Event",
    "Forked",
    "Internal",
    "InvalidParam",
    "Io",
    "KeyExists",
    "NoLease",
    "NoSpace",
    "NotFound",
    "NotStarted",
    "ObjectInfo",
    "OutOfMemory",
    "Pin",
    "Reservation",
    "SegmentInfo",
    "SizeMismatch",
    "Statistics",
    "Store",
    "Timeout",
    "Unsupported",
    "WrongState",
    "set_log_level",
    "set_logger",
]

_begin_log()
