"""mmc through Python, and beside the servers that its users run today.

In every round each contestant does the same passes over the same number of objects, in turn, another one first each time: put, get, exist of
keys that are there and of keys that are not, remove. mmc is measured three ways: through its package, beside the servers' clients and a dict;
over its C ABI, by a native process that takes its turn between the others; and that process also talks to Redis and memcached over a bare
socket, which shows what is the server's time and what the client library's. Servers are given by their addresses: `run.py` starts them.

    python python_peers.py --native PROGRAM [--redis PATH] [--memcached PATH] [--mooncake HOST:PORT] [--quick] [--only TEXT] [--pool BYTES] [--log FILE]

One JSON line a row, as the Rust half prints them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Optional, TypeVar

from clients import MIB, Dict, Memcached, Memory, Mmc, Mooncake, Native, Redis, Work

T = TypeVar("T")
KIB = 1 << 10
SIZES = {4 * KIB: 512, 64 * KIB: 256, 256 * KIB: 128, MIB: 64, 4 * MIB: 32}
"""Bytes of an object, and how many a pass has at least."""
OPERATIONS = ("put", "get", "exist", "miss", "remove")
NAMES = {"exist": "exist hit", "miss": "exist miss"}
EVICTING_SIZE = 64 * KIB


class Contestant:
    """Someone who can be timed: `via` tells how mmc was reached and whose client a server's is."""

    def __init__(self, name: str, via: str, kind: str, client: Any) -> None:
        self.name, self.via, self.kind, self.client = name, via, kind, client

    def times(self, bench: Bench, size: int, batch: int, count: int, threads: int) -> dict[str, float]:
        if isinstance(self.client, Native):
            who = self.name.split(",", maxsplit=1)[0]
            return {operation: self.client.seconds(who, operation, size, batch, count) for operation in OPERATIONS}
        keys, absent = bench.keys[:count], bench.absent[:count]
        client, times = self.client, {}
        put, get = Work(bench.memory, keys, size, batch), Work(bench.memory, keys, size, batch)
        miss = Work(bench.memory, absent, size, batch)
        times["put"] = on_threads(threads, client.put, put)
        times["get"] = on_threads(threads, client.get, get)
        if put.views[-1] != get.views[-1]:
            raise RuntimeError(f"{self.name}: got other bytes than were put")
        times["exist"] = counted(threads, client.count, put, count)
        times["miss"] = counted(threads, client.count, miss, 0)
        times["remove"] = on_threads(threads, client.remove, put)
        return times


def on_threads(threads: int, act: Callable[[Work], Any], work: Work) -> float:
    """Seconds that `act` took for the work, shared by so many threads."""
    if threads == 1:
        begin = time.perf_counter()
        act(work)
        return time.perf_counter() - begin
    parts = [work.part(number, threads) for number in range(threads)]
    barrier, failures = threading.Barrier(threads + 1), []

    def run(part: Work) -> None:
        barrier.wait()
        try:
            act(part)
        except Exception as failure:  # the thread that waits raises it
            failures.append(failure)

    workers = [threading.Thread(target=run, args=(part,)) for part in parts]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - begin
    if failures:
        raise failures[0]
    return elapsed


def counted(threads: int, count: Callable[[Work], int], work: Work, expected: int) -> float:
    found: list[int] = []
    elapsed = on_threads(threads, lambda part: found.append(count(part)), work)
    if sum(found) != expected:
        raise RuntimeError(f"{sum(found)} of {expected} keys were found")
    return elapsed


