"""Counts the instructions that calls of the library take, and compares them with those that are committed.

    tests/run.sh instructions      compare; a step of `make test`
    make instructions              renew the file that is compared with

A benchmark's time depends on what else the machine does; how many instructions a call takes does not. So a change of a few percent, which
no clock would show on a shared machine, is seen at once. Each row of calls.c is an average over thousands of keys, a number of instructions
a key, from run to run the same within 0.5 %. More than 5 % from the committed number fails, in either direction: a gain that is not
committed could be lost again unseen.

The numbers belong to a processor's instructions: with wider vectors a copy takes fewer. There is one file for each, named as calls.c names
the processor, and where there is none the comparison fails. Callgrind shows no AVX-512, so with it they are those of AVX2. They also
belong to a compiler and a C library, which each file names. And instructions are not time: one that waits for memory takes as long as a
hundred that do not. For time there is `cargo bench`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "instructions"
LIMIT_PERCENT = 5.0
HEAD = "# Instructions a key of each row of calls.c on {processor}. `make instructions` renews this.\n# made with {tools}\n"
FAR = """
A row is more than {limit:.0f} % away from {baseline}, or in one of both only. If it takes more than it should, mend it.
If it is a gain, or a price worth paying, renew the baseline with `make instructions` and commit it with what has changed it:
a gain that is not in the baseline could be lost again unseen."""


class Row:
    """What was counted for one row, and the file in which callgrind says for which function and line."""

    def __init__(self, dump: Path) -> None:
        text = dump.read_text()
        title = re.search(r"^desc: Trigger: Client Request: (\d+) keys, (.+)$", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
        if title is None or total is None or int(total[1]) == 0:
            sys.exit(f"callgrind counted nothing in {dump}")
        self.dump, self.name = dump, title[2]
        self.instructions = int(total[1]) / int(title[1])


def count() -> tuple[str, dict[str, Row]]:
    """Runs calls.c: the processor that it saw, and its rows."""
    for old in BUILD.glob("counts*"):
        old.unlink()
    words = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={BUILD / 'counts'}"]
    # Counted is what calls.c asks for, and of that what happens inside of the library.
    words += ["--instr-atstart=no", "--collect-atstart=no", "--toggle-collect=mmc_*", str(BUILD / "calls")]
    # Settings of whoever runs this are not the store's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMC_")}
    processor = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.strip()
    dumps = sorted(BUILD.glob("counts.*"), key=lambda dump: int(dump.suffix[1:]))
    return processor, {row.name: row for row in map(Row, dumps)}


def tools() -> str:
    """What the numbers depend on beside the code."""
    versions = [subprocess.check_output([tool, "--version"], text=True).strip() for tool in ("rustc", "valgrind")]
    return ", ".join([*versions, str(os.confstr("CS_GNU_LIBC_VERSION"))])


def committed(baseline: Path) -> tuple[str, dict[str, float]]:
    """What a file was made with, and its numbers."""
    lines = baseline.read_text().splitlines()
    made_with = next(line for line in lines if line.startswith("# made with ")).removeprefix("# made with ")
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return made_with, {name: float(instructions) for name, instructions in rows}


def compare(old: dict[str, float], new: dict[str, Row]) -> bool:
    """Prints both side by side; whether they agree."""
    agree = True
    print(f"{'instructions a key':<40} {'baseline':>10} {'now':>10} {'change':>10}")
    for name in dict.fromkeys([*old, *new]):
        before, row = old.get(name), new.get(name)
        if before is None or row is None:
            print(f"{name:<40} {'is new' if row else 'is not counted any more'}")
            agree = False
            continue
        percent = (row.instructions / before - 1) * 100
        is_far = abs(percent) > LIMIT_PERCENT
        remark = f"  <- callgrind_annotate {row.dump.relative_to(ROOT)}" if is_far else ""
        print(f"{name:<40} {before:10.1f} {row.instructions:10.1f} {round(percent, 1) + 0.0:+8.1f} %{remark}")
        agree = agree and not is_far
    return agree


def renew(baseline: Path, processor: str, rows: dict[str, Row]) -> None:
    lines = [f"{name}\t{row.instructions:.1f}\n" for name, row in rows.items()]
    baseline.write_text(HEAD.format(processor=processor, tools=tools()) + "".join(lines))
    print(f"renewed {baseline.relative_to(ROOT)}")


def main() -> Optional[str]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--renew", action="store_true", help="write the numbers to the file instead of failing")
    options = parser.parse_args()
    processor, rows = count()
    baseline = HERE / f"{processor}.tsv"
    if not baseline.exists() and not options.renew:
        there = ", ".join(sorted(file.stem for file in HERE.glob("*.tsv")))
        return f"There are no numbers for a processor of {processor}, only for: {there}. `make instructions` adds them."
    agree, made_with = True, tools()
    if baseline.exists():
        made_with, old = committed(baseline)
        agree = compare(old, rows)
    if options.renew:
        renew(baseline, processor, rows)
    elif not agree:
        if made_with != tools():
            print(f"\nIt may be the tools.\n  baseline: {made_with}\n  now:      {tools()}")
        return FAR.format(limit=LIMIT_PERCENT, baseline=baseline.relative_to(ROOT))
    return None


if __name__ == "__main__":
    sys.exit(main())
