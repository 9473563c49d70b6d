"""`LocalConfig` and `MetaConfig`, what `setup` makes of them, and the file that says the same."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Union

import pytest
from conftest import run_program
from hybrid_support import MIB, http_get, local_config, opened, pool

from memcache_hybrid import DistributedObjectStore, LocalConfig, MetaConfig, MetaService, _config, _process

CERTIFICATES = ["ca_path", "ca_crl_path", "cert_path", "key_path", "key_pass_path", "package_path", "decrypter_path"]


def tls(prefix: str, *, without: str = "") -> dict[str, Any]:
    return {f"{prefix}enable": False, **{f"{prefix}{path}": "" for path in CERTIFICATES if path != without}}


LOCAL_DEFAULTS = {
    "meta_service_url": "tcp://127.0.0.1:5000",
    "config_store_url": "tcp://127.0.0.1:6000",
    "log_level": "info",
    "world_size": 256,
    "protocol": "host_rdma",
    "hcom_url": "tcp://127.0.0.1:7000",
    "dram_size": "1GB",
    "hbm_size": "0",
    "max_dram_size": "64GB",
    "max_hbm_size": "0",
    "client_retry_milliseconds": 0,
    "client_timeout_seconds": 60,
    "read_thread_pool_size": 32,
    "write_thread_pool_size": 4,
    "aggregate_io": True,
    "aggregate_num": 122,
    "ubs_io_enable": False,
    "memory_pool_mode": "standard",
    "backend_id": "",
    "tag": "",
    "tag_op_info": "",
    **tls("tls_"),
    **tls("config_store_tls_"),
    **tls("hcom_tls_", without="package_path"),
}
META_DEFAULTS = {
    "meta_service_url": "tcp://127.0.0.1:5000",
    "config_store_url": "tcp://127.0.0.1:6000",
    "metrics_url": "http://127.0.0.1:8000",
    "ha_enable": False,
    "log_level": "info",
    "log_path": "/var/log/memcache_hybrid",
    "log_rotation_file_size": 20,
    "log_rotation_file_count": 50,
    "evict_threshold_high": 90,
    "evict_threshold_low": 80,
    "ubs_io_enable": False,
    **tls("tls_"),
    **tls("config_store_tls_"),
}
CONFIGS = [(LocalConfig, LOCAL_DEFAULTS), (MetaConfig, META_DEFAULTS)]

PATHS = [f"ock.mmc.tls.{path.replace('_', '.')}" for path in CERTIFICATES]
#: Keys of a file, a value that is good, and values that are not.
KEYS: dict[str, tuple[str, list[str]]] = {
    "ock.mmc.meta_service_url": ("tcp://10.0.0.1:5000", ["10.0.0.1:5000", "tcp://host", "tcp://host:0"]),
    "ock.mmc.meta_service.config_store_url": ("tcp://host:6000", ["udp://host:6000", "tcp://host:65536"]),
    "ock.mmc.meta_service.metrics_url": ("http://127.0.0.1:0", ["https://127.0.0.1:8000", "http://127.0.0.1"]),
    "ock.mmc.log_level": ("error", ["loud", ""]),
    "ock.mmc.log_path": ("/var/log", ["/" * 1024]),
    "ock.mmc.evict_threshold_high": ("95", ["0", "101", "high", "90.5", "-1"]),
    "ock.mmc.evict_threshold_low": ("70", ["0", "101", "low"]),
    "ock.mmc.local_service.world_size": ("1024", ["0", "1025", "many"]),
    "ock.mmc.local_service.protocol": ("device_sdma", ["tcp", "", "HOST_RDMA"]),
    "ock.mmc.local_service.dram.size": ("4MB", ["2TB", "4XB", "-4MB", ""]),
    "ock.mmc.local_service.hbm.size": ("1GB", ["2TB", "much"]),
    "ock.mmc.local_service.max.dram.size": ("64GB", ["1.5TB", "MB"]),
    "ock.mmc.local_service.max.hbm.size": ("0", ["1025GB", "0x10"]),
    "ock.mmc.client.retry_milliseconds": ("30", ["600001", "-1", "1s"]),
    "ock.mmc.client.timeout.seconds": ("1", ["0", "601"]),
    "ock.mmc.client.read_thread_pool.size": ("64", ["0", "65"]),
    "ock.mmc.client.write_thread_pool.size": ("1", ["0", "65"]),
    "ock.mmc.client.aggregate.io": ("true", ["maybe", "2"]),
    "ock.mmc.client.aggregate.num": ("131072", ["0", "131073"]),
    "ock.mmc.ubs_io.enable": ("false", ["", "never"]),
    "ock.mmc.tls.enable": ("true", ["sure"]),
    **{key: ("/etc/ssl/file.pem", ["/" * 1024]) for key in PATHS},
    "mmc.dram_size": ("8MB", ["x"]),
    "mmc.rank": ("3", ["65536"]),
}

Init = Callable[..., DistributedObjectStore]


@pytest.fixture
def init_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Init]:
    """Initialises an instance from a file with this text, `local.conf` in `tmp_path`."""
    stores = []

    def init(text: Union[str, bytes]) -> DistributedObjectStore:
        path = tmp_path / "local.conf"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", str(path))
        stores.append(DistributedObjectStore())
        assert stores[-1].init(0) == 0
        return stores[-1]

    yield init
    assert [store.close() for store in stores] == [0] * len(stores)
    assert _process.current.store is None


def messages(caplog: pytest.LogCaptureFixture, level: int, about: str) -> list[str]:
    """What was logged at a level and is about something."""
    return [
        record.getMessage() for record in caplog.records if record.levelno == level and about in record.getMessage()
    ]


def capacity() -> int:
    return sum(segment.capacity for segment in pool().segments())


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s*(\d+) kB", status)[0]) * 1024


# Attributes


@pytest.mark.parametrize(("kind", "defaults"), CONFIGS)
def test_a_config_has_the_attributes_and_defaults_of_the_contract(kind: Any, defaults: dict[str, Any]) -> None:
    config = kind()
    assert {name: getattr(config, name) for name in defaults} == defaults
    assert all(type(getattr(config, name)) is type(value) for name, value in defaults.items())


@pytest.mark.parametrize(("kind", "defaults"), CONFIGS)
def test_the_text_of_a_config_lists_every_member(kind: Any, defaults: dict[str, Any]) -> None:
    config = kind()
    config.log_level = "trace"
    config.tls_key_path = "/etc/ssl/key.pem"
    lines = str(config).splitlines()
    for name, value in {**defaults, "log_level": "trace", "tls_key_path": "/etc/ssl/key.pem"}.items():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        assert len([line for line in lines if re.search(rf"\b{name}\b.*{re.escape(shown)}", line)]) == 1, name


@pytest.mark.parametrize(("kind", "defaults"), CONFIGS)
def test_an_attribute_takes_its_own_type_only(kind: Any, defaults: dict[str, Any]) -> None:
    config = kind()
    for name, value in defaults.items():
        setattr(config, name, value)
        with pytest.raises(TypeError, match=name):
            setattr(config, name, None)
        with pytest.raises(TypeError, match=name):
            setattr(config, name, 1 if isinstance(value, (str, bool)) else "1")
    with pytest.raises(AttributeError):
        config.dram_sise = "1GB"
    assert {name: getattr(config, name) for name in defaults} == defaults


def test_configs_do_not_share_values() -> None:
    LocalConfig().dram_size, MetaConfig().log_level = "5GB", "error"
    changed = local_config(dram_size="2GB")
    assert (LocalConfig().dram_size, changed.dram_size) == ("1GB", "2GB")


# Setup


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("134217728", 134217728),
        ("2048KB", 2 * MIB),
        ("200mb", 200 * MIB),
        ("2.5GB", 2560 * MIB),
        ("3Mb", 3 * MIB),
        ("1gB", 1024 * MIB),
        ("5000", 8192),
        ("0", 0),
    ],
)
def test_sizes_are_text_in_any_case(text: str, expected: int) -> None:
    with opened(dram_size=text) as store:
        assert capacity() == expected
        assert store.put("k", b"data") == (0 if expected else -1)


GOOD: list[dict[str, Any]] = [
    {},
    {"dram_size": "1TB", "max_dram_size": "1tb", "hbm_size": "1GB", "max_hbm_size": "2.5gb"},
    {"protocol": "host_shm", "world_size": 1, "meta_service_url": "tcp://[::1]:5000", "log_level": "warn"},
    {"aggregate_io": False, "aggregate_num": 1, "ubs_io_enable": True, "client_retry_milliseconds": 600_000},
    {"tls_enable": True, "tls_ca_path": "/etc/ca.pem", "config_store_tls_enable": True, "hcom_tls_key_path": "/key"},
    {"memory_pool_mode": "expanding", "backend_id": "b", "tag": "t", "tag_op_info": "t:any"},
]
BAD: list[tuple[str, Any, str]] = [
    ("log_level", "loud", "ock.mmc.log_level"),
    ("dram_size", "lots", "ock.mmc.local_service.dram.size"),
    ("dram_size", "2TB", "ock.mmc.local_service.dram.size"),
    ("dram_size", "1GB\nmmc.rank = 3", "dram_size"),
    ("hbm_size", "-1", "ock.mmc.local_service.hbm.size"),
    ("max_dram_size", "", "ock.mmc.local_service.max.dram.size"),
    ("max_hbm_size", "1PB", "ock.mmc.local_service.max.hbm.size"),
    ("meta_service_url", "127.0.0.1:5000", "ock.mmc.meta_service_url"),
    ("config_store_url", "tcp://", "ock.mmc.meta_service.config_store_url"),
    ("world_size", 0, "ock.mmc.local_service.world_size"),
    ("world_size", 1025, "ock.mmc.local_service.world_size"),
    ("protocol", "tcp", "ock.mmc.local_service.protocol"),
    ("client_retry_milliseconds", -1, "ock.mmc.client.retry_milliseconds"),
    ("client_timeout_seconds", 0, "ock.mmc.client.timeout.seconds"),
    ("read_thread_pool_size", 65, "ock.mmc.client.read_thread_pool.size"),
    ("write_thread_pool_size", 0, "ock.mmc.client.write_thread_pool.size"),
    ("aggregate_num", 131073, "ock.mmc.client.aggregate.num"),
    ("tls_cert_path", "/" * 1024, "ock.mmc.tls.cert.path"),
]


@pytest.mark.parametrize("attributes", GOOD, ids=lambda attributes: ", ".join(attributes) or "defaults")
def test_setup_answers_0_for_what_is_in_range(attributes: dict[str, Any]) -> None:
    assert DistributedObjectStore().setup(local_config(**attributes)) == 0


@pytest.mark.parametrize(("name", "value", "key"), BAD, ids=[f"{name}={value!r:.20}" for name, value, _ in BAD])
def test_setup_answers_minus_3000_for_what_is_not_and_logs_its_name(
    name: str, value: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = DistributedObjectStore()
    assert store.setup(local_config(**{name: value})) == -3000
    assert len(messages(caplog, logging.ERROR, key)) == 1
    assert store.setup(local_config(dram_size="1MB")) == 0, "it was not set up, and may be"
    assert store.init(0) == store.close() == 0


@pytest.mark.parametrize("config", [None, {}, MetaConfig(), LocalConfig])
def test_setup_takes_a_local_config(config: Any) -> None:
    with pytest.raises(TypeError):
        DistributedObjectStore().setup(config)


def test_what_changes_after_setup_does_not_count() -> None:
    config = local_config(dram_size="1MB")
    store = DistributedObjectStore()
    assert store.setup(config) == 0
    config.dram_size = "2MB"
    assert store.init(0) == 0
    assert capacity() == MIB
    assert store.close() == 0


def test_setup_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", str(tmp_path / "nowhere"))
    with opened(dram_size="1MB"):
        assert capacity() == MIB


@pytest.mark.parametrize("variable", [None, ""])
def test_without_setup_and_file_the_defaults_count_and_memory_comes_as_it_is_used(
    variable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", variable)
    before = resident_bytes()
    store = DistributedObjectStore()
    assert store.init(0) == 0
    assert capacity() == 1024 * MIB
    assert store.put("k", b"data") == 0
    assert resident_bytes() - before < 64 * MIB
    assert store.close() == 0


# The file


@pytest.mark.parametrize("key", list(KEYS))
def test_a_file_may_have_every_key_of_the_contract(init_of: Init, key: str) -> None:
    small = "" if "dram" in key else "ock.mmc.local_service.dram.size = 1MB\n"
    store = init_of(f"{small}{key} = {KEYS[key][0]}\n")
    assert store.put("k", b"data") == 0


def test_a_file_may_have_all_keys_and_comments(init_of: Init, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"  {key}={value}   # why" for key, (value, _) in KEYS.items() if not key.startswith("mmc.")]
    store = init_of("\ufeff# Settings\n\n" + "\r\n".join(lines) + "\n# end of file")
    assert capacity() == 4 * MIB
    assert store.put("k", b"data") == 0
    address = pool().http_address
    assert address is not None
    assert http_get(address, "/get_all_keys") == (200, "k\n")
    assert messages(caplog, logging.WARNING, "") == []


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, (_, values) in KEYS.items() for value in values],
    ids=[f"{key}={value:.12}" for key, (_, values) in KEYS.items() for value in values],
)
def test_a_value_out_of_range_is_a_value_error_with_file_line_and_key(
    init_of: Init, tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'local.conf'}:3: {key}")):
        init_of(f"# Settings\n\n{key} = {value}\n")
    assert _process.current.store is None


@pytest.mark.parametrize("key", ["ock.other", "dram_size", "mmc.dram", "ock.mmcx.log_level", "OCK.MMC.LOG_LEVEL"])
def test_an_unknown_key_is_a_value_error_with_file_line_and_key(init_of: Init, tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'local.conf'}:2: {key}")):
        init_of(f"# Settings\n{key} = 1\n")


@pytest.mark.parametrize(
    ("line", "shown"), [(b"just words", "just"), (b"= 1", "="), (b"ock.mmc.log_path = \xff", ""), (b"a\0b = 1", "")]
)
def test_what_is_no_setting_is_a_value_error_with_file_and_line(
    init_of: Init, tmp_path: Path, line: bytes, shown: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'local.conf'}:2: {shown}")):
        init_of(b"\n" + line + b"\n")


def test_thresholds_in_the_wrong_order_are_a_value_error(init_of: Init, tmp_path: Path) -> None:
    where = re.escape(f"{tmp_path / 'local.conf'}:2: ock.mmc.evict_threshold_low")
    with pytest.raises(ValueError, match=where):
        init_of("ock.mmc.evict_threshold_high = 50\nock.mmc.evict_threshold_low = 60\n")


def test_a_key_that_nobody_knows_is_told_once_with_file_and_line(
    init_of: Init, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = init_of("ock.mmc.local_service.dram.size = 1MB\nock.mmc.new.key = 1\n\nock.mmc.other = x\n")
    for key, line in (("ock.mmc.new.key", 2), ("ock.mmc.other", 4)):
        (message,) = messages(caplog, logging.WARNING, key)
        assert f"{tmp_path / 'local.conf'}:{line}: {key}" in message
    assert len(messages(caplog, logging.WARNING, "")) == 2
    assert store.put("k", b"data") == 0


def test_keys_without_meaning_are_told_once(init_of: Init, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmc")
    meaningless = [key for key in KEYS if re.search(r"url|path|protocol|world|hbm|max|client|ubs|tls", key)]
    meaningless.remove("ock.mmc.meta_service.metrics_url")
    init_of("mmc.dram_size = 1MB\n" + "".join(f"{key} = {KEYS[key][0]}\n" for key in meaningless))
    told = messages(caplog, logging.INFO, str(tmp_path))
    for key in meaningless:
        assert sum(len(re.findall(rf"{re.escape(key)}(?![\w.])", message)) for message in told) == 1, key
    assert messages(caplog, logging.WARNING, "") == []


def test_attributes_without_meaning_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmc")
    with opened(dram_size="1MB", world_size=8):
        assert len(messages(caplog, logging.INFO, "ock.mmc.local_service.world_size")) == 1


@pytest.mark.parametrize(
    ("setting", "is_told"), [("", True), ("ock.mmc.log_level = info", True), ("ock.mmc.log_level = warn", False)]
)
def test_a_file_is_told_of_at_its_log_level_which_is_info_by_default(
    tmp_path: Path, setting: str, is_told: bool
) -> None:
    path = tmp_path / "local.conf"
    path.write_text(f"mmc.dram_size = 1MB\n{setting}\nock.mmc.local_service.world_size = 8\nock.mmc.new = 1\n")
    done = run_program(
        # The level of the log is the process's, so that this one must be fresh.
        f"""
