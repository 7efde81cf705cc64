"""torchvision's architectures under elements of their groups: outputs stay bit-identical.

Every night twenty elements in either mode, in CI two. Dropout and stochastic depth are off.
"""

from __future__ import annotations

import os

import pytest
import torch
import torchvision
from symmetry_helpers import without_eta
from torch import Tensor, nn

from mli_check.symmetry import scale_symmetries

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
ELEMENTS = 20 if NIGHTLY else 2
SIZES = {"vit_b_16": 224, "googlenet": 64}
EVERY = ("vgg16", "vgg16_bn", "resnet18", "densenet121", "googlenet", "mobilenet_v2", "convnext_tiny", "vit_b_16")
# a bias in front of batch statistics is taken out again, after it was rounded with the sum that it stands in
REMOVED = {("vgg16_bn", "train"): 13, ("mobilenet_v2", "train"): 17}


def architecture(name: str, mode: str) -> nn.Module:
    """The architecture with its own initialisation and with biases and shifts that are not zero."""
    options = {"init_weights": False, "transform_input": False} if name == "googlenet" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = getattr(torchvision.models, name)(**options)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0.0
    return without_eta(model).train(mode == "train")


def example(name: str) -> Tensor:
    size = SIZES.get(name, 64)
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def outputs(model: nn.Module, state: dict[str, Tensor], inputs: Tensor) -> list[Tensor]:
    model.load_state_dict(state)
    with torch.no_grad():
        found = model(inputs)
    return [found] if isinstance(found, Tensor) else [one for one in found if one is not None]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", EVERY)
def test_outputs_are_bit_identical(name: str, mode: str) -> None:
    model, inputs = architecture(name, mode), example(name)
    group = scale_symmetries(model, inputs)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    before = outputs(model, state, inputs)
    for seed in range(ELEMENTS):
        scaled = group.exact.apply(state, group.exact.sample(seed, spread=2))
        for one, other in zip(before, outputs(model, scaled, inputs), strict=True):
            assert torch.equal(one, other)
    assert group.dimension - group.exact.dimension == REMOVED.get((name, mode), 0)


@pytest.mark.parametrize("name", [name for name, mode in REMOVED])
def test_biases_before_batch_statistics_move_the_output_by_rounding_alone(name: str) -> None:
    """The reason why the whole group is not bit-exact there: x + b is rounded before the mean takes b out again."""
    model, inputs = architecture(name, "train"), example(name)
    group = scale_symmetries(model, inputs)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    (before,) = outputs(model, state, inputs)
    (after,) = outputs(model, group.apply(state, group.sample(0, spread=2)), inputs)
    deviation = float((after - before).abs().max() / before.abs().max())
    assert 0 < deviation < 1e-3
    other, exact = model.double(), inputs.double()
    state = {key: tensor.clone() for key, tensor in other.state_dict().items()}
    (before,) = outputs(other, state, exact)
    (after,) = outputs(other, group.apply(state, group.sample(0, spread=2)), exact)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-6 * deviation


def test_alpha_theta_violates_the_last_bias_of_a_resnet_alone() -> None:
    """And the output's scale: with batch statistics everything else is normalised."""
    group = scale_symmetries(architecture("resnet18", "train"), example("resnet18"))
    broken = group.violations(dict.fromkeys(group.tensors, 0.5))
    assert [one.equation.what for one in broken] == ["`fc.bias`", "the output"]
    assert str(broken[0]).startswith("`fc.bias` must scale as 1/4 here, alpha*theta scales it as 1/2")
    assert [one.equation.what for one in group.free.violations(dict.fromkeys(group.tensors, 0.5))] == ["`fc.bias`"]


def test_alpha_theta_violates_every_bias_of_a_vgg_after_the_first() -> None:
    model = architecture("vgg16", "eval")
    group = scale_symmetries(model, example("vgg16"))
    biases = [f"`{name}`" for name, _ in model.named_parameters() if name.endswith("bias")]
    broken = group.violations(dict.fromkeys(group.tensors, 0.5))
    assert [one.equation.what for one in broken] == [*biases[1:], "the output"]
    assert broken[-2].wanted == 0.5**16


@pytest.mark.parametrize("name", ["densenet121", "vit_b_16"])
def test_a_large_network_takes_as_many_equations_as_it_has_operations(name: str) -> None:
    """What bounds the time (measured in docs/symmetries.md): the equations grow with the layers, not their square."""
    group = scale_symmetries(architecture(name, "train"), example(name))
    assert len(group.constraints) <= len(group.tensors)
    assert max(len(equation.form.terms) for equation in group.constraints) <= 6
