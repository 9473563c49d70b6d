"""mmc and its peers in one run: installs and builds what is needed, measures, and says what was reached.

    make bench-peers                                   the whole run, under ten minutes
    python3 benches/peers/run.py --quick               a look, under two minutes
    python3 benches/peers/run.py --only "exist hit"    some operations
    python3 benches/peers/run.py --full                ten million objects as well

It writes one JSON line a row to build/peers/peers.jsonl, the headline table to standard output, and the plot: to benches/peers.svg after a whole
run, beside the rows after another. What a peer needs comes from apt-get, PyPI and crates.io; a peer that can't be had is a row that says
why, and the others are measured. Times of the installation and the build are not counted to the run's.
"""

from __future__ import annotations

import argparse
import ctypes.util
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

import headline
import plot
from servers import NotThereError, Servers, end_with_the_parent, leave_the_network, servers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "peers"
PYTHON = BUILD / "venv" / "bin" / "python"
# What a peer's client is, by the peer; the newest that these names gave when the run was written, so that figures can be made again.
PACKAGES = {
    "redis": ["redis==8.1.0", "hiredis==3.5.0"],
    "memcached": ["pymemcache==4.0.0"],
    "mooncake": ["mooncake-transfer-engine-non-cuda==0.3.13.post1"],
}
PROGRAMS = {"redis": "redis-server", "memcached": "memcached"}

Row = dict[str, Any]


def say(words: str) -> None:
    print(f"peers: {words}", file=sys.stderr, flush=True)


def command(words: list[Any], **more: Any) -> None:
    subprocess.run([str(word) for word in words], check=True, cwd=ROOT, stdout=sys.stderr, **more)


