"""VSI, GSI, RSI and NSI against the papers' equations, eta, and the rectified path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from symmetry_helpers import output, without_eta
from torch import Tensor, nn

import mli_check as mli
from mli_check.errors import OptionError, StateMismatchError, SymmetryError, UnknownNameError
from mli_check.strategies import fill
from mli_check.symmetry import rectified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mli_check.symmetry import Symmetries

INPUTS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
powers = st.integers(-3, 3).map(lambda k: 2.0**k)


def chain(depth: int, *, bias: bool = True) -> nn.Sequential:
    """`depth` linear layers `fc1`, `fc2`, ... with ReLU between them."""
    model = nn.Sequential()
    sizes = [6, *[8] * (depth - 1), 4]
    for index in range(depth):
        model.add_module(f"fc{index + 1}", nn.Linear(sizes[index], sizes[index + 1], bias=bias))
        if index < depth - 1:
            model.add_module(f"relu{index + 1}", nn.ReLU())
    return fill(model, depth)


def normalised(*, biases: bool = True) -> nn.Sequential:
    """Two convolutions with BN and ReLU, and a linear layer; BN has its shifts in any case."""
    layers: dict[str, nn.Module] = {}
    for index, width in ((1, 3), (2, 5)):
        layers[f"conv{index}"] = nn.Conv2d(width, 5, 3, padding=1, bias=biases)
        layers[f"bn{index}"] = nn.BatchNorm2d(5)
        layers[f"relu{index}"] = nn.ReLU()
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(5, 4, bias=biases)}
    model = nn.Sequential()
    for name, module in layers.items():
        model.add_module(name, module)
    return fill(model, 0)


class Residual(nn.Module):
    """x + f(x) after a linear layer, and another one behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        return self.head((h + self.outer(self.inner(h).relu())).relu())


def hidden(model: nn.Module, state: Mapping[str, Tensor], inputs: Tensor, name: str) -> Tensor:
    """What the module `name` returns."""
    seen: list[Tensor] = []
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    hook = model.get_submodule(name).register_forward_hook(lambda *made: seen.append(made[2].detach()))
    with torch.no_grad():
        model(inputs)
    hook.remove()
    model.load_state_dict(before)
    return seen[0]


def scaled(model: nn.Module, symmetries: Symmetries, factors: Mapping[str, float]) -> dict[str, Tensor]:
    return symmetries.apply(model.state_dict(), factors)


# The equations


@given(depth=st.integers(2, 5), data=st.data())
def test_rsi_takes_the_products_of_equation_14_and_restores_as_equation_15(depth: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, depth - 1))
    last = data.draw(st.integers(first, depth - 1))
    alphas = {f"fc{index}": data.draw(powers) for index in range(first, last + 1)}
    model = chain(depth)
    group = mli.scale_symmetries(model, INPUTS)
    factors = mli.rsi(group, alphas)
    wanted, product = dict.fromkeys(group.tensors, 1.0), 1.0
    for index in range(first, last + 1):
        product *= alphas[f"fc{index}"]
        wanted |= {f"fc{index}.weight": alphas[f"fc{index}"], f"fc{index}.bias": product}
    assert factors == wanted | {f"fc{last + 1}.weight": 1 / product}
    state = scaled(model, group, factors)
    assert torch.equal(output(model, state, INPUTS), output(model, model.state_dict(), INPUTS))
    name = f"relu{last}"
    assert torch.equal(hidden(model, state, INPUTS, name), hidden(model, model.state_dict(), INPUTS, name) * product)


@given(depth=st.integers(2, 4), alphas=st.lists(powers, min_size=4, max_size=4))
def test_gsi_over_all_layers_scales_the_logits_and_a_temperature_gives_the_loss_back(
    depth: int, alphas: list[float]
) -> None:
    """Equations 10 and 11."""
    model = chain(depth, bias=False)
    group = mli.scale_symmetries(model, INPUTS)
    factors = mli.gsi(group, {f"fc{index + 1}": alphas[index] for index in range(depth)}, restore=None)
    product = float(torch.tensor(alphas[:depth]).prod())
    assert mli.temperature(group, factors) == product
    after, before = (output(model, state, INPUTS) for state in (scaled(model, group, factors), model.state_dict()))
    assert torch.equal(after, before * product)
    targets = torch.arange(8) % 4
    loss = nn.functional.cross_entropy
    assert torch.equal(loss(after / product, targets), loss(before, targets))


