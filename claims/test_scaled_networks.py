"""T18, T29, T32: how far alpha * theta_F departs from theta_F, and that GSI and RSI do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from mli_check.paths import RectifiedPath, ScaledPath
from mli_check.statistics import rank_correlation
from mli_check.symmetry import gsi
from mli_check.verdicts import all_of, all_positive, at_most, unchanged
from mli_check.workbench import SCALES, error_chart

GROUPS = ["lenet-digits", "lenet-no-bias-digits", "lenet-bn-digits", "lenet-bn-no-bias-digits"]
A_POINT = 0.01  # of error
SMALL_ALPHA = 0.1
BIASED = ["fcn4-digits"]
ALIKE = ["lenet-no-bias-digits", "lenet-bn-no-bias-digits", "resnet8-digits"]
BIAS_FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0)
AS_GOOD = 0.05  # of the total drop: as much as a rise may be


# T29


def finals(table):
    """The trained states of a subject's networks."""
    return [table.run(setting).final for setting in table.settings]


def invariant(table, final):
    """GSI(final, alpha) where the network has neither biases nor BN, else RSI(final, alpha)."""
    model = table.subject.setting.model
    if model.bias or model.batch_norm:
        return RectifiedPath(final, table.symmetries)
    factors = gsi(table.symmetries, dict.fromkeys(table.symmetries.weights, 2.0), restore=None)
    return ScaledPath(final, exponents=table.symmetries.logs(factors))


def largest_change(curves):
    """The largest difference from theta_F's error for alpha > 0, over networks."""
    return float(max(np.abs(curve.balanced_error[1:] - curve.balanced_error[-1]).max() for curve in curves))


def settled(curves):
    """The alpha from which on the class-balanced error of no network is more than a point off theta_F's."""
    off = [np.abs(curve.balanced_error - curve.balanced_error[-1]) > A_POINT for curve in curves]
    return SCALES[max(int(np.flatnonzero(row).max(initial=-1)) for row in off) + 1]


@pytest.mark.claim(id="T29", expected="reproduced")
@pytest.mark.parametrize("subject", GROUPS, indirect=True)
def test_error_of_scale_invariant_networks_is_flat(mli, bench, subject):
    """GSI(theta_F, alpha) of networks with neither biases nor BN, RSI(theta_F, alpha) of all others, nothing restored,
    at 10 alphas from 1/64 to 1. BN statistics are recalculated, and eta, which the paper neglects, follows the variance
    beside it (alpha^2 or alpha^4 times as large). Reproduced if in each of 10 networks all logits at 1/64, 1/16 and 1/2
    are theta_F's times the product of the factors to the bit, and at the other alphas no test image changes its class
    where theta_F's two largest logits differ by more than 1e-4 of the largest. Not reproduced if any does; inconclusive
    if over 1% of images lie within that. What the usual eta changes is recorded.
    """
    table = bench(subject)
    paths = [invariant(table, final) for final in finals(table)]
    curves = [table.scaled_curve(path, eta_follows=True) for path in paths]
    ruling = unchanged([table.constancy(path, curve) for path, curve in zip(paths, curves, strict=True)])
    name = "RSI" if subject.setting.model.bias or subject.setting.model.batch_norm else "GSI"
    groups = {f"{name}(theta_F, alpha)": curves}
    details = {**ruling.details, "largest change of error": largest_change(curves)}
    if subject.setting.model.batch_norm:
        usual = [table.scaled_curve(path) for path in paths]
        groups[f"{name}(theta_F, alpha) with the usual eta"] = usual
        details["largest change of error with the usual eta"] = largest_change(usual)
        details["alpha from which it is at most 0.01"] = settled(usual)
    groups["alpha * theta_F"] = [table.scaled_curve(ScaledPath(path.final)) for path in paths]
    details["largest change of error of alpha * theta_F"] = largest_change(groups["alpha * theta_F"])
    chart = error_chart(f"Test error of {subject.title}, scaled", groups)
    ruling = replace(ruling, details=details)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


