"""What is to be reached, and the table that says what was.

A target names a row of the run by some of its fields, and the ratio that the row must have. Everything else that was measured stands in
the JSON lines; the table has what a reader asks first.
"""

from __future__ import annotations

from typing import Any, Optional

Row = dict[str, Any]
KIB, MIB = 1 << 10, 1 << 20
AT_LEAST, AT_MOST = "at least", "at most"


class Target:
    def __init__(self, words: str, goal: Optional[float], fields: Row, way: str = AT_LEAST, field: str = "") -> None:
        self.words, self.goal, self.way = words, goal, way
        self.fields = {"contestant": "mmc", "via": "C", "batch": 1, "threads": 1, **fields}
        # Rows of speeds have their ratio there; other values may be held against a limit themselves.
        self.field = field or "speed_ratio"

    def find(self, rows: list[Row]) -> Optional[Row]:
        return next((row for row in rows if all(row.get(name) == value for name, value in self.fields.items())), None)

    def is_met(self, ratio: float) -> Optional[bool]:
        if self.goal is None:
            return None
        return ratio >= self.goal if self.way == AT_LEAST else ratio <= self.goal


def size_text(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def targets() -> list[Target]:
    peer, limit = {"role": "best peer"}, {"role": "limit", "against": "streaming copy"}
    all_of_them = [
        Target("exist hit, Zipf", 1.5, {"operation": "exist hit, Zipf", **peer}),
        Target("exist hit, each once", 1.5, {"operation": "exist hit, uniform", **peer}),
        Target("exist miss", 1.5, {"operation": "exist miss", **peer}),
        Target("remove, each once", None, {"operation": "remove, uniform", **peer}),
    ]
    for keys in ("Zipf", "uniform"):
        words = {"operation": f"exist hit, {keys}", "batch": 128, "role": "single calls"}
        all_of_them.append(Target(f"exist hit, {keys}, batch of 128", 3.0, words))
    for what in ("exist hit", "get"):
        for keys in ("Zipf", "uniform"):
            words = {"operation": f"{what}, {keys}", "threads": 2, "role": "a store each"}
            # Of gets nothing was said; they tell whether a count that threads share is what costs.
            goal = 0.95 if what == "exist hit" else None
            all_of_them.append(Target(f"{what}, {keys}, 2 threads on one store", goal, words))
    for what in ("put", "get"):
        all_of_them.append(Target(f"{what} 4 KiB", 1.5, {"operation": what, "bytes": 4 * KIB, **peer}))
    for size in (64 * KIB, 256 * KIB, MIB, 4 * MIB):
        for what in ("put", "get"):
            words = {"operation": what, "bytes": size, **limit}
            all_of_them.append(Target(f"{what} {size_text(size)}", 0.95, words))
    for size in (4 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB):
        words = {"operation": "put that evicts", "bytes": size, "role": "a put that need not"}
        all_of_them.append(Target(f"put that evicts, {size_text(size)}", 0.9, words))
    for sizes in ("equal sizes", "mixed sizes"):
        all_of_them.append(
            Target(f"allocate and free, {sizes}", 1.0, {"operation": f"allocate and free, {sizes}", **peer})
        )
        used = {"operation": f"space used under churn, {sizes}"}
        all_of_them.append(Target(f"space used under churn, {sizes}", 1.0, used, field="ratio"))
    return all_of_them + server_targets() + value_targets()


def server_targets() -> list[Target]:
    found = []
    for via, goal in (("C", 30.0), ("Python", 8.0)):
        for what in ("put", "get", "exist hit"):
            moved = 0 if what == "exist hit" else 4 * KIB
            words = {"operation": what, "bytes": moved, "via": via, "role": "best server"}
            found.append(Target(f"{what} 4 KiB, {in_words(via)}", goal, words))
    for what in ("put", "get", "exist hit"):
        moved = 0 if what == "exist hit" else 4 * KIB
        words = {"operation": what, "bytes": moved, "via": "Python", "batch": 128, "role": "best server"}
        found.append(Target(f"{what} 4 KiB, batch of 128, {in_words('Python')}", 4.0, words))
    for size in (MIB, 4 * MIB):
        for via in ("C", "Python"):
            for what in ("put", "get"):
                words = {"operation": what, "bytes": size, "via": via, "role": "best server"}
                found.append(Target(f"{what} {size_text(size)}, {in_words(via)}", 1.5, words))
    for what in ("put", "get"):
        words = {"operation": what, "bytes": 4 * KIB, "role": "best bare server"}
        found.append(Target(f"{what} 4 KiB, {in_words('C')}, no client library", None, words))
        words = {"operation": what, "bytes": 4 * KIB, "via": "Python", "role": "dict"}
        found.append(Target(f"{what} 4 KiB, {in_words('Python')}", None, words))
    return found


def value_targets() -> list[Target]:
    found = [
        Target(
            "bytes of memory an object, all in",
            256,
            {"operation": "memory an object beside its value"},
            AT_MOST,
            "value",
        ),
        Target(
            "p99.9 of get 64 KiB beside evictions",
            5,
            {"operation": "get beside evicting puts, p99.9"},
            AT_MOST,
            "ratio",
        ),
        Target(
            "the same of the bare copy: the machine",
            None,
            {"contestant": "streaming copy", "operation": "get beside evicting puts, p99.9"},
            AT_MOST,
            "ratio",
        ),
        Target(
            "tracepoint and counters, part of an exist",
            0.03,
            {"operation": "tracepoints and counters of exist"},
            AT_MOST,
            "ratio",
        ),
        Target(
            "the same, part of a get of 64 KiB",
            0.01,
            {"operation": "tracepoints and counters of get"},
            AT_MOST,
            "ratio",
        ),
        Target("get 64 KiB while scraped", 0.98, {"operation": "get while scraped"}),
        Target("exist while scraped", 0.98, {"operation": "exist while scraped"}),
    ]
    for what, batch in (("exist hit", 1), ("exist hit", 128), ("exist miss", 1), ("get", 1), ("put", 1), ("remove", 1)):
        words = {"operation": f"{what} among ten million", "batch": batch}
        of = f", batch of {batch}" if batch > 1 else ""
        # A call may take one and a half times what it takes among a million.
        found.append(Target(f"{what} among ten million{of}", round(1 / 1.5, 2), words))
    return found


def in_words(via: str) -> str:
    return "through Python" if via == "Python" else "in C"


def duration(nanoseconds: float) -> str:
    for unit, factor in (("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= factor:
            return f"{nanoseconds / factor:.2f} {unit}"
    return f"{nanoseconds:.0f} ns"


def table(rows: list[Row]) -> str:
    """The headline: what was asked for and measured. Rows that this run had none of are left out."""
    lines = [f"{'row':<46}{'mmc':>10}  {'beside':<34}{'ratio':>8}  {'target':>13}  met"]
    lines.append("-" * len(lines[0]))
    counts = {True: 0, False: 0}
    for target in targets():
        row = target.find(rows)
        if row is None:
            continue
        ratio = row[target.field]
        own = duration(row["ns"]) if "ns" in row else duration(row["value"]) if row.get("unit") == "ns" else ""
        own = own or (f"{row['value']:.0f}" if row["value"] > 10 else f"{row['value']:.3f}")
        is_met = target.is_met(ratio)
        if is_met is not None:
            counts[is_met] += 1
        goal = "" if target.goal is None else f"{'>=' if target.way == AT_LEAST else '<='} {target.goal:g}"
        beside = "" if target.field == "value" else beside_of(row)
        shown = f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"
        verdict = {True: "yes", False: "NO", None: ""}[is_met]
        lines.append(f"{target.words:<46}{own:>10}  {beside:<34}{shown:>8}  {goal:>13}  {verdict}")
    lines.append(f"{counts[True]} of {counts[True] + counts[False]} targets met")
    for row in rows:
        if "unavailable" in row:
            lines.append(f"not there: {row['contestant']}: {row['unavailable']}")
    return "\n".join(lines)


def beside_of(row: Row) -> str:
    """Whom the row's ratio is to, with what they took where that is a time."""
    against = str(row["against"]).removeprefix("mmc, ")
    if row["role"] == "single calls":
        against = "single calls"
    if row["role"] == "value":
        return against
    return f"{against}, {duration(row['ns'] * row['speed_ratio'])}"
