"""Curves and surfaces of loss and error along a path, and what is read off them.

The plain functions work on any array of values; `Curve` carries the values of one evaluation with what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mli_check.errors import OptionError
from mli_check.statistics import RiseTest, rise_test

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.floating]

QUANTITIES = ("loss", "error", "balanced_error")


class DescentInterval(NamedTuple):
    """[alpha_S, alpha_E] of Tao et al. 2024, Definition 5.1; NaN at both ends where no step is rapid."""

    start: float
    end: float


def delta(values: ArrayLike) -> float:
    """The smallest Delta for which `values`, shape (points,), is Delta-monotone (Lucas et al. 2020, Definition 1).

    Every bump counts by its height above where it starts, also one that never comes back down before the end: this
    is the largest rise above the running minimum. Zero for a curve that never rises, NaN where a value is NaN.
    """
    curve = _values(values)
    lowest = np.minimum.accumulate(curve)
    with np.errstate(invalid="ignore"):  # inf - inf, where the curve stays at an infinite start
        rises = np.where(curve == lowest, 0.0, curve - lowest)
    return float(np.max(rises))


def is_monotone(values: ArrayLike) -> bool:
    """Whether `values`, shape (points,), never rise: literally, without tolerance (Tao et al. 2024, Eq. 1)."""
    curve = _values(values)
    return bool(np.all(curve[1:] <= curve[:-1]))


def descent_interval(values: ArrayLike, alphas: ArrayLike | None = None, tau: float = 0.01) -> DescentInterval:
    """The interval of rapid descent (Tao et al. 2024, Definition 5.1, Eq. 20 read with the total drop below the line).

    A step is rapid when it takes at least `tau` of the total drop J(first) - J(last); the interval goes from the start
    of the first rapid step to the end of the last. On a grid of more than 1 / tau steps even a straight line would have
    none, so such a curve is read at half as many equal steps (50 at tau = 0.01), linear between its points. `alphas`
    defaults to equal steps on [0, 1].
    """
    if not 0 < tau < 1:
        raise OptionError(f"`tau` must lie between 0 and 1, got tau={tau!r}")
    curve, grid = _values(values), _grid(values, alphas)
    if len(curve) - 1 > 1 / tau:
        fine = np.linspace(grid[0], grid[-1], max(round(0.5 / tau), 1) + 1)
        curve, grid = np.interp(fine, grid, curve), fine
    with np.errstate(invalid="ignore"):  # inf - inf, where the curve stays infinite
        drop, steps = curve[0] - curve[-1], curve[:-1] - curve[1:]
    if not drop > 0:
        return DescentInterval(np.nan, np.nan)
    rapid = np.flatnonzero(steps >= tau * drop)
    if len(rapid) == 0:
        return DescentInterval(np.nan, np.nan)
    return DescentInterval(float(grid[rapid[0]]), float(grid[rapid[-1] + 1]))


def plateau(values: ArrayLike, alphas: ArrayLike | None = None, fraction: float = 0.1) -> float:
    """The smallest alpha at which `values` have fallen by `fraction` of their total drop, linear between points.

    NaN where the curve does not end below its start, where its total drop is infinite, and where it comes to the level
    from NaN or infinity. `alphas` defaults to equal steps on [0, 1]. Raises OptionError unless 0 < `fraction` < 1.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"`fraction` must lie between 0 and 1, got fraction={fraction!r}")
    curve, grid = _values(values), _grid(values, alphas)
    if not curve[0] > curve[-1] or np.isinf(curve[[0, -1]]).any():
        return float("nan")
    level = curve[0] - fraction * (curve[0] - curve[-1])
    first = int(np.argmax(curve <= level))
    with np.errstate(invalid="ignore"):  # inf / inf, where the curve falls from infinity
        share = (curve[first - 1] - level) / (curve[first - 1] - curve[first])
    return float(grid[first - 1] + share * (grid[first] - grid[first - 1]))


def _values(values: ArrayLike) -> Floats:
    curve = np.asarray(values, dtype=np.float64)
    if curve.ndim != 1 or len(curve) < 2:
        raise OptionError(f"a curve needs at least 2 values in one dimension, got shape {curve.shape}")
    return curve


def _grid(values: ArrayLike, alphas: ArrayLike | None) -> Floats:
    count = len(_values(values))
    if alphas is None:
        return np.linspace(0.0, 1.0, count)
    grid = np.asarray(alphas, dtype=np.float64)
    if grid.shape != (count,) or not np.all(np.diff(grid) > 0):
        raise OptionError(f"`alphas` must be {count} increasing numbers, one a value, got {alphas!r}")
    return grid


