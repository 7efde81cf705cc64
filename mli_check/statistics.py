"""The statistics that verdicts rest on: the rise test of one curve, intervals for differences and proportions.

Not finding a significant rise supports nothing: a small test set would make every claim true. So each test here
can answer three things, and the middle one, `inconclusive`, comes with the sample size that would decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit  # scipy.stats has these too, and takes half a second to import

from mli_check.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.floating]

Z_975 = 1.959963984540054  # two-sided 95% point of the normal distribution
_BLOCK = 4096  # examples per block of bootstrap multipliers: 16 MB at 1000 replicates
_ROUNDING = 1e-7  # a difference of two float32 errors: 0.9 comes in as 0.89999998


class Verdict(StrEnum):
    """What a test fixed before the data says of the hypothesis it was given."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence bounds, from `n` units."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class RiseTest:
    """Does an error curve rise by more than the margin anywhere, given the test examples it was measured on?

    All figures are in units of error (0 to 1). `estimate` is the largest paired rise J_j - J_i over i < j (negative
    where every later point lies lower) and `where` its two point indices; `upper` and `lower` bound the largest rise;
    `threshold` is the margin in units of error and `critical` the bootstrap quantile c. `strictly_monotone` speaks of
    this very set of examples, `certain_rise` says whether some rise above zero is beyond doubt. `needed` is the number
    of examples at which the same estimates would decide (None where they have decided or never would).
    """

    decision: Verdict
    estimate: float
    where: tuple[int, int]
    upper: float
    lower: float
    drop: float
    threshold: float
    critical: float
    examples: int
    strictly_monotone: bool
    certain_rise: bool
    needed: int | None


def rise_test(
    errors: ArrayLike,
    classes: ArrayLike | None = None,
    *,
    margin: float = 0.05,
    threshold: float | None = None,
    level: float = 0.05,
    replicates: int = 1000,
    seed: int = 0,
) -> RiseTest:
    """Test whether an error curve, measured on the same examples at every point, rises by more than a margin.

    `errors` has shape (examples, points): each example's error (0 to 1) at each point, in path order. With `classes`,
    shape (examples,), every class weighs the same. The margin m is `margin` times the total drop J(first) - J(last),
    zero where there is none, or `threshold`, which is in units of error. With D_ij the mean paired difference J_j - J_i
    and SE_ij its standard error with one pseudo-count each way (an example of the smallest class, which weighs most):
    `reproduced` if max(D + 1.96 SE) <= m (an intersection-union test, so no correction for the number of pairs); `not
    reproduced` if max(D - c SE) > m, c being the 1 - `level` quantile of the maximum under a Gaussian-multiplier
    bootstrap of the centred examples, and no less than that of one pair, 1.645 at 5%; else `inconclusive`.

    Raises OptionError for fewer than 2 points or examples, errors outside 0 to 1, classes of another length, a negative
    margin or threshold, or a level not between 0 and 1.
    """
    values = _checked(errors)
    if not margin >= 0 or not 0 < level < 1 or not (threshold is None or threshold >= 0):
        raise OptionError(
            f"expected `margin` and `threshold` >= 0 and 0 < `level` < 1, got margin={margin!r}, "
            f"threshold={threshold!r} and level={level!r}"
        )
    count = values.shape[0]
    centred, curve, heaviest = _weighted(values, classes)
    scatter = centred.T @ centred
    spread = np.diag(scatter)
    squares = np.maximum(spread[:, None] + spread[None, :] - 2 * scatter, 0.0)
    error = np.sqrt(squares + 2 * heaviest**2) / count  # one pseudo-count up and one down
    rises = curve[None, :] - curve[:, None]
    pairs = np.triu_indices(len(curve), k=1)
    rise, se = rises[pairs], error[pairs]
    drop = float(curve[0] - curve[-1])
    allowed = max(margin * drop, 0.0) if threshold is None else threshold
    critical = _critical_value(centred, error, level, replicates, seed)
    upper, lower = float(np.max(rise + Z_975 * se)), float(np.max(rise - critical * se))
    if upper <= allowed:
        decision = Verdict.REPRODUCED
    elif lower > allowed:
        decision = Verdict.NOT_REPRODUCED
    else:
        decision = Verdict.INCONCLUSIVE
    largest = int(np.argmax(rise))
    return RiseTest(
        decision=decision,
        estimate=float(rise[largest]),
        where=(int(pairs[0][largest]), int(pairs[1][largest])),
        upper=upper,
        lower=lower,
        drop=drop,
        threshold=allowed,
        critical=critical,
        examples=count,
        strictly_monotone=bool(np.all(np.diff(curve) <= _ROUNDING)),
        certain_rise=lower > 0,
        needed=_needed(rise, se, allowed, critical, count) if decision is Verdict.INCONCLUSIVE else None,
    )


