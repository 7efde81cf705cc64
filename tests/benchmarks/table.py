"""The table of ratios that a run of the benchmarks ends with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bars import BARS, KNOWN_LIMITS

Report = Callable[..., None]  # takes `rows` and `growths` into the table


@dataclass(frozen=True, kw_only=True)
class Row:
    """One competitor of one workload: `ours` and `theirs` in `unit`, and how many times better we are, each round."""

    workload: str
    device: str
    against: str
    ours: float
    theirs: float
    ratios: Sequence[float]
    unit: str = "s"
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Where the row's bar stands in BARS."""
        return self.device, self.workload, self.against

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        """`met` or `missed`, `missed (known limit)` where KNOWN_LIMITS has a reason, empty without a bar."""
        bar = BARS.get(self.key)
        if bar is None:
            return ""
        if self.ratio >= bar:
            return "met"
        return "missed (known limit)" if self.key in KNOWN_LIMITS else "missed"

    def record(self) -> dict[str, Any]:
        """What goes into the JSON file."""
        own = {"ratio": self.ratio, "bar": BARS.get(self.key), "verdict": self.verdict}
        limit = KNOWN_LIMITS.get(self.key) if self.verdict.startswith("missed") else None
        return dataclasses.asdict(self) | {"ratios": list(self.ratios)} | own | {"known_limit": limit}


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Seconds of ours at several sizes of one thing, all else the same."""

    of: str
    setting: str
    sizes: Sequence[int]
    seconds: Sequence[float]

    @property
    def slope(self) -> float:
        """The exponent k of the fit seconds ~ size**k, by least squares between logarithms."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])

    def record(self) -> dict[str, Any]:
        """What goes into the JSON file."""
        return dataclasses.asdict(self) | {"slope": self.slope}


@dataclass
class Table:
    """What all benchmarks of a run have found."""

    rows: list[Row] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The table as text."""
        notes: list[str] = []
        if self.rows:
            heads = ("workload", "on", "against", "ours", "theirs", "ratio", "rounds", "bar", "")
            cells = [heads, *(_cells(row, notes) for row in self.rows)]
            widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
            for line in cells:
                yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            yield from (f"[{number}] {note}" for number, note in enumerate(notes, 1))
        for growth in self.growths:
            yield ""
            yield f"growth with {growth.of} ({growth.setting}): seconds ~ {growth.of}**{growth.slope:.2f}"
            pairs = zip(growth.sizes, growth.seconds, strict=True)
            yield "  " + "   ".join(f"{size}: {seconds:.3g} s" for size, seconds in pairs)


def _cells(row: Row, notes: list[str]) -> tuple[str, ...]:
    share = row.unit != "s"
    bar = BARS.get(row.key)
    marks = []
    for note in (row.note, KNOWN_LIMITS[row.key] if "known" in row.verdict else ""):
        if note:
            notes += [note] if note not in notes else []
            marks.append(f"[{notes.index(note) + 1}]")
    return (
        row.workload,
        row.device,
        row.against,
        f"{row.ours:.3g} {row.unit}",
        f"{row.theirs:.3g} {row.unit}",
        _amount(row.ratio, share),
        f"{_amount(min(row.ratios), share)} to {_amount(max(row.ratios), share)} in {len(row.ratios)}",
        "" if bar is None else _amount(bar, share),
        " ".join([row.verdict, *marks]).strip(),
    )


def _amount(ratio: float, share: bool) -> str:
    return f"{ratio:.0%}" if share else f"{ratio:.3g}x"
