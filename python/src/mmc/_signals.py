"""Waiting for the signal that ends a program that serves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

_ENDS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ends_awaited() -> Iterator[Callable[[], None]]:
    """Inside, SIGINT and SIGTERM have no effect but to end the call that is given, now or later. On the main thread only; what handled them does so again
    afterwards.

    They arrive as bytes of a pipe. A handler in Python would run when the main thread comes to it: not while that waits, if the signal came the moment before.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wait() -> None:
        # Other signals that Python handles arrive there, too, and their handlers may raise.
        while os.read(reader, 1)[0] not in _ENDS:
            pass

    # The pipe first: there is no moment at which a signal goes nowhere.
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _ENDS}
    try:
        yield wait
    finally:
        for number, handler in handlers.items():
            # None is a handler that was not set from Python, and can't be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
