"""T36: whether the error curve follows from scale invariance and from robustness to noise, each alone and together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mli_check.paths import LinearPath
from mli_check.results import Chart, Series
from mli_check.verdicts import all_of, all_positive, at_most

SUBJECTS = ["fcn4-digits", "fcn4-gaussian", "lenet-digits", "vgg-digits", "vgg-bn-digits"]
LARGE = ["fcn4-mnist", "vgg8-cifar10", "vgg8-bn-cifar10", "vgg16-bn-cifar10", "resnet8-cifar10", "resnet20-cifar10"]
DRAWN = 10  # networks in the chart
CLOSE = 0.05  # of the total drop, averaged over alpha: as close as curves of nearly the same shape are (T3)
KINDS = {"scale": "scale invariance alone", "noise": "robustness to noise alone", "both": "both"}


def together(scale, noise, end, chance):
    """The error that follows if a scaled network and a perturbed one fail independently of each other.

    Of `scale` and `noise` (errors, 0 to 1) each keeps a share of the examples that the trained network has right, whose
    error is `end`; both keep the product of the shares. No error is above `chance`.
    """
    right = (1 - np.asarray(scale)) * (1 - np.asarray(noise)) / (1 - end)
    return 1 - np.clip(right, 1 - chance, 1.0)


def distance(observed, predicted, alphas):
    """The mean distance of two curves over alpha, as a share of the observed one's drop; NaN where it has none."""
    drop = float(observed[0] - observed[-1])
    return float(np.trapezoid(np.abs(observed - predicted), alphas)) / drop if drop > 0 else float("nan")


def criterion(distances):
    """Distances by kind of prediction, networks in the same order."""
    nearer = {
        f"{KINDS[kind]} minus both": [a - b for a, b in zip(distances[kind], distances["both"], strict=True)]
        for kind in ("scale", "noise")
    }
    alone, both = "distance of one alone minus that of both", "distance of the prediction from both"
    return all_of(
        {
            "neither alone": all_positive(nearer, f"{alone} (share of the drop)"),
            "both together": at_most(distances["both"], CLOSE, f"{both} (share of the drop)"),
        }
    )


def noise_alone(table, index, left):
    """The path theta_F + r epsilon with the left end epsilon, and its r by falling alpha > 0.

    With r = (1 - alpha) / alpha a scale invariant network performs on it as at alpha theta_F + (1 - alpha) epsilon.
    """
    final, noise = table.here(table.run(table.settings[index]).final), table.here(table.left_end(index, left))
    moved = {name: tensor + noise[name] if tensor.is_floating_point() else tensor for name, tensor in final.items()}
    ratios = 1 / table.alphas[table.alphas > 0] - 1
    return LinearPath(final, moved), [float(ratio) for ratio in ratios[::-1]]


def predictions(table, left, noise):
    """By kind, the errors that are predicted for the paths from `left`, where `noise` is the left end that perturbs."""
    moves = [noise_alone(table, index, noise) for index in range(len(table.settings))]
    noisy = table.measure([path for path, _ in moves], alphas=moves[0][1], allow_diverged=True)
    chance = 1 - 1 / table.test.classes
    found = {"scale": [curve.balanced_error for curve in table.curves("zero")]}
    found["noise"] = [np.append(chance, curve.balanced_error[::-1]) for curve in noisy]  # alpha = 0: noise only
    found["both"] = [
        together(scale, noise, curve.balanced_error[-1], chance)
        for curve, scale, noise in zip(table.curves(left), found["scale"], found["noise"], strict=True)
    ]
    return found


def distances_of(table, left, noise):
    """By kind, the distance of each prediction from the curve it is of; and the predictions."""
    predicted, observed = predictions(table, left, noise), [curve.balanced_error for curve in table.curves(left)]
    distances = {
        kind: [distance(*pair, table.alphas) for pair in zip(observed, lines, strict=True)]
        for kind, lines in predicted.items()
    }
    return distances, predicted


@pytest.mark.claim(
    id="T36",
    expected=dict.fromkeys(["fcn4-digits", "fcn4-gaussian"], "reproduced")
    | {"lenet-digits": "inconclusive"}
    | dict.fromkeys(["vgg-digits", "vgg-bn-digits"], "not reproduced"),
    reason="VGG: noise alone predicts the curve as well as both do; LeNet: both together are nearer than noise alone "
    "by 0.02 to 0.04 of the drop, which ten networks do not decide with all seeds",
)
@pytest.mark.parametrize("subject", [*SUBJECTS, *LARGE], indirect=True)
def test_error_curve_follows_from_scale_invariance_and_noise_together(mli, bench, subject):
    """The class-balanced test error along alpha theta_F + (1 - alpha) theta_0' from an unrelated theta_0' is predicted
    in three ways: from scale invariance alone, by the error of alpha theta_F; from robustness to noise alone, by that
    of theta_F + (1 - alpha) / alpha theta_0'' with another unrelated draw; from both, by the product of the shares of
    right answers that each keeps, at most chance error. The distance of a prediction is its mean absolute difference
    over alpha, a share of the total drop. Reproduced if over at least 10 networks the 95% intervals of the mean
    differences, the distance from each alone minus that from both, lie above 0, and that of the mean distance from both
    lies at or below 0.05. Not reproduced if a difference is surely below 0.02 or the distance from both surely above
    0.05; else inconclusive. Recorded: the distances on the path from the own theta_0, with theta_0 itself as the noise.
    """
    table = bench(subject)
    distances, predicted = distances_of(table, "unrelated", "unrelated 2")
    ruling = criterion(distances)
    details = {f"mean distance, {KINDS[kind]}": float(np.mean(found)) for kind, found in distances.items()}
    own, _ = distances_of(table, "own", "own")
    details |= {f"from the own theta_0, mean distance, {KINDS[kind]}": float(np.mean(f)) for kind, f in own.items()}
    observed, alphas = table.curves("unrelated"), table.alphas
    series = [Series("observed", f"network {i}", curve.balanced_error) for i, curve in enumerate(observed[:DRAWN])]
    for kind, found in predicted.items():
        series += [Series(KINDS[kind], f"network {i}", line, "dashed") for i, line in enumerate(found[:DRAWN])]
    caption = (
        "The paper reads its Figures 6 and 14 as showing that scale invariance and robustness to noise jointly make "
        "the curve; it predicts none. Here each curve is predicted from either and from both."
    )
    title = "Test error from unrelated initialisations to theta_F, observed and predicted"
    chart = Chart(title, "alpha", "test error (class-balanced)", alphas, series, caption)
    ruling = replace(ruling, details={**ruling.details, **details})
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)
