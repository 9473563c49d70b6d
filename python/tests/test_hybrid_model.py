"""Random calls to `memcache_hybrid`, and a dict that says what they should have answered.

The machine is run twice. In a roomy pool nothing is evicted, so that every answer is known. In a tight one an object may go at any time unless
somebody leases it; then the dict holds the values that a key may have, and what is got must be one of them, to the byte.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hybrid_support import Memory, addresses_of, joined, open_store, pieces, read, sizes_of, write
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from memcache_hybrid import _process

LONG_MS = 600_000
OK, SIZE_MISMATCH, NOT_FOUND = 0, -3012, -3007


class Reserved(NamedTuple):
    """An object that is allocated and not finished; its bytes are written as soon as it is allocated."""

    address: int
    content: bytes
    is_leased: bool


class Piece(NamedTuple):
    """Bytes of an object at a global address that stay as long as the test."""

    address: int
    content: bytes


class Split(NamedTuple):
    """How an object is cut into layers, whatever its size: as parts per thousand."""

    cuts: tuple[int, ...]

    def sizes(self, size: int) -> list[int]:
        edges = sorted({0, size, *(cut * size // 1000 for cut in self.cuts)})
        return [end - start for start, end in zip(edges, edges[1:])]


class Content(bytes):
    """Bytes of which a report shows enough to tell them apart."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes {self[:4].hex()}>"


def content_of(seed: int, size: int) -> Content:
    return Content(random.Random(seed).getrandbits(8 * size).to_bytes(size, "little"))


KEYS = [f"k{number}" for number in range(12)]
keys = st.sampled_from(KEYS)
sizes = st.sampled_from([1, 100, 4095, 4096, 4097, 9000, 12288, 16384])
values = st.builds(content_of, st.integers(0, 2**32), sizes)
splits = st.builds(Split, st.tuples(st.integers(1, 999)) | st.tuples(*[st.integers(1, 999)] * 3) | st.just(()))
some_keys = st.lists(keys, min_size=1, max_size=5)
some_values = st.lists(st.tuples(keys, values), min_size=1, max_size=6)
instances = st.integers(0, 1)
parts = st.tuples(st.integers(0, 999), st.integers(0, 999))


