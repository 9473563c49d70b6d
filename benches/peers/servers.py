"""The servers of a run: started when they are needed, on sockets of a temporary directory, and stopped whatever happens.

Nothing of a run can be reached from another machine. Redis and memcached listen on Unix sockets. Mooncake Store has none, and its client
listens on every interface; so the whole run goes into a network namespace of its own, which has a loopback and nothing else, and where
the kernel gives none, Mooncake Store is left out. A server also ends with the process that started it, should that be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
SECONDS_TO_START = 20.0

libc = ctypes.CDLL(None, use_errno=True)


class NotThereError(Exception):
    """A peer that can't be had, and why."""


def leave_the_network() -> bool:
    """Moves this process, and all that it will start, to a network of its own; False where that can't be."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return True


def end_with_the_parent() -> None:
    """In a child that is about to become another program: no run may leave one behind, however it ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(family: int, address: object) -> bool:
    with contextlib.closing(socket.socket(family)) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0  # type: ignore[arg-type]


class Servers:
    """All servers of a run, and why others are not among them."""

    def __init__(self, directory: Path, pool: int) -> None:
        self.directory, self.pool = directory, pool
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str], is_up: Callable[[], bool]) -> None:
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_the_parent,  # noqa: PLW1509  # there are no threads here
            )
        self.processes.append(process)
        end = time.monotonic() + SECONDS_TO_START
        while not is_up():
            if process.poll() is not None or time.monotonic() > end:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise NotThereError(f"{name} did not start: {' '.join(last) or 'it says nothing'}")
            time.sleep(0.02)

    def redis(self) -> str:
        path = self.socket("redis")
        command = [found("redis-server"), "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"]
        command += ["--maxmemory", str(self.pool), "--maxmemory-policy", "allkeys-lru", "--dir", str(self.directory)]
        self.start("redis", command, lambda: answers(socket.AF_UNIX, path))
        return path

    def memcached(self) -> str:
        path = self.socket("memcached")
        # Values of 4 MiB are above its default limit, and a little more comes with each.
        command = [found("memcached"), "-s", path, "-m", str(self.pool >> 20), "-I", "8m"]
        command += ["-u", pwd.getpwuid(os.getuid()).pw_name]  # it refuses to be root without being told so
        self.start("memcached", command, lambda: answers(socket.AF_UNIX, path))
        return path

    def mooncake(self, python: Path) -> str:
        port = free_port()
        master = subprocess.run(
            [python, "-c", "import mooncake, os; print(os.path.dirname(mooncake.__file__))"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        command = [f"{master}/mooncake_master", f"--rpc_port={port}", "--rpc_address=127.0.0.1"]
        command += ["--metrics_host=127.0.0.1", f"--metrics_port={free_port()}", "--logtostderr"]
        if not Path(command[0]).exists():
            raise NotThereError("mooncake_master is not in its package")
        self.start("mooncake_master", command, lambda: answers(socket.AF_INET, ("127.0.0.1", port)))
        return f"127.0.0.1:{port}"

    def socket(self, name: str) -> str:
        return str(self.directory / f"{name}.sock")

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def found(program: str) -> str:
    path: Optional[str] = shutil.which(program)
    if path is None:
        raise NotThereError(f"{program} is not installed")
    return path


@contextlib.contextmanager
def servers(directory: Path, pool: int) -> Iterator[Servers]:
    running = Servers(directory, pool)
    try:
        yield running
    finally:
        running.stop()
