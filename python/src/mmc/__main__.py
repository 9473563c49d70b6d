"""`python -m mmc serve`: the owner of a host's pool as a program of its own.

It opens a store, shares it, and waits for SIGINT or SIGTERM. Engines attach to it, so the pool outlives each of them. Under systemd it is a service of
`Type=notify`: `examples/systemd/mmc.service`. The log goes to standard error. Exits with 0; with 2 for a setting that is wrong, and 1 when anything else
keeps it from serving, with the library's sentence about it.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import mmc
from mmc import _log, _settings, _signals

_logger = logging.getLogger("mmc")

_OK, _FAILED, _WRONG = 0, 1, 2


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a command line; the code to exit with."""
    options = _parser().parse_args(arguments)
    _logger.addHandler(_standard_error())
    _logger.propagate = False
    # How much is said is the library's to decide, as its settings say.
    _logger.setLevel(_log.TRACE)
    mmc.set_log_level("info")
    try:
        _serve(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return _WRONG
    except (mmc.Error, OSError) as error:
        print(error, file=sys.stderr)
        return _FAILED
    return _OK


def _serve(options: argparse.Namespace) -> None:
    # Each attached process has connections and a memfd of its own.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with _signals.ends_awaited() as wait, _open(options):
        _notify("READY=1")
        wait()
        _notify("STOPPING=1")


def _open(options: argparse.Namespace) -> mmc.Store:
    token = options.http_token_file
    return mmc.Store(
        options.dram,
        options.http,
        rank=options.rank,
        http_token=None if token is None else token.read_text(encoding="utf-8").strip(),
        config_path=options.config,
        log_level=options.log_level,
        prefault=options.prefault,
        numa_node=options.numa_node,
        eviction=options.eviction,
        ssd=options.ssd,
        ssd_size=options.ssd_size,
        state=options.state,
        share=options.share or _default_address(options.config),
        share_mode=options.share_mode,
        share_users=options.share_users,
        share_groups=options.share_groups,
        share_wait_ms=options.share_wait,
    )


def _default_address(config: Optional[Path]) -> Optional[str]:
    """Where to share without `--share`; None to leave it to the file of settings."""
    named = config or os.environ.get("MMC_CONFIG_PATH")
    try:
        # What is wrong with the file is the library's to say, when it reads it.
        if named and _settings.value_in(Path(named).read_bytes(), "mmc.share"):
            return None
    except OSError:
        return None
    directory = os.environ.get("XDG_RUNTIME_DIR")
    if not directory:
        raise mmc.InvalidParam("--share: must be given, as XDG_RUNTIME_DIR is not set: unix:/run/mmc/pool.sock, say")
    return f"unix:{directory}/mmc.sock"


def _notify(state: str) -> None:
    """Tells the service manager, if there is one, by systemd's protocol."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            # A name in the abstract namespace is written with an @ for its zero.
            notifier.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError as error:
            _logger.warning("NOTIFY_SOCKET = %s: %s was not sent: %s", address, state, error)


def _standard_error() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmc", description="mmc, a cache for the KV blocks of LLM engines.")
    parser.add_argument("--version", action="version", version=f"mmc {mmc.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="open a pool and share it with the processes of this host, until SIGINT or SIGTERM",
        description="Opens a pool and shares it with the processes of this host, until SIGINT or SIGTERM. Sizes are numbers of bytes or text such as 8GiB.",
    )
    add = serve.add_argument
    add("--dram", metavar="SIZE", default="", help="memory of the pool; 0: only what others bring (default 1GiB)")
    add(
        "--share", metavar="ADDRESS", help="where processes attach, unix:/path (default unix:$XDG_RUNTIME_DIR/mmc.sock)"
    )
    add("--share-mode", metavar="OCTAL", type=_octal, help="permission bits of the socket's file (default 600)")
    add("--share-users", metavar="IDS", type=_ids, help="numbers of users who may attach, too, with commas between")
    add("--share-groups", metavar="IDS", type=_ids, help="numbers of groups that may attach, with commas between")
    add(
        "--share-wait",
        metavar="SECONDS",
        type=_wait,
        help="how long the memory of a process that died waits for one that takes it over (default 60)",
    )
    add("--http", metavar="HOST:PORT", help="where the admin port listens (default off)")
    add("--http-token-file", metavar="FILE", type=Path, help="holds the token that its clients must show")
    add(
        "--ssd", metavar="FILE", type=Path, help="the file of an SSD segment, to which blocks move when memory is short"
    )
    add("--ssd-size", metavar="SIZE", help="its size")
    add("--state", metavar="DIRECTORY", type=Path, help="keeps what is on SSD over a restart")
    add("--config", metavar="FILE", type=Path, help="settings, key = value, for what is not given here")
    add("--rank", type=int, help="of the pool's own memory (default 0)")
    add("--prefault", action="store_true", default=None, help="touch all memory before serving")
    add("--numa-node", metavar="NODE", type=int, help="take memory from there first")
    add("--eviction", metavar="POLICY", help="adaptive (the default) or prefix")
    add("--log-level", metavar="LEVEL", help="off, error, warn, info (the default), debug or trace")
    return parser


def _octal(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = 0
    # The library takes 0 for unset.
    if mode <= 0:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 to 0777 octal")
    return mode


def _ids(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be numbers with commas between") from None


def _wait(text: str) -> int:
    """Milliseconds of seconds. The library takes 0 for unset."""
    try:
        return _settings.milliseconds("time", float(text)) or 1
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
