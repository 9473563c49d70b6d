"""`LocalConfig` and `MetaConfig`: attributes with the names and defaults of MemCache Hybrid, and the files that say the same.

The library knows these settings as keys of a file, and checks type and range there. So a config is written as such text and read by the library:
there is one table of what is allowed, and a mistake in an attribute is reported in the same words as one in a file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import mmc
from mmc import _native, _settings


class _Config:
    """Attributes with defaults, whose types are those of the defaults."""

    _defaults: ClassVar[dict[str, Any]] = {}
    #: The key of a settings file that an attribute stands for. The others are of services that are not there.
    _keys: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.__dict__.update(self._defaults)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._defaults:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        expected = type(self._defaults[name])
        if not isinstance(value, expected):
            raise TypeError(
                f"{type(self).__name__}.{name} = {value!r}: must be {expected.__name__}, not {type(value).__name__}"
            )
        self.__dict__[name] = value

    def __str__(self) -> str:
        members = "".join(f"  {name}: {_text(self.__dict__[name])}\n" for name in self._defaults)
        return f"{type(self).__name__} {{\n{members}}}"

    __repr__ = __str__

    def settings(self) -> bytes:
        """Its settings as the text of a file: what somebody has changed, and the defaults that are not the library's own."""
        return self._lines(
            [name for name in self._keys if self.__dict__[name] != self._defaults[name] or name in _OWN_DEFAULTS]
        )

    def default_settings(self, config: _native.Config) -> bytes:
        """The defaults that are not the library's own, for what `config` leaves open."""
        return self._lines(
            [name for name, field in _OWN_DEFAULTS.items() if name in self._keys and not getattr(config, field)]
        )

    def _lines(self, names: list[str]) -> bytes:
        texts = {name: _text(self.__dict__[name]) for name in names}
        for name, text in texts.items():
            if not text.isprintable():
                raise mmc.InvalidParam(f"{type(self).__name__}.{name} = {text!r}: must be one line of text")
        return "".join(f"{self._keys[name]} = {text}\n" for name, text in texts.items()).encode()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


#: Attributes whose default is not what the library does when it is told nothing, and the field of its config.
_OWN_DEFAULTS = {"log_level": "log_level", "metrics_url": "http_address"}


def _tls(prefix: str, *, has_package: bool = True) -> dict[str, Any]:
    paths = ["ca_path", "ca_crl_path", "cert_path", "key_path", "key_pass_path", "package_path", "decrypter_path"]
    if not has_package:
        paths.remove("package_path")
    return {f"{prefix}enable": False, **{prefix + path: "" for path in paths}}


def _tls_keys() -> dict[str, str]:
    return {name: "ock.mmc." + name.replace("_", ".") for name in _tls("tls_")}


class LocalConfig(_Config):
    """Settings of a process that stores and reads. Sizes are text: `134217728`, `2048KB`, `200mb`, `2.5GB`, `1TB`, in any case."""

    _defaults: ClassVar[dict[str, Any]] = {
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
        **_tls("tls_"),
        **_tls("config_store_tls_"),
        **_tls("hcom_tls_", has_package=False),
    }
    _keys: ClassVar[dict[str, str]] = {
        "meta_service_url": "ock.mmc.meta_service_url",
        "config_store_url": "ock.mmc.meta_service.config_store_url",
        "log_level": "ock.mmc.log_level",
        "world_size": "ock.mmc.local_service.world_size",
        "protocol": "ock.mmc.local_service.protocol",
        "dram_size": "ock.mmc.local_service.dram.size",
        "hbm_size": "ock.mmc.local_service.hbm.size",
        "max_dram_size": "ock.mmc.local_service.max.dram.size",
        "max_hbm_size": "ock.mmc.local_service.max.hbm.size",
        "client_retry_milliseconds": "ock.mmc.client.retry_milliseconds",
        "client_timeout_seconds": "ock.mmc.client.timeout.seconds",
        "read_thread_pool_size": "ock.mmc.client.read_thread_pool.size",
        "write_thread_pool_size": "ock.mmc.client.write_thread_pool.size",
        "aggregate_io": "ock.mmc.client.aggregate.io",
        "aggregate_num": "ock.mmc.client.aggregate.num",
        "ubs_io_enable": "ock.mmc.ubs_io.enable",
        **_tls_keys(),
    }


class MetaConfig(_Config):
    """Settings of the process that owns the pool and serves its admin port."""

    _defaults: ClassVar[dict[str, Any]] = {
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
        **_tls("tls_"),
        **_tls("config_store_tls_"),
    }
    _keys: ClassVar[dict[str, str]] = {
        "meta_service_url": "ock.mmc.meta_service_url",
        "config_store_url": "ock.mmc.meta_service.config_store_url",
        "metrics_url": "ock.mmc.meta_service.metrics_url",
        "log_level": "ock.mmc.log_level",
        "log_path": "ock.mmc.log_path",
        "evict_threshold_high": "ock.mmc.evict_threshold_high",
        "evict_threshold_low": "ock.mmc.evict_threshold_low",
        "ubs_io_enable": "ock.mmc.ubs_io.enable",
        **_tls_keys(),
    }


class Settings(NamedTuple):
    """What a config or a file says: the library's config, and what it has no place for."""

    config: _native.Config
    meta_service_url: str
    #: Seconds to wait for an owner.
    wait: float = 0.0
    #: Seconds to wait for its answer.
    call_timeout: float = 60.0


def settings_of(config: _Config) -> Settings:
    """The settings of these attributes. Raises `ValueError` with the attribute's key for one that is wrong."""
    parsed = _settings.new_config()
    _settings.parse(type(config).__name__, config.settings(), parsed)
    return _settings_of(parsed, config, b"")


def settings_of_file(variable: str, default: _Config) -> Settings:
    """The settings of the file that the environment's `variable` names, and of `default` for what it leaves open.

    Raises `ValueError` with file, line and key for what is wrong, and `OSError` when the file can't be read.
    """
    path = os.environ.get(variable)
    if not path:
        return settings_of(default)
    parsed = _settings.new_config()
    with open(path, "rb") as file:
        text = file.read()
    # The default's log level goes ahead, so that what there is to tell of a file without one is heard.
    _settings.parse(type(default).__name__, default.default_settings(parsed), _settings.new_config())
    _settings.parse(path, text, parsed)
    _settings.parse(type(default).__name__, default.default_settings(parsed), parsed)
    return _settings_of(parsed, default, text)


def _settings_of(parsed: _native.Config, default: _Config, text: bytes) -> Settings:
    """With what `text`, which was found good, says of the owner, and `default` otherwise."""

    def said(name: str) -> Any:
        value = _settings.value_in(text, default._keys[name])
        return getattr(default, name) if value is None else type(default._defaults[name])(value)

    if "client_retry_milliseconds" not in default._keys:
        return Settings(parsed, said("meta_service_url"))
    wait, call_timeout = said("client_retry_milliseconds") / 1000, float(said("client_timeout_seconds"))
    return Settings(parsed, said("meta_service_url"), wait, call_timeout)