def range_of(part: tuple[int, int], size: int) -> tuple[int, int]:
    """A range inside of an object, whatever its size, as start and end."""
    start, end = sorted(number * size // 1000 for number in part)
    return start, max(end, start + 1)


class Calls(RuleBasedStateMachine):
    is_roomy = True
    dram_size = "8MB"
    #: Removed objects whose leases nobody can end any more; they fill a small pool.
    most_left_behind = 1000

    def __init__(self) -> None:
        super().__init__()
        self.stores = [open_store(dram_size=self.dram_size, log_level="error"), open_store(log_level="error")]
        #: The values that a key may have. In a roomy pool there is one, and the key has it.
        self.possible: dict[str, set[bytes]] = {}
        self.reserved: dict[str, Reserved] = {}
        self.leases: Counter[str] = Counter()
        self.left_behind: list[Piece] = []

    # What the model knows

    def must_be_there(self, key: str) -> bool:
        return key in self.possible if self.is_roomy else self.leases[key] > 0

    def may_have(self, key: str, value: bytes) -> None:
        """A put has answered 0: the key has this value, unless it had one or is being written."""
        if key in self.reserved or (self.is_roomy and key in self.possible) or self.leases[key] > 0:
            return
        self.possible.setdefault(key, set()).add(value)

    def has(self, key: str, value: bytes) -> None:
        """A get has found the value."""
        assert value in self.possible.get(key, ()), f"{key} has other bytes: {value[:8].hex()}…, {len(value)} bytes"
        self.possible[key] = {value}

    def is_gone(self, key: str) -> None:
        """A call has not found the key."""
        assert not self.must_be_there(key), f"{key} is gone"
        self.possible.pop(key, None)

    def found(self, key: str, is_there: bool) -> None:
        if is_there:
            assert key in self.possible, f"{key} is there, and never was"
        else:
            self.is_gone(key)

    def dropped(self, key: str) -> None:
        """The key is removed; what is leased can still be read."""
        if self.leases.pop(key, 0) > 0:
            (value,) = self.possible[key]
            assert len(self.left_behind) < self.most_left_behind
            self.left_behind.append(Piece(self.last_address[key], value))
        self.possible.pop(key, None)

    # Puts

    @initialize(pairs=st.lists(st.tuples(keys, values), max_size=12))
    def fill(self, pairs: list[tuple[str, bytes]]) -> None:
        for key, value in pairs:
            self.was_put(key, value, self.stores[0].put(key, value))

    @rule(who=instances, key=keys, value=values, split=splits, how=st.integers(0, 2))
    def put(self, who: int, key: str, value: bytes, split: Split, how: int) -> None:
        store, whole, data = self.stores[who], Memory(value), pieces(value, split.sizes(len(value)))
        if how == 0:
            code = store.put(key, value)
        elif how == 1:
            code = store.put_from(key, whole.address, whole.size, 0)
        else:
            code = store.put_from_layers(key, addresses_of(data), sizes_of(data))
        self.was_put(key, value, code)

    def was_put(self, key: str, value: bytes, code: int) -> None:
        assert code in ((OK,) if self.is_roomy else (OK, -1))
        if code == OK:
            self.may_have(key, value)
        else:
            assert key not in self.reserved
            self.is_gone(key)

    @rule(who=instances, pairs=some_values, split=splits, how=st.integers(0, 2))
    def put_many(self, who: int, pairs: list[tuple[str, bytes]], split: Split, how: int) -> None:
        store, names, data = self.stores[who], [key for key, _ in pairs], [value for _, value in pairs]
        if how == 0:
            code = store.put_batch(names, data)
            if self.is_roomy or code == OK:
                codes = [code] * len(pairs)
            else:
                assert code == -1
                # One code for all: which of them it is about is not known.
                codes = [OK] * len(pairs)
        elif how == 1:
            memories = [Memory(value) for value in data]
            codes = store.batch_put_from(names, addresses_of(memories), sizes_of(memories), 3)
        else:
            layers = [pieces(value, split.sizes(len(value))) for value in data]
            codes = store.batch_put_from_layers(names, list(map(addresses_of, layers)), list(map(sizes_of, layers)), 0)
        # What failed was not there then, but a later one of the same key may have been stored.
        for (key, value), code in sorted(zip(pairs, codes), key=lambda one: one[1]):
            self.was_put(key, value, code)

    # Gets

    @rule(who=instances, names=some_keys)
    def get(self, who: int, names: list[str]) -> None:
        store = self.stores[who]
        for key, value in [(names[0], store.get(names[0])), *zip(names, store.get_batch(names))]:
            if value:
                self.has(key, value)
            else:
                self.is_gone(key)

    def size_of(self, key: str) -> int:
        """The size that it has as far as anybody knows."""
        return len(next(iter(sorted(self.possible.get(key, {b"?"})))))

    @rule(who=instances, key=keys, split=splits, off=st.sampled_from([0, 0, 0, 1, -1, 4096]), direct=st.integers(1, 2))
    def get_into(self, who: int, key: str, split: Split, off: int, direct: int) -> None:
        out = pieces(b"#" * max(1, self.size_of(key) + off), split.sizes(max(1, self.size_of(key) + off)))
        if len(out) == 1:
            code = self.stores[who].get_into(key, out[0].address, out[0].size, direct)
        else:
            code = self.stores[who].get_into_layers(key, addresses_of(out), sizes_of(out), direct)
        assert code in (OK, -1)
        self.was_got([key], [out], [code and NOT_FOUND])

    @rule(
        who=instances, wanted=st.lists(st.tuples(keys, splits, st.sampled_from([0, 0, 0, 1])), min_size=1, max_size=5)
    )
    def get_many_into(self, who: int, wanted: list[tuple[str, Split, int]]) -> None:
        names = [key for key, _, _ in wanted]
        counts = [self.size_of(key) + off for key, _, off in wanted]
        outs = [pieces(b"#" * count, split.sizes(count)) for (_, split, _), count in zip(wanted, counts)]
        if max(map(len, outs)) == 1:
            flat = [out for (out,) in outs]
            codes = self.stores[who].batch_get_into(names, addresses_of(flat), counts)
        else:
            places, lengths = list(map(addresses_of, outs)), list(map(sizes_of, outs))
            codes = self.stores[who].batch_get_into_layers(names, places, lengths)
        if self.is_roomy:
            raw = [self.code_of(key, count) for key, count in zip(names, counts)]
            assert codes == [NOT_FOUND if code == SIZE_MISMATCH and OK in raw else code for code in raw]
        self.was_got(names, outs, codes)

    def code_of(self, key: str, size: int) -> int:
        if key not in self.possible:
            return NOT_FOUND
        return OK if {len(value) for value in self.possible[key]} == {size} else SIZE_MISMATCH

    def was_got(self, names: Sequence[str], outs: Sequence[list[Memory]], codes: Sequence[int]) -> None:
        for key, out, code in zip(names, outs, codes):
            got = joined(out)
            if code == OK:
                self.has(key, got)
            else:
                assert code in (NOT_FOUND, SIZE_MISMATCH)
                assert got == b"#" * len(got), "a get that fails leaves the buffer"
                assert not self.must_be_there(key) or len(got) not in {len(value) for value in self.possible[key]}

    # What is there

    @rule(who=instances, names=some_keys, flag=st.integers(0, 1))
    def key_info(self, who: int, names: list[str], flag: int) -> None:
        for key, info in zip(names, self.stores[who].batch_get_key_info(names, flag)):
            if key in self.reserved:
                reserved = self.reserved[key]
                shown = ([reserved.address], len(reserved.content)) if flag == 0 else ([], 0)
                assert (info.gva_list(), info.size()) == shown
                continue
            self.found(key, info.size() > 0)
            if info.size() > 0:
                assert info.size() in {len(value) for value in self.possible[key]}
                assert (info.loc_list(), info.type_list(), len(info.gva_list())) == ([0], [1], 1)

    # Removal

    def end_leases(self, who: int, names: Sequence[str]) -> None:
        """Leaves a small pool no memory that can't be had again."""
        for key in names:
            while self.leases[key] > 0 and len(self.left_behind) + len(names) > self.most_left_behind:
                assert self.stores[who].batch_remove_lease([key]) == OK
                self.leases[key] -= 1

    def note_addresses(self, who: int) -> None:
        leased = [key for key, count in self.leases.items() if count > 0]
        infos = self.stores[who].batch_get_key_info(leased)
        self.last_address = {key: info.gva_list()[0] for key, info in zip(leased, infos)}

    @rule(who=instances, names=some_keys, is_batch=st.booleans())
    def remove(self, who: int, names: list[str], is_batch: bool) -> None:
        names, store = names[:3], self.stores[who]
        self.end_leases(who, names)
        self.note_addresses(who)
        codes = store.remove_batch(names) if is_batch else [store.remove(key) for key in names]
        for key, code in zip(names, codes):
            assert code in (OK, -3102)
            self.found(key, code == OK)
            self.dropped(key)

    @rule(who=instances, is_now=st.sampled_from([False, False, False, True]))
    def remove_all(self, who: int, is_now: bool) -> None:
        if is_now:
            names = list(self.possible)
            self.end_leases(who, names)
            self.note_addresses(who)
            assert self.stores[who].remove_all() == OK
            for key in names:
                self.dropped(key)

    # In place

    @rule(
        who=instances,
        wanted=st.dictionaries(keys, st.tuples(values, splits), min_size=1, max_size=4),
        lease=st.booleans(),
    )
    def alloc(self, who: int, wanted: dict[str, tuple[bytes, Split]], lease: bool) -> None:
        store, names = self.stores[who], list(wanted)
        before = dict(self.reserved)
        addresses = store.batch_alloc(names, [len(value) for value, _ in wanted.values()], 1, lease * LONG_MS)
        are_there = store.batch_is_exist(names)
        shown = [info.gva_list() for info in store.batch_get_key_info(names, 0)]
        for key, address, is_there, places in zip(names, addresses, are_there, shown):
            assert 0 <= address < 2**63
            if key in before:
                assert address == before[key].address
                self.reserved[key] = before[key]._replace(is_leased=before[key].is_leased or lease)
            elif is_there:
                self.found(key, True)
                assert not self.must_be_there(key) or [address] == places
                self.leases[key] += lease
            else:
                self.is_gone(key)
                if places:
                    assert [address] == places
                    value, split = wanted[key]
                    self.reserved[key] = Reserved(address, value, lease)
                    data = pieces(value, split.sizes(len(value)))
                    assert store.batch_copy_layers([address], [addresses_of(data)], [sizes_of(data)], 3) == OK
                else:
                    assert not self.is_roomy, f"{key} has no memory"
        self.look_at_leased(who)

    @rule(who=instances, names=some_keys, part=parts, seed=st.integers(0, 2**16), direct=st.sampled_from([0, 3]))
    def write_to_allocated(self, who: int, names: list[str], part: tuple[int, int], seed: int, direct: int) -> None:
        key = next(filter(self.reserved.__contains__, names), None)
        if key is None:
            return
        reserved, store, out = self.reserved[key], self.stores[who], Memory(1)
        size = len(reserved.content)
        start, end = range_of(part, size)
        new = content_of(seed, end - start)
        assert write(store, reserved.address + start, new, direct) == OK
        assert write(store, reserved.address + start, bytes(size - start + 1)) == -3102, "it ends there"
        assert store.batch_copy([reserved.address + start], [out.address], [1], 2) == -3101
        content = reserved.content[:start] + new + reserved.content[end:]
        self.reserved[key] = reserved._replace(content=content)

    @rule(who=instances, names=some_keys, good=st.lists(st.sampled_from([0, 0, 1, -1]), min_size=5, max_size=5))
    def finish(self, who: int, names: list[str], good: list[int]) -> None:
        res = good[: len(names)]
        codes = self.stores[who].batch_write_finish(names, res)
        for key, result, code in zip(names, res, codes):
            reserved = self.reserved.pop(key, None)
            if reserved is None:
                assert code in (OK, -3102)
                self.found(key, code == OK)
                continue
            assert code == OK
            if result == 0:
                self.possible[key] = {reserved.content}
                self.leases[key] += reserved.is_leased
        self.leases = +self.leases

    @rule(who=instances, names=some_keys, part=parts, direct=st.sampled_from([1, 2]))
    def copy_of_published(self, who: int, names: list[str], part: tuple[int, int], direct: int) -> None:
        # Of a key that may go, the address may be another's the next moment.
        key = next(filter(self.must_be_there, names), None)
        if key is None:
            return
        store = self.stores[who]
        info = store.get_key_info(key)
        (address,), (value,) = info.gva_list(), self.value_of(who, key)
        start, end = range_of(part, len(value))
        assert write(store, address + start, b"\0" * (end - start)) == OK
        assert read(store, address + start, end - start, direct) == value[start:end]
        assert read(store, address + start, len(value) - start + 1, direct) == b""

    def value_of(self, who: int, key: str) -> set[bytes]:
        self.has(key, self.stores[who].get(key))
        return self.possible[key]

    # Leases

    def look_at_leased(self, who: int) -> None:
        """What is leased has one value from here on, and this says which."""
        self.leases = +self.leases
        for key in self.leases:
            self.value_of(who, key)

    @rule(who=instances, names=some_keys)
    def add_lease(self, who: int, names: list[str]) -> None:
        for key, code in zip(names, self.stores[who].batch_add_lease(names, LONG_MS)):
            if key in self.reserved:
                assert code == -3101
            else:
                assert code in (OK, -3102)
                self.found(key, code == OK)
                self.leases[key] += code == OK
        self.look_at_leased(who)

    @rule(who=instances, key=keys)
    def remove_lease(self, who: int, key: str) -> None:
        assert self.stores[who].batch_remove_lease([key]) == (OK if self.leases[key] > 0 else -3106)
        self.leases[key] -= 1
        self.leases = +self.leases

    # What is refused changes nothing

    @rule(who=instances, key=keys, bad=st.sampled_from(["", "k" * 257, "a\0b"]), direct=st.sampled_from([-1, 4]))
    def refused(self, who: int, key: str, bad: str, direct: int) -> None:
        store, memory = self.stores[who], Memory(b"data")
        (place, size), two = (memory.address, memory.size), [key, bad]
        assert store.put_batch(two, [b"1", b"2"]) == -3000
        assert store.batch_put_from(two, [place] * 2, [size] * 2) == [-3000] * 2
        assert store.batch_get_into(two, [place] * 2, [size] * 2) == [-3000] * 2
        assert store.batch_write_finish(two, [0, 0]) == [-3000] * 2
        assert store.put_from(key, place, 0) == store.get_into(key, 0, size) == -3000
        assert store.put_from(key, place, size, direct) == store.get_into(key, place, size, direct) == -1
        assert memory.content == b"data"

    # Always

    @invariant()
    def what_must_be_there_is(self) -> None:
        for key, code in zip(KEYS, self.stores[0].batch_is_exist(KEYS)):
            self.found(key, code == 1)

    def teardown(self) -> None:
        try:
            for piece in self.left_behind:
                assert read(self.stores[1], piece.address, len(piece.content)) == piece.content
            names = list(self.possible)
            for key, value in zip(names, self.stores[1].get_batch(names)):
                if value or self.must_be_there(key):
                    self.has(key, value)
            for key, reserved in self.reserved.items():
                assert self.stores[0].batch_write_finish([key], [0]) == [OK]
                assert self.stores[0].get(key) in ((reserved.content,) if self.is_roomy else (reserved.content, b""))
        finally:
            assert [store.close() for store in self.stores] == [0, 0]
            assert _process.current.store is None


class TightCalls(Calls):
    is_roomy = False
    dram_size = "56KB"
    most_left_behind = 1


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "examples"), [(Calls, 150), (TightCalls, 150)])
def test_random_calls_answer_as_the_model_does(machine: type[Calls], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
