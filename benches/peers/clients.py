"""What is asked of a cache through Python, and those who are asked: mmc, a dict, Redis, memcached, Mooncake Store.

A client has five passes over the objects of a `Work`: put, get, exist, miss, remove. Each is one call an object or one call a batch, whichever
the work says, and in the way that its documentation recommends for speed: addresses where it takes them, memory views where it takes those.
A get ends with the bytes in the caller's memory; who returns `bytes` copies them there. A pass raises when an answer is not what it must be.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

MIB = 1 << 20
HUGE_PAGE = 2 * MIB


class Memory:
    """The caller's buffers: touched, and larger than what a processor caches. Every pass gets a part that was not used lately."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.map = mmap.mmap(-1, size + HUGE_PAGE)
        with contextlib.suppress(AttributeError, OSError):
            self.map.madvise(mmap.MADV_HUGEPAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.skip = -start % HUGE_PAGE
        self.base = start + self.skip
        self.view = memoryview(self.map)[self.skip : self.skip + size]
        pattern = os.urandom(MIB)
        for offset in range(0, size, MIB):
            self.view[offset : offset + MIB] = pattern
            self.view[offset : offset + 8] = offset.to_bytes(8, "little")
        self.next = 0

    def take(self, count: int, size: int) -> range:
        """Offsets of `count` pieces of `size` bytes."""
        if self.next + count * size > self.size:
            self.next = 0
        start = self.next
        self.next += count * size
        return range(start, start + count * size, size)


class Work:
    """Objects of one size with their keys and the caller's memory for them, in batches."""

    def __init__(self, memory: Memory, keys: list[str], size: int, batch: int) -> None:
        offsets = memory.take(len(keys), size)
        self.keys, self.size, self.batch = keys, size, batch
        self.addresses = [memory.base + offset for offset in offsets]
        self.views = [memory.view[offset : offset + size] for offset in offsets]

    def batches(self) -> Iterator[tuple[list[str], list[int], list[int], list[memoryview]]]:
        for start in range(0, len(self.keys), self.batch):
            part = slice(start, start + self.batch)
            keys = self.keys[part]
            yield keys, self.addresses[part], [self.size] * len(keys), self.views[part]

    def part(self, number: int, parts: int) -> Work:
        """Every `parts`-th object from `number` on, for one of several threads."""
        part = object.__new__(Work)
        part.size, part.batch, mine = self.size, self.batch, slice(number, None, parts)
        part.keys, part.addresses, part.views = self.keys[mine], self.addresses[mine], self.views[mine]
        return part


def require(is_so: bool, what: str) -> None:
    if not is_so:
        raise RuntimeError(what)


class Mmc:
    """mmc through its Python package."""

    def __init__(self, pool: int) -> None:
        import mmc  # noqa: PLC0415  # the package is only in the environment that this runs in

        self.store = mmc.Store(dram=pool, prefault=True, watermark_high=100)

    def put(self, work: Work) -> None:
        if work.batch == 1:
            put = self.store.put
            for key, view in zip(work.keys, work.views):
                put(key, view)
            return
        for keys, addresses, sizes, _ in work.batches():
            require(not any(self.store.batch_put_from(keys, addresses, sizes)), "mmc: a put failed")

    def get(self, work: Work) -> None:
        if work.batch == 1:
            get = self.store.get_into
            for key, view in zip(work.keys, work.views):
                get(key, view)
            return
        for keys, addresses, sizes, _ in work.batches():
            require(not any(self.store.batch_get_to(keys, addresses, sizes)), "mmc: a get failed")

    def count(self, work: Work) -> int:
        if work.batch == 1:
            exists = self.store.exists
            return sum([exists(key) for key in work.keys])
        return sum(sum(self.store.batch_exists(keys)) for keys, *_ in work.batches())

    def remove(self, work: Work) -> None:
        if work.batch == 1:
            remove = self.store.remove
            for key in work.keys:
                remove(key)
            return
        for keys, *_ in work.batches():
            require(not any(self.store.batch_remove(keys)), "mmc: a removal failed")

    def clear(self) -> None:
        self.store.remove_all()

    def close(self) -> None:
        self.store.close()


class Dict:
    """A dict of bytes, which has no batches."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def put(self, work: Work) -> None:
        values = self.values
        for key, view in zip(work.keys, work.views):
            values[key] = bytes(view)

    def get(self, work: Work) -> None:
        values = self.values
        for key, view in zip(work.keys, work.views):
            view[:] = values[key]

    def count(self, work: Work) -> int:
        values = self.values
        return sum([key in values for key in work.keys])

    def remove(self, work: Work) -> None:
        values = self.values
        for key in work.keys:
            del values[key]

    def clear(self) -> None:
        self.values.clear()

    def close(self) -> None:
        self.clear()


class Redis:
    """Redis over a Unix socket, redis-py with hiredis."""

    def __init__(self, path: str) -> None:
        import redis  # noqa: PLC0415

        self.client = redis.Redis(unix_socket_path=path)
        require(self.client.ping(), "Redis: no answer")

    def put(self, work: Work) -> None:
        if work.batch == 1:
            put: Any = self.client.set
            for key, view in zip(work.keys, work.views):
                put(key, view)
            return
        for keys, _, _, views in work.batches():
            self.client.mset(dict(zip(keys, views)))

    def get(self, work: Work) -> None:
        if work.batch == 1:
            get: Any = self.client.get
            for key, view in zip(work.keys, work.views):
                view[:] = get(key)
            return
        for keys, _, _, views in work.batches():
            values: Any = self.client.mget(keys)
            for view, value in zip(views, values):
                view[:] = value

    def count(self, work: Work) -> int:
        if work.batch == 1:
            exists: Any = self.client.exists
            return sum([exists(key) for key in work.keys])
        total = 0
        for keys, *_ in work.batches():
            # One EXISTS of many keys only says how many are there; a pipeline says it of each.
            pipeline = self.client.pipeline(transaction=False)
            for key in keys:
                pipeline.exists(key)
            total += sum(pipeline.execute())
        return total

    def remove(self, work: Work) -> None:
        for keys, *_ in work.batches():
            require(self.client.delete(*keys) == len(keys), "Redis: a removal failed")

    def clear(self) -> None:
        self.client.flushall()

    def close(self) -> None:
        self.client.close()


class Memcached:
    """memcached over a Unix socket, pymemcache; existence by the meta command, which sends no value."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.of_thread = threading.local()
        self.client.version()

    @property
    def client(self) -> Any:
        """This thread's connection: a client is for one thread."""
        from pymemcache.client.base import Client  # noqa: PLC0415

        if not hasattr(self.of_thread, "client"):
            self.of_thread.client = Client(self.path, default_noreply=False)
        return self.of_thread.client

    def put(self, work: Work) -> None:
        client = self.client
        if work.batch == 1:
            put = client.set
            for key, view in zip(work.keys, work.views):
                put(key, bytes(view))  # it takes no view
            return
        for keys, _, _, views in work.batches():
            failed = client.set_many(dict(zip(keys, map(bytes, views))))
            require(not failed, "memcached: a put failed")

    def get(self, work: Work) -> None:
        client = self.client
        if work.batch == 1:
            get = client.get
            for key, view in zip(work.keys, work.views):
                view[:] = get(key)
            return
        for keys, _, _, views in work.batches():
            values = client.get_many(keys)
            for key, view in zip(keys, views):
                view[:] = values[key]

    def count(self, work: Work) -> int:
        client = self.client
        if work.batch == 1:
            ask = client.raw_command
            return sum([ask(f"mg {key}", "\r\n") == b"HD" for key in work.keys])
        return sum(self.count_batch(client.sock, keys) for keys, *_ in work.batches())

    def count_batch(self, connection: socket.socket, keys: list[str]) -> int:
        """Over the client's own socket: its raw command loses what comes in more than one piece."""
        # "mn" ends a batch of them, and its answer is the end of theirs.
        connection.sendall("".join([f"mg {key}\r\n" for key in keys]).encode() + b"mn\r\n")
        answer = b""
        while not answer.endswith(b"MN\r\n"):
            answer += connection.recv(1 << 16)
        return answer.count(b"HD\r\n")

    def remove(self, work: Work) -> None:
        client = self.client
        if work.batch == 1:
            delete = client.delete
            for key in work.keys:
                require(delete(key), "memcached: a removal failed")
            return
        for keys, *_ in work.batches():
            client.delete_many(keys)

    def clear(self) -> None:
        self.client.flush_all()

    def close(self) -> None:
        self.client.close()


class Mooncake:
    """Mooncake Store: its master, and one client in this process that brings the pool and copies in it by memcpy."""

    NO_ROOM = -200

    def __init__(self, master: str, pool: int, memory: Memory) -> None:
        os.environ["MC_STORE_MEMCPY"] = "1"
        os.environ.setdefault("GLOG_minloglevel", "3")
        from mooncake.store import MooncakeDistributedStore  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        self.store: Any = MooncakeDistributedStore()
        code = self.store.setup("127.0.0.1", "P2PHANDSHAKE", pool, 128 * MIB, "tcp", "", master)
        require(code == 0, f"Mooncake Store: setup returned {code}")
        code = self.store.register_buffer(memory.base, memory.size)
        require(code == 0, f"Mooncake Store: register_buffer returned {code}")

    def put(self, work: Work) -> None:
        if work.batch == 1:
            put, size = self.store.put_from, work.size
            for key, address in zip(work.keys, work.addresses):
                code = put(key, address, size)
                while code == self.NO_ROOM:  # its eviction is another thread's work: a caller tries again
                    time.sleep(0.001)
                    code = put(key, address, size)
                require(code == 0, f"Mooncake Store: a put returned {code}")
            return
        for keys, addresses, sizes, _ in work.batches():
            codes = self.store.batch_put_from(keys, addresses, sizes)
            require(not any(codes), f"Mooncake Store: a batch of puts returned {set(codes)}")

    def get(self, work: Work) -> None:
        if work.batch == 1:
            get, size = self.store.get_into, work.size
            for key, address in zip(work.keys, work.addresses):
                found = get(key, address, size)
                require(found == size, f"Mooncake Store: a get returned {found}")
            return
        for keys, addresses, sizes, _ in work.batches():
            found = self.store.batch_get_into(keys, addresses, sizes)
            require(found == sizes, f"Mooncake Store: a batch of gets returned {set(found)}")

    def count(self, work: Work) -> int:
        if work.batch == 1:
            exists = self.store.is_exist
            return sum([exists(key) for key in work.keys])
        return sum(sum(self.store.batch_is_exist(keys)) for keys, *_ in work.batches())

    def remove(self, work: Work) -> None:
        # By force: an object that was read lately is under a lease.
        if work.batch == 1:
            remove = self.store.remove
            for key in work.keys:
                require(remove(key, True) == 0, "Mooncake Store: a removal failed")
            return
        for keys, *_ in work.batches():
            require(not any(self.store.batch_remove(keys, True)), "Mooncake Store: a removal failed")

    def clear(self) -> None:
        self.store.remove_all(True)

    def close(self) -> None:
        self.store.close()


class Native:
    """The Rust half, which does one pass when it is asked: mmc over its C ABI, and servers without a client library."""

    def __init__(self, command: list[str], contestants: list[str]) -> None:
        self.contestants = contestants
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, contestant: str, operation: str, size: int, batch: int, count: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(contestant, operation, size, batch, count, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        require(bool(line), f"{contestant}: the native half ended at {operation}")
        return float(line)

    def clear(self) -> None:
        for contestant in self.contestants:
            self.seconds(contestant, "clear", MIB, 1, 1)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
