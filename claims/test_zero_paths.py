"""X3, X5, X11: what makes the plateau of alpha * theta_F, and how far away the same function can lie."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from mli_check import states
from mli_check.paths import RectifiedPath, ScaledPath
from mli_check.results import Chart, Series
from mli_check.symmetry import vsi
from mli_check.verdicts import agrees, all_of, all_positive, compare, unchanged
from mli_check.workbench import SCALES, error_chart

CHAINS = ["fcn4-digits", "lenet-digits"]
AT = 0.02  # where catalogue and figures compare predictions under the usual eta
FACTOR = 16.0
FARTHER = 4.0  # times the distance at least
VIOLATION = 1e-3  # nats, as in T33


# X3


def last_bias(symmetries):
    """The name of the bias of the layer that makes the outputs."""
    (weight,) = symmetries.last
    return weight.removesuffix("weight") + "bias"


def without(state, name):
    """The state with one tensor at zero."""
    return {**state, name: torch.zeros_like(state[name])}


def predicted(curve, bias):
    """alpha^2 (W h + b / alpha) for alpha > 0, from the outputs W h at alpha = 1 of the network without last bias b."""
    alphas = curve.alphas[1:, None, None].astype(np.float32)
    return alphas**2 * curve.logits[-1] + alphas * bias.cpu().numpy()


def last_layer_criterion(following_the_bias, without_it):
    """Networks with their last bias against the prediction W h + b / alpha, and without it against theta_F."""
    return all_of(
        {"argmax(W h + b / alpha)": unchanged(following_the_bias), "flat without the last bias": unchanged(without_it)}
    )


@pytest.mark.claim(id="X3", expected="reproduced")
@pytest.mark.parametrize("subject", ["resnet8-digits"], indirect=True)
def test_zero_path_of_a_network_with_bn_is_moved_by_the_last_bias_and_by_eta_alone(mli, bench, subject):
    """A network of convolutions, BN and ReLU whose only bias is the last one, along alpha theta_F at 10 alphas from
    1/64 to 1, BN statistics recalculated. In place of eta = 0, eta follows the variance beside it: eta alpha^2 in the
    first BN, eta alpha^4 in the others. Reproduced if in each of 10 networks every prediction is argmax(W h + b /
    alpha), with W h from theta_F, where the two largest of these differ by more than 1e-4 of the largest; and if with
    b = 0 all logits at 1/64, 1/16 and 1/2 are alpha^2 times those at 1 to the bit and no prediction changes, so that
    the error is flat. Not reproduced if any is otherwise; inconclusive if over 1% of predictions lie within that.
    Recorded: what the usual eta and b / alpha, each alone, make of the plateau and of the mean error above theta_F's.
    """
    table = bench(subject)
    name = last_bias(table.symmetries)
    finals = [table.run(setting).final for setting in table.settings]
    paths = {kind: [ScaledPath(change(s, name)) for s in finals] for kind, change in KINDS.items()}
    curves = {
        (kind, follows): [table.scaled_curve(path, eta_follows=follows) for path in found]
        for kind, found in paths.items()
        for follows in (False, True)
    }
    flat = [table.constancy(*pair) for pair in zip(paths["no bias"], curves["no bias", True], strict=True)]
    wanted = [predicted(c, s[name]) for c, s in zip(curves["no bias", True], finals, strict=True)]
    moved = [agreement(curve, logits) for curve, logits in zip(curves["bias", True], wanted, strict=True)]
    ruling = last_layer_criterion(moved, flat)
    details = {**ruling.details, **shares(curves)}
    usual = [agreeing(curve, logits) for curve, logits in zip(curves["bias", False], wanted, strict=True)]
    details[f"predictions that are argmax(W h + b / alpha) at alpha = {AT}, usual eta"] = float(np.mean(usual))
    chart = error_chart("Test error of alpha * theta_F", {TITLES[key]: found for key, found in curves.items()})
    ruling = replace(ruling, details=details)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


KINDS = {"bias": lambda state, _: state, "no bias": without}
TITLES = {
    ("bias", False): "usual eta and last bias",
    ("no bias", False): "usual eta, no last bias",
    ("bias", True): "eta following, last bias",
    ("no bias", True): "eta following, no last bias",
}


def agreement(curve, wanted):
    """How the predictions for alpha > 0 compare with those of the wanted outputs; sums round, so no bit is compared."""
    return compare(curve.logits[1:], wanted, np.zeros(len(wanted), dtype=bool))


def agreeing(curve, wanted):
    """The share of predictions at alpha = 0.02 that are those of the wanted outputs."""
    point = SCALES.index(AT)
    return float(np.mean(curve.logits[point].argmax(-1) == wanted[point - 1].argmax(-1)))


def shares(curves):
    """Mean plateaus and mean errors above the end's, by what is left in place."""
    found = {}
    for key, several in curves.items():
        plateau = np.mean([curve.plateau("balanced_error") for curve in several])
        errors = [curve.balanced_error[1:] - curve.balanced_error[-1] for curve in several]
        alphas = several[0].alphas[1:]
        found[f"plateau, {TITLES[key]}"] = float(plateau)
        found[f"mean error above theta_F's, {TITLES[key]}"] = float(
            np.mean([np.trapezoid(values, alphas) / (alphas[-1] - alphas[0]) for values in errors])
        )
    return found


