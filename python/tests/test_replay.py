"""A slice of a real trace, with its own time as the clock, hits from Python what it hits from C."""

from __future__ import annotations

import gzip
from pathlib import Path

import mmc

TRACE = Path(__file__).resolve().parents[2] / "examples/data/conversation-3000.kvt.gz"
REQUESTS = 600
BLOCK = bytes(4096)
# Of that part of the trace: capacity in blocks, a fifth of the unique ones, and the prefix hits of `tests/replay.rs`.
CAPACITY, HITS = 2742, 935


def read_trace() -> list[tuple[int, list[str]]]:
    """Milliseconds and the keys of its blocks, for each request."""
    requests = []
    with gzip.open(TRACE, "rt") as lines:
        assert next(lines).startswith("# kvt1 ")
        for line, _number in zip(lines, range(REQUESTS)):
            milliseconds, _input, _output, runs = line.split()
            keys = []
            for run in runs.split(","):
                start, _, count = run.partition("+")
                keys += [f"block-{block}" for block in range(int(start), int(start) + int(count or 1))]
            requests.append((int(milliseconds), keys))
    return requests


def test_a_trace_hits_what_it_hits_from_c() -> None:
    now = 0
    hits = 0
    requests = read_trace()
    assert CAPACITY == len({key for _milliseconds, keys in requests for key in keys}) // 5
    with mmc.Store(
        dram=CAPACITY * 4096, watermark_high=100, watermark_low=100, eviction="prefix", clock=lambda: now
    ) as store:
        for milliseconds, keys in requests:
            now = milliseconds * 1_000_000
            prefix = store.prefix_len(keys, peek=True)
            missing = [key for key, there in zip(keys, store.batch_exists(keys, peek=True)) if not there]
            hits += prefix
            assert all(data is not None for data in store.batch_get(keys[:prefix]))
            store.batch_put(missing, [BLOCK] * len(missing))
    assert hits == HITS
