"""Tests of an ensemble's members beside each other, and of all that training at once leaves as it was."""

from __future__ import annotations

import gc
import math
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from ensemble_helpers import MODELS, RECIPES, assert_each_agrees, data_of, same_bits, setting_of
from torch import Tensor, nn

from mli_check.precision import flags
from mli_check.training import ensemble
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit, network
from mli_check.training.sets import training_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from mli_check.data import Dataset

every_model = pytest.mark.parametrize("model", MODELS)
UNBOUNDED = [name for name, model in MODELS.items() if model.activation == "relu"]  # tanh keeps its outputs finite


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return training_data(setting_of("fcn"))


# Divergence

LATE: dict[str, Any] = {"epochs": 3, "milestones": (1,), "checkpoints": (1, 6, 7, 15)}


@pytest.mark.parametrize("model", UNBOUNDED)
def test_a_member_that_diverges_is_as_it_is_alone(model: str, digits: Dataset) -> None:
    """At once, and in the second epoch; its states end there, and those of the others are the same bits."""
    data = data_of(model, digits)
    wanted = [setting_of(model, seed, **LATE) for seed in range(4)]
    for bad in ({"lr": 1e30}, {"gamma": 1e38}):
        mixed = [*wanted[:1], wanted[1].with_recipe(**bad), *wanted[2:]]
        calm, found = fit_together(wanted, [data] * 4), fit_together(mixed, [data] * 4)
        alone = fit(mixed[1], data)
        assert alone.diverged_at == (1 if "lr" in bad else 2)
        assert (found[1].diverged_at, list(found[1].checkpoints)) == (alone.diverged_at, list(alone.checkpoints))
        assert [e | {"train_loss": 0} for e in found[1].history] == [e | {"train_loss": 0} for e in alone.history]
        assert not math.isfinite(found[1].history[-1]["train_loss"])
        for name, tensor in alone.final.items():
            assert torch.equal(tensor.isnan(), found[1].final[name].isnan()), name
        assert all(same_bits(found[member], calm[member]) for member in (0, 2, 3))


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop", "sgd"])  # the order in which they are stacked
@pytest.mark.parametrize("model", ["fcn-bn", "vgg-bn"])
def test_a_neighbour_of_any_optimiser_changes_no_bit(model: str, optimiser: str, digits: Dataset) -> None:
    """First, in the middle or last of the stack, it stays where it is: the learning rates sort alike."""
    healthy = [setting_of(model, seed, **recipe) for seed, recipe in enumerate(RECIPES.values())]
    rates = 0.5, 1e30
    both = [
        fit_together([*healthy, setting_of(model, 9, optimiser=optimiser, lr=lr)], [digits] * (len(healthy) + 1))
        for lr in rates
    ]
    assert both[1][-1].diverged_at == 1
    assert all(same_bits(*pair) for pair in zip(both[0][:-1], both[1][:-1], strict=True))


@pytest.mark.parametrize("model", ["fcn", "fcn-bn", "vgg"])
def test_a_loss_beyond_single_precision_is_a_divergence_for_both_trainers_or_none(model: str, digits: Dataset) -> None:
    """In float64 a loss of 1e50 is finite."""
    options = {"precision": "float64", "loss": "squared_error", "lr": 1e12, "batch_size": 50}
    wanted = [setting_of(model, seed, **options) for seed in range(2)]
    alone = [fit(setting, digits) for setting in wanted]
    assert all(3.5e38 < result.history[0]["train_loss"] < math.inf for result in alone)
    found = fit_together(wanted, [digits] * 2)
    assert [result.diverged_at for result in found] == [result.diverged_at for result in alone]


# What is left as it was


def global_state() -> tuple[Any, ...]:
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        [flag.fp32_precision for flag in flags()],
        [layer.forward for layer in (nn.BatchNorm1d, nn.BatchNorm2d, nn.Linear, nn.Conv2d)],
    )


@every_model
def test_nothing_global_changes_and_nothing_warns(model: str, digits: Dataset) -> None:
    """vmap warns where it has no rule for an operation, and goes through the members one by one."""
    data = data_of(model, digits)
    wanted = [setting_of(model, seed) for seed in range(3)]
    alone, other = fit(wanted[0], data), network(wanted[0], data)
    torch.manual_seed(12)
    before = global_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_together(wanted, [data] * 3)
    assert global_state() == before
    assert same_bits(fit(wanted[0], data), alone)
    for module in (other, network(wanted[0], data)):
        assert not [layer for layer in module.modules() if "forward" in vars(layer)]
    assert torch.isfinite(other.train()(torch.zeros(3, 1, 8, 8))).all()


def test_a_warning_of_vmap_is_seen(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: an operation without a rule, planted into the loss, warns."""

    def slow(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.histc(outputs.detach(), 4).sum() + nn.functional.cross_entropy(outputs, targets, reduction="none")

    monkeypatch.setattr(ensemble, "resolve", lambda name: (name, slow))
    with pytest.raises((UserWarning, RuntimeError), match="batching rule"):
        fit_together([setting_of("fcn", seed) for seed in range(3)], [digits] * 3)


def test_products_are_in_full_float32_whatever_the_caller_asks_for(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        asked.append({flag.fp32_precision for flag in flags()})
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    monkeypatch.setattr(ensemble, "resolve", lambda name: (name, loss))
    monkeypatch.setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16")
    fit_together([setting_of("fcn", seed) for seed in range(3)], [digits] * 3)
    assert asked == [{"ieee"}] * 5
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"


def test_the_default_dtype_of_the_caller_does_not_matter(digits: Dataset) -> None:
    wanted = [setting_of("fcn-bn", seed) for seed in range(3)]
    torch.set_default_dtype(torch.float64)
    try:
        found = assert_each_agrees(wanted, [digits] * 3, 1e-5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {t.dtype for t in found[0].final.values()} == {torch.float32, torch.int64}


def test_no_tensors_pile_up_over_epochs_and_none_stay_behind(digits: Dataset) -> None:
    counts: list[int] = []

    def count(*_: int) -> None:
        gc.collect()
        counts.append(sum(type(thing) in (Tensor, nn.Parameter) for thing in gc.get_objects()))

    wanted = [setting_of("vgg-bn", seed, epochs=6, **recipe) for seed, recipe in enumerate(RECIPES.values())]
    fit_together(wanted, [digits] * len(wanted), count)
    assert len(counts) == 6
    assert len(set(counts[1:])) == 1
    before = len(counts)
    count()
    fit_together(wanted, [digits] * len(wanted))
    count()
    assert counts[before] == counts[before + 1]


@pytest.mark.parametrize("diverge_at", [None, 2])
def test_progress_is_told_after_each_epoch_that_was_trained(diverge_at: int | None, digits: Dataset) -> None:
    told: list[tuple[int, int]] = []
    late: dict[str, Any] = {"milestones": (1,), "gamma": 1e38} if diverge_at else {}
    wanted = [setting_of("fcn", seed, epochs=4, **late) for seed in range(3)]
    progress: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    found = fit_together(wanted, [digits] * 3, progress)
    assert told == [(epoch, 4) for epoch in range(1, (diverge_at or 4) + 1)]
    assert all(result.seconds > 0 and result.execution == ("vmap",) for result in found)
