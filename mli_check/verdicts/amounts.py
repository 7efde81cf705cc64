"""Verdicts on one amount over networks: small or large enough, frequent enough, larger in one kind of network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mli_check.statistics import Z_975, Verdict, mean_interval, stratified_difference, wilson
from mli_check.verdicts.ruling import FEWEST_NETWORKS, Detail, Figure, Ruling, enough, interval_figure, usable


def at_most(values: Sequence[float], limit: float, label: str) -> Ruling:
    """Judge "this is small": the mean over networks is at most `limit`.

    `reproduced` if the 95% interval of the mean lies at or below the limit for at least 10 networks; `not reproduced`
    if it lies above, which needs as many; else, and where any network has no finite value, `inconclusive`.
    """
    return _within(values, limit, label, above=False)


def at_least(values: Sequence[float], limit: float, label: str) -> Ruling:
    """Judge "this is large": the mean over networks is at least `limit`.

    `reproduced` if the 95% interval of the mean lies at or above the limit for at least 10 networks; `not reproduced`
    if it lies below, which needs as many; else, and where any network has no finite value, `inconclusive`.
    """
    return _within(values, limit, label, above=True)


def _within(values: Sequence[float], limit: float, label: str, *, above: bool) -> Ruling:
    """Judge that the mean lies on the wanted side of the limit, or on it."""
    details: dict[str, Detail] = {"networks": len(values), "limit": limit}
    if not usable(values):
        return _too_few(values, label, details)
    found = mean_interval(values)
    figure = interval_figure(label, found)
    details |= {"smallest": min(values), "largest": max(values)}
    at_least_low, at_most_high = f"at least {found.low:.3g}", f"at most {found.high:.3g}"
    if above:
        holds, kept = found.low >= limit, f"{at_least_low}, no less than {limit:g}"
        fails, missed = found.high < limit, f"{at_most_high}, short of {limit:g}"
    else:
        holds, kept = found.high <= limit, f"{at_most_high}, within {limit:g}"
        fails, missed = found.low > limit, f"{at_least_low}, beyond {limit:g}"
    mean = f"the mean over {found.n} networks is"
    if holds:
        return Ruling(verdict=Verdict.REPRODUCED, reason=f"{mean} {kept}", figure=figure, details=details)
    if fails:
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=f"{mean} {missed}", figure=figure, details=details)
    size = enough(found.n, found.high - found.estimate, abs(limit - found.estimate))
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=f"the interval over {found.n} networks includes {limit:g}",
        figure=figure,
        needed=math.floor(size) + 1 if math.isfinite(size) else None,
        needed_unit="networks",
        details=details,
    )


def _too_few(values: Sequence[float], label: str, details: dict[str, Detail]) -> Ruling:
    """No verdict on networks too few, or without a finite value."""
    finite = [value for value in values if math.isfinite(value)]
    have = f"{len(finite)} of {len(values)} networks have a finite value"
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=f"{have}; all must, and at least {FEWEST_NETWORKS}",
        figure=Figure(label=label, value=sum(finite) / len(finite) if finite else None),
        needed=FEWEST_NETWORKS if finite and len(values) < FEWEST_NETWORKS else None,
        needed_unit="networks",
        details=details,
    )


def usually(holds: Sequence[bool], share: float, label: str) -> Ruling:
    """Judge "this holds as a rule": in more than `share` of the draws.

    `reproduced` if the 95% Wilson interval of the proportion lies above `share`; `not reproduced` if it lies below;
    else, and without any draw, `inconclusive`.
    """
    details: dict[str, Detail] = {"draws": len(holds), "of interest": share}
    if not holds:
        figure = Figure(label=label, value=None)
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason="no draws", figure=figure, details=details)
    found = wilson(sum(holds), len(holds))
    figure = interval_figure(label, found)
    told = f"{sum(holds)} of {len(holds)}"
    if found.low > share:
        return Ruling(verdict=Verdict.REPRODUCED, reason=f"in {told} draws", figure=figure, details=details)
    if found.high < share:
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=f"only in {told} draws", figure=figure, details=details)
    gap = found.estimate - share  # the interval leaves `share` out once the score test rejects it
    size = Z_975**2 * share * (1 - share) / gap**2 if gap else math.inf
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=f"in {told} draws; the interval includes {share:g}",
        figure=figure,
        needed=math.floor(size) + 1 if math.isfinite(size) else None,
        needed_unit="draws",
        details=details,
    )


def larger_within(
    strata: Mapping[str, tuple[Sequence[float], Sequence[float]]], least: float, label: str
) -> Ruling:
    """Judge "larger in networks of the first kind than in those of the second", compared within strata only.

    `reproduced` if the 95% interval of the stratified difference of means lies above 0, with at least 10 networks in
    strata that have both kinds, and at least 3 of each kind; `not reproduced` if it lies below `least`, with as many;
    else `inconclusive`.
    """
    both = {name: sides for name, sides in strata.items() if all(sides)}
    counts = [sum(len(sides[kind]) for sides in both.values()) for kind in (0, 1)]
    details: dict[str, Detail] = {name: f"{len(a)} against {len(b)} networks" for name, (a, b) in strata.items()}
    finite = all(math.isfinite(value) for sides in both.values() for values in sides for value in values)
    if min(counts) < 3 or sum(counts) < FEWEST_NETWORKS or not finite:
        reason = (
            f"{counts[0]} against {counts[1]} networks in strata that have both kinds; at least 3 of each and "
            f"{FEWEST_NETWORKS} in all, with finite values, decide"
        )
        figure = Figure(label=label, value=None)
        return Ruling(verdict=Verdict.INCONCLUSIVE, reason=reason, figure=figure, details=details)
    found = stratified_difference(list(both.values()))
    figure = interval_figure(label, found)
    if found.high < least:
        reason = f"at most {found.high:.3g} larger, less than the {least:g} of interest"
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=reason, figure=figure, details=details)
    if found.low > 0:
        reason = f"larger by {found.estimate:.3g} within {', '.join(both)}"
        return Ruling(verdict=Verdict.REPRODUCED, reason=reason, figure=figure, details=details)
    size = enough(found.n, found.high - found.estimate, max(found.estimate, least - found.estimate))
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=f"the interval within {', '.join(both)} includes both no difference and one of {least:g}",
        figure=figure,
        needed=math.floor(size) + 1,
        needed_unit="networks",
        details=details,
    )
