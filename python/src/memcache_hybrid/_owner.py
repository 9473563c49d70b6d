"""Where the owner of this host's pool is, and attaching to it.

A meta service is named by an address of the network. Here it serves the processes of one host, by a Unix-domain socket that is derived from that address: all
names of this host with one port are one socket, in a directory of the user. `mmc.share` of a settings file, or `MMC_SHARE` in the environment, which goes first, name
another one; empty, they say that there is none.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import stat
from contextlib import suppress
from typing import Optional
from urllib.parse import urlsplit

import mmc
from mmc import _native

from ._config import Settings

_log = logging.getLogger("memcache_hybrid")

_PARENT = "/tmp"
_SWITCHES = {_native.OFF: False, _native.ON: True}


class NoMetaService(Exception):
    """There is an owner that can't be had, or there can be none; the text says why, and what to do."""


def attach(settings: Settings, *, brings_memory: bool) -> Optional[mmc.Store]:
    """Attaches to the owner, with the memory of the settings; None when there is no owner. Raises `NoMetaService` and `mmc.Error`."""
    address = address_of(settings)
    if address is None:
        return None
    config = settings.config
    dram_size = (config.dram_size or "1GiB") if brings_memory else _native.NO_DRAM
    try:
        store = mmc.Store.attach(
            address,
            dram=None if dram_size == _native.NO_DRAM else dram_size,
            rank=config.rank or None,
            wait=settings.wait,
            call_timeout=settings.call_timeout,
            huge_pages=_SWITCHES.get(config.huge_pages),
            prefault=_SWITCHES.get(config.prefault),
            numa_node=config.numa_node - 1 if config.numa_node else None,
        )
    except mmc.Unsupported as error:
        raise NoMetaService(str(error)) from error
    except mmc.Disconnected as error:
        if _is_served(address):
            raise NoMetaService(str(error)) from error
        _log.info("no process shares a pool at %s: this one opens a pool of its own", address)
        return None
    _log.info("attached to the pool at %s, whose owner has the admin port and the SSD", address)
    return store


def address_of(settings: Settings) -> Optional[str]:
    """Where the owner shares the pool; None for nowhere. Raises `NoMetaService` when that is another host, and `mmc.Io` when the directory is not safe."""
    named = os.environ.get("MMC_SHARE")
    if named is None and settings.config.share is not None:
        named = settings.config.share.decode()
    if named is not None:
        return named or None
    url = urlsplit(settings.meta_service_url)
    if not _is_this_host(url.hostname or ""):
        raise NoMetaService(
            f"meta_service_url {settings.meta_service_url}: {url.hostname} is not this host, and a pool of mmc serves one host: run MetaService on this host "
            f"and set meta_service_url to tcp://127.0.0.1:{url.port} for it and its clients, or run `python -m mmc serve` and name its address in MMC_SHARE. "
            "For blocks of several hosts, use the engine's connector to a store that spans them, LMCache or Mooncake, above it."
        )
    return f"unix:{_directory()}/localhost-{url.port}.sock"


def _is_this_host(host: str) -> bool:
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_loopback or address.is_unspecified:
            return True
    if host == "localhost":
        return True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_can_bind(family, address) for family, _, _, _, address in found)


def _can_bind(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _directory() -> str:
    """This user's directory of sockets. It is not that of `TMPDIR`, which may differ between the processes that are to meet there."""
    user = os.geteuid()
    path = f"{_PARENT}/mmc-{user}"
    # Where it can't be made nobody can share, and who tries is told by the library.
    with suppress(OSError):
        os.mkdir(path, 0o700)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return path
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise mmc.Io(
            f"{path}: must be a directory of user {user} that no other user may write to; remove it, or name another socket in MMC_SHARE"
        )
    return path


def _is_served(address: str) -> bool:
    """Whether a process listens there, which then did not answer."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address[len("unix:") :])
        except OSError:
            return False
    return True
