"""Verdicts on the shape of curves, a network a curve."""

from __future__ import annotations

from collections.abc import Sequence

from mli_check.statistics import RiseTest, Verdict, wilson
from mli_check.verdicts.ruling import FEWEST_NETWORKS, Detail, Figure, Ruling


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
