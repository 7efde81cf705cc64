"""Tests of training many networks at once: each member is what it would be alone, whatever its neighbours do."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers import tiny_setting
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mli_check.data import Dataset, Normalisation
from mli_check.errors import OptionError
from mli_check.evaluation.front import evaluate_many
from mli_check.paths import LinearPath
from mli_check.settings import DataSetting, ModelSetting
from mli_check.training import ensemble
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import Fit, fit, network
from mli_check.training.sets import training_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mli_check.settings import Setting

OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1},
    "sgd with momentum and weight decay": {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-2},
    "adam": {"optimiser": "adam", "lr": 1e-3},
    "rmsprop": {"optimiser": "rmsprop", "lr": 1e-3, "momentum": 0.5, "weight_decay": 1e-3},
}
MODELS = {
    "fcn": ModelSetting(name="fcn", hidden=(16, 12)),
    "fcn with BN": ModelSetting(name="fcn", hidden=(16, 12), batch_norm=True),
    "fcn without biases": ModelSetting(name="fcn", hidden=(16,), bias=False),
    "vgg": ModelSetting(name="vgg", variant="tiny", hidden=(12,)),
    "vgg with BN": ModelSetting(name="vgg", variant="tiny", hidden=(12,), batch_norm=True),
    "lenet": ModelSetting(name="lenet", variant="tiny"),
    "resnet": ModelSetting(name="resnet", variant="8-narrow", batch_norm=True),
}
CONNECTED = ["fcn", "fcn with BN", "fcn without biases"]
every_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS)


def setting_of(model: str, seed: int = 0, **recipe: Any) -> Setting:
    return dataclasses.replace(tiny_setting(**recipe), model=MODELS[model]).with_seeds(seed)


def together(wanted: Sequence[Setting]) -> list[Fit]:
    """Trained at once, with any warning an error: vmap warns where it has no rule and loops."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sets = {setting.data: training_data(setting) for setting in wanted}
        return fit_together(wanted, [sets[setting.data] for setting in wanted])


def assert_alike(found: Fit, wanted: Fit, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    """The same tensors within tolerance, and the same of everything that is counted."""
    pairs = [(found.init, wanted.init, 0.0), (found.final, wanted.final, atol)]
    assert found.checkpoints.keys() == wanted.checkpoints.keys()
    pairs += [(state, wanted.checkpoints[step], atol) for step, state in found.checkpoints.items()]
    for state, other, allowed in pairs:
        assert list(state) == list(other)
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, other[name], rtol=rtol if allowed else 0, atol=allowed)
    assert found.diverged_at == wanted.diverged_at
    assert len(found.history) == len(wanted.history)
    for entry, other in zip(found.history, wanted.history, strict=True):
        counted = ("epoch", "iteration", "lr")
        assert [entry[name] for name in counted] == [other[name] for name in counted]
        assert entry["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)


# A member is the network trained alone


@every_optimiser
@pytest.mark.parametrize("model", CONNECTED)
def test_a_member_is_the_network_trained_alone(model: str, optimiser: str) -> None:
    wanted = [setting_of(model, seed, checkpoints=(1, 4), **OPTIMISERS[optimiser]) for seed in range(5)]
    for setting, found in zip(wanted, together(wanted), strict=True):
        assert_alike(found, fit(setting, training_data(setting)))


@every_optimiser
@pytest.mark.parametrize("model", [name for name in MODELS if name not in CONNECTED])
def test_a_convolutional_member_in_double_precision_is_the_network_trained_alone(model: str, optimiser: str) -> None:
    """In float32 a CPU sums grouped convolutions in another order: Adam and RMSprop then step by the sign of rounding
    where a gradient is zero but for it, as that of a bias before BN; in float64 the order is the same.
    """
    wanted = [setting_of(model, seed, precision="float64", **OPTIMISERS[optimiser]) for seed in range(4)]
    for setting, found in zip(wanted, together(wanted), strict=True):
        assert_alike(found, fit(setting, training_data(setting)), 1e-12, 1e-12)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in CONNECTED])
