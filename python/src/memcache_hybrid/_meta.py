"""`MetaService`: the owner of this host's pool, until a signal ends it."""

from __future__ import annotations

import logging
import threading
from typing import ClassVar, Optional

import mmc
from mmc import _signals

from . import _process
from ._codes import code_of
from ._config import MetaConfig, Settings, settings_of, settings_of_file
from ._owner import NoMetaService
from ._values import ERROR, INVALID_PARAM, NO_META_SERVICE, OK, REPEATED

_log = logging.getLogger("memcache_hybrid")


class MetaService:
    """Owns the pool to which the processes of this host bring their memory, and serves the REST API at `metrics_url` for it."""

    _settings: ClassVar[Optional[Settings]] = None

    @staticmethod
    def setup(config: MetaConfig) -> int:
        """Says how `main` is to serve. 0; -3000 for a value that is out of range, which the log names."""
        if not isinstance(config, MetaConfig):
            raise TypeError(f"config must be a MetaConfig, not {type(config).__name__}")
        try:
            MetaService._settings = settings_of(config)
        except mmc.InvalidParam as error:
            _log.error("%s", error)
            return INVALID_PARAM
        return OK

    @staticmethod
    def main() -> int:
        """Opens a pool without memory of its own, shares it with the processes of this host that have the same `meta_service_url`, serves its admin port, and
        blocks until SIGINT or SIGTERM; then returns 0.

        Without `setup` the file that `MMC_META_CONFIG_PATH` names counts, else the defaults; a mistake in it is a `ValueError`. Must be called on the
        main thread, which is where Python handles signals; what handled the two before does so again afterwards. -3005 when the process has a store already,
        or another process shares a pool there; -3017 when `meta_service_url` is another host's; another code when the port can't be had; the log names the reason.
        """
        if threading.current_thread() is not threading.main_thread():
            _log.error("MetaService.main must be called on the main thread: signals end it")
            return ERROR
        process = _process.current
        if process.store is not None:
            _log.error("MetaService.main: this process has a store already, and its admin port is opened with it")
            return REPEATED
        with _signals.ends_awaited() as wait:
            try:
                process.serve(MetaService._settings or settings_of_file("MMC_META_CONFIG_PATH", MetaConfig()))
            except mmc.InvalidParam:
                raise
            except NoMetaService as error:
                _log.error("%s", error)
                return NO_META_SERVICE
            except mmc.Error as error:
                _log.error("%s", error)
                return code_of(error, {mmc.Code.BUSY: REPEATED})
            try:
                wait()
            finally:
                process.leave()
            return OK