def test_vsi_scales_a_layer_with_its_bias_and_the_next_weight_back() -> None:
    """Equations 6 and 7; of two layers in a row the second takes both factors."""
    group = mli.scale_symmetries(chain(3), INPUTS)
    one = mli.vsi(group, {"fc1": 4.0})
    assert {name: k for name, k in one.items() if k != 1} == {"fc1.weight": 4.0, "fc1.bias": 4.0, "fc2.weight": 0.25}
    two = mli.vsi(group, {"fc1": 4.0, "fc2": 8.0})
    wanted = {"fc1.weight": 4.0, "fc1.bias": 4.0, "fc2.weight": 2.0, "fc2.bias": 8.0, "fc3.weight": 0.125}
    assert {name: k for name, k in two.items() if k != 1} == wanted


def test_gsi_of_bias_free_layers_restores_in_the_next_weight() -> None:
    """Equations 8 and 9."""
    group = mli.scale_symmetries(chain(4, bias=False), INPUTS)
    found = mli.gsi(group, {"fc1": 4.0, "fc2": 8.0})
    assert found == {"fc1.weight": 4.0, "fc2.weight": 8.0, "fc3.weight": 1 / 32, "fc4.weight": 1.0}


def test_restoring_at_the_output_leaves_the_layers_between_scaled() -> None:
    group = mli.scale_symmetries(chain(4), INPUTS)
    found = mli.rsi(group, {"fc1": 2.0}, restore="output")
    wanted = {"fc1.weight": 2.0, "fc1.bias": 2.0, "fc2.bias": 2.0, "fc3.bias": 2.0, "fc4.weight": 0.5}
    assert {name: factor for name, factor in found.items() if factor != 1} == wanted


@pytest.mark.parametrize("mode", ["train", "eval"])
@given(factor=powers)
def test_nsi_moves_what_feeds_a_normalisation_alone(mode: str, factor: float) -> None:
    """Equations 16 to 18; in eval mode the running statistics follow."""
    model = without_eta(normalised()).train(mode == "train")
    group = mli.scale_symmetries(model, IMAGES)
    found = mli.nsi(group, {"conv2": factor})
    wanted = {"conv2.weight": factor, "conv2.bias": factor}
    if mode == "eval":
        wanted |= {"bn2.running_mean": factor, "bn2.running_var": factor**2}
    assert found == dict.fromkeys(group.tensors, 1.0) | wanted
    before, after = (output(model, state, IMAGES) for state in (model.state_dict(), scaled(model, group, found)))
    assert torch.equal(before, after)


def test_rsi_goes_through_a_normalisation_to_the_next_weight() -> None:
    group = mli.scale_symmetries(normalised(), IMAGES)
    found = mli.rsi(group, {"bn2": 2.0})
    assert {k: v for k, v in found.items() if v != 1} == {"bn2.weight": 2.0, "bn2.bias": 2.0, "fc.weight": 0.5}


def test_inside_a_skip_connection_rsi_restores_within_the_branch() -> None:
    group = mli.scale_symmetries(Residual(), INPUTS)
    found = mli.rsi(group, {"inner": 2.0})
    assert {k: v for k, v in found.items() if v != 1} == {"inner.weight": 2.0, "inner.bias": 2.0, "outer.weight": 0.5}


def test_a_tied_weight_cannot_restore_what_it_takes_twice() -> None:
    """c(b(b(a(x)))): half of b's weight would take the scale away twice; only the output can restore it."""
    b = nn.Linear(6, 6)
    model = fill(nn.Sequential(nn.Linear(6, 6), b, nn.ReLU(), b, nn.Linear(6, 3)), 0)
    group = mli.scale_symmetries(model, INPUTS)
    with pytest.raises(SymmetryError, match=r"RSI does not apply to `0\.weight`"):
        mli.vsi(group, {"0": 2.0})
    found = mli.rsi(group, {"0": 2.0}, restore="output")
    wanted = {"0.weight": 2.0, "0.bias": 2.0, "1.bias": 2.0, "4.weight": 0.5}
    assert {name: factor for name, factor in found.items() if factor != 1} == wanted
    assert group.violations(found) == []


# Where a property does not apply


