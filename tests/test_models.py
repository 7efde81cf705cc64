"""Tests of the papers' architectures."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mli_check.models
from mli_check.errors import OptionError, UnknownNameError
from mli_check.models import BUILDERS, build
from mli_check.models.vgg import VARIANTS
from mli_check.settings import ModelSetting

DIGITS = (1, 8, 8)
SWITCHES = [(batch_norm, bias) for batch_norm in (False, True) for bias in (False, True)]
SWITCH_IDS = ["no BN, no biases", "no BN, biases", "BN, no biases", "BN, biases"]
MODELS = {
    "fcn": {"name": "fcn", "hidden": (16, 12)},
    "vgg": {"name": "vgg", "variant": "tiny", "hidden": (32,)},
}


def built(shape: tuple[int, ...] = DIGITS, classes: int = 10, **setting: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(ModelSetting(**setting), shape, classes)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def linear_count(inputs: int, widths: tuple[int, ...], bias: bool) -> int:
    return sum((before + bias) * after for before, after in pairwise((inputs, *widths)))


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model]


# How many parameters


@given(
    hidden=st.lists(st.integers(1, 20), max_size=4).map(tuple),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    classes=st.integers(1, 12),
    batch_norm=st.booleans(),
    bias=st.booleans(),
)
def test_fcn_has_the_parameters_of_its_formula(
    hidden: tuple[int, ...], shape: tuple[int, ...], classes: int, batch_norm: bool, bias: bool
) -> None:
    model = built(shape, classes, name="fcn", hidden=hidden, batch_norm=batch_norm, bias=bias)
    assert count(model) == linear_count(prod(shape), (*hidden, classes), bias) + 2 * sum(hidden) * batch_norm


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("batch_norm", "bias"), SWITCHES, ids=SWITCH_IDS)
@pytest.mark.parametrize("hidden", [(), (32,), (20, 16)], ids=str)
@pytest.mark.parametrize("sides", [(0, 0), (3, 0), (7, 5)], ids=["smallest", "wide", "larger"])
def test_vgg_has_the_parameters_of_its_formula(
    variant: str, batch_norm: bool, bias: bool, hidden: tuple[int, ...], sides: tuple[int, int]
) -> None:
    stages = VARIANTS[variant]
    shrink = 2 ** len(stages)
    shape = (3, shrink + sides[0], shrink + sides[1])
    model = built(shape, 7, name="vgg", variant=variant, batch_norm=batch_norm, bias=bias, hidden=hidden)
    channels = [3, *(wide for stage in stages for wide in stage)]
    features = channels[-1] * (shape[1] // shrink) * (shape[2] // shrink)
    convolutions = sum((9 * before + bias + 2 * batch_norm) * after for before, after in pairwise(channels))
    assert count(model) == convolutions + linear_count(features, (*hidden, 7), bias)


def test_fcn4_on_digits_has_four_linear_layers() -> None:
    model = built(name="fcn", hidden=(64, 64, 64))
    assert kinds(model).count("Linear") == 4
    assert count(model) == 3 * (64 * 64 + 64) + 64 * 10 + 10


def test_the_vgg_variants_are_what_they_have_always_been() -> None:
    """A change of these means that stored runs no longer fit the networks of their settings: rename, or raise
    TRAINING_VERSION. New variants are welcome."""
    assert VARIANTS["tiny"] == ((8,), (16,), (32,))


# How the layers follow each other


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"name": "fcn"}, ["Flatten", "Linear"]),
        ({"name": "fcn", "hidden": (4, 4)}, ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]),
        ({"name": "fcn", "hidden": (4,), "batch_norm": True}, ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]),
    ],
    ids=["no hidden layer", "plain", "BN"],
)
def test_fcn_is_linear_then_bn_then_relu(setting: dict[str, Any], expected: list[str]) -> None:
    assert kinds(built(**setting)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
def test_vgg_is_convolution_then_bn_then_relu_and_pools_after_each_stage(variant: str, batch_norm: bool) -> None:
    stages = VARIANTS[variant]
    side = 2 ** len(stages)
    unit = ["Conv2d", "BatchNorm2d", "ReLU"] if batch_norm else ["Conv2d", "ReLU"]
    expected = [kind for stage in stages for kind in [*unit * len(stage), "MaxPool2d"]]
    model = built((1, side, side), name="vgg", variant=variant, batch_norm=batch_norm, hidden=(32,))
    assert kinds(model) == [*expected, "Flatten", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize("setting", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize(("batch_norm", "bias"), SWITCHES, ids=SWITCH_IDS)
def test_the_switches_decide_on_biases_and_normalisation(setting: dict[str, Any], batch_norm: bool, bias: bool) -> None:
    model = built(**setting, batch_norm=batch_norm, bias=bias)
    layers = [layer for layer in model if isinstance(layer, nn.Linear | nn.Conv2d)]
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert all((layer.bias is not None) is bias for layer in layers)
    assert bool(norms) is batch_norm
    assert all(norm.affine and norm.track_running_stats for norm in norms)
    assert bool(list(model.buffers())) is batch_norm


@pytest.mark.parametrize("setting", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 11, 9)], ids=str)
def test_a_network_gives_a_logit_for_each_class_and_its_gradients_reach_every_parameter(
    setting: dict[str, Any], shape: tuple[int, ...]
) -> None:
    model = built(shape, 5, **setting, batch_norm=True)
    outputs = model(torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert outputs.shape == (4, 5)
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# Initialisation


@pytest.mark.parametrize("setting", MODELS.values(), ids=MODELS.keys())
def test_kaiming_weights_have_variance_two_over_fan_in_and_biases_are_zero(setting: dict[str, Any]) -> None:
    """Weights times sqrt(fan-in / 2) are standard normal. Of n, the deviation has the standard error 1 / sqrt(2 n)."""
    wide = setting | {"hidden": (400, 100)}
    model = built(**wide, init="kaiming", batch_norm=True)
    drawn = []
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            drawn.append(layer.weight.detach().flatten() * (layer.weight[0].numel() / 2) ** 0.5)
            assert layer.bias is not None
            assert not layer.bias.any()
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()
    for weights in (*drawn, torch.cat(drawn)):
        assert float(weights.std()) == pytest.approx(1, abs=5 / (2 * len(weights)) ** 0.5)
        assert float(weights.mean()) == pytest.approx(0, abs=5 / len(weights) ** 0.5)


def test_the_other_initialisation_is_torchs_own() -> None:
    model = built(name="fcn", hidden=(16,), batch_norm=True)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("init", ["torch", "kaiming"])
def test_weights_come_from_the_global_generator(init: str) -> None:
    setting = ModelSetting(name="fcn", hidden=(8,), init=init)
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(build(setting, DIGITS, 10)[1].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# What cannot be built


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ({"name": "vgg16"}, "unknown model 'vgg16'. Did you mean `vgg`?"),
        ({"name": "FCN"}, f"Known: {', '.join(sorted(BUILDERS))}"),
        ({"name": ""}, "unknown model ''"),
        ({"name": "vgg", "variant": "tinny"}, "unknown variant of vgg 'tinny'. Did you mean `tiny`?"),
        ({"name": "vgg"}, "unknown variant of vgg ''"),
    ],
    ids=str,
)
def test_an_unknown_model_or_variant_is_refused_with_those_known(setting: dict[str, Any], hint: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        built(**setting)
    assert hint in str(raised.value)


def test_fcn_has_no_variants() -> None:
    with pytest.raises(OptionError, match=r"`fcn` has no variants, got variant='tiny'; give its `hidden` widths"):
        built(name="fcn", variant="tiny")


@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 8, 7), (1, 1, 1), (8, 8), (64,), (1, 1, 8, 8)], ids=str)
def test_vgg_refuses_what_its_pools_would_shrink_to_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"'tiny' has 3 pools and needs images .* of at least 8 pixels a side, got"):
        built(shape, name="vgg", variant="tiny")


# The files


@pytest.mark.parametrize(
    "file", sorted(Path(mli_check.models.__file__).parent.glob("*.py")), ids=lambda file: file.name
)
def test_no_file_of_a_model_is_longer_than_150_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 150
