"""Stores that are attached to another's, and the owner as a program: `python -m mmc serve`."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, run_program
from hybrid_support import forks, in_child
from processes import Served, serving

import mmc


@pytest.fixture
def address(sockets: Path) -> str:
    return f"unix:{sockets}/pool"


@pytest.fixture
def owner(address: str) -> Iterator[mmc.Store]:
    """Shares 8 MiB at `address`."""
    with mmc.Store(8 * MIB, share=address) as owner:
        yield owner


# Attaching


def test_what_one_puts_the_other_gets(owner: mmc.Store, address: str) -> None:
    with mmc.Store.attach(address) as attached, mmc.Store.attach(address) as other:
        attached.put("a", b"1")
        owner.put("b", b"2")
        assert [store.batch_get(["a", "b"]) for store in (owner, attached, other)] == [[b"1", b"2"]] * 3
        assert owner.stats().attached == other.stats().attached == 2
        other.remove("a")
        assert "a" not in attached and "a" not in owner
    assert owner.stats().attached == 0


@pytest.mark.parametrize("dram", [4 * MIB, "4MiB", "4mb"])
def test_memory_that_is_brought_has_the_smallest_free_rank_and_goes_with_the_store(
    owner: mmc.Store, address: str, dram: Any
) -> None:
    with mmc.Store.attach(address, dram=dram, huge_pages=False, prefault=True, numa_node=0) as attached:
        assert (owner.rank, attached.rank) == (0, 1)
        assert [(segment.rank, segment.capacity, segment.memory) for segment in owner.segments()] == [
            (0, 8 * MIB, "memfd"),
            (1, 4 * MIB, "memfd"),
        ]
        assert attached.segments() == owner.segments()
        attached.put("k", b"1")
        assert [blob.rank for blob in owner.query("k").blobs] == [1]
        address_of_more = attached.register_segment(capacity=MIB, rank=7)
        assert sum(segment.capacity for segment in owner.segments()) == 13 * MIB
        attached.unregister_segment(address_of_more)
    assert [segment.rank for segment in owner.segments()] == [0]
    assert "k" not in owner


def test_a_rank_may_be_named_with_memory_and_without(owner: mmc.Store, address: str) -> None:
    with mmc.Store.attach(address, dram=MIB, rank=5) as brings, mmc.Store.attach(address, rank=0) as near:
        assert (brings.rank, near.rank) == (5, 0)
        near.put("k", b"1")
        assert [blob.rank for blob in owner.query("k").blobs] == [0]
    for none in (None, 0, "0"):
        with mmc.Store.attach(address, dram=none) as attached:
            assert attached.rank is None and len(attached.segments()) == 1


def test_a_store_may_be_shared_later(address: str) -> None:
    with mmc.Store(MIB, memory="memfd") as store:
        with pytest.raises(mmc.InvalidParam, match="must be unix:"):
            store.share("/run/mmc.sock")
        store.share(address)
        with pytest.raises(mmc.Busy):
            store.share(address)
        with mmc.Store(MIB) as other, pytest.raises(mmc.Busy):
            other.share(address)
        with mmc.Store.attach(address) as attached:
            attached.put("k", b"1")
        assert store.get("k") == b"1"


def test_what_an_attached_store_can_not_do_is_unsupported(owner: mmc.Store, address: str, sockets: Path) -> None:
    owner.register_segment("HBM", rank=1, base=1 << 40, capacity=MIB, copy=lambda *_: None)
    with mmc.Store.attach(address) as store:
        for call in (
            lambda: store.share(f"unix:{sockets}/other"),
            lambda: store.set_event_callback(lambda events, dropped: None),
            lambda: store.set_event_callback(None),
            lambda: store.register_segment(memory=bytearray(MIB)),
            lambda: store.register_segment("SSD", capacity=MIB, path=sockets / "ssd"),
            lambda: store.register_segment("HBM", base=1 << 40, capacity=MIB, copy=lambda *_: None),
            lambda: store.reserve("k", 4096, medium="HBM"),
        ):
            with pytest.raises(mmc.Unsupported):
                call()
        assert store.http_address is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dram": 4097}, "multiple of 4096"),
        ({"dram": "4QB"}, "4QB"),
        ({"rank": 65536}, "rank 65536: must be 0 to 65535"),
        ({"rank": -1}, "rank -1"),
        ({"wait": -1}, "wait -1"),
        ({"wait": float("nan")}, "wait nan"),
        ({"call_timeout": 1e12}, "call_timeout 1000000000000"),
        ({"log_level": "loud"}, "loud"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(owner: mmc.Store, address: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mmc.Store.attach(address, **options)
    with pytest.raises(mmc.InvalidParam, match="must be unix:/path"):
        mmc.Store.attach("nowhere")


def test_where_nobody_shares_there_is_nothing_to_attach_to(address: str) -> None:
    with pytest.raises(mmc.Disconnected, match=address):
        mmc.Store.attach(address)
    with pytest.raises(mmc.Disconnected, match=address):
        mmc.Store.attach(address, wait=0.001)


def test_an_attach_waits_for_the_owner(address: str) -> None:
    found: list[Any] = []

    def attach() -> None:
        with mmc.Store.attach(address, wait=30) as store:
            found.append(store.get("k"))

    thread = threading.Thread(target=attach)
    thread.start()
    with mmc.Store(MIB, memory="memfd") as owner:
        owner.put("k", b"1")
        owner.share(address)
        thread.join(30)
    assert found == [b"1"]


def test_a_signal_ends_the_wait_for_an_owner(address: str) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            mmc.Store.attach(address, wait=600)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_after_the_end_of_the_owner_every_call_is_disconnected_and_pins_stay(address: str) -> None:
    owner = mmc.Store(MIB, share=address)
    store = mmc.Store.attach(address, dram=MIB)
    store.put("k", b"hello")
    pin, reservation = store.pin("k"), store.reserve("r", 5)
    owner.close()
    for call in (
        lambda: store.get("k"),
        lambda: store.put("l", b"1"),
        lambda: store.exists("k"),
        lambda: store.batch_get(["k"]),
        lambda: store.batch_put(["l"], [b"1"]),
        lambda: store.batch_exists(["k"]),
        lambda: store.prefix_len(["k"]),
        lambda: store.query("k"),
        lambda: store.pin("k"),
        lambda: store.remove("k"),
        lambda: store.add_lease("k"),
        lambda: store.register_segment(capacity=MIB),
        lambda: store.http_address,
        store.list_keys,
        store.remove_all,
        store.segments,
        store.stats,
        reservation.commit,
    ):
        with pytest.raises(mmc.Disconnected, match=address):
            call()
    assert bytes(pin.view) == b"hello"
    assert store.rank == 1
    with mmc.Store(MIB, share=address), mmc.Store.attach(address) as again:
        again.put("k", b"other")
    pin.close()
    store.close()
    assert store.closed


@forks
def test_a_forked_child_attaches_for_itself(owner: mmc.Store, address: str) -> None:
    with mmc.Store.attach(address) as store:
        store.put("k", b"1")

        def child() -> bytes:
            with pytest.raises(mmc.Forked):
                store.get("k")
            with mmc.Store.attach(address) as own:
                return own.get("k")

        assert in_child(child) == b"1"
        assert store.get("k") == b"1"


@pytest.mark.parametrize("end", ["", "owner.close()", "sys.kept = store", "store.put('l', b'1'); pin = store.pin('k')"])
def test_the_interpreter_ends_in_order(address: str, end: str) -> None:
    run_program(f"""
