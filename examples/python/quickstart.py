"""The first program: open a store, put and get a block, read one in place, put a prefix chain, look at it from outside, fail, close.

    python examples/python/quickstart.py

Bytes are whatever has them: `bytes` here, numpy arrays and tensors in an engine. A single call raises what went wrong; a batch returns a code for each element.
"""

import json
import urllib.request

import mmc

BLOCK_SIZE = 64 * 1024

with mmc.Store(dram="64MiB", http="127.0.0.1:0") as store:  # without `dram` 1 GiB; port 0 is any free one
    print(f"mmc {mmc.__version__}, admin port http://{store.http_address}")

    # A block by itself. One call copies it into the pool, one copies it out: as new bytes, or into a buffer of yours.
    store.put("model/prompt-1", b"a" * BLOCK_SIZE)
    print("got", len(store.get("model/prompt-1")), "bytes")
    page = bytearray(BLOCK_SIZE)
    store.get_into("model/prompt-1", page)
    print("the page begins with", bytes(page[:4]))

    # Read it where it lies, without a copy. Eviction and removal leave its memory alone until the pin ends.
    with store.pin("model/prompt-1") as view:
        print("pinned", len(view), "bytes that end with", bytes(view[-4:]))

    # A prompt is a chain of blocks: block i + 1 is of no use without block i. In one call, and each element has a code of its own.
    chain = [f"model/chain/{number}" for number in range(4)]
    codes = store.batch_put(chain, [bytes([number]) * BLOCK_SIZE for number in range(4)])
    print("the chain is stored:", [mmc.Code(code).name for code in codes])
    store.remove(chain[2])
    print("of its prefix", store.prefix_len(chain), "blocks are there; one by one:", store.batch_exists(chain))

    # The admin port answers whoever watches the process: curl, a script, Prometheus.
    with urllib.request.urlopen(f"http://{store.http_address}/query_key?key={chain[0]}") as answer:
        print("the admin port says:", json.load(answer))

    # What a key stands for never changes: a second put of it stores nothing. Every error is an mmc.Error, and says what was wrong.
    try:
        store.put("model/prompt-1", b"b" * BLOCK_SIZE)
    except mmc.KeyExists as error:
        print("put again:", error)
    try:
        store.get_into("model/prompt-1", bytearray(100))
    except mmc.SizeMismatch as error:
        print("too small:", error)

    statistics = store.stats()
    print(f"{statistics.stored_keys} blocks in {statistics.allocated} bytes; {statistics.get_hits} hits")
