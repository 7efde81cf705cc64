"""X4: one forward pass predicts where each example changes its class on the zero path, if the last bias is alone."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from mli_check import curves
from mli_check.paths import ScaledPath
from mli_check.results import Chart, Series
from mli_check.statistics import rank_correlation
from mli_check.theory import Flips, last_bias_flips
from mli_check.training.fit import network
from mli_check.verdicts import FEWEST_NETWORKS, Constancy, agrees, all_of, all_positive, compare, unchanged
from mli_check.verdicts.constancy import CLOSE

DEPTHS = (1, 3, 5, 7)  # hidden layers
WIDTH, EPOCHS, RATE = 64, 10, 0.02  # at the subject's 0.05 a deep network may diverge


@dataclass(frozen=True)
class Followed:
    """One network along alpha * theta_F, measured at every alpha > 0 of the curve and predicted from one pass.

    `outputs` compares predictions, `flips` are the steps of single examples to another class, `misplaced` those that
    are measured or predicted and not both. Plateaus are those of the class-balanced error.
    """

    outputs: Constancy
    flips: int
    misplaced: int
    plateau: float


def of_depth(setting, depth):
    """The setting with so many hidden layers, no bias but that of the logits, and weights that deep networks need."""
    model = replace(setting.model, hidden=(WIDTH,) * depth, hidden_bias=False, init="kaiming")
    return replace(setting, model=model).with_recipe(epochs=EPOCHS, lr=RATE)


def one_pass(model, final, data):
    """Outputs at `final` without its only bias, shape (n, classes), and that bias, shape (classes,), in float64."""
    (name,) = (name for name in final if name.endswith("bias"))
    state = {key: tensor.double().to(data.targets.device) for key, tensor in final.items()}
    bias = state[name].cpu().numpy()
    state[name] = torch.zeros_like(state[name])
    replica = copy.deepcopy(model).to(data.targets.device, torch.float64)
    with torch.inference_mode():
        return functional_call(replica, state, (data.rows(slice(None)).double(),)).cpu().numpy(), bias


def outputs_at(alphas, scores, bias, layers):
    """alpha (alpha^(L - 1) s + b): the logits that are predicted at every alpha > 0."""
    points = alphas[:, None, None]
    return points * (points ** (layers - 1) * scores + bias)


def misplaced(measured, predicted, wanted) -> int:
    """Steps to another class, of `measured` or `predicted` classes (points, n), that are not the same in both.

    Steps that start or end where the two largest of the `wanted` outputs lie within rounding are not judged.
    """
    two = np.partition(wanted, -2, axis=-1)[..., -2:]
    clear = two[..., 1] - two[..., 0] > CLOSE * np.abs(wanted).max(axis=-1)
    steps = (measured[1:] != measured[:-1]) | (predicted[1:] != predicted[:-1])
    alike = (measured == predicted)[1:] & (measured == predicted)[:-1]
    return int(np.count_nonzero(steps & ~alike & clear[1:] & clear[:-1]))


def followed(curve, scores, bias, layers) -> tuple[Followed, Flips]:
    """What the curve of one network, from alpha = 0 and with logits, says of the predictions."""
    alphas, measured = curve.alphas[1:], curve.logits[1:]
    wanted, flips = outputs_at(alphas, scores, bias, layers), last_bias_flips(scores, bias, layers)
    classes = measured.argmax(axis=-1)
    found = Followed(
        outputs=compare(measured, wanted, np.zeros(len(alphas), dtype=bool)),
        flips=int(np.count_nonzero(np.diff(classes, axis=0))),
        misplaced=misplaced(classes, flips.at(alphas), wanted),
        plateau=curve.plateau("balanced_error"),
    )
    return found, flips


def criterion(networks):
    """Networks by their number of hidden layers, in the order of their seeds; a depth without flips shows nothing."""
    named = {f"{depth} deep, network {i}": one for depth, found in networks.items() for i, one in enumerate(found)}
    some = {depth: any(one.flips for one in found) for depth, found in networks.items()}
    by_seed = zip(*([one.plateau for one in found] for found in networks.values()), strict=True)
    growth = [rank_correlation(list(networks), plateaus) for plateaus in by_seed]
    return all_of(
        {
            "every prediction": unchanged([one.outputs for one in named.values()]),
            "every flip": agrees(
                {name: float(one.misplaced) for name, one in named.items()}
                | {f"{depth} deep, no flip": float("nan") for depth, any_flip in some.items() if not any_flip},
                0,
                "flips of examples between other points than predicted (of the network with the most)",
            ),
            "longer with depth": all_positive(
                {"rank correlation": growth}, "rank correlation of the plateau with the number of hidden layers"
            ),
        }
    )


@pytest.mark.claim(id="X4", expected="reproduced")
@pytest.mark.parametrize("subject", ["fcn4-digits"], indirect=True)
def test_one_pass_predicts_where_each_example_flips(mli, bench, subject):
    """Fully connected ReLU networks of 1, 3, 5 and 7 hidden layers of 64 whose only bias b is that of the logits, 10 of
    each (a seed of which one diverges is left out), along alpha theta_F at 51 points. Reproduced if in every network
    each test example's class at every alpha > 0 is argmax(alpha^(L-1) s + b), L the number of layers, with s from one
    forward pass at theta_F without b, where the two largest logits differ by more than 1e-4 of the largest; if each
    step of an example to another class lies between the two points between which alpha^(L-1) (s_y - s_k) = b_k - b_y is
    met, and each of these is such a step; and if the plateau (the smallest alpha at which the class-balanced error has
    fallen by a tenth of its drop) grows with L: 95% interval of the mean rank correlation over the depths of a seed
    above 0. Not reproduced if any class or step is otherwise, or the correlation is surely below 0.02; inconclusive if
    over 1% of predictions lie within rounding, or fewer than 10 seeds are left.
    """
    table = bench(subject)
    chosen = table.settings[:FEWEST_NETWORKS]
    settings = [of_depth(setting, depth) for depth in DEPTHS for setting in chosen]
    runs = np.array(table.runs(settings), dtype=object).reshape(len(DEPTHS), len(chosen))
    whole = [seed for seed in range(len(chosen)) if not any(run.diverged for run in runs[:, seed])]
    networks, details, lines = {}, {"seeds left out, a network diverged": len(chosen) - len(whole)}, []
    for depth, found in zip(DEPTHS, runs[:, whole], strict=True):
        model, finals = network(of_depth(chosen[0], depth), table.train), [run.final for run in found]
        measured = table.measure([ScaledPath(table.here(f)) for f in finals], model=model, keep="logits")
        passes = [one_pass(model, final, table.test) for final in finals]
        pairs = [followed(curve, *one, depth + 1) for curve, one in zip(measured, passes, strict=True)]
        networks[depth] = [one for one, _ in pairs]
        predicted = [predicted_error(flips, measured[0]) for _, flips in pairs]
        details |= described(depth, pairs, passes, predicted, table.alphas)
        errors = np.mean([curve.balanced_error for curve in measured], axis=0)
        details[f"mean test error at theta_F, {depth} hidden"] = float(errors[-1])
        group = f"{depth} hidden layer{'s' if depth > 1 else ''}"
        lines.append(Series(group, "measured", errors))
        lines.append(Series(group, "predicted", np.mean(predicted, axis=0), style="dashed"))
    ruling = criterion(networks)
    chart = Chart("Test error of alpha * theta_F", "alpha", ERROR, table.alphas, lines, CAPTION)
    ruling = replace(ruling, details={**ruling.details, **details})
    mli.record(ruling, subject=subject, charts=[chart], settings=settings, device=table.device)


ERROR = "test error (class-balanced), mean over networks"
CAPTION = (
    "None of the papers has this figure; Wang et al. explain plateaus by the last bias and depth. One forward pass at "
    "theta_F predicts (dashed) where each example's class changes, and so the whole curve that is measured (solid)."
)


def predicted_error(flips: Flips, curve) -> NDArray[np.float64]:
    """The class-balanced error at every alpha of a curve, from the flips alone; chance where all outputs tie."""
    wrong = flips.at(curve.alphas[1:]) != curve.classes
    labels = np.unique(curve.classes)
    by_class = [wrong[:, curve.classes == label].mean(axis=1) for label in labels]
    return np.concatenate([[1 - 1 / flips.classes.shape[1]], np.mean(by_class, axis=0)])


def described(depth, pairs, passes, predicted, alphas):
    """Figures of the networks of one depth, for the record."""
    last = np.concatenate([np.nanmax(one.alphas[np.isfinite(one.alphas[:, 0])], axis=1) for _, one in pairs])
    return {
        f"mean plateau, {depth} hidden": float(np.mean([one.plateau for one, _ in pairs])),
        f"mean plateau as predicted, {depth} hidden": float(np.mean([curves.plateau(p, alphas) for p in predicted])),
        f"median alpha of an example's last flip, {depth} hidden": float(np.median(last)) if len(last) else None,
        f"flips measured, {depth} hidden": sum(one.flips for one, _ in pairs),
        f"mean spread of b over that of s, {depth} hidden": float(np.mean([b.std() / s.std() for s, b in passes])),
    }
