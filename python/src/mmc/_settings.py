"""How a store is opened: Python's settings, and text in the form of a settings file, as the library's `mmc_config`."""

from __future__ import annotations

import ctypes
import math
import operator
import re
import sys
from collections.abc import Iterable
from typing import Any, Callable, Optional, Union

from . import _native
from ._errors import InvalidParam

#: A year: longer than anybody waits, and short enough for every clock.
_MAX_SECONDS = 365 * 24 * 3600


def new_config() -> _native.Config:
    """A config in which nothing is set."""
    config = _native.Config()
    _native.check(_native.library.mmc_config_init_sized(ctypes.byref(config), ctypes.sizeof(config)))
    return config


def parse(name: str, text: bytes, config: _native.Config) -> None:
    """Fills what is unset in `config` and set in `text`, which has the form of a settings file; messages call it `name`.

    The library checks the text and logs what there is to tell about it. Raises `InvalidParam` with name, line and key.
    """
    # Its strings are no longer than the text, but for the host that a bare port gets, and their ends.
    strings = ctypes.create_string_buffer(len(text) + 64)
    _native.check(
        _native.library.mmc_config_parse(
            name.encode("utf-8", "replace"), text, len(text), ctypes.byref(config), strings, len(strings), None
        )
    )
    # The config points there.
    config.strings = [*getattr(config, "strings", []), strings]


def size_of(name: str, size: Union[int, str]) -> int:
    """Bytes of a size: a number, or text as in a settings file: "134217728", "200mb", "2.5GB", "4GiB".

    Units are powers of 1024; text is rounded up to a multiple of 4096 bytes. Raises `InvalidParam` for other text.
    """
    if not isinstance(size, str):
        return size
    config = new_config()
    parse(name, f"mmc.dram_size = {size}".encode(), config)
    return 0 if config.dram_size == _native.NO_DRAM else int(config.dram_size)


def clock_of(clock: Callable[[], int]) -> Any:
    """A clock in Python as a callback of the library. What it raises goes to `sys.excepthook`, and time stands still for that call."""
    latest = 0

    def tell(_user_data: Any) -> int:
        nonlocal latest
        try:
            now = int(clock())
            if not 0 <= now < 2**64:
                raise ValueError(f"clock: {now} nanoseconds: must be 0 to 2**64 - 1")
            latest = now
        except BaseException:
            sys.excepthook(*sys.exc_info())
        return latest

    return _native.CLOCK_CALLBACK(tell)


def switch(value: Optional[bool]) -> int:
    """A switch of the library: unset, off or on."""
    return 0 if value is None else _native.ON if value else _native.OFF


def numbers(values: Iterable[int]) -> bytes:
    """Numbers as a text of the library, with commas between them."""
    return ",".join(str(operator.index(value)) for value in values).encode()


def milliseconds(name: str, seconds: float) -> int:
    """Whole milliseconds of a time in seconds, rounded up. Raises `InvalidParam` for a time that is none."""
    if not 0 <= seconds <= _MAX_SECONDS:
        raise InvalidParam(f"{name} {seconds}: must be 0 to {_MAX_SECONDS} seconds")
    return math.ceil(seconds * 1000)


def value_in(text: bytes, key: str) -> Optional[str]:
    """What a settings file says of a key, for keys that the library checks and leaves to others; None when it says nothing.

    Lines are split as the library does it (`src/config/file.rs`), and one that it would refuse is passed over: the last of a key counts.
    """
    value = None
    for line in text.decode("utf-8-sig", "replace").split("\n"):
        name, equals, rest = re.split(r"(?:^|(?<=[ \t\r\f]))#", line, maxsplit=1)[0].partition("=")
        if equals and name.strip() == key:
            value = rest.strip()
    return value
