"""From evidence to a verdict: pure functions, each fixed before the data that it judges.

A criterion takes what was measured and gives a Ruling. What it needs to be sure is written in its docstring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mli_check.statistics import Interval, RiseTest, Verdict, mean_interval, paired_proportions, wilson

FEWEST_NETWORKS = 10  # for claims that say "always" or "tends to"
LEVEL = 0.05
LEAST_SHIFT = 0.02  # one step of 51 points: no smaller change of a plateau is of interest
LEAST_EXCESS = 0.10  # ten networks in a hundred: no smaller change of a rate is of interest

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


def level_for(networks: int, parts: int = 1) -> float:
    """The level of each rise test so that all of them together reject a true claim at most 5% of the time."""
    return LEVEL / max(networks * parts, 1)


def never_rises(tests: Sequence[RiseTest]) -> Ruling:
    """Judge "the error never rises, in every network": one rise test a network, each at `level_for(networks)`.

    `reproduced` if every one of at least 10 networks is; `not reproduced` if any network is not; else `inconclusive`.
    """
    decisions = [test.decision for test in tests]
    holding = decisions.count(Verdict.REPRODUCED)
    failing = decisions.count(Verdict.NOT_REPRODUCED)
    worst = max(tests, key=lambda test: test.estimate, default=None)
    figure = Figure(
        label="largest rise of test error",
        value=None if worst is None else worst.estimate,
        low=max((test.lower for test in tests), default=None),
        high=max((test.upper for test in tests), default=None),
    )
    details = _network_details(tests, holding, failing)
    if failing:
        reason = f"the error of {failing} of {len(tests)} networks surely rises by more than the margin"
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=reason, figure=figure, details=details)
    if len(tests) < FEWEST_NETWORKS:
        reason = f"{len(tests)} networks; a claim about every network needs at least {FEWEST_NETWORKS}"
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason=reason, figure=figure, details=details)
    if holding == len(tests):
        reason = f"the error of none of {len(tests)} networks rises by more than the margin, with confidence"
        return Ruling(verdict=Verdict.REPRODUCED, reason=reason, figure=figure, details=details)
    needed = max((test.needed for test in tests if test.needed is not None), default=None)
    reason = f"{len(tests) - holding} of {len(tests)} networks stay undecided on {tests[0].examples} test examples"
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=reason,
        figure=figure,
        needed=needed,
        needed_unit="test examples",
        details=details,
    )


def _network_details(tests: Sequence[RiseTest], holding: int, failing: int) -> dict[str, Detail]:
    if not tests:
        return {"networks": 0}
    share = wilson(holding, len(tests))
    return {
        "networks within the margin": f"{holding} of {len(tests)} (95% interval {share.low:.2f} to {share.high:.2f})",
        "networks surely beyond it": failing,
        "networks strictly monotone on this test set": sum(test.strictly_monotone for test in tests),
        "networks with some certain rise": sum(test.certain_rise for test in tests),
        "smallest margin": min(test.threshold for test in tests),
        "test examples": tests[0].examples,
    }


def all_positive(differences: Mapping[str, Sequence[float]], label: str) -> Ruling:
    """Judge "larger in every one of these comparisons": differences over matched networks, a list a comparison.

    `reproduced` if the 95% interval of the mean difference lies above 0 in every comparison of at least 10 networks;
    `not reproduced` if in any it lies below 0.02 (with confidence 1 - 0.05 / comparisons), which goes first; else
    `inconclusive`.
    """
    figures = {name: mean_interval(values) for name, values in differences.items() if _usable(values)}
    details: dict[str, Detail] = {}
    for name, found in figures.items():
        details[name] = f"{found.estimate:.3f} (95% interval {found.low:.3f} to {found.high:.3f}, n = {found.n})"
    missing = [name for name in differences if name not in figures]
    weakest = min(figures, key=lambda name: figures[name].low, default=None)
    figure = _interval_figure(label, None if weakest is None else figures[weakest])
    strict = 1 - LEVEL / max(len(differences), 1)
    highest = {name: mean_interval(differences[name], strict).high for name in figures}
    absent = [name for name in figures if highest[name] < LEAST_SHIFT]
    if absent:
        figure = _interval_figure(label, figures[min(absent, key=lambda name: highest[name])])
        reason = f"no difference of {LEAST_SHIFT} or more in: {', '.join(absent)}"
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=reason, figure=figure, details=details)
    if missing or weakest is None:
        reason = f"too few networks, or curves that never fall, in: {', '.join(missing) or 'no comparison given'}"
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason=reason, figure=figure, details=details)
    if figures[weakest].low > 0:
        reason = f"larger in all of: {', '.join(figures)}; the smallest difference is that of {weakest}"
        return Ruling(verdict=Verdict.REPRODUCED, reason=reason, figure=figure, details=details)
    reason = f"the interval of {weakest} includes both no difference and one of {LEAST_SHIFT}"
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=reason,
        figure=figure,
        needed=_networks_needed(figures, highest),
        needed_unit="networks",
        details=details,
    )


def _networks_needed(figures: Mapping[str, Interval], highest: Mapping[str, float]) -> int:
    """Networks at which the same means would decide: all above 0, or any below 0.02, whichever comes first."""
    above = [_enough(found.n, found.high - found.estimate, found.estimate) for found in figures.values()]
    below = [
        _enough(found.n, highest[name] - found.estimate, LEAST_SHIFT - found.estimate)
        for name, found in figures.items()
    ]
    return math.floor(min(max(above), *below)) + 1


def _enough(n: int, half: float, gap: float) -> float:
    """The sample size at which half an interval, shrinking with the root of it, is no longer than `gap`."""
    return n * (half / gap) * (half / gap) if gap > 0 else math.inf


def _usable(values: Sequence[float]) -> bool:
    return len(values) >= FEWEST_NETWORKS and all(math.isfinite(value) for value in values)


def more_often(first: Sequence[bool], second: Sequence[bool], label: str) -> Ruling:
    """Judge "happens more often in the first": matched pairs of networks, Agresti and Min's interval.

    `reproduced` if the 95% interval of the difference lies above 0 for at least 10 pairs; `not reproduced` if it lies
    below 0.10, which goes first; else `inconclusive`.
    """
    details: dict[str, Detail] = {"pairs": len(first)}
    if not first:
        figure = Figure(label=label, value=None)
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason="no pairs of networks", figure=figure, details=details)
    found = paired_proportions(first, second)
    figure = _interval_figure(label, found)
    details |= {"in the first": sum(first), "in the second": sum(second)}
    if found.high < LEAST_EXCESS:
        reason = f"at most {found.high:.2f} more often, less than the {LEAST_EXCESS:.2f} of interest"
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=reason, figure=figure, details=details)
    if found.low > 0 and len(first) >= FEWEST_NETWORKS:
        reason = f"{sum(first)} of {len(first)} against {sum(second)} of {len(second)}"
        return Ruling(verdict=Verdict.REPRODUCED, reason=reason, figure=figure, details=details)
    if found.low > 0:
        reason = f"{len(first)} pairs; a claim about how often needs at least {FEWEST_NETWORKS}"
    else:
        reason = f"the interval over {len(first)} pairs includes both no difference and one of {LEAST_EXCESS:.2f}"
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=reason,
        figure=figure,
        needed=_pairs_needed(found),
        needed_unit="pairs",
        details=details,
    )


def _pairs_needed(found: Interval) -> int:
    """Pairs, at least 10, at which the same interval would decide: its width shrinks with the root of their number."""
    half, centre = (found.high - found.low) / 2, (found.high + found.low) / 2
    enough = _enough(found.n, half, max(centre, LEAST_EXCESS - centre))
    return max(math.floor(enough) + 1, FEWEST_NETWORKS)


def agrees(deviations: Mapping[str, float], tolerance: float, label: str) -> Ruling:
    """Judge a definition or identity: the largest deviation from what it must give, over named examples.

    `not reproduced` if one exceeds `tolerance`; else `inconclusive` if there is none or one is not finite; else
    `reproduced`.
    """
    finite = {name: value for name, value in deviations.items() if math.isfinite(value)}
    worst = max(finite, key=lambda name: finite[name], default=None)
    figure = Figure(label=label, value=None if worst is None else finite[worst])
    details: dict[str, Detail] = {"examples": len(finite), "tolerance": tolerance}
    if worst is not None and finite[worst] > tolerance:
        reason = f"`{worst}` deviates by {finite[worst]:.3g}, more than {tolerance:g}"
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=reason, figure=figure, details=details)
    if worst is None or len(finite) < len(deviations):
        missing = [name for name in deviations if name not in finite]
        reason = f"no finite deviation for: {', '.join(missing) or 'any example'}"
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason=reason, figure=figure, details=details)
    reason = f"all {len(finite)} examples agree to {tolerance:g}"
    return Ruling(verdict=Verdict.REPRODUCED, reason=reason, figure=figure, details=details)


def all_of(parts: Mapping[str, Ruling]) -> Ruling:
    """Join the parts of a claim: `reproduced` if all are, `not reproduced` if any is not, else `inconclusive`.

    The figure is that of the first part that stands for the verdict, and so is the unit of `needed`.
    """
    if not parts:
        figure = Figure(label="no part", value=None)
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason="no part to judge", figure=figure)
    order = (Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE, Verdict.REPRODUCED)
    verdict = next(kind for kind in order if any(part.verdict is kind for part in parts.values()))
    name = next(name for name, part in parts.items() if part.verdict is verdict)
    deciding = parts[name]
    details: dict[str, Detail] = {}
    for part_name, part in parts.items():
        details[part_name] = f"{part.verdict}: {part.reason}"
        details |= {f"{part_name}, {key}": value for key, value in part.details.items()}
    holds = verdict is Verdict.REPRODUCED
    reason = f"all {len(parts)} parts hold: {'; '.join(parts)}" if holds else f"{name}: {deciding.reason}"
    figure = Figure(
        label=f"{deciding.figure.label} ({name})",
        value=deciding.figure.value,
        low=deciding.figure.low,
        high=deciding.figure.high,
        unit=deciding.figure.unit,
    )
    unit = deciding.needed_unit
    alike = [part.needed for part in parts.values() if part.needed is not None and part.needed_unit == unit]
    needed = max(alike, default=None) if verdict is Verdict.INCONCLUSIVE else None
    return Ruling(verdict=verdict, reason=reason, figure=figure, needed=needed, needed_unit=unit, details=details)


def _interval_figure(label: str, found: Interval | None) -> Figure:
    if found is None:
        return Figure(label=label, value=None)
    return Figure(label=label, value=found.estimate, low=found.low, high=found.high)
