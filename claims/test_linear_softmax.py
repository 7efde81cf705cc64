"""T9, X10: the demonstration in the paper's Appendix C, with many draws of its noise, and why it must come out so."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mli_check import curves
from mli_check.losses import cross_entropy
from mli_check.results import Chart, Series
from mli_check.verdicts import agrees, all_of, usually

DRAWS, POINTS = 100, 21  # the paper shows one draw, at 21 points
SHOWN = 20  # curves in the chart
USUALLY = 0.9  # of the draws
ROUNDING = 1e-9  # nats; float64 losses of up to a few hundred nats


def criterion(losses, errors):
    """Curves of loss and error, one a draw: both fall at every step, in more than 9 of 10 draws."""
    falling = [curves.delta(values) <= ROUNDING for values in losses]
    monotone = [curves.is_monotone(values) for values in errors]
    return all_of(
        {
            "loss": usually(falling, USUALLY, "share of draws in which the loss never rises"),
            "error": usually(monotone, USUALLY, "share of draws in which the error never rises"),
        }
    )


def fitted(images, labels):
    """The weights (classes, pixels) of a linear softmax classifier without intercept, as the paper fits it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 500 iterations, whether they are enough or not
        return LogisticRegression(max_iter=500, fit_intercept=False).fit(images, labels).coef_


def along(images, labels, noise, weights, alphas):
    """Mean cross-entropy (nats) and error on all images at every (1 - alpha) * noise + alpha * weights."""
    ends = [images @ matrix.T for matrix in (noise, weights)]  # logits are linear in the weights
    rows = np.arange(len(labels))
    losses, errors = [], []
    for alpha in alphas:
        logits = (1 - alpha) * ends[0] + alpha * ends[1]
        losses.append(-log_softmax(logits, axis=1)[rows, labels].mean())
        errors.append(float(np.mean(logits.argmax(axis=1) != labels)))
    return losses, errors


@pytest.mark.claim(id="T9", expected="reproduced")
def test_linear_softmax_on_digits_falls_from_noise(mli, pytestconfig):
    """scikit-learn's digits, a softmax classifier without intercept fitted to all 1,797 images, and 100 draws of
    standard normal noise instead of the paper's one: loss and error on the fitted images at 21 points. The images are
    the whole population, so a rise is any rise (of the loss, beyond rounding). Reproduced if loss and error each never
    rise in a share of draws whose 95% Wilson interval lies above 0.9; not reproduced if that of either lies below; else
    inconclusive.
    """
    images, labels = load_digits(return_X_y=True)
    weights, alphas = fitted(images, labels), np.linspace(0, 1, POINTS)
    rng = np.random.default_rng(pytestconfig.getoption("--mli-seed-offset"))
    found = [along(images, labels, rng.standard_normal(weights.shape), weights, alphas) for _ in range(DRAWS)]
    losses, errors = ([pair[which] for pair in found] for which in (0, 1))
    charts = [
        Chart(
            f"{what} from noise to the fitted classifier, {SHOWN} of {DRAWS} draws",
            "alpha",
            unit,
            alphas,
            [Series("noise", f"draw {index}", values) for index, values in enumerate(lines[:SHOWN])],
        )
        for what, unit, lines in (("Loss", "loss (nats)", losses), ("Error", "error on the fitted images", errors))
    ]
    mli.record(criterion(losses, errors), subject="softmax-digits", charts=charts)


# X10

IMAGES, FINE = 500, 51  # the first images, enough for 64 pixels, and points
STRENGTHS = (1e-4, 1e-2, 1.0)  # lambda, the weight decay of the mean loss
STATIONARY = 1e-10  # the norm of the gradient of the regularised loss
SCALES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e3)  # of ||N|| / ||W||
RANDOM = 3  # draws a kind and scale
CLOSE = 1e-12  # of the largest loss on the line: rounding of float64
DRAWN = (-1.0, 0.1, 1.0, 10.0)  # scales in the chart, the first draw of each


