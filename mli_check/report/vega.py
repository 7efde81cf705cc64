"""What the kinds of charts share of Vega's language: room for a legend, and what the pointer shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The width of the whole drawing; not `width`, the plot's, which a legend's height changes.
ROOM = "(isFinite(containerSize()[0]) ? containerSize()[0] : 300)"


def legend_room(entries: Iterable[str]) -> dict[str, dict[str, str]]:
    """A legend's columns and the longest label, so that it fits above the plot at any width."""
    entry = 36 + 7 * max(map(len, entries), default=0)  # pixels, for letters of common width
    columns, limit = f"max(1, floor(({ROOM} - 40) / {entry}))", f"max(60, {ROOM} - 90)"
    return {"columns": {"expr": columns}, "labelLimit": {"expr": limit}}


def tooltip(shown: Mapping[str, str]) -> dict[str, str]:
    """What the pointer shows: titles, and the Vega expressions of what stands beside them.

    A list of tooltip fields would do, but for two things. Under the pointer may lie the Voronoi cell of a point, whose
    row is `datum.datum`, where Vega-Lite 6.4 does not look (its pull request 9707); and a missing value would read 0.
    """
    return {"expr": "{" + ", ".join(f"{json.dumps(title)}: {value}" for title, value in shown.items()) + "}"}


def number(field: str) -> str:
    """The Vega expression of a number with four digits, a dash where there is none."""
    return f"(isValid({field}) ? format({field}, '.4~g') : '—')"
