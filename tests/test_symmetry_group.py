"""The group's own ways: elements, completion, violations, tied tensors, several outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from symmetry_helpers import output, without_eta
from torch import Tensor, nn

import mli_check as mli
from mli_check.errors import OptionError, StateMismatchError, SymmetryError, UnknownNameError
from mli_check.strategies import fill, scale_factors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mli_check.symmetry import Symmetries

INPUTS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


class Tied(nn.Module):
    """One weight used twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        found = self.last(self.second(self.first(x).relu()).relu())
        assert isinstance(found, Tensor)
        return found


class TwoHeads(nn.Module):
    """Two outputs, of which one is passed on unchanged by a third tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 2)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x).relu()
        return {"left": self.left(h), "right": self.right(h)}


def chain() -> nn.Sequential:
    return fill(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 0)


def group() -> Symmetries:
    return mli.scale_symmetries(chain(), INPUTS)


# Dimension and basis


def test_a_chain_has_one_symmetry_for_each_layer_but_the_last() -> None:
    found = group()
    assert (found.dimension, found.free.dimension) == (1, 2)
    assert found.basis == ({"0.weight": 1, "0.bias": 1, "2.weight": -1},)
    assert found.weights == ("0.weight", "2.weight")
    assert str(found) == "1 scale symmetries of 4 tensors, 3 equations, output fixed"


def test_free_and_fixed_lead_back_to_each_other() -> None:
    found = group()
    assert found.free.fixed.equations == found.equations
    assert found.free.free is found.free or found.free.free == found.free
    assert mli.scale_symmetries(chain(), INPUTS, output="free").dimension == 2


def test_an_unused_tensor_is_free() -> None:
    found = mli.scale_symmetries(TwoHeads(), INPUTS)
    assert {"unused": 1} in found.basis


def test_every_equation_says_why_in_the_models_terms() -> None:
    assert [str(equation) for equation in group().equations] == [
        "`0.bias` must scale as `0.weight` times the layer's input, which it is added to (in `0` (Linear))",
        "`2.bias` must scale as `2.weight` times the layer's input, which it is added to (in `2` (Linear))",
        "the output must scale as 1, to stay what it is",
    ]


# Elements


def test_an_element_is_reproducible_and_its_factors_are_powers_of_two() -> None:
    found = group().free
    assert found.sample(3) == found.sample(3) != found.sample(4)
    assert all(math.frexp(factor)[0] == 0.5 for factor in found.sample(3).values())
    assert any(math.frexp(factor)[0] != 0.5 for factor in found.sample(3, dyadic=False).values())
    assert found.violations(found.sample(3, dyadic=False)) == []


def test_the_identity_and_products_of_elements_are_elements() -> None:
    found = group().free
    first, second = found.sample(0), found.sample(1)
    assert found.violations({}) == found.violations({name: first[name] * second[name] for name in first}) == []
    assert found.violations({name: 1 / factor for name, factor in first.items()}) == []


def test_applying_and_taking_back_is_the_identity_and_leaves_the_state_alone() -> None:
    found, state = group(), chain().state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    factors = found.sample(0)
    there = found.apply(state, factors)
    back = found.apply(there, {name: 1 / factor for name, factor in factors.items()})
    assert all(torch.equal(back[name], before[name]) and torch.equal(state[name], before[name]) for name in before)
    assert not torch.equal(there["0.weight"], before["0.weight"])


def test_the_reach_of_an_element_counts_what_layers_make() -> None:
    assert group().free.reach({"0.weight": 4.0, "0.bias": 4.0, "2.weight": 4.0, "2.bias": 16.0}) == 4.0
    assert group().reach({}) == 0.0


# Completion and violations


def test_completing_moves_biases_first_and_then_the_last_weight() -> None:
    assert group().complete({"0.weight": 8.0}) == {"0.weight": 8.0, "0.bias": 8.0, "2.weight": 0.125, "2.bias": 1.0}
    assert group().complete({"0.bias": 3.0})["2.weight"] == pytest.approx(1 / 3)
    assert group().complete({}) == dict.fromkeys(group().tensors, 1.0)


def test_completing_what_contradicts_itself_names_the_equations() -> None:
    with pytest.raises(SymmetryError, match=r"contradict one another:\n  `0.bias` must scale as `0.weight`") as caught:
        group().complete({"0.weight": 2.0, "0.bias": 4.0})
    assert [equation.what for equation in caught.value.equations] == ["`0.bias`"]  # type: ignore[attr-defined]


def test_a_violation_says_what_was_wanted_and_what_was_got() -> None:
    texts = [str(one) for one in group().violations({"0.weight": 2.0, "0.bias": 3.0, "2.weight": 0.5})]
    assert texts == [
        "`0.bias` must scale as 2 here, these factors scale it as 3 "
        "(like `0.weight` times the layer's input, which it is added to; in `0` (Linear))"
    ]


# Tied tensors, several outputs


def test_a_tied_weight_is_one_tensor_and_is_scaled_under_both_names() -> None:
    model = fill(Tied(), 0)
    found = mli.scale_symmetries(model, INPUTS)
    assert found.aliases == {"second.weight": "first.weight"}
    assert "second.weight" not in found.tensors
    factors = found.complete({"second.weight": 2.0})
    assert factors == found.complete({"first.weight": 2.0})
    assert (factors["first.bias"], factors["second.bias"], factors["last.weight"]) == (2.0, 4.0, 0.25)
    state = found.apply(model.state_dict(), factors)
    assert torch.equal(state["second.weight"], state["first.weight"])
    assert torch.equal(output(model, state, INPUTS), output(model, model.state_dict(), INPUTS))
    assert mli.rsi(found, {"second": 2.0}, restore=None) == mli.rsi(found, {"first": 2.0}, restore=None)


def test_every_output_has_a_factor_of_its_own() -> None:
    found = mli.scale_symmetries(TwoHeads(), INPUTS).free
    left, right = "the output['left']", "the output['right']"
    assert tuple(found.outputs) == (left, right)
    factors = {"left.weight": 2.0, "left.bias": 2.0}
    assert found.violations(factors) == []
    assert (found.output_factor(factors, left), found.output_factor(factors, right)) == (2.0, 1.0)
    with pytest.raises(OptionError, match="2 outputs, name one"):
        found.output_factor(factors)
    with pytest.raises(UnknownNameError, match="unknown output 'middle'"):
        found.output_factor(factors, "middle")


def test_eval_mode_brings_the_running_statistics_in() -> None:
    model = without_eta(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
    trained, frozen = (mli.scale_symmetries(model.train(mode), INPUTS) for mode in (True, False))
    assert set(frozen.tensors) - set(trained.tensors) == {"1.running_mean", "1.running_var"}
    found = frozen.complete({"0.weight": 2.0})
    assert (found["0.bias"], found["1.running_mean"], found["1.running_var"]) == (2.0, 2.0, 4.0)
    assert [equation.what for equation in trained.removed] == ["`0.bias`"]
    assert trained.dimension == trained.exact.dimension + 1


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: g.sample(0, spread=0), OptionError, "`spread` must be a whole number of at least 1, got spread=0"),
        (lambda g: g.element([1.0, 2.0]), OptionError, "an element has 1 coordinates, got 2"),
        (lambda g: g.violations({"0.weigth": 2.0}), UnknownNameError, "Did you mean `0.weight`"),
        (lambda g: g.apply(chain().state_dict(), {"0.weight": -1.0}), OptionError, "positive, finite number, got -1.0"),
        (lambda g: g.apply(chain().state_dict(), {"0.weight": 1e39}), OptionError, "leaves the range of torch.float32"),
        (lambda g: g.apply({}, {}), StateMismatchError, "`0.weight` is missing"),
        (lambda g: scale_factors(g, spread=0), OptionError, "`spread` must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[Symmetries], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(group())


def test_factors_of_tied_tensors_have_to_agree() -> None:
    found = mli.scale_symmetries(fill(Tied(), 0), INPUTS)
    factors: Mapping[str, float] = {"first.weight": 2.0, "second.weight": 4.0}
    with pytest.raises(OptionError, match=r"are one tied tensor: 4\.0 and 2\.0 differ"):
        found.violations(factors)


def test_an_output_is_fixed_or_free() -> None:
    with pytest.raises(UnknownNameError, match="unknown output 'loose'"):
        mli.scale_symmetries(chain(), INPUTS, output="loose")  # type: ignore[arg-type]
