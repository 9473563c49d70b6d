"""A drop-in for `memcache_hybrid` (MemCache Hybrid 1.3.0) over `mmc`: the same calls and codes, for the processes of one host.

    from memcache_hybrid import DistributedObjectStore

    store = DistributedObjectStore()
    assert store.init(device_id=0) == 0

All instances of a process share one store. Where a `MetaService` runs on the host, it owns the pool: processes with its `meta_service_url` attach to it, each brings
its memory and has a rank, and all see all objects. With no such service to be found, a process has a store of its own. What runs here runs on host memory; settings
for RDMA, TLS and thread pools are checked, reported once, and mean nothing.
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