def test_a_convolutional_member_trained_by_sgd_is_the_network_trained_alone(model: str) -> None:
    recipe = OPTIMISERS["sgd with momentum and weight decay"]
    wanted = [setting_of(model, seed, batch_size=30, **recipe) for seed in range(4)]  # the last batch has 10
    for setting, found in zip(wanted, together(wanted), strict=True):
        assert_alike(found, fit(setting, training_data(setting)))


@st.composite
def mixed(drawing: st.DrawFn) -> list[Setting]:
    """Two to six networks of one kind that differ in all that members may differ in."""
    model = drawing(st.sampled_from(CONNECTED))
    epochs = drawing(st.integers(1, 3))
    batch = drawing(st.sampled_from([20, 30, 100]))
    found = []
    for _ in range(drawing(st.integers(2, 6))):
        recipe = dict(drawing(st.sampled_from(list(OPTIMISERS.values()))))
        recipe["lr"] *= drawing(st.sampled_from([0.1, 0.5, 1.0]))
        recipe["milestones"] = drawing(st.sampled_from([(), (1,), (0, 2)]))
        recipe["gamma"] = drawing(st.sampled_from([0.1, 0.5]))
        recipe["checkpoints"] = drawing(st.sampled_from([(), (1,)]))
        setting = setting_of(model, epochs=epochs, batch_size=batch, **recipe)
        setting = setting.with_seeds(*drawing(st.tuples(st.integers(0, 3), st.integers(0, 3))))
        form = drawing(st.sampled_from(["torch", "kaiming", "xavier"]))
        noise = drawing(st.sampled_from([0.0, 0.5, 1.0]))
        setting = dataclasses.replace(
            setting,
            model=dataclasses.replace(setting.model, init=form),
            data=dataclasses.replace(setting.data, label_noise=noise, label_seed=1 if noise else 0),
        )
        found.append(setting)
    return found


@settings(max_examples=15)
@given(mixed())
def test_members_may_differ_in_seeds_init_optimiser_rates_schedule_and_labels(wanted: list[Setting]) -> None:
    for setting, found in zip(wanted, together(wanted), strict=True):
        assert_alike(found, fit(setting, training_data(setting)), 1e-4, 1e-4)  # Adam and RMSprop, several epochs


