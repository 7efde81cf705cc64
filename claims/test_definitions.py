"""T23, T24, L11: the papers' definitions, on examples in closed form and on a trained network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mli_check import curves, states
from mli_check.results import Chart, Series
from mli_check.verdicts import agrees

EXACT = 1e-12  # rounding of a few operations in float64
FLOAT32 = 1e-6  # rounding of float32 weights that are scaled and averaged


def rapid_steps_by_hand(values, alphas, tau):
    """Definition 5.1 in plain Python: every alpha_i whose step takes at least tau of the total drop."""
    drop = values[0] - values[-1]
    rapid = [i for i in range(len(values) - 1) if (values[i] - values[i + 1]) / drop >= tau]
    return (alphas[rapid[0]], alphas[rapid[-1] + 1]) if rapid else (float("nan"), float("nan"))


def highest_bump_by_hand(values):
    """Definition 1 in plain Python: for every start, the height of the bump until the curve is back at the start."""
    highest = 0.0
    for i, start in enumerate(values):
        for later in values[i + 1 :]:
            if later <= start:
                break
            highest = max(highest, later - start)
    return highest


def apart(got, wanted):
    """The largest distance of two tuples; zero where both are NaN, NaN where one is."""
    return float(np.max([0.0 if np.isnan(a) and np.isnan(b) else abs(a - b) for a, b in zip(got, wanted, strict=True)]))


@pytest.mark.claim(id="T23", expected="reproduced")
@pytest.mark.parametrize("subject", ["fcn4-digits", "fcn4-mnist"], indirect=True)
def test_rapid_descent_interval(mli, bench, subject):
    """[alpha_S, alpha_E] with tau = 0.01 on 50 steps equals the closed form for a straight line (0, 1), a step, a ramp
    between 0.2 and 0.6 and a two-step stair, and equals a plain loop over the definition for the test-error curves of
    10 trained networks. Reproduced if no interval deviates by more than 1e-12.
    """
    alphas = np.linspace(0, 1, 51)
    deviations = {
        "straight line": apart(curves.descent_interval(1 - alphas, alphas), (0.0, 1.0)),
        "step at 0.5": apart(curves.descent_interval((alphas < 0.5).astype(float), alphas), (0.48, 0.5)),
        "ramp from 0.2 to 0.6": apart(
            curves.descent_interval(1 - np.clip((alphas - 0.2) / 0.4, 0, 1), alphas), (0.2, 0.6)
        ),
        "stair": apart(curves.descent_interval(2.0 - (alphas >= 0.1) - (alphas >= 0.9), alphas), (0.08, 0.9)),
        "flat": apart(curves.descent_interval(np.ones(51), alphas), (np.nan, np.nan)),
    }
    table = bench(subject)
    found = table.curves("own")
    for index, curve in enumerate(found):
        wanted = rapid_steps_by_hand(list(curve.balanced_error), list(curve.alphas), 0.01)
        deviations[f"network {index}"] = apart(curve.descent_interval("balanced_error"), wanted)
    lines = [Series("trained networks", f"network {i}", curve.balanced_error) for i, curve in enumerate(found)]
    chart = Chart("Test error from own initialisation", "alpha", "test error (class-balanced)", found[0].alphas, lines)
    ruling = agrees(deviations, EXACT, "largest deviation of alpha_S and alpha_E")
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


@pytest.mark.claim(id="T24", expected="reproduced")
@pytest.mark.parametrize("subject", ["fcn4-digits", "fcn4-mnist"], indirect=True)
def test_relative_scale(mli, bench, subject):
    """delta = M(theta_0) / M(theta_F), M the mean absolute parameter, equals the closed form on small states (integers
    and running statistics left out), and for 10 trained networks equals numpy's own mean and scales with theta_0:
    delta(s theta_0) = s delta. Reproduced if nothing deviates by more than 1e-6 relative.
    """
    one = {"w": torch.tensor([1.0, -3.0]), "b": torch.tensor([2.0]), "n.running_mean": torch.tensor([9.0])}
    two = {"w": torch.tensor([4.0, 4.0]), "b": torch.tensor([-4.0]), "n.running_mean": torch.tensor([5.0])}
    deviations = {"M = 2 over M = 4": abs(states.delta(one, two) - 0.5), "itself": abs(states.delta(one, one) - 1)}
    table = bench(subject)
    for index, setting in enumerate(table.settings):
        run = table.run(setting)
        means = [np.abs(np.concatenate([t.numpy().ravel() for t in s.values()])).mean() for s in (run.init, run.final)]
        delta = states.delta(run.init, run.final)
        deviations[f"network {index}"] = abs(delta / (means[0] / means[1]) - 1)
        scaled = {name: tensor * 3 for name, tensor in run.init.items()}
        deviations[f"network {index}, 3 theta_0"] = abs(states.delta(scaled, run.final) / (3 * delta) - 1)
    ruling = agrees(deviations, FLOAT32, "largest relative deviation of delta")
    mli.record(ruling, subject=subject, settings=table.settings, device=table.device)


@pytest.mark.claim(id="L11", expected="reproduced")
@pytest.mark.parametrize("subject", ["fcn4-digits", "fcn4-mnist"], indirect=True)
def test_delta_monotonicity(mli, bench, subject):
    """The smallest Delta for which a curve is Delta-monotone equals the closed form: 0 for a falling line, 2 for a
    cosine of two periods (a bump back to its start), 0.25 for a rise on the last step alone, 3 for a rise that never
    comes back; and equals a double loop over the definition for the training-loss curves of 10 trained networks.
    Reproduced if none deviates by more than 1e-12.
    """
    alphas = np.linspace(0, 1, 51)  # of the examples; a subject's curves have its own
    last_step = np.r_[1 - alphas[:-1], 1 - alphas[-2] + 0.25]
    deviations = {
        "falling line": abs(curves.delta(1 - alphas)),
        "cosine": abs(curves.delta(np.cos(4 * np.pi * np.linspace(0, 1, 101))) - 2),
        "rise on the last step": abs(curves.delta(last_step) - 0.25),
        "rising line": abs(curves.delta(3 * alphas) - 3),
    }
    table = bench(subject)
    found = table.loss_curves(table.runs(table.settings))
    for index, curve in enumerate(found):
        deviations[f"network {index}"] = abs(curve.delta("loss") - highest_bump_by_hand(list(curve.loss)))
    lines = [Series("trained networks", f"network {i}", curve.loss) for i, curve in enumerate(found)]
    chart = Chart("Training loss from theta_0 to theta_F", "alpha", "training loss (nats)", table.alphas, lines)
    ruling = agrees(deviations, EXACT, "largest deviation of Delta")
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)
