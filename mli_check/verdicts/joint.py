"""Verdicts on identities, and verdicts joined from parts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mli_check.statistics import Verdict
from mli_check.verdicts.ruling import Detail, Figure, Ruling


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