class Run:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows: list[Row] = []
        self.missing: dict[str, str] = {}
        self.has_failed = False

    def leave_out(self, peer: str, reason: str) -> None:
        say(f"{peer} is left out: {reason}")
        self.missing[peer] = reason
        self.rows.append({"contestant": peer, "unavailable": reason})

    # Before anything is measured

    def prepare(self) -> Path:
        """Installs and builds; returns the Rust half."""
        BUILD.mkdir(parents=True, exist_ok=True)
        self.install_programs()
        self.install_packages()
        say("building the in-process half")
        target = BUILD / "target"
        words = [
            "cargo",
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            HERE / "Cargo.toml",
            "--target-dir",
            target,
        ]
        command(words)
        return target / "release" / "peers"

    def install_programs(self) -> None:
        command(["bash", "tests/setup.sh", "venv"])
        for peer, program in PROGRAMS.items():
            self.setup(peer, program)
        # A library of RDMA verbs that Mooncake's programs are linked to, whether they use it or not.
        if ctypes.util.find_library("ibverbs") is None:
            self.setup("mooncake", "libibverbs1")

    def setup(self, peer: str, package: str) -> None:
        # With this, Debian's scripts don't start a service of their own where there is no systemd.
        environment = {**os.environ, "RUNLEVEL": "1"}
        try:
            command(["bash", "tests/setup.sh", package], env=environment)
        except subprocess.CalledProcessError:
            self.leave_out(peer, f"{package} can't be installed")

    def install_packages(self) -> None:
        say("the wheel and the clients")
        if not PYTHON.exists():
            command([sys.executable, "-m", "venv", BUILD / "venv"])
        command(["make", "--no-print-directory", "wheel"])
        wheels = sorted((ROOT / "build" / "wheel").glob("mmc-*.whl"), key=lambda path: path.stat().st_mtime)
        self.pip(["--force-reinstall", "--no-deps", wheels[-1]])
        for peer, packages in PACKAGES.items():
            if peer in self.missing:
                continue
            try:
                self.pip(packages)
            except subprocess.CalledProcessError:
                self.leave_out(peer, f"{' '.join(packages)} can't be installed for Python {platform.python_version()}")

    def pip(self, words: list[Any]) -> None:
        command([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words])

    # Measuring

    def measure(self, native: Path) -> None:
        if not leave_the_network() and "mooncake" not in self.missing:
            self.leave_out("mooncake", "it listens on every interface, and there is no network namespace here")
        pool = self.pool()
        self.rows.append({**machine(), "pool": pool, "quick": self.options.quick})
        shared = ["--pool", pool, "--only", self.options.only]
        shared += ["--quick"] if self.options.quick else []
        shared += ["--rounds", self.options.rounds] if self.options.rounds else []
        self.collect("the in-process half", [native, *shared, *(["--full"] if self.options.full else [])])
        # Servers only now, so that none is a load while the process is alone.
        with tempfile.TemporaryDirectory(prefix="mmc-peers-") as directory, servers(Path(directory), pool) as running:
            given = self.start(running)
            log = Path(directory) / "python.log"
            words = [PYTHON, HERE / "python_peers.py", "--native", native, "--log", log, *given, *shared]
            self.collect("the half through Python", words, log)

    def pool(self) -> int:
        """Bytes of every pool: what was asked for, or what the machine has room for when all of them are full."""
        pool: int = self.options.pool or ((512 << 20) if self.options.quick else (2 << 30))
        fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        available = next(int(words[1]) << 10 for words in fields if words[0] == "MemAvailable:")
        while pool * 5 > available and pool > 512 << 20:
            pool //= 2
            say(f"too little memory: pools of {pool >> 20} MiB")
        return pool

    def start(self, running: Servers) -> list[str]:
        """Starts the servers that can be, and returns where they are."""
        starters = {
            "redis": running.redis,
            "memcached": running.memcached,
            "mooncake": lambda: running.mooncake(PYTHON),
        }
        given = []
        for peer, starter in starters.items():
            if peer in self.missing:
                continue
            try:
                given += [f"--{peer}", starter()]
            except NotThereError as reason:
                self.leave_out(peer, str(reason))
        return given

    def collect(self, half: str, words: list[Any], log: Optional[Path] = None) -> None:
        """Runs one half and takes its rows."""
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_the_parent,  # noqa: PLW1509  # there are no threads here
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                self.rows.append(json.loads(line))
            if process.wait() != 0:
                # What it had measured until then is shown all the same.
                said = (
                    " ".join(log.read_text(errors="replace").split()[-60:])
                    if log and log.exists()
                    else "as it says above"
                )
                self.rows.append({"contestant": half, "unavailable": f"it failed: {said}"})
                self.has_failed = True
        finally:
            process.kill()
            process.wait()

    # After it

    def write(self) -> None:
        out: Path = self.options.out
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        is_whole = not (self.options.quick or self.options.only)
        picture: Path = self.options.plot or (HERE.parent / "peers.svg" if is_whole else out.with_suffix(".svg"))
        about = next(row for row in self.rows if "machine" in row)
        picture.write_text(plot.draw(self.rows, about))
        print(f"{about['machine']}, {about['date']}\n")
        print(headline.table(self.rows))
        say(f"rows in {out}, plot in {picture}")


def machine() -> Row:
    """What the figures were measured on."""
    fields = dict.fromkeys(("model name", "MemTotal"), "")
    for path in ("/proc/cpuinfo", "/proc/meminfo"):
        for line in Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in fields:
                fields[name.strip()] = fields[name.strip()] or value.strip()
    memory = int(fields["MemTotal"].split()[0]) / (1 << 20)
    model = " ".join(fields["model name"].split()) or platform.machine()
    name = f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"
    return {"machine": name, "date": datetime.date.today().isoformat(), "python": platform.python_version()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look: fewer rounds, sizes and objects")
    parser.add_argument("--full", action="store_true", help="ten million objects as well; takes 6 GiB more")
    parser.add_argument("--only", default="", help='operations that contain this text, such as "exist hit"')
    parser.add_argument("--rounds", type=int, default=0, help="rounds that count (5, quick 3)")
    parser.add_argument("--pool", type=int, default=0, help="bytes of every pool (2 GiB, quick 512 MiB)")
    parser.add_argument("--out", type=Path, default=BUILD / "peers.jsonl", help="where the rows go")
    parser.add_argument("--plot", type=Path, help="where the plot goes")
    options = parser.parse_args()
    if shutil.which("cargo") is None:
        os.environ["PATH"] += f":{Path.home() / '.cargo' / 'bin'}"
    # A server must not outlive a run that is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(options)
    native = run.prepare()
    begin = time.monotonic()
    run.measure(native)
    run.write()
    say(f"measured for {time.monotonic() - begin:.0f} s")
    return 1 if run.has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