# T32


def excess(curve):
    """How far the class-balanced error at alpha = 0.1 lies above theta_F's."""
    return float(curve.balanced_error[SCALES.index(SMALL_ALPHA)] - curve.balanced_error[-1])


def head_criterion(excesses, rectified, head_alone):
    """Excesses of NSI, and what becomes of the outputs of RSI and of NSI with homogeneous biases in its head."""
    label = "error of alpha * theta_F minus theta_F's at alpha = 0.1"
    return all_of(
        {
            "NSI is weakened": all_positive({"alpha = 0.1": excesses}, label),
            "RSI holds": unchanged(rectified),
            "by the head's biases alone": unchanged(head_alone),
        }
    )


def head_path(table, final):
    """alpha * final, but the biases of the linear layers as RSI has them."""
    linear = [name for name, layer in table.model.named_modules() if isinstance(layer, nn.Linear)]
    rectified = RectifiedPath(final, table.symmetries).exponents
    return ScaledPath(final, exponents={f"{name}.bias": rectified[f"{name}.bias"] for name in linear})


@pytest.mark.claim(id="T32", expected="reproduced")
@pytest.mark.parametrize("subject", ["lenet-bn-digits"], indirect=True)
def test_biases_of_the_fully_connected_layers_weaken_nsi(mli, bench, subject):
    """LeNet with BN after its convolutions, NSI(theta_F, alpha) = alpha theta_F, BN statistics recalculated and eta
    following, so that biases alone are judged. Reproduced if at alpha = 0.1 the class-balanced test error lies above
    theta_F's (95% interval of the mean over at least 10 networks above 0), RSI holds as in T29, and alpha theta_F with
    only the linear layers' biases as in RSI changes no prediction either (but for rounding, as in T29). Not reproduced
    if the excess is surely below 0.02 or any output changes; else inconclusive. The usual eta is recorded.
    """
    table = bench(subject)
    states = finals(table)
    normalised, usual = ([table.scaled_curve(ScaledPath(s), eta_follows=f) for s in states] for f in (True, False))
    paths = {"RSI": [RectifiedPath(s, table.symmetries) for s in states], "head": [head_path(table, s) for s in states]}
    curves = {name: [table.scaled_curve(path, eta_follows=True) for path in found] for name, found in paths.items()}
    found = {name: [table.constancy(*pair) for pair in zip(paths[name], curves[name], strict=True)] for name in paths}
    only_predictions = [replace(one, unequal=None) for one in found["head"]]  # BN rounds the biases that it removes
    ruling = head_criterion([excess(curve) for curve in normalised], found["RSI"], only_predictions)
    details = {
        **ruling.details,
        "plateau of alpha * theta_F": mean_plateau(normalised),
        "plateau of alpha * theta_F with the usual eta": mean_plateau(usual),
        "plateau of RSI": mean_plateau(curves["RSI"]),
    }
    groups = {"alpha * theta_F": normalised, "alpha * theta_F, usual eta": usual, "RSI(theta_F, alpha)": curves["RSI"]}
    chart = error_chart("Test error of LeNet with BN after its convolutions", groups)
    ruling = replace(ruling, details=details)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


def mean_plateau(curves):
    """The mean over networks of the plateau of the class-balanced error."""
    return float(np.mean([curve.plateau("balanced_error") for curve in curves]))


# T18


def gap(curve):
    """The mean over alpha from 1/64 to 1 of error(alpha theta) - error(theta): class-balanced, trapezoids."""
    alphas, errors = curve.alphas[1:], curve.balanced_error[1:]
    return float(np.trapezoid(errors - errors[-1], alphas) / (alphas[-1] - alphas[0]))


