"""The library's log goes to `logging`, to the logger "mmc", at the level that this has when the package is imported.

`set_log_level` changes how much the library says, `set_logger` who hears it. `MMC_LOG_LEVEL` in the environment, and a store's own `log_level`, change the
level when a store is opened. Messages come on whichever thread they are about.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Optional, Union

from . import _native

#: Below `logging.DEBUG`.
TRACE = 5
_LEVELS = {2: logging.ERROR, 3: logging.WARNING, 4: logging.INFO, 5: logging.DEBUG, 6: TRACE}

_logger: Optional[logging.Logger] = None


def _write(_context: Any, level: int, line: bytes) -> None:
    logger = _logger
    try:
        if logger is not None:
            logger.log(_LEVELS.get(level, logging.INFO), "%s", line.decode("utf-8", "replace"))
    except Exception:
        # A handler that fails must not fail the library's call.
        sys.excepthook(*sys.exc_info())


_callback = _native.LOG_CALLBACK(_write)
_nobody = _native.LOG_CALLBACK(0)


def set_logger(logger: Optional[logging.Logger]) -> None:
    """Sends the library's log to `logger`; None: to standard error. For all stores of the process.

    Blocks until no other thread is in the old logger's handlers.
    """
    global _logger
    _logger = logger
    _native.check(_native.library.mmc_set_logger(_callback if logger is not None else _nobody, None))


def set_log_level(level: Union[int, str]) -> None:
    """How much the library says, for all stores of the process.

    `level`: "off", "error", "warn", "info", "debug", "trace", or a number of `logging`. Raises `ValueError` for another.
    """
    _native.check(_native.library.mmc_set_log_level(level_number(level)))


def level_number(level: Union[int, str]) -> int:
    """The library's number of a level."""
    if isinstance(level, str):
        name = {"warning": "warn", "critical": "error"}.get(level.lower(), level.lower())
        if name not in _native.LOG_LEVELS:
            raise ValueError(f"log level {level!r}: must be off, error, warn, info, debug or trace")
        return _native.LOG_LEVELS[name]
    if level > logging.CRITICAL:
        return _native.LOG_LEVELS["off"]
    return next(
        (number for number, threshold in _LEVELS.items() if level >= threshold),
        _native.LOG_LEVELS["trace"],
    )


def begin() -> None:
    """At import: the logger "mmc" hears what it is set to hear."""
    logger = logging.getLogger("mmc")
    set_logger(logger)
    set_log_level(logger.getEffectiveLevel())


def end() -> None:
    """At exit: no thread of the library comes into the interpreter any more."""
    _native.library.mmc_set_log_level(_native.LOG_LEVELS["off"])
    _native.library.mmc_set_logger(_nobody, None)
