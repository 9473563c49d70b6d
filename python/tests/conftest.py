"""What every test may ask for: a store that is closed after it, and programs run as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import mmc

MIB = 1 << 20


@pytest.fixture
def store() -> Iterator[mmc.Store]:
    """A store of 32 MiB, empty, whose memory is all back in the end unless it was closed."""
    with mmc.Store(dram=32 * MIB) as store:
        yield store
        if not store.closed:
            store.remove_all()
            assert store.stats().reservations == store.stats().pins == 0


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests are not theirs."""
    for name in list(os.environ):
        if name.startswith("MMC_") and name != "MMC_LIBRARY":
            monkeypatch.delenv(name)


def run_program(text: str, *, code: int = 0, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own, with warnings as errors, to its end; it must exit with `code` and, for 0, write nothing to standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == code, done.stderr
    if code == 0:
        assert done.stderr == ""
    return done
