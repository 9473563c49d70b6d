"""Owners and workers as processes of their own, which tests talk to and kill."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybrid_support import http_get


class Served:
    """`python -m mmc serve` in a process of its own, and what it tells a service manager."""

    def __init__(self, directory: Path, *arguments: str, environment: dict[str, str]) -> None:
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(directory / f"notify-{os.urandom(4).hex()}"))
        self._notified.settimeout(30)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "mmc", "serve", *arguments],
            env={**os.environ, "NOTIFY_SOCKET": self._notified.getsockname(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def notified(self) -> str:
        """The next thing that it tells."""
        return self._notified.recv(4096).decode()

    def ended(self) -> tuple[int, str]:
        """How it has ended, and what it wrote to standard error."""
        output, errors = self.process.communicate(timeout=30)
        assert output == ""
        return self.process.returncode, errors

    def forget(self) -> None:
        self._notified.close()
        self.process.kill()
        self.process.communicate()


@contextmanager
def serving(directory: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    """An owner that is ready."""
    served = Served(directory, *arguments, environment=environment)
    try:
        assert served.notified() == "READY=1", served.ended()
        yield served
    finally:
        served.forget()


class Worker:
    """A process that evaluates what it is told, with an instance `store` of the drop-in."""

    PROGRAM = """
import ctypes, logging, os, sys
from memcache_hybrid import *

class Said(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []
    def emit(self, record):
        self.lines.append((record.levelname, record.getMessage()))

def copies(count, *ranks):
    config = ReplicateConfig()
    config.replicaNum, config.preferredLocalServiceIDs = count, list(ranks)
    return config

def write(address, content):
    data = ctypes.create_string_buffer(content, len(content))
    return store.batch_copy([address], [ctypes.addressof(data)], [len(content)], H2G)

said = Said()
logging.getLogger("memcache_hybrid").addHandler(said)
logging.getLogger("memcache_hybrid").setLevel(logging.DEBUG)
store = DistributedObjectStore()
config = LocalConfig()
config.log_level = "error"
config.dram_size = "4MB"
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
"""

    def __init__(self, init: str = "store.init(0)", **settings: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", self.PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for name, value in settings.items():
            self.ask(f"setattr(config, {name!r}, {value!r})")
        assert self.ask("store.setup(config)") == 0
        self.begun = self.ask(init)

    def ask(self, expression: str) -> Any:
        """What an expression is there."""
        self.begin(expression)
        return self.answer()

    def begin(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return ast.literal_eval(self.process.stdout.readline())

    def said(self) -> list[tuple[str, str]]:
        """What the drop-in has logged there: level and text."""
        lines: list[tuple[str, str]] = self.ask("said.lines")
        return lines

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """It ends by itself."""
        self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def workers(count: int = 1, init: str = "store.init(0)", **settings: Any) -> Iterator[list[Worker]]:
    begun: list[Worker] = []
    try:
        for _ in range(count):
            begun.append(Worker(init, **settings))
        yield begun
    finally:
        for worker in begun:
            worker.kill()


_PROLOGUE = """
import signal, sys, threading
from memcache_hybrid import DistributedObjectStore, LocalConfig, MetaConfig, MetaService

def meta_config(port):
    config = MetaConfig()
    config.metrics_url = f"http://127.0.0.1:{port}"
    config.log_level = "error"
    return config

"""


class Program:
    """A program with the drop-in in a process of its own."""

    def __init__(self, text: str, *arguments: Any) -> None:
        command = [sys.executable, "-W", "error", "-c", _PROLOGUE + text, *map(str, arguments)]
        # Without a buffer, so that reading a line takes nothing of the next.
        self.process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def line(self) -> str:
        """The next line that it writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def output(self, text: str = "") -> str:
        """What it writes from here on when it is given a text, until it has ended as it should."""
        output, errors = self.process.communicate(text.encode(), timeout=30)
        assert (self.process.returncode, errors.decode()) == (0, "")
        return output.decode()


@contextmanager
def running(text: str, *arguments: Any) -> Iterator[Program]:
    program = Program(text, *arguments)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
            print(*program.process.communicate())


def is_healthy(port: int) -> bool:
    try:
        return http_get(f"127.0.0.1:{port}", "/health") == (200, "OK")
    except ConnectionError:
        return False