import logging, os, sys
import memcache_hybrid
logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, format="%(levelname)s %(message)s")
os.environ["MMC_LOCAL_CONFIG_PATH"] = {str(path)!r}
store = memcache_hybrid.DistributedObjectStore()
assert store.init(0) == store.close() == 0
"""
    )
    assert done.stdout.count("world_size") == int(is_told)
    assert done.stdout.count(f"WARNING {path}:4: ock.mmc.new") == 1


def test_the_log_level_of_a_config_counts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mmc")
    for level, is_told in (("warn", False), ("info", True), ("error", False)):
        caplog.clear()
        with opened(dram_size="1MB", log_level=level, world_size=8):
            assert bool(messages(caplog, logging.INFO, "")) == is_told


def test_own_options_go_before_those_of_the_service(init_of: Init) -> None:
    store = init_of("mmc.dram_size = 8MB\nock.mmc.local_service.dram.size = 4MB\nmmc.rank = 7\n")
    assert capacity() == 8 * MIB
    assert store.get_local_service_id() == 7
    assert store.put("k", b"data") == 0
    assert store.get_key_info("k").loc_list() == [7]


def test_thresholds_count(init_of: Init) -> None:
    store = init_of(
        "ock.mmc.local_service.dram.size = 4MB\nock.mmc.evict_threshold_high = 50\nock.mmc.evict_threshold_low = 25\n"
    )
    is_evicted = threading.Event()
    pool().set_event_callback(lambda events, _: any(event.kind == "removed" for event in events) and is_evicted.set())
    assert store.put_batch(["a", "b"], [bytes(MIB), bytes(MIB - 4096)]) == 0
    assert store.put("c", bytes(8192)) == 0
    assert is_evicted.wait(20)
    pool().set_event_callback(None)


def test_a_file_that_can_not_be_read_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", str(tmp_path / "nowhere"))
    store = DistributedObjectStore()
    with pytest.raises(OSError, match="nowhere"):
        store.init(0)
    assert store.get_local_service_id() == 4294967295


@pytest.mark.parametrize(
    ("text", "url", "wait"),
    [
        ("", "tcp://127.0.0.1:5000", 0),
        ("ock.mmc.meta_service_url=tcp://a:1\n", "tcp://a:1", 0),
        ("\ufeffock.mmc.meta_service_url = tcp://a:1 # tcp://b:1\r\n", "tcp://a:1", 0),
        ("\tock.mmc.meta_service_url\t= tcp://a:1\nock.mmc.meta_service_url = tcp://b:1", "tcp://b:1", 0),
        ("#ock.mmc.meta_service_url = tcp://a:1\n# = #\n", "tcp://127.0.0.1:5000", 0),
        ("ock.mmc.client.retry_milliseconds = 0250 #5", "tcp://127.0.0.1:5000", 0.25),
    ],
)
def test_a_file_says_where_the_owner_is(
    text: str, url: str, wait: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "local.conf"
    path.write_bytes(text.encode())
    monkeypatch.setenv("MMC_LOCAL_CONFIG_PATH", str(path))
    settings = _config.settings_of_file("MMC_LOCAL_CONFIG_PATH", LocalConfig())
    assert (settings.meta_service_url, settings.wait, settings.call_timeout) == (url, wait, 60)


# The other config


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({}, 0),
        ({"metrics_url": "http://0.0.0.0:9000/", "evict_threshold_high": 100, "evict_threshold_low": 1}, 0),
        ({"evict_threshold_high": 70}, 0),
        ({"evict_threshold_low": 95}, 0),
        ({"ha_enable": True, "log_rotation_file_size": 1, "log_path": "/tmp", "tls_enable": True}, 0),
        ({"metrics_url": "https://127.0.0.1:8000"}, -3000),
        ({"metrics_url": "127.0.0.1:port"}, -3000),
        ({"evict_threshold_high": 101}, -3000),
        ({"evict_threshold_low": 0}, -3000),
        ({"evict_threshold_high": 50, "evict_threshold_low": 60}, -3000),
        ({"log_level": "loud"}, -3000),
        ({"log_path": "/" * 1024}, -3000),
        ({"meta_service_url": "host"}, -3000),
    ],
    ids=str,
)
def test_setup_of_the_meta_service_checks_its_config(
    attributes: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # What is set up stays set up for the process.
    monkeypatch.setattr(MetaService, "_settings", None)
    config = MetaConfig()
    for name, value in attributes.items():
        setattr(config, name, value)
    assert MetaService.setup(config) == code
    assert len(messages(caplog, logging.ERROR, "")) == (1 if code else 0)


def test_setup_of_the_meta_service_takes_a_meta_config() -> None:
    with pytest.raises(TypeError):
        MetaService.setup(LocalConfig())  # type: ignore[arg-type]