def test_gsi_names_the_bias_that_stands_in_its_way() -> None:
    group = mli.scale_symmetries(chain(3), INPUTS)
    with pytest.raises(SymmetryError, match=r"GSI does not apply to `fc1.weight`[^`]*`fc1.bias` must scale") as caught:
        mli.gsi(group, {"fc1": 2.0})
    assert [equation.what for equation in caught.value.equations] == ["`fc1.bias`"]
    assert "`rsi` moves the biases along" in str(caught.value)


def test_across_a_skip_connection_whose_branches_disagree_the_nearest_symmetry_is_offered() -> None:
    group = mli.scale_symmetries(Residual(), INPUTS)
    with pytest.raises(SymmetryError, match="which it is added to") as caught:
        mli.rsi(group, {"stem": 2.0, "inner": 2.0, "outer": 2.0})
    assert "The nearest symmetry, `complete({'stem.weight': 2, 'inner.weight': 2})`" in str(caught.value)
    nearest = group.complete({"stem.weight": 2.0, "inner.weight": 2.0})
    assert nearest["outer.weight"] == 0.5
    assert group.violations(nearest) == []


def test_nsi_wants_a_normalisation_behind_the_layer() -> None:
    group = mli.scale_symmetries(normalised(), IMAGES)
    with pytest.raises(SymmetryError, match=r"NSI does not apply to `fc\.weight`") as caught:
        mli.nsi(group, {"fc": 2.0})
    assert "`fc.bias`" in str(caught.value) or "the output" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda group: mli.rsi(group, {}), OptionError, "at least one layer"),
        (lambda group: mli.rsi(group, {"fc9": 2.0}), UnknownNameError, "unknown layer 'fc9'. Did you mean"),
        (lambda group: mli.rsi(group, {"fc1": 0.0}), OptionError, "positive, finite number, got 0.0"),
        (lambda group: mli.vsi(group, {"fc1": -1.0}), OptionError, "positive, finite number, got -1.0"),
        (lambda group: mli.nsi(group, {"fc1": float("nan")}), OptionError, "positive, finite number, got nan"),
        (lambda group: mli.rsi(group, {"fc3": 2.0}), OptionError, 'restore="output"'),
        (lambda group: mli.rsi(group, {"fc3": 2.0}, restore="output"), OptionError, "nothing is left to restore in"),
        (lambda group: mli.rsi(group, {"fc1": 2.0}, restore="nxt"), UnknownNameError, "way to restore 'nxt'"),
    ],
)
def test_bad_arguments_are_refused(call: object, error: type[Exception], message: str) -> None:
    group = mli.scale_symmetries(chain(3), INPUTS)
    with pytest.raises(error, match=message):
        call(group)  # type: ignore[operator]


# eta


@given(exponent=st.integers(1, 6))
def test_along_alpha_theta_eta_grows_by_two_and_four_powers(exponent: int) -> None:
    """eta/alpha^2 at the first BN, eta/alpha^4 after it; multiplied by alpha^2 and alpha^4 the network is the same.

    Without biases before BN, whose sum is rounded before BN takes them out.
    """
    alpha = 2.0**-exponent
    model = normalised(biases=False)
    group = mli.scale_symmetries(model, IMAGES)
    factors = dict.fromkeys(group.tensors, alpha)
    assert group.eta_factors(factors) == {"bn1": alpha**2, "bn2": alpha**4}
    before = output(model, model.state_dict(), IMAGES)
    state = scaled(model, group, factors)
    rescaled = mli.with_eta(model, group, factors)
    assert torch.equal(output(rescaled, state, IMAGES), before * mli.temperature(group, factors))
    assert model.bn1.eps == 1e-5
    other = mli.with_eta(model, group, dict.fromkeys(group.tensors, 1 / alpha))
    with_larger_eta = output(other, model.state_dict(), IMAGES)
    assert torch.equal(output(model, state, IMAGES), with_larger_eta * mli.temperature(group, factors))


