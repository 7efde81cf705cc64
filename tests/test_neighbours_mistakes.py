"""Mistakes of neighbouring projects that touch evaluation and curves, each as a test that we do not make it.

The others on the list are covered elsewhere: the size of the report in test_report.py and test_report_in_browser.py;
skips that are counted there too; hypothesis' deadline, which the profiles of the top-level conftest.py turn off;
benchmarks that wait for the device with the benchmarks themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import images, random_state
from torch import Tensor, nn
from torch.nn import functional

from mli_check import statistics
from mli_check.curves import Curve, delta, descent_interval, is_monotone, plateau
from mli_check.data import Dataset
from mli_check.evaluation.front import evaluate
from mli_check.models import build
from mli_check.paths import LinearPath, Plane, ScaledPath, Span
from mli_check.settings import ModelSetting
from mli_check.states import digest

DATA, CALIBRATION = images(90, seed=1), images(64, seed=2)


def network(*, batch_norm: bool = False) -> nn.Module:
    return build(ModelSetting(name="fcn", hidden=(12, 8), batch_norm=batch_norm), (1, 8, 8), 10)


def ends(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return random_state(model, 0), random_state(model, 1)


def own_figures(model: nn.Module, state: dict[str, Tensor]) -> tuple[float, float]:
    """Loss and error of one state under its own buffers, without a path."""
    model.load_state_dict(state)
    with torch.no_grad():
        outputs = model.eval()(DATA.inputs)
    return functional.cross_entropy(outputs, DATA.targets).item(), (
        outputs.argmax(1) != DATA.targets
    ).float().mean().item()


def scalar_curve(target: float, **options: Any) -> Curve:
    """The curve (alpha - target)^2 of the one-weight network f(x) = w x at w = 1, seen at x = 1."""
    model = nn.Linear(1, 1, bias=False)
    data = Dataset(torch.ones(4, 1), torch.full((4, 1), target))
    return evaluate(model, ScaledPath({"weight": torch.ones(1, 1)}), data, loss="squared_error", **options)


# ---- code of Lucas et al. 2021: a rise on the last step alone is dropped


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0, 1.5], [1.0, 1.5], [5.0, 1.0, 4.0, 0.0, 3.5]], ids=str)
def test_a_rise_on_the_last_step_alone_counts(values: list[float]):
    """Lucas et al.'s (2021) code measures a bump when it ends, so one still going on at alpha = 1 is never measured."""
    assert delta(values) >= values[-1] - values[-2] > 0
    assert not is_monotone(values)


def test_an_evaluated_curve_that_rises_on_its_last_step_alone_is_not_monotone():
    """The same mistake of Lucas et al.'s (2021) code, from the evaluation on: the minimum is the last point but one."""
    found = scalar_curve(0.9, alphas=(0.0, 0.5, 0.9, 1.0))
    assert found.loss == pytest.approx([0.81, 0.16, 0.0, 0.01])
    assert found.delta() == pytest.approx(0.01)
    assert not found.is_monotone()


def test_the_rise_test_sees_a_rise_on_the_last_step_alone():
    """The same mistake of Lucas et al.'s (2021) code, where verdicts are made: 150 of 400 examples get worse last."""
    errors = np.ones((400, 4))
    errors[:, 1:] = 0
    errors[:150, 3] = 1
    found = statistics.rise_test(errors)
    assert found.decision is statistics.Verdict.NOT_REPRODUCED
    assert found.where[1] == 3
    assert found.estimate == 0.375


# ---- loss-landscapes: alpha = 0 is never evaluated, and the caller's model is left moved


def test_the_start_of_a_path_is_evaluated_at_init_itself():
    """loss-landscapes 3.0.6 steps before it measures, so its first value belongs to the second point."""
    model = network()
    init, final = ends(model)
    found = evaluate(model, LinearPath(init, final), DATA, 5)
    assert found.alphas[0] == 0
    assert (found.loss[0], found.error[0]) == pytest.approx(own_figures(model, init), rel=1e-6)


@pytest.mark.parametrize("policy", ["freeze", "interpolate", "recalibrate"])
def test_the_callers_model_is_not_left_somewhere_on_the_path(policy: str):
    """loss-landscapes 3.0.6 walks the caller's own parameters along the path and leaves them at its end."""
    model = network(batch_norm=True)
    state, (init, final) = model.state_dict(), ends(model)
    before = [digest(state), digest(init), digest(final)]
    for path in (LinearPath(init, final), LinearPath(state, final), ScaledPath(state), Plane(final, init)):
        evaluate(model, path, DATA, 3, norm_stats=policy, calibration=CALIBRATION, allow_diverged=True)
    assert [digest(model.state_dict()), digest(init), digest(final)] == before
    assert model.training


# ---- rebasin: both end points are missing


@pytest.mark.parametrize("points", [2, 3, 51])
def test_both_end_points_are_on_the_curve(points: int):
    """rebasin samples between its models only, so neither end's own loss is on its curve."""
    model = network()
    init, final = ends(model)
    found = evaluate(model, LinearPath(init, final), DATA, points)
    assert (found.alphas[0], found.alphas[-1], len(found.loss)) == (0, 1, points)
    assert (found.loss[0], found.error[0]) == pytest.approx(own_figures(model, init), rel=1e-6)
    assert (found.loss[-1], found.error[-1]) == pytest.approx(own_figures(model, final), rel=1e-6)


# ---- asymmetric-networks: the chord is drawn to the second point


