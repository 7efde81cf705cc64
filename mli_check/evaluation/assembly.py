"""From tallied sites to the curves and surfaces of the paths that asked for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mli_check.curves import Curve, Record, Surface
from mli_check.data.dataset import Dataset
from mli_check.errors import DivergedError
from mli_check.evaluation.sites import Site
from mli_check.evaluation.tally import Tally
from mli_check.losses import is_classification
from mli_check.paths import Point, Span

Axes = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Request:
    """One path with the points asked for, as its axes, and the sites that they are: `places`, point by point.

    `checkpoint` is the site of the trained network under its own buffers, where the policy makes the end differ.
    """

    path: Span
    axes: Axes
    places: Sequence[int] = ()
    checkpoint: int | None = None

    @property
    def points(self) -> list[Point]:
        """All combinations of the axes' values, the last axis fastest."""
        crossed = np.stack(np.meshgrid(*self.axes, indexing="ij"), -1)
        return [tuple(map(float, point)) for point in crossed.reshape(-1, len(self.axes))]

    def sites(self, of_path: str, recalibrated: bool) -> list[Site]:
        """What the points are under a policy."""
        return [Site(self.path, point, of_path, recalibrated) for point in self.points]


def check_end(request: Request, tally: Tally) -> None:
    """Raise DivergedError if the loss is not finite where the path ends in the trained network."""
    for point, loss in zip(request.points, tally.loss(request.places), strict=True):
        if point == request.path.end and not math.isfinite(loss):
            raise DivergedError(
                f"the loss at the end of {request.path.label} is {loss}: the network diverged in training; "
                "train it with a smaller learning rate, or pass allow_diverged=True to see the curve all the same"
            )


def assemble(request: Request, tally: Tally, data: Dataset, record: Record) -> Curve | Surface:
    """The curve of a path, or the surface of a plane."""
    shape, places = tuple(len(axis) for axis in request.axes), request.places

    def shaped(values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        return None if values is None else values.reshape(shape)

    loss = tally.loss(places).reshape(shape)
    error, balanced = shaped(tally.error(places)), shaped(tally.balanced_error(places))
    if len(shape) == 2:
        alphas, betas = request.axes
        return Surface(alphas=alphas, betas=betas, loss=loss, error=error, balanced_error=balanced, record=record)
    return Curve(
        alphas=request.axes[0],
        loss=loss,
        error=error,
        balanced_error=balanced,
        outcomes=tally.outcomes(places),
        classes=data.targets.cpu().numpy() if is_classification(data.targets) else None,
        record=record,
        checkpoint=_checkpoint(request, tally),
        losses=tally.losses(places),
        logits=tally.logits(places),
    )


def _checkpoint(request: Request, tally: Tally) -> dict[str, float] | None:
    """The final state's own loss and error under its own buffers."""
    if request.checkpoint is None:
        return None
    own = {"loss": float(tally.loss([request.checkpoint])[0])}
    error = tally.error([request.checkpoint])
    return own if error is None else own | {"error": float(error[0])}
