"""Tests of learning rates that fall at every step, and of inputs that are indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import images, tiny_setting

from mli_check.data import Dataset, Normalisation
from mli_check.errors import UnknownNameError
from mli_check.settings import Recipe, from_json
from mli_check.training.batches import as_seen
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit
from mli_check.training.grouping import kind_of
from mli_check.training.steps import GraphedStep, Schedule

LINEAR = {"schedule": "linear", "epochs": 3, "batch_size": 20, "lr": 0.4}


def rates(examples: int, **recipe: Any) -> list[float]:
    """The learning rate of every step, and the one that is left at the end."""
    options = Recipe(**({"optimiser": "sgd"} | LINEAR | recipe))
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=options.lr)
    schedule, found = Schedule(optimiser, options, examples), []
    for _ in range(options.epochs):
        for _ in range(-(-examples // options.batch_size)):
            found.append(float(optimiser.param_groups[0]["lr"]))
            optimiser.step()
            schedule.after_step()
        schedule.after_epoch()
    return [*found, float(optimiser.param_groups[0]["lr"])]


@pytest.mark.parametrize("examples", [20, 60, 61, 100])
def test_a_linear_rate_falls_in_a_straight_line_to_zero_after_the_last_step(examples: int) -> None:
    found = rates(examples)
    steps = len(found) - 1
    assert found == pytest.approx([0.4 * (1 - step / steps) for step in range(steps + 1)], abs=1e-12)
    assert steps == 3 * -(-examples // 20)


def test_a_linear_rate_is_multiplied_at_milestones_too() -> None:
    plain, stepped = rates(60), rates(60, milestones=(2,), gamma=0.5)
    assert stepped == pytest.approx([*plain[:6], *(rate / 2 for rate in plain[6:])], abs=1e-12)


def test_without_a_schedule_the_rate_changes_at_milestones_alone() -> None:
    assert rates(60, schedule="steps", milestones=(1,), gamma=0.5) == [0.4] * 3 + [0.2] * 7


def test_training_follows_the_line() -> None:
    data = images(60)
    history = fit(tiny_setting(**LINEAR), data).history
    assert [entry["lr"] for entry in history] == pytest.approx([0.4 * (1 - epoch / 3) for epoch in range(3)])
    constant, falling = fit(tiny_setting(**LINEAR | {"schedule": "steps"}), data), fit(tiny_setting(**LINEAR), data)
    assert not torch.equal(constant.final["1.weight"], falling.final["1.weight"])


def test_the_last_step_is_as_small_as_the_line_says() -> None:
    data = images(40)
    found = fit(tiny_setting(**LINEAR | {"epochs": 1, "checkpoints": (1, 2)}), data)
    states = [found.init, found.checkpoints[1], found.checkpoints[2]]
    halved = fit(tiny_setting(**LINEAR | {"epochs": 1, "checkpoints": (1,), "schedule": "steps"}), data)
    assert torch.equal(states[1]["1.weight"], halved.checkpoints[1]["1.weight"])
    whole, half = (run["1.weight"] - states[1]["1.weight"] for run in (halved.final, states[2]))
    torch.testing.assert_close(half, whole / 2, rtol=1e-3, atol=1e-6)


def test_networks_trained_at_once_follow_it_as_one_alone_does() -> None:
    data = images(60)
    settings = [tiny_setting(**LINEAR, momentum=momentum, init_seed=seed) for seed, momentum in ((0, 0.0), (1, 0.5))]
    for setting, found in zip(settings, fit_together(settings, [data, data]), strict=True):
        alone = fit(setting, data)
        assert [entry["lr"] for entry in found.history] == [entry["lr"] for entry in alone.history]
        for name, tensor in alone.final.items():
            torch.testing.assert_close(found.final[name], tensor, rtol=1e-4, atol=1e-5)


def test_networks_of_the_two_schedules_are_not_trained_at_once() -> None:
    assert kind_of(tiny_setting(**LINEAR)) != kind_of(tiny_setting(**LINEAR | {"schedule": "steps"}))


def test_a_step_whose_rate_always_changes_is_not_captured() -> None:
    step = GraphedStep(None, every_step=True)  # type: ignore[arg-type]
    assert "changes at every step" in step.failure
    assert GraphedStep(None).failure == ""  # type: ignore[arg-type]


def test_a_schedule_is_part_of_a_setting_and_told_of() -> None:
    setting = tiny_setting(schedule="linear")
    assert from_json(setting.canonical()) == setting
    assert setting.digest != tiny_setting().digest
    assert ", linear to 0, " in setting.summary
    assert tiny_setting(schedule="steps").digest == tiny_setting().digest
    with pytest.raises(UnknownNameError, match=r"unknown schedule 'cosine'\. Known: linear, steps"):
        tiny_setting(schedule="cosine")


# What a network is given


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_indices_reach_the_network_as_they_are(dtype: torch.dtype) -> None:
    ids = torch.tensor([[1, 2**40 + 1], [3, 4], [5, 6]])
    seen = as_seen(Dataset(ids, torch.tensor([0, 1, 0])), torch.tensor([1, 0]), None, dtype)
    assert torch.equal(seen, ids[[1, 0]])
    assert seen.dtype == torch.int64


@pytest.mark.parametrize("given", [torch.float64, torch.int32, torch.uint8])
def test_other_inputs_take_the_dtype_of_the_weights(given: torch.dtype) -> None:
    data = Dataset(torch.tensor([[1], [2]]).to(given), torch.tensor([0, 1]))
    assert as_seen(data, torch.tensor([0]), None, torch.float32).dtype == torch.float32


def test_pixels_are_normalised_as_ever() -> None:
    pixels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    data = Dataset(pixels, torch.tensor([0, 1]), normalisation=Normalisation((0.5,), (0.5,)))
    seen = as_seen(data, torch.tensor([1]), None, torch.float64)
    assert torch.equal(seen, -torch.ones(1, 1, 2, 2, dtype=torch.float64))
