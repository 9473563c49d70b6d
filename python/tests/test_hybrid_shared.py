"""Several processes with the drop-in and one owner: they see each other's objects, and outlive each other."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB
from hybrid_support import (
    NO_RANK,
    calls_without_a_store,
    eventually,
    forks,
    free_port,
    http_get,
    in_child,
    in_words,
    local_config,
    opened,
    pool,
)
from processes import Program, Served, Worker, is_healthy, running, serving, workers

import mmc
from memcache_hybrid import DistributedObjectStore, MetaConfig, MetaService, _owner, _process

#: Calls with good arguments once the owner has gone, and their answers.
CALLS_WITHOUT_AN_OWNER = {
    "store.put('x', b'data')": -3017,
    "store.put_batch(['x', 'y'], [b'1', b'2'])": -3017,
    "store.get('k')": b"",
    "store.get_batch(['k', 'l'])": [b"", b""],
    "store.is_exist('k')": -3017,
    "store.batch_is_exist(['k', 'l'])": [-3017, -3017],
    "str(store.get_key_info('k'))": "loc: type: gva: blobNum:0, size:0",
    "store.remove('k')": -3017,
    "store.remove_batch(['k', 'l'])": [-3017, -3017],
    "store.remove_all()": -3017,
    "store.batch_alloc(['x'], [4])": [0],
    "store.batch_write_finish(['r'], [0])": [-3017],
    "store.batch_add_lease(['k'])": [-3017],
    "store.batch_remove_lease(['k'])": -3017,
    "store.evict(['k'])": -3017,
    "store.close()": 0,
    "store.close()  # again": 0,
}


class MetaOwner:
    """`MetaService.main()` in a process of its own, at the socket that the environment names."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.http = f"127.0.0.1:{port}"

    def kill(self) -> None:
        self.program.process.kill()
        self.program.process.communicate()


@pytest.fixture
def meta_owner() -> Iterator[MetaOwner]:
    port = free_port()
    with running("MetaService.setup(meta_config(sys.argv[1])); print(MetaService.main(), flush=True)", port) as program:
        eventually(lambda: is_healthy(port))
        yield MetaOwner(program, port)


def served_ranks(http: str) -> list[int]:
    return [segment["rank"] for segment in json.loads(http_get(http, "/get_all_segments")[1])]


def ranks_of(worker: Worker, key: str) -> list[int]:
    ranks: list[int] = worker.ask(f"store.get_key_info({key!r}).loc_list()")
    return ranks


# One pool


def assert_one_pool(http: str, first: int) -> None:
    """Two workers and a metadata client see one pool, whose ranks begin at `first`."""
    with workers(2) as (one, other), workers(1, "store.init(0, False)") as (client,):
        assert one.begun == other.begun == client.begun == 0
        assert [worker.ask("store.get_local_service_id()") for worker in (one, other, client)] == [
            first,
            first + 1,
            NO_RANK,
        ]
        assert other.ask("store.put('k', b'data')") == 0
        assert [worker.ask("store.get('k')") for worker in (one, other, client)] == [b"data"] * 3
        assert one.ask("store.put('k', b'other')") == 0, "it is there already"
        assert client.ask("store.is_exist('k')") == 1 and client.ask("store.batch_is_exist(['k', 'x'])") == [1, 0]
        assert ranks_of(client, "k") == [first + 1]
        # Replicas, and where they are to be.
        assert one.ask(f"store.put('both', b'data', copies(2, {first + 1}))") == 0
        assert ranks_of(client, "both")[0] == first + 1 and len(ranks_of(client, "both")) == 2
        assert client.ask("store.put('of the client', b'data')") == 0
        # Other processes' addresses are readable here, and what is reserved there can't be finished here.
        (address,) = one.ask("store.batch_alloc(['r'], [4])")
        assert other.ask("store.batch_alloc(['r'], [4])") == [address]
        assert other.ask("store.batch_write_finish(['r'], [0])") == [-3101]
        assert one.ask(f"write({address}, b'wxyz')") == 0
        assert one.ask("store.batch_write_finish(['r'], [0])") == [0]
        assert other.ask("store.get('r')") == b"wxyz"
        assert client.ask("store.batch_add_lease(['r'], 60000)") == one.ask("store.batch_add_lease(['r'])") == [0]
        assert client.ask("store.batch_remove_lease(['r'])") == 0
        assert client.ask("store.get_key_info('r').gva_list()") == [address]
        # The owner shows the same.
        assert served_ranks(http)[-2:] == [first, first + 1]
        status, info = http_get(http, "/query_key?key=both")
        assert status == 200 and json.loads(info)["size"] == 4
        assert {"k", "both", "r"} <= set(http_get(http, "/get_all_keys")[1].split("\n"))
        assert client.ask("store.remove('k')") == 0 and one.ask("store.is_exist('k')") == 0
        assert [worker.ask("store.close()") for worker in (client, one)] == [0, 0]
        assert served_ranks(http)[-1] == first + 1
        assert [worker.end() for worker in (one, other, client)] == [0, 0, 0]