import sys, warnings, mmc
warnings.simplefilter("ignore", ResourceWarning)
owner = mmc.Store(1 << 20, share={address!r})
store = mmc.Store.attach({address!r}, dram=1 << 20)
store.put("k", b"1")
{end}
""")


# The program


def test_serve_owns_a_pool_until_a_signal(sockets: Path, address: str) -> None:
    token = sockets / "token"
    token.write_text("secret\n")
    options = ["--dram", "4MiB", "--share", address, "--http", "127.0.0.1:0", "--http-token-file", str(token)]
    options += ["--ssd", f"{sockets}/ssd", "--ssd-size", "8MiB", "--state", f"{sockets}/state", "--rank", "3"]
    options += ["--share-mode", "660", "--share-wait", "0.5", "--eviction", "prefix", "--prefault", "--numa-node", "0"]
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(sockets, *options) as served:
            limits = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
            assert limits[0] == limits[1]
            assert (sockets / "pool").stat().st_mode & 0o777 == 0o660
            with mmc.Store.attach(address) as store:
                assert [(segment.medium, segment.rank) for segment in store.segments()] == [("DRAM", 3), ("SSD", 3)]
                assert store.exists("k") == (number == signal.SIGINT), "what was in memory was written down"
                if not store.exists("k"):
                    store.put("k", b"1")
                request = urllib.request.Request(
                    f"http://{store.http_address}/get_all_keys", headers={"Authorization": "Bearer secret"}
                )
                with urllib.request.urlopen(request, timeout=10) as response:
                    assert response.read() == b"k\n"
            served.process.send_signal(number)
            assert served.notified() == "STOPPING=1"
            code, errors = served.ended()
            assert code == 0 and f"INFO pool shared at {address}" in errors
        assert not (sockets / "pool").exists()


def test_serve_shares_in_the_runtime_directory_unless_a_file_says_where(sockets: Path, address: str) -> None:
    file = sockets / "mmc.conf"
    file.write_text(f"mmc.dram_size = 1MiB\nmmc.share = {address} # here\nmmc.log_level = error\n")
    with serving(sockets, "--config", str(file), XDG_RUNTIME_DIR="/nowhere"), mmc.Store.attach(address) as store:
        assert store.stats().capacity == MIB
    with serving(sockets, "--dram", "0", XDG_RUNTIME_DIR=str(sockets)) as served:
        with mmc.Store.attach(f"unix:{sockets}/mmc.sock", dram=MIB) as store:
            assert store.rank == 0
        served.process.terminate()
        assert served.ended()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--share", "nowhere"], 2, "share = nowhere: must be unix:/path"),
        ([], 2, "--share: must be given"),
        (["--share", "unix:{}", "--dram", "4QB"], 2, "4QB"),
        (["--share", "unix:{}", "--eviction", "random"], 2, "random"),
        (["--share", "unix:{}", "--share-mode", "8"], 2, "--share-mode: 8: must be 1 to 0777 octal"),
        (["--share", "unix:{}", "--share-mode", "1000"], 2, "share_mode 1000 octal"),
        (["--share", "unix:{}", "--share-users", "root"], 2, "--share-users: root: must be numbers"),
        (["--share", "unix:{}", "--share-wait", "soon"], 2, "--share-wait"),
        (["--share", "unix:{}", "--log-level", "loud"], 2, "loud"),
        (["--share", "unix:/nowhere/at/all"], 1, "/nowhere/at/all"),
        (["--share", "unix:{}", "--config", "/nowhere.conf"], 1, "/nowhere.conf"),
        (["--share", "unix:{}", "--http-token-file", "/nowhere.token"], 1, "/nowhere.token"),
    ],
    ids=str,
)
def test_serve_says_what_keeps_it_from_serving(
    sockets: Path, arguments: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    arguments = [argument.format(sockets / "pool") for argument in arguments]
    served = Served(sockets, *arguments, environment={})
    try:
        ended, errors = served.ended()
    finally:
        served.forget()
    assert ended == code and words in errors, errors
    assert "Traceback" not in errors


def test_two_owners_do_not_share_one_socket(owner: mmc.Store, address: str, sockets: Path) -> None:
    served = Served(sockets, "--dram", "1MiB", "--share", address, environment={})
    try:
        code, errors = served.ended()
    finally:
        served.forget()
    assert code == 1 and "a process shares its pool there" in errors


def test_the_version_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmc", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"mmc {mmc.__version__}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_a_process_of_another_user_is_refused_with_the_reason(address: str) -> None:
    program = f"""
import os, mmc
os.setgid(65534); os.setuid(65534)
# Again and again: the owner may refuse before it is told anything, or afterwards.
for _ in range(100):
    try:
        mmc.Store.attach({address!r}).close()
        print("attached")
    except mmc.Unsupported as error:
        print(error)
"""
    os.chmod(Path(address[len("unix:") :]).parent, 0o711)
    with mmc.Store(MIB, share=address, share_mode=0o666):
        assert run_program(program).stdout.count("user 65534 and group 65534 may not attach") == 100
    with mmc.Store(MIB, share=address, share_mode=0o666, share_users=[65534]):
        assert run_program(program).stdout == "attached\n" * 100
