"""A drop-in for `memcache_hybrid` (MemCache Hybrid 1.3.0) over `mmc`: the same calls and codes, in one process, with no service to start.

    from memcache_hybrid import DistributedObjectStore

    store = DistributedObjectStore()
    assert store.init(device_id=0) == 0

All instances of a process share one store. What runs here runs on host memory; settings for RDMA, TLS and thread pools are checked, reported once, and
mean nothing.
"""

from ._config import LocalConfig, MetaConfig
from ._meta import MetaService
from ._store import DistributedObjectStore
from ._values import AUTO, G2H, G2L, H2G, L2G, KeyInfo, ReplicateConfig

__all__ = [
    "AUTO",
    "G2H",
    "G2L",
    "H2G",
    "L2G",
    "DistributedObjectStore",
    "KeyInfo",
    "LocalConfig",
    "MetaConfig",
    "MetaService",
    "ReplicateConfig",
]