@dataclass(frozen=True)
class Line:
    """The loss at equal steps from a noise N to W, and whether W . (W - N) >= 0, up to rounding."""

    holds: bool
    losses: Sequence[float]

    @property
    def concave(self) -> float:
        """Its most negative second difference, as a share of its maximum."""
        return float(-np.diff(self.losses, n=2).min() / np.max(self.losses))

    @property
    def rise(self) -> float:
        """Its largest rise, as a share of its maximum."""
        return curves.delta(self.losses) / float(np.max(self.losses))

    @property
    def shape(self) -> NDArray[np.float64]:
        """The losses above that of W, from 1 (from -1 where N has the lower one) to 0."""
        above = np.asarray(self.losses) - self.losses[-1]
        return above / abs(above[0])


def size(matrix) -> float:
    """The Euclidean norm."""
    return float(np.linalg.norm(matrix))


def gradient(images, labels, weights):
    """The gradient of the mean loss without weight decay, shape (classes, pixels)."""
    return (softmax(images @ weights.T, axis=1) - np.eye(len(weights))[labels]).T @ images / len(labels)


def stationary(images, labels, strength):
    """W (classes, pixels), the minimum of mean loss + lambda / 2 ||W||^2, and the norm of that sum's gradient there."""
    options = {"solver": "newton-cholesky", "tol": 1e-13, "fit_intercept": False}
    weights = LogisticRegression(C=1 / (strength * len(labels)), **options).fit(images, labels).coef_
    return weights, size(gradient(images, labels, weights) + strength * weights)


def random_noises(weights, rng):
    """Draws of every scale, by kind, scale and number: Gaussian, sparse, orthogonal to W, and these added to W."""
    found = {}
    for scale, draw in product(SCALES, range(RANDOM)):
        normal = rng.standard_normal(weights.shape)
        sparse = normal * (rng.random(weights.shape) < 0.01)
        sparse.flat[rng.integers(weights.size)] = 1.0  # so that it is never all zero
        level = normal - (normal * weights).sum() / (weights**2).sum() * weights
        for kind, noise in (("Gaussian", normal), ("sparse", sparse), ("orthogonal to W", level)):
            found[kind, scale, draw] = noise * scale * size(weights) / size(noise)
        found["W . N = ||W||^2", scale, draw] = weights + found["orthogonal to W", scale, draw]
    return found


def chosen_noises(images, labels, weights):
    """Multiples of W, also beyond it, and of the loss's gradients at W / 2, 0 and -W, by kind, scale and number."""
    multiples = (-1e3, -10.0, -1.0, 0.0, 0.5, 0.99, 1.01, 1.5, 3.0, 10.0, 1e3)
    found = {("multiple of W", factor, 0): factor * weights for factor in multiples}
    for where in (0.5, 0.0, -1.0):  # at W itself the gradient is -lambda W
        direction = gradient(images, labels, where * weights)
        unit = size(weights) / size(direction) * direction
        found |= {(f"gradient at {where:g} W", factor, 0): factor * unit for factor in (-100.0, -1.0, 1.0, 100.0)}
    return found


def followed(images, labels, noise, weights) -> Line:
    """The mean cross-entropy (nats) on all images at the points of the line from N to W."""
    ends = [torch.from_numpy(images @ matrix.T) for matrix in (noise, weights)]  # logits are linear in the weights
    alphas = torch.linspace(0, 1, FINE, dtype=torch.float64)[:, None, None]
    logits, targets = torch.lerp(*ends, alphas).flatten(0, 1), torch.from_numpy(labels).repeat(FINE)
    losses = cross_entropy(logits, targets).reshape(FINE, -1).mean(dim=1).numpy()
    inner = float((weights * (weights - noise)).sum())
    return Line(inner >= -CLOSE * size(weights) * size(weights - noise), losses)