@pytest.mark.parametrize("name", ["bn1", "bn2"])
@given(exponent=st.integers(1, 6))
def test_with_the_usual_eta_a_normalisation_deviates_within_its_bound(name: str, exponent: int) -> None:
    """By no more than (eta' - eta) / (2 var) of itself, eta' = eta/alpha^2 where the layer before takes alpha (NSI)."""
    alpha, model = 2.0**-exponent, normalised().double()
    images = IMAGES.double()
    group = mli.scale_symmetries(model, images)
    state = scaled(model, group, mli.nsi(group, {f"conv{name[-1]}": alpha}))
    norm = model.get_submodule(name)
    shift = model.state_dict()[f"{name}.bias"].reshape(1, -1, 1, 1)
    before, after = (hidden(model, one, images, name) - shift for one in (model.state_dict(), state))
    variance = hidden(model, model.state_dict(), images, f"conv{name[-1]}").var((0, 2, 3), correction=0)
    bound = (norm.eps / alpha**2 - norm.eps) / (2 * (variance + norm.eps))
    deviation = (before - after).abs()
    assert bool((deviation <= bound.reshape(1, -1, 1, 1) * before.abs() * (1 + 1e-9) + 1e-14).all())
    assert float(deviation.max()) > 0


def test_along_alpha_theta_the_second_normalisation_deviates_within_the_bound_of_four_powers() -> None:
    alpha, model = 0.5, normalised().double()
    images = IMAGES.double()
    group = mli.scale_symmetries(model, images)
    factors = dict.fromkeys(group.tensors, alpha)
    first_exact = mli.with_eta(model, group, factors)
    first_exact.bn2.eps = model.bn2.eps
    shift = model.state_dict()["bn2.bias"].reshape(1, -1, 1, 1)
    before = hidden(model, model.state_dict(), images, "bn2") - shift
    after = hidden(first_exact, scaled(model, group, factors), images, "bn2") / alpha - shift
    variance = hidden(model, model.state_dict(), images, "conv2").var((0, 2, 3), correction=0)
    eta = model.bn2.eps
    bound = (eta / alpha**4 - eta) / (2 * (variance + eta))
    assert bool(((before - after).abs() <= bound.reshape(1, -1, 1, 1) * before.abs() * (1 + 1e-9) + 1e-14).all())
    assert float((before - after).abs().max()) > float((before.abs().amax((0, 2, 3)) * bound).max()) / 3


def test_parts_of_unequal_scale_cannot_have_one_eta() -> None:
    class Concatenated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.bn = nn.Linear(6, 4), nn.Linear(6, 4), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            out = self.bn(torch.cat([self.a(x), self.b(x)], dim=1))
            assert isinstance(out, Tensor)
            return out

    model = Concatenated()
    group = mli.scale_symmetries(model, INPUTS)
    assert group.eta_factors({"a.weight": 2.0, "b.weight": 2.0}) == {"bn": 4.0}
    with pytest.raises(SymmetryError, match="parts of what `bn` normalises scale apart"):
        mli.with_eta(model, group, {"a.weight": 2.0})


# The path


def test_the_rectified_path_takes_the_exponents_from_the_group() -> None:
    model = chain(3)
    group = mli.scale_symmetries(model, INPUTS)
    path = mli.RectifiedPath(model.state_dict(), group)
    assert path.exponents == {
        f"fc{k}.{kind}": k if kind == "bias" else 1 for k in (1, 2, 3) for kind in ("weight", "bias")
    }
    before = output(model, model.state_dict(), INPUTS)
    for alpha in (0.5, 0.125, 1.0):
        assert path.temperature(alpha) == alpha**3
        assert torch.equal(output(model, path.state(alpha), INPUTS), before * alpha**3)
    with pytest.raises(OptionError, match="alpha > 0"):
        path.temperature(0.0)


def test_after_a_normalisation_the_exponents_start_again() -> None:
    assert rectified(mli.scale_symmetries(normalised(), IMAGES)) == {
        **{f"{layer}.weight": 1 for layer in ("conv1", "bn1", "conv2", "bn2", "fc")},
        "conv1.bias": 1,
        "bn1.bias": 1,
        "conv2.bias": 2,
        "bn2.bias": 1,
        "fc.bias": 2,
    }


def test_a_rectified_path_wants_a_state_and_a_network_that_fit() -> None:
    group = mli.scale_symmetries(chain(3), INPUTS)
    with pytest.raises(StateMismatchError, match=r"`fc4\.weight` is not of this network"):
        mli.RectifiedPath(chain(4).state_dict(), group)
    model = Residual()
    with pytest.raises(SymmetryError, match="RSI does not apply"):
        mli.RectifiedPath(model.state_dict(), mli.scale_symmetries(model, INPUTS))
