"""Tests of which networks are trained at once: what makes a kind, how groups are cut, and where stacking pays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from ensemble_helpers import MODELS, assert_each_agrees, setting_of
from helpers import images, tiny_setting
from hypothesis import given
from hypothesis import strategies as st

from mli_check.data import Dataset
from mli_check.errors import OptionError
from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.training import grouping
from mli_check.training.ensemble import fit_together
from mli_check.training.grouping import LEAST, MOST, groups, kind_of, most_together

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = images(60)
BASE = tiny_setting(batch_size=30, optimiser="sgd", momentum=0.5)

# Another value of every field of a setting: those that members may differ in, and those that make another kind.
MEMBERS: dict[str, dict[str, Any]] = {
    "data": {"label_noise": 0.5, "label_seed": 3},
    "model": {"init": "kaiming"},
    "recipe": {
        "optimiser": "rmsprop",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "milestones": (1,),
        "gamma": 0.5,
        "init_seed": 3,
        "order_seed": 4,
        "checkpoints": (1, 2),
    },
}
KINDS: dict[str, dict[str, Any]] = {
    "data": {"name": "digits-gaussian", "subset": 60},
    "model": {
        "name": "autoencoder",
        "hidden": (9,),
        "variant": "tiny",
        "batch_norm": True,
        "bias": False,
        "activation": "tanh",
        "hidden_bias": False,
        "layer_norm": True,
    },
    "recipe": {
        "epochs": 2,
        "batch_size": 20,
        "precision": "float64",
        "augmentation": "crop",
        "loss": "squared_error",
        "schedule": "linear",
    },
}


def changed(part: str, field: str, value: Any) -> Setting:
    """BASE with one field changed; an autoencoder also needs its loss."""
    setting = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, loss="squared_error"))
    setting = setting if value == "autoencoder" else BASE
    return dataclasses.replace(setting, **{part: dataclasses.replace(getattr(setting, part), **{field: value})})


def fields(table: dict[str, dict[str, Any]]) -> list[tuple[str, str, Any]]:
    return [(part, field, value) for part, values in table.items() for field, value in values.items()]


# Kinds


def test_every_field_of_a_setting_is_in_one_of_the_tables() -> None:
    for part, kind in (("data", DataSetting), ("model", ModelSetting), ("recipe", Recipe)):
        names = [entry.name for entry in dataclasses.fields(kind)]
        assert sorted([*MEMBERS[part], *KINDS[part]]) == sorted(names)


@pytest.mark.parametrize(("part", "field", "value"), fields(MEMBERS))
def test_members_of_one_kind_differ_in_this_and_are_trained_at_once(part: str, field: str, value: Any) -> None:
    other = changed(part, field, value)
    assert other != BASE
    assert kind_of(other) == kind_of(BASE)
    noisy = DATA.with_random_labels(other.data.label_noise, other.data.label_seed)
    assert_each_agrees([BASE, other], [DATA, noisy], 1e-5)


@pytest.mark.parametrize(("part", "field", "value"), fields(KINDS))
def test_this_makes_another_kind_which_is_not_trained_with_the_first(part: str, field: str, value: Any) -> None:
    other = changed(part, field, value)
    assert kind_of(other) != kind_of(BASE)
    its = Dataset(DATA.inputs, DATA.inputs) if other.reconstructs else DATA
    with pytest.raises(OptionError, match="must differ only in seeds"):
        fit_together([BASE, other], [DATA, its])


# Groups


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Setting], dict[int, int]]:
    """Networks of four kinds in any order, and how many of each kind are best trained at once: 1, or enough."""
    drawn = draw(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(0, 999)), max_size=70, unique=True))
    wanted = [BASE.with_recipe(epochs=epochs).with_seeds(seed) for epochs, seed in drawn]
    return wanted, {epochs: draw(st.sampled_from([1, *range(2 * LEAST, 20)])) for epochs in (1, 2, 3, 4)}


def cut(wanted: list[Setting], most: dict[int, int]) -> list[list[Setting]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grouping, "most_together", lambda setting, data: most[setting.recipe.epochs])
        return groups(wanted, lambda setting: DATA)


def flat(found: Iterable[Iterable[Setting]]) -> list[Setting]:
    return [setting for group in found for setting in group]


@given(drawn=requests())
def test_every_setting_is_in_exactly_one_group_and_keeps_its_place_in_its_kind(
    drawn: tuple[list[Setting], dict[int, int]],
) -> None:
    wanted, _ = drawn
    found = flat(cut(*drawn))
    kinds = list(dict.fromkeys(map(kind_of, wanted)))
    assert found == [setting for kind in kinds for setting in wanted if kind_of(setting) == kind]


@given(drawn=requests())
def test_groups_are_of_one_kind_even_as_few_as_possible_and_none_too_large_or_too_small(
    drawn: tuple[list[Setting], dict[int, int]],
) -> None:
    wanted, most = drawn
    found = cut(wanted, most)
    for epochs, limit in most.items():
        count = sum(setting.recipe.epochs == epochs for setting in wanted)
        sizes = [len(group) for group in found if group[0].recipe.epochs == epochs]
        if count < LEAST or limit == 1:
            assert sizes == [1] * count
        else:
            assert len(sizes) == -(-count // limit)
            assert LEAST <= min(sizes) <= max(sizes) <= min(limit, min(sizes) + 1)
    assert all(len({kind_of(setting) for setting in group}) == 1 for group in found)


def test_groups_ask_for_data_and_measure_only_where_there_are_enough() -> None:
    def never(setting: Setting) -> Dataset:
        raise AssertionError("the data are not needed")

    few = [BASE.with_seeds(seed) for seed in range(LEAST - 1)]
    assert groups(few, never) == [[setting] for setting in few]
    assert groups([], never) == []
    with pytest.raises(AssertionError, match="not needed"):
        groups([*few, BASE.with_seeds(99)], never)


@pytest.mark.parametrize("model", MODELS)
def test_groups_of_real_networks_are_within_what_is_best_trained_at_once(model: str) -> None:
    data = Dataset(DATA.inputs, DATA.inputs) if model == "autoencoder" else DATA
    wanted = [setting_of(model, seed) for seed in range(300)]
    most = most_together(wanted[0], data)
    assert 2 * LEAST <= most <= MOST
    sizes = [len(group) for group in groups(wanted, lambda setting: data)]
    assert sum(sizes) == 300
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


# Where it pays

WIDE, WIDER = (ModelSetting(name="fcn", hidden=(width, width)) for width in (500, 900))
LARGE = Dataset(torch.zeros(128, 3, 32, 32), torch.arange(128) % 10)


@pytest.mark.parametrize(
    ("setting", "data"),
    [
        (dataclasses.replace(BASE, model=WIDE), DATA),
        (dataclasses.replace(BASE, model=WIDER), DATA),
        (dataclasses.replace(tiny_setting(batch_size=128), model=MODELS["vgg-bn"]), LARGE),
        (dataclasses.replace(tiny_setting(batch_size=128), model=MODELS["resnet-bn"]), LARGE),
        (BASE.with_recipe(precision="bfloat16"), DATA),
        (BASE, Dataset({"ids": DATA.inputs}, DATA.targets)),
    ],
    ids=["wide", "wider", "large convolutions", "large convolutions of a resnet", "bfloat16", "a dict of inputs"],
)
def test_what_is_not_worth_it_is_trained_alone(setting: Setting, data: Dataset) -> None:
    assert most_together(setting, data) == 1
    wanted = [setting.with_seeds(seed) for seed in range(10)]
    assert groups(wanted, lambda _: data) == [[one] for one in wanted]


@pytest.mark.parametrize(
    ("model", "shape", "stacked"),
    [
        (ModelSetting(name="fcn", hidden=(64,)), (1, 8, 8), True),
        (ModelSetting(name="fcn", hidden=(256,)), (1, 28, 28), True),
        (ModelSetting(name="fcn", hidden=(1024,)), (1, 28, 28), False),
        (ModelSetting(name="vgg", variant="tiny"), (1, 8, 8), True),
        (ModelSetting(name="vgg", variant="tiny"), (3, 32, 32), False),
        (ModelSetting(name="vgg", variant="8"), (3, 32, 32), False),
    ],
)
def test_networks_are_stacked_on_a_cpu_where_they_stay_in_the_cache(
    model: ModelSetting, shape: tuple[int, ...], stacked: bool
) -> None:
    setting = dataclasses.replace(tiny_setting(batch_size=50), model=model)
    data = Dataset(torch.zeros(100, *shape), torch.arange(100) % 10)
    assert (most_together(setting, data) > 1) is stacked


@pytest.mark.parametrize("model", MODELS)
def test_how_many_is_repeatable_and_draws_nothing_from_the_global_generator(model: str) -> None:
    setting = setting_of(model)
    data = Dataset(DATA.inputs, DATA.inputs) if model == "autoencoder" else DATA
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = most_together(setting, data)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert most_together(setting.with_seeds(5), data) == first
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("widths", [(64, 128), (128, 256), (256, 400)], ids=str)
def test_wider_networks_are_trained_with_no_more_others(widths: tuple[int, int]) -> None:
    most = [
        most_together(dataclasses.replace(BASE, model=ModelSetting(name="fcn", hidden=(w, w))), DATA) for w in widths
    ]
    assert MOST >= most[0] >= most[1] >= 2 * LEAST


def test_a_batch_counts_for_no_more_examples_than_there_are() -> None:
    few = LARGE.subset(4)
    large = dataclasses.replace(tiny_setting(batch_size=10**6), model=MODELS["vgg"])
    assert most_together(large, few) == most_together(large.with_recipe(batch_size=4), few) > 1
    assert most_together(large, LARGE) == 1


def test_data_that_do_not_fit_the_network_are_an_option_error() -> None:
    flat_images = Dataset(torch.zeros(10, 64), torch.arange(10))
    with pytest.raises(OptionError, match="images"):
        most_together(setting_of("vgg"), flat_images)
