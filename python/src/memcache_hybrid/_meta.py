"""`MetaService`: the admin port of the process's store, until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Optional

import mmc
from mmc import _native

from . import _process
from ._codes import code_of
from ._config import MetaConfig, config_of, config_of_file
from ._values import ERROR, INVALID_PARAM, OK, REPEATED

_log = logging.getLogger("memcache_hybrid")

_ENDS = (signal.SIGINT, signal.SIGTERM)


class MetaService:
    """Serves the REST API at `metrics_url` for the store of this process."""

    _config: ClassVar[Optional[_native.Config]] = None

    @staticmethod
    def setup(config: MetaConfig) -> int:
        """Says how `main` is to serve. 0; -3000 for a value that is out of range, which the log names."""
        if not isinstance(config, MetaConfig):
            raise TypeError(f"config must be a MetaConfig, not {type(config).__name__}")
        try:
            MetaService._config = config_of(config)
        except mmc.InvalidParam as error:
            _log.error("%s", error)
            return INVALID_PARAM
        return OK

    @staticmethod
    def main() -> int:
        """Opens the process's store, serves its admin port, and blocks until SIGINT or SIGTERM; then returns 0.

        Without `setup` the file that `MMC_META_CONFIG_PATH` names counts, else the defaults; a mistake in it is a `ValueError`. Must be called on the
        main thread, which is where Python handles signals; what handled the two before does so again afterwards. -3005 when the process has a store already,
        another code when the port can't be had; the log names the reason.
        """
        if threading.current_thread() is not threading.main_thread():
            _log.error("MetaService.main must be called on the main thread: signals end it")
            return ERROR
        process = _process.current
        if process.store is not None:
            _log.error("MetaService.main: this process has a store already, and its admin port is opened with it")
            return REPEATED
        with _signals() as arrived:
            try:
                config = MetaService._config or config_of_file("MMC_META_CONFIG_PATH", MetaConfig())
                process.join(config, brings_memory=False)
            except mmc.InvalidParam:
                raise
            except mmc.Error as error:
                _log.error("%s", error)
                return code_of(error)
            try:
                # Other signals that Python handles arrive there, too, and their handlers may raise.
                while os.read(arrived, 1)[0] not in _ENDS:
                    pass
            finally:
                process.leave()
            return OK


@contextmanager
def _signals() -> Iterator[int]:
    """The end of a pipe where signals arrive as bytes, SIGINT and SIGTERM without another effect.

    A handler in Python would run when the main thread comes to it: not while that waits, if the signal came the moment before.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The pipe first: there is no moment at which a signal goes nowhere.
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _ENDS}
    try:
        yield reader
    finally:
        for number, handler in handlers.items():
            # None is a handler that was not set from Python, and can't be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