@pytest.mark.parametrize(("last", "wanted"), [(0.75, 0.25 / 3), (0.5, 0.5 / 3), (-3.0, 1.75 / 3)])
def test_the_total_drop_is_measured_to_the_last_point(last: float, wanted: float):
    """asymmetric-networks takes the second value for the last, so its chord falls as steeply as the first step."""
    assert plateau([1.0, 0.9, 0.5, last]) == pytest.approx(wanted)


def test_what_counts_as_a_rapid_step_follows_the_last_point():
    """The same mistake of asymmetric-networks: the first step is all of the drop that it takes for the total."""
    assert descent_interval([1.0, 0.9, 0.8], tau=0.3) == (0.0, 1.0)
    assert descent_interval([1.0, 0.9, 0.0], tau=0.3) == (0.5, 1.0)
    assert np.isnan(descent_interval([1.0, 0.9, 1.0], tau=0.3)).all()


def test_the_margin_of_the_rise_test_is_a_share_of_the_drop_to_the_last_point():
    """The same mistake of asymmetric-networks: to the second point this curve drops by 0.1, in all by 0.8."""
    errors = (np.arange(1000)[:, None] + 0.5) / 1000 < np.array([0.9, 0.8, 0.5, 0.1])
    found = statistics.rise_test(errors, margin=0.05)
    assert found.drop == pytest.approx(0.8)
    assert found.threshold == pytest.approx(0.04)


# ---- Landscaper: NaN is replaced by the mean, and noise is added to maxima


def undefined_midway(outputs: Tensor, targets: Tensor) -> Tensor:
    """|w - 1|, but NaN at w = 0.5."""
    values = outputs[:, 0]
    return torch.where(values == 0.5, torch.full_like(values, float("nan")), (values - 1).abs())


def test_nan_on_a_curve_stays_nan():
    """Landscaper puts the mean of the other values where the loss is NaN, so a broken point looks like a plain one."""
    model, data = nn.Linear(1, 1, bias=False), Dataset(torch.ones(4, 1), torch.ones(4, 1))
    path = ScaledPath({"weight": torch.ones(1, 1)})
    found = evaluate(model, path, data, alphas=(0, 0.25, 0.5, 1), loss=undefined_midway)
    assert np.isnan(found.loss).tolist() == [False, False, True, False]
    assert np.isnan(found.delta())
    assert not found.is_monotone()


def test_a_network_that_is_nan_counts_as_wrong_and_not_as_average():
    """The same mistake of Landscaper for the error: what gives NaN predicts nothing."""
    model = network()
    init, final = ends(model)
    broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in init.items()}
    found = evaluate(model, LinearPath(broken, final), DATA, 3)
    assert np.isnan(found.loss).tolist() == [True, True, False]
    assert found.error[:2].tolist() == [1, 1]


def test_equal_maxima_stay_equal_and_every_evaluation_gives_the_same_bits():
    """Landscaper adds noise to equal maxima to tell them apart: figures then change from run to run."""
    first, second = (scalar_curve(0.5, alphas=(0.0, 0.25, 0.75, 1.0)) for _ in range(2))
    assert first.loss[0] == first.loss[3] == 0.25
    assert first.loss[1] == first.loss[2] == 0.0625
    assert np.array_equal(first.loss, second.loss)


# ---- dnn-mode-connectivity #8: running statistics are forgotten


@pytest.mark.parametrize("policy", ["freeze", "interpolate"])
def test_the_end_of_the_curve_is_the_checkpoints_own_error(policy: str):
    """dnn-mode-connectivity #8: without its running statistics the curve's end is no longer the trained network."""
    model = network(batch_norm=True)
    init, final = ends(model)
    found = evaluate(model, LinearPath(init, final), DATA, 3, norm_stats=policy)
    assert (found.loss[-1], found.error[-1]) == pytest.approx(own_figures(model, final), rel=1e-6)


def test_where_recalibration_moves_the_end_the_checkpoints_own_error_stands_beside():
    """dnn-mode-connectivity #8 again: recalibrated statistics are not the checkpoint's, so both errors are recorded."""
    model = network(batch_norm=True)
    init, final = ends(model)
    found = evaluate(model, LinearPath(init, final), DATA, 3, norm_stats="recalibrate", calibration=CALIBRATION)
    loss, error = own_figures(model, final)
    assert found.checkpoint == {"loss": pytest.approx(loss, rel=1e-6), "error": pytest.approx(error)}
    assert found.loss[-1] != pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("policy", ["freeze", "interpolate", "recalibrate"])
def test_the_policy_is_part_of_the_record_of_every_curve_and_surface(policy: str):
    """dnn-mode-connectivity #8 again: nothing on a curve there says which statistics it was drawn with."""
    model = network(batch_norm=True)
    init, final = ends(model)
    paths: list[Span] = [LinearPath(init, final), LinearPath(init, final, only="*.bias"), ScaledPath(final)]
    for path in (*paths, Plane(final, init)):
        found = evaluate(
            model, path, DATA, 3, norm_stats=policy, calibration=CALIBRATION, calibration_batch=32, allow_diverged=True
        )
        assert found.record.norm_stats == policy
        assert found.record.calibration_batch == (32 if policy == "recalibrate" else None)


def test_a_network_without_running_statistics_has_no_policy_in_its_record():
    """The other side of dnn-mode-connectivity #8: where there is nothing to choose, the record claims no choice."""
    model = network()
    assert evaluate(model, LinearPath(*ends(model)), DATA, 3).record.norm_stats is None
