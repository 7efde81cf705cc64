"""Verdicts on outputs that must stay what they are along a path, up to a positive factor at each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mli_check.verdicts.joint import agrees, all_of
from mli_check.verdicts.ruling import Detail, Ruling

CLOSE = 1e-4  # of an example's largest output in size: classes nearer than that may change places by rounding alone
MOST_CLOSE = 0.01  # of all predictions: more than that unjudged, and the rest shows nothing


@dataclass(frozen=True, kw_only=True)
class Constancy:
    """How the outputs of one network, over points and examples, compare with those that are wanted.

    `unequal` counts outputs that differ in any bit where equality is exact (None where it is nowhere), `changed` the
    predictions that differ although the two largest outputs wanted are further apart than rounding explains, and
    `close` those of `predictions` that are not judged because they are not.
    """

    unequal: int | None
    changed: int
    close: int
    predictions: int

    @property
    def decided(self) -> float:
        """`changed`, or NaN where too many predictions are too close to be judged."""
        return float(self.changed) if self.close <= MOST_CLOSE * self.predictions else float("nan")


def compare(outputs: NDArray[np.float32], wanted: NDArray[np.float32], exact: NDArray[np.bool_]) -> Constancy:
    """Compare outputs (points, examples, classes) with those wanted; `exact` says at which points no bit may differ.

    An output that is not a number counts as a changed prediction.
    """
    two = np.partition(wanted, -2, axis=-1)[..., -2:]
    near = two[..., 1] - two[..., 0] <= CLOSE * np.abs(wanted).max(axis=-1)
    other = (outputs.argmax(axis=-1) != wanted.argmax(axis=-1)) | ~np.isfinite(outputs).all(axis=-1)
    return Constancy(
        unequal=int(np.count_nonzero(outputs[exact] != wanted[exact])) if exact.any() else None,
        changed=int(np.count_nonzero(other & ~near)),
        close=int(np.count_nonzero(near)),
        predictions=near.size,
    )


def unchanged(found: Sequence[Constancy]) -> Ruling:
    """Judge "the same up to a factor, at every point": one comparison a network.

    `reproduced` if no bit differs where equality is exact, and no prediction anywhere but within rounding; `not
    reproduced` if any does; `inconclusive` without networks, or where more than 1% of a network's predictions lie
    within rounding.
    """
    named = {f"network {index}": one for index, one in enumerate(found)}
    bits = {name: float(one.unequal) for name, one in named.items() if one.unequal is not None}
    label = "predictions that change (of the network with the most)"
    parts = {"predictions": agrees({name: one.decided for name, one in named.items()}, 0, label)}
    if bits:
        label = "outputs that are no exact multiple (of the network with the most)"
        parts = {"powers of two, to the bit": agrees(bits, 0, label)} | parts
    joint = all_of(parts)
    details: dict[str, Detail] = {
        "predictions compared": sum(one.predictions for one in found),
        "too close to compare": sum(one.close for one in found),
    }
    return Ruling(verdict=joint.verdict, reason=joint.reason, figure=joint.figure, details={**joint.details, **details})
