"""Verdicts on changes that should be none: an equivalence test, as no significant change would support nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mli_check.statistics import Verdict, mean_interval
from mli_check.verdicts.ruling import FEWEST_NETWORKS, Detail, Figure, Ruling, enough, interval_figure, usable


def stays(changes: Sequence[float], margin: float, label: str) -> Ruling:
    """Judge "this stays about the same": the mean change over networks is within `margin` of zero, either way.

    `reproduced` if the 95% interval of the mean over at least 10 networks lies within the margin; `not reproduced` if
    it lies outside; else, and where any network has no finite value, `inconclusive`.
    """
    details: dict[str, Detail] = {"networks": len(changes), "margin": margin}
    if not usable(changes):
        finite = [value for value in changes if math.isfinite(value)]
        return Ruling(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{len(finite)} of {len(changes)} networks have a finite value; all must, and at least "
            f"{FEWEST_NETWORKS}",
            figure=Figure(label=label, value=sum(finite) / len(finite) if finite else None),
            needed=FEWEST_NETWORKS if finite and len(changes) < FEWEST_NETWORKS else None,
            needed_unit="networks",
            details=details,
        )
    found = mean_interval(changes)
    figure = interval_figure(label, found)
    details |= {"smallest": min(changes), "largest": max(changes)}
    if -margin <= found.low and found.high <= margin:
        reason = f"the mean change over {found.n} networks is surely within {margin:g}"
        return Ruling(verdict=Verdict.REPRODUCED, reason=reason, figure=figure, details=details)
    if found.low > margin or found.high < -margin:
        reason = f"the mean change over {found.n} networks is surely more than {margin:g}"
        return Ruling(verdict=Verdict.NOT_REPRODUCED, reason=reason, figure=figure, details=details)
    size = enough(found.n, found.high - found.estimate, abs(margin - abs(found.estimate)))
    return Ruling(
        verdict=Verdict.INCONCLUSIVE,
        reason=f"the interval over {found.n} networks reaches across {margin:g}",
        figure=figure,
        needed=math.floor(size) + 1 if math.isfinite(size) else None,
        needed_unit="networks",
        details=details,
    )
