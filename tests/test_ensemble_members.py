"""Tests of members of an ensemble that differ in everything, on data of every kind, up to the edges of a recipe."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from ensemble_helpers import (
    GENTLE,
    MODELS,
    RECIPES,
    assert_agrees,
    assert_each_agrees,
    data_of,
    labelled_anew,
    same_bits,
    setting_of,
)
from helpers import images
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mli_check.data import Dataset, Normalisation
from mli_check.errors import OptionError
from mli_check.evaluation.front import evaluate_many
from mli_check.paths import LinearPath
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import fit, network
from mli_check.training.sets import targeted, training_data

if TYPE_CHECKING:
    from mli_check.settings import Setting

CLASSIFIERS = [name for name in MODELS if name != "autoencoder"]
CONVOLVING = [name for name in CLASSIFIERS if not name.startswith("fcn")]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return training_data(setting_of("fcn"))


def pixels(count: int, channels: int = 1) -> Dataset:
    """Random uint8 images with random classes, normalised where a network sees them."""
    generator = torch.Generator().manual_seed(count)
    drawn = torch.randint(256, (count, channels, 8, 8), generator=generator, dtype=torch.uint8)
    normalisation = Normalisation((0.25, 0.5, 0.4)[:channels], (0.3, 0.2, 0.25)[:channels])
    return Dataset(drawn, torch.arange(count) % 10, "pixels", 10, normalisation)


# Members that differ in everything


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_one_ensemble_holds_every_optimiser(model: str, digits: Dataset) -> None:
    """In float64, where a CPU sums a grouped convolution in the order of a single one.

    In float32 it does not, and Adam and RMSprop step by the sign of a gradient that is nothing but rounding.
    """
    wanted = [
        setting_of(model, seed, precision="float64", checkpoints=(2, 3), batch_size=30, **recipe)
        for seed in range(2)
        for recipe in RECIPES.values()
    ]
    assert_each_agrees(wanted, [digits] * len(wanted), 1e-7)  # a zero gradient's rounding is divided by 1e-8


@pytest.mark.parametrize("model", CONVOLVING)
def test_the_first_epoch_of_convolutions_by_sgd_agrees_in_single_precision(model: str, digits: Dataset) -> None:
    recipes = [RECIPES[name] for name in ("sgd", "momentum", "weight decay")]
    wanted = [setting_of(model, seed, checkpoints=(1, 3), **recipe) for seed in range(2) for recipe in recipes]
    deep = model == "resnet-bn"  # whose nine layers with BN make a thousand times as much of rounding within 5 steps
    assert_each_agrees(wanted, [digits] * len(wanted), 1e-3 if deep else 1e-5)


@st.composite
def members(draw: st.DrawFn) -> tuple[list[Setting], list[Dataset]]:
    """Up to six networks of one kind in any order, and their data; of every kind of network and of data."""
    model = draw(st.sampled_from(list(MODELS)))
    data = draw(st.sampled_from([images(47), pixels(33), images(20).subset(12)]))
    data = data_of(model, data)
    epochs, batch = draw(st.integers(1, 3)), draw(st.sampled_from([7, 12, 16, 64]))
    # Products of two or three rows are summed in another order, and with BN their gradients are little but rounding.
    assume(len(data) % batch not in (1, 2, 3) or not MODELS[model].batch_norm)
    shared: dict[str, Any] = {"epochs": epochs, "batch_size": batch, "precision": "float64"}
    if model != "autoencoder":
        shared["augmentation"] = draw(st.sampled_from(["", "crop", "crop-flip"]))
        shared["loss"] = draw(st.sampled_from(["cross_entropy", "squared_error"]))
    highest = 1.0 if shared.get("loss") == "cross_entropy" else 0.1 * GENTLE["lr"]  # so that training is no chaos
    steps = epochs * math.ceil(len(data) / batch)
    wanted = []
    for _ in range(draw(st.integers(1, 6))):
        recipe = draw(st.sampled_from(list(RECIPES.values()))) | shared
        recipe["lr"] = min(recipe["lr"], highest) * draw(st.sampled_from([0.1, 0.5, 1.0]))
        recipe["milestones"] = draw(st.sampled_from([(), (0,), (1,), (1, 2), (9,)]))
        recipe["gamma"] = draw(st.sampled_from([0.1, 0.5]))
        recipe["checkpoints"] = tuple(sorted(draw(st.sets(st.integers(1, steps), max_size=3))))
        setting = setting_of(model, **recipe).with_seeds(draw(st.integers(0, 3)), draw(st.integers(0, 3)))
        form = draw(st.sampled_from(["torch", "kaiming", "xavier"]))
        setting = dataclasses.replace(setting, model=dataclasses.replace(setting.model, init=form))
        if model != "autoencoder":
            setting = labelled_anew(setting, draw(st.sampled_from([0.0, 0.5, 1.0])), draw(st.integers(0, 1)))
        wanted.append(setting)
    return wanted, [targeted(data, setting) for setting in wanted]


@settings(max_examples=30)
@given(drawn=members())
def test_drawn_members_are_the_networks_trained_alone(drawn: tuple[list[Setting], list[Dataset]]) -> None:
    alone = [fit(setting, data) for setting, data in zip(*drawn, strict=True)]
    assume(all(entry["train_loss"] < 1e4 for result in alone for entry in result.history))  # rounding grows as they do
    for setting, result, found in zip(drawn[0], alone, fit_together(*drawn), strict=True):
        if setting.model.batch_norm and setting.recipe.optimiser != "sgd":  # steps follow a zero gradient's rounding
            losses = [[entry["train_loss"] for entry in one.history] for one in (found, result)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        else:
            assert_agrees(found, result, 1e-7)


@given(order=st.permutations(range(6)))
@settings(max_examples=8)
def test_members_come_in_the_order_of_the_settings(order: list[int], digits: Dataset) -> None:
    recipes = [{"lr": 0.1}, {"lr": 0.05}, {"lr": 0.1, "milestones": (1,)}, RECIPES["adam"], {"lr": 0.1}, {"gamma": 0.5}]
    wanted = [setting_of("fcn", seed, **recipe) for seed, recipe in enumerate(recipes)]
    found = fit_together([wanted[member] for member in order], [digits] * 6)
    for member, result in zip(order, found, strict=True):
        assert_agrees(result, fit(wanted[member], digits), 1e-6)


# The edges of data and recipes


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("fcn", {"batch_size": 1000}),
        ("fcn", {"batch_size": 1, "lr": 0.01}),
        ("vgg-bn", {"batch_size": 33, "checkpoints": (1, 2, 3)}),
        ("fcn-bn", {"momentum": 0.99, "epochs": 3}),
        ("fcn", {"milestones": (0,), "gamma": 0.5, "epochs": 2}),
        ("fcn", {"milestones": (0, 1, 2), "gamma": 3.0, "epochs": 3, "lr": 0.01}),
        ("fcn-bn", {"optimiser": "adam", "lr": 0.01, "precision": "float64", "epochs": 3}),
        ("resnet-bn", {"loss": "squared_error", "lr": 0.01, "batch_size": 50}),
        ("autoencoder", {"optimiser": "adam", "batch_size": 30}),
    ],
    ids=str,
)
def test_recipes_at_the_edge_agree(model: str, recipe: dict[str, Any], digits: Dataset) -> None:
    data = data_of(model, digits.subset(98))
    wanted = [setting_of(model, seed, **recipe) for seed in range(3)]
    found = assert_each_agrees(wanted, [data] * 3, 1e-4)
    assert all(result.diverged_at is None for result in found)


@pytest.mark.parametrize("count", [1, 40])
def test_one_member_and_forty_agree(count: int, digits: Dataset) -> None:
    wanted = [setting_of("fcn-bn", seed, checkpoints=(5,)) for seed in range(count)]
    found = assert_each_agrees(wanted, [digits] * count, 1e-5)
    assert len({float(result.final["1.weight"].sum()) for result in found}) == count


def test_checkpoints_of_every_iteration_are_each_member_s_own(digits: Dataset) -> None:
    wanted = [setting_of("vgg-bn", 0, epochs=2, checkpoints=tuple(range(1, 11))), setting_of("vgg-bn", 1, epochs=2)]
    first, second = fit_together(wanted, [digits] * 2)
    counted = [int(state["1.num_batches_tracked"]) for state in first.checkpoints.values()]
    assert counted == list(range(1, 11))
    assert second.checkpoints == {}
    pointers = {state["0.weight"].data_ptr() for state in first.checkpoints.values()}
    assert len(pointers) == 10


def test_data_that_lack_classes_get_networks_for_all_of_them(digits: Dataset) -> None:
    few = Dataset(digits.inputs, torch.tensor([2, 5]).repeat(50), n_classes=10)
    found = assert_each_agrees([setting_of("fcn", seed) for seed in range(3)], [few] * 3, 1e-5)
    assert found[0].final["5.weight"].shape == (10, 11)


def test_flat_inputs_of_double_precision_are_taken(digits: Dataset) -> None:
    flat = Dataset(digits.inputs.flatten(1).double(), digits.targets, n_classes=10)
    assert_each_agrees([setting_of("fcn-bn", seed) for seed in range(3)], [flat] * 3, 1e-5)


def test_random_labels_are_each_member_s_own(digits: Dataset) -> None:
    wanted = [labelled_anew(setting_of("fcn"), share, seed) for share, seed in ((0.0, 0), (0.5, 0), (0.5, 1), (1.0, 0))]
    found = assert_each_agrees(wanted, [targeted(digits, setting) for setting in wanted], 1e-5)
    assert len({result.history[0]["train_loss"] for result in found}) == 4


def test_pixels_and_labels_are_left_as_they_were() -> None:
    data = pixels(50, 3)
    before = data.inputs.clone(), data.targets.clone()
    fit_together([setting_of("vgg", seed, augmentation="crop-flip") for seed in range(3)], [data] * 3)
    assert torch.equal(data.inputs, before[0])
    assert torch.equal(data.targets, before[1])


def test_bfloat16_members_are_near_the_networks_trained_alone(digits: Dataset) -> None:
    """Sums in another order move autocast products by a last bit of eight."""
    wanted = [setting_of("vgg", seed, precision="bfloat16", lr=0.02) for seed in range(3)]
    for setting, found in zip(wanted, fit_together(wanted, [digits] * 3), strict=True):
        alone = fit(setting, digits)
        assert found.history[0]["train_loss"] == pytest.approx(alone.history[0]["train_loss"], rel=1e-2)
        assert {tensor.dtype for tensor in found.final.values()} == {torch.float32}
        assert all((found.final[name] - alone.final[name]).abs().max() < 1e-2 for name in alone.final)


def test_the_same_ensemble_gives_the_same_bits(digits: Dataset) -> None:
    wanted = [setting_of("vgg-bn", seed, augmentation="crop", **recipe) for seed, recipe in enumerate(RECIPES.values())]
    first, second = (fit_together(wanted, [digits] * len(wanted)) for _ in range(2))
    assert all(same_bits(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("setting", "data", "message"),
    [
        (setting_of("fcn-bn", batch_size=33), images(100), "leave one of 100 examples"),
        (setting_of("vgg-bn"), images(1), "leave one of 1 examples"),
        (setting_of("fcn"), Dataset({"ids": torch.ones(4, 2)}, torch.arange(4)), "dict of inputs"),
        (setting_of("fcn"), Dataset(torch.ones(4, 2), torch.ones(4)), "not classes"),
        (setting_of("autoencoder"), images(100), r"pass Dataset\(x, x\)"),
        (setting_of("fcn", augmentation="crop"), Dataset(torch.ones(40, 64), torch.arange(40) % 10), "augmentation"),
    ],
    ids=["a batch of one", "one example", "a dict", "no classes", "an autoencoder's classes", "no images"],
)
def test_what_fit_refuses_is_refused_in_its_words(setting: Setting, data: Dataset, message: str) -> None:
    for train in (lambda: fit(setting, data), lambda: fit_together([setting, setting.with_seeds(1)], [data] * 2)):
        with pytest.raises(OptionError, match=message):
            train()


# What is read off the trained networks


def test_where_rounding_steers_adam_the_readings_of_both_trainers_still_agree(digits: Dataset) -> None:
    """Convolutions with BN in float32 after full training, 32 networks: their weights part, their curves do not."""
    wanted = [setting_of("lenet-bn", seed, epochs=8, **RECIPES["adam"]) for seed in range(32)]
    trainers = fit_together(wanted, [digits] * 32), [fit(setting, digits) for setting in wanted]
    ours, theirs = (np.array([fit.history[-1]["train_loss"] for fit in fits]) for fits in trainers)
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.02)
    np.testing.assert_allclose(ours, theirs, rtol=0.3)
    model = network(wanted[0], digits)
    curves = [
        evaluate_many(model, [LinearPath(f.init, f.final) for f in fits], digits, 11, calibration=digits)
        for fits in trainers
    ]
    for quantity in ("loss", "error"):
        monotone, rises, plateaus = (
            np.array([[getattr(curve, name)(quantity) for curve in of_one] for of_one in curves])
            for name in ("is_monotone", "delta", "plateau")
        )
        assert (monotone[0] != monotone[1]).sum() <= 3
        np.testing.assert_allclose(rises[0], rises[1], atol=0.03)
        np.testing.assert_allclose(plateaus[0], plateaus[1], atol=0.02)
