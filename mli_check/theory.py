"""What theory says of simple cases in closed form: where a last bias alone lets predictions change on the zero path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mli_check.errors import OptionError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Which class is predicted for each of n examples as alpha grows from 0 to 1, and where that changes.

    `classes`, shape (n, classes): the first column is predicted from alpha = 0 on, column i + 1 from column i of
    `alphas`, shape (n, classes - 1), on. Rows that change less often end in -1, and in NaN.
    """

    alphas: Floats
    classes: Integers

    def at(self, alphas: ArrayLike) -> Integers:
        """The classes predicted at each of `alphas`, shape (points, n). OptionError unless they lie in (0, 1]."""
        points = np.asarray(alphas, dtype=np.float64)
        if points.ndim != 1 or not np.all((points > 0) & (points <= 1)):
            raise OptionError(f"`alphas` must be numbers above 0 and up to 1, where outputs do not tie, got {alphas!r}")
        passed = np.count_nonzero(self.alphas <= points[:, None, None], axis=-1)
        found: Integers = self.classes[np.arange(len(self.classes)), passed]
        return found


def last_bias_flips(scores: ArrayLike, bias: ArrayLike, layers: int) -> Flips:
    """Where on alpha * theta the predictions change, for a network whose only bias is that of its last layer.

    The network is a chain of `layers` weights with activations that scale as their inputs do. `scores`, shape (n,
    classes), are its outputs at theta without the `bias`, shape (classes,). Those at alpha * theta are then alpha
    (alpha^(layers - 1) scores + bias): lines in u = alpha^(layers - 1), whose upper envelope is followed from u = 0.
    Class y overtakes class k where u (s_y - s_k) = b_k - b_y, so that each class has a larger score than the one
    before. Where lines meet in one point the steepest wins, then the lowest class. Raises OptionError for other
    shapes, fewer than 2 classes or layers, and values that are not finite.
    """
    values, shift = _checked(scores, bias, layers)
    rows = np.arange(len(values))
    current = np.where(shift == shift.max(), values, -np.inf).argmax(axis=1)
    classes, alphas = [current], []
    going = np.ones(len(values), dtype=bool)
    for _ in range(values.shape[1] - 1):
        steeper = values - values[rows, current][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = np.where(steeper > 0, (shift[current][:, None] - shift) / steeper, np.inf)
        first = meets.min(axis=1)
        going = going & (first < 1)
        current = np.where(going, np.where(meets == first[:, None], values, -np.inf).argmax(axis=1), current)
        classes.append(np.where(going, current, -1))
        alphas.append(np.where(going, first, np.nan) ** (1 / (layers - 1)))
    return Flips(alphas=np.stack(alphas, axis=1), classes=np.stack(classes, axis=1))


def _checked(scores: ArrayLike, bias: ArrayLike, layers: int) -> tuple[Floats, Floats]:
    values, shift = np.asarray(scores, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    if values.ndim != 2 or shift.shape != values.shape[1:] or shift.size < 2:
        raise OptionError(
            "expected scores (n, classes) and a bias (classes,) of at least 2 classes, got shapes "
            f"{values.shape} and {shift.shape}"
        )
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(shift))):
        raise OptionError("`scores` or `bias` are not all finite; leave out networks that diverged")
    if layers < 2:
        raise OptionError(f"layers={layers} must be 2 or more: a single one scales scores and bias alike")
    return values, shift