def test_processes_share_the_pool_of_a_meta_service(meta_owner: MetaOwner) -> None:
    assert_one_pool(meta_owner.http, 0)
    meta_owner.program.process.terminate()
    assert meta_owner.program.output() == "0\n"


def test_processes_share_the_pool_of_the_program(sockets: Path) -> None:
    port = free_port()
    options = ["--dram", "4MiB", "--share", f"unix:{sockets}/s", "--http", f"127.0.0.1:{port}"]
    with serving(sockets, *options):
        assert_one_pool(f"127.0.0.1:{port}", 1)


def test_a_file_may_say_where_the_owner_is(sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMC_SHARE")
    path = tmp_path / "local.conf"
    path.write_text(
        f"mmc.share = unix:{sockets}/pool\nmmc.dram_size = 1MB\nock.mmc.meta_service_url = tcp://192.0.2.1:5000\n"
    )
    monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", str(path))
    with mmc.Store(None, share=f"unix:{sockets}/pool") as owner:
        store = DistributedObjectStore()
        assert store.init(0) == store.put("k", b"data") == 0
        assert owner.get("k") == b"data"
        assert store.close() == 0
    # An own store is not shared there.
    assert store.init(0) == store.put("k", b"data") == 0
    with pytest.raises(mmc.Disconnected):
        mmc.Store.attach(f"unix:{sockets}/pool")
    assert store.close() == 0


@pytest.mark.parametrize("init_bm, size, expected", [(True, "4MB", 0), (True, "0", NO_RANK), (False, "4MB", NO_RANK)])
def test_memory_comes_with_the_instance_that_brings_it(sockets: Path, init_bm: bool, size: str, expected: int) -> None:
    with mmc.Store(None, share=f"unix:{sockets}/s") as owner:
        store = DistributedObjectStore()
        assert store.setup(local_config(dram_size=size)) == store.init(0, init_bm) == 0
        assert store.get_local_service_id() == expected
        assert [segment.capacity for segment in owner.segments()] == ([4 * MIB] if expected == 0 else [])
        assert store.close() == 0
        assert owner.segments() == []


def test_a_metadata_clients_leases_and_allocations_stay_when_its_process_brings_memory(sockets: Path) -> None:
    with mmc.Store(MIB, share=f"unix:{sockets}/s") as owner:
        client, worker = DistributedObjectStore(), DistributedObjectStore()
        assert client.init(0, False) == 0
        assert client.put("k", b"data") == 0
        assert client.batch_add_lease(["k"], 60_000) == [0]
        assert all(client.batch_alloc(["r", "s"], [4, 4]))
        assert worker.setup(local_config(dram_size="2MB")) == worker.init(0) == 0
        assert worker.get_local_service_id() == client.get_local_service_id() == 1
        assert owner.query("k").lease_count == 1
        assert all(client.batch_alloc(["t"], [4]))
        assert worker.batch_write_finish(["r", "s", "t"], [0, -1, 0]) == [0, 0, 0]
        assert client.batch_is_exist(["r", "s", "t"]) == [1, 0, 1]
        assert client.close() == worker.close() == 0
        assert owner.query("k").lease_count == 0
        assert owner.stats().attached == owner.stats().reservations == 0


# Ends


def test_what_a_killed_worker_has_put_stays_and_its_memory_is_taken_over(meta_owner: MetaOwner) -> None:
    with workers(2) as (one, other):
        assert other.ask("store.put('k', b'data')") == 0
        assert all(other.ask("store.batch_alloc(['reserved'], [4])"))
        other.kill()
        assert one.ask("store.get('k')") == b"data"
        again = "store.batch_alloc(['reserved'], [4]) and store.batch_write_finish(['reserved'], [0])"
        eventually(lambda: one.ask(again) == [0])
        with workers(1) as (successor,):
            assert successor.ask("store.get_local_service_id()") == 1
            assert successor.ask("store.get('k')") == b"data"
            assert ranks_of(successor, "k") == [1]
            assert served_ranks(meta_owner.http) == [0, 1]


def test_without_its_owner_every_call_answers_and_a_new_owner_is_found(sockets: Path) -> None:
    options = ["--dram", "0", "--share", f"unix:{sockets}/s"]
    with workers(0) as begun, serving(sockets, *options) as served:
        begun.append(Worker())
        (worker,) = begun
        assert worker.ask("store.put('k', b'data')") == 0
        assert all(worker.ask("store.batch_alloc(['r'], [4])"))
        served.process.kill()
        served.process.wait()
        answers = {call: worker.ask(call) for call in CALLS_WITHOUT_AN_OWNER}
        assert answers == CALLS_WITHOUT_AN_OWNER
        with serving(sockets, *options):
            assert worker.ask("store.init(0)") == 0
            assert worker.ask("store.get_local_service_id()") == worker.ask("store.is_exist('k')") == 0
            assert worker.ask("store.put('k', b'new')") == 0
            with mmc.Store.attach(f"unix:{sockets}/s") as other:
                assert other.get("k") == b"new"
            assert worker.ask("store.close()") == 0
        assert worker.ask("(store.init(0), store.put('k', b'own'), store.close())") == (0, 0, 0)
        assert worker.said()[-1][0] == "INFO" and "opens a pool of its own" in worker.said()[-1][1]


def test_every_call_is_answered_once_the_owner_has_closed_the_pool(sockets: Path) -> None:
    store, owner = DistributedObjectStore(), mmc.Store(None, share=f"unix:{sockets}/s")
    assert store.setup(local_config(dram_size="1MB")) == store.init(0) == 0
    owner.close()
    # What asks nothing of the owner answers as before.
    own = {"get_local_service_id": 0, "register_buffer": 0, "unregister_buffer": 0}
    for name, arguments, without in calls_without_a_store():
        expected = own.get(name, [-3017] * len(without) if without == [-3019, -3019] else without)
        assert in_words(getattr(store, name)(*arguments)) == (-3017 if expected == -3019 else expected), name
    assert store.close() == store.close() == 0


@forks
def test_a_forked_child_attaches_for_itself(sockets: Path) -> None:
    with mmc.Store(None, share=f"unix:{sockets}/s") as owner:
        store = DistributedObjectStore()
        assert store.setup(local_config(dram_size="1MB")) == store.init(0) == store.put("k", b"data") == 0

        def child() -> Any:
            answers = [store.put("l", b"child"), store.close(), store.init(0), store.get_local_service_id()]
            return [*answers, store.get("k"), store.close()]

        assert in_child(child) == [-3019, 0, 0, 1, b"data", 0]
        assert store.get("k") == b"data" and owner.stats().attached == 1
        assert store.close() == 0


def test_an_owner_that_ends_while_a_worker_is_in_a_call_ends_the_call(meta_owner: MetaOwner) -> None:
    with workers(1) as (worker,):
        assert worker.ask("store.put('k', b'data')") == 0
        worker.begin("print('1', flush=True) or sum(1 for _ in iter(lambda: store.is_exist('k'), -3017))")
        assert worker.answer() == 1
        meta_owner.kill()
        assert worker.answer() >= 0
        assert worker.ask("store.is_exist('k')") == -3017


# Finding the owner


def test_an_init_waits_for_an_owner_as_long_as_it_is_told(sockets: Path) -> None:
    with workers(1, "None", client_retry_milliseconds=60_000) as (worker,):
        worker.begin("store.init(0)")
        with mmc.Store(None, share=f"unix:{sockets}/s") as owner:
            assert worker.answer() == 0
            assert worker.ask("store.put('k', b'data')") == 0
            assert owner.get("k") == b"data"


@pytest.mark.parametrize("share", ["unix:{}/s", ""])
def test_without_an_owner_the_process_has_a_store_of_its_own(
    share: str, sockets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "memcache_hybrid")
    monkeypatch.setenv("MMC_SHARE", share.format(sockets))
    with opened(dram_size="1MB") as store:
        assert store.put("k", b"data") == 0
        assert store.get_local_service_id() == 0
        assert [segment.memory for segment in pool().segments()] == ["private"]
    told = [record.getMessage() for record in caplog.records if record.name == "memcache_hybrid"]
    assert told == (
        [f"no process shares a pool at unix:{sockets}/s: this one opens a pool of its own"] if share else []
    )


@pytest.fixture
def own_directory(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets are that no setting names."""
    monkeypatch.delenv("MMC_SHARE")
    return Path(f"/tmp/mmc-{os.geteuid()}")


def address_of(url: str) -> Any:
    return _owner.address_of(_owner.Settings(mmc._settings.new_config(), url))


def test_all_names_of_this_host_are_one_socket_a_port(own_directory: Path) -> None:
    own_name = [f"tcp://{socket.gethostname()}:5001"] if _owner._is_this_host(socket.gethostname()) else []
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "[::1]", "0.0.0.0"):
        assert address_of(f"tcp://{host}:5001") == f"unix:{own_directory}/localhost-5001.sock"
    for url in own_name:
        assert address_of(url) == f"unix:{own_directory}/localhost-5001.sock"
    assert address_of("tcp://localhost:5002") == f"unix:{own_directory}/localhost-5002.sock"
    assert own_directory.stat().st_mode & 0o777 == 0o700


def test_a_meta_service_is_found_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMC_SHARE")
    port, url = free_port(), f":{free_port()}"
    text = "c = meta_config(sys.argv[1]); c.meta_service_url = sys.argv[2]; MetaService.setup(c); print(MetaService.main())"
    with running(text, port, "tcp://0.0.0.0" + url) as program, workers(0) as begun:
        eventually(lambda: is_healthy(port))
        begun += [Worker(meta_service_url="tcp://" + host + url) for host in ("localhost", "127.0.0.1")]
        assert [worker.ask("store.get_local_service_id()") for worker in begun] == [0, 1]
        assert begun[0].ask("store.put('k', b'data')") == 0
        assert begun[1].ask("store.get('k')") == b"data"
        program.process.terminate()
        assert program.output() == "0\n"


@pytest.mark.parametrize("url", ["tcp://192.0.2.1:5000", "tcp://[2001:db8::1]:5000", "tcp://nowhere.invalid:5000"])
def test_another_host_has_no_pool_for_this_one(
    url: str, own_directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DistributedObjectStore()
    assert store.setup(local_config(meta_service_url=url, dram_size="1MB")) == 0
    assert store.init(0) == store.init(0, False) == -3017
    assert store.get_local_service_id() == NO_RANK
    monkeypatch.setattr(MetaService, "_settings", None)
    config = MetaConfig()
    config.meta_service_url = url
    assert MetaService.setup(config) == 0
    assert MetaService.main() == -3017
    assert _process.current.store is None
    for record in caplog.records:
        assert record.levelname == "ERROR" and url in record.getMessage()
        assert "set meta_service_url to tcp://127.0.0.1:5000" in record.getMessage()
    assert len(caplog.records) == 3


def test_a_directory_that_others_may_write_to_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MMC_SHARE")
    monkeypatch.setattr(_owner, "_PARENT", str(tmp_path))
    path = tmp_path / f"mmc-{os.geteuid()}"
    path.mkdir()
    path.chmod(0o770)
    store = DistributedObjectStore()
    assert store.setup(local_config(dram_size="1MB")) == 0
    assert store.init(0) == -1
    assert "no other user may write to" in caplog.text
    path.chmod(0o700)
    assert store.init(0) == store.close() == 0
    path.rmdir()
    path.symlink_to("/")
    assert store.init(0) == -1


def test_a_second_owner_at_one_socket_is_a_repeated_call(
    meta_owner: MetaOwner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(MetaService, "_settings", None)
    config = MetaConfig()
    config.metrics_url = f"http://127.0.0.1:{free_port()}"
    assert MetaService.setup(config) == 0
    assert MetaService.main() == -3005
    assert "a process shares its pool there" in caplog.text
    assert _process.current.store is None


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_a_process_that_the_owner_refuses_has_no_store(sockets: Path) -> None:
    sockets.chmod(0o711)
    with mmc.Store(None, share=f"unix:{sockets}/s", share_mode=0o666), workers(1, "os.setuid(65534)") as (worker,):
        assert worker.ask("store.init(0)") == -3017
        level, text = worker.said()[-1]
        assert level == "ERROR" and "may not attach" in text
        assert worker.ask("store.put('k', b'data')") == -3019


@pytest.mark.slow
def test_an_owner_that_does_not_answer_is_not_replaced_by_an_own_store(sockets: Path) -> None:
    served = Served(sockets, "--dram", "0", "--share", f"unix:{sockets}/s", environment={})
    try:
        assert served.notified() == "READY=1"
        served.process.send_signal(signal.SIGSTOP)
        with workers(1, client_timeout_seconds=1) as (worker,):
            assert worker.begun == -3017
            assert worker.said()[-1][0] == "ERROR"
    finally:
        served.process.send_signal(signal.SIGCONT)
        served.forget()