@dataclass(frozen=True)
class Outcomes:
    """Per-example tie-aware errors at every point: one bit each, with the fractions that ties leave kept apart.

    `bits` has shape (points, ceil(examples / 8)), a set bit for an error of 1; `ties` maps a point's index to
    (example indices, errors) where the top classes tie.
    """

    bits: NDArray[np.uint8]
    examples: int
    ties: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = field(default_factory=dict)

    @classmethod
    def pack(cls, rows: list[NDArray[np.float32]]) -> Outcomes:
        """From one array of errors, shape (examples,), a point."""
        ties = {}
        for index, row in enumerate(rows):
            fractional = np.flatnonzero((row != 0) & (row != 1))
            if len(fractional):
                ties[index] = (fractional, row[fractional])
        bits = np.packbits(np.stack(rows) == 1, axis=1)
        return cls(bits=bits, examples=len(rows[0]), ties=ties)

    def errors(self) -> NDArray[np.float32]:
        """Shape (examples, points), each error between 0 and 1."""
        values = np.unpackbits(self.bits, axis=1, count=self.examples).astype(np.float32)
        for point, (where, fractions) in self.ties.items():
            values[point, where] = fractions
        return values.T


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a curve was made; goes into reports beside its figures.

    `calibration_shift` is what a `calibration_subset` changed in loss and error, at most, where it was measured: both
    ends of the path and its middle. `seconds` are the evaluation's, divided evenly among its paths.
    """

    path: str
    loss: str
    norm_stats: str | None
    calibration_batch: int | None
    engine: str
    precision: str
    device: str
    examples: int
    batch_size: int
    seconds: float
    calibration_examples: int | None = None
    calibration_shift: tuple[float, float | None] | None = None
    notes: tuple[str, ...] = ()


class _Evaluated:
    """What a curve and a surface share: named quantities."""

    loss: Floats
    error: Floats | None
    balanced_error: Floats | None

    def values(self, quantity: str) -> Floats:
        """`loss`, `error` or `balanced_error`. Raises OptionError for others, or where the data has no classes."""
        if quantity not in QUANTITIES:
            raise OptionError(f"unknown quantity {quantity!r}; expected one of {', '.join(QUANTITIES)}")
        chosen: Floats | None = getattr(self, quantity)
        if chosen is None:
            raise OptionError(f"this evaluation has no {quantity}: its targets are not class indices; read `loss`")
        return chosen


@dataclass(frozen=True, kw_only=True)
class Curve(_Evaluated):
    """Loss and error at every point of a path; arrays have shape (points,).

    `loss` is the mean over examples, `error` the mean tie-aware error (0 to 1; None where the targets are not classes),
    `balanced_error` the same with every class weighing alike. `losses`, shape (points, examples), and `logits`, shape
    (points, examples, classes), are there where `keep` asked for them. `checkpoint` holds the final state's own loss
    and error under its own buffers, where the policy for running statistics makes the end of the curve differ.
    """

    alphas: Floats
    loss: Floats
    error: Floats | None
    balanced_error: Floats | None
    outcomes: Outcomes | None
    classes: NDArray[np.int64] | None
    record: Record
    checkpoint: dict[str, float] | None = None
    losses: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None

    def delta(self, quantity: str = "loss") -> float:
        """See `mli_check.curves.delta`."""
        return delta(self.values(quantity))

    def is_monotone(self, quantity: str = "loss") -> bool:
        """See `mli_check.curves.is_monotone`."""
        return is_monotone(self.values(quantity))

    def descent_interval(self, quantity: str = "error", tau: float = 0.01) -> DescentInterval:
        """See `mli_check.curves.descent_interval`."""
        return descent_interval(self.values(quantity), self.alphas, tau)

    def plateau(self, quantity: str = "error", fraction: float = 0.1) -> float:
        """See `mli_check.curves.plateau`."""
        return plateau(self.values(quantity), self.alphas, fraction)

    def rise_test(self, margin: float = 0.05, **options: Any) -> RiseTest:
        """Whether the class-balanced error rises by more than the margin: see `mli_check.statistics.rise_test`."""
        if self.outcomes is None:
            raise OptionError("the rise test needs classification targets: this curve has no errors per example")
        return rise_test(self.outcomes.errors(), self.classes, margin=margin, **options)


@dataclass(frozen=True, kw_only=True)
class Surface(_Evaluated):
    """Loss and error over a plane; arrays have shape (alphas, betas)."""

    alphas: Floats
    betas: Floats
    loss: Floats
    error: Floats | None
    balanced_error: Floats | None
    record: Record
