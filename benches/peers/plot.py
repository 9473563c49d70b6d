"""The run as one picture: a row an operation, a dot a contestant, further left is faster.

Times are on a logarithmic scale, from tens of nanoseconds for a look-up in the process to milliseconds for a megabyte through a server. Plain
text goes in and an SVG comes out; nothing but Python is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any, Optional

from headline import KIB, MIB, duration, size_text

Row = dict[str, Any]
WIDTH, LEFT, RIGHT, TOP, STEP = 1180, 250, 220, 128, 26
COLOURS = {
    "mmc": "#c2185b",
    "quick_cache": "#1f77b4",
    "papaya": "#2ca02c",
    "dashmap": "#17a2a2",
    "foyer": "#8c6d31",
    "moka": "#9467bd",
    "dict": "#666666",
    "redis": "#ff7f0e",
    "memcached": "#bcbd22",
    "mooncake": "#3f51b5",
    "streaming copy": "#bbbbbb",
}
"""Contestants that are drawn, in the order of the legend."""


class Group:
    """Rows of one way to call, and whom mmc is held against in them."""

    def __init__(self, title: str, via: str, role: str, against: str, entries: list[tuple[str, Row]]) -> None:
        self.title, self.role, self.against = title, role, against
        self.entries: list[tuple[str, Row]] = [
            (label, {"via": via, "batch": 1, "threads": 1, **fields}) for label, fields in entries
        ]


def groups() -> list[Group]:
    inside: list[tuple[str, Row]] = [
        ("exist hit, Zipf", {"operation": "exist hit, Zipf"}),
        ("exist miss", {"operation": "exist miss"}),
        ("remove", {"operation": "remove, uniform"}),
    ]
    for size in (4 * KIB, 64 * KIB, MIB):
        inside += [(f"{what} {size_text(size)}", {"operation": what, "bytes": size}) for what in ("put", "get")]
    for size in (4 * KIB, 64 * KIB):
        inside.append((f"put that evicts, {size_text(size)}", {"operation": "put that evicts", "bytes": size}))
    outside: list[tuple[str, Row]] = [("exist hit", {"operation": "exist hit"})]
    for size in (4 * KIB, MIB, 4 * MIB):
        outside += [(f"{what} {size_text(size)}", {"operation": what, "bytes": size}) for what in ("put", "get")]
    for what in ("put", "get"):
        outside.append((f"{what} 4 KiB, one of a batch of 128", {"operation": what, "bytes": 4 * KIB, "batch": 128}))
    return [
        Group("in the process, called from C or Rust", "C", "best peer", "the best peer", inside),
        Group("through Python", "Python", "best server", "the best server", outside),
    ]


def has(row: Row, fields: Row) -> bool:
    return all(row.get(name) == value for name, value in fields.items())


def times(rows: list[Row], fields: Row) -> dict[str, float]:
    """Nanoseconds of every contestant that did this."""
    found: dict[str, float] = {}
    for row in rows:
        if row.get("contestant") in COLOURS and "ns" in row and has(row, fields):
            found.setdefault(row["contestant"], row["ns"])
    return found


def ratio_of(rows: list[Row], fields: Row, role: str) -> Optional[float]:
    """How many times as fast mmc was as who has this role."""
    wanted = {"contestant": "mmc", "role": role, **fields}
    return next((row["speed_ratio"] for row in rows if has(row, wanted)), None)


def draw(rows: list[Row], machine: Row) -> str:
    """An SVG of the rows of a run."""
    drawn = [
        (group, [(label, fields, found) for label, fields in group.entries if len(found := times(rows, fields)) > 1])
        for group in groups()
    ]
    everything = [time for _, entries in drawn for *_, found in entries for time in found.values()] or [1.0]
    low, high = math.floor(math.log10(min(everything))), math.ceil(math.log10(max(everything)))
    high = max(high, low + 1)

    def x_of(nanoseconds: float) -> float:
        return LEFT + (math.log10(nanoseconds) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts: list[str] = []
    y = TOP
    for group, entries in drawn:
        if not entries:
            continue
        parts.append(text(20, y + 6, group.title, weight="bold"))
        parts.append(text(WIDTH - RIGHT + 30, y + 6, f"mmc against {group.against}", colour="#555555"))
        y += STEP
        for label, fields, found in entries:
            parts += line_of(label, found, ratio_of(rows, fields, group.role), y, x_of)
            y += STEP
        y += STEP // 2
    bottom = y - STEP // 2
    grid = []
    for power in range(low, high + 1):
        x = x_of(10**power)
        grid.append(f'<line x1="{x:.1f}" y1="{TOP - 12}" x2="{x:.1f}" y2="{bottom}" stroke="#dddddd"/>')
        grid.append(text(x, TOP - 18, tick(10**power), anchor="middle", colour="#555555"))
    head = [
        text(
            20,
            30,
            "mmc beside what its users would take instead: time of one object, left is faster",
            size=18,
            weight="bold",
        ),
        text(20, 52, f"{machine.get('machine', '')}; {machine.get('date', '')}; `make bench-peers`", colour="#555555"),
        *legend(),
    ]
    size = f'width="{WIDTH}" height="{bottom + 20}" viewBox="0 0 {WIDTH} {bottom + 20}"'
    style = 'font-family="sans-serif" font-size="13"'
    ground = f'<rect width="{WIDTH}" height="{bottom + 20}" fill="white"/>'
    body = "\n".join([ground, *head, *grid, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def line_of(
    label: str, found: dict[str, float], ratio: Optional[float], y: float, x_of: Callable[[float], float]
) -> list[str]:
    parts = [text(LEFT - 14, y + 4, label, anchor="end")]
    ends = x_of(min(found.values())), x_of(max(found.values()))
    parts.append(f'<line x1="{ends[0]:.1f}" y1="{y}" x2="{ends[1]:.1f}" y2="{y}" stroke="#cccccc"/>')
    # mmc is drawn last, over the others.
    for name in sorted(found, key=lambda name: name == "mmc"):
        radius = 7 if name == "mmc" else 5
        about = escape(f"{name}: {duration(found[name])}")
        circle = f'<circle cx="{x_of(found[name]):.1f}" cy="{y}" r="{radius}" fill="{COLOURS[name]}"'
        parts.append(f'{circle} stroke="white"><title>{about}</title></circle>')
    if ratio is not None:
        colour = "#1b7f3b" if ratio >= 1 else "#b00020"
        parts.append(text(WIDTH - RIGHT + 30, y + 4, f"{ratio:.3g} times", weight="bold", colour=colour))
    return parts


def legend() -> list[str]:
    parts, x = [], 20.0
    for name, colour in COLOURS.items():
        parts.append(f'<circle cx="{x + 6}" cy="76" r="6" fill="{colour}"/>')
        parts.append(text(x + 16, 80, name))
        x += 34 + 7.6 * len(name)
    return parts


def tick(nanoseconds: int) -> str:
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= factor:
            return f"{nanoseconds // factor} {unit}"
    return f"{nanoseconds} ns"


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: str = "normal",
    colour: str = "#222222",
) -> str:
    how = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {how}>{escape(words)}</text>'
