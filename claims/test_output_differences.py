"""T19: the outputs of alpha * theta and of RSI(theta, alpha) differ by the last bias alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from mli_check.models import build
from mli_check.paths import RectifiedPath, ScaledPath
from mli_check.results import Chart, Series
from mli_check.settings import ModelSetting
from mli_check.symmetry import scale_symmetries
from mli_check.verdicts import agrees, all_of

SHAPE = (128, 512, 128)
CONSTANTS = (-1.0, 0.1, 0.25, 0.5, 1.0, 2.0)
STEPS = np.linspace(0.1, 1, 10)
INPUTS = 50
RELATIVE = 1e-6  # of a mean squared difference in float64, in which nearly equal outputs cancel


@dataclass(frozen=True)
class Differences:
    """Mean squared differences of the outputs of alpha * theta and RSI(theta, alpha), (constants, alphas).

    `plain` with nothing restored; `restored` with both divided by what RSI multiplies the output by; `against` between
    alpha * theta as it is and RSI restored, which is theta.
    """

    plain: np.ndarray
    restored: np.ndarray
    against: np.ndarray


def differences(network, symmetries, constants, alphas, inputs):
    """What one network gives with its last biases set to each constant."""
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    plain, restored, against = np.empty((3, len(constants), len(alphas)))
    for row, constant in enumerate(constants):
        state["3.bias"] = torch.full_like(state["3.bias"], constant)
        scaled, rectified = ScaledPath(state), RectifiedPath(state, symmetries)
        for column, alpha in enumerate(map(float, alphas)):
            first, second = (functional_call(network, path.state(alpha), (inputs,)) for path in (scaled, rectified))
            factor = rectified.temperature(alpha)
            plain[row, column] = (first - second).square().mean().item()
            restored[row, column] = (first / factor - second / factor).square().mean().item()
            against[row, column] = (first - second / factor).square().mean().item()
    return Differences(plain, restored, against)


def downward(steps):
    """How many steps do not lead up; NaN where any is no number."""
    return float(np.count_nonzero(steps <= 0)) if np.isfinite(steps).all() else float("nan")


def growing(values, constants):
    """The steps of values (constants, alphas) from each size of the constant to the next larger one."""
    order = np.argsort(np.abs(constants), kind="stable")
    return np.diff(values[order], axis=0)[np.diff(np.abs(constants)[order]) > 0]  # b and -b are no step


def last_bias_criterion(found: Sequence[Differences], constants, alphas):
    """Each network's differences, beside alpha^2 (1 - alpha)^2 b^2, and the signs of their steps."""
    sizes, alphas = np.abs(constants)[:, None], np.asarray(alphas)
    inner = alphas < 1
    closed = {"plain": (alphas * (1 - alphas) * sizes) ** 2, "restored": ((1 - alphas) / alphas * sizes) ** 2}
    parts: dict[str, dict[str, float]] = {"closed form": {}, "grows with |b|": {}, "falls with alpha": {}}
    for index, one in enumerate(found):
        name = f"network {index}"
        for kind, wanted in closed.items():
            off = np.abs(getattr(one, kind) - wanted) / np.where(inner, wanted, 1.0)
            parts["closed form"][f"{name}, {kind}"] = float(off.max())
        parts["grows with |b|"][name] = downward(growing(one.restored[:, inner], constants))
        parts["falls with alpha"][name] = downward(-np.diff(one.restored))
    return all_of(
        {
            "closed form": agrees(parts["closed form"], RELATIVE, "relative deviation of the mean squared difference"),
            "grows with |b|": agrees(parts["grows with |b|"], 0, "steps of |b| at which it does not grow"),
            "falls with alpha": agrees(parts["falls with alpha"], 0, "steps of alpha at which it does not fall"),
        }
    )


@pytest.mark.claim(id="T19", expected="reproduced")
def test_outputs_of_alpha_theta_and_rsi_differ_by_the_last_bias(mli, pytestconfig):
    """10 fully connected ReLU networks 128-512-128 at torch's default initialisation, float64, 50 standard normal
    inputs, last biases all set to b = -1, 0.1, 0.25, 0.5, 1 or 2; the mean squared difference between the outputs of
    alpha theta and RSI(theta, alpha) at 10 alphas. Reproduced if with outputs restored (both divided by alpha^2, which
    RSI multiplies them by) it grows with |b| at every alpha < 1 and falls at every step of alpha, and equals
    ((1 - alpha) / alpha)^2 b^2, and without restoring alpha^2 (1 - alpha)^2 b^2, which does not fall but peaks at 1/2,
    to 1e-6 relative. Not reproduced if any fails in any network. Recorded: the same with RSI alone restored, to theta.
    """
    offset = pytestconfig.getoption("--mli-seed-offset")
    setting = ModelSetting(name="fcn", hidden=(SHAPE[1],))
    found, symmetries = [], None
    for seed in range(offset, offset + 10):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = build(setting, (SHAPE[0],), SHAPE[2]).double()
            inputs = torch.randn(INPUTS, SHAPE[0], dtype=torch.float64)
        symmetries = symmetries or scale_symmetries(network, inputs[:2])  # of the architecture alone
        found.append(differences(network, symmetries, CONSTANTS, STEPS, inputs))
    ruling = last_bias_criterion(found, CONSTANTS, STEPS)
    against = [one.against for one in found]
    details = {
        **ruling.details,
        "alphas of the largest difference, not restored": peaks(found),
        "steps of b without growth, RSI alone restored": sum(downward(growing(v[:, :-1], CONSTANTS)) for v in against),
        "steps of alpha without fall, RSI alone restored": sum(downward(-np.diff(v)) for v in against),
    }
    titles = {"restored": "both restored", "plain": "not restored", "against": "RSI alone restored"}
    charts = []
    for kind, how in titles.items():
        rows = zip(CONSTANTS, getattr(found[0], kind), strict=True)
        series = [Series(f"b = {b:g}", "network 0", row) for b, row in rows]
        title = f"Outputs of alpha theta against RSI(theta, alpha), {how}"
        charts.append(Chart(title, "alpha", "mean squared difference", STEPS, series))
    mli.record(replace(ruling, details=details), subject="fcn-128-512-128", charts=charts)


def peaks(found):
    """The alphas at which the differences are largest, over networks and constants."""
    return ", ".join(f"{alpha:g}" for alpha in sorted({STEPS[row.argmax()] for one in found for row in one.plain}))
