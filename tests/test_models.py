"""Tests of the papers' architectures."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision
from helpers import random_state
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

import mli_check.models
from mli_check.errors import OptionError, UnknownNameError
from mli_check.models import BUILDERS, build
from mli_check.models.initialise import INITIALISERS
from mli_check.models.lenet import CHANNELS as LENET_CHANNELS
from mli_check.models.lenet import VARIANTS as LENETS
from mli_check.models.lenet import WIDTHS as LENET_WIDTHS
from mli_check.models.resnet import VARIANTS as RESNETS
from mli_check.models.resnet import Block
from mli_check.models.switches import ACTIVATIONS
from mli_check.models.vgg import VARIANTS
from mli_check.settings import ACTIVATIONS as KNOWN_ACTIVATIONS
from mli_check.settings import INITIALISATIONS, ModelSetting

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
SWITCHES = [(batch_norm, bias) for batch_norm in (False, True) for bias in (False, True)]
SWITCH_IDS = ["no BN, no biases", "no BN, biases", "BN, no biases", "BN, biases"]
CLASSIFIERS = {
    "fcn": {"name": "fcn", "hidden": (16, 12)},
    "lenet": {"name": "lenet", "variant": "tiny"},
    "vgg": {"name": "vgg", "variant": "tiny", "hidden": (32,)},
    "resnet": {"name": "resnet", "variant": "8"},
}
MODELS = CLASSIFIERS | {"autoencoder": {"name": "autoencoder", "hidden": (5,)}}
OF_CIFAR = {
    "fcn": {"name": "fcn", "hidden": (16, 12)},
    "lenet": {"name": "lenet"},
    "vgg8": {"name": "vgg", "variant": "8", "hidden": (512, 512)},
    "vgg16": {"name": "vgg", "variant": "16"},
    "vgg19": {"name": "vgg", "variant": "19"},
    "resnet20": {"name": "resnet", "variant": "20"},
    "resnet32": {"name": "resnet", "variant": "32"},
    "autoencoder": {"name": "autoencoder", "hidden": (5,)},
}
every_model = pytest.mark.parametrize("setting", MODELS.values(), ids=MODELS.keys())


def built(shape: tuple[int, ...] = DIGITS, classes: int = 10, **setting: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(ModelSetting(**setting), shape, classes)


def drawn_up(shape: tuple[int, ...], classes: int = 10, **setting: Any) -> nn.Module:
    """The network with shapes but no numbers, which costs nothing however large it is."""
    with torch.device("meta"):
        return build(ModelSetting(**setting), shape, classes)


def examples(shape: tuple[int, ...], number: int = 4) -> Tensor:
    return torch.rand(number, *shape, generator=torch.Generator().manual_seed(0))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def linear_count(inputs: int, widths: tuple[int, ...], bias: bool) -> int:
    return sum((before + bias) * after for before, after in pairwise((inputs, *widths)))


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model]


def convolutions_and_linears(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def normalisations(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]


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
    model = drawn_up(shape, 7, name="vgg", variant=variant, batch_norm=batch_norm, bias=bias, hidden=hidden)
    channels = [3, *(wide for stage in stages for wide in stage)]
    features = channels[-1] * (shape[1] // shrink) * (shape[2] // shrink)
    convolutions = sum((9 * before + bias + 2 * batch_norm) * after for before, after in pairwise(channels))
    assert count(model) == convolutions + linear_count(features, (*hidden, 7), bias)


@pytest.mark.parametrize(("batch_norm", "bias"), SWITCHES, ids=SWITCH_IDS)
@pytest.mark.parametrize(
    ("variant", "shape", "kernel", "features"),
    [
        ("", CIFAR, 25, 16 * 5 * 5),
        ("", MNIST, 25, 16 * 5 * 5),
        ("", (3, 33, 40), 25, 16 * 5 * 7),
        ("", (2, 12, 40), 25, 16 * 1 * 8),
        ("tiny", DIGITS, 9, 16 * 2 * 2),
        ("tiny", (2, 4, 15), 9, 16 * 1 * 3),
    ],
    ids=str,
)
def test_lenet_has_the_parameters_of_its_formula(
    variant: str, shape: tuple[int, ...], kernel: int, features: int, batch_norm: bool, bias: bool
) -> None:
    model = built(shape, 7, name="lenet", variant=variant, batch_norm=batch_norm, bias=bias)
    convolutions = kernel * (shape[0] * 6 + 6 * 16) + (bias + 2 * batch_norm) * (6 + 16)
    assert count(model) == convolutions + linear_count(features, (120, 84, 7), bias)
    assert model(examples(shape, 2)).shape == (2, 7)


@pytest.mark.parametrize(("batch_norm", "bias"), SWITCHES, ids=SWITCH_IDS)
@pytest.mark.parametrize(("variant", "n"), [("8", 1), ("20", 3), ("32", 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_has_the_parameters_of_its_formula(
    variant: str, n: int, channels: int, batch_norm: bool, bias: bool
) -> None:
    """6n + 1 convolutions, 2n of them in each stage after the first convolution; BN makes their biases superfluous."""
    model = drawn_up((channels, 9, 8), 7, name="resnet", variant=variant, batch_norm=batch_norm, bias=bias)
    stages = 16 * 16 * 2 * n + (16 + 32 * (2 * n - 1)) * 32 + (32 + 64 * (2 * n - 1)) * 64
    outputs = 16 * (2 * n + 1) + 32 * 2 * n + 64 * 2 * n
    per_output = 2 if batch_norm else bias
    assert count(model) == 9 * (channels * 16 + stages) + per_output * outputs + linear_count(64, (7,), bias)


@pytest.mark.parametrize(("batch_norm", "bias"), SWITCHES, ids=SWITCH_IDS)
@pytest.mark.parametrize("code", [1, 30])
def test_an_autoencoder_has_the_parameters_of_its_formula(code: int, batch_norm: bool, bias: bool) -> None:
    model = drawn_up(MNIST, name="autoencoder", hidden=(code,), batch_norm=batch_norm, bias=bias)
    assert count(model) == linear_count(784, (512, code, 512, 784), bias) + 2 * (512 + 512) * batch_norm


@pytest.mark.parametrize(
    ("shape", "setting", "expected"),
    [
        (MNIST, {"name": "lenet"}, 61_706),
        (CIFAR, {"name": "lenet"}, 62_006),
        (CIFAR, {"name": "vgg", "variant": "16", "batch_norm": True}, 14_714_688 + 8_448 + 5_130),
        (CIFAR, {"name": "vgg", "variant": "19"}, 20_024_384 + 5_130),
        (CIFAR, {"name": "resnet", "variant": "20", "batch_norm": True}, 269_722),
        (CIFAR, {"name": "resnet", "variant": "32", "batch_norm": True}, 464_154),
    ],
    ids=str,
)
def test_known_networks_have_their_known_numbers_of_parameters(
    shape: tuple[int, ...], setting: dict[str, Any], expected: int
) -> None:
    """LeNet-5's 61,706 is widely printed; He et al. 2016, Table 6, round the ResNets' to 0.27M and 0.46M."""
    assert count(drawn_up(shape, **setting)) == expected


def test_fcn4_on_digits_has_four_linear_layers() -> None:
    model = built(name="fcn", hidden=(64, 64, 64))
    assert kinds(model).count("Linear") == 4
    assert count(model) == 3 * (64 * 64 + 64) + 64 * 10 + 10


@pytest.mark.parametrize(("variant", "layers"), [("8", 8), ("16", 16), ("19", 19)])
def test_a_vgg_with_two_hidden_widths_has_the_layers_of_its_name(variant: str, layers: int) -> None:
    model = drawn_up(CIFAR, name="vgg", variant=variant, hidden=(512, 512))
    assert len(convolutions_and_linears(model)) == layers
    assert model[-5].in_features == 512


@pytest.mark.parametrize(("variant", "layers"), [("8", 8), ("20", 20), ("32", 32)])
def test_a_resnet_has_the_layers_of_its_name(variant: str, layers: int) -> None:
    assert len(convolutions_and_linears(drawn_up(CIFAR, name="resnet", variant=variant))) == layers


def test_the_variants_are_what_they_have_always_been() -> None:
    """A change of these means that stored runs no longer fit the networks of their settings: rename, or raise
    TRAINING_VERSION. New variants are welcome."""
    assert VARIANTS["tiny"] == ((8,), (16,), (32,))
    assert VARIANTS["8"] == ((64,), (128,), (256,), (512,), (512,))
    assert VARIANTS["16"] == ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    assert VARIANTS["19"] == ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
    assert LENETS[""][0] == 5
    assert LENETS["tiny"][0] == 3
    assert (LENET_CHANNELS, LENET_WIDTHS) == ((6, 16), (120, 84))
    wide = (16, 32, 64)
    blocks = {"8-narrow": (1, (8, 16, 32)), "8": (1, wide), "20": (3, wide), "32": (5, wide)}
    assert blocks == RESNETS


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({"name": "fcn", "hidden": (4,)}, "1.weight 1.bias 3.weight 3.bias"),
        ({"name": "vgg", "variant": "tiny"}, "0.weight 0.bias 3.weight 3.bias 6.weight 6.bias 10.weight 10.bias"),
        (
            {"name": "lenet", "variant": "tiny", "bias": False},
            "0.weight 3.weight 7.weight 9.weight 11.weight",
        ),
        (
            {"name": "resnet", "variant": "8", "bias": False},
            "0.weight 2.residual.0.weight 2.residual.2.weight 3.residual.0.weight 3.residual.2.weight "
            "4.residual.0.weight 4.residual.2.weight 7.weight",
        ),
        ({"name": "autoencoder", "hidden": (3,), "bias": False}, "1.weight 3.weight 4.weight 6.weight"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_states_have_the_names_that_they_have_always_had(setting: dict[str, Any], names: str) -> None:
    assert list(drawn_up(DIGITS, **setting).state_dict()) == names.split()


# How the layers follow each other


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"name": "fcn"}, ["Flatten", "Linear"]),
        ({"name": "fcn", "hidden": (4, 4)}, ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]),
        ({"name": "fcn", "hidden": (4,), "batch_norm": True}, ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]),
        ({"name": "fcn", "hidden": (4,), "activation": "tanh"}, ["Flatten", "Linear", "Tanh", "Linear"]),
        (
            {"name": "fcn", "hidden": (4,), "activation": "sigmoid", "batch_norm": True},
            ["Flatten", "Linear", "BatchNorm1d", "Sigmoid", "Linear"],
        ),
    ],
    ids=["no hidden layer", "plain", "BN", "tanh", "sigmoid and BN"],
)
def test_fcn_is_linear_then_bn_then_activation(setting: dict[str, Any], expected: list[str]) -> None:
    assert kinds(built(**setting)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
def test_vgg_is_convolution_then_bn_then_relu_and_pools_after_each_stage(variant: str, batch_norm: bool) -> None:
    stages = VARIANTS[variant]
    side = 2 ** len(stages)
    unit = ["Conv2d", "BatchNorm2d", "ReLU"] if batch_norm else ["Conv2d", "ReLU"]
    expected = [kind for stage in stages for kind in [*unit * len(stage), "MaxPool2d"]]
    model = drawn_up((1, side, side), name="vgg", variant=variant, batch_norm=batch_norm, hidden=(32,))
    assert kinds(model) == [*expected, "Flatten", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize("variant", ["16", "19"])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
def test_vgg16_and_vgg19_have_the_convolutional_part_of_torchvisions(variant: str, batch_norm: bool) -> None:
    model = drawn_up(CIFAR, name="vgg", variant=variant, batch_norm=batch_norm)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"vgg{variant}" + "_bn" * batch_norm)().features
    assert [str(layer) for layer in model[:-2]] == [str(layer).replace("inplace=True", "") for layer in theirs]
    assert count(model) == count(theirs) + linear_count(512, (10,), bias=True)


@pytest.mark.parametrize("variant", LENETS)
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
def test_lenet_has_bn_after_its_convolutions_only(variant: str, batch_norm: bool) -> None:
    unit = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] if batch_norm else ["Conv2d", "ReLU", "MaxPool2d"]
    model = built(MNIST, name="lenet", variant=variant, batch_norm=batch_norm)
    assert kinds(model) == [*unit, *unit, "Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_lenet_pads_only_the_first_convolution_and_only_for_images_smaller_than_32_pixels() -> None:
    for shape, padding in ((MNIST, 2), ((1, 31, 40), 2), (CIFAR, 0), ((1, 33, 33), 0)):
        model = built(shape, name="lenet")
        assert (model[0].padding, model[3].padding) == ((padding,) * 2, (0, 0))


@pytest.mark.parametrize(("variant", "n"), [(variant, n) for variant, (n, _) in RESNETS.items()])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
def test_resnet_is_blocks_of_convolution_bn_relu_convolution_bn(variant: str, n: int, batch_norm: bool) -> None:
    unit = ["Conv2d", "BatchNorm2d"] if batch_norm else ["Conv2d"]
    model = drawn_up(CIFAR, name="resnet", variant=variant, batch_norm=batch_norm)
    assert kinds(model) == [*unit, "ReLU", *["Block"] * 3 * n, "AdaptiveAvgPool2d", "Flatten", "Linear"]
    blocks = [layer for layer in model if isinstance(layer, Block)]
    assert all(kinds(block.residual) == [*unit, "ReLU", *unit] for block in blocks)
    strides = [block.residual[0].stride[0] for block in blocks]
    assert strides == [1] * n + ([2] + [1] * (n - 1)) * 2


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, ["Flatten", "Linear", "ReLU", "Linear", "Linear", "ReLU", "Linear", "Unflatten"]),
        ({"activation": "tanh"}, ["Flatten", "Linear", "Tanh", "Linear", "Linear", "Tanh", "Linear", "Unflatten"]),
        (
            {"batch_norm": True},
            ["Flatten", *["Linear", "BatchNorm1d", "ReLU", "Linear"] * 2, "Unflatten"],
        ),
    ],
    ids=["plain", "tanh", "BN"],
)
def test_an_autoencoder_has_a_linear_code_and_a_linear_output(setting: dict[str, Any], expected: list[str]) -> None:
    assert kinds(drawn_up(DIGITS, name="autoencoder", hidden=(3,), **setting)) == expected


@every_model
@pytest.mark.parametrize(("batch_norm", "bias"), SWITCHES, ids=SWITCH_IDS)
def test_the_switches_decide_on_biases_and_normalisation(setting: dict[str, Any], batch_norm: bool, bias: bool) -> None:
    model = built(**setting, batch_norm=batch_norm, bias=bias)
    layers, norms = convolutions_and_linears(model), normalisations(model)
    for layer in layers:
        undone = setting["name"] == "resnet" and batch_norm and isinstance(layer, nn.Conv2d)
        assert (layer.bias is not None) is (bias and not undone)
    assert bool(norms) is batch_norm
    assert all(norm.affine and norm.track_running_stats for norm in norms)
    assert bool(list(model.buffers())) is batch_norm


# What the networks compute


@every_model
@pytest.mark.parametrize("shape", [DIGITS, (3, 11, 9)], ids=str)
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
def test_a_network_gives_what_is_asked_for_and_its_gradients_reach_every_parameter(
    setting: dict[str, Any], shape: tuple[int, ...], batch_norm: bool
) -> None:
    """A bias before BN gets rounding errors alone, so there are none with BN."""
    model = built(shape, 5, **setting, batch_norm=batch_norm, bias=not batch_norm, init="kaiming")
    outputs = model(examples(shape))
    assert outputs.shape == (4, *shape) if setting["name"] == "autoencoder" else outputs.shape == (4, 5)
    outputs.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("setting", OF_CIFAR.values(), ids=OF_CIFAR.keys())
@pytest.mark.parametrize("shape", [MNIST, CIFAR], ids=["MNIST", "CIFAR"])
def test_every_network_takes_the_images_of_the_papers_that_are_large_enough(
    setting: dict[str, Any], shape: tuple[int, ...]
) -> None:
    if setting["name"] == "vgg" and shape == MNIST:
        with pytest.raises(OptionError, match="of at least 32 pixels a side"):
            drawn_up(shape, **setting)
        return
    model = drawn_up(shape, 7, **setting, batch_norm=True)
    outputs = model(torch.empty(2, *shape, device="meta"))
    assert outputs.shape == (2, *(shape if setting["name"] == "autoencoder" else (7,)))


@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
@pytest.mark.parametrize("side", [8, 7], ids=["even", "odd"])
@pytest.mark.parametrize("index", [0, 1, 2], ids=["stage 1", "stage 2", "stage 3"])
def test_a_residual_block_computes_what_the_paper_says(index: int, side: int, batch_norm: bool) -> None:
    """Against the formula by hand; with option A as a loop over what the shortcut keeps of each channel."""
    model = built(name="resnet", variant="8", batch_norm=batch_norm).eval()
    block = [layer for layer in model if isinstance(layer, Block)][index]
    state = random_state(block, seed=1)
    block.load_state_dict(state)
    channels, wide, stride = ((16, 16, 1), (16, 32, 2), (32, 64, 2))[index]
    x = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(2))

    tensors = iter(tensor for tensor in state.values() if tensor.is_floating_point())

    def convolved(inputs: Tensor, stride: int) -> Tensor:
        if not batch_norm:
            return nn.functional.conv2d(inputs, next(tensors), next(tensors), stride=stride, padding=1)
        outputs = nn.functional.conv2d(inputs, next(tensors), stride=stride, padding=1)
        weight, bias, mean, var = (next(tensors)[:, None, None] for _ in range(4))
        return weight * (outputs - mean) / (var + 1e-5).sqrt() + bias

    inner = convolved(x, stride).clamp(min=0)
    expected = convolved(inner, 1)
    for channel in range(channels):
        for row in range(0, side, stride):
            for column in range(0, side, stride):
                expected[:, channel, row // stride, column // stride] += x[:, channel, row, column]
    assert expected.shape[1] == wide
    torch.testing.assert_close(block(x), expected.clamp(min=0), atol=1e-5, rtol=1e-5)


def test_the_shortcut_leaves_its_input_as_it_was() -> None:
    block = built(name="resnet", variant="8").eval()[3]
    x = torch.randn(2, 16, 8, 8)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


@every_model
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no BN", "BN"])
def test_a_network_computes_the_same_channels_last_and_with_a_state_from_outside(
    setting: dict[str, Any], batch_norm: bool
) -> None:
    shape = (3, 8, 8)
    plain = built(shape, **setting, batch_norm=batch_norm).eval()
    state = random_state(plain, seed=1)
    other = built(shape, **setting, batch_norm=batch_norm).eval().to(memory_format=torch.channels_last)
    inputs = examples(shape)
    outputs = functional_call(other, state, (inputs.contiguous(memory_format=torch.channels_last),))
    plain.load_state_dict(state)
    torch.testing.assert_close(outputs, plain(inputs), atol=1e-5, rtol=1e-5)


@every_model
def test_a_network_can_be_exported(setting: dict[str, Any]) -> None:
    model = built(**setting, batch_norm=True).eval()
    exported = torch.export.export(model, (examples(DIGITS),)).module()
    torch.testing.assert_close(exported(examples(DIGITS)), model(examples(DIGITS)))


# Initialisation


@pytest.mark.parametrize(
    "setting",
    [{**setting, "hidden": (400, 100)} if name in ("fcn", "vgg") else setting for name, setting in MODELS.items()],
    ids=MODELS.keys(),
)
@pytest.mark.parametrize("init", ["kaiming", "xavier"])
def test_drawn_weights_have_the_variance_of_the_rule_and_biases_are_zero(setting: dict[str, Any], init: str) -> None:
    """Kaiming: 2 / fan-in; Xavier: 2 / (fan-in + fan-out). Divided by its root, weights are standard normal. Of n, the
    deviation has the standard error 1 / sqrt(2 n)."""
    model = built(**setting, init=init, batch_norm=True)
    drawn = []
    for layer in convolutions_and_linears(model):
        fan_in, fan_out = layer.weight[0].numel(), layer.weight[:, 0].numel()
        fans = fan_in if init == "kaiming" else fan_in + fan_out
        drawn.append(layer.weight.detach().flatten() * (fans / 2) ** 0.5)
        assert layer.bias is None or not layer.bias.any()
    for layer in normalisations(model):
        assert (layer.weight == 1).all()
        assert not layer.bias.any()
    for weights in (*drawn, torch.cat(drawn)):
        assert float(weights.std()) == pytest.approx(1, abs=5 / (2 * len(weights)) ** 0.5)
        assert float(weights.mean()) == pytest.approx(0, abs=5 / len(weights) ** 0.5)


@pytest.mark.parametrize(
    ("init", "draw"),
    [("kaiming", partial(nn.init.kaiming_normal_, nonlinearity="relu")), ("xavier", nn.init.xavier_normal_)],
    ids=["kaiming", "xavier"],
)
def test_the_tiny_vgg_draws_the_weights_that_it_has_always_drawn(init: str, draw: Callable[[Tensor], Tensor]) -> None:
    """Stored runs were trained from these: the layers' own draws in order, then the rule's in the same order."""
    model = built(name="vgg", variant="tiny", init=init)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(32, 10)]
        for ours, theirs in zip(convolutions_and_linears(model), layers, strict=True):
            assert torch.equal(ours.weight, draw(theirs.weight))


def test_every_known_initialisation_and_activation_can_be_built() -> None:
    assert set(INITIALISERS) == set(INITIALISATIONS)
    assert set(ACTIVATIONS) == set(KNOWN_ACTIVATIONS)


def test_the_other_initialisation_is_torchs_own() -> None:
    model = built(name="fcn", hidden=(16,), batch_norm=True)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("init", INITIALISATIONS)
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
        ({"name": "vgg", "variant": "11"}, "Known: 16, 19, 8, tiny."),
        ({"name": "lenet", "variant": "tinny"}, "unknown variant of lenet 'tinny'. Did you mean `'tiny'`? Known: '',"),
        ({"name": "resnet", "variant": "18"}, "resnet '18'. Did you mean `8`? Known: 20, 32, 8, 8-narrow."),
        ({"name": "resnet"}, "unknown variant of resnet ''"),
        ({"name": "fcn", "hidden": (4,), "activation": "tahn"}, "unknown activation 'tahn'. Did you mean `tanh`?"),
        ({"name": "lenet", "activation": "gelu"}, "unknown activation 'gelu'"),
        ({"name": "fcn", "init": "xaver"}, "unknown init 'xaver'. Did you mean `xavier`?"),
    ],
    ids=str,
)
def test_an_unknown_name_is_refused_with_those_known(setting: dict[str, Any], hint: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        built(**setting)
    assert hint in str(raised.value)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (
            {"name": "fcn", "variant": "tiny"},
            "model `fcn` has no variants, got variant='tiny'; give its `hidden` widths",
        ),
        (
            {"name": "autoencoder", "variant": "tiny", "hidden": (3,)},
            "model `autoencoder` has no variants, got variant='tiny'; give the width of its code, hidden=(h,)",
        ),
        (
            {"name": "autoencoder"},
            "model `autoencoder` needs one hidden width, that of its code, got hidden=(); give (h,)",
        ),
        (
            {"name": "autoencoder", "hidden": (512, 30, 512)},
            "model `autoencoder` needs one hidden width, that of its code, got hidden=(512, 30, 512); give (h,)",
        ),
        *(
            (
                {"name": name, "variant": variant, "hidden": (64,)},
                f"model `{name}` has the widths of its variant, got hidden=(64,); leave `hidden` out",
            )
            for name, variant in (("lenet", "tiny"), ("resnet", "8"))
        ),
        *(
            (
                {"name": name, "variant": variant, "activation": activation},
                f"model `{name}` has ReLU only, got activation={activation!r}; leave `activation` out, or use `fcn` "
                "or `autoencoder`",
            )
            for name, variant in (("lenet", "tiny"), ("vgg", "tiny"), ("resnet", "8"))
            for activation in ("tanh", "sigmoid")
        ),
    ],
    ids=str,
)
def test_a_field_that_a_model_does_not_have_is_refused(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError) as raised:
        built(**setting)
    assert str(raised.value) == complaint


@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 8, 7), (1, 1, 1), (8, 8), (64,), (1, 1, 8, 8)], ids=str)
def test_vgg_refuses_what_its_pools_would_shrink_to_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"'tiny' has 3 pools and needs images .* of at least 8 pixels a side, got"):
        built(shape, name="vgg", variant="tiny")


@pytest.mark.parametrize(
    ("setting", "side", "shape"),
    [
        ({"name": "lenet"}, 12, (1, 11, 28)),
        ({"name": "lenet"}, 12, DIGITS),
        ({"name": "lenet"}, 12, (784,)),
        ({"name": "lenet", "variant": "tiny"}, 4, (1, 4, 3)),
        ({"name": "vgg", "variant": "8"}, 32, MNIST),
        ({"name": "vgg", "variant": "16"}, 32, (3, 32, 31)),
        ({"name": "resnet", "variant": "8"}, 1, (64,)),
    ],
    ids=str,
)
def test_the_others_refuse_examples_that_are_no_images_or_too_small(
    setting: dict[str, Any], side: int, shape: tuple[int, ...]
) -> None:
    with pytest.raises(OptionError) as raised:
        built(shape, **setting)
    expected = f"needs images (channels, height, width) of at least {side} pixels a side, got {shape}"
    assert str(raised.value).endswith(expected)


# The files


@pytest.mark.parametrize(
    "file", sorted(Path(mli_check.models.__file__).parent.glob("*.py")), ids=lambda file: file.name
)
def test_no_file_of_a_model_is_longer_than_150_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 150


def test_only_the_logits_have_a_bias_without_hidden_biases() -> None:
    setting = ModelSetting(name="fcn", hidden=(5, 4), hidden_bias=False)
    names = [name for name, _ in build(setting, (1, 3, 3), 2).named_parameters()]
    assert [name for name in names if name.endswith("bias")] == ["5.bias"]
    with pytest.raises(OptionError, match="`vgg` has biases in all layers or in none"):
        build(ModelSetting(name="vgg", variant="tiny", hidden_bias=False), (1, 8, 8), 10)
