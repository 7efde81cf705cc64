"""Tests of the noise of the MLI formula: families, sizes, gradients, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import mli_check as mli
from mli_check import states
from mli_check.data import Dataset, Normalisation
from mli_check.errors import OptionError, StateMismatchError, UnknownNameError
from mli_check.noises import FAMILIES, fresh, gradient, noise, scaled

GAIN = math.sqrt(2)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 40, 3, bias=False),
        nn.BatchNorm2d(40),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40, 30),
        nn.Linear(30, 4),
    )


@pytest.fixture
def model() -> nn.Sequential:
    return network()


@pytest.fixture
def final(model: nn.Sequential) -> dict[str, torch.Tensor]:
    model(torch.randn(8, 3, 3, 3))  # so that running statistics are not those of a fresh layer
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def small_data(count: int = 12) -> Dataset:
    generator = torch.Generator().manual_seed(count)
    return Dataset(torch.randn(count, 3, 3, 3, generator=generator), torch.arange(count) % 4)


every_family = pytest.mark.parametrize("kind", FAMILIES)

# Families


@every_family
def test_a_family_draws_matrices_by_its_name_and_leaves_vectors_fresh(kind: str, final: dict[str, Any]) -> None:
    drawn = noise(kind, final, seed=1)
    assert list(drawn) == list(final)
    assert all(drawn[name].shape == final[name].shape and drawn[name].dtype == final[name].dtype for name in final)
    assert torch.equal(drawn["1.weight"], torch.ones(40))
    for name in ("1.bias", "1.running_mean", "4.bias", "5.bias"):
        assert not drawn[name].any()
    assert torch.equal(drawn["1.running_var"], torch.ones(40))
    assert drawn["1.num_batches_tracked"] == final["1.num_batches_tracked"]
    wide, kernel = drawn["4.weight"], drawn["0.weight"]
    if kind == "binary":
        assert set(wide.abs().unique().tolist()) == {wide.abs().max().item()}
        assert wide.abs().max().item() == pytest.approx(GAIN / math.sqrt(40))
        assert 0.4 < (wide > 0).float().mean() < 0.6
    elif kind == "kaiming_uniform":
        assert 0.9 * GAIN * math.sqrt(3 / 27) < kernel.abs().max() <= GAIN * math.sqrt(3 / 27)
    elif kind == "kaiming_normal":
        assert kernel.std().item() == pytest.approx(GAIN / math.sqrt(27), rel=0.1)
        assert kernel.abs().max() > GAIN * math.sqrt(3 / 27)
    else:
        torch.testing.assert_close(wide @ wide.T, 2 * torch.eye(30))


@every_family
def test_the_draw_follows_the_seed_and_moves_no_global_generator(kind: str, final: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    first, again, other = (noise(kind, final, seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["4.weight"], other["4.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_dtype_of_the_state_does_not_change_the_draw(final: dict[str, Any]) -> None:
    double = {name: t.double() if t.is_floating_point() else t for name, t in final.items()}
    single, wide = noise("kaiming_normal", final, seed=2), noise("kaiming_normal", double, seed=2)
    assert all(torch.equal(single[name].to(wide[name]), wide[name]) for name in single)


def test_tied_weights_get_the_same_noise() -> None:
    table = torch.randn(5, 4)
    state = {"embedding.weight": table, "hidden.weight": torch.randn(4, 4), "head.weight": table}
    drawn = noise("orthogonal", state, seed=0)
    assert torch.equal(drawn["embedding.weight"], drawn["head.weight"])
    assert not torch.equal(drawn["hidden.weight"], drawn["head.weight"][:4])


def test_unrelated_is_what_the_layers_themselves_draw(model: nn.Sequential, final: dict[str, Any]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = noise("unrelated", final, seed=11, model=model)
    torch.manual_seed(11)
    for layer in model:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    wanted = dict(model.named_parameters())
    assert all(torch.equal(drawn[name], tensor) for name, tensor in wanted.items())
    assert not torch.equal(before["4.weight"], drawn["4.weight"])


def test_a_layer_that_cannot_draw_its_parameters_is_named() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    model = nn.Sequential(nn.Linear(2, 2), Scale())
    with pytest.raises(OptionError, match="layer '1' has parameters and no `reset_parameters`"):
        noise("unrelated", model.state_dict(), model=model)


# Sizes


@pytest.mark.parametrize("kind", [*FAMILIES, "constant"])
@pytest.mark.parametrize("delta", [0.0, 0.5, 3.0])
def test_the_relative_scale_is_delta(kind: str, delta: float, final: dict[str, Any]) -> None:
    drawn = noise(kind, final, seed=1, delta=delta)
    assert states.delta(drawn, final) == pytest.approx(delta, rel=1e-6)
    assert torch.equal(drawn["1.running_var"], torch.ones(40))  # which is no parameter


def test_constant_noise_is_one_number(final: dict[str, Any]) -> None:
    drawn = states.parameters(noise("constant", final, delta=0.5))
    values = torch.cat([tensor.flatten() for tensor in drawn.values()]).unique()
    assert values.tolist() == [pytest.approx(0.5 * states.size(final))]


def test_scaling_multiplies_parameters_alone_and_copies(final: dict[str, Any]) -> None:
    moved = scaled(final, final, 2.0)
    for name, tensor in final.items():
        factor = 1 if name in states.buffers(final) else 2
        torch.testing.assert_close(moved[name], tensor * factor)
        assert moved[name].data_ptr() != tensor.data_ptr()


def test_a_fresh_copy_has_fresh_statistics_and_the_same_parameters(final: dict[str, Any]) -> None:
    copied = fresh(final)
    assert not torch.equal(copied["1.running_mean"], final["1.running_mean"])
    assert all(torch.equal(copied[name], tensor) for name, tensor in states.parameters(final).items())


# The gradient


def test_the_gradient_is_that_of_the_mean_loss_in_evaluation_mode(model: nn.Sequential, final: dict[str, Any]) -> None:
    data, before = small_data(), model.training
    found = noise("gradient", final, model=model, data=data)
    assert model.training is before
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    model.load_state_dict(final)
    nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], -parameter.grad)


def test_the_gradient_over_blocks_is_the_gradient(final: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gradient(network(), final, small_data())
    monkeypatch.setattr("mli_check.noises._BLOCK", 5)
    parts = gradient(network(), final, small_data())
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor)


def test_the_gradient_sees_pixels_normalised_and_in_the_weights_dtype(final: dict[str, Any]) -> None:
    pixels = torch.randint(256, (6, 3, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    data = Dataset(pixels, torch.arange(6) % 4, "pixels", 4, normalisation)
    double = {name: t.double() if t.is_floating_point() else t for name, t in final.items()}
    plain = Dataset(normalisation(pixels, torch.float64), data.targets)
    for name, tensor in gradient(network().double(), double, data).items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor, gradient(network().double(), double, plain)[name])


def test_tied_weights_have_the_gradient_of_both_uses() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    data = Dataset(torch.randn(7, 3), torch.arange(7) % 3)
    found = gradient(model, model.state_dict(), data)
    nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
    assert list(found) == ["0.weight", "2.weight"]
    for tensor in found.values():
        torch.testing.assert_close(tensor, model[0].weight.grad)


def test_a_dict_of_inputs_is_passed_by_keyword() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return self.layer(first + second)

    model, inputs = Sum(), {"first": torch.ones(4, 2), "second": torch.arange(8.0).view(4, 2)}
    data = Dataset(inputs, torch.arange(4) % 3)
    nn.functional.cross_entropy(model(**inputs), data.targets).backward()
    assert model.layer.weight.grad is not None
    torch.testing.assert_close(gradient(model, model.state_dict(), data)["layer.weight"], model.layer.weight.grad)


# On a path


def test_a_noise_is_a_left_end_of_a_path(model: nn.Sequential, final: dict[str, Any]) -> None:
    path = mli.LinearPath(mli.noise("binary", final, seed=1, delta=1.0), final)
    curve = mli.evaluate(model, path, small_data(), points=3, norm_stats="interpolate")
    assert math.isfinite(curve.loss.sum())


# What is refused


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("constant", {}, "pass delta="),
        ("gradient", {}, "needs `model`"),
        ("gradient", {"model": network()}, "needs `data`"),
        ("unrelated", {}, "needs `model`"),
        ("binary", {"model": network()}, "takes no `model`"),
        ("unrelated", {"model": network(), "data": small_data()}, "takes no `data`"),
        ("binary", {"delta": -1.0}, "got -1.0"),
        ("binary", {"delta": math.nan}, "got nan"),
    ],
)
def test_what_a_kind_lacks_or_does_not_take_is_named(
    kind: str, options: dict[str, Any], message: str, final: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match=message):
        noise(kind, final, **options)


def test_an_unknown_kind_is_named_with_the_known_ones(final: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kind of noise 'kaiming'.*orthogonal"):
        noise("kaiming", final)


def test_a_state_of_another_model_is_refused(final: dict[str, Any]) -> None:
    with pytest.raises(StateMismatchError):
        noise("gradient", final, model=nn.Linear(2, 2), data=small_data())


def test_a_noise_of_zero_cannot_be_scaled(final: dict[str, Any]) -> None:
    nothing = {name: torch.zeros_like(tensor) for name, tensor in final.items()}
    with pytest.raises(OptionError, match="zero everywhere"):
        scaled(nothing, final, 0.5)