def _checked(errors: ArrayLike) -> Floats:
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 2:
        raise OptionError(f"`errors` must be (examples, points) with at least 2 of each, got shape {values.shape}")
    if not np.all((values >= 0) & (values <= 1)):
        raise OptionError(f"`errors` must lie between 0 and 1, got {values.min()} to {values.max()}: not a loss")
    return values


def _weighted(values: Floats, classes: ArrayLike | None) -> tuple[Floats, Floats, float]:
    """Weighted deviations from the class means (examples, points), the class-balanced curve, the largest weight.

    The deviations are stretched so that their squares, like a sample variance, lose nothing to the estimated means.
    """
    count = len(values)
    labels = np.zeros(count, dtype=np.int64) if classes is None else np.asarray(classes)
    if labels.shape != (count,):
        raise OptionError(f"`classes` must have shape ({count},) like `errors`, got {labels.shape}")
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), values.shape[1]))
    np.add.at(sums, inverse, values)
    means = sums / sizes[:, None]
    weights = count / (len(sizes) * sizes)
    stretched = weights * np.sqrt(sizes / np.maximum(sizes - 1, 1))
    return (values - means[inverse]) * stretched[inverse, None], means.mean(axis=0), float(weights.max())


@lru_cache(maxsize=8)
def _multipliers(seed: int, block: int, replicates: int) -> Floats:
    return np.random.default_rng((seed, block)).standard_normal((replicates, _BLOCK), dtype=np.float32)


def _critical_value(centred: Floats, error: Floats, level: float, replicates: int, seed: int) -> float:
    """The 1 - level quantile of max over i < j of the bootstrapped (J_j - J_i) / SE_ij, at least that of one pair.

    The floor matters where so few examples change that pseudo-counts make up most of every SE, to which the bootstrap
    adds nothing: without it two examples that both get worse would prove a rise.
    """
    rows = centred.astype(np.float32)
    draws = np.zeros((replicates, rows.shape[1]), dtype=np.float32)
    for block, start in enumerate(range(0, len(rows), _BLOCK)):
        part = rows[start : start + _BLOCK]
        draws += _multipliers(seed, block, replicates)[:, : len(part)] @ part
    draws /= len(rows)
    maximum = np.full(replicates, -np.inf, dtype=np.float32)
    for j in range(1, rows.shape[1]):
        scaled = (draws[:, j, None] - draws[:, :j]) / error[:j, j].astype(np.float32)
        np.maximum(maximum, scaled.max(axis=1), out=maximum)
    return max(float(np.quantile(maximum, 1 - level)), float(ndtri(1 - level)))


