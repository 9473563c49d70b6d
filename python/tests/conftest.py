"""What every test may ask for: a store that is closed after it, and programs run as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmc

MIB = 1 << 20


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory for sockets, whose paths have to be short."""
    with tempfile.TemporaryDirectory(prefix="mmc-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture(params=["own", pytest.param("attached", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, sockets: Path) -> Iterator[mmc.Store]:
    """A store of 32 MiB, empty, whose memory is all back in the end unless it was closed: of its own, and once more attached to one that another shares."""
    attaches = request.param == "attached"
    with mmc.Store(dram=32 * MIB, share=f"unix:{sockets}/pool" if attaches else None) as own:
        with mmc.Store.attach(f"unix:{sockets}/pool", rank=0) if attaches else own as store:
            yield store
            if not store.closed:
                store.remove_all()
                assert store.stats().reservations == store.stats().pins == 0


#: For what is otherwise when a store is attached: it hears no events, brings only DRAM that the owner maps, and is not the process's alone.
own_only = pytest.mark.parametrize("store", ["own"], indirect=True)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, sockets: Path) -> None:
    """Settings of whoever runs the tests are not theirs, nor is the owner that this host may have."""
    for name in list(os.environ):
        if name.startswith("MMC_") and name != "MMC_LIBRARY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("MMC_SHARE", f"unix:{sockets}/s")


def run_program(text: str, *, code: int = 0, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own, with warnings as errors, to its end; it must exit with `code` and, for 0, write nothing to standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == code, done.stderr
    if code == 0:
        assert done.stderr == ""
    return done
