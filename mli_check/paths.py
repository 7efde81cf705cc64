"""Paths as spans: theta(c) = sum_j c_j * theta_j over a few basis states, with a coefficient per point and tensor.

Every path of the papers is such an affine family, so one evaluator serves all of them, and what depends on a basis
state alone can be computed once for all points. A path refers to its states; it neither copies nor changes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mli_check.errors import OptionError, UnknownNameError
from mli_check.states import State, check_same, is_running_statistic

if TYPE_CHECKING:
    from mli_check.symmetry import Symmetries

Point = tuple[float, ...]
Coefficients = tuple[float, ...]


class Span(ABC):
    """An affine family of states over the basis `basis`; `anchor` is the index of the trained network's state.

    A point is a tuple of `dimension` numbers. Subclasses say which coefficients each basis state has there.
    """

    basis: tuple[State, ...]
    anchor: int
    dimension: int = 1
    label: str

    @abstractmethod
    def coefficients(self, point: Point) -> Coefficients:
        """One coefficient a basis state: what moves the tensors that have no coefficients of their own."""

    def tensor_coefficients(self, point: Point) -> Mapping[str, Coefficients]:
        """The tensors that do not follow `coefficients` at this point, with their own."""
        return {}

    @property
    def final(self) -> State:
        """The trained network's state: where the path ends."""
        return self.basis[self.anchor]

    @property
    def end(self) -> Point:
        """The point at which the path reaches `final`."""
        return (1.0,)

    def state(self, point: Point | float, norm_stats: str = "interpolate") -> dict[str, Tensor]:
        """The state at a point: new tensors. Floating tensors move; integer tensors are the final state's.

        Running statistics of normalisation layers move with `norm_stats="interpolate"` and stay with `"freeze"`. Every
        tensor has the final state's dtype. Raises OptionError for a point with another number of coordinates and for
        a coordinate below zero (or above 1 on a LinearPath) under a fractional exponent, UnknownNameError for another
        policy.
        """
        return dict(self.tensors(point, norm_stats))

    def tensors(
        self, point: Point | float, norm_stats: str = "interpolate", trained: Collection[str] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """What `state` holds, one tensor at a time; with `trained`, the names of a model's parameters, its other
        floating buffers (positional codes, an input's mean) stay at the final state's too.
        """
        at = (float(point),) if isinstance(point, int | float) else tuple(map(float, point))
        if len(at) != self.dimension:
            raise OptionError(f"a point of {self.label} has {self.dimension} coordinate(s), got {at}")
        if norm_stats not in ("interpolate", "freeze"):
            raise UnknownNameError("policy for norm_stats", str(norm_stats), ("interpolate", "freeze"))
        common, own = self.coefficients(at), self.tensor_coefficients(at)
        for name, tensor in self.final.items():
            moves = self.moves(name, norm_stats, trained)
            yield name, self.combine(name, own.get(name, common)) if moves else tensor.detach().clone()

    def moves(self, name: str, norm_stats: str, trained: Collection[str] | None = None) -> bool:
        """Whether a tensor follows the path's coefficients; the others stay at the final state's. See `tensors`."""
        if not self.final[name].is_floating_point():
            return False
        if is_running_statistic(name):
            return norm_stats == "interpolate"
        return trained is None or name in trained

    def combine(self, name: str, coefficients: Coefficients) -> Tensor:
        """sum_j c_j * theta_j for one tensor, as `combination` does it, with the final state's dtype and device."""
        final = self.final[name]
        pairs = [(c, state[name].detach()) for c, state in zip(coefficients, self.basis, strict=True) if c != 0]
        if not pairs:
            return torch.zeros_like(final)
        return combination([(c, tensor.to(final.device, final.dtype)) for c, tensor in pairs])


def combination(terms: Sequence[tuple[float, Tensor]], out: Tensor | None = None) -> Tensor:
    """sum_j c_j * tensor_j in a new tensor, or in `out`; c_j = 1 alone copies exactly.

    Terms with a coefficient of zero are to be left out, because 0 * NaN is NaN.
    """
    (first, tensor), *others = terms
    total = torch.empty_like(tensor) if out is None else out
    if is_affine([c for c, _ in terms]):
        return torch.lerp(tensor, others[0][1], others[0][0], out=total)
    if first == 1:
        total.copy_(tensor)
    else:
        torch.mul(tensor, first, out=total)
    for coefficient, tensor in others:
        total.add_(tensor, alpha=coefficient)
    return total


def is_affine(coefficients: Sequence[float]) -> bool:
    """Whether these are (1 - alpha, alpha), which takes one pass over the tensors instead of two."""
    return len(coefficients) == 2 and coefficients[0] == 1 - coefficients[1]


class LinearPath(Span):
    """(1 - alpha) * init + alpha * final (Tao et al. 2024, Eq. 1 and 2; Lucas et al. 2020, Eq. 1).

    `only`, a name pattern or several (`"*.bias"`), moves the tensors that match and leaves the rest at `final`.
    `exponents` maps tensor names to k: those move as (1 - alpha)**k * init + alpha**k * final, which is how a bias of
    depth k interpolates homogeneously. 0**0 is 1. Raises StateMismatchError where the states differ in their tensors,
    OptionError for a pattern or a name that matches none and for negative exponents.
    """

    def __init__(
        self,
        init: State,
        final: State,
        *,
        only: str | Sequence[str] | None = None,
        exponents: Mapping[str, float] | None = None,
    ) -> None:
        check_same(init, final, "init", "final")
        self.basis, self.anchor = (init, final), 1
        self.exponents = _checked_exponents(exponents or {}, final)
        self.still = _not_matching(only, final)
        self.label = "LinearPath" + (f"(only={only!r})" if only is not None else "")

    def coefficients(self, point: Point) -> Coefficients:
        """(1 - alpha, alpha)."""
        return (1 - point[0], point[0])

    def tensor_coefficients(self, point: Point) -> Mapping[str, Coefficients]:
        """(0, 1) for what `only` leaves at final; powers for `exponents`."""
        own = {name: (_power(1 - point[0], k), _power(point[0], k)) for name, k in self.exponents.items()}
        return own | dict.fromkeys(self.still, (0.0, 1.0))


class ScaledPath(Span):
    """alpha * final (Tao et al. 2024, Eq. 3); `exponents` scales the named tensors by alpha**k instead."""

    def __init__(self, final: State, *, exponents: Mapping[str, float] | None = None) -> None:
        self.basis, self.anchor = (final,), 0
        self.exponents = _checked_exponents(exponents or {}, final)
        self.label = "ScaledPath"

    def coefficients(self, point: Point) -> Coefficients:
        """(alpha,)."""
        return (point[0],)

    def tensor_coefficients(self, point: Point) -> Mapping[str, Coefficients]:
        """Powers for `exponents`."""
        return {name: (_power(point[0], k),) for name, k in self.exponents.items()}


class RectifiedPath(ScaledPath):
    """RSI(final, alpha): every weight times alpha, every other tensor times alpha**k (Tao et al. 2024, Eq. 13 to 14).

    The exponents come from the network's scale symmetries: in a chain k counts the layers up to a bias. For alpha > 0
    the output is that of `final` times a positive factor, so the error is flat; the loss is at `temperature(point)`.
    Raises StateMismatchError for a state of another network, SymmetryError where the weights cannot all take alpha.
    """

    def __init__(self, final: State, symmetries: Symmetries) -> None:
        from mli_check.symmetry.rescale import rectified  # here, for sympy takes long to load

        symmetries.check(final)
        exponents = rectified(symmetries)
        first = {name: symmetries.aliases.get(name, name) for name in final}
        super().__init__(final, exponents={name: exponents[k] for name, k in first.items() if k in exponents})
        self.symmetries = symmetries
        self.label = "RectifiedPath"

    def temperature(self, point: Point | float) -> float:
        """What the logits are multiplied by at a point (Eq. 11). Raises OptionError for alpha = 0, where they tie."""
        alpha = point if isinstance(point, int | float) else point[0]
        if not alpha > 0:
            raise OptionError(f"RSI has a temperature for alpha > 0, got {alpha}")
        names = self.symmetries.tensors
        return self.symmetries.output_factor({name: alpha ** self.exponents[name] for name in names})


class Plane(Span):
    """alpha * final + beta * noise over points (alpha, beta) (Tao et al. 2024, Section 5.5)."""

    dimension = 2

    def __init__(self, final: State, noise: State) -> None:
        check_same(noise, final, "noise", "final")
        self.basis, self.anchor = (final, noise), 0
        self.label = "Plane"

    @property
    def end(self) -> Point:
        """(1, 0)."""
        return (1.0, 0.0)

    def coefficients(self, point: Point) -> Coefficients:
        """(alpha, beta)."""
        return point


def grid(points: int = 51, alphas: Sequence[float] | None = None) -> np.ndarray:
    """The alphas of a curve: `alphas` as given, or `points` equal steps on [0, 1], both ends included.

    Raises OptionError for fewer than 2 points or alphas that do not increase.
    """
    if alphas is None:
        if not isinstance(points, int | np.integer) or isinstance(points, bool) or points < 2:
            raise OptionError(f"`points` must be a whole number of at least 2, got points={points!r}")
        return np.linspace(0.0, 1.0, points)
    values = np.asarray(alphas, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.all(np.isfinite(values)) or not np.all(np.diff(values) > 0):
        raise OptionError(f"`alphas` must be at least 2 finite, increasing numbers, got {alphas!r}")
    return values


def _power(base: float, exponent: float) -> float:
    if base < 0 and not float(exponent).is_integer():  # Python would answer with a complex number
        raise OptionError(f"{base} has no power {exponent}; with fractional `exponents` keep alpha between 0 and 1")
    return 1.0 if exponent == 0 else base**exponent


def _checked_exponents(exponents: Mapping[str, float], final: State) -> dict[str, float]:
    for name, exponent in exponents.items():
        if name not in final:
            raise OptionError(f"`exponents` names {name!r}, which the state does not have: {', '.join(final)}")
        if not exponent >= 0:
            raise OptionError(f"`exponents` has {exponent!r} for {name!r}; exponents must not be negative")
    return dict(exponents)


def _not_matching(only: str | Sequence[str] | None, final: State) -> list[str]:
    if only is None:
        return []
    patterns = [only] if isinstance(only, str) else list(only)
    if not patterns:
        raise OptionError("`only` is empty, so nothing would move; leave it out to move every tensor")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in final):
            raise OptionError(f"`only` pattern {pattern!r} matches no tensor of {', '.join(final)}")
    return [name for name in final if not any(fnmatchcase(name, pattern) for pattern in patterns)]