def size_criterion(gaps, without):
    """Gaps by bias factor (without 0), networks in the same order, and what becomes of the outputs without biases."""
    by_network = list(zip(*gaps.values(), strict=True))
    correlations = [rank_correlation(list(gaps), values) for values in by_network]
    widest = [values[-1] - values[0] for values in by_network]
    grows = {"rank correlation with c": correlations, f"gap at c = {max(gaps)} minus at {min(gaps)}": widest}
    return all_of(
        {
            "grows with the biases": all_positive(grows, "growth of the gap with the biases"),
            "none without biases": unchanged(without),
        }
    )


def alike_criterion(shares):
    """Gaps as shares of the drop, by network: see `at_most`."""
    return at_most(shares, AS_GOOD, "mean error of alpha theta above theta's (share of the drop)")


def with_biases(state, factor):
    """The state with every bias multiplied."""
    return {name: tensor * factor if name.endswith(".bias") else tensor for name, tensor in state.items()}


@pytest.mark.claim(
    id="T18",
    expected={
        **dict.fromkeys([*BIASED, *ALIKE], "reproduced"),
        "resnet8-digits": "inconclusive",
    },
    reason="ResNet8 is near the limit: its mean gap is 0.044 of the drop, and 0.047 and 0.050 with other seeds, which "
    "is undecided; the usual eta makes about half of it, the last bias a quarter (X3)",
)
@pytest.mark.parametrize("subject", [*BIASED, *ALIKE], indirect=True)
def test_gap_between_alpha_theta_and_theta_is_set_by_the_biases(mli, bench, subject):
    """The gap of a network is the mean over alpha from 1/64 to 1 of the class-balanced test error of alpha theta minus
    that of theta. With biases and no BN: theta_c is theta_F with its biases multiplied by c = 0, 1/4, 1/2, 1, 2.
    Reproduced if over at least 10 networks the gap grows with c > 0 (95% intervals of the mean rank correlation and of
    the gap at 2 minus that at 1/4 above 0) and at c = 0 no output changes but for its factor (as in T29); not
    reproduced if either is surely below 0.02 or an output changes. Without biases or with BN (statistics recalculated,
    usual eta): reproduced if the 95% interval of the mean gap lies at or below 5% of the total drop of the error; not
    reproduced if above. Else inconclusive.
    """
    table = bench(subject)
    judge = sized if subject.setting.model.bias and not subject.setting.model.batch_norm else alike
    ruling, chart = judge(table)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


def sized(table):
    """The ruling on networks with biases and without BN, and the chart."""
    paths = {c: [ScaledPath(with_biases(s, c)) for s in finals(table)] for c in BIAS_FACTORS}
    curves = {c: [table.scaled_curve(path) for path in found] for c, found in paths.items()}
    without = [table.constancy(*pair) for pair in zip(paths[0.0], curves[0.0], strict=True)]
    gaps = {c: [gap(curve) for curve in found] for c, found in curves.items()}
    ruling = size_criterion({c: values for c, values in gaps.items() if c > 0}, without)
    details = {**ruling.details}
    for c, found in curves.items():
        details[f"mean gap at c = {c:g}"] = float(np.mean(gaps[c]))
        details[f"mean error of theta_c at c = {c:g}"] = float(np.mean([curve.balanced_error[-1] for curve in found]))
    chart = error_chart("Test error of alpha * theta_c", {f"biases times {c:g}": found for c, found in curves.items()})
    return replace(ruling, details=details), chart


def alike(table):
    """The ruling on networks without biases or with BN, and the chart."""
    curves = [table.scaled_curve(ScaledPath(final)) for final in finals(table)]
    drops = [curve.balanced_error[0] - curve.balanced_error[-1] for curve in curves]
    ruling = alike_criterion([gap(curve) / drop for curve, drop in zip(curves, drops, strict=True)])
    ruling = replace(ruling, details={**ruling.details, "plateau of alpha * theta": mean_plateau(curves)})
    return ruling, error_chart("Test error of alpha * theta", {table.subject.title: curves})
