"""T9: the demonstration in the paper's Appendix C, with many draws of its noise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mli_check import curves
from mli_check.results import Chart, Series
from mli_check.verdicts import all_of, usually

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
