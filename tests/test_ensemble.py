"""Tests of training many networks at once: each member is what it would be alone, whatever its neighbours do."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import pytest
from ensemble_helpers import MODELS, RECIPES, assert_each_agrees, same_bits, setting_of
from helpers import tiny_setting

from mli_check.errors import OptionError
from mli_check.evaluation.front import evaluate_many
from mli_check.paths import LinearPath
from mli_check.settings import ModelSetting
from mli_check.training import ensemble
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit, network
from mli_check.training.sets import training_data

if TYPE_CHECKING:
    from mli_check.data import Dataset

CONNECTED = [name for name in MODELS if name.startswith("fcn")]
ADAPTIVE = ("adam", "rmsprop")  # their recipes begin so
CONVOLVING = [name for name in MODELS if name not in (*CONNECTED, "autoencoder")]
every_recipe = pytest.mark.parametrize("recipe", RECIPES)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return training_data(setting_of("fcn"))


# A member is the network trained alone


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        (model, recipe)
        for model, recipe in itertools.product(CONNECTED, RECIPES)
        if not (MODELS[model].batch_norm and recipe.startswith(ADAPTIVE))
    ],
)
def test_a_member_is_the_network_trained_alone(model: str, recipe: str, digits: Dataset) -> None:
    wanted = [setting_of(model, seed, checkpoints=(1, 4), **RECIPES[recipe]) for seed in range(5)]
    assert_each_agrees(wanted, [digits] * 5, 1e-5)


@every_recipe
@pytest.mark.parametrize("model", [*CONNECTED, *CONVOLVING])
def test_a_member_in_double_precision_is_the_network_trained_alone(model: str, recipe: str, digits: Dataset) -> None:
    """Sums of many members may have another order. Where a gradient is zero but for rounding, as that of a bias before
    BN, Adam and RMSprop divide it by itself, or by 1e-8 where that is more: in float64 little comes of it.
    """
    wanted = [setting_of(model, seed, precision="float64", **RECIPES[recipe]) for seed in range(4)]
    assert_each_agrees(wanted, [digits] * 4, 1e-7 if recipe.startswith(ADAPTIVE) else 1e-12)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.startswith(ADAPTIVE)])
@pytest.mark.parametrize("model", [name for name in [*CONNECTED, *CONVOLVING] if MODELS[name].batch_norm])
def test_where_rounding_steers_weights_that_do_not_matter_the_first_epoch_has_the_same_loss(
    model: str, recipe: str, digits: Dataset
) -> None:
    wanted = [setting_of(model, seed, **RECIPES[recipe]) for seed in range(4)]
    for setting, found in zip(wanted, fit_together(wanted, [digits] * 4), strict=True):
        assert found.history[0]["train_loss"] == pytest.approx(fit(setting, digits).history[0]["train_loss"], rel=1e-4)


@pytest.mark.parametrize("fault", ["no momentum", "shared statistics", "one order"])
def test_planted_faults_are_seen(fault: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "no momentum":
        of = ensemble.optimiser_of
        monkeypatch.setattr(
            ensemble, "optimiser_of", lambda w, recipe, device: of(w, dataclasses.replace(recipe, momentum=0), device)
        )
    if fault == "shared statistics":
        state, name = ensemble.Stack.state, "2.running_mean"
        monkeypatch.setattr(ensemble.Stack, "state", lambda self, row: state(self, row) | {name: self.buffers[name][0]})
    if fault == "one order":
        order = ensemble.Order
        monkeypatch.setattr(ensemble, "Order", lambda recipe, n: order(dataclasses.replace(recipe, order_seed=0), n))
    wanted = [setting_of("fcn-bn", seed, lr=0.02, momentum=0.9) for seed in range(3)]
    with pytest.raises(AssertionError):
        assert_each_agrees(wanted, [digits] * 3, 1e-5)


# Neighbours


@pytest.mark.parametrize("place", [0, 2, 4], ids=["first", "in the middle", "last"])
@pytest.mark.parametrize("model", [*CONNECTED[:2], *CONVOLVING])
def test_a_neighbour_that_is_no_longer_finite_changes_no_bit(model: str, place: int, digits: Dataset) -> None:
    recipe = {"lr": 0.02, "momentum": 0.9, "epochs": 2, "checkpoints": (7,)}
    healthy = [setting_of(model, seed, **recipe) for seed in range(5)]
    bad = healthy[place].with_recipe(lr=1e30)
    mixed = [*healthy[:place], bad, *healthy[place + 1 :]]
    wanted, found = fit_together(healthy, [digits] * 5), fit_together(mixed, [digits] * 5)
    diverged = found.pop(place)
    assert not math.isfinite(diverged.history[-1]["train_loss"])
    assert diverged.diverged_at == len(diverged.history) == fit(bad, digits).diverged_at
    assert all(same_bits(*pair) for pair in zip(found, wanted[:place] + wanted[place + 1 :], strict=True))


def test_checkpoints_beyond_the_end_are_refused(digits: Dataset) -> None:
    with pytest.raises(OptionError, match="beyond the last iteration"):
        fit_together([setting_of("fcn"), setting_of("fcn", 1, checkpoints=(99,))], [digits] * 2)


def test_other_inputs_than_the_firsts_are_refused(digits: Dataset) -> None:
    copied = dataclasses.replace(digits, inputs=digits.inputs.clone())  # type: ignore[union-attr]
    with pytest.raises(OptionError, match="must share their inputs"):
        fit_together([setting_of("fcn"), setting_of("fcn", 1)], [digits, copied])


@pytest.mark.parametrize(("settings", "datasets"), [(0, 0), (2, 1), (1, 2)])
def test_no_settings_or_another_number_of_datasets_is_refused(settings: int, datasets: int, digits: Dataset) -> None:
    with pytest.raises(OptionError, match=f"got {settings} settings and {datasets} datasets"):
        fit_together([setting_of("fcn", seed) for seed in range(settings)], [digits] * datasets)


# Verdicts


def test_curves_of_both_trainers_are_read_alike() -> None:
    """After full training, 32 networks: the same readings of every curve, within a point of alpha."""
    model = ModelSetting(name="fcn", hidden=(16,), batch_norm=True)
    recipe = {"epochs": 5, "momentum": 0.9, "lr": 0.05}
    wanted = [dataclasses.replace(tiny_setting(**recipe), model=model).with_seeds(seed) for seed in range(32)]
    data = training_data(wanted[0])
    trainers = fit_together(wanted, [data] * 32), [fit(setting, data) for setting in wanted]
    curves = [
        evaluate_many(network(wanted[0], data), [LinearPath(f.init, f.final) for f in fits], data, 11, calibration=data)
        for fits in trainers
    ]
    for ours, alone in zip(*curves, strict=True):
        assert ours.is_monotone("error") == alone.is_monotone("error")
        assert (ours.delta("loss") > 1e-3) == (alone.delta("loss") > 1e-3)
        assert ours.plateau("error") == pytest.approx(alone.plateau("error"), abs=0.01)