@pytest.mark.parametrize("augmentation", ["crop", "crop-flip"])
def test_every_member_has_its_own_crops_of_normalised_pixels(augmentation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (50, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = Dataset(pixels, torch.arange(50) % 10, "pixels", 10, Normalisation((0.2, 0.5, 0.4), (0.3, 0.2, 0.25)))
    wanted = [setting_of("vgg", seed, augmentation=augmentation, epochs=2) for seed in range(3)]
    for setting, found in zip(wanted, fit_together(wanted, [data] * 3), strict=True):
        assert_alike(found, fit(setting, data))


def test_autoencoders_and_squared_errors_are_trained_at_once() -> None:
    recipe = {"loss": "squared_error", "lr": 1e-3}
    code = ModelSetting(name="autoencoder", hidden=(6,))
    for wanted in (
        [setting_of("fcn with BN", seed, **recipe) for seed in range(3)],
        [dataclasses.replace(tiny_setting(**recipe), model=code).with_seeds(seed) for seed in range(3)],
    ):
        for setting, found in zip(wanted, together(wanted), strict=True):
            assert_alike(found, fit(setting, training_data(setting)))


@pytest.mark.parametrize("fault", ["no momentum", "shared statistics", "one order"])
def test_planted_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    wanted = [setting_of("fcn with BN", seed, lr=0.02, momentum=0.9) for seed in range(3)]
    (*_, last), alone = together(wanted), fit(wanted[-1], training_data(wanted[-1]))
    with pytest.raises(AssertionError):
        assert_alike(last, alone)


# Neighbours


def same_bits(first: Fit, second: Fit) -> bool:
    states = [(first.final, second.final), *((s, second.checkpoints[k]) for k, s in first.checkpoints.items())]
    equal = all(torch.equal(state[name], other[name]) for state, other in states for name in state)
    return equal and first.history == second.history


@pytest.mark.parametrize("place", [0, 2, 4], ids=["first", "in the middle", "last"])
@pytest.mark.parametrize("model", MODELS)
def test_a_neighbour_that_is_no_longer_finite_changes_no_bit(model: str, place: int) -> None:
    recipe = {"lr": 0.02, "momentum": 0.9, "epochs": 2, "checkpoints": (7,)}
    healthy = [setting_of(model, seed, **recipe) for seed in range(5)]
    bad = healthy[place].with_recipe(lr=1e30)
    wanted, found = together(healthy), together([*healthy[:place], bad, *healthy[place + 1 :]])
    diverged = found.pop(place)
    assert not math.isfinite(diverged.history[-1]["train_loss"])
    assert diverged.diverged_at == len(diverged.history) == fit(bad, training_data(bad)).diverged_at
    assert all(same_bits(*pair) for pair in zip(found, wanted[:place] + wanted[place + 1 :], strict=True))


def test_training_ends_early_where_no_member_is_finite() -> None:
    wanted = [setting_of("fcn", seed, lr=1e30, epochs=50) for seed in range(3)]
    for setting, found in zip(wanted, together(wanted), strict=True):
        alone = fit(setting, training_data(setting))
        assert (found.diverged_at, len(found.history)) == (alone.diverged_at, len(alone.history))


# What it leaves alone, and what it refuses


def test_the_global_generator_and_other_networks_are_left_as_they_were() -> None:
    other = network(setting_of("fcn with BN"), training_data(tiny_setting()))
    forward = nn.BatchNorm1d.forward
    torch.manual_seed(3)
    before = torch.get_rng_state()
    together([setting_of("fcn with BN", seed) for seed in range(3)])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert nn.BatchNorm1d.forward is forward
    assert not [layer for layer in other.modules() if "forward" in vars(layer)]


@pytest.mark.parametrize(
    "change",
    [{"epochs": 2}, {"batch_size": 10}, {"precision": "float64"}, {"augmentation": "crop"}, {"loss": "squared_error"}],
    ids=str,
)
def test_networks_of_several_kinds_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must differ only in seeds"):
        together([setting_of("fcn"), setting_of("fcn", 1).with_recipe(**change)])


def test_networks_of_other_shapes_or_data_are_refused() -> None:
    other = dataclasses.replace(setting_of("fcn"), data=DataSetting(name="digits", subset=50))
    for second in (setting_of("fcn with BN"), other):
        with pytest.raises(OptionError, match="train the others apart"):
            together([setting_of("fcn"), second])


def test_what_fit_refuses_is_refused() -> None:
    with pytest.raises(OptionError, match="beyond the last iteration"):
        together([setting_of("fcn"), setting_of("fcn", 1, checkpoints=(99,))])


# Verdicts


def test_curves_of_both_trainers_are_read_alike() -> None:
    """After full training, 32 networks: the same readings of every curve, within a point of alpha."""
    model = ModelSetting(name="fcn", hidden=(16,), batch_norm=True)
    recipe = {"epochs": 5, "momentum": 0.9, "lr": 0.05}
    wanted = [dataclasses.replace(tiny_setting(**recipe), model=model).with_seeds(seed) for seed in range(32)]
    data = training_data(wanted[0])
    trainers = together(wanted), [fit(setting, data) for setting in wanted]
    curves = [
        evaluate_many(network(wanted[0], data), [LinearPath(f.init, f.final) for f in fits], data, 11, calibration=data)
        for fits in trainers
    ]
    for ours, alone in zip(*curves, strict=True):
        assert ours.is_monotone("error") == alone.is_monotone("error")
        assert (ours.delta("loss") > 1e-3) == (alone.delta("loss") > 1e-3)
        assert ours.plateau("error") == pytest.approx(alone.plateau("error"), abs=0.01)