# X5


def counted(model):
    """The exponents of the biases in a chain of layers, counted by hand: how many layers lead up to each."""
    layers = [name for name, layer in model.named_children() if hasattr(layer, "weight")]
    return {f"{name}.bias": depth for depth, name in enumerate(layers, start=1)}


def differing(first, second):
    """How many tensors of two paths differ in any bit, over all SCALES."""
    pairs = [(first.state(alpha), second.state(alpha)) for alpha in SCALES]
    return sum(not torch.equal(one[name], other[name]) for one, other in pairs for name in one)


def mismatch_criterion(tensors, outputs, plateaus):
    """Tensors in which RSI differs from alpha^l, by network; RSI's outputs; plateaus of alpha * theta and of RSI."""
    differences = [a - b for a, b in zip(*plateaus, strict=True)]
    named = {f"network {index}": float(count) for index, count in enumerate(tensors)}
    return all_of(
        {
            "RSI is alpha^l": agrees(named, 0, "tensors of RSI(theta_F, alpha) that differ from biases times alpha^l"),
            "flat": unchanged(outputs),
            "the plateau is gone": all_positive(
                {"alpha * theta_F minus RSI": differences}, "plateau of alpha * theta_F minus that of RSI"
            ),
        }
    )


@pytest.mark.claim(id="X5", expected="reproduced")
@pytest.mark.parametrize("subject", CHAINS, indirect=True)
def test_biases_that_move_as_powers_of_alpha_leave_no_plateau(mli, bench, subject):
    """A chain of layers with biases and without BN, from zero. Reproduced if at each of 11 alphas RSI(theta_F, alpha),
    its exponents from the symmetry group, equals to the bit alpha theta_F with the bias of layer l times alpha^l, l
    counted by hand; if along it no output changes for alpha > 0 but by its factor (as in T29), in each of 10 networks;
    and if the plateau of alpha theta_F (the smallest alpha at which the class-balanced error has fallen by a tenth of
    its drop) is longer: 95% interval of the mean difference above 0. Not reproduced if any tensor or output differs, or
    the difference is surely below 0.02; else inconclusive. Beside alpha = 0, where logits tie, nothing but the biases
    then makes the plateau.
    """
    table = bench(subject)
    finals = [table.run(setting).final for setting in table.settings]
    rectified = [RectifiedPath(s, table.symmetries) for s in finals]
    by_hand = [ScaledPath(s, exponents=counted(table.model)) for s in finals]
    curves = [table.scaled_curve(path) for path in by_hand]
    scaled = [table.scaled_curve(ScaledPath(s)) for s in finals]
    plateaus = [[curve.plateau("balanced_error") for curve in found] for found in (scaled, curves)]
    ruling = mismatch_criterion(
        [differing(*pair) for pair in zip(rectified, by_hand, strict=True)],
        [table.constancy(*pair) for pair in zip(rectified, curves, strict=True)],
        plateaus,
    )
    means = {f"plateau, {k}": float(np.mean(v)) for k, v in zip(("alpha * theta_F", "RSI"), plateaus, strict=True)}
    groups = {"alpha * theta_F": scaled, "biases of layer l times alpha^l": curves}
    chart = error_chart("Test error from zero to the trained network", groups)
    ruling = replace(ruling, details={**ruling.details, **means})
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