def median_ratio(ours: list[float], theirs: list[float]) -> tuple[float, list[float]]:
    """The median of the rounds' ratios, and their quartiles."""
    ratios = sorted(their / our for our, their in zip(ours, theirs))
    last = len(ratios) - 1
    return statistics.median(ratios), [ratios[round(last / 4)], ratios[round(last * 3 / 4)]]


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        # Libraries that log do so to standard error, thousands of lines of it: people's words leave by another way.
        self.words = os.fdopen(os.dup(2), "w")
        if options.log:
            os.dup2(os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        self.rounds = options.rounds or (3 if options.quick else 5)
        self.memory = Memory(512 * MIB)
        self.keys = [f"model-7b@layers-0-61/tokens-128/chain-{number:016x}/rank-0000" for number in range(4096)]
        self.absent = [key.replace("rank-0000", "rank-0001") for key in self.keys]
        self.all = self.contestants(options)
        self.begin = time.monotonic()

    def contestants(self, options: argparse.Namespace) -> list[Contestant]:
        command, given = [options.native, "calls"], (("redis", options.redis), ("memcached", options.memcached))
        for name, path in given:
            command += [f"--{name}", path] if path else []
        native = Native(command, ["mmc", *(name for name, path in given if path)])
        makers: list[tuple[str, str, str, Callable[[], Any]]] = [
            ("mmc", "Python", "mmc", lambda: Mmc(options.pool)),
            ("mmc", "C", "mmc", lambda: native),
            ("dict", "Python", "dict", Dict),
        ]
        if options.redis:
            makers.append(("redis", "Python", "server", lambda: Redis(options.redis)))
            makers.append(("redis, bare socket", "C", "bare server", lambda: native))
        if options.memcached:
            makers.append(("memcached", "Python", "server", lambda: Memcached(options.memcached)))
            makers.append(("memcached, bare socket", "C", "bare server", lambda: native))
        if options.mooncake:
            mooncake = lambda: Mooncake(options.mooncake, options.pool, self.memory)  # noqa: E731
            makers.append(("mooncake", "Python", "server", mooncake))
        made = []
        for name, via, kind, make in makers:
            try:
                made.append(Contestant(name, via, kind, make()))
            except Exception as failure:  # whatever a client raises: the others are measured all the same
                print(json.dumps({"contestant": name, "unavailable": one_line(failure)}), flush=True)
        return made

    def say(self, what: str) -> None:
        print(f"peers: {time.monotonic() - self.begin:5.1f} s  {what}", file=self.words, flush=True)

    def wants(self, operations: tuple[str, ...]) -> bool:
        return any(self.options.only in operation for operation in operations)

    def run(self) -> None:
        if self.wants(("put", "get", *NAMES.values(), "remove")):
            for size, least in SIZES.items():
                for batch in (1, 32, 128):
                    if self.options.quick and (size, batch) not in QUICK:
                        continue
                    self.say(f"through Python: {size // KIB} KiB, {batch} a call")
                    count = max(least // (2 if self.options.quick else 1), batch)
                    self.passes(size, batch, count, 1)
                if size in (4 * KIB, MIB) and not self.options.quick:
                    self.say(f"through Python: {size // KIB} KiB, two threads")
                    self.passes(size, 1, least, 2)
        if self.wants(("put that evicts",)) and (self.options.only or not self.options.quick):
            self.say("through Python: puts that evict")
            self.evicting()

    def passes(self, size: int, batch: int, count: int, threads: int) -> None:
        """All contestants' rounds of one size and way, and their rows."""
        taking_part = [one for one in self.all if takes_part(one, batch, threads)]
        measured = self.alternate(
            f"{size} bytes, {batch} a call", taking_part, lambda one: one.times(self, size, batch, count, threads)
        )
        for operation in OPERATIONS:
            # Only a put and a get move an object's bytes.
            moved = size if operation in ("put", "get") else 0
            if moved or size == 4 * KIB:
                seconds = {one: [times[operation] for times in rounds] for one, rounds in measured.items()}
                self.rows(NAMES.get(operation, operation), moved, batch, threads, count, seconds)

    def evicting(self) -> None:
        """Puts of fresh keys into pools that are full: filled once, then some puts a round."""
        count, size = 256, EVICTING_SIZE
        numbers = iter(range(1 << 62))

        def put(one: Contestant, batch: int, count: int) -> float:
            keys = [f"model-7b@evicting/{next(numbers):045x}" for _ in range(count)]
            return on_threads(1, one.client.put, Work(self.memory, keys, size, batch))

        def fill(one: Contestant) -> float:
            one.client.clear()
            # One by one where eviction is another thread's work and a batch would not wait for it.
            batch = 1 if one.name == "mooncake" else 32
            return sum(put(one, batch, 128) for _ in range(self.options.pool // size // 128 + 1))

        evict = [one for one in self.all if one.via == "Python" and one.kind != "dict"]
        full = self.alternate("filling it", evict, fill, rounds=0)
        measured = self.alternate("put that evicts", list(full), lambda one: put(one, 1, count))
        self.rows("put that evicts", size, 1, 1, count, measured)

    def alternate(
        self, what: str, contestants: list[Contestant], act: Callable[[Contestant], T], rounds: Optional[int] = None
    ) -> dict[Contestant, list[T]]:
        """What `act` returned for each contestant and round, but for a first round that is not counted. Who fails is left out."""
        found: dict[Contestant, list[T]] = {one: [] for one in contestants}
        for number in range((self.rounds if rounds is None else rounds) + 1):
            turn = number % max(len(contestants), 1)
            for one in contestants[turn:] + contestants[:turn]:
                if one not in found:
                    continue
                try:
                    result = act(one)
                except Exception as failure:  # whatever a client raises: the others go on
                    print(
                        json.dumps({"contestant": one.name, "unavailable": f"{what}: {one_line(failure)}"}), flush=True
                    )
                    del found[one]
                    # What is left of this must not be in the way of what comes next.
                    with contextlib.suppress(Exception):
                        one.client.clear()
                    continue
                if number > 0:
                    found[one].append(result)
        return found

    def rows(
        self, operation: str, size: int, batch: int, threads: int, count: int, seconds: dict[Contestant, list[float]]
    ) -> None:
        def row(ours: Contestant, role: str, against: str, theirs: list[float]) -> None:
            ratio, quartiles = median_ratio(seconds[ours], theirs)
            line = {
                "contestant": ours.name,
                "via": ours.via,
                "operation": operation,
                "bytes": size,
                "batch": batch,
                "threads": threads,
                "ns": round(statistics.median(seconds[ours]) * 1e9 / count, 1),
                "role": role,
                "against": against,
                "speed_ratio": round(ratio, 3),
                "quartiles": [round(value, 3) for value in quartiles],
            }
            print(json.dumps(line), flush=True)

        def best(kind: str) -> Optional[Contestant]:
            of_kind = [one for one in seconds if one.kind == kind]
            return min(of_kind, key=lambda one: statistics.median(seconds[one]), default=None)

        mmcs = {one.via: one for one in seconds if one.kind == "mmc"}
        for one in seconds:
            mine = mmcs.get(one.via)
            if one.kind != "mmc" and mine is not None:
                row(one, "peer", "mmc", seconds[mine])
        for via, mmc in mmcs.items():
            for kind, role in (("server", "best server"), ("bare server", "best bare server"), ("dict", "dict")):
                other = best(kind)
                if other is not None and (via, kind) not in {("C", "dict"), ("Python", "bare server")}:
                    row(mmc, role, other.name, seconds[other])

    def close(self) -> None:
        for one in self.all:
            one.client.close()


def takes_part(one: Contestant, batch: int, threads: int) -> bool:
    if threads > 1:
        return one.via == "Python" and one.kind != "dict"
    return batch == 1 or one.kind != "dict"


QUICK = {(4 * KIB, 1), (4 * KIB, 128), (64 * KIB, 1), (MIB, 1), (4 * MIB, 1)}
"""The sizes and batches of a quick run."""


def one_line(failure: BaseException) -> str:
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:200]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--native", required=True, help="the Rust half")
    parser.add_argument("--redis", help="socket of a Redis")
    parser.add_argument("--memcached", help="socket of a memcached")
    parser.add_argument("--mooncake", help="address of a Mooncake master")
    parser.add_argument("--log", help="a file for what libraries say")
    parser.add_argument("--quick", action="store_true", help="fewer objects, sizes and rounds")
    parser.add_argument("--rounds", type=int, default=0, help="rounds that count (5, quick 3)")
    parser.add_argument("--only", default="", help="operations that contain this")
    parser.add_argument("--pool", type=int, default=2 << 30, help="bytes of a store's pool (2 GiB)")
    bench = Bench(parser.parse_args())
    # A collection in one contestant's turn would be counted against it.
    gc.disable()
    bench.run()
    bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