def _needed(rise: Floats, se: Floats, threshold: float, critical: float, count: int) -> int | None:
    """Examples at which the same estimates would decide: standard errors shrink with the root of the sample size."""
    gap = threshold - rise
    gap[np.abs(gap) <= _ROUNDING] = 0.0
    if np.all(gap > 0):
        factor = float(np.max(Z_975 * se / gap))
    elif np.any(gap < 0):
        factor = float(np.min(critical * se[gap < 0] / -gap[gap < 0]))
    else:
        return None
    return math.ceil(count * factor**2)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion. Raises OptionError unless 0 <= successes <= n and n > 0."""
    if not 0 <= successes <= n or n == 0:
        raise OptionError(f"a proportion needs 0 <= successes <= n with n > 0, got {successes} of {n}")
    z, share = float(ndtri((1 + confidence) / 2)), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(estimate=share, low=max(centre - half, 0.0), high=min(centre + half, 1.0), n=n)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's interval for the mean of paired differences, shape (n,). Raises OptionError for n < 2 or NaN."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.all(np.isfinite(sample)):
        raise OptionError(f"a mean needs at least 2 finite values in one dimension, got {sample!r}")
    half = sample.std(ddof=1) / math.sqrt(len(sample)) * stdtrit(len(sample) - 1, (1 + confidence) / 2)
    mean = float(sample.mean())
    return Interval(estimate=mean, low=mean - float(half), high=mean + float(half), n=len(sample))


def stratified_difference(
    strata: Sequence[tuple[Sequence[float], Sequence[float]]], confidence: float = 0.95
) -> Interval:
    """How much larger the first values are than the second ones, within strata: Student's interval for one difference.

    The model is a mean a stratum and one difference common to all, with equal variances: the estimate weighs each
    stratum's difference of means by n1 n2 / (n1 + n2). Raises OptionError for a stratum without values on one side,
    values that are not finite, or no degree of freedom left.
    """
    pairs = [tuple(np.asarray(side, dtype=np.float64) for side in sides) for sides in strata]
    total = sum(len(side) for sides in pairs for side in sides)
    free = total - len(pairs) - 1
    if not pairs or free < 1 or not all(len(side) and np.all(np.isfinite(side)) for sides in pairs for side in sides):
        raise OptionError(
            f"a stratified difference needs finite values on both sides of every stratum and more values than strata "
            f"plus 1, got {total} values in {len(pairs)} strata"
        )
    weights = np.array([len(a) * len(b) / (len(a) + len(b)) for a, b in pairs])
    differences = np.array([a.mean() - b.mean() for a, b in pairs])
    estimate = float(weights @ differences / weights.sum())
    within = sum(float(((side - side.mean()) ** 2).sum()) for sides in pairs for side in sides)
    residual = within + float(weights @ (differences - estimate) ** 2)
    half = math.sqrt(residual / free / weights.sum()) * float(stdtrit(free, (1 + confidence) / 2))
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, n=total)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two lists of equal length, with mean ranks for ties.

    0 where either does not vary, NaN where a value is not finite. Raises OptionError for lists of another length.
    """
    pair = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape:
        shapes = " and ".join(str(values.shape) for values in pair)
        raise OptionError(f"a rank correlation needs two lists of one length, got shapes {shapes}")
    if not all(np.isfinite(values).all() for values in pair):
        return math.nan
    below, same = ([how(v[None, :], v[:, None]).sum(axis=1) for v in pair] for how in (np.less, np.equal))
    ranks = [less + (equal - 1) / 2 for less, equal in zip(below, same, strict=True)]
    if not all(np.ptp(row) for row in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def paired_proportions(first: Sequence[bool], second: Sequence[bool], confidence: float = 0.95) -> Interval:
    """How much more often something happens in `first` than in `second`, over matched pairs.

    The interval is Agresti and Min's (2005): half a pair is added to each cell of the 2 x 2 table of pairs, which
    keeps its coverage for few pairs and never gives it zero width. Raises OptionError for unequal or empty input.
    """
    if len(first) != len(second) or len(first) == 0:
        raise OptionError(f"matched pairs need two equally long, non-empty lists, got {len(first)} and {len(second)}")
    ups = sum(a and not b for a, b in zip(first, second, strict=True))
    downs = sum(b and not a for a, b in zip(first, second, strict=True))
    total, up, down = len(first) + 2, ups + 0.5, downs + 0.5
    centre = (up - down) / total
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt(up + down - (up - down) ** 2 / total) / total
    low, high = max(centre - half, -1.0), min(centre + half, 1.0)
    return Interval(estimate=(ups - downs) / len(first), low=low, high=high, n=len(first))