def convex_criterion(found, residuals):
    """Lines by lambda and noise, and the norms of the regularised gradient by lambda."""
    true = {s: {noise: one for noise, one in lines.items() if one.holds} for s, lines in found.items()}
    named = {f"lambda = {s:g}, {noise}": one for s, lines in true.items() for noise, one in lines.items()}
    few = {f"lambda = {s:g}, only {len(lines)} draws": math.nan for s, lines in true.items() if len(lines) < DRAWS}
    rising = {
        f"lambda = {s:g}": 0.0 if any(one.rise > CLOSE for one in lines.values() if not one.holds) else math.nan
        for s, lines in found.items()
    }
    norms = {f"lambda = {s:g}": norm if norm < STATIONARY else math.nan for s, norm in residuals.items()}
    concave, rises = ({name: getattr(one, what) for name, one in named.items()} for what in ("concave", "rise"))
    share = "as a share of its maximum"
    return all_of(
        {
            "convex": agrees(concave | few, CLOSE, f"most negative second difference of the loss, {share}"),
            "falls": agrees(rises | few, CLOSE, f"largest rise of the loss, {share}"),
            "W is stationary": agrees(norms, STATIONARY, "norm of the regularised loss's gradient"),
            "controls rise": agrees(rising, 0, "strengths at which no control rises"),
        }
    )


@pytest.mark.claim(id="X10", expected="reproduced")
def test_loss_of_a_softmax_classifier_is_convex_and_falls_from_any_noise_on_its_side(mli, pytestconfig):
    """500 of scikit-learn's digits and softmax classifiers W without intercept, stationary points of the mean loss plus
    lambda / 2 ||W||^2, lambda = 1e-4, 0.01, 1 (gradient norm below 1e-10). Noises N of 0.001 to 1000 times the size of
    W: Gaussian, sparse, orthogonal to W, these added to W, multiples of W and of the loss's gradients. Reproduced if,
    for each lambda and at least 100 of them with W . (W - N) >= 0, the loss without weight decay on the fitted images
    at 51 points from N to W is convex (second differences of at least -1e-12 of its maximum) and falls (never rises by
    more than that); not reproduced if any is otherwise. Inconclusive if W is not stationary or if of the controls,
    noises with W . (W - N) < 0, none rises, for then the condition would show nothing.
    """
    images, labels = (part[:IMAGES] for part in load_digits(return_X_y=True))
    rng = np.random.default_rng(pytestconfig.getoption("--mli-seed-offset"))
    found, residuals, details = {}, {}, {}
    for strength in STRENGTHS:
        weights, residuals[strength] = stationary(images, labels, strength)
        noises = random_noises(weights, rng) | chosen_noises(images, labels, weights)
        found[strength] = {key: followed(images, labels, noise, weights) for key, noise in noises.items()}
        controls = [one for one in found[strength].values() if not one.holds]
        details |= {
            f"noises with W . (W - N) >= 0, lambda = {strength:g}": len(noises) - len(controls),
            f"controls, lambda = {strength:g}": f"{sum(one.rise > CLOSE for one in controls)} of {len(controls)} rise",
            f"size of W, lambda = {strength:g}": size(weights),
        }
    ruling = convex_criterion(found, residuals)
    charts = [lines_chart(strength, lines) for strength, lines in found.items()]
    mli.record(replace(ruling, details={**ruling.details, **details}), subject="softmax-digits", charts=charts)


def lines_chart(strength, lines):
    """Some of the lines of one strength, by kind of noise; the controls are a group of their own."""
    series = [
        Series(kind if one.holds else "control: W . (W - N) < 0", f"{kind}, {scale:g}", one.shape)
        for (kind, scale, draw), one in lines.items()
        if draw == 0 and (scale in DRAWN or not one.holds)
    ]
    title = f"Loss from noise to the fitted classifier, lambda = {strength:g}"
    return Chart(title, "alpha", "loss above W's, over N's above W's", np.linspace(0, 1, FINE), series, CAPTION)


CAPTION = (
    "The paper's Appendix C shows one such curve, from Gaussian noise. From every noise with W . (W - N) >= 0 it is "
    "convex and falls, as it must; from those beyond W, where the loss is lower (it starts at -1), it rises."
)