# X11


def rescaled(table, final):
    """By hidden layer: `final` with that layer's weight and bias times 16 and the next weight a sixteenth (VSI)."""
    hidden = [name for name in table.symmetries.weights if name not in table.symmetries.last]
    factors = {layer: vsi(table.symmetries, {layer: FACTOR}) for layer in hidden}
    return {layer: table.symmetries.apply(final, found) for layer, found in factors.items()}


def distance_criterion(outputs, growth, deltas):
    """By network and layer: outputs that differ, how many times farther theta_F lies, and Delta of the train loss."""
    shortfall = {name: max(FARTHER / times, 0.0) for name, times in growth.items()}
    return all_of(
        {
            "the same function": agrees(outputs, 0, "test outputs that differ in any bit"),
            "farther": agrees(shortfall, 1, f"{FARTHER:g} times the distance from theta_0, over the new distance"),
            "monotone": agrees(deltas, VIOLATION, "Delta of the training loss from theta_0 (nats)"),
        }
    )


@pytest.mark.claim(
    id="X11",
    expected="inconclusive",
    reason="all holds on one processor; on another, whose rounding trains other networks, the training loss of one "
    "rescaled network in sixty rises by 0.0026 nats, beyond the 0.001 of a violation",
)
@pytest.mark.parametrize("subject", ["fcn4-digits"], indirect=True)
def test_distance_moved_depends_on_the_choice_among_equal_networks(mli, bench, subject):
    """Three VSI rescalings of each of 10 networks: weight and bias of one hidden layer times 16, the next weight times
    1/16. Reproduced if every rescaled network has the same test logits to the bit, lies at least 4 times as far from
    theta_0 as theta_F, and the Delta of its training loss over the whole training set, 51 points from theta_0, is at
    most 1e-3 nats, as theta_F's own is. Not reproduced if any of these fails in any rescaling; networks that violate
    MLI themselves are left out and counted. Distance alone then does not explain violations (L7).
    """
    table = bench(subject)
    outputs, growth, deltas, distances = {}, {}, {}, []
    runs = table.runs(table.settings)
    own = {index: curve for index, curve in enumerate(table.loss_curves(runs)) if curve.delta("loss") <= VIOLATION}
    pairs = [(index, layer, far) for index in own for layer, far in rescaled(table, runs[index].final).items()]
    curves = table.losses_on_lines([(runs[index].init, far) for index, _, far in pairs])
    lines = {"theta_F": list(own.values())} if own else {}
    for (index, layer, far), curve in zip(pairs, curves, strict=True):
        name, run = f"network {index}, {layer}", runs[index]
        lines.setdefault(f"{layer} times {FACTOR:g}", []).append(curve)
        outputs[name] = float((logits(table, run.final) != logits(table, far)).sum())
        distances.append((states.distance(run.init, run.final), states.distance(run.init, far)))
        before, after = distances[-1]
        growth[name] = after / before if before else math.inf
        deltas[name] = curve.delta("loss")
    ruling = distance_criterion(outputs, growth, deltas)
    means = np.mean(distances, axis=0) if distances else (math.nan, math.nan)
    details = {
        **ruling.details,
        "mean distance of theta_F": float(means[0]),
        "mean distance of the rescaled networks": float(means[1]),
        "least growth of the distance": min(growth.values(), default=math.nan),
        "networks left out, not monotone themselves": len(runs) - len(own),
    }
    series = [Series(g, f"curve {i}", c.loss) for g, found in lines.items() for i, c in enumerate(found)]
    chart = Chart("Training loss from theta_0", "alpha", "training loss (nats)", table.alphas, series)
    ruling = replace(ruling, details=details)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


def logits(table, state):
    """Outputs on the test set."""
    inputs = table.test.rows(slice(None))
    with torch.inference_mode():
        return functional_call(table.model, {name: t.to(inputs.device) for name, t in state.items()}, (inputs,))
