"""Verdicts on matched comparisons: more, larger, more often."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mli_check.errors import OptionError
from mli_check.statistics import Interval, Verdict, mean_interval, paired_proportions
from mli_check.verdicts.ruling import FEWEST_NETWORKS, LEVEL, Detail, Figure, Ruling, enough, interval_figure, usable

LEAST_SHIFT = 0.02  # of alpha (one step of 51 points), or of error (2 points): no smaller change is of interest
LEAST_EXCESS = 0.10  # ten networks in a hundred: no smaller change of a rate is of interest


def all_positive(differences: Mapping[str, Sequence[float]], label: str, least: float = LEAST_SHIFT) -> Ruling:
    """Judge "larger in every one of these comparisons": differences over matched networks, a list a comparison.

    `reproduced` if the 95% interval of the mean difference lies above 0 in every comparison of at least 10 networks;
    `not reproduced` if in any it lies below `least`, the smallest difference of interest (with confidence 1 - 0.05 /
    comparisons), which goes first; else `inconclusive`. Raises OptionError unless `least` is positive and finite.
    """
    if not 0 < least < math.inf:
        raise OptionError(f"`least`, the smallest difference of interest, must be positive and finite, got {least!r}")
    figures = {name: mean_interval(values) for name, values in differences.items() if usable(values)}
    details: dict[str, Detail] = {name: _told(found, least) for name, found in figures.items()}
    missing = [name for name in differences if name not in figures]
    weakest = min(figures, key=lambda name: figures[name].low, default=None)
    figure = interval_figure(label, None if weakest is None else figures[weakest])
    strict = 1 - LEVEL / max(len(differences), 1)
    highest = {name: mean_interval(differences[name], strict).high for name in figures}
    absent = [name for name in figures if highest[name] < least]
    if absent:
        figure = interval_figure(label, figures[min(absent, key=lambda name: highest[name])])
        reason = f"no difference of {least:g} or more in: {', '.join(absent)}"
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=reason, figure=figure, details=details)
    if missing or weakest is None:
        reason = f"too few networks, or curves that never fall, in: {', '.join(missing) or 'no comparison given'}"
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason=reason, figure=figure, details=details)
    if figures[weakest].low > 0:
        reason = f"larger in all of: {', '.join(figures)}; the smallest difference is that of {weakest}"
        return Ruling(verdict=Verdict.REPRODUCED, reason=reason, figure=figure, details=details)
    reason = f"the interval of {weakest} includes both no difference and one of {least:g}"
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=reason,
        figure=figure,
        needed=_networks_needed(figures, highest, least),
        needed_unit="networks",
        details=details,
    )


def _told(found: Interval, least: float) -> str:
    """An interval in words, to a tenth of `least` or finer."""
    places = max(3, 1 - math.floor(math.log10(least)))
    estimate, low, high = (f"{value:.{places}f}" for value in (found.estimate, found.low, found.high))
    return f"{estimate} (95% interval {low} to {high}, n = {found.n})"


def _networks_needed(figures: Mapping[str, Interval], highest: Mapping[str, float], least: float) -> int:
    """Networks at which the same means would decide: all above 0, or any below `least`, whichever comes first."""
    above = [enough(found.n, found.high - found.estimate, found.estimate) for found in figures.values()]
    below = [
        enough(found.n, highest[name] - found.estimate, least - found.estimate) for name, found in figures.items()
    ]
    return math.floor(min(max(above), *below)) + 1


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
    figure = interval_figure(label, found)
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
    size = enough(found.n, half, max(centre, LEAST_EXCESS - centre))
    return max(math.floor(size) + 1, FEWEST_NETWORKS)
