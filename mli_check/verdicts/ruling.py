"""What a criterion gives: a verdict, the figure that it rests on, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mli_check.statistics import Interval, Verdict

FEWEST_NETWORKS = 10  # for claims that say "always" or "tends to"
LEVEL = 0.05

Detail = float | int | str | None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The number a verdict rests on, with its confidence bounds (None where there are none)."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A verdict with its figure and one sentence why.

    `needed` is the sample size at which the same estimates would decide, in `needed_unit` (None where they have decided
    or never would). `details` holds further figures by label.
    """

    verdict: Verdict
    reason: str
    figure: Figure
    needed: int | None = None
    needed_unit: str = ""
    details: Mapping[str, Detail] = field(default_factory=dict)


def undecided(ruling: Ruling) -> Ruling:
    """The ruling with its verdict taken back, for networks cut so short that they show only that a claim runs."""
    reason = f"a smoke test decides nothing; by the rule alone it would be {ruling.verdict}: {ruling.reason}"
    return replace(ruling, verdict=Verdict.INCONCLUSIVE, reason=reason, needed=None, needed_unit="")


def level_for(networks: int, parts: int = 1) -> float:
    """The level of each rise test so that all of them together reject a true claim at most 5% of the time."""
    return LEVEL / max(networks * parts, 1)


def usable(values: Sequence[float]) -> bool:
    """Whether there are networks enough, each with a finite value."""
    return len(values) >= FEWEST_NETWORKS and all(math.isfinite(value) for value in values)


def enough(n: int, half: float, gap: float) -> float:
    """The sample size at which half an interval, shrinking with the root of it, is no longer than `gap`."""
    return n * (half / gap) * (half / gap) if gap > 0 else math.inf


def interval_figure(label: str, found: Interval | None) -> Figure:
    """The figure of an estimate with its bounds; empty where there is none."""
    if found is None:
        return Figure(label=label, value=None)
    return Figure(label=label, value=found.estimate, low=found.low, high=found.high)
